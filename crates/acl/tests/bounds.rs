//! What a classifier may cost: work of a lookup, memory, and the build, for friendly and hostile sets.

use std::time::{Duration, Instant};

use sag_acl::generate::{self, FromV4, Hostile, Style};
use sag_acl::{AddrFamily, Classifier, Rule};

/// Steps and blocks of an average lookup.
fn work<A: FromV4 + AddrFamily>(classifier: &Classifier<A>, rules: &[Rule<A>]) -> f64 {
    let keys = generate::trace(rules, 4000, 1);
    let efforts = keys.iter().map(|key| classifier.lookup_cost(key));
    efforts.map(|e| e.steps + e.blocks).sum::<usize>() as f64 / keys.len() as f64
}

fn grows_slowly<A: FromV4 + AddrFamily>() {
    for style in Style::ALL {
        let [small, large] = [200, 20_000].map(|count| {
            let rules = generate::rules::<A>(style, count, 4);
            work(&Classifier::build(&rules), &rules)
        });
        // A hundred times the rules.
        assert!(large < small * 4.0, "{style:?}: {small} grows to {large}");
        assert!(large < 12.0, "{style:?}: {large}");
    }
}

#[test]
fn a_lookup_does_not_grow_with_the_rules_v4() {
    grows_slowly::<u32>();
}

#[test]
fn a_lookup_does_not_grow_with_the_rules_v6() {
    grows_slowly::<u128>();
}

#[test]
fn memory_stays_small() {
    for style in Style::ALL {
        let rules = generate::rules::<u32>(style, 20_000, 4);
        let memory = Classifier::build(&rules).memory();
        assert!(memory < 12 << 20, "{style:?}: {memory}");
    }
}

/// Whatever the rules, memory is at most a kilobyte a rule in IPv4 and two in IPv6, and the build
/// ends. The time is generous, for slow machines without optimisation.
fn never_explodes<A: FromV4 + AddrFamily>(bytes_per_rule: usize) {
    let count = 10_000;
    for kind in Hostile::ALL {
        let rules = kind.rules::<A>(count, 5);
        let start = Instant::now();
        let classifier = Classifier::build(&rules);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{kind:?}: {took:?}");
        let memory = classifier.memory();
        assert!(memory < count * bytes_per_rule + (1 << 20), "{kind:?}: {memory}");
        let longest = classifier.shape().longest_leaf;
        assert!(longest <= count.div_ceil(8), "{kind:?}: {longest}");
    }
}

#[test]
fn hostile_sets_do_not_explode_v4() {
    never_explodes::<u32>(1024);
}

#[test]
fn hostile_sets_do_not_explode_v6() {
    never_explodes::<u128>(2048);
}

#[test]
fn repeated_rules_cost_nothing() {
    let rules = Hostile::Same.rules::<u32>(10_000, 1);
    assert_eq!(Classifier::build(&rules).shape().longest_leaf, 1);
}
