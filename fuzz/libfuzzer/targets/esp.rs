//! ESP packets, authentic and not: what is opened is what was sealed

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Esp.run(data));
