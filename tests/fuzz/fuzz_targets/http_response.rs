//! cargo-fuzz entry of [`headwater_fuzz::http_response`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::http_response(data));
