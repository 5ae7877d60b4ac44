//! A packet's flow: what it is found by, and what it says of its connection.

use conntrack::layout::{FIN, PROTOCOL_OURS, RST};
use conntrack::{Flow, FlowKey, Table};
use wire::{Embedded, Embedded6, Ipv4, Ipv6, Network, Transport, extends_ipv6, protocol};

use crate::Packet;

/// FIN, SYN, RST and ACK of a TCP flag byte.
mod tcp {
    pub(super) const FIN: u8 = 1;
    pub(super) const SYN: u8 = 2;
    pub(super) const RST: u8 = 4;
    pub(super) const ACK: u8 = 16;
}

/// The key of a packet: by addresses and ports where it has them, else by its MAC addresses.
#[inline]
pub(crate) fn key(packet: &Packet<'_>, flows: &Table) -> FlowKey {
    let (ingress, zone) = (packet.ingress.get(), packet.zone.get());
    let headers = &packet.headers;
    let known = match headers.network {
        Network::Ipv4(ip) if !ip.fragment => {
            ipv4(ip.src, ip.dst, ip.protocol, ip.transport, ingress, zone)
        }
        Network::Ipv6(ip) => of_ipv6(packet, &ip, flows),
        _ => None,
    };
    if let Some(key) = known {
        return key;
    }
    let segment = packet.segment.get();
    FlowKey::l2(headers.dst.0, headers.src.0, headers.ethertype, ingress, segment)
}

/// The key of a fragment whose ports are known.
pub(crate) fn of_fragment(packet: &Packet<'_>, ip: &Ipv4) -> Option<FlowKey> {
    let (ingress, zone) = (packet.ingress.get(), packet.zone.get());
    ipv4(ip.src, ip.dst, ip.protocol, ip.transport, ingress, zone)
}

/// The key of an IPv6 packet with a transport header, or of a protocol that has no ports; of a
/// fragment once its ports are known.
#[inline]
pub(crate) fn of_ipv6(packet: &Packet<'_>, ip: &Ipv6, flows: &Table) -> Option<FlowKey> {
    let (src, dst) = packet.ipv6_addresses()?;
    ipv6(flows.fingerprint(src, dst), ip.protocol, ip.transport, packet)
}

#[inline]
fn ipv6(addresses: u64, number: u8, transport: Transport, packet: &Packet<'_>) -> Option<FlowKey> {
    let (sport, dport) = match transport {
        Transport::Tcp { sport, dport, .. } | Transport::Udp { sport, dport } => (sport, dport),
        Transport::Echo { request: true, id } => (id, 0),
        Transport::Echo { request: false, id } => (0, id),
        Transport::None if matches!(number, protocol::ICMP | protocol::ICMPV6) => return None,
        // What is behind those is for the workers to read, each time.
        Transport::None if extends_ipv6(number) => return None,
        Transport::None => (0, 0),
    };
    let (ingress, segment) = (packet.ingress.get(), packet.segment.get());
    Some(FlowKey::ipv6(addresses, sport, dport, number, ingress, segment))
}

/// The key of a whole packet; one of a protocol without ports has zeros in their place.
#[inline]
fn ipv4(
    src: [u8; 4],
    dst: [u8; 4],
    number: u8,
    transport: Transport,
    ingress: u16,
    zone: u16,
) -> Option<FlowKey> {
    Some(match transport {
        Transport::Tcp { sport, dport, .. } => {
            FlowKey::ipv4(src, dst, sport, dport, protocol::TCP, ingress, zone)
        }
        Transport::Udp { sport, dport } => {
            FlowKey::ipv4(src, dst, sport, dport, protocol::UDP, ingress, zone)
        }
        Transport::Echo { request, id } => FlowKey::echo(src, dst, id, request, ingress, zone),
        // ICMP that is neither echo nor error asks hosts of one link things (RFC 1122 §3.2.2).
        // The last protocols are nobody's (IANA), and mark lines of another kind.
        Transport::None if number == protocol::ICMP || number >= PROTOCOL_OURS => return None,
        Transport::None => FlowKey::ipv4(src, dst, 0, 0, number, ingress, zone),
    })
}

/// The key of the flow an ICMP error belongs to: that of the answers to the packet it quotes.
pub(crate) fn related(packet: &Packet<'_>, quoted: &Embedded) -> Option<FlowKey> {
    let (ingress, zone) = (packet.ingress.get(), packet.zone.get());
    let quoted = ipv4(quoted.src, quoted.dst, quoted.protocol, quoted.transport, ingress, zone)?;
    Some(quoted.reversed(ingress, zone))
}

/// The same of ICMPv6.
pub(crate) fn related6(packet: &Packet<'_>, quoted: &Embedded6, flows: &Table) -> Option<FlowKey> {
    let answers = match quoted.transport {
        Transport::Tcp { sport, dport, flags } => {
            Transport::Tcp { sport: dport, dport: sport, flags }
        }
        Transport::Udp { sport, dport } => Transport::Udp { sport: dport, dport: sport },
        Transport::Echo { request, id } => Transport::Echo { request: !request, id },
        Transport::None => Transport::None,
    };
    ipv6(flows.fingerprint(quoted.dst, quoted.src), quoted.protocol, answers, packet)
}

/// Whether it opens no connection by its nature: an echo reply, a TCP packet that grants a
/// connection or ends one.
pub(crate) fn is_answer(packet: &Packet<'_>) -> bool {
    match transport(packet) {
        Transport::Echo { request, .. } => !request,
        Transport::Tcp { .. } => !opens(packet) && !is_underway(packet),
        Transport::Udp { .. } | Transport::None => false,
    }
}

/// Whether it is of a TCP connection that is open for those who speak.
pub(crate) fn is_underway(packet: &Packet<'_>) -> bool {
    tcp_flags(packet) & (tcp::SYN | tcp::ACK | tcp::FIN | tcp::RST) == tcp::ACK
}

/// Whether it asks for a TCP connection or grants one: only then are options negotiated.
#[inline]
pub(crate) fn is_syn(packet: &Packet<'_>) -> bool {
    tcp_flags(packet) & tcp::SYN != 0
}

/// What the packet says of its connection's end.
#[inline]
pub(crate) fn state_bits(packet: &Packet<'_>) -> u16 {
    let flags = tcp_flags(packet);
    (if flags & tcp::FIN != 0 { FIN } else { 0 }) | (if flags & tcp::RST != 0 { RST } else { 0 })
}

/// Whether the packet opens a connection anew whose line has seen its end.
#[inline]
pub(crate) fn reopens(packet: &Packet<'_>, flow: &Flow) -> bool {
    opens(packet) && flow.bits() & (FIN | RST) != 0
}

/// Whether it can only be the first packet of a connection.
pub(crate) fn opens(packet: &Packet<'_>) -> bool {
    tcp_flags(packet) & (tcp::SYN | tcp::ACK | tcp::FIN | tcp::RST) == tcp::SYN
}

#[inline]
fn tcp_flags(packet: &Packet<'_>) -> u8 {
    match transport(packet) {
        Transport::Tcp { flags, .. } => flags,
        _ => 0,
    }
}

#[inline]
fn transport(packet: &Packet<'_>) -> Transport {
    match packet.headers.network {
        Network::Ipv4(ip) => ip.transport,
        Network::Ipv6(ip) => ip.transport,
        Network::Arp(_) | Network::Other => Transport::None,
    }
}
