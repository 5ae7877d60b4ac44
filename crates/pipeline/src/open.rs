//! Opening a connection, and remembering the way of a direction of one that is open.

use conntrack::layout::{PATH_KNOWN, REWRITES, ROUTED};
use conntrack::{Flow, FlowKey, InstallError, Installed, NewLine, Quota, Rewrite};
use tables::{Limits, ZoneId};
use wire::{Network, Translation, Transport};

use crate::connect::{Answer, Source};
use crate::path::{Path, To, translation};
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict, flow};

/// Ports of a shared address that are tried for a new connection. With three quarters of all ports
/// taken towards one destination, 64 tries fail once in 10^8.
const PORT_TRIES: u16 = 64;

impl Pipeline<'_> {
    /// Gives a known flow its path.
    pub(crate) fn continue_on(&self, packet: &Packet<'_>, found: &Flow, path: &Path) -> Rewrite {
        let nat = translation(&found.rewrite());
        let rewrite = path.rewrite(packet, &nat, found.flags() & ROUTED);
        self.flows.touch(found, self.now, flow::state_bits(packet));
        // Losing the race means another worker just stored the same.
        let _ = self.flows.set_path(found, &rewrite, self.tables.stamp);
        rewrite
    }

    /// Opens a connection for its first packet; where nothing is remembered, its rewrite all the
    /// same.
    pub(crate) fn open(
        &mut self,
        packet: &Packet<'_>,
        answer: &Answer,
        path: &Path,
    ) -> Step<Rewrite> {
        let (original, reply) = nat_of(packet, answer);
        let changes = original != Translation::default();
        if changes && flow::is_underway(packet) && !self.tables.nat.pickup {
            return Err(Verdict::Drop(DropReason::Unrelated));
        }
        if self.is_stateless(packet) {
            return match (changes, flow::is_answer(packet)) {
                (false, _) => Ok(path.rewrite(packet, &original, 0)),
                (true, true) => Err(Verdict::Drop(DropReason::Unrelated)),
                (true, false) => Err(Verdict::Drop(DropReason::Untranslatable)),
            };
        }
        if !self.may_afford(packet) {
            return Err(Verdict::Drop(DropReason::OpeningRate));
        }
        match answer.source {
            Source::Shared(_) => self.open_shared(packet, path, original, reply),
            Source::Keep | Source::Float(_) => self.open_plain(packet, path, original, reply),
        }
    }

    /// Whether its VM may open one more now.
    fn may_afford(&mut self, packet: &Packet<'_>) -> bool {
        let cost = self.limits(packet).opening_cost;
        cost == 0 || self.limiter.opens(packet.ingress.index(), self.now_ms, cost)
    }

    pub(crate) fn limits(&self, packet: &Packet<'_>) -> Limits {
        self.tables.topology.port(packet.ingress).map_or_else(Limits::default, |port| port.limits)
    }

    /// Opens a connection whose ports stay.
    fn open_plain(
        &mut self,
        packet: &Packet<'_>,
        path: &Path,
        original: Translation,
        reply: Translation,
    ) -> Step<Rewrite> {
        let rewrite = self.rewrite(packet, path, original);
        let quota = Quota { all: self.limits(packet).connections, ..Quota::NONE };
        match self.install(packet, path, rewrite, reply, quota) {
            Ok(Installed::New { .. }) => Ok(rewrite),
            Ok(Installed::Existing(flow)) if flow.path_known() => Ok(flow.rewrite()),
            Ok(Installed::Existing(flow)) => Ok(self.continue_on(packet, &flow, path)),
            Err(why) if rewrite.flags & REWRITES == 0 && !matches!(why, InstallError::Quota) => {
                self.open_without(why, rewrite)
            }
            Err(why) => Err(Verdict::Drop(refusal(why))),
        }
    }

    /// Nothing is translated, so that the packet can go on though nothing is remembered of it.
    fn open_without(&self, why: InstallError, rewrite: Rewrite) -> Step<Rewrite> {
        match why {
            // The answers have a line already: theirs is as good as ours would be.
            InstallError::ReplyTaken(_) | InstallError::ReplyIsOriginal => Ok(rewrite),
            InstallError::Full
            | InstallError::Contended
            | InstallError::Quota
            | InstallError::EndpointQuota => {
                self.counters.uncached();
                Ok(rewrite)
            }
        }
    }

    /// Opens a connection that leaves with a shared address: with its own port, if that is ours to
    /// give and free towards this destination, else with the first free one of some.
    fn open_shared(
        &mut self,
        packet: &Packet<'_>,
        path: &Path,
        original: Translation,
        reply: Translation,
    ) -> Step<Rewrite> {
        let own = packet.key.sport();
        let has_ports = matches!(packet.headers.network, Network::Ipv4(ip)
            if ip.transport != Transport::None)
            && own != 0;
        let limits = self.limits(packet);
        let quota = Quota { all: limits.connections, each: limits.shared };
        for port in candidates(&self.tables.nat.ports, own, has_ports, packet.hash ^ self.now_ms) {
            let changed = if port == own { 0 } else { port };
            let original = Translation { source_port: changed, ..original };
            let back = if port == own { 0 } else { own };
            let reply = Translation { destination_port: back, ..reply };
            let rewrite = self.rewrite(packet, path, original);
            match self.install(packet, path, rewrite, reply, quota) {
                Ok(Installed::New { .. }) => return Ok(rewrite),
                Ok(Installed::Existing(flow)) if flow.path_known() => return Ok(flow.rewrite()),
                Ok(Installed::Existing(flow)) => return Ok(self.continue_on(packet, &flow, path)),
                Err(InstallError::ReplyTaken(_) | InstallError::ReplyIsOriginal) => {}
                Err(why) => return Err(Verdict::Drop(refusal(why))),
            }
        }
        Err(Verdict::Drop(DropReason::NoPorts))
    }

    fn rewrite(&self, packet: &Packet<'_>, path: &Path, nat: Translation) -> Rewrite {
        path.rewrite(packet, &nat, if packet.routed { ROUTED } else { 0 })
    }

    /// Installs both lines. The way of the answers is decided by their own first packet.
    fn install(
        &self,
        packet: &Packet<'_>,
        path: &Path,
        rewrite: Rewrite,
        reply: Translation,
        quota: Quota,
    ) -> Result<Installed, InstallError> {
        let headers = &packet.headers;
        let ingress = packet.ingress.get();
        let back = Rewrite {
            source: reply.source,
            destination: reply.destination,
            source_port: reply.source_port,
            destination_port: reply.destination_port,
            flags: rewrite.flags & (REWRITES | ROUTED) & !PATH_KNOWN,
            ..Rewrite::bridged(headers.dst.0, headers.src.0, ingress, packet.segment.get(), 0)
        };
        let key = self.answers(packet, path, &rewrite);
        let original = NewLine { key: packet.key, rewrite };
        let reply = NewLine { key, rewrite: back };
        self.flows.install_within(&original, &reply, self.tables.stamp, self.now, quota)
    }

    /// Packets of which nothing is remembered: those without a key of their own when they are routed,
    /// or might be let in by a line that another one opened; answers and ends of what is not known.
    fn is_stateless(&self, packet: &Packet<'_>) -> bool {
        let is_unread = packet.key.is_l2()
            && match packet.headers.network {
                Network::Ipv4(_) => packet.routed || self.tables.walls.stand(),
                Network::Ipv6(_) => true,
                Network::Arp(_) | Network::Other => packet.routed,
            };
        is_unread || flow::is_answer(packet)
    }

    /// Remembers a connection whose first packet is flooded, since nobody knows yet where its
    /// destination is: the answers, which tell that, are let in to the VM that asked.
    pub(crate) fn expect_answers(&self, packet: &Packet<'_>, verdict: Verdict) -> Verdict {
        let is_guarded = self.tables.walls.before(packet.ingress).is_some();
        let to = packet.headers.dst;
        if let Verdict::Flood(segment) = verdict
            && is_guarded
            && !to.is_multicast()
            && !packet.key.is_l2()
            && !flow::is_answer(packet)
            && let Some(uplink) = self.tables.topology.segment(segment).and_then(|it| it.uplink)
        {
            let (egress, vlan) = (uplink.port, uplink.vlan.unwrap_or(0));
            let path = Path { egress, segment, vlan, to: To::Station(to) };
            let mut rewrite = path.rewrite(packet, &Translation::default(), 0);
            rewrite.flags &= !PATH_KNOWN;
            // Where there is no room its answers come as anybody's packets do.
            let quota = Quota { all: self.limits(packet).connections, ..Quota::NONE };
            let _ = self.install(packet, &path, rewrite, Translation::default(), quota);
        }
        verdict
    }

    /// The key of the packets that answer this one's flow, rewritten as it is.
    fn answers(&self, packet: &Packet<'_>, path: &Path, rewrite: &Rewrite) -> FlowKey {
        let (key, headers) = (packet.key, &packet.headers);
        let (ingress, segment) = (path.egress.get(), packet.segment.get());
        if key.is_l2() {
            return FlowKey::l2(headers.src.0, headers.dst.0, headers.ethertype, ingress, segment);
        }
        if let (true, Some((src, dst))) = (key.is_ipv6(), packet.ipv6_addresses()) {
            let (addresses, number) = (self.flows.fingerprint(dst, src), key.protocol());
            return FlowKey::ipv6(addresses, key.dport(), key.sport(), number, ingress, segment);
        }
        let or = |new: [u8; 4], own: [u8; 4]| if new == [0; 4] { own } else { new };
        let port = |new: u16, own: u16| if new == 0 { own } else { new };
        FlowKey::ipv4(
            or(rewrite.destination, key.dst()),
            or(rewrite.source, key.src()),
            port(rewrite.destination_port, key.dport()),
            port(rewrite.source_port, key.sport()),
            key.protocol(),
            ingress,
            self.zone_of(path).get(),
        )
    }

    /// The zone answers come from that come by this path.
    fn zone_of(&self, path: &Path) -> ZoneId {
        let segment = self.tables.topology.segment(path.segment);
        segment.map_or(ZoneId::NONE, |segment| segment.zone)
    }
}

/// What changes in the packets of either direction, but for the port of a shared source.
fn nat_of(packet: &Packet<'_>, answer: &Answer) -> (Translation, Translation) {
    let mut original = Translation::default();
    let mut reply = Translation::default();
    let Network::Ipv4(ip) = packet.headers.network else { return (original, reply) };
    if answer.destination != ip.dst {
        original.destination = answer.destination;
        reply.source = ip.dst;
    }
    if answer.destination_port != 0 {
        original.destination_port = answer.destination_port;
        reply.source_port = packet.key.dport();
    }
    if let Source::Float(address) | Source::Shared(address) = answer.source {
        original.source = address;
        reply.destination = ip.src;
    }
    (original, reply)
}

/// The ports to try: its own where it is in the range, then some drawn from all of it. Taken ports
/// stand in runs, since guests count up; tries in any pattern would fall into the same runs.
fn candidates(
    range: &std::ops::RangeInclusive<u16>,
    own: u16,
    has_ports: bool,
    seed: u64,
) -> impl Iterator<Item = u16> {
    let (first, count) = (*range.start(), u64::from(range.end() - range.start()) + 1);
    let keep = (range.contains(&own) || !has_ports).then_some(own);
    let others = (0..if has_ports { PORT_TRIES } else { 0 })
        .map(move |at| first + (scramble(seed.wrapping_add(at.into())) % count) as u16);
    keep.into_iter().chain(others)
}

/// A number that looks like chance: splitmix64 (Steele, Lea and Flood, 2014).
fn scramble(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn refusal(why: InstallError) -> DropReason {
    match why {
        InstallError::Full | InstallError::Contended => DropReason::TableFull,
        InstallError::Quota => DropReason::Quota,
        InstallError::EndpointQuota => DropReason::SnatQuota,
        InstallError::ReplyTaken(_) | InstallError::ReplyIsOriginal => DropReason::NoPorts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_the_range_is_tried_first_and_all_tries_are_in_the_range() {
        let range = 20_000..=45_999;
        let own: Vec<u16> = candidates(&range, 33_333, true, 7).collect();
        assert_eq!((own[0], own.len()), (33_333, 65));
        let other: Vec<u16> = candidates(&range, 80, true, 7).collect();
        assert!(other.len() == 64 && other.iter().all(|port| range.contains(port)));
        let quarters = |port: &u16| (port - 20_000) / 6_500;
        let mut seen: Vec<u16> = other.iter().map(quarters).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3], "all over the range");
        assert_eq!(candidates(&(1..=3), 9, true, 5).take(3).collect::<Vec<_>>().len(), 3);
        assert_eq!(candidates(&range, 0, false, 5).collect::<Vec<_>>(), [0]);
    }
}
