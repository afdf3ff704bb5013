//! frames through the parser: what it finds must lie inside the frame

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Parse.run(data));
