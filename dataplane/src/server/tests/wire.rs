//! Lines and documents, without a socket.

use super::Fake;
use crate::server::{client::Input, dispatch};
use proptest::prelude::*;
use sag_model::control::{Access, MAX_CONFIG_REQUEST, MAX_REQUEST, Op};
use serde_json::{Value, json};
use std::io::{self, Read};

fn ask(line: &str, fake: &mut Fake) -> Value {
    let mut out = Vec::new();
    dispatch::answer(line.as_bytes(), Access::Admin, fake, &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n'));
    serde_json::from_slice(&out).unwrap()
}

/// Each operation, called by one who may only read.
#[test]
fn readers_change_nothing() {
    let read = [
        r#""op":"status""#,
        r#""op":"ports""#,
        r#""op":"drops""#,
        r#""op":"acl""#,
        r#""op":"routes""#,
        r#""op":"sessions""#,
        r#""op":"top""#,
        r#""op":"explain","port":"0","proto":"tcp","src":"192.0.2.1","dst":"192.0.2.9""#,
        r#""op":"nat""#,
        r#""op":"nat-bindings""#,
        r#""op":"nat-mappings""#,
        r#""op":"qos""#,
        r#""op":"tunnels""#,
        r#""op":"ha""#,
        r#""op":"config-show""#,
    ];
    let keys = r#""spi_in":300,"spi_out":301,"key_in":"00ff","key_out":"ff00""#;
    let admin = [
        r#""op":"sessions-flush","all":true"#.to_owned(),
        format!(r#""op":"tunnels-rekey","tunnel":"t",{keys}"#),
        r#""op":"tunnels-key","gateway":"g""#.to_owned(),
        r#""op":"tunnels-peers","peers":[]"#.to_owned(),
        r#""op":"tunnels-confirm","tunnel":"t""#.to_owned(),
        r#""op":"config-apply","text":"","name":"x""#.to_owned(),
        r#""op":"config-diff","text":"","name":"x""#.to_owned(),
        r#""op":"config-deviations","deviations":[]"#.to_owned(),
        r#""op":"reload""#.to_owned(),
    ];
    assert_eq!(read.len() + admin.len(), Op::NAMES.len(), "every operation");
    let ask = |args: &str| {
        let (mut out, mut fake) = (Vec::new(), Fake::default());
        let line = format!(r#"{{"v":1,"id":5,{args}}}"#);
        dispatch::answer(line.as_bytes(), Access::Read, &mut fake, &mut out);
        let answer: Value = serde_json::from_slice(&out).unwrap();
        (answer["err"]["code"].as_str().map(str::to_owned), answer["id"].clone(), fake.asked)
    };
    for args in read {
        let (code, ..) = ask(args);
        assert_ne!(code.as_deref(), Some("Forbidden"), "{args}");
    }
    for args in &admin {
        let (code, id, asked) = ask(args);
        assert_eq!((code.as_deref(), id, asked.len()), (Some("Forbidden"), json!(5), 0), "{args}");
    }
}

#[test]
fn every_operation_reaches_its_method() {
    let explain = r#""port":"0","proto":"tcp","src":"192.0.2.1","dst":"192.0.2.9","sport":1,"dport":2"#;
    for (args, asked) in [
        (r#""op":"status""#, "status"),
        (r#""op":"ports""#, "ports"),
        (r#""op":"drops""#, "drops"),
        (r#""op":"acl","acl":"acl-1""#, "acl-1"),
        (r#""op":"routes","covers":"192.0.2.1""#, "192.0.2.1"),
        (r#""op":"sessions","limit":3,"sort":"packets""#, "Packets"),
        (r#""op":"sessions-flush","filter":{"proto":"udp"}"#, "IpProto(17)"),
        (r#""op":"sessions-flush","all":true"#, "None"),
        (r#""op":"top","group":"service""#, "Service"),
        (&format!(r#""op":"explain",{explain}"#), "192.0.2.9"),
        (r#""op":"config-show""#, "config-show"),
        (r#""op":"config-apply","text":"a = 1","name":"f.toml""#, "f.toml"),
        (r#""op":"reload""#, "reload"),
    ] {
        let mut fake = Fake::default();
        let answer = ask(&format!(r#"{{"v":1,"id":77,{args}}}"#), &mut fake);
        assert_eq!((&answer["v"], &answer["id"]), (&json!(1), &json!(77)), "{args}");
        assert!(answer.get("ok").is_some(), "{args}: {answer}");
        assert_eq!(fake.asked.len(), 1, "{args}");
        assert!(fake.asked[0].contains(asked), "{args}: {:?}", fake.asked);
    }
}

#[test]
fn a_diff_changes_nothing() {
    let mut fake = Fake { running: "[bandwidth]\nccn = 1\n".into(), ..Fake::default() };
    let answer =
        ask(r#"{"v":1,"id":1,"op":"config-diff","name":"n","text":"[bandwidth]\nccn = 2"}"#, &mut fake);
    assert_eq!(answer["ok"]["changes"], json!([{"path": "bandwidth.ccn", "old": "1", "new": "2"}]));
    assert_eq!(answer["ok"]["warnings"], json!(["[[qos]] is not enforced"]));
    assert_eq!(fake.asked, [r#"("config-diff", 19, "n")"#]);
    assert_eq!(fake.running, "[bandwidth]\nccn = 1\n");
}

#[test]
fn refusals_name_their_kind_and_keep_the_id() {
    for (line, id, code) in [
        ("nonsense", 0, "BadRequest"),
        ("[1,2]", 0, "BadRequest"),
        (r#"{"v":1,"id":"x","op":"status"}"#, 0, "BadRequest"),
        (r#"{"v":2,"id":5,"op":"status"}"#, 5, "VersionMismatch"),
        (r#"{"id":5,"op":"status"}"#, 5, "VersionMismatch"),
        (r#"{"v":1,"id":5,"op":"reboot"}"#, 5, "UnknownOp"),
        (r#"{"v":1,"id":5}"#, 5, "UnknownOp"),
        (r#"{"v":1,"id":5,"op":"sessions","filter":{"sorce":"192.0.2.1"}}"#, 5, "BadRequest"),
        (r#"{"v":1,"id":5,"op":"sessions-flush"}"#, 5, "BadRequest"),
        (r#"{"v":1,"id":5,"op":"acl","acl":"acl-9"}"#, 5, "NotFound"),
        (r#"{"v":1,"id":5,"op":"config-apply","name":"f","text":"bad = 1"}"#, 5, "InvalidConfig"),
        (r#"{"v":1,"id":5,"op":"trace"}"#, 5, "UnknownOp"),
    ] {
        let answer = ask(line, &mut Fake::default());
        assert_eq!(answer["id"], id, "{line}");
        assert_eq!(answer["err"]["code"], code, "{line}: {answer}");
        assert!(!answer["err"]["message"].as_str().unwrap().is_empty(), "{line}");
        assert!(!answer["err"]["remedy"].as_str().unwrap().is_empty(), "{line}");
    }
}

#[test]
fn a_long_quotation_is_cut() {
    let line = format!(r#"{{"v":1,"id":1,"op":"{}"}}"#, "ü".repeat(100_000));
    let answer = ask(&line, &mut Fake::default());
    assert!(answer["err"]["message"].as_str().unwrap().len() < 2100);
}

/// Hands out its bytes in pieces of the given sizes, over and over.
struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.1.next().copied().unwrap_or(1).min(self.0.len()).min(buf.len());
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// Lines, or codes of refusals.
fn lines(bytes: &[u8], sizes: &[usize], may_be_large: bool) -> Vec<String> {
    let (mut input, mut from, mut out) = (Input::default(), Pieces(bytes, sizes.iter().cycle()), Vec::new());
    loop {
        while let Some(line) = input.next_line(may_be_large) {
            out.push(match line {
                Ok(line) => String::from_utf8_lossy(line).into_owned(),
                Err(e) => format!("<{}>", e.code),
            });
        }
        if input.fill(&mut from).unwrap() == 0 {
            return out;
        }
    }
}

#[test]
fn long_lines_are_refused_once_and_the_next_ones_read() {
    let long = |n: usize, head: &str| format!("{head}{}\nafter\n", "x".repeat(n - head.len()));
    let small = long(MAX_REQUEST, "");
    assert_eq!(lines(small.as_bytes(), &[70_000], true)[1], "after");
    assert_eq!(lines(long(MAX_REQUEST + 1, "").as_bytes(), &[70_000], true), ["<TooLarge>", "after"]);
    assert_eq!(lines(long(3 * MAX_REQUEST, "").as_bytes(), &[999_999], true), ["<TooLarge>", "after"]);
    let config = r#"{"v":1,"id":1,"op":"config-apply","text":""#;
    let large = long(3 * MAX_REQUEST, config);
    assert_eq!(lines(large.as_bytes(), &[70_000], true)[0].len(), 3 * MAX_REQUEST);
    assert_eq!(lines(large.as_bytes(), &[70_000], false), ["<Busy>", "after"]);
    let huge = long(MAX_CONFIG_REQUEST + 1, config);
    assert_eq!(lines(huge.as_bytes(), &[65_536], true), ["<TooLarge>", "after"]);
}

fn json_like() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"v\"",
        "1",
        "\"id\"",
        "\"op\"",
        "\"sessions\"",
        "\"filter\"",
        "\"src\"",
        "\"192.0.2.1\"",
        "\"limit\"",
        "null",
        "-1",
        "1e99",
        "\"config-apply\"",
        "\"text\"",
        "\\u0000",
        "\n",
        "\"",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_get_one_answer_a_line(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        sizes in prop::collection::vec(1usize..90, 1..6),
    ) {
        let want: Vec<String> = bytes
            .split(|b| *b == b'\n')
            .take(bytes.iter().filter(|b| **b == b'\n').count())
            .filter(|l| !l.iter().all(u8::is_ascii_whitespace))
            .map(|l| String::from_utf8_lossy(l).into_owned())
            .collect();
        prop_assert_eq!(lines(&bytes, &sizes, true), want);
        for line in bytes.split(|b| *b == b'\n') {
            let mut out = Vec::new();
            dispatch::answer(line, Access::Admin, &mut Fake::default(), &mut out);
            prop_assert_eq!(out.last(), Some(&b'\n'));
            let answer: Value = serde_json::from_slice(&out).unwrap();
            prop_assert!(answer.get("ok").is_some() != answer.get("err").is_some());
        }
    }

    #[test]
    fn nearly_right_requests_get_an_answer(text in json_like()) {
        let mut out = Vec::new();
        dispatch::answer(text.as_bytes(), Access::Admin, &mut Fake::default(), &mut out);
        let answer: Value = serde_json::from_slice(&out).unwrap();
        prop_assert!(answer.get("ok").is_some() != answer.get("err").is_some());
    }
}
