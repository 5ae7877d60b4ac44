//! The Internet checksum (RFC 1071): whole, after a change of few words (RFC 1624), and as a check
//! of what a guest left unfinished.

use crate::{Headers, Network, protocol};

/// One's complement sum of `bytes` as big-endian words, unfolded; an odd last byte is the high
/// half of a word. Up to 64 KiB cannot overflow it.
#[must_use]
pub fn sum(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let total: u32 =
        words.by_ref().map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    total + words.remainder().first().map_or(0, |last| u32::from(*last) << 8)
}

/// Folds a sum to sixteen bits.
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// What new values of some words do to a checksum over them (RFC 1624, equation 3).
///
/// Words count from the start of what is summed: a word at an odd offset goes in with its bytes
/// swapped. A few thousand words cannot overflow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u32);

impl Change {
    /// This change and one more word.
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u32 + new as u32)
    }

    /// This change and one more IPv4 address.
    #[must_use]
    pub const fn address(self, old: [u8; 4], new: [u8; 4]) -> Self {
        self.word(u16::from_be_bytes([old[0], old[1]]), u16::from_be_bytes([new[0], new[1]]))
            .word(u16::from_be_bytes([old[2], old[3]]), u16::from_be_bytes([new[2], new[3]]))
    }

    /// The checksum after the change.
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(!checksum as u32 + self.0)
    }

    /// The checksum after the change, as 0xffff instead of 0.
    ///
    /// Both are zero in one's complement, and 0xffff is right wherever 0 is. UDP needs it since 0
    /// says "none" there (RFC 768), and so does a message that may be all zeros otherwise, as an
    /// echo reply may: over zeros alone only 0xffff is right.
    #[must_use]
    pub const fn apply_nonzero(self, checksum: u16) -> u16 {
        match self.apply(checksum) {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// Where a guest's network stack left the transport checksum of this packet.
///
/// A stack with transmit offload writes only the pseudo header's sum and leaves the rest to the
/// device; a frame that reaches an XDP program this way has nobody left to finish it
/// (include/linux/skbuff.h, `CHECKSUM_PARTIAL`).
#[must_use]
pub fn is_partial(frame: &[u8], headers: &Headers) -> bool {
    let Some((pseudo, segment, proto)) = transport(frame, headers) else { return false };
    let at = match proto {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return false,
    };
    let Some(field) = segment.get(at..at + 2) else { return false };
    let stored = u16::from_be_bytes([field[0], field[1]]);
    stored == fold(pseudo) && fold(pseudo + sum(segment)) != 0xffff
}

/// The pseudo header's sum, the bytes it protects and their protocol; nothing for a fragment.
fn transport<'a>(frame: &'a [u8], headers: &Headers) -> Option<(u32, &'a [u8], u8)> {
    let l3 = frame.get(usize::from(headers.l3)..)?;
    let (addresses, segment, proto) = match headers.network {
        Network::Ipv4(ip) if !ip.fragment => (
            l3.get(12..20)?,
            l3.get(usize::from(ip.header_len)..usize::from(ip.total_len))?,
            ip.protocol,
        ),
        Network::Ipv6(_) => {
            let payload = usize::from(u16::from_be_bytes([*l3.get(4)?, *l3.get(5)?]));
            (l3.get(8..40)?, l3.get(40..40 + payload)?, *l3.get(6)?)
        }
        _ => return None,
    };
    let length = u32::try_from(segment.len()).ok()?;
    Some((sum(addresses) + u32::from(proto) + length, segment, proto))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    /// A UDP datagram 10.0.0.3:5000 → 10.0.0.4:53 with five bytes of payload.
    fn datagram(checksum: u16) -> Vec<u8> {
        let mut frame = vec![0xfa, 0x16, 0x3e, 0, 0, 2, 0xfa, 0x16, 0x3e, 0, 0, 1, 0x08, 0];
        frame.extend([0x45, 0, 0, 33, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 3, 10, 0, 0, 4]);
        frame.extend([0x13, 0x88, 0, 53, 0, 13]);
        frame.extend(checksum.to_be_bytes());
        frame.extend(b"hello");
        frame
    }

    const PSEUDO: u16 = 0x0a00 + 3 + 0x0a00 + 4 + 17 + 13;

    #[test]
    fn odd_lengths_and_carries_are_summed_as_rfc_1071_says() {
        // The example of RFC 1071 §3.
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(sum(&[1, 2, 3]), 0x0102 + 0x0300);
        assert_eq!(fold(0xffff_ffff), 0xffff);
    }

    #[test]
    fn a_change_of_words_is_the_example_of_rfc_1624() {
        // §4: equation 1 would say 0xffff here.
        assert_eq!(Change::default().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
        assert_eq!(Change::default().word(0x5555, 0x3285).apply_nonzero(0xdd2f), 0xffff);
        assert_eq!(Change::default().apply(0x1234), 0x1234);
        let address = Change::default().address([10, 0, 0, 3], [91, 207, 15, 105]);
        assert_eq!(address, Change::default().word(0x0a00, 0x5bcf).word(3, 0x0f69));
    }

    #[test]
    fn a_bare_pseudo_header_sum_is_partial() {
        let frame = datagram(PSEUDO);
        assert!(is_partial(&frame, &parse(&frame).unwrap()));
    }

    #[test]
    fn a_finished_or_wrong_checksum_is_not_partial() {
        let unfinished = datagram(0);
        let whole = !fold(u32::from(PSEUDO) + sum(&unfinished[34..]));
        for checksum in [whole, 0, 0x1234] {
            let frame = datagram(checksum);
            assert!(!is_partial(&frame, &parse(&frame).unwrap()), "{checksum:#x}");
        }
    }
}
