//! Security groups against a plain model of them: whoever speaks, in whatever order, while rules come and
//! go, a packet arrives exactly where the model says that it does.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod guarded;
mod hops;

use std::collections::HashMap;

use guarded::{ICMP, Plan, UDP, from, rule};
use hops::*;
use proptest::prelude::*;
use tables::{GATEWAY_MAC, Origin, Rule};
use testkit::{ROUTER, World, echo, udp};

/// Who VM 1 speaks with: a sibling, another tenant's VM here and on the other node, one outside.
const PEERS: [[u8; 4]; 4] = [VM2.1, VM3.1, VM6.1, GOOGLE];
/// Ports of VM 1, and of a peer.
const OWN: [u16; 2] = [53, 54];
const THEIRS: [u16; 2] = [5, 6];

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// VM 1 says something to a peer, or a peer to VM 1: peer, its port, VM 1's port; or an echo.
    Says { by_vm: bool, peer: usize, ports: Option<(usize, usize)> },
    /// These rules are in force from now on; and whether the own network comes in.
    Rules(Vec<usize>, bool),
}

fn rules() -> [Rule; 5] {
    [
        rule(UDP, (53, 53), Origin::ANYBODY),
        rule(UDP, (54, 60), from("10.1.0.0/24")),
        rule(UDP, (1, 65535), from("8.8.8.8/32")),
        rule(ICMP, (8 << 8, 8 << 8), from("10.1.0.4/32")),
        rule(None, (0, 65535), from("10.0.0.0/24")),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ports = prop::option::weighted(0.8, (0..THEIRS.len(), 0..OWN.len()));
    let says = (any::<bool>(), 0..PEERS.len(), ports).prop_map(|(by_vm, peer, ports)| Step::Says {
        by_vm,
        peer,
        ports,
    });
    let rules = (prop::sample::subsequence((0..5).collect::<Vec<_>>(), 0..4), any::<bool>())
        .prop_map(|(rules, own)| Step::Rules(rules, own));
    prop_oneof![8 => says, 1 => rules]
}

/// Who opened a connection, by peer and ports.
type Opened = HashMap<(usize, Option<(usize, usize)>), bool>;

fn admits(rules: &[Rule], own: bool, peer: [u8; 4], port: Option<u16>) -> bool {
    let by = |rule: &Rule| {
        let (protocol, wanted) = port.map_or((1, 8 << 8), |port| (17, port));
        let Origin::Prefix(net) = rule.from else { return false };
        rule.protocol.is_none_or(|number| number == protocol)
            && (rule.first..=rule.last).contains(&wanted)
            && net.contains(&std::net::IpAddr::from(peer))
    };
    (own && peer[..3] == [10, 0, 0]) || rules.iter().any(by)
}

/// Says it in the world; whether it arrived.
fn say(
    world: &mut World,
    opened: &Opened,
    by_vm: bool,
    peer: usize,
    ports: Option<(usize, usize)>,
) -> bool {
    let address = PEERS[peer];
    let (vm, mac) = [(2, VM2.0), (3, VM3.0), (6, VM6.0), (0, ROUTER.mac)][peer];
    let sibling = peer == 0;
    let outside = peer == 3;
    let to_peer = if sibling { mac } else { GATEWAY_MAC };
    let to_vm = match (sibling, outside) {
        (true, _) => (VM1.0, VM1.1),
        (_, true) => (LEFT_PUBLIC, FLOAT1),
        _ => (GATEWAY_MAC, VM1.1),
    };
    // Of an echo, who opened it asks.
    let asks = |by_vm: bool| opened.get(&(peer, ports)).is_none_or(|vm_opened| *vm_opened == by_vm);
    let frame = match (by_vm, ports) {
        (true, Some((theirs, own))) => {
            udp((VM1.0, VM1.1, OWN[own]), (to_peer, address, THEIRS[theirs]), b"x")
        }
        (false, Some((theirs, own))) => {
            udp((mac, address, THEIRS[theirs]), (to_vm.0, to_vm.1, OWN[own]), b"x")
        }
        (true, None) => echo(VM1, (to_peer, address), asks(true), 7),
        (false, None) => echo((mac, address), to_vm, asks(false), 7),
    };
    let is_ip = |frame: &[u8]| frame[12..14] == [8, 0];
    world.outside.clear();
    let reached = match (by_vm, outside) {
        (true, _) => world.send(1, &frame),
        (false, true) => world.send_from_outside(&frame),
        (false, false) => world.send(vm, &frame),
    };
    if by_vm && outside {
        return !world.outside.is_empty();
    }
    let to = if by_vm { vm } else { 1 };
    reached.iter().any(|sent| sent.vm == to && is_ip(&sent.frame))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_arrives_is_what_the_rules_and_who_opened_it_say(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let open = (2..=6).fold(Plan::new(false), |plan, vm| plan.allow(vm, rule(None, (0, 65535), Origin::ANYBODY)));
        let mut world = World::routed("groups_model", false);
        open.guard_both(&mut world);
        let (mut now, mut own) = (Vec::new(), false);
        let mut opened = Opened::new();
        for step in steps {
            match step {
                Step::Rules(which, with_own) => {
                    (now, own) = (which.iter().map(|at| rules()[*at]).collect(), with_own);
                    let mut plan = open.clone();
                    plan.rules[0].clone_from(&now);
                    plan.rules[0].extend(own.then(|| rule(None, (0, 65535), from("10.0.0.0/24"))));
                    plan.guard_both(&mut world);
                }
                Step::Says { by_vm, peer, ports } => {
                    let port = ports.map(|(_, own)| OWN[own]);
                    let may = admits(&now, own, PEERS[peer], port);
                    let by = opened.get(&(peer, ports)).copied();
                    let expected = may || by == Some(true) || (by.is_none() && by_vm);
                    let arrived = say(&mut world, &opened, by_vm, peer, ports);
                    prop_assert_eq!(arrived, expected, "{:?} {:?} {:?} by {:?}", by_vm, peer, ports, by);
                    if arrived {
                        opened.entry((peer, ports)).or_insert(by_vm);
                    }
                }
            }
        }
    }
}
