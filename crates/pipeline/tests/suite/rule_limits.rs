//! Sessions of a rule have a limit, in all and of one source: against a model, with workers that share the tables, over a
//! change of the rules and a restart.

use sag_model::DropReason;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_packet::proto::{TCP, TCP_ACK as ACK, TCP_RST as RST, TCP_SYN as SYN};
use sag_pipeline::nat::{Behavior, Kind, NatState};
use sag_pipeline::policy::Class;
use sag_pipeline::session;
use sag_pipeline::table::{FlowTable, Grace};
use sag_pipeline::worker::Tables;
use sag_testkit::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:99::7";
const ALL: &str = "* * * * *";
const UDP: &str = "17 * * * *";

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn limits(most: u32, per_source: u32) -> RuleLimits {
    RuleLimits { most: Some(most), per_source: Some(per_source), prefix_len: Some(128) }
}

fn net(translates: bool, l: RuleLimits) -> Net {
    let mut n = Net::branch();
    if translates {
        n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    }
    n.acl = Acl::new(true).rule(Class::OutWan, true, ALL).limited(ALL, l);
    n
}

/// Source `n` of a family.
fn source(v6: bool, n: u32) -> String {
    if v6 { format!("2001:db8:1::1{n:x}") } else { format!("192.168.1.{}", 10 + n) }
}

fn udp(v6: bool, n: u32, port: u16) -> Pkt {
    Pkt::udp(&source(v6, n), if v6 { FAR6 } else { FAR }, port, 53)
}

fn dropped(outcome: &Outcome) -> Option<DropReason> {
    match outcome {
        Outcome::Drop(reason) => Some(*reason),
        _ => None,
    }
}

#[test]
fn a_model_counts_the_same() {
    for (v6, translates) in [(false, false), (false, true), (true, false)] {
        let (most, each) = (40, 9);
        let mut r = Rig::sized(net(translates, limits(most, each)), 256);
        let mut random = Rng::new(7);
        // When each session of the model has last had a packet, in seconds of a clock of its own.
        let (mut live, mut now) = (BTreeMap::<(u32, u16), u64>::new(), 0u64);
        let mut seen = BTreeMap::<Option<DropReason>, u32>::new();
        for _ in 0..4_000 {
            if random.below(20) == 0 {
                now += 20;
                r.wait(secs(20));
                // The housekeeping of a wait takes time as well: none is near the limit of 300 s then.
                live.retain(|_, seen| now - *seen < 300);
            }
            let (n, port) = (random.below(8) as u32, 4000 + random.below(16) as u16);
            let of_source = live.keys().filter(|(s, _)| *s == n).count() as u32;
            let want = match live.contains_key(&(n, port)) {
                true => None,
                false if live.len() as u32 == most => Some(DropReason::AclMaxSessions),
                false if of_source == each => Some(DropReason::AclMaxSessionsPerSource),
                false => None,
            };
            let got = r.send(&udp(v6, n, port));
            assert_eq!(dropped(&got), want, "{n} {port} {v6} {translates}");
            *seen.entry(want).or_default() += 1;
            if want.is_none() {
                live.insert((n, port), now);
            }
            r.emitted();
            let (all, of_source) = r.net.acl.limited_sessions(ALL, &source(v6, n)).unwrap();
            assert_eq!(all as usize, live.len());
            assert_eq!(of_source as usize, live.keys().filter(|(s, _)| *s == n).count());
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        r.wait(secs(400));
        assert_eq!(r.net.acl.limited_sessions(ALL, &source(v6, 0)), Some((0, 0)));
    }
}

#[test]
fn the_host_learns_that_it_may_have_no_more() {
    for (v6, kind) in [(false, (3, 13)), (true, (1, 1))] {
        let mut r = Rig::new(net(!v6, limits(1, 1)));
        assert!(r.send(&udp(v6, 0, 1)).is_tx());
        r.emitted();
        assert_eq!(dropped(&r.send(&udp(v6, 0, 2))), Some(DropReason::AclMaxSessions));
        let at = if v6 { 54 } else { 34 };
        let told: Vec<_> = r.emitted().iter().map(|(port, f)| (*port, (f[at], f[at + 1]))).collect();
        assert_eq!(told, [(LAN, kind)]);
        assert!(r.send(&udp(v6, 0, 1)).is_tx(), "the session that it has goes on");
    }
    // From outside nobody learns anything.
    let mut n = Net::branch();
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    n.dnat(Kind::Internet, "", "192.168.1.10", Some((TCP, 80, 80, 80)));
    n.acl = Acl::new(true).rule(Class::InWan, true, ALL).limited(ALL, limits(1, 1));
    let mut r = Rig::new(n);
    let syn = |from: &str| Pkt::tcp(from, "203.0.113.2", 4000, 80, SYN).into_port(WAN);
    assert!(r.send(&syn(FAR)).is_tx());
    assert_eq!(dropped(&r.send(&syn("198.51.100.8"))), Some(DropReason::AclMaxSessions));
    assert_eq!(r.emitted(), []);
    assert_eq!(r.net.acl.limited_sessions(ALL, FAR), Some((1, 1)), "by the source as it came");
}

#[test]
fn however_a_session_ends_its_place_is_free() {
    let mut r = Rig::sized(net(true, limits(3, 3)), 64);
    let full = |r: &mut Rig| dropped(&r.send(&udp(false, 0, 9)));
    let counted = |r: &Rig| r.net.acl.limited_sessions(ALL, &source(false, 0)).unwrap().0;
    let tcp = |flags, port| Pkt::tcp(&source(false, 0), FAR, port, 80, flags);
    // A refused connection, once its time is over.
    assert!(r.send(&tcp(SYN, 1000)).is_tx());
    assert!(r.send(&Pkt::tcp(FAR, "203.0.113.2", 80, 1000, RST | ACK).into_port(WAN)).is_tx());
    assert!(r.send(&udp(false, 0, 1)).is_tx());
    assert!(r.send(&udp(false, 0, 2)).is_tx());
    assert_eq!(full(&mut r), Some(DropReason::AclMaxSessions));
    // The same five-tuple again is the successor of the session, and takes its place.
    assert!(r.send(&tcp(SYN, 1000)).is_tx());
    assert_eq!(counted(&r), 3);
    r.wait(secs(500));
    assert_eq!(counted(&r), 0);
    // Room in the table.
    r.commit(|n| n.acl = Acl::new(true).rule(Class::OutWan, true, ALL).limited(ALL, limits(1000, 1000)));
    for n in 0..4 {
        for port in 0..60 {
            r.send(&udp(false, n, 5000 + port));
            r.emitted();
        }
        assert_eq!(counted(&r), r.sessions().0, "those that have made room count no more");
    }
    // A rule that admits them no more.
    let old = r.net.acl.clone();
    r.commit(|n| n.acl = n.acl.clone().rule(Class::InWan, false, UDP));
    assert_eq!(counted(&r), r.sessions().0);
    r.commit(|n| n.acl = old.cleared());
    r.wait(secs(400));
    assert_eq!((counted(&r), r.sessions().0), (0, 0), "without the rule as well");
}

#[test]
fn sessions_come_under_another_rule() {
    let of = |r: &Rig, rule: &str| r.net.acl.limited_sessions(rule, &source(false, 0)).map(|c| c.0);
    for idle in [false, true] {
        let mut n = Net::branch();
        n.acl = Acl::new(true).limited(ALL, limits(100, 100)).limited(UDP, limits(2, 2));
        n.acl = n.acl.rule(Class::OutWan, true, ALL);
        let mut r = Rig::new(n);
        (0..5).for_each(|port| assert!(r.send(&udp(false, 0, 4000 + port)).is_tx()));
        assert_eq!(of(&r, ALL), Some(5));
        r.commit(|n| {
            let limits_of = n.acl.clone().cleared();
            n.acl = limits_of.rule(Class::OutWan, true, UDP).rule(Class::OutWan, true, ALL);
        });
        if idle {
            // A sweep finds those that say nothing.
            r.wait(Duration::from_millis(1));
        } else {
            (0..5).for_each(|port| assert!(r.send(&udp(false, 0, 4000 + port)).is_tx(), "live ones stay"));
        }
        assert_eq!((of(&r, ALL), of(&r, UDP)), (Some(0), Some(5)), "idle {idle}");
        assert_eq!(dropped(&r.send(&udp(false, 0, 9))), Some(DropReason::AclMaxSessions));
        r.wait(secs(400));
        assert_eq!((of(&r, ALL), of(&r, UDP)), (Some(0), Some(0)), "idle {idle}");
    }
}

#[test]
fn a_restarted_daemon_counts_what_is_there() {
    for v6 in [false, true] {
        let mut r = Rig::new(net(!v6, limits(6, 3)));
        for (n, port) in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)] {
            assert!(r.send(&udp(v6, n, 4000 + port)).is_tx());
        }
        // What only the daemon knew is gone: rules, marks and counters.
        let tables = r.pipe.tables.clone();
        let tick = r.now.tick().0;
        for n in 1..tables.v4.used() {
            tables.v4.meta(n).rule.store(0, Ordering::Relaxed);
        }
        for n in 1..tables.v6.used() {
            tables.v6.meta(n).rule.store(0, Ordering::Relaxed);
        }
        session::take_over::<FlowRecord4>(&tables.v4, tick, &Default::default());
        session::take_over::<FlowRecord6>(&tables.v6, tick, &Default::default());
        r.commit(|n| n.acl = net(false, limits(6, 3)).acl);
        session::count_rules(&tables.v4, &r.snap);
        session::count_rules(&tables.v6, &r.snap);
        assert_eq!(r.net.acl.limited_sessions(ALL, &source(v6, 0)), Some((5, 3)));
        assert_eq!(dropped(&r.send(&udp(v6, 0, 9))), Some(DropReason::AclMaxSessionsPerSource));
        assert!(r.send(&udp(v6, 0, 4001)).is_tx(), "as before");
        assert!(r.send(&udp(v6, 1, 9)).is_tx());
        assert_eq!(dropped(&r.send(&udp(v6, 2, 9))), Some(DropReason::AclMaxSessions));
        r.wait(secs(400));
        assert_eq!(r.net.acl.limited_sessions(ALL, &source(v6, 0)), Some((0, 0)));
    }
}

/// Four workers open, and end by eviction and time, as many sessions as they can at once.
#[test]
fn workers_never_exceed_a_limit_and_lose_no_count() {
    let tables = Arc::new(Tables {
        v4: FlowTable::private(64, Grace::immediate()),
        v6: FlowTable::private(64, Grace::immediate()),
        nat: Arc::new(NatState::private(64)),
        first_fragments: Default::default(),
    });
    let mut first = net(false, limits(40, 15));
    // Makes the counters that all of them share.
    first.snapshot();
    let mut rigs: Vec<Rig> = (0..4).map(|w| Rig::over(first_like(&first), tables.clone(), w, 4)).collect();
    let stats = |r: &Rig| r.net.acl.limited_sessions(ALL, &source(false, 0)).unwrap().0;
    std::thread::scope(|s| {
        for (w, r) in rigs.iter_mut().enumerate() {
            s.spawn(move || {
                let mut random = Rng::new(w as u64 + 1);
                for i in 0..3_000 {
                    r.send(&udp(false, random.below(5) as u32, 4000 + random.below(40) as u16));
                    r.emitted();
                    assert!(stats(r) <= 40);
                    if i % 100 == 0 {
                        r.wait(secs(7));
                    }
                }
            });
        }
    });
    assert_eq!(stats(&rigs[0]), tables.v4.live());
    for r in &mut rigs {
        r.wait(secs(30_000));
    }
    assert_eq!((tables.v4.live(), stats(&rigs[0])), (0, 0));
}

/// The same gateway for another worker: its rules have the same counters.
fn first_like(net: &Net) -> Net {
    let mut n = Net::branch();
    n.acl = net.acl.clone();
    n
}
