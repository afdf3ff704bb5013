//! The corpus, and a fixed number of changed inputs, in every test run.

use sag_fuzz::{Mutator, Target, corpus};

fn replay(target: Target, changed: usize) {
    let files = corpus(target).unwrap();
    assert!(!files.is_empty(), "{target:?} has no corpus");
    for (path, data) in &files {
        println!("{}", path.display());
        target.run(data);
    }
    let mut m = Mutator::new(42, files.into_iter().map(|f| f.1).collect());
    for i in 0..changed {
        let input = m.next_input(target);
        println!("input {i}");
        target.run(&input);
    }
}

#[test]
fn parse() {
    replay(Target::Parse, 20_000);
}

#[test]
fn pipeline() {
    replay(Target::Pipeline, 300);
}

#[test]
fn tunnel() {
    replay(Target::Tunnel, 2_000);
}

#[test]
fn config() {
    replay(Target::Config, 1_000);
}

#[test]
fn esp() {
    replay(Target::Esp, 20_000);
}

#[test]
fn fec() {
    replay(Target::Fec, 5_000);
}

#[test]
fn quotes() {
    replay(Target::Quotes, 2_000);
}

#[test]
fn control() {
    replay(Target::Control, 10_000);
}

#[test]
fn request() {
    replay(Target::Request, 10_000);
}

#[test]
fn document() {
    replay(Target::Document, 500);
}

#[test]
fn report() {
    replay(Target::Report, 2_000);
}

#[test]
fn policy() {
    replay(Target::Policy, 10_000);
}

#[test]
fn ledger() {
    replay(Target::Ledger, 2_000);
}

#[test]
fn pcp() {
    replay(Target::Pcp, 10_000);
}

#[test]
fn ha() {
    replay(Target::Ha, 2_000);
}
