//! The way a frame takes within its segment.

use tables::Snapshot;

use crate::path::{Path, To};
use crate::pipeline::Step;
use crate::{DropReason, Packet, Verdict};

/// Finds the way to the packet's destination, or floods what is for all or for nobody known.
pub(crate) fn path(tables: &Snapshot, packet: &Packet<'_>) -> Step<Path> {
    let (segment, destination) = (packet.segment, packet.headers.dst);
    if destination.is_multicast() {
        return Err(Verdict::Flood(segment));
    }
    let Some(entry) = tables.fdb.find(segment, destination) else {
        return Err(Verdict::Flood(segment));
    };
    if entry.port == packet.ingress {
        return Err(Verdict::Drop(DropReason::Reflected));
    }
    let uplink = tables.topology.segment(segment).and_then(|segment| segment.uplink);
    let vlan = uplink.filter(|uplink| uplink.port == entry.port).and_then(|uplink| uplink.vlan);
    let to = To::Station(destination);
    Ok(Path { egress: entry.port, segment, vlan: vlan.unwrap_or(0), to })
}
