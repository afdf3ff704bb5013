//! The AEAD ciphers: AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634).

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sag_secret::Secret;
use std::fmt;

/// Which cipher a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// AES-GCM with a 128-bit key and a 16-byte ICV (RFC 4106).
    Aes128Gcm,
    /// AES-GCM with a 256-bit key and a 16-byte ICV (RFC 4106).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

/// Bytes of the salt: the part of the nonce that both ends know and no packet carries.
pub const SALT: usize = 4;

impl Cipher {
    /// Bytes of the key without its salt.
    pub const fn key_len(self) -> usize {
        match self {
            Cipher::Aes128Gcm => 16,
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of the key with its salt.
    pub const fn keymat_len(self) -> usize {
        self.key_len() + SALT
    }

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Cipher::Aes128Gcm => "aes-128-gcm",
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// The keying material has the wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{cipher} takes {want} bytes (key and 4-byte salt), not {got}", cipher = cipher.name(), want = cipher.keymat_len())]
pub struct KeyError {
    /// The cipher.
    pub cipher: Cipher,
    /// Bytes given.
    pub got: usize,
}

/// A cipher with its key and salt.
pub struct Suite {
    cipher: Cipher,
    /// In pages that are dumped nowhere; wiped at the end, which ring does not do.
    key: Secret<LessSafeKey>,
    salt: [u8; SALT],
}

impl Suite {
    /// `keymat` is the key followed by the salt (RFC 4106 8.1, RFC 7634 2). The caller has to wipe its copy.
    ///
    /// # Errors
    /// [`KeyError`] if `keymat` is not [`Cipher::keymat_len`] bytes long.
    pub fn new(cipher: Cipher, keymat: &[u8]) -> Result<Suite, KeyError> {
        let wrong = KeyError { cipher, got: keymat.len() };
        let (key, salt) = keymat.split_at_checked(cipher.key_len()).ok_or(wrong)?;
        let salt = <[u8; SALT]>::try_from(salt).map_err(|_| wrong)?;
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &AES_128_GCM,
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| wrong)?;
        Ok(Suite { cipher, key: Secret::new(LessSafeKey::new(key)), salt })
    }

    /// The cipher.
    pub const fn cipher(&self) -> Cipher {
        self.cipher
    }

    fn nonce(&self, iv: [u8; super::IV]) -> Nonce {
        let mut n = [0; 12];
        n[..SALT].copy_from_slice(&self.salt);
        n[SALT..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(n)
    }

    /// Encrypts `text` and writes its tag; false: it is longer than the cipher takes.
    #[inline]
    pub(super) fn seal(
        &self,
        iv: [u8; super::IV],
        aad: AadBytes,
        text: &mut [u8],
        icv: &mut [u8; super::ICV],
    ) -> bool {
        let aad = Aad::from(aad.bytes());
        let sealed = self.key.seal_in_place_separate_tag(self.nonce(iv), aad, text);
        // Not by a value of its own: that was stored in two pieces and loaded as others, which the processor waited for.
        sealed.is_ok_and(|tag| {
            icv.copy_from_slice(tag.as_ref());
            true
        })
    }

    /// Decrypts `text` (ciphertext and tag); false: the tag is wrong.
    #[inline]
    pub(super) fn open(&self, iv: [u8; super::IV], aad: AadBytes, text: &mut [u8]) -> bool {
        self.key.open_in_place(self.nonce(iv), Aad::from(aad.bytes()), text).is_ok()
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Suite({})", self.cipher.name())
    }
}

/// SPI and sequence number, as they are authenticated: 8 bytes, or 12 with the high half of an
/// extended sequence number (RFC 4106, 5).
#[derive(Clone, Copy)]
pub(super) struct AadBytes {
    bytes: [u8; 12],
    len: usize,
}

impl AadBytes {
    #[inline]
    pub fn new(spi: u32, sequence: u64, extended: bool) -> AadBytes {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&spi.to_be_bytes());
        let len = if extended {
            bytes[4..].copy_from_slice(&sequence.to_be_bytes());
            12
        } else {
            bytes[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
            8
        };
        AadBytes { bytes, len }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
