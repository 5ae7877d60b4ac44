//! The sweep: connections end when they are idle, and say which addresses are still in use.

use crate::flow::Flow;
use crate::layout::{FIN, OUTLIVED, REPLY, RST, RST_TIME_SHIFT, SEEN};
use crate::line::Glance;
use crate::table::Table;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
/// Later than this after an RST, a packet shows that the RST was a blind one.
const RST_IS_BLIND_AFTER: i32 = 10;
/// The RST's time has that many bits.
const RST_TIME_MASK: u32 = 0x7ff;

/// How long a connection may be idle, in both directions, before its lines are freed; seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TCP seen in both directions, without FIN or RST (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: u32,
    /// TCP that opens or closes (RFC 5382 REQ-5: at least 4 min).
    pub tcp_transitory: u32,
    /// UDP and everything else (RFC 4787 REQ-5: 5 min recommended).
    pub udp: u32,
    /// ICMP echo (RFC 5508 REQ-1: at least 60 s).
    pub icmp: u32,
    /// Frames bridged by MAC: as long as a Linux bridge keeps an fdb entry.
    pub l2: u32,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { tcp_established: 7440, tcp_transitory: 240, udp: 300, icmp: 60, l2: 300 }
    }
}

impl Timeouts {
    /// The timeout of a connection: a function of its protocol and both directions' state bits.
    pub fn of(&self, original: &Flow, reply: &Flow) -> u32 {
        let key = original.key();
        if key.is_l2() {
            return self.l2;
        }
        match key.protocol() {
            ICMP | ICMPV6 => self.icmp,
            TCP => {
                let either = original.bits() | reply.bits();
                let both = original.bits() & reply.bits();
                let is_reset = either & RST != 0 && either & OUTLIVED == 0;
                if both & SEEN != 0 && either & FIN == 0 && !is_reset {
                    self.tcp_established
                } else {
                    self.tcp_transitory
                }
            }
            _ => self.udp,
        }
    }
}

/// Where one sweeper is in its share of the table. Each worker has its own.
#[derive(Clone, Debug)]
pub struct Cursor {
    first: u32,
    end: u32,
    next: u32,
    pass_began: u32,
    last_pass_began: u32,
}

impl Cursor {
    /// A sweeper of the share `part` of `parts` of a table, beginning at `now`.
    pub fn new(table: &Table, part: u32, parts: u32, now: u32) -> Cursor {
        assert!(part < parts);
        let edge = |part: u32| {
            u32::try_from(u64::from(table.len()) * u64::from(part) / u64::from(parts))
                .expect("not beyond the table, whose length is a u32")
        };
        let first = edge(part);
        Cursor { first, end: edge(part + 1), next: first, pass_began: now, last_pass_began: now }
    }

    fn advance(&mut self, now: u32) {
        self.next += 1;
        if self.next >= self.end {
            self.next = self.first;
            self.last_pass_began = self.pass_began;
            self.pass_began = now;
        }
    }
}

/// What the sweep tells its caller.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// `flow` had packets since the sweep last came by. So its source is alive: for IPv6 and L2 lines its
    /// [`Flow::source_mac`] at the ingress; else what `other`, the opposite direction, has as
    /// destination MAC and egress.
    Seen {
        /// The direction that had packets.
        flow: Flow,
        /// The opposite direction.
        other: Flow,
    },
    /// A connection was idle too long; its lines are free.
    Expired {
        /// The direction of the packet that opened it.
        original: Flow,
        /// The direction of the answers.
        reply: Flow,
    },
}

/// What one call of [`Table::sweep`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Connections freed.
    pub expired: u32,
    /// Lines freed whose other direction was gone.
    pub halves: u32,
}

impl Table {
    /// Looks at the next `lines` lines of the cursor's share: frees connections idle for longer
    /// than their timeout, reports those that had packets.
    ///
    /// The line of the original direction decides for both.
    pub fn sweep(
        &self,
        cursor: &mut Cursor,
        lines: u32,
        now: u32,
        timeouts: &Timeouts,
        mut event: impl FnMut(Event),
    ) -> Swept {
        let mut swept = Swept::default();
        for _ in 0..lines.min(cursor.end - cursor.first) {
            let index = cursor.next;
            let since = cursor.last_pass_began;
            if let Glance::Live(flow) = self.lines[index as usize].glance(index) {
                self.sweep_one(&flow, since, now, timeouts, &mut event, &mut swept);
            }
            cursor.advance(now);
        }
        swept
    }

    fn sweep_one(
        &self,
        flow: &Flow,
        since: u32,
        now: u32,
        timeouts: &Timeouts,
        event: &mut impl FnMut(Event),
        swept: &mut Swept,
    ) {
        let partner = flow.partner();
        let other = match self.lines.get(partner as usize).map(|line| line.glance(partner)) {
            Some(Glance::Live(other)) if other.partner() == flow.index => other,
            // Half-way through an install or a change; the next pass sees more.
            Some(Glance::Passing) => return,
            _ => {
                swept.halves += u32::from(self.free_unchanged(flow));
                return;
            }
        };
        if flow.bits() & SEEN != 0 && elapsed(since, flow.last_seen()) >= 0 {
            event(Event::Seen { flow: *flow, other });
        }
        if flow.flags() & REPLY != 0 {
            return;
        }
        let (original, reply) = (*flow, other);
        let idle = elapsed(original.last_seen(), now).min(elapsed(reply.last_seen(), now));
        if i64::from(idle) > i64::from(timeouts.of(&original, &reply)) {
            if self.remove(&original) {
                swept.expired += 1;
                event(Event::Expired { original, reply });
            }
        } else if (original.bits() | reply.bits()) & RST != 0 {
            self.watch_reset(&original, &reply, now);
        }
    }

    /// Anyone who guesses addresses and ports can send an RST. A real one ends both directions;
    /// a connection of which both are still seen 10 s later keeps its long timeout.
    ///
    /// Only the sweep looks at both directions, so it is the sweep that notes when it first saw
    /// the RST, in the original's state bits, and later that the connection outlived it.
    fn watch_reset(&self, original: &Flow, reply: &Flow, now: u32) {
        if original.bits() & OUTLIVED != 0 {
            return;
        }
        let noted = u32::from(original.bits() >> RST_TIME_SHIFT);
        let bits = if noted == 0 {
            // 0 means not noted, so a time of 0 is noted a second late.
            (((now & RST_TIME_MASK).max(1)) as u16) << RST_TIME_SHIFT
        } else {
            let noted = now.wrapping_sub(now.wrapping_sub(noted) & RST_TIME_MASK);
            let outlived = |flow: &Flow| elapsed(noted, flow.last_seen()) > RST_IS_BLIND_AFTER;
            if !(outlived(original) && outlived(reply)) {
                return;
            }
            OUTLIVED
        };
        self.lines[original.index as usize].touch(original, original.last_seen(), bits);
    }
}

/// Seconds from `from` to `to`, negative if `to` is earlier: the clock's 32 bits may wrap.
fn elapsed(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowKey, Installed, NewLine, Rewrite};

    const BEGIN: u32 = 100_000;

    fn key(protocol: u8, ingress: u16) -> FlowKey {
        FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], 1, 2, protocol, ingress, 1)
    }

    fn open(table: &Table, original: FlowKey, reply: FlowKey) -> (Flow, Flow) {
        let line = |key| NewLine { key, rewrite: Rewrite::default() };
        match table.install(&line(original), &line(reply), 5, BEGIN) {
            Ok(Installed::New { original, reply }) => (original, reply),
            other => panic!("{other:?}"),
        }
    }

    /// A pass over the whole table; what it told.
    fn pass(table: &Table, cursor: &mut Cursor, now: u32) -> (Swept, Vec<Event>) {
        let mut events = Vec::new();
        let swept =
            table.sweep(cursor, table.len(), now, &Timeouts::default(), |event| events.push(event));
        (swept, events)
    }

    /// How long the connection lives on after its last packet at `BEGIN + seen`.
    fn lives_for(table: &Table, seen: u32) -> u32 {
        let mut cursor = Cursor::new(table, 0, 1, BEGIN);
        let mut now = BEGIN + seen;
        while table.occupancy().live > 0 {
            now += 1;
            pass(table, &mut cursor, now);
        }
        now - BEGIN - seen - 1
    }

    #[test]
    fn each_protocol_has_its_timeout() {
        let l2 = |ingress| FlowKey::l2([2; 6], [4; 6], 0x86dd, ingress, 100);
        for (original, reply, timeout) in [
            (key(17, 1), key(17, 2), 300),
            (key(1, 1), key(1, 2), 60),
            (key(47, 1), key(47, 2), 300),
            (l2(1), l2(2), 300),
            (key(6, 1), key(6, 2), 240),
        ] {
            let table = Table::in_memory(64, 1);
            open(&table, original, reply);
            assert_eq!(lives_for(&table, 0), timeout, "{original:?}");
        }
    }

    #[test]
    fn tcp_lives_long_between_the_first_answer_and_a_fin() {
        let table = Table::in_memory(64, 1);
        let (_, reply) = open(&table, key(6, 1), key(6, 2));
        table.touch(&reply, BEGIN + 5, 0);
        assert_eq!(lives_for(&table, 5), 7440);

        let (original, reply) = open(&table, key(6, 1), key(6, 2));
        table.touch(&reply, BEGIN + 5, 0);
        table.touch(&original, BEGIN + 5, FIN);
        assert_eq!(lives_for(&table, 5), 240);
    }

    #[test]
    fn one_direction_in_use_keeps_both_lines() {
        let table = Table::in_memory(64, 1);
        let (original, _) = open(&table, key(17, 1), key(17, 2));
        table.touch(&original, BEGIN + 1000, 0);
        let mut cursor = Cursor::new(&table, 0, 1, BEGIN);
        assert_eq!(pass(&table, &mut cursor, BEGIN + 1300).0, Swept::default());
        assert_eq!(pass(&table, &mut cursor, BEGIN + 1301).0, Swept { expired: 1, halves: 0 });
        assert_eq!(table.occupancy().live, 0);
    }

    /// Resets the connection at 5 s; packets of either direction, or of both, go on until 30 s.
    fn reset(goes_on: [bool; 2]) -> u32 {
        let table = Table::in_memory(64, 1);
        let (original, reply) = open(&table, key(6, 1), key(6, 2));
        table.touch(&reply, BEGIN + 4, 0);
        table.touch(&original, BEGIN + 5, RST);
        let mut cursor = Cursor::new(&table, 0, 1, BEGIN);
        for now in BEGIN + 6..=BEGIN + 30 {
            for (flow, goes_on) in [original, reply].iter().zip(goes_on) {
                if goes_on {
                    table.touch(flow, now, 0);
                }
            }
            pass(&table, &mut cursor, now);
        }
        lives_for(&table, 30)
    }

    #[test]
    fn a_reset_shortens_the_life_unless_both_directions_outlive_it() {
        assert_eq!(reset([false, false]), 240 - 25);
        assert_eq!(reset([true, false]), 240);
        assert_eq!(reset([false, true]), 240);
        assert_eq!(reset([true, true]), 7440, "a blind RST");
    }

    #[test]
    fn a_pass_reports_just_what_was_seen_since_the_last() {
        let table = Table::in_memory(64, 1);
        let (original, reply) = open(&table, key(17, 1), key(17, 2));
        let mut cursor = Cursor::new(&table, 0, 1, BEGIN);
        let seen = |events: &[Event]| -> Vec<u32> {
            (events.iter())
                .map(|event| match event {
                    Event::Seen { flow, other } => {
                        assert_eq!(flow.partner(), other.index());
                        flow.index()
                    }
                    Event::Expired { .. } => panic!("{event:?}"),
                })
                .collect()
        };
        // The opener was; no answer was.
        assert_eq!(seen(&pass(&table, &mut cursor, BEGIN + 1).1), [original.index()]);
        assert_eq!(table.connections(), 1);
        table.touch(&reply, BEGIN + 2, 0);
        pass(&table, &mut cursor, BEGIN + 3);
        pass(&table, &mut cursor, BEGIN + 4);
        assert!(seen(&pass(&table, &mut cursor, BEGIN + 5).1).is_empty());
        table.touch(&reply, BEGIN + 6, 0);
        assert_eq!(seen(&pass(&table, &mut cursor, BEGIN + 7).1), [reply.index()]);
    }

    #[test]
    fn sweepers_share_the_table_without_gap_or_overlap() {
        let table = Table::in_memory(64, 1);
        let mut parts: Vec<_> = (0..3).map(|part| Cursor::new(&table, part, 3, 0)).collect();
        assert_eq!(parts.first().map(|part| part.first), Some(0));
        assert_eq!(parts.last().map(|part| part.end), Some(64));
        assert!(parts.is_sorted_by(|one, next| one.end == next.first));
        for part in &mut parts {
            // More lines than the share has are not walked twice.
            table.sweep(part, 1000, 1, &Timeouts::default(), |_| {});
            assert_eq!(part.next, part.first);
        }
    }

    #[test]
    fn the_sweep_frees_a_line_whose_other_direction_is_gone() {
        let table = Table::in_memory(64, 1);
        let (original, _) = open(&table, key(6, 1), key(6, 2));
        assert!(table.lines[original.index as usize].free(original.words[0]));
        let mut cursor = Cursor::new(&table, 0, 1, BEGIN);
        let (swept, events) = pass(&table, &mut cursor, BEGIN);
        assert_eq!((swept, events.len()), (Swept { expired: 0, halves: 1 }, 0));
        assert_eq!(table.occupancy().live, 0);
    }
}
