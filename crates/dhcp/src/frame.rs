//! Frames around messages.

use etherparse::PacketBuilder;
use wire::{MacAddr, Network, Transport};

use crate::{Reply, Vif};

/// The ports of RFC 2131 §4.1.
const SERVER: u16 = 67;
const CLIENT: u16 = 68;
const TTL: u8 = 64;

/// The UDP payload of a client's frame, untagged; none if it is no client's, or cut.
#[must_use]
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    let headers = wire::parse(frame).ok()?;
    let Network::Ipv4(ip) = headers.network else { return None };
    if ip.transport != (Transport::Udp { sport: CLIENT, dport: SERVER }) {
        return None;
    }
    let udp = usize::from(headers.l3) + usize::from(ip.header_len);
    let length = frame.get(udp + 4..udp + 6)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    frame.get(udp + 8..udp + length)
}

/// The frame of an answer, from the station `from`.
#[must_use]
pub fn frame(reply: &Reply, vif: &Vif, from: MacAddr) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(from.0, reply.mac.0)
        .ipv4(vif.server.octets(), reply.to.octets(), TTL)
        .udp(SERVER, CLIENT);
    let mut frame = Vec::with_capacity(builder.size(reply.payload.len()));
    match builder.write(&mut frame, &reply.payload) {
        Ok(()) => frame,
        // Only what is longer than a packet can be cannot be written, and none of ours is.
        Err(_) => Vec::new(),
    }
}
