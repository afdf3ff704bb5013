//! Sets of networks.

use std::net::IpAddr;

/// Networks as ranges that do not touch, found by halving: a lookup costs the logarithm of their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Of addresses with their prefix lengths.
    pub fn new(list: impl IntoIterator<Item = (IpAddr, u8)>) -> Networks {
        let mut out = Networks::default();
        for (addr, len) in list {
            match addr {
                IpAddr::V4(a) => {
                    let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
                    out.v4.push((a.to_bits() & !host, a.to_bits() | host));
                }
                IpAddr::V6(a) => {
                    let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
                    out.v6.push((a.to_bits() & !host, a.to_bits() | host));
                }
            }
        }
        merge(&mut out.v4);
        merge(&mut out.v6);
        out
    }

    /// Whether one of them has this address.
    pub fn contains(&self, a: IpAddr) -> bool {
        match a {
            IpAddr::V4(a) => within(&self.v4, a.to_bits()),
            IpAddr::V6(a) => within(&self.v6, a.to_bits()),
        }
    }
}

/// Networks contain one another or are apart: what begins within the last range ends there.
fn merge<A: Ord + Copy>(ranges: &mut Vec<(A, A)>) {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    ranges.dedup_by(|next, last| next.0 <= last.1);
}

fn within<A: Ord + Copy>(ranges: &[(A, A)], a: A) -> bool {
    let behind = ranges.partition_point(|r| r.0 <= a);
    behind.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|r| a <= r.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_at_their_edges() {
        let list = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.168.1.0/24",
            "0.0.0.0/32",
            "255.255.255.255/32",
            "2001:db8::/32",
        ];
        let parse = |s: &str| {
            let (a, l) = s.split_once('/').unwrap();
            (a.parse().unwrap(), l.parse().unwrap())
        };
        let n = Networks::new(list.map(parse));
        assert_eq!((n.v4.len(), n.v6.len()), (4, 1));
        let has = |a: &str| n.contains(a.parse().unwrap());
        for a in ["10.0.0.0", "10.255.255.255", "10.1.2.3", "192.168.1.0", "192.168.1.255", "0.0.0.0"] {
            assert!(has(a), "{a}");
        }
        assert!(has("255.255.255.255") && has("2001:db8::") && has("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"));
        for a in ["9.255.255.255", "11.0.0.0", "192.168.0.255", "192.168.2.0", "0.0.0.1", "2001:db9::", "::"]
        {
            assert!(!has(a), "{a}");
        }
        assert!(Networks::new([parse("::/0")]).contains("::1".parse().unwrap()));
        assert!(!Networks::default().contains("10.0.0.1".parse().unwrap()));
    }
}
