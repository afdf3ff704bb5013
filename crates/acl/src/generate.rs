//! Rule sets and traces for tests and measurements, the same for the same seed on every machine.
//!
//! The styles follow the published statistics of ClassBench's seed families: access lists (`Acl`:
//! specific addresses, exact destination ports), firewalls (`Fw`: one address often open, many port
//! ranges, much overlap) and IP chains (`Ipc`: between the two). Addresses come from a skewed tree
//! of networks, so that prefixes nest and cluster. More specific rules tend to come first, as they do
//! in sets that people write; a rule that restricts ports names TCP or UDP.

mod hostile;
mod profile;
mod rng;

use std::collections::HashSet;

use crate::addr::Addr;
use crate::rule::{HeaderMatch, Key, PortRange, Prefix, Rule, proto_has_ports};

pub use hostile::Hostile;
pub use profile::Style;
use profile::{Profile, Reach};
pub use rng::Rng;

/// The address family as the generator sees it: networks are made as IPv4 prefixes and translated.
pub trait FromV4: Addr {
    /// The network of the family that stands for the IPv4 prefix `addr`/`len`.
    fn translate(addr: u32, len: u8) -> Prefix<Self>;
}

impl FromV4 for u32 {
    fn translate(addr: u32, len: u8) -> Prefix<u32> {
        Prefix::new(addr, len).unwrap_or(Prefix::ANY)
    }
}

impl FromV4 for u128 {
    /// The first 24 bits become bits 40 to 64 of a site, the last 8 the end of the interface
    /// identifier.
    fn translate(addr: u32, len: u8) -> Prefix<u128> {
        let site = 0x2001_0db8_u128 << 96 | u128::from(addr >> 8) << 64;
        let host = u128::from(addr & 0xff);
        let len = match len {
            0 => 0,
            1..=24 => len + 40,
            _ => len + 96,
        };
        Prefix::new(site | host, len).unwrap_or(Prefix::ANY)
    }
}

/// A skewed tree of networks to draw prefixes from.
struct Networks {
    wide: Vec<u32>,
    nets: Vec<u32>,
    hosts: Vec<u32>,
}

impl Networks {
    fn new(rng: &mut Rng, rules: usize) -> Networks {
        let root = (rules as f64).sqrt();
        let draw = |rng: &mut Rng, n: f64, from: &[u32], inherited: u8| -> Vec<u32> {
            (0..n.ceil() as usize)
                .map(|_| {
                    let mask = u32::prefix_mask(inherited);
                    let base = if from.is_empty() { 0 } else { from[rng.skewed(from.len())] };
                    (base & mask) | (rng.next() as u32 & !mask)
                })
                .collect()
        };
        let wide = draw(rng, root / 4.0 + 4.0, &[], 0);
        let nets = draw(rng, root * 2.0 + 8.0, &wide, 12);
        let hosts = draw(rng, rules as f64 / 2.0 + 16.0, &nets, 24);
        Networks { wide, nets, hosts }
    }

    fn prefix(&self, rng: &mut Rng, reach: Reach) -> (u32, u8) {
        let pick = |rng: &mut Rng, from: &[u32]| from[rng.below(from.len())];
        match reach {
            Reach::Any => (0, 0),
            Reach::Wide => (pick(rng, &self.wide), 8 + rng.below(9) as u8),
            Reach::Net => (pick(rng, &self.nets), 17 + rng.below(8) as u8),
            Reach::Part => (pick(rng, &self.hosts), 25 + rng.below(7) as u8),
            Reach::Host => (pick(rng, &self.hosts), 32),
        }
    }
}

/// `count` different rules in match order.
pub fn rules<A: FromV4>(style: Style, count: usize, seed: u64) -> Vec<Rule<A>> {
    let mut rng = Rng::new(seed ^ (style as u64) << 32);
    let profile = Profile::of(style);
    let sources = Networks::new(&mut rng, count);
    let dests = Networks::new(&mut rng, count);
    let mut seen = HashSet::new();
    let mut out: Vec<(i32, Rule<A>)> = Vec::with_capacity(count);
    while out.len() < count {
        let (src_reach, dst_reach) = *rng.weighted(profile.reach);
        let (src, src_len) = sources.prefix(&mut rng, src_reach);
        let (dst, dst_len) = dests.prefix(&mut rng, dst_reach);
        let (sport, dport) = *rng.weighted(profile.ports);
        let (sport, dport) = (sport.range(&mut rng), dport.range(&mut rng));
        let restricted = !(sport.is_any() && dport.is_any());
        let proto = loop {
            let proto = *rng.weighted(profile.protos);
            if !restricted || proto.is_some_and(proto_has_ports) {
                break proto;
            }
        };
        let rule = Rule {
            proto,
            src: A::translate(src, src_len),
            dst: A::translate(dst, dst_len),
            sport,
            dport,
            ..Rule::ANY
        };
        if seen.insert(rule) {
            let ports = |r: PortRange| (16 - (r.hi() - r.lo()).checked_ilog2().map_or(0, |l| l + 1)) as i32;
            let fixed = i32::from(src_len) + i32::from(dst_len) + ports(sport) / 2 + ports(dport) / 2;
            let jitter = if rng.below(10) == 0 { rng.below(40) } else { rng.below(12) };
            out.push((fixed + jitter as i32, rule));
        }
    }
    out.sort_by_key(|(fixed, _)| -fixed);
    out.into_iter().map(|(_, rule)| rule).collect()
}

/// `count` keys in random order, nine of ten drawn from inside a rule.
pub fn trace<A: Addr>(rules: &[Rule<A>], count: usize, seed: u64) -> Vec<Key<A>> {
    let mut rng = Rng::new(seed ^ 0x7472_6163);
    (0..count)
        .map(|_| {
            if rules.is_empty() || rng.below(10) == 0 {
                stray(rules, &mut rng)
            } else {
                let rule = &rules[rng.below(rules.len())];
                inside(rule, &mut rng, Point::Random)
            }
        })
        .collect()
}

/// Keys at the corners of rules and one step outside, where off-by-one errors live.
pub fn corners<A: Addr>(rules: &[Rule<A>], count: usize, seed: u64) -> Vec<Key<A>> {
    let mut rng = Rng::new(seed ^ 0x636f_726e);
    if rules.is_empty() {
        return (0..count).map(|_| stray(rules, &mut rng)).collect();
    }
    (0..count)
        .map(|_| {
            let rule = &rules[rng.below(rules.len())];
            inside(rule, &mut rng, Point::Corner)
        })
        .collect()
}

/// `count` keys from inside the rules `ids`, in turn.
pub(crate) fn inside_each<A: Addr>(rules: &[Rule<A>], ids: &[u32], count: usize) -> Vec<Key<A>> {
    let mut rng = Rng::new(count as u64);
    let every = (ids.len() / count.max(1)).max(1);
    ids.iter()
        .step_by(every)
        .take(count)
        .map(|&id| inside(&rules[id as usize], &mut rng, Point::Random))
        .collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Point {
    Random,
    Corner,
}

fn inside<A: Addr>(rule: &Rule<A>, rng: &mut Rng, point: Point) -> Key<A> {
    let mut address = |p: Prefix<A>| match point {
        Point::Random => p.first() | (A::from_u128(rng.wide()) & p.last() & !p.first()),
        Point::Corner => A::from_u128(edge(rng, p.first().to_u128(), p.last().to_u128())),
    };
    let (src, dst) = (address(rule.src), address(rule.dst));
    let mut port = |r: PortRange| match point {
        Point::Random => r.lo() + rng.below(usize::from(r.hi() - r.lo()) + 1) as u16,
        Point::Corner => edge(rng, r.lo().into(), r.hi().into()) as u16,
    };
    let (sport, dport) = (port(rule.sport), port(rule.dport));
    let proto = rule.proto.unwrap_or_else(|| *rng.weighted(&[(6, 6), (3, 17), (1, 1), (1, 47), (1, 132)]));
    if point == Point::Corner && rng.below(16) == 0 {
        return Key::without_ports(proto, src, dst);
    }
    with_header(Key::new(proto, src, dst, sport, dport), &rule.header, rng)
}

/// The key with a header that the rule asks for; where it asks for nothing, with any.
fn with_header<A: Addr>(key: Key<A>, header: &HeaderMatch, rng: &mut Rng) -> Key<A> {
    let any = rng.next().to_le_bytes();
    let flags = header.tcp_flags.map_or(any[0], |t| any[0] & !t.mask | t.set);
    // Few messages are in use: any of those hits rules.
    let (kind, code) = header.icmp.map_or((any[1] % 16, any[2] % 4), |m| (m.kind, m.code.unwrap_or(any[2])));
    let key = key.with_dscp(header.dscp.unwrap_or(any[3])).with_tcp_flags(flags);
    if any[4] < 16 { key } else { key.with_icmp(kind, code) }
}

/// The first or the last value of a range, sometimes its neighbour outside.
fn edge(rng: &mut Rng, lo: u128, hi: u128) -> u128 {
    match rng.below(8) {
        0 => lo.wrapping_sub(1),
        1 => hi.wrapping_add(1),
        n if n % 2 == 0 => lo,
        _ => hi,
    }
}

/// A key that belongs to no rule in particular; half of them have the addresses of two rules.
fn stray<A: Addr>(rules: &[Rule<A>], rng: &mut Rng) -> Key<A> {
    let proto = *rng.weighted(&[(6, 6), (3, 17), (1, 1)]);
    let (sport, dport) = (rng.next() as u16, rng.next() as u16);
    if rules.is_empty() || rng.below(2) == 0 {
        return Key::new(proto, A::from_u128(rng.wide()), A::from_u128(rng.wide()), sport, dport);
    }
    let src = inside(&rules[rng.below(rules.len())], rng, Point::Random).src;
    let dst = inside(&rules[rng.below(rules.len())], rng, Point::Random).dst;
    Key::new(proto, src, dst, sport, dport)
}
