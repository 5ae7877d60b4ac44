//! Which packets from a public NIC are ours, one at a time, in both programs.
#![allow(clippy::unwrap_used)] // tests

mod common;

use conntrack::{FlowKey, NewLine, Rewrite, Table, layout};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use common::run::{TC_NEXT, TC_REDIRECT, XDP_DROP, XDP_PASS, XDP_REDIRECT, run};
use common::wire::{DOT1Q, arp, icmp, ipv4, tag, tcp, udp};
use common::{Node, enter_netns, far, near, port, punt_link, segment};
use kernel::KernelDrop::NoDaemon;
use kernel::{Owned, PortEntry, PortKind, Program};

/// A test run's frames come by the loopback interface.
const LO: u32 = 1;
const NIC: u16 = 5;

const PEER: [u8; 4] = [8, 8, 8, 8];
const SNAT: [u8; 4] = [91, 207, 15, 105];
const FLOAT: [u8; 4] = [91, 208, 23, 11];
const TENANT: [u8; 4] = [91, 209, 4, 77];
const NOBODY: [u8; 4] = [91, 207, 15, 106];

/// A public NIC, and one address of each kind.
fn node(name: &str, entry: PortEntry) -> Node {
    enter_netns();
    punt_link();
    let mut node = Node::start(name);
    let kernel = node.kernel();
    kernel.set_port(&entry).unwrap();
    kernel.attach_punt(near(), far()).unwrap();
    kernel.set_owned((SNAT, 32), Owned::Snat).unwrap();
    kernel.set_owned((FLOAT, 32), Owned::Float).unwrap();
    kernel.set_owned(([91, 209, 4, 0], 24), Owned::Network).unwrap();
    node
}

fn public(name: &str) -> Node {
    node(name, port(NIC, LO, PortKind::Public))
}

/// Whether a frame goes up, by both programs. In XDP there is no socket to take it: what is ours
/// is dropped and counted then, and never passed; ARP goes where it is answered all the same.
fn goes_up(node: &mut Node, frame: &[u8]) -> bool {
    let kernel = node.kernel();
    kernel.counters_clear(NIC).unwrap();
    let xdp = run(kernel.program(Program::ForwardXdp), frame).verdict;
    let tc = run(kernel.program(Program::ForwardTc), frame).verdict;
    let counters = kernel.counters(NIC).unwrap();
    let counted = (counters.passed, counters.punted, counters.dropped(NoDaemon));
    match (xdp, tc, counted) {
        (XDP_DROP, TC_REDIRECT, (0, 1, 1)) | (XDP_REDIRECT, TC_REDIRECT, (0, 2, 0)) => true,
        (XDP_PASS, TC_NEXT, (2, 0, 0)) => false,
        other => panic!("{other:?}"),
    }
}

/// Opens a connection whose requests enter by `key`.
fn connect(node: &mut Node, key: FlowKey) {
    let kernel = node.kernel();
    let table = Table::new(kernel.lines(), kernel.header().hash_key());
    let line = |key| NewLine { key, rewrite: Rewrite::default() };
    let reply = key.reversed(key.ingress() + 100, key.zone() + 1);
    table.install(&line(key), &line(reply), 1, 60).unwrap();
}

#[test]
fn what_is_owned_can_be_read_back_and_given_back() {
    let mut node = public("readback");
    let sorted = |node: &mut Node| {
        let mut all = node.kernel().owned().unwrap();
        all.sort_unstable_by_key(|(prefix, _)| *prefix);
        all
    };
    let network = (([91, 209, 4, 0], 24), Owned::Network);
    let float = ((FLOAT, 32), Owned::Float);
    assert_eq!(sorted(&mut node), [((SNAT, 32), Owned::Snat), float, network]);
    node.kernel().set_owned((SNAT, 32), Owned::Float).unwrap();
    // Bits behind the prefix do not matter; what is not there can be given back.
    node.kernel().clear_owned((TENANT, 24)).unwrap();
    node.kernel().clear_owned((TENANT, 24)).unwrap();
    assert_eq!(sorted(&mut node), [((SNAT, 32), Owned::Float), float]);
    assert!(node.kernel().set_owned((SNAT, 33), Owned::Snat).is_err());
    // A new start begins with nothing, and is told all again.
    node.restart();
    assert_eq!(node.kernel().owned().unwrap(), []);
}

#[test]
fn all_of_a_floating_address_is_ours_with_its_arp() {
    let mut node = public("float");
    for ours in [
        arp(1, PEER, FLOAT),
        arp(2, PEER, FLOAT),
        tcp((PEER, 40_000), (FLOAT, 22), 2),
        icmp(PEER, FLOAT, 8, 7),
        icmp(PEER, FLOAT, 13, 7),
        ipv4(PEER, FLOAT, 47, &[0; 4]),
        fragment(udp((PEER, 53), (FLOAT, 53), b"no line"), 0x00b9),
    ] {
        assert!(goes_up(&mut node, &ours), "{ours:02x?}");
    }
    node.kernel().clear_owned((FLOAT, 32)).unwrap();
    assert!(!goes_up(&mut node, &arp(1, PEER, FLOAT)));
    assert!(!goes_up(&mut node, &icmp(PEER, FLOAT, 8, 7)));
}

#[test]
fn a_forwarded_port_of_a_snat_address_is_ours_and_no_other() {
    let mut node = public("forward");
    let to = |port| udp((PEER, 40_000), (SNAT, port), b"vpn");
    assert!(!goes_up(&mut node, &to(1000)));
    node.kernel().set_forward(SNAT, 1000, true).unwrap();
    assert!(goes_up(&mut node, &to(1000)));
    assert!(!goes_up(&mut node, &to(1001)));
    assert!(!goes_up(&mut node, &tcp((PEER, 40_000), (SNAT, 1000), 2)));
    for _ in 0..2 {
        node.kernel().set_forward(SNAT, 1000, false).unwrap();
        assert!(!goes_up(&mut node, &to(1000)));
    }
}

#[test]
fn a_network_routed_to_us_is_ours_but_its_arp_is_not() {
    let mut node = public("network");
    assert!(goes_up(&mut node, &tcp((PEER, 40_000), (TENANT, 22), 2)));
    assert!(!goes_up(&mut node, &arp(1, PEER, TENANT)));
    // A longer prefix is an exception.
    node.kernel().set_owned((TENANT, 32), Owned::Snat).unwrap();
    assert!(!goes_up(&mut node, &tcp((PEER, 40_000), (TENANT, 22), 2)));
}

#[test]
fn what_is_for_nobody_here_or_cannot_be_read_is_the_hosts() {
    let mut node = public("others");
    let mut version6 = tcp((PEER, 1), (FLOAT, 2), 2);
    version6[14] = 0x65;
    let mut short_header = tcp((PEER, 1), (FLOAT, 2), 2);
    short_header[14] = 0x44;
    let mut token_ring = arp(1, PEER, FLOAT);
    token_ring[18] = 8;
    let mut ipv6 = tcp((PEER, 1), (FLOAT, 2), 2);
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    for theirs in [
        arp(1, PEER, NOBODY),
        arp(2, PEER, SNAT),
        arp(1, PEER, SNAT),
        tcp((PEER, 40_000), (NOBODY, 22), 2),
        tcp((FLOAT, 40_000), (NOBODY, 22), 2),
        version6,
        short_header,
        token_ring,
        ipv6,
    ] {
        assert!(!goes_up(&mut node, &theirs), "{theirs:02x?}");
        // Cut anywhere it is no error, and nobody's. (A test run has no IP header that is cut.)
        let first = match theirs[12..14] {
            [0x08, 0x00] => 34,
            [0x86, 0xdd] => 54,
            _ => 15,
        };
        for length in (first..theirs.len()).step_by(5) {
            assert!(!goes_up(&mut node, &theirs[..length]), "{length} bytes of {theirs:02x?}");
        }
    }
}

#[test]
fn to_a_snat_address_ours_is_what_has_a_line() {
    let mut node = public("snat");
    let reset = 4;
    let frames = [
        (6, tcp((PEER, 443), (SNAT, 20_001), reset), (443, 20_001)),
        (17, udp((PEER, 53), (SNAT, 20_001), b"answer"), (53, 20_001)),
        (1, icmp(PEER, SNAT, 8, 700), (700, 0)),
        (1, icmp(PEER, SNAT, 0, 700), (0, 700)),
    ];
    for (protocol, frame, (sport, dport)) in &frames {
        assert!(!goes_up(&mut node, frame), "{protocol}");
        // A line for another port, zone, protocol or direction is none.
        let protocols = [6, 17, 1].into_iter().filter(|other| other != protocol);
        for other in protocols {
            connect(&mut node, FlowKey::ipv4(PEER, SNAT, *sport, *dport, other, NIC, 0));
        }
        connect(&mut node, FlowKey::ipv4(PEER, SNAT, *sport, *dport, *protocol, NIC + 1, 0));
        connect(&mut node, FlowKey::ipv4(PEER, SNAT, *sport, *dport, *protocol, NIC, 1));
        connect(&mut node, FlowKey::ipv4(SNAT, PEER, *dport, *sport, *protocol, NIC, 0));
        assert!(!goes_up(&mut node, frame), "{protocol}");
        connect(&mut node, FlowKey::ipv4(PEER, SNAT, *sport, *dport, *protocol, NIC, 0));
        assert!(goes_up(&mut node, frame), "{protocol}");
        set_state(&node, 0);
    }
    let echo = FlowKey::echo(PEER, SNAT, 700, false, NIC, 0);
    connect(&mut node, echo);
    assert!(goes_up(&mut node, &frames[3].1) && !goes_up(&mut node, &frames[2].1));
}

#[test]
fn ip_options_and_priority_tags_do_not_hide_a_line() {
    let mut node = public("options");
    connect(&mut node, FlowKey::ipv4(PEER, SNAT, 53, 20_001, 17, NIC, 0));
    for words in 0..=10 {
        let mut frame = udp((PEER, 53), (SNAT, 20_001), b"");
        frame[14] += words;
        let options = vec![1; usize::from(words) * 4]; // no operation
        frame.splice(34..34, options);
        assert!(goes_up(&mut node, &frame), "{words} words of options");
        tag(&mut frame, DOT1Q, 0xa000);
        assert!(goes_up(&mut node, &frame), "{words} words of options, priority 5");
        frame[15] = 7;
        assert!(!goes_up(&mut node, &frame), "VLAN 7");
        frame[15] = 0;
        frame.truncate(18 + 20 + usize::from(words) * 4 + 7);
        assert!(!goes_up(&mut node, &frame), "cut in its ports");
    }
}

#[test]
fn fragments_and_icmp_errors_to_a_snat_address_go_up_undecided() {
    let mut node = public("undecided");
    let whole = udp((PEER, 53), (SNAT, 20_001), b"a part");
    // The first of several, one in the middle, the last; and "do not fragment" is none.
    for (flags, up) in [(0x2000, true), (0x20b9, true), (0x00b9, true), (0x4000, false)] {
        assert_eq!(goes_up(&mut node, &fragment(whole.clone(), flags)), up, "{flags:#06x}");
    }
    for kind in 0..=20 {
        let is_error = [3, 4, 5, 11, 12].contains(&kind);
        assert_eq!(goes_up(&mut node, &icmp(PEER, SNAT, kind, 7)), is_error, "ICMP {kind}");
    }
    assert!(!goes_up(&mut node, &ipv4(PEER, SNAT, 47, &[0; 8])));
    assert!(!goes_up(&mut node, &fragment(udp((PEER, 1), (NOBODY, 2), b""), 0x2000)));
}

#[test]
fn a_line_counts_while_somebody_writes_it_and_not_once_it_is_free() {
    let mut node = public("states");
    connect(&mut node, FlowKey::ipv4(PEER, SNAT, 443, 20_001, 6, NIC, 0));
    let frame = tcp((PEER, 443), (SNAT, 20_001), 16);
    for (state, up) in [(2, true), (1, true), (0, false)] {
        set_state(&node, state);
        assert_eq!(goes_up(&mut node, &frame), up, "state {state}");
    }
}

#[test]
fn a_line_that_gets_new_paths_without_rest_is_never_missed() {
    let mut node = public("rewritten");
    let key = FlowKey::ipv4(PEER, SNAT, 443, 20_001, 6, NIC, 0);
    connect(&mut node, key);
    let table = Table::new(node.kernel().lines(), node.settings.hash_key);
    let frame = tcp((PEER, 443), (SNAT, 20_001), 16);
    let kernel = node.kernel();
    let programs = [Program::ForwardXdp, Program::ForwardTc].map(|which| kernel.program(which));
    let mut rewrites = 0;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for at in 0..20_000 {
                run(programs[at % 2], &frame);
            }
        });
        let mut flow = table.find(key, table.hash(key)).unwrap();
        while !reader.is_finished() {
            flow = table.set_path(&flow, &Rewrite::default(), 2).unwrap();
            rewrites += 1;
        }
    });
    let counters = node.kernel().counters(NIC).unwrap();
    println!("{rewrites} rewrites, {counters:?}");
    assert_eq!((counters.rx_packets, counters.passed), (20_000, 0));
    assert!(rewrites > 1_000, "{rewrites}");
}

fn lines(node: &Node) -> MapHandle {
    let pin = format!("/sys/fs/bpf/trunkline/{}/lines", node.name);
    MapHandle::from_pinned_path(pin).unwrap()
}

fn read(lines: &MapHandle, index: u32) -> Vec<u8> {
    lines.lookup(&index.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap()
}

/// Gives all lines that are not free this state, as a writer does.
fn set_state(node: &Node, state: u8) {
    let lines = lines(node);
    for index in 0..64 {
        let mut line = read(&lines, index);
        if line[0] & 3 != 0 {
            line[0] = line[0] & !3 | state;
            lines.update(&index.to_ne_bytes(), &line, MapFlags::ANY).unwrap();
        }
    }
}

#[test]
fn every_line_of_both_homes_is_looked_at() {
    let mut node = public("homes");
    connect(&mut node, FlowKey::ipv4(PEER, SNAT, 443, 20_001, 6, NIC, 0));
    let frame = tcp((PEER, 443), (SNAT, 20_001), 16);
    let lines = lines(&node);
    // Word 1 is both addresses as they lie in the packet.
    let is_its = |line: &Vec<u8>| line[8..16] == frame[26..34];
    let line = (0..64).map(|index| read(&lines, index)).find(is_its).unwrap();
    let word = |at: usize| u64::from_ne_bytes(line[at * 8..at * 8 + 8].try_into().unwrap());
    let homes = layout::homes(layout::hash(word(1), word(2), node.settings.hash_key), 64);
    let put = |index: u32, line: &[u8]| {
        lines.update(&index.to_ne_bytes(), line, MapFlags::ANY).unwrap();
    };
    // Everybody's once, and free again.
    let mut free = [0; layout::BYTES];
    free[0] = 1 << layout::COUNT_SHIFT;
    (0..64).for_each(|index| put(index, &free));
    for index in 0..64 {
        put(index, &line);
        let is_home = homes.iter().any(|home| (*home..home + 4).contains(&index));
        assert_eq!(goes_up(&mut node, &frame), is_home, "{index} of {homes:?}");
        put(index, &free);
    }
    // Behind one that nobody ever had is none to be found.
    put(homes[0] + 1, &[0; layout::BYTES]);
    put(homes[0] + 2, &line);
    assert!(!goes_up(&mut node, &frame));
}

#[test]
fn a_trunk_that_is_public_has_both() {
    let entry = PortEntry { public: true, ..port(NIC, LO, PortKind::Trunk) };
    let mut node = node("both", entry);
    node.kernel().set_segment(1, &segment(1, 100)).unwrap();
    node.kernel().set_vlan(NIC, 100, 1).unwrap();
    let (ours, theirs) = (icmp(PEER, FLOAT, 8, 1), icmp(PEER, NOBODY, 8, 1));
    assert!(goes_up(&mut node, &ours) && !goes_up(&mut node, &theirs));
    // A tag decides alone: of VLAN 100 all is ours, of others nothing.
    let tagged = |frame: &[u8], vlan| {
        let mut frame = frame.to_vec();
        tag(&mut frame, DOT1Q, vlan);
        frame
    };
    assert!(goes_up(&mut node, &tagged(&theirs, 100)));
    assert!(!goes_up(&mut node, &tagged(&ours, 101)));
    // And no other trunk asks.
    node.kernel().set_port(&PortEntry { public: false, ..entry }).unwrap();
    assert!(!goes_up(&mut node, &ours));
}

/// The frame with these flags and offset.
fn fragment(mut frame: Vec<u8>, flags: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&flags.to_be_bytes());
    frame
}
