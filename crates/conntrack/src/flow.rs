//! A flow as read from its line, and what is to be done to its packets.

use crate::key::FlowKey;
use crate::layout::{
    self, BITS_SHIFT, DPORT_SHIFT, DST_SHIFT, EGRESS_SHIFT, FLAGS_SHIFT, L2, MAC_MASK, NUMBER_MASK,
    PATH_KNOWN, REPLY, SEGMENT_SHIFT, STAMP_SHIFT, VLAN_SHIFT, WORDS,
};

/// What to do to each packet of a flow: words 3, 4 and 5 of its line as plain data.
///
/// Zero leaves a field of the packet as it is. `flags` are those of [`crate::layout`]:
/// `PATH_KNOWN`, `REWRITES`, `NEXT_HOP` are the caller's; `L2` and `REPLY` are set by the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rewrite {
    /// New source address (IPv4 lines).
    pub source: [u8; 4],
    /// New destination address (IPv4 lines).
    pub destination: [u8; 4],
    /// The flow's whole source MAC (IPv6 and L2 lines, in the place of the addresses).
    pub source_mac: [u8; 6],
    /// New source port, or echo id of a request.
    pub source_port: u16,
    /// New destination port, or echo id of a reply.
    pub destination_port: u16,
    /// The port to leave by.
    pub egress: u16,
    /// The segment to leave into, 0 for none (public).
    pub segment: u16,
    /// The VLAN tag to leave with, 0 for none.
    pub vlan: u16,
    /// The destination MAC to leave with (routed), or the frame's own (bridged).
    pub destination_mac: [u8; 6],
    /// See [`crate::layout`].
    pub flags: u8,
}

impl Rewrite {
    /// The path of frames that are bridged as they are. For an IPv6 or L2 line give the source MAC.
    pub const fn bridged(
        source_mac: [u8; 6],
        destination_mac: [u8; 6],
        egress: u16,
        segment: u16,
        vlan: u16,
    ) -> Rewrite {
        Rewrite {
            source: [0; 4],
            destination: [0; 4],
            source_mac,
            source_port: 0,
            destination_port: 0,
            egress,
            segment,
            vlan,
            destination_mac,
            flags: PATH_KNOWN,
        }
    }

    /// Words 3, 4 and 5.
    #[inline]
    pub(crate) fn words(&self, is_bridged: bool) -> [u64; 3] {
        let number = |n: u16| {
            debug_assert!(u64::from(n) <= NUMBER_MASK, "ports, segments and VLANs have 12 bits");
            u64::from(n) & NUMBER_MASK
        };
        let raw = |address: [u8; 4]| u64::from(u32::from_ne_bytes(address));
        let l2 = if is_bridged { L2 } else { 0 };
        [
            if is_bridged {
                layout::mac(self.source_mac)
            } else {
                raw(self.source) | raw(self.destination) << DST_SHIFT
            },
            u64::from(self.source_port.to_be())
                | u64::from(self.destination_port.to_be()) << DPORT_SHIFT
                | number(self.egress) << EGRESS_SHIFT
                | number(self.segment) << SEGMENT_SHIFT
                | u64::from(self.flags & !L2 | l2) << FLAGS_SHIFT,
            layout::mac(self.destination_mac) | number(self.vlan) << VLAN_SHIFT,
        ]
    }
}

/// A consistent copy of one live line: a flow, one direction of a connection.
///
/// It also names the line it was read from, as it was at that moment; whatever is asked of the
/// table with it ([`crate::Table::touch`], [`crate::Table::remove`], …) does nothing if the line
/// is no longer this flow's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub(crate) index: u32,
    pub(crate) words: [u64; WORDS],
}

impl Flow {
    /// Index of the line.
    #[inline]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// What the flow's packets are found by.
    #[inline]
    pub const fn key(&self) -> FlowKey {
        FlowKey { word1: self.words[1], word2: self.words[2] }
    }

    /// Flags, see [`crate::layout`].
    #[inline]
    pub const fn flags(&self) -> u8 {
        (self.words[4] >> FLAGS_SHIFT) as u8
    }

    /// Whether the line may be replayed: its path is known.
    #[inline]
    pub const fn path_known(&self) -> bool {
        self.flags() & PATH_KNOWN != 0
    }

    /// Whether this is the direction of the replies.
    #[inline]
    pub const fn is_reply(&self) -> bool {
        self.flags() & REPLY != 0
    }

    /// The port to leave by.
    #[inline]
    pub const fn egress(&self) -> u16 {
        (self.words[4] >> EGRESS_SHIFT & NUMBER_MASK) as u16
    }

    /// The segment to leave into, 0 for none.
    #[inline]
    pub const fn segment(&self) -> u16 {
        (self.words[4] >> SEGMENT_SHIFT & NUMBER_MASK) as u16
    }

    /// The VLAN tag to leave with, 0 for none.
    #[inline]
    pub const fn vlan(&self) -> u16 {
        (self.words[5] >> VLAN_SHIFT & NUMBER_MASK) as u16
    }

    /// The destination MAC to leave with.
    #[inline]
    pub const fn destination_mac(&self) -> [u8; 6] {
        layout::mac_bytes(self.words[5])
    }

    /// The flow's source MAC, if this is an IPv6 or L2 line.
    #[inline]
    pub const fn source_mac(&self) -> Option<[u8; 6]> {
        if self.flags() & L2 != 0 {
            Some(layout::mac_bytes(self.words[3] & MAC_MASK))
        } else {
            None
        }
    }

    /// Everything that is to be done to a packet of this flow.
    #[inline]
    pub fn rewrite(&self) -> Rewrite {
        let [_, _, _, word3, word4, _, _, _] = self.words;
        let (addresses, source_mac) = match self.source_mac() {
            Some(mac) => (0, mac),
            None => (word3, [0; 6]),
        };
        Rewrite {
            source: (addresses as u32).to_ne_bytes(),
            destination: ((addresses >> DST_SHIFT) as u32).to_ne_bytes(),
            source_mac,
            source_port: u16::from_be(word4 as u16),
            destination_port: u16::from_be((word4 >> DPORT_SHIFT) as u16),
            egress: self.egress(),
            segment: self.segment(),
            vlan: self.vlan(),
            destination_mac: self.destination_mac(),
            flags: self.flags(),
        }
    }

    /// Index of the other direction's line.
    #[inline]
    pub const fn partner(&self) -> u32 {
        self.words[6] as u32
    }

    /// The stamp this was decided under; older than its port's, it is a miss.
    #[inline]
    pub const fn stamp(&self) -> u32 {
        (self.words[6] >> STAMP_SHIFT) as u32
    }

    /// When this direction last had a packet, in the table's seconds.
    #[inline]
    pub const fn last_seen(&self) -> u32 {
        self.words[7] as u32
    }

    /// State bits of this direction, see [`crate::layout`].
    #[inline]
    pub const fn bits(&self) -> u16 {
        (self.words[7] >> BITS_SHIFT) as u16
    }

    /// Which install of the line this is.
    #[inline]
    pub(crate) const fn install_count(&self) -> u64 {
        layout::install_count(self.words[7])
    }

    /// Whether `other` was read from the same line for the same owner. A new path changes word 0
    /// but not the owner; 16 bits of the count tell two installs of one key apart, unless the
    /// line was recycled 32,768 times while a flow was in somebody's hands.
    pub(crate) fn is_same_install(&self, other: &Flow) -> bool {
        self.index == other.index
            && self.key() == other.key()
            && self.install_count() == other.install_count()
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow")
            .field("index", &self.index)
            .field("key", &self.key())
            .field("rewrite", &self.rewrite())
            .field("partner", &self.partner())
            .field("stamp", &self.stamp())
            .field("last_seen", &self.last_seen())
            .field("bits", &self.bits())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{NEXT_HOP, REWRITES};

    fn flow(rewrite: &Rewrite, is_l2: bool) -> Flow {
        let [word3, word4, word5] = rewrite.words(is_l2);
        Flow { index: 0, words: [0, 0, 0, word3, word4, word5, 0, 0] }
    }

    #[test]
    fn a_rewrite_survives_the_line() {
        let rewrite = Rewrite {
            source: [91, 207, 15, 105],
            destination: [10, 0, 0, 3],
            source_mac: [0; 6],
            source_port: 20000,
            destination_port: 443,
            egress: 4094,
            segment: 4093,
            vlan: 4092,
            destination_mac: [2, 4, 6, 8, 10, 12],
            flags: PATH_KNOWN | REWRITES | NEXT_HOP,
        };
        assert_eq!(flow(&rewrite, false).rewrite(), rewrite);
    }

    #[test]
    fn an_l2_line_keeps_its_source_mac_where_others_keep_addresses() {
        let mac = [0xfa, 0x16, 0x3e, 0, 0, 1];
        let rewrite = Rewrite::bridged(mac, [2, 0, 0, 0, 0, 9], 3, 100, 100);
        let flow = flow(&rewrite, true);
        assert_eq!(flow.source_mac(), Some(mac));
        assert_eq!(flow.rewrite(), Rewrite { flags: PATH_KNOWN | L2, ..rewrite });
    }
}
