//! What security groups cost a new connection: `cargo bench -p benches --bench groups`.
//!
//! `judge` is the question alone, in a group of that many rules: a third of all senders are members of
//! groups (4,096 members in all) that a tenth of the rules name, a third have an address of some
//! prefix, the others of none; `judge_cold` asks it when 2 MB of other things went through the caches
//! since the last 32 times. `first_packet` is the pipeline's whole work for the first packet of
//! a connection from the trunk to a VM, in batches of 32; with 0 rules nothing stands before the VM.
//! What is established never asks, so `hit` of the bench `pipeline` holds with groups as well.

use std::sync::Arc;

use benches::{BATCH, scatter};
use conntrack::Table;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ipnet::Ipv4Net;
use pipeline::{Packet, Verdict};
use tables::{Ask, Group, Groups, Origin, PortId, Rule, Wall, Walls, ZoneId};
use testkit::{Node, NodePlan, udp, vm_mac};

const RULES: [u32; 3] = [10, 1_000, 10_000];
/// Room before and behind a frame, and a frame with its tag.
const ROOM: usize = 64;
const FRAME: usize = 64;
const CHUNK: usize = ROOM + FRAME + ROOM;

fn main() {
    divan::main();
}

fn id(number: u16) -> PortId {
    PortId::new(number).unwrap_or(PortId::NONE)
}

fn zone() -> ZoneId {
    ZoneId::new(1).unwrap_or(ZoneId::NONE)
}

/// The last rule lets in UDP 53 from everybody.
fn walls(count: u32) -> Walls {
    let rule = |at: u32| {
        let (one, two) = (scatter(at) as u16, scatter(at ^ 0x1234_5678) as u16);
        let address = 10 << 24 | scatter(at ^ 0x0f0f_0f0f) & 0x00ff_ffff;
        let length = 16 + (scatter(at ^ 0x3333_3333) % 17) as u8;
        let from = match (at % 10, Ipv4Net::new(address.into(), length)) {
            (1..10, Ok(net)) => Origin::Prefix(net.trunc().into()),
            _ => Origin::Members(1 + at % 16),
        };
        let protocol = Some(if at.is_multiple_of(3) { 17 } else { 6 });
        Rule { protocol, first: one.min(two), last: one.max(two), from }
    };
    let dns = Rule { protocol: Some(17), first: 53, last: 53, from: Origin::ANYBODY };
    let rules: Vec<Rule> = (1..count).map(rule).chain([dns]).collect();
    let mut groups = vec![(Arc::new(Group::new("large", &rules)), Vec::new())];
    for number in 0..16u32 {
        let address = |at: u32| (172 << 24 | number << 8 | at).to_be_bytes().into();
        let members = (0..256).map(|at| (zone(), address(at)));
        groups.push((Arc::new(Group::new("members", &[])), members.collect()));
    }
    let wall = Wall { zone: zone(), groups: [0].into(), ..Wall::default() };
    Walls::new(Arc::new(Groups::new(groups)), vec![(id(11), wall)], true)
}

fn ask(number: u32) -> Ask {
    let source = match number % 3 {
        0 => 172 << 24 | scatter(number) & 0xfff,
        1 => 10 << 24 | scatter(number) & 0x00ff_ffff,
        _ => scatter(number),
    };
    let source = source.to_be_bytes().into();
    Ask {
        zone: zone(),
        source,
        seen: source,
        protocol: 6,
        source_port: 40_000,
        port: Some(scatter(number ^ 0x5555_5555) as u16),
        bridged: true,
    }
}

#[divan::bench(args = RULES, sample_count = 1000, sample_size = 32)]
fn judge(bencher: Bencher<'_, '_>, rules: u32) {
    let walls = walls(rules);
    let asks: Vec<Ask> = (0..65_536).map(ask).collect();
    let mut batches = asks.chunks_exact(BATCH).cycle();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let batch = batches.next().unwrap_or_default();
        black_box(batch.iter().filter(|ask| walls.judge(id(11), ask).is_some()).count())
    });
}

#[divan::bench(args = RULES, sample_count = 2000, sample_size = 1)]
fn judge_cold(bencher: Bencher<'_, '_>, rules: u32) {
    let walls = walls(rules);
    let asks: Vec<Ask> = (0..65_536).map(ask).collect();
    let mut batches = asks.chunks_exact(BATCH).cycle();
    let mut others = vec![0u64; 2 << 20 >> 3];
    let next = || {
        others.iter_mut().step_by(8).for_each(|line| *line += 1);
        batches.next().unwrap_or_default()
    };
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(next).bench_local_values(|batch| {
        black_box(batch.iter().filter(|ask| walls.judge(id(11), ask).is_some()).count())
    });
}

#[divan::bench(args = [0, 10, 1_000, 10_000], sample_count = 200, sample_size = 8)]
fn first_packet(bencher: Bencher<'_, '_>, rules: u32) {
    let mut node = Node::new(&NodePlan {
        segments: vec![(1, None)],
        vifs: vec![(1, 1)],
        known: true,
        ..NodePlan::default()
    });
    node.flows = Table::in_memory(Table::lines_for(131_072), 0x5eed_5eed_5eed);
    if rules > 0 {
        node.tables.walls = Arc::new(walls(rules));
    }
    let from = (vm_mac(9), [10, 0, 0, 9], 0);
    let template = udp(from, (vm_mac(1), [10, 0, 0, 1], 53), &[0; FRAME - 42]);
    let mut chunks = [[0u8; CHUNK]; BATCH];
    let mut opened = 0u32;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for chunk in &mut chunks {
            let frame = &mut chunk[ROOM..ROOM + FRAME];
            frame.copy_from_slice(&template);
            // 10.x.y.z, port 1024 + n.
            let [_, a, b, c] = (opened >> 4).to_be_bytes();
            frame[27..30].copy_from_slice(&[a, b, c]);
            frame[34..36].copy_from_slice(&(1024 + (opened & 15) as u16).to_be_bytes());
            opened += 1;
        }
        let mut batch = chunks.each_mut().map(|chunk| Packet::new(chunk, ROOM, FRAME, id(1)));
        node.pipeline().forward(&mut batch);
        let sent = |packet: &&Packet<'_>| matches!(packet.verdict, Some(Verdict::Forward(_)));
        assert_eq!(batch.iter().filter(sent).count(), BATCH, "all come in");
    });
}
