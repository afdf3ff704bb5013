use super::*;
use crate::table::{DeferredFree, Grace, NotCreated};
use sag_model::flow::{Bucket, FlowRecord4, Key4, RECORD_BITS};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

fn keys(n: u64) -> (Key4, Key4) {
    let l4 = |zone: u64| 17 << 32 | zone << 40;
    (Key4 { addrs: n | 99 << 40, l4: l4(1) }, Key4 { addrs: 99 | n << 24, l4: l4(2) })
}

/// Memory as the daemon's: room for an index of every size.
fn table(sessions: u32, grace: Arc<Grace>) -> FlowTable<FlowRecord4> {
    let mem = TableMemory {
        sequences: &[],
        buckets: Vec::leak((0..2 * index_buckets(sessions)).map(|_| Bucket::default()).collect()),
        ..TableMemory::private(sessions)
    };
    FlowTable::new(mem, 7, mem.smallest(), grace)
}

fn make(t: &FlowTable<FlowRecord4>, q: &mut DeferredFree, n: u64) -> Result<RecordNo, NotCreated> {
    let (a, b) = keys(n);
    t.create(&a, &b, q, |_, _, m| m.state.store(1, Ordering::Release))
}

fn found(t: &FlowTable<FlowRecord4>, n: u64) -> [Option<RecordNo>; 2] {
    let (a, b) = keys(n);
    [a, b].map(|k| t.find(&k, t.hash(&k)))
}

/// Steps until nothing more is wanted now, or, if it is calm, ever; the geometries that readers were sent to.
fn run_steps(t: &FlowTable<FlowRecord4>, calm: bool) -> Vec<u32> {
    let (mut r, mut seen) = (Resizer::default(), Vec::new());
    for _ in 0..10_000 {
        r.step(t, |g| seen.push(g.buckets()));
        if r.idle() && t.wanted(calm).is_none() {
            break;
        }
    }
    seen
}

fn words(t: &FlowTable<FlowRecord4>) -> usize {
    t.mem.buckets.iter().flat_map(|b| &b.word).filter(|w| w.load(Ordering::Relaxed) != 0).count()
}

#[test]
fn the_index_follows_the_live_sessions_up_and_down() {
    let t = table(300_000, Grace::immediate());
    let mut q = DeferredFree::default();
    assert_eq!(run_steps(&t, false), [0u32; 0]);
    let mut sizes = Vec::new();
    let mut made = Vec::new();
    for n in 0..300_000u64 {
        made.push(make(&t, &mut q, n).unwrap().session());
        if t.rings() {
            sizes.extend(run_steps(&t, false));
        }
    }
    assert_eq!(sizes, [16384, 65536, 131072]);
    assert_eq!(t.geometry(), Geometry::sized(index_buckets(300_000)));
    assert_eq!(words(&t), 600_000, "the earlier ones are empty");
    for n in 0..300_000 {
        let [a, b] = found(&t, n);
        assert_eq!(a.map(RecordNo::peer), b);
        assert!(a.is_some(), "{n}");
    }
    for session in &made[1000..] {
        assert!(t.remove(*session, &mut q));
    }
    assert_eq!(run_steps(&t, false), [0u32; 0], "more may come again");
    assert_eq!(run_steps(&t, true), [SMALLEST]);
    assert_eq!(words(&t), 2000);
    for n in 0..2000 {
        assert_eq!(found(&t, n)[0].is_some(), n < 1000, "{n}");
    }
}

#[test]
fn a_small_table_has_one_size() {
    let t = table(100, Grace::immediate());
    let mut q = DeferredFree::default();
    for n in 0..100 {
        make(&t, &mut q, n).unwrap();
        assert_eq!(run_steps(&t, n % 2 == 0), [0u32; 0]);
    }
}

#[test]
fn calm_ends_what_a_flood_has_made_and_nothing_goes_to_and_fro() {
    let t = table(300_000, Grace::immediate());
    let mut q = DeferredFree::default();
    let (mut r, mut seen) = (Resizer::default(), Vec::new());
    for n in 0..20_000 {
        make(&t, &mut q, n).unwrap();
        if t.rings() {
            (0..10).for_each(|_| r.step(&t, |g| seen.push(g.buckets())));
        }
    }
    assert_eq!(seen, [16384]);
    (0..10 * CALM).for_each(|_| r.step(&t, |g| seen.push(g.buckets())));
    assert_eq!(seen, [16384, 8192], "40,000 words of 131,072");
    // Around the size at which one more session would want the larger one.
    for n in 20_000..32_768 {
        make(&t, &mut q, n).unwrap();
    }
    for n in 0..2000 {
        let session = make(&t, &mut q, 100_000 + n).unwrap().session();
        (0..CALM).for_each(|_| r.step(&t, |g| seen.push(g.buckets())));
        assert!(t.remove(session, &mut q));
        (0..CALM).for_each(|_| r.step(&t, |g| seen.push(g.buckets())));
    }
    assert_eq!(seen, [16384, 8192, 65536, 16384]);
}

#[test]
fn a_successor_of_one_that_died_while_resizing_finds_the_sessions_and_no_others() {
    let t = table(200_000, Grace::immediate());
    let mut q = DeferredFree::default();
    for n in 0..20_000 {
        make(&t, &mut q, n).unwrap();
    }
    let mut r = Resizer::default();
    for step in 0.. {
        let again = FlowTable::<FlowRecord4>::new(t.mem, 7, t.geometry(), Grace::immediate());
        // What it would clear is still needed by the one that goes on here.
        let kept: Vec<u32> =
            t.mem.buckets.iter().flat_map(|b| &b.word).map(|w| w.load(Ordering::Relaxed)).collect();
        assert_eq!(
            again.restore(0, |_, _| Some(crate::session::State::Udp as u32)).sessions,
            20_000,
            "step {step}"
        );
        assert_eq!(words(&again), 40_000);
        for (w, old) in t.mem.buckets.iter().flat_map(|b| &b.word).zip(kept) {
            w.store(old, Ordering::Relaxed);
        }
        r.step(&t, |_| ());
        if step > 2 && r.idle() {
            break;
        }
    }
    assert_eq!(t.geometry(), Geometry::sized(32768));
}

#[test]
fn each_step_waits_until_all_workers_know_of_the_one_before() {
    let grace = Arc::new(Grace::default());
    let t = table(200_000, grace.clone());
    let mut q = DeferredFree::default();
    for n in 0..20_000 {
        make(&t, &mut q, n).unwrap();
    }
    let (small, large) = (t.mem.smallest(), Geometry::sized(32768));
    let mut r = Resizer::default();
    let known =
        || [&t.live, &t.written[0], &t.written[1]].map(|w| Geometry::from_word(w.load(Ordering::SeqCst)));
    let none = Geometry::from_word(0);
    // Where it stands after any number of steps before the grace period that began after the last
    // change, and after the one that had begun before it.
    let mut stays = |what: [Geometry; 3], words_used: usize| {
        for _ in 0..5 {
            r.step(&t, |_| ());
        }
        grace.done.store(grace.started.load(Ordering::SeqCst), Ordering::SeqCst);
        grace.workers_done.store(grace.workers_started.load(Ordering::SeqCst), Ordering::SeqCst);
        for _ in 0..5 {
            r.step(&t, |_| ());
        }
        assert_eq!(known(), what);
        assert_eq!(words(&t), words_used);
        for (begun, ended) in [(&grace.started, &grace.done), (&grace.workers_started, &grace.workers_done)] {
            ended.store(begun.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
    };
    stays([small, small, large], 40_000);
    stays([large, small, large], 80_000);
    stays([large, large, none], 80_000);
    stays([large, large, none], 40_000);
}

/// Workers make, look for and remove sessions while the index goes to and fro as fast as it can. Grace
/// periods are honest: every worker has begun another round.
#[test]
fn nothing_is_lost_or_left_behind_while_workers_are_at_it() {
    const WORKERS: usize = 3;
    const OWN: u64 = 8_000;
    let grace = Arc::new(Grace::default());
    let t = table(200_000, grace.clone());
    let rounds: [AtomicU64; WORKERS] = Default::default();
    let stop = AtomicBool::new(false);
    let switches = std::thread::scope(|s| {
        let hands: Vec<_> = rounds
            .iter()
            .enumerate()
            .map(|(w, round)| {
                let (t, stop) = (&t, &stop);
                s.spawn(move || {
                    let mut q = DeferredFree::default();
                    let mut live = std::collections::VecDeque::new();
                    let (mut next, mut grow) = (0u64, true);
                    while !stop.load(Ordering::Relaxed) {
                        round.fetch_add(1, Ordering::SeqCst);
                        for _ in 0..64 {
                            if live.len() as u64 >= OWN {
                                grow = false;
                            } else if live.len() < 100 {
                                grow = true;
                            }
                            if grow {
                                let n = next * WORKERS as u64 + w as u64;
                                next += 1;
                                // Its memory waits for the next round.
                                if make(t, &mut q, n).is_ok() {
                                    live.push_back(n);
                                }
                            } else if let Some(n) = live.pop_front() {
                                let no = found(t, n)[0].expect("a session that nobody has removed");
                                assert!(t.remove(no.session(), &mut q));
                                assert_eq!(found(t, n), [None, None]);
                            }
                            if let Some(&n) = live.get(live.len() / 2) {
                                let [a, b] = found(t, n);
                                assert!(a.is_some() && a.map(RecordNo::peer) == b, "{n}: {a:?} {b:?}");
                            }
                        }
                    }
                    // Out of the grace periods' way.
                    round.store(u64::MAX, Ordering::SeqCst);
                    live
                })
            })
            .collect();
        let (mut r, mut switches) = (Resizer::default(), 0);
        let mut began = None;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(4);
        while std::time::Instant::now() < until {
            let now = || rounds.each_ref().map(|r| r.load(Ordering::SeqCst));
            match began {
                None => {
                    grace.started.fetch_add(1, Ordering::SeqCst);
                    grace.workers_started.fetch_add(1, Ordering::SeqCst);
                    began = Some(now());
                }
                Some(then) if now().iter().zip(then).all(|(n, t)| *n != t) => {
                    grace.done.store(grace.started.load(Ordering::SeqCst), Ordering::SeqCst);
                    grace.workers_done.store(grace.workers_started.load(Ordering::SeqCst), Ordering::SeqCst);
                    began = None;
                }
                Some(_) => std::thread::yield_now(),
            }
            if r.idle() {
                let small = t.geometry().buckets() == SMALLEST;
                r.begin(&t, Geometry::sized(if small { 2 * SMALLEST } else { SMALLEST }));
            }
            r.step(&t, |_| switches += 1);
        }
        stop.store(true, Ordering::Relaxed);
        let left: Vec<u64> = hands.into_iter().flat_map(|h| h.join().unwrap()).collect();
        grace.done.store(u64::MAX, Ordering::SeqCst);
        grace.workers_done.store(u64::MAX, Ordering::SeqCst);
        while !r.idle() {
            r.step(&t, |_| ());
        }
        assert_eq!(t.live() as usize, left.len());
        for n in left {
            assert!(found(&t, n)[0].is_some());
        }
        switches
    });
    assert_eq!(words(&t), 2 * t.live() as usize, "no word of a removed session is left anywhere");
    for w in t.mem.buckets.iter().flat_map(|b| &b.word).map(|w| w.load(Ordering::Relaxed)).filter(|w| *w != 0)
    {
        let no = RecordNo(w & ((1 << RECORD_BITS) - 1));
        assert_ne!(t.meta(no.session()).state.load(Ordering::Relaxed), 0);
    }
    assert!(switches > 1, "the index changed {switches} times");
}
