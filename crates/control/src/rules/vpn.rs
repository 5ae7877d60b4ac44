//! A `[[vpn]]`: a project's VPN instance, nova's cloudpipe.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Draft;
use crate::config::{ConfigError, Entry, VpnEntry};
use crate::model::{Vpn, VpnClients};

/// Addresses kept for users where the file does not say how many.
const CLIENTS: u32 = 8;

impl Draft<'_> {
    pub(super) fn vpns(&self) -> Result<Vec<Vpn>, ConfigError> {
        let mut vpns: Vec<(Vpn, usize)> = Vec::new();
        for Entry { value, lines } in &self.said.file.vpns {
            let said = self.said;
            let at = |(key, message): (&str, String)| said.line(lines.of(key), message);
            let vpn = self.vpn(value).map_err(at)?;
            for (other, line) in &vpns {
                if other.network == vpn.network {
                    let message = format!("network '{}' has one (line {line})", value.network);
                    return Err(at(("network", message)));
                }
                if (other.public_address, other.port) == (vpn.public_address, vpn.port) {
                    let message = format!("port {} is another's (line {line})", vpn.port);
                    return Err(at(("port", message)));
                }
            }
            vpns.push((vpn, lines.first()));
        }
        Ok(vpns.into_iter().map(|(vpn, _)| vpn).collect())
    }

    /// What it means; else the key and the words.
    fn vpn(&self, value: &VpnEntry) -> Result<Vpn, (&'static str, String)> {
        let network = self.find_network(&value.network).map_err(|words| ("network", words))?;
        let (here, line) = &self.networks[network];
        let (Some(cidr), Some(gateway)) = (here.cidr, here.gateway) else {
            let words = format!(
                "network '{}' (line {line}) has no gateway on this node for a VPN's packets",
                here.name
            );
            return Err(("network", words));
        };
        let public_address =
            value.public_address.or(self.settings.routing_source_ip).ok_or_else(|| {
                let words = "set public_address or routing_source_ip: its users ask there";
                ("public_address", words.to_owned())
            })?;
        let ports = self.settings.snat_ports.unwrap_or_default();
        let port = match u16::try_from(value.port) {
            Ok(port) if port > 0 && !(ports.first..=ports.last).contains(&port) => port,
            _ => {
                let words = format!(
                    "port {} is not 1 to 65535, or one of snat_ports ({}-{})",
                    value.port, ports.first, ports.last
                );
                return Err(("port", words));
            }
        };
        let private_address =
            value.private_address.or_else(|| cidr.hosts().nth(1)).unwrap_or(gateway);
        if !cidr.contains(&private_address) || private_address == gateway {
            let words = format!("{private_address} is no VM's address in {cidr}");
            return Err(("private_address", words));
        }
        let clients = match value.clients.unwrap_or(CLIENTS) {
            0 => return Err(("clients", "a VPN is for at least one user".into())),
            count => self.clients(network, cidr, [gateway, private_address], count),
        };
        let clients = clients.map_err(|words| ("clients", words))?;
        Ok(Vpn { network, public_address, port, private_address, gateway, clients })
    }

    /// The last addresses of the subnet.
    fn clients(
        &self,
        network: usize,
        cidr: Ipv4Net,
        taken: [Ipv4Addr; 2],
        count: u32,
    ) -> Result<VpnClients, String> {
        let last = u32::from(cidr.broadcast()).saturating_sub(1);
        let first = last.saturating_sub(count - 1);
        let range = first..=last;
        if first <= u32::from(cidr.network()) {
            return Err(format!("{cidr} has no {count} addresses for users"));
        }
        let vifs = self.vifs.iter().filter(|(vif, _)| vif.network == network);
        let of_vifs = vifs.flat_map(|(vif, _)| vif.addresses.iter().copied());
        let in_use = |address: &Ipv4Addr| range.contains(&u32::from(*address));
        match of_vifs.chain(taken).find(in_use) {
            Some(address) => Err(format!(
                "the last {count} addresses of {cidr} are for users, and {address} is among them: \
                 set clients to fewer"
            )),
            None => Ok(VpnClients { first: first.into(), last: last.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crate::flags::Flags;
    use crate::model::Model;

    const NODE: &str = "vlan_interface = \"eth0\"\npublic_interface = \"eth1\"\n\
        routing_source_ip = \"91.207.15.105\"\n\
        [[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n\
        [[vif]]\nname = \"v1\"\nnetwork = \"a\"\nmac = \"fa:16:3e:00:00:01\"\naddresses = [\"10.0.0.250\"]\n";

    fn model(vpn: &str) -> Result<Model, String> {
        let text = format!("{NODE}[[vpn]]\nnetwork = \"a\"\n{vpn}");
        Model::from_text(&Flags::default(), "t", &text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_nova_s() {
        let vpn = &model("port = 1000\nclients = 4\n").unwrap().vpns[0];
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        assert_eq!((vpn.private_address, vpn.gateway), (address(2), address(1)));
        assert_eq!((vpn.clients.first, vpn.clients.last), (address(251), address(254)));
        assert_eq!(vpn.public_address, Ipv4Addr::new(91, 207, 15, 105));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        let refused = |vpn: &str| model(vpn).unwrap_err();
        assert!(
            refused("port = 1000\n").starts_with("t:14: the last 8"),
            "{}",
            refused("port = 1000\n")
        );
        for (vpn, words) in [
            ("port = 0\n", "t:16: port 0 is not 1 to 65535"),
            ("port = 20005\n", "one of snat_ports (20000-45999)"),
            ("port = 1000\nprivate_address = \"10.1.0.2\"\n", "t:17: 10.1.0.2 is no VM's address"),
            ("port = 1000\nclients = 300\n", "t:17: 10.0.0.0/24 has no 300 addresses"),
            ("port = 1000\nclients = 0\n", "t:17: a VPN is for at least one user"),
            (
                "port = 1000\nclients = 2\n[[vpn]]\nnetwork = \"a\"\nport = 1001\nclients = 2\n",
                "has one (line 14)",
            ),
        ] {
            assert!(refused(vpn).contains(words), "{vpn}: {}", refused(vpn));
        }
    }
}
