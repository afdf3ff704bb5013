//! The lease of a DHCPv6 client: the last Reply of the server (RFC 8415), as dhcpcd keeps it.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sag_rtnl::Lifetimes;

/// Options, by their codes (RFC 8415 section 21).
const IA_NA: u16 = 3;
const IAADDR: u16 = 5;
const STATUS_CODE: u16 = 13;
const IA_PD: u16 = 25;
const IAPREFIX: u16 = 26;
/// Of a Reply that is longer no more is read: each prefix costs addresses and routes.
const MOST: usize = 16;
/// The message.
const REPLY: u8 = 7;

/// What a server has given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    pub addresses: Vec<(Ipv6Addr, Lifetimes)>,
    pub prefixes: Vec<(Ipv6Net, Lifetimes)>,
}

/// Reads a Reply; `None`: it is none.
pub fn parse(message: &[u8]) -> Option<Lease> {
    // Message type and a transaction's identifier of three bytes.
    if message.len() < 4 || message[0] != REPLY {
        return None;
    }
    let mut out = Lease::default();
    for (code, value) in options(message.get(4..)?) {
        // Both begin with IAID, T1 and T2.
        let inner = value.get(12..).filter(|_| [IA_NA, IA_PD].contains(&code)).unwrap_or_default();
        for (inner_code, value) in options(inner) {
            match (code, inner_code) {
                (IA_NA, IAADDR) => out.addresses.extend(address(value)),
                (IA_PD, IAPREFIX) => out.prefixes.extend(prefix(value)),
                _ => {}
            }
        }
    }
    out.addresses.truncate(MOST);
    out.prefixes.truncate(MOST);
    Some(out)
}

/// Options of a message or of an option; ends at the first one that does not fit.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let code = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
        let len = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
        let value = bytes.get(4..4 + len)?;
        bytes = bytes.get(4 + len..)?;
        Some((code, value))
    })
}

/// IPv6 address, preferred and valid lifetime, options.
fn address(value: &[u8]) -> Option<(Ipv6Addr, Lifetimes)> {
    let ip: [u8; 16] = value.get(..16)?.try_into().ok()?;
    let lifetimes = lifetimes(value.get(16..24)?)?;
    (!refused(value.get(24..)?)).then_some((ip.into(), lifetimes))
}

/// Preferred and valid lifetime, length, prefix, options.
fn prefix(value: &[u8]) -> Option<(Ipv6Net, Lifetimes)> {
    let lifetimes = lifetimes(value.get(..8)?)?;
    let ip: [u8; 16] = value.get(9..25)?.try_into().ok()?;
    let net = Ipv6Net::new(ip.into(), *value.get(8)?).ok()?;
    (!refused(value.get(25..)?)).then_some((net.trunc(), lifetimes))
}

/// RFC 8415 21.6, 21.22: preferred above valid makes the option void.
fn lifetimes(value: &[u8]) -> Option<Lifetimes> {
    let number = |at: usize| Some(u32::from_be_bytes(value.get(at..at + 4)?.try_into().ok()?));
    let times = Lifetimes { preferred: number(0)?, valid: number(4)? };
    (times.preferred <= times.valid).then_some(times)
}

fn refused(rest: &[u8]) -> bool {
    options(rest).any(|(code, value)| code == STATUS_CODE && value.get(..2).is_some_and(|s| s != [0, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What dhcpcd 9.4.1 has written: an address and a prefix by Kea 2.2.
    const WRITTEN: &str = concat!(
        "07c0a40d0001000e0001000132a07f78aa02b430c4d90002000e0001000132a07fcba24111f82512",
        "000300280000000100000005000000080005001820010db80100000000000000000010000000001e0000003c",
        "001900290000000200000005000000",
        "08001a00190000001e0000003c3820010db8800000000000000000000000",
    );

    fn written() -> Vec<u8> {
        hex::decode(WRITTEN).expect("hex")
    }

    #[test]
    fn what_dhcpcd_has_written_is_read() {
        let times = Lifetimes { preferred: 30, valid: 60 };
        let want = Lease {
            addresses: vec![("2001:db8:100::1000".parse().expect("ip"), times)],
            prefixes: vec![("2001:db8:8000::/56".parse().expect("net"), times)],
        };
        assert_eq!(parse(&written()), Some(want));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(&[2, 0, 0, 0]), None, "an Advertise");
        assert_eq!(parse(&[7, 0, 0, 0]), Some(Lease::default()));
    }

    #[test]
    fn what_is_void_or_refused_is_left_out() {
        let iaprefix = |times: &str, status: &str| {
            let value = format!("{times}3820010db8{:024x}{status}", 0x8000_u128 << 80);
            let ia = format!("000000020000000000000000001a{:04x}{value}", value.len() / 2);
            let message = format!("070000000019{:04x}{ia}", ia.len() / 2);
            parse(&hex::decode(message).expect("hex")).expect("a reply").prefixes
        };
        assert_eq!(iaprefix("0000001e0000003c", "").len(), 1);
        assert_eq!(iaprefix("0000003d0000003c", "").len(), 0, "preferred above valid");
        // NoPrefixAvail (6), Success (0).
        assert_eq!(iaprefix("0000001e0000003c", "000d00020006").len(), 0);
        assert_eq!(iaprefix("0000001e0000003c", "000d00020000").len(), 1);
    }

    #[test]
    fn a_reply_gives_so_much_and_no_more() {
        let value = format!("0000001e0000003c3820010db8{:024x}", 0x8000_u128 << 80);
        let options: String = (0..100).map(|_| format!("001a{:04x}{value}", value.len() / 2)).collect();
        let message = format!("070000000019{:04x}000000020000000000000000{options}", 12 + options.len() / 2);
        assert_eq!(parse(&hex::decode(message).expect("hex")).expect("a reply").prefixes.len(), MOST);
    }

    proptest! {
        /// A file that is cut or damaged is read as far as it goes.
        #[test]
        fn nothing_harms(bytes in prop::collection::vec(any::<u8>(), 0..80), at in 0..200usize, value: u8) {
            parse(&bytes);
            let mut damaged = written();
            let len = damaged.len();
            damaged[at % len] = value;
            parse(&damaged);
            parse(&damaged[..at % len]);
        }
    }
}
