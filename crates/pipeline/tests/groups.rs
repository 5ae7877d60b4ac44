//! Security groups on two nodes in memory: who opens a connection to whom, by whatever way, and what
//! ends when the rules change.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod guarded;
mod hops;

use std::sync::atomic::Ordering::Relaxed;

use guarded::*;
use hops::*;
use pipeline::DropReason;
use tables::{GATEWAY_MAC, Origin, PortId};
use testkit::{ROUTER, Sent, World, arp_request, echo, tcp, udp};
use wire::MacAddr;

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;

/// Seed 001: everything of TCP from the other tenant, nothing of ICMP yet.
fn seed() -> Plan {
    let tcp = |net| rule(TCP, (1, 65535), from(net));
    let mut plan = Plan::new(true);
    for vm in [1, 2, 4, 5] {
        plan = plan.allow(vm, tcp("10.1.0.0/24"));
    }
    for vm in [3, 6] {
        plan = plan.allow(vm, tcp("10.0.0.0/24"));
    }
    plan
}

fn guarded(name: &'static str, plan: &Plan) -> World {
    let mut world = World::routed(name, false);
    plan.guard_both(&mut world);
    world
}

/// Those who got something that is IPv4.
fn heard(reached: &[Sent]) -> Vec<u8> {
    let is_ip = |sent: &&Sent| sent.frame[12..14] == [8, 0];
    reached.iter().filter(is_ip).map(|sent| sent.vm).collect()
}

type Vm = (MacAddr, [u8; 4]);

/// A TCP packet from VM to VM, by the gateway.
fn segment(from: Vm, to: Vm, ports: (u16, u16), flags: u8) -> Vec<u8> {
    tcp((from.0, from.1, ports.0), (GATEWAY_MAC, to.1, ports.1), flags, b"")
}

/// The same within a network.
fn bridged(from: Vm, to: Vm, ports: (u16, u16), flags: u8) -> Vec<u8> {
    tcp((from.0, from.1, ports.0), (to.0, to.1, ports.1), flags, b"")
}

fn ping(from: Vm, to: Vm, request: bool) -> Vec<u8> {
    echo(from, (GATEWAY_MAC, to.1), request, 7)
}

#[test]
fn scenario_5_tcp_passes_to_the_other_tenant_and_icmp_not_until_it_is_allowed() {
    let mut world = guarded("groups_5", &seed());
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (40000, 80), SYN))), [3]);
    assert_eq!(heard(&world.send(3, &segment(VM3, VM1, (80, 40000), SYN_ACK))), [1]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (40000, 80), ACK))), [3]);
    for _ in 0..2 {
        assert_eq!(heard(&world.send(1, &ping(VM1, VM3, true))), [0u8; 0]);
    }
    assert_eq!(dropped(&world.left, 11, DropReason::SecurityGroup), 2);
    let refused = &world.left.counters.port(PortId::new(13).unwrap()).tx_refused;
    assert_eq!(refused.load(Relaxed), 2, "counted for VM 3 as well");
    // Nor does an answer come that nobody asked for, or UDP.
    assert_eq!(heard(&world.send(1, &ping(VM1, VM3, false))), [0u8; 0]);
    let datagram = udp((VM1.0, VM1.1, 5), (GATEWAY_MAC, VM3.1, 53), b"?");
    assert_eq!(heard(&world.send(1, &datagram)), [0u8; 0]);

    seed().allow(3, rule(ICMP, (8 << 8, 8 << 8), Origin::ANYBODY)).guard_both(&mut world);
    assert_eq!(heard(&world.send(1, &ping(VM1, VM3, true))), [3]);
    assert_eq!(heard(&world.send(3, &ping(VM3, VM1, false))), [1], "answers need no rule");
    assert_eq!(heard(&world.send(3, &ping(VM3, VM1, true))), [0u8; 0], "VM 1 has none");
}

#[test]
fn scenario_6_the_vms_own_node_judges_though_another_one_routes() {
    let mut world = guarded("groups_6", &seed());
    assert_eq!(heard(&world.send(1, &segment(VM1, VM6, (40000, 80), SYN))), [6]);
    assert_eq!(heard(&world.send(6, &segment(VM6, VM1, (80, 40000), SYN_ACK))), [1]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM6, (40000, 80), ACK))), [6]);
    assert_eq!(heard(&world.send(1, &ping(VM1, VM6, true))), [0u8; 0]);
    assert_eq!(dropped(&world.left, 11, DropReason::SecurityGroup), 0);
    assert_eq!(dropped(&world.right, 1, DropReason::SecurityGroup), 1, "at the trunk of its node");
    seed().allow(6, any(ICMP)).guard_both(&mut world);
    assert_eq!(heard(&world.send(1, &ping(VM1, VM6, true))), [6]);
    assert_eq!(heard(&world.send(6, &ping(VM6, VM1, false))), [1]);
}

#[test]
fn the_own_network_comes_in_on_both_nodes_unless_it_may_not() {
    let mut world = guarded("groups_same", &Plan::new(true));
    assert_eq!(heard(&world.send(1, &echo(VM1, VM2, true, 1))), [2]);
    world.send(1, &arp_request(VM1, VM4.1));
    assert_eq!(heard(&world.send(1, &echo(VM1, VM4, true, 1))), [4]);
    let mut world = guarded("groups_not_same", &Plan::new(false));
    world.send(1, &arp_request(VM1, VM4.1));
    assert_eq!(heard(&world.send(1, &echo(VM1, VM2, true, 1))), [0u8; 0]);
    assert_eq!(heard(&world.send(1, &echo(VM1, VM4, true, 1))), [0u8; 0]);
    Plan::new(false).allow(4, any(ICMP)).guard_both(&mut world);
    assert_eq!(heard(&world.send(1, &echo(VM1, VM4, true, 1))), [4]);
    assert_eq!(heard(&world.send(4, &echo(VM4, VM1, false, 1))), [1]);
}

#[test]
fn two_tenants_in_one_flat_segment_reach_each_other_only_where_that_is_allowed() {
    let address = |vm: u8| (testkit::vm_mac(vm), [10, 0, 0, vm]);
    let mut world = World::flat("groups_flat");
    let everybody = |world: &mut World| -> Vec<(u8, u8)> {
        let pairs = (1..=6).flat_map(|one| (1..=6).map(move |two| (one, two)));
        pairs
            .filter(|(one, two)| one != two)
            .filter(|(one, two)| {
                let ping = echo(address(*one), address(*two), true, u16::from(*one));
                heard(&world.send(*one, &ping)) == [*two]
            })
            .collect()
    };
    // Everybody is heard of once, so that nothing is flooded.
    for vm in 1..=6 {
        world.send(vm, &arp_request(address(vm), [10, 0, 0, 99]));
    }
    Plan::new(true).guard_both(&mut world);
    assert_eq!(everybody(&mut world).len(), 30);
    Plan::new(false).guard_both(&mut world);
    assert_eq!(everybody(&mut world), [], "not even connections that are open go on");
    Plan::new(false).allow(5, rule(ICMP, (0, 65535), from("10.0.0.2/32"))).guard_both(&mut world);
    assert_eq!(everybody(&mut world), [(2, 5)]);
}

#[test]
fn a_floating_address_is_judged_at_its_vm_by_who_asks_from_outside_and_from_within() {
    // VM 1 lets in 22 from one outside, and from VM 2 by that one's own address.
    let plan = Plan::new(false)
        .allow(1, rule(TCP, (22, 22), from("8.8.8.0/24")))
        .allow(1, rule(TCP, (80, 80), from("10.0.0.4/32")));
    let mut world = guarded("groups_float", &plan);
    let outside = |port| tcp((ROUTER.mac, GOOGLE, 5000), (LEFT_PUBLIC, FLOAT1, port), SYN, b"");
    assert_eq!(heard(&world.send_from_outside(&outside(22))), [1]);
    assert_eq!(heard(&world.send_from_outside(&outside(80))), [0u8; 0]);
    assert_eq!(dropped(&world.left, 2, DropReason::SecurityGroup), 1);
    let sibling = |port| tcp((VM2.0, VM2.1, 5000), (GATEWAY_MAC, FLOAT1, port), SYN, b"");
    assert_eq!(heard(&world.send(2, &sibling(80))), [1], "the hairpin is judged by who it is");
    assert_eq!(heard(&world.send(2, &sibling(22))), [0u8; 0]);
    // To itself, by its own floating address.
    let own = tcp((VM1.0, VM1.1, 5000), (GATEWAY_MAC, FLOAT1, 80), SYN, b"");
    assert_eq!(heard(&world.send(1, &own)), [0u8; 0]);
    plan.allow(1, rule(TCP, (80, 80), from("10.0.0.3/32"))).guard_both(&mut world);
    assert_eq!(heard(&world.send(1, &own)), [1]);
    // From another node it is somebody from outside, with the address that node gave it.
    let far = tcp((testkit::vm_mac(4), [10, 0, 0, 6], 5000), (GATEWAY_MAC, FLOAT1, 22), SYN, b"");
    assert_eq!(heard(&world.send(4, &far)), [0u8; 0]);
}

#[test]
fn the_host_is_judged_too_but_for_its_dhcp() {
    let mut world = guarded("groups_host", &Plan::new(false));
    let foot = PortId::new(101).unwrap();
    let host = (MacAddr([2, 0, 0, 0, 0, 0xfe]), [10, 0, 0, 1]);
    let mut sends = |frame: &[u8]| world.left.receive(foot, frame).1.len();
    assert_eq!(sends(&echo(host, VM1, true, 1)), 0);
    assert_eq!(sends(&udp((host.0, host.1, 67), (VM1.0, VM1.1, 68), b"offer")), 1);
    assert_eq!(sends(&udp((host.0, host.1, 67), (VM1.0, VM1.1, 69), b"")), 0);
    Plan::new(true).guard(&mut world.left);
    assert_eq!(world.left.receive(foot, &echo(host, VM1, true, 1)).1.len(), 1);
}

#[test]
fn what_a_vm_asks_for_is_answered_without_a_rule() {
    let mut world = guarded("groups_out", &Plan::new(false));
    let ask = udp((VM2.0, VM2.1, 40000), (GATEWAY_MAC, GOOGLE, 53), b"?");
    world.send(2, &ask);
    let answer = udp((ROUTER.mac, GOOGLE, 53), (LEFT_PUBLIC, LEFT, 40000), b"!");
    assert_eq!(heard(&world.send_from_outside(&answer)), [2]);
}

#[test]
fn answers_come_though_the_question_was_flooded() {
    let mut world = guarded("groups_flooded", &Plan::new(false).allow(4, any(None)));
    // The left node does not know yet where VM 4 is; the answer tells it.
    assert_eq!(heard(&world.send(1, &echo(VM1, VM4, true, 1))), [4]);
    assert_eq!(heard(&world.send(4, &echo(VM4, VM1, false, 1))), [1]);
    assert_eq!(heard(&world.send(1, &echo(VM1, VM4, true, 1))), [4]);
    assert_eq!(heard(&world.send(4, &echo(VM4, VM1, false, 1))), [1]);
    assert_eq!(world.left.flows.live().count(), 2);
}

#[test]
fn copies_of_what_is_flooded_go_to_those_who_let_them_in() {
    let plan = Plan::new(false)
        .allow(2, rule(UDP, (5353, 5353), Origin::ANYBODY))
        .allow(5, rule(UDP, (5353, 5353), from("10.0.0.3/32")));
    let mut world = guarded("groups_flood", &plan);
    let group = MacAddr([1, 0, 0x5e, 0, 0, 0xfb]);
    let query = udp((VM1.0, VM1.1, 5353), (group, [224, 0, 0, 251], 5353), b"who?");
    assert_eq!(heard(&world.send(1, &query)), [2, 5]);
    let kept = |port| {
        let row = world.right.counters.port(PortId::new(port).unwrap());
        row.tx_kept.load(Relaxed)
    };
    assert_eq!((kept(14), kept(15)), (0, 0), "the node in memory counts none; the worker does");
    // What is not IPv4 goes to all, as ever.
    assert_eq!(world.reach(1, &arp_request(VM1, [10, 0, 0, 99])), [2, 4, 5]);
}

#[test]
fn errors_about_an_open_connection_pass_and_others_do_not() {
    let mut world = guarded("groups_related", &Plan::new(false).allow(3, any(UDP)));
    let ask = udp((VM1.0, VM1.1, 40000), (GATEWAY_MAC, VM3.1, 9), b"anybody?");
    let seen = world.send(1, &ask);
    let refused = |frame: &[u8]| {
        let quote = &frame[14..42];
        let builder = etherparse::PacketBuilder::ethernet2(VM3.0.0, GATEWAY_MAC.0);
        let builder = builder.ipv4(VM3.1, VM1.1, 64).icmpv4_raw(3, 3, [0; 4]);
        let mut error = Vec::new();
        builder.write(&mut error, quote).unwrap();
        error
    };
    assert_eq!(heard(&world.send(3, &refused(&one(&seen).frame))), [1]);
    let mut other = one(&seen).frame.clone();
    other[37] = 10;
    assert_eq!(heard(&world.send(3, &refused(&other))), [0u8; 0]);
    assert_eq!(dropped(&world.left, 13, DropReason::SecurityGroup), 1);
}

#[test]
fn fragments_are_judged_by_their_datagrams_port() {
    let plan = Plan::new(false).allow(2, rule(UDP, (53, 53), Origin::ANYBODY));
    let mut world = guarded("groups_fragments", &plan);
    let pieces = |dport: u16, id: u8| {
        let whole = udp((VM1.0, VM1.1, 7), (VM2.0, VM2.1, dport), &[0; 40]);
        let cut = |from: usize, to: usize, more: u8| {
            let mut piece = [&whole[..34], &whole[34 + from..34 + to]].concat();
            piece[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
            piece[19] = id;
            piece[20..22].copy_from_slice(&[more, (from / 8) as u8]);
            piece[24..26].fill(0);
            let words =
                piece[14..34].chunks(2).map(|two| u32::from_be_bytes([0, 0, two[0], two[1]]));
            let sum: u32 = words.sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            piece[24..26].copy_from_slice(&sum.to_be_bytes());
            piece
        };
        [cut(0, 24, 0x20), cut(24, 48, 0)]
    };
    let [first, last] = pieces(53, 1);
    assert_eq!(heard(&world.send(1, &last)), [0u8; 0], "it waits for the port");
    assert_eq!(heard(&world.send(1, &first)), [2, 2]);
    let [first, last] = pieces(54, 2);
    assert_eq!(heard(&world.send(1, &first)), [0u8; 0]);
    assert_eq!(heard(&world.send(1, &last)), [0u8; 0]);
    assert_eq!(dropped(&world.left, 11, DropReason::SecurityGroup), 2);
}

#[test]
fn what_looks_like_a_ping_in_another_protocol_rides_on_no_pings_line() {
    let mut world = guarded("groups_58", &Plan::new(false).allow(2, any(ICMP)));
    assert_eq!(heard(&world.send(1, &echo(VM1, VM2, true, 7))), [2]);
    // ICMPv6 in IPv4, and its echo request.
    let mut other = echo(VM1, VM2, true, 7);
    (other[23], other[34]) = (58, 128);
    assert_eq!(heard(&world.send(1, &other)), [0u8; 0]);
    assert_eq!(dropped(&world.left, 11, DropReason::SecurityGroup), 1);
}

#[test]
fn icmp_that_is_no_echo_is_judged_by_type_each_time() {
    let time = |from: Vm, to: Vm| {
        let mut frame = echo(from, to, true, 1);
        frame[34] = 13;
        frame
    };
    let plan = Plan::new(false).allow(2, rule(ICMP, (13 << 8, 13 << 8 | 255), Origin::ANYBODY));
    let mut world = guarded("groups_icmp", &plan);
    for _ in 0..2 {
        assert_eq!(heard(&world.send(1, &time(VM1, VM2))), [2]);
        assert_eq!(heard(&world.send(1, &echo(VM1, VM2, true, 1))), [0u8; 0]);
        assert_eq!(heard(&world.send(2, &time(VM2, VM1))), [0u8; 0]);
    }
    assert_eq!(world.left.flows.live().count(), 0);
}

#[test]
fn a_group_lets_in_its_members_and_those_who_join_and_nobody_who_has_left() {
    let mut plan = Plan::new(false).allow(3, rule(TCP, (80, 80), Origin::Members(6)));
    plan.members = vec![VM1.1.into()];
    let mut world = guarded("groups_members", &plan);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 80), SYN))), [3]);
    assert_eq!(heard(&world.send(2, &segment(VM2, VM3, (4000, 80), SYN))), [0u8; 0]);
    plan.members = vec![VM1.1.into(), VM2.1.into()];
    plan.guard_both(&mut world);
    assert_eq!(heard(&world.send(2, &segment(VM2, VM3, (4000, 80), SYN))), [3]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 80), ACK))), [3], "it lives on");
    plan.members = vec![VM2.1.into()];
    plan.guard_both(&mut world);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 80), ACK))), [0u8; 0]);
    assert_eq!(heard(&world.send(2, &segment(VM2, VM3, (4000, 80), ACK))), [3]);
    assert_eq!(dropped(&world.left, 11, DropReason::Revoked), 1);
}

/// VM 3 serves ports 22 and 80 to VM 1 and VM 6; the connections are open.
fn serving(name: &'static str) -> (World, Plan) {
    let ssh = rule(TCP, (22, 22), Origin::ANYBODY);
    let plan = Plan::new(false).allow(3, ssh).allow(3, rule(TCP, (80, 80), Origin::ANYBODY));
    let mut world = guarded(name, &plan);
    for port in [22, 80] {
        assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, port), SYN))), [3]);
        assert_eq!(heard(&world.send(3, &segment(VM3, VM1, (port, 4000), SYN_ACK))), [1]);
        assert_eq!(heard(&world.send(6, &bridged(VM6, VM3, (4000, port), SYN))), [3]);
        assert_eq!(heard(&world.send(3, &bridged(VM3, VM6, (port, 4000), SYN_ACK))), [6]);
    }
    (world, plan)
}

#[test]
fn a_removed_rule_ends_its_connections_though_only_the_server_talks_and_no_others() {
    let (mut world, mut plan) = serving("groups_revoked");
    plan.rules[2].remove(1);
    plan.guard_both(&mut world);
    let answers = |world: &mut World, port: u16| {
        let routed = heard(&world.send(3, &segment(VM3, VM1, (port, 4000), ACK)));
        [routed, heard(&world.send(3, &bridged(VM3, VM6, (port, 4000), ACK)))].concat()
    };
    for round in 1..=3 {
        // Its first packet does not come through, and what it sends again does not either: an answer
        // opens no connection of its own.
        assert_eq!(answers(&mut world, 80), [0u8; 0]);
        assert_eq!(dropped(&world.left, 13, DropReason::Revoked), 2 * round);
        assert_eq!(answers(&mut world, 22), [1, 6]);
    }
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 80), ACK))), [0u8; 0]);
    assert_eq!(heard(&world.send(6, &bridged(VM6, VM3, (4000, 80), ACK))), [0u8; 0]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4001, 80), SYN))), [0u8; 0]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 22), ACK))), [3]);
    // Allowed again, it goes on where it was.
    let (_, plan) = serving("groups_revoked_again");
    plan.guard_both(&mut world);
    assert_eq!(answers(&mut world, 80), [1, 6]);
}

#[test]
fn a_rule_that_goes_ends_what_came_by_a_floating_address_from_outside_and_from_a_sibling() {
    let ssh = rule(TCP, (22, 22), from("8.8.8.0/24"));
    let plan = Plan::new(false).allow(1, ssh).allow(1, rule(TCP, (22, 22), from("10.0.0.4/32")));
    let mut world = guarded("groups_revoked_float", &plan);
    let outside = tcp((ROUTER.mac, GOOGLE, 5000), (LEFT_PUBLIC, FLOAT1, 22), SYN, b"");
    assert_eq!(heard(&world.send_from_outside(&outside)), [1]);
    let sibling = tcp((VM2.0, VM2.1, 5000), (GATEWAY_MAC, FLOAT1, 22), SYN, b"");
    assert_eq!(heard(&world.send(2, &sibling)), [1]);
    let answers = |world: &mut World| {
        world.outside.clear();
        world.send(1, &segment(VM1, (ROUTER.mac, GOOGLE), (22, 5000), ACK));
        (world.outside.len(), heard(&world.send(1, &bridged(VM1, VM2, (22, 5000), ACK))))
    };
    assert_eq!(answers(&mut world), (1, vec![2]));
    Plan::new(false).allow(1, ssh).guard_both(&mut world);
    assert_eq!(answers(&mut world), (1, vec![]));
    Plan::new(false).guard_both(&mut world);
    assert_eq!(answers(&mut world), (0, vec![]));
    assert_eq!(dropped(&world.left, 11, DropReason::Revoked), 3);
}

#[test]
fn a_narrowed_rule_ends_what_it_does_not_hold_any_more() {
    let (mut world, mut plan) = serving("groups_narrowed");
    plan.rules[2] = vec![rule(TCP, (1, 65535), from("10.0.0.0/24"))];
    plan.guard_both(&mut world);
    for port in [22, 80] {
        assert_eq!(heard(&world.send(3, &segment(VM3, VM1, (port, 4000), ACK))), [1]);
        assert_eq!(heard(&world.send(3, &bridged(VM3, VM6, (port, 4000), ACK))), [0u8; 0]);
    }
}

#[test]
fn with_revoke_off_open_connections_outlive_their_rule_as_with_nova() {
    let (mut world, mut plan) = serving("groups_nova");
    plan.rules[2].clear();
    plan.revoke = false;
    plan.guard_both(&mut world);
    assert_eq!(heard(&world.send(3, &segment(VM3, VM1, (80, 4000), ACK))), [1]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 80), ACK))), [3]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4001, 80), SYN))), [0u8; 0]);
}

#[test]
fn what_a_vm_opened_itself_outlives_every_change_of_its_rules() {
    let mut world = guarded("groups_outgoing", &Plan::new(false).allow(3, any(TCP)));
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 80), SYN))), [3]);
    assert_eq!(heard(&world.send(3, &segment(VM3, VM1, (80, 4000), SYN_ACK))), [1]);
    Plan::new(false).allow(3, any(TCP)).allow(1, any(UDP)).guard_both(&mut world);
    assert_eq!(heard(&world.send(3, &segment(VM3, VM1, (80, 4000), ACK))), [1]);
    assert_eq!(heard(&world.send(1, &segment(VM1, VM3, (4000, 80), ACK))), [3]);
}

#[test]
fn a_connection_whose_server_comes_to_this_node_is_judged_there() {
    let mut world = guarded("groups_moved", &Plan::new(false).allow(4, any(TCP)));
    world.send(1, &arp_request(VM1, VM4.1));
    assert_eq!(heard(&world.send(1, &bridged(VM1, VM4, (4000, 80), SYN))), [4]);
    assert_eq!(heard(&world.send(4, &bridged(VM4, VM1, (80, 4000), SYN_ACK))), [1]);
    // VM 4's address is found behind VM 2's port now, whose groups do not let this in.
    let port = PortId::new(12).unwrap();
    world.left.station(tables::SegmentId::new(1).unwrap(), VM4.0, port);
    world.left.flows.revoke(|_| conntrack::Mark::ForgetPath);
    assert_eq!(heard(&world.send(1, &bridged(VM1, VM4, (4000, 80), ACK))), [0u8; 0]);
    assert_eq!(dropped(&world.left, 11, DropReason::SecurityGroup), 1);
}
