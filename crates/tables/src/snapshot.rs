//! One writer, many readers that never wait.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::{Fdb, Nat, Neighbours, Policy, Routes, Topology, Walls};

/// Everything a worker looks up, as it was at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every publication.
    pub generation: u64,
    /// The newest change it contains; lines decided under it carry this.
    pub stamp: u32,
    /// Ports and segments.
    pub topology: Arc<Topology>,
    /// Stations.
    pub fdb: Arc<Fdb>,
    /// Ways.
    pub routes: Arc<Routes>,
    /// MAC addresses of IPv4 addresses.
    pub neighbours: Arc<Neighbours>,
    /// Address translation.
    pub nat: Arc<Nat>,
    /// Security groups.
    pub walls: Arc<Walls>,
    /// What may be reached beyond a VM's own network.
    pub policy: Arc<Policy>,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
}

impl Publisher {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(first)) }
    }

    /// A worker's end.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { cache: Cache::new(Arc::clone(&self.current)) }
    }

    /// Puts `next` in force; a worker sees it before its next batch.
    pub fn publish(&self, next: Snapshot) {
        self.current.store(Arc::new(next));
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}

/// A worker's end: half a nanosecond while nothing has changed.
#[derive(Debug)]
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
}

impl Reader {
    /// The newest snapshot.
    #[inline]
    pub fn refresh(&mut self) -> &Arc<Snapshot> {
        self.cache.load()
    }
}
