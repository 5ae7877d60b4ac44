//! From what should be, and what is there, to what workers look up.

mod dhcp;
mod identity;
mod nat;
mod policy;
mod routes;
mod topology;
mod walls;

use tables::{PortId, SegmentId, ZoneId};
use wire::MacAddr;

use crate::model::Network;

pub use self::dhcp::{told_by_dhcp, vif_of_dhcp};
pub use identity::identity;
pub use nat::{Owned, VPN_PORT, is_ours, nat, owned};
pub use policy::policy;
pub use routes::{PublicRoute, routes, told_neighbours};
pub use topology::topology;
pub use walls::{groups, walls};

/// The zone whose networks reach the node's own services.
pub const HOST_ZONE: &str = "default";

/// A network with the numbers it has on this node.
#[derive(Clone, Debug)]
pub struct Numbered<'a> {
    /// The network.
    pub network: &'a Network,
    /// The MAC address its gateway had before the node was taken over.
    pub before: Option<MacAddr>,
    /// Its segment's number.
    pub segment: SegmentId,
    /// Its zone's number.
    pub zone: ZoneId,
    /// The port of its uplink.
    pub uplink: PortId,
    /// Its host port, if it is plugged.
    pub host: PortId,
    /// Whether a VM of it is on this node.
    pub live: bool,
}
