//! Security groups and IPv6, which is bridged: who opens a connection to whom in a segment, what
//! neither extension headers nor fragments get around, and what ends when the rules change.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod guarded;
mod hops;

use guarded::*;
use hops::{VM1, VM2, VM4};
use pipeline::DropReason;
use tables::Origin;
use testkit::{Sent, World, discovery, ipv6, link_local};
use wire::MacAddr;

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;

fn guarded(name: &'static str, plan: &Plan) -> World {
    let mut world = World::routed(name, false);
    plan.guard_both(&mut world);
    // Each has heard of the other: what follows is not flooded.
    for (vm, from, to, hears) in [(1, VM1, VM4, 4), (4, VM4, VM1, 1), (2, VM2, VM4, 4)] {
        let asks = discovery(135, link_local(to.0), from.0);
        let heard = heard(&world.send(vm, &packet(from.0, to.0, 58, &asks)));
        assert!(heard.contains(&hears), "discovery passes: {heard:?}");
    }
    world
}

fn heard(reached: &[Sent]) -> Vec<u8> {
    let is_ipv6 = |sent: &&Sent| sent.frame[12..14] == [0x86, 0xdd];
    reached.iter().filter(is_ipv6).map(|sent| sent.vm).collect()
}

/// A packet between the link-local addresses of two VMs.
fn packet(from: MacAddr, to: MacAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6((from, link_local(from)), (to, link_local(to)), next, payload)
}

fn tcp_header(ports: (u16, u16), flags: u8) -> Vec<u8> {
    let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

fn tcp(from: MacAddr, to: MacAddr, ports: (u16, u16), flags: u8) -> Vec<u8> {
    packet(from, to, 6, &tcp_header(ports, flags))
}

fn udp_header(ports: (u16, u16), length: u16) -> Vec<u8> {
    [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat()
}

fn ping(from: MacAddr, to: MacAddr, request: bool) -> Vec<u8> {
    packet(from, to, 58, &[if request { 128 } else { 129 }, 0, 0, 0, 0, 7, 0, 1])
}

fn six(protocol: Option<u8>, ports: (u16, u16), net: &str) -> tables::Rule {
    rule(protocol, ports, from(net))
}

#[test]
fn without_a_rule_only_discovery_and_answers_come_in() {
    // What lets all in by IPv4 says nothing of IPv6.
    let plan = Plan::new(false)
        .allow(2, any(None))
        .allow(1, six(TCP, (80, 80), "::/0"))
        .allow(1, six(ICMPV6, (128 << 8, 128 << 8 | 255), "fe80::/64"));
    let mut world = guarded("groups6_deny", &plan);
    for _ in 0..2 {
        assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (4000, 80), SYN))), [0u8; 0]);
        assert_eq!(heard(&world.send(1, &ping(VM1.0, VM2.0, true))), [0u8; 0]);
    }
    assert_eq!(dropped(&world.left, 11, DropReason::SecurityGroup), 4);
    assert_eq!(heard(&world.send(2, &tcp(VM2.0, VM1.0, (4000, 81), SYN))), [0u8; 0]);
    assert_eq!(heard(&world.send(2, &tcp(VM2.0, VM1.0, (4000, 80), SYN))), [1]);
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (80, 4000), SYN_ACK))), [2]);
    assert_eq!(heard(&world.send(2, &tcp(VM2.0, VM1.0, (4000, 80), ACK))), [1]);
    assert_eq!(heard(&world.send(2, &ping(VM2.0, VM1.0, true))), [1]);
    assert_eq!(heard(&world.send(1, &ping(VM1.0, VM2.0, false))), [2]);
    // Nor does an answer come that nobody asked for.
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (80, 4001), SYN_ACK))), [0u8; 0]);
    let advertises = discovery(136, link_local(VM1.0), VM1.0);
    assert_eq!(heard(&world.send(1, &packet(VM1.0, VM2.0, 58, &advertises))), [2]);
}

#[test]
fn the_vms_own_node_judges_what_comes_over_the_trunk() {
    let plan = Plan::new(false).allow(4, six(UDP, (53, 53), "fe80::f816:3eff:fe00:1/128"));
    let mut world = guarded("groups6_trunk", &plan);
    let ask = |from: MacAddr, port| packet(from, VM4.0, 17, &udp_header((7, port), 8));
    assert_eq!(heard(&world.send(1, &ask(VM1.0, 53))), [4]);
    assert_eq!(heard(&world.send(1, &ask(VM1.0, 54))), [0u8; 0]);
    assert_eq!(heard(&world.send(2, &ask(VM2.0, 53))), [0u8; 0], "it is not VM 1");
    assert_eq!(dropped(&world.right, 1, DropReason::SecurityGroup), 2);
    let answer = packet(VM4.0, VM1.0, 17, &udp_header((53, 7), 8));
    assert_eq!(heard(&world.send(4, &answer)), [1]);
    // The same ports from another station are another connection.
    let rides = packet(VM2.0, VM1.0, 17, &udp_header((53, 7), 8));
    assert_eq!(heard(&world.send(2, &rides)), [0u8; 0]);
}

#[test]
fn the_own_network_is_who_is_on_the_link() {
    let mut world = guarded("groups6_own", &Plan::new(true));
    assert_eq!(heard(&world.send(1, &ping(VM1.0, VM2.0, true))), [2]);
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM4.0, (4000, 22), SYN))), [4]);
    let mut far = [0x20; 16];
    far[8..].copy_from_slice(&VM1.0.interface_id());
    let global = ipv6((VM1.0, far), (VM2.0, link_local(VM2.0)), 6, &tcp_header((4000, 22), SYN));
    assert_eq!(heard(&world.send(1, &global)), [0u8; 0]);
}

#[test]
fn members_come_in_by_the_ipv6_addresses_they_have() {
    let mut plan = Plan::new(false).allow(2, rule(TCP, (22, 22), Origin::Members(6)));
    plan.members = vec![link_local(VM1.0).into()];
    let mut world = guarded("groups6_members", &plan);
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (4000, 22), SYN))), [2]);
    assert_eq!(heard(&world.send(4, &tcp(VM4.0, VM2.0, (4000, 22), SYN))), [0u8; 0]);
}

#[test]
fn extension_headers_hide_no_port_and_get_around_no_rule() {
    let plan = Plan::new(false).allow(2, six(UDP, (53, 53), "::/0"));
    let mut world = guarded("groups6_headers", &plan);
    let behind = |next: u8, header: &[u8]| {
        let payload = [header, &udp_header((7, 53), 8)].concat();
        packet(VM1.0, VM2.0, next, &payload)
    };
    let pad = [17, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(heard(&world.send(1, &behind(HOP_BY_HOP, &pad))), [0u8; 0], "its port is not read");
    Plan::new(false).allow(2, six(UDP, (0, 65535), "::/0")).guard_both(&mut world);
    assert_eq!(heard(&world.send(1, &behind(HOP_BY_HOP, &pad))), [2], "all ports are open");
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (7, 53), SYN))), [0u8; 0]);
    // Nothing of it is remembered, so nothing rides on it.
    assert_eq!(world.left.flows.live().count(), 0);
}

#[test]
fn fragments_are_judged_by_their_datagrams_port() {
    let plan = Plan::new(false).allow(2, six(UDP, (53, 53), "::/0"));
    let mut world = guarded("groups6_fragments", &plan);
    let pieces = |dport: u16, id: u8| {
        let whole = [udp_header((7, dport), 48), vec![0; 40]].concat();
        let cut = |from: u16, to: u16, more: u8| {
            let [high, low] = from.to_be_bytes();
            let header = [17, 0, high, low | more, 0, 0, 0, id];
            let payload = [&header[..], &whole[usize::from(from)..usize::from(to)]].concat();
            packet(VM1.0, VM2.0, FRAGMENT, &payload)
        };
        [cut(0, 24, 1), cut(24, 48, 0)]
    };
    let [first, last] = pieces(53, 1);
    assert_eq!(heard(&world.send(1, &last)), [0u8; 0], "it waits for the port");
    assert_eq!(heard(&world.send(1, &first)), [2, 2]);
    let [first, last] = pieces(54, 2);
    assert_eq!(heard(&world.send(1, &first)), [0u8; 0]);
    assert_eq!(heard(&world.send(1, &last)), [0u8; 0]);
    assert_eq!(dropped(&world.left, 11, DropReason::SecurityGroup), 2);
    // A solicitation in pieces is none (RFC 6980).
    let asks = [&[58, 0, 0, 0, 0, 0, 0, 3][..], &discovery(135, link_local(VM2.0), VM1.0)].concat();
    assert_eq!(heard(&world.send(1, &packet(VM1.0, VM2.0, FRAGMENT, &asks))), [0u8; 0]);
}

#[test]
fn errors_about_an_open_connection_pass_and_others_do_not() {
    let plan = Plan::new(false).allow(2, six(TCP, (80, 80), "::/0"));
    let mut world = guarded("groups6_errors", &plan);
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (4000, 80), SYN))), [2]);
    assert_eq!(heard(&world.send(2, &tcp(VM2.0, VM1.0, (80, 4000), SYN_ACK))), [1]);
    let too_big = |about: &[u8]| {
        let message = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &about[14..]].concat();
        packet(VM2.0, VM1.0, 58, &message)
    };
    assert_eq!(heard(&world.send(2, &too_big(&tcp(VM1.0, VM2.0, (4000, 80), ACK)))), [1]);
    assert_eq!(heard(&world.send(2, &too_big(&tcp(VM1.0, VM2.0, (4001, 80), ACK)))), [0u8; 0]);
    assert_eq!(dropped(&world.left, 12, DropReason::SecurityGroup), 1);
}

#[test]
fn a_removed_rule_ends_its_connections_whoever_talks_and_no_others() {
    let ssh = || six(TCP, (22, 22), "::/0");
    let plan = Plan::new(false).allow(2, ssh()).allow(2, six(TCP, (80, 80), "::/0"));
    let mut world = guarded("groups6_revoked", &plan);
    for port in [22, 80] {
        assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (4000, port), SYN))), [2]);
        assert_eq!(heard(&world.send(2, &tcp(VM2.0, VM1.0, (port, 4000), SYN_ACK))), [1]);
    }
    // VM 2's own, to VM 1.
    Plan::new(false).allow(2, ssh()).allow(1, six(UDP, (53, 53), "::/0")).guard_both(&mut world);
    let own = packet(VM2.0, VM1.0, 17, &udp_header((9, 53), 8));
    assert_eq!(heard(&world.send(2, &own)), [1]);
    assert_eq!(heard(&world.send(2, &tcp(VM2.0, VM1.0, (80, 4000), ACK))), [0u8; 0], "the server");
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (4000, 80), ACK))), [0u8; 0]);
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (4000, 22), ACK))), [2], "it is allowed");
    assert_eq!(heard(&world.send(2, &tcp(VM2.0, VM1.0, (22, 4000), ACK))), [1]);
    assert_eq!(dropped(&world.left, 12, DropReason::Revoked), 1);
    assert_eq!(dropped(&world.left, 11, DropReason::Revoked), 1);
    let answer = packet(VM1.0, VM2.0, 17, &udp_header((53, 9), 8));
    assert_eq!(heard(&world.send(1, &answer)), [2], "what VM 2 asked itself");
    plan.guard_both(&mut world);
    assert_eq!(heard(&world.send(1, &tcp(VM1.0, VM2.0, (4000, 80), ACK))), [2], "allowed again");
}
