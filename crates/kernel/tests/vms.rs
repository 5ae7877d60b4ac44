//! Real traffic over real veth pairs: VMs, and a worker in between.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::run::frame;
use common::wire::{DOT1AD, Tcpdump, checksum_is_right, iperf_server, send, tag, untag};
use common::worker::Worker;
use common::{Namespace, Node, enter_netns, far, near, port, punt_link, run, veth};
use kernel::KernelDrop::NoDaemon;
use kernel::{Hook, How, PortEntry, PortKind, Settings, XdpMode};

const VIF: u16 = 4;

/// What the worker saw of the frames of the two VMs.
#[derive(Default)]
struct Seen {
    frames: [AtomicU64; 3],
    bytes: [AtomicU64; 3],
    wrong: Mutex<Vec<String>>,
}

impl Seen {
    /// Judges a frame from port 1 or 2 and turns it towards the other.
    fn cross(&self, frame: &mut Vec<u8>) -> bool {
        let length = frame.len() - 4;
        let Some(from @ (1 | 2)) = untag(frame) else {
            self.wrong.lock().unwrap().push(format!("no tag of a port: {frame:02x?}"));
            return false;
        };
        self.frames[usize::from(from)].fetch_add(1, Relaxed);
        self.bytes[usize::from(from)].fetch_add(length as u64, Relaxed);
        if length > 1514 || checksum_is_right(frame) == Some(false) {
            self.wrong.lock().unwrap().push(format!("{length} bytes: {:02x?}", &frame[..64]));
        }
        tag(frame, DOT1AD, 3 - from);
        true
    }
}

/// Two VMs whose every frame goes up the punt link and down again.
fn two_vms_talk(name: &str, hook: Hook, tcx: bool, expected: How) {
    enter_netns();
    let (near_index, far_index) = punt_link();
    let mut node =
        Node::with(name, Settings { lines: 64, hash_key: 1, tcx, replays: true, continues: None });
    let vms = [Namespace::new("a"), Namespace::new("b")];
    for (number, vm) in (1..).zip(&vms) {
        let vif = format!("vnet{number}");
        let (ifindex, _) = veth(&vif, "peer");
        vm.take("peer", &format!("10.0.0.{number}/24"));
        if hook == Hook::Xdp {
            // A veth has nobody to complete checksums in this direction.
            vm.run("ethtool -K eth0 tx off");
        }
        let entry = PortEntry { peer: true, ..port(number, ifindex, PortKind::Vif) };
        node.kernel().set_port(&entry).unwrap();
        let attached = node.kernel().attach(number, &vif, hook, XdpMode::Auto).unwrap();
        assert_eq!(attached.how, expected, "{}", attached.why);
        assert_eq!(node.kernel().attached(ifindex), Some(expected));
    }
    node.kernel().attach_punt(near(), far()).unwrap();
    assert_ne!(near_index, far_index);

    let seen = Arc::new(Seen::default());
    let judge = Arc::clone(&seen);
    let worker = Worker::start(node.kernel(), 0, far_index, false, move |frame| judge.cross(frame));
    let pinged = vms[0].run("ping -n -c 50 -i 0.01 -w 10 10.0.0.2");
    assert_eq!(common::in_a_row(&pinged, 50), 50, "{pinged}");
    let mut server = iperf_server(&vms[1]);
    let said = vms[0].run("timeout 30 iperf3 -c 10.0.0.2 -n 60M");
    server.wait().unwrap();
    let pinged = vms[0].run("ping -n -c 5 -i 0.01 -s 20000 -w 10 10.0.0.2");
    assert_eq!(common::in_a_row(&pinged, 5), 5, "{pinged}");

    let wrong = seen.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} wrong, first {}", wrong.len(), wrong[0]);
    let speed = said.lines().find(|line| line.ends_with("receiver")).unwrap();
    for number in [1, 2] {
        let counters = node.kernel().counters(number).unwrap();
        let (frames, bytes) = (&seen.frames[usize::from(number)], &seen.bytes[usize::from(number)]);
        let (frames, bytes) = (frames.load(Relaxed), bytes.load(Relaxed));
        println!("{name} port {number}: {frames} frames, {bytes} bytes; {counters:?}; {speed}");
        assert_eq!(counters.rx_packets, counters.punted);
        // Full speed may overrun the socket's ring; nothing else may go missing.
        assert!(counters.punted >= frames && counters.punted <= frames + frames / 50);
        assert_eq!(counters.drops.iter().sum::<u64>(), 0);
        // In tc a GSO packet came whole: its headers are counted once.
        match hook {
            Hook::Tc if number == 1 => assert!(counters.rx_bytes < bytes),
            Hook::Tc => {}
            _ => assert!(counters.rx_bytes >= bytes),
        }
    }
    // The daemon is gone: what comes up is dropped, on the account of who sent it.
    worker.stop();
    let before = node.kernel().counters(1).unwrap().dropped(NoDaemon);
    common::try_run(&format!("ip netns exec {} ping -c 3 -i 0.01 -W 1 10.0.0.2", vms[0].0));
    assert!(node.kernel().counters(1).unwrap().dropped(NoDaemon) > before);
}

#[test]
fn two_vms_talk_through_the_punt_link_by_tcx() {
    two_vms_talk("vmtcx", Hook::Tc, true, How::Tcx);
}

#[test]
fn two_vms_talk_through_the_punt_link_by_clsact() {
    two_vms_talk("vmclsact", Hook::Tc, false, How::Clsact);
}

#[test]
fn two_vms_talk_through_the_punt_link_by_xdp() {
    two_vms_talk("vmxdp", Hook::Xdp, true, How::XdpNative);
}

#[test]
fn a_vif_gets_its_frames_without_a_tag_in_or_out_of_this_namespace() {
    enter_netns();
    let (_, far_index) = punt_link();
    let mut node = Node::start("down");
    let vm = Namespace::new("vm");
    let (ifindex, _) = veth("vnet1", "peer");
    vm.take("peer", "10.0.0.1/24");
    let (host, _) = veth("br100-tl", "br100");
    run("ip address add 10.0.0.9/24 dev br100");
    let entry = PortEntry { peer: true, ..port(VIF, ifindex, PortKind::Vif) };
    let kernel = node.kernel();
    kernel.set_port(&entry).unwrap();
    kernel.set_port(&port(VIF + 1, host, PortKind::Host)).unwrap();
    kernel.attach(VIF, "vnet1", Hook::Auto, XdpMode::Auto).unwrap();
    kernel.attach(VIF + 1, "br100-tl", Hook::Auto, XdpMode::Auto).unwrap();
    kernel.attach_punt(near(), far()).unwrap();
    let tcpdump = Tcpdump::start(&vm, 1, "udp or vlan");
    send(far_index, &frame(&[(DOT1AD, VIF)]));
    let lines = tcpdump.seen();
    assert!(lines.len() == 1 && !lines[0].contains("vlan"), "{lines:?}");
    // The VM and the host's own foot in its segment reach each other.
    let worker = Worker::start(node.kernel(), 0, far_index, false, |frame| {
        let from = untag(frame).unwrap();
        tag(frame, DOT1AD, VIF + VIF + 1 - from);
        true
    });
    let pinged = vm.run("ping -n -c 20 -i 0.01 -w 10 10.0.0.9");
    assert_eq!(common::in_a_row(&pinged, 20), 20, "{pinged}");
    worker.stop();
}

#[test]
fn a_flood_from_one_vif_costs_another_nothing() {
    enter_netns();
    let (_, far_index) = punt_link();
    let mut node = Node::start("flood");
    let vms = [Namespace::new("a"), Namespace::new("b")];
    for (number, vm) in (1..).zip(&vms) {
        let vif = format!("vnet{number}");
        let (ifindex, _) = veth(&vif, "peer");
        vm.take("peer", &format!("10.0.0.{number}/24"));
        let limited = PortEntry {
            peer: true,
            punt_rate: 20_000,
            punt_burst: 1_000,
            ..port(number, ifindex, PortKind::Vif)
        };
        node.kernel().set_port(&limited).unwrap();
        node.kernel().attach(number, &vif, Hook::Tc, XdpMode::Auto).unwrap();
    }
    node.kernel().attach_punt(near(), far()).unwrap();
    // VM b talks to a host that the worker plays; VM a floods.
    let worker = Worker::start(node.kernel(), 0, far_index, false, |frame| {
        if untag(frame) != Some(2) {
            return false;
        }
        answer(frame);
        tag(frame, DOT1AD, 2);
        true
    });
    for vm in &vms {
        vm.run("ip neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    }
    let flood = vms[0].enter(|| {
        let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1500) {
            let _ = socket.send_to(&[0; 18], "10.0.0.9:9");
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    let pinged = vms[1].run("ping -n -c 50 -i 0.01 -w 10 10.0.0.9");
    assert_eq!(common::in_a_row(&pinged, 50), 50, "{pinged}");
    flood.join().unwrap();
    let counters = node.kernel().counters(1).unwrap();
    println!("{counters:?}");
    assert_eq!(counters.rx_packets, counters.punted + counters.drops.iter().sum::<u64>());
    assert!(counters.dropped(kernel::KernelDrop::PuntRate) > 1000, "{counters:?}");
    assert!(counters.punted < 20_000 * 2 + 1_000);
    worker.stop();
}

/// Turns an ICMP echo request into its answer.
fn answer(frame: &mut [u8]) {
    let (mut there, mut here) = ([0; 6], [0; 6]);
    there.copy_from_slice(&frame[6..12]);
    here.copy_from_slice(&frame[..6]);
    frame[..6].copy_from_slice(&there);
    frame[6..12].copy_from_slice(&here);
    if frame[12..14] == [8, 0] && frame[34] == 8 {
        let (source, destination) = ([frame[26], frame[27], frame[28], frame[29]], [10, 0, 0, 9]);
        frame[26..30].copy_from_slice(&destination);
        frame[30..34].copy_from_slice(&source);
        frame[34] = 0;
        // Type 8 becomes 0: the checksum grows by 0x0800, end around.
        let sum = u32::from(frame[36]) << 8 | u32::from(frame[37]);
        let sum = sum + 0x0800;
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[36..38].copy_from_slice(&(sum as u16).to_be_bytes());
    }
}
