//! Every drop reason, met by a packet; and a million frames that nobody would send.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pipeline::{DropReason, Packet, Pipeline, Verdict};
use proptest::prelude::{Rng, RngExt};
use proptest::test_runner::{RngAlgorithm, TestRng};
use tables::{Fdb, FdbEntry, Port, PortId, Topology};
use testkit::{Node, NodePlan, arp_request, echo, ethernet, ipv6_multicast, tag, tcp, udp, vm_mac};
use wire::MacAddr;

const TRUNK: u16 = 1;
const VIF1: u16 = 11;
const VIF2: u16 = 12;
/// A vif that is in no segment, and one with an XDP hook.
const LOST: u16 = 13;
const XDP: u16 = 14;

fn id(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

/// Two VMs of tenant 1, and the two odd vifs.
fn node() -> Node {
    let plan = NodePlan {
        segments: vec![(1, Some(100)), (2, Some(102))],
        vifs: vec![(1, 1), (2, 1), (3, 2), (4, 1)],
        known: true,
    };
    let mut node = Node::new(&plan);
    let mut ports: Vec<Port> = node.tables.topology.ports().cloned().collect();
    for port in &mut ports {
        match port.id.get() {
            LOST => port.segment = tables::SegmentId::NONE,
            XDP => port.partial_checksums = true,
            _ => {}
        }
    }
    let segments = node.tables.topology.segments().cloned().collect();
    node.tables.topology = Arc::new(Topology::new(ports, segments));
    node
}

fn vm(number: u8) -> (MacAddr, [u8; 4]) {
    (vm_mac(number), [10, 0, 0, number])
}

fn datagram() -> Vec<u8> {
    udp((vm(1).0, vm(1).1, 5000), (vm(2).0, vm(2).1, 53), b"question")
}

/// A frame for every reason that a frame alone can cause, and the port it comes by.
fn culprits() -> Vec<(DropReason, u16, Vec<u8>)> {
    let ping = echo(vm(1), vm(2), true, 1);
    let with = |at: usize, value: u8, mut frame: Vec<u8>| {
        frame[at] = value;
        frame
    };
    let from = |src: MacAddr| ethernet(src, vm_mac(2), 0x88b5, &[0; 46]);
    let mut partial = datagram();
    partial[6..12].copy_from_slice(&vm_mac(4).0);
    let pseudo = 0x0a00 + 1 + 0x0a00 + 2 + 17 + 16u16;
    partial[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let large = udp((vm(1).0, vm(1).1, 1), (vm(2).0, vm(2).1, 2), &[0; 1473]);
    vec![
        (DropReason::Runt, VIF1, vec![0xff; 13]),
        (DropReason::MalformedArp, VIF1, with(18, 8, arp_request(vm(1), vm(2).1))),
        (DropReason::MalformedIpv4, VIF1, with(14, 0x44, ping.clone())),
        (DropReason::MalformedIpv6, VIF1, with(18, 0xff, ipv6_multicast(vm_mac(1)))),
        (DropReason::MalformedTransport, VIF1, with(38, 0xff, datagram())),
        (DropReason::BadSource, VIF1, from(MacAddr::BROADCAST)),
        (DropReason::LinkLocal, VIF1, {
            ethernet(vm_mac(1), MacAddr([1, 0x80, 0xc2, 0, 0, 0]), 0x88b5, &[0; 46])
        }),
        (DropReason::GuestTag, VIF1, tag(&ping, 100)),
        (DropReason::GuestDoubleTag, VIF1, tag(&tag(&ping, 102), 100)),
        (DropReason::TrunkDoubleTag, TRUNK, tag(&tag(&ping, 102), 100)),
        (DropReason::NoPort, 99, ping.clone()),
        (DropReason::NoSegment, LOST, ping),
        (DropReason::Reflected, VIF2, from(MacAddr([2, 0, 0, 0, 0, 1]))),
        (DropReason::TooBig, VIF1, large),
        (DropReason::PartialChecksum, XDP, partial),
    ]
}

#[test]
fn every_drop_reason_has_a_packet_that_meets_it_and_a_counter_that_moves() {
    let mut met: HashMap<DropReason, u64> = HashMap::new();
    let mut node = node();
    for (reason, port, frame) in culprits() {
        let verdict = node.receive(id(port), &frame).0;
        assert_eq!(verdict, Verdict::Drop(reason), "{}", reason.name());
        let counter = &node.counters.port(id(port)).dropped[reason as usize];
        assert_eq!(counter.load(Relaxed), 1, "{}", reason.name());
        *met.entry(reason).or_default() += 1;
    }
    // No room before the frame: the one reason a NIC's buffers cause, not a frame.
    let ping = echo(vm(1), vm(2), true, 1);
    let far = MacAddr([2, 0, 0, 0, 0, 0x55]);
    node.station(tables::SegmentId::new(1).unwrap(), far, id(TRUNK));
    let mut frame = ping;
    frame[..6].copy_from_slice(&far.0);
    let len = frame.len();
    let mut batch = [Packet::new(&mut frame, 0, len, id(VIF1))];
    pipeline(&mut node).forward(&mut batch);
    assert_eq!(batch[0].verdict, Some(Verdict::Drop(DropReason::NoRoom)));
    *met.entry(DropReason::NoRoom).or_default() += 1;
    for reason in DropReason::ALL {
        assert_eq!(met.get(&reason), Some(&1), "nothing meets {}", reason.name());
    }
}

fn pipeline(node: &mut Node) -> Pipeline<'_> {
    Pipeline {
        tables: &node.tables,
        flows: &node.flows,
        now: node.now,
        counters: &node.counters,
        learner: &mut node.learner,
    }
}

/// Whole frames to mutate.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = culprits().into_iter().map(|(_, _, frame)| frame).collect();
    seeds.push(datagram());
    seeds.push(tcp((vm(1).0, vm(1).1, 40000), (vm(2).0, vm(2).1, 22), 2, b"GET"));
    seeds.push(echo(vm(2), vm(1), false, 1));
    seeds.push(ipv6_multicast(vm_mac(2)));
    let tagged: Vec<Vec<u8>> = seeds.iter().filter(|f| f.len() > 14).map(|f| tag(f, 100)).collect();
    seeds.extend(tagged);
    seeds
}

/// Writes one frame nobody would send into `chunk`; returns its length.
fn disfigure(rng: &mut TestRng, seeds: &[Vec<u8>], chunk: &mut [u8]) -> usize {
    let seed = &seeds[rng.random_range(0..seeds.len())];
    let mut len = seed.len().min(chunk.len());
    chunk[..len].copy_from_slice(&seed[..len]);
    match rng.random_range(0..4) {
        0 => {
            len = rng.random_range(0..chunk.len());
            rng.fill_bytes(&mut chunk[..len]);
        }
        1 => len = rng.random_range(0..=len),
        _ => {
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(0..len.clamp(1, 64));
                chunk[at] = rng.random();
            }
        }
    }
    len
}

#[test]
fn a_million_random_and_mutated_frames_get_one_verdict_each() {
    const FRAMES: usize = 1_000_000;
    const HEADROOM: usize = 64;
    let ports = [TRUNK, VIF1, VIF2, LOST, XDP, 99, 101];
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"trunkline, a million odd frames!");
    let seeds = seeds();
    let mut node = node();
    let mut chunks = vec![[0u8; 2048]; 32];
    let mut sent = 0;
    while sent < FRAMES {
        node.now += 1;
        let mut batch: Vec<Packet<'_>> = chunks
            .iter_mut()
            .map(|chunk| {
                let len = disfigure(&mut rng, &seeds, &mut chunk[HEADROOM..HEADROOM + 1600]);
                Packet::new(chunk, HEADROOM, len, id(ports[rng.random_range(0..ports.len())]))
            })
            .collect();
        pipeline(&mut node).forward(&mut batch);
        for packet in &batch {
            let verdict = packet.verdict.expect("every packet has a verdict");
            let (head, len) = packet.range();
            assert!(head + len <= 2048);
            if let Verdict::Forward(port) = verdict {
                assert_ne!(port, packet.ingress, "reflected");
                assert!(node.tables.topology.port(port).is_some());
            }
        }
        sent += batch.len();
        let _ = node.learner.notices().count();
    }
    let counters = &node.counters;
    let verdicts = [&counters.forward, &counters.flood, &counters.host, &counters.drop];
    let [forward, flood, host, drop] = verdicts.map(|counter| counter.load(Relaxed));
    assert_eq!(forward + flood + host + drop, sent as u64);
    assert!(forward > 1000 && flood > 1000 && host > 1000, "{forward} {flood} {host} {drop}");
    let mut by_reason: HashMap<&str, u64> = HashMap::new();
    for port in ports {
        for reason in DropReason::ALL {
            let count = counters.port(id(port)).dropped[reason as usize].load(Relaxed);
            *by_reason.entry(reason.name()).or_default() += count;
        }
    }
    assert_eq!(by_reason.values().sum::<u64>(), drop);
    // Frames with headroom never lack it; everything else must have been met by chance too.
    let missing: Vec<_> = by_reason.iter().filter(|(_, count)| **count == 0).collect();
    assert_eq!(missing, [(&"no_room", &0)], "{by_reason:?}");
}

#[test]
fn an_fdb_entry_for_a_port_that_is_gone_drops_and_does_not_panic() {
    let mut node = node();
    let mut fdb = Fdb::clone(&node.tables.fdb);
    let segment = tables::SegmentId::new(1).unwrap();
    fdb.insert(segment, vm_mac(2), FdbEntry { port: id(77), fixed: true });
    node.tables.fdb = Arc::new(fdb);
    let verdict = node.receive(id(VIF1), &datagram()).0;
    assert_eq!(verdict, Verdict::Drop(DropReason::NoPort));
}
