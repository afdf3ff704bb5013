//! Source NAT to several addresses: which of them a host has, and for how long.

use sag_model::DropReason;
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Kind, NatState, Pooling};
use sag_testkit::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const FAR: &str = "198.51.100.7";
const FAR2: &str = "198.51.100.8";
const POOL: [&str; 4] = ["203.0.113.64", "203.0.113.65", "203.0.113.66", "203.0.113.67"];
const INSIDE: &str = "192.168.0.0/16";

fn pool(addrs: &[&str], pooling: Pooling, overflow: bool) -> Net {
    let mut n = Net::branch();
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    n.wan_pool(INSIDE, addrs, pooling, overflow);
    n
}

fn set_pool(n: &mut Net, addrs: &[&str]) {
    n.nat.pools[0].addrs = addrs.iter().map(|a| a.parse().unwrap()).collect();
}

fn host(n: u8) -> String {
    format!("192.168.1.{n}")
}

/// The external address and port of a packet from inside.
#[track_caller]
fn seen(r: &mut Rig, pkt: &Pkt) -> (String, u16) {
    let e = ends4(r.send(pkt).frame()).0;
    (e.addr.to_string(), e.port)
}

/// A host's address, which all of its sessions have: to any remote, of every protocol.
#[track_caller]
fn address_of(r: &mut Rig, n: u8) -> String {
    let h = host(n);
    let pkts = [
        Pkt::udp(&h, FAR, 4000, 53),
        Pkt::udp(&h, FAR2, 4001, 54),
        Pkt::tcp(&h, FAR, 5000, 80, TCP_SYN),
        Pkt::echo(&h, FAR2, 77, false),
        Pkt::new(&h, FAR, 132, vec![n; 16]),
    ];
    let all: BTreeSet<_> = pkts.iter().map(|p| ends4(r.send(p).frame()).0.addr.to_string()).collect();
    assert_eq!(all.len(), 1, "host {n} has several: {all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn a_host_has_one_address_and_hosts_are_spread() {
    let mut r = Rig::new(pool(&POOL, Pooling::Paired, false));
    let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
    for n in 20..100 {
        let h = host(n);
        let (addr, _) = seen(&mut r, &Pkt::udp(&h, FAR, 4000, 53));
        assert_eq!(seen(&mut r, &Pkt::tcp(&h, FAR2, 4000, 53, TCP_SYN)).0, addr);
        assert_eq!(seen(&mut r, &Pkt::echo(&h, FAR2, 4000, false)).0, addr);
        *hosts.entry(addr).or_default() += 1;
    }
    assert!(hosts.keys().all(|a| POOL.contains(&&**a)), "{hosts:?}");
    assert!(hosts.len() == 4 && hosts.values().all(|n| (8..=32).contains(n)), "{hosts:?}");
}

#[test]
fn what_has_no_ports_is_paired_too() {
    let mut r = Rig::new(pool(&POOL, Pooling::Paired, false));
    let (mut used, mut refused) = (BTreeSet::new(), 0);
    for n in 10..20 {
        match r.send(&Pkt::new(&host(n), FAR, 132, vec![n; 16])) {
            Outcome::Tx(..) => {
                used.insert(address_of(&mut r, n));
            }
            Outcome::Drop(DropReason::SnatExhausted) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    // One host at a time for each address and remote.
    assert!(used.len() >= 2 && used.len() + refused == 10, "{used:?} {refused}");
}

#[test]
fn adding_an_address_moves_nobody_who_has_sessions() {
    let mut r = Rig::new(pool(&POOL[..2], Pooling::Paired, false));
    let before: Vec<_> = (20..60).map(|n| seen(&mut r, &Pkt::udp(&host(n), FAR, 4000, 53))).collect();
    r.commit(|n| set_pool(n, &POOL));
    for (n, was) in (20..60).zip(&before) {
        assert_eq!(seen(&mut r, &Pkt::udp(&host(n), FAR, 4000, 53)), *was, "a live session of {n}");
        assert_eq!(seen(&mut r, &Pkt::udp(&host(n), FAR2, 4100, 53)).0, was.0, "a new session of {n}");
    }
    let new: BTreeSet<_> = (60..100).map(|n| seen(&mut r, &Pkt::udp(&host(n), FAR, 4000, 53)).0).collect();
    assert_eq!(new.len(), 4, "new hosts have the new addresses too");
    // Who has no session left is spread over all of them again.
    r.wait(Duration::from_secs(400));
    let moved = (20..60)
        .zip(&before)
        .filter(|(n, was)| seen(&mut r, &Pkt::udp(&host(*n), FAR, 4000, 53)).0 != was.0)
        .count();
    assert!((8..=32).contains(&moved), "{moved} of 40");
}

#[test]
fn removing_an_address_ends_its_sessions_and_no_others() {
    let mut r = Rig::new(pool(&POOL, Pooling::Paired, false));
    let before: Vec<_> = (20..60).map(|n| seen(&mut r, &Pkt::udp(&host(n), FAR, 4000, 53))).collect();
    r.commit(|n| set_pool(n, &POOL[1..]));
    let mut moved = 0;
    for (n, was) in (20..60).zip(&before) {
        let now = seen(&mut r, &Pkt::udp(&host(n), FAR, 4000, 53));
        if was.0 == POOL[0] {
            assert_ne!(now.0, POOL[0]);
            moved += 1;
        } else {
            assert_eq!(now, *was, "{n} keeps address and port");
        }
    }
    assert!(moved > 0);
    assert_eq!(r.sessions().0, 40, "what had the address is gone");
    let stray = r.send(&Pkt::udp(FAR, POOL[0], 53, 4000).into_port(WAN));
    assert!(!matches!(&stray, Outcome::Tx(LAN, _)), "{stray:?}");
    // Without the entry they have the port's own address.
    r.commit(|n| n.nat.pools.clear());
    assert_eq!(seen(&mut r, &Pkt::udp(&host(20), FAR, 4000, 53)), ("203.0.113.2".into(), 4000));
}

#[test]
fn a_restart_keeps_the_pairs() {
    let mut r = Rig::new(pool(&POOL[..1], Pooling::Paired, false));
    r.send(&Pkt::udp(&host(20), FAR, 4000, 53));
    // Nobody else has an address that the hash does not give.
    r.commit(|n| set_pool(n, &POOL));
    let nat = std::sync::Arc::new(NatState::private(1024));
    let (policy, pools, errors) = r.net.nat.plan(&nat);
    assert!(errors.is_empty());
    nat.apply(&pools);
    assert_eq!(nat.adopt_sessions(&r.pipe.tables.v4, &policy, 1), 1);
    let towards = sag_pipeline::nat::Towards {
        zone: sag_model::Zone::Wan,
        port: WAN,
        hop: "203.0.113.1".parse().unwrap(),
        preferred: None,
    };
    let fresh = |h: &str, state: &NatState| {
        let held = sag_pipeline::nat::Held { state, addr: None };
        let of = policy.snat(sag_model::Zone::Lan, &towards, end(h, 4300), UDP, None, held);
        of.unwrap().unwrap().addr.to_string()
    };
    assert_eq!(fresh(&host(20), &nat), POOL[0], "by its live session");
    let other = NatState::private(1024);
    for n in 21..60 {
        assert_eq!(fresh(&host(n), &nat), fresh(&host(n), &other), "by its hash");
    }
}

#[test]
fn arbitrary_pooling_spreads_ports_and_keeps_mappings() {
    let mut r = Rig::new(pool(&POOL, Pooling::Arbitrary, false));
    let h = host(10);
    let mut used = BTreeSet::new();
    for sport in 4000..4040 {
        let first = seen(&mut r, &Pkt::udp(&h, FAR, sport, 53));
        assert_eq!(seen(&mut r, &Pkt::udp(&h, FAR2, sport, 99)), first, "endpoint-independent mapping");
        used.insert(first.0);
    }
    assert_eq!(used.len(), 4);
}

#[test]
fn a_full_address_refuses_or_gives_way_to_another() {
    for overflow in [false, true] {
        let mut n = pool(&POOL[..2], Pooling::Paired, overflow);
        n.nat.limits.range = 5000..=5003;
        n.nat.limits.host_share = 100;
        let mut r = Rig::new(n);
        let h = host(10);
        let home = seen(&mut r, &Pkt::udp(&h, FAR, 5000, 53)).0;
        for sport in 5001..5004 {
            assert_eq!(seen(&mut r, &Pkt::udp(&h, FAR, sport, 53)).0, home);
        }
        let fifth = Pkt::udp(&h, FAR, 6000, 53);
        if overflow {
            let (addr, port) = seen(&mut r, &fifth);
            assert!(addr != home && POOL.contains(&&*addr) && (5000..=5003).contains(&port), "{addr} {port}");
            // An answer finds its way from there.
            let back = r.send(&Pkt::udp(FAR, &addr, 53, port).into_port(WAN));
            assert_eq!(ends4(back.frame()).1, end(&h, 6000));
            // Home again as soon as there is room, and of other protocols all along.
            assert_eq!(seen(&mut r, &Pkt::tcp(&h, FAR, 5000, 80, TCP_SYN)).0, home);
            for sport in 6001..6004 {
                assert_eq!(seen(&mut r, &Pkt::udp(&h, FAR, sport, 53)).0, addr);
            }
        }
        assert_eq!(r.send(&Pkt::udp(&h, FAR, 7000, 53)), Outcome::Drop(DropReason::SnatExhausted));
        assert_eq!(r.sessions().0, if overflow { 9 } else { 4 });
    }
}

#[test]
fn the_longest_prefix_holds_and_the_ports_own_entries_come_first() {
    let mut n = pool(&POOL[..1], Pooling::Paired, false);
    n.wan_pool("192.168.1.10/32", &POOL[1..2], Pooling::Paired, false);
    n.wan_pool(INSIDE, &POOL[2..3], Pooling::Paired, false);
    n.nat.pools[2].port = Some(WAN);
    n.wan_pool(INSIDE, &POOL[3..4], Pooling::Paired, false);
    n.nat.pools[3].port = Some(LINE);
    let mut r = Rig::new(n);
    assert_eq!(seen(&mut r, &Pkt::udp(&host(10), FAR, 4000, 53)).0, POOL[1], "the longest");
    assert_eq!(seen(&mut r, &Pkt::udp(&host(11), FAR, 4000, 53)).0, POOL[2], "of equal ones the port's");
    r.commit(|n| n.nat.pools[2].kind = Kind::Intranet);
    assert_eq!(seen(&mut r, &Pkt::udp(&host(11), FAR, 4000, 53)).0, POOL[0]);
    assert_eq!(seen(&mut r, &Pkt::udp(&host(11), "10.20.0.9", 4000, 53)).0, POOL[2], "on the line");
}

/// A port forward of an address that hosts share: the port is the server's in both directions, and nobody else's.
#[test]
fn a_port_of_a_pool_may_be_forwarded() {
    const SERVER: &str = "192.168.1.10";
    let mut n = pool(&["198.18.7.1", "198.18.7.2"], Pooling::Paired, false);
    n.nat.limits.range = 2000..=2009;
    n.nat.limits.host_share = 100;
    n.dnat(Kind::Internet, "198.18.7.1", SERVER, Some((TCP, 2004, 2005, 80)));
    let mut r = Rig::new(n);
    // Nobody gets the ports by asking for them, nor by chance.
    let mut taken = std::collections::BTreeSet::new();
    for n in 20..60 {
        for sport in [2004, 2005, 5000] {
            let p = Pkt::tcp(&host(n), FAR, sport, 443, TCP_SYN);
            if let Outcome::Tx(_, f) = r.send(&p) {
                let e = ends4(&f).0;
                taken.insert((e.addr.to_string(), e.port));
            }
            r.emitted();
        }
    }
    let of = |addr: &str| taken.iter().filter(|(a, _)| a == addr).map(|(_, p)| *p).collect::<Vec<_>>();
    assert_eq!(of("198.18.7.1"), [2000, 2001, 2002, 2003, 2006, 2007, 2008, 2009]);
    assert_eq!(of("198.18.7.2"), (2000..=2009).collect::<Vec<_>>());
    // From outside, whoever asks, and back.
    let ask = Pkt::tcp("198.51.100.99", "198.18.7.1", 7, 2005, TCP_SYN).into_port(WAN);
    let inside = r.send(&ask);
    let to = ends4(inside.frame()).1;
    assert_eq!((to.addr.to_string(), to.port), (SERVER.to_owned(), 81));
    let answer = Pkt::tcp(SERVER, "198.51.100.99", 81, 7, TCP_SYN | TCP_ACK);
    assert_eq!(seen(&mut r, &answer), ("198.18.7.1".to_owned(), 2005));
    // By UDP the ports are anybody's.
    let udp: Vec<_> = (20..28).map(|n| seen(&mut r, &Pkt::udp(&host(n), FAR, 2004, 53))).collect();
    assert!(udp.contains(&("198.18.7.1".to_owned(), 2004)), "{udp:?}");
}

#[test]
fn hairpin_shows_the_address_of_the_pool() {
    let mut r = Rig::new(pool(&POOL, Pooling::Paired, false));
    let (server, port) = seen(&mut r, &Pkt::udp(&host(11), FAR, 4000, 53));
    let caller = seen(&mut r, &Pkt::udp(&host(10), FAR, 4100, 53));
    let call = r.send(&Pkt::udp(&host(10), &server, 4100, port));
    let (src, dst) = ends4(call.frame());
    assert_eq!((src.addr.to_string(), src.port), caller, "as the Internet sees it");
    assert_eq!(dst, end(&host(11), 4000));
}
