//! ICMP errors on their way through: what they quote belongs to a connection, and they follow it.

use conntrack::Flow;
use tables::{PortId, ZoneId};
use wire::{Embedded, Network, Translation, embedded, embedded6, translate_error};

use crate::connect::Source;
use crate::path::{Path, translation};
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict, bridge, flow};

/// Bytes of an IPv6 header.
const IPV6_LEN: usize = 40;

impl Pipeline<'_> {
    /// Sends an ICMP error on: to whom it concerns, with what it quotes as that one sent it.
    pub(crate) fn relate(&mut self, packet: &mut Packet<'_>) -> Step<PortId> {
        let Network::Ipv4(ip) = packet.headers.network else { return Err(self.not_ours(packet)) };
        let l3 = usize::from(packet.headers.l3);
        let message = packet.bytes().get(l3 + usize::from(ip.header_len)..).unwrap_or_default();
        let quoted = embedded(message);
        let found = quoted.and_then(|quoted| self.quoted_by(packet, &quoted));
        let Some(found) = found else { return self.unrelated(packet, ip.dst) };
        let rewrite = found.rewrite();
        let nat = translation(&rewrite);
        let destination = if nat.destination == [0; 4] { ip.dst } else { nat.destination };
        let path = self.follow(packet, &found, destination)?;
        // The speaker is the other end itself or a router on the way; only the end's name is ours
        // to change.
        let from_end = quoted.is_some_and(|quoted| quoted.dst == ip.src);
        let source = if from_end || self.names_a_tenant(packet) { nat.source } else { [0; 4] };
        if translate_error(packet.bytes_mut(), l3, &Translation { source, ..nat }).is_err() {
            return Err(Verdict::Drop(DropReason::Unrelated));
        }
        let plain = path.rewrite(packet, &Translation::default(), 0);
        self.replay(packet, &plain)
    }

    fn quoted_by(&self, packet: &Packet<'_>, quoted: &Embedded) -> Option<Flow> {
        let key = flow::related(packet, quoted)?;
        self.flows.find(key, self.flows.hash(key))
    }

    /// The same of ICMPv6, which is bridged: one that quotes nothing known goes where rules let it.
    pub(crate) fn relate6(&mut self, packet: &mut Packet<'_>) -> Step<PortId> {
        let way = bridge::path(self.tables, packet);
        let path = self.guarded(packet, way)?;
        if !self.quotes_known(packet) {
            self.judge(packet, Source::Keep, &path)?;
        }
        let plain = path.rewrite(packet, &Translation::default(), 0);
        self.replay(packet, &plain)
    }

    fn quotes_known(&self, packet: &Packet<'_>) -> bool {
        let message = packet.bytes().get(usize::from(packet.headers.l3) + IPV6_LEN..);
        let quoted = message.and_then(embedded6);
        let key = quoted.and_then(|quoted| flow::related6(packet, &quoted, self.flows));
        key.is_some_and(|key| self.flows.find(key, self.flows.hash(key)).is_some())
    }

    /// The path of an error that belongs to this flow.
    fn follow(
        &mut self,
        packet: &mut Packet<'_>,
        found: &Flow,
        destination: [u8; 4],
    ) -> Step<Path> {
        if !packet.routed {
            return bridge::path(self.tables, packet);
        }
        let zone = self.far_zone(found).ok_or(Verdict::Drop(DropReason::Unrelated))?;
        self.path_to(packet, zone, destination)
    }

    /// An error that quotes nothing known goes on where nothing would have to be translated.
    fn unrelated(&mut self, packet: &mut Packet<'_>, destination: [u8; 4]) -> Step<PortId> {
        if packet.zone == ZoneId::NONE {
            return Err(self.not_ours(packet));
        }
        let path = if packet.routed {
            let answer = self.ask(packet)?;
            if answer.source != Source::Keep || answer.destination != destination {
                return Err(Verdict::Drop(DropReason::Unrelated));
            }
            self.path_along(packet, answer.route, destination)?
        } else {
            let way = bridge::path(self.tables, packet);
            self.guarded(packet, way)?
        };
        self.judge(packet, Source::Keep, &path)?;
        let plain = path.rewrite(packet, &Translation::default(), 0);
        self.replay(packet, &plain)
    }

    /// From the public side: the host's, unless it was for a floating address.
    fn not_ours(&self, packet: &Packet<'_>) -> Verdict {
        match packet.headers.network {
            Network::Ipv4(ip) if self.tables.nat.float(ip.dst).is_some() => {
                Verdict::Drop(DropReason::Unrelated)
            }
            _ => Verdict::Host,
        }
    }

    /// Whether the error comes from a tenant's network and would leave with an address in it.
    fn names_a_tenant(&self, packet: &Packet<'_>) -> bool {
        let Network::Ipv4(ip) = packet.headers.network else { return false };
        self.tables.nat.source_range(packet.zone, ip.src).is_some()
    }
}
