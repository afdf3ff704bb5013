//! What is done with the packets of a flow: action word, epoch, ports of NAT.

/// The number of the epoch in [`FlowRecord::epoch`](super::FlowRecord::epoch); the other bits are marks. A record with a mark is
/// not of that epoch: XDP uses its stale action for the moment.
pub const EPOCH_NUMBER: u32 = 0x3FFF_FFFF;
/// Mark of a worker: the session is judged under this epoch, the route of this direction is not renewed yet.
pub const EPOCH_SESSION: u32 = 1 << 30;
/// Mark of XDP and workers: a revalidation of the flow is under way to a worker.
pub const EPOCH_REVALIDATING: u32 = 1 << 31;

/// The epoch after this one; 0 is never one.
pub const fn next_epoch(epoch: u32) -> u32 {
    match epoch.wrapping_add(1) & EPOCH_NUMBER {
        0 => 1,
        next => next,
    }
}

/// `enum gw_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowAct {
    /// Hand to a worker.
    Punt = 0,
    /// Rewrite and send.
    Forward = 1,
    /// Drop; `nexthop` is the reason.
    Drop = 2,
}

/// The source is translated.
pub const FLOW_SNAT: u8 = 1 << 0;
/// The destination is translated.
pub const FLOW_DNAT: u8 = 1 << 1;
/// The packet passes the meter group `meter`.
pub const FLOW_METER: u8 = 1 << 2;
/// Every packet goes to a worker.
pub const FLOW_PUNT_ALL: u8 = 1 << 3;

/// Bits 4 to 7 of the flags of a session's forward record: its state, for the next daemon. XDP does not look at them.
pub const FLOW_STATE_SHIFT: u8 = 4;

/// The action word of a record: what is stored with one store when a flow is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Index of the next hop, or the drop reason.
    pub nexthop: u16,
    /// Number of the meter group; 0: none.
    pub meter: u16,
    /// What is done.
    pub act: FlowAct,
    /// `FLOW_SNAT` and the others.
    pub flags: u8,
    /// Number of the tunnel; 0: none.
    pub tunnel: u8,
    /// Generation of the next hop; a next hop of another generation sends the packet to a worker.
    pub nh_gen: u8,
}

impl Action {
    /// Hand to a worker.
    pub const PUNT: Action =
        Action { nexthop: 0, meter: 0, act: FlowAct::Punt, flags: 0, tunnel: 0, nh_gen: 0 };

    /// As one word.
    #[inline]
    pub const fn to_word(self) -> u64 {
        self.nexthop as u64
            | (self.meter as u64) << 16
            | (self.act as u64) << 32
            | (self.flags as u64) << 40
            | (self.tunnel as u64) << 48
            | (self.nh_gen as u64) << 56
    }

    /// From one word.
    #[inline]
    pub const fn from_word(w: u64) -> Action {
        let act = match (w >> 32) as u8 {
            1 => FlowAct::Forward,
            2 => FlowAct::Drop,
            _ => FlowAct::Punt,
        };
        Action {
            nexthop: w as u16,
            meter: (w >> 16) as u16,
            act,
            flags: (w >> 40) as u8,
            tunnel: (w >> 48) as u8,
            nh_gen: (w >> 56) as u8,
        }
    }
}

/// Outside addresses of NAT that XDP can tell the ports of (`gw_nat_ports`).
pub const NAT_SLOTS: usize = 64;
/// Words of a slot: a bit for every port of TCP, then of UDP.
pub const NAT_SLOT_WORDS: usize = 2 * 65536 / 64;

/// Where the bit of an outside port is among the words of all slots: the word, and the bit in it.
#[inline]
pub const fn nat_port_bit(slot: u8, udp: bool, port: u16) -> (usize, u64) {
    let proto = if udp { NAT_SLOT_WORDS / 2 } else { 0 };
    (slot as usize * NAT_SLOT_WORDS + proto + port as usize / 64, 1 << (port % 64))
}

/// Counters of IPv4 identifications (`gw_ip_ids`).
pub const IP_ID_COUNTERS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_word_round_trip() {
        let a = Action { nexthop: 0xBEEF, meter: 7, act: FlowAct::Drop, flags: 5, tunnel: 9, nh_gen: 255 };
        assert_eq!(Action::from_word(a.to_word()), a);
        assert_eq!(Action::from_word(0), Action::PUNT);
    }
}
