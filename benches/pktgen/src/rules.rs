//! Rule sets in the style of ClassBench's families, the same for the same seed, that let the traffic
//! of a measurement pass: a rule that may match it accepts, the others drop.

use anyhow::{Result, bail};
use clap::ValueEnum;
use sag_acl::generate::{self, FromV4, Style};
use sag_acl::{Addr, Prefix, Rule};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// Access lists: specific addresses, exact ports
    Acl,
    /// Firewalls: one address often open, port ranges, much overlap
    Fw,
    /// IP chains: between the two
    Ipc,
}

impl From<Family> for Style {
    fn from(f: Family) -> Style {
        match f {
            Family::Acl => Style::Acl,
            Family::Fw => Style::Fw,
            Family::Ipc => Style::Ipc,
        }
    }
}

/// UDP from sources in `src` to destinations in `dst`.
#[derive(Debug, Clone, Copy)]
pub struct Spared {
    pub src: (IpAddr, IpAddr),
    pub dst: (IpAddr, IpAddr),
    pub dport: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub drop: bool,
    /// Of the IP header; none: every one.
    pub proto: Option<u8>,
    pub src: String,
    pub dst: String,
    pub sport: (u16, u16),
    pub dport: (u16, u16),
}

pub fn generate(family: Family, count: usize, seed: u64, spared: &Spared) -> Result<Vec<Line>> {
    match (spared.src, spared.dst) {
        ((IpAddr::V4(a), IpAddr::V4(b)), (IpAddr::V4(c), IpAddr::V4(d))) => {
            let n = |a: Ipv4Addr| u32::from(a);
            Ok(lines::<u32>(family, count, seed, [n(a), n(b), n(c), n(d)], spared.dport, |p| {
                format!("{}/{}", Ipv4Addr::from(p.addr()), p.prefix_len())
            }))
        }
        ((IpAddr::V6(a), IpAddr::V6(b)), (IpAddr::V6(c), IpAddr::V6(d))) => {
            let n = |a: Ipv6Addr| u128::from(a);
            Ok(lines::<u128>(family, count, seed, [n(a), n(b), n(c), n(d)], spared.dport, |p| {
                format!("{}/{}", Ipv6Addr::from(p.addr()), p.prefix_len())
            }))
        }
        _ => bail!("traffic of two IP versions"),
    }
}

fn lines<A: Addr + FromV4 + Ord>(
    family: Family,
    count: usize,
    seed: u64,
    [s0, s1, d0, d1]: [A; 4],
    dport: u16,
    show: impl Fn(&Prefix<A>) -> String,
) -> Vec<Line> {
    let meets = |p: &Prefix<A>, first: A, last: A| p.first() <= last && first <= p.last();
    let matches = |r: &Rule<A>| {
        r.proto.is_none_or(|p| p == 17)
            && r.dport.contains(dport)
            && meets(&r.src, s0, s1)
            && meets(&r.dst, d0, d1)
    };
    let rules: Vec<Rule<A>> = generate::rules(family.into(), count, seed);
    rules
        .iter()
        .map(|r| Line {
            drop: !matches(r),
            proto: r.proto,
            src: show(&r.src),
            dst: show(&r.dst),
            sport: (r.sport.lo(), r.sport.hi()),
            dport: (r.dport.lo(), r.dport.hi()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spared() -> Spared {
        let a = |s: &str| s.parse().unwrap();
        Spared {
            src: (a("10.0.1.0"), a("10.0.1.255")),
            dst: (a("198.51.100.1"), a("198.51.100.64")),
            dport: 53,
        }
    }

    #[test]
    fn what_may_match_accepts() {
        for family in [Family::Acl, Family::Fw, Family::Ipc] {
            let lines = generate(family, 1000, 1, &spared()).unwrap();
            assert_eq!(lines.len(), 1000);
            assert!(lines.iter().filter(|l| l.drop).count() > 500, "{family:?}");
            for l in lines.iter().filter(|l| l.src.ends_with("/0") && l.dst.ends_with("/0")) {
                let udp = l.proto.is_none_or(|p| p == 17) && (l.dport.0..=l.dport.1).contains(&53);
                assert_eq!(l.drop, !udp, "{l:?}");
            }
            assert_eq!(lines, generate(family, 1000, 1, &spared()).unwrap());
            assert_ne!(lines, generate(family, 1000, 2, &spared()).unwrap());
        }
    }

    #[test]
    fn two_versions_are_refused() {
        let s = Spared { dst: ("::1".parse().unwrap(), "::1".parse().unwrap()), ..spared() };
        assert!(generate(Family::Acl, 10, 1, &s).is_err());
    }
}
