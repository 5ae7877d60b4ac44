//! Datagrams in fragments through address translation, in whatever order: real stacks, both hooks.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;
mod raw;

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lab::{HOOKS, Lab};
use raw::{Raw, fragments, inside};

/// A way through the node: what it is, who asks and as whom, who serves and as whom, the address
/// asked.
const WAYS: [(&str, &str, &str, &str, &str, &str); 6] = [
    ("shared source address", "vm2", "10.0.0.4", "inet", "8.8.8.8", "8.8.8.8"),
    ("out by a float", "vm1", "10.0.0.3", "inet", "8.8.8.8", "8.8.8.8"),
    ("in by a float", "inet", "8.8.8.8", "vm1", "10.0.0.3", "91.208.23.11"),
    ("float to float", "vm6", "10.1.0.4", "vm1", "10.0.0.3", "91.208.23.11"),
    ("hairpin", "vm2", "10.0.0.4", "vm1", "10.0.0.3", "91.208.23.11"),
    ("other tenant, other node", "vm1", "10.0.0.3", "vm6", "10.1.0.4", "10.1.0.4"),
];
const PORT: u16 = 5353;
const PATIENCE: Duration = Duration::from_secs(3);

fn at(address: &str, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address.parse().unwrap(), port)
}

/// 4000 bytes that say whose they are.
fn said(who: &str, number: u16) -> Vec<u8> {
    let text = format!("{who} {number} ");
    text.bytes().cycle().take(4000).collect()
}

/// In which order fragments leave.
fn shuffled(mut pieces: Vec<Vec<u8>>, number: u16) -> Vec<Vec<u8>> {
    match number % 3 {
        0 => {}
        1 => pieces.reverse(),
        _ => pieces.rotate_left(1),
    }
    pieces
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// Sends fragments, the first of each datagram from another core than the later ones.
fn send(socket: &Raw, pieces: &[Vec<u8>]) {
    for piece in pieces {
        let is_later = piece[6] & 0x1f != 0 || piece[7] != 0;
        socket.send_from(usize::from(is_later) % cores(), piece);
    }
}

/// A server that says back what it hears, in fragments of any order, until told to stop.
fn echo(host: &str, address: &str, stop: &AtomicBool) {
    inside(host, || {
        let (own, socket) = (at(address, PORT), Raw::open());
        let listening = UdpSocket::bind(own).unwrap();
        listening.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut heard = [0; 8000];
        let mut number = 0;
        while !stop.load(Relaxed) {
            let Ok((length, std::net::SocketAddr::V4(from))) = listening.recv_from(&mut heard)
            else {
                continue;
            };
            number += 1;
            // No number that the same host has just used as a client.
            let id = 0x8000 | number;
            let pieces = fragments(own, from, id, &said_back(&heard[..length]));
            send(&socket, &shuffled(pieces, number));
        }
    });
}

/// An answer of 4000 bytes to whatever was asked.
fn said_back(question: &[u8]) -> Vec<u8> {
    question.iter().copied().cycle().take(4000).collect()
}

/// Asks a server so many times, two datagrams at once with their fragments mixed; how often the
/// right answer came.
fn ask(host: &str, address: &str, server: SocketAddrV4, times: u16) -> u16 {
    inside(host, || {
        let socket = Raw::open();
        let clients = [40_000, 40_001].map(|port| {
            let client = UdpSocket::bind(at(address, port)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        });
        let mut right = 0;
        for number in 0..times {
            let mut all = Vec::new();
            for (client, own) in clients.iter().zip([40_000, 40_001]) {
                let port = client.local_addr().unwrap().port();
                let pieces = fragments(
                    at(address, port),
                    server,
                    1 + number * 2 + own % 2,
                    &said(host, own),
                );
                all.push(shuffled(pieces, number));
            }
            let (one, two) = (&all[0], &all[1]);
            let mixed: Vec<Vec<u8>> =
                one.iter().zip(two).flat_map(|(one, two)| [one.clone(), two.clone()]).collect();
            send(&socket, &mixed);
            for (client, own) in clients.iter().zip([40_000, 40_001]) {
                right += u16::from(answer(client) == said(host, own));
            }
        }
        right
    })
}

fn answer(client: &UdpSocket) -> Vec<u8> {
    let mut heard = vec![0; 8000];
    let length = client.recv(&mut heard).unwrap_or_default();
    heard.truncate(length);
    heard
}

/// Packets a node dropped for this reason.
fn dropped(lab: &Lab, node: &str, reason: &str) -> u64 {
    lab.ctl(node, &["status"])["drops"][reason].as_u64().unwrap_or_default()
}

/// Two workers, so that a fragment may come to another than its first.
fn two_workers(flags: &[&str]) -> Lab {
    Lab::up(&[flags, &["--workers", "2"]].concat())
}

#[test]
fn datagrams_reversed_and_mixed_up_are_answered_by_every_way() {
    const TIMES: u16 = 12;
    for (hook, flags) in HOOKS {
        let lab = two_workers(flags);
        for (what, from, own, server, listens, asked) in WAYS {
            eprintln!("hook {hook}, {what}");
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| echo(server, listens, &stop));
                std::thread::sleep(Duration::from_millis(200));
                let right = ask(from, own, at(asked, PORT), TIMES);
                stop.store(true, Relaxed);
                let drops =
                    ["left", "right"].map(|node| lab.ctl(node, &["status"])["drops"].clone());
                assert_eq!(right, 2 * TIMES, "hook {hook}, {what}: {drops:?}");
            });
        }
        lab.frames_are_conserved(hook);
    }
}

/// Asks so many times from a normal socket; how often the right answer came.
fn ask_names(host: &str, own: SocketAddrV4, server: SocketAddrV4, times: u16) -> u16 {
    inside(host, || {
        let client = UdpSocket::bind(own).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut right = 0;
        for number in 0..times {
            let question = said(host, number)[..200].to_vec();
            client.send_to(&question, server).unwrap();
            right += u16::from(answer(&client) == said_back(&question));
        }
        right
    })
}

#[test]
fn large_answers_to_the_shared_address_reach_the_host_and_each_vm_at_once() {
    const TIMES: u16 = 40;
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = two_workers(flags);
        let stop = AtomicBool::new(false);
        let server = at("8.8.8.8", PORT);
        std::thread::scope(|scope| {
            scope.spawn(|| echo("inet", "8.8.8.8", &stop));
            std::thread::sleep(Duration::from_millis(200));
            let clients = [
                ("left", at("91.207.15.105", 50_000)),
                ("vm2", at("10.0.0.4", 50_000)),
                ("vm3", at("10.1.0.3", 50_000)),
            ];
            let asking =
                clients.map(|(host, own)| scope.spawn(move || ask_names(host, own, server, TIMES)));
            let right = asking.map(|asking| asking.join().unwrap());
            stop.store(true, Relaxed);
            let drops = lab.ctl("left", &["status"])["drops"].clone();
            assert_eq!(right, [TIMES; 3], "hook {hook}: {drops}");
        });
        lab.frames_are_conserved(hook);
    }
}

/// The report of an iperf3 client against a one-off server.
fn iperf(lab: &Lab, from: &str, server: &str, listens: &str, words: &[&str]) -> serde_json::Value {
    let mut listening = lab.start(server, "iperf3", &["-s", "-1", "-B", listens]);
    std::thread::sleep(Duration::from_millis(300));
    let text = lab.run(from, "iperf3", &[&["-J"], words].concat());
    listening.wait();
    let report = text.find('{').and_then(|from| text.get(from..=text.rfind('}')?)).unwrap();
    serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn paced_datagrams_of_20000_bytes_are_not_lost_by_any_way_there_or_back() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        // The hook does not know the ways apart: with XDP the two that differ most will do.
        let ways = if hook == "tc" { &WAYS[..] } else { &WAYS[3..5] };
        for (what, from, _, server, listens, asked) in ways {
            for (hears, back) in [(server, &[][..]), (from, &["-R"])] {
                eprintln!("hook {hook}, {what} {back:?}");
                let (unread, no_room) = (lab.unread_datagrams(hears), lab.found_no_room());
                let words = ["-u", "-l", "20000", "-b", "30M", "-t", "1", "-c", asked];
                let words = [&words, back].concat();
                let report = iperf(&lab, from, server, listens, &words);
                let unread = lab.unread_datagrams(hears) - unread;
                // A client that was kept waiting sends all at once what it is behind.
                let no_room = lab.found_no_room() - no_room;
                let sum = &report["end"]["sum"];
                let what = format!(
                    "hook {hook}, {what} {back:?}: {unread} unread, {no_room} found no room, {sum}"
                );
                let lost = sum["lost_packets"].as_u64().unwrap().saturating_sub(unread);
                assert!(lost <= no_room && lost < 50, "{what}");
                assert!(sum["packets"].as_u64() > Some(150), "{what}");
            }
        }
        lab.frames_are_conserved(hook);
    }
}

#[test]
fn what_is_in_fragments_is_cut_again_for_a_smaller_link_or_its_sender_is_told() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        // A public side of 1400, and VM 2 behind a link of 1400.
        for (host, link) in
            [("left", "eth1"), ("switch", "left-eth1"), ("left", "vnet2"), ("vm2", "eth0")]
        {
            lab.run(host, "ip", &["link", "set", link, "mtu", "1400"]);
        }
        lab.run("inet", "ip", &["link", "set", "eth0", "mtu", "1400"]);
        std::thread::sleep(Duration::from_millis(500));
        for (from, to) in
            [("vm1", "8.8.8.8"), ("vm3", "8.8.8.8"), ("inet", "91.208.23.11"), ("vm3", "10.0.0.4")]
        {
            let cut = ["-n", "-c", "10", "-i", "0.05", "-w", "10", "-s", "3000", "-M", "dont", to];
            let text = lab.exec(from, "ping", &cut).text;
            assert_eq!(lab::in_a_row(&text, 10), 10, "hook {hook}, {from} to {to}: {text}");
        }
        for (from, to) in [("vm1", "8.8.8.8"), ("vm3", "8.8.8.8"), ("vm3", "10.0.0.4")] {
            let told = ["-n", "-c", "2", "-i", "0.1", "-W", "1", "-s", "1450", "-M", "do", to];
            let text = lab.exec(from, "ping", &told).text;
            assert!(text.contains("(mtu = 1400)"), "hook {hook}, {from} to {to}: {text}");
        }
        lab.frames_are_conserved(hook);
    }
}

#[test]
fn what_never_gets_its_first_fragment_is_dropped_and_counted_and_delays_nobody() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = two_workers(flags);
        lab.pings("vm2", "8.8.8.8");
        let (from, to) = (at("10.0.0.4", 40_000), at("8.8.8.8", PORT));
        inside("vm2", || {
            let socket = Raw::open();
            for id in 1..=2000 {
                socket.send_from(
                    usize::from(id) % cores(),
                    &fragments(from, to, id, &said("?", id))[1],
                );
            }
        });
        // The others get through meanwhile, and so does what VM 2 sends in order.
        for vm in ["vm2", "vm3"] {
            let large = ["-n", "-c", "10", "-i", "0.05", "-w", "10", "-s", "4000", "8.8.8.8"];
            let text = lab.exec(vm, "ping", &large).text;
            assert_eq!(lab::in_a_row(&text, 10), 10, "hook {hook}, {vm}: {text}");
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            // Half of a worker's room is one VM's, so it is never full of hers alone.
            let parts = ["fragment_alone", "held_quota"].map(|why| dropped(&lab, "left", why));
            if parts.iter().sum::<u64>() == 2000 {
                assert!(parts[0] >= 100 && parts[1] >= 1400, "{parts:?}");
                break;
            }
            assert!(Instant::now() < deadline, "hook {hook}: {parts:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        lab.frames_are_conserved(hook);
    }
}
