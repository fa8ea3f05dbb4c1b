//! cargo-fuzz entry of [`headwater_fuzz::resolver`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::resolver(data));
