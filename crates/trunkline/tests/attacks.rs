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
use testkit::{link_local, udp, vm_mac};

use frames::{FAR, GATEWAY_MAC, VM1, VM3, VM5, from, own6, six_to_vm5};
use table::{ATTACKS, Attack, Open};

/// How often each attack is tried.
const TRIES: usize = 3;
/// Hosts that are attacked, and the interface they are seen by.
const VICTIMS: [&str; 4] = ["vm1", "vm3", "vm5", "inet"];

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
            if start.elapsed() > Duration::from_secs(2) {
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
    let captures = VICTIMS.map(|host| (host, lab.capture(host, "eth0", "")));
    let counted = attack_all(lab, counter);
    // What waits for a neighbour gets it by then.
    std::thread::sleep(Duration::from_millis(500));
    let seen: BTreeMap<&str, Vec<Vec<u8>>> =
        captures.into_iter().map(|(host, capture)| (host, capture.frames())).collect();
    let count = |(at, attack): (usize, &'static Attack)| {
        let mark = mark(at);
        let has = |frame: &&Vec<u8>| frame.windows(mark.len()).any(|part| part == mark);
        (attack, counted[at], seen[attack.victim].iter().filter(has).count())
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
        for (from, to) in [("vm1", "10.0.0.7"), ("vm2", "10.0.0.7"), ("vm2", "10.1.0.3")] {
            lab.pings(from, to);
        }
        lab.pings("vm3", "8.8.8.8");
        open_connections(&lab);
        let walled = try_all(&lab, |attack| Some(attack.counter));
        // Nobody was harmed, and nobody learned a lie.
        lab.pings("vm1", "10.0.0.7");
        reload(&lab, |text| format!("firewall_driver = \"noop\"\n{text}"));
        let open = try_all(&lab, |attack| match attack.open {
            Open::Arrives => None,
            Open::Dropped(reason) => Some(reason),
        });
        reload(&lab, |text| text.replace("firewall_driver = \"noop\"\n", ""));
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
            tries.map(|(.., at)| {
                let mark = mark(at);
                seen.iter()
                    .filter(|frame| frame.windows(mark.len()).any(|part| part == mark))
                    .count()
            })
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
