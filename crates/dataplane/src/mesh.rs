//! Frames that must leave by a ring another worker owns.

use std::sync::Arc;

use af_xdp::Frame;
use nix::sys::eventfd::{EfdFlags, EventFd};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::Epoch;

/// Frames one worker may have on their way to another.
const DEPTH: usize = 1024;

/// A frame, and the NIC it leaves by.
pub(crate) struct Handed {
    pub(crate) nic: u8,
    pub(crate) frame: Frame,
}

/// How a worker is woken from its sleep.
#[derive(Debug)]
pub struct Bell {
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) fd: Arc<EventFd>,
}

impl Bell {
    /// Wakes the worker if it sleeps. Needs no lock; a worker that is just falling asleep looks
    /// at its inbox once more after it said so, or sees the bell in poll.
    pub fn ring(&self) {
        if self.epoch.is_asleep() {
            // Fails only when the counter is full, and then it is awake anyway.
            let _ = self.fd.write(1);
        }
    }
}

/// One worker's corner of the mesh.
pub struct Corner {
    to: Vec<Option<Producer<Handed>>>,
    from: Vec<Consumer<Handed>>,
    bells: Vec<Bell>,
    pub(crate) own: Arc<EventFd>,
    pub(crate) epoch: Arc<Epoch>,
}

impl std::fmt::Debug for Corner {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Corner of {} workers", self.to.len())
    }
}

/// Builds the corners of `workers` workers: a one-to-one ring for every ordered pair.
///
/// # Errors
/// Where the process may open no further file.
pub fn mesh(workers: usize) -> nix::Result<Vec<Corner>> {
    let mut corners = Vec::with_capacity(workers);
    for _ in 0..workers {
        corners.push(Corner {
            to: Vec::new(),
            from: Vec::new(),
            bells: Vec::new(),
            own: Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?),
            epoch: Arc::new(Epoch::default()),
        });
    }
    for from in 0..workers {
        for to in 0..workers {
            let producer = (from != to).then(|| {
                let (producer, consumer) = RingBuffer::new(DEPTH);
                corners[to].from.push(consumer);
                producer
            });
            let bell = corners[to].bell();
            corners[from].to.push(producer);
            corners[from].bells.push(bell);
        }
    }
    Ok(corners)
}

impl Corner {
    /// Which tables this worker may be using.
    #[must_use]
    pub fn epoch(&self) -> Arc<Epoch> {
        Arc::clone(&self.epoch)
    }

    /// What wakes this worker.
    #[must_use]
    pub fn bell(&self) -> Bell {
        Bell { epoch: Arc::clone(&self.epoch), fd: Arc::clone(&self.own) }
    }

    /// Hands a frame to another worker; gives it back where its ring is full.
    pub(crate) fn hand(&mut self, worker: usize, nic: u8, frame: Frame) -> Result<(), Frame> {
        let Some(Some(ring)) = self.to.get_mut(worker) else { return Err(frame) };
        let pushed = ring.push(Handed { nic, frame });
        pushed.map_err(|rtrb::PushError::Full(handed)| handed.frame)
    }

    /// Wakes the workers that were handed something.
    pub(crate) fn wake(&self) {
        for (ring, bell) in self.to.iter().zip(&self.bells) {
            if ring.as_ref().is_some_and(|ring| ring.slots() < DEPTH) {
                bell.ring();
            }
        }
    }

    /// The next frame another worker handed over.
    pub(crate) fn take(&mut self) -> Option<Handed> {
        self.from.iter_mut().find_map(|ring| ring.pop().ok())
    }

    /// Frames handed to this worker and not yet taken.
    pub(crate) fn waiting(&self) -> usize {
        self.from.iter().map(Consumer::slots).sum()
    }

    /// Stops the bell.
    pub(crate) fn hush(&self) {
        let _ = self.own.read();
    }
}
