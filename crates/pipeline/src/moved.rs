//! Connections whose packets come by another port now: a VM has moved here or away, or answers
//! take another way.

use conntrack::Flow;
use tables::{Neighbour, PortId, PortKind, Route, ZoneId};
use wire::Network;

use crate::{Packet, Pipeline, flow};

impl Pipeline<'_> {
    /// The flow a packet belongs to under another port, moved to the one it came by.
    ///
    /// The port is part of a flow's key so that no VM rides on another's connection. So only the
    /// station that has the source address may take a flow along.
    pub(crate) fn moved(&self, packet: &Packet<'_>) -> Option<Flow> {
        let home = self.home(packet);
        if packet.key.is_l2() || flow::opens(packet) || !self.may_move(packet, home) {
            return None;
        }
        let others = self.other_ways(packet, home);
        let found = others.into_iter().flatten().find_map(|(port, zone)| {
            let key = packet.key.at(port.get(), zone);
            self.flows.find(key, self.flows.hash(key)).filter(|_| port != packet.ingress)
        })?;
        self.flows.move_to(&found, packet.ingress.get(), packet.key.zone())
    }

    /// The other ports the source's packets may have come by, and the zone they had in their key.
    fn other_ways(&self, packet: &Packet<'_>, home: Option<PortId>) -> [Option<(PortId, u16)>; 4] {
        let topology = &self.tables.topology;
        let segment = topology.segment(packet.segment);
        let here = |port: PortId| (port != PortId::NONE).then_some((port, packet.key.zone()));
        [
            segment.and_then(|segment| segment.uplink).and_then(|uplink| here(uplink.port)),
            segment.and_then(|segment| here(segment.host)),
            home.and_then(here),
            topology.public().map(|port| (port, ZoneId::NONE.get())),
        ]
    }

    /// Whether the packet comes from where its source is: from its own vif, or from a NIC if it
    /// is no vif of this node.
    fn may_move(&self, packet: &Packet<'_>, home: Option<PortId>) -> bool {
        let Some(port) = self.tables.topology.port(packet.ingress) else { return false };
        match port.kind {
            PortKind::Vif => home == Some(packet.ingress),
            PortKind::Host => true,
            PortKind::Trunk | PortKind::Public => {
                let kind = home.and_then(|home| self.tables.topology.port(home));
                kind.is_none_or(|home| home.kind != PortKind::Vif)
            }
        }
    }

    /// The port of the packet's source, as far as that is known.
    fn home(&self, packet: &Packet<'_>) -> Option<PortId> {
        match packet.headers.network {
            Network::Ipv4(ip) => self.port_of(packet.zone, ip.src),
            Network::Ipv6(_) => {
                Some(self.tables.fdb.find(packet.segment, packet.headers.src)?.port)
            }
            Network::Arp(_) | Network::Other => None,
        }
    }

    /// The port of the station that has an address in a zone, as far as that is known.
    fn port_of(&self, zone: ZoneId, address: [u8; 4]) -> Option<PortId> {
        let Some((_, Route::Segment(segment))) = self.tables.routes.find(zone, address) else {
            return None;
        };
        let Some(Neighbour::At(mac)) = self.tables.neighbours.find(segment, address) else {
            return None;
        };
        Some(self.tables.fdb.find(segment, mac)?.port)
    }
}
