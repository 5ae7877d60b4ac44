//! Who may reach VMs and the node.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::flags::DropAction;

/// What VMs may reach on the node, and beyond their network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRules {
    /// What becomes of what is not allowed.
    pub action: DropAction,
    /// What the node serves beyond what gateways do.
    pub services: Vec<HostService>,
    /// Bridges and public NICs that may be routed to; none: all.
    pub ways: Option<Vec<String>>,
}

/// Something that the node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostService {
    /// The number of its protocol; none: any.
    pub protocol: Option<u8>,
    /// Its first and last port; none: all.
    pub ports: Option<(u16, u16)>,
    /// Who may; none: everybody.
    pub source: Option<Ipv4Net>,
    /// Index into [`super::Model::networks`]: the one they are in; none: any.
    pub network: Option<usize>,
}

/// What stands before the VMs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Whether anything does.
    pub stands: bool,
    /// Whether a VM's own network comes in without a rule.
    pub same_net: bool,
    /// Whether connections end that no rule allows any more.
    pub revoke: bool,
    /// The groups; those that vifs name are all there.
    pub groups: Vec<SecurityGroup>,
    /// Addresses that answer the DHCP clients of a network, for each of [`super::Model::networks`].
    pub dhcp_servers: Vec<Vec<Ipv4Addr>>,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its name.
    pub name: String,
    /// What it allows; a group in a rule is its number in [`super::Security::groups`].
    pub rules: Vec<tables::Rule>,
    /// Its VMs, this node's among them: zone and address, sorted.
    pub members: Vec<(String, IpAddr)>,
}
