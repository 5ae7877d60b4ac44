//! Free frames: a shared stack of chunk numbers and a cache of it per worker.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Frame, Umem};

/// Chunks moved between the shared stack and a cache in one go.
const SLAB: usize = 64;

/// The free chunks of a UMEM that no cache has.
#[derive(Debug)]
pub(crate) struct FreeList(Mutex<Vec<u32>>);

impl FreeList {
    pub(crate) fn new(frames: u32) -> FreeList {
        // Lowest on top. Never grows beyond this capacity: a chunk is in it at most once.
        FreeList(Mutex::new((0..frames).rev().collect()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        // Nothing in here can panic half way, so a poisoned list is still a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's cache of free frames over the list that all workers share.
///
/// It holds at most two slabs of 64, so the shared list's lock is taken at most once per 64
/// frames, even where one worker only takes and another only gives. What it holds goes back to the
/// shared list when it is dropped.
pub struct LocalPool {
    umem: Umem,
    cache: [u32; 2 * SLAB],
    len: usize,
}

impl LocalPool {
    pub(crate) fn new(umem: Umem) -> LocalPool {
        LocalPool { umem, cache: [0; 2 * SLAB], len: 0 }
    }

    /// A free frame, holding an empty packet at [`HEADROOM`](crate::HEADROOM); `None` if no frame
    /// is free, here or in the shared list.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let index = self.take_index()?;
        // SAFETY: a chunk number on the free list belongs to no frame and no socket; it was just
        // taken off the list.
        Some(unsafe { self.umem.frame(index) })
    }

    /// Gives a frame back.
    ///
    /// # Panics
    /// If the frame belongs to another [`Umem`].
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        self.umem.own(&frame);
        self.give_index(frame.index());
    }

    /// Gives all frames of `frames` back and leaves it empty.
    pub fn give_all(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            self.give(frame);
        }
    }

    /// The number of free frames in this cache, not counting the shared list.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether this cache is empty; [`take`](LocalPool::take) then asks the shared list.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory the frames belong to.
    pub fn umem(&self) -> Umem {
        self.umem
    }

    #[inline]
    pub(crate) fn take_index(&mut self) -> Option<u32> {
        if self.len == 0 {
            self.fetch();
        }
        self.len = self.len.checked_sub(1)?;
        Some(self.cache[self.len])
    }

    #[inline]
    pub(crate) fn give_index(&mut self, index: u32) {
        if self.len == self.cache.len() {
            // Keep the slab given last: it is warm in this core's cache.
            self.umem.free_list().lock().extend_from_slice(&self.cache[..SLAB]);
            self.cache.copy_within(SLAB.., 0);
            self.len = SLAB;
        }
        self.cache[self.len] = index;
        self.len += 1;
    }

    #[cold]
    fn fetch(&mut self) {
        let mut free = self.umem.free_list().lock();
        let rest = free.len().saturating_sub(SLAB);
        self.len = free.len() - rest;
        self.cache[..self.len].copy_from_slice(&free[rest..]);
        free.truncate(rest);
    }
}

impl Drop for LocalPool {
    fn drop(&mut self) {
        self.umem.free_list().lock().extend_from_slice(&self.cache[..self.len]);
    }
}

impl fmt::Debug for LocalPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPool").field("umem", &self.umem).field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UmemConfig;
    use std::collections::HashSet;

    fn umem(frames: u32) -> Umem {
        Umem::new(&UmemConfig { frames, ..UmemConfig::default() }).unwrap()
    }

    #[test]
    fn every_frame_is_handed_out_once_and_can_come_back() {
        let umem = umem(1000);
        let mut pool = umem.pool();
        let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
        let numbers: HashSet<u32> = frames.iter().map(Frame::index).collect();
        assert_eq!((frames.len(), numbers.len(), umem.census().free), (1000, 1000, 0));
        assert!(pool.take().is_none());

        pool.give_all(&mut frames);
        assert_eq!(pool.len() + umem.census().free as usize, 1000);
        drop(pool);
        assert_eq!(umem.census().free, 1000);
    }

    #[test]
    fn frames_move_between_workers_through_the_shared_list() {
        let umem = umem(256);
        let taker = std::thread::spawn(move || {
            let mut pool = umem.pool();
            (0..200).map(|_| pool.take().unwrap()).collect::<Vec<Frame>>()
        });
        let mut frames = taker.join().unwrap();
        let mut pool = umem.pool();
        pool.give_all(&mut frames);
        drop(pool);
        assert_eq!(umem.census().free, 256);
    }

    #[test]
    fn the_shared_list_is_visited_once_per_slab() {
        let umem = umem(1024);
        let mut pool = umem.pool();
        let first = pool.take().unwrap();
        assert_eq!((pool.len(), umem.census().free), (63, 960));
        pool.give(first);
        // Held: while somebody else has the list, a full slab's worth of traffic goes on.
        let list = umem.free_list().lock();
        let frames: Vec<Frame> = (0..64).map(|_| pool.take().unwrap()).collect();
        drop(list);
        for frame in frames {
            pool.give(frame);
        }
        assert_eq!(pool.len(), 64);
    }

    #[test]
    #[should_panic(expected = "another UMEM")]
    fn a_frame_of_other_memory_is_refused() {
        let (one, two) = (umem(64), umem(64));
        let frame = one.pool().take().unwrap();
        two.pool().give(frame);
    }
}
