//! messages of the gateway to which sessions follow: what they hold is given back

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Ha.run(data));
