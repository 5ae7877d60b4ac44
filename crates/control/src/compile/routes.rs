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

/// Addresses that mean something on one link alone.
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// The way to what is known and not to be reached from here.
const LOST: Route = Route::Unreachable(Unreachable::Host);

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
        // Nobody forwards to another link's addresses (RFC 3927 §2.7): a VM that asks for metadata
        // where there is none must not get it from somebody outside.
        routes.insert(*zone, LINK_LOCAL, LOST);
        // In another zone nobody answers for them, and they must not be looked for outside.
        let way = if *is_hosts { Route::Host } else { LOST };
        // There a VM may well have an address that is the node's own to the host's zone.
        let is_tenants = |address: &Ipv4Addr| {
            let mut own = networks.iter().filter(|here| here.zone == *zone);
            own.any(|here| here.network.cidr.is_some_and(|cidr| cidr.contains(address)))
        };
        for address in local.iter().filter(|address| *is_hosts || !is_tenants(address)) {
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
            let way = if here.network.zone == HOST_ZONE { Route::Host } else { LOST };
            routes.insert(here.zone, Ipv4Net::from(gateway), way);
            if here.network.public {
                routes.insert(ZoneId::NONE, Ipv4Net::from(gateway), Route::Host);
            }
        }
    }
    for route in &model.routes {
        let Some(here) = networks.get(route.network) else { continue };
        // Only who has an address in the network can ask for the router.
        let by = match way_to(model, here) {
            Some(Route::Segment(segment)) => Route::Router { segment, address: route.via.octets() },
            _ => LOST,
        };
        routes.insert(here.zone, route.to, by);
    }
    routes
}

/// The way to a network. One that is known and cannot be reached never leaves by the public side:
/// nova leaked tenants' addresses to the provider there. None leaves it to the node's own routes:
/// a router is the gateway, or the provider knows the way to public addresses.
fn way_to(model: &Model, here: &Numbered<'_>) -> Option<Route> {
    let network = here.network;
    let reached = model.provision == Provision::Eager || here.live;
    match network.gateway {
        Some(_) if reached => Some(Route::Segment(here.segment)),
        None if network.external_gateway.is_some() || network.public => None,
        _ => Some(LOST),
    }
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
                before: None,
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
        assert_eq!(way(&model, 1, [10, 1, 0, 4]), Some(LOST));
    }

    #[test]
    fn a_gateway_on_another_node_makes_no_route_here_and_a_router_none_at_all() {
        let single = TWO.replace("gateway = \"10.1.0.1\"", "gateway = \"10.1.0.1\"\nhost = \"x\"");
        assert_eq!(way(&model(&single), 1, [10, 1, 0, 4]), Some(LOST));
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
        assert_eq!(way(&model, 2, [91, 207, 15, 105]), Some(LOST));
        assert_eq!(way(&model, 2, [10, 0, 0, 1]), Some(LOST));
        assert!(is_up(way(&model, 2, [8, 8, 8, 8])));
    }

    #[test]
    fn an_address_of_the_node_is_a_tenants_in_another_zone_with_that_prefix() {
        let text = TWO
            .replace("10.1.0.0/24", "91.207.15.0/24")
            .replace("gateway = \"10.1.0.1\"", "gateway = \"91.207.15.1\"\nzone = \"other\"");
        let model = model(&text);
        assert_eq!(way(&model, 1, [91, 207, 15, 105]), Some(Route::Host));
        assert_eq!(way(&model, 2, [91, 207, 15, 105]), segment(2));
        assert_eq!(way(&model, 2, [91, 207, 15, 1]), Some(LOST));
    }

    #[test]
    fn a_public_network_is_reached_from_outside_and_its_gateway_is_the_hosts() {
        let text = TWO.replace("vlan = 102", "vlan = 102\npublic = true");
        let from_outside = |model: &Model, to| {
            let routes = routes(model, &numbered(model), &[], &[]);
            routes.find(ZoneId::NONE, to).map(|(_, route)| route)
        };
        assert_eq!(from_outside(&model(&text), [10, 1, 0, 4]), segment(2));
        assert_eq!(from_outside(&model(&text), [10, 1, 0, 1]), Some(Route::Host));
        assert_eq!(from_outside(&model(&text), [10, 0, 0, 3]), None);
        let bridged = text.replace("gateway = \"10.1.0.1\"", "");
        assert_eq!(from_outside(&model(&bridged), [10, 1, 0, 4]), None);
        assert!(is_up(way(&model(&bridged), 1, [10, 1, 0, 4])));
    }

    #[test]
    fn vifs_and_told_neighbours_need_not_be_asked_for() {
        let text = format!(
            "{TWO}[[vif]]\nname = \"v1\"\nnetwork = \"a\"\nmac = \"fa:16:3e:00:00:01\"\n\
             addresses = [\"10.0.0.3\", \"10.0.0.4\"]\n\
             [[neighbour]]\nnetwork = \"b\"\naddress = \"10.1.0.4\"\nmac = \"fa:16:3e:00:00:06\"\n"
        );
        let model = model(&text);
        let mut told: Vec<_> = told_neighbours(&model, &numbered(&model)).into_iter().collect();
        told.sort();
        let told: Vec<String> = told
            .into_iter()
            .map(|((segment, address), mac)| {
                format!("{} {} {mac}", segment.get(), Ipv4Addr::from(address))
            })
            .collect();
        assert_eq!(
            told,
            [
                "1 10.0.0.3 fa:16:3e:00:00:01",
                "1 10.0.0.4 fa:16:3e:00:00:01",
                "2 10.1.0.4 fa:16:3e:00:00:06",
            ]
        );
    }

    #[test]
    fn a_told_route_leads_by_its_router_if_this_node_can_ask_for_it() {
        let text = format!("{TWO}[[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.1.0.9\"\n");
        let by = Route::Router { segment: SegmentId::new(2).unwrap(), address: [10, 1, 0, 9] };
        assert_eq!(way(&model(&text), 1, [192, 168, 3, 4]), Some(by));
        let elsewhere =
            text.replace("gateway = \"10.1.0.1\"", "gateway = \"10.1.0.1\"\nhost = \"x\"");
        assert_eq!(way(&model(&elsewhere), 1, [192, 168, 3, 4]), Some(LOST));
        let on_demand = format!("provision = \"on-demand\"\n{text}");
        assert_eq!(way(&model(&on_demand), 1, [192, 168, 3, 4]), Some(LOST));
    }
}
