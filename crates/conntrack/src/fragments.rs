//! What the first fragment of a datagram says of all of them: the later ones have no ports.
//!
//! Shared by all workers, since the kernel may bring a later fragment to another one than its
//! first. A set of places for each hash, every place written like a line of the table: claimed by
//! compare-and-swap, filled, published; readers never wait. What the first fragment says is a word
//! of the caller's.

use crate::key::FlowKey;
use crate::layout;
use crate::sync::{AtomicU64, Ordering, fence};

/// What all names of IPv6 datagrams have in the place of a protocol.
const UDP: u8 = 17;

/// How long after its last fragment a datagram is remembered. RFC 6146 §4 asks a translator to wait
/// two seconds at least (FRAGMENT_MIN); numbers of datagrams come round again in less than Linux's
/// thirty (RFC 4963).
pub const FRAGMENT_LIFE_MS: u64 = 2000;

/// Places: at 100,000 fragmented datagrams a second each is remembered for 80 ms, and what is on
/// the way of one datagram comes within a few.
const SETS: usize = 1024;
#[cfg(not(loom))]
const WAYS: usize = 8;
#[cfg(loom)]
const WAYS: usize = 2;

/// A place's turn: how often it was claimed or published, odd while it is being written, and above
/// that the millisecond of the last fragment. A turn of 0 was never claimed.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Another first fragment of the same datagram was here, and said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction;

/// The datagrams whose first fragment has come.
pub struct Fragments {
    places: Box<[Place]>,
    noted: AtomicU64,
    hash_key: u64,
}

struct Place {
    turn: AtomicU64,
    datagram: [AtomicU64; 2],
    says: AtomicU64,
}

#[derive(Clone, Copy)]
struct Seen {
    turn: u64,
    datagram: FlowKey,
    says: u64,
}

impl Fragments {
    /// A table of 8,192 datagrams, 256 kB. The key is random, so that nobody outside can aim at a
    /// set.
    #[must_use]
    pub fn new(hash_key: u64) -> Fragments {
        Fragments::with_sets(SETS, hash_key)
    }

    /// A smaller one, for tests: a power of two of sets.
    #[must_use]
    pub fn with_sets(sets: usize, hash_key: u64) -> Fragments {
        assert!(sets.is_power_of_two());
        let places = (0..sets * WAYS).map(|_| Place::new()).collect();
        Fragments { places, noted: AtomicU64::new(0), hash_key }
    }

    /// The name of a datagram's fragments, which enter by port `ingress` in `zone`.
    ///
    /// The port is part of it as of a flow's key, so that nobody speaks for another's fragments.
    #[must_use]
    pub const fn datagram(
        src: [u8; 4],
        dst: [u8; 4],
        id: u16,
        protocol: u8,
        ingress: u16,
        zone: u16,
    ) -> FlowKey {
        FlowKey::ipv4(src, dst, id, 0, protocol, ingress, zone)
    }

    /// The same of IPv6; `addresses` is what its addresses come to under the table's key. Only the
    /// first fragment says which protocol it is of (RFC 8200 §4.5).
    #[must_use]
    pub const fn datagram6(addresses: u64, id: u32, ingress: u16, segment: u16) -> FlowKey {
        FlowKey::ipv6(addresses, (id >> 16) as u16, id as u16, UDP, ingress, segment)
    }

    /// Remembers what a first fragment says. Where all places are being written it is not, and the
    /// datagram is lost.
    ///
    /// # Errors
    /// [`Contradiction`]: an earlier one of the same name said otherwise, and the later ones are its.
    pub fn note(&self, datagram: FlowKey, says: u64, now_ms: u64) -> Result<(), Contradiction> {
        let set = self.set(datagram);
        if let Some((place, seen)) = find(set, datagram, now_ms) {
            if seen.says != says {
                return Err(Contradiction);
            }
            place.keep(&seen, now_ms);
            return Ok(());
        }
        for _ in 0..WAYS {
            let Some((place, turn)) = room(set, datagram.ingress(), now_ms) else { break };
            if place.take(turn, datagram, says, now_ms) {
                // Who looked before and found nothing sees that there is news.
                self.noted.fetch_add(1, Ordering::Release);
                break;
            }
        }
        Ok(())
    }

    /// What the first fragment of a datagram said, if it has come.
    #[must_use]
    pub fn find(&self, datagram: FlowKey, now_ms: u64) -> Option<u64> {
        let (place, seen) = find(self.set(datagram), datagram, now_ms)?;
        place.keep(&seen, now_ms);
        Some(seen.says)
    }

    /// Whether the first fragment of a datagram has come.
    #[must_use]
    pub fn has(&self, datagram: FlowKey, now_ms: u64) -> bool {
        find(self.set(datagram), datagram, now_ms).is_some()
    }

    /// A number that changes whenever a first fragment has come. Read it *before* looking.
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.noted.load(Ordering::Acquire)
    }

    fn set(&self, datagram: FlowKey) -> &[Place] {
        let hash = layout::hash(datagram.word1, datagram.word2, self.hash_key);
        let first = (hash as usize & (self.places.len() / WAYS - 1)) * WAYS;
        &self.places[first..first + WAYS]
    }
}

/// The place of a datagram that is not forgotten.
fn find(set: &[Place], datagram: FlowKey, now_ms: u64) -> Option<(&Place, Seen)> {
    set.iter().find_map(|place| {
        let seen = place.read()?;
        (seen.datagram == datagram && is_fresh(seen.turn, now_ms)).then_some((place, seen))
    })
}

/// The place to take for a datagram from port `ingress`, and its turn: a free or forgotten one, else
/// the oldest of the port that has most in the set. So a flood of one port costs others nothing.
fn room(set: &[Place], ingress: u16, now_ms: u64) -> Option<(&Place, u64)> {
    let mut all = [None; WAYS];
    for (at, place) in set.iter().enumerate() {
        let turn = place.turn.load(Ordering::Acquire);
        if turn & COUNT == 0 || turn & 1 == 0 && !is_fresh(turn, now_ms) {
            return Some((place, turn));
        }
        all[at] = place.read().map(|seen| (seen.turn, seen.datagram.ingress()));
    }
    let of = |port| {
        let theirs = all.iter().flatten().filter(|(_, other)| *other == port);
        theirs.count() + usize::from(port == ingress)
    };
    let settled = set.iter().zip(&all).filter_map(|(place, seen)| Some((place, (*seen)?)));
    let (place, (turn, _)) =
        settled.max_by_key(|(_, (turn, port))| (of(*port), u64::MAX - (turn >> COUNT_BITS)))?;
    Some((place, turn))
}

fn is_fresh(turn: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(turn >> COUNT_BITS) <= FRAGMENT_LIFE_MS
}

impl Place {
    fn new() -> Place {
        let zero = || AtomicU64::new(0);
        Place { turn: zero(), datagram: [zero(), zero()], says: zero() }
    }

    /// What is there; nothing where it is being written.
    fn read(&self) -> Option<Seen> {
        let turn = self.turn.load(Ordering::Acquire);
        if turn & COUNT == 0 || turn & 1 == 1 {
            return None;
        }
        let [word1, word2] = [&self.datagram[0], &self.datagram[1]];
        let datagram =
            FlowKey { word1: word1.load(Ordering::Relaxed), word2: word2.load(Ordering::Relaxed) };
        let says = self.says.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        // A fragment more moves the time on, and nothing else.
        let same = (self.turn.load(Ordering::Relaxed) ^ turn) & COUNT == 0;
        same.then_some(Seen { turn, datagram, says })
    }

    /// Writes it, if nobody has since it had that turn.
    fn take(&self, turn: u64, datagram: FlowKey, says: u64, now_ms: u64) -> bool {
        let count = turn & COUNT;
        let claimed = (turn & !COUNT) | (count + 1);
        if self.turn.compare_exchange(turn, claimed, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        fence(Ordering::Release);
        self.datagram[0].store(datagram.word1, Ordering::Relaxed);
        self.datagram[1].store(datagram.word2, Ordering::Relaxed);
        self.says.store(says, Ordering::Relaxed);
        // Round the end past 0, which is for places that were never claimed.
        let next = if count + 2 > COUNT { 2 } else { count + 2 };
        self.turn.store(now_ms << COUNT_BITS | next, Ordering::Release);
        true
    }

    /// Remembers it for longer. Written a few times a second at most; a race lost to another
    /// fragment is no loss.
    fn keep(&self, seen: &Seen, now_ms: u64) {
        if now_ms.saturating_sub(seen.turn >> COUNT_BITS) > FRAGMENT_LIFE_MS / 8 {
            let turn = (now_ms << COUNT_BITS) | (seen.turn & COUNT);
            let _ =
                self.turn.compare_exchange(seen.turn, turn, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Fragments {
    /// Neither the places, of which there are thousands, nor the key, which is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fragments").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    const NOW: u64 = 1_000_000;

    fn datagram(ingress: u16, id: u16) -> FlowKey {
        Fragments::datagram([10, 0, 0, 3], [8, 8, 8, 8], id, 17, ingress, 1)
    }

    #[test]
    fn what_a_first_fragment_says_is_found_until_two_seconds_after_the_last() {
        let table = Fragments::new(7);
        assert_eq!(table.find(datagram(1, 5), NOW), None);
        table.note(datagram(1, 5), 77, NOW).unwrap();
        for name in [datagram(2, 5), datagram(1, 6)] {
            assert_eq!(table.find(name, NOW), None, "another port's, another number");
        }
        let mut now = NOW;
        for _ in 0..5 {
            now += FRAGMENT_LIFE_MS;
            assert_eq!(table.find(datagram(1, 5), now), Some(77));
        }
        assert!(!table.has(datagram(1, 5), now + FRAGMENT_LIFE_MS + 1));
    }

    #[test]
    fn another_first_fragment_does_not_take_the_later_ones_over() {
        let table = Fragments::new(7);
        table.note(datagram(1, 5), 77, NOW).unwrap();
        assert_eq!(table.note(datagram(1, 5), 78, NOW + 1), Err(Contradiction));
        assert_eq!(table.note(datagram(1, 5), 77, NOW + 1), Ok(()), "the same again may");
        assert_eq!(table.find(datagram(1, 5), NOW), Some(77));
        // The number has come round.
        let later = NOW + 2 * FRAGMENT_LIFE_MS;
        assert_eq!(table.note(datagram(1, 5), 78, later), Ok(()));
        assert_eq!(table.find(datagram(1, 5), later), Some(78));
    }

    #[test]
    fn every_first_fragment_is_news_once() {
        let table = Fragments::new(7);
        let before = table.noted();
        table.note(datagram(1, 5), 77, NOW).unwrap();
        let once = table.noted();
        assert_ne!(before, once);
        table.note(datagram(1, 5), 77, NOW).unwrap();
        assert_eq!(table.noted(), once);
    }

    #[test]
    fn a_flood_of_one_port_costs_another_nothing_and_its_own_older_ones_their_place() {
        let table = Fragments::new(7);
        for id in 0..200 {
            table.note(datagram(1, id), 1, NOW).unwrap();
        }
        for round in 0..4 {
            for id in 0..=u16::MAX {
                table.note(datagram(2 + round % 2, id), 2, NOW + 1).unwrap();
            }
        }
        assert!((0..200).all(|id| table.has(datagram(1, id), NOW + 2)));
        let of = |port| (0..=u16::MAX).filter(|id| table.has(datagram(port, *id), NOW + 2)).count();
        let left = of(2) + of(3);
        assert!((SETS * WAYS - 400..=SETS * WAYS).contains(&left), "{left}");
    }

    #[test]
    fn a_place_that_was_claimed_for_ever_is_still_told_from_one_that_never_was() {
        let place = Place::new();
        place.turn.store(COUNT - 1, Ordering::Relaxed);
        assert!(place.take(COUNT - 1, datagram(1, 1), 5, NOW));
        assert_eq!(place.turn.load(Ordering::Relaxed) & COUNT, 2);
        assert_eq!(place.read().unwrap().says, 5);
    }

    #[test]
    fn no_read_is_torn_by_writers_that_never_rest() {
        let table = Fragments::with_sets(1, 7);
        let says = |id: u16| u64::from(id) * 0x0001_0001_0001_0001;
        let stop = AtomicBool::new(false);
        let hits = thread::scope(|scope| {
            for ingress in [1, 2] {
                let (table, stop) = (&table, &stop);
                scope.spawn(move || {
                    let mut turn = 0u64;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        turn += 1;
                        let id = (turn % 24) as u16;
                        // Which worker has it does not matter: the name says the rest.
                        table.note(datagram(1, id), says(id), NOW + turn / 64).unwrap();
                        let _ = table.find(datagram(1, id ^ ingress), NOW + turn / 64);
                    }
                });
            }
            let mut hits = 0u64;
            for read in 0..2_000_000u64 {
                let id = (read % 24) as u16;
                if let Some(said) = table.find(datagram(1, id), NOW) {
                    assert_eq!(said, says(id));
                    hits += 1;
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            hits
        });
        assert!(hits > 1000, "{hits}");
    }
}
