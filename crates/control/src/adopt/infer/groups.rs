//! Security groups: the chains that nova made for its VMs, as groups.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Adopted;
use crate::adopt::Found;
use crate::adopt::rules::Group;
use crate::adopt::save::Rule;
use crate::config::{GroupEntry, RuleEntry, VifEntry};
use crate::flags::FirewallDriver;

/// The group of VMs that nova let everything reach.
const OPEN: &str = "open";

/// What the chain of a VM says.
#[derive(Clone, Debug, Default)]
struct Chain {
    /// Who may come in.
    rules: Vec<RuleEntry>,
    /// Whether all of its own network may.
    own: bool,
    /// Rules that a group cannot say.
    strange: Vec<Rule>,
}

impl Adopted {
    /// Gives every vif the groups that do what nova's chain for its VM did.
    pub(super) fn groups(&mut self, found: &Found) {
        if self.vifs.is_empty() {
            return;
        }
        let chains = &found.rules.groups;
        if chains.is_empty() {
            self.settings.firewall_driver = Some(FirewallDriver::Noop);
            self.warnings.push(
                "no security groups were found: everything reaches the VMs (firewall_driver = \
                 \"noop\"), as before"
                    .into(),
            );
            return;
        }
        let mut vifs = std::mem::take(&mut self.vifs);
        let read: Vec<Option<Chain>> = vifs
            .iter()
            .map(|vif| {
                let of = |chain: &&Group| vif.addresses.contains(&chain.address);
                Some(Chain::read(chains.iter().find(of)?, self.subnet(vif)))
            })
            .collect();
        let all_own = read.iter().flatten().all(|chain| chain.own);
        self.settings.allow_same_net_traffic = (!all_own).then_some(false);
        if read.iter().any(Option::is_some) {
            self.warnings.push(
                "IPv6 reaches VMs that have a security group from their own link alone, until a \
                 rule with an IPv6 cidr lets in more: nova's chains for it are not read"
                    .into(),
            );
        }
        let mut strange = Vec::new();
        for (vif, chain) in vifs.iter_mut().zip(read) {
            let name = match chain {
                Some(mut chain) => {
                    if chain.own && !all_own {
                        let cidr = self.subnet(vif);
                        chain.rules.insert(
                            0,
                            RuleEntry { cidr: cidr.map(Into::into), ..RuleEntry::default() },
                        );
                    }
                    strange.append(&mut chain.strange);
                    self.group_of(None, chain.rules)
                }
                None => {
                    self.warnings.push(format!(
                        "{} has no security group that is known (nova's are for addresses): \
                         everything reaches it, by group '{OPEN}'; give it another",
                        vif.name
                    ));
                    let six = Some(IpNet::V6(Ipv6Net::default()));
                    let all = RuleEntry { cidr: six, ..RuleEntry::default() };
                    self.group_of(Some(OPEN), vec![RuleEntry::default(), all])
                }
            };
            vif.groups = Some(vec![name]);
        }
        self.vifs = vifs;
        self.show("rules of security groups are left out, since no group can say them", &strange);
    }

    fn subnet(&self, vif: &VifEntry) -> Option<Ipv4Net> {
        self.networks.iter().find(|network| network.name == vif.network)?.cidr
    }

    /// The name of a group with these rules: VMs with the same rules share one.
    fn group_of(&mut self, name: Option<&str>, rules: Vec<RuleEntry>) -> String {
        if let Some(same) = self.groups.iter().find(|group| group.rules == rules) {
            return same.name.clone();
        }
        let next = || format!("nova-{}", self.groups.len() + 1);
        let name = name.map_or_else(next, str::to_owned);
        self.groups.push(GroupEntry { name: name.clone(), rules, members: Vec::new(), zone: None });
        name
    }
}

impl Chain {
    fn read(group: &Group, subnet: Option<Ipv4Net>) -> Self {
        let mut chain = Self::default();
        for rule in &group.rules {
            let is_open = rule.protocol.is_none() && rule.others.is_empty() && rule.port.is_none();
            let accepts = rule.target.as_deref() == Some("ACCEPT");
            let has_source = rule.source.is_some();
            if rule.state.is_some() || (is_open && !has_source && !accepts) || is_dhcp(rule) {
                // What is open, the last word and DHCP go without saying.
            } else if accepts && is_open && has_source && rule.source == subnet {
                chain.own = true;
            } else if let Some(mut rules) = Some(rule).filter(|_| accepts).and_then(entries) {
                chain.rules.append(&mut rules);
            } else {
                chain.strange.push(rule.clone());
            }
        }
        chain
    }
}

/// `-s 10.0.0.1 -p udp --sport 67 --dport 68 -j ACCEPT`.
fn is_dhcp(rule: &Rule) -> bool {
    let server = rule.others.iter().map(String::as_str).eq(["--sport", "67"]);
    server && rule.port.as_deref() == Some("68") && rule.protocol.as_deref() == Some("udp")
}

/// What a rule that accepts says; none if it says more than a group can.
fn entries(rule: &Rule) -> Option<Vec<RuleEntry>> {
    if rule.from.is_some() || rule.out.is_some() || rule.destination.is_some() {
        return None;
    }
    let protocol = rule.protocol.clone().filter(|name| name != "all");
    let one = RuleEntry { protocol, cidr: rule.source.map(Into::into), ..RuleEntry::default() };
    let words: Vec<&str> = rule.others.iter().map(String::as_str).collect();
    match (one.protocol.as_deref(), words.as_slice(), &rule.port) {
        (Some("icmp"), ["--icmp-type", kind], None) => icmp(one, kind).map(|entry| vec![entry]),
        (Some("tcp" | "udp"), [], Some(ports)) => {
            let each = ports.split(',').map(|ports| ports.replace(':', "-"));
            Some(each.map(|ports| RuleEntry { ports: Some(ports), ..one.clone() }).collect())
        }
        (protocol, [], None) => {
            let known =
                |name: &str| ["tcp", "udp", "icmp"].contains(&name) || name.parse::<u8>().is_ok();
            protocol.is_none_or(known).then(|| vec![one])
        }
        _ => None,
    }
}

/// `8/0`, `8` or `any`.
fn icmp(one: RuleEntry, words: &str) -> Option<RuleEntry> {
    if words == "any" {
        return Some(one);
    }
    let (kind, code) = match words.split_once('/') {
        Some((kind, code)) => (kind, Some(code.parse::<u8>().ok()?)),
        None => (words, None),
    };
    let kind = Some(i64::from(kind.parse::<u8>().ok()?));
    Some(RuleEntry { kind, code: code.map(i64::from), ..one })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adopt::save::Saved;

    fn read(lines: &[&str]) -> Chain {
        let text = lines.iter().map(|line| format!("-A vm1 {line}\n")).collect::<String>();
        let rules = Saved::parse(&format!("*filter\n{text}")).rules;
        let group = Group { address: [10, 0, 0, 3].into(), chain: "vm1".into(), rules };
        Chain::read(&group, "10.0.0.0/24".parse().ok())
    }

    #[test]
    fn a_vms_chain_is_read_as_rules_without_what_goes_without_saying() {
        let chain = read(&[
            "-m state --state INVALID -j DROP",
            "-m state --state RELATED,ESTABLISHED -j ACCEPT",
            "-j nova-compute-provider",
            "-s 10.0.0.1/32 -p udp -m udp --sport 67 --dport 68 -j ACCEPT",
            "-s 10.0.0.0/24 -j ACCEPT",
            "-p icmp -j ACCEPT",
            "-p icmp -m icmp --icmp-type 8/0 -j ACCEPT",
            "-p tcp -m tcp --dport 22 -j ACCEPT",
            "-s 10.1.0.0/24 -p tcp -m multiport --dports 1:65535 -j ACCEPT",
            "-s 10.0.0.7/32 -p udp -m multiport --dports 53,5000:5009 -j ACCEPT",
            "-s 192.0.2.0/24 -j ACCEPT",
            "-j nova-compute-sg-fallback",
        ]);
        assert!(chain.own && chain.strange.is_empty(), "{chain:?}");
        let told = |rule: &RuleEntry| {
            let cidr = rule.cidr.map_or("*".to_owned(), |cidr| cidr.to_string());
            let ports = rule.ports.clone().unwrap_or_default();
            let kind = rule.kind.map_or(String::new(), |kind| format!("{kind}/{:?}", rule.code));
            format!("{} {ports}{kind} {cidr}", rule.protocol.as_deref().unwrap_or("*"))
        };
        let told: Vec<String> = chain.rules.iter().map(told).collect();
        assert_eq!(
            told,
            [
                "icmp  *",
                "icmp 8/Some(0) *",
                "tcp 22 *",
                "tcp 1-65535 10.1.0.0/24",
                "udp 53 10.0.0.7/32",
                "udp 5000-5009 10.0.0.7/32",
                "*  192.0.2.0/24",
            ]
        );
    }

    #[test]
    fn what_no_group_can_say_is_told() {
        let chain = read(&[
            "-p tcp -m tcp --dport 22 -m limit --limit 3/min -j ACCEPT",
            "-s 192.0.2.9/32 -j DROP",
            "-p icmp -m icmp --icmp-type echo-request -j ACCEPT",
        ]);
        assert_eq!((chain.rules.len(), chain.strange.len(), chain.own), (0, 3, false));
    }
}
