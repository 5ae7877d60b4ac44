//! A security group: what may open a connection to its VMs.
//!
//! A rule is a protocol, a range of what that protocol has for ports, and who may come: a prefix,
//! or the members of a group. Those of one protocol are compiled to [`Ranges`].

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::ranges::{Ranges, Wanted, Who};

/// IP protocol number of UDP.
pub(crate) const UDP: u8 = 17;
/// Of ICMP, and of IPv6's.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Who may come by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Whoever bears an address of this prefix.
    Prefix(IpNet),
    /// The members of the group of this number.
    Members(u32),
}

impl Origin {
    /// Everybody by IPv4.
    pub const ANYBODY: Self = match Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0) {
        Ok(all) => Self::Prefix(IpNet::V4(all)),
        Err(_) => panic!("0 is a prefix length"),
    };
}

/// One rule: what of which protocol, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The protocol's number; none is every protocol.
    pub protocol: Option<u8>,
    /// The first port; of ICMP, type and code as one number.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// From whom.
    pub from: Origin,
}

/// Who is to be let in by a group's rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comer<'a> {
    /// The address it is judged by.
    pub(crate) address: IpAddr,
    /// The groups it is a member of, sorted.
    pub(crate) groups: &'a [u32],
    /// The protocol's number.
    pub(crate) protocol: u8,
    /// The port it wants, or type and code; none where the packet does not tell.
    pub(crate) port: Option<u16>,
}

/// A group's rules, compiled.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Its name.
    pub name: String,
    rules: Box<[Rule]>,
    ipv4: Family<u32>,
    ipv6: Family<u128>,
    asks_members: bool,
}

/// The rules that hold for addresses of one family.
#[derive(Clone, Debug, Default)]
struct Family<A> {
    /// Of every protocol.
    any: Ranges<A>,
    /// Of one protocol each, sorted by its number.
    protocols: Box<[(u8, Ranges<A>)]>,
}

/// A rule of a family, and its place.
type Part<A> = (Option<u8>, u16, u16, Who<A>, u32);

impl Group {
    /// Compiles the rules of a group. What holds for a protocol must cover all of its ports where
    /// it names no port.
    #[must_use]
    pub fn new(name: &str, rules: &[Rule]) -> Self {
        let parts = || rules.iter().zip(0..);
        let ipv4 = parts()
            .filter_map(|(rule, at)| Some((rule.protocol, rule.first, rule.last, ipv4(rule)?, at)));
        let ipv6 = parts().filter_map(|(rule, at)| {
            let (protocol, who) = ipv6(rule)?;
            Some((protocol, rule.first, rule.last, who, at))
        });
        Self {
            name: name.to_owned(),
            rules: rules.into(),
            ipv4: Family::of(&ipv4.collect::<Vec<_>>()),
            ipv6: Family::of(&ipv6.collect::<Vec<_>>()),
            asks_members: rules.iter().any(|rule| matches!(rule.from, Origin::Members(_))),
        }
    }

    /// Its rules, as they were given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a rule names members of a group.
    pub(crate) fn asks_members(&self) -> bool {
        self.asks_members
    }

    /// The place of a rule that lets the comer in.
    pub(crate) fn admits(&self, comer: &Comer<'_>) -> Option<u32> {
        match comer.address {
            IpAddr::V4(address) => self.ipv4.admits(comer, address.to_bits()),
            IpAddr::V6(address) => self.ipv6.admits(comer, address.to_bits()),
        }
    }
}

impl<A: Copy + Ord + Default> Family<A> {
    fn of(parts: &[Part<A>]) -> Self {
        let mut numbers: Vec<u8> = parts.iter().filter_map(|(protocol, ..)| *protocol).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let of = |wanted: Option<u8>| {
            Ranges::of(parts.iter().filter(|(protocol, ..)| *protocol == wanted).map(
                |(protocol, first, last, who, at)| {
                    let (first, last) = protocol.map_or((0, u16::MAX), |_| (*first, *last));
                    (first, last, *who, *at)
                },
            ))
        };
        let protocols = numbers.iter().map(|number| (*number, of(Some(*number)))).collect();
        Self { any: of(None), protocols }
    }

    fn admits(&self, comer: &Comer<'_>, address: A) -> Option<u32> {
        let at = self.protocols.binary_search_by_key(&comer.protocol, |(number, _)| *number);
        let own = at.ok().and_then(|at| self.protocols.get(at));
        let wanted = Wanted { address, groups: comer.groups, port: comer.port };
        self.any.admits(&wanted).or_else(|| own?.1.admits(&wanted))
    }
}

/// Whom a rule lets in by IPv4.
fn ipv4(rule: &Rule) -> Option<Who<u32>> {
    match rule.from {
        _ if rule.protocol == Some(ICMPV6) => None,
        Origin::Prefix(IpNet::V4(net)) => {
            Some(Who::Prefix(net.network().to_bits(), net.broadcast().to_bits()))
        }
        Origin::Prefix(IpNet::V6(_)) => None,
        Origin::Members(group) => Some(Who::Members(group)),
    }
}

/// The same by IPv6, and of which protocol. All of ICMP is all of ICMPv6; its types mean other
/// things there.
fn ipv6(rule: &Rule) -> Option<(Option<u8>, Who<u128>)> {
    let protocol = match (rule.protocol, rule.first, rule.last) {
        (Some(ICMP), 0, u16::MAX) => Some(ICMPV6),
        (Some(ICMP), ..) => return None,
        (protocol, ..) => protocol,
    };
    let who = match rule.from {
        Origin::Prefix(IpNet::V6(net)) => {
            Who::Prefix(net.network().to_bits(), net.broadcast().to_bits())
        }
        Origin::Prefix(IpNet::V4(_)) => return None,
        Origin::Members(group) => Who::Members(group),
    };
    Some((protocol, who))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;
    const ICMP: u8 = 1;

    fn rule(protocol: Option<u8>, first: u16, last: u16, from: &str) -> Rule {
        Rule { protocol, first, last, from: Origin::Prefix(from.parse().unwrap()) }
    }

    fn comer(address: [u8; 4], protocol: u8, port: u16) -> Comer<'static> {
        Comer { address: address.into(), groups: &[], protocol, port: Some(port) }
    }

    #[test]
    fn a_port_is_found_in_the_ranges_that_hold_it_and_in_no_other() {
        let group = Group::new(
            "web",
            &[
                rule(Some(TCP), 80, 80, "0.0.0.0/0"),
                rule(Some(TCP), 1, 65535, "10.1.0.0/24"),
                rule(Some(TCP), 8000, 8999, "10.2.0.0/16"),
            ],
        );
        let by = |address, port| group.admits(&comer(address, TCP, port));
        assert_eq!(by([8, 8, 8, 8], 80), Some(0));
        assert_eq!((by([8, 8, 8, 8], 79), by([8, 8, 8, 8], 81)), (None, None));
        assert_eq!((by([10, 1, 0, 4], 1), by([10, 1, 0, 4], 65535)), (Some(1), Some(1)));
        assert_eq!((by([10, 1, 0, 4], 0), by([10, 1, 1, 4], 22)), (None, None));
        assert_eq!((by([10, 2, 9, 9], 8000), by([10, 2, 9, 9], 8999)), (Some(2), Some(2)));
        assert_eq!((by([10, 2, 9, 9], 7999), by([10, 2, 9, 9], 9000)), (None, None));
        assert_eq!(group.admits(&comer([8, 8, 8, 8], UDP, 80)), None);
    }

    #[test]
    fn of_icmp_types_and_codes_are_one_range_each() {
        let echo = rule(Some(ICMP), 8 << 8, 8 << 8, "0.0.0.0/0");
        let unreachable = rule(Some(ICMP), 3 << 8, 3 << 8 | 255, "0.0.0.0/0");
        let group = Group::new("icmp", &[echo, unreachable]);
        let by = |kind: u16, code: u16| group.admits(&comer([1, 2, 3, 4], ICMP, kind << 8 | code));
        assert_eq!((by(8, 0), by(8, 1), by(3, 13), by(0, 0)), (Some(0), None, Some(1), None));
    }

    #[test]
    fn what_does_not_tell_its_port_comes_in_only_where_all_ports_are_open() {
        let unknown = Comer { port: None, ..comer([10, 0, 0, 3], UDP, 0) };
        let some = Group::new("some", &[rule(Some(UDP), 1, 65535, "0.0.0.0/0")]);
        let all = Group::new("all", &[rule(Some(UDP), 0, 65535, "0.0.0.0/0")]);
        let any = Group::new("any", &[rule(None, 0, 65535, "10.0.0.0/8")]);
        let found = [&some, &all, &any, &Group::default()].map(|group| group.admits(&unknown));
        assert_eq!(found, [None, Some(0), Some(0), None]);
    }

    #[test]
    fn members_of_a_group_come_in_by_what_they_are_and_not_by_their_address() {
        let of = |group| Rule {
            protocol: Some(TCP),
            first: 3306,
            last: 3306,
            from: Origin::Members(group),
        };
        let group = Group::new("db", &[of(7), of(3), of(7)]);
        let by = |groups: &'static [u32]| {
            group.admits(&Comer { groups, ..comer([10, 0, 0, 3], TCP, 3306) })
        };
        assert_eq!(
            (by(&[1, 3, 9]), by(&[7]), by(&[]), by(&[4, 8])),
            (Some(1), Some(0), None, None)
        );
    }

    #[test]
    fn prefixes_within_one_another_are_one() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "10.255.255.255/32", "9.0.0.0/8", "10.0.0.0/8"];
        let rules = nets.map(|net| rule(None, 0, 65535, net));
        let group = Group::new("nested", &rules);
        let by = |address| group.admits(&comer(address, TCP, 1));
        assert_eq!(
            (by([10, 1, 0, 1]), by([9, 0, 0, 0]), by([11, 0, 0, 0])),
            (Some(0), Some(3), None)
        );
    }

    #[test]
    fn a_rule_of_one_family_says_nothing_of_the_other_and_members_are_of_both() {
        let group = Group::new(
            "six",
            &[
                rule(Some(TCP), 22, 22, "2001:db8::/32"),
                rule(Some(TCP), 80, 80, "0.0.0.0/0"),
                rule(None, 0, 65535, "fd00::7/128"),
                Rule { protocol: Some(ICMP), first: 0, last: 65535, from: Origin::Members(3) },
                Rule { protocol: Some(ICMP), first: 2048, last: 2048, from: Origin::Members(4) },
                Rule {
                    protocol: Some(ICMPV6),
                    first: 32768,
                    last: 33023,
                    from: Origin::Members(4),
                },
            ],
        );
        let by = |address: &str, groups: &'static [u32], protocol, port| {
            let address = address.parse().unwrap();
            group.admits(&Comer { address, groups, protocol, port: Some(port) })
        };
        assert_eq!(by("2001:db8:ffff::1", &[], TCP, 22), Some(0));
        assert_eq!(
            (by("2001:db9::1", &[], TCP, 22), by("2001:db8::1", &[], TCP, 80)),
            (None, None)
        );
        assert_eq!((by("8.8.8.8", &[], TCP, 80), by("8.8.8.8", &[], TCP, 22)), (Some(1), None));
        assert_eq!((by("fd00::7", &[], UDP, 9), by("fd00::8", &[], UDP, 9)), (Some(2), None));
        assert_eq!(
            (by("fd00::1", &[3], ICMPV6, 5), by("10.0.0.1", &[3], ICMP, 5)),
            (Some(3), Some(3))
        );
        let echo = |address, protocol, kind: u16| by(address, &[4], protocol, kind << 8);
        assert_eq!((echo("fd00::1", ICMPV6, 128), echo("fd00::1", ICMPV6, 8)), (Some(5), None));
        assert_eq!((echo("10.0.0.1", ICMP, 8), echo("10.0.0.1", ICMP, 128)), (Some(4), None));
    }
}
