//! Frames that a VM may not send, made by hand.

use testkit::{discovery, echo, ethernet, ipv6, link_local, tag, tcp, udp, vm_mac};
use wire::MacAddr;
use wire::checksum::{fold, sum};

pub(crate) const GATEWAY_MAC: MacAddr = tables::GATEWAY_MAC;
pub(crate) const EVERYBODY: MacAddr = MacAddr::BROADCAST;

/// Addresses of the lab.
pub(crate) const VM1: [u8; 4] = [10, 0, 0, 3];
pub(crate) const VM2: [u8; 4] = [10, 0, 0, 4];
pub(crate) const VM3: [u8; 4] = [10, 1, 0, 3];
pub(crate) const VM5: [u8; 4] = [10, 0, 0, 7];
pub(crate) const GATEWAY: [u8; 4] = [10, 0, 0, 1];
pub(crate) const FAR: [u8; 4] = [8, 8, 8, 8];

const ALL_NODES: (MacAddr, [u8; 16]) =
    (MacAddr([0x33, 0x33, 0, 0, 0, 1]), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// A router that can be had for half an hour, without options.
const ROUTER: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

/// Who attacks.
pub(crate) fn me() -> MacAddr {
    vm_mac(2)
}

/// A datagram of the attacker's, or of whom it says it is.
pub(crate) fn datagram(from: (MacAddr, [u8; 4]), to: (MacAddr, [u8; 4])) -> Vec<u8> {
    udp((from.0, from.1, 5000), (to.0, to.1, 53), b"attack")
}

/// The same to VM 5 as if from this address.
pub(crate) fn from(address: [u8; 4]) -> Vec<u8> {
    datagram((me(), address), (vm_mac(5), VM5))
}

/// The same to VM 1.
pub(crate) fn to_sibling(address: [u8; 4]) -> Vec<u8> {
    datagram((me(), address), (vm_mac(1), VM1))
}

/// The same by the gateway.
pub(crate) fn routed(address: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    datagram((me(), address), (GATEWAY_MAC, to))
}

/// A frame of no known protocol.
pub(crate) fn unknown(from: MacAddr, to: MacAddr) -> Vec<u8> {
    ethernet(from, to, 0x88b5, &[0; 46])
}

/// An ARP packet; the frame's own source is the attacker.
pub(crate) fn arp(
    operation: u8,
    sender: (MacAddr, [u8; 4]),
    target: (MacAddr, [u8; 4]),
    to: MacAddr,
) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(sender.0.0);
    body.extend(sender.1);
    body.extend(target.0.0);
    body.extend(target.1);
    body.resize(46, 0);
    ethernet(me(), to, 0x0806, &body)
}

/// An IPv6 packet to all nodes.
pub(crate) fn six(from: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6((me(), from), ALL_NODES, next, payload)
}

pub(crate) fn own6() -> [u8; 16] {
    link_local(me())
}

pub(crate) fn sibling6() -> [u8; 16] {
    link_local(vm_mac(1))
}

/// IPv6 and UDP to VM 5: what a line without addresses would carry.
pub(crate) fn six_to_vm5(from: [u8; 16]) -> Vec<u8> {
    let payload = [&[0x13, 0x88, 0, 53, 0, 14, 0, 0][..], b"attack"].concat();
    ipv6((me(), from), (vm_mac(5), link_local(vm_mac(5))), 17, &payload)
}

/// An IPv6 packet to VM 1 from an address of the attacker's own in another prefix than the link's:
/// not of VM 1's own network, whose group lets in nothing.
pub(crate) fn six_to_vm1(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut far = own6();
    far[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    ipv6((me(), far), (vm_mac(1), sibling6()), next, payload)
}

/// UDP from port 5000 to this one.
pub(crate) fn udp6(port: u8) -> [u8; 8] {
    [0x13, 0x88, 0, port, 0, 8, 0, 0]
}

/// That behind a fragment header, of a datagram of this number; `offset` in units of eight bytes.
pub(crate) fn piece6(offset: u8, id: u8) -> Vec<u8> {
    [&[17, 0, 0, offset << 3 | 1, 0, 0, 0, id][..], &udp6(53)].concat()
}

/// TCP from port 5000 to port 22.
pub(crate) fn tcp6(flags: u8) -> Vec<u8> {
    [&[0x13, 0x88, 0, 22, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags][..], &[0; 6]].concat()
}

pub(crate) fn about(kind: u8, from: [u8; 16], target: [u8; 16], claims: MacAddr) -> Vec<u8> {
    six(from, 58, &discovery(kind, target, claims))
}

pub(crate) fn router() -> Vec<u8> {
    six(own6(), 58, &ROUTER)
}

/// The same behind a hop-by-hop header that says nothing.
pub(crate) fn router_behind_an_option() -> Vec<u8> {
    six(own6(), 0, &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &ROUTER].concat())
}

/// The same as the only fragment of a packet (RFC 6946).
pub(crate) fn router_in_a_fragment() -> Vec<u8> {
    six(own6(), 44, &[&[58, 0, 0, 0, 0, 0, 0, 9][..], &ROUTER].concat())
}

/// A first fragment that ends within a destination header, behind which it would be.
pub(crate) fn router_in_a_later_fragment() -> Vec<u8> {
    six(own6(), 44, &[60, 0, 0, 1, 0, 0, 0, 8, 58, 1, 1, 12, 0, 0, 0, 0])
}

pub(crate) fn redirect6() -> Vec<u8> {
    six(own6(), 58, &[&[137][..], &[0; 39]].concat())
}

/// DHCP from a server's port to a client's.
pub(crate) fn dhcp(from: [u8; 4], to: (MacAddr, [u8; 4])) -> Vec<u8> {
    udp((me(), from, 67), (to.0, to.1, 68), &[2; 240])
}

pub(crate) fn dhcpv6() -> Vec<u8> {
    six(own6(), 17, &[2, 35, 2, 34, 0, 8, 0, 0])
}

/// As a fragment with these flags and offset, in the IPv4 header's own words.
pub(crate) fn fragment(mut frame: Vec<u8>, flags_offset: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&flags_offset.to_be_bytes());
    summed(frame)
}

/// With this byte, at that place.
pub(crate) fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// With a right IPv4 header checksum.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let check = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame
}

/// Cut to so many bytes behind the Ethernet header, which its IPv4 header says too.
pub(crate) fn tiny(mut frame: Vec<u8>, length: u16, flags_offset: u16) -> Vec<u8> {
    frame.truncate(14 + usize::from(length));
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    fragment(frame, flags_offset)
}

/// Whole as a frame, but its IPv4 header says so many bytes.
pub(crate) fn cut(mut frame: Vec<u8>, length: u16) -> Vec<u8> {
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    summed(frame)
}

/// As if it were of this protocol.
pub(crate) fn protocol(frame: Vec<u8>, number: u8) -> Vec<u8> {
    summed(with(frame, 23, number))
}

/// A segment with these flags to a port of VM 3's that its group does not open.
pub(crate) fn scan(flags: u8) -> Vec<u8> {
    tcp((me(), VM2, 5000 + u16::from(flags)), (GATEWAY_MAC, VM3, 23), flags, b"")
}

/// A datagram to a port of VM 3's.
pub(crate) fn knock(from: u16, port: u16) -> Vec<u8> {
    udp((me(), VM2, from), (GATEWAY_MAC, VM3, port), b"attack, and enough for a fragment")
}

/// A SYN to a port of the node's own.
pub(crate) fn ssh(to: (MacAddr, [u8; 4])) -> Vec<u8> {
    tcp((me(), VM2, 5000), (to.0, to.1, 22), 2, b"")
}

/// A SYN to the metadata's address in somebody's name.
pub(crate) fn asks_metadata(as_whom: [u8; 4]) -> Vec<u8> {
    tcp((me(), as_whom, 5000), (GATEWAY_MAC, [169, 254, 169, 254], 80), 2, b"")
}

/// As long as a VM's link lets through, which is a tag longer than the MTU, with the mark.
pub(crate) fn long() -> Vec<u8> {
    udp((me(), VM2, 5000), (vm_mac(1), VM1, 53), &[0; 1504 - 28 - 10])
}

/// An ICMP message of the attacker's with this source.
pub(crate) fn icmp(
    from: [u8; 4],
    to: (MacAddr, [u8; 4]),
    kind: [u8; 2],
    rest: [u8; 4],
    about: &[u8],
) -> Vec<u8> {
    let mut message = [&kind[..], &[0, 0], &rest, about].concat();
    let check = !fold(sum(&message));
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, 1, 0, 0];
    packet[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
    packet.extend([from, to.1].concat());
    packet.extend(message);
    summed(ethernet(me(), to.0, 0x0800, &packet))
}

/// A ping in this VLAN to the other tenant's VM 3.
pub(crate) fn hop(vlan: u16) -> Vec<u8> {
    tag(&echo((me(), VM2), (vm_mac(3), VM3), true, 7), vlan)
}

/// The same in an 802.1ad tag.
pub(crate) fn service_tag(tci: u16) -> Vec<u8> {
    with(hop(tci), 12, 0x88)
        .into_iter()
        .enumerate()
        .map(|(at, byte)| if at == 13 { 0xa8 } else { byte })
        .collect()
}
