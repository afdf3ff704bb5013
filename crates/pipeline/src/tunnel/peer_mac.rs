//! The Ethernet address of a VXLAN tunnel's peer, learned from its frames. They prove nothing, so one frame sets the address
//! only while there is none. Another address takes over when it has spoken for a while in which the known one was
//! silent, although it was asked.

use sag_model::{MacAddr, Nanos};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How long another address has to speak, and the known one has to be silent.
const HOLD: u64 = 3_000_000_000;
/// Between two questions.
const ASK: u64 = 500_000_000;
/// Silence after which another address begins anew.
const PAUSE: u64 = 1_000_000_000;
/// Accuracy of the time at which the peer was heard, so that not every frame writes it.
const GRAIN: u64 = 10_000_000;

/// What a frame says of the peer's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerMac {
    /// It comes from the known address.
    Known,
    /// It comes from another one, which may be the peer's new address or a lie.
    Rival,
    /// Its address is the peer's from now on, in place of this one.
    Changed(MacAddr),
}

/// The address and what is known of its rival. Workers write it; if two do at once, one of them is late.
#[derive(Debug, Default)]
pub(super) struct PeerAddress {
    /// As a little-endian word; 0: not known.
    mac: AtomicU64,
    /// When a frame came from it.
    heard: AtomicU64,
    rival: AtomicU64,
    rival_since: AtomicU64,
    rival_heard: AtomicU64,
    asked: AtomicU64,
}

const fn word(m: MacAddr) -> u64 {
    let m = m.0;
    u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0])
}

const fn address(word: u64) -> MacAddr {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    MacAddr([a, b, c, d, e, f])
}

impl PeerAddress {
    #[inline]
    pub fn get(&self) -> Option<MacAddr> {
        match self.mac.load(Relaxed) {
            0 => None,
            w => Some(address(w)),
        }
    }

    #[inline]
    pub fn see(&self, mac: MacAddr, now: Nanos) -> PeerMac {
        let (seen, known) = (word(mac), self.mac.load(Relaxed));
        if seen == known {
            if now.0.saturating_sub(self.heard.load(Relaxed)) > GRAIN {
                self.heard.store(now.0, Relaxed);
            }
            return PeerMac::Known;
        }
        self.see_other(mac, known, now)
    }

    #[cold]
    fn see_other(&self, mac: MacAddr, known: u64, now: Nanos) -> PeerMac {
        let seen = word(mac);
        if mac.is_multicast() || seen == 0 {
            return PeerMac::Known;
        }
        if known == 0 {
            if self.mac.compare_exchange(0, seen, Relaxed, Relaxed).is_ok() {
                self.heard.store(now.0, Relaxed);
            }
            return PeerMac::Known;
        }
        let since = |t: &AtomicU64| now.0.saturating_sub(t.load(Relaxed));
        if self.rival.load(Relaxed) != seen || since(&self.rival_heard) > PAUSE {
            self.rival.store(seen, Relaxed);
            self.rival_since.store(now.0, Relaxed);
        }
        self.rival_heard.store(now.0, Relaxed);
        if since(&self.rival_since) < HOLD
            || since(&self.heard) < HOLD
            || self.mac.compare_exchange(known, seen, Relaxed, Relaxed).is_err()
        {
            return PeerMac::Rival;
        }
        self.heard.store(now.0, Relaxed);
        self.rival.store(0, Relaxed);
        PeerMac::Changed(address(known))
    }

    pub fn may_ask(&self, now: Nanos) -> bool {
        let asked = self.asked.load(Relaxed);
        let due = asked == 0 || now.0.saturating_sub(asked) >= ASK;
        due && self.asked.compare_exchange(asked, now.0, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const NEW: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn ms(n: u64) -> Nanos {
        Nanos(1_000_000_000 + n * 1_000_000)
    }

    #[test]
    fn the_first_ordinary_address_is_the_peers() {
        let p = PeerAddress::default();
        for bad in [MacAddr([1, 0, 0, 0, 0, 1]), MacAddr([0; 6]), MacAddr([0xFF; 6])] {
            p.see(bad, ms(0));
            assert_eq!(p.get(), None);
        }
        assert_eq!(p.see(OLD, ms(0)), PeerMac::Known);
        assert_eq!(p.get(), Some(OLD));
    }

    #[test]
    fn a_frame_or_many_change_nothing_while_the_peer_speaks() {
        let p = PeerAddress::default();
        p.see(OLD, ms(0));
        for n in 0..1_000_000 {
            // A thousand forged frames for each of the peer's.
            let now = Nanos(ms(0).0 + n * 1_000_000);
            if n % 1000 == 0 {
                assert_eq!(p.see(OLD, now), PeerMac::Known);
            }
            assert_eq!(p.see(NEW, now), PeerMac::Rival);
        }
        assert_eq!(p.get(), Some(OLD));
    }

    #[test]
    fn a_peer_with_another_address_is_followed_in_seconds() {
        let p = PeerAddress::default();
        p.see(OLD, ms(0));
        let changed = (0..).find(|n| p.see(NEW, ms(5000 + 100 * n)) == PeerMac::Changed(OLD));
        assert_eq!(changed, Some(30));
        assert_eq!(p.get(), Some(NEW));
    }

    #[test]
    fn an_address_that_speaks_now_and_then_takes_nothing_over() {
        let p = PeerAddress::default();
        p.see(OLD, ms(0));
        for n in 1..100 {
            assert_eq!(p.see(NEW, ms(n * 2000)), PeerMac::Rival);
            assert_eq!(
                p.see(MacAddr([2, 0, 0, 0, 0, 3]), ms(n * 2000 + 1)),
                PeerMac::Rival,
                "nor do two in turn"
            );
        }
    }

    #[test]
    fn questions_have_a_rate() {
        let p = PeerAddress::default();
        assert_eq!((0..10_000).filter(|n| p.may_ask(ms(*n))).count(), 20);
    }
}
