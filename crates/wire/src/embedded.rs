//! The packet that an ICMP error speaks of: reading it, and translating both together.

use zerocopy::FromBytes;

use crate::checksum::{Change, fold, sum};
use crate::icmp::Echoes;
use crate::layout::{ICMP_LEN, IPV4_LEN, IPV4_MAX_LEN, IcmpHeader, Ipv4Header, Ports};
use crate::rewrite::{translate_addresses, translate_packet};
use crate::{Malformed, Translation, Transport, icmp, protocol};

/// What is left in an ICMP error of the packet it is about. It went the other way than the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Its source address.
    pub src: [u8; 4],
    /// Its destination address.
    pub dst: [u8; 4],
    /// Its protocol number.
    pub protocol: u8,
    /// Its ports or echo identifier, where it was a first fragment or whole. Eight bytes of a TCP
    /// header are all that must be there (RFC 792): its flags read as 0.
    pub transport: Transport,
}

/// Reads the packet embedded in an ICMP error (types 3, 4, 11 and 12); `message` is the error's
/// own IPv4 payload. Nothing for other messages and where the embedded IPv4 header is not whole.
#[must_use]
pub fn embedded(message: &[u8]) -> Option<Embedded> {
    let (icmp, packet) = IcmpHeader::ref_from_prefix(message).ok()?;
    // A redirect (5) quotes a packet too, but concerns one link alone and is not forwarded.
    if !matches!(icmp.kind, 3 | 4 | 11 | 12) {
        return None;
    }
    let (ip, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    let header_len = ip.header_len();
    if ip.version_ihl >> 4 != 4 || header_len < IPV4_LEN {
        return None;
    }
    let segment = packet.get(header_len..)?;
    let transport = if ip.is_later_fragment() {
        Transport::None
    } else {
        quoted(ip.protocol, segment, &icmp::ICMP)
    };
    Some(Embedded { src: ip.src, dst: ip.dst, protocol: ip.protocol, transport })
}

/// As [`crate::parse`] reads it, but eight bytes do.
pub(crate) fn quoted(proto: u8, segment: &[u8], echoes: &Echoes) -> Transport {
    let Some(segment) = segment.get(..8) else { return Transport::None };
    let Ok((ports, _)) = Ports::ref_from_prefix(segment) else { return Transport::None };
    let (sport, dport) = (ports.source.get(), ports.destination.get());
    match proto {
        protocol::TCP => Transport::Tcp { sport, dport, flags: 0 },
        protocol::UDP => Transport::Udp { sport, dport },
        number if number == echoes.protocol => echoes.read(segment),
        _ => Transport::None,
    }
}

/// Translates an ICMP error and the packet embedded in it (RFC 5508 REQ-4 and REQ-5).
///
/// `to` is what happens to the packets of the direction the *error* travels in: the error gets its
/// addresses, the embedded packet, which went the other way, the reverse of addresses and ports. So
/// the receiver sees the packet as it sent it, and a router behind the NAT is not named to the
/// outside. Checksums of the embedded packet are mended as far as they are there.
///
/// # Errors
/// [`Malformed::Transport`] where [`embedded`] finds nothing; the frame is as it was.
pub fn translate_error(frame: &mut [u8], l3: usize, to: &Translation) -> Result<(), Malformed> {
    let packet = frame.get_mut(l3..).ok_or(Malformed::Ipv4)?;
    let (ip, _) = Ipv4Header::ref_from_prefix(packet).map_err(|_| Malformed::Ipv4)?;
    let (from, end) = (ip.header_len(), usize::from(ip.total_len.get()).min(packet.len()));
    let is_icmp = ip.protocol == protocol::ICMP;
    let message = packet.get_mut(from..end).ok_or(Malformed::Ipv4)?;
    if !is_icmp || embedded(message).is_none() {
        return Err(Malformed::Transport);
    }
    let (front, quote) = message.split_at_mut(ICMP_LEN);
    // All that changes ends with the checksum of a TCP header behind the longest IPv4 header.
    let reach = quote.len().min(IPV4_MAX_LEN + 18);
    let before = fold(sum(&quote[..reach]));
    translate_packet(quote, &to.reversed());
    let change = Change::default().word(before, fold(sum(&quote[..reach])));
    if let Ok((icmp, _)) = IcmpHeader::mut_from_prefix(front) {
        icmp.checksum.set(change.apply(icmp.checksum.get()));
    }
    if let Ok((ip, _)) = Ipv4Header::mut_from_prefix(packet) {
        translate_addresses(ip, to);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{GATEWAY, L3, REMOTE, VM, any_frame, echo, ipv4, is_whole, tcp, udp};
    use crate::{IcmpError, rewrite};

    const PUBLIC: [u8; 4] = [91, 207, 15, 105];
    /// What happens to a VM's packets on their way out, and to the answers.
    const OUT: Translation = Translation {
        source: PUBLIC,
        destination: [0; 4],
        source_port: 20000,
        destination_port: 0,
    };
    const BACK: Translation = Translation {
        source: [0; 4],
        destination: VM.address,
        source_port: 0,
        destination_port: 5000,
    };

    /// A router's error about the frame, which quotes `quoted` bytes of its packet.
    fn error_about(frame: &[u8], quoted: usize) -> Vec<u8> {
        let mut cut = frame[..frame.len().min(L3 + quoted)].to_vec();
        let len = cut.len();
        cut.resize(len + 28, 0);
        let router = crate::Station { address: [91, 207, 0, 1], ..GATEWAY };
        let (start, len) =
            icmp::error(&mut cut, 0, len, L3, IcmpError::HostUnreachable, router).unwrap();
        cut[start..start + len].to_vec()
    }

    fn translated(mut frame: Vec<u8>, to: &Translation) -> Vec<u8> {
        translate_error(&mut frame, L3, to).unwrap();
        frame
    }

    #[test]
    fn eight_bytes_of_a_header_are_enough_to_know_the_connection() {
        let packets = [
            (udp(5000, 53, b"hello"), Transport::Udp { sport: 5000, dport: 53 }),
            (tcp(5000, 22, 2, &[], b""), Transport::Tcp { sport: 5000, dport: 22, flags: 0 }),
            (echo(true, 77, 1, b""), Transport::Echo { request: true, id: 77 }),
            (echo(false, 77, 1, b""), Transport::Echo { request: false, id: 77 }),
        ];
        for (packet, transport) in packets {
            let error = error_about(&packet, 28);
            let read = embedded(&error[34..]).unwrap();
            let protocol = packet[23];
            assert_eq!(read, Embedded { src: VM.address, dst: REMOTE, protocol, transport });
            let cut = embedded(&error[34..error.len() - 1]).unwrap();
            assert_eq!(cut.transport, Transport::None);
        }
    }

    #[test]
    fn an_embedded_fragment_or_error_has_no_ports() {
        let mut fragment = udp(5000, 53, b"hello");
        fragment[21] = 1;
        let nested = error_about(&udp(5000, 53, b""), 28);
        for packet in [fragment, nested] {
            let error = error_about(&packet, 100);
            assert_eq!(embedded(&error[34..]).unwrap().transport, Transport::None);
        }
    }

    #[test]
    fn options_of_the_embedded_packet_are_stepped_over() {
        let mut packet = udp(5000, 53, b"hello");
        packet.splice(34..34, [1; 8]);
        (packet[14], packet[17]) = (0x47, 20 + 8 + 13);
        let error = error_about(&packet, 36);
        let transport = Transport::Udp { sport: 5000, dport: 53 };
        assert_eq!(embedded(&error[34..]).unwrap().transport, transport);
        assert_eq!(embedded(&error[34..34 + 8 + 27]), None);
    }

    #[test]
    fn what_is_not_an_error_with_a_packet_in_it_is_nothing_and_not_changed() {
        let mut redirect = error_about(&udp(5000, 53, b"hello"), 28);
        redirect[34] = 5;
        let mut version = redirect.clone();
        (version[34], version[42]) = (3, 0x65);
        let mut short_header = version.clone();
        short_header[42] = 0x44;
        let ping = echo(true, 77, 1, &[0x45; 40]);
        for before in [redirect, version, short_header, ping, udp(0x300, 1, &[0x45; 40])] {
            let mut frame = before.clone();
            assert_eq!(translate_error(&mut frame, L3, &BACK), Err(Malformed::Transport));
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn an_error_about_a_translated_packet_comes_back_about_the_one_that_was_sent() {
        let sent = udp(5000, 53, b"hello");
        let mut seen = sent.clone();
        rewrite::translate(&mut seen, L3, &OUT).unwrap();
        let error = translated(error_about(&seen, 28), &BACK);
        assert!(is_whole(&error, L3));
        assert_eq!((ipv4(&error).src, ipv4(&error).dst), ([91, 207, 0, 1], VM.address));
        assert_eq!(error[42..], sent[14..42]);
    }

    #[test]
    fn an_error_of_a_vm_behind_the_nat_does_not_name_it() {
        // The remote host's answer as the VM got it, and what the VM says to it.
        let mut answer = udp(53, 5000, b"late");
        let swap = Translation { source: REMOTE, destination: VM.address, ..Default::default() };
        rewrite::translate(&mut answer, L3, &swap).unwrap();
        let mut error = error_about(&answer, 28);
        let from_vm = Translation { source: VM.address, destination: REMOTE, ..Default::default() };
        rewrite::translate(&mut error, L3, &from_vm).unwrap();
        let error = translated(error, &OUT);
        assert!(is_whole(&error, L3));
        assert_eq!((ipv4(&error).src, ipv4(&error).dst), (PUBLIC, REMOTE));
        let read = embedded(&error[34..]).unwrap();
        assert_eq!((read.src, read.dst), (REMOTE, PUBLIC));
        assert_eq!(read.transport, Transport::Udp { sport: 53, dport: 20000 });
    }

    proptest! {
        #[test]
        fn errors_translated_there_and_back_are_as_they_were(
            sent in any_frame(), quoted in 28usize..120,
        ) {
            // Half a TCP checksum cannot be mended, and nobody quotes that.
            let quoted = if quoted == 37 { 38 } else { quoted };
            let mut seen = sent.clone();
            rewrite::translate(&mut seen, L3, &OUT).unwrap();
            let before = error_about(&seen, quoted);
            let port = u16::from_be_bytes([sent[34], sent[35]]);
            let id = u16::from_be_bytes([sent[38], sent[39]]);
            let source_port = if sent[23] == protocol::ICMP { id } else { port };
            prop_assume!(source_port != 0);
            // An echo reply has its identifier in the other place and is not changed.
            let back = Translation { destination_port: source_port, ..BACK };
            let error = translated(before.clone(), &back);
            prop_assert!(is_whole(&error, L3), "{error:02x?}");
            // What was quoted is what was sent, but for a checksum that is not in the quote.
            prop_assert_eq!(&error[42..], &sent[14..14 + error.len() - 42]);
            let to = Translation { destination: PUBLIC, destination_port: 20000, ..Default::default() };
            prop_assert_eq!(translated(error, &to), before);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = embedded(&bytes);
            if let Some(front) = bytes.first_chunk_mut::<10>() {
                (front[0], front[9]) = (0x45, protocol::ICMP);
            }
            for at in [20, 28] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [3, 0x47][(at - 20) / 8];
                }
            }
            let _ = translate_error(&mut bytes, 0, &BACK);
        }
    }
}
