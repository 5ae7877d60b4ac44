//! What routers and strangers say of connections that are translated, and the host beside them. The
//! left node has tc programs, the right one XDP.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;
mod nat;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::Lab;
use nat::forged::{ACK, Forger, RST, SYN, error, tcp};
use nat::mixed_lab;
use nat::pings::{Answers, ask};
use nat::streams::{Transfer, ask_repeatedly, listen, repeat};

const FAR: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const ROUTER: Ipv4Addr = Ipv4Addr::new(91, 207, 15, 1);

/// A host behind the router, 192.0.2.2, by a link that takes 1400 bytes.
struct Far;

impl Far {
    fn behind(lab: &Lab) -> Self {
        let ip = |arguments: &[&str]| {
            assert!(Command::new("ip").args(arguments).status().unwrap().success());
        };
        ip(&["netns", "add", "tl-far"]);
        let far = Self;
        let link = ["link", "add", "far0", "mtu", "1400", "type", "veth", "peer", "name", "eth0"];
        lab.run("inet", "ip", &[&link[..], &["mtu", "1400", "netns", "tl-far"]].concat());
        lab.run("inet", "ip", &["addr", "add", "192.0.2.1/30", "dev", "far0"]);
        lab.run("inet", "ip", &["link", "set", "far0", "up"]);
        ip(&["-n", "tl-far", "addr", "add", "192.0.2.2/30", "dev", "eth0"]);
        ip(&["-n", "tl-far", "link", "set", "eth0", "up"]);
        ip(&["-n", "tl-far", "route", "add", "default", "via", "192.0.2.1"]);
        far
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", "tl-far"]).status();
    }
}

/// Who asks for the way to whom, and by whom it leads.
const WAYS: [(&str, &str, &[&str]); 10] = [
    // In by a float: the node speaks as its own public address.
    ("inet", "91.208.23.11", &["91.207.15.105"]),
    ("inet", "91.208.23.16", &["91.207.15.106"]),
    ("far", "91.208.23.11", &["192.0.2.1", "91.207.15.105"]),
    ("far", "91.208.23.16", &["192.0.2.1", "91.207.15.106"]),
    // Hairpins: to a sibling's, another tenant's and one's own.
    ("vm2", "91.208.23.11", &["10.0.0.1"]),
    ("vm3", "91.208.23.11", &["10.1.0.1"]),
    ("vm1", "91.208.23.11", &["10.0.0.1"]),
    ("vm4", "91.208.23.16", &["10.0.0.5"]),
    ("vm6", "91.208.23.16", &["10.1.0.5"]),
    // Out by a float and in by another, on the other node.
    ("vm1", "91.208.23.16", &["10.0.0.1", "91.207.15.1", "91.207.15.106"]),
];

/// Runs a program on a host, or behind the router.
fn say(lab: &Lab, host: &str, program: &str, words: &[&str]) -> String {
    match host {
        "far" => {
            let there = ["--net=/run/netns/tl-far", program];
            lab.run("inet", "nsenter", &[&there[..], words].concat())
        }
        _ => lab.run(host, program, words),
    }
}

/// Every hop says its public name, and quotes what was sent.
fn hops_are_named(lab: &Lab) {
    let _far = Far::behind(lab);
    for host in ["vm1", "vm6", "inet"] {
        // Ends and routers that answer every probe.
        lab.run(host, "sysctl", &["-qw", "net.ipv4.icmp_ratelimit=0"]);
    }
    let outside = lab.capture("inet", "eth0", "icmp and (dst 91.207.15.1 or dst 192.0.2.2)");
    let private = lab.capture("inet", "eth0", "net 10.0.0.0/8");
    let inside = [("vm2", "10.0.0.4"), ("vm4", "10.0.0.6")]
        .map(|(vm, own)| (own, lab.capture(vm, "eth0", "icmp")));
    for (from, to, by) in WAYS {
        let hops = [by, &[to]].concat();
        for probe in ["-U", "-I", "-T"] {
            let words = ["-n", "-q", "1", "-N", "1", "-m", "6", "-w", "1", probe, to];
            let text = say(lab, from, "traceroute", &words);
            let lines = text.lines().skip(1);
            let said: Vec<&str> = lines.filter_map(|line| line.split_whitespace().nth(1)).collect();
            assert_eq!(said, hops, "{from} {probe} {to}: {text}");
        }
        let text = say(lab, from, "tracepath", &["-n", "-m", "6", to]);
        for (at, hop) in hops.iter().enumerate() {
            let line = format!("{}:  {hop} ", at + 1);
            assert!(text.contains(&line), "{from} {to}: {line} in {text}");
        }
        let (mtu, hops) = (if from == "far" { 1400 } else { 1500 }, hops.len());
        let said = format!("pmtu {mtu} hops {hops}");
        assert!(text.contains(&said), "{from} {to}: {said} in {text}");
    }
    let outside = outside.stop();
    // tcpdump puts what a message quotes on a line of its own.
    let quotes = |lines: &[String]| lines.iter().filter(|line| line.starts_with('\t')).count();
    assert!(quotes(&outside) >= 20, "{outside:?}");
    assert_eq!(private.stop(), Vec::<String>::new());
    for line in &outside {
        assert!(!line.contains(" 10.0.0.") && !line.contains(" 10.1.0."), "{line}");
        assert!(!line.contains("wrong") && !line.contains("bad "), "{line}");
    }
    for (own, lines) in inside {
        let lines = lines.stop();
        assert!(quotes(&lines) >= 3, "{lines:?}");
        for line in lines {
            assert!(!line.contains("wrong") && !line.contains("bad "), "{line}");
            let is_own = line.contains(&format!(" {own}")) && line.contains(" > 91.208.23.1");
            assert!(!line.starts_with('\t') || is_own, "{own}: {line}");
        }
    }
}

/// Everything that somebody who knows a connection's addresses and ports, and nothing else of it,
/// can say to end it.
fn slander(forger: &Forger, stranger: SocketAddrV4, node: SocketAddrV4, round: u32) {
    let wrong = 0x1234_5678_u32.wrapping_mul(2 * round + 1);
    for flags in [RST, RST | ACK] {
        forger.send(&tcp(stranger, node, flags, wrong));
    }
    if round > 7 {
        // What has ended may be opened anew, by who opened it.
        forger.send(&tcp(stranger, node, SYN, wrong));
    }
    let sent = tcp(node, stranger, ACK, wrong);
    let about =
        [([3, 1], 0), ([3, 3], 0), ([3, 4], 552_u32), ([4, 0], 0), ([11, 0], 0), ([12, 0], 0)];
    for (kind, rest) in about {
        forger.send(&error(ROUTER, kind, rest.to_be_bytes(), &sent));
    }
}

/// What strangers make up ends nobody's connection.
fn strangers_end_nothing(lab: &Lab) {
    let forger = Forger::on("inet");
    // A port that a node must change, so that a connection opened anew would be another one.
    let out = |vm, port| Transfer::start("inet", vm, 50_000, SocketAddrV4::new(FAR, port));
    let to_float = |vm, last| {
        let float = Ipv4Addr::new(91, 208, 23, last);
        Transfer::start(vm, "inet", 0, SocketAddrV4::new(float, 8080))
    };
    let transfers = [
        ("left", "vm3", out("vm3", 8081)),
        ("left", "vm1", to_float("vm1", 11)),
        ("right", "vm5", out("vm5", 8084)),
        ("right", "vm6", to_float("vm6", 16)),
    ];
    // As the Internet knows them: who may be slandered there, and the node's end.
    let ends = |vm: &str, transfer: &Transfer| match vm {
        "vm1" => (transfer.client, SocketAddrV4::new([91, 208, 23, 11].into(), 8080)),
        "vm6" => (transfer.client, SocketAddrV4::new([91, 208, 23, 16].into(), 8080)),
        _ => (transfer.server, transfer.client),
    };
    let filter = "(src 8.8.8.8 or src 91.207.15.1) and (icmp or tcp[tcpflags] & (tcp-rst|tcp-syn) = tcp-rst)";
    let heard = ["vm1", "vm3", "vm5", "vm6"].map(|vm| (vm, lab.capture(vm, "eth0", filter)));
    for round in 0..15 {
        for (_, vm, transfer) in &transfers {
            let (stranger, node) = ends(vm, transfer);
            slander(&forger, stranger, node, round);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    // It did reach them.
    for (vm, heard) in heard {
        let heard = heard.stop();
        let count = |what: &str| heard.iter().filter(|line| line.contains(what)).count();
        let [resets, errors] = [count("Flags [R"), count("ICMP")];
        assert!(resets >= 30 && errors >= 75, "{vm}: {resets} {errors}");
    }
    let began = Instant::now();
    for (node, vm, transfer) in &transfers {
        let (stranger, end) = ends(vm, transfer);
        let words = ["flows", "tcp", &stranger.to_string(), &end.to_string()];
        let states = || -> Vec<String> {
            let flows = lab.ctl(node, &words);
            let flows = flows.as_array().unwrap().iter();
            flows.map(|flow| flow["state"].as_str().unwrap().to_owned()).collect()
        };
        while states() != ["open", "open"] {
            let late = began.elapsed() > Duration::from_secs(20);
            assert!(!late, "{vm} on {node}: {:?}", lab.ctl(node, &words));
            std::thread::sleep(Duration::from_millis(250));
        }
    }
    eprintln!("all are open {} s after the last forged packet", began.elapsed().as_secs());
    for (node, vm, transfer) in transfers {
        let (sent, received) = transfer.end();
        let received = received.unwrap_or_else(|error| panic!("{vm} on {node}: {error}"));
        eprintln!("{vm} on {node}: {received} of {sent} pieces");
        assert!(sent > 300 && received == sent, "{vm} on {node}: {received} of {sent}");
    }
}

#[test]
fn errors_are_named_rightly_and_those_of_strangers_end_no_connection() {
    let lab = mixed_lab(&["--connections", "20000"]);
    std::thread::scope(|scope| {
        scope.spawn(|| strangers_end_nothing(&lab));
        hops_are_named(&lab);
    });
}

#[test]
fn the_host_and_tenants_share_an_address_and_nobody_gets_anothers_answers() {
    let lab = Lab::up(&[]);
    // Who does not know its gateway's MAC yet keeps few packets for it, and loses the oldest.
    for asker in ["left", "vm2", "vm3"] {
        lab.pings(asker, "8.8.8.8");
    }
    let connections = 3 * 5000;
    let servers: Vec<_> = [8081, 8082].map(|port| listen("inet", port)).into();
    let server = servers
        .into_iter()
        .zip([connections / 3, 2 * connections / 3])
        .map(|(listener, count)| repeat(listener, count))
        .collect::<Vec<_>>();
    let began = Instant::now();
    let all: Vec<u16> = (0..=u16::MAX).collect();
    // Of two that ask with 0, which a line cannot give back, the second gets no answer.
    let some: Vec<u16> = (1..=u16::MAX).step_by(16).collect();
    let (host, one, two, wrong) = std::thread::scope(|scope| {
        let one = scope.spawn(|| ask("vm2", FAR, &some, *b"vm 2"));
        let two = scope.spawn(|| ask("vm3", FAR, &some, *b"vm 3"));
        let host = scope.spawn(|| ask("left", FAR, &all, *b"host"));
        let open = |host: &'static str, port, first| {
            let to = SocketAddrV4::new(FAR, port);
            scope.spawn(move || ask_repeatedly(host, to, "91.207.15.105", 5000, first))
        };
        let open = [open("left", 8081, 0), open("vm2", 8082, 10_000), open("vm3", 8082, 20_000)];
        let wrong = open.map(|open| open.join().unwrap());
        (host.join().unwrap(), one.join().unwrap(), two.join().unwrap(), wrong.concat())
    });
    eprintln!("host {host:?}, VMs {one:?} {two:?}, {:?}", began.elapsed());
    assert_eq!(wrong, Vec::<String>::new());
    let answered = |once| Answers { once, ..Answers::default() };
    assert_eq!(one, answered(some.len()));
    assert_eq!(two, answered(some.len()));
    assert_eq!(host, answered(all.len()));
    for server in server {
        server.join().unwrap();
    }
}
