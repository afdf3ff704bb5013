//! configuration texts: what is accepted must read back the same when written out

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Config.run(data));
