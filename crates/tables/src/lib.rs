//! What workers look up and never change: ports, segments, stations, routes, neighbours, NAT,
//! security groups.
//!
//! The control thread builds a [`Snapshot`] and publishes it; workers hold a [`Reader`] and see
//! the newest one between two batches. Nothing here knows a packet, a file or a socket, and no
//! look-up takes longer because there are more vifs or segments.
//!
//! ```
//! use tables::{Fdb, Publisher, Snapshot, Topology};
//!
//! let publisher = Publisher::new(Snapshot::default());
//! let mut reader = publisher.reader();
//! assert!(reader.refresh().fdb.is_empty());
//! publisher.publish(Snapshot { generation: 1, ..Snapshot::default() });
//! assert_eq!(reader.refresh().generation, 1);
//! # let _ = (Fdb::default(), Topology::default());
//! ```
#![forbid(unsafe_code)]

mod fdb;
mod group;
mod id;
mod identity;
mod limits;
mod nat;
mod neighbour;
mod policy;
mod port;
mod ranges;
mod route;
mod segment;
mod snapshot;
mod topology;
mod walls;

pub use fdb::{Fdb, FdbEntry};
pub use group::{Group, Origin, Rule};
pub use id::{PortId, SegmentId, ZoneId};
pub use identity::Identity;
pub use limits::Limits;
pub use nat::{Float, Forward, METADATA, METADATA_PORT, MetadataServer, Nat, Snat};
pub use neighbour::{Link, Neighbour, Neighbours, NextHop};
pub use policy::{Call, DropAction, HostRule, Policy, Side};
pub use port::{Egress, GATEWAY_MAC, Port, PortKind};
pub use route::{Route, Routes, Unreachable};
pub use segment::{Dhcp, Gateway, Segment, Uplink};
pub use snapshot::{Publisher, Reader, Snapshot};
pub use topology::Topology;
pub use walls::{Ask, Groups, Let, Member, Own, Wall, Walls};
