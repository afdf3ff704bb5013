//! Forward error correction alone, packets of 1,400 bytes on one core: `fec [rounds]`.
//!
//! Encoding is what a sender does for a block: its source packets and the writing of its repair packets. Decoding is
//! what a receiver does with what arrives of a block, recovered packets included; the more are lost, the more there is
//! to compute. The cases take turns; printed are medians of the rounds, in nanoseconds for each source packet of a block,
//! and the Gbit/s of source packets.

#![forbid(unsafe_code)]

use sag_tunnel::fec::{MAX_PACKET, REPAIR_HEADER, Receiver, Sender, Settings};
use std::hint::black_box;
use std::time::Instant;

const BYTES: usize = 1400;
/// Blocks of a round: more memory than the first-level cache has, as a ring's buffers are.
const BLOCKS: usize = 32;
/// Sources and repairs of a block; the first is the one with a target.
const CODES: [(u8, u8); 4] = [(20, 4), (10, 2), (32, 8), (10, 1)];

/// What one block has on the wire.
type Wire = Vec<Vec<u8>>;

struct Case {
    name: String,
    sources: usize,
    /// Packets that do not arrive; `None`: encoding.
    lost: Option<usize>,
    tx: Sender,
    rx: Receiver,
    packets: Vec<Vec<u8>>,
    now: u64,
    times: Vec<f64>,
}

impl Case {
    fn new((sources, repairs): (u8, u8), lost: Option<usize>) -> Case {
        let what = match lost {
            None => "encode".to_owned(),
            Some(lost) => format!("decode,-{lost}-lost"),
        };
        let packet = |n: usize| {
            let mut p: Vec<u8> = (0..BYTES).map(|i| (i * 31 + n * 7 + i * n / 3) as u8).collect();
            p[0] = 0x45;
            p[2..4].copy_from_slice(&(BYTES as u16).to_be_bytes());
            p
        };
        Case {
            name: format!("{sources}+{repairs} {what}"),
            sources: usize::from(sources),
            lost,
            tx: Sender::new(Settings { sources, repairs, delay: u64::MAX }, 1, 1).expect("settings in range"),
            rx: Receiver::default(),
            packets: (0..BLOCKS * usize::from(sources)).map(packet).collect(),
            now: 1,
            times: Vec::new(),
        }
    }

    /// Nanoseconds a source packet.
    fn round(&mut self) -> f64 {
        let spent = match self.lost {
            None => self.encode(),
            Some(lost) => self.decode(lost),
        };
        spent as f64 / self.packets.len() as f64
    }

    fn encode(&mut self) -> u128 {
        let mut out = [0; MAX_PACKET + REPAIR_HEADER];
        let start = Instant::now();
        for packet in &self.packets {
            black_box(self.tx.source(packet, 0, self.now).expect("repairs are fetched"));
            while self.tx.repair(&mut out).is_some() {
                black_box(&out);
            }
        }
        start.elapsed().as_nanos()
    }

    fn decode(&mut self, lost: usize) -> u128 {
        let wire: Vec<Wire> = (0..BLOCKS).map(|n| self.block(n, lost)).collect();
        let mut out = [0; MAX_PACKET];
        let mut recovered = 0;
        let start = Instant::now();
        for text in wire.iter().flatten() {
            black_box(self.rx.receive(text, 0, self.now, |_| {}).expect("it is sound"));
            while self.rx.recovered(&mut out).is_some() {
                black_box(&out);
                recovered += 1;
            }
        }
        let spent = start.elapsed().as_nanos();
        assert_eq!(recovered, BLOCKS * lost, "{}: not all were recovered", self.name);
        self.now += 1;
        spent
    }

    /// A block less its first `lost` packets.
    fn block(&mut self, n: usize, lost: usize) -> Wire {
        let mut wire = Wire::new();
        for packet in &self.packets[n * self.sources..][..self.sources] {
            let header = self.tx.source(packet, 0, self.now).expect("repairs are fetched");
            wire.push([&header[..], packet].concat());
        }
        let mut out = [0; MAX_PACKET + REPAIR_HEADER];
        while let Some(repair) = self.tx.repair(&mut out) {
            wire.push(out[..repair.len].to_vec());
        }
        wire.split_off(lost)
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(101usize);
    let mut cases: Vec<Case> = CODES
        .into_iter()
        .flat_map(|code| {
            let most = usize::from(code.1);
            let lost = if most > 1 { vec![0, 1, most] } else { vec![0, 1] };
            let decode = lost.into_iter().map(move |n| Case::new(code, Some(n)));
            std::iter::once(Case::new(code, None)).chain(decode)
        })
        .collect();
    for n in 0..=rounds {
        for c in &mut cases {
            let t = c.round();
            if n > 0 {
                c.times.push(t);
            }
        }
    }
    println!("packets of {BYTES} bytes, code and case: ns a packet, Gbit/s");
    for mut c in cases {
        c.times.sort_unstable_by(f64::total_cmp);
        let ns = c.times[c.times.len() / 2];
        println!("{:26} {ns:10.1} {:8.2}", c.name, (BYTES * 8) as f64 / ns);
    }
}
