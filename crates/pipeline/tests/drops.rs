//! Every drop reason, met by a packet; and a million frames that nobody would send.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pipeline::{DropReason, Packet, Pipeline, Verdict};
use proptest::prelude::{Rng, RngExt};
use proptest::test_runner::{RngAlgorithm, TestRng};
use tables::{Fdb, FdbEntry, GATEWAY_MAC, Neighbour, Port, PortId, Topology};
use testkit::{
    Node, NodePlan, arp_reply, arp_request, discovery, echo, ethernet, ipv6, ipv6_multicast,
    link_local, tag, tcp, udp, vm_mac,
};
use wire::MacAddr;

const TRUNK: u16 = 1;
const PUBLIC: u16 = 2;
const VIF1: u16 = 11;
const VIF2: u16 = 12;
/// A vif that is in no segment, and one with an XDP hook.
const LOST: u16 = 13;
const XDP: u16 = 14;
/// One with a wall: its VM is 10.0.0.5 and nobody else.
const WALLED: u16 = 15;

fn id(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

/// Two VMs of tenant 1, and the two odd vifs; VM 1 has a floating address.
fn node() -> Node {
    let plan = NodePlan {
        segments: vec![(1, Some(100)), (2, Some(102))],
        vifs: vec![(1, 1), (2, 1), (3, 2), (4, 1), (5, 1)],
        known: true,
        number: 1,
        gateways: vec![(1, [10, 0, 0, 254], false), (2, [10, 1, 0, 254], false)],
        public: Some([91, 207, 15, 105]),
        addresses: vec![(1, vm(1).1), (2, vm(2).1)],
        floats: vec![([91, 208, 23, 11], 1)],
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
    node.identify(5, &[(None, "10.0.0.5/32".parse().unwrap())]);
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
    .into_iter()
    .chain(liars())
    .collect()
}

/// What VM 5 may not send as, one of each kind; tests/spoof.rs has many.
fn liars() -> Vec<(DropReason, u16, Vec<u8>)> {
    let own = link_local(vm_mac(5));
    let six = |src, next, payload: &[u8]| {
        let all = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        ipv6((vm_mac(5), src), (MacAddr([0x33, 0x33, 0, 0, 0, 1]), all), next, payload)
    };
    let stolen = discovery(136, link_local(vm_mac(1)), vm_mac(5));
    let server = udp((vm(5).0, vm(5).1, 67), (vm(1).0, vm(1).1, 68), &[0; 240]);
    let lies = [
        (DropReason::SpoofedMac, echo((vm_mac(1), vm(5).1), vm(2), true, 1)),
        (DropReason::SpoofedIpv4, echo((vm_mac(5), vm(1).1), vm(2), true, 1)),
        (DropReason::SpoofedArp, arp_reply((vm_mac(5), vm(1).1), vm(2))),
        (DropReason::SpoofedIpv6, six(link_local(vm_mac(1)), 59, &[])),
        (DropReason::SpoofedNd, six(own, 58, &stolen)),
        (DropReason::RogueDhcp, server),
        (DropReason::RogueRa, six(own, 58, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0])),
        (DropReason::HiddenIpv6, six(own, 0, &[58, 1, 0, 0, 0, 0, 0, 0])),
    ];
    lies.map(|(reason, frame)| (reason, WALLED, frame)).into()
}

/// From VM 2 to anywhere, by the gateway.
fn out(to: [u8; 4], sport: u16) -> Vec<u8> {
    udp((vm(2).0, vm(2).1, sport), (GATEWAY_MAC, to, 53), b"question")
}

fn with_ttl_1(mut frame: Vec<u8>) -> Vec<u8> {
    while frame[22] > 1 {
        wire::rewrite::decrement_ttl(&mut frame, 14);
    }
    frame
}

/// The first piece of a larger datagram.
fn fragment(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] |= 0x20;
    frame
}

/// The same cut within its UDP header.
fn tiny(mut frame: Vec<u8>) -> Vec<u8> {
    frame[16..18].copy_from_slice(&27u16.to_be_bytes());
    fragment(frame)
}

/// ICMP that asks for the time, which is no echo.
fn timestamp() -> Vec<u8> {
    let mut frame = echo(vm(2), (GATEWAY_MAC, OUTSIDE), true, 1);
    frame[34] = 13;
    frame
}

/// Takes away what the port may still be told.
fn hush(node: &mut Node) {
    for _ in 0..60 {
        node.receive(id(VIF2), &with_ttl_1(out([8, 8, 8, 8], 1)));
    }
}

const OUTSIDE: [u8; 4] = [8, 8, 8, 8];

/// A situation for every reason that takes more than a frame: the node, the port and the frame.
fn situations() -> Vec<(DropReason, Node, u16, Vec<u8>)> {
    let segment = |number| tables::SegmentId::new(number).unwrap();
    let hushed = || {
        let mut node = node();
        hush(&mut node);
        node
    };
    let mut nobody = hushed();
    nobody.neighbour(segment(1), [10, 0, 0, 99], Neighbour::Failed);
    let mut narrow = hushed();
    let mut ports: Vec<Port> = narrow.tables.topology.ports().cloned().collect();
    ports.iter_mut().filter(|port| port.id == id(PUBLIC)).for_each(|port| port.mtu = 30);
    let segments = narrow.tables.topology.segments().cloned().collect();
    narrow.tables.topology = Arc::new(Topology::new(ports, segments));
    let mut lost = hushed();
    lost.tables.routes = Arc::default();
    let mut one_port = node();
    let mut nat = tables::Nat::clone(&one_port.tables.nat);
    nat.ports = 30_000..=30_000;
    one_port.tables.nat = Arc::new(nat);
    one_port.receive(id(VIF2), &out(OUTSIDE, 30_000));
    let mut closed = node();
    let ways = Some(Vec::new());
    closed.tables.policy = Arc::new(tables::Policy { ways, ..tables::Policy::default() });
    let mut small = node();
    small.flows = conntrack::Table::in_memory(4, 1);
    for sport in 1..4 {
        small.receive(id(VIF2), &out(OUTSIDE, sport));
    }
    let mut hasty = node();
    // One a second: the one saved up, and the one that is waited for then.
    hasty.limit(2, tables::Limits { opening_cost: 1_000_000, ..tables::Limits::default() });
    for sport in 1..3 {
        hasty.receive(id(VIF2), &out(OUTSIDE, sport));
    }
    let mut noisy = node();
    noisy.limit(2, tables::Limits { flood_cost: 1_000_000, ..tables::Limits::default() });
    let to_all = ipv6_multicast(vm_mac(2));
    for _ in 0..2 {
        noisy.receive(id(VIF2), &to_all);
    }
    let mut greedy = node();
    greedy.limit(2, tables::Limits { connections: 1, ..tables::Limits::default() });
    greedy.receive(id(VIF2), &out(OUTSIDE, 1));
    let mut eager = node();
    eager.limit(2, tables::Limits { shared: 1, ..tables::Limits::default() });
    eager.receive(id(VIF2), &out(OUTSIDE, 1));
    let stranger = udp((vm(2).0, [172, 16, 0, 1], 1), (GATEWAY_MAC, OUTSIDE, 53), b"?");
    let reply = echo(vm(2), (GATEWAY_MAC, OUTSIDE), false, 1);
    let mut stolen = node();
    stolen.receive(id(VIF2), &fragment(out(OUTSIDE, 1)));
    vec![
        (DropReason::Ttl, hushed(), VIF2, with_ttl_1(out(OUTSIDE, 1))),
        (DropReason::NoRoute, lost, VIF2, out(OUTSIDE, 2)),
        (DropReason::NoNeighbour, nobody, VIF2, out([10, 0, 0, 99], 1)),
        (DropReason::NeedsFragments, narrow, VIF2, out(OUTSIDE, 2)),
        (DropReason::NoSource, node(), VIF2, stranger),
        (DropReason::NoPorts, one_port, VIF2, out(OUTSIDE, 30_001)),
        (DropReason::Untranslatable, node(), VIF2, timestamp()),
        (DropReason::TinyFragment, node(), VIF2, tiny(out(OUTSIDE, 1))),
        (DropReason::FragmentConflict, stolen, VIF2, fragment(out(OUTSIDE, 2))),
        (DropReason::Unrelated, node(), VIF2, reply),
        (DropReason::HostDenied, node(), VIF2, out([91, 207, 15, 105], 1)),
        (DropReason::ForwardDenied, closed, VIF2, out(OUTSIDE, 1)),
        (DropReason::TableFull, small, VIF2, out(OUTSIDE, 4)),
        (DropReason::OpeningRate, hasty, VIF2, out(OUTSIDE, 3)),
        (DropReason::FloodRate, noisy, VIF2, to_all),
        (DropReason::Quota, greedy, VIF2, out(OUTSIDE, 2)),
        (DropReason::SnatQuota, eager, VIF2, out(OUTSIDE, 2)),
        revoked(),
        walled(),
    ]
    .into_iter()
    .chain(dhcp())
    .collect()
}

/// Requests and answers that nobody is to hear, on a node that answers its own VMs.
fn dhcp() -> Vec<(DropReason, Node, u16, Vec<u8>)> {
    let serving = || {
        let mut node = node();
        node.serve_dhcp(tables::Dhcp::Node);
        node
    };
    let all = |port| (MacAddr::BROADCAST, [255; 4], port);
    let ask = |mac| udp((mac, [0; 4], 68), all(67), &[1; 300]);
    let answer = udp((vm(2).0, vm(2).1, 67), all(68), &[2; 300]);
    let mut asked = serving();
    while asked.receive(id(VIF2), &ask(vm_mac(2))).0 == Verdict::Taken {
        let _ = asked.learner.asked().count();
    }
    vec![
        (DropReason::DhcpUnknown, serving(), VIF2, ask(vm_mac(9))),
        (DropReason::DhcpElsewhere, serving(), TRUNK, tag(&ask(vm_mac(9)), 100)),
        (DropReason::DhcpServer, serving(), VIF2, answer),
        (DropReason::DhcpLimit, asked, VIF2, ask(vm_mac(2))),
        (DropReason::DhcpMalformed, serving(), VIF2, fragment(ask(vm_mac(2)))),
    ]
}

/// VM 1 answers who asked its floating address when that has gone elsewhere.
fn revoked() -> (DropReason, Node, u16, Vec<u8>) {
    let mut node = node();
    let float = [91, 208, 23, 11];
    let public = node.tables.topology.mac(id(PUBLIC));
    let ask = udp((testkit::ROUTER.mac, OUTSIDE, 5), (public, float, 53), b"?");
    assert!(matches!(node.receive(id(PUBLIC), &ask).0, Verdict::Forward(_)));
    node.tables.nat = Arc::default();
    let mut ports: Vec<Port> = node.tables.topology.ports().cloned().collect();
    ports.iter_mut().filter(|port| port.id == id(VIF1)).for_each(|port| port.stamp = 2);
    let segments = node.tables.topology.segments().cloned().collect();
    node.tables.topology = Arc::new(Topology::new(ports, segments));
    let answer = udp((vm(1).0, vm(1).1, 53), (GATEWAY_MAC, OUTSIDE, 5), b"!");
    (DropReason::Revoked, node, VIF1, answer)
}

/// VM 1 has no security group, and VM 2 is not of its network.
fn walled() -> (DropReason, Node, u16, Vec<u8>) {
    let mut node = node();
    let walls = vec![(id(VIF1), tables::Wall::default())];
    node.tables.walls = Arc::new(tables::Walls::new(Arc::default(), walls, true));
    (DropReason::SecurityGroup, node, VIF2, echo(vm(2), vm(1), true, 1))
}

/// Reasons that dataplane and control thread give, not the pipeline.
const ELSEWHERE: [DropReason; 6] = [
    DropReason::HoldFull,
    DropReason::HeldQuota,
    DropReason::Unresolved,
    DropReason::NoMemory,
    DropReason::FragmentAlone,
    DropReason::FragmentsFull,
];

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
    for (reason, mut node, port, frame) in situations() {
        let counter =
            |node: &Node| node.counters.port(id(port)).dropped[reason as usize].load(Relaxed);
        let before = counter(&node);
        assert_eq!(node.receive(id(port), &frame).0, Verdict::Drop(reason), "{}", reason.name());
        assert_eq!(counter(&node), before + 1, "{}", reason.name());
        *met.entry(reason).or_default() += 1;
    }
    for reason in DropReason::ALL.into_iter().filter(|reason| !ELSEWHERE.contains(reason)) {
        assert_eq!(met.get(&reason), Some(&1), "nothing meets {}", reason.name());
    }
}

fn pipeline(node: &mut Node) -> Pipeline<'_> {
    Pipeline {
        tables: &node.tables,
        flows: &node.flows,
        fragments: &node.fragments,
        now: node.now,
        counters: &node.counters,
        now_ms: 0,
        learner: &mut node.learner,
        limiter: &mut node.limiter,
    }
}

/// Whole frames to mutate.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = culprits().into_iter().map(|(_, _, frame)| frame).collect();
    seeds.push(datagram());
    seeds.push(tcp((vm(1).0, vm(1).1, 40000), (vm(2).0, vm(2).1, 22), 2, b"GET"));
    seeds.push(echo(vm(2), vm(1), false, 1));
    seeds.push(ipv6_multicast(vm_mac(2)));
    seeds.extend(situations().into_iter().map(|(_, _, _, frame)| frame));
    seeds.push(out([10, 1, 0, 9], 7));
    seeds.push(out([91, 208, 23, 11], 7));
    seeds.push(echo(vm(1), (GATEWAY_MAC, [10, 0, 0, 254]), true, 7));
    let public = node().tables.topology.mac(id(PUBLIC));
    let router = testkit::ROUTER;
    seeds.push(tcp((router.mac, OUTSIDE, 1), (public, [91, 208, 23, 11], 22), 2, b""));
    seeds.push(arp_request((router.mac, router.address), [91, 208, 23, 11]));
    seeds.push(arp_reply(vm(2), (GATEWAY_MAC, [10, 0, 0, 254])));
    let mut error = [out(OUTSIDE, 7), vec![0; 64]].concat();
    let kind = wire::IcmpError::TimeExceeded;
    let (_, len) = wire::icmp::error(&mut error, 0, 50, 14, kind, router).unwrap();
    seeds.push(error[..len].to_vec());
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
    let ports = [TRUNK, PUBLIC, VIF1, VIF2, VIF2, LOST, XDP, WALLED, WALLED, 99, 101];
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"trunkline, a million odd frames!");
    let seeds = seeds();
    let mut node = node();
    let mut chunks = vec![[0u8; 2048]; 32];
    let mut sent = 0;
    while sent < FRAMES {
        node.now += 1;
        // The second half meets security groups that let nothing in.
        if sent >= FRAMES / 2 && !node.tables.walls.stand() {
            let walls = [VIF1, VIF2].map(|port| (id(port), tables::Wall::default()));
            node.tables.walls = Arc::new(tables::Walls::new(Arc::default(), walls.into(), true));
        }
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
                // What is routed may go back where it came from: a VM's own floating address.
                assert!(port != packet.ingress || packet.routed, "reflected");
                assert!(node.tables.topology.port(port).is_some());
            }
        }
        sent += batch.len();
        let _ = node.learner.notices().count();
    }
    let counters = &node.counters;
    let verdicts = node.verdicts();
    assert_eq!(verdicts.iter().sum::<u64>(), sent as u64);
    assert!(verdicts.iter().all(|count| *count > 1000), "{verdicts:?}");
    let drop = counters.drop.load(Relaxed);
    let mut by_reason: HashMap<&str, u64> = HashMap::new();
    for port in BTreeSet::from(ports) {
        for reason in DropReason::ALL {
            let count = counters.port(id(port)).dropped[reason as usize].load(Relaxed);
            *by_reason.entry(reason.name()).or_default() += count;
        }
    }
    assert_eq!(by_reason.values().sum::<u64>(), drop);
    // What takes more than a frame is met above; everything else must have been met by chance too.
    let rare = situations().into_iter().map(|(reason, ..)| reason.name());
    let mut rare: Vec<&str> = rare.chain(ELSEWHERE.map(DropReason::name)).collect();
    rare.push(DropReason::NoRoom.name());
    let missing = by_reason.iter().filter(|(name, count)| **count == 0 && !rare.contains(name));
    assert_eq!(missing.count(), 0, "{by_reason:?}");
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
