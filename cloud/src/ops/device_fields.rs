//! Parts of a stored document: a list of a thousand devices needs a few fields of each, and the rest is
//! as long as what an agent reports.

use serde::de::Error as _;
use serde_json::{Error, Map, Value};

/// What lists show of a report. A report is stored with these in front, absent ones as null, so that nothing behind
/// them need be looked at.
pub const LISTED: [&str; 7] = [
    "SoftwareVersion",
    "MonitorVersion",
    "DpiSignatureDbVersion",
    "IpsecStatus",
    "EnableOptimization",
    "TrafficRate",
    "DropRate",
];

/// A report as it is stored.
pub fn report_text(report: Value) -> String {
    let Value::Object(mut all) = report else { return "{}".to_owned() };
    let listed = LISTED.map(|name| (name.to_owned(), all.remove(name).unwrap_or_default()));
    let fields = listed.into_iter().chain(all);
    let texts: Vec<String> = fields.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", texts.join(","))
}

pub trait Keep {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>>;
}

pub struct Everything;

impl Keep for Everything {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>> {
        serde_json::from_str(text)
    }
}

/// The fields of these names. Others are passed over by their brackets and quotes alone, and nothing is looked at once
/// all are found: what is stored was written as JSON by this program.
pub struct Fields(pub &'static [&'static str]);

impl Keep for Fields {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>> {
        let mut at = Skim { text, pos: 0 };
        let mut out = Map::new();
        if self.0.is_empty() {
            return Ok(out);
        }
        at.expect(b'{')?;
        if at.next_is(b'}') {
            at.pos += 1;
            return at.end(out);
        }
        loop {
            at.space();
            let key = at.value()?;
            at.expect(b':')?;
            at.space();
            let value = at.value()?;
            if let Some(name) = self.named(key)? {
                out.insert(name.to_owned(), serde_json::from_str(value)?);
                if out.len() == self.0.len() {
                    return Ok(out);
                }
            }
            if at.next_is(b'}') {
                at.pos += 1;
                return at.end(out);
            }
            at.expect(b',')?;
        }
    }
}

impl Fields {
    /// The one of the names that a key in its quotes is.
    fn named(&self, key: &str) -> serde_json::Result<Option<&'static str>> {
        let inner = key.strip_prefix('"').and_then(|k| k.strip_suffix('"'));
        let inner = inner.ok_or_else(|| Error::custom("a key is no text"))?;
        if !inner.contains('\\') {
            return Ok(self.0.iter().find(|n| **n == inner).copied());
        }
        let plain: String = serde_json::from_str(key)?;
        Ok(self.0.iter().find(|n| **n == plain).copied())
    }
}

/// A place in a JSON text.
struct Skim<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Skim<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.pos..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.pos += self.rest().iter().take_while(|b| b.is_ascii_whitespace()).count();
    }

    fn next_is(&mut self, want: u8) -> bool {
        self.space();
        self.rest().first() == Some(&want)
    }

    fn expect(&mut self, want: u8) -> serde_json::Result<()> {
        if !self.next_is(want) {
            return Err(Error::custom(format_args!("no {:?} at byte {}", want as char, self.pos)));
        }
        self.pos += 1;
        Ok(())
    }

    fn end(mut self, out: Map<String, Value>) -> serde_json::Result<Map<String, Value>> {
        self.space();
        if self.rest().is_empty() { Ok(out) } else { Err(Error::custom("more behind the document")) }
    }

    /// The text of the value that begins here.
    fn value(&mut self) -> serde_json::Result<&'a str> {
        let rest = self.rest();
        let mut depth = 0usize;
        let mut len = 0;
        let end = loop {
            let Some(byte) = rest.get(len) else {
                return Err(Error::custom("the document ends in a value"));
            };
            match byte {
                b'"' => {
                    len += 1;
                    loop {
                        match rest.get(len) {
                            Some(b'"') => break,
                            Some(b'\\') => len += 2,
                            Some(_) => len += 1,
                            None => return Err(Error::custom("the document ends in a text")),
                        }
                    }
                    if depth == 0 {
                        break len + 1;
                    }
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 1 => depth -= 1,
                b'}' | b']' if depth == 1 => break len + 1,
                // A number or a word ends before what follows it.
                b'}' | b']' | b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => break len,
                _ => {}
            }
            len += 1;
        };
        let from = self.pos;
        self.pos += end;
        let value = self.text.get(from..self.pos).filter(|v| !v.is_empty());
        value.ok_or_else(|| Error::custom("a value is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lists_show_is_in_front_of_a_stored_report() {
        let report =
            serde_json::json!({"Ports": [{"Role": "WAN"}], "DropRate": 0.5, "SoftwareVersion": "2.3.1"});
        let text = report_text(report.clone());
        let whole = Everything.parse(&text).unwrap();
        for (key, value) in report.as_object().unwrap() {
            assert_eq!(whole.get(key), Some(value));
        }
        assert_eq!(whole.len(), LISTED.len() + 1);
        // What follows is not looked at.
        let front = text.split("\"Ports\"").next().unwrap();
        let got = Fields(&LISTED).parse(front).unwrap();
        assert_eq!((&got["DropRate"], &got["IpsecStatus"]), (&report["DropRate"], &Value::Null));
        assert_eq!(report_text(Value::Null), "{}");
    }

    #[test]
    fn the_named_fields_and_no_others() {
        let text = r#"{"a": {"x": [1, {"b": 2}]}, "b": "t\u00e9\"x", "c": [], "k\u0041": null, "d": -1.5}"#;
        let whole = Everything.parse(text).unwrap();
        let got = Fields(&["b", "d", "kA", "z"]).parse(text).unwrap();
        let mut keys: Vec<&str> = got.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["b", "d", "kA"]);
        assert!(got.iter().all(|(k, v)| whole.get(k) == Some(v)));
        assert!(Fields(&["b"]).parse("{}").unwrap().is_empty());
        let nested = r#" { "a" : [{"x": "]}\\\" , "}, []], "b":{"c":[1,"}"]} , "c" : -1e5,"d":"\u007d" } "#;
        let got = Fields(&["b", "c", "d"]).parse(nested).unwrap();
        let whole = Everything.parse(nested).unwrap();
        assert!(got.len() == 3 && got.iter().all(|(k, v)| whole.get(k) == Some(v)), "{got:?}");
        let bad = [
            "",
            "[]",
            "{\"b\": }",
            "{} x",
            "{\"a\": 1",
            "{\"a\" 1}",
            "{\"a\": 1,}",
            "{\"a\": \"x}",
            "{a: 1}",
            "{1: 1}",
            "{\"a\": [1}",
            "{",
        ];
        for bad in bad {
            assert!(Fields(&["b", "z"]).parse(bad).is_err(), "{bad}");
        }
    }
}
