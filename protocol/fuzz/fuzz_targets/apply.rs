#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devsync_protocol_fuzz::apply(input));
