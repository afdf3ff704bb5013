//! The mirror against the real kernel: after every `ip` command the followed tables must equal freshly
//! read ones, within the promised time.

mod common;

use common::{Netns, Watched, addr, ip, sysctl, two_pairs};
use sag_rtnl::{RouteKind, RouteRef, Table, Tables};
use std::time::Duration;

fn routes<'a>(tables: &'a Tables, dst: &str) -> Vec<RouteRef<'a>> {
    let dst = dst.parse().expect(dst);
    tables.routes_sorted().filter(|r| r.dst == dst && r.table == Table::Main).collect()
}

fn route<'a>(tables: &'a Tables, dst: &str) -> Option<RouteRef<'a>> {
    let all = routes(tables, dst);
    assert!(all.len() <= 1, "{dst}: {all:#?}");
    all.first().copied()
}

#[test]
fn links_and_addresses() {
    let Some(ns) = Netns::new("link") else { return };
    ns.enter(|| {
        let mut w = Watched::open();
        w.after("link add a0 numrxqueues 3 numtxqueues 2 type veth peer name a1", |t| {
            t.link_named("a0").is_some()
        });
        let (a0, a1) = (w.index("a0"), w.index("a1"));
        let link = w.tables().link(a0).unwrap();
        assert_eq!(
            (link.kind.as_deref(), link.parent, link.up, link.running),
            (Some("veth"), Some(a1), false, false)
        );
        assert_eq!((link.rx_queues, link.tx_queues, link.mtu), (3, 2, 1500));
        w.after("link set a0 up", |t| t.link(a0).unwrap().up);
        assert!(!w.tables().link(a0).unwrap().running, "no carrier while the other end is down");
        w.after("link set a1 up", |t| t.link(a0).unwrap().running && t.link(a1).unwrap().running);
        let changes = w.after("link set a0 mtu 1400", |t| t.link(a0).unwrap().mtu == 1400);
        assert!(changes.iter().any(|c| c.links));
        w.after("link set a0 address 02:00:00:00:00:0a", |t| {
            t.link(a0).unwrap().mac.is_some_and(|m| m.to_string() == "02:00:00:00:00:0a")
        });

        let changes =
            w.after("addr add 192.0.2.1/24 dev a0", |t| t.addresses_of(a0).any(|a| a.addr.is_ipv4()));
        assert!(changes.iter().any(|c| c.addrs) && changes.iter().any(|c| c.routes));
        w.after("addr add 192.0.2.2/24 dev a0", |t| t.addresses_of(a0).any(|a| a.secondary));
        w.after("addr add 198.51.100.1 peer 198.51.100.9/32 dev a0", |t| {
            t.addresses_of(a0).any(|a| a.peer == Some(addr("198.51.100.9")))
        });
        let peer = w.tables().addresses_of(a0).find(|a| a.peer.is_some()).unwrap();
        assert_eq!(peer.addr, addr("198.51.100.1"));
        assert_eq!(peer.subnet().unwrap().to_string(), "198.51.100.9/32");
        w.after("addr add 2001:db8::1/64 dev a0", |t| {
            t.addresses_of(a0).any(|a| a.addr == addr("2001:db8::1"))
        });
        w.until(Duration::from_secs(5), "end of duplicate address detection", |t| {
            t.addresses_of(a0).all(|a| a.usable())
        });
        // With the primary goes the secondary address.
        w.after("addr del 192.0.2.1/24 dev a0", |t| !t.addresses_of(a0).any(|a| a.prefix_len == 24));
        w.after("addr flush dev a0", |t| t.addresses_of(a0).next().is_none());

        w.after("link add br0 type bridge", |t| t.link_named("br0").is_some());
        let br0 = w.index("br0");
        w.after("link set a1 master br0", |t| t.link(a1).unwrap().master == Some(br0));
        w.after("link set a1 nomaster", |t| t.link(a1).unwrap().master.is_none());
        w.after("link set a0 down", |t| !t.link(a0).unwrap().up && !t.link(a1).unwrap().running);
        w.after("link set a0 name x0", |t| t.link(a0).unwrap().name == "x0");
        w.after("addr add 192.0.2.77/24 dev x0", |t| t.addresses_of(a0).count() == 1);
        let changes = w.after("link del x0", |t| t.link(a0).is_none() && t.link(a1).is_none());
        assert!(changes.iter().any(|c| c.links) && changes.iter().any(|c| c.addrs));
        assert_eq!(w.tables().addresses_of(a0).count(), 0);
        w.report("links_and_addresses");
    });
}

#[test]
fn settings_are_announced() {
    let Some(ns) = Netns::new("set") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        for (path, value) in [
            ("net/ipv4/conf/a0/forwarding", "1"),
            ("net/ipv6/conf/a0/forwarding", "1"),
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/proxy_arp", "1"),
        ] {
            let before = w.mirror.setting_notices();
            sysctl(path, value);
            // The kernel has announced it when the write returns.
            let _what_else_changed = w.mirror.poll().expect("follow the kernel");
            assert!(w.mirror.setting_notices() > before, "{path}");
            assert_eq!(w.mirror.malformed(), 0);
        }
    });
}

#[test]
fn routes_v4() {
    let Some(ns) = Netns::new("v4") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        let (a0, b0) = (w.index("a0"), w.index("b0"));
        let changes = w.after("route add 10.1.0.0/16 via 192.0.2.9 proto bgp metric 20 mtu 1380", |t| {
            route(t, "10.1.0.0/16").is_some()
        });
        assert_eq!(
            changes.iter().flat_map(|c| &c.prefixes).map(|p| p.to_string()).collect::<Vec<_>>(),
            ["10.1.0.0/16"]
        );
        let r = route(w.tables(), "10.1.0.0/16").unwrap();
        assert_eq!(
            (r.kind, r.priority, r.mtu, r.protocol.name()),
            (RouteKind::Unicast, 20, Some(1380), Some("bgp"))
        );
        assert_eq!((r.nexthops[0].ifindex, r.nexthops[0].gateway), (a0, Some(addr("192.0.2.9"))));

        // Equal-cost paths.
        w.after(
            "route add 10.2.0.0/16 nexthop via 192.0.2.9 weight 3 nexthop via 192.0.2.137 weight 1",
            |t| route(t, "10.2.0.0/16").is_some(),
        );
        let legs = &route(w.tables(), "10.2.0.0/16").unwrap().attributes.nexthops;
        assert_eq!(legs.iter().map(|l| (l.ifindex, l.weight)).collect::<Vec<_>>(), [(a0, 3), (b0, 1)]);

        // An IPv6 gateway, a gateway beyond the subnet, a preferred source.
        w.after("route add 10.3.0.0/16 via inet6 fe80::9 dev b0", |t| route(t, "10.3.0.0/16").is_some());
        assert_eq!(route(w.tables(), "10.3.0.0/16").unwrap().nexthops[0].gateway, Some(addr("fe80::9")));
        w.after("route add 10.4.0.0/16 via 203.0.113.1 dev b0 onlink", |t| route(t, "10.4.0.0/16").is_some());
        assert!(route(w.tables(), "10.4.0.0/16").unwrap().nexthops[0].onlink);
        ip("addr add 192.0.2.5/32 dev lo");
        w.after("route add 10.5.0.0/16 via 192.0.2.137 src 192.0.2.5", |t| route(t, "10.5.0.0/16").is_some());
        assert_eq!(route(w.tables(), "10.5.0.0/16").unwrap().prefsrc, Some(addr("192.0.2.5")));

        for (n, kind) in
            [RouteKind::Blackhole, RouteKind::Unreachable, RouteKind::Prohibit].iter().enumerate()
        {
            let dst = format!("10.6.{n}.0/24");
            w.after(&format!("route add {kind} {dst}"), |t| route(t, &dst).is_some_and(|r| r.kind == *kind));
            assert!(route(w.tables(), &dst).unwrap().nexthops.is_empty());
        }
        assert_eq!(w.tables().routes_sorted().filter(|r| r.kind == RouteKind::Broadcast).count(), 3);

        // Replaced, queued behind, put before, and taken away again.
        w.after("route replace 10.1.0.0/16 via 192.0.2.137 metric 20", |t| {
            route(t, "10.1.0.0/16").unwrap().nexthops[0].ifindex == b0
        });
        w.after("route append 10.1.0.0/16 via 192.0.2.9 metric 20", |t| routes(t, "10.1.0.0/16").len() == 2);
        assert_eq!(routes(w.tables(), "10.1.0.0/16")[0].nexthops[0].ifindex, b0);
        w.after("route prepend 10.1.0.0/16 via 192.0.2.10 metric 20", |t| {
            routes(t, "10.1.0.0/16").len() == 3
        });
        assert_eq!(routes(w.tables(), "10.1.0.0/16")[0].nexthops[0].gateway, Some(addr("192.0.2.10")));
        w.after("route add 10.1.0.0/16 via 192.0.2.11 metric 5", |t| routes(t, "10.1.0.0/16").len() == 4);
        assert_eq!(routes(w.tables(), "10.1.0.0/16")[0].priority, 5);
        w.after("route del 10.1.0.0/16 via 192.0.2.10", |t| routes(t, "10.1.0.0/16").len() == 3);
        w.after("route del 10.1.0.0/16 metric 5", |t| routes(t, "10.1.0.0/16").len() == 2);
        w.after("route del 10.1.0.0/16", |t| routes(t, "10.1.0.0/16").len() == 1);
        w.after("route del 10.1.0.0/16", |t| routes(t, "10.1.0.0/16").is_empty());

        // Not announced by the kernel: the source address of a route goes away, and a link goes down.
        w.after("addr del 192.0.2.5/32 dev lo", |t| route(t, "10.5.0.0/16").is_none());
        w.after("link set a1 down", |t| route(t, "10.2.0.0/16").unwrap().nexthops[0].linkdown);
        w.after("link set a1 up", |t| !route(t, "10.2.0.0/16").unwrap().nexthops[0].linkdown);
        w.after("link set b0 down", |t| {
            route(t, "10.3.0.0/16").is_none() && route(t, "10.4.0.0/16").is_none()
        });
        w.after("link set b0 up", |t| route(t, "192.0.2.128/25").is_some());
        w.after("link del a0", |t| route(t, "192.0.2.0/25").is_none());
        w.report("routes_v4");
    });
}

#[test]
fn routes_v6() {
    let Some(ns) = Netns::new("v6") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        let (a0, b0) = (w.index("a0"), w.index("b0"));
        let dst = "2001:db8:1::/48";
        let legs = |t: &Tables| -> Vec<u32> {
            route(t, dst).map_or_else(Vec::new, |r| r.nexthops.iter().map(|l| l.ifindex).collect())
        };
        assert!(routes(w.tables(), "fe80::/64").len() >= 4, "one for each device");
        w.after(
            &format!("-6 route add {dst} nexthop via 2001:db8:a::9 weight 2 nexthop via 2001:db8:b::9"),
            |t| legs(t) == [a0, b0],
        );
        assert_eq!(route(w.tables(), dst).unwrap().nexthops[0].weight, 2);
        w.after(&format!("-6 route append {dst} via 2001:db8:b::a"), |t| legs(t) == [a0, b0, b0]);
        w.after(&format!("-6 route del {dst} via 2001:db8:b::9"), |t| legs(t) == [a0, b0]);
        w.after(&format!("-6 route replace {dst} via 2001:db8:b::7 proto ospf"), |t| legs(t) == [b0]);
        assert_eq!(route(w.tables(), dst).unwrap().protocol.name(), Some("ospf"));
        w.after(&format!("-6 route append {dst} via 2001:db8:a::7"), |t| legs(t).len() == 2);
        w.after("link set a1 down", |t| route(t, dst).unwrap().nexthops.iter().any(|l| l.linkdown));
        w.after("link set a1 up", |t| route(t, dst).unwrap().nexthops.iter().all(|l| !l.linkdown));
        w.after(&format!("-6 route del {dst}"), |t| legs(t).len() < 2);
        w.after("-6 route flush proto ospf", |t| {
            !t.routes_sorted().any(|r| r.protocol.name() == Some("ospf"))
        });
        for kind in ["blackhole", "unreachable", "prohibit"] {
            w.after(&format!("-6 route add {kind} 2001:db8:f::/48"), |t| {
                route(t, "2001:db8:f::/48")
                    .is_some_and(|r| r.kind.to_string() == kind && r.nexthops.is_empty())
            });
            w.after("-6 route del 2001:db8:f::/48", |t| route(t, "2001:db8:f::/48").is_none());
        }
        w.after("-6 route add 2001:db8:2::/48 dev a0 metric 9", |t| route(t, "2001:db8:2::/48").is_some());
        w.after("-6 route add default via 2001:db8:b::9", |t| route(t, "::/0").is_some());
        w.after("link set b0 down", |t| route(t, "::/0").is_none());
        w.after("link del a0", |t| route(t, "2001:db8:2::/48").is_none());
        w.report("routes_v6");
    });
}

fn nexthop_objects(tag: &str, compat: &str) {
    let Some(ns) = Netns::new(tag) else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        sysctl("net/ipv4/nexthop_compat_mode", compat);
        let (a0, b0) = (w.index("a0"), w.index("b0"));
        let hops = |t: &Tables, dst: &str| -> Vec<(u32, u16)> {
            let Some(r) = route(t, dst) else { return Vec::new() };
            t.nexthops_of(r).iter().map(|h| (h.ifindex, h.weight)).collect()
        };
        w.after("nexthop add id 1 via 192.0.2.9 dev a0", |t| t.nexthop_objects().len() == 1);
        w.after("nexthop add id 2 via 192.0.2.137 dev b0", |t| t.nexthop_objects().len() == 2);
        w.after("nexthop add id 3 blackhole", |t| t.nexthop_objects().len() == 3);
        w.after("nexthop add id 10 group 1,2/2,5", |t| t.nexthop_objects().len() == 4);
        w.after("nexthop add id 20 via 2001:db8:a::9 dev a0", |t| t.nexthop_objects().len() == 5);
        w.after("nexthop add id 21 via 2001:db8:b::9 dev b0", |t| t.nexthop_objects().len() == 6);
        w.after("nexthop add id 30 group 20/21", |t| t.nexthop_objects().len() == 7);
        w.after("route add 10.1.0.0/16 nhid 1", |t| hops(t, "10.1.0.0/16") == [(a0, 1)]);
        w.after("route add 10.2.0.0/16 nhid 10 proto zebra", |t| {
            hops(t, "10.2.0.0/16") == [(a0, 2), (b0, 5)]
        });
        w.after("route add 10.3.0.0/16 nhid 21", |t| hops(t, "10.3.0.0/16") == [(b0, 1)]);
        w.after("route add 10.4.0.0/16 nhid 3", |t| {
            route(t, "10.4.0.0/16").is_some_and(|r| t.kind_of(r) == RouteKind::Blackhole)
        });
        w.after("-6 route add 2001:db8:1::/48 nhid 30", |t| hops(t, "2001:db8:1::/48") == [(a0, 1), (b0, 1)]);
        w.after("-6 route add 2001:db8:2::/48 nhid 20", |t| hops(t, "2001:db8:2::/48") == [(a0, 1)]);

        // A changed object changes its routes, and they are named.
        let changes =
            w.after("nexthop replace id 1 via 192.0.2.138 dev b0", |t| hops(t, "10.1.0.0/16") == [(b0, 1)]);
        let prefixes: Vec<String> = changes.iter().flat_map(|c| &c.prefixes).map(|p| p.to_string()).collect();
        assert!(
            ["10.1.0.0/16", "10.2.0.0/16"].iter().all(|p| prefixes.iter().any(|q| q == p)),
            "{prefixes:?}"
        );
        w.after("nexthop replace id 10 group 1,4/2,3", |t| hops(t, "10.2.0.0/16") == [(b0, 4), (b0, 3)]);
        w.after("nexthop replace id 3 via 192.0.2.9 dev a0", |t| {
            route(t, "10.4.0.0/16").is_some_and(|r| t.kind_of(r) == RouteKind::Unicast)
        });
        // A removed member leaves the group, a removed object takes its routes along.
        w.after("nexthop del id 2", |t| hops(t, "10.2.0.0/16") == [(b0, 4)]);
        w.after("nexthop del id 10", |t| route(t, "10.2.0.0/16").is_none());
        w.after("nexthop del id 20", |t| {
            hops(t, "2001:db8:1::/48") == [(b0, 1)] && route(t, "2001:db8:2::/48").is_none()
        });
        // Unlike plain routes, objects go with the carrier, unannounced, and their routes with them.
        w.after("link set b1 down", |t| {
            route(t, "10.1.0.0/16").is_none()
                && route(t, "10.3.0.0/16").is_none()
                && t.nexthop_objects().len() == 1
        });
        w.after("link del a0", |t| t.nexthop_objects().len() == 0);
        w.report(tag);
    });
}

#[test]
fn nexthop_objects_spelled_out_in_routes() {
    nexthop_objects("nh", "1");
}

#[test]
fn nexthop_objects_by_number_only() {
    nexthop_objects("nhnum", "0");
}

/// A small generator of its own: the same commands in every run.
struct Rng(u64);

impl Rng {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len() as u64) as usize]
    }

    fn command(&mut self) -> String {
        let verb = self.of(&["add", "add", "add", "append", "prepend", "replace", "change", "del", "del"]);
        let metric = self.of(&["", " metric 5", " metric 50"]);
        let protocol = self.of(&["", " proto bgp", " proto ospf"]);
        match self.roll(20) {
            0..=6 => {
                let dst = format!("10.{}.0.0/{}", self.roll(4), 14 + self.roll(3));
                let hops = [
                    "via 192.0.2.9",
                    "via 192.0.2.137",
                    "via 192.0.2.10",
                    "dev a0",
                    "dev b0",
                    "nhid 1",
                    "nhid 10",
                ];
                let how = match self.roll(3) {
                    0 => "nexthop via 192.0.2.9 weight 2 nexthop via 192.0.2.137".to_owned(),
                    _ => self.of(&hops).to_owned(),
                };
                let kind = self.of(&["", "", "", "", "blackhole "]);
                let how = if kind.is_empty() { how } else { String::new() };
                format!("route {verb} {kind}{dst} {how}{metric}{protocol}")
            }
            7..=13 => {
                let verb = if verb == "prepend" { "append" } else { verb };
                let dst = format!("2001:db8:{}::/{}", 1 + self.roll(3), 46 + self.roll(3));
                let hops = [
                    "via 2001:db8:a::9",
                    "via 2001:db8:b::9",
                    "via 2001:db8:a::a",
                    "dev a0",
                    "dev b0",
                    "nhid 20",
                    "nhid 30",
                ];
                let how = match self.roll(3) {
                    0 => "nexthop via 2001:db8:a::9 nexthop via 2001:db8:b::a".to_owned(),
                    _ => self.of(&hops).to_owned(),
                };
                format!("-6 route {verb} {dst} {how}{metric}{protocol}")
            }
            14 => format!("nexthop replace id 1 via 192.0.2.{} dev a0", 3 + self.roll(5)),
            15 => "nexthop add id 2 via 192.0.2.137 dev b0".to_owned(),
            16 => self
                .of(&[
                    "nexthop replace id 10 group 1/2",
                    "nexthop replace id 10 group 1,3",
                    "nexthop del id 1",
                    "nexthop del id 10",
                ])
                .to_owned(),
            17 => self
                .of(&[
                    "nexthop add id 20 via 2001:db8:a::9 dev a0",
                    "nexthop add id 21 via 2001:db8:b::9 dev b0",
                    "nexthop replace id 30 group 20/21",
                    "nexthop del id 20",
                ])
                .to_owned(),
            18 => format!("link set {} {}", self.of(&["a0", "b0", "a1"]), self.of(&["down", "up", "up"])),
            _ => format!(
                "addr {} {}",
                self.of(&["add", "add", "del"]),
                self.of(&[
                    "192.0.2.1/25 dev a0",
                    "192.0.2.129/25 dev b0",
                    "2001:db8:a::1/64 dev a0",
                    "2001:db8:b::1/64 dev b0"
                ])
            ),
        }
    }
}

/// Other tables are there when they are followed, at once and as they change; those that are not followed change nothing.
#[test]
fn tables_of_others() {
    let Some(ns) = Netns::new("tbl") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        ip("route add 10.1.0.0/16 via 192.0.2.9 table 77");
        ip("route add 2001:db8:1::/48 via 2001:db8:a::9 table 70000");
        ip("route add 10.3.0.0/16 via 192.0.2.9 table 99");
        assert!(!w.poll().routes, "no table that is followed");
        w.follow(&[77, 70_000]);
        let of = |t: &Tables, number: u32| -> Vec<String> {
            let found = t.routes_sorted().filter(|r| r.table == Table::Other(number));
            found.map(|r| r.dst.to_string()).collect()
        };
        let all = |t: &Tables| [77, 70_000, 99].map(|n| of(t, n).join(" "));
        assert_eq!(all(w.tables()), ["10.1.0.0/16", "2001:db8:1::/48", ""]);
        let changes = w.poll();
        assert!(changes.routes && changes.prefixes.len() == 2, "{changes:?}");
        w.after("route add 10.2.0.0/16 dev b0 metric 9 table 77", |t| of(t, 77).len() == 2);
        w.after("route add 2001:db8:2::/48 dev b0 table 70000", |t| of(t, 70_000).len() == 2);
        w.after("route del 10.1.0.0/16 table 77", |t| of(t, 77) == ["10.2.0.0/16"]);
        // IPv4 routes of a link that goes down vanish without a word.
        w.after("link set b0 down", |t| of(t, 77).is_empty());
        w.follow(&[99]);
        assert_eq!(all(w.tables()), ["", "", "10.3.0.0/16"]);
        w.same_as_kernel("the end");
        w.report("tables_of_others");
    });
}

/// Whatever is done to the tables (much of it refused by the kernel), the mirror shows the outcome.
#[test]
fn random_commands() {
    let Some(ns) = Netns::new("rand") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        let mut rng = Rng(42);
        let (mut total, mut most) = (0, 0);
        for round in 0..150 {
            let commands: Vec<String> = (0..1 + rng.roll(12)).map(|_| rng.command()).collect();
            common::ip_batch_force(&(commands.join("\n") + "\n"));
            total += commands.len();
            w.same_as_kernel(&format!("round {round}: {commands:#?}"));
            most = most.max(w.tables().route_count());
        }
        println!("random_commands: {total} commands, up to {most} routes");
        assert!(most > 30, "most of the commands were refused");
        assert_eq!(w.mirror.malformed(), 0);
    });
}
