//! Parts of a stored document: a list of a thousand devices needs a few fields of each, and the rest is
//! as long as what an agent reports.

use serde::de::Error as _;
use serde_json::{Error, Map, Value};

pub trait Keep {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>>;
}

pub struct Everything;

impl Keep for Everything {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>> {
        serde_json::from_str(text)
    }
}

/// The fields of these names. Others are passed over by their brackets and quotes alone: what is stored was written
/// as JSON by this program.
pub struct Fields(pub &'static [&'static str]);

impl Keep for Fields {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>> {
        let mut at = Skim { text, pos: 0 };
        let mut out = Map::new();
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
            assert!(Fields(&["b"]).parse(bad).is_err(), "{bad}");
        }
    }
}
