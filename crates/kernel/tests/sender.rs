//! Frames of the control thread's own, out of ports over real veth pairs.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::io::ErrorKind;

use common::run::frame;
use common::wire::{DOT1Q, Tcpdump, arp, tag, until};
use common::{Namespace, Node, enter_netns, far, index, near, port, punt_link, run, veth};
use kernel::KernelDrop::NoPort;
use kernel::{Hook, PortEntry, PortKind, PuntSender, XdpMode};

const TRUNK: u16 = 3;
const VIF: u16 = 4094;

/// A node with a trunk and a vif, and who is at their other ends.
fn bed(name: &str, hook: Hook) -> (Node, Namespace, Namespace) {
    enter_netns();
    punt_link();
    let mut node = Node::start(name);
    let (wire, vm) = (Namespace::new("wire"), Namespace::new("vm"));
    let kernel = node.kernel();
    let ends = [
        (TRUNK, PortKind::Trunk, "trunk", &wire, "10.9.0.2/24"),
        (VIF, PortKind::Vif, "vnet1", &vm, "10.0.0.2/24"),
    ];
    for (number, kind, name, end, address) in ends {
        let (ifindex, _) = veth(name, "peer");
        end.take("peer", address);
        let peer = kind == PortKind::Vif;
        kernel.set_port(&PortEntry { peer, ..port(number, ifindex, kind) }).unwrap();
        kernel.attach(number, name, hook, XdpMode::Auto).unwrap();
    }
    kernel.attach_punt(near(), far()).unwrap();
    (node, wire, vm)
}

fn frames_leave_by_their_port(name: &str, hook: Hook) {
    let (mut node, wire, vm) = bed(name, hook);
    let sender = PuntSender::open(index("punt1")).unwrap();
    let request = arp(1, [10, 0, 0, 1], [10, 0, 0, 2]);
    let (at_wire, at_vm) =
        (Tcpdump::start(&wire, 2, "arp or vlan"), Tcpdump::start(&vm, 1, "arp or vlan"));
    let mut tagged = request.clone();
    tag(&mut tagged, DOT1Q, 0xa064);
    sender.send(TRUNK, &tagged).unwrap();
    sender.send(TRUNK, &request).unwrap();
    sender.send(VIF, &request).unwrap();
    let (at_wire, at_vm) = (at_wire.seen(), at_vm.seen());
    let asks = "Request who-has 10.0.0.2 tell 10.0.0.1";
    assert!(at_wire.len() == 2 && at_wire.iter().all(|line| line.contains(asks)), "{at_wire:?}");
    assert!(at_wire[0].contains("vlan 100, p 5"), "{at_wire:?}");
    assert!(!at_wire[1].contains("vlan"), "{at_wire:?}");
    assert!(at_vm.len() == 1 && at_vm[0].contains(asks), "{at_vm:?}");
    assert!(!at_vm[0].contains("vlan"), "{at_vm:?}");
    let sent = |node: &mut Node, number| node.kernel().counters(number).unwrap().tx_packets;
    assert_eq!((sent(&mut node, TRUNK), sent(&mut node, VIF)), (2, 1));
}

#[test]
fn frames_leave_by_their_port_with_tc_on_it() {
    frames_leave_by_their_port("sendtc", Hook::Tc);
}

#[test]
fn frames_leave_by_their_port_with_xdp_on_it() {
    frames_leave_by_their_port("sendxdp", Hook::Xdp);
}

#[test]
fn what_cannot_be_sent_says_so_and_what_has_no_port_is_counted() {
    let (node, _wire, _vm) = bed("sendnot", Hook::Tc);
    let sender = PuntSender::open(index("punt1")).unwrap();
    for number in [0, 4095, 4096, TRUNK | 0x2000] {
        let refused = sender.send(number, &frame(&[])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{number}");
    }
    assert_eq!(sender.send(TRUNK, &[0; 13]).unwrap_err().kind(), ErrorKind::InvalidInput);
    let too_large = sender.send(TRUNK, &[2; 4000]).unwrap_err();
    assert_eq!(too_large.raw_os_error(), Some(libc::EMSGSIZE));
    let kernel = node.kernel.as_ref().unwrap();
    sender.send(77, &frame(&[])).unwrap();
    until("it is counted", || kernel.counters(0).unwrap().dropped(NoPort) == 1);
    // Sending alone: what the punt link carries does not pile up in the socket.
    let sockets = run("cat /proc/thread-self/net/packet");
    let ours = sockets.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!((ours[3], ours[4]), ("0000", &*index("punt1").to_string()), "{sockets}");
    run("ip link set punt1 down");
    assert_eq!(sender.send(TRUNK, &frame(&[])).unwrap_err().kind(), ErrorKind::NetworkDown);
    run("ip link del punt0");
    assert_eq!(sender.send(TRUNK, &frame(&[])).unwrap_err().raw_os_error(), Some(libc::ENXIO));
    assert!(PuntSender::open(4000).is_err());
}
