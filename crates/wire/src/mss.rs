//! The segment size that a TCP connection's ends announce to each other (RFC 9293 §3.7.1).

use crate::checksum::Change;
use crate::layout::option_len;
use crate::protocol;
use crate::rewrite::header;

/// Lowers the maximum segment size that a TCP SYN or SYN-ACK announces to `max` bytes (the path's
/// MTU less 40); leaves smaller ones and other packets alone.
pub fn clamp_mss(frame: &mut [u8], l3: usize, max: u16) {
    const SYN: u8 = 2;
    let Some(ip) = header(frame, l3) else { return };
    if ip.protocol != protocol::TCP || ip.is_later_fragment() {
        return;
    }
    let (from, to) = (l3 + ip.header_len(), l3 + usize::from(ip.total_len.get()));
    let to = to.min(frame.len());
    let Some(segment) = frame.get_mut(from..to) else { return };
    if segment.len() < 20 || segment[13] & SYN == 0 {
        return;
    }
    let end = usize::from(segment[12] >> 4) * 4;
    let mut at = 20;
    while let Some(length) = option_len(segment, at, end) {
        if segment[at] == 2 && length == 4 {
            lower_mss(segment, at + 2, max);
        }
        at += length;
    }
}

/// Lowers the number at `at` of a TCP segment and mends the checksum.
fn lower_mss(segment: &mut [u8], at: usize, max: u16) {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= max {
        return;
    }
    segment[at..at + 2].copy_from_slice(&max.to_be_bytes());
    let change = if at.is_multiple_of(2) {
        Change::default().word(old, max)
    } else {
        Change::default().word(old.swap_bytes(), max.swap_bytes())
    };
    let checksum = change.apply(u16::from_be_bytes([segment[16], segment[17]]));
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{L3, is_whole, tcp, udp};

    #[test]
    fn a_syn_announces_no_larger_segments_than_the_path_takes() {
        for options in
            [&[2, 4, 5, 180][..], &[1, 2, 4, 5, 180, 1, 3, 3, 7], &[4, 2, 1, 2, 4, 5, 180]]
        {
            let mut frame = tcp(40000, 22, 18, options, b"");
            clamp_mss(&mut frame, L3, 1410);
            let at = frame.windows(2).position(|kind| kind == [2, 4]).unwrap();
            assert_eq!(frame[at + 2..at + 4], 1410u16.to_be_bytes(), "{options:?}");
            assert!(is_whole(&frame, L3));
            let clamped = frame.clone();
            clamp_mss(&mut frame, L3, 1460);
            assert_eq!(frame, clamped);
        }
    }

    #[test]
    fn what_has_no_mss_to_lower_is_left_alone() {
        let broken =
            [&[1, 2, 4, 5][..], &[2, 3, 5, 180], &[8, 0, 2, 4, 5, 180], &[0, 2, 4, 5, 180]];
        let mut frames: Vec<_> =
            broken.iter().map(|options| tcp(40000, 22, 2, options, b"")).collect();
        frames.push(tcp(40000, 22, 16, &[2, 4, 5, 180], b""));
        frames.push(tcp(40000, 22, 2, &[1, 1], &[2, 4, 5, 180]));
        frames.push(udp(5000, 53, &[0xff; 40]));
        for before in frames {
            let mut frame = before.clone();
            clamp_mss(&mut frame, L3, 536);
            assert_eq!(frame, before);
        }
    }

    proptest! {
        #[test]
        fn a_clamped_segment_has_a_whole_checksum(
            pad in 0usize..8, mss in any::<u16>(), max in any::<u16>(), payload in any::<[u8; 3]>(),
        ) {
            let options = [&vec![1; pad][..], &[2, 4], &mss.to_be_bytes()].concat();
            let mut frame = tcp(40000, 22, 2, &options, &payload);
            clamp_mss(&mut frame, L3, max);
            prop_assert!(is_whole(&frame, L3));
            prop_assert_eq!(&frame[56 + pad..58 + pad], &mss.min(max).to_be_bytes());
        }

        #[test]
        fn no_options_make_it_panic(options in proptest::collection::vec(0u8..8, 0..40), cut in 0usize..98) {
            let mut frame = tcp(40000, 22, 2, &options, b"");
            let end = cut.min(frame.len());
            clamp_mss(&mut frame[..end], L3, 5);
        }
    }
}
