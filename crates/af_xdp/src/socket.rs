//! An AF_XDP socket: a queue of an interface, with its four rings.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::config::Bound;
use crate::error::Error;
use crate::frame::Frame;
use crate::held::Held;
use crate::pool::LocalPool;
use crate::ring::{Consumer, Producer};
use crate::sys;
use crate::umem::{QueueKey, Umem};

/// Where the frames a socket holds are, at some moment during the call.
///
/// While the kernel works the parts may be off by what moved between two reads; their sum is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// In the fill ring, waiting for packets.
    pub fill: u32,
    /// In the rx ring, waiting for [`Socket::receive`].
    pub rx: u32,
    /// In the tx ring, waiting for the kernel.
    pub tx: u32,
    /// In the completion ring, waiting for [`Socket::reclaim`].
    pub completion: u32,
    /// Taken by the kernel out of the fill or tx ring and not yet put into another.
    pub in_kernel: u32,
}

impl Census {
    /// All frames the socket holds.
    pub fn total(&self) -> u32 {
        self.fill + self.rx + self.tx + self.completion + self.in_kernel
    }
}

/// The kernel's counters of a socket (`XDP_STATISTICS`), from its opening on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received packets dropped, for instance as too long for a chunk where it takes no pieces.
    pub rx_dropped: u64,
    /// Fill ring entries the kernel did not accept. Never, or there is a bug here.
    pub rx_invalid_descs: u64,
    /// Tx ring entries the kernel did not accept, such as packets of no bytes.
    pub tx_invalid_descs: u64,
    /// Received packets dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// Received packets dropped because the fill ring was empty.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel looked for something to send and found the tx ring empty.
    pub tx_ring_empty_descs: u64,
}

/// A queue of an interface: receives from it and sends to it.
///
/// Belongs to one worker at a time (`Send`, all methods take `&mut self`). None of the methods
/// between receive and send allocates. Dropping a socket frees the queue at once and its frames
/// later: [`Umem::recover`].
#[derive(Debug)]
pub struct Socket {
    // Rings before the fd: the kernel lets go when both the mappings and the fd are gone.
    pub(crate) rx: Consumer<libc::xdp_desc>,
    pub(crate) tx: Producer<libc::xdp_desc>,
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
    pub(crate) fd: OwnedFd,
    pub(crate) umem: Umem,
    pub(crate) shift: u32,
    pub(crate) key: QueueKey,
    pub(crate) held: Held,
    pub(crate) bound: Bound,
    pub(crate) pieces: bool,
    pub(crate) refused: Option<Error>,
    pub(crate) strays: u64,
}

impl Socket {
    /// Appends up to `max` received frames to `out`, and returns how many.
    ///
    /// Never more than the spare capacity of `out`, so it allocates nothing: make `out` with room
    /// for a batch. What is not taken stays in the ring. A packet longer than a chunk comes in
    /// several frames, one behind the other, of which all but the last say
    /// [`continues`](Frame::continues); the next call may bring the rest of them.
    #[inline]
    pub fn receive(&mut self, max: usize, out: &mut Vec<Frame>) -> usize {
        let max = max.min(out.capacity() - out.len()).min(u32::MAX as usize) as u32;
        let count = self.rx.available(max).min(max);
        let before = out.len();
        for _ in 0..count {
            let packet = self.rx.take();
            let Some(mut frame) = self.take_back(packet.addr) else { continue };
            let head = packet.addr as usize & (frame.capacity() - 1);
            if frame.set_range(head, packet.len as usize) {
                frame.set_continues(packet.options & libc::XDP_PKT_CONTD != 0);
                out.push(frame);
            } else {
                // Nothing sticks out of its chunk: what is longer comes in pieces.
                self.strays += 1;
                self.put_back(&frame);
            }
        }
        self.rx.release();
        out.len() - before
    }

    /// Moves frames from the front of `frames` into the tx ring, and returns how many.
    ///
    /// What the ring has no room for stays in `frames`, in order. Then, or before the worker
    /// sleeps, the kernel must be told: [`kick_tx`](Socket::kick_tx). A frame of no bytes is counted
    /// in [`Statistics::tx_invalid_descs`]; kernels before 6.18 keep its chunk as long as the socket
    /// lives. Frames that [`continue`](Frame::continues) are one packet with those behind them, at
    /// most 17, if the socket sends in [`pieces`](Socket::pieces).
    ///
    /// # Panics
    /// If a frame belongs to another [`Umem`].
    #[inline]
    pub fn send(&mut self, frames: &mut Vec<Frame>) -> usize {
        let want = frames.len().min(u32::MAX as usize) as u32;
        let count = self.tx.room(want).min(want) as usize;
        for frame in frames.drain(..count) {
            self.put_tx(&frame);
        }
        self.tx.publish();
        count
    }

    /// Moves one frame into the tx ring, or hands it back if the ring is full.
    ///
    /// # Errors
    /// The frame itself.
    ///
    /// # Panics
    /// If the frame belongs to another [`Umem`].
    #[inline]
    pub fn send_one(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.tx.room(1) == 0 {
            return Err(frame);
        }
        self.put_tx(&frame);
        self.tx.publish();
        Ok(())
    }

    /// Takes all sent frames out of the completion ring into `pool`, and returns how many.
    ///
    /// Do it before each send: the kernel sends nothing while the completion ring is full.
    #[inline]
    pub fn reclaim(&mut self, pool: &mut LocalPool) -> usize {
        self.same_memory(pool);
        let count = self.completion.available(u32::MAX);
        let mut reclaimed = 0;
        for _ in 0..count {
            let address = self.completion.take();
            if let Some(frame) = self.take_back(address) {
                pool.give(frame);
                reclaimed += 1;
            }
        }
        self.completion.release();
        reclaimed
    }

    /// Fills the fill ring from `pool`, and returns how many frames that took.
    #[inline]
    pub fn refill(&mut self, pool: &mut LocalPool) -> usize {
        self.same_memory(pool);
        let room = self.fill.room(u32::MAX);
        let mut given = 0;
        while given < room
            && let Some(index) = pool.take_index()
        {
            self.held.insert(index);
            self.fill.put(u64::from(index) << self.shift);
            given += 1;
        }
        self.fill.publish();
        given as usize
    }

    /// Whether the kernel waits for [`kick_tx`](Socket::kick_tx). Always, in copy mode.
    #[inline]
    pub fn needs_tx_wakeup(&self) -> bool {
        self.tx.needs_wakeup()
    }

    /// Whether the kernel waits for [`wake_rx`](Socket::wake_rx): the driver ran out of frames.
    #[inline]
    pub fn needs_rx_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Has the kernel send what is in the tx ring, and returns the number of system calls.
    ///
    /// In copy mode the kernel sends 16 to 64 frames per call, in this thread; so it is called
    /// until the ring is empty or does not move (full device queue, full completion ring; the next
    /// kick continues). With nothing to send there is no call.
    ///
    /// # Errors
    /// Such as `ENETDOWN` and `ENXIO`, when the interface is down or gone. The frames stay where
    /// they are: they go out, or come back from [`Umem::recover`] once the socket is dropped.
    pub fn kick_tx(&mut self) -> Result<u32, Error> {
        let mut queued = self.tx.queued();
        let mut calls = 0;
        while queued > 0 && self.tx.needs_wakeup() {
            calls += 1;
            match sys::kick(self.fd.as_fd()) {
                // A zero-copy driver sends by itself from now on.
                Ok(()) if self.bound == Bound::ZeroCopy => break,
                Ok(()) => {}
                Err(e) if tolerable(&e) => {}
                Err(e) => return Err(self.error("send", e)),
            }
            let left = self.tx.queued();
            if left >= queued {
                break;
            }
            queued = left;
        }
        Ok(calls)
    }

    /// Has the kernel look at the fill ring again, and poll the NIC if busy polling is on.
    ///
    /// # Errors
    /// Such as `ENETDOWN` and `ENXIO`, when the interface is down or gone.
    pub fn wake_rx(&mut self) -> Result<(), Error> {
        match sys::wake(self.fd.as_fd()) {
            Err(e) if !tolerable(&e) => Err(self.error("receive", e)),
            _ => Ok(()),
        }
    }

    /// Counts the frames this socket holds.
    pub fn census(&self) -> Census {
        let (fill, rx) = (self.fill.queued(), self.rx.queued());
        let (tx, completion) = (self.tx.queued(), self.completion.queued());
        let in_rings = fill + rx + tx + completion;
        let held = self.held.count();
        if in_rings <= held {
            return Census { fill, rx, tx, completion, in_kernel: held - in_rings };
        }
        // Frames moved from ring to ring between the reads and were seen twice.
        let mut left = held;
        let mut part = |count: u32| {
            let count = count.min(left);
            left -= count;
            count
        };
        let (rx, completion) = (part(rx), part(completion));
        Census { rx, completion, fill: part(fill), tx: part(tx), in_kernel: left }
    }

    /// Reads the kernel's counters.
    ///
    /// # Errors
    /// None in practice: the kernel refuses only sockets of another family.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        let s = sys::statistics(self.fd.as_fd()).map_err(|e| self.error("XDP_STATISTICS", e))?;
        Ok(Statistics {
            rx_dropped: s.rx_dropped,
            rx_invalid_descs: s.rx_invalid_descs,
            tx_invalid_descs: s.tx_invalid_descs,
            rx_ring_full: s.rx_ring_full,
            rx_fill_ring_empty_descs: s.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: s.tx_ring_empty_descs,
        })
    }

    /// How the socket works, proven by `XDP_OPTIONS`.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Whether it takes and sends packets that are longer than a chunk, in several frames.
    pub fn pieces(&self) -> bool {
        self.pieces
    }

    /// Why zero copy was not to be had, where [`Mode::Auto`](crate::Mode::Auto) tried it.
    pub fn refused(&self) -> Option<&Error> {
        self.refused.as_ref()
    }

    /// The interface.
    pub fn ifindex(&self) -> u32 {
        self.key.ifindex
    }

    /// The queue, from 0.
    pub fn queue(&self) -> u32 {
        self.key.queue
    }

    /// The memory the frames belong to.
    pub fn umem(&self) -> Umem {
        self.umem
    }

    /// Ring entries that named no frame of this socket and were ignored. Anything but 0 is a bug of
    /// the kernel or the driver.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    #[inline]
    fn put_tx(&mut self, frame: &Frame) {
        self.umem.own(frame);
        let addr = (u64::from(frame.index()) << self.shift) + frame.head() as u64;
        self.held.insert(frame.index());
        // A bool is 0 or 1, and so is the flag.
        let options = u32::from(frame.continues()) * libc::XDP_PKT_CONTD;
        self.tx.put(libc::xdp_desc { addr, len: frame.len() as u32, options });
    }

    /// The frame at `address`, if this socket gave it to the kernel.
    #[inline]
    fn take_back(&mut self, address: u64) -> Option<Frame> {
        let index = address >> self.shift;
        if !self.held.remove(index) {
            self.strays += 1;
            return None;
        }
        // SAFETY: the set had the chunk, so a `Frame` of it was consumed on the way in and none
        // made since; the kernel has let go of it by putting it into the rx or completion ring.
        Some(unsafe { self.umem.frame(index as u32) })
    }

    /// Leaves the chunk with the socket, as if the kernel still had it.
    #[cold]
    fn put_back(&mut self, frame: &Frame) {
        self.held.insert(frame.index());
    }

    fn same_memory(&self, pool: &LocalPool) {
        assert!(pool.umem() == self.umem, "{pool:?} belongs to another UMEM than the socket");
    }

    #[cold]
    fn error(&self, step: &'static str, source: io::Error) -> Error {
        Error::Socket { ifindex: self.key.ifindex, queue: self.key.queue, step, source }
    }
}

/// Try again later; nothing is lost.
fn tolerable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR | libc::ENOMEM)
    )
}

impl AsFd for Socket {
    /// For `poll` and for the XSKMAP. Do not duplicate it: the queue stays taken as long as any
    /// copy is open.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let fd = self.fd.as_raw_fd();
        self.umem.sockets().retain(|member| member.fd != fd);
        self.umem.linger(self.key, mem::take(&mut self.held));
    }
}
