//! Coming up over the connections of an earlier daemon: in the same table, under the same numbers.
//!
//! Until this one is up the programs of the last replay them, and then its own do, line for line
//! the same. What those lines say was decided by tables that nobody knows any more; so all of them
//! are held against the new ones, once, and what would be decided otherwise is decided again.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use conntrack::{Adopted, Flow, Mark, Table};
use control::learn::Change;
use control::left::Left;
use control::model::Model;
use kernel::Kernel;
use pipeline::{Standing, neighbour_of, standing};
use tables::{PortId, SegmentId};
use wire::MacAddr;

use crate::node::Node;
use crate::ports::{self, Names};

/// The stamp of ports over which an earlier run's connections go on: no line is older.
const OLDEST: u32 = 1;

/// What an earlier daemon of the node left in writing of the table that is there; nothing if that
/// cannot be read.
pub(crate) fn left(node: &str) -> Result<Option<Left>> {
    let left = Left::read(node).unwrap_or_else(|error| {
        tracing::warn!("what the last daemon left in writing cannot be read: {error}");
        None
    });
    let (Some(table), Some(left)) = (kernel::left_table(node)?, left) else { return Ok(None) };
    let is_of_it = left.table == table || left.next == Some(table);
    Ok(is_of_it.then_some(Left { table, next: None, ..left }))
}

/// The connection table, and what of an earlier run's connections goes on in it; nothing if there
/// was none, or its numbers are not known.
pub(crate) fn table(
    kernel: &mut Kernel,
    node: &str,
    left: Option<&Left>,
) -> Result<(Table, Option<Adopted>)> {
    let table = Table::new(kernel.lines(), kernel.header().hash_key());
    let adopted = match kernel.left() {
        kernel::Left::Nothing => None,
        kernel::Left::Same => Some(table.adopt()),
        kernel::Left::Other(lines, key) => Some(table.take_over(&Table::new(lines, key))),
    };
    if let Some(adopted) = adopted {
        anyhow::ensure!(
            adopted.misplaced == 0,
            "{} lines of the connection table are not where its hash key puts them: it was written \
             to by somebody else; `trunkline detach` ends its connections",
            adopted.misplaced
        );
        tracing::info!(
            connections = adopted.connections,
            unfinished = adopted.unfinished,
            halves = adopted.halves,
            crowded = adopted.crowded,
            "an earlier run's connections go on"
        );
    }
    if let (kernel::Left::Other(..), Some(left)) = (kernel.left(), left) {
        // Whoever comes after an end at this moment finds the one table or the other.
        let left = Left { next: Some(kernel.table_id()?), ..left.clone() };
        left.write(node).context("the numbers of the new table cannot be put into writing")?;
    }
    kernel.keep_table()?;
    conntrack::fault::point("kept");
    Ok((table, adopted))
}

/// The numbers an earlier run gave. What is something else now, or not wanted any more, loses its
/// number, which rests.
pub(crate) fn names(left: &Left, model: &Model, kept: impl Fn(&str) -> bool) -> Names {
    let (ports, segments) = (left.ports.clone(), left.segments.clone());
    let mut names = Names { ports, segments, zones: left.zones.clone() };
    let wanted = ports::wanted(model, kept);
    for (name, _) in left.ports.iter() {
        let now = wanted.get(name).map(|(wanted, _)| wanted.what());
        if now.is_none() || now.as_ref() != left.what.get(name) {
            names.ports.release(name);
        }
    }
    let networks = || model.networks.iter();
    for (name, _) in left.segments.iter() {
        if networks().all(|network| network.name != name) {
            names.segments.release(name);
        }
    }
    for (name, _) in left.zones.iter() {
        if networks().all(|network| network.zone != name) {
            names.zones.release(name);
        }
    }
    names
}

impl Names {
    /// A node's writing with these numbers, and nothing else yet.
    pub(crate) fn to_leave(&self, table: u32) -> Left {
        Left {
            table,
            next: None,
            ports: self.ports.clone(),
            what: BTreeMap::new(),
            segments: self.segments.clone(),
            zones: self.zones.clone(),
            hops: Vec::new(),
        }
    }
}

/// The next hops an earlier run numbered, by the ports of now.
pub(crate) fn hops(left: &Left, names: &Names) -> Vec<(PortId, std::net::Ipv4Addr)> {
    let port = |nic: &str| names.ports.get(nic).and_then(PortId::new).unwrap_or(PortId::NONE);
    left.hops.iter().map(|(nic, address)| (port(nic), *address)).collect()
}

impl Node {
    /// The stamp of a port that is plugged now.
    pub(crate) fn stamp_of_a_new_port(&mut self) -> u32 {
        if self.continuing { OLDEST } else { self.next_stamp() }
    }

    /// Puts the numbers into writing, before any line is written with one that is new.
    pub(crate) fn remember(&mut self) {
        let left = self.to_leave();
        if left == self.left {
            return;
        }
        match left.write(&self.model.node) {
            Ok(()) => self.left = left,
            Err(error) => tracing::error!(
                "the numbers of ports cannot be put into writing, so a next daemon could not \
                 continue connections: {error}"
            ),
        }
    }

    fn to_leave(&self) -> Left {
        let what = self.ports.values().map(|port| (port.name.clone(), port.wanted.what()));
        let nic = |id: PortId| self.ports.get(&id).map_or("", |port| &port.name);
        let hops = self.public.hops().iter();
        Left {
            what: what.collect(),
            hops: hops.map(|(port, address)| (nic(*port).to_owned(), *address)).collect(),
            ..self.names.to_leave(self.left.table)
        }
    }

    /// The node is up over an earlier run's connections: it learns from them who is where, and has
    /// each of them looked at.
    pub(crate) fn has_continued(&mut self) {
        self.continuing = false;
        self.learn_from_lines();
        self.publish();
        self.pending = crate::stations::Pending::to_check(self.generation);
    }

    /// A line that is replayed says which port leads to a station, and which neighbour that is.
    fn learn_from_lines(&mut self) {
        let (flows, tables) = (self.workers.flows.clone(), self.publisher.current());
        for flow in flows.live().filter(Flow::path_known) {
            let segment = SegmentId::new(flow.segment());
            let (Some(segment), Some(port)) = (segment, PortId::new(flow.egress())) else {
                continue;
            };
            let mac = MacAddr(flow.destination_mac());
            let room = self.room_behind(segment, port);
            let is_plugged = self.ports.get(&port).is_some_and(|port| port.plugged.is_some());
            if !is_plugged || mac.is_multicast() {
                continue;
            }
            // Whom configuration tells elsewhere is not believed to be here.
            let _: Change = self.stations.see((segment, mac), port, flow.last_seen(), room);
            if let Some((segment, address, mac)) = neighbour_of(&tables, &flows, &flow) {
                self.neighbours.restore((segment, address), mac, flow.last_seen());
            }
        }
    }

    /// Holds every line against the tables in force.
    pub(crate) fn check_lines(&mut self) {
        let (flows, tables) = (self.workers.flows.clone(), self.publisher.current());
        let mut ended = 0;
        let revoked = flows.revoke(|flow| match standing(&tables, &flows, flow) {
            Standing::Stands => Mark::Keep,
            Standing::OtherWay => Mark::ForgetPath,
            Standing::Ended => {
                ended += 1;
                Mark::AskAgain
            }
        });
        tracing::info!(marked = revoked.marked, ended, "lines of an earlier run were looked at");
    }
}

#[cfg(test)]
mod tests {
    use control::flags::Flags;

    use super::*;

    const FILE: &str = r#"
        vlan_interface = "eth0"
        [[network]]
        name = "tenant1"
        vlan = 100
        cidr = "10.0.0.0/24"
        [[vif]]
        name = "vnet1"
        network = "tenant1"
        mac = "fa:16:3e:00:00:01"
        [[vif]]
        name = "vnet2"
        network = "tenant1"
        mac = "fa:16:3e:00:00:02"
    "#;

    #[test]
    fn who_is_the_same_keeps_its_number_and_nobody_gets_that_of_another() {
        let model = Model::from_text(&Flags::default(), "left.toml", FILE).unwrap();
        let mut left = Names::default().to_leave(4711);
        let vif = |mac| format!("vif of fa:16:3e:00:00:{mac} in tenant1");
        let ports = [("eth0", "nic".to_owned()), ("vnet1", vif("01")), ("vnet2", vif("99"))];
        for (name, what) in ports.into_iter().chain([("vnet3", vif("03"))]) {
            left.ports.take(name);
            left.what.insert(name.to_owned(), what);
        }
        left.segments.take("gone");
        left.segments.take("tenant1");
        left.hops =
            vec![("eth0".to_owned(), [10, 9, 0, 1].into()), ("old".to_owned(), [8; 4].into())];
        let mut names = names(&left, &model, |_| false);
        assert_eq!(names.ports.get("eth0"), Some(1));
        assert_eq!(names.ports.get("vnet1"), Some(2));
        assert_eq!((names.ports.get("vnet2"), names.ports.get("vnet3")), (None, None));
        assert_eq!(names.ports.take("vnet2"), Some(5));
        assert_eq!((names.segments.get("tenant1"), names.segments.get("gone")), (Some(2), None));
        let first = PortId::new(1).unwrap();
        let known = [(first, [10, 9, 0, 1].into()), (PortId::NONE, [8; 4].into())];
        assert_eq!(hops(&left, &names), known);
    }
}
