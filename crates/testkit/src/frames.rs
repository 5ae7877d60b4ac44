//! Frames to order, built by etherparse: another hand than the one that parses them.

use etherparse::{PacketBuilder, TcpHeader};
use wire::MacAddr;

/// The MAC address of VM N, as in the lab.
pub fn vm_mac(number: u8) -> MacAddr {
    MacAddr([0xfa, 0x16, 0x3e, 0, 0, number])
}

/// An Ethernet frame with any payload.
pub fn ethernet(src: MacAddr, dst: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0[..], &ethertype.to_be_bytes(), payload].concat()
}

/// The frame with an 802.1Q tag.
pub fn tag(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// A UDP datagram.
pub fn udp(src: (MacAddr, [u8; 4], u16), dst: (MacAddr, [u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(src.0.0, dst.0.0).ipv4(src.1, dst.1, 64).udp(src.2, dst.2);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A TCP segment; `flags` as in the header (FIN 1, SYN 2, RST 4, ACK 16).
pub fn tcp(
    src: (MacAddr, [u8; 4], u16),
    dst: (MacAddr, [u8; 4], u16),
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = TcpHeader::new(src.2, dst.2, 1000, 65000);
    header.fin = flags & 1 != 0;
    header.syn = flags & 2 != 0;
    header.rst = flags & 4 != 0;
    header.ack = flags & 16 != 0;
    let builder =
        PacketBuilder::ethernet2(src.0.0, dst.0.0).ipv4(src.1, dst.1, 64).tcp_header(header);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// An ICMP echo request, or its reply.
pub fn echo(src: (MacAddr, [u8; 4]), dst: (MacAddr, [u8; 4]), request: bool, id: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(src.0.0, dst.0.0).ipv4(src.1, dst.1, 64);
    let builder =
        if request { builder.icmpv4_echo_request(id, 1) } else { builder.icmpv4_echo_reply(id, 1) };
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 56]).unwrap();
    frame
}

/// An ARP request for `target`, broadcast.
pub fn arp_request(src: (MacAddr, [u8; 4]), target: [u8; 4]) -> Vec<u8> {
    arp(1, src, (MacAddr::ZERO, target), MacAddr::BROADCAST)
}

/// The answer to one.
pub fn arp_reply(src: (MacAddr, [u8; 4]), dst: (MacAddr, [u8; 4])) -> Vec<u8> {
    arp(2, src, dst, dst.0)
}

fn arp(operation: u8, src: (MacAddr, [u8; 4]), target: (MacAddr, [u8; 4]), to: MacAddr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(src.0.0);
    body.extend(src.1);
    body.extend(target.0.0);
    body.extend(target.1);
    body.resize(46, 0); // padding to the shortest Ethernet frame
    ethernet(src.0, to, 0x0806, &body)
}

/// An IPv6 packet of any protocol; an ICMPv6 message gets its checksum.
pub fn ipv6(
    src: (MacAddr, [u8; 16]),
    dst: (MacAddr, [u8; 16]),
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let length = payload.len() as u16;
    if next == 58 {
        let pseudo = [&src.1[..], &dst.1, &u32::from(length).to_be_bytes(), &[0, 0, 0, 58]];
        let sum = wire::checksum::sum(&[&pseudo.concat()[..], &payload].concat());
        payload[2..4].copy_from_slice(&(!wire::checksum::fold(sum)).to_be_bytes());
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 255]);
    packet.extend([src.1, dst.1].concat());
    packet.extend(payload);
    ethernet(src.0, dst.0, 0x86dd, &packet)
}

/// The link-local address that a station makes of its MAC address.
pub fn link_local(mac: MacAddr) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&[0xfe, 0x80]);
    address[8..].copy_from_slice(&mac.interface_id());
    address
}

/// A message of neighbour discovery about `target`, with one link-layer address option: a
/// solicitation (135) says the source's, an advertisement (136) the target's.
pub fn discovery(kind: u8, target: [u8; 16], claims: MacAddr) -> Vec<u8> {
    let option = if kind == 136 { 2 } else { 1 };
    [&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &target, &[option, 1], &claims.0].concat()
}

/// A router solicitation to all routers, as every booting guest sends it.
pub fn ipv6_multicast(src: MacAddr) -> Vec<u8> {
    let body = [133, 0, 0, 0, 0, 0, 0, 0];
    let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, 58, 255];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xf8, 0x16, 0x3e, 0xff, 0xfe, 0, 0, src.0[5]]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(body);
    ethernet(src, MacAddr([0x33, 0x33, 0, 0, 0, 2]), 0x86dd, &packet)
}
