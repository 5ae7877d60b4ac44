//! Floating addresses come, go and move while their connections run.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::time::Duration;

use lab::{HOOKS, Lab};

const FILE: &str = "/run/trunkline-lab/left.toml";

/// Changes the left node's file and has it read again.
fn reload(lab: &Lab, change: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(FILE).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "the change changes nothing");
    std::fs::write(FILE, changed).unwrap();
    lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
}

const FLOAT: &str = "\n[[floating_ip]]\naddress = \"91.208.23.11\"\nfixed = \"10.0.0.3\"\n";

#[test]
fn a_float_that_is_taken_away_takes_all_its_connections_with_it() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        // One connection out by the floating address, and one in.
        let out = lab.start("vm1", "ping", &["-n", "-i", "0.1", "-w", "6", "8.8.8.8"]);
        let to = lab.start("inet", "ping", &["-n", "-i", "0.1", "-w", "6", "91.208.23.11"]);
        std::thread::sleep(Duration::from_secs(2));
        reload(&lab, |text| text.replace(FLOAT, ""));
        std::thread::sleep(Duration::from_millis(200));
        let after = lab.capture("switch", "left-eth1", "icmp and host 91.208.23.11");
        std::thread::sleep(Duration::from_secs(2));
        let answered = |lines: &[String]| lines.iter().filter(|l| l.contains("echo reply")).count();
        let lines = after.stop();
        assert_eq!(answered(&lines), 0, "hook {hook}: {:?}", lines.first());
        drop((out, to));
        // Given to VM 2 it leads there, announced to the router, and VM 1 goes out as the node.
        let announced = lab.capture("inet", "eth0", "arp and arp[6:2] = 2");
        reload(&lab, |text| format!("{text}{}", FLOAT.replace("10.0.0.3", "10.0.0.4")));
        let at = lab.capture("vm2", "eth0", "icmp and src host 8.8.8.8");
        lab.run("inet", "ping", &["-n", "-c", "3", "-i", "0.2", "-I", "8.8.8.8", "91.208.23.11"]);
        assert_eq!(at.stop().len(), 3, "hook {hook}");
        std::thread::sleep(Duration::from_secs(2));
        let announced = announced.stop();
        let told = announced.iter().filter(|line| line.contains("91.208.23.11 is-at")).count();
        assert!(told >= 3, "hook {hook}: {announced:?}");
        let wire = lab.capture("switch", "left-eth1", "icmp and src host 91.207.15.105");
        lab.pings("vm1", "8.8.8.8");
        assert_eq!(wire.stop().len(), 20, "hook {hook}");
    }
}

#[test]
fn a_tcp_connection_of_the_old_association_does_not_go_on() {
    let lab = Lab::up(&[]);
    let server = lab.serve("vm1", 5201, "timeout", &["30", "iperf3", "-s", "-1"]);
    let client = lab.start(
        "inet",
        "timeout",
        &["20", "iperf3", "-c", "91.208.23.11", "-t", "8", "-b", "5M"],
    );
    std::thread::sleep(Duration::from_secs(2));
    let flows = lab.ctl("left", &["status"])["connections"]["lines"].as_u64().unwrap();
    assert!(flows > 0);
    reload(&lab, |text| text.replace(FLOAT, ""));
    std::thread::sleep(Duration::from_millis(200));
    let at = lab.capture("vm1", "eth0", "tcp and src host 91.207.15.1");
    let out = lab.capture("switch", "left-eth1", "tcp and src host 91.208.23.11");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((at.stop().len(), out.stop().len()), (0, 0));
    drop((client, server));
}

#[test]
fn a_gateway_announces_itself_to_its_vms_and_as_the_node_on_the_trunk() {
    let lab = Lab::up(&[]);
    let at = lab.capture("vm2", "eth0", "arp and arp[6:2] = 2");
    let wire = lab.capture("switch", "left-eth0", "vlan 100 and arp");
    let pid = nix::unistd::Pid::from_raw(lab.pid("left"));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    lab.restart("left");
    std::thread::sleep(Duration::from_secs(4));
    let (at, wire) = (at.stop(), wire.stop());
    let told = |lines: &[String], what: &str| lines.iter().filter(|l| l.contains(what)).count();
    assert_eq!(told(&at, "10.0.0.1 is-at 02:74:6c:00:00:01"), 3, "{at:?}");
    let link = lab.run("left", "ip", &["-o", "link", "show", "eth0"]);
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    assert_eq!(told(&wire, &format!("10.0.0.1 is-at {mac}")), 3, "{wire:?}");
}
