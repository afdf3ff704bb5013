//! [`Fib`]: what lookups read.

use crate::addr::FibAddr;
use crate::block::{self, NODE, NONE, ROOT_BITS, SKIP, STRIDE, Skip};
use crate::pages::{PAGE, Pages};
use std::marker::PhantomData;

/// A routing table as of one moment. A clone shares all memory with it.
#[derive(Debug, Clone)]
pub struct Fib<A> {
    /// A word for each value of the first bits.
    pub(crate) root: Pages,
    /// Nodes and skips.
    pub(crate) blocks: Pages,
    /// The route of the prefix of length zero; it is in no other place.
    pub(crate) default: u32,
    family: PhantomData<A>,
}

impl<A: FibAddr> Default for Fib<A> {
    fn default() -> Fib<A> {
        Fib::new()
    }
}

impl<A: FibAddr> Fib<A> {
    /// A table without routes.
    pub fn new() -> Fib<A> {
        Fib {
            root: Pages::new((1 << ROOT_BITS) / PAGE, NONE),
            blocks: Pages::new(0, NONE),
            default: NONE,
            family: PhantomData,
        }
    }

    /// The route of the longest prefix that holds `addr`.
    #[inline]
    pub fn lookup(&self, addr: A) -> Option<u32> {
        let mut word = self.root.get(addr.bits(0, ROOT_BITS));
        let mut at = ROOT_BITS;
        while word >= NODE {
            let (page, place) = self.blocks.at(block::place(word));
            if word < SKIP {
                word = block::slot(page, place, addr.bits(at, STRIDE));
                at += STRIDE;
            } else {
                let skip = Skip::<A>::read(page, place);
                let hit = addr.common(skip.prefix) >= skip.len;
                (word, at) = if hit { (skip.hit, skip.len) } else { (skip.miss, at) };
            }
        }
        let route = if word == NONE { self.default } else { word };
        if route == NONE { None } else { Some(route) }
    }

    /// The route of the prefix of length zero.
    pub fn default_route(&self) -> Option<u32> {
        if self.default == NONE { None } else { Some(self.default) }
    }
}
