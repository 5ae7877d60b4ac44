//! Packets as anybody on the Internet can make them up.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use wire::checksum::{fold, sum};

use super::within;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Sends packets with whatever addresses they have.
pub(crate) struct Forger(OwnedFd);

impl Forger {
    pub(crate) fn on(host: &str) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let raw = || socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).unwrap();
        Self(within(host, raw))
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let to: [u8; 4] = packet[16..20].try_into().unwrap();
        let to = SockaddrIn::from(SocketAddrV4::new(to.into(), 0));
        sendto(self.0.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    }
}

/// An IPv4 packet.
pub(crate) fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0x42, 0x42, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend(from.octets());
    packet.extend(to.octets());
    let check = !fold(sum(&packet));
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A TCP segment without data.
pub(crate) fn tcp(from: SocketAddrV4, to: SocketAddrV4, flags: u8, sequence: u32) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(sequence.wrapping_mul(3).to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let (from, to) = (*from.ip(), *to.ip());
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 6, 0, 20], &segment].concat();
    let check = !fold(sum(&pseudo));
    segment[16..18].copy_from_slice(&check.to_be_bytes());
    ipv4(6, from, to, &segment)
}

/// An ICMP message of this type and code about a packet; `rest` are its bytes 4 to 8.
pub(crate) fn error(from: Ipv4Addr, kind: [u8; 2], rest: [u8; 4], about: &[u8]) -> Vec<u8> {
    let mut message = [&kind[..], &[0, 0], &rest, about].concat();
    let check = !fold(sum(&message));
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let to: [u8; 4] = about[12..16].try_into().unwrap();
    ipv4(1, from, to.into(), &message)
}
