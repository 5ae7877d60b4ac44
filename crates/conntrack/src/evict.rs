//! Making room: who may go when a key's homes are full, and who may not.
//!
//! An attacker who fills homes with connections of its own must not push out those of others. So
//! an established connection never goes, and everything else only after it has been idle as long
//! as its class says: what is over first, what may never have begun next.

use std::sync::atomic::Ordering::Relaxed;

use crate::flow::Flow;
use crate::layout::{FIN, HOME, OUTLIVED, RST, SEEN};
use crate::table::Table;

const TCP: u8 = 6;
/// How long a connection of each class must have been idle, seconds.
const HALF_OPEN: u32 = 5;
const UNANSWERED: u32 = 30;
const IDLE: u32 = 120;

/// Connections that may go, the first to go first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// TCP that both ends have closed, or one has reset.
    Closed,
    /// TCP that nobody answered.
    HalfOpen,
    /// Anything else that nobody answered, and frames that are only bridged.
    Unanswered,
    /// UDP, ICMP and the like that fell silent.
    Idle,
}

/// The class of a connection that has been idle for so long; none for one that stays.
pub(crate) fn class(original: &Flow, reply: &Flow, idle: u32) -> Option<Class> {
    let key = original.key();
    if key.is_l2() {
        return (idle >= UNANSWERED).then_some(Class::Unanswered);
    }
    let (either, both) = (original.bits() | reply.bits(), original.bits() & reply.bits());
    let answered = both & SEEN != 0;
    if key.protocol() == TCP {
        let is_over = both & FIN != 0 || (either & RST != 0 && either & OUTLIVED == 0);
        return match (is_over, answered) {
            (true, _) => Some(Class::Closed),
            (false, false) if idle >= HALF_OPEN => Some(Class::HalfOpen),
            (false, _) => None,
        };
    }
    match (answered, idle) {
        (true, IDLE..) => Some(Class::Idle),
        (false, UNANSWERED..) => Some(Class::Unanswered),
        _ => None,
    }
}

impl Table {
    /// Connections that had to go for new ones since this table was made.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Ends the connection in these homes that may go soonest; false if none may.
    pub(crate) fn make_room(&self, homes: [u32; 2], now: u32) -> bool {
        let lines = homes.into_iter().flat_map(|first| first..first + HOME as u32);
        let victim = lines
            .filter_map(|index| {
                let flow = self.at(index)?;
                let other = self.at(flow.partner()).filter(|other| other.partner() == index)?;
                let (original, reply) = if flow.is_reply() { (other, flow) } else { (flow, other) };
                let silent = |flow: &Flow| now.wrapping_sub(flow.last_seen()) as i32;
                let idle = silent(&original).min(silent(&reply)).max(0).unsigned_abs();
                let class = class(&original, &reply, idle)?;
                Some((class, std::cmp::Reverse(idle), original))
            })
            .min_by_key(|(class, idle, _)| (*class, *idle));
        let gone = victim.is_some_and(|(_, _, original)| self.remove(&original));
        if gone {
            self.evicted.fetch_add(1, Relaxed);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::FlowKey;
    use crate::{InstallError, Installed, NewLine, Rewrite};

    const NOW: u32 = 10_000;

    fn key(protocol: u8, sport: u16) -> FlowKey {
        FlowKey::ipv4([10, 0, 0, 3], [8, 8, 8, 8], sport, 53, protocol, 7, 1)
    }

    fn line(key: FlowKey) -> NewLine {
        NewLine { key, rewrite: Rewrite::default() }
    }

    fn open(
        table: &Table,
        protocol: u8,
        sport: u16,
        now: u32,
    ) -> Result<(Flow, Flow), InstallError> {
        let key = key(protocol, sport);
        match table.install(&line(key), &line(key.reversed(2, 0)), 1, now)? {
            Installed::New { original, reply } => Ok((original, reply)),
            Installed::Existing(flow) => panic!("{flow:?}"),
        }
    }

    /// One home, full of two connections, the first with these bits of both directions; whether a
    /// third gets in after so long.
    fn room(protocol: u8, bits: [u16; 2], idle: u32) -> bool {
        let table = Table::in_memory(4, 1);
        let (original, reply) = open(&table, protocol, 1, NOW).unwrap();
        let (established, answer) = open(&table, TCP, 2, NOW).unwrap();
        for (flow, bits) in [(original, bits[0]), (reply, bits[1])] {
            if bits != 0 {
                table.touch(&flow, NOW, bits);
            }
        }
        table.touch(&established, NOW, 0);
        table.touch(&answer, NOW, 0);
        let opened = open(&table, 17, 3, NOW + idle).is_ok();
        let there = |key: FlowKey| table.find(key, table.hash(key)).is_some();
        assert!(there(key(TCP, 2)), "an established connection stays whatever happens");
        assert_eq!((opened, opened), (!there(key(protocol, 1)), table.evicted() == 1));
        opened
    }

    #[test]
    fn each_class_goes_when_it_has_been_idle_long_enough_and_not_before() {
        for (protocol, bits, after) in [
            (TCP, [SEEN | FIN, SEEN | FIN], 0),
            (TCP, [SEEN | RST, SEEN], 0),
            (TCP, [SEEN, 0], HALF_OPEN),
            (17, [SEEN, 0], UNANSWERED),
            (17, [SEEN, SEEN], IDLE),
            (1, [SEEN, 0], UNANSWERED),
        ] {
            assert!(room(protocol, bits, after), "{protocol} {bits:?} after {after}");
            assert!(after == 0 || !room(protocol, bits, after - 1), "{protocol} {bits:?} early");
        }
    }

    #[test]
    fn established_tcp_and_one_that_outlived_a_blind_reset_never_go() {
        assert!(!room(TCP, [SEEN, SEEN], 7000));
        assert!(!room(TCP, [SEEN | FIN, SEEN], 7000), "half closed");
        assert!(!room(TCP, [SEEN | RST | OUTLIVED, SEEN], 7000));
    }

    #[test]
    fn what_is_over_goes_before_what_may_never_have_begun() {
        let table = Table::in_memory(4, 1);
        open(&table, TCP, 1, NOW).unwrap();
        let (closed, answer) = open(&table, TCP, 2, NOW).unwrap();
        table.touch(&closed, NOW, FIN);
        table.touch(&answer, NOW, FIN);
        open(&table, 17, 3, NOW + 100).unwrap();
        let there = |key: FlowKey| table.find(key, table.hash(key)).is_some();
        assert_eq!((there(key(TCP, 1)), there(key(TCP, 2))), (true, false));
    }
}
