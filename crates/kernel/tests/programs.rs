//! Each program over named frames, one at a time: verdict, frame, counters.
#![allow(clippy::unwrap_used)] // tests

mod common;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use common::run::{
    Ran, SkBuff, TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, XDP_REDIRECT, frame, run,
    run_skb,
};
use common::{Node, enter_netns, far, near, port, punt_link, segment};
use kernel::KernelDrop::{Malformed, NoDaemon, NoPort, PuntRate, QuotaOut};
use kernel::{Limit, PortCounters, PortEntry, PortKind, Program, Quota, TAG_TO_HOST};

/// A test run's frames come by the loopback interface.
const LO: u32 = 1;
const PORT: u16 = 5;
const SEGMENT: u16 = 9;
const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
/// `skb->mark` of what `deliver` hands to the host.
const MARK_HOST: u32 = 0x746c_4f4b;

/// A node with a punt link and one port, on the loopback interface.
fn node(name: &str, entry: PortEntry) -> Node {
    enter_netns();
    punt_link();
    let mut node = Node::start(name);
    node.kernel().set_port(&entry).unwrap();
    node.kernel().attach_punt(near(), far()).unwrap();
    node
}

/// The trunk with VLAN 100 in a segment; XDP would find its sockets from slot 256 on.
fn trunk(name: &str) -> Node {
    let entry = PortEntry { sockets: 256, queues: 1, ..port(PORT, LO, PortKind::Trunk) };
    let mut node = node(name, entry);
    node.kernel().set_segment(SEGMENT, &segment(1, 100)).unwrap();
    node.kernel().set_vlan(PORT, 100, SEGMENT).unwrap();
    node
}

fn xdp(node: &mut Node, frame: &[u8]) -> Ran {
    run(node.kernel().program(Program::ForwardXdp), frame)
}

fn tc(node: &mut Node, frame: &[u8]) -> u32 {
    run(node.kernel().program(Program::ForwardTc), frame).verdict
}

/// What was counted since the last call.
fn counted(node: &mut Node, port: u16) -> PortCounters {
    let counters = node.kernel().counters(port).unwrap();
    node.kernel().counters_clear(port).unwrap();
    assert_eq!(node.kernel().counters(port).unwrap(), PortCounters::default());
    counters
}

#[test]
fn a_frame_in_pieces_counts_whole_and_goes_up_whole() {
    let long = PortEntry { mtu: 9000, ..port(PORT, LO, PortKind::Vif) };
    let mut node = node("long", long);
    assert!(node.kernel().takes_frags(), "kernel 5.18 is needed");
    let mut sent = frame(&[]);
    sent.resize(9014, 0x5a);
    let ran = xdp(&mut node, &sent);
    let expected = [&sent[..12], &[0x88, 0xa8, 0, PORT as u8], &sent[12..]].concat();
    assert_eq!((ran.verdict, ran.frame == expected), (XDP_REDIRECT, true));
    let counters = counted(&mut node, PORT);
    assert_eq!((counters.rx_packets, counters.rx_bytes, counters.punted), (1, 9014, 1));
    // The far end of the punt link is loaded for such frames as well.
    common::run("ip link set punt0 mtu 9008");
    common::run("ip link set punt1 mtu 9008");
}

#[test]
fn a_segments_vlan_goes_up_by_socket_or_punt_link() {
    let mut node = trunk("owned");
    // No worker has a socket in the map: ours must not be passed to the host.
    assert_eq!(xdp(&mut node, &frame(&[(DOT1Q, 100)])).verdict, XDP_DROP);
    let counters = counted(&mut node, PORT);
    assert_eq!((counters.rx_packets, counters.rx_bytes), (1, 60));
    assert_eq!((counters.dropped(NoDaemon), counters.punted, counters.passed), (1, 0, 0));
    // tc uses the punt link, whoever listens at its far end.
    assert_eq!(tc(&mut node, &frame(&[(DOT1Q, 100)])), TC_REDIRECT);
    let counters = counted(&mut node, PORT);
    assert_eq!((counters.rx_packets, counters.punted), (1, 1));
}

#[test]
fn what_is_no_segments_is_the_hosts() {
    let mut node = trunk("foreign");
    let frames = [
        frame(&[(DOT1Q, 101)]),
        frame(&[(DOT1AD, 100)]),
        frame(&[(DOT1Q, 4095)]),
        frame(&[]),
        frame(&[(DOT1Q, 0)]),
    ];
    for foreign in &frames {
        let ran = xdp(&mut node, foreign);
        assert_eq!((ran.verdict, &ran.frame), (XDP_PASS, foreign));
        assert_eq!(tc(&mut node, foreign), TC_NEXT);
        let counters = counted(&mut node, PORT);
        assert_eq!((counters.rx_packets, counters.passed, counters.punted), (2, 2, 0));
    }
}

#[test]
fn untagged_goes_up_where_there_is_a_flat_segment_and_a_priority_tag_is_none() {
    let mut node = trunk("flat");
    node.kernel().set_segment(SEGMENT + 1, &segment(1, 0)).unwrap();
    node.kernel().set_vlan(PORT, 0, SEGMENT + 1).unwrap();
    for untagged in [frame(&[]), frame(&[(DOT1Q, 0)]), frame(&[(DOT1Q, 0xe000)])] {
        assert_eq!(tc(&mut node, &untagged), TC_REDIRECT);
        assert_eq!(xdp(&mut node, &untagged).verdict, XDP_DROP);
        let counters = counted(&mut node, PORT);
        assert_eq!((counters.punted, counters.dropped(NoDaemon)), (1, 1));
    }
    // Taken away again, in either way, it is the host's at once.
    node.kernel().clear_vlan(PORT, 0).unwrap();
    assert_eq!(tc(&mut node, &frame(&[])), TC_NEXT);
    node.kernel().clear_segment(SEGMENT).unwrap();
    assert_eq!(tc(&mut node, &frame(&[(DOT1Q, 100)])), TC_NEXT);
}

#[test]
fn a_vlan_of_a_segment_that_is_not_there_is_refused() {
    let mut node = trunk("nosegment");
    let said = node.kernel().set_vlan(PORT, 200, 77).unwrap_err().to_string();
    assert_eq!(said, "there is no segment 77");
}

#[test]
fn a_public_nic_passes_everything() {
    let mut node = node("public", port(PORT, LO, PortKind::Public));
    for theirs in [frame(&[]), frame(&[(DOT1Q, 100)])] {
        assert_eq!(xdp(&mut node, &theirs).verdict, XDP_PASS);
        assert_eq!(tc(&mut node, &theirs), TC_NEXT);
    }
    assert_eq!(counted(&mut node, PORT).passed, 4);
}

#[test]
fn whatever_a_guest_or_the_host_port_sends_goes_up_with_its_number() {
    for kind in [PortKind::Vif, PortKind::Host] {
        let mut node = node("guest", port(PORT, LO, kind));
        for (sent, tags) in [
            (frame(&[]), vec![(DOT1AD, PORT)]),
            (frame(&[(DOT1Q, 7)]), vec![(DOT1AD, PORT), (DOT1Q, 7)]),
            (frame(&[(DOT1AD, 1)]), vec![(DOT1AD, PORT), (DOT1AD, 1)]),
        ] {
            let ran = xdp(&mut node, &sent);
            let tag = [0x88, 0xa8, 0, PORT as u8];
            let expected = [&sent[..12], &tag, &sent[12..]].concat();
            assert_eq!((ran.verdict, ran.frame), (XDP_REDIRECT, expected), "{tags:?}");
            assert_eq!(tc(&mut node, &sent), TC_REDIRECT);
            let counters = counted(&mut node, PORT);
            assert_eq!((counters.rx_packets, counters.punted), (2, 2));
        }
    }
}

#[test]
fn a_frame_cut_within_its_tag_is_malformed() {
    let mut node = trunk("runt");
    let mut runt = frame(&[(DOT1Q, 100)]);
    runt.truncate(16);
    assert_eq!(xdp(&mut node, &runt).verdict, XDP_DROP);
    assert_eq!(tc(&mut node, &runt), TC_SHOT);
    let counters = counted(&mut node, PORT);
    assert_eq!((counters.rx_packets, counters.dropped(Malformed)), (2, 2));
}

#[test]
fn an_interface_that_is_no_port_is_counted_in_row_0() {
    let mut node = trunk("noport");
    node.kernel().clear_port(PORT).unwrap();
    assert_eq!(xdp(&mut node, &frame(&[])).verdict, XDP_DROP);
    assert_eq!(tc(&mut node, &frame(&[])), TC_SHOT);
    let counters = counted(&mut node, 0);
    assert_eq!((counters.rx_packets, counters.dropped(NoPort)), (2, 2));
    // The port's VLANs went with it: whoever gets the number next has none of them.
    node.kernel().set_port(&port(PORT, LO, PortKind::Trunk)).unwrap();
    assert_eq!(tc(&mut node, &frame(&[(DOT1Q, 100)])), TC_NEXT);
}

#[test]
fn a_port_that_moves_leaves_its_interface() {
    let mut node = trunk("moves");
    node.kernel().set_port(&port(PORT, 4000, PortKind::Trunk)).unwrap();
    assert_eq!(tc(&mut node, &frame(&[])), TC_SHOT);
    node.kernel().set_port(&port(PORT + 1, LO, PortKind::Vif)).unwrap();
    // An old port's end does not take the interface from its new one.
    node.kernel().clear_port(PORT).unwrap();
    assert_eq!(tc(&mut node, &frame(&[])), TC_REDIRECT);
    assert_eq!(counted(&mut node, PORT + 1).punted, 1);
}

#[test]
fn a_bucket_gives_exactly_its_burst() {
    let limited = PortEntry { punt_rate: 1, punt_burst: 5, ..port(PORT, LO, PortKind::Vif) };
    let mut node = node("burst", limited);
    // One second to the next token; twenty runs take a few milliseconds.
    let verdicts: Vec<u32> = (0..20)
        .map(|at| match at % 2 {
            0 => u32::from(tc(&mut node, &frame(&[])) == TC_REDIRECT),
            _ => u32::from(xdp(&mut node, &frame(&[])).verdict == XDP_REDIRECT),
        })
        .collect();
    assert_eq!(verdicts, [vec![1; 5], vec![0; 15]].concat());
    let counters = counted(&mut node, PORT);
    assert_eq!((counters.punted, counters.dropped(PuntRate)), (5, 15));
    // Told again with another MTU, the port keeps its debts; another port begins with none.
    node.kernel().set_port(&PortEntry { mtu: 1400, ..limited }).unwrap();
    assert_eq!(tc(&mut node, &frame(&[])), TC_SHOT);
    node.kernel().clear_port(PORT).unwrap();
    node.kernel().set_port(&limited).unwrap();
    assert_eq!(tc(&mut node, &frame(&[])), TC_REDIRECT);
}

#[test]
fn a_vm_sends_no_more_than_its_quota_by_either_hook() {
    let outbound = Limit { average: 1, peak: 0, burst: 1 };
    let quota = Quota { outbound, ..Quota::default() };
    let mut node = node("quota", PortEntry { quota, ..port(PORT, LO, PortKind::Vif) });
    let mut sent = frame(&[]);
    sent.resize(100, 0x5a);
    let mut passed = 0;
    for at in 0..40 {
        passed += match at % 2 {
            0 => u32::from(tc(&mut node, &sent) == TC_REDIRECT),
            _ => u32::from(xdp(&mut node, &sent).verdict == XDP_REDIRECT),
        };
    }
    // 1 KiB at once, and 100 bytes more each 100 ms that this may take.
    assert!((10..=15).contains(&passed), "{passed}");
    let counters = counted(&mut node, PORT);
    let counted = (counters.rx_packets, counters.punted, counters.dropped(QuotaOut));
    assert_eq!(counted, (40, passed.into(), u64::from(40 - passed)));
}

#[test]
fn a_nic_in_tc_mode_pays_and_its_sockets_do_not() {
    let mut node = trunk("nicpays");
    let limited = PortEntry { punt_rate: 1, punt_burst: 2, ..port(PORT, LO, PortKind::Trunk) };
    node.kernel().set_port(&limited).unwrap();
    let verdicts: Vec<u32> = (0..4).map(|_| tc(&mut node, &frame(&[(DOT1Q, 100)]))).collect();
    assert_eq!(verdicts, [TC_REDIRECT, TC_REDIRECT, TC_SHOT, TC_SHOT]);
    xdp(&mut node, &frame(&[(DOT1Q, 100)]));
    let counters = counted(&mut node, PORT);
    assert_eq!((counters.dropped(PuntRate), counters.dropped(NoDaemon)), (2, 1));
}

#[test]
fn a_gso_packet_counts_and_pays_as_its_frames() {
    let limited = PortEntry { punt_rate: 1, punt_burst: 6, ..port(PORT, LO, PortKind::Vif) };
    let mut node = node("gso", limited);
    let gso = |node: &mut Node, segments: u32, size: u32| {
        let context = SkBuff { gso_segs: segments, gso_size: size, ..Default::default() };
        let program = node.kernel().program(Program::ForwardTc);
        run_skb(program, &frame(&[]), context).0.verdict
    };
    assert_eq!(gso(&mut node, 4, 10), TC_REDIRECT);
    assert_eq!(gso(&mut node, 4, 10), TC_SHOT);
    // Two tokens are left. What virtio hands in has no count yet: 60 bytes, 30 a frame.
    assert_eq!(gso(&mut node, 0, 30), TC_REDIRECT);
    assert_eq!(gso(&mut node, 0, 0), TC_SHOT);
    let counters = counted(&mut node, PORT);
    assert_eq!(
        (counters.rx_packets, counters.punted, counters.dropped(PuntRate)),
        (4 + 4 + 2 + 1, 4 + 2, 4 + 1)
    );
}

#[test]
fn a_packet_of_more_frames_than_the_bucket_holds_waits_for_a_full_one() {
    let limited = PortEntry { punt_rate: 100, punt_burst: 4, ..port(PORT, LO, PortKind::Vif) };
    let mut node = node("debt", limited);
    let mut large = || {
        let context = SkBuff { gso_segs: 40, gso_size: 10, ..Default::default() };
        let program = node.kernel().program(Program::ForwardTc);
        run_skb(program, &frame(&[]), context).0.verdict
    };
    assert_eq!([large(), large()], [TC_REDIRECT, TC_SHOT]);
    // 36 tokens of debt and 4 to be full again are 0.4 s at 100 a second.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(large(), TC_SHOT);
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert_eq!([large(), large()], [TC_REDIRECT, TC_SHOT]);
}

#[test]
fn a_marked_frame_goes_by_on_a_nic_alone() {
    let mut node = trunk("mark");
    let marked = SkBuff { mark: MARK_HOST, ..Default::default() };
    let program = node.kernel().program(Program::ForwardTc);
    let (ran, left) = run_skb(program, &frame(&[(DOT1Q, 100)]), marked);
    assert_eq!((ran.verdict, left.mark), (TC_NEXT, 0));
    let other = SkBuff { mark: MARK_HOST + 1, ..Default::default() };
    let (ran, left) = run_skb(program, &frame(&[(DOT1Q, 100)]), other);
    assert_eq!((ran.verdict, left.mark), (TC_REDIRECT, MARK_HOST + 1));
    node.kernel().set_port(&port(PORT, LO, PortKind::Vif)).unwrap();
    let program = node.kernel().program(Program::ForwardTc);
    let (ran, _) = run_skb(program, &frame(&[]), marked);
    assert_eq!(ran.verdict, TC_REDIRECT);
}

#[test]
fn nothing_leaves_the_punt_link_for_the_stack_or_unheard() {
    let mut node = trunk("ends");
    // A test run has no tag beside the frame, as one from somebody else has none.
    for stray in [frame(&[]), frame(&[(DOT1Q, PORT | TAG_TO_HOST)])] {
        let ran = run(node.kernel().program(Program::Deliver), &stray);
        assert_eq!(ran.verdict, TC_SHOT);
        let ran = run(node.kernel().program(Program::Punt), &stray);
        assert_eq!(ran.verdict, XDP_DROP);
        assert_eq!(counted(&mut node, 0).dropped(NoPort), 2);
    }
    let ran = run(node.kernel().program(Program::Punt), &frame(&[(DOT1AD, PORT)]));
    assert_eq!(ran.verdict, XDP_DROP);
    assert_eq!(counted(&mut node, PORT).dropped(NoDaemon), 1);
}

#[test]
fn numbers_that_fit_nothing_are_refused() {
    let mut node = trunk("numbers");
    let kernel = node.kernel();
    for number in [0, 4095, 4096, u16::MAX] {
        let said = kernel.set_port(&port(number, LO, PortKind::Vif)).unwrap_err().to_string();
        assert_eq!(said, format!("there is no port {number}"));
        assert!(kernel.set_segment(number, &segment(1, 1)).is_err());
    }
    assert!(kernel.counters(4096).is_err());
    let beyond = PortEntry { sockets: 4090, queues: 7, ..port(PORT, LO, PortKind::Trunk) };
    assert_eq!(kernel.set_port(&beyond).unwrap_err().to_string(), "there is no socket 4097");
    assert!(kernel.attach(77, "lo", kernel::Hook::Tc, kernel::XdpMode::Auto).is_err());
}

#[test]
fn the_table_is_shared_memory_with_its_header() {
    let mut node = trunk("table");
    let kernel = node.kernel();
    assert_eq!(kernel.lines().len(), 64);
    let header = kernel.header();
    assert_eq!((header.layout(), header.lines(), header.hash_key()), (kernel::LAYOUT, 64, 1));
    assert_eq!([header.next_stamp(), header.next_stamp(), header.stamp()], [1, 2, 2]);
    let table = conntrack::Table::new(kernel.lines(), header.hash_key());
    let key = conntrack::FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], 1, 2, 17, 7, 1);
    let line = |key| conntrack::NewLine { key, rewrite: conntrack::Rewrite::default() };
    table.install(&line(key), &line(key.reversed(8, 1)), 1, 60).unwrap();
    // Who opens the pin sees the connection: word 0 of two lines is live.
    let pin = format!("/sys/fs/bpf/trunkline/{}/lines", node.name);
    let pinned = MapHandle::from_pinned_path(pin).unwrap();
    let word0 = |index: u32| {
        let line = pinned.lookup(&index.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        u64::from_ne_bytes(line[..8].try_into().unwrap())
    };
    let live = (0..64).filter(|index| word0(*index) & 3 == conntrack::layout::LIVE).count();
    assert_eq!(live, 2);
}
