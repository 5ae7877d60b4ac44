//! How many connections there are, by the port their first packet came by, and how many one may have.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::key::FlowKey;
use crate::layout::{NUMBER_MASK, hash};
use crate::table::Table;

/// Counters in a row of those by endpoint; a power of two.
const ENDPOINTS: usize = 1 << 14;
/// Where the address that is asked stands in word 1 of a key.
const ASKED_SHIFT: u32 = 32;
/// The asker's own port in word 2.
const OWN_PORT: u64 = 0xffff;

/// How many connections one port may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// In all.
    pub all: u32,
    /// To one endpoint: an address, a port there and a protocol.
    pub each: u32,
}

impl Quota {
    /// As many as there is room for.
    pub const NONE: Quota = Quota { all: u32::MAX, each: u32::MAX };
}

/// Of which there are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    All,
    Each,
}

/// Kept by this process, not in the shared memory: a successor counts anew when it adopts.
///
/// Endpoints have no counter of their own. Each is counted in both rows at a place that its hash
/// says, and has at most as many connections as the lesser of the two (a count-min sketch): to be
/// refused for somebody else's connections it has to meet a busy one in either row. The hash is
/// keyed, so nobody can see to that.
pub(crate) struct Counts {
    opened: Box<[AtomicU32]>,
    endpoints: [Box<[AtomicU32]>; 2],
    hash_key: u64,
}

impl Counts {
    pub(crate) fn new(hash_key: u64) -> Self {
        let none = |count: usize| (0..count).map(|_| AtomicU32::new(0)).collect();
        let opened = none(NUMBER_MASK as usize + 1);
        Self { opened, endpoints: [none(ENDPOINTS), none(ENDPOINTS)], hash_key }
    }

    fn of(&self, key: FlowKey) -> &AtomicU32 {
        // Twelve bits: there is a counter for every number.
        &self.opened[usize::from(key.ingress())]
    }

    fn endpoint(&self, key: FlowKey) -> [&AtomicU32; 2] {
        let hash = hash(key.word1 >> ASKED_SHIFT, key.word2 & !OWN_PORT, self.hash_key);
        let [one, two] = &self.endpoints;
        let place = |bits: u64| bits as usize & (ENDPOINTS - 1);
        [&one[place(hash)], &two[place(hash >> 32)]]
    }

    /// One more, unless there are as many already as there may be.
    pub(crate) fn enter(&self, key: FlowKey, quota: Quota) -> Result<(), Exceeded> {
        let before = self.of(key).fetch_add(1, Relaxed);
        let to_it = self.endpoint(key).map(|count| count.fetch_add(1, Relaxed));
        let exceeded = if before >= quota.all {
            Exceeded::All
        } else if to_it.into_iter().all(|before| before >= quota.each) {
            Exceeded::Each
        } else {
            return Ok(());
        };
        self.leave(key);
        Err(exceeded)
    }

    /// One more, whatever there may be.
    pub(crate) fn has_entered(&self, key: FlowKey) {
        let _ = self.enter(key, Quota::NONE);
    }

    /// One less.
    pub(crate) fn leave(&self, key: FlowKey) {
        self.of(key).fetch_sub(1, Relaxed);
        let _ = self.endpoint(key).map(|count| count.fetch_sub(1, Relaxed));
    }

    /// Back to none.
    pub(crate) fn begin(&self) {
        let all = self.endpoints.iter().chain([&self.opened]).flatten();
        all.for_each(|count| count.store(0, Relaxed));
    }
}

impl Table {
    /// Connections whose first packet came by this port.
    pub fn connections_of(&self, ingress: u16) -> u32 {
        self.counts.opened.get(usize::from(ingress)).map_or(0, |count| count.load(Relaxed))
    }

    /// Connections in all.
    pub fn connections(&self) -> u64 {
        self.counts.opened.iter().map(|count| u64::from(count.load(Relaxed))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InstallError, Installed, NewLine, Rewrite};

    const NOW: u32 = 10_000;

    fn to(last: u8, sport: u16, ingress: u16) -> FlowKey {
        FlowKey::ipv4([10, 0, 0, 3], [8, 8, 8, last], sport, 53, 17, ingress, 1)
    }

    fn open(table: &Table, key: FlowKey, quota: Quota) -> Result<Installed, InstallError> {
        let line = |key| NewLine { key, rewrite: Rewrite::default() };
        table.install_within(&line(key), &line(key.reversed(2, 0)), 1, NOW, quota)
    }

    #[test]
    fn a_port_has_as_many_connections_as_it_may_and_gets_them_back() {
        let table = Table::in_memory(1 << 10, 1);
        let try_open = |sport: u16| open(&table, to(8, sport, 7), Quota { all: 10, ..Quota::NONE });
        let opened: Vec<_> = (1..=10).map(|sport| try_open(sport).unwrap()).collect();
        assert!(matches!(try_open(11), Err(InstallError::Quota)));
        assert!(matches!(try_open(3), Ok(Installed::Existing(_))), "that one is open");
        assert_eq!((table.connections_of(7), table.connections_of(2)), (10, 0));
        let Installed::New { reply, .. } = opened[0] else { panic!("{:?}", opened[0]) };
        assert!(table.remove(&reply));
        assert_eq!(table.connections_of(7), 9);
        assert!(try_open(11).is_ok());
        assert_eq!(table.occupancy().live, 20);
    }

    #[test]
    fn a_port_has_so_many_connections_to_one_endpoint_and_others_have_theirs() {
        let table = Table::in_memory(1 << 12, 1);
        let few = Quota { all: 1000, each: 10 };
        let opened: Vec<_> =
            (1..=10).map(|sport| open(&table, to(8, sport, 7), few).unwrap()).collect();
        assert!(matches!(open(&table, to(8, 11, 7), few), Err(InstallError::EndpointQuota)));
        assert!(open(&table, to(8, 12, 9), few).is_ok(), "another port");
        for last in 9..109 {
            assert!(open(&table, to(last, 11, 7), few).is_ok(), "another endpoint");
        }
        let Installed::New { original, .. } = opened[0] else { panic!("{:?}", opened[0]) };
        assert!(table.remove(&original));
        assert!(open(&table, to(8, 11, 7), few).is_ok(), "and gets one back");
        assert!(matches!(open(&table, to(8, 13, 7), few), Err(InstallError::EndpointQuota)));
        assert_eq!(table.occupancy().live, 2 * 111, "nothing is left of what was refused");
    }

    #[test]
    fn a_successor_counts_what_it_adopts() {
        let table = Table::in_memory(64, 1);
        open(&table, to(8, 1, 7), Quota::NONE).unwrap();
        open(&table, to(8, 2, 7), Quota::NONE).unwrap();
        table.counts.begin();
        table.adopt();
        assert_eq!(table.connections_of(7), 2);
        let two = Quota { all: 9, each: 2 };
        assert!(matches!(open(&table, to(8, 3, 7), two), Err(InstallError::EndpointQuota)));
    }
}
