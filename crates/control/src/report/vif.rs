//! What a VM's interface is to be configured with, inside the VM.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::model::Model;

/// `GET /v1/vif?name=<name>`: a VM's interface, as the VM has to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vif {
    /// Name of the vif on the node.
    pub name: String,
    /// Name of its network.
    pub network: String,
    /// The VM's MAC.
    pub mac: String,
    /// The VM's addresses, with the length of their subnet's prefix.
    pub addresses: Vec<Ipv4Net>,
    /// The way out: this node, or a router.
    pub gateway: Option<Ipv4Addr>,
    /// Its name servers.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Bytes of IP packet.
    pub mtu: u32,
}

impl Vif {
    /// What the configuration says of the vif called `name`.
    ///
    /// # Errors
    /// It says nothing of it.
    pub fn of(model: &Model, name: &str) -> Result<Self, String> {
        let Some(vif) = model.vifs.iter().find(|vif| vif.name == name) else {
            let all: Vec<&str> = model.vifs.iter().map(|vif| vif.name.as_str()).collect();
            return Err(format!("there is no vif '{name}'; there are: {}", all.join(", ")));
        };
        let network = model.networks.get(vif.network);
        let network = network.ok_or_else(|| format!("vif '{name}' is in no network"))?;
        let length = network.cidr.map_or(32, |cidr| cidr.prefix_len());
        let with_length = |address: &Ipv4Addr| Ipv4Net::new(*address, length).ok();
        Ok(Self {
            name: vif.name.clone(),
            network: network.name.clone(),
            mac: vif.mac.to_string(),
            addresses: vif.addresses.iter().filter_map(with_length).collect(),
            gateway: network.gateway.or(network.external_gateway),
            dns: network.dhcp.dns.clone(),
            mtu: network.mtu,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    #[test]
    fn a_vif_of_a_flat_network_has_its_routers_gateway() {
        let text = "flat_interface = \"eth0\"\nflat_network_bridge = \"br100\"\n\
            [[network]]\nname = \"flat\"\nkind = \"flat\"\ncidr = \"10.0.0.0/24\"\n\
            external_gateway = \"10.0.0.254\"\nmtu = 9000\ndns_server = [\"8.8.4.4\"]\n\
            [[vif]]\nname = \"vnet1\"\nnetwork = \"flat\"\nmac = \"fa:16:3e:00:00:01\"\n\
            addresses = [\"10.0.0.3\", \"10.0.0.9\"]\n";
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        let expected = Vif {
            name: "vnet1".into(),
            network: "flat".into(),
            mac: "fa:16:3e:00:00:01".into(),
            addresses: vec!["10.0.0.3/24".parse().unwrap(), "10.0.0.9/24".parse().unwrap()],
            gateway: Some(Ipv4Addr::new(10, 0, 0, 254)),
            dns: vec![Ipv4Addr::new(8, 8, 4, 4)],
            mtu: 9000,
        };
        assert_eq!(Vif::of(&model, "vnet1"), Ok(expected));
        let told = Vif::of(&model, "vnet9").unwrap_err();
        assert_eq!(told, "there is no vif 'vnet9'; there are: vnet1");
    }
}
