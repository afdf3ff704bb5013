//! state reports of devices: refused by name, or kept without a change

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Report.run(data));
