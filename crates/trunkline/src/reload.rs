//! A new configuration under running traffic: only what differs is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use control::model::{Model, Network, Vif};
use control::report::Reloaded;
use control::{compile, describe};
use tables::PortId;

use crate::dnsmasq;
use crate::node::Node;
use crate::ports::{self, PortState, Wanted};

impl Node {
    /// Reads the file again and puts it in force; a bad one changes nothing.
    pub(crate) async fn reload(&mut self) -> Result<Reloaded, String> {
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(reloaded) => {
                tracing::info!("{}", reloaded.message);
                self.reloads.ok += 1;
                self.reloads.last_error = None;
            }
            Err(error) => {
                tracing::error!("reload refused, the old configuration stays: {error:#}");
                self.reloads.refused += 1;
                self.reloads.last_error = Some(format!("{error:#}"));
            }
        }
        outcome.map_err(|error| format!("{error:#}"))
    }

    async fn try_reload(&mut self) -> Result<Reloaded> {
        let model = Model::load(&self.flags)?;
        dnsmasq::programs(&model)?;
        let fixed = self.model.restart_needed(&model);
        if !fixed.is_empty() {
            bail!("these need a restart of the daemon: {}", fixed.join(", "));
        }
        let before = names_of(&self.model);
        let after = names_of(&model);
        let added: Vec<String> =
            after.keys().filter(|k| !before.contains_key(*k)).cloned().collect();
        let removed: Vec<String> =
            before.keys().filter(|k| !after.contains_key(*k)).cloned().collect();
        let changed: Vec<String> = after
            .iter()
            .filter(|(name, what)| before.get(*name).is_some_and(|old| old != *what))
            .map(|(name, _)| name.clone())
            .collect();
        self.apply(model).await?;
        self.tend_dnsmasq();
        let message = match added.len() + removed.len() + changed.len() {
            0 => "reloaded: nothing differs".to_owned(),
            _ => format!(
                "reloaded: {} added, {} removed, {} changed",
                added.len(),
                removed.len(),
                changed.len()
            ),
        };
        Ok(Reloaded { message, added, removed, changed })
    }

    /// Makes the node what the model says.
    pub(crate) async fn apply(&mut self, model: Model) -> Result<()> {
        // Numbers first: without one for everything nothing has been touched yet.
        let mut names = self.names.clone();
        let wanted = ports::wanted(&model, |bridge| self.kept(bridge).is_some());
        for network in &model.networks {
            names.segments.take(&network.name).context("there are 4094 segments already")?;
            names.zones.take(&network.zone).context("there are 4095 zones already")?;
        }
        for name in wanted.keys() {
            names.ports.take(name).context("there are 4094 ports already")?;
        }
        self.names = names;
        let old = std::mem::replace(&mut self.model, model);
        self.leases.retain(|name, _| self.model.vifs.iter().any(|vif| vif.name == *name));
        for warning in self.model.warnings.iter().filter(|new| !old.warnings.contains(new)) {
            tracing::warn!("{warning}");
        }
        let decided =
            |model: &Model| (model.networks.clone(), model.nat.clone(), model.policy.clone());
        if decided(&old) != decided(&self.model) {
            self.ask_all_again();
        }

        self.stamp_identities(&old);
        self.remove_ports(&wanted).await;
        self.remove_segments(&old);
        let groups = compile::groups(&self.model, &self.groups, |zone| self.names.zone(zone));
        self.groups = Arc::new(groups);
        for (name, (what, hook)) in wanted {
            let Some(id) = self.names.ports.get(&name).and_then(PortId::new) else { continue };
            self.ports.entry(id).or_insert_with(|| PortState {
                id,
                name,
                wanted: what,
                hook,
                plugged: None,
                refusal: None,
            });
        }
        conntrack::fault::point("reload");
        self.compile();
        self.add_segments()?;
        self.plug_what_is_there().await
    }

    /// Unplugs ports that are wanted no more, or in another segment.
    async fn remove_ports(&mut self, wanted: &BTreeMap<String, (Wanted, control::flags::Hook)>) {
        let stays =
            |port: &PortState| wanted.get(&port.name).is_some_and(|(what, _)| *what == port.wanted);
        let gone: Vec<PortState> =
            self.ports.values().filter(|port| !stays(port)).cloned().collect();
        for port in gone {
            self.unplug(port.id);
            self.ports.remove(&port.id);
            if let Wanted::Host { bridge, .. } = &port.wanted
                && let Err(error) = self.remove_host_port(bridge).await
            {
                tracing::warn!("host port {bridge}: {error}");
            }
            if !wanted.contains_key(&port.name) {
                self.names.ports.release(&port.name);
            }
        }
    }

    fn remove_segments(&mut self, old: &Model) {
        for network in &old.networks {
            if self.model.networks.iter().any(|new| same_segment(new, network)) {
                continue;
            }
            let (nic, vlan) = (self.nic(&network.uplink), network.vlan.unwrap_or(0));
            let segment = self.names.segment(&network.name);
            self.tried("segment", |kernel| kernel.clear_vlan(nic.get(), vlan));
            self.told.forget_segment(segment);
            self.tried("segment", |kernel| kernel.clear_segment(segment.get()));
            self.stations.forget_learned(|(at, _), _| *at == segment);
            if self.model.networks.iter().all(|new| new.name != network.name) {
                self.names.segments.release(&network.name);
            }
        }
        let zones: BTreeSet<&str> =
            self.model.networks.iter().map(|network| network.zone.as_str()).collect();
        for network in &old.networks {
            if !zones.contains(network.zone.as_str()) {
                self.names.zones.release(&network.zone);
            }
        }
    }

    fn add_segments(&mut self) -> Result<()> {
        self.tell_kernel()?;
        let uplinks: BTreeSet<String> =
            self.model.networks.iter().map(|network| network.uplink.clone()).collect();
        // A NIC that is not plugged yet owns them when it is.
        for nic in uplinks {
            if self.plugged(&nic).is_some() {
                self.own_vlans(&nic)?;
            }
        }
        Ok(())
    }

    /// Has a NIC's program send up the VLANs of its segments.
    pub(crate) fn own_vlans(&mut self, nic: &str) -> Result<()> {
        let Some(port) = self.names.ports.get(nic) else { return Ok(()) };
        for network in self.model.networks.iter().filter(|network| network.uplink == nic) {
            let segment = self.names.segment(&network.name).get();
            self.kernel.set_vlan(port, network.vlan.unwrap_or(0), segment)?;
        }
        Ok(())
    }

    fn nic(&self, name: &str) -> PortId {
        self.names.ports.get(name).and_then(PortId::new).unwrap_or(PortId::NONE)
    }
}

/// Whether both say the same to the kernel and the workers about a segment.
fn same_segment(one: &Network, two: &Network) -> bool {
    let of = |network: &Network| {
        (network.name.clone(), network.uplink.clone(), network.vlan, network.zone.clone())
    };
    of(one) == of(two)
}

/// Everything a reload can change, by a name for people, with all that is said of it.
fn names_of(model: &Model) -> BTreeMap<String, String> {
    let network_of = |at: usize| model.networks.get(at).map_or("", |network| &network.name);
    let networks =
        model.networks.iter().map(|net| (format!("network {}", net.name), format!("{net:?}")));
    let vifs = model.vifs.iter().map(|vif| {
        let names = vif.groups.iter().filter_map(|at| model.security.groups.get(*at as usize));
        let groups: Vec<&str> = names.map(|group| group.name.as_str()).collect();
        // What is numbered may have other numbers and be the same.
        let numbered = Vif { network: 0, groups: Vec::new(), ..vif.clone() };
        let what = format!("{} {groups:?} {numbered:?}", network_of(vif.network));
        (format!("vif {}", vif.name), what)
    });
    let fdb = model.static_fdb.iter().map(|entry| {
        let name = format!("fdb {} in {}", entry.mac, network_of(entry.network));
        (name, format!("{:?}", entry.port))
    });
    let floats = model
        .floats
        .iter()
        .map(|float| (format!("floating_ip {}", float.address), format!("{float:?}")));
    let routes = model.routes.iter().map(|route| {
        (format!("route {} in {}", route.to, network_of(route.network)), route.via.to_string())
    });
    let neighbours = model.neighbours.iter().map(|told| {
        let name = format!("neighbour {} in {}", told.address, network_of(told.network));
        (name, told.mac.to_string())
    });
    let nat = ("address translation".to_owned(), format!("{:?}", model.nat));
    let dhcp = ("DHCP".to_owned(), format!("{:?}", model.dhcp));
    let security = &model.security;
    let groups = security.groups.iter().map(|group| {
        let rules = group.rules.iter().map(|rule| describe::rule(rule, security));
        let rules = rules.collect::<Vec<_>>();
        (format!("security_group {}", group.name), format!("{rules:?} {:?}", group.members))
    });
    let walls = format!("{} {} {}", security.stands, security.same_net, security.revoke);
    let walls = ("security groups".to_owned(), walls);
    let firewall = ("firewall_driver".to_owned(), model.firewall.to_string());
    let policy = ("policy".to_owned(), format!("{:?}", model.policy));
    let rules = [nat, dhcp, walls, firewall, policy];
    let l3 = floats.chain(routes).chain(neighbours).chain(rules);
    networks.chain(vifs).chain(fdb).chain(l3).chain(groups).collect()
}
