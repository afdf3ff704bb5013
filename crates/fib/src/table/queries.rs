//! Which prefixes a table has, and how they lie to each other. Lookups of addresses do not need it.

use super::{Key, Prefix, Table, key, prefix};
use crate::addr::FibAddr;
use std::ops::Bound::{Excluded, Included};

impl<A: FibAddr> Table<A> {
    /// The longest prefix that covers this one, which may be itself, with its route.
    pub fn longest(&self, addr: A, len: u8) -> Option<(A, u8, u32)> {
        let p = prefix(addr, len);
        let own = self.routes.get(&key(p)).map(|&route| (p.addr, p.len as u8, route));
        let shorter = || self.covering(p).map(|((addr, len), route)| (addr, len, route));
        let default = || self.fib.default_route().map(|route| (A::default(), 0, route));
        own.or_else(shorter).or_else(default)
    }

    /// The routes, each prefix before those that it covers.
    pub fn iter(&self) -> impl Iterator<Item = (A, u8, u32)> + '_ {
        let default = self.fib.default_route().map(|route| (A::default(), 0, route));
        default.into_iter().chain(self.routes.iter().map(|(&(addr, len), &route)| (addr, len, route)))
    }

    /// The routes within a prefix, its own included, in the same order.
    pub fn within(&self, addr: A, len: u8) -> impl Iterator<Item = (A, u8, u32)> + '_ {
        let p = prefix(addr, len);
        let default = self.fib.default_route().filter(|_| p.len == 0).map(|route| (A::default(), 0, route));
        let range = self.routes.range(key(p)..=(p.addr.last(p.len), u8::MAX));
        default.into_iter().chain(range.map(|(&(addr, len), &route)| (addr, len, route)))
    }

    /// The routes within a prefix behind another prefix in the same order, which need not be there.
    pub fn within_after(
        &self,
        (addr, len): (A, u8),
        after: (A, u8),
    ) -> impl Iterator<Item = (A, u8, u32)> + '_ {
        let (p, after) = (prefix(addr, len), key(prefix(after.0, after.1)));
        let (first, last) = (Included(key(p)), (p.addr.last(p.len), u8::MAX));
        let from = if after < key(p) { first } else { Excluded(after) };
        // A range that ends before it begins is none.
        let range = (after < last).then(|| self.routes.range((from, Included(last))));
        range.into_iter().flatten().map(|(&(addr, len), &route)| (addr, len, route))
    }

    /// The longest shorter prefix that covers this one, other than the default route.
    pub(super) fn covering(&self, p: Prefix<A>) -> Option<(Key<A>, u32)> {
        let mut len = p.len.checked_sub(1)?;
        loop {
            let last = key(Prefix { addr: p.addr.truncate(len), len });
            let (&(addr, l), &route) = self.routes.range(..=last).next_back()?;
            let common = addr.common(p.addr);
            if u32::from(l) <= common {
                return Some(((addr, l), route));
            }
            // Whatever covers the prefix covers this one too, or it would stand between the two.
            len = common;
        }
    }
}
