//! Both request signatures: version 1.0 (HMAC-SHA1) and ACS3-HMAC-SHA256.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};

use crate::api::params::Params;
use crate::domain::caller::SigningKeys;
use crate::error::{ApiError, Result};
use crate::store::nonces::WINDOW_MS;
use crate::time;

/// What a request says about itself, before the secret is known.
#[derive(Debug)]
pub struct Claim {
    pub key_id: String,
    pub nonce: String,
    pub action: String,
    pub version: String,
    /// The request's time stamp, in milliseconds since 1970.
    pub at_ms: i64,
    signed: Signed,
}

#[derive(Debug)]
enum Signed {
    V1 { text: String, signature: String },
    Acs3 { canonical: String, signature: String },
}

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a HeaderMap,
    pub query: &'a Params,
    /// Query and form together.
    pub params: &'a Params,
    pub body: &'a [u8],
}

/// Characters of a string to sign that a refusal shows.
const SHOWN: usize = 16 * 1024;
const ACS3: &str = "ACS3-HMAC-SHA256";
const REQUIRED_HEADERS: [&str; 5] =
    ["x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"];

impl Claim {
    /// Reads the claim and checks everything that needs no secret.
    pub fn read(r: &Request<'_>, now_ms: i64) -> Result<Claim> {
        let token = header(r.headers, "x-acs-security-token").or(r.params.get("SecurityToken"));
        if token.is_some_and(|t| !t.is_empty()) {
            return Err(ApiError::new(
                400,
                "InvalidSecurityToken.NotSupported",
                "This server gives out no temporary credentials, so there is no security token to check.",
            )
            .with_hint("Use an access key of this server (sag-cloud access-key create) without a token."));
        }
        let Some(auth) = header(r.headers, "authorization") else {
            // Headers of the newer signature without the signature, and nothing of the older one.
            let unsigned = r.params.get("Signature").is_none() && r.headers.contains_key("x-acs-date");
            return match unsigned {
                true => Err(incomplete(&format!("There is no Authorization header: {ACS3} Credential=…"))),
                false => version1(r, now_ms),
            };
        };
        match auth.trim_start().split_once(char::is_whitespace) {
            Some((ACS3, fields)) => acs3(r, fields, now_ms),
            Some((scheme, _)) if !scheme.contains('=') => Err(ApiError::new(
                400,
                "InvalidParameter.SignatureMethod",
                format!("The scheme of the Authorization header is not {ACS3}."),
            )),
            _ => Err(incomplete(&format!("The Authorization header has no scheme; it begins with {ACS3}."))),
        }
    }

    /// A claim that was not signed, of a call whose caller is known.
    #[cfg(test)]
    pub fn unsigned(key_id: &str, nonce: &str, action: &str) -> Claim {
        Claim {
            key_id: key_id.to_owned(),
            nonce: nonce.to_owned(),
            action: action.to_owned(),
            version: crate::api::PRODUCT_VERSION.to_owned(),
            at_ms: time::now_ms(),
            signed: Signed::V1 { text: String::new(), signature: String::new() },
        }
    }

    /// What the signature is over.
    fn signed_text(&self) -> String {
        match &self.signed {
            Signed::V1 { text, .. } => text.clone(),
            Signed::Acs3 { canonical, .. } => {
                format!("{ACS3}\n{}", hex::encode(sha256(canonical.as_bytes())))
            }
        }
    }

    /// Compares in constant time.
    pub fn verify(&self, keys: &SigningKeys) -> Result<()> {
        let text = self.signed_text();
        let ok = match &self.signed {
            Signed::V1 { signature, .. } => {
                STANDARD.decode(signature).is_ok_and(|s| hmac::verify(&keys.v1, text.as_bytes(), &s).is_ok())
            }
            Signed::Acs3 { signature, .. } => {
                hex::decode(signature).is_ok_and(|s| hmac::verify(&keys.acs3, text.as_bytes(), &s).is_ok())
            }
        };
        if ok {
            return Ok(());
        }
        // Clients look for the string to sign behind this colon. One of a large form would be an answer several times as
        // large as the request, for anybody who knows the name of a key.
        let text = match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        Err(ApiError::new(
            400,
            "SignatureDoesNotMatch",
            format!("The signature is not the one of this request and key. server string to sign is:{text}"),
        )
        .with_hint("Check the AccessKeySecret and the string to sign."))
    }
}

fn incomplete(why: &str) -> ApiError {
    ApiError::new(400, "IncompleteSignature", why.to_owned())
}

fn version1(r: &Request<'_>, now_ms: i64) -> Result<Claim> {
    let need = |name: &str| {
        r.params.get(name).map(str::to_owned).ok_or_else(|| {
            ApiError::new(400, missing_code(name), format!("{name} is mandatory for this action."))
        })
    };
    let action = action_of(r)?;
    let key_id = need("AccessKeyId")?;
    let signature = need("Signature")?;
    let nonce = need("SignatureNonce")?;
    let timestamp = need("Timestamp")?;
    if r.params.get("SignatureMethod").is_some_and(|m| !m.eq_ignore_ascii_case("HMAC-SHA1"))
        || r.params.get("SignatureVersion").is_some_and(|v| v != "1.0")
    {
        return Err(ApiError::new(
            400,
            "InvalidParameter.SignatureMethod",
            "Only SignatureMethod HMAC-SHA1 with SignatureVersion 1.0 is supported.",
        ));
    }
    let at_ms = check_time(&timestamp, now_ms)?;
    let query: Vec<String> = r
        .params
        .iter()
        .filter(|(k, _)| *k != "Signature")
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
        .collect();
    let text = format!("{}&%2F&{}", r.method, encode(&query.join("&")));
    let version = version_of(r)?;
    Ok(Claim { key_id, nonce, action, version, at_ms, signed: Signed::V1 { text, signature } })
}

fn acs3(r: &Request<'_>, fields: &str, now_ms: i64) -> Result<Claim> {
    let (mut key_id, mut signed, mut signature) = (None, None, None);
    for part in fields.split(',') {
        match part.trim().split_once('=') {
            Some(("Credential", v)) => key_id = Some(v),
            Some(("SignedHeaders", v)) => signed = Some(v),
            Some(("Signature", v)) => signature = Some(v),
            _ => {}
        }
    }
    let (Some(key_id), Some(signed), Some(signature)) = (key_id, signed, signature) else {
        return Err(incomplete("Credential, SignedHeaders and Signature are all needed."));
    };
    let names: Vec<&str> = signed.split(';').collect();
    for name in REQUIRED_HEADERS.iter().chain(&["host"]) {
        if !names.contains(name) {
            return Err(incomplete(&format!("The header {name} is not signed.")));
        }
    }
    let body_hash = hex::encode(sha256(r.body));
    if header(r.headers, "x-acs-content-sha256") != Some(body_hash.as_str()) {
        return Err(incomplete("x-acs-content-sha256 is not the hash of the body."));
    }
    let mut headers = String::new();
    for name in &names {
        let Some(value) = header(r.headers, name) else {
            return Err(incomplete(&format!("The signed header {name} is missing.")));
        };
        headers.push_str(&format!("{name}:{}\n", value.trim()));
    }
    let need = |name| header(r.headers, name).unwrap_or_default().to_owned();
    let at_ms = check_time(&need("x-acs-date"), now_ms)?;
    let nonce = need("x-acs-signature-nonce");
    if nonce.is_empty() {
        return Err(ApiError::new(
            400,
            "MissingSignatureNonce",
            "x-acs-signature-nonce is mandatory for this action.",
        ));
    }
    let query: Vec<String> = r.query.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
    let path = if r.path.is_empty() { "/" } else { r.path };
    let canonical = format!("{}\n{path}\n{}\n{headers}\n{signed}\n{body_hash}", r.method, query.join("&"),);
    Ok(Claim {
        key_id: key_id.to_owned(),
        nonce,
        action: action_of(r)?,
        version: version_of(r)?,
        at_ms,
        signed: Signed::Acs3 { canonical, signature: signature.to_owned() },
    })
}

fn action_of(r: &Request<'_>) -> Result<String> {
    one_of(r, "x-acs-action", "Action")
        .ok_or_else(|| ApiError::new(400, "MissingAction", "Action is mandatory for this action."))
}

fn version_of(r: &Request<'_>) -> Result<String> {
    one_of(r, "x-acs-version", "Version")
        .ok_or_else(|| ApiError::new(400, "MissingVersion", "Version is mandatory for this action."))
}

/// ACS3 signs the header, version 1.0 the parameter: each form trusts only what it signs.
fn one_of(r: &Request<'_>, name: &str, param: &str) -> Option<String> {
    let from = if header(r.headers, "authorization").is_some() {
        header(r.headers, name)
    } else {
        r.params.get(param)
    };
    from.filter(|v| !v.is_empty()).map(str::to_owned)
}

fn missing_code(name: &str) -> &'static str {
    match name {
        "AccessKeyId" => "MissingAccessKeyId",
        "Signature" => "MissingSignature",
        "SignatureNonce" => "MissingSignatureNonce",
        _ => "MissingTimestamp",
    }
}

fn check_time(text: &str, now_ms: i64) -> Result<i64> {
    let Some(at_ms) = time::parse_fraction(text) else {
        return Err(ApiError::new(
            400,
            "InvalidTimeStamp.Format",
            "The time stamp is not of the form YYYY-MM-DDThh:mm:ssZ.",
        ));
    };
    if (at_ms - now_ms).abs() > WINDOW_MS {
        return Err(ApiError::new(
            400,
            "InvalidTimeStamp.Expired",
            "The time stamp is more than 15 minutes from the time of the server.",
        )
        .with_hint("Set the clock of the client."));
    }
    Ok(at_ms)
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

/// RFC 3986: everything but the unreserved characters is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn encode(s: &str) -> String {
    utf8_percent_encode(s, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        let mut p = Params::default();
        p.parse_into(text).expect("parses");
        p
    }

    const V1: &str = "Action=DescribeRegions&AccessKeyId=testid&Format=XML\
        &SignatureMethod=HMAC-SHA1&SignatureNonce=3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf\
        &SignatureVersion=1.0&Timestamp=2016-02-23T12%3A46%3A24Z&Version=2014-05-26";
    const V1_TIME: i64 = 1_456_231_584_000;

    fn claim(method: &str, text: &str, now: i64) -> Result<Claim> {
        let params = params(text);
        let headers = HeaderMap::new();
        let r = Request { method, path: "/", headers: &headers, query: &params, params: &params, body: b"" };
        Claim::read(&r, now)
    }

    #[test]
    fn version_1_against_a_published_vector() {
        let good = format!("{V1}&Signature=OLeaidS1JvxuMvnyHOwuJ%2BuX5qY%3D");
        let c = claim("GET", &good, V1_TIME).expect("complete");
        assert_eq!((c.action.as_str(), c.key_id.as_str()), ("DescribeRegions", "testid"));
        assert!(c.verify(&SigningKeys::new("testsecret")).is_ok());
        assert!(c.verify(&SigningKeys::new("other")).is_err());
        assert!(
            claim("POST", &good, V1_TIME).expect("complete").verify(&SigningKeys::new("testsecret")).is_err()
        );
    }

    #[test]
    fn time_stamps_outside_of_the_window_are_refused() {
        let good = format!("{V1}&Signature=x");
        for off in [-WINDOW_MS, WINDOW_MS] {
            assert!(claim("GET", &good, V1_TIME + off).is_ok());
        }
        for off in [-WINDOW_MS - 1, WINDOW_MS + 1] {
            let e = claim("GET", &good, V1_TIME + off).expect_err("refused");
            assert_eq!(e.code, "InvalidTimeStamp.Expired");
        }
    }

    #[test]
    fn acs3_signs_the_headers_that_matter() {
        let hash = hex::encode(sha256(b""));
        let mut headers = HeaderMap::new();
        for (k, v) in [
            ("host", "h"),
            ("x-acs-action", "CreateACL"),
            ("x-acs-version", "2018-03-13"),
            ("x-acs-date", "2016-02-23T12:46:24Z"),
            ("x-acs-signature-nonce", "n"),
            ("x-acs-content-sha256", hash.as_str()),
        ] {
            headers.insert(k, v.parse().expect("a value"));
        }
        let names = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version";
        let lines: String =
            names.split(';').map(|n| format!("{n}:{}\n", header(&headers, n).expect("set"))).collect();
        let canonical = format!("POST\n/\nName=a%20b\n{lines}\n{names}\n{hash}");
        let text = format!("{ACS3}\n{}", hex::encode(sha256(canonical.as_bytes())));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let signature = hex::encode(hmac::sign(&key, text.as_bytes()).as_ref());
        let query = params("Name=a+b");
        let read = |signed: &str, headers: &mut HeaderMap, body: &[u8]| {
            let auth = format!("{ACS3} Credential=id,SignedHeaders={signed},Signature={signature}");
            headers.insert("authorization", auth.parse().expect("a value"));
            let r = Request { method: "POST", path: "/", headers, query: &query, params: &query, body };
            Claim::read(&r, V1_TIME)
        };
        let claim = read(names, &mut headers, b"").expect("complete");
        assert_eq!(claim.action, "CreateACL");
        assert!(claim.verify(&SigningKeys::new("secret")).is_ok());
        assert!(claim.verify(&SigningKeys::new("Secret")).is_err());
        // An unsigned action could be changed on the way; a body must be the hashed one.
        assert!(read(&names.replace("x-acs-action;", ""), &mut headers, b"").is_err());
        assert!(read(names, &mut headers, b"x").is_err());
    }

    #[test]
    fn what_is_wrong_with_a_signature_has_its_own_name() {
        let empty = params("");
        let code = |headers: &[(&'static str, &str)], query: &Params| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().expect("a value"));
            }
            let r = Request { method: "GET", path: "/", headers: &map, query, params: query, body: b"" };
            Claim::read(&r, V1_TIME).expect_err("refused").code.into_owned()
        };
        for (header, expected) in [
            ("Bearer abc", "InvalidParameter.SignatureMethod"),
            ("ACS3-HMAC-SM3 Credential=a,SignedHeaders=b,Signature=c", "InvalidParameter.SignatureMethod"),
            ("ACS3-HMAC-SHA2567 Credential=a", "InvalidParameter.SignatureMethod"),
            ("Credential=a,SignedHeaders=b,Signature=c", "IncompleteSignature"),
            ("ACS3-HMAC-SHA256", "IncompleteSignature"),
            ("ACS3-HMAC-SHA256 Credential=a", "IncompleteSignature"),
        ] {
            assert_eq!(code(&[("authorization", header)], &empty), expected, "{header}");
        }
        assert_eq!(code(&[("x-acs-date", "2016-02-23T12:46:24Z")], &empty), "IncompleteSignature");
        assert_eq!(code(&[], &empty), "MissingAction");
        let sts = "InvalidSecurityToken.NotSupported";
        assert_eq!(code(&[("x-acs-security-token", "t")], &empty), sts);
        assert_eq!(code(&[], &params("SecurityToken=t")), sts);
    }

    #[test]
    fn fractions_of_a_second_are_signed_as_sent() {
        let text = format!("{V1}&Signature=x").replace("46%3A24Z", "46%3A24.123456789Z");
        let claim = claim("GET", &text, V1_TIME).expect("complete");
        assert_eq!(claim.at_ms, V1_TIME + 123);
        assert!(claim.signed_text().contains("24.123456789Z"));
    }

    #[test]
    fn encoding_keeps_only_the_unreserved() {
        assert_eq!(encode("a b*~/é"), "a%20b%2A~%2F%C3%A9");
    }
}
