//! The changeover of a node in nova's VLAN mode, whose networks are br100 over vlan100 over eth0:
//! tags are the kernel's own before and after, and trunkline's in between.
//!
//! Not every kernel has 802.1Q, so the whole lab runs in QEMU with one that has: the test starts
//! `tools/adopt-vlan`, and that starts this test again, in there.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod changeover;
mod lab;

use std::process::Command;
use std::time::Duration;

use changeover::{
    CONFIG, FLOAT, PROGRAM, Stream, back, is_as_before, nobody_was_silent, pings, start, state,
};
use lab::Lab;

/// What nobody may be silent for, where instructions are interpreted one by one, by a machine that
/// may have other things to do.
const SILENCE: Duration = Duration::from_secs(3);
/// By source NAT, to a VM beside, by the trunk in either VLAN, between tenants, by a floating
/// address.
/// And by the bridge of a network without a VM here.
const WAYS: [(&str, &str); 7] = [
    ("vm2", "8.8.8.8"),
    ("vm1", "10.0.0.4"),
    ("vm1", "10.0.0.6"),
    ("vm3", "10.1.0.4"),
    ("vm2", "10.1.0.3"),
    ("inet", FLOAT),
    ("left", "10.2.0.5"),
];

#[test]
fn a_node_with_vlans_of_the_kernel_goes_over_and_back() {
    if std::env::var_os("TRUNKLINE_KERNEL_HAS_VLANS").is_some() {
        return goes_over_and_back();
    }
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/adopt-vlan");
    let test = std::env::current_exe().unwrap();
    let said = Command::new(tool).arg(test).output().unwrap();
    let text = [&said.stdout[..], &said.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    eprintln!("{text}");
    assert!(said.status.success(), "it failed in QEMU");
}

fn goes_over_and_back() {
    let lab = Lab::up(&["--dataplane", "linux", "--tagged"]);
    [("left", "10.2.0.1/24"), ("right", "10.2.0.5/24")]
        .iter()
        .for_each(|(node, address)| make_network_without_vms(&lab, node, address));
    for (vm, gateway) in [("vm1", "10.0.0.1"), ("vm2", "10.0.0.1"), ("vm3", "10.1.0.1")] {
        lab.pings(vm, gateway);
    }
    all_vlans_are_found(&lab);
    let before = state(&lab);
    let streams = [("vm4", "10.0.0.6", "vm1"), ("inet", "8.8.8.8", "vm2"), ("vm1", FLOAT, "inet")]
        .map(|(from, address, to)| Stream::start((from, address), to));
    let going = pings(&lab, &WAYS, "0.05");
    std::thread::sleep(Duration::from_secs(2));
    let daemon = start(&lab, "adopt");
    std::thread::sleep(Duration::from_secs(2));
    streams.iter().for_each(|stream| stream.goes_on(SILENCE, "adopt"));
    nobody_was_silent(going, SILENCE, "adopt");
    let tagged = lab.capture("switch", "left-eth0", "vlan and icmp");
    for (from, to) in WAYS.into_iter().chain([("left", "10.1.0.3"), ("vm3", "10.1.0.1")]) {
        lab.pings(from, to);
    }
    let tagged = tagged.stop();
    for (vlan, asks) in [("vlan 100", "10.0.0.3 > 10.0.0.6"), ("vlan 102", "10.1.0.3 > 10.1.0.4")] {
        let is_it = |line: &&String| line.contains(vlan) && line.contains(asks);
        let count = tagged.iter().filter(is_it).count();
        assert!(count >= 20, "{vlan}: {count}");
    }
    let going = pings(&lab, &WAYS, "0.05");
    std::thread::sleep(Duration::from_secs(2));
    eprintln!("{}", back(&lab));
    std::thread::sleep(Duration::from_secs(2));
    streams.iter().for_each(|stream| stream.goes_on(SILENCE, "back"));
    nobody_was_silent(going, SILENCE, "back");
    let log = daemon.interrupt().text;
    assert!(!log.contains("ERROR"), "{log}");
    is_as_before(&lab, &before, "back");
    streams.into_iter().for_each(Stream::ends_whole);
}

/// As nova leaves it behind when the last VM goes.
fn make_network_without_vms(lab: &Lab, node: &str, address: &str) {
    for words in [
        "link add link eth0 name vlan104 type vlan id 104",
        "link add br104 type bridge stp_state 0 forward_delay 0",
        "link set vlan104 master br104 up",
        "link set br104 up",
        &format!("addr add {address} dev br104"),
    ] {
        lab.run(node, "ip", &words.split(' ').collect::<Vec<_>>());
    }
}

/// Adopt describes all networks by their VLAN interfaces.
fn all_vlans_are_found(lab: &Lab) {
    let text = lab.run("left", PROGRAM, &["adopt", "--dry-run", "--node", "left"]);
    for part in [
        "bridge br100, 10.0.0.1/24 with vlan100 (VLAN 100 on eth0), VMs vnet1, vnet2",
        "bridge br102, 10.1.0.1/24 with vlan102 (VLAN 102 on eth0), VMs vnet3",
        "bridge br104, 10.2.0.1/24 with vlan104 (VLAN 104 on eth0), no VMs",
        "vlan_interface = \"eth0\"",
        "vlan = 100",
        "vlan = 102",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!std::path::Path::new(CONFIG).exists());
}
