//! Frames in, verdicts out.
//!
//! [`Pipeline::forward`] gives every packet of a batch exactly one [`Verdict`]. It does no I/O,
//! takes no lock, allocates nothing and reads no clock: the caller brings the frames, the time
//! and the tables, and does what the verdicts say. `pipeline.rs` is one packet's life, top to
//! bottom; the other files are its stages.
#![forbid(unsafe_code)]

mod admit;
mod bridge;
mod complain;
pub mod connect;
mod counters;
mod dhcp;
mod explain;
mod flow;
mod fragments;
mod groups;
mod guard;
mod learn;
mod moved;
mod open;
mod packet;
mod path;
mod pipeline;
mod related;
mod replay;
mod services;
mod spoof;
mod standing;
mod verdict;

pub use complain::Limiter;
pub use counters::{Counters, PortCounters};
pub use dhcp::Asked;
pub use explain::Explanation;
pub use groups::flooded;
pub use learn::{Learner, Notice};
pub use packet::Packet;
pub use pipeline::{Pipeline, Step};
pub use standing::{Standing, neighbour_of, standing};
pub use verdict::{DropReason, Verdict};
