//! The life of sessions: keys, states, ages, a full table, and several packets of one batch.

use sag_model::flow::{FlowRecord4, RecordNo};
use sag_model::{DropReason, Zone};
use sag_packet::proto::*;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::policy::Class;
use sag_pipeline::session::{self, State, Worth};
use sag_pipeline::stages::Fragmentation;
use sag_testkit::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const HOST: &str = "192.168.1.10";
const FAR: &str = "198.51.100.7";
const SYN: u8 = TCP_SYN;
const SYNACK: u8 = TCP_SYN | TCP_ACK;
const FIN: u8 = TCP_FIN | TCP_ACK;

fn out(flags: u8) -> Pkt {
    Pkt::tcp(HOST, FAR, 1000, 80, flags)
}

fn back(flags: u8) -> Pkt {
    Pkt::tcp(FAR, HOST, 80, 1000, flags).into_port(WAN)
}

fn state(rig: &Rig) -> Option<State> {
    session::state_of(&rig.pipe.tables.v4, 1)
}

/// What the daemon shows of a session's ports is not in the memory that its successor finds.
#[test]
fn a_successor_knows_the_ports_of_the_sessions() {
    let mut rig = Rig::branch();
    let wanted = u32::from(LAN.0) | u32::from(WAN.0) << 8;
    let ports = |rig: &Rig| rig.pipe.tables.v4.meta(1).ports.load(Relaxed) & 0xFFFF;
    assert!(rig.send(&out(SYN)).is_tx());
    let restart = |rig: &Rig| {
        rig.pipe.tables.v4.meta(1).ports.store(0, Relaxed);
        session::take_over::<FlowRecord4>(&rig.pipe.tables.v4, rig.now.tick().0, &Default::default());
    };
    restart(&rig);
    assert_eq!(ports(&rig), u32::from(LAN.0) | 0xFF00, "no answer has come by any port yet");
    assert!(rig.send(&back(SYNACK)).is_tx() && rig.send(&out(TCP_ACK)).is_tx());
    assert_eq!(ports(&rig), wanted);
    restart(&rig);
    assert_eq!(ports(&rig), wanted);
}

#[test]
fn one_session_for_both_directions() {
    let mut rig = Rig::branch();
    let (ask, answer) =
        (Pkt::udp(HOST, FAR, 1, 2).payload(100), Pkt::udp(FAR, HOST, 2, 1).into_port(WAN).payload(500));
    for _ in 0..3 {
        assert!(rig.send(&ask).is_tx());
        assert!(rig.send(&answer).is_tx());
        assert!(rig.send(&answer).is_tx());
    }
    assert_eq!(rig.sessions(), (1, 0));
    let t = &rig.pipe.tables.v4;
    let (f, r) = (t.record(RecordNo::forward(1)), t.record(RecordNo::reverse(1)));
    assert_eq!((f.packets.load(Relaxed), f.bytes.load(Relaxed)), (3, 3 * 128));
    assert_eq!((r.packets.load(Relaxed), r.bytes.load(Relaxed)), (6, 6 * 528));
    assert_eq!(FlowRecord4::side(&f.key()), Some(Zone::Lan.into()));
    assert_eq!(FlowRecord4::side(&r.key()), Some(Zone::Wan.into()));
    assert_eq!(t.meta(1).ports.load(Relaxed) & 0xFFFF, u32::from(LAN.0) | u32::from(WAN.0) << 8);
    // The same five-tuple from another side is another flow. Its answers could not be told from the
    // first one's, so it is judged packet by packet.
    let forged = ask.clone().into_port(LINE);
    rig.change(|n| n.ports[LINE.index()].reverse_path = sag_model::config::ReversePath::Off);
    for _ in 0..3 {
        assert!(rig.send(&forged).is_tx());
    }
    assert_eq!(rig.sessions(), (1, 0));
    let f = rig.pipe.tables.v4.record(RecordNo::forward(1));
    assert_eq!(f.packets.load(Relaxed), 3, "not counted in the other's record");
    // Where answers can be told apart there are two sessions.
    assert!(rig.send(&Pkt::udp(HOST, "192.168.2.10", 1, 2)).is_tx());
    assert!(rig.send(&Pkt::udp(HOST, "10.20.0.1", 1, 2)).is_tx());
    assert_eq!(rig.sessions(), (3, 0));
}

#[test]
fn tcp_from_the_first_to_the_last_segment() {
    let mut rig = Rig::branch();
    let mut step = |p: Pkt, want: State| {
        assert!(rig.send(&p).is_tx());
        assert_eq!(state(&rig), Some(want), "after {p:?}");
    };
    step(out(SYN), State::TcpSyn);
    step(out(SYN), State::TcpSyn);
    step(back(SYNACK), State::TcpSynAck);
    step(out(TCP_ACK), State::TcpOpen);
    step(back(FIN), State::TcpClosing);
    step(back(FIN), State::TcpClosing);
    step(out(TCP_ACK), State::TcpClosing);
    step(out(FIN), State::TcpClosed);
    step(back(TCP_ACK), State::TcpClosed);
    step(out(SYN), State::TcpSyn);
    step(back(SYNACK), State::TcpSynAck);
    step(out(TCP_ACK), State::TcpOpen);
    step(back(TCP_RST), State::TcpReset);
    assert_eq!(rig.sessions(), (1, 0));
    assert_eq!(rig.pipe.counters.sessions_created.get(), 2, "each connection has a session of its own");
}

/// Sends, then checks that the session is there shortly before its time and gone after.
fn ages(pkts: &[Pkt], secs: u64) {
    let mut rig = Rig::branch();
    for p in pkts {
        assert!(rig.send(p).is_tx());
    }
    let count = |rig: &Rig| rig.sessions().0 + rig.sessions().1;
    assert_eq!(count(&rig), 1);
    rig.wait(Duration::from_secs(secs) - Duration::from_millis(500));
    assert_eq!(count(&rig), 1, "alive before {secs} s: {:?}", pkts[0]);
    rig.wait(Duration::from_millis(1000));
    assert_eq!(count(&rig), 0, "gone after {secs} s: {:?}", pkts[0]);
    assert_eq!(rig.pipe.counters.sessions_ended.get(), rig.pipe.counters.sessions_created.get());
}

#[test]
fn every_kind_has_its_age() {
    ages(&[out(SYN)], 30);
    ages(&[out(SYN), back(SYNACK)], 30);
    ages(&[out(SYN), back(SYNACK), out(TCP_ACK)], 7440);
    ages(&[out(SYN), back(SYNACK), out(FIN)], 7440);
    ages(&[out(SYN), back(SYNACK), out(FIN), back(FIN)], 240);
    ages(&[out(SYN), back(SYNACK), out(TCP_ACK), back(TCP_RST)], 240);
    ages(&[out(SYN), back(TCP_RST | TCP_ACK)], 240);
    // Who waits for an answer to a SYN heeds no RST that acknowledges nothing.
    ages(&[out(SYN), back(TCP_RST)], 30);
    // What one side says alone makes no connection, however it begins or goes on.
    for alone in [TCP_ACK, FIN, SYNACK] {
        ages(&[out(alone)], 30);
        ages(&[out(alone), out(TCP_ACK), out(FIN)], 30);
        ages(&[out(alone), back(TCP_RST)], 240);
    }
    ages(&[out(SYN), out(TCP_ACK), out(FIN)], 30);
    ages(&[out(TCP_ACK), back(TCP_ACK)], 7440);
    ages(&[out(SYN), back(SYNACK), out(FIN), back(FIN), out(SYN)], 30);
    ages(&[Pkt::udp(HOST, FAR, 1, 2)], 300);
    ages(&[Pkt::echo(HOST, FAR, 1, false)], 60);
    ages(&[Pkt::new(HOST, FAR, 47, vec![0; 8])], 600);
    ages(&[Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2)], 300);
    ages(&[Pkt::echo("2001:db8:1::10", "2001:db8:99::7", 1, false)], 60);
}

#[test]
fn either_direction_keeps_it_alive() {
    let mut rig = Rig::branch();
    let (ask, answer) = (Pkt::udp(HOST, FAR, 1, 2), Pkt::udp(FAR, HOST, 2, 1).into_port(WAN));
    assert!(rig.send(&ask).is_tx());
    for round in 0..6 {
        rig.wait(Duration::from_secs(200));
        assert!(rig.send(if round % 2 == 0 { &answer } else { &ask }).is_tx());
    }
    assert_eq!(rig.pipe.counters.sessions_created.get(), 1);
    // A stamp from a clock read a little ahead of this one counts as just now.
    let t = &rig.pipe.tables.v4;
    t.record(RecordNo::forward(1)).last_seen.store(rig.now.tick().0 + 3, Relaxed);
    rig.poll();
    assert_eq!(rig.sessions(), (1, 0));
}

#[test]
fn without_a_session() {
    let mut rig = Rig::branch();
    assert!(rig.send(&out(TCP_RST)).is_tx());
    assert!(rig.send(&back(TCP_RST | TCP_ACK)).is_tx());
    assert_eq!(rig.sessions(), (0, 0), "a reset opens nothing");
}

#[test]
fn a_full_table_refuses_new_flows_only() {
    let mut rig = Rig::sized(Net::branch(), 10);
    for (a, b) in [(HOST, FAR), ("2001:db8:1::10", "2001:db8:99::7")] {
        for i in 0..10 {
            assert!(rig.send(&Pkt::udp(a, b, i, 53)).is_tx());
            assert!(rig.send(&Pkt::udp(b, a, 53, i).into_port(WAN)).is_tx(), "answered: it stays");
        }
        for _ in 0..3 {
            let refused = rig.send(&Pkt::udp(a, b, 99, 53));
            assert_eq!(refused, Outcome::Drop(DropReason::SessionTableFull));
        }
        assert!(rig.send(&Pkt::udp(a, b, 3, 53)).is_tx());
        assert!(rig.send(&Pkt::tcp(a, b, 3, 53, TCP_RST)).is_tx(), "needs no session");
    }
    assert_eq!(rig.sessions(), (10, 10));
    rig.wait(Duration::from_secs(301));
    assert_eq!(rig.sessions(), (0, 0));
    assert!(rig.send(&Pkt::udp(HOST, FAR, 99, 53)).is_tx(), "there is room again");
    assert_eq!(rig.drops(LAN, DropReason::SessionTableFull), 6);
}

#[test]
fn the_longest_idle_unanswered_session_makes_room() {
    let mut rig = Rig::sized(Net::branch(), 10);
    for i in 0..10 {
        assert!(rig.send(&Pkt::udp(HOST, FAR, i, 53)).is_tx());
        rig.wait(Duration::from_secs(1));
    }
    for i in [0, 1, 4, 5] {
        assert!(rig.send(&Pkt::udp(FAR, HOST, 53, i).into_port(WAN)).is_tx());
    }
    for i in 0..4 {
        assert!(rig.send(&Pkt::udp(HOST, FAR, 100 + i, 53)).is_tx());
    }
    assert_eq!(rig.sessions(), (10, 0));
    // 2, 3, 6 and 7 went, in this order: nobody had answered them.
    let alive = |rig: &Rig, sport: u16| {
        (1..rig.pipe.tables.v4.used()).any(|n| {
            State::of(rig.pipe.tables.v4.meta(n)).is_some()
                && rig.pipe.tables.v4.record(RecordNo::forward(n)).key().l4 as u16 == sport.to_be()
        })
    };
    let left: Vec<u16> = (0..10).filter(|i| alive(&rig, *i)).collect();
    assert_eq!(left, [0, 1, 4, 5, 8, 9]);
    assert_eq!(rig.pipe.tables.nat.totals.evicted[Worth::HalfOpen as usize].load(Relaxed), 4);
}

#[test]
fn packets_of_one_batch_see_each_others_sessions() {
    let mut rig = Rig::branch();
    let batch: Vec<_> = [SYN, TCP_ACK, FIN, TCP_RST].map(|f| out(f).build()).into();
    assert!(rig.batch(DEV_LAN, &batch).iter().all(Outcome::is_tx));
    assert_eq!(state(&rig), Some(State::TcpRefused));
    assert_eq!(rig.pipe.tables.v4.record(RecordNo::forward(1)).packets.load(Relaxed), 4);
    assert_eq!(rig.sessions(), (1, 0));
    // Both directions between two hosts of the LAN's device.
    let (a, b) = (Pkt::udp(HOST, "192.168.2.10", 1, 2), Pkt::udp("192.168.2.10", HOST, 2, 1).into_port(LAN2));
    let batch: Vec<_> = [&a, &b, &a, &b].map(Pkt::build).into();
    assert!(rig.batch(DEV_LAN, &batch).iter().all(Outcome::is_tx));
    assert_eq!(rig.sessions(), (2, 0));
}

#[test]
fn a_session_number_reused_within_a_batch_is_not_mistaken() {
    let mut rig = Rig::sized(Net::branch(), 1);
    let (old, new) = (Pkt::udp(HOST, FAR, 1, 2000), Pkt::tcp(HOST, FAR, 7, 8, SYN));
    assert!(rig.send(&old).is_tx());
    rig.commit(|n| n.acl = Acl::new(true).rule(Class::OutWan, false, "17 * * * *"));
    // The first packet's denial frees the only session, the second one takes it, and the third was
    // looked up when it still was the first one's.
    let batch: Vec<_> = [&old, &new, &old, &new].map(Pkt::build).into();
    let got = rig.batch(DEV_LAN, &batch);
    let denied = Outcome::Drop(DropReason::AclDenied);
    assert_eq!((&got[0], &got[2]), (&denied, &denied));
    assert!(got[1].is_tx() && got[3].is_tx());
    assert_eq!(rig.sessions(), (1, 0));
}

#[test]
fn a_changed_next_hop_is_taken_up() {
    let mut rig = Rig::branch();
    let p = Pkt::udp(HOST, FAR, 1, 2);
    assert!(rig.send(&p).is_tx());
    assert!(rig.send(&p).is_tx());
    rig.commit(|n| {
        n.neighbor(WAN, "203.0.113.3");
        n.via("198.51.100.0/24", WAN, "203.0.113.3");
    });
    for _ in 0..3 {
        assert_eq!(rig.send(&p), Outcome::Tx(WAN, super::forwarded(&p, WAN, "203.0.113.3")));
    }
    // A next-hop record given to another neighbour: flows of the old one do not follow it.
    rig.net.neighbor(WAN, "203.0.113.3");
    assert!(rig.send(&p).is_tx());
    assert_eq!(rig.sessions(), (1, 0));
}

#[test]
fn explained_as_it_would_be_forwarded() {
    use sag_pipeline::stages::{Disposition, Stage};
    use sag_pipeline::worker::Explained;
    let mut rig = Rig::branch();
    rig.commit(|n| n.acl = Acl::new(true).rule(Class::OutWan, false, "17 * * * 53-53"));
    let explain = |rig: &Rig, p: &Pkt| {
        let before = rig.pipe.counters.port(LAN).rx_packets.get();
        let got = rig.pipe.explain(&rig.snap, DEV_LAN, &p.build());
        assert_eq!(rig.pipe.counters.port(LAN).rx_packets.get(), before, "leaves no trace");
        got
    };
    let ok = Pkt::udp(HOST, FAR, 1, 2);
    let (steps, end) = explain(&rig, &ok);
    assert!(
        matches!(end, Explained::Forward(w) if w.port == WAN && w.fragmentation == Fragmentation::NotNeeded),
        "{end:?}"
    );
    let stages: Vec<_> = steps.0.iter().map(|s| s.0).collect();
    assert!(
        stages.is_sorted() && stages.contains(&Stage::Acl) && stages.contains(&Stage::Neighbor),
        "{stages:?}"
    );
    assert_eq!(rig.sessions(), (0, 0));
    assert!(rig.send(&ok).is_tx());
    let (steps, _) = explain(&rig, &ok);
    let session = steps.0.iter().find(|s| s.0 == Stage::Session).unwrap();
    assert!(session.1.contains("known"), "{session:?}");
    let stopped = |end: Explained| match end {
        Explained::Stopped(Disposition::Drop { reason, .. }) => Some(reason),
        _ => None,
    };
    for (p, reason) in [
        (Pkt::udp(HOST, FAR, 1, 53), DropReason::AclDenied),
        (ok.clone().ttl(1), DropReason::TtlExpired),
        (ok.clone().tagged(77), DropReason::VlanUnknown),
        (Pkt::udp("127.0.0.1", FAR, 1, 2), DropReason::SourceMartian),
    ] {
        assert_eq!(stopped(explain(&rig, &p).1), Some(reason));
        assert_eq!(rig.send(&p), Outcome::Drop(reason));
    }
    assert_eq!(
        explain(&rig, &Pkt::udp(HOST, "192.168.1.1", 1, 2)).1,
        Explained::Stopped(Disposition::Kernel)
    );
    assert_eq!(stopped(rig.pipe.explain(&rig.snap, DEV_LAN, &[0; 9]).1), Some(DropReason::EthTruncated));
}

/// What XDP says of a packet's record is a hint: right or wrong, the outcome is the same.
#[test]
fn hints_change_nothing() {
    let mut random = 7u64;
    let mut draw = |n: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % n
    };
    let (mut plain, mut told) = (Rig::branch(), Rig::branch());
    for round in 0..200 {
        let frames: Vec<_> = (0..draw(20) + 1)
            .map(|_| {
                let port = 1000 + draw(30) as u16;
                let flags = [SYN, TCP_ACK, FIN, TCP_RST][draw(4) as usize];
                match draw(3) {
                    0 => Pkt::tcp(HOST, FAR, port, 80, flags).build(),
                    1 => Pkt::udp(HOST, FAR, port, 53).build(),
                    _ => Pkt::udp("2001:db8:1::10", "2001:db8:ffff::7", port, 53).build(),
                }
            })
            .collect();
        let hints = frames
            .iter()
            .map(|_| match draw(4) {
                0 => None,
                1 => Some(RecordNo(u32::MAX >> draw(32))),
                _ => Some(RecordNo::forward(1 + draw(60) as u32)),
            })
            .collect();
        let (a, b) = (plain.batch(DEV_LAN, &frames), told.hinted(DEV_LAN, &frames, hints));
        assert_eq!(a, b, "round {round}");
        assert_eq!(plain.sessions(), told.sessions());
    }
    let of = |r: &Rig| {
        let one = |no| {
            let f = r.pipe.tables.v4.record(no);
            (f.key(), f.packets.load(Relaxed), f.bytes.load(Relaxed))
        };
        (1..70).flat_map(RecordNo::both).map(one).collect::<Vec<_>>()
    };
    assert_eq!(of(&plain), of(&told));
}
