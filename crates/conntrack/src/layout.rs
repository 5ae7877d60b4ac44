//! Bits of a line, the same numbers as in `bpf/line.h`.
//!
//! Addresses, ports and ethertypes are *raw*: the bytes as they lie in the packet, loaded by a
//! native-endian load, so that neither side swaps bytes to look something up. A test compares
//! every `#define` of the header with the constant of the same name here.

/// Words of 64 bits in a line.
pub const WORDS: usize = 8;
/// Bytes of a line: one cache line.
pub const BYTES: usize = 64;
/// Lines of a home. A key has two homes.
pub const HOME: usize = 4;

// Word 0: count << 2 | state. The count grows with every claim, removal and change and is never
// reset, so that a reader that finds word 0 unchanged read one state of the line and no other.
/// Nobody's line.
pub const FREE: u64 = 0;
/// An installer's, not yet readable.
pub const CLAIMED: u64 = 1;
/// Readable.
pub const LIVE: u64 = 2;
/// A live line whose words 3 to 6 are being changed: not readable, but its key stays taken.
pub const HELD: u64 = 3;
/// The state's bits of word 0.
pub const STATE_MASK: u64 = 3;
/// Where the count begins in word 0.
pub const COUNT_SHIFT: u32 = 2;

// Word 1: source, destination address; of an L2 line destination MAC, ethertype.
/// Destination address in word 1, new destination address in word 3.
pub const DST_SHIFT: u32 = 32;
/// Ethertype in word 1 of an L2 line.
pub const ETHERTYPE_SHIFT: u32 = 48;
/// A MAC address, first byte lowest.
pub const MAC_MASK: u64 = 0xffff_ffff_ffff;

// Word 2: source port, destination port (L2: the last four bytes of the source MAC), protocol,
// ingress port, zone (L2: segment).
/// Destination port in word 2, new destination port in word 4.
pub const DPORT_SHIFT: u32 = 16;
/// IP protocol in word 2.
pub const PROTOCOL_SHIFT: u32 = 32;
/// Ingress port in word 2.
pub const INGRESS_SHIFT: u32 = 40;
/// Zone (of an L2 line: segment) in word 2.
pub const ZONE_SHIFT: u32 = 52;
/// Numbers of ports, segments, zones and VLANs have 12 bits.
pub const NUMBER_MASK: u64 = 0xfff;
/// The protocol that marks an L2 line; IANA keeps it reserved.
pub const PROTOCOL_L2: u8 = 255;

// Word 4: new source port, new destination port, egress port, egress segment, flags.
/// Egress port in word 4.
pub const EGRESS_SHIFT: u32 = 32;
/// Egress segment in word 4.
pub const SEGMENT_SHIFT: u32 = 44;
/// Flags in word 4.
pub const FLAGS_SHIFT: u32 = 56;
/// Flag: the path is known. A line without it is a miss for replay.
pub const PATH_KNOWN: u8 = 1;
/// Flag: this is the reply's direction.
pub const REPLY: u8 = 2;
/// Flag: addresses or ports change.
pub const REWRITES: u8 = 4;
/// Flag: word 5 holds the number of a next hop, not a MAC address.
pub const NEXT_HOP: u8 = 8;
/// Flag: an L2 line; word 3 holds the source MAC.
pub const L2: u8 = 16;

/// VLAN to leave with in word 5, above the new destination MAC; 0 leaves untagged.
pub const VLAN_SHIFT: u32 = 48;

/// Stamp in word 6, above the index of the other direction.
pub const STAMP_SHIFT: u32 = 32;

// Word 7: last seen in seconds, low bits of the count the key was installed under, state bits.
/// The count's low bits in word 7.
pub const INSTALL_SHIFT: u32 = 32;
/// That many bits of the count are in word 7.
pub const INSTALL_MASK: u64 = 0xffff;
/// State bits in word 7.
pub const BITS_SHIFT: u32 = 48;
/// State bit: this direction had a packet.
pub const SEEN: u16 = 1;
/// State bit: this direction had a FIN.
pub const FIN: u16 = 2;
/// State bit: this direction had an RST.
pub const RST: u16 = 4;
/// State bit, set by the sweep: the connection outlived its RST, which was a blind one.
pub const OUTLIVED: u16 = 8;
/// When the sweep noticed the RST: 12 bits of its seconds, above the other state bits.
pub const RST_TIME_SHIFT: u32 = 4;

/// First multiplier of the hash: 2^64 / golden ratio.
pub const HASH_1: u64 = 0x9e37_79b9_7f4a_7c15;
/// Second multiplier of the hash: MurmurHash3's finaliser.
pub const HASH_2: u64 = 0xff51_afd7_ed55_8ccd;
/// How far the high half is folded down, after each multiply.
pub const HASH_FOLD: u32 = 32;

/// Hash of the key words 1 and 2 under the table's own key; `line_hash` in C.
///
/// The first fold brings ingress port and zone, the top of word 2, below the second multiply; a
/// multiply carries only upwards, and without that fold the low bits of the hash, which choose
/// the home, would not depend on them. The second brings the best bits of the product down.
#[inline]
pub const fn hash(word1: u64, word2: u64, key: u64) -> u64 {
    let mut hash = (word1 ^ key).wrapping_mul(HASH_1) ^ word2;
    hash ^= hash >> HASH_FOLD;
    hash = hash.wrapping_mul(HASH_2);
    hash ^ (hash >> HASH_FOLD)
}

/// The first lines of a key's two homes; `lines` is a power of two. `line_home` in C.
#[inline]
pub const fn homes(hash: u64, lines: u32) -> [u32; 2] {
    let mask = lines - HOME as u32;
    // A home's index is a multiple of its size, so the low bits fall off with the mask.
    [(hash as u32) & mask, ((hash >> 32) as u32) & mask]
}

/// A MAC address as a number, first byte lowest.
#[inline]
pub(crate) const fn mac(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The MAC address in the low 48 bits of a word.
#[inline]
pub(crate) const fn mac_bytes(word: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = word.to_le_bytes();
    [a, b, c, d, e, f]
}

/// The state in a word 0.
#[inline]
pub(crate) const fn state(word0: u64) -> u64 {
    word0 & STATE_MASK
}

/// The count in a word 0.
#[inline]
pub(crate) const fn count(word0: u64) -> u64 {
    word0 >> COUNT_SHIFT
}

/// A word 0.
#[inline]
pub(crate) const fn word0(count: u64, state: u64) -> u64 {
    count << COUNT_SHIFT | state
}

/// A word 7. `count` is that of the install; only its low bits are kept.
#[inline]
pub(crate) const fn word7(last_seen: u32, count: u64, bits: u16) -> u64 {
    last_seen as u64 | (count & INSTALL_MASK) << INSTALL_SHIFT | (bits as u64) << BITS_SHIFT
}

/// The install's count in a word 7.
#[inline]
pub(crate) const fn install_count(word7: u64) -> u64 {
    word7 >> INSTALL_SHIFT & INSTALL_MASK
}

// Addresses are native loads and MACs put the first byte lowest: one rule only where the first
// byte *is* the lowest.
const _: () = assert!(cfg!(target_endian = "little"), "the line's layout is little-endian");
const _: () = assert!(WORDS * 8 == BYTES);
const _: () = assert!(1 << COUNT_SHIFT == STATE_MASK + 1);
const _: () = assert!(1 << ETHERTYPE_SHIFT == MAC_MASK + 1 && ETHERTYPE_SHIFT == VLAN_SHIFT);
const _: () = assert!(PROTOCOL_SHIFT + 8 == INGRESS_SHIFT && INGRESS_SHIFT + 12 == ZONE_SHIFT);
const _: () = assert!(ZONE_SHIFT + 12 == 64 && NUMBER_MASK >> 12 == 0);
const _: () = assert!(EGRESS_SHIFT + 12 == SEGMENT_SHIFT && SEGMENT_SHIFT + 12 == FLAGS_SHIFT);
const _: () = assert!(FLAGS_SHIFT + 8 == 64 && BITS_SHIFT + 16 == 64);
const _: () = assert!(INSTALL_MASK << INSTALL_SHIFT >> BITS_SHIFT == 0);
const _: () = assert!(PATH_KNOWN | REPLY | REWRITES | NEXT_HOP | L2 == 31);
const _: () = assert!(SEEN | FIN | RST | OUTLIVED == (1 << RST_TIME_SHIFT) - 1);
const _: () = assert!(HOME.is_power_of_two());
