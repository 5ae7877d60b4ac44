//! Who is who in the seed's world, and what of a frame its scenarios tell.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use tables::GATEWAY_MAC;
use testkit::Sent;
use wire::{Ipv4, MacAddr, Network};

pub(crate) const VM1: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]), [10, 0, 0, 3]);
pub(crate) const VM2: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 2]), [10, 0, 0, 4]);
pub(crate) const VM3: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 3]), [10, 1, 0, 3]);
pub(crate) const VM4: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 4]), [10, 0, 0, 6]);
pub(crate) const VM6: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 6]), [10, 1, 0, 4]);
pub(crate) const LEFT: [u8; 4] = [91, 207, 15, 105];
pub(crate) const RIGHT: [u8; 4] = [91, 207, 15, 106];
pub(crate) const FLOAT1: [u8; 4] = [91, 208, 23, 11];
pub(crate) const FLOAT6: [u8; 4] = [91, 208, 23, 16];
pub(crate) const GOOGLE: [u8; 4] = [8, 8, 8, 8];
/// What the left and right node speak with on the trunk and the public side.
pub(crate) const LEFT_TRUNK: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
pub(crate) const RIGHT_TRUNK: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);
pub(crate) const LEFT_PUBLIC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);

/// What of a frame the scenarios tell: MACs, tag, addresses, TTL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) macs: (MacAddr, MacAddr),
    pub(crate) vlan: Option<u16>,
    pub(crate) src: [u8; 4],
    pub(crate) dst: [u8; 4],
    pub(crate) ttl: u8,
}

pub(crate) fn ip(frame: &[u8]) -> Ipv4 {
    match wire::parse(frame).unwrap().network {
        Network::Ipv4(ip) => ip,
        other => panic!("{other:?}"),
    }
}

/// A frame that is IPv4, with checksums that are right.
pub(crate) fn hop(frame: &[u8]) -> Hop {
    let headers = wire::parse(frame).unwrap();
    let ip = ip(frame);
    let l3 = usize::from(headers.l3);
    let packet = &frame[l3..l3 + usize::from(ip.total_len)];
    let parsed = etherparse::SlicedPacket::from_ip(packet).unwrap();
    let Some(etherparse::NetSlice::Ipv4(slice)) = &parsed.net else { panic!("{parsed:?}") };
    let header = slice.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    match &parsed.transport {
        Some(etherparse::TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), sum);
        }
        Some(etherparse::TransportSlice::Tcp(tcp)) => {
            assert_eq!(
                tcp.checksum(),
                tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
            );
        }
        Some(etherparse::TransportSlice::Icmpv4(icmp)) => {
            let sum = icmp.header().icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp.header().checksum, sum);
        }
        other => panic!("{other:?}"),
    }
    let vlan = headers.vlan;
    Hop { macs: (headers.src, headers.dst), vlan, src: ip.src, dst: ip.dst, ttl: ip.ttl }
}

pub(crate) fn hops(frames: &[Vec<u8>]) -> Vec<Hop> {
    let ips = frames
        .iter()
        .filter(|frame| matches!(wire::parse(frame).unwrap().network, Network::Ipv4(_)));
    ips.map(|frame| hop(frame)).collect()
}

/// The only frame that reached anybody but for ARP.
pub(crate) fn one(reached: &[Sent]) -> &Sent {
    let ips: Vec<&Sent> = reached
        .iter()
        .filter(|sent| !matches!(wire::parse(&sent.frame).unwrap().network, Network::Arp(_)))
        .collect();
    assert_eq!(ips.len(), 1, "{ips:?}");
    ips[0]
}

pub(crate) fn gateway(address: [u8; 4]) -> (MacAddr, [u8; 4]) {
    (GATEWAY_MAC, address)
}
