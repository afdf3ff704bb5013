use sag_dnsmasq::{Forward, Port, Range};
use sag_rtnl::{Address, Link};
use sag_southbound::Endpoint;

use super::*;
use crate::config::Relay;

/// Ports 1 (lan-a) and 4 (lan-b) are LAN ports; port 1 leases addresses.
fn compiled() -> LanServices {
    let range = Range::new("192.0.2.1/26".parse().expect("net"), None, None, 60).expect("range");
    let port = |name: &str, device: &str, serves| Port {
        name: name.into(),
        device: device.into(),
        serves,
        advertises: false,
        advertises_by: None,
    };
    let ports = vec![port("1", "lan-a", Some(Serves::Range(range))), port("4", "lan-b", None)];
    LanServices { ports, ..LanServices::default() }
}

fn config(dir: &Path, more: &str) -> Config {
    let text = format!(
        "endpoint = \"127.0.0.1:1\"\nregion_id = \"r\"\nsmart_ag_id = \"s\"\nsmart_ag_sn = \"n\"\n\
         access_key_id = \"id\"\naccess_key_secret = \"secret\"\nresolv_conf = \"/tmp/no-such-file\"\n{more}"
    );
    let file = dir.join("agent.toml");
    crate::files::replace(&file, text.as_bytes()).expect("written");
    Config::load(&file, |_| None).expect("a configuration")
}

/// A machine on which lan-b has two addresses.
fn tables() -> Tables {
    let mut out = Tables::default();
    out.insert_link(Link::new(7, "lan-b"));
    for (addr, prefix_len) in [("10.4.0.1", 24), ("2001:db8::1", 64)] {
        out.insert_address(Address {
            ifindex: 7,
            addr: addr.parse().expect("ip"),
            prefix_len,
            scope: Scope::Global,
            secondary: false,
            peer: None,
            tentative: false,
            duplicate: false,
            deprecated: false,
        });
    }
    out
}

#[test]
fn hosts_that_get_addresses_get_names() {
    let dir = tempfile::tempdir().expect("dir");
    let config = config(dir.path(), "");
    let (s, unmatched) = complete(&compiled(), &[], &config, None, None);
    assert!(unmatched.is_empty() && s.ping);
    let dns = s.dns.expect("a forwarder");
    assert_eq!(dns.upstream, Upstream::File("/tmp/no-such-file".into()));
    let servers: Vec<IpAddr> = vec!["192.0.2.53".parse().expect("ip")];
    let named = LanServices { servers: servers.clone(), ..compiled() };
    assert_eq!(
        complete(&named, &[], &config, None, None).0.dns.map(|d| d.upstream),
        Some(Upstream::Servers(servers))
    );
    let mut quiet = compiled();
    quiet.ports[0].serves = None;
    assert_eq!(complete(&quiet, &[], &config, None, None).0, Settings::default(), "nothing is wanted");
    // Servers of a domain are enough for a forwarder.
    quiet.forwards.push(Forward {
        id: "f".into(),
        domain: "a.example".into(),
        servers: vec![],
        device: None,
    });
    assert!(complete(&quiet, &[], &config, None, None).0.dns.is_some());
}

#[test]
fn relays_and_advertisements_of_the_devices_own_file() {
    let dir = tempfile::tempdir().expect("dir");
    let mut config = config(dir.path(), "[lan]\nadvertise = [\"4\", \"9\"]\nping = false\n");
    let relay = |port: &str, server: &str| Relay { port: port.into(), server: server.parse().expect("ip") };
    config.lan.relays = vec![relay("4", "10.9.0.1"), relay("4", "10.9.0.2"), relay("7", "10.9.0.1")];
    let (s, unmatched) = complete(&compiled(), &[], &config, Some(&tables()), None);
    let by = |n: usize| s.ports[n].serves.clone();
    let servers = ["10.9.0.1", "10.9.0.2"].map(|a| a.parse().expect("ip")).to_vec();
    assert_eq!(by(1), Some(Serves::Relay { local: "10.4.0.1".parse().expect("ip"), servers }));
    assert!(matches!(by(0), Some(Serves::Range(_))) && !s.ping);
    assert_eq!((s.ports[0].advertises, s.ports[1].advertises), (false, true));
    let named: Vec<&str> = unmatched.iter().map(|p| p.object.as_str()).collect();
    assert_eq!(named, ["router advertisements of port 9", "DHCP relay of port 7"]);
    // A port has one way of giving addresses, and the relay needs an address of the port.
    config.lan.relays = vec![relay("1", "10.9.0.1"), relay("1", "10.9.0.2")];
    let (s, unmatched) = complete(&compiled(), &[], &config, Some(&tables()), None);
    assert_eq!(s.ports[0].serves, None);
    let named: Vec<&str> = unmatched.iter().map(|p| p.object.as_str()).collect();
    assert_eq!(named[1..], ["DHCP server of port 1", "DHCP relay of port 1"]);
}

/// dnsmasq leaves both out without a word.
#[test]
fn own_servers_and_reservations_without_a_network_are_named() {
    let dir = tempfile::tempdir().expect("dir");
    let reservation = |mac: &str, address: &str| {
        format!("[[lan.reservation]]\nmac = \"02:00:00:00:00:{mac}\"\naddress = \"{address}\"\n")
    };
    let more = reservation("01", "192.0.2.9") + &reservation("02", "10.9.9.9");
    let config = config(dir.path(), &more);
    let ip = |text: &str| -> IpAddr { text.parse().expect("ip") };
    let forward = |domain: &str, server: &str| Forward {
        id: "f".into(),
        domain: domain.into(),
        servers: vec![ip(server)],
        device: None,
    };
    let own = LanServices {
        servers: vec![ip("192.0.2.53"), ip("10.4.0.1")],
        forwards: vec![forward("a.example", "2001:db8::1"), forward("b.example", "192.0.2.54")],
        ..compiled()
    };
    let (_, unmatched) = complete(&own, &[], &config, Some(&tables()), None);
    let named: Vec<(&str, &str)> =
        unmatched.iter().map(|p| (p.section.as_str(), p.object.as_str())).collect();
    assert_eq!(
        named,
        [
            ("Dns", "DNS servers"),
            ("DnsForwards", "DNS servers of a.example"),
            ("Lan", "reservation for 02:00:00:00:00:02"),
        ]
    );
    assert!(unmatched[0].reason.starts_with("10.4.0.1 is an address of the gateway itself"), "{unmatched:?}");
}

#[test]
fn a_device_says_what_it_lacks() {
    let dir = tempfile::tempdir().expect("dir");
    let config = config(
        dir.path(),
        &format!("state_dir = {:?}\n[lan]\nmode = \"off\"\ndir = {:?}\n", dir.path(), dir.path().join("run")),
    );
    let mut server = LanServer::new(&config);
    assert_eq!((server.capabilities(), may_run(&config)), (Vec::new(), false));
    server.set(&compiled(), &[], &config, None, VirtualRouters::default());
    assert!(server.tend());
    let deviations: Vec<String> = server.deviations().iter().map(ToString::to_string).collect();
    assert_eq!(deviations, ["DHCP server of port 1 is left out: agent.toml says [lan] mode = \"off\""]);
    server.set(&LanServices::default(), &[], &config, None, VirtualRouters::default());
    assert!(server.tend() && server.deviations().is_empty());
}

#[test]
fn ports_of_the_kernel() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("range");
    for (text, ports) in
        [("32768\t60999\n", Some((32768, 60999))), ("1 60999", None), ("9000 8000", None), ("x", None)]
    {
        std::fs::write(&file, text).expect("written");
        assert_eq!(local_ports(&file), ports, "{text}");
    }
    assert_eq!(local_ports(Path::new("/no/such/file")), None);
}

fn tunnel(device: &str, block: &str) -> Tunnel {
    let address = "203.0.113.7".parse().expect("ip");
    Tunnel {
        name: format!("ccn-{device}"),
        device: device.into(),
        local: "203.0.113.2".parse().expect("ip"),
        remote: "203.0.113.7".parse().expect("ip"),
        link: String::new(),
        several: false,
        gateway: "sag-2".into(),
        peer: crate::desired::Peer::default(),
        endpoint: Endpoint { address, epoch: 1, public_key: [9; 32], identity: None, lines: Vec::new() },
        blocks: vec![(block.into(), "sag-2".into())],
        unshared: Vec::new(),
        metric: 0,
        weight: 100,
    }
}

/// Each server is asked by the tunnel that leads to it, and by nothing else.
#[test]
fn servers_behind_tunnels() {
    let dir = tempfile::tempdir().expect("dir");
    let config = config(dir.path(), "");
    let server = |text: &str| -> IpAddr { text.parse().expect("ip") };
    let mut wanted = compiled();
    wanted.forwards.push(Forward {
        id: "f".into(),
        domain: "a.example".into(),
        servers: vec![server("10.2.0.53"), server("10.9.0.53")],
        device: Some(NOWHERE.into()),
    });
    wanted.tunnelled.insert("f".into());
    let seen = |tunnels: &[Tunnel], tables: Option<&Tables>| {
        let (settings, problems) = complete(&wanted, tunnels, &config, tables, None);
        let forwards = settings.dns.expect("a forwarder").forwards;
        let by: Vec<_> = forwards.iter().map(|f| (f.servers[0].to_string(), f.device.clone())).collect();
        (by, problems.iter().map(|p| p.reason.clone()).collect::<Vec<_>>())
    };
    let by = |one: &str, two: &str| {
        vec![("10.2.0.53".to_owned(), Some(one.to_owned())), ("10.9.0.53".to_owned(), Some(two.to_owned()))]
    };
    // lan-b stands for the device of a tunnel: it has an address.
    let tables = tables();
    let both = [tunnel("lan-b", "10.2.0.0/16"), tunnel("lan-b", "10.9.0.0/24")];
    assert_eq!(seen(&both, Some(&tables)), (by("lan-b", "lan-b"), vec![]));
    let (found, why) = seen(&both[..1], Some(&tables));
    assert_eq!(found, by("lan-b", NOWHERE));
    assert!(why.len() == 1 && why[0].contains("no tunnel of the network leads to 10.9.0.53"), "{why:?}");
    // The kernel has no such device any more, or its state is not known.
    let gone = [tunnel("ccn-1", "10.2.0.0/16"), tunnel("ccn-2", "10.9.0.0/24")];
    assert_eq!(seen(&gone, Some(&tables)).0, by(NOWHERE, NOWHERE));
    assert_eq!(seen(&both, None).0, by(NOWHERE, NOWHERE));
    let mut bare = Tables::default();
    bare.insert_link(Link::new(7, "lan-b"));
    let (found, why) = seen(&both, Some(&bare));
    assert_eq!(found, by(NOWHERE, NOWHERE));
    assert!(why[0].contains("no address in its blocks"), "{why:?}");
}
/// Of two devices with a virtual router of IPv6 the one that is it advertises, by the router's device.
#[test]
fn only_the_master_advertises_a_virtual_router() {
    let dir = tempfile::tempdir().expect("dir");
    let config = config(dir.path(), "[lan]\nadvertise = [\"1\", \"4\"]\n");
    for (router, by) in [
        (None, None),
        (Some(("1".to_owned(), false)), None),
        (Some(("1".to_owned(), true)), Some("sag-vrrp6")),
    ] {
        let ports = complete(&compiled(), &[], &config, None, router.clone()).0.ports;
        assert_eq!((ports[0].advertises, ports[0].advertises_by.as_deref()), (router.is_none(), by));
        assert!(ports[1].advertises && ports[1].advertises_by.is_none(), "another port");
    }
}
