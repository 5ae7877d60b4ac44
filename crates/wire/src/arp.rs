//! ARP for IPv4 over Ethernet (RFC 826): asking, answering, announcing.
//!
//! Frames are 42 bytes; whoever sends them on a wire pads them to 60.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::layout::{ArpPacket, EthernetHeader};
use crate::{MacAddr, Malformed, Station, ethertype};

/// Length of an ARP frame without padding, bytes.
pub const LEN: usize = size_of::<Frame>();

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Frame {
    ethernet: EthernetHeader,
    arp: ArpPacket,
}

fn frame(operation: u16, sender: Station, target: Station, to: MacAddr) -> [u8; LEN] {
    let frame = Frame {
        ethernet: EthernetHeader {
            dst: to.0,
            src: sender.mac.0,
            ethertype: U16::new(ethertype::ARP),
        },
        arp: ArpPacket {
            hardware: U16::new(1),
            protocol: U16::new(ethertype::IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac: sender.mac.0,
            sender: sender.address,
            target_mac: target.mac.0,
            target: target.address,
        },
    };
    zerocopy::transmute!(frame)
}

/// Asks who has `target`, sent to everybody ([`MacAddr::BROADCAST`]) or to who had it last.
///
/// A sender with address 0.0.0.0 is answered but not learned (RFC 5227 calls it a probe). A sender
/// that asks everybody for its own address announces it (RFC 5227 §3).
#[must_use]
pub fn request(sender: Station, target: [u8; 4], to: MacAddr) -> [u8; LEN] {
    frame(REQUEST, sender, Station { mac: MacAddr::ZERO, address: target }, to)
}

/// Tells everybody unasked that the address is the station's, as a reply: what nova sends for a new
/// gateway or floating address (`send_arp_for_ip`, `arping -A`).
#[must_use]
pub fn gratuitous(station: Station) -> [u8; LEN] {
    frame(REPLY, station, station, MacAddr::BROADCAST)
}

/// Turns an untagged request into its reply: the address asked for is at `mac`.
///
/// # Errors
/// [`Malformed::Arp`] for anything else; the frame is as it was.
pub fn reply(frame: &mut [u8], mac: MacAddr) -> Result<(), Malformed> {
    let (Frame { ethernet, arp }, _) = Frame::mut_from_prefix(frame).map_err(|_| Malformed::Arp)?;
    if ethernet.ethertype.get() != ethertype::ARP || arp.operation.get() != REQUEST {
        return Err(Malformed::Arp);
    }
    arp.operation.set(REPLY);
    arp.target_mac = arp.sender_mac;
    arp.sender_mac = mac.0;
    core::mem::swap(&mut arp.sender, &mut arp.target);
    (ethernet.dst, ethernet.src) = (arp.target_mac, mac.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{GATEWAY, VM};
    use crate::{Arp, Network, parse};

    fn read(frame: &[u8]) -> Arp {
        match parse(frame).unwrap().network {
            Network::Arp(arp) => arp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_the_bytes_of_rfc_826() {
        let mut expected = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xfe, 8, 6];
        expected.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xfe, 10, 0, 0, 1]);
        expected.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 3]);
        assert_eq!(request(GATEWAY, VM.address, MacAddr::BROADCAST)[..], expected);
    }

    #[test]
    fn a_probe_to_one_station_has_no_sender_address() {
        let nobody = Station { address: [0; 4], ..GATEWAY };
        let frame = request(nobody, VM.address, VM.mac);
        assert_eq!(parse(&frame).unwrap().dst, VM.mac);
        assert_eq!((read(&frame).operation, read(&frame).sender), (1, [0; 4]));
    }

    #[test]
    fn a_request_becomes_its_reply_and_keeps_its_padding() {
        let asked = request(VM, GATEWAY.address, MacAddr::BROADCAST);
        let mut frame = [&asked[..], &[0xee; 18]].concat();
        reply(&mut frame, GATEWAY.mac).unwrap();
        assert_eq!(frame[..42], super::frame(REPLY, GATEWAY, VM, VM.mac));
        assert_eq!(frame[42..], [0xee; 18]);
    }

    #[test]
    fn only_untagged_requests_are_answered() {
        let asked = request(VM, GATEWAY.address, MacAddr::BROADCAST);
        let tagged = [&asked[..12], &[0x81, 0, 0, 100], &asked[12..]].concat();
        let mut not_arp = asked;
        not_arp[13] = 0;
        for before in [&tagged[..], &not_arp, &gratuitous(VM), &asked[..41]] {
            let mut frame = before.to_vec();
            assert_eq!(reply(&mut frame, GATEWAY.mac), Err(Malformed::Arp));
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_gratuitous_reply_tells_everybody() {
        let frame = gratuitous(GATEWAY);
        assert_eq!(parse(&frame).unwrap().dst, MacAddr::BROADCAST);
        let arp = read(&frame);
        assert_eq!((arp.operation, arp.sender_mac), (2, GATEWAY.mac));
        assert_eq!((arp.sender, arp.target), (GATEWAY.address, GATEWAY.address));
    }
}
