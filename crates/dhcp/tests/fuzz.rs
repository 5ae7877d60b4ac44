//! Whatever a guest sends: no panic, and no answer that is not one.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod bytes;

use bytes::{Message, VIF_MAC, vif};
use dhcp::{Outcome, answer, frame, payload};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use wire::MacAddr;

/// An answer that any client can read, of a length that leaves by any port.
fn is_sound(outcome: &Outcome) -> bool {
    let Outcome::Reply(reply) = outcome else { return true };
    let bytes = frame(reply, &vif(), MacAddr([2, 0, 0, 0, 0, 9]));
    let at_vm = [VIF_MAC, MacAddr::BROADCAST].contains(&reply.mac);
    let length = reply.payload.len();
    let ends = bytes::options(&reply.payload).len() >= 3;
    at_vm && ends && (300..=1472).contains(&length) && wire::parse(&bytes).is_ok()
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..1600)) {
        prop_assert!(is_sound(&answer(&bytes, &vif())));
        let _ = payload(&bytes);
    }

    #[test]
    fn any_options_behind_a_good_header_are_survived(
        kind in 0..12u8,
        ciaddr in any::<[u8; 4]>(),
        options in vec(any::<u8>(), 0..600),
        cut in 0..900usize,
    ) {
        let mut message = Message::of(kind).with(&options);
        message.ciaddr = ciaddr;
        let bytes = message.bytes();
        let bytes = &bytes[..bytes.len().min(240 + cut)];
        prop_assert!(is_sound(&answer(bytes, &vif())));
    }

    #[test]
    fn a_flipped_byte_is_survived(kind in 1..9u8, at in 0..300usize, flip in 1..=255u8) {
        let mut bytes = Message::of(kind).with(&[50, 4, 10, 0, 0, 3]).bytes();
        bytes[at] ^= flip;
        let outcome = answer(&bytes, &vif());
        prop_assert!(is_sound(&outcome));
        // Nothing but its own MAC gets a VM's address.
        if (28..34).contains(&at) {
            prop_assert_eq!(outcome, Outcome::Silent(dhcp::Silence::Unknown));
        }
    }
}
