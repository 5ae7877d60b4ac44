//! What is translated, and what is not: on two nodes in memory, as a configuration may have it. A
//! failure leaves a pcap.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use hops::*;
use tables::GATEWAY_MAC;
use testkit::{ROUTER, Sent, World, tcp, udp};
use wire::MacAddr;

/// The left node with other rules of translation.
fn with_nat(world: &mut World, change: impl Fn(&mut tables::Nat)) {
    let mut nat = tables::Nat::clone(&world.left.tables.nat);
    change(&mut nat);
    world.left.tables.nat = std::sync::Arc::new(nat);
}

#[test]
fn a_demilitarised_destination_sees_the_vm_even_if_it_has_a_float() {
    let mut world = World::routed("dmz", false);
    with_nat(&mut world, |nat| nat.insert_exempt("8.8.8.0/24".parse().unwrap()));
    world.send(1, &udp((VM1.0, VM1.1, 4000), (GATEWAY_MAC, GOOGLE, 53), b"?"));
    assert_eq!(hop(&world.outside[0]).src, VM1.1);
}

#[test]
fn what_was_not_translated_is_answered_by_the_own_network_and_not_by_the_provider() {
    let mut world = World::routed("dmz_floats", false);
    with_nat(&mut world, |nat| nat.insert_exempt("91.208.23.0/24".parse().unwrap()));
    let asked = world.send(2, &udp((VM2.0, VM2.1, 4000), (GATEWAY_MAC, FLOAT6, 53), b"?"));
    assert_eq!((one(&asked).vm, hop(&one(&asked).frame).src), (6, VM2.1));
    world.outside.clear();
    let answered = world.send(6, &udp((VM6.0, VM6.1, 53), (GATEWAY_MAC, VM2.1, 4000), b"!"));
    assert_eq!((one(&answered).vm, hop(&one(&answered).frame).src), (2, FLOAT6));
    assert!(world.outside.is_empty(), "a private address goes to nobody outside");
}

#[test]
fn a_forced_destination_sees_the_node_by_whatever_way() {
    let mut world = World::routed("forced", false);
    with_nat(&mut world, |nat| nat.insert_forced("10.1.0.0/24".parse().unwrap()));
    let reached = world.send(2, &udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, VM3.1, 53), b"?"));
    assert_eq!((one(&reached).vm, hop(&one(&reached).frame).src), (3, LEFT));
    let reached = world.send(3, &udp((VM3.0, VM3.1, 53), (GATEWAY_MAC, LEFT, 40000), b"!"));
    assert_eq!((one(&reached).vm, hop(&one(&reached).frame).src), (2, VM3.1));
}

#[test]
fn a_public_network_is_routed_and_never_translated() {
    let mut world = World::routed("public", false);
    let zone = tables::ZoneId::new(1).unwrap();
    let net = "10.0.0.0/24".parse().unwrap();
    with_nat(&mut world, |nat| nat.insert_source(zone, net, tables::Snat::Never));
    let mut routes = tables::Routes::clone(&world.left.tables.routes);
    let segment = tables::SegmentId::new(1).unwrap();
    routes.insert(tables::ZoneId::NONE, net, tables::Route::Segment(segment));
    world.left.tables.routes = std::sync::Arc::new(routes);
    world.send(2, &udp((VM2.0, VM2.1, 4000), (GATEWAY_MAC, GOOGLE, 53), b"?"));
    assert_eq!(hop(&world.outside[0]).src, VM2.1);
    let answer = udp((ROUTER.mac, GOOGLE, 53), (LEFT_PUBLIC, VM2.1, 4000), b"!");
    let (verdict, _) = world.left.receive(tables::PortId::new(2).unwrap(), &answer);
    assert_eq!(verdict, pipeline::Verdict::Forward(tables::PortId::new(12).unwrap()));
}

#[test]
fn a_float_behind_somebody_elses_gateway_is_taken_up_all_the_same() {
    let mut world = World::routed("external", false);
    let mut segments: Vec<tables::Segment> =
        world.left.tables.topology.segments().cloned().collect();
    segments[0].gateway = None;
    segments[0].taken_up = true;
    let ports = world.left.tables.topology.ports().cloned().collect();
    world.left.tables.topology = std::sync::Arc::new(tables::Topology::new(ports, segments));
    let router = MacAddr([2, 0, 0, 0, 0, 0x77]);
    world.send(1, &udp((VM1.0, VM1.1, 4000), (router, GOOGLE, 53), b"?"));
    assert_eq!(hop(&world.outside[0]).src, FLOAT1, "VM 1 has a floating address");
    // To another tenant it is the gateway's to route, and without a float everywhere.
    let other = udp((VM1.0, VM1.1, 4000), (router, VM6.1, 53), b"?");
    let (verdict, _) = world.left.receive(tables::PortId::new(11).unwrap(), &other);
    assert!(matches!(verdict, pipeline::Verdict::Flood(_)), "{verdict:?}");
    let port = tables::PortId::new(12).unwrap();
    let (verdict, _) =
        world.left.receive(port, &udp((VM2.0, VM2.1, 4000), (router, GOOGLE, 53), b"?"));
    assert!(matches!(verdict, pipeline::Verdict::Flood(_)), "{verdict:?}");
}

#[test]
fn what_is_sent_to_the_gateway_of_before_a_changeover_is_routed_too() {
    let mut world = World::routed("before", false);
    let mut segments: Vec<tables::Segment> =
        world.left.tables.topology.segments().cloned().collect();
    let before = MacAddr([2, 0, 0, 0, 0, 0x77]);
    segments[0].gateway =
        segments[0].gateway.map(|gateway| tables::Gateway { before: Some(before), ..gateway });
    let ports = world.left.tables.topology.ports().cloned().collect();
    world.left.tables.topology = std::sync::Arc::new(tables::Topology::new(ports, segments));
    world.send(2, &udp((VM2.0, VM2.1, 40000), (before, GOOGLE, 53), b"?"));
    assert_eq!(hop(&world.outside[0]).src, LEFT);
    // It hears of ours, and its connection is the same.
    world.send(2, &udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, GOOGLE, 53), b"?"));
    assert_eq!((world.outside.len(), hop(&world.outside[1]).src), (2, LEFT));
    // In another segment it is a stranger's.
    world.send(3, &udp((VM3.0, VM3.1, 40000), (before, GOOGLE, 53), b"?"));
    assert_eq!(world.outside.len(), 2);
}

#[test]
fn a_vm_that_turns_from_another_router_to_the_gateway_is_routed_by_it() {
    let mut world = World::routed("turns", false);
    let to = |station| udp((VM2.0, VM2.1, 40000), (station, GOOGLE, 53), b"?");
    let reached = world.send(2, &to(VM1.0));
    assert_eq!((one(&reached).vm, hop(&one(&reached).frame).src), (1, VM2.1));
    for turn in 0..2 {
        assert!(world.send(2, &to(GATEWAY_MAC)).is_empty(), "turn {turn}: not to VM 1");
        assert_eq!(hop(&world.outside[turn]).src, LEFT, "turn {turn}");
        assert_eq!(one(&world.send(2, &to(VM1.0))).vm, 1, "turn {turn}");
    }
}

#[test]
fn across_zones_a_hairpin_is_seen_from_the_node() {
    let mut world = World::routed("zones", false);
    let other = tables::ZoneId::new(2).unwrap();
    let mut segments: Vec<tables::Segment> =
        world.left.tables.topology.segments().cloned().collect();
    segments[1].zone = other;
    let ports = world.left.tables.topology.ports().cloned().collect();
    world.left.tables.topology = std::sync::Arc::new(tables::Topology::new(ports, segments));
    with_nat(&mut world, |nat| {
        nat.insert_source(other, "10.1.0.0/24".parse().unwrap(), tables::Snat::Public);
    });
    let mut routes = tables::Routes::clone(&world.left.tables.routes);
    let segment = tables::SegmentId::new(2).unwrap();
    routes.insert(other, "10.1.0.0/24".parse().unwrap(), tables::Route::Segment(segment));
    world.left.tables.routes = std::sync::Arc::new(routes);
    // VM 3, in a zone of its own, does not know 10.0.0.3 but its floating address.
    let reached = world.send(3, &udp((VM3.0, VM3.1, 40000), (GATEWAY_MAC, FLOAT1, 53), b"?"));
    assert_eq!((one(&reached).vm, hop(&one(&reached).frame).src), (1, LEFT));
    let reached = world.send(1, &udp((VM1.0, VM1.1, 53), (GATEWAY_MAC, LEFT, 40000), b"!"));
    let back = hop(&one(&reached).frame);
    assert_eq!((one(&reached).vm, back.src, back.dst), (3, FLOAT1, VM3.1));
}

#[test]
fn a_vm_that_moves_to_this_node_takes_its_connections_along_and_a_forger_does_not() {
    let mut world = World::routed("moved", false);
    // VM 6 on the right asks VM 1, by the trunk.
    one(&world.send(6, &udp((VM6.0, VM6.1, 4000), (GATEWAY_MAC, VM1.1, 53), b"?")));
    let answer = udp((VM1.0, VM1.1, 53), (GATEWAY_MAC, VM6.1, 4000), b"!");
    one(&world.send(1, &answer));
    let of_vif3 = |world: &World| {
        let flows = &world.left.flows;
        let live = (0..flows.len()).filter_map(|at| flows.at(at));
        live.filter(|flow| flow.key().ingress() == 13).count()
    };
    let before = world.left.flows.occupancy();
    // VM 3 says it were VM 6, and does not get that one's connection.
    let vif = tables::PortId::new(13).unwrap();
    let next = udp((VM6.0, VM6.1, 4000), (GATEWAY_MAC, VM1.1, 53), b"??");
    let forged = udp((VM3.0, VM6.1, 4000), (GATEWAY_MAC, VM1.1, 53), b"??");
    world.left.receive(vif, &forged);
    assert_eq!(of_vif3(&world), 0);
    // VM 6 has moved to that vif, as configuration says.
    let segment = tables::SegmentId::new(2).unwrap();
    world.left.station(segment, VM6.0, vif);
    world.left.receive(vif, &next);
    assert_eq!((of_vif3(&world), world.left.flows.occupancy()), (1, before));
}

#[test]
fn where_a_network_asks_for_it_a_new_connection_offers_smaller_segments() {
    let mut world = World::routed("clamp", false);
    let mut segments: Vec<tables::Segment> =
        world.left.tables.topology.segments().cloned().collect();
    segments[1].clamp_mss = Some(1300);
    let ports = world.left.tables.topology.ports().cloned().collect();
    world.left.tables.topology = std::sync::Arc::new(tables::Topology::new(ports, segments));
    let mut header = etherparse::TcpHeader::new(4000, 22, 1, 65000);
    header.syn = true;
    header.set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)]).unwrap();
    let syn = |to: (MacAddr, [u8; 4])| {
        let mut frame = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2(VM1.0.0, to.0.0);
        builder.ipv4(VM1.1, to.1, 64).tcp_header(header.clone()).write(&mut frame, &[]).unwrap();
        frame
    };
    let mss = |sent: &Sent| {
        hop(&sent.frame);
        u16::from_be_bytes([sent.frame[56], sent.frame[57]])
    };
    assert_eq!(mss(one(&world.send(1, &syn(gateway(VM3.1))))), 1300, "into that network");
    assert_eq!(mss(one(&world.send(1, &syn((VM2.0, VM2.1))))), 1460, "and not within another");
}

#[test]
fn by_forged_resets_and_openings_nobody_outside_ends_a_connection_of_the_shared_address() {
    let [fin, syn, rst, ack] = [1, 2, 4, 16];
    let mut world = World::routed("forged", false);
    let ports = |frame: &[u8]| match ip(frame).transport {
        wire::Transport::Tcp { sport, dport, .. } => (sport, dport),
        other => panic!("{other:?}"),
    };
    let (own, server) = ((VM2.0, VM2.1, 60_000), (GATEWAY_MAC, GOOGLE, 80));
    world.send(2, &tcp(own, server, syn, b""));
    let (given, _) = ports(&world.outside[0]);
    assert_ne!(given, 60_000);
    let (stranger, node) = ((ROUTER.mac, GOOGLE, 80), (LEFT_PUBLIC, LEFT, given));
    for flags in [syn | ack, rst, syn, fin | ack, syn, ack] {
        let reached = world.send_from_outside(&tcp(stranger, node, flags, b""));
        let reached = one(&reached);
        assert_eq!((reached.vm, ports(&reached.frame).1), (2, 60_000), "{flags}");
    }
    world.send(2, &tcp(own, server, ack, b""));
    assert_eq!(ports(world.outside.last().unwrap()).0, given, "the connection that it was");
    // Who opened it may open it anew.
    let before = world.left.flows.occupancy();
    world.send(2, &tcp(own, server, rst, b""));
    world.send(2, &tcp(own, server, syn, b""));
    assert_eq!((world.outside.len(), world.left.flows.occupancy()), (4, before));
}
