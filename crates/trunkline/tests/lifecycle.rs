//! What a running node lives through: reloads, kills, starts; and what it leaves behind.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::time::{Duration, Instant};

use lab::{HOOKS, Lab, in_a_row, pinged};
use nix::sys::signal::Signal;

fn config(node: &str) -> String {
    format!("/run/trunkline-lab/{node}.toml")
}

/// Flags of the trunk NIC as a person reads them: promiscuous, and the features that matter.
fn nic(lab: &Lab) -> Vec<String> {
    let link = lab.run("left", "ip", &["-d", "link", "show", "eth0"]);
    let promisc = link.split_whitespace().find(|word| *word == "promiscuity");
    assert!(promisc.is_some(), "{link}");
    let flags = link.contains("PROMISC").to_string();
    let features = lab.run("left", "ethtool", &["-k", "eth0"]);
    let wanted = ["rx-vlan-offload:", "rx-vlan-filter:", "large-receive-offload:"];
    let features = features.lines().filter(|line| wanted.iter().any(|name| line.contains(name)));
    std::iter::once(flags).chain(features.map(|line| line.trim().to_owned())).collect()
}

#[test]
fn a_vif_comes_and_goes_by_reload_while_others_talk() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        lab.pings("vm1", "10.0.0.4");
        lab.pings("vm2", "10.0.0.7");
        let tcp = lab.serve("vm5", 5201, "iperf3", &["-s", "-1", "-p", "5201"]);
        let udp = lab.serve("vm4", 5202, "iperf3", &["-s", "-1", "-p", "5202"]);
        let mut stream =
            lab.start("vm2", "iperf3", &["-J", "-c", "10.0.0.7", "-t", "7", "-b", "50M"]);
        let paced = ["-J", "-u", "-b", "20M", "-c", "10.0.0.6", "-p", "5202", "-t", "7"];
        let mut paced = lab.start("vm1", "iperf3", &paced);
        let mut ping = lab.start_pings("vm1", "10.0.0.4", 600, 10);
        std::thread::sleep(Duration::from_secs(1));

        let whole = std::fs::read_to_string(config("left")).unwrap();
        let at = whole.find("[[vif]]\nname = \"vnet3\"").expect("VM 3 is in the file");
        let (kept, removed) = whole.split_at(at);
        let without = match removed.get(7..).and_then(|rest| rest.find("[[")) {
            Some(next) => format!("{kept}{}", &removed[7 + next..]),
            None => kept.to_owned(),
        };
        for (text, plugged) in
            [(&without, false), (&whole, true), (&without, false), (&whole, true)]
        {
            std::fs::write(config("left"), text).unwrap();
            lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
            let ports = lab.ctl("left", &["ports"]);
            let there = ports.as_array().unwrap().iter().any(|port| port["name"] == "vnet3");
            assert_eq!(there, plugged);
            std::thread::sleep(Duration::from_millis(500));
        }

        for running in [&mut stream, &mut paced, &mut ping] {
            assert!(running.is_running(), "hook {hook}: the changes took longer than the traffic");
        }
        let text = ping.wait().text;
        assert_eq!(in_a_row(&text, 600), 600, "hook {hook}: {text}");
        let text = paced.wait().text;
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sum = &report["end"]["sum"];
        // What a busy receiver leaves in its full socket was delivered to it.
        let unread = lab.unread_datagrams("vm4");
        assert_eq!(sum["lost_packets"].as_u64(), Some(unread), "hook {hook}: {sum}");
        let said = stream.wait();
        assert!(said.ok, "hook {hook}: the TCP stream died: {}", said.text);
        drop((tcp, udp));
    }
}

#[test]
fn ten_kills_and_starts_leave_nothing_stale_and_the_host_hardly_notices() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        lab.pings("vm1", "10.0.0.7");
        let links = lab.run("left", "ip", &["-o", "link"]).lines().count();
        let pins = pins("left");
        let mut maps = vec![ports_map("left")];
        for round in 0..10 {
            let ping = ["-n", "-i", "0.01", "-W", "1", "91.207.15.1"];
            let ping = lab.start("left", "ping", &ping);
            std::thread::sleep(Duration::from_millis(300));
            lab.end("left", Signal::SIGKILL);
            lab.restart("left");
            std::thread::sleep(Duration::from_millis(300));
            let (sent, answered) = pinged(&ping.interrupt().text);
            let told = format!("hook {hook}, round {round}: {sent} sent, {answered} back");
            assert!(answered + 2 >= sent && sent >= 50, "{told}");
            lab.pings("vm1", "10.0.0.7");
            maps.push(ports_map("left"));
        }
        assert_eq!(lab.run("left", "ip", &["-o", "link"]).lines().count(), links);
        assert_eq!(self::pins("left"), pins);
        let log = lab.log("left");
        assert!(!log.contains("ERROR"), "{log}");
        // Those of earlier runs are freed a moment after the last link let go of them.
        let last = maps.pop().unwrap();
        settles(|| programs(last), PROGRAMS);
        for map in maps {
            settles(|| programs(map), 0);
        }
    }
}

/// Programs of a node that look up ports: forward as XDP in the driver and in the stack, and as tc,
/// answer, deliver.
const PROGRAMS: usize = 5;

/// Asks bpftool, which sees the whole machine.
fn bpftool(arguments: &[&str]) -> serde_json::Value {
    let output = std::process::Command::new("bpftool").arg("-j").args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The map of ports of a node, by its number in the kernel: each start makes a new one.
fn ports_map(node: &str) -> u64 {
    let path = format!("/sys/fs/bpf/trunkline/{node}/ports");
    bpftool(&["map", "show", "pinned", &path])["id"].as_u64().unwrap()
}

/// Programs in the kernel that use this map.
fn programs(map: u64) -> usize {
    let all = bpftool(&["prog", "list"]);
    let uses = |program: &&serde_json::Value| {
        program["map_ids"].as_array().is_some_and(|maps| maps.iter().any(|id| *id == map))
    };
    all.as_array().unwrap().iter().filter(uses).count()
}

fn settles(mut count: impl FnMut() -> usize, expected: usize) {
    for _ in 0..30 {
        if count() == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(count(), expected);
}

fn pins(node: &str) -> Vec<String> {
    let folder = std::fs::read_dir(format!("/sys/fs/bpf/trunkline/{node}")).unwrap();
    let mut names: Vec<String> =
        folder.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn nic_settings_stay_without_a_daemon_and_detach_puts_them_back() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        let running = nic(&lab);
        assert_eq!(running[0], "true", "hook {hook}: the trunk is promiscuous");
        assert!(running.iter().any(|line| line.starts_with("rx-vlan-offload: off")), "{running:?}");
        let map = ports_map("left");
        assert_eq!(programs(map), PROGRAMS, "hook {hook}");
        lab.end("left", Signal::SIGKILL);
        assert_eq!(nic(&lab), running, "hook {hook}: after SIGKILL");
        // Those that are attached somewhere: with tc everywhere two are not.
        assert!(programs(map) >= PROGRAMS - 2, "hook {hook}: after SIGKILL");
        let said = lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["detach", "--node", "left"]);
        assert!(said.contains("eth0"), "{said}");
        let after = nic(&lab);
        assert_eq!(after[0], "false", "hook {hook}: {after:?}");
        assert!(after.iter().any(|line| line == "rx-vlan-offload: on"), "hook {hook}: {after:?}");
        let links = lab.run("left", "ip", &["-o", "link"]);
        for ours in ["tl-punt", "br100", "br102"] {
            assert!(!links.contains(ours), "{links}");
        }
        assert!(!std::path::Path::new("/sys/fs/bpf/trunkline/left").exists());
        settles(|| programs(map), 0);
        lab.restart("left");
        assert_eq!(nic(&lab), running, "hook {hook}: after the next start");
    }
}

#[test]
fn an_idle_node_with_a_hundred_vifs_uses_less_than_a_hundredth_of_a_core() {
    let lab = Lab::up(&[]);
    let mut text = std::fs::read_to_string(config("left")).unwrap();
    let mut links = String::new();
    for number in 0..100 {
        let name = format!("idle{number}");
        links += &format!("link add {name} up type veth peer name p{number}\n");
        text += &format!(
            "\n[[vif]]\nname = \"{name}\"\nnetwork = \"tenant1\"\nmac = \"fa:16:3e:01:00:{number:02x}\"\n"
        );
    }
    let batch = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(batch.path(), links).unwrap();
    lab.run("left", "ip", &["-batch", batch.path().to_str().unwrap()]);
    std::fs::write(config("left"), text).unwrap();
    lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
    let ports = lab.ctl("left", &["ports"]);
    let plugged =
        ports.as_array().unwrap().iter().filter(|port| port["state"] == "plugged").count();
    assert!(plugged >= 107, "{plugged} ports are plugged");
    let pid = lab.pid("left");
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu_time(pid);
    let start = Instant::now();
    // Twice what it does every five seconds.
    std::thread::sleep(Duration::from_secs(10));
    let (used, over) = (cpu_time(pid) - before, start.elapsed());
    eprintln!("{used:?} of CPU in {over:?} with {plugged} ports");
    assert!(used * 100 < over, "{used:?} in {over:?}");
}

/// What all threads of a process were on a CPU, to the nanosecond (proc(5), `schedstat`).
fn cpu_time(pid: i32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let times = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(times.sum())
}

#[test]
fn frames_are_conserved_after_traffic() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        lab.pings("vm1", "10.0.0.7");
        lab.run("vm1", "ping", &["-n", "-f", "-c", "5000", "-W", "1", "10.0.0.4"]);
        lab.frames_are_conserved(hook);
    }
}
