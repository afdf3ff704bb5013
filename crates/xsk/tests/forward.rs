//! Sockets on real veth pairs: forwarding without a copy, devices that come and go, and the count of
//! all frames at the end. Needs root, or CAP_NET_ADMIN, CAP_BPF and CAP_SYS_ADMIN.

mod common;

use common::bpf::{Redirect, Sink};
use common::{Netns, Raw, udp_packet};
use sag_xsk::nic::{self, Facts};
use sag_xsk::{
    Binding, Census, Frame, IfName, Mode, OpenError, Socket, SocketConfig, SocketError, Umem, UmemConfig, sys,
};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const FRAMES: u32 = 1024;
const ETHERNET_HEADER: usize = 14;

/// A gateway namespace with a host on either side, named after the test.
struct Bed {
    gateway: Netns,
    left: Netns,
    right: Netns,
}

impl Bed {
    fn new(test: &str, queues: u32) -> Option<Bed> {
        let netns = |role: &str| Netns::new(&format!("xsk-t-{test}-{role}"));
        let bed = Bed { gateway: netns("gw")?, left: netns("l")?, right: netns("r")? };
        bed.gateway.veth("a", &bed.left, "ha", queues);
        bed.gateway.veth("b", &bed.right, "hb", queues);
        Some(bed)
    }
}

fn index(device: &str) -> u32 {
    nic::ifindex(IfName::new(device).unwrap()).unwrap()
}

fn umem() -> Umem {
    Umem::new(&UmemConfig { frames: FRAMES, ..UmemConfig::default() }).unwrap()
}

fn small_rings(device: &str, queue: u32) -> SocketConfig {
    SocketConfig {
        rx_ring: 128,
        tx_ring: 128,
        fill_ring: 128,
        fill_level: 128,
        ..SocketConfig::new(device, queue)
    }
}

/// Two ports, everything from one to the other.
struct Forwarder {
    umem: Umem,
    ports: [Socket; 2],
    programs: [Redirect; 2],
    batch: Vec<Frame>,
    /// Bytes to put in front of each packet.
    prepend: usize,
    refused: usize,
}

impl Forwarder {
    fn new(devices: [&str; 2]) -> Forwarder {
        let mut umem = umem();
        let ports = devices.map(|device| Socket::open(&mut umem, &small_rings(device, 0)).unwrap());
        let programs = devices.map(|device| Redirect::attach(index(device)).unwrap());
        for (program, port) in programs.iter().zip(&ports) {
            program.set(0, port.fd()).unwrap();
        }
        Forwarder { umem, ports, programs, batch: Vec::with_capacity(64), prepend: 0, refused: 0 }
    }

    /// One round of the loop; the number of packets moved.
    fn step(&mut self) -> usize {
        let mut moved = 0;
        for from in 0..2 {
            let [first, second] = &mut self.ports;
            let (from, to) = if from == 0 { (first, second) } else { (second, first) };
            from.complete(&mut self.umem);
            from.refill(&mut self.umem);
            moved += from.rx(&mut self.umem, &mut self.batch, 64);
            for mut frame in self.batch.drain(..) {
                if self.prepend > 0 {
                    let (chunk, start, len) = frame.packet_mut();
                    chunk.copy_within(start..start + ETHERNET_HEADER, start - self.prepend);
                    chunk[start - self.prepend + ETHERNET_HEADER..start + ETHERNET_HEADER].fill(0xaa);
                    assert!(frame.set_range(start - self.prepend, len + self.prepend));
                }
                if let Err(frame) = to.send(&mut self.umem, frame) {
                    self.umem.release(frame);
                    self.refused += 1;
                }
            }
            to.flush().unwrap();
        }
        moved
    }

    /// Runs the loop until `packets` have been moved, and all of them have gone out.
    fn run(&mut self, packets: usize) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut moved = 0;
        while moved < packets || self.ports.iter().any(|port| port.in_flight() > 0) {
            moved += self.step();
            assert!(Instant::now() < deadline, "{moved} of {packets} packets moved");
        }
        assert_eq!(self.refused, 0);
    }

    fn close(self) -> Umem {
        let Forwarder { mut umem, ports, .. } = self;
        for port in ports {
            port.close(&mut umem);
        }
        umem
    }
}

/// All frames are back on the free list, at the latest when the quarantine is over.
fn assert_all_free(umem: &mut Umem) {
    assert_eq!(umem.census().total(), umem.frame_count());
    let deadline = Instant::now() + Duration::from_secs(3);
    while umem.free_count() < umem.frame_count() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        umem.reclaim(sys::now());
    }
    assert_eq!(umem.census(), Census { free: umem.frame_count(), ..Census::default() });
    assert_eq!(umem.foreign(), 0);
}

/// Packets of all lengths, many times the size of the rings, both ways; every one arrives as it was.
#[test]
fn packets_cross_intact_and_no_frame_is_lost() {
    let Some(bed) = Bed::new("cross", 1) else { return };
    let left = bed.left.enter(|| Raw::open("ha").unwrap());
    let right = bed.right.enter(|| Raw::open("hb").unwrap());
    bed.gateway.enter(|| {
        let mut gateway = Forwarder::new(["a", "b"]);
        let mut seed = 0;
        for round in 0..200 {
            for (from, to) in [(&left, &right), (&right, &left)] {
                let sent: Vec<_> = (0..50)
                    .map(|_| {
                        seed += 1;
                        udp_packet(60 + seed as usize % 1455, seed)
                    })
                    .collect();
                for packet in &sent {
                    from.send(packet).unwrap();
                }
                gateway.run(sent.len());
                let received = std::iter::repeat_with(|| to.receive().unwrap());
                for (expected, got) in sent.iter().zip(received) {
                    assert!(*expected == got, "round {round}: packet changed on its way");
                }
            }
        }
        let census = gateway.umem.census();
        assert_eq!((census.user, census.sending, census.total()), (0, 0, FRAMES as usize), "{census:?}");
        assert_eq!(
            census.receiving,
            gateway.ports.iter().map(|port| port.rx_posted() as usize).sum::<usize>()
        );
        for port in &gateway.ports {
            let stats = port.stats().unwrap();
            assert_eq!((stats.rx_dropped, stats.rx_invalid_descs, stats.tx_invalid_descs), (0, 0, 0));
        }
        assert_all_free(&mut gateway.close());
    });
}

#[test]
fn a_header_prepended_in_the_headroom_goes_out() {
    let Some(bed) = Bed::new("grow", 1) else { return };
    let left = bed.left.enter(|| Raw::open("ha").unwrap());
    let right = bed.right.enter(|| Raw::open("hb").unwrap());
    bed.gateway.enter(|| {
        let mut gateway = Forwarder::new(["a", "b"]);
        gateway.prepend = 50;
        let packet = udp_packet(900, 1);
        left.send(&packet).unwrap();
        gateway.run(1);
        let got = right.receive().unwrap();
        assert_eq!(got.len(), 950);
        assert_eq!(got[..ETHERNET_HEADER], packet[..ETHERNET_HEADER]);
        assert!(got[ETHERNET_HEADER..64].iter().all(|&b| b == 0xaa));
        assert_eq!(got[64..], packet[ETHERNET_HEADER..]);
        assert_all_free(&mut gateway.close());
    });
}

/// The first device, through whose socket the others share the memory, is deleted under traffic.
#[test]
fn a_vanished_device_gives_its_frames_back_and_others_go_on() {
    let Some(bed) = Bed::new("vanish", 1) else { return };
    let left = bed.left.enter(|| Raw::open("ha").unwrap());
    let right = bed.right.enter(|| Raw::open("hb").unwrap());
    bed.gateway.enter(|| {
        let mut gateway = Forwarder::new(["a", "b"]);
        let packets = |n: u64| (0..n).map(|seed| udp_packet(200, seed)).collect::<Vec<_>>();
        for packet in packets(40) {
            left.send(&packet).unwrap();
            right.send(&packet).unwrap();
        }
        gateway.run(80);
        // Frames in every place: waiting in the receive rings, in the user's hands, unsent.
        for packet in packets(60) {
            left.send(&packet).unwrap();
            right.send(&packet).unwrap();
        }
        let [a, b] = &mut gateway.ports;
        assert_eq!(a.rx(&mut gateway.umem, &mut gateway.batch, 30), 30);
        assert_eq!(b.rx(&mut gateway.umem, &mut gateway.batch, 20), 20);
        a.probe().unwrap();

        bed.left.ip("link del dev ha");
        let gone = SocketError::Gone { device: IfName::new("a").unwrap(), queue: 0 };
        assert_eq!(a.probe(), Err(gone));
        let frames = gateway.batch.len();
        assert_eq!(a.tx(&mut gateway.umem, &mut gateway.batch), frames);
        assert_eq!(a.flush(), Err(gone));

        // A new port while the dead one is still open: another socket vouches for the memory.
        bed.gateway.veth("c", &bed.left, "hc", 1);
        let third = bed.left.enter(|| Raw::open("hc").unwrap());
        let c = Socket::open(&mut gateway.umem, &small_rings("c", 0)).unwrap();
        let program = Redirect::attach(index("c")).unwrap();
        program.set(0, c.fd()).unwrap();
        let a = std::mem::replace(&mut gateway.ports[0], c);
        gateway.programs[0] = program;

        let before = gateway.umem.census();
        assert_eq!(before.total(), FRAMES as usize);
        let owed = a.rx_posted() as usize;
        a.close(&mut gateway.umem);
        let after = gateway.umem.census();
        assert_eq!((after.free, after.deferred), (before.free + owed, 50), "{before:?} {after:?}");

        // What waited for b is forwarded to c, then traffic flows both ways.
        gateway.run(40);
        for packet in packets(300).chunks(30) {
            for packet in packet {
                third.send(packet).unwrap();
                right.send(packet).unwrap();
            }
            gateway.run(60);
        }
        assert_eq!(gateway.umem.census().total(), FRAMES as usize);
        // With the last socket gone too, the memory is registered again.
        let mut umem = gateway.close();
        assert_all_free(&mut umem);
        let again = Socket::open(&mut umem, &small_rings("c", 0)).unwrap();
        drop(again);
        assert_all_free(&mut umem);
    });
}

/// Nobody is left to share the registration with: the same memory is registered a second time while
/// the first registration is still held by the dead socket.
#[test]
fn the_memory_can_be_registered_twice() {
    let Some(bed) = Bed::new("twice", 1) else { return };
    let right = bed.right.enter(|| Raw::open("hb").unwrap());
    bed.gateway.enter(|| {
        let mut umem = umem();
        let dead = Socket::open(&mut umem, &small_rings("a", 0)).unwrap();
        bed.left.ip("link del dev ha");
        let mut alive = Socket::open(&mut umem, &small_rings("b", 0)).unwrap();
        for seed in 0..100 {
            let packet = udp_packet(300, seed);
            let mut frame = umem.alloc().unwrap();
            assert!(frame.set_range(384, packet.len()));
            frame.bytes_mut().copy_from_slice(&packet);
            alive.send(&mut umem, frame).unwrap();
            alive.flush().unwrap();
            assert_eq!(right.receive().unwrap(), packet);
        }
        // Dropped rather than closed: found out by the next reclaim.
        drop(dead);
        alive.close(&mut umem);
        assert_all_free(&mut umem);
    });
}

#[test]
fn a_device_that_is_down_is_recognized_and_resumes() {
    let Some(bed) = Bed::new("down", 1) else { return };
    bed.gateway.enter(|| {
        let mut umem = umem();
        let mut socket = Socket::open(&mut umem, &small_rings("b", 0)).unwrap();
        bed.gateway.ip("link set dev b down");
        let down = SocketError::Down { device: IfName::new("b").unwrap() };
        assert_eq!(socket.probe(), Err(down));
        let mut frame = umem.alloc().unwrap();
        let packet = udp_packet(100, 7);
        assert!(frame.set_range(384, packet.len()));
        frame.bytes_mut().copy_from_slice(&packet);
        socket.send(&mut umem, frame).unwrap();
        assert_eq!(socket.flush(), Err(down));
        let error = Socket::open(&mut umem, &small_rings("b", 1)).unwrap_err();
        assert!(error.to_string().contains('b'), "{error}");

        let right = bed.right.enter(|| Raw::open("hb").unwrap());
        bed.gateway.ip("link set dev b up");
        let deadline = Instant::now() + Duration::from_secs(5);
        while socket.in_flight() > 0 && Instant::now() < deadline {
            socket.flush().unwrap();
            socket.complete(&mut umem);
        }
        assert_eq!(right.receive().unwrap(), packet);
        socket.close(&mut umem);
        assert_all_free(&mut umem);
    });
}

#[test]
fn opening_fails_with_the_reason() {
    let Some(bed) = Bed::new("refuse", 2) else { return };
    bed.gateway.enter(|| {
        let (mut one, mut other) = (umem(), umem());
        let first = Socket::open(&mut one, &small_rings("a", 0)).unwrap();
        let refused = Binding::Copy { refused: Some(libc::EOPNOTSUPP) };
        assert_eq!(first.binding(), refused);
        for umem in [&mut one, &mut other] {
            let error = Socket::open(umem, &small_rings("a", 0)).unwrap_err();
            assert!(matches!(error, OpenError::QueueBusy { queue: 0, .. }), "{error}");
        }
        let error = Socket::open(&mut one, &small_rings("a", 2)).unwrap_err();
        assert!(matches!(error, OpenError::NoQueue { queue: 2, .. }), "{error}");
        let error = Socket::open(&mut one, &small_rings("nope", 0)).unwrap_err();
        assert!(matches!(error, OpenError::NoDevice(_)), "{error}");
        let zero_copy = SocketConfig { mode: Mode::ZeroCopy, ..small_rings("b", 0) };
        let error = Socket::open(&mut one, &zero_copy).unwrap_err();
        assert!(matches!(error, OpenError::ZeroCopyRefused { .. }), "{error}");
        let odd = SocketConfig { rx_ring: 100, ..small_rings("b", 0) };
        assert!(matches!(Socket::open(&mut one, &odd), Err(OpenError::RingSize(100))));

        let copy = SocketConfig { mode: Mode::Copy, ..small_rings("b", 1) };
        let second = Socket::open(&mut one, &copy).unwrap();
        assert_eq!(second.binding(), Binding::Copy { refused: None });
        let facts = Facts::read("a").unwrap();
        assert_eq!((facts.driver.as_str(), facts.rx_queues, facts.up), ("veth", 2, true));
        let line = facts.line(first.binding()).to_string();
        let start = "a: driver veth, 2 queues, copy mode (zero-copy refused: EOPNOTSUPP), MTU 1500";
        assert!(line.starts_with(start), "{line}");

        // Once closed, the queue can be had again, by the other memory too.
        first.close(&mut one);
        let first = Socket::open(&mut other, &small_rings("a", 0)).unwrap();
        first.close(&mut other);
        second.close(&mut one);
        assert_all_free(&mut one);
        assert_all_free(&mut other);
    });
}

/// A socket set made by one thread works on another, and each queue has a socket of its own.
#[test]
fn sockets_of_all_queues_move_to_their_worker() {
    let Some(bed) = Bed::new("queues", 2) else { return };
    bed.gateway.enter(|| {
        let mut umem = umem();
        let mut sockets: Vec<_> =
            [0, 1].map(|queue| Socket::open(&mut umem, &small_rings("a", queue)).unwrap()).into();
        let sink = bed.left.enter(|| Sink::attach(index("ha")).unwrap());
        let umem = std::thread::spawn(move || {
            for socket in &mut sockets {
                let mut frames = Vec::new();
                for seed in 0..100 {
                    let mut frame = umem.alloc().unwrap();
                    assert!(frame.set_range(384, 60));
                    frame.bytes_mut().copy_from_slice(&udp_packet(60, seed));
                    frames.push(frame);
                }
                assert_eq!(socket.tx(&mut umem, &mut frames), 100);
                assert!(frames.is_empty());
                let deadline = Instant::now() + Duration::from_secs(5);
                while socket.in_flight() > 0 && Instant::now() < deadline {
                    socket.flush().unwrap();
                    socket.complete(&mut umem);
                    sys::poll(&mut [sys::readable(socket.fd().as_fd())], 1).unwrap();
                }
            }
            drop(sockets);
            umem
        })
        .join();
        assert_all_free(&mut umem.unwrap());
        assert_eq!(sink.count().unwrap(), 200);
    });
}

/// What does not fit stays with the sender, and what is no packet is not sent.
#[test]
fn full_rings_and_runts_are_refused() {
    let Some(bed) = Bed::new("full", 1) else { return };
    bed.gateway.enter(|| {
        let mut umem = umem();
        let mut socket = Socket::open(&mut umem, &small_rings("a", 0)).unwrap();
        let runt = umem.alloc().unwrap();
        let runt = socket.send(&mut umem, runt).unwrap_err();
        umem.release(runt);
        let mut frames = Vec::new();
        while let Some(mut frame) = umem.alloc() {
            assert!(frame.set_range(384, 60));
            frame.bytes_mut().copy_from_slice(&udp_packet(60, 1));
            frames.push(frame);
        }
        assert_eq!(frames.len(), FRAMES as usize - 128);
        assert_eq!(socket.tx(&mut umem, &mut frames), 128);
        assert_eq!((socket.room(), frames.len()), (0, FRAMES as usize - 256));
        assert_eq!(socket.tx(&mut umem, &mut frames), 0);
        let frame = frames.pop().unwrap();
        let frame = socket.send(&mut umem, frame).unwrap_err();
        umem.release(frame);
        umem.release_all(&mut frames);
        // Unsent when closed: they come back after the quarantine only.
        socket.close(&mut umem);
        assert_eq!(umem.census().deferred, 128);
        assert_all_free(&mut umem);
    });
}
