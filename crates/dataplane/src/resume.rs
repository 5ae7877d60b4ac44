//! Frames that wait at a worker: how they come to wait, go on and are given up.

use af_xdp::Frame;
use pipeline::DropReason;
use tables::{PortId, Snapshot};

use crate::hold::{Excess, Wanted};
use crate::link::Source;
use crate::worker::{BATCH, Engine};

impl Engine {
    /// Has a packet wait for its neighbour.
    #[cold]
    pub(crate) fn wait_for_neighbour(&mut self, frame: Frame, ingress: PortId, wanted: Wanted) {
        self.hold.put(frame, ingress, wanted, self.now_ms);
        while let Some((oldest, why)) = self.hold.take_excess() {
            self.counters.dropped(oldest.ingress, reason(why, DropReason::HoldFull));
            self.pools.give(oldest.frame);
        }
    }

    /// Has a fragment wait for the first of its datagram.
    #[cold]
    pub(crate) fn wait_for_first(&mut self, frame: Frame, ingress: PortId) {
        // The pipeline named one for each.
        let Some(name) = self.names.pop_at(0) else { return self.pools.give(frame) };
        self.late.put(frame, ingress, name, self.now_ms);
        while let Some((oldest, why)) = self.late.take_excess() {
            self.counters.dropped(oldest.ingress, reason(why, DropReason::FragmentsFull));
            self.pools.give(oldest.frame);
        }
    }

    /// Takes up frames that waited and need not any more.
    pub(crate) fn resume(&mut self, tables: &Snapshot) -> usize {
        let mut resumed = 0;
        let is_known = |(link, address): &Wanted| tables.neighbours.on(*link, *address).is_some();
        while resumed < BATCH
            && let Some(held) = self.hold.take_known(tables.generation, is_known)
        {
            self.handle_again(held.frame, held.ingress, tables);
            resumed += 1;
        }
        if self.late.len() > 0 {
            resumed += self.resume_late(tables);
        }
        self.forget_old(self.now_ms);
        resumed
    }

    /// The same for fragments: in the order they came in, and before those that come next.
    #[cold]
    fn resume_late(&mut self, tables: &Snapshot) -> usize {
        let (news, now_ms) = (self.shared.fragments.noted(), self.now_ms);
        let mut resumed = 0;
        for _ in 0..self.late.len() {
            let fragments = &self.shared.fragments;
            let known = self.late.take_known(news, |name| fragments.has(*name, now_ms));
            let Some(held) = known else { break };
            self.handle_again(held.frame, held.ingress, tables);
            resumed += 1;
        }
        resumed
    }

    fn handle_again(&mut self, frame: Frame, ingress: PortId, tables: &Snapshot) {
        let mut frames = std::mem::take(&mut self.frames);
        frames.push(frame);
        self.handle(Source::Nic(ingress), &mut frames, tables);
        self.frames = frames;
    }

    /// Gives up what has waited too long.
    pub(crate) fn forget_old(&mut self, now_ms: u64) {
        while let Some(old) = self.hold.take_old(now_ms) {
            self.counters.dropped(old.ingress, DropReason::Unresolved);
            self.pools.give(old.frame);
        }
        while let Some(old) = self.late.take_old(now_ms) {
            self.counters.dropped(old.ingress, DropReason::FragmentAlone);
            self.pools.give(old.frame);
        }
    }
}

fn reason(why: Excess, full: DropReason) -> DropReason {
    match why {
        Excess::Full => full,
        Excess::Port => DropReason::HeldQuota,
    }
}
