//! What Prometheus reads: one snapshot of the gateway's counters, spelt out as text.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sag_model::control::{
    CarCounters, DropRow, FileState, Ha, HeaviestHost, Nat, NatPool, Port, PortPunt, RepairCount,
    SessionTotals, SynCookieRow, Tunnel, TunnelFec, Worker,
};
use std::fmt;

/// The gateway's counters at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsSnapshot {
    pub version: String,
    pub uptime_s: u64,
    pub config_epoch: u32,
    pub ports: Vec<Port>,
    pub drops: Vec<DropRow>,
    pub punts: Vec<PortPunt>,
    pub sessions: SessionTotals,
    pub next_hops: NextHopUse,
    /// Without entries.
    pub nat: Nat,
    pub workers: Vec<Worker>,
    pub cars: Vec<CarCounters>,
    pub tunnels: Vec<Tunnel>,
    pub repairs: Vec<RepairCount>,
    pub pins_missing: u64,
    pub files: Vec<FileState>,
    pub syn_cookies: Vec<SynCookieRow>,
    pub port_mappings: PortMappingUse,
    pub limited_rules: Vec<LimitedRule>,
    pub ha: Ha,
    /// Of the metrics endpoint itself.
    pub endpoint: Clients,
    /// Of the control socket.
    pub control: Clients,
}

/// Who is connected to an interface, and who was sent away.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clients {
    pub open: usize,
    /// Connections that were refused or closed, by what ran out.
    pub ended: Vec<(&'static str, u64)>,
}

/// Ports that hosts have asked for, and their requests since the daemon has started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortMappingUse {
    pub mappings: usize,
    pub granted: u64,
    pub refused: u64,
}

/// An ACL rule with limits for its sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitedRule {
    /// `acl id/rule id`
    pub rule: String,
    pub sessions: u32,
    /// Packets whose session was refused.
    pub refused: u64,
}

/// Next hops that have a number, that could have one, and that have been asked for and have not answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NextHopUse {
    pub used: usize,
    pub capacity: usize,
    pub incomplete: usize,
}

/// Form of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `text/plain; version=0.0.4`
    Classic,
    OpenMetrics,
}

impl Format {
    /// What a scraper's `Accept` header asks for.
    pub(super) fn accepted(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Classic }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl MetricsSnapshot {
    pub(super) fn encode(self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot(self)));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(match format {
            Format::OpenMetrics => out,
            Format::Classic => classic(&out),
        })
    }
}

/// The older format names a counter by its samples, `_total` included, and knows no end mark.
fn classic(open: &str) -> String {
    let mut out = String::with_capacity(open.len() + 1024);
    let mut counters: Vec<&str> = Vec::new();
    for line in open.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|l| l.strip_suffix(" counter")) {
            counters.push(name);
        }
    }
    for line in open.lines().filter(|l| *l != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest))
                if counters.contains(&name) =>
            {
                out.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[derive(Debug)]
struct Snapshot(MetricsSnapshot);

/// Writes families; one method call each.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn write<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        rows: impl Iterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, metric) in rows {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// `_total` is added to the name by the encoder.
    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let rows = rows.map(|(labels, n)| (labels, ConstCounter::new(n)));
        self.write((name, help), MetricType::Counter, rows)
    }

    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let rows = rows.map(|(labels, n)| (labels, ConstGauge::new(n)));
        self.write((name, help), MetricType::Gauge, rows)
    }

    fn plain_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn plain_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }
}

/// A counter of a port: name, help, field.
type PortCounter = (&'static str, &'static str, fn(&Port) -> u64);

const PORT_COUNTERS: &[PortCounter] = &[
    ("sag_port_rx_packets", "Packets received", |p| p.rx_packets),
    ("sag_port_tx_packets", "Packets sent", |p| p.tx_packets),
    ("sag_port_tx_lost", "Packets sent by XDP that the device did not take", |p| p.tx_lost),
    ("sag_port_rx_bytes", "Bytes received", |p| p.rx_bytes),
    ("sag_port_tx_bytes", "Bytes sent", |p| p.tx_bytes),
    ("sag_port_forwarded_packets", "Packets received here that left by another port", |p| p.forwarded),
    ("sag_port_to_kernel_packets", "Packets handed to the kernel", |p| p.to_kernel),
    ("sag_port_originated_packets", "Packets that the gateway itself sent", |p| p.originated),
    ("sag_fastpath_packets", "Packets finished by the XDP program", |p| p.fast),
];

/// External ports by address and protocol, and why sessions were refused.
fn nat(out: &mut Families<'_>, n: &Nat) -> fmt::Result {
    let by_pool = |p: &NatPool| [("address", p.address.to_string())];
    let uses = || {
        n.pools.iter().flat_map(|p| {
            let all = [("tcp", p.tcp), ("udp", p.udp), ("icmp", p.icmp)];
            all.map(|(proto, u)| ([("address", p.address.to_string()), ("protocol", proto.to_owned())], u))
        })
    };
    let used = uses().map(|(l, u)| (l, f64::from(u.used)));
    out.gauge("sag_nat_ports_used", "External ports and query identifiers that sessions hold", used)?;
    let capacity = uses().map(|(l, u)| (l, f64::from(u.capacity)));
    out.gauge(
        "sag_nat_ports_capacity",
        "External ports and query identifiers that sessions can hold",
        capacity,
    )?;
    let exhausted = n.pools.iter().map(|p| (by_pool(p), p.exhausted));
    out.counter("sag_nat_exhausted", "Sessions refused because no port was free", exhausted)?;
    let filtered = n.pools.iter().map(|p| (by_pool(p), p.filtered));
    out.counter("sag_nat_filtered", "Packets from outside that no binding or filter admitted", filtered)?;
    let t = &n.totals;
    out.plain_gauge("sag_nat_bindings", "Inside endpoints that have an external port", t.bindings as f64)?;
    out.plain_gauge("sag_nat_hosts", "Inside hosts with translated sessions", t.hosts as f64)?;
    out.plain_counter(
        "sag_nat_host_limit_hits",
        "Sessions refused because of nat.host_sessions",
        t.host_limit_hits,
    )?;
    out.plain_counter(
        "sag_nat_hairpinned",
        "Sessions between inside hosts by external addresses",
        t.hairpinned,
    )?;
    out.plain_counter(
        "sag_nat_uncounted",
        "Hosts and filter entries that do not fit their tables",
        t.uncounted,
    )?;
    out.plain_counter("sag_nat_log_lost", "Records that the NAT log could not take", t.log_lost)
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let s = &self.0;
        let mut out = Families(encoder);
        let version = s.version.as_str();
        out.gauge("sag_build_info", "Version of sag-vcpe", [([("version", version)], 1.0)].into_iter())?;
        out.plain_gauge("sag_uptime_seconds", "Time since the daemon started", s.uptime_s as f64)?;
        out.plain_gauge("sag_config_epoch", "Epoch of the running configuration", f64::from(s.config_epoch))?;

        let by_port = |p: &Port| [("port", p.name.clone())];
        let up = s.ports.iter().map(|p| (by_port(p), f64::from(u8::from(p.up))));
        out.gauge("sag_port_up", "Whether the port has a link", up)?;
        let attached = s.ports.iter().map(|p| (by_port(p), f64::from(u8::from(p.xdp_mode != "none"))));
        out.gauge(
            "sag_xdp_attached",
            "Whether the gateway's XDP program is attached to the device",
            attached,
        )?;
        let repairs = s.repairs.iter().map(|r| ([("kind", r.kind.clone())], r.count));
        out.counter("sag_xdp_repairs", "Changes from outside that were put right", repairs)?;
        out.plain_gauge(
            "sag_pins_missing",
            "Pins that are missing and cannot be made",
            s.pins_missing as f64,
        )?;
        let by_file = |f: &FileState| [("file", f.file.clone())];
        let errors = s.files.iter().map(|f| (by_file(f), f.errors));
        out.counter("sag_file_errors", "Failed attempts to write a file", errors)?;
        let failing = s.files.iter().map(|f| (by_file(f), f64::from(u8::from(f.failing))));
        out.gauge("sag_file_failing", "Whether a file cannot be written now", failing)?;
        let held = s.ports.iter().map(|p| (by_port(p), p.held as f64));
        out.gauge(
            "sag_port_held_packets",
            "Packets held until a neighbor is resolved or the first fragment has come",
            held,
        )?;
        for (name, help, field) in PORT_COUNTERS {
            out.counter(name, help, s.ports.iter().map(|p| (by_port(p), field(p))))?;
        }
        let punts = s.punts.iter().map(|p| ([("port", p.port.as_str()), ("reason", &p.reason)], p.packets));
        out.counter("sag_punted_packets", "Packets that XDP handed to a worker", punts)?;
        let drops = s.drops.iter().map(|d| ([("port", d.port.as_str()), ("reason", &d.reason)], d.packets));
        out.counter("sag_drops", "Packets dropped", drops)?;

        let t = &s.sessions;
        let families = |v4: u64, v6: u64| {
            [([("family", "ipv4")], v4 as f64), ([("family", "ipv6")], v6 as f64)].into_iter()
        };
        out.gauge("sag_sessions", "Live sessions", families(t.ipv4, t.ipv6))?;
        let capacity = families(t.capacity_ipv4, t.capacity_ipv6);
        out.gauge("sag_sessions_capacity", "Sessions that the table holds", capacity)?;
        out.plain_counter("sag_sessions_created", "Sessions since start", t.created)?;
        out.plain_counter("sag_sessions_evicted", "Sessions ended to make room", t.evicted)?;
        out.plain_counter(
            "sag_sessions_evicted_established",
            "Of these, with traffic in both directions",
            t.evicted_established,
        )?;
        let family = |h: &HeaviestHost| [("family", if h.family == 4 { "ipv4" } else { "ipv6" })];
        let heaviest = t.heaviest.iter().map(|h| (family(h), h.sessions as f64));
        out.gauge("sag_sessions_heaviest_host", "Sessions of the host that has most", heaviest)?;
        out.plain_gauge(
            "sag_sessions_memory_bytes",
            "Memory of session tables and NAT state",
            t.memory_bytes as f64,
        )?;
        let n = &s.next_hops;
        out.plain_gauge("sag_next_hops", "Next hops that have a number", n.used as f64)?;
        out.plain_gauge("sag_next_hops_capacity", "Numbers of next hops", n.capacity as f64)?;
        out.plain_gauge(
            "sag_neighbors_incomplete",
            "Neighbors that were asked for and have not answered",
            n.incomplete as f64,
        )?;
        nat(&mut out, &s.nat)?;
        syn_cookies(&mut out, &s.syn_cookies)?;
        port_mappings(&mut out, &s.port_mappings)?;
        limited_rules(&mut out, &s.limited_rules)?;
        ha(&mut out, &s.ha)?;

        let by_worker = |w: &Worker| [("worker", w.id.to_string())];
        let packets = s.workers.iter().map(|w| (by_worker(w), w.packets));
        out.counter("sag_worker_packets", "Packets that the worker handled", packets)?;
        let batches = s.workers.iter().map(|w| (by_worker(w), w.batches));
        out.counter("sag_worker_batches", "Batches that the worker handled", batches)?;
        let busy = s.workers.iter().map(|w| (by_worker(w), w.busy_percent / 100.0));
        out.gauge("sag_worker_busy_ratio", "Share of the last second spent on packets", busy)?;

        let by_car = |c: &CarCounters| [("car", c.car.clone())];
        let passed = s.cars.iter().map(|c| (by_car(c), c.passed_bytes));
        out.counter("sag_car_passed_bytes", "Bytes that the CAR let pass", passed)?;
        let dropped = s.cars.iter().map(|c| (by_car(c), c.dropped_bytes));
        out.counter("sag_car_dropped_bytes", "Bytes of the CAR over its ceiling or the link", dropped)?;
        tunnels(&mut out, &s.tunnels)?;
        clients(&mut out, &[("metrics", &s.endpoint), ("control", &s.control)])
    }
}

fn port_mappings(out: &mut Families<'_>, m: &PortMappingUse) -> fmt::Result {
    out.plain_gauge("sag_port_mappings", "Ports that hosts have asked for and have", m.mappings as f64)?;
    let outcomes = [("granted", m.granted), ("refused", m.refused)];
    let outcomes = outcomes.into_iter().map(|(outcome, n)| ([("outcome", outcome)], n));
    out.counter("sag_port_mapping_requests", "Answered requests for ports (PCP, NAT-PMP)", outcomes)
}

fn ha(out: &mut Families<'_>, h: &Ha) -> fmt::Result {
    if !h.configured {
        return Ok(());
    }
    let number = |is: bool| f64::from(u8::from(is));
    out.plain_gauge("sag_ha_linked", "1: there is a link to the peer", number(h.linked))?;
    let sides = [("this", h.in_sync), ("peer", h.peer_in_sync)];
    let sides = sides.into_iter().map(|(side, is)| ([("side", side)], number(is)));
    out.gauge("sag_ha_in_sync", "1: that gateway has all sessions of the other one", sides)?;
    let t = &h.totals;
    let ways =
        |sent: u64, received: u64| [([("direction", "sent")], sent), ([("direction", "received")], received)];
    out.counter("sag_ha_messages", "Messages about sessions", ways(t.sent, t.received).into_iter())?;
    out.counter(
        "sag_ha_bytes",
        "Bytes of the link to the peer",
        ways(t.bytes_sent, t.bytes_received).into_iter(),
    )?;
    let events = t.events().into_iter().map(|(event, n)| ([("event", event)], n));
    out.counter("sag_ha_sessions", "What has happened to the peer's sessions here", events)
}

fn limited_rules(out: &mut Families<'_>, all: &[LimitedRule]) -> fmt::Result {
    let live = all.iter().map(|r| ([("rule", r.rule.clone())], f64::from(r.sessions)));
    out.gauge("sag_acl_rule_sessions", "Sessions that count for the limits of an ACL rule", live)?;
    let refused = all.iter().map(|r| ([("rule", r.rule.clone())], r.refused));
    out.counter(
        "sag_acl_rule_refused",
        "Packets whose session the limits of an ACL rule have refused",
        refused,
    )
}

fn syn_cookies(out: &mut Families<'_>, all: &[SynCookieRow]) -> fmt::Result {
    let active = all.iter().map(|c| ([("service", c.id.clone())], f64::from(u8::from(c.active))));
    out.gauge("sag_syn_cookies_active", "Whether SYNs of the service are answered with SYN cookies", active)?;
    let syns = all.iter().map(|c| ([("service", c.id.clone())], c.syns));
    out.counter("sag_syn_cookies_syns", "SYNs without a session for the service", syns)?;
    let outcomes = all.iter().flat_map(|c| {
        [("sent", c.sent), ("accepted", c.accepted), ("refused", c.refused)]
            .map(|(outcome, n)| ([("service", c.id.clone()), ("outcome", outcome.to_owned())], n))
    });
    out.counter("sag_syn_cookies", "SYN cookies sent, and answers with a valid and without one", outcomes)
}

fn clients(out: &mut Families<'_>, all: &[(&str, &Clients)]) -> fmt::Result {
    let open = all.iter().map(|(name, c)| ([("interface", *name)], c.open as f64));
    out.gauge("sag_clients", "Connections to the metrics endpoint and to the control socket", open)?;
    let ended = all.iter().flat_map(|(name, c)| {
        c.ended.iter().map(|(reason, n)| ([("interface", *name), ("reason", reason)], *n))
    });
    out.counter("sag_clients_ended", "Connections that were refused or closed, by what ran out", ended)
}

/// What a tunnel can be in.
const STATES: [&str; 4] = ["up", "down", "no-path", "off"];

/// A counter of error correction: name, help, field.
type FecCounter = (&'static str, &'static str, fn(&TunnelFec) -> u64);

const FEC_COUNTERS: &[FecCounter] = &[
    ("sag_tunnel_fec_repairs", "Repair packets sent", |f| f.repairs_sent),
    ("sag_tunnel_fec_overhead_bytes", "Bytes of repair packets and of error correction headers", |f| {
        f.overhead_bytes
    }),
    ("sag_tunnel_fec_recovered_packets", "Lost packets that were restored from repair packets", |f| {
        f.recovered
    }),
    ("sag_tunnel_fec_unrecoverable_windows", "Windows with packets that could not be restored", |f| {
        f.unrecoverable
    }),
];

fn tunnels(out: &mut Families<'_>, all: &[Tunnel]) -> fmt::Result {
    let by_tunnel = |t: &Tunnel| [("tunnel", t.name.clone())];
    let up = all.iter().map(|t| (by_tunnel(t), f64::from(u8::from(t.state == "up"))));
    out.gauge("sag_tunnel_up", "Whether the tunnel carries traffic", up)?;
    let states = all.iter().flat_map(|t| {
        let is = |s| f64::from(u8::from(t.state == s));
        STATES.map(|s| ([("tunnel", t.name.clone()), ("state", s.to_owned())], is(s)))
    });
    out.gauge("sag_tunnel_state", "1 for the state that the tunnel is in", states)?;
    // Of tunnels whose far end has answered.
    let seconds = |us: u64| us as f64 / 1e6;
    let rtt = all.iter().filter_map(|t| Some((by_tunnel(t), seconds(t.rtt_us?))));
    out.gauge("sag_tunnel_rtt_seconds", "Smoothed round trip through the tunnel", rtt)?;
    let jitter = all.iter().filter_map(|t| Some((by_tunnel(t), seconds(t.jitter_us?))));
    out.gauge("sag_tunnel_jitter_seconds", "Variation of the round trip", jitter)?;
    let loss = all.iter().filter_map(|t| Some((by_tunnel(t), t.loss_percent? / 100.0)));
    out.gauge("sag_tunnel_loss_ratio", "Share of the last 64 probes to the far end that were lost", loss)?;
    let keepalives = all.iter().filter_map(|t| Some((by_tunnel(t), t.esp.as_ref()?.keepalives)));
    out.counter("sag_tunnel_keepalives", "NAT keepalives sent", keepalives)?;
    for (name, help, value) in FEC_COUNTERS {
        out.counter(name, help, all.iter().filter_map(|t| Some((by_tunnel(t), value(t.fec.as_ref()?)))))?;
    }
    for (name, help, value) in [
        (
            "sag_tunnel_rx_packets",
            "Packets received through the tunnel",
            (|t| t.rx_packets) as fn(&Tunnel) -> u64,
        ),
        ("sag_tunnel_rx_bytes", "IP bytes received through the tunnel", |t| t.rx_bytes),
        ("sag_tunnel_tx_packets", "Packets sent through the tunnel", |t| t.tx_packets),
        ("sag_tunnel_tx_bytes", "IP bytes sent through the tunnel", |t| t.tx_bytes),
        ("sag_tunnel_drops", "Packets dropped at the tunnel's entry or exit", |t| t.drops),
        ("sag_tunnel_icmp_refused", "ICMP errors about packets that the tunnel has not sent", |t| {
            t.icmp_refused
        }),
        (
            "sag_tunnel_device_lost",
            "Packets of the machine's own that found no room on the way to a worker",
            |t| t.device.as_ref().map_or(0, |d| d.lost),
        ),
        ("sag_tunnel_device_rx_packets", "Packets out of the tunnel that the kernel got", |t| {
            t.device.as_ref().map_or(0, |d| d.rx_packets)
        }),
        (
            "sag_tunnel_device_tx_packets",
            "Packets of the machine's own that were sent through the tunnel",
            |t| t.device.as_ref().map_or(0, |d| d.tx_packets),
        ),
        ("sag_tunnel_device_drops", "Packets of the machine's own that were dropped", |t| {
            t.device.as_ref().map_or(0, |d| d.drops.iter().map(|d| d.packets).sum())
        }),
    ] {
        out.counter(name, help, all.iter().map(|t| (by_tunnel(t), value(t))))?;
    }
    let path = all.iter().filter(|t| t.path_mtu != 0).map(|t| (by_tunnel(t), f64::from(t.path_mtu)));
    out.gauge("sag_tunnel_path_mtu_bytes", "Outer bytes that the path carries", path)?;
    let mtu = all.iter().map(|t| (by_tunnel(t), f64::from(t.mtu)));
    out.gauge("sag_tunnel_mtu_bytes", "IP bytes that the tunnel carries in one piece", mtu)
}
