//! Who may begin to speak with the node itself, and what may be routed where. Asked once a
//! connection, and never of answers.

use tables::{Call, DropAction, PortKind, Route, Segment, SegmentId, Side, Snapshot, ZoneId};
use wire::{Network, protocol};

use crate::complain::Complaint;
use crate::connect::Question;
use crate::path::Path;
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict};

/// To all of a link (RFC 919).
const BROADCAST: [u8; 4] = [255; 4];
/// Where those are who give addresses away.
const DHCP: (u8, u16) = (protocol::UDP, 67);

/// Whether a connection may be routed this way; else why not. What the provider sends to the host
/// does not come here.
pub(crate) fn check(
    tables: &Snapshot,
    question: &Question,
    route: Route,
) -> Result<(), DropReason> {
    if is_host(tables, question) {
        return Ok(());
    }
    let policy = &tables.policy;
    let segment = asker(tables, question);
    let to = match route {
        Route::Host if policy.serves(&call(tables, question, segment)) => return Ok(()),
        Route::Host => return Err(DropReason::HostDenied),
        Route::Unreachable(_) => return Ok(()),
        Route::Segment(segment) | Route::Router { segment, .. } => Side::Segment(segment),
        Route::Public { port, .. } => Side::Public(port),
    };
    let from = match question.zone {
        ZoneId::NONE => Side::Public(question.ingress),
        _ => Side::Segment(segment),
    };
    if policy.routes(from, to) { Ok(()) } else { Err(DropReason::ForwardDenied) }
}

fn is_host(tables: &Snapshot, question: &Question) -> bool {
    let port = tables.topology.port(question.ingress);
    port.is_some_and(|port| port.kind == PortKind::Host)
}

/// The segment of who asks: its port's, and over a trunk the one that has its address.
fn asker(tables: &Snapshot, question: &Question) -> SegmentId {
    let port = tables.topology.port(question.ingress);
    if let Some(port) = port.filter(|port| port.segment != SegmentId::NONE) {
        return port.segment;
    }
    match tables.routes.find(question.zone, question.source) {
        Some((_, Route::Segment(segment) | Route::Router { segment, .. })) => segment,
        _ => SegmentId::NONE,
    }
}

fn call(tables: &Snapshot, question: &Question, segment: SegmentId) -> Call {
    let gateway = tables.topology.segment(segment).and_then(|segment| segment.gateway);
    Call {
        segment,
        source: question.source,
        protocol: Some(question.protocol),
        port: question.port,
        gateway: gateway.is_some_and(|gateway| gateway.address == question.destination),
    }
}

impl Pipeline<'_> {
    /// The end of a packet that policy forbids.
    pub(crate) fn deny(&mut self, packet: &mut Packet<'_>, reason: DropReason) -> Verdict {
        match self.tables.policy.action {
            DropAction::Drop => {}
            DropAction::Reject => return self.complain(packet, Complaint::Denied(reason)),
            DropAction::Log => {
                if let Network::Ipv4(ip) = packet.headers.network {
                    self.learner.denied(reason, &Question::of(packet, &ip), self.now);
                }
            }
        }
        Verdict::Drop(reason)
    }

    /// The way of a frame that begins something within its segment: to the node's own foot there
    /// only if the node serves it.
    pub(crate) fn guarded(&mut self, packet: &mut Packet<'_>, way: Step<Path>) -> Step<Path> {
        let Some(here) = self.tables.topology.segment(packet.segment) else { return way };
        // A bridge that was taken over may have stations of its own, behind the node's foot.
        let to = packet.headers.dst;
        let before = here.gateway.and_then(|gateway| gateway.before);
        let is_hosts = to == self.tables.topology.mac(here.host) || Some(to) == before;
        let to_host = match &way {
            Ok(path) => path.egress == here.host && is_hosts,
            Err(Verdict::Flood(_)) => is_hosts || (to.is_multicast() && before.is_none()),
            Err(_) => false,
        };
        if !to_host || packet.ingress == here.host || self.is_served(packet, here) {
            return way;
        }
        match way {
            Ok(_) => Err(self.deny(packet, DropReason::HostDenied)),
            Err(_) => Err(Verdict::FloodGuests(here.id)),
        }
    }

    /// Whether the host takes a frame that is bridged to it. It asks and answers by ARP.
    fn is_served(&self, packet: &Packet<'_>, here: &Segment) -> bool {
        let ip = match packet.headers.network {
            Network::Arp(_) => return true,
            Network::Ipv4(ip) => Some(ip),
            Network::Ipv6(_) | Network::Other => None,
        };
        let asked = ip.map(|ip| Question::of(packet, &ip));
        let call = Call {
            segment: here.id,
            source: ip.map_or([0; 4], |ip| ip.src),
            protocol: ip.map(|ip| ip.protocol),
            port: asked.map_or(0, |asked| asked.port),
            // Who has no address yet asks all for one.
            gateway: asked.is_some_and(|asked| {
                asked.destination == BROADCAST && (asked.protocol, asked.port) == DHCP
            }),
        };
        self.tables.policy.serves(&call)
    }
}
