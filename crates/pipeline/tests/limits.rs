//! What one VM takes of what all share, and what is left for the others.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::Arc;

use pipeline::{DropReason, Verdict};
use tables::{GATEWAY_MAC, Limits, PortId, SegmentId};
use testkit::{Node, NodePlan, arp_request, ethernet, udp, vm_mac};
use wire::MacAddr;

const SHARED: [u8; 4] = [91, 207, 15, 105];
const ONE: [u8; 4] = [8, 8, 8, 8];
const OTHER: [u8; 4] = [8, 8, 4, 4];

/// Two VMs of one network that leave by the shared address, which has so many ports.
fn node(ports: u16) -> Node {
    let mut node = Node::new(&NodePlan {
        segments: vec![(1, Some(100))],
        vifs: vec![(1, 1), (2, 1)],
        known: true,
        number: 1,
        gateways: vec![(1, [10, 0, 0, 254], false)],
        public: Some(SHARED),
        addresses: vec![(1, [10, 0, 0, 1]), (2, [10, 0, 0, 2])],
        floats: Vec::new(),
    });
    let mut nat = tables::Nat::clone(&node.tables.nat);
    nat.ports = 30_000..=29_999 + ports;
    node.tables.nat = Arc::new(nat);
    node
}

fn vif(vm: u8) -> PortId {
    PortId::new(10 + u16::from(vm)).unwrap()
}

/// A VM asks port 53 of a server from a port of its own.
fn ask(node: &mut Node, vm: u8, to: [u8; 4], sport: u16) -> Verdict {
    let from = (vm_mac(vm), [10, 0, 0, vm], sport);
    node.receive(vif(vm), &udp(from, (GATEWAY_MAC, to, 53), b"?")).0
}

/// How many of a thousand questions a VM gets through, and why not the next.
fn opened(node: &mut Node, vm: u8, to: [u8; 4]) -> (usize, Option<Verdict>) {
    let verdicts: Vec<Verdict> = (1..=1000).map(|sport| ask(node, vm, to, sport)).collect();
    let forwarded = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Forward(_)));
    let refused = verdicts.iter().find(|verdict| !matches!(verdict, Verdict::Forward(_)));
    (forwarded.count(), refused.copied())
}

#[test]
fn a_vm_has_its_share_of_the_shared_addresss_ports_to_each_endpoint_and_others_have_theirs() {
    let mut node = node(200);
    for vm in 1..=2 {
        node.limit(vm, Limits { shared: 50, ..Limits::default() });
    }
    let refused = Some(Verdict::Drop(DropReason::SnatQuota));
    assert_eq!(opened(&mut node, 1, ONE), (50, refused));
    assert_eq!(opened(&mut node, 1, OTHER), (50, refused), "the same ports lead elsewhere too");
    assert_eq!(opened(&mut node, 2, ONE), (50, refused));
    assert!(matches!(ask(&mut node, 1, ONE, 7), Verdict::Forward(_)), "what is open goes on");
}

#[test]
fn without_that_limit_one_vm_has_every_port_that_is_found() {
    let mut node = node(200);
    let (count, refused) = opened(&mut node, 1, ONE);
    assert!(count > 190, "{count}");
    assert_eq!(refused, Some(Verdict::Drop(DropReason::NoPorts)));
}

#[test]
fn a_vm_floods_a_seconds_worth_at_once_and_what_has_one_receiver_goes_on() {
    let mut node = node(200);
    // A hundred a second.
    node.limit(1, Limits { flood_cost: 10_000, ..Limits::default() });
    let to = |mac| udp((vm_mac(1), [10, 0, 0, 1], 7), (mac, [10, 0, 0, 2], 9), b"?");
    let is_flooded =
        |verdict: &Verdict| matches!(verdict, Verdict::Flood(_) | Verdict::FloodGuests(_));
    let flooded = |node: &mut Node, vm: u8, frame: &[u8]| {
        (0..300).filter(|_| is_flooded(&node.receive(vif(vm), frame).0)).count()
    };
    let unknown = to(MacAddr([2, 9, 9, 9, 9, 9]));
    let asks = arp_request((vm_mac(1), [10, 0, 0, 1]), [10, 0, 0, 99]);
    assert_eq!(flooded(&mut node, 1, &unknown), 101);
    assert_eq!(node.receive(vif(1), &asks).0, Verdict::Drop(DropReason::FloodRate));
    assert!(matches!(node.receive(vif(1), &to(vm_mac(2))).0, Verdict::Forward(_)));
    let others = arp_request((vm_mac(2), [10, 0, 0, 2]), [10, 0, 0, 99]);
    assert_eq!(flooded(&mut node, 2, &others), 300, "another VM has its own limit");
    node.now += 1;
    assert_eq!(flooded(&mut node, 1, &asks), 100);
}

#[test]
fn each_vif_has_its_own_limit_of_connections() {
    let mut node = node(200);
    node.limit(1, Limits { connections: 3, ..Limits::default() });
    node.limit(2, Limits { connections: 5, ..Limits::default() });
    let refused = Some(Verdict::Drop(DropReason::Quota));
    assert_eq!(opened(&mut node, 1, ONE), (3, refused));
    assert_eq!(opened(&mut node, 2, ONE), (5, refused));
}

#[test]
fn behind_a_wall_nothing_is_learned_but_the_vms_own_address_and_without_one_everything() {
    let segment = SegmentId::new(1).unwrap();
    let learned = |node: &mut Node| {
        for last in 0..50 {
            let from = MacAddr([2, 9, 9, 9, 9, last]);
            node.receive(vif(1), &ethernet(from, MacAddr::BROADCAST, 0x88b5, &[0; 46]));
        }
        let told = |last| node.tables.fdb.find(segment, MacAddr([2, 9, 9, 9, 9, last]));
        (0..50).filter(|last| told(*last).is_some()).count()
    };
    let mut open = node(200);
    assert_eq!(learned(&mut open), 50);
    let mut walled = node(200);
    walled.identify(1, &[(None, "10.0.0.1/32".parse().unwrap())]);
    assert_eq!(learned(&mut walled), 0);
}
