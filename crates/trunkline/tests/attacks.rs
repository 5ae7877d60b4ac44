//! What VM 2 tries on the others, frame by frame from a raw socket: each attack is counted at its
//! port and seen by nobody, and with walls off those that only the wall stops arrive.
#![allow(clippy::unwrap_used)] // it is a test

#[path = "attacks/frames.rs"]
mod frames;
mod lab;
mod raw;
#[path = "attacks/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernel::FrameSender;
use lab::{HOOKS, Lab};
use testkit::{link_local, tcp, udp, vm_mac};

use frames::{FAR, GATEWAY_MAC, VM1, VM3, VM5, from, own6, six_to_vm5};
use table::{ATTACKS, Attack, MF, Open};

/// How often each attack is tried.
const TRIES: usize = 3;
/// Hosts that are attacked, and the interface they are seen by.
const VICTIMS: [(&str, &str); 5] =
    [("vm1", "eth0"), ("vm3", "eth0"), ("vm5", "eth0"), ("inet", "eth0"), ("left", "br100")];
/// What VM 3 lets in.
const GROUP: &str = r#"
[[security_group]]
name = "closed"
rules = [{ protocol = "icmp" }, { protocol = "tcp", ports = "22" }, { protocol = "udp", ports = "53" }]
"#;
/// The node serves metadata out of another host's hands.
const METADATA: &str = "metadata_host = \"91.207.15.1\"\nmetadata_port = 8080\n";
/// The walls switched off, and the node as open as nova-network left it.
const NO_WALLS: &str = "firewall_driver = \"noop\"\n";
const OPEN_NODE: &str = "\n[[host_rule]]\nprotocol = \"any\"\n";

/// A raw socket at a VM's interface.
fn sender(vm: &str) -> FrameSender {
    raw::inside(vm, || {
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        FrameSender::open(index).unwrap()
    })
}

/// What marks an attack's frames, behind all that they say of themselves.
fn mark(at: usize) -> Vec<u8> {
    format!("~attack{at:02}~").into_bytes()
}

/// How many of these frames bear that mark.
fn arrived(frames: &[Vec<u8>], at: usize) -> usize {
    let mark = mark(at);
    frames.iter().filter(|frame| frame.windows(mark.len()).any(|part| part == mark)).count()
}

/// Packets of VM 2's port dropped for a reason.
fn dropped(lab: &Lab, reason: &str) -> u64 {
    let ports = lab.ctl("left", &["ports"]);
    let port = ports.as_array().unwrap().iter().find(|port| port["name"] == "vnet2").unwrap();
    port["drops"][reason].as_u64().unwrap_or(0)
}

/// Packets of VM 2's that the kernel's programs sent on.
fn replayed(lab: &Lab) -> u64 {
    let ports = lab.ctl("left", &["ports"]);
    let port = ports.as_array().unwrap().iter().find(|port| port["name"] == "vnet2").unwrap();
    port["replayed"].as_u64().unwrap()
}

/// Sends each attack; gives, for each, how often its counter (or the one it has without walls) moved.
fn attack_all(lab: &Lab, counter: impl Fn(&Attack) -> Option<&'static str>) -> Vec<u64> {
    let socket = sender("vm2");
    let send = |(at, attack): (usize, &Attack)| {
        let frame = [(attack.frame)(), mark(at)].concat();
        let reason = counter(attack);
        let before = reason.map_or(0, |reason| dropped(lab, reason));
        for _ in 0..TRIES {
            socket.send(&frame).unwrap();
        }
        let moved = || reason.map_or(0, |reason| dropped(lab, reason) - before);
        let start = Instant::now();
        while reason.is_some() && moved() < TRIES as u64 {
            if start.elapsed() > Duration::from_secs(10) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        moved()
    };
    ATTACKS.iter().enumerate().map(send).collect()
}

/// Tries all attacks and says how often each was counted, and how often its victim saw it.
fn try_all(
    lab: &Lab,
    counter: impl Fn(&Attack) -> Option<&'static str>,
) -> Vec<(&'static Attack, u64, usize)> {
    let captures = VICTIMS.map(|(host, at)| (host, lab.capture(host, at, "")));
    let counted = attack_all(lab, counter);
    // What waits for a neighbour gets it by then.
    std::thread::sleep(Duration::from_millis(500));
    let seen: BTreeMap<&str, Vec<Vec<u8>>> =
        captures.into_iter().map(|(host, capture)| (host, capture.frames())).collect();
    let count = |(at, attack): (usize, &'static Attack)| {
        (attack, counted[at], arrived(&seen[attack.victim], at))
    };
    ATTACKS.iter().enumerate().map(count).collect()
}

/// The connections that are to be ridden on, known to the kernel's programs, and VM 2's own IPv6.
fn open_connections(lab: &Lab) {
    let [one, two, three, five] = ["vm1", "vm2", "vm3", "vm5"].map(sender);
    let six = |from: u8, to: u8| {
        let payload = [&[0x13, 0x88, 0, 53, 0, 10, 0, 0][..], b"hi"].concat();
        let [from, to] = [from, to].map(|vm| (vm_mac(vm), link_local(vm_mac(vm))));
        testkit::ipv6(from, to, 17, &payload)
    };
    for _ in 0..3 {
        let (asks, answers) = ((vm_mac(1), VM1, 5000), (vm_mac(5), VM5, 53));
        one.send(&udp(asks, answers, b"?")).unwrap();
        five.send(&udp(answers, asks, b"!")).unwrap();
        three.send(&udp((vm_mac(3), VM3, 5000), (GATEWAY_MAC, FAR, 53), b"?")).unwrap();
        two.send(&six(2, 5)).unwrap();
        five.send(&six(5, 2)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let before = replayed(lab);
    two.send(&six_to_vm5(own6())).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(replayed(lab), before + 1, "its own IPv6 is carried by the kernel");
}

/// VM 3 in a group that lets in little, and metadata that somebody serves.
fn guard(lab: &Lab) {
    let own = "addresses = [\"10.1.0.3\"]\n";
    let grouped = format!("{own}groups = [\"closed\"]\n");
    reload(lab, |text| format!("{METADATA}{}{GROUP}", text.replace(own, &grouped)));
}

fn reload(lab: &Lab, change: impl Fn(&str) -> String) {
    let file = "/run/trunkline-lab/left.toml";
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, change(&text)).unwrap();
    lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
}

#[test]
fn walls_stop_every_attack_and_without_them_those_arrive_that_nothing_else_stops() {
    for (name, flags) in HOOKS {
        let lab = Lab::up(flags);
        guard(&lab);
        // What it sends is as long as it likes.
        lab.run("vm2", "ip", &["link", "set", "eth0", "mtu", "9000"]);
        for (from, to) in [("vm1", "10.0.0.7"), ("vm2", "10.0.0.7"), ("vm2", "10.1.0.3")] {
            lab.pings(from, to);
        }
        lab.pings("vm3", "8.8.8.8");
        open_connections(&lab);
        let walled = try_all(&lab, |attack| Some(attack.counter));
        // Nobody was harmed, and nobody learned a lie.
        lab.pings("vm1", "10.0.0.7");
        reload(&lab, |text| format!("{NO_WALLS}{text}{OPEN_NODE}"));
        let open = try_all(&lab, |attack| match attack.open {
            Open::Arrives => None,
            Open::Dropped(reason) => Some(reason),
        });
        reload(&lab, |text| text.replace(NO_WALLS, "").replace(OPEN_NODE, ""));
        let mut wrong = Vec::new();
        for ((attack, counted, seen), (_, by_itself, unwalled)) in walled.iter().zip(&open) {
            let tries = TRIES as u64;
            println!(
                "{name}: {:<55} {:<20} {counted} counted, {seen} seen; no walls: {by_itself} counted, \
                 {unwalled} seen",
                attack.name, attack.counter
            );
            let as_expected = match attack.open {
                Open::Arrives => *unwalled > 0,
                Open::Dropped(_) => *by_itself == tries && *unwalled == 0,
            };
            if (*counted, *seen) != (tries, 0) || !as_expected {
                wrong.push(attack.name);
            }
        }
        assert_eq!(wrong, Vec::<&str>::new(), "{name}");
        // The wall is up again, for connections as well that were opened without it.
        let before = dropped(&lab, "spoofed_ipv4");
        sender("vm2").send(&from(VM1)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(dropped(&lab, "spoofed_ipv4"), before + 1, "{name}");
    }
}

#[test]
fn the_security_page_has_these_attacks_and_no_others() {
    let page = include_str!("../../../docs/security.md");
    let table = page.split("| attack |").nth(1).unwrap().lines().skip(2);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    let row = |attack: &Attack| {
        let open = match attack.open {
            Open::Arrives => "arrives".to_owned(),
            Open::Dropped(reason) => format!("`{reason}`"),
        };
        format!("| {} | `{}` | {} | {open} |", attack.name, attack.counter, attack.victim)
    };
    assert_eq!(rows, ATTACKS.iter().map(row).collect::<Vec<_>>());
}

/// A first fragment that a group lets in opens the way for its own datagram's others, and for nothing else.
#[test]
fn fragments_lead_nobody_around_a_group() {
    // The datagram's number, where in it, from and to which ports, and what becomes of it.
    let pieces = [
        (1, MF, 53, ""),
        (1, MF, 54, "fragment_conflict"),
        (1, 9, 53, ""),
        (2, MF, 54, "security_group"),
        (2, 9, 54, "security_group"),
        (3, 9, 53, "fragment_alone"),
    ];
    for (name, flags) in HOOKS {
        let lab = Lab::up(flags);
        guard(&lab);
        lab.pings("vm2", "10.1.0.3");
        let capture = lab.capture("vm3", "eth0", "");
        let socket = sender("vm2");
        for (at, (number, place, port, reason)) in pieces.into_iter().enumerate() {
            let whole = frames::with(frames::knock(5000, port), 19, number);
            let before = dropped(&lab, reason);
            socket.send(&[frames::fragment(whole, place), mark(at)].concat()).unwrap();
            let start = Instant::now();
            while !reason.is_empty() && dropped(&lab, reason) == before {
                assert!(start.elapsed() < Duration::from_secs(10), "{name}: {at} {reason}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // What was sent before them has arrived with these.
        lab.pings("vm2", "10.1.0.3");
        let seen = capture.frames();
        for (at, (.., reason)) in pieces.into_iter().enumerate() {
            assert_eq!(arrived(&seen, at), usize::from(reason.is_empty()), "{name}: {at}");
        }
    }
}

/// Whoever asks for everything learns what the group lets in.
#[test]
fn a_scan_of_all_ports_finds_those_that_are_open_and_each_other_is_counted() {
    for (name, flags) in HOOKS {
        let lab = Lab::up(flags);
        guard(&lab);
        lab.pings("vm2", "10.1.0.3");
        let scan = || {
            let capture = lab.capture("vm3", "eth0", "tcp and dst host 10.1.0.3");
            let socket = sender("vm2");
            for port in 1..=1024 {
                let from = (frames::me(), frames::VM2, 5000);
                socket.send(&tcp(from, (GATEWAY_MAC, VM3, port), 2, b"")).unwrap();
                if port % 64 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            lab.pings("vm2", "10.1.0.3");
            let ports = capture.frames().into_iter().map(|f| u16::from_be_bytes([f[36], f[37]]));
            ports.collect::<std::collections::BTreeSet<u16>>()
        };
        let before = dropped(&lab, "security_group");
        assert_eq!(scan(), [22].into(), "{name}");
        assert_eq!(dropped(&lab, "security_group"), before + 1023, "{name}");
        reload(&lab, |text| format!("{NO_WALLS}{text}"));
        assert_eq!(scan(), (1..=1024).collect(), "{name}: without the group");
    }
}

/// A VM may give its interface any MTU; the link at the node keeps its own.
#[test]
fn a_frame_longer_than_its_link_ends_there() {
    for (name, flags) in HOOKS {
        let lab = Lab::up(flags);
        lab.pings("vm2", "10.0.0.3");
        let grow = |host: &str, interface: &str| {
            lab.run(host, "ip", &["link", "set", interface, "mtu", "9000"]);
        };
        let refused = || {
            let said = lab.run("left", "ip", &["-s", "-j", "link", "show", "vnet2"]);
            let link: serde_json::Value = serde_json::from_str(&said).unwrap();
            link[0]["stats64"]["rx"]["dropped"].as_u64().unwrap()
        };
        let try_it = || {
            let capture = lab.capture("vm1", "eth0", "udp and greater 8000");
            let (from, to) = ((frames::me(), frames::VM2, 5000), (vm_mac(1), VM1, 53));
            for _ in 0..TRIES {
                // ENOBUFS where its link drops it.
                let _ = sender("vm2").send(&udp(from, to, &[0; 8000]));
            }
            lab.pings("vm2", "10.0.0.3");
            capture.frames().len()
        };
        grow("vm2", "eth0");
        let before = refused();
        assert_eq!(try_it(), 0, "{name}");
        assert_eq!(refused(), before + TRIES as u64, "{name}: the link counts them");
        for (host, interface) in [("left", "vnet2"), ("left", "vnet1"), ("vm1", "eth0")] {
            grow(host, interface);
        }
        let start = Instant::now();
        while try_it() == 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "{name}: a longer link");
        }
    }
}

/// The daemon is asked through a socket of the node's file system, which no packet reaches.
#[test]
fn the_daemon_listens_on_no_port() {
    let lab = Lab::up(&[]);
    let pid = format!("pid={},", lab.pid("left"));
    assert!(lab.run("left", "ss", &["-Hlxp"]).contains(&pid), "it listens there");
    let network = lab.run("left", "ss", &["-Hanptuw"]);
    assert!(!network.contains(&pid), "{network}");
}

#[test]
fn a_thousand_made_up_addresses_fill_no_table() {
    for (name, flags) in HOOKS {
        let lab = Lab::up(flags);
        lab.pings("vm2", "10.0.0.3");
        let before = dropped(&lab, "spoofed_mac");
        let arps = dropped(&lab, "spoofed_arp");
        let socket = sender("vm2");
        for n in 0..1000u16 {
            let [a, b] = n.to_be_bytes();
            let made_up = wire::MacAddr([2, 0, 0, 9, a, b]);
            socket.send(&frames::unknown(made_up, vm_mac(1))).unwrap();
            let (me, address) = (frames::me(), [10, 0, a, b]);
            socket.send(&frames::arp(2, (me, address), (me, address), frames::EVERYBODY)).unwrap();
            if n % 50 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let start = Instant::now();
        while dropped(&lab, "spoofed_mac") < before + 1000
            || dropped(&lab, "spoofed_arp") < arps + 990
        {
            assert!(start.elapsed() < Duration::from_secs(10), "{name}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let stations = lab.ctl("left", &["fdb"]);
        let macs =
            stations.as_array().unwrap().iter().map(|station| station["mac"].as_str().unwrap());
        let (made_up, known): (Vec<_>, Vec<_>) =
            macs.partition(|mac| mac.starts_with("02:00:00:09:"));
        assert!(made_up.is_empty() && known.contains(&"fa:16:3e:00:00:02"), "{name}: {stations}");
        lab.pings("vm2", "10.0.0.3");
    }
}

/// What is allowed beside a VM's own, by a reload: an address, a prefix behind it, and a VRRP MAC.
#[test]
fn a_vm_sends_from_what_it_was_allowed_and_stops_when_it_is_not_any_more() {
    let vrrp = wire::MacAddr([0, 0, 0x5e, 0, 1, 5]);
    for (name, flags) in HOOKS {
        let lab = Lab::up(flags);
        lab.pings("vm2", "10.0.0.3");
        let socket = sender("vm2");
        let tries = [
            (frames::me(), [10, 0, 0, 99], 1),
            (frames::me(), [10, 0, 9, 7], 2),
            (vrrp, [10, 0, 0, 99], 3),
        ];
        let arriving = || {
            // Not what it answers, which has the mark in it as well.
            let capture = lab.capture("vm1", "eth0", "udp");
            for (mac, address, at) in tries {
                for _ in 0..3 {
                    let frame = udp((mac, address, 5000), (vm_mac(1), VM1, 53), &mark(at));
                    socket.send(&frame).unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            let seen = capture.frames();
            tries.map(|(.., at)| arrived(&seen, at))
        };
        assert_eq!(arriving(), [0, 0, 0], "{name}");
        let own = "addresses = [\"10.0.0.4\"]\n";
        let pairs = r#"["10.0.0.99", "10.0.9.0/24", "00:00:5e:00:01:05 10.0.0.99"]"#;
        let allowed = format!("{own}allowed = {pairs}\n");
        reload(&lab, |text| text.replace(own, &allowed));
        let ports = lab.ctl("left", &["ports"]);
        let port = ports.as_array().unwrap().iter().find(|port| port["name"] == "vnet2").unwrap();
        let said = port["sends_as"].to_string();
        assert!(said.contains("10.0.9.0/24") && said.contains("00:00:5e:00:01:05"), "{said}");
        assert_eq!(arriving(), [3, 3, 3], "{name}");
        let carried = replayed(&lab);
        assert_eq!(arriving(), [3, 3, 3], "{name}");
        assert!(replayed(&lab) >= carried + 6, "{name}: the kernel carries what has its own MAC");
        // Open connections end with the permission.
        reload(&lab, |text| text.replace(&allowed, own));
        assert_eq!(arriving(), [0, 0, 0], "{name}");
        lab.pings("vm2", "10.0.0.3");
    }
}
