//! Sets of packets as lists of boxes.
//!
//! The fifth side of a box is the class of packets: the protocol of packets without ports, and above
//! those the four protocols with ports. The sixth is the DSCP; the others are the TCP flags, one side a flag. Of ICMP,
//! type and code stand in place of the ports. A rule is one box or, if it names a protocol with ports but
//! restricts none, two: packets whose ports are not to be seen are apart.

use crate::addr::Addr;
use crate::rule::{Key, Prefix, Rule};

const DSCP: usize = 5;
const FLAGS: usize = 6;
const SIDES: usize = FLAGS + 8;

/// Class of packets with ports, by its place after the 256 classes without.
const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];
const FIRST_WITH_PORTS: u128 = 256;
const LAST_CLASS: u128 = FIRST_WITH_PORTS + WITH_PORTS.len() as u128 - 1;

/// Source, destination, source port, destination port, class, DSCP, TCP flags; from and to, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area<A> {
    sides: [(u128, u128); SIDES],
    family: std::marker::PhantomData<A>,
}

impl<A: Addr> Area<A> {
    fn new(rule: &Rule<A>, classes: (u128, u128)) -> Self {
        let mut sides = [(0, 1); SIDES];
        sides[0] = (rule.src.first().to_u128(), rule.src.last().to_u128());
        sides[1] = (rule.dst.first().to_u128(), rule.dst.last().to_u128());
        for (side, ports) in sides[2..].iter_mut().zip(rule.port_words()) {
            *side = (ports.lo().into(), ports.hi().into());
        }
        sides[4] = classes;
        sides[DSCP] = rule.header.dscp.map_or((0, 63), |d| (d.into(), d.into()));
        if let Some(flags) = rule.header.tcp_flags {
            for (bit, side) in sides[FLAGS..].iter_mut().enumerate() {
                let set = u128::from(flags.set >> bit & 1);
                if flags.mask >> bit & 1 != 0 {
                    *side = (set, set);
                }
            }
        }
        Area { sides, family: std::marker::PhantomData }
    }

    fn overlap(&self, other: &Self) -> Option<Self> {
        let mut both = *self;
        for (side, theirs) in both.sides.iter_mut().zip(&other.sides) {
            *side = (side.0.max(theirs.0), side.1.min(theirs.1));
            if side.0 > side.1 {
                return None;
            }
        }
        Some(both)
    }

    fn covers(&self, other: &Self) -> bool {
        self.sides.iter().zip(&other.sides).all(|(a, b)| a.0 <= b.0 && b.1 <= a.1)
    }

    /// Adds to `out` what of this box is not in `hole`: slices cut off side by side.
    fn without(&self, hole: &Self, out: &mut Vec<Self>) {
        let Some(hole) = self.overlap(hole) else {
            out.push(*self);
            return;
        };
        let mut left = *self;
        for s in 0..SIDES {
            let ((lo, hi), (hole_lo, hole_hi)) = (left.sides[s], hole.sides[s]);
            if lo < hole_lo {
                let mut slice = left;
                slice.sides[s] = (lo, hole_lo - 1);
                out.push(slice);
            }
            if hole_hi < hi {
                let mut slice = left;
                slice.sides[s] = (hole_hi + 1, hi);
                out.push(slice);
            }
            left.sides[s] = hole.sides[s];
        }
    }

    /// A packet of the box, with ports if there is one.
    pub fn key(&self) -> Key<A> {
        let [src, dst, sport, dport, classes, dscp, flags @ ..] = self.sides;
        let (src, dst) = (A::from_u128(src.0), A::from_u128(dst.0));
        let flags = flags.iter().rev().fold(0, |bits, side| bits << 1 | side.0 as u8);
        let key = match classes.1.checked_sub(FIRST_WITH_PORTS) {
            Some(last) => {
                let first = classes.0.saturating_sub(FIRST_WITH_PORTS);
                let proto = WITH_PORTS[first.min(last) as usize % WITH_PORTS.len()];
                Key::new(proto, src, dst, sport.0 as u16, dport.0 as u16)
            }
            None => Key::without_ports(classes.0 as u8, src, dst),
        };
        let key = key.with_dscp(dscp.0 as u8).with_tcp_flags(flags);
        match (u8::try_from(sport.0), u8::try_from(dport.0)) {
            (Ok(kind), Ok(code)) => key.with_icmp(kind, code),
            _ => key,
        }
    }
}

/// The boxes of a rule.
fn areas<A: Addr>(rule: &Rule<A>) -> impl Iterator<Item = Area<A>> + use<A> {
    let with_ports = |proto: u8| {
        let at = WITH_PORTS.iter().position(|&p| p == proto)?;
        Some((FIRST_WITH_PORTS + at as u128, FIRST_WITH_PORTS + at as u128))
    };
    let classes = match (rule.proto, rule.needs_ports()) {
        _ if rule.is_unmatchable() => [None, None],
        (None, true) => [Some((FIRST_WITH_PORTS, LAST_CLASS)), None],
        (None, false) => [Some((0, LAST_CLASS)), None],
        (Some(p), true) => [with_ports(p), None],
        (Some(p), false) => [with_ports(p), Some((p.into(), p.into()))],
    };
    let rule = *rule;
    classes.into_iter().flatten().map(move |classes| Area::new(&rule, classes))
}

/// Packets that both rules match: one box of them.
pub fn overlap<A: Addr>(a: &Rule<A>, b: &Rule<A>) -> Option<Area<A>> {
    areas(a).find_map(|x| areas(b).find_map(|y| x.overlap(&y)))
}

/// Whether any packet matches both rules.
pub fn meet<A: Addr>(a: &Rule<A>, b: &Rule<A>) -> bool {
    // Most candidates differ in an address; that is quickly seen.
    let related = |a: &Prefix<A>, b: &Prefix<A>| a.covers(b) || b.covers(a);
    related(&a.src, &b.src) && related(&a.dst, &b.dst) && overlap(a, b).is_some()
}

/// Whether `a` matches all that `b` matches.
pub fn covers<A: Addr>(a: &Rule<A>, b: &Rule<A>) -> bool {
    areas(b).all(|y| areas(a).any(|x| x.covers(&y)))
}

/// Disjoint boxes.
#[derive(Debug, Clone)]
pub struct Region<A>(Vec<Area<A>>);

impl<A: Addr> Region<A> {
    pub fn of(rule: &Rule<A>) -> Self {
        Region(areas(rule).collect())
    }

    pub fn first(&self) -> Option<&Area<A>> {
        self.0.first()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn meets(&self, rule: &Rule<A>) -> bool {
        areas(rule).any(|hole| self.0.iter().any(|area| area.overlap(&hole).is_some()))
    }

    pub fn without(self, rule: &Rule<A>) -> Self {
        areas(rule).fold(self, |region, hole| {
            if !region.0.iter().any(|area| area.overlap(&hole).is_some()) {
                return region;
            }
            let mut left = Vec::with_capacity(region.0.len() + 2);
            region.0.iter().for_each(|area| area.without(&hole, &mut left));
            Region(left)
        })
    }
}
