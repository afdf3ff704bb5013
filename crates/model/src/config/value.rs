//! Spellings of single values: networks, addresses, port ranges, protocols, times, keys.

use super::types::PortRange;
use crate::Dscp;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// Why a value was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub problem: String,
    pub remedy: String,
}

pub(super) fn fault<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { problem: problem.into(), remedy: remedy.into() })
}

/// The value in quotes, shortened if someone pasted a book.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{head:?}...")
}

/// A network as written, host bits and all.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let full = if ip.is_ipv4() { 32 } else { 128 };
        return fault(format!("{}: has no prefix length", quote(text)), format!("write \"{ip}/{full}\""));
    }
    fault(
        format!("{}: is not a CIDR block", quote(text)),
        "write address/prefix length, as in \"192.168.1.0/24\" or \"2001:db8::/32\"",
    )
}

pub(super) fn address(text: &str) -> Result<IpAddr, Fault> {
    text.parse().or_else(|_| {
        let remedy = match text.parse::<IpNet>() {
            Ok(net) => format!("write the address alone: \"{}\"", net.addr()),
            Err(_) => "write it as in \"192.0.2.1\" or \"2001:db8::1\"".to_owned(),
        };
        fault(format!("{}: is not an IP address", quote(text)), remedy)
    })
}

/// An address that one host can have.
pub(super) fn unicast(text: &str) -> Result<IpAddr, Fault> {
    let ip = address(text)?;
    let bad = match ip {
        IpAddr::V4(a) if a.is_broadcast() => Some("the broadcast address"),
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        _ => None,
    };
    match bad {
        Some(what) => fault(format!("{}: is {what}", quote(text)), "write the address of one host"),
        None => Ok(ip),
    }
}

/// `first/last`, each 1..=65535, or `-1/-1`.
pub(super) fn port_range(text: &str) -> Result<PortRange, Fault> {
    const FORM: &str = "write first/last with ports 1..65535, as in \"80/443\", or \"-1/-1\" for any";
    match text.split_once('/') {
        Some(("-1", "-1")) => Ok(PortRange::ANY),
        Some((first, last)) if first == "-1" || last == "-1" => {
            fault(format!("{}: only one end is -1", quote(text)), FORM)
        }
        _ => some_ports(text, FORM),
    }
}

/// One port or `first/last`, each 1..=65535; `form` as in [`some_ports`].
pub(super) fn ports(text: &str, form: &str) -> Result<PortRange, Fault> {
    match port_number(text) {
        Some(port) => Ok(PortRange::single(port)),
        None => some_ports(text, form),
    }
}

/// `first/last`, each 1..=65535; `form` is the remedy for what looks like something else.
pub(super) fn some_ports(text: &str, form: &str) -> Result<PortRange, Fault> {
    let quoted = quote(text);
    let Some((first, last)) = text.split_once('/') else {
        if let Some(port) = port_number(text) {
            return fault(format!("{quoted}: is a single port"), format!("write \"{port}/{port}\""));
        }
        return match text.split_once('-').and_then(|(a, b)| Some((port_number(a)?, port_number(b)?))) {
            Some((a, b)) => {
                fault(format!("{quoted}: uses \"-\" as the separator"), format!("write \"{a}/{b}\""))
            }
            None => fault(format!("{quoted}: is not a port range"), form),
        };
    };
    match (port_number(first), port_number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(PortRange { first, last }),
        (Some(first), Some(last)) => fault(
            format!("{quoted}: first port is above the last"),
            format!("write it as \"{last}/{first}\""),
        ),
        _ => fault(format!("{quoted}: is not a port range"), form),
    }
}

/// 1..=65535 in plain digits.
pub(super) fn port_number(text: &str) -> Option<u16> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|p| *p != 0)
}

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
pub(super) fn dscp(text: &str) -> Result<Dscp, Fault> {
    text.parse().or_else(|_| {
        fault(
            format!("{}: is not a DSCP", quote(text)),
            "write a number from 0 to 63, or a name as \"EF\", \"AF41\", \"CS5\"",
        )
    })
}

/// Name in any case or number; `None` is all protocols. "icmp" means the ICMP of the rule's IP
/// version.
pub(super) fn protocol(text: &str, ipv6: bool) -> Result<Option<u8>, Fault> {
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

/// A moment, in seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// RFC 3339; the API's `+0800` without colon is read too.
pub(super) fn timestamp(text: &str) -> Result<Timestamp, Fault> {
    let with_colon = match text.as_bytes() {
        [head @ .., b'+' | b'-', a, b, c, d]
            if head.contains(&b':') && [a, b, c, d].iter().all(|x| x.is_ascii_digit()) =>
        {
            // The matched tail is ASCII, so this cut lies between characters.
            let (front, minutes) = text.split_at(text.len() - 2);
            format!("{front}:{minutes}")
        }
        _ => text.to_owned(),
    };
    let bad = |what: &str| {
        fault(
            format!("{}: {what}", quote(text)),
            "write date, time and offset as in \"2026-07-14T16:41:33+08:00\" or \"2026-07-14T08:41:33Z\"",
        )
    };
    let Ok(parsed) = with_colon.parse::<toml::value::Datetime>() else {
        return bad("is not a time");
    };
    let (Some(date), Some(time)) = (parsed.date, parsed.time) else {
        return bad("lacks the date or the time of day");
    };
    let Some(offset) = parsed.offset else {
        return bad("lacks the offset from UTC");
    };
    if !(1970..=9998).contains(&date.year) {
        return bad("is outside the years 1970 to 9998");
    }
    let offset = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    let day = days_from_civil(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let second = i64::from(time.hour) * 3600
        + i64::from(time.minute) * 60
        + i64::from(time.second.unwrap_or_default());
    Ok(Timestamp(day * 86_400 + second - offset))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that
/// the leap day is the last day of a year and month lengths follow one linear formula.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let year_of_era = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let day_of_year = doe - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// RFC 3339 in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(86_400));
        let s = self.0.rem_euclid(86_400);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
    }
}

/// Bytes from hexadecimal digits; `None` unless it is exactly that.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[a, b]| a << 4 | b).collect())
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
