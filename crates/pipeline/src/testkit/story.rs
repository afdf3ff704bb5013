//! A random story: a gateway, batches of frames, events, time. Everything that must hold of any
//! packet and any gateway is checked on the way.

use super::pkt::l3;
use super::*;
use crate::worker::BATCH;
use sag_model::DropReason;
use sag_packet::proto::*;

/// Lives through `steps` batches of the story with this seed. Panics where an invariant breaks:
/// the books, the bytes of what is forwarded, the form of what is made, and that a batch does what
/// its packets would do one by one.
pub fn tell(seed: u64, steps: usize) -> Told {
    let mut d = Dice::new(seed);
    let net = d.net();
    let sessions = [4, 60, 1000][d.below(3)];
    let mut rig = Rig::sized(net, sessions);
    // The same story packet by packet.
    let mut twin = {
        let mut d = Dice::new(seed);
        Rig::sized(d.net(), sessions)
    };
    for _ in 0..steps {
        let pause = d.pause();
        if d.once_in(4) {
            let at = d.clone();
            let commit = d.once_in(2);
            for (r, mut d) in [(&mut rig, at.clone()), (&mut twin, at)] {
                let change = |n: &mut Net| d.event(n);
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
                check_forwarded(f, out);
            }
        }
        assert_eq!(rig.sent.frames, twin.sent.frames);
        check_made(&mut rig);
        check_made(&mut twin);
        assert_eq!(rig.requests(), twin.requests());
        assert_eq!(rig.sessions(), twin.sessions());
    }
    let c = &rig.pipe.counters;
    let mut told = Told { sessions: c.sessions_created.get(), ..Told::default() };
    for p in (0..PortIdx::MAX as u8).map(|i| c.port(PortIdx(i))) {
        told.forwarded += p.forwarded.get();
        told.made += p.originated.get();
        for (sum, n) in told.drops.iter_mut().zip(&p.drops) {
            *sum += n.get();
        }
    }
    told
}

/// What happened in a story.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub forwarded: u64,
    pub made: u64,
    pub sessions: u64,
    pub drops: [u64; DropReason::COUNT],
}

impl Default for Told {
    fn default() -> Told {
        Told { forwarded: 0, made: 0, sessions: 0, drops: [0; DropReason::COUNT] }
    }
}

impl std::ops::AddAssign for Told {
    fn add_assign(&mut self, other: Told) {
        self.forwarded += other.forwarded;
        self.made += other.made;
        self.sessions += other.sessions;
        for (a, b) in self.drops.iter_mut().zip(other.drops) {
            *a += b;
        }
    }
}

/// What leaves is what came, except for the link header, the hop count and its checksum.
fn check_forwarded(input: &[u8], output: &[u8]) {
    let (i, o) = (&input[l3(input)..], &output[l3(output)..]);
    let mut want = i.to_vec();
    match i[0] >> 4 {
        4 => {
            want.truncate(usize::from(u16::from_be_bytes([i[2], i[3]])));
            assert!(want[8] > 1);
            want[8] -= 1;
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
                if rig.snap.local.contains(&std::net::Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]).into()) {
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
