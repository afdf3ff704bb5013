//! policies of users of the cloud: what is allowed and what lists leave out agree

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Policy.run(data));
