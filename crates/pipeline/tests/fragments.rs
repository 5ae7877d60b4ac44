//! Fragments: whatever order they come in, the datagram arrives as it would have whole.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use std::collections::BTreeMap;

use hops::*;
use pipeline::{DropReason, Packet, Verdict};
use proptest::prelude::*;
use tables::{GATEWAY_MAC, Port, PortId};
use testkit::{Node, NodePlan, ROUTER, Sent, World, echo, tcp, udp, vm_mac};
use wire::fragment::Cut;
use wire::{MacAddr, Network};

const L3: usize = 14;
const PUBLIC: u16 = 2;
const VIF1: u16 = 11;
const VIF2: u16 = 12;

fn port(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

/// The frame with that number, which may be cut.
fn numbered(mut frame: Vec<u8>, id: u16) -> Vec<u8> {
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20] = 0;
    frame
}

/// Its fragments on a link with that MTU, in order.
fn cut(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let cut = Cut::new(frame, L3, mtu).unwrap();
    let write = |index| {
        let mut out = vec![0; L3 + mtu];
        let length = cut.write(frame, index, &mut out).unwrap();
        out.truncate(length);
        out
    };
    (0..cut.count()).map(write).collect()
}

/// The packet of fragments that reached one end, as its stack puts them together.
fn together(mut fragments: Vec<Vec<u8>>) -> Vec<u8> {
    fragments.sort_by_key(|one| ip(one).fragment_offset);
    let mut whole = fragments[0][..L3 + 20].to_vec();
    for one in &fragments {
        let (here, start) = (ip(one), usize::from(ip(one).fragment_offset));
        assert_eq!(start, whole.len() - L3 - 20, "a gap, or twice the same");
        assert_eq!(one[..L3], whole[..L3], "the same stations");
        whole.extend(&one[L3 + 20..L3 + usize::from(here.total_len)]);
    }
    assert_eq!(fragments.last().unwrap()[20] & 0x20, 0, "the last is there");
    let length = (whole.len() - L3) as u16;
    whole[16..18].copy_from_slice(&length.to_be_bytes());
    whole[20..22].fill(0);
    sealed(whole)
}

/// The frame with the checksum of its IPv4 header.
fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let sum = !wire::checksum::fold(wire::checksum::sum(&frame[L3..L3 + 20]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Who sends: a VM, or somebody outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    Vm(u8),
    Outside,
}

fn send(world: &mut World, from: From, frame: &[u8]) -> Vec<Vec<u8>> {
    let reached = match from {
        From::Vm(number) => world.send(number, frame),
        From::Outside => world.send_from_outside(frame),
    };
    let is_ip = |frame: &Vec<u8>| matches!(wire::parse(frame).unwrap().network, Network::Ipv4(_));
    // What is flooded reaches others too, who do not listen.
    let listens = |sent: &Sent| sent.frame[..6] == vm_mac(sent.vm).0;
    let frames = reached.into_iter().filter(listens).map(|sent| sent.frame);
    frames.chain(world.outside.drain(..)).filter(is_ip).collect()
}

/// A datagram of one of the ways through the node: who sends it, and what.
fn of_way(way: usize, kind: usize, sport: u16, payload: &[u8]) -> (From, Vec<u8>) {
    let outside = (MacAddr([2, 0, 0, 0, 9, 1]), GOOGLE);
    let (from, src, dst) = match way {
        0 => (From::Vm(2), VM2, gateway(GOOGLE)), // the shared source address
        1 => (From::Vm(1), VM1, gateway(GOOGLE)), // out by a float
        2 => (From::Outside, outside, (ROUTER.mac, FLOAT1)), // in by a float
        3 => (From::Vm(6), VM6, gateway(FLOAT1)), // float to float
        4 => (From::Vm(2), VM2, gateway(FLOAT1)), // hairpin
        5 => (From::Vm(1), VM1, gateway(FLOAT1)), // to one's own
        6 => (From::Vm(1), VM1, gateway(VM6.1)),  // other tenant, other node
        7 => (From::Vm(2), VM2, (VM1.0, VM1.1)),  // bridged
        _ => (From::Vm(1), VM1, (VM4.0, VM4.1)),  // bridged, other node, from behind a float
    };
    let frame = match kind {
        0 => udp((src.0, src.1, sport), (dst.0, dst.1, 53), payload),
        1 => tcp((src.0, src.1, sport), (dst.0, dst.1, 22), 16, payload),
        _ => {
            // The payload is testkit's: what is behind it makes it longer.
            let mut frame = echo(src, dst, true, sport);
            frame.extend(payload);
            let length = (frame.len() - L3) as u16;
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            frame[36..38].fill(0);
            let sum = !wire::checksum::fold(wire::checksum::sum(&frame[34..]));
            frame[36..38].copy_from_slice(&sum.to_be_bytes());
            frame
        }
    };
    (from, frame)
}

/// Where a datagram ends, and as what, if it is sent whole through a node that knows nothing.
fn as_whole(from: From, frame: &[u8]) -> Vec<u8> {
    let mut world = World::routed("whole", false);
    let mut arrived = send(&mut world, from, frame);
    assert_eq!(arrived.len(), 1);
    let frame = arrived.remove(0);
    hop(&frame);
    frame
}

#[test]
fn in_order_and_reversed_a_datagram_arrives_by_every_way_as_it_would_whole() {
    let payload: Vec<u8> = (0..700u16).map(|at| (at * 7) as u8).collect();
    for way in 0..9 {
        for kind in 0..3 {
            for reversed in [false, true] {
                let (from, frame) = of_way(way, kind, 30_000, &payload);
                let whole = numbered(frame, 0x1234);
                let mut pieces = cut(&whole, 156);
                if reversed {
                    pieces.reverse();
                }
                let mut world = World::routed("fragments", false);
                let mut arrived = Vec::new();
                for piece in &pieces {
                    arrived.extend(send(&mut world, from, piece));
                }
                let what = format!("way {way}, kind {kind}, reversed {reversed}");
                assert_eq!(arrived.len(), pieces.len(), "{what}");
                let first = usize::from(reversed) * (pieces.len() - 1);
                if reversed && way != 6 && way != 7 {
                    assert_eq!(ip(&arrived[0]).fragment_offset, 0, "{what}: the first goes first");
                    let offsets = arrived[1..].iter().map(|one| ip(one).fragment_offset);
                    assert!(
                        offsets.is_sorted_by(|one, two| one > two),
                        "{what}: then as they came"
                    );
                }
                assert_eq!(ip(&pieces[first]).fragment_offset, 0);
                assert!(together(arrived) == as_whole(from, &sealed(whole)), "{what}");
            }
        }
    }
}

/// Answers come back the same ways, of which some are translated though they are bridged.
#[test]
fn answers_in_fragments_find_back_to_who_asked() {
    let payload = [7; 700];
    for (way, answers) in [
        (0, From::Outside),
        (1, From::Outside),
        (2, From::Vm(1)),
        (3, From::Vm(1)),
        (4, From::Vm(1)),
        (6, From::Vm(6)),
    ] {
        for reversed in [false, true] {
            let mut world = World::routed("answers", false);
            let (from, question) = of_way(way, 0, 30_000, b"?");
            let asked = send(&mut world, from, &question).remove(0);
            let seen = ip(&asked);
            let wire::Transport::Udp { sport, dport } = seen.transport else { panic!() };
            let (me, you) = (MacAddr(asked[..6].try_into().unwrap()), &asked[6..12]);
            let to = MacAddr(you.try_into().unwrap());
            // Its neighbour answers a VM of its own network itself.
            let to = if way == 4 { VM2.0 } else { to };
            let answer = udp((me, seen.dst, dport), (to, seen.src, sport), &payload);
            let mut pieces = cut(&numbered(answer, 0x4321), 156);
            if reversed {
                pieces.reverse();
            }
            let mut arrived = Vec::new();
            for piece in &pieces {
                arrived.extend(send(&mut world, answers, piece));
            }
            let what = format!("way {way}, reversed {reversed}");
            assert_eq!(arrived.len(), pieces.len(), "{what}");
            let answer = together(arrived);
            hop(&answer);
            // As the one who asked said it, turned round.
            let (asked, answered) = (ip(&question), ip(&answer));
            assert_eq!((answered.src, answered.dst), (asked.dst, asked.src), "{what}");
            let expected = wire::Transport::Udp { sport: 53, dport: 30_000 };
            assert_eq!(answered.transport, expected, "{what}");
            assert_eq!(answer[L3 + 28..], payload, "{what}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn datagrams_whose_fragments_come_mixed_up_arrive_each_as_it_would_whole(
        parts in proptest::collection::vec(
            (0usize..9, 0usize..3, proptest::collection::vec(any::<u8>(), 200..1200), 68usize..190),
            1..6,
        ),
        order in proptest::collection::vec(any::<u32>(), 120),
    ) {
        let mut world = World::routed("mixed", false);
        let mut queue = Vec::new();
        let mut expected = BTreeMap::new();
        for (id, (way, kind, payload, mtu)) in parts.into_iter().enumerate() {
            let id = id as u16 + 1;
            let (from, frame) = of_way(way, kind, 30_000 + id, &payload);
            let whole = numbered(frame, id);
            queue.extend(cut(&whole, mtu).into_iter().map(|piece| (from, piece)));
            expected.insert(id, as_whole(from, &sealed(whole)));
        }
        let mut keyed: Vec<_> = queue.into_iter().zip(order.into_iter().cycle().enumerate()).collect();
        keyed.sort_by_key(|(_, (at, key))| (*key, *at));
        let mut arrived: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
        for ((from, piece), _) in keyed {
            for frame in send(&mut world, from, &piece) {
                let id = u16::from_be_bytes([frame[18], frame[19]]);
                arrived.entry(id).or_default().push(frame);
            }
        }
        prop_assert!(world.left.late.is_empty() && world.right.late.is_empty());
        let arrived: BTreeMap<u16, Vec<u8>> =
            arrived.into_iter().map(|(id, pieces)| (id, together(pieces))).collect();
        prop_assert!(arrived == expected);
    }
}

/// A datagram from outside to the node's own address.
fn to_node(dport: u16, id: u16) -> Vec<Vec<u8>> {
    let frame = udp((ROUTER.mac, GOOGLE, 53), (LEFT_PUBLIC, LEFT, dport), &[5; 400]);
    cut(&numbered(frame, id), 156)
}

fn left() -> Node {
    let mut world = World::routed("node", false);
    std::mem::replace(&mut world.left, Node::new(&NodePlan::default()))
}

/// The left node where VM 2 and VM 3 have asked 8.8.8.8 from the shared address, and their ports.
fn asked() -> (Node, [u16; 2]) {
    let mut node = left();
    let ports = [(VIF2, VM2, 40_000), (13, VM3, 40_001)].map(|(vif, vm, sport)| {
        let (verdict, sent) =
            node.receive(port(vif), &udp((vm.0, vm.1, sport), (GATEWAY_MAC, GOOGLE, 53), b"?"));
        assert_eq!(verdict, Verdict::Forward(port(PUBLIC)));
        match ip(&sent[0].1).transport {
            wire::Transport::Udp { sport, .. } => sport,
            other => panic!("{other:?}"),
        }
    });
    (node, ports)
}

#[test]
fn what_comes_to_the_shared_address_is_the_hosts_or_a_vms_as_its_first_fragment_says() {
    for reversed in [false, true] {
        let (mut node, [vm2, _]) = asked();
        let (host, guest) = (to_node(9_999, 1), to_node(vm2, 2));
        for (pieces, owner) in [(host, Verdict::Host), (guest, Verdict::Forward(port(VIF2)))] {
            let mut pieces = pieces;
            if reversed {
                let first = pieces.remove(0);
                for piece in &pieces {
                    assert_eq!(node.receive(port(PUBLIC), piece).0, Verdict::Wait);
                }
                assert_eq!(node.receive(port(PUBLIC), &first).0, owner);
            }
            for piece in &pieces {
                assert_eq!(node.receive(port(PUBLIC), piece).0, owner);
            }
        }
    }
}

#[test]
fn a_second_first_fragment_with_other_ports_gets_none_of_the_later_ones() {
    let (mut node, [vm2, vm3]) = asked();
    let (mine, theirs) = (to_node(vm2, 7), to_node(vm3, 7));
    assert_eq!(node.receive(port(PUBLIC), &mine[0]).0, Verdict::Forward(port(VIF2)));
    let conflict = Verdict::Drop(DropReason::FragmentConflict);
    assert_eq!(node.receive(port(PUBLIC), &theirs[0]).0, conflict);
    for piece in &mine[1..] {
        assert_eq!(node.receive(port(PUBLIC), piece).0, Verdict::Forward(port(VIF2)));
    }
    // Two seconds after the last the number is anybody's.
    node.now += 3;
    assert_eq!(node.receive(port(PUBLIC), &theirs[0]).0, Verdict::Forward(port(13)));
    assert_eq!(node.receive(port(PUBLIC), &theirs[1]).0, Verdict::Forward(port(13)));
}

#[test]
fn a_vm_speaks_for_no_fragments_but_its_own() {
    let mut node = left();
    let frame = udp((VM2.0, VM2.1, 40_000), (GATEWAY_MAC, GOOGLE, 53), &[5; 400]);
    let pieces = cut(&numbered(frame, 9), 156);
    node.receive(port(VIF2), &pieces[0]);
    assert_eq!(node.receive(port(13), &pieces[1]).0, Verdict::Wait, "not by another's port");
    assert_eq!(node.receive(port(VIF2), &pieces[1]).0, Verdict::Forward(port(PUBLIC)));
}

#[test]
fn a_flood_of_numbers_does_not_cost_another_vm_its_datagrams() {
    let mut node = left();
    let question = |sport, id| {
        let frame = udp((VM2.0, VM2.1, sport), (GATEWAY_MAC, GOOGLE, 53), &[5; 400]);
        cut(&numbered(frame, id), 156)
    };
    let pending: Vec<_> = (0..50).map(|id| question(40_000, id)).collect();
    for pieces in &pending {
        node.receive(port(VIF2), &pieces[0]);
    }
    let flood = udp((VM1.0, VM1.1, 50_000), (GATEWAY_MAC, GOOGLE, 53), &[5; 400]);
    for id in 0..=u16::MAX {
        let mut first = numbered(flood.clone(), id);
        first[20] = 0x20;
        assert_eq!(node.receive(port(VIF1), &first).0, Verdict::Forward(port(PUBLIC)));
    }
    for piece in pending.iter().flat_map(|pieces| &pieces[1..]) {
        assert_eq!(node.receive(port(VIF2), piece).0, Verdict::Forward(port(PUBLIC)));
    }
}

#[test]
fn first_and_later_fragments_of_one_batch_go_together_and_an_early_one_is_named() {
    let mut node = left();
    let frame = udp((VM2.0, VM2.1, 40_000), (GATEWAY_MAC, GOOGLE, 53), &[5; 500]);
    let pieces = cut(&numbered(frame, 9), 156);
    let order = [2, 0, 1, 3];
    let mut chunks = order.map(|at| [vec![0; 64], pieces[at].clone(), vec![0; 64]].concat());
    let mut batch = chunks.each_mut().map(|chunk| {
        let len = chunk.len() - 128;
        Packet::new(chunk, 64, len, port(VIF2))
    });
    node.pipeline().forward(&mut batch);
    let verdicts = batch.each_ref().map(|packet| packet.verdict.unwrap());
    let out = Verdict::Forward(port(PUBLIC));
    assert_eq!(verdicts, [Verdict::Wait, out, out, out]);
    let name = conntrack::Fragments::datagram(VM2.1, GOOGLE, 9, 17, VIF2, 1);
    assert_eq!(batch[0].key, name);
    let unchanged = batch[0].bytes().to_vec();
    assert_eq!(unchanged, pieces[2], "it waits as it came");
    assert!(node.fragments.has(name, u64::from(node.now) * 1000));
}

/// The left node with another MTU on its public side.
fn narrow(mtu: u16) -> Node {
    let mut node = left();
    let mut ports: Vec<Port> = node.tables.topology.ports().cloned().collect();
    ports.iter_mut().filter(|one| one.id == port(PUBLIC)).for_each(|one| one.mtu = mtu);
    let segments = node.tables.topology.segments().cloned().collect();
    node.tables.topology = std::sync::Arc::new(tables::Topology::new(ports, segments));
    node
}

#[test]
fn a_fragment_too_long_for_the_next_link_is_cut_again_or_its_sender_is_told() {
    let frame = udp((VM2.0, VM2.1, 40_000), (GATEWAY_MAC, GOOGLE, 53), &[5; 4000]);
    let pieces = cut(&numbered(frame, 9), 1500);
    let mut node = narrow(1400);
    let mut last = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let (verdict, sent) = node.receive(port(VIF2), piece);
        let fits = piece.len() - L3 <= 1400;
        let out = port(PUBLIC);
        assert_eq!(verdict, if fits { Verdict::Forward(out) } else { Verdict::Fragment(out) });
        assert_eq!(ip(&sent[0].1).src, LEFT, "fragment {at}");
        let cut = if fits { vec![sent[0].1.clone()] } else { cut(&sent[0].1, 1400) };
        last.extend(cut);
    }
    hop(&together(last));
    // Of those that nobody may cut the first is told of, and of no other (RFC 1122 §3.2.2).
    let mut node = narrow(1400);
    let whole: Vec<Vec<u8>> = pieces
        .into_iter()
        .map(|mut piece| {
            piece[20] |= 0x40;
            sealed(piece)
        })
        .collect();
    let (verdict, sent) = node.receive(port(VIF2), &whole[0]);
    assert_eq!(verdict, Verdict::Reply(port(VIF2)));
    let error = &sent[0].1;
    assert_eq!(
        (ip(error).dst, &error[34..36], &error[40..42]),
        (VM2.1, &[3, 4][..], &1400u16.to_be_bytes()[..])
    );
    assert_eq!(error[42..62], whole[0][L3..L3 + 20], "as it was sent");
    let late = node.receive(port(VIF2), &whole[1]).0;
    assert_eq!(late, Verdict::Drop(DropReason::NeedsFragments));
}

#[test]
fn a_ping_in_fragments_to_the_gateway_is_the_hosts_stacks_to_answer() {
    let mut node = left();
    for (vif, vm) in [(VIF1, VM1), (VIF2, VM2)] {
        let ping = echo(vm, (GATEWAY_MAC, [10, 0, 0, 1]), true, 77);
        for piece in cut(&numbered(ping, 3), 60) {
            assert_eq!(node.receive(port(vif), &piece).0, Verdict::Forward(port(101)), "VIF {vif}");
        }
    }
}

#[test]
fn protocols_without_ports_wait_for_nothing() {
    let mut node = left();
    let mut frame = udp((VM1.0, VM1.1, 0), (GATEWAY_MAC, GOOGLE, 0), &[5; 400]);
    frame[23] = 47;
    let mut pieces = cut(&numbered(frame, 9), 156);
    pieces.reverse();
    for piece in pieces {
        let (verdict, sent) = node.receive(port(VIF1), &piece);
        assert_eq!(verdict, Verdict::Forward(port(PUBLIC)));
        assert_eq!(ip(&sent[0].1).src, FLOAT1);
    }
}

#[test]
fn an_answer_nobody_asked_for_is_refused_to_its_last_fragment() {
    let mut node = left();
    let reply = numbered(echo(VM2, (GATEWAY_MAC, GOOGLE), false, 5), 9);
    for piece in cut(&reply, 60) {
        let verdict = node.receive(port(VIF2), &piece).0;
        assert_eq!(verdict, Verdict::Drop(DropReason::Unrelated));
    }
    assert_eq!(node.flows.occupancy().live, 0);
}
