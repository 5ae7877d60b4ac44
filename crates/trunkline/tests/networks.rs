//! What the keys of networks and pools mean on real interfaces: one gateway for all nodes,
//! `fixed_range`, pools with a router of their own, zones, public addresses.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::collections::BTreeMap;
use std::time::Duration;

use lab::{Capture, HOOKS, Lab, Running};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");

/// Replaces these parts of a node's file, of which each is there once, and has it read again.
fn change(lab: &Lab, node: &str, changes: &[(&str, &str)]) {
    let file = format!("/run/trunkline-lab/{node}.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    for (old, new) in changes {
        assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
        text = text.replace(old, new);
    }
    std::fs::write(file, text).unwrap();
    lab.run(node, PROGRAM, &["ctl", "--node", node, "reload"]);
}

/// Gives a VM another address in a /24, and a gateway.
fn renumber(lab: &Lab, vm: &str, address: &str, gateway: &str) {
    lab.run(vm, "ip", &["-4", "addr", "flush", "dev", "eth0"]);
    lab.run(vm, "ip", &["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    lab.run(vm, "ip", &["route", "replace", "default", "via", gateway]);
}

fn mac(lab: &Lab, host: &str, interface: &str) -> String {
    let link = lab.run(host, "ip", &["-o", "link", "show", interface]);
    link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned()
}

/// How many lines have all these words.
fn count(lines: &[String], words: &[&str]) -> usize {
    lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn none() -> Vec<String> {
    Vec::new()
}

/// A web server on port 8080 of a host with one file, `/what`, of a megabyte of this letter.
struct Web {
    _folder: tempfile::TempDir,
    _server: Running,
}

fn serve(lab: &Lab, host: &str, letter: &str) -> Web {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("what"), letter.repeat(1 << 20)).unwrap();
    let path = folder.path().to_str().unwrap();
    let server = lab.web_server(host, path);
    Web { _folder: folder, _server: server }
}

/// A client that fetches a server's megabyte.
struct Fetch {
    client: Running,
    file: tempfile::NamedTempFile,
}

impl Fetch {
    fn start(lab: &Lab, from: &str, address: &str, more: &[&str]) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (path, url) = (file.path().to_str().unwrap(), format!("http://{address}:8080/what"));
        let words = ["-sf", "--max-time", "10", "-o", path, &url];
        Self { client: lab.start(from, "curl", &[&words, more].concat()), file }
    }

    /// Waits for the whole of it, and says which letter it is of.
    fn letter(mut self) -> char {
        let said = self.client.wait();
        let text = std::fs::read_to_string(self.file.path()).unwrap();
        assert!(said.ok && text.len() == 1 << 20, "{said:?}, {} bytes", text.len());
        let first = text.chars().next().unwrap();
        assert!(text.chars().all(|other| other == first));
        first
    }
}

fn fetch(lab: &Lab, from: &str, address: &str) -> char {
    Fetch::start(lab, from, address, &[]).letter()
}

/// Pings that are seen where they arrive: who asks, whom, which VM (or router) that is, and whose
/// name it sees. There arrives nothing else.
type Ways<'w> = [(&'w str, &'w str, &'w str, &'w str)];

fn arrive(lab: &Lab, ways: &Ways<'_>) {
    let mut places: BTreeMap<&str, Capture> = BTreeMap::new();
    for (_, _, at, _) in ways {
        // What only passes by the router is not meant for it.
        let meant = if *at == "inet" { " and dst host 8.8.8.8" } else { "" };
        places.entry(at).or_insert_with(|| {
            let own = mac(lab, at, "eth0");
            lab.capture(at, "eth0", &format!("icmp[0] = 8 and not ether src {own}{meant}"))
        });
    }
    for (from, to, _, _) in ways {
        lab.pings(from, to);
    }
    for (place, capture) in places {
        let lines = capture.stop();
        let here = ways.iter().filter(|(_, _, at, _)| *at == place);
        for (from, to, _, seen) in here.clone() {
            let named = count(&lines, &[&format!(" {seen} > ")]);
            assert!(named >= 20, "{from} to {to} at {place}: {named} {:?}", lines.first());
        }
        let all: usize = here.map(|(_, _, _, seen)| count(&lines, &[&format!(" {seen} > ")])).sum();
        assert_eq!(lines.len(), all, "{place}: {lines:?}");
    }
}

#[test]
fn a_network_with_a_host_has_its_gateway_there_alone() {
    let lab = Lab::up(&[]);
    let host = "gateway = \"10.0.0.1\"\nhost = \"left\"";
    change(&lab, "left", &[("gateway = \"10.0.0.1\"", host)]);
    change(&lab, "right", &[("gateway = \"10.0.0.5\"", host)]);
    lab.run("vm5", "ip", &["route", "replace", "default", "via", "10.0.0.1"]);
    let (left, right) = (mac(&lab, "left", "eth1"), mac(&lab, "right", "eth1"));
    let filter = "icmp or tcp or arp host 91.208.23.15";
    let out = lab.capture("switch", "left-eth1", filter);
    let beside = lab.capture("switch", "right-eth1", filter);
    // One station answers for the gateway, the left node over the trunk; nobody for the old one.
    let answers = lab.capture("vm5", "eth0", "arp[6:2] = 2");
    lab.run("vm5", "busybox", &["arping", "-c", "2", "-I", "eth0", "10.0.0.1"]);
    lab.exec("vm5", "busybox", &["arping", "-c", "1", "-w", "1", "-I", "eth0", "10.0.0.5"]);
    let answers = answers.stop();
    let by_left = count(&answers, &[&format!("10.0.0.1 is-at {}", mac(&lab, "left", "eth0"))]);
    assert!(by_left >= 2 && by_left == answers.len(), "{answers:?}");
    let feet = lab.run("right", "ip", &["-4", "addr", "show", "br100"]);
    assert!(!feet.contains("10.0.0."), "{feet}");
    // Out and back by the left node, as the left node.
    lab.pings("vm5", "8.8.8.8");
    lab.pings("vm5", "10.0.0.1");
    lab.pings("vm3", "10.0.0.7");
    // The right node has no way into that network, and says so.
    let text = lab.exec("vm6", "ping", &["-n", "-c", "1", "-W", "1", "10.0.0.7"]).text;
    assert!(text.contains("From 10.1.0.5 icmp_seq=1 Destination Host Unreachable"), "{text}");
    // A floating address that both files list is the left node's to answer for.
    let float = "[[floating_ip]]\naddress = \"91.208.23.15\"\nfixed = \"10.0.0.7\"\n\n";
    for (node, vif) in [("left", "vnet1"), ("right", "vnet4")] {
        let vif = format!("[[vif]]\nname = \"{vif}\"");
        change(&lab, node, &[(&vif, &format!("{float}{vif}"))]);
    }
    let _web = serve(&lab, "vm5", "f");
    assert_eq!(fetch(&lab, "inet", "91.208.23.15"), 'f');
    lab.pings("vm5", "8.8.8.8");
    let (out, beside) = (out.stop(), beside.stop());
    for (one, other) in [("91.207.15.105", "8.8.8.8"), ("91.208.23.15", "8.8.8.8")] {
        let asked = count(&out, &[&format!("{one} > {other}"), "echo request"]);
        let answered = count(&out, &[&format!("{other} > {one}"), "echo reply"]);
        assert!(asked == answered && asked >= 20, "{one}: {asked} {answered}");
    }
    let claims = "91.208.23.15 is-at";
    assert!(count(&out, &[&format!("{claims} {left}")]) > 0);
    assert_eq!(count(&out, &[claims]), count(&out, &[&format!("{claims} {left}")]));
    // The switch floods some frames there; the right node itself says nothing.
    assert_eq!(count(&beside, &[&format!("{right} >")]), 0, "{beside:?}");
}

#[test]
fn fixed_range_translates_all_that_is_in_it_and_lets_nothing_else_out() {
    let lab = Lab::up(&[]);
    let top = "node = \"left\"";
    change(&lab, "left", &[(top, &format!("fixed_range = \"10.0.0.0/8\"\n{top}"))]);
    let words = "fixed_range = 10.0.0.0/8 translates all tenants as one range";
    let told = lab.ctl("left", &["status"])["warnings"].to_string();
    assert!(told.contains(words) && lab.log("left").contains(words), "{told}");
    let out = lab.capture("switch", "left-eth1", "icmp[0] = 8 or src net 10.0.0.0/8");
    // In the range and in no network: nova sent such a packet out as it was.
    lab.exec("vm2", "ping", &["-n", "-c", "2", "-i", "0.2", "-W", "1", "10.9.9.9"]);
    arrive(
        &lab,
        &[
            ("vm2", "10.1.0.3", "vm3", "10.0.0.4"),
            ("vm3", "10.0.0.4", "vm2", "10.1.0.3"),
            ("vm2", "10.1.0.4", "vm6", "10.0.0.4"),
        ],
    );
    lab.pings("vm2", "8.8.8.8");
    // A narrower one, under a running ping of who is outside of it.
    let running = lab.start("vm3", "ping", &["-n", "-i", "0.1", "-w", "20", "8.8.8.8"]);
    std::thread::sleep(Duration::from_secs(1));
    change(&lab, "left", &[("10.0.0.0/8", "10.0.0.0/24")]);
    std::thread::sleep(Duration::from_millis(300));
    let after = lab.capture("vm3", "eth0", "icmp and src host 8.8.8.8");
    lab.pings("vm2", "8.8.8.8");
    lab.pings("vm2", "10.1.0.3");
    assert_eq!(after.stop(), none());
    drop(running);
    let out = out.stop();
    let shared = "91.207.15.105 > ";
    assert_eq!(count(&out, &[shared]), out.len(), "something leaked: {out:?}");
    assert_eq!(count(&out, &[shared, "10.9.9.9"]), 2);
    assert!(count(&out, &[shared, "8.8.8.8"]) > 45, "40 of VM 2, and VM 3's: {}", out.len());
    let drops = lab.ctl("left", &["status"])["drops"]["no_source"].as_u64();
    assert!(drops > Some(3), "{drops:?}");
}

/// A second router beside 91.207.15.1 on the public side, 91.207.15.2. Returns the MACs of both.
fn second_router(lab: &Lab) -> (String, String) {
    let ip = |words: &str| lab.run("inet", "ip", &words.split(' ').collect::<Vec<_>>());
    // Each of its two feet answers for its own address.
    lab.run("inet", "sysctl", &["-qw", "net.ipv4.conf.all.arp_ignore=1"]);
    ip("link add eth1 link eth0 type macvlan mode bridge");
    ip("addr add 91.207.15.2/32 dev eth1");
    ip("link set eth1 up");
    (mac(lab, "inet", "eth0"), mac(lab, "inet", "eth1"))
}

#[test]
fn floats_of_a_pool_leave_by_its_next_hop_and_all_others_by_the_nodes() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let (first, second) = second_router(&lab);
        let own = "address = \"91.208.23.11\"";
        let pool = format!("{own}\npool = \"nova\"");
        let more = "[[floating_ip]]\naddress = \"91.208.23.12\"\nfixed = \"10.1.0.3\"\n\n\
                    [[pool]]\nname = \"nova\"\nnext_hop = \"91.207.15.2\"\n\n[[vif]]\nname = \"vnet1\"";
        change(&lab, "left", &[(own, &pool), ("[[vif]]\nname = \"vnet1\"", more)]);
        let to = |mac: &str| format!("> {mac}, ethertype IPv4");
        let wire = lab.capture("switch", "left-eth1", "icmp or tcp");
        // Who asks, whom, what of it leaves the left node, and by which router.
        let ways = [
            ("vm1", "8.8.8.8", "91.208.23.11 > 8.8.8.8: ICMP echo request", &second),
            ("inet", "91.208.23.11", "91.208.23.11 > 91.207.15.1: ICMP echo reply", &second),
            ("vm1", "91.208.23.16", "91.208.23.11 > 91.208.23.16: ICMP echo request", &second),
            ("vm2", "8.8.8.8", "91.207.15.105 > 8.8.8.8: ICMP echo request", &first),
            ("vm3", "8.8.8.8", "91.208.23.12 > 8.8.8.8: ICMP echo request", &first),
            ("inet", "91.208.23.12", "91.208.23.12 > 91.207.15.1: ICMP echo reply", &first),
        ];
        for (from, address, _, _) in ways {
            lab.pings(from, address);
        }
        let web = serve(&lab, "inet", "i");
        assert_eq!(fetch(&lab, "vm1", "8.8.8.8"), 'i');
        drop(web);
        let _web = serve(&lab, "vm1", "v");
        assert_eq!(fetch(&lab, "inet", "91.208.23.11"), 'v');
        let wire = wire.stop();
        let node = format!("{} >", mac(&lab, "left", "eth1"));
        for (from, address, what, by) in ways {
            let out = (count(&wire, &[&node, what, &to(by)]), count(&wire, &[&node, what]));
            assert!(out.0 >= 20 && out.0 == out.1, "{from} to {address}, hook {hook}: {out:?}");
        }
        for port in ["91.208.23.11.8080 >", "> 8.8.8.8.8080"] {
            let all = count(&wire, &[&node, port]);
            assert!(all > 10 && all == count(&wire, &[&node, port, &to(&second)]), "hook {hook}");
        }
        // Another router, under running pings in both directions.
        let pings = [("vm1", "8.8.8.8"), ("inet", "91.208.23.11")]
            .map(|(from, to)| lab.start(from, "ping", &["-n", "-i", "0.1", "-w", "20", to]));
        std::thread::sleep(Duration::from_millis(300));
        change(&lab, "left", &[("next_hop = \"91.207.15.2\"", "next_hop = \"91.207.15.1\"")]);
        std::thread::sleep(Duration::from_millis(300));
        let wire = lab.capture("switch", "left-eth1", "icmp and src host 91.208.23.11");
        std::thread::sleep(Duration::from_secs(1));
        let wire = wire.stop();
        for kind in ["echo request", "echo reply"] {
            assert!(count(&wire, &[kind]) >= 8, "hook {hook}: {kind} in {wire:?}");
        }
        assert_eq!(count(&wire, &[&to(&first)]), wire.len(), "hook {hook}: {wire:?}");
        drop(pings);
    }
}

/// Tenant 2 becomes a zone of its own with tenant 1's prefix: VM 3 has VM 2's address, and VM 6 has
/// VM 1's.
fn twin_tenants(lab: &Lab) {
    let blue = [("vlan = 102", "vlan = 102\nzone = \"blue\""), ("10.1.0.0/24", "10.0.0.0/24")];
    let float = "address = \"91.208.23.11\"\nfixed = \"10.0.0.3\"";
    let named = format!("{float}\nnetwork = \"tenant1\"");
    let more = "[[floating_ip]]\naddress = \"91.208.23.13\"\nfixed = \"10.0.0.8\"\n\
                network = \"tenant2\"\n\n[[vif]]\nname = \"vnet1\"";
    let left = [
        ("\"10.1.0.1\"", "\"10.0.0.1\""),
        ("[\"10.1.0.3\"]", "[\"10.0.0.4\", \"10.0.0.8\"]"),
        (float, &named),
        ("[[vif]]\nname = \"vnet1\"", more),
    ];
    change(lab, "left", &[&blue[..], &left].concat());
    let right = [
        ("\"10.1.0.5\"", "\"10.0.0.5\""),
        ("[\"10.1.0.4\"]", "[\"10.0.0.3\"]"),
        ("fixed = \"10.1.0.4\"", "fixed = \"10.0.0.3\"\nnetwork = \"tenant2\""),
    ];
    change(lab, "right", &[&blue[..], &right].concat());
    renumber(lab, "vm3", "10.0.0.4", "10.0.0.1");
    lab.run("vm3", "ip", &["addr", "add", "10.0.0.8/24", "dev", "eth0"]);
    renumber(lab, "vm6", "10.0.0.3", "10.0.0.5");
}

#[test]
fn two_tenants_with_one_prefix_reach_their_own_and_the_internet_and_not_each_other() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        twin_tenants(&lab);
        // VM 4 and VM 5 are tenant 1's: for VM 3 nobody is there, on the link and by the gateway.
        let theirs =
            "src host 10.0.0.4 or ether src fa:16:3e:00:00:03 or ether src fa:16:3e:00:00:06";
        let others = ["vm4", "vm5"].map(|vm| lab.capture(vm, "eth0", theirs));
        lab.run("vm3", "ip", &["route", "add", "10.0.0.7/32", "via", "10.0.0.1"]);
        let alone = ["10.0.0.6", "10.0.0.7"]
            .map(|to| lab.start("vm3", "ping", &["-n", "-c", "2", "-W", "2", to]));
        // Each address is there twice, and the one of the same tenant answers. Floating addresses
        // are the way to each other, as to everybody else. The host lives in tenant 1's zone.
        let shared = "91.207.15.105";
        arrive(
            &lab,
            &[
                ("vm1", "10.0.0.4", "vm2", "10.0.0.3"),
                ("vm4", "10.0.0.3", "vm1", "10.0.0.6"),
                ("vm3", "10.0.0.3", "vm6", "10.0.0.4"),
                ("vm6", "10.0.0.4", "vm3", "10.0.0.3"),
                ("vm1", "8.8.8.8", "inet", "91.208.23.11"),
                ("vm6", "8.8.8.8", "inet", "91.208.23.16"),
                ("inet", "91.208.23.16", "vm6", "91.207.15.1"),
                ("inet", "91.208.23.11", "vm1", "91.207.15.1"),
                ("vm2", "91.208.23.16", "vm6", shared),
                ("vm2", "91.208.23.13", "vm3", shared),
                ("vm1", "91.208.23.13", "vm3", "91.208.23.11"),
                ("vm3", "91.208.23.11", "vm1", shared),
                ("left", "10.0.0.4", "vm2", "10.0.0.1"),
            ],
        );
        // VM 2 and VM 3 ask the same server from the same address and port at once.
        let _web = serve(&lab, "inet", "i");
        let wire = lab.capture("switch", "left-eth1", "tcp[tcpflags] == tcp-syn");
        let same = ["--local-port", "30000", "--limit-rate", "2M"];
        let clients = ["vm2", "vm3"].map(|vm| Fetch::start(&lab, vm, "8.8.8.8", &same));
        assert_eq!(clients.map(Fetch::letter), ['i', 'i'], "hook {hook}");
        let wire = wire.stop();
        let out = count(&wire, &["91.207.15.105.", "> 8.8.8.8.8080"]);
        assert_eq!((out, wire.len()), (2, 2), "hook {hook}: {wire:?}");
        assert_eq!(count(&wire, &["91.207.15.105.30000"]), 1, "hook {hook}: {wire:?}");
        for mut ping in alone {
            assert_eq!(lab::pinged(&ping.wait().text), (2, 0), "hook {hook}");
        }
        assert_eq!(others.map(Capture::stop), [none(), none()], "hook {hook}");
        let feet = lab.run("left", "ip", &["-4", "addr", "show", "br102"]);
        assert!(!feet.contains("10.0.0.1"), "hook {hook}: {feet}");
    }
}

#[test]
fn a_public_network_is_reached_by_its_vms_own_addresses() {
    let lab = Lab::up(&[]);
    let public = [("vlan = 102", "vlan = 102\npublic = true"), ("10.1.0.0/24", "91.209.1.0/24")];
    let left = [("\"10.1.0.1\"", "\"91.209.1.1\""), ("[\"10.1.0.3\"]", "[\"91.209.1.3\"]")];
    change(&lab, "left", &[&public[..], &left].concat());
    let right = [
        ("\"10.1.0.5\"", "\"91.209.1.5\""),
        ("[\"10.1.0.4\"]", "[\"91.209.1.4\"]"),
        ("\n[[floating_ip]]\naddress = \"91.208.23.16\"\nfixed = \"10.1.0.4\"\n", ""),
    ];
    change(&lab, "right", &[&public[..], &right].concat());
    renumber(&lab, "vm3", "91.209.1.3", "91.209.1.1");
    renumber(&lab, "vm6", "91.209.1.4", "91.209.1.5");
    lab.run("inet", "ip", &["route", "add", "91.209.1.0/24", "via", "91.207.15.105"]);
    // What nobody has there is said to be unreachable, and does not go in circles.
    let nobody = ["-n", "-c", "1", "-W", "5", "91.209.1.99"];
    let mut nobody = lab.start("inet", "ping", &nobody);
    let left = lab.capture("switch", "left-eth1", "icmp or net 10.0.0.0/8");
    let right = lab.capture("switch", "right-eth1", "src host 91.209.1.4");
    // VM 6 is asked by the left node, over the trunk, and answers by its own, which is its
    // gateway. Private addresses get there without leaving the nodes, as themselves.
    arrive(
        &lab,
        &[
            ("inet", "91.209.1.3", "vm3", "91.207.15.1"),
            ("vm3", "8.8.8.8", "inet", "91.209.1.3"),
            ("inet", "91.209.1.4", "vm6", "91.207.15.1"),
            ("vm2", "91.209.1.4", "vm6", "10.0.0.4"),
            ("vm3", "10.0.0.4", "vm2", "91.209.1.3"),
        ],
    );
    let web = serve(&lab, "vm3", "v");
    assert_eq!(fetch(&lab, "inet", "91.209.1.3"), 'v');
    drop(web);
    let _web = serve(&lab, "vm6", "w");
    assert_eq!(fetch(&lab, "inet", "91.209.1.4"), 'w');
    let (left, right) = (left.stop(), right.stop());
    for (one, other) in [("91.207.15.1", "91.209.1.3"), ("91.209.1.3", "8.8.8.8")] {
        let asked = count(&left, &[&format!("{one} > {other}"), "echo request"]);
        let answered = count(&left, &[&format!("{other} > {one}"), "echo reply"]);
        assert!(asked >= 20 && answered >= 20, "{one} to {other}: {asked} {answered}");
    }
    assert_eq!(count(&left, &["91.207.15.105 >", "ICMP echo"]), 0, "translated");
    assert_eq!(count(&left, &[" 10.0.0."]), 0, "leaked");
    assert!(count(&right, &["91.209.1.4 > 91.207.15.1: ICMP echo reply"]) >= 20);
    assert!(count(&right, &["91.209.1.4.8080 >"]) > 10);
    let text = nobody.wait().text;
    assert!(text.contains("Destination Host Unreachable"), "{text}");
}

#[test]
fn what_is_taken_away_is_announced_no_more() {
    let lab = Lab::up(&[]);
    let float = "\n[[floating_ip]]\naddress = \"91.208.23.11\"\nfixed = \"10.0.0.3\"\n";
    change(&lab, "left", &[(float, ""), ("gateway = \"10.0.0.1\"", "gateway = \"10.0.0.9\"")]);
    // Two more of each were still to come, a second apart.
    let outside = lab.capture("inet", "eth0", "arp[6:2] = 2 and arp src host 91.208.23.11");
    let inside = lab.capture("vm2", "eth0", "arp[6:2] = 2 and ether src 02:74:6c:00:00:01");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(outside.stop(), none());
    let inside = inside.stop();
    let new = count(&inside, &["10.0.0.9 is-at"]);
    assert!(new >= 1 && new == inside.len(), "{inside:?}");
}
