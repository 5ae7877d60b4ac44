//! What a fragment says of the packet it is a piece of (RFC 791 §3.2, RFC 8200 §4.5).

use zerocopy::FromBytes;

use crate::icmp::{self, Echoes};
use crate::layout::{Ipv4Header, OFFSET, Ports};
use crate::{Transport, protocol};

/// A fragment: which packet's, and whether it has the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The packet's number, which all its fragments carry; of IPv4 16 bits.
    pub id: u32,
    /// Its protocol, as this fragment has it.
    pub protocol: u8,
    /// What of the transport header is in it.
    pub part: Part,
}

/// Which part of its packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first: the transport header is in it, [`Transport::None`] where that has no ports.
    First(Transport),
    /// A later one.
    Later,
    /// The first, cut within the transport header, or one that would write over it: what nobody
    /// sends who means well (RFC 1858, RFC 3128).
    Tiny,
}

/// Reads the fragment that `packet` begins with: an IPv4 packet that [`crate::parse`] took.
#[must_use]
pub fn piece(packet: &[u8]) -> Option<Piece> {
    let (ip, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    let end = usize::from(ip.total_len.get()).min(packet.len());
    let payload = packet.get(ip.header_len()..end)?;
    let offset = usize::from(ip.flags_fragment.get() & OFFSET) * 8;
    let part = part(ip.protocol, offset, payload, &icmp::ICMP);
    Some(Piece { id: ip.id.get().into(), protocol: ip.protocol, part })
}

/// The same of an IPv6 packet whose header is followed by that of a fragment.
#[must_use]
pub fn piece6(packet: &[u8]) -> Option<Piece> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (fragment, payload) = rest.get(..length)?.split_first_chunk::<8>()?;
    let [number, _, high, low, id @ ..] = *fragment;
    // Units of eight bytes, above three bits for other things.
    let offset = usize::from(u16::from_be_bytes([high, low]) & !7);
    Some(Piece {
        id: u32::from_be_bytes(id),
        protocol: number,
        part: part(number, offset, payload, &icmp::ICMPV6),
    })
}

fn part(number: u8, offset: usize, payload: &[u8], echoes: &Echoes) -> Part {
    let needed = header_len(number, echoes);
    match offset {
        0 if payload.len() < needed => Part::Tiny,
        0 => Part::First(transport(number, payload, echoes)),
        1.. if offset < needed => Part::Tiny,
        _ => Part::Later,
    }
}

/// Bytes of a transport header that a first fragment must have: all but options.
const fn header_len(number: u8, echoes: &Echoes) -> usize {
    match number {
        protocol::TCP => 20,
        protocol::UDP => 8,
        number if number == echoes.protocol => 8,
        _ => 0,
    }
}

/// The header of a payload that is long enough for it. Lengths in it speak of the whole packet.
fn transport(number: u8, payload: &[u8], echoes: &Echoes) -> Transport {
    let Ok((ports, rest)) = Ports::ref_from_prefix(payload) else { return Transport::None };
    let (sport, dport) = (ports.source.get(), ports.destination.get());
    match (number, rest) {
        (protocol::TCP, [_, _, _, _, _, _, _, _, _, flags, ..]) => {
            Transport::Tcp { sport, dport, flags: *flags }
        }
        (protocol::UDP, ..) => Transport::Udp { sport, dport },
        (number, _) if number == echoes.protocol => echoes.read(payload),
        _ => Transport::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fragment::Cut;
    use crate::testing::{L3, any_frame, echo, tcp, udp};

    /// The frame's fragments on a link with that MTU, behind Ethernet.
    fn fragments(mut frame: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
        frame[18..21].copy_from_slice(&[0xbe, 0xef, 0]);
        let cut = Cut::new(&frame, L3, mtu).unwrap();
        (0..cut.count())
            .map(|index| {
                let mut out = vec![0; 2000];
                let length = cut.write(&frame, index, &mut out).unwrap();
                out[L3..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn the_first_fragment_has_the_ports_and_all_have_the_number() {
        let first =
            |protocol, transport| Piece { id: 0xbeef, protocol, part: Part::First(transport) };
        let cases = [
            (udp(5000, 53, &[7; 100]), Transport::Udp { sport: 5000, dport: 53 }),
            (
                tcp(5000, 22, 18, &[], &[7; 100]),
                Transport::Tcp { sport: 5000, dport: 22, flags: 18 },
            ),
            (echo(true, 77, 1, &[7; 100]), Transport::Echo { request: true, id: 77 }),
            (echo(false, 77, 1, &[7; 100]), Transport::Echo { request: false, id: 77 }),
        ];
        for (frame, transport) in cases {
            let all = fragments(frame, 68);
            let protocol = all[0][9];
            assert_eq!(piece(&all[0]), Some(first(protocol, transport)));
            for later in &all[1..] {
                assert_eq!(piece(later), Some(Piece { id: 0xbeef, protocol, part: Part::Later }));
            }
        }
        // A timestamp request has no identifier that is anybody's.
        let mut stamp = echo(true, 77, 1, &[7; 100]);
        stamp[34] = 13;
        assert_eq!(piece(&fragments(stamp, 68)[0]), Some(first(1, Transport::None)));
    }

    #[test]
    fn a_header_cut_short_or_written_over_is_tiny() {
        for (frame, least) in [
            (tcp(1, 2, 2, &[], &[7; 50]), 20),
            (udp(1, 2, &[7; 50]), 8),
            (echo(true, 1, 1, b"12345678"), 8),
        ] {
            let mut packet = frame[L3..].to_vec();
            for (length, tiny) in [(least, false), (least - 1, true), (0, true)] {
                packet[2..4].copy_from_slice(&(20 + length as u16).to_be_bytes());
                packet[6..8].copy_from_slice(&[0x20, 0]);
                let part = piece(&packet).unwrap().part;
                assert_eq!(part == Part::Tiny, tiny, "{length} of {least}");
            }
            for offset in [8u16, 16, 24] {
                packet[6..8].copy_from_slice(&(0x2000 | (offset / 8)).to_be_bytes());
                let part = piece(&packet).unwrap().part;
                assert_eq!(part == Part::Tiny, usize::from(offset) < least, "at {offset}");
            }
        }
    }

    #[test]
    fn protocols_without_ports_need_nothing() {
        let mut packet = udp(1, 2, &[7; 50])[L3..L3 + 22].to_vec();
        packet[9] = 47;
        packet[2..4].copy_from_slice(&22u16.to_be_bytes());
        packet[6] = 0x20;
        assert_eq!(piece(&packet).unwrap().part, Part::First(Transport::None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(frame in any_frame(), cut in 0usize..80, at in 0usize..40, to in any::<u8>()) {
            let mut packet = frame[L3..].to_vec();
            if let Some(byte) = packet.get_mut(at) {
                *byte = to;
            }
            packet.truncate(cut);
            let _ = piece(&packet);
        }
    }

    #[test]
    fn of_ipv6_the_fragment_header_has_number_and_place() {
        let fragment = |next: u8, offset: u16, payload: &[u8]| {
            let mut packet = vec![0x60, 0, 0, 0, 0, 8 + payload.len() as u8, 44, 64];
            packet.extend([0xfd; 32]);
            packet.extend([next, 0]);
            packet.extend((offset | 1).to_be_bytes());
            packet.extend([0xde, 0xad, 0xbe, 0xef]);
            packet.extend(payload);
            piece6(&packet).map(|piece| (piece.id, piece.protocol, piece.part))
        };
        let udp = Part::First(Transport::Udp { sport: 5000, dport: 53 });
        let datagram = [0x13, 0x88, 0, 53, 9, 9, 0, 0];
        assert_eq!(fragment(17, 0, &datagram), Some((0xdead_beef, 17, udp)));
        let echo = Part::First(Transport::Echo { request: true, id: 7 });
        assert_eq!(fragment(58, 0, &[128, 0, 0, 0, 0, 7, 0, 1]), Some((0xdead_beef, 58, echo)));
        let part = |next, offset, payload: &[u8]| fragment(next, offset, payload).unwrap().2;
        assert_eq!(part(1, 0, &[8, 0, 0, 0, 0, 7, 0, 1]), Part::First(Transport::None), "IPv4's");
        assert_eq!(part(17, 1448, &[1, 2]), Part::Later);
        assert_eq!(part(17, 0, &[0; 7]), Part::Tiny);
        assert_eq!(part(6, 8, &[0; 40]), Part::Tiny, "it would write over TCP's flags");
        assert_eq!(part(60, 0, &[17, 0, 0, 0, 0, 0, 0, 0]), Part::First(Transport::None));
        assert_eq!(piece6(&[0x60; 44]), None);
    }
}
