//! Bytes and their meaning.
//!
//! What is in a frame ([`parse()`]), the addresses in it ([`MacAddr`]), its 802.1Q tag ([`vlan`])
//! and its checksums ([`checksum`]). What routing and NAT change in it ([`rewrite`]), also in the
//! packet an ICMP error quotes ([`embedded()`]), and how it is cut for a smaller link
//! ([`fragment`]). What a gateway says itself: ICMP errors and ping replies ([`icmp`]), [`arp`].
//! It never allocates, never logs and knows nothing of ports, segments or tables: those give the
//! bytes a purpose.
//!
//! ```
//! let frame = [
//!     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0x16, 0x3e, 0, 0, 1, 0x81, 0, 0, 100, 0x86, 0xdd,
//!     0x60, 0, 0, 0, 0, 0, 59, 64,
//! ];
//! let mut frame = frame.to_vec();
//! frame.resize(18 + 40, 0);
//! let headers = wire::parse(&frame)?;
//! assert_eq!(headers.vlan, Some(100));
//! assert_eq!(headers.ethertype, wire::ethertype::IPV6);
//! # Ok::<(), wire::Malformed>(())
//! ```
#![forbid(unsafe_code)]

mod addr;
pub mod arp;
pub mod checksum;
mod embedded;
pub mod fragment;
pub mod icmp;
mod ipv6;
mod layout;
mod mss;
mod parse;
mod piece;
pub mod rewrite;
#[cfg(test)]
mod testing;
pub mod vlan;

pub use addr::{MacAddr, ParseMacError, Station};
pub use embedded::{Embedded, embedded, translate_error};
pub use icmp::IcmpError;
pub use ipv6::{Embedded6, Icmp, Speaker, Upper, embedded6, extends_ipv6, ipv6, ipv6_addresses};
pub use mss::clamp_mss;
pub use parse::{Arp, Headers, Ipv4, Ipv6, Malformed, Network, Transport, parse};
pub use piece::{Part, Piece, piece, piece6};
pub use rewrite::Translation;

/// EtherTypes this dataplane tells apart (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag; the punt link carries port numbers in it.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// The header of an IPv6 fragment (RFC 8200 §4.5).
    pub const FRAGMENT_6: u8 = 44;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// Length of an Ethernet header without tags, bytes.
pub const ETHERNET_LEN: usize = 14;
/// Length of one 802.1Q or 802.1ad tag, bytes.
pub const TAG_LEN: usize = 4;
