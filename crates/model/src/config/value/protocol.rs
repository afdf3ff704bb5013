//! Protocols and code points.

use super::{Fault, fault, quote};
use crate::Dscp;
use crate::config::types::{OuterDscp, TcpFlags, icmp_code, icmp_names, icmp_type, tcp_flags};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// Protocols with names in the file; the first name of a number is the one that is written back.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", TCP),
    ("udp", UDP),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", ICMPV6),
    ("ipv6-icmp", ICMPV6),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
];

/// A differentiated services code point, by name or number.
pub(crate) fn dscp(text: &str) -> Result<Dscp, Fault> {
    text.parse().or_else(|_| {
        fault(
            format!("{}: is not a DSCP", quote(text)),
            "write a number from 0 to 63, or a name as \"EF\", \"AF41\", \"CS5\"",
        )
    })
}

/// TCP flags as nftables writes them: those that must be set, of those that are looked at.
pub(crate) fn tcp_flags_match(text: &str) -> Result<TcpFlags, Fault> {
    const FORM: &str = "write the flags that must be set, a slash, and the flags that are looked at, as in \
        \"syn / syn,ack\" or \"none / all\"; flags are fin, syn, rst, psh, ack, urg, ece, cwr";
    let both = text.split_once('/').and_then(|(set, mask)| Some((tcp_flags(set)?, tcp_flags(mask)?)));
    match both {
        None => fault(format!("{}: is no test of TCP flags", quote(text)), FORM),
        Some((_, 0)) => {
            fault(format!("{}: looks at no flag", quote(text)), "leave the key out, or name flags")
        }
        Some((set, mask)) if set & !mask != 0 => fault(
            format!("{}: wants a flag set that it does not look at", quote(text)),
            format!("write \"{}\"", TcpFlags { mask: mask | set, set }),
        ),
        Some((set, mask)) => Ok(TcpFlags { mask, set }),
    }
}

/// An ICMP or ICMPv6 type.
pub(crate) fn icmp_type_number(text: &str, ipv6: bool) -> Result<u8, Fault> {
    icmp_type(text, ipv6).map_or_else(
        || {
            let family = if ipv6 { "ICMPv6" } else { "ICMP" };
            let names = icmp_names(ipv6).0.join(", ");
            fault(
                format!("{}: is no type of {family}", quote(text)),
                format!("write a number from 0 to 255, or one of {names}"),
            )
        },
        Ok,
    )
}

/// A code of an ICMP or ICMPv6 type.
pub(crate) fn icmp_code_number(text: &str, kind: u8, ipv6: bool) -> Result<u8, Fault> {
    icmp_code(text, kind, ipv6).map_or_else(
        || {
            let names = icmp_names(ipv6).1.join(", ");
            fault(
                format!("{}: is no code of this type", quote(text)),
                format!("write a number from 0 to 255; codes of destination-unreachable have names: {names}"),
            )
        },
        Ok,
    )
}

/// The code point of a tunnel's outer header.
pub(crate) fn outer_dscp(text: &str) -> Result<OuterDscp, Fault> {
    match (text, text.parse()) {
        ("copy", _) => Ok(OuterDscp::Copy),
        ("uniform", _) => Ok(OuterDscp::Uniform),
        (_, Ok(n)) if n < 64u8 => Ok(OuterDscp::Fixed(n)),
        _ => fault(
            format!("{}: is no code point", quote(text)),
            "write \"copy\", \"uniform\" or a number from 0 to 63",
        ),
    }
}

/// Name in any case or number; `None` is all protocols. "icmp" means the ICMP of the rule's IP
/// version.
pub(crate) fn protocol(text: &str, ipv6: bool) -> Result<Option<u8>, Fault> {
    let lower = text.to_ascii_lowercase();
    if lower == "all" || lower == "any" {
        return Ok(None);
    }
    if lower == "icmp" && ipv6 {
        return Ok(Some(ICMPV6));
    }
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == lower) {
        return Ok(Some(*number));
    }
    if !lower.is_empty()
        && lower.bytes().all(|b| b.is_ascii_digit())
        && let Ok(number) = lower.parse()
    {
        return Ok(Some(number));
    }
    fault(
        format!("{}: is not a protocol that can be matched", quote(text)),
        "write \"all\", \"tcp\", \"udp\", \"icmp\", \"gre\", \"esp\" or an IANA number 0..255",
    )
}

/// How a protocol is written in the file.
pub fn protocol_name(protocol: Option<u8>) -> String {
    match protocol {
        None => "all".to_owned(),
        Some(n) => match PROTOCOLS.iter().find(|(_, number)| *number == n) {
            Some((name, _)) => (*name).to_owned(),
            None => n.to_string(),
        },
    }
}
