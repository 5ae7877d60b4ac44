//! What happened, counted by one worker and read by the control thread.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tables::PortId;

use crate::{DropReason, Packet, Verdict};

/// Ports a worker counts for.
const PORTS: usize = 4096;

/// One port's row. What it received the kernel program counts.
#[derive(Debug)]
pub struct PortCounters {
    /// Packets this worker sent by an AF_XDP socket of the port.
    pub tx_packets: AtomicU64,
    /// Their bytes.
    pub tx_bytes: AtomicU64,
    /// Frames bound for the port that found no room in a ring or no free frame for a copy.
    pub tx_dropped: AtomicU64,
    /// Packets for the VM behind the port that its security groups do not allow.
    pub tx_refused: AtomicU64,
    /// Copies of flooded packets that the security groups of the VM behind the port do not allow.
    pub tx_kept: AtomicU64,
    /// Packets from the port that were dropped, by reason.
    pub dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Default for PortCounters {
    fn default() -> Self {
        Self {
            tx_packets: AtomicU64::new(0),
            tx_bytes: AtomicU64::new(0),
            tx_dropped: AtomicU64::new(0),
            tx_refused: AtomicU64::new(0),
            tx_kept: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
        }
    }
}

/// One worker's counters. Only the worker writes; a reader may see one packet more or less.
#[derive(Debug)]
pub struct Counters {
    ports: Box<[PortCounters]>,
    /// Packets with verdict forward.
    pub forward: AtomicU64,
    /// Packets with verdict flood.
    pub flood: AtomicU64,
    /// Packets with verdict reply.
    pub reply: AtomicU64,
    /// Packets with verdict host.
    pub host: AtomicU64,
    /// Packets with verdict taken.
    pub taken: AtomicU64,
    /// Times a packet was set to wait; it gets its verdict later.
    pub held: AtomicU64,
    /// Packets with verdict drop.
    pub drop: AtomicU64,
    /// Forwarded packets whose connection found no room in the table.
    pub uncached: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            ports: (0..PORTS).map(|_| PortCounters::default()).collect(),
            forward: AtomicU64::new(0),
            flood: AtomicU64::new(0),
            reply: AtomicU64::new(0),
            host: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            held: AtomicU64::new(0),
            drop: AtomicU64::new(0),
            uncached: AtomicU64::new(0),
        }
    }
}

/// Adds to a counter that has one writer: cheaper than a locked read-modify-write.
#[inline]
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

impl Counters {
    /// The row of a port.
    #[must_use]
    pub fn port(&self, id: PortId) -> &PortCounters {
        // Twelve bits: `PortId` cannot name a row that is not there.
        &self.ports[id.index() % PORTS]
    }

    /// Counts one packet that leaves by a port.
    #[inline]
    pub(crate) fn forwarded(&self) {
        add(&self.forward, 1);
    }

    /// Counts one packet's verdict.
    #[inline]
    pub(crate) fn record(&self, packet: &Packet<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Forward(_) | Verdict::Fragment(_) => self.forwarded(),
            Verdict::Flood(_) | Verdict::FloodGuests(_) => add(&self.flood, 1),
            Verdict::Reply(_) => add(&self.reply, 1),
            Verdict::Hold(..) | Verdict::Wait => add(&self.held, 1),
            Verdict::Host => add(&self.host, 1),
            Verdict::Taken => add(&self.taken, 1),
            Verdict::Drop(reason) => self.dropped(packet.ingress, reason),
        }
    }

    /// Counts one packet from `port` dropped.
    pub fn dropped(&self, port: PortId, reason: DropReason) {
        add(&self.drop, 1);
        add(&self.port(port).dropped[reason as usize], 1);
    }

    /// Counts one packet forwarded without a line.
    pub(crate) fn uncached(&self) {
        add(&self.uncached, 1);
    }

    /// Counts one frame sent by a socket of `port`.
    #[inline]
    pub fn sent(&self, port: PortId, bytes: usize) {
        let port = self.port(port);
        add(&port.tx_packets, 1);
        add(&port.tx_bytes, bytes as u64);
    }

    /// Counts one packet that the VM behind `port` does not let in.
    pub(crate) fn refused(&self, port: PortId) {
        add(&self.port(port).tx_refused, 1);
    }

    /// Counts one copy of a flooded frame that was kept from `port`.
    pub fn kept(&self, port: PortId) {
        add(&self.port(port).tx_kept, 1);
    }

    /// Counts one frame that could not be sent to `port`.
    #[inline]
    pub fn not_sent(&self, port: PortId) {
        add(&self.port(port).tx_dropped, 1);
    }
}
