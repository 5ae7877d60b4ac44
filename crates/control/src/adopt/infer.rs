//! From what was found to the configuration that does the same.

mod groups;
mod missing;
mod nat;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Found, Network};
use crate::config::{FloatingEntry, GroupEntry, NetworkEntry, PoolEntry, RouteEntry, VifEntry};
use crate::flags::{DhcpServer, Flags, NetworkKind};

/// Longest name of a bridge: its host port's name is three bytes longer.
const BRIDGE_MAX: usize = 12;

/// A configuration, and what is to be said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adopted {
    /// Keys before the first table.
    pub settings: Flags,
    /// `[[network]]`.
    pub networks: Vec<NetworkEntry>,
    /// `[[vif]]`.
    pub vifs: Vec<VifEntry>,
    /// `[[route]]`.
    pub routes: Vec<RouteEntry>,
    /// `[[pool]]`.
    pub pools: Vec<PoolEntry>,
    /// `[[floating_ip]]`.
    pub floats: Vec<FloatingEntry>,
    /// `[[security_group]]`.
    pub groups: Vec<GroupEntry>,
    /// What was found.
    pub seen: Vec<String>,
    /// What it cannot say or could not know, and what to do about that.
    pub warnings: Vec<String>,
}

impl Adopted {
    /// The configuration of node `node` that does what was found.
    #[must_use]
    pub fn of(found: &Found, node: &str) -> Self {
        let mut adopted = Self::default();
        adopted.settings.node = Some(node.to_owned());
        adopted.settings.public_interface =
            found.public.as_ref().map(|public| public.interface.clone());
        adopted.carriers(found);
        for network in &found.networks {
            adopted.network(network, found);
        }
        adopted.translation(found);
        adopted.floating(found);
        adopted.groups(found);
        adopted.see(found);
        adopted.lacks(found);
        adopted.warnings.extend(found.notes.iter().cloned());
        adopted
    }

    /// The settings that most networks share; the others say theirs.
    fn carriers(&mut self, found: &Found) {
        let kinds: Vec<NetworkKind> = found.networks.iter().map(kind).collect();
        let preferred = [NetworkKind::Vlan, NetworkKind::FlatDhcp, NetworkKind::Flat];
        self.settings.network_manager = preferred.into_iter().find(|kind| kinds.contains(kind));
        let nic = |tagged: bool| {
            let uplinks = found.networks.iter().map(|network| &network.bridge.uplink);
            let mut those = uplinks.filter(|uplink| uplink.vlan.is_some() == tagged);
            those.next().map(|uplink| uplink.nic.clone())
        };
        self.settings.vlan_interface = nic(true);
        self.settings.flat_interface = nic(false);
    }

    fn network(&mut self, network: &Network, found: &Found) {
        let bridge = &network.bridge;
        let name = self.name_of(network, found);
        let usual = match bridge.uplink.vlan {
            Some(_) => &self.settings.vlan_interface,
            None => &self.settings.flat_interface,
        };
        let interface =
            Some(&bridge.uplink.nic).filter(|nic| usual.as_ref() != Some(*nic)).cloned();
        let (gateway, external_gateway) = self.gateways(network);
        self.extra_addresses(network);
        let is_shared = gateway.is_some_and(|gateway| found.rules.shared.contains(&gateway));
        let entry = NetworkEntry {
            kind: Some(kind(network)).filter(|kind| self.settings.network_manager != Some(*kind)),
            vlan: bridge.uplink.vlan.map(i64::from),
            cidr: network.cidr,
            cidr_v6: None,
            gateway,
            bridge: self.bridge_of(network),
            interface,
            zone: None,
            mtu: self.mtu_of(network),
            fdb_limit: None,
            share_address: is_shared.then_some(true),
            host: None,
            external_gateway,
            public: false,
            clamp_mss: None,
            // What serves VMs now goes on serving them.
            dhcp: network.dhcp.as_ref().map(|_| DhcpServer::External),
            dns_server: None,
            dhcp_options: None,
            name,
        };
        self.vms(network, &entry);
        self.ways(network, &entry);
        self.networks.push(entry);
    }

    /// nova's label, if DHCP says it and no other network has it; else the bridge.
    fn name_of(&self, network: &Network, found: &Found) -> String {
        let label = |network: &Network| network.dhcp.as_ref().and_then(|dhcp| dhcp.label.clone());
        let fits = |label: &String| (1..=64).contains(&label.len());
        let bridges = found.networks.iter().map(|other| &other.bridge.name);
        let taken: Vec<String> =
            found.networks.iter().filter_map(label).chain(bridges.cloned()).collect();
        label(network)
            .filter(fits)
            .filter(|name| taken.iter().filter(|other| *other == name).count() == 1)
            .unwrap_or_else(|| network.bridge.name.clone())
    }

    fn bridge_of(&mut self, network: &Network) -> Option<String> {
        let bridge = &network.bridge.name;
        if network.bridge.uplink.vlan.is_some_and(|vlan| *bridge == format!("br{vlan}")) {
            return None;
        }
        let short: String = bridge.chars().take(BRIDGE_MAX).collect();
        if short != *bridge {
            self.warnings.push(format!(
                "bridge {bridge} becomes {short}: the name of a host port has {BRIDGE_MAX} letters \
                 at most; change what names it"
            ));
        }
        Some(short)
    }

    fn mtu_of(&mut self, network: &Network) -> Option<u32> {
        let mtu = network.bridge.mtu;
        let possible = mtu.clamp(1280, 9000);
        if possible != mtu {
            self.warnings.push(format!(
                "bridge {} has mtu {mtu}: {possible} is the nearest that a network can have",
                network.bridge.name
            ));
        }
        Some(possible).filter(|mtu| *mtu != 1500)
    }

    /// The gateway on this node, or the one that VMs were told instead.
    fn gateways(&mut self, network: &Network) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
        let (name, cidr) = (&network.bridge.name, network.cidr);
        let inside = |address: &Ipv4Addr| cidr.is_some_and(|cidr| cidr.contains(address));
        let own = network.gateway.map(|gateway| gateway.addr());
        let told = network.dhcp.as_ref().and_then(|dhcp| dhcp.router).filter(inside);
        match (own, told) {
            (Some(own), Some(router)) if own != router => {
                self.warnings.push(format!(
                    "VMs of {name} are told router {router}, which is not this node's {own}: it \
                     becomes external_gateway, and the host port {name} has no address; a DHCP \
                     server on {own} has to move"
                ));
                (None, Some(router))
            }
            (None, Some(router)) => (None, Some(router)),
            (own, _) => (own, None),
        }
    }

    fn extra_addresses(&mut self, network: &Network) {
        let all = network.bridge.addresses.iter();
        for more in all.filter(|address| network.gateway != Some(**address)) {
            self.warnings.push(format!(
                "bridge {} has address {more} as well: a host port has the gateway's alone; move \
                 what uses it",
                network.bridge.name
            ));
        }
    }

    fn vms(&mut self, network: &Network, entry: &NetworkEntry) {
        let bridge = &network.bridge.name;
        for vm in &network.vms {
            let port = &vm.port.name;
            let Some(mac) = vm.mac else {
                self.warnings.push(format!(
                    "{port} on {bridge} is left out, since its VM's MAC is not known: neither DHCP \
                     nor its tap tells, and nobody was heard behind it; have the VM send something, \
                     then adopt again"
                ));
                continue;
            };
            let addresses: Vec<Ipv4Addr> = match entry.cidr {
                Some(cidr) => vm.addresses.iter().copied().filter(|it| cidr.contains(it)).collect(),
                None => Vec::new(),
            };
            let routed = entry.gateway.is_some() || entry.external_gateway.is_some();
            if addresses.is_empty() && routed {
                self.warnings.push(format!(
                    "{port} on {bridge} has no addresses, since nobody knows those of {mac}: ping \
                     the VM from this node, then adopt again, or write them in"
                ));
            }
            self.vifs.push(VifEntry {
                name: port.clone(),
                network: entry.name.clone(),
                mac: mac.to_string(),
                addresses,
                groups: None,
                allowed: Vec::new(),
                dhcp_server: false,
                napi: false,
                quota: None,
                hostname: vm.name.as_deref().and_then(host_name_of),
                instance: None,
                connections: None,
                connection_rate: None,
                flood_rate: None,
                snat_ports: None,
                macs: None,
                punt_rate: None,
            });
        }
    }

    /// Routers in the network.
    fn ways(&mut self, network: &Network, entry: &NetworkEntry) {
        let bridge = &network.bridge;
        let mut routes = network.routes.clone();
        routes.sort_by_key(|route| route.metric);
        for route in routes {
            let to = route.prefix;
            let on_link = |address: &Ipv4Net| address.trunc() == to || address.addr() == to.addr();
            if route.via.is_none() && bridge.addresses.iter().any(on_link) {
                continue;
            }
            let near = |via: &Ipv4Addr| entry.cidr.is_some_and(|cidr| cidr.contains(via));
            let is_new = self.routes.iter().all(|other| other.to != to);
            match route.via.filter(near) {
                Some(via) if is_new => self.routes.push(RouteEntry { to, via, zone: None }),
                _ => self.warnings.push(format!(
                    "the route to {to} by {} is left out: a [[route]] needs a router in a network, \
                     and each prefix one; write another if VMs need it",
                    bridge.name
                )),
            }
            if to.prefix_len() == 0 {
                self.warnings.push(format!(
                    "this host's own default route leads by {}: look after its other traffic before \
                     the bridge goes",
                    bridge.name
                ));
            }
        }
    }

    fn see(&mut self, found: &Found) {
        for network in &found.networks {
            let bridge = &network.bridge;
            let uplink = &bridge.uplink;
            let carried = match uplink.vlan {
                Some(vlan) => format!("{} (VLAN {vlan} on {})", uplink.interface, uplink.nic),
                None => uplink.interface.clone(),
            };
            let vms: Vec<&str> = network.vms.iter().map(|vm| vm.port.name.as_str()).collect();
            let vms =
                if vms.is_empty() { "no VMs".into() } else { format!("VMs {}", vms.join(", ")) };
            let addresses: Vec<String> =
                bridge.addresses.iter().map(|address| format!(", {address}")).collect();
            self.seen.push(format!(
                "bridge {}{} with {carried}, {vms}",
                bridge.name,
                addresses.concat()
            ));
        }
        if let Some(public) = &found.public {
            let floats: Vec<String> = public.floats.iter().map(Ipv4Addr::to_string).collect();
            let floats = if floats.is_empty() { "none".into() } else { floats.join(", ") };
            self.seen.push(format!(
                "public NIC {}, floating addresses on it: {floats}",
                public.interface
            ));
        }
        if let Some(command) = &found.rules_by {
            let (rules, programs) = (&found.rules.rules, &found.rules.programs);
            self.seen.push(format!("{} rules of {} ({command})", rules.len(), programs.join(", ")));
        }
        self.seen.push(self.connections_of_vms(found));
    }

    /// What a changeover could keep alive.
    fn connections_of_vms(&self, found: &Found) -> String {
        let in_a_network = |address| {
            self.networks.iter().any(|it| it.cidr.is_some_and(|cidr| cidr.contains(&address)))
        };
        let of_vms = |it: &&super::conntrack::Connection| {
            in_a_network(it.original.source) || in_a_network(it.reply.source)
        };
        let all: Vec<_> = found.connections.all.iter().filter(of_vms).collect();
        let open: Vec<_> = all.iter().filter(|connection| connection.is_open()).collect();
        let translated = open.iter().filter(|connection| connection.is_translated()).count();
        format!(
            "connections of VMs: {}; open, so that a changeover could keep them: {}; translated among \
             those: {translated}",
            all.len(),
            open.len()
        )
    }
}

fn kind(network: &Network) -> NetworkKind {
    let serves = network.gateway.is_some() || network.dhcp.is_some();
    match network.bridge.uplink.vlan {
        Some(_) => NetworkKind::Vlan,
        None if serves => NetworkKind::FlatDhcp,
        None => NetworkKind::Flat,
    }
}

/// The name that DHCP told a VM, without its domain, if it may be told by us.
fn host_name_of(name: &str) -> Option<String> {
    crate::rules::host_name(name.split('.').next()?).ok()
}
