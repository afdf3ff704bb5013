//! Virtual reassembly against the book: random datagrams in random pieces, in random order, with
//! repetitions, contradictions and pauses, compared with lists of what was seen.

use super::forwarded;
use proptest::prelude::*;
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::proto::FRAGMENT;
use sag_pipeline::fragments::{LIFETIME, QUIET, TIMEOUT};
use sag_pipeline::worker::BATCH;
use sag_testkit::*;
use std::collections::HashMap;
use std::time::Duration;

/// Units of eight bytes in the largest datagram of these stories.
const UNITS: u16 = 12;

/// Bytes `start..end` of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    datagram: u8,
    start: u16,
    end: u16,
    last: bool,
}

impl Piece {
    fn pkt(&self) -> Pkt {
        let port = 1000 + u16::from(self.datagram);
        // The third is of the first one's sender with another number, the last is IPv6.
        let (src, dst, id) = match self.datagram {
            0 => ("192.168.1.10", "198.51.100.7", 1),
            1 => ("192.168.1.11", "198.51.100.7", 1),
            2 => ("192.168.1.10", "198.51.100.7", 2),
            _ => ("2001:db8:1::10", "2001:db8:99::7", 1),
        };
        let mut p = Pkt::udp(src, dst, port, 53).payload(8 * usize::from(UNITS));
        p.l4 = p.l4[usize::from(self.start)..usize::from(self.end)].to_vec();
        let more = u16::from(!self.last);
        match self.datagram {
            0..3 => (p.id, p.frag) = (id, (more << 13) | (self.start / 8)),
            _ => {
                let [a, b] = (self.start | more).to_be_bytes();
                p.ext.push((FRAGMENT, vec![0, a, b, 0, 0, 0, 1]));
            }
        }
        p
    }

    fn out(&self) -> (PortIdx, Vec<u8>) {
        let router = if self.datagram < 3 { "203.0.113.1" } else { "2001:db8:2::1" };
        (WAN, forwarded(&self.pkt(), WAN, router))
    }

    fn meets(&self, other: &Piece) -> bool {
        (self.start..self.end).any(|b| (other.start..other.end).contains(&b))
    }
}

/// What is known of a datagram.
#[derive(Debug)]
struct Seen {
    pieces: Vec<Piece>,
    poisoned: bool,
    since: Nanos,
    lately: Nanos,
    waiting: Vec<(Nanos, Piece)>,
}

impl Seen {
    fn contradicts(&self, p: &Piece) -> bool {
        let end = self.pieces.iter().find(|o| o.last).map(|o| o.end);
        self.poisoned
            || self.pieces.iter().any(|o| o.meets(p) || (p.last && o.end > p.end))
            || end.is_some_and(|e| p.end > e || p.last)
    }

    fn complete(&self) -> bool {
        let total: u16 = self.pieces.iter().map(|p| p.end - p.start).sum();
        self.pieces.iter().any(|p| p.last && p.end == total)
    }
}

#[derive(Debug, Default)]
struct Book {
    datagrams: HashMap<u8, Seen>,
    sent: Vec<(PortIdx, Vec<u8>)>,
    overlaps: u64,
    given_up: u64,
}

impl Book {
    fn time(&mut self, now: Nanos) {
        self.datagrams.retain(|_, d| {
            let late = d.waiting.first().is_some_and(|w| now - w.0 > TIMEOUT);
            self.given_up += if late { d.waiting.len() as u64 } else { 0 };
            !late && now - d.since < LIFETIME
        });
    }

    fn arrive(&mut self, now: Nanos, p: Piece) {
        self.time(now);
        let new = || Seen { pieces: vec![], poisoned: false, since: now, lately: now, waiting: vec![] };
        let d = self.datagrams.entry(p.datagram).or_insert_with(new);
        if d.contradicts(&p) && now - d.lately > QUIET {
            *d = new();
        }
        d.lately = now;
        if d.contradicts(&p) {
            self.overlaps += 1;
            if !d.pieces.contains(&p) && !d.poisoned {
                d.poisoned = true;
                self.overlaps += d.waiting.drain(..).count() as u64;
            }
            return;
        }
        d.pieces.push(p);
        if d.pieces.iter().any(|o| o.start == 0) {
            self.sent.push(p.out());
            self.sent.extend(d.waiting.drain(..).map(|w| w.1.out()));
            if d.complete() {
                self.datagrams.remove(&p.datagram);
            }
        } else {
            d.waiting.push((now, p));
        }
    }

    fn waiting(&self) -> u64 {
        self.datagrams.values().map(|d| d.waiting.len() as u64).sum()
    }
}

/// A datagram in pieces.
fn cut(datagram: u8) -> impl Strategy<Value = Vec<Piece>> {
    (prop::collection::btree_set(1..UNITS, 1..5), 1..3u16, 0..8u16).prop_map(move |(cuts, more, short)| {
        let bounds: Vec<u16> = cuts.into_iter().collect();
        let total = (bounds[bounds.len() - 1] + more).min(UNITS) * 8 - short;
        let starts = std::iter::once(0).chain(bounds.iter().map(|b| b * 8));
        let ends = bounds.iter().map(|b| b * 8).chain([total]);
        starts.zip(ends).map(|(start, end)| Piece { datagram, start, end, last: end == total }).collect()
    })
}

/// A piece that fits by chance, if at all.
fn noise() -> impl Strategy<Value = Piece> {
    (0..4u8, 0..UNITS, 1..4u16, 0..8u16, any::<bool>()).prop_map(|(datagram, at, len, short, last)| {
        let last = last && at > 0;
        let end = (at + len).min(UNITS) * 8;
        Piece { datagram, start: at * 8, end: if last { end - short } else { end }, last }
    })
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let all = (cut(0), cut(1), cut(2), cut(3), prop_oneof![Just(0), 0..4usize]);
    all.prop_flat_map(|(a, b, c, d, n)| {
        let clean = [a, b, c, d].concat();
        let again = prop::sample::subsequence(clean.clone(), 0..=n);
        (Just(clean), again, prop::collection::vec(noise(), 0..=n))
    })
    .prop_flat_map(|(clean, again, noise)| Just([clean, again, noise].concat()).prop_shuffle())
}

/// Milliseconds before a piece; nearly always none.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![30 => Just(0u64), 2 => 1..1000u64, 1 => 1000..2200u64, 1 => Just(31_000u64)]
}

proptest! {
    #[test]
    fn by_the_book(
        story in prop::collection::vec(pieces(), 1..4).prop_map(|p| p.concat()),
        pauses in prop::collection::vec(pause(), 100),
    ) {
        let mut rig = Rig::branch();
        let mut twin = Rig::branch();
        let mut book = Book::default();
        let timed: Vec<_> = story.iter().zip(pauses.iter().chain(std::iter::repeat(&0))).collect();
        for group in timed.chunk_by(|_, (_, pause)| **pause == 0) {
            rig.now = rig.now + Duration::from_millis(*group[0].1);
            twin.now = rig.now;
            let (mut singles, mut emitted) = (vec![], vec![]);
            for (p, _) in group {
                let before = book.sent.len();
                book.arrive(rig.now, **p);
                singles.push(rig.send(&p.pkt()));
                let mut sent = rig.emitted();
                emitted.extend(sent.clone());
                if let Some(Outcome::Tx(port, f)) = singles.last() {
                    sent.push((*port, f.clone()));
                }
                prop_assert_eq!(&sent, &book.sent[before..], "after {:?}", p);
                prop_assert_eq!(rig.pipe.counters.port(LAN).held.get(), book.waiting());
                prop_assert_eq!(rig.drops(LAN, DropReason::FragmentOverlap), book.overlaps);
                prop_assert_eq!(rig.drops(LAN, DropReason::FragmentNoFirst), book.given_up);
            }
            // All that came without a pause, in one batch.
            let frames: Vec<_> = group.iter().map(|(p, _)| p.pkt().build()).collect();
            let outcomes: Vec<_> = frames.chunks(BATCH).flat_map(|f| twin.batch(DEV_LAN, f)).collect();
            prop_assert_eq!(outcomes, singles);
            prop_assert_eq!(twin.emitted(), emitted);
            prop_assert_eq!(twin.drops(LAN, DropReason::FragmentOverlap), book.overlaps);
        }
        rig.now = rig.now + TIMEOUT + Duration::from_millis(1);
        rig.poll();
        prop_assert_eq!(rig.pipe.counters.port(LAN).held.get(), 0);
    }

    /// Whatever the order: all that belongs together leaves, once.
    #[test]
    fn complete_whatever_the_order(
        rounds in prop::collection::vec(
            (cut(0), cut(1), cut(2), cut(3)).prop_flat_map(|(a, b, c, d)| Just([a, b, c, d].concat()).prop_shuffle()),
            1..4,
        ),
    ) {
        let mut rig = Rig::branch();
        for round in &rounds {
            let frames: Vec<_> = round.iter().map(|p| p.pkt().build()).collect();
            let outcomes = rig.batch(DEV_LAN, &frames);
            let mut sent = rig.emitted();
            sent.extend(outcomes.into_iter().filter_map(|o| match o {
                Outcome::Tx(port, f) => Some((port, f)),
                _ => None,
            }));
            let mut want: Vec<_> = round.iter().map(Piece::out).collect();
            sent.sort();
            want.sort();
            prop_assert_eq!(sent, want);
            prop_assert_eq!(rig.sessions(), (3, 1));
        }
        prop_assert_eq!(rig.pipe.counters.port(LAN).dropped(), 0);
    }
}
