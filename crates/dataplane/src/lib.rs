//! Worker threads: receive, forward, dispatch, sweep.
//!
//! A worker owns its sockets and touches no ring of another: a frame that must leave by a ring
//! of another worker travels through the [`mesh`]. It knows no configuration, no netlink and no
//! BPF map; the control thread gives it sockets and tables and listens to its notices.
#![forbid(unsafe_code)]

mod dispatch;
mod epoch;
mod gauges;
mod hold;
mod link;
mod mesh;
mod pieces;
mod pools;
mod punt;
mod resume;
mod worker;

pub use epoch::Epoch;
pub use gauges::Gauges;
pub use link::{Link, NicWay};
pub use mesh::{Bell, Corner, mesh};
pub use pools::Pools;
pub use worker::{Parts, Shared, Tuning, Worker, now};
