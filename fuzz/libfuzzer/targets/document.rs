//! device documents of the cloud: refused by name, or the gateway takes what the agent makes of them

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Document.run(data));
