//! A public NIC over a real veth pair: the host goes on as before, what is ours goes up, and is
//! dropped while nobody listens.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use conntrack::{FlowKey, NewLine, Rewrite, Table};

use common::wire::{DOT1Q, arp, icmp, send, tag, tcp, udp, untag, until};
use common::worker::Worker;
use common::{Namespace, Node, enter_netns, far, index, near, port, punt_link, run, veth};
use kernel::KernelDrop::NoDaemon;
use kernel::{Hook, How, Owned, PortCounters, PortEntry, PortKind, Settings, XdpMode};

const NIC: u16 = 3;
const SLOT: u32 = 256;

const ROUTER: [u8; 4] = [91, 207, 15, 1];
/// The host's own address, with which connections of VMs leave as well.
const SNAT: [u8; 4] = [91, 207, 15, 105];
const FLOAT: [u8; 4] = [91, 208, 23, 11];

/// A node whose public NIC leads to a router.
struct Bed {
    node: Node,
    router: Namespace,
    far: u32,
    how: How,
}

impl Bed {
    fn new(name: &str, hook: Hook, mode: XdpMode, tcx: bool) -> Self {
        enter_netns();
        let (_, far_index) = punt_link();
        let mut node = Node::with(
            name,
            Settings { lines: 64, hash_key: 1, tcx, replays: true, continues: None },
        );
        let router = Namespace::new("router");
        let (ifindex, _) = veth("public", "peer");
        router.take("peer", "91.207.15.1/24");
        // The host takes frames for its own MAC alone.
        run("ip link set public address 02:00:00:00:00:01");
        run("ip address add 91.207.15.105/24 dev public");
        if hook == Hook::Xdp {
            router.run("ethtool -K eth0 tx off txvlan off tx-vlan-stag-hw-insert off");
        }
        let entry = PortEntry { sockets: SLOT, queues: 1, ..port(NIC, ifindex, PortKind::Public) };
        let kernel = node.kernel();
        kernel.set_port(&entry).unwrap();
        kernel.set_owned((SNAT, 32), Owned::Snat).unwrap();
        kernel.set_owned((FLOAT, 32), Owned::Float).unwrap();
        let how = kernel.attach(NIC, "public", hook, mode).unwrap().how;
        kernel.attach_punt(near(), far()).unwrap();
        Self { node, router, far: far_index, how }
    }

    /// Collects what comes up.
    fn listen(&mut self) -> (Worker, Arc<Mutex<Vec<Vec<u8>>>>) {
        let (kernel, how) = (self.node.kernel.as_mut().unwrap(), self.how);
        let (slot, ifindex) = if how.is_xdp() { (SLOT, index("public")) } else { (0, self.far) };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let frames = Arc::clone(&seen);
        let generic = how == How::XdpGeneric;
        let worker = Worker::start(kernel, slot, ifindex, generic, move |frame| {
            if !how.is_xdp() {
                assert_eq!(untag(frame), Some(NIC));
            }
            frames.lock().unwrap().push(std::mem::take(frame));
            false
        });
        (worker, seen)
    }

    /// Opens a connection whose answers come back to the SNAT address.
    fn connect(&mut self, answers: FlowKey) {
        let kernel = self.node.kernel();
        let table = Table::new(kernel.lines(), kernel.header().hash_key());
        let line = |key| NewLine { key, rewrite: Rewrite::default() };
        table.install(&line(answers.reversed(9, 1)), &line(answers), 1, 60).unwrap();
    }

    /// Frames from the router's NIC.
    fn send(&self, frames: &[Vec<u8>]) {
        let frames = frames.to_vec();
        let sending = self.router.enter(move || {
            let out = index("eth0");
            frames.iter().for_each(|frame| send(out, frame));
        });
        sending.join().unwrap();
    }

    fn counted(&mut self) -> PortCounters {
        let counters = self.node.kernel().counters(NIC).unwrap();
        self.node.kernel().counters_clear(NIC).unwrap();
        counters
    }

    /// TCP and ping between host and router, begun by either.
    fn the_host_talks(&self) {
        let (listener, port) = listening();
        let theirs = self.router.enter(move || talk(connect_to(SNAT, port)));
        talk(listener.accept().unwrap().0);
        theirs.join().unwrap();
        let (asked, ask) = std::sync::mpsc::channel();
        let theirs = self.router.enter(move || {
            let (listener, port) = listening();
            asked.send(port).unwrap();
            talk(listener.accept().unwrap().0);
        });
        talk(connect_to(ROUTER, ask.recv().unwrap()));
        theirs.join().unwrap();
        let pinged = run("ping -n -c 3 -i 0.01 -w 10 91.207.15.1");
        assert_eq!(common::in_a_row(&pinged, 3), 3, "{pinged}");
        let pinged = self.router.run("ping -n -c 3 -i 0.01 -w 10 91.207.15.105");
        assert_eq!(common::in_a_row(&pinged, 3), 3, "{pinged}");
    }
}

fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn connect_to(address: [u8; 4], port: u16) -> TcpStream {
    TcpStream::connect((std::net::Ipv4Addr::from(address), port)).unwrap()
}

/// Sends more than a window holds, and reads as much.
fn talk(stream: TcpStream) {
    const BYTES: usize = 1 << 20;
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || reader.read_exact(&mut vec![0; BYTES]).unwrap());
    (&stream).write_all(&vec![7; BYTES]).unwrap();
    reading.join().unwrap();
}

fn a_public_nic_is_shared(name: &str, hook: Hook, mode: XdpMode, tcx: bool, expected: How) {
    let mut bed = Bed::new(name, hook, mode, tcx);
    assert_eq!(bed.how, expected);
    bed.the_host_talks();
    let counters = bed.counted();
    assert_eq!((counters.punted, counters.drops.iter().sum::<u64>()), (0, 0));
    // Its neighbour was found by ARP, although the address is ours as well.
    assert!(run("ip neighbour show dev public").contains("91.207.15.1 lladdr"));

    let (worker, up) = bed.listen();
    let answer = tcp((ROUTER, 443), (SNAT, 20_001), 16);
    bed.connect(FlowKey::ipv4(ROUTER, SNAT, 443, 20_001, 6, NIC, 0));
    // In tc a tag is beside the frame: a priority tag is no VLAN's, and another not public.
    let (mut urgent, mut tagged) = (icmp(ROUTER, FLOAT, 8, 8), icmp(ROUTER, FLOAT, 8, 9));
    tag(&mut urgent, DOT1Q, 0xa000);
    tag(&mut tagged, DOT1Q, 7);
    bed.send(&[tagged]);
    let ours = [
        answer,
        urgent,
        arp(1, ROUTER, FLOAT),
        icmp(ROUTER, FLOAT, 8, 7),
        icmp(ROUTER, SNAT, 3, 0),
        udp((ROUTER, 53), (FLOAT, 53), b"a datagram of more than sixty bytes"),
    ];
    bed.send(&ours);
    until("all of ours come up", || up.lock().unwrap().len() == ours.len());
    assert_eq!(*up.lock().unwrap(), ours);
    assert_eq!(bed.counted().punted, ours.len() as u64);
    bed.the_host_talks();
    assert_eq!((up.lock().unwrap().len(), bed.counted().punted), (ours.len(), 0));

    // No daemon: a tenant's connection must not be reset by the host, which knows nothing of it.
    worker.stop();
    let resets = reset_count();
    bed.send(&ours);
    // The question alone is answered.
    let gone = ours.len() as u64 - 1;
    let kernel = bed.node.kernel.as_ref().unwrap();
    let counters = || kernel.counters(NIC).unwrap();
    until("all others of ours are dropped", || counters().dropped(NoDaemon) == gone);
    until("the question is answered", || counters().answered == 1);
    assert_eq!(reset_count(), resets);
    bed.counted();
    bed.the_host_talks();
    assert_eq!(bed.counted().dropped(NoDaemon), 0);
    // And one to a port that nobody uses gets its reset, as from any host.
    bed.send(&[tcp((ROUTER, 443), (SNAT, 20_002), 16)]);
    until("the host answers with a reset", || reset_count() == resets + 1);
}

/// Resets that the host sent.
fn reset_count() -> u64 {
    let said = run("nstat -asz TcpOutRsts");
    said.lines().last().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_public_nic_is_shared_by_tcx() {
    a_public_nic_is_shared("pubtcx", Hook::Tc, XdpMode::Auto, true, How::Tcx);
}

#[test]
fn a_public_nic_is_shared_by_clsact() {
    a_public_nic_is_shared("pubclsact", Hook::Tc, XdpMode::Auto, false, How::Clsact);
}

#[test]
fn a_public_nic_is_shared_by_native_xdp() {
    a_public_nic_is_shared("pubxdp", Hook::Xdp, XdpMode::Native, true, How::XdpNative);
}

#[test]
fn a_public_nic_is_shared_by_generic_xdp() {
    a_public_nic_is_shared("pubgeneric", Hook::Xdp, XdpMode::Generic, true, How::XdpGeneric);
}

#[test]
fn headers_that_lie_in_pages_are_read_in_tc() {
    let mut bed = Bed::new("pages", Hook::Tc, XdpMode::Auto, true);
    run("ip link set public mtu 9100");
    bed.router.run("ip link set eth0 mtu 9100");
    // GRO would fetch them before.
    run("ethtool -K public gro off");
    bed.connect(FlowKey::ipv4(ROUTER, SNAT, 53, 20_001, 17, NIC, 0));
    // Of a frame above a page a packet socket puts the Ethernet header alone before the pages.
    let large = |port| udp((ROUTER, 53), (SNAT, port), &[1; 8000]);
    bed.send(&[large(20_001), large(20_002)]);
    let kernel = bed.node.kernel.as_ref().unwrap();
    until("one comes up", || kernel.counters(NIC).unwrap().punted == 1);
    // The host tells the router that nobody listens.
    until("one is the host's", || kernel.counters(NIC).unwrap().passed >= 1);
}
