//! The compiled form of security groups says what a plain walk through all rules says.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use tables::{Ask, Group, Groups, Let, Member, Origin, Own, PortId, Rule, Wall, Walls, ZoneId};

const GROUPS: u32 = 4;

fn zone(number: u16) -> ZoneId {
    ZoneId::new(number).unwrap_or(ZoneId::NONE)
}

fn vif() -> PortId {
    PortId::new(11).unwrap()
}

/// Whether a rule lets somebody in, as a reader of the rules would say.
fn lets_in(rule: &Rule, ask: &Ask, members: &[Vec<Member>]) -> bool {
    let port_fits = match ask.port {
        Some(port) => (rule.first..=rule.last).contains(&port),
        None => (rule.first, rule.last) == (0, 65535),
    };
    let from_fits = match rule.from {
        Origin::Prefix(net) => {
            let address = if ask.zone == zone(1) { ask.source } else { ask.seen };
            net.contains(&address)
        }
        Origin::Members(group) => members[group as usize].contains(&(ask.zone, ask.source)),
    };
    let protocol_fits = match (rule.protocol, ask.source) {
        (None, _) => true,
        (Some(1), IpAddr::V6(_)) => ask.protocol == 58 && (rule.first, rule.last) == (0, 65535),
        (Some(58), IpAddr::V4(_)) => false,
        (Some(protocol), _) => protocol == ask.protocol,
    };
    protocol_fits && port_fits && from_fits
}

/// Ports that ranges begin and end at, and those beside them.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0u16..6, 20u16..24, 65530u16..=65535, any::<u16>()]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let ipv4 = (0u8..3, 0u8..2, 0u8..8).prop_map(|(b, c, d)| [10, b, c, d].into());
    let ipv6 =
        (0u16..3, 0u16..2, 0u16..8).prop_map(|(b, c, d)| [0xfd00, b, 0, 0, 0, 0, c, d].into());
    prop_oneof![3 => ipv4, 1 => ipv6]
}

fn rule() -> impl Strategy<Value = Rule> {
    let from = prop_oneof![
        (address(), prop::sample::select(vec![0u8, 8, 15, 16, 24, 30, 32])).prop_map(
            |(address, length)| {
                let length = if address.is_ipv6() { length * 4 } else { length };
                Origin::Prefix(IpNet::new(address, length).unwrap())
            }
        ),
        (0..GROUPS).prop_map(Origin::Members),
    ];
    let protocol = prop::sample::select(vec![Some(6), Some(17), Some(1), Some(58), None]);
    let range = prop_oneof![Just((0, 65535)), (port(), port())];
    (protocol, range, from).prop_map(|(protocol, (one, two), from)| {
        // What holds for every protocol holds for all of its ports.
        let (one, two) = if protocol.is_none() { (0, 65535) } else { (one, two) };
        Rule { protocol, first: one.min(two), last: one.max(two), from }
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let protocol = prop::sample::select(vec![6u8, 17, 1, 58, 47]);
    (0u16..3, address(), address(), protocol, prop::option::weighted(0.9, port())).prop_map(
        |(number, source, seen, protocol, port)| Ask {
            zone: zone(number),
            source,
            seen: if seen.is_ipv4() == source.is_ipv4() { seen } else { source },
            protocol,
            source_port: 40_000,
            port,
            bridged: false,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn compiled_rules_say_what_the_rules_say(
        rules in prop::collection::vec(prop::collection::vec(rule(), 0..24), GROUPS as usize),
        members in prop::collection::vec(
            prop::collection::vec((1u16..3, address()), 0..6), GROUPS as usize),
        of in prop::collection::vec(0..GROUPS, 0..3),
        asks in prop::collection::vec(ask(), 64),
    ) {
        let members: Vec<Vec<Member>> = members
            .iter()
            .map(|all| all.iter().map(|(number, address)| (zone(*number), *address)).collect())
            .collect();
        let compiled = rules.iter().zip(&members).map(|(rules, members)| {
            (Arc::new(Group::new("g", rules)), members.clone())
        });
        let groups = Arc::new(Groups::new(compiled.collect()));
        let wall = Wall { zone: zone(1), groups: of.clone().into(), ..Wall::default() };
        let walls = Walls::new(groups, vec![(vif(), wall)], true);
        for ask in asks {
            let plain = of.iter().any(|group| {
                rules[*group as usize].iter().any(|rule| lets_in(rule, &ask, &members))
            });
            let said = walls.judge(vif(), &ask);
            prop_assert_eq!(said.is_some(), plain, "{:?}", ask);
            // The rule it names is one that lets this in.
            if let Some(Let::By(group, at)) = said {
                prop_assert!(lets_in(&rules[group as usize][at as usize], &ask, &members));
            }
        }
    }
}

fn plain_ask(zone_number: u16, source: [u8; 4]) -> Ask {
    let (zone, source, seen) = (zone(zone_number), source.into(), source.into());
    Ask { zone, source, seen, protocol: 6, source_port: 40_000, port: Some(22), bridged: true }
}

fn wall(own: Option<Own>) -> Wall {
    Wall { zone: zone(1), own, servers: [[10, 0, 0, 1]].into(), ..Wall::default() }
}

fn one(wall: Wall) -> Walls {
    Walls::new(Arc::default(), vec![(vif(), wall)], true)
}

#[test]
fn without_a_rule_the_own_network_comes_in_and_dhcp_and_nobody_else() {
    let net = "10.0.0.0/24".parse().unwrap();
    let own = one(wall(Some(Own::Subnet(zone(1), net))));
    assert_eq!(own.judge(vif(), &plain_ask(1, [10, 0, 0, 3])), Some(Let::Own));
    assert_eq!(own.judge(vif(), &plain_ask(1, [10, 1, 0, 3])), None);
    // The same address elsewhere is somebody else, and on the public side a lie.
    assert_eq!(own.judge(vif(), &plain_ask(2, [10, 0, 0, 3])), None);
    assert_eq!(own.judge(vif(), &plain_ask(0, [10, 0, 0, 3])), None);
    let none = one(wall(None));
    assert_eq!(none.judge(vif(), &plain_ask(1, [10, 0, 0, 3])), None);
    let offer =
        Ask { protocol: 17, source_port: 67, port: Some(68), ..plain_ask(1, [10, 0, 0, 1]) };
    assert_eq!(none.judge(vif(), &offer), Some(Let::Dhcp));
    for other in [
        Ask { source: [10, 0, 0, 9].into(), ..offer },
        Ask { port: Some(53), ..offer },
        Ask { source_port: 68, ..offer },
        Ask { protocol: 6, ..offer },
        Ask { zone: zone(0), ..offer },
    ] {
        assert_eq!(none.judge(vif(), &other), None, "{other:?}");
    }
    let bridged = one(wall(Some(Own::Bridged)));
    assert_eq!(bridged.judge(vif(), &plain_ask(1, [192, 0, 2, 1])), Some(Let::Own));
    let routed = Ask { bridged: false, ..plain_ask(1, [192, 0, 2, 1]) };
    assert_eq!(bridged.judge(vif(), &routed), None);
}

#[test]
fn of_ipv6_the_own_network_is_the_link_and_what_its_routers_tell() {
    let (net, net6) = ("10.0.0.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap());
    let six = |address: &str| {
        let source = address.parse().unwrap();
        Ask { source, seen: source, ..plain_ask(1, [0; 4]) }
    };
    let own = wall(Some(Own::Subnet(zone(1), net)));
    let link = one(own.clone());
    assert_eq!(link.judge(vif(), &six("fe80::1")), Some(Let::Own));
    assert_eq!(link.judge(vif(), &six("2001:db8:1::1")), None);
    let told = one(Wall { own6: Some(net6), ..own });
    assert_eq!(told.judge(vif(), &six("2001:db8:1::1")), Some(Let::Own));
    assert_eq!(told.judge(vif(), &six("2001:db8:2::1")), None);
    assert_eq!(one(wall(None)).judge(vif(), &six("fe80::1")), None);
    assert_eq!(one(wall(Some(Own::Bridged))).judge(vif(), &six("2001:db8:2::1")), Some(Let::Own));
    assert!(!told.guard_alike(&link, vif()));
}

#[test]
fn before_a_port_without_a_wall_everybody_comes_in() {
    let walls = Walls::default();
    assert!(!walls.stand());
    assert_eq!(walls.judge(vif(), &plain_ask(1, [10, 0, 0, 3])), Some(Let::Open));
}

#[test]
fn a_wall_is_another_one_when_a_rule_or_a_member_it_asks_for_is() {
    let web = |rules: &[Rule]| Arc::new(Group::new("web", rules));
    let from_db = Rule { protocol: Some(6), first: 80, last: 80, from: Origin::Members(1) };
    let make = |rules: &[Rule], db: &[Member], other: &[Member]| {
        let db = (Arc::new(Group::new("db", &[])), db.to_vec());
        let other = (Arc::new(Group::new("other", &[])), other.to_vec());
        let groups = Groups::new(vec![(web(rules), Vec::new()), db, other]);
        let wall = Wall { zone: zone(1), groups: [0].into(), ..Wall::default() };
        Walls::new(Arc::new(groups), vec![(vif(), wall)], true)
    };
    let [four, five] = [4, 5].map(|last| (zone(1), [10, 0, 0, last].into()));
    let before = make(&[from_db], &[four], &[]);
    assert!(make(&[from_db], &[four], &[]).guard_alike(&before, vif()));
    assert!(make(&[from_db], &[four], &[five]).guard_alike(&before, vif()), "nobody asks for it");
    assert!(!make(&[from_db], &[four, five], &[]).guard_alike(&before, vif()));
    assert!(!make(&[from_db], &[], &[]).guard_alike(&before, vif()));
    assert!(!make(&[], &[four], &[]).guard_alike(&before, vif()));
    assert!(!Walls::default().guard_alike(&before, vif()));
    assert!(before.guard_alike(&before.clone(), vif()));
}

/// 10,000 rules of every kind, and 4,096 members of the groups that a tenth of them name.
fn large() -> Walls {
    let mut seed = 7u32;
    let mut draw = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let rules: Vec<Rule> = (0..10_000)
        .map(|at| {
            let (one, two) = (draw(65_536) as u16, draw(65_536) as u16);
            let length = 16 + draw(17) as u8;
            let net = Ipv4Net::new((10 << 24 | draw(1 << 24)).into(), length).unwrap().trunc();
            let from = match at % 10 {
                0 => Origin::Members(1 + draw(16)),
                _ => Origin::Prefix(net.into()),
            };
            let protocol = Some(if at % 3 == 0 { 17 } else { 6 });
            Rule { protocol, first: one.min(two), last: one.max(two), from }
        })
        .collect();
    let mut groups = vec![(Arc::new(Group::new("large", &rules)), Vec::new())];
    for number in 0..16u32 {
        let members =
            (0..256).map(|at| (zone(1), (172 << 24 | number << 8 | at).to_be_bytes().into()));
        groups.push((Arc::new(Group::new("members", &[])), members.collect()));
    }
    let wall = Wall { zone: zone(1), groups: [0].into(), ..Wall::default() };
    Walls::new(Arc::new(Groups::new(groups)), vec![(vif(), wall)], true)
}

#[test]
fn of_ten_thousand_rules_and_four_thousand_members_a_judgement_takes_microseconds() {
    let start = std::time::Instant::now();
    let walls = large();
    let compiled = start.elapsed();
    let asks: Vec<Ask> = (0..20_000u32)
        .map(|at| {
            let scattered = at.wrapping_mul(0x9e37_79b1);
            // A third are members, a third have an address of some prefix, the others of none.
            let source = match at % 3 {
                0 => 172 << 24 | scattered & 0xfff,
                1 => 10 << 24 | scattered & 0x00ff_ffff,
                _ => scattered,
            };
            let port = Some((scattered >> 7) as u16);
            Ask { port, ..plain_ask(1, source.to_be_bytes()) }
        })
        .collect();
    // A hundred at a time, of which the middle one counts: a CPU may stand still for longer than all of them take.
    let mut let_in = 0;
    let judge = |asks: &[Ask]| {
        let start = std::time::Instant::now();
        let_in += asks.iter().filter(|ask| walls.judge(vif(), ask).is_some()).count();
        start.elapsed() / asks.len() as u32
    };
    let mut times: Vec<_> = asks.chunks(100).map(judge).collect();
    times.sort_unstable();
    let each = times[times.len() / 2];
    println!("compiled in {compiled:?}, {each:?} for each of {} asked", asks.len());
    assert!(let_in > 1_000 && let_in < 19_000, "{let_in}");
    assert!(each < std::time::Duration::from_micros(10), "{each:?}");
}
