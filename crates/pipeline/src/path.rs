//! The way of one direction, decided by that direction's own first packet.

use conntrack::Rewrite;
use conntrack::layout::{BRIDGED, NEXT_HOP, PATH_KNOWN, REWRITES};
use tables::{Link, Neighbour, PortId, Route, SegmentId, Snapshot, Unreachable};
use wire::{MacAddr, Translation};

use crate::Packet;

/// Whom the frames of a flow are addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// A station.
    Station(MacAddr),
    /// The next hop of this number, which may change its address.
    Hop(u32),
}

/// A way out of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// The port to leave by.
    pub(crate) egress: PortId,
    /// The segment to leave into; none for the public side.
    pub(crate) segment: SegmentId,
    /// The tag to leave with; 0 for none.
    pub(crate) vlan: u16,
    /// The station to address.
    pub(crate) to: To,
}

/// Why a routed packet has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The destination cannot be reached.
    Unreachable(Unreachable),
    /// Its neighbour is not known yet: the packet waits until it is.
    Unknown(Link, [u8; 4]),
}

/// What a known line does to addresses and ports.
pub(crate) fn translation(rewrite: &Rewrite) -> Translation {
    Translation {
        source: rewrite.source,
        destination: rewrite.destination,
        source_port: rewrite.source_port,
        destination_port: rewrite.destination_port,
    }
}

impl Path {
    /// What is to be done to the packets of a flow on this way.
    pub(crate) fn rewrite(&self, packet: &Packet<'_>, nat: &Translation, routed: u8) -> Rewrite {
        let rewrites = if *nat == Translation::default() { 0 } else { REWRITES };
        let bridged = if packet.routed { 0 } else { BRIDGED };
        let (destination_mac, next_hop) = match self.to {
            To::Station(mac) => (mac.0, 0),
            To::Hop(number) => {
                let [a, b, c, d] = number.to_le_bytes();
                ([a, b, c, d, 0, 0], NEXT_HOP)
            }
        };
        Rewrite {
            source: nat.source,
            destination: nat.destination,
            source_mac: packet.headers.src.0,
            source_port: nat.source_port,
            destination_port: nat.destination_port,
            egress: self.egress.get(),
            segment: self.segment.get(),
            vlan: self.vlan,
            destination_mac,
            flags: PATH_KNOWN | rewrites | next_hop | bridged | routed,
        }
    }
}

/// The number of the next hop in a rewrite that has one.
pub(crate) fn hop_of(rewrite: &Rewrite) -> Option<u32> {
    let [a, b, c, d, _, _] = rewrite.destination_mac;
    (rewrite.flags & NEXT_HOP != 0).then(|| u32::from_le_bytes([a, b, c, d]))
}

/// The path along a route to `destination`, of a packet that came from `segment`.
pub(crate) fn along(
    tables: &Snapshot,
    route: Route,
    destination: [u8; 4],
    segment: SegmentId,
) -> Result<Path, Lost> {
    match route {
        Route::Segment(segment) => station(tables, segment, destination),
        Route::Router { segment, address } => station(tables, segment, address),
        Route::Public { port, via } => {
            let address = via.unwrap_or(destination);
            let unknown = Lost::Unknown(Link::Public(port), address);
            let number = tables.neighbours.number(port, address).ok_or(unknown)?;
            match tables.neighbours.hop(number).and_then(|hop| hop.neighbour) {
                Some(Neighbour::At(_)) => {}
                Some(Neighbour::Failed) => return Err(Lost::Unreachable(Unreachable::Host)),
                None => return Err(unknown),
            }
            Ok(Path { egress: port, segment: SegmentId::NONE, vlan: 0, to: To::Hop(number) })
        }
        Route::Host => host(tables, segment),
        Route::Unreachable(why) => Err(Lost::Unreachable(why)),
    }
}

/// The path to a station of a segment.
fn station(tables: &Snapshot, segment: SegmentId, address: [u8; 4]) -> Result<Path, Lost> {
    let unknown = Lost::Unknown(Link::Segment(segment), address);
    let mac = match tables.neighbours.find(segment, address) {
        Some(Neighbour::At(mac)) => mac,
        Some(Neighbour::Failed) => return Err(Lost::Unreachable(Unreachable::Host)),
        None => return Err(unknown),
    };
    // Its answer to our question told where it is; if that was forgotten, it is asked again.
    to_station(tables, segment, mac).ok_or(unknown)
}

/// The path to whoever has this MAC address in a segment, if it is known where that is.
pub(crate) fn to_station(tables: &Snapshot, segment: SegmentId, mac: MacAddr) -> Option<Path> {
    let egress = tables.fdb.find(segment, mac)?.port;
    let uplink = tables.topology.segment(segment).and_then(|segment| segment.uplink);
    let vlan = uplink.filter(|uplink| uplink.port == egress).and_then(|uplink| uplink.vlan);
    Some(Path { egress, segment, vlan: vlan.unwrap_or(0), to: To::Station(mac) })
}

/// The path to the node itself: by its foot in the segment the packet came from.
fn host(tables: &Snapshot, segment: SegmentId) -> Result<Path, Lost> {
    let nobody = Lost::Unreachable(Unreachable::Host);
    let here = tables.topology.segment(segment).ok_or(nobody)?;
    // Where the node has no address the host's answers would not find back.
    let foot = here.gateway.map_or(PortId::NONE, |_| here.host);
    let port = tables.topology.port(foot).ok_or(nobody)?;
    Ok(Path { egress: port.id, segment, vlan: 0, to: To::Station(port.mac) })
}
