use super::*;
use crate::compile::tests::run;
use crate::config::LocalNeighbor;
use sag_frr::Key;
use sag_rtnl::Address;
use serde_json::json;

fn link(ifindex: u32, name: &str, running: bool) -> Link {
    Link { running, ..Link::new(ifindex, name) }
}

/// eth1 is the LAN port, eth3 the leased line.
fn tables(lan_runs: bool) -> Tables {
    let mut tables = Tables::default();
    tables.insert_link(link(1, "eth1", lan_runs));
    tables.insert_link(link(3, "eth3", true));
    for (ifindex, addr, prefix_len, scope) in [
        (1, "10.1.7.1", 24, Scope::Global),
        (1, "2001:db8:7::1", 64, Scope::Global),
        (1, "fe80::1", 64, Scope::Link),
        (3, "198.51.100.130", 26, Scope::Global),
    ] {
        let addr = addr.parse().expect("address");
        tables.insert_address(Address { ifindex, addr, prefix_len, scope, ..address() });
    }
    tables
}

/// One of eth1.
fn address() -> Address {
    Address {
        ifindex: 1,
        addr: "10.1.7.1".parse().expect("address"),
        prefix_len: 24,
        scope: Scope::Global,
        secondary: false,
        peer: None,
        tentative: false,
        duplicate: false,
        deprecated: false,
    }
}

fn compiled() -> Compiled {
    run(json!({
        "RouteProtocol": "BGP",
        "Bgp": {"RouterId": "10.1.7.1", "LocalAs": 65001, "HoldTime": 9, "KeepAlive": 3},
        "Ecc": {"3": [{"Vlan": 100, "IP": "198.51.100.130", "Mask": "255.255.255.192"}]},
        "PortProtocols": {"3.100": {"RouteProtocol": "BGP", "RemoteIp": "198.51.100.129", "RemoteAs": "65002"}},
    }))
    .expect("compiles")
    .0
}

fn local(neighbors: Vec<LocalNeighbor>) -> Local {
    Local {
        mode: RoutingMode::Auto,
        dir: PathBuf::new(),
        bfd: true,
        max_prefixes: 7,
        vrrp_priority: 100,
        virtual_mac: false,
        vrrp_ipv6: Vec::new(),
        neighbors,
    }
}

fn neighbor(address: &str, remote_as: Option<u32>) -> LocalNeighbor {
    let address = address.parse().expect("address");
    LocalNeighbor { address, remote_as, key: Some(Key::new("k")), hops: 2 }
}

fn completed(local: &Local, tables: &Tables) -> (sag_frr::Bgp, Vec<Deviation>) {
    let (settings, deviations) = complete(&compiled(), &Desired::default(), &BTreeMap::new(), local, tables);
    assert!(settings.bfd);
    (settings.bgp.expect("BGP"), deviations)
}

#[test]
fn networks_of_lan_ports_are_announced_while_their_link_is_up() {
    let (bgp, _) = completed(&local(Vec::new()), &tables(true));
    let branch: Vec<String> = bgp.branch.iter().map(ToString::to_string).collect();
    assert_eq!(
        branch,
        ["10.1.7.0/24", "2001:db8:7::/64"],
        "neither link-local addresses nor the leased line"
    );
    assert_eq!(bgp.max_prefixes, 7);
    assert!(completed(&local(Vec::new()), &tables(false)).0.branch.is_empty());
}

#[test]
fn the_devices_own_file_adds_neighbors_and_keys() {
    let own = vec![
        neighbor("198.51.100.129", None),
        neighbor("2001:db8:7::9", Some(65009)),
        neighbor("203.0.113.1", Some(65010)),
        neighbor("203.0.113.2", None),
    ];
    let (bgp, _) = completed(&local(own), &tables(true));
    let rows: Vec<_> = bgp
        .neighbors
        .iter()
        .map(|n| (n.address.to_string(), n.remote_as, n.side, n.hops, n.key.is_some()))
        .collect();
    assert_eq!(
        rows,
        [
            ("198.51.100.129".to_owned(), 65002, Side::Outside, 2, true),
            ("2001:db8:7::9".to_owned(), 65009, Side::Inside, 2, true),
            ("203.0.113.1".to_owned(), 65010, Side::Outside, 2, true),
        ]
    );
}

/// FRR would refuse it, at the cost of the others' sessions.
#[test]
fn the_device_is_no_neighbor_of_its_own() {
    let own = vec![neighbor("10.1.7.1", Some(65009)), neighbor("203.0.113.1", Some(65010))];
    let (bgp, deviations) = completed(&local(own), &tables(true));
    let left: Vec<String> = bgp.neighbors.iter().map(|n| n.address.to_string()).collect();
    assert_eq!(left, ["198.51.100.129", "203.0.113.1"]);
    let own = deviations.iter().find(|d| d.object == "BGP neighbor 10.1.7.1 of agent.toml").expect("told");
    assert!(own.reason.contains("the device itself has this address"), "{own:?}");
}

#[test]
fn a_vlan_needs_a_device_of_the_kernel() {
    let mut there = tables(true);
    let (bgp, deviations) = completed(&local(Vec::new()), &there);
    assert_eq!(bgp.neighbors.len(), 1, "it comes up when there is one");
    assert_eq!(deviations.len(), 1);
    assert!(
        deviations[0].reason.contains("ip link add link eth3 name eth3.100 type vlan id 100"),
        "{deviations:?}"
    );
    there.insert_link(Link { vlan: Some(100), parent: Some(3), ..link(9, "line", true) });
    assert!(completed(&local(Vec::new()), &there).1.is_empty());
}

#[test]
fn a_device_without_the_service_says_so() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("agent.toml");
    let text = format!(
        "endpoint = \"127.0.0.1:1\"\nregion_id = \"r\"\nsmart_ag_id = \"s\"\nsmart_ag_sn = \"n\"\n[routing]\ndir = {:?}\n",
        dir.path().join("nobody")
    );
    std::fs::write(&file, text).expect("written");
    let config = Config::load(&file, |_| Some("key".into())).expect("config");
    let (said, heard) = std::sync::mpsc::channel();
    let routing = Routing::new(&config, None, move || {
        let _ = said.send(());
    });
    assert!(routing.capabilities().is_empty() && routing.deviations().is_empty());
    routing.set(compiled().routing);
    heard.recv_timeout(Duration::from_secs(10)).expect("a change");
    let deviations = routing.deviations();
    assert_eq!((deviations.len(), deviations[0].section.as_str()), (1, "Bgp"), "{deviations:?}");
}

/// An address that no host of the LAN would ask for, or that the device has for its own, is told; keepalived's own, which
/// has no network, is neither in the way nor announced.
#[test]
fn a_virtual_address_fits_its_port() {
    let compiled =
        run(json!({"Ha": {"Mode": "STATIC", "PortName": "1", "VirtualIp": "10.1.7.6"}})).expect("compiles").0;
    let own = Local { vrrp_priority: 150, virtual_mac: true, ..local(Vec::new()) };
    let with = |address: &str, tables: &Tables| {
        let mut compiled = compiled.clone();
        compiled.routing.vrrp.as_mut().expect("VRRP").address = address.parse().expect("address");
        complete(&compiled, &Desired::default(), &BTreeMap::new(), &own, tables)
    };
    let mut there = tables(true);
    there.insert_address(Address { addr: "10.1.7.6".parse().expect("address"), prefix_len: 32, ..address() });
    let (settings, deviations) = with("10.1.7.6", &there);
    assert_eq!(settings.vrrp.map(|v| (v.priority, v.virtual_mac)), Some((150, true)));
    // Addresses of IPv6 move with it if hosts are in their networks.
    there.insert_address(Address {
        addr: "2001:db8:7::1".parse().expect("address"),
        prefix_len: 64,
        ..address()
    });
    for (net, fits) in [("2001:db8:7::6/64", true), ("2001:db8:8::6/64", false)] {
        let vrrp_ipv6 = ["fe80::6/64", net].map(|a| a.parse().expect("address")).to_vec();
        let own = Local { vrrp_ipv6, virtual_mac: true, ..local(Vec::new()) };
        let (settings, deviations) = complete(&compiled, &Desired::default(), &BTreeMap::new(), &own, &there);
        assert_eq!(
            (settings.vrrp.map(|v| v.ipv6.len()), deviations.is_empty()),
            (Some(if fits { 2 } else { 0 }), fits)
        );
    }
    assert!(deviations.is_empty(), "{deviations:?}");
    assert_eq!(completed(&own, &there).0.branch.len(), 2, "no network of one address");
    for (address, why) in [("10.9.9.9", "in no network"), ("10.1.7.1", "the device itself")] {
        let (settings, deviations) = with(address, &there);
        assert!(settings.vrrp.is_none());
        assert!(deviations[0].section == "Ha" && deviations[0].reason.contains(why), "{deviations:?}");
    }
}
