//! requests for ports by PCP and NAT-PMP: every port that is held is given back

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sag_fuzz::Target::Pcp.run(data));
