//! Secrets at rest: AES-256-GCM under a key from a file, and random material.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use sag_secret::Secret;
use zeroize::Zeroizing;

pub struct Cipher {
    /// In pages that are dumped nowhere.
    key: Secret<LessSafeKey>,
    /// A key of its own for fingerprints, made of the same file.
    prints: Secret<hmac::Key>,
    random: SystemRandom,
}

#[derive(Debug)]
pub struct SecretError;

impl std::fmt::Display for SecretError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a stored secret cannot be read with this key file")
    }
}

impl std::error::Error for SecretError {}

impl Cipher {
    /// Reads the key file (64 hex digits); makes one, readable by its owner only, if there is none.
    pub fn load(path: &str) -> anyhow::Result<Cipher> {
        let random = SystemRandom::new();
        if !Path::new(path).exists() {
            let mut key = Secret::new([0u8; 32]);
            random.fill(&mut *key).map_err(|_| anyhow::anyhow!("no randomness"))?;
            let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            match made {
                Ok(mut f) => {
                    let text = Zeroizing::new(hex::encode(*key));
                    let written = f.write_all(text.as_bytes()).and_then(|()| f.sync_all());
                    if written.is_err() {
                        // Half a key (the disk is full) would be in the way of a whole one.
                        let _ = std::fs::remove_file(path);
                    }
                    written.with_context(|| format!("cannot write {path}"))?;
                }
                // Another process was first.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| format!("cannot write {path}")),
            }
        }
        super::private::narrow(Path::new(path), "the key of the stored secrets");
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let text = Zeroizing::new(text);
        let mut bytes = Secret::new([0u8; 32]);
        hex::decode_to_slice(text.trim(), &mut *bytes)
            .with_context(|| format!("{path} is not a key of 64 hex digits"))?;
        let key = UnboundKey::new(&AES_256_GCM, &*bytes).map_err(|_| anyhow::anyhow!("key file"))?;
        let master = hmac::Key::new(hmac::HMAC_SHA256, &*bytes);
        let prints = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, b"fingerprints").as_ref());
        Ok(Cipher { key: Secret::new(LessSafeKey::new(key)), prints: Secret::new(prints), random })
    }

    /// A number for a text, of which nobody without the key can tell what the text was.
    pub fn fingerprint(&self, text: &str) -> String {
        hex::encode(hmac::sign(&self.prints, text.as_bytes()))
    }

    pub fn seal(&self, plain: &str) -> Result<String, SecretError> {
        let mut nonce = [0u8; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SecretError)?;
        let mut data = plain.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut data)
            .map_err(|_| SecretError)?;
        let mut out = nonce.to_vec();
        out.extend(data);
        Ok(STANDARD.encode(out))
    }

    pub fn open(&self, sealed: &str) -> Result<String, SecretError> {
        let data = STANDARD.decode(sealed).map_err(|_| SecretError)?;
        let (nonce, rest) = data.split_at_checked(NONCE_LEN).ok_or(SecretError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError)?;
        let mut rest = rest.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::empty(), &mut rest).map_err(|_| SecretError)?;
        String::from_utf8(plain.to_vec()).map_err(|_| SecretError)
    }

    /// `n` characters of the alphabet, each equally likely.
    pub fn token(&self, alphabet: &[u8], n: usize) -> Result<String, SecretError> {
        let limit = 256 - 256 % alphabet.len();
        let mut out = String::with_capacity(n);
        while out.len() < n {
            let mut buf = [0u8; 32];
            self.random.fill(&mut buf).map_err(|_| SecretError)?;
            for b in buf.iter().map(|b| usize::from(*b)).filter(|b| *b < limit) {
                if out.len() < n {
                    out.push(alphabet[b % alphabet.len()] as char);
                }
            }
        }
        Ok(out)
    }
}

pub const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
pub const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
pub const DIGITS: &[u8] = b"0123456789";
pub const HEX: &[u8] = b"0123456789ABCDEF";

/// What is shown in place of a secret.
pub fn mask(secret: &str) -> String {
    let head: String = secret.chars().take(3).collect();
    if secret.chars().count() > 6 { format!("{head}****") } else { "****".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_secrets_open_only_unchanged_and_with_their_key() {
        let dir = tempfile::tempdir().expect("dir");
        let path = |n: &str| dir.path().join(n).to_str().expect("utf-8").to_owned();
        let a = Cipher::load(&path("a")).expect("key");
        let again = Cipher::load(&path("a")).expect("key");
        let b = Cipher::load(&path("b")).expect("key");
        let sealed = a.seal("hunter2").expect("seal");
        assert!(!sealed.contains("hunter2"));
        assert_eq!(again.open(&sealed).expect("open"), "hunter2");
        assert!(b.open(&sealed).is_err());
        assert!(a.open(&sealed.replacen(sealed.chars().next().unwrap_or('A'), "_", 1)).is_err());
        assert_eq!(mask("P12ppp123"), "P12****");
    }

    /// Nonces are random, so neither clock nor restart matters: 96 bits, far fewer than 2^32 secrets.
    #[test]
    fn no_nonce_is_used_twice() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("key").to_str().expect("utf-8").to_owned();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            let cipher = Cipher::load(&path).expect("key");
            for _ in 0..2000 {
                let sealed = STANDARD.decode(cipher.seal("the same").expect("seal")).expect("base64");
                assert!(seen.insert(sealed[..NONCE_LEN].to_vec()));
            }
        }
    }
}
