use super::*;
use crate::block::{NODE, NONE, ROOT_PAGE_BITS, SKIP, Skip};
use crate::generate::{self, Rng};
use crate::pages::PAGE;
use arc_swap::ArcSwap;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The definition: the route of the longest of the prefixes that hold an address.
fn linear<A: FibAddr>(routes: &BTreeMap<(A, u8), u32>, addr: A) -> Option<u32> {
    let holds = |&(&(a, len), _): &(&(A, u8), &u32)| addr.truncate(len.into()) == a;
    routes.iter().filter(holds).max_by_key(|((_, len), _)| *len).map(|(_, route)| *route)
}

/// What a word leads to, apart from where it lies.
fn shape<A: FibAddr>(fib: &Fib<A>, word: u32, out: &mut Vec<u64>) {
    if word < NODE {
        return out.push(word.into());
    }
    let (page, at) = fib.blocks.at(block::place(word));
    if word < SKIP {
        let bitmap = block::bitmap(page, at);
        out.extend([1 << 32, bitmap]);
        (0..bitmap.count_ones() as usize).for_each(|i| shape(fib, page[at + 2 + i], out));
    } else {
        let skip = Skip::<A>::read(page, at);
        out.extend([2 << 32, skip.len.into(), skip.miss.into()]);
        out.extend(skip.prefix.words().map(u64::from));
        shape(fib, skip.hit, out);
    }
}

fn shapes<A: FibAddr>(fib: &Fib<A>) -> Vec<u64> {
    let mut out = Vec::new();
    for page in 0..1 << ROOT_PAGE_BITS {
        let words = fib.root.page(page);
        let alike = fib.root.is_uniform(page) || words.iter().all(|w| *w == words[0] && *w < NODE);
        words[..if alike { 1 } else { PAGE }].iter().for_each(|w| shape(fib, *w, &mut out));
    }
    out
}

/// Words of the blocks that can be reached, as they are allotted.
fn reachable<A: FibAddr>(fib: &Fib<A>) -> usize {
    fn of<A: FibAddr>(fib: &Fib<A>, word: u32) -> usize {
        if word < NODE {
            return 0;
        }
        let (page, at) = fib.blocks.at(block::place(word));
        if word < SKIP {
            let runs = block::bitmap(page, at).count_ones() as usize;
            (2 + runs).next_multiple_of(4) + (0..runs).map(|i| of(fib, page[at + 2 + i])).sum::<usize>()
        } else {
            Skip::<A>::WORDS.next_multiple_of(4) + of(fib, Skip::<A>::read(page, at).hit)
        }
    }
    let pages = (0..1 << ROOT_PAGE_BITS).filter(|page| !fib.root.is_uniform(*page));
    pages.map(|page| fib.root.page(page).iter().map(|w| of(fib, *w)).sum::<usize>()).sum()
}

/// A table, and the same routes by definition.
struct Rig<A> {
    table: Table<A>,
    routes: BTreeMap<(A, u8), u32>,
}

impl<A: FibAddr> Rig<A> {
    fn new() -> Rig<A> {
        Rig { table: Table::new(), routes: BTreeMap::new() }
    }

    /// Route 0: the prefix goes.
    fn change(&mut self, addr: A, len: u8, route: u32) {
        let key = (addr.truncate(len.into()), len);
        if route == 0 {
            assert_eq!(self.table.remove(addr, len), self.routes.remove(&key));
        } else {
            assert_eq!(self.table.insert(addr, len, route), Ok(self.routes.insert(key, route)));
        }
    }

    /// At the edges of all prefixes, and elsewhere.
    fn check(&self, others: &[A]) {
        let edges = self.routes.keys().flat_map(|&(a, len)| [a, a.last(len.into())]);
        for addr in edges.chain(others.iter().copied()) {
            assert_eq!(self.table.lookup(addr), linear(&self.routes, addr), "{addr:x?}");
        }
        for &(addr, len) in self.routes.keys() {
            for len in [len, len.saturating_sub(1), len / 2] {
                let (net, holds) =
                    (addr.truncate(len.into()), |a: A, l: u8| l <= len && addr.truncate(l.into()) == a);
                let all = self.routes.iter().filter(|((a, l), _)| holds(*a, *l));
                let longest = all.max_by_key(|((_, l), _)| *l).map(|(&(a, l), &r)| (a, l, r));
                assert_eq!(self.table.longest(net, len), longest, "{addr:x?}/{len}");
                let inside = |&(&(a, l), _): &(&(A, u8), &u32)| l >= len && a.truncate(len.into()) == net;
                let within = self.routes.iter().filter(inside).map(|(&(a, l), &r)| (a, l, r));
                assert!(self.table.within(net, len).eq(within), "{addr:x?}/{len}");
            }
        }
        assert_eq!(self.table.len(), self.routes.len());
        assert!(self.table.iter().eq(self.routes.iter().map(|(&(a, len), &r)| (a, len, r))));
    }

    /// The structure is the one that the routes make when they are put in at once, and no block is lost.
    fn check_shape(&self) {
        let mut fresh = Table::new();
        for (&(a, len), &r) in self.routes.iter().rev() {
            fresh.insert(a, len, r).unwrap();
        }
        assert_eq!(shapes(&self.table.snapshot()), shapes(&fresh.snapshot()));
        let built = Table::build(self.routes.iter().map(|(&(a, len), &r)| (a, len, r))).unwrap();
        assert_eq!(shapes(&self.table.snapshot()), shapes(&built.snapshot()));
        assert_eq!((built.len(), built.get(A::default(), 0)), (fresh.len(), fresh.get(A::default(), 0)));
        assert_eq!(reachable(&self.table.snapshot()) * 4, self.table.memory().nodes_used);
    }
}

/// Changes that meet each other: addresses with few different bits, lengths around the edges of nodes, few
/// routes.
fn changes(bits: u32) -> impl Strategy<Value = Vec<(u128, u8, u32)>> {
    let clustered = (any::<u128>(), any::<u128>(), any::<u128>()).prop_map(|(a, b, c)| a & b & c);
    let addr = prop_oneof![3 => clustered, 1 => any::<u128>()];
    prop::collection::vec((addr, 0..=bits as u8, 0..5u32), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn equals_a_linear_scan_through_changes_v4(changes in changes(32), others in prop::collection::vec(any::<u32>(), 30)) {
        let mut rig = Rig::<u32>::new();
        for (i, (addr, len, route)) in changes.iter().enumerate() {
            rig.change((addr >> 96) as u32, *len, *route);
            if i % 16 == 0 {
                rig.check(&others);
            }
        }
        rig.check(&others);
        rig.check_shape();
    }

    #[test]
    fn equals_a_linear_scan_through_changes_v6(changes in changes(128), others in prop::collection::vec(any::<u128>(), 30)) {
        let mut rig = Rig::<u128>::new();
        for (i, (addr, len, route)) in changes.iter().enumerate() {
            rig.change(*addr, *len, *route);
            if i % 16 == 0 {
                rig.check(&others);
            }
        }
        rig.check(&others);
        rig.check_shape();
    }

    #[test]
    fn snapshots_stay_as_they_were(before in changes(128), after in changes(128)) {
        let mut rig = Rig::<u128>::new();
        before.iter().for_each(|c| rig.change(c.0, c.1, c.2));
        let (snapshot, routes) = (rig.table.snapshot(), rig.routes.clone());
        after.iter().for_each(|c| rig.change(c.0, c.1, c.2));
        for addr in before.iter().chain(&after).flat_map(|c| [c.0, c.0.last(c.1.into())]) {
            prop_assert_eq!(snapshot.lookup(addr), linear(&routes, addr));
        }
    }
}

#[test]
fn lengths_of_every_kind_nest() {
    let mut rig = Rig::<u128>::new();
    let addr = 0x2001_0db8_dead_beef_0123_4567_89ab_cdef_u128;
    let near: Vec<_> = (0..128).map(|bit| addr ^ 1 << bit).collect();
    for len in (0..=128).rev() {
        rig.change(addr, len, u32::from(len) + 1);
    }
    rig.check(&near);
    for len in 0..=128 {
        rig.change(addr, len, 0);
        if len % 9 == 0 {
            rig.check(&near);
            rig.check_shape();
        }
    }
    assert!(rig.table.is_empty());
    assert_eq!((rig.table.memory().nodes, rig.table.memory().nodes_used), (0, 0), "nothing is left behind");
}

#[test]
fn bits_behind_the_prefix_do_not_count() {
    let mut table = Table::<u32>::new();
    table.insert(0x0a01_0203, 8, 1).unwrap();
    assert_eq!((table.get(0x0aff_ffff, 8), table.lookup(0x0a00_0000)), (Some(1), Some(1)));
    assert_eq!(table.insert(7, 200, 2), Ok(None), "a length beyond the address is a host route");
    assert_eq!((table.get(7, 32), table.lookup(7), table.lookup(6)), (Some(2), Some(2), None));
    assert_eq!(table.remove(0x0a00_0001, 8), Some(1));
    assert_eq!((table.remove(0x0a00_0001, 8), table.len()), (None, 1));
}

#[test]
fn what_is_built_at_once_is_checked_too() {
    let twice = Table::<u32>::build([(0, 0, 1), (9 << 24, 8, 2), (0, 0, 3), (9 << 24 | 1, 8, 4)]).unwrap();
    assert_eq!((twice.lookup(0), twice.lookup(9 << 24), twice.len()), (Some(3), Some(4), 2));
    assert_eq!(Table::<u32>::build([(0, 0, NONE)]).err(), Some(TableError::RouteNumber(NONE)));
    let many = (0..=Limits::MAX.routes as u32).map(|i| (i << 8, 24, 1));
    assert_eq!(Table::<u32>::build(many).err(), Some(TableError::TooManyRoutes));
}

#[test]
fn a_full_table_says_so_and_goes_on() {
    let mut few = Table::<u32>::with_limits(Limits { routes: 2, ..Limits::MAX });
    few.insert(0, 0, 1).unwrap();
    few.insert(1 << 24, 8, 2).unwrap();
    assert_eq!(few.insert(2 << 24, 8, 3), Err(TableError::TooManyRoutes));
    assert_eq!(few.insert(1 << 24, 8, 4), Ok(Some(2)), "one that is there can change");
    assert_eq!((few.lookup(2 << 24), few.lookup(1 << 24)), (Some(1), Some(4)));
    few.remove(0, 0);
    assert_eq!(few.insert(2 << 24, 8, 3), Ok(None), "there is room again");
    assert_eq!(few.insert(3 << 24, 8, MAX_ROUTE + 1), Err(TableError::RouteNumber(NONE)));
    assert_eq!(few.insert(2 << 24, 8, MAX_ROUTE), Ok(Some(3)));

    let limit = 64 << 10;
    let mut small = Table::<u128>::with_limits(Limits { node_bytes: limit, ..Limits::MAX });
    let routes = generate::scattered6(1, 10_000, 9);
    let refused = routes.iter().position(|&(a, len, r)| small.insert(a, len, r).is_err()).unwrap();
    assert_eq!(small.insert(1, 128, 1), Err(TableError::NodesFull));
    assert!(refused > 400 && small.memory().nodes < limit + (80 << 10), "{refused} {:?}", small.memory());
    assert!(routes[..refused].iter().all(|&(a, len, r)| small.lookup(a.last(len.into())) == Some(r)));
    routes[..refused].iter().for_each(|r| assert_eq!(small.remove(r.0, r.1), Some(r.2)));
    assert_eq!(small.insert(1, 128, 1), Ok(None));
}

#[test]
fn memory_follows_the_routes() {
    // Whatever was there before, and however often it has changed.
    let routes = generate::ipv4(5, 20_000, 16);
    let mut table = Table::<u32>::new();
    routes.iter().for_each(|&(a, len, r)| assert_eq!(table.insert(a, len, r), Ok(None)));
    let new = table.memory();
    let mut rng = Rng::new(6);
    for _ in 0..40_000 {
        let (a, len, r) = routes[rng.below(routes.len())];
        table.remove(a, len);
        table.insert(a, len, (r + 1) % 16).unwrap();
        table.insert(a, len, r).unwrap();
    }
    let old = table.memory();
    assert_eq!(old.nodes_used, new.nodes_used);
    assert!(old.nodes < new.nodes * 5 / 4, "{old:?} after {new:?}");
    routes.iter().for_each(|&(a, len, r)| assert_eq!(table.remove(a, len), Some(r)));
    assert_eq!(table.memory().nodes, 0);
    assert!(table.memory().root <= Table::<u32>::new().memory().root + 4096, "{:?}", table.memory());
    // Parts with one route alone share their memory, too.
    table.insert(0, 1, 1).unwrap();
    assert!(table.memory().root < 200 << 10, "{:?}", table.memory());
}

#[test]
fn scattered_prefixes_cost_no_more_than_others() {
    let routes = generate::scattered6(2, 5_000, 64);
    let mut table = Table::<u128>::new();
    routes.iter().for_each(|&(a, len, r)| assert_eq!(table.insert(a, len, r), Ok(None)));
    // Beyond the first array: a skip, a node and the way between the two.
    let each = table.memory().nodes_used / routes.len();
    assert!(each < 100, "{each} bytes for a route");
    assert!(routes.iter().all(|&(a, len, r)| table.lookup(a.last(len.into())) == Some(r)));
}

#[test]
fn a_snapshot_shares_what_does_not_change() {
    let routes = generate::ipv4(7, 50_000, 64);
    let mut table = Table::<u32>::new();
    routes.iter().for_each(|&(a, len, r)| assert_eq!(table.insert(a, len, r), Ok(None)));
    let before = table.snapshot();
    let (a, len, r) = routes[9];
    table.insert(a, len, r + 1).unwrap();
    let after = table.snapshot();
    let copied = after.root.differing(&before.root) + after.blocks.differing(&before.blocks);
    assert!((1..=4).contains(&copied), "{copied} pages");
}

/// Readers see each change whole: a pair of prefixes always has the same route.
#[test]
fn readers_see_one_state_while_routes_change() {
    let mut table = Table::<u32>::new();
    generate::ipv4(8, 5_000, 7).iter().for_each(|&(a, len, r)| assert!(table.insert(a, len, r).is_ok()));
    // Behind the generated ones: 240.0.0.0/4.
    let pair = |i: u32| (0xf000_0000 | i << 12, 0xf800_0000 | i << 7);
    let set = |table: &mut Table<u32>, i: u32, route: u32| {
        let (a, b) = pair(i);
        table.insert(a, 22, route).unwrap();
        table.insert(b, 26, route).unwrap();
    };
    (0..64).for_each(|i| set(&mut table, i, 1));
    let current = ArcSwap::from_pointee(table.snapshot());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (current, done) = (&current, &done);
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    let fib = current.load();
                    let (a, b) = pair(rng.below(64) as u32);
                    let (first, second) = (fib.lookup(a | 3), fib.lookup(b | 3));
                    assert_eq!(first, second);
                    let version = fib.lookup(pair(0).0).unwrap();
                    assert!(version >= newest, "no reader goes back");
                    newest = version;
                }
            });
        }
        for round in 2..400 {
            (0..64).for_each(|i| set(&mut table, i, round));
            // Nodes come and go meanwhile.
            (0..64).for_each(|i| assert!(table.insert(pair(i).0, 26 + (round % 6) as u8, round).is_ok()));
            current.store(Arc::new(table.snapshot()));
            (0..64).for_each(|i| assert!(table.remove(pair(i).0, 26 + (round % 6) as u8).is_some()));
        }
        done.store(true, Ordering::Relaxed);
    });
}
