//! What the kernel's programs were told, so that they are told what differs and nothing else.
//!
//! Workers come first: a snapshot is published, then the programs hear of it. What they replay in
//! between was decided a moment ago, and what they no longer replay goes to workers who know more.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use kernel::{PortEntry, SegmentEntry};
use tables::{PortId, SegmentId, Snapshot};
use wire::MacAddr;

use crate::node::Node;
use crate::plug;

/// What is in the maps of the kernel's programs.
#[derive(Debug, Default)]
pub(crate) struct Told {
    ports: BTreeMap<PortId, PortEntry>,
    segments: BTreeMap<SegmentId, SegmentEntry>,
    hops: Vec<Option<MacAddr>>,
}

impl Told {
    /// The programs have forgotten a port.
    pub(crate) fn forget_port(&mut self, id: PortId) {
        self.ports.remove(&id);
    }

    /// The programs have forgotten a segment.
    pub(crate) fn forget_segment(&mut self, id: SegmentId) {
        self.segments.remove(&id);
    }
}

impl Node {
    /// Tells the programs of the ports and segments in force.
    pub(crate) fn tell_kernel(&mut self) -> Result<()> {
        let tables = self.publisher.current();
        self.tell_segments(&tables)?;
        let vifs: HashMap<_, _> =
            self.model.vifs.iter().map(|vif| (vif.name.as_str(), vif)).collect();
        let mut entries = Vec::new();
        for port in self.ports.values() {
            let (Some(plugged), Some(row)) = (&port.plugged, tables.topology.port(port.id)) else {
                continue;
            };
            let sockets = self.nic_sockets.get(&port.id).filter(|_| plugged.xdp).copied();
            let vif = vifs.get(port.name.as_str()).copied();
            let entry = plug::entry(port, plugged, row, &self.model.tuning, vif, sockets);
            if self.told.ports.get(&port.id) != Some(&entry) {
                entries.push((port.id, entry));
            }
        }
        for (id, entry) in entries {
            self.kernel.set_port(&entry)?;
            self.told.ports.insert(id, entry);
        }
        Ok(())
    }

    fn tell_segments(&mut self, tables: &Snapshot) -> Result<()> {
        for segment in tables.topology.segments() {
            let entry = SegmentEntry {
                zone: segment.zone.get(),
                vlan: segment.uplink.and_then(|uplink| uplink.vlan).unwrap_or(0),
                gateway: segment.gateway.map(|gateway| gateway.address),
                before: segment.gateway.and_then(|gateway| gateway.before).map(|mac| mac.0),
                taken_up: segment.taken_up,
            };
            if self.told.segments.get(&segment.id) != Some(&entry) {
                self.kernel.set_segment(segment.id.get(), &entry)?;
                self.told.segments.insert(segment.id, entry);
            }
        }
        Ok(())
    }

    /// Tells the programs of the next hops in force.
    pub(crate) fn tell_hops(&mut self) {
        let tables = self.publisher.current();
        let hops: Vec<Option<MacAddr>> = tables.neighbours.hops().collect();
        for (number, mac) in (0..).zip(&hops) {
            if self.told.hops.get(number as usize) == Some(mac) {
                continue;
            }
            self.tried("a next hop", |kernel| kernel.set_hop(number, mac.map(|mac| mac.0)));
        }
        for number in hops.len()..self.told.hops.len() {
            self.tried("a next hop", |kernel| kernel.set_hop(number as u32, None));
        }
        self.told.hops = hops;
    }
}
