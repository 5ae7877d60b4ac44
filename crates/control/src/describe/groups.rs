//! Security groups in words.

use std::net::IpAddr;

use ipnet::IpNet;
use tables::{Let, Origin, Rule};

use crate::model::{Model, Security};
use crate::report;

/// A rule in words: `tcp 80 from 10.1.0.0/24`.
#[must_use]
pub fn rule(rule: &Rule, security: &Security) -> String {
    let (first, last) = (rule.first, rule.last);
    let all = (first, last) == (0, u16::MAX);
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let what = match rule.protocol {
        None => "everything".into(),
        Some(6) if all => "tcp".into(),
        Some(17) if all => "udp".into(),
        Some(1) if all => "icmp".into(),
        Some(6) => format!("tcp {range}"),
        Some(17) => format!("udp {range}"),
        Some(58) if all => "icmpv6".into(),
        Some(number @ (1 | 58)) => {
            let name = if number == 1 { "icmp" } else { "icmpv6" };
            match first == last {
                true => format!("{name} type {} code {}", first >> 8, first & 255),
                false => format!("{name} type {}", first >> 8),
            }
        }
        Some(number) => format!("protocol {number}"),
    };
    let whom = match rule.from {
        Origin::Prefix(IpNet::V4(net)) if net.prefix_len() == 0 => "anybody".into(),
        Origin::Prefix(IpNet::V6(net)) if net.prefix_len() == 0 => "anybody by IPv6".into(),
        Origin::Prefix(net) => net.to_string(),
        Origin::Members(group) => format!("members of {}", name(security, group)),
    };
    format!("{what} from {whom}")
}

/// Why somebody is let in, in words; or that nothing does it.
#[must_use]
pub fn let_in(why: Option<Let>, security: &Security) -> String {
    match why {
        Some(Let::Open) => "nothing stands before this port".into(),
        Some(Let::Dhcp) => "an answer of the network's DHCP server".into(),
        Some(Let::Discovery) => "IPv6's neighbour discovery, which nobody is asked for".into(),
        Some(Let::Own) => "of the VM's own network (allow_same_net_traffic)".into(),
        Some(Let::By(group, place)) => {
            let found = security.groups.get(group as usize);
            let found = found.and_then(|group| group.rules.get(place as usize));
            let words = found.map_or_else(|| "?".into(), |it| rule(it, security));
            format!("allowed by {}: {words}", name(security, group))
        }
        None => "no rule allows it".into(),
    }
}

fn name(security: &Security, group: u32) -> &str {
    security.groups.get(group as usize).map_or("?", |group| &group.name)
}

/// All groups, as the control socket tells them; `refused` says how many packets a vif refused.
#[must_use]
pub fn groups(model: &Model, refused: impl Fn(&str) -> u64) -> Vec<report::Group> {
    let security = &model.security;
    let of = |(number, group): (u32, &crate::model::SecurityGroup)| {
        let in_it = |vif: &&crate::model::Vif| vif.groups.contains(&number);
        let address = |(zone, address): &(String, IpAddr)| match zone.as_str() {
            crate::compile::HOST_ZONE => address.to_string(),
            zone => format!("{address} in {zone}"),
        };
        let vifs: Vec<&str> =
            model.vifs.iter().filter(in_it).map(|vif| vif.name.as_str()).collect();
        report::Group {
            name: group.name.clone(),
            rules: group.rules.iter().map(|it| rule(it, security)).collect(),
            members: group.members.iter().map(address).collect(),
            refused: vifs.iter().map(|vif| refused(vif)).sum(),
            vifs: vifs.into_iter().map(str::to_owned).collect(),
        }
    };
    (0..).zip(&security.groups).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    #[test]
    fn rules_are_told_in_the_words_they_were_given_in() {
        let text = r#"
            vlan_interface = "eth0"
            [[security_group]]
            name = "web"
            rules = [
                { protocol = "tcp", ports = "80" },
                { protocol = "udp", ports = "8000-8999", cidr = "10.1.0.0/24" },
                { protocol = "icmp", type = 8, code = 0 },
                { protocol = "icmp", type = 3 },
                { protocol = "icmp", type = -1, code = -1 },
                { protocol = "icmp", type = 128, cidr = "::/0" },
                { protocol = "icmpv6", group = "web" },
                { protocol = "47" },
                { group = "web" },
                {},
            ]
        "#;
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        let told = groups(&model, |_| 0);
        assert_eq!(
            told[0].rules,
            [
                "tcp 80 from anybody",
                "udp 8000-8999 from 10.1.0.0/24",
                "icmp type 8 code 0 from anybody",
                "icmp type 3 from anybody",
                "icmp from anybody",
                "icmpv6 type 128 from anybody by IPv6",
                "icmpv6 from members of web",
                "protocol 47 from anybody",
                "everything from members of web",
                "everything from anybody",
            ]
        );
        let by = let_in(Some(Let::By(0, 0)), &model.security);
        assert_eq!(by, "allowed by web: tcp 80 from anybody");
    }
}
