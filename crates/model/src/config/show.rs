//! Writing a configuration back in the file's own form, every default spelled out.
//!
//! The `pub` keys of a section are written by their declarations; here is how the rest of the keys follow from the
//! parts that the validation made of them.

use super::keys::{
    Acl, AclRule, Config, Dnat, Group, Ha, Neighbor, Port, Qos, QosCar, QosPolicy, RawAcl, RawAclRule,
    RawConfig, RawDnat, RawGroup, RawHa, RawNat64, RawNeighbor, RawPort, RawQos, RawQosCar, RawQosPolicy,
    RawRoute, RawSnat, RawStaticNat, RawSynCookies, RawTunnel, Route, Snat, StaticNat, SynCookies, Tunnel,
};
use super::schema::{SECRET_MASK, Text};
use super::scope::Opt;
use super::types::{
    CarLimit, DnatService, Encap, FiveTuple, FragmentAt, GroupMembers, Keying, LimitType, PortRange,
    RouteTarget, Secret, icmp_code_name, icmp_type_name,
};
use super::value::{ICMP, protocol_name, to_hex};
use crate::ids::PortIdx;
use serde::{Serialize, Serializer};
use toml::Spanned;

/// Whether key material is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As asterisks: for people. Such a text is no valid configuration if it has keys.
    Masked,
    /// In the clear: for the gateway's own copy on disk.
    Shown,
}

/// Secrets are masked.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_raw(Secrets::Masked).serialize(serializer)
    }
}

impl Config {
    /// A text that [`super::parse`] reads as this very configuration, provided secrets are shown.
    ///
    /// # Errors
    ///
    /// None that is known: every value has a form in TOML.
    pub fn to_toml(&self, secrets: Secrets) -> Result<String, toml::ser::Error> {
        toml::to_string(&self.to_raw(secrets))
    }

    pub(super) fn to_raw(&self, secrets: Secrets) -> RawConfig {
        RawConfig {
            dataplane: Some(self.dataplane.raw_keys()),
            timeouts: Some(self.timeouts.raw_keys()),
            bandwidth: Some(self.bandwidth.raw_keys()),
            vrf: self.vrfs.iter().map(|v| v.raw_keys()).collect(),
            port: self.ports.iter().map(port).collect(),
            neighbor: self.neighbors.iter().map(|n| self.neighbor(n)).collect(),
            route: self.routes.iter().map(|r| self.route(r)).collect(),
            group: self.groups.iter().map(group).collect(),
            acl: self.acls.iter().map(acl).collect(),
            qos: self.qos.iter().map(qos).collect(),
            nat: Some(self.nat.raw_keys()),
            snat: self.snat.iter().map(|s| self.snat(s)).collect(),
            dnat: self.dnat.iter().map(dnat).collect(),
            static_nat: self.static_nat.iter().map(|s| self.static_nat(s)).collect(),
            nat64: self.nat64.iter().map(|n| RawNat64 { id: text(&n.id), ..n.raw_keys() }).collect(),
            port_mapping: Some(self.port_mapping.raw_keys()),
            syn_cookies: self.syn_cookies.iter().map(syn_cookies).collect(),
            tunnel: self.tunnels.iter().map(|t| tunnel(t, secrets)).collect(),
            ha: self.ha.as_ref().map(|h| ha(h, secrets)),
            flow_log: self.flow_log.as_ref().map(|f| f.raw_keys()),
        }
    }

    fn port_name(&self, idx: PortIdx) -> Opt<String> {
        self.port(idx).and_then(|p| text(&p.name))
    }

    fn neighbor(&self, n: &Neighbor) -> RawNeighbor {
        RawNeighbor { port: self.port_name(n.port), ..n.raw_keys() }
    }

    fn snat(&self, s: &Snat) -> RawSnat {
        RawSnat {
            id: text(&s.id),
            port: s.port.and_then(|p| self.port_name(p)),
            cidr_block: text(&s.cidr_block),
            mapping: text(s.behavior.mapping),
            filtering: text(s.behavior.filtering),
            ..s.raw_keys()
        }
    }

    fn static_nat(&self, s: &StaticNat) -> RawStaticNat {
        RawStaticNat {
            id: text(&s.id),
            port: s.port.and_then(|p| self.port_name(p)),
            internal: text(s.internal),
            external: text(s.external),
            ..s.raw_keys()
        }
    }

    fn route(&self, r: &Route) -> RawRoute {
        let mut out = r.raw_keys();
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

fn protocol(t: &FiveTuple) -> Opt<Text> {
    match t.protocol {
        // In an IPv6 rule the word means ICMPv6.
        Some(ICMP) if t.is_ipv6() => at(Text(ICMP.to_string())),
        p => at(Text(protocol_name(p))),
    }
}

fn port(p: &Port) -> RawPort {
    RawPort {
        addresses: Port::KEYS.addresses.write(&p.addresses),
        // Without `snat` the file may not have them.
        snat_mapping: if p.snat { text(p.snat_behavior.mapping) } else { None },
        snat_filtering: if p.snat { text(p.snat_behavior.filtering) } else { None },
        // Unlimited is no key here, 0 in `[bandwidth]`.
        bandwidth: p.bandwidth.and_then(|b| number(b.0)),
        ..p.raw_keys()
    }
}

fn group(g: &Group) -> RawGroup {
    let mut out = RawGroup { id: text(&g.id), ..g.raw_keys() };
    match &g.members {
        GroupMembers::Networks(n) => out.networks = Group::KEYS.networks.write(&n.networks),
        GroupMembers::Ports(p) => out.ports = Group::KEYS.ports.write(&p.ports),
    }
    out
}

fn acl(a: &Acl) -> RawAcl {
    RawAcl { id: text(&a.id), rule: a.rules.iter().map(acl_rule).collect(), ..a.raw_keys() }
}

fn acl_rule(r: &AclRule) -> RawAclRule {
    RawAclRule {
        id: text(&r.id),
        r#type: text(r.kind),
        ip_protocol: protocol(&r.tuple),
        source_cidr: text(&r.tuple.source),
        dest_cidr: text(&r.tuple.dest),
        source_port_range: text(&r.tuple.source_ports),
        dest_port_range: text(&r.tuple.dest_ports),
        icmp_type: r.icmp.and_then(|m| at(Text(icmp_type_name(m.kind, r.tuple.is_ipv6())))),
        icmp_code: r
            .icmp
            .and_then(|m| Some(icmp_code_name(m.code?, m.kind, r.tuple.is_ipv6())))
            .and_then(|name| at(Text(name))),
        ..r.raw_keys()
    }
}

fn qos(q: &Qos) -> RawQos {
    RawQos {
        id: text(&q.id),
        car: q.cars.iter().map(qos_car).collect(),
        policy: q.policies.iter().map(qos_policy).collect(),
        ..q.raw_keys()
    }
}

fn qos_car(c: &QosCar) -> RawQosCar {
    let mut out = RawQosCar { id: text(&c.id), ..c.raw_keys() };
    match c.limit {
        CarLimit::Absolute { min, max } => {
            out.limit_type = text(LimitType::Absolute);
            out.min_bandwidth_abs = number(min);
            out.max_bandwidth_abs = number(max);
        }
        CarLimit::Percent { min, max, of } => {
            out.limit_type = text(LimitType::Percent);
            out.min_bandwidth_percent = number(min);
            out.max_bandwidth_percent = number(max);
            out.percent_source_type = text(of);
        }
    }
    out
}

fn qos_policy(p: &QosPolicy) -> RawQosPolicy {
    RawQosPolicy {
        id: text(&p.id),
        source_cidr: text(&p.tuple.source),
        dest_cidr: text(&p.tuple.dest),
        ip_protocol: protocol(&p.tuple),
        source_port_range: text(&p.tuple.source_ports),
        dest_port_range: text(&p.tuple.dest_ports),
        start_time: QosPolicy::KEYS.start_time.write(&p.start),
        end_time: QosPolicy::KEYS.end_time.write(&p.end),
        ..p.raw_keys()
    }
}

/// One port as a number.
fn ports(range: PortRange) -> String {
    if range.count() == 1 { range.first.to_string() } else { range.to_string() }
}

fn syn_cookies(c: &SynCookies) -> RawSynCookies {
    RawSynCookies { id: text(&c.id), ..c.raw_keys() }
}

fn dnat(d: &Dnat) -> RawDnat {
    let (protocol, external, internal) = match &d.service {
        DnatService::Any => ("any".to_owned(), "any".to_owned(), "any".to_owned()),
        DnatService::Port { protocol, external, internal } => {
            (protocol_name(Some(*protocol)), ports(*external), ports(*internal))
        }
        DnatService::Group { protocol, ports } => {
            let group = format!("@{}", ports.id);
            (protocol_name(Some(*protocol)), group.clone(), group)
        }
    };
    RawDnat {
        id: text(&d.id),
        r#type: text(d.kind),
        ip_protocol: at(protocol),
        external_ip: at(d.external_ip.map(|ip| ip.to_string()).unwrap_or_default()),
        external_port: at(Text(external)),
        internal_port: at(Text(internal)),
        ..d.raw_keys()
    }
}

fn secret(s: &Secret, secrets: Secrets) -> Opt<String> {
    match secrets {
        Secrets::Masked => text(SECRET_MASK),
        Secrets::Shown => at(to_hex(s.expose())),
    }
}

fn ha(h: &Ha, secrets: Secrets) -> RawHa {
    RawHa { key: h.key.as_ref().and_then(|key| secret(key, secrets)), ..h.raw_keys() }
}

fn tunnel(t: &Tunnel, secrets: Secrets) -> RawTunnel {
    let secret = |s: &Secret| secret(s, secrets);
    let mut out = RawTunnel {
        kind: text(t.encap.kind()),
        addresses: Tunnel::KEYS.addresses.write(&t.addresses),
        device_sources: Tunnel::KEYS.device_sources.write(&t.device_sources),
        sources: Tunnel::KEYS.sources.write(&t.sources),
        probe_interval: number(t.probing.interval),
        probe_loss: number(t.probing.loss),
        probe_target: t.probing.target.and_then(text),
        fec: t.fec.and_then(|_| at(true)),
        fec_window: t.fec.and_then(|f| number(f.window)),
        fec_repairs: t.fec.and_then(|f| number(f.repairs)),
        fec_delay: t.fec.and_then(|f| number(f.delay)),
        keepalive: None,
        proxy_arp: None,
        ..t.raw_keys()
    };
    // Fragments outside need it clear: it goes without saying.
    if t.fragment == FragmentAt::Outer {
        out.df = None;
    }
    match &t.encap {
        Encap::Vxlan { vni, port, udp_checksum, mac, remote_mac } => {
            out.vni = number(*vni);
            out.port = number(*port);
            out.udp_checksum = at(*udp_checksum);
            out.proxy_arp = at(t.proxy_arp);
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
