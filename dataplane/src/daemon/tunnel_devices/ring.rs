//! Packets between devices of tunnels and workers: rings of buffers that go round, so that a packet costs no allocation
//! and is not copied on the way to its worker.

use crossbeam_channel::{Receiver, Sender, bounded};
use sag_pipeline::hash::AddrHash;
use sag_pipeline::originate::LINK_ROOM;
use sag_pipeline::tunnel::TunnelNo;
use sag_pipeline::worker::{DEVICE_BUFFER, DEVICE_MAX_MTU};
use std::hash::BuildHasher;
use std::io::Write;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;

/// Packets that wait for a worker, at most.
const PLACES: usize = 256;

/// A packet that the kernel has sent by a device, behind room for headers.
#[derive(Debug)]
pub struct DevicePacket {
    pub tunnel: TunnelNo,
    pub len: usize,
    pub buf: Box<[u8]>,
}

impl DevicePacket {
    pub fn new(tunnel: TunnelNo) -> DevicePacket {
        DevicePacket { tunnel, len: 0, buf: vec![0; DEVICE_BUFFER].into_boxed_slice() }
    }

    /// Takes the next packet of a device in.
    pub fn read(&mut self, mut device: impl Read) -> io::Result<()> {
        self.len = device.read(&mut self.buf[LINK_ROOM..LINK_ROOM + usize::from(DEVICE_MAX_MTU)])?;
        Ok(())
    }

    /// A number that all packets of a flow have: they go by one worker, and keep their order.
    pub fn flow_hash(&self) -> u64 {
        flow_hash(&self.buf[LINK_ROOM..LINK_ROOM + self.len])
    }
}

fn flow_hash(packet: &[u8]) -> u64 {
    let hash = |words: (&[u8], &[u8])| AddrHash::default().hash_one(words);
    let has_ports = |proto: u8| matches!(proto, 6 | 17 | 132);
    match packet {
        // Fragments of a datagram go one way, whether they have ports or not.
        [0x45, _, _, _, _, _, f, g, _, proto, ..] if packet.len() >= 24 => {
            let whole = f & 0x3F == 0 && *g == 0;
            hash((&packet[12..20], if whole && has_ports(*proto) { &packet[20..24] } else { &[] }))
        }
        [first, ..] if first >> 4 == 4 => hash((packet.get(12..20).unwrap_or_default(), &[])),
        [_, _, _, _, _, _, proto, ..] if packet.len() >= 44 => {
            hash((&packet[8..40], if has_ports(*proto) { &packet[40..44] } else { &[] }))
        }
        _ => 0,
    }
}

/// The reader's end of a worker's ring.
#[derive(Debug)]
pub struct RingSender {
    full: Sender<DevicePacket>,
    free: Receiver<DevicePacket>,
    /// Buffers that have been made: none before there is a packet for it.
    made: usize,
    kick: UnixStream,
    /// Packets have gone since the worker was last called.
    fresh: bool,
}

/// The worker's end.
#[derive(Debug)]
pub struct RingReceiver {
    full: Receiver<DevicePacket>,
    free: Sender<DevicePacket>,
}

/// A ring to the worker that a byte in `kick` wakes.
pub fn ring(kick: UnixStream) -> (RingSender, RingReceiver) {
    let ((full, packets), (free, buffers)) = (bounded(PLACES), bounded(PLACES));
    let sender = RingSender { full, free: buffers, made: 0, kick, fresh: false };
    (sender, RingReceiver { full: packets, free })
}

impl RingSender {
    /// Hands a packet over, whose place an empty buffer takes. False: the ring is full.
    pub fn push(&mut self, packet: &mut DevicePacket) -> bool {
        let empty = match self.free.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.made < PLACES => {
                self.made += 1;
                DevicePacket::new(packet.tunnel)
            }
            Err(_) => return false,
        };
        // There are no more buffers than places.
        self.fresh |= self.full.try_send(std::mem::replace(packet, empty)).is_ok();
        true
    }

    /// Ends the worker's sleep if there is something new.
    pub fn wake(&mut self) {
        if std::mem::take(&mut self.fresh) {
            // A full pipe means that the worker has been called already.
            let _ = self.kick.write(&[1]);
        }
    }
}

impl RingReceiver {
    pub fn next(&self) -> Option<DevicePacket> {
        self.full.try_recv().ok()
    }

    /// The packet has been sent, or dropped.
    pub fn give_back(&self, packet: DevicePacket) {
        // There are no more buffers than places.
        let _ = self.free.try_send(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_flow_have_one_number() {
        let v4 = |ports: [u8; 4], flags: u8, proto: u8| {
            let mut p = vec![0x45, 0, 0, 40, 0, 0, flags, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            p.extend(ports);
            p.extend([0; 16]);
            flow_hash(&p)
        };
        assert_eq!(
            v4([0, 1, 0, 2], 0, 6),
            v4([0, 1, 0, 2], 0x40, 6),
            "\"don't fragment\" makes no other flow"
        );
        assert_ne!(v4([0, 1, 0, 2], 0, 6), v4([0, 1, 0, 3], 0, 6));
        assert_eq!(v4([0, 1, 0, 2], 0x20, 17), v4([7, 7, 7, 7], 0, 1), "fragments have no ports");
        let v6 = |ports: [u8; 4], next: u8| {
            let mut p = vec![0x60, 0, 0, 0, 0, 20, next, 64];
            p.extend([1; 32]);
            p.extend(ports);
            flow_hash(&p)
        };
        assert_ne!(v6([0, 1, 0, 2], 17), v6([0, 1, 0, 3], 17));
        assert_eq!(v6([0, 1, 0, 2], 44), v6([0, 1, 0, 3], 44));
        for short in 0..44 {
            let _any = (flow_hash(&[0x45; 44][..short]), flow_hash(&[0x60; 44][..short]));
        }
    }

    #[test]
    fn a_ring_has_so_many_places_and_wakes_once() {
        let (kick, mut woken) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        let (mut sender, receiver) = ring(kick);
        let mut packet = DevicePacket::new(TunnelNo::new(1).unwrap());
        for n in 0..PLACES {
            packet.len = n;
            assert!(sender.push(&mut packet), "{n}");
        }
        packet.len = 7;
        assert!(!sender.push(&mut packet), "full");
        assert_eq!(packet.len, 7, "it is still there");
        sender.wake();
        sender.wake();
        let mut bytes = [0; 8];
        assert_eq!(woken.read(&mut bytes).unwrap(), 1);
        let first = receiver.next().unwrap();
        assert_eq!(first.len, 0);
        assert!(!sender.push(&mut packet), "its buffer is in use");
        receiver.give_back(first);
        assert!(sender.push(&mut packet));
        for n in 1..PLACES {
            assert_eq!(receiver.next().unwrap().len, n);
        }
        assert_eq!(receiver.next().unwrap().len, 7);
        assert!(receiver.next().is_none());
    }
}
