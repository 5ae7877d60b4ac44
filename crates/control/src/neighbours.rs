//! Neighbours in segments: which MAC address an IPv4 address has, told, asked for and forgotten.
//!
//! Workers say whom they miss and what they hear; this says what to ask, what is believed and when
//! to stop waiting (the states of RFC 4861 §7.3, with ARP for its messages). It sends nothing and
//! reads no clock.

use std::collections::HashMap;

use tables::{Neighbour, Neighbours as Table, SegmentId};
use wire::MacAddr;

/// An address of a segment.
pub type Place = (SegmentId, [u8; 4]);

/// Questions before one is given up, a second apart (RFC 4861: MAX_MULTICAST_SOLICIT).
const TRIES: u32 = 3;
/// How long a neighbour that did not answer is not asked again, seconds.
const GIVEN_UP: u32 = 3;
/// After so long without a sign of life a neighbour is asked whether it is still there, seconds.
const DOUBT: u32 = 60;
/// Neighbours of a segment that may be asked for at once: a guest that scans must neither fill our
/// memory nor keep other tenants from being asked for.
const ASKED: usize = 1024;
/// Neighbours of a segment that may be known: a guest may answer for every address there is.
const KNOWN: usize = 16_384;

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Configuration tells it.
    Fixed(MacAddr),
    /// It answered, or gave another sign of life, at this second; asked so often since.
    Known(MacAddr, u32, u32),
    /// It has been asked so often, last at this second.
    Asked(u32, u32),
    /// It did not answer until this second.
    Failed(u32),
}

/// A question to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Where, and for whom.
    pub place: Place,
    /// Who had it last; everybody, if nobody is known.
    pub to: Option<MacAddr>,
}

/// What became different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing workers need to know.
    None,
    /// Somebody waits for this.
    New,
    /// It has another MAC address now: lines that lead to this one are wrong.
    Moved(MacAddr),
}

/// What time brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Questions to send.
    pub asks: Vec<Ask>,
    /// Neighbours that failed, are forgotten or may be asked again: workers need to know.
    pub changed: Vec<Place>,
    /// The MAC addresses among them that lines may lead to.
    pub lost: Vec<(SegmentId, MacAddr)>,
}

/// All neighbours of the node's segments.
#[derive(Debug, Default)]
pub struct Neighbours {
    segments: HashMap<SegmentId, Segment>,
}

/// Those of one segment.
#[derive(Debug, Default)]
struct Segment {
    known: HashMap<[u8; 4], State>,
    asked: usize,
}

impl Neighbours {
    /// Puts in force what configuration tells; returns the stations that are not where they were.
    pub fn tell(&mut self, told: &HashMap<Place, MacAddr>) -> Vec<(SegmentId, MacAddr)> {
        let mut lost = Vec::new();
        for (segment, here) in &mut self.segments {
            here.known.retain(|address, state| {
                let State::Fixed(mac) = *state else { return true };
                let stays = told.get(&(*segment, *address)) == Some(&mac);
                if !stays {
                    lost.push((*segment, mac));
                }
                stays
            });
        }
        for ((segment, address), mac) in told {
            let here = self.segments.entry(*segment).or_default();
            match here.known.insert(*address, State::Fixed(*mac)) {
                Some(State::Known(before, ..)) if before != *mac => lost.push((*segment, before)),
                Some(State::Asked(..)) => here.asked -= 1,
                _ => {}
            }
        }
        lost
    }

    /// Somebody waits for a neighbour; what to ask, if it has not just been asked.
    pub fn want(&mut self, place: Place, now: u32) -> Option<Ask> {
        let (segment, address) = place;
        let here = self.segments.entry(segment).or_default();
        let to = match here.known.get(&address) {
            None if here.asked >= ASKED || here.known.len() >= KNOWN => return None,
            None => {
                here.asked += 1;
                here.known.insert(address, State::Asked(1, now));
                None
            }
            // Its station is no longer known, so a worker cannot send to it: let it speak.
            Some(State::Fixed(mac)) => Some(*mac),
            Some(State::Known(mac, seen, 0)) => {
                let (mac, seen) = (*mac, *seen);
                here.known.insert(address, State::Known(mac, seen, 1));
                Some(mac)
            }
            Some(State::Known(..) | State::Asked(..) | State::Failed(_)) => return None,
        };
        Some(Ask { place, to })
    }

    /// An earlier daemon knew this neighbour, and packets went there at this second.
    pub fn restore(&mut self, place: Place, mac: MacAddr, seen: u32) {
        let here = self.segments.entry(place.0).or_default();
        if here.known.len() < KNOWN {
            here.known.entry(place.1).or_insert(State::Known(mac, seen, 0));
        }
    }

    /// A neighbour spoke for itself. Who was never asked for is not remembered.
    pub fn heard(&mut self, place: Place, mac: MacAddr, now: u32) -> Change {
        let Some(here) = self.segments.get_mut(&place.0) else { return Change::None };
        let Some(state) = here.known.get_mut(&place.1) else { return Change::None };
        let before = *state;
        if let State::Fixed(_) = before {
            return Change::None;
        }
        *state = State::Known(mac, now, 0);
        match before {
            State::Asked(..) => {
                here.asked -= 1;
                Change::New
            }
            State::Failed(_) => Change::New,
            State::Known(old, ..) if old != mac => Change::Moved(old),
            State::Known(..) | State::Fixed(_) => Change::None,
        }
    }

    /// Asks again, gives up and forgets. `seen` tells when a station last spoke, whatever it said.
    pub fn tick(&mut self, now: u32, seen: impl Fn(SegmentId, MacAddr) -> Option<u32>) -> Tick {
        let mut tick = Tick::default();
        for (segment, here) in &mut self.segments {
            here.tick(*segment, now, |mac| seen(*segment, mac), &mut tick);
        }
        self.segments.retain(|_, here| !here.known.is_empty());
        tick
    }

    /// Forgets what was learned in a segment; returns the stations lines may lead to.
    pub fn forget(&mut self, segment: SegmentId) -> Vec<(SegmentId, MacAddr)> {
        let gone = self.segments.remove(&segment).unwrap_or_default();
        let macs = gone.known.into_values().filter_map(|state| match state {
            State::Fixed(mac) | State::Known(mac, ..) => Some((segment, mac)),
            State::Asked(..) | State::Failed(_) => None,
        });
        macs.collect()
    }

    /// What workers look up.
    pub fn fill(&self, table: &mut Table) {
        for ((segment, address), state) in self.iter() {
            let neighbour = match state {
                State::Fixed(mac) | State::Known(mac, ..) => Neighbour::At(*mac),
                State::Failed(_) => Neighbour::Failed,
                State::Asked(..) => continue,
            };
            table.insert(segment, address, neighbour);
        }
    }

    /// Every neighbour, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &State)> {
        self.segments.iter().flat_map(|(segment, here)| {
            here.known.iter().map(|(address, state)| ((*segment, *address), state))
        })
    }
}

impl Segment {
    fn tick(
        &mut self,
        segment: SegmentId,
        now: u32,
        seen: impl Fn(MacAddr) -> Option<u32>,
        tick: &mut Tick,
    ) {
        let asked = &mut self.asked;
        self.known.retain(|address, state| {
            let place = (segment, *address);
            match *state {
                State::Fixed(_) => true,
                State::Asked(_, last) if now == last => true,
                State::Asked(TRIES.., _) => {
                    *asked -= 1;
                    *state = State::Failed(now + GIVEN_UP);
                    tick.changed.push(place);
                    true
                }
                State::Asked(tries, _) => {
                    *state = State::Asked(tries + 1, now);
                    tick.asks.push(Ask { place, to: None });
                    true
                }
                State::Failed(until) => {
                    if now >= until {
                        tick.changed.push(place);
                    }
                    now < until
                }
                State::Known(mac, since, tries) => {
                    // Whatever it says meanwhile is as good as an answer.
                    let (since, tries) = match seen(mac).filter(|seen| *seen > since) {
                        Some(seen) => (seen, 0),
                        None => (since, tries),
                    };
                    if now.saturating_sub(since) < DOUBT && tries == 0 {
                        *state = State::Known(mac, since, 0);
                        return true;
                    }
                    if tries >= TRIES {
                        tick.changed.push(place);
                        tick.lost.push((segment, mac));
                        return false;
                    }
                    *state = State::Known(mac, since, tries + 1);
                    tick.asks.push(Ask { place, to: Some(mac) });
                    true
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn place(last: u8) -> Place {
        (SegmentId::new(1).unwrap(), [10, 0, 0, last])
    }

    fn never(_: SegmentId, _: MacAddr) -> Option<u32> {
        None
    }

    fn table(neighbours: &Neighbours, last: u8) -> Option<Neighbour> {
        let mut table = Table::default();
        neighbours.fill(&mut table);
        table.find(place(last).0, place(last).1)
    }

    #[test]
    fn who_is_wanted_is_asked_three_times_a_second_apart_and_then_given_up_for_a_while() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.want(place(9), 100), Some(Ask { place: place(9), to: None }));
        assert_eq!(neighbours.want(place(9), 100), None);
        assert_eq!(neighbours.tick(100, never), Tick::default());
        assert_eq!(neighbours.tick(101, never).asks.len(), 1);
        assert_eq!(neighbours.tick(102, never).asks.len(), 1);
        assert_eq!(table(&neighbours, 9), None, "they still wait");
        let tick = neighbours.tick(103, never);
        assert_eq!((tick.asks.len(), tick.changed), (0, vec![place(9)]));
        assert_eq!(table(&neighbours, 9), Some(Neighbour::Failed));
        assert_eq!(neighbours.want(place(9), 104), None);
        assert_eq!(neighbours.tick(106, never).changed, [place(9)]);
        assert!(neighbours.want(place(9), 106).is_some());
    }

    #[test]
    fn an_answer_is_believed_if_somebody_asked() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.heard(place(9), MAC, 100), Change::None);
        assert_eq!(table(&neighbours, 9), None);
        neighbours.want(place(9), 100);
        assert_eq!(neighbours.heard(place(9), MAC, 100), Change::New);
        assert_eq!(table(&neighbours, 9), Some(Neighbour::At(MAC)));
        assert_eq!(neighbours.heard(place(9), MAC, 101), Change::None);
        assert_eq!(neighbours.heard(place(9), OTHER, 101), Change::Moved(MAC));
    }

    #[test]
    fn a_silent_neighbour_is_asked_itself_and_then_forgotten() {
        let mut neighbours = Neighbours::default();
        neighbours.want(place(9), 100);
        neighbours.heard(place(9), MAC, 100);
        assert_eq!(neighbours.tick(159, never), Tick::default());
        for now in 160..163 {
            assert_eq!(neighbours.tick(now, never).asks, [Ask { place: place(9), to: Some(MAC) }]);
        }
        let tick = neighbours.tick(163, never);
        assert_eq!((tick.changed, tick.lost.len()), (vec![place(9)], 1));
        assert_eq!(table(&neighbours, 9), None);
    }

    #[test]
    fn traffic_is_a_sign_of_life() {
        let mut neighbours = Neighbours::default();
        neighbours.want(place(9), 100);
        neighbours.heard(place(9), MAC, 100);
        assert_eq!(neighbours.tick(170, |_, _| Some(150)), Tick::default());
        assert_eq!(neighbours.tick(209, never), Tick::default());
        assert_eq!(neighbours.tick(210, never).asks.len(), 1);
        // Even for one that does not answer the question.
        assert_eq!(neighbours.tick(211, |_, _| Some(211)), Tick::default());
        assert_eq!(neighbours.tick(270, never), Tick::default());
    }

    #[test]
    fn what_configuration_tells_is_not_learned_away() {
        let mut neighbours = Neighbours::default();
        neighbours.want(place(9), 100);
        assert_eq!(neighbours.tell(&HashMap::from([(place(9), MAC)])), []);
        assert_eq!(neighbours.heard(place(9), OTHER, 101), Change::None);
        assert_eq!(neighbours.tick(1000, never), Tick::default());
        assert_eq!(neighbours.tell(&HashMap::new()), [(place(9).0, MAC)]);
        assert_eq!(table(&neighbours, 9), None);
    }

    /// Asks for `count` addresses of a segment and says how many questions that made.
    fn scan(neighbours: &mut Neighbours, segment: SegmentId, count: u32, now: u32) -> usize {
        let places = (0..count).map(|low| (segment, (0x0a00_0000 + low).to_be_bytes()));
        places.filter(|place| neighbours.want(*place, now).is_some()).count()
    }

    #[test]
    fn a_guest_that_scans_fills_no_memory_and_stops_no_other_tenant() {
        let mut neighbours = Neighbours::default();
        let segment = SegmentId::new(1).unwrap();
        assert_eq!(scan(&mut neighbours, segment, 10_000, 100), ASKED);
        assert_eq!(neighbours.iter().count(), ASKED);
        assert_eq!(scan(&mut neighbours, SegmentId::new(2).unwrap(), 1, 100), 1);
        for now in 101..110 {
            neighbours.tick(now, never);
        }
        assert_eq!(neighbours.iter().count(), 0);
        assert!(neighbours.want(place(1), 110).is_some());
    }

    #[test]
    fn a_guest_that_answers_for_every_address_fills_no_memory() {
        let mut neighbours = Neighbours::default();
        let segment = SegmentId::new(1).unwrap();
        for low in 0..KNOWN as u32 + 1000 {
            let place = (segment, (0x0a00_0000 + low).to_be_bytes());
            neighbours.want(place, 100);
            neighbours.heard(place, MAC, 100);
        }
        assert_eq!(neighbours.iter().count(), KNOWN);
    }

    #[test]
    fn a_segment_that_goes_takes_its_neighbours_with_it() {
        let mut neighbours = Neighbours::default();
        neighbours.want(place(9), 100);
        neighbours.heard(place(9), MAC, 100);
        neighbours.want(place(8), 100);
        assert_eq!(neighbours.forget(place(9).0), [(place(9).0, MAC)]);
        assert_eq!(neighbours.iter().count(), 0);
        assert_eq!(neighbours.tick(101, never), Tick::default());
    }
}
