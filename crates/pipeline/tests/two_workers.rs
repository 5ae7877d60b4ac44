//! Two workers under one burst of equal keys and equal source ports.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::{BTreeMap, HashMap};
use std::sync::Barrier;

use conntrack::{Fragments, Table};
use pipeline::{Counters, Learner, Limiter, Packet, Pipeline, Verdict};
use tables::{GATEWAY_MAC, PortId, Snapshot};
use testkit::{Node, NodePlan, udp, vm_mac};

const LEFT: [u8; 4] = [91, 207, 15, 105];
/// Source ports of either VM towards each destination: together three quarters of those there are.
const EACH: u16 = 10_000;
/// More than 64 k connections through one address.
const DESTINATIONS: u8 = 6;
const BATCH: usize = 32;

fn node() -> Node {
    let plan = NodePlan {
        segments: vec![(1, Some(100)), (2, Some(102))],
        vifs: vec![(2, 1), (3, 2)],
        known: true,
        number: 1,
        gateways: vec![(1, [10, 0, 0, 1], false), (2, [10, 1, 0, 1], false)],
        public: Some(LEFT),
        addresses: vec![(2, [10, 0, 0, 4]), (3, [10, 1, 0, 3])],
        floats: Vec::new(),
    };
    let mut node = Node::new(&plan);
    node.flows = Table::in_memory(Table::lines_for(200_000), 7);
    node
}

/// Every packet of the burst: either VM, every source port, every destination.
fn burst() -> Vec<(u16, Vec<u8>)> {
    let mut burst = Vec::new();
    for last in 1..=DESTINATIONS {
        for port in 0..EACH {
            for (vm, address) in [(2, [10, 0, 0, 4]), (3, [10, 1, 0, 3])] {
                let from = (vm_mac(vm), address, 20_000 + port);
                let frame = udp(from, (GATEWAY_MAC, [8, 8, 8, last], 53), b"");
                burst.push((10 + u16::from(vm), frame));
            }
        }
    }
    burst
}

/// Packets that did not leave, by reason.
type Refused = BTreeMap<&'static str, usize>;

/// One worker: the whole burst, each batch at the same moment as the other's.
fn work(tables: &Snapshot, flows: &Table, burst: &[(u16, Vec<u8>)], together: &Barrier) -> Refused {
    let counters = Counters::default();
    let (mut learner, mut limiter) = (Learner::default(), Limiter::default());
    let fragments = &Fragments::new(7);
    let mut refused = BTreeMap::new();
    for part in burst.chunks(BATCH) {
        let mut chunks: Vec<Vec<u8>> =
            part.iter().map(|(_, frame)| [vec![0; 64], frame.clone()].concat()).collect();
        let mut batch: Vec<Packet<'_>> = chunks
            .iter_mut()
            .zip(part)
            .map(|(chunk, (port, frame))| {
                Packet::new(chunk, 64, frame.len(), PortId::new(*port).unwrap())
            })
            .collect();
        together.wait();
        let (now, now_ms) = (1000, 1_000_000);
        let (learner, limiter) = (&mut learner, &mut limiter);
        let counters = &counters;
        Pipeline { tables, flows, fragments, now, now_ms, counters, learner, limiter }
            .forward(&mut batch);
        for packet in &batch {
            match packet.verdict.unwrap() {
                Verdict::Forward(_) => {}
                Verdict::Drop(reason) => *refused.entry(reason.name()).or_default() += 1,
                other => panic!("{other:?}"),
            }
        }
        learner.notices().for_each(drop);
    }
    refused
}

#[test]
fn no_line_is_there_twice_and_no_answer_reaches_the_wrong_vm() {
    let node = node();
    let burst = burst();
    let together = Barrier::new(2);
    let refused = std::thread::scope(|scope| {
        let one = scope.spawn(|| work(&node.tables, &node.flows, &burst, &together));
        let two = scope.spawn(|| work(&node.tables, &node.flows, &burst, &together));
        [one.join().unwrap(), two.join().unwrap()]
    });
    let mut originals = HashMap::new();
    let mut answers = HashMap::new();
    for index in 0..node.flows.len() {
        let Some(flow) = node.flows.at(index) else { continue };
        let seen = if flow.is_reply() { &mut answers } else { &mut originals };
        assert!(seen.insert(flow.key(), flow).is_none(), "two lines of {:?}", flow.key());
    }
    assert_eq!((originals.len(), answers.len()), (burst.len(), burst.len()), "{refused:?}");
    let mut kept = 0;
    for (key, flow) in &originals {
        let rewrite = flow.rewrite();
        let port = if rewrite.source_port == 0 { key.sport() } else { rewrite.source_port };
        kept += usize::from(port == key.sport());
        let back = conntrack::FlowKey::ipv4(key.dst(), LEFT, key.dport(), port, 17, 2, 0);
        let answer = answers.get(&back).unwrap_or_else(|| panic!("nobody answers {key:?}"));
        let to = answer.rewrite();
        assert_eq!((answer.partner(), to.destination), (flow.index(), key.src()));
        let own = if to.destination_port == 0 { port } else { to.destination_port };
        assert_eq!(own, key.sport());
    }
    // Of two VMs with one source port the first keeps it, unless a search has taken it before.
    assert!(kept * 2 >= burst.len() / 2, "{kept} of {} kept their port", burst.len());
}
