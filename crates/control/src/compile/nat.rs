//! Address translation, and the public addresses that are ours.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tables::{Float, Forward, MetadataServer, Nat, PortId, Route, Snat};

use super::Numbered;
use crate::model::{FloatingIp, Model, Network};

/// The UDP port that OpenVPN has of IANA, on which a VPN instance listens.
pub const VPN_PORT: u16 = 1194;

/// Whose a packet is that comes by the public side to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owned {
    /// The host's, unless it belongs to a connection: the shared source address, and those of
    /// networks that some destinations see.
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
    nat.pickup = model.nat.pickup;
    nat.metadata = model
        .nat
        .metadata
        .map(|server| MetadataServer { address: server.ip().octets(), port: server.port() });
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
    for vpn in &model.vpns {
        let Some(here) = networks.get(vpn.network) else { continue };
        nat.insert_forward(Forward {
            address: vpn.public_address.octets(),
            port: vpn.port,
            fixed: vpn.private_address.octets(),
            fixed_port: VPN_PORT,
            segment: here.segment,
            zone: here.zone,
        });
    }
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
    // What sees a VM's own address answers to that.
    if !model.nat.exempt.is_empty() {
        let seen = model.networks.iter().filter(|network| uses(network) && !network.public);
        owned.extend(seen.filter_map(|network| Some((network.cidr?, Owned::Snat))));
    }
    let forwards = nat.forwards().map(|forward| Ipv4Addr::from(forward.address));
    let shared = shared.into_iter().chain(forwards).map(Ipv4Net::from);
    owned.extend(shared.map(|prefix| (prefix, Owned::Snat)));
    owned.sort_unstable();
    owned.dedup();
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
                before: None,
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
    fn answers_of_who_sees_vms_own_addresses_are_looked_at() {
        let own = |more: &str| {
            let (model, nat) = tables(&format!("{more}{ONE}"));
            owned(&model, &nat).iter().map(|(net, kind)| format!("{net} {kind:?}")).collect()
        };
        let with: Vec<String> = own("dmz_cidr = [\"10.128.0.0/24\"]\n");
        assert_eq!(with, ["10.0.0.0/24 Snat", "91.207.15.105/32 Snat", "91.208.23.11/32 Float"]);
        let with: Vec<String> = own("metadata_host = \"91.207.15.9\"\n");
        assert_eq!(with[0], "10.0.0.0/24 Snat");
    }

    #[test]
    fn the_metadata_server_is_nova_s_and_127_0_0_1_is_this_node() {
        let server = |more: &str| tables(&format!("{more}{ONE}")).1.metadata;
        assert_eq!(server(""), None);
        let at = |address, port| Some(MetadataServer { address, port });
        assert_eq!(server("metadata_host = \"192.0.2.9\"\n"), at([192, 0, 2, 9], 8775));
        let local = "metadata_host = \"127.0.0.1\"\nmetadata_port = 80\n";
        assert_eq!(server(local), at([91, 207, 15, 105], 80));
        let refused = |text: &str| {
            let text = text.replace("routing_source_ip = \"91.207.15.105\"\n", "");
            Model::from_text(&Flags::default(), "test.toml", &text).unwrap_err().to_string()
        };
        let told = refused(&format!("{local}{ONE}"));
        assert!(told.starts_with("test.toml:1: ") && told.contains("routing_source_ip"), "{told}");
        let told = refused(&format!("metadata_host = \"0.0.0.0\"\n{ONE}"));
        assert!(told.contains("0.0.0.0 cannot be a server's address"), "{told}");
        let told = refused(&format!("metadata_host = \"192.0.2.9\"\nmetadata_port = 0\n{ONE}"));
        assert!(told.starts_with("test.toml:2: metadata_port is 0"), "{told}");
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
