//! Whole frames of every way through the left node of [`World::routed`](crate::World::routed), to
//! be mutated, and whether what becomes of them is right.

use std::sync::Arc;

use tables::{GATEWAY_MAC, MetadataServer, Nat};
use wire::{MacAddr, Network};

use crate::node::{PUBLIC, ROUTER, TRUNK};
use crate::{World, echo, tag, tcp, udp, vm_mac};

/// Ports of the left node that frames come by: trunk, public NIC and its VMs'.
pub const PORTS: [u16; 5] = [TRUNK, PUBLIC, 11, 12, 13];

const LEFT: [u8; 4] = [91, 207, 15, 105];
const RIGHT: [u8; 4] = [91, 207, 15, 106];
const FLOATS: [[u8; 4]; 2] = [[91, 208, 23, 11], [91, 208, 23, 16]];
const GOOGLE: [u8; 4] = [8, 8, 8, 8];
const LEFT_TRUNK: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const LEFT_PUBLIC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);

/// The station and address of VM N.
fn vm(number: u8) -> (MacAddr, [u8; 4]) {
    let addresses =
        [[10, 0, 0, 3], [10, 0, 0, 4], [10, 1, 0, 3], [10, 0, 0, 6], [10, 0, 0, 7], [10, 1, 0, 4]];
    (vm_mac(number), addresses[usize::from(number) - 1])
}

/// A frame and the port it may come by.
pub type Seed = (u16, Vec<u8>);

/// [`World::routed`] with all that a configuration can add to its left node.
pub fn world(name: &'static str) -> World {
    let mut world = World::routed(name, false);
    let mut nat = Nat::clone(&world.left.tables.nat);
    nat.metadata = Some(MetadataServer { address: LEFT, port: 8775 });
    world.left.tables.nat = Arc::new(nat);
    world
}

/// Whole frames of every way there is.
pub fn seeds() -> Vec<Seed> {
    let vms = [(11, vm(1)), (12, vm(2)), (13, vm(3))];
    let others = [vm(2).1, vm(3).1, vm(6).1, [10, 0, 0, 1], [10, 0, 0, 9], tables::METADATA];
    let there = [GOOGLE, LEFT, FLOATS[0], FLOATS[1]].into_iter().chain(others);
    let mut seeds = Vec::new();
    for (port, vm) in vms {
        for to in there.clone() {
            let (from, to) = ((vm.0, vm.1, 30_000), (GATEWAY_MAC, to, 53));
            seeds.push((port, udp(from, to, b"a question of some length")));
            for flags in [2, 16, 17, 4] {
                seeds.push((port, tcp(from, to, flags, b"GET / HTTP/1.0")));
            }
            seeds.push((port, echo(vm, (GATEWAY_MAC, to.1), true, 30_000)));
        }
    }
    for to in [LEFT, FLOATS[0], vm(1).1, RIGHT] {
        let (from, to) = ((ROUTER.mac, GOOGLE, 53), (LEFT_PUBLIC, to, 30_000));
        seeds.push((PUBLIC, udp(from, to, b"an answer")));
        for flags in [2, 18, 16, 17, 4] {
            seeds.push((PUBLIC, tcp(from, to, flags, b"")));
        }
        seeds.push((PUBLIC, echo((ROUTER.mac, GOOGLE), (LEFT_PUBLIC, to.1), false, 30_000)));
    }
    for (from, to) in [(vm(4), vm(1)), (vm(6), vm(3)), (vm(4), vm(3))] {
        let frame = udp((from.0, from.1, 53), (to.0, to.1, 30_000), b"over the trunk");
        seeds.push((TRUNK, tag(&frame, 100)));
        seeds.push((TRUNK, tag(&frame, 102)));
        let routed = udp((from.0, from.1, 53), (LEFT_TRUNK, to.1, 30_000), b"to the gateway");
        seeds.push((TRUNK, tag(&routed, 100)));
    }
    let errors: Vec<Seed> = seeds.iter().map(about).collect();
    seeds.extend(errors);
    seeds
}

/// Somebody's ICMP error that quotes what may have been sent the other way.
fn about((port, frame): &Seed) -> Seed {
    let headers = wire::parse(frame).unwrap();
    let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
    let mut quoted = frame[usize::from(headers.l3)..].to_vec();
    let (from, to): ([u8; 4], [u8; 4]) = (ip.src, ip.dst);
    quoted[12..16].copy_from_slice(&to);
    quoted[16..20].copy_from_slice(&from);
    let (sport, dport) = ([quoted[20], quoted[21]], [quoted[22], quoted[23]]);
    if ip.protocol != wire::protocol::ICMP {
        quoted[20..22].copy_from_slice(&dport);
        quoted[22..24].copy_from_slice(&sport);
    }
    let builder = etherparse::PacketBuilder::ethernet2(headers.src.0, headers.dst.0);
    let builder = builder.ipv4(from, to, 64).icmpv4_raw(11, 0, [0; 4]);
    let mut error = Vec::new();
    builder.write(&mut error, &quoted).unwrap();
    (*port, headers.vlan.map_or(error.clone(), |vlan| tag(&error, vlan)))
}

/// The sum that is all ones where a checksum is right (RFC 1071).
fn sum(words: &[u8], from: u32) -> u32 {
    let pairs = words.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let mut sum = from + pairs.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Whether the checksums of the IPv4 header and of what it carries are right; nothing where a
/// packet is not IPv4 or, of the second, where one packet does not tell.
pub fn checksums(frame: &[u8]) -> Option<(bool, Option<bool>)> {
    let headers = wire::parse(frame).ok()?;
    let Network::Ipv4(ip) = headers.network else { return None };
    let l3 = usize::from(headers.l3);
    let packet = frame.get(l3..l3 + usize::from(ip.total_len))?;
    let (header, body) = packet.split_at_checked(usize::from(ip.header_len))?;
    let whole = sum(header, 0) == 0xffff;
    if ip.fragment {
        return Some((whole, None));
    }
    let pseudo = sum(&packet[12..20], u32::from(ip.protocol) + body.len() as u32);
    let carried = match ip.protocol {
        17 if body.get(6..8) == Some(&[0, 0]) => None,
        // What is behind a datagram's own length is nobody's.
        17 if body.get(4..6) != Some(&(body.len() as u16).to_be_bytes()) => None,
        6 | 17 => Some(sum(body, pseudo) == 0xffff),
        1 => Some(sum(body, 0) == 0xffff),
        _ => None,
    };
    Some((whole, carried))
}

/// Makes the checksums of a packet right again, as far as there are any.
pub fn mend(frame: &mut [u8]) {
    let Ok(headers) = wire::parse(frame) else { return };
    let Network::Ipv4(ip) = headers.network else { return };
    let l3 = usize::from(headers.l3);
    let end = l3 + usize::from(ip.total_len);
    let Some(packet) = frame.get_mut(l3..end) else { return };
    let Some((header, body)) = packet.split_at_mut_checked(usize::from(ip.header_len)) else {
        return;
    };
    header[10..12].fill(0);
    let right = !sum(header, 0) as u16;
    header[10..12].copy_from_slice(&right.to_be_bytes());
    let pseudo = sum(&header[12..20], u32::from(ip.protocol) + body.len() as u32);
    let (at, pseudo) = match ip.protocol {
        6 => (16, pseudo),
        17 => (6, pseudo),
        1 => (2, 0),
        _ => return,
    };
    if let Some(field) = body.get_mut(at..at + 2) {
        field.fill(0);
        let right = match !sum(body, pseudo) as u16 {
            0 if ip.protocol == 17 => 0xffff,
            right => right,
        };
        body[at..at + 2].copy_from_slice(&right.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_checksum_is_seen() {
        let mut frame = udp((vm(1).0, vm(1).1, 1), (MacAddr::ZERO, GOOGLE, 2), b"odd");
        assert_eq!(checksums(&frame), Some((true, Some(true))));
        frame[30] ^= 1;
        assert_eq!(checksums(&frame), Some((false, Some(false))));
        mend(&mut frame);
        assert_eq!(checksums(&frame), Some((true, Some(true))));
    }
}
