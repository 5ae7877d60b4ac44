//! One AF_XDP socket of a worker, and the frames that wait for it.

use af_xdp::{Frame, LocalPool, Socket};
use tables::PortId;

use crate::pieces::Pieces;
use crate::pools::Pools;

/// Where frames of a socket come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The punt link: the outer tag names the port.
    Punt,
    /// A queue of this NIC.
    Nic(PortId),
}

/// How a worker sends to a NIC that has AF_XDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicWay {
    /// By the socket at this place among its own.
    Own(usize),
    /// By this worker's socket.
    Worker(usize),
}

/// A socket with its outbox.
#[derive(Debug)]
pub struct Link {
    pub(crate) socket: Socket,
    pub(crate) source: Source,
    pub(crate) outbox: Vec<Frame>,
    pub(crate) pieces: Pieces,
    pub(crate) errors: u64,
    limit: usize,
}

impl Link {
    /// A queue of the punt link.
    #[must_use]
    pub fn punt(socket: Socket, ring: usize) -> Self {
        Self::new(socket, Source::Punt, ring)
    }

    /// A queue of the NIC `port`.
    #[must_use]
    pub fn nic(socket: Socket, port: PortId, ring: usize) -> Self {
        Self::new(socket, Source::Nic(port), ring)
    }

    /// Whether packets may be longer than a frame.
    #[must_use]
    pub fn takes_pieces(&self) -> bool {
        self.socket.pieces()
    }

    fn new(socket: Socket, source: Source, ring: usize) -> Self {
        // A ring's worth of frames may wait behind a full ring; more is refused at the door.
        let outbox = Vec::with_capacity(ring);
        Self { socket, source, outbox, pieces: Pieces::default(), errors: 0, limit: ring }
    }

    /// Queues a frame; gives it back where a whole ring of them waits already.
    #[inline]
    pub(crate) fn queue(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.outbox.len() == self.limit {
            return Err(frame);
        }
        self.outbox.push(frame);
        Ok(())
    }

    /// Queues the packet of a large frame, in as many small ones as it fills; gives it back where
    /// not all of them have room, or the socket takes no pieces.
    pub(crate) fn queue_pieces(&mut self, frame: Frame, pools: &mut Pools) -> Result<(), Frame> {
        let count = frame.len().div_ceil(self.socket.umem().chunk() as usize);
        if self.outbox.len() + count > self.limit || (count > 1 && !self.socket.pieces()) {
            return Err(frame);
        }
        pools.split(frame, &mut self.outbox)
    }

    /// Sends what waits and collects what has been sent.
    #[inline]
    pub(crate) fn flush(&mut self, pool: &mut LocalPool) {
        // The kernel sends nothing while the completion ring is full.
        self.socket.reclaim(pool);
        if !self.outbox.is_empty() {
            self.socket.send(&mut self.outbox);
        }
        self.note(|socket| socket.kick_tx().map(drop));
    }

    /// Gives the kernel frames to receive into.
    #[inline]
    pub(crate) fn refill(&mut self, pool: &mut LocalPool) {
        self.socket.refill(pool);
        if self.socket.needs_rx_wakeup() {
            self.note(Socket::wake_rx);
        }
    }

    /// An interface that is down or gone keeps its frames; how often it said so is counted.
    fn note(&mut self, call: impl FnOnce(&mut Socket) -> Result<(), af_xdp::Error>) {
        if call(&mut self.socket).is_err() {
            self.errors += 1;
        }
    }
}
