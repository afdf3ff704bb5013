//! The link by which sessions follow from one device of an instance to the other: what each announces of its end to the
//! other, and the signature on it. The key of the link is agreed by the devices; the cloud carries public keys only.

use std::net::IpAddr;

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::address::endpoint_address;
use crate::announcement::{AnnouncementError, Identity, IdentityKey, Parts, bytes, is_low_order};
use crate::document::SessionLink;

const SIGNED: &[u8] = b"sag-vcpe session link 1";

/// An end of the link that is well formed and signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// Where the link ends.
    pub address: IpAddr,
    /// The X25519 public key (RFC 7748).
    pub public_key: [u8; 32],
    /// Who signed.
    pub identity: Identity,
}

fn signed_bytes(address: IpAddr, public_key: &[u8; 32], gateway: &str, sn: &str) -> Vec<u8> {
    let mut out = Parts::default();
    out.add(SIGNED);
    out.add(gateway.as_bytes());
    out.add(sn.as_bytes());
    out.add_address(address);
    out.add(public_key);
    out.0
}

impl SessionLink {
    /// The end at that address, with that X25519 public key, of the device `sn` of the instance `gateway`.
    ///
    /// # Errors
    /// The end is not one that the other device would accept.
    pub fn signed(
        key: &IdentityKey,
        address: IpAddr,
        public_key: &[u8; 32],
        gateway: &str,
        sn: &str,
    ) -> Result<SessionLink, AnnouncementError> {
        let out = SessionLink {
            address: address.to_string(),
            public_key: hex::encode(public_key),
            identity: key.identity().to_hex(),
            signature: hex::encode(key.signature(&signed_bytes(address, public_key, gateway, sn))),
        };
        out.well_formed().map(|_| out)
    }

    fn well_formed(&self) -> Result<(IpAddr, [u8; 32]), AnnouncementError> {
        let address = endpoint_address(&self.address)?;
        let public_key = bytes(&self.public_key).ok_or(AnnouncementError::Key)?;
        if is_low_order(&public_key) {
            return Err(AnnouncementError::WeakKey);
        }
        Ok((address, public_key))
    }

    /// Whether it can be used as the end of the device `sn` of the instance `gateway`: a unicast address, a key, and a
    /// signature on both. Who the identity is, is for the caller to compare with what it knows.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, gateway: &str, sn: &str) -> Result<SessionEnd, AnnouncementError> {
        let (address, public_key) = self.well_formed()?;
        let identity: Identity = self.identity.parse()?;
        let signature = bytes::<64>(&self.signature).ok_or(AnnouncementError::Signature)?;
        UnparsedPublicKey::new(&ED25519, identity.as_bytes())
            .verify(&signed_bytes(address, &public_key, gateway, sn), &signature)
            .map_err(|_| AnnouncementError::Forged(identity))?;
        Ok(SessionEnd { address, public_key, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = include_str!("../../../docs/ha.md");

    fn key() -> IdentityKey {
        IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key")
    }

    #[test]
    fn an_end_is_of_the_device_that_signed_it() {
        let (key, address) = (key(), "10.1.0.2".parse().expect("an address"));
        let end = SessionLink::signed(&key, address, &[9; 32], "sag-1", "sn1").expect("signed");
        let found = end.check("sag-1", "sn1").expect("accepted");
        assert_eq!(found, SessionEnd { address, public_key: [9; 32], identity: key.identity() });
        let forged = Err(AnnouncementError::Forged(key.identity()));
        assert_eq!(end.check("sag-2", "sn1"), forged);
        assert_eq!(end.check("sag-1", "sn2"), forged);
        let elsewhere = SessionLink { address: "10.1.0.3".into(), ..end.clone() };
        assert_eq!(elsewhere.check("sag-1", "sn1"), forged);
        let other_key = SessionLink { public_key: "08".repeat(32), ..end.clone() };
        assert_eq!(other_key.check("sag-1", "sn1"), forged);
        let unsigned = SessionLink { identity: String::new(), signature: String::new(), ..end.clone() };
        assert_eq!(unsigned.check("sag-1", "sn1"), Err(AnnouncementError::Identity));
        for address in ["", "127.0.0.1", "224.0.0.18", "0.0.0.0", "fe80::1"] {
            let wrong = SessionLink { address: address.into(), ..end.clone() };
            assert!(wrong.check("sag-1", "sn1").is_err(), "{address}");
        }
        let weak = SessionLink::signed(&key, address, &[0; 32], "sag-1", "sn1");
        assert_eq!(weak, Err(AnnouncementError::WeakKey));
    }

    #[test]
    fn what_is_signed_is_what_the_documentation_says() {
        assert!(DOC.contains(std::str::from_utf8(SIGNED).expect("text")), "the label is in docs/ha.md");
        let bytes = signed_bytes("10.1.0.2".parse().expect("an address"), &[9; 32], "sag-1", "sn1");
        let length = |n: u8| [0, 0, 0, 0, 0, 0, 0, n];
        let wanted = [
            &length(23)[..],
            SIGNED,
            &length(5),
            b"sag-1",
            &length(3),
            b"sn1",
            &length(4),
            &[10, 1, 0, 2],
            &length(32),
            &[9; 32],
        ];
        assert_eq!(bytes, wanted.concat());
    }
}
