//! What is known of a tunnel at a moment: written by workers and the control thread, read by both.

use sag_model::{MacAddr, Nanos};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64};

/// Smallest path MTU that is believed (RFC 791 3.2, RFC 8200 5 less a tunnel header).
const LEAST: u16 = 576;

/// Lives as long as the tunnel, over all configurations.
#[derive(Debug)]
pub struct TunnelState {
    up: AtomicBool,
    /// MTU of the port by which outer packets leave; by the control thread.
    link_mtu: AtomicU16,
    /// Path MTU learned on the way, 0: none, and when.
    learned: AtomicU16,
    learned_at: AtomicU64,
    /// Ethernet address of the peer inside, as a little-endian word; 0: not known.
    peer_mac: AtomicU64,
    pub sequence: AtomicU32,
    ident: AtomicU32,
}

impl Default for TunnelState {
    fn default() -> TunnelState {
        TunnelState {
            up: AtomicBool::new(true),
            link_mtu: AtomicU16::new(1500),
            learned: AtomicU16::new(0),
            learned_at: AtomicU64::new(0),
            peer_mac: AtomicU64::new(0),
            sequence: AtomicU32::new(0),
            ident: AtomicU32::new(0),
        }
    }
}

impl TunnelState {
    #[inline]
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    #[inline]
    pub fn link_mtu(&self) -> u16 {
        self.link_mtu.load(Relaxed)
    }

    pub fn set_link_mtu(&self, mtu: u16) {
        self.link_mtu.store(mtu, Relaxed);
    }

    /// Bytes of an outer packet that the path carries, as far as is known.
    #[inline]
    pub fn path_mtu(&self) -> u16 {
        let link = self.link_mtu();
        match self.learned.load(Relaxed) {
            0 => link,
            n => n.min(link),
        }
    }

    /// What was learned of the path, and when.
    pub fn learned(&self) -> Option<(u16, Nanos)> {
        match self.learned.load(Relaxed) {
            0 => None,
            n => Some((n, Nanos(self.learned_at.load(Relaxed)))),
        }
    }

    /// A router or a probe says what the path carries. True: that is news.
    pub fn learn(&self, mtu: u16, now: Nanos) -> bool {
        let mtu = mtu.max(LEAST);
        if mtu >= self.path_mtu() {
            return false;
        }
        self.learned.store(mtu, Relaxed);
        self.learned_at.store(now.0, Relaxed);
        true
    }

    /// The path is asked anew (RFC 1191 6.3, RFC 8201 4).
    pub fn forget_path(&self) {
        self.learned.store(0, Relaxed);
    }

    pub fn peer_mac(&self) -> Option<MacAddr> {
        match self.peer_mac.load(Relaxed).to_le_bytes() {
            [0, 0, 0, 0, 0, 0, ..] => None,
            [a, b, c, d, e, f, ..] => Some(MacAddr([a, b, c, d, e, f])),
        }
    }

    /// The peer speaks from this address.
    #[inline]
    pub fn see_peer(&self, m: [u8; 6]) {
        let word = u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0]);
        if m[0] & 1 == 0 && self.peer_mac.load(Relaxed) != word {
            self.peer_mac.store(word, Relaxed);
        }
    }

    /// The next identification of an outer packet that may be split (RFC 6864 4.3).
    pub fn next_id(&self) -> u16 {
        self.ident.fetch_add(1, Relaxed) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_learned_downwards_and_forgotten() {
        let s = TunnelState::default();
        assert_eq!((s.path_mtu(), s.learned()), (1500, None));
        assert!(!s.learn(1600, Nanos(1)), "the link carries less");
        assert!(s.learn(1400, Nanos(2)) && !s.learn(1450, Nanos(3)));
        assert_eq!(s.learned(), Some((1400, Nanos(2))));
        assert!(s.learn(68, Nanos(4)), "nobody talks us down to nothing");
        assert_eq!(s.path_mtu(), 576);
        s.forget_path();
        assert_eq!(s.path_mtu(), 1500);
    }

    #[test]
    fn the_peer_is_an_ordinary_address() {
        let s = TunnelState::default();
        s.see_peer([1, 0, 0, 0, 0, 1]);
        assert_eq!(s.peer_mac(), None);
        s.see_peer([2, 0, 0, 0, 0, 1]);
        assert_eq!(s.peer_mac(), Some(MacAddr([2, 0, 0, 0, 0, 1])));
    }
}
