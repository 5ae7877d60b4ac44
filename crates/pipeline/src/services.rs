//! What the node answers itself: ARP for its gateways, floating addresses and the metadata's
//! address, echo to a gateway, its VMs' DHCP requests.

use tables::{Link, METADATA, Neighbour, PortKind, Segment, SegmentId};
use wire::{Arp, MacAddr, Network, Transport, arp, icmp};

use crate::complain::Complaint;
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict};

/// Operations of ARP.
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

impl Pipeline<'_> {
    /// Answers what is for the node itself, or lets the packet go on.
    pub(crate) fn serve(&mut self, packet: &mut Packet<'_>) -> Step<()> {
        match packet.headers.network {
            Network::Arp(arp) if packet.segment == SegmentId::NONE => self.arp_public(packet, &arp),
            Network::Arp(arp) => self.arp(packet, &arp),
            Network::Ipv4(ip) => match ip.transport {
                // One in fragments the host's stack puts together and answers.
                Transport::Echo { request: true, .. } if packet.routed && !ip.fragment => {
                    self.echo(packet, ip.dst)
                }
                _ if ip.fragment => self.dhcp_in_pieces(packet),
                Transport::Udp { sport, dport } => self.dhcp(packet, (sport, dport)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// ARP on the public side: the kernel's program sends up what asks for a floating address.
    fn arp_public(&mut self, packet: &mut Packet<'_>, question: &Arp) -> Step<()> {
        let float = self.tables.nat.float(question.target);
        match float.filter(|float| question.operation == REQUEST && float.port == packet.ingress) {
            Some(_) => Err(self.answer(packet, self.tables.topology.mac(packet.ingress))),
            None => Err(Verdict::Host),
        }
    }

    fn arp(&mut self, packet: &mut Packet<'_>, said: &Arp) -> Step<()> {
        let Some(segment) = self.tables.topology.segment(packet.segment) else { return Ok(()) };
        let mine = self.tables.topology.mac(packet.ingress);
        if self.asks_for_metadata(packet, segment, said) {
            return Err(self.answer(packet, mine));
        }
        let Some(gateway) = segment.gateway else { return Ok(()) };
        self.hear(packet, said, mine)?;
        if said.operation != REQUEST {
            return Ok(());
        }
        if self.is_from_host(packet) {
            return Err(self.arp_from_host(packet, segment, said));
        }
        // On the trunk another node with the same gateway answers its own VMs.
        let on_trunk = segment.uplink.is_some_and(|uplink| uplink.port == packet.ingress);
        if said.target == gateway.address && !(on_trunk && gateway.shared) {
            return Err(self.answer(packet, mine));
        }
        Ok(())
    }

    /// A VM looks for the metadata's address on its own link, as images do that have a route there.
    /// Its own node answers it, and no other, whatever its gateway is.
    fn asks_for_metadata(&self, packet: &Packet<'_>, segment: &Segment, said: &Arp) -> bool {
        let port = self.tables.topology.port(packet.ingress);
        self.tables.nat.metadata.is_some()
            && (said.operation, said.target) == (REQUEST, METADATA)
            && said.sender != METADATA
            && port.is_some_and(|port| port.kind == PortKind::Vif)
            && (segment.gateway.is_some() || segment.taken_up)
    }

    /// An answer to a question of ours, or a neighbour that says it has another address now.
    fn hear(&mut self, packet: &Packet<'_>, said: &Arp, mine: MacAddr) -> Step<()> {
        let (segment, address, mac) = (packet.segment, said.sender, said.sender_mac);
        let for_us = said.operation == REPLY && packet.headers.dst == mine;
        let kind = self.tables.topology.port(packet.ingress).map(|port| port.kind);
        let moved = match self.tables.neighbours.find(segment, address) {
            // A guest of this node does not speak for somebody of another.
            Some(Neighbour::At(known)) => known != mac && kind == Some(PortKind::Trunk),
            Some(Neighbour::Failed) => true,
            None => false,
        };
        if (for_us || moved) && kind != Some(PortKind::Host) {
            self.learner.heard(segment, address, mac);
        }
        if for_us { Err(Verdict::Taken) } else { Ok(()) }
    }

    /// The host asks for a VM. It is told the VM's address, so that what it sends is bridged; for
    /// a floating address the gateway's, so that it is routed.
    fn arp_from_host(
        &mut self,
        packet: &mut Packet<'_>,
        segment: &Segment,
        question: &Arp,
    ) -> Verdict {
        if self.tables.nat.float(question.target).is_some() {
            return self.answer(packet, self.tables.topology.mac(packet.ingress));
        }
        match self.tables.neighbours.find(segment.id, question.target) {
            Some(Neighbour::At(mac)) => self.answer(packet, mac),
            Some(Neighbour::Failed) => Verdict::Drop(DropReason::NoNeighbour),
            None => self.hold(packet, Link::Segment(segment.id), question.target),
        }
    }

    fn is_from_host(&self, packet: &Packet<'_>) -> bool {
        let port = self.tables.topology.port(packet.ingress);
        port.is_some_and(|port| port.kind == PortKind::Host)
    }

    fn answer(&mut self, packet: &mut Packet<'_>, mac: MacAddr) -> Verdict {
        match arp::reply(packet.bytes_mut(), mac) {
            Ok(()) => self.reply(packet).unwrap_or_else(|verdict| verdict),
            Err(_) => Verdict::Drop(DropReason::MalformedArp),
        }
    }

    /// Echo to the segment's own gateway. The node's other addresses are its stack's to answer.
    fn echo(&mut self, packet: &mut Packet<'_>, destination: [u8; 4]) -> Step<()> {
        let gateway = self.tables.topology.segment(packet.segment).and_then(|here| here.gateway);
        if gateway.is_none_or(|gateway| gateway.address != destination) || self.is_from_host(packet)
        {
            return Ok(());
        }
        let l3 = usize::from(packet.headers.l3);
        Err(match icmp::echo_reply(packet.bytes_mut(), l3) {
            Ok(()) => self.reply(packet).unwrap_or_else(|verdict| verdict),
            Err(_) => Verdict::Drop(DropReason::MalformedTransport),
        })
    }

    /// Has the packet wait until its neighbour is known. It waits as it came, tag and all.
    pub(crate) fn hold(
        &mut self,
        packet: &mut Packet<'_>,
        link: Link,
        address: [u8; 4],
    ) -> Verdict {
        self.learner.want(link, address, self.now);
        match packet.retag(&self.tables.topology) {
            Ok(()) => Verdict::Hold(link, address),
            Err(verdict) => verdict,
        }
    }

    /// What a packet without a path ends as.
    pub(crate) fn lost(&mut self, packet: &mut Packet<'_>, lost: crate::path::Lost) -> Verdict {
        match lost {
            crate::path::Lost::Unreachable(why) => {
                self.complain(packet, Complaint::Unreachable(why))
            }
            crate::path::Lost::Unknown(link, address) => self.hold(packet, link, address),
        }
    }
}
