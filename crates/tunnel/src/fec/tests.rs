use super::*;
use crate::esp::Inner;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

const MS: u64 = 1_000_000;

fn settings(sources: u8, repairs: u8) -> Settings {
    Settings { sources, repairs, delay: 20 * MS }
}

/// An IP packet of `len` bytes, 40 at the least, that no other is equal to.
fn ip(n: usize, len: usize) -> Vec<u8> {
    let len = len.max(40);
    let mut p: Vec<u8> = (0..len).map(|i| (i * 31 + n * 7 + (i * n) / 3) as u8).collect();
    if n.is_multiple_of(2) {
        p[0] = 0x45;
        p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    } else {
        p[0] = 0x60;
        p[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
    p[8..12].copy_from_slice(&(n as u32).to_be_bytes());
    p
}

/// A sender and what it has put on the wire, by blocks.
struct Wire {
    tx: Sender,
    now: u64,
    /// Block, index of the source or none, bytes.
    sent: Vec<(u32, Option<usize>, Vec<u8>)>,
}

impl Wire {
    fn new(s: Settings, stream: u8, first: u32) -> Wire {
        Wire { tx: Sender::new(s, stream, first).unwrap(), now: 1, sent: Vec::new() }
    }

    fn send(&mut self, packet: &[u8]) {
        let header = self.tx.source(packet, 7, self.now).unwrap();
        let Some((Header::Source { block, index, .. }, _)) = read(&header) else { panic!() };
        self.sent.push((block, Some(index.into()), [&header[..], packet].concat()));
        self.fetch();
    }

    fn fetch(&mut self) {
        let mut buf = [0; MAX_PACKET + REPAIR_HEADER];
        while let Some(r) = self.tx.repair(&mut buf) {
            let Some((Header::Repair { block, .. }, _)) = read(&buf[..r.len]) else { panic!() };
            assert_eq!(r.mark, 7);
            self.sent.push((block, None, buf[..r.len].to_vec()));
        }
    }

    fn pause(&mut self) {
        self.now += 20 * MS;
        self.tx.poll(self.now);
        self.fetch();
    }
}

#[derive(Default)]
struct Got {
    packets: Vec<Vec<u8>>,
    stored: i64,
    recovered: u64,
}

fn receive(rx: &mut Receiver, text: &[u8], now: u64, got: &mut Got) -> Result<Received, ReceiveError> {
    let mut unneeded = 0;
    let taken = rx.receive(text, 5, now, |tag| {
        assert_eq!(tag, 5);
        unneeded += 1;
    });
    match taken {
        Ok(Received::Source { at, inner }) => {
            assert_eq!(inner == Inner::V4, text[at] >> 4 == 4);
            got.packets.push(text[at..].to_vec());
        }
        Ok(Received::RepairStored) => got.stored += 1,
        _ => {}
    }
    got.stored -= unneeded;
    let mut buf = [0; MAX_PACKET];
    while let Some((len, tag)) = rx.recovered(&mut buf) {
        assert_eq!(tag, 5);
        got.packets.push(buf[..len].to_vec());
        got.stored -= 1;
        got.recovered += 1;
    }
    taken
}

/// Loses, reorders and repeats; what must arrive arrives, nothing else does, and the rest is counted.
fn round(s: Settings, lens: &[usize], pauses: u64, lost: u64, shuffle: u64) -> TestCaseResult {
    let mut w = Wire::new(s, 3, u32::MAX - 1);
    let all: Vec<_> = lens.iter().enumerate().map(|(n, len)| ip(n, *len)).collect();
    for (n, p) in all.iter().enumerate() {
        w.send(p);
        if pauses >> (n % 64) & 1 != 0 {
            w.pause();
        }
    }
    w.pause();
    let lost = |n: usize| lost.rotate_right(n as u32 * 7) & 0b111 == 0;
    let mut wire: Vec<_> =
        w.sent.iter().enumerate().filter(|(n, _)| !lost(*n)).map(|(_, p)| p.clone()).collect();
    // Neighbours change places, and nobody goes far.
    for i in 1..wire.len() {
        if i % 7 > 0 && shuffle >> (i % 64) & 1 != 0 {
            wire.swap(i - 1, i);
        }
    }
    let (mut rx, mut got) = (Receiver::default(), Got::default());
    for (_, _, text) in &wire {
        let first = receive(&mut rx, text, w.now, &mut got);
        prop_assert_ne!(first, Err(ReceiveError::BadHeader));
        // Never twice.
        let again = receive(&mut rx, text, w.now, &mut got);
        prop_assert!(
            matches!(again, Err(ReceiveError::Duplicate) | Ok(Received::RepairUnneeded)),
            "{again:?}"
        );
    }
    rx.poll(w.now + BLOCK_TIMEOUT + 1, |_| got.stored -= 1);
    prop_assert_eq!(got.stored, 0);
    // By blocks: all of it where no more was lost than there are repairs, else what came.
    let (mut want, mut bad) = (Vec::new(), 0);
    let mut at = 0;
    let blocks: std::collections::BTreeSet<_> =
        w.sent.iter().map(|s| s.0.wrapping_sub(u32::MAX - 1)).collect();
    for number in blocks {
        let of = |p: &&(u32, Option<usize>, Vec<u8>)| p.0.wrapping_sub(u32::MAX - 1) == number;
        let sources = w.sent.iter().filter(of).filter(|p| p.1.is_some()).count();
        let here: Vec<usize> = wire.iter().filter(of).filter_map(|p| p.1).collect();
        let repairs = wire.iter().filter(of).count() - here.len();
        if sources - here.len() <= repairs {
            want.extend(all[at..at + sources].iter().cloned());
        } else {
            want.extend(here.iter().map(|i| all[at + i].clone()));
            let top = here.iter().max().map_or(0, |m| m + 1);
            bad += u64::from(repairs > 0 || top > here.len());
        }
        at += sources;
    }
    prop_assert_eq!(at, all.len());
    want.sort();
    got.packets.sort();
    prop_assert!(want == got.packets, "{} of {}", got.packets.len(), want.len());
    prop_assert_eq!(rx.take_stats(), Stats { recovered: got.recovered, unrecoverable: bad });
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_lost_comes_back(
        block in 2u8..=32, repairs in 1u8..=8,
        lens in proptest::collection::vec(40usize..1500, 1..100),
        pauses: u64, lost: u64, shuffle: u64,
    ) {
        // Few pauses, so that there are whole blocks.
        round(settings(block, repairs), &lens, pauses & pauses.rotate_left(9) & pauses.rotate_left(23), lost, shuffle)?;
    }

    #[test]
    fn any_text_is_taken_or_refused(
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 1..40),
        how: u64,
    ) {
        let (mut rx, mut got) = (Receiver::default(), Got::default());
        for (n, mut text) in texts.into_iter().enumerate() {
            // Few streams and blocks, so that they meet.
            if let Some(h) = text.first_chunk_mut::<12>() {
                h[0] = 0x10 | (how >> (n % 64) & 1) as u8;
                h[1] &= 1;
                h[2] &= 7;
                h[4..7].fill(0);
                h[7] &= 3;
                h[8] &= 15;
                h[9] &= 7;
                h[10] = 0;
            }
            if let Ok(Received::Source { at, .. }) = receive(&mut rx, &text, n as u64, &mut got) {
                prop_assert_eq!(at, SOURCE_HEADER);
            }
        }
        rx.clear(|_| got.stored -= 1);
        prop_assert_eq!(got.stored, 0);
    }
}

#[test]
fn a_window_is_closed_by_time() {
    let mut w = Wire::new(settings(10, 2), 0, 0);
    w.send(&ip(0, 100));
    assert_eq!(w.tx.due(), Some(1 + 20 * MS));
    w.tx.poll(20 * MS);
    w.fetch();
    assert_eq!(w.sent.len(), 1, "not yet");
    w.tx.poll(1 + 20 * MS);
    w.fetch();
    assert_eq!((w.sent.len(), w.tx.due()), (2, None), "one packet, one repair");
    assert_eq!(w.sent[1].2.len(), 100 + REPAIR_HEADER);
    let (mut rx, mut got) = (Receiver::default(), Got::default());
    assert_eq!(receive(&mut rx, &w.sent[1].2, 0, &mut got), Ok(Received::RepairStored));
    assert_eq!(got.packets, [ip(0, 100)]);
    // The packet itself comes late.
    assert_eq!(receive(&mut rx, &w.sent[0].2, 0, &mut got), Err(ReceiveError::Duplicate));
}

#[test]
fn repairs_of_two_by_hand() {
    // By hand, to know that the code on the wire stays what it is.
    let mut w = Wire::new(settings(2, 2), 1, 9);
    let pair = [ip(0, 40), ip(2, 44)];
    pair.iter().for_each(|p| w.send(p));
    let repairs: Vec<_> = w.sent.iter().filter(|s| s.1.is_none()).map(|s| s.2.clone()).collect();
    assert_eq!(repairs[0][..REPAIR_HEADER], [0x11, 1, 0, 2, 0, 0, 0, 9, 2, 2, 0, 44]);
    // Over two sources the rows are (3, 2) and (2, 3): 3a + 2b and 2a + 3b over GF(2^8).
    let times = |k: u8, a: u8| {
        let twice = a << 1 ^ if a & 0x80 != 0 { 0x1D } else { 0 };
        if k == 2 { twice } else { twice ^ a }
    };
    for i in 0..44 {
        let (a, b) = (pair[0].get(i).copied().unwrap_or(0), pair[1][i]);
        assert_eq!(repairs[0][REPAIR_HEADER + i], times(3, a) ^ times(2, b), "byte {i}");
        assert_eq!(repairs[1][REPAIR_HEADER + i], times(2, a) ^ times(3, b), "byte {i}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let mut w = Wire::new(settings(4, 2), 0, 0);
    (0..4).for_each(|n| w.send(&ip(n, 60)));
    let repair = w.sent[4].2.clone();
    let changed = |at: usize, to: u8| {
        let mut r = repair.clone();
        r[at] = to;
        r
    };
    let (mut rx, mut got) = (Receiver::default(), Got::default());
    for (at, to) in
        [(0, 0x21), (0, 0x12), (2, 2), (3, 0), (3, 5), (8, 33), (9, 9), (10, 255), (11, 0), (11, 61)]
    {
        assert_eq!(
            receive(&mut rx, &changed(at, to), 0, &mut got),
            Err(ReceiveError::BadHeader),
            "byte {at} is {to}"
        );
    }
    assert_eq!(receive(&mut rx, &repair[..11], 0, &mut got), Err(ReceiveError::BadHeader));
    assert_eq!(receive(&mut rx, &[], 0, &mut got), Err(ReceiveError::BadHeader));
    // Of two repairs of a block the second says another thing, and so does a source.
    assert_eq!(receive(&mut rx, &repair, 0, &mut got), Ok(Received::RepairStored));
    let mut second = w.sent[5].2.clone();
    second[3] = 3;
    assert_eq!(receive(&mut rx, &second, 0, &mut got), Err(ReceiveError::BadHeader));
    let mut beyond = w.sent[3].2.clone();
    beyond[2] = 9;
    assert_eq!(receive(&mut rx, &beyond, 0, &mut got), Err(ReceiveError::BadHeader));
    let mut source = w.sent[0].2.clone();
    source[8] = 0x15;
    assert_eq!(receive(&mut rx, &source, 0, &mut got), Err(ReceiveError::BadHeader), "no IP inside");
    assert!(got.packets.is_empty());
}

#[test]
fn a_sender_that_restarts_is_followed() {
    let (mut rx, mut got) = (Receiver::default(), Got::default());
    let mut old = Wire::new(settings(2, 1), 0, 1000);
    (0..20).for_each(|n| old.send(&ip(n, 50)));
    old.sent.iter().for_each(|s| assert!(receive(&mut rx, &s.2, 1, &mut got).is_ok()));
    // Another process begins anywhere; behind the old one that counts for late at first.
    let mut new = Wire::new(settings(2, 1), 0, 100);
    (0..4).for_each(|n| new.send(&ip(n, 50)));
    got = Got::default();
    assert!(receive(&mut rx, &new.sent[0].2, 2, &mut got).is_ok(), "passes as it is");
    assert_eq!(receive(&mut rx, &new.sent[2].2, 2, &mut got), Ok(Received::RepairUnneeded));
    let later = BLOCK_TIMEOUT + 10;
    assert!(receive(&mut rx, &new.sent[3].2, later, &mut got).is_ok());
    assert_eq!(receive(&mut rx, &new.sent[5].2, later, &mut got), Ok(Received::RepairStored));
    assert_eq!((got.recovered, got.packets.len()), (1, 3));
}

#[test]
fn a_flood_of_windows_takes_no_more_room() {
    let (mut rx, mut got) = (Receiver::default(), Got::default());
    let mut w = Wire::new(settings(2, 1), 0, 0);
    (0..200).for_each(|n| w.send(&ip(n, 50)));
    // Of each block a source only: all wait, the oldest makes room.
    for s in w.sent.iter().filter(|s| s.1 == Some(1)) {
        receive(&mut rx, &s.2, 1, &mut got).unwrap();
    }
    rx.poll(BLOCK_TIMEOUT + 2, |_| {});
    assert_eq!(rx.take_stats(), Stats { recovered: 0, unrecoverable: 100 });
}

#[test]
fn repairs_that_nobody_fetches_stop_the_code_and_not_the_packets() {
    let mut tx = Sender::new(settings(2, 1), 0, 0).unwrap();
    let taken = (0..1000).filter(|n| tx.source(&ip(*n, 50), 0, 1).is_some()).count();
    assert_eq!(taken, 68);
    assert!(tx.source(&vec![0x45; MAX_PACKET + 1], 0, 1).is_none());
    let mut buf = [0; 100];
    assert!((0..34).all(|_| tx.repair(&mut buf).is_some()) && tx.repair(&mut buf).is_none());
    assert!(tx.source(&ip(0, 50), 0, 1).is_some());
}
