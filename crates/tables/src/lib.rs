//! What workers look up and never change: ports, segments, stations, routes, neighbours, NAT.
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
mod id;
mod nat;
mod neighbour;
mod port;
mod route;
mod segment;
mod snapshot;
mod topology;

pub use fdb::{Fdb, FdbEntry};
pub use id::{PortId, SegmentId, ZoneId};
pub use nat::{Float, Nat, Snat};
pub use neighbour::{Link, Neighbour, Neighbours, NextHop};
pub use port::{Egress, GATEWAY_MAC, Port, PortKind};
pub use route::{Route, Routes, Unreachable};
pub use segment::{Gateway, Segment, Uplink};
pub use snapshot::{Publisher, Reader, Snapshot};
pub use topology::Topology;
