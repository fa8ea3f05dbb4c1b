//! Tells the processor which memory will be read soon.
//!
//! Bytes of a file in memory are in no cache, and a copy of a datagram is too short for the processor
//! to see by itself what comes next.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the instruction has no safe form")
)]

/// Bytes that come from memory together.
const LINE_BYTES: usize = 64;

/// Has `bytes` fetched for one use: lines that will not be read twice shall not drive out of the larger
/// caches what will. Does nothing on processors other than x86-64.
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
