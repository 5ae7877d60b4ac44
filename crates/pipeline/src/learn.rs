//! What workers tell the control thread: stations seen, neighbours wanted and heard, ports that
//! need another hook, and what VMs ask by DHCP.

use tables::{Fdb, Link, PortId, SegmentId};
use wire::MacAddr;

use crate::DropReason;
use crate::connect::Question;
use crate::dhcp::{Asked, Asking};

/// Something the control thread should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A station spoke on this port.
    Seen {
        /// Its segment.
        segment: SegmentId,
        /// Its address.
        mac: MacAddr,
        /// Where it spoke.
        port: PortId,
    },
    /// A packet waits for this neighbour.
    Wanted {
        /// Where it is asked for.
        link: Link,
        /// Its address.
        address: [u8; 4],
    },
    /// A neighbour said where it is.
    Heard {
        /// Its segment.
        segment: SegmentId,
        /// Its IPv4 address.
        address: [u8; 4],
        /// Its MAC address.
        mac: MacAddr,
    },
    /// A connection was forbidden, and that is to be logged.
    Denied {
        /// Why.
        reason: DropReason,
        /// What was asked.
        question: Question,
    },
    /// A guest behind an XDP hook leaves checksums to a device that is not there.
    PartialChecksum {
        /// The guest's port.
        port: PortId,
    },
}

/// Stations remembered as told; a power of two.
const RECENT: usize = 1024;
/// Notices held until the batch is done; more are told by later packets.
const NOTICES: usize = 256;
/// A station that goes on speaking is told again after this time, seconds: a tenth of nova's
/// (the Linux bridge's) ageing time of 300 s.
const TELL_AGAIN: u32 = 30;

/// Where something is remembered: the top bits of a product depend on all of its bits (Fibonacci
/// hashing).
fn slot(what: u64) -> usize {
    (what.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % RECENT
}

/// One worker's memory of what it has told.
#[derive(Debug)]
pub struct Learner {
    /// (segment and address, port, when), by hash of the first.
    recent: Box<[(u64, PortId, u32)]>,
    /// (link and address by hash, when): neighbours asked for.
    wanted: Box<[(u64, u32)]>,
    /// (question by hash, when): forbidden connections told of.
    denied: Box<[(u64, u32)]>,
    notices: Vec<Notice>,
    pub(crate) dhcp: Asking,
}

impl Default for Learner {
    fn default() -> Self {
        Self {
            recent: vec![(0, PortId::NONE, 0); RECENT].into_boxed_slice(),
            wanted: vec![(0, 0); RECENT].into_boxed_slice(),
            denied: vec![(0, 0); RECENT].into_boxed_slice(),
            notices: Vec::with_capacity(NOTICES),
            dhcp: Asking::default(),
        }
    }
}

impl Learner {
    /// A station spoke: tells so if that is news, or has not been told for a while.
    #[inline]
    pub fn see(&mut self, fdb: &Fdb, segment: SegmentId, mac: MacAddr, port: PortId, now: u32) {
        let station = u64::from(segment.get()) << 48 | mac.to_u64();
        let Some(recent) = self.recent.get_mut(slot(station)) else { return };
        let told = *recent;
        let known = fdb.find(segment, mac);
        if known.is_some_and(|entry| entry.fixed) {
            return;
        }
        let same = told.0 == station && told.1 == port;
        let wait = if known.is_some_and(|entry| entry.port == port) { TELL_AGAIN } else { 1 };
        if same && now.saturating_sub(told.2) < wait {
            return;
        }
        if self.notices.len() < NOTICES {
            *recent = (station, port, now);
            self.notices.push(Notice::Seen { segment, mac, port });
        }
    }

    /// A packet waits for a neighbour: tells so once a second.
    pub(crate) fn want(&mut self, link: Link, address: [u8; 4], now: u32) {
        let place = match link {
            Link::Segment(segment) => u64::from(segment.get()),
            Link::Public(port) => u64::from(port.get()) | 1 << 12,
        };
        let who = place << 32 | u64::from(u32::from_be_bytes(address));
        let Some(wanted) = self.wanted.get_mut(slot(who)) else { return };
        if *wanted != (who, now) && self.notices.len() < NOTICES {
            *wanted = (who, now);
            self.notices.push(Notice::Wanted { link, address });
        }
    }

    /// A neighbour spoke, asked or with a new address.
    pub(crate) fn heard(&mut self, segment: SegmentId, address: [u8; 4], mac: MacAddr) {
        if self.notices.len() < NOTICES {
            self.notices.push(Notice::Heard { segment, address, mac });
        }
    }

    /// A connection was forbidden: tells so once a second, and of few in a batch.
    pub(crate) fn denied(&mut self, reason: DropReason, question: &Question, now: u32) {
        let [a, b] = question.port.to_be_bytes();
        let [c, d, e, f] = question.destination;
        let who = u64::from_be_bytes([question.protocol, reason as u8, a, b, c, d, e, f])
            ^ u64::from(u32::from_be_bytes(question.source)) << 8
            ^ u64::from(question.ingress.get());
        let Some(told) = self.denied.get_mut(slot(who)) else { return };
        if *told != (who, now) && self.notices.len() < NOTICES / 4 {
            *told = (who, now);
            self.notices.push(Notice::Denied { reason, question: *question });
        }
    }

    /// A guest's checksum was left unfinished.
    pub(crate) fn partial_checksum(&mut self, port: PortId) {
        if self.notices.len() < NOTICES {
            self.notices.push(Notice::PartialChecksum { port });
        }
    }

    /// Hands over what there is to tell.
    pub fn notices(&mut self) -> impl Iterator<Item = Notice> + '_ {
        self.notices.drain(..)
    }

    /// Hands over the DHCP requests there are to answer.
    pub fn asked(&mut self) -> impl Iterator<Item = Asked> + '_ {
        self.dhcp.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tables::FdbEntry;

    fn ids() -> (SegmentId, MacAddr, PortId) {
        (SegmentId::new(1).unwrap(), MacAddr([2, 0, 0, 0, 0, 9]), PortId::new(3).unwrap())
    }

    #[test]
    fn a_known_station_is_told_twice_a_minute_and_a_fixed_one_never() {
        let (segment, mac, port) = ids();
        let mut learner = Learner::default();
        let mut fdb = Fdb::default();
        learner.see(&fdb, segment, mac, port, 100);
        assert_eq!(learner.notices().count(), 1);
        fdb.insert(segment, mac, FdbEntry { port, fixed: false });
        for now in 101..130 {
            learner.see(&fdb, segment, mac, port, now);
        }
        assert_eq!(learner.notices().count(), 0);
        learner.see(&fdb, segment, mac, port, 130);
        assert_eq!(learner.notices().count(), 1);
        fdb.insert(segment, mac, FdbEntry { port, fixed: true });
        learner.see(&fdb, segment, mac, port, 1000);
        assert_eq!(learner.notices().count(), 0);
    }

    #[test]
    fn a_move_is_told_at_once() {
        let (segment, mac, port) = ids();
        let other = PortId::new(4).unwrap();
        let mut learner = Learner::default();
        let mut fdb = Fdb::default();
        fdb.insert(segment, mac, FdbEntry { port, fixed: false });
        learner.see(&fdb, segment, mac, port, 100);
        learner.see(&fdb, segment, mac, other, 100);
        let told: Vec<_> = learner.notices().collect();
        assert_eq!(told[1], Notice::Seen { segment, mac, port: other });
    }

    #[test]
    fn what_is_forbidden_is_told_once_a_second_and_never_fills_the_queue() {
        let mut learner = Learner::default();
        let ask = |last, port| Question {
            ingress: ids().2,
            zone: tables::ZoneId::new(1).unwrap(),
            source: [10, 0, 0, last],
            destination: [10, 0, 0, 1],
            protocol: 6,
            port,
        };
        for now in [100, 100, 101, 101] {
            learner.denied(DropReason::HostDenied, &ask(3, 22), now);
        }
        assert_eq!(learner.notices().count(), 2);
        for port in 1..2000 {
            learner.denied(DropReason::HostDenied, &ask(3, port), 102);
        }
        assert_eq!(learner.notices().count(), NOTICES / 4);
    }

    #[test]
    fn a_flood_of_new_addresses_never_grows_the_queue() {
        let (segment, _, port) = ids();
        let mut learner = Learner::default();
        for low in 0..10_000u16 {
            let [a, b] = low.to_be_bytes();
            learner.see(&Fdb::default(), segment, MacAddr([2, 0, 0, 0, a, b]), port, 1);
        }
        assert_eq!(learner.notices().count(), NOTICES);
    }
}
