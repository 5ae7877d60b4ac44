//! Frames that wait: for their neighbour to be known, or for the first fragment of their datagram.
//! A few for each, of one port half of what there is room for, and not for long.

use std::collections::VecDeque;

use af_xdp::Frame;
use conntrack::{FRAGMENT_LIFE_MS, FlowKey};
use tables::{Link, PortId};

/// A neighbour that frames wait for.
pub(crate) type Wanted = (Link, [u8; 4]);
/// Ports a node may have.
const PORTS: usize = 4096;

/// How much may wait at one worker, and how long.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Frames in all, and their bytes; of one port half of either.
    room: usize,
    bytes: usize,
    /// Frames for one thing, and their bytes.
    each: usize,
    each_bytes: usize,
    patience_ms: u64,
}

/// For a neighbour: a ping, and what a TCP connection sends at first. Asking takes three seconds
/// before it is given up.
const FOR_NEIGHBOURS: Limits =
    Limits { room: 256, bytes: usize::MAX, each: 16, each_bytes: usize::MAX, patience_ms: 5000 };

/// For a first fragment: the longest datagram there is, in pieces of 1100 bytes or more, and five
/// of those. Nobody sends a fragment again, so waiting long helps nobody.
const FOR_FRAGMENTS: Limits = Limits {
    room: 256,
    bytes: 384 << 10,
    each: 64,
    each_bytes: 72 << 10,
    patience_ms: FRAGMENT_LIFE_MS,
};

/// A frame that waits.
#[derive(Debug)]
pub(crate) struct Held<W> {
    pub(crate) frame: Frame,
    pub(crate) ingress: PortId,
    wanted: W,
    since_ms: u64,
}

/// Why a frame has to go before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Others need the room.
    Full,
    /// Of its port as many wait as may.
    Port,
}

/// All that wait for things of one kind, oldest first.
#[derive(Debug)]
pub(crate) struct Hold<W> {
    frames: VecDeque<Held<W>>,
    bytes: usize,
    limits: Limits,
    /// What was known when all were last looked through, as a number that changes with it.
    looked_at: u64,
}

impl Hold<Wanted> {
    /// Frames that wait for neighbours.
    pub(crate) fn for_neighbours() -> Self {
        Self::with(FOR_NEIGHBOURS)
    }
}

impl Hold<FlowKey> {
    /// Fragments that wait for the first of their datagram.
    pub(crate) fn for_fragments() -> Self {
        Self::with(FOR_FRAGMENTS)
    }
}

impl<W: PartialEq> Hold<W> {
    fn with(limits: Limits) -> Self {
        let frames = VecDeque::with_capacity(limits.room + 1);
        Self { frames, bytes: 0, limits, looked_at: 0 }
    }

    /// Number of frames that wait.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Has a frame wait. Then ask [`Hold::take_excess`] until there is none.
    pub(crate) fn put(&mut self, frame: Frame, ingress: PortId, wanted: W, now_ms: u64) {
        self.bytes += frame.len();
        self.frames.push_back(Held { frame, ingress, wanted, since_ms: now_ms });
    }

    /// Takes out one frame that must make room for the one that came last: the oldest for the same
    /// thing, the oldest of the same port, or the oldest of the port of which most wait.
    pub(crate) fn take_excess(&mut self) -> Option<(Held<W>, Excess)> {
        let (last, limits) = (self.frames.back()?, &self.limits);
        let (at, why) = if let Some(at) =
            self.oldest_beyond((limits.each, limits.each_bytes), |it| it.wanted == last.wanted)
        {
            (at, Excess::Full)
        } else if let Some(at) =
            self.oldest_beyond((limits.room / 2, limits.bytes / 2), |it| it.ingress == last.ingress)
        {
            (at, Excess::Port)
        } else if self.frames.len() > limits.room || self.bytes > limits.bytes {
            (self.oldest_of_most(), Excess::Full)
        } else {
            return None;
        };
        Some((self.take(at)?, why))
    }

    /// Where the oldest of these frames is, if there are more than so many, or of more bytes.
    fn oldest_beyond(
        &self,
        (most, most_bytes): (usize, usize),
        which: impl Fn(&Held<W>) -> bool,
    ) -> Option<usize> {
        let these = || self.frames.iter().filter(|held| which(held));
        let bytes: usize = these().map(|held| held.frame.len()).sum();
        let is_beyond = these().count() > most || bytes > most_bytes;
        if is_beyond { self.frames.iter().position(which) } else { None }
    }

    /// Where the oldest frame is of the port of which most wait: who floods costs himself first.
    #[cold]
    fn oldest_of_most(&self) -> usize {
        let mut counts = [0u16; PORTS];
        let mut most = PortId::NONE;
        for held in &self.frames {
            counts[held.ingress.index() % PORTS] += 1;
            if counts[held.ingress.index() % PORTS] > counts[most.index() % PORTS] {
                most = held.ingress;
            }
        }
        self.frames.iter().position(|held| held.ingress == most).unwrap_or_default()
    }

    /// Takes out the oldest frame for which what it wants is known, if anything is new: `news` is a
    /// number that changes whenever something becomes known, read before `is_known` looks.
    pub(crate) fn take_known(
        &mut self,
        news: u64,
        is_known: impl Fn(&W) -> bool,
    ) -> Option<Held<W>> {
        if self.frames.is_empty() || self.looked_at == news {
            return None;
        }
        match self.frames.iter().position(|held| is_known(&held.wanted)) {
            Some(at) => self.take(at),
            None => {
                self.looked_at = news;
                None
            }
        }
    }

    /// Takes out one frame that has waited too long.
    pub(crate) fn take_old(&mut self, now_ms: u64) -> Option<Held<W>> {
        let since = self.frames.front()?.since_ms;
        (now_ms.saturating_sub(since) > self.limits.patience_ms).then(|| self.take(0))?
    }

    fn take(&mut self, at: usize) -> Option<Held<W>> {
        let held = self.frames.remove(at)?;
        self.bytes -= held.frame.len();
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use af_xdp::{LocalPool, Umem, UmemConfig};
    use conntrack::Fragments;
    use tables::SegmentId;

    fn pool() -> LocalPool {
        let config = UmemConfig { chunk: 2048, frames: 1024, huge_pages: false };
        Umem::new(&config).unwrap().pool()
    }

    fn wanted(last: u8) -> Wanted {
        (Link::Segment(SegmentId::new(1).unwrap()), [10, 0, 0, last])
    }

    fn port(number: u16) -> PortId {
        PortId::new(number).unwrap()
    }

    fn datagram(id: u16) -> FlowKey {
        Fragments::datagram([10, 0, 0, 3], [8, 8, 8, 8], id, 17, 1, 1)
    }

    /// Puts a frame of that length in; how many had to go, which are given back.
    fn put<W: PartialEq>(
        (pool, hold): (&mut LocalPool, &mut Hold<W>),
        ingress: u16,
        wanted: W,
        length: usize,
    ) -> Vec<u16> {
        let mut frame = pool.take().unwrap();
        assert!(frame.set_range(256, length));
        hold.put(frame, port(ingress), wanted, 0);
        let mut gone = Vec::new();
        while let Some((held, _)) = hold.take_excess() {
            gone.push(held.ingress.get());
            pool.give(held.frame);
        }
        gone
    }

    fn empty<W: PartialEq>(pool: &mut LocalPool, hold: &mut Hold<W>) {
        while let Some(held) = hold.take_old(u64::MAX) {
            pool.give(held.frame);
        }
        assert_eq!((hold.len(), hold.bytes), (0, 0));
    }

    #[test]
    fn frames_go_on_in_their_order_once_their_neighbour_is_known() {
        let (mut pool, mut hold) = (pool(), Hold::for_neighbours());
        for (ingress, last) in [(1, 7), (2, 8), (3, 7)] {
            assert!(put((&mut pool, &mut hold), ingress, wanted(last), 60).is_empty());
        }
        assert!(hold.take_known(1, |_| false).is_none());
        assert!(hold.take_known(1, |_| true).is_none(), "nothing is new");
        let gone: Vec<_> =
            std::iter::from_fn(|| hold.take_known(2, |it| *it == wanted(7))).collect();
        let ports: Vec<u16> = gone.iter().map(|held| held.ingress.get()).collect();
        assert_eq!((ports, hold.len()), (vec![1, 3], 1));
        gone.into_iter().for_each(|held| pool.give(held.frame));
        empty(&mut pool, &mut hold);
    }

    #[test]
    fn a_neighbour_holds_so_many_and_all_together_not_more_than_there_is_room_for() {
        let (mut pool, mut hold) = (pool(), Hold::for_neighbours());
        let (each, room) = (hold.limits.each, hold.limits.room);
        let gone: usize =
            (0..each + 3).map(|_| put((&mut pool, &mut hold), 1, wanted(7), 60).len()).sum();
        assert_eq!((hold.len(), gone), (each, 3));
        for last in 8..=255 {
            for ingress in 1..=3 {
                put((&mut pool, &mut hold), ingress, wanted(last), 60);
            }
        }
        assert_eq!(hold.len(), room);
        empty(&mut pool, &mut hold);
    }

    #[test]
    fn of_one_port_half_of_what_there_is_room_for_waits_and_the_rest_is_counted_as_its_own() {
        let (mut pool, mut hold) = (pool(), Hold::for_neighbours());
        for last in 0..=255 {
            hold.put(pool.take().unwrap(), port(1), wanted(last), 0);
            while let Some((held, why)) = hold.take_excess() {
                assert_eq!((held.wanted, why), (wanted(last - 128), Excess::Port));
                pool.give(held.frame);
            }
        }
        assert_eq!(hold.len(), hold.limits.room / 2);
        assert!(put((&mut pool, &mut hold), 2, wanted(7), 60).is_empty(), "others find room");
        empty(&mut pool, &mut hold);
    }

    #[test]
    fn who_floods_makes_room_for_others_and_not_they_for_him() {
        let (mut pool, mut hold) = (pool(), Hold::for_fragments());
        put((&mut pool, &mut hold), 1, datagram(0), 60);
        // Two of them fill it between them.
        for id in 1..300 {
            for ingress in [2, 3] {
                let gone = put((&mut pool, &mut hold), ingress, datagram(id), 60);
                assert!(gone.iter().all(|port| *port != 1), "{id}");
            }
        }
        assert_eq!(hold.len(), hold.limits.room);
        let gone = put((&mut pool, &mut hold), 1, datagram(0), 60);
        assert!(gone.len() == 1 && gone != [1], "{gone:?}");
        empty(&mut pool, &mut hold);
    }

    #[test]
    fn fragments_are_bounded_by_their_bytes_each_datagram_and_all_of_them() {
        let (mut pool, mut hold) = (pool(), Hold::for_fragments());
        let mut gone = 0;
        for _ in 0..100 {
            gone += put((&mut pool, &mut hold), 1, datagram(1), 1514).len();
            assert!(hold.bytes <= hold.limits.each_bytes);
        }
        assert_eq!((hold.len(), gone), (48, 52), "72 kB of 1514 bytes");
        for id in 0..300 {
            put((&mut pool, &mut hold), 1 + id % 3, datagram(id), 1792);
            assert!(hold.bytes <= hold.limits.bytes);
        }
        assert!(hold.len() > 200 && hold.len() < hold.limits.room);
        empty(&mut pool, &mut hold);
        // Not more than 64 of one, small as they may be.
        for _ in 0..100 {
            put((&mut pool, &mut hold), 1, datagram(1), 60);
        }
        assert_eq!(hold.len(), hold.limits.each);
        empty(&mut pool, &mut hold);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut pool, mut hold) = (pool(), Hold::for_fragments());
        hold.put(pool.take().unwrap(), port(1), datagram(1), 1000);
        assert!(hold.take_old(1000 + FRAGMENT_LIFE_MS).is_none());
        let old = hold.take_old(1001 + FRAGMENT_LIFE_MS).unwrap();
        assert_eq!((old.ingress, hold.len()), (port(1), 0));
        pool.give(old.frame);
    }
}
