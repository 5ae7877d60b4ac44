//! What tenants do all day, through the shared source address, floating addresses and hairpins:
//! real clients, both hooks.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::process::Command;

use lab::{HOOKS, Lab};

/// A way through address translation: what it is, who asks, who serves, the address asked.
const WAYS: [(&str, &str, &str, &str); 6] = [
    ("shared source address", "vm2", "inet", "8.8.8.8"),
    ("out by a float", "vm1", "inet", "8.8.8.8"),
    ("in by a float", "inet", "vm1", "91.208.23.11"),
    ("float to float", "vm6", "vm1", "91.208.23.11"),
    ("hairpin", "vm2", "vm1", "91.208.23.11"),
    ("other tenant, other node", "vm1", "vm6", "10.1.0.4"),
];

/// Opens 200 TCP connections that all send at once, and says how many got something through. (Two
/// clients, since one opens 128 at most; their reports are more than an unread pipe takes.)
fn parallel(lab: &Lab, from: &str, server: &str, address: &str, folder: &str) -> usize {
    let ports = ["5301", "5302"];
    let servers = ports.map(|port| {
        let quiet = format!("exec timeout 20 iperf3 -s -1 -p {port} >/dev/null");
        lab.serve(server, port.parse().unwrap(), "sh", &["-c", &quiet])
    });
    let load = format!(
        "for port in 5301 5302; do timeout 20 iperf3 -J -P 100 -b 500K -t 2 -c {address} -p $port \
         >{folder}/$port & done; wait"
    );
    lab.run(from, "sh", &["-c", &load]);
    drop(servers);
    let through = ports.map(|port| {
        let text = std::fs::read_to_string(format!("{folder}/{port}")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let streams = report["end"]["streams"].as_array().cloned().unwrap_or_default();
        let received = |stream: &&serde_json::Value| stream["receiver"]["bytes"].as_u64() > Some(0);
        streams.iter().filter(received).count()
    });
    through.iter().sum()
}

#[test]
fn a_hundred_megabytes_and_two_hundred_connections_arrive_by_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let make = format!("head -c 100000000 /dev/urandom > {path}/large");
    assert!(Command::new("sh").args(["-c", &make]).status().unwrap().success());
    let sum = |text: &str| text.split_whitespace().next().unwrap().to_owned();
    let sent = Command::new("sha256sum").arg(format!("{path}/large")).output().unwrap();
    let sent = sum(&String::from_utf8(sent.stdout).unwrap());
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        // The hook does not know the ways apart: with XDP the two that differ most will do.
        let ways = if hook == "tc" { &WAYS[..] } else { &WAYS[3..5] };
        for (what, from, server, address) in ways {
            eprintln!("hook {hook}, {what}");
            let _server = lab.web_server(server, path);
            let get = format!("curl -sf --max-time 60 http://{address}:8080/large | sha256sum");
            assert_eq!(sum(&lab.run(from, "sh", &["-c", &get])), sent, "hook {hook}, {what}");
            assert_eq!(parallel(&lab, from, server, address, path), 200, "hook {hook}, {what}");
        }
    }
}

#[test]
fn names_are_resolved_and_paced_datagrams_are_not_lost_by_any_way() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        for (what, from, server, address) in WAYS {
            eprintln!("hook {hook}, {what}");
            let names = ["-k", "-p", "53", "-R", "-h", "--address=/tenant.example/192.0.2.7"];
            let names = [&names[..], &["--user=root", "--pid-file="]].concat();
            let dns = lab.serve(server, 53, "dnsmasq", &names);
            // It fails for the missing IPv6 address, and prints the other.
            let answer = lab.exec(from, "busybox", &["nslookup", "tenant.example", address]).text;
            assert!(answer.contains("192.0.2.7"), "hook {hook}, {what}: {answer}");
            drop(dns);
            // A server with many addresses answers datagrams from whichever it likes.
            let bound: &[&str] = if server == "inet" { &["-B", address] } else { &[] };
            let mut listening = lab.serve(server, 5201, "iperf3", &[&["-s", "-1"], bound].concat());
            let unread = lab.unread_datagrams(server);
            let paced = ["-J", "-u", "-b", "20M", "-t", "1", "-c", address];
            let text = lab.run(from, "iperf3", &paced);
            listening.wait();
            let report = text.find('{').and_then(|at| text.get(at..=text.rfind('}')?)).unwrap();
            let report: serde_json::Value = serde_json::from_str(report).unwrap();
            let sum = &report["end"]["sum"];
            let unread = lab.unread_datagrams(server) - unread;
            let lost = sum["lost_packets"].as_u64();
            assert!(lost <= Some(unread), "hook {hook}, {what}: {unread} unread, {sum}");
            assert!(sum["packets"].as_u64() > Some(1000), "hook {hook}, {what}: {sum}");
        }
    }
}

/// A network behind the router whose link takes 1400 bytes, with 9.9.9.9 in it.
struct Narrow;

impl Narrow {
    fn behind(lab: &Lab) -> Self {
        let ip = |arguments: &[&str]| {
            assert!(
                Command::new("ip").args(arguments).status().unwrap().success(),
                "{arguments:?}"
            );
        };
        ip(&["netns", "add", "tl-far"]);
        let narrow = Self;
        let far = ["link", "add", "far0", "mtu", "1400", "type", "veth", "peer", "name", "eth0"];
        lab.run("inet", "ip", &[&far[..], &["mtu", "1400", "netns", "tl-far"]].concat());
        lab.run("inet", "ip", &["addr", "add", "192.0.2.1/30", "dev", "far0"]);
        lab.run("inet", "ip", &["link", "set", "far0", "up"]);
        lab.run("inet", "ip", &["route", "add", "9.9.9.9", "via", "192.0.2.2"]);
        ip(&["-n", "tl-far", "addr", "add", "192.0.2.2/30", "dev", "eth0"]);
        ip(&["-n", "tl-far", "addr", "add", "9.9.9.9/32", "dev", "lo"]);
        for link in ["lo", "eth0"] {
            ip(&["-n", "tl-far", "link", "set", link, "up"]);
        }
        ip(&["-n", "tl-far", "route", "add", "default", "via", "192.0.2.1"]);
        narrow
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", "tl-far"]).status();
    }
}

#[test]
fn traceroute_and_path_mtu_discovery_work_through_the_translation() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let _narrow = Narrow::behind(&lab);
        // A hairpin has the gateway on its way as well.
        let text = lab.run("vm2", "traceroute", &["-n", "-q", "1", "-I", "91.208.23.11"]);
        assert!(text.contains("1  10.0.0.1") && text.contains("2  91.208.23.11"), "{text}");
        for vm in ["vm1", "vm2"] {
            for probe in ["-U", "-I", "-T"] {
                let text =
                    lab.run(vm, "traceroute", &["-n", "-q", "1", "-N", "1", probe, "9.9.9.9"]);
                let hops: Vec<&str> = text
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split_whitespace().nth(1))
                    .collect();
                assert_eq!(hops, ["10.0.0.1", "91.207.15.1", "9.9.9.9"], "{vm} {probe}: {text}");
            }
            let text = lab.run(vm, "tracepath", &["-n", "9.9.9.9"]);
            assert!(text.contains("pmtu 1400"), "hook {hook}, {vm}: {text}");
            let mut sink = lab.serve("far", 5201, "iperf3", &["-s", "-1"]);
            let text = lab.run(vm, "iperf3", &["-J", "-c", "9.9.9.9", "-n", "100M"]);
            sink.wait();
            let report: serde_json::Value =
                serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
            // What is in the sockets' buffers at the end (some 40 MB at most) iperf3 does not count.
            let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
            assert!(received > 50_000_000, "hook {hook}, {vm}: {received}");
        }
    }
}
