//! Addresses and CIDR blocks.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::api::validate::parse_cidr;

/// Blocks separated by commas, host bits cleared; `None` if one of them is not a block.
pub fn cidr_list(text: &str) -> Option<Vec<Ipv4Net>> {
    text.split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| parse_cidr(s).map(|n| n.trunc()))
        .collect()
}

pub fn is_private(block: &Ipv4Net) -> bool {
    let private = [("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16)];
    private.iter().any(|(net, len)| {
        let net: Option<Ipv4Addr> = net.parse().ok();
        net.and_then(|n| Ipv4Net::new(n, *len).ok()).is_some_and(|n| n.contains(block))
    })
}

fn meets(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

pub fn overlap(a: &[Ipv4Net], b: &[Ipv4Net]) -> bool {
    a.iter().any(|x| b.iter().any(|y| meets(x, y)))
}

pub fn self_overlap(blocks: &[Ipv4Net]) -> bool {
    blocks.iter().enumerate().any(|(i, a)| blocks[i + 1..].iter().any(|b| meets(a, b)))
}

pub fn ip(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}

/// Whether the text is the name of a host or a domain.
pub fn is_domain(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether the text is a URL of HTTP with a host.
pub fn is_http_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = rest.map(|r| r.split(['/', '?', '#']).next().unwrap_or_default());
    host.is_some_and(|h| !h.is_empty()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The block of an address and a dotted netmask.
pub fn with_mask(addr: &str, mask: &str) -> Option<Ipv4Net> {
    Ipv4Net::with_netmask(ip(addr)?, ip(mask)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_urls() {
        for good in ["example.com", "a", "_sip.example.com", "xn--fiq228c.example", "1.2"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a.b", "a b", "a/b", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(!is_domain(bad), "{bad}");
        }
        assert!(is_http_url("https://example.com:8443/x?y=1") && is_http_url("http://[2001:db8::1]/"));
        for bad in ["ftp://example.com", "http://", "https:///x", "http://a b/", "example.com"] {
            assert!(!is_http_url(bad), "{bad}");
        }
    }

    #[test]
    fn blocks() {
        let a = cidr_list("192.168.0.1/24, 10.0.0.0/8").expect("blocks");
        assert!(a.iter().all(is_private));
        assert!(!self_overlap(&a));
        assert!(overlap(&a, &cidr_list("10.1.0.0/16").expect("block")));
        assert!(cidr_list("10.0.0.0/33").is_none() && cidr_list("10.0.0.0").is_none());
        assert!(!is_private(&"172.15.0.0/16".parse().expect("block")));
        assert!(with_mask("192.168.1.1", "255.0.255.0").is_none());
    }
}
