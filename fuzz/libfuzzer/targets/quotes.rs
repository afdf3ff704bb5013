//! ICMP errors that quote flows, and fragments of flows, through a gateway with NAT

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Quotes.run(data));
