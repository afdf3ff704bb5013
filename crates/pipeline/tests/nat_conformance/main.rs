//! What the RFCs ask of a NAT, requirement by requirement, with the tests that prove it.
//!
//! `docs/nat-conformance.md` is made from [`table`]: `UPDATE_CONFORMANCE=1 cargo test -p sag-pipeline
//! --test nat_conformance` writes it. Every proof is a test of its own, too.

mod icmp;
mod kit;
mod table;
mod tcp;
mod udp;
mod updates;

use std::fmt::Write;
use std::panic::catch_unwind;

/// Weight of a requirement (RFC 2119).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Must,
    Should,
    Recommended,
    May,
    /// Said without such a word.
    Note,
}

/// A test, by name.
pub type Test = (&'static str, fn());

/// How it stands with a requirement.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// These tests prove it.
    Tests(&'static [Test]),
    /// They prove most of it; the rest is otherwise, and why.
    Partly(&'static [Test], &'static str),
    /// It is not so, and why.
    Deviation(&'static str),
    /// It is about something that the gateway does not have.
    Vacuous(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    pub rfc: u16,
    pub id: &'static str,
    pub level: Level,
    /// In our words.
    pub text: &'static str,
    pub proof: Proof,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::Recommended => "RECOMMENDED",
            Level::May => "MAY",
            Level::Note => "(note)",
        }
    }
}

impl Proof {
    fn tests(&self) -> &'static [Test] {
        match self {
            Proof::Tests(t) | Proof::Partly(t, _) => t,
            Proof::Deviation(_) | Proof::Vacuous(_) => &[],
        }
    }

    /// Verdict and remark.
    const fn words(&self) -> (&'static str, &'static str) {
        match self {
            Proof::Tests(_) => ("pass", ""),
            Proof::Partly(_, but) => ("partly", but),
            Proof::Deviation(why) => ("no", why),
            Proof::Vacuous(why) => ("n/a", why),
        }
    }
}

const TITLES: [(u16, &str); 4] = [
    (4787, "unicast UDP"),
    (5382, "TCP"),
    (5508, "ICMP"),
    (7857, "updates to all three; `2.1b` is the second demand of section 2.1"),
];

const INTRO: &str = "\
# What NAT does of what the RFCs ask

Made by `cargo test -p sag-pipeline --test nat_conformance`, which runs every test named here and fails
if one of them does or if this file is not what it finds; `UPDATE_CONFORMANCE=1` writes the file. The
tests are in `crates/pipeline/tests/nat_conformance`. They send whole packets through the pipeline with
the product's default settings and compare what leaves byte for byte.

*pass*: the tests prove it. *partly*: most of it; the remark says what is otherwise. *no*: it is not so,
and why. *n/a*: about something that the gateway does not have.
";

fn document(rows: &[Requirement]) -> String {
    let mut out = INTRO.to_owned();
    let count = |word: &str| rows.iter().filter(|r| r.proof.words().0 == word).count();
    let (pass, partly, no, na) = (count("pass"), count("partly"), count("no"), count("n/a"));
    let total = rows.len();
    let _ = writeln!(
        out,
        "\nOf {total} demands {pass} pass, {partly} pass partly, {na} do not apply, {no} are not met."
    );
    for (rfc, about) in TITLES {
        let _ = writeln!(out, "\n## RFC {rfc}: {about}\n");
        let _ = writeln!(out, "| demand | level | in short | verdict | tests, remarks |");
        let _ = writeln!(out, "|---|---|---|---|---|");
        for r in rows.iter().filter(|r| r.rfc == rfc) {
            let (verdict, remark) = r.proof.words();
            let mut cell: Vec<_> = r.proof.tests().iter().map(|(name, _)| format!("`{name}`")).collect();
            let tests = cell.join(", ");
            cell.clear();
            cell.extend([tests, remark.to_owned()].into_iter().filter(|s| !s.is_empty()));
            let last = cell.join(". ");
            let _ = writeln!(out, "| {} | {} | {} | {verdict} | {last} |", r.id, r.level.word(), r.text);
        }
    }
    out
}

/// Runs every test of the table once; the names of those that fail.
fn failures(rows: &[Requirement]) -> Vec<String> {
    let mut tests: Vec<_> = rows.iter().flat_map(|r| r.proof.tests().iter().map(move |t| (t, r))).collect();
    tests.sort_by_key(|(t, _)| t.0);
    let mut failed = Vec::new();
    for group in tests.chunk_by(|a, b| a.0.0 == b.0.0) {
        let (name, run) = group[0].0;
        if catch_unwind(run).is_err() {
            let of: Vec<_> = group.iter().map(|(_, r)| format!("RFC {} {}", r.rfc, r.id)).collect();
            failed.push(format!("{name}, which proves {}", of.join(" and ")));
        }
    }
    failed
}

#[test]
fn the_document_is_what_the_tests_prove() {
    let failed = failures(table::TABLE);
    assert!(failed.is_empty(), "not proved:\n{}", failed.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/nat-conformance.md");
    let is = document(table::TABLE);
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        std::fs::write(path, &is).expect("the document is written");
    }
    let was = std::fs::read_to_string(path).unwrap_or_default();
    assert!(is == was, "docs/nat-conformance.md is not up to date: run this test with UPDATE_CONFORMANCE=1");
}

#[test]
fn a_proof_that_fails_is_named() {
    fn fails() {
        panic!("on purpose");
    }
    fn holds() {}
    let rows = [
        Requirement { rfc: 1, id: "A", level: Level::Must, text: "", proof: Proof::Tests(&[("x", fails)]) },
        Requirement { rfc: 1, id: "B", level: Level::May, text: "", proof: Proof::Tests(&[("y", holds)]) },
    ];
    assert_eq!(failures(&rows), ["x, which proves RFC 1 A"]);
}

/// Every demand of the RFCs' own numbering stands in the table once, and every row has a proof.
#[test]
fn the_table_is_complete() {
    let mut seen = std::collections::BTreeSet::new();
    for r in table::TABLE {
        assert!(seen.insert((r.rfc, r.id)), "twice: RFC {} {}", r.rfc, r.id);
        assert!(!r.text.is_empty() && !r.text.contains('|'), "RFC {} {}", r.rfc, r.id);
        let (verdict, remark) = r.proof.words();
        assert!(verdict == "pass" || !remark.is_empty(), "RFC {} {}: no reason", r.rfc, r.id);
        assert!(!remark.contains('|'));
        let tested = matches!(r.proof, Proof::Tests(_) | Proof::Partly(..));
        assert_eq!(tested, !r.proof.tests().is_empty(), "RFC {} {}: no test", r.rfc, r.id);
    }
    for (rfc, last) in [(4787, 14), (5382, 10), (5508, 11)] {
        for n in 1..=last {
            let is = |id: &str| {
                let rest = id.strip_prefix(&format!("REQ-{n}"));
                rest.is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_digit()))
            };
            assert!(seen.iter().any(|(f, id)| *f == rfc && is(id)), "RFC {rfc} REQ-{n}");
        }
    }
    for section in 2..=12 {
        let of =
            |id: &str| id.split(|c: char| !c.is_ascii_digit()).next() == Some(section.to_string().as_str());
        assert!(seen.iter().any(|(f, id)| *f == 7857 && of(id)), "RFC 7857 section {section}");
    }
}
