//! A `[[host_rule]]`, `forward_bridge_interface` and `iptables_drop_action`.

use wire::protocol;

use super::Draft;
use crate::config::{ConfigError, Entry, HostRuleEntry};
use crate::model::{HostService, PolicyRules};

/// nova's word for every interface.
const ALL: &str = "all";

impl Draft<'_> {
    pub(super) fn policy(&self) -> Result<PolicyRules, ConfigError> {
        let rules = self.said.file.host_rules.iter();
        Ok(PolicyRules {
            action: self.settings.iptables_drop_action.unwrap_or_default(),
            services: rules.map(|rule| self.host_rule(rule)).collect::<Result<_, _>>()?,
            ways: self.ways().map(<[String]>::to_vec),
        })
    }

    fn host_rule(&self, entry: &Entry<HostRuleEntry>) -> Result<HostService, ConfigError> {
        let Entry { value, lines } = entry;
        let at = |key: &str, message| self.said.line(lines.of(key), message);
        let protocol = protocol(&value.protocol).map_err(|message| at("protocol", message))?;
        let ports = value.ports.as_deref().map(ports).transpose();
        let ports = ports.map_err(|message| at("ports", message))?;
        if ports.is_some() && !matches!(protocol, Some(protocol::TCP | protocol::UDP)) {
            let message = format!("{} has no ports: leave them out", value.protocol);
            return Err(at("ports", message));
        }
        if let Some(cidr) = value.cidr.filter(|cidr| *cidr != cidr.trunc()) {
            return Err(at("cidr", format!("{cidr} is no prefix: write {}", cidr.trunc())));
        }
        let network = value.network.as_deref().map(|name| self.find_network(name)).transpose();
        let network = network.map_err(|message| at("network", message))?;
        Ok(HostService { protocol, ports, source: value.cidr, network })
    }

    /// The interfaces that may be routed to, unless all may.
    fn ways(&self) -> Option<&[String]> {
        let ways = self.settings.forward_bridge_interface.as_deref()?;
        (!ways.iter().any(|way| way == ALL)).then_some(ways)
    }

    /// Names that are neither a bridge nor a NIC: nova took them, and they mean nothing.
    pub(super) fn strange_ways(&self) -> Vec<String> {
        let known = |name: &str| {
            self.nics.0.iter().any(|nic| nic.name == name)
                || self.networks.iter().any(|(network, _)| network.bridge == name)
        };
        let strange = self.ways().unwrap_or_default().iter().filter(|way| !known(way));
        let told = strange.map(|way| {
            format!(
                "forward_bridge_interface names {way}, which is no bridge and no NIC of this file"
            )
        });
        told.collect()
    }
}

fn protocol(name: &str) -> Result<Option<u8>, String> {
    match name {
        "tcp" => Ok(Some(protocol::TCP)),
        "udp" => Ok(Some(protocol::UDP)),
        "icmp" => Ok(Some(protocol::ICMP)),
        "any" => Ok(None),
        _ => Err(format!("there is no protocol '{name}' here: use tcp, udp, icmp or any")),
    }
}

/// `22` or `8000-8010`.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first != 0 && first <= last => Ok((first, last)),
        _ => Err(format!("'{text}' are no ports: write one, \"22\", or a range, \"8000-8010\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{DropAction, Flags};
    use crate::model::Model;

    const ONE: &str = "vlan_interface = \"eth0\"\npublic_interface = \"eth1\"\n\
        [[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n";

    fn model(text: &str) -> Result<Model, ConfigError> {
        Model::from_text(&Flags::default(), "test.toml", text)
    }

    #[test]
    fn a_rule_says_what_is_served_and_to_whom() {
        let text = format!(
            "{ONE}[[host_rule]]\nprotocol = \"tcp\"\nports = \"22\"\ncidr = \"10.0.0.0/28\"\n\
             network = \"a\"\n[[host_rule]]\nprotocol = \"any\"\n"
        );
        let policy = model(&text).unwrap().policy;
        assert_eq!(policy.services.len(), 2);
        let ssh = HostService {
            protocol: Some(6),
            ports: Some((22, 22)),
            source: Some("10.0.0.0/28".parse().unwrap()),
            network: Some(0),
        };
        assert_eq!(policy.services[0], ssh);
        let all = HostService { protocol: None, ports: None, source: None, network: None };
        assert_eq!(policy.services[1], all);
        assert_eq!(model(ONE).unwrap().policy, PolicyRules::default());
    }

    #[test]
    fn a_rule_that_means_nothing_is_refused_where_it_stands() {
        for (rule, told) in [
            ("protocol = \"gre\"", "test.toml:9: there is no protocol 'gre' here: use tcp, udp"),
            ("protocol = \"icmp\"\nports = \"8\"", "test.toml:10: icmp has no ports"),
            ("protocol = \"tcp\"\nports = \"9-8\"", "test.toml:10: '9-8' are no ports"),
            ("protocol = \"tcp\"\nports = \"0\"", "test.toml:10: '0' are no ports"),
            ("protocol = \"tcp\"\ncidr = \"10.0.0.1/24\"", "test.toml:10: 10.0.0.1/24 is no"),
            ("protocol = \"tcp\"\nnetwork = \"b\"", "test.toml:10: there is no network 'b'"),
        ] {
            let text = format!("{ONE}[[host_rule]]\n{rule}\n");
            let error = model(&text).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }

    #[test]
    fn nova_s_words_for_ways_and_for_what_is_dropped_are_taken() {
        let of = |more: &str| model(&format!("{more}\n{ONE}")).unwrap();
        assert_eq!(of("forward_bridge_interface = [\"all\"]").policy.ways, None);
        let one = of("forward_bridge_interface = [\"eth1\", \"br100\"]");
        assert_eq!(one.policy.ways, Some(vec!["eth1".into(), "br100".into()]));
        assert!(!one.warnings.iter().any(|told| told.contains("forward_bridge_interface")));
        let strange = of("forward_bridge_interface = [\"bond7\"]").warnings;
        assert!(strange.iter().any(|told| told.contains("bond7")), "{strange:?}");
        let action = |name: &str| of(&format!("iptables_drop_action = \"{name}\"")).policy.action;
        assert_eq!(action("DROP"), DropAction::Drop);
        assert_eq!(action("REJECT"), DropAction::Reject);
        assert_eq!(action("LOGDROP"), DropAction::Log);
    }
}
