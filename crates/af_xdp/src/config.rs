//! What a socket is asked for, and what it turned out to be.

use std::fmt;

/// How a socket is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// Slots of the rx, tx and completion rings; rounded up to a power of two, at most 32768. The
    /// fill ring has twice as many, so that a burst of a whole rx ring finds frames behind it.
    pub ring: u32,
    /// What is asked of the driver.
    pub mode: Mode,
    /// The XDP program of the interface is attached in SKB ("generic") mode. Only whoever attached
    /// it knows; with it zero copy is not tried, and [`Bound::Generic`] is reported.
    pub generic: bool,
    /// Packets longer than a chunk must come, too: a driver that has zero copy for others alone is
    /// used in copy mode. In copy mode they come wherever [`takes_pieces`](crate::takes_pieces).
    pub pieces: bool,
    /// Prefer busy polling, for up to so many µs. Needs CAP_NET_ADMIN.
    pub busy_poll: Option<u32>,
    /// Packets per system call when sending in copy mode, at most `ring`. The kernel's own figure
    /// is 32, and 6.17 the first that lets it be changed; older ones keep theirs.
    pub tx_budget: Option<u32>,
}

impl Default for SocketConfig {
    fn default() -> SocketConfig {
        SocketConfig {
            ring: 2048,
            mode: Mode::Auto,
            generic: false,
            pieces: false,
            busy_poll: None,
            tx_budget: Some(256),
        }
    }
}

impl SocketConfig {
    /// The most frames a socket opened so can hold at a time: its four rings, all full.
    ///
    /// Memory for all sockets together needs at least the sum of this, plus what is in flight.
    pub fn frames(&self) -> u32 {
        5 * self.ring.next_power_of_two()
    }
}

/// What is asked of the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Zero copy where the driver can, else copy; [`Socket::refused`](crate::Socket::refused) then says why.
    #[default]
    Auto,
    /// Zero copy or an error.
    ZeroCopy,
    /// Copy, also where the driver could do better.
    Copy,
}

/// How a socket really works, from `XDP_OPTIONS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The NIC reads and writes the frames itself.
    ZeroCopy,
    /// The kernel copies between its buffers and the frames.
    Copy,
    /// As copy, and the XDP program runs late, on a finished skb.
    Generic,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::ZeroCopy => "zero-copy",
            Bound::Copy => "copy",
            Bound::Generic => "generic",
        })
    }
}
