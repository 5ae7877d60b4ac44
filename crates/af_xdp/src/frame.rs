//! A frame: one chunk of packet memory, owned.

use std::fmt;
use std::ptr::NonNull;
use std::slice;

/// Bytes the kernel leaves free in front of a received packet (`XDP_PACKET_HEADROOM`).
///
/// Frames taken from the pool start there too, so there is room to push tags either way.
pub const HEADROOM: usize = 256;

/// One chunk of packet memory and the packet within it, owned by whoever holds the value.
///
/// A `Frame` can be neither copied nor made up: it comes from [`LocalPool::take`] or
/// [`Socket::receive`] and goes to [`LocalPool::give`] or [`Socket::send`]. Dropping one is memory
/// safe but loses its chunk until the process ends; the census then no longer adds up to the total.
/// It is 24 bytes, `Send`, and free of reference counts. The chunk still holds whatever was in it
/// before: only `bytes()` is the packet.
///
/// [`LocalPool::take`]: crate::LocalPool::take
/// [`LocalPool::give`]: crate::LocalPool::give
/// [`Socket::receive`]: crate::Socket::receive
/// [`Socket::send`]: crate::Socket::send
#[must_use = "a dropped frame is lost to its pool: give it back or send it"]
pub struct Frame {
    chunk: NonNull<u8>,
    index: u32,
    umem: u16,
    size: u16,
    head: u16,
    len: u16,
    continues: bool,
}

// SAFETY: the chunk is process memory that is never unmapped, and this value is its only way in.
unsafe impl Send for Frame {}
// SAFETY: through a shared reference the chunk can only be read.
unsafe impl Sync for Frame {}

impl Frame {
    /// Makes the frame of chunk `index`, an empty packet at [`HEADROOM`].
    ///
    /// # Safety
    /// `chunk` points at `size` bytes that stay mapped for ever, are chunk `index` of UMEM `umem`,
    /// and are reachable by nobody else, neither another `Frame` nor the kernel.
    pub(crate) unsafe fn new(chunk: NonNull<u8>, index: u32, umem: u16, size: u16) -> Frame {
        Frame { chunk, index, umem, size, head: HEADROOM as u16, len: 0, continues: false }
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `head` is kept within the chunk, so the result points into it or at its end.
        let start = unsafe { self.chunk.add(self.head as usize) };
        // SAFETY: `head + len <= size` is kept by `set_range`, and this frame owns the chunk.
        unsafe { slice::from_raw_parts(start.as_ptr(), self.len as usize) }
    }

    /// The packet, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `head` is kept within the chunk, so the result points into it or at its end.
        let start = unsafe { self.chunk.add(self.head as usize) };
        // SAFETY: `head + len <= size` is kept by `set_range`; the frame owns the chunk and is
        // borrowed mutably.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.len as usize) }
    }

    /// The whole chunk: headroom, packet, tailroom. The packet is `[head()..head() + len()]` of it.
    #[inline]
    pub fn chunk_mut(&mut self) -> &mut [u8] {
        // SAFETY: the frame owns all `size` bytes of the chunk and is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.chunk.as_ptr(), self.size as usize) }
    }

    /// Where the packet starts in the chunk; so many bytes can be pushed in front of it.
    #[inline]
    pub fn head(&self) -> usize {
        self.head as usize
    }

    /// The length of the packet in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the packet has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The size of the chunk in bytes.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.size as usize
    }

    /// Makes the packet `chunk[head..head + len]`. False, and nothing changed, if that is no range
    /// of the chunk. Bytes that become part of the packet are whatever the chunk holds there.
    #[inline]
    #[must_use = "false means the packet is unchanged"]
    pub fn set_range(&mut self, head: usize, len: usize) -> bool {
        let size = self.size as usize;
        if head > size || len > size - head {
            return false;
        }
        self.head = head as u16;
        self.len = len as u16;
        true
    }

    /// Whether the packet goes on in the next frame (`XDP_PKT_CONTD`): it is longer than a chunk.
    #[inline]
    pub fn continues(&self) -> bool {
        self.continues
    }

    /// Says whether the packet goes on in the frame that is sent next. One from the pool does not.
    #[inline]
    pub fn set_continues(&mut self, continues: bool) {
        self.continues = continues;
    }

    /// Makes the packet a copy of `packet`, at [`HEADROOM`]. False if it is too long for the chunk.
    #[inline]
    #[must_use = "false means the packet is unchanged"]
    pub fn copy_from(&mut self, packet: &[u8]) -> bool {
        if !self.set_range(HEADROOM, packet.len()) {
            return false;
        }
        self.bytes_mut().copy_from_slice(packet);
        true
    }

    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    #[inline]
    pub(crate) fn umem(&self) -> u16 {
        self.umem
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} of umem {}, {}+{})", self.index, self.umem, self.head, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Umem, UmemConfig};

    fn frame() -> Frame {
        let umem = Umem::new(&UmemConfig { frames: 64, ..UmemConfig::default() }).unwrap();
        umem.pool().take().unwrap()
    }

    #[test]
    fn a_frame_is_three_words() {
        assert_eq!(size_of::<Frame>(), 24);
        assert_eq!(size_of::<Option<Frame>>(), 24);
    }

    #[test]
    fn a_tag_is_pushed_into_the_headroom_and_popped_again() {
        let mut frame = frame();
        assert!(frame.copy_from(b"packet"));
        let (head, len) = (frame.head(), frame.len());
        assert!(frame.set_range(head - 4, len + 4));
        frame.bytes_mut()[..4].copy_from_slice(b"tag:");
        assert_eq!(frame.bytes(), b"tag:packet");
        assert!(frame.set_range(head, len));
        assert_eq!(frame.bytes(), b"packet");
    }

    #[test]
    fn a_range_outside_the_chunk_is_refused_and_changes_nothing() {
        let mut frame = frame();
        assert!(frame.copy_from(b"packet"));
        for (head, len) in [(2049, 0), (2048, 1), (0, 2049), (usize::MAX, 2), (2, usize::MAX)] {
            assert!(!frame.set_range(head, len), "{head}+{len}");
        }
        assert!(!frame.copy_from(&[0; 1793]));
        assert_eq!(frame.bytes(), b"packet");
        assert!(frame.set_range(2048, 0) && frame.is_empty());
        assert!(frame.set_range(0, 2048));
        assert_eq!(frame.bytes().len(), frame.chunk_mut().len());
    }
}
