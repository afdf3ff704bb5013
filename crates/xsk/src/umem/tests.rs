//! Ownership of chunks, without a kernel.

use super::*;
use crate::umem::ledger::Owner;

fn small() -> Umem {
    Umem::new(&UmemConfig { frames: 64, ..UmemConfig::default() }).unwrap()
}

#[test]
fn chunk_follows_the_mtu() {
    assert_eq!(ChunkSize::for_mtu(1500, 128).unwrap(), ChunkSize::B2048);
    assert_eq!(ChunkSize::for_mtu(1642, 128).unwrap(), ChunkSize::B2048);
    assert_eq!(ChunkSize::for_mtu(1643, 128).unwrap(), ChunkSize::B4096);
    let error = ChunkSize::for_mtu(9000, 128).unwrap_err().to_string();
    assert!(error.contains("MTU 9000") && error.contains("3690"), "{error}");
    assert!(ChunkSize::for_mtu(u32::MAX, 128).is_err());
}

#[test]
fn bad_sizes_are_refused() {
    let config = |frames, headroom| UmemConfig { frames, headroom, ..UmemConfig::default() };
    assert!(matches!(Umem::new(&config(63, 128)), Err(UmemError::FrameCount(63))));
    assert!(matches!(Umem::new(&config(64, 4)), Err(UmemError::Headroom { .. })));
    assert!(matches!(Umem::new(&config(64, 1024)), Err(UmemError::Headroom { .. })));
}

#[test]
fn frames_are_handed_out_once_and_come_back() {
    let mut umem = small();
    let mut frames = Vec::new();
    while let Some(mut frame) = umem.alloc() {
        let n = frames.len() as u8;
        assert!(frame.set_range(384, 64));
        frame.bytes_mut().fill(n);
        frames.push(frame);
    }
    assert_eq!((frames.len(), umem.free_count()), (64, 0));
    for (n, frame) in frames.iter().enumerate() {
        assert!(frame.bytes().iter().all(|&b| usize::from(b) == n));
    }
    assert_eq!(umem.census(), Census { user: 64, ..Census::default() });
    umem.release_all(&mut frames);
    assert_eq!(umem.census(), Census { free: 64, ..Census::default() });
}

#[test]
fn a_packet_grows_at_the_front_and_stays_in_its_chunk() {
    let mut umem = small();
    let mut frame = umem.alloc().unwrap();
    assert_eq!((frame.headroom(), frame.len()), (384, 0));
    assert!(frame.set_range(384, 1664));
    assert_eq!(frame.tailroom(), 0);
    assert!(!frame.set_range(384, 1665) && !frame.set_range(2049, 0) && !frame.set_range(1, usize::MAX));
    frame.bytes_mut()[0] = 9;
    let (chunk, start, len) = frame.packet_mut();
    assert_eq!((chunk.len(), chunk[start]), (2048, 9));
    chunk[start - 50] = 7;
    assert!(frame.set_range(start - 50, len + 50));
    assert_eq!((frame.bytes()[0], frame.bytes()[50]), (7, 9));
    assert_eq!(frame.front(334).map(<[u8]>::len), Some(334));
    assert!(frame.front(335).is_none());
    umem.release(frame);
}

#[test]
fn frames_outlive_their_memory_and_are_refused_by_another() {
    let (mut one, mut other) = (small(), small());
    let mut frame = one.alloc().unwrap();
    drop(one);
    assert!(frame.set_range(0, 2048));
    frame.bytes_mut().fill(1);
    other.release(frame);
    assert_eq!((other.foreign(), other.free_count()), (1, 64));
}

#[test]
fn ring_entries_are_checked_against_the_ledger() {
    let mut umem = small();
    let (ours, theirs) = (Owner::receiving(0), Owner::receiving(1));
    let addr = umem.post_rx(ours).unwrap();
    let desc = |addr, len| libc::xdp_desc { addr, len, options: 0 };
    assert!(umem.received(desc(addr + 384, 60), theirs).is_none());
    assert!(umem.received(desc(addr + 384, 1665), ours).is_none());
    assert!(umem.received(desc(64 * 2048, 60), ours).is_none());
    assert!(umem.received(desc(u64::MAX, 60), ours).is_none());
    let frame = umem.received(desc(addr + 384, 60), ours).unwrap();
    assert!(umem.received(desc(addr + 384, 60), ours).is_none(), "handed out twice");
    assert_eq!(umem.foreign(), 5);
    let sent = umem.sending(frame, Owner::sending(0)).unwrap();
    umem.sent(sent.addr, Owner::sending(1));
    assert_eq!((umem.foreign(), umem.free_count()), (6, 63));
    umem.sent(sent.addr, Owner::sending(0));
    umem.sent(sent.addr, Owner::sending(0));
    assert_eq!((umem.foreign(), umem.free_count()), (7, 64));
}

#[test]
#[cfg(debug_assertions)]
fn dropping_a_frame_is_detected() {
    let mut umem = small();
    let frame = umem.alloc().unwrap();
    let lost = Frame::lost();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame))).is_err());
    assert!(Frame::lost() > lost);
}
