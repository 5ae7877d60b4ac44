//! The rules of one protocol for one family of addresses, in a form that is asked in O(log n) of
//! them.
//!
//! Two prefixes lie one within the other, or apart. So those that hold an address are a chain from
//! the narrowest outwards: a binary search finds where it begins, and each knows which is next
//! around it. A prefix has its rules' ranges of ports, sorted, of which none holds another: a
//! binary search again. What a prefix opens is left out of those within it, so only those are in
//! the chain that open something more. Members are asked for in the same way, by the numbers of
//! their groups, which never lie in one another.

use std::cmp::Reverse;

/// Whom a rule lets in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<A> {
    /// Whoever bears an address of this prefix, from its first to its last.
    Prefix(A, A),
    /// The members of the group of this number.
    Members(u32),
}

/// Who wants in, and where to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a, A> {
    /// The address it is judged by.
    pub(crate) address: A,
    /// The groups it is a member of.
    pub(crate) groups: &'a [u32],
    /// The port; none where the packet does not tell.
    pub(crate) port: Option<u16>,
}

/// The rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges<A> {
    prefixes: Nested<A>,
    groups: Nested<u32>,
}

impl<A: Copy + Ord + Default> Ranges<A> {
    /// Of rules with their first and last port, and their places.
    pub(crate) fn of(rules: impl Iterator<Item = (u16, u16, Who<A>, u32)>) -> Self {
        let (mut prefixes, mut groups) = (Vec::new(), Vec::new());
        for (first, last, who, rule) in rules {
            let ports = Ports { first, last, rule };
            match who {
                Who::Prefix(first, last) => prefixes.push((first, last, ports)),
                Who::Members(group) => groups.push((group, group, ports)),
            }
        }
        Self { prefixes: Nested::of(prefixes), groups: Nested::of(groups) }
    }

    /// The place of a rule that lets somebody in. For what tells no port it is one of all ports.
    pub(crate) fn admits(&self, wanted: &Wanted<'_, A>) -> Option<u32> {
        let ports = wanted.port.map_or((0, u16::MAX), |port| (port, port));
        let by_group = || wanted.groups.iter().find_map(|it| self.groups.open(*it, ports));
        self.prefixes.open(wanted.address, ports).or_else(by_group)
    }
}

/// Ports, and the place of the rule that opens them.
#[derive(Clone, Copy, Debug)]
struct Ports {
    first: u16,
    last: u16,
    rule: u32,
}

/// Ranges that lie in one another or apart, and the ports that each opens.
#[derive(Clone, Debug, Default)]
struct Nested<A> {
    /// Where they begin, sorted; of those that begin alike the widest is first. On their own, so that a
    /// cache line holds as many as it can.
    firsts: Vec<A>,
    /// The rest of each.
    nets: Vec<Net<A>>,
    /// What they open: each a part of this, sorted, in which none holds another. So of those that
    /// begin at a port or before it, the last goes furthest.
    ports: Vec<Ports>,
}

#[derive(Clone, Copy, Debug)]
struct Net<A> {
    last: A,
    /// The narrowest one around it; the outermost have a number that none has.
    around: u32,
    /// Its part of all ports.
    ports: (u32, u32),
}

impl<A: Copy + Ord + Default> Nested<A> {
    fn of(mut rules: Vec<(A, A, Ports)>) -> Self {
        rules.sort_unstable_by_key(|(first, last, ports)| {
            (*first, Reverse(*last), ports.first, Reverse(ports.last), ports.rule)
        });
        let mut made = Self::default();
        for (first, last, ports) in rules {
            made.add(first, last, ports);
        }
        made.firsts.shrink_to_fit();
        made.nets.shrink_to_fit();
        made.ports.shrink_to_fit();
        made
    }

    /// Adds a range that begins behind those that are here, or within them, and what it opens.
    fn add(&mut self, first: A, last: A, ports: Ports) {
        let mut around = (self.nets.len() as u32).wrapping_sub(1);
        while let Some(net) = self.nets.get(around as usize)
            && net.last < first
        {
            around = net.around;
        }
        if self.opened(around, first, (ports.first, ports.last)).is_some() {
            return;
        }
        let end = self.ports.len() as u32 + 1;
        match (self.firsts.last(), self.nets.last_mut()) {
            (Some(begin), Some(net)) if (*begin, net.last) == (first, last) => net.ports.1 = end,
            _ => {
                self.firsts.push(first);
                self.nets.push(Net { last, around, ports: (end - 1, end) });
            }
        }
        self.ports.push(ports);
    }

    /// The place of a rule that opens all of these ports to what is at `at`.
    fn open(&self, at: A, wanted: (u16, u16)) -> Option<u32> {
        let near = self.firsts.partition_point(|first| *first <= at).checked_sub(1)?;
        self.opened(near as u32, at, wanted)
    }

    /// The same, by this range or one around it.
    fn opened(&self, mut near: u32, at: A, (first, last): (u16, u16)) -> Option<u32> {
        while let Some(net) = self.nets.get(near as usize) {
            if at <= net.last {
                let ports = self.ports.get(net.ports.0 as usize..net.ports.1 as usize)?;
                let behind = ports.partition_point(|ports| ports.first <= first);
                if let Some(ports) = behind.checked_sub(1).and_then(|at| ports.get(at))
                    && last <= ports.last
                {
                    return Some(ports.rule);
                }
            }
            near = net.around;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Rules<A> = Vec<(u16, u16, Who<A>)>;

    fn compiled<A: Copy + Ord + Default>(rules: &Rules<A>) -> Ranges<A> {
        Ranges::of(rules.iter().zip(0..).map(|((first, last, who), at)| (*first, *last, *who, at)))
    }

    fn lets_in<A: Copy + Ord>(rule: &(u16, u16, Who<A>), wanted: &Wanted<'_, A>) -> bool {
        let (first, last, who) = rule;
        let from_fits = match who {
            Who::Prefix(from, to) => (*from..=*to).contains(&wanted.address),
            Who::Members(group) => wanted.groups.contains(group),
        };
        let fits = |port| (*first..=*last).contains(&port);
        from_fits && wanted.port.map_or((*first, *last) == (0, u16::MAX), fits)
    }

    /// What a walk through all rules says; and the rule that is named lets this in.
    fn agree<A: Copy + Ord + Default>(rules: &Rules<A>, wanted: &Wanted<'_, A>) -> bool {
        match compiled(rules).admits(wanted) {
            Some(at) => lets_in(&rules[at as usize], wanted),
            None => !rules.iter().any(|rule| lets_in(rule, wanted)),
        }
    }

    /// Addresses that differ early, late or not at all, and lie at the ends of what there is.
    fn address() -> impl Strategy<Value = u128> {
        let ends = prop::sample::select(vec![0, u128::MAX, 10 << 120, 0xfd00 << 112]);
        (ends, 0..128u32, 0..4u128).prop_map(|(end, shift, some)| end ^ some << shift)
    }

    fn prefix() -> impl Strategy<Value = (u128, u128)> {
        (address(), 0..=128u32).prop_map(|(address, length)| {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            (address & !host, address | host)
        })
    }

    fn ports() -> impl Strategy<Value = (u16, u16)> {
        let port = || prop_oneof![0..6u16, 65_530..=u16::MAX, any::<u16>()];
        let some = (port(), port()).prop_map(|(one, two)| (one.min(two), one.max(two)));
        prop_oneof![8 => some, 1 => Just((0, u16::MAX))]
    }

    fn rules() -> impl Strategy<Value = Rules<u128>> {
        let who = prop_oneof![
            4 => prefix().prop_map(|(first, last)| Who::Prefix(first, last)),
            1 => (0..4u32).prop_map(Who::Members),
        ];
        let rule = (ports(), who).prop_map(|((first, last), who)| (first, last, who));
        prop::collection::vec(rule, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn they_say_what_a_walk_through_all_rules_says(
            rules in rules(),
            asked in prop::collection::vec((address(), prop::option::weighted(0.9, ports())), 32),
            groups in prop::sample::subsequence(vec![0u32, 1, 2, 3, 4], 0..3),
        ) {
            // The first 32 bits of these are IPv4 prefixes.
            let short = |address: u128| (address >> 96) as u32;
            let narrow = |who| match who {
                Who::Prefix(first, last) => Who::Prefix(short(first), short(last)),
                Who::Members(group) => Who::Members(group),
            };
            let four = rules.iter().map(|(first, last, who)| (*first, *last, narrow(*who))).collect();
            for (address, port) in asked {
                let port = port.map(|(port, _)| port);
                let wanted = Wanted { address, groups: &groups, port };
                prop_assert!(agree(&rules, &wanted), "{:x?}", wanted);
                let wanted = Wanted { address: short(address), groups: &groups, port };
                prop_assert!(agree(&four, &wanted), "{:x?}", wanted);
            }
        }
    }

    #[test]
    fn what_is_open_already_is_left_out() {
        let of = |rules: &Rules<u32>| {
            let prefixes = compiled(rules).prefixes;
            (prefixes.nets.len(), prefixes.ports.len())
        };
        let net = Who::Prefix(10 << 24, (11 << 24) - 1);
        let within = Who::Prefix(10 << 24 | 1 << 16, (10 << 24 | 2 << 16) - 1);
        assert_eq!(of(&vec![(80, 90, net), (85, 90, within), (80, 81, net)]), (1, 1));
        // Not those of which only a part is open.
        assert_eq!(of(&vec![(80, 90, net), (85, 91, within)]), (2, 2));
        assert_eq!(of(&vec![(80, 90, net), (85, 91, net)]), (1, 2));
        assert_eq!(of(&vec![(80, 90, within), (85, 90, net)]), (2, 2));
        assert_eq!(of(&vec![(0, 9, net), (10, 19, net), (5, 15, net), (12, 14, net)]), (1, 3));
    }

    #[test]
    fn who_is_only_beside_a_prefix_is_not_asked_about_it() {
        let hosts = (0..9u32).map(|at| (80, 80, Who::Prefix(at, at)));
        let rules = hosts.chain([(22, 22, Who::Prefix(4, 7)), (23, 23, Who::Prefix(0, u32::MAX))]);
        let prefixes = compiled(&rules.collect()).prefixes;
        let around = |first: usize| {
            let at = prefixes.firsts.partition_point(|begin| *begin <= first as u32) - 1;
            let net = prefixes.nets[prefixes.nets[at].around as usize];
            (net.last, prefixes.ports[net.ports.0 as usize].first)
        };
        assert_eq!((0..9).map(around).filter(|net| *net == (u32::MAX, 23)).count(), 5);
        assert_eq!((4..8).map(around).filter(|net| *net == (7, 22)).count(), 4);
    }

    #[test]
    fn a_rule_is_named_by_its_place_however_many_prefixes_are_around() {
        let around = |length: u32| Who::Prefix(0, u128::MAX.checked_shr(length).unwrap_or(0));
        let rules: Rules<u128> = (0..=128).map(|at| (at as u16, at as u16, around(at))).collect();
        let compiled = compiled(&rules);
        let by =
            |address, port| compiled.admits(&Wanted { address, groups: &[], port: Some(port) });
        assert_eq!(
            (by(0, 0), by(0, 77), by(0, 128), by(0, 129)),
            (Some(0), Some(77), Some(128), None)
        );
        assert_eq!((by(1 << 50, 77), by(1 << 50, 78)), (Some(77), None));
    }
}
