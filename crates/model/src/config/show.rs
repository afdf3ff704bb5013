//! Writing a configuration back in the file's own form, every default spelled out.

use super::raw::{
    RawAcl, RawAclRule, RawBandwidth, RawConfig, RawDataplane, RawDnat, RawFlowLog, RawNat, RawNeighbor,
    RawPort, RawQos, RawQosCar, RawQosPolicy, RawRoute, RawSnat, RawTimeouts, RawTunnel,
};
use super::read::{Opt, Text};
use super::types::*;
use super::value::{ICMP, protocol_name, to_hex};
use crate::ids::PortIdx;
use serde::{Serialize, Serializer};
use std::path::Path;
use toml::Spanned;

/// Whether key material is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As asterisks: for people. Such a text is no valid configuration if it has keys.
    Masked,
    /// In the clear: for the gateway's own copy on disk.
    Shown,
}

pub(super) const MASK: &str = "********";

/// Secrets are masked.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_raw(Secrets::Masked).serialize(serializer)
    }
}

impl Config {
    /// A text that [`super::parse`] reads as this very configuration, provided secrets are shown.
    pub fn to_toml(&self, secrets: Secrets) -> Result<String, toml::ser::Error> {
        toml::to_string(&self.to_raw(secrets))
    }

    pub(super) fn to_raw(&self, secrets: Secrets) -> RawConfig {
        RawConfig {
            dataplane: Some(dataplane(&self.dataplane)),
            timeouts: Some(timeouts(&self.timeouts)),
            bandwidth: Some(RawBandwidth {
                ccn: mbps(self.bandwidth.ccn),
                internet_up: mbps(self.bandwidth.internet_up),
                overhead: number(self.bandwidth.overhead),
                ..Default::default()
            }),
            port: self.ports.iter().map(port).collect(),
            neighbor: self.neighbors.iter().map(|n| self.neighbor(n)).collect(),
            route: self.routes.iter().map(|r| self.route(r)).collect(),
            acl: self.acls.iter().map(acl).collect(),
            qos: self.qos.iter().map(qos).collect(),
            nat: Some(nat(&self.nat)),
            snat: self.snat.iter().map(snat).collect(),
            dnat: self.dnat.iter().map(dnat).collect(),
            tunnel: self.tunnels.iter().map(|t| tunnel(t, secrets)).collect(),
            flow_log: self.flow_log.as_ref().map(flow_log),
            ..Default::default()
        }
    }

    fn port_name(&self, idx: PortIdx) -> Opt<String> {
        self.port(idx).and_then(|p| text(&p.name))
    }

    fn neighbor(&self, n: &Neighbor) -> RawNeighbor {
        RawNeighbor {
            port: self.port_name(n.port),
            address: text(n.address),
            mac: text(n.mac),
            ..Default::default()
        }
    }

    fn route(&self, r: &Route) -> RawRoute {
        let mut out = RawRoute {
            destination: text(r.destination),
            metric: number(r.metric),
            weight: number(r.weight),
            ..Default::default()
        };
        match r.target {
            RouteTarget::Via { next_hop, port } => {
                out.next_hop = text(next_hop);
                out.port = port.and_then(|p| self.port_name(p));
            }
            RouteTarget::OnLink(port) => out.port = self.port_name(port),
            RouteTarget::Tunnel(t) => out.tunnel = self.tunnel(t).and_then(|t| text(&t.name)),
            RouteTarget::Reject(kind) => out.r#type = text(kind),
        }
        out
    }
}

fn at<T>(value: T) -> Opt<T> {
    Some(Spanned::new(0..0, value))
}

fn text(value: impl ToString) -> Opt<String> {
    at(value.to_string())
}

fn number(value: impl Into<i64>) -> Opt<i64> {
    at(value.into())
}

/// Unlimited is 0 in the file.
fn mbps(value: Option<Mbps>) -> Opt<i64> {
    number(value.map_or(0, |m| m.0))
}

fn path(value: &Path) -> Opt<String> {
    // Paths come from the text of a file, so nothing is lost here.
    at(value.to_string_lossy().into_owned())
}

fn label(value: &Option<String>) -> Opt<String> {
    value.clone().and_then(at)
}

fn protocol(t: &FiveTuple) -> Opt<Text> {
    match t.protocol {
        // In an IPv6 rule the word means ICMPv6.
        Some(ICMP) if t.is_ipv6() => at(Text(ICMP.to_string())),
        p => at(Text(protocol_name(p))),
    }
}

fn dataplane(d: &Dataplane) -> RawDataplane {
    RawDataplane {
        workers: d.workers.and_then(number),
        mode: text(d.mode),
        zero_copy: text(d.zero_copy),
        busy_poll: at(d.busy_poll),
        fast_path: at(d.fast_path),
        flows: number(d.flows),
        state_dir: path(&d.state_dir),
        pin_dir: path(&d.pin_dir),
        control: path(&d.control),
        metrics: at(d.metrics.map(|m| m.to_string()).unwrap_or_default()),
        log: text(&d.log),
        acl_default: text(d.acl_default),
        acl_stateful: at(d.acl_stateful),
        on_daemon_loss: text(d.fail_action),
        icmp_rate: number(d.icmp_rate),
        new_flow_rate: number(d.new_flow_rate),
        rejudge_window: number(d.revalidation_credit),
        rekey_time: number(d.rekey_time),
        rekey_bytes: number(d.rekey_bytes),
        ..Default::default()
    }
}

fn timeouts(t: &Timeouts) -> RawTimeouts {
    RawTimeouts {
        tcp_established: number(t.tcp_established),
        tcp_transitory: number(t.tcp_transitory),
        tcp_syn: number(t.tcp_syn),
        udp: number(t.udp),
        icmp: number(t.icmp),
        other: number(t.other),
        ..Default::default()
    }
}

fn port(p: &Port) -> RawPort {
    RawPort {
        name: text(&p.name),
        device: text(&p.device),
        vlan: p.vlan.and_then(|v| number(v.get())),
        role: text(p.role),
        addresses: addresses(&p.addresses),
        mac: p.mac.and_then(text),
        mtu: p.mtu.and_then(number),
        snat: at(p.snat),
        // Without `snat` the file may not have them.
        snat_mapping: if p.snat { text(p.snat_behavior.mapping) } else { None },
        snat_filtering: if p.snat { text(p.snat_behavior.filtering) } else { None },
        bandwidth: p.bandwidth.and_then(|b| number(b.0)),
        ..Default::default()
    }
}

fn acl(a: &Acl) -> RawAcl {
    RawAcl {
        id: text(&a.id),
        name: label(&a.name),
        rule: a.rules.iter().map(acl_rule).collect(),
        ..Default::default()
    }
}

fn acl_rule(r: &AclRule) -> RawAclRule {
    RawAclRule {
        id: text(&r.id),
        name: label(&r.name),
        description: label(&r.description),
        direction: text(r.direction),
        r#type: text(r.kind),
        policy: text(r.policy),
        ip_protocol: protocol(&r.tuple),
        source_cidr: text(r.tuple.source),
        dest_cidr: text(r.tuple.dest),
        source_port_range: text(r.tuple.source_ports),
        dest_port_range: text(r.tuple.dest_ports),
        priority: number(r.priority),
        ..Default::default()
    }
}

fn qos(q: &Qos) -> RawQos {
    RawQos {
        id: text(&q.id),
        name: label(&q.name),
        description: label(&q.description),
        car: q.cars.iter().map(qos_car).collect(),
        policy: q.policies.iter().map(qos_policy).collect(),
        ..Default::default()
    }
}

fn qos_car(c: &QosCar) -> RawQosCar {
    let mut out = RawQosCar {
        id: text(&c.id),
        name: label(&c.name),
        description: label(&c.description),
        priority: number(c.priority),
        ..Default::default()
    };
    match c.limit {
        CarLimit::Absolute { min, max } => {
            out.limit_type = text("Absolute");
            out.min_bandwidth_abs = number(min);
            out.max_bandwidth_abs = number(max);
        }
        CarLimit::Percent { min, max, of } => {
            out.limit_type = text("Percent");
            out.min_bandwidth_percent = number(min);
            out.max_bandwidth_percent = number(max);
            out.percent_source_type = text(of);
        }
    }
    out.burst_ms = number(c.burst_ms);
    out.remark_dscp = c.remark_dscp.and_then(|d| at(Text(d.to_string())));
    out
}

fn qos_policy(p: &QosPolicy) -> RawQosPolicy {
    RawQosPolicy {
        id: text(&p.id),
        name: label(&p.name),
        description: label(&p.description),
        priority: number(p.priority),
        source_cidr: text(p.tuple.source),
        dest_cidr: text(p.tuple.dest),
        ip_protocol: protocol(&p.tuple),
        source_port_range: text(p.tuple.source_ports),
        dest_port_range: text(p.tuple.dest_ports),
        dscp: p.dscp.and_then(|d| at(Text(d.to_string()))),
        start_time: p.start.and_then(|t| at(Text(t.to_string()))),
        end_time: p.end.and_then(|t| at(Text(t.to_string()))),
        ..Default::default()
    }
}

fn nat(n: &Nat) -> RawNat {
    RawNat {
        port_range: text(n.port_range),
        // Unlimited is 0 in the file.
        host_sessions: number(n.host_sessions.unwrap_or(0)),
        warn_percent: number(n.warn_percent),
        port_block: n.port_block.and_then(number),
        log: text(n.log),
        log_file: n.log_file.as_deref().and_then(path),
        hairpin: at(n.hairpin),
        ..Default::default()
    }
}

fn snat(s: &Snat) -> RawSnat {
    RawSnat {
        id: text(&s.id),
        cidr_block: text(s.cidr_block),
        snat_ip: text(s.snat_ip),
        mapping: text(s.behavior.mapping),
        filtering: text(s.behavior.filtering),
        ..Default::default()
    }
}

/// One port as a number.
fn ports(range: PortRange) -> String {
    if range.count() == 1 { range.first.to_string() } else { range.to_string() }
}

fn dnat(d: &Dnat) -> RawDnat {
    let (protocol, external, internal) = match d.service {
        DnatService::Any => ("any".to_owned(), "any".to_owned(), "any".to_owned()),
        DnatService::Port { protocol, external, internal } => {
            (protocol_name(Some(protocol)), ports(external), ports(internal))
        }
    };
    RawDnat {
        id: text(&d.id),
        r#type: text(d.kind),
        ip_protocol: at(protocol),
        external_ip: at(d.external_ip.map(|ip| ip.to_string()).unwrap_or_default()),
        external_port: at(Text(external)),
        internal_ip: text(d.internal_ip),
        internal_port: at(Text(internal)),
        ..Default::default()
    }
}

fn addresses(of: &[ipnet::IpNet]) -> Opt<Vec<Spanned<String>>> {
    let list: Vec<_> = of.iter().map(|a| Spanned::new(0..0, a.to_string())).collect();
    if list.is_empty() { None } else { at(list) }
}

fn tunnel(t: &Tunnel, secrets: Secrets) -> RawTunnel {
    let secret = |s: &Secret| match secrets {
        Secrets::Masked => text(MASK),
        Secrets::Shown => at(to_hex(s.expose())),
    };
    let mut out = RawTunnel {
        name: text(&t.name),
        kind: text(t.encap.kind()),
        local: text(t.local),
        remote: text(t.remote),
        mtu: number(t.mtu.unwrap_or(0)),
        addresses: addresses(&t.addresses),
        ttl: number(t.ttl),
        // Fragments outside need it clear: it goes without saying.
        df: if t.fragment == FragmentAt::Inner { text(t.df) } else { None },
        dscp: at(Text(match t.dscp {
            OuterDscp::Copy => "copy".to_owned(),
            OuterDscp::Uniform => "uniform".to_owned(),
            OuterDscp::Fixed(n) => n.to_string(),
        })),
        fragment: text(t.fragment),
        mss_clamp: at(t.mss_clamp),
        probe_interval: number(t.probing.interval),
        probe_loss: number(t.probing.loss),
        probe_target: t.probing.target.and_then(text),
        fec: t.fec.and_then(|_| at(true)),
        fec_window: t.fec.and_then(|f| number(f.window)),
        fec_repairs: t.fec.and_then(|f| number(f.repairs)),
        fec_delay: t.fec.and_then(|f| number(f.delay)),
        ..Default::default()
    };
    match &t.encap {
        Encap::Vxlan { vni, port, udp_checksum, mac, remote_mac } => {
            out.vni = number(*vni);
            out.port = number(*port);
            out.udp_checksum = at(*udp_checksum);
            out.mac = mac.and_then(text);
            out.remote_mac = remote_mac.and_then(text);
        }
        Encap::Gre { key, checksum, sequence } => {
            out.key = key.and_then(number);
            out.checksum = at(*checksum);
            out.sequence = at(*sequence);
        }
        Encap::Ipip => {}
        Encap::Esp { cipher, manual, esn, replay_window, udp_port } => {
            out.cipher = text(*cipher);
            out.keying = text(if manual.is_some() { Keying::Manual } else { Keying::Agreed });
            if let Some(k) = manual {
                out.spi_in = number(k.spi_in);
                out.spi_out = number(k.spi_out);
                out.key_in = secret(&k.key_in);
                out.key_out = secret(&k.key_out);
            }
            out.esn = at(*esn);
            out.replay_window = number(*replay_window);
            out.udp_encap = at(udp_port.is_some());
            out.udp_port = udp_port.and_then(number);
            out.keepalive = udp_port.and_then(|_| number(t.keepalive));
        }
    }
    out
}

fn flow_log(f: &FlowLog) -> RawFlowLog {
    RawFlowLog {
        active_aging: number(f.active_aging),
        inactive_aging: number(f.inactive_aging),
        netflow_server: text(f.netflow_server),
        netflow_version: text(f.netflow_version),
        ..Default::default()
    }
}
