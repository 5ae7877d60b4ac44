//! Where VMs' requests for metadata go, and as whom: on two nodes in memory. A failure leaves a
//! pcap.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use std::sync::Arc;

use hops::*;
use pipeline::{DropReason, Verdict};
use tables::{GATEWAY_MAC, METADATA, MetadataServer, Nat, PortId, Route, Topology, Unreachable};
use testkit::{ROUTER, World, arp_request, tcp, udp};
use wire::{MacAddr, Transport};

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;
/// The host's foot in tenant 1's segment and in tenant 2's.
const FEET: [u16; 2] = [101, 102];

fn port(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

/// The left node leads requests to this server.
fn led_to(name: &'static str, address: [u8; 4], port: u16) -> World {
    let mut world = World::routed(name, false);
    lead(&mut world, Some(MetadataServer { address, port }));
    world
}

fn lead(world: &mut World, server: Option<MetadataServer>) {
    let mut nat = Nat::clone(&world.left.tables.nat);
    nat.metadata = server;
    world.left.tables.nat = Arc::new(nat);
}

fn ask(vm: (MacAddr, [u8; 4]), flags: u8) -> Vec<u8> {
    tcp((vm.0, vm.1, 40000), (GATEWAY_MAC, METADATA, 80), flags, b"GET / HTTP/1.0\r\n\r\n")
}

fn ports(frame: &[u8]) -> (u16, u16) {
    match ip(frame).transport {
        Transport::Tcp { sport, dport, .. } => (sport, dport),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_on_the_node_sees_the_vms_own_address_and_answers_as_the_metadatas() {
    let mut world = led_to("metadata_here", LEFT, 8775);
    // VM 1 has a floating address, and VM 3 is another tenant's.
    for (vif, vm, foot) in [(11, VM1, FEET[0]), (13, VM3, FEET[1])] {
        let (verdict, sent) = world.left.receive(port(vif), &ask(vm, SYN));
        assert_eq!(verdict, Verdict::Forward(port(foot)));
        let asked = hop(&sent[0].1);
        assert_eq!((asked.src, asked.dst, ports(&sent[0].1)), (vm.1, LEFT, (40000, 8775)));
        // The host's stack sends to the VM's own station: the answer is bridged, and translated.
        let answer = tcp((GATEWAY_MAC, LEFT, 8775), (vm.0, vm.1, 40000), SYN_ACK, b"");
        let (verdict, sent) = world.left.receive(port(foot), &answer);
        assert_eq!(verdict, Verdict::Forward(port(vif)));
        let answered = hop(&sent[0].1);
        assert_eq!((answered.src, answered.dst), (METADATA, vm.1));
        assert_eq!(ports(&sent[0].1), (80, 40000));
        // The next ones are replayed.
        let mut next = ask(vm, ACK);
        let len = next.len();
        let mut packet = pipeline::Packet::new(&mut next, 0, len, port(vif));
        let replayed = world.left.pipeline().replay_known(&mut packet);
        assert_eq!(replayed, Some(Verdict::Forward(port(foot))));
    }
}

#[test]
fn a_server_elsewhere_sees_the_vms_own_address_too() {
    let server = [192, 0, 2, 9];
    let mut world = led_to("metadata_elsewhere", server, 8775);
    world.send(1, &ask(VM1, SYN));
    let asked = hop(&world.outside[0]);
    assert_eq!((asked.src, asked.dst, asked.ttl), (VM1.1, server, 63));
    assert_eq!(ports(&world.outside[0]), (40000, 8775));
    let answer = tcp((ROUTER.mac, server, 8775), (LEFT_PUBLIC, VM1.1, 40000), SYN_ACK, b"");
    let (verdict, sent) = world.left.receive(port(2), &answer);
    assert_eq!(verdict, Verdict::Forward(port(11)));
    assert_eq!((hop(&sent[0].1).src, ports(&sent[0].1)), (METADATA, (80, 40000)));
    // What was not asked for is the host's, as ever.
    let other = tcp((ROUTER.mac, server, 8775), (LEFT_PUBLIC, VM1.1, 40001), SYN_ACK, b"");
    assert_eq!(world.left.receive(port(2), &other).0, Verdict::Host);
}

#[test]
fn a_server_in_a_tenants_network_is_reached_over_the_trunk() {
    let mut world = led_to("metadata_vm", VM6.1, 80);
    let reached = world.send(2, &ask(VM2, SYN));
    let asked = one(&reached);
    assert_eq!((asked.vm, hop(&asked.frame).src, ports(&asked.frame)), (6, VM2.1, (40000, 80)));
    let answer = tcp((VM6.0, VM6.1, 80), (GATEWAY_MAC, VM2.1, 40000), SYN_ACK, b"");
    let answered = world.send(6, &answer);
    assert_eq!((one(&answered).vm, hop(&one(&answered).frame).src), (2, METADATA));
}

#[test]
fn only_the_metadatas_own_port_is_led_there_and_only_where_there_is_a_server() {
    let mut world = led_to("metadata_others", LEFT, 8775);
    let mut routes = tables::Routes::clone(&world.left.tables.routes);
    let zone = tables::ZoneId::new(1).unwrap();
    let lost = Route::Unreachable(Unreachable::Host);
    routes.insert(zone, "169.254.0.0/16".parse().unwrap(), lost);
    world.left.tables.routes = Arc::new(routes);
    let from = (VM2.0, VM2.1, 40000);
    let others = [
        tcp(from, (GATEWAY_MAC, METADATA, 443), SYN, b""),
        tcp(from, (GATEWAY_MAC, [169, 254, 169, 253], 80), SYN, b""),
        udp(from, (GATEWAY_MAC, METADATA, 80), b"?"),
    ];
    for other in others {
        assert_eq!(world.left.receive(port(12), &other).0, Verdict::Reply(port(12)));
    }
    lead(&mut world, None);
    assert_eq!(world.left.receive(port(12), &ask(VM2, SYN)).0, Verdict::Reply(port(12)));
}

#[test]
fn who_looks_for_it_on_its_own_link_is_answered_by_its_own_node() {
    let mut world = led_to("metadata_arp", LEFT, 8775);
    let question = arp_request((VM2.0, VM2.1), METADATA);
    let (verdict, sent) = world.left.receive(port(12), &question);
    assert_eq!(verdict, Verdict::Reply(port(12)));
    let wire::Network::Arp(said) = wire::parse(&sent[0].1).unwrap().network else { panic!() };
    assert_eq!((said.operation, said.sender, said.sender_mac), (2, METADATA, GATEWAY_MAC));
    // Another node's VM is answered there, and a claim is no question.
    let over = testkit::tag(&arp_request((VM4.0, VM4.1), METADATA), 100);
    let flooded = |verdict| matches!(verdict, Verdict::Flood(_));
    assert!(flooded(world.left.receive(port(1), &over).0));
    let claim = arp_request((VM2.0, METADATA), METADATA);
    assert!(flooded(world.left.receive(port(12), &claim).0));
    lead(&mut world, None);
    assert!(flooded(world.left.receive(port(12), &question).0));
}

#[test]
fn behind_somebody_elses_gateway_it_is_taken_up_all_the_same() {
    let server = [192, 0, 2, 9];
    let mut world = led_to("metadata_external", server, 8775);
    let mut segments: Vec<tables::Segment> =
        world.left.tables.topology.segments().cloned().collect();
    (segments[0].gateway, segments[0].taken_up) = (None, true);
    let ports = world.left.tables.topology.ports().cloned().collect();
    world.left.tables.topology = Arc::new(Topology::new(ports, segments));
    let router = MacAddr([2, 0, 0, 0, 0, 0x77]);
    let ask = tcp((VM2.0, VM2.1, 40000), (router, METADATA, 80), SYN, b"");
    world.send(2, &ask);
    assert_eq!((hop(&world.outside[0]).src, hop(&world.outside[0]).dst), (VM2.1, server));
    // The node has no address there by which its own answers would find back.
    lead(&mut world, Some(MetadataServer { address: LEFT, port: 8775 }));
    let ask = tcp((VM2.0, VM2.1, 40001), (router, METADATA, 80), SYN, b"");
    let refused = Verdict::Drop(DropReason::NoNeighbour);
    assert_eq!(world.left.receive(port(12), &ask).0, refused);
}

#[test]
fn a_connection_to_a_server_that_is_it_no_more_ends() {
    let mut world = led_to("metadata_moves", LEFT, 8775);
    world.left.receive(port(12), &ask(VM2, SYN));
    let answer = tcp((GATEWAY_MAC, LEFT, 8775), (VM2.0, VM2.1, 40000), SYN_ACK, b"");
    assert_eq!(world.left.receive(port(FEET[0]), &answer).0, Verdict::Forward(port(12)));
    lead(&mut world, Some(MetadataServer { address: LEFT, port: 8776 }));
    let mut ports: Vec<tables::Port> = world.left.tables.topology.ports().cloned().collect();
    ports.iter_mut().for_each(|port| port.stamp = 2);
    let segments = world.left.tables.topology.segments().cloned().collect();
    world.left.tables.topology = Arc::new(Topology::new(ports, segments));
    world.left.tables.stamp = 2;
    let revoked = Verdict::Drop(DropReason::Revoked);
    assert_eq!(world.left.receive(port(FEET[0]), &answer).0, revoked);
}
