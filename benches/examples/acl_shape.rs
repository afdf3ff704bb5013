//! Prints size, build time, work and time of lookups for generated rule sets.
//!
//! Usage: `acl_shape [v6] [hostile] [STYLE ...] [COUNT ...]`.

use std::env;
use std::time::{Duration, Instant};

use sag_acl::generate::{self, FromV4, Hostile, Style};
use sag_acl::{AddrFamily, Classifier, NO_MATCH, Rule};

const BATCH: usize = 32;

/// The fastest run in this time counts.
const MEASURE: Duration = Duration::from_secs(1);

fn report<A: FromV4 + AddrFamily>(name: &str, rules: &[Rule<A>]) {
    // The fastest of a few: others share the machine.
    let runs = if rules.len() > 20_000 { 3 } else { 9 };
    let mut built = Duration::MAX;
    for _ in 1..runs {
        let start = Instant::now();
        std::hint::black_box(Classifier::build(rules));
        built = built.min(start.elapsed());
    }
    let classifier = Classifier::build(rules);
    let keys = generate::trace(rules, 65_536, 1);
    let (mut steps, mut blocks) = (0, 0);
    for key in &keys {
        let cost = classifier.lookup_cost(key);
        steps += cost.steps;
        blocks += cost.blocks;
    }
    let mut found = [NO_MATCH; BATCH];
    let mut best = f64::INFINITY;
    let begun = Instant::now();
    while begun.elapsed() < MEASURE {
        let start = Instant::now();
        for keys in keys.chunks(BATCH) {
            classifier.classify_batch(keys, &mut found);
            std::hint::black_box(&found);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / keys.len() as f64);
    }
    let shape = classifier.shape();
    println!(
        "{name:10} {:7} rules  build {:7.1} ms  {:6.2} MB  {:5.2} steps {:5.2} blocks a lookup  {best:6.1} ns  \
         {} trees, depth {}, longest leaf {}",
        rules.len(),
        built.as_secs_f64() * 1e3,
        classifier.memory() as f64 / 1e6,
        steps as f64 / keys.len() as f64,
        blocks as f64 / keys.len() as f64,
        shape.trees,
        shape.depth,
        shape.longest_leaf,
    );
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |word: &str| args.iter().any(|a| a == word);
    let mut counts: Vec<usize> = args.iter().filter_map(|a| a.parse().ok()).collect();
    if counts.is_empty() {
        counts.extend([100, 1_000, 10_000, 100_000]);
    }
    let any_style = Style::ALL.iter().any(|s| has(s.name()));
    for count in counts {
        if has("hostile") {
            for kind in Hostile::ALL {
                report(&format!("{kind:?}"), &kind.rules::<u32>(count, 1));
            }
            continue;
        }
        for style in Style::ALL.into_iter().filter(|s| !any_style || has(s.name())) {
            if has("v6") {
                report(style.name(), &generate::rules::<u128>(style, count, 1));
            } else {
                report(style.name(), &generate::rules::<u32>(style, count, 1));
            }
        }
    }
}
