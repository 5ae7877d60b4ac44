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

#[cfg(test)]
mod tests {
    use super::*;
    use af_xdp::{LocalPool, Umem, UmemConfig};
    use std::sync::Arc;
    use tables::{Neighbour, Neighbours, SegmentId};
    use wire::MacAddr;

    fn pool() -> LocalPool {
        let config = UmemConfig { chunk: 2048, frames: 1024, huge_pages: false };
        Umem::new(&config).unwrap().pool()
    }

    fn wanted(last: u8) -> (Link, [u8; 4]) {
        (Link::Segment(SegmentId::new(1).unwrap()), [10, 0, 0, last])
    }

    fn port(number: u16) -> PortId {
        PortId::new(number).unwrap()
    }

    /// Tables of that generation in which these are known.
    fn tables(generation: u64, known: &[u8]) -> Snapshot {
        let mut neighbours = Neighbours::default();
        for last in known {
            let (_, address) = wanted(*last);
            let at = Neighbour::At(MacAddr([2, 0, 0, 0, 0, *last]));
            neighbours.insert(SegmentId::new(1).unwrap(), address, at);
        }
        Snapshot { generation, neighbours: Arc::new(neighbours), ..Snapshot::default() }
    }

    #[test]
    fn frames_go_on_in_their_order_once_their_neighbour_is_known() {
        let (mut pool, mut hold) = (pool(), Hold::default());
        for (ingress, last) in [(1, 7), (2, 8), (3, 7)] {
            let frame = pool.take().unwrap();
            assert!(hold.put(frame, port(ingress), wanted(last), 0).is_none());
        }
        assert!(hold.take_known(&tables(1, &[])).is_none());
        let now = tables(2, &[7]);
        let gone: Vec<_> = std::iter::from_fn(|| hold.take_known(&now)).collect();
        let ports: Vec<u16> = gone.iter().map(|held| held.ingress.get()).collect();
        assert_eq!((ports, hold.len()), (vec![1, 3], 1));
        gone.into_iter().for_each(|held| pool.give(held.frame));
        let last = hold.take_known(&tables(3, &[8])).unwrap();
        pool.give(last.frame);
    }

    #[test]
    fn a_neighbour_holds_so_many_and_all_together_not_more_than_there_is_room_for() {
        let (mut pool, mut hold) = (pool(), Hold::default());
        let mut out = 0;
        for _ in 0..EACH + 3 {
            let frame = pool.take().unwrap();
            if let Some(oldest) = hold.put(frame, port(1), wanted(7), 0) {
                out += 1;
                pool.give(oldest.frame);
            }
        }
        assert_eq!((hold.len(), out), (EACH, 3));
        for last in 8..=255 {
            for _ in 0..2 {
                let frame = pool.take().unwrap();
                if let Some(oldest) = hold.put(frame, port(1), wanted(last), 0) {
                    pool.give(oldest.frame);
                }
            }
        }
        assert_eq!(hold.len(), ROOM);
        while let Some(held) = hold.take_old(PATIENCE_MS + 1) {
            pool.give(held.frame);
        }
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut pool, mut hold) = (pool(), Hold::default());
        assert!(hold.put(pool.take().unwrap(), port(1), wanted(7), 1000).is_none());
        assert!(hold.take_old(1000 + PATIENCE_MS).is_none());
        let old = hold.take_old(1001 + PATIENCE_MS).unwrap();
        assert_eq!((old.ingress, hold.len()), (port(1), 0));
        pool.give(old.frame);
    }
}
