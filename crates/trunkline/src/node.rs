//! The control thread's state: what should be, what is there, and what workers see of it.
//!
//! It alone writes BPF maps and publishes snapshots. What is added goes first to the workers, then
//! to the kernel's programs; what is taken away goes the other way round, so that no frame comes
//! up for a port nobody knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use control::compile::{self, Numbered};
use control::flags::Flags;
use control::learn::Stations;
use control::left::Left;
use control::limits::VifLimits;
use control::model::Model;
use control::neighbours::Neighbours;
use control::netlink::{Link, LinkEvent, Links};
use control::report::Reloads;
use kernel::{Kernel, PuntSender};
use tables::{
    Fdb, Groups, Identity, Nat, Port, PortId, Publisher, SegmentId, Snapshot, Topology, Walls,
};

use crate::adopted::Adopted;
use crate::denied::Denied;
use crate::dhcp::Records;
use crate::dnsmasq::Servers;
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
    /// Security groups, compiled.
    pub(crate) groups: Arc<Groups>,
    pub(crate) sender: PuntSender,
    pub(crate) announcements: Vec<Announcement>,
    /// What VMs were told by DHCP.
    pub(crate) leases: Records,
    /// The dnsmasqs of networks that have one.
    pub(crate) servers: Servers,
    /// Stations not learned because their segment knows as many as it may.
    pub(crate) fdb_refused: u64,
    /// The same because as many are behind this port as may be.
    pub(crate) macs_refused: BTreeMap<PortId, u64>,
    pub(crate) warnings: Vec<String>,
    /// Forbidden connections in the log.
    pub(crate) denied: Denied,
    /// Who carries the packets of open connections, and why.
    pub(crate) replay: String,
    pub(crate) reloads: Reloads,
    /// How often the workers' sockets were opened anew.
    pub(crate) renewals: u64,
    /// What the next daemon will find in writing.
    pub(crate) left: Left,
    /// What was taken over from nova-network; none if the node was not.
    pub(crate) adopted: Option<Adopted>,
    /// It is coming up over the connections of an earlier run, which are still served: nothing
    /// makes their lines stale. They are all looked at once it is up.
    pub(crate) continuing: bool,
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
        let plugged = |name: &str| self.plugged(name);
        let nat = compile::nat(&self.model, &networks, plugged);
        let walls = compile::walls(&self.model, &networks, &self.groups, plugged);
        let policy = compile::policy(&self.model, &networks, plugged);
        let told = compile::told_neighbours(&self.model, &networks);
        let lost = self.neighbours.tell(&told);
        self.revoke(lost);
        let before = self.publisher.current();
        self.stamp_floats(&before.nat, &nat);
        self.stamp_walls(&before.walls, &walls);
        if before.routes.zones().ne(routes.zones()) {
            self.ask_all_again();
        }
        self.own_addresses(&nat);
        let topology = self.topology();
        let after = Snapshot {
            topology: Arc::new(topology),
            routes: Arc::new(routes),
            nat: Arc::new(nat),
            walls: Arc::new(walls),
            policy: Arc::new(policy),
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
        let identities = identities(&self.model);
        let limits = limits(&self.model);
        let workers = self.workers.len();
        let row = |port: &PortState| {
            let limits = limits.get(&*port.name).map(|limits| limits.compile(workers));
            let identity = identities.get(&*port.name).cloned();
            port.row(segment(port), identity, limits.unwrap_or_default())
        };
        let rows: Vec<Port> = self.ports.values().filter_map(row).collect();
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
        self.stamp_vifs(vifs);
    }

    /// The same of VMs that may not send any more what they could.
    pub(crate) fn stamp_identities(&mut self, before: &Model) {
        let (before, after) = (identities(before), identities(&self.model));
        let changed =
            self.ports.values().filter(|port| before.get(&*port.name) != after.get(&*port.name));
        let vifs: Vec<PortId> = changed.map(|port| port.id).collect();
        if !vifs.is_empty() {
            self.stamp_vifs(vifs);
        }
    }

    fn stamp_vifs(&mut self, vifs: impl IntoIterator<Item = PortId>) {
        if self.continuing {
            return;
        }
        self.stamp_ports(vifs);
    }

    /// Has the connections of VMs whose security groups changed asked again, from their next packet
    /// on: so those end that are not allowed any more.
    fn stamp_walls(&mut self, before: &Walls, after: &Walls) {
        if self.continuing || !after.revoke {
            return;
        }
        let changed = |port: &&PortState| !before.revoke || !after.guard_alike(before, port.id);
        let vifs: Vec<PortId> = self.ports.values().filter(changed).map(|port| port.id).collect();
        self.ask_ports_again(&vifs);
        self.stamp_ports(vifs);
    }

    fn stamp_ports(&mut self, ports: impl IntoIterator<Item = PortId>) {
        let mut ports = ports.into_iter().peekable();
        if ports.peek().is_none() {
            return;
        }
        let stamp = self.next_stamp();
        for port in ports {
            if let Some(plugged) = self.ports.get_mut(&port).and_then(|it| it.plugged.as_mut()) {
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
                    before: self.mac_before(&network.bridge),
                    segment: self.names.segment(&network.name),
                    zone: self.names.zone(&network.zone),
                    uplink: self.plugged(&network.uplink).unwrap_or(PortId::NONE),
                    host: host.unwrap_or(PortId::NONE),
                    live: vifs > 0,
                }
            })
            .collect()
    }

    /// The interface of a port is there, perhaps again: first its sockets, then its programs.
    async fn come_back(&mut self, id: PortId, link: Link) {
        self.follow_queues().await;
        self.plug(id, link).await;
    }

    fn put_in_force(&mut self, tables: Snapshot) {
        self.generation += 1;
        self.remember();
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
                        let id = port.id;
                        self.changed(id, link).await;
                    }
                    Some(_) => {
                        let id = port.id;
                        self.gone(id);
                        self.come_back(id, link).await;
                    }
                    None => {
                        let id = port.id;
                        self.come_back(id, link).await;
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
                    self.follow_queues().await;
                }
            }
        }
    }
}

/// How much the VMs behind vifs may have of what all share, by the vif's name.
fn limits(model: &Model) -> HashMap<&str, &VifLimits> {
    model.vifs.iter().map(|vif| (&*vif.name, &vif.limits)).collect()
}

/// What the VMs behind vifs may send as, by the vif's name; none without walls.
fn identities(model: &Model) -> HashMap<&str, Identity> {
    let of = |vif| compile::identity(model, vif);
    model.vifs.iter().filter_map(|vif| Some((&*vif.name, of(vif)?))).collect()
}
