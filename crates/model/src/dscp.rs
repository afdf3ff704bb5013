//! Differentiated services code points (RFC 2474), by number and by name.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A code point, 0..=63: the upper six bits of the IPv4 TOS octet and of the IPv6 traffic class. The lower two are
/// ECN's (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dscp(u8);

/// The names of the IANA registry; the first of a number is the one that is written.
const NAMES: &[(&str, u8)] = &[
    // RFC 2474
    ("CS0", 0),
    ("DF", 0),
    ("BE", 0),
    // RFC 8622
    ("LE", 1),
    ("CS1", 8),
    // RFC 2597
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("CS2", 16),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("CS3", 24),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("CS4", 32),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("CS5", 40),
    // RFC 5865
    ("VOICE-ADMIT", 44),
    // RFC 3246
    ("EF", 46),
    ("CS6", 48),
    ("CS7", 56),
];

impl Dscp {
    /// `None`: above 63.
    pub const fn new(n: u8) -> Option<Dscp> {
        if n < 64 { Some(Dscp(n)) } else { None }
    }

    /// The number, 0..=63.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Neither a number from 0 to 63 nor a name of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotDscp;

impl FromStr for Dscp {
    type Err = NotDscp;

    fn from_str(text: &str) -> Result<Dscp, NotDscp> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().and_then(Dscp::new).ok_or(NotDscp);
        }
        let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        named.map(|(_, n)| Dscp(*n)).ok_or(NotDscp)
    }
}

impl fmt::Display for NotDscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a DSCP: write 0..63 or a name such as EF, AF41, CS5")
    }
}

impl std::error::Error for NotDscp {}

/// The name, or the number of one without a name.
impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// On the wire a code point is its number.
impl Serialize for Dscp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Dscp, D::Error> {
        Dscp::new(u8::deserialize(d)?).ok_or_else(|| serde::de::Error::custom(NotDscp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for n in 0..64 {
            let d = Dscp::new(n).expect("in range");
            assert_eq!(d.to_string().parse(), Ok(d));
            assert_eq!(n.to_string().parse(), Ok(d));
        }
        // Classes are eights, assured forwarding is class * 8 + precedence * 2.
        for class in 1..5u8 {
            for precedence in 1..4u8 {
                let want = Dscp::new(class * 8 + precedence * 2).ok_or(NotDscp);
                assert_eq!(format!("AF{class}{precedence}").parse(), want);
            }
        }
        for class in 0..8u8 {
            assert_eq!(format!("cs{class}").parse::<Dscp>().map(Dscp::get), Ok(class * 8));
        }
        assert_eq!(("ef".parse(), "DF".parse()), (Ok(Dscp(46)), Ok(Dscp(0))));
        for bad in ["", "64", "-1", "AF44", "CS8", "EF ", "0x2e", "300"] {
            assert_eq!(bad.parse::<Dscp>(), Err(NotDscp), "{bad}");
        }
    }
}
