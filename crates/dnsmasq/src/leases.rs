//! The daemon's list of leases, which it keeps in a file: a line for each, `expiry mac address name client-identifier`.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Leases that the daemon gives at most, and that are shown.
pub(crate) const MAX_LEASES: usize = 10_000;

/// An address that a host has for some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The host's Ethernet address.
    pub mac: String,
    /// What the host calls itself, or what its reservation calls it; empty: nothing.
    pub name: String,
    /// The end, in seconds since 1970; 0: it has none.
    pub expires: u64,
    /// The port of the host; empty: of a range that is served no more.
    pub port: String,
}

/// The leases of IPv4 that have not ended, by address. What follows the line `duid` is of DHCPv6, whose clients have no
/// leases here.
pub(crate) fn parse(text: &str, now: u64) -> Vec<Lease> {
    let lease = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let expires = words.next()?.parse().ok()?;
        // A kind of hardware other than Ethernet stands in front.
        let mac = words.next()?.to_owned();
        let address = words.next()?.parse().ok()?;
        let name = words.next().filter(|n| *n != "*").unwrap_or_default().to_owned();
        Some(Lease { address, mac, name, expires, port: String::new() })
    };
    let mut all: Vec<Lease> = text.lines().filter_map(lease).take(MAX_LEASES).collect();
    all.retain(|l| l.expires == 0 || l.expires > now);
    all.sort_by_key(|l| l.address);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_the_file() {
        let text = "1796043158 4a:d0:60:5b:29:4d 10.1.1.104 pc-7 01:4a:d0:60:5b:29:4d\n\
            0 02:00:00:00:00:01 10.1.1.9 * *\n100 02:00:00:00:00:02 10.1.1.3 old *\nhalf a\n\n\
            duid 00:01:00:01:2e\n1796043158 12345 2001:db8::5 six 00:01\n";
        let leases = parse(text, 200);
        let seen: Vec<(String, &str, u64)> =
            leases.iter().map(|l| (l.address.to_string(), l.name.as_str(), l.expires)).collect();
        assert_eq!(seen, [("10.1.1.9".into(), "", 0), ("10.1.1.104".into(), "pc-7", 1_796_043_158)]);
        assert_eq!(parse(&"9 m 10.0.0.1 * *\n".repeat(MAX_LEASES + 5), 0).len(), MAX_LEASES);
    }
}
