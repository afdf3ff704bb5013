//! A random story: a gateway, batches of frames, events, time. Everything that must hold of any
//! packet and any gateway is checked on the way.

use crate::pkt::l3;
use crate::*;
use sag_model::{DropReason, VrfNo};
use sag_packet::proto::*;
use sag_pipeline::nat::NatProtocol;
use sag_pipeline::worker::BATCH;

/// Lives through `steps` batches of the story with this seed. Panics where an invariant breaks:
/// the packet accounting, the bytes of what is forwarded, the form of what is made, and that a batch does what
/// its packets would do one by one.
pub fn run_story(seed: u64, steps: usize) -> StoryCounts {
    let mut d = Rng::new(seed);
    let net = d.net();
    let sessions = [4, 60, 1000][d.below(3)];
    let nat = net.translates();
    let mut rig = Rig::sized(net, sessions);
    // The same story packet by packet.
    let mut twin = {
        let mut d = Rng::new(seed);
        Rig::sized(d.net(), sessions)
    };
    let mut translated = 0;
    for r in [&mut rig, &mut twin] {
        r.pipe.seed(seed);
    }
    for _ in 0..steps {
        let pause = d.pause();
        if d.once_in(4) {
            let at = d.clone();
            let commit = d.once_in(2);
            for (r, mut d) in [(&mut rig, at.clone()), (&mut twin, at)] {
                let change = |n: &mut Net| {
                    d.event(n);
                    if nat && commit && d.once_in(2) {
                        d.nat(n);
                    }
                };
                if commit { r.commit(change) } else { r.change(change) }
            }
            d.roll();
        }
        let (dev, first) = d.frame();
        let mut frames = vec![first];
        for _ in 0..d.below(BATCH) {
            let (other, f) = d.frame();
            if other == dev || d.once_in(4) {
                frames.push(f);
            }
        }
        for r in [&mut rig, &mut twin] {
            r.now = r.now + pause;
            r.poll();
            check_made(r);
        }
        let outcomes = rig.batch(dev, &frames);
        let singles: Vec<_> = frames.iter().map(|f| twin.frame(dev, f)).collect();
        for ((f, a), b) in frames.iter().zip(&outcomes).zip(&singles) {
            assert_eq!(a, b, "a batch does what its packets do one by one: {f:02x?}");
            if let Outcome::Tx(_, out) = a {
                translated += u64::from(check_forwarded(f, out, nat));
            }
        }
        assert_eq!(rig.sent.frames, twin.sent.frames);
        check_made(&mut rig);
        check_made(&mut twin);
        assert_eq!(rig.requests(), twin.requests());
        assert_eq!(rig.sessions(), twin.sessions());
    }
    check_nothing_stays(&mut rig);
    let c = &rig.pipe.counters;
    let mut sums = StoryCounts { translated, sessions: c.sessions_created.get(), ..StoryCounts::default() };
    for p in (0..PortIdx::MAX as u8).map(|i| c.port(PortIdx(i))) {
        sums.forwarded += p.forwarded.get();
        sums.made += p.originated.get();
        for (sum, n) in sums.drops.iter_mut().zip(&p.drops) {
            *sum += n.get();
        }
    }
    sums
}

/// What happened in a story.
#[derive(Debug, Clone, Copy)]
pub struct StoryCounts {
    /// Packets forwarded.
    pub forwarded: u64,
    /// Of these, with another address.
    pub translated: u64,
    /// Packets that the gateway made.
    pub made: u64,
    /// Sessions created.
    pub sessions: u64,
    /// By reason.
    pub drops: [u64; DropReason::COUNT],
}

impl Default for StoryCounts {
    fn default() -> StoryCounts {
        StoryCounts { forwarded: 0, translated: 0, made: 0, sessions: 0, drops: [0; DropReason::COUNT] }
    }
}

impl std::ops::AddAssign for StoryCounts {
    fn add_assign(&mut self, other: StoryCounts) {
        self.forwarded += other.forwarded;
        self.translated += other.translated;
        self.made += other.made;
        self.sessions += other.sessions;
        for (a, b) in self.drops.iter_mut().zip(other.drops) {
            *a += b;
        }
    }
}

/// What leaves is what came, except for the link header, the hop count and its checksum; if `nat`,
/// perhaps with other addresses and ports, and checksums that are as right as they were. True: it is
/// translated.
fn check_forwarded(input: &[u8], output: &[u8], nat: bool) -> bool {
    let (i, o) = (&input[l3(input)..], &output[l3(output)..]);
    let mut want = i.to_vec();
    match i[0] >> 4 {
        4 => {
            want.truncate(usize::from(u16::from_be_bytes([i[2], i[3]])));
            assert!(want[8] > 1);
            want[8] -= 1;
            if nat && o[12..20] != want[12..20] {
                check_translated(&want, o);
                return true;
            }
            let ihl = usize::from(i[0] & 15) * 4;
            want[10..12].fill(0);
            let c = checksum(&[&want[..ihl]]);
            want[10..12].copy_from_slice(&c.to_be_bytes());
        }
        _ => {
            want.truncate(IPV6_LEN + usize::from(u16::from_be_bytes([i[4], i[5]])));
            assert!(want[7] > 1);
            want[7] -= 1;
        }
    }
    assert_eq!(o, want, "from {input:02x?}");
    false
}

/// Nothing but addresses, ports, query identifiers and checksums may differ, and with another source the identification
/// of what is not atomic. Every checksum must be off by as much as before, which is mostly nothing. A TCP or UDP checksum
/// adds up with the addresses, an ICMP one alone; of fragments the same holds for the part with the checksum.
fn check_translated(before: &[u8], after: &[u8]) {
    let context = || format!("{before:02x?}\nbecame\n{after:02x?}");
    assert_eq!(checksum(&[&after[..usize::from(after[0] & 15) * 4]]), 0, "header of {}", context());
    let (mut a, mut b) = (before.to_vec(), after.to_vec());
    let off = |x: &[u8]| -> Vec<u16> {
        let (head, l4) = x.split_at(usize::from(x[0] & 15) * 4);
        let first = (u16::from_be_bytes([x[6], x[7]]) & 0x1FFF) == 0;
        match x[9] {
            TCP => first.then(|| checksum(&[&head[12..20], l4])).into_iter().collect(),
            UDP if first && l4[6..8] == [0, 0] => vec![],
            UDP => first.then(|| checksum(&[&head[12..20], l4])).into_iter().collect(),
            ICMP if first && quotes(l4[0]) => vec![checksum(&[l4]), checksum(&[&l4[8..][..quoted_ihl(l4)]])],
            ICMP => first.then(|| checksum(&[l4])).into_iter().collect(),
            _ => vec![],
        }
    };
    // Both zeros of one's complement are one.
    let same = |x: Vec<u16>| x.into_iter().map(|c| c % 0xFFFF).collect::<Vec<_>>();
    assert_eq!(same(off(before)), same(off(after)), "checksums of {}", context());
    blank(&mut a);
    blank(&mut b);
    // Flags and offset of an atomic datagram: DF alone.
    if before[12..16] != after[12..16] && (before[6] & 0x7F, before[7]) != (0x40, 0) {
        [&mut a, &mut b].into_iter().for_each(|ip| ip[4..6].fill(0));
    }
    assert_eq!(a, b, "{}", context());
}

const fn quotes(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

fn quoted_ihl(message: &[u8]) -> usize {
    usize::from(message[8] & 15) * 4
}

/// Makes all that translation changes zero, of a packet and of the one that it quotes.
fn blank(ip: &mut [u8]) {
    let ihl = usize::from(ip[0] & 15) * 4;
    let (first, proto) = ((u16::from_be_bytes([ip[6], ip[7]]) & 0x1FFF) == 0, ip[9]);
    ip[10..20].fill(0);
    let l4 = &mut ip[ihl..];
    let mut zero = |range: std::ops::Range<usize>| {
        if let Some(bytes) = l4.get_mut(range) {
            bytes.fill(0);
        }
    };
    match proto {
        _ if !first => {}
        TCP => [0..4, 16..18].into_iter().for_each(zero),
        UDP => [0..4, 6..8].into_iter().for_each(zero),
        ICMP => {
            zero(2..4);
            match l4[0] {
                0 | 8 | 13 | 14 => l4[4..6].fill(0),
                kind if quotes(kind) => blank(&mut l4[8..]),
                _ => {}
            }
        }
        _ => {}
    }
}

/// When everybody is silent, sessions end, and with them whatever they held.
fn check_nothing_stays(rig: &mut Rig) {
    for _ in 0..2 {
        rig.wait(std::time::Duration::from_secs(10_000));
    }
    rig.emitted();
    assert_eq!(rig.sessions(), (0, 0));
    let nat = &rig.pipe.tables.nat;
    assert_eq!(nat.hosts().all().count(), 0, "hosts that are still counted");
    for pool in nat.pools() {
        for protocol in NatProtocol::ALL {
            assert_eq!(
                pool.bindings(protocol).count(),
                0,
                "{protocol:?} ports of {} that stay allocated",
                pool.addr()
            );
        }
    }
}

/// What the pipeline makes is well-formed, and no longer than it may be.
fn check_made(rig: &mut Rig) {
    for (port, f) in rig.emitted() {
        let ip = &f[l3(&f)..];
        let p = &rig.snap.ports[port.index()];
        assert!(p.up, "nothing leaves by a port that is down");
        assert_eq!(f[6..12], p.mac.0);
        match ip[0] >> 4 {
            4 => {
                let ihl = usize::from(ip[0] & 15) * 4;
                assert_eq!(checksum(&[&ip[..ihl]]), 0);
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
                let from = std::net::Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
                // By translation others' packets have the gateway's address, too.
                let error = ip[9] == ICMP && ip[1] == 0xC0 && ip[4..9] == [0, 0, 0x40, 0, 64];
                if rig.snap.is_local(VrfNo::DEFAULT, from.into()) && (error || !rig.snap.nat.owns(from)) {
                    assert!(ip.len() <= 576 && ip[9] == ICMP && checksum(&[&ip[ihl..]]) == 0);
                } else {
                    assert!(ip.len() <= usize::from(p.mtu), "a fragment or what was held fits its link");
                }
            }
            _ => {
                assert_eq!(IPV6_LEN + usize::from(u16::from_be_bytes([ip[4], ip[5]])), ip.len());
                assert!(ip.len() <= usize::from(p.mtu).max(1280));
            }
        }
    }
}
