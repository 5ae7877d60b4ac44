//! Changing and closing connections that exist.

use crate::fault;
use crate::flow::{Flow, Rewrite};
use crate::install::{Claim, Taken};
use crate::key::FlowKey;
use crate::layout::{LIVE, PATH_KNOWN, REPLY, STAMP_SHIFT, state};
use crate::line::Glance;
use crate::table::Table;

/// What a pass over the table does with one flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing.
    Keep,
    /// Its path is asked again: the line loses `PATH_KNOWN`.
    ForgetPath,
    /// Its connection is asked again: the line's stamp becomes 0, older than any port's.
    AskAgain,
    /// Its connection ends: both lines go.
    Remove,
}

/// What a pass over the table did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Revoked {
    /// Lines marked as misses.
    pub marked: u32,
    /// Connections removed.
    pub removed: u32,
    /// Lines that somebody else kept changing: none, unless a thread stands still.
    pub missed: u32,
}

impl Table {
    /// Gives a live line new words 3, 4 and 5 and a new stamp: its path was learned, or decided
    /// again. Key, partner, direction, last seen and state bits stay.
    ///
    /// No reader sees a mix of old and new. `None`: the line is no longer as it was when `flow`
    /// was read, somebody else was quicker; nothing was done.
    pub fn set_path(&self, flow: &Flow, rewrite: &Rewrite, stamp: u32) -> Option<Flow> {
        let flags = rewrite.flags & !REPLY | flow.flags() & REPLY;
        let words = Rewrite { flags, ..*rewrite }.words(flow.key().is_bridged());
        self.change(flow, words, stamp)
    }

    fn change(&self, flow: &Flow, rewrite: [u64; 3], stamp: u32) -> Option<Flow> {
        let line = &self.lines[flow.index as usize];
        let count = line.claim_live(flow)?;
        let word6 = u64::from(flow.partner()) | u64::from(stamp) << STAMP_SHIFT;
        // Word 7 stays, under the count of the install: the owner is the same, and a FIN noted
        // at this moment must not be lost.
        line.write_rest(rewrite, word6);
        fault::point("path");
        line.publish(count);
        let [_, word1, word2, _, _, _, _, word7] = flow.words;
        let [word3, word4, word5] = rewrite;
        let word0 = crate::layout::word0(count, LIVE);
        let words = [word0, word1, word2, word3, word4, word5, word6, word7];
        Some(Flow { index: flow.index, words })
    }

    /// Ends the connection `flow` belongs to: frees both of its lines.
    ///
    /// True for exactly one of those who ask at the same time. False: it was gone already. (Or a
    /// thread that stands still is changing it; then nothing was done.)
    pub fn remove(&self, flow: &Flow) -> bool {
        for _ in 0..crate::sync::PATIENCE {
            let Some(now) = self.still(flow) else { return false };
            let partner = match self.settled(now.partner()) {
                Glance::Live(partner) if partner.partner() == flow.index => Some(partner),
                Glance::Live(_) | Glance::Free => None,
                Glance::Passing => return false,
            };
            // Lines are recycled, and the other direction may just have moved. Two live lines that
            // name each other are one connection, but only if this one was still the flow's, and
            // still named that one, when the other was looked at.
            match self.still(flow) {
                Some(again) if again.partner() == now.partner() => {}
                Some(_) => continue,
                None => return false,
            }
            // Who frees the original's line has removed the connection; the reply's line follows.
            let (original, reply) =
                if flow.is_reply() { (partner, Some(now)) } else { (Some(now), partner) };
            let removed = original.is_some_and(|original| self.free(&original));
            if original.is_some() && !removed {
                // Somebody else has just removed or moved it: look again.
                continue;
            }
            if let Some(reply) = reply {
                self.free(&reply);
            }
            return removed;
        }
        false
    }

    /// The line as it is now, if it is of the same install as `flow`. A new path does not matter.
    fn still(&self, flow: &Flow) -> Option<Flow> {
        match self.settled(flow.index) {
            Glance::Live(now) if now.is_same_install(flow) => Some(now),
            Glance::Live(_) | Glance::Free | Glance::Passing => None,
        }
    }

    /// Gives a flow another key: its packets come by another port now, since a VM has moved, or by
    /// another way. The connection, its translation and its times stay; the line is a new one.
    ///
    /// A reader finds the flow under one of both keys, or misses for a moment. `None`: somebody
    /// else is just changing the connection, or there is no room; nothing was done.
    pub fn move_to(&self, flow: &Flow, ingress: u16, zone: u16) -> Option<Flow> {
        let key = flow.key().at(ingress, zone);
        let claim = match self.take(key, flow.last_seen()) {
            Ok(Taken::ByMe(claim)) => claim,
            // Another worker has just moved it.
            Ok(Taken::Already(there)) => return Some(there),
            Err(_) => return None,
        };
        let moved = self.move_into(flow, key, &claim);
        if moved.is_none() {
            self.lines[claim.index as usize].give_up(claim.count);
        }
        moved
    }

    fn move_into(&self, flow: &Flow, key: FlowKey, claim: &Claim) -> Option<Flow> {
        let (old, new) = (&self.lines[flow.index as usize], &self.lines[claim.index as usize]);
        let old_count = old.claim_live(flow)?;
        // Does not wait: who changes the other direction may be waiting for this one.
        let partner = match self.lines[flow.partner() as usize].glance(flow.partner()) {
            Glance::Live(partner) if partner.partner() == flow.index => Some(partner),
            Glance::Live(_) | Glance::Free | Glance::Passing => None,
        };
        let other = &self.lines[flow.partner() as usize];
        let claimed = partner.and_then(|partner| Some((partner, other.claim_live(&partner)?)));
        let Some((partner, partner_count)) = claimed else {
            old.publish(old_count);
            return None;
        };
        let [_, _, _, word3, word4, word5, word6, _] = flow.words;
        new.write_rest([word3, word4, word5], word6);
        new.write_word7(flow.last_seen(), claim.count, flow.bits());
        new.publish(claim.count);
        let [_, _, _, word3, word4, word5, word6, _] = partner.words;
        let word6 = word6 >> STAMP_SHIFT << STAMP_SHIFT | u64::from(claim.index);
        other.write_rest([word3, word4, word5], word6);
        other.publish(partner_count);
        old.give_up(old_count);
        if !flow.is_reply() {
            self.counts.leave(flow.key());
            self.counts.has_entered(key);
        }
        self.at(claim.index).filter(|moved| moved.key() == key)
    }

    /// Frees one line, if nothing of it has changed since `flow` was read: not its other direction
    /// either, which may have moved meanwhile.
    pub(crate) fn free_unchanged(&self, flow: &Flow) -> bool {
        let freed = self.lines[flow.index as usize].free(flow.words[0]);
        if freed && !flow.is_reply() {
            self.counts.leave(flow.key());
        }
        freed
    }

    /// Frees one line, if it still is of the same install as `flow`.
    pub(crate) fn free(&self, flow: &Flow) -> bool {
        while let Glance::Live(now) = self.settled(flow.index) {
            if !now.is_same_install(flow) {
                return false;
            }
            if self.lines[flow.index as usize].free(now.words[0]) {
                if !now.is_reply() {
                    self.counts.leave(now.key());
                }
                return true;
            }
        }
        false
    }

    /// Asks `judge` about every live flow and does as it says.
    ///
    /// For the control thread: it walks the whole table. A line that is being installed at this
    /// moment is not asked about, so first publish what changed, then wait until every worker
    /// has begun a batch with it, then call this.
    pub fn revoke(&self, mut judge: impl FnMut(&Flow) -> Mark) -> Revoked {
        let mut revoked = Revoked::default();
        for index in 0..self.len() {
            self.revoke_one(index, &mut judge, &mut revoked);
        }
        revoked
    }

    fn revoke_one(&self, index: u32, judge: &mut impl FnMut(&Flow) -> Mark, revoked: &mut Revoked) {
        for _ in 0..crate::sync::PATIENCE {
            let flow = match self.settled(index) {
                Glance::Live(flow) => flow,
                Glance::Free => return,
                Glance::Passing => break,
            };
            let [_, _, _, word3, word4, word5, _, _] = flow.words;
            let is_done = match judge(&flow) {
                Mark::Keep => return,
                Mark::Remove => {
                    let removed = self.remove(&flow);
                    revoked.removed += u32::from(removed);
                    removed
                }
                Mark::ForgetPath => {
                    let known = u64::from(PATH_KNOWN) << crate::layout::FLAGS_SHIFT;
                    let marked = self.change(&flow, [word3, word4 & !known, word5], flow.stamp());
                    revoked.marked += u32::from(marked.is_some());
                    marked.is_some()
                }
                Mark::AskAgain => {
                    let marked = self.change(&flow, [word3, word4, word5], 0);
                    revoked.marked += u32::from(marked.is_some());
                    marked.is_some()
                }
            };
            if is_done {
                return;
            }
        }
        revoked.missed += u32::from(state(self.lines[index as usize].word0()) == LIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FIN, SEEN};
    use crate::{FlowKey, Installed, NewLine};

    fn key(ingress: u16) -> FlowKey {
        FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], 1, 2, 6, ingress, 1)
    }

    fn open(table: &Table, ingress: u16, egress: u16) -> (Flow, Flow) {
        let line = |ingress, egress| NewLine {
            key: key(ingress),
            rewrite: Rewrite::bridged([0; 6], [egress as u8; 6], egress, 100, 0),
        };
        match table.install(&line(ingress, egress), &line(egress, ingress), 5, 60) {
            Ok(Installed::New { original, reply }) => (original, reply),
            other => panic!("{other:?}"),
        }
    }

    fn find(table: &Table, ingress: u16) -> Option<Flow> {
        table.find(key(ingress), table.hash(key(ingress)))
    }

    #[test]
    fn a_new_path_keeps_what_is_not_of_the_path() {
        let table = Table::in_memory(64, 1);
        let (_, reply) = open(&table, 1, 2);
        table.touch(&reply, 61, FIN);
        let path = Rewrite::bridged([0; 6], [7; 6], 3, 101, 102);
        let changed = table.set_path(&find(&table, 2).unwrap(), &path, 6).unwrap();
        assert_eq!(find(&table, 2), Some(changed));
        assert_eq!((changed.egress(), changed.segment(), changed.vlan()), (3, 101, 102));
        assert_eq!((changed.stamp(), changed.partner()), (6, reply.partner()));
        assert_eq!((changed.last_seen(), changed.bits()), (61, SEEN | FIN));
        assert!(changed.is_reply());
    }

    #[test]
    fn a_path_for_what_was_read_before_another_change_is_not_taken() {
        let table = Table::in_memory(64, 1);
        let (old, _) = open(&table, 1, 2);
        let path = Rewrite::bridged([0; 6], [7; 6], 3, 101, 102);
        let changed = table.set_path(&old, &path, 6).unwrap();
        assert!(table.set_path(&old, &Rewrite::default(), 7).is_none());
        assert_eq!(find(&table, 1), Some(changed));
        // Yet the handle is good for what concerns the flow and not its path.
        table.touch(&old, 70, 0);
        assert_eq!(find(&table, 1).unwrap().last_seen(), 70);
        assert!(table.remove(&old));
    }

    #[test]
    fn removing_either_direction_removes_both_once() {
        for by_reply in [false, true] {
            let table = Table::in_memory(64, 1);
            let (original, reply) = open(&table, 1, 2);
            let (one, other) = if by_reply { (reply, original) } else { (original, reply) };
            assert!(table.remove(&one));
            assert!(!table.remove(&one) && !table.remove(&other));
            assert_eq!(table.occupancy().live, 0);
        }
    }

    #[test]
    fn a_reply_whose_original_was_recycled_takes_no_stranger_with_it() {
        let table = Table::in_memory(4, 1);
        let (original, reply) = open(&table, 1, 2);
        // Somebody is just removing the connection, and has freed one line of it.
        assert!(table.free(&original));
        let (stranger, _) = open(&table, 3, 4);
        assert!([stranger.index(), stranger.partner()].contains(&original.index()));
        assert!(!table.remove(&reply), "who freed the original's line has removed it");
        assert_eq!((find(&table, 2), find(&table, 3)), (None, Some(stranger)));
        assert_eq!(table.occupancy().live, 2);
    }

    #[test]
    fn nothing_is_removed_while_a_thread_stands_still_with_one_of_the_lines() {
        let table = Table::in_memory(64, 1);
        let (original, reply) = open(&table, 1, 2);
        for stuck in [original, reply] {
            let stuck = table.at(stuck.index()).unwrap();
            let line = &table.lines[stuck.index as usize];
            let count = line.claim_live(&stuck).unwrap();
            assert!(!table.remove(&original) && !table.remove(&reply));
            line.publish(count);
            assert_eq!(table.occupancy().live, 2);
        }
        assert!(table.remove(&original));
    }

    #[test]
    fn a_pass_marks_just_the_lines_it_concerns() {
        let table = Table::in_memory(64, 1);
        open(&table, 1, 2);
        open(&table, 3, 4);
        let revoked = table.revoke(|flow| match flow.egress() {
            1 => Mark::ForgetPath,
            2 => Mark::AskAgain,
            _ => Mark::Keep,
        });
        assert_eq!(revoked, Revoked { marked: 2, removed: 0, missed: 0 });
        let [back, there, other] = [2, 1, 3].map(|ingress| find(&table, ingress).unwrap());
        assert_eq!((back.path_known(), back.stamp(), back.is_reply()), (false, 5, true));
        assert_eq!((there.path_known(), there.stamp()), (true, 0));
        assert_eq!((other.path_known(), other.stamp()), (true, 5));
    }

    #[test]
    fn a_pass_that_removes_counts_connections() {
        let table = Table::in_memory(64, 1);
        open(&table, 1, 2);
        open(&table, 3, 4);
        let mut asked = 0;
        let revoked = table.revoke(|flow| {
            asked += 1;
            if flow.key().ingress() < 3 { Mark::Remove } else { Mark::Keep }
        });
        assert_eq!(revoked, Revoked { marked: 0, removed: 1, missed: 0 });
        assert_eq!((asked, table.occupancy().live), (3, 2));
    }

    #[test]
    fn a_flow_moves_to_another_port_and_its_connection_with_it() {
        let table = Table::in_memory(64, 1);
        let (original, reply) = open(&table, 1, 2);
        table.touch(&original, 70, FIN);
        let original = table.at(original.index()).unwrap();
        let moved = table.move_to(&original, 9, 1).unwrap();
        assert!(table.find(key(1), table.hash(key(1))).is_none());
        assert_eq!(table.find(key(9), table.hash(key(9))), Some(moved));
        assert_eq!(moved.rewrite(), original.rewrite());
        assert_eq!((moved.bits(), moved.last_seen()), (SEEN | FIN, 70));
        assert_eq!((table.connections_of(1), table.connections_of(9)), (0, 1));
        let reply = table.at(reply.index()).unwrap();
        assert_eq!((reply.partner(), moved.partner()), (moved.index(), reply.index()));
        // Twice is once; the answers can move as well; and then both go together.
        assert_eq!(table.move_to(&original, 9, 1), Some(moved));
        let answers = table.move_to(&reply, 8, 3).unwrap();
        assert_eq!((answers.key().ingress(), answers.key().zone()), (8, 3));
        assert!(answers.is_reply());
        assert!(table.remove(&answers));
        assert_eq!(table.occupancy(), crate::Occupancy { lines: 64, live: 0, passing: 0 });
        assert_eq!(table.connections_of(9), 0);
    }

    #[test]
    fn a_flow_that_is_gone_does_not_move() {
        let table = Table::in_memory(64, 1);
        let (original, _) = open(&table, 1, 2);
        assert!(table.remove(&original));
        assert_eq!(table.move_to(&original, 9, 1), None);
        assert_eq!(table.occupancy(), crate::Occupancy { lines: 64, live: 0, passing: 0 });
    }
}
