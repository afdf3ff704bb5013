//! Kernel routes that are to be decided anew because something else has changed.
//!
//! A port that goes up or down concerns the routes by it, and a table of a million has them anywhere. They are looked for
//! some thousand at a time, and decided like routes that have changed, so that nobody waits for all of them.

use ipnet::IpNet;
use sag_rtnl::Tables;
use std::collections::BTreeSet;

/// Destinations that are looked at in one step: less than a millisecond.
const DESTINATIONS: usize = 8192;

/// Interfaces whose routes are to be decided anew.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    /// Those that came while others are looked for.
    next: BTreeSet<u32>,
    /// Those whose routes are being looked for, and the destination behind which to go on.
    current: Option<(BTreeSet<u32>, Option<IpNet>)>,
}

impl Undecided {
    /// The routes by these interfaces too.
    pub fn add(&mut self, interfaces: BTreeSet<u32>) {
        self.next.extend(interfaces);
    }

    pub fn is_empty(&self) -> bool {
        self.next.is_empty() && self.current.is_none()
    }

    /// Takes a bounded step. Returns what it has found, which may be nothing.
    pub fn step(&mut self, tables: &Tables) -> Vec<IpNet> {
        if self.current.is_none() && !self.next.is_empty() {
            self.current = Some((std::mem::take(&mut self.next), None));
        }
        let Some((interfaces, after)) = &mut self.current else { return Vec::new() };
        let (found, last) = tables.destinations_by(interfaces, *after, DESTINATIONS);
        *after = last;
        if last.is_none() {
            self.current = None;
        }
        found
    }
}
