//! Which rule a session counts for, where rules have limits ([`SessionLimit`](crate::policy::SessionLimit)).
//!
//! The word of a session's rule carries the marks of what was counted, and changes by compare-and-swap alone: whoever
//! takes a word out takes its counts back. So threads that see the same session at once (the worker of its packet, one
//! that sweeps, one that ends it) count it once.

use crate::family::FlowFamily;
use crate::ids::RuleSlot;
use crate::policy::{AclSet, AclVerdict, Tuple};
use crate::snapshot::Snapshot;
use crate::table::{FlowTable, SAME_RULE, State};
use sag_model::flow::{EPOCH_REVALIDATING, EPOCH_SESSION, RecordNo};
use sag_model::{VrfZone, Zone};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// The five-tuple of a session's first packet as rules see it (the source before, the destination after translation), and
/// the zones between which it went.
pub fn initiator<R: FlowFamily>(table: &FlowTable<R>, session: u32) -> Option<(Tuple, VrfZone, Zone)> {
    let forward = table.record(RecordNo::forward(session));
    let key = forward.key();
    let (from, to) = (R::side(&key)?, R::side(&table.record(RecordNo::reverse(session)).key())?);
    let (mut tuple, new) = (R::tuple(&key), R::tuple(&forward.translated()));
    if !forward.crosses() {
        (tuple.dst, tuple.dport) = (new.dst, new.dport);
    } else if !tuple.src.is_ipv6() {
        // Of NAT64 rules see the IPv6 side, with the address that was dialled.
        tuple = new;
    }
    Some((tuple, from, to.zone()))
}

/// Whether the rules of this epoch have admitted the session.
pub fn is_admitted(epoch_of_record: u32, epoch: u32) -> bool {
    epoch_of_record == epoch || epoch_of_record & !EPOCH_REVALIDATING == epoch | EPOCH_SESSION
}

fn source<R: FlowFamily>(table: &FlowTable<R>, session: u32) -> IpAddr {
    R::tuple(&table.record(RecordNo::forward(session)).key()).src
}

/// Takes back what a word counted.
fn uncount(acl: &AclSet, word: u32, src: IpAddr) {
    if word & RuleSlot::MARKS != 0
        && let Some(limit) = RuleSlot::from_word(word).and_then(|slot| acl.limit(slot))
    {
        limit.end(src, word);
    }
}

/// A session that exists comes under this rule.
pub fn set_rule<R: FlowFamily>(table: &FlowTable<R>, session: u32, rule: Option<RuleSlot>, acl: &AclSet) {
    let meta = table.meta(session);
    let slot = RuleSlot::to_word(rule);
    let mut old = meta.rule.load(Ordering::Relaxed);
    while old != RuleSlot::ENDED && old & !RuleSlot::MARKS != slot {
        let limit = rule.and_then(|slot| acl.limit(slot));
        if limit.is_none() && old & RuleSlot::MARKS == 0 {
            // Nothing to count.
            match meta.rule.compare_exchange(old, slot, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
            continue;
        }
        let src = source(table, session);
        let marks = limit.map_or(0, |l| l.adopt(src));
        match meta.rule.compare_exchange(old, slot | marks, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return uncount(acl, old, src),
            Err(now) => {
                if let Some(l) = limit {
                    l.end(src, marks);
                }
                old = now;
            }
        }
    }
}

/// The session has been taken out of the table.
pub(super) fn ended<R: FlowFamily>(table: &FlowTable<R>, session: u32, acl: &AclSet) {
    let old = table.meta(session).rule.swap(RuleSlot::ENDED, Ordering::Relaxed);
    if old & RuleSlot::MARKS != 0 {
        uncount(acl, old, source(table, session));
    }
}

/// Has a session count for the rule that would admit it now, if it has not been revalidated under these rules. Whether it
/// may go on is decided with its next packet.
pub(super) fn recount<R: FlowFamily>(table: &FlowTable<R>, session: u32, snap: &Snapshot) {
    let epoch = table.record(RecordNo::forward(session)).epoch().load(Ordering::Acquire);
    if is_admitted(epoch, snap.epoch) {
        return;
    }
    let Some((tuple, from, to)) = initiator(table, session) else { return };
    let rule = match snap.acl.check_session(from, to, &tuple) {
        AclVerdict::Accept { slot } => slot,
        AclVerdict::Deny { .. } => None,
    };
    super::flush_counters(table, session, snap);
    set_rule(table, session, rule, &snap.acl);
}

/// Counts the sessions of an earlier daemon for their rules, if any has a limit. To be called before any worker runs.
pub fn count_rules<R: FlowFamily>(table: &FlowTable<R>, snap: &Snapshot) {
    if !snap.acl.has_limits() {
        return;
    }
    for session in 1..table.used() {
        let meta = table.meta(session);
        if State::of(meta).is_some_and(|s| s != State::Denied) {
            meta.reply_rule.store(SAME_RULE, Ordering::Relaxed);
            recount(table, session, snap);
        }
    }
}
