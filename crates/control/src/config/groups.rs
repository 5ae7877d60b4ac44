//! A `[[security_group]]` as the operator wrote it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One `[[security_group]]`: who may open a connection to its VMs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupEntry {
    /// Name of the group.
    pub name: String,
    /// What it allows; without any, nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleEntry>,
    /// Addresses of its VMs on other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<IpAddr>,
    /// The zone these addresses are in; else "default".
    pub zone: Option<String>,
}

/// One rule of a group: nova's row in its security_group_rules table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    /// `tcp`, `udp`, `icmp`, `icmpv6` or a number; else every protocol.
    pub protocol: Option<String>,
    /// Of TCP and UDP: a port or a range of them; else all.
    pub ports: Option<String>,
    /// Of ICMP: the type; else, or with -1 as in nova, all.
    #[serde(rename = "type")]
    pub kind: Option<i64>,
    /// Of ICMP: the code of that type; else, or with -1 as in nova, all.
    pub code: Option<i64>,
    /// Whom it lets in: addresses.
    pub cidr: Option<IpNet>,
    /// Whom it lets in: the members of a group. Without one or the other, everybody by IPv4.
    pub group: Option<String>,
}
