//! The three of them, each with a table of its own that has the same lines.

use std::os::fd::AsFd as _;

use conntrack::layout::PATH_KNOWN;
use conntrack::{Flow, FlowKey, Fragments, Installed, NewLine, Rewrite, Table};
use kernel::Settings;
use pipeline::{Counters, Learner, Limiter, Packet, Pipeline, Verdict};
use tables::{PortId, Snapshot};

use crate::case::{Case, Spoil};
use crate::common::run::{SkBuff, run, run_skb};
use crate::common::traced::Traced;
use crate::{frame, judge, world};

const LINES: u32 = 64;
pub const HASH_KEY: u64 = 0x5eed_5eed_5eed;
const HEADROOM: usize = 64;

/// Where a frame went, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    pub port: u16,
    pub frame: Vec<u8>,
}

/// What one executor did: the frame it sent, and the line after it.
#[derive(Clone, Debug)]
pub struct Done {
    pub out: Option<Out>,
    pub line: Option<Flow>,
}

#[derive(Debug)]
pub struct Ran {
    /// What the workers' says; it may be anything but a replay.
    pub verdict: Option<Verdict>,
    /// The headers as the workers read them.
    pub headers: Option<wire::Headers>,
    pub rust: Done,
    pub xdp: Done,
    pub tc: Done,
}

pub struct Executors {
    snapshot: Snapshot,
    table: Table,
    counters: Counters,
    learner: Learner,
    limiter: Limiter,
    fragments: Fragments,
    xdp: Traced,
    tc: Traced,
}

/// The port a frame was sent to, and the tag it got.
fn sent(node: &Traced) -> Option<(u16, u16)> {
    let trace = node.trace();
    (trace.replayed == 1).then_some((trace.egress as u16, trace.vlan as u16))
}

fn run_xdp(node: &mut Traced, case: &Case) -> Option<Out> {
    node.begin(0);
    let ran = run(node.xdp.as_fd(), &case.frame());
    sent(node).map(|(port, _)| Out { port, frame: ran.frame })
}

/// A tag of ours is beside the frame in tc, on the way in and on the way out.
fn run_tc(node: &mut Traced, case: &Case) -> Option<Out> {
    // A test run takes no IP packet whose header is cut; nobody forwards one.
    let untagged = case.untagged();
    let whole = match untagged.get(12..14) {
        Some([0x08, 0x00]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => 14,
    };
    // And none of more than a page.
    if untagged.len() < whole || case.frame().len() > judge::PAGE {
        return None;
    }
    let beside = case.tag().filter(|(protocol, _)| *protocol == 0x8100);
    let (program, frame, push) = match beside {
        Some((_, vlan)) if case.spoil != Spoil::DoubleTag => {
            (&node.tc_tagged, case.untagged(), vlan)
        }
        _ => (&node.tc, case.frame(), 0),
    };
    let program = program.try_clone().unwrap();
    node.begin(push);
    let ran = run_skb(program.as_fd(), &frame, SkBuff::default()).0;
    sent(node).map(|(port, vlan)| {
        let frame = match vlan {
            0 => ran.frame,
            vlan => frame::tagged(&ran.frame, 0x8100, vlan),
        };
        Out { port, frame }
    })
}

/// Seconds on the clock that the programs read.
fn now() -> u32 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the structure it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u32
}

/// Puts the case's connection into a table; gives the packet's direction.
fn install(table: &Table, case: &Case, now: u32) -> Option<(Flow, Flow)> {
    if case.spoil == Spoil::NoLine {
        return None;
    }
    let elsewhere = FlowKey::ipv4([1; 4], [2; 4], 1, 2, 17, 4000, 4000);
    let mine = NewLine { key: case.key(), rewrite: case.rewrite() };
    let other =
        NewLine { key: elsewhere, rewrite: Rewrite { flags: PATH_KNOWN, ..Rewrite::default() } };
    let (first, second) = if case.reply { (&other, &mine) } else { (&mine, &other) };
    let seen = now.saturating_sub(case.silent);
    let opened = table.install(first, second, case.stamp(), seen).unwrap();
    let Installed::New { original, reply } = opened else { panic!("{opened:?}") };
    let (flow, other) = if case.reply { (reply, original) } else { (original, reply) };
    if case.bits != 0 {
        table.touch(&flow, seen, case.bits);
    }
    Some((flow, other))
}

impl Executors {
    pub fn start() -> Self {
        let settings = Settings {
            lines: LINES,
            hash_key: HASH_KEY,
            tcx: true,
            replays: true,
            continues: None,
        };
        let [xdp, tc] = ["agree-xdp", "agree-tc"].map(|name| {
            let mut node = Traced::start(name, settings);
            world::tell(node.node.kernel());
            node
        });
        Self {
            snapshot: world::snapshot(),
            table: Table::in_memory(LINES as usize, HASH_KEY),
            counters: Counters::default(),
            learner: Learner::default(),
            limiter: Limiter::default(),
            fragments: Fragments::new(7),
            xdp,
            tc,
        }
    }

    pub fn run(&mut self, case: &Case) -> Ran {
        let now = now();
        self.xdp.be_on(case.arrival.0);
        self.tc.be_on(case.arrival.0);
        let flows =
            [&self.table, &self.xdp.table, &self.tc.table].map(|table| install(table, case, now));
        let (verdict, headers, frame) = self.run_rust(case, now);
        let out = match verdict {
            Some(Verdict::Forward(port)) => Some(Out { port: port.get(), frame }),
            _ => None,
        };
        let outs = [out, run_xdp(&mut self.xdp, case), run_tc(&mut self.tc, case)];
        let tables = [&self.table, &self.xdp.table, &self.tc.table];
        let mut done = outs.into_iter().zip(tables).zip(flows).map(|((out, table), flow)| {
            let line = flow.map(|(flow, _)| table.at(flow.index()).unwrap());
            if let Some((flow, other)) = flow {
                assert!(table.remove(if case.reply { &other } else { &flow }));
            }
            Done { out, line }
        });
        let mut next = || done.next().unwrap();
        Ran { verdict, headers, rust: next(), xdp: next(), tc: next() }
    }

    fn run_rust(
        &mut self,
        case: &Case,
        now: u32,
    ) -> (Option<Verdict>, Option<wire::Headers>, Vec<u8>) {
        let frame = case.frame();
        let mut chunk = vec![0; HEADROOM + frame.len()];
        chunk[HEADROOM..].copy_from_slice(&frame);
        let ingress = PortId::new(case.arrival.0).unwrap();
        let mut packet = Packet::new(&mut chunk, HEADROOM, frame.len(), ingress);
        let mut pipeline = Pipeline {
            tables: &self.snapshot,
            flows: &self.table,
            fragments: &self.fragments,
            now,
            now_ms: u64::from(now) * 1000,
            counters: &self.counters,
            learner: &mut self.learner,
            limiter: &mut self.limiter,
        };
        let verdict = pipeline.replay_known(&mut packet);
        (verdict, wire::parse(&frame).ok(), packet.bytes().to_vec())
    }
}
