//! `sag-fuzz TARGET [SECONDS] [SEED]`: runs a target on changed inputs of its corpus. An input that
//! fails is written to the corpus, where the tests find it.

#![forbid(unsafe_code)]

use sag_fuzz::{Mutator, Target, corpus, corpus_dir};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(target) = args.next().and_then(|a| Target::from_name(&a)) else {
        let names: Vec<_> = Target::ALL.iter().map(|t| t.name()).collect();
        eprintln!("usage: sag-fuzz {} [SECONDS] [SEED]", names.join("|"));
        return ExitCode::from(2);
    };
    let seconds = args.next().and_then(|a| a.parse().ok()).unwrap_or(60);
    let clock =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let seed = args.next().and_then(|a| a.parse().ok()).unwrap_or_else(clock);
    println!("{} for {seconds} s, seed {seed}", target.name());
    let pool = match corpus(target) {
        Ok(files) => files.into_iter().map(|f| f.1).collect(),
        Err(e) => {
            eprintln!("cannot read {}: {e}; run this from a checkout", corpus_dir(target).display());
            return ExitCode::from(2);
        }
    };
    let mut mutator = Mutator::new(seed, pool);
    let (start, mut runs) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let input = mutator.next_input(target);
        if catch_unwind(AssertUnwindSafe(|| target.run(&input))).is_err() {
            let path = corpus_dir(target).join(format!("failed-{seed}-{runs}"));
            match std::fs::write(&path, &input) {
                Ok(()) => eprintln!("failed after {runs} runs: {}", path.display()),
                Err(e) => {
                    eprintln!("failed after {runs} runs, and {} cannot be written: {e}", path.display())
                }
            }
            return ExitCode::FAILURE;
        }
        runs += 1;
    }
    println!("{runs} runs, no failure");
    ExitCode::SUCCESS
}
