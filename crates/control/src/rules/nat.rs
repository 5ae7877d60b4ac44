//! A `[[floating_ip]]`, its `[[pool]]`, and the settings of address translation.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::Draft;
use super::settings::short_timeouts;
use super::vif::not_there;
use crate::config::{ConfigError, Entry, FloatingEntry, PoolEntry};
use crate::flags::FirewallDriver;
use crate::model::{FloatingIp, NatRules, Network};

impl Draft<'_> {
    pub(super) fn floats(&mut self) -> Result<Vec<FloatingIp>, ConfigError> {
        let file = self.said.file;
        let mut floats: Vec<(FloatingIp, usize)> = Vec::new();
        for (place, Entry { value, lines }) in file.pools.iter().enumerate() {
            let named = |other: &Entry<PoolEntry>| other.value.name == value.name;
            if file.pools[..place].iter().any(named) {
                let message = format!("pool '{}' is already there", value.name);
                return Err(self.said.line(lines.of("name"), message));
            }
        }
        for Entry { value, lines } in &file.floats {
            let said = self.said;
            let at = |key: &str, message| said.line(lines.of(key), message);
            let network = self.network_of(value).map_err(|(key, message)| at(key, message))?;
            let vif = self.vifs.iter().position(|(vif, _)| {
                Some(vif.network) == network && vif.addresses.contains(&value.fixed)
            });
            self.free(value.address).map_err(|message| at("address", message))?;
            for (other, line) in &floats {
                if other.address == value.address {
                    let message = format!("{} is there already (line {line})", value.address);
                    return Err(at("address", message));
                }
                if other.network == network && other.fixed == value.fixed {
                    let message = format!(
                        "{} has a floating address already, {} (line {line}): a VM's address can \
                         have one",
                        value.fixed, other.address
                    );
                    return Err(at("fixed", message));
                }
            }
            let (nic, next_hop) = self.pool_of(value).map_err(|message| at("pool", message))?;
            let (address, fixed) = (value.address, value.fixed);
            floats
                .push((FloatingIp { address, fixed, network, vif, nic, next_hop }, lines.first()));
        }
        Ok(floats.into_iter().map(|(float, _)| float).collect())
    }

    /// The network of the fixed address; none if it is in none of this file's, so that the VM is on
    /// another node. Else the key and the words.
    fn network_of(&self, float: &FloatingEntry) -> Result<Option<usize>, (&'static str, String)> {
        let fixed = float.fixed;
        if let Some(name) = &float.network {
            let network = self.find_network(name).map_err(|message| ("network", message))?;
            self.in_subnet(fixed, network).map_err(|message| ("fixed", message))?;
            return Ok(Some(network));
        }
        let holds = |network: &Network| network.cidr.is_some_and(|cidr| cidr.contains(&fixed));
        let all = self.networks.iter().enumerate();
        let found: Vec<(usize, &str)> = all
            .filter(|(_, (network, _))| holds(network))
            .map(|(place, (network, _))| (place, network.name.as_str()))
            .collect();
        match found.as_slice() {
            [] => Ok(None),
            [(network, _)] => Ok(Some(*network)),
            [(_, one), (_, two), ..] => Err((
                "fixed",
                format!("{fixed} may be in '{one}' or '{two}': say which, network = \"{one}\""),
            )),
        }
    }

    /// Whether an address can float: it is nobody's else.
    fn free(&self, address: Ipv4Addr) -> Result<(), String> {
        if self.settings.routing_source_ip == Some(address) {
            return Err(format!("{address} is routing_source_ip, which is shared by all"));
        }
        let holds = |cidr: Option<Ipv4Net>| cidr.is_some_and(|cidr| cidr.contains(&address));
        match self.networks.iter().find(|(network, _)| holds(network.cidr)) {
            Some((network, line)) => {
                Err(format!("{address} is in network '{}' (line {line})", network.name))
            }
            None => Ok(()),
        }
    }

    /// The NIC of a floating address, and the router its pool names.
    fn pool_of(&mut self, float: &FloatingEntry) -> Result<(String, Option<Ipv4Addr>), String> {
        let pools = &self.said.file.pools;
        let pool = match &float.pool {
            None => None,
            Some(name) => {
                let found = pools.iter().find(|entry| entry.value.name == *name);
                let names = pools.iter().map(|entry| entry.value.name.as_str());
                Some(found.ok_or_else(|| not_there("pool", name, "a [[pool]]", names))?)
            }
        };
        let named = pool.and_then(|pool| pool.value.interface.clone());
        let nic = named.or_else(|| self.settings.public_interface.clone()).ok_or_else(|| {
            format!(
                "{} has no NIC to be answered for on: set public_interface, or a pool with one",
                float.address
            )
        })?;
        self.nics.add(&nic, false, &mut self.names)?;
        let untagged = |network: &Network| network.uplink == nic && network.vlan.is_none();
        if let Some((network, line)) = self.networks.iter().find(|(it, _)| untagged(it)) {
            return Err(format!(
                "pool interface {nic} carries network '{}' (line {line}) untagged: it cannot be the \
                 provider's too",
                network.name
            ));
        }
        Ok((nic, pool.and_then(|pool| pool.value.next_hop)))
    }

    pub(super) fn nat(&self) -> Result<NatRules, ConfigError> {
        let settings = &self.settings;
        let proper = |key: &str, cidr: &Ipv4Net| match *cidr == cidr.trunc() {
            true => Ok(*cidr),
            false => {
                Err(self.said.setting(key, format!("{cidr} is no prefix: write {}", cidr.trunc())))
            }
        };
        let list = |key: &str, cidrs: &Option<Vec<Ipv4Net>>| {
            cidrs.iter().flatten().map(|cidr| proper(key, cidr)).collect::<Result<Vec<_>, _>>()
        };
        let mut exempt = list("dmz_cidr", &settings.dmz_cidr)?;
        let metadata = self.metadata()?;
        // What stays on the node keeps its source anyway.
        let elsewhere = settings.metadata_host.filter(|host| !host.is_loopback());
        exempt.extend(elsewhere.map(Ipv4Net::from));
        let fixed_range = settings.fixed_range.as_ref();
        Ok(NatRules {
            fixed_range: fixed_range.map(|cidr| proper("fixed_range", cidr)).transpose()?,
            exempt,
            metadata,
            forced: list("force_snat_range", &settings.force_snat_range)?,
            ports: settings.snat_ports.unwrap_or_default(),
            pickup: settings.tcp_pickup.unwrap_or(true),
        })
    }

    /// The metadata server. 127.0.0.1 is nova's word for this node; a VM's packets are led to
    /// routing_source_ip there, since none from outside may be for a loopback's address.
    fn metadata(&self) -> Result<Option<SocketAddrV4>, ConfigError> {
        let settings = &self.settings;
        let refuse = |key: &str, message: String| Err(self.said.setting(key, message));
        let port = settings.metadata_port.unwrap_or(8775);
        if port == 0 {
            return refuse("metadata_port", "metadata_port is 0: use 1 to 65535".into());
        }
        let host = match (settings.metadata_host, settings.routing_source_ip) {
            (None, _) => return Ok(None),
            (Some(host), Some(here)) if host.is_loopback() => here,
            (Some(host), None) if host.is_loopback() => {
                let message = format!(
                    "metadata_host = {host} is this node, which VMs reach by routing_source_ip: set \
                     that, or metadata_host to an address of this node"
                );
                return refuse("metadata_host", message);
            }
            (Some(host), _) if host.is_unspecified() || host.is_multicast() => {
                return refuse("metadata_host", format!("{host} cannot be a server's address"));
            }
            (Some(host), _) => host,
        };
        Ok(Some(SocketAddrV4::new(host, port)))
    }

    /// What is allowed, and probably not meant.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = short_timeouts(&self.settings);
        warnings.extend(self.strange_ways());
        warnings.extend(self.unanswered());
        if let Some(range) = self.settings.fixed_range {
            warnings.push(format!(
                "fixed_range = {range} translates all tenants as one range, as nova did before \
                 Grizzly: leave it out to have each network by itself"
            ));
        }
        warnings.extend(self.nothing_comes_in());
        let routes = self.networks.iter().any(|(network, _)| network.gateway.is_some());
        if routes
            && self.settings.public_interface.is_some()
            && self.settings.routing_source_ip.is_none()
        {
            warnings.push(
                "routing_source_ip is not set: VMs without a floating address do not reach the \
                 public side"
                    .into(),
            );
        }
        if self.settings.firewall_driver.unwrap_or_default() != FirewallDriver::Noop {
            warnings.extend(self.open_walls());
        }
        warnings
    }
}
