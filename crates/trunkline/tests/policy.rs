//! What VMs may reach on the node, and what networks are routed between.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use lab::{HOOKS, Lab, Running, Said};

const FILE: &str = "/run/trunkline-lab/left.toml";
const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");

/// The left node's file as the lab wrote it, with these settings before and these tables behind.
struct Node {
    text: String,
}

impl Node {
    fn of(_: &Lab) -> Self {
        Self { text: std::fs::read_to_string(FILE).unwrap() }
    }

    fn configure(&self, lab: &Lab, settings: &str, tables: &str) {
        std::fs::write(FILE, format!("{settings}\n{}\n{tables}\n", self.text)).unwrap();
        lab.run("left", PROGRAM, &["ctl", "--node", "left", "reload"]);
    }
}

/// Says hello to whoever connects, once.
fn greet(lab: &Lab, host: &str, port: &str) -> Running {
    let words = ["nc", "-ll", "-p", port, "-e", "/bin/echo", "hello"];
    lab.serve(host, port.parse().unwrap(), "busybox", &words)
}

fn connect(lab: &Lab, from: &str, to: &str, port: &str) -> Said {
    lab.exec(from, "timeout", &["3", "busybox", "nc", "-w", "2", to, port])
}

fn is_greeted(lab: &Lab, from: &str, to: &str, port: &str) -> bool {
    connect(lab, from, to, port).text.contains("hello")
}

fn drops(lab: &Lab, reason: &str) -> u64 {
    lab.ctl("left", &["status"])["drops"][reason].as_u64().unwrap_or(0)
}

const SSH: &str = "[[host_rule]]\nprotocol = \"tcp\"\nports = \"8022\"\nnetwork = \"tenant1\"\n";

#[test]
fn the_node_serves_its_vms_with_what_gateways_do_and_what_a_rule_says() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let node = Node::of(&lab);
        let _ssh = greet(&lab, "left", "8022");
        let _dns = greet(&lab, "left", "53");
        lab.pings("vm1", "10.0.0.1");
        assert!(is_greeted(&lab, "vm1", "10.0.0.1", "53"), "hook {hook}: DNS");
        let others = [("vm1", "10.0.0.1"), ("vm1", "91.207.15.105"), ("vm3", "10.0.0.1")];
        for (vm, to) in others {
            assert!(!is_greeted(&lab, vm, to, "8022"), "hook {hook}: {vm} to {to}");
        }
        // Nor over the trunk, where the other node's gateway is an address of the own network.
        let _far = greet(&lab, "right", "8022");
        lab.pings("vm1", "10.0.0.5");
        assert!(!is_greeted(&lab, "vm1", "10.0.0.5", "8022"), "hook {hook}");
        let denied = lab.ctl("right", &["status"])["drops"]["host_denied"].as_u64();
        assert!(denied >= Some(1), "hook {hook}: {denied:?}");
        let asked = lab.exec("vm1", "ping", &["-n", "-c", "2", "-i", "0.2", "-W", "1", "10.1.0.1"]);
        assert_eq!(lab::pinged(&asked.text), (2, 0), "hook {hook}");
        assert!(drops(&lab, "host_denied") >= 5, "hook {hook}");
        // The host may begin all the same.
        for to in ["10.0.0.3", "10.1.0.3", "10.1.0.4"] {
            lab.pings("left", to);
        }

        node.configure(&lab, "", SSH);
        for (vm, to) in [("vm1", "10.0.0.1"), ("vm2", "91.207.15.105")] {
            assert!(is_greeted(&lab, vm, to, "8022"), "hook {hook}: {vm} to {to}");
        }
        assert!(!is_greeted(&lab, "vm3", "10.1.0.1", "8022"), "hook {hook}: another tenant's");
        node.configure(&lab, "", "");
        assert!(!is_greeted(&lab, "vm1", "10.0.0.1", "8022"), "hook {hook}: taken away");
    }
}

#[test]
fn who_is_kept_out_may_be_told_or_logged() {
    let lab = Lab::up(&[]);
    let node = Node::of(&lab);
    node.configure(&lab, "iptables_drop_action = \"REJECT\"", "");
    let at = lab.capture("vm1", "eth0", "icmp[0] = 3 and icmp[1] = 13");
    let start = std::time::Instant::now();
    assert!(!is_greeted(&lab, "vm1", "10.0.0.1", "8022"));
    assert!(start.elapsed() < std::time::Duration::from_secs(2), "it need not wait");
    let told = at.stop();
    assert!(told.iter().any(|line| line.contains("10.0.0.1 > 10.0.0.3")), "{told:?}");
    node.configure(&lab, "iptables_drop_action = \"LOGDROP\"", "");
    assert!(!is_greeted(&lab, "vm1", "10.0.0.1", "8022"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let log = lab.log("left");
    let line = "forbidden: 10.0.0.3 by vnet1 to tcp 10.0.0.1:8022 reason=\"host_denied\"";
    assert!(log.contains(line), "{log}");
}

#[test]
fn networks_are_routed_where_forward_bridge_interface_says() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let node = Node::of(&lab);
        let pings = |from: &str, to: &str| {
            let words = ["-n", "-c", "2", "-i", "0.2", "-W", "1", to];
            lab::pinged(&lab.exec(from, "ping", &words).text).1 > 0
        };
        assert!(pings("vm1", "10.1.0.3") && pings("vm1", "10.1.0.4") && pings("vm1", "8.8.8.8"));
        node.configure(&lab, "forward_bridge_interface = [\"eth1\"]", "");
        // nova's own rules let the other tenant's VM of the same node through.
        assert!(!pings("vm1", "10.1.0.3") && !pings("vm1", "10.1.0.4"), "hook {hook}");
        assert!(pings("vm1", "8.8.8.8") && pings("vm1", "10.0.0.7"), "hook {hook}");
        assert!(pings("vm1", "91.208.23.16") && pings("inet", "91.208.23.11"), "hook {hook}");
        assert!(pings("left", "10.1.0.3"), "hook {hook}: the host is no VM");
        assert!(drops(&lab, "forward_denied") >= 4, "hook {hook}");
        node.configure(&lab, "forward_bridge_interface = [\"br102\"]", "");
        assert!(pings("vm1", "10.1.0.3") && !pings("vm1", "8.8.8.8"), "hook {hook}");
        node.configure(&lab, "", "");
        assert!(pings("vm1", "10.1.0.4") && pings("vm1", "8.8.8.8"), "hook {hook}");
    }
}
