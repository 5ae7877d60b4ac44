//! The control thread's state: what should be, what is there, and what workers see of it.
//!
//! It alone writes BPF maps and publishes snapshots. What is added goes first to the workers, then
//! to the kernel's programs; what is taken away goes the other way round, so that no frame comes
//! up for a port nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use control::compile::{self, Numbered};
use control::flags::Flags;
use control::learn::Stations;
use control::model::Model;
use control::netlink::{LinkEvent, Links};
use control::report::Reloads;
use kernel::Kernel;
use tables::{Fdb, Port, PortId, Publisher, SegmentId, Snapshot, Topology};

use crate::ports::{Names, PortState};
use crate::stations::Pending;
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
    /// Stations not learned because their segment knows as many as it may.
    pub(crate) fdb_refused: u64,
    pub(crate) warnings: Vec<String>,
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

    /// Puts the stations in force; ports and segments stay as they are.
    pub(crate) fn publish(&mut self) {
        self.fdb = Arc::new(self.stations.fdb());
        let topology = Arc::clone(&self.publisher.current().topology);
        self.put_in_force(topology);
    }

    /// Compiles ports and segments anew and puts them and the stations in force.
    pub(crate) fn compile(&mut self) {
        self.tell_stations();
        let topology = Arc::new(topology(&self.model, &self.names, &self.ports));
        self.put_in_force(topology);
    }

    fn put_in_force(&mut self, topology: Arc<Topology>) {
        self.generation += 1;
        self.publisher.publish(Snapshot {
            generation: self.generation,
            stamp: self.stamp,
            topology,
            fdb: Arc::clone(&self.fdb),
            ..Snapshot::default()
        });
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

/// What workers see of these ports and segments.
pub(crate) fn topology(
    model: &Model,
    names: &Names,
    ports: &BTreeMap<PortId, PortState>,
) -> Topology {
    let rows: Vec<Port> = ports
        .values()
        .filter_map(|port| {
            let segment = port.network().map_or(SegmentId::NONE, |name| names.segment(name));
            port.row(segment)
        })
        .collect();
    let networks: Vec<Numbered<'_>> = model
        .networks
        .iter()
        .map(|network| Numbered {
            network,
            segment: names.segment(&network.name),
            zone: names.zone(&network.zone),
            uplink: names.ports.get(&network.uplink).and_then(PortId::new).unwrap_or(PortId::NONE),
        })
        .collect();
    compile::topology(&networks, rows)
}
