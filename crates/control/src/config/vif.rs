//! A `[[vif]]` as the operator wrote it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::is_false;

/// One `[[vif]]`: the interface of a VM on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VifEntry {
    /// Name of the tap or veth; it need not exist yet.
    pub name: String,
    /// Name of the network it is in.
    pub network: String,
    /// The VM's MAC.
    pub mac: String,
    /// The VM's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv4Addr>,
    /// Names of its security groups; else the one called "default".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// What it may send from beside them (OpenStack's allowed address pairs): addresses and
    /// prefixes, each perhaps behind a MAC address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// What it may send and be sent (nova's `quota:vif_…`); else as much as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaEntry>,
    /// It may answer DHCP, where that is bridged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dhcp_server: bool,
    /// Its end of a veth polls (GRO is on there), so that XDP may redirect to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub napi: bool,
    /// The VM's name, without a domain.
    pub hostname: Option<String>,
    /// The VM it is of; its first vif has the default router with `use_single_default_gateway`.
    pub instance: Option<String>,
    /// Connections it may have open; else `vif_connections`.
    pub connections: Option<u32>,
    /// New connections per second; else `vif_connection_rate`.
    pub connection_rate: Option<u32>,
    /// Frames per second that go to all of its network; else `vif_flood_rate`.
    pub flood_rate: Option<u32>,
    /// Ports of the shared address towards one endpoint; else `vif_snat_ports`.
    pub snat_ports: Option<u32>,
    /// MACs that are learned behind it; else `vif_macs`.
    pub macs: Option<u32>,
    /// Packets per second that it may send to the workers; else `punt_rate`.
    pub punt_rate: Option<u32>,
}

/// The `quota` of a `[[vif]]`, with the names of nova's flavors and libvirt's units: averages and
/// peaks in kB/s, bursts in KiB. Numbers are wide, so that wrong ones get our own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaEntry {
    /// What the VM is sent, in the long run.
    pub inbound_average: Option<i64>,
    /// The most at any time.
    pub inbound_peak: Option<i64>,
    /// What it may be sent beyond the average after a rest.
    pub inbound_burst: Option<i64>,
    /// What it sends, in the long run.
    pub outbound_average: Option<i64>,
    /// The most at any time.
    pub outbound_peak: Option<i64>,
    /// What it may send beyond the average after a rest.
    pub outbound_burst: Option<i64>,
}
