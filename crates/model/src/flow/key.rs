//! Keys of flows, and their hash, which the XDP program computes, too.

use crate::ids::{PortIdx, VrfZone};

/// Bits of [`l4_word`] that are part of the key. Above them a record has the [`IngressId`] of its packets.
pub const L4_KEY: u64 = (1 << INGRESS_SHIFT) - 1;
const INGRESS_SHIFT: u32 = 48;

/// By which port, or out of which tunnel, the packets of a record come in. It is no part of the key: a packet of
/// the flow that comes in elsewhere finds the record, does not go by it, and is checked by a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IngressId(u16);

impl IngressId {
    /// No packet of this direction has passed the checks yet.
    pub const NONE: IngressId = IngressId(u16::MAX);
    /// They may not come in any more where they did, and have not come in elsewhere.
    pub const REVOKED: IngressId = IngressId(u16::MAX - 1);

    /// A port.
    #[inline]
    pub const fn port(port: PortIdx) -> IngressId {
        IngressId(port.0 as u16)
    }

    /// The port that it is, if it is one.
    pub const fn as_port(self) -> Option<PortIdx> {
        if self.0 < PortIdx::MAX as u16 { Some(PortIdx(self.0 as u8)) } else { None }
    }

    /// A tunnel, by its number.
    #[inline]
    pub const fn tunnel(no: u8) -> IngressId {
        IngressId(TUNNEL | no as u16)
    }

    /// From the word of a record that has the key below.
    #[inline]
    pub const fn of_word(key_l4: u64) -> IngressId {
        IngressId((key_l4 >> INGRESS_SHIFT) as u16)
    }

    /// The word of a record: the key's with the ingress above.
    #[inline]
    pub const fn with_key(self, l4: u64) -> u64 {
        l4 & L4_KEY | (self.0 as u64) << INGRESS_SHIFT
    }
}

/// `GW_INGRESS_TUNNEL`: the number is a tunnel's.
const TUNNEL: u16 = 1 << 8;

/// Key of an IPv4 flow, as two words (see `struct gw_flow4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key4 {
    /// Source address below, destination address above, each as loaded from the packet.
    pub addrs: u64,
    /// [`l4_word`].
    pub l4: u64,
}

/// Key of an IPv6 flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key6 {
    /// Source address, as loaded.
    pub src: [u64; 2],
    /// Destination address, as loaded.
    pub dst: [u64; 2],
    /// [`l4_word`].
    pub l4: u64,
}

/// The transport half of a key. Ports are in network byte order, as loaded from the packet.
#[inline]
pub fn l4_word(sport_be: u16, dport_be: u16, proto: u8, from: impl Into<VrfZone>) -> u64 {
    let from = u64::from(from.into().byte());
    u64::from(sport_be) | u64::from(dport_be) << 16 | u64::from(proto) << 32 | from << 40
}

/// The zone and VRF in such a word; `None`: it names no zone.
#[inline]
pub const fn vrf_zone(l4: u64) -> Option<VrfZone> {
    VrfZone::from_byte((l4 >> 40) as u8)
}

/// Multipliers of the flow hash; the XDP program uses the same (odd, well mixed constants).
pub const HASH_M1: u64 = 0x9E37_79B9_7F4A_7C15;
/// See [`HASH_M1`].
pub const HASH_M2: u64 = 0xD6E8_FEB8_6659_FD93;

#[inline]
const fn mix(h: u64, word: u64, m: u64) -> u64 {
    let h = (h ^ word).wrapping_mul(m);
    h ^ (h >> 32)
}

/// The direction of a packet (from the LAN, or from outside) chooses between pages of the index (64 buckets):
/// bit 6 for the first bucket, bit 30, inverted, for the second. Where traffic flows in one direction, the index
/// words of the other take no cache.
#[inline]
const fn partition_by_direction(h: u64, l4: u64) -> u64 {
    let [first, second] = [1 << 6, 1 << 30];
    (h & !(first | second)) | if l4 >> 41 & 1 != 0 { first } else { second }
}

impl Key4 {
    /// 64 bits; [`Probe::new`](super::Probe::new) uses all of them.
    #[inline]
    pub const fn hash(&self, seed: u64) -> u64 {
        let h = mix(mix(seed, self.addrs, HASH_M1), self.l4 << (64 - INGRESS_SHIFT), HASH_M2);
        partition_by_direction(mix(h, 0, HASH_M1), self.l4)
    }
}

impl Key6 {
    /// 64 bits; [`Probe::new`](super::Probe::new) uses all of them.
    #[inline]
    pub const fn hash(&self, seed: u64) -> u64 {
        let h = mix(mix(seed, self.src[0], HASH_M1), self.src[1], HASH_M2);
        let h = mix(mix(h, self.dst[0], HASH_M1), self.dst[1], HASH_M2);
        partition_by_direction(mix(mix(h, self.l4 << (64 - INGRESS_SHIFT), HASH_M1), 0, HASH_M2), self.l4)
    }
}
