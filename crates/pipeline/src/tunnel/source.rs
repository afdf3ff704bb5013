//! Where a peer's packets come from: address and port, read by every worker and changed by whichever
//! opened the newest packet.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};

/// Changes that may come between while one reader reads.
const TRIES: usize = 8;
/// In the last word, beside the port.
const V6: u64 = 1 << 16;

/// Two places in turn: a writer fills the one that nobody is sent to and then points to it, so readers wait for
/// nobody. Of writers at the same moment one wins; the others' next packets come soon.
#[derive(Debug, Default)]
pub struct Source {
    places: [[AtomicU64; 3]; 2],
    /// Goes up with every change; its last bit names the place. 0: nothing yet.
    version: AtomicU64,
    writing: AtomicBool,
}

impl Source {
    #[inline]
    pub fn load(&self) -> Option<SocketAddr> {
        for _ in 0..TRIES {
            let version = self.version.load(Acquire);
            if version == 0 {
                return None;
            }
            let words = self.places[version as usize & 1].each_ref().map(|w| w.load(Relaxed));
            fence(Acquire);
            // The next writer but one uses this place again.
            if self.version.load(Relaxed) == version {
                return Some(address(words));
            }
        }
        None
    }

    /// Stores what differs, if the packet that says so is still the newest; costs a look where nothing differs.
    #[inline]
    pub fn store(&self, a: SocketAddr, is_newest: impl FnOnce() -> bool) {
        if self.load() != Some(a) {
            self.change(a, is_newest);
        }
    }

    #[cold]
    fn change(&self, a: SocketAddr, is_newest: impl FnOnce() -> bool) {
        if self.writing.swap(true, Acquire) {
            return;
        }
        // A worker that was interrupted after it had opened its packet must not undo what a later packet has changed.
        if !is_newest() {
            self.writing.store(false, Release);
            return;
        }
        let next = self.version.load(Relaxed) + 1;
        // What a reader of this place finds after a word of ours is that it is not the one to read.
        fence(Release);
        for (place, word) in self.places[next as usize & 1].iter().zip(words(a)) {
            place.store(word, Relaxed);
        }
        self.version.store(next, Release);
        self.writing.store(false, Release);
    }
}

fn words(a: SocketAddr) -> [u64; 3] {
    let port = u64::from(a.port());
    match a.ip() {
        IpAddr::V4(a) => [0, a.to_bits().into(), port],
        IpAddr::V6(a) => [(a.to_bits() >> 64) as u64, a.to_bits() as u64, port | V6],
    }
}

fn address([high, low, rest]: [u64; 3]) -> SocketAddr {
    let ip = match rest & V6 {
        0 => IpAddr::V4((low as u32).into()),
        _ => IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()),
    };
    (ip, rest as u16).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_one_counts() {
        let s = Source::default();
        assert_eq!(s.load(), None);
        for a in ["203.0.113.9:4500", "[2001:db8::1]:65535", "0.0.0.0:0", "[::]:0", "203.0.113.9:4501"] {
            s.store(at(a), || true);
            assert_eq!(s.load(), Some(at(a)));
        }
        let version = s.version.load(Relaxed);
        s.store(at("203.0.113.9:4501"), || true);
        assert_eq!(s.version.load(Relaxed), version, "the same address is no change");
        s.store(at("203.0.113.9:9"), || false);
        assert_eq!(s.load(), Some(at("203.0.113.9:4501")), "a newer packet has come meanwhile");
        s.store(at("203.0.113.9:9"), || true);
        assert_eq!(s.load(), Some(at("203.0.113.9:9")));
    }

    /// No reader sees a half of one address and a half of another.
    #[test]
    fn addresses_are_read_whole() {
        let s = Source::default();
        let of = |n: u64| {
            let ip = u128::from(n) << 64 | u128::from(n);
            SocketAddr::from((std::net::Ipv6Addr::from_bits(ip), n as u16))
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for base in [1, 2] {
                let (s, done) = (&s, &done);
                scope.spawn(move || {
                    for n in (0..1000).cycle().take_while(|_| !done.load(Relaxed)) {
                        s.store(of(n * 2 + base), || true);
                    }
                });
            }
            let mut seen = 0;
            while seen < 10_000 {
                let Some(SocketAddr::V6(a)) = s.load() else { continue };
                let (ip, port) = (a.ip().to_bits(), a.port());
                if ((ip >> 64) as u64, ip as u16) != (ip as u64, port) {
                    break;
                }
                seen += 1;
            }
            done.store(true, Relaxed);
            assert_eq!(seen, 10_000, "halves of two addresses");
        });
    }
}
