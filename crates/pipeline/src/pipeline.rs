//! One packet's life, top to bottom.

use conntrack::layout::{BRIDGED, L2, NEXT_HOP, ROUTED};
use conntrack::{Flow, Fragments, Table};
use tables::{Port, PortId, Route, SegmentId, Snapshot, ZoneId};
use wire::Network;

use crate::connect::{self, Answer, Question, Refusal, Source};
use crate::path::{self, Path};
use crate::{
    Counters, DropReason, Learner, Limiter, Packet, Verdict, admit, bridge, flow, groups, spoof,
};

/// A stage yields something for the next stage, or ends the packet's journey.
pub type Step<T> = Result<T, Verdict>;

/// Everything a batch needs, borrowed for its duration.
#[derive(Debug)]
pub struct Pipeline<'a> {
    /// The tables in force.
    pub tables: &'a Snapshot,
    /// The connections.
    pub flows: &'a Table,
    /// The datagrams that come in fragments.
    pub fragments: &'a Fragments,
    /// Seconds since the node booted.
    pub now: u32,
    /// The same in milliseconds.
    pub now_ms: u64,
    /// This worker's counters.
    pub counters: &'a Counters,
    /// What this worker tells the control thread.
    pub learner: &'a mut Learner,
    /// How much this worker may still tell senders.
    pub limiter: &'a mut Limiter,
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
            let step = match packet.verdict {
                Some(verdict) => Err(verdict),
                None => self.look_up(packet),
            };
            // Nearly all leave by a port; the others' verdicts are too wide to be handed on lightly.
            match step {
                Ok(port) => {
                    packet.verdict = Some(Verdict::Forward(port));
                    self.counters.forwarded();
                }
                Err(verdict) => {
                    packet.verdict = Some(verdict);
                    self.counters.record(packet, verdict);
                }
            }
        }
    }

    #[inline]
    pub(crate) fn admit(&self, packet: &mut Packet<'_>) -> Step<()> {
        let port = self.ingress(packet)?;
        admit::headers(packet)?;
        admit::segment(&self.tables.topology, port, packet)?;
        admit::addresses(packet)?;
        spoof::sender(port, packet)?;
        admit::routed(self.tables, port, packet);
        packet.key = flow::key(packet, self.flows);
        match packet.headers.network {
            Network::Ipv4(ip) if ip.fragment => self.find_ports(packet)?,
            Network::Ipv6(ip) if ip.fragment => self.find_ports6(packet)?,
            _ => {}
        }
        packet.hash = self.flows.hash(packet.key);
        Ok(())
    }

    /// The port it leaves by.
    #[inline]
    fn look_up(&mut self, packet: &mut Packet<'_>) -> Step<PortId> {
        let found = self.flows.find(packet.key, packet.hash);
        match self.replay_found(packet, found.as_ref()) {
            Some(step) => step,
            None => self.decide(packet, found),
        }
    }

    #[inline]
    fn replay_found(
        &mut self,
        packet: &mut Packet<'_>,
        found: Option<&Flow>,
    ) -> Option<Step<PortId>> {
        let found = found.filter(|found| self.may_replay(packet, found))?;
        self.flows.touch(found, self.now, flow::state_bits(packet));
        Some(self.replay(packet, &found.rewrite()))
    }

    /// What becomes of a packet whose line may be replayed; nothing, and nothing is decided, where
    /// there is none. This is all that the kernel's programs do.
    pub fn replay_known(&mut self, packet: &mut Packet<'_>) -> Option<Verdict> {
        self.admit(packet).ok()?;
        let found = self.flows.find(packet.key, packet.hash);
        let step = self.replay_found(packet, found.as_ref())?;
        Some(step.map_or_else(|verdict| verdict, Verdict::Forward))
    }

    /// Whether a line's decision holds for this packet: its way is known, it is as new as both of
    /// its ports, it is the way of a packet addressed like this one (to the gateway, or to this
    /// station of this segment), and its sender is the one whose port this is.
    #[inline]
    pub(crate) fn may_replay(&self, packet: &Packet<'_>, found: &Flow) -> bool {
        let leads_on = if packet.routed {
            !found.key().is_l2() && found.flags() & BRIDGED == 0
        } else {
            found.destination_mac() == packet.headers.dst.0
                && found.segment() == packet.segment.get()
                && found.flags() & NEXT_HOP == 0
        };
        let port = self.tables.topology.port(packet.ingress);
        let station = port.and_then(|port| port.station);
        leads_on
            && station.is_none_or(|station| station == packet.headers.src)
            && found.path_known()
            && self.is_fresh(packet, found)
            && !flow::reopens(packet, found)
    }

    /// Whether nothing that concerns one of its ports as a whole has changed since it was decided.
    #[inline]
    fn is_fresh(&self, packet: &Packet<'_>, found: &Flow) -> bool {
        let fresh = |number| {
            let port = PortId::new(number).and_then(|id| self.tables.topology.port(id));
            port.is_some_and(|port| found.stamp() >= port.stamp)
        };
        found.stamp() != 0 && fresh(packet.ingress.get()) && fresh(found.egress())
    }

    /// The slow path: a packet whose connection is not known, or must be asked again.
    #[cold]
    #[inline(never)]
    fn decide(&mut self, packet: &mut Packet<'_>, found: Option<Flow>) -> Step<PortId> {
        self.learn(packet)?;
        self.serve(packet)?;
        match packet.headers.network {
            Network::Ipv4(ip) if ip.icmp_error => return self.relate(packet),
            Network::Ipv6(ip) if ip.icmp_error => return self.relate6(packet),
            _ => {}
        }
        let known = match found.or_else(|| self.moved(packet)) {
            Some(found) => self.ask_again(packet, found)?,
            None => None,
        };
        let rewrite = match known {
            Some(found) => {
                let path = self.next_path(packet, &found)?;
                self.judge_elsewhere(packet, &found, &path)?;
                self.continue_on(packet, &found, &path)
            }
            None => {
                let answer = self.ask(packet)?;
                let path = self.first_path(packet, &answer);
                let path = path.map_err(|verdict| self.expect_answers(packet, verdict))?;
                self.judge(packet, answer.source, &path)?;
                self.open(packet, &answer, &path)?
            }
        };
        self.replay(packet, &rewrite)
    }

    /// Takes note of who speaks where, and of guests whose checksums nobody would finish.
    fn learn(&mut self, packet: &Packet<'_>) -> Step<()> {
        let port = self.ingress(packet)?;
        if port.partial_checksums && wire::checksum::is_partial(packet.bytes(), &packet.headers) {
            self.learner.partial_checksum(packet.ingress);
            return Err(Verdict::Drop(DropReason::PartialChecksum));
        }
        if packet.segment != SegmentId::NONE {
            let (source, segment) = (packet.headers.src, packet.segment);
            self.learner.see(&self.tables.fdb, segment, source, packet.ingress, self.now);
        }
        Ok(())
    }

    /// What becomes of a new connection.
    pub(crate) fn ask(&mut self, packet: &mut Packet<'_>) -> Step<Answer> {
        let Network::Ipv4(ip) = packet.headers.network else { return Ok(bridged(packet)) };
        if !packet.routed {
            return Ok(Answer { destination: ip.dst, ..bridged(packet) });
        }
        connect::connect(self.tables, &Question::of(packet, &ip)).map_err(|refusal| match refusal {
            Refusal::Unreachable(why) => self.lost(packet, path::Lost::Unreachable(why)),
            Refusal::NoSource => Verdict::Drop(DropReason::NoSource),
            Refusal::Host => Verdict::Host,
            Refusal::Denied(reason) => self.deny(packet, reason),
        })
    }

    /// A connection whose line is older than one of its ports, or ended, is asked again as it was
    /// first asked. A line that stays valid is given back; one that does not is gone, and an
    /// answer never becomes a new connection.
    fn ask_again(&mut self, packet: &Packet<'_>, found: Flow) -> Step<Option<Flow>> {
        // What was sent to a station so far was never asked what it becomes at the gateway.
        let turns_to_us = packet.routed && !found.is_reply() && found.flags() & (ROUTED | L2) == 0;
        if turns_to_us || (flow::reopens(packet, &found) && self.may_open(packet)) {
            self.flows.remove(&found);
            return Ok(None);
        }
        if self.is_fresh(packet, &found) {
            return Ok(Some(found));
        }
        if groups::refuses(self.tables, self.flows, &found, Some(packet)) {
            return Err(Verdict::Drop(DropReason::Revoked));
        }
        if connect::still_holds(self.tables, self.flows, &found) {
            return Ok(Some(found));
        }
        self.flows.remove(&found);
        match found.is_reply() {
            true => Err(Verdict::Drop(DropReason::Revoked)),
            false => Ok(None),
        }
    }

    /// Whether it could open a connection here. To the shared address nobody can, so that nobody
    /// outside can end one by saying that it has ended (RST) and is opened anew (SYN).
    fn may_open(&self, packet: &Packet<'_>) -> bool {
        let Network::Ipv4(ip) = packet.headers.network else { return true };
        packet.zone != ZoneId::NONE || self.tables.nat.source != Some(ip.dst)
    }

    /// The path of a connection's first packet.
    pub(crate) fn first_path(&mut self, packet: &mut Packet<'_>, answer: &Answer) -> Step<Path> {
        match packet.routed {
            true => self.path_along(packet, answer.route, answer.destination),
            false => {
                let way = bridge::path(self.tables, packet);
                self.guarded(packet, way).map_err(|verdict| self.ration(packet, verdict))
            }
        }
    }

    /// A frame for all becomes as many as there are ports, so a VM may send so many of them a second.
    fn ration(&mut self, packet: &Packet<'_>, verdict: Verdict) -> Verdict {
        let cost = self.limits(packet).flood_cost;
        let is_free = cost == 0 || !matches!(verdict, Verdict::Flood(_) | Verdict::FloodGuests(_));
        match is_free || self.limiter.floods(packet.ingress.index(), self.now_ms, cost) {
            true => verdict,
            false => Verdict::Drop(DropReason::FloodRate),
        }
    }

    /// The path of a direction whose connection is known.
    pub(crate) fn next_path(&mut self, packet: &mut Packet<'_>, found: &Flow) -> Step<Path> {
        let ip = match packet.headers.network {
            Network::Ipv4(ip) if packet.routed => ip,
            _ => {
                let way = bridge::path(self.tables, packet);
                return way.map_err(|verdict| self.ration(packet, verdict));
            }
        };
        let new = found.rewrite().destination;
        // An address that is translated is meant at the far side; one that is not, where it was
        // said. (A private one is never looked for at the provider's, be it that who was asked
        // there sees VMs' own addresses.)
        if new == [0; 4] && packet.zone != ZoneId::NONE {
            return self.path_to(packet, packet.zone, ip.dst);
        }
        let zone = self.far_zone(found).ok_or(Verdict::Drop(DropReason::Revoked))?;
        self.path_to(packet, zone, if new == [0; 4] { ip.dst } else { new })
    }

    /// The zone a flow's packets leave into: the one its answers come from.
    pub(crate) fn far_zone(&self, found: &Flow) -> Option<ZoneId> {
        let partner = self.flows.at(found.partner())?;
        Some(ZoneId::new(partner.key().zone()).unwrap_or(ZoneId::NONE))
    }

    /// The path to a destination in a zone.
    pub(crate) fn path_to(
        &mut self,
        packet: &mut Packet<'_>,
        zone: ZoneId,
        destination: [u8; 4],
    ) -> Step<Path> {
        let source = match packet.headers.network {
            Network::Ipv4(ip) => ip.src,
            _ => [0; 4],
        };
        let route = connect::route(self.tables, packet.zone, source, zone, destination);
        self.path_along(packet, route, destination)
    }

    /// The path along a route; a packet without one is answered, or waits.
    pub(crate) fn path_along(
        &mut self,
        packet: &mut Packet<'_>,
        route: Route,
        destination: [u8; 4],
    ) -> Step<Path> {
        path::along(self.tables, route, destination, packet.segment)
            .map_err(|lost| self.lost(packet, lost))
    }

    #[inline]
    fn ingress(&self, packet: &Packet<'_>) -> Step<&Port> {
        self.tables.topology.port(packet.ingress).ok_or(Verdict::Drop(DropReason::NoPort))
    }
}

/// What becomes of a packet that is bridged: nothing is changed in it.
fn bridged(packet: &Packet<'_>) -> Answer {
    Answer {
        destination: [0; 4],
        destination_port: 0,
        zone: packet.zone,
        source: Source::Keep,
        route: Route::Segment(packet.segment),
    }
}
