//! batches of frames through a branch gateway, with and without NAT

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Pipeline.run(data));
