//! What ACL rules ask of a header beyond the five-tuple: TCP flags, ICMP messages.

use std::fmt;

/// The flags of TCP by their names, the lowest bit first (RFC 9293 3.1).
const TCP_FLAGS: [(&str, u8); 8] = [
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

/// TCP flags that a rule looks at, and those of them that must be set. Written as in nftables: `syn / syn,ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// The flags that are looked at.
    pub mask: u8,
    /// Those that must be set; the others of `mask` must be clear.
    pub set: u8,
}

/// The flags of a list such as `syn,ack`; `none` has none and `all` has all.
pub fn tcp_flags(list: &str) -> Option<u8> {
    match list.trim() {
        "none" => return Some(0),
        "all" => return Some(u8::MAX),
        _ => {}
    }
    list.split(',').try_fold(0, |flags, name| {
        let name = name.trim().to_ascii_lowercase();
        // The name of nftables.
        let name = if name == "ecn" { "ece" } else { &name };
        TCP_FLAGS.iter().find(|(n, _)| *n == name).map(|(_, bit)| flags | bit)
    })
}

/// A list of flags.
fn list(flags: u8) -> String {
    match flags {
        0 => "none".to_owned(),
        u8::MAX => "all".to_owned(),
        _ => {
            let set = TCP_FLAGS.iter().filter(|(_, bit)| flags & bit != 0);
            set.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
        }
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", list(self.set), list(self.mask))
    }
}

/// A type of ICMP or ICMPv6 message, and a code if only that one is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// The type.
    pub kind: u8,
    /// The code; `None`: any.
    pub code: Option<u8>,
}

/// Names of ICMP types as nftables has them.
const TYPES_V4: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

const TYPES_V6: &[(&str, u8)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];

/// Names of the codes of "destination unreachable" as nftables has them.
const CODES_V4: &[(&str, u8)] = &[
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("frag-needed", 4),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];

const CODES_V6: &[(&str, u8)] = &[
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];

const fn types(v6: bool) -> &'static [(&'static str, u8)] {
    if v6 { TYPES_V6 } else { TYPES_V4 }
}

/// The names of codes of a type.
fn codes(kind: u8, v6: bool) -> &'static [(&'static str, u8)] {
    match (v6, kind) {
        (false, 3) => CODES_V4,
        (true, 1) => CODES_V6,
        _ => &[],
    }
}

/// A number in plain digits, or a name of the list.
fn number(text: &str, names: &[(&str, u8)]) -> Option<u8> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, n)| *n)
}

/// The name, or the number of one without a name.
fn name(n: u8, names: &[(&str, u8)]) -> String {
    names
        .iter()
        .find(|(_, number)| *number == n)
        .map_or_else(|| n.to_string(), |(name, _)| (*name).to_owned())
}

/// An ICMP or ICMPv6 type by name or number.
pub fn icmp_type(text: &str, v6: bool) -> Option<u8> {
    number(text, types(v6))
}

/// A code of a type by name or number.
pub fn icmp_code(text: &str, kind: u8, v6: bool) -> Option<u8> {
    number(text, codes(kind, v6))
}

/// How an ICMP type is written.
pub fn icmp_type_name(kind: u8, v6: bool) -> String {
    name(kind, types(v6))
}

/// How a code of a type is written.
pub fn icmp_code_name(code: u8, kind: u8, v6: bool) -> String {
    name(code, codes(kind, v6))
}

/// Names of the types and of the codes of "destination unreachable", for remedies.
pub(crate) fn icmp_names(v6: bool) -> (Vec<&'static str>, Vec<&'static str>) {
    let names = |list: &[(&'static str, u8)]| list.iter().map(|(name, _)| *name).collect();
    (names(types(v6)), names(if v6 { CODES_V6 } else { CODES_V4 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_by_their_names() {
        let written = [
            ("syn / syn,ack", TcpFlags { mask: 0x12, set: 0x02 }),
            ("none / fin,syn,rst,psh,ack,urg", TcpFlags { mask: 0x3F, set: 0 }),
            ("fin,psh,urg / all", TcpFlags { mask: 0xFF, set: 0x29 }),
        ];
        for (text, flags) in written {
            assert_eq!(flags.to_string(), text);
            let (set, mask) = text.split_once('/').expect("a slash");
            assert_eq!((tcp_flags(set), tcp_flags(mask)), (Some(flags.set), Some(flags.mask)));
        }
        assert_eq!(tcp_flags("SYN , ecn"), Some(0x42));
        for bad in ["", "syn,", "sin", "2"] {
            assert_eq!(tcp_flags(bad), None, "{bad}");
        }
    }

    #[test]
    fn messages_by_name_and_number() {
        for v6 in [false, true] {
            for kind in 0..=255 {
                assert_eq!(icmp_type(&icmp_type_name(kind, v6), v6), Some(kind));
                for code in 0..=255 {
                    assert_eq!(icmp_code(&icmp_code_name(code, kind, v6), kind, v6), Some(code));
                }
            }
        }
        assert_eq!((icmp_type("echo-request", false), icmp_type("Echo-Request", true)), (Some(8), Some(128)));
        assert_eq!(icmp_type("packet-too-big", false), None);
        assert_eq!(
            (icmp_code("port-unreachable", 3, false), icmp_code("port-unreachable", 1, true)),
            (Some(3), Some(4))
        );
        for (text, kind) in [("port-unreachable", 8), ("256", 3), ("-1", 3), ("", 3)] {
            assert_eq!(icmp_code(text, kind, false), None, "{text}");
        }
    }
}
