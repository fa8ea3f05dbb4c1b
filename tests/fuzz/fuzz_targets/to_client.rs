//! cargo-fuzz entry of [`headwater_fuzz::to_client`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::to_client(data));
