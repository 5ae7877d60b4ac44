//! What VMs may reach on the node itself, and beyond their network: on two nodes in memory. A failure
//! leaves a pcap.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use std::sync::Arc;

use hops::*;
use pipeline::{DropReason, Notice, Verdict};
use tables::{DropAction, GATEWAY_MAC, HostRule, Policy, PortId, SegmentId, Side, Topology};
use testkit::{ROUTER, World, arp_request, echo, ethernet, ipv6_multicast, tcp, udp};
use wire::MacAddr;

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const GATEWAY: [u8; 4] = [10, 0, 0, 1];
const DENIED: Verdict = Verdict::Drop(DropReason::HostDenied);
const CUT_OFF: Verdict = Verdict::Drop(DropReason::ForwardDenied);

fn port(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

fn vif(vm: u16) -> PortId {
    port(10 + vm)
}

/// The host's foot in tenant N's segment.
fn foot(tenant: u16) -> PortId {
    port(100 + tenant)
}

fn segment(number: u16) -> SegmentId {
    SegmentId::new(number).unwrap()
}

fn with(name: &'static str, change: impl FnOnce(&mut Policy)) -> World {
    let mut world = World::routed(name, false);
    allow(&mut world, change);
    world
}

fn allow(world: &mut World, change: impl FnOnce(&mut Policy)) {
    let mut policy = Policy::default();
    change(&mut policy);
    world.left.tables.policy = Arc::new(policy);
}

fn any() -> HostRule {
    HostRule { segment: None, protocol: None, ports: None, source: None }
}

fn ssh(to: [u8; 4], sport: u16) -> Vec<u8> {
    tcp((VM1.0, VM1.1, sport), (GATEWAY_MAC, to, 22), SYN, b"")
}

fn ask(from: (MacAddr, [u8; 4]), to: [u8; 4], dport: u16) -> Vec<u8> {
    udp((from.0, from.1, 40000), (GATEWAY_MAC, to, dport), b"?")
}

#[test]
fn a_gateway_serves_dhcp_dns_and_echo_and_nothing_else() {
    let mut world = World::routed("served", false);
    let mut ends = |frame: &[u8]| world.left.receive(vif(1), frame).0;
    for dport in [53, 67] {
        assert_eq!(ends(&ask(VM1, GATEWAY, dport)), Verdict::Forward(foot(1)), "{dport}");
    }
    let dns = tcp((VM1.0, VM1.1, 40000), (GATEWAY_MAC, GATEWAY, 53), SYN, b"");
    assert_eq!(ends(&dns), Verdict::Forward(foot(1)));
    let ping = |to| echo((VM1.0, VM1.1), (GATEWAY_MAC, to), true, 7);
    assert_eq!(ends(&ping(GATEWAY)), Verdict::Reply(vif(1)));
    assert_eq!(ends(&arp_request(VM1, GATEWAY)), Verdict::Reply(vif(1)));
    // Its other services, and what else the node is called.
    for denied in [ssh(GATEWAY, 40000), ask(VM1, GATEWAY, 123), ssh(LEFT, 40000)] {
        assert_eq!(ends(&denied), DENIED);
    }
    for other in [LEFT, [10, 1, 0, 1]] {
        assert_eq!(ends(&ping(other)), DENIED);
        assert_eq!(ends(&ask(VM1, other, 53)), DENIED);
    }
}

#[test]
fn who_comes_over_the_trunk_is_served_no_more_than_who_is_here() {
    let mut world = World::routed("trunk_calls", false);
    let over = |frame: &[u8]| testkit::tag(frame, 100);
    let call = |dport| udp((VM4.0, VM4.1, 40000), (LEFT_TRUNK, GATEWAY, dport), b"?");
    assert_eq!(world.left.receive(port(1), &over(&call(53))).0, Verdict::Forward(foot(1)));
    assert_eq!(world.left.receive(port(1), &over(&call(22))).0, DENIED);
}

#[test]
fn a_host_rule_lets_in_what_it_says_and_is_asked_once_a_connection() {
    let ports = Some(22..=22);
    let rule = HostRule { protocol: Some(6), ports, segment: Some(segment(1)), ..any() };
    let mut world = with("rule", |policy| policy.services.push(rule.clone()));
    assert_eq!(world.left.receive(vif(1), &ssh(LEFT, 40000)).0, Verdict::Forward(foot(1)));
    let answer = tcp((GATEWAY_MAC, LEFT, 22), (VM1.0, VM1.1, 40000), SYN_ACK, b"");
    assert_eq!(world.left.receive(foot(1), &answer).0, Verdict::Forward(vif(1)));
    let other = tcp((VM3.0, VM3.1, 40000), (GATEWAY_MAC, LEFT, 22), SYN, b"");
    assert_eq!(world.left.receive(vif(3), &other).0, DENIED, "another tenant's");
    // The rule goes: what is open is asked again, and ends.
    allow(&mut world, |_| {});
    let mut stale: Vec<tables::Port> = world.left.tables.topology.ports().cloned().collect();
    stale.iter_mut().for_each(|port| port.stamp = 2);
    let segments = world.left.tables.topology.segments().cloned().collect();
    world.left.tables.topology = Arc::new(Topology::new(stale, segments));
    world.left.tables.stamp = 2;
    assert_eq!(world.left.receive(vif(1), &ssh(LEFT, 40000)).0, DENIED);
}

#[test]
fn what_the_host_begins_is_answered() {
    let mut world = World::routed("host_begins", false);
    let begins = tcp((GATEWAY_MAC, GATEWAY, 50000), (VM1.0, VM1.1, 22), SYN, b"");
    assert_eq!(world.left.receive(foot(1), &begins).0, Verdict::Forward(vif(1)));
    let answer = tcp((VM1.0, VM1.1, 22), (GATEWAY_MAC, GATEWAY, 50000), SYN_ACK, b"");
    assert_eq!(world.left.receive(vif(1), &answer).0, Verdict::Forward(foot(1)));
    let other = tcp((VM1.0, VM1.1, 22), (GATEWAY_MAC, GATEWAY, 50001), SYN_ACK, b"");
    assert_eq!(world.left.receive(vif(1), &other).0, DENIED);
}

#[test]
fn what_goes_to_all_goes_to_the_host_only_if_that_is_served() {
    let mut world = World::routed("to_all", false);
    let all = |dport, to| udp((VM1.0, [0; 4], 68), (MacAddr::BROADCAST, to, dport), b"!");
    let flood = |world: &mut World, frame: &[u8]| world.left.receive(vif(1), frame);
    let guests = Verdict::FloodGuests(segment(1));
    let (verdict, sent) = flood(&mut world, &all(67, [255; 4]));
    assert_eq!(verdict, Verdict::Flood(segment(1)));
    assert!(sent.iter().any(|(port, _)| *port == foot(1)), "DHCP asks all");
    for frame in [all(68, [255; 4]), all(53, [255; 4]), all(111, [10, 0, 0, 255])] {
        let (verdict, sent) = flood(&mut world, &frame);
        assert_eq!(verdict, guests);
        assert!(!sent.is_empty() && sent.iter().all(|(port, _)| *port != foot(1)));
    }
    assert_eq!(flood(&mut world, &ipv6_multicast(VM1.0)).0, guests);
    assert_eq!(flood(&mut world, &arp_request(VM1, [10, 0, 0, 9])).0, Verdict::Flood(segment(1)));
    // Everything, as in nova: then the host hears it all.
    allow(&mut world, |policy| policy.services.push(any()));
    assert_eq!(flood(&mut world, &ipv6_multicast(VM1.0)).0, Verdict::Flood(segment(1)));
    assert_eq!(world.left.receive(vif(1), &ssh(LEFT, 40000)).0, Verdict::Forward(foot(1)));
}

#[test]
fn nobody_reaches_the_host_by_its_station_alone() {
    // IPv6 to the gateway's station is bridged to the host's foot, which has it.
    let mut world = World::routed("by_station", false);
    world.left.station(segment(1), GATEWAY_MAC, foot(1));
    let mut packet = vec![0; 40];
    (packet[0], packet[6], packet[7]) = (0x60, 59, 64);
    let frame = ethernet(VM1.0, GATEWAY_MAC, wire::ethertype::IPV6, &packet);
    assert_eq!(world.left.receive(vif(1), &frame).0, DENIED);
    // In a network without a gateway here IPv4 is bridged as well, and nothing is served.
    let mut segments: Vec<tables::Segment> =
        world.left.tables.topology.segments().cloned().collect();
    segments[0].gateway = None;
    let ports = world.left.tables.topology.ports().cloned().collect();
    world.left.tables.topology = Arc::new(Topology::new(ports, segments));
    assert_eq!(world.left.receive(vif(1), &ssh(LEFT, 40000)).0, DENIED);
    assert_eq!(world.left.receive(vif(1), &ask(VM1, GATEWAY, 53)).0, DENIED);
}

#[test]
fn stations_of_a_bridge_that_was_taken_over_are_not_the_host() {
    let mut world = World::routed("behind_the_foot", false);
    let station = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 0x77]);
    world.left.station(segment(1), station, foot(1));
    let before = MacAddr([2, 0, 0, 0, 0, 0x78]);
    world.left.station(segment(1), before, foot(1));
    let mut segments: Vec<tables::Segment> =
        world.left.tables.topology.segments().cloned().collect();
    segments[0].gateway =
        segments[0].gateway.map(|gateway| tables::Gateway { before: Some(before), ..gateway });
    let ports = world.left.tables.topology.ports().cloned().collect();
    world.left.tables.topology = Arc::new(Topology::new(ports, segments));
    let to = |station| udp((VM1.0, VM1.1, 40000), (station, [10, 0, 0, 8], 53), b"?");
    assert_eq!(world.left.receive(vif(1), &to(station)).0, Verdict::Forward(foot(1)));
    let flooded = Verdict::Flood(segment(1));
    assert_eq!(world.left.receive(vif(1), &ipv6_multicast(VM1.0)).0, flooded);
    let mut packet = vec![0; 40];
    (packet[0], packet[6], packet[7]) = (0x60, 59, 64);
    let frame = ethernet(VM1.0, before, wire::ethertype::IPV6, &packet);
    assert_eq!(world.left.receive(vif(1), &frame).0, DENIED);
}

#[test]
fn only_ways_that_are_named_are_routed() {
    let public = Side::Public(port(2));
    let mut world = with("ways", |policy| policy.ways = Some(vec![public]));
    // Out, and in by a floating address, but not from tenant to tenant, here and elsewhere.
    world.send(2, &ask(VM2, GOOGLE, 53));
    assert_eq!(hop(&world.outside[0]).src, LEFT);
    let from = udp((ROUTER.mac, GOOGLE, 40000), (LEFT_PUBLIC, FLOAT1, 53), b"?");
    assert_eq!(world.left.receive(port(2), &from).0, Verdict::Forward(vif(1)));
    assert_eq!(world.left.receive(vif(2), &ask(VM2, VM3.1, 53)).0, CUT_OFF);
    assert_eq!(world.left.receive(vif(2), &ask(VM2, VM6.1, 53)).0, CUT_OFF);
    assert_eq!(world.left.receive(vif(3), &ask(VM3, FLOAT1, 53)).0, CUT_OFF, "as its VM's");
    // Within a network, by a floating address too, and to the gateway's services.
    assert_eq!(world.left.receive(vif(2), &ask(VM2, FLOAT1, 53)).0, Verdict::Forward(vif(1)));
    assert_eq!(world.left.receive(vif(2), &ask(VM2, GATEWAY, 53)).0, Verdict::Forward(foot(1)));
    // The host is no VM.
    let host = udp((GATEWAY_MAC, GATEWAY, 40000), (GATEWAY_MAC, VM3.1, 53), b"?");
    assert_eq!(world.left.receive(foot(1), &host).0, Verdict::Forward(vif(3)));
    // A bridge instead: between networks and not out.
    allow(&mut world, |policy| policy.ways = Some(vec![Side::Segment(segment(2))]));
    let ask = |to, dport| udp((VM2.0, VM2.1, 41000), (GATEWAY_MAC, to, dport), b"?");
    assert_eq!(world.left.receive(vif(2), &ask(VM3.1, 53)).0, Verdict::Forward(vif(3)));
    assert_eq!(world.left.receive(vif(2), &ask(GOOGLE, 53)).0, CUT_OFF);
    let from = udp((ROUTER.mac, GOOGLE, 40000), (LEFT_PUBLIC, FLOAT1, 54), b"?");
    assert_eq!(world.left.receive(port(2), &from).0, CUT_OFF);
}

#[test]
fn who_is_rejected_is_told_that_it_is_forbidden() {
    let mut world = with("reject", |policy| policy.action = DropAction::Reject);
    let (verdict, sent) = world.left.receive(vif(1), &ssh(GATEWAY, 40000));
    assert_eq!(verdict, Verdict::Reply(vif(1)));
    let told = &sent[0].1;
    assert_eq!((hop(told).src, hop(told).dst), (GATEWAY, VM1.1));
    let l4 = usize::from(wire::parse(told).unwrap().l3) + 20;
    assert_eq!(told[l4..l4 + 2], [3, 13], "communication administratively prohibited");
}

#[test]
fn who_is_logged_is_told_to_the_control_thread() {
    let mut world = with("log", |policy| policy.action = DropAction::Log);
    let frame = ssh(GATEWAY, 40000);
    let mut chunk = frame.clone();
    let mut batch = [pipeline::Packet::new(&mut chunk, 0, frame.len(), vif(1))];
    world.left.pipeline().forward(&mut batch);
    assert_eq!(batch[0].verdict, Some(DENIED));
    let told: Vec<Notice> = world.left.learner.notices().collect();
    let denied = told.iter().find_map(|notice| match notice {
        Notice::Denied { reason, question } => Some((*reason, question.destination, question.port)),
        _ => None,
    });
    assert_eq!(denied, Some((DropReason::HostDenied, GATEWAY, 22)));
}
