//! The choice between several tunnels to one destination: by priority, then by weight, with hold-down
//! against flapping.

/// Nanoseconds that a tunnel which has come back is held down before it takes over from one of lower priority.
pub const HOLD_DOWN: u64 = 5_000_000_000;
/// Each failure within this many nanoseconds of the last doubles the hold-down …
pub const FLAP_WINDOW: u64 = 60_000_000_000;
/// … up to this many nanoseconds.
pub const MAX_HOLD_DOWN: u64 = 300_000_000_000;

/// A tunnel of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The lowest wins.
    pub priority: u16,
    /// Share among members of one priority.
    pub weight: u16,
}

#[derive(Debug, Clone, Copy)]
struct Tracked {
    member: Member,
    usable: bool,
    /// It may take over from this time on.
    ready_at: u64,
    failed_at: Option<u64>,
    hold: u64,
}

/// The state of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It may be used.
    Ready,
    /// It has come back and is held down: used only if no member is ready.
    HoldDown,
    /// It is not usable.
    Down,
}

/// The tunnels of one destination.
#[derive(Debug, Clone, Default)]
pub struct Group {
    members: Vec<Tracked>,
}

impl Group {
    /// A group of these members, all of them usable at first.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Group {
        let tracked =
            |member| Tracked { member, usable: true, ready_at: 0, failed_at: None, hold: HOLD_DOWN };
        Group { members: members.into_iter().map(tracked).collect() }
    }

    /// A member has gone down or come back.
    pub fn set(&mut self, member: usize, usable: bool, now: u64) {
        let Some(m) = self.members.get_mut(member) else { return };
        if m.usable == usable {
            return;
        }
        m.usable = usable;
        if usable {
            m.ready_at = now.saturating_add(m.hold);
        } else {
            let flaps = m.failed_at.is_some_and(|t| now.saturating_sub(t) < FLAP_WINDOW.max(2 * m.hold));
            m.hold = if flaps { (2 * m.hold).min(MAX_HOLD_DOWN) } else { HOLD_DOWN };
            m.failed_at = Some(now);
        }
    }

    /// A member's state by itself; [`MemberState::Down`] for one that does not exist.
    pub fn state(&self, member: usize, now: u64) -> MemberState {
        match self.members.get(member) {
            Some(m) if m.usable && m.ready_at <= now => MemberState::Ready,
            Some(m) if m.usable => MemberState::HoldDown,
            _ => MemberState::Down,
        }
    }

    /// The members in use, with their weights. If none is usable, none.
    pub fn active(&self, now: u64) -> impl Iterator<Item = (usize, u16)> {
        let best = |ready: bool| {
            let fit = self.members.iter().filter(move |m| m.usable && (!ready || m.ready_at <= now));
            fit.map(|m| m.member.priority).min()
        };
        // A member that is held down is better than none.
        let best_ready = best(true);
        let priority = best_ready.or_else(|| best(false));
        self.members.iter().enumerate().filter_map(move |(i, m)| {
            let ready = best_ready.is_none() || m.ready_at <= now;
            (m.usable && ready && Some(m.member.priority) == priority).then_some((i, m.member.weight.max(1)))
        })
    }

    /// The member for a flow; the same one for as long as the members in use are the same.
    pub fn select(&self, hash: u64, now: u64) -> Option<usize> {
        let total: u64 = self.active(now).map(|(_, w)| u64::from(w)).sum();
        let mut at = ((u128::from(hash) * u128::from(total)) >> 64) as u64;
        self.active(now).find_map(|(i, w)| match at.checked_sub(u64::from(w)) {
            Some(rest) => {
                at = rest;
                None
            }
            None => Some(i),
        })
    }

    /// The time at which [`Group::active`] changes by itself.
    pub fn next(&self, now: u64) -> Option<u64> {
        self.members.iter().filter(|m| m.usable && m.ready_at > now).map(|m| m.ready_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    fn group(members: &[(u16, u16)]) -> Group {
        Group::new(members.iter().map(|&(priority, weight)| Member { priority, weight }))
    }

    fn active(g: &Group, now: u64) -> Vec<usize> {
        g.active(now).map(|(i, _)| i).collect()
    }

    #[test]
    fn over_at_once_and_back_after_the_hold_down() {
        let mut g = group(&[(1, 1), (2, 1)]);
        assert_eq!(active(&g, 0), [0]);
        g.set(0, false, 10 * S);
        assert_eq!(active(&g, 10 * S), [1]);
        g.set(0, true, 20 * S);
        assert_eq!(active(&g, 20 * S), [1]);
        assert_eq!(g.next(20 * S), Some(20 * S + HOLD_DOWN));
        assert_eq!(active(&g, 20 * S + HOLD_DOWN), [0]);
    }

    #[test]
    fn one_that_waits_is_better_than_none() {
        let mut g = group(&[(1, 1), (2, 1)]);
        g.set(0, false, 10 * S);
        g.set(1, false, 10 * S);
        assert_eq!(active(&g, 10 * S), [] as [usize; 0]);
        assert_eq!(g.select(7, 10 * S), None);
        g.set(0, true, 11 * S);
        assert_eq!(active(&g, 11 * S), [0]);
    }

    #[test]
    fn one_that_flaps_waits_longer_each_time() {
        let mut g = group(&[(1, 1), (2, 1)]);
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..8 {
            g.set(0, false, now);
            g.set(0, true, now + S);
            let ready = g.next(now + S).unwrap();
            waits.push((ready - now - S) / S);
            now = ready + S;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        g.set(0, false, now + 1000 * S);
        g.set(0, true, now + 1001 * S);
        assert_eq!(g.next(now + 1001 * S), Some(now + 1006 * S));
    }

    #[test]
    fn flows_are_spread_by_weight() {
        let g = group(&[(1, 3), (1, 1), (2, 9)]);
        let mut counts = [0; 3];
        for i in 0..4000u64 {
            counts[g.select(i.wrapping_mul(0x9E37_79B9_7F4A_7C15), 0).unwrap()] += 1;
        }
        assert!((2900..3100).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_usable_is_used(
            members in proptest::collection::vec((0u16..4, 0u16..5), 1..6),
            events in proptest::collection::vec((0usize..6, any::<bool>(), 0u64..100), 0..60),
        ) {
            let mut g = group(&members);
            let (mut now, mut usable) = (0, vec![true; members.len()]);
            for (i, up, wait) in events {
                now += wait * S;
                g.set(i, up, now);
                if let Some(u) = usable.get_mut(i) {
                    *u = up;
                }
                let chosen: Vec<usize> = active(&g, now);
                prop_assert_eq!(chosen.is_empty(), !usable.contains(&true));
                prop_assert!(chosen.iter().all(|&c| usable[c] && members[c].0 == members[chosen[0]].0));
                if let Some(c) = g.select(now, now) {
                    prop_assert!(chosen.contains(&c));
                }
            }
        }
    }
}
