//! What the control socket and the metrics show.

use super::Daemon;
use super::sessions::seconds;
use crate::server::{Handler, MetricsSnapshot, PortPunt, rfc3339};
use ipnet::IpNet;
use sag_bpf::PuntReason;
use sag_model::config::{self, AclRule, Secrets, protocol_name};
use sag_model::control::{self, Error, ErrorCode, Picker, TopCollector};
use sag_model::time::Tick;
use sag_model::{DropReason, Nanos, PortIdx, VlanId};
use sag_packet::parse::Family;
use sag_pipeline::nat::Events;
use sag_pipeline::session::{self, Ending};
use sag_pipeline::snapshot::{NextHop, Route};
use sag_pipeline::stages::Disposition;
use sag_pipeline::worker::Explained;
use sag_xsk::sys;
use std::sync::atomic::Ordering;

impl Daemon {
    pub(super) fn publish_metrics(&self) {
        let snapshot = self.metrics();
        match self.metrics_data.lock() {
            Ok(mut d) => *d = snapshot,
            Err(e) => *e.into_inner() = snapshot,
        }
    }

    fn metrics(&self) -> MetricsSnapshot {
        let ports = self.port_rows();
        let mut punts = Vec::new();
        for b in self.bindings.iter().filter(|b| b.ours()) {
            for (r, packets) in PuntReason::ALL.iter().zip(self.punts(b.idx)) {
                punts.push(PortPunt { port: b.port.name.clone(), reason: r.name().to_owned(), packets });
            }
        }
        MetricsSnapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            config_epoch: self.epoch,
            ports,
            drops: self.drop_rows(),
            punts,
            sessions: self.session_totals(),
            nat: self.nat_use(),
            workers: self.worker_rows(),
            cars: self.car_counters(),
            tunnels: self.tunnels_report().tunnels,
        }
    }

    fn port_rows(&self) -> Vec<control::Port> {
        self.bindings.iter().map(|b| self.port_row(b)).collect()
    }

    fn port_row(&self, b: &crate::compile::PortBinding) -> control::Port {
        let mut row = control::Port::new(&b.port.name, &b.device, b.role);
        row.vlan = VlanId::new(b.port.vlan);
        row.up = b.port.up;
        row.mtu = u32::from(b.port.mtu);
        row.mac = Some(b.port.mac);
        let v4 = b.port.addrs4.iter().filter_map(|(a, l)| IpNet::new((*a).into(), *l).ok());
        let v6 = b.port.addrs6.iter().filter_map(|(a, l)| IpNet::new((*a).into(), *l).ok());
        row.addresses = v4.chain(v6).collect();
        if !b.ours() {
            row.capability = format!("{}: left to the kernel", b.device);
            return row;
        }
        if let Some(d) = self.devices.get(&b.port.dev) {
            row.capability = d.capability();
            row.xdp_mode = d.attached.as_ref().map_or("none", |a| a.mode.name()).to_owned();
            row.xsk_mode = match d.binding {
                Some(x) if x.is_zero_copy() => "zero-copy",
                Some(_) => "copy",
                None => "none",
            }
            .to_owned();
            row.queues = d.queues;
        }
        let books = self.books(b.idx);
        row.rx_packets = books.rx_packets;
        row.rx_bytes = books.rx_bytes;
        row.tx_packets = books.tx_packets;
        row.tx_bytes = books.tx_bytes;
        row.forwarded = books.forwarded;
        row.to_kernel = books.to_kernel;
        row.held = books.held;
        row.dropped = books.drops.iter().sum();
        row.originated = books.originated;
        row.punted = books.punted;
        row.fast = books.fast;
        row
    }

    fn drop_rows(&self) -> Vec<control::DropRow> {
        let mut rows = Vec::new();
        for b in self.bindings.iter().filter(|b| b.ours()) {
            let books = self.books(b.idx);
            for r in DropReason::ALL {
                let n = books.drops[r.index()];
                if n > 0 {
                    rows.push(control::DropRow::new(&b.port.name, *r, n));
                }
            }
        }
        rows
    }

    /// Brings the counters of rules up to the moment. Workers do so as they go round; a large table
    /// is left to them.
    fn settle_rules(&self) {
        const AT_ONCE: u32 = 200_000;
        for n in 1..self.tables.v4.used().min(AT_ONCE) {
            session::flush_counters(&self.tables.v4, n, &self.snapshot);
        }
        for n in 1..self.tables.v6.used().min(AT_ONCE) {
            session::flush_counters(&self.tables.v6, n, &self.snapshot);
        }
    }

    /// The analysis of the running ACLs, made when first asked for. Of large ones it would take
    /// seconds that this thread does not have.
    fn findings(&mut self) -> &[control::Finding] {
        const AT_ONCE: usize = 5_000;
        let config = &self.config;
        self.findings.get_or_insert_with(|| {
            let rules: usize = config.acls.iter().map(|a| a.rules.len()).sum();
            if rules <= AT_ONCE {
                return crate::check::findings(config);
            }
            let text =
                format!("{rules} rules are too many to analyse while forwarding: run `sag-vcpe check`");
            vec![control::Finding { kind: "incomplete".to_owned(), text, ..control::Finding::default() }]
        })
    }

    fn session_totals(&self) -> control::SessionTotals {
        control::SessionTotals {
            ipv4: u64::from(self.tables.v4.live()),
            ipv6: u64::from(self.tables.v6.live()),
            capacity_ipv4: u64::from(self.tables.v4.capacity()),
            capacity_ipv6: u64::from(self.tables.v6.capacity()),
            created: self.workers.iter().map(|w| w.shared.counters.sessions_created.get()).sum(),
            evicted: self.tables.nat.totals.evicted.load(Ordering::Relaxed),
            memory_bytes: self.tables.memory() as u64,
        }
    }

    fn worker_rows(&self) -> Vec<control::Worker> {
        self.workers
            .iter()
            .map(|w| control::Worker {
                id: w.shared.id,
                cpu: w.shared.cpu.map(|c| c as u32),
                batches: w.shared.counters.batches.get(),
                packets: w.shared.counters.packets.get(),
                busy_percent: (w.busy.2 * 10.0).round() / 10.0,
            })
            .collect()
    }

    pub(super) fn port_name(&self, idx: u8) -> &str {
        self.config.port(PortIdx(idx)).map_or("?", |p| p.name.as_str())
    }

    pub(super) fn applied(&self, changed: bool, warnings: Vec<String>) -> control::ConfigApplied {
        control::ConfigApplied { epoch: self.epoch, changed, warnings }
    }
}

impl Handler for Daemon {
    fn status(&mut self) -> Result<control::Status, Error> {
        let mut fast = 0;
        let mut punted = 0;
        let mut punts: Vec<control::PuntRow> = PuntReason::ALL
            .iter()
            .map(|r| control::PuntRow { reason: r.name().to_owned(), packets: 0 })
            .collect();
        for b in self.bindings.iter().filter(|b| b.ours()) {
            let books = self.books(b.idx);
            fast += books.fast;
            punted += books.punted;
            for (row, n) in punts.iter_mut().zip(self.punts(b.idx)) {
                row.packets += n;
            }
        }
        punts.retain(|p| p.packets > 0);
        Ok(control::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            config_epoch: self.epoch,
            config_file: self.source.clone(),
            config_applied: rfc3339(self.applied),
            workers: self.worker_rows(),
            sessions: self.session_totals(),
            fastpath_packets: fast,
            punted_packets: punted,
            punts,
            warnings: [self.warnings.clone(), self.flood_warnings()].concat(),
        })
    }

    fn ports(&mut self) -> Result<control::Ports, Error> {
        Ok(control::Ports { ports: self.port_rows() })
    }

    fn drops(&mut self) -> Result<control::Drops, Error> {
        Ok(control::Drops { drops: self.drop_rows() })
    }

    fn acl(&mut self, query: &control::AclQuery) -> Result<control::AclReport, Error> {
        if let Some(id) = &query.acl
            && !self.config.acls.iter().any(|a| a.id == *id)
        {
            let ids: Vec<_> = self.config.acls.iter().map(|a| a.id.as_str()).collect();
            return Err(Error::new(
                ErrorCode::NotFound,
                format!("no ACL has the id {id:?}"),
                format!("the ACLs are: {}", ids.join(", ")),
            ));
        }
        self.settle_rules();
        let now = Nanos(sys::now()).tick();
        let row = |acl: &str, r: &AclRule| {
            let stats = self.compiler.acl.info(acl, &r.id).map(|i| i.stats);
            let last = stats.as_ref().map_or(0, |s| s.last_hit.load(Ordering::Relaxed));
            control::AclRule {
                id: r.id.clone(),
                direction: r.direction.to_string(),
                kind: r.kind.to_string(),
                policy: r.policy.to_string(),
                ip_protocol: protocol_name(r.tuple.protocol),
                source_cidr: r.tuple.source.to_string(),
                dest_cidr: r.tuple.dest.to_string(),
                source_port_range: r.tuple.source_ports.to_string(),
                dest_port_range: r.tuple.dest_ports.to_string(),
                priority: u32::from(r.priority),
                hits: stats.as_ref().map_or(0, |s| s.packets.load(Ordering::Relaxed)),
                bytes: stats.as_ref().map_or(0, |s| s.bytes.load(Ordering::Relaxed)),
                last_hit_s: (last != 0).then(|| seconds(now.since(Tick(last)))),
            }
        };
        let acls = self
            .config
            .acls
            .iter()
            .filter(|a| query.acl.as_ref().is_none_or(|id| a.id == *id))
            .map(|a| control::Acl {
                id: a.id.clone(),
                rules: a.rules.iter().map(|r| row(&a.id, r)).collect(),
            })
            .collect();
        let findings = self.findings().to_vec();
        Ok(control::AclReport { acls, default: self.config.dataplane.acl_default.to_string(), findings })
    }

    fn routes(&mut self, query: &control::RouteQuery) -> Result<control::Routes, Error> {
        let mut rows: Vec<_> = self
            .routes
            .iter()
            .filter(|r| query.covers.is_none_or(|a| r.dst.contains(&a)))
            .filter(|r| !(matches!(r.route, Route::Local) && r.dst.addr().is_loopback()))
            .collect();
        if query.covers.is_some() {
            rows.sort_by_key(|r| std::cmp::Reverse(r.dst.prefix_len()));
        }
        let total = rows.len() as u64;
        let limit = query.limit.map_or(usize::MAX, |l| l as usize);
        let tables = self.mirror.tables();
        let device_name = |i: u32| tables.link(i).map_or_else(|| format!("if{i}"), |l| l.name.clone());
        let routes = rows
            .into_iter()
            .take(limit)
            .map(|r| {
                let mut hops = Vec::new();
                if let Route::Via(members) = &r.route {
                    for m in members {
                        if let Some(t) = self.snapshot.tunnel(m.tunnel) {
                            hops.push(control::NextHop {
                                via: Some(t.remote),
                                port: Some(t.name.clone()),
                                device: String::new(),
                                mac: None,
                                state: "tunnel".to_owned(),
                                weight: u32::from(m.weight),
                            });
                            continue;
                        }
                        let binding = self.bindings.get(m.port.index());
                        let ifindex = binding.and_then(|b| b.l3_ifindex).unwrap_or(0);
                        let neighbor = m.via.and_then(|ip| tables.neighbor(ifindex, ip));
                        let known = m.via.and_then(|ip| self.compiler.nexthops.get(m.port, ip));
                        hops.push(control::NextHop {
                            via: m.via,
                            port: Some(self.port_name(m.port.0).to_owned()),
                            device: binding.map(|b| b.device.clone()).unwrap_or_default(),
                            mac: known.filter(NextHop::valid).map(|n| n.dmac),
                            state: match (m.via, neighbor) {
                                (None, _) => "on-link".to_owned(),
                                (Some(_), Some(n)) => n.state.to_string(),
                                (Some(_), None) if known.is_some_and(|n| n.valid()) => "permanent".to_owned(),
                                (Some(_), None) => "unknown".to_owned(),
                            },
                            weight: u32::from(m.weight),
                        });
                    }
                }
                hops.extend(r.foreign.iter().map(|(ifindex, via, weight)| control::NextHop {
                    via: *via,
                    port: None,
                    device: device_name(*ifindex),
                    mac: None,
                    state: "not-ours".to_owned(),
                    weight: u32::from(*weight),
                }));
                control::Route {
                    destination: r.dst,
                    kind: match r.route {
                        Route::Via(_) | Route::NotOurs => "unicast",
                        Route::Local => "local",
                        Route::Blackhole => "blackhole",
                        Route::Unreachable => "unreachable",
                        Route::Prohibit => "prohibit",
                    }
                    .to_owned(),
                    protocol: r.protocol.clone(),
                    metric: r.metric,
                    source: match r.source {
                        crate::compile::RouteSource::Kernel => "kernel",
                        crate::compile::RouteSource::Config => "config",
                    }
                    .to_owned(),
                    next_hops: hops,
                }
            })
            .collect();
        Ok(control::Routes { routes, total })
    }

    fn sessions(&mut self, query: &control::SessionQuery) -> Result<control::Sessions, Error> {
        let mut picker = Picker::new(query);
        self.each_session(|r, s| picker.offer(s, r));
        let (wanted, total) = picker.finish();
        Ok(control::Sessions { sessions: self.spell_out(&wanted), total })
    }

    fn sessions_flush(&mut self, filter: &control::SessionFilter) -> Result<control::Flushed, Error> {
        let mut doomed = Vec::new();
        self.each_session(|r, s| {
            if filter.matches(s) {
                doomed.push(r);
            }
        });
        let mut flushed = 0;
        let mut events = Events::default();
        for chunk in doomed.chunks(1024) {
            for r in chunk {
                let events = &mut events;
                flushed += u64::from(match r.family {
                    Family::V4 => {
                        let ending = Ending { deferred: &mut self.flushed4, events, nat: &self.tables.nat };
                        session::end(&self.tables.v4, r.number, &self.snapshot, ending)
                    }
                    Family::V6 => {
                        let ending = Ending { deferred: &mut self.flushed6, events, nat: &self.tables.nat };
                        session::end(&self.tables.v6, r.number, &self.snapshot, ending)
                    }
                });
            }
            self.journal.journal.take(&mut events);
        }
        Ok(control::Flushed { flushed })
    }

    fn top(&mut self, query: &control::TopQuery) -> Result<control::Top, Error> {
        let mut top = TopCollector::new(query);
        self.each_session(|_, s| top.offer(s));
        Ok(top.finish())
    }

    fn nat(&mut self) -> Result<control::Nat, Error> {
        Ok(self.nat_report())
    }

    fn nat_bindings(&mut self, query: &control::NatBindingQuery) -> Result<control::NatBindings, Error> {
        Ok(self.bindings(query))
    }

    fn qos(&mut self) -> Result<control::Qos, Error> {
        Ok(self.qos_report())
    }

    fn tunnels(&mut self) -> Result<control::Tunnels, Error> {
        Ok(self.tunnels_report())
    }

    fn explain(&mut self, query: &control::ExplainQuery) -> Result<control::Explain, Error> {
        super::explain::explain(self, query)
    }

    fn config_show(&mut self) -> Result<control::ConfigShow, Error> {
        let text = self.config.to_toml(Secrets::Masked).map_err(|e| Error::internal(e.to_string()))?;
        Ok(control::ConfigShow {
            name: self.source.clone(),
            epoch: self.epoch,
            applied: rfc3339(self.applied),
            text,
        })
    }

    fn config_check(&mut self, text: &str, name: &str) -> Result<Vec<String>, Error> {
        let checked = config::parse(text, name).map_err(|e| Error::invalid_config(e.to_string()))?;
        Ok(checked.warnings.iter().map(|w| w.to_string()).collect())
    }

    fn tunnels_rekey(&mut self, query: &control::TunnelRekey) -> Result<control::Rekeyed, Error> {
        self.rekey(query)
    }

    fn tunnels_key(&mut self, query: &control::TunnelKeyQuery) -> Result<control::PublicKey, Error> {
        self.public_key(query)
    }

    fn tunnels_peers(&mut self, query: &control::TunnelPeers) -> Result<control::Rekeyed, Error> {
        self.hear_peers(query)
    }

    fn config_apply(&mut self, text: &str, name: &str) -> Result<control::ConfigApplied, Error> {
        let (changed, warnings) =
            self.apply(text.to_owned(), name).map_err(|e| Error::invalid_config(format!("{e:#}")))?;
        Ok(self.applied(changed, warnings))
    }

    fn reload(&mut self) -> Result<control::ConfigApplied, Error> {
        let path = self.path.clone();
        let text = crate::config_file::read(&path).map_err(|e| Error::invalid_config(format!("{e:#}")))?;
        self.config_apply(&text, &path.display().to_string())
    }
}

/// For `explain`: how a walk ended.
pub(super) fn outcome(e: &Explained) -> (&'static str, Option<String>) {
    match e {
        Explained::Forward(_) => ("forward", None),
        Explained::Stopped(Disposition::Kernel) => {
            ("to-kernel", Some("addressed to the gateway or its links".to_owned()))
        }
        Explained::Stopped(Disposition::Drop { reason, .. }) => ("drop", Some(reason.name().to_owned())),
        Explained::Stopped(Disposition::SessionInvalid) => {
            ("drop", Some(DropReason::IcmpUnmatched.name().to_owned()))
        }
        Explained::Stopped(Disposition::Unresolved { to, .. }) => {
            ("held", Some(format!("{to} is not resolved yet")))
        }
    }
}
