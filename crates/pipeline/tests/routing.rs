//! The seed's routed scenarios on two nodes in memory: every hop's addresses, tag and TTL. A
//! failure leaves a pcap.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use hops::*;
use tables::GATEWAY_MAC;
use testkit::{ROUTER, World, arp_request, echo, tag, tcp, udp, vm_mac};
use wire::{Network, Transport};

#[test]
fn a_gateway_answers_arp_and_echo() {
    let mut world = World::routed("gateway", false);
    let reached = world.send(1, &arp_request(VM1, [10, 0, 0, 1]));
    assert_eq!(reached.len(), 1, "nobody else is asked: {reached:?}");
    let Network::Arp(answer) = wire::parse(&reached[0].frame).unwrap().network else { panic!() };
    assert_eq!((answer.sender_mac, answer.sender), (GATEWAY_MAC, [10, 0, 0, 1]));

    let pong = world.send(1, &echo(VM1, gateway([10, 0, 0, 1]), true, 5));
    let pong = hop(&one(&pong).frame);
    assert_eq!((pong.src, pong.dst, pong.ttl), ([10, 0, 0, 1], VM1.1, 64));
    assert_eq!(pong.macs, (GATEWAY_MAC, VM1.0));
}

#[test]
fn another_nodes_gateway_is_reached_over_the_trunk_and_speaks_as_that_node() {
    let mut world = World::routed("remote_gateway", false);
    let reached = world.send(4, &arp_request(VM4, [10, 0, 0, 1]));
    let answer = reached.iter().find(|sent| sent.vm == 4).unwrap();
    let Network::Arp(arp) = wire::parse(&answer.frame).unwrap().network else { panic!() };
    assert_eq!((arp.sender_mac, arp.sender), (LEFT_TRUNK, [10, 0, 0, 1]));
    let pong = world.send(4, &echo(VM4, (LEFT_TRUNK, [10, 0, 0, 1]), true, 5));
    assert_eq!(hop(&one(&pong).frame).macs, (LEFT_TRUNK, VM4.0));

    let mut world = World::routed("shared_gateway", true);
    world.send(4, &arp_request(VM4, [10, 0, 0, 1]));
    assert!(world.wire.is_empty(), "its own node answers, and asks nobody");
}

#[test]
fn scenario_2_a_fixed_address_goes_out_as_its_node() {
    let mut world = World::routed("scenario_2", false);
    let ask = udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, GOOGLE, 53), b"question");
    assert_eq!(world.send(2, &ask), []);
    let out = hop(&world.outside[0]);
    let expected =
        Hop { macs: (LEFT_PUBLIC, ROUTER.mac), vlan: None, src: LEFT, dst: GOOGLE, ttl: 63 };
    assert_eq!(out, expected);
    let Transport::Udp { sport, .. } = ip(&world.outside[0]).transport else { panic!() };
    assert_eq!(sport, 40000, "a port in the range stays");

    let answer = udp((ROUTER.mac, GOOGLE, 53), (LEFT_PUBLIC, LEFT, 40000), b"answer");
    let reached = world.send_from_outside(&answer);
    let back = hop(&one(&reached).frame);
    assert_eq!((back.src, back.dst, back.ttl), (GOOGLE, VM2.1, 62));
    assert_eq!(back.macs, (GATEWAY_MAC, VM2.0));
}

#[test]
fn two_vms_with_one_source_port_get_two_and_each_its_own_answers() {
    let mut world = World::routed("snat_ports", false);
    for (vm, number) in [(VM2, 2), (VM3, 3)] {
        let ask = udp((vm.0, vm.1, 40000), (GATEWAY_MAC, GOOGLE, 53), &[number]);
        world.send(number, &ask);
    }
    // And one whose port is not ours to give.
    world.send(2, &udp((VM2.0, VM2.1, 53), (GATEWAY_MAC, GOOGLE, 53), &[2]));
    let ports: Vec<u16> = world
        .outside
        .iter()
        .map(|frame| match ip(frame).transport {
            Transport::Udp { sport, .. } => sport,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ports[0], 40000);
    assert!(ports[1] != ports[0] && (20000..46000).contains(&ports[1]));
    assert!((20000..46000).contains(&ports[2]));
    for (port, vm, own) in [(ports[0], 2, 40000), (ports[1], 3, 40000), (ports[2], 2, 53)] {
        let answer = udp((ROUTER.mac, GOOGLE, 53), (LEFT_PUBLIC, LEFT, port), b"answer");
        let reached = world.send_from_outside(&answer);
        assert_eq!(one(&reached).vm, vm);
        let Transport::Udp { dport, .. } = ip(&one(&reached).frame).transport else { panic!() };
        assert_eq!(dport, own);
        hop(&one(&reached).frame);
    }
}

#[test]
fn scenario_5_other_tenant_same_node_is_routed_untranslated() {
    let mut world = World::routed("scenario_5", false);
    let ping = world.send(1, &echo(VM1, gateway(VM3.1), true, 5));
    assert_eq!(one(&ping).vm, 3);
    let there = hop(&one(&ping).frame);
    assert_eq!((there.src, there.dst, there.ttl), (VM1.1, VM3.1, 63));
    assert_eq!(there.macs, (GATEWAY_MAC, VM3.0));
    let pong = world.send(3, &echo(VM3, gateway(VM1.1), false, 5));
    assert_eq!((one(&pong).vm, hop(&one(&pong).frame).ttl), (1, 63));
    assert!(world.wire.is_empty() && world.upstream.is_empty());
}

fn scenario_6(shared: bool) {
    let mut world = World::routed("scenario_6", shared);
    let ping = world.send(1, &echo(VM1, gateway(VM6.1), true, 5));
    assert_eq!(one(&ping).vm, 6);
    assert_eq!(hop(&one(&ping).frame).macs, (LEFT_TRUNK, VM6.0));
    let there = hops(&world.wire);
    assert_eq!(there.len(), 1, "{there:?}");
    assert_eq!((there[0].vlan, there[0].ttl), (Some(102), 63));
    assert_eq!(there[0].macs, (LEFT_TRUNK, VM6.0));

    world.wire.clear();
    let pong = world.send(6, &echo(VM6, gateway(VM1.1), false, 5));
    assert_eq!(one(&pong).vm, 1);
    let back = hops(&world.wire);
    assert_eq!(back.len(), 1, "{back:?}");
    assert_eq!((back[0].vlan, back[0].ttl, back[0].src), (Some(100), 63, VM6.1));
    assert_eq!(back[0].macs, (RIGHT_TRUNK, VM1.0));
    assert_eq!(hop(&one(&pong).frame).macs, (RIGHT_TRUNK, VM1.0));
    assert!(world.upstream.is_empty());

    // Known by now: each further packet crosses alone.
    world.wire.clear();
    for _ in 0..3 {
        one(&world.send(1, &echo(VM1, gateway(VM6.1), true, 5)));
        one(&world.send(6, &echo(VM6, gateway(VM1.1), false, 5)));
    }
    assert_eq!(world.wire.len(), 6);
}

#[test]
fn scenario_6_other_tenant_other_node_leaves_by_102_and_comes_back_by_100() {
    scenario_6(false);
}

#[test]
fn scenario_6_works_with_a_shared_gateway_as_well() {
    scenario_6(true);
}

#[test]
fn over_the_trunk_a_shared_gateway_asks_without_a_name() {
    let mut world = World::routed("arp_sender", true);
    world.send(1, &echo(VM1, gateway(VM6.1), true, 5));
    let asked: Vec<_> = world
        .wire
        .iter()
        .filter_map(|frame| match wire::parse(frame).unwrap().network {
            Network::Arp(arp) if arp.operation == 1 => Some(arp),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].sender, asked[0].sender_mac), ([0; 4], LEFT_TRUNK));
}

#[test]
fn scenario_7_both_ends_have_floating_addresses() {
    let mut world = World::routed("scenario_7", false);
    let ping = world.send(1, &echo(VM1, gateway(FLOAT6), true, 5));
    assert_eq!(one(&ping).vm, 6);
    let there = hop(&one(&ping).frame);
    assert_eq!((there.src, there.dst, there.ttl), (FLOAT1, VM6.1, 61));
    assert_eq!((hop(&world.upstream[0]).src, hop(&world.upstream[0]).dst), (FLOAT1, FLOAT6));
    let pong = world.send(6, &echo(VM6, gateway(FLOAT1), false, 5));
    assert_eq!(one(&pong).vm, 1);
    let back = hop(&one(&pong).frame);
    assert_eq!((back.src, back.dst, back.ttl), (FLOAT6, VM1.1, 61));
    assert!(world.wire.is_empty());
}

#[test]
fn from_outside_a_floating_address_leads_to_its_vm() {
    let mut world = World::routed("float_in", false);
    let syn = tcp((ROUTER.mac, GOOGLE, 5000), (LEFT_PUBLIC, FLOAT1, 22), 2, b"");
    let reached = world.send_from_outside(&syn);
    assert_eq!((one(&reached).vm, hop(&one(&reached).frame).dst), (1, VM1.1));
    let grant = tcp((VM1.0, VM1.1, 22), (GATEWAY_MAC, GOOGLE, 5000), 18, b"");
    world.send(1, &grant);
    assert_eq!(hop(&world.outside[0]).src, FLOAT1);
}

#[test]
fn a_priority_tag_names_no_vlan_on_the_public_side_either() {
    let mut world = World::routed("priority_public", false);
    let port = tables::PortId::new(2).unwrap();
    let syn = tcp((ROUTER.mac, GOOGLE, 5000), (LEFT_PUBLIC, FLOAT1, 22), 2, b"");
    let (verdict, sent) = world.left.receive(port, &tag(&syn, 0xe000));
    assert_eq!(verdict, pipeline::Verdict::Forward(tables::PortId::new(11).unwrap()));
    assert_eq!(hop(&sent[0].1), hop(&world.left.receive(port, &syn).1[0].1));
}

#[test]
fn a_vm_reaches_its_own_floating_address() {
    let mut world = World::routed("own_float", false);
    let ask = udp((VM1.0, VM1.1, 4000), (GATEWAY_MAC, FLOAT1, 53), b"me");
    let reached = world.send(1, &ask);
    let there = hop(&one(&reached).frame);
    assert_eq!((one(&reached).vm, there.src, there.dst), (1, FLOAT1, VM1.1));
    let answer = udp((VM1.0, VM1.1, 53), (GATEWAY_MAC, FLOAT1, 4000), b"me");
    let reached = world.send(1, &answer);
    let back = hop(&one(&reached).frame);
    assert_eq!((back.src, back.dst), (FLOAT1, VM1.1));
    assert!(world.upstream.is_empty());
}

#[test]
fn a_siblings_floating_address_is_translated_on_the_bridged_way_back() {
    let mut world = World::routed("sibling_float", false);
    let ask = tcp((VM2.0, VM2.1, 4000), (GATEWAY_MAC, FLOAT1, 22), 2, b"");
    let reached = world.send(2, &ask);
    let there = hop(&one(&reached).frame);
    assert_eq!((one(&reached).vm, there.src, there.dst), (1, VM2.1, VM1.1));
    // VM 1 answers its neighbour without the gateway.
    let answer = tcp((VM1.0, VM1.1, 22), (VM2.0, VM2.1, 4000), 18, b"");
    let reached = world.send(1, &answer);
    let back = hop(&one(&reached).frame);
    assert_eq!((one(&reached).vm, back.src, back.dst), (2, FLOAT1, VM2.1));
    assert_eq!((back.macs, back.ttl), ((VM1.0, VM2.0), 64));
}

#[test]
fn a_vm_without_one_reaches_a_floating_address_of_the_other_node_as_its_node() {
    let mut world = World::routed("float_over_public", false);
    let reached = world.send(4, &echo(VM4, gateway(FLOAT1), true, 30_000));
    assert_eq!((one(&reached).vm, hop(&one(&reached).frame).src), (1, RIGHT));
    let reached = world.send(1, &echo(VM1, gateway(RIGHT), false, 30_000));
    assert_eq!((one(&reached).vm, hop(&one(&reached).frame).src), (4, FLOAT1));
}

#[test]
fn a_traceroute_sees_the_gateway_and_routers_behind_the_translation() {
    let mut world = World::routed("traceroute", false);
    let mut probe = udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, GOOGLE, 33434), b"probe");
    let set_ttl = |frame: &mut [u8], ttl: u8| {
        while frame[22] > ttl {
            wire::rewrite::decrement_ttl(frame, 14);
        }
    };
    set_ttl(&mut probe, 1);
    let reached = world.send(2, &probe);
    let error = hop(&one(&reached).frame);
    assert_eq!((error.src, error.dst), ([10, 0, 0, 1], VM2.1));
    assert_eq!(one(&reached).frame[34..36], [11, 0], "time exceeded");

    let mut probe = udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, GOOGLE, 33435), b"probe");
    set_ttl(&mut probe, 2);
    world.send(2, &probe);
    // The router answers what reached it.
    let mut chunk = world.outside[0].clone();
    let length = chunk.len();
    chunk.resize(length + 64, 0);
    let router = wire::Station { mac: ROUTER.mac, address: ROUTER.address };
    let kind = wire::IcmpError::TimeExceeded;
    let (head, len) = wire::icmp::error(&mut chunk, 0, length, 14, kind, router).unwrap();
    let reached = world.send_from_outside(&chunk[head..head + len]);
    assert_eq!(one(&reached).vm, 2);
    let error = hop(&one(&reached).frame);
    assert_eq!((error.src, error.dst), (ROUTER.address, VM2.1));
    let quoted = wire::embedded(&one(&reached).frame[34..]).unwrap();
    assert_eq!((quoted.src, quoted.dst), (VM2.1, GOOGLE));
    assert_eq!(quoted.transport, Transport::Udp { sport: 40000, dport: 33435 });
}

#[test]
fn who_does_not_answer_is_not_reached_and_the_sender_is_told() {
    let mut world = World::routed("unreachable", false);
    let nobody = [10, 1, 0, 99];
    assert!(world.send(1, &echo(VM1, gateway(nobody), true, 5)).iter().all(|sent| sent.vm != 1));
    let segment = tables::SegmentId::new(2).unwrap();
    world.left.neighbour(segment, nobody, tables::Neighbour::Failed);
    let reached = world.send(1, &echo(VM1, gateway(nobody), true, 6));
    let error = one(&reached);
    assert_eq!((error.vm, hop(&error.frame).src), (1, [10, 0, 0, 1]));
    assert_eq!(error.frame[34..36], [3, 1], "host unreachable");
    assert!(world.upstream.is_empty());
}

#[test]
fn too_large_for_the_next_link_is_told_or_cut() {
    let mut world = World::routed("too_large", false);
    let mut ports: Vec<tables::Port> = world.left.tables.topology.ports().cloned().collect();
    for port in &mut ports {
        if port.id.get() == 2 {
            port.mtu = 1400;
        }
    }
    let segments = world.left.tables.topology.segments().cloned().collect();
    world.left.tables.topology = std::sync::Arc::new(tables::Topology::new(ports, segments));
    let mut large = udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, GOOGLE, 9), &[7; 1400]);
    // etherparse sets "don't fragment".
    let reached = world.send(2, &large);
    let error = one(&reached);
    assert_eq!(error.frame[34..36], [3, 4], "fragmentation needed");
    assert_eq!(error.frame[40..42], 1400u16.to_be_bytes());
    // Without it the packet is cut, by whoever sends it.
    large[20] = 0;
    let sum = u16::from_be_bytes([large[24], large[25]]);
    let (sum, carry) = sum.overflowing_add(0x4000);
    large[24..26].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    let port = tables::PortId::new(12).unwrap();
    let (verdict, _) = world.left.receive(port, &large);
    assert_eq!(verdict, pipeline::Verdict::Fragment(tables::PortId::new(2).unwrap()));
}

#[test]
fn what_came_by_the_public_side_and_is_nobodys_goes_back_to_the_host() {
    let mut world = World::routed("host", false);
    let port = tables::PortId::new(2).unwrap();
    let ssh = tcp((ROUTER.mac, GOOGLE, 5000), (LEFT_PUBLIC, LEFT, 22), 2, b"");
    assert_eq!(world.left.receive(port, &ssh).0, pipeline::Verdict::Host);
    let arp = arp_request((ROUTER.mac, ROUTER.address), LEFT);
    assert_eq!(world.left.receive(port, &arp).0, pipeline::Verdict::Host);
    let arp = arp_request((ROUTER.mac, ROUTER.address), FLOAT1);
    let (verdict, sent) = world.left.receive(port, &arp);
    assert_eq!(verdict, pipeline::Verdict::Reply(port));
    let Network::Arp(answer) = wire::parse(&sent[0].1).unwrap().network else { panic!() };
    assert_eq!((answer.sender_mac, answer.sender), (LEFT_PUBLIC, FLOAT1));
    let _ = vm_mac(1);
}

#[test]
fn explaining_a_packet_tells_its_end_and_changes_nothing() {
    let mut world = World::routed("explain", false);
    let ask = udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, GOOGLE, 53), b"question");
    let mut chunk = [vec![0; 64], ask.clone()].concat();
    let vif = tables::PortId::new(12).unwrap();
    let mut packet = pipeline::Packet::new(&mut chunk, 64, ask.len(), vif);
    let told = world.left.pipeline().explain(&mut packet);
    assert_eq!(told.verdict, pipeline::Verdict::Forward(tables::PortId::new(2).unwrap()));
    assert_eq!(told.answer.unwrap().source, pipeline::connect::Source::Shared(LEFT));
    assert!(told.routed && told.found.is_none());
    assert_eq!(hop(packet.bytes()).src, LEFT);
    assert_eq!(world.left.flows.occupancy().live, 0);
    // The same packet sent, and asked about again: its line decides.
    world.send(2, &ask);
    let mut chunk = [vec![0; 64], ask.clone()].concat();
    let mut packet = pipeline::Packet::new(&mut chunk, 64, ask.len(), vif);
    assert!(world.left.pipeline().explain(&mut packet).replayed);
}
