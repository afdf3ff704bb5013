//! The XDP fast path and the XDP general path must do the same to the same packet: known flows, packets
//! changed at random, each run twice, the second time with a decoy in the index that only the general
//! path sees through.

mod common;

use common::packet::*;
use common::*;
use sag_model::Zone;
use sag_model::flow::*;
use std::sync::atomic::Ordering::Relaxed;

const HOST: [u8; 4] = [192, 168, 1, 10];
const FAR: [u8; 4] = [198, 51, 100, 7];
const PACKETS: usize = 5000;

/// Xorshift: the test says its seed and can be given one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn forward(flags: u8) -> u64 {
    Action { nexthop: 4, meter: 0, act: FlowAct::Forward, flags, tunnel: 0, nh_gen: 9 }.to_word()
}

fn words(b: &[u8]) -> Vec<u64> {
    b.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
}

/// A word where the fast path looks first, with the right tag and another flow's record.
struct Decoy<'a> {
    word: &'a std::sync::atomic::AtomicU32,
    value: u32,
}

fn decoy(bucket: &Bucket, hash: u64) -> Decoy<'_> {
    let word = &bucket.word[(hash >> 52) as usize % BUCKET_WORDS];
    // Make way: the flow's own word moves to the next place.
    let own = word.swap(0, Relaxed);
    if own != 0 {
        bucket.word[((hash >> 52) as usize + 1) % BUCKET_WORDS].store(own, Relaxed);
    }
    Decoy { word, value: ((hash >> 56) as u32) << RECORD_BITS | 200 }
}

#[test]
fn fast_and_general_path_agree() {
    let Some(f) = Fixture::new() else { return };
    f.nexthop(4, 0, 1500, 9, NH_VALID);
    let c = f.gw.control();
    let seed = c.seed.load(Relaxed);
    let [Geometry { base: b4, mask: m4 }, Geometry { base: b6, mask: m6 }] =
        [&c.index4, &c.index6].map(|w| Geometry::from_word(w.load(Relaxed)));
    let mut packets = Vec::new();
    let mut decoys = Vec::new();
    for (i, (proto, payload)) in
        [(17, udp(1000, 53, b"question?")), (6, tcp(1000, 80, 0x18, b"GET / HTTP"))].into_iter().enumerate()
    {
        let n = 2 * (i as u32 + 1);
        let ports =
            (u16::from_le_bytes([payload[0], payload[1]]), u16::from_le_bytes([payload[2], payload[3]]));
        let packet = v4(HOST, FAR, proto, payload.clone()).frame(None);
        let key = Key4 { addrs: words(&packet[26..34])[0], l4: l4_word(ports.0, ports.1, proto, Zone::Lan) };
        f.install4(n, key, |r| {
            // Any deltas will do: both paths add what the record says.
            r.new_addrs.store(key.addrs ^ 0x0102_0304, Relaxed);
            r.new_ports.store(0xBEEF_CAFE_3500_409C, Relaxed);
            r.action.store(forward(FLOW_SNAT), Relaxed);
        });
        let p = Probe::new(key.hash(seed), m4);
        decoys.push(decoy(&f.gw.index4()[(b4 + p.first) as usize], key.hash(seed)));
        packets.push(packet);

        let packet = v6_frame(None, &v6("2001:db8:1::10", "2001:db8:9::9", proto, 64, &payload));
        let w = words(&packet[22..54]);
        let l4 = l4_word(ports.0, ports.1, proto, Zone::Lan);
        let key = Key6 { src: [w[0], w[1]], dst: [w[2], w[3]], l4 };
        f.install6(n, key, |r| r.action.store(forward(0), Relaxed));
        let p = Probe::new(key.hash(seed), m6);
        decoys.push(decoy(&f.gw.index6()[(b6 + p.first) as usize], key.hash(seed)));
        packets.push(packet);
    }
    // Nothing may follow the decoys but the record that they name, which is nobody's.
    f.gw.flows4()[200].set_key(&Key4 { addrs: 1, l4: 1 });

    let start = std::env::var("GW_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5EED_0001);
    println!("GW_SEED={start}");
    let mut random = Random(start);
    let (mut forwarded, mut others) = (0, 0);
    for round in 0..PACKETS {
        let which = random.below(packets.len());
        let mut frame = packets[which].clone();
        for _ in 0..random.below(3) {
            let at = 12 + random.below(frame.len() - 12);
            frame[at] = match random.below(3) {
                0 => random.next() as u8,
                1 => frame[at] ^ 1 << random.below(8),
                _ => frame[at].wrapping_add(1),
            };
        }
        match random.below(8) {
            0 => frame.truncate(14 + random.below(frame.len() - 14)),
            1 => frame.extend(vec![0; random.below(30)]),
            _ => {}
        }
        // A damaged header is mostly a wrong checksum; repair it every other time.
        if frame[12] == 8 && frame.len() >= 34 && random.below(2) == 0 {
            frame[24..26].fill(0);
            let c = !(ones_sum(&frame[14..34], 0) as u16);
            frame[24..26].copy_from_slice(&c.to_be_bytes());
        }
        let numbers: Vec<u64> = f.gw.ip_ids().iter().map(|c| c.load(Relaxed)).collect();
        let fast = f.run(&frame);
        // Both draw the same one.
        f.gw.ip_ids().iter().zip(numbers).for_each(|(c, n)| c.store(n, Relaxed));
        decoys.iter().for_each(|d| d.word.store(d.value, Relaxed));
        let general = f.run(&frame);
        decoys.iter().for_each(|d| d.word.store(0, Relaxed));
        assert_eq!(fast, general, "GW_SEED={start}, packet {round}: {frame:02x?}");
        if fast.action == XDP_REDIRECT && fast.note.is_none() { forwarded += 1 } else { others += 1 }
    }
    println!("{forwarded} forwarded, {others} not");
    assert!(forwarded > PACKETS / 5 && others > PACKETS / 5, "the mix tests both: {forwarded}, {others}");
    // Both ways counted in the same records.
    let packets: u64 = [2, 4].iter().map(|n| f.gw.flows4()[*n].packets().load(Relaxed)).sum();
    let packets6: u64 = [2, 4].iter().map(|n| f.gw.flows6()[*n].packets().load(Relaxed)).sum();
    assert_eq!(packets + packets6, 2 * forwarded as u64);
    assert_eq!(f.gw.stats(LAN).unwrap().fast, 2 * forwarded as u64);
}
