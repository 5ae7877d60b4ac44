//! What is known of the vif a request came by.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use wire::MacAddr;

use crate::Extra;

/// A vif, and what its VM is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vif {
    /// The VM's MAC: requests of others are not answered.
    pub mac: MacAddr,
    /// Its addresses, inside the network; who names none of them gets the first.
    pub addresses: Vec<Ipv4Addr>,
    /// The subnet.
    pub network: Ipv4Net,
    /// The server's address: the gateway's.
    pub server: Ipv4Addr,
    /// The default router; none for a VM's second vif with `use_single_default_gateway`.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// The domain; may be empty.
    pub domain: String,
    /// The VM's name; else one made of its address.
    pub host_name: Option<String>,
    /// The network's MTU, where it is to be told.
    pub mtu: Option<u16>,
    /// How long a lease is, seconds.
    pub lease: u32,
    /// Further options, sent whether they are asked for or not.
    pub extra: Vec<Extra>,
}

impl Vif {
    /// The name a VM is told that has this address: nova's way to make one is `host-10-0-0-3`.
    #[must_use]
    pub fn name_at(&self, address: Ipv4Addr) -> String {
        match &self.host_name {
            Some(name) => name.clone(),
            None => format!("host-{}", address.to_string().replace('.', "-")),
        }
    }

    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }
}
