//! [`Table`]: the routes, and the [`Fib`] that follows them.
//!
//! What a route changes lies within its prefix. [`Table::repaint`] goes down to the node in which the prefix
//! ends, and builds the slots that it covers anew, from the routes in it. On the way back each node takes its
//! shortest form.

mod queries;

use crate::addr::FibAddr;
use crate::block::{
    self, MAX_WORDS, NODE, NONE, ROOT_BITS, ROOT_PAGE_BITS, SKIP, SLOTS, STRIDE, Skip, Slots,
};
use crate::fib::Fib;
use crate::pages::{DIR, PAGE};
use crate::slabs::{self, Place, Slabs};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

/// The highest number that a route can have.
pub const MAX_ROUTE: u32 = NONE - 1;

/// How large a table may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Prefixes.
    pub routes: usize,
    /// Bytes of nodes. A route is taken as long as there are fewer; its own come on top.
    pub node_bytes: usize,
}

impl Limits {
    /// As much as the format of the nodes allows, whatever the routes are. The place of a word has 30 bits:
    /// half of these are for the limit, and the other half for what one change may bring. That is 144 words
    /// for each route within its prefix at the most: 18 nodes of 8.
    pub const MAX: Limits = Limits { routes: 1 << 21, node_bytes: MAX_WORDS / 2 * 4 };
}

/// Why a table does not take a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// [`Limits::routes`].
    #[error("the table has as many routes as it may have")]
    TooManyRoutes,
    /// [`Limits::node_bytes`].
    #[error("the nodes of the table have as much memory as they may have")]
    NodesFull,
    /// Beyond [`MAX_ROUTE`].
    #[error("{0} is no number of a route")]
    RouteNumber(u32),
}

/// Bytes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// The first array.
    pub root: usize,
    /// Pages of nodes.
    pub nodes: usize,
    /// Of these, blocks in use.
    pub nodes_used: usize,
    /// The list of routes, about; lookups do not read it.
    pub routes: usize,
}

impl Memory {
    /// What lookups read.
    pub const fn fib(&self) -> usize {
        self.root + self.nodes
    }

    /// All of it.
    pub const fn total(&self) -> usize {
        self.fib() + self.routes
    }
}

type Key<A> = (A, u8);

/// A route within a region that is being built.
type Entry<A> = (A, u32, u32);

/// The routes of one routing table, and what lookups read.
#[derive(Debug)]
pub struct Table<A> {
    /// All but the default route. A prefix stands right before those that it covers.
    routes: BTreeMap<Key<A>, u32>,
    fib: Fib<A>,
    slabs: Slabs,
    limits: Limits,
    /// Routes of the region that is being built; here to be used again.
    entries: Vec<Entry<A>>,
}

impl<A: FibAddr> Default for Table<A> {
    fn default() -> Table<A> {
        Table::new()
    }
}

/// A prefix.
#[derive(Clone, Copy)]
struct Prefix<A> {
    addr: A,
    len: u32,
}

impl<A: FibAddr> Table<A> {
    /// A table without routes, as large as it likes to become.
    pub fn new() -> Table<A> {
        Table::with_limits(Limits::MAX)
    }

    /// A table without routes that becomes so large at most.
    pub fn with_limits(limits: Limits) -> Table<A> {
        let limits = Limits {
            routes: limits.routes.min(Limits::MAX.routes),
            node_bytes: limits.node_bytes.min(Limits::MAX.node_bytes),
        };
        Table {
            routes: BTreeMap::new(),
            fib: Fib::new(),
            slabs: Slabs::default(),
            limits,
            entries: Vec::new(),
        }
    }

    /// A table of routes; the last one of a prefix counts. Faster than to insert them one by one.
    ///
    /// # Errors
    /// [`TableError`]: there are more than [`Limits::MAX`] admits, or a number is too large.
    pub fn build(routes: impl IntoIterator<Item = (A, u8, u32)>) -> Result<Table<A>, TableError> {
        let mut table = Table::new();
        let mut too_large = None;
        let keyed = routes.into_iter().map(|(addr, len, route)| {
            too_large = too_large.or((route > MAX_ROUTE).then_some(route));
            (key(prefix(addr, len)), route)
        });
        table.routes = keyed.collect();
        table.fib.default = table.routes.remove(&(A::default(), 0)).unwrap_or(NONE);
        if let Some(route) = too_large {
            return Err(TableError::RouteNumber(route));
        }
        if table.len() > table.limits.routes {
            return Err(TableError::TooManyRoutes);
        }
        table.repaint(Prefix { addr: A::default(), len: 0 }, NONE);
        Ok(table)
    }

    /// What lookups read, as of now. It costs some 130 references and shares all memory.
    pub fn snapshot(&self) -> Fib<A> {
        self.fib.clone()
    }

    /// The route of the longest prefix that holds `addr`, as of now.
    pub fn lookup(&self, addr: A) -> Option<u32> {
        self.fib.lookup(addr)
    }

    /// Prefixes.
    pub fn len(&self) -> usize {
        self.routes.len() + usize::from(self.fib.default != NONE)
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The route of this very prefix.
    pub fn get(&self, addr: A, len: u8) -> Option<u32> {
        let p = prefix(addr, len);
        if p.len == 0 { self.fib.default_route() } else { self.routes.get(&key(p)).copied() }
    }

    /// Sets the route of a prefix; bits behind the prefix do not count. Returns the one that it had.
    ///
    /// # Errors
    /// [`TableError`]; the table is as it was.
    pub fn insert(&mut self, addr: A, len: u8, route: u32) -> Result<Option<u32>, TableError> {
        if route > MAX_ROUTE {
            return Err(TableError::RouteNumber(route));
        }
        let p = prefix(addr, len);
        let old = self.get(addr, len);
        if old == Some(route) {
            return Ok(old);
        }
        if old.is_none() && self.len() >= self.limits.routes {
            return Err(TableError::TooManyRoutes);
        }
        if p.len == 0 {
            self.fib.default = route;
            return Ok(old);
        }
        if self.slabs.pages() * PAGE * 4 >= self.limits.node_bytes {
            return Err(TableError::NodesFull);
        }
        self.routes.insert(key(p), route);
        self.repaint(p, route);
        Ok(old)
    }

    /// Takes the route of a prefix out, and returns it.
    pub fn remove(&mut self, addr: A, len: u8) -> Option<u32> {
        let p = prefix(addr, len);
        if p.len == 0 {
            let old = self.fib.default_route();
            self.fib.default = NONE;
            return old;
        }
        let old = self.routes.remove(&key(p))?;
        let route = self.covering(p).map_or(NONE, |(_, route)| route);
        self.repaint(p, route);
        Some(old)
    }

    /// Bytes in use.
    pub fn memory(&self) -> Memory {
        // Entries of a B-tree, whose nodes are two thirds full on average.
        let entry = size_of::<Key<A>>() + size_of::<u32>();
        Memory {
            root: self.fib.root.memory(),
            nodes: self.slabs.pages() * PAGE * 4,
            nodes_used: self.slabs.words() * 4,
            routes: self.routes.len() * entry * 3 / 2 + self.slabs.memory(),
        }
    }

    /// Builds what lies within a prefix anew: its own route, or what holds without one, and the routes
    /// within.
    fn repaint(&mut self, p: Prefix<A>, route: u32) {
        let mut entries = std::mem::take(&mut self.entries);
        let within = (Excluded((p.addr, p.len as u8)), Included((p.addr.last(p.len), u8::MAX)));
        entries.extend(self.routes.range(within).map(|(&(addr, len), &route)| (addr, u32::from(len), route)));
        if p.len <= ROOT_PAGE_BITS {
            self.repaint_pages(p, route, &entries);
        } else if p.len <= ROOT_BITS {
            let first = p.addr.bits(0, ROOT_BITS);
            let mut words = vec![route; 1 << (ROOT_BITS - p.len)];
            for i in first..first + words.len() {
                let old = self.fib.root.get(i);
                self.free(old);
            }
            self.paint(&mut words, first, 0, &entries);
            for (i, word) in (first..).zip(words) {
                self.fib.root.set(i, word);
            }
            self.tidy(route, first);
        } else {
            let slot = p.addr.bits(0, ROOT_BITS);
            let new = self.update(self.fib.root.get(slot), ROOT_BITS, p, route, &entries);
            self.fib.root.set(slot, new);
            self.tidy(new, slot);
        }
        entries.clear();
        self.entries = entries;
    }

    /// The same for a prefix of whole pages of the first array.
    fn repaint_pages(&mut self, p: Prefix<A>, route: u32, entries: &[Entry<A>]) {
        let first = p.addr.bits(0, ROOT_PAGE_BITS);
        let mut uniform = vec![route; 1 << (ROOT_PAGE_BITS - p.len)];
        let mut mixed = Vec::new();
        let mut rest = entries;
        while let [(addr, len, route), tail @ ..] = rest {
            let page = addr.bits(0, ROOT_PAGE_BITS) - first;
            if *len <= ROOT_PAGE_BITS {
                uniform[page..page + (1 << (ROOT_PAGE_BITS - len))].fill(*route);
                rest = tail;
            } else {
                let inside = rest.iter().take_while(|e| e.0.common(*addr) >= ROOT_PAGE_BITS).count();
                mixed.push((page, &rest[..inside]));
                rest = &rest[inside..];
            }
        }
        let mut mixed = mixed.into_iter().peekable();
        let mut next = 0;
        while let Some(&word) = uniform.get(next) {
            let (i, page) = (next, first + next);
            // Most of a small table is blank, and stays so.
            let dir = uniform.get(i..i + DIR).filter(|_| page.is_multiple_of(DIR));
            if dir.is_some_and(|words| words.iter().all(|w| *w == NONE))
                && self.fib.root.is_blank_dir(page / DIR)
                && mixed.peek().is_none_or(|m| m.0 >= i + DIR)
            {
                next += DIR;
                continue;
            }
            next += 1;
            self.free_page(page);
            match mixed.next_if(|m| m.0 == i) {
                None => self.fib.root.fill(page, word),
                Some((_, inside)) => {
                    let mut words = [word; PAGE];
                    self.paint(&mut words, page * PAGE, 0, inside);
                    self.fib.root.replace(page, words);
                }
            }
        }
    }

    /// The word for a region `at` bits long in which a prefix ends, once that prefix is painted anew.
    fn update(&mut self, word: u32, at: u32, p: Prefix<A>, route: u32, entries: &[Entry<A>]) -> u32 {
        let (mut slots, block) = self.open(word, at);
        let slot = p.addr.bits(at, STRIDE);
        if p.len <= at + STRIDE {
            let run = 1 << (at + STRIDE - p.len);
            let covered = &mut slots[slot..slot + run];
            for old in covered {
                self.free(std::mem::replace(old, route));
            }
            self.paint(&mut slots[slot..slot + run], slot, at, entries);
        } else {
            slots[slot] = self.update(slots[slot], at + STRIDE, p, route, entries);
        }
        self.close(&slots, at, p.addr, block)
    }

    /// Puts routes into slots that they cover, the first of which is number `first`, and builds what lies
    /// below.
    fn paint(&mut self, slots: &mut [u32], first: usize, at: u32, entries: &[Entry<A>]) {
        let width = if at == 0 { ROOT_BITS } else { STRIDE };
        let mut rest = entries;
        while let [(addr, len, route), tail @ ..] = rest {
            let slot = addr.bits(at, width) - first;
            if *len <= at + width {
                slots[slot..slot + (1 << (at + width - len))].fill(*route);
                rest = tail;
                continue;
            }
            let below = rest.iter().take_while(|e| e.0.common(*addr) >= at + width).count();
            let (inside, tail) = rest.split_at(below);
            let mut new = [slots[slot]; SLOTS];
            self.paint(&mut new, 0, at + width, inside);
            slots[slot] = self.close(&new, at + width, *addr, None);
            rest = tail;
        }
    }

    /// The slots that a word stands for in a region `at` bits long, and its block, if that has to be freed or
    /// written.
    fn open(&self, word: u32, at: u32) -> (Slots, Option<u32>) {
        if word < NODE {
            return ([word; SLOTS], None);
        }
        let (page, place) = self.fib.blocks.at(block::place(word));
        if word < SKIP {
            return (block::slots(page, place), Some(word));
        }
        let skip = Skip::<A>::read(page, place);
        let mut slots = [skip.miss; SLOTS];
        let done = skip.len == at + STRIDE;
        slots[skip.prefix.bits(at, STRIDE)] = if done { skip.hit } else { word };
        (slots, done.then_some(word))
    }

    /// The word for these slots of a region that holds `within` and is `at` bits long. `block` is one that is
    /// not needed any more.
    fn close(&mut self, slots: &Slots, at: u32, within: A, block: Option<u32>) -> u32 {
        let bitmap = block::bitmap_of(slots);
        if bitmap == 1 {
            self.free_block(block);
            return slots[0];
        }
        if let Some(skip) = self.chain(slots, bitmap, at, within) {
            let inner = skip.hit;
            let same_miss = || {
                let (page, place) = self.fib.blocks.at(block::place(inner));
                Skip::<A>::read(page, place).miss == skip.miss
            };
            if inner >= SKIP && same_miss() {
                self.free_block(block);
                return inner;
            }
            let place = self.replace_block(block, Skip::<A>::WORDS);
            let (page, at) = self.fib.blocks.at_mut(place);
            skip.write(page, at);
            return SKIP | place as u32;
        }
        let place = self.replace_block(block, 2 + bitmap.count_ones() as usize);
        let (page, at) = self.fib.blocks.at_mut(place);
        (page[at], page[at + 1]) = (bitmap as u32, (bitmap >> 32) as u32);
        let mut next = at + 1;
        for (i, word) in slots.iter().enumerate() {
            if bitmap >> i & 1 == 1 {
                next += 1;
                page[next] = *word;
            }
        }
        NODE | place as u32
    }

    /// The skip for these slots, if one of them leads on and all others are the same.
    fn chain(&self, slots: &Slots, bitmap: u64, at: u32, within: A) -> Option<Skip<A>> {
        // One slot that differs makes two or three runs.
        if bitmap.count_ones() > 3 {
            return None;
        }
        let mut leading = (0..SLOTS).filter(|i| block::leads_on(slots[*i]));
        let (slot, None) = (leading.next()?, leading.next()) else { return None };
        let miss = slots[usize::from(slot == 0)];
        let alike = slots.iter().enumerate().all(|(i, word)| i == slot || *word == miss);
        let bits = A::with_bits(slot, at, STRIDE).words();
        let base = within.truncate(at).words();
        let prefix = A::from_words(std::array::from_fn(|i| base[i] | bits[i]));
        alike.then_some(Skip { len: at + STRIDE, miss, hit: slots[slot], prefix })
    }

    fn block_words(&self, word: u32) -> usize {
        let (page, place) = self.fib.blocks.at(block::place(word));
        if word < SKIP { 2 + block::bitmap(page, place).count_ones() as usize } else { Skip::<A>::WORDS }
    }

    /// A block of so many words: the old one, if it has the size, else another one in its place.
    fn replace_block(&mut self, old: Option<u32>, words: usize) -> usize {
        if let Some(word) = old {
            if slabs::size_class(self.block_words(word)) == slabs::size_class(words) {
                return block::place(word);
            }
            self.free_block(old);
        }
        match self.slabs.take(words) {
            Place::At(place) => place,
            Place::InNewPage(place) => {
                self.fib.blocks.push();
                place
            }
        }
    }

    fn free_block(&mut self, block: Option<u32>) {
        if let Some(page) = block.and_then(|word| self.slabs.give_back(block::place(word))) {
            self.fib.blocks.clear(page);
        }
    }

    /// Gives the page of a slot back, if the slot has become blank and was the last that was not.
    fn tidy(&mut self, word: u32, slot: usize) {
        if word == NONE {
            self.fib.root.tidy(slot / PAGE);
        }
    }

    /// Frees the blocks that a page of the first array leads to.
    fn free_page(&mut self, page: usize) {
        let leads_on = |word: &u32| block::leads_on(*word);
        if self.fib.root.is_uniform(page) || !self.fib.root.page(page).iter().any(leads_on) {
            return;
        }
        for i in 0..PAGE {
            let old = self.fib.root.page(page)[i];
            self.free(old);
        }
    }

    /// Frees the blocks that a word leads to.
    fn free(&mut self, word: u32) {
        if word < NODE {
            return;
        }
        let (page, place) = self.fib.blocks.at(block::place(word));
        if word < SKIP {
            let runs = block::bitmap(page, place).count_ones() as usize;
            for i in 0..runs {
                let (page, place) = self.fib.blocks.at(block::place(word));
                let inner = page[place + 2 + i];
                self.free(inner);
            }
        } else {
            let hit = Skip::<A>::read(page, place).hit;
            self.free(hit);
        }
        self.free_block(Some(word));
    }
}

fn prefix<A: FibAddr>(addr: A, len: u8) -> Prefix<A> {
    let len = u32::from(len).min(A::BITS);
    Prefix { addr: addr.truncate(len), len }
}

/// Lengths are of at most 128 bits.
fn key<A>(p: Prefix<A>) -> Key<A> {
    (p.addr, p.len as u8)
}

impl<A: FibAddr> Fib<A> {
    /// A table of routes that does not change; the last one of a prefix counts.
    ///
    /// # Errors
    /// As of [`Table::build`].
    pub fn build(routes: impl IntoIterator<Item = (A, u8, u32)>) -> Result<Fib<A>, TableError> {
        Ok(Table::build(routes)?.snapshot())
    }
}
