//! No text makes the reader panic, and what it accepts it can also write and compare.

use super::{EXAMPLE, PORTS};
use crate::config::{Secrets, parse};
use proptest::prelude::*;
use proptest::sample::Index;

/// Reads a text; an accepted one must survive the round trip, a refused one must say why and where.
fn exercise(text: &str) {
    match parse(text, "hostile.toml") {
        Ok(checked) => {
            let written = checked.config.to_toml(Secrets::Shown).expect("writable");
            let again = parse(&written, "written.toml").unwrap_or_else(|e| panic!("{e}\n{written}"));
            assert_eq!(again.config, checked.config);
            assert!(checked.config.diff(&again.config).is_empty());
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            let lines = text.lines().count().max(1) + 1;
            for e in &errors.0 {
                assert!(e.line >= 1 && e.column >= 1 && (e.line as usize) <= lines, "{e}");
                assert!(!e.problem.is_empty() && !e.remedy.is_empty(), "{e}");
                assert_eq!(e.to_string().lines().count(), 1, "{e}");
            }
        }
    }
}

#[test]
fn every_truncation_of_the_example() {
    for end in (0..EXAMPLE.len()).filter(|i| EXAMPLE.is_char_boundary(*i)).step_by(7) {
        exercise(&EXAMPLE[..end]);
    }
}

#[test]
fn every_line_of_the_example_left_out() {
    let lines: Vec<_> = EXAMPLE.lines().collect();
    for skip in 0..lines.len() {
        let rest: Vec<_> = lines.iter().enumerate().filter(|(i, _)| *i != skip).map(|(_, l)| *l).collect();
        exercise(&rest.join("\n"));
    }
}

#[test]
fn deep_nesting() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        exercise(&format!("x = {}{}", open.repeat(50_000), close.repeat(50_000)));
    }
    exercise(&format!("[{}]\n", vec!["a"; 20_000].join(".")));
    exercise(&"[[acl.rule]]\n".repeat(5_000));
    exercise(&"[[port]]\n".repeat(300));
}

/// Values that are near some limit, or of another type than any key wants.
fn value() -> impl Strategy<Value = String> {
    let words = [
        "\"\"",
        "\"any\"",
        "\"all\"",
        "\"tcp\"",
        "\"0\"",
        "\"pop1\"",
        "\"10.0.0.0/8\"",
        "\"10.0.0.1/33\"",
        "\"::/0\"",
        "\"0.0.0.0/0\"",
        "\"255.255.255.255\"",
        "\"224.0.0.1\"",
        "\"-1/-1\"",
        "\"443/80\"",
        "\"0/0\"",
        "true",
        "false",
        "1.5",
        "nan",
        "[]",
        "[1, \"a\"]",
        "{}",
        "{ a = 1 }",
        "1979-05-27T07:32:00Z",
        "07:32:00",
        "\"\\u0000\"",
        "\"\\n\"",
        "\"\\u202e\"",
        "\"é\"",
        "[[]]",
        "[{}]",
    ];
    prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        any::<i64>().prop_map(|n| n.to_string()),
        (-2i64..260).prop_map(|n| n.to_string()),
        any::<u128>().prop_map(|n| n.to_string()),
        "\\PC{0,80}".prop_map(|s| toml::Value::String(s).to_string()),
    ]
}

/// The example with some of its values replaced, removed or repeated.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<Index>(), 0u8..3, value());
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
        for (at, what, value) in edits {
            let i = at.index(lines.len());
            match (what, lines[i].split_once('=')) {
                (0, Some((key, _))) => lines[i] = format!("{key}= {value}"),
                (1, _) => {
                    lines.remove(i);
                }
                _ => {
                    let copy = lines[i].clone();
                    lines.insert(i, copy);
                }
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_text(text in "\\PC{0,200}") {
        exercise(&text);
    }

    #[test]
    fn random_toml_like_text(text in "([\\[\\]a-z_.=\"#'0-9\n ,{}:/-]{0,12}\n?){0,30}") {
        exercise(&text);
        exercise(&format!("{PORTS}{text}"));
    }

    #[test]
    fn example_with_bytes_changed(edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for (at, byte) in edits {
            let i = at.index(bytes.len());
            bytes[i] = byte;
        }
        exercise(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn example_with_values_changed(text in mutated()) {
        exercise(&text);
    }
}

/// The combinations of a rule's groups, and those of all rules, are bounded; plain rules are as many as one likes.
#[test]
fn groups_do_not_multiply_without_bound() {
    let group = |id: &str, net: u8, n: usize| {
        // Every other address: nothing to merge.
        let nets: Vec<_> = (0..n).map(|i| format!("'10.{net}.{}.{}/32'", i / 100, i % 100 * 2)).collect();
        format!("[[group]]\nid='{id}'\nnetworks=[{}]\n", nets.join(","))
    };
    let rule = |source: &str, dest: &str| {
        format!(
            "[[acl.rule]]\ndirection='out'\npolicy='drop'\nip_protocol='tcp'\nsource_cidr='{source}'\ndest_cidr='{dest}'\n"
        )
    };
    let ports = "[[port]]\nname='0'\ndevice='a'\nrole='lan'\n[[port]]\nname='1'\ndevice='b'\nrole='wan'\n";
    let errors = |rules: &str| -> Vec<String> {
        let text = format!("{ports}{}{}[[acl]]\n{rules}", group("a", 1, 64), group("b", 2, 65));
        parse(&text, "t").map_or_else(|e| e.0.iter().map(ToString::to_string).collect(), |_| Vec::new())
    };
    assert_eq!(errors(&rule("@a", "@a")), Vec::<String>::new());
    let over = errors(&rule("@a", "@b"));
    assert!(over.len() == 1 && over[0].contains("make 4160 rules of this one, more than 4096"), "{over:?}");
    let together = errors(&rule("@a", "@a").repeat(25));
    assert!(together.len() == 1 && together[0].contains("acl[0].rule[24]"), "{together:?}");
    assert_eq!(
        errors(&(rule("@a", "@a").repeat(24) + &rule("0.0.0.0/0", "10.0.0.0/8").repeat(3000))),
        Vec::<String>::new()
    );
}
