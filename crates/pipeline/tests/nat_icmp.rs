//! ICMP behind the translation: identifiers as ports, and errors of every type both ways.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hops;

use etherparse::PacketBuilder;
use hops::*;
use tables::GATEWAY_MAC;
use testkit::{ROUTER, Sent, World, echo, udp};
use wire::{MacAddr, Transport, embedded};

/// A router between the node and the host outside.
const BETWEEN: [u8; 4] = [193, 0, 0, 1];
/// Type, code and what follows the checksum, of all errors there are.
const ERRORS: [(u8, u8, [u8; 4]); 13] = [
    (3, 0, [0; 4]),
    (3, 1, [0; 4]),
    (3, 2, [0; 4]),
    (3, 3, [0; 4]),
    (3, 4, [0, 0, 5, 0x78]),
    (3, 5, [0; 4]),
    (3, 9, [0; 4]),
    (3, 13, [0; 4]),
    (4, 0, [0; 4]),
    (11, 0, [0; 4]),
    (11, 1, [0; 4]),
    (12, 0, [8, 0, 0, 0]),
    (12, 2, [0; 4]),
];

/// An ICMP error about a frame, which quotes all of its packet.
fn error_about(
    seen: &[u8],
    error: (u8, u8, [u8; 4]),
    from: (MacAddr, [u8; 4]),
    to: (MacAddr, [u8; 4]),
) -> Vec<u8> {
    let (kind, code, rest) = error;
    let l3 = usize::from(wire::parse(seen).unwrap().l3);
    let quote = &seen[l3..l3 + usize::from(ip(seen).total_len)];
    let builder = PacketBuilder::ethernet2(from.0.0, to.0.0).ipv4(from.1, to.1, 64);
    let mut frame = Vec::new();
    builder.icmpv4_raw(kind, code, rest).write(&mut frame, quote).unwrap();
    frame
}

/// The type and code of an error, and the packet it quotes.
fn told(frame: &[u8]) -> (u8, u8, Vec<u8>) {
    let message = &frame[34..14 + usize::from(ip(frame).total_len)];
    (message[0], message[1], message[8..].to_vec())
}

fn id_of(frame: &[u8]) -> u16 {
    match ip(frame).transport {
        Transport::Echo { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

/// The packet in a frame as it was sent, but for the hops it has taken: a quote has those.
fn as_sent(sent: &[u8], quoted: &[u8]) {
    let mut sent = sent[14..].to_vec();
    sent[8] = quoted[8];
    sent[10..12].copy_from_slice(&quoted[10..12]);
    assert_eq!(sent[..quoted.len()], *quoted);
}

fn reaches(reached: &[Sent], vm: u8) -> Vec<u8> {
    let sent = one(reached);
    assert_eq!(sent.vm, vm);
    hop(&sent.frame);
    sent.frame.clone()
}

#[test]
fn two_vms_that_ask_one_host_with_one_number_get_two_and_each_its_own_answer() {
    let mut world = World::routed("echo_ids", false);
    // 33000 is the tenants' to give; 7 is the host's.
    for id in [33_000, 7] {
        world.outside.clear();
        for (vm, from) in [(2, VM2), (3, VM3)] {
            world.send(vm, &echo(from, (GATEWAY_MAC, GOOGLE), true, id));
        }
        let ids: Vec<u16> = world.outside.iter().map(|frame| id_of(frame)).collect();
        assert!(ids[0] != ids[1], "{ids:?}");
        assert!(ids.iter().all(|id| (20_000..46_000).contains(id)), "{ids:?}");
        assert_eq!(ids[0] == id, id == 33_000, "{ids:?}: its own if that can be");
        for (outside, vm) in ids.into_iter().zip([2, 3]) {
            let answer = echo((ROUTER.mac, GOOGLE), (MacAddr::ZERO, LEFT), false, outside);
            let frame = reaches(&world.send_from_outside(&answer), vm);
            assert_eq!(id_of(&frame), id);
        }
    }
    // An answer with a number of the host's is the host's, and opens nothing.
    let before = world.left.flows.connections();
    let own = echo((ROUTER.mac, GOOGLE), (MacAddr::ZERO, LEFT), false, 7);
    assert!(world.send_from_outside(&own).is_empty());
    assert_eq!(world.left.flows.connections(), before);
}

#[test]
fn errors_of_every_type_come_back_about_what_the_vm_sent_and_change_nothing_else() {
    let mut world = World::routed("errors_in", false);
    let sent = [
        udp((VM2.0, VM2.1, 5000), (GATEWAY_MAC, GOOGLE, 53), b"what is there?"),
        testkit::tcp((VM2.0, VM2.1, 5000), (GATEWAY_MAC, GOOGLE, 53), 2, b""),
        echo(VM2, (GATEWAY_MAC, GOOGLE), true, 5000),
    ];
    for sent in sent {
        world.outside.clear();
        world.send(2, &sent);
        let seen = world.outside[0].clone();
        let lines = |world: &World| -> Vec<_> {
            world.left.flows.live().map(|flow| (flow.last_seen(), flow.bits())).collect()
        };
        let before = lines(&world);
        world.left.now += 30;
        for error in ERRORS {
            for from in [BETWEEN, GOOGLE] {
                let error_seen =
                    error_about(&seen, error, (ROUTER.mac, from), (MacAddr::ZERO, LEFT));
                let frame = reaches(&world.send_from_outside(&error_seen), 2);
                assert_eq!((ip(&frame).src, ip(&frame).dst), (from, VM2.1), "{error:?}");
                let (kind, code, quoted) = told(&frame);
                assert_eq!((kind, code, &frame[38..42]), (error.0, error.1, &error.2[..]));
                as_sent(&sent, &quoted);
            }
        }
        assert_eq!(lines(&world), before, "no error opens, keeps or ends a connection");
    }
}

#[test]
fn a_vms_own_errors_leave_under_the_name_it_has_outside() {
    let mut world = World::routed("errors_out", false);
    let ask = udp((ROUTER.mac, GOOGLE, 4000), (MacAddr::ZERO, FLOAT1, 53), b"?");
    let asked = reaches(&world.send_from_outside(&ask), 1);
    for error in ERRORS {
        world.outside.clear();
        world.send(1, &error_about(&asked, error, VM1, (GATEWAY_MAC, GOOGLE)));
        let frame = &world.outside[0];
        assert_eq!((hop(frame).src, hop(frame).dst), (FLOAT1, GOOGLE), "{error:?}");
        let (kind, code, quoted) = told(frame);
        assert_eq!((kind, code), (error.0, error.1));
        as_sent(&ask, &quoted);
    }
    // One that answers what nobody asked would name the VM: it goes nowhere.
    world.outside.clear();
    let never = udp((ROUTER.mac, GOOGLE, 1), (VM1.0, VM1.1, 2), b"");
    world.send(1, &error_about(&never, ERRORS[3], VM1, (GATEWAY_MAC, GOOGLE)));
    assert!(world.outside.is_empty());
}

#[test]
fn errors_find_their_way_back_by_a_hairpin() {
    let mut world = World::routed("errors_hairpin", false);
    let asks = [
        // A VM that has no floating address, and VM 1 itself.
        (2, udp((VM2.0, VM2.1, 33_000), (GATEWAY_MAC, FLOAT1, 53), b"?"), VM2.1),
        (1, udp((VM1.0, VM1.1, 33_000), (GATEWAY_MAC, FLOAT1, 53), b"?"), VM1.1),
    ];
    for (vm, ask, address) in asks {
        let asked = reaches(&world.send(vm, &ask), 1);
        for error in ERRORS {
            let to = (GATEWAY_MAC, hop(&asked).src);
            let frame = reaches(&world.send(1, &error_about(&asked, error, VM1, to)), vm);
            assert_eq!((ip(&frame).src, ip(&frame).dst), (FLOAT1, address), "{vm} {error:?}");
            as_sent(&ask, &told(&frame).2);
        }
    }
}

#[test]
fn an_error_about_what_nobody_sent_is_the_hosts_or_nobodys_and_opens_nothing() {
    let mut world = World::routed("errors_unknown", false);
    for to in [LEFT, FLOAT1] {
        let never = udp((ROUTER.mac, to, 1), (MacAddr::ZERO, GOOGLE, 2), b"");
        for error in ERRORS {
            let error = error_about(&never, error, (ROUTER.mac, BETWEEN), (MacAddr::ZERO, to));
            assert!(world.send_from_outside(&error).is_empty());
        }
    }
    assert_eq!(world.left.flows.connections(), 0);
}

#[test]
fn options_and_a_cut_quote_do_not_hide_the_connection() {
    let mut world = World::routed("errors_cut", false);
    let sent = udp((VM2.0, VM2.1, 5000), (GATEWAY_MAC, GOOGLE, 53), b"what is there?");
    world.send(2, &sent);
    let seen = world.outside[0].clone();
    let error = error_about(&seen, ERRORS[9], (ROUTER.mac, BETWEEN), (MacAddr::ZERO, LEFT));
    // Eight bytes of what the packet carried, as RFC 792 asks for.
    let quote = embedded(&error[34..]).unwrap();
    assert_eq!(quote.src, LEFT);
    let mut cut = Vec::new();
    let builder = PacketBuilder::ethernet2(ROUTER.mac.0, [0; 6]).ipv4(BETWEEN, LEFT, 64);
    builder.icmpv4_raw(11, 0, [0; 4]).write(&mut cut, &error[42..70]).unwrap();
    let frame = reaches(&world.send_from_outside(&cut), 2);
    as_sent(&sent, &told(&frame).2);
    // A router on the way put an option into the header.
    let mut long = error[42..].to_vec();
    long[0] = 0x46;
    long.splice(20..20, [7, 3, 4, 0]);
    let mut with_options = Vec::new();
    let builder = PacketBuilder::ethernet2(ROUTER.mac.0, [0; 6]).ipv4(BETWEEN, LEFT, 64);
    builder.icmpv4_raw(11, 0, [0; 4]).write(&mut with_options, &long).unwrap();
    let frame = reaches(&world.send_from_outside(&with_options), 2);
    assert_eq!(told(&frame).2[12..16], VM2.1);
    assert_eq!(told(&frame).2[24..26], 5000u16.to_be_bytes());
}

#[test]
fn a_quoted_first_fragment_has_ports_and_a_later_one_belongs_to_nobody() {
    let mut world = World::routed("errors_fragment", false);
    world.send(2, &udp((VM2.0, VM2.1, 5000), (GATEWAY_MAC, GOOGLE, 53), b"what is there?"));
    let seen = world.outside[0].clone();
    for (flags, reached) in [([0x20, 0], true), ([0x20, 8], false), ([0, 8], false)] {
        let mut fragment = seen.clone();
        fragment[20..22].copy_from_slice(&flags);
        let (from, to) = ((ROUTER.mac, BETWEEN), (MacAddr::ZERO, LEFT));
        // Reassembly took too long there: the first fragment is what is told about.
        let error = error_about(&fragment, ERRORS[10], from, to);
        let vms = world.send_from_outside(&error);
        assert_eq!(!vms.is_empty(), reached, "{flags:?}");
        if reached {
            let quoted = told(&reaches(&vms, 2)).2;
            assert_eq!((&quoted[6..8], &quoted[12..16]), (&flags[..], &VM2.1[..]));
            assert_eq!(quoted[20..22], 5000u16.to_be_bytes());
        }
    }
}
