//! What nova-network calls a network on a node: bridge, VLAN and subnet.

use wire::MacAddr;

use crate::{PortId, SegmentId, ZoneId};

/// The NIC by which a segment reaches other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The trunk.
    pub port: PortId,
    /// The tag frames leave with; none for a flat segment.
    pub vlan: Option<u16>,
}

/// The node's own address in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The address.
    pub address: [u8; 4],
    /// Whether every node has the same (`share_dhcp_address`): then nothing is said in its name
    /// on the trunk.
    pub shared: bool,
    /// The MAC address it had before the node was taken over: stations send to it until they hear
    /// of ours, and some never do.
    pub before: Option<MacAddr>,
}

/// Who answers the DHCP requests of a segment's VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dhcp {
    /// Somebody in the segment: requests and answers are bridged like all else.
    #[default]
    Bridged,
    /// The node, for its own VMs.
    Node,
    /// A server at the host port, for the node's own VMs.
    Host,
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
    /// The node's own address in it; none where nothing is routed here.
    pub gateway: Option<Gateway>,
    /// Its host port; none where no VM of it is here.
    pub host: PortId,
    /// Whether the gateway is elsewhere, and what is bound for floating addresses' peers and for
    /// `force_snat_range` is taken up by this node all the same (nova's `floating_ebtables_rules`).
    pub taken_up: bool,
    /// Largest segment of a TCP connection routed into or out of it; none leaves it as it is.
    pub clamp_mss: Option<u16>,
    /// Who answers its VMs' DHCP requests.
    pub dhcp: Dhcp,
}
