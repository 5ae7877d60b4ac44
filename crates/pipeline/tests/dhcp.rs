//! Who hears a VM that asks for its address, and whose answers a VM hears.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use pipeline::{DropReason, Verdict};
use tables::{Dhcp, GATEWAY_MAC, PortId, SegmentId};
use testkit::{Node, NodePlan, tag, udp, vm_mac};
use wire::MacAddr;

const TRUNK: u16 = 1;
const VIF1: u16 = 11;
const VIF2: u16 = 12;
const HOST: u16 = 101;
const GATEWAY: [u8; 4] = [10, 0, 0, 1];

fn id(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

fn node(dhcp: Dhcp) -> Node {
    let plan = NodePlan {
        segments: vec![(1, Some(100)), (2, Some(102))],
        vifs: vec![(1, 1), (2, 1), (3, 2)],
        known: true,
        number: 1,
        gateways: vec![(1, GATEWAY, false)],
        addresses: vec![(1, [10, 0, 0, 3]), (2, [10, 0, 0, 4])],
        ..NodePlan::default()
    };
    let mut node = Node::new(&plan);
    node.serve_dhcp(dhcp);
    node
}

/// VM 1 asks, to this station and address.
fn asks(source: [u8; 4], to: (MacAddr, [u8; 4])) -> Vec<u8> {
    udp((vm_mac(1), source, 68), (to.0, to.1, 67), &message())
}

fn asks_all() -> Vec<u8> {
    asks([0; 4], (MacAddr::BROADCAST, [255; 4]))
}

/// A message of VM 1, as far as the pipeline looks into it.
fn message() -> Vec<u8> {
    let mut message = vec![0; 300];
    message[28..34].copy_from_slice(&vm_mac(1).0);
    message
}

fn answers_all(from: (MacAddr, [u8; 4])) -> Vec<u8> {
    udp((from.0, from.1, 67), (MacAddr::BROADCAST, [255; 4], 68), &message())
}

#[test]
fn a_request_goes_to_the_control_thread_whole_and_to_nobody_else() {
    let mut node = node(Dhcp::Node);
    let elsewhere = MacAddr([2, 0, 0, 0, 7, 7]);
    let requests = [
        asks_all(),
        // Renewing: to the gateway, to the server of the node it came from.
        asks([10, 0, 0, 3], (GATEWAY_MAC, GATEWAY)),
        asks([10, 0, 0, 3], (elsewhere, [10, 0, 0, 5])),
        asks([10, 0, 0, 3], (GATEWAY_MAC, [10, 0, 0, 5])),
    ];
    for request in requests {
        assert_eq!(node.receive(id(VIF1), &request).0, Verdict::Taken);
        let asked: Vec<_> = node.learner.asked().collect();
        assert_eq!((asked.len(), asked[0].port, asked[0].payload()), (1, id(VIF1), &message()[..]));
    }
    assert_eq!(node.flows.connections(), 0, "no line, which would lead the next one past it");
}

#[test]
fn with_a_server_at_the_host_port_it_alone_hears_and_only_the_vm_is_answered() {
    let mut node = node(Dhcp::Host);
    assert_eq!(node.receive(id(VIF1), &asks_all()).0, Verdict::Forward(id(HOST)));
    let answer = answers_all((GATEWAY_MAC, GATEWAY));
    assert_eq!(node.receive(id(HOST), &answer).0, Verdict::Forward(id(VIF1)));
    let mut stranger = answer.clone();
    stranger[42 + 28..42 + 34].copy_from_slice(&vm_mac(9).0);
    let unknown = Verdict::Drop(DropReason::DhcpUnknown);
    assert_eq!(node.receive(id(HOST), &stranger).0, unknown);
    let unicast = udp((GATEWAY_MAC, GATEWAY, 67), (vm_mac(1), [10, 0, 0, 3], 68), &message());
    assert_eq!(node.receive(id(HOST), &unicast).0, Verdict::Forward(id(VIF1)));
    assert_eq!(node.learner.asked().count(), 0);
}

#[test]
fn what_comes_by_the_trunk_is_another_node_s() {
    for dhcp in [Dhcp::Node, Dhcp::Host] {
        let mut node = node(dhcp);
        let mut hear = |frame: &[u8]| node.receive(id(TRUNK), &tag(frame, 100)).0;
        assert_eq!(hear(&asks_all()), Verdict::Drop(DropReason::DhcpElsewhere));
        let server = MacAddr([2, 0, 0, 0, 7, 7]);
        let answer = answers_all((server, [10, 0, 0, 5]));
        assert_eq!(hear(&answer), Verdict::Drop(DropReason::DhcpServer));
    }
}

#[test]
fn a_vm_is_no_server() {
    let mut node = node(Dhcp::Node);
    let answer = answers_all((vm_mac(2), [10, 0, 0, 4]));
    let refused = Verdict::Drop(DropReason::DhcpServer);
    assert_eq!(node.receive(id(VIF2), &answer).0, refused);
    // Nor does it ask in another's name, or in fragments.
    let unknown = Verdict::Drop(DropReason::DhcpUnknown);
    assert_eq!(node.receive(id(VIF2), &asks_all()).0, unknown);
    let mut piece = asks_all();
    piece[20] |= 0x20;
    let malformed = Verdict::Drop(DropReason::DhcpMalformed);
    assert_eq!(node.receive(id(VIF1), &piece).0, malformed);
    assert_eq!(node.learner.asked().count(), 0);
}

#[test]
fn where_somebody_else_serves_all_is_bridged() {
    let mut node = node(Dhcp::Bridged);
    let flood = Verdict::Flood(SegmentId::new(1).unwrap());
    assert_eq!(node.receive(id(VIF1), &asks_all()).0, flood);
    assert_eq!(node.receive(id(TRUNK), &tag(&asks_all(), 100)).0, flood);
    let answer = answers_all((vm_mac(2), [10, 0, 0, 4]));
    // The host is no client.
    let guests = Verdict::FloodGuests(SegmentId::new(1).unwrap());
    assert_eq!(node.receive(id(VIF2), &answer).0, guests);
}
