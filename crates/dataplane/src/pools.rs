//! A worker's free frames, of two sizes.
//!
//! Sockets take small ones, which hold an ordinary packet. One that is longer comes and goes in
//! several of them, and is a single large one in the worker's hands: all that reads and changes
//! packets has them in one piece.

use af_xdp::{Frame, HEADROOM, LocalPool};

/// Caches of free frames of both sizes.
#[derive(Debug)]
pub struct Pools {
    small: LocalPool,
    large: LocalPool,
    /// Bytes of a small frame.
    chunk: usize,
}

impl Pools {
    /// Of the memory that sockets share, and of one with larger chunks.
    #[must_use]
    pub fn new(small: LocalPool, large: LocalPool) -> Self {
        let chunk = small.umem().chunk() as usize;
        Self { small, large, chunk }
    }

    /// Those that sockets take.
    #[inline]
    pub(crate) fn small(&mut self) -> &mut LocalPool {
        &mut self.small
    }

    /// A frame with room for a packet of so many bytes.
    pub(crate) fn take(&mut self, length: usize) -> Option<Frame> {
        if HEADROOM + length <= self.chunk { self.small.take() } else { self.large.take() }
    }

    /// A large one.
    pub(crate) fn take_large(&mut self) -> Option<Frame> {
        self.large.take()
    }

    /// Whether it is too large for a socket.
    #[inline]
    pub(crate) fn is_large(&self, frame: &Frame) -> bool {
        frame.capacity() != self.chunk
    }

    /// Takes a frame back.
    #[inline]
    pub(crate) fn give(&mut self, frame: Frame) {
        if self.is_large(&frame) { self.large.give(frame) } else { self.small.give(frame) }
    }

    /// Free frames in both caches.
    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    /// Copies the packet of a large frame into small ones, one behind the other. Gives the large
    /// one back to the caller if there are not enough of them.
    pub(crate) fn split(&mut self, frame: Frame, into: &mut Vec<Frame>) -> Result<(), Frame> {
        let before = into.len();
        let mut parts = frame.bytes().chunks(self.chunk).peekable();
        while let Some(part) = parts.next() {
            let Some(mut piece) = self.small.take() else {
                into.drain(before..).for_each(|piece| self.small.give(piece));
                return Err(frame);
            };
            // The kernel needs no room in front of what it sends.
            let fits = piece.set_range(0, part.len());
            debug_assert!(fits, "a part is at most a chunk");
            piece.bytes_mut().copy_from_slice(part);
            piece.set_continues(parts.peek().is_some());
            into.push(piece);
        }
        self.large.give(frame);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use af_xdp::{Umem, UmemConfig};

    pub(crate) fn pools(small: u32, large: u32) -> Pools {
        let memory = |chunk, frames| {
            Umem::new(&UmemConfig { chunk, frames, huge_pages: false }).unwrap().pool()
        };
        Pools::new(memory(2048, small), memory(16384, large))
    }

    /// Free frames of each size, in the caches and in the lists behind them.
    pub(crate) fn free(pools: &Pools) -> [usize; 2] {
        [&pools.small, &pools.large].map(|pool| pool.len() + pool.umem().census().free as usize)
    }

    pub(crate) fn packet(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7) as u8).collect()
    }

    #[test]
    fn a_frame_is_as_large_as_its_packet_asks() {
        let mut pools = pools(64, 64);
        for (length, large) in [(60, false), (1792, false), (1793, true), (16128, true)] {
            let mut frame = pools.take(length).unwrap();
            assert_eq!(pools.is_large(&frame), large, "{length}");
            assert!(frame.copy_from(&packet(length)));
            pools.give(frame);
        }
        assert_eq!(free(&pools), [64, 64]);
    }

    #[test]
    fn a_long_packet_is_cut_into_full_chunks_and_a_last_one() {
        let mut pools = pools(64, 64);
        for (length, lengths) in [
            (2048, &[2048][..]),
            (2049, &[2048, 1]),
            (9022, &[2048, 2048, 2048, 2048, 830]),
            (100, &[100]), // what has been cut short since it came
        ] {
            let (mut frame, mut pieces) = (pools.take(9022).unwrap(), Vec::new());
            assert!(frame.copy_from(&packet(length)));
            assert!(pools.split(frame, &mut pieces).is_ok());
            assert_eq!(pieces.iter().map(Frame::len).collect::<Vec<_>>(), lengths);
            let last = pieces.iter().filter(|piece| !piece.continues()).count();
            assert_eq!((last, pieces.last().unwrap().continues()), (1, false));
            let bytes: Vec<u8> = pieces.iter().flat_map(Frame::bytes).copied().collect();
            assert_eq!(bytes, packet(length));
            pieces.drain(..).for_each(|piece| pools.give(piece));
        }
        assert_eq!(free(&pools), [64, 64]);
    }

    #[test]
    fn without_enough_small_frames_nothing_is_cut_and_none_is_lost() {
        let mut pools = pools(4, 1);
        let (mut frame, mut pieces) = (pools.take(9000).unwrap(), vec![pools.take(60).unwrap()]);
        assert!(frame.copy_from(&packet(9000)));
        let frame = pools.split(frame, &mut pieces).unwrap_err();
        assert_eq!((frame.bytes(), pieces.len()), (&packet(9000)[..], 1));
        pools.give(frame);
        pieces.drain(..).for_each(|piece| pools.give(piece));
        assert_eq!(free(&pools), [4, 1]);
    }
}
