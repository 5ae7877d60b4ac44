//! What workers look up, told with names: from tables to reports.

mod groups;

use std::collections::BTreeMap;

use tables::{Nat, NextHop, PortId, Route, Routes, SegmentId, Snat, Unreachable, ZoneId};

use crate::compile::{VPN_PORT, is_ours};
use crate::model::{Model, Vpn};
use crate::neighbours::{Neighbours, State};
use crate::numbers::Numbers;
use crate::report::{self, RouteSource};

pub use groups::{groups, let_in, rule};

/// The names of numbers.
#[derive(Clone, Debug, Default)]
pub struct Names {
    zones: BTreeMap<u16, String>,
    segments: BTreeMap<u16, String>,
    ports: BTreeMap<u16, String>,
}

impl Names {
    /// Those that have a number now.
    #[must_use]
    pub fn new(zones: &Numbers, segments: &Numbers, ports: &Numbers) -> Self {
        let turned =
            |of: &Numbers| of.iter().map(|(name, number)| (number, name.to_owned())).collect();
        Self { zones: turned(zones), segments: turned(segments), ports: turned(ports) }
    }

    /// The name of a zone.
    #[must_use]
    pub fn zone(&self, id: ZoneId) -> String {
        name(&self.zones, id.get())
    }

    /// The name of a segment's network.
    #[must_use]
    pub fn segment(&self, id: SegmentId) -> String {
        name(&self.segments, id.get())
    }

    /// The name of a port.
    #[must_use]
    pub fn port(&self, id: PortId) -> String {
        name(&self.ports, id.get())
    }

    fn zone_of(&self, zone: &str) -> Option<ZoneId> {
        let (number, _) = self.zones.iter().find(|(_, name)| *name == zone)?;
        ZoneId::new(*number)
    }
}

/// A number whose name was given back a moment ago is shown itself.
fn name(names: &BTreeMap<u16, String>, number: u16) -> String {
    names.get(&number).cloned().unwrap_or_else(|| number.to_string())
}

fn dotted(address: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(address).to_string()
}

/// `GET /v1/routes`.
#[must_use]
pub fn routes(routes: &Routes, names: &Names) -> Vec<report::Route> {
    let told = routes.iter().map(|(zone, prefix, route)| {
        let (way, source) = way(route, names);
        let zone = (zone != ZoneId::NONE).then(|| names.zone(zone));
        report::Route { zone, prefix: prefix.to_string(), way, source }
    });
    told.collect()
}

fn way(route: Route, names: &Names) -> (String, RouteSource) {
    match route {
        Route::Segment(segment) => {
            (format!("network {}", names.segment(segment)), RouteSource::Connected)
        }
        Route::Router { segment, address } => {
            let way = format!("via {} in {}", dotted(address), names.segment(segment));
            (way, RouteSource::Config)
        }
        Route::Public { port, via: Some(address) } => {
            (format!("via {} on {}", dotted(address), names.port(port)), RouteSource::Kernel)
        }
        Route::Public { port, via: None } => {
            (format!("on {}", names.port(port)), RouteSource::Kernel)
        }
        Route::Host => ("this node".into(), RouteSource::Kernel),
        Route::Unreachable(Unreachable::Net) => ("unreachable net".into(), RouteSource::Config),
        Route::Unreachable(Unreachable::Host) => ("unreachable".into(), RouteSource::Config),
    }
}

/// `GET /v1/neighbours`: the segments' own, and what the node's stack knows on public NICs.
#[must_use]
pub fn neighbours<'h>(
    ours: &Neighbours,
    hops: impl IntoIterator<Item = &'h NextHop>,
    names: &Names,
) -> Vec<report::Neighbour> {
    let ours = ours.iter().map(|((segment, address), state)| {
        let (mac, state) = match state {
            State::Fixed(mac) => (Some(mac), "static"),
            State::Known(mac, ..) => (Some(mac), "known"),
            State::Asked(..) => (None, "asked"),
            State::Failed(_) => (None, "failed"),
        };
        (names.segment(segment), address, mac.copied(), state)
    });
    let hops = hops.into_iter().map(|hop| {
        let (mac, state) = match hop.neighbour {
            Some(tables::Neighbour::At(mac)) => (Some(mac), "kernel"),
            Some(tables::Neighbour::Failed) => (None, "failed"),
            None => (None, "asked"),
        };
        (names.port(hop.port), hop.address, mac, state)
    });
    let mut all: Vec<_> = ours.chain(hops).collect();
    // As numbers: 10.0.0.10 stands behind 10.0.0.9.
    all.sort();
    let told = all.into_iter().map(|(link, address, mac, state)| report::Neighbour {
        link,
        address: dotted(address),
        mac: mac.map(|mac| mac.to_string()),
        state: state.into(),
    });
    told.collect()
}

/// `GET /v1/nat`: what the configuration wants, and what of it is in force.
#[must_use]
pub fn nat(model: &Model, nat: &Nat, names: &Names) -> report::Nat {
    let mut ranges: Vec<report::NatRange> = Vec::new();
    for network in &model.networks {
        let zone = names.zone_of(&network.zone);
        let found = zone.zip(network.cidr);
        let found = found.and_then(|(zone, cidr)| nat.source_range(zone, cidr.network().octets()));
        let Some((prefix, snat)) = found else { continue };
        let when = match snat {
            Snat::Public => "public",
            Snat::Forced => "forced",
            Snat::Never => "never",
        };
        let zone = network.zone.clone();
        let range = report::NatRange { zone, prefix: prefix.to_string(), when: when.into() };
        // One range may be that of many networks.
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    let floats = model.floats.iter().map(|float| {
        let vif = float.vif.and_then(|vif| model.vifs.get(vif));
        let network = float.network.and_then(|network| model.networks.get(network));
        let is_ours = network.is_some_and(|network| is_ours(float, network));
        let state = match nat.float(float.address.octets()) {
            _ if !is_ours => "elsewhere",
            Some(_) => "active",
            None => "waiting",
        };
        report::FloatingIp {
            address: float.address.to_string(),
            fixed: float.fixed.to_string(),
            vif: vif.map(|vif| vif.name.clone()),
            interface: float.nic.clone(),
            state: state.into(),
        }
    });
    let texts = |prefixes: &[ipnet::Ipv4Net]| prefixes.iter().map(ToString::to_string).collect();
    report::Nat {
        source: nat.source.map(dotted),
        ports: format!("{}-{}", nat.ports.start(), nat.ports.end()),
        ranges,
        exempt: texts(&model.nat.exempt),
        metadata: model.nat.metadata.map(|server| server.to_string()),
        forced: texts(&model.nat.forced),
        floats: floats.collect(),
        vpns: model.vpns.iter().filter_map(|vpn| described(model, vpn)).collect(),
    }
}

fn described(model: &Model, vpn: &Vpn) -> Option<report::Vpn> {
    let network = model.networks.get(vpn.network)?;
    Some(report::Vpn {
        network: network.name.clone(),
        public_address: vpn.public_address,
        public_port: vpn.port,
        private_address: vpn.private_address,
        private_port: VPN_PORT,
        gateway: vpn.gateway,
        netmask: network.cidr?.netmask(),
        first_client: vpn.clients.first,
        last_client: vpn.clients.last,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ipnet::Ipv4Net;
    use tables::{Float, Neighbour};
    use wire::MacAddr;

    use super::*;
    use crate::flags::Flags;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn names() -> Names {
        let numbers = |names: &[&str]| {
            let mut numbers = Numbers::new(9);
            for name in names {
                numbers.take(name);
            }
            numbers
        };
        let ports = numbers(&["eth0", "eth1", "vnet1"]);
        Names::new(&numbers(&["default"]), &numbers(&["tenant1", "tenant2"]), &ports)
    }

    fn zone() -> ZoneId {
        ZoneId::new(1).unwrap()
    }

    fn segment(number: u16) -> SegmentId {
        SegmentId::new(number).unwrap()
    }

    fn port(number: u16) -> PortId {
        PortId::new(number).unwrap()
    }

    #[test]
    fn every_way_is_told_in_words_with_who_says_so() {
        let mut table = Routes::default();
        let via = |via| Route::Public { port: port(2), via };
        let ways = [
            (zone(), "10.0.0.0/24", Route::Segment(segment(1))),
            (zone(), "10.0.0.1/32", Route::Host),
            (zone(), "10.1.0.0/24", Route::Unreachable(Unreachable::Host)),
            (
                zone(),
                "192.168.0.0/16",
                Route::Router { segment: segment(2), address: [10, 1, 0, 9] },
            ),
            (ZoneId::NONE, "0.0.0.0/0", via(Some([91, 207, 15, 1]))),
            (ZoneId::NONE, "91.207.15.0/24", via(None)),
        ];
        for (zone, prefix, route) in ways {
            table.insert(zone, prefix.parse().unwrap(), route);
        }
        let told: Vec<String> = routes(&table, &names())
            .into_iter()
            .map(|route| {
                let zone = route.zone.unwrap_or_default();
                format!("{zone} {} {} {:?}", route.prefix, route.way, route.source)
            })
            .collect();
        assert_eq!(
            told,
            [
                "default 10.0.0.0/24 network tenant1 Connected",
                "default 10.0.0.1/32 this node Kernel",
                "default 10.1.0.0/24 unreachable Config",
                "default 192.168.0.0/16 via 10.1.0.9 in tenant2 Config",
                " 0.0.0.0/0 via 91.207.15.1 on eth1 Kernel",
                " 91.207.15.0/24 on eth1 Kernel",
            ]
        );
    }

    #[test]
    fn neighbours_stand_in_the_order_of_their_addresses() {
        let mut ours = Neighbours::default();
        ours.tell(&HashMap::from([((segment(1), [10, 0, 0, 10]), MAC)]));
        ours.want((segment(1), [10, 0, 0, 9]), 1);
        let hop = NextHop {
            port: port(2),
            address: [91, 207, 15, 1],
            neighbour: Some(Neighbour::At(MAC)),
        };
        let told: Vec<String> = neighbours(&ours, [&hop], &names())
            .into_iter()
            .map(|told| {
                let mac = told.mac.unwrap_or_default();
                format!("{} {} {mac} {}", told.link, told.address, told.state)
            })
            .collect();
        assert_eq!(
            told,
            [
                "eth1 91.207.15.1 02:00:00:00:00:01 kernel",
                "tenant1 10.0.0.9  asked",
                "tenant1 10.0.0.10 02:00:00:00:00:01 static",
            ]
        );
    }

    #[test]
    fn a_float_is_active_waits_for_its_vif_or_is_elsewhere() {
        let text = "vlan_interface = \"eth0\"\npublic_interface = \"eth1\"\n\
            routing_source_ip = \"91.207.15.105\"\nfixed_range = \"10.0.0.0/8\"\n\
            dmz_cidr = [\"10.128.0.0/24\"]\n\
            [[network]]\nname = \"tenant1\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\n\
            gateway = \"10.0.0.1\"\n\
            [[network]]\nname = \"tenant2\"\nvlan = 102\ncidr = \"10.1.0.0/24\"\n\
            gateway = \"10.1.0.1\"\n\
            [[vif]]\nname = \"vnet1\"\nnetwork = \"tenant1\"\nmac = \"fa:16:3e:00:00:01\"\n\
            addresses = [\"10.0.0.3\", \"10.0.0.4\"]\n\
            [[floating_ip]]\naddress = \"91.208.23.11\"\nfixed = \"10.0.0.3\"\n\
            [[floating_ip]]\naddress = \"91.208.23.12\"\nfixed = \"10.0.0.4\"\n\
            [[floating_ip]]\naddress = \"91.208.23.16\"\nfixed = \"10.1.0.4\"\n";
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        let mut table = Nat::default();
        table.source = Some([91, 207, 15, 105]);
        let range: Ipv4Net = "10.0.0.0/8".parse().unwrap();
        table.insert_source(zone(), range, Snat::Public);
        table.insert_float(Float {
            address: [91, 208, 23, 11],
            fixed: [10, 0, 0, 3],
            segment: segment(1),
            zone: zone(),
            vif: port(3),
            port: port(2),
            way: None,
        });
        let told = nat(&model, &table, &names());
        let states: Vec<_> =
            told.floats.iter().map(|it| (it.vif.as_deref(), it.state.as_str())).collect();
        assert_eq!(
            states,
            [(Some("vnet1"), "active"), (Some("vnet1"), "waiting"), (None, "elsewhere")]
        );
        assert_eq!(told.source.as_deref(), Some("91.207.15.105"));
        assert_eq!((told.ports.as_str(), told.exempt.len()), ("20000-45999", 1));
        let range = report::NatRange {
            zone: "default".into(),
            prefix: "10.0.0.0/8".into(),
            when: "public".into(),
        };
        assert_eq!(told.ranges, [range]);
    }
}
