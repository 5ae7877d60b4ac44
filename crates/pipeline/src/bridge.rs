//! The way a frame takes within its segment.

use tables::Snapshot;

use crate::path::{self, Path};
use crate::pipeline::Step;
use crate::{DropReason, Packet, Verdict};

/// Finds the way to the packet's destination, or floods what is for all or for nobody known.
pub(crate) fn path(tables: &Snapshot, packet: &Packet<'_>) -> Step<Path> {
    let (segment, destination) = (packet.segment, packet.headers.dst);
    if destination.is_multicast() {
        return Err(Verdict::Flood(segment));
    }
    let Some(path) = path::to_station(tables, segment, destination) else {
        return Err(Verdict::Flood(segment));
    };
    if path.egress == packet.ingress {
        return Err(Verdict::Drop(DropReason::Reflected));
    }
    Ok(path)
}
