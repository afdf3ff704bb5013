//! Fixed answers against the tables they must become. To see new output after a deliberate
//! change: `UPDATE_GOLDEN=1 cargo test -p sagctl`, then read the difference.

use super::*;
use sag_model::control::*;
use serde_json::json;
use std::path::PathBuf;

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Renders at three widths and compares.
fn golden(name: &str, render: impl Fn(&Page) -> String) {
    let mut have = String::new();
    for width in [80, 100, 120] {
        let text = render(&Page { width, color: false });
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{name}: over {width}: {line}");
            assert_eq!(line, line.trim_end(), "{name}");
        }
        have.push_str(&format!("--- {width} columns\n{text}"));
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/render/golden/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &have).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(have == want, "{name} differs from {}:\n{have}", path.display());
    let colored = render(&Page { width: 100, color: true });
    let bare = render(&Page { width: 100, color: false });
    assert_eq!(strip(&colored), bare, "{name}: colours change more than colours");
}

fn strip(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        out.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    out + rest
}

#[test]
fn routing_of_both_protocols() {
    let status: sag_frr::Status = from(json!({
        "Version": "0.1.0", "Installed": {"Bgp": true, "Ospf": true, "Missing": []},
        "Daemons": [
            {"Name": "zebra", "Pid": 4101, "Restarts": 0, "Problem": ""},
            {"Name": "bgpd", "Pid": null, "Restarts": 3, "Problem": "it has ended (signal 9) and is started again"},
        ],
        "Vrrp": {"Port": "1", "Device": "lan-a", "Address": "192.0.2.6", "Router": 6, "Priority": 100, "State": "MASTER"},
        "Neighbors": [
            {"Protocol": "BGP", "Address": "198.51.100.129", "RemoteAs": 65002, "State": "Established", "Up": true,
                "Since": 3725, "Received": 1_200_000, "Sent": 2, "Bfd": "up"},
            {"Protocol": "BGP", "Address": "2001:db8:100:200:300:400:500:1", "RemoteAs": 4_200_000_000u32,
                "State": "Idle (PfxCt)", "Up": false, "Received": 0, "Sent": 0},
            {"Protocol": "OSPF", "Address": "192.0.2.10", "Device": "lan-a", "RouterId": "192.0.2.10",
                "State": "Full/Backup", "Up": true, "Since": 61},
        ],
        "Routes": [{"Family": 4, "Source": "ebgp", "Known": 1_200_000, "Installed": 1_199_998},
            {"Family": 6, "Source": "connected", "Known": 3, "Installed": 3}],
        "Problems": [{"Section": "PortProtocols", "Object": "BGP neighbor 192.0.2.9 of port 1",
            "Reason": "RemoteAs 0 is reserved (RFC 7607); use 1..4294967295"}],
    }));
    golden("routing", |page| routing(&status, page));
    let none: sag_frr::Status = from(json!({"Installed": {"Missing": ["frr", "frr-pythontools"]}}));
    let said = routing(&none, &Page { width: 80, color: false });
    assert_eq!(said, "no routing protocol is in use\nmissing packages: frr, frr-pythontools\n");
}

#[test]
fn addresses_and_names_of_lans() {
    let status: sag_dnsmasq::Status = from(json!({
        "Version": "0.1.0", "Daemon": {"Name": "dnsmasq", "Pid": 4101, "Restarts": 2, "Problem": ""},
        "Ports": [
            {"Port": "1", "Device": "lan-a", "Dhcp": "server", "Addresses": "192.168.100.100-192.168.100.200",
                "Lease": 43200, "Leases": 2, "Room": 101, "Advertises": true},
            {"Port": "4", "Device": "lan-b", "Dhcp": "relay", "Addresses": "10.9.0.1 10.9.0.2"},
            {"Port": "5", "Device": "lan-c", "Dhcp": "", "Addresses": ""},
        ],
        "Leases": [
            {"Address": "192.168.100.101", "Mac": "02:00:00:00:00:01", "Name": "", "Expires": 0, "Port": "1"},
            {"Address": "192.168.100.102", "Mac": "02:00:00:00:00:02", "Name": "laptop-of-somebody", "Expires": 8600, "Port": "1"},
        ],
        "Forwards": true, "Servers": ["192.0.2.53", "2001:db8::53"], "ServersFile": "",
        "Domains": [{"Domain": "corp.example", "Servers": ["10.9.0.53", "10.9.0.54"], "Device": ""},
            {"Domain": "*.lab.example", "Servers": ["2001:db8:100:200:300:400:500:54"], "Device": "wan"}],
        "Problems": [{"Section": "Lan", "Object": "DHCP server of port 5", "Reason": "192.0.2.70 is no address of a host in 192.0.2.0/26"},
            {"Section": "DnsForwards", "Object": "DNS servers of far.example", "Reason": "port 7 has no network device or no role"}],
    }));
    golden("dhcp", |page| dhcp(&status, 5000, page));
    golden("dns", |page| dns(&status, page));
    let page = Page { width: 80, color: false };
    let none = sag_dnsmasq::Status::default();
    assert_eq!(dhcp(&none, 0, &page), "no LAN port gives addresses\n");
    assert_eq!(dns(&none, &page), "no names are looked up for the LANs\n");
    let missing: sag_dnsmasq::Status = from(json!({"Unable": "not installed: dnsmasq-base",
        "Problems": [{"Section": "Dns", "Object": "DNS servers", "Reason": "not installed: dnsmasq-base"}]}));
    let said = "dnsmasq: not installed: dnsmasq-base\n\nproblem: DNS servers: not installed: dnsmasq-base\n";
    assert_eq!(dns(&missing, &page), said);
    let down: sag_dnsmasq::Status =
        from(json!({"Daemon": {"Pid": null, "Problem": "it has ended (code 2)"}}));
    assert_eq!(dhcp(&down, 0, &page), "dnsmasq: does not run: it has ended (code 2)\n");
    let file: sag_dnsmasq::Status = from(json!({"Forwards": true, "ServersFile": "/etc/resolv.conf"}));
    assert_eq!(dns(&file, &page), "servers: those of /etc/resolv.conf\n");
}

fn a_status(factor: u64) -> Status {
    from(json!({
        "version": "0.1.0", "pid": 4242, "uptime_s": 273_600, "config_epoch": 7,
        "config_file": "/etc/sag/vcpe.toml", "config_applied": "2026-03-01T12:34:56Z",
        "workers": [
            {"id": 0, "cpu": 0, "batches": 10_000, "packets": 320_000 * factor, "busy_percent": 12.34},
            {"id": 1, "cpu": null, "batches": 0, "packets": 0, "busy_percent": 0.0},
        ],
        "sessions": {"ipv4": 12_345, "ipv6": 12, "capacity_ipv4": 1_048_576, "capacity_ipv6": 131_072,
            "created": 99_123 * factor, "evicted": 7, "memory_bytes": 83_886_080},
        "fastpath_packets": 123_456_789 * factor, "punted_packets": 320_000 * factor,
        "punts": [{"reason": "miss", "packets": 300_000}, {"reason": "stale-epoch", "packets": 20_000},
            {"reason": "fragment", "packets": 0}],
        "warnings": ["[[qos]] qos-1 is read but not enforced by this version of sag-vcpe, traffic is not limited by it at all"],
        "deviations": [
            {"section": "StaticRoutes", "object": "static route 224.0.0.0/8 by port 3", "effect": "left-out",
             "reason": "a multicast destination"},
            {"section": "Lan", "object": "port 4", "effect": "partial", "reason": "no device \u{1b}[2J"},
        ],
    }))
}

fn some_ports(factor: u64) -> Ports {
    from(json!({"ports": [
        {"name": "0", "device": "eth1", "vlan": 100, "role": "lan", "up": true, "mac": "02:00:00:00:00:01", "mtu": 1500,
         "addresses": ["192.168.1.1/24", "2001:db8:1::1/64"],
         "capability": "veth, 2 queues, native XDP, AF_XDP copy (the driver has no zero-copy), headroom 256, MTU 1500, tx checksum offload is on: turn it off on the far end",
         "xdp_mode": "native", "xsk_mode": "copy", "queues": 2,
         "rx_packets": 123_456_789 * factor, "rx_bytes": 98_765_432_100u64 * factor, "tx_packets": 1_234, "tx_bytes": 99_999,
         "forwarded": 123_000_000 * factor, "to_kernel": 6_789, "held": 3, "dropped": 449_997 * factor, "originated": 17,
         "punted": 1_000_000 * factor, "fast": 122_456_789 * factor},
        {"name": "1", "device": "eth0", "vlan": null, "role": "wan", "up": false, "mac": null, "mtu": 9000, "addresses": [],
         "capability": "no such device yet; waiting for it", "xdp_mode": "none", "xsk_mode": "none", "queues": 0,
         "rx_packets": 0, "rx_bytes": 0, "tx_packets": 0, "tx_bytes": 0, "forwarded": 0, "to_kernel": 0, "held": 0,
         "dropped": 0, "originated": 0, "punted": 0, "fast": 0},
    ]}))
}

fn some_drops(factor: u64) -> Drops {
    use sag_model::DropReason::*;
    Drops {
        drops: vec![
            DropRow::new("0", TtlExpired, 12 * factor),
            DropRow::new("0", AclDenied, 1_234_567 * factor),
            DropRow::new("0", NoRoute, 0),
            DropRow::new("1", Ip6RoutingHeader0, 1),
        ],
    }
}

#[test]
fn status_tables() {
    golden("status", |p| status(&a_status(1), None, p));
    let then = a_status(1);
    golden("status-watch", |p| status(&a_status(2), Some(Before { then: &then, seconds: 2.0 }), p));
}

#[test]
fn port_tables() {
    golden("ports", |p| ports(&some_ports(1), None, p));
    let then = some_ports(1);
    golden("ports-watch", |p| ports(&some_ports(2), Some(Before { then: &then, seconds: 2.0 }), p));
    assert_eq!(ports(&Ports::default(), None, &Page { width: 80, color: false }), "no ports configured\n");
}

#[test]
fn drop_tables() {
    golden("drops", |p| drops(&some_drops(1), None, p));
    let then = some_drops(1);
    golden("drops-watch", |p| drops(&some_drops(3), Some(Before { then: &then, seconds: 2.0 }), p));
    assert_eq!(drops(&Drops::default(), None, &Page { width: 80, color: false }), "nothing was dropped\n");
}

#[test]
fn a_counter_that_was_reset_has_no_rate() {
    let then = some_drops(3);
    let text =
        drops(&some_drops(1), Some(Before { then: &then, seconds: 1.0 }), &Page { width: 100, color: false });
    assert!(text.lines().skip(1).all(|l| l.split_whitespace().nth(3) == Some("0")), "{text}");
}

#[test]
fn acl_tables() {
    let rule = |id: &str, policy: &str, ports: &str, hits: u64, last: Option<u64>| {
        json!({"id": id, "direction": "out", "type": "LAN", "policy": policy, "ip_protocol": "tcp",
            "source_cidr": "192.168.1.0/24", "dest_cidr": "10.20.0.0/16", "source_port_range": "-1/-1",
            "dest_port_range": ports, "priority": 1, "hits": hits, "bytes": hits * 64, "last_hit_s": last})
    };
    let report: AclReport = from(json!({
        "acls": [
            {"id": "acl-1", "rules": [rule("acr-1", "drop", "80/443", 1_234_567, Some(12)),
                rule("acr-2", "accept", "22/22", 0, None)]},
            {"id": "acl-2", "rules": [{"id": "acr-bp1i64lv6sxq2hkey6", "direction": "in", "type": "WAN", "policy": "accept",
                "ip_protocol": "all", "source_cidr": "2001:db8:aaaa:bbbb::/64", "dest_cidr": "2001:db8:cccc:dddd::/64",
                "source_port_range": "-1/-1", "dest_port_range": "-1/-1", "priority": 100, "hits": 5, "bytes": 500,
                "last_hit_s": 90_000}]},
        ],
        "default": "accept",
        "findings": [{"kind": "shadowed", "acl": "acl-1", "rule": "acr-2", "by": ["acr-1"],
            "witness": "tcp 192.168.1.1:1 > 10.20.0.1:22", "text": "acr-1 takes every packet that this rule would match"}],
    }));
    golden("acl", |p| acl(&report, p));
    let empty = acl(&AclReport::default(), &Page { width: 80, color: false });
    assert_eq!(empty, "no ACL is bound: everything is accepted\n");
}

#[test]
fn route_tables() {
    let hop = |via: Option<&str>, port: Option<&str>, state: &str| json!({"via": via, "port": port, "device": "eth0", "mac": "02:00:00:00:00:09", "state": state, "weight": 1});
    let answer: Routes = from(json!({"total": 5000, "routes": [
        {"destination": "0.0.0.0/0", "type": "unicast", "protocol": "bgp", "metric": 20, "source": "kernel",
         "next_hops": [hop(Some("203.0.113.1"), Some("1"), "reachable"), hop(Some("203.0.113.5"), Some("1"), "failed")]},
        {"destination": "192.168.1.0/24", "type": "unicast", "protocol": "kernel", "metric": 0, "source": "kernel",
         "next_hops": [{"via": null, "port": "0", "device": "eth1", "mac": null, "state": "", "weight": 1}]},
        {"destination": "10.20.0.0/16", "type": "unicast", "protocol": "static", "metric": 0, "source": "config",
         "next_hops": [hop(Some("192.168.1.254"), None, "stale")]},
        {"destination": "2001:db8:dead:beef::/64", "type": "blackhole", "protocol": "static", "metric": 1024,
         "source": "kernel", "next_hops": []},
    ]}));
    golden("routes", |p| routes(&answer, p));
    let more = Routes { next: Some("10.0.0.0/8@a".parse().unwrap()), ..answer };
    let shown = routes(&more, &Page { width: 80, color: false });
    assert!(shown.ends_with("of 5,000 routes; more: --after 10.0.0.0/8@a\n"), "{shown}");
    assert_eq!(routes(&Routes::default(), &Page { width: 80, color: false }), "no route\n");
}

#[test]
fn session_tables() {
    let answer: Sessions = from(json!({"total": 1_000_000, "sessions": [
        {"family": 4, "proto": "tcp", "src": "192.168.100.200", "sport": 54_321, "dst": "198.51.100.200", "dport": 443,
         "nat_src": "203.0.113.2", "nat_sport": 1024, "nat_dst": null, "nat_dport": null, "state": "established",
         "age_s": 3700, "idle_s": 2, "packets": 1_000_000, "bytes": 64_000_000, "reply_packets": 2_000_000,
         "reply_bytes": 3_000_000_000u64, "in_port": "0", "out_port": "1", "rule": "acr-1"},
        {"family": 4, "proto": "icmp", "src": "192.168.1.7", "sport": 77, "dst": "198.51.100.1", "dport": 0,
         "nat_src": null, "nat_sport": null, "nat_dst": "192.168.9.9", "nat_dport": null, "state": "assured",
         "age_s": 5, "idle_s": 0, "packets": 5, "bytes": 420, "reply_packets": 5, "reply_bytes": 420,
         "in_port": "0", "out_port": "1", "rule": null},
        {"family": 6, "proto": "udp", "src": "2001:db8:1111:2222:3333:4444:5555:6666", "sport": 5000,
         "dst": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "dport": 53, "nat_src": null, "nat_sport": null,
         "nat_dst": null, "nat_dport": null, "state": "unreplied", "age_s": 1, "idle_s": 1, "packets": 1, "bytes": 80,
         "reply_packets": 0, "reply_bytes": 0, "in_port": "0", "out_port": "1", "rule": null},
    ]}));
    golden("sessions", |p| sessions(&answer, p));
    let ipv4 = Sessions { sessions: answer.sessions[..2].to_vec(), total: 2 };
    golden("sessions-ipv4", |p| sessions(&ipv4, p));
    assert_eq!(session_count(&answer), "1000000\n");
    assert_eq!(flushed(&Flushed { flushed: 1 }), "1 session flushed\n");
    assert_eq!(flushed(&Flushed { flushed: 1234 }), "1,234 sessions flushed\n");
}

#[test]
fn nat_tables() {
    let entry = |id: &str, kind: &str, external: &str, internal: &str, behaviour: Option<(&str, &str)>| {
        let r#type = if kind == "dnat" { Some("Internet") } else { None };
        let protocol = if kind == "dnat" { "tcp" } else { "any" };
        json!({"id": id, "kind": kind, "type": r#type, "protocol": protocol, "external": external, "internal": internal,
            "mapping": behaviour.map(|b| b.0), "filtering": behaviour.map(|b| b.1), "sessions": 12_345, "hits": 98_765_432u64})
    };
    let ports = |used: u32| json!({"used": used, "capacity": 64_512, "peak": used + 1});
    let pool = |address: &str, source: &str, exhausted: u64| {
        json!({"address": address, "source": source,
        "mapping": "endpoint-independent", "filtering": "address-dependent", "tcp": ports(12_345), "udp": ports(0),
        "icmp": ports(64_511), "exhausted": exhausted, "filtered": 1_234_567, "warned": exhausted > 0})
    };
    let answer: Nat = from(json!({
        "entries": [
            entry("port 1", "wan-snat", "203.0.113.200", "0.0.0.0/0", Some(("endpoint-independent", "address-dependent"))),
            entry("port 2", "wan-snat", "", "0.0.0.0/0", Some(("address-dependent", "endpoint-independent"))),
            entry("snat-bp1i64lv6sxq2hkey6", "snat", "10.99.0.1", "192.168.100.0/24",
                Some(("address-and-port-dependent", "address-and-port-dependent"))),
            entry("fwd-1", "dnat", "203.0.113.200:8000-8010", "192.168.100.200:8000-8010", None),
        ],
        "pools": [pool("203.0.113.200", "port 1", 0), pool("10.99.0.1", "snat-bp1i64lv6sxq2hkey6,snat-2", 17)],
        "totals": {"bindings": 76_857, "hosts": 1, "host_limit": 4096, "host_limit_hits": 3, "evicted": 0,
            "hairpinned": 5, "log_lost": 1},
    }));
    golden("nat", |p| nat(&answer, p));
    let page = Page { width: 80, color: false };
    assert_eq!(nat(&Nat::default(), &page), "no NAT is configured\n");
    let unlimited = nat(&Nat { totals: NatTotals::default(), ..answer }, &page);
    assert!(unlimited.contains("; no limit of sessions a host;"), "{unlimited}");
}

#[test]
fn nat_binding_tables() {
    let answer: NatBindings = from(json!({"total": 64_513, "bindings": [
        {"protocol": "tcp", "inside": "192.168.100.200", "inside_port": 54_321, "outside": "203.0.113.200",
         "outside_port": 54_321, "sessions": 1_234, "mapping": "endpoint-independent"},
        {"protocol": "icmp", "inside": "192.168.1.7", "inside_port": 77, "outside": "203.0.113.200",
         "outside_port": 1024, "sessions": 1, "mapping": "address-and-port-dependent"},
    ]}));
    golden("nat-bindings", |p| nat_bindings(&answer, p));
    assert_eq!(nat_binding_count(&answer), "64513\n");
    let mut answer = answer;
    answer.bindings[1].vrf = Some("shop".into());
    golden("nat-bindings-vrf", |p| nat_bindings(&answer, p));
    assert_eq!(nat_bindings(&NatBindings::default(), &Page { width: 80, color: false }), "no binding\n");
}

#[test]
fn nat_mapping_tables() {
    let answer: NatMappings = from(json!({"answered": 1_234, "refused": 17, "mappings": [
        {"kind": "map", "protocol": "tcp", "inside": "192.168.100.200", "inside_port": 443, "outside": "203.0.113.200",
         "outside_port": 44_443, "remote": ["198.51.100.0/24", "198.51.101.7/32:5060"], "lifetime": 86_399},
        {"kind": "nat-pmp", "protocol": "udp", "inside": "192.168.1.7", "inside_port": 77, "outside": "203.0.113.200",
         "outside_port": 1024, "remote": [], "lifetime": 7},
    ]}));
    golden("nat-mappings", |p| nat_mappings(&answer, p));
    let none = "no host has a port on request; 0 requests answered, 0 of them refused\n";
    assert_eq!(nat_mappings(&NatMappings::default(), &Page { width: 80, color: false }), none);
}

#[test]
fn tunnels_table() {
    let tunnel = |name: &str, state: &str, remote: &str, n: u64| {
        json!({"name": name, "kind": "vxlan", "state": state, "local": "203.0.113.2", "remote": remote, "port": "1",
        "mtu": 1450, "mtu_configured": null, "path_mtu_learned": if n > 9 { Some(1500) } else { None }, "overhead": 50,
        "remote_mac": "02:00:00:00:00:01", "rx_packets": n, "rx_bytes": n * 900, "tx_packets": 2 * n,
        "tx_bytes": n * 1800, "drops": n / 1000})
    };
    let answer: Tunnels = from(json!({"tunnels": [
        tunnel("pop-frankfurt-1", "up", "198.51.100.9", 123_456),
        tunnel("pop2", "no-path", "2001:db8:ffff:ffff::9", 3),
    ]}));
    golden("tunnels", |p| tunnels(&answer, None, p));
    let mut answer = answer;
    answer.tunnels.truncate(1);
    answer.tunnels[0].fec = from(json!({"window": 10, "repairs": 2, "delay_ms": 20, "repairs_sent": 24_690,
        "overhead_bytes": 30_123_456, "recovered": 6_012, "unrecoverable": 7}));
    golden("tunnels-fec", |p| tunnels(&answer, None, p));
    let page = Page { width: 80, color: false };
    assert_eq!(tunnels(&Tunnels::default(), None, &page), "no tunnel is configured\n");
}

#[test]
fn qos_tables() {
    let counters = |n: u64| {
        json!({"passed_bytes": n, "over_ceiling_bytes": n / 9, "over_link_bytes": n / 90,
        "rate_bps": n * 8 / 20})
    };
    let answer: Qos = from(json!({
        "links": [
            {"link": "internet", "direction": "up", "limit_bps": 50_000_000u64, "passed_bytes": 123_456_789,
             "over_ceiling_bytes": 0, "over_link_bytes": 4_321, "rate_bps": 49_987_654},
            {"link": "port uplink-of-the-branch", "direction": "down", "limit_bps": 1_000_000_000u64,
             "passed_bytes": 0, "over_ceiling_bytes": 0, "over_link_bytes": 0, "rate_bps": 0},
        ],
        "cars": [
            {"qos": "qos-1", "id": "qoscar-xitd8690ucu8ro4711", "name": "voice", "priority": 1, "limit": "Absolute",
             "floor_bps": 2_000_000, "ceiling_bps": 6_000_000, "burst_ms": 200, "up": counters(15_000_000),
             "down": counters(900)},
            {"qos": "qos-1", "id": "bulk", "name": null, "priority": 7, "limit": "10..60 % of CcnBandwidth",
             "floor_bps": 0, "ceiling_bps": null, "burst_ms": 200, "up": counters(0), "down": counters(0)},
        ],
        "policies": [
            {"qos": "qos-1", "id": "qospy-1", "name": null, "priority": 1, "car": "qoscar-xitd8690ucu8ro4711",
             "ip_protocol": "udp", "source_cidr": "192.168.1.0/24", "dest_cidr": "0.0.0.0/0",
             "source_port_range": "-1/-1", "dest_port_range": "5000/5999", "start_time": "2026-01-01T00:00:00Z",
             "end_time": null, "active": false},
        ],
    }));
    golden("qos", |p| qos(&answer, None, p));
    let page = Page { width: 80, color: false };
    assert_eq!(qos(&Qos::default(), None, &page), "no bandwidth is limited and no QoS is configured\n");
}

#[test]
fn top_tables() {
    let answer = |n: u64| -> Top {
        from(json!({"group": "src", "by": "bytes", "total": 3, "rows": [
            {"key": "192.168.1.7", "sessions": 12, "packets": 1_000_000 * n, "bytes": 1_500_000_000 * n,
             "reply_packets": 500_000 * n, "reply_bytes": 32_000_000 * n},
            {"key": if n == 1 { "192.168.1.8" } else { "192.168.1.9" }, "sessions": 1, "packets": 1, "bytes": 60,
             "reply_packets": 0, "reply_bytes": 0},
        ]}))
    };
    golden("top", |p| top(&answer(1), None, p));
    let then = answer(1);
    golden("top-watch", |p| top(&answer(2), Some(Before { then: &then, seconds: 2.0 }), p));
}

#[test]
fn explanations() {
    let forwarded: Explain = from(json!({
        "verdict": "forward", "reason": null, "out_port": "1",
        "stages": [
            {"stage": "parse", "result": "pass", "detail": "IPv4 TCP, 40 bytes"},
            {"stage": "route", "result": "match", "detail": "0.0.0.0/0 via 203.0.113.1 on eth0"},
            {"stage": "acl", "result": "match", "detail": "acl-1/acr-1 accept, priority 1, which a long explanation follows to fill the line and more"},
        ],
        "rewritten": {"src": "203.0.113.2", "dst": "198.51.100.7", "sport": 1024, "dport": 443, "ttl": 63,
            "src_mac": "02:00:00:00:00:01", "dst_mac": "02:00:00:00:00:02", "vlan": 7},
    }));
    golden("explain-forward", |p| explain(&forwarded, p));
    let dropped: Explain = from(json!({
        "verdict": "drop", "reason": "acl-denied", "out_port": null, "rewritten": null,
        "stages": [{"stage": "acl", "result": "drop", "detail": "acl-1/acr-1"}],
    }));
    golden("explain-drop", |p| explain(&dropped, p));
}

#[test]
fn configurations() {
    let shown = ConfigShow { text: "[dataplane]\nflows = 1".into(), ..ConfigShow::default() };
    assert_eq!(show_text(&shown), "[dataplane]\nflows = 1\n");
    let applied = ConfigApplied { epoch: 8, changed: true, warnings: vec!["w".into()] };
    golden("config-apply", |p| config_applied(&applied, "vcpe.toml", p));
    golden("config-same", |p| {
        config_applied(&ConfigApplied { epoch: 8, ..ConfigApplied::default() }, "vcpe.toml", p)
    });
    let change = |path: &str, old: Option<&str>, new: Option<&str>| Change {
        path: path.into(),
        old: old.map(Into::into),
        new: new.map(Into::into),
    };
    let changes = vec![
        change("acl[acl-1].rule[acr-1].policy", Some("\"drop\""), Some("\"accept\"")),
        change("bandwidth.ccn", None, Some("100")),
        change("snat[snat-1]", Some("{ id = \"snat-1\" }"), None),
    ];
    golden("config-diff", |p| config_diff(&ConfigDiff { changes: changes.clone(), warnings: vec![] }, p));
    assert_eq!(config_diff(&ConfigDiff::default(), &Page { width: 80, color: false }), "no change\n");
}

fn show_text(c: &ConfigShow) -> String {
    config_show(c)
}
