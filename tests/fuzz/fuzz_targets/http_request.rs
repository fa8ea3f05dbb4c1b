//! cargo-fuzz entry of [`headwater_fuzz::http_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::http_request(data));
