//! signed requests of the cloud API, up to where the database is asked

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Request.run(data));
