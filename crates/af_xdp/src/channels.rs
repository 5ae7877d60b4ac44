//! Asking the kernel how many queues an interface has.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_void;

use crate::sys;

/// `linux/ethtool.h`.
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Queue numbers of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    pub(crate) max_rx: u32,
    pub(crate) max_tx: u32,
    /// 0 where receive and transmit queues are set apart from each other.
    pub(crate) max_combined: u32,
}

/// `struct ethtool_channels`; a combined channel is a receive and a transmit queue.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// What `ethtool -l` shows. `EOPNOTSUPP` where the driver has no channels to speak of.
pub(crate) fn from_ethtool(interface: &str) -> io::Result<Channels> {
    let mut answer = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    let mut name = [0; libc::IFNAMSIZ];
    if interface.len() >= name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut answer).cast() };
    let mut request = libc::ifreq { ifr_name: name, ifr_ifru };
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: `request` is a whole ifreq; its data points at an `ethtool_channels`, which is what
    // ETHTOOL_GCHANNELS fills; both outlive the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Channels {
        rx: answer.rx_count + answer.combined_count,
        tx: answer.tx_count + answer.combined_count,
        max_rx: answer.max_rx,
        max_tx: answer.max_tx,
        max_combined: answer.max_combined,
    })
}

/// The queues allocated for the link (`IFLA_NUM_RX_QUEUES`, `IFLA_NUM_TX_QUEUES`).
pub(crate) fn from_link(ifindex: u32) -> io::Result<Channels> {
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let fd = socket.as_fd().as_raw_fd();
    let mut request = Vec::with_capacity(32);
    // struct nlmsghdr: length, type, flags, sequence, port.
    request.extend_from_slice(&32u32.to_ne_bytes());
    request.extend_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // struct ifinfomsg: family, type, index, flags, change.
    request.extend_from_slice(&[0; 4]);
    request.extend_from_slice(&ifindex.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // SAFETY: the buffer outlives the call and has the length given.
    let sent = unsafe { libc::send(fd, request.as_ptr().cast::<c_void>(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0u8; 65536];
    // SAFETY: the kernel writes at most the length given, which is the buffer's.
    let len = unsafe { libc::recv(fd, answer.as_mut_ptr().cast::<c_void>(), answer.len(), 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    parse_link(&answer[..len])
}

/// Reads the two queue numbers out of an `RTM_NEWLINK` message.
fn parse_link(message: &[u8]) -> io::Result<Channels> {
    const HEADER: usize = 16;
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?))
    };
    let half = |at: usize| -> Option<u16> {
        Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?))
    };
    if half(4) == Some(libc::NLMSG_ERROR as u16) {
        let errno = word(HEADER).ok_or_else(broken)?;
        return Err(io::Error::from_raw_os_error((errno as i32).wrapping_neg()));
    }
    let (mut rx, mut tx) = (1, 1);
    let mut at = HEADER + size_of::<libc::ifinfomsg>();
    while let (Some(len), Some(kind)) = (half(at), half(at + 2)) {
        if len < 4 {
            return Err(broken());
        }
        match kind {
            libc::IFLA_NUM_RX_QUEUES => rx = word(at + 4).ok_or_else(broken)?,
            libc::IFLA_NUM_TX_QUEUES => tx = word(at + 4).ok_or_else(broken)?,
            _ => {}
        }
        at += (len as usize).next_multiple_of(4);
    }
    Ok(Channels { rx, tx, max_rx: rx, max_tx: tx, max_combined: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_one_queue_by_netlink_and_no_channels_by_ethtool() {
        let lo = sys::ifindex("lo").unwrap();
        let channels = from_link(lo).unwrap();
        assert_eq!((channels.rx, channels.tx), (1, 1));
        let error = from_ethtool("lo").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    #[test]
    fn an_unknown_interface_is_no_such_device() {
        assert_eq!(from_link(99_999_999).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        let errno = from_ethtool("none0").unwrap_err().raw_os_error();
        assert_eq!(errno, Some(libc::ENODEV));
        assert!(from_ethtool("a-name-longer-than-any").is_err());
    }

    #[test]
    fn truncated_netlink_is_an_error_and_not_a_panic() {
        let mut message = vec![0u8; 48];
        message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        message[32..36].copy_from_slice(&[2, 0, 0, 0]);
        assert!(parse_link(&message).is_err());
        message[32..36].copy_from_slice(&[8, 0, 32, 0]);
        assert!(parse_link(&message[..38]).is_err());
        assert!(parse_link(&[]).is_ok_and(|channels| channels.rx == 1));
    }
}
