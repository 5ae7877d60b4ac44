//! What happens to NICs under a running daemon: they flap, go and come back, get other queues and
//! another MTU. Sockets and programs come back by themselves.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::time::{Duration, Instant};

use lab::{HOOKS, Lab};
use nix::sys::signal::Signal;

/// Until the node says so, ten seconds at most.
fn until(lab: &Lab, what: &str, mut is_so: impl FnMut(&serde_json::Value) -> bool) {
    let start = Instant::now();
    loop {
        let status = lab.ctl("left", &["status"]);
        if is_so(&status) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn renewals(status: &serde_json::Value) -> u64 {
    status["socket_renewals"].as_u64().unwrap()
}

/// New connections over the trunk and to the provider, which workers have to open.
fn all_is_well(lab: &Lab) {
    lab.pings("vm1", "10.0.0.7");
    lab.pings("vm2", "8.8.8.8");
    lab.pings("inet", "91.208.23.11");
}

#[test]
fn a_nic_flaps_and_goes_on() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        all_is_well(&lab);
        for nic in ["eth0", "eth1"] {
            lab.run("left", "ip", &["link", "set", nic, "down"]);
            std::thread::sleep(Duration::from_millis(500));
            lab.run("left", "ip", &["link", "set", nic, "up"]);
        }
        // Linux forgets routes by an interface that is down; who runs the host puts them back.
        lab.run("left", "ip", &["route", "replace", "default", "via", "91.207.15.1"]);
        std::thread::sleep(Duration::from_secs(1));
        eprintln!("hook {hook}");
        all_is_well(&lab);
    }
}

#[test]
fn a_nic_that_goes_and_comes_back_is_the_same_port_with_new_sockets() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        all_is_well(&lab);
        let number = |lab: &Lab| {
            let ports = lab.ctl("left", &["ports"]);
            let port = ports.as_array().unwrap().iter().find(|port| port["name"] == "eth0");
            port.map(|port| (port["number"].clone(), port["state"].clone())).unwrap()
        };
        let before = number(&lab);
        lab.run("left", "ip", &["link", "del", "eth0"]);
        until(&lab, "it is gone", |_| number(&lab).1 != "plugged");
        lab.pings("vm1", "10.0.0.4");
        lab.pings("vm2", "8.8.8.8");
        let add = "link add eth0 netns tl-left type veth peer name left-eth0";
        lab.run("switch", "ip", &add.split(' ').collect::<Vec<_>>());
        if hook == "xdp" {
            let off =
                ["-K", "left-eth0", "tx", "off", "txvlan", "off", "tx-vlan-stag-hw-insert", "off"];
            lab.run("switch", "ethtool", &off);
        }
        lab.run("switch", "ip", &["link", "set", "left-eth0", "master", "trunk", "up"]);
        lab.run("left", "ip", &["link", "set", "eth0", "up"]);
        until(&lab, "it is back", |_| number(&lab) == before);
        if hook == "xdp" {
            until(&lab, "new sockets", |status| renewals(status) >= 1);
        }
        all_is_well(&lab);
    }
}

#[test]
fn a_nic_with_other_queues_gets_other_sockets() {
    let (_, flags) = HOOKS[1];
    let lab = Lab::up(flags);
    all_is_well(&lab);
    lab.run("left", "ethtool", &["-L", "eth0", "rx", "2", "tx", "2"]);
    until(&lab, "new sockets", |status| renewals(status) == 1);
    all_is_well(&lab);
    // The kernel takes no queue away that has a socket; without a daemon none has.
    let fewer = ["-L", "eth0", "rx", "1", "tx", "1"];
    let said = lab.exec("left", "ethtool", &fewer);
    assert!(!said.ok && said.text.contains("AF_XDP sockets"), "{}", said.text);
    all_is_well(&lab);
    lab.end("left", Signal::SIGTERM);
    lab.run("left", "ethtool", &fewer);
    lab.restart("left");
    all_is_well(&lab);
    let frames = lab.ctl("left", &["status"])["frames"].clone();
    let part = |name: &str| frames[name].as_u64().unwrap();
    assert!(part("free") > part("total") / 4, "no frame is lost with a socket: {frames}");
}

#[test]
fn an_mtu_that_changes_is_followed() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        all_is_well(&lab);
        let large = ["-n", "-c", "3", "-i", "0.1", "-w", "3", "-M", "do", "-s", "1472", "10.0.0.7"];
        lab.run("vm1", "ping", &large);
        lab.run("left", "ip", &["link", "set", "eth0", "mtu", "1300"]);
        std::thread::sleep(Duration::from_millis(500));
        assert!(!lab.exec("vm1", "ping", &large).ok, "hook {hook}: larger than the trunk takes");
        lab.run("left", "ip", &["link", "set", "eth0", "mtu", "1500"]);
        std::thread::sleep(Duration::from_millis(500));
        lab.run("vm1", "ping", &large);
    }
}

#[test]
fn a_vif_that_vanishes_and_comes_back_is_the_same_port() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        all_is_well(&lab);
        lab.run("left", "ip", &["link", "del", "vnet2"]);
        lab.pings("vm1", "10.0.0.7");
        let add = "link add vnet2 netns tl-left type veth peer name eth0";
        lab.run("vm2", "ip", &add.split(' ').collect::<Vec<_>>());
        let guest = [
            "link set eth0 address fa:16:3e:00:00:02 up",
            "address add 10.0.0.4/24 dev eth0",
            "route replace default via 10.0.0.1",
        ];
        for words in guest {
            lab.run("vm2", "ip", &words.split(' ').collect::<Vec<_>>());
        }
        if hook == "xdp" {
            lab.run("vm2", "ethtool", &["-K", "eth0", "tx", "off", "txvlan", "off"]);
        }
        lab.run("left", "ip", &["link", "set", "vnet2", "up"]);
        std::thread::sleep(Duration::from_secs(1));
        all_is_well(&lab);
    }
}
