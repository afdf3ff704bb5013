//! What workers and XDP see, and the order in which it changes.
//!
//! Compiling writes nothing that workers or XDP read; [`Publisher::publish`] writes all of it, one [`Step`] after the
//! other in the order of [`ORDER`]. `docs/publish-order.md` has the reasons at length.

mod xdp;

use super::stale_flows::StaleFlows;
use super::workers::Workers;
use crate::esp::EspKeys;
use sag_bpf::Gateway;
use sag_compile::{EspPlan, NextHopPlan, Plan, PortBinding, Problem, RecordPlan, SharedRecords};
use sag_model::Nanos;
use sag_model::config::{Dataplane, FailAction};
use sag_model::flow::ControlBlock;
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::tables::Tables;
use sag_xsk::sys;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long flows may go by their verdict of an earlier daemon: longer than XDP asks for a new one
/// (`GW_REVALIDATION_TICKS`).
const PREDECESSOR: Duration = Duration::from_secs(5);
/// What may come at once of `new_flow_rate`, as time at that rate.
const FLOOD_BURST_NS: u32 = 20_000_000;

/// One part of a publication.
///
/// Two readers see every state in between: XDP, which takes each packet by the shared memory as it is at that moment, and the
/// workers, which go by the snapshot that they took at their last round. Each step leaves both with a state that forwards
/// correctly, because what names something is always written after what is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Associations of ESP tunnels. Workers look one up by SPI or tunnel number, and use it only if their snapshot has the
    /// tunnel. So those of new tunnels stay unused until [`Step::Snapshot`], and packets in transit find the old keys of known tunnels
    /// beside the new ones.
    EspKeys,
    /// Records of next hops, and the table of their numbers. A number means the same (port, address) as long as anybody may
    /// use it, so a store changes the Ethernet address, the MTU or the validity of the very next hop that flow records and the old
    /// snapshot name. The number of a new neighbor is in the table when its record is written; by the old routes it is right, too.
    NextHops,
    /// Port pools, and the forwarded ports that XDP looks up. From here on XDP hands packets for a newly forwarded port to
    /// a worker; one with the old snapshot gives them back to the kernel, where they went until now. Ports of sessions
    /// stay shown in any case. Pools of new addresses stay unused until the snapshot names them. At the start the NAT bindings of
    /// the predecessor's sessions are taken over here, before any worker could give their ports to others.
    NatPools,
    /// Meters and their sets. New rates hold at once for the flows that are metered already. A new set is named by no flow
    /// record yet.
    Meters,
    /// Link MTUs of the tunnels. Workers and the records of the next step derive the inner MTU from them.
    LinkMtus,
    /// XDP's encapsulation templates by tunnel number. A flow through a tunnel that is gone finds its record cleared and goes to a
    /// worker. Only flow records name new tunnels, and workers write these after [`Step::Snapshot`].
    TunnelRecords,
    /// Which received packets belong to which tunnel, if the ends have changed, and the number of tunnels. XDP decapsulates by the records
    /// of the step before. What it cannot decapsulate it hands to a worker, whose snapshot may not have the tunnel
    /// yet: such packets are treated as before the change.
    TunnelEnds,
    /// The gateway's own addresses, if they have changed. From here on XDP hands the kernel what is for a new address, and
    /// asks a worker first where NAT shares it; the pool that it looks up was made ready above. This precedes the epoch: under the
    /// new epoch workers translate to the new addresses, and replies must not be taken for transit traffic.
    LocalAddresses,
    /// The snapshot, to every worker. Each takes it at its next round, so for a moment some forward by the new and some by
    /// the old one, as if the change had come a moment later for their packets. All that it names is in place.
    Snapshot,
    /// What XDP does when no worker answers, the flood guard, the fast path, and the services that SYN cookies protect. They
    /// concern packets without a record and apply to each packet by itself. Workers know of a service before XDP answers for it.
    Switches,
    /// The policy epoch. XDP now holds the records of the old one for stale: the next packet of each flow goes to a worker,
    /// which checks it by the new rules and stamps the record. A worker that is still in the round in which the snapshot was
    /// sent goes by the old one: it takes the record for a current one and does not stamp it, so XDP asks again.
    Epoch,
    /// The generations of the next hops whose routes have changed. Flows over these go to a worker and look their route
    /// up in the new snapshot; were they raised before it, the old one would send them where they went before.
    Generations,
}

/// The order of a publication.
pub const ORDER: [Step; 12] = [
    Step::EspKeys,
    Step::NextHops,
    Step::NatPools,
    Step::Meters,
    Step::LinkMtus,
    Step::TunnelRecords,
    Step::TunnelEnds,
    Step::LocalAddresses,
    Step::Snapshot,
    Step::Switches,
    Step::Epoch,
    Step::Generations,
];

/// Where a publication takes keys and settings from, and whom it reaches.
pub struct Context<'c> {
    pub keys: &'c mut EspKeys,
    pub workers: &'c Workers,
    pub dataplane: &'c Dataplane,
}

/// What the steps of one publication go by.
struct Publication<'p> {
    records: RecordPlan,
    esp: EspPlan,
    /// Flows that have to look their route up again.
    stale: &'p [StaleFlows],
    /// XDP has to learn other own addresses or other ends of tunnels.
    addresses_changed: bool,
    /// At the start: the predecessor's sessions, whose NAT bindings are taken over.
    adopt: Option<&'p Tables>,
}

/// The XDP side and what was last published.
#[derive(Debug)]
pub struct Publisher {
    pub gateway: Gateway,
    pub records: SharedRecords,
    pub snapshot: Arc<Snapshot>,
    pub bindings: Vec<PortBinding>,
    /// Snapshots of before that a worker may still have. What they alone refer to is freed here and not by a worker.
    retired: Vec<Arc<Snapshot>>,
    /// Since when XDP follows this daemon's epoch. Until then it forwards the flows of the predecessor.
    live_since: Option<Instant>,
    /// Problems of the last plan, which are in the log.
    reported: HashSet<Problem>,
}

impl Publisher {
    /// Publishes the first plan, before any worker runs. XDP stays with the predecessor's epoch until
    /// [`Publisher::go_live`].
    pub fn start(
        gateway: Gateway,
        records: SharedRecords,
        plan: Plan,
        sessions: &Tables,
        cx: &mut Context<'_>,
    ) -> Publisher {
        let Plan { snapshot, records: planned, bindings, esp, problems, .. } = plan;
        let mut publisher = Publisher {
            gateway,
            records,
            snapshot: Arc::new(snapshot),
            bindings,
            retired: Vec::new(),
            live_since: None,
            reported: HashSet::new(),
        };
        publisher.report(problems);
        let adopt = Some(sessions);
        let publication = Publication { records: planned, esp, stale: &[], addresses_changed: true, adopt };
        publisher.take_steps(&publication, cx);
        publisher
    }

    /// Puts a plan in force. The flows over `stale` next hops look their route up again.
    pub fn publish(&mut self, plan: Plan, stale: &[StaleFlows], cx: &mut Context<'_>) {
        let Plan { snapshot, records, bindings, esp, problems, .. } = plan;
        let same_addresses = snapshot.same_local(&self.snapshot)
            && snapshot.nat.same_externals(&self.snapshot.nat)
            && snapshot.tunnels.same_ends(&self.snapshot.tunnels);
        let mut snapshot = snapshot;
        if !stale.is_empty() {
            snapshot.routes_version = self.records.nexthops.next_version();
        }
        self.replace_snapshot(snapshot);
        self.bindings = bindings;
        self.report(problems);
        let addresses_changed = !same_addresses;
        self.take_steps(&Publication { records, esp, stale, addresses_changed, adopt: None }, cx);
    }

    /// Puts a snapshot in force that differs from the last one by its routes alone. These are the steps of a publication that
    /// it needs, in their order.
    pub fn publish_routes(
        &mut self,
        mut snapshot: Snapshot,
        nexthops: &NextHopPlan,
        stale: &[StaleFlows],
        workers: &Workers,
    ) {
        if !stale.is_empty() {
            snapshot.routes_version = self.records.nexthops.next_version();
        }
        self.replace_snapshot(snapshot);
        self.records.nexthops.apply(nexthops);
        workers.send_snapshot(&self.snapshot);
        self.begin_epoch();
        self.raise_generations(stale);
    }

    fn replace_snapshot(&mut self, snapshot: Snapshot) {
        self.retired.push(std::mem::replace(&mut self.snapshot, Arc::new(snapshot)));
    }

    /// Frees the snapshots that no worker has any more.
    pub fn drop_retired(&mut self) {
        self.retired.retain(|s| Arc::strong_count(s) > 1);
    }

    fn take_steps(&mut self, p: &Publication<'_>, cx: &mut Context<'_>) {
        for step in ORDER {
            self.take(step, p, cx);
        }
    }

    fn take(&mut self, step: Step, p: &Publication<'_>, cx: &mut Context<'_>) {
        match step {
            Step::EspKeys => cx.keys.configure(&p.esp),
            Step::NextHops => self.records.nexthops.apply(&p.records.nexthops),
            Step::NatPools => {
                self.records.nat.apply(&p.records.nat_pools);
                if let Some(sessions) = p.adopt {
                    self.adopt_bindings(sessions);
                }
            }
            Step::Meters => self.records.meters.apply(&p.records.meters, Nanos(sys::now())),
            Step::LinkMtus => p.records.apply_link_mtus(),
            Step::TunnelRecords => self.write_tunnel_records(),
            Step::TunnelEnds => self.write_tunnel_ends(p.addresses_changed),
            Step::LocalAddresses if p.addresses_changed => {
                self.write_local_addresses();
            }
            Step::LocalAddresses => {}
            Step::Snapshot => cx.workers.send_snapshot(&self.snapshot),
            Step::Switches => {
                self.write_switches(cx.dataplane);
                self.write_syn_services();
            }
            Step::Epoch => self.begin_epoch(),
            Step::Generations => self.raise_generations(p.stale),
        }
    }

    fn begin_epoch(&mut self) {
        if self.is_live() && begin_epoch(self.gateway.control(), self.snapshot.epoch) {
            self.records.nexthops.epoch_began();
        }
    }

    fn adopt_bindings(&self, sessions: &Tables) {
        let tick = Nanos(sys::now()).tick().0;
        let (nat, policy) = (&self.records.nat, &self.snapshot.nat);
        let bindings =
            nat.adopt_sessions(&sessions.v4, policy, tick) + nat.adopt_sessions64(&sessions.v6, policy, tick);
        if bindings > 0 {
            tracing::info!(bindings, "NAT bindings taken over");
        }
    }

    /// What XDP does with packets of no known flow, and whether it forwards the others by itself.
    fn write_switches(&self, d: &Dataplane) {
        let control = self.gateway.control();
        let loss = match d.fail_action {
            FailAction::Drop => 1,
            FailAction::PassToKernel => 2,
        };
        control.fail_action.store(loss, Ordering::Relaxed);
        let interval = 1_000_000_000u32.checked_div(d.new_flow_rate).unwrap_or(0);
        control.guard_burst.store(FLOOD_BURST_NS.max(interval), Ordering::Relaxed);
        control.guard_interval.store(interval, Ordering::Relaxed);
        control.revalidation_credit.store(d.revalidation_credit, Ordering::Relaxed);
        control.switch_nat64(self.snapshot.nat.has_nat64());
        if self.is_live() {
            control.switch_fast_path(d.fast_path);
        }
    }

    fn raise_generations(&mut self, stale: &[StaleFlows]) {
        if stale.is_empty() {
            return;
        }
        let concerns = |port, ip| stale.iter().any(|s| s.covers(port, ip));
        self.records.nexthops.begin_routes(self.snapshot.routes_version);
        let n = self.records.nexthops.raise_generations(concerns);
        tracing::debug!(nexthops = n, "flows look their route up again");
    }

    /// Writes problems to the log, each once as long as there is one.
    fn report(&mut self, problems: Vec<Problem>) {
        let before = std::mem::take(&mut self.reported);
        let (known, new): (Vec<_>, Vec<_>) = problems.into_iter().partition(|p| before.contains(p));
        self.reported.extend(known);
        self.report_more(new);
    }

    /// The same of problems that have come up besides.
    pub fn report_more(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            if !self.reported.insert(problem.clone()) {
                continue;
            }
            if problem.is_error() {
                tracing::error!("{problem}");
            } else {
                tracing::warn!("{problem}");
            }
        }
    }

    /// The policy epoch that was last published.
    pub fn epoch(&self) -> u32 {
        self.snapshot.epoch
    }

    pub fn is_live(&self) -> bool {
        self.live_since.is_some()
    }

    /// XDP follows this daemon's epoch from now on: flows of the predecessor come to the workers, which check them.
    pub fn go_live(&mut self, d: &Dataplane) {
        let control = self.gateway.control();
        control.nexthops_from.store(self.records.nexthops.first(), Ordering::Relaxed);
        begin_epoch(control, self.snapshot.epoch);
        control.switch_fast_path(d.fast_path);
        self.live_since = Some(Instant::now());
    }

    /// EndpointPair the predecessor's next hops once no flow can go by its verdicts any more.
    pub fn end_predecessor(&mut self) {
        if self.live_since.is_some_and(|since| since.elapsed() > PREDECESSOR) {
            self.records.nexthops.end_predecessor();
        }
    }
}

/// XDP holds records of other epochs for stale from now on. False: it is of this epoch already.
fn begin_epoch(control: &ControlBlock, epoch: u32) -> bool {
    let new = control.epoch.load(Ordering::Relaxed) != epoch;
    if new {
        control.epoch_since.store(Nanos(sys::now()).tick().0, Ordering::Relaxed);
        control.epoch.store(epoch, Ordering::Release);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What names something comes after what is named.
    #[test]
    fn nothing_is_published_before_what_it_names() {
        let at = |step: Step| {
            let mut places = ORDER.iter().enumerate().filter(|(_, s)| **s == step).map(|(i, _)| i);
            let place = places.next().unwrap_or_else(|| panic!("{step:?} is missing"));
            assert_eq!(places.next(), None, "{step:?} is there once");
            place
        };
        let named_by_the_snapshot = [
            Step::EspKeys,
            Step::NextHops,
            Step::NatPools,
            Step::Meters,
            Step::LinkMtus,
            Step::TunnelRecords,
            Step::LocalAddresses,
        ];
        for step in named_by_the_snapshot {
            assert!(at(step) < at(Step::Snapshot), "{step:?} before the snapshot that names it");
        }
        assert!(at(Step::LinkMtus) < at(Step::TunnelRecords), "records hold the inner MTU");
        assert!(at(Step::TunnelRecords) < at(Step::TunnelEnds), "ends name records");
        assert!(at(Step::NatPools) < at(Step::LocalAddresses), "addresses name pools");
        assert!(at(Step::LocalAddresses) < at(Step::Epoch), "replies to new addresses are the gateway's");
        assert!(at(Step::Snapshot) < at(Step::Epoch), "flows are checked by the new rules");
        assert!(at(Step::Snapshot) < at(Step::Generations), "flows look their route up in the new tables");
    }
}
