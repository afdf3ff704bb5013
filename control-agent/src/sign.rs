//! ACS3-HMAC-SHA256.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};

const ALGORITHM: &str = "ACS3-HMAC-SHA256";
/// RFC 3986: everything but the unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// `a=b&c=d`, by name.
pub fn pairs(params: &[(&str, &str)]) -> String {
    let mut rows: Vec<(String, String)> = params.iter().map(|(k, v)| (encode(k), encode(v))).collect();
    rows.sort();
    rows.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&")
}

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// As [`pairs`] writes it.
    pub query: &'a str,
    /// Lower-case names, sorted; all are signed.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// The value of the header `Authorization`.
pub fn authorization(r: &Request<'_>, key_id: &str, secret: &str) -> String {
    let headers: String = r.headers.iter().map(|(k, v)| format!("{k}:{}\n", v.trim())).collect();
    let signed = r.headers.iter().map(|(k, _)| *k).collect::<Vec<_>>().join(";");
    let hash = hash_hex(r.body);
    let canonical = format!("{}\n{}\n{}\n{headers}\n{signed}\n{hash}", r.method, r.path, r.query);
    let to_sign = format!("{ALGORITHM}\n{}", hash_hex(canonical.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
    format!("{ALGORITHM} Credential={key_id},SignedHeaders={signed},Signature={signature}")
}

pub fn hash_hex(data: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the vendor's description of the signature (RunInstances).
    #[test]
    fn published_vector() {
        let hash = hash_hex(b"");
        let headers = [
            ("host", "ecs.cn-shanghai.aliyuncs.com"),
            ("x-acs-action", "RunInstances"),
            ("x-acs-content-sha256", hash.as_str()),
            ("x-acs-date", "2023-10-26T10:22:32Z"),
            ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
            ("x-acs-version", "2014-05-26"),
        ];
        let query = pairs(&[
            ("RegionId", "cn-shanghai"),
            ("ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"),
        ]);
        let r = Request { method: "POST", path: "/", query: &query, headers: &headers, body: b"" };
        let said = authorization(&r, "YourAccessKeyId", "YourAccessKeySecret");
        assert!(said.ends_with("06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"), "{said}");
    }

    #[test]
    fn reserved_characters() {
        assert_eq!(pairs(&[("b", "a b*~"), ("a", "/+")]), "a=%2F%2B&b=a%20b%2A~");
    }
}
