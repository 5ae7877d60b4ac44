//! Strings of frames through the whole pipeline of the left node: each has one verdict that is
//! counted, and what leaves has checksums that are right exactly where they were right before.
//!
//! A frame is a byte that says what it is, and then: of a whole one that is mutated, which, and
//! some pairs of place and value; of any other, its port and length, and its bytes.

use std::cell::RefCell;
use std::sync::LazyLock;

use conntrack::{Fragments, Table};
use pipeline::{Learner, Limiter, Packet, Verdict};
use tables::PortId;
use testkit::World;
use testkit::seeds::{PORTS, Seed, checksums, mend, seeds, world};

const HEADROOM: usize = 64;
const CHUNK: usize = 2048;
/// Frames of one input.
const FRAMES: usize = 64;
/// Lines of the table: few, so that they are taken again.
const LINES: usize = 64;

/// Bits of the first byte.
const RAW: u8 = 0x80;
const MEND: u8 = 0x40;
const LATER: u8 = 0x20;
const CUT: u8 = 0x10;
const MUTATIONS: u8 = 0x07;

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(seeds);

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(world("fuzz"));
}

/// The bytes that are left.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Writes the next frame into `room`: its port, its length, and whether time passes before it.
    fn frame(&mut self, room: &mut [u8]) -> Option<(u16, usize, bool)> {
        let what = self.byte()?;
        let (port, mut len) = if what & RAW != 0 {
            let port = PORTS[usize::from(self.byte()?) % PORTS.len()];
            let len = usize::from(self.byte()?).min(self.0.len());
            let (bytes, rest) = self.0.split_at(len);
            room[..len].copy_from_slice(bytes);
            self.0 = rest;
            (port, len)
        } else {
            let which = u16::from_be_bytes([self.byte()?, self.byte()?]);
            let (port, seed) = &SEEDS[usize::from(which) % SEEDS.len()];
            room[..seed.len()].copy_from_slice(seed);
            (*port, seed.len())
        };
        for _ in 0..what & MUTATIONS {
            let (at, value) = (usize::from(self.byte()?), self.byte()?);
            if let Some(byte) = room[..len].get_mut(at) {
                *byte = value;
            }
        }
        if what & CUT != 0 {
            len = len.min(usize::from(self.byte()?));
        }
        if what & MEND != 0 {
            mend(&mut room[..len]);
        }
        Some((port, len, what & LATER != 0))
    }
}

pub(crate) fn run(bytes: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        let node = &mut world.left;
        (node.now, node.flows) = (1000, Table::in_memory(LINES, 0x5eed));
        (node.fragments, node.limiter) = (Fragments::new(0x5eed), Limiter::default());
        node.learner = Learner::default();
        let mut input = Input(bytes);
        let mut chunk = [0; CHUNK];
        for _ in 0..FRAMES {
            let Some((port, len, later)) = input.frame(&mut chunk[HEADROOM..]) else { break };
            node.now += if later { 7 } else { 0 };
            let before = checksums(&chunk[HEADROOM..HEADROOM + len]);
            let counted: u64 = node.verdicts().iter().sum();
            let ingress = PortId::new(port).expect("ports of the world have numbers");
            let mut batch = [Packet::new(&mut chunk, HEADROOM, len, ingress)];
            node.pipeline().forward(&mut batch);
            let verdict = batch[0].verdict.expect("every packet has a verdict");
            if let Verdict::Forward(_) = verdict {
                assert_eq!(checksums(batch[0].bytes()), before, "{verdict:?}");
            }
            assert_eq!(node.verdicts().iter().sum::<u64>(), counted + 1, "{verdict:?}");
            let _ = node.learner.notices().count();
        }
    });
}
