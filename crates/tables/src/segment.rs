//! What nova-network calls a network on a node: bridge, VLAN and subnet.

use crate::{PortId, SegmentId, ZoneId};

/// The NIC by which a segment reaches other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The trunk.
    pub port: PortId,
    /// The tag frames leave with; none for a flat segment.
    pub vlan: Option<u16>,
}

/// One broadcast domain on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// The zone it routes in.
    pub zone: ZoneId,
    /// The way to other nodes.
    pub uplink: Option<Uplink>,
    /// Every port that gets a copy of a flooded frame: vifs, host port and trunk.
    pub members: Vec<PortId>,
}
