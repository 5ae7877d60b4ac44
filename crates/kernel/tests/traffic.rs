//! Real traffic over real veth pairs: two VMs, a trunk, and a worker in between.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::run::frame;
use common::wire::{Tcpdump, checksum_is_right, send};
use common::worker::Worker;
use common::{Namespace, Node, enter_netns, far, index, near, port, punt_link, run, veth};
use kernel::KernelDrop::{NoDaemon, NoPort};
use kernel::{Hook, How, PortEntry, PortKind, Settings, TAG_TO_HOST, XdpMode};

const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;

fn settings(tcx: bool) -> Settings {
    Settings { lines: 64, hash_key: 1, tcx }
}

/// Takes the outer tag off; answers its TCI.
fn untag(frame: &mut Vec<u8>) -> Option<u16> {
    if frame.get(12..14)? != DOT1AD.to_be_bytes() {
        return None;
    }
    let tci = u16::from_be_bytes([frame[14], frame[15]]);
    frame.drain(12..16);
    Some(tci)
}

fn tag(frame: &mut Vec<u8>, protocol: u16, tci: u16) {
    let tag = [protocol.to_be_bytes(), tci.to_be_bytes()].concat();
    frame.splice(12..12, tag);
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

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

fn iperf_server(namespace: &Namespace) -> Child {
    let words = ["netns", "exec", &namespace.0, "timeout", "30", "iperf3", "-s", "-1"];
    let child = Command::new("ip").args(words).stdout(Stdio::null()).spawn().unwrap();
    let listens = || namespace.run("ss -Hltn sport = 5201").contains("5201");
    until("iperf3 listens", listens);
    child
}

/// Two VMs whose every frame goes up the punt link and down again.
fn two_vms_talk(name: &str, hook: Hook, tcx: bool, expected: How) {
    enter_netns();
    let (near_index, far_index) = punt_link();
    let mut node = Node::with(name, settings(tcx));
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
    let pinged = vms[0].run("ping -n -c 50 -i 0.01 -W 1 10.0.0.2");
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    let mut server = iperf_server(&vms[1]);
    let said = vms[0].run("timeout 30 iperf3 -c 10.0.0.2 -n 60M");
    server.wait().unwrap();
    let pinged = vms[0].run("ping -n -c 5 -i 0.01 -s 20000 -W 1 10.0.0.2");
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");

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
        assert_eq!(counters.drops, [0; 5]);
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

/// A trunk to another namespace: VLAN 100 and untagged are segments', VLAN 101 is the host's.
struct Trunk {
    node: Node,
    wire: Namespace,
    far: u32,
    how: How,
}

const TRUNK: u16 = 3;
const VIF: u16 = 4;
const SLOT: u32 = 256;

impl Trunk {
    fn new(name: &str, hook: Hook, mode: XdpMode, tcx: bool) -> Self {
        enter_netns();
        let (_, far_index) = punt_link();
        let mut node = Node::with(name, settings(tcx));
        let wire = Namespace::new("wire");
        let (ifindex, _) = veth("trunk", "peer");
        wire.take("peer", "10.9.0.2/24");
        run("ip address add 10.9.0.1/24 dev trunk");
        if hook == Hook::Xdp {
            // As with any link to a node in XDP mode: the sender's end must do all by itself.
            wire.run("ethtool -K eth0 tx off txvlan off tx-vlan-stag-hw-insert off");
        }
        let entry = PortEntry { sockets: SLOT, queues: 1, ..port(TRUNK, ifindex, PortKind::Trunk) };
        let kernel = node.kernel();
        kernel.set_port(&entry).unwrap();
        kernel.set_segment(1, 1, 100).unwrap();
        kernel.set_segment(2, 1, 0).unwrap();
        kernel.set_vlan(TRUNK, 100, 1).unwrap();
        let how = kernel.attach(TRUNK, "trunk", hook, mode).unwrap().how;
        kernel.attach_punt(near(), far()).unwrap();
        Self { node, wire, far: far_index, how }
    }

    /// Serves what comes up from the trunk, wherever it comes up; `rule` gets the frame as it was
    /// on the wire.
    fn serve(&mut self, rule: impl Fn(Vec<u8>) + Send + 'static) -> Worker {
        let (kernel, how) = (self.node.kernel.as_mut().unwrap(), self.how);
        let (slot, ifindex) = if how.is_xdp() { (SLOT, index("trunk")) } else { (0, self.far) };
        Worker::start(kernel, slot, ifindex, how == How::XdpGeneric, move |frame| {
            if !how.is_xdp() {
                assert_eq!(untag(frame), Some(TRUNK));
            }
            rule(std::mem::take(frame));
            false
        })
    }
}

fn a_trunk_carries(name: &str, hook: Hook, mode: XdpMode, tcx: bool, expected: How) {
    let mut bed = Trunk::new(name, hook, mode, tcx);
    assert_eq!(bed.how, expected);
    // Up: the frame as it was on the wire, its 802.1Q tag in it.
    let up = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&up);
    let worker = bed.serve(move |frame| seen.lock().unwrap().push(frame));
    let frames = [frame(&[(DOT1Q, 0xa064)]), frame(&[(DOT1Q, 101)]), frame(&[(DOT1Q, 100)])];
    let sent = frames.clone();
    let sending = bed.wire.enter(move || {
        let out = index("eth0");
        sent.iter().for_each(|frame| send(out, frame));
    });
    sending.join().unwrap();
    until("two frames come up", || up.lock().unwrap().len() == 2);
    // The tag's priority (5 << 13) survives as well.
    assert_eq!(*up.lock().unwrap(), [frames[0].clone(), frames[2].clone()]);
    let counters = bed.node.kernel().counters(TRUNK).unwrap();
    assert_eq!((counters.punted, counters.passed, counters.drops), (2, 1, [0; 5]));
    worker.stop();

    // Down: with the inner tag to the wire, without any where there is none.
    let tcpdump = Tcpdump::start(&bed.wire, 2, "udp or vlan");
    send(bed.far, &frame(&[(DOT1AD, TRUNK), (DOT1Q, 100)]));
    send(bed.far, &frame(&[(DOT1AD, TRUNK)]));
    send(bed.far, &frame(&[(DOT1AD, 77)]));
    let lines = tcpdump.seen();
    assert!(lines.len() == 2 && lines[0].contains("vlan 100"), "{lines:?}");
    assert!(!lines[1].contains("vlan"), "{lines:?}");
    let counters = bed.node.kernel().counters(TRUNK).unwrap();
    // The inner tag is beside the frame when it is counted.
    assert_eq!((counters.tx_packets, counters.tx_bytes), (2, 52 + 56));
    assert!(bed.node.kernel().counters(0).unwrap().dropped(NoPort) >= 1);
}

#[test]
fn a_trunk_carries_tags_by_tcx() {
    a_trunk_carries("trunktcx", Hook::Tc, XdpMode::Auto, true, How::Tcx);
}

#[test]
fn a_trunk_carries_tags_by_clsact() {
    a_trunk_carries("trunkclsact", Hook::Tc, XdpMode::Auto, false, How::Clsact);
}

#[test]
fn a_trunk_carries_tags_by_native_xdp() {
    a_trunk_carries("trunkxdp", Hook::Xdp, XdpMode::Native, true, How::XdpNative);
}

#[test]
fn a_trunk_carries_tags_by_generic_xdp() {
    a_trunk_carries("trunkgeneric", Hook::Xdp, XdpMode::Generic, true, How::XdpGeneric);
}

/// Everything untagged goes up, and the worker hands it to the stack of the NIC it came by.
fn the_host_answers(name: &str, hook: Hook, mode: XdpMode, tcx: bool) {
    let mut bed = Trunk::new(name, hook, mode, tcx);
    bed.node.kernel().set_vlan(TRUNK, 0, 2).unwrap();
    let (far, handed) = (bed.far, Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&handed);
    let worker = bed.serve(move |mut frame| {
        count.fetch_add(1, Relaxed);
        tag(&mut frame, DOT1AD, TRUNK | TAG_TO_HOST);
        send(far, &frame);
    });
    let pinged = bed.wire.run("ping -n -c 20 -i 0.02 -W 1 10.9.0.1");
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    worker.stop();
    let counters = bed.node.kernel().counters(TRUNK).unwrap();
    let handed = handed.load(Relaxed);
    // Each frame came up once: what was handed back did not come round again.
    assert_eq!((counters.punted, counters.passed), (handed, handed), "{counters:?}");
    assert!((21..40).contains(&handed), "{handed}");
    // And the mark did not stay on it.
    assert_eq!(bed.node.kernel().counters(0).unwrap().rx_packets, 0);
}

#[test]
fn the_host_answers_by_tcx() {
    the_host_answers("hosttcx", Hook::Tc, XdpMode::Auto, true);
}

#[test]
fn the_host_answers_by_clsact() {
    the_host_answers("hostclsact", Hook::Tc, XdpMode::Auto, false);
}

#[test]
fn the_host_answers_by_native_xdp() {
    the_host_answers("hostxdp", Hook::Xdp, XdpMode::Native, true);
}

#[test]
fn the_host_answers_by_generic_xdp() {
    the_host_answers("hostgeneric", Hook::Xdp, XdpMode::Generic, true);
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
    let pinged = vm.run("ping -n -c 20 -i 0.01 -W 1 10.0.0.9");
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
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
    let pinged = vms[1].run("ping -n -c 50 -i 0.01 -W 1 10.0.0.9");
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
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
