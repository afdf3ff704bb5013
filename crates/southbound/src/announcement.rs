//! What a device announces to the other members of its network, when it may be believed, and the signature on it.
//!
//! Both ends check with the same code: the cloud when a device reports, and the agents of the other members when the
//! announcement reaches them. `docs/tunnels-keys.md` says what the signature proves and what it does not.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ring::{agreement, digest};
use sag_secret::Secret;
use zeroize::Zeroizing;

use crate::address::{AddressError, endpoint_address};
use crate::document::Announcement;
use crate::lines::{self, Line, LinesError};

/// Seconds by which an epoch may be ahead of the reader's clock. A device begins with the time of its start and counts
/// up by one for each key, so an epoch is never ahead of a clock that is right.
pub const EPOCH_AHEAD: u64 = 86_400;

const SIGNED: &[u8] = b"sag-vcpe device announcement 1";
const SIGNED_LINES: &[u8] = b"sag-vcpe device lines 1";
const FINGERPRINT: &[u8] = b"sag-vcpe device identity 1";

/// Why an announcement cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// What should be an address is none.
    #[error("{0:?} is not an IP address")]
    NotAnAddress(String),
    /// No host on another network can have the address.
    #[error("{0} is {1}; a tunnel or link ends at a unicast address that others can reach")]
    Unreachable(IpAddr, &'static str),
    /// The public key has not the form of one.
    #[error("the public key is not 64 hexadecimal digits")]
    Key,
    /// Every agreement with the public key gives zero (RFC 7748, 6.1).
    #[error("the public key is of low order: every agreement with it gives zero (RFC 7748, 6.1)")]
    WeakKey,
    /// The lines to the Internet are not in order.
    #[error("its lines: {0}")]
    Lines(#[from] LinesError),
    /// There are lines, and nobody signed them.
    #[error("it has lines, and they are not signed")]
    UnsignedLines,
    /// There is no epoch.
    #[error("the key has no epoch")]
    Epoch,
    /// The identity has not the form of one.
    #[error("the identity is not 64 hexadecimal digits")]
    Identity,
    /// The signature has not the form of one, or there is none although there is an identity.
    #[error("the signature is not 128 hexadecimal digits")]
    Signature,
    /// The signature was not made with the private key of the identity, or not over this announcement.
    #[error("the signature is not one of the identity {0} over this announcement")]
    Forged(Identity),
}

impl From<AddressError> for AnnouncementError {
    fn from(e: AddressError) -> AnnouncementError {
        match e {
            AddressError::None(text) => AnnouncementError::NotAnAddress(text),
            AddressError::Unreachable(address, what) => AnnouncementError::Unreachable(address, what),
        }
    }
}

/// An announcement that is well formed, and signed by the identity if it names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where the tunnels end.
    pub address: IpAddr,
    /// Grows with every new key.
    pub epoch: u64,
    /// The X25519 public key (RFC 7748).
    pub public_key: [u8; 32],
    /// Who signed; `None`: nobody did, as devices before version 1.2 of the protocol.
    pub identity: Option<Identity>,
    /// Its lines to the Internet, at each of which tunnels end; none: all tunnels end at `address`, as of devices
    /// before version 1.4.
    pub lines: Vec<Line>,
}

impl Endpoint {
    /// Every address at which tunnels end.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let more = self.lines.iter().map(|l| l.address).filter(|a| *a != self.address);
        std::iter::once(self.address).chain(more)
    }
}

/// The public half of a device's Ed25519 key (RFC 8032). It is shown as its fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The 64 hexadecimal digits that announcements have.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What people compare: half of a SHA-256 of the key, in groups.
    pub fn fingerprint(self) -> String {
        let mut of = digest::Context::new(&digest::SHA256);
        of.update(FINGERPRINT);
        of.update(&self.0);
        let half = hex::encode(&of.finish().as_ref()[..16]);
        let groups: Vec<&str> = (0..half.len()).step_by(4).map(|at| &half[at..at + 4]).collect();
        groups.join("-")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

impl FromStr for Identity {
    type Err = AnnouncementError;

    fn from_str(text: &str) -> Result<Identity, AnnouncementError> {
        bytes(text).map(Identity).ok_or(AnnouncementError::Identity)
    }
}

/// Whether a text has the form of a fingerprint: eight groups of four hexadecimal digits in lower case.
pub fn is_fingerprint(text: &str) -> bool {
    let digits =
        |group: &str| group.len() == 4 && group.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    text.split('-').count() == 8 && text.split('-').all(digits)
}

/// The private half of a device's identity. It never leaves the device.
pub struct IdentityKey(Secret<Ed25519KeyPair>);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.identity())
    }
}

impl IdentityKey {
    /// A new key in the form in which it is kept (PKCS #8, RFC 8410); `None`: the system has no random numbers.
    pub fn generate() -> Option<Zeroizing<Vec<u8>>> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
        Some(Zeroizing::new(made.as_ref().to_vec()))
    }

    /// The key of that form; `None`: it is none.
    pub fn from_pkcs8(kept: &[u8]) -> Option<IdentityKey> {
        Ed25519KeyPair::from_pkcs8(kept).ok().map(|key| IdentityKey(Secret::new(key)))
    }

    /// The public half.
    pub fn identity(&self) -> Identity {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        Identity(public)
    }

    /// The signature over the bytes.
    pub(crate) fn signature(&self, bytes: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.sign(bytes).as_ref());
        out
    }

    /// Signs the announcement of the device `sn` of the instance `gateway`.
    ///
    /// # Errors
    /// The announcement is not one that others would accept.
    pub fn sign(
        &self,
        announced: &mut Announcement,
        gateway: &str,
        sn: &str,
    ) -> Result<(), AnnouncementError> {
        let endpoint = well_formed(announced)?;
        announced.identity = self.identity().to_hex();
        announced.signature = hex::encode(self.signature(&signed_bytes(&endpoint, gateway, sn)));
        if !endpoint.lines.is_empty() {
            announced.lines_signature = hex::encode(self.signature(&signed_lines(&endpoint, gateway, sn)));
        }
        Ok(())
    }
}

impl Announcement {
    /// Whether what the device `sn` of the instance `gateway` announces can be used: a unicast address that others can
    /// reach, a key, and the signature of the identity if there is one.
    ///
    /// Who the identity is, and whether the epoch is newer, is for the caller to compare with what it knows.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, gateway: &str, sn: &str) -> Result<Endpoint, AnnouncementError> {
        let mut endpoint = well_formed(self)?;
        if self.identity.is_empty() && self.signature.is_empty() {
            if !endpoint.lines.is_empty() {
                return Err(AnnouncementError::UnsignedLines);
            }
            return Ok(endpoint);
        }
        let identity: Identity = self.identity.parse()?;
        let verify = |signature: &str, signed: &[u8]| {
            let signature = bytes::<64>(signature).ok_or(AnnouncementError::Signature)?;
            let by = UnparsedPublicKey::new(&ED25519, identity.0);
            by.verify(signed, &signature).map_err(|_| AnnouncementError::Forged(identity))
        };
        verify(&self.signature, &signed_bytes(&endpoint, gateway, sn))?;
        if !endpoint.lines.is_empty() {
            verify(&self.lines_signature, &signed_lines(&endpoint, gateway, sn))?;
        }
        endpoint.identity = Some(identity);
        Ok(endpoint)
    }
}

fn well_formed(announced: &Announcement) -> Result<Endpoint, AnnouncementError> {
    let address = endpoint_address(&announced.address)?;
    let public_key = bytes(&announced.public_key).ok_or(AnnouncementError::Key)?;
    if is_low_order(&public_key) {
        return Err(AnnouncementError::WeakKey);
    }
    let epoch = announced.epoch.ok_or(AnnouncementError::Epoch)?;
    let lines = lines::read(&announced.lines)?;
    Ok(Endpoint { address, epoch, public_key, identity: None, lines })
}

/// Whether agreements with the key give zero whatever the private key is.
pub(crate) fn is_low_order(public: &[u8; 32]) -> bool {
    let random = SystemRandom::new();
    // Without random numbers nobody makes tunnels either; the gateway checks its own agreements again.
    let Ok(own) = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random) else { return false };
    let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, public);
    agreement::agree_ephemeral(own, &peer, |_| ()).is_err()
}

/// Two hexadecimal digits for each byte, no more and no fewer.
pub(crate) fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).ok().map(|()| out)
}

/// What is signed: every part with its length, so that no two announcements have the same bytes.
#[derive(Default)]
pub(crate) struct Parts(pub(crate) Vec<u8>);

impl Parts {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn add_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(a) => self.add(&a.octets()),
            IpAddr::V6(a) => self.add(&a.octets()),
        }
    }
}

fn signed_bytes(of: &Endpoint, gateway: &str, sn: &str) -> Vec<u8> {
    let mut out = Parts::default();
    out.add(SIGNED);
    out.add(gateway.as_bytes());
    out.add(sn.as_bytes());
    out.add_address(of.address);
    out.add(&of.epoch.to_be_bytes());
    out.add(&of.public_key);
    out.0
}

/// The lines have a signature of their own: readers before version 1.4 verify the other one alone.
fn signed_lines(of: &Endpoint, gateway: &str, sn: &str) -> Vec<u8> {
    let mut out = Parts::default();
    out.add(SIGNED_LINES);
    out.add(gateway.as_bytes());
    out.add(sn.as_bytes());
    out.add(&of.epoch.to_be_bytes());
    out.add(&of.public_key);
    for line in &of.lines {
        out.add(line.name.as_bytes());
        out.add_address(line.address);
        out.add(&line.priority.to_be_bytes());
        out.add(&[line.weight]);
    }
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::AnnouncedLine;

    const DOC: &str = include_str!("../../../docs/tunnels-keys.md");

    /// The value of a line `name  value` of the documentation.
    fn doc(name: &str) -> &'static str {
        let mut lines = DOC.lines();
        let line = lines.find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in docs/tunnels-keys.md")).trim()
    }

    fn announced() -> Announcement {
        Announcement {
            address: "203.0.113.7".into(),
            epoch: Some(7),
            // The public key of RFC 7748, 6.1.
            public_key: "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a".into(),
            ..Announcement::default()
        }
    }

    fn key() -> IdentityKey {
        IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key")
    }

    /// The private key of RFC 8032, 7.1, test 1.
    fn documented_key() -> IdentityKey {
        let seed = hex::decode(doc("identity-private")).expect("hex");
        let public = hex::decode(doc("identity-public")).expect("hex");
        IdentityKey(Secret::new(Ed25519KeyPair::from_seed_and_public_key(&seed, &public).expect("a pair")))
    }

    #[test]
    fn the_documented_vectors() {
        let key = documented_key();
        assert_eq!(key.identity().to_hex(), doc("identity-public"));
        assert_eq!(key.identity().fingerprint(), doc("identity-fingerprint"));
        assert!(is_fingerprint(doc("identity-fingerprint")) && !is_fingerprint(doc("identity-public")));
        let mut a = announced();
        key.sign(&mut a, "sag-1", "sn1").expect("signed");
        assert_eq!(a.signature, doc("announcement-signature"));
        let endpoint = a.check("sag-1", "sn1").expect("verified");
        assert_eq!((endpoint.epoch, endpoint.identity), (7, Some(key.identity())));
    }

    #[test]
    fn a_signature_holds_for_its_device_address_epoch_and_key_alone() {
        let key = key();
        let mut good = announced();
        key.sign(&mut good, "sag-1", "sn1").expect("signed");
        assert!(good.check("sag-1", "sn1").is_ok());
        let forged = Err(AnnouncementError::Forged(key.identity()));
        assert_eq!(good.check("sag-1", "sn2"), forged);
        assert_eq!(good.check("sag-2", "sn1"), forged);
        // The border between the two is signed too.
        assert_eq!(good.check("sag-", "1sn1"), forged);
        let with = |change: fn(&mut Announcement)| {
            let mut a = good.clone();
            change(&mut a);
            a.check("sag-1", "sn1")
        };
        assert_eq!(with(|a| a.address = "203.0.113.8".into()), forged);
        assert_eq!(with(|a| a.epoch = Some(8)), forged);
        assert_eq!(with(|a| a.public_key = format!("9{}", &a.public_key[1..])), forged);
        let other = self::key().identity();
        let mut stolen = good.clone();
        stolen.identity = other.to_hex();
        assert_eq!(stolen.check("sag-1", "sn1"), Err(AnnouncementError::Forged(other)));
        assert_eq!(with(|a| a.signature.clear()), Err(AnnouncementError::Signature));
        assert_eq!(with(|a| a.identity.clear()), Err(AnnouncementError::Identity));
        // What is able to be a hub says nothing about who it is.
        assert!(with(|a| a.pop = Some(true)).is_ok());
    }

    #[test]
    fn lines_are_signed_too_and_readers_that_do_not_know_them_lose_nothing() {
        let key = key();
        let line = |name: &str, address: &str| AnnouncedLine {
            name: name.into(),
            address: address.into(),
            priority: Some(10),
            weight: None,
        };
        let mut good = announced();
        good.lines = vec![line("0", "203.0.113.7"), line("3", "198.51.100.7")];
        key.sign(&mut good, "sag-1", "sn1").expect("signed");
        let read = good.check("sag-1", "sn1").expect("verified");
        let line_3 = Line {
            name: "3".into(),
            address: "198.51.100.7".parse().expect("an address"),
            priority: 10,
            weight: 100,
        };
        assert_eq!(read.lines[1], line_3);
        assert_eq!(read.addresses().count(), 2);
        let with = |change: &dyn Fn(&mut Announcement)| {
            let mut a = good.clone();
            change(&mut a);
            a.check("sag-1", "sn1").map(|e| e.lines.len())
        };
        let forged = Err(AnnouncementError::Forged(key.identity()));
        assert_eq!(with(&|a| a.lines[1].address = "198.51.100.8".into()), forged);
        assert_eq!(with(&|a| a.lines[1].priority = Some(9)), forged);
        assert_eq!(with(&|a| a.lines[1].weight = Some(9)), forged);
        assert_eq!(with(&|a| a.lines[1].name = "4".into()), forged);
        assert_eq!(with(&|a| a.lines.swap(0, 1)), forged);
        assert_eq!(with(&|a| a.lines.truncate(1)), forged);
        assert_eq!(with(&|a| a.lines_signature.clear()), Err(AnnouncementError::Signature));
        let unsigned: &dyn Fn(&mut Announcement) =
            &|a| (a.identity, a.signature, a.lines_signature) = Default::default();
        assert_eq!(with(unsigned), Err(AnnouncementError::UnsignedLines));
        // What a cloud before version 1.4 hands on.
        assert_eq!(with(&|a| (a.lines, a.lines_signature) = Default::default()), Ok(0));
        let twice = Err(AnnouncementError::Lines(LinesError::Twice("0".into())));
        assert_eq!(with(&|a| a.lines[1].name = "0".into()), twice);
        assert!(with(&|a| a.lines[1].address = a.lines[0].address.clone()).is_err());
        assert!(with(&|a| a.lines[1].address = "127.0.0.1".into()).is_err());
        assert!(with(&|a| a.lines = vec![a.lines[0].clone(); 5]).is_err());
        assert!(with(&|a| a.lines[0].name = "x\ny".into()).is_err());
    }

    #[test]
    fn addresses_that_no_other_host_can_have() {
        let check = |address: &str| Announcement { address: address.into(), ..announced() }.check("g", "s");
        for good in ["198.51.100.1", "10.0.0.1", "100.64.0.1", "2001:db8::1", "fd00::1"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
        ] {
            assert!(matches!(check(bad), Err(AnnouncementError::Unreachable(..))), "{bad}");
        }
        for bad in ["", "x", "1.2.3", "1.2.3.4/32", "127.1", "0x7f.0.0.1", "1.2.3.4\nroot", &"9".repeat(4000)]
        {
            let Err(AnnouncementError::NotAnAddress(shown)) = check(bad) else { panic!("{bad}") };
            assert!(shown.len() <= 60);
            let said = AnnouncementError::NotAnAddress(shown).to_string();
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn keys_that_are_none() {
        let check = |key: &str| Announcement { public_key: key.into(), ..announced() }.check("g", "s");
        let long = "ab".repeat(33);
        for bad in ["", "ab", &"zz".repeat(32), &long, &" ab".repeat(32)] {
            assert_eq!(check(bad), Err(AnnouncementError::Key), "{bad}");
        }
        let small: [&str; 3] = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        ];
        for bad in small {
            assert_eq!(check(bad), Err(AnnouncementError::WeakKey), "{bad}");
        }
        assert_eq!(
            Announcement { epoch: None, ..announced() }.check("g", "s"),
            Err(AnnouncementError::Epoch)
        );
    }

    #[test]
    fn a_kept_key_is_the_same_again_and_is_not_shown() {
        let kept = IdentityKey::generate().expect("made");
        let (one, two) = (IdentityKey::from_pkcs8(&kept), IdentityKey::from_pkcs8(&kept));
        let (one, two) = (one.expect("a key"), two.expect("a key"));
        assert_eq!(one.identity(), two.identity());
        assert!(IdentityKey::from_pkcs8(&kept[1..]).is_none() && IdentityKey::from_pkcs8(b"").is_none());
        let shown = format!("{one:?} {:?}", one.identity());
        assert!(shown.contains(&one.identity().fingerprint()) && !shown.contains(&one.identity().to_hex()));
        assert_eq!(one.identity().to_hex().parse(), Ok(one.identity()));
    }
}
