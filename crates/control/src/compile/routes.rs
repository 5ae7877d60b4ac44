//! Ways: to every known network, to the node itself, and out.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tables::{PortId, Route, Routes, SegmentId, Unreachable, ZoneId};
use wire::MacAddr;

use super::{HOST_ZONE, Numbered};
use crate::flags::Provision;
use crate::model::Model;

/// A route of the node's kernel that leads out by a public NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicRoute {
    /// Where to.
    pub prefix: Ipv4Net,
    /// The NIC.
    pub port: PortId,
    /// The router; none where the prefix is on the NIC's link.
    pub via: Option<Ipv4Addr>,
}

/// The routes of every zone. `networks` are the model's, in its order; `local` are the node's own
/// addresses.
#[must_use]
pub fn routes(
    model: &Model,
    networks: &[Numbered<'_>],
    public: &[PublicRoute],
    local: &[Ipv4Addr],
) -> Routes {
    let mut routes = Routes::default();
    let zones: BTreeSet<(ZoneId, bool)> =
        networks.iter().map(|here| (here.zone, here.network.zone == HOST_ZONE)).collect();
    for route in public {
        let via = route.via.map(|via| via.octets());
        routes.insert(ZoneId::NONE, route.prefix, Route::Public { port: route.port, via });
    }
    for (zone, is_hosts) in &zones {
        // In another zone nobody answers for them, and they must not be looked for outside.
        let way = if *is_hosts { Route::Host } else { Route::Unreachable(Unreachable::Host) };
        for address in local {
            routes.insert(*zone, Ipv4Net::from(*address), way);
        }
    }
    for here in networks {
        let (Some(cidr), Some(route)) = (here.network.cidr, way_to(model, here)) else { continue };
        routes.insert(here.zone, cidr, route);
        if here.network.public && matches!(route, Route::Segment(_)) {
            routes.insert(ZoneId::NONE, cidr, route);
        }
        if let Some(gateway) = here.network.gateway {
            let is_hosts = here.network.zone == HOST_ZONE;
            let way = if is_hosts { Route::Host } else { Route::Unreachable(Unreachable::Host) };
            routes.insert(here.zone, Ipv4Net::from(gateway), way);
        }
    }
    for route in &model.routes {
        let Some(here) = networks.get(route.network) else { continue };
        let by = Route::Router { segment: here.segment, address: route.via.octets() };
        routes.insert(here.zone, route.to, by);
    }
    routes
}

/// The way to a network. One that is known and cannot be reached never leaves by the public side:
/// nova leaked tenants' addresses to the provider there.
fn way_to(model: &Model, here: &Numbered<'_>) -> Option<Route> {
    if here.network.external_gateway.is_some() {
        return None;
    }
    let reached = model.provision == Provision::Eager || here.live;
    Some(match here.network.gateway {
        Some(_) if reached => Route::Segment(here.segment),
        _ => Route::Unreachable(Unreachable::Host),
    })
}

/// Neighbours that configuration tells: this node's vifs and `[[neighbour]]`.
#[must_use]
pub fn told_neighbours(
    model: &Model,
    networks: &[Numbered<'_>],
) -> HashMap<(SegmentId, [u8; 4]), MacAddr> {
    let segment = |network: usize| networks.get(network).map(|here| here.segment);
    let vifs = model.vifs.iter().flat_map(|vif| {
        let place = move |address: &Ipv4Addr| Some((segment(vif.network)?, address.octets()));
        vif.addresses.iter().filter_map(move |address| Some((place(address)?, vif.mac)))
    });
    let others = model
        .neighbours
        .iter()
        .filter_map(|told| Some(((segment(told.network)?, told.address.octets()), told.mac)));
    vifs.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    const TWO: &str = "vlan_interface = \"eth0\"\npublic_interface = \"eth1\"\n\
        [[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n\
        [[network]]\nname = \"b\"\nvlan = 102\ncidr = \"10.1.0.0/24\"\ngateway = \"10.1.0.1\"\n";

    fn model(text: &str) -> Model {
        Model::from_text(&Flags::default(), "test.toml", text).unwrap()
    }

    /// Network N is segment N + 1; only the first has a VM here.
    fn numbered(model: &Model) -> Vec<Numbered<'_>> {
        let zones = ["default", "other"];
        let number = |network: &crate::model::Network| {
            1 + zones.iter().position(|zone| *zone == network.zone).unwrap() as u16
        };
        let numbers = model.networks.iter().zip(1..);
        numbers
            .map(|(network, at)| Numbered {
                network,
                segment: SegmentId::new(at).unwrap(),
                zone: ZoneId::new(number(network)).unwrap(),
                uplink: PortId::new(1).unwrap(),
                host: PortId::NONE,
                live: at == 1,
            })
            .collect()
    }

    fn way(model: &Model, zone: u16, to: [u8; 4]) -> Option<Route> {
        let public = [PublicRoute {
            prefix: "0.0.0.0/0".parse().unwrap(),
            port: PortId::new(2).unwrap(),
            via: Some(Ipv4Addr::new(91, 207, 15, 1)),
        }];
        let local = [Ipv4Addr::new(91, 207, 15, 105)];
        let routes = routes(model, &numbered(model), &public, &local);
        routes.find(ZoneId::new(zone).unwrap(), to).map(|(_, route)| route)
    }

    fn is_up(route: Option<Route>) -> bool {
        matches!(route, Some(Route::Public { via: Some([91, 207, 15, 1]), .. }))
    }

    fn segment(number: u16) -> Option<Route> {
        Some(Route::Segment(SegmentId::new(number).unwrap()))
    }

    const LOST: Option<Route> = Some(Route::Unreachable(Unreachable::Host));

    #[test]
    fn every_known_network_is_routed_to_and_the_rest_goes_out() {
        let model = model(TWO);
        assert_eq!(way(&model, 1, [10, 0, 0, 3]), segment(1));
        assert_eq!(way(&model, 1, [10, 1, 0, 3]), segment(2));
        assert_eq!(way(&model, 1, [10, 1, 0, 1]), Some(Route::Host));
        assert_eq!(way(&model, 1, [91, 207, 15, 105]), Some(Route::Host));
        assert!(is_up(way(&model, 1, [8, 8, 8, 8])));
    }

    #[test]
    fn on_demand_a_network_without_a_vm_here_is_unreachable_and_does_not_leak() {
        let model = model(&format!("provision = \"on-demand\"\n{TWO}"));
        assert_eq!(way(&model, 1, [10, 0, 0, 3]), segment(1));
        assert_eq!(way(&model, 1, [10, 1, 0, 4]), LOST);
    }

    #[test]
    fn a_gateway_on_another_node_makes_no_route_here_and_a_router_none_at_all() {
        let single = TWO.replace("gateway = \"10.1.0.1\"", "gateway = \"10.1.0.1\"\nhost = \"x\"");
        assert_eq!(way(&model(&single), 1, [10, 1, 0, 4]), LOST);
        let router = TWO.replace("gateway = \"10.1.0.1\"", "external_gateway = \"10.1.0.254\"");
        assert!(is_up(way(&model(&router), 1, [10, 1, 0, 4])));
    }

    #[test]
    fn zones_with_one_prefix_live_side_by_side_and_reach_no_host() {
        let text = TWO
            .replace("10.1.0.0/24", "10.0.0.0/24")
            .replace("gateway = \"10.1.0.1\"", "gateway = \"10.0.0.1\"\nzone = \"other\"");
        let model = model(&text);
        assert_eq!(way(&model, 1, [10, 0, 0, 3]), segment(1));
        assert_eq!(way(&model, 2, [10, 0, 0, 3]), segment(2));
        assert_eq!(way(&model, 2, [91, 207, 15, 105]), LOST);
        assert_eq!(way(&model, 2, [10, 0, 0, 1]), LOST);
        assert!(is_up(way(&model, 2, [8, 8, 8, 8])));
    }

    #[test]
    fn a_told_route_leads_by_its_router() {
        let text = format!("{TWO}[[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.1.0.9\"\n");
        let by = Route::Router { segment: SegmentId::new(2).unwrap(), address: [10, 1, 0, 9] };
        assert_eq!(way(&model(&text), 1, [192, 168, 3, 4]), Some(by));
    }
}
