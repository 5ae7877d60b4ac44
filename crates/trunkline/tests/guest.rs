//! A real guest as a VM: Debian's kernel in QEMU, virtio-net on a tap of the left node.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use lab::{HOOKS, Lab, Running};

/// The guest's address, and whom it talks to: a VM beside it, one on the other node, and the
/// Internet by the node's shared source address.
const GUEST: &str = "10.0.0.8";
const PEERS: [(&str, &str); 3] = [("vm2", "10.0.0.4"), ("vm5", "10.0.0.7"), ("inet", "8.8.8.8")];
/// As whom the Internet sees it.
const SHARED: &str = "91.207.15.105";
/// Bytes of each transfer.
const FILE: u64 = 3_000_000;
/// Bytes of TCP in the largest frame.
const MSS: u64 = 1460;
/// What tcpdump says of a wrong checksum of TCP, of an IP header, of ICMP.
const WRONG: [&str; 3] = ["incorrect", "bad cksum", "wrong icmp cksum"];

/// Makes the cables behind the left node like wires: frames finished, one by one. Otherwise a
/// checksum left open by the guest would go on from veth to veth, and GRO would open it again.
fn lay_wires(lab: &Lab) {
    for (host, interface) in [("switch", "right-eth0"), ("switch", "inet-eth0")] {
        lab.run(host, "ethtool", &["-K", interface, "tx", "off"]);
    }
    for (host, interface) in [("right", "eth0"), ("vm2", "eth0"), ("vm5", "eth0"), ("inet", "eth0")]
    {
        lab.run(host, "ethtool", &["-K", interface, "gro", "off"]);
    }
}

/// Random bytes in a file on a host; returns their sum.
fn make_file(lab: &Lab, host: &str, path: &str) -> String {
    let make = format!("head -c {FILE} /dev/urandom >{path}; sha256sum <{path}");
    lab.run(host, "sh", &["-c", &make]).trim().to_owned()
}

/// The peers' web servers.
fn serve(lab: &Lab, folder: &str) -> Vec<Running> {
    PEERS.map(|(peer, _)| lab.web_server(peer, folder)).into()
}

/// What `host` reads from `address`: its sum.
fn fetched(lab: &Lab, host: &str, address: &str) -> String {
    let get = format!("timeout 30 busybox wget -qO- http://{address}:8080/file | sha256sum");
    lab.run(host, "sh", &["-c", &get]).trim().to_owned()
}

/// What the guest pours into a connection of its own: its sum, as the peer answers it.
fn sent(lab: &Lab, peer: &str, address: &str) -> String {
    let listen = ["30", "busybox", "nc", "-l", "-p", "9000", "-e", "sha256sum"];
    let _listening = lab.serve(peer, 9000, "timeout", &listen);
    let send = format!("timeout 30 nc {address} 9000 </srv/file");
    lab.run("guest", "sh", &["-c", &send]).trim().to_owned()
}

/// Pings and transfers both ways, opened from both sides where both can be reached.
fn talk(lab: &Lab, theirs: &str, own: &str) {
    for (peer, address) in PEERS {
        lab.pings("guest", address);
        assert_eq!(fetched(lab, "guest", address), theirs, "{peer} → guest");
        assert_eq!(sent(lab, peer, address), own, "guest → {peer}");
        if peer != "inet" {
            lab.pings(peer, GUEST);
            assert_eq!(fetched(lab, peer, GUEST), own, "{peer} asks the guest");
        }
    }
}

/// Talks, and looks at all that comes from the guest at some of its peers: no checksum is wrong.
fn talk_watched(lab: &Lab, peers: &[&str], theirs: &str, own: &str) {
    let from = format!("(tcp or icmp) and (src host {GUEST} or src host {SHARED})");
    let watched: Vec<_> =
        peers.iter().map(|peer| (peer, lab.capture(peer, "eth0", &from))).collect();
    talk(lab, theirs, own);
    for (peer, capture) in watched {
        let lines = capture.stop();
        let wrong = lines.iter().filter(|line| WRONG.iter().any(|words| line.contains(words)));
        let wrong: Vec<_> = wrong.collect();
        let right = lines.iter().filter(|line| line.contains("(correct)")).count() as u64;
        eprintln!("{peer}: {right} TCP packets of the guest right, {} wrong", wrong.len());
        assert!(wrong.is_empty(), "{peer}: {} of {}: {}", wrong.len(), lines.len(), wrong[0]);
        assert!(right >= FILE / MSS, "{peer}: {right} seen");
    }
}

/// How a port is attached, in the words of `ctl ports`.
fn hook_of(lab: &Lab, name: &str) -> String {
    let ports = lab.ctl("left", &["ports"]);
    let port = ports.as_array().unwrap().iter().find(|port| port["name"] == name).unwrap();
    port["hook"].as_str().unwrap().to_owned()
}

#[test]
fn a_guest_in_qemu_talks_both_ways_with_its_offloads_and_without() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        lab.guest("vm");
        lay_wires(&lab);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let theirs = make_file(&lab, "vm2", &format!("{path}/file"));
        lab.run("guest", "mkdir", &["/srv"]);
        let own = make_file(&lab, "guest", "/srv/file");
        lab.run("guest", "httpd", &["-p", "8080", "-h", "/srv"]);
        let _servers = serve(&lab, path);

        eprintln!("hook {hook}, the guest finishes its checksums");
        lab.run("guest", "ethtool", &["-K", "eth0", "tx", "off"]);
        talk_watched(&lab, &["vm2", "vm5", "inet"], &theirs, &own);
        assert!(hook_of(&lab, "tap7").starts_with(hook), "{}", hook_of(&lab, "tap7"));

        eprintln!("hook {hook}, it leaves checksums and segments to the device");
        lab.run("guest", "ethtool", &["-K", "eth0", "tx", "on", "tso", "on"]);
        // Beside it, VM 2 is handed the packets as the guest made them: not finished.
        talk_watched(&lab, &["vm5", "inet"], &theirs, &own);
        assert!(hook_of(&lab, "tap7").starts_with("tc"), "{}", hook_of(&lab, "tap7"));
        let moved = lab
            .log("left")
            .lines()
            .any(|line| line.contains("tap7") && line.contains("moves from XDP to tc"));
        assert_eq!(moved, hook == "xdp", "hook {hook}");
        for host in ["guest", "vm2", "vm5", "inet"] {
            assert_eq!(lab.bad_checksums(host), 0, "hook {hook}, {host}");
        }
    }
}
