//! Neighbours against the real kernel: resolution by ARP and ND, entries that stay resolved, refusals.

mod common;

use common::{Netns, Watched, addr, ip, sysctl};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use sag_rtnl::{Error, Mirror, Neighbor, NeighborState, Tables};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// `a0` in this namespace, `b0` in the other: 192.0.2.1/24 and .2, 2001:db8::1/64 and ::2.
fn connect(other: &Netns) {
    for path in ["net/ipv6/conf/default/accept_dad", "net/ipv6/conf/all/accept_dad"] {
        sysctl(path, "0");
    }
    ip(&format!("link add a0 type veth peer name b0 netns {}", other.name));
    ip("link set a0 up");
    other.ip("link set b0 up");
    ip("addr add 192.0.2.1/24 dev a0");
    ip("addr add 2001:db8::1/64 dev a0");
    other.ip("addr add 192.0.2.2/24 dev b0");
    other.ip("addr add 2001:db8::2/64 dev b0 nodad");
    // Ask every 100 ms, three times.
    for family in ["ipv4", "ipv6"] {
        sysctl(&format!("net/{family}/neigh/a0/retrans_time_ms"), "100");
    }
}

fn mac_of(ns: &Netns, dev: &str) -> String {
    ns.enter(|| Mirror::open().unwrap().tables().link_named(dev).unwrap().mac.unwrap().to_string())
}

fn entry<'a>(tables: &'a Tables, ifindex: u32, ip: &str) -> Option<&'a Neighbor> {
    tables.neighbor(ifindex, addr(ip))
}

fn running(tables: &Tables, name: &str) -> bool {
    tables.link_named(name).is_some_and(|l| l.running)
}

#[test]
fn resolution_by_arp_and_nd() {
    let (Some(ns), Some(other)) = (Netns::new("arp"), Netns::new("arp2")) else { return };
    let peer_mac = ns.enter(|| {
        connect(&other);
        mac_of(&other, "b0")
    });
    ns.enter(|| {
        let mut w = Watched::open();
        w.until(SECOND, "carrier", |t| running(t, "a0"));
        let a0 = w.index("a0");
        for ip in ["192.0.2.2", "2001:db8::2"] {
            assert!(entry(w.tables(), a0, ip).is_none());
            let begun = Instant::now();
            w.mirror.resolve(a0, addr(ip)).unwrap();
            let requested = begun.elapsed();
            let seen = w.until(SECOND, ip, |t| {
                entry(t, a0, ip).is_some_and(|n| n.state == NeighborState::Reachable && n.usable())
            });
            println!("{ip}: requested in {requested:?}, reachable after {:?}", begun.elapsed());
            assert_eq!(entry(w.tables(), a0, ip).unwrap().mac.unwrap().to_string(), peer_mac);
            assert!(seen.iter().any(|c| c.neighbors.contains(&(a0, addr(ip)))));
        }
        // Nobody there.
        for ip in ["192.0.2.99", "2001:db8::99"] {
            w.mirror.resolve(a0, addr(ip)).unwrap();
            assert_eq!(entry(w.tables(), a0, ip).unwrap().state, NeighborState::Incomplete);
            assert!(w.poll().neighbors.contains(&(a0, addr(ip))));
            w.until(3 * SECOND, ip, |t| entry(t, a0, ip).is_some_and(|n| n.failed() && !n.usable()));
            // A further request starts over.
            w.mirror.resolve(a0, addr(ip)).unwrap();
            assert_eq!(entry(w.tables(), a0, ip).unwrap().state, NeighborState::Incomplete);
        }
        // It comes late.
        other.ip("addr add 192.0.2.99/24 dev b0");
        w.mirror.resolve(a0, addr("192.0.2.99")).unwrap();
        let late = |t: &Tables| entry(t, a0, "192.0.2.99").is_some_and(|n| n.usable());
        // The address may have come after the last request of that round, which then fails.
        w.until(3 * SECOND, "a late neighbour, or none", |t| {
            late(t) || entry(t, a0, "192.0.2.99").is_some_and(|n| n.failed())
        });
        w.mirror.resolve(a0, addr("192.0.2.99")).unwrap();
        w.until(3 * SECOND, "a late neighbour", late);

        // An administrator's entry stays as it is.
        ip("neigh add 192.0.2.50 lladdr 02:00:00:00:00:50 nud permanent dev a0");
        let permanent =
            |t: &Tables| entry(t, a0, "192.0.2.50").is_some_and(|n| n.state == NeighborState::Permanent);
        w.until(SECOND, "permanent entry", permanent);
        w.mirror.resolve(a0, addr("192.0.2.50")).unwrap();
        w.mirror.manage(a0, addr("192.0.2.50")).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        w.poll();
        assert!(permanent(w.tables()));

        // With the link, the entries go; with the device, all of them.
        w.until(SECOND, "gone", |t| entry(t, a0, "192.0.2.2").is_some());
        ip("link set a0 down");
        w.until(SECOND, "entries of a link that is down", |t| entry(t, a0, "192.0.2.2").is_none());
        ip("link del a0");
        w.until(SECOND, "entries of a link that is gone", |t| !t.neighbors().any(|n| n.ifindex == a0));
    });
}

#[test]
fn what_has_not_answered_is_forgotten() {
    let (Some(ns), Some(other)) = (Netns::new("fgt"), Netns::new("fgt2")) else { return };
    ns.enter(|| {
        connect(&other);
        let mut w = Watched::open();
        w.until(SECOND, "carrier", |t| running(t, "a0"));
        let a0 = w.index("a0");
        for (there, nobody) in [("192.0.2.2", "192.0.2.99"), ("2001:db8::2", "2001:db8::99")] {
            // While the kernel still asks, and when it has given up.
            for wait in [false, true] {
                w.mirror.resolve(a0, addr(nobody)).unwrap();
                if wait {
                    w.until(3 * SECOND, nobody, |t| entry(t, a0, nobody).is_some_and(Neighbor::failed));
                }
                assert!(w.mirror.forget(a0, addr(nobody)).unwrap());
                assert!(entry(w.tables(), a0, nobody).is_none());
                w.poll();
                assert!(!w.mirror.forget(a0, addr(nobody)).unwrap(), "nothing to forget");
                let kernel = Mirror::open().unwrap();
                assert!(
                    entry(kernel.tables(), a0, nobody).is_none(),
                    "{nobody} is still in the kernel's table"
                );
            }
            // Those that have answered, and those that are managed, stay.
            w.mirror.resolve(a0, addr(there)).unwrap();
            w.until(SECOND, there, |t| entry(t, a0, there).is_some_and(Neighbor::usable));
            assert!(!w.mirror.forget(a0, addr(there)).unwrap());
            w.mirror.manage(a0, addr(nobody)).unwrap();
            assert_eq!(w.mirror.managed(), [(a0, addr(nobody))]);
            assert!(!w.mirror.forget(a0, addr(nobody)).unwrap());
            w.mirror.unmanage(a0, addr(nobody)).unwrap();
            assert!(w.mirror.managed().is_empty());
        }
    });
}

#[test]
fn managed_entries_stay_fresh() {
    let (Some(ns), Some(other)) = (Netns::new("man"), Netns::new("man2")) else { return };
    ns.enter(|| {
        connect(&other);
        // Entries age within 1.5 to 4.5 seconds; one that is used then is checked a second later. (An
        // age below that second would have the kernel check for ever.)
        for (key, value) in [("base_reachable_time_ms", "3000"), ("delay_first_probe_time", "1")] {
            sysctl(&format!("net/ipv4/neigh/a0/{key}"), value);
        }
        let mut w = Watched::open();
        w.until(SECOND, "carrier", |t| running(t, "a0"));
        let a0 = w.index("a0");
        let (ours, left) = ("192.0.2.2", "192.0.2.3");
        other.ip("addr add 192.0.2.3/24 dev b0");
        w.mirror.manage(a0, addr(ours)).unwrap();
        w.mirror.resolve(a0, addr(left)).unwrap();
        w.until(SECOND, "both", |t| {
            [ours, left].iter().all(|ip| entry(t, a0, ip).is_some_and(|n| n.usable()))
        });
        let by_kernel = entry(w.tables(), a0, ours).unwrap().managed;
        println!("the kernel manages entries by itself: {by_kernel}");
        assert!(!entry(w.tables(), a0, left).unwrap().managed);

        // Both fall silent. Nobody uses the entries, so the one left alone goes stale and stays so; the
        // managed one is found out, and found again later. (Successful checks change nothing visible.)
        w.until(20 * SECOND, "stale", |t| {
            entry(t, a0, left).is_some_and(|n| n.state == NeighborState::Stale)
        });
        assert!(entry(w.tables(), a0, ours).unwrap().usable());
        other.ip("addr flush dev b0 scope global");
        let begun = Instant::now();
        w.until(20 * SECOND, "found out", |t| entry(t, a0, ours).is_some_and(|n| n.failed()));
        println!("missed after {:?}", begun.elapsed());
        assert_eq!(entry(w.tables(), a0, left).unwrap().state, NeighborState::Stale);
        other.ip("addr add 192.0.2.2/24 dev b0");
        let begun = Instant::now();
        w.until(20 * SECOND, "found again", |t| entry(t, a0, ours).is_some_and(|n| n.usable()));
        println!("back after {:?}", begun.elapsed());

        // A plain request does not end the kernel's care.
        w.mirror.resolve(a0, addr(ours)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        w.poll();
        assert_eq!(entry(w.tables(), a0, ours).unwrap().managed, by_kernel);

        // The kernel forgets it with the link; the mirror requests it again once the link is back.
        ip("link set a0 down");
        w.until(SECOND, "link down", |t| entry(t, a0, ours).is_none());
        ip("link set a0 up");
        let begun = Instant::now();
        w.until(20 * SECOND, "managed again", |t| entry(t, a0, ours).is_some_and(|n| n.usable()));
        println!("resolved {:?} after the link came back", begun.elapsed());
        assert!(entry(w.tables(), a0, left).is_none());

        w.mirror.unmanage(a0, addr(ours)).unwrap();
        w.until(SECOND, "unmanaged", |t| entry(t, a0, ours).is_some_and(|n| !n.managed));
        w.until(20 * SECOND, "stale at last", |t| {
            entry(t, a0, ours).is_some_and(|n| n.state == NeighborState::Stale)
        });
    });
}

#[test]
fn refusals_have_names() {
    let Some(ns) = Netns::new("ref") else { return };
    ns.enter(|| {
        ip("link set lo up");
        ip("link add a0 type veth peer name a1");
        let mut mirror = Mirror::open().unwrap();
        let a0 = mirror.tables().link_named("a0").unwrap().ifindex;
        let target = addr("192.0.2.9");
        let refused = mirror.resolve(9999, target).unwrap_err();
        assert!(matches!(refused, Error::NoSuchLink { ifindex: 9999, .. }), "{refused:?}");
        println!("{refused}");
        match mirror.resolve(a0, target) {
            Ok(()) => println!("the kernel accepts entries of a link that is down"),
            Err(Error::LinkDown { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    });
    // Following the tables needs no privilege; changing them does.
    ns.enter(|| {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
            .unwrap();
        let mut mirror = Mirror::open().unwrap();
        assert!(!mirror.poll().unwrap().resynced);
        let a0 = mirror.tables().link_named("a0").unwrap().ifindex;
        let refused = mirror.resolve(a0, addr("192.0.2.9")).unwrap_err();
        assert!(matches!(refused, Error::NotPermitted { .. }), "{refused:?}");
        println!("{refused}");
        assert!(mirror.manage(a0, addr("192.0.2.9")).is_err());
    });
}

#[test]
fn wakes_an_event_loop() {
    let Some(ns) = Netns::new("mio") else { return };
    ns.enter(|| {
        let mut mirror = Mirror::open().unwrap();
        let mut poll = mio::Poll::new().unwrap();
        poll.registry().register(&mut mirror, mio::Token(1), mio::Interest::READABLE).unwrap();
        let mut events = mio::Events::with_capacity(4);
        for mtu in [1400, 1300, 1200] {
            ip(&format!("link set lo mtu {mtu}"));
            poll.poll(&mut events, Some(SECOND)).unwrap();
            assert!(events.iter().any(|e| e.token() == mio::Token(1)), "mtu {mtu}");
            while mirror.poll().unwrap().more {}
            assert_eq!(mirror.tables().link(1).unwrap().mtu, mtu);
        }
        poll.registry().deregister(&mut mirror).unwrap();
        ip("link set lo mtu 1500");
        poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
        assert!(events.is_empty());
    });
}
