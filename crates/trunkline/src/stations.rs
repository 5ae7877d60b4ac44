//! From what workers saw to what they look up: learning, ageing, and lines that lost their way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use conntrack::Mark;
use conntrack::layout::{NEXT_HOP, ROUTED};
use control::learn::{Change, Room, Station};
use control::model::StaticPort;
use pipeline::Notice;
use tables::{PortId, SegmentId};

use crate::node::Node;

/// Lines that lead to these stations are wrong once no worker uses tables older than this.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    generation: u64,
    stations: HashSet<Station>,
    /// Whether the public side's ways are to be asked for again.
    hops: bool,
    /// Whether routed connections are to be asked again.
    ask: bool,
    /// Connections by these ports are to be asked again.
    ports: HashSet<PortId>,
    /// Whether every line is to be held against the tables: an earlier daemon decided them.
    check: bool,
}

impl Pending {
    /// Every line waits to be held against the tables of this generation.
    pub(crate) fn to_check(generation: u64) -> Self {
        Self { generation, check: true, ..Self::default() }
    }
}

impl Node {
    /// Takes in what workers told, and publishes once for all of it.
    pub(crate) async fn hear(&mut self) -> Result<()> {
        let now = dataplane::now();
        let mut news = false;
        let notices: Vec<Notice> = self.workers.notices.try_iter().collect();
        for notice in notices {
            match notice {
                Notice::Seen { segment, mac, port } => {
                    news |= self.seen((segment, mac), port, now);
                }
                Notice::Wanted { link, address } => self.wanted(link, address, now).await,
                Notice::Heard { segment, address, mac } => {
                    news |= self.heard((segment, address), mac, now);
                }
                Notice::Denied { reason, question } => self.log_denied(reason, &question, now),
                Notice::PartialChecksum { port } => self.finish_checksums(port).await?,
            }
        }
        if news {
            self.publish();
        }
        self.answer_dhcp();
        Ok(())
    }

    fn seen(&mut self, station: Station, port: PortId, now: u32) -> bool {
        // A port that went while the notice was on its way has no stations any more.
        if self.ports.get(&port).is_none_or(|port| port.plugged.is_none()) {
            return false;
        }
        let room = self.room_behind(station.0, port);
        match self.stations.see(station, port, now, room) {
            Change::None => false,
            Change::Full => {
                self.fdb_refused += 1;
                false
            }
            Change::PortFull => {
                *self.macs_refused.entry(port).or_default() += 1;
                false
            }
            Change::Added => true,
            Change::Moved => {
                self.revoke([station]);
                true
            }
        }
    }

    /// How many stations may be learned there.
    pub(crate) fn room_behind(&self, segment: SegmentId, port: PortId) -> Room {
        let tables = self.publisher.current();
        let behind = tables.topology.port(port).map_or(0, |port| port.limits.macs);
        Room { segment: self.fdb_limit(segment), port: behind }
    }

    fn fdb_limit(&self, segment: SegmentId) -> u32 {
        let network = self.model.networks.iter();
        let mut found = network.filter(|network| self.names.segment(&network.name) == segment);
        found.next().map_or(0, |network| network.fdb_limit)
    }

    /// Forgets stations that fell silent.
    pub(crate) fn age(&mut self) {
        let ageing = u32::try_from(self.model.tuning.fdb_ageing.as_secs()).unwrap_or(u32::MAX);
        let gone = self.stations.age(dataplane::now(), ageing);
        if !gone.is_empty() {
            self.revoke(gone);
            self.publish();
        }
    }

    /// Puts in force what configuration tells of the ports that are plugged. The caller
    /// publishes.
    pub(crate) fn tell_stations(&mut self) {
        let mut told = HashMap::new();
        for vif in &self.model.vifs {
            let network = self.model.networks.get(vif.network);
            if let (Some(port), Some(network)) = (self.plugged(&vif.name), network) {
                told.insert((self.names.segment(&network.name), vif.mac), port);
            }
        }
        for entry in &self.model.static_fdb {
            let Some(network) = self.model.networks.get(entry.network) else { continue };
            let port = match entry.port {
                StaticPort::Trunk => self.plugged(&network.uplink),
                StaticPort::Vif(at) => {
                    self.model.vifs.get(at).and_then(|vif| self.plugged(&vif.name))
                }
            };
            if let Some(port) = port {
                told.insert((self.names.segment(&network.name), entry.mac), port);
            }
        }
        // Nobody else is the gateway: what is for it and is not routed is the host's.
        for network in self.model.networks.iter().filter(|network| network.gateway.is_some()) {
            let host = self.plugged(&control::netlink::host_port_name(&network.bridge));
            if let Some(host) = host {
                let segment = self.names.segment(&network.name);
                told.insert((segment, tables::GATEWAY_MAC), host);
                told.extend(self.mac_before(&network.bridge).map(|mac| ((segment, mac), host)));
            }
        }
        let changed = self.stations.tell(&told);
        let ports = &self.ports;
        let gone = self.stations.forget_learned(|(segment, _), at| {
            let port = ports.get(&at).filter(|port| port.plugged.is_some());
            port.is_none() || *segment == SegmentId::NONE
        });
        self.revoke(changed.into_iter().chain(gone));
        self.fdb = Arc::new(self.stations.fdb());
    }

    /// Has lines that lead to these stations asked again, once nobody decides by old tables.
    pub(crate) fn revoke(&mut self, stations: impl IntoIterator<Item = Station>) {
        let before = self.pending.stations.len();
        self.pending.stations.extend(stations);
        if self.pending.stations.len() > before {
            // The tables that say so are published next.
            self.pending.generation = self.generation + 1;
        }
    }

    /// Has lines that lead out by a next hop look for their way again.
    pub(crate) fn revoke_hops(&mut self) {
        self.pending.hops = true;
        self.pending.generation = self.generation + 1;
    }

    /// Has all routed connections asked again: routes or rules are not what they were.
    pub(crate) fn ask_all_again(&mut self) {
        self.pending.ask = true;
        self.pending.generation = self.generation + 1;
    }

    /// Has all connections of these ports asked again, by a later daemon if not by this one: to that
    /// one no port is newer than its lines.
    pub(crate) fn ask_ports_again(&mut self, ports: &[PortId]) {
        if !ports.is_empty() {
            self.pending.ports.extend(ports);
            self.pending.generation = self.generation + 1;
        }
    }

    /// Whether lines wait for their pass.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.ask
            || self.pending.hops
            || self.pending.check
            || !self.pending.stations.is_empty()
            || !self.pending.ports.is_empty()
    }

    /// Makes the pass if every worker has moved on. Passes are merged: one walk for all stations
    /// that changed since the last.
    pub(crate) fn make_pass(&mut self) {
        let reached = self.workers.have_reached(self.pending.generation);
        if !self.has_pending() || !reached || self.generation < self.pending.generation {
            return;
        }
        let stations = std::mem::take(&mut self.pending.stations);
        let ports = std::mem::take(&mut self.pending.ports);
        let hops = std::mem::take(&mut self.pending.hops);
        let ask = std::mem::take(&mut self.pending.ask);
        if std::mem::take(&mut self.pending.check) {
            self.check_lines();
        }
        let revoked = self.workers.flows.revoke(|flow| {
            let segment = SegmentId::new(flow.segment()).unwrap_or(SegmentId::NONE);
            let lost = stations.contains(&(segment, wire::MacAddr(flow.destination_mac())));
            let by_hop = hops && flow.flags() & NEXT_HOP != 0;
            let by_port = |number| PortId::new(number).is_some_and(|port| ports.contains(&port));
            let by_ports = || by_port(flow.key().ingress()) || by_port(flow.egress());
            let asked = (ask && flow.flags() & ROUTED != 0) || (!ports.is_empty() && by_ports());
            match (asked, lost || by_hop) {
                (true, _) => Mark::AskAgain,
                (false, true) => Mark::ForgetPath,
                (false, false) => Mark::Keep,
            }
        });
        tracing::debug!(stations = stations.len(), lines = revoked.marked, "revoked");
    }
}
