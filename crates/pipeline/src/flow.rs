//! A packet's flow: what it is found by, and what is remembered of it.

use conntrack::FlowKey;
use conntrack::layout::{FIN, PATH_KNOWN, RST};
use conntrack::{Flow, InstallError, Installed, NewLine, Rewrite, Table};
use tables::ZoneId;
use wire::{Network, Transport, protocol};

use crate::Packet;
use crate::bridge::Path;

/// FIN, SYN, RST and ACK of a TCP flag byte.
mod tcp {
    pub(super) const FIN: u8 = 1;
    pub(super) const SYN: u8 = 2;
    pub(super) const RST: u8 = 4;
    pub(super) const ACK: u8 = 16;
}

/// The key of a packet of a segment in `zone`: by addresses and ports where it has them, else by
/// its MAC addresses.
#[inline]
pub(crate) fn key(packet: &Packet<'_>, zone: ZoneId) -> FlowKey {
    let (ingress, zone) = (packet.ingress.get(), zone.get());
    let headers = &packet.headers;
    if let Network::Ipv4(ip) = headers.network {
        match ip.transport {
            Transport::Tcp { sport, dport, .. } => {
                return FlowKey::ipv4(ip.src, ip.dst, sport, dport, protocol::TCP, ingress, zone);
            }
            Transport::Udp { sport, dport } => {
                return FlowKey::ipv4(ip.src, ip.dst, sport, dport, protocol::UDP, ingress, zone);
            }
            Transport::Echo { request, id } => {
                return FlowKey::echo(ip.src, ip.dst, id, request, ingress, zone);
            }
            Transport::None => {}
        }
    }
    let segment = packet.segment.get();
    FlowKey::l2(headers.dst.0, headers.src.0, headers.ethertype, ingress, segment)
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
    let flags = tcp_flags(packet);
    flags & (tcp::SYN | tcp::ACK) == tcp::SYN && flow.bits() & (FIN | RST) != 0
}

#[inline]
fn tcp_flags(packet: &Packet<'_>) -> u8 {
    match packet.headers.network {
        Network::Ipv4(ip) => match ip.transport {
            Transport::Tcp { flags, .. } => flags,
            _ => 0,
        },
        _ => 0,
    }
}

/// Remembers the path of a bridged packet's flow; whether that could be done.
///
/// A flow that is known already (its path was not, or was decided under older facts) gets the new
/// path; one that is not gets a line, and so do its answers, whose path their own first packet
/// decides.
pub(crate) fn store(
    flows: &Table,
    packet: &Packet<'_>,
    path: &Path,
    found: Option<&Flow>,
    stamp: u32,
    now: u32,
) -> bool {
    let headers = &packet.headers;
    let (egress, segment) = (path.egress.get(), path.segment.get());
    let there = Rewrite::bridged(headers.src.0, headers.dst.0, egress, segment, path.vlan);
    if let Some(found) = found {
        if !reopens(packet, found) {
            flows.touch(found, now, state_bits(packet));
            // Losing the race means another worker just stored the same.
            let _ = flows.set_path(found, &there, stamp);
            return true;
        }
        flows.remove(found);
    }
    let ingress = packet.ingress.get();
    let mut back = Rewrite::bridged(headers.dst.0, headers.src.0, ingress, segment, 0);
    back.flags &= !PATH_KNOWN;
    let original = NewLine { key: packet.key, rewrite: there };
    let reply = NewLine { key: answers(packet, egress), rewrite: back };
    match flows.install(&original, &reply, stamp, now) {
        // Bridging needs no line for the answers of its own: theirs is as good as ours.
        Ok(Installed::New { .. } | Installed::Existing(_)) | Err(InstallError::ReplyTaken(_)) => {
            true
        }
        Err(InstallError::Full | InstallError::ReplyIsOriginal | InstallError::Contended) => false,
    }
}

/// The key of the packets that answer this one, when they come by `ingress`.
fn answers(packet: &Packet<'_>, ingress: u16) -> FlowKey {
    if !packet.key.is_l2() {
        return packet.key.reversed(ingress, packet.key.zone());
    }
    let headers = &packet.headers;
    let segment = packet.segment.get();
    FlowKey::l2(headers.src.0, headers.dst.0, headers.ethertype, ingress, segment)
}
