//! Settings of a namespace: changed for the node, and put back as they were.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs;
use std::ops::RangeInclusive;

use common::{Namespace, Node, enter_netns, index, port, run, veth};
use kernel::{PortKind, detach_all};

const LIST: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

fn reserved() -> String {
    // std reads twice, and first a little: of a long list it would show the beginning.
    run(&format!("cat {LIST}")).trim().to_owned()
}

/// A node in a namespace where others have reserved this.
fn node(name: &str, others: &str) -> Node {
    enter_netns();
    fs::write(LIST, format!("{others}\n")).unwrap();
    Node::start(name)
}

/// Ends the daemon, and takes all away.
fn detach(mut node: Node) -> kernel::Report {
    node.kernel = None;
    detach_all(&node.name).unwrap()
}

#[test]
fn reserved_ports_join_those_of_others_and_leave_alone() {
    let mut node = node("reserve", "80,19990-20010,30000,45990-46010");
    node.kernel().reserve_ports(20_000..=45_999).unwrap();
    assert_eq!(reserved(), "80,19990-46010");
    // What somebody reserves meanwhile is theirs.
    fs::write(LIST, "80,81,19990-46010\n").unwrap();
    let report = detach(node);
    assert_eq!(reserved(), "80-81,19990-20010,30000,45990-46010");
    // 26,000 but for 11, 1 and 10 that were reserved before.
    assert!(report.done.contains(&"25978 reserved ports given back".to_owned()), "{report:?}");
    assert_eq!(report.problems, Vec::<String>::new());
}

#[test]
fn a_later_run_takes_back_what_an_earlier_one_reserved() {
    let mut node = node("reserve-again", "25000");
    node.kernel().reserve_ports(20_000..=29_999).unwrap();
    // After a SIGKILL: the same range, another, none, and one again.
    for (range, expected) in [
        (20_000..=29_999, "20000-29999"),
        (24_000..=26_000, "24000-26000"),
        (26_000..=26_001, "25000,26000-26001"),
        (RangeInclusive::new(1, 0), "25000"),
        (0..=65_535, "0-65535"),
    ] {
        node.restart();
        node.kernel().reserve_ports(range).unwrap();
        assert_eq!(reserved(), expected);
    }
    // One that has reserved nothing yet has forgotten nothing.
    node.restart();
    detach(node);
    assert_eq!(reserved(), "25000");
}

#[test]
fn a_long_list_of_others_is_kept_whole() {
    let others: Vec<String> = (1..=5000).step_by(2).map(|port: u16| port.to_string()).collect();
    let others = others.join(",");
    let mut node = node("reserve-long", &others);
    assert_eq!(reserved(), others);
    node.kernel().reserve_ports(20_000..=45_999).unwrap();
    assert_eq!(reserved(), format!("{others},20000-45999"));
    detach(node);
    assert_eq!(reserved(), others);
}

#[test]
fn ports_reserved_in_another_namespace_are_not_given_back_here() {
    let mut node = node("reserve-there", "");
    node.kernel().reserve_ports(20_000..=45_999).unwrap();
    let name = node.name.clone();
    node.kernel = None;
    let inside = name.clone();
    let other = Namespace::new("other");
    let said = other.enter(move || {
        fs::write(LIST, "20000-20009\n").unwrap();
        detach_all(&inside).unwrap();
        reserved()
    });
    assert_eq!(said.join().unwrap(), "20000-20009");
}

#[test]
fn the_stack_behind_a_host_port_answers_no_arp() {
    let mut node = node("arp", "");
    let other = Namespace::new("other");
    let (host, _) = veth("br100", "peer");
    other.take("peer", "10.0.0.2/24");
    run("ip address add 10.0.0.1/24 dev br100");
    node.kernel().set_port(&port(1, host, PortKind::Host)).unwrap();
    assert_eq!(index("br100"), host);
    let answered = |other: &Namespace| {
        let command =
            format!("ip netns exec {} busybox arping -q -c 1 -w 1 -I eth0 10.0.0.1", other.0);
        common::try_run(&command).status.success()
    };
    assert!(answered(&other));
    node.kernel().ignore_arp("br100").unwrap();
    assert!(!answered(&other));
    let said = node.kernel().ignore_arp("no-such").unwrap_err().to_string();
    assert!(
        said.starts_with("cannot write /proc/sys/net/ipv4/conf/no-such/arp_ignore: "),
        "{said}"
    );
}
