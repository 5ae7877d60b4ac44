//! Asks the processor for a line before it is needed: the crate's only unsafe code.

use crate::line::Line;

/// Starts to load `line` into the caches. Changes nothing a program can see.
#[inline]
pub(crate) fn prefetch(line: &Line) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults on no address; SSE is part of x86-64.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast());
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), loom))]
    let _ = line;
}
