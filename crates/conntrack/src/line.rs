//! One line: who may read it, who may write it, and in what order.
//!
//! Word 0 guards words 1 to 6. It moves in a circle, and its count grows at every step but the
//! publishing ones:
//!
//! ```text
//!         claim (CAS)            publish (store)
//! FREE ───────────────▶ CLAIMED ─────────────────▶ LIVE ──▶ FREE
//!   ▲                    │   ▲                      │   free (CAS)
//!   └────────────────────┘   └──────────────────────┘
//!      give_up (store)          claim_live (CAS)
//! ```
//!
//! Who claimed a line is its only writer until it publishes. Word 7 alone is written by
//! everybody, by compare-and-swap.

use crate::flow::Flow;
use crate::key::FlowKey;
use crate::layout::{
    BITS_SHIFT, CLAIMED, FREE, LIVE, WORDS, count, install_count, state, word0, word7,
};
use crate::sync::{AtomicU64, Ordering, fence};

/// One direction of a connection: 64 bytes, a cache line.
#[repr(C, align(64))]
pub struct Line([AtomicU64; WORDS]);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == crate::layout::BYTES && align_of::<Line>() == 64);

/// What a look at a line found.
pub(crate) enum Glance {
    /// Nobody's.
    Free,
    /// Claimed, or changed while it was read: look again.
    Passing,
    /// A flow's.
    Live(Flow),
}

/// How a line stands to a key that somebody wants to install.
pub(crate) enum Holding {
    /// Not at all.
    Not,
    /// It holds the key and is being written: by another installer of the key, or to get a new
    /// path. (Or this is what the last owner left, and about to be overwritten.)
    Claimed,
    /// It held the key, but changed while it was read: look again.
    Passing,
    /// It is live with the key.
    Live(Flow),
}

impl Default for Line {
    fn default() -> Line {
        Line(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.0.each_ref().map(|word| word.load(Ordering::Relaxed));
        write!(f, "Line({words:x?})")
    }
}

impl Line {
    /// Word 0, and all that was written before it was.
    #[inline]
    pub(crate) fn word0(&self) -> u64 {
        self.0[0].load(Ordering::Acquire)
    }

    /// The flow of `key`, if it is this line's.
    ///
    /// Word 0 first, then the key, then the rest, then word 0 again. Any other order tears: with
    /// the key before word 0 a stress test saw 56,076 rewrites of a stranger in 93 M reads.
    #[inline]
    pub(crate) fn read_if(&self, word0: u64, key: FlowKey, index: u32) -> Option<Flow> {
        if state(word0) != LIVE
            || self.0[1].load(Ordering::Relaxed) != key.word1
            || self.0[2].load(Ordering::Relaxed) != key.word2
        {
            return None;
        }
        self.finish_read(word0, index)
    }

    /// Whatever is in the line.
    #[inline]
    pub(crate) fn glance(&self, index: u32) -> Glance {
        let word0 = self.word0();
        match state(word0) {
            FREE => Glance::Free,
            LIVE => self.finish_read(word0, index).map_or(Glance::Passing, Glance::Live),
            _ => Glance::Passing,
        }
    }

    /// Words 1 to 7, if word 0 is still the same after them.
    ///
    /// The fence keeps the loads before it; it pairs with that of [`Line::begin`], so that who
    /// read a word of a new owner also sees that owner's word 0.
    #[inline]
    fn finish_read(&self, word0: u64, index: u32) -> Option<Flow> {
        let load = |word: usize| self.0[word].load(Ordering::Relaxed);
        let words = [word0, load(1), load(2), load(3), load(4), load(5), load(6), load(7)];
        fence(Ordering::Acquire);
        (load(0) == word0).then_some(Flow { index, words })
    }

    /// How this line, whose word 0 was read, stands to `key`.
    pub(crate) fn holding(&self, word0: u64, key: FlowKey, index: u32) -> Holding {
        if state(word0) == FREE
            || self.0[1].load(Ordering::Relaxed) != key.word1
            || self.0[2].load(Ordering::Relaxed) != key.word2
        {
            return Holding::Not;
        }
        match state(word0) {
            LIVE => self.finish_read(word0, index).map_or(Holding::Passing, Holding::Live),
            _ => Holding::Claimed,
        }
    }

    /// Claims the free line whose word 0 is `free`; gives the count of the claim.
    pub(crate) fn claim(&self, free: u64) -> Option<u64> {
        debug_assert_eq!(state(free), FREE);
        self.begin(free)
    }

    /// Claims the live line that `flow` was read from, so that words 3 to 6 can change; gives the
    /// count of the claim. Its key stays taken: installers wait for a claimed line with their key.
    pub(crate) fn claim_live(&self, flow: &Flow) -> Option<u64> {
        self.begin(flow.words[0])
    }

    /// Makes word 0 from `from` a claim with the next count, before any other store.
    fn begin(&self, from: u64) -> Option<u64> {
        let count = count(from) + 1;
        let to = word0(count, CLAIMED);
        self.0[0].compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        // No later store may be seen by a reader that still sees the old word 0.
        fence(Ordering::Release);
        Some(count)
    }

    /// Writes the key of a claimed line.
    pub(crate) fn write_key(&self, key: FlowKey) {
        self.0[1].store(key.word1, Ordering::Relaxed);
        self.0[2].store(key.word2, Ordering::Relaxed);
    }

    /// Writes words 3 to 6 of a claimed line.
    pub(crate) fn write_rest(&self, rewrite: [u64; 3], word6: u64) {
        let [word3, word4, word5] = rewrite;
        for (word, value) in [(3, word3), (4, word4), (5, word5), (6, word6)] {
            self.0[word].store(value, Ordering::Relaxed);
        }
    }

    /// Begins word 7 anew, for the claim of this count. Who still wants to touch the line's last
    /// owner compares with another count and fails.
    ///
    /// A swap and not a store: a store would do, but loom then lets a compare-and-swap that came
    /// before it take effect after it.
    pub(crate) fn write_word7(&self, now: u32, count: u64, bits: u16) {
        self.0[7].swap(word7(now, count, bits), Ordering::Relaxed);
    }

    /// Lets readers see what was written since the claim of this count.
    pub(crate) fn publish(&self, count: u64) {
        self.0[0].store(word0(count, LIVE), Ordering::Release);
    }

    /// Ends a claim that came to nothing.
    pub(crate) fn give_up(&self, count: u64) {
        self.0[0].store(word0(count + 1, FREE), Ordering::Release);
    }

    /// Frees the line if its word 0 is `from`.
    pub(crate) fn free(&self, from: u64) -> bool {
        let to = word0(count(from) + 1, FREE);
        self.0[0].compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Sets `bits` and moves the time forward, if the line is still the flow's.
    ///
    /// A word changed meanwhile for the same owner is taken up, so that of two writers' bits none
    /// is lost; one with another count belongs to a stranger and is left alone.
    pub(crate) fn touch(&self, flow: &Flow, now: u32, bits: u16) {
        let mut seen = flow.words[7];
        loop {
            // Two cores' clocks may differ by a tick: time does not go back.
            let is_later = (now.wrapping_sub(seen as u32) as i32) > 0;
            let time = if is_later { now } else { seen as u32 };
            let next = word7(time, install_count(seen), (seen >> BITS_SHIFT) as u16 | bits);
            if next == seen {
                return;
            }
            match self.0[7].compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) if install_count(other) == flow.install_count() => seen = other,
                Err(_) => return,
            }
        }
    }
}
