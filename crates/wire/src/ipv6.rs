//! What an IPv6 packet says of itself, as far as one must know who sent it.
//!
//! Nothing but a wall at a VM asks: all others bridge IPv6 unread.

use crate::MacAddr;

/// Length of an IPv6 header, bytes (RFC 8200 §3).
const HEADER: usize = 40;
/// Extension headers that anybody puts before what they carry.
const EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;
const UDP: u8 = 17;
const ICMP: u8 = 58;

/// Who sent an IPv6 packet, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6<'a> {
    /// Source address.
    pub src: [u8; 16],
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
pub fn ipv6(packet: &[u8]) -> Option<Ipv6<'_>> {
    let src = packet.get(8..24)?.try_into().ok()?;
    let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    let payload = packet.get(HEADER..HEADER + length)?;
    let upper = upper(*packet.get(6)?, payload).unwrap_or(Upper::Hidden);
    Some(Ipv6 { src, upper })
}

/// Walks through the extension headers; none where one is cut.
fn upper(mut next: u8, mut rest: &[u8]) -> Option<Upper<'_>> {
    for _ in 0..=EXTENSIONS {
        let length = match next {
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
            UDP => return Some(Upper::Udp(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]))),
            ICMP => return Some(Upper::Icmp(Icmp { kind: *rest.first()?, message: rest })),
            _ => return Some(Upper::Other),
        };
        next = *rest.first()?;
        rest = rest.get(length..)?;
    }
    None
}

impl Icmp<'_> {
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
}
