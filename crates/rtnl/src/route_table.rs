//! The routes of the mirror, and how they are brought in line with the kernel's while these change.
//!
//! Most routes of an Internet table differ by their destination alone. So attributes are there once for all routes that
//! have them, and a route takes some 60 bytes.
//!
//! Reading a full Internet table takes seconds, in which the kernel announces changes. [`RouteTable`] takes both in any
//! order: from [`RouteTable::begin`] to [`RouteTable::end`] a route of which the kernel speaks is as the announcements
//! say, and what was read of it counts for nothing, for that may be older. Everything else becomes as it was read, entry
//! by entry, so that there is no second table. What is neither read nor spoken of is gone.

use crate::route::{Route, RouteAttributes, RouteClass, RouteKey, RouteRef};
use ipnet::IpNet;
use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

/// A route to a destination, and the last reading by which it was there.
#[derive(Debug, Clone)]
struct Entry {
    attributes: Arc<RouteAttributes>,
    reading: u32,
}

/// The routes to a destination: nearly always one.
#[derive(Debug, Clone)]
enum Entries {
    One(Entry),
    /// By class, and in the kernel's order.
    #[expect(clippy::box_collection, reason = "as small as one entry, of which there may be a million")]
    Many(Box<Vec<Entry>>),
}

impl Entries {
    fn all(&self) -> &[Entry] {
        match self {
            Entries::One(one) => std::slice::from_ref(one),
            Entries::Many(many) => many,
        }
    }

    fn all_mut(&mut self) -> &mut [Entry] {
        match self {
            Entries::One(one) => std::slice::from_mut(one),
            Entries::Many(many) => many,
        }
    }

    fn insert(&mut self, at: usize, new: Entry) {
        match std::mem::replace(self, Entries::Many(Box::default())) {
            Entries::One(one) => *self = Entries::Many(Box::new(vec![one])),
            many @ Entries::Many(_) => *self = many,
        }
        if let Entries::Many(many) = self {
            many.insert(at.min(many.len()), new);
        }
    }

    /// Of many there is one left.
    fn shrink(&mut self) {
        if let Entries::Many(many) = self
            && many.len() == 1
            && let Some(one) = many.pop()
        {
            *self = Entries::One(one);
        }
    }

    /// Where the routes of a class are, or would be.
    fn of_class(&self, class: &RouteClass) -> Range<usize> {
        let all = self.all();
        let from = all.iter().take_while(|e| e.attributes.class() < *class).count();
        let count = all.iter().skip(from).take_while(|e| e.attributes.class() == *class).count();
        from..from + count
    }
}

/// What [`RouteTable::sweep`] has done.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Destinations of routes that are gone.
    pub gone: Vec<IpNet>,
    /// Some that were not read are still there.
    pub doubtful: bool,
    /// Where to go on; `None`: that was all.
    pub last: Option<IpNet>,
}

/// Routes by their keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteTable {
    by_dst: BTreeMap<IpNet, Entries>,
    /// Those of all routes, each once.
    attributes: HashSet<Arc<RouteAttributes>>,
    /// Destinations with a route to the machine itself.
    own: BTreeSet<IpNet>,
    count: usize,
    /// The number of the last reading.
    reading: u32,
    /// While a reading is on: keys of which the kernel has spoken since it began.
    spoken_of: Option<HashSet<RouteKey>>,
}

/// Tables are the same whenever and however they were read.
impl PartialEq for RouteTable {
    fn eq(&self, other: &RouteTable) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for RouteTable {}

impl RouteTable {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = RouteRef<'_>> {
        self.by_dst.iter().flat_map(|(dst, of)| refs(*dst, of))
    }

    /// The routes to a destination.
    pub fn to(&self, dst: IpNet) -> impl Iterator<Item = RouteRef<'_>> {
        self.by_dst.get(&dst).into_iter().flat_map(move |of| refs(dst, of))
    }

    /// The routes to the machine itself.
    pub fn own(&self) -> impl Iterator<Item = RouteRef<'_>> {
        self.own.iter().flat_map(|dst| self.to(*dst)).filter(|r| r.is_own())
    }

    /// The routes of one key, in the kernel's order.
    pub fn like(&self, key: RouteKey) -> impl Iterator<Item = (RouteKey, &RouteAttributes)> {
        let of = self.by_dst.get(&key.dst);
        let places = of.map(|of| of.of_class(&key.class)).unwrap_or_default();
        let some = of.and_then(|of| of.all().get(places)).unwrap_or_default();
        some.iter().enumerate().map(move |(nth, e)| (RouteKey { nth, ..key }, &*e.attributes))
    }

    /// The one copy of attributes that all routes have.
    fn share(&mut self, attributes: RouteAttributes) -> Arc<RouteAttributes> {
        if let Some(known) = self.attributes.get(&attributes) {
            return known.clone();
        }
        let new = Arc::new(attributes);
        self.attributes.insert(new.clone());
        new
    }

    /// A route has these no longer.
    fn release(&mut self, attributes: Arc<RouteAttributes>) {
        // One is the set's.
        if Arc::strong_count(&attributes) == 2 {
            self.attributes.remove(&attributes);
        }
    }

    /// Puts a route in the place of the one of this key, or adds it. Returns whether that changed anything.
    pub fn set(&mut self, key: RouteKey, route: Route) -> bool {
        let reading = self.reading;
        let own = route.is_own();
        let new = Entry { attributes: self.share(route.attributes), reading };
        let Some(of) = self.by_dst.get_mut(&key.dst) else {
            self.insert(key.dst, 0, new);
            return true;
        };
        let places = of.of_class(&key.class);
        let at = places.start + key.nth;
        match of.all_mut().get_mut(at).filter(|_| places.contains(&at)) {
            Some(e) if Arc::ptr_eq(&e.attributes, &new.attributes) => {
                e.reading = reading;
                false
            }
            Some(e) => {
                let old = std::mem::replace(e, new);
                self.release(old.attributes);
                self.note_own(key.dst, own);
                true
            }
            None => {
                self.insert(key.dst, places.end, new);
                true
            }
        }
    }

    /// Adds a route behind those of the same key.
    pub fn append(&mut self, route: Route) {
        let (dst, class) = (route.dst, route.class());
        let new = Entry { attributes: self.share(route.attributes), reading: self.reading };
        let at = self.by_dst.get(&dst).map_or(0, |of| of.of_class(&class).end);
        self.insert(dst, at, new);
    }

    fn insert(&mut self, dst: IpNet, at: usize, new: Entry) {
        let own = new.attributes.is_own();
        self.count += 1;
        match self.by_dst.entry(dst) {
            Place::Vacant(place) => {
                place.insert(Entries::One(new));
            }
            Place::Occupied(mut place) => place.get_mut().insert(at, new),
        }
        self.note_own(dst, own);
    }

    fn note_own(&mut self, dst: IpNet, own: bool) {
        if own {
            self.own.insert(dst);
        }
    }

    /// Takes the route of this key out; false: there is none.
    pub fn remove(&mut self, key: &RouteKey) -> bool {
        let Some(of) = self.by_dst.get(&key.dst) else { return false };
        let places = of.of_class(&key.class);
        let at = places.start + key.nth;
        if places.contains(&at) {
            self.remove_at(key.dst, at);
        }
        places.contains(&at)
    }

    fn remove_at(&mut self, dst: IpNet, at: usize) {
        let old = match self.by_dst.get_mut(&dst) {
            Some(Entries::Many(many)) => many.remove(at),
            _ => match self.by_dst.remove(&dst) {
                Some(Entries::One(one)) => {
                    self.own.remove(&dst);
                    one
                }
                _ => return,
            },
        };
        if let Some(of) = self.by_dst.get_mut(&dst) {
            of.shrink();
        }
        self.count -= 1;
        self.release(old.attributes);
    }

    /// Takes all routes to a destination out.
    pub fn remove_to(&mut self, dst: IpNet) {
        while self.by_dst.contains_key(&dst) {
            self.remove_at(dst, 0);
        }
    }

    /// Whether a route refers to this nexthop object.
    pub fn uses(&self, nexthop: u32) -> bool {
        self.attributes.iter().any(|a| a.nexthop_id == Some(nexthop))
    }

    /// Of the next `count` destinations behind one, those with a route by these nexthop objects, and where to go on; `None`:
    /// that was all.
    pub fn users(
        &self,
        ids: &BTreeSet<u32>,
        after: Option<IpNet>,
        count: usize,
    ) -> (Vec<IpNet>, Option<IpNet>) {
        let uses = |e: &Entry| e.attributes.nexthop_id.is_some_and(|id| ids.contains(&id));
        let mut out = Vec::new();
        let last = self.each(after, count, |dst, of| {
            if of.iter().any(uses) {
                out.push(dst);
            }
        });
        (out, last)
    }

    /// Of the next `count` destinations behind one, those with a route that matches, which is found out once for routes
    /// that differ by their destination alone; and where to go on; `None`: that was all.
    pub fn matching(
        &self,
        after: Option<IpNet>,
        count: usize,
        matches: impl Fn(RouteRef<'_>) -> bool,
    ) -> (Vec<IpNet>, Option<IpNet>) {
        let mut known: HashMap<*const RouteAttributes, bool> = HashMap::new();
        let mut out = Vec::new();
        let last = self.each(after, count, |dst, of| {
            let mut is = |e: &Entry| {
                let route = RouteRef { dst, attributes: &e.attributes };
                *known.entry(Arc::as_ptr(&e.attributes)).or_insert_with(|| matches(route))
            };
            if of.iter().any(&mut is) {
                out.push(dst);
            }
        });
        (out, last)
    }

    fn each(
        &self,
        after: Option<IpNet>,
        count: usize,
        mut each: impl FnMut(IpNet, &[Entry]),
    ) -> Option<IpNet> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut last, mut seen) = (None, 0);
        for (dst, of) in self.by_dst.range((from, Bound::Unbounded)).take(count) {
            (last, seen) = (Some(*dst), seen + 1);
            each(*dst, of.all());
        }
        last.filter(|_| seen == count)
    }

    /// From now on entries are read.
    pub fn begin(&mut self) {
        self.reading += 1;
        self.spoken_of = Some(HashSet::new());
    }

    /// Whether entries are being read.
    pub fn is_read(&self) -> bool {
        self.spoken_of.is_some()
    }

    /// The kernel has announced something of this key.
    pub fn speak_of(&mut self, key: RouteKey) {
        if let Some(keys) = &mut self.spoken_of {
            keys.insert(key);
        }
    }

    fn is_spoken_of(&self, key: &RouteKey) -> bool {
        self.spoken_of.as_ref().is_some_and(|keys| keys.contains(key))
    }

    /// Takes an entry that was read. Returns whether that changed anything.
    pub fn read(&mut self, route: Route) -> bool {
        let key = route.key();
        if self.is_spoken_of(&key) {
            return false;
        }
        let Some(of) = self.by_dst.get(&key.dst) else {
            self.append(route);
            return true;
        };
        let siblings = of.all().get(of.of_class(&key.class)).unwrap_or_default();
        let is_read = |e: &Entry| e.reading == self.reading;
        // A dump of IPv6 that begins anew inside the kernel has some entries twice.
        let same = |e: &Entry| {
            *e.attributes == route.attributes
                || key.dst.addr().is_ipv6() && e.attributes.same_siblings(&route.attributes)
        };
        if siblings.iter().any(|e| is_read(e) && same(e)) {
            return false;
        }
        // Routes of one key are read in their order.
        let nth = siblings.iter().take_while(|e| is_read(e)).count();
        self.set(RouteKey { nth, ..key }, route)
    }

    /// Of the next `count` destinations behind one, takes the routes out that were not read and of which the kernel has not
    /// spoken. `unreliable`, of IPv4 and of IPv6: what was read may lack some that are there, so it takes two readings.
    pub fn sweep(&mut self, after: Option<IpNet>, count: usize, unreliable: [bool; 2]) -> Swept {
        let mut swept = Swept::default();
        let mut gone = Vec::new();
        swept.last = self.each(after, count, |dst, of| {
            let unreliable = unreliable[usize::from(dst.addr().is_ipv6())];
            // From the back, so that places stay.
            for (at, e) in of.iter().enumerate().rev().filter(|(_, e)| e.reading != self.reading) {
                if self.is_spoken_of(&RouteKey { dst, class: e.attributes.class(), nth: 0 }) {
                    continue;
                }
                if unreliable && e.reading + 1 == self.reading {
                    swept.doubtful = true;
                } else {
                    gone.push((dst, at));
                }
            }
        });
        for (dst, at) in gone {
            self.remove_at(dst, at);
            swept.gone.push(dst);
        }
        swept
    }

    /// All has been read, or given up.
    pub fn end(&mut self) {
        self.spoken_of = None;
    }
}

fn refs(dst: IpNet, of: &Entries) -> impl Iterator<Item = RouteRef<'_>> {
    of.all().iter().map(move |e| RouteRef { dst, attributes: &e.attributes })
}

#[cfg(test)]
mod tests;
