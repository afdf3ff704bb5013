//! Routes by their numbers, in pages that snapshots share.

use super::{Member, Route};
use std::sync::Arc;

const PAGE_BITS: u32 = 6;
const PAGE: usize = 1 << PAGE_BITS;

/// What prefixes with a number resolve to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    route: Route,
    unused: Vec<Member>,
}

/// Routes by the numbers that VRFs give for addresses. A clone shares all memory; the first write to a page copies it.
#[derive(Debug, Clone, Default)]
pub struct RouteList {
    pages: Vec<Arc<[Entry; PAGE]>>,
}

impl RouteList {
    /// The route of a number.
    #[inline]
    pub fn get(&self, no: u32) -> Option<&Route> {
        self.entry(no).map(|e| &e.route)
    }

    /// The ways out that prefixes with this number have and do not use, because of their metric. Most have none.
    #[inline]
    pub fn unused(&self, no: u32) -> &[Member] {
        self.entry(no).map_or(&[], |e| &e.unused)
    }

    #[inline]
    fn entry(&self, no: u32) -> Option<&Entry> {
        Some(&self.pages.get(no as usize >> PAGE_BITS)?[no as usize & (PAGE - 1)])
    }

    /// Gives a number a route. Numbers that nobody has named yet lead nowhere.
    pub fn set(&mut self, no: u32, route: Route, unused: Vec<Member>) {
        let page = no as usize >> PAGE_BITS;
        if page >= self.pages.len() {
            let blank = Entry { route: Route::Throw, unused: Vec::new() };
            self.pages.resize_with(page + 1, || Arc::new(std::array::from_fn(|_| blank.clone())));
        }
        if let Some(page) = self.pages.get_mut(page) {
            Arc::make_mut(page)[no as usize & (PAGE - 1)] = Entry { route, unused };
        }
    }

    /// All numbers that may have a route, from zero on: as many as there are places.
    pub fn places(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::PortIdx;

    #[test]
    fn what_an_older_list_has_stays() {
        let via = |port: u8| Route::Via(vec![Member::port(PortIdx(port), None, 1)]);
        let mut list = RouteList::default();
        assert_eq!((list.get(0), list.unused(0).len(), list.places()), (None, 0, 0));
        list.set(0, via(1), Vec::new());
        list.set(200, via(2), vec![Member::port(PortIdx(3), None, 1)]);
        let older = list.clone();
        list.set(200, via(4), Vec::new());
        assert_eq!((older.get(200), older.unused(200).len()), (Some(&via(2)), 1));
        assert_eq!((list.get(200), list.unused(200).len()), (Some(&via(4)), 0));
        assert_eq!((list.get(0), list.get(1), list.get(256)), (Some(&via(1)), Some(&Route::Throw), None));
        assert!(
            Arc::ptr_eq(&list.pages[0], &older.pages[0]) && !Arc::ptr_eq(&list.pages[3], &older.pages[3])
        );
    }
}
