//! Which frames the kernel has: one bit per chunk.

/// The frames given to the kernel and not yet taken back by one socket.
///
/// The kernel's rings carry bare addresses. This set turns an address into a [`Frame`] at most
/// once, whatever a driver puts into a ring, and knows what to give back when a socket goes.
///
/// [`Frame`]: crate::Frame
#[derive(Debug, Default)]
pub(crate) struct Held {
    bits: Box<[u64]>,
    count: u32,
}

impl Held {
    /// An empty set over chunks `0..frames`.
    pub(crate) fn new(frames: u32) -> Held {
        Held { bits: vec![0; frames.div_ceil(64) as usize].into(), count: 0 }
    }

    #[inline]
    pub(crate) fn insert(&mut self, index: u32) {
        let word = &mut self.bits[(index / 64) as usize];
        debug_assert!(*word & 1 << (index % 64) == 0, "chunk {index} is given away twice");
        *word |= 1 << (index % 64);
        self.count += 1;
    }

    /// Takes `index` out; false if it was not in, or is no chunk at all.
    #[inline]
    pub(crate) fn remove(&mut self, index: u64) -> bool {
        let Some(word) = self.bits.get_mut((index / 64) as usize) else { return false };
        let bit = 1 << (index % 64);
        let held = *word & bit != 0;
        *word &= !bit;
        self.count -= u32::from(held);
        held
    }

    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.bits.len() as u32 * 64)
            .filter(|index| self.bits[(index / 64) as usize] & 1 << (index % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_once() {
        let mut held = Held::new(100);
        held.insert(0);
        held.insert(99);
        assert_eq!(held.iter().collect::<Vec<_>>(), [0, 99]);
        assert!(held.remove(99));
        assert!(!held.remove(99));
        assert!(!held.remove(5));
        assert_eq!(held.count(), 1);
    }

    #[test]
    fn an_address_outside_the_memory_is_no_chunk() {
        let mut held = Held::new(64);
        for index in [64, 1 << 20, u64::MAX >> 12, u64::MAX] {
            assert!(!held.remove(index));
        }
    }
}
