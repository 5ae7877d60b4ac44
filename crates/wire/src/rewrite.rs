//! What routing and NAT do to an IPv4 packet in its frame: new MACs, one hop less, new addresses
//! and ports.
//!
//! Every checksum is brought up to date by the words that changed (RFC 1624), so a whole one stays
//! whole and a wrong one stays wrong; the receiver finds out. Checksums that a guest left partial
//! ([`crate::checksum::is_partial`]) must not get here. Frames are those [`crate::parse`] took; an
//! offset `l3` is theirs. A frame too short for a change is left as it is.

use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use crate::checksum::Change;
use crate::layout::{EthernetHeader, IcmpHeader, Ipv4Header, Ports};
use crate::{MacAddr, Malformed, icmp, protocol};

/// New addresses and ports for the packets of one direction of a connection.
///
/// Zero (0.0.0.0, port 0) leaves the packet's own, as in a line of the connection table. An ICMP
/// echo request's identifier is its source port, a reply's the destination port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// New source address.
    pub source: [u8; 4],
    /// New destination address.
    pub destination: [u8; 4],
    /// New source port.
    pub source_port: u16,
    /// New destination port.
    pub destination_port: u16,
}

impl Translation {
    /// The same for a packet that travels the other way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Gives the frame new Ethernet addresses.
#[inline]
pub fn set_macs(frame: &mut [u8], dst: MacAddr, src: MacAddr) {
    if let Ok((ethernet, _)) = EthernetHeader::mut_from_prefix(frame) {
        (ethernet.dst, ethernet.src) = (dst.0, src.0);
    }
}

/// Takes one hop off the packet's time to live. A packet with none or one left is answered, not
/// forwarded ([`icmp::error`]); at 0 it stays.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], l3: usize) {
    if let Some(ip) = header(frame, l3) {
        set_ttl(ip, ip.ttl.saturating_sub(1));
    }
}

#[inline]
pub(crate) fn set_ttl(ip: &mut Ipv4Header, ttl: u8) {
    let word = |ttl| u16::from_be_bytes([ttl, ip.protocol]);
    let change = Change::default().word(word(ip.ttl), word(ttl));
    ip.checksum.set(change.apply(ip.checksum.get()));
    ip.ttl = ttl;
}

/// Gives the packet new addresses and ports.
///
/// Later fragments and protocols other than TCP, UDP and ICMP echo have no ports; of them the
/// addresses change alone. An ICMP error needs more: [`crate::translate_error`].
///
/// # Errors
/// [`Malformed::Transport`] for a first fragment that ends before its transport checksum (RFC 1858
/// tells what such are made for); the frame is as it was and must not go on.
#[inline]
pub fn translate(frame: &mut [u8], l3: usize, to: &Translation) -> Result<(), Malformed> {
    let packet = frame.get_mut(l3..).ok_or(Malformed::Ipv4)?;
    let (ip, _) = Ipv4Header::ref_from_prefix(packet).map_err(|_| Malformed::Ipv4)?;
    if !ip.is_later_fragment() {
        let needed = match ip.protocol {
            protocol::TCP => 18,
            protocol::UDP | protocol::ICMP => 8,
            _ => 0,
        };
        if usize::from(ip.total_len.get()).min(packet.len()) < ip.header_len() + needed {
            return Err(Malformed::Transport);
        }
    }
    translate_packet(packet, to);
    Ok(())
}

/// Translates the packet that `packet` begins with, as far as it is there: the one a router quotes
/// in an error may end before its transport checksum.
#[inline]
pub(crate) fn translate_packet(packet: &mut [u8], to: &Translation) {
    let Ok((ip, _)) = Ipv4Header::mut_from_prefix(packet) else { return };
    let change = translate_addresses(ip, to);
    if ip.is_later_fragment() {
        return;
    }
    let (protocol, from) = (ip.protocol, ip.header_len());
    let end = usize::from(ip.total_len.get()).min(packet.len());
    let Some(segment) = packet.get_mut(from..end) else { return };
    match protocol {
        protocol::TCP | protocol::UDP => translate_ports(segment, protocol, change, to),
        protocol::ICMP => translate_echo(segment, to),
        _ => {}
    }
}

/// Changes the addresses; returns what that does to a checksum with a pseudo header.
#[inline]
pub(crate) fn translate_addresses(ip: &mut Ipv4Header, to: &Translation) -> Change {
    let mut change = Change::default();
    for (field, new) in [(&mut ip.src, to.source), (&mut ip.dst, to.destination)] {
        if new != [0; 4] {
            change = change.address(*field, new);
            *field = new;
        }
    }
    ip.checksum.set(change.apply(ip.checksum.get()));
    change
}

#[inline]
fn translate_ports(segment: &mut [u8], protocol: u8, addresses: Change, to: &Translation) {
    let Ok((ports, rest)) = Ports::mut_from_prefix(segment) else { return };
    let change = set_port(&mut ports.source, to.source_port, addresses);
    let change = set_port(&mut ports.destination, to.destination_port, change);
    // Where the checksum is, behind the ports.
    let at = if protocol == protocol::TCP { 12 } else { 2 };
    let Some(Ok((checksum, _))) = rest.get_mut(at..).map(U16::mut_from_prefix) else { return };
    match (protocol, checksum.get()) {
        (protocol::TCP, old) => checksum.set(change.apply(old)),
        // A datagram without a checksum stays one (RFC 768).
        (_, 0) => {}
        (_, old) => checksum.set(change.apply_nonzero(old)),
    }
}

#[inline]
fn translate_echo(message: &mut [u8], to: &Translation) {
    let Ok((icmp, _)) = IcmpHeader::mut_from_prefix(message) else { return };
    let new = match icmp.kind {
        icmp::ECHO_REQUEST => to.source_port,
        icmp::ECHO_REPLY => to.destination_port,
        _ => return,
    };
    let change = set_port(&mut icmp.id, new, Change::default());
    icmp.checksum.set(change.apply(icmp.checksum.get()));
}

fn set_port(field: &mut U16, new: u16, change: Change) -> Change {
    let old = field.get();
    if new == 0 || new == old {
        return change;
    }
    field.set(new);
    change.word(old, new)
}

pub(crate) fn header(frame: &mut [u8], l3: usize) -> Option<&mut Ipv4Header> {
    Some(Ipv4Header::mut_from_prefix(frame.get_mut(l3..)?).ok()?.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{L3, REMOTE, VM, any_frame, echo, ipv4, is_whole, tcp, udp};
    use crate::{Transport, checksum};

    const SNAT: Translation = Translation {
        source: [91, 207, 15, 105],
        destination: [0; 4],
        source_port: 20000,
        destination_port: 0,
    };

    fn translated(mut frame: Vec<u8>, to: &Translation) -> Vec<u8> {
        translate(&mut frame, L3, to).unwrap();
        frame
    }

    #[test]
    fn routing_changes_macs_and_ttl_and_nothing_else() {
        let before = udp(5000, 53, b"hello");
        let mut frame = before.clone();
        set_macs(&mut frame, MacAddr([2; 6]), MacAddr([4; 6]));
        decrement_ttl(&mut frame, L3);
        assert_eq!(frame[..12], [2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4]);
        assert_eq!((frame[22], is_whole(&frame, L3)), (63, true));
        frame[22..26].copy_from_slice(&before[22..26]);
        assert_eq!(frame[12..], before[12..]);
    }

    #[test]
    fn ttl_ends_at_zero_with_its_checksum_right() {
        let mut frame = udp(5000, 53, b"");
        for ttl in (0..64).rev().chain([0]) {
            decrement_ttl(&mut frame, L3);
            assert_eq!((frame[22], is_whole(&frame, L3)), (ttl, true));
        }
    }

    #[test]
    fn a_request_leaves_with_the_address_and_port_it_is_given() {
        let out = translated(tcp(40000, 22, 2, &[2, 4, 5, 180], b""), &SNAT);
        let ip = ipv4(&out);
        assert_eq!((ip.src, ip.dst), (SNAT.source, REMOTE));
        assert_eq!(ip.transport, Transport::Tcp { sport: 20000, dport: 22, flags: 2 });
        assert!(is_whole(&out, L3));
    }

    #[test]
    fn an_echo_has_its_identifier_for_the_port_of_who_asks() {
        let request = translated(echo(true, 77, 1, b"ping!"), &SNAT);
        assert_eq!(ipv4(&request).transport, Transport::Echo { request: true, id: 20000 });
        let back = Translation { destination_port: 77, source_port: 5, ..Default::default() };
        let reply = translated(echo(false, 20000, 1, b"ping!"), &back);
        assert_eq!(ipv4(&reply).transport, Transport::Echo { request: false, id: 77 });
        assert!(is_whole(&request, L3) && is_whole(&reply, L3));
        // A request's line says nothing of the other place.
        let back = Translation { source_port: 0, ..back };
        let same = translated(echo(true, 77, 1, b"ping!"), &back);
        assert_eq!(ipv4(&same).transport, Transport::Echo { request: true, id: 77 });
    }

    #[test]
    fn a_datagram_without_checksum_stays_without() {
        let mut frame = udp(5000, 53, b"hello");
        frame[40..42].fill(0);
        let out = translated(frame, &SNAT);
        assert_eq!(out[40..42], [0, 0]);
        assert!(is_whole(&out, L3));
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_its_other_zero() {
        // The port that makes all words add up to 0xffff.
        let mut frame = translated(udp(5000, 53, b"hello"), &SNAT);
        frame[40..42].fill(0);
        let ip = ipv4(&frame);
        let length = u32::from(ip.total_len) - 20;
        let rest = checksum::sum(&frame[26..47]) + 17 + length - 20000;
        let port = !checksum::fold(rest);
        let out = translated(udp(5000, 53, b"hello"), &Translation { source_port: port, ..SNAT });
        assert_eq!(out[40..42], [0xff, 0xff]);
        assert!(is_whole(&out, L3));
    }

    #[test]
    fn a_later_fragment_changes_addresses_alone() {
        let mut frame = udp(5000, 53, b"no ports are here");
        frame[21] = 3;
        frame[24..26].fill(0);
        let header = !checksum::fold(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&header.to_be_bytes());
        let out = translated(frame.clone(), &SNAT);
        assert_eq!(ipv4(&out).src, SNAT.source);
        assert!(is_whole(&out, L3));
        assert_eq!(out[34..], frame[34..]);
    }

    #[test]
    fn a_first_fragment_has_its_ports_and_checksum_changed() {
        let whole = udp(5000, 53, b"sixteen and more");
        let mut frame = whole.clone();
        frame[20] |= 0x20;
        let (out, whole) = (translated(frame, &SNAT), translated(whole, &SNAT));
        assert_eq!(out[34..], whole[34..]);
    }

    #[test]
    fn a_first_fragment_without_a_whole_tcp_header_is_refused() {
        let mut frame = tcp(40000, 22, 2, &[], b"");
        frame[16..18].copy_from_slice(&37u16.to_be_bytes());
        frame[20] = 0x20;
        let before = frame.clone();
        assert_eq!(translate(&mut frame, L3, &SNAT), Err(Malformed::Transport));
        assert_eq!(translate(&mut frame[..20], L3, &SNAT), Err(Malformed::Ipv4));
        assert_eq!(frame, before);
    }

    fn any_translation() -> impl Strategy<Value = Translation> {
        let end = || (any::<bool>(), any::<[u8; 4]>(), prop_oneof![Just(0), any::<u16>()]);
        (end(), end()).prop_map(|(from, to)| Translation {
            source: if from.0 { from.1 } else { [0; 4] },
            destination: if to.0 { to.1 } else { [0; 4] },
            source_port: from.2,
            destination_port: to.2,
        })
    }

    /// The translation that takes a frame to where it was.
    fn original(frame: &[u8]) -> Translation {
        let ip = ipv4(frame);
        let (source_port, destination_port) = match ip.transport {
            Transport::Tcp { sport, dport, .. } | Transport::Udp { sport, dport } => (sport, dport),
            Transport::Echo { id, .. } => (id, id),
            Transport::None => (0, 0),
        };
        Translation { source: ip.src, destination: ip.dst, source_port, destination_port }
    }

    proptest! {
        #[test]
        fn what_is_translated_has_whole_checksums(before in any_frame(), to in any_translation()) {
            prop_assert!(is_whole(&before, L3));
            let frame = translated(before, &to);
            prop_assert!(is_whole(&frame, L3), "{frame:02x?}");
        }

        #[test]
        fn what_is_translated_there_and_back_is_as_it_was(
            before in any_frame(), to in any_translation(),
        ) {
            let back = original(&before);
            // Zero means "leave": a port of zero has no way back.
            let to = Translation {
                source_port: if back.source_port == 0 { 0 } else { to.source_port },
                destination_port: if back.destination_port == 0 { 0 } else { to.destination_port },
                ..to
            };
            let frame = translated(translated(before.clone(), &to), &back);
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn no_bytes_make_a_change_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
                                        l3 in 0usize..130, proto in 0usize..3) {
            if let Some(header) = bytes.get_mut(l3..l3 + 10) {
                header[9] = [1, 6, 17][proto];
            }
            let _ = translate(&mut bytes, l3, &Translation { source: VM.address, ..SNAT });
            decrement_ttl(&mut bytes, l3);
        }
    }
}
