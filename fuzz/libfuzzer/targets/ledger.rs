//! the record of sequence numbers: refused, or no number is given out twice

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Ledger.run(data));
