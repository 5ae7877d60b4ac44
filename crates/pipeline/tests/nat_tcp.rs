//! TCP's corners behind the translation: both ends open at once, one end closes, ends that nobody
//! asked for, ports that are used again, connections whose beginning was not seen.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use conntrack::Timeouts;
use hops::*;
use tables::GATEWAY_MAC;
use testkit::{ROUTER, Sent, World, tcp};
use wire::{MacAddr, Transport};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// VM 2, which has no floating address, speaks to a host outside.
fn out(world: &mut World, flags: u8) -> Option<u16> {
    world.outside.clear();
    world.send(2, &tcp((VM2.0, VM2.1, 33_000), (GATEWAY_MAC, GOOGLE, 80), flags, b""));
    let frame = world.outside.first()?;
    assert_eq!(hop(frame).src, LEFT);
    Some(source_port(frame))
}

/// That host speaks to a port of the node's address.
fn back(world: &mut World, port: u16, flags: u8) -> Vec<Sent> {
    world.send_from_outside(&tcp((ROUTER.mac, GOOGLE, 80), (MacAddr::ZERO, LEFT, port), flags, b""))
}

fn source_port(frame: &[u8]) -> u16 {
    match ip(frame).transport {
        Transport::Tcp { sport, .. } => sport,
        other => panic!("{other:?}"),
    }
}

fn reaches_vm2(reached: &[Sent]) {
    let sent = one(reached);
    assert_eq!((sent.vm, hop(&sent.frame).dst), (2, VM2.1));
}

/// How long the only connection may be silent.
fn timeout(world: &World) -> u32 {
    let flows = &world.left.flows;
    let is_it = |flow: &conntrack::Flow| flow.key().protocol() == 6 && !flow.is_reply();
    let original = flows.live().find(is_it).unwrap();
    Timeouts::default().of(&original, &flows.at(original.partner()).unwrap())
}

#[test]
fn both_ends_may_open_a_connection_at_once() {
    let mut world = World::routed("simultaneous", false);
    let port = out(&mut world, SYN).unwrap();
    reaches_vm2(&back(&mut world, port, SYN));
    assert_eq!(out(&mut world, SYN | ACK), Some(port));
    reaches_vm2(&back(&mut world, port, SYN | ACK));
    assert_eq!(out(&mut world, ACK), Some(port));
    assert_eq!((world.left.flows.connections(), timeout(&world)), (1, 7440));
}

#[test]
fn an_end_that_has_closed_still_hears_the_other_and_the_connection_ends_in_four_minutes() {
    let mut world = World::routed("half_close", false);
    let port = out(&mut world, SYN).unwrap();
    reaches_vm2(&back(&mut world, port, SYN | ACK));
    assert_eq!(out(&mut world, ACK), Some(port));
    assert_eq!(out(&mut world, FIN | ACK), Some(port));
    for _ in 0..3 {
        reaches_vm2(&back(&mut world, port, ACK));
        assert_eq!(out(&mut world, ACK), Some(port));
    }
    reaches_vm2(&back(&mut world, port, FIN | ACK));
    assert_eq!(out(&mut world, ACK), Some(port));
    assert_eq!((world.left.flows.connections(), timeout(&world)), (1, 240));
}

#[test]
fn a_reset_is_translated_and_shortens_the_life_and_ends_nothing() {
    let mut world = World::routed("reset", false);
    let port = out(&mut world, SYN).unwrap();
    reaches_vm2(&back(&mut world, port, SYN | ACK));
    assert_eq!(timeout(&world), 7440);
    reaches_vm2(&back(&mut world, port, RST));
    assert_eq!(timeout(&world), 240);
    // It was a blind one: both talk on.
    assert_eq!(out(&mut world, ACK), Some(port));
    reaches_vm2(&back(&mut world, port, ACK));
}

#[test]
fn a_port_is_used_again_while_its_last_connection_waits_to_be_forgotten() {
    let mut world = World::routed("time_wait", false);
    let port = out(&mut world, SYN).unwrap();
    reaches_vm2(&back(&mut world, port, SYN | ACK));
    for flags in [ACK, FIN | ACK] {
        assert_eq!(out(&mut world, flags), Some(port));
        reaches_vm2(&back(&mut world, port, flags));
    }
    assert_eq!(timeout(&world), 240);
    assert_eq!(out(&mut world, SYN), Some(port));
    reaches_vm2(&back(&mut world, port, SYN | ACK));
    assert_eq!((world.left.flows.connections(), timeout(&world)), (1, 7440));
}

#[test]
fn what_opens_no_connection_is_not_translated_and_leaves_no_line() {
    let mut world = World::routed("stray", false);
    for flags in [RST, RST | ACK, FIN, FIN | ACK, SYN | ACK, SYN | FIN, SYN | RST, 0] {
        assert_eq!(out(&mut world, flags), None, "flags {flags}");
        // To a floating address neither.
        let (router, to) = ((ROUTER.mac, GOOGLE, 80), (MacAddr::ZERO, FLOAT1, 22));
        let reached = world.send_from_outside(&tcp(router, to, flags, b""));
        assert!(reached.is_empty(), "flags {flags}");
    }
    assert_eq!(world.left.flows.connections(), 0);
    // Between tenants nothing is translated: it passes, and nothing is kept of it.
    let reset = tcp((VM2.0, VM2.1, 33_000), (GATEWAY_MAC, VM3.1, 80), RST, b"");
    assert_eq!(one(&world.send(2, &reset)).vm, 3);
    assert_eq!(world.left.flows.connections(), 0);
}

#[test]
fn a_connection_whose_beginning_was_not_seen_is_picked_up_unless_that_is_forbidden() {
    let mut world = World::routed("pickup", false);
    let port = out(&mut world, ACK).unwrap();
    reaches_vm2(&back(&mut world, port, ACK));

    let mut world = World::routed("no_pickup", false);
    let mut nat = tables::Nat::clone(&world.left.tables.nat);
    nat.pickup = false;
    world.left.tables.nat = std::sync::Arc::new(nat);
    assert_eq!(out(&mut world, ACK), None);
    let port = out(&mut world, SYN).unwrap();
    reaches_vm2(&back(&mut world, port, SYN | ACK));
    assert_eq!(out(&mut world, ACK), Some(port));
    // What needs no translation needs no beginning.
    let between = tcp((VM2.0, VM2.1, 33_000), (GATEWAY_MAC, VM3.1, 80), ACK, b"");
    assert_eq!(one(&world.send(2, &between)).vm, 3);
}

#[test]
fn scenario_6_is_one_connection_on_both_nodes_though_its_ways_differ() {
    let mut world = World::routed("asymmetric", false);
    let there = |flags| tcp((VM1.0, VM1.1, 33_000), (GATEWAY_MAC, VM6.1, 80), flags, b"");
    let back = |flags| tcp((VM6.0, VM6.1, 80), (GATEWAY_MAC, VM1.1, 33_000), flags, b"");
    assert_eq!(one(&world.send(1, &there(SYN))).vm, 6);
    assert_eq!(one(&world.send(6, &back(SYN | ACK))).vm, 1);
    assert_eq!(one(&world.send(1, &there(ACK))).vm, 6);
    for (node, flows) in [("left", &world.left.flows), ("right", &world.right.flows)] {
        let tcp = flows.live().filter(|flow| flow.key().protocol() == 6).count();
        assert_eq!(tcp, 2, "{node}: one connection, two directions");
    }
    assert_eq!(timeout(&world), 7440);
}
