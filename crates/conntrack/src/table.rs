//! The table: an array of lines, and what every packet asks of it.

use std::sync::atomic::AtomicU64;

use crate::counts::Counts;
use crate::flow::Flow;
use crate::key::FlowKey;
use crate::layout::{self, HOME, NEVER_TAKEN, SEEN};
use crate::line::{Glance, Line};
use crate::prefetch::prefetch;
use crate::sync::{Lines, PATIENCE, pause};

/// More lines than this have no index in word 6 and no home in the hash.
const MOST_LINES: usize = 1 << 30;

/// The connection table. Shared by reference between threads; readers never wait.
pub struct Table {
    pub(crate) lines: Lines,
    pub(crate) counts: Counts,
    /// Connections that had to go for new ones.
    pub(crate) evicted: AtomicU64,
    pub(crate) hash_key: u64,
}

impl Table {
    /// The table over memory that is given, as a memory-mapped BPF array.
    ///
    /// `lines` is a power of two of at least one home (4). `hash_key` is random, and the same for
    /// everybody who looks at this memory for as long as it lives.
    #[cfg(not(loom))]
    pub fn new(lines: &'static [Line], hash_key: u64) -> Table {
        Table::over(lines, hash_key)
    }

    /// A table in memory of its own, which is never given back: for tests and benchmarks.
    pub fn in_memory(lines: usize, hash_key: u64) -> Table {
        let lines: Box<[Line]> = (0..lines).map(|_| Line::default()).collect();
        #[cfg(not(loom))]
        let lines = Box::leak(lines);
        Table::over(lines, hash_key)
    }

    fn over(lines: Lines, hash_key: u64) -> Table {
        let count = lines.len();
        assert!(count.is_power_of_two() && (HOME..=MOST_LINES).contains(&count));
        Table { lines, counts: Counts::new(hash_key), evicted: AtomicU64::new(0), hash_key }
    }

    /// How many lines a table for that many connections has.
    ///
    /// The smallest power of two that two lines each fill to at most 48 %: fuller, homes run out
    /// of room; larger, the same flows touch more pages than the TLB holds.
    pub const fn lines_for(connections: usize) -> usize {
        let least = (connections * 2 * 100).div_ceil(48);
        let least = if least < HOME { HOME } else { least };
        least.next_power_of_two()
    }

    /// How many lines the table has.
    pub fn len(&self) -> u32 {
        self.lines.len() as u32
    }

    /// Never: a table has at least one home.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The hash of a key in this table, for [`Table::prefetch`] and [`Table::find`].
    #[inline]
    pub fn hash(&self, key: FlowKey) -> u64 {
        layout::hash(key.word1, key.word2, self.hash_key)
    }

    /// What the addresses of an IPv6 packet come to in its key ([`FlowKey::ipv6`]).
    #[inline]
    pub fn fingerprint(&self, source: [u8; 16], destination: [u8; 16]) -> u64 {
        layout::fingerprint(source, destination, self.hash_key)
    }

    /// Brings the homes of a hash nearer, in one loop over a batch, to look them up in the next.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        for first in layout::homes(hash, self.len()) {
            prefetch(&self.lines[first as usize]);
        }
    }

    /// The flow of `key`. A flow whose line is just being changed is not found.
    ///
    /// Whether it may be replayed is the caller's question: [`Flow::path_known`], and
    /// [`Flow::stamp`] against that of the port.
    #[inline]
    pub fn find(&self, key: FlowKey, hash: u64) -> Option<Flow> {
        let mut homes = layout::homes(hash, self.len())
            .map(|first| (first, &self.lines[first as usize..first as usize + HOME]));
        // A new line takes the first free place of the emptier home, so first places first; and
        // behind one that was never taken is none that was.
        for place in 0..HOME {
            for (first, home) in &mut homes {
                let Some(line) = home.get(place) else { continue };
                let word0 = line.word0();
                if word0 == NEVER_TAKEN {
                    *home = &[];
                } else if let Some(flow) = line.read_if(word0, key, *first + place as u32) {
                    return Some(flow);
                }
            }
        }
        None
    }

    /// The flow in the line of that index, if it is live.
    pub fn at(&self, index: u32) -> Option<Flow> {
        match self.settled(index) {
            Glance::Live(flow) => Some(flow),
            Glance::Free | Glance::Passing => None,
        }
    }

    /// Notes that the flow had a packet at `now`, and the state `bits` it brought (`FIN`, `RST`).
    ///
    /// `now` counts seconds on a clock that all users of the memory share (`CLOCK_MONOTONIC`).
    /// The line is written at most once a second, and once for each new bit.
    #[inline]
    pub fn touch(&self, flow: &Flow, now: u32, bits: u16) {
        let bits = bits | SEEN;
        if flow.last_seen() != now || flow.bits() & bits != bits {
            self.lines[flow.index as usize].touch(flow, now, bits);
        }
    }

    /// A look at a line that waits, within reason, for whoever is changing it.
    pub(crate) fn settled(&self, index: u32) -> Glance {
        for _ in 0..PATIENCE {
            match self.lines[index as usize].glance(index) {
                Glance::Passing => pause(),
                settled => return settled,
            }
        }
        Glance::Passing
    }
}

impl std::fmt::Debug for Table {
    /// Not the lines, of which there are millions, nor the key, which is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FIN, RST};
    use crate::{Installed, NewLine, Rewrite};

    const KEY: FlowKey = FlowKey::ipv4([10, 0, 0, 3], [8, 8, 8, 8], 40000, 53, 17, 7, 1);

    fn table_with_key(seen: u32) -> (Table, Flow) {
        let table = Table::in_memory(64, 1);
        let line = |key| NewLine { key, rewrite: Rewrite::default() };
        let installed = table.install(&line(KEY), &line(KEY.reversed(2, 0)), 5, seen).unwrap();
        let Installed::New { original, .. } = installed else { panic!("{installed:?}") };
        (table, original)
    }

    fn found(table: &Table) -> Flow {
        table.find(KEY, table.hash(KEY)).unwrap()
    }

    #[test]
    fn the_default_of_250_000_connections_takes_64_megabytes() {
        assert_eq!(Table::lines_for(250_000), 1 << 20);
        assert_eq!(Table::lines_for(251_658), 1 << 20);
        assert_eq!(Table::lines_for(251_659), 1 << 21);
        assert_eq!(Table::lines_for(1_000_000), 1 << 22);
        assert_eq!(Table::lines_for(0), HOME);
    }

    #[test]
    fn a_smallest_table_has_one_home_and_works() {
        let table = Table::in_memory(Table::lines_for(1), 1);
        let line = |key| NewLine { key, rewrite: Rewrite::default() };
        for ingress in [1, 2] {
            let key = KEY.from_ingress(ingress);
            table.install(&line(key), &line(key.reversed(9, ingress)), 1, 1).unwrap();
        }
        assert_eq!(table.occupancy().live, 4);
    }

    #[test]
    fn a_flow_is_found_by_its_own_ingress_alone() {
        let (table, original) = table_with_key(1);
        assert_eq!(found(&table), original);
        let elsewhere = KEY.from_ingress(8);
        assert!(table.find(elsewhere, table.hash(elsewhere)).is_none());
    }

    #[test]
    fn a_touch_moves_the_time_forward_and_never_back() {
        let (table, flow) = table_with_key(u32::MAX);
        table.touch(&flow, 3, 0);
        assert_eq!(found(&table).last_seen(), 3, "past the wrap");
        table.touch(&found(&table), 2, 0);
        assert_eq!(found(&table).last_seen(), 3);
    }

    #[test]
    fn a_touch_with_an_old_copy_loses_nobodys_bits() {
        let (table, flow) = table_with_key(1);
        table.touch(&flow, 1, FIN);
        table.touch(&flow, 2, RST);
        assert_eq!(found(&table).bits(), SEEN | FIN | RST);
        assert_eq!(found(&table).last_seen(), 2);
    }

    #[test]
    fn a_touch_of_a_removed_flow_does_not_reach_the_next_in_its_line() {
        let (table, flow) = table_with_key(1);
        assert!(table.remove(&flow));
        let line = |key| NewLine { key, rewrite: Rewrite::default() };
        table.install(&line(KEY), &line(KEY.reversed(2, 0)), 6, 2).unwrap();
        let next = found(&table);
        assert_eq!(next.index(), flow.index(), "else the test shows nothing");
        table.touch(&flow, 3, FIN);
        assert_eq!(found(&table), next);
    }
}
