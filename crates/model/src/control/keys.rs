//! Keys of ESP tunnels: a new pair of associations, and the public keys that gateways agree by.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// Hex digits of a key: never shown by `Debug`, and wiped at the end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct KeyText(Zeroizing<String>);

impl KeyText {
    /// Hexadecimal digits of a key.
    pub fn new(text: String) -> KeyText {
        KeyText(text.into())
    }

    /// The bytes; `None`: it is not made of pairs of hex digits.
    pub fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.0.as_bytes();
        if !text.len().is_multiple_of(2) || text.is_empty() {
            return None;
        }
        let digit = |b: &u8| (*b as char).to_digit(16);
        let mut out = Zeroizing::new(Vec::with_capacity(text.len() / 2));
        for two in text.chunks_exact(2) {
            out.push((digit(&two[0])? << 4 | digit(&two[1])?) as u8);
        }
        Some(out)
    }
}

impl From<String> for KeyText {
    fn from(text: String) -> KeyText {
        KeyText::new(text)
    }
}

impl From<KeyText> for String {
    fn from(key: KeyText) -> String {
        key.0.to_string()
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyText({} digits)", self.0.len())
    }
}

/// `tunnels-rekey`: installs a pair of associations while packets are under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRekey {
    /// Name of the tunnel.
    pub tunnel: String,
    /// Security parameters index that this gateway receives.
    pub spi_in: u32,
    /// Security parameters index that this gateway sends.
    pub spi_out: u32,
    /// Key and salt in hex, as in the file.
    pub key_in: KeyText,
    /// Key and salt for what is sent.
    pub key_out: KeyText,
    /// The peer has the pair: send by it at once.
    #[serde(default)]
    pub now: bool,
    /// Otherwise send by it when the peer does, or after so many seconds.
    #[serde(default = "ten")]
    pub wait: u32,
}

const fn ten() -> u32 {
    10
}

/// `tunnels-confirm`: the static keys of a tunnel may be used although the record of their numbers is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelConfirm {
    /// Name of the tunnel.
    pub tunnel: String,
}

/// `tunnels-key`: the gateway's public key, which is made if there is none or if it is too old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelKeyQuery {
    /// What the controller calls this gateway.
    pub gateway: String,
    /// A new one in any case.
    #[serde(default)]
    pub renew: bool,
    /// Epoch of a key that this call makes; without it one more than the last key's, and seconds since 1970 for the
    /// first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// A gateway's public key (docs/tunnels-keys.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// Name of the gateway.
    pub gateway: String,
    /// Counts the keys of the gateway.
    pub epoch: u64,
    /// 64 hex digits.
    pub public_key: String,
}

/// `tunnels-peers`: peers' public keys; for each a pair of associations is derived and installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelPeers {
    /// All peers of the gateway.
    pub peers: Vec<TunnelPeer>,
}

/// The public key of the far end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelPeer {
    /// An ESP tunnel with `keying = "agreed"`.
    pub tunnel: String,
    /// Name of the gateway.
    pub gateway: String,
    /// Counts the keys of the gateway.
    pub epoch: u64,
    /// X25519 (RFC 7748), 64 hex digits.
    pub public_key: String,
    /// Tells several tunnels between the two gateways apart; both ends call it the same.
    #[serde(default)]
    pub link: String,
}

/// Answer to `tunnels-rekey`, `tunnels-confirm` and `tunnels-peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeyed {
    /// Tunnels that have a new pair.
    pub tunnels: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_not_shown() {
        let text = r#"{"tunnel":"t","spi_in":300,"spi_out":301,"key_in":"00ff10","key_out":"abcd"}"#;
        let r: TunnelRekey = serde_json::from_str(text).unwrap();
        assert_eq!((r.now, r.wait), (false, 10));
        assert_eq!(r.key_in.bytes().unwrap()[..], [0, 255, 16]);
        let shown = format!("{r:?}");
        assert!(shown.contains("KeyText(6 digits)") && !shown.contains("00ff10") && !shown.contains("abcd"));
        for bad in ["", "a", "0g", "0x12"] {
            assert_eq!(KeyText::new(bad.into()).bytes(), None, "{bad}");
        }
    }
}
