//! Frames that wait until their neighbour is known, a few for each and not for long.

use std::collections::VecDeque;

use af_xdp::Frame;
use tables::{Link, PortId, Snapshot};

/// Frames that wait at one worker.
const ROOM: usize = 256;
/// Frames that wait for one neighbour: a ping, and what a TCP connection sends at first.
const EACH: usize = 16;
/// How long one waits, milliseconds: asking takes three seconds before it is given up.
const PATIENCE_MS: u64 = 5000;

/// A frame that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) frame: Frame,
    pub(crate) ingress: PortId,
    wanted: (Link, [u8; 4]),
    since_ms: u64,
}

/// All that wait, oldest first.
#[derive(Debug)]
pub(crate) struct Hold {
    frames: VecDeque<Held>,
    /// The tables they were last held against.
    generation: u64,
}

impl Default for Hold {
    fn default() -> Self {
        Self { frames: VecDeque::with_capacity(ROOM), generation: 0 }
    }
}

impl Hold {
    /// Number of frames that wait.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Has a frame wait; gives back the oldest one where it takes its room.
    pub(crate) fn put(
        &mut self,
        frame: Frame,
        ingress: PortId,
        wanted: (Link, [u8; 4]),
        now_ms: u64,
    ) -> Option<Held> {
        let mut same = (0..self.frames.len())
            .filter(|at| self.frames.get(*at).is_some_and(|held| held.wanted == wanted));
        let oldest = match (same.next(), same.count() + 1) {
            (Some(first), EACH..) => self.frames.remove(first),
            _ if self.frames.len() == ROOM => self.frames.pop_front(),
            _ => None,
        };
        self.frames.push_back(Held { frame, ingress, wanted, since_ms: now_ms });
        oldest
    }

    /// Takes out one frame whose neighbour has become known, if the tables have changed.
    pub(crate) fn take_known(&mut self, tables: &Snapshot) -> Option<Held> {
        if self.frames.is_empty() || self.generation == tables.generation {
            return None;
        }
        let known = |held: &Held| {
            let (link, address) = held.wanted;
            tables.neighbours.on(link, address).is_some()
        };
        match self.frames.iter().position(known) {
            Some(at) => self.frames.remove(at),
            None => {
                self.generation = tables.generation;
                None
            }
        }
    }

    /// Takes out one frame that has waited too long.
    pub(crate) fn take_old(&mut self, now_ms: u64) -> Option<Held> {
        let is_old = |held: &mut Held| now_ms.saturating_sub(held.since_ms) > PATIENCE_MS;
        self.frames.pop_front_if(is_old)
    }
}
