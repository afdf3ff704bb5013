//! The state of the device in the words of the Describe operations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use sag_model::Role;
use sag_model::control::{
    self, Drops, Port, Ports, RouteQuery, Routes, Status, TopBy, TopGroup, TopQuery, TopRow,
};
use sag_rtnl::Tables;
use sag_southbound::{
    Announcement, Capability, Deviation, Dns, DropCount, HealthState, LinkBackup, PortRole, PortState,
    ProbeTaskState, RouteState, SessionCount, SessionLink, StateReport, Talker, TunnelState, Version,
    WanState,
};

use crate::capability::CAPABILITIES;
use crate::clock::unix_ms;
use crate::compile::Compiled;
use crate::health::State;
use crate::measure::Measured;
use crate::routing::Routing;
use crate::system::{Item, present};
use crate::vcpe::{Result, Vcpe};

/// Routes of one report; the rest is left out.
const MAX_ROUTES: u32 = 1000;
const TALKERS: u32 = 10;

/// What the last report counted, for rates.
#[derive(Default)]
pub struct Rates {
    last: Option<(Instant, u64, u64, u64)>,
}

impl Rates {
    /// Bit/s that arrived, and percent of packets dropped, since the last call.
    fn since(&mut self, bytes: u64, packets: u64, drops: u64) -> (f64, f64) {
        let now = Instant::now();
        let Some((at, b, p, d)) = self.last.replace((now, bytes, packets, drops)) else { return (0.0, 0.0) };
        // A restarted gateway counts from zero.
        if bytes < b || packets < p || drops < d {
            return (0.0, 0.0);
        }
        let seconds = now.duration_since(at).as_secs_f64().max(0.001);
        let share = if packets > p { 100.0 * (drops - d) as f64 / (packets - p) as f64 } else { 0.0 };
        (8.0 * (bytes - b) as f64 / seconds, share.min(100.0))
    }
}

/// What is known besides the gateway's own answers.
pub struct Facts<'a> {
    pub compiled: Option<&'a Compiled>,
    pub health: &'a BTreeMap<String, State>,
    pub probes: Vec<ProbeTaskState>,
    pub tables: Option<&'a Tables>,
    pub revision: Option<i64>,
    pub clock_offset: i64,
    /// For the other members of the network.
    pub announcement: Option<Announcement>,
    /// For the other device of the instance.
    pub session_link: Option<SessionLink>,
    /// Links of the device that stand in for each other.
    pub link_backup: Vec<LinkBackup>,
    /// What the operator should know of the network.
    pub network: Vec<String>,
    /// Objects that are not in force as they are.
    pub deviations: Vec<Deviation>,
    /// DNS servers in use; none if they are not known.
    pub dns: Option<Vec<IpAddr>>,
    /// For commands of the cloud.
    pub measured: Measured,
    /// How often the paths to access points are measured; none: for commands alone.
    pub access_point_interval: Option<Duration>,
    /// BGP and OSPF.
    pub routing: &'a Routing,
    /// DHCP and DNS, if the device can serve LANs.
    pub lan: Vec<Capability>,
}

/// Asks the gateway for its state.
///
/// # Errors
/// The gateway does not answer, or refuses.
pub fn state(vcpe: &Vcpe, rates: &mut Rates, facts: &Facts<'_>) -> Result<StateReport> {
    let status = vcpe.status()?;
    let ports = vcpe.ports()?;
    let drops = vcpe.drops()?;
    let routes = vcpe.routes(RouteQuery { limit: Some(MAX_ROUTES), ..RouteQuery::default() })?;
    let query =
        TopQuery { group: TopGroup::Src, by: TopBy::Bytes, limit: Some(TALKERS), ..TopQuery::default() };
    let top = vcpe.top(query)?;
    let bytes = ports.ports.iter().map(|p| p.rx_bytes).sum();
    let packets = ports.ports.iter().map(|p| p.rx_packets).sum();
    let dropped = ports.ports.iter().map(|p| p.dropped).sum();
    let (traffic, drop_share) = rates.since(bytes, packets, dropped);
    let tunnels = tunnels(vcpe, facts);
    let up = !tunnels.is_empty() && reaches_everybody(&tunnels, facts.compiled);
    let started = unix_ms() - i64::try_from(status.uptime_s).unwrap_or(0) * 1000;
    Ok(StateReport {
        version: Version::CURRENT,
        startup_time: Some(started),
        dns: facts.dns.as_deref().map(dns),
        access_point_probe: facts.measured.probe.clone(),
        access_point_qualities: facts.measured.qualities.clone(),
        access_point_interval: Some(facts.access_point_interval.map_or(0, |every| every.as_secs() as i64)),
        diagnosis: facts.measured.diagnosis.clone(),
        // Without high availability every device forwards.
        ha_state: Some(if facts.routing.is_active() { "Active" } else { "Standby" }.to_owned()),
        vpn_state: Some(if up { "Normal" } else { "Abnormal" }.to_owned()),
        ipsec_status: Some(if up { "up" } else { "down" }.to_owned()),
        enable_optimization: Some(tunnels.iter().any(|t| t.fec)),
        tunnels,
        dpi_supported: Some(false),
        capabilities: Some(capabilities(facts)),
        applied_revision: facts.revision,
        config_epoch: Some(status.config_epoch.into()),
        clock_offset: Some(facts.clock_offset),
        notices: facts.compiled.map(|c| notices(&c.notices, &facts.network)),
        deviations: Some(facts.deviations.clone()),
        wired_ports: facts.compiled.map(|c| c.wired.clone()),
        ports: port_rows(&ports),
        wans: wans(&ports, facts.tables, facts.compiled.map(|c| &c.failed)),
        routes: route_rows(&routes),
        route_neighbors: facts.routing.neighbors(facts.compiled),
        health_checks: health(facts.health),
        probe_tasks: facts.probes.clone(),
        traffic_rate: Some((traffic * 10.0).round() / 10.0),
        drop_rate: Some((drop_share * 10.0).round() / 10.0),
        top_talkers: top.rows.into_iter().map(talker).collect(),
        drops: drop_rows(drops),
        sessions: Some(sessions(&status)),
        overlay: facts.announcement.clone(),
        session_link: facts.session_link.clone(),
        link_backup: facts.link_backup.clone(),
        software_version: Some(status.version),
        monitor_version: Some(crate::VERSION.to_owned()),
        ..StateReport::default()
    })
}

/// What the device can do, with what is installed on it.
fn capabilities(facts: &Facts<'_>) -> Vec<Capability> {
    let installed = facts.routing.capabilities().into_iter().chain(facts.lan.iter().cloned());
    CAPABILITIES.into_iter().chain(installed).collect()
}

/// Deviations of one report. Their number is that of objects with mistakes; the log has them all.
const MAX_DEVIATIONS: usize = 200;

/// The longest reason that is reported: some quote what the cloud says.
const MAX_REASON: usize = 500;

/// As many as a report may have, none of them too long.
pub fn bounded(mut all: Vec<Deviation>) -> Vec<Deviation> {
    let more = all.len().saturating_sub(MAX_DEVIATIONS);
    all.truncate(MAX_DEVIATIONS);
    for text in all.iter_mut().flat_map(|d| [&mut d.object, &mut d.reason]) {
        if let Some((end, _)) = text.char_indices().nth(MAX_REASON) {
            text.truncate(end);
        }
    }
    if more > 0 {
        all.push(Deviation { object: format!("{more} more objects"), ..Deviation::default() });
    }
    all
}

/// Notices of one report; what is more is left out, and their number says so.
const MAX_NOTICES: usize = 500;

fn notices(compiled: &[String], network: &[String]) -> Vec<String> {
    let mut all: Vec<String> = network.iter().chain(compiled).cloned().collect();
    if all.len() > MAX_NOTICES {
        let more = all.len() - MAX_NOTICES;
        all.truncate(MAX_NOTICES);
        all.push(format!("and {more} more; the log of sag-agent has them"));
    }
    all
}

/// The first two, which are all that the API shows.
fn dns(servers: &[IpAddr]) -> Dns {
    let nth = |n: usize| servers.get(n).map(ToString::to_string).unwrap_or_default();
    Dns { master: nth(0), slave: nth(1) }
}

/// Whether every tunnel is up, or another one to the same device by another line.
fn reaches_everybody(tunnels: &[TunnelState], compiled: Option<&Compiled>) -> bool {
    let device = |t: &TunnelState| {
        let planned = compiled.and_then(|c| c.tunnels.iter().find(|p| p.name == t.name));
        planned.map(|p| p.peer.sn.as_str())
    };
    let up: BTreeSet<_> = tunnels.iter().filter(|t| t.state == "up").filter_map(device).collect();
    tunnels.iter().all(|t| t.state == "up" || device(t).is_some_and(|sn| up.contains(sn)))
}

/// Tunnels as the gateway shows them; none from a gateway without.
fn tunnels(vcpe: &Vcpe, facts: &Facts<'_>) -> Vec<TunnelState> {
    if facts.compiled.is_none_or(|c| c.tunnels.is_empty()) {
        return Vec::new();
    }
    let short = |t: control::Tunnel| TunnelState {
        name: t.name,
        state: t.state,
        rtt_us: t.rtt_us,
        mtu: Some(t.mtu.into()),
        fec: t.fec.is_some(),
    };
    vcpe.tunnels().unwrap_or_default().tunnels.into_iter().map(short).collect()
}

fn talker(row: TopRow) -> Talker {
    Talker {
        key: row.key,
        sessions: Some(row.sessions),
        packets: Some(row.packets),
        bytes: Some(row.bytes),
        reply_packets: Some(row.reply_packets),
        reply_bytes: Some(row.reply_bytes),
    }
}

fn drop_rows(drops: Drops) -> Vec<DropCount> {
    let counted = drops.drops.into_iter().filter(|d| d.packets > 0);
    counted
        .map(|d| DropCount { port: d.port, reason: d.reason, text: d.text, packets: Some(d.packets) })
        .collect()
}

fn sessions(s: &Status) -> SessionCount {
    SessionCount {
        ipv4: Some(s.sessions.ipv4),
        ipv6: Some(s.sessions.ipv6),
        created: Some(s.sessions.created),
    }
}

fn role(role: Role) -> PortRole {
    match role {
        Role::Wan => PortRole::Wan,
        Role::Lan => PortRole::Lan,
        Role::Express => PortRole::Ecc,
        Role::Mgmt => PortRole::Mgt,
    }
}

fn port_rows(ports: &Ports) -> Vec<PortState> {
    // VLANs of a leased line are no ports of the API.
    let whole = ports.ports.iter().filter(|p| p.vlan.is_none());
    whole
        .map(|p| PortState {
            port_name: p.name.clone(),
            role: Some(role(p.role)),
            status: if p.up { "Up" } else { "Down" }.to_owned(),
            mac: p.mac.map_or_else(String::new, |m| m.to_string()),
            rx_bytes: Some(p.rx_bytes),
            tx_bytes: Some(p.tx_bytes),
            dropped: Some(p.dropped),
        })
        .collect()
}

fn wans(ports: &Ports, tables: Option<&Tables>, failed: Option<&BTreeSet<String>>) -> Vec<WanState> {
    let leads_on = |p: &Port| p.up && !failed.is_some_and(|f| f.contains(&p.name));
    let items = tables.map(present).unwrap_or_default();
    let wan = ports.ports.iter().filter(|p| p.role == Role::Wan);
    wan.map(|p| {
        let net = p.addresses.iter().find_map(|a| if let ipnet::IpNet::V4(a) = a { Some(*a) } else { None });
        let gateway = items.iter().find_map(|i| match i {
            Item::Default { device, gateway, .. } if *device == p.device => Some(*gateway),
            _ => None,
        });
        WanState {
            port_name: p.name.clone(),
            ip: net.map_or_else(String::new, |n| n.addr().to_string()),
            mask: net.map_or_else(String::new, |n| n.netmask().to_string()),
            gateway: gateway.map_or_else(String::new, |g: Ipv4Addr| g.to_string()),
            traffic_state: if leads_on(p) { "Normal" } else { "Abnormal" }.to_owned(),
        }
    })
    .collect()
}

/// Administrative distances as routing daemons print them.
fn protocol(source: &str, protocol: &str) -> (&'static str, u32) {
    match (source, protocol) {
        ("config", _) => ("STATIC", 1),
        (_, "kernel") => ("CONNECTED", 0),
        (_, "ospf") => ("OSPF", 110),
        (_, "bgp") => ("BGP", 20),
        (_, "dhcp") => ("DHCP", 1),
        _ => ("STATIC", 1),
    }
}

/// What DescribeSagRouteList has in place of a port where a route leads into a tunnel.
const TUNNEL: &str = "-1";

fn route_rows(routes: &Routes) -> Vec<RouteState> {
    let mut out = Vec::new();
    for r in &routes.routes {
        if r.kind != "unicast" || !matches!(r.destination, ipnet::IpNet::V4(_)) {
            continue;
        }
        let (protocol, distance) = protocol(&r.source, &r.protocol);
        for hop in &r.next_hops {
            out.push(RouteState {
                destination: r.destination.to_string(),
                next_hop: hop.via.map_or_else(String::new, |v: IpAddr| v.to_string()),
                port_name: if hop.state == "tunnel" {
                    TUNNEL.into()
                } else {
                    hop.port.clone().unwrap_or_default()
                },
                cost: format!("[{distance}/{}]", r.metric),
                route_protocol: protocol.to_owned(),
                conflict_cidrs: Vec::new(),
            });
        }
    }
    out
}

fn health(states: &BTreeMap<String, State>) -> Vec<HealthState> {
    let row = |(id, s): (&String, &State)| HealthState {
        id: id.clone(),
        status: Some(s.verdict.status()),
        rtt_ms: s.rtt_ms,
        loss_percent: Some(s.loss_percent),
        problem: s.problem.clone(),
    };
    states.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_of_a_report_are_bounded_and_say_so() {
        let one = Deviation { object: "port 0".into(), reason: "é".repeat(2_000), ..Deviation::default() };
        let cut = bounded(vec![one; MAX_DEVIATIONS + 7]);
        assert_eq!((cut.len(), cut[0].reason.chars().count()), (MAX_DEVIATIONS + 1, MAX_REASON));
        assert_eq!(cut[MAX_DEVIATIONS].object, "7 more objects");
    }

    #[test]
    fn notices_of_a_report_are_bounded_and_say_so() {
        let many = |what: &str, n: usize| (0..n).map(|i| format!("{what} {i}")).collect::<Vec<_>>();
        assert_eq!(notices(&many("object", MAX_NOTICES - 1), &many("member", 1)).len(), MAX_NOTICES);
        let cut = notices(&many("object", 2_000), &many("member", 100));
        assert_eq!(cut.len(), MAX_NOTICES + 1);
        assert_eq!(
            (cut[0].as_str(), cut[100].as_str()),
            ("member 0", "object 0"),
            "the network's come first"
        );
        assert_eq!(cut[MAX_NOTICES], "and 1600 more; the log of sag-agent has them");
    }
}
