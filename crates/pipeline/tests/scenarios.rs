//! The seed's bridged scenarios on two nodes in memory. A failure leaves a pcap.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use conntrack::Mark;
use pipeline::Verdict;
use testkit::{Sent, World, arp_reply, arp_request, echo, ipv6_multicast, tag, tcp, udp, vm_mac};
use wire::MacAddr;

const VM1: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]), [10, 0, 0, 3]);
const VM2: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 2]), [10, 0, 0, 4]);
const VM5: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 5]), [10, 0, 0, 7]);
const VM6: (MacAddr, [u8; 4]) = (MacAddr([0xfa, 0x16, 0x3e, 0, 0, 6]), [10, 1, 0, 4]);

fn vlan_of(frame: &[u8]) -> Option<u16> {
    wire::vlan::outer(frame).map(|(_, tci)| tci & wire::vlan::VID_MASK)
}

#[test]
fn scenario_3_same_tenant_same_node() {
    let mut world = World::seed("scenario_3");
    let question = arp_request(VM1, VM2.1);
    // All of the tenant's VMs hear the question, on both nodes, and the one who asks does not.
    assert_eq!(world.reach(1, &question), [2, 4, 5]);
    assert_eq!(world.reach(2, &arp_reply(VM2, VM1)), [1]);
    let ping = echo(VM1, VM2, true, 7);
    assert_eq!(world.send(1, &ping), [Sent { vm: 2, frame: ping }]);
    let pong = echo(VM2, VM1, false, 7);
    assert_eq!(world.send(2, &pong), [Sent { vm: 1, frame: pong }]);
    assert_eq!(world.wire.len(), 1, "only the question crossed the trunk");
}

#[test]
fn scenario_4_same_tenant_other_node() {
    let mut world = World::seed("scenario_4");
    assert_eq!(world.reach(1, &arp_request(VM1, VM5.1)), [2, 4, 5]);
    // The left node has learned nothing of VM 5 yet, the right one knows VM 1 from the question.
    assert_eq!(world.reach(5, &arp_reply(VM5, VM1)), [1]);
    for sequence in 0..3 {
        let ping = echo(VM1, VM5, true, 9);
        assert_eq!(world.send(1, &ping), [Sent { vm: 5, frame: ping }], "ping {sequence}");
        let pong = echo(VM5, VM1, false, 9);
        assert_eq!(world.send(5, &pong), [Sent { vm: 1, frame: pong }], "pong {sequence}");
    }
    assert_eq!(world.wire.len(), 8);
    assert!(world.wire.iter().all(|frame| vlan_of(frame) == Some(100)));
}

#[test]
fn flat_all_six_vms_share_one_untagged_segment() {
    let mut world = World::flat("flat");
    let address = |vm: u8| (vm_mac(vm), [10, 0, 0, vm]);
    let others = |from: u8| (1..=6).filter(move |vm| *vm != from);
    for from in 1..=6 {
        let question = arp_request(address(from), [10, 0, 0, 99]);
        assert_eq!(world.reach(from, &question), others(from).collect::<Vec<u8>>());
    }
    for from in 1..=6 {
        for to in others(from) {
            assert_eq!(world.reach(from, &echo(address(from), address(to), true, 1)), [to]);
        }
    }
    assert!(world.wire.iter().all(|frame| vlan_of(frame).is_none()));
}

#[test]
fn nothing_of_one_tenant_reaches_the_other() {
    let mut world = World::seed("isolation");
    let unknown = MacAddr([2, 0, 0, 0, 0, 0x99]);
    for frame in [
        arp_request(VM6, VM1.1),
        ipv6_multicast(VM6.0),
        echo(VM6, (VM1.0, VM1.1), true, 1),
        udp((VM6.0, VM6.1, 1), (unknown, [10, 0, 0, 9], 2), b"who is there"),
    ] {
        let reached = world.reach(6, &frame);
        assert!(reached.iter().all(|vm| *vm == 3), "{reached:?}");
    }
    // A guest cannot tag its way into the other tenant's VLAN, once or twice.
    let hop = tag(&echo(VM6, VM1, true, 1), 100);
    assert_eq!(world.reach(6, &hop), []);
    assert_eq!(world.reach(6, &tag(&hop, 102)), []);
}

#[test]
fn what_is_not_ip_is_bridged_and_cached() {
    let mut world = World::seed("other");
    let lldp_like = testkit::ethernet(VM1.0, VM2.0, 0x88b5, &[1; 46]);
    let v6 = testkit::ethernet(VM1.0, VM2.0, 0x86dd, &{
        let mut packet = [0u8; 40];
        packet[0] = 0x60;
        packet
    });
    for frame in [lldp_like, v6] {
        for _ in 0..2 {
            assert_eq!(world.send(1, &frame), [Sent { vm: 2, frame: frame.clone() }]);
        }
    }
}

#[test]
fn a_closed_connection_may_be_opened_again_with_the_same_ports() {
    let mut world = World::seed("reopen");
    let (client, server) = ((VM1.0, VM1.1, 40000), (VM2.0, VM2.1, 22));
    for flags in [2, 16, 17, 4, 2, 16] {
        assert_eq!(world.reach(1, &tcp(client, server, flags, b"")), [2], "flags {flags}");
        assert_eq!(world.reach(2, &tcp(server, client, flags | 16, b"")), [1], "flags {flags}");
    }
}

#[test]
fn a_vm_that_moves_takes_its_frames_with_it() {
    let mut world = World::seed("move");
    let stray = (MacAddr([2, 0, 0, 0, 0, 0x77]), [10, 0, 0, 77]);
    // First it speaks from behind VM 2's port, then from the right node.
    world.reach(2, &arp_request(stray, VM1.1));
    assert_eq!(world.reach(1, &echo(VM1, stray, true, 3)), [2]);
    world.reach(4, &arp_request(stray, VM1.1));
    // The control thread revokes the lines that lead to a station that has moved.
    let moved = stray.0.0;
    world.left.flows.revoke(|flow| match flow.destination_mac() == moved {
        true => Mark::ForgetPath,
        false => Mark::Keep,
    });
    assert_eq!(world.reach(1, &echo(VM1, stray, true, 3)), [4]);
}

#[test]
fn a_packet_larger_than_its_way_out_is_dropped_and_counted() {
    let mut world = World::seed("too_big");
    let large = udp((VM1.0, VM1.1, 1), (VM2.0, VM2.1, 2), &[0; 1473]);
    assert_eq!(world.reach(1, &large), []);
    let port = world.left.counters.port(tables::PortId::new(11).unwrap());
    let reason = pipeline::DropReason::TooBig as usize;
    assert_eq!(port.dropped[reason].load(core::sync::atomic::Ordering::Relaxed), 1);
    let fits = udp((VM1.0, VM1.1, 1), (VM2.0, VM2.1, 2), &[0; 1472]);
    assert_eq!(world.reach(1, &fits), [2]);
}

#[test]
fn a_priority_tag_is_no_vlan() {
    let mut world = World::seed("priority");
    let ping = echo(VM1, VM2, true, 7);
    assert_eq!(world.send(1, &tag(&ping, 0xe000)), [Sent { vm: 2, frame: ping }]);
}

#[test]
fn a_tag_nobody_owns_is_the_hosts() {
    let mut world = World::seed("host");
    let trunk = tables::PortId::new(1).unwrap();
    let foreign = tag(&echo(VM1, VM2, true, 7), 200);
    assert_eq!(world.left.receive(trunk, &foreign).0, Verdict::Host);
}
