//! What the operator wants, turned into what the node does.
//!
//! [`config`] reads what the operator said, [`model`] is what it means (a [`model::Model`] cannot be
//! invalid), [`netlink`] looks at the node's links and makes the few that are ours, [`api`] answers
//! on the control socket and [`ctl`] asks there; [`adopt`] reads what nova-network built on a node. Nothing here touches a packet, and nothing here
//! writes a BPF map: that is the daemon's.
//!
//! ```
//! use control::{flags::Flags, model::Model};
//!
//! let file = r#"
//!     vlan_interface = "eth0"
//!     [[network]]
//!     name = "tenant1"
//!     vlan = 100
//!     cidr = "10.0.0.0/24"
//!     gateway = "10.0.0.1"
//! "#;
//! let model = Model::from_text(&Flags::default(), "left.toml", file)?;
//! assert_eq!(model.networks[0].bridge, "br100");
//! # Ok::<(), control::config::ConfigError>(())
//! ```
#![forbid(unsafe_code)]

pub mod adopt;
pub mod api;
pub mod compile;
pub mod config;
pub mod ctl;
pub mod describe;
pub mod dnsmasq;
pub mod filter;
pub mod flags;
mod keys;
pub mod learn;
pub mod left;
pub mod limits;
pub mod model;
pub mod neighbours;
pub mod netlink;
pub mod numbers;
pub mod report;
mod rules;
pub mod show;
pub mod words;
