//! Connections outlive the daemon: killed, stopped, taken over from, and long gone.
//!
//! `TRUNKLINE_ROUNDS` says how often a daemon ends in a row, `TRUNKLINE_SILENCE` for how many seconds
//! there is none.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::path::Path;
use std::time::{Duration, Instant};

use lab::{HOOKS, Lab, Running, ended, in_a_row};
use nix::sys::signal::Signal;
use serde_json::Value;

const CONFIG: &str = "/run/trunkline-lab/left.toml";
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(1800);

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// A lab whose VMs' ends poll, and say so.
fn polling_lab(hook: &str, flags: &[&str]) -> Lab {
    let lab = Lab::up(flags);
    for (n, vif) in [("vm1", "vnet1"), ("vm2", "vnet2"), ("vm3", "vnet3")] {
        lab.run("left", "ethtool", &["-K", vif, "gro", "on"]);
        lab.run(n, "ethtool", &["-K", "eth0", "gro", "on"]);
    }
    if hook == "xdp" {
        let text = std::fs::read_to_string(CONFIG).unwrap();
        std::fs::write(CONFIG, text.replace("\nmac = ", "\nnapi = true\nmac = ")).unwrap();
        lab.ctl("left", &["reload"]);
    }
    lab
}

/// Numbered datagrams of a thousand connections from VM 2 through source NAT, counted behind the
/// public NIC.
struct Numbered {
    gateway: String,
}

impl Numbered {
    fn of(lab: &Lab) -> Self {
        lab.pings("vm2", "8.8.8.8");
        let said = lab.run("vm2", "ip", &["-j", "neigh", "show", "dev", "eth0"]);
        let known: Value = serde_json::from_str(&said).unwrap();
        let is_gateway = |row: &&Value| row["dst"] == "10.0.0.1";
        let gateway = known.as_array().unwrap().iter().find(is_gateway).unwrap();
        Self { gateway: gateway["lladdr"].as_str().unwrap().to_owned() }
    }

    fn start(&self, words: &[&str]) -> Running {
        let beside = Path::new(env!("CARGO_BIN_EXE_trunkline")).with_file_name("pktgen");
        assert!(beside.exists(), "build it first: cargo build -p pktgen");
        let flows = "run --dev eth0 --netns tl-vm2 --sink-dev left-eth1 --sink-netns tl-switch --core 0 \
            --source 10.0.0.4 --destination 8.8.0.0/16 --source-port 20000-21023 \
            --expect-source 91.207.15.105 --expect-destination-port 53 --flows 1000 --warm-up 0 \
            --destination-mac";
        let flows: Vec<&str> = flows.split_whitespace().chain([self.gateway.as_str()]).collect();
        Running::spawn(std::process::Command::new(beside).args(flows).args(words))
    }

    fn report(running: &mut Running) -> Value {
        let said = running.wait_within(LONG);
        assert!(said.ok, "{}", said.text);
        let start = said.text.find('{').unwrap();
        serde_json::from_str(said.text[start..].lines().collect::<String>().trim()).unwrap()
    }

    /// Half of what the node carries without loss, beside all else that is there.
    fn half_rate(&self, seconds: u64) -> u64 {
        let seconds = seconds.to_string();
        let at =
            |rate: &str| Self::report(&mut self.start(&["--seconds", &seconds, "--rate", rate]));
        // Slowly first: each connection is opened by a worker. A machine that stands still for a moment loses some.
        let opened = || at("10000")["lost"] == 0;
        assert!((0..5).any(|_| opened()), "not even 10,000 a second pass without loss");
        let full = Self::report(&mut self.start(&["--seconds", "2"]));
        let mut rate = full["received"]["packets_per_second"].as_f64().unwrap();
        while rate > 10_000.0 {
            if at(&format!("{rate:.0}"))["lost"] == 0 {
                return (rate / 2.0) as u64;
            }
            rate *= 0.8;
        }
        panic!("not even 10,000 a second pass without loss: {full}");
    }
}

/// Frames that a cable on their way had no room for: the VM's, or the one to the sink. A veth's ring
/// has 256 places and a CPU's queue 1000, a few tenths of a millisecond here, and who reads them
/// shares two cores with all else. Redirected frames are counted at the far end, others at the near
/// one, some at both.
fn found_no_room(lab: &Lab) -> u64 {
    let dropped = |host, interface, way| {
        let said = lab.run(host, "ip", &["-j", "-s", "link", "show", "dev", interface]);
        let links: Value = serde_json::from_str(&said).unwrap();
        links[0]["stats64"][way]["dropped"].as_u64().unwrap()
    };
    let cables = [("vm2", "eth0", "left", "vnet2"), ("left", "eth1", "switch", "left-eth1")];
    let ends =
        cables.map(|(host, near, peer, far)| dropped(host, near, "tx") + dropped(peer, far, "rx"));
    ends.iter().sum()
}

/// A hundred TCP streams.
struct Streams {
    client: Running,
    _server: Running,
}

impl Streams {
    fn start(lab: &Lab, from: &str, to: &str, address: &str) -> Self {
        let server = lab.serve(to, 5201, "iperf3", &["-s", "-1", "-p", "5201"]);
        // Until they are told to end. The kernel paces them, and little waits in their sockets: each sends all the time.
        let paced = ["-P", "100", "--fq-rate", "200K", "-w", "8K", "-l", "1K"];
        let words = [&["-J", "-c", address, "-p", "5201", "-t", "0"], &paced[..]].concat();
        let client = lab.start(from, "iperf3", &words);
        let open = || lab.run(from, "ss", &["-Htn", "state", "established"]).lines().count();
        let start = Instant::now();
        // And the one that iperf3 speaks to its other end by.
        while open() < 101 {
            assert!(start.elapsed() < Duration::from_secs(20), "{from} → {address}: {}", open());
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { client, _server: server }
    }

    /// None of them ended, or was silent for a second, in the last `seconds`.
    fn went_on(self, seconds: u64, what: &str) {
        let said = self.client.interrupt();
        let report: Value = serde_json::from_str(&said.text).unwrap();
        let error = report["error"].as_str().unwrap_or_default();
        assert!(error.contains("the client has terminated"), "{what}: {error}");
        let intervals = report["intervals"].as_array().unwrap();
        // The last may be a short one.
        let last = intervals.iter().rev().skip(1).take(seconds as usize);
        assert_eq!(last.len() as u64, seconds, "{what}: {report}");
        for interval in last {
            let streams = interval["streams"].as_array().unwrap();
            let bytes = streams.iter().map(|stream| stream["bytes"].as_u64().unwrap());
            let alive = bytes.filter(|bytes| *bytes > 0).count();
            assert_eq!((streams.len(), alive), (100, 100), "{what}: {interval}");
        }
    }
}

#[test]
fn no_packet_of_an_open_connection_is_lost_while_daemons_end_and_start() {
    let rounds = number_from("TRUNKLINE_ROUNDS", 3);
    for (hook, flags) in HOOKS {
        let lab = polling_lab(hook, flags);
        let numbered = Numbered::of(&lab);
        let streams = [("vm1", "vm5", "10.0.0.7"), ("vm3", "inet", "8.8.8.8")]
            .map(|(from, to, address)| Streams::start(&lab, from, to, address));
        let rate = numbered.half_rate(2 + rounds / 5);
        let seconds = 2 * rounds + 6;
        let (rate_word, seconds_word) = (rate.to_string(), seconds.to_string());
        let before = found_no_room(&lab);
        let began = Instant::now();
        let mut packets = numbered.start(&["--seconds", &seconds_word, "--rate", &rate_word]);
        std::thread::sleep(Duration::from_secs(2));
        let mut ready = Vec::new();
        for round in 0..rounds {
            let start = Instant::now();
            match round % 3 {
                0 => lab.end("left", Signal::SIGKILL),
                1 => lab.end("left", Signal::SIGTERM),
                _ => {}
            }
            match round % 3 {
                2 => lab.take_over("left"),
                _ => lab.restart("left"),
            }
            ready.push(start.elapsed().as_millis());
            std::thread::sleep(Duration::from_millis(500));
        }
        let after = began.elapsed().as_secs();
        assert!(after < seconds, "hook {hook}: {rounds} rounds took {after} s of {seconds}");
        let report = Numbered::report(&mut packets);
        eprintln!("hook {hook}: {rate} a second, ready after {ready:?} ms");
        // Of a cable's ring the node knows nothing. What it lost itself is the rest.
        let no_room = found_no_room(&lab) - before;
        let told = || format!("hook {hook}: {report}; {no_room} found no room in a cable");
        // Streams' segments may be among them.
        let lost = report["lost"].as_u64().unwrap();
        assert!(lost <= no_room, "{}: {}", told(), lab.ctl("left", &["ports"]));
        let sent = report["sent"]["packets"].as_u64().unwrap();
        assert!(no_room < sent / 50, "{}", told());
        eprintln!("{}", told());
        for (streams, what) in streams.into_iter().zip(["to the other node", "through SNAT"]) {
            streams.went_on(seconds, &format!("hook {hook}, {what}"));
        }
        let log = lab.log("left");
        assert!(!log.contains("ERROR"), "{log}");
        assert!(log.contains("an earlier run's connections go on"), "{log}");
    }
}

#[test]
fn without_a_daemon_nobody_forgets_the_node_and_what_is_open_goes_on() {
    let seconds = number_from("TRUNKLINE_SILENCE", 10);
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        // Through SNAT, in by a float, and between tenants on a node.
        let ways = [("vm2", "8.8.8.8"), ("inet", "91.208.23.11"), ("vm1", "10.1.0.3")];
        for (from, to) in ways {
            lab.pings(from, to);
        }
        let count = seconds as u32 * 10;
        let mut pings = ways.map(|(from, to)| lab.start_pings(from, to, count, 100));
        let streams = [("vm2", "inet", "8.8.8.8"), ("inet", "vm1", "91.208.23.11")]
            .map(|(from, to, address)| Streams::start(&lab, from, to, address));
        std::thread::sleep(Duration::from_secs(2));
        lab.end("left", Signal::SIGKILL);
        // Its sockets go a moment after it. What they take until then nobody reads; who asks asks
        // again a second later.
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..seconds.saturating_sub(4) / 2 {
            for host in ["vm1", "vm2", "vm3", "inet"] {
                lab.run(host, "ip", &["neigh", "flush", "all"]);
            }
            std::thread::sleep(Duration::from_secs(2));
        }
        for (ping, (from, to)) in pings.iter_mut().zip(ways) {
            let text = ping.wait_within(LONG).text;
            assert_eq!(in_a_row(&text, count), count, "hook {hook}, {from} → {to}: {text}");
        }
        for (streams, what) in streams.into_iter().zip(["through SNAT", "by a float"]) {
            streams.went_on(seconds - 4, &format!("hook {hook}, {what}"));
        }
        lab.restart("left");
        let answered = |port: &Value| port["answered"].as_u64().unwrap_or(0);
        let ports = lab.ctl("left", &["ports"]);
        let total: u64 = ports.as_array().unwrap().iter().map(answered).sum();
        assert!(total > 0, "hook {hook}: {ports}");
        for (from, to) in ways {
            lab.pings(from, to);
        }
    }
}

#[test]
fn a_daemon_that_ended_half_way_leaves_nothing_torn() {
    let lab = Lab::up(&[]);
    // What the fault leaves of the connection that was being opened: lines claimed, and live ones
    // without their other direction.
    let faults = [("claimed", 2, 0), ("half", 1, 1), ("path", 1, 1), ("reload", 0, 0)];
    for (fault, unfinished, halves) in faults {
        lab.pings("vm2", "8.8.8.8");
        let mut open = lab.start_pings("vm2", "8.8.8.8", 100, 50);
        std::thread::sleep(Duration::from_millis(500));
        lab.end("left", Signal::SIGTERM);
        let pid = lab.restart_to_end_at("left", fault);
        let whole = std::fs::read_to_string(CONFIG).unwrap();
        if fault == "reload" {
            std::fs::write(
                CONFIG,
                whole.replace("cidr = \"10.1.0.0/24\"", "cidr = \"10.1.0.0/25\""),
            )
            .unwrap();
            lab.exec("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
        } else {
            lab.exec("vm1", "ping", &["-n", "-c", "2", "-W", "1", "8.8.8.8"]);
        }
        ended(pid);
        std::fs::write(CONFIG, whole).unwrap();
        lab.restart("left");
        let log = lab.log("left");
        let last = log.lines().rfind(|line| line.contains("connections go on"));
        let found = format!("unfinished={unfinished} halves={halves}");
        assert!(last.unwrap().contains(&found), "{fault}: {last:?}");
        lab.pings("vm1", "8.8.8.8");
        let text = open.wait().text;
        assert_eq!(in_a_row(&text, 100), 100, "{fault}: {text}");
    }
    assert!(!lab.log("left").contains("ERROR"), "{}", lab.log("left"));
}

#[test]
fn a_table_of_another_size_is_copied_and_its_connections_go_on() {
    let lab = Lab::up(&["--connections", "20000"]);
    lab.pings("vm2", "8.8.8.8");
    let streams = Streams::start(&lab, "vm2", "inet", "8.8.8.8");
    let mut open = lab.start_pings("vm2", "8.8.8.8", 120, 50);
    std::thread::sleep(Duration::from_millis(1500));
    lab.end("left", Signal::SIGKILL);
    // Flags come before the file: the lab's go, and the file has half as many.
    std::fs::write("/run/trunkline-lab/flags", "").unwrap();
    let whole = std::fs::read_to_string(CONFIG).unwrap();
    std::fs::write(CONFIG, format!("connections = 10000\n{whole}")).unwrap();
    // It ends with the new table in the old one's place, and nothing said of it yet.
    ended(lab.restart_to_end_at("left", "kept"));
    lab.restart("left");
    let connections = &lab.ctl("left", &["status"])["connections"];
    assert_eq!(connections["lines"].as_u64(), Some(1 << 16));
    // 8 streams, what opened them, and the ping.
    assert!(connections["live"].as_u64() >= Some(20), "{connections}");
    let log = lab.log("left");
    let copied = log.lines().find(|line| line.contains("connections go on")).unwrap();
    assert!(copied.contains("crowded=0"), "{copied}");
    let text = open.wait().text;
    assert_eq!(in_a_row(&text, 120), 120, "{text}");
    streams.went_on(6, "into another table");
}
