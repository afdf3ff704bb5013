//! Key agreement: each gateway publishes a short-lived X25519 public key, and each pair of
//! gateways derives its security associations (SAs) from it. `docs/tunnels-keys.md` is the specification.

pub use crate::esp::fingerprint;
use crate::esp::{Cipher, Switchover};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use sag_secret::Secret;
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const LABEL: &[u8] = b"sag-vcpe tunnel keys 1";
const MAX_KEYMAT: usize = 36;

/// Why keys cannot be made or agreed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgreeError {
    /// Not the name of a gateway or link.
    #[error("{0:?} is no gateway identity: it must have 1 to 255 bytes")]
    Identity(String),
    /// The peer has our own name.
    #[error("both ends have the identity {0:?}")]
    SameIdentity(String),
    /// The public key is of low order (RFC 7748 6.1).
    #[error("the public key of {0:?} is not one: the agreement gives zero")]
    WeakKey(String),
    /// The system gives no random numbers.
    #[error("the system has no random numbers")]
    Random,
    /// The private key of this epoch was erased.
    #[error("no private key for epoch {0}: it was forgotten")]
    Forgotten(u64),
}

/// What a gateway publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// What the controller calls the gateway.
    pub gateway: String,
    /// One more for each new key of the gateway.
    pub epoch: u64,
    /// The X25519 public key (RFC 7748).
    pub public: [u8; 32],
}

/// A gateway's short-lived key pair. The private half never leaves it and is wiped at the end.
pub struct KeyPair {
    secret: Secret<StaticSecret>,
    announcement: Announcement,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({} epoch {})", self.announcement.gateway, self.announcement.epoch)
    }
}

impl KeyPair {
    /// A random key pair for the gateway of this name (1 to 255 bytes).
    ///
    /// # Errors
    /// [`AgreeError::Identity`], [`AgreeError::Random`].
    pub fn generate(gateway: &str, epoch: u64) -> Result<KeyPair, AgreeError> {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| AgreeError::Random)?;
        KeyPair::from_private(gateway, epoch, *bytes)
    }

    /// A key pair with a given private key, for test vectors.
    ///
    /// # Errors
    /// [`AgreeError::Identity`] if the name has not 1 to 255 bytes.
    pub fn from_private(gateway: &str, epoch: u64, private: [u8; 32]) -> Result<KeyPair, AgreeError> {
        identity(gateway)?;
        let secret = Secret::new(StaticSecret::from(private));
        let public = PublicKey::from(&*secret).to_bytes();
        Ok(KeyPair { secret, announcement: Announcement { gateway: gateway.into(), epoch, public } })
    }

    /// What to publish.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Derives the SAs with a peer. `link` names one of several tunnels between the two, at most 255 bytes;
    /// both ends must use the same name.
    ///
    /// # Errors
    /// [`AgreeError`]: a bad name, our own name, or a public key of low order.
    pub fn agree(&self, peer: &Announcement, cipher: Cipher, link: &str) -> Result<SaPair, AgreeError> {
        identity(&peer.gateway)?;
        identity(link).or(if link.is_empty() { Ok(()) } else { Err(AgreeError::Identity(link.into())) })?;
        let own = &self.announcement;
        if own.gateway == peer.gateway {
            return Err(AgreeError::SameIdentity(peer.gateway.clone()));
        }
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer.public));
        if !shared.was_contributory() {
            return Err(AgreeError::WeakKey(peer.gateway.clone()));
        }
        Ok(SaPair {
            outbound: derive(shared.as_bytes(), own, peer, cipher, link),
            inbound: derive(shared.as_bytes(), peer, own, cipher, link),
            own_epoch: own.epoch,
            peer_epoch: peer.epoch,
        })
    }
}

fn identity(s: &str) -> Result<(), AgreeError> {
    if (1..=255).contains(&s.len()) { Ok(()) } else { Err(AgreeError::Identity(s.into())) }
}

/// The parameters of one direction's SA.
#[derive(Clone, PartialEq, Eq)]
pub struct DerivedSa {
    /// The security parameters index, never a reserved one (RFC 4303 2.1).
    pub spi: u32,
    /// The cipher.
    pub cipher: Cipher,
    keymat: Secret<[u8; MAX_KEYMAT]>,
}

impl DerivedSa {
    /// Key and salt, as [`crate::esp::Suite::new`] takes them.
    pub fn keymat(&self) -> &[u8] {
        &self.keymat[..self.cipher.keymat_len()]
    }
}

impl fmt::Debug for DerivedSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DerivedSa({:#010x} {})", self.spi, self.cipher.name())
    }
}

/// The SAs of a tunnel between two gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaPair {
    /// What we receive under.
    pub inbound: DerivedSa,
    /// What we send under.
    pub outbound: DerivedSa,
    /// Epoch of our key.
    pub own_epoch: u64,
    /// Epoch of the peer's key.
    pub peer_epoch: u64,
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 (RFC 5869), bound to sender, receiver, their epochs and public keys, cipher and link.
fn derive(shared: &[u8], from: &Announcement, to: &Announcement, cipher: Cipher, link: &str) -> DerivedSa {
    let (from_len, to_len, link_len) =
        ([from.gateway.len() as u8], [to.gateway.len() as u8], [link.len() as u8]);
    let (from_epoch, to_epoch) = (from.epoch.to_be_bytes(), to.epoch.to_be_bytes());
    let cipher_no = [match cipher {
        Cipher::Aes128Gcm => 1,
        Cipher::Aes256Gcm => 2,
        Cipher::ChaCha20Poly1305 => 3,
    }];
    let info: [&[u8]; 12] = [
        LABEL,
        &cipher_no,
        &link_len,
        link.as_bytes(),
        &from_len,
        from.gateway.as_bytes(),
        &from_epoch,
        &from.public,
        &to_len,
        to.gateway.as_bytes(),
        &to_epoch,
        &to.public,
    ];
    let mut out = Secret::new([0u8; MAX_KEYMAT + 4]);
    let len = cipher.keymat_len();
    let prk = Salt::new(HKDF_SHA256, LABEL).extract(shared);
    // Only a length above 255 hashes is refused.
    if let Ok(okm) = prk.expand(&info, Length(len + 4)) {
        let filled = okm.fill(&mut out[..len + 4]);
        debug_assert!(filled.is_ok());
    }
    let mut keymat = Secret::new([0; MAX_KEYMAT]);
    keymat[..len].copy_from_slice(&out[..len]);
    let mut spi = [0; 4];
    spi.copy_from_slice(&out[len..len + 4]);
    // Never one of the reserved ones (RFC 4303, 2.1).
    DerivedSa { spi: u32::from_be_bytes(spi) | 0x8000_0000, cipher, keymat }
}

/// A random number of the system's generator.
///
/// # Errors
/// [`AgreeError::Random`].
pub fn random() -> Result<u64, AgreeError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AgreeError::Random)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// When a gateway rotates its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Nanoseconds.
    pub time: u64,
    /// Bytes under one SA. The new key is made after half of them, so that there is time for the exchange.
    pub bytes: u64,
}

impl Default for Lifetime {
    /// An hour, or 2^40 bytes: far below where 2^32 packets of a megabyte would be.
    fn default() -> Lifetime {
        Lifetime { time: 3_600_000_000_000, bytes: 1 << 40 }
    }
}

/// Nanoseconds after which a side sends under a new pair even if the peer has not used it yet.
pub const PEER_WAIT: u64 = 30_000_000_000;

/// A gateway's keys: the current one, and the previous one for peers that do not have the new one yet. Older
/// ones are erased, so recorded traffic cannot be decrypted later (forward secrecy).
#[derive(Debug)]
pub struct KeyRing {
    gateway: String,
    lifetime: Lifetime,
    current: KeyPair,
    previous: Option<KeyPair>,
    since: u64,
}

impl KeyRing {
    /// A ring with a new key. `epoch` must be larger than any that this gateway has published, as the time
    /// in seconds is.
    ///
    /// # Errors
    /// As [`KeyPair::generate`].
    pub fn new(gateway: &str, epoch: u64, lifetime: Lifetime, now: u64) -> Result<KeyRing, AgreeError> {
        let current = KeyPair::generate(gateway, epoch)?;
        Ok(KeyRing { gateway: gateway.into(), lifetime, current, previous: None, since: now })
    }

    /// What to publish of the current key.
    pub fn announcement(&self) -> &Announcement {
        self.current.announcement()
    }

    /// When keys are rotated.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Changes when keys are rotated, from the current one on.
    pub fn set_lifetime(&mut self, lifetime: Lifetime) {
        self.lifetime = lifetime;
    }

    /// Whether it is time for a new key; `bytes` is the most that went through one SA of the current key.
    ///
    /// `in_sync`: all peers use the current key. While they do not, another one would overtake it on its way to
    /// them, so they are given twice [`PEER_WAIT`].
    pub fn rotation_due(&self, bytes: u64, in_sync: bool, now: u64) -> bool {
        let age = now.saturating_sub(self.since);
        let due = age >= self.lifetime.time || bytes >= self.lifetime.bytes / 2;
        due && (in_sync || age >= 2 * PEER_WAIT)
    }

    /// Makes a new key. Peers can use it once they have its announcement.
    ///
    /// # Errors
    /// As [`KeyPair::generate`]; the ring is unchanged.
    pub fn rotate(&mut self, now: u64) -> Result<&Announcement, AgreeError> {
        self.rotate_to(self.current.announcement.epoch.saturating_add(1), now)
    }

    /// Makes a new key with an epoch that is not the next one: peers, or the controller, know a larger one of this gateway, or
    /// the current one was made while the clock was wrong.
    ///
    /// # Errors
    /// As [`KeyPair::generate`]; the ring is unchanged.
    pub fn rotate_to(&mut self, epoch: u64, now: u64) -> Result<&Announcement, AgreeError> {
        let next = KeyPair::generate(&self.gateway, epoch)?;
        self.previous = Some(std::mem::replace(&mut self.current, next));
        self.since = now;
        Ok(self.announcement())
    }

    /// Erases the previous key: no peer needs it any more.
    pub fn forget_previous(&mut self) {
        self.previous = None;
    }

    /// Derives SAs with the current key; see [`KeyPair::agree`].
    ///
    /// # Errors
    /// As [`KeyPair::agree`].
    pub fn agree(&self, peer: &Announcement, cipher: Cipher, link: &str) -> Result<SaPair, AgreeError> {
        self.current.agree(peer, cipher, link)
    }

    /// Derives SAs with the previous key, which the peer may still use to send.
    ///
    /// # Errors
    /// [`AgreeError::Forgotten`] if `epoch` is not that of the previous key; else as [`KeyPair::agree`].
    pub fn agree_previous(
        &self,
        epoch: u64,
        peer: &Announcement,
        cipher: Cipher,
        link: &str,
    ) -> Result<SaPair, AgreeError> {
        let pair = self.previous.as_ref().filter(|p| p.announcement.epoch == epoch);
        pair.ok_or(AgreeError::Forgotten(epoch))?.agree(peer, cipher, link)
    }
}

/// When to send under a new pair.
///
/// `proven`: our epoch in the last pair under which the peer has sent; `known`: the peer's epoch in the last pair. If
/// the peer has our key, its own key is the new one, and it can receive under the pair already. If ours is the new one,
/// the peer shows that it has it by sending under the pair. If both are new, one end must begin; `heard`: something has
/// come under the pairs before. Else the peer has begun anew as well, and there is nothing that waiting would protect.
pub fn switchover(
    pair: &SaPair,
    proven: Option<u64>,
    known: Option<u64>,
    heard: bool,
    now: u64,
) -> Switchover {
    match (proven == Some(pair.own_epoch), known == Some(pair.peer_epoch)) {
        (true, _) => Switchover::Now,
        (false, true) => Switchover::AFTER_PEER,
        (false, false) if !heard => Switchover::Now,
        (false, false) => Switchover::PeerOr(now.saturating_add(PEER_WAIT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = include_str!("../../../docs/tunnels-keys.md");

    fn hex(s: &str) -> Vec<u8> {
        (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
    }

    fn key(s: &str) -> [u8; 32] {
        hex(s).try_into().unwrap()
    }

    /// The value of a line `name  hex` of the documentation.
    fn doc(name: &str) -> &'static str {
        let vectors = DOC.split_once("## Test vectors").map_or("", |(_, vectors)| vectors);
        let line = vectors.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in docs/tunnels-keys.md")).trim()
    }

    #[test]
    fn the_documented_vectors() {
        let a = KeyPair::from_private("sag-a", 7, key(doc("private-a"))).unwrap();
        let b = KeyPair::from_private("sag-b", 12, key(doc("private-b"))).unwrap();
        assert_eq!(a.announcement().public.to_vec(), hex(doc("public-a")));
        assert_eq!(b.announcement().public.to_vec(), hex(doc("public-b")));
        let shared = a.secret.diffie_hellman(&PublicKey::from(b.announcement.public));
        assert_eq!(shared.as_bytes().to_vec(), hex(doc("shared")));
        for (cipher, name) in [
            (Cipher::Aes128Gcm, "aes-128-gcm"),
            (Cipher::Aes256Gcm, "aes-256-gcm"),
            (Cipher::ChaCha20Poly1305, "chacha20-poly1305"),
        ] {
            let pair = a.agree(b.announcement(), cipher, "wan1").unwrap();
            for (dir, got) in [("a-to-b", &pair.outbound), ("b-to-a", &pair.inbound)] {
                assert_eq!(got.keymat(), hex(doc(&format!("{name} {dir} keymat"))));
                assert_eq!(got.spi.to_be_bytes().to_vec(), hex(doc(&format!("{name} {dir} spi"))));
            }
            let other = b.agree(a.announcement(), cipher, "wan1").unwrap();
            assert_eq!((&other.inbound, &other.outbound), (&pair.outbound, &pair.inbound));
        }
    }

    #[test]
    fn keys_are_bound_to_identities_epochs_direction_cipher_and_link() {
        let a = KeyPair::from_private("a", 1, [3; 32]).unwrap();
        let b = KeyPair::from_private("b", 1, [5; 32]).unwrap();
        let base = a.agree(b.announcement(), Cipher::Aes128Gcm, "").unwrap();
        let mut seen = vec![base.inbound.keymat().to_vec(), base.outbound.keymat().to_vec()];
        let mut fresh = |p: SaPair| {
            for d in [&p.inbound, &p.outbound] {
                let k = d.keymat()[..20].to_vec();
                assert!(!seen.contains(&k));
                seen.push(k);
            }
        };
        let renamed = Announcement { gateway: "c".into(), ..b.announcement().clone() };
        fresh(a.agree(&renamed, Cipher::Aes128Gcm, "").unwrap());
        let later = Announcement { epoch: 2, ..b.announcement().clone() };
        fresh(a.agree(&later, Cipher::Aes128Gcm, "").unwrap());
        fresh(a.agree(b.announcement(), Cipher::Aes256Gcm, "").unwrap());
        fresh(a.agree(b.announcement(), Cipher::Aes128Gcm, "wan2").unwrap());
        fresh(
            KeyPair::from_private("a", 2, [3; 32])
                .unwrap()
                .agree(b.announcement(), Cipher::Aes128Gcm, "")
                .unwrap(),
        );
    }

    #[test]
    fn what_is_no_key_or_no_identity_is_refused() {
        let a = KeyPair::generate("a", 1).unwrap();
        let zero = Announcement { gateway: "b".into(), epoch: 1, public: [0; 32] };
        assert_eq!(a.agree(&zero, Cipher::Aes128Gcm, ""), Err(AgreeError::WeakKey("b".into())));
        let own = a.announcement().clone();
        assert_eq!(a.agree(&own, Cipher::Aes128Gcm, ""), Err(AgreeError::SameIdentity("a".into())));
        assert!(KeyPair::generate("", 1).is_err() && KeyPair::generate(&"x".repeat(256), 1).is_err());
    }

    #[test]
    fn nothing_shows_a_key() {
        let a = KeyPair::from_private("a", 1, [0xAB; 32]).unwrap();
        let b = KeyPair::from_private("b", 1, [0xCD; 32]).unwrap();
        let pair = a.agree(b.announcement(), Cipher::Aes128Gcm, "").unwrap();
        let shown = format!("{a:?} {pair:?}");
        let hex = |k: &[u8]| k.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert!(!shown.contains("abab") && !shown.contains("171, 171"));
        assert!(!shown.contains(&hex(&pair.inbound.keymat()[..4])));
        assert!(!shown.contains(&format!("{:?}", &pair.inbound.keymat()[..4])[1..]));
    }

    #[test]
    fn a_ring_rolls_over_and_forgets() {
        let mut ring = KeyRing::new("a", 100, Lifetime { time: 50, bytes: 1000 }, 0).unwrap();
        let b = KeyPair::generate("b", 1).unwrap();
        let first = ring.announcement().clone();
        assert!(
            !ring.rotation_due(499, true, 49)
                && ring.rotation_due(500, true, 0)
                && ring.rotation_due(0, true, 50)
        );
        // While a peer does not use it yet, it has time to.
        assert!(
            !ring.rotation_due(500, false, 2 * PEER_WAIT - 1) && ring.rotation_due(0, false, 2 * PEER_WAIT)
        );
        ring.set_lifetime(Lifetime { time: 51, bytes: 1000 });
        assert!(!ring.rotation_due(0, true, 50));
        let old = ring.agree(b.announcement(), Cipher::Aes128Gcm, "").unwrap();
        assert_eq!(ring.rotate(50).unwrap().epoch, 101);
        assert_ne!(ring.announcement().public, first.public);
        assert!(!ring.rotation_due(0, true, 100) && ring.rotation_due(0, true, 101));
        assert_eq!(ring.agree_previous(100, b.announcement(), Cipher::Aes128Gcm, ""), Ok(old));
        ring.rotate(60).unwrap();
        let gone = ring.agree_previous(100, b.announcement(), Cipher::Aes128Gcm, "");
        assert_eq!(gone, Err(AgreeError::Forgotten(100)));
        ring.forget_previous();
        assert!(ring.agree_previous(101, b.announcement(), Cipher::Aes128Gcm, "").is_err());
        assert_eq!(ring.rotate_to(u64::MAX, 70).unwrap().epoch, u64::MAX);
        assert_eq!(ring.rotate(80).unwrap().epoch, u64::MAX, "it does not begin again");
        assert_eq!(ring.rotate_to(500, 90).unwrap().epoch, 500);
    }

    #[test]
    fn the_side_with_the_news_waits() {
        let a = KeyPair::generate("a", 2).unwrap();
        let b = KeyPair::generate("b", 9).unwrap();
        let pair = a.agree(b.announcement(), Cipher::Aes128Gcm, "").unwrap();
        assert_eq!(switchover(&pair, Some(2), Some(8), true, 5), Switchover::Now);
        // Ours is the news: whatever time it takes to reach the peer.
        assert_eq!(switchover(&pair, Some(1), Some(9), true, 5), Switchover::AFTER_PEER);
        // Both are.
        assert_eq!(switchover(&pair, Some(1), Some(8), true, 5), Switchover::PeerOr(5 + PEER_WAIT));
        assert_eq!(switchover(&pair, None, None, true, 5), Switchover::PeerOr(5 + PEER_WAIT));
        assert_eq!(switchover(&pair, None, None, false, 5), Switchover::Now, "both have begun anew");
        assert_eq!(switchover(&pair, None, Some(9), false, 5), Switchover::AFTER_PEER);
    }
}
