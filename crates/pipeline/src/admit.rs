//! What depends on the port and the frame alone, checked for every packet.

use tables::{Port, PortKind, ZoneId};
use wire::{MacAddr, Malformed};

use crate::pipeline::Step;
use crate::{DropReason, Packet, Verdict};

/// Reads the headers.
#[inline]
pub(crate) fn headers(packet: &mut Packet<'_>) -> Step<()> {
    packet.headers = wire::parse(packet.bytes()).map_err(|malformed| {
        Verdict::Drop(match malformed {
            Malformed::Runt => DropReason::Runt,
            Malformed::Arp => DropReason::MalformedArp,
            Malformed::Ipv4 => DropReason::MalformedIpv4,
            Malformed::Ipv6 => DropReason::MalformedIpv6,
            Malformed::Transport => DropReason::MalformedTransport,
        })
    })?;
    Ok(())
}

/// Finds the packet's segment by port and tag, takes the tag off, and says which zone it is in.
#[inline]
pub(crate) fn segment(
    tables: &tables::Topology,
    port: &Port,
    packet: &mut Packet<'_>,
) -> Step<ZoneId> {
    // VLAN 0 is a priority tag and names no VLAN (IEEE 802.1Q §9.6).
    let vlan = packet.headers.vlan.filter(|vlan| *vlan != 0);
    let from_guest = matches!(port.kind, PortKind::Vif | PortKind::Host);
    if from_guest && packet.headers.tags == 2 {
        return Err(Verdict::Drop(DropReason::GuestDoubleTag));
    }
    if from_guest && vlan.is_some() {
        return Err(Verdict::Drop(DropReason::GuestTag));
    }
    let Some(segment) = tables.segment_of(port, vlan) else {
        // The kernel passes on what no segment owns; this one was on its way when its segment
        // went.
        let host = matches!(port.kind, PortKind::Trunk | PortKind::Public);
        return Err(if host { Verdict::Host } else { Verdict::Drop(DropReason::NoSegment) });
    };
    match packet.headers.tags {
        0 => {}
        1 => packet.untag(),
        _ => return Err(Verdict::Drop(DropReason::TrunkDoubleTag)),
    }
    packet.segment = segment.id;
    Ok(segment.zone)
}

/// Refuses addresses that no bridge forwards.
#[inline]
pub(crate) fn addresses(packet: &Packet<'_>) -> Step<()> {
    let headers = &packet.headers;
    if headers.src.is_multicast() || headers.src == MacAddr::ZERO {
        return Err(Verdict::Drop(DropReason::BadSource));
    }
    if headers.dst.is_link_local() {
        return Err(Verdict::Drop(DropReason::LinkLocal));
    }
    Ok(())
}
