//! Putting an 802.1Q or 802.1ad tag into a frame and taking it out.
//!
//! A tag sits between the addresses and the EtherType, so both move the twelve bytes of the
//! addresses and leave the rest of the packet alone. Frames carry room before their first byte.

use crate::{TAG_LEN, ethertype};

/// Twelve bits of a tag that name the VLAN.
pub const VID_MASK: u16 = 0x0fff;
/// Bytes before a tag: the two addresses.
const ADDRESSES: usize = 12;

/// Takes the outermost tag off the frame that starts at `head`, returns where it starts now.
///
/// The caller has seen a tag there: `buffer[head..]` holds at least 16 bytes.
#[must_use]
pub fn pop(buffer: &mut [u8], head: usize) -> usize {
    buffer.copy_within(head..head + ADDRESSES, head + TAG_LEN);
    head + TAG_LEN
}

/// Puts a tag (`kind` is its EtherType, `tci` priority and number) on the frame that starts at
/// `head`; returns where it starts now, or nothing where there is no room before it.
#[must_use]
pub fn push(buffer: &mut [u8], head: usize, kind: u16, tci: u16) -> Option<usize> {
    let start = head.checked_sub(TAG_LEN)?;
    buffer.copy_within(head..head + ADDRESSES, start);
    let tag = buffer.get_mut(start + ADDRESSES..start + ADDRESSES + TAG_LEN)?;
    let [k0, k1] = kind.to_be_bytes();
    let [t0, t1] = tci.to_be_bytes();
    tag.copy_from_slice(&[k0, k1, t0, t1]);
    Some(start)
}

/// The outermost tag of a frame as (EtherType, TCI), if it begins with one.
#[must_use]
pub fn outer(frame: &[u8]) -> Option<(u16, u16)> {
    let tag: &[u8; TAG_LEN] = frame.get(ADDRESSES..ADDRESSES + TAG_LEN)?.try_into().ok()?;
    let kind = u16::from_be_bytes([tag[0], tag[1]]);
    let is_tag = kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN;
    is_tag.then(|| (kind, u16::from_be_bytes([tag[2], tag[3]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_put_on_and_taken_off_leaves_the_frame_as_it_was() {
        let mut buffer = [0u8; 64];
        for (at, byte) in buffer.iter_mut().enumerate().skip(8) {
            *byte = at as u8;
        }
        let before = buffer;
        let head = push(&mut buffer, 8, ethertype::VLAN, 0x2064).unwrap();
        assert_eq!(head, 4);
        assert_eq!(&buffer[4..16], &before[8..20]);
        assert_eq!(outer(&buffer[4..]), Some((ethertype::VLAN, 0x2064)));
        let head = pop(&mut buffer, head);
        assert_eq!(buffer[head..], before[8..]);
    }

    #[test]
    fn no_room_before_the_frame_is_an_answer_not_a_panic() {
        assert_eq!(push(&mut [0; 64], 3, ethertype::VLAN, 1), None);
    }

    #[test]
    fn an_untagged_frame_has_no_outer_tag() {
        assert_eq!(outer(&[0; 60]), None);
        assert_eq!(outer(&[0x81; 13]), None);
    }
}
