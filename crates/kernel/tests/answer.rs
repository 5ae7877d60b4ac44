//! While no daemon runs the programs answer for gateways and floating addresses, and for nothing
//! else.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use common::worker::Worker;
use common::{Namespace, Node, enter_netns, far, index, near, port, punt_link, run, veth};
use kernel::{Hook, KernelDrop, Owned, PortEntry, PortKind, SegmentEntry, XdpMode};

const PORT: u16 = 1;
/// Of `common::port`.
const MAC: &str = "02:00:00:00:00:01";

/// A node with one port, and who is behind it.
struct Bed {
    node: Node,
    other: Namespace,
}

impl Bed {
    fn new(name: &str, hook: Hook, address: &str, entry: PortEntry) -> Self {
        enter_netns();
        punt_link();
        let mut node = Node::start(name);
        let other = Namespace::new("other");
        let (ifindex, _) = veth("port", "peer");
        other.take("peer", address);
        if hook == Hook::Xdp {
            other.run("ethtool -K eth0 tx off txvlan off");
        }
        let kernel = node.kernel();
        let gateway = Some([10, 0, 0, 1]);
        kernel.set_segment(1, &SegmentEntry { zone: 1, gateway, ..Default::default() }).unwrap();
        kernel.set_owned(([91, 208, 23, 11], 32), Owned::Float).unwrap();
        kernel.set_owned(([91, 207, 15, 105], 32), Owned::Snat).unwrap();
        kernel.set_port(&PortEntry { ifindex, ..entry }).unwrap();
        kernel.attach(PORT, "port", hook, XdpMode::Auto).unwrap();
        kernel.attach_punt(near(), far()).unwrap();
        Self { node, other }
    }

    /// Who answers for an address, by the neighbour's own stack.
    fn who_has(&self, address: &str) -> String {
        let ping = format!("ip netns exec {} ping -n -c 1 -W 1 {address}", self.other.0);
        common::try_run(&ping);
        self.other.run(&format!("ip neighbour show {address}"))
    }

    fn counted(&mut self) -> (u64, u64, u64) {
        let counters = self.node.kernel().counters(PORT).unwrap();
        assert_eq!(counters.punted, counters.answered + counters.dropped(KernelDrop::NoDaemon));
        (counters.answered, counters.tx_packets, counters.dropped(KernelDrop::NoDaemon))
    }
}

fn a_vm_asks(name: &str, hook: Hook, peer: bool) {
    let entry = PortEntry { segment: 1, peer, ..port(PORT, 0, PortKind::Vif) };
    let mut bed = Bed::new(name, hook, "10.0.0.3/24", entry);
    let said = bed.who_has("10.0.0.1");
    assert!(said.contains(&format!("lladdr {MAC}")), "{said}");
    let (answered, sent, dropped) = bed.counted();
    // The ping itself wants a decision.
    assert!(answered >= 1 && sent == answered && dropped >= 1, "{answered} {sent} {dropped}");
    let said = bed.who_has("10.0.0.4");
    assert!(!said.contains("lladdr"), "{said}");
    assert_eq!(bed.counted().0, answered);

    // A worker that is there answers itself, or does not.
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let worker = Worker::start(bed.node.kernel(), 0, index("punt1"), false, move |_| {
        count.fetch_add(1, Relaxed);
        false
    });
    bed.other.run("ip neighbour flush dev eth0");
    let said = bed.who_has("10.0.0.1");
    assert!(!said.contains("lladdr"), "{said}");
    assert!(asked.load(Relaxed) >= 1);
    worker.stop();
}

#[test]
fn a_vm_is_told_the_gateway_by_tc() {
    a_vm_asks("asktc", Hook::Tc, false);
}

#[test]
fn a_vm_is_told_the_gateway_straight_into_its_namespace() {
    a_vm_asks("askpeer", Hook::Tc, true);
}

#[test]
fn a_vm_is_told_the_gateway_behind_xdp() {
    a_vm_asks("askxdp", Hook::Xdp, false);
}

fn a_router_asks(name: &str, hook: Hook) {
    let entry = PortEntry { sockets: 256, queues: 1, ..port(PORT, 0, PortKind::Public) };
    let mut bed = Bed::new(name, hook, "91.207.15.1/24", entry);
    bed.other.run("ip route add 91.208.23.0/24 dev eth0");
    let said = bed.who_has("91.208.23.11");
    assert!(said.contains(&format!("lladdr {MAC}")), "{said}");
    let answered = bed.node.kernel().counters(PORT).unwrap().answered;
    assert!(answered >= 1);
    // A floating address that is somebody else's, and the host's own, which its stack answers for.
    for address in ["91.208.23.12", "91.207.15.105"] {
        let said = bed.who_has(address);
        assert!(!said.contains("lladdr"), "{said}");
    }
    let link = run("ip -o link show dev port");
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    run("ip address add 91.207.15.105/24 dev port");
    bed.other.run("ip neighbour flush dev eth0");
    let said = bed.who_has("91.207.15.105");
    assert!(said.contains(mac), "{said}");
    assert_eq!(bed.node.kernel().counters(PORT).unwrap().answered, answered);
}

#[test]
fn a_router_is_told_a_floating_address_by_tc() {
    a_router_asks("routertc", Hook::Tc);
}

#[test]
fn a_router_is_told_a_floating_address_behind_xdp() {
    a_router_asks("routerxdp", Hook::Xdp);
}
