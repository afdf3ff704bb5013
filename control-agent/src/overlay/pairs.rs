//! Which lines to the Internet of two devices have a tunnel between them. Both ends come to the same, each by itself,
//! from what both have announced.

use sag_southbound::Line;

use super::MAX_NAME;

/// Tunnels between two devices at most.
const MOST: usize = 4;

/// Lines of both ends, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub own: usize,
    pub theirs: usize,
}

impl Pair {
    /// The first line of each: what there would be of devices with one line.
    pub fn is_first(self) -> bool {
        (self.own, self.theirs) == (0, 0)
    }
}

/// First every line once, then what else there is room for. `before`: this end comes first where the two differ.
pub(super) fn pairs(own: usize, theirs: usize, before: bool) -> Vec<Pair> {
    let mut out = Vec::new();
    if own == 0 || theirs == 0 {
        return out;
    }
    let mut add = |pair: Pair| {
        if out.len() < MOST && !out.contains(&pair) {
            out.push(pair);
        }
    };
    for n in 0..own.max(theirs) {
        add(Pair { own: n % own, theirs: n % theirs });
    }
    let (outer, inner) = if before { (own, theirs) } else { (theirs, own) };
    for a in 0..outer {
        for b in 0..inner {
            add(if before { Pair { own: a, theirs: b } } else { Pair { own: b, theirs: a } });
        }
    }
    out
}

/// What both ends call the tunnel between two lines, so that each has keys of its own.
pub(super) fn link(own: &Line, theirs: &Line, before: bool) -> String {
    let (a, b) = if before { (own, theirs) } else { (theirs, own) };
    format!("{}|{}", a.name, b.name)
}

/// The tunnel's name: `ccn-` and the serial number, which is cut to what the gateway accepts; of more than one tunnel
/// to a device with the names of both lines.
pub(super) fn tunnel_name(sn: &str, lines: Option<(&Line, &Line)>) -> String {
    let name = match lines {
        Some((own, theirs)) => format!("ccn-{sn}:{}:{}", own.name, theirs.name),
        None => format!("ccn-{sn}"),
    };
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash = crate::sign::hash_hex(&name.as_bytes()["ccn-".len()..]);
    format!("{}-{}", &name[..MAX_NAME - 17], &hash[..16])
}

/// The sum of both ends' priorities: the same at both ends, so that both prefer the same tunnel.
pub(super) fn priority(own: &Line, theirs: &Line) -> i64 {
    i64::from(own.priority) + i64::from(theirs.priority)
}

/// Share of what is routed by tunnels of one priority.
pub(super) fn weight(own: &Line, theirs: &Line) -> i64 {
    (i64::from(own.weight) * i64::from(theirs.weight) + 99) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_to_the_same_and_use_every_line() {
        for a in 1..=4 {
            for b in 1..=4 {
                let here = pairs(a, b, true);
                let there: Vec<Pair> =
                    pairs(b, a, false).iter().map(|p| Pair { own: p.theirs, theirs: p.own }).collect();
                assert_eq!(here, there, "{a} and {b}");
                assert!(here[0].is_first() && here.len() == (a * b).min(MOST), "{here:?}");
                assert!((0..a).all(|n| here.iter().any(|p| p.own == n)), "{here:?}");
                assert!((0..b).all(|n| here.iter().any(|p| p.theirs == n)), "{here:?}");
            }
        }
        assert!(pairs(0, 3, true).is_empty() && pairs(3, 0, false).is_empty());
    }

    #[test]
    fn names_weights_and_priorities_are_the_same_at_both_ends() {
        let line = |name: &str, priority, weight| Line {
            name: name.into(),
            address: "203.0.113.1".parse().expect("an address"),
            priority,
            weight,
        };
        let (a, b) = (line("0", 10, 75), line("3", 1005, 50));
        assert_eq!(link(&a, &b, true), "0|3");
        assert_eq!(link(&b, &a, false), "0|3");
        assert_eq!((priority(&a, &b), weight(&a, &b)), (priority(&b, &a), weight(&b, &a)));
        assert_eq!((priority(&a, &b), weight(&a, &b)), (1015, 38));
        assert_eq!(weight(&line("0", 1, 1), &line("0", 1, 1)), 1);
    }
}
