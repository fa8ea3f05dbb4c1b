//! cargo-fuzz entry of [`headwater_fuzz::dns_response`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::dns_response(data));
