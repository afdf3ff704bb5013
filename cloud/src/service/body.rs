//! The body of a request: a form or a JSON object. Both give the same parameters.

use hyper::HeaderMap;

use super::sign::header;
use crate::api::params::Params;
use crate::error::{ApiError, Result};

/// What the body adds to the query. Some clients send a form without saying so.
pub fn params(headers: &HeaderMap, body: &[u8]) -> Result<Params> {
    let mut params = Params::default();
    if body.is_empty() {
        return Ok(params);
    }
    let kind = header(headers, "content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let looks_like_json = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    match kind.as_str() {
        "application/json" => params.parse_json_into(body)?,
        "" if looks_like_json => params.parse_json_into(body)?,
        "" | "application/x-www-form-urlencoded" => {
            let text = std::str::from_utf8(body)
                .map_err(|_| ApiError::new(400, "InvalidParameter", "The form body is not valid UTF-8."))?;
            params.parse_into(text.trim_end_matches(['\r', '\n']))?;
        }
        _ => {
            return Err(ApiError::new(
                415,
                "UnsupportedContentType",
                "The body is neither application/x-www-form-urlencoded nor application/json.",
            ));
        }
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Option<&str>, body: &str) -> Result<Vec<(String, String)>> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert("content-type", kind.parse().expect("a value"));
        }
        let found = params(&headers, body.as_bytes())?;
        Ok(found.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    #[test]
    fn forms_and_json_say_the_same() {
        let same = vec![("A".to_owned(), "x y".to_owned()), ("N".to_owned(), "5".to_owned())];
        for (kind, body) in [
            (Some("application/x-www-form-urlencoded"), "A=x+y&N=5"),
            (Some("Application/X-WWW-Form-Urlencoded; charset=UTF-8"), "A=x%20y&N=5\r\n"),
            (None, "A=x%20y&N=5"),
            (Some("application/json"), r#"{"A": "x y", "N": 5}"#),
            (Some("application/json;charset=utf-8"), r#" {"A": "x y", "N": "5"}"#),
            (None, r#"{"A": "x y", "N": 5}"#),
        ] {
            assert_eq!(read(kind, body).expect(body), same, "{kind:?} {body}");
        }
    }

    #[test]
    fn other_bodies_are_refused_unless_they_are_empty() {
        for kind in ["multipart/form-data; boundary=x", "text/plain", "application/octet-stream"] {
            assert_eq!(read(Some(kind), "A=1").expect_err(kind).code, "UnsupportedContentType");
            assert_eq!(read(Some(kind), "").expect(kind), []);
        }
        assert_eq!(read(Some("application/json"), "A=1").expect_err("no JSON").status, 400);
    }
}
