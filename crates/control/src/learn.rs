//! Stations: which MAC address is behind which port, learned, told and forgotten.
//!
//! Workers say what they see, this decides what is believed, and the snapshot carries it back to
//! them. A Linux bridge believes the last frame; so does this, but for stations configuration
//! tells, and within a limit per segment, so that no guest fills the table of its neighbours.

use std::collections::HashMap;

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
}

/// All stations of the node.
#[derive(Debug, Default)]
pub struct Stations {
    known: HashMap<Station, Known>,
    learned: HashMap<SegmentId, u32>,
}

impl Stations {
    /// A station spoke. `limit` is how many its segment may learn.
    pub fn see(&mut self, station: Station, port: PortId, now: u32, limit: u32) -> Change {
        if let Some(known) = self.known.get_mut(&station) {
            if known.fixed {
                return Change::None;
            }
            known.seen = now;
            if known.port == port {
                return Change::None;
            }
            known.port = port;
            return Change::Moved;
        }
        let learned = self.learned.entry(station.0).or_default();
        if *learned >= limit {
            return Change::Full;
        }
        *learned += 1;
        self.known.insert(station, Known { port, fixed: false, seen: now });
        Change::Added
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
                        self.unlearn(station.0);
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
            if self.known.remove(station).is_some_and(|known| !known.fixed) {
                self.unlearn(station.0);
            }
        }
        forgotten
    }

    fn unlearn(&mut self, segment: SegmentId) {
        if let Some(learned) = self.learned.get_mut(&segment) {
            *learned = learned.saturating_sub(1);
        }
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

    #[test]
    fn a_station_is_learned_moves_and_ages() {
        let mut stations = Stations::default();
        assert_eq!(stations.see(station(1, 1), port(1), 100, 9), Change::Added);
        assert_eq!(stations.see(station(1, 1), port(1), 200, 9), Change::None);
        assert_eq!(stations.see(station(1, 1), port(2), 201, 9), Change::Moved);
        assert_eq!(stations.fdb().find(SegmentId::new(1).unwrap(), MAC).unwrap().port, port(2));
        assert_eq!(stations.age(500, 300), []);
        assert_eq!(stations.age(501, 300), [station(1, 1)]);
        assert!(stations.is_empty());
    }

    #[test]
    fn a_full_segment_learns_no_more_until_something_ages_and_harms_no_other() {
        let mut stations = Stations::default();
        for last in 0..3 {
            assert_eq!(stations.see(station(1, last), port(1), u32::from(last), 3), Change::Added);
        }
        assert_eq!(stations.see(station(1, 9), port(1), 5, 3), Change::Full);
        assert_eq!(stations.see(station(2, 9), port(1), 5, 3), Change::Added);
        assert_eq!(stations.age(300, 300), [station(1, 0)]);
        assert_eq!(stations.see(station(1, 9), port(1), 301, 3), Change::Added);
    }

    #[test]
    fn what_configuration_tells_is_neither_moved_nor_aged() {
        let mut stations = Stations::default();
        stations.see(station(1, 1), port(1), 0, 1);
        let told = HashMap::from([(station(1, 1), port(7))]);
        assert_eq!(stations.tell(&told), [station(1, 1)]);
        assert_eq!(stations.see(station(1, 1), port(1), 0, 1), Change::None);
        assert_eq!(stations.age(10_000, 300), []);
        // Its place among the learned is free again.
        assert_eq!(stations.see(station(1, 2), port(1), 0, 1), Change::Added);
        assert_eq!(stations.tell(&told), []);
        assert_eq!(stations.tell(&HashMap::new()), [station(1, 1)]);
    }

    #[test]
    fn a_port_that_goes_takes_its_learned_stations_with_it() {
        let mut stations = Stations::default();
        stations.see(station(1, 1), port(1), 0, 9);
        stations.see(station(1, 2), port(2), 0, 9);
        assert_eq!(stations.forget_learned(|_, at| at == port(1)), [station(1, 1)]);
        assert_eq!(stations.len(), 1);
    }
}
