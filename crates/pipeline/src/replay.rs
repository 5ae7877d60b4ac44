//! Doing to a packet what was decided for its flow. The kernel's programs do the same.

use conntrack::Rewrite;
use conntrack::layout::REWRITES;
use tables::{Link, Neighbour, Port, PortId, PortKind};
use wire::rewrite::{decrement_ttl, set_macs, translate};
use wire::{MacAddr, Network, clamp_mss};

use crate::complain::Complaint;
use crate::path::{hop_of, translation};
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict, flow};

impl Pipeline<'_> {
    /// Rewrites the packet and says by which port it leaves.
    #[inline]
    pub(crate) fn replay(&mut self, packet: &mut Packet<'_>, way: &Rewrite) -> Step<PortId> {
        let tables = self.tables;
        let egress = PortId::new(way.egress).and_then(|id| tables.topology.port(id));
        let Some(egress) = egress else { return Err(Verdict::Drop(DropReason::NoPort)) };
        let fits = packet.payload_len() <= usize::from(egress.mtu);
        if !packet.routed {
            if !fits {
                return Err(Verdict::Drop(DropReason::TooBig));
            }
            self.change(packet, way)?;
            self.name_the_node(packet, egress);
            return self.leave(packet, egress, way.vlan, true);
        }
        let to = self.station(packet, way)?;
        self.pass(packet, egress, fits)?;
        self.change(packet, way)?;
        if flow::is_syn(packet) {
            self.clamp(packet, way);
        }
        let l3 = usize::from(packet.headers.l3);
        if egress.kind != PortKind::Host {
            decrement_ttl(packet.bytes_mut(), l3);
        }
        set_macs(packet.bytes_mut(), to, egress.mac);
        self.leave(packet, egress, way.vlan, fits)
    }

    /// Whether the packet may be routed out of `egress`; else its sender is told.
    #[inline]
    fn pass(&mut self, packet: &mut Packet<'_>, egress: &Port, fits: bool) -> Step<()> {
        let Network::Ipv4(ip) = packet.headers.network else { return Ok(()) };
        // The host's own stack counts its own hop.
        if ip.ttl <= 1 && egress.kind != PortKind::Host {
            return Err(self.complain(packet, Complaint::Ttl));
        }
        if !fits && ip.dont_fragment {
            return Err(self.complain(packet, Complaint::TooBig(egress.mtu)));
        }
        Ok(())
    }

    /// The station a routed packet is addressed to next.
    #[inline]
    fn station(&mut self, packet: &mut Packet<'_>, way: &Rewrite) -> Step<MacAddr> {
        let Some(number) = hop_of(way) else { return Ok(MacAddr(way.destination_mac)) };
        let Some(hop) = self.tables.neighbours.hop(number).copied() else {
            return Err(Verdict::Drop(DropReason::NoNeighbour));
        };
        match hop.neighbour {
            Some(Neighbour::At(mac)) => Ok(mac),
            Some(Neighbour::Failed) => {
                let why = tables::Unreachable::Host;
                Err(self.complain(packet, Complaint::Unreachable(why)))
            }
            None => Err(self.hold(packet, Link::Public(hop.port), hop.address)),
        }
    }

    #[inline]
    fn change(&self, packet: &mut Packet<'_>, way: &Rewrite) -> Step<()> {
        if way.flags & REWRITES == 0 {
            return Ok(());
        }
        let l3 = usize::from(packet.headers.l3);
        translate(packet.bytes_mut(), l3, &translation(way))
            .map_err(|_| Verdict::Drop(DropReason::MalformedTransport))
    }

    /// The host speaks as the gateway; where many nodes have that address, as the node.
    #[inline]
    fn name_the_node(&self, packet: &mut Packet<'_>, egress: &Port) {
        let ingress = self.tables.topology.port(packet.ingress);
        if ingress.is_some_and(|port| port.kind == PortKind::Host && port.mac != egress.mac) {
            let destination = packet.headers.dst;
            set_macs(packet.bytes_mut(), destination, egress.mac);
        }
    }

    /// Lowers what a new TCP connection says it can take, where its network asks for that.
    #[cold]
    fn clamp(&self, packet: &mut Packet<'_>, way: &Rewrite) {
        let of = |number| self.tables.topology.segment(number).and_then(|here| here.clamp_mss);
        let into = tables::SegmentId::new(way.segment).and_then(of);
        if let Some(most) = [of(packet.segment), into].into_iter().flatten().min() {
            let l3 = usize::from(packet.headers.l3);
            clamp_mss(packet.bytes_mut(), l3, most);
        }
    }

    #[inline]
    fn leave(&self, packet: &mut Packet<'_>, egress: &Port, vlan: u16, fits: bool) -> Step<PortId> {
        if vlan != 0 && !packet.tag(vlan) {
            return Err(Verdict::Drop(DropReason::NoRoom));
        }
        if fits { Ok(egress.id) } else { Err(Verdict::Fragment(egress.id)) }
    }
}
