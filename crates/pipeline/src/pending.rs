//! Packets that wait for something: copies in a fixed pool, a few for each thing waited for. A
//! worker has one such pool for unresolved next hops (ARP, ND), one for fragments ahead of their
//! first.

use crate::flow_ports::FlowPorts;
use crate::ids::TunnelNo;
use crate::resolution::{MAX_STRANGERS, Requester};
use sag_model::{Nanos, PortIdx};
use std::time::Duration;

/// Packets that wait at one time, and for one thing.
pub const SLOTS: usize = 256;
const _: () = assert!(SLOTS == 2 * MAX_STRANGERS as usize, "strangers leave half of the slots to others");
/// Packets that wait for one thing at one time.
pub const MAX_PER_KEY: usize = 64;
/// Time for a next hop to answer: the kernel probes three times, a second apart.
pub const TIMEOUT: Duration = Duration::from_millis(3_200);
/// Room in front of a held frame, for a VLAN tag and a tunnel's header.
pub const HEADROOM: usize = 128;
/// Bytes of a slot: headroom and frame.
pub const SLOT_BYTES: usize = 4096;
/// Memory of one pool.
pub const BYTES: usize = SLOTS * SLOT_BYTES;

/// How a packet arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Slot of the device in XDP's device map.
    pub dev: u8,
    /// The port by which it came.
    pub ingress: PortIdx,
    /// The tunnel that it has left.
    pub tunnel: Option<TunnelNo>,
    /// When.
    pub since: Nanos,
    /// Its own, or those of its datagram if it is a fragment.
    pub ports: FlowPorts,
    /// Whose share of the places for packets without a next hop it has.
    pub from: Requester,
}

/// A packet that waits for a `K`.
#[derive(Debug, Clone, Copy)]
pub struct PendingPacket<K> {
    /// What it waits for.
    pub key: K,
    /// How it arrived.
    pub arrival: Arrival,
    /// Bytes of the frame.
    pub len: usize,
    slot: u16,
}

/// Copies of packets that wait, each for a `K`; bounded, and allocated once.
#[derive(Debug)]
pub struct PendingQueue<K> {
    pool: Box<[u8]>,
    free: Vec<u16>,
    /// In order of arrival.
    queue: Vec<PendingPacket<K>>,
}

impl<K> Default for PendingQueue<K> {
    fn default() -> Self {
        PendingQueue {
            pool: vec![0; BYTES].into_boxed_slice(),
            free: (0..SLOTS as u16).rev().collect(),
            queue: Vec::with_capacity(SLOTS),
        }
    }
}

impl<K: Copy + PartialEq> PendingQueue<K> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether all slots are taken.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Whether a packet waits for `key`.
    pub fn waits_for(&self, key: K) -> bool {
        self.queue.iter().any(|h| h.key == key)
    }

    /// In order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &PendingPacket<K>> {
        self.queue.iter()
    }

    /// The packet that has waited longest.
    pub fn oldest(&self) -> Option<&PendingPacket<K>> {
        self.queue.first()
    }

    /// Keeps a copy; false if there is no room for it.
    pub fn push(&mut self, key: K, arrival: Arrival, frame: &[u8]) -> bool {
        let waiting = self.queue.iter().filter(|h| h.key == key).count();
        if waiting >= MAX_PER_KEY || frame.len() > SLOT_BYTES - HEADROOM {
            return false;
        }
        let Some(slot) = self.free.pop() else { return false };
        let at = usize::from(slot) * SLOT_BYTES + HEADROOM;
        self.pool[at..at + frame.len()].copy_from_slice(frame);
        self.queue.push(PendingPacket { key, arrival, len: frame.len(), slot });
        true
    }

    /// Takes the oldest packet for which `ready` holds, in order of arrival. Its frame is copied to
    /// `to` (of [`SLOT_BYTES`]), at [`HEADROOM`].
    pub fn take(
        &mut self,
        to: &mut [u8],
        ready: impl FnMut(&PendingPacket<K>) -> bool,
    ) -> Option<PendingPacket<K>> {
        let held = self.queue.remove(self.queue.iter().position(ready)?);
        let at = usize::from(held.slot) * SLOT_BYTES;
        let end = HEADROOM + held.len;
        to[..end].copy_from_slice(&self.pool[at..at + end]);
        self.free.push(held.slot);
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_in_order() {
        let mut h = PendingQueue::default();
        let arrival = Arrival {
            dev: 0,
            ingress: PortIdx(0),
            tunnel: None,
            since: Nanos(5),
            ports: FlowPorts::default(),
            from: Requester::default(),
        };
        let push = |h: &mut PendingQueue<u8>, n: u8, b: u8| h.push(n, arrival, &[b; 60]);
        let mut buf = [0; SLOT_BYTES];
        for i in 0..MAX_PER_KEY as u8 {
            assert!(push(&mut h, 1, i));
        }
        assert!(!push(&mut h, 1, 99));
        assert!(push(&mut h, 2, 50));
        for i in 0..2 {
            assert!(h.take(&mut buf, |x| x.key == 1).is_some());
            assert_eq!(buf[HEADROOM..HEADROOM + 60], [i; 60]);
        }
        assert!(h.take(&mut buf, |x| x.key == 3).is_none());
        assert!(!h.push(9, arrival, &[0; 5000]));
        assert!(!h.is_full());
        let mut n = 0;
        for i in 0..=255u8 {
            n += usize::from(push(&mut h, i, i));
        }
        assert_eq!(n + MAX_PER_KEY - 2 + 1, SLOTS);
        assert!(h.is_full());
    }
}
