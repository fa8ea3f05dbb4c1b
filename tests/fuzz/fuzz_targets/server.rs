//! cargo-fuzz entry of [`headwater_fuzz::server`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::server(data));
