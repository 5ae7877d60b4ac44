//! What nova-network built on this node, read back, and the configuration that does the same.
//!
//! [`Reading`] is what the machine says, gathered by [`read()`]; [`Found`] is what of it is nova's,
//! and all a changeover has to know; [`Adopted`] is the configuration, with words on what it cannot
//! say. Only [`read()`] looks at the machine, and nothing here changes it.

pub mod bridges;
pub mod conntrack;
pub mod ctnetlink;
pub mod hosts;
mod infer;
mod print;
pub mod read;
pub mod record;
pub mod rules;
pub mod save;
pub mod vms;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use self::bridges::{Bridge, Bridges};
use self::conntrack::Connections;
use self::hosts::{Dhcp, Process};
use self::rules::NovaRules;
use self::save::Saved;
use self::vms::{Known, Vm};
use crate::model::Nic;
use crate::netlink::{BridgeStation, KernelNeighbour, KernelRoute, Link, judge};

pub use infer::Adopted;
pub use read::{connections, read};
pub use record::{Kept, Record};

/// What the machine says; see [`read()`].
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses, by index of their link.
    pub addresses: Vec<(u32, IpNet)>,
    /// The main table.
    pub routes: Vec<KernelRoute>,
    /// IPv4 neighbours.
    pub neighbours: Vec<KernelNeighbour>,
    /// Stations behind ports of bridges.
    pub stations: Vec<BridgeStation>,
    /// Each kind of iptables there is, as (command, what it printed).
    pub iptables: Vec<(String, String)>,
    /// The same of ebtables.
    pub ebtables: Vec<(String, String)>,
    /// Every dnsmasq of this network namespace that has a hosts file.
    pub dhcp: Vec<Process>,
    /// The text of the kernel's connections.
    pub connections: String,
    /// What could not be read, and what to do about it.
    pub notes: Vec<String>,
}

/// What of a node is nova-network's.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its networks, by the name of their bridge.
    pub networks: Vec<Network>,
    /// The NIC towards the provider.
    pub public: Option<Public>,
    /// The command that printed nova's rules.
    pub rules_by: Option<String>,
    /// Its rules.
    pub rules: NovaRules,
    /// The kernel's connections, the host's own among them.
    pub connections: Connections,
    /// What was left alone or not understood, and what to do about it.
    pub notes: Vec<String>,
}

/// One of nova's networks on this node.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its bridge, which has to go, and the interfaces that have to leave it.
    pub bridge: Bridge,
    /// This node's own address in it, with the subnet's prefix.
    pub gateway: Option<Ipv4Net>,
    /// The subnet, if anybody says.
    pub cidr: Option<Ipv4Net>,
    /// The VMs of this node.
    pub vms: Vec<Vm>,
    /// Its DHCP.
    pub dhcp: Option<Dhcp>,
    /// Routes that lead by its bridge.
    pub routes: Vec<KernelRoute>,
}

/// The NIC towards the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// Its name.
    pub interface: String,
    /// Its own addresses, the host's.
    pub addresses: Vec<Ipv4Net>,
    /// Floating addresses that nova gave it, which have to leave it.
    pub floats: Vec<Ipv4Addr>,
}

impl Found {
    /// What of a reading is nova's; `public` names the public NIC, if the operator did.
    #[must_use]
    pub fn of(reading: &Reading, public: Option<&str>) -> Self {
        let mut found = Self { notes: reading.notes.clone(), ..Self::default() };
        found.take_rules(reading);
        found.connections = Connections::parse(&reading.connections);
        let dhcp: Vec<Dhcp> = reading.dhcp.iter().filter_map(Dhcp::of).collect();
        let mut named: BTreeSet<String> = found.rules.bridges.clone();
        named.extend(dhcp.iter().map(|dhcp| dhcp.bridge.clone()));
        let bridges = Bridges::of(&reading.links, &reading.addresses, &named);
        found.notes.extend(bridges.notes);
        for bridge in bridges.novas {
            // A dnsmasq with a script runs twice, as itself and as the script's caller.
            let dhcp = dhcp.iter().find(|dhcp| dhcp.bridge == bridge.name).cloned();
            let network = found.network(bridge, dhcp, reading);
            found.networks.push(network);
        }
        found.public = found.find_public(reading, public);
        found.judge_nics(&reading.links);
        found
    }

    fn take_rules(&mut self, reading: &Reading) {
        for (command, text) in &reading.iptables {
            let saved = Saved::parse(text);
            let strange = saved.strange.len();
            if strange > 0 {
                self.notes.push(format!("{command} printed {strange} lines that are no rules"));
            }
            let mut rules = NovaRules::of(&saved);
            if rules.programs.is_empty() {
                self.rules.foreign.append(&mut rules.foreign);
                continue;
            }
            if let Some(first) = &self.rules_by {
                self.notes.push(format!(
                    "nova's rules are in {first} and in {command}: those of {first} are taken; delete \
                     the others, which are from another time"
                ));
                continue;
            }
            rules.foreign.append(&mut self.rules.foreign);
            (self.rules_by, self.rules) = (Some(command.clone()), rules);
        }
        if self.rules_by.is_none() {
            self.notes.push(
                "no chain of nova's is in iptables: floating addresses and source translation are \
                 not known; run this as root, in the network namespace of nova-network"
                    .into(),
            );
        }
        for (_, text) in &reading.ebtables {
            self.rules.read_ebtables(&Saved::parse(text));
        }
    }

    fn network(&self, bridge: Bridge, dhcp: Option<Dhcp>, reading: &Reading) -> Network {
        // A single address is nobody's network.
        let gateway = bridge.addresses.iter().find(|address| address.prefix_len() <= 30).copied();
        let served = dhcp.as_ref().and_then(|dhcp| dhcp.cidr);
        let cidr = gateway.map(|gateway| gateway.trunc()).or(served);
        let fixed: Vec<Ipv4Addr> = self.rules.groups.iter().map(|group| group.address).collect();
        let known = Known {
            bridge: bridge.index,
            cidr,
            hosts: dhcp.as_ref().map_or(&[], |dhcp| &dhcp.hosts),
            stations: &reading.stations,
            neighbours: &reading.neighbours,
            fixed: &fixed,
        };
        let vms = bridge.ports.iter().map(|port| known.vm(port)).collect();
        let by_it = |route: &&KernelRoute| route.interface == bridge.index;
        let routes = reading.routes.iter().filter(by_it).cloned().collect();
        Network { bridge, gateway, cidr, vms, dhcp, routes }
    }

    /// The NIC that was named, or where translated packets leave, or that has floating addresses, or
    /// where the default route leads.
    fn find_public(&mut self, reading: &Reading, named: Option<&str>) -> Option<Public> {
        let rule = self.rules.source_nat.iter().find_map(|nat| nat.interface.clone());
        let floats: Vec<Ipv4Addr> = self.rules.floats.iter().map(|float| float.address).collect();
        let is_float = |net: &IpNet| matches!(net, IpNet::V4(net) if net.prefix_len() == 32 && floats.contains(&net.addr()));
        let name_of = |index: u32| {
            reading.links.iter().find(|link| link.index == index).map(|link| link.name.clone())
        };
        let has_float = reading.addresses.iter().find(|(_, net)| is_float(net)).map(|(at, _)| *at);
        let default = reading.routes.iter().filter(|route| route.prefix.prefix_len() == 0);
        let default = default.min_by_key(|route| route.metric).map(|route| route.interface);
        if let (Some(named), Some(rule)) = (named, rule.as_deref())
            && named != rule
        {
            self.notes.push(format!(
                "nova's rules translate what leaves by {rule}, and {named} was named: {named} is \
                 taken"
            ));
        }
        let named = named.map(str::to_owned);
        let interface = named
            .or(rule)
            .or_else(|| has_float.and_then(name_of))
            .or_else(|| default.and_then(name_of))?;
        let mut public = Public { interface, addresses: Vec::new(), floats: Vec::new() };
        for (index, net) in &reading.addresses {
            match net {
                IpNet::V4(net) if name_of(*index).as_ref() == Some(&public.interface) => {
                    match is_float(&IpNet::V4(*net)) {
                        true => public.floats.push(net.addr()),
                        false => public.addresses.push(*net),
                    }
                }
                _ => {}
            }
        }
        Some(public)
    }

    /// Says which NICs trunkline will refuse once the bridges are gone.
    fn judge_nics(&mut self, links: &[Link]) {
        let mut links = links.to_vec();
        for network in &self.networks {
            let uplink = links.iter_mut().find(|link| link.index == network.bridge.uplink.index);
            if let Some(uplink) = uplink.filter(|_| network.bridge.uplink.vlan.is_none()) {
                uplink.master = None;
            }
        }
        let trunks = self.networks.iter().map(|network| {
            let mtu = Some(network.bridge.mtu.clamp(1280, 9000));
            (network.bridge.uplink.nic.clone(), true, mtu)
        });
        let public = self.public.iter().map(|public| (public.interface.clone(), false, None));
        let mut refused: Vec<String> = Vec::new();
        for (name, trunk, mtu) in trunks.chain(public) {
            let nic = Nic { name, trunk, public: !trunk };
            if let Err(why) = judge::uplink(&nic.name, &links, mtu) {
                refused.push(format!("trunkline will not take the NIC: {why}"));
            }
        }
        refused.dedup();
        self.notes.append(&mut refused);
    }
}
