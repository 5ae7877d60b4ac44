//! The control thread's state: what should be, what is there, and what workers see of it.
//!
//! It alone writes BPF maps and publishes snapshots. What is added goes first to the workers, then
//! to the kernel's programs; what is taken away goes the other way round, so that no frame comes
//! up for a port nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use control::compile::{self, Numbered};
use control::flags::Flags;
use control::learn::Stations;
use control::model::Model;
use control::neighbours::Neighbours;
use control::netlink::{LinkEvent, Links};
use control::report::Reloads;
use kernel::{Kernel, PuntSender};
use tables::{Fdb, Nat, Port, PortId, Publisher, SegmentId, Snapshot, Topology};

use crate::neighbours::Announcement;
use crate::ports::{Names, PortState};
use crate::public::Public;
use crate::stations::Pending;
use crate::told::Told;
use crate::workers::Workers;

/// The AF_XDP sockets of a NIC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NicSockets {
    /// Its index among the NICs with sockets, as workers number them.
    pub(crate) nic: u8,
    /// Its first slot among all sockets of the kernel's map.
    pub(crate) first: u32,
    /// Its queues.
    pub(crate) queues: u16,
}

/// Everything the control thread knows.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) flags: Flags,
    pub(crate) model: Model,
    pub(crate) links: Links,
    pub(crate) kernel: Kernel,
    pub(crate) workers: Workers,
    pub(crate) publisher: Publisher,
    pub(crate) generation: u64,
    pub(crate) stamp: u32,
    pub(crate) nic_sockets: BTreeMap<PortId, NicSockets>,
    pub(crate) names: Names,
    pub(crate) ports: BTreeMap<PortId, PortState>,
    pub(crate) stations: Stations,
    pub(crate) fdb: Arc<Fdb>,
    pub(crate) pending: Pending,
    pub(crate) told: Told,
    /// Frames that XDP sent to a port, and that were taken there, as of the last look.
    pub(crate) redirected: BTreeMap<PortId, (u64, u64)>,
    pub(crate) neighbours: Neighbours,
    pub(crate) public: Public,
    pub(crate) sender: PuntSender,
    pub(crate) announcements: Vec<Announcement>,
    /// Stations not learned because their segment knows as many as it may.
    pub(crate) fdb_refused: u64,
    pub(crate) warnings: Vec<String>,
    /// Who carries the packets of open connections, and why.
    pub(crate) replay: String,
    pub(crate) reloads: Reloads,
    pub(crate) started: Instant,
    pub(crate) ready: bool,
}

impl Node {
    /// The number of a plugged port.
    pub(crate) fn plugged(&self, name: &str) -> Option<PortId> {
        let id = self.names.ports.get(name).and_then(PortId::new)?;
        self.ports.get(&id).filter(|port| port.plugged.is_some()).map(|port| port.id)
    }

    /// The next change: what it concerns is decided anew.
    pub(crate) fn next_stamp(&mut self) -> u32 {
        // The header counts in 64 bits for its successors; a line has room for 32.
        self.stamp = self.kernel.header().next_stamp() as u32;
        self.stamp
    }

    /// Puts stations and neighbours in force; all else stays as it is.
    pub(crate) fn publish(&mut self) {
        self.fdb = Arc::new(self.stations.fdb());
        let tables = Snapshot::clone(&self.publisher.current());
        self.put_in_force(tables);
    }

    /// Compiles everything anew and puts it in force.
    pub(crate) fn compile(&mut self) {
        self.tell_stations();
        let networks = self.numbered();
        let (public, local) = (self.public_routes(), self.local_addresses());
        let routes = compile::routes(&self.model, &networks, &public, local);
        let nat = compile::nat(&self.model, &networks, |name| self.plugged(name));
        let told = compile::told_neighbours(&self.model, &networks);
        let lost = self.neighbours.tell(&told);
        self.revoke(lost);
        let before = self.publisher.current();
        self.stamp_floats(&before.nat, &nat);
        if before.routes.zones().ne(routes.zones()) {
            self.ask_all_again();
        }
        self.own_addresses(&nat);
        let topology = self.topology();
        let after = Snapshot {
            topology: Arc::new(topology),
            routes: Arc::new(routes),
            nat: Arc::new(nat),
            quota: self.model.tuning.vif_connections,
            ..Snapshot::default()
        };
        self.put_in_force(after);
        if let Err(error) = self.tell_kernel() {
            tracing::error!("the kernel's programs: {error:#}");
        }
        let after = self.publisher.current();
        self.announce_new(&before, &after);
    }

    fn topology(&self) -> Topology {
        let segment = |port: &PortState| {
            port.network().map_or(SegmentId::NONE, |name| self.names.segment(name))
        };
        let rows: Vec<Port> =
            self.ports.values().filter_map(|port| port.row(segment(port))).collect();
        compile::topology(&self.numbered(), rows)
    }

    /// Has the connections of VMs whose floating address changed asked again, from their next
    /// packet on.
    fn stamp_floats(&mut self, before: &Nat, after: &Nat) {
        let gone = before.floats().filter(|float| after.float(float.address) != Some(float));
        let new = after.floats().filter(|float| before.float(float.address) != Some(float));
        let vifs: BTreeSet<PortId> = gone.chain(new).map(|float| float.vif).collect();
        if vifs.is_empty() {
            return;
        }
        self.public.floats_changed = true;
        let stamp = self.next_stamp();
        for vif in vifs {
            if let Some(plugged) = self.ports.get_mut(&vif).and_then(|port| port.plugged.as_mut()) {
                plugged.stamp = stamp;
            }
        }
    }

    /// The networks with their numbers.
    fn numbered(&self) -> Vec<Numbered<'_>> {
        let of = |network: &'_ control::model::Network| {
            let host = control::netlink::host_port_name(&network.bridge);
            let vifs = self.ports.values().filter(|port| port.network() == Some(&network.name));
            (
                self.plugged(&host),
                vifs.filter(|port| port.is_vif() && port.plugged.is_some()).count(),
            )
        };
        self.model
            .networks
            .iter()
            .map(|network| {
                let (host, vifs) = of(network);
                Numbered {
                    network,
                    segment: self.names.segment(&network.name),
                    zone: self.names.zone(&network.zone),
                    uplink: self.plugged(&network.uplink).unwrap_or(PortId::NONE),
                    host: host.unwrap_or(PortId::NONE),
                    live: vifs > 0,
                }
            })
            .collect()
    }

    fn put_in_force(&mut self, tables: Snapshot) {
        self.generation += 1;
        let mut neighbours = tables::Neighbours::default();
        self.neighbours.fill(&mut neighbours);
        self.fill_hops(&mut neighbours);
        self.publisher.publish(Snapshot {
            generation: self.generation,
            stamp: self.stamp,
            fdb: Arc::clone(&self.fdb),
            neighbours: Arc::new(neighbours),
            ..tables
        });
        self.tell_hops();
    }

    /// A link came, changed or went.
    pub(crate) async fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Appeared(link) | LinkEvent::Changed(link) => {
                let known = self.names.ports.get(&link.name).and_then(PortId::new);
                let Some(port) = known.and_then(|id| self.ports.get(&id)) else { return };
                match &port.plugged {
                    Some(plugged) if plugged.link == link => {}
                    Some(plugged) if plugged.link.index == link.index => {
                        self.changed(port.id, link);
                    }
                    Some(_) => {
                        let id = port.id;
                        self.gone(id);
                        self.plug(id, link).await;
                    }
                    None => {
                        let id = port.id;
                        self.plug(id, link).await;
                    }
                }
            }
            LinkEvent::Routing => self.public.stale = true,
            LinkEvent::Gone { index, .. } => {
                let is = |port: &&PortState| {
                    port.plugged.as_ref().is_some_and(|plugged| plugged.link.index == index)
                };
                if let Some(id) = self.ports.values().find(is).map(|port| port.id) {
                    self.gone(id);
                }
            }
        }
    }
}
