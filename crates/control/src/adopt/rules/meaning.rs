//! What one rule of nova's says.

use std::net::Ipv4Addr;

use super::{Float, Group, Metadata, NovaRules, SourceNat};
use crate::adopt::save::Rule;

/// Where a VM asks for its metadata.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The chains that a program of nova has, less its name.
const CHAINS: [&str; 8] =
    ["PREROUTING", "OUTPUT", "POSTROUTING", "float-snat", "snat", "INPUT", "FORWARD", "local"];

impl NovaRules {
    /// One rule in one of nova's chains.
    pub(super) fn read(&mut self, rule: &Rule, jumps: bool, outgoing: &mut Vec<Float>) {
        let part = self.programs.iter().find_map(|name| part(&rule.chain, name));
        let known = match (rule.table.as_str(), part) {
            ("nat", Some("snat")) => self.source(rule),
            ("nat", Some("float-snat")) => leaves(rule, outgoing),
            ("nat", Some("PREROUTING")) => self.arrival(rule),
            ("nat", Some("OUTPUT")) => is_arrival(rule),
            ("nat", Some("POSTROUTING")) => self.departure(rule),
            ("filter", Some("INPUT")) => self.service(rule),
            ("filter", Some("FORWARD")) => self.passage(rule),
            ("filter", Some("local")) => self.group(rule),
            ("mangle", _) => rule.target.as_deref() == Some("CHECKSUM"),
            // Security groups are read once all are known; what has no condition is their last word.
            ("filter", _) => self.is_group(&rule.chain) || is_bare(rule),
            _ => false,
        };
        let leads_on = jumps && is_bare(rule);
        if !known && !leads_on {
            self.unknown.push(rule.clone());
        }
    }

    /// `-s 10.0.0.0/24 -o eth1 -j SNAT --to-source 192.0.2.5`.
    fn source(&mut self, rule: &Rule) -> bool {
        let plain = rule.protocol.is_none() && rule.state.is_none() && rule.others.is_empty();
        let (Some("SNAT"), Some(source), Some(to), true) =
            (rule.target.as_deref(), rule.source, address(rule), plain)
        else {
            return false;
        };
        let (destination, interface) = (rule.destination, rule.out.clone());
        self.source_nat.push(SourceNat { source, destination, interface, to });
        true
    }

    /// A floating address, or metadata.
    fn arrival(&mut self, rule: &Rule) -> bool {
        if rule.destination != Some(METADATA.into()) {
            if is_arrival(rule)
                && let (Some(destination), Some(fixed)) = (rule.destination, address(rule))
            {
                let address = destination.addr();
                self.floats.push(Float { address, fixed, interface: None });
                return true;
            }
            return false;
        }
        let to = rule.to.as_deref().unwrap_or_default();
        let (host, port) = match rule.target.as_deref() {
            Some("REDIRECT") => (None, to),
            Some("DNAT") => match to.split_once(':') {
                Some((host, port)) => (host.parse().ok(), port),
                None => (to.parse().ok(), ""),
            },
            _ => return false,
        };
        let host = host.filter(|host: &Ipv4Addr| !host.is_loopback());
        self.metadata = Some(Metadata { host, port: port.parse().ok() });
        true
    }

    /// What is not translated though it leaves.
    fn departure(&mut self, rule: &Rule) -> bool {
        let plain = rule.protocol.is_none() && rule.others.is_empty() && rule.out.is_none();
        match (rule.target.as_deref(), rule.source, rule.state.as_deref()) {
            (Some("ACCEPT"), Some(source), None) if plain => match rule.destination {
                Some(destination) => {
                    self.exempt.push((source, destination));
                    true
                }
                None => false,
            },
            (Some("ACCEPT"), Some(source), Some("!DNAT"))
                if plain && rule.destination == rule.source =>
            {
                self.same.push(source);
                true
            }
            // From a VM with a floating address to that of another one on this node.
            (Some("SNAT"), Some(_), Some("DNAT")) => plain && rule.destination.is_none(),
            _ => false,
        }
    }

    /// What the node serves on a bridge: DHCP, DNS, metadata.
    fn service(&mut self, rule: &Rule) -> bool {
        self.bridges.extend(rule.from.clone());
        rule.target.as_deref() == Some("ACCEPT")
    }

    /// What may pass a bridge.
    fn passage(&mut self, rule: &Rule) -> bool {
        let accepts = rule.target.as_deref() == Some("ACCEPT");
        match (rule.protocol.as_deref(), &rule.from, &rule.out, rule.others.as_slice()) {
            // A client of DHCP that has no address yet.
            (Some("udp"), None, None, _) if accepts => rule.port.as_deref() == Some("67"),
            (None, Some(bridge), None, []) | (None, None, Some(bridge), []) if accepts => {
                self.bridges.insert(bridge.clone());
                true
            }
            (None, Some(_), _, []) | (None, _, Some(_), []) => {
                self.limits.push(rule.clone());
                true
            }
            // An address that every node has must not be found across the trunk.
            (_, None, None, [option, _]) if !accepts && option.starts_with("--physdev-") => {
                let gateway = rule.destination.or(rule.source).map(|net| net.addr());
                self.shared.extend(gateway.filter(|address| !address.is_broadcast()));
                gateway.is_some()
            }
            _ => false,
        }
    }

    /// `-d 10.0.0.3 -j nova-compute-inst-1`.
    fn group(&mut self, rule: &Rule) -> bool {
        let (Some(address), Some(chain)) = (rule.destination, &rule.target) else { return false };
        let (address, chain) = (address.addr(), chain.clone());
        self.groups.push(Group { address, chain, rules: Vec::new() });
        true
    }

    fn is_group(&self, chain: &str) -> bool {
        chain.contains("-inst-") || self.groups.iter().any(|group| group.chain == chain)
    }
}

/// `-s 10.0.0.3 -o eth1 -j SNAT --to-source 198.51.100.11`, and the same towards itself.
fn leaves(rule: &Rule, outgoing: &mut Vec<Float>) -> bool {
    let plain = rule.protocol.is_none() && rule.state.is_none() && rule.others.is_empty();
    let (Some("SNAT"), Some(fixed), Some(to), true) =
        (rule.target.as_deref(), rule.source, address(rule), plain)
    else {
        return false;
    };
    match rule.destination {
        None => {
            let (fixed, interface) = (fixed.addr(), rule.out.clone());
            outgoing.push(Float { address: to, fixed, interface });
            true
        }
        // The VM calls itself by its floating address.
        hairpin => hairpin == Some(fixed),
    }
}

/// `-d 198.51.100.11 -j DNAT --to-destination 10.0.0.3`: all of an address.
fn is_arrival(rule: &Rule) -> bool {
    let all = rule.protocol.is_none() && rule.source.is_none() && rule.from.is_none();
    let one = rule.destination.is_some_and(|net| net.prefix_len() == 32);
    rule.target.as_deref() == Some("DNAT") && all && one && rule.others.is_empty()
}

/// Whether it has no condition: a jump, or the last word of a chain.
fn is_bare(rule: &Rule) -> bool {
    let nothing = rule.source.is_none() && rule.destination.is_none() && rule.protocol.is_none();
    let nowhere = rule.from.is_none() && rule.out.is_none() && rule.state.is_none();
    nothing && nowhere && rule.others.is_empty()
}

fn address(rule: &Rule) -> Option<Ipv4Addr> {
    rule.to.as_ref()?.parse().ok()
}

/// What a chain is for, if it is of that program: `snat` of `nova-network-snat`.
fn part<'c>(chain: &'c str, program: &str) -> Option<&'c str> {
    chain.strip_prefix(program)?.strip_prefix('-').filter(|part| CHAINS.contains(part))
}
