//! What a `[[vif]]` is allowed to send from beside its own addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use tables::GATEWAY_MAC;
use wire::MacAddr;

use super::Draft;
use super::vif::station;
use crate::config::{ConfigError, Entry, VifEntry};
use crate::model::AllowedPair;

/// Vifs that a warning names before it only counts them.
const NAMED: usize = 3;

impl Draft<'_> {
    /// Reads what every vif is allowed, once all of them are known.
    pub(super) fn allow(&mut self) -> Result<(), ConfigError> {
        for (at, Entry { value, lines }) in self.said.file.vifs.iter().enumerate() {
            let said = self.said;
            let pairs = self.pairs(at, value);
            self.vifs[at].0.allowed =
                pairs.map_err(|message| said.line(lines.of("allowed"), message))?;
        }
        Ok(())
    }

    fn pairs(&self, at: usize, entry: &VifEntry) -> Result<Vec<AllowedPair>, String> {
        let mut pairs: Vec<AllowedPair> = Vec::new();
        for text in &entry.allowed {
            let pair = read(text)?;
            if let Some(mac) = pair.mac {
                self.may_be_shared(at, mac)?;
            }
            self.may_be_allowed(at, pair.net)?;
            if pairs.contains(&pair) {
                return Err(format!("'{text}' is there twice"));
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }

    /// A MAC address of a pair is nobody's own: two VMs that take turns (VRRP) have it.
    fn may_be_shared(&self, at: usize, mac: MacAddr) -> Result<(), String> {
        if mac == GATEWAY_MAC {
            return Err(format!("mac {mac} is the gateway's on every node"));
        }
        let mut others = self.vifs.iter().enumerate().filter(|(other, _)| *other != at);
        match others.find(|(_, (other, _))| other.mac == mac) {
            Some((_, (other, line))) => {
                Err(format!("mac {mac} is vif '{}' (line {line}): it cannot be shared", other.name))
            }
            None => Ok(()),
        }
    }

    /// A single address must not be somebody's own; a prefix may have such addresses in it.
    fn may_be_allowed(&self, at: usize, net: IpNet) -> Result<(), String> {
        if net != net.trunc() {
            return Err(format!("{net} is no prefix: write {}", net.trunc()));
        }
        if net.prefix_len() != net.max_prefix_len() {
            return Ok(());
        }
        let address = net.addr();
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(format!("{address} is no address of a VM"));
        }
        let IpAddr::V4(address) = address else { return Ok(()) };
        let home = self.vifs[at].0.network;
        let (network, line) = &self.networks[home];
        let gateways = self.said.file.networks.get(home).map(|entry| &entry.value);
        if gateways
            .is_some_and(|entry| [entry.gateway, entry.external_gateway].contains(&Some(address)))
        {
            let name = &network.name;
            return Err(format!("{address} is the gateway of network '{name}' (line {line})"));
        }
        for (other, (vif, line)) in self.vifs.iter().enumerate() {
            let same_zone = self.networks[vif.network].0.zone == network.zone;
            if other != at && same_zone && vif.addresses.contains(&address) {
                let name = &vif.name;
                return Err(format!(
                    "{address} is vif '{name}' (line {line}): it cannot be shared"
                ));
            }
        }
        Ok(())
    }

    /// What walls leave open, and is probably not meant.
    pub(super) fn open_walls(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let any = |vif: &crate::model::Vif| {
            let ipv4 = |pair: &AllowedPair| matches!(pair.net, IpNet::V4(_));
            vif.addresses.is_empty() && !vif.allowed.iter().any(ipv4)
        };
        let open: Vec<&str> =
            self.vifs.iter().filter(|(vif, _)| any(vif)).map(|(vif, _)| &*vif.name).collect();
        if !open.is_empty() {
            let named = open[..open.len().min(NAMED)].join(", ");
            let more = match open.len() - open.len().min(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            warnings.push(format!(
                "vifs without addresses may send from any IPv4 address: {named}{more}; say \
                 'addresses' in their [[vif]]"
            ));
        }
        for (vif, _) in &self.vifs {
            let gateway = self.networks[vif.network].0.gateway.map(IpAddr::V4);
            let Some(gateway) = gateway else { continue };
            if let Some(pair) = vif.allowed.iter().find(|pair| pair.net.contains(&gateway)) {
                warnings.push(format!(
                    "vif {} may send as its gateway {gateway}: it is in {} of its 'allowed'",
                    vif.name, pair.net
                ));
            }
        }
        warnings
    }
}

/// An address or a prefix, perhaps behind a MAC address.
fn read(text: &str) -> Result<AllowedPair, String> {
    let wrong = || {
        format!(
            "'{text}' allows nothing: write an address or prefix, with a MAC address in front if \
             it has its own, such as 10.0.0.99, 10.0.9.0/24 or '00:00:5e:00:01:05 10.0.0.99'"
        )
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let (mac, net) = match words[..] {
        [net] => (None, net),
        [mac, net] => (Some(station(mac)?), net),
        _ => return Err(wrong()),
    };
    let net = match net.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => net.parse::<IpNet>().map_err(|_| wrong())?,
    };
    Ok(AllowedPair { mac, net })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use crate::model::Model;

    const NETWORK: &str = "vlan_interface = \"eth0\"\n[[network]]\nname = \"a\"\nvlan = 100\n\
                           cidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n";

    fn model(allowed: &str) -> Result<Model, String> {
        let vif = |n: u8, more: &str| {
            format!(
                "[[vif]]\nname = \"vnet{n}\"\nnetwork = \"a\"\nmac = \"fa:16:3e:00:00:0{n}\"\n\
                 addresses = [\"10.0.0.{}\"]\n{more}\n",
                n + 2
            )
        };
        let group = "[[security_group]]\nname = \"default\"\n";
        let text = [NETWORK, &vif(1, &format!("allowed = {allowed}")), &vif(2, ""), group].concat();
        Model::from_text(&Flags::default(), "left.toml", &text).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_and_prefixes_are_allowed_with_a_mac_of_their_own_or_without() {
        let text = r#"["10.0.0.99", "10.0.9.0/24", "00:00:5e:00:01:05 10.0.0.98", "fd00::3"]"#;
        let model = model(text).unwrap();
        let pair = |mac: Option<&str>, net: &str| AllowedPair {
            mac: mac.map(|mac| mac.parse().unwrap()),
            net: net.parse().unwrap(),
        };
        assert_eq!(
            model.vifs[0].allowed,
            [
                pair(None, "10.0.0.99/32"),
                pair(None, "10.0.9.0/24"),
                pair(Some("00:00:5e:00:01:05"), "10.0.0.98/32"),
                pair(None, "fd00::3/128"),
            ]
        );
        assert_eq!(model.warnings, Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_allowed_is_refused_with_its_line() {
        for (text, part) in [
            (r#"["10.0.0"]"#, "'10.0.0' allows nothing"),
            (r#"["fa:16:3e:00:00:09"]"#, "allows nothing"),
            (r#"["fa:16:3e 10.0.0.9"]"#, "'fa:16:3e' is not a MAC address"),
            (r#"["01:00:5e:00:00:01 10.0.0.9"]"#, "is a group's"),
            (r#"["02:74:6c:00:00:01 10.0.0.9"]"#, "is the gateway's"),
            (r#"["fa:16:3e:00:00:02 10.0.0.9"]"#, "is vif 'vnet2' (line 13)"),
            (r#"["10.0.0.1"]"#, "10.0.0.1 is the gateway of network 'a' (line 2)"),
            (r#"["10.0.0.4"]"#, "10.0.0.4 is vif 'vnet2' (line 13)"),
            (r#"["10.0.9.7/24"]"#, "write 10.0.9.0/24"),
            (r#"["ff02::1"]"#, "is no address of a VM"),
            (r#"["10.0.0.9", "10.0.0.9"]"#, "is there twice"),
        ] {
            let error = model(text).unwrap_err();
            assert!(error.starts_with("left.toml:12: ") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_walls_leave_open_is_warned_of() {
        let warnings = model(r#"["0.0.0.0/0"]"#).unwrap().warnings;
        assert_eq!(
            warnings,
            ["vif vnet1 may send as its gateway 10.0.0.1: it is in 0.0.0.0/0 of its 'allowed'"]
        );
        let vif = |n| {
            format!("[[vif]]\nname = \"v{n}\"\nnetwork = \"a\"\nmac = \"fa:16:3e:00:01:0{n}\"\n")
        };
        let text = (1..=5).fold(NETWORK.to_owned(), |text, n| text + &vif(n));
        let model = Model::from_text(&Flags::default(), "left.toml", &text).unwrap();
        let told = |warning: &String| warning.contains("v1, v2, v3 and 2 more");
        assert!(model.warnings.iter().any(told), "{:?}", model.warnings);
        let noop = ["firewall_driver = \"noop\"\n", &text].concat();
        let model = Model::from_text(&Flags::default(), "left.toml", &noop).unwrap();
        assert!(!model.warnings.iter().any(told), "{:?}", model.warnings);
    }
}
