//! Bits of a line, the same numbers as in `bpf/line.h`.
//!
//! Addresses, ports and ethertypes are *raw*: the bytes as they lie in the packet, loaded by a
//! native-endian load, so that neither side swaps bytes to look something up. A test compares
//! every `#define` of the header with the constant of the same name here.

/// Words of 64 bits in a line.
pub const WORDS: usize = 8;
/// Bytes of a line: one cache line.
pub const BYTES: usize = 64;
/// Lines of a home. A key has two homes. (Two lines under loom, which tries every order of looks.)
pub const HOME: usize = if cfg!(loom) { 2 } else { 4 };

// Word 0: count << 2 | state. The count grows with every claim, removal and change and is never
// reset, so that a reader that finds word 0 unchanged read one state of the line and no other.
/// Nobody's line.
pub const FREE: u64 = 0;
/// Word 0 of a line that nobody ever had; the same of all lines behind it in a home, since an
/// installer takes the first free one.
pub const NEVER_TAKEN: u64 = 0;
/// Somebody's who writes it: an installer's, or live and about to be again with another path.
pub const CLAIMED: u64 = 1;
/// Readable.
pub const LIVE: u64 = 2;
/// The state's bits of word 0.
pub const STATE_MASK: u64 = 3;
/// Where the count begins in word 0.
pub const COUNT_SHIFT: u32 = 2;

// Word 1: source, destination address; of an IPv6 line what both come to under the table's key; of
// an L2 line destination MAC, ethertype.
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
/// Zone (of an IPv6 or L2 line: segment) in word 2.
pub const ZONE_SHIFT: u32 = 52;
/// Numbers of ports, segments, zones and VLANs have 12 bits.
pub const NUMBER_MASK: u64 = 0xfff;
/// Protocols from here on mark lines of another kind; no IPv4 packet of them has a line. IANA has
/// given them to nobody, but for 253 and 254 to experiments.
pub const PROTOCOL_OURS: u8 = 249;
/// Marks an IPv6 line of TCP.
pub const PROTOCOL_TCP6: u8 = 249;
/// Marks one of UDP.
pub const PROTOCOL_UDP6: u8 = 250;
/// Marks one of ICMPv6 echoes.
pub const PROTOCOL_ICMP6: u8 = 251;
/// Marks one of another protocol, which stands in the place of both ports.
pub const PROTOCOL_OTHER6: u8 = 252;
/// Marks an L2 line.
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
/// Flag: an IPv6 or L2 line; word 3 holds the source MAC.
pub const L2: u8 = 16;
/// Flag: the connection's first packet was addressed to the gateway. Asked again, it is asked so.
pub const ROUTED: u8 = 32;
/// Flag: the way was decided for a packet addressed to a station. One addressed to the gateway
/// looks for its own.
pub const BRIDGED: u8 = 64;

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
/// It had a full TCP segment, or a frame in pieces: XDP leaves its packets to tc, where the ones
/// come merged and the others can be sent on to any port.
pub const BULK: u16 = 16;
/// When the sweep noticed the RST: 11 bits of its seconds, above the other state bits.
pub const RST_TIME_SHIFT: u32 = 5;

/// First multiplier of the hash: 2^64 / golden ratio.
pub const HASH_1: u64 = 0x9e37_79b9_7f4a_7c15;
/// Second multiplier of the hash: MurmurHash3's finaliser.
pub const HASH_2: u64 = 0xff51_afd7_ed55_8ccd;
/// How far the high half is folded down, after each multiply.
pub const HASH_FOLD: u32 = 32;
/// How far the hash is turned left for the second home.
pub const HASH_TURN: u32 = 20;

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

/// What the two addresses of an IPv6 packet come to in word 1; `line_ipv6_word1` in C.
///
/// Each step turns one half of an address around among all words, under a key nobody outside knows:
/// who may choose one half and no other (a VM its prefix) never meets another's line by it, and who
/// may choose them all one in 2^64.
#[inline]
pub const fn fingerprint(source: [u8; 16], destination: [u8; 16], key: u64) -> u64 {
    let ([a, b], [c, d]) = (halves(source), halves(destination));
    let hash = fold((key ^ a).wrapping_mul(HASH_1));
    let hash = fold((hash ^ b).wrapping_mul(HASH_2));
    let hash = fold((hash ^ c).wrapping_mul(HASH_1));
    fold((hash ^ d).wrapping_mul(HASH_2))
}

#[inline]
const fn fold(word: u64) -> u64 {
    word ^ word >> HASH_FOLD
}

/// An IPv6 address as two native loads.
#[inline]
const fn halves(address: [u8; 16]) -> [u64; 2] {
    let both = u128::from_ne_bytes(address);
    [both as u64, (both >> 64) as u64]
}

/// The first lines of a key's two homes; `lines` is a power of two. `line_home` in C.
///
/// The second comes from other bits of the product's high half than the first: with the plain
/// high half, keys that differ in one port or zone and meet in one home met in the other, too.
#[inline]
pub const fn homes(hash: u64, lines: u32) -> [u32; 2] {
    // A home's index is a multiple of its size, so the low bits fall off with the mask.
    let mask = lines - HOME as u32;
    [hash as u32 & mask, hash.rotate_left(HASH_TURN) as u32 & mask]
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
const _: () = assert!(PATH_KNOWN | REPLY | REWRITES | NEXT_HOP | L2 | ROUTED | BRIDGED == 127);
const _: () = assert!(SEEN | FIN | RST | OUTLIVED | BULK == (1 << RST_TIME_SHIFT) - 1);
const _: () = assert!(HOME.is_power_of_two());

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::flow::{Flow, Rewrite};
    use crate::key::FlowKey;

    const HEADER: &str = include_str!("../../../bpf/line.h");

    /// Every constant of this file under its name in the header.
    fn constants() -> BTreeMap<String, u64> {
        macro_rules! all {
            ($($name:ident)*) => {
                [$((concat!("LINE_", stringify!($name)).to_owned(), $name as u64)),*].into()
            };
        }
        all!(PROTOCOL_OURS PROTOCOL_TCP6 PROTOCOL_UDP6 PROTOCOL_ICMP6 PROTOCOL_OTHER6 WORDS BYTES HOME FREE NEVER_TAKEN CLAIMED LIVE STATE_MASK COUNT_SHIFT DST_SHIFT
            ETHERTYPE_SHIFT MAC_MASK DPORT_SHIFT PROTOCOL_SHIFT INGRESS_SHIFT ZONE_SHIFT NUMBER_MASK PROTOCOL_L2
            EGRESS_SHIFT SEGMENT_SHIFT FLAGS_SHIFT PATH_KNOWN REPLY REWRITES NEXT_HOP L2 ROUTED BRIDGED
            VLAN_SHIFT STAMP_SHIFT INSTALL_SHIFT INSTALL_MASK BITS_SHIFT SEEN FIN RST OUTLIVED
            BULK RST_TIME_SHIFT HASH_1 HASH_2 HASH_FOLD HASH_TURN)
    }

    fn number(text: &str) -> u64 {
        let text = text.trim_end_matches("ULL");
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => text.parse().unwrap(),
        }
    }

    #[test]
    fn the_header_has_the_same_numbers() {
        let header: BTreeMap<String, u64> = HEADER
            .lines()
            .filter_map(|line| line.strip_prefix("#define "))
            .filter(|define| !define.starts_with("line_inline "))
            .map(|define| {
                let mut words = define.split_whitespace();
                (words.next().unwrap().to_owned(), number(words.next().unwrap()))
            })
            .collect();
        assert_eq!(header, constants());
        let ours = include_str!("layout.rs").lines().filter(|line| line.starts_with("pub const "));
        assert_eq!(ours.filter(|line| !line.contains(" fn ")).count(), constants().len());
    }

    /// Numbers that look random: splitmix64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(HASH_1);
            let mut x = self.0;
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        }

        fn bytes<const N: usize>(&mut self) -> [u8; N] {
            std::array::from_fn(|_| self.next() as u8)
        }
    }

    const SHIM: &str = r#"
        #include <stdio.h>
        #include <string.h>
        #include "line.h"
        struct question {
            __u64 key, word4, word5, word6, word7;
            __u32 src, dst, now, lines;
            __u16 sport, dport, ethertype, ingress, zone, bits;
            __u8 protocol, dst_mac[6], src_mac[6], spare[7];
            __u32 six[8];
        };
        _Static_assert(sizeof(struct question) == 120, "as the test writes it");
        int main(void)
        {
            struct question q;
            while (fread(&q, sizeof(q), 1, stdin) == 1) {
                __u64 w1 = line_ipv4_word1(q.src, q.dst);
                __u64 w2 = line_ipv4_word2(q.sport, q.dport, q.protocol, q.ingress, q.zone);
                __u64 l1 = line_l2_word1(q.dst_mac, q.ethertype);
                __u64 l2 = line_l2_word2(q.src_mac, q.ingress, q.zone);
                __u64 hash = line_hash(w1, w2, q.key);
                __u64 homes = line_home(hash, 0, q.lines) |
                              (__u64)line_home(hash, 1, q.lines) << 32;
                __u64 path = line_egress(q.word4) | line_segment(q.word4) << 12 |
                             (__u64)line_vlan(q.word5) << 24 | (__u64)line_flags(q.word4) << 56;
                __u64 answer[] = { w1, w2, l1, l2, hash, line_hash(l1, l2, q.key), homes, path,
                                   line_stamp(q.word6), line_state(q.word4),
                                   line_touched(q.word7, q.now, q.bits),
                                   line_ipv6_word1(q.six, q.six + 4, q.key) };
                if (fwrite(answer, sizeof(answer), 1, stdout) != 1)
                    return 1;
            }
            return 0;
        }"#;
    const ANSWERS: usize = 12;

    /// One question to the shim, and Rust's answers to it.
    fn ask(random: &mut Random) -> (Vec<u8>, [u64; ANSWERS]) {
        let (key, word4, word5, word6, word7) =
            (random.next(), random.next(), random.next(), random.next(), random.next());
        let (src, dst) = (random.bytes::<4>(), random.bytes::<4>());
        // Now and then within reach of word 7's time, or of its wrap.
        let now = (word7 as u32).wrapping_add((random.next() as i8) as u32);
        let lines = 1u32 << (2 + random.next() % 24);
        let [sport, dport, ethertype, bits] = std::array::from_fn(|_| random.next() as u16);
        let (ingress, zone) = (random.next() as u16 & 0xfff, random.next() as u16 & 0xfff);
        let protocol = (random.next() % 249) as u8;
        let (source, destination) = (random.bytes::<16>(), random.bytes::<16>());
        let (dst_mac, src_mac) = (random.bytes::<6>(), random.bytes::<6>());

        let mut question = Vec::with_capacity(120);
        question.extend([key, word4, word5, word6, word7].map(u64::to_ne_bytes).as_flattened());
        question.extend([src, dst, now.to_ne_bytes(), lines.to_ne_bytes()].as_flattened());
        question.extend([sport, dport, ethertype].map(u16::to_be_bytes).as_flattened());
        question.extend([ingress, zone, bits].map(u16::to_ne_bytes).as_flattened());
        question.push(protocol);
        question.extend([dst_mac, src_mac].as_flattened());
        question.resize(88, 0);
        question.extend([source, destination].as_flattened());

        let ipv4 = FlowKey::ipv4(src, dst, sport, dport, protocol, ingress, zone);
        let l2 = FlowKey::l2(dst_mac, src_mac, ethertype, ingress, zone);
        let hash_of = hash(ipv4.word1, ipv4.word2, key);
        let [home, other] = homes(hash_of, lines);
        let flow = Flow { index: 0, words: [0, 0, 0, 0, word4, word5, word6, word7] };
        let path = u64::from(flow.egress())
            | u64::from(flow.segment()) << 12
            | u64::from(flow.vlan()) << 24
            | u64::from(flow.flags()) << 56;
        let later = now.wrapping_sub(word7 as u32) as i32 > 0;
        let touched = word7 >> 32 << 32
            | u64::from(if later { now } else { word7 as u32 })
            | u64::from(bits) << BITS_SHIFT;
        let answers = [
            ipv4.word1,
            ipv4.word2,
            l2.word1,
            l2.word2,
            hash_of,
            hash(l2.word1, l2.word2, key),
            u64::from(home) | u64::from(other) << 32,
            path,
            u64::from(flow.stamp()),
            state(word4),
            touched,
            fingerprint(source, destination, key),
        ];
        (question, answers)
    }

    #[test]
    fn c_and_rust_make_the_same_of_150_000_random_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (source, binary) = (folder.path().join("shim.c"), folder.path().join("shim"));
        std::fs::write(&source, SHIM).unwrap();
        let built = Command::new("cc")
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf"))
            .args([source.as_os_str(), "-o".as_ref(), binary.as_os_str()])
            .status()
            .expect("a C compiler is needed: apt-get install gcc libc6-dev");
        assert!(built.success());

        let mut random = Random(2);
        let (questions, expected): (Vec<_>, Vec<_>) =
            (0..150_000).map(|_| ask(&mut random)).unzip();
        let file = folder.path().join("questions");
        std::fs::write(&file, questions.concat()).unwrap();
        let asked = Command::new(&binary)
            .stdin(std::fs::File::open(&file).unwrap())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(asked.status.success());
        let (words, rest) = asked.stdout.as_chunks::<8>();
        assert!(rest.is_empty());
        let answers: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        assert_eq!(answers.len(), expected.len() * ANSWERS);
        for (answer, expected) in answers.chunks(ANSWERS).zip(&expected) {
            assert_eq!(answer, expected);
        }
    }

    #[test]
    fn a_written_line_lies_as_the_header_says() {
        let rewrite = Rewrite {
            source: [1, 2, 3, 4],
            destination: [5, 6, 7, 8],
            source_port: 0x0102,
            destination_port: 0x0304,
            egress: 0xabc,
            segment: 0xdef,
            vlan: 0x123,
            destination_mac: [1, 2, 3, 4, 5, 6],
            flags: PATH_KNOWN | REWRITES,
            ..Rewrite::default()
        };
        let words = rewrite.words(false);
        assert_eq!(words, [0x0807_0605_0403_0201, 0x05de_fabc_0403_0201, 0x0123_0605_0403_0201]);
    }

    #[test]
    fn addresses_that_differ_in_one_half_never_come_to_the_same() {
        let mut random = Random(7);
        for _ in 0..100_000 {
            let (key, source, destination) = (random.next(), random.bytes(), random.bytes());
            let own = fingerprint(source, destination, key);
            let at = random.next() as usize % 4;
            let mut both: [u8; 32] = [source, destination].concat().try_into().unwrap();
            both[at * 8..at * 8 + 8].copy_from_slice(&random.bytes::<8>());
            let [one, two] = [0, 16].map(|from| both[from..from + 16].try_into().unwrap());
            assert!((one, two) == (source, destination) || fingerprint(one, two, key) != own);
            assert_ne!(fingerprint(destination, source, key), own, "nor the other way round");
        }
    }
}
