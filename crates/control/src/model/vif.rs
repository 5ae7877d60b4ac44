//! A VM's interface: what it is, and what it may have and send.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use wire::MacAddr;

use crate::limits::VifLimits;

/// The interface of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vif {
    /// Name of the tap or veth; it need not exist yet.
    pub name: String,
    /// Index into [`super::Model::networks`].
    pub network: usize,
    /// The VM's MAC, unique on the node.
    pub mac: MacAddr,
    /// The VM's addresses, inside the network's subnet, unique in its zone.
    pub addresses: Vec<Ipv4Addr>,
    /// Numbers of its groups in [`super::Security::groups`].
    pub groups: Vec<u32>,
    /// What it may send from beside them.
    pub allowed: Vec<AllowedPair>,
    /// What it may send and be sent.
    pub quota: Quota,
    /// Whether it may answer DHCP.
    pub dhcp_server: bool,
    /// Its end of a veth is said to poll: XDP may redirect to it if it does.
    pub napi: bool,
    /// The VM's name, where it is said.
    pub host_name: Option<String>,
    /// The VM it is of, where it is said.
    pub instance: Option<String>,
    /// Whether its VM is told a default router by it.
    pub default_router: bool,
    /// How much it may have of what all share.
    pub limits: VifLimits,
}

/// How much a VM may send or be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// In the long run, kB/s; 0: as much as comes.
    pub average: u32,
    /// At any time, kB/s; 0: as much as comes.
    pub peak: u32,
    /// Beyond the average after a rest, KiB; 0: what comes in a second.
    pub burst: u32,
}

/// A VM's bandwidth, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// From it.
    pub outbound: Limit,
    /// To it.
    pub inbound: Limit,
}

/// An address that a VM may send from beside its own (OpenStack's allowed address pairs).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedPair {
    /// The MAC address it has then, which no other VM has as its own.
    pub mac: Option<MacAddr>,
    /// The address, or a prefix of them.
    pub net: IpNet,
}
