//! What becomes of a connection, decided by its first packet: translation of its addresses and
//! the way. Pure: asking again, and `explain`, ask here too.

use std::net::Ipv4Addr;

use tables::{Nat, PortId, Route, SegmentId, Snapshot, Snat, Unreachable, ZoneId};

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
}

/// Decides.
///
/// # Errors
/// [`Refusal`]: the connection does not come about.
pub fn connect(tables: &Snapshot, question: &Question) -> Result<Answer, Refusal> {
    let (destination, zone, route, float) = aim(tables, question)?;
    let route = match route {
        Route::Unreachable(why) => return Err(Refusal::Unreachable(why)),
        Route::Public { .. } => way_out(tables, question.zone, question.source, route),
        route => route,
    };
    let source = source(&tables.nat, question, destination, zone, route, float)?;
    Ok(Answer { destination, zone, source, route })
}

/// The destination after translation, its zone, the way there, and whether it was translated.
fn aim(tables: &Snapshot, question: &Question) -> Result<([u8; 4], ZoneId, Route, bool), Refusal> {
    if let Some(float) = tables.nat.float(question.destination) {
        return Ok((float.fixed, float.zone, Route::Segment(float.segment), true));
    }
    let route = match tables.routes.find(question.zone, question.destination) {
        Some((_, route)) => route,
        None if question.zone == ZoneId::NONE => return Err(Refusal::Host),
        None => return Err(Refusal::Unreachable(Unreachable::Net)),
    };
    let zone = match route {
        Route::Segment(segment) | Route::Router { segment, .. } => zone_of(tables, segment),
        Route::Host | Route::Unreachable(_) => question.zone,
        Route::Public { .. } => ZoneId::NONE,
    };
    // From the provider's side only what is ours is answered; the rest is between it and the host.
    let is_ours = matches!(route, Route::Segment(_) | Route::Router { .. });
    if question.zone == ZoneId::NONE && !is_ours {
        return Err(Refusal::Host);
    }
    Ok((question.destination, zone, route, false))
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
