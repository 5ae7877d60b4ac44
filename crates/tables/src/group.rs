//! A security group: what may open a connection to its VMs.
//!
//! A rule is a protocol, a range of what that protocol has for ports, and who may come: a prefix,
//! or the members of a group. Those of one protocol are compiled to [`Ranges`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::ranges::{Ranges, Wanted, Who};

/// IP protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// Who may come by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Whoever bears an address of this prefix.
    Prefix(Ipv4Net),
    /// The members of the group of this number.
    Members(u32),
}

impl Origin {
    /// Everybody.
    pub const ANYBODY: Self = Self::Prefix(match Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0) {
        Ok(all) => all,
        Err(_) => panic!("0 is a prefix length"),
    });
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
    pub(crate) address: [u8; 4],
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
    /// Rules of every protocol.
    any: Ranges<u32>,
    /// Rules of one protocol each, sorted by its number.
    protocols: Box<[(u8, Ranges<u32>)]>,
    asks_members: bool,
}

impl Group {
    /// Compiles the rules of a group. What holds for a protocol must cover all of its ports where
    /// it names no port.
    #[must_use]
    pub fn new(name: &str, rules: &[Rule]) -> Self {
        let mut numbers: Vec<u8> = rules.iter().filter_map(|rule| rule.protocol).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let of = |protocol: Option<u8>| {
            let all = rules.iter().zip(0..).filter(move |(rule, _)| rule.protocol == protocol);
            Ranges::of(all.map(move |(rule, at)| {
                let (first, last) = protocol.map_or((0, u16::MAX), |_| (rule.first, rule.last));
                (first, last, who(rule.from), at)
            }))
        };
        Self {
            name: name.to_owned(),
            rules: rules.into(),
            any: of(None),
            protocols: numbers.iter().map(|number| (*number, of(Some(*number)))).collect(),
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
        let at = self.protocols.binary_search_by_key(&comer.protocol, |(number, _)| *number);
        let own = at.ok().and_then(|at| self.protocols.get(at));
        let address = u32::from_be_bytes(comer.address);
        let wanted = Wanted { address, groups: comer.groups, port: comer.port };
        self.any.admits(&wanted).or_else(|| own?.1.admits(&wanted))
    }
}

fn who(from: Origin) -> Who<u32> {
    match from {
        Origin::Prefix(net) => Who::Prefix(net.network().to_bits(), net.broadcast().to_bits()),
        Origin::Members(group) => Who::Members(group),
    }
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
        Comer { address, groups: &[], protocol, port: Some(port) }
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
}
