//! nova-network's bridges on a node that was taken over: each is the host's foot in its network.
//!
//! trunkline's programs take what comes by a bridge's ports before the bridge sees it, so the
//! bridge falls silent by itself, without a gap; what is left is to keep it from sending by them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use control::adopt::{Kept, Record};
use control::model::Network;
use control::netlink::{Link, LinkEvent, Links, foot_name, host_port_name, judge};
use tables::{GATEWAY_MAC, PortId};
use wire::MacAddr;

use crate::back::gratuitous;
use crate::node::Node;
use crate::ports::Wanted;

/// What was taken over, and what is known of it now.
#[derive(Clone, Debug)]
pub(crate) struct Adopted {
    pub(crate) record: Record,
    /// The bridges' own MAC addresses: VMs have them for their gateway's until they hear of ours.
    /// What is sent there is routed (`tables::Gateway::before`), else the host's.
    macs: BTreeMap<String, MacAddr>,
    /// Ports that are nobody's of the configuration, and the bridges that serve them.
    strangers: BTreeMap<String, String>,
}

impl Adopted {
    /// What of a node's record is still there; none if the node was not taken over.
    pub(crate) fn read(node: &str, links: &[Link]) -> Result<Option<Self>> {
        let doing = || format!("the record of what was taken over on {node} cannot be read");
        let Some(mut record) = Record::read(node).with_context(doing)? else { return Ok(None) };
        let mut macs = BTreeMap::new();
        record.bridges.retain(|kept| match bridge(links, kept) {
            Some(link) => {
                macs.extend(link.mac.map(|mac| (kept.name.clone(), mac)));
                true
            }
            None => {
                tracing::warn!("bridge {} of nova-network is gone", kept.name);
                false
            }
        });
        Ok(Some(Self { record, macs, strangers: BTreeMap::new() }))
    }

    /// Whether a bridge was taken over.
    pub(crate) fn keeps(adopted: Option<&Self>, bridge: &str) -> bool {
        adopted.is_some_and(|adopted| adopted.record.bridge(bridge).is_some())
    }

    /// What the bridges serve by themselves from now on.
    fn serve(&mut self, strangers: BTreeMap<String, String>) {
        let before = std::mem::replace(&mut self.strangers, strangers);
        for (port, bridge) in self.strangers.iter().filter(|(port, _)| !before.contains_key(*port))
        {
            tracing::warn!("{}", served(port, bridge));
        }
    }

    /// What an operator should know of it.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.strangers.iter().map(|(port, bridge)| served(port, bridge))
    }

    /// The links as they are to be judged.
    pub(crate) fn freed(adopted: Option<&Self>, links: &[Link]) -> Vec<Link> {
        adopted.map_or_else(|| links.to_vec(), |adopted| adopted.record.freed(links))
    }
}

fn served(port: &str, bridge: &str) -> String {
    format!(
        "{port} is a port of {bridge} and no [[vif]]: nova-network's bridge and rules serve it, beside \
         trunkline; add it to the configuration and reload"
    )
}

/// The link of a bridge that was taken over.
pub(crate) fn bridge<'l>(links: &'l [Link], kept: &Kept) -> Option<&'l Link> {
    let is_it = |link: &&Link| link.index == kept.index && link.is("bridge");
    links.iter().find(is_it).filter(|link| link.name == kept.name)
}

/// Has every port of the bridges that were taken over forward again.
pub(crate) async fn give_back_ports(links: &Links, record: &Record) -> Vec<String> {
    let there = match links.list().await {
        Ok(there) => there,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    for kept in &record.bridges {
        let foot = foot_name(&kept.name);
        let ports = there.iter().filter(|link| link.master == Some(kept.index));
        for port in ports.filter(|port| !port.forwarding && port.name != foot) {
            if let Err(error) = links.set_forwarding(port.index, true).await {
                problems.push(format!("{} in {}: {error}", port.name, kept.name));
            }
        }
    }
    problems
}

impl Node {
    /// The bridge of a network, if it was taken over.
    pub(crate) fn kept(&self, bridge: &str) -> Option<&Kept> {
        self.adopted.as_ref()?.record.bridge(bridge)
    }

    /// The MAC address that a network's gateway had before.
    pub(crate) fn mac_before(&self, bridge: &str) -> Option<MacAddr> {
        self.adopted.as_ref()?.macs.get(bridge).copied()
    }

    /// Whether a link can be a vif.
    pub(crate) fn judge_vif(&self, link: &Link, links: &[Link]) -> Result<(), String> {
        let freed = Adopted::freed(self.adopted.as_ref(), std::slice::from_ref(link));
        freed.iter().try_for_each(|link| judge::vif(link, links))
    }

    /// Makes the host port of a network; where nova's bridge stays, the bridge is the host's end.
    pub(crate) async fn make_host_port(&self, network: &Network) -> Result<()> {
        let (bridge, mtu, node) = (&network.bridge, network.mtu, &self.model.node);
        match self.kept(bridge) {
            Some(_) => self.links.ensure_foot(bridge, mtu, node).await?,
            None => self.links.ensure_host_port(bridge, mtu, node).await?,
        };
        Ok(())
    }

    /// Removes the host port of a network.
    pub(crate) async fn remove_host_port(&self, bridge: &str) -> Result<()> {
        let node = &self.model.node;
        match self.kept(bridge) {
            Some(_) => self.links.remove_foot(bridge, node).await?,
            None => self.links.remove_host_port(bridge, node).await?,
        }
        Ok(())
    }

    /// In which order ports are attached: a bridge gets its foot when that leads somewhere, and
    /// before what was its own goes up to the workers.
    pub(crate) fn turn(&self, id: PortId) -> u8 {
        match self.ports.get(&id).map(|port| &port.wanted) {
            Some(Wanted::Nic { .. }) | None => 0,
            Some(Wanted::Host { .. }) => 1,
            Some(Wanted::Vif { .. }) => 2,
        }
    }

    /// Gives every bridge that was taken over its foot in the segment.
    pub(crate) async fn join_bridges(&self) -> Result<()> {
        let Some(adopted) = &self.adopted else { return Ok(()) };
        for kept in &adopted.record.bridges {
            if self.plugged(&host_port_name(&kept.name)).is_none() {
                continue;
            }
            let Some(foot) = self.links.by_name(&foot_name(&kept.name)).await? else { continue };
            if foot.mac != Some(GATEWAY_MAC) {
                // The bridge takes what is for a port's own address as its own.
                self.links.set_mac(foot.index, GATEWAY_MAC).await?;
            }
            if foot.master == Some(kept.index) {
                continue;
            }
            self.links.join_bridge(foot.index, kept.index).await?;
            // A bridge that nobody gave an address takes the lowest one of its ports.
            let now = self.links.by_name(&kept.name).await?.and_then(|bridge| bridge.mac);
            if let Some(before) = adopted.macs.get(&kept.name).filter(|mac| Some(**mac) != now) {
                self.links.set_mac(kept.index, *before).await?;
            }
            tracing::info!(bridge = %kept.name, "nova-network's bridge is the host's foot");
        }
        Ok(())
    }

    /// Keeps the bridges that were taken over from sending by ports that are ours now, and has them
    /// send by all others: those of VMs that nobody told of, or that are told of no more.
    pub(crate) async fn tend_bridges(&mut self) -> Result<()> {
        let Some(adopted) = &self.adopted else { return Ok(()) };
        let mut strangers = BTreeMap::new();
        for port in self.links.list().await? {
            let kept = adopted.record.bridges.iter().find(|kept| port.master == Some(kept.index));
            let Some(kept) = kept else { continue };
            if port.name == foot_name(&kept.name) {
                continue;
            }
            // Without a foot the bridge has no other way.
            let has_foot = self.plugged(&host_port_name(&kept.name)).is_some();
            let is_taken = port.name == kept.uplink || self.plugged(&port.name).is_some();
            match (has_foot && is_taken, port.forwarding) {
                (true, true) => self.links.set_forwarding(port.index, false).await?,
                (false, false) => {
                    if let Err(error) = self.links.set_forwarding(port.index, true).await {
                        tracing::warn!("{} in {}: {error}", port.name, kept.name);
                    }
                }
                _ => {}
            }
            if has_foot && !is_taken && self.names.ports.get(&port.name).is_none() {
                strangers.insert(port.name, kept.name.clone());
            }
        }
        if let Some(adopted) = &mut self.adopted {
            adopted.serve(strangers);
        }
        self.tell_strangers().await
    }

    /// Says to whom the bridges serve that their gateway is at the bridge: what they send to ours
    /// is for nobody there, and they hear of ours as all others do.
    pub(crate) async fn tell_strangers(&self) -> Result<()> {
        let Some(adopted) = self.adopted.as_ref().filter(|it| !it.strangers.is_empty()) else {
            return Ok(());
        };
        let (links, addresses) = (self.links.list().await?, self.links.addresses().await?);
        for link in &links {
            let kept = adopted.strangers.get(&link.name).and_then(|name| self.kept(name));
            let Some(bridge) = kept.and_then(|kept| bridge(&links, kept)) else { continue };
            let Ok(sender) = kernel::FrameSender::open(link.index) else { continue };
            // One that is down hears it when it is up.
            gratuitous(bridge, &addresses).iter().for_each(|frame| drop(sender.send(frame)));
        }
        Ok(())
    }

    /// The same after something happened to a link: a bridge lets a port forward that gets carrier,
    /// and one that is new.
    pub(crate) async fn tend_after(&mut self, event: &LinkEvent) {
        let Some(adopted) = &self.adopted else { return };
        let is_due = match event {
            LinkEvent::Appeared(link) | LinkEvent::Changed(link) => {
                let mut kept = adopted.record.bridges.iter();
                let in_one = link.forwarding && kept.any(|kept| link.master == Some(kept.index));
                in_one || (link.master.is_none() && adopted.strangers.contains_key(&link.name))
            }
            LinkEvent::Gone { name, .. } => adopted.strangers.contains_key(name),
            LinkEvent::Routing => false,
        };
        if is_due && let Err(error) = self.tend_bridges().await {
            tracing::error!("{error:#}");
        }
    }
}
