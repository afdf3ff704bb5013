//! The parameters of a request, from the query and the form body.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

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
            let (k, v) = (decode(k)?, decode(v)?);
            // PostgreSQL has no text with a zero in it, and no parameter needs one.
            if k.contains('\0') || v.contains('\0') {
                return Err(ApiError::new(400, "InvalidParameter", "A parameter holds a zero character."));
            }
            if self.map.len() >= MOST {
                return Err(ApiError::new(400, "InvalidParameter", "The request has too many parameters."));
            }
            if self.map.contains_key(&k) {
                return Err(ApiError::new(400, "InvalidParameter", "A parameter is given more than once."));
            }
            self.map.insert(k, v);
        }
        Ok(())
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
}
