//! Which way a destination is: longest prefix first.

use std::net::Ipv4Addr;

use hashbrown::HashMap;
use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;

use crate::{PortId, SegmentId, ZoneId};

/// The way to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// In this segment, on its link.
    Segment(SegmentId),
    /// By a router in this segment.
    Router {
        /// The segment it is in.
        segment: SegmentId,
        /// Its address.
        address: [u8; 4],
    },
    /// Out to the provider.
    Public {
        /// The NIC.
        port: PortId,
        /// The router there; none where the destination is on the NIC's own link.
        via: Option<[u8; 4]>,
    },
    /// An address of the node itself.
    Host,
    /// Known, and not to be reached from here.
    Unreachable(Unreachable),
}

/// Why a destination cannot be reached, as the sender is told (RFC 792, type 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody knows the way: code 0.
    Net,
    /// The way is known, and it ends: code 1.
    Host,
}

/// All routes of the node: those of each zone, and behind them the node's own public ones.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    zones: HashMap<ZoneId, PrefixMap<Ipv4Net, Route>>,
    public: PrefixMap<Ipv4Net, Route>,
}

impl Routes {
    /// Adds or replaces a route of a zone; of [`ZoneId::NONE`] those that all zones share.
    pub fn insert(&mut self, zone: ZoneId, prefix: Ipv4Net, route: Route) {
        let routes = match zone {
            ZoneId::NONE => &mut self.public,
            zone => self.zones.entry(zone).or_default(),
        };
        routes.insert(prefix, route);
    }

    /// The way to `destination` from a zone, with the prefix that says so: the zone's own routes
    /// before the node's, whatever their length, so that no route of the provider reaches into a
    /// tenant's network.
    #[must_use]
    pub fn find(&self, zone: ZoneId, destination: [u8; 4]) -> Option<(Ipv4Net, Route)> {
        let host = Ipv4Net::from(Ipv4Addr::from(destination));
        let own = self.zones.get(&zone).and_then(|routes| routes.get_lpm(&host));
        own.or_else(|| self.public.get_lpm(&host)).map(|(prefix, route)| (prefix, *route))
    }

    /// The zones' own routes, sorted by zone and prefix.
    pub fn zones(&self) -> impl Iterator<Item = (ZoneId, Ipv4Net, Route)> {
        let mut zones: Vec<_> = self.zones.iter().collect();
        zones.sort_by_key(|(zone, _)| **zone);
        zones
            .into_iter()
            .flat_map(|(zone, routes)| routes.iter().map(|(prefix, route)| (*zone, prefix, *route)))
    }

    /// Every route with its zone; the node's own last, under [`ZoneId::NONE`].
    pub fn iter(&self) -> impl Iterator<Item = (ZoneId, Ipv4Net, Route)> {
        let public = self.public.iter().map(|(prefix, route)| (ZoneId::NONE, prefix, *route));
        self.zones().chain(public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_zones_own_routes_come_before_the_nodes_however_long_those_are() {
        let (one, two) = (ZoneId::new(1).unwrap(), ZoneId::new(2).unwrap());
        let segment = SegmentId::new(7).unwrap();
        let public = |via| Route::Public { port: PortId::new(3).unwrap(), via };
        let mut routes = Routes::default();
        routes.insert(one, net("10.0.0.0/8"), Route::Unreachable(Unreachable::Host));
        routes.insert(one, net("10.0.0.0/24"), Route::Segment(segment));
        routes.insert(ZoneId::NONE, net("0.0.0.0/0"), public(Some([91, 207, 15, 1])));
        routes.insert(ZoneId::NONE, net("10.0.0.3/32"), Route::Host);
        let way = |zone, to| routes.find(zone, to).map(|(_, route)| route);
        assert_eq!(way(one, [10, 0, 0, 3]), Some(Route::Segment(segment)));
        assert_eq!(way(one, [10, 9, 0, 3]), Some(Route::Unreachable(Unreachable::Host)));
        assert_eq!(way(two, [10, 0, 0, 3]), Some(Route::Host));
        assert_eq!(way(one, [8, 8, 8, 8]), Some(public(Some([91, 207, 15, 1]))));
        assert_eq!(Routes::default().find(one, [8, 8, 8, 8]), None);
    }
}
