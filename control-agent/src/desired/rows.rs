//! The entries of [`Desired`](super::Desired), and how they are made of those of the device document.

use sag_southbound as wire;
use sag_southbound::{
    AddressMode, ProbeKind, ProbeProtocol, PublishStrategy, RouteOrigin, RouteProtocol, Secret, wire_field,
};
use serde::{Deserialize, Serialize};

use crate::clock;

use super::converted;

macro_rules! rows {
    ($($name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty,)* })*) => { $(
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$meta])* pub $field: $kind,)* }
    )* };
}

rows! {
    Wan {
        #[serde(deserialize_with = "wire_field")]
        ip_type: Option<AddressMode>,
        ip: String,
        mask: String,
        gateway: String,
        priority: Option<i64>,
        weight: Option<i64>,
        bandwidth: Option<i64>,
        /// For PPPoE.
        username: String,
        password: Secret,
    }
    Lan {
        #[serde(deserialize_with = "wire_field")]
        ip_type: Option<AddressMode>,
        ip: String,
        mask: String,
        /// First and last address that is served, and minutes of a lease.
        start_ip: String,
        end_ip: String,
        lease: String,
    }
    Dns { master: String, slave: String, }
    DnsForward {
        id: String,
        /// `*.` in front stands for every name below it.
        domain: String,
        master: String,
        slave: String,
        /// `Tunnel`, `PhysicalPort` or empty.
        by: String,
        /// The port that queries leave by; empty: as routes say.
        port: String,
    }
    EccInterface { vlan: i64, ip: String, mask: String, }
    StaticRoute { port: String, vlan: i64, destination: String, next_hop: String, }
    Bgp {
        router_id: String,
        local_as: Option<i64>,
        hold_time: Option<i64>,
        keep_alive: Option<i64>,
    }
    Ospf {
        router_id: String,
        area_id: Option<i64>,
        dead_time: Option<i64>,
        hello_time: Option<i64>,
        /// In capitals.
        authentication: String,
        md5_key_id: Option<i64>,
        md5_key: Secret,
        password: Secret,
    }
    PortProtocol {
        port: String,
        /// 0: the whole port.
        vlan: i64,
        #[serde(deserialize_with = "wire_field")]
        protocol: Option<RouteProtocol>,
        remote_ip: String,
        remote_as: String,
    }
    Acl { id: String, rules: Vec<Rule>, }
    Rule {
        id: String,
        direction: String,
        kind: String,
        policy: String,
        priority: Option<i64>,
        tuple: Tuple,
        /// Whether it asks for deep packet inspection.
        dpi: bool,
    }
    Tuple { protocol: String, source: String, dest: String, source_ports: String, dest_ports: String, }
    Qos { id: String, cars: Vec<Car>, policies: Vec<Policy>, }
    Car {
        id: String,
        priority: i64,
        limit_type: String,
        min_abs: Option<i64>,
        max_abs: Option<i64>,
        min_percent: Option<i64>,
        max_percent: Option<i64>,
        source: Option<String>,
    }
    Policy {
        id: String,
        priority: i64,
        tuple: Tuple,
        start: Option<String>,
        end: Option<String>,
        /// Whether it asks for deep packet inspection.
        dpi: bool,
    }
    SnatEntry { id: String, cidr: String, ip: String, }
    DnatEntry {
        id: String,
        kind: String,
        protocol: String,
        external_ip: String,
        external_port: String,
        internal_ip: String,
        internal_port: String,
    }
    HealthCheck {
        id: String,
        #[serde(deserialize_with = "wire_field")]
        kind: Option<ProbeKind>,
        dst: String,
        src: String,
        interval_ms: i64,
        count: i64,
        timeout_ms: i64,
        rtt_ms: i64,
        rtt_fails: i64,
        fails: i64,
    }
    AccessPoint { id: i64, address: String, }
    Probe {
        id: String,
        #[serde(deserialize_with = "wire_field")]
        protocol: Option<ProbeProtocol>,
        /// Name or address; of HTTP the URL.
        destination: String,
        port: Option<i64>,
        /// A minute.
        packets: i64,
        /// Empty: the kernel's choice.
        source: String,
    }
    Ccn {
        id: String,
        /// The instance that is the hub, as the owner of the network says.
        hub: String,
        members: Vec<Member>,
    }
    Member { gateway: String, blocks: Vec<String>, devices: Vec<Peer>, }
    Peer {
        sn: String,
        address: String,
        epoch: u64,
        public_key: String,
        /// Says of itself that it is a hub, to a cloud before version 1.2 of the protocol; it makes none.
        pop: bool,
        identity: String,
        signature: String,
        lines: Vec<wire::AnnouncedLine>,
        lines_signature: String,
    }
    SessionPeer {
        sn: String,
        address: String,
        public_key: String,
        identity: String,
        signature: String,
    }
    Distribution {
        #[serde(deserialize_with = "wire_field")]
        source_type: Option<RouteOrigin>,
        source: String,
        destination: String,
        #[serde(deserialize_with = "wire_field")]
        mode: Option<PublishStrategy>,
        check: Option<String>,
    }
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

impl From<wire::Wan> for Wan {
    fn from(w: wire::Wan) -> Wan {
        let wire::Wan { ip_type, ip, mask, gateway, priority, weight, bandwidth, username, password, .. } = w;
        Wan { ip_type, ip, mask, gateway, priority, weight, bandwidth, username, password }
    }
}

impl From<wire::Lan> for Lan {
    fn from(l: wire::Lan) -> Lan {
        let wire::Lan { ip_type, ip, mask, start_ip, end_ip, lease } = l;
        Lan { ip_type, ip, mask, start_ip, end_ip, lease }
    }
}

impl From<wire::Dns> for Dns {
    fn from(d: wire::Dns) -> Dns {
        Dns { master: d.master, slave: d.slave }
    }
}

impl From<wire::DnsForward> for DnsForward {
    fn from(f: wire::DnsForward) -> DnsForward {
        let index = f.outbound_port_index.map(|n| n.to_string()).unwrap_or_default();
        DnsForward {
            port: if f.outbound_port_name.is_empty() { index } else { f.outbound_port_name },
            id: f.id,
            domain: f.domain,
            master: f.master,
            slave: f.slave,
            by: f.outbound_port_type,
        }
    }
}

impl From<wire::LeasedLine> for EccInterface {
    fn from(l: wire::LeasedLine) -> EccInterface {
        EccInterface { vlan: l.vlan.unwrap_or(0), ip: l.ip, mask: l.mask }
    }
}

impl From<wire::StaticRoute> for StaticRoute {
    fn from(r: wire::StaticRoute) -> StaticRoute {
        let wire::StaticRoute { port_name, vlan, destination, next_hop } = r;
        StaticRoute { port: port_name, vlan: vlan.unwrap_or(0), destination, next_hop }
    }
}

impl From<wire::Bgp> for Bgp {
    fn from(b: wire::Bgp) -> Bgp {
        let wire::Bgp { router_id, local_as, hold_time, keep_alive } = b;
        Bgp { router_id, local_as, hold_time, keep_alive }
    }
}

impl From<wire::Ospf> for Ospf {
    fn from(o: wire::Ospf) -> Ospf {
        let wire::Ospf { router_id, area_id, dead_time, hello_time, md5_key_id, md5_key, password, .. } = o;
        let authentication = o.authentication_type.to_ascii_uppercase();
        Ospf { router_id, area_id, dead_time, hello_time, authentication, md5_key_id, md5_key, password }
    }
}

/// By the port's name, with a dot and the VLAN for one of a leased line.
impl From<(String, wire::PortProtocol)> for PortProtocol {
    fn from((name, p): (String, wire::PortProtocol)) -> PortProtocol {
        let (port, of_name) = name.split_once('.').unwrap_or((&name, ""));
        PortProtocol {
            vlan: p.vlan.or_else(|| of_name.parse().ok()).unwrap_or(0),
            port: port.to_owned(),
            protocol: p.route_protocol,
            remote_ip: p.remote_ip,
            remote_as: p.remote_as,
        }
    }
}

/// A virtual address of a LAN port (ModifySagHa, STATIC). In the mode DYNAMIC routes move by BGP or OSPF, and there is
/// nothing more to do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ha {
    pub port: String,
    pub virtual_ip: String,
}

impl TryFrom<wire::HighAvailability> for Ha {
    type Error = ();

    fn try_from(ha: wire::HighAvailability) -> Result<Ha, ()> {
        match ha.mode {
            Some(wire::HaMode::Static) => Ok(Ha { port: ha.port_name, virtual_ip: ha.virtual_ip }),
            _ => Err(()),
        }
    }
}

impl From<wire::SessionPeer> for SessionPeer {
    fn from(p: wire::SessionPeer) -> SessionPeer {
        let wire::SessionLink { address, public_key, identity, signature } = p.link;
        SessionPeer { sn: p.smart_ag_sn, address, public_key, identity, signature }
    }
}

impl From<wire::Acl> for Acl {
    fn from(a: wire::Acl) -> Acl {
        Acl { id: a.id, rules: converted(a.rules) }
    }
}

fn dpi(groups: &Option<Vec<String>>, signatures: &Option<Vec<String>>) -> bool {
    [groups, signatures].into_iter().flatten().any(|ids| !ids.is_empty())
}

const ALL_PORTS: &str = "-1/-1";

impl From<wire::AclRule> for Rule {
    fn from(r: wire::AclRule) -> Rule {
        Rule {
            dpi: dpi(&r.dpi_group_ids, &r.dpi_signature_ids),
            id: r.id,
            direction: r.direction.to_ascii_lowercase(),
            kind: or(r.kind, "LAN").to_ascii_uppercase(),
            policy: r.policy.to_ascii_lowercase(),
            priority: r.priority,
            tuple: Tuple {
                protocol: r.ip_protocol.to_ascii_lowercase(),
                source: r.source_cidr,
                dest: r.dest_cidr,
                source_ports: or(r.source_port_range, ALL_PORTS),
                dest_ports: or(r.dest_port_range, ALL_PORTS),
            },
        }
    }
}

impl From<wire::Qos> for Qos {
    fn from(q: wire::Qos) -> Qos {
        Qos { id: q.id, cars: converted(q.cars), policies: converted(q.policies) }
    }
}

impl From<wire::QosCar> for Car {
    fn from(c: wire::QosCar) -> Car {
        Car {
            id: c.id,
            priority: c.priority.unwrap_or(0),
            limit_type: c.limit_type,
            min_abs: c.min_bandwidth_abs,
            max_abs: c.max_bandwidth_abs,
            min_percent: c.min_bandwidth_percent,
            max_percent: c.max_bandwidth_percent,
            source: some(c.percent_source_type),
        }
    }
}

impl From<wire::QosPolicy> for Policy {
    fn from(p: wire::QosPolicy) -> Policy {
        Policy {
            dpi: dpi(&p.dpi_group_ids, &p.dpi_signature_ids),
            id: p.id,
            priority: p.priority.unwrap_or(0),
            tuple: Tuple {
                protocol: p.ip_protocol.to_ascii_lowercase(),
                source: p.source_cidr,
                dest: p.dest_cidr,
                source_ports: or(p.source_port_range, ALL_PORTS),
                dest_ports: or(p.dest_port_range, ALL_PORTS),
            },
            start: moment(p.start_time),
            end: moment(p.end_time),
        }
    }
}

/// A time as text, or milliseconds since 1970; 0 is none.
fn moment(text: String) -> Option<String> {
    match text.parse::<i64>() {
        Ok(0) => None,
        Ok(ms) => Some(clock::rfc3339(ms.div_euclid(1000)).unwrap_or(text)),
        Err(_) => some(text),
    }
}

impl From<wire::SnatEntry> for SnatEntry {
    fn from(s: wire::SnatEntry) -> SnatEntry {
        SnatEntry { id: s.id, cidr: s.cidr_block, ip: s.snat_ip }
    }
}

impl From<wire::DnatEntry> for DnatEntry {
    fn from(d: wire::DnatEntry) -> DnatEntry {
        DnatEntry {
            id: d.id,
            kind: or(d.kind, "Intranet"),
            protocol: d.ip_protocol.to_ascii_lowercase(),
            external_ip: d.external_ip,
            external_port: d.external_port,
            internal_ip: d.internal_ip,
            internal_port: d.internal_port,
        }
    }
}

impl From<wire::HealthCheck> for HealthCheck {
    fn from(h: wire::HealthCheck) -> HealthCheck {
        HealthCheck {
            id: h.id,
            kind: h.kind,
            dst: h.dst_ip,
            src: h.src_ip,
            interval_ms: h.probe_interval.unwrap_or(2000),
            count: h.probe_count.unwrap_or(1),
            timeout_ms: h.probe_timeout.unwrap_or(1000),
            rtt_ms: h.rtt_threshold.unwrap_or(-1),
            rtt_fails: h.rtt_fail_threshold.unwrap_or(3),
            fails: h.fail_count_threshold.unwrap_or(3),
        }
    }
}

impl From<wire::AccessPoint> for AccessPoint {
    fn from(p: wire::AccessPoint) -> AccessPoint {
        AccessPoint { id: p.id, address: p.address }
    }
}

impl From<wire::ProbeTask> for Probe {
    fn from(p: wire::ProbeTask) -> Probe {
        let wire::ProbeTask { id, protocol, destination, port, packet_number, source, .. } = p;
        Probe { id, protocol, destination, port, packets: packet_number.unwrap_or(10), source }
    }
}

impl From<wire::DistributionRule> for Distribution {
    fn from(d: wire::DistributionRule) -> Distribution {
        Distribution {
            source_type: d.origin,
            source: d.route_source,
            destination: d.destination,
            mode: d.strategy,
            check: some(d.health_check),
        }
    }
}

/// What a network says in which the members do not reach each other.
const APART: &str = "disable";

impl From<wire::CloudConnectNetwork> for Ccn {
    fn from(c: wire::CloudConnectNetwork) -> Ccn {
        // Clouds before 1.3 list the members all the same.
        if c.interworking_status.eq_ignore_ascii_case(APART) {
            return Ccn { id: c.id, ..Ccn::default() };
        }
        Ccn { id: c.id, hub: c.hub, members: converted(c.members) }
    }
}

impl From<wire::NetworkMember> for Member {
    fn from(m: wire::NetworkMember) -> Member {
        Member { gateway: m.smart_ag_id, blocks: m.cidr_blocks, devices: converted(m.devices) }
    }
}

impl From<wire::PeerDevice> for Peer {
    fn from(p: wire::PeerDevice) -> Peer {
        let wire::PeerDevice {
            smart_ag_sn,
            address,
            epoch,
            public_key,
            pop,
            identity,
            signature,
            lines,
            lines_signature,
        } = p;
        let (epoch, pop) = (epoch.unwrap_or(0), pop.unwrap_or(false));
        Peer { sn: smart_ag_sn, address, epoch, public_key, pop, identity, signature, lines, lines_signature }
    }
}
