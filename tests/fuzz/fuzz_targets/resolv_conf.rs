//! cargo-fuzz entry of [`headwater_fuzz::resolv_conf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::resolv_conf(data));
