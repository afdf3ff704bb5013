//! NAT against a model of it: random packets, time and commits; every outcome is predicted, every
//! forwarded packet compared with one that is built from scratch.
//!
//! The seed of a story that fails is in the message. Tell it again with `SAG_NAT_SEED=n`, or many
//! more with `SAG_NAT_STORIES=n`.

mod model;
mod world;

use std::collections::BTreeMap;
use world::{Tally, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is not a number")))
}

fn tell(seed: u64, steps: usize) -> Tally {
    let mut w = World::new(seed);
    for _ in 0..steps {
        w.step();
    }
    w.end();
    w.tally
}

#[test]
fn nat_does_what_the_model_says() {
    let one = number("SAG_NAT_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("SAG_NAT_STORIES").unwrap_or(60),
    };
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let story = std::thread::Builder::new().name(format!("SAG_NAT_SEED={seed}"));
        let told = story.spawn(move || tell(seed, 400)).expect("a thread").join();
        let told = told.unwrap_or_else(|_| panic!("tell it again with SAG_NAT_SEED={seed}"));
        told.0.into_iter().for_each(|(what, n)| *all.entry(what).or_default() += n);
    }
    println!("{all:#?}");
    if one.is_some() {
        return;
    }
    // The stories are about something.
    for what in [
        "port kept",
        "port chosen",
        "source translated",
        "destination translated",
        "both translated",
        "untranslated",
        "error translated",
        "error untranslated",
        "fragmented",
        "numbered anew",
        "commit",
        "kernel",
        "nat-filtered",
        "nat-no-session",
        "snat-exhausted",
        "snat-host-limit",
    ] {
        assert!(all.get(what).is_some_and(|n| *n >= 20), "{what}: {:?} in {all:?}", all.get(what));
    }
}
