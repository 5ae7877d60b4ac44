//! Opening a connection: two lines, or none.
//!
//! Two installers may want one key at the same moment. A compare-and-swap on a free line does not
//! keep them apart, since each finds another free line. So a key is taken in four moves:
//!
//! 1. claim a free line by compare-and-swap;
//! 2. write the key into it, while it is only claimed;
//! 3. a sequentially consistent fence;
//! 4. look through both homes for the same key in another line.
//!
//! Of two installers of a key, the one whose fence is the later sees the other's line in its
//! fourth move. A *live* line is used. Of two *claimed* ones the higher index gives way and
//! begins again; the lower waits until the higher has given way, or, having looked too early to
//! see the lower, has gone live.
//!
//! A connection takes its two keys in the order of the keys, so that two installers which want
//! the same two (both ends start at the same instant) do not wait for each other. Publishing
//! has its own order: the reply's line first, so that no answer finds its line missing.

use crate::counts::{Exceeded, Quota};
use crate::fault;
use crate::flow::{Flow, Rewrite};
use crate::key::FlowKey;
use crate::layout::{self, FREE, HOME, NEVER_TAKEN, REPLY, SEEN, STAMP_SHIFT, state};
use crate::line::Holding;
use crate::sync::{Ordering, PATIENCE, fence, pause};
use crate::table::Table;

/// How often an installer begins again after it gave way or lost a free line.
const ATTEMPTS: u32 = 16;

/// One direction of a connection to be.
#[derive(Clone, Copy, Debug)]
pub struct NewLine {
    /// What its packets are found by.
    pub key: FlowKey,
    /// What is to be done to them; without `PATH_KNOWN` the line is there but not replayed.
    pub rewrite: Rewrite,
}

/// What an install came to.
#[derive(Clone, Copy, Debug)]
pub enum Installed {
    /// Both lines are live.
    New {
        /// The line of the packet that opened the connection.
        original: Flow,
        /// The line of the answers.
        reply: Flow,
    },
    /// Somebody else had installed the original's key; nothing was changed. Use this flow, as if
    /// [`Table::find`] had found it (it may be the reply's direction, or its path unknown).
    Existing(Flow),
}

/// Why nothing was installed. No line is left behind.
#[derive(Clone, Copy, Debug)]
pub enum InstallError {
    /// No free line in the homes of a key, and none of the connections there may go.
    Full,
    /// The original's ingress port has as many connections as it may.
    Quota,
    /// It has as many as it may to the endpoint that is asked.
    EndpointQuota,
    /// The reply's key is another connection's, whose flow this is. With SNAT: try another port.
    ReplyTaken(Flow),
    /// The reply's key equals the original's (a VM that talks to its own floating address with
    /// equal ports). It counts as taken. With SNAT: try another port.
    ReplyIsOriginal,
    /// Another installer of the same keys lost its processor half-way. Try again with the next
    /// packet.
    Contended,
}

impl std::fmt::Display for InstallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InstallError::Full => write!(f, "no free line in the key's homes"),
            InstallError::Quota => write!(f, "the port has as many connections as it may"),
            InstallError::EndpointQuota => {
                write!(f, "the port has as many connections to this endpoint as it may")
            }
            InstallError::ReplyTaken(flow) => {
                write!(f, "the reply's key is in line {}", flow.index)
            }
            InstallError::ReplyIsOriginal => write!(f, "the reply's key equals the original's"),
            InstallError::Contended => write!(f, "another installer of the same key is half-way"),
        }
    }
}

impl std::error::Error for InstallError {}

/// A line of one's own that is not live yet.
pub(crate) struct Claim {
    pub(crate) index: u32,
    pub(crate) count: u64,
}

/// A key after the attempt to take it.
pub(crate) enum Taken {
    ByMe(Claim),
    Already(Flow),
}

/// A look through a key's homes before anything is claimed.
enum Survey {
    /// The key is live.
    Live(Flow),
    /// Somebody is about to install the key, or to change its line.
    Wait,
    /// The key is nowhere: a free line of the emptier home, and its word 0.
    Room(u32, u64),
    Full,
}

/// The outcome of the fourth move.
enum Contest {
    Won,
    Lost(Flow),
    GiveWay,
    Stuck,
}

impl Table {
    /// Opens a connection: both lines under one stamp, or none.
    ///
    /// The original's line counts as seen at `now`, the reply's not yet. Existing keys:
    ///
    /// | original's | reply's | result |
    /// | --- | --- | --- |
    /// | free | free | `New` |
    /// | live | any | `Existing`, the flow of the original's key |
    /// | free | live | `ReplyTaken`, the flow of the reply's key |
    pub fn install(
        &self,
        original: &NewLine,
        reply: &NewLine,
        stamp: u32,
        now: u32,
    ) -> Result<Installed, InstallError> {
        self.install_within(original, reply, stamp, now, Quota::NONE)
    }

    /// The same for a port that may have so many connections at most.
    pub fn install_within(
        &self,
        original: &NewLine,
        reply: &NewLine,
        stamp: u32,
        now: u32,
        quota: Quota,
    ) -> Result<Installed, InstallError> {
        if original.key == reply.key {
            return Err(InstallError::ReplyIsOriginal);
        }
        let in_order = original.key < reply.key;
        let (first, second) =
            if in_order { (original.key, reply.key) } else { (reply.key, original.key) };
        let first = Ok(self.take(first, now)?);
        let second = self.take(second, now);
        let (mine, other) = if in_order { (first, second) } else { (second, first) };
        match (mine, other) {
            (Ok(Taken::ByMe(mine)), Ok(Taken::ByMe(other))) => {
                if let Err(exceeded) = self.counts.enter(original.key, quota) {
                    self.roll_back(Ok(Taken::ByMe(mine)));
                    self.roll_back(Ok(Taken::ByMe(other)));
                    return Err(match exceeded {
                        Exceeded::All => InstallError::Quota,
                        Exceeded::Each => InstallError::EndpointQuota,
                    });
                }
                Ok(self.open(original, mine, reply, other, stamp, now))
            }
            (Ok(Taken::Already(flow)), other) => {
                self.roll_back(other);
                Ok(Installed::Existing(flow))
            }
            (Err(why), taken) | (taken, Err(why)) => {
                self.roll_back(taken);
                Err(why)
            }
            (mine, Ok(Taken::Already(flow))) => {
                self.roll_back(mine);
                Err(InstallError::ReplyTaken(flow))
            }
        }
    }

    /// Fills two claimed lines and publishes them.
    fn open(
        &self,
        original: &NewLine,
        mine: Claim,
        reply: &NewLine,
        other: Claim,
        stamp: u32,
        now: u32,
    ) -> Installed {
        let fill = |new: &NewLine, claim: &Claim, partner: &Claim, bits: u16, reply: u8| {
            let rewrite = Rewrite { flags: new.rewrite.flags & !REPLY | reply, ..new.rewrite };
            let line = &self.lines[claim.index as usize];
            let words = rewrite.words(new.key.is_bridged());
            let word6 = u64::from(partner.index) | u64::from(stamp) << STAMP_SHIFT;
            line.write_rest(words, word6);
            line.write_word7(now, claim.count, bits);
            let [word3, word4, word5] = words;
            let word0 = layout::word0(claim.count, layout::LIVE);
            let word7 = layout::word7(now, claim.count, bits);
            let words = [word0, new.key.word1, new.key.word2, word3, word4, word5, word6, word7];
            Flow { index: claim.index, words }
        };
        fault::point("claimed");
        let answer = fill(reply, &other, &mine, 0, REPLY);
        let flow = fill(original, &mine, &other, SEEN, 0);
        self.lines[other.index as usize].publish(other.count);
        fault::point("half");
        self.lines[mine.index as usize].publish(mine.count);
        Installed::New { original: flow, reply: answer }
    }

    /// Makes `key` this caller's alone, or finds whose it is.
    pub(crate) fn take(&self, key: FlowKey, now: u32) -> Result<Taken, InstallError> {
        let homes = layout::homes(self.hash(key), self.len());
        let mut waited = 0;
        let mut attempts = 0;
        let mut made_room = false;
        while waited < PATIENCE && attempts < ATTEMPTS {
            let (index, free) = match self.survey(homes, key) {
                Survey::Live(flow) => return Ok(Taken::Already(flow)),
                Survey::Full if !made_room && self.make_room(homes, now) => {
                    made_room = true;
                    continue;
                }
                Survey::Full => return Err(InstallError::Full),
                Survey::Room(index, free) => (index, free),
                Survey::Wait => {
                    waited += 1;
                    pause();
                    continue;
                }
            };
            attempts += 1;
            let line = &self.lines[index as usize];
            let Some(count) = line.claim(free) else { continue };
            line.write_key(key);
            fence(Ordering::SeqCst);
            match self.contest(homes, key, index) {
                Contest::Won => return Ok(Taken::ByMe(Claim { index, count })),
                Contest::Lost(flow) => {
                    line.give_up(count);
                    return Ok(Taken::Already(flow));
                }
                Contest::GiveWay => line.give_up(count),
                Contest::Stuck => {
                    line.give_up(count);
                    return Err(InstallError::Contended);
                }
            }
        }
        Err(InstallError::Contended)
    }

    /// Gives up what was claimed for a connection that is not to be.
    fn roll_back(&self, taken: Result<Taken, InstallError>) {
        if let Ok(Taken::ByMe(claim)) = taken {
            self.lines[claim.index as usize].give_up(claim.count);
        }
    }

    /// Looks for `key`, and for room in the emptier of its homes.
    fn survey(&self, homes: [u32; 2], key: FlowKey) -> Survey {
        let mut best = (0, Survey::Full);
        let mut wait = false;
        for first in homes {
            let mut free = 0;
            let mut room = None;
            for index in first..first + HOME as u32 {
                let line = &self.lines[index as usize];
                let word0 = line.word0();
                if word0 == NEVER_TAKEN {
                    // Nor was any behind it.
                    free += first + HOME as u32 - index;
                    room = room.or(Some((index, word0)));
                    break;
                }
                if state(word0) == FREE {
                    free += 1;
                    room = room.or(Some((index, word0)));
                    continue;
                }
                match line.holding(word0, key, index) {
                    Holding::Not => {}
                    Holding::Live(flow) => return Survey::Live(flow),
                    Holding::Claimed | Holding::Passing => wait = true,
                }
            }
            if let Some((index, word0)) = room
                && free > best.0
            {
                best = (free, Survey::Room(index, word0));
            }
        }
        if wait { Survey::Wait } else { best.1 }
    }

    /// Looks through the homes for another line with the key of the claimed line `own`.
    fn contest(&self, homes: [u32; 2], key: FlowKey, own: u32) -> Contest {
        for first in homes {
            // Who passed a place by had seen it taken before its fence, and we look after ours: a
            // place that we see untaken nobody with this key has passed.
            let taken = (first..first + HOME as u32)
                .take_while(|index| self.lines[*index as usize].word0() != NEVER_TAKEN);
            for index in taken.filter(|index| *index != own) {
                match self.contend(key, own, index) {
                    Contest::Won => {}
                    decided => return decided,
                }
            }
        }
        Contest::Won
    }

    /// How a claimed line stands to another one, which may have its key.
    fn contend(&self, key: FlowKey, own: u32, index: u32) -> Contest {
        let line = &self.lines[index as usize];
        let mut waited = 0;
        loop {
            match line.holding(line.word0(), key, index) {
                Holding::Not => return Contest::Won,
                Holding::Live(flow) => return Contest::Lost(flow),
                Holding::Claimed if index < own => return Contest::GiveWay,
                Holding::Claimed | Holding::Passing if waited == PATIENCE => {
                    return Contest::Stuck;
                }
                Holding::Claimed | Holding::Passing => waited += 1,
            }
            pause();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{L2, PATH_KNOWN};

    fn key(ingress: u16) -> FlowKey {
        FlowKey::ipv4([10, 0, 0, 3], [8, 8, 8, 8], 40000, 53, 17, ingress, 1)
    }

    fn line(key: FlowKey) -> NewLine {
        NewLine { key, rewrite: Rewrite::bridged([0; 6], [2; 6], 9, 100, 0) }
    }

    fn new(table: &Table, original: FlowKey, reply: FlowKey) -> (Flow, Flow) {
        match table.install(&line(original), &line(reply), 5, 60) {
            Ok(Installed::New { original, reply }) => (original, reply),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_directions_are_live_and_know_each_other() {
        let table = Table::in_memory(64, 1);
        let (original, reply) = new(&table, key(1), key(2));
        assert_eq!(table.find(key(1), table.hash(key(1))), Some(original));
        assert_eq!(table.find(key(2), table.hash(key(2))), Some(reply));
        assert_eq!((original.partner(), reply.partner()), (reply.index(), original.index()));
        assert_eq!((original.is_reply(), reply.is_reply()), (false, true));
        assert_eq!((original.bits(), reply.bits()), (SEEN, 0));
        assert_eq!((original.stamp(), original.last_seen()), (5, 60));
    }

    #[test]
    fn the_table_sets_the_flags_that_follow_from_the_key() {
        let table = Table::in_memory(64, 1);
        let bridged = FlowKey::l2([2; 6], [4; 6], 0x86dd, 1, 100);
        let (original, reply) = new(&table, bridged, FlowKey::l2([4; 6], [2; 6], 0x86dd, 9, 100));
        assert_eq!(original.flags(), PATH_KNOWN | L2);
        assert_eq!(reply.flags(), PATH_KNOWN | L2 | REPLY);
    }

    #[test]
    fn a_key_that_is_there_is_used_whichever_end_asks() {
        let table = Table::in_memory(64, 1);
        let (original, reply) = new(&table, key(1), key(2));
        for (asked, there) in [(key(1), original), (key(2), reply)] {
            let outcome = table.install(&line(asked), &line(key(3)), 6, 61);
            assert!(matches!(outcome, Ok(Installed::Existing(flow)) if flow == there));
        }
        assert_eq!(table.occupancy(), crate::Occupancy { lines: 64, live: 2, passing: 0 });
    }

    #[test]
    fn a_taken_reply_is_reported_and_nothing_is_left() {
        let table = Table::in_memory(64, 1);
        // Keys are claimed in their own order: try both.
        let (original, reply) = new(&table, key(5), key(6));
        for asker in [1, 9] {
            for (taken, there) in [(key(5), original), (key(6), reply)] {
                let outcome = table.install(&line(key(asker)), &line(taken), 6, 61);
                assert!(matches!(outcome, Err(InstallError::ReplyTaken(flow)) if flow == there));
                assert!(table.find(key(asker), table.hash(key(asker))).is_none());
            }
        }
        assert_eq!(table.occupancy().live, 2);
    }

    #[test]
    fn a_reply_like_its_own_request_counts_as_taken() {
        let table = Table::in_memory(64, 1);
        let outcome = table.install(&line(key(1)), &line(key(1)), 1, 1);
        assert!(matches!(outcome, Err(InstallError::ReplyIsOriginal)));
        assert_eq!(table.occupancy().live, 0);
    }

    #[test]
    fn a_full_table_refuses_and_leaves_no_half_connection() {
        let table = Table::in_memory(8, 1);
        let mut refused = 0;
        for number in 1..200 {
            // Odd and even, so that now the original's key, now the reply's finds no room.
            let outcome = table.install(&line(key(number)), &line(key(4000 - number)), 1, 1);
            match outcome {
                Ok(_) => {}
                Err(InstallError::Full) => refused += 1,
                Err(why) => panic!("{why}"),
            }
            let occupancy = table.occupancy();
            assert_eq!((occupancy.live % 2, occupancy.passing), (0, 0));
        }
        assert!(refused >= 195 && table.occupancy().live <= 8);
    }

    #[test]
    fn who_stands_still_with_a_key_is_not_waited_for_for_ever() {
        let table = Table::in_memory(64, 1);
        let Ok(Taken::ByMe(stuck)) = table.take(key(1), 1) else { panic!("the table is empty") };
        for (original, reply) in [(key(1), key(2)), (key(2), key(1))] {
            let outcome = table.install(&line(original), &line(reply), 1, 1);
            assert!(matches!(outcome, Err(InstallError::Contended)), "{outcome:?}");
        }
        assert_eq!(table.occupancy(), crate::Occupancy { lines: 64, live: 0, passing: 1 });
        table.roll_back(Ok(Taken::ByMe(stuck)));
        new(&table, key(1), key(2));
    }
}
