//! Which tables each worker may still be using.
//!
//! The control thread must know when nobody decides by an old snapshot any more: only then does
//! a pass over the connection table catch every line that was decided by it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A sleeping worker uses no tables.
const ASLEEP: u64 = u64::MAX;

/// One worker's word; the worker writes it, the control thread reads it.
#[derive(Debug)]
pub struct Epoch(AtomicU64);

impl Default for Epoch {
    fn default() -> Self {
        Self(AtomicU64::new(ASLEEP))
    }
}

impl Epoch {
    /// Before the worker looks which tables are in force. Sequentially consistent together with
    /// the publication: a control thread that reads "asleep" after it published is seen to have
    /// published by the worker that wakes.
    pub(crate) fn wake(&self) {
        self.0.store(0, SeqCst);
    }

    /// The worker uses tables of this generation from now on.
    pub(crate) fn enter(&self, generation: u64) {
        self.0.store(generation, SeqCst);
    }

    /// The worker uses no tables from now on.
    pub(crate) fn sleep(&self) {
        self.0.store(ASLEEP, SeqCst);
    }

    /// Whether the worker uses nothing older than `generation`.
    #[must_use]
    pub fn has_reached(&self, generation: u64) -> bool {
        self.0.load(SeqCst) >= generation
    }

    /// Whether the worker waits for frames.
    #[must_use]
    pub(crate) fn is_asleep(&self) -> bool {
        self.0.load(SeqCst) == ASLEEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_holds_a_change_back_until_it_moves_on_or_sleeps() {
        let epoch = Epoch::default();
        assert!(epoch.has_reached(9));
        epoch.wake();
        assert!(!epoch.has_reached(1));
        epoch.enter(8);
        assert!(epoch.has_reached(8) && !epoch.has_reached(9));
        epoch.sleep();
        assert!(epoch.has_reached(9) && epoch.is_asleep());
    }
}
