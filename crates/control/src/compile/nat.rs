//! Address translation, and the public addresses that are ours.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tables::{Float, Nat, PortId, Route, Snat};

use super::Numbered;
use crate::model::{FloatingIp, Model, Network};

/// Whose a packet is that comes by the public side to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owned {
    /// The host's, unless it belongs to a connection.
    Snat,
    /// Ours: a floating address.
    Float,
    /// Ours: a network with public addresses.
    Network,
}

/// The tables of address translation. `port` names the port of an interface that is plugged.
#[must_use]
pub fn nat(model: &Model, networks: &[Numbered<'_>], port: impl Fn(&str) -> Option<PortId>) -> Nat {
    let mut nat = Nat::default();
    nat.source = model.routing_source_ip.map(|address| address.octets());
    nat.ports = model.nat.ports.first..=model.nat.ports.last;
    for here in networks {
        if let Some(range) = model.nat.fixed_range {
            nat.insert_source(here.zone, range, Snat::Public);
        }
    }
    for here in networks {
        let network = here.network;
        let snat = match (network.public, network.external_gateway) {
            (true, _) => Snat::Never,
            (false, Some(_)) => Snat::Forced,
            (false, None) if model.nat.fixed_range.is_some() => continue,
            (false, None) => Snat::Public,
        };
        if let Some(cidr) = network.cidr {
            nat.insert_source(here.zone, cidr, snat);
        }
    }
    model.nat.exempt.iter().for_each(|prefix| nat.insert_exempt(*prefix));
    model.nat.forced.iter().for_each(|prefix| nat.insert_forced(*prefix));
    for float in &model.floats {
        let Some(here) = float.network.and_then(|network| networks.get(network)) else { continue };
        let vif = match float.vif.and_then(|vif| model.vifs.get(vif)) {
            Some(vif) => port(&vif.name),
            // The gateway of a single-host network serves VMs of other nodes too.
            None => (here.uplink != PortId::NONE).then_some(here.uplink),
        };
        let (true, Some(vif), Some(public)) = (is_ours(float, here.network), vif, port(&float.nic))
        else {
            continue;
        };
        nat.insert_float(Float {
            address: float.address.octets(),
            fixed: float.fixed.octets(),
            segment: here.segment,
            zone: here.zone,
            vif,
            port: public,
            way: float.next_hop.map(|via| Route::Public { port: public, via: Some(via.octets()) }),
        });
    }
    nat
}

/// Whether this node answers for a floating address: the one its VM is on, but in a single-host
/// network the gateway (nova's `floating_ips.host`).
#[must_use]
pub fn is_ours(float: &FloatingIp, network: &Network) -> bool {
    match &network.host {
        Some(_) => network.gateway.is_some(),
        None => float.vif.is_some(),
    }
}

/// The public addresses that are ours with these tables, in order.
#[must_use]
pub fn owned(model: &Model, nat: &Nat) -> Vec<(Ipv4Net, Owned)> {
    let routes = |network: &&Network| network.gateway.is_some();
    // Behind an external gateway too: to a forced destination, or across zones.
    let uses = |network: &Network| network.gateway.is_some() || network.external_gateway.is_some();
    let shared = model.routing_source_ip.filter(|_| model.networks.iter().any(uses));
    let floats =
        nat.floats().map(|float| (Ipv4Net::from(Ipv4Addr::from(float.address)), Owned::Float));
    let networks = model.networks.iter().filter(routes).filter(|network| network.public);
    let networks = networks.filter_map(|network| Some((network.cidr?, Owned::Network)));
    let mut owned: Vec<_> = floats.chain(networks).collect();
    owned.extend(shared.map(|address| (Ipv4Net::from(address), Owned::Snat)));
    owned.sort_unstable();
    owned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use tables::{SegmentId, ZoneId};

    const ONE: &str = "vlan_interface = \"eth0\"\npublic_interface = \"eth1\"\n\
        routing_source_ip = \"91.207.15.105\"\n\
        [[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n\
        [[vif]]\nname = \"v1\"\nnetwork = \"a\"\nmac = \"fa:16:3e:00:00:01\"\naddresses = [\"10.0.0.3\"]\n\
        [[floating_ip]]\naddress = \"91.208.23.11\"\nfixed = \"10.0.0.3\"\n\
        [[floating_ip]]\naddress = \"91.208.23.16\"\nfixed = \"10.1.0.4\"\n";

    fn tables(text: &str) -> (Model, Nat) {
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        let networks: Vec<_> = model
            .networks
            .iter()
            .map(|network| Numbered {
                network,
                segment: SegmentId::new(1).unwrap(),
                zone: ZoneId::new(1).unwrap(),
                uplink: PortId::new(1).unwrap(),
                host: PortId::NONE,
                live: true,
            })
            .collect();
        let port = |name: &str| PortId::new(if name == "v1" { 3 } else { 2 });
        let nat = nat(&model, &networks, port);
        drop(networks);
        (model, nat)
    }

    #[test]
    fn a_float_of_a_vm_elsewhere_is_not_answered_for_here() {
        let (model, nat) = tables(ONE);
        assert_eq!(nat.floats().count(), 1);
        let owned: Vec<String> =
            owned(&model, &nat).iter().map(|(net, kind)| format!("{net} {kind:?}")).collect();
        assert_eq!(owned, ["91.207.15.105/32 Snat", "91.208.23.11/32 Float"]);
    }

    #[test]
    fn networks_are_translated_each_or_as_one_range_or_not_at_all() {
        let zone = ZoneId::new(1).unwrap();
        let of = |text: &str| tables(text).1.source_range(zone, [10, 0, 0, 3]).map(|(_, s)| s);
        assert_eq!(of(ONE), Some(Snat::Public));
        assert_eq!(of(&ONE.replace("vlan = 100", "vlan = 100\npublic = true")), Some(Snat::Never));
        let router = ONE.replace("gateway = \"10.0.0.1\"", "external_gateway = \"10.0.0.9\"");
        assert_eq!(of(&router), Some(Snat::Forced));
        let all = tables(&format!("fixed_range = \"10.0.0.0/8\"\n{ONE}")).1;
        assert_eq!(all.source_range(zone, [10, 9, 9, 9]).map(|(_, snat)| snat), Some(Snat::Public));
    }

    #[test]
    fn in_a_single_host_network_the_gateway_answers_for_all_floats() {
        let host = |name: &str| {
            let text = ONE.replace("fixed = \"10.1.0.4\"", "fixed = \"10.0.0.9\"");
            let with_host = format!("gateway = \"10.0.0.1\"\nhost = \"{name}\"");
            format!("node = \"left\"\n{}", text.replace("gateway = \"10.0.0.1\"", &with_host))
        };
        let (model, nat) = tables(&host("left"));
        let vif = |address| nat.float(address).map(|float| float.vif.get());
        assert_eq!((vif([91, 208, 23, 11]), vif([91, 208, 23, 16])), (Some(3), Some(1)));
        assert_eq!(owned(&model, &nat).len(), 3);
        let (model, nat) = tables(&host("right"));
        assert_eq!((nat.floats().count(), owned(&model, &nat).len()), (0, 0));
    }

    #[test]
    fn a_forced_network_uses_the_shared_address_too() {
        let router = ONE.replace("gateway = \"10.0.0.1\"", "external_gateway = \"10.0.0.9\"");
        let (model, nat) = tables(&router);
        let kinds: Vec<Owned> = owned(&model, &nat).iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, [Owned::Snat, Owned::Float]);
    }

    #[test]
    fn a_pool_names_the_way_out() {
        let text = ONE.replace("fixed = \"10.0.0.3\"", "fixed = \"10.0.0.3\"\npool = \"p\"")
            + "[[pool]]\nname = \"p\"\nnext_hop = \"91.207.15.2\"\n";
        let nat = tables(&text).1;
        let way = nat.float([91, 208, 23, 11]).unwrap().way;
        assert_eq!(
            way,
            Some(Route::Public { port: PortId::new(2).unwrap(), via: Some([91, 207, 15, 2]) })
        );
    }
}
