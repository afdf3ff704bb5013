//! ESP against the crypto library alone, on the same buffers in one run: `esp [rounds]`.
//!
//! Each round runs both variants one after the other, in turns first; printed are the medians of the
//! rounds, in nanoseconds a packet, and the part of the library's throughput that ESP reaches.

#![forbid(unsafe_code)]

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use sag_tunnel::esp::{
    Cipher, HEADROOM, ICV, Inbound, Inner, Outbound, Suite, TAILROOM, inner_room, sealed_len,
};
use std::hint::black_box;
use std::time::Instant;

/// Buffers in turn, so that their contents come from the second-level cache as a ring's do.
const BUFFERS: usize = 256;
const CHUNK: usize = 2048;
/// Where the text is. The header in front of it is in the same cache line, which whoever parses the packet has seen.
const TEXT: usize = 128 + HEADROOM;
const BATCH: usize = 64;
const PER_ROUND: usize = BUFFERS * 8;
/// The simple IMIX: 7 of 64, 4 of 594 and 1 of 1518 bytes on the wire.
const IMIX: [usize; 12] = [46, 46, 46, 46, 46, 46, 46, 576, 576, 576, 576, 1400];

struct Case {
    name: &'static str,
    sizes: Vec<usize>,
}

struct Rig {
    cipher: Cipher,
    sizes: Vec<usize>,
    memory: Vec<u8>,
    key: LessSafeKey,
    tx: Outbound,
    rx: Inbound,
    counter: u64,
}

impl Rig {
    fn new(cipher: Cipher, sizes: &[usize]) -> Rig {
        let keymat = vec![0x5A; cipher.keymat_len()];
        let suite = || Suite::new(cipher, &keymat).expect("a key of its length");
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, &keymat[..cipher.key_len()]).expect("a key of its length");
        Rig {
            cipher,
            sizes: (0..BUFFERS).map(|i| sizes[i % sizes.len()]).collect(),
            memory: vec![0; BUFFERS * CHUNK],
            key: LessSafeKey::new(key),
            tx: Outbound::new(300, suite(), true, 1, 1),
            rx: Inbound::new(300, suite(), true, 4096, 0),
            counter: 0,
        }
    }

    /// The inner packets.
    fn refill(&mut self) {
        for (chunk, len) in self.memory.chunks_exact_mut(CHUNK).zip(&self.sizes) {
            chunk.fill(0x11);
            chunk[TEXT] = 0x45;
            chunk[TEXT + 2..TEXT + 4].copy_from_slice(&(*len as u16).to_be_bytes());
        }
    }

    fn nonce(&mut self) -> Nonce {
        self.counter += 1;
        let mut n = [0; 12];
        n[4..].copy_from_slice(&self.counter.to_be_bytes());
        Nonce::assume_unique_for_key(n)
    }

    /// The library on as many bytes as ESP encrypts.
    fn library_seal(&mut self) {
        for i in 0..BUFFERS {
            let text = sealed_len(self.sizes[i]) - HEADROOM - ICV;
            let nonce = self.nonce();
            let at = i * CHUNK + TEXT;
            let (text, tag) = self.memory[at..at + text + ICV].split_at_mut(text);
            let out =
                self.key.seal_in_place_separate_tag(nonce, Aad::from([0u8; 12]), text).expect("it fits");
            tag.copy_from_slice(out.as_ref());
        }
    }

    fn esp_seal(&mut self) {
        for batch in 0..BUFFERS / BATCH {
            let mut numbers = self.tx.reserve(BATCH as u32);
            for i in batch * BATCH..(batch + 1) * BATCH {
                let chunk = &mut self.memory[i * CHUNK..(i + 1) * CHUNK];
                black_box(numbers.seal(chunk, TEXT..TEXT + self.sizes[i], Inner::V4).expect("there is room"));
            }
        }
    }

    fn library_open(&mut self, first: u64) {
        self.counter = first;
        for i in 0..BUFFERS {
            let text = sealed_len(self.sizes[i]) - HEADROOM - ICV;
            let nonce = self.nonce();
            let at = i * CHUNK + TEXT;
            let text = &mut self.memory[at..at + text + ICV];
            black_box(self.key.open_in_place(nonce, Aad::from([0u8; 12]), text).expect("it is authentic"));
        }
    }

    fn esp_open(&mut self) {
        for i in 0..BUFFERS {
            let at = i * CHUNK + TEXT - HEADROOM;
            let packet = &mut self.memory[at..at + sealed_len(self.sizes[i])];
            black_box(self.rx.open(packet).expect("it is authentic"));
        }
    }

    /// Nanoseconds a packet: library and ESP sealing, then opening.
    fn round(&mut self, esp_first: bool) -> [f64; 4] {
        let mut times = [0; 4];
        for _ in 0..PER_ROUND / BUFFERS {
            for esp in [esp_first, !esp_first] {
                self.refill();
                let start = Instant::now();
                let first = self.counter;
                if esp {
                    self.esp_seal()
                } else {
                    self.library_seal()
                }
                let middle = Instant::now();
                if esp {
                    self.esp_open()
                } else {
                    self.library_open(first)
                }
                times[usize::from(esp)] += (middle - start).as_nanos();
                times[2 + usize::from(esp)] += middle.elapsed().as_nanos();
            }
        }
        times.map(|t| t as f64 / PER_ROUND as f64)
    }
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_unstable_by(f64::total_cmp);
    v[v.len() / 2]
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(101usize);
    let cases = [
        Case { name: "64", sizes: vec![64] },
        Case { name: "512", sizes: vec![512] },
        Case { name: "1400", sizes: vec![1400] },
        Case { name: "IMIX", sizes: IMIX.to_vec() },
    ];
    assert!(inner_room(CHUNK - TEXT) > 1400 && TAILROOM < 128);
    println!("cipher             bytes  seal: library  esp  part    open: library  esp  part");
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        for case in &cases {
            let mut rig = Rig::new(cipher, &case.sizes);
            rig.round(true);
            let times: Vec<_> = (0..rounds).map(|i| rig.round(i % 2 == 0)).collect();
            let at = |n: usize| median(times.iter().map(|t| t[n]).collect());
            println!(
                "{:18} {:5} {:9.1} ns {:6.1} ns {:.2} {:12.1} ns {:6.1} ns {:.2}",
                rig.cipher.name(),
                case.name,
                at(0),
                at(1),
                at(0) / at(1),
                at(2),
                at(3),
                at(2) / at(3)
            );
        }
    }
}
