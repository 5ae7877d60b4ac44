//! Somebody else on the trunk: Debian's kernel with 802.1Q interfaces and Linux bridges, in QEMU.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use lab::{HOOKS, Lab};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");

fn count(lines: &[String], words: &[&str]) -> usize {
    lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn a_nova_node_is_reached_in_its_vlan_and_by_scenario_6() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        lab.guest("nova");
        lab.pings("vm1", "10.0.0.20");
        let wire = lab.capture("switch", "left-eth0", "vlan and icmp");
        lab.pings("vm1", "10.1.0.20");
        let wire = wire.stop();
        let out = count(&wire, &["vlan 102", "10.0.0.3 > 10.1.0.20", "echo request", "ttl 63"]);
        let back = count(&wire, &["vlan 100", "10.1.0.20 > 10.0.0.3", "echo reply", "ttl 63"]);
        assert!(out >= 20 && back >= 20, "hook {hook}: {out} {back} {:?}", wire.first());
    }
}

/// Has a node know the router as the gateway of both networks.
fn gateways_elsewhere(lab: &Lab, node: &str, own: &str, without: Option<&str>) {
    let file = format!("/run/trunkline-lab/{node}.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    for network in ["10.0.0", "10.1.0"] {
        let mine = format!("gateway = \"{network}.{own}\"");
        text = text.replace(&mine, &format!("external_gateway = \"{network}.254\""));
    }
    if let Some(vif) = without {
        let (before, after) = text.split_once(&format!("\n[[vif]]\nname = \"{vif}\"")).unwrap();
        text = format!("{before}\n{}", after.split_once("\n\n").map_or("", |(_, rest)| rest));
    }
    std::fs::write(&file, text).unwrap();
    lab.run(node, PROGRAM, &["ctl", "--node", node, "reload"]);
}

#[test]
fn a_router_on_the_trunk_is_the_gateway_and_trunkline_only_bridges() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        lab.guest("router");
        gateways_elsewhere(&lab, "left", "1", Some("vnet3"));
        gateways_elsewhere(&lab, "right", "5", None);
        for (vm, router) in [("vm1", "10.0.0.254"), ("vm6", "10.1.0.254")] {
            lab.run(vm, "ip", &["route", "replace", "default", "via", router]);
            lab.run(vm, "ip", &["neigh", "flush", "dev", "eth0"]);
        }
        let asked = lab.capture("vm1", "eth0", "arp");
        let seen = lab.capture("vm6", "eth0", "icmp");
        let public = lab.capture("switch", "left-eth1", "net 10.0.0.0/8");
        lab.pings("vm1", "10.1.0.4");
        let answers = asked.stop();
        let answers: Vec<_> = answers.iter().filter(|line| line.contains("is-at")).collect();
        assert_eq!(answers.len(), 1, "hook {hook}: {answers:?}");
        assert!(answers[0].contains("10.0.0.254 is-at fa:16:3e:00:00:99"), "{answers:?}");
        let seen = seen.stop();
        assert!(count(&seen, &["10.0.0.3 > 10.1.0.4", "echo request", "ttl 63"]) >= 20);
        assert_eq!(public.stop(), Vec::<String>::new(), "hook {hook}");
        let links = lab.run("left", "ip", &["-o", "link"]);
        assert!(!links.contains("br102"), "{links}");
    }
}
