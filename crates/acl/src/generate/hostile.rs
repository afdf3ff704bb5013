//! Rule sets that are hard on purpose: they make cutting classifiers copy rules without end.

use super::FromV4;
use super::rng::Rng;
use crate::rule::{PortRange, Prefix, Rule};

/// Kinds of hard sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostile {
    /// Open addresses, port ranges nested in both words like onion skins, widest last.
    Onion,
    /// Open addresses, random overlapping port ranges.
    Ranges,
    /// Every combination of a prefix or nothing in each field: each rule is open in some.
    Wildcards,
    /// One address fixed and the other open, half of the rules each way: a full grid of overlaps.
    Cross,
    /// The same rule over and over.
    Same,
}

impl Hostile {
    /// All kinds.
    pub const ALL: [Hostile; 5] =
        [Hostile::Onion, Hostile::Ranges, Hostile::Wildcards, Hostile::Cross, Hostile::Same];

    /// `count` rules in match order; the same for the same seed.
    pub fn rules<A: FromV4>(self, count: usize, seed: u64) -> Vec<Rule<A>> {
        let mut rng = Rng::new(seed);
        (0..count).map(|i| self.rule(i, count, &mut rng)).collect()
    }

    fn rule<A: FromV4>(self, i: usize, count: usize, rng: &mut Rng) -> Rule<A> {
        let tcp = Rule { proto: Some(6), ..Rule::ANY };
        let range =
            |a: usize, b: usize| PortRange::new(a.min(b) as u16, a.max(b) as u16).unwrap_or(PortRange::ANY);
        match self {
            Hostile::Onion => {
                // Outer skins in one word are inner ones in the other, so that none hides another.
                let (skin, other) = (1 + i * 30_000 / count, 1 + (count - 1 - i) * 30_000 / count);
                Rule {
                    sport: range(32_768 - skin, 32_767 + skin),
                    dport: range(32_768 - other, 32_767 + other),
                    ..tcp
                }
            }
            Hostile::Ranges => Rule {
                sport: range(rng.below(65_536), rng.below(65_536)),
                dport: range(rng.below(65_536), rng.below(65_536)),
                ..tcp
            },
            Hostile::Wildcards => {
                let mut address = || match rng.below(3) {
                    0 => A::translate(rng.next() as u32, rng.below(33) as u8),
                    _ => Prefix::ANY,
                };
                let (src, dst) = (address(), address());
                let mut port = || match rng.below(3) {
                    0 => range(rng.below(65_536), rng.below(65_536)),
                    _ => PortRange::ANY,
                };
                Rule { src, dst, sport: port(), dport: port(), ..tcp }
            }
            Hostile::Cross => {
                let host = A::translate(rng.next() as u32, 16 + rng.below(17) as u8);
                if i.is_multiple_of(2) {
                    Rule { src: host, ..Rule::ANY }
                } else {
                    Rule { dst: host, ..Rule::ANY }
                }
            }
            Hostile::Same => Rule { dport: range(1000, 2000), ..tcp },
        }
    }
}
