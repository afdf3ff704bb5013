//! Packets that wait for their next hop's ARP or ND answer: copies in a fixed pool, a few per next
//! hop, for a few seconds.

use sag_model::{Nanos, PortIdx};
use std::net::IpAddr;
use std::time::Duration;

/// Packets that wait at one time, and for one next hop.
pub const SLOTS: usize = 256;
pub const PER_NEXTHOP: usize = 64;
/// The kernel probes three times, a second apart.
pub const PATIENCE: Duration = Duration::from_millis(3_200);
/// Room in front of a held frame, for a VLAN tag.
pub const HEADROOM: usize = 64;
pub const SLOT_BYTES: usize = 4096;

/// A packet that waits.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub port: PortIdx,
    pub to: IpAddr,
    /// Where it arrived.
    pub dev: u8,
    pub ingress: PortIdx,
    pub since: Nanos,
    pub len: u16,
    slot: u16,
}

#[derive(Debug)]
pub struct Hold {
    pool: Box<[u8]>,
    free: Vec<u16>,
    queue: Vec<Held>,
}

impl Default for Hold {
    fn default() -> Self {
        Hold {
            pool: vec![0; SLOTS * SLOT_BYTES].into_boxed_slice(),
            free: (0..SLOTS as u16).rev().collect(),
            queue: Vec::with_capacity(SLOTS),
        }
    }
}

impl Hold {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn waits_for(&self, port: PortIdx, to: IpAddr) -> bool {
        self.queue.iter().any(|h| h.port == port && h.to == to)
    }

    /// Keeps a copy; false if there is no room for it.
    pub fn push(
        &mut self,
        port: PortIdx,
        to: IpAddr,
        dev: u8,
        ingress: PortIdx,
        since: Nanos,
        frame: &[u8],
    ) -> bool {
        let waiting = self.queue.iter().filter(|h| h.port == port && h.to == to).count();
        if waiting >= PER_NEXTHOP || frame.len() > SLOT_BYTES - HEADROOM {
            return false;
        }
        let Some(slot) = self.free.pop() else { return false };
        let at = usize::from(slot) * SLOT_BYTES + HEADROOM;
        self.pool[at..at + frame.len()].copy_from_slice(frame);
        self.queue.push(Held { port, to, dev, ingress, since, len: frame.len() as u16, slot });
        true
    }

    /// Takes the oldest packet for which `ready` holds, in order of arrival.
    pub fn take(&mut self, mut ready: impl FnMut(&Held) -> bool) -> Option<Held> {
        let i = self.queue.iter().position(&mut ready)?;
        Some(self.queue.remove(i))
    }

    /// The buffer of a packet that was taken: headroom, then the frame.
    pub fn buffer(&mut self, held: &Held) -> &mut [u8] {
        let at = usize::from(held.slot) * SLOT_BYTES;
        &mut self.pool[at..at + SLOT_BYTES]
    }

    /// Gives the buffer of a taken packet back.
    pub fn done(&mut self, held: Held) {
        self.free.push(held.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn bounded_and_in_order() {
        let mut h = Hold::default();
        let to = |n: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
        let push = |h: &mut Hold, n: u8, b: u8| h.push(PortIdx(1), to(n), 0, PortIdx(0), Nanos(5), &[b; 60]);
        for i in 0..PER_NEXTHOP as u8 {
            assert!(push(&mut h, 1, i));
        }
        assert!(!push(&mut h, 1, 99));
        assert!(push(&mut h, 2, 50));
        let first = h.take(|x| x.to == to(1)).unwrap();
        assert_eq!(h.buffer(&first)[HEADROOM], 0);
        h.done(first);
        let next = h.take(|x| x.to == to(1)).unwrap();
        assert_eq!(h.buffer(&next)[HEADROOM], 1);
        assert!(!h.push(PortIdx(1), to(9), 0, PortIdx(0), Nanos(0), &[0; 5000]));
        let mut n = 0;
        for i in 0..=255u8 {
            n += usize::from(push(&mut h, i, i));
        }
        assert_eq!(n + PER_NEXTHOP - 2 + 1 + 1, SLOTS, "one slot is still taken");
    }
}
