//! Whether an open connection is what it would be today: asked of a table that an earlier daemon
//! left, whose tables nobody knows any more.

use conntrack::layout::{NEXT_HOP, ROUTED};
use conntrack::{Flow, Table};
use tables::{PortId, Route, SegmentId, Snapshot, ZoneId};
use wire::MacAddr;

use crate::path::{self, Lost, Path, To, hop_of};
use crate::{connect, groups, spoof};

/// How a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Today's tables say the same.
    Stands,
    /// Its connection is open, and its way another one, or not known.
    OtherWay,
    /// It would be translated differently, no rule allows it any more, or one of its ports is not
    /// there; or only its next packet can say.
    Ended,
}

/// Says how a flow stands.
#[must_use]
pub fn standing(tables: &Snapshot, flows: &Table, flow: &Flow) -> Standing {
    let is_there =
        |number| PortId::new(number).is_some_and(|id| tables.topology.port(id).is_some());
    let may_go_on =
        || connect::still_holds(tables, flows, flow) && !groups::refuses(tables, flows, flow, None);
    if !is_there(flow.key().ingress()) || !may_go_on() {
        return Standing::Ended;
    }
    if !flow.path_known() {
        return Standing::Stands;
    }
    if !is_there(flow.egress()) || !is_of_its_vm(tables, flow) {
        return Standing::Ended;
    }
    match today(tables, flows, flow) {
        Ok(path) if is_way_of(flow, &path) => Standing::Stands,
        _ => Standing::OtherWay,
    }
}

/// Whether the VM it comes from, if it comes from one, may still send so. A line of IPv6 does not say
/// who that is: its next packet does.
fn is_of_its_vm(tables: &Snapshot, flow: &Flow) -> bool {
    let key = flow.key();
    let port = PortId::new(key.ingress()).and_then(|id| tables.topology.port(id));
    let identity = port.and_then(|port| port.identity.as_ref());
    let Some(own) = identity.filter(|_| !key.is_l2()) else { return true };
    !key.is_ipv6() && spoof::may_have(own, key.src(), key.protocol(), key.sport())
}

fn is_way_of(flow: &Flow, path: &Path) -> bool {
    let rewrite = flow.rewrite();
    let to = match hop_of(&rewrite) {
        Some(number) => To::Hop(number),
        None => To::Station(MacAddr(rewrite.destination_mac)),
    };
    let (egress, segment) = (path.egress.get(), path.segment.get());
    (egress, segment, path.vlan) == (rewrite.egress, rewrite.segment, rewrite.vlan) && path.to == to
}

/// The path its packets would be given today.
fn today(tables: &Snapshot, flows: &Table, flow: &Flow) -> Result<Path, Lost> {
    let segment = SegmentId::new(flow.segment()).unwrap_or(SegmentId::NONE);
    let nobody = Lost::Unreachable(tables::Unreachable::Host);
    if flow.flags() & ROUTED == 0 && flow.flags() & NEXT_HOP == 0 {
        return path::to_station(tables, segment, MacAddr(flow.destination_mac())).ok_or(nobody);
    }
    let destination = destination(flow);
    match route(tables, flows, flow).ok_or(nobody)? {
        // The host is reached by its foot in the segment a packet came from.
        route @ Route::Host => path::along(tables, route, destination, segment),
        route => path::along(tables, route, destination, SegmentId::NONE),
    }
}

fn destination(flow: &Flow) -> [u8; 4] {
    match flow.rewrite().destination {
        [0, 0, 0, 0] => flow.key().dst(),
        new => new,
    }
}

/// The route its packets would take today.
fn route(tables: &Snapshot, flows: &Table, flow: &Flow) -> Option<Route> {
    let key = flow.key();
    let zone = |number| ZoneId::new(number).unwrap_or(ZoneId::NONE);
    let from = zone(key.zone());
    let to = match flow.rewrite().destination {
        [0, 0, 0, 0] if from != ZoneId::NONE => from,
        _ => zone(flows.at(flow.partner())?.key().zone()),
    };
    Some(connect::route(tables, from, key.src(), to, destination(flow)))
}

/// The neighbour that a flow's packets are sent to, which it therefore knows: its segment and
/// address, and its MAC.
#[must_use]
pub fn neighbour_of(
    tables: &Snapshot,
    flows: &Table,
    flow: &Flow,
) -> Option<(SegmentId, [u8; 4], MacAddr)> {
    if !flow.path_known() || flow.flags() & ROUTED == 0 || flow.flags() & NEXT_HOP != 0 {
        return None;
    }
    let (segment, address) = match route(tables, flows, flow)? {
        Route::Segment(segment) => (segment, destination(flow)),
        Route::Router { segment, address } => (segment, address),
        Route::Public { .. } | Route::Host | Route::Unreachable(_) => return None,
    };
    (segment.get() == flow.segment()).then_some((segment, address, MacAddr(flow.destination_mac())))
}
