//! From what should be, and what is there, to what workers look up.

mod nat;
mod routes;
mod topology;

use tables::{PortId, SegmentId, ZoneId};

use crate::model::Network;

pub use nat::{Owned, is_ours, nat, owned};
pub use routes::{PublicRoute, routes, told_neighbours};
pub use topology::topology;

/// The zone whose networks reach the node's own services.
pub const HOST_ZONE: &str = "default";

/// A network with the numbers it has on this node.
#[derive(Clone, Debug)]
pub struct Numbered<'a> {
    /// The network.
    pub network: &'a Network,
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
