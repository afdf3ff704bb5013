//! batches of frames through a branch gateway with a tunnel

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Tunnel.run(data));
