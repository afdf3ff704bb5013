//! Shared by the tests that need root: a BPF file system of their own and a gateway on it, and
//! packets built field by field with checksums computed the slow way.
#![allow(dead_code)]

pub mod netns;
pub mod packet;

use sag_bpf::{Gateway, OpenOptions, PortEntry, PuntReason, TestFrame, TestRun};
use sag_model::flow::*;
use sag_model::{DropReason, MacAddr, PortIdx, Zone};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_REDIRECT: u32 = 4;

/// Loopback, where test runs arrive unless a test says otherwise.
pub const LO: u32 = 1;
pub const GW_MAC: MacAddr = MacAddr([0x02, 0, 0x5e, 0, 0, 1]);
pub const HOST_MAC: MacAddr = MacAddr([0x02, 0, 0x5e, 0, 0, 0x99]);
pub const NEXT_MAC: MacAddr = MacAddr([0x02, 0, 0x5e, 0, 1, 2]);
pub const OUT_MAC: MacAddr = MacAddr([0x02, 0, 0x5e, 0, 1, 1]);
pub const LAN: PortIdx = PortIdx(3);
pub const WAN: PortIdx = PortIdx(5);

/// Prints why a test cannot run here; the caller returns.
pub fn skip(why: &str) {
    println!("SKIP {why}");
    eprintln!("SKIP {why}");
}

/// None, with a reason printed, where BPF cannot be used.
pub fn root() -> Option<Bpffs> {
    let dir = tempfile::tempdir().ok()?;
    let out = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(dir.path()).output();
    match out {
        Ok(o) if o.status.success() => Some(Bpffs { dir: Some(dir) }),
        Ok(o) => {
            skip(&format!("cannot mount a BPF file system: {}", String::from_utf8_lossy(&o.stderr).trim()));
            None
        }
        Err(e) => {
            skip(&format!("cannot run mount: {e}"));
            None
        }
    }
}

/// A private BPF file system, gone with this value.
pub struct Bpffs {
    dir: Option<tempfile::TempDir>,
}

impl Bpffs {
    pub fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    pub fn pin_dir(&self) -> PathBuf {
        self.path().join("sag")
    }

    pub fn options(&self) -> OpenOptions {
        OpenOptions { pin_dir: self.pin_dir(), lock_file: self.lock_file(), sessions4: 1000, sessions6: 100 }
    }

    /// Beside the mount point: the BPF file system holds no plain files.
    pub fn lock_file(&self) -> PathBuf {
        self.path().with_extension("lock")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.lock_file());
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A gateway with one LAN port on the loopback device (slot 0) and an AF_XDP socket at queue 0.
pub struct Fixture {
    pub gw: Gateway,
    pub socket: OwnedFd,
    // Dropped last.
    pub fs: Bpffs,
}

pub fn port_entry() -> PortEntry {
    PortEntry { port: LAN, side: Zone::Lan.into(), dev: 0, mac: GW_MAC, on: true, vlans: false, skb: false }
}

impl Fixture {
    pub fn new() -> Option<Fixture> {
        let fs = root()?;
        let gw = Gateway::open(&fs.options()).expect("open");
        gw.set_port(LO, &port_entry()).unwrap();
        gw.set_dev(0, LO).unwrap();
        let socket = af_xdp_socket();
        gw.set_xsk(0, 0, socket.as_fd()).unwrap();
        let c = gw.control();
        c.seed.store(0x1234_5678_9abc_def0, Relaxed);
        c.epoch.store(7, Relaxed);
        c.index4.store(Geometry::sized(64).to_word(), Relaxed);
        c.index6.store(Geometry::sized(8).to_word(), Relaxed);
        c.fail_action.store(1, Relaxed);
        c.fast_path.store(1, Relaxed);
        Some(Fixture { gw, socket, fs })
    }

    /// Runs the program on a frame that arrives on the LAN port and checks that the packet accounting holds
    /// with exactly one outcome more. A priority tag is not counted.
    pub fn run(&self, frame: &[u8]) -> TestRun {
        let before = self.gw.stats(LAN).unwrap();
        let run = self.gw.test_run(TestFrame { bytes: frame, ifindex: 0, queue: 0 }).unwrap();
        let after = self.gw.stats(LAN).unwrap();
        assert!(after.balanced(), "{after:?}");
        assert_eq!(after.rx_packets, before.rx_packets + 1);
        assert_eq!(after.rx_bytes, before.rx_bytes + untagged(frame).len() as u64);
        assert_ne!(run.action, 0, "aborted");
        run
    }

    /// Publishes an IPv4 record in the first free word of its first bucket.
    pub fn install4(&self, n: u32, key: Key4, fill: impl FnOnce(&FlowRecord4)) {
        let r = &self.gw.flows4()[n as usize];
        r.set_key(&key);
        r.set_ingress(IngressId::port(LAN));
        r.epoch.store(7, Relaxed);
        fill(r);
        let c = self.gw.control();
        let live = Geometry::from_word(c.index4.load(Relaxed));
        let p = Probe::new(key.hash(c.seed.load(Relaxed)), live.mask);
        publish(&self.gw.index4()[(live.base + p.first) as usize], p.tag, n);
    }

    pub fn install6(&self, n: u32, key: Key6, fill: impl FnOnce(&FlowRecord6)) {
        let r = &self.gw.flows6()[n as usize];
        r.set_key(&key);
        r.set_ingress(IngressId::port(LAN));
        r.epoch.store(7, Relaxed);
        fill(r);
        let c = self.gw.control();
        let live = Geometry::from_word(c.index6.load(Relaxed));
        let p = Probe::new(key.hash(c.seed.load(Relaxed)), live.mask);
        publish(&self.gw.index6()[(live.base + p.first) as usize], p.tag, n);
    }

    /// Next hop `n` out of device slot 0 as port WAN.
    pub fn nexthop(&self, n: u16, vlan: u16, mtu: u16, generation: u8, flags: u8) {
        let h = &self.gw.nexthops()[usize::from(n)];
        h.dmac_vlan.store(mac_word(NEXT_MAC, vlan), Relaxed);
        h.smac_mtu.store(mac_word(OUT_MAC, mtu), Relaxed);
        let dev =
            u64::from(LO) | u64::from(WAN.0) << 40 | u64::from(generation) << 48 | u64::from(flags) << 56;
        h.dev.store(dev, Relaxed);
    }
}

/// The frame without its priority tag (VLAN 0), if it has one and no other behind it: the program takes it off.
pub fn untagged(frame: &[u8]) -> Vec<u8> {
    let tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xA8]));
    let priority = tag(12) && frame.get(14..16).is_some_and(|t| t[0] & 0x0F == 0 && t[1] == 0);
    let whole = frame.len() >= 18;
    if priority && whole && !tag(16) { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
}

/// The outcome of a frame, and which counter moved.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Kernel,
    Worker(PuntReason),
    Dropped(DropReason),
}

pub fn outcome(f: &Fixture, frame: &[u8]) -> Outcome {
    let before = f.gw.stats(LAN).unwrap();
    let run = f.run(frame);
    let after = f.gw.stats(LAN).unwrap();
    assert_eq!(run.frame, untagged(frame), "a packet that is not forwarded must not be changed");
    let got = match run.action {
        XDP_PASS => {
            assert_eq!(after.to_kernel, before.to_kernel + 1);
            assert_eq!(run.note, None);
            Outcome::Kernel
        }
        XDP_REDIRECT => {
            assert_eq!(after.punted, before.punted + 1);
            let note = run.note.expect("a note for the worker");
            assert_eq!((note.port, note.record), (LAN, 0));
            assert_eq!(after.punts(note.reason), before.punts(note.reason) + 1);
            Outcome::Worker(note.reason)
        }
        XDP_DROP => {
            let r = *DropReason::ALL.iter().find(|r| after.drops(**r) == before.drops(**r) + 1).unwrap();
            Outcome::Dropped(r)
        }
        other => panic!("action {other}"),
    };
    assert_eq!(after.fast, before.fast);
    got
}

pub fn publish(bucket: &Bucket, tag: u32, n: u32) {
    let free = bucket.word.iter().find(|w| w.load(Relaxed) == 0).expect("bucket full");
    free.store(tag << RECORD_BITS | n, std::sync::atomic::Ordering::Release);
}

pub fn mac_word(mac: MacAddr, high: u16) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | u64::from(high) << 48
}

/// An AF_XDP socket that is bound to nothing: enough to fill a slot of the socket map.
pub fn af_xdp_socket() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: no memory is passed.
    #[allow(unsafe_code)]
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a descriptor that has just been given to us.
    #[allow(unsafe_code)]
    unsafe {
        OwnedFd::from_raw_fd(fd)
    }
}
