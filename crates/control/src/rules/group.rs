//! A `[[security_group]]`, and the groups of a vif.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use tables::{Origin, Rule};

use super::Draft;
use super::vif::not_there;
use crate::config::{ConfigError, Entry, GroupEntry, RuleEntry, VifEntry};
use crate::flags::FirewallDriver;
use crate::model::{Network, Security, SecurityGroup, Vif};

/// The group of a VM that names none.
const DEFAULT: &str = "default";
/// IP protocol numbers by name.
const PROTOCOLS: [(&str, u8); 5] =
    [("tcp", 6), ("udp", 17), ("icmp", ICMP), ("icmpv6", ICMPV6), ("ipv6-icmp", ICMPV6)];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl Draft<'_> {
    /// The numbers of a vif's groups; else the key and the words.
    pub(super) fn groups_of(&self, vif: &VifEntry) -> Result<Vec<u32>, (String, String)> {
        let default = [DEFAULT.to_owned()];
        let names = vif.groups.as_deref().unwrap_or(&default);
        let mut numbers = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let key = || format!("groups[{place}]");
            if names[..place].contains(name) {
                return Err((key(), format!("security group '{name}' is there twice")));
            }
            numbers.push(self.group_number(name).map_err(|message| (key(), message))?);
        }
        Ok(numbers)
    }

    /// The number of a group: its place in the file. One called "default" is behind them where
    /// the file does not say what is in it, and empty.
    fn group_number(&self, name: &str) -> Result<u32, String> {
        let groups = &self.said.file.groups;
        let place = groups.iter().position(|entry| entry.value.name == name);
        match place {
            Some(place) => Ok(place as u32),
            None if name == DEFAULT => Ok(groups.len() as u32),
            None => {
                let names = groups.iter().map(|entry| entry.value.name.as_str());
                Err(not_there("security group", name, "a [[security_group]]", names))
            }
        }
    }

    pub(super) fn security(&self) -> Result<Security, ConfigError> {
        let entries = &self.said.file.groups;
        let mut groups = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            groups.push(self.group(place, entry)?);
        }
        let default =
            SecurityGroup { name: DEFAULT.into(), rules: Vec::new(), members: Vec::new() };
        if entries.iter().all(|entry| entry.value.name != DEFAULT) {
            groups.push(default);
        }
        for (vif, _) in &self.vifs {
            let network = &self.networks[vif.network].0;
            let members: Vec<_> =
                addresses(vif, network).map(|it| (network.zone.clone(), it)).collect();
            for number in &vif.groups {
                groups[*number as usize].members.extend(members.clone());
            }
        }
        for group in &mut groups {
            group.members.sort_unstable();
            group.members.dedup();
        }
        Ok(Security {
            stands: self.settings.firewall_driver.unwrap_or_default() == FirewallDriver::Trunkline,
            same_net: self.settings.allow_same_net_traffic.unwrap_or(true),
            revoke: self.settings.revoke.unwrap_or(true),
            groups,
            dhcp_servers: self.dhcp_servers(),
        })
    }

    /// Another node may be a network's gateway, and serve it: the file knows it all the same.
    fn dhcp_servers(&self) -> Vec<Vec<Ipv4Addr>> {
        let of = |entry: &crate::config::NetworkEntry| {
            entry.gateway.into_iter().chain(entry.external_gateway).collect()
        };
        self.said.file.networks.iter().map(|entry| of(&entry.value)).collect()
    }

    fn group(&self, place: usize, entry: &Entry<GroupEntry>) -> Result<SecurityGroup, ConfigError> {
        let Entry { value, lines } = entry;
        let at = |key: &str, message| self.said.line(lines.of(key), message);
        if value.name.is_empty() {
            return Err(at("name", "a security group needs a name".into()));
        }
        let before = &self.said.file.groups[..place];
        if let Some(other) = before.iter().find(|other| other.value.name == value.name) {
            let line = other.lines.first();
            let message = format!("security group '{}' is there already (line {line})", value.name);
            return Err(at("name", message));
        }
        let mut rules = Vec::new();
        for (place, rule) in value.rules.iter().enumerate() {
            let rule =
                self.rule(rule).map_err(|message| at(&format!("rules[{place}]"), message))?;
            rules.push(rule);
        }
        let zone = value.zone.as_deref().unwrap_or(DEFAULT);
        if let Some(zone) = &value.zone
            && self.networks.iter().all(|(network, _)| network.zone != *zone)
        {
            let names = self.networks.iter().map(|(network, _)| network.zone.as_str());
            return Err(at("zone", not_there("zone", zone, "the zone of a [[network]]", names)));
        }
        let members = value.members.iter().map(|address| (zone.to_owned(), *address));
        Ok(SecurityGroup { name: value.name.clone(), rules, members: members.collect() })
    }

    fn rule(&self, said: &RuleEntry) -> Result<Rule, String> {
        let protocol = said.protocol.as_deref().map(protocol).transpose()?;
        let protocol = of_family(protocol, said.cidr)?;
        let of = |wanted: &[u8]| protocol.is_some_and(|number| wanted.contains(&number));
        if said.ports.is_some() && !of(&[6, 17]) {
            return Err("ports are of protocol \"tcp\" or \"udp\": say which".into());
        }
        if (said.kind.is_some() || said.code.is_some()) && !of(&[ICMP, ICMPV6]) {
            return Err("type and code are of protocol \"icmp\" or \"icmpv6\": say which".into());
        }
        let (first, last) = match &said.ports {
            Some(words) => ports(words)?,
            None => types(said.kind, said.code)?,
        };
        let from = match (&said.cidr, &said.group) {
            (Some(_), Some(_)) => {
                return Err("a rule has a cidr or a group: make two of this one".into());
            }
            (Some(cidr), None) => Origin::Prefix(proper(*cidr)?),
            (None, Some(name)) => Origin::Members(self.group_number(name)?),
            (None, None) => Origin::ANYBODY,
        };
        Ok(Rule { protocol, first, last, from })
    }

    /// A file of before there were security groups lets nothing in from other networks.
    pub(super) fn nothing_comes_in(&self) -> Option<String> {
        let said = self.settings.firewall_driver.is_some() || !self.said.file.groups.is_empty();
        let concerns = self.vifs.iter().any(|(vif, _)| vif.groups.len() == 1);
        (!said && concerns).then(|| {
            "no [[security_group]] is in the file: VMs are reached from their own network and by \
             nobody else; write one called \"default\" with what may come in, or set \
             firewall_driver = \"noop\""
                .into()
        })
    }
}

/// The addresses by which a VM is a member: its own, of IPv6 those it makes of its MAC and those it
/// is allowed.
fn addresses<'v>(vif: &'v Vif, network: &'v Network) -> impl Iterator<Item = IpAddr> + 'v {
    let link = ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
    let made = [Some(link), network.cidr_v6].into_iter().flatten();
    let made = made.filter(|net| net.prefix_len() <= 64).map(|net| {
        let interface = u64::from_be_bytes(vif.mac.interface_id());
        Ipv6Addr::from_bits(net.network().to_bits() | u128::from(interface))
    });
    let allowed = vif.allowed.iter().filter_map(|pair| match pair.net {
        IpNet::V6(net) if net.prefix_len() == 128 => Some(net.addr()),
        _ => None,
    });
    let ipv4 = vif.addresses.iter().map(|address| IpAddr::V4(*address));
    ipv4.chain(made.chain(allowed).map(IpAddr::V6))
}

/// With IPv6 addresses "icmp" is ICMPv6, as nova wrote it.
fn of_family(protocol: Option<u8>, cidr: Option<IpNet>) -> Result<Option<u8>, String> {
    match (protocol, cidr) {
        (Some(ICMP), Some(IpNet::V6(_))) => Ok(Some(ICMPV6)),
        (Some(ICMPV6), Some(IpNet::V4(net))) => {
            Err(format!("icmpv6 does not come from {net}: say \"icmp\", or an IPv6 cidr"))
        }
        (Some(ICMPV6), None) | (_, Some(_) | None) => Ok(protocol),
    }
}

/// nova takes any case: CVE-2012-2654 was a rule that did not match for its capitals.
fn protocol(words: &str) -> Result<u8, String> {
    let lower = words.to_lowercase();
    let named = PROTOCOLS.iter().find(|(name, _)| *name == lower);
    named.map(|(_, number)| *number).or_else(|| lower.parse().ok()).ok_or_else(|| {
        format!(
            "'{words}' is no protocol: write \"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a number, or \
             leave it out for all of them"
        )
    })
}

/// A port or a range of ports.
fn ports(words: &str) -> Result<(u16, u16), String> {
    let wrong = || {
        format!("'{words}' are no ports: write one, like \"80\", or a range, like \"8000-8999\"")
    };
    let (first, last) = words.split_once(['-', ':']).unwrap_or((words, words));
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the ports of '{words}' stand the wrong way round: {last}-{first}"));
    }
    Ok((first, last))
}

/// Types and codes of ICMP as numbers of both.
fn types(kind: Option<i64>, code: Option<i64>) -> Result<(u16, u16), String> {
    let one = |what: &str, number: i64| match number {
        -1 => Ok(None),
        number => u8::try_from(number)
            .map(|number| Some(u16::from(number)))
            .map_err(|_| format!("{what} {number} of ICMP is none: use 0 to 255, or -1 for all")),
    };
    let (kind, code) = (one("type", kind.unwrap_or(-1))?, one("code", code.unwrap_or(-1))?);
    match (kind, code) {
        (None, None) => Ok((0, u16::MAX)),
        (None, Some(_)) => Err("a code is of a type of ICMP: say which".into()),
        (Some(kind), None) => Ok((kind << 8, kind << 8 | 255)),
        (Some(kind), Some(code)) => Ok((kind << 8 | code, kind << 8 | code)),
    }
}

fn proper(cidr: IpNet) -> Result<IpNet, String> {
    match cidr == cidr.trunc() {
        true => Ok(cidr),
        false => Err(format!("{cidr} is no prefix: write {}", cidr.trunc())),
    }
}
