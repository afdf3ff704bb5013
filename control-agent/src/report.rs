//! The state of the device in the words of the Describe operations.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use sag_model::Role;
use sag_model::control::{Drops, Op, Ports, RouteQuery, Routes, Status, Top, TopBy, TopGroup, TopQuery};
use sag_rtnl::Tables;
use serde_json::{Value, json};

use crate::capability::CAPABILITIES;
use crate::clock::unix_ms;
use crate::compile::Compiled;
use crate::health::State as HealthState;
use crate::system::{Item, present};
use crate::vcpe::{Result, Vcpe};

/// Routes of one report; what does not fit is not told.
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
    pub health: &'a BTreeMap<String, HealthState>,
    pub tables: Option<&'a Tables>,
    pub revision: Option<i64>,
    pub clock_offset: i64,
    /// For the other members of the network.
    pub announcement: Option<Value>,
}

pub fn state(vcpe: &Vcpe, rates: &mut Rates, facts: &Facts<'_>) -> Result<Value> {
    let status = vcpe.status()?;
    let ports: Ports = vcpe.call(Op::Ports)?;
    let drops: Drops = vcpe.call(Op::Drops)?;
    let routes: Routes = vcpe.call(Op::Routes(RouteQuery { covers: None, limit: Some(MAX_ROUTES) }))?;
    let query =
        TopQuery { group: TopGroup::Src, by: TopBy::Bytes, limit: Some(TALKERS), ..TopQuery::default() };
    let top: Top = vcpe.call(Op::Top(query))?;
    let bytes = ports.ports.iter().map(|p| p.rx_bytes).sum();
    let packets = ports.ports.iter().map(|p| p.rx_packets).sum();
    let dropped = ports.ports.iter().map(|p| p.dropped).sum();
    let (traffic, drop_share) = rates.since(bytes, packets, dropped);
    let now = unix_ms();
    let tunnels = tunnels(vcpe, facts);
    let up = !tunnels.is_empty() && tunnels.iter().all(|t| t["state"] == "up");
    let mut out = json!({
        "SoftwareVersion": status.version,
        "MonitorVersion": crate::VERSION,
        "StartupTime": now - i64::try_from(status.uptime_s).unwrap_or(0) * 1000,
        "VpnState": if up { "Normal" } else { "Abnormal" },
        "IpsecStatus": if up { "up" } else { "down" },
        "EnableOptimization": tunnels.iter().any(|t| t["fec"] == true),
        "Tunnels": tunnels,
        "DpiSupported": false,
        "Capabilities": CAPABILITIES,
        "AppliedRevision": facts.revision,
        "ConfigEpoch": status.config_epoch,
        "ClockOffset": facts.clock_offset,
        "Notices": facts.compiled.map(|c| &c.notices),
        "Ports": port_rows(&ports),
        "Wans": wans(&ports, facts.tables),
        "Routes": route_rows(&routes),
        "HealthChecks": health(facts.health),
        "TrafficRate": (traffic * 10.0).round() / 10.0,
        "DropRate": (drop_share * 10.0).round() / 10.0,
        "TopTalkers": top.rows,
        "Drops": drops.drops.iter().filter(|d| d.packets > 0).collect::<Vec<_>>(),
        "Sessions": sessions(&status),
    });
    if let Some(overlay) = &facts.announcement {
        out["Overlay"] = overlay.clone();
    }
    Ok(out)
}

/// Tunnels as the gateway shows them; none from a gateway without.
fn tunnels(vcpe: &Vcpe, facts: &Facts<'_>) -> Vec<Value> {
    if facts.compiled.is_none_or(|c| c.tunnels.is_empty()) {
        return Vec::new();
    }
    let said: Value = vcpe.call_named(json!({"op": "tunnels"})).unwrap_or_default();
    let short = |t: &Value| {
        json!({"name": t["name"], "state": t["state"], "rtt_us": t["rtt_us"], "mtu": t["mtu"],
            "fec": !t["fec"].is_null()})
    };
    said["tunnels"].as_array().into_iter().flatten().map(short).collect()
}

fn sessions(s: &Status) -> Value {
    json!({"Ipv4": s.sessions.ipv4, "Ipv6": s.sessions.ipv6, "Created": s.sessions.created})
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Wan => "WAN",
        Role::Lan => "LAN",
        Role::Express => "ECC",
        Role::Mgmt => "MGT",
    }
}

fn port_rows(ports: &Ports) -> Vec<Value> {
    // VLANs of a leased line are no ports of the API.
    let whole = ports.ports.iter().filter(|p| p.vlan.is_none());
    whole
        .map(|p| {
            json!({"PortName": p.name, "Role": role(p.role), "Status": if p.up { "Up" } else { "Down" },
                "Mac": p.mac.map_or_else(String::new, |m| m.to_string()),
                "RxBytes": p.rx_bytes, "TxBytes": p.tx_bytes, "Dropped": p.dropped})
        })
        .collect()
}

fn wans(ports: &Ports, tables: Option<&Tables>) -> Vec<Value> {
    let items = tables.map(present).unwrap_or_default();
    ports
        .ports
        .iter()
        .filter(|p| p.role == Role::Wan)
        .map(|p| {
            let net =
                p.addresses.iter().find_map(|a| if let ipnet::IpNet::V4(a) = a { Some(*a) } else { None });
            let gateway = items.iter().find_map(|i| match i {
                Item::Default { device, gateway, .. } if *device == p.device => Some(*gateway),
                _ => None,
            });
            json!({"PortName": p.name,
                "IP": net.map_or_else(String::new, |n| n.addr().to_string()),
                "Mask": net.map_or_else(String::new, |n| n.netmask().to_string()),
                "Gateway": gateway.map_or_else(String::new, |g: Ipv4Addr| g.to_string()),
                "TrafficState": if p.up { "Normal" } else { "Abnormal" }})
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

fn route_rows(routes: &Routes) -> Vec<Value> {
    let mut out = Vec::new();
    for r in &routes.routes {
        if r.kind != "unicast" || !matches!(r.destination, ipnet::IpNet::V4(_)) {
            continue;
        }
        let (protocol, distance) = protocol(&r.source, &r.protocol);
        for hop in &r.next_hops {
            out.push(json!({
                "DestinationCidr": r.destination.to_string(),
                "NextHop": hop.via.map_or_else(String::new, |v: IpAddr| v.to_string()),
                "PortName": hop.port.clone().unwrap_or_default(),
                "Cost": format!("[{distance}/{}]", r.metric),
                "RouteProtocol": protocol,
                "ConflictCidrs": [],
            }));
        }
    }
    out
}

fn health(states: &BTreeMap<String, HealthState>) -> Vec<Value> {
    let row = |(id, s): (&String, &HealthState)| {
        json!({"HcInstanceId": id, "Status": s.verdict.word(), "Rtt": s.rtt_ms, "Loss": s.loss_percent,
            "Problem": s.problem})
    };
    states.iter().map(row).collect()
}
