//! Packets of 9000 bytes on the trunk and in VMs, beside a public side of 1500.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::time::Duration;

use lab::{HOOKS, Lab};

/// What fills a packet of 9000 bytes: behind the headers of IPv4 and ICMP.
const FULL: &str = "8972";
/// Bytes of a TCP transfer, and what is counted of it at least: the rest is on its way at the end.
const SENT: u64 = 150_000_000;
const ARRIVES: u64 = 100_000_000;

/// XDP in the stack, which has a program of its own.
const GENERIC: (&str, &[&str]) =
    ("generic", &["--hook", "xdp", "--vif-hook", "xdp", "--xdp-mode", "generic"]);

fn jumbo(flags: &[&str]) -> Lab {
    Lab::up(&[flags, &["--mtu", "9000"]].concat())
}

/// Pings that may not be cut; what ping printed.
fn ping(lab: &Lab, from: &str, to: &str, size: &str) -> String {
    let words = ["-n", "-i", "0.05", "-w", "3", "-c", "10", "-M", "do", "-s", size, to];
    lab.exec(from, "ping", &words).text
}

/// Runs an iperf3 client against a one-off server; the client's report.
fn iperf(lab: &Lab, from: &str, server: &str, words: &[&str]) -> serde_json::Value {
    // Of several addresses a datagram's answer would leave with the nearest.
    let bound: &[&str] = if server == "inet" { &["-B", "8.8.8.8"] } else { &[] };
    let mut listening = lab.serve(server, 5201, "iperf3", &[&["-s", "-1"], bound].concat());
    let client = [&["-J", "--connect-timeout", "5000"], words].concat();
    let text = lab.run(from, "iperf3", &client);
    listening.wait();
    // Warnings stand around the report.
    let report = text.find('{').and_then(|from| text.get(from..=text.rfind('}')?)).unwrap();
    serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A TCP transfer from VM 1, and one to it; both rates in Gbit/s.
fn transfers(lab: &Lab, what: &str, server: &str, address: &str) -> [f64; 2] {
    let bytes = SENT.to_string();
    [&[][..], &["-R"]].map(|direction| {
        let words = [&["-c", address, "-n", &bytes], direction].concat();
        let report = iperf(lab, "vm1", server, &words);
        let sum = &report["end"]["sum_received"];
        let received = sum["bytes"].as_u64().unwrap();
        assert!(received >= ARRIVES, "{what}, {server} {direction:?}: {received}");
        for end in ["vm1", server] {
            assert_eq!(lab.bad_checksums(end), 0, "{what}, {end}");
        }
        sum["bits_per_second"].as_f64().unwrap() / 1e9
    })
}

#[test]
fn packets_of_9000_bytes_pass_whole_between_vms_here_there_and_routed() {
    for (hook, flags) in HOOKS.into_iter().chain([GENERIC]) {
        let lab = jumbo(flags);
        for to in ["10.0.0.4", "10.0.0.7", "10.1.0.3", "10.1.0.4", "10.0.0.1"] {
            let text = ping(&lab, "vm1", to, FULL);
            assert_eq!(lab::in_a_row(&text, 10), 10, "hook {hook}, {to}: {text}");
        }
        // The host's foot in the segment has the segment's MTU.
        let text = ping(&lab, "left", "10.0.0.3", FULL);
        assert_eq!(lab::in_a_row(&text, 10), 10, "hook {hook}, host: {text}");
        let punt = lab.run("left", "ip", &["link", "show", "tl-punt1"]);
        assert!(punt.contains("mtu 9008"), "{punt}");
        let carried = lab.ctl("left", &["status"])["verdicts"]["replayed"].as_u64().unwrap();
        assert!(carried >= 60, "hook {hook}: the kernel carried {carried}");
        // Received bytes are those of whole packets, the first piece's and the others'.
        let ports = lab.ctl("left", &["ports"]);
        let vif = ports.as_array().unwrap().iter().find(|port| port["name"] == "vnet1").unwrap();
        assert!(vif["rx_bytes"].as_u64().unwrap() >= 60 * 9014, "hook {hook}: {vif}");
        lab.frames_are_conserved(hook);
    }
}

#[test]
fn what_is_too_large_for_the_public_side_is_told_or_cut() {
    for (hook, flags) in HOOKS {
        let lab = jumbo(flags);
        // VM 1 has a floating address, VM 2 leaves by the shared one.
        for vm in ["vm1", "vm2"] {
            let text = ping(&lab, vm, "8.8.8.8", FULL);
            assert!(text.contains("Frag needed and DF set (mtu = 1500)"), "{hook}, {vm}: {text}");
            let route = lab.run(vm, "ip", &["route", "get", "8.8.8.8"]);
            assert!(route.contains("mtu 1500"), "{hook}, {vm}: {route}");
            let text = ping(&lab, vm, "8.8.8.8", "1472");
            assert_eq!(lab::in_a_row(&text, 10), 10, "{hook}, {vm}: {text}");
        }
        // The kernel's programs see what is too large for the way of an open connection.
        let open = ["-n", "-c", "5", "-i", "0.1", "-W", "1", "-s", "100", "8.8.8.8"];
        lab.run("vm3", "ping", &open);
        for vm in ["vm1", "vm3"] {
            lab.run(vm, "sysctl", &["-qw", "net.ipv4.ip_no_pmtu_disc=1"]);
            lab.run(vm, "ip", &["route", "flush", "cache"]);
            let wire = lab.capture("inet", "eth0", "udp and greater 1000");
            let words = ["-c", "8.8.8.8", "-u", "-l", "8000", "-b", "8M", "-n", "800000"];
            let report = iperf(&lab, vm, "inet", &words);
            let sum = &report["end"]["sum"];
            let (lost, all) = (sum["lost_packets"].as_u64(), sum["packets"].as_u64());
            assert_eq!((lost, all), (Some(0), Some(100)), "{hook}, {vm}: {sum}");
            let wire = wire.stop();
            let cut = wire.iter().filter(|line| line.contains("flags [+]")).count();
            assert!(cut >= 500, "{hook}, {vm}: {cut} of {} in fragments", wire.len());
        }
        lab.frames_are_conserved(hook);
    }
}

#[test]
fn tcp_of_large_segments_arrives_intact_both_ways_here_there_routed_and_translated() {
    let peers =
        [("vm2", "10.0.0.4"), ("vm5", "10.0.0.7"), ("vm6", "10.1.0.4"), ("inet", "8.8.8.8")];
    for (hook, flags) in HOOKS {
        let mut rates = Vec::new();
        for mtu in ["1500", "9000"] {
            let lab = Lab::up(&[flags, &["--mtu", mtu]].concat());
            let what = format!("hook {hook}, mtu {mtu}");
            rates.push(peers.map(|(server, address)| transfers(&lab, &what, server, address)));
            lab.frames_are_conserved(&what);
        }
        for (at, (server, _)) in peers.iter().enumerate() {
            for (way, direction) in ["to", "from"].iter().enumerate() {
                let [small, large] = [0, 1].map(|mtu: usize| rates[mtu][at][way]);
                eprintln!(
                    "hook {hook}, VM 1 {direction} {server}: {small:.2} Gbit/s with 1500, \
                     {large:.2} with 9000"
                );
            }
        }
    }
}

#[test]
fn workers_alone_carry_large_packets_as_well() {
    for (hook, flags) in HOOKS {
        let lab = jumbo(&[flags, &["--replay", "userspace"]].concat());
        for (server, address) in [("vm2", "10.0.0.4"), ("vm5", "10.0.0.7"), ("vm6", "10.1.0.4")] {
            let text = ping(&lab, "vm1", address, FULL);
            assert_eq!(lab::in_a_row(&text, 10), 10, "hook {hook}, {server}: {text}");
            let rates = transfers(&lab, hook, server, address);
            eprintln!("hook {hook}, workers, VM 1 and {server}: {rates:.2?} Gbit/s");
        }
        lab.frames_are_conserved(hook);
        let drops = lab.ctl("left", &["status"])["drops"].clone();
        assert!(drops["no_memory"].is_null(), "hook {hook}: {drops}");
    }
}

#[test]
fn an_mtu_that_changes_under_the_daemon_is_followed() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        let set = |host: &str, link: &str, mtu: &str| {
            lab.run(host, "ip", &["link", "set", link, "mtu", mtu]);
        };
        let wait = || std::thread::sleep(Duration::from_millis(500));
        for node in ["left", "right"] {
            set("switch", &format!("{node}-eth0"), "9000");
            set(node, "eth0", "9000");
        }
        for (vif, vm, node) in [("vnet1", "vm1", "left"), ("vnet5", "vm5", "right")] {
            set(node, vif, "9000");
            set(vm, "eth0", "9000");
        }
        wait();
        let text = ping(&lab, "vm1", "10.0.0.7", FULL);
        assert_eq!(lab::in_a_row(&text, 10), 10, "hook {hook}: {text}");
        let punt = lab.run("left", "ip", &["link", "show", "tl-punt0"]);
        assert!(punt.contains("mtu 9008"), "{punt}");
        // To a network of 1500 it is routed, and the gateway says what fits.
        let text = ping(&lab, "vm1", "10.1.0.3", FULL);
        assert!(text.contains("Frag needed and DF set (mtu = 1500)"), "hook {hook}: {text}");
        set("vm5", "eth0", "1500");
        set("right", "vnet5", "1500");
        wait();
        // Nobody tells the sender of a frame that is bridged.
        let text = ping(&lab, "vm1", "10.0.0.7", FULL);
        assert_eq!(lab::in_a_row(&text, 1), 0, "hook {hook}: {text}");
        let drops = lab.ctl("right", &["status"])["drops"].clone();
        assert_eq!(drops["too_big"], lab::pinged(&text).0, "hook {hook}: {drops}");
        // Larger than anything there is room for: said, and the rest goes on.
        set("left", "vnet2", "20000");
        wait();
        let warnings = lab.ctl("left", &["status"])["warnings"].to_string();
        assert!(warnings.contains("its mtu is 20000"), "hook {hook}: {warnings}");
        lab.pings("vm2", "10.0.0.3");
        lab.frames_are_conserved(hook);
    }
}
