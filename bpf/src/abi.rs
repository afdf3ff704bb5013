//! What both sides of the seam between C and Rust agree on: limits, and what XDP leaves in front of a frame for a worker.
//! `layout` makes sure that this is what `include/gw_abi.h` says.

use sag_model::PortIdx;
pub use sag_model::flow::{NAT_SLOT_WORDS, NAT_SLOTS};

/// Version of the layouts of the maps. Pinned maps of another one are never touched.
pub const ABI_VERSION: u32 = 9;
/// Receive queues of a device that can have a socket.
pub const QUEUES_PER_DEV: u32 = 64;
/// Devices that can be ports or carry them.
pub const MAX_DEVS: u32 = 64;
/// Next-hop records; number 0 is none.
pub const MAX_NEXTHOPS: usize = 65536;
/// A device is in slot `ifindex % PORT_SLOTS`.
pub(crate) const PORT_SLOTS: usize = 4096;

/// Why XDP gave a packet to a worker (`enum gw_punt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PuntReason {
    /// No session.
    Miss = 0,
    /// The session is of an older policy epoch: the packet revalidates it.
    Epoch = 1,
    /// The next hop is not resolved, or has changed.
    NextHop = 2,
    /// SYN, FIN or RST.
    TcpFlags = 3,
    /// A fragment.
    Fragment = 4,
    /// IPv4 options, or IPv6 extension headers.
    Options = 5,
    /// A TTL or hop limit that ends here.
    Ttl = 6,
    /// Longer than the egress takes.
    Mtu = 7,
    /// ICMP without an identifier.
    Icmp = 8,
    /// Not well-formed; the worker names the reason.
    Malformed = 9,
    /// The record says so.
    Flow = 10,
    /// Of a session, but by another port or tunnel than its packets.
    Ingress = 11,
    /// No session, and it acknowledges a valid SYN cookie.
    Cookie = 12,
    /// A partial checksum in a socket buffer, which XDP cannot complete.
    Checksum = 13,
}

impl PuntReason {
    /// All of them, by number.
    pub const ALL: &'static [PuntReason] = &[
        PuntReason::Miss,
        PuntReason::Epoch,
        PuntReason::NextHop,
        PuntReason::TcpFlags,
        PuntReason::Fragment,
        PuntReason::Options,
        PuntReason::Ttl,
        PuntReason::Mtu,
        PuntReason::Icmp,
        PuntReason::Malformed,
        PuntReason::Flow,
        PuntReason::Ingress,
        PuntReason::Cookie,
        PuntReason::Checksum,
    ];

    /// The name in metrics, JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            PuntReason::Miss => "miss",
            PuntReason::Epoch => "epoch",
            PuntReason::NextHop => "nexthop",
            PuntReason::TcpFlags => "tcp-flags",
            PuntReason::Fragment => "fragment",
            PuntReason::Options => "options",
            PuntReason::Ttl => "ttl",
            PuntReason::Mtu => "mtu",
            PuntReason::Icmp => "icmp",
            PuntReason::Malformed => "malformed",
            PuntReason::Flow => "flow",
            PuntReason::Ingress => "ingress",
            PuntReason::Cookie => "cookie",
            PuntReason::Checksum => "checksum",
        }
    }
}

/// What XDP wrote in front of a punted frame (`struct gw_punt_meta`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PuntMeta {
    /// The flow record found, 0 = none.
    pub record: u32,
    /// VLAN that the frame came with, 0 = untagged.
    pub vlan: u16,
    /// Port that it came in by.
    pub port: PortIdx,
    /// Why it is a worker's.
    pub reason: PuntReason,
}

impl PuntMeta {
    /// Bytes in front of the frame.
    pub const LEN: usize = 8;
    /// Or-ed into the reason, so that bytes that were zeroed before the frame was received are no
    /// metadata: not every driver has XDP metadata.
    pub(crate) const SET: u8 = 0x80;

    /// Reads the bytes in front of a frame. `None`: there is no metadata.
    pub fn read(meta: [u8; Self::LEN]) -> Option<PuntMeta> {
        let [r0, r1, r2, r3, v0, v1, port, reason] = meta;
        if reason & Self::SET == 0 {
            return None;
        }
        let reason = *PuntReason::ALL.get(usize::from(reason & !Self::SET))?;
        Some(PuntMeta {
            record: u32::from_ne_bytes([r0, r1, r2, r3]),
            vlan: u16::from_ne_bytes([v0, v1]),
            port: PortIdx(port),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_metadata_is_no_note() {
        assert_eq!(PuntMeta::read([0; 8]), None);
        let note = PuntMeta::read([1, 2, 0, 0, 100, 0, 3, 0x81]).unwrap();
        assert_eq!(note, PuntMeta { record: 0x201, vlan: 100, port: PortIdx(3), reason: PuntReason::Epoch });
        assert_eq!(PuntMeta::read([0, 0, 0, 0, 0, 0, 0, 0xFF]), None);
    }
}
