//! Addresses that are translated, as the operator wrote them.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// One `[[pool]]`: where floating addresses are answered for, and the way out of their VMs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolEntry {
    /// Name of the pool.
    pub name: String,
    /// A router on the public NIC; else the node's own routes.
    pub next_hop: Option<Ipv4Addr>,
    /// The NIC; else `public_interface`.
    pub interface: Option<String>,
}

/// One `[[floating_ip]]`: nova's row in its floating_ips table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatingEntry {
    /// The floating address.
    pub address: Ipv4Addr,
    /// The VM's own.
    pub fixed: Ipv4Addr,
    /// Name of the VM's network, where two zones have that address.
    pub network: Option<String>,
    /// Name of its pool.
    pub pool: Option<String>,
}

/// One `[[vpn]]`: a project's VPN instance (nova's cloudpipe).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VpnEntry {
    /// Name of the project's network.
    pub network: String,
    /// UDP port that its users ask (nova counted up from `vpn_start`, 1000); wide, so that a wrong
    /// number gets our own words.
    pub port: i64,
    /// The address that they ask (nova's `vpn_ip`); else `routing_source_ip`.
    pub public_address: Option<Ipv4Addr>,
    /// The instance's own address; else the second of its network, as with nova.
    pub private_address: Option<Ipv4Addr>,
    /// Addresses at the end of the subnet that are for users (nova's `cnt_vpn_clients`); else 8.
    pub clients: Option<u32>,
}
