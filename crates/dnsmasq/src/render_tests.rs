use super::*;
use crate::settings::{Forward, Port, Reservation};

fn port(name: &str, device: &str, serves: Option<Serves>, advertises: bool) -> Port {
    Port { name: name.into(), device: device.into(), serves, advertises, advertises_by: None }
}

fn range(net: &str) -> Option<Serves> {
    Some(Serves::Range(Range::new(net.parse().expect("net"), None, None, 60).expect("range")))
}

fn forward(domain: &str, servers: &[&str], device: Option<&str>) -> Forward {
    let servers = servers.iter().map(|s| s.parse().expect("address")).collect();
    Forward { id: "dnsf-1".into(), domain: domain.into(), servers, device: device.map(Into::into) }
}

/// Everything there is.
fn everything() -> Settings {
    let relay = Serves::Relay {
        local: "10.4.0.1".parse().expect("address"),
        servers: vec!["10.9.0.1".parse().expect("address"), "10.9.0.2".parse().expect("address")],
    };
    Settings {
        ports: vec![
            port("1", "lan-a", range("10.1.0.1/24"), true),
            port("4", "lan-b", Some(relay), false),
            port("5", "lan-c.7", None, false),
        ],
        dns: Some(Dns {
            upstream: Upstream::Servers(vec![
                "192.0.2.53".parse().expect("address"),
                "2001:db8::53".parse().expect("address"),
            ]),
            forwards: vec![
                forward("Corp.example", &["10.9.0.53", "10.9.0.54"], None),
                forward("*.lab.example", &["2001:db8::54"], Some("wan")),
            ],
        }),
        domain: "branch.example".into(),
        reservations: vec![
            Reservation {
                mac: "02:00:00:00:00:AB".into(),
                address: "10.1.0.9".parse().expect("address"),
                name: "printer".into(),
            },
            Reservation {
                mac: "02:00:00:00:00:ac".into(),
                address: "10.1.0.10".parse().expect("address"),
                name: String::new(),
            },
        ],
        ping: true,
        local_ports: Some((32768, 60999)),
        virtual_router: Some(VirtualRouter {
            device: "lan-a".into(),
            address: "10.1.0.254".parse().expect("address"),
            by: None,
        }),
    }
}

/// Lines about the addresses of the first port, with this address of two gateways.
fn with_virtual_router(device: &str, address: &str) -> Vec<String> {
    let mut settings = everything();
    settings.virtual_router =
        Some(VirtualRouter { device: device.into(), address: address.parse().expect("address"), by: None });
    let all = files_in(Path::new("/run/x"), &settings).main;
    let about = |l: &&str| {
        l.starts_with("dhcp-range=10.")
            || l.starts_with("dhcp-option=")
            || l.starts_with("no-dhcpv4-interface=lan-a")
    };
    all.lines().filter(about).map(str::to_owned).collect()
}

/// Hosts go by it and ask it for names, and none gets it.
#[test]
fn a_virtual_address_is_the_router_of_its_port() {
    let options =
        |a: &str| ["router", "dns-server"].map(|what| format!("dhcp-option=tag:lan-a,option:{what},{a}"));
    let part = |first: &str, last: &str| format!("dhcp-range={first},{last},255.255.255.0,60m");
    let [router, dns] = options("10.1.0.254");
    assert_eq!(with_virtual_router("lan-a", "10.1.0.254"), [part("10.1.0.1", "10.1.0.253"), router, dns]);
    let [router, dns] = options("10.1.0.6");
    assert_eq!(
        with_virtual_router("lan-a", "10.1.0.6"),
        [part("10.1.0.1", "10.1.0.5"), part("10.1.0.7", "10.1.0.254"), router, dns]
    );
    let whole = part("10.1.0.1", "10.1.0.254");
    for (device, address) in [("lan-b", "10.1.0.6"), ("lan-a", "10.7.0.6")] {
        assert_eq!(with_virtual_router(device, address), [whole.as_str()], "another port or network");
    }
}

#[test]
fn a_range_of_the_virtual_address_alone_serves_nobody() {
    let mut settings = everything();
    let only = "10.1.0.254".parse().ok();
    let range = Range::new("10.1.0.1/24".parse().expect("net"), only, only, 60).expect("range");
    settings.ports[0].serves = Some(Serves::Range(range));
    let all = files_in(Path::new("/run/x"), &settings).main;
    assert!(all.contains("\nno-dhcpv4-interface=lan-a\n") && !all.contains("dhcp-range=10.1."), "{all}");
}

fn files_in(dir: &Path, settings: &Settings) -> Rendered {
    render(
        settings,
        &Files {
            servers: &dir.join("servers"),
            hosts: &dir.join("hosts"),
            leases: &dir.join("leases"),
            pid: &dir.join("pid"),
        },
    )
}

const MAIN: &str = "\
# Written by sag-agent for the LAN ports of the gateway; changes are lost.
keep-in-foreground
log-facility=-
pid-file=/x/pid
no-hosts
bind-dynamic
except-interface=lo
interface=lan-a
interface=lan-b
interface=lan-c.7
no-resolv
servers-file=/x/servers
domain-needed
cache-size=4096
dns-forward-max=1000
fast-dns-retry=1000,6000
min-port=32768
max-port=60999
dhcp-authoritative
quiet-dhcp
dhcp-leasefile=/x/leases
dhcp-lease-max=10000
dhcp-hostsfile=/x/hosts
dhcp-name-match=set:wpad,wpad
dhcp-ignore-names=tag:wpad
domain=branch.example
dhcp-range=10.1.0.1,10.1.0.253,255.255.255.0,60m
dhcp-option=tag:lan-a,option:router,10.1.0.254
dhcp-option=tag:lan-a,option:dns-server,10.1.0.254
dhcp-relay=10.4.0.1,10.9.0.1
dhcp-relay=10.4.0.1,10.9.0.2
no-dhcpv4-interface=lan-c.7
enable-ra
quiet-ra
quiet-dhcp6
ra-param=lan-a,60,1800
dhcp-range=::,constructor:lan-a,ra-stateless,64,45m
no-dhcpv6-interface=lan-b
no-dhcpv6-interface=lan-c.7
";

#[test]
fn the_files_of_everything() {
    let (good, problems) = checked(&everything());
    assert!(problems.is_empty(), "{problems:?}");
    let out = files_in(Path::new("/x"), &good);
    assert_eq!(out.main, MAIN);
    assert_eq!(
        out.servers,
        "server=192.0.2.53\nserver=2001:db8::53\nserver=/corp.example/10.9.0.53\n\
         server=/corp.example/10.9.0.54\nserver=/*.lab.example/2001:db8::54@wan\n"
    );
    assert_eq!(out.hosts, "02:00:00:00:00:ab,10.1.0.9,printer\n02:00:00:00:00:ac,10.1.0.10\n");
}

/// Only devices of LAN ports are served, and nothing that is not wanted is in the file.
#[test]
fn what_is_not_wanted_is_not_served() {
    let lines = |s: &Settings| files_in(Path::new("/x"), s).main;
    let dns = Dns { upstream: Upstream::File("/etc/resolv.conf".into()), forwards: Vec::new() };
    let ports = vec![port("1", "lan-a", None, false)];
    let names = lines(&Settings { ports: ports.clone(), dns: Some(dns), ..Settings::default() });
    assert!(names.contains("\nresolv-file=/etc/resolv.conf\n") && !names.contains("no-resolv"), "{names}");
    assert!(!names.contains("dhcp") && !names.contains("enable-ra") && !names.contains("port=0"), "{names}");
    let relayed = Serves::Relay { local: "10.1.0.1".parse().expect("ip"), servers: Vec::new() };
    let relay =
        lines(&Settings { ports: vec![port("1", "lan-a", Some(relayed), false)], ..Settings::default() });
    assert!(relay.contains("\nport=0\n") && relay.contains("\nno-ping\n"), "{relay}");
    assert!(Settings { ports, ..Settings::default() }.is_off());
}

/// No word of others ends its line, or means more than it is.
#[test]
fn nothing_is_smuggled_in() {
    let mut s = everything();
    let dns = s.dns.as_mut().expect("DNS");
    dns.forwards.push(forward("a.example/192.0.2.1\nserver=/b", &["192.0.2.9"], None));
    dns.forwards.push(forward("c.example", &["192.0.2.9"], Some("wan#5353")));
    dns.forwards.push(forward("d.example", &[], None));
    s.ports.push(port("6", "lan d", range("10.6.0.1/24"), false));
    s.reservations[0].name = "a,set:b".into();
    s.reservations[1].mac = "02:00:00:00:00:ac,ignore".into();
    s.domain = "a b".into();
    let (good, problems) = checked(&s);
    let named: Vec<&str> = problems.iter().map(|p| p.section.as_str()).collect();
    assert_eq!(named, ["Lan", "DnsForwards", "DnsForwards", "DnsForwards"]);
    assert!(good.reservations.is_empty() && good.domain.is_empty());
    let (clean, out) = (files_in(Path::new("/x"), &everything()), files_in(Path::new("/x"), &good));
    assert_eq!((&out.servers, out.hosts.as_str()), (&clean.servers, ""));
    assert_eq!(out.main, MAIN.replace("domain=branch.example\n", ""));
}

/// What is made is what dnsmasq reads.
#[test]
fn dnsmasq_accepts_the_files() {
    let Some(program) = crate::program() else { return eprintln!("SKIP: dnsmasq is not installed") };
    let dir = tempfile::tempdir().expect("dir");
    let mut plain = everything();
    plain.dns = None;
    for settings in [everything(), plain] {
        let out = files_in(dir.path(), &settings);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        write("main", &out.main);
        write("servers", &out.servers);
        write("hosts", &out.hosts);
        let conf = format!("--conf-file={}", dir.path().join("main").display());
        let done = std::process::Command::new(&program).args(["--test", &conf]).output().expect("run");
        assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), out.main);
    }
}

/// A virtual router advertises by its own device, and the port by itself does not.
#[test]
fn a_virtual_router_advertises_by_its_device() {
    let mut settings = Settings { ports: vec![port("1", "lan-a", None, false)], ..Settings::default() };
    settings.ports[0].advertises_by = Some("sag-vrrp6".into());
    assert!(!settings.is_off());
    let main = files_in(Path::new("/x"), &settings).main;
    for line in [
        "interface=sag-vrrp6",
        "dhcp-leasefile=/x/leases",
        "no-dhcpv6-interface=lan-a",
        "ra-param=sag-vrrp6,60,1800",
        "dhcp-range=::,constructor:sag-vrrp6,ra-stateless,64,45m",
    ] {
        assert!(main.lines().any(|l| l == line), "{line} in {main}");
    }
    assert!(!main.contains("constructor:lan-a"));
}

/// A virtual address with a device of its own is asked for names there, and for addresses at the port.
#[test]
fn a_virtual_address_is_served_on_its_device() {
    let mut settings = everything();
    let device = "lan-a".into();
    let address = "10.1.0.254".parse().expect("address");
    settings.virtual_router = Some(VirtualRouter { device, address, by: Some("sag-vrrp4".into()) });
    let main = files_in(Path::new("/x"), &settings).main;
    for line in ["interface=sag-vrrp4", "no-dhcpv4-interface=sag-vrrp4", "no-dhcpv6-interface=sag-vrrp4"] {
        assert!(main.lines().any(|l| l == line), "{line} in {main}");
    }
}
