//! What a VM may send as, and what it may not, frame by frame: VM 2 of the in-memory lab, which is
//! 10.0.0.4 and was allowed 10.0.9.0/24, fd00::3 and a VRRP address.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use pipeline::DropReason::{
    HiddenIpv6, RogueDhcp, RogueRa, SpoofedArp, SpoofedIpv4, SpoofedIpv6, SpoofedMac, SpoofedNd,
};
use pipeline::{DropReason, Verdict};
use tables::{GATEWAY_MAC, PortId};
use testkit::{
    Node, NodePlan, arp_reply, arp_request, discovery, echo, ethernet, ipv6, ipv6_multicast,
    link_local, tcp, udp, vm_mac,
};
use wire::MacAddr;

const VIF: u16 = 12;
const OWN: [u8; 4] = [10, 0, 0, 4];
const SIBLING: [u8; 4] = [10, 0, 0, 3];
const GATEWAY: [u8; 4] = [10, 0, 0, 1];
const VRRP: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 5]);
const ALL_NODES: (MacAddr, [u8; 16]) =
    (MacAddr([0x33, 0x33, 0, 0, 0, 1]), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// A router advertisement with nothing in it.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

fn me() -> MacAddr {
    vm_mac(2)
}

fn node() -> Node {
    let mut node = Node::new(&NodePlan {
        segments: vec![(1, Some(100))],
        vifs: vec![(1, 1), (2, 1)],
        known: true,
        number: 1,
        gateways: vec![(1, GATEWAY, false)],
        public: Some([91, 207, 15, 105]),
        addresses: vec![(1, SIBLING), (2, OWN)],
        floats: Vec::new(),
    });
    let allowed = [(None, "10.0.0.4/32"), (None, "10.0.9.0/24"), (None, "fd00::3/128")];
    let with_mac = (Some(VRRP), "10.0.0.99/32");
    let pairs = allowed.into_iter().chain([with_mac]);
    let pairs: Vec<_> = pairs.map(|(mac, net)| (mac, net.parse().unwrap())).collect();
    node.identify(2, &pairs);
    node
}

fn dhcp(src: [u8; 4], sport: u16, dport: u16) -> Vec<u8> {
    udp((me(), src, sport), (MacAddr::BROADCAST, [255; 4], dport), &[0; 240])
}

fn ping_from(mac: MacAddr, address: [u8; 4]) -> Vec<u8> {
    echo((mac, address), (vm_mac(1), SIBLING), true, 7)
}

/// An IPv6 packet to all nodes.
fn six(src: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6((me(), src), ALL_NODES, next, payload)
}

fn address(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn fragment(mut frame: Vec<u8>, flags: u8, offset: u8) -> Vec<u8> {
    (frame[20], frame[21]) = (flags, offset);
    frame
}

fn gratuitous(mac: MacAddr, address: [u8; 4]) -> Vec<u8> {
    arp_reply((mac, address), (MacAddr::BROADCAST, address))
}

fn lies() -> Vec<(&'static str, DropReason, Vec<u8>)> {
    let own6 = link_local(me());
    let other6 = link_local(vm_mac(1));
    let about = |kind, src, target, claims| six(src, 58, &discovery(kind, target, claims));
    let udp6 = |sport: u16| [&sport.to_be_bytes()[..], &[2, 34, 0, 8, 0, 0]].concat();
    let hop_by_hop = [&[58, 0, 5, 2, 0, 0, 1, 0][..], &ADVERTISEMENT].concat();
    let cut_in_a_fragment = [60, 0, 0, 1, 0, 0, 0, 9, 58, 1, 1, 4, 0, 0, 0, 0];
    let mut claims_other = arp_request((me(), OWN), GATEWAY);
    claims_other[22..28].copy_from_slice(&vm_mac(1).0);
    vec![
        ("a sibling's MAC", SpoofedMac, ping_from(vm_mac(1), OWN)),
        ("the gateway's MAC", SpoofedMac, ping_from(GATEWAY_MAC, OWN)),
        ("another ethertype", SpoofedMac, ethernet(vm_mac(9), vm_mac(1), 0x88b5, &[0; 46])),
        ("a sibling", SpoofedIpv4, ping_from(me(), SIBLING)),
        ("the gateway", SpoofedIpv4, ping_from(me(), GATEWAY)),
        ("a neighbour of the prefix", SpoofedIpv4, ping_from(me(), [10, 0, 10, 1])),
        ("nobody, but no DHCP", SpoofedIpv4, ping_from(me(), [0; 4])),
        ("nobody from another port", SpoofedIpv4, dhcp([0; 4], 69, 67)),
        ("everybody", SpoofedIpv4, ping_from(me(), [255; 4])),
        ("a later fragment", SpoofedIpv4, fragment(ping_from(me(), SIBLING), 0, 9)),
        ("a DHCP server", RogueDhcp, dhcp(OWN, 67, 68)),
        ("one in fragments", RogueDhcp, fragment(dhcp(OWN, 67, 68), 0x20, 0)),
        ("a sibling's address", SpoofedArp, gratuitous(me(), SIBLING)),
        ("the gateway's address", SpoofedArp, arp_reply((me(), GATEWAY), (vm_mac(1), SIBLING))),
        ("another sender MAC", SpoofedArp, claims_other),
        ("a sibling's link-local", SpoofedIpv6, six(other6, 59, &[])),
        ("a group", SpoofedIpv6, six(address("ff02::f816:3eff:fe00:2"), 59, &[])),
        ("nobody, UDP", SpoofedIpv6, six([0; 16], 17, &udp6(546))),
        ("nobody, echo", SpoofedIpv6, six([0; 16], 58, &[128, 0, 0, 0, 0, 1, 0, 1])),
        ("a DHCPv6 server", RogueDhcp, six(own6, 17, &udp6(547))),
        ("an advertisement for a sibling", SpoofedNd, about(136, own6, other6, me())),
        ("one that claims another MAC", SpoofedNd, about(136, own6, own6, vm_mac(1))),
        ("a question with another MAC", SpoofedNd, about(135, own6, other6, vm_mac(1))),
        ("claiming a sibling's new address", SpoofedNd, about(135, [0; 16], other6, me())),
        ("a router", RogueRa, six(own6, 58, &ADVERTISEMENT)),
        ("a router behind an option", RogueRa, six(own6, 0, &hop_by_hop)),
        ("a redirect", RogueRa, six(own6, 58, &[&[137][..], &[0; 39]].concat())),
        ("a header cut in a fragment", HiddenIpv6, six(own6, 44, &cut_in_a_fragment)),
    ]
}

fn truths() -> Vec<(&'static str, Vec<u8>)> {
    let own6 = link_local(me());
    let about = |kind, src, target, claims| six(src, 58, &discovery(kind, target, claims));
    let slaac = address("2001:db8::f816:3eff:fe00:2");
    vec![
        ("its own", ping_from(me(), OWN)),
        ("a guest of its own", ping_from(me(), [10, 0, 9, 77])),
        ("what it was allowed", ping_from(me(), [10, 0, 0, 99])),
        ("by its other MAC", ping_from(VRRP, [10, 0, 0, 99])),
        ("VRRP speaks from its own address", ping_from(VRRP, OWN)),
        ("asking for an address", dhcp([0; 4], 68, 67)),
        ("renewing it", dhcp(OWN, 68, 67)),
        ("TCP", tcp((me(), OWN, 67), (vm_mac(1), SIBLING, 22), 2, b"")),
        ("ARP", arp_request((me(), OWN), SIBLING)),
        ("a probe", arp_request((me(), [0; 4]), OWN)),
        ("announcing itself", gratuitous(me(), OWN)),
        ("announcing what it was allowed", gratuitous(VRRP, [10, 0, 0, 99])),
        ("a router solicitation", ipv6_multicast(me())),
        ("an address of SLAAC", six(slaac, 59, &[])),
        ("an address it was told", six(address("fd00::3"), 59, &[])),
        ("asking for a neighbour", about(135, own6, link_local(vm_mac(1)), me())),
        ("answering one", about(136, own6, own6, me())),
        ("asking for its own", about(135, [0; 16], own6, me())),
        ("joining a group", six([0; 16], 58, &[143, 0, 0, 0, 0, 0, 0, 0])),
        ("a ping", six(own6, 58, &[128, 0, 0, 0, 0, 1, 0, 1])),
        ("by its other MAC's", {
            ipv6((VRRP, link_local(VRRP)), ALL_NODES, 58, &[128, 0, 0, 0, 0, 1, 0, 1])
        }),
    ]
}

#[test]
fn a_vm_that_says_it_is_somebody_else_is_dropped_and_counted() {
    let mut node = node();
    for (what, reason, frame) in lies() {
        let verdict = node.receive(PortId::new(VIF).unwrap(), &frame).0;
        assert_eq!(verdict, Verdict::Drop(reason), "{what}");
    }
    // Nobody learned anything of it.
    let segment = tables::SegmentId::new(1).unwrap();
    assert_eq!(node.tables.fdb.find(segment, vm_mac(1)).unwrap().port.get(), 11);
    assert!(node.tables.fdb.find(segment, vm_mac(9)).is_none());
    assert_eq!(node.flows.connections(), 0);
}

#[test]
fn a_vm_that_is_who_it_says_is_let_through() {
    let mut node = node();
    for (what, frame) in truths() {
        let verdict = node.receive(PortId::new(VIF).unwrap(), &frame).0;
        assert!(!matches!(verdict, Verdict::Drop(_)), "{what}: {verdict:?}");
    }
}

#[test]
fn without_walls_it_may_say_what_it_likes() {
    let mut node = node();
    let vif = PortId::new(11).unwrap();
    for (what, _, frame) in lies() {
        let verdict = node.receive(vif, &frame).0;
        let by_a_wall = [
            SpoofedMac,
            SpoofedIpv4,
            SpoofedArp,
            SpoofedIpv6,
            SpoofedNd,
            RogueDhcp,
            RogueRa,
            HiddenIpv6,
        ];
        let met = by_a_wall.into_iter().find(|reason| verdict == Verdict::Drop(*reason));
        assert_eq!(met, None, "{what}");
    }
}

/// A VM whose connection is in the table, and one that has heard its ports, addresses and MACs.
#[test]
fn nobody_rides_on_a_connection_of_somebody_else() {
    let mut node = node();
    node.identify(1, &[(None, "10.0.0.3/32".parse().unwrap())]);
    let [first, second] = [11, VIF].map(|number| PortId::new(number).unwrap());
    let remote = (GATEWAY_MAC, [8, 8, 8, 8], 53);
    let asked = udp((vm_mac(1), SIBLING, 5000), remote, b"?");
    let (verdict, sent) = node.receive(first, &asked);
    assert!(matches!(verdict, Verdict::Forward(_)));
    let before = node.flows.connections();
    let forged = |mac| udp((mac, SIBLING, 5000), remote, b"mine");
    for (mac, reason) in [(me(), SpoofedIpv4), (vm_mac(1), SpoofedMac)] {
        assert_eq!(node.receive(second, &forged(mac)).0, Verdict::Drop(reason));
    }
    // Nor does it answer in the name of who was asked.
    let answer = udp((me(), [8, 8, 8, 8], 53), (vm_mac(1), SIBLING, 5000), b"!");
    assert_eq!(node.receive(second, &answer).0, Verdict::Drop(SpoofedIpv4));
    // Even without walls it would not be that connection: it has another port of entry.
    assert_eq!(node.flows.connections(), before);
    assert!(!sent.is_empty() && matches!(node.receive(first, &asked).0, Verdict::Forward(_)));
}
