//! Headers as they lie in a frame: views over its bytes, at any alignment.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{fold, sum};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct EthernetHeader {
    pub(crate) dst: [u8; 6],
    pub(crate) src: [u8; 6],
    pub(crate) ethertype: U16,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct TagHeader {
    pub(crate) tci: U16,
    pub(crate) ethertype: U16,
}

/// RFC 791 §3.1, without options.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Ipv4Header {
    pub(crate) version_ihl: u8,
    pub(crate) tos: u8,
    pub(crate) total_len: U16,
    pub(crate) id: U16,
    pub(crate) flags_fragment: U16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: U16,
    pub(crate) src: [u8; 4],
    pub(crate) dst: [u8; 4],
}

/// Length of an IPv4 header without options, bytes.
pub(crate) const IPV4_LEN: usize = size_of::<Ipv4Header>();
/// Longest IPv4 header: fifteen words.
pub(crate) const IPV4_MAX_LEN: usize = 60;
/// "Don't fragment".
pub(crate) const DF: u16 = 0x4000;
/// "More fragments".
pub(crate) const MF: u16 = 0x2000;
/// Thirteen bits of offset, in units of eight bytes.
pub(crate) const OFFSET: u16 = 0x1fff;

impl Ipv4Header {
    /// Length with options, bytes; what the header says, unchecked.
    pub(crate) const fn header_len(&self) -> usize {
        (self.version_ihl & 0x0f) as usize * 4
    }

    /// Whether it is a piece of a larger packet and not its first: no transport header follows.
    pub(crate) fn is_later_fragment(&self) -> bool {
        self.flags_fragment.get() & OFFSET != 0
    }

    /// This header with its checksum; it has no options.
    pub(crate) fn sealed(mut self) -> Self {
        self.checksum.set(0);
        let checksum = !fold(sum(self.as_bytes()));
        self.checksum.set(checksum);
        self
    }
}

/// The first words of TCP and UDP alike.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Ports {
    pub(crate) source: U16,
    pub(crate) destination: U16,
}

/// RFC 792. The second half is an echo's identifier and sequence number, or an error's unused word
/// and MTU (RFC 1191).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct IcmpHeader {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) checksum: U16,
    pub(crate) id: U16,
    pub(crate) mtu: U16,
}

/// Length of an ICMP header, bytes.
pub(crate) const ICMP_LEN: usize = size_of::<IcmpHeader>();

/// RFC 826, for IPv4 over Ethernet.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ArpPacket {
    pub(crate) hardware: U16,
    pub(crate) protocol: U16,
    pub(crate) hardware_len: u8,
    pub(crate) protocol_len: u8,
    pub(crate) operation: U16,
    pub(crate) sender_mac: [u8; 6],
    pub(crate) sender: [u8; 4],
    pub(crate) target_mac: [u8; 6],
    pub(crate) target: [u8; 4],
}

/// Length of the IPv4 or TCP option at `at` of `header`; nothing at the end of the list, at `end`,
/// or where the option contradicts itself or would run past it. Both protocols write options alike (RFC 791, RFC 9293).
pub(crate) fn option_len(header: &[u8], at: usize, end: usize) -> Option<usize> {
    let options = header.get(at..end)?;
    let length = match *options.first()? {
        0 => return None,
        1 => 1,
        _ => usize::from(*options.get(1).filter(|length| **length >= 2)?),
    };
    (length <= options.len()).then_some(length)
}
