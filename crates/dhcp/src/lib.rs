//! What a node answers a VM that asks for its address (RFC 2131, RFC 2132).
//!
//! Pure: a request's bytes and what is known of the vif it came by in, an [`Outcome`] out. Leases
//! are static. Nothing is remembered of who was given what, since the configuration says whose an
//! address is: so a daemon that was just started, and a node that a VM has just moved to, confirm
//! the address a VM has, where dnsmasq without its leases refuses it.
#![forbid(unsafe_code)]

mod answer;
mod frame;
mod options;
mod reply;
mod request;
mod vif;

pub use answer::{Event, Outcome, Silence, answer};
pub use frame::{frame, payload};
pub use options::Extra;
pub use reply::{Kind, Reply};
pub use vif::Vif;
