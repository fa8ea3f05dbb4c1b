//! Prefetches memory that will be read soon.
//!
//! A memory-mapped file is in no CPU cache, and the copy of a datagram is too short for the
//! hardware prefetcher to recognise the stream.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the instruction has no safe form")
)]

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Prefetches `bytes` for one use (non-temporal): lines read once should not evict others from the
/// larger caches. Does nothing on processors other than x86-64.
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(LINE_BYTES) {
        use core::arch::x86_64::{_MM_HINT_NTA, _mm_prefetch};
        // SAFETY: the instruction reads nothing, it only hints; the address is one of a live slice.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, LINE_BYTES);
}
