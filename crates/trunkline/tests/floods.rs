//! VM 2 takes all it can get, of connections, ports, stations and the workers' time, and the others
//! go on: each limit is shown at work, and then what it held back without it.
#![allow(clippy::unwrap_used)] // it is a test

mod lab;
mod raw;

use std::time::{Duration, Instant};

use kernel::FrameSender;
use lab::{HOOKS, Lab};
use testkit::{arp_request, ethernet, udp, vm_mac};
use wire::MacAddr;

const VM2: [u8; 4] = [10, 0, 0, 4];
const FAR: [u8; 4] = [8, 8, 8, 8];
/// How much it sends of everything.
const MANY: u16 = 10_000;

fn sender(vm: &str) -> FrameSender {
    raw::inside(vm, || {
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        FrameSender::open(index).unwrap()
    })
}

/// Sends them, and lets the node keep up.
fn flood(frame: impl Fn(u16) -> Vec<u8>) {
    let socket = sender("vm2");
    for n in 0..MANY {
        socket.send(&frame(n)).unwrap();
        if n % 32 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Packets of VM 2's port dropped for a reason.
fn dropped(lab: &Lab, reason: &str) -> u64 {
    let ports = lab.ctl("left", &["ports"]);
    let port = ports.as_array().unwrap().iter().find(|port| port["name"] == "vnet2").unwrap();
    port["drops"][reason].as_u64().unwrap_or(0)
}

fn await_dropped(lab: &Lab, reason: &str, least: u16) {
    let start = Instant::now();
    while dropped(lab, reason) < least.into() {
        assert!(start.elapsed() < Duration::from_secs(20), "{reason}: {}", dropped(lab, reason));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A question to a port of 8.8.8.8 by a connection of its own.
fn question(n: u16) -> Vec<u8> {
    udp((vm_mac(2), VM2, 10_000 + n), (tables::GATEWAY_MAC, FAR, 53), b"flood")
}

/// How many different ports of the shared address the far side hears from in a flood.
fn heard_far(lab: &Lab) -> usize {
    let capture = lab.capture("inet", "eth0", "udp and dst host 8.8.8.8 and dst port 53");
    flood(question);
    // VM 2 itself may open nothing more now.
    lab.pings("vm3", "8.8.8.8");
    let frames = capture.frames().into_iter();
    let ports = frames.map(|frame| u16::from_be_bytes([frame[34], frame[35]]));
    ports.collect::<std::collections::BTreeSet<u16>>().len()
}

/// A question of VM 3's to the very same server, which arrives.
fn vm3_is_heard(lab: &Lab, port: u16) -> bool {
    let capture = lab.capture("inet", "eth0", "udp and dst host 8.8.8.8 and dst port 53");
    let own = (vm_mac(3), [10, 1, 0, 3], port);
    let frame = udp(own, (tables::GATEWAY_MAC, FAR, 53), b"~vm3~");
    sender("vm3").send(&frame).unwrap();
    lab.pings("vm3", "8.8.8.8");
    capture.frames().iter().any(|frame| frame.windows(5).any(|part| part == b"~vm3~"))
}

#[test]
fn one_vm_takes_neither_all_connections_nor_all_ports_of_a_destination() {
    for (name, flags) in HOOKS {
        let more = ["--snat-ports", "20000-20999", "--vif-connections", "500"];
        let lab = Lab::up(&[flags, &more].concat());
        for (from, to) in [("vm2", "10.0.0.3"), ("vm2", "8.8.8.8"), ("vm3", "8.8.8.8")] {
            lab.pings(from, to);
        }
        let heard = heard_far(&lab);
        // Its pings are connections of its own.
        assert!((480..=500).contains(&heard), "{name}: {heard}");
        // A busy worker may have missed some of them.
        await_dropped(&lab, "quota", MANY / 4);
        assert!(vm3_is_heard(&lab, 5000), "{name}");
        for (from, to) in [("vm1", "10.0.0.7"), ("vm1", "8.8.8.8"), ("vm3", "10.0.0.3")] {
            lab.pings(from, to);
        }
        drop(lab);
        // Without the limit it has all of the ports.
        let unlimited = ["--vif-snat-ports", "1000"];
        let lab = Lab::up(&[flags, &more[..2], &unlimited].concat());
        for (from, to) in [("vm2", "10.0.0.3"), ("vm2", "8.8.8.8"), ("vm3", "8.8.8.8")] {
            lab.pings(from, to);
        }
        assert_eq!(heard_far(&lab), 1000, "{name}");
        await_dropped(&lab, "no_ports", MANY / 4);
        assert!(!vm3_is_heard(&lab, 5001), "{name}");
        assert_eq!(dropped(&lab, "quota"), 0, "{name}");
        // Who wants another server does not notice.
        lab.pings("vm3", "8.8.8.8");
    }
}

#[test]
fn stations_beyond_fdb_limit_are_not_learned_and_the_others_stay_known() {
    for (name, flags) in HOOKS {
        // Made-up addresses pass where there is no wall.
        let lab = Lab::up(&[flags, &["--firewall-driver", "noop", "--vif-macs", "4096"]].concat());
        lab.pings("vm1", "10.0.0.7");
        let made_up = |first: u8| {
            move |n: u16| {
                let [a, b] = n.to_be_bytes();
                ethernet(MacAddr([2, 0, 0, first, a, b]), vm_mac(1), 0x88b5, &[0; 46])
            }
        };
        let known = |lab: &Lab, prefix: &str| {
            let stations = lab.ctl("left", &["fdb"]);
            let all = stations.as_array().unwrap().iter();
            all.filter(|station| station["mac"].as_str().unwrap().starts_with(prefix)).count()
        };
        let reload = |change: &dyn Fn(&str) -> String| {
            let file = "/run/trunkline-lab/left.toml";
            let text = std::fs::read_to_string(file).unwrap();
            std::fs::write(file, change(&text)).unwrap();
            lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
        };
        reload(&|text| text.replace("vlan = 100\n", "vlan = 100\nfdb_limit = 64\n"));
        flood(made_up(1));
        let start = Instant::now();
        while !lab.ctl("left", &["status"])["warnings"].to_string().contains("fdb") {
            assert!(start.elapsed() < Duration::from_secs(10), "{name}: it says so");
            std::thread::sleep(Duration::from_millis(20));
        }
        let learned = known(&lab, "02:00:00:01:");
        assert!((1..=64).contains(&learned), "{name}: {learned}");
        assert!(known(&lab, "fa:16:3e:00:00:0") >= 3, "{name}: VM 1, VM 2 and VM 5 stay");
        for (from, to) in [("vm1", "10.0.0.7"), ("vm1", "10.0.0.1"), ("vm3", "10.1.0.4")] {
            lab.pings(from, to);
        }
        reload(&|text| text.replace("fdb_limit = 64\n", ""));
        flood(made_up(2));
        let start = Instant::now();
        while known(&lab, "02:00:00:02:") < 1000 {
            assert!(start.elapsed() < Duration::from_secs(10), "{name}: without the limit");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// All of the tenant hear a VM that asks for everybody; how much of that a port may send is limited.
#[test]
fn a_storm_of_arp_ends_at_its_port_and_the_others_go_on() {
    for (name, flags) in HOOKS {
        let storm = |lab: &Lab| {
            let capture = lab.capture("vm5", "eth0", "arp and ether src fa:16:3e:00:00:02");
            let pings = lab.start_pings("vm1", "10.0.0.7", 200, 10);
            flood(|n| {
                let [a, b] = n.to_be_bytes();
                arp_request((vm_mac(2), VM2), [10, 0, a, b])
            });
            (pings, capture)
        };
        let limit = ["--punt-rate", "500", "--punt-burst", "200"];
        let lab = Lab::up(&[flags, &limit].concat());
        lab.pings("vm1", "10.0.0.7");
        let start = Instant::now();
        let (mut pings, capture) = storm(&lab);
        await_dropped(&lab, "kernel_punt_rate", 1000);
        assert_eq!(lab::in_a_row(&pings.wait().text, 200), 200, "{name}");
        // Who has not asked anybody yet finds the way, and the gateway.
        for (from, to) in [("vm1", "10.0.0.1"), ("vm4", "10.0.0.3"), ("vm3", "8.8.8.8")] {
            lab.pings(from, to);
        }
        let (heard, allowed) = (capture.frames().len(), start.elapsed().as_millis() / 2 + 210);
        println!("{name}: {heard} of 10000 heard, {allowed} allowed");
        assert!(heard > 0 && heard as u128 <= allowed, "{name}: {heard} of {allowed}");
        drop(lab);
        let unlimited = ["--punt-rate", "100000", "--vif-flood-rate", "1000000"];
        let lab = Lab::up(&[flags, &unlimited].concat());
        lab.pings("vm1", "10.0.0.7");
        let (mut pings, capture) = storm(&lab);
        pings.wait();
        let all = capture.frames().len();
        println!("{name}: {all} heard without the limit");
        assert!(dropped(&lab, "kernel_punt_rate") == 0 && all > heard, "{name}: {all}");
    }
}
