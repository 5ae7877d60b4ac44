//! Who the VM behind a vif is: what it may send as.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashSet;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixSet;
use wire::MacAddr;

/// IPv4 addresses that are found without a look-up: nearly all VMs have one or two.
const FIRST: usize = 2;

/// What a VM may send as: its own addresses, and those it was allowed beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    mac: MacAddr,
    first: [Option<[u8; 4]>; FIRST],
    /// Nobody knows its IPv4 addresses, so that it may have any.
    any_ipv4: bool,
    /// It may answer DHCP.
    pub serves_dhcp: bool,
    more: Option<Arc<More>>,
}

/// What few VMs have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct More {
    macs: HashSet<MacAddr, ahash::RandomState>,
    ipv4: PrefixSet<Ipv4Net>,
    ipv6: PrefixSet<Ipv6Net>,
}

impl Identity {
    /// The VM with this MAC address and these addresses, each perhaps with a MAC address of its
    /// own (OpenStack's allowed address pairs). Without any IPv4 address it may have all.
    #[must_use]
    pub fn new(mac: MacAddr, addresses: &[(Option<MacAddr>, IpNet)]) -> Self {
        let mut more = More::default();
        let mut first = Vec::new();
        for (with, net) in addresses {
            more.macs.extend(with.filter(|with| *with != mac));
            match net {
                IpNet::V4(net) if net.prefix_len() == 32 && first.len() < FIRST => {
                    first.push(net.addr().octets());
                }
                IpNet::V4(net) => drop(more.ipv4.insert(net.trunc())),
                IpNet::V6(net) => drop(more.ipv6.insert(net.trunc())),
            }
        }
        Self {
            mac,
            first: std::array::from_fn(|at| first.get(at).copied()),
            any_ipv4: addresses.iter().all(|(_, net)| matches!(net, IpNet::V6(_))),
            serves_dhcp: false,
            more: (more != More::default()).then(|| Arc::new(more)),
        }
    }

    /// Whether it may have this Ethernet address.
    #[inline]
    #[must_use]
    pub fn has_mac(&self, mac: MacAddr) -> bool {
        mac == self.mac || self.more.as_ref().is_some_and(|more| more.macs.contains(&mac))
    }

    /// Whether it may have this IPv4 address.
    #[inline]
    #[must_use]
    pub fn has_ipv4(&self, address: [u8; 4]) -> bool {
        self.first.contains(&Some(address)) || self.any_ipv4 || self.has_more_ipv4(address)
    }

    #[cold]
    fn has_more_ipv4(&self, address: [u8; 4]) -> bool {
        let host = Ipv4Net::from(Ipv4Addr::from(address));
        self.more.as_ref().is_some_and(|more| more.ipv4.get_lpm(&host).is_some())
    }

    /// Whether it may have this IPv6 address when it speaks with that Ethernet address: one made
    /// of it, in whatever prefix a router announces, or one it was told.
    #[must_use]
    pub fn has_ipv6(&self, mac: MacAddr, address: [u8; 16]) -> bool {
        let host = Ipv6Net::from(Ipv6Addr::from(address));
        // ff00::/8 are groups, which send nothing.
        address[0] != 0xff && address[8..] == mac.interface_id()
            || self.more.as_ref().is_some_and(|more| more.ipv6.get_lpm(&host).is_some())
    }

    /// All it may send as, for people.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![self.mac.to_string()];
        let more = self.more.as_deref().into_iter();
        words.extend(more.clone().flat_map(|more| &more.macs).map(MacAddr::to_string));
        words.extend(self.first.into_iter().flatten().map(|it| Ipv4Addr::from(it).to_string()));
        words.extend(self.any_ipv4.then(|| "0.0.0.0/0".to_owned()));
        words.extend(more.clone().flat_map(|more| more.ipv4.iter()).map(|net| short(net.into())));
        words.extend(more.flat_map(|more| more.ipv6.iter()).map(|net| short(net.into())));
        words
    }
}

/// A prefix, or the address that is all of it.
fn short(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const VM: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);
    const VRRP: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 5]);

    fn vm(addresses: &[&str]) -> Identity {
        let net = |text: &&str| match text.parse() {
            Ok(net) => (None, net),
            Err(_) => (None, IpNet::from(text.parse::<IpAddr>().unwrap())),
        };
        let pairs = addresses.iter().map(net);
        Identity::new(VM, &pairs.collect::<Vec<_>>())
    }

    #[test]
    fn a_vm_has_its_own_addresses_however_many_and_no_other() {
        let few = vm(&["10.0.0.3"]);
        assert!(few.has_ipv4([10, 0, 0, 3]) && few.more.is_none());
        assert!(!few.has_ipv4([10, 0, 0, 4]) && !few.has_ipv4([0; 4]) && !few.has_ipv4([255; 4]));
        let many = vm(&["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.9.7/24"]);
        for (address, has) in
            [([10, 0, 0, 5], true), ([10, 0, 9, 255], true), ([10, 0, 0, 6], false)]
        {
            assert_eq!(many.has_ipv4(address), has, "{address:?}");
        }
    }

    #[test]
    fn a_vm_nobody_knows_the_address_of_may_have_any_but_only_its_own_mac() {
        let unknown = vm(&["fd00::3"]);
        assert!(unknown.has_ipv4([10, 0, 0, 4]) && unknown.has_mac(VM) && !unknown.has_mac(VRRP));
    }

    #[test]
    fn an_allowed_pair_brings_its_mac_address_along() {
        let net = "10.0.0.99/32".parse().unwrap();
        let own = (None, "10.0.0.3/32".parse().unwrap());
        let shared = Identity::new(VM, &[own, (Some(VRRP), net)]);
        assert!(shared.has_mac(VRRP) && shared.has_mac(VM));
        assert!(shared.has_ipv4([10, 0, 0, 99]) && shared.has_ipv4([10, 0, 0, 3]));
    }

    #[test]
    fn ipv6_addresses_are_made_of_the_mac_or_told() {
        let vm = vm(&["10.0.0.3", "fd00::3", "fd00:1::/64"]);
        let has = |text: &str| vm.has_ipv6(VM, text.parse::<Ipv6Addr>().unwrap().octets());
        assert!(has("fe80::f816:3eff:fe00:1") && has("2001:db8::f816:3eff:fe00:1"));
        assert!(has("fd00::3") && has("fd00:1::77"));
        assert!(!has("fe80::f816:3eff:fe00:2") && !has("fd00::4") && !has("::"));
        assert!(!has("ff02::f816:3eff:fe00:1"));
        let words = ["fa:16:3e:00:00:01", "10.0.0.3", "fd00::3", "fd00:1::/64"];
        let said = vm.words();
        assert!(words.iter().all(|word| said.iter().any(|said| said == word)), "{said:?}");
    }
}
