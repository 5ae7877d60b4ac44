//! Programs that are not ours, and taking away what is.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::os::fd::AsFd as _;
use std::path::Path;

use common::{
    Namespace, Node, enter_netns, far, index, near, port, prints, programs_on, punt_link, run,
    try_run, veth,
};
use kernel::{
    Changes, Error, Hook, Interface, Kernel, PortKind, Program, Settings, XdpMode, detach_all,
};
use libbpf_rs::{TC_INGRESS, TcHookBuilder, Xdp, XdpFlags};

const NIC: u16 = 1;

fn nic() -> Interface<'static> {
    Interface::new(index("nic"), "nic")
}

/// A node, and a NIC with nothing on it.
fn node(name: &str, tcx: bool) -> Node {
    enter_netns();
    punt_link();
    veth("nic", "peer");
    let mut node =
        Node::with(name, Settings { lines: 64, hash_key: 1, tcx, replays: true, continues: None });
    node.kernel().set_port(&port(NIC, index("nic"), PortKind::Trunk)).unwrap();
    node
}

fn attach(node: &mut Node, hook: Hook) -> Result<kernel::Attached, Error> {
    node.kernel().attach(NIC, "nic", hook, XdpMode::Auto)
}

#[test]
fn a_foreign_xdp_program_is_named_and_left_alone() {
    let mut ours = node("foreignxdp", true);
    // Once by a link of another node, once by netlink as `ip link set xdp` does.
    let mut theirs = Node::start("theirs-xdp");
    theirs.kernel().set_port(&port(NIC, index("nic"), PortKind::Trunk)).unwrap();
    theirs.kernel().attach(NIC, "nic", Hook::Xdp, XdpMode::Native).unwrap();
    let before = programs_on("nic");
    let said = attach(&mut ours, Hook::Xdp).unwrap_err().to_string();
    let id = before[0].1;
    assert!(
        said.starts_with(&format!(
            "nic: XDP program forward_xdp (id {id}) is attached and is not ours; look: \
             ip -d link show dev nic; remove: bpftool link detach id "
        )),
        "{said}"
    );
    assert_eq!(programs_on("nic"), before);
    theirs.kernel().detach(index("nic")).unwrap();

    let program = theirs.kernel().program(Program::Punt).try_clone_to_owned().unwrap();
    let xdp = Xdp::new(program.as_fd());
    xdp.attach(index("nic") as i32, XdpFlags::DRV_MODE).unwrap();
    let before = programs_on("nic");
    let said = attach(&mut ours, Hook::Xdp).unwrap_err().to_string();
    assert!(said.contains("XDP program punt (id "), "{said}");
    assert!(said.ends_with("remove: ip link set dev nic xdp off"), "{said}");
    assert_eq!(programs_on("nic"), before);
    // The command does what it is said to do.
    run("ip link set dev nic xdp off");
    attach(&mut ours, Hook::Xdp).unwrap();
}

#[test]
fn a_foreign_tc_program_is_named_and_left_alone() {
    for tcx in [true, false] {
        let mut ours = node("foreigntc", tcx);
        let mut theirs = Node::start("theirs-tc");
        theirs.kernel().set_port(&port(NIC, index("nic"), PortKind::Trunk)).unwrap();
        theirs.kernel().attach(NIC, "nic", Hook::Tc, XdpMode::Auto).unwrap();
        let before = programs_on("nic");
        let said = attach(&mut ours, Hook::Tc).unwrap_err().to_string();
        let id = before[0].1;
        let expected = format!("nic: tc (tcx) program forward_tc (id {id}) is attached");
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(programs_on("nic"), before);
        let (_, remove) = said.split_once("remove: ").unwrap();
        run(remove);
        assert_eq!(programs_on("nic"), []);

        let program = theirs.kernel().program(Program::Deliver).try_clone_to_owned().unwrap();
        let hook = |priority| {
            TcHookBuilder::new(program.as_fd())
                .ifindex(index("nic") as i32)
                .replace(true)
                .handle(priority)
                .priority(priority)
                .hook(TC_INGRESS)
        };
        // Anywhere, and at the very place where ours would be.
        for priority in [7, 0x746c] {
            hook(priority).create().unwrap().attach().unwrap();
            let before = programs_on("nic");
            let said = attach(&mut ours, Hook::Tc).unwrap_err().to_string();
            assert!(said.starts_with("nic: tc (clsact) program "), "{said}");
            assert!(said.contains("look: tc filter show dev nic ingress"), "{said}");
            assert_eq!(programs_on("nic"), before);
            run(said.split_once("remove: ").unwrap().1);
        }
        attach(&mut ours, Hook::Tc).unwrap();
        // The qdisc was there before us.
        let name = ours.name.clone();
        ours.kernel = None;
        detach_all(&name).unwrap();
        assert_eq!(programs_on("nic"), []);
        assert!(prints("tc qdisc show dev nic", "clsact"));
    }
}

/// What a NIC looks like: promiscuous, VLAN tags taken out of frames.
fn state() -> (bool, bool) {
    let promisc = prints("ip -d link show dev nic", "PROMISC");
    (promisc, prints("ethtool -k nic", "rx-vlan-offload: on"))
}

#[test]
fn a_nic_is_made_ready_stays_so_and_is_put_back() {
    for (hook, tcx) in [(Hook::Tc, true), (Hook::Tc, false), (Hook::Xdp, true)] {
        let mut node = node("nic", tcx);
        assert_eq!(state(), (false, true));
        let changes = node.kernel().prepare_nic(nic(), true).unwrap();
        let made = vec!["rx-vlan-hw-parse off".to_owned(), "promiscuous on".to_owned()];
        assert_eq!(changes, Changes { made, warnings: vec![] });
        attach(&mut node, hook).unwrap();
        node.kernel().settle(near().index, far().index).unwrap();
        node.kernel().attach_punt(near(), far()).unwrap();
        assert_eq!(state(), (true, false));
        // No daemon: as it was. The next one: nothing to change, and the note stays.
        node.kernel = None;
        assert_eq!(state(), (true, false));
        node.restart();
        node.kernel().set_port(&port(NIC, index("nic"), PortKind::Trunk)).unwrap();
        assert_eq!(node.kernel().prepare_nic(nic(), true).unwrap(), Changes::default());
        attach(&mut node, hook).unwrap();
        node.kernel().settle(near().index, far().index).unwrap();
        node.kernel().attach_punt(near(), far()).unwrap();

        let name = node.name.clone();
        let said = detach_all(&name).unwrap_err().to_string();
        assert!(said.contains("is run by process"), "{said}");
        node.kernel = None;
        let report = detach_all(&name).unwrap();
        println!("{report:?}");
        assert_eq!(report.problems, Vec::<String>::new());
        let back = "nic: detached, promiscuous off, rx-vlan-hw-parse on".to_owned();
        assert!(report.done.contains(&back), "{report:?}");
        assert_eq!(state(), (false, true));
        for interface in ["nic", "punt0", "punt1"] {
            assert_eq!(programs_on(interface), []);
            assert!(!prints(&format!("tc qdisc show dev {interface}"), "clsact"));
        }
        assert!(!Path::new("/sys/fs/bpf/trunkline").join(&name).exists());
        assert!(!Path::new("/run/trunkline").join(format!("{name}.lock")).exists());
        assert_eq!(detach_all(&name).unwrap(), kernel::Report::default());
    }
}

#[test]
fn what_the_administrator_had_set_is_not_ours_to_put_back() {
    let mut node = node("admin", true);
    run("ip link set nic promisc on");
    run("ethtool -K nic rxvlan off");
    assert_eq!(node.kernel().prepare_nic(nic(), true).unwrap(), Changes::default());
    attach(&mut node, Hook::Tc).unwrap();
    node.kernel = None;
    detach_all(&node.name).unwrap();
    assert_eq!(state(), (true, false));
}

#[test]
fn a_public_nic_is_not_made_promiscuous_and_one_port_is_put_back_alone() {
    let mut node = node("public", true);
    let changes = node.kernel().prepare_nic(nic(), false).unwrap();
    assert_eq!(changes.made, ["rx-vlan-hw-parse off"]);
    attach(&mut node, Hook::Tc).unwrap();
    assert_eq!(state(), (false, false));
    node.kernel().detach(index("nic")).unwrap();
    node.kernel().clear_port(NIC).unwrap();
    assert_eq!((state(), programs_on("nic")), ((false, true), vec![]));
}

#[test]
fn what_is_half_gone_is_taken_away_all_the_same() {
    for tcx in [true, false] {
        let mut node = node("half", tcx);
        veth("vnet1", "vnet1-peer");
        let vif = index("vnet1");
        node.kernel().set_port(&port(2, vif, PortKind::Vif)).unwrap();
        node.kernel().attach(2, "vnet1", Hook::Tc, XdpMode::Auto).unwrap();
        node.kernel().prepare_nic(nic(), true).unwrap();
        attach(&mut node, Hook::Xdp).unwrap();
        node.kernel().settle(near().index, far().index).unwrap();
        node.kernel().attach_punt(near(), far()).unwrap();
        // The VM, the punt link and the notes of what was changed are gone.
        let name = node.name.clone();
        node.kernel = None;
        run("ip link del vnet1");
        run("ip link del punt0");
        std::fs::remove_file(format!("/sys/fs/bpf/trunkline/{name}/nics")).unwrap();
        let report = detach_all(&name).unwrap();
        assert!(report.problems[0].starts_with("what was changed on NICs is not known"));
        // A filter that nobody notes is nobody's; a link is its pin's.
        let left: Vec<_> = programs_on("nic").into_iter().map(|(how, _)| how).collect();
        assert_eq!(left, if tcx { vec![] } else { vec!["clsact"] });
        assert!(!Path::new("/sys/fs/bpf/trunkline").join(&name).exists());
        let _ = try_run("tc qdisc del dev nic clsact");
    }
}

#[test]
fn detach_refuses_in_another_network_namespace() {
    let mut node = node("elsewhere", true);
    attach(&mut node, Hook::Tc).unwrap();
    let name = node.name.clone();
    node.kernel = None;
    let other = Namespace::new("other");
    let inside = name.clone();
    let said = other.enter(move || detach_all(&inside).unwrap_err().to_string()).join().unwrap();
    assert!(said.contains("is attached in another network namespace"), "{said}");
    assert_eq!(programs_on("nic").len(), 1);
    // With its interfaces gone there is nothing left to find there.
    run("ip link del nic");
    let inside = name.clone();
    let report = other.enter(move || detach_all(&inside).unwrap()).join().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

#[test]
fn a_missing_capability_is_named() {
    let said = std::thread::spawn(|| {
        // Version 3 of capset(2), this thread, and nothing in all three sets.
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        // SAFETY: header and data of that version; changes this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(result, 0);
        let settings =
            Settings { lines: 64, hash_key: 1, tcx: true, replays: true, continues: None };
        Kernel::start("tlk-nobody", &settings).unwrap_err().to_string()
    });
    assert_eq!(
        said.join().unwrap(),
        "missing CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF: run as root, or give these \
         capabilities"
    );
    assert!(!Path::new("/sys/fs/bpf/trunkline/tlk-nobody").exists());
}

#[test]
fn what_libbpf_says_is_in_the_error() {
    let settings = Settings { lines: 0, hash_key: 1, tcx: true, replays: true, continues: None };
    let name = format!("tlk-{}-load", std::process::id());
    let said = Kernel::start(&name, &settings).unwrap_err().to_string();
    assert!(said.starts_with("cannot load the forward programs: "), "{said}");
    assert!(said.contains("map 'lines': failed to create"), "{said}");
}

#[test]
fn native_xdp_that_cannot_be_had_says_why_and_what_to_do() {
    let mut node = node("unfit", true);
    run("ip link add plain type bridge");
    let trunk = port(NIC, index("plain"), PortKind::Trunk);
    node.kernel().set_port(&trunk).unwrap();
    let attached = node.kernel().attach(NIC, "plain", Hook::Xdp, XdpMode::Native);
    let said = attached.unwrap_err().to_string();
    let expected = "xdp (native) cannot be had: its driver has none; say hook tc, or auto";
    assert_eq!(said, format!("plain: {expected}"));
    assert_eq!(programs_on("plain"), []);
    let attached = node.kernel().attach(NIC, "plain", Hook::Xdp, XdpMode::Auto).unwrap();
    assert_eq!(attached.how, kernel::How::XdpGeneric);
    // A change of mode that fails does not leave the NIC to the host, which would route what it
    // gets.
    let refused = node.kernel().attach(NIC, "plain", Hook::Xdp, XdpMode::Native).unwrap_err();
    assert_eq!(refused.to_string(), said);
    assert_eq!(programs_on("plain").len(), 2, "XDP, and tc behind it");
    node.restart();
    node.kernel().set_port(&trunk).unwrap();
    let attached = node.kernel().attach(NIC, "plain", Hook::Xdp, XdpMode::Auto).unwrap();
    assert_eq!(attached.how, kernel::How::XdpGeneric);
}

#[test]
fn a_first_start_that_fails_leaves_nothing_and_a_later_one_leaves_what_was_there() {
    enter_netns();
    let name = format!("tlk-{}-fails", std::process::id());
    let (pins, lock) = (
        Path::new("/sys/fs/bpf/trunkline").join(&name),
        Path::new("/run/trunkline").join(format!("{name}.lock")),
    );
    let settings =
        |lines| Settings { lines, hash_key: 1, tcx: true, replays: true, continues: None };
    Kernel::start(&name, &settings(0)).unwrap_err();
    assert!(!pins.exists() && !lock.exists());
    drop(Kernel::start(&name, &settings(64)).unwrap());
    Kernel::start(&name, &settings(0)).unwrap_err();
    assert!(pins.join("nics").exists());
    detach_all(&name).unwrap();
    assert!(!pins.exists() && !lock.exists());
}
