//! Placeholder.
pub mod api;
pub mod config;
pub mod ctl;
pub mod model;
pub mod netlink;
