//! Links of which one stands in for another (DescribeSmartAccessGatewayHa, LinkBackupInfoList): WAN ports of different
//! priority, and leased lines that the tunnels of the network back up. Told is what is in use.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_rtnl::Tables;
use sag_southbound::{LinkBackup, RouteOrigin};

use crate::compile::{Compiled, WAN_PRIORITY, by_name, port_name, publishes};
use crate::desired::{Desired, StaticRoute};
use crate::health::Verdict;

/// Two WAN ports, the one in use and the one that waits.
const STANDBY: &str = "StandbyMode";
/// A leased line and the tunnels.
const DEDICATED_LINE: &str = "DedicatedLineBackupMode";

/// The links of this device that stand in for each other.
pub fn links(
    compiled: &Compiled,
    desired: &Desired,
    health: &BTreeMap<String, Verdict>,
    tables: &Tables,
) -> Vec<LinkBackup> {
    let running = |device: &str| tables.link_named(device).is_some_and(|l| l.running);
    wans(compiled, desired, running).into_iter().chain(lines(compiled, desired, health, running)).collect()
}

fn row(main: (&str, bool), backup: (&str, bool), kind: &str) -> LinkBackup {
    let word = |up: bool| if up { "up" } else { "down" }.to_owned();
    LinkBackup {
        main_link_id: main.0.to_owned(),
        main_link_state: word(main.1),
        backup_link_id: backup.0.to_owned(),
        backup_link_state: word(backup.1),
        level_backup_state: "ON".to_owned(),
        level_backup_type: kind.to_owned(),
    }
}

/// The WAN port that is in use, and the next one of another priority: ports of one priority share the traffic.
fn wans(compiled: &Compiled, desired: &Desired, running: impl Fn(&str) -> bool) -> Option<LinkBackup> {
    let wans = compiled.ports.iter().filter(|(_, _, role)| *role == Role::Wan);
    let mut order: Vec<_> = wans
        .map(|(name, device, _)| {
            let priority = desired.wans.get(name).and_then(|w| w.priority).unwrap_or(WAN_PRIORITY);
            (priority, name.as_str(), running(device) && !compiled.failed.contains(name))
        })
        .collect();
    order.sort_by_key(|(priority, name, _)| (*priority, by_name(name)));
    let main = order.iter().find(|(.., up)| *up).or(order.first())?;
    let backup = order.iter().find(|(priority, ..)| *priority != main.0)?;
    Some(row((main.1, main.2), (backup.1, backup.2), STANDBY))
}

/// Each leased line by which a route leads into a block of another member of the network.
fn lines(
    compiled: &Compiled,
    desired: &Desired,
    health: &BTreeMap<String, Verdict>,
    running: impl Fn(&str) -> bool,
) -> Vec<LinkBackup> {
    let Some(ccn) = &desired.ccn else { return Vec::new() };
    let tunnel_up = |member: &str| {
        let through = |gateway: &String| gateway == member || *gateway == ccn.hub;
        compiled.tunnels.iter().any(|t| through(&t.gateway) && running(&t.device))
    };
    let mut out = Vec::new();
    for (port, device, _) in compiled.ports.iter().filter(|(_, _, role)| *role == Role::Express) {
        let mut published = None;
        let mut members: Vec<&str> = Vec::new();
        for r in desired.routes.iter().filter(|r| port_name(&r.port, r.vlan) == *port) {
            let Some(net) = network(&r.destination) else { continue };
            let meets = |b: &String| network(b).is_some_and(|b| b.contains(&net) || net.contains(&b));
            let there = ccn.members.iter().filter(|m| m.blocks.iter().any(meets)).map(|m| m.gateway.as_str());
            let before = members.len();
            members.extend(there);
            if members.len() > before {
                // The line is in use as long as one of its routes is.
                published = Some(published == Some(true) || is_published(r, desired, health));
            }
        }
        let Some(published) = published else { continue };
        let line = (port.as_str(), running(device) && published);
        let overlay = (ccn.id.as_str(), members.iter().any(|m| tunnel_up(m)));
        out.push(match line.1 || !overlay.1 {
            true => row(line, overlay, DEDICATED_LINE),
            false => row(overlay, line, DEDICATED_LINE),
        });
    }
    out
}

fn network(text: &str) -> Option<Ipv4Net> {
    text.parse().ok().map(|n: Ipv4Net| n.trunc())
}

/// Whether no strategy has withdrawn the route.
fn is_published(r: &StaticRoute, desired: &Desired, health: &BTreeMap<String, Verdict>) -> bool {
    let strategy = desired.distributions.iter().find(|d| {
        d.source_type == Some(RouteOrigin::Cloud)
            && d.source.starts_with("vbr-")
            && network(&d.destination) == network(&r.destination)
    });
    strategy.is_none_or(|d| publishes(d, health))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{desired, document, run_desired};
    use sag_rtnl::Link;
    use serde_json::json;

    /// The devices eth0 to eth4 and those of tunnels, without those that have no carrier.
    fn seen(more: serde_json::Value, dead: &[&str], check: Option<Verdict>) -> Vec<(String, String, String)> {
        let wanted = desired(document(more)).expect("a document");
        let health = check.map(|v| ("hc-1".to_owned(), v)).into_iter().collect();
        let compiled = run_desired(&wanted, &health);
        let mut tables = Tables::default();
        let devices = ["eth0", "eth1", "eth3", "eth4"].map(str::to_owned).into_iter();
        for (n, device) in (1..).zip(devices.chain(compiled.tunnels.iter().map(|t| t.device.clone()))) {
            let mut link = Link::new(n, &device);
            link.running = !dead.contains(&device.as_str());
            tables.insert_link(link);
        }
        let row = |l: LinkBackup| {
            assert_eq!(l.level_backup_state, "ON");
            let id = |id: String, state: String| format!("{id} {state}");
            (
                id(l.main_link_id, l.main_link_state),
                id(l.backup_link_id, l.backup_link_state),
                l.level_backup_type,
            )
        };
        links(&compiled, &wanted, &health, &tables).into_iter().map(row).collect()
    }

    fn is(main: &str, backup: &str, kind: &str) -> Vec<(String, String, String)> {
        vec![(main.to_owned(), backup.to_owned(), kind.to_owned())]
    }

    #[test]
    fn the_wan_port_in_use_and_the_one_that_waits() {
        let with = |first: i64, second: i64| {
            json!({
                "Ports": [{"PortName": "0", "Role": "WAN"}, {"PortName": "1", "Role": "LAN"}, {"PortName": "3", "Role": "WAN"}],
                "Wan": {"0": {"IPType": "DHCP", "Priority": first}, "3": {"IPType": "DHCP", "Priority": second}},
            })
        };
        assert_eq!(seen(with(5, 20), &[], None), is("0 up", "3 up", STANDBY));
        assert_eq!(seen(with(20, 5), &[], None), is("3 up", "0 up", STANDBY));
        assert_eq!(seen(with(5, 20), &["eth0"], None), is("3 up", "0 down", STANDBY));
        assert_eq!(seen(with(5, 20), &["eth3"], None), is("0 up", "3 down", STANDBY));
        assert_eq!(seen(with(5, 20), &["eth0", "eth3"], None), is("0 down", "3 down", STANDBY));
        // They share the traffic; one does not forward; there is one.
        assert_eq!(seen(with(5, 5), &[], None), []);
        assert_eq!(seen(with(5, -1), &[], None), []);
        assert_eq!(seen(json!({}), &[], None), []);
    }

    #[test]
    fn a_leased_line_and_the_tunnels() {
        let with = |members: serde_json::Value| {
            json!({
                "StaticRoutes": [{"PortName": "3", "DestinationCidr": "10.5.0.0/16", "NextHop": "10.2.0.2"}],
                "HealthChecks": [{"HcInstanceId": "hc-1", "Type": "ICMP_ECHO"}],
                "RouteDistribution": [{"SourceType": "cloud", "RouteSource": "vbr-1", "DestCidrBlock": "10.5.0.0/16",
                    "RouteDistribution": "publish_and_revoke_on_health_fail", "HcInstanceId": "hc-1"}],
                "Ccn": {"CcnId": "ccn-1", "Members": members},
            })
        };
        let block = |block: &str| json!([{"SmartAGId": "sag-2", "CidrBlocks": [block], "Devices": []}]);
        // Without an end of its own the gateway has no tunnels: the overlay is down.
        for cidr in ["10.5.0.0/16", "10.0.0.0/8", "10.5.7.0/24"] {
            assert_eq!(
                seen(with(block(cidr)), &[], None),
                is("3 up", "ccn-1 down", DEDICATED_LINE),
                "{cidr}"
            );
        }
        assert_eq!(seen(with(block("10.6.0.0/16")), &[], None), [], "nothing stands in for it");
        let both = is("3 down", "ccn-1 down", DEDICATED_LINE);
        assert_eq!(seen(with(block("10.5.0.0/16")), &["eth3"], None), both);
        assert_eq!(seen(with(block("10.5.0.0/16")), &[], Some(Verdict::Failed)), both, "withdrawn");
    }
}
