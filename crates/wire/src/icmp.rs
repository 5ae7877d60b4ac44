//! ICMP messages of a gateway (RFC 792): errors about packets, made of the packets themselves, and
//! answers to pings.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{Change, fold, sum};
use crate::layout::{EthernetHeader, ICMP_LEN, IPV4_LEN, IcmpHeader, Ipv4Header, MF, OFFSET};
use crate::rewrite::set_ttl;
use crate::{Headers, Malformed, Network, Station, Transport, ethertype, protocol};

pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const ECHO_REQUEST: u8 = 8;
/// A family's echoes: the protocol, and the types of questions and answers. In the other family that
/// protocol is one without ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echoes {
    pub(crate) protocol: u8,
    pub(crate) request: u8,
    reply: u8,
}

/// Those of IPv4.
pub(crate) const ICMP: Echoes =
    Echoes { protocol: protocol::ICMP, request: ECHO_REQUEST, reply: ECHO_REPLY };
/// Those of IPv6 (RFC 4443 §4); types below are errors.
pub(crate) const ICMPV6: Echoes = Echoes { protocol: protocol::ICMPV6, request: 128, reply: 129 };

impl Echoes {
    /// The echo that a message of this family's protocol is; none if it is another one, or cut.
    #[inline]
    pub(crate) fn read(&self, message: &[u8]) -> Transport {
        match *message {
            [kind, _, _, _, a, b, ..] if kind == self.request || kind == self.reply => {
                Transport::Echo { request: kind == self.request, id: u16::from_be_bytes([a, b]) }
            }
            _ => Transport::None,
        }
    }
}
/// Time to live of what a gateway says itself (RFC 1122 §3.2.1.7, IANA).
const TTL: u8 = 64;
/// "Internetwork control", the precedence of errors (RFC 1812 §4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// No error is longer than this, IPv4 header included (RFC 1812 §4.3.2.3).
const MAX_LEN: usize = 576;

/// Whether ICMP messages of this type are errors, which quote a packet: unreachable, source quench,
/// redirect, time exceeded, parameter problem (RFC 1122 §3.2.2).
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// Why a packet came no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Its time to live ran out here (11/0).
    TimeExceeded,
    /// There is no route (3/0).
    NetUnreachable,
    /// The last hop does not answer (3/1).
    HostUnreachable,
    /// Nobody listens on the gateway's port (3/3).
    PortUnreachable,
    /// It is too large for the next link and must not be cut (3/4, RFC 1191).
    FragmentationNeeded {
        /// MTU of that link, bytes.
        mtu: u16,
    },
    /// Policy forbids it (3/13, RFC 1812 §5.2.7.1).
    AdminProhibited,
}

impl IcmpError {
    /// Type, code and next-hop MTU.
    const fn fields(self) -> (u8, u8, u16) {
        match self {
            Self::TimeExceeded => (11, 0, 0),
            Self::NetUnreachable => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::PortUnreachable => (3, 3, 0),
            Self::FragmentationNeeded { mtu } => (3, 4, mtu),
            Self::AdminProhibited => (3, 13, 0),
        }
    }
}

/// Whether an error may be sent about this frame's packet (RFC 1812 §4.3.2.7): not about an ICMP
/// error, a later fragment, what went to many, or what does not come from one host.
///
/// A segment's own broadcast address is for the caller to know.
#[must_use]
pub fn may_answer(frame: &[u8], headers: &Headers) -> bool {
    let Network::Ipv4(ip) = headers.network else { return false };
    // A first fragment too: its ICMP header is there though `ip` does not speak of it.
    let about_error = ip.protocol == protocol::ICMP
        && frame
            .get(usize::from(headers.l3) + usize::from(ip.header_len))
            .is_none_or(|kind| is_error(*kind));
    let from_one = !matches!(ip.src[0], 0 | 127 | 224..);
    let to_one = !headers.dst.is_multicast() && ip.dst[0] < 224;
    from_one && to_one && ip.fragment_offset == 0 && !about_error
}

/// What stands before the quoted packet.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ErrorHeaders {
    ethernet: EthernetHeader,
    ip: Ipv4Header,
    icmp: IcmpHeader,
}

/// Turns the frame at `chunk[head..head + len]`, whose IPv4 packet begins `l3` bytes into it, into
/// an error about that packet: from `gateway` to its sender, untagged.
///
/// Returns where the error's frame begins in the chunk and how long it is; nothing, and nothing is
/// changed, where the chunk is too small or holds no such frame. It quotes as much of the packet as
/// 576 bytes allow. Ask [`may_answer`] first.
#[must_use]
pub fn error(
    chunk: &mut [u8],
    head: usize,
    len: usize,
    l3: usize,
    kind: IcmpError,
    gateway: Station,
) -> Option<(usize, usize)> {
    let frame = chunk.get(head..)?.get(..len)?;
    let (ethernet, _) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let packet = frame.get(l3..)?;
    let (ip, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    let quote_len =
        usize::from(ip.total_len.get()).min(packet.len()).min(MAX_LEN - IPV4_LEN - ICMP_LEN);
    let mut headers = error_headers(kind, gateway, ethernet.src, ip.src, quote_len);

    let quote_at = size_of::<ErrorHeaders>();
    let length = quote_at + quote_len;
    // There is room behind nearly every frame; in a full chunk the frame moves to the front.
    let start = head.min(chunk.len().checked_sub(length)?);
    chunk.copy_within(head + l3..head + l3 + quote_len, start + quote_at);
    let frame = chunk.get_mut(start..start + length)?;
    let (front, quote) = frame.split_at_mut_checked(quote_at)?;
    headers.icmp.checksum.set(!fold(sum(headers.icmp.as_bytes()) + sum(quote)));
    front.copy_from_slice(headers.as_bytes());
    Some((start, length))
}

/// The headers of an error about `quote_len` bytes, all but the ICMP checksum.
fn error_headers(
    kind: IcmpError,
    gateway: Station,
    mac: [u8; 6],
    address: [u8; 4],
    quote_len: usize,
) -> ErrorHeaders {
    let (kind, code, mtu) = kind.fields();
    let ip = Ipv4Header {
        version_ihl: 0x45,
        tos: INTERNETWORK_CONTROL,
        total_len: U16::new((IPV4_LEN + ICMP_LEN + quote_len) as u16),
        id: U16::ZERO,
        flags_fragment: U16::ZERO,
        ttl: TTL,
        protocol: protocol::ICMP,
        checksum: U16::ZERO,
        src: gateway.address,
        dst: address,
    };
    let ethertype = U16::new(ethertype::IPV4);
    ErrorHeaders {
        ethernet: EthernetHeader { dst: mac, src: gateway.mac.0, ethertype },
        ip: ip.sealed(),
        icmp: IcmpHeader { kind, code, checksum: U16::ZERO, id: U16::ZERO, mtu: U16::new(mtu) },
    }
}

/// Turns an echo request into its reply: both pairs of addresses change places, and the way back
/// has 64 hops.
///
/// # Errors
/// [`Malformed`] where there is no whole echo request at `l3`; the frame is as it was.
pub fn echo_reply(frame: &mut [u8], l3: usize) -> Result<(), Malformed> {
    let packet = frame.get_mut(l3..).ok_or(Malformed::Ipv4)?;
    let (ip, _) = Ipv4Header::ref_from_prefix(packet).map_err(|_| Malformed::Ipv4)?;
    let header_len = ip.header_len();
    let is_whole_icmp =
        ip.protocol == protocol::ICMP && ip.flags_fragment.get() & (MF | OFFSET) == 0;
    let message = packet.get_mut(header_len..).ok_or(Malformed::Ipv4)?;
    let (icmp, _) = IcmpHeader::mut_from_prefix(message).map_err(|_| Malformed::Transport)?;
    if !is_whole_icmp || icmp.kind != ECHO_REQUEST {
        return Err(Malformed::Transport);
    }
    let word = |kind| u16::from_be_bytes([kind, icmp.code]);
    let change = Change::default().word(word(ECHO_REQUEST), word(ECHO_REPLY));
    icmp.checksum.set(change.apply_nonzero(icmp.checksum.get()));
    icmp.kind = ECHO_REPLY;

    if let Ok((ip, _)) = Ipv4Header::mut_from_prefix(packet) {
        core::mem::swap(&mut ip.src, &mut ip.dst);
        set_ttl(ip, TTL);
    }
    if let Ok((ethernet, _)) = EthernetHeader::mut_from_prefix(frame) {
        core::mem::swap(&mut ethernet.src, &mut ethernet.dst);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{GATEWAY, L3, REMOTE, VM, any_frame, echo, ipv4, is_whole, udp};
    use crate::{MacAddr, parse};

    /// The error about a frame that stands at `head` of a chunk with `tail` bytes behind it.
    fn about(frame: &[u8], head: usize, tail: usize, kind: IcmpError) -> Option<Vec<u8>> {
        let mut chunk = [&vec![0xaa; head][..], frame, &vec![0xbb; tail]].concat();
        let (start, len) = error(&mut chunk, head, frame.len(), L3, kind, GATEWAY)?;
        Some(chunk[start..start + len].to_vec())
    }

    #[test]
    fn an_error_about_a_datagram_quotes_it_whole() {
        let datagram = udp(33434, 33435, b"");
        let answer = about(&datagram, 256, 1000, IcmpError::TimeExceeded).unwrap();
        let mut expected = vec![0xfa, 0x16, 0x3e, 0, 0, 1, 2, 0, 0, 0, 0, 0xfe, 8, 0];
        expected.extend([0x45, 0xc0, 0, 56, 0, 0, 0, 0, 64, 1, 0x66, 0x02]);
        expected.extend([10, 0, 0, 1, 10, 0, 0, 3, 11, 0, 0x0f, 0x2c, 0, 0, 0, 0]);
        expected.extend(&datagram[14..]);
        assert_eq!(answer, expected);
        assert!(is_whole(&answer, L3));
        assert!(ipv4(&answer).icmp_error);
    }

    #[test]
    fn every_kind_says_its_type_code_and_mtu() {
        let kinds = [
            (IcmpError::TimeExceeded, [11, 0], [0, 0]),
            (IcmpError::NetUnreachable, [3, 0], [0, 0]),
            (IcmpError::HostUnreachable, [3, 1], [0, 0]),
            (IcmpError::PortUnreachable, [3, 3], [0, 0]),
            (IcmpError::FragmentationNeeded { mtu: 1450 }, [3, 4], [5, 0xaa]),
            (IcmpError::AdminProhibited, [3, 13], [0, 0]),
        ];
        for (kind, [number, code], mtu) in kinds {
            let answer = about(&udp(1, 2, b"odd"), 0, 100, kind).unwrap();
            assert_eq!(
                (answer[34], answer[35], &answer[38..42]),
                (number, code, &[0, 0, mtu[0], mtu[1]][..])
            );
        }
    }

    #[test]
    fn a_long_packet_is_quoted_up_to_576_bytes_whatever_room_there_is() {
        let long = udp(5000, 53, &[7; 1472]);
        for (head, tail) in [(256, 300), (0, 0), (28, 0), (3, 1)] {
            let answer = about(&long, head, tail, IcmpError::HostUnreachable).unwrap();
            assert_eq!(answer.len(), 14 + 576);
            assert_eq!(answer[42..], long[14..14 + 548]);
            assert!(is_whole(&answer, L3));
        }
    }

    #[test]
    fn a_short_packet_in_a_full_chunk_uses_the_room_before_it_or_is_not_answered() {
        let short = udp(5000, 53, b"hello");
        for (head, tail) in [(28, 0), (20, 8), (1, 27), (0, 28)] {
            let answer = about(&short, head, tail, IcmpError::NetUnreachable).unwrap();
            assert_eq!(answer[42..], short[14..]);
        }
        assert_eq!(about(&short, 27, 0, IcmpError::NetUnreachable), None);
    }

    #[test]
    fn padding_is_not_quoted_and_a_tag_is_not_kept() {
        let mut frame = udp(5000, 53, b"x");
        frame.resize(60, 0xee);
        assert_eq!(about(&frame, 0, 60, IcmpError::NetUnreachable).unwrap().len(), 42 + 29);
        let tagged = [&frame[..12], &[0x81, 0, 0, 100], &frame[12..]].concat();
        let mut chunk = [&tagged[..], &[0; 64]].concat();
        let kind = IcmpError::NetUnreachable;
        assert_eq!(error(&mut chunk, 0, tagged.len(), 18, kind, GATEWAY), Some((0, 71)));
        assert_eq!(chunk[..71], about(&frame, 0, 60, kind).unwrap());
    }

    #[test]
    fn what_is_no_packet_in_the_chunk_is_not_answered() {
        let mut chunk = [0; 100];
        let kind = IcmpError::TimeExceeded;
        for (head, len, l3) in [
            (101, 0, 14),
            (50, 51, 14),
            (0, 20, 14),
            (0, 100, 81),
            (usize::MAX, 2, 3),
            (1, usize::MAX, 9),
        ] {
            assert_eq!(error(&mut chunk, head, len, l3, kind, GATEWAY), None);
        }
    }

    #[test]
    fn only_a_whole_or_first_packet_from_one_host_to_one_is_answered() {
        let may = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = udp(5000, 53, b"hello");
            change(&mut frame);
            may_answer(&frame, &parse(&frame).unwrap())
        };
        assert!(may(&|_| {}));
        assert!(may(&|frame| frame[20] = 0x20), "a first fragment");
        assert!(!may(&|frame| frame[21] = 1), "a later fragment");
        assert!(!may(&|frame| frame[..6].fill(0xff)), "a broadcast");
        for dst in [[224, 0, 0, 5], [255; 4], [240, 0, 0, 1]] {
            assert!(!may(&|frame| frame[30..34].copy_from_slice(&dst)), "to {dst:?}");
        }
        for src in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [250, 1, 1, 1], [255; 4]] {
            assert!(!may(&|frame| frame[26..30].copy_from_slice(&src)), "from {src:?}");
        }
    }

    #[test]
    fn an_error_is_not_answered_but_a_ping_is() {
        let ping = echo(true, 1, 1, b"");
        assert!(may_answer(&ping, &parse(&ping).unwrap()));
        let mut answer = about(&ping, 0, 100, IcmpError::TimeExceeded).unwrap();
        assert!(!may_answer(&answer, &parse(&answer).unwrap()));
        answer[20] = 0x20;
        assert!(!may_answer(&answer, &parse(&answer).unwrap()), "a first fragment of one");
        let arp = crate::arp::gratuitous(GATEWAY);
        assert!(!may_answer(&arp, &parse(&arp).unwrap()));
    }

    #[test]
    fn a_ping_is_answered_in_place() {
        let mut frame = echo(true, 0xbeef, 7, b"abcde");
        set_ttl(Ipv4Header::mut_from_prefix(&mut frame[L3..]).unwrap().0, 3);
        echo_reply(&mut frame, L3).unwrap();
        let mut expected = echo(false, 0xbeef, 7, b"abcde");
        expected[..6].copy_from_slice(&VM.mac.0);
        expected[6..12].copy_from_slice(&GATEWAY.mac.0);
        expected[26..30].copy_from_slice(&REMOTE);
        expected[30..34].copy_from_slice(&VM.address);
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_reply_of_zeros_alone_has_the_only_right_checksum() {
        let mut frame = echo(true, 0, 0, &[0; 8]);
        echo_reply(&mut frame, L3).unwrap();
        assert_eq!(frame[36..38], [0xff, 0xff]);
        assert!(is_whole(&frame, L3));
    }

    #[test]
    fn only_whole_requests_are_answered() {
        let mut fragment = echo(true, 1, 1, &[0; 16]);
        fragment[20] = 0x20;
        let cut = echo(true, 1, 1, b"")[..41].to_vec();
        for before in [echo(false, 1, 1, b""), udp(2048, 2048, b""), fragment, cut] {
            let mut frame = before.clone();
            assert_eq!(echo_reply(&mut frame, L3), Err(Malformed::Transport));
            assert_eq!(frame, before);
        }
    }

    proptest! {
        #[test]
        fn an_error_about_anything_is_whole_and_goes_to_its_sender(
            frame in any_frame(), head in 0usize..40, mtu in any::<u16>(),
        ) {
            let answer = about(&frame, head, 28, IcmpError::FragmentationNeeded { mtu }).unwrap();
            prop_assert!(is_whole(&answer, L3));
            prop_assert_eq!(&answer[42..], &frame[14..]);
            let headers = parse(&answer).unwrap();
            prop_assert_eq!((headers.dst, headers.src), (VM.mac, GATEWAY.mac));
            prop_assert_eq!((ipv4(&answer).src, ipv4(&answer).dst), (GATEWAY.address, VM.address));
            prop_assert_ne!(headers.src, MacAddr::ZERO);
        }

        #[test]
        fn a_reply_to_any_ping_is_whole(
            id in any::<u16>(), sequence in any::<u16>(), payload in any::<[u8; 9]>(), ttl in any::<u8>(),
        ) {
            let mut frame = echo(true, id, sequence, &payload);
            set_ttl(Ipv4Header::mut_from_prefix(&mut frame[L3..]).unwrap().0, ttl);
            echo_reply(&mut frame, L3).unwrap();
            prop_assert!(is_whole(&frame, L3));
            prop_assert_eq!((frame[22], frame[34]), (64, 0));
        }
    }
}
