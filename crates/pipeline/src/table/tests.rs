use super::*;
use proptest::prelude::*;
use sag_model::flow::{FlowRecord4, Key4};
use std::collections::HashMap;

fn key(n: u64) -> Key4 {
    Key4 { addrs: n.wrapping_mul(0x9E37_79B9_7F4A_7C15), l4: 17 << 32 | 1 << 40 }
}

fn rev(k: &Key4) -> Key4 {
    Key4 { addrs: k.addrs.rotate_left(32), l4: 17 << 32 | 2 << 40 }
}

fn make(t: &FlowTable<FlowRecord4>, q: &mut DeferredFree, k: &Key4) -> Result<RecordNo, NotCreated> {
    t.create(k, &rev(k), q, |_, _, m| m.state.store(1, Ordering::Release))
}

#[test]
fn both_directions_are_found_and_know_each_other() {
    let t = FlowTable::<FlowRecord4>::private(100, Grace::immediate());
    let mut q = DeferredFree::default();
    let k = key(7);
    let no = make(&t, &mut q, &k).unwrap();
    assert_eq!(t.find(&k, t.hash(&k)), Some(no));
    assert_eq!(t.find(&rev(&k), t.hash(&rev(&k))), Some(no.peer()));
    assert_eq!(make(&t, &mut q, &k), Err(NotCreated::Exists(no)));
    assert_eq!(t.live(), 1);
    assert!(t.remove(no.session(), &mut q));
    assert!(!t.remove(no.session(), &mut q));
    assert_eq!(t.find(&k, t.hash(&k)), None);
    assert_eq!(t.live(), 0);
}

#[test]
fn the_whole_capacity_is_usable() {
    let t = FlowTable::<FlowRecord4>::private(5000, Grace::immediate());
    let mut q = DeferredFree::default();
    let made = (0..6000).take_while(|n| make(&t, &mut q, &key(*n)).is_ok()).count();
    assert_eq!(made, 5000);
    assert_eq!(make(&t, &mut q, &key(9999)), Err(NotCreated::Full));
    for n in 0..5000 {
        assert!(t.find(&key(n), t.hash(&key(n))).is_some());
    }
}

#[test]
fn no_bucket_overflows_before_the_table_is_full() {
    // As many sessions as an index of its size ever has to hold: half of its words.
    let n = 1 << 16;
    let t = FlowTable::<FlowRecord4>::private(n, Grace::immediate());
    assert_eq!(index_buckets(n) * BUCKET_WORDS as u32, n * 4);
    let mut q = DeferredFree::default();
    for round in 0..2u64 {
        for i in 0..u64::from(n) {
            let made = make(&t, &mut q, &key(round << 32 | i));
            assert!(made.is_ok(), "session {i}: {made:?}");
        }
        let second = (0..u64::from(n))
            .filter(|i| {
                let k = key(round << 32 | i);
                let index = t.index();
                let p = index.probe(t.hash(&k));
                index.find_in(p.first, &p, &|no| t.record(no).matches(&k)).is_none()
            })
            .count();
        assert!(second < n as usize / 20, "{second} of {n} are not where a look goes first");
        for i in 0..n {
            assert!(t.remove(i + 1, &mut q));
        }
    }
}

/// Of sessions between two ports of the LAN both words go to the same pages first.
#[test]
fn sessions_of_one_side_alone_fill_the_table() {
    let n = 1 << 16;
    let t = FlowTable::<FlowRecord4>::private(n, Grace::immediate());
    let mut q = DeferredFree::default();
    for i in 1..=u64::from(n) {
        let there = key(i);
        let back = Key4 { l4: there.l4, ..rev(&there) };
        let made = t.create(&there, &back, &mut q, |_, _, m| m.state.store(1, Ordering::Release));
        assert!(made.is_ok(), "session {i}: {made:?}");
    }
}

/// Traffic one way looks first into half of the pages, and the answers into the others.
#[test]
fn the_two_ways_have_pages_of_their_own() {
    let t = FlowTable::<FlowRecord4>::private(1 << 16, Grace::immediate());
    let page = |bucket: u32| bucket / 64 % 2;
    for i in 0..1000 {
        let (there, back) = (key(i), rev(&key(i)));
        let probe = |k: &Key4| t.index().probe(t.hash(k));
        assert_eq!((page(probe(&there).first), page(probe(&there).second)), (0, 1));
        assert_eq!((page(probe(&back).first), page(probe(&back).second)), (1, 0));
    }
}

#[test]
fn nothing_is_reused_before_its_grace_period() {
    let grace = Arc::new(Grace::default());
    let t = FlowTable::<FlowRecord4>::private(2, grace.clone());
    let mut q = DeferredFree::default();
    let a = make(&t, &mut q, &key(1)).unwrap();
    make(&t, &mut q, &key(2)).unwrap();
    t.remove(a.session(), &mut q);
    assert_eq!(make(&t, &mut q, &key(3)), Err(NotCreated::Full));
    // A grace period that began before the removal proves nothing.
    grace.done.store(0, Ordering::SeqCst);
    assert_eq!(make(&t, &mut q, &key(3)), Err(NotCreated::Full));
    grace.started.store(1, Ordering::SeqCst);
    grace.done.store(1, Ordering::SeqCst);
    assert_eq!(make(&t, &mut q, &key(3)).unwrap(), a);
}

#[test]
fn workers_racing_for_the_same_keys_agree_on_one_session() {
    let t = FlowTable::<FlowRecord4>::private(20_000, Grace::immediate());
    let n = 4000u64;
    let results: Vec<Vec<RecordNo>> = std::thread::scope(|s| {
        let hands: Vec<_> = (0..4)
            .map(|worker| {
                let t = &t;
                s.spawn(move || {
                    // No reuse while others run: the test's grace would not be honest otherwise.
                    let mut q = DeferredFree::default();
                    (0..n)
                        .map(|i| {
                            let (k, back) = (key(i), worker % 2 == 1);
                            let (a, b) = if back { (rev(&k), k) } else { (k, rev(&k)) };
                            loop {
                                let got =
                                    t.create(&a, &b, &mut q, |_, _, m| m.state.store(1, Ordering::Release));
                                match got {
                                    Ok(no) => break no,
                                    Err(NotCreated::Exists(_)) => {
                                        // The winner may itself have lost its other half; look again.
                                        if let Some(no) = t.find(&a, t.hash(&a)) {
                                            break no;
                                        }
                                    }
                                    Err(NotCreated::Contended) => std::thread::yield_now(),
                                    Err(NotCreated::Full) => panic!("full"),
                                }
                            }
                        })
                        .collect()
                })
            })
            .collect();
        hands.into_iter().map(|h| h.join().unwrap()).collect()
    });
    drop(results);
    let mut words = HashMap::new();
    for b in t.mem.buckets {
        for w in &b.word {
            let w = w.load(Ordering::SeqCst);
            if w != 0 {
                let no = RecordNo(w & ((1 << sag_model::flow::RECORD_BITS) - 1));
                let prior = words.insert(t.record(no).key(), no);
                assert_eq!(prior, None, "one record per key");
            }
        }
    }
    assert_eq!(words.len() as u64, n * 2);
    for i in 0..n {
        let (a, b) = (words[&key(i)], words[&rev(&key(i))]);
        assert_eq!(a.peer(), b, "both directions are one session");
    }
    assert_eq!(u64::from(t.live()), n);
}

proptest! {
    #[test]
    fn behaves_like_a_map(ops in prop::collection::vec((any::<bool>(), 0u64..40), 0..400)) {
        let t = FlowTable::<FlowRecord4>::private(20, Grace::immediate());
        let mut q = DeferredFree::default();
        let mut model: HashMap<u64, RecordNo> = HashMap::new();
        for (add, n) in ops {
            let k = key(n);
            if add {
                match (make(&t, &mut q, &k), model.get(&n)) {
                    (Ok(no), None) => { model.insert(n, no); }
                    (Err(NotCreated::Exists(no)), Some(have)) => prop_assert_eq!(no, *have),
                    (Err(NotCreated::Full), _) => prop_assert_eq!(model.len(), 20),
                    other => prop_assert!(false, "{:?}", other),
                }
            } else if let Some(no) = model.remove(&n) {
                prop_assert!(t.remove(no.session(), &mut q));
            }
            prop_assert_eq!(t.live() as usize, model.len());
        }
        for n in 0..40 {
            prop_assert_eq!(t.find(&key(n), t.hash(&key(n))), model.get(&n).copied());
        }
    }
}
