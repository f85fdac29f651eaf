#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| footfall_core::checks::json_lines(data));
