//! Address translation: the shared address, whom it is for, and floating addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Adopted;
use crate::adopt::Found;
use crate::adopt::rules::SourceNat;
use crate::config::{FloatingEntry, NetworkEntry, PoolEntry};

impl Adopted {
    pub(super) fn translation(&mut self, found: &Found) {
        let nat = &found.rules.source_nat;
        self.settings.routing_source_ip = self.shared_address(nat);
        let (all, forced): (Vec<_>, Vec<_>) = nat.iter().partition(|nat| nat.destination.is_none());
        let mut forced: Vec<Ipv4Net> = forced.iter().filter_map(|nat| nat.destination).collect();
        forced.sort();
        forced.dedup();
        self.settings.force_snat_range = Some(forced).filter(|forced| !forced.is_empty());
        self.ranges(&all);
        self.metadata(found);
        self.exempt(found);
        if all.iter().any(|nat| nat.interface.is_none()) {
            self.warnings.push(
                "nova translates what leaves by any interface (its public_interface is empty), \
                 between networks too: trunkline translates only what leaves by public_interface"
                    .into(),
            );
        }
        let public = self.settings.public_interface.clone();
        let mut others: Vec<&str> = all.iter().filter_map(|nat| nat.interface.as_deref()).collect();
        others.retain(|interface| Some(*interface) != public.as_deref());
        others.dedup();
        for other in others {
            self.warnings.push(format!(
                "nova translates what leaves by {other}: trunkline only what leaves by \
                 public_interface"
            ));
        }
        if !nat.is_empty() {
            for place in 0..self.networks.len() {
                self.untranslated(place, &all);
            }
        }
    }

    /// The address most rules name.
    fn shared_address(&mut self, nat: &[SourceNat]) -> Option<Ipv4Addr> {
        let mut counts: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
        for rule in nat {
            *counts.entry(rule.to).or_default() += 1;
        }
        // Of two that are named as often, the one that comes first.
        let first = |address: &Ipv4Addr| nat.iter().position(|rule| rule.to == *address);
        let shared = counts
            .iter()
            .max_by_key(|(address, count)| (**count, std::cmp::Reverse(first(address))))
            .map(|(address, _)| *address)?;
        for other in counts.keys().filter(|other| **other != shared) {
            self.warnings.push(format!(
                "nova translates some VMs to {other} and not to {shared}: a node of trunkline has \
                 one routing_source_ip, and all become {shared}"
            ));
        }
        Some(shared)
    }

    /// Whether one range is translated, or each network for itself.
    fn ranges(&mut self, all: &[&SourceNat]) {
        for range in all.iter().map(|nat| nat.source) {
            let cidrs = || self.networks.iter().filter_map(|network| network.cidr);
            if cidrs().any(|cidr| cidr == range) || self.settings.fixed_range == Some(range) {
                continue;
            }
            if self.settings.fixed_range.is_none() && cidrs().any(|cidr| range.contains(&cidr)) {
                self.settings.fixed_range = Some(range);
                continue;
            }
            self.warnings.push(format!(
                "nova translates {range}, which is no network of a bridge here: the rule may be left \
                 from a network that is gone; else add that [[network]]"
            ));
        }
    }

    /// A network that no rule translates.
    fn untranslated(&mut self, place: usize, all: &[&SourceNat]) {
        let network = &mut self.networks[place];
        let (Some(cidr), Some(_)) = (network.cidr, network.gateway) else { return };
        if all.iter().any(|nat| nat.source.contains(&cidr)) {
            return;
        }
        let NetworkEntry { name, public, .. } = network;
        if cidr.addr().is_private() {
            self.warnings.push(format!(
                "nova translates nothing of network {name} ({cidr}), which is known of releases \
                 since Juno until nova-network is started again: trunkline translates it; write \
                 public = true if it must not"
            ));
        } else {
            *public = true;
            self.warnings.push(format!(
                "nova translates nothing of network {name}, and {cidr} is not private: it is taken \
                 as public = true"
            ));
        }
    }

    /// Where nova leads requests for metadata.
    fn metadata(&mut self, found: &Found) {
        let Some(metadata) = &found.rules.metadata else { return };
        let host = metadata.host.unwrap_or(Ipv4Addr::LOCALHOST);
        if host.is_loopback() && self.settings.routing_source_ip.is_none() {
            self.warnings.push(
                "nova leads VMs' requests to 169.254.169.254:80 to this node: set metadata_host to an \
                 address of it, which trunkline cannot tell without routing_source_ip"
                    .into(),
            );
            return;
        }
        self.settings.metadata_host = Some(host);
        self.settings.metadata_port = metadata.port.filter(|port| *port != 8775);
    }

    /// Destinations that see VMs' own addresses.
    fn exempt(&mut self, found: &Found) {
        let metadata = found.rules.metadata.as_ref().and_then(|metadata| metadata.host);
        let mut dmz: Vec<Ipv4Net> = Vec::new();
        for (source, destination) in &found.rules.exempt {
            if metadata.map(Ipv4Net::from) != Some(*destination)
                && !destination.addr().is_loopback()
                && destination != source
                && !dmz.contains(destination)
            {
                dmz.push(*destination);
            }
        }
        self.settings.dmz_cidr = Some(dmz).filter(|dmz| !dmz.is_empty());
    }

    pub(super) fn floating(&mut self, found: &Found) {
        // The operator may have named another NIC for the one that the rules call public.
        let mut usual: Vec<String> = self.settings.public_interface.iter().cloned().collect();
        usual.extend(found.rules.source_nat.iter().find_map(|nat| nat.interface.clone()));
        for float in &found.rules.floats {
            let (address, fixed) = (float.address, float.fixed);
            if self.floats.iter().any(|other| other.address == address) {
                continue;
            }
            if let Some(first) = self.floats.iter().find(|other| other.fixed == fixed) {
                self.warnings.push(format!(
                    "{fixed} has floating addresses {} and {address}: a VM's address can have one, \
                     and {address} is left out",
                    first.address
                ));
                continue;
            }
            if !self.vifs.iter().any(|vif| vif.addresses.contains(&fixed)) {
                self.warnings.push(format!(
                    "no vif here has {fixed}, to which {address} belongs: add it to its vif's \
                     addresses; or, if this node is the only gateway of its network, set host in \
                     that [[network]]"
                ));
            }
            let pool = float.interface.clone().filter(|nic| !usual.contains(nic));
            if let Some(nic) = &pool
                && !self.pools.iter().any(|known| known.name == *nic)
            {
                let (name, interface) = (nic.clone(), Some(nic.clone()));
                self.pools.push(PoolEntry { name, next_hop: None, interface });
            }
            self.floats.push(FloatingEntry { address, fixed, network: None, pool });
        }
        if let Some(public) = &found.public {
            let single = public.addresses.iter().filter(|net| net.prefix_len() == 32);
            let (nic, singles) = (&public.interface, single.map(Ipv4Net::addr));
            self.warnings.extend(singles.map(|address| {
                format!(
                    "{nic} has {address}/32, as it would a floating address, and no rule leads from \
                     it to a VM: it stays the host's; write a [[floating_ip]] if it is a VM's"
                )
            }));
        }
    }
}
