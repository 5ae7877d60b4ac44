//! How the connections of an earlier daemon stand before new tables, in memory: each line is as it was,
//! has another way, or its connection has ended.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use std::collections::BTreeMap;
use std::sync::Arc;

use hops::*;
use pipeline::{Standing, neighbour_of, standing};
use tables::{GATEWAY_MAC, Nat, Neighbours, PortId, SegmentId, Snat, Topology, ZoneId};
use testkit::{Node, ROUTER, World, udp};
use wire::Transport;

/// A flow by its source and destination, as its packets come.
type Ends = ([u8; 4], [u8; 4]);

/// The left node with connections of every kind, asked and answered.
fn world(name: &'static str) -> World {
    let mut world = World::routed(name, false);
    // Bridged, routed to another tenant, out by the shared address and by a floating one.
    world.send(1, &udp((VM1.0, VM1.1, 4000), (VM2.0, VM2.1, 53), b"?"));
    world.send(2, &udp((VM2.0, VM2.1, 53), (VM1.0, VM1.1, 4000), b"!"));
    world.send(2, &udp((VM2.0, VM2.1, 4001), (GATEWAY_MAC, VM3.1, 53), b"?"));
    world.send(3, &udp((VM3.0, VM3.1, 53), (GATEWAY_MAC, VM2.1, 4001), b"!"));
    for (vm, (mac, address)) in [(2, VM2), (1, VM1)] {
        world.outside.clear();
        world.send(vm, &udp((mac, address, 4002), (GATEWAY_MAC, GOOGLE, 53), b"?"));
        let asked = ip(&world.outside[0]);
        let Transport::Udp { sport, .. } = asked.transport else { panic!("{asked:?}") };
        let answer = udp((ROUTER.mac, GOOGLE, 53), (LEFT_PUBLIC, asked.src, sport), b"!");
        assert_eq!(one(&world.send_from_outside(&answer)).vm, vm);
    }
    world
}

fn standings(node: &Node) -> BTreeMap<Ends, Standing> {
    let flows: Vec<_> = node.flows.live().collect();
    assert_eq!(flows.len(), 8);
    let of = |flow: &conntrack::Flow| standing(&node.tables, &node.flows, flow);
    flows.iter().map(|flow| ((flow.key().src(), flow.key().dst()), of(flow))).collect()
}

/// Those that do not stand.
fn fallen(node: &Node) -> Vec<(Ends, Standing)> {
    let all = standings(node).into_iter();
    all.filter(|(_, standing)| *standing != Standing::Stands).collect()
}

fn port(vm: u16) -> PortId {
    PortId::new(10 + vm).unwrap()
}

fn segment() -> SegmentId {
    SegmentId::new(1).unwrap()
}

#[test]
fn with_the_same_tables_all_stand() {
    assert_eq!(fallen(&world("stand_same").left), []);
}

#[test]
fn the_connections_of_a_float_that_went_have_ended_and_no_others() {
    let mut world = world("stand_float");
    let mut nat = Nat::default();
    nat.source = Some(LEFT);
    for net in ["10.0.0.0/24", "10.1.0.0/24"] {
        nat.insert_source(ZoneId::new(1).unwrap(), net.parse().unwrap(), Snat::Public);
    }
    world.left.tables.nat = Arc::new(nat);
    let ended = [((GOOGLE, FLOAT1), Standing::Ended), ((VM1.1, GOOGLE), Standing::Ended)];
    assert_eq!(fallen(&world.left).into_iter().collect::<BTreeMap<_, _>>(), ended.into());
}

#[test]
fn what_leads_to_a_vm_that_moved_has_another_way() {
    let mut world = world("stand_moved");
    world.left.station(segment(), VM2.0, PortId::new(1).unwrap());
    let moved = [(VM1.1, VM2.1), (VM3.1, VM2.1), (GOOGLE, LEFT)];
    let expected = moved.map(|ends| (ends, Standing::OtherWay));
    assert_eq!(fallen(&world.left).into_iter().collect::<BTreeMap<_, _>>(), expected.into());
}

#[test]
fn what_comes_or_goes_by_a_port_that_is_not_there_has_ended() {
    let mut world = world("stand_port");
    let tables = &mut world.left.tables;
    let ports = tables.topology.ports().filter(|row| row.id != port(3)).cloned().collect();
    let segments = tables.topology.segments().cloned().collect();
    tables.topology = Arc::new(Topology::new(ports, segments));
    let ended = [((VM2.1, VM3.1), Standing::Ended), ((VM3.1, VM2.1), Standing::Ended)];
    assert_eq!(fallen(&world.left).into_iter().collect::<BTreeMap<_, _>>(), ended.into());
}

#[test]
fn what_leads_to_nobody_known_is_asked_for_again() {
    let mut world = world("stand_nobody");
    world.left.tables.neighbours = Arc::new(Neighbours::default());
    let ways: Vec<Ends> = fallen(&world.left)
        .into_iter()
        .map(|(ends, standing)| {
            assert_eq!(standing, Standing::OtherWay, "{ends:?}");
            ends
        })
        .collect();
    // All that is routed; what is bridged names its station itself.
    assert_eq!(ways.len(), 6, "{ways:?}");
    assert!(!ways.contains(&(VM1.1, VM2.1)) && !ways.contains(&(VM2.1, VM1.1)));
}

#[test]
fn lines_tell_who_has_which_address() {
    let world = world("stand_tell");
    let node = &world.left;
    let told: BTreeMap<_, _> = node
        .flows
        .live()
        .filter_map(|flow| neighbour_of(&node.tables, &node.flows, &flow))
        .map(|(segment, address, mac)| ((segment.get(), address), mac))
        .collect();
    let known = [((1, VM1.1), VM1.0), ((1, VM2.1), VM2.0), ((2, VM3.1), VM3.0)];
    assert_eq!(told, known.into());
}

#[test]
fn a_vm_that_may_not_send_so_any_more_loses_what_it_sent_by() {
    let mut world = world("standing-spoof");
    let own = |text: &str| (None, text.parse().unwrap());
    world.left.identify(2, &[own("10.0.0.4/32")]);
    assert_eq!(fallen(&world.left), []);
    world.left.identify(2, &[own("10.0.0.99/32")]);
    let fallen = fallen(&world.left);
    assert_eq!(fallen.len(), 3, "{fallen:?}");
    let is_its =
        |(ends, standing): &(Ends, Standing)| ends.0 == VM2.1 && *standing == Standing::Ended;
    assert!(fallen.iter().all(is_its), "{fallen:?}");
}
