//! Changing and closing connections that exist.

use crate::flow::{Flow, Rewrite};
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
        let words = Rewrite { flags, ..*rewrite }.words(flow.key().is_l2());
        self.change(flow, words, stamp)
    }

    fn change(&self, flow: &Flow, rewrite: [u64; 3], stamp: u32) -> Option<Flow> {
        let line = &self.lines[flow.index as usize];
        let count = line.claim_live(flow)?;
        let word6 = u64::from(flow.partner()) | u64::from(stamp) << STAMP_SHIFT;
        // Word 7 stays, under the count of the install: the owner is the same, and a FIN noted
        // at this moment must not be lost.
        line.write_rest(rewrite, word6);
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
        let partner = match self.settled(flow.partner()) {
            Glance::Live(partner) if partner.partner() == flow.index => Some(partner),
            Glance::Live(_) | Glance::Free => None,
            Glance::Passing => return false,
        };
        // Lines are recycled. Two live lines that name each other are one connection, but only
        // if this one was still the flow's when the other was looked at.
        if !self.is_still(flow) {
            return false;
        }
        // Who frees the original's line has removed the connection; the reply's line follows.
        let (original, reply) =
            if flow.is_reply() { (partner, Some(*flow)) } else { (Some(*flow), partner) };
        let removed = original.is_some_and(|original| self.free(&original));
        if let Some(reply) = reply {
            self.free(&reply);
        }
        removed
    }

    /// Whether the line is of the same install as `flow`. A new path does not matter.
    fn is_still(&self, flow: &Flow) -> bool {
        matches!(self.settled(flow.index), Glance::Live(now) if now.is_same_install(flow))
    }

    /// Frees one line, if it still is of the same install as `flow`.
    pub(crate) fn free(&self, flow: &Flow) -> bool {
        while let Glance::Live(now) = self.settled(flow.index) {
            if !now.is_same_install(flow) {
                return false;
            }
            if self.lines[flow.index as usize].free(now.words[0]) {
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
