//! Starting over what an earlier run left, as after a SIGKILL: nothing of it is in the way, and
//! no packet is lost in between.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::thread::JoinHandle;

use common::run::frame;
use common::wire::{DOT1AD, Tcpdump, send};
use common::{
    Namespace, Node, enter_netns, far, in_a_row, index, near, port, prints, programs_on, punt_link,
    run, segment, try_run, veth,
};
use kernel::{Hook, How, Interface, PortKind, Settings, XdpMode};

const NIC: u16 = 1;
const VIF: u16 = 2;

/// A node with a NIC that the host itself uses, and a vif.
struct Bed {
    node: Node,
    wire: Namespace,
    vm: Namespace,
}

impl Bed {
    fn new(name: &str, tcx: bool) -> Self {
        enter_netns();
        punt_link();
        let (wire, vm) = (Namespace::new("wire"), Namespace::new("vm"));
        veth("nic", "peer");
        wire.take("peer", "10.9.0.2/24");
        run("ip address add 10.9.0.1/24 dev nic");
        veth("vnet1", "peer");
        vm.take("peer", "10.0.0.1/24");
        let node = Node::with(
            name,
            Settings { lines: 64, hash_key: 1, tcx, replays: true, continues: None },
        );
        Self { node, wire, vm }
    }

    /// What a daemon does at start.
    fn plug(&mut self, hook: Hook, mode: XdpMode) -> How {
        let kernel = self.node.kernel();
        kernel.set_segment(1, &segment(1, 100)).unwrap();
        kernel.set_port(&port(NIC, index("nic"), PortKind::Trunk)).unwrap();
        kernel.set_vlan(NIC, 100, 1).unwrap();
        kernel.set_port(&port(VIF, index("vnet1"), PortKind::Vif)).unwrap();
        kernel.prepare_nic(Interface::new(index("nic"), "nic"), true).unwrap();
        kernel.attach(NIC, "nic", hook, mode).unwrap();
        let how = kernel.attach(VIF, "vnet1", hook, mode).unwrap().how;
        kernel.settle(near().index, far().index).unwrap();
        kernel.attach_punt(near(), far()).unwrap();
        how
    }

    /// The host answers pings by its NIC, one every 10 ms.
    fn ping(&self, count: u32) -> JoinHandle<String> {
        let command = format!("ping -n -c {count} -i 0.01 -w 20 10.9.0.1");
        self.wire.enter(move || run(&command))
    }

    /// The VM asks the stack behind its vif, which answers if no program is in between.
    fn slip(&self, count: u32) -> JoinHandle<String> {
        run("ip address add 10.0.0.9/24 dev vnet1");
        let link = run("ip -o link show dev vnet1");
        let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
        self.vm.run(&format!("ip neighbour add 10.0.0.9 lladdr {mac} dev eth0"));
        let command = format!("ping -n -q -c {count} -i 0.01 -W 1 10.0.0.9");
        self.vm.enter(move || String::from_utf8(try_run(&command).stdout).unwrap())
    }

    /// The programs on all interfaces: one each, and behind XDP the tc one.
    fn programs(&self) -> Vec<(&'static str, u32)> {
        let on = |interface: &&str| {
            let programs = programs_on(interface);
            let pair = programs[0].0.starts_with("xdp");
            assert_eq!(programs.len(), 1 + usize::from(pair), "{interface}: {programs:?}");
            programs[0]
        };
        ["nic", "vnet1", "punt0", "punt1"].iter().map(on).collect()
    }
}

fn ten_starts(name: &str, hook: Hook, mode: XdpMode, tcx: bool, expected: How) {
    let mut bed = Bed::new(name, tcx);
    assert_eq!(bed.plug(hook, mode), expected);
    let (pinging, slipping) = (bed.ping(150), bed.slip(150));
    let mut last = bed.programs();
    for _ in 0..10 {
        bed.node.restart();
        // Until they are replaced, the old programs go on.
        assert_eq!(bed.programs(), last);
        assert_eq!(bed.plug(hook, mode), expected);
        let programs = bed.programs();
        assert!(programs.iter().zip(&last).all(|(new, old)| new.0 == old.0 && new.1 != old.1));
        last = programs;
    }
    let (pinged, slipped) = (pinging.join().unwrap(), slipping.join().unwrap());
    assert_eq!(in_a_row(&pinged, 150), 150, "{pinged}");
    assert!(slipped.contains(" 100% packet loss"), "{slipped}");
    // What is in force is the last one's, with the last one's maps.
    let tcpdump = Tcpdump::start(&bed.vm, 1, "udp");
    send(index("punt1"), &frame(&[(DOT1AD, VIF)]));
    assert_eq!(tcpdump.seen().len(), 1);
    assert_eq!(bed.node.kernel().counters(VIF).unwrap().tx_packets, 1);
}

#[test]
fn ten_starts_lose_nothing_by_tcx() {
    ten_starts("tentcx", Hook::Tc, XdpMode::Auto, true, How::Tcx);
}

#[test]
fn ten_starts_lose_nothing_by_clsact() {
    ten_starts("tenclsact", Hook::Tc, XdpMode::Auto, false, How::Clsact);
}

#[test]
fn ten_starts_lose_nothing_by_native_xdp() {
    ten_starts("tenxdp", Hook::Xdp, XdpMode::Auto, true, How::XdpNative);
}

#[test]
fn ten_starts_lose_nothing_by_generic_xdp() {
    ten_starts("tengeneric", Hook::Xdp, XdpMode::Generic, true, How::XdpGeneric);
}

#[test]
fn a_hook_changes_while_the_host_is_pinged() {
    let mut bed = Bed::new("change", true);
    bed.plug(Hook::Tc, XdpMode::Auto);
    let pinging = bed.ping(150);
    let mut seen = Vec::new();
    for (hook, mode) in [
        (Hook::Xdp, XdpMode::Generic),
        (Hook::Tc, XdpMode::Auto),
        (Hook::Xdp, XdpMode::Native),
        (Hook::Xdp, XdpMode::Generic),
        (Hook::Auto, XdpMode::Auto),
    ] {
        let attached = bed.node.kernel().attach(NIC, "nic", hook, mode).unwrap();
        seen.push((attached.how, bed.programs()[0].0));
        let why = if hook == Hook::Auto { "veth: GSO packets stay whole" } else { "asked for" };
        assert_eq!(attached.why, why);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let expected = [
        (How::XdpGeneric, "xdp"),
        (How::Tcx, "tcx"),
        (How::XdpNative, "xdp"),
        (How::XdpGeneric, "xdp"),
        (How::Tcx, "tcx"),
    ];
    assert_eq!(seen, expected);
    let pinged = pinging.join().unwrap();
    println!("{pinged}");
    assert_eq!(in_a_row(&pinged, 150), 150, "{pinged}");
}

#[test]
fn a_later_run_may_use_clsact_where_an_earlier_one_used_tcx() {
    let mut bed = Bed::new("both", true);
    assert_eq!(bed.plug(Hook::Tc, XdpMode::Auto), How::Tcx);
    for (tcx, expected) in [(false, How::Clsact), (true, How::Tcx)] {
        bed.node.settings.tcx = tcx;
        bed.node.restart();
        assert_eq!(bed.plug(Hook::Tc, XdpMode::Auto), expected);
        assert!(bed.programs().iter().any(|(hook, _)| *hook == "tcx") == tcx);
        assert_eq!(prints("tc qdisc show dev nic", "clsact"), !tcx);
    }
}

#[test]
fn what_a_later_run_does_not_use_is_taken_off_with_the_punt_link() {
    for tcx in [true, false] {
        let mut bed = Bed::new("unused", tcx);
        bed.plug(Hook::Tc, XdpMode::Auto);
        assert!(prints("ip -d link show dev nic", "PROMISC"));
        bed.node.restart();
        let kernel = bed.node.kernel();
        kernel.set_port(&port(VIF, index("vnet1"), PortKind::Vif)).unwrap();
        kernel.attach(VIF, "vnet1", Hook::Tc, XdpMode::Auto).unwrap();
        assert_eq!(programs_on("nic").len(), 1);
        kernel.settle(near().index, far().index).unwrap();
        kernel.attach_punt(near(), far()).unwrap();
        assert_eq!(programs_on("nic"), []);
        assert!(!prints("ip -d link show dev nic", "PROMISC"));
        assert_eq!(programs_on("vnet1").len(), 1);
    }
}

#[test]
fn an_interface_that_went_and_came_again_is_attached_anew() {
    for (hook, mode) in [(Hook::Tc, XdpMode::Auto), (Hook::Xdp, XdpMode::Auto)] {
        let mut bed = Bed::new("again", true);
        bed.plug(hook, mode);
        let old = index("vnet1");
        run("ip link del vnet1");
        // The very index may come back, with another interface behind it.
        run(&format!("ip link add vnet1 index {old} type veth peer name peer"));
        run("ip link set vnet1 up");
        run("ip link set peer up");
        assert_eq!(programs_on("vnet1"), []);
        bed.node.restart();
        bed.plug(hook, mode);
        assert_eq!(programs_on("vnet1").len(), if hook == Hook::Xdp { 2 } else { 1 });
        run("ip link del vnet1");
        bed.node.kernel().detach(old).unwrap();
        bed.node.kernel().clear_port(VIF).unwrap();
    }
}
