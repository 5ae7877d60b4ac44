//! Translation, as it is told.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// `GET /v1/nat`: whose addresses change on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// The shared source address, `routing_source_ip`.
    pub source: Option<String>,
    /// Its ports that are tenants', such as `20000-45999`.
    pub ports: String,
    /// Whose source address becomes the shared one, and when.
    pub ranges: Vec<NatRange>,
    /// Destinations that see a VM's own address.
    pub exempt: Vec<String>,
    /// Destinations that always see the shared one.
    pub forced: Vec<String>,
    /// Where requests for metadata go.
    #[serde(default)]
    pub metadata: Option<String>,
    /// Floating addresses in the order of the file.
    pub floats: Vec<FloatingIp>,
    /// VPN instances in the order of the file.
    #[serde(default)]
    pub vpns: Vec<Vpn>,
}

/// A range of source addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRange {
    /// Its zone.
    pub zone: String,
    /// The range.
    pub prefix: String,
    /// `public`: when it leaves by a public NIC; `forced`: only to a forced destination; `never`.
    pub when: String,
}

/// A project's VPN instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpn {
    /// The project's network.
    pub network: String,
    /// The address that users ask.
    pub public_address: Ipv4Addr,
    /// The UDP port that they ask.
    pub public_port: u16,
    /// The instance's own address.
    pub private_address: Ipv4Addr,
    /// The UDP port it listens on.
    pub private_port: u16,
    /// The network's gateway on this node.
    pub gateway: Ipv4Addr,
    /// The network's mask.
    pub netmask: Ipv4Addr,
    /// First of the addresses that users get.
    pub first_client: Ipv4Addr,
    /// Last of them.
    pub last_client: Ipv4Addr,
}

/// A floating address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// The address.
    pub address: String,
    /// The VM's own.
    pub fixed: String,
    /// The VM's vif, if it is on this node.
    pub vif: Option<String>,
    /// The NIC it is answered for on.
    pub interface: String,
    /// `active`, `waiting` for its vif, or `elsewhere`: the VM is on another node.
    pub state: String,
}
