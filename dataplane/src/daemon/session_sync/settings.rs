//! What the thread follows: the addresses, the key, the rate.

use sag_ha::KEY_BYTES;
use sag_model::config::Ha;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// The settings of `[ha]`, with the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub listen: SocketAddr,
    pub peer: SocketAddr,
    pub key: Zeroizing<[u8; KEY_BYTES]>,
    pub bytes_per_second: u64,
}

impl Settings {
    /// Whether this gateway connects, and the other one listens; and whether it decides in a tie.
    pub fn connects(&self) -> bool {
        (self.listen.ip(), self.listen.port()) < (self.peer.ip(), self.peer.port())
    }
}

/// The settings of a configuration.
///
/// # Errors
///
/// What is wrong with the key or its file.
pub fn settings(ha: Option<&Ha>) -> Result<Option<Settings>, String> {
    let Some(ha) = ha else { return Ok(None) };
    let key = match (&ha.key, &ha.key_file) {
        (Some(key), _) => {
            let key: &[u8; KEY_BYTES] =
                key.expose().try_into().map_err(|_| format!("ha.key: has not {KEY_BYTES} bytes"))?;
            Zeroizing::new(*key)
        }
        (None, Some(file)) => read_key(file).map_err(|e| format!("ha.key_file: {}: {e}", file.display()))?,
        (None, None) => return Err("ha.key_file: is missing".to_owned()),
    };
    let bytes_per_second = u64::from(ha.bandwidth) * 1_000_000 / 8;
    Ok(Some(Settings { listen: ha.listen, peer: ha.peer, key, bytes_per_second }))
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, String> {
    let mut text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let key = parse_key(text.trim());
    text.zeroize();
    key.ok_or_else(|| {
        "is no key: write 64 hexadecimal digits, as `openssl rand -hex 32` makes them, the same at both gateways"
            .to_owned()
    })
}

fn parse_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (to, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |d: u8| char::from(d).to_digit(16);
        *to = (value(pair[0])? << 4 | value(pair[1])?) as u8;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::config::Secret;

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        let text = "00ff".repeat(16);
        assert_eq!(parse_key(&text).map(|k| (k[0], k[1], k[31])), Some((0, 255, 255)));
        for wrong in ["", "00", &text[1..], &format!("{text}00"), &text.replace('f', "g")] {
            assert_eq!(parse_key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn exactly_one_of_two_connects() {
        let at = |listen: &str, peer: &str| Settings {
            listen: listen.parse().unwrap(),
            peer: peer.parse().unwrap(),
            key: Zeroizing::new([0; KEY_BYTES]),
            bytes_per_second: 1,
        };
        for (a, b) in
            [("10.0.0.1:7", "10.0.0.2:7"), ("[fe80::2]:7", "[fe80::1]:9"), ("10.0.0.1:7", "10.0.0.1:8")]
        {
            assert_ne!(at(a, b).connects(), at(b, a).connects(), "{a} {b}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let ha = Ha {
            listen: "10.0.0.1:7".parse().unwrap(),
            peer: "10.0.0.2:7".parse().unwrap(),
            key_file: Some(path.clone()),
            key: None,
            bandwidth: 8,
        };
        let error = settings(Some(&ha)).err().unwrap();
        assert!(error.contains("ha.key_file") && error.contains(&*path.to_string_lossy()), "{error}");
        fs::write(&path, "ab".repeat(32) + "\n").unwrap();
        assert_eq!(settings(Some(&ha)).ok().flatten().map(|s| s.bytes_per_second), Some(1_000_000));
        fs::write(&path, "short").unwrap();
        assert!(settings(Some(&ha)).err().unwrap().contains("64 hexadecimal digits"));
        let inline = Ha { key_file: None, key: Some(Secret::new(vec![7; KEY_BYTES])), ..ha };
        assert_eq!(settings(Some(&inline)).ok().flatten().map(|s| s.key[31]), Some(7));
    }
}
