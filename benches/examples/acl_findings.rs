//! Prints what the analysis finds in generated rule sets, and how long it takes.
//!
//! Usage: `acl_findings [COUNT ...]`.

use std::env;
use std::time::Instant;

use sag_acl::analysis::{self, Kind, Limits};
use sag_acl::generate::{self, Style};

fn main() {
    let mut counts: Vec<usize> = env::args().filter_map(|a| a.parse().ok()).collect();
    if counts.is_empty() {
        counts.extend([1_000, 10_000, 100_000]);
    }
    for count in counts {
        for style in Style::ALL {
            let rules = generate::rules::<u32>(style, count, 1);
            let policy: Vec<_> = rules.into_iter().enumerate().map(|(i, r)| (r, i % 3 == 0)).collect();
            let start = Instant::now();
            let limits = Limits { findings: usize::MAX, ..Limits::default() };
            let report = analysis::findings(&policy, &true, limits);
            let took = start.elapsed();
            let number = |f: fn(&Kind) -> bool| report.findings.iter().filter(|x| f(&x.kind)).count();
            println!(
                "{:4} {count:7} rules: {:6} shadowed, {:6} redundant, {:6} conflicting, {:6} unexamined, in {:.2} s",
                style.name(),
                number(|k| matches!(k, Kind::Shadowed { .. })),
                number(|k| matches!(k, Kind::Redundant { .. })),
                number(|k| matches!(k, Kind::Conflict { .. })),
                report.unexamined,
                took.as_secs_f64(),
            );
        }
    }
}
