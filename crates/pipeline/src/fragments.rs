//! Which flow the fragments of a datagram belong to: the first fragment's ports, kept for the later
//! ones. Bounded; the oldest entry makes room.

use sag_model::Nanos;
use sag_packet::{Fragment, Parsed};
use std::time::Duration;

/// Datagrams in fragments at one time.
const ENTRIES: usize = 1024;
const WAYS: usize = 4;
/// RFC 1122 3.3.2 asks hosts to wait 60 s or more for a whole datagram; a flow's fragments follow
/// each other much closer, and RFC 8200 4.5 gives up at 60 s.
const LIFETIME: Duration = Duration::from_secs(30);

/// What identifies a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramKey {
    pub src: u128,
    pub dst: u128,
    pub id: u32,
    /// Of IPv4. Zero with IPv6, whose later fragments may name a header that the first one got past.
    pub proto: u8,
    pub zone: u8,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: DatagramKey,
    proto: u8,
    ports: (u16, u16),
    since: Nanos,
    used: bool,
}

#[derive(Debug)]
pub struct Fragments {
    sets: Box<[[Entry; WAYS]]>,
}

impl Default for Fragments {
    fn default() -> Self {
        let key = DatagramKey { src: 0, dst: 0, id: 0, proto: 0, zone: 0 };
        let empty = Entry { key, proto: 0, ports: (0, 0), since: Nanos::ZERO, used: false };
        Fragments { sets: vec![[empty; WAYS]; ENTRIES / WAYS].into_boxed_slice() }
    }
}

impl Fragments {
    fn set(&mut self, key: &DatagramKey) -> &mut [Entry; WAYS] {
        let h =
            (key.src ^ key.dst.rotate_left(64)) as u64 ^ (key.src >> 64) as u64 ^ (u64::from(key.id) << 17);
        let h = h.wrapping_mul(sag_model::flow::HASH_M1) >> 32;
        let n = self.sets.len();
        &mut self.sets[h as usize % n]
    }

    /// Notes a first fragment, or gives a later fragment its ports. False: the first fragment of
    /// this datagram was not seen.
    pub fn follow(&mut self, key: &DatagramKey, p: &mut Parsed, now: Nanos) -> bool {
        let set = self.set(key);
        let found = set.iter().position(|e| e.used && e.key == *key && now - e.since < LIFETIME);
        match p.fragment {
            Fragment::Whole => true,
            Fragment::First { .. } => {
                let i = found
                    .or_else(|| set.iter().position(|e| !e.used))
                    .or_else(|| (0..WAYS).min_by_key(|&i| set[i].since))
                    .unwrap_or(0);
                let ports = (p.sport, p.dport);
                set[i] = Entry { key: *key, proto: p.proto, ports, since: now, used: true };
                true
            }
            Fragment::Later { .. } => match found {
                Some(i) => {
                    (p.sport, p.dport) = set[i].ports;
                    p.proto = set[i].proto;
                    true
                }
                None => false,
            },
        }
    }
}
