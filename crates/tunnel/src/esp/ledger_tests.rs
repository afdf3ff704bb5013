//! No nonce twice under a key and no packet received twice, whatever becomes of clock, process and file.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

const KEY: [u8; 20] = [0x42; 20];

fn suite() -> Suite {
    Suite::new(Cipher::Aes128Gcm, &KEY).unwrap()
}

fn id(spi: u32) -> SaId {
    SaId::of(&KEY, spi)
}

/// A process with one tunnel whose key is static, as the daemon uses the ledger.
struct Process {
    ledger: Ledger,
    lease: Lease,
    sa: Outbound,
}

impl Process {
    fn start(disk: &mut String, clock: u64, spi: u32, extended: bool) -> Process {
        let mut ledger = Ledger::parse(disk.as_bytes()).unwrap();
        let lease = ledger.send(id(spi), extended, clock).unwrap();
        let sa = Outbound::unreserved(spi, suite(), extended, lease.first, lease.iv);
        let mut out = Process { ledger, lease, sa };
        assert_eq!(out.packet(), Err(SealError::Unreserved), "nothing is sent before it is on disk");
        out.write(disk);
        out
    }

    fn write(&mut self, disk: &mut String) {
        self.ledger.generation += 1;
        *disk = self.ledger.text();
        self.sa.grant(self.lease.end);
    }

    /// The IV and the sequence number of a packet.
    fn packet(&self) -> Result<(u64, u64), SealError> {
        let mut buf = [0; HEADROOM + 20 + TAILROOM];
        let s = self.sa.seal(&mut buf, HEADROOM..HEADROOM + 20, Inner::V4)?;
        Ok((u64::from_be_bytes(buf[HEADER..HEADROOM].try_into().unwrap()), s.sequence))
    }
}

fn empty() -> String {
    Ledger::new(0x0123_4567_89ab_cdef).text()
}

const SECOND: u64 = 1_000_000_000;
const TODAY: u64 = 1_784_000_000 * SECOND;

#[test]
fn no_nonce_is_used_twice_whatever_the_clock_does() {
    // Frozen; set back; without a battery at 1970; far ahead (2100, and beyond what is believed) and back again.
    let clocks = [
        TODAY,
        TODAY,
        TODAY,
        TODAY - 86_400 * SECOND,
        0,
        5,
        4_102_444_800 * SECOND,
        TODAY,
        u64::MAX,
        u64::MAX - 1,
        TODAY + SECOND,
    ];
    let (mut disk, mut seen, mut last) = (empty(), HashSet::new(), 0);
    for clock in clocks {
        let mut p = Process::start(&mut disk, clock, 300, true);
        for round in 0..3 {
            for _ in 0..500 {
                let (iv, sequence) = p.packet().unwrap();
                assert!(seen.insert(iv), "IV {iv:#x} again at clock {clock}");
                assert!(sequence > last, "sequence numbers go on");
                last = sequence;
            }
            let next = p.sa.next_sequence();
            p.ledger.extend(&mut p.lease, next, SEND_ROOM << round).unwrap();
            p.write(&mut disk);
        }
        // It is killed here: what was reserved and not used is skipped.
    }
}

const SEND_ROOM: u64 = 1 << 21;

/// With time alone as the base of the IVs, more packets than nanoseconds meet those of the next start.
#[test]
fn more_packets_than_nanoseconds() {
    let mut disk = empty();
    let mut p = Process::start(&mut disk, TODAY, 300, true);
    let next = p.sa.next_sequence();
    p.ledger.extend(&mut p.lease, next, 1 << 27).unwrap();
    p.write(&mut disk);
    let first = p.packet().unwrap().0;
    drop(p.sa.reserve(50_000_000));
    let last = p.packet().unwrap().0;
    assert_eq!(last - first, 50_000_001);
    // 50 ms later.
    let next = Process::start(&mut disk, TODAY + 50_000_000, 300, true).packet().unwrap().0;
    assert!(next > last, "{next} {last}");
}

#[test]
fn without_reserve_nothing_is_sent_and_no_number_is_lost() {
    for extended in [true, false] {
        let mut disk = empty();
        let mut p = Process::start(&mut disk, TODAY, 300, extended);
        while p.sa.next_sequence() < p.lease.end {
            drop(p.sa.reserve(1 << 10));
        }
        let stopped = p.sa.next_sequence();
        for _ in 0..1000 {
            assert_eq!(p.packet(), Err(SealError::Unreserved));
        }
        assert_eq!(p.sa.next_sequence(), stopped);
        p.ledger.extend(&mut p.lease, stopped, 1 << 20).unwrap();
        assert_eq!(p.packet(), Err(SealError::Unreserved), "it is not on disk yet");
        p.write(&mut disk);
        assert_eq!(p.packet().unwrap().1, stopped);
    }
}

/// Workers that overrun the reserve at the same moment use no number beyond it, and none twice.
#[test]
fn workers_share_a_reserve() {
    let mut disk = empty();
    let p = Process::start(&mut disk, TODAY, 300, true);
    let room = p.lease.end - p.sa.next_sequence();
    drop(p.sa.reserve((room - 3000) as u32));
    let all: Vec<u64> = std::thread::scope(|s| {
        let work = || (0..2000).filter_map(|_| p.packet().ok()).map(|(iv, _)| iv).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| s.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(all.len(), 3000);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 3000);
    assert!(all.iter().all(|iv| *iv < p.lease.iv + (p.lease.end - p.lease.first)));
}

#[test]
fn another_spi_or_the_same_key_again_shares_no_nonce() {
    let mut disk = empty();
    let mut a = Process::start(&mut disk, 0, 300, true);
    // The same key under another SPI, in one process, while the first one still sends.
    let lease = a.ledger.send(id(301), true, 0).unwrap();
    assert_eq!(lease.first, 1, "another SPI has numbers of its own");
    let b = Outbound::new(301, suite(), true, lease.first, lease.iv);
    let b = Process { ledger: a.ledger.clone(), lease, sa: b };
    let mut seen = HashSet::new();
    while let Ok((iv, _)) = a.packet() {
        assert!(seen.insert(iv));
        drop(a.sa.reserve(1000));
    }
    let next = a.sa.next_sequence();
    assert_eq!(a.ledger.extend(&mut a.lease, next, 1 << 20), Err(Withheld::Exhausted));
    assert!(b.packet().unwrap().0 > seen.into_iter().max().unwrap());
}

#[test]
fn a_lost_record_withholds_the_key_until_somebody_confirms() {
    let mut ledger = Ledger::new(7);
    ledger.set_lost(id(300));
    // Another SPI is no way around it, and neither is a restart.
    for spi in [300, 301] {
        assert_eq!(ledger.send(id(spi), true, TODAY), Err(Withheld::Lost));
    }
    let mut ledger = Ledger::parse(ledger.text().as_bytes()).unwrap();
    assert_eq!(ledger.send(id(300), true, TODAY), Err(Withheld::Lost));
    // Another key is free.
    assert!(ledger.send(SaId::of(&[1; 20], 300), true, TODAY).is_ok());
    assert!(ledger.confirm(id(300).key) && !ledger.confirm(id(300).key));
    assert!(ledger.send(id(300), true, TODAY).is_ok());
}

#[test]
fn the_peers_key_is_not_sent_under() {
    let mut ledger = Ledger::new(7);
    assert_eq!(ledger.receive(id(300)), 0);
    assert_eq!(ledger.send(id(301), true, TODAY), Err(Withheld::PeersKey));
}

#[test]
fn after_a_crash_what_was_received_is_not_received_again() {
    let mut ledger = Ledger::new(7);
    let rx = Inbound::new(300, suite(), true, 64, ledger.receive(id(300)));
    let tx = Outbound::new(300, suite(), true, 1, 7);
    let mut recorded = Vec::new();
    let mut send = |rx: &Inbound| {
        let mut buf = [0; HEADROOM + 20 + TAILROOM];
        (buf[HEADROOM], buf[HEADROOM + 3]) = (0x45, 20);
        let at = tx.seal(&mut buf, HEADROOM..HEADROOM + 20, Inner::V4).unwrap().at;
        recorded.push(buf[at.clone()].to_vec());
        rx.open(&mut buf[at]).map(|o| o.sequence)
    };
    let floor = rx.window().top() + receive_ahead(0, SECOND);
    ledger.set_received(id(300), floor);
    let disk = ledger.text();
    while send(&rx).unwrap() < floor {}
    // Killed.
    let mut ledger = Ledger::parse(disk.as_bytes()).unwrap();
    let rx = Inbound::new(300, suite(), true, 64, ledger.receive(id(300)));
    assert!(send(&rx).unwrap() > floor, "what is newer is received");
    for packet in &recorded {
        assert_eq!(rx.open(&mut packet.clone()), Err(OpenError::Replay));
    }
}

#[test]
fn the_reserve_for_receiving_follows_the_rate() {
    assert_eq!(receive_ahead(0, SECOND), 32);
    assert_eq!(receive_ahead(10, 10 * SECOND), 32);
    assert_eq!(receive_ahead(1000, SECOND), 20_000);
    assert_eq!(receive_ahead(u64::MAX, 0), 1 << 28);
    assert_eq!((send_ahead(0), send_ahead(50_000), send_ahead(u64::MAX)), (1 << 20, 3_200_000, 1 << 28));
}

#[test]
fn a_file_that_is_cut_short_or_altered_is_no_ledger() {
    let mut ledger = Ledger::new(9);
    ledger.send(id(300), true, TODAY).unwrap();
    ledger.receive(SaId::of(&[2; 20], 5));
    let text = ledger.text();
    let read = Ledger::parse(text.as_bytes()).unwrap();
    assert_eq!(read.text(), text);
    for len in 0..text.len() {
        assert!(Ledger::parse(&text.as_bytes()[..len]).is_err(), "{len} bytes of {}", text.len());
    }
    for at in 0..text.len() {
        let mut other = text.clone().into_bytes();
        if other[at].is_ascii_digit() {
            other[at] = b'0' + (other[at] - b'0' + 1) % 10;
            assert!(Ledger::parse(&other).is_err(), "byte {at}");
        }
    }
    assert!(matches!(Ledger::parse(b"{}"), Err(LedgerError::Damaged(_))));
    let later = text.replacen("\"version\":2", "\"version\":3", 1);
    assert_eq!(Ledger::parse(later.as_bytes()), Err(LedgerError::Version(3)));
}

#[test]
fn the_table_is_bounded_and_forgets_what_is_out_of_use() {
    let mut ledger = Ledger::new(9);
    let mut first = ledger.send(id(1), true, 0).unwrap();
    for n in 0..2 * MAX_KEYS as u32 {
        ledger.generation += 1;
        let next = first.first;
        ledger.extend(&mut first, next, (2 << 20) + u64::from(n)).unwrap();
        let key = SaId::of(&n.to_be_bytes(), n);
        let other = SaId::of(&[n.to_be_bytes(), [9; 4]].concat(), n);
        ledger.send(key, true, 0).unwrap();
        ledger.set_received(other, u64::from(n));
    }
    assert_eq!(ledger.sending_keys().len(), MAX_KEYS);
    assert!(ledger.sending_keys().contains(&id(1).key), "it is in use");
    assert!(ledger.text().len() < 400_000, "{}", ledger.text().len());
    // One that was forgotten shares no IV with its former self.
    let again = ledger.send(SaId::of(&0u32.to_be_bytes(), 0), true, 0).unwrap();
    assert!(again.iv >= (1 << 63) + 2 * MAX_KEYS as u64 * (1 << 20));
}

#[test]
fn epochs_of_the_gateway_go_up_whatever_the_clock_does() {
    let mut ledger = Ledger::new(9);
    let mut last = 0;
    for seconds in [1_784_000_000, 1_784_000_000, 5, 0, u64::MAX, 1_784_000_001] {
        let epoch = Ledger::parse(ledger.text().as_bytes()).unwrap().next_epoch(seconds);
        assert_eq!(ledger.next_epoch(seconds), epoch);
        assert!(epoch > last);
        last = epoch;
    }
    ledger.note_epoch(last + 5);
    assert_eq!(ledger.next_epoch(0), last + 6);
    // The last one: a controller may have asked for it.
    ledger.note_epoch(u64::MAX);
    assert_eq!(ledger.next_epoch(1_784_000_002), u64::MAX);
}

#[test]
fn a_process_that_ends_in_good_order_skips_nothing() {
    let mut disk = empty();
    let mut p = Process::start(&mut disk, TODAY, 300, true);
    p.packet().unwrap();
    p.ledger.finish(&p.lease, p.sa.next_sequence());
    p.write(&mut disk);
    let (iv, sequence) = Process::start(&mut disk, 0, 300, true).packet().unwrap();
    assert_eq!(sequence, 2);
    assert!(iv > p.lease.iv + 1);
}

proptest! {
    #[test]
    fn no_history_of_starts_repeats_a_nonce(
        steps in proptest::collection::vec((any::<u64>(), 0u32..3_000_000, 0u32..3, any::<bool>()), 1..30),
        random: u64,
    ) {
        let mut ledger = Ledger::new(random);
        // Ranges of IVs that were used.
        let mut used: Vec<(u64, u64)> = Vec::new();
        for (clock, packets, spi, kill) in steps {
            let mut lease = match ledger.send(id(spi + 300), true, clock) {
                Ok(lease) => lease,
                Err(why) => panic!("{why}"),
            };
            let sa = Outbound::unreserved(spi, suite(), true, lease.first, lease.iv);
            sa.grant(lease.end);
            let next = lease.end - 1;
            ledger.extend(&mut lease, next, u64::from(packets) + 2).unwrap();
            sa.grant(lease.end);
            drop(sa.reserve(packets));
            let n = sa.next_sequence() - lease.first;
            if n > 0 {
                let range = (lease.iv, lease.iv + n);
                prop_assert!(used.iter().all(|(a, b)| range.1 <= *a || *b <= range.0), "{range:?}");
                used.push(range);
            }
            if !kill {
                ledger.finish(&lease, sa.next_sequence());
            }
            ledger.generation += 1;
            ledger = Ledger::parse(ledger.text().as_bytes()).unwrap();
        }
    }
}
