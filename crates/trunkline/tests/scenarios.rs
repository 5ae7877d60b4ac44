//! The seed's bridged scenarios on real interfaces, with XDP everywhere and with tc everywhere.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use lab::{HOOKS, Lab};

const VM1: &str = "fa:16:3e:00:00:01";

#[test]
fn scenario_3_same_tenant_same_node() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let at: Vec<_> = ["vm1", "vm2", "vm4", "vm5", "vm3", "vm6"]
            .map(|vm| lab.capture(vm, "eth0", "arp and arp[6:2] = 1 and arp[24:4] = 0x0a000004"))
            .into_iter()
            .collect();
        lab.pings("vm1", "10.0.0.4");
        let seen: Vec<usize> = at.into_iter().map(|capture| capture.stop().len()).collect();
        // Sent once (seen going out on VM 1, and not coming back), heard by the tenant's others.
        assert_eq!(seen, [1, 1, 1, 1, 0, 0], "who saw the ARP request, hook {hook}");
    }
}

#[test]
fn scenario_4_same_tenant_other_node() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let wire = lab.capture("switch", "left-eth0", "vlan 100 and icmp");
        let untagged = lab.capture("switch", "left-eth0", "not vlan and (icmp or arp)");
        let guest = lab.capture("vm1", "eth0", "vlan");
        lab.pings("vm1", "10.0.0.7");
        let wire = wire.stop();
        let count = |what: &str| wire.iter().filter(|line| line.contains(what)).count();
        let (out, back) = (count("echo request"), count("echo reply"));
        assert!(out >= 20 && back >= 20, "hook {hook}: {wire:?}");
        assert!(wire.iter().all(|line| line.contains("vlan 100")));
        assert_eq!(untagged.stop(), Vec::<String>::new(), "untagged on the trunk, hook {hook}");
        assert_eq!(guest.stop(), Vec::<String>::new(), "VM 1 saw a tag, hook {hook}");
    }
}

#[test]
fn nothing_of_vlan_102_reaches_a_vm_of_tenant_1() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let filter = "ether src fa:16:3e:00:00:03 or ether src fa:16:3e:00:00:06";
        let captures = ["vm1", "vm2", "vm4", "vm5"].map(|vm| lab.capture(vm, "eth0", filter));
        let own = lab.capture("vm6", "eth0", "ether src fa:16:3e:00:00:03");
        // Broadcast, unicast to a MAC of tenant 1 (the switch keeps that one back from the other
        // node), unicast to one nobody has.
        lab.exec("vm3", "busybox", &["arping", "-c", "3", "-w", "3", "-I", "eth0", "10.0.0.3"]);
        for (address, mac) in [("10.1.0.77", VM1), ("10.1.0.78", "02:00:00:00:00:99")] {
            lab.run("vm3", "ip", &["neigh", "replace", address, "lladdr", mac, "dev", "eth0"]);
            let words = ["-n", "-i", "0.01", "-W", "1", "-c", "5", address];
            assert_eq!(lab::pinged(&lab.exec("vm3", "ping", &words).text), (5, 0));
        }
        lab.exec("vm3", "ping", &["-6", "-c", "2", "-W", "1", "-I", "eth0", "ff02::1"]);
        for capture in captures {
            assert_eq!(capture.stop(), Vec::<String>::new(), "hook {hook}");
        }
        let own = own.stop();
        assert!(own.len() >= 8, "what tenant 2's own VM hears, hook {hook}: {own:#?}");
    }
}

#[test]
fn flat_six_vms_in_one_untagged_segment() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(&[flags, &["--network-manager", "flat"]].concat());
        let tagged = lab.capture("switch", "left-eth0", "vlan");
        let vms = [
            ("vm1", "10.0.0.3"),
            ("vm2", "10.0.0.4"),
            ("vm3", "10.0.0.8"),
            ("vm4", "10.0.0.6"),
            ("vm5", "10.0.0.7"),
            ("vm6", "10.0.0.9"),
        ];
        for (from, own) in vms {
            for (_, to) in vms.iter().filter(|(_, address)| *address != own) {
                assert_eq!(lab.ping(from, to, 3), 3, "{from} → {to}, hook {hook}");
            }
        }
        assert_eq!(tagged.stop(), Vec::<String>::new(), "hook {hook}");
    }
}

#[test]
fn ipv6_is_bridged_within_the_tenant() {
    let lab = Lab::up(&[]);
    // Link-local address of VM 5, from its MAC (RFC 4291 appendix A).
    let target = "fe80::f816:3eff:fe00:5%eth0";
    std::thread::sleep(std::time::Duration::from_secs(2)); // duplicate address detection
    let text =
        lab.exec("vm1", "ping", &["-6", "-n", "-c", "5", "-i", "0.1", "-w", "10", target]).text;
    assert_eq!(lab::in_a_row(&text, 5), 5, "{text}");
}
