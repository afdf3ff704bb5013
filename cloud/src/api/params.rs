//! The parameters of a request, from the query and the body.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::ApiError;

/// Parameters of a request: several times what the longest list needs. Each takes memory that has little to do with its
/// length.
const MOST: usize = 2000;

#[derive(Clone, Debug, Default)]
pub struct Params {
    map: BTreeMap<String, String>,
}

impl Params {
    /// Adds `a=b&c=d`. A name that comes twice is refused: two readers could pick different ones.
    pub fn parse_into(&mut self, text: &str) -> Result<(), ApiError> {
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
            self.insert(decode(k)?, decode(v)?)?;
        }
        Ok(())
    }

    fn insert(&mut self, name: String, value: String) -> Result<(), ApiError> {
        // PostgreSQL has no text with a zero in it, and no parameter needs one.
        if name.contains('\0') || value.contains('\0') {
            return Err(ApiError::new(400, "InvalidParameter", "A parameter holds a zero character."));
        }
        if self.map.len() >= MOST {
            return Err(ApiError::new(400, "InvalidParameter", "The request has too many parameters."));
        }
        if self.map.contains_key(&name) {
            return Err(ApiError::new(400, "InvalidParameter", "A parameter is given more than once."));
        }
        self.map.insert(name, value);
        Ok(())
    }

    /// Adds the members of a JSON object: a list becomes `Name.1`, `Name.2`, ..., an object in it `Name.1.Key`, as forms
    /// write them.
    pub fn parse_json_into(&mut self, text: &[u8]) -> Result<(), ApiError> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|_| ApiError::new(400, "InvalidParameter", "The body is not valid JSON."))?;
        match value {
            Value::Object(members) => members.into_iter().try_for_each(|(name, v)| self.flatten(name, v)),
            _ => Err(ApiError::new(400, "InvalidParameter", "The body is JSON, but no object.")),
        }
    }

    fn flatten(&mut self, name: String, value: Value) -> Result<(), ApiError> {
        match value {
            Value::Null => Ok(()),
            Value::String(text) => self.insert(name, text),
            Value::Bool(_) | Value::Number(_) => self.insert(name, value.to_string()),
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .try_for_each(|(i, item)| self.flatten(format!("{name}.{}", i + 1), item)),
            Value::Object(members) => {
                members.into_iter().try_for_each(|(key, item)| self.flatten(format!("{name}.{key}"), item))
            }
        }
    }

    /// Adds what the body of a request has to what its query has. Some clients send a parameter in both: the same value
    /// twice is one, and of two different ones nobody could say which is meant.
    pub fn merge(&mut self, body: Params) -> Result<(), ApiError> {
        for (name, value) in body.map {
            match self.map.get(&name) {
                Some(same) if *same == value => {}
                Some(_) => {
                    return Err(ApiError::new(
                        400,
                        "InvalidParameter",
                        "A parameter has one value in the query and another one in the body.",
                    ));
                }
                None => self.insert(name, value)?,
            }
        }
        Ok(())
    }

    /// Whether the request names it, be it without a value.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    pub fn remove(&mut self, name: &str) {
        self.map.remove(name);
    }

    /// The value, unless it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.map.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.map.insert(name.to_owned(), value.to_owned());
    }

    /// `Name.1`, `Name.2`, ... in the order of their numbers.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let mut rows: Vec<(u32, &str)> = self
            .map
            .range(format!("{name}.")..)
            .take_while(|(k, _)| k.starts_with(name) && k.as_bytes().get(name.len()) == Some(&b'.'))
            .filter_map(|(k, v)| Some((k[name.len() + 1..].parse().ok()?, v.as_str())))
            .filter(|(_, v)| !v.is_empty())
            .collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, v)| v).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.map.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

/// The values of a parameter that has several: separated by commas, or a JSON array, as the documents print both.
pub fn separated(values: &str) -> Vec<String> {
    if let Some(array) = json_array(values) {
        return array;
    }
    values.split(',').map(|v| v.trim().to_owned()).collect()
}

/// The texts and numbers of a JSON array (`["acl-1","acl-2"]`).
fn json_array(text: &str) -> Option<Vec<String>> {
    let items: Vec<Value> = serde_json::from_str(text.trim()).ok()?;
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
        .collect()
}

fn decode(s: &str) -> Result<String, ApiError> {
    let plain = s.replace('+', " ");
    percent_decode_str(&plain)
        .decode_utf8()
        .map(|c| c.into_owned())
        .map_err(|_| ApiError::new(400, "InvalidParameter", "A parameter is not valid UTF-8."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_follow_their_numbers() {
        let mut p = Params::default();
        p.parse_into("A.10=x&A.2=y&A.1=z&AB.1=n&A=q").expect("parses");
        assert_eq!(p.list("A"), ["z", "y", "x"]);
    }

    #[test]
    fn so_many_and_no_more() {
        let text = |n: usize| (0..n).map(|i| format!("a{i}")).collect::<Vec<_>>().join("&");
        assert!(Params::default().parse_into(&text(MOST)).is_ok());
        assert!(Params::default().parse_into(&text(MOST + 1)).is_err());
    }

    #[test]
    fn a_repeated_name_is_refused() {
        assert!(Params::default().parse_into("A=1&A=2").is_err());
    }

    #[test]
    fn query_and_body_may_say_the_same() {
        let of = |text: &str| {
            let mut p = Params::default();
            p.parse_into(text).expect("parses");
            p
        };
        let mut query = of("A=1&B=2");
        query.merge(of("B=2&C=3")).expect("the same value");
        assert_eq!(query.iter().collect::<Vec<_>>(), [("A", "1"), ("B", "2"), ("C", "3")]);
        assert!(query.merge(of("A=2")).is_err());
    }

    #[test]
    fn json_bodies_are_what_forms_say() {
        let mut p = Params::default();
        p.parse_json_into(
            br#"{"A": "x", "N": 5, "B": true, "L": ["y", 7], "Tag": [{"Key": "k"}], "Z": null}"#,
        )
        .expect("parses");
        let all = [("A", "x"), ("B", "true"), ("L.1", "y"), ("L.2", "7"), ("N", "5"), ("Tag.1.Key", "k")];
        assert_eq!(p.iter().collect::<Vec<_>>(), all);
        for bad in ["[]", "{", "\"x\"", "{\"a\": \"\\u0000\"}", ""] {
            assert!(Params::default().parse_json_into(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert!(Params::default().parse_json_into(deep.as_bytes()).is_err());
    }
}
