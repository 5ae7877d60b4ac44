//! One VM wants more than there is: ports of the shared address, and connections. In the first test
//! the left node has tc programs and the right one XDP.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;
mod nat;

use std::io::ErrorKind::WouldBlock;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Lab, Running};
use nat::datagrams::Datagrams;
use nat::mixed_lab;
use nat::streams::{begin, listen};
use serde_json::Value;

const FAR: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const OTHER: Ipv4Addr = Ipv4Addr::new(8, 8, 4, 4);
/// Ports of the shared address, in all.
const PORTS: usize = 1000;

/// A VM that opens many connections, and what is where on its node.
#[derive(Clone, Copy)]
struct Site {
    node: &'static str,
    vm: &'static str,
    /// The first of some ports of servers that are its own.
    port: u16,
}

const SITES: [Site; 2] =
    [Site { node: "left", vm: "vm2", port: 8100 }, Site { node: "right", vm: "vm4", port: 8200 }];

impl Site {
    fn status(&self, lab: &Lab, what: &[&str]) -> u64 {
        let status = lab.ctl(self.node, &["status"]);
        what.iter().fold(&status, |at, key| &at[*key]).as_u64().unwrap_or(0)
    }

    /// Takes from the table what has all these words: how many connections that were.
    fn delete(&self, lab: &Lab, words: &[&str]) -> u64 {
        let all = [&["flows", "--delete"], words].concat();
        lab.ctl(self.node, &all)["connections"].as_u64().unwrap()
    }

    /// Opens so many connections and holds those that come about, which takes some of them a while.
    fn open(&self, to: SocketAddrV4, count: usize, wanted: usize) -> Vec<TcpStream> {
        let mut begun = begin(self.vm, to, count);
        let is_open = |stream: &TcpStream| stream.peer_addr().is_ok();
        let began = Instant::now();
        while begun.iter().filter(|stream| is_open(stream)).count() < wanted {
            assert!(
                began.elapsed() < Duration::from_secs(8),
                "{wanted} of {count} on {}",
                self.node
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        if count > wanted {
            // Once more all of the others ask again.
            std::thread::sleep(Duration::from_millis(1500));
        }
        begun.retain(is_open);
        begun
    }
}

fn report(mut running: Running) -> Value {
    let said = running.wait();
    assert!(said.ok, "{}", said.text);
    serde_json::from_str(&said.text[said.text.find('{').unwrap()..]).unwrap()
}

/// Datagrams of VM 2 by the shared address, counted behind the left node.
fn datagrams(lab: &Lab, words: &str) -> Value {
    let pktgen = Path::new(env!("CARGO_BIN_EXE_trunkline")).with_file_name("pktgen");
    assert!(pktgen.exists(), "build it first: cargo build -p pktgen");
    let neighbours = lab.run("vm2", "ip", &["-j", "neigh", "show", "10.0.0.1"]);
    let neighbours: Value = serde_json::from_str(&neighbours).unwrap();
    let mac = neighbours[0]["lladdr"].as_str().unwrap();
    let ways = format!(
        "run --dev eth0 --netns tl-vm2 --sink-dev left-eth1 --sink-netns tl-switch --core 0 \
         --source 10.0.0.4 --expect-source 91.207.15.105 --expect-protocol udp \
         --destination-mac {mac} {words}"
    );
    report(Running::spawn(Command::new(pktgen).args(ways.split_whitespace())))
}

/// Takes all connections to a port of the far host and ends those that their clients end.
fn serve(port: u16) {
    let listener = listen("inet", port);
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let mut held: Vec<TcpStream> = Vec::new();
        loop {
            held.extend(listener.incoming().map_while(Result::ok));
            held.retain_mut(|stream| {
                stream.set_nonblocking(true).unwrap();
                matches!(stream.read(&mut [0]), Err(error) if error.kind() == WouldBlock)
            });
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// Megabits that arrived in each half second of a transfer.
fn speeds(report: &Value) -> Vec<f64> {
    let intervals = report["intervals"].as_array().unwrap().iter();
    intervals.map(|one| one["sum"]["bits_per_second"].as_f64().unwrap() / 1e6).collect()
}

fn use_up(lab: &Lab, site: &Site) {
    let to = |port| SocketAddrV4::new(FAR, site.port + port);
    for port in 0..2 {
        serve(site.port + port);
    }
    lab.pings(site.vm, "8.8.8.8");
    // Open before: a transfer, and datagrams of 200 connections.
    let server_port = (site.port + 9).to_string();
    let _server = lab.start("inet", "iperf3", &["-s", "-1", "-p", &server_port]);
    std::thread::sleep(Duration::from_millis(300));
    let words = "-J -c 8.8.8.8 -b 20M -i 0.5 -t 7 -p".split(' ').chain([&server_port[..]]);
    let transfer = lab.start(site.vm, "iperf3", &words.collect::<Vec<_>>());
    let datagrams = Datagrams::start(site.vm, "inet", SocketAddrV4::new(OTHER, site.port), 200);
    std::thread::sleep(Duration::from_millis(1000));

    let mut held = site.open(to(0), PORTS + 500, PORTS);
    let refused = site.status(lab, &["drops", "no_ports"]);
    eprintln!("{}: {} connections, {refused} packets refused", site.node, held.len());
    assert_eq!(held.len(), PORTS, "{}", site.node);
    assert!(refused >= 500, "{}: {refused}", site.node);
    // They end in four seconds, as far as the flag has it, and a second for the sweep.
    held.truncate(PORTS - 200);
    let ended = Instant::now();
    // Other destinations have all ports: another service, and another host.
    for other in [to(1), SocketAddrV4::new(OTHER, site.port)] {
        assert_eq!(site.open(other, 50, 50).len(), 50, "{} {other}", site.node);
    }

    let (sent, received) = datagrams.end();
    eprintln!("{}: {received} of {sent} datagrams", site.node);
    assert!(sent > 5000 && received == sent, "{}: {received} of {sent}", site.node);
    let speeds = speeds(&report(transfer));
    eprintln!("{}: {speeds:.0?} Mbit/s", site.node);
    // The last one may be cut short.
    assert!(speeds[1..speeds.len() - 1].iter().all(|speed| *speed > 15.0), "{speeds:?}");

    // What has ended leaves its ports.
    std::thread::sleep(Duration::from_millis(6500).saturating_sub(ended.elapsed()));
    held.append(&mut site.open(to(0), 700, 200));
    assert_eq!(held.len(), PORTS, "{}", site.node);
    // What an operator ends does so at once.
    drop(held);
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let words = ["tcp", &to(0).to_string()];
    assert_eq!(site.delete(lab, &words), PORTS as u64, "{}", site.node);
    assert_eq!(site.open(to(0), 100, 100).len(), 100, "{}", site.node);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_range_of_ports_that_is_used_up_harms_no_open_connection() {
    let flags = "--snat-ports 20000-20999 --vif-snat-ports 1000 --connections 20000 \
                 --tcp-transitory-timeout 4";
    let lab = mixed_lab(&flags.split_whitespace().collect::<Vec<_>>());
    lab.run("inet", "ip", &["addr", "add", "8.8.4.4/32", "dev", "lo"]);
    std::thread::scope(|scope| {
        for site in &SITES {
            let lab = &lab;
            scope.spawn(move || use_up(lab, site));
        }
    });
}

#[test]
fn three_hundred_thousand_connections_of_one_vm_are_all_remembered() {
    let [site, _] = SITES;
    let more = ["--connections", "400000", "--vif-connections", "300100", "--punt-rate", "1000000"];
    let lab = Lab::up(&more);
    lab.pings(site.vm, "8.8.8.8");
    let flows = "--destination 8.8.0.0/16 --source-port 20000-21023 --flows 300000 --count 300000";
    // On a busy machine a worker may miss some of so many new ones; those ask again, as they would.
    let rounds = (1..=6).find(|round| {
        let opened = datagrams(&lab, &format!("{flows} --rate {}", 50_000 * round));
        eprintln!("round {round}: {} of 300000 lost", opened["lost"]);
        opened["lost"] == 0
    });
    assert!(rounds.is_some());
    let by_workers = site.status(&lab, &["verdicts", "forward"]);
    let replayed = site.status(&lab, &["verdicts", "replayed"]);
    // Again: each one's line is there, so that no worker sees its packet.
    let again = datagrams(&lab, &format!("{flows} --rate 100000"));
    let by_workers = site.status(&lab, &["verdicts", "forward"]) - by_workers;
    let replayed = site.status(&lab, &["verdicts", "replayed"]) - replayed;
    eprintln!("then {replayed} replayed, {by_workers} by workers");
    assert_eq!(again["received"]["packets"], 300_000, "{again}");
    assert!(replayed >= 300_000 && by_workers < 30, "{replayed} {by_workers}");
    let live = site.status(&lab, &["connections", "live"]);
    assert!(live >= 600_000, "two lines each: {live}");
    // 64 bytes a line, and what the daemon needs anyway.
    let lines = site.status(&lab, &["connections", "lines"]);
    let memory = std::fs::read_to_string(format!("/proc/{}/status", lab.pid("left"))).unwrap();
    let resident = memory.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    eprintln!("{lines} lines, {resident} kB");
    assert!(resident * 1024 < lines * 64 + 60_000_000, "{lines} lines, {resident} kB");
    let drops = lab.ctl("left", &["status"])["drops"].clone();
    for reason in ["quota", "table_full", "no_ports"] {
        assert_eq!(drops[reason].as_u64().unwrap_or(0), 0, "{drops}");
    }
}
