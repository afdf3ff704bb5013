//! Taking over the bindings of the sessions of an earlier daemon, from their records.

use super::{NAT_FILTER_ENTRY, NAT_HOST, State};
use crate::family::FlowFamily;
use crate::nat::{Behavior, BindingNo, Endpoint, NatPolicy, NatProtocol, NatState};
use crate::table::{FlowTable, SessionMeta};
use sag_model::flow::{FlowRecord4, RecordNo};
use std::sync::atomic::Ordering;

impl NatState {
    /// Gives every translated session its binding again. To be called when the policy is compiled and
    /// before any worker runs. What does not fit the policy any more stays without: it ends when its
    /// next packet is judged. Returns the number of bindings.
    pub fn adopt_sessions(&self, table: &FlowTable<FlowRecord4>, policy: &NatPolicy, tick: u32) -> usize {
        let mut bindings = 0;
        // What a session's own source holds comes first: others may share it.
        for sources in [true, false] {
            for n in 1..table.used() {
                let meta = table.meta(n);
                if State::of(meta).is_none() {
                    continue;
                }
                let r = table.record(RecordNo::forward(n));
                let (key, new) = (r.key(), r.translated());
                let (Some(old), Some(new)) = (FlowRecord4::endpoints(&key), FlowRecord4::endpoints(&new))
                else {
                    continue;
                };
                let Some(protocol) = NatProtocol::of(FlowRecord4::tuple(&key).proto) else { continue };
                bindings += match sources {
                    true if old.0 != new.0 => {
                        self.adopt_source(meta, policy, protocol, (old.0, new.0, new.1), tick)
                    }
                    false if old.1 != new.1 => self.adopt_dest(meta, policy, protocol, (old.1, new.1)),
                    _ => false,
                } as usize;
            }
        }
        bindings
    }

    fn adopt_source(
        &self,
        meta: &SessionMeta,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (inside, outside, remote): (Endpoint, Endpoint, Endpoint),
        tick: u32,
    ) -> bool {
        if self.host_session_started(inside.addr) {
            meta.ports.fetch_or(NAT_HOST, Ordering::Relaxed);
        }
        policy.remember_adopted(self, inside, protocol.proto(), outside.addr);
        let source = policy.externals.get(&outside.addr.to_bits()).and_then(|e| policy.source(e.source?));
        let Some(source) = source.filter(|s| !s.overlaps() && !s.pool.is_fixed(protocol, outside.port))
        else {
            return false;
        };
        // Sessions keep addresses that new ones do not get.
        source.pool.allocate_slots();
        let scope = source.scope(remote);
        let block = policy.limits.port_block;
        let Some(b) = self.adopt(&source.pool, protocol, (inside, outside.port), scope, block, tick) else {
            return false;
        };
        meta.bindings[0].store(b.0, Ordering::Relaxed);
        if source.filtering == Behavior::AddressDependent
            && protocol != NatProtocol::Icmp
            && self.add_filter_entry(b, remote.addr)
        {
            meta.ports.fetch_or(NAT_FILTER_ENTRY, Ordering::Relaxed);
        }
        true
    }

    fn adopt_dest(
        &self,
        meta: &SessionMeta,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (outside, inside): (Endpoint, Endpoint),
    ) -> bool {
        let source = policy.externals.get(&outside.addr.to_bits()).and_then(|e| policy.source(e.source?));
        let Some(source) = source.filter(|s| !s.pool.is_fixed(protocol, outside.port)) else { return false };
        let b = BindingNo::new(source.pool.no, protocol, outside.port);
        let shared = self.share(b, inside);
        if shared {
            meta.bindings[1].store(b.0, Ordering::Relaxed);
        }
        shared
    }
}
