//! FEC source and repair packets: every stored repair is given back

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Fec.run(data));
