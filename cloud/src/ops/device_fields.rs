//! Parts of a stored document: a list of a thousand devices needs a few fields of each, and the rest is
//! as long as what an agent reports.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

pub trait Keep {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>>;
}

pub struct Everything;

impl Keep for Everything {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>> {
        serde_json::from_str(text)
    }
}

/// The fields of these names; others are passed over without being kept in memory.
pub struct Fields(pub &'static [&'static str]);

impl Keep for Fields {
    fn parse(&self, text: &str) -> serde_json::Result<Map<String, Value>> {
        let mut from = serde_json::Deserializer::from_str(text);
        let map = from.deserialize_map(Few(self.0))?;
        from.end()?;
        Ok(map)
    }
}

struct Few(&'static [&'static str]);

impl<'de> Visitor<'de> for Few {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = Map::new();
        while let Some(at) = map.next_key_seed(Name(self.0))? {
            match at {
                Some(name) => {
                    out.insert(name.to_owned(), map.next_value()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(out)
    }
}

/// A key: one of the names, or none of them.
struct Name(&'static [&'static str]);

impl<'de> serde::de::DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|n| **n == key).copied())
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
        for bad in ["", "[]", "{\"b\": }", "{} x", "{\"a\": 1"] {
            assert!(Fields(&["b"]).parse(bad).is_err(), "{bad}");
        }
    }
}
