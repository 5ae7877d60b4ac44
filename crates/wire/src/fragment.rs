//! Cutting an IPv4 packet that is larger than the next link takes (RFC 791 §2.3 and §3.2).

use zerocopy::FromBytes;

use crate::checksum::{fold, sum};
use crate::layout::{DF, IPV4_LEN, Ipv4Header, MF, OFFSET, option_len};

/// How a packet is cut: into [`Cut::count`] fragments, each written by [`Cut::write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    l3: usize,
    header_len: usize,
    /// Length of the packet's payload, bytes.
    payload: usize,
    /// Length of every fragment's payload but the last's, bytes: a multiple of eight.
    piece: usize,
}

impl Cut {
    /// How the frame's packet is cut for a link with this MTU (bytes, without Ethernet header).
    ///
    /// Nothing where it fits, says "don't fragment", is not whole in the frame, ends past the
    /// largest packet there is, or where the MTU leaves no room for eight bytes.
    #[must_use]
    pub fn new(frame: &[u8], l3: usize, mtu: usize) -> Option<Self> {
        let packet = frame.get(l3..)?;
        let (ip, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
        let (header_len, total_len) = (ip.header_len(), usize::from(ip.total_len.get()));
        let flags = ip.flags_fragment.get();
        let payload = total_len.checked_sub(header_len)?;
        let last_byte = usize::from(flags & OFFSET) * 8 + payload;
        let piece = mtu.checked_sub(header_len)? & !7;
        let cut = header_len >= IPV4_LEN
            && total_len <= packet.len()
            && total_len > mtu
            && flags & DF == 0
            && last_byte <= usize::from(u16::MAX)
            && piece > 0;
        cut.then_some(Self { l3, header_len, payload, piece })
    }

    /// Number of fragments.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.payload.div_ceil(self.piece)
    }

    /// Writes fragment `index` (from 0) of the frame this was made for to the start of `out`, with
    /// its Ethernet header, and returns its length; nothing where there is no such fragment or
    /// `out` is too short. Bytes of `out` behind the fragment stay.
    ///
    /// Every fragment keeps the length of the header. In all but the first, options that are not
    /// to be copied become "no operation".
    #[must_use]
    pub fn write(&self, frame: &[u8], index: usize, out: &mut [u8]) -> Option<usize> {
        let start = index.checked_mul(self.piece)?;
        let length = self.payload.checked_sub(start).filter(|left| *left > 0)?.min(self.piece);
        let front = self.l3 + self.header_len;
        let out = out.get_mut(..front + length)?;
        let (header, payload) = out.split_at_mut(front);
        header.copy_from_slice(frame.get(..front)?);
        payload.copy_from_slice(frame.get(front + start..front + start + length)?);

        let header = header.get_mut(self.l3..)?;
        if index > 0 {
            drop_options(header);
        }
        let (ip, _) = Ipv4Header::mut_from_prefix(header).ok()?;
        ip.total_len.set((self.header_len + length) as u16);
        let more = if start + length < self.payload { MF } else { 0 };
        // The last one of a fragment is as little the end as that was.
        ip.flags_fragment.set((ip.flags_fragment.get() | more) + (start / 8) as u16);
        ip.checksum.set(0);
        let checksum = !fold(sum(header));
        let (ip, _) = Ipv4Header::mut_from_prefix(header).ok()?;
        ip.checksum.set(checksum);
        Some(front + length)
    }
}

/// Blanks the options that only the first fragment carries: those without the copied flag (RFC 791
/// §3.1). The header keeps its length, so that all pieces are the same size.
fn drop_options(header: &mut [u8]) {
    const COPIED: u8 = 0x80;
    const NO_OPERATION: u8 = 1;
    let mut at = IPV4_LEN;
    while let Some(length) = option_len(header, at, header.len()) {
        if header[at] & COPIED == 0 {
            header[at..at + length].fill(NO_OPERATION);
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{L3, ipv4, is_whole, udp};

    fn fragments(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let cut = Cut::new(frame, L3, mtu).unwrap();
        assert_eq!(cut.write(frame, cut.count(), &mut [0; 9000]), None);
        (0..cut.count())
            .map(|index| {
                let mut out = [0xaa; 9000];
                let length = cut.write(frame, index, &mut out).unwrap();
                assert_eq!(cut.write(frame, index, &mut out[..length - 1]), None);
                out[..length].to_vec()
            })
            .collect()
    }

    /// A datagram that may be cut, with these IPv4 options (a multiple of four bytes).
    fn datagram(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut frame = udp(5000, 53, payload);
        let total_len = (frame.len() - L3 + options.len()) as u16;
        frame.splice(34..34, options.iter().copied());
        frame[14] = 0x45 + (options.len() / 4) as u8;
        frame[16..18].copy_from_slice(&total_len.to_be_bytes());
        frame[18..20].copy_from_slice(&[0x12, 0x34]);
        frame[20] = 0;
        frame
    }

    fn set_fragment(frame: &mut [u8], more: bool, offset: u16) {
        let word = (offset / 8) | if more { MF } else { 0 };
        frame[20..22].copy_from_slice(&word.to_be_bytes());
    }

    fn says_more(frame: &[u8]) -> bool {
        frame[20] & 0x20 != 0
    }

    #[test]
    fn a_datagram_is_cut_as_ping_s_are_on_a_link_of_576() {
        let frame = datagram(&[], &[7; 1000]);
        let fragments = fragments(&frame, 576);
        let shape: Vec<_> = fragments
            .iter()
            .map(|one| (ipv4(one).total_len, ipv4(one).fragment_offset, says_more(one)))
            .collect();
        // 556 bytes are room for 552.
        assert_eq!(shape, [(572, 0, true), (20 + 456, 552, false)]);
        assert_eq!(fragments[1][..14], frame[..14]);
        assert_eq!(fragments[1][18..20], [0x12, 0x34]);
    }

    #[test]
    fn a_payload_of_whole_pieces_leaves_no_empty_fragment() {
        let fragments = fragments(&datagram(&[], &[7; 2 * 552 - 8]), 576);
        assert_eq!(fragments.len(), 2);
        assert!(!says_more(&fragments[1]));
    }

    #[test]
    fn options_without_the_copied_flag_stay_in_the_first_fragment() {
        // Record route (7) is not copied, router alert (148) is; then the end of the list.
        let options = [7, 3, 4, 148, 4, 0, 0, 1, 68, 2, 0, 0];
        let fragments = fragments(&datagram(&options, &[7; 100]), 68);
        assert_eq!(fragments[0][34..46], options);
        for later in &fragments[1..] {
            assert_eq!(later[34..46], [1, 1, 1, 148, 4, 0, 0, 1, 1, 1, 0, 0]);
        }
    }

    #[test]
    fn broken_options_are_left_as_they_are() {
        for options in [[7, 1, 4, 0], [7, 5, 4, 0], [1, 1, 1, 7]] {
            let fragments = fragments(&datagram(&options, &[7; 100]), 68);
            assert_eq!(fragments[1][34..38], options);
        }
    }

    #[test]
    fn the_last_piece_of_a_fragment_says_more_if_that_did() {
        let mut frame = datagram(&[], &[7; 992]);
        set_fragment(&mut frame, true, 2000);
        let fragments = fragments(&frame, 576);
        assert!(fragments.iter().all(|one| says_more(one)));
        assert_eq!(ipv4(&fragments[1]).fragment_offset, 2552);
    }

    #[test]
    fn what_fits_or_must_not_or_cannot_be_cut_is_not() {
        let frame = datagram(&[], &[7; 100]);
        assert_eq!(Cut::new(&frame, L3, 128), None);
        assert!(Cut::new(&frame, L3, 127).is_some());
        assert!(Cut::new(&frame, L3, 28).is_some());
        for mtu in [27, 19, 0] {
            assert_eq!(Cut::new(&frame, L3, mtu), None);
        }
        let mut kept = frame.clone();
        kept[20] = 0x40;
        let mut past_the_end = frame.clone();
        set_fragment(&mut past_the_end, false, 65528);
        let mut short_header = frame.clone();
        short_header[14] = 0x44;
        for frame in [&kept[..], &past_the_end, &short_header, &frame[..141], &frame[..30]] {
            assert_eq!(Cut::new(frame, L3, 68), None);
        }
        assert_eq!(Cut::new(&frame, usize::MAX, 68), None);
    }

    #[test]
    fn another_frame_or_a_wild_index_is_an_answer_not_a_panic() {
        let frame = datagram(&[], &[7; 100]);
        let cut = Cut::new(&frame, L3, 68).unwrap();
        let mut out = [0; 100];
        assert_eq!(cut.write(&frame[..100], 2, &mut out), None);
        assert_eq!(cut.write(&frame, usize::MAX, &mut out), None);
        assert_eq!(cut.write(&[], 0, &mut out), None);
    }

    proptest! {
        #[test]
        fn fragments_fit_are_whole_and_put_together_are_the_packet(
            options in prop_oneof![Just(vec![]), Just(vec![7, 4, 1, 1]), Just(vec![148, 4, 0, 0])],
            payload in proptest::collection::vec(any::<u8>(), 100..4000),
            mtu in 68usize..1501, offset in 0u16..4000, more in any::<bool>(),
        ) {
            let mut frame = datagram(&options, &payload);
            let mtu = mtu.min(frame.len() - L3 - 1);
            set_fragment(&mut frame, more, offset * 8);
            let front = 34 + options.len();
            let fragments = fragments(&frame, mtu);
            let mut together: Vec<u8> = Vec::new();
            for (index, one) in fragments.iter().enumerate() {
                let last = index + 1 == fragments.len();
                prop_assert!(one.len() - L3 <= mtu);
                prop_assert!(is_whole(one, L3));
                prop_assert_eq!(usize::from(ipv4(one).total_len), one.len() - L3);
                let at = usize::from(ipv4(one).fragment_offset);
                prop_assert_eq!(at, usize::from(offset) * 8 + together.len());
                prop_assert_eq!(says_more(one), !last || more);
                together.extend(&one[front..]);
            }
            prop_assert_eq!(&together, &frame[front..]);
        }
    }
}
