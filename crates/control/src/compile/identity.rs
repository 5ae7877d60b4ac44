//! Who a VM is.

use ipnet::{IpNet, Ipv4Net};
use tables::Identity;

use crate::flags::FirewallDriver;
use crate::model::{Model, Vif, Vpn};

/// What the VM behind a vif may send as; none without walls. Behind a VPN instance are its users,
/// with MAC addresses of their own (nova's filter `nova-vpn`).
#[must_use]
pub fn identity(model: &Model, vif: &Vif) -> Option<Identity> {
    let leads_here =
        |vpn: &Vpn| vpn.network == vif.network && vif.addresses.contains(&vpn.private_address);
    if model.firewall == FirewallDriver::Noop || model.vpns.iter().any(leads_here) {
        return None;
    }
    let own = vif.addresses.iter().map(|address| (None, IpNet::from(Ipv4Net::from(*address))));
    let allowed = vif.allowed.iter().map(|pair| (pair.mac, pair.net));
    let all: Vec<_> = own.chain(allowed).collect();
    let mut identity = Identity::new(vif.mac, &all);
    identity.serves_dhcp = vif.dhcp_server;
    Some(identity)
}
