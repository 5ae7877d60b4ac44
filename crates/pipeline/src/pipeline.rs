//! One packet's life, top to bottom.

use conntrack::{Flow, Table};
use tables::{Port, Snapshot};

use crate::{Counters, DropReason, Learner, Packet, Verdict, admit, bridge, flow};

/// A stage yields something for the next stage, or ends the packet's journey.
pub type Step<T> = Result<T, Verdict>;

/// Everything a batch needs, borrowed for its duration.
#[derive(Debug)]
pub struct Pipeline<'a> {
    /// The tables in force.
    pub tables: &'a Snapshot,
    /// The connections.
    pub flows: &'a Table,
    /// Seconds since the node booted.
    pub now: u32,
    /// This worker's counters.
    pub counters: &'a Counters,
    /// What this worker tells the control thread.
    pub learner: &'a mut Learner,
}

impl Pipeline<'_> {
    /// Gives every packet of a batch its verdict.
    pub fn forward(&mut self, packets: &mut [Packet<'_>]) {
        // What depends on the port is checked for every packet. Meanwhile the lines that may
        // hold the packet's flow are on their way into the cache.
        for packet in packets.iter_mut() {
            match self.admit(packet) {
                Ok(()) => self.flows.prefetch(packet.hash),
                Err(verdict) => packet.verdict = Some(verdict),
            }
        }

        // What depends on the connection was decided for its first packet.
        for packet in packets.iter_mut() {
            let verdict = match packet.verdict {
                Some(verdict) => verdict,
                None => self.look_up(packet).unwrap_or_else(|verdict| verdict),
            };
            packet.verdict = Some(verdict);
            self.counters.record(packet, verdict);
        }
    }

    fn admit(&self, packet: &mut Packet<'_>) -> Step<()> {
        let port = self.ingress(packet)?;
        admit::headers(packet)?;
        let zone = admit::segment(&self.tables.topology, port, packet)?;
        admit::addresses(packet)?;
        packet.key = flow::key(packet, zone);
        packet.hash = self.flows.hash(packet.key);
        Ok(())
    }

    fn look_up(&mut self, packet: &mut Packet<'_>) -> Step<Verdict> {
        let Some(found) = self.flows.find(packet.key, packet.hash) else {
            return self.decide(packet, None);
        };
        if !self.may_replay(packet, &found) {
            return self.decide(packet, Some(&found));
        }
        self.flows.touch(&found, self.now, flow::state_bits(packet));
        self.replay(packet, found.egress(), found.vlan())
    }

    /// Whether a line's decision holds for this packet: its way is known, it is as new as both
    /// of its ports, and it leads to this destination within this segment.
    fn may_replay(&self, packet: &Packet<'_>, found: &Flow) -> bool {
        let topology = &self.tables.topology;
        let fresh = |number| {
            let port = tables::PortId::new(number).and_then(|id| topology.port(id));
            port.is_some_and(|port| found.stamp() >= port.stamp)
        };
        found.path_known()
            && found.destination_mac() == packet.headers.dst.0
            && found.segment() == packet.segment.get()
            && fresh(packet.ingress.get())
            && fresh(found.egress())
            && !flow::reopens(packet, found)
    }

    /// The slow path: a packet whose connection is not known, or must be asked again.
    fn decide(&mut self, packet: &mut Packet<'_>, found: Option<&Flow>) -> Step<Verdict> {
        let port = self.ingress(packet)?;
        if port.partial_checksums && wire::checksum::is_partial(packet.bytes(), &packet.headers) {
            self.learner.partial_checksum(packet.ingress);
            return Err(Verdict::Drop(DropReason::PartialChecksum));
        }
        let (source, segment) = (packet.headers.src, packet.segment);
        self.learner.see(&self.tables.fdb, segment, source, packet.ingress, self.now);
        let path = bridge::path(self.tables, packet)?;
        let stored = flow::store(self.flows, packet, &path, found, self.tables.stamp, self.now);
        if !stored {
            self.counters.uncached();
        }
        self.replay(packet, path.egress.get(), path.vlan)
    }

    fn replay(&self, packet: &mut Packet<'_>, egress: u16, vlan: u16) -> Step<Verdict> {
        let egress = tables::PortId::new(egress).and_then(|id| self.tables.topology.port(id));
        let Some(egress) = egress else { return Err(Verdict::Drop(DropReason::NoPort)) };
        if packet.payload_len() > usize::from(egress.mtu) {
            return Err(Verdict::Drop(DropReason::TooBig));
        }
        if vlan != 0 && !packet.tag(vlan) {
            return Err(Verdict::Drop(DropReason::NoRoom));
        }
        Ok(Verdict::Forward(egress.id))
    }

    fn ingress(&self, packet: &Packet<'_>) -> Step<&Port> {
        self.tables.topology.port(packet.ingress).ok_or(Verdict::Drop(DropReason::NoPort))
    }
}
