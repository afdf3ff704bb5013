//! The gateways of the kit are those that a configuration would make: the same packets meet the same fate.

use sag_compile::{ClockReading, Compiler, NextHopTable, SharedRecords};
use sag_model::config::{self, Timestamp};
use sag_model::{Nanos, PortIdx};
use sag_pipeline::qos::MeterTable;
use sag_pipeline::snapshot::Snapshot;
use sag_testkit::*;
use std::fmt::Write as _;
use std::time::Duration;

/// [`Net::branch`], its neighbors apart.
const BRANCH: &str = r#"
[timeouts]
tcp_syn = 30

[[port]]
name = "lan"
device = "eth0"
role = "lan"
mac = "02:00:00:00:01:00"
addresses = ["192.168.1.1/24", "2001:db8:1::1/64", "fe80::1/64"]

[[port]]
name = "wan"
device = "eth1"
role = "wan"
mac = "02:00:00:00:01:01"
addresses = ["203.0.113.2/24", "2001:db8:2::2/64", "fe80::2/64"]
SNAT

[[port]]
name = "line"
device = "eth2"
role = "express"
mac = "02:00:00:00:01:02"
addresses = ["192.0.2.2/24", "2001:db8:3::2/64", "fe80::3/64"]

[[port]]
name = "lan2"
device = "eth0"
vlan = 100
role = "lan"
mac = "02:00:00:00:01:03"
addresses = ["192.168.2.1/24", "2001:db8:4::1/64"]

[[route]]
destination = "0.0.0.0/0"
next_hop = "203.0.113.1"

[[route]]
destination = "::/0"
next_hop = "2001:db8:2::1"

[[route]]
destination = "10.20.0.0/16"
next_hop = "192.0.2.1"

[[route]]
destination = "2001:db8:20::/48"
next_hop = "2001:db8:3::1"
"#;

const NEIGHBORS: [(&str, PortIdx, &str); 12] = [
    ("lan", LAN, "192.168.1.10"),
    ("lan", LAN, "192.168.1.11"),
    ("lan", LAN, "2001:db8:1::10"),
    ("lan", LAN, "2001:db8:1::11"),
    ("lan2", LAN2, "192.168.2.10"),
    ("lan2", LAN2, "192.168.2.11"),
    ("lan2", LAN2, "2001:db8:4::10"),
    ("lan2", LAN2, "2001:db8:4::11"),
    ("wan", WAN, "203.0.113.1"),
    ("wan", WAN, "2001:db8:2::1"),
    ("line", LINE, "192.0.2.1"),
    ("line", LINE, "2001:db8:3::1"),
];

/// What [`Net::translating`] has besides.
const TRANSLATING: &str = r#"
[nat]
host_sessions = 6

[[snat]]
cidr_block = "192.168.0.0/16"
snat_ip = "192.0.2.77"
mapping = "endpoint-independent"
filtering = "endpoint-independent"

[[dnat]]
type = "Internet"
ip_protocol = "tcp"
external_ip = ""
external_port = "80"
internal_ip = "192.168.1.10"
internal_port = "1000"

[[dnat]]
type = "Internet"
ip_protocol = "any"
external_ip = "203.0.113.50"
external_port = "any"
internal_ip = "192.168.1.11"
internal_port = "any"

[[dnat]]
type = "Intranet"
ip_protocol = "any"
external_ip = "192.0.2.50"
external_port = "any"
internal_ip = "192.168.2.10"
internal_port = "any"

[[static_nat]]
internal = "2001:db8:1::/64"
external = "2001:db8:f1::/64"

[[static_nat]]
internal = "192.168.2.0/24"
external = "198.18.2.0/24"
"#;

/// [`acl`] as a configuration has it. A rule of the kit that names no address is two here.
const ACL: &str = r#"
[dataplane]
acl_default = "drop"

[[acl]]
[[acl.rule]]
direction = "out"
type = "WAN"
policy = "accept"
ip_protocol = "udp"
source_cidr = "0.0.0.0/0"
dest_cidr = "0.0.0.0/0"
dest_port_range = "53/80"

[[acl.rule]]
direction = "out"
type = "WAN"
policy = "accept"
ip_protocol = "udp"
source_cidr = "::/0"
dest_cidr = "::/0"
dest_port_range = "53/80"

[[acl.rule]]
direction = "out"
type = "LAN"
policy = "accept"
ip_protocol = "all"
source_cidr = "192.168.1.0/24"
dest_cidr = "0.0.0.0/0"

[[acl.rule]]
direction = "in"
type = "WAN"
policy = "accept"
ip_protocol = "tcp"
source_cidr = "198.51.100.0/24"
dest_cidr = "0.0.0.0/0"
source_port_range = "1000/65535"
"#;

fn acl() -> Acl {
    use sag_pipeline::policy::Class;
    Acl::new(false)
        .rule(Class::OutWan, true, "17 * * * 53-80")
        .rule(Class::OutLan, true, "* 192.168.1.0/24 * * *")
        .rule(Class::InWan, true, "6 198.51.100.0/24 * 1000-65535 *")
}

/// The compiler's snapshot of a configuration and no kernel, over the tables of a rig.
fn compiled(text: &str, snat: bool, rig: &Rig) -> Snapshot {
    let mut text = text.replace("SNAT", if snat { "snat = true" } else { "" });
    for (name, port, ip) in NEIGHBORS {
        let mac = host_mac(port, ip);
        write!(text, "\n[[neighbor]]\nport = \"{name}\"\naddress = \"{ip}\"\nmac = \"{mac}\"\n")
            .expect("text");
    }
    let config = config::parse(&text, "branch.toml").unwrap_or_else(|e| panic!("{e}")).config;
    let mut records = SharedRecords {
        nexthops: NextHopTable::private(64),
        nat: rig.pipe.tables.nat.clone(),
        meters: MeterTable::private(),
    };
    let clock = ClockReading { monotonic: Nanos::from_secs(1), wall: Timestamp(1_800_000_000) };
    let plan = Compiler::new(&records, Default::default()).compile(&config, &Default::default(), 1, clock);
    assert!(plan.problems.is_empty(), "{:?}", plan.problems);
    records.apply(&plan.records, clock.monotonic);
    plan.snapshot
}

/// Random packets and pauses, through the kit's gateway and through the configuration's.
fn same(net: impl Fn() -> Net, text: &str, snat: bool) {
    let mut forwarded = 0;
    for seed in 0..20 {
        let mut rigs = [Rig::new(net()), Rig::new(net())];
        rigs[1].snap = compiled(text, snat, &rigs[1]);
        let [kit, configured] = &rigs.each_ref().map(|r| &r.snap);
        assert!(kit.same_local(configured));
        assert_eq!(kit.options, configured.options);
        assert_eq!(kit.ingress, configured.ingress);
        let mut d = Rng::new(seed);
        if snat {
            d.about_nat();
        }
        for r in &mut rigs {
            r.pipe.seed(seed);
        }
        for n in 0..500 {
            let (dev, frame) = d.frame();
            let pause = if d.once_in(50) { d.pause() } else { Duration::from_micros(50) };
            let [a, b] = &mut rigs;
            for r in [&mut *a, &mut *b] {
                r.now = r.now + pause;
                r.poll();
            }
            let (kit, configured) = (a.frame(dev, &frame), b.frame(dev, &frame));
            assert_eq!(kit, configured, "seed {seed}, packet {n}: {frame:02x?}");
            assert_eq!(a.emitted(), b.emitted(), "seed {seed}, packet {n}: {frame:02x?}");
            assert_eq!(a.requests(), b.requests(), "seed {seed}, packet {n}");
            forwarded += usize::from(kit.is_tx());
        }
        assert_eq!(rigs[0].sessions(), rigs[1].sessions());
    }
    assert!(forwarded > 500, "only {forwarded} of 10,000 packets were forwarded");
}

#[test]
fn the_branch() {
    same(Net::branch, BRANCH, false);
}

#[test]
fn the_branch_with_nat() {
    let net = || {
        let mut n = Net::translating();
        n.nat.drops_unsolicited = true;
        n
    };
    same(net, &format!("{BRANCH}{TRANSLATING}"), true);
}

#[test]
fn the_branch_with_rules() {
    let net = || {
        let mut n = Net::branch();
        n.acl = acl();
        n
    };
    same(net, &format!("{ACL}{BRANCH}"), false);
}
