//! The atomics of the table: the processor's, or loom's when its models run.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use crate::model::AtomicU64;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};

/// How often one waits for another thread's line to leave a passing state before giving up.
///
/// Such a state lasts a dozen stores. Only a writer that lost its processor takes longer, and
/// nobody should stand still for that: 10,000 pauses are a few hundred microseconds.
#[cfg(not(loom))]
pub(crate) const PATIENCE: u32 = 10_000;

/// Under loom a pause lets the other thread run, and comes back early only after a preemption.
#[cfg(loom)]
pub(crate) const PATIENCE: u32 = 8;

/// Waits a moment without a system call.
pub(crate) fn pause() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// The table's memory: mapped for good, or (under loom) the model's own.
#[cfg(not(loom))]
pub(crate) type Lines = &'static [crate::Line];
#[cfg(loom)]
pub(crate) type Lines = Box<[crate::Line]>;
