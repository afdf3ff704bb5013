//! The key of the link by which sessions follow to the other device of the instance (docs/ha.md): agreed by the two devices
//! (X25519), whose public halves the cloud carries, signed by the devices' identities.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use sag_secret::Secret;
use sag_southbound::{Identity, IdentityKey, SessionLink};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::desired::SessionPeer;
use crate::files;
use crate::peers::Peers;
use crate::trust::Trust;

const FILE: &str = "session-link.key";
const LABEL: &[u8] = b"sag-vcpe session link key 1";
/// Bytes of the key of the link, as of both X25519 keys.
const KEY: usize = 32;

/// This device's X25519 key for the link. It stays the same over restarts, so that the link does.
pub struct LinkKey {
    secret: Secret<StaticSecret>,
    /// The public half.
    pub public: [u8; KEY],
    /// It was made just now: what the gateway has was agreed with another one.
    pub is_new: bool,
}

impl LinkKey {
    /// The key of `state_dir`, which is made when it is needed first. One that is damaged is replaced: whom it is agreed
    /// with does not depend on it.
    ///
    /// # Errors
    /// The file cannot be read or written, or the system has no random numbers.
    pub fn load(state_dir: &Path) -> Result<LinkKey, String> {
        let file = state_dir.join(FILE);
        let wrong = |e: io::Error| format!("{}: {e}", file.display());
        let mut bytes = Zeroizing::new([0; KEY]);
        match std::fs::read(&file).map(Zeroizing::new) {
            Ok(kept) if kept.len() == KEY => bytes.copy_from_slice(&kept),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(wrong(e)),
            Ok(_) | Err(_) => {
                SystemRandom::new().fill(&mut *bytes).map_err(|_| "the system has no random numbers")?;
                files::replace(&file, &*bytes).map_err(wrong)?;
                return Ok(LinkKey { is_new: true, ..LinkKey::of(*bytes) });
            }
        }
        Ok(LinkKey::of(*bytes))
    }

    fn of(bytes: [u8; KEY]) -> LinkKey {
        let secret = Secret::new(StaticSecret::from(bytes));
        let public = PublicKey::from(&*secret).to_bytes();
        LinkKey { secret, public, is_new: false }
    }

    /// The key of the link between this device and the other one, the same at both; `None`: the agreement gives zero.
    fn agree(&self, own: &str, peer: &str, public: &[u8; KEY]) -> Option<Zeroizing<[u8; KEY]>> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        if !shared.was_contributory() {
            return None;
        }
        let mut ends = [(own, &self.public), (peer, public)];
        ends.sort();
        let [(sn1, key1), (sn2, key2)] = ends;
        // Serial numbers are shorter; both ends cut alike.
        let (len1, len2) = ([sn1.len() as u8], [sn2.len() as u8]);
        let info: [&[u8]; 7] = [LABEL, &len1, sn1.as_bytes(), key1, &len2, sn2.as_bytes(), key2];
        let prk = Salt::new(HKDF_SHA256, LABEL).extract(shared.as_bytes());
        let mut out = Zeroizing::new([0; KEY]);
        prk.expand(&info, Length).and_then(|okm| okm.fill(&mut *out)).ok()?;
        Some(out)
    }
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY
    }
}

/// This device, as the other one sees it.
pub struct Own<'a> {
    /// The instance, of which the other device is too.
    pub gateway: &'a str,
    pub sn: &'a str,
    pub trust: &'a Trust,
    /// The devices that it knows, or why these cannot be read.
    pub known: Result<&'a Peers, &'a str>,
    /// Seconds since 1970.
    pub now: i64,
}

/// The other device's end of the link, with the key that was agreed with it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreedPeer {
    pub sn: String,
    pub address: IpAddr,
    pub key: sag_model::config::Secret,
    /// By which it is recognised from now on.
    pub identity: Identity,
}

/// The other device, if it has announced an end and can be recognised.
///
/// # Errors
/// Why there is no link, with the device's name.
pub fn agreed(
    peer: &SessionPeer,
    own: &Own<'_>,
    key: &Result<LinkKey, String>,
) -> Result<AgreedPeer, String> {
    let sn: String = peer.sn.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    let found = || {
        if sn.is_empty() || sn != peer.sn || sn == own.sn {
            return Err("its serial number is not that of another device".to_owned());
        }
        let link = SessionLink {
            address: peer.address.clone(),
            public_key: peer.public_key.clone(),
            identity: peer.identity.clone(),
            signature: peer.signature.clone(),
        };
        let end = link.check(own.gateway, &sn).map_err(|e| e.to_string())?;
        let known = own.known.map_err(str::to_owned)?;
        own.trust.recognise(&sn, known.0.get(&sn), Some(end.identity))?;
        if !known.0.contains_key(&sn) {
            known.has_room(own.gateway, own.now)?;
        }
        let key = key.as_ref().map_err(Clone::clone)?;
        let agreed = key.agree(own.sn, &sn, &end.public_key).ok_or("its public key is of low order")?;
        let key = sag_model::config::Secret::new(agreed.to_vec());
        Ok(AgreedPeer { sn: sn.clone(), address: end.address, key, identity: end.identity })
    };
    found().map_err(|why| format!("device {sn}: {why}"))
}

/// This device's end, for the other one.
pub fn announced(
    address: IpAddr,
    own: (&str, &str),
    key: &Result<LinkKey, String>,
    identity: &Result<IdentityKey, String>,
) -> Option<SessionLink> {
    let (key, identity) = (key.as_ref().ok()?, identity.as_ref().ok()?);
    let signed = SessionLink::signed(identity, address, &key.public, own.0, own.1);
    signed.inspect_err(|error| tracing::debug!(%error, "no link for sessions")).ok()
}

/// Where the key is kept.
pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn identity() -> IdentityKey {
        IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key")
    }

    fn announced_by(sn: &str, identity: IdentityKey, key: LinkKey) -> SessionPeer {
        let address = "10.1.0.3".parse().expect("an address");
        let link = announced(address, ("sag-1", sn), &Ok(key), &Ok(identity)).expect("announced");
        SessionPeer {
            sn: sn.to_owned(),
            address: link.address,
            public_key: link.public_key,
            identity: link.identity,
            signature: link.signature,
        }
    }

    fn own<'a>(sn: &'a str, trust: &'a Trust, known: &'a Peers) -> Own<'a> {
        Own { gateway: "sag-1", sn, trust, known: Ok(known), now: 1_800_000_000 }
    }

    #[test]
    fn both_devices_agree_on_one_key_and_others_on_another() {
        let (a, b, c) = (LinkKey::of([1; 32]), LinkKey::of([2; 32]), LinkKey::of([3; 32]));
        let of = |x: &LinkKey, own, y: &LinkKey, peer| x.agree(own, peer, &y.public).expect("agreed");
        let key = of(&a, "sn1", &b, "sn2");
        assert_eq!(key, of(&b, "sn2", &a, "sn1"));
        assert_ne!(key, of(&a, "sn1", &c, "sn2"), "another device");
        assert_ne!(key, of(&a, "sn1", &b, "sn3"), "another name");
        assert_eq!(a.agree("sn1", "sn2", &[0; 32]), None);
    }

    #[test]
    fn the_key_outlives_a_restart() {
        let dir = tempfile::tempdir().expect("dir");
        let first = LinkKey::load(dir.path()).expect("made");
        let again = LinkKey::load(dir.path()).expect("loaded");
        assert_eq!((first.is_new, again.is_new, first.public), (true, false, again.public));
        let mode = std::fs::metadata(file(dir.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(file(dir.path()), b"half").expect("written");
        let other = LinkKey::load(dir.path()).expect("made anew");
        assert!(other.is_new && other.public != first.public);
    }

    #[test]
    fn the_other_device_is_recognised_by_its_identity() {
        let (trust, mut known, its) = (Trust::default(), Peers::default(), identity());
        let identity_of_it = its.identity();
        let peer = announced_by("sn2", its, LinkKey::of([2; 32]));
        let key = Ok(LinkKey::of([1; 32]));
        let found = agreed(&peer, &own("sn1", &trust, &known), &key).expect("trusted on first use");
        assert_eq!((found.sn.as_str(), found.identity), ("sn2", identity_of_it));
        assert!(!format!("{found:?}").contains(&hex::encode(found.key.expose())), "the key is not shown");
        known.remember_identity("sn2", "sag-1", found.identity, 1_800_000_000);
        assert!(agreed(&peer, &own("sn1", &trust, &known), &key).is_ok());
        // Somebody else with the same serial number, as a cloud that wants to listen would make him.
        let other = announced_by("sn2", identity(), LinkKey::of([9; 32]));
        let why = agreed(&other, &own("sn1", &trust, &known), &key).expect_err("another identity");
        assert!(why.contains("peers accept sn2"), "{why}");
        let listed = Trust { only_listed: true, ..Trust::default() };
        let why = agreed(&peer, &own("sn1", &listed, &Peers::default()), &key).expect_err("not listed");
        assert!(why.contains("not listed"), "{why}");
        let moved = SessionPeer { address: "10.1.0.9".into(), ..peer.clone() };
        assert!(agreed(&moved, &own("sn1", &trust, &known), &key).is_err_and(|e| e.contains("signature")));
        assert!(agreed(&peer, &own("sn2", &trust, &known), &key).is_err(), "this device itself");
        let unreadable = Own { known: Err("peers.json: damaged"), ..own("sn1", &trust, &known) };
        assert!(agreed(&peer, &unreadable, &key).is_err_and(|e| e.contains("damaged")));
    }
}
