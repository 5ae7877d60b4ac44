//! What the node tells on the control socket.

use std::collections::BTreeMap;

use control::describe;
use control::report::{self, Connections, FdbEntry, Status, Verdicts};
use kernel::KernelDrop;
use tables::{PortId, PortKind, SegmentId};

use crate::adopted::Adopted;
use crate::node::Node;
use crate::ports::PortState;

impl Node {
    /// The daemon as a whole.
    pub(crate) fn status(&self) -> Status {
        let ports = self.port_reports();
        let mut drops: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in ports.iter().flat_map(|port| &port.drops) {
            *drops.entry(reason.clone()).or_default() += count;
        }
        // Row 0: frames that named no port.
        for (reason, count) in self.drops(PortId::NONE) {
            *drops.entry(reason).or_default() += count;
        }
        let unread = self.workers.gauge(|gauges| &gauges.rx_full);
        if unread > 0 {
            drops.insert("rx_full".to_owned(), unread);
        }
        let hooks = ports.iter().filter(|port| port.state == "plugged");
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.model.node.clone(),
            ready: self.ready,
            uptime_s: self.started.elapsed().as_secs(),
            pid: std::process::id(),
            workers: self.workers.len() as u32,
            ports: ports.iter().filter(|port| port.state == "plugged").count() as u32,
            segments: self.model.networks.len() as u32,
            fdb_entries: self.stations.len() as u64,
            connections: Connections {
                lines: u64::from(self.workers.flows.len()),
                live: 2 * self.workers.flows.connections(),
            },
            frames: self.workers.frames(),
            replay: self.replay.clone(),
            verdicts: Verdicts {
                replayed: ports.iter().map(|port| port.replayed).sum(),
                forward: self.workers.sum(|counters| &counters.forward),
                flood: self.workers.sum(|counters| &counters.flood),
                reply: self.workers.sum(|counters| &counters.reply),
                host: self.workers.sum(|counters| &counters.host),
                taken: self.workers.sum(|counters| &counters.taken),
            },
            drops,
            hooks: hooks.map(|port| (port.name.clone(), port.hook.clone())).collect(),
            warnings: self.all_warnings(),
            reloads: self.reloads.clone(),
            socket_renewals: self.renewals,
        }
    }

    fn all_warnings(&self) -> Vec<String> {
        let mut warnings = [&self.warnings[..], &self.model.warnings].concat();
        for port in self.ports.values() {
            if let Some(refusal) = &port.refusal {
                warnings.push(format!("{} is not plugged: {refusal}", port.name));
            }
        }
        warnings.extend(self.adopted.iter().flat_map(Adopted::warnings));
        warnings.extend(self.servers.warnings());
        if self.fdb_refused > 0 {
            warnings.push(format!(
                "{} sightings of stations were not learned: their segment is at its fdb_limit",
                self.fdb_refused
            ));
        }
        for (id, count) in &self.macs_refused {
            let name = self.ports.get(id).map_or("", |port| &port.name);
            warnings.push(format!(
                "{name}: {count} sightings of stations behind it were not learned: as many are as \
                 `vif_macs` allows"
            ));
        }
        let errors = self.workers.gauge(|gauges| &gauges.errors);
        if errors > 0 {
            warnings.push(format!("{errors} sends failed: an interface is down or gone"));
        }
        warnings
    }

    /// All ports, by number.
    pub(crate) fn port_reports(&self) -> Vec<report::Port> {
        self.ports.values().map(|port| self.port_report(port)).collect()
    }

    fn port_report(&self, port: &PortState) -> report::Port {
        let counted = self.kernel.counters(port.id.get()).unwrap_or_default();
        let plugged = port.plugged.as_ref();
        let sent = |pick: fn(&pipeline::PortCounters) -> &std::sync::atomic::AtomicU64| {
            self.workers.sum(|counters| pick(counters.port(port.id)))
        };
        report::Port {
            number: port.id.get(),
            name: port.name.clone(),
            kind: match port.kind() {
                PortKind::Vif => report::PortKind::Vif,
                PortKind::Host => report::PortKind::Host,
                PortKind::Trunk => report::PortKind::Trunk,
                PortKind::Public => report::PortKind::Public,
            },
            segment: port.network().map(str::to_owned),
            ifindex: plugged.map(|plugged| plugged.link.index),
            state: match (plugged, &port.refusal) {
                (Some(_), _) => "plugged".to_owned(),
                (None, Some(_)) => "refused".to_owned(),
                (None, None) => "waiting".to_owned(),
            },
            hook: plugged.map(|plugged| plugged.hook.clone()).unwrap_or_default(),
            mac: plugged.and_then(|plugged| plugged.link.mac).map(|mac| mac.to_string()),
            sends_as: self.sends_as(port),
            mtu: plugged.map(|plugged| plugged.link.mtu),
            rx_packets: counted.rx_packets,
            rx_bytes: counted.rx_bytes,
            tx_packets: counted.tx_packets + sent(|row| &row.tx_packets),
            tx_bytes: counted.tx_bytes + sent(|row| &row.tx_bytes),
            punted: counted.punted,
            connections: self.workers.flows.connections_of(port.id.get()),
            macs: self.stations.learned_behind(port.id),
            passed: counted.passed,
            replayed: counted.replayed,
            answered: counted.answered,
            drops: self.drops(port.id),
        }
    }

    /// What a port's VM may send from, in words.
    fn sends_as(&self, port: &PortState) -> Vec<String> {
        let tables = self.publisher.current();
        let identity = tables.topology.port(port.id).and_then(|row| row.identity.as_ref());
        match identity {
            Some(identity) => identity.words(),
            None if port.is_vif() && port.plugged.is_some() => vec!["any".to_owned()],
            None => Vec::new(),
        }
    }

    /// Drops of a port by the pipeline and by the kernel's programs.
    fn drops(&self, id: PortId) -> BTreeMap<String, u64> {
        let mut drops = self.workers.drops(id);
        let counted = self.kernel.counters(id.get()).unwrap_or_default();
        let kernel = KernelDrop::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), counted.dropped(*reason)));
        let unsent = self.workers.sum(|counters| &counters.port(id).tx_dropped);
        let kept = self.workers.sum(|counters| &counters.port(id).tx_kept);
        let after = [("tx_full", unsent), ("security_group_flood", kept)];
        let all = kernel.chain(after.map(|(name, count)| (name.to_owned(), count)));
        drops.extend(all.filter(|(_, count)| *count > 0));
        drops
    }

    /// All security groups, in the order of the file.
    pub(crate) fn group_reports(&self) -> Vec<report::Group> {
        let refused = |vif: &str| match self.names.ports.get(vif).and_then(PortId::new) {
            Some(id) => self.workers.sum(|counters| &counters.port(id).tx_refused),
            None => 0,
        };
        describe::groups(&self.model, refused)
    }

    /// All segments, by number.
    pub(crate) fn segment_reports(&self) -> Vec<report::Segment> {
        let of = |network: &control::model::Network| {
            let id = self.names.segment(&network.name);
            let vifs = self.ports.values().filter(|port| {
                port.kind() == PortKind::Vif && port.network() == Some(&network.name)
            });
            report::Segment {
                number: id.get(),
                name: network.name.clone(),
                kind: network.kind.to_string(),
                vlan: network.vlan,
                bridge: network.bridge.clone(),
                uplink: network.uplink.clone(),
                cidr: network.cidr.map(|cidr| cidr.to_string()),
                gateway: network.gateway.map(|gateway| gateway.to_string()),
                zone: network.zone.clone(),
                mtu: network.mtu,
                fdb_entries: self.stations.iter().filter(|((at, _), _)| *at == id).count() as u32,
                fdb_limit: network.fdb_limit,
                vifs: vifs.map(|port| port.name.clone()).collect(),
            }
        };
        let mut reports: Vec<_> = self.model.networks.iter().map(of).collect();
        reports.sort_by_key(|segment| segment.number);
        reports
    }

    /// Stations of one segment or of all.
    pub(crate) fn fdb_report(&self, segment: Option<&str>) -> Vec<FdbEntry> {
        let now = dataplane::now();
        let name_of = |id: SegmentId| {
            let mut networks = self.model.networks.iter();
            networks.find(|network| self.names.segment(&network.name) == id).map(|net| &net.name)
        };
        let mut entries: Vec<FdbEntry> = self
            .stations
            .iter()
            .filter_map(|((at, mac), known)| {
                let name = name_of(*at)?;
                let port = self.ports.get(&known.port).map(|port| port.name.clone());
                segment.is_none_or(|wanted| wanted == name).then(|| FdbEntry {
                    segment: name.clone(),
                    mac: mac.to_string(),
                    port: port.unwrap_or_default(),
                    fixed: known.fixed,
                    age_s: (!known.fixed).then(|| u64::from(now.saturating_sub(known.seen))),
                })
            })
            .collect();
        entries.sort_by(|a, b| (&a.segment, &a.mac).cmp(&(&b.segment, &b.mac)));
        entries
    }
}
