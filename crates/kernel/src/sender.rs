//! Frames of the control thread's own: ARP requests and the like, out of any port.
//!
//! A packet socket at the far end of the punt link sends as a worker does: with an outer tag that
//! says the port, which `deliver` takes off at the near end.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::layout::PORTS;

/// Both MACs of an Ethernet header; the tag goes behind them.
const ADDRESSES: usize = 12;
const ETHERNET_HEADER: usize = 14;
/// 802.1ad, of the outer tag.
const OUTER: [u8; 2] = [0x88, 0xa8];

/// Sends frames out of an interface. It receives nothing.
#[derive(Debug)]
pub struct FrameSender(OwnedFd);

impl FrameSender {
    /// A sender of the interface with this index, of this network namespace.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or there is no such interface.
    pub fn open(index: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes integers only. Protocol 0: nothing is received (packet(7)).
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        let length = size_of_val(&to) as libc::socklen_t;
        // SAFETY: an open descriptor, and an address of the length given.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const to).cast(), length) };
        if bound == 0 { Ok(Self(socket)) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a frame as it is. Does not wait.
    ///
    /// # Errors
    /// ENOBUFS, EAGAIN: too much at once. ENXIO, ENETDOWN: the interface is gone, or down. EMSGSIZE.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: an open descriptor; `frame` is readable for its length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        // A packet socket sends all or nothing.
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Sends frames down the punt link.
#[derive(Debug)]
pub struct PuntSender(FrameSender);

impl PuntSender {
    /// A sender at the far end of the punt link, `tl-punt1`, of this network namespace. One that
    /// was made anew wants a new sender.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or there is no such interface.
    pub fn open(far: u32) -> io::Result<Self> {
        FrameSender::open(far).map(Self)
    }

    /// Sends an Ethernet frame, with an 802.1Q tag or without, out of the port of that number.
    /// Does not wait, and nobody says whether the frame arrived: a port that is not there drops
    /// it ([`crate::KernelDrop::NoPort`]).
    ///
    /// # Errors
    /// `InvalidInput`: the number is none, or the frame has no Ethernet header. ENOBUFS, EAGAIN:
    /// too much at once. ENXIO, ENETDOWN: the punt link is gone, or down. EMSGSIZE.
    pub fn send(&self, port_number: u16, frame: &[u8]) -> io::Result<()> {
        let is_number = (1..PORTS - 1).contains(&port_number.into());
        if !is_number || frame.len() < ETHERNET_HEADER {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (addresses, rest) = frame.split_at(ADDRESSES);
        self.0.send(&[addresses, &OUTER, &port_number.to_be_bytes(), rest].concat())
    }
}
