//! What a verdict does to a frame.

use af_xdp::Frame;
use conntrack::Event;
use conntrack::layout::NEXT_HOP;
use pipeline::{Learner, Verdict, flooded};
use tables::{Egress, GATEWAY_MAC, Port, PortId, Segment, SegmentId, Snapshot};
use wire::fragment::Cut;
use wire::rewrite::set_macs;
use wire::{ETHERNET_LEN, MacAddr, TAG_LEN, ethertype, vlan};

use crate::worker::Engine;
use crate::{NicWay, punt};

impl Engine {
    /// Does what the verdict says; the frame ends in a ring, with another worker or in the pool.
    pub(crate) fn dispatch(
        &mut self,
        frame: Frame,
        ingress: PortId,
        verdict: Verdict,
        tables: &Snapshot,
    ) {
        match verdict {
            Verdict::Forward(port) | Verdict::Reply(port) => match tables.topology.port(port) {
                Some(port) => self.send(port, frame),
                None => self.refuse(port, frame),
            },
            Verdict::Flood(segment) => match tables.topology.segment(segment) {
                Some(segment) => self.flood(segment, &[ingress], frame, tables),
                None => self.pools.give(frame),
            },
            Verdict::FloodGuests(segment) => match tables.topology.segment(segment) {
                Some(segment) => self.flood(segment, &[ingress, segment.host], frame, tables),
                None => self.pools.give(frame),
            },
            Verdict::Fragment(port) => match tables.topology.port(port) {
                Some(port) => self.fragment(port, frame),
                None => self.refuse(port, frame),
            },
            Verdict::Hold(link, address) => {
                self.wait_for_neighbour(frame, ingress, (link, address));
            }
            Verdict::Wait => self.wait_for_first(frame, ingress),
            Verdict::Host => self.hand_to_host(ingress, frame),
            Verdict::Taken | Verdict::Drop(_) => self.pools.give(frame),
        }
    }

    /// Sends a finished frame out of a port.
    fn send(&mut self, port: &Port, mut frame: Frame) {
        let Egress::Nic(nic) = port.egress else {
            return if punt::to_port(&mut frame, port.id) {
                self.queue(0, frame);
            } else {
                self.refuse(port.id, frame);
            };
        };
        match self.nics.get(usize::from(nic)) {
            Some(NicWay::Own(at)) => {
                self.counters.sent(port.id, frame.len());
                self.queue(*at, frame);
            }
            Some(NicWay::Worker(worker)) => {
                self.counters.sent(port.id, frame.len());
                if let Err(frame) = self.corner.hand(*worker, nic, frame) {
                    self.refuse(port.id, frame);
                }
            }
            None => self.refuse(port.id, frame),
        }
    }

    /// Sends a copy to every port of the segment but some (the one it came by, and where nobody is
    /// to have it), and but those whose security groups do not let it in.
    fn flood(&mut self, segment: &Segment, but: &[PortId], frame: Frame, tables: &Snapshot) {
        let payload = frame.len().saturating_sub(ETHERNET_LEN);
        let (topology, walls) = (&tables.topology, &tables.walls);
        let ask = walls.stand().then(|| flooded(frame.bytes(), segment.zone)).flatten();
        for member in segment.members.iter().filter(|port| !but.contains(port)) {
            let Some(port) = topology.port(*member) else { continue };
            if ask.is_some_and(|ask| walls.judge(port.id, &ask).is_none()) {
                self.counters.kept(port.id);
                continue;
            }
            let Some(mut copy) = self.pools.take(frame.len()) else {
                self.counters.not_sent(port.id);
                continue;
            };
            let uplink = segment.uplink.filter(|uplink| uplink.port == port.id);
            let copied = copy.copy_from(frame.bytes());
            if uplink.is_some() {
                name_the_node(&mut copy, port);
            }
            let whole = copied
                && uplink.and_then(|uplink| uplink.vlan).is_none_or(|vlan| tag(&mut copy, vlan));
            if whole && payload <= usize::from(port.mtu) {
                self.send(port, copy);
            } else {
                self.refuse(port.id, copy);
            }
        }
        self.pools.give(frame);
    }

    /// Sends a packet in as many pieces as the port's MTU asks for.
    fn fragment(&mut self, port: &Port, frame: Frame) {
        let tagged = vlan::outer(frame.bytes()).is_some();
        let l3 = ETHERNET_LEN + if tagged { TAG_LEN } else { 0 };
        let cut = Cut::new(frame.bytes(), l3, usize::from(port.mtu));
        for index in 0..cut.map_or(0, |cut| cut.count()) {
            let Some(mut piece) = self.pools.take(l3 + usize::from(port.mtu)) else {
                self.counters.not_sent(port.id);
                continue;
            };
            let head = piece.head();
            let room = piece.chunk_mut().get_mut(head..).unwrap_or_default();
            let length = cut.and_then(|cut| cut.write(frame.bytes(), index, room));
            if length.is_some_and(|length| piece.set_range(head, length)) {
                self.send(port, piece);
            } else {
                self.refuse(port.id, piece);
            }
        }
        match cut {
            Some(_) => self.pools.give(frame),
            None => self.refuse(port.id, frame),
        }
    }

    fn hand_to_host(&mut self, ingress: PortId, mut frame: Frame) {
        if punt::to_host(&mut frame, ingress) {
            self.queue(0, frame);
        } else {
            self.refuse(ingress, frame);
        }
    }

    /// Queues a frame at the socket at this place among our own.
    pub(crate) fn queue(&mut self, at: usize, frame: Frame) {
        let Some(link) = self.links.get_mut(at) else { return self.pools.give(frame) };
        let queued = if self.pools.is_large(&frame) {
            link.queue_pieces(frame, &mut self.pools)
        } else {
            link.queue(frame)
        };
        if let Err(frame) = queued {
            let port = match link.source {
                crate::link::Source::Nic(port) => port,
                crate::link::Source::Punt => punt::named(&frame).unwrap_or(PortId::NONE),
            };
            self.refuse(port, frame);
        }
    }

    fn refuse(&mut self, port: PortId, frame: Frame) {
        self.counters.not_sent(port);
        self.pools.give(frame);
    }
}

/// What the host says to all as the gateway leaves by the trunk in the node's own name: other
/// nodes have that gateway too.
fn name_the_node(frame: &mut Frame, port: &Port) {
    let (head, len) = (frame.head(), frame.len());
    let Some(bytes) = frame.chunk_mut().get_mut(head..head + len) else { return };
    let Some((dst, src)) = bytes.get(..12).and_then(|macs| macs.split_at_checked(6)) else {
        return;
    };
    if src == GATEWAY_MAC.0
        && let Ok(dst) = dst.try_into()
    {
        set_macs(bytes, MacAddr(dst), port.mac);
    }
}

fn tag(frame: &mut Frame, vid: u16) -> bool {
    let (head, len) = (frame.head(), frame.len());
    vlan::push(frame.chunk_mut(), head, ethertype::VLAN, vid)
        .is_some_and(|start| frame.set_range(start, len + (head - start)))
}

/// A flow seen since the last sweep proves that its source is still where it was.
///
/// Only that: where a station has moved since, its frames have told so, not an old line.
pub(crate) fn refresh(learner: &mut Learner, tables: &Snapshot, event: &Event, now: u32) {
    let Event::Seen { flow, other } = event else { return };
    let (mac, segment) = match flow.source_mac() {
        Some(mac) => (MacAddr(mac), flow.key().zone()),
        // Answers lead to who asked: their way tells the station and its segment.
        None if other.path_known() && other.flags() & NEXT_HOP == 0 => {
            (MacAddr(other.destination_mac()), other.segment())
        }
        None => return,
    };
    let ids = (SegmentId::new(segment), PortId::new(flow.key().ingress()));
    let (Some(segment), Some(port)) = ids else { return };
    if tables.fdb.find(segment, mac).is_some_and(|entry| entry.port == port) {
        learner.see(&tables.fdb, segment, mac, port, now);
    }
}
