//! What a direction is found by: words 1 and 2 of its line.

use crate::layout::{
    DPORT_SHIFT, DST_SHIFT, ETHERTYPE_SHIFT, INGRESS_SHIFT, MAC_MASK, NUMBER_MASK, PROTOCOL_ICMP6,
    PROTOCOL_L2, PROTOCOL_OTHER6, PROTOCOL_OURS, PROTOCOL_SHIFT, PROTOCOL_TCP6, PROTOCOL_UDP6,
    ZONE_SHIFT, mac, mac_bytes,
};

/// IP protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The key of one direction. Ports and ethertypes are plain numbers (80, 0x86dd).
///
/// The ingress port is part of it, so that no VM rides on another's connection; the segment is
/// not (except for L2 lines), because a reply may come back with another tag than its request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    pub(crate) word1: u64,
    pub(crate) word2: u64,
}

impl FlowKey {
    /// The key of IPv4 packets, TCP or UDP, that enter by port `ingress` in `zone`.
    #[inline]
    pub const fn ipv4(
        src: [u8; 4],
        dst: [u8; 4],
        sport: u16,
        dport: u16,
        protocol: u8,
        ingress: u16,
        zone: u16,
    ) -> FlowKey {
        debug_assert!(protocol < PROTOCOL_OURS, "those mark lines of another kind");
        FlowKey {
            word1: raw_address(src) | raw_address(dst) << DST_SHIFT,
            word2: raw_port(sport)
                | raw_port(dport) << DPORT_SHIFT
                | where_from(protocol, ingress, zone),
        }
    }

    /// The key of ICMP echo requests, or of the replies to them.
    ///
    /// A request has the ports (id, 0), a reply (0, id): with the id in both places one VM's
    /// request would ride on the line of replies to another's, past its security group.
    #[inline]
    pub const fn echo(
        src: [u8; 4],
        dst: [u8; 4],
        id: u16,
        is_request: bool,
        ingress: u16,
        zone: u16,
    ) -> FlowKey {
        let (sport, dport) = if is_request { (id, 0) } else { (0, id) };
        FlowKey::ipv4(src, dst, sport, dport, ICMP, ingress, zone)
    }

    /// The key of IPv6 packets, which are bridged: `addresses` is what theirs come to under the
    /// table's key ([`crate::Table::fingerprint`]). TCP, UDP and echoes have ports as in IPv4.
    #[inline]
    pub const fn ipv6(
        addresses: u64,
        sport: u16,
        dport: u16,
        protocol: u8,
        ingress: u16,
        segment: u16,
    ) -> FlowKey {
        let (mark, sport, dport) = match protocol {
            TCP => (PROTOCOL_TCP6, sport, dport),
            UDP => (PROTOCOL_UDP6, sport, dport),
            ICMPV6 => (PROTOCOL_ICMP6, sport, dport),
            _ => (PROTOCOL_OTHER6, protocol as u16, protocol as u16),
        };
        FlowKey {
            word1: addresses,
            word2: raw_port(sport)
                | raw_port(dport) << DPORT_SHIFT
                | where_from(mark, ingress, segment),
        }
    }

    /// The key of frames that are bridged without a look inside, by MACs and ethertype.
    ///
    /// Of the source MAC the last four bytes are in the key; the whole of it is in word 3
    /// ([`crate::Rewrite::source_mac`]).
    #[inline]
    pub const fn l2(
        dst: [u8; 6],
        src: [u8; 6],
        ethertype: u16,
        ingress: u16,
        segment: u16,
    ) -> FlowKey {
        let [_, _, c, d, e, f] = src;
        FlowKey {
            word1: mac(dst) | (ethertype.to_be() as u64) << ETHERTYPE_SHIFT,
            word2: u32::from_le_bytes([c, d, e, f]) as u64
                | where_from(PROTOCOL_L2, ingress, segment),
        }
    }

    /// The key of the packets that answer these unchanged, entering by `ingress` in `zone`.
    ///
    /// IPv4 only: the others' is made from what is in the packet.
    #[inline]
    pub const fn reversed(self, ingress: u16, zone: u16) -> FlowKey {
        debug_assert!(!self.is_bridged(), "the answer's key is made from the packet's addresses");
        let ports = self.word2 as u32;
        FlowKey {
            word1: self.word1.rotate_left(DST_SHIFT),
            word2: ports.rotate_left(DPORT_SHIFT) as u64 | where_from(self.mark(), ingress, zone),
        }
    }

    /// Whether this is the key of an L2 line.
    #[inline]
    pub const fn is_l2(self) -> bool {
        self.mark() == PROTOCOL_L2
    }

    /// Whether this is the key of an IPv6 line.
    #[inline]
    pub const fn is_ipv6(self) -> bool {
        matches!(self.mark(), PROTOCOL_TCP6..=PROTOCOL_OTHER6)
    }

    /// Whether its packets are only ever bridged, IPv6 and L2: word 3 of its line holds the source
    /// MAC, and the segment stands in the place of the zone.
    #[inline]
    pub const fn is_bridged(self) -> bool {
        self.mark() >= PROTOCOL_OURS
    }

    /// IP protocol (of IPv6 the one behind its header), 255 for an L2 key.
    #[inline]
    pub const fn protocol(self) -> u8 {
        match self.mark() {
            PROTOCOL_TCP6 => TCP,
            PROTOCOL_UDP6 => UDP,
            PROTOCOL_ICMP6 => ICMPV6,
            PROTOCOL_OTHER6 => self.sport() as u8,
            number => number,
        }
    }

    #[inline]
    const fn mark(self) -> u8 {
        (self.word2 >> PROTOCOL_SHIFT) as u8
    }

    /// The port the packets enter by.
    #[inline]
    pub const fn ingress(self) -> u16 {
        (self.word2 >> INGRESS_SHIFT & NUMBER_MASK) as u16
    }

    /// The zone of that port; of an IPv6 or L2 key the segment.
    #[inline]
    pub const fn zone(self) -> u16 {
        (self.word2 >> ZONE_SHIFT) as u16
    }

    /// The same key with packets entering by another port in another zone.
    #[inline]
    pub const fn at(self, ingress: u16, zone: u16) -> FlowKey {
        FlowKey {
            word1: self.word1,
            word2: self.word2 & 0xffff_ffff | where_from(self.mark(), ingress, zone),
        }
    }

    /// The same key with packets entering by another port: where a VM may have moved to.
    #[inline]
    pub const fn from_ingress(self, ingress: u16) -> FlowKey {
        let cleared = self.word2 & !(NUMBER_MASK << INGRESS_SHIFT);
        FlowKey { word1: self.word1, word2: cleared | (ingress as u64) << INGRESS_SHIFT }
    }

    /// Source address (IPv4).
    #[inline]
    pub const fn src(self) -> [u8; 4] {
        (self.word1 as u32).to_ne_bytes()
    }

    /// Destination address (IPv4).
    #[inline]
    pub const fn dst(self) -> [u8; 4] {
        ((self.word1 >> DST_SHIFT) as u32).to_ne_bytes()
    }

    /// Source port, or the id of an echo request (IPv4, IPv6).
    #[inline]
    pub const fn sport(self) -> u16 {
        u16::from_be(self.word2 as u16)
    }

    /// Destination port, or the id of an echo reply (IPv4, IPv6).
    #[inline]
    pub const fn dport(self) -> u16 {
        u16::from_be((self.word2 >> DPORT_SHIFT) as u16)
    }

    /// Destination MAC (L2).
    #[inline]
    pub const fn destination_mac(self) -> [u8; 6] {
        mac_bytes(self.word1 & MAC_MASK)
    }

    /// Ethertype (L2).
    #[inline]
    pub const fn ethertype(self) -> u16 {
        u16::from_be((self.word1 >> ETHERTYPE_SHIFT) as u16)
    }
}

impl std::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ingress, zone) = (self.ingress(), self.zone());
        if self.is_l2() {
            let [a, b, c, d, e, g] = self.destination_mac();
            let (ethertype, source) = (self.ethertype(), (self.word2 as u32).to_le_bytes());
            return write!(
                f,
                "port {ingress} segment {zone} *:*:{source:02x?} -> \
                 {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} {ethertype:#06x}"
            );
        }
        if self.is_ipv6() {
            let (addresses, protocol) = (self.word1, self.protocol());
            let (sport, dport) = (self.sport(), self.dport());
            return write!(
                f,
                "port {ingress} segment {zone} [{addresses:016x}]:{sport} -> :{dport} ipv6 {protocol}"
            );
        }
        let (src, dst) =
            (std::net::Ipv4Addr::from(self.src()), std::net::Ipv4Addr::from(self.dst()));
        let (sport, dport, protocol) = (self.sport(), self.dport(), self.protocol());
        write!(f, "port {ingress} zone {zone} {src}:{sport} -> {dst}:{dport} ip {protocol}")
    }
}

#[inline]
const fn raw_address(address: [u8; 4]) -> u64 {
    u32::from_ne_bytes(address) as u64
}

#[inline]
const fn raw_port(port: u16) -> u64 {
    port.to_be() as u64
}

#[inline]
const fn where_from(protocol: u8, ingress: u16, zone: u16) -> u64 {
    debug_assert!(ingress as u64 <= NUMBER_MASK && zone as u64 <= NUMBER_MASK, "12 bits each");
    (protocol as u64) << PROTOCOL_SHIFT
        | (ingress as u64 & NUMBER_MASK) << INGRESS_SHIFT
        | (zone as u64 & NUMBER_MASK) << ZONE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 4] = [10, 0, 0, 3];
    const B: [u8; 4] = [8, 8, 4, 4];

    #[test]
    fn an_ipv4_key_gives_back_what_it_was_made_of() {
        let key = FlowKey::ipv4(A, B, 40000, 53, 17, 4094, 4095);
        assert_eq!((key.src(), key.dst(), key.sport(), key.dport()), (A, B, 40000, 53));
        assert_eq!((key.protocol(), key.ingress(), key.zone()), (17, 4094, 4095));
        assert!(!key.is_l2());
        assert_eq!(format!("{key:?}"), "port 4094 zone 4095 10.0.0.3:40000 -> 8.8.4.4:53 ip 17");
    }

    #[test]
    fn the_bytes_of_a_key_lie_as_in_the_packet() {
        let key = FlowKey::ipv4(A, B, 0x1234, 0x5678, 6, 0, 0);
        assert_eq!(key.word1.to_ne_bytes(), [10, 0, 0, 3, 8, 8, 4, 4]);
        assert_eq!(key.word2.to_ne_bytes()[..5], [0x12, 0x34, 0x56, 0x78, 6]);
    }

    #[test]
    fn an_l2_key_gives_back_what_it_was_made_of() {
        let key = FlowKey::l2([2, 0, 0, 0, 0, 9], [0xfa, 0x16, 0x3e, 1, 2, 3], 0x86dd, 7, 100);
        assert!(key.is_l2());
        assert_eq!((key.destination_mac(), key.ethertype()), ([2, 0, 0, 0, 0, 9], 0x86dd));
        assert_eq!((key.ingress(), key.zone()), (7, 100));
        assert_eq!((key.word2 as u32).to_ne_bytes(), [0x3e, 1, 2, 3]);
    }

    #[test]
    fn an_ipv6_key_gives_back_its_protocol_and_is_no_other_families() {
        let key = |protocol| FlowKey::ipv6(0xabcd, 40000, 53, protocol, 7, 100);
        for number in 0..=255 {
            assert_eq!(key(number).protocol(), number);
            assert!(key(number).is_ipv6() && key(number).is_bridged() && !key(number).is_l2());
        }
        let tcp = key(6);
        assert_eq!((tcp.sport(), tcp.dport(), tcp.ingress(), tcp.zone()), (40000, 53, 7, 100));
        let ipv4 = FlowKey { word1: tcp.word1, ..FlowKey::ipv4(A, B, 40000, 53, 6, 7, 100) };
        assert!(!ipv4.is_ipv6() && ipv4 != tcp);
        assert_eq!(tcp.from_ingress(9), FlowKey::ipv6(0xabcd, 40000, 53, 6, 9, 100));
        assert_eq!(format!("{tcp:?}"), "port 7 segment 100 [000000000000abcd]:40000 -> :53 ipv6 6");
    }

    #[test]
    fn reversing_twice_gives_the_same_key() {
        let key = FlowKey::ipv4(A, B, 40000, 53, 17, 12, 3);
        let reply = key.reversed(9, 0);
        assert_eq!((reply.src(), reply.dst(), reply.sport(), reply.dport()), (B, A, 53, 40000));
        assert_eq!((reply.ingress(), reply.zone()), (9, 0));
        assert_eq!(reply.reversed(12, 3), key);
    }

    #[test]
    fn an_echo_request_and_its_reply_have_different_keys_even_on_one_port() {
        let request = FlowKey::echo(A, A, 77, true, 5, 1);
        let reply = FlowKey::echo(A, A, 77, false, 5, 1);
        assert_ne!(request, reply);
        assert_eq!(request.reversed(5, 1), reply);
    }

    #[test]
    fn a_key_can_be_asked_for_at_another_port() {
        let key = FlowKey::ipv4(A, B, 1, 2, 6, 12, 3);
        assert_eq!(key.from_ingress(99), FlowKey::ipv4(A, B, 1, 2, 6, 99, 3));
        assert_eq!(key.at(99, 0), FlowKey::ipv4(A, B, 1, 2, 6, 99, 0));
    }
}
