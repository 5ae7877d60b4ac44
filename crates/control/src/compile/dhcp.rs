//! What a VM is told by DHCP.

use dhcp::Vif;

use crate::flags::DhcpServer;
use crate::model::{self, Model};

/// What the VM behind a vif is told; none where the node does not answer it.
#[must_use]
pub fn told_by_dhcp(model: &Model, vif: &model::Vif) -> Option<Vif> {
    let network = model.networks.get(vif.network)?;
    if network.dhcp.server == DhcpServer::Builtin { vif_of_dhcp(model, vif) } else { None }
}

/// What the VM behind a vif is told, whoever tells it; none where there is nothing to tell.
#[must_use]
pub fn vif_of_dhcp(model: &Model, vif: &model::Vif) -> Option<Vif> {
    let network = model.networks.get(vif.network)?;
    let said = &network.dhcp;
    // The server is known by the gateway's address, be the gateway elsewhere: what a VM sends there
    // is taken on its way.
    let server = said.router?;
    Some(Vif {
        mac: vif.mac,
        addresses: vif.addresses.clone(),
        network: network.cidr?,
        server,
        router: vif.default_router.then_some(server),
        // One that resolves asks them itself.
        dns: if said.resolves || said.dns.is_empty() { vec![server] } else { said.dns.clone() },
        ntp: model.dhcp.ntp.clone(),
        domain: model.dhcp.domain.clone(),
        host_name: vif.host_name.clone(),
        mtu: said.mtu,
        lease: model.dhcp.lease,
        extra: said.extra.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::flags::Flags;

    const TEXT: &str = "vlan_interface = \"eth0\"\n\
        [[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n\
        [[network]]\nname = \"b\"\nvlan = 102\ncidr = \"10.1.0.0/24\"\ngateway = \"10.1.0.1\"\n\
        [[vif]]\nname = \"v1\"\nnetwork = \"a\"\nmac = \"fa:16:3e:00:00:01\"\n\
        addresses = [\"10.0.0.3\"]\ninstance = \"one\"\n\
        [[vif]]\nname = \"v2\"\nnetwork = \"b\"\nmac = \"fa:16:3e:00:00:02\"\n\
        addresses = [\"10.1.0.3\"]\ninstance = \"one\"\nhostname = \"db-1\"\n";

    fn told(text: &str) -> Vec<Option<Vif>> {
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        model.vifs.iter().map(|vif| told_by_dhcp(&model, vif)).collect()
    }

    fn refused(text: &str) -> String {
        Model::from_text(&Flags::default(), "test.toml", text).unwrap_err().to_string()
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_word_a_vm_is_told_what_nova_told_it() {
        let vifs = told(TEXT);
        let one = vifs[0].as_ref().unwrap();
        assert_eq!((one.server, one.router), (address("10.0.0.1"), Some(address("10.0.0.1"))));
        assert_eq!((one.dns.clone(), one.lease), (vec![one.server], 86_400));
        assert_eq!((one.domain.as_str(), one.mtu, one.ntp.len()), ("novalocal", None, 0));
        assert_eq!(one.name_at(one.addresses[0]), "host-10-0-0-3");
        let two = vifs[1].as_ref().unwrap();
        assert_eq!(two.name_at(two.addresses[0]), "db-1");
    }

    #[test]
    fn a_vm_has_one_default_router_if_that_is_asked_for() {
        let vifs = told(&format!("use_single_default_gateway = true\n{TEXT}"));
        let routers: Vec<_> = vifs.iter().map(|vif| vif.as_ref().unwrap().router).collect();
        assert_eq!(routers, [Some(address("10.0.0.1")), None]);
        // Of two VMs each has its own.
        let two = TEXT.replacen("instance = \"one\"", "instance = \"two\"", 1);
        let vifs = told(&format!("use_single_default_gateway = true\n{two}"));
        assert!(vifs.iter().all(|vif| vif.as_ref().unwrap().router.is_some()));
    }

    #[test]
    fn a_network_says_more_than_the_node() {
        let more = TEXT.replacen(
            "vlan = 100\n",
            "vlan = 100\nmtu = 1400\ndns_server = [\"10.0.0.9\"]\ndhcp_options = [\"42,10.0.0.8\"]\n",
            1,
        );
        let all = "dns_server = [\"8.8.4.4\"]\nntp_server = [\"10.9.9.9\"]\ndhcp_domain = \"\"\n\
                   dhcp_options = [\"42,10.9.9.8\", \"66,boot\"]\ndhcp_lease_time = 120\n";
        let vifs = told(&format!("{all}{more}"));
        let (one, two) = (vifs[0].as_ref().unwrap(), vifs[1].as_ref().unwrap());
        assert_eq!((one.mtu, one.dns.clone()), (Some(1400), vec![address("10.0.0.9")]));
        assert_eq!((two.mtu, two.dns.clone()), (None, vec![address("8.8.4.4")]));
        let codes =
            |vif: &Vif| vif.extra.iter().map(|it| (it.code, it.data[0])).collect::<Vec<_>>();
        assert_eq!(
            (codes(one), codes(two)),
            (vec![(42, 10), (66, b'b')], vec![(42, 10), (66, b'b')])
        );
        assert_eq!((one.extra[0].data[3], two.extra[0].data[3]), (8, 8));
        assert_eq!((one.lease, one.domain.as_str(), one.ntp.len()), (120, "", 1));
    }

    #[test]
    fn the_router_may_be_elsewhere_and_without_one_dhcp_is_bridged() {
        let router = TEXT.replacen("gateway = \"10.0.0.1\"", "external_gateway = \"10.0.0.9\"", 1);
        assert_eq!(told(&router)[0].as_ref().unwrap().router, Some(address("10.0.0.9")));
        let host =
            TEXT.replacen("gateway = \"10.0.0.1\"", "gateway = \"10.0.0.1\"\nhost = \"x\"", 1);
        assert_eq!(told(&host)[0].as_ref().unwrap().router, Some(address("10.0.0.1")));
        let none = TEXT.replacen("gateway = \"10.0.0.1\"\n", "", 1);
        assert_eq!(told(&none)[0], None);
        assert_eq!(told(&format!("dhcp = \"external\"\n{TEXT}"))[0], None);
        assert_eq!(told(&format!("dhcp = \"dnsmasq\"\n{TEXT}"))[0], None);
        let flat = "network_manager = \"flat\"\nflat_network_bridge = \"br100\"\n\
            [[network]]\nname = \"a\"\ncidr = \"10.0.0.0/24\"\nexternal_gateway = \"10.0.0.9\"\n\
            [[vif]]\nname = \"v1\"\nnetwork = \"a\"\nmac = \"fa:16:3e:00:00:01\"\n";
        assert_eq!(told(flat)[0], None);
        let asked = flat.replacen("name = \"a\"\n", "name = \"a\"\ndhcp = \"builtin\"\n", 1);
        assert!(told(&asked)[0].is_some());
    }

    #[test]
    fn a_vm_without_an_address_that_would_ask_in_vain_is_warned_of() {
        let warnings = |text: &str| {
            let mut said = Model::from_text(&Flags::default(), "test.toml", text).unwrap().warnings;
            said.retain(|warning| warning.contains("DHCP"));
            said
        };
        let none = TEXT.replacen("addresses = [\"10.0.0.3\"]\n", "", 1);
        let said = "vif 'v1' has no addresses: its VM's DHCP is not answered";
        assert_eq!(warnings(&none), [said]);
        assert_eq!(warnings(&format!("dhcp = \"external\"\n{none}")), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let none = TEXT.replacen("gateway = \"10.0.0.1\"\n", "", 1).replacen(
            "vlan = 100\n",
            "vlan = 100\ndhcp = \"builtin\"\n",
            1,
        );
        let said = refused(&none);
        assert!(said.starts_with("test.toml:5: network 'a' has no router to tell"), "{said}");
        let said = refused(&none.replacen("builtin", "dnsmasq", 1));
        assert!(said.starts_with("test.toml:5: dnsmasq has no address to serve"), "{said}");
        for (text, part) in [
            ("dhcp = \"dnsmask\"", "test.toml:1: dhcp: 'dnsmask' is none of builtin, dnsmasq"),
            ("dhcp_lease_time = 5", "test.toml:1: dhcp_lease_time is 5: use 10 seconds or more"),
            ("dhcp_domain = \"a b\"", "test.toml:1: 'a b' is no domain"),
            ("dhcp_options = [\"53,1\"]", "test.toml:1: option 53 is the protocol's own"),
            ("dns_server = [\"x\"]", "test.toml:1: dns_server"),
        ] {
            let said = refused(&format!("{text}\n{TEXT}"));
            assert!(said.starts_with(part), "{said}");
        }
        let long =
            format!("dhcp_options = [\"66,{}\", \"67,{}\"]", "x".repeat(200), "y".repeat(60));
        let said = refused(&format!("{long}\n{TEXT}"));
        assert!(said.contains("more than 250 bytes together"), "{said}");
        let name = TEXT.replacen("db-1", "db 1", 1);
        assert!(
            refused(&name).starts_with("test.toml:24: 'db 1' cannot name a VM"),
            "{}",
            refused(&name)
        );
    }
}
