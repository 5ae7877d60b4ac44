//! Stations: which MAC address is behind which port, learned, told and forgotten.
//!
//! Workers say what they see, this decides what is believed, and the snapshot carries it back to
//! them. A Linux bridge believes the last frame; so does this, but for stations configuration
//! tells, and within a limit per segment, and one per port, so that no guest fills the table of its
//! neighbours.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tables::{Fdb, FdbEntry, PortId, SegmentId};
use wire::MacAddr;

/// A station is a MAC address in a segment.
pub type Station = (SegmentId, MacAddr);

/// What is known of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The port that leads to it.
    pub port: PortId,
    /// Whether configuration tells it.
    pub fixed: bool,
    /// When it was last seen, seconds since boot.
    pub seen: u32,
}

/// What a sighting changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing workers need to know.
    None,
    /// A new station: frames to it need not be flooded any more.
    Added,
    /// It speaks on another port now: lines that lead to the old one are wrong.
    Moved,
    /// The segment knows as many stations as it may.
    Full,
    /// As many are behind this port as may be.
    PortFull,
}

/// How many stations may be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// In the station's segment.
    pub segment: u32,
    /// Behind the port it spoke on.
    pub port: u32,
}

/// All stations of the node.
#[derive(Debug, Default)]
pub struct Stations {
    known: HashMap<Station, Known>,
    learned: HashMap<SegmentId, u32>,
    behind: HashMap<PortId, u32>,
}

impl Stations {
    /// A station spoke, where there is so much room for it.
    pub fn see(&mut self, station: Station, port: PortId, now: u32, room: Room) -> Change {
        let is_full = self.learned_behind(port) >= room.port;
        if let Some(known) = self.known.get_mut(&station) {
            if known.fixed {
                return Change::None;
            }
            if known.port != port && is_full {
                return Change::PortFull;
            }
            known.seen = now;
            let before = std::mem::replace(&mut known.port, port);
            if before == port {
                return Change::None;
            }
            less(&mut self.behind, before);
            *self.behind.entry(port).or_default() += 1;
            return Change::Moved;
        }
        if is_full {
            return Change::PortFull;
        }
        let learned = self.learned.entry(station.0).or_default();
        if *learned >= room.segment {
            return Change::Full;
        }
        *learned += 1;
        *self.behind.entry(port).or_default() += 1;
        self.known.insert(station, Known { port, fixed: false, seen: now });
        Change::Added
    }

    /// How many stations were learned behind a port.
    #[must_use]
    pub fn learned_behind(&self, port: PortId) -> u32 {
        self.behind.get(&port).copied().unwrap_or_default()
    }

    /// Puts in force what configuration tells; returns the stations whose way changed by it.
    pub fn tell(&mut self, told: &HashMap<Station, PortId>) -> Vec<Station> {
        let gone = |station: &Station, known: &Known| known.fixed && !told.contains_key(station);
        let mut changed = self.forget(gone);
        for (station, port) in told {
            let entry = Known { port: *port, fixed: true, seen: 0 };
            match self.known.insert(*station, entry) {
                Some(before) => {
                    if !before.fixed {
                        self.unlearn(station.0, before.port);
                    }
                    if before.port != *port {
                        changed.push(*station);
                    }
                }
                None => changed.push(*station),
            }
        }
        changed
    }

    /// Forgets stations that have not been seen for `ageing` seconds; returns them.
    pub fn age(&mut self, now: u32, ageing: u32) -> Vec<Station> {
        self.forget(|_, known| !known.fixed && now.saturating_sub(known.seen) >= ageing)
    }

    /// Forgets what was learned on a port that went away, or in a segment; returns it.
    pub fn forget_learned(&mut self, which: impl Fn(&Station, PortId) -> bool) -> Vec<Station> {
        self.forget(|station, known| !known.fixed && which(station, known.port))
    }

    fn forget(&mut self, gone: impl Fn(&Station, &Known) -> bool) -> Vec<Station> {
        let forgotten: Vec<Station> =
            self.known.iter().filter(|(at, known)| gone(at, known)).map(|(at, _)| *at).collect();
        for station in &forgotten {
            if let Some(known) = self.known.remove(station).filter(|known| !known.fixed) {
                self.unlearn(station.0, known.port);
            }
        }
        forgotten
    }

    fn unlearn(&mut self, segment: SegmentId, port: PortId) {
        less(&mut self.learned, segment);
        less(&mut self.behind, port);
    }

    /// What workers look up.
    #[must_use]
    pub fn fdb(&self) -> Fdb {
        let mut fdb = Fdb::default();
        for ((segment, mac), known) in &self.known {
            fdb.insert(*segment, *mac, FdbEntry { port: known.port, fixed: known.fixed });
        }
        fdb
    }

    /// When a station was last seen, seconds since boot; nothing for one that is told or unknown.
    #[must_use]
    pub fn seen(&self, station: Station) -> Option<u32> {
        self.known.get(&station).filter(|known| !known.fixed).map(|known| known.seen)
    }

    /// Every station, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Station, &Known)> {
        self.known.iter()
    }

    /// Number of stations known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no station is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// One less; what comes to nothing is forgotten.
fn less<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn station(segment: u16, last: u8) -> Station {
        (SegmentId::new(segment).unwrap(), MacAddr([2, 0, 0, 0, 0, last]))
    }

    fn port(number: u16) -> PortId {
        PortId::new(number).unwrap()
    }

    /// Room in the segment, and any behind a port.
    fn segment(room: u32) -> Room {
        Room { segment: room, port: u32::MAX }
    }

    #[test]
    fn behind_one_port_so_many_are_learned_and_others_find_their_segment_open() {
        let mut stations = Stations::default();
        let room = Room { segment: 9, port: 2 };
        for last in 1..=2 {
            assert_eq!(stations.see(station(1, last), port(1), 0, room), Change::Added);
        }
        assert_eq!(stations.see(station(1, 3), port(1), 0, room), Change::PortFull);
        assert_eq!(stations.see(station(2, 3), port(1), 0, room), Change::PortFull);
        assert_eq!(stations.see(station(1, 2), port(1), 1, room), Change::None);
        assert_eq!(stations.see(station(1, 3), port(2), 0, room), Change::Added);
        // Nor does it take a station from another port that way.
        assert_eq!(stations.see(station(1, 3), port(1), 0, room), Change::PortFull);
        assert_eq!(stations.see(station(1, 1), port(2), 1, room), Change::Moved);
        assert_eq!((stations.learned_behind(port(1)), stations.learned_behind(port(2))), (1, 2));
        assert_eq!(stations.see(station(1, 4), port(1), 1, room), Change::Added);
        stations.forget_learned(|_, at| at == port(1));
        assert_eq!((stations.learned_behind(port(1)), stations.learned_behind(port(2))), (0, 2));
    }

    #[test]
    fn a_station_is_learned_moves_and_ages() {
        let mut stations = Stations::default();
        assert_eq!(stations.see(station(1, 1), port(1), 100, segment(9)), Change::Added);
        assert_eq!(stations.see(station(1, 1), port(1), 200, segment(9)), Change::None);
        assert_eq!(stations.see(station(1, 1), port(2), 201, segment(9)), Change::Moved);
        assert_eq!(stations.fdb().find(SegmentId::new(1).unwrap(), MAC).unwrap().port, port(2));
        assert_eq!(stations.age(500, 300), []);
        assert_eq!(stations.age(501, 300), [station(1, 1)]);
        assert!(stations.is_empty());
    }

    #[test]
    fn a_full_segment_learns_no_more_until_something_ages_and_harms_no_other() {
        let mut stations = Stations::default();
        for last in 0..3 {
            assert_eq!(
                stations.see(station(1, last), port(1), u32::from(last), segment(3)),
                Change::Added
            );
        }
        assert_eq!(stations.see(station(1, 9), port(1), 5, segment(3)), Change::Full);
        assert_eq!(stations.see(station(2, 9), port(1), 5, segment(3)), Change::Added);
        assert_eq!(stations.age(300, 300), [station(1, 0)]);
        assert_eq!(stations.see(station(1, 9), port(1), 301, segment(3)), Change::Added);
    }

    #[test]
    fn what_configuration_tells_is_neither_moved_nor_aged() {
        let mut stations = Stations::default();
        stations.see(station(1, 1), port(1), 0, segment(1));
        let told = HashMap::from([(station(1, 1), port(7))]);
        assert_eq!(stations.tell(&told), [station(1, 1)]);
        assert_eq!(stations.see(station(1, 1), port(1), 0, segment(1)), Change::None);
        assert_eq!(stations.age(10_000, 300), []);
        // Its place among the learned is free again.
        assert_eq!(stations.see(station(1, 2), port(1), 0, segment(1)), Change::Added);
        assert_eq!(stations.tell(&told), []);
        assert_eq!(stations.tell(&HashMap::new()), [station(1, 1)]);
    }

    #[test]
    fn a_port_that_goes_takes_its_learned_stations_with_it() {
        let mut stations = Stations::default();
        stations.see(station(1, 1), port(1), 0, segment(9));
        stations.see(station(1, 2), port(2), 0, segment(9));
        assert_eq!(stations.forget_learned(|_, at| at == port(1)), [station(1, 1)]);
        assert_eq!(stations.len(), 1);
    }
}
