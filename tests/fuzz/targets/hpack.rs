#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| maesh_fuzz_targets::run(env!("CARGO_BIN_NAME"), bytes));
