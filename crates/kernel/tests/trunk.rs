//! A trunk over a real veth pair: tags both ways, and what is the host's.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use common::run::frame;
use common::wire::{
    DOT1AD, DOT1Q, Tcpdump, checksum_is_right, iperf_server, send, tag, untag, until,
};
use common::worker::Worker;
use common::{Namespace, Node, enter_netns, far, index, near, port, punt_link, run, segment, veth};
use kernel::KernelDrop::NoPort;
use kernel::{Hook, How, PortEntry, PortKind, Settings, TAG_TO_HOST, XdpMode};
use libbpf_rs::{TC_EGRESS, TcHookBuilder, libbpf_sys};

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
        let mut node = Node::with(
            name,
            Settings { lines: 64, hash_key: 1, tcx, replays: true, continues: None },
        );
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
        kernel.set_segment(1, &segment(1, 100)).unwrap();
        kernel.set_segment(2, &segment(1, 0)).unwrap();
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
    let drops: u64 = counters.drops.iter().sum();
    assert_eq!((counters.punted, counters.passed, drops), (2, 1, 0));
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
    // The largest packets have to fit as well, whatever is put before them on the way.
    for size in ["56", "1472"] {
        let pinged = bed.wire.run(&format!("ping -n -c 10 -i 0.02 -w 10 -s {size} 10.9.0.1"));
        assert_eq!(common::in_a_row(&pinged, 10), 10, "{pinged}");
    }
    // No straggler: then each frame came up once, and what was handed back did not come round.
    bed.wire.run("ip link set eth0 down");
    let counters = || bed.node.kernel.as_ref().unwrap().counters(TRUNK).unwrap();
    until("all is handed back", || counters().passed == handed.load(Relaxed));
    worker.stop();
    let (counters, handed) = (counters(), handed.load(Relaxed));
    assert_eq!((counters.punted, counters.passed), (handed, handed), "{counters:?}");
    assert!((21..200).contains(&handed), "{handed}");
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

/// A tc program that puts tag 100 beside every frame, as a VLAN device would.
fn tagger() -> OwnedFd {
    // Operation, registers (source, destination), offset, immediate value.
    let code: [(u8, u8, i16, i32); 5] = [
        (0xb7, 2, 0, i32::from(DOT1Q.to_be())), // r2 = protocol
        (0xb7, 3, 0, 100),                      // r3 = TCI
        (0x85, 0, 0, 18),                       // bpf_skb_vlan_push(r1, r2, r3)
        (0xb7, 0, 0, 0),                        // r0 = TC_ACT_OK
        (0x95, 0, 0, 0),                        // exit
    ];
    let mut instructions = Vec::new();
    for (operation, registers, offset, value) in code {
        instructions.extend([operation, registers]);
        instructions.extend(offset.to_ne_bytes());
        instructions.extend(value.to_ne_bytes());
    }
    // SAFETY: strings that end with a zero, as many instructions as stated, no options.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"tagger".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr().cast(),
            code.len() as _,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: the call made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// TCP with GSO and a tag beside each packet, from the wire to a VM.
fn tagged_gso_packets_come_up(name: &str, tcx: bool, expected: How) {
    let mut bed = Trunk::new(name, Hook::Tc, XdpMode::Auto, tcx);
    assert_eq!(bed.how, expected);
    let tagger = tagger();
    let attached = bed.wire.enter(move || {
        let ifindex = index("eth0") as i32;
        let mut hook = TcHookBuilder::new(tagger.as_fd())
            .ifindex(ifindex)
            .replace(true)
            .handle(1)
            .priority(1)
            .hook(TC_EGRESS);
        hook.create().unwrap().attach().unwrap();
    });
    attached.join().unwrap();
    run("ip address flush dev trunk");
    let vm = Namespace::new("vm");
    let (ifindex, _) = veth("vnet4", "peer");
    vm.take("peer", "10.9.0.1/24");
    let vif = PortEntry { peer: true, ..port(VIF, ifindex, PortKind::Vif) };
    bed.node.kernel().set_port(&vif).unwrap();
    bed.node.kernel().attach(VIF, "vnet4", Hook::Tc, XdpMode::Auto).unwrap();

    let (frames, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, bad) = (Arc::clone(&frames), Arc::clone(&wrong));
    let worker = Worker::start(bed.node.kernel(), 0, bed.far, false, move |frame| {
        let from = untag(frame).unwrap();
        if from == TRUNK {
            seen.fetch_add(1, Relaxed);
            let tagged = frame[12..16] == [0x81, 0, 0, 100];
            frame.drain(12..16);
            if !tagged || frame.len() > 1514 || checksum_is_right(frame) == Some(false) {
                bad.fetch_add(1, Relaxed);
            }
        }
        tag(frame, DOT1AD, TRUNK + VIF - from);
        true
    });
    let mut server = iperf_server(&vm);
    println!("{}", bed.wire.run("timeout 30 iperf3 -c 10.9.0.1 -n 30M"));
    server.wait().unwrap();
    worker.stop();
    let counters = bed.node.kernel().counters(TRUNK).unwrap();
    let frames = frames.load(Relaxed);
    println!("{frames} frames, {counters:?}");
    assert_eq!((wrong.load(Relaxed), counters.rx_packets), (0, counters.punted));
    assert!(counters.punted >= frames && counters.punted <= frames + frames / 50);
    // Super-packets came in: many frames' bytes, one packet's headers.
    assert!(counters.rx_bytes < counters.rx_packets * 1480, "{counters:?}");
}

#[test]
fn tagged_gso_packets_come_up_by_tcx() {
    tagged_gso_packets_come_up("gsotcx", true, How::Tcx);
}

#[test]
fn tagged_gso_packets_come_up_by_clsact() {
    tagged_gso_packets_come_up("gsoclsact", false, How::Clsact);
}
