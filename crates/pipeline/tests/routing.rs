//! The seed's routed scenarios on two nodes in memory: every hop's addresses, tag and TTL. A
//! failure leaves a pcap.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use tables::GATEWAY_MAC;
use testkit::{ROUTER, Sent, World, arp_request, echo, tag, tcp, udp, vm_mac};
use wire::{Ipv4, MacAddr, Network, Transport};

const VM1: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]), [10, 0, 0, 3]);
const VM2: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 2]), [10, 0, 0, 4]);
const VM3: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 3]), [10, 1, 0, 3]);
const VM4: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 4]), [10, 0, 0, 6]);
const VM6: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 6]), [10, 1, 0, 4]);
const LEFT: [u8; 4] = [91, 207, 15, 105];
const RIGHT: [u8; 4] = [91, 207, 15, 106];
const FLOAT1: [u8; 4] = [91, 208, 23, 11];
const FLOAT6: [u8; 4] = [91, 208, 23, 16];
const GOOGLE: [u8; 4] = [8, 8, 8, 8];
/// What the left and right node speak with on the trunk and the public side.
const LEFT_TRUNK: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const RIGHT_TRUNK: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);
const LEFT_PUBLIC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);

/// What of a frame the scenarios tell: MACs, tag, addresses, TTL.
#[derive(Debug, PartialEq, Eq)]
struct Hop {
    macs: (MacAddr, MacAddr),
    vlan: Option<u16>,
    src: [u8; 4],
    dst: [u8; 4],
    ttl: u8,
}

fn ip(frame: &[u8]) -> Ipv4 {
    match wire::parse(frame).unwrap().network {
        Network::Ipv4(ip) => ip,
        other => panic!("{other:?}"),
    }
}

/// A frame that is IPv4, with checksums that are right.
fn hop(frame: &[u8]) -> Hop {
    let headers = wire::parse(frame).unwrap();
    let ip = ip(frame);
    let l3 = usize::from(headers.l3);
    let packet = &frame[l3..l3 + usize::from(ip.total_len)];
    let parsed = etherparse::SlicedPacket::from_ip(packet).unwrap();
    let Some(etherparse::NetSlice::Ipv4(slice)) = &parsed.net else { panic!("{parsed:?}") };
    let header = slice.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    match &parsed.transport {
        Some(etherparse::TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), sum);
        }
        Some(etherparse::TransportSlice::Tcp(tcp)) => {
            assert_eq!(
                tcp.checksum(),
                tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
            );
        }
        Some(etherparse::TransportSlice::Icmpv4(icmp)) => {
            let sum = icmp.header().icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp.header().checksum, sum);
        }
        other => panic!("{other:?}"),
    }
    let vlan = headers.vlan;
    Hop { macs: (headers.src, headers.dst), vlan, src: ip.src, dst: ip.dst, ttl: ip.ttl }
}

fn hops(frames: &[Vec<u8>]) -> Vec<Hop> {
    let ips = frames
        .iter()
        .filter(|frame| matches!(wire::parse(frame).unwrap().network, Network::Ipv4(_)));
    ips.map(|frame| hop(frame)).collect()
}

/// The only frame that reached anybody but for ARP.
fn one(reached: &[Sent]) -> &Sent {
    let ips: Vec<&Sent> = reached
        .iter()
        .filter(|sent| !matches!(wire::parse(&sent.frame).unwrap().network, Network::Arp(_)))
        .collect();
    assert_eq!(ips.len(), 1, "{ips:?}");
    ips[0]
}

fn gateway(address: [u8; 4]) -> (MacAddr, [u8; 4]) {
    (GATEWAY_MAC, address)
}

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
