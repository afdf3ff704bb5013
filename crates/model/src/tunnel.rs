//! A tunnel as the XDP program reads it (`struct gw_tunnel` in `bpf/include/gw_abi.h`).

use crate::ids::VrfZone;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tunnels that can be told apart, number 0 (none) included.
pub const TUNNELS: usize = 256;
/// Bytes of a tunnel's header.
pub const TUNNEL_HEADER: usize = 80;

/// Kind: VXLAN.
pub const TUNNEL_VXLAN: u8 = 1;
/// Kind: GRE.
pub const TUNNEL_GRE: u8 = 2;
/// Kind: IP in IP.
pub const TUNNEL_IPIP: u8 = 3;

/// The entry is in use.
pub const TUNNEL_ON: u8 = 1 << 0;
/// IPv6 outside.
pub const TUNNEL_V6: u8 = 1 << 1;
/// DF of the outer header as inside.
pub const TUNNEL_DF_COPY: u8 = 1 << 2;
/// DF of the outer header is clear.
pub const TUNNEL_DF_CLEAR: u8 = 1 << 3;
/// A fixed code point outside.
pub const TUNNEL_DSCP: u8 = 1 << 4;
/// The outer code point comes back in.
pub const TUNNEL_UNIFORM: u8 = 1 << 5;
/// XDP leaves its packets to the workers.
pub const TUNNEL_WORKER: u8 = 1 << 6;
/// A UDP checksum, in whose place the header has the sum of what does not change.
pub const TUNNEL_SUM: u8 = 1 << 7;

/// Words of `struct gw_tunnel`.
const WORDS: usize = 16;
const MAC: usize = TUNNEL_HEADER / 8;
const CONTROL: usize = MAC + 1;
const INGRESS: usize = CONTROL + 1;
const SIDE: usize = INGRESS + 1;

/// `struct gw_tunnel` as words, each written by one store.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct TunnelRecord {
    /// The words.
    pub word: [AtomicU64; WORDS],
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEntry {
    /// Outer header as sent, lengths and checksums left open.
    pub header: [u8; TUNNEL_HEADER],
    /// VXLAN: the gateway's address inside.
    pub mac: [u8; 6],
    /// Bytes of `header` in use.
    pub len: u8,
    /// `TUNNEL_VXLAN`, `TUNNEL_GRE` or `TUNNEL_IPIP`.
    pub kind: u8,
    /// IP bytes inside.
    pub mtu: u16,
    /// `TUNNEL_ON` and the others.
    pub flags: u8,
    /// TOS or traffic class outside, with [`TUNNEL_DSCP`].
    pub tos: u8,
    /// Of an IPv4 header: the ones' complement sum of `header`, as loaded.
    pub sum: u16,
    /// A bit for each port by which outer packets may come in.
    pub ingress: u64,
    /// Where the packets inside come from.
    pub side: VrfZone,
}

impl TunnelRecord {
    /// Stores an entry; what was there counts no more while it is being written.
    pub fn store(&self, e: &TunnelEntry) {
        let [a, b] = e.mtu.to_le_bytes();
        let [s, t] = e.sum.to_ne_bytes();
        let control = u64::from_le_bytes([e.len, e.kind, a, b, e.flags, e.tos, s, t]);
        let [m0, m1, m2, m3, m4, m5] = e.mac;
        let mac = u64::from_le_bytes([0, 0, m0, m1, m2, m3, m4, m5]);
        let (chunks, _) = e.header.as_chunks::<8>();
        let header = chunks.iter().map(|c| u64::from_ne_bytes(*c));
        let same = |w: &AtomicU64, v: u64| w.load(Ordering::Relaxed) == v;
        // A changed MTU, or a peer's address, is no other tunnel.
        if (self.word[CONTROL].load(Ordering::Relaxed) ^ control) & !0xFFFF_0000 != 0 {
            self.clear();
        }
        for (word, v) in self.word.iter().zip(header.chain([mac])) {
            if !same(word, v) {
                word.store(v, Ordering::Relaxed);
            }
        }
        if !same(&self.word[INGRESS], e.ingress) {
            self.word[INGRESS].store(e.ingress, Ordering::Relaxed);
        }
        let vrf = u64::from(e.side.vrf().get());
        if !same(&self.word[SIDE], vrf) {
            // What has been inside one VRF is not taken for a packet of another.
            self.clear();
            self.word[SIDE].store(vrf, Ordering::Relaxed);
        }
        if !same(&self.word[CONTROL], control) {
            self.word[CONTROL].store(control, Ordering::Release);
        }
    }

    /// There is no such tunnel: its flows go to the workers.
    pub fn clear(&self) {
        self.word[CONTROL].store(0, Ordering::Release);
    }
}

/// What a received packet says of its tunnel (`struct gw_end`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TunnelEnd {
    /// Outer destination.
    pub local: std::net::IpAddr,
    /// Outer source.
    pub remote: std::net::IpAddr,
    /// IP protocol of the outer header.
    pub proto: u8,
    /// UDP destination port; 0: none.
    pub port: u16,
    /// VNI or key.
    pub id: EndId,
}

/// VNI or key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndId {
    /// Whatever it is: some tunnel has this end.
    Any,
    /// No key.
    None,
    /// This one.
    Id(u32),
}

impl TunnelEnd {
    /// `struct gw_end`.
    pub fn key(&self) -> [u8; 40] {
        let mut out = [0; 40];
        for (at, addr) in [(0, self.local), (16, self.remote)] {
            match addr {
                std::net::IpAddr::V4(a) => out[at..at + 4].copy_from_slice(&a.octets()),
                std::net::IpAddr::V6(a) => out[at..at + 16].copy_from_slice(&a.octets()),
            }
        }
        let (kind, id) = match self.id {
            EndId::Any => (0, 0),
            EndId::None => (1, 0),
            EndId::Id(n) => (2, n),
        };
        out[32..36].copy_from_slice(&id.to_ne_bytes());
        out[36..38].copy_from_slice(&self.port.to_ne_bytes());
        (out[38], out[39]) = (self.proto, kind);
        out
    }
}

const _: () = assert!(size_of::<TunnelRecord>() == 128);
