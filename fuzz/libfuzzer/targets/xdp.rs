//! frames through the XDP program and the pipeline over one flow table: both do the same (needs root)

#![no_main]

#[path = "../../../bpf/tests/differential.rs"]
#[allow(dead_code, unused_imports, unreachable_pub)]
mod differential;

use differential::{Lab, Tally, play_input};

thread_local! {
    static LAB: Option<Lab> = Lab::new();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| LAB.with(|lab| match lab {
    Some(lab) => play_input(lab, data, &mut Tally::default()),
    None => std::process::exit(75),
}));
