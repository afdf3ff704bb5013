use super::*;
use crate::resolution::Requester;
use proptest::prelude::*;
use sag_model::PortIdx;

const ARRIVAL: Arrival = Arrival {
    dev: 0,
    ingress: PortIdx(0),
    tunnel: None,
    since: Nanos::ZERO,
    ports: FlowPorts { proto: 0, sport: 0, dport: 0, message: 0, new_id: 0 },
    from: Requester::NONE,
};
const PORTS: FlowPorts = FlowPorts { proto: 17, sport: 1, dport: 2, message: 0, new_id: 3 };
const NO_ROOM: Followed = Followed::Refused(DropReason::FragmentTableFull);

fn span(start: u16, end: u16, last: bool) -> Span {
    Span { start, end, last }
}

fn key(id: u32) -> DatagramKey {
    DatagramKey { src: 1, dst: 2, id, proto: 17, zone: 0 }
}

/// Numbers whose datagrams share a set.
fn crowd(f: &Fragments, n: usize) -> Vec<DatagramKey> {
    let set = f.set(&key(0));
    (0..).map(key).filter(|k| f.set(k) == set).take(n).collect()
}

/// Notes a fragment that comes first of its datagram and waits.
fn early(f: &mut Fragments, k: &DatagramKey, s: Span, now: Nanos) -> EntryNo {
    let Followed::Early(no) = f.follow(k, &s, FlowPorts::default(), now) else { panic!("{s:?} of {k:?}") };
    assert!(f.keep(no, &s, Arrival { since: now, ..ARRIVAL }, &[7; 60]));
    no
}

#[test]
fn memory_is_bounded_and_known() {
    const { assert!(BYTES < 3_400_000, "for each worker") };
    let f = Fragments::default();
    assert_eq!(f.entries.len() * size_of::<Entry>() + size_of_val(&*f.maps), BYTES - pending::BYTES);
}

#[test]
fn the_quietest_datagram_makes_room() {
    let mut f = Fragments::default();
    let keys = crowd(&f, WAYS + 1);
    let first = span(0, 48, false);
    let at = |ms| Nanos::from_secs(100) + Duration::from_millis(ms);
    for (k, ms) in keys.iter().zip([30, 10, 20, 40]) {
        assert!(matches!(f.follow(k, &first, PORTS, at(ms)), Followed::First(_)));
    }
    assert_eq!(
        f.follow(&keys[1], &span(48, 96, false), FlowPorts::default(), at(50)),
        Followed::Later(PORTS)
    );
    assert!(matches!(f.follow(&keys[4], &first, PORTS, at(60)), Followed::First(_)));
    let known: Vec<_> = keys.iter().map(|k| f.find(k, at(60)).is_some()).collect();
    assert_eq!(known, [true, true, false, true, true]);
    // A finished one leaves a free place: nobody has to go.
    assert_eq!(f.follow(&keys[0], &span(48, 50, true), FlowPorts::default(), at(61)), Followed::Later(PORTS));
    assert!(matches!(f.follow(&keys[2], &first, PORTS, at(62)), Followed::First(_)));
    assert_eq!(keys.iter().filter(|k| f.find(k, at(62)).is_some()).count(), WAYS);
}

#[test]
fn datagrams_that_wait_for_their_first_are_not_displaced() {
    let mut f = Fragments::default();
    let keys = crowd(&f, WAYS + 1);
    let now = Nanos::from_secs(5);
    let waiting: Vec<_> = keys[..WAYS].iter().map(|k| early(&mut f, k, span(48, 96, false), now)).collect();
    assert_eq!(f.follow(&keys[4], &span(48, 96, false), FlowPorts::default(), now), NO_ROOM);
    assert_eq!(f.follow(&keys[4], &span(0, 48, false), PORTS, now), NO_ROOM);
    // What is dropped makes room.
    let mut buf = [0; pending::SLOT_BYTES];
    assert_eq!(f.overdue(now + TIMEOUT), None);
    let late = now + TIMEOUT + Duration::from_nanos(1);
    assert_eq!(f.overdue(late), Some(waiting[0]));
    assert!(f.take(waiting[0], &mut buf).is_some_and(|h| h.len == 60));
    assert!(f.take(waiting[0], &mut buf).is_none());
    f.give_up(waiting[0]);
    assert_eq!(f.overdue(late), Some(waiting[1]));
    assert!(matches!(f.follow(&keys[4], &span(0, 48, false), PORTS, now), Followed::First(_)));
}

#[test]
fn what_there_is_no_room_for_leaves_no_trace() {
    let mut f = Fragments::default();
    let now = Nanos::from_secs(5);
    let s = span(48, 96, false);
    let Followed::Early(no) = f.follow(&key(0), &s, FlowPorts::default(), now) else { panic!() };
    assert!(!f.keep(no, &s, ARRIVAL, &[0; 5000]), "larger than a slot");
    assert_eq!(f.find(&key(0), now), None);
    // With one that waits, the datagram stays; the refused one may come again.
    let no = early(&mut f, &key(0), span(96, 144, false), now);
    assert_eq!(f.follow(&key(0), &s, FlowPorts::default(), now), Followed::Early(no));
    assert!(!f.keep(no, &s, ARRIVAL, &[0; 5000]));
    assert_eq!(early(&mut f, &key(0), s, now), no);
    for n in 0.. {
        if f.waiting.is_full() {
            break;
        }
        early(&mut f, &key(1 + n / 4), span(48 * (n as u16 % 4 + 1), 48 * (n as u16 % 4 + 2), false), now);
    }
    let entries = |f: &Fragments| f.entries.iter().filter(|e| e.state != State::Free).count();
    let before = entries(&f);
    assert_eq!(f.follow(&key(9999), &s, FlowPorts::default(), now), NO_ROOM);
    assert_eq!(entries(&f), before);
}

#[test]
fn the_largest_datagram() {
    let (mut c, mut map) = (Cover::NONE, [[0; 2]; WORDS]);
    let spans: Vec<_> = (0..8192u32)
        .map(|u| span(u as u16 * 8, if u == 8191 { u16::MAX } else { u as u16 * 8 + 8 }, u == 8191))
        .collect();
    for s in spans.iter().rev() {
        assert!(!c.complete());
        assert_eq!(c.fit(&map, s), Fit::New, "{s:?}");
        c.add(&mut map, s);
        assert_eq!(c.fit(&map, s), Fit::Duplicate, "{s:?}");
    }
    assert!(c.complete());
    assert_eq!(c.fit(&map, &span(0, u16::MAX, true)), Fit::Contradiction);
    c.clear(&mut map);
    assert!(spans.iter().all(|s| c.fit(&map, s) == Fit::New));
    let whole = span(0, u16::MAX, true);
    assert_eq!(c.fit(&map, &whole), Fit::New);
    c.add(&mut map, &whole);
    assert!(c.complete());
    assert_eq!(c.fit(&map, &whole), Fit::Duplicate);
}

/// The same by the book: a list of what was seen, byte by byte.
#[derive(Default)]
struct List(Vec<Span>);

impl List {
    fn fit(&self, s: &Span) -> Fit {
        let meets = |o: &Span| (s.start..s.end).any(|b| (o.start..o.end).contains(&b));
        let end = self.0.iter().find(|o| o.last).map(|o| o.end);
        if self.0.contains(s) {
            return Fit::Duplicate;
        }
        let beyond = end.is_some_and(|e| s.end > e || s.last);
        let cut = s.last && self.0.iter().any(|o| o.end > s.end);
        if beyond || cut || self.0.iter().any(meets) { Fit::Contradiction } else { Fit::New }
    }

    fn complete(&self) -> bool {
        let Some(end) = self.0.iter().find(|o| o.last).map(|o| o.end) else { return false };
        (0..end).all(|b| self.0.iter().any(|s| (s.start..s.end).contains(&b)))
    }
}

fn any_span(units: u16) -> impl Strategy<Value = Span> {
    (0..units, 1..units, 0..8u16, any::<bool>()).prop_map(|(at, len, cut, last)| {
        let end = (at + len) * 8;
        span(at * 8, if last { end - cut } else { end }, last)
    })
}

proptest! {
    #[test]
    fn the_map_is_the_list(
        spans in prop_oneof![
            prop::collection::vec(any_span(6), 1..30),
            prop::collection::vec(any_span(200), 1..30),
        ],
        again in any::<bool>(),
    ) {
        let (mut c, mut map) = (Cover::NONE, [[0; 2]; WORDS]);
        if again {
            c.add(&mut map, &span(640, 1280, true));
            c.clear(&mut map);
        }
        let mut list = List::default();
        for s in &spans {
            let fit = c.fit(&map, s);
            prop_assert_eq!(fit, list.fit(s), "{:?} after {:?}", s, list.0);
            if fit == Fit::New {
                c.add(&mut map, s);
                list.0.push(*s);
            }
            prop_assert_eq!(c.complete(), list.complete());
        }
    }
}
