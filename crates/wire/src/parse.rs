//! What is in a frame: read once, at fixed offsets, into plain values.

use zerocopy::FromBytes;

use crate::icmp::Echoes;
use crate::layout::{ArpPacket, DF, EthernetHeader, ICMP_LEN, Ipv4Header, MF, OFFSET, TagHeader};
use crate::{ETHERNET_LEN, MacAddr, TAG_LEN, ethertype, icmp, protocol, vlan};

/// What one frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Destination station.
    pub dst: MacAddr,
    /// Source station.
    pub src: MacAddr,
    /// VLAN of the outermost tag; 0 is a priority tag, which names none.
    pub vlan: Option<u16>,
    /// Number of tags: 2 says "two or more".
    pub tags: u8,
    /// EtherType behind the tags.
    pub ethertype: u16,
    /// Offset of what the EtherType names, bytes from the start of the frame.
    pub l3: u16,
    /// The network layer, as far as forwarding needs it.
    pub network: Network,
}

/// The network layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4; lengths and addresses checked against the frame.
    Ipv4(Ipv4),
    /// IPv6; its length checked against the frame, its addresses read by [`crate::ipv6_addresses`].
    Ipv6(Ipv6),
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// Anything else, and frames with two tags.
    Other,
}

/// What forwarding needs of an IPv4 header (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
    /// Protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Length of the header with its options, bytes: more than 20 where there are any.
    pub header_len: u8,
    /// Length of the packet, bytes; never more than the frame holds.
    pub total_len: u16,
    /// Whether it is a piece of a larger packet, first or later.
    pub fragment: bool,
    /// Where in the larger packet's payload this piece begins, bytes; 0 in the first and in a
    /// whole packet.
    pub fragment_offset: u16,
    /// Whether nobody on the way may cut it (RFC 791).
    pub dont_fragment: bool,
    /// Whether it is a whole ICMP error, which speaks of another packet: [`crate::embedded`].
    pub icmp_error: bool,
    /// The transport header, where this packet carries it.
    pub transport: Transport,
}

/// What forwarding needs of an IPv6 header (RFC 8200); it is only ever bridged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// What is behind the header: a protocol, or an extension header.
    pub protocol: u8,
    /// Whether that is a fragment header.
    pub fragment: bool,
    /// Whether it is a whole ICMPv6 error, which speaks of another packet: [`crate::embedded6`].
    pub icmp_error: bool,
    /// The transport header, where it is the next thing in this packet.
    pub transport: Transport,
}

/// The transport header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP: ports and flag byte (RFC 9293).
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
        flags: u8,
    },
    /// UDP (RFC 768).
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// ICMP echo (RFC 792, RFC 4443 §4): whether it asks, and its identifier.
    Echo {
        /// A request, else a reply.
        request: bool,
        /// Identifier.
        id: u16,
    },
    /// A fragment, an ICMP error, a protocol without ports or what is behind an extension header.
    None,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 request, 2 reply.
    pub operation: u16,
    /// Who speaks.
    pub sender_mac: MacAddr,
    /// The address it speaks for; 0.0.0.0 in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// The address asked for.
    pub target: [u8; 4],
}

/// Why a frame cannot be forwarded whatever the tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than an Ethernet header, or cut within a tag.
    Runt,
    /// An ARP packet that is cut short or speaks of other address kinds.
    Arp,
    /// An IPv4 header whose version or lengths contradict the frame.
    Ipv4,
    /// A transport header cut short by the packet's own length.
    Transport,
    /// An IPv6 header whose version or length contradicts the frame.
    Ipv6,
}

/// Reads a frame's headers.
///
/// # Errors
/// [`Malformed`] where the frame contradicts itself: no later stage may trust its lengths.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Headers, Malformed> {
    let (ethernet, rest) = EthernetHeader::ref_from_prefix(frame).map_err(|_| Malformed::Runt)?;
    let mut headers = Headers {
        dst: MacAddr(ethernet.dst),
        src: MacAddr(ethernet.src),
        vlan: None,
        tags: 0,
        ethertype: ethernet.ethertype.get(),
        l3: ETHERNET_LEN as u16,
        network: Network::Other,
    };
    let mut payload = rest;
    while is_tag(headers.ethertype) {
        if headers.tags == 1 {
            headers.tags = 2;
            return Ok(headers);
        }
        let (tag, rest) = TagHeader::ref_from_prefix(payload).map_err(|_| Malformed::Runt)?;
        headers.vlan = Some(tag.tci.get() & vlan::VID_MASK);
        headers.tags = 1;
        headers.ethertype = tag.ethertype.get();
        headers.l3 += TAG_LEN as u16;
        payload = rest;
    }
    headers.network = match headers.ethertype {
        ethertype::IPV4 => Network::Ipv4(ipv4(payload)?),
        ethertype::ARP => Network::Arp(arp(payload)?),
        ethertype::IPV6 => ipv6(payload)?,
        _ => Network::Other,
    };
    Ok(headers)
}

#[inline]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == ethertype::VLAN || ethertype == ethertype::SERVICE_VLAN
}

#[inline]
fn ipv4(payload: &[u8]) -> Result<Ipv4, Malformed> {
    let (header, _) = Ipv4Header::ref_from_prefix(payload).map_err(|_| Malformed::Ipv4)?;
    let header_len = usize::from(header.version_ihl & 0x0f) * 4;
    let total_len = usize::from(header.total_len.get());
    if header.version_ihl >> 4 != 4
        || header_len < 20
        || total_len < header_len
        || total_len > payload.len()
    {
        return Err(Malformed::Ipv4);
    }
    let flags_fragment = header.flags_fragment.get();
    let fragment = flags_fragment & (MF | OFFSET) != 0;
    let mut icmp_error = false;
    let transport = if fragment {
        Transport::None
    } else {
        let segment = payload.get(header_len..total_len).ok_or(Malformed::Ipv4)?;
        icmp_error = header.protocol == protocol::ICMP
            && segment.first().is_some_and(|kind| icmp::is_error(*kind));
        transport(header.protocol, segment, &icmp::ICMP)?
    };
    Ok(Ipv4 {
        src: header.src,
        dst: header.dst,
        protocol: header.protocol,
        ttl: header.ttl,
        header_len: header_len as u8,
        total_len: total_len as u16,
        fragment,
        fragment_offset: (flags_fragment & OFFSET) << 3,
        dont_fragment: flags_fragment & DF != 0,
        icmp_error,
        transport,
    })
}

#[inline]
fn transport(proto: u8, segment: &[u8], echoes: &Echoes) -> Result<Transport, Malformed> {
    let word = |at: usize| segment.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let cut = Malformed::Transport;
    match proto {
        protocol::TCP => {
            let offset = usize::from(*segment.get(12).ok_or(cut)? >> 4) * 4;
            if offset < 20 || offset > segment.len() {
                return Err(cut);
            }
            let flags = segment[13];
            Ok(Transport::Tcp { sport: word(0).ok_or(cut)?, dport: word(2).ok_or(cut)?, flags })
        }
        protocol::UDP => {
            // 0 would be a jumbogram, which IPv4 does not have (RFC 2675).
            let length = usize::from(word(4).ok_or(cut)?);
            if length < 8 || length > segment.len() {
                return Err(cut);
            }
            Ok(Transport::Udp { sport: word(0).ok_or(cut)?, dport: word(2).ok_or(cut)? })
        }
        number if number == echoes.protocol => {
            if segment.len() < ICMP_LEN {
                Err(cut)
            } else {
                Ok(echoes.read(segment))
            }
        }
        _ => Ok(Transport::None),
    }
}

fn arp(payload: &[u8]) -> Result<Arp, Malformed> {
    let (arp, _) = ArpPacket::ref_from_prefix(payload).map_err(|_| Malformed::Arp)?;
    let ethernet_ipv4 = arp.hardware.get() == 1
        && arp.protocol.get() == ethertype::IPV4
        && (arp.hardware_len, arp.protocol_len) == (6, 4);
    if !ethernet_ipv4 {
        return Err(Malformed::Arp);
    }
    Ok(Arp {
        operation: arp.operation.get(),
        sender_mac: MacAddr(arp.sender_mac),
        sender: arp.sender,
        target: arp.target,
    })
}

fn ipv6(payload: &[u8]) -> Result<Network, Malformed> {
    let (header, rest) = payload.split_first_chunk::<40>().ok_or(Malformed::Ipv6)?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let segment = rest.get(..payload_len).ok_or(Malformed::Ipv6)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Ipv6);
    }
    let number = header[6];
    Ok(Network::Ipv6(Ipv6 {
        protocol: number,
        fragment: number == protocol::FRAGMENT_6,
        icmp_error: number == protocol::ICMPV6
            && segment.first().is_some_and(|kind| *kind < icmp::ICMPV6.request),
        transport: transport(number, segment, &icmp::ICMPV6)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_VM1: [u8; 12] = [0xfa, 0x16, 0x3e, 0, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 2];

    fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&TO_VM1[..], &ethertype.to_be_bytes(), payload].concat()
    }

    /// A TCP SYN 10.0.0.4:40000 → 10.0.0.3:22 as tcpdump -xx showed it.
    fn syn() -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 4, 10, 0, 0, 3];
        packet.extend([0x9c, 0x40, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xfa, 0xf0, 0, 0, 0, 0]);
        packet
    }

    #[test]
    fn a_tagged_tcp_segment_is_read_whole() {
        let tagged = frame(ethertype::VLAN, &[&[0x60, 100, 8, 0][..], &syn()].concat());
        let headers = parse(&tagged).unwrap();
        assert_eq!((headers.vlan, headers.tags, headers.l3), (Some(100), 1, 18));
        let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
        assert_eq!((ip.src, ip.dst, ip.ttl), ([10, 0, 0, 4], [10, 0, 0, 3], 64));
        assert_eq!(ip.transport, Transport::Tcp { sport: 40000, dport: 22, flags: 2 });
    }

    #[test]
    fn a_second_tag_ends_the_reading() {
        let double = frame(ethertype::VLAN, &[0, 100, 0x81, 0, 0, 102, 8, 0]);
        let headers = parse(&double).unwrap();
        assert_eq!((headers.vlan, headers.tags, headers.network), (Some(100), 2, Network::Other));
    }

    #[test]
    fn a_fragment_has_no_ports_even_when_it_is_the_first() {
        let mut packet = syn();
        packet[6] = 0x20;
        let headers = parse(&frame(ethertype::IPV4, &packet)).unwrap();
        let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
        assert!(ip.fragment && !ip.dont_fragment);
        assert_eq!((ip.fragment_offset, ip.transport), (0, Transport::None));
    }

    #[test]
    fn a_later_fragment_says_where_it_belongs_and_need_not_hold_a_transport_header() {
        let mut packet = syn()[..24].to_vec();
        packet[3] = 24;
        packet[6..8].copy_from_slice(&[0x1f, 0xff]);
        let headers = parse(&frame(ethertype::IPV4, &packet)).unwrap();
        let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
        assert_eq!((ip.fragment, ip.fragment_offset), (true, 65528));
    }

    #[test]
    fn icmp_errors_are_told_from_questions_and_answers() {
        let kinds = [(0, false), (3, true), (4, true), (5, true), (8, false), (11, true)];
        let udp_from_a_port_that_begins_so = (17, 3, false);
        let icmp = kinds.map(|(kind, error)| (1, kind, error));
        for (protocol, kind, error) in icmp.into_iter().chain([udp_from_a_port_that_begins_so]) {
            let mut packet =
                vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 3, 10, 0, 0, 4];
            packet.extend([kind, 0, 0, 0, 0, 8, 0, 0]);
            let headers = parse(&frame(ethertype::IPV4, &packet)).unwrap();
            let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
            assert_eq!((ip.icmp_error, ip.dont_fragment), (error, true), "{kind}");
        }
    }

    #[test]
    fn echo_requests_and_replies_carry_their_identifier() {
        for (kind, request) in [(8, true), (0, false)] {
            let mut packet =
                vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 3, 10, 0, 0, 4];
            packet.extend([kind, 0, 0, 0, 0xbe, 0xef, 0, 1]);
            let headers = parse(&frame(ethertype::IPV4, &packet)).unwrap();
            let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
            assert_eq!(ip.transport, Transport::Echo { request, id: 0xbeef });
        }
    }

    #[test]
    fn lengths_that_contradict_the_frame_are_malformed() {
        let mut long = syn();
        long[3] = 41;
        let mut short_header = syn();
        short_header[0] = 0x44;
        let mut version = syn();
        version[0] = 0x65;
        for packet in [long, short_header, version, syn()[..19].to_vec()] {
            assert_eq!(parse(&frame(ethertype::IPV4, &packet)), Err(Malformed::Ipv4));
        }
        let mut offset = syn();
        offset[32] = 0xf0;
        assert_eq!(parse(&frame(ethertype::IPV4, &offset)), Err(Malformed::Transport));
        assert_eq!(parse(&TO_VM1), Err(Malformed::Runt));
        assert_eq!(parse(&frame(ethertype::VLAN, &[0, 100])), Err(Malformed::Runt));
        assert_eq!(parse(&frame(ethertype::IPV6, &[0x60; 39])), Err(Malformed::Ipv6));
    }

    #[test]
    fn an_arp_probe_is_read_and_a_foreign_one_refused() {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 2, 0, 0, 0, 0];
        arp.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 4]);
        let headers = parse(&frame(ethertype::ARP, &arp)).unwrap();
        let Network::Arp(probe) = headers.network else { panic!("{headers:?}") };
        assert_eq!((probe.operation, probe.sender, probe.target), (1, [0; 4], [10, 0, 0, 4]));
        arp[4] = 8;
        assert_eq!(parse(&frame(ethertype::ARP, &arp)), Err(Malformed::Arp));
        assert_eq!(parse(&frame(ethertype::ARP, &arp[..27])), Err(Malformed::Arp));
    }

    #[test]
    fn each_family_has_its_own_icmp_and_the_others_is_a_protocol_without_ports() {
        let echo = [128, 0, 0, 0, 0, 7, 0, 1];
        let mut packet = syn()[..20].to_vec();
        packet[3] = 28;
        packet[9] = protocol::ICMPV6;
        let headers = parse(&frame(ethertype::IPV4, &[&packet[..], &echo].concat())).unwrap();
        let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
        assert_eq!((ip.transport, ip.icmp_error), (Transport::None, false));
        packet[3] = 21;
        assert!(parse(&frame(ethertype::IPV4, &[&packet[..], &[128]].concat())).is_ok());
    }

    #[test]
    fn of_ipv6_the_transport_is_read_where_it_is_next() {
        let packet = |next: u8, payload: &[u8]| {
            let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
            packet.extend([0xfd; 32]);
            packet.extend(payload);
            parse(&frame(ethertype::IPV6, &packet)).map(|headers| match headers.network {
                Network::Ipv6(ip) => (ip.transport, ip.fragment, ip.icmp_error),
                other => panic!("{other:?}"),
            })
        };
        let tcp = Transport::Tcp { sport: 40000, dport: 22, flags: 2 };
        assert_eq!(packet(6, &syn()[20..]), Ok((tcp, false, false)));
        let echo = Transport::Echo { request: false, id: 7 };
        assert_eq!(packet(58, &[129, 0, 0, 0, 0, 7, 0, 1]), Ok((echo, false, false)));
        assert_eq!(packet(58, &[2, 0, 0, 0, 0, 0, 5, 0]), Ok((Transport::None, false, true)));
        assert_eq!(packet(58, &[135, 0, 0, 0, 0, 0, 0, 0]), Ok((Transport::None, false, false)));
        assert_eq!(packet(44, &[6, 0, 0, 1, 0, 0, 0, 7]), Ok((Transport::None, true, false)));
        assert_eq!(packet(1, &[8]), Ok((Transport::None, false, false)), "ICMP is IPv4's");
        let cut = Err(Malformed::Transport);
        assert_eq!([packet(6, &[0; 19]), packet(17, &[0; 8]), packet(58, &[128, 0])], [cut; 3]);
        assert_eq!([packet(58, &[]), packet(58, &[135, 0, 0, 0])], [cut; 2]);
    }
}
