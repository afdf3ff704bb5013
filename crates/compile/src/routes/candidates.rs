//! Which route of a prefix wins, and in which order the tables are asked.
//!
//! The kernel asks one table after the other, and in each for the longest prefix that has a route with a living next hop. The
//! gateway looks up once, so the tables become one here: what an earlier table answers hides what a later one says.

use super::{Only, RouteRow, RouteSource};
use ipnet::IpNet;
use sag_pipeline::snapshot::Route;
use sag_rtnl::{RouterPreference, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How far a route can be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Liveness {
    /// It leads somewhere, or rejects.
    #[default]
    Usable,
    /// By lines only that were found to lead nowhere.
    Failed,
    /// By links without carrier only, and the kernel would use it all the same: used where the prefix has no other, so that
    /// packets are dropped here instead of taking a shorter prefix.
    LinkDown,
    /// The kernel does not use it: shorter prefixes count.
    Dead,
}

/// A prefix's candidates of one level are tried in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub liveness: Liveness,
    pub table: Table,
    pub metric: u32,
    pub preference: RouterPreference,
    pub source: RouteSource,
}

/// Tables that are asked together: the winning route of each prefix.
#[derive(Debug, Default)]
struct Level {
    rows: BTreeMap<IpNet, (Rank, RouteRow)>,
    /// Whether a dead route, and a `throw`, has been among the candidates.
    dead: bool,
    throws: BTreeSet<IpNet>,
}

impl Level {
    fn offer(&mut self, rank: Rank, row: RouteRow) {
        self.dead |= rank.liveness == Liveness::Dead;
        if row.route == Route::Throw {
            self.throws.insert(row.dst);
        }
        match self.rows.get_mut(&row.dst) {
            Some((have, old)) if rank < *have => {
                let loser = std::mem::replace(old, row);
                old.unused.extend(loser.take_members());
                *have = rank;
            }
            // Several routes of one rank in the file share the load.
            Some((have, old)) if rank == *have && row.source == RouteSource::Config => {
                if let (Route::Via(members), Route::Via(more)) = (&mut old.route, row.route) {
                    members.extend(more);
                }
            }
            Some((_, old)) => old.unused.extend(row.take_members()),
            None => {
                self.rows.insert(row.dst, (rank, row));
            }
        }
    }

    /// The longest of these prefix lengths at which a prefix covers another one.
    fn longest(
        &self,
        net: &IpNet,
        lengths: impl DoubleEndedIterator<Item = u8>,
    ) -> Option<&(Rank, RouteRow)> {
        let at = |len: u8| self.rows.get(&IpNet::new(net.addr(), len).ok()?.trunc());
        lengths.rev().skip_while(|len| *len > net.prefix_len()).find_map(at)
    }

    fn lengths(&self) -> BTreeSet<u8> {
        self.rows.keys().map(IpNet::prefix_len).collect()
    }

    /// Prefixes all of whose routes are dead are none.
    fn remove_dead(&mut self) {
        if self.dead {
            self.rows.retain(|_, (rank, _)| rank.liveness != Liveness::Dead);
        }
    }

    /// The routes by which packets go if `later` is asked for what these do not answer.
    fn followed_by(mut self, mut later: Level) -> Level {
        self.remove_dead();
        later.remove_dead();
        if later.rows.is_empty() {
            return self;
        }
        let (lengths, later_lengths) = (self.lengths(), later.lengths());
        let thrown = |(_, row): &(Rank, RouteRow)| row.route == Route::Throw;
        let throws: BTreeSet<IpNet> =
            self.throws.iter().filter(|p| self.rows.get(*p).is_some_and(thrown)).copied().collect();
        // What is thrown goes by the longest prefix of the later tables.
        for &prefix in &throws {
            if let Some((rank, row)) = later.longest(&prefix, later_lengths.iter().copied()) {
                self.rows.insert(prefix, (*rank, RouteRow { dst: prefix, ..row.clone() }));
            }
        }
        let mut hidden = Vec::new();
        later.rows.retain(|prefix, (_, row)| {
            let answer = self.longest(prefix, lengths.iter().copied()).map(|(_, r)| r.dst);
            let keep = answer.is_none_or(|dst| throws.contains(&dst));
            if !keep && answer == Some(*prefix) {
                hidden.push((*prefix, std::mem::take(&mut row.unused), row.route.clone()));
            }
            keep
        });
        for (prefix, unused, route) in hidden {
            if let Some((_, row)) = self.rows.get_mut(&prefix) {
                row.unused.extend(unused);
                if let Route::Via(members) = route {
                    row.unused.extend(members);
                }
            }
        }
        // Most routes are in one of the two.
        if self.rows.len() >= later.rows.len() {
            later.rows.into_iter().for_each(|(prefix, row)| {
                self.rows.entry(prefix).or_insert(row);
            });
            self
        } else {
            later.rows.extend(self.rows);
            later
        }
    }
}

/// All routes, until the winning ones are known.
#[derive(Debug, Default)]
pub(super) struct Candidates<'p> {
    /// The prefixes that are to be decided; `None`: all.
    only: Option<&'p Only>,
    /// By family; each level is asked for what those before it do not answer.
    levels: [[Level; 2]; 2],
}

/// The level of a table. IPv4 has `local` and `main` in one trie, as long as nobody has made rules of his own, and asks
/// `default` afterwards. IPv6 asks `local` and then `main`, and has no `default`.
const fn level(table: Table, v6: bool) -> Option<usize> {
    match (table, v6) {
        (Table::Local, _) | (Table::Main, false) => Some(0),
        (Table::Main, true) | (Table::Default, false) => Some(1),
        // A VRF's own counts as `main`.
        (Table::Default, true) | (Table::Other(_), _) => None,
    }
}

impl<'p> Candidates<'p> {
    /// Of these prefixes alone.
    pub fn of(only: Option<&'p Only>) -> Candidates<'p> {
        Candidates { only, ..Candidates::default() }
    }

    /// Of IPv4 and of IPv6, whether a table may hide prefixes of another one: whatever `default` has is asked for what `main`
    /// does not answer, while IPv6's `local` has single addresses and hides nothing else.
    pub fn layered(&self) -> [bool; 2] {
        let [[_, v4_default], [v6_local, _]] = &self.levels;
        let is_single = |dst: &IpNet| dst.prefix_len() == dst.max_prefix_len();
        [!v4_default.rows.is_empty(), !v6_local.throws.is_empty() || !v6_local.rows.keys().all(is_single)]
    }

    /// Whether the kernel asks a table for packets to a destination.
    pub fn asks(table: Table, dst: &IpNet) -> bool {
        level(table, dst.addr().is_ipv6()).is_some()
    }

    pub fn offer(&mut self, rank: Rank, row: RouteRow) {
        if !self.has(&row.dst) {
            return;
        }
        let v6 = row.dst.addr().is_ipv6();
        if let Some(level) = level(rank.table, v6) {
            self.levels[usize::from(v6)][level].offer(rank, row);
        }
    }

    /// Whether routes of this prefix are taken.
    pub fn has(&self, dst: &IpNet) -> bool {
        self.only.is_none_or(|only| only.has(dst))
    }

    /// Whether the route of this prefix is to be decided.
    pub fn decides(&self, dst: &IpNet) -> bool {
        self.only.is_none_or(|only| only.prefixes.contains(dst))
    }

    /// The route of table `main` to an address, so far, other than the default route.
    pub fn towards(&self, to: IpAddr) -> Option<&RouteRow> {
        let level = &self.levels[usize::from(to.is_ipv6())][level(Table::Main, to.is_ipv6())?];
        let net = IpNet::from(to);
        let (rank, row) = level.longest(&net, 1..=net.prefix_len())?;
        (rank.liveness != Liveness::Dead).then_some(row)
    }

    /// The route of each prefix, ordered by prefix.
    pub fn finish(self) -> Vec<RouteRow> {
        let [v4, v6] = self.levels.map(|[first, second]| first.followed_by(second));
        v4.rows.into_values().chain(v6.rows.into_values()).map(|(_, row)| row).collect()
    }
}
