//! Frames that a worker sends in bulk: they leave by the devices named, in their order, unchanged.

mod common;

use common::netns::*;
use common::root;
use sag_bpf::FrameSender;

/// Frames that no stack answers or sends by itself.
const ETHERTYPE: [u8; 2] = [0x88, 0xB5];

/// Number `n`, of `len` bytes, whose destination says by which of the two devices it is sent.
fn frame(n: usize, len: usize) -> Vec<u8> {
    let mut f: Vec<u8> = (0..len).map(|i| (i * 13 + n * 101) as u8).collect();
    f[..12].copy_from_slice(&[[2, 0, 0, 0, 0, n as u8 % 2], [2, 0, 0, 0, 0, n as u8]].concat());
    f[12..14].copy_from_slice(&ETHERTYPE);
    f
}

/// One that was sent by the device: a packet socket also hears what its own device sends.
fn sent_by(device: usize) -> impl Fn(&[u8]) -> bool {
    move |f| f[12..14] == ETHERTYPE && usize::from(f[5]) == device
}

fn lab() -> Option<(Netns, FrameSender)> {
    // Says SKIP to who may not load programs either.
    root()?;
    let ns = Netns::new()?;
    Some((ns, FrameSender::open().unwrap()))
}

#[test]
fn batches_arrive_as_they_are() {
    let Some((_ns, mut sender)) = lab() else { return };
    let (ears, devices) = ([Ear::new("vb"), Ear::new("va")], [ifindex("va"), ifindex("vb")]);
    // Longer and shorter ones by turns, twice: what the first batch has left does not show in the second.
    for round in 0..2 {
        let len = |n: usize| [60, 1514, 14, 61, 1000, FrameSender::MAX_FRAME][(n * 5 + round) % 6];
        let fits = |n: usize| len(n) <= 1514;
        let frames: Vec<Vec<u8>> = (0..FrameSender::FRAMES).map(|n| frame(n + 2 * round, len(n))).collect();
        for (n, f) in frames.iter().enumerate() {
            assert!(sender.push(devices[n % 2], f), "{n}");
        }
        assert_eq!(sender.len(), FrameSender::FRAMES);
        assert!(!sender.push(devices[0], &frames[0]), "there is no room for more");
        let mut refused = Vec::new();
        sender.flush(|n| refused.push(n)).unwrap();
        assert!(sender.is_empty());
        // The devices' MTU is 1,500.
        assert_eq!(refused, (0..FrameSender::FRAMES).filter(|n| !fits(*n)).collect::<Vec<_>>());
        for (n, f) in frames.iter().enumerate().filter(|(n, _)| fits(*n)) {
            let heard = ears[n % 2].hear(sent_by(n % 2));
            assert!(heard.as_ref() == Some(f), "frame {n} of {} bytes: {heard:?}", f.len());
        }
    }
}

#[test]
fn what_no_device_takes_is_named() {
    let Some((_ns, mut sender)) = lab() else { return };
    let ear = Ear::new("vb");
    let va = ifindex("va");
    let mut flush = |devices: &[u32]| {
        for (n, device) in devices.iter().enumerate() {
            assert!(sender.push(*device, &frame(2 * n, 64)));
        }
        let mut refused = Vec::new();
        sender.flush(|n| refused.push(n)).unwrap();
        refused
    };
    assert_eq!(flush(&[va, 9999, va]), [1]);
    assert_eq!([ear.hear(sent_by(0)), ear.hear(sent_by(0))], [Some(frame(0, 64)), Some(frame(4, 64))]);
    ip(&["link", "set", "vb", "down"]).unwrap();
    assert_eq!(flush(&[va, va]), [0, 1], "without carrier");
    ip(&["link", "set", "vb", "up"]).unwrap();
    ip(&["link", "set", "va", "down"]).unwrap();
    assert_eq!(flush(&[va]), [0], "down");
    assert!(!sender.push(va, &[0; 13]), "no link header");
    assert!(!sender.push(va, &[0; FrameSender::MAX_FRAME + 1]), "too long");
    sender.flush(|n| panic!("{n} was refused, and none was sent")).unwrap();
}
