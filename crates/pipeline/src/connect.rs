//! What becomes of a connection, decided by its first packet: translation of its addresses and
//! the way. Pure: asking again, and `explain`, ask here too.

use std::net::Ipv4Addr;

use conntrack::layout::ROUTED;
use conntrack::{Flow, FlowKey, Table};
use tables::{
    Forward, METADATA, METADATA_PORT, MetadataServer, Nat, PortId, Route, SegmentId, Snapshot,
    Snat, Unreachable, ZoneId,
};
use wire::{Ipv4, Transport, protocol};

use crate::{DropReason, Packet, guard};

/// The type of an ICMP echo request (RFC 792).
const ECHO_REQUEST: u16 = 8;

/// What the first packet of a connection asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The port it came by.
    pub ingress: PortId,
    /// The zone that is in; none for the public side.
    pub zone: ZoneId,
    /// Who asks.
    pub source: [u8; 4],
    /// Who is asked.
    pub destination: [u8; 4],
    /// The number of its protocol.
    pub protocol: u8,
    /// The TCP or UDP port that is asked, 8 for an ICMP echo request, else 0.
    pub port: u16,
}

impl Question {
    /// What a packet asks that opens a connection.
    pub(crate) fn of(packet: &Packet<'_>, ip: &Ipv4) -> Self {
        Self {
            ingress: packet.ingress,
            zone: packet.zone,
            source: ip.src,
            destination: ip.dst,
            protocol: ip.protocol,
            port: match ip.transport {
                Transport::Tcp { dport, .. } | Transport::Udp { dport, .. } => dport,
                Transport::Echo { request: true, .. } => ECHO_REQUEST,
                Transport::Echo { .. } | Transport::None => 0,
            },
        }
    }

    /// What the first packet of a connection asked whose original direction has this key.
    fn again(key: FlowKey) -> Self {
        Self {
            ingress: PortId::new(key.ingress()).unwrap_or(PortId::NONE),
            zone: ZoneId::new(key.zone()).unwrap_or(ZoneId::NONE),
            source: key.src(),
            destination: key.dst(),
            protocol: key.protocol(),
            port: match key.protocol() {
                protocol::TCP | protocol::UDP => key.dport(),
                // A request has its identifier in the place of the source's port.
                protocol::ICMP if key.dport() == 0 => ECHO_REQUEST,
                _ => 0,
            },
        }
    }

    /// Where the port that is asked leads, if it leads to a VM.
    fn forward<'t>(&self, nat: &'t Nat) -> Option<&'t Forward> {
        let found = nat.forward(self.destination, self.port);
        found.filter(|_| self.protocol == protocol::UDP)
    }

    /// The server that is meant, if a VM asks for its metadata.
    fn metadata(&self, nat: &Nat) -> Option<MetadataServer> {
        let asks = self.destination == METADATA
            && (self.protocol, self.port) == (protocol::TCP, METADATA_PORT);
        nat.metadata.filter(|_| asks && self.zone != ZoneId::NONE)
    }
}

/// What happens to the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It stays.
    Keep,
    /// It becomes this one, ports stay: a floating address.
    Float([u8; 4]),
    /// It becomes this one, which others have too: the port may change as well.
    Shared([u8; 4]),
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The destination as it leaves.
    pub destination: [u8; 4],
    /// The port that is asked there, if that is another; else 0.
    pub destination_port: u16,
    /// The zone that is in; none for the public side.
    pub zone: ZoneId,
    /// What happens to the source.
    pub source: Source,
    /// The way.
    pub route: Route,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The destination cannot be reached, and the sender is told.
    Unreachable(Unreachable),
    /// It would leave with an address nobody can answer to.
    NoSource,
    /// It came by the public NIC and is the host's.
    Host,
    /// Policy forbids it.
    Denied(DropReason),
}

/// Decides.
///
/// # Errors
/// [`Refusal`]: the connection does not come about.
pub fn connect(tables: &Snapshot, question: &Question) -> Result<Answer, Refusal> {
    if let Some(server) = question.metadata(&tables.nat) {
        return serve_metadata(tables, question, server);
    }
    let forward = question.forward(&tables.nat);
    let (destination, zone, route, float) = match forward {
        Some(to) => (to.fixed, to.zone, Route::Segment(to.segment), true),
        None => aim(tables, question)?,
    };
    let destination_port = forward.map_or(0, |to| other_port(question, to.fixed_port));
    let route = match route {
        Route::Unreachable(why) => return Err(Refusal::Unreachable(why)),
        Route::Public { .. } => way_out(tables, question.zone, question.source, route),
        route => route,
    };
    // Nova let in what is for a VPN instance before all else.
    if forward.is_none() {
        guard::check(tables, question, route).map_err(Refusal::Denied)?;
    }
    let source = source(&tables.nat, question, destination, zone, route, float)?;
    Ok(Answer { destination, destination_port, zone, source, route })
}

/// The port, if it is not the one that is asked; else 0.
fn other_port(question: &Question, port: u16) -> u16 {
    if port == question.port { 0 } else { port }
}

/// A request for metadata goes to its server as if that had been asked, and keeps its source, by
/// which the server knows the VM: before `dmz_cidr`, floating addresses and all else.
fn serve_metadata(
    tables: &Snapshot,
    question: &Question,
    server: MetadataServer,
) -> Result<Answer, Refusal> {
    let (zone, route) = route_to(tables, question.zone, server.address)?;
    let route = match route {
        Route::Unreachable(why) => return Err(Refusal::Unreachable(why)),
        Route::Public { .. } => way_out(tables, question.zone, question.source, route),
        route => route,
    };
    let destination_port = other_port(question, server.port);
    Ok(Answer { destination: server.address, destination_port, zone, source: Source::Keep, route })
}

/// Whether a connection would be translated today as it is.
#[must_use]
pub fn still_holds(tables: &Snapshot, flows: &Table, flow: &Flow) -> bool {
    let original = if flow.is_reply() { flows.at(flow.partner()) } else { Some(*flow) };
    let Some(original) = original else { return false };
    if original.flags() & ROUTED == 0 {
        return true;
    }
    let (key, rewrite) = (original.key(), original.rewrite());
    let was = |new: [u8; 4], own: [u8; 4]| if new == [0; 4] { own } else { new };
    match connect(tables, &Question::again(key)) {
        Ok(answer) => {
            let source = match answer.source {
                Source::Keep => key.src(),
                Source::Float(address) | Source::Shared(address) => address,
            };
            source == was(rewrite.source, key.src())
                && answer.destination == was(rewrite.destination, key.dst())
                && answer.destination_port == rewrite.destination_port
        }
        // Where the way is lost for now, that is what its packets are told.
        Err(Refusal::Unreachable(_)) => true,
        Err(Refusal::NoSource | Refusal::Host | Refusal::Denied(_)) => false,
    }
}

/// The route a packet of a known connection takes to `destination` in `zone`, as its sender sees
/// it from its own zone.
pub(crate) fn route(
    tables: &Snapshot,
    from: ZoneId,
    source: [u8; 4],
    zone: ZoneId,
    destination: [u8; 4],
) -> Route {
    match tables.routes.find(zone, destination) {
        Some((_, route @ Route::Public { .. })) => way_out(tables, from, source, route),
        Some((_, route)) => route,
        None => Route::Unreachable(Unreachable::Net),
    }
}

/// The destination after translation, its zone, the way there, and whether it was translated.
fn aim(tables: &Snapshot, question: &Question) -> Result<([u8; 4], ZoneId, Route, bool), Refusal> {
    if let Some(float) = tables.nat.float(question.destination) {
        return Ok((float.fixed, float.zone, Route::Segment(float.segment), true));
    }
    let (zone, route) = route_to(tables, question.zone, question.destination)?;
    // From the provider's side only what is ours is answered; the rest is between it and the host.
    let is_ours = matches!(route, Route::Segment(_) | Route::Router { .. });
    if question.zone == ZoneId::NONE && !is_ours {
        return Err(Refusal::Host);
    }
    Ok((question.destination, zone, route, false))
}

/// The way from a zone to a destination, and the zone that is in.
fn route_to(
    tables: &Snapshot,
    from: ZoneId,
    destination: [u8; 4],
) -> Result<(ZoneId, Route), Refusal> {
    let route = match tables.routes.find(from, destination) {
        Some((_, route)) => route,
        None if from == ZoneId::NONE => return Err(Refusal::Host),
        None => return Err(Refusal::Unreachable(Unreachable::Net)),
    };
    let zone = match route {
        Route::Segment(segment) | Route::Router { segment, .. } => zone_of(tables, segment),
        Route::Host | Route::Unreachable(_) => from,
        Route::Public { .. } => ZoneId::NONE,
    };
    Ok((zone, route))
}

fn zone_of(tables: &Snapshot, segment: SegmentId) -> ZoneId {
    tables.topology.segment(segment).map_or(ZoneId::NONE, |segment| segment.zone)
}

/// The way out of a packet that leaves by the node's routes: the pool of its sender's floating
/// address may name another.
pub(crate) fn way_out(tables: &Snapshot, zone: ZoneId, source: [u8; 4], route: Route) -> Route {
    let float = tables.nat.float_of(zone, source);
    float.and_then(|float| float.way).unwrap_or(route)
}

/// The source after translation: exempt destinations, the same network, the sender's floating
/// address and the shared one, in nova's order.
fn source(
    nat: &Nat,
    question: &Question,
    destination: [u8; 4],
    zone: ZoneId,
    route: Route,
    to_float: bool,
) -> Result<Source, Refusal> {
    if question.zone == ZoneId::NONE || nat.is_exempt(destination) {
        return Ok(Source::Keep);
    }
    let range = nat.source_range(question.zone, question.source);
    let within = range.is_some_and(|(prefix, _)| prefix.contains(&Ipv4Addr::from(destination)));
    if within && !to_float && zone == question.zone {
        return Ok(Source::Keep);
    }
    let out = matches!(route, Route::Public { .. });
    if let Some(float) = nat.float_of(question.zone, question.source)
        && (out || to_float)
    {
        return Ok(Source::Float(float.address));
    }
    let snat = range.map(|(_, snat)| snat);
    let shared = match snat {
        Some(Snat::Never) => false,
        Some(Snat::Forced) => nat.is_forced(destination),
        Some(Snat::Public) | None => out || nat.is_forced(destination),
    };
    // Addresses of one zone mean nothing in another.
    if shared || (zone != question.zone && !out) {
        // A source that no network here has would leave as it is, or take a tenant's name.
        let known = snat.and(nat.source).ok_or(Refusal::NoSource)?;
        return Ok(Source::Shared(known));
    }
    Ok(Source::Keep)
}
