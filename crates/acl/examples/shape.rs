//! Prints size, build time and lookup time of the classifier for generated rule sets.

use std::time::Instant;

use sag_acl::generate::{self, FromV4, Hostile, Style};
use sag_acl::{Classifier, NO_MATCH, Rule};

fn report<A: FromV4>(name: &str, rules: &[Rule<A>]) {
    let start = Instant::now();
    let classifier = Classifier::build(rules);
    let built = start.elapsed();
    let keys = generate::trace(rules, 65_536, 1);
    let mut found = vec![NO_MATCH; keys.len()];
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            for (keys, found) in keys.chunks(32).zip(found.chunks_mut(32)) {
                classifier.classify_batch(keys, found);
            }
            start.elapsed().as_secs_f64() * 1e9 / keys.len() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let shape = classifier.shape();
    println!(
        "{name:16} {:7} rules  build {:8.1} ms  {:8.2} MB  {:6.1} ns  {shape:?}",
        rules.len(),
        built.as_secs_f64() * 1e3,
        classifier.memory() as f64 / 1e6,
        times[times.len() / 2],
    );
}

fn main() {
    for style in Style::ALL {
        for count in [100, 1_000, 10_000, 100_000] {
            report(style.name(), &generate::rules::<u32>(style, count, 1));
        }
    }
    for style in Style::ALL {
        report(&format!("{} v6", style.name()), &generate::rules::<u128>(style, 10_000, 1));
    }
    for kind in Hostile::ALL {
        report(&format!("{kind:?}"), &kind.rules::<u32>(10_000, 1));
    }
}
