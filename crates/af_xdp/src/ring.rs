//! The four rings: single producer, single consumer, shared with the kernel.
//!
//! Both sides count from 0 to 2^32 and around; the slot is the count modulo the size, which is a
//! power of two. Fullness is a wrapping difference, so nothing happens at the wrap.
//!
//! Ordering: the producer fills slots, then stores its count with *release*; the consumer loads
//! that count with *acquire*, reads the slots, then stores its own count with *release*; the
//! producer loads that with *acquire* before it uses the slots again. The kernel does the same at
//! its end (`net/xdp/xsk_queue.h`). Each side keeps a copy of the other's count and loads the
//! shared one, a cache miss, only when the copy is not good enough.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::sys::Mapping;

struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    size: u32,
    mapping: Mapping,
}

// SAFETY: the pointers go into `mapping`, which is `Send`; there is one `Ring` per mapping.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// The ring within `mapping`.
    ///
    /// # Safety
    /// `at` are the offsets of a ring of `size` (a power of two) `T`s within `mapping`, `T` is plain
    /// integers, and the other side keeps to the protocol above.
    unsafe fn new(mapping: Mapping, at: &libc::xdp_ring_offset, size: u32) -> Ring<T> {
        let slots_end = at.desc as usize + size as usize * size_of::<T>();
        let counts_end = at.producer.max(at.consumer).max(at.flags) as usize + 4;
        assert!(size.is_power_of_two());
        assert!(slots_end <= mapping.len() && counts_end <= mapping.len());
        let base = mapping.base();
        let place = |offset: u64| {
            // SAFETY: all offsets lie within the mapping, as asserted above.
            unsafe { base.add(offset as usize) }
        };
        Ring {
            producer: place(at.producer).cast(),
            consumer: place(at.consumer).cast(),
            flags: place(at.flags).cast(),
            slots: place(at.desc).cast(),
            size,
            mapping,
        }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points into the mapping this ring owns, at an aligned word only used atomically.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn slot(&self, count: u32) -> NonNull<T> {
        // SAFETY: the masked count is below `size`, so the slot lies in the mapping.
        unsafe { self.slots.add((count & (self.size - 1)) as usize) }
    }

    /// Slots between the two counts, at some moment during the call.
    fn queued(&self) -> u32 {
        // The consumer's first: the producer can only be ahead of it, whatever happens in between.
        let consumer = self.consumer().load(Ordering::Acquire);
        self.producer().load(Ordering::Acquire).wrapping_sub(consumer).min(self.size)
    }

    fn needs_wakeup(&self) -> bool {
        // Without the fence this load may overtake the store of our count: the kernel would have
        // seen an empty ring and gone to sleep, and we an old flag.
        fence(Ordering::SeqCst);
        self.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} slots, {} bytes)", self.size, self.mapping.len())
    }
}

/// Our end of a ring we fill: the fill ring and the tx ring.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    /// Our count, ahead of the shared one until `publish`.
    next: u32,
    /// The consumer's count when last seen.
    seen: u32,
}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// As for [`Ring::new`]; nobody else produces.
    pub(crate) unsafe fn new(
        mapping: Mapping,
        at: &libc::xdp_ring_offset,
        size: u32,
    ) -> Producer<T> {
        // SAFETY: promised by the caller.
        let ring = unsafe { Ring::new(mapping, at, size) };
        let next = ring.producer().load(Ordering::Relaxed);
        let seen = ring.consumer().load(Ordering::Acquire);
        Producer { ring, next, seen }
    }

    /// The number of free slots, at least `want` if there are so many.
    #[inline]
    pub(crate) fn room(&mut self, want: u32) -> u32 {
        let room = self.ring.size - self.next.wrapping_sub(self.seen);
        if room >= want {
            return room;
        }
        self.seen = self.ring.consumer().load(Ordering::Acquire);
        self.ring.size - self.next.wrapping_sub(self.seen)
    }

    /// Fills the next slot, which [`room`](Producer::room) has promised.
    #[inline]
    pub(crate) fn put(&mut self, value: T) {
        debug_assert!(self.next.wrapping_sub(self.seen) < self.ring.size, "no room was promised");
        let slot = self.ring.slot(self.next);
        // SAFETY: the consumer has left this slot (acquired in `room`) and does not read it before
        // `publish`.
        unsafe { slot.write(value) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the consumer what was put.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    pub(crate) fn queued(&self) -> u32 {
        self.ring.queued()
    }

    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// Our end of a ring the kernel fills: the rx ring and the completion ring.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    /// Our count, ahead of the shared one until `release`.
    next: u32,
    /// The producer's count when last seen.
    seen: u32,
}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// As for [`Ring::new`]; nobody else consumes.
    pub(crate) unsafe fn new(
        mapping: Mapping,
        at: &libc::xdp_ring_offset,
        size: u32,
    ) -> Consumer<T> {
        // SAFETY: promised by the caller.
        let ring = unsafe { Ring::new(mapping, at, size) };
        let next = ring.consumer().load(Ordering::Relaxed);
        let seen = ring.producer().load(Ordering::Acquire);
        Consumer { ring, next, seen }
    }

    /// The number of filled slots, at least `want` if there are so many.
    #[inline]
    pub(crate) fn available(&mut self, want: u32) -> u32 {
        let available = self.seen.wrapping_sub(self.next);
        if available >= want {
            return available;
        }
        self.seen = self.ring.producer().load(Ordering::Acquire);
        self.seen.wrapping_sub(self.next)
    }

    /// Reads the next slot, which [`available`](Consumer::available) has promised.
    #[inline]
    pub(crate) fn take(&mut self) -> T {
        debug_assert!(self.seen != self.next, "no slot was promised");
        let slot = self.ring.slot(self.next);
        // SAFETY: the producer has filled this slot (acquired in `available`) and does not touch
        // it before `release`.
        let value = unsafe { slot.read() };
        self.next = self.next.wrapping_add(1);
        value
    }

    /// Gives the slots read back to the producer.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }

    pub(crate) fn queued(&self) -> u32 {
        self.ring.queued()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u32 = 8;
    const AT: libc::xdp_ring_offset =
        libc::xdp_ring_offset { producer: 0, consumer: 64, desc: 192, flags: 128 };

    /// Both ends of one ring whose counts start at `start`.
    fn ring(start: u32) -> (Producer<u64>, Consumer<u64>) {
        let mapping = Mapping::anonymous(4096, false).unwrap();
        // A second view of the same memory, leaked, stands for the kernel's.
        let twin = alias(&mapping);
        // SAFETY: two counts and eight slots fit, and this test is both sides.
        let counts: Ring<u64> = unsafe { Ring::new(alias(&mapping), &AT, SIZE) };
        counts.producer().store(start, Ordering::Relaxed);
        counts.consumer().store(start, Ordering::Relaxed);
        std::mem::forget(counts);
        // SAFETY: the only producer of the ring.
        let producer = unsafe { Producer::new(mapping, &AT, SIZE) };
        // SAFETY: the only consumer of the ring.
        let consumer = unsafe { Consumer::new(twin, &AT, SIZE) };
        (producer, consumer)
    }

    fn alias(mapping: &Mapping) -> Mapping {
        // SAFETY: a bitwise copy; tests forget all copies but one, so it is unmapped once.
        unsafe { std::ptr::read(mapping) }
    }

    #[test]
    fn order_is_kept_across_the_wrap_at_2_to_the_32() {
        let (mut producer, mut consumer) = ring(u32::MAX - 20);
        let mut expected = 0;
        for round in 0..100u64 {
            let burst = (round % u64::from(SIZE)) as u32 + 1;
            assert!(producer.room(burst) >= burst);
            for value in 0..burst {
                producer.put(round << 8 | u64::from(value));
            }
            assert_eq!(consumer.available(1), 0, "nothing is seen before publish");
            producer.publish();
            assert_eq!((producer.queued(), consumer.queued()), (burst, burst));
            assert_eq!(consumer.available(burst), burst);
            for value in 0..burst {
                assert_eq!(consumer.take(), round << 8 | u64::from(value));
                expected += 1;
            }
            consumer.release();
        }
        assert!(expected > 100 && consumer.next < 1000, "the counts went round");
        std::mem::forget(consumer);
    }

    #[test]
    fn a_full_ring_has_no_room_until_slots_are_released() {
        let (mut producer, mut consumer) = ring(u32::MAX - 3);
        assert_eq!(producer.room(100), SIZE);
        (0..u64::from(SIZE)).for_each(|value| producer.put(value));
        producer.publish();
        assert_eq!(producer.room(1), 0);
        assert_eq!(consumer.available(1), SIZE);
        assert_eq!((consumer.take(), consumer.take()), (0, 1));
        assert_eq!(producer.room(1), 0, "taken but not released");
        consumer.release();
        assert_eq!(producer.room(1), 2);
        std::mem::forget(consumer);
    }

    #[test]
    fn two_threads_pass_every_value_once_and_in_order() {
        const COUNT: u64 = 200_000;
        let (mut producer, mut consumer) = ring(u32::MAX - 1000);
        let feeder = std::thread::spawn(move || {
            let mut value = 0;
            while value < COUNT {
                for _ in 0..producer.room(1).min((COUNT - value) as u32) {
                    producer.put(value);
                    value += 1;
                }
                producer.publish();
                std::thread::yield_now();
            }
            producer
        });
        let mut expected = 0;
        while expected < COUNT {
            for _ in 0..consumer.available(1) {
                assert_eq!(consumer.take(), expected);
                expected += 1;
            }
            consumer.release();
            std::thread::yield_now();
        }
        std::mem::forget(consumer);
        drop(feeder.join().unwrap());
    }
}
