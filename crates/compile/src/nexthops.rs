//! Next hops: a number for each (port, address) that packets are handed to, and the shared record behind it.
//!
//! [`NextHopNumbers`] gives the numbers and belongs to the compiler. [`NextHopTable`] writes the records, and the table in
//! which workers find the numbers.
//!
//! **A number's life.** A neighbor gets a number when it is resolved, never before: an address that nobody has takes none. When it
//! is not resolved any more, its number rests: the record is invalid, and the neighbor gets the same number back if it returns
//! within [`REST`]. Afterwards the number leaves the table of numbers, and is given to another neighbor once a grace period
//! is over (no worker and no XDP program can hold it from before) and with a raised generation (no record of a session that
//! names it counts any more). Numbers that are free longest are given out first.

mod table;

pub use table::NextHopTable;

use crate::ports::NO_DEVICE;
use sag_model::flow::{NH_VALID, NextHopRecord};
use sag_model::{MacAddr, Nanos, PortIdx};
use sag_pipeline::hash::AddrHash;
use sag_pipeline::snapshot::{NeighborKey, NeighborTable, NextHop, NhIdx, Port};
use sag_pipeline::table::Grace;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Ethernet addresses of the neighbors that can be reached, by port and IP address.
pub type NeighborLinks = BTreeMap<NeighborKey, MacAddr>;

/// How long a neighbor that is not resolved any more finds its number again.
pub const REST: Nanos = Nanos::from_secs(30);

/// The neighbors of one port in one family; IPv6 or not.
type Class = (PortIdx, bool);

fn class_of(key: &NeighborKey) -> Class {
    (key.0, key.1.is_ipv6())
}

/// Gives numbers to next hops. Number 0 is not used.
#[derive(Debug, Clone)]
pub struct NextHopNumbers {
    records: &'static [NextHopRecord],
    table: Arc<NeighborTable>,
    by_key: HashMap<NeighborKey, Numbered, AddrHash>,
    /// Numbers of each class that are not free.
    used: HashMap<Class, usize>,
    /// Never given.
    fresh: Range<usize>,
    /// Given before, free longest first.
    free: VecDeque<NhIdx>,
    /// When each began its rest, in that order. One that has been taken back since is passed over.
    resting: VecDeque<(Nanos, NeighborKey)>,
    /// Out of the table, until this grace period is over.
    leaving: VecDeque<(u64, NhIdx, Class)>,
    grace: Arc<Grace>,
    /// Routers and neighbors of the configuration: their number is bounded by whom it is written, so they always get one.
    /// With the most bytes that a route by them carries; flows by routes that carry less are for workers.
    routers: HashMap<NeighborKey, u16, AddrHash>,
    fixed: HashSet<NeighborKey, AddrHash>,
    /// Those of the routers that share routes with others.
    shared: HashSet<NeighborKey, AddrHash>,
    /// Neighbors that got none.
    refused: u64,
}

/// A router that a route names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterUse {
    pub key: NeighborKey,
    /// The route's MTU; 0: the port's.
    pub mtu: u16,
    /// The route has other next hops as well.
    pub shared: bool,
}

#[derive(Debug, Clone, Copy)]
struct Numbered {
    no: NhIdx,
    /// Since when the neighbor is not resolved.
    rests: Option<Nanos>,
    /// There is an entry in the queue of those that rest.
    queued: bool,
    /// The number was another neighbor's, and no plan has said so yet.
    reused: bool,
}

impl NextHopNumbers {
    fn new(
        records: &'static [NextHopRecord],
        table: Arc<NeighborTable>,
        own: Range<usize>,
    ) -> NextHopNumbers {
        NextHopNumbers {
            records,
            table,
            by_key: HashMap::default(),
            used: HashMap::new(),
            fresh: own,
            free: VecDeque::new(),
            resting: VecDeque::new(),
            leaving: VecDeque::new(),
            grace: Grace::immediate(),
            routers: HashMap::default(),
            fixed: HashSet::default(),
            shared: HashSet::default(),
            refused: 0,
        }
    }

    /// Numbers are reused after these grace periods. Without them, as soon as they leave the table.
    pub fn reuse_after(&mut self, grace: Arc<Grace>) {
        self.grace = grace;
    }

    /// The number of a next hop that has one.
    pub fn get(&self, key: &NeighborKey) -> Option<NhIdx> {
        self.by_key.get(key).map(|n| n.no)
    }

    /// Next hops that have a number, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (NeighborKey, NhIdx)> + '_ {
        self.by_key.iter().map(|(key, n)| (*key, n.no))
    }

    /// Numbers that are not free, and all.
    pub fn usage(&self) -> (usize, usize) {
        let used = self.used.values().sum();
        (used, used + self.available())
    }

    /// Resolved neighbors that got no number, since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether a next hop is a router of the routes last compiled.
    pub fn is_router(&self, key: &NeighborKey) -> bool {
        self.routers.contains_key(key)
    }

    /// The routers of the routes last compiled.
    pub fn routers(&self) -> impl Iterator<Item = &NeighborKey> {
        self.routers.keys()
    }

    /// Whether the configuration says where a next hop is.
    pub(crate) fn is_fixed(&self, key: &NeighborKey) -> bool {
        self.fixed.contains(key)
    }

    /// The routers that share a route with others. Packets go by those that are resolved, so nobody asks for the rest.
    pub fn shared_routers(&self) -> impl Iterator<Item = NeighborKey> + '_ {
        self.shared.iter().copied()
    }

    /// The same as [`NextHopNumbers::set_routers`]. Returns the next hops that are routers no longer or only now, and those by
    /// which routes carry more or less than before: their records are to be planned again.
    pub(crate) fn change_routers(
        &mut self,
        routers: impl IntoIterator<Item = RouterUse>,
    ) -> Vec<NeighborKey> {
        let before = std::mem::take(&mut self.routers);
        self.set_routers(routers);
        let gone = before.keys().filter(|key| !self.routers.contains_key(key)).copied();
        let others = self.routers.iter().filter(|(key, most)| before.get(key) != Some(most));
        gone.chain(others.map(|(key, _)| *key)).collect()
    }

    pub(crate) fn set_routers(&mut self, routers: impl IntoIterator<Item = RouterUse>) {
        self.routers.clear();
        self.shared.clear();
        for r in routers {
            let most = self.routers.entry(r.key).or_default();
            *most = (*most).max(if r.mtu == 0 { u16::MAX } else { r.mtu });
            if r.shared {
                self.shared.insert(r.key);
            }
        }
    }

    pub(crate) fn set_fixed(&mut self, fixed: impl IntoIterator<Item = NeighborKey>) {
        self.fixed.clear();
        self.fixed.extend(fixed);
    }

    /// The records that the numbers are indices of.
    pub(crate) fn records(&self) -> &'static [NextHopRecord] {
        self.records
    }

    /// Where workers find the numbers.
    pub(crate) fn table(&self) -> &Arc<NeighborTable> {
        &self.table
    }

    fn available(&self) -> usize {
        self.fresh.len() + self.free.len()
    }

    /// Gives a next hop a number whatever its class has, if it has none. It is in the table when the next plan is
    /// applied. `None`: no number is free.
    pub fn number(&mut self, port: PortIdx, ip: IpAddr) -> Option<NhIdx> {
        let key = (port, ip);
        self.get(&key).or_else(|| self.take(key))
    }

    /// The number of a neighbor that is resolved, a free one if it has none.
    ///
    /// One class may have as many as are left for the others (a dynamic threshold): whoever brings up as many neighbors
    /// as it likes on one port takes half of all numbers at the most, and never the last.
    fn resolve(&mut self, key: NeighborKey) -> Option<NhIdx> {
        if let Some(n) = self.by_key.get_mut(&key) {
            n.rests = None;
            return Some(n.no);
        }
        let used = self.used.get(&class_of(&key)).copied().unwrap_or(0);
        let essential = self.routers.contains_key(&key) || self.fixed.contains(&key);
        let given = if essential || used < self.available() { self.take(key) } else { None };
        self.refused += u64::from(given.is_none());
        given
    }

    fn take(&mut self, key: NeighborKey) -> Option<NhIdx> {
        let (no, reused) = match self.fresh.next() {
            Some(n) => (NhIdx(u16::try_from(n).ok()?), false),
            None => (self.free.pop_front()?, true),
        };
        self.by_key.insert(key, Numbered { no, rests: None, queued: false, reused });
        *self.used.entry(class_of(&key)).or_default() += 1;
        Some(no)
    }

    /// A neighbor is not resolved any more.
    fn rest(&mut self, key: NeighborKey, now: Nanos) {
        if let Some(n) = self.by_key.get_mut(&key)
            && n.rests.is_none()
        {
            n.rests = Some(now);
            if !std::mem::replace(&mut n.queued, true) {
                self.resting.push_back((now, key));
            }
        }
    }

    /// Ends the rest of numbers whose time is over, and gives those free whose grace period is over. The plan takes the former
    /// out of the table. What it costs is in proportion to what it finds.
    pub fn expire(&mut self, now: Nanos) -> NextHopPlan {
        let done = self.grace.done.load(Ordering::Acquire);
        while let Some(&(after, no, class)) = self.leaving.front()
            && after <= done
        {
            self.leaving.pop_front();
            self.free.push_back(no);
            if let Some(n) = self.used.get_mut(&class) {
                *n = n.saturating_sub(1);
            }
        }
        let mut plan = NextHopPlan::default();
        let after = self.grace.started.load(Ordering::SeqCst) + 1;
        while let Some(&(since, key)) = self.resting.front()
            && now.saturating_sub(since) >= REST
        {
            self.resting.pop_front();
            let Some(n) = self.by_key.get_mut(&key) else { continue };
            match n.rests {
                None => n.queued = false,
                // It was resolved in between.
                Some(again) if now.saturating_sub(again) < REST => self.resting.push_back((again, key)),
                Some(_) => {
                    let no = n.no;
                    self.by_key.remove(&key);
                    self.leaving.push_back((after, no, class_of(&key)));
                    plan.removed.push(key);
                }
            }
        }
        if !self.leaving.is_empty() {
            self.grace.requested.store(true, Ordering::SeqCst);
        }
        plan
    }

    /// The records of all next hops, for these ports (by number) and neighbors. Neighbors without a number get one.
    /// `false`: some did not, for lack of numbers.
    pub fn plan(&mut self, ports: &[Port], neighbors: &NeighborLinks, now: Nanos) -> (NextHopPlan, bool) {
        let mut plan = self.expire(now);
        let gone: Vec<_> = self.by_key.keys().filter(|k| !neighbors.contains_key(k)).copied().collect();
        plan.records.reserve(neighbors.len() + gone.len());
        for key in gone {
            self.rest(key, now);
            plan.records.extend(self.planned(ports, key, None));
        }
        let mut complete = true;
        for (&key, &mac) in neighbors {
            complete &= self.resolve(key).is_some();
            plan.records.extend(self.planned(ports, key, Some(mac)));
        }
        (plan, complete)
    }

    /// The record of one neighbor that has changed; `None`: it is not resolved. What it costs does not depend on how many
    /// others there are. `false`: there is no number for it.
    pub fn plan_one(
        &mut self,
        ports: &[Port],
        key: NeighborKey,
        mac: Option<MacAddr>,
        now: Nanos,
    ) -> (NextHopPlan, bool) {
        let mut plan = self.expire(now);
        let complete = match mac {
            Some(_) => self.resolve(key).is_some(),
            None => {
                self.rest(key, now);
                true
            }
        };
        plan.records.extend(self.planned(ports, key, mac));
        (plan, complete)
    }

    fn planned(&mut self, ports: &[Port], key: NeighborKey, mac: Option<MacAddr>) -> Option<Planned> {
        let n = self.by_key.get_mut(&key)?;
        let most = self.routers.get(&key).copied().unwrap_or(u16::MAX);
        let out = ports.get(key.0.index()).filter(|p| p.dev != NO_DEVICE);
        let link = out.zip(mac).map(|(p, dmac)| NextHop {
            dmac,
            smac: p.mac,
            vlan: p.vlan,
            mtu: p.mtu.min(most),
            ifindex: p.ifindex,
            dev: p.dev,
            port: key.0,
            generation: 0,
            flags: if p.up { NH_VALID } else { 0 },
        });
        Some(Planned { no: n.no, key, link, reused: std::mem::take(&mut n.reused) })
    }
}

/// What the records of next hops are to contain, apart from their generations, and which numbers leave the table.
#[derive(Debug, Clone, Default)]
pub struct NextHopPlan {
    records: Vec<Planned>,
    removed: Vec<NeighborKey>,
}

impl NextHopPlan {
    /// Adds what another plan has.
    pub(crate) fn append(&mut self, more: NextHopPlan) {
        self.records.extend(more.records);
        self.removed.extend(more.removed);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.removed.is_empty()
    }

    /// Records that are to be written, if they are not right already.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether a neighbor is resolved by it.
    pub fn resolves(&self) -> bool {
        self.records.iter().any(|p| p.link.is_some())
    }
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    no: NhIdx,
    key: NeighborKey,
    /// `None`: the neighbor is not resolved, or its port is not the gateway's. The record keeps its addresses and is not valid.
    link: Option<NextHop>,
    /// The number was another neighbor's: records of sessions that name it must not count for this one.
    reused: bool,
}

#[cfg(test)]
mod tests;
