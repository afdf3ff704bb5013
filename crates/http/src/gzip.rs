//! Bodies compressed with gzip (RFC 1952), both ways.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::ACCEPT_ENCODING;

use crate::body::{Body, BodyError};
use crate::conn::Conn;

/// Smaller answers grow, or gain nothing.
const LEAST: usize = 1024;
/// Bytes that are decompressed at a time.
const PIECE: usize = 8192;

impl Conn {
    /// What a compressed body stands for, at most `most` bytes; they count as those of a body do.
    ///
    /// # Errors
    /// It is larger, or not gzip, or there is no room for it.
    pub async fn inflate(&self, body: &[u8], most: usize) -> Result<Body, BodyError> {
        let mut whole = self.empty_body().await?;
        let mut decoder = MultiGzDecoder::new(body);
        let mut piece = [0; PIECE];
        loop {
            match decoder.read(&mut piece).map_err(|_| BodyError::Broken)? {
                0 => return Ok(whole),
                n => whole.append(&piece[..n], most).await?,
            }
        }
    }
}

/// The compressed answer, if the client accepts gzip and it is worth it.
pub fn deflate(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < LEAST || !accepts_gzip(headers) {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().filter(|small| small.len() < body.len())
}

/// Whether `Accept-Encoding` names gzip, or everything, without a weight of zero.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    let (mut named, mut any) = (None, None);
    for coding in values.flat_map(|v| v.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|w| w.trim().parse::<f32>().is_ok_and(|w| w > 0.0));
        match name.as_str() {
            "gzip" | "x-gzip" => named = Some(wanted),
            "*" => any = Some(wanted),
            _ => {}
        }
    }
    named.or(any).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;
    use crate::limits::Limits;

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, value.parse().expect("a value"));
        headers
    }

    #[test]
    fn who_accepts_gzip_gets_it_where_it_is_worth_it() {
        for yes in ["gzip", "deflate, GZIP;q=0.5", "*", "br, *;q=0.1", "gzip, *;q=0"] {
            assert!(accepts_gzip(&accept(yes)), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "gzip; q=0.0, *", "*;q=0", "gzipped", "gzip;q=x"] {
            assert!(!accepts_gzip(&accept(no)), "{no}");
        }
        let text = "the same again ".repeat(1000);
        assert!(deflate(&accept("gzip"), text.as_bytes()).expect("compressed").len() < 500);
        assert!(deflate(&HeaderMap::new(), text.as_bytes()).is_none());
        assert!(deflate(&accept("gzip"), &text.as_bytes()[..LEAST - 1]).is_none());
    }

    #[tokio::test]
    async fn bodies_are_inflated_within_their_bound_and_counted() {
        let gate = Gate::new(Limits { buffered: 4 << 20, ..Limits::default() });
        let conn = gate.admit("192.0.2.1:1".parse().expect("an address")).await.expect("admitted");
        let zeros = vec![0; 1 << 20];
        let small = deflate(&accept("gzip"), &zeros).expect("compressed");
        assert!(small.len() < 10_000);
        let whole = conn.inflate(&small, 1 << 20).await.expect("fits");
        assert!(*whole == zeros[..] && gate.buffered() > 900_000);
        assert_eq!(conn.inflate(&small, (1 << 20) - 1).await.expect_err("a bomb"), BodyError::TooLarge);
        drop(whole);
        assert_eq!(gate.buffered(), 0);
        let twice = [small.as_slice(), small.as_slice()].concat();
        assert_eq!(conn.inflate(&twice, 1 << 20).await.expect_err("members add up"), BodyError::TooLarge);
        for broken in [&small[..small.len() - 9], b"A=1", b""] {
            assert_eq!(conn.inflate(broken, 1 << 20).await.expect_err("broken"), BodyError::Broken);
        }
    }
}
