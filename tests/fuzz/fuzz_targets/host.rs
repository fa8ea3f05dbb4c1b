//! cargo-fuzz entry of [`headwater_fuzz::host`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::host(data));
