//! How many sessions that a rule has admitted may live at a time, in all and of one source.
//!
//! Counted when a session begins, ends, or comes under another rule; packets of sessions that exist touch nothing here.
//! In all it is exact with any number of workers. Of one source it is never exceeded; of several workers that want the
//! last place at the same moment, none may get it.

use crate::ids::RuleSlot;
use crate::ref_count::RefCountTable;
use sag_model::DropReason;
use sag_model::flow::{HASH_M1, HASH_M2};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bits of a counter of one source; the rest of its word names the source.
const COUNT_BITS: u32 = 20;

/// The limits of a rule, and what they count.
#[derive(Debug, Default)]
pub struct SessionLimit {
    most: Option<u32>,
    per_source: Option<PerSource>,
    live: AtomicU32,
    /// Packets whose session was refused.
    pub refused: AtomicU64,
}

/// A limit for the sessions of one source.
#[derive(Debug)]
pub struct PerSource {
    most: u32,
    /// Addresses of one network of this length are one source; `None`: an IPv4 address, an IPv6 /64.
    prefix_len: Option<u8>,
    sources: RefCountTable<COUNT_BITS>,
    seed: u64,
}

impl PerSource {
    /// So many sessions of each source.
    pub fn new(most: u32, prefix_len: Option<u8>, seed: u64) -> PerSource {
        PerSource { most, prefix_len, sources: RefCountTable::new(SessionLimit::SOURCES), seed }
    }

    /// The name of a source: of IPv4 its network; of IPv6 a hash that nobody can aim at.
    fn key(&self, src: IpAddr) -> u64 {
        match src {
            IpAddr::V4(a) => {
                let unused = 32 - u32::from(self.prefix_len.unwrap_or(32).min(32));
                u64::from(a.to_bits().checked_shr(unused).unwrap_or(0))
            }
            IpAddr::V6(a) => {
                let unused = 128 - u32::from(self.prefix_len.unwrap_or(64).min(128));
                let network = a.to_bits().checked_shr(unused).unwrap_or(0);
                let h = (network as u64 ^ self.seed).wrapping_mul(HASH_M1);
                let h = (h ^ h >> 32 ^ (network >> 64) as u64).wrapping_mul(HASH_M2);
                (h ^ h >> 29) >> COUNT_BITS
            }
        }
    }
}

impl SessionLimit {
    /// Sources of one rule that are counted at a time.
    pub const SOURCES: usize = 16_384;

    /// At most so many sessions in all, and of one source.
    pub fn new(most: Option<u32>, per_source: Option<PerSource>) -> SessionLimit {
        SessionLimit { most, per_source, ..SessionLimit::default() }
    }

    /// Sessions that it counts.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Sessions of a source, if they are counted.
    pub fn of_source(&self, src: IpAddr) -> Option<u64> {
        self.per_source.as_ref().map(|p| p.sources.get(p.key(src)))
    }

    /// One more session, if there may be. The marks go into the word of the session's rule.
    ///
    /// # Errors
    ///
    /// Which limit is reached.
    pub(crate) fn begin(&self, src: IpAddr) -> Result<u32, DropReason> {
        let begun = self.try_begin(src);
        if begun.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        begun
    }

    fn try_begin(&self, src: IpAddr) -> Result<u32, DropReason> {
        let most = self.most.unwrap_or(u32::MAX);
        let one_more = |n: u32| (n < most).then(|| n + 1);
        if self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return Err(DropReason::AclMaxSessions);
        }
        let Some(p) = &self.per_source else { return Ok(RuleSlot::COUNTED) };
        let key = p.key(src);
        if !p.sources.increment(key) {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(DropReason::AclSourcesFull);
        }
        if p.sources.get(key) > u64::from(p.most) {
            self.end(src, RuleSlot::COUNTED | RuleSlot::SOURCE_COUNTED);
            return Err(DropReason::AclMaxSessionsPerSource);
        }
        Ok(RuleSlot::COUNTED | RuleSlot::SOURCE_COUNTED)
    }

    /// A session that exists comes under the rule, whatever the limits: they are for new ones.
    pub(crate) fn adopt(&self, src: IpAddr) -> u32 {
        self.live.fetch_add(1, Ordering::Relaxed);
        match &self.per_source {
            Some(p) if p.sources.increment(p.key(src)) => RuleSlot::COUNTED | RuleSlot::SOURCE_COUNTED,
            _ => RuleSlot::COUNTED,
        }
    }

    /// A session with these marks has ended, or comes under another rule.
    pub(crate) fn end(&self, src: IpAddr, marks: u32) {
        if marks & RuleSlot::COUNTED != 0 {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        if let (true, Some(p)) = (marks & RuleSlot::SOURCE_COUNTED != 0, &self.per_source) {
            p.sources.decrement(p.key(src));
        }
    }

    /// For people: how many sessions live, of how many.
    pub(crate) fn text(&self, src: IpAddr) -> String {
        let mut out = match self.most {
            Some(most) => format!("{} of {most} sessions", self.live()),
            None => format!("{} sessions", self.live()),
        };
        if let (Some(p), Some(n)) = (&self.per_source, self.of_source(src)) {
            out += &format!(", {n} of {} of this source", p.most);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn networks_are_sources() {
        let of = |len, a, b| {
            let p = PerSource::new(1, len, 7);
            p.key(addr(a)) == p.key(addr(b))
        };
        assert!(!of(None, "192.0.2.1", "192.0.2.2"));
        assert!(of(Some(24), "192.0.2.1", "192.0.2.2"));
        assert!(!of(Some(24), "192.0.2.1", "192.0.3.1"));
        assert!(of(Some(0), "192.0.2.1", "10.0.0.1"));
        assert!(of(None, "2001:db8::1", "2001:db8::2:1"));
        assert!(!of(None, "2001:db8::1", "2001:db8:0:1::1"));
        assert!(!of(Some(128), "2001:db8::1", "2001:db8::2"));
        assert!(of(Some(48), "2001:db8::1", "2001:db8:0:1::1"));
        assert!(of(Some(0), "2001:db8::1", "::1"));
    }

    #[test]
    fn each_limit_has_its_name() {
        let l = SessionLimit::new(Some(3), Some(PerSource::new(2, None, 7)));
        let (a, b) = (addr("192.0.2.1"), addr("192.0.2.2"));
        let marks = l.begin(a).unwrap();
        assert!(l.begin(a).is_ok());
        assert_eq!(l.begin(a), Err(DropReason::AclMaxSessionsPerSource));
        assert_eq!((l.live(), l.of_source(a)), (2, Some(2)), "what is refused counts nowhere");
        assert!(l.begin(b).is_ok());
        assert_eq!(l.begin(b), Err(DropReason::AclMaxSessions));
        l.end(a, marks);
        assert_eq!((l.live(), l.of_source(a)), (2, Some(1)));
        assert_eq!(l.adopt(a), marks);
        assert_eq!(l.adopt(a), marks, "the limits are for new sessions");
        assert_eq!((l.live(), l.refused.load(Ordering::Relaxed)), (4, 2));
    }

    #[test]
    fn sources_beyond_the_table_are_refused_by_name() {
        let l = SessionLimit::new(None, Some(PerSource::new(1, None, 7)));
        let refused = (0..2 * SessionLimit::SOURCES as u32)
            .filter_map(|n| l.begin(IpAddr::V4(n.wrapping_mul(0x9E37_79B1).into())).err())
            .collect::<Vec<_>>();
        assert!(refused.iter().all(|r| *r == DropReason::AclSourcesFull));
        assert!(
            (SessionLimit::SOURCES..=SessionLimit::SOURCES * 5 / 4).contains(&refused.len()),
            "{}",
            refused.len()
        );
        assert_eq!(l.live() as usize, 2 * SessionLimit::SOURCES - refused.len());
    }

    #[test]
    fn threads_never_exceed_it() {
        let l = SessionLimit::new(Some(40), Some(PerSource::new(10, None, 7)));
        std::thread::scope(|s| {
            for t in 0..4u8 {
                let l = &l;
                s.spawn(move || {
                    let mut held = Vec::new();
                    for n in 0..20_000u32 {
                        let src = IpAddr::from([192, 0, 2, (n % 5) as u8]);
                        match l.begin(src) {
                            Ok(marks) => held.push((src, marks)),
                            Err(_) => held
                                .drain(..held.len().min(1 + usize::from(t)))
                                .for_each(|(s, m)| l.end(s, m)),
                        }
                        assert!(l.live() <= 40);
                    }
                    held.into_iter().for_each(|(s, m)| l.end(s, m));
                });
            }
        });
        assert_eq!(l.live(), 0);
        assert!((0..5).all(|n| l.of_source(IpAddr::from([192, 0, 2, n])) == Some(0)));
    }
}
