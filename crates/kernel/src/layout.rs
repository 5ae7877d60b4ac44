//! What lies in the maps, byte for byte as in `bpf/maps.h`.
//!
//! A test compares every `#define` of the header with the constant of the same name here; sizes
//! and offsets are asserted on both sides, so that neither compiles after a change to one.

use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rows of the port map: port numbers have 12 bits.
pub const PORTS: u32 = 4096;
/// Rows of the segment map.
pub const SEGMENTS: u32 = 4096;
/// NICs a node can have.
pub const NICS: u32 = 16;
/// VLANs of each, 0 for what has no tag.
pub const VLANS: u32 = 4096;
/// Places of interfaces by their index.
pub(crate) const PLACES: u32 = 16_384;
/// How many of them one interface can be at.
pub(crate) const PROBES: u32 = 8;
/// Slots for AF_XDP sockets.
pub const SOCKETS: u32 = 4096;
/// Of these the first belong to the punt link, by queue; NICs have the others.
pub const PUNT_SOCKETS: u32 = 256;
/// The port number in the outer tag of a frame on the punt link.
pub const TAG_NUMBER: u16 = 0x0fff;
/// On the way down: to the stack behind that NIC, not out of it.
pub const TAG_TO_HOST: u16 = 0x2000;
/// `skb->mark` of a frame on its way past a NIC's tc program to the stack.
#[cfg(test)] // C's alone
pub(crate) const MARK_HOST: u32 = 0x746c_4f4b;

#[cfg(test)] // C's alone
pub(crate) const PORT_NONE: u8 = 0;
pub(crate) const PORT_TRUNK: u8 = 1;
pub(crate) const PORT_PUBLIC: u8 = 2;
pub(crate) const PORT_VIF: u8 = 3;
pub(crate) const PORT_HOST: u8 = 4;

pub(crate) const HOOK_NONE: u8 = 0;
pub(crate) const HOOK_XDP: u8 = 1;
pub(crate) const HOOK_TC: u8 = 2;
pub(crate) const HOOK_GENERIC: u8 = 3;

pub(crate) const PORT_PEER: u32 = 1;
pub(crate) const PORT_IS_PUBLIC: u32 = 2;
/// XDP may redirect to it.
pub(crate) const PORT_TAKES_XDP: u32 = 4;
pub(crate) const PORT_LONG: u32 = 8;
pub(crate) const PORT_METERED: u32 = 16;

pub(crate) const SEGMENT_UP: u32 = 1;
pub(crate) const SEGMENT_GATEWAY: u32 = 2;
pub(crate) const SEGMENT_TAKEN_UP: u32 = 4;
pub(crate) const SEGMENT_BEFORE: u32 = 8;

/// Numbers of next hops.
pub const HOPS: u32 = 65_536;

/// Prefixes of the public side.
pub const OWNED: u32 = 65_536;
/// UDP ports of SNAT addresses that lead to VMs.
pub const FORWARDS: u32 = 4096;
pub(crate) const OWNED_SNAT: u32 = 1;
pub(crate) const OWNED_FLOAT: u32 = 2;
pub(crate) const OWNED_NETWORK: u32 = 3;

pub(crate) const DROP_MALFORMED: usize = 0;
pub(crate) const DROP_NO_PORT: usize = 1;
pub(crate) const DROP_PUNT_RATE: usize = 2;
pub(crate) const DROP_NO_DAEMON: usize = 3;
pub(crate) const DROP_NO_ROOM: usize = 4;
pub(crate) const DROP_QUOTA_OUT: usize = 5;
pub(crate) const DROP_QUOTA_IN: usize = 6;
pub(crate) const DROPS: usize = 7;

pub(crate) const QUOTA_OUT: usize = 0;
pub(crate) const QUOTA_IN: usize = 2;
pub(crate) const QUOTA_PEAK: usize = 1;
pub(crate) const QUOTA_RATES: usize = 4;
pub(crate) const QUOTA_SHIFT: u32 = 10;
#[cfg(test)] // C's alone
pub(crate) const PAID_UP: usize = 0;
#[cfg(test)] // C's alone
pub(crate) const PAID_QUOTA: usize = 1;

pub(crate) const CHANGED_PROMISC: u16 = 1;
pub(crate) const CHANGED_RXVLAN: u16 = 2;
pub(crate) const CHANGED_VLAN_FILTER: u16 = 4;
pub(crate) const CHANGED_LRO: u16 = 8;
pub(crate) const MADE_FILTER: u16 = 16;
pub(crate) const MADE_QDISC: u16 = 32;

pub(crate) const RESERVED_BYTES: usize = 8192;

/// What lines look like, and the maps that a run has from the one before. Grows with every change
/// that another version would misread.
pub const LAYOUT: u32 = 7;

/// A row of `ports`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Port {
    pub(crate) ifindex: u32,
    pub(crate) number: u16,
    pub(crate) kind: u8,
    pub(crate) hook: u8,
    pub(crate) flags: u32,
    pub(crate) sockets: u32,
    pub(crate) queues: u16,
    pub(crate) mtu: u16,
    pub(crate) mac: [u8; 6],
    pub(crate) segment: u16,
    pub(crate) stamp: u32,
    pub(crate) punt_cost: u32,
    pub(crate) station: [u8; 6],
    pub(crate) nic: u16,
    pub(crate) spare: [u16; 2],
    pub(crate) punt_burst: u64,
}

const _: () = assert!(size_of::<Port>() == 56 && offset_of!(Port, number) == 4);
const _: () = assert!(offset_of!(Port, kind) == 6 && offset_of!(Port, hook) == 7);
const _: () = assert!(offset_of!(Port, flags) == 8 && offset_of!(Port, sockets) == 12);
const _: () = assert!(offset_of!(Port, queues) == 16 && offset_of!(Port, mtu) == 18);
const _: () = assert!(offset_of!(Port, mac) == 20 && offset_of!(Port, segment) == 26);
const _: () = assert!(offset_of!(Port, stamp) == 28 && offset_of!(Port, punt_cost) == 32);
const _: () = assert!(offset_of!(Port, station) == 36 && offset_of!(Port, nic) == 42);
const _: () = assert!(offset_of!(Port, punt_burst) == 48);

/// A row of `buckets`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Buckets {
    pub(crate) paid: [u64; 8],
}

const _: () = assert!(size_of::<Buckets>() == 64);

/// One rate of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Rate {
    pub(crate) cost: u32,
    pub(crate) spare: u32,
    pub(crate) burst: u64,
}

const _: () = assert!(size_of::<Rate>() == 16 && offset_of!(Rate, burst) == 8);

/// A row of `quotas`.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct QuotaRow {
    pub(crate) rates: [Rate; QUOTA_RATES],
}

const _: () = assert!(size_of::<QuotaRow>() == QUOTA_RATES * 16);

/// A row of `places`.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Place {
    pub(crate) ifindex: u32,
    pub(crate) number: u32,
}

const _: () = assert!(size_of::<Place>() == 8 && offset_of!(Place, number) == 4);

/// A row of `segments`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) zone: u16,
    pub(crate) vlan: u16,
    pub(crate) flags: u32,
    pub(crate) gateway: [u8; 4],
    pub(crate) before: [u8; 6],
    pub(crate) spare: u16,
}

const _: () = assert!(size_of::<Segment>() == 20 && offset_of!(Segment, vlan) == 2);
const _: () = assert!(offset_of!(Segment, flags) == 4 && offset_of!(Segment, gateway) == 8);
const _: () = assert!(offset_of!(Segment, before) == 12);

/// A row of `hops`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Hop {
    pub(crate) mac: [u8; 6],
    pub(crate) known: u16,
}

const _: () = assert!(size_of::<Hop>() == 8 && offset_of!(Hop, known) == 6);

/// A key of `owned`.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct OwnedKey {
    pub(crate) length: u32,
    pub(crate) address: [u8; 4],
}

const _: () = assert!(size_of::<OwnedKey>() == 8 && offset_of!(OwnedKey, address) == 4);

/// A key of `forwards`.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ForwardKey {
    pub(crate) address: [u8; 4],
    pub(crate) port: [u8; 2],
    pub(crate) spare: u16,
}

const _: () = assert!(size_of::<ForwardKey>() == 8 && offset_of!(ForwardKey, port) == 4);

/// A row of `counters`, one for each CPU.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Counters {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) punted: u64,
    pub(crate) passed: u64,
    pub(crate) replayed: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_xdp: u64,
    pub(crate) answered: u64,
    pub(crate) drops: [u64; DROPS],
}

const _: () = assert!(size_of::<Counters>() == (9 + DROPS) * 8);
const _: () = assert!(offset_of!(Counters, replayed) == 32 && offset_of!(Counters, tx_xdp) == 56);
const _: () = assert!(offset_of!(Counters, answered) == 64 && offset_of!(Counters, drops) == 72);

/// The row of `settings`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Node {
    pub(crate) punt: u32,
    pub(crate) netns: u32,
    pub(crate) pass: u64,
}

const _: () = assert!(size_of::<Node>() == 16 && offset_of!(Node, netns) == 4);
const _: () = assert!(offset_of!(Node, pass) == 8);

/// The row of `header`; memory that the daemon and its successors share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) layout: std::sync::atomic::AtomicU32,
    pub(crate) lines: std::sync::atomic::AtomicU32,
    pub(crate) hash_key: std::sync::atomic::AtomicU64,
    pub(crate) stamp: std::sync::atomic::AtomicU64,
}

const _: () = assert!(size_of::<Header>() == 24 && offset_of!(Header, lines) == 4);
const _: () = assert!(offset_of!(Header, hash_key) == 8 && offset_of!(Header, stamp) == 16);

/// A row of `nics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Note {
    pub(crate) name: [u8; 16],
    pub(crate) mac: [u8; 6],
    pub(crate) changed: u16,
}

const _: () = assert!(size_of::<Note>() == 24 && offset_of!(Note, mac) == 16);
const _: () = assert!(offset_of!(Note, changed) == 22);

/// The row of `reserved`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Reserved {
    pub(crate) netns: u32,
    pub(crate) ports: [u8; RESERVED_BYTES],
}

const _: () = assert!(size_of::<Reserved>() == 4 + RESERVED_BYTES);
const _: () = assert!(offset_of!(Reserved, ports) == 4);

#[cfg(test)]
mod tests {
    use super::*;

    /// `#define NAME value` of the header.
    fn defines() -> Vec<(&'static str, u64)> {
        let lines = include_str!("../../../bpf/maps.h").lines();
        let found = lines.filter_map(|line| {
            let (name, rest) = line.strip_prefix("#define ")?.split_once(' ')?;
            let value = rest.split("/*").next()?.trim();
            let number = match value.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => value.parse(),
            };
            Some((name, number.unwrap()))
        });
        found.collect()
    }

    #[test]
    fn every_define_of_the_header_has_the_same_value_here() {
        let here = [
            ("PORTS", u64::from(PORTS)),
            ("SEGMENTS", SEGMENTS.into()),
            ("NICS", NICS.into()),
            ("VLANS", VLANS.into()),
            ("PLACES", PLACES.into()),
            ("PROBES", PROBES.into()),
            ("SOCKETS", SOCKETS.into()),
            ("PUNT_SOCKETS", PUNT_SOCKETS.into()),
            ("TAG_NUMBER", TAG_NUMBER.into()),
            ("TAG_TO_HOST", TAG_TO_HOST.into()),
            ("MARK_HOST", MARK_HOST.into()),
            ("PORT_NONE", PORT_NONE.into()),
            ("PORT_TRUNK", PORT_TRUNK.into()),
            ("PORT_PUBLIC", PORT_PUBLIC.into()),
            ("PORT_VIF", PORT_VIF.into()),
            ("PORT_HOST", PORT_HOST.into()),
            ("HOOK_NONE", HOOK_NONE.into()),
            ("HOOK_XDP", HOOK_XDP.into()),
            ("HOOK_TC", HOOK_TC.into()),
            ("HOOK_GENERIC", HOOK_GENERIC.into()),
            ("PORT_PEER", PORT_PEER.into()),
            ("PORT_IS_PUBLIC", PORT_IS_PUBLIC.into()),
            ("PORT_TAKES_XDP", PORT_TAKES_XDP.into()),
            ("PORT_LONG", PORT_LONG.into()),
            ("PORT_METERED", PORT_METERED.into()),
            ("SEGMENT_UP", SEGMENT_UP.into()),
            ("SEGMENT_GATEWAY", SEGMENT_GATEWAY.into()),
            ("SEGMENT_TAKEN_UP", SEGMENT_TAKEN_UP.into()),
            ("SEGMENT_BEFORE", SEGMENT_BEFORE.into()),
            ("HOPS", HOPS.into()),
            ("OWNED", OWNED.into()),
            ("FORWARDS", FORWARDS.into()),
            ("OWNED_SNAT", OWNED_SNAT.into()),
            ("OWNED_FLOAT", OWNED_FLOAT.into()),
            ("OWNED_NETWORK", OWNED_NETWORK.into()),
            ("DROP_MALFORMED", DROP_MALFORMED as u64),
            ("DROP_NO_PORT", DROP_NO_PORT as u64),
            ("DROP_PUNT_RATE", DROP_PUNT_RATE as u64),
            ("DROP_NO_DAEMON", DROP_NO_DAEMON as u64),
            ("DROP_NO_ROOM", DROP_NO_ROOM as u64),
            ("DROP_QUOTA_OUT", DROP_QUOTA_OUT as u64),
            ("DROP_QUOTA_IN", DROP_QUOTA_IN as u64),
            ("DROPS", DROPS as u64),
            ("QUOTA_OUT", QUOTA_OUT as u64),
            ("QUOTA_IN", QUOTA_IN as u64),
            ("QUOTA_PEAK", QUOTA_PEAK as u64),
            ("QUOTA_RATES", QUOTA_RATES as u64),
            ("QUOTA_SHIFT", QUOTA_SHIFT.into()),
            ("PAID_UP", PAID_UP as u64),
            ("PAID_QUOTA", PAID_QUOTA as u64),
            ("CHANGED_PROMISC", CHANGED_PROMISC.into()),
            ("CHANGED_RXVLAN", CHANGED_RXVLAN.into()),
            ("CHANGED_VLAN_FILTER", CHANGED_VLAN_FILTER.into()),
            ("CHANGED_LRO", CHANGED_LRO.into()),
            ("MADE_FILTER", MADE_FILTER.into()),
            ("MADE_QDISC", MADE_QDISC.into()),
            ("RESERVED_BYTES", RESERVED_BYTES as u64),
            ("LAYOUT", LAYOUT.into()),
        ];
        assert_eq!(defines(), here);
    }
}
