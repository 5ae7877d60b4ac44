//! What workers look up and never change: ports, segments, the fdb.
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
mod port;
mod segment;
mod snapshot;
mod topology;

pub use fdb::{Fdb, FdbEntry};
pub use id::{PortId, SegmentId, ZoneId};
pub use port::{Egress, Port, PortKind};
pub use segment::{Segment, Uplink};
pub use snapshot::{Publisher, Reader, Snapshot};
pub use topology::Topology;
