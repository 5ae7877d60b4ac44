//! What nova's rules say: whose addresses are translated to what, and what else they do.
//!
//! Every program of nova has chains of its own, named after it (`nova-network-snat`,
//! `nova-compute-local`), and shares a few. They are found by their shape, since the part in front
//! differs between releases.

mod meaning;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::save::{Rule, Saved};

/// The kernel's own chains.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// VMs without a floating address are seen with this address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNat {
    /// Which VMs.
    pub source: Ipv4Net,
    /// Towards where; none is everywhere.
    pub destination: Option<Ipv4Net>,
    /// Only if they leave by this interface.
    pub interface: Option<String>,
    /// The address.
    pub to: Ipv4Addr,
}

/// A floating address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Float {
    /// The address.
    pub address: Ipv4Addr,
    /// The VM's own.
    pub fixed: Ipv4Addr,
    /// Where its VM's packets leave; none if no rule says so.
    pub interface: Option<String>,
}

/// Where metadata is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The server; none is this node.
    pub host: Option<Ipv4Addr>,
    /// Its port.
    pub port: Option<u16>,
}

/// The security group rules of a VM's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The VM's address.
    pub address: Ipv4Addr,
    /// Its chain.
    pub chain: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// All that nova's rules say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NovaRules {
    /// The programs that have chains, such as `nova-network`.
    pub programs: Vec<String>,
    /// Chains that are nova's, as (table, name).
    pub chains: BTreeSet<(String, String)>,
    /// Rules that are nova's, jumps from the kernel's chains among them.
    pub rules: Vec<Rule>,
    /// Source translation.
    pub source_nat: Vec<SourceNat>,
    /// Floating addresses.
    pub floats: Vec<Float>,
    /// Destinations that see a VM's own address, as (which VMs, destination).
    pub exempt: Vec<(Ipv4Net, Ipv4Net)>,
    /// Networks whose packets among themselves are not translated.
    pub same: Vec<Ipv4Net>,
    /// Metadata.
    pub metadata: Option<Metadata>,
    /// Security groups.
    pub groups: Vec<Group>,
    /// Bridges that the rules name.
    pub bridges: BTreeSet<String>,
    /// Rules that keep networks from one another (`forward_bridge_interface`).
    pub limits: Vec<Rule>,
    /// Gateway addresses that other nodes have as well.
    pub shared: BTreeSet<Ipv4Addr>,
    /// Rules in nova's chains that are not understood.
    pub unknown: Vec<Rule>,
    /// Rules of others that may concern VMs' packets.
    pub foreign: Vec<Rule>,
}

impl NovaRules {
    /// What nova's part of iptables says.
    #[must_use]
    pub fn of(saved: &Saved) -> Self {
        let mut nova = Self { programs: programs(saved), ..Self::default() };
        nova.chains = nova.reach(saved);
        let mut outgoing = Vec::new();
        for rule in &saved.rules {
            let jumps = rule.target.as_ref().is_some_and(|to| nova.has(&rule.table, to));
            if nova.has(&rule.table, &rule.chain) {
                nova.read(rule, jumps, &mut outgoing);
            } else if !jumps {
                if may_concern_vms(rule) {
                    nova.foreign.push(rule.clone());
                }
                continue;
            }
            nova.rules.push(rule.clone());
        }
        nova.settle(&outgoing, saved);
        nova
    }

    /// Takes in what the rules of ebtables say: that a gateway address is not nova's alone.
    ///
    /// nova keeps such an address from being asked for, or announced, across the trunk.
    pub fn read_ebtables(&mut self, saved: &Saved) {
        for rule in &saved.rules {
            let isolates = ["--arp-ip-dst", "--arp-ip-src"];
            let [option, address] = rule.others.as_slice() else { continue };
            if rule.target.as_deref() == Some("DROP") && isolates.contains(&option.as_str()) {
                self.shared.extend(address.parse::<Ipv4Addr>().ok());
            }
        }
    }

    fn has(&self, table: &str, chain: &str) -> bool {
        self.chains.contains(&(table.to_owned(), chain.to_owned()))
    }

    /// Chains of nova's programs, those that lead to them, and those they lead to.
    fn reach(&self, saved: &Saved) -> BTreeSet<(String, String)> {
        let of_a_program = |chain: &str| self.programs.iter().any(|it| belongs(chain, it));
        let mut reached: BTreeSet<(String, String)> =
            saved.chains.iter().filter(|(_, chain)| of_a_program(chain)).cloned().collect();
        loop {
            let before = reached.len();
            for rule in &saved.rules {
                let chain = (rule.table.clone(), rule.chain.clone());
                let Some(target) = &rule.target else { continue };
                let target = (rule.table.clone(), target.clone());
                if !saved.chains.contains(&target) {
                    continue;
                }
                if reached.contains(&chain) {
                    reached.insert(target);
                } else if reached.contains(&target) && !BUILT_IN.contains(&chain.1.as_str()) {
                    reached.insert(chain);
                }
            }
            if reached.len() == before {
                return reached;
            }
        }
    }

    /// What can be said only when all rules are known.
    fn settle(&mut self, outgoing: &[Float], saved: &Saved) {
        for float in &mut self.floats {
            let same = |it: &&Float| (it.address, it.fixed) == (float.address, float.fixed);
            float.interface = outgoing.iter().find(same).and_then(|it| it.interface.clone());
        }
        // Of a VM's several floating addresses the one it is seen with comes first.
        self.floats.sort_by_key(|float| {
            let same = |it: &Float| (it.address, it.fixed) == (float.address, float.fixed);
            outgoing.iter().position(same).unwrap_or(outgoing.len())
        });
        for group in &mut self.groups {
            let of = |rule: &&Rule| rule.table == "filter" && rule.chain == group.chain;
            group.rules = saved.rules.iter().filter(of).cloned().collect();
        }
        // A chain of security groups may stand before the jump that says that it is one.
        let groups: Vec<&str> = self.groups.iter().map(|group| group.chain.as_str()).collect();
        self.unknown.retain(|rule| !groups.contains(&rule.chain.as_str()));
    }
}

/// The host's own traffic is still judged by iptables, VMs' is not.
fn may_concern_vms(rule: &Rule) -> bool {
    rule.table != "filter" || !["INPUT", "OUTPUT"].contains(&rule.chain.as_str())
}

fn belongs(chain: &str, program: &str) -> bool {
    chain.strip_prefix(program).is_some_and(|rest| rest.starts_with('-'))
}

/// Those who have a chain for VMs' addresses, or for their floating ones.
fn programs(saved: &Saved) -> Vec<String> {
    let mut programs = BTreeSet::new();
    for (table, chain) in &saved.chains {
        let name = match table.as_str() {
            "nat" => chain.strip_suffix("-float-snat"),
            "filter" => chain.strip_suffix("-local"),
            _ => None,
        };
        // neutron's were modelled on nova's, and are none.
        let other = |name: &&str| name.starts_with("neutron-") || name.starts_with("quantum-");
        let Some(name) = name.filter(|name| !name.is_empty() && !other(name)) else { continue };
        let forward = ("filter".to_owned(), format!("{name}-FORWARD"));
        if table == "nat" || saved.chains.contains(&forward) {
            programs.insert(name.to_owned());
        }
    }
    programs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> NovaRules {
        NovaRules::of(&Saved::parse(text))
    }

    #[test]
    fn programs_are_found_by_the_shape_of_their_chains() {
        // As of a node whose nova-api serves metadata, which iptables cuts to 16 letters; and what
        // looks like it.
        let nova = rules(
            "*nat\n:nova-api-metadat-float-snat - [0:0]\n:neutron-l3-float-snat - [0:0]\n*filter\n\
             :nova-compute-local - [0:0]\n:nova-compute-FORWARD - [0:0]\n:ufw-not-local - [0:0]\n\
             :ufw-before-forward - [0:0]\n:-local - [0:0]\n",
        );
        assert_eq!(nova.programs, ["nova-api-metadat", "nova-compute"]);
        assert_eq!(rules("").programs, [""; 0]);
    }

    #[test]
    fn chains_are_nova_s_if_they_lead_to_or_come_from_a_program_s() {
        let nova = rules(
            "*filter\n:FORWARD ACCEPT [0:0]\n:top - [0:0]\n:compute-local - [0:0]\n\
             :compute-FORWARD - [0:0]\n:vm1 - [0:0]\n:fallback - [0:0]\n:mine - [0:0]\n\
             -A FORWARD -j top\n-A FORWARD -j mine\n-A top -j compute-local\n-A fallback -j DROP\n\
             -A vm1 -s 10.0.0.0/24 -p tcp -m tcp --dport 22 -j ACCEPT\n-A vm1 -j fallback\n\
             -A compute-local -d 10.0.0.3/32 -j vm1\n-A mine -j ACCEPT\n",
        );
        let chains: Vec<&str> = nova.chains.iter().map(|(_, chain)| chain.as_str()).collect();
        assert_eq!(chains, ["compute-FORWARD", "compute-local", "fallback", "top", "vm1"]);
        assert_eq!((nova.rules.len(), nova.unknown.len()), (6, 0));
        let foreign: Vec<&str> = nova.foreign.iter().map(|rule| rule.text.as_str()).collect();
        assert_eq!(foreign, ["-A FORWARD -j mine", "-A mine -j ACCEPT"]);
        let [group] = &nova.groups[..] else { panic!("{nova:?}") };
        assert_eq!((group.chain.as_str(), group.rules.len()), ("vm1", 2));
    }

    #[test]
    fn a_gateway_that_all_nodes_have_is_kept_off_the_trunk() {
        let nova = rules(
            "*filter\n:nova-network-local - [0:0]\n:nova-network-FORWARD - [0:0]\n\
             -A nova-network-FORWARD -d 255.255.255.255/32 -p udp -m physdev --physdev-in vlan100 \
             -m udp --dport 67 -j DROP\n\
             -A nova-network-FORWARD -d 10.0.0.1/32 -m physdev --physdev-in vlan100 -j DROP\n\
             -A nova-network-FORWARD -s 10.0.0.1/32 -m physdev --physdev-out vlan100 -j DROP\n",
        );
        assert_eq!(nova.shared, BTreeSet::from([Ipv4Addr::new(10, 0, 0, 1)]));
        assert!(nova.unknown.is_empty() && nova.limits.is_empty());
        let mut nova = rules("");
        nova.read_ebtables(&Saved::parse(
            "*filter\n:OUTPUT ACCEPT\n-A OUTPUT -p ARP -o vlan100 --arp-ip-src 10.0.0.1 -j DROP\n\
             -A OUTPUT -p IPv4 -o vlan100 --ip-proto udp --ip-dport 67:68 -j DROP\n",
        ));
        assert_eq!(nova.shared.len(), 1);
    }
}
