//! Forwarding database: which port leads to a MAC address of a segment.

use hashbrown::HashMap;
use wire::MacAddr;

use crate::{PortId, SegmentId};

/// Where a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The port that leads to it.
    pub port: PortId,
    /// Whether configuration says so; nothing learned changes it.
    pub fixed: bool,
}

/// MAC → port, for every segment. Guests choose addresses, so the hash is keyed.
#[derive(Clone, Debug, Default)]
pub struct Fdb {
    entries: HashMap<u64, FdbEntry, ahash::RandomState>,
}

const fn key(segment: SegmentId, mac: MacAddr) -> u64 {
    (segment.get() as u64) << 48 | mac.to_u64()
}

impl Fdb {
    /// The entry of a station.
    #[inline]
    #[must_use]
    pub fn find(&self, segment: SegmentId, mac: MacAddr) -> Option<FdbEntry> {
        self.entries.get(&key(segment, mac)).copied()
    }

    /// Adds or replaces a station's entry.
    pub fn insert(&mut self, segment: SegmentId, mac: MacAddr, entry: FdbEntry) {
        self.entries.insert(key(segment, mac), entry);
    }

    /// Forgets a station.
    pub fn remove(&mut self, segment: SegmentId, mac: MacAddr) {
        self.entries.remove(&key(segment, mac));
    }

    /// Number of stations known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no station is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_address_in_two_segments_is_two_stations() {
        let (one, two) = (SegmentId::new(1).unwrap(), SegmentId::new(2).unwrap());
        let mac = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);
        let entry = |port| FdbEntry { port: PortId::new(port).unwrap(), fixed: false };
        let mut fdb = Fdb::default();
        fdb.insert(one, mac, entry(5));
        fdb.insert(two, mac, entry(6));
        assert_eq!(fdb.find(one, mac), Some(entry(5)));
        assert_eq!(fdb.find(two, mac), Some(entry(6)));
        fdb.remove(one, mac);
        assert_eq!((fdb.find(one, mac), fdb.len()), (None, 1));
    }
}
