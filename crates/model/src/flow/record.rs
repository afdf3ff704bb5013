//! Flow records of both families.

use super::key::{IngressId, Key4, Key6, L4_KEY};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// `struct gw_flow4`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct FlowRecord4 {
    /// [`Key4::addrs`](super::Key4::addrs).
    pub key_addrs: AtomicU64,
    /// [`l4_word`](super::l4_word), the [`IngressId`] above it.
    pub key_l4: AtomicU64,
    /// `new_saddr | new_daddr << 32`
    pub new_addrs: AtomicU64,
    /// `new_sport | new_dport << 16 | l3_delta << 32 | l4_delta << 48`
    pub new_ports: AtomicU64,
    /// [`Action::to_word`](super::Action::to_word).
    pub action: AtomicU64,
    /// Number and marks, see [`EPOCH_NUMBER`](super::EPOCH_NUMBER).
    pub epoch: AtomicU32,
    /// [`Tick`](crate::time::Tick) of the last packet.
    pub last_seen: AtomicU32,
    /// Packets so far.
    pub packets: AtomicU64,
    /// IP bytes so far.
    pub bytes: AtomicU64,
}

/// `struct gw_flow6`.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct FlowRecord6 {
    /// Source address, as loaded.
    pub src: [AtomicU64; 2],
    /// Destination address, as loaded.
    pub dst: [AtomicU64; 2],
    /// [`l4_word`](super::l4_word), the [`IngressId`] above it.
    pub key_l4: AtomicU64,
    /// [`Action::to_word`](super::Action::to_word).
    pub action: AtomicU64,
    /// Number and marks, see [`EPOCH_NUMBER`](super::EPOCH_NUMBER).
    pub epoch: AtomicU32,
    /// [`Tick`](crate::time::Tick) of the last packet.
    pub last_seen: AtomicU32,
    /// Unused.
    pub pad0: AtomicU64,
    /// Packets so far.
    pub packets: AtomicU64,
    /// IP bytes so far.
    pub bytes: AtomicU64,
    /// Source address after translation.
    pub new_src: [AtomicU64; 2],
    /// Destination address after translation.
    pub new_dst: [AtomicU64; 2],
    /// `new_sport | new_dport << 16 | l4_delta << 32`
    pub new_ports: AtomicU64,
    /// Unused.
    pub pad2: AtomicU64,
}

impl FlowRecord4 {
    /// The key.
    #[inline]
    pub fn key(&self) -> Key4 {
        Key4 {
            addrs: self.key_addrs.load(Ordering::Relaxed),
            l4: self.key_l4.load(Ordering::Relaxed) & L4_KEY,
        }
    }

    /// Whether the record is of this key.
    #[inline]
    pub fn matches(&self, key: &Key4) -> bool {
        self.key_addrs.load(Ordering::Relaxed) == key.addrs
            && self.key_l4.load(Ordering::Relaxed) & L4_KEY == key.l4
    }
}

impl FlowRecord6 {
    /// The key.
    #[inline]
    pub fn key(&self) -> Key6 {
        let two = |w: &[AtomicU64; 2]| [w[0].load(Ordering::Relaxed), w[1].load(Ordering::Relaxed)];
        let l4 = self.key_l4.load(Ordering::Relaxed) & L4_KEY;
        Key6 { src: two(&self.src), dst: two(&self.dst), l4 }
    }

    /// Whether the record is of this key.
    #[inline]
    pub fn matches(&self, key: &Key6) -> bool {
        self.key() == *key
    }
}

/// Parts common to records of both families, so that table code is written once.
pub trait FlowRecord: Default + Send + Sync + 'static {
    /// Addresses, ports, protocol and zone.
    type Key: Copy + Eq + std::fmt::Debug + Send;

    /// Hash of a key.
    fn hash(key: &Self::Key, seed: u64) -> u64;
    /// The key.
    fn key(&self) -> Self::Key;
    /// Whether the record is of this key.
    fn matches(&self, key: &Self::Key) -> bool;
    /// Stores the key, without an ingress; nothing may point at the record.
    fn set_key(&self, key: &Self::Key);
    /// The word with the transport half of the key, and the ingress above it.
    fn key_l4(&self) -> &AtomicU64;
    /// By which port or tunnel its packets come in.
    #[inline]
    fn ingress(&self) -> IngressId {
        IngressId::of_word(self.key_l4().load(Ordering::Relaxed))
    }
    /// Packets that come in so go by the record from now on. The key stays.
    #[inline]
    fn set_ingress(&self, ingress: IngressId) {
        let old = self.key_l4().load(Ordering::Relaxed);
        let new = ingress.with_key(old);
        if new != old {
            self.key_l4().store(new, Ordering::Relaxed);
        }
    }
    /// [`Action::to_word`](super::Action::to_word).
    fn action(&self) -> &AtomicU64;
    /// Number and marks, see [`EPOCH_NUMBER`](super::EPOCH_NUMBER).
    fn epoch(&self) -> &AtomicU32;
    /// [`Tick`](crate::time::Tick) of the last packet.
    fn last_seen(&self) -> &AtomicU32;
    /// Packets so far.
    fn packets(&self) -> &AtomicU64;
    /// IP bytes so far.
    fn bytes(&self) -> &AtomicU64;
}

macro_rules! flow_record {
    ($rec:ty, $key:ty, |$r:ident, $k:ident| $set:block) => {
        impl FlowRecord for $rec {
            type Key = $key;

            #[inline]
            fn hash(key: &$key, seed: u64) -> u64 {
                key.hash(seed)
            }
            #[inline]
            fn key(&self) -> $key {
                <$rec>::key(self)
            }
            #[inline]
            fn matches(&self, key: &$key) -> bool {
                <$rec>::matches(self, key)
            }
            #[inline]
            fn set_key(&self, $k: &$key) {
                let $r = self;
                $set
            }
            #[inline]
            fn key_l4(&self) -> &AtomicU64 {
                &self.key_l4
            }
            #[inline]
            fn action(&self) -> &AtomicU64 {
                &self.action
            }
            #[inline]
            fn epoch(&self) -> &AtomicU32 {
                &self.epoch
            }
            #[inline]
            fn last_seen(&self) -> &AtomicU32 {
                &self.last_seen
            }
            #[inline]
            fn packets(&self) -> &AtomicU64 {
                &self.packets
            }
            #[inline]
            fn bytes(&self) -> &AtomicU64 {
                &self.bytes
            }
        }
    };
}

flow_record!(FlowRecord4, Key4, |r, k| {
    r.key_addrs.store(k.addrs, Ordering::Relaxed);
    r.key_l4.store(IngressId::NONE.with_key(k.l4), Ordering::Relaxed);
});

flow_record!(FlowRecord6, Key6, |r, k| {
    for i in 0..2 {
        r.src[i].store(k.src[i], Ordering::Relaxed);
        r.dst[i].store(k.dst[i], Ordering::Relaxed);
    }
    r.key_l4.store(IngressId::NONE.with_key(k.l4), Ordering::Relaxed);
});

const _: () = {
    assert!(size_of::<FlowRecord4>() == 64);
    assert!(size_of::<FlowRecord6>() == 128);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::l4_word;
    use crate::ids::{PortIdx, Zone};

    #[test]
    fn the_ingress_is_no_part_of_the_key() {
        let key = Key4 { addrs: 7, l4: l4_word(1, u16::MAX, 255, Zone::Overlay) };
        let r = FlowRecord4::default();
        r.set_key(&key);
        assert_eq!((r.key(), r.ingress()), (key, IngressId::NONE));
        let some = [
            IngressId::port(PortIdx(0)),
            IngressId::port(PortIdx(63)),
            IngressId::tunnel(1),
            IngressId::tunnel(255),
        ];
        for ingress in some {
            r.set_ingress(ingress);
            assert!(r.matches(&key) && r.key() == key && r.ingress() == ingress);
            assert_eq!(some.iter().filter(|i| **i == ingress).count(), 1);
        }
    }
}
