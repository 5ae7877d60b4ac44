//! The seed's routed scenarios on real interfaces, with XDP everywhere and with tc everywhere.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lab::{HOOKS, Lab, Running};

/// How many lines have all these words.
fn count(lines: &[String], words: &[&str]) -> usize {
    lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

/// What the switch says while something runs: each MAC with the ports it was learned on.
struct Learned(Running);

impl Learned {
    fn watch(lab: &Lab) -> Self {
        let running = lab.start("switch", "bridge", &["monitor", "fdb"]);
        std::thread::sleep(Duration::from_millis(300));
        Self(running)
    }

    /// No MAC spoke by two ports: what nodes route leaves with their own.
    fn no_mac_moved(self) {
        let said = self.0.interrupt().text;
        let mut ports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in said.lines().filter(|line| !line.contains("permanent")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let (Some(mac), Some(at)) = (words.first(), words.iter().position(|w| *w == "dev")) {
                let port = words[at + 1].to_owned();
                ports.entry((*mac).to_owned()).or_default().insert(port);
            }
        }
        // The trunk's ports and the public ones are other bridges: a NIC has one MAC, on one.
        for (mac, ports) in &ports {
            assert_eq!(ports.len(), 1, "{mac} was seen on {ports:?}: {said}");
        }
        assert!(!ports.is_empty(), "the switch learned nothing: {said}");
    }
}

#[test]
fn scenario_2_a_fixed_address_goes_out_as_its_node() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let wire = lab.capture("switch", "left-eth1", "icmp");
        let private = lab.capture("switch", "left-eth1", "net 10.0.0.0/8");
        lab.pings("vm2", "8.8.8.8");
        let wire = wire.stop();
        let out = count(&wire, &["91.207.15.105 > 8.8.8.8", "echo request"]);
        let back = count(&wire, &["8.8.8.8 > 91.207.15.105", "echo reply"]);
        assert!(out >= 20 && back >= 20, "hook {hook}: {out} {back} {:?}", wire.first());
        assert_eq!(private.stop(), Vec::<String>::new(), "hook {hook}");
    }
}

#[test]
fn scenario_5_other_tenant_same_node_is_routed_once_and_not_translated() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let at = lab.capture("vm3", "eth0", "icmp");
        lab.pings("vm1", "10.1.0.3");
        let at = at.stop();
        assert_eq!(
            count(&at, &["10.0.0.3 > 10.1.0.3", "echo request", "ttl 63"]),
            20,
            "{:?}",
            at.first()
        );
        let routes = lab.run("left", "ip", &["route"]);
        assert!(routes.contains("10.0.0.0/24 dev br100"), "{routes}");
        assert!(routes.contains("10.1.0.0/24 dev br102"), "{routes}");
    }
}

#[test]
fn scenario_6_leaves_tagged_102_and_comes_back_tagged_100() {
    for (hook, flags) in HOOKS {
        for shared in [&[][..], &["--share-dhcp-address"]] {
            eprintln!("hook {hook} {shared:?}");
            let lab = Lab::up(&[flags, shared].concat());
            let learned = Learned::watch(&lab);
            let wire = lab.capture("switch", "left-eth0", "vlan and icmp");
            lab.pings("vm1", "10.1.0.4");
            let wire = wire.stop();
            let out = count(&wire, &["vlan 102", "10.0.0.3 > 10.1.0.4", "echo request", "ttl 63"]);
            let back = count(&wire, &["vlan 100", "10.1.0.4 > 10.0.0.3", "echo reply", "ttl 63"]);
            assert!(out >= 20 && back >= 20, "{out} {back} {:?}", wire.first());
            assert_eq!(wire.len(), out + back, "{wire:?}");
            learned.no_mac_moved();
            // VM 6 still knows its gateway by the address all gateways have.
            let gateway = if shared.is_empty() { "10.1.0.5" } else { "10.1.0.1" };
            lab.pings("vm6", gateway);
            let known = lab.run("vm6", "ip", &["neigh", "show", gateway, "dev", "eth0"]);
            assert!(known.contains("02:74:6c:00:00:01"), "{known}");
        }
    }
}

#[test]
fn scenario_7_and_every_hairpin_of_floating_addresses() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let wire = lab.capture("switch", "left-eth1", "icmp");
        lab.pings("vm1", "91.208.23.16");
        let wire = wire.stop();
        let out = count(&wire, &["91.208.23.11 > 91.208.23.16", "echo request", "ttl 63"]);
        assert!(out >= 20, "hook {hook}: {out} {:?}", wire.first());
        assert!(count(&wire, &["91.208.23.16 > 91.208.23.11", "echo reply"]) >= 20);
        // Its own, a sibling's, another tenant's and the other node's, from the host and outside.
        for (from, to) in [
            ("vm1", "91.208.23.11"),
            ("vm2", "91.208.23.11"),
            ("vm3", "91.208.23.11"),
            ("vm4", "91.208.23.11"),
            ("vm6", "91.208.23.11"),
            ("left", "91.208.23.11"),
            ("right", "91.208.23.11"),
            ("inet", "91.208.23.11"),
        ] {
            eprintln!("{from} to {to}");
            lab.pings(from, to);
        }
    }
}

#[test]
fn without_a_vif_of_tenant_2_on_demand_is_unreachable_and_eager_works() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        for provision in ["on-demand", "eager"] {
            let lab = Lab::up(&[flags, &["--provision", provision]].concat());
            let file = "/run/trunkline-lab/left.toml";
            let text = std::fs::read_to_string(file).unwrap();
            let (before, after) = text.split_once("\n[[vif]]\nname = \"vnet3\"").unwrap();
            let after = after.split_once("\n\n").map_or("", |(_, rest)| rest);
            std::fs::write(file, format!("{before}\n{after}")).unwrap();
            lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
            let private = lab.capture("switch", "left-eth1", "net 10.0.0.0/8");
            let text = lab.exec("vm1", "ping", &["-n", "-c", "3", "-W", "1", "10.1.0.4"]).text;
            if provision == "eager" {
                assert!(text.contains(" 0% packet loss"), "hook {hook}: {text}");
            } else {
                let told = "From 10.0.0.1 icmp_seq=1 Destination Host Unreachable";
                assert!(text.contains(told), "hook {hook}: {text}");
            }
            assert_eq!(private.stop(), Vec::<String>::new(), "leaked, hook {hook} {provision}");
            let links = lab.run("left", "ip", &["-o", "link"]);
            assert!(!links.contains("br102"), "{links}");
        }
    }
}

#[test]
fn the_hosts_own_traffic_goes_on_beside_the_tenants() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        lab.pings("left", "8.8.8.8");
        lab.pings("inet", "91.207.15.105");
        // What cannot be told apart on the NIC comes back: fragments and ICMP errors.
        for (from, to) in [("left", "8.8.8.8"), ("inet", "91.207.15.105")] {
            let large = ["-n", "-c", "5", "-i", "0.1", "-w", "10", "-s", "4000", to];
            let said = lab.exec(from, "ping", &large);
            assert_eq!(lab::in_a_row(&said.text, 5), 5, "{from}, hook {hook}: {said:?}");
        }
        let said = lab.run("left", "traceroute", &["-n", "-q", "1", "-N", "1", "8.8.8.8"]);
        assert!(said.lines().nth(1).unwrap().contains("8.8.8.8"), "hook {hook}: {said}");
        assert!(lab.ctl("left", &["status"])["verdicts"]["host"].as_u64() > Some(10));
        // The host and VMs of both nodes reach each other, and the host's services are there.
        for to in ["10.0.0.3", "10.0.0.6", "10.1.0.3", "10.1.0.4"] {
            lab.pings("left", to);
        }
        let file = "/run/trunkline-lab/left.toml";
        let text = std::fs::read_to_string(file).unwrap();
        let rule = "[[host_rule]]\nprotocol = \"tcp\"\nports = \"8022\"\n";
        std::fs::write(file, format!("{text}\n{rule}")).unwrap();
        lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
        for (from, to) in [("vm1", "10.0.0.1"), ("vm1", "10.1.0.1"), ("vm1", "91.207.15.105")] {
            let words = ["nc", "-l", "-p", "8022", "-e", "/bin/echo", "hello"];
            let server = lab.serve("left", 8022, "busybox", &words);
            let said = lab.exec(from, "timeout", &["3", "busybox", "nc", "-w", "2", to, "8022"]);
            assert!(said.text.contains("hello"), "{from} to {to}, hook {hook}: {said:?}");
            drop(server);
        }
        let reserved = lab.run("left", "sysctl", &["-n", "net.ipv4.ip_local_reserved_ports"]);
        assert_eq!(reserved.trim(), "20000-45999");
    }
}

#[test]
fn nobody_answers_an_established_connection_while_no_daemon_runs() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let server = lab.serve("inet", 5201, "timeout", &["20", "iperf3", "-s", "-1"]);
        let client =
            lab.start("vm2", "timeout", &["15", "iperf3", "-c", "8.8.8.8", "-t", "6", "-b", "5M"]);
        std::thread::sleep(Duration::from_secs(2));
        let errors = lab.capture(
            "inet",
            "eth0",
            "src host 91.207.15.105 and (icmp or tcp[tcpflags] & tcp-rst != 0)",
        );
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(lab.pid("left")),
            nix::sys::signal::SIGKILL,
        )
        .unwrap();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(errors.stop(), Vec::<String>::new(), "hook {hook}");
        drop(client);
        drop(server);
    }
}

#[test]
fn under_load_from_both_nodes_into_one_vlan_no_mac_moves_in_the_switch() {
    let lab = Lab::up(&[]);
    let learned = Learned::watch(&lab);
    let serve = |vm| lab.serve(vm, 5201, "timeout", &["15", "iperf3", "-s", "-1"]);
    let servers = ["vm6", "vm3"].map(serve);
    // Both nodes route into VLAN 102: the left one to VM 6, the right one to VM 3.
    let clients = [("vm1", "10.1.0.4"), ("vm4", "10.1.0.3")]
        .map(|(vm, to)| lab.start(vm, "timeout", &["10", "iperf3", "-c", to, "-t", "3"]));
    for mut client in clients {
        let said = client.wait();
        assert!(said.ok && said.text.contains("receiver"), "{said:?}");
    }
    drop(servers);
    learned.no_mac_moved();
}
