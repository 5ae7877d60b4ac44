//! Packet memory: one mapping cut into chunks, shared by all sockets.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use crate::error::Error;
use crate::frame::Frame;
use crate::held::Held;
use crate::pool::{FreeList, LocalPool};
use crate::sys::Mapping;

/// Size of a huge page asked for.
const HUGE_PAGE: usize = 2 << 20;

/// How large a [`Umem`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UmemConfig {
    /// Bytes per chunk: 2048 (packets up to 1792 bytes) or 4096 (up to 3840). With 8192 or 16384
    /// it is memory for packets in a worker's hands, which no socket takes.
    pub chunk: u32,
    /// Number of chunks. [`SocketConfig::frames`](crate::SocketConfig::frames) says how many each
    /// socket may hold; what workers keep in flight and in caches (128 each) comes on top.
    pub frames: u32,
    /// Try 2 MiB pages first; [`Umem::huge_pages`] says whether the machine had enough of them.
    pub huge_pages: bool,
}

impl Default for UmemConfig {
    fn default() -> UmemConfig {
        UmemConfig { chunk: 2048, frames: 16384, huge_pages: false }
    }
}

/// Packet memory: equal chunks, each of them exactly one [`Frame`].
///
/// The value is a handle, free to copy and to send. The memory itself stays mapped until the
/// process ends, on purpose: a frame then needs no lifetime and no reference count, and neither the
/// kernel nor a worker can be left with a dangling address. A daemon makes one `Umem`.
#[derive(Clone, Copy)]
pub struct Umem(&'static Inner);

struct Inner {
    id: u16,
    mapping: Mapping,
    chunk: u32,
    frames: u32,
    huge_pages: bool,
    free: FreeList,
    sockets: Mutex<Vec<Member>>,
    lingering: Mutex<Vec<Lingering>>,
}

// SAFETY: the mapping's address and length never change; everything that does is behind a lock,
// and its bytes are reached only through a `Frame`.
unsafe impl Sync for Inner {}

/// A queue of an interface, unmistakably: an ifindex means something in one namespace only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueKey {
    pub(crate) netns: u64,
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
}

/// A live socket, which others may name when they share the memory.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) fd: RawFd,
    pub(crate) key: QueueKey,
    pub(crate) zero_copy: bool,
    pub(crate) pieces: bool,
}

/// Frames of a closed socket that the kernel may still touch.
#[derive(Debug)]
pub(crate) struct Lingering {
    /// Tells it from other closed sockets of the same queue.
    pub(crate) number: u64,
    pub(crate) key: QueueKey,
    pub(crate) held: Held,
}

/// Where the frames of a [`Umem`] are, as far as the memory itself can tell.
///
/// `total = free + lingering + the caches' len() + frames in flight + the sockets' census`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemCensus {
    /// All frames.
    pub total: u32,
    /// Frames in the shared free list.
    pub free: u32,
    /// Frames of closed sockets which the kernel has not been seen to let go of.
    pub lingering: u32,
}

impl Umem {
    /// Maps the memory and makes its frames, all of them free.
    ///
    /// It is not registered with the kernel, and so not pinned, before the first socket opens.
    ///
    /// # Errors
    /// A chunk size other than 2048, 4096, 8192 or 16384, no frames, or no memory.
    pub fn new(config: &UmemConfig) -> Result<Umem, Error> {
        static NEXT: AtomicU16 = AtomicU16::new(0);

        let &UmemConfig { chunk, frames, huge_pages } = config;
        if ![2048, 4096, 8192, 16384].contains(&chunk) {
            let text = format!("chunk size {chunk}: must be 2048, 4096, 8192 or 16384 bytes");
            return Err(Error::Geometry(text));
        }
        if frames == 0 || frames > 1 << 24 {
            let text = format!("{frames} frames: must be between 1 and {}", 1 << 24);
            return Err(Error::Geometry(text));
        }
        let id = NEXT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1))
            .map_err(|_| Error::Geometry("more than 65535 UMEMs in one process".into()))?;
        let len = chunk as usize * frames as usize;
        let (mapping, huge_pages) =
            map(len, huge_pages).map_err(|source| Error::Memory { len, source })?;
        let inner = Inner {
            id,
            mapping,
            chunk,
            frames,
            huge_pages,
            free: FreeList::new(frames),
            sockets: Mutex::default(),
            lingering: Mutex::default(),
        };
        Ok(Umem(Box::leak(Box::new(inner))))
    }

    /// A new cache of free frames, for one worker.
    pub fn pool(&self) -> LocalPool {
        LocalPool::new(*self)
    }

    /// Bytes per chunk.
    pub fn chunk(&self) -> u32 {
        self.0.chunk
    }

    /// The number of frames.
    pub fn frames(&self) -> u32 {
        self.0.frames
    }

    /// Whether the memory lies in 2 MiB pages.
    pub fn huge_pages(&self) -> bool {
        self.0.huge_pages
    }

    /// The longest packet a socket can receive into one frame of this memory, in bytes.
    ///
    /// What is longer, Ethernet header and tags included, comes in several frames if the socket
    /// takes [`pieces`](crate::Socket::pieces); else the kernel drops it.
    pub fn max_packet(&self) -> usize {
        self.0.chunk as usize - crate::HEADROOM
    }

    /// Counts the frames.
    pub fn census(&self) -> UmemCensus {
        let lingering = self.lingering().iter().map(|socket| socket.held.count()).sum();
        let free = self.free_list().lock().len() as u32;
        UmemCensus { total: self.0.frames, free, lingering }
    }

    /// The frame of chunk `index`.
    ///
    /// # Safety
    /// No other `Frame` of this chunk exists and the kernel does not have it.
    #[inline]
    pub(crate) unsafe fn frame(&self, index: u32) -> Frame {
        assert!(index < self.0.frames, "chunk {index} of {}", self.0.frames);
        let at = index as usize * self.0.chunk as usize;
        // SAFETY: below `frames * chunk`, the length of the mapping.
        let chunk: NonNull<u8> = unsafe { self.0.mapping.base().add(at) };
        // SAFETY: the mapping is never unmapped; that nobody else has the chunk is the caller's
        // promise.
        unsafe { Frame::new(chunk, index, self.0.id, self.0.chunk as u16) }
    }

    /// Panics unless `frame` is ours: elsewhere its number would name somebody else's chunk.
    #[inline]
    pub(crate) fn own(&self, frame: &Frame) {
        assert!(frame.umem() == self.0.id, "{frame:?} belongs to another UMEM");
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.0.mapping.base()
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.0.chunk) * u64::from(self.0.frames)
    }

    pub(crate) fn free_list(&self) -> &FreeList {
        &self.0.free
    }

    /// The live sockets. Held while one binds or goes, so a listed fd is an open one.
    pub(crate) fn sockets(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the frames of a socket that is being closed.
    pub(crate) fn linger(&self, key: QueueKey, held: Held) {
        static NEXT: AtomicU64 = AtomicU64::new(0);

        if held.count() > 0 {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            self.lingering().push(Lingering { number, key, held });
        }
    }

    pub(crate) fn lingering(&self) -> MutexGuard<'_, Vec<Lingering>> {
        self.0.lingering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Umem({}: {} x {} bytes)", self.0.id, self.0.frames, self.0.chunk)
    }
}

impl PartialEq for Umem {
    fn eq(&self, other: &Umem) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Umem {}

/// Maps `len` bytes, in huge pages if asked and possible.
fn map(len: usize, huge: bool) -> io::Result<(Mapping, bool)> {
    if huge && let Ok(mapping) = Mapping::anonymous(len.next_multiple_of(HUGE_PAGE), true) {
        return Ok((mapping, true));
    }
    Ok((Mapping::anonymous(len, false)?, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_other_sizes_are_refused() {
        for chunk in [0, 1024, 2049, 32768] {
            let error = Umem::new(&UmemConfig { chunk, ..UmemConfig::default() }).unwrap_err();
            assert!(error.to_string().contains("must be 2048, 4096"), "{error}");
        }
        assert!(Umem::new(&UmemConfig { frames: 0, ..UmemConfig::default() }).is_err());
    }

    #[test]
    fn memory_is_there_with_or_without_huge_pages() {
        let config = UmemConfig { chunk: 4096, frames: 512, huge_pages: true };
        let umem = Umem::new(&config).unwrap();
        let mut pool = umem.pool();
        let mut frames: Vec<Frame> = (0..512).map(|_| pool.take().unwrap()).collect();
        for frame in &mut frames {
            frame.chunk_mut().fill(7);
        }
        assert!(frames.iter_mut().all(|frame| frame.chunk_mut()[4095] == 7));
        pool.give_all(&mut frames);
    }
}
