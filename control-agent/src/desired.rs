//! What the device shall do, in the agent's own words: made of the device document of the long poll or of the answers
//! of the documented operations, with defaults filled in. It is also what the last good configuration on disk holds, so
//! the names of its fields stay.

mod lenient;
mod order;
mod rows;

pub use lenient::read_document;
pub use rows::{
    AccessPoint, Acl, Bgp, Car, Ccn, Distribution, DnatEntry, Dns, DnsForward, EccInterface, Ha, HealthCheck,
    Lan, Member, Ospf, Peer, Policy, PortProtocol, Probe, Qos, Rule, SessionPeer, SnatEntry, StaticRoute,
    Tuple, Wan,
};

use std::collections::BTreeMap;

use sag_southbound::{
    Deviation, DeviceDocument, HaMode, PortRole, ProbeKind, ProbeProtocol, RouteProtocol, Switch, Wire,
    wire_field,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::sign::hash_hex;

/// What the device shall do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desired {
    /// Mbit/s of the instance; overlay and leased lines.
    pub bandwidth: Option<i64>,
    /// Mbit/s of the Internet uplink.
    pub up_bandwidth: Option<i64>,
    /// The branch's own blocks.
    pub blocks: Vec<String>,
    /// Role by port.
    pub roles: BTreeMap<String, PortRole>,
    pub wans: BTreeMap<String, Wan>,
    pub lans: BTreeMap<String, Lan>,
    pub eccs: BTreeMap<String, Vec<EccInterface>>,
    pub routes: Vec<StaticRoute>,
    /// How routes are learned.
    #[serde(deserialize_with = "wire_field")]
    pub route_protocol: Option<RouteProtocol>,
    pub bgp: Option<Bgp>,
    pub ospf: Option<Ospf>,
    pub port_protocols: Vec<PortProtocol>,
    /// The virtual address of two devices.
    pub ha: Option<Ha>,
    /// Where the links end by which sessions follow to the instance's other devices.
    pub session_peers: Vec<SessionPeer>,
    /// DNS servers of the device.
    pub dns: Option<Dns>,
    /// Domains with DNS servers of their own.
    pub dns_forwards: Vec<DnsForward>,
    #[serde(deserialize_with = "switch")]
    pub wan_snat: Option<Switch>,
    pub acls: Vec<Acl>,
    pub qos: Vec<Qos>,
    pub snat: Vec<SnatEntry>,
    pub dnat: Vec<DnatEntry>,
    pub health_checks: Vec<HealthCheck>,
    pub probes: Vec<Probe>,
    /// Addresses of the device for its probes.
    pub service_addresses: Vec<String>,
    /// Access points to which the path is measured now and then.
    pub access_points: Vec<AccessPoint>,
    /// Whether state is reported every other second.
    pub advanced_monitor: bool,
    pub distributions: Vec<Distribution>,
    /// Seconds without contact after which the device leaves its network; none: it stays.
    pub security_lock: Option<u64>,
    /// The cloud keeps it out of its network, because it was offline for too long.
    pub locked: bool,
    /// The cloud connect network that the gateway is bound to.
    pub ccn: Option<Ccn>,
    /// Things that are set and that this version does not act upon.
    pub ignored: Vec<String>,
    /// What of the document could not be read.
    pub unreadable: Vec<Deviation>,
}

/// Files of earlier versions have `true` and `false`.
fn switch<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Switch>, D::Error> {
    match Value::deserialize(d)? {
        Value::Bool(on) => Ok(Some(if on { Switch::Enable } else { Switch::Disable })),
        other => Option::from_json(other).map_err(serde::de::Error::custom),
    }
}

/// The items in the agent's words.
pub fn converted<A, B: From<A>>(items: Vec<A>) -> Vec<B> {
    items.into_iter().map(B::from).collect()
}

/// Roles of ports by name; a port without a role is not used.
pub fn roles(ports: Vec<sag_southbound::PortEntry>) -> BTreeMap<String, PortRole> {
    let named = ports.into_iter().filter(|p| !p.port_name.is_empty());
    named.map(|p| (p.port_name, p.role.unwrap_or(PortRole::None))).collect()
}

impl Desired {
    /// The health checks that this version can probe.
    pub fn known_checks(&self) -> Vec<HealthCheck> {
        let unknown = |c: &&HealthCheck| matches!(c.kind, Some(ProbeKind::Unknown(_)));
        self.health_checks.iter().filter(|c| !unknown(c)).cloned().collect()
    }

    /// Differs between different configurations, whatever their revisions.
    pub fn digest(&self) -> String {
        hash_hex(&serde_json::to_vec(self).unwrap_or_default())
    }
}

impl From<DeviceDocument> for Desired {
    fn from(doc: DeviceDocument) -> Desired {
        let ignored = ignored(&doc);
        let gateway = doc.gateway.unwrap_or_default();
        Desired {
            bandwidth: gateway.bandwidth,
            up_bandwidth: gateway.up_bandwidth_wan,
            blocks: gateway
                .cidr_block
                .split(',')
                .map(str::trim)
                .filter(|b| !b.is_empty())
                .map(Into::into)
                .collect(),
            roles: roles(doc.ports),
            wans: doc.wan.into_iter().map(|(name, w)| (name, w.into())).collect(),
            lans: doc.lan.into_iter().map(|(name, l)| (name, l.into())).collect(),
            eccs: doc.ecc.into_iter().map(|(name, lines)| (name, converted(lines))).collect(),
            routes: converted(doc.static_routes),
            route_protocol: doc.route_protocol,
            bgp: doc.bgp.map(Bgp::from),
            ospf: doc.ospf.map(Ospf::from),
            port_protocols: doc.port_protocols.into_iter().map(PortProtocol::from).collect(),
            ha: doc.ha.and_then(|ha| Ha::try_from(ha).ok()),
            session_peers: converted(doc.session_peers),
            dns: doc.dns.map(Dns::from),
            dns_forwards: converted(doc.dns_forwards),
            wan_snat: doc.wan_snat,
            acls: converted(order::by_time(doc.acls)),
            qos: converted(doc.qos),
            snat: converted(doc.snat_entries),
            dnat: converted(doc.dnat_entries),
            health_checks: converted(doc.health_checks),
            probes: doc.probe_tasks.into_iter().filter(is_known).map(Probe::from).collect(),
            service_addresses: doc.service_addresses,
            access_points: converted(doc.access_points),
            advanced_monitor: gateway.advanced_monitor == Some(true),
            distributions: converted(doc.route_distribution),
            security_lock: gateway
                .security_lock_threshold
                .and_then(|s| u64::try_from(s).ok())
                .filter(|s| *s > 0),
            locked: gateway.locked == Some(true),
            ccn: doc.ccn.map(Ccn::from),
            ignored,
            unreadable: Vec::new(),
        }
    }
}

/// Whether this version can carry the task out.
fn is_known(task: &sag_southbound::ProbeTask) -> bool {
    !matches!(task.protocol, None | Some(ProbeProtocol::Unknown(_)))
}

/// Names what is set and has no effect.
fn ignored(doc: &DeviceDocument) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |yes: bool, what: &str| {
        if yes {
            out.push(what.to_owned());
        }
    };
    let accelerated = doc.gateway.as_ref().and_then(|g| g.accelerate_bandwidth);
    note(accelerated.is_some_and(|n| n > 0), "application acceleration");
    for task in doc.probe_tasks.iter().filter(|t| !is_known(t)) {
        let word = task.protocol.as_ref().map(ProbeProtocol::as_str).unwrap_or_default();
        note(true, &format!("probe task {} with the protocol {word:?}", task.id));
    }
    let mode = doc.ha.as_ref().and_then(|ha| ha.mode.as_ref());
    if let Some(HaMode::Unknown(word)) = mode {
        note(true, &format!("high availability of the mode {word:?}"));
    }
    note(doc.flow_log.as_ref().is_some_and(|f| *f != Default::default()), "flow logs");
    note(!doc.remote_access_ip.is_empty(), "remote access");
    note(
        doc.management.as_ref().is_some_and(|m| *m != Default::default()),
        "the address of the management port",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_southbound::{AddressMode, PublishStrategy, RouteOrigin};
    use serde_json::json;

    /// A configuration that an earlier version wrote down boots the gateway after an update of the agent.
    #[test]
    fn files_of_earlier_versions_are_read() {
        let file = json!({
            "bandwidth": 50, "up_bandwidth": 20, "roles": {"0": "WAN", "4": "NONE"},
            "wans": {"0": {"ip_type": "DHCP", "ip": "", "mask": "", "gateway": "", "priority": 10, "bandwidth": null},
                "4": {"ip_type": "", "ip": "", "mask": "", "gateway": "", "priority": null, "bandwidth": null}},
            "lans": {"1": {"ip_type": "STATIC", "ip": "10.0.0.1", "mask": "255.255.255.0"}},
            "wan_snat": true,
            "health_checks": [{"id": "hc-1", "kind": "ICMP_ECHO", "dst": "192.0.2.1", "src": "192.0.2.2",
                "interval_ms": 2000, "count": 1, "timeout_ms": 1000, "rtt_ms": -1, "rtt_fails": 3, "fails": 3}],
            "distributions": [{"source_type": "local", "source": "STATIC", "destination": "10.5.0.0/16",
                "mode": "publish_and_revoke_on_health_fail", "check": "hc-1"}],
            "ccn": {"id": "ccn-1", "members": [{"gateway": "sag-2", "blocks": ["10.2.0.0/16"], "devices": [
                {"sn": "sn2", "address": "203.0.113.7", "epoch": 5, "public_key": "ab", "pop": false}]}]},
        });
        let d: Desired = serde_json::from_value(file).expect("read");
        assert_eq!(d.wan_snat, Some(Switch::Enable));
        assert_eq!((&d.roles["0"], &d.roles["4"]), (&PortRole::Wan, &PortRole::None));
        assert_eq!((&d.wans["0"].ip_type, &d.wans["4"].ip_type), (&Some(AddressMode::Dhcp), &None));
        assert_eq!(d.distributions[0].source_type, Some(RouteOrigin::Local));
        assert_eq!(d.distributions[0].mode, Some(PublishStrategy::RevokeOnHealthFail));
        assert_eq!(d.ccn.as_ref().expect("network").members[0].devices[0].epoch, 5);
        let again: Desired = serde_json::from_slice(&serde_json::to_vec(&d).expect("written")).expect("read");
        assert_eq!(again, d);
    }
}
