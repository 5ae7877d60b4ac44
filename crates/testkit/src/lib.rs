//! For tests only: frames to order, two compute nodes in memory, and a pcap of what they said.
//!
//! The world of [`World::seed`] is the lab's: two nodes, two tenants, six VMs, one trunk. A frame
//! a VM sends runs through the real pipeline on every node it meets; what a failing test leaves
//! in `target/pcap/` opens in any packet analyser.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

mod frames;
mod node;
mod pcap;
pub mod seeds;
mod world;

pub use frames::{
    arp_reply, arp_request, discovery, echo, ethernet, ipv6, ipv6_multicast, link_local, tag, tcp,
    udp, vm_mac,
};
pub use node::{Node, NodePlan, ROUTER};
pub use pcap::Pcap;
pub use world::{Sent, World};
