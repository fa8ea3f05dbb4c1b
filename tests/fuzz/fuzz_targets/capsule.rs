//! cargo-fuzz entry of [`headwater_fuzz::capsule`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::capsule(data));
