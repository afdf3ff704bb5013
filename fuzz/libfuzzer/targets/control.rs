//! lines of the control socket: what is accepted reads back the same when written out

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Control.run(data));
