//! Where a worker's frames are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Frames of one worker, by place. The worker writes it about once a second; `in flight` is what
/// it holds between rings: waiting for a full ring, or handed over by another worker.
#[derive(Debug, Default)]
pub struct Gauges {
    /// In the worker's cache of free frames.
    pub free: AtomicU64,
    /// In fill rings.
    pub fill: AtomicU64,
    /// In receive rings.
    pub rx: AtomicU64,
    /// In transmit rings.
    pub tx: AtomicU64,
    /// In completion rings.
    pub completion: AtomicU64,
    /// With the kernel between two rings.
    pub kernel: AtomicU64,
    /// With the worker between two rings.
    pub in_flight: AtomicU64,
    /// System calls a socket refused because its interface is down or gone.
    pub errors: AtomicU64,
    /// Packets the kernel dropped before a socket: a full ring, no frame, or, before 6.6, longer
    /// than a frame.
    pub rx_full: AtomicU64,
    /// Loops that found something to do.
    pub busy_loops: AtomicU64,
    /// Frames from the punt link that named no port.
    pub untagged: AtomicU64,
}

impl Gauges {
    pub(crate) fn set(gauge: &AtomicU64, value: usize) {
        gauge.store(value as u64, Relaxed);
    }

    /// Counts one more; only the worker writes.
    pub(crate) fn bump(counter: &AtomicU64) {
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}
