//! An atomic for loom's models that loom cannot overlook.
//!
//! loom 0.7 tries another order where an operation conflicts with the *last* access of the same
//! word. A thread that loads a word and then compares and swaps it conflicts with its own load
//! only, and what another thread loaded before is forgotten: a model of a removal against a
//! reader ran once, and found nothing wrong with a reader that looked at word 0 only once.
//!
//! So each word has a mark per thread. Who loads touches the own mark, who writes touches the
//! marks of the others; marks are read-modify-write and relaxed, so they order nothing.

use loom::sync::atomic::{AtomicU8, Ordering};
use loom::thread::{self, ThreadId};

/// Loom's atomic with two marks: models have two threads.
pub(crate) struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
    marks: [AtomicU8; 2],
    first: ThreadId,
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> AtomicU64 {
        AtomicU64 {
            word: loom::sync::atomic::AtomicU64::new(value),
            marks: [AtomicU8::new(0), AtomicU8::new(0)],
            first: thread::current().id(),
        }
    }

    /// Whether this is not the thread that made the word.
    fn is_other(&self) -> usize {
        usize::from(thread::current().id() != self.first)
    }

    fn loads(&self) {
        self.marks[self.is_other()].fetch_add(0, Ordering::Relaxed);
    }

    fn writes(&self) {
        self.marks[1 - self.is_other()].fetch_add(0, Ordering::Relaxed);
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.loads();
        self.word.load(order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.writes();
        self.word.store(value, order);
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.writes();
        self.word.swap(value, order)
    }

    pub(crate) fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
        self.writes();
        self.word.fetch_add(more, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.writes();
        self.word.compare_exchange(current, new, success, failure)
    }
}
