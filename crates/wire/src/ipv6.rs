//! What an IPv6 packet says of itself, as far as one must know who sent it and what lets it in.

use crate::{MacAddr, Transport, icmp, protocol};

/// Length of an IPv6 header, bytes (RFC 8200 §3).
const HEADER: usize = 40;
/// Extension headers that anybody puts before what they carry.
const EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = protocol::FRAGMENT_6;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;
const NOTHING: u8 = 59;

/// Errors have room for a number before what they quote (RFC 4443 §3).
const QUOTE_AT: usize = 8;

/// Who sent an IPv6 packet, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker<'a> {
    /// Source address.
    pub src: [u8; 16],
    /// The protocol behind all its headers, as far as those can be read.
    pub protocol: u8,
    /// What is behind all its headers.
    pub upper: Upper<'a>,
}

/// What an IPv6 packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper<'a> {
    /// ICMPv6: the message, from its type on.
    Icmp(Icmp<'a>),
    /// UDP from this port.
    Udp(u16),
    /// A later fragment: its first has said what it is.
    Later,
    /// Something else.
    Other,
    /// Its headers do not say: they are cut, in a first fragment as well (RFC 7112 forbids it), or
    /// there are more of them than anybody sends.
    Hidden,
}

/// An ICMPv6 message (RFC 4443), never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp<'a> {
    /// Its type.
    pub kind: u8,
    message: &'a [u8],
}

/// Reads an IPv6 packet whose lengths [`crate::parse()`] has checked; none if it is cut.
#[must_use]
pub fn ipv6(packet: &[u8]) -> Option<Speaker<'_>> {
    let (src, _) = ipv6_addresses(packet)?;
    let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    let payload = packet.get(HEADER..HEADER + length)?;
    let mut protocol = *packet.get(6)?;
    let upper = upper(&mut protocol, payload).unwrap_or(Upper::Hidden);
    Some(Speaker { src, protocol, upper })
}

/// Source and destination of an IPv6 packet; none if it is cut.
#[inline]
#[must_use]
pub fn ipv6_addresses(packet: &[u8]) -> Option<([u8; 16], [u8; 16])> {
    let (src, rest) = packet.get(8..)?.split_first_chunk()?;
    Some((*src, *rest.first_chunk()?))
}

/// Whether that number is of a header between that of IPv6 and what it carries (IANA), or says that
/// nothing follows.
#[must_use]
pub const fn extends_ipv6(number: u8) -> bool {
    matches!(
        number,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | NOTHING
            | DESTINATION
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}

/// Walks through the extension headers to what they carry; none where one is cut.
fn upper<'a>(next: &mut u8, mut rest: &'a [u8]) -> Option<Upper<'a>> {
    for _ in 0..=EXTENSIONS {
        let length = match *next {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HOST_IDENTITY | SHIM6 => {
                (usize::from(*rest.get(1)?) + 1) * 8
            }
            // In words of four bytes, less two (RFC 4302 §2.2).
            AUTHENTICATION => (usize::from(*rest.get(1)?) + 2) * 4,
            FRAGMENT => {
                let offset = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) & !7;
                if offset != 0 {
                    return Some(Upper::Later);
                }
                8
            }
            protocol::UDP => {
                return Some(Upper::Udp(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])));
            }
            protocol::ICMPV6 => {
                return Some(Upper::Icmp(Icmp { kind: *rest.first()?, message: rest }));
            }
            _ => return Some(Upper::Other),
        };
        *next = *rest.first()?;
        rest = rest.get(length..)?;
    }
    None
}

/// What is left in an ICMPv6 error of the packet it is about, which went the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded6 {
    /// Its source address.
    pub src: [u8; 16],
    /// Its destination address.
    pub dst: [u8; 16],
    /// What was behind its header.
    pub protocol: u8,
    /// Its ports or echo identifier; TCP's flags read as 0.
    pub transport: Transport,
}

/// Reads the packet embedded in an ICMPv6 error (types 1 to 4, RFC 4443 §3); `message` is the
/// error from its type on. Nothing for other messages and where the quoted header is not whole.
#[must_use]
pub fn embedded6(message: &[u8]) -> Option<Embedded6> {
    let quoted = message.get(QUOTE_AT..).filter(|_| matches!(message.first(), Some(1..=4)))?;
    let (src, dst) = ipv6_addresses(quoted)?;
    let number = *quoted.get(6)?;
    let transport = crate::embedded::quoted(number, quoted.get(HEADER..)?, &icmp::ICMPV6);
    Some(Embedded6 { src, dst, protocol: number, transport })
}

impl Icmp<'_> {
    /// Whether it is of what a link needs: who listens to which group (RFC 2710, RFC 3810), routers
    /// and neighbours (RFC 4861). A redirect is not.
    #[must_use]
    pub const fn is_of_link(&self) -> bool {
        matches!(self.kind, 130..=136 | 143)
    }

    /// Its type and code, as one number.
    #[must_use]
    pub fn what(&self) -> u16 {
        u16::from_be_bytes([self.kind, self.message.get(1).copied().unwrap_or_default()])
    }

    /// The address that a neighbour solicitation or advertisement is about (RFC 4861 §4.3, §4.4).
    #[must_use]
    pub fn target(&self) -> Option<[u8; 16]> {
        self.message.get(8..24)?.try_into().ok()
    }

    /// Whether every link-layer address that a message of neighbour discovery claims (options 1 and
    /// 2, RFC 4861 §4.6.1) is one of those; not where its options, which begin there, are cut.
    #[must_use]
    pub fn claims_only(&self, options: usize, is_own: impl Fn(MacAddr) -> bool) -> bool {
        let Some(mut rest) = self.message.get(options..) else { return false };
        while let [kind, units, ..] = *rest {
            let length = usize::from(units) * 8;
            let Some(option) = rest.get(..length).filter(|option| !option.is_empty()) else {
                return false;
            };
            let mac = option.get(2..8).and_then(|mac| mac.try_into().ok()).map(MacAddr);
            if matches!(kind, 1 | 2) && !mac.is_some_and(&is_own) {
                return false;
            }
            rest = &rest[length..];
        }
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);
    const UDP: u8 = protocol::UDP;
    const ICMP: u8 = protocol::ICMPV6;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 255];
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
        packet.extend(VM.interface_id());
        packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend(payload);
        packet
    }

    fn upper_of(next: u8, payload: &[u8]) -> Upper<'static> {
        match ipv6(&packet(next, payload)).unwrap().upper {
            Upper::Icmp(icmp) => Upper::Icmp(Icmp { kind: icmp.kind, message: &[] }),
            Upper::Udp(port) => Upper::Udp(port),
            Upper::Later => Upper::Later,
            Upper::Other => Upper::Other,
            Upper::Hidden => Upper::Hidden,
        }
    }

    #[test]
    fn what_is_carried_is_found_behind_extension_headers() {
        let router = Upper::Icmp(Icmp { kind: 134, message: &[] });
        let hop_by_hop = [&[ICMP, 0, 5, 2, 0, 0, 1, 0][..], &[134, 0, 0, 0]].concat();
        assert_eq!(upper_of(HOP_BY_HOP, &hop_by_hop), router);
        let long = [&[ICMP, 1][..], &[0; 14], &[134, 0, 0, 0]].concat();
        assert_eq!(upper_of(DESTINATION, &long), router);
        let first = [&[HOP_BY_HOP, 0, 0, 1, 0, 0, 0, 7][..], &hop_by_hop].concat();
        assert_eq!(upper_of(FRAGMENT, &first), router);
        assert_eq!(upper_of(UDP, &[2, 35, 2, 34, 0, 8, 0, 0]), Upper::Udp(547));
        assert_eq!((upper_of(6, &[]), upper_of(59, &[])), (Upper::Other, Upper::Other));
    }

    #[test]
    fn headers_that_are_cut_or_do_not_end_hide_what_is_carried() {
        assert_eq!(upper_of(FRAGMENT, &[ICMP, 0, 0, 1, 0, 0, 0, 7]), Upper::Hidden);
        assert_eq!(upper_of(HOP_BY_HOP, &[ICMP, 1, 0, 0, 0, 0, 0, 0]), Upper::Hidden);
        assert_eq!(upper_of(UDP, &[2]), Upper::Hidden);
        let many = [DESTINATION, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        assert_eq!(upper_of(DESTINATION, &many), Upper::Hidden);
        assert_eq!(upper_of(FRAGMENT, &[ICMP, 0, 0, 8, 0, 0, 0, 7]), Upper::Later);
    }

    #[test]
    fn a_claim_of_somebody_else_s_address_is_found_among_all_options() {
        let advertisement = |options: &[u8]| {
            let message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &[0xfd; 16], options].concat();
            let packet = packet(ICMP, &message);
            let Upper::Icmp(icmp) = ipv6(&packet).unwrap().upper else { panic!("{packet:?}") };
            (icmp.target(), icmp.claims_only(24, |mac| mac == VM))
        };
        let own = [&[2, 1][..], &VM.0].concat();
        let other = [2, 1, 0xfa, 0x16, 0x3e, 0, 0, 2];
        assert_eq!(advertisement(&[]), (Some([0xfd; 16]), true));
        assert!(advertisement(&own).1);
        assert!(!advertisement(&other).1);
        assert!(!advertisement(&[&own[..], &other].concat()).1);
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        assert!(advertisement(&[&nonce[..], &own].concat()).1);
        // An option of no length or without its end.
        assert!(!advertisement(&[&own[..], &[14, 0, 0, 0]].concat()).1);
        assert!(!advertisement(&own[..7]).1);
        assert!(!advertisement(&[&own[..], &[14]].concat()).1);
    }

    #[test]
    fn an_error_tells_the_packet_it_is_about_and_other_messages_none() {
        let quoted = packet(UDP, &[0x13, 0x88, 0, 53, 0, 9, 0, 0, 1]);
        let error = |kind: u8, quoted: &[u8]| [&[kind, 0, 0, 0, 0, 0, 5, 0][..], quoted].concat();
        let told = embedded6(&error(2, &quoted)).unwrap();
        assert_eq!((told.src, told.dst), ipv6_addresses(&quoted).unwrap());
        assert_eq!(told.transport, Transport::Udp { sport: 5000, dport: 53 });
        let ping = packet(ICMP, &[128, 0, 0, 0, 0, 7, 0, 1]);
        let echo = Transport::Echo { request: true, id: 7 };
        assert_eq!(embedded6(&error(1, &ping)).unwrap().transport, echo);
        assert_eq!(embedded6(&error(1, &quoted[..44])).unwrap().transport, Transport::None);
        assert_eq!(embedded6(&error(128, &quoted)), None);
        assert_eq!(embedded6(&error(1, &quoted[..39])), None);
    }

    #[test]
    fn the_protocol_is_that_behind_all_headers() {
        let of = |next, payload: &[u8]| ipv6(&packet(next, payload)).unwrap().protocol;
        assert_eq!((of(50, &[]), of(UDP, &[0; 8])), (50, UDP));
        assert_eq!(of(DESTINATION, &[132, 0, 1, 4, 0, 0, 0, 0]), 132);
        assert_eq!(of(FRAGMENT, &[UDP, 0, 0, 8, 0, 0, 0, 7]), FRAGMENT);
    }
}
