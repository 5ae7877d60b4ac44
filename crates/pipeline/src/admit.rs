//! What depends on the port and the frame alone, checked for every packet.

use tables::{METADATA, Port, PortKind, Snapshot};
use wire::{MacAddr, Malformed, Network};

use crate::pipeline::Step;
use crate::{DropReason, Packet, Verdict};

/// Reads the headers.
#[inline]
pub(crate) fn headers(packet: &mut Packet<'_>) -> Step<()> {
    match wire::parse(packet.bytes()) {
        Ok(headers) => {
            packet.headers = headers;
            Ok(())
        }
        Err(malformed) => Err(Verdict::Drop(match malformed {
            Malformed::Runt => DropReason::Runt,
            Malformed::Arp => DropReason::MalformedArp,
            Malformed::Ipv4 => DropReason::MalformedIpv4,
            Malformed::Ipv6 => DropReason::MalformedIpv6,
            Malformed::Transport => DropReason::MalformedTransport,
        })),
    }
}

/// Finds the packet's segment by port and tag, and takes the tag off.
#[inline]
pub(crate) fn segment(tables: &tables::Topology, port: &Port, packet: &mut Packet<'_>) -> Step<()> {
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
        return no_segment(port, vlan, packet);
    };
    match packet.headers.tags {
        0 => {}
        1 => packet.untag(),
        _ => return Err(Verdict::Drop(DropReason::TrunkDoubleTag)),
    }
    packet.segment = segment.id;
    packet.zone = segment.zone;
    Ok(())
}

/// What no segment owns is the host's, but for what the kernel's program took for ours on the
/// public side.
fn no_segment(port: &Port, vlan: Option<u16>, packet: &mut Packet<'_>) -> Step<()> {
    let known = matches!(packet.headers.network, Network::Ipv4(_) | Network::Arp(_));
    if packet.headers.tags == 1 && vlan.is_none() {
        packet.untag();
    }
    match port.kind {
        PortKind::Vif | PortKind::Host => Err(Verdict::Drop(DropReason::NoSegment)),
        PortKind::Trunk | PortKind::Public if port.public && packet.headers.tags == 0 && known => {
            Ok(())
        }
        // This one was on its way when its segment went.
        PortKind::Trunk | PortKind::Public => Err(Verdict::Host),
    }
}

/// Whether the packet is addressed to the node, to be routed.
#[inline]
pub(crate) fn routed(tables: &Snapshot, port: &Port, packet: &mut Packet<'_>) {
    let Network::Ipv4(ip) = packet.headers.network else { return };
    let Some(segment) = tables.topology.segment(packet.segment) else {
        packet.routed = packet.headers.dst == port.mac;
        return;
    };
    let to = packet.headers.dst;
    packet.routed =
        segment.gateway.is_some_and(|gateway| to == port.mac || Some(to) == gateway.before);
    // A VM's gateway is elsewhere, but its floating address is here, its way is forced, or it asks
    // for metadata. What is between tenants' networks is that gateway's.
    let nat = &tables.nat;
    if segment.taken_up
        && port.kind == PortKind::Vif
        && !to.is_multicast()
        && nat.source_range(packet.zone, ip.dst).is_none()
    {
        packet.routed |= nat.is_forced(ip.dst)
            || nat.float_of(packet.zone, ip.src).is_some()
            || (nat.metadata.is_some() && ip.dst == METADATA);
    }
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
