//! Virtual reassembly: fragments out of order, more than once, or at odds with each other.

use super::forwarded;
use sag_model::{DropReason, PortIdx};
use sag_packet::proto::*;
use sag_pipeline::fragments::{LIFETIME, QUIET, TIMEOUT};
use sag_pipeline::pending::{MAX_PER_KEY, SLOTS};
use sag_pipeline::policy::Class;
use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;
use std::time::Duration;

const HOST4: &str = "192.168.1.10";
const FAR4: &str = "198.51.100.7";
const HOST6: &str = "2001:db8:1::10";
const FAR6: &str = "2001:db8:99::7";
const ROUTER4: &str = "203.0.113.1";
const ROUTER6: &str = "2001:db8:2::1";

const OVERLAP: Outcome = Outcome::Drop(DropReason::FragmentOverlap);
const FULL: Outcome = Outcome::Drop(DropReason::FragmentTableFull);

/// 108 bytes of datagram.
fn udp4(id: u16) -> Pkt {
    Pkt { id, ..Pkt::udp(HOST4, FAR4, 4000, 53).payload(100) }
}

/// The same with a hop-by-hop header before the fragment header and destination options after it.
fn udp6(id: u16) -> Pkt {
    let mut p = Pkt { id, ..Pkt::udp(HOST6, FAR6, 4000, 53).payload(92) };
    // Sixteen bytes: padding of 14.
    p = p.ext(HOP_BY_HOP, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    p.l4 = [&[UDP, 0, 1, 4, 0, 0, 0, 0], &p.l4[..]].concat();
    p.proto = DEST_OPTIONS;
    p
}

/// As it leaves.
fn out(p: &Pkt) -> (PortIdx, Vec<u8>) {
    (WAN, forwarded(p, WAN, if p.src.is_ipv4() { ROUTER4 } else { ROUTER6 }))
}

fn tx(p: &Pkt) -> Outcome {
    let (port, frame) = out(p);
    Outcome::Tx(port, frame)
}

/// What a batch put on the wire, in order.
fn wire(rig: &mut Rig, frames: &[Pkt]) -> Vec<(PortIdx, Vec<u8>)> {
    let frames: Vec<_> = frames.iter().map(Pkt::build).collect();
    let outcomes = rig.batch(DEV_LAN, &frames);
    let mut sent = rig.emitted();
    sent.extend(outcomes.into_iter().filter_map(|o| match o {
        Outcome::Tx(port, f) => Some((port, f)),
        _ => None,
    }));
    sent
}

fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = orders(n - 1);
    let insert = |o: &Vec<usize>, at: usize| [&o[..at], &[n - 1], &o[at..]].concat();
    shorter.iter().flat_map(|o| (0..n).map(move |at| insert(o, at))).collect()
}

fn held(rig: &Rig) -> u64 {
    rig.pipe.counters.port(LAN).held.get()
}

fn pass(rig: &mut Rig, time: Duration) {
    rig.now = rig.now + time;
    rig.poll();
}

#[test]
fn every_order_arrives_complete_exactly_once() {
    let mut rig = Rig::branch();
    let gre = Pkt::new(HOST4, FAR4, 47, vec![3; 108]);
    let wholes = [
        udp4(7),
        Pkt { id: 7, ..Pkt::udp(HOST4, FAR4, 4001, 53).payload(100).options(&[148, 4, 0, 0]) },
        Pkt::tcp(HOST4, FAR4, 4000, 80, TCP_ACK).payload(88),
        Pkt::echo(HOST4, FAR4, 4, false).payload(100),
        gre,
        udp6(7),
        Pkt::echo(HOST6, FAR6, 4, true).payload(100),
    ];
    for whole in &wholes {
        let pieces: Vec<_> = (0..4).map(|i| whole.fragment(i * 32, 32)).collect();
        assert_eq!(pieces[3].l4.len(), 12);
        let before = rig.sessions();
        // The same number again and again: nothing is left of the datagram before.
        for order in orders(4) {
            let arrive: Vec<_> = order.iter().map(|&i| pieces[i].clone()).collect();
            let first = order.iter().position(|&i| i == 0).unwrap();
            // What came before the first goes right after it.
            let mut leave: Vec<_> = arrive.iter().map(out).collect();
            leave[..=first].rotate_right(1);
            assert_eq!(wire(&mut rig, &arrive), leave, "{order:?} together, of {whole:?}");
            let mut singly = Vec::new();
            for (n, p) in arrive.iter().enumerate() {
                let sent = wire(&mut rig, std::slice::from_ref(p));
                assert_eq!(sent.is_empty(), n < first);
                assert_eq!(held(&rig), if n < first { n as u64 + 1 } else { 0 });
                singly.extend(sent);
            }
            assert_eq!(singly, leave, "{order:?} one by one, of {whole:?}");
        }
        let after = rig.sessions();
        assert_eq!(after.0 + after.1, before.0 + before.1 + 1, "all belong to one flow");
    }
    let c = rig.pipe.counters.port(LAN);
    assert_eq!((c.dropped(), held(&rig)), (0, 0));
    let (rx, forwarded) = (c.rx_packets.get(), c.forwarded.get());
    assert_eq!((rx, forwarded), (wholes.len() as u64 * 24 * 2 * 4, rx));
}

#[test]
fn datagrams_do_not_mix() {
    let mut rig = Rig::branch();
    // Another number, another sender, another protocol, another family, another side.
    let mut others = [
        udp4(1),
        udp4(2),
        Pkt { id: 1, ..Pkt::udp("192.168.1.11", FAR4, 4001, 53).payload(100) },
        Pkt { id: 1, ..Pkt::echo(HOST4, FAR4, 9, false).payload(100) },
        udp6(1),
        Pkt { id: 1, ..Pkt::udp(HOST4, FAR4, 4002, 53).payload(100) }.into_port(LAN2),
    ];
    others[5].src = "192.168.2.10".parse().unwrap();
    let mut sent = Vec::new();
    for (n, at) in [64, 32, 0, 96].into_iter().enumerate() {
        for p in &others {
            let f = p.fragment(at, 32);
            match (n, rig.send(&f)) {
                (0 | 1, o) => assert_eq!(o, Outcome::Held),
                (2, o) => {
                    assert_eq!(o, Outcome::Emitted);
                    sent.extend(rig.emitted());
                    let want = [f, p.fragment(64, 32), p.fragment(32, 32)];
                    assert_eq!(sent.split_off(0), want.iter().map(out).collect::<Vec<_>>());
                }
                (_, o) => assert_eq!(o, tx(&f)),
            }
        }
    }
    assert_eq!(rig.sessions(), (4, 1), "the first two are one flow");
}

#[test]
fn the_other_side_of_the_gateway_is_another_datagram() {
    let mut rig = Rig::branch();
    assert!(rig.send(&udp4(1).fragment(0, 48)).is_tx());
    assert_eq!(rig.send(&udp4(1).fragment(48, 48).into_port(WAN)), Outcome::Held);
}

#[test]
fn no_first_in_time() {
    let mut rig = Rig::branch();
    let whole = udp4(1);
    assert_eq!(rig.send(&whole.fragment(32, 32)), Outcome::Held);
    pass(&mut rig, Duration::from_secs(1));
    assert_eq!(rig.send(&whole.fragment(64, 32)), Outcome::Held);
    pass(&mut rig, TIMEOUT - Duration::from_secs(1));
    assert_eq!((held(&rig), rig.drops(LAN, DropReason::FragmentNoFirst)), (2, 0));
    // The datagram is given up as a whole: without its oldest fragment it is worth nothing.
    pass(&mut rig, Duration::from_nanos(1));
    assert_eq!((held(&rig), rig.drops(LAN, DropReason::FragmentNoFirst)), (0, 2));
    assert_eq!(rig.emitted(), []);
    assert_eq!(rig.sessions(), (0, 0));
    // Sent again, it passes.
    let sent = wire(&mut rig, &[64, 0, 32, 96].map(|at| whole.fragment(at, 32)));
    assert_eq!(sent, [0, 64, 32, 96].map(|at| out(&whole.fragment(at, 32))));
    // At the last moment.
    assert_eq!(rig.send(&whole.fragment(32, 32)), Outcome::Held);
    rig.now = rig.now + TIMEOUT;
    assert_eq!(wire(&mut rig, &[whole.fragment(0, 32)]).len(), 2);
    // A moment later, though there was no housekeeping in between.
    let whole = udp4(2);
    assert_eq!(rig.send(&whole.fragment(32, 32)), Outcome::Held);
    rig.now = rig.now + TIMEOUT + Duration::from_nanos(1);
    assert_eq!(rig.send(&whole.fragment(0, 32)), tx(&whole.fragment(0, 32)));
    assert_eq!(rig.drops(LAN, DropReason::FragmentNoFirst), 3);
}

#[test]
fn remembered_for_a_while() {
    let mut rig = Rig::branch();
    let whole = udp4(1);
    assert!(rig.send(&whole.fragment(0, 32)).is_tx());
    pass(&mut rig, LIFETIME - Duration::from_nanos(1));
    assert!(rig.send(&whole.fragment(32, 32)).is_tx());
    pass(&mut rig, Duration::from_nanos(1));
    assert_eq!(rig.send(&whole.fragment(64, 32)), Outcome::Held, "forgotten");
    pass(&mut rig, TIMEOUT + Duration::from_nanos(1));
    assert_eq!(rig.drops(LAN, DropReason::FragmentNoFirst), 1);
}

#[test]
fn repetitions_are_dropped_and_do_no_harm() {
    for whole in [udp4(1), udp6(1)] {
        let mut rig = Rig::branch();
        for at in [32, 0, 96] {
            let f = whole.fragment(at, 32);
            assert_ne!(rig.send(&f), OVERLAP);
            assert_eq!(rig.send(&f), OVERLAP, "{at}");
        }
        assert_eq!(rig.send(&whole.fragment(32, 32)), OVERLAP, "it has gone already");
        // The first one with other ports is no better.
        let mut other = whole.clone();
        let ports = if whole.src.is_ipv4() { 0 } else { 8 };
        other.l4[ports] ^= 1;
        assert_eq!(rig.send(&other.fragment(0, 32)), OVERLAP);
        let f = whole.fragment(64, 32);
        assert_eq!(rig.send(&f), tx(&f));
        let sent: Vec<_> = rig.emitted();
        assert_eq!(sent, [0, 32].map(|at| out(&whole.fragment(at, 32))));
        let (v4, v6) = rig.sessions();
        assert_eq!(v4 + v6, 1);
        assert_eq!(rig.drops(LAN, DropReason::FragmentOverlap), 5);
    }
}

#[test]
fn contradictions_poison_the_datagram() {
    let end = |p: &Pkt, at, len| {
        // As if the datagram ended there.
        let mut p = p.clone();
        p.l4.truncate(at + len);
        p.fragment(at, len)
    };
    let middle = |p: &Pkt, at: usize, len| {
        // As if there were more.
        let mut p = p.clone();
        p.l4.resize(at + len + 8, 0);
        p.fragment(at, len)
    };
    for whole in [udp4(1), udp6(1)] {
        for (what, f) in [
            ("over the end of another", whole.fragment(24, 32)),
            ("over the start of another", whole.fragment(56, 24)),
            ("inside another", whole.fragment(40, 8)),
            ("around another", whole.fragment(24, 56)),
            ("the first, but longer", whole.fragment(0, 48)),
            ("the first, but shorter", whole.fragment(0, 24)),
            ("another end", end(&whole, 64, 16)),
            ("another end in the same eight bytes", end(&whole, 104, 3)),
            ("no end after all", middle(&whole, 104, 8)),
            ("beyond the end", middle(&whole, 112, 8)),
            ("an end beyond the end", end(&Pkt { l4: vec![0; 200], ..whole.clone() }, 112, 16)),
        ] {
            let good = [whole.fragment(0, 32), whole.fragment(32, 32), whole.fragment(104, 32)];
            // After the first one: all that come later are dropped.
            let mut rig = Rig::branch();
            for g in &good {
                assert_eq!(rig.send(g), tx(g), "{what}");
            }
            assert_eq!(rig.send(&f), OVERLAP, "{what}");
            for at in [64, 96, 0] {
                assert_eq!(rig.send(&whole.fragment(at, 24)), OVERLAP, "after {what}");
            }
            assert_eq!(rig.emitted(), []);
            // Before it: those that wait are dropped too.
            if what.starts_with("the first") {
                continue;
            }
            let mut rig = Rig::branch();
            for g in &good[1..] {
                assert_eq!(rig.send(g), Outcome::Held, "{what}");
            }
            assert_eq!(rig.send(&f), OVERLAP, "{what}");
            assert_eq!((held(&rig), rig.drops(LAN, DropReason::FragmentOverlap)), (0, 3), "{what}");
            assert_eq!(rig.send(&good[0]), OVERLAP, "after {what}");
            assert_eq!(rig.sessions(), (0, 0));
            // Another datagram has nothing to do with it.
            let other = Pkt { id: 2, ..whole.clone() };
            assert!(rig.send(&other.fragment(0, 32)).is_tx());
        }
    }
}

#[test]
fn a_last_one_before_what_was_seen() {
    let mut rig = Rig::branch();
    let whole = udp4(1);
    assert!(rig.send(&whole.fragment(0, 32)).is_tx());
    assert!(rig.send(&whole.fragment(64, 32)).is_tx());
    let mut short = whole.clone();
    short.l4.truncate(48);
    assert_eq!(rig.send(&short.fragment(40, 8)), OVERLAP);
    assert_eq!(rig.send(&whole.fragment(32, 32)), OVERLAP, "nobody knows which one lied");
}

#[test]
fn malformed_pieces_are_dropped_alone() {
    for whole in [udp4(1), udp6(1)] {
        let mut rig = Rig::branch();
        let f = whole.fragment(0, 32);
        assert_eq!(rig.send(&f), tx(&f));
        // Not the last, and not a multiple of eight.
        let mut odd = whole.fragment(32, 32);
        odd.l4.truncate(31);
        assert_eq!(rig.send(&odd), OVERLAP);
        // Nothing in it.
        let mut empty = whole.fragment(32, 32);
        empty.l4.clear();
        assert_eq!(rig.send(&empty), OVERLAP);
        let mut empty = whole.fragment(96, 32);
        empty.l4.clear();
        assert_eq!(rig.send(&empty), OVERLAP);
        for at in [32, 64, 96] {
            let f = whole.fragment(at, 32);
            assert_eq!(rig.send(&f), tx(&f), "{at}");
        }
        assert_eq!(rig.emitted(), []);
    }
    let mut rig = Rig::branch();
    let empty = Pkt { frag: 0x2000, ..Pkt::new(HOST4, FAR4, 47, vec![]) };
    assert_eq!(rig.send(&empty), OVERLAP);
}

#[test]
fn no_datagram_is_larger_than_65535_bytes() {
    let last = |p: &Pkt, at: u16, len| {
        let mut f = p.clone();
        f.l4 = vec![1; len];
        match f.src.is_ipv4() {
            true => f.frag = at / 8,
            false => f.ext.push((FRAGMENT, [&[0], &at.to_be_bytes()[..], &[0, 0, 0, 1]].concat())),
        }
        f
    };
    // The whole datagram has one header of 20 bytes, or of 40 and 8 for the extension header, of
    // which the length field counts the latter.
    for (whole, fits) in
        [(udp4(1), 65535 - 20), (udp4(1).options(&[1; 8]), 65535 - 28), (udp6(1), 65535 - 16)]
    {
        let at = (fits - 100) / 8 * 8;
        let room = usize::from(fits - at);
        let mut rig = Rig::branch();
        assert!(rig.send(&whole.fragment(0, 32)).is_tx());
        assert_eq!(rig.send(&last(&whole, at, room + 1)), OVERLAP, "{fits}");
        let f = last(&whole, at, room);
        assert_eq!(rig.send(&f), tx(&f), "{fits}");
    }
    let mut rig = Rig::branch();
    assert_eq!(rig.send(&last(&udp4(1), 65528, 1000)), OVERLAP);
    assert_eq!(rig.send(&last(&udp6(1), 65528, 1000)), OVERLAP);
}

#[test]
fn numbers_come_round() {
    let mut rig = Rig::branch();
    let whole = udp4(1);
    // One fragment of the datagram before was lost, others come much later with its number.
    for _ in 0..4 {
        for at in [0, 64] {
            let f = whole.fragment(at, 32);
            assert_eq!(rig.send(&f), tx(&f), "{at}");
        }
        pass(&mut rig, QUIET);
        assert_eq!(rig.send(&whole.fragment(64, 32)), OVERLAP, "not yet");
        pass(&mut rig, QUIET + Duration::from_nanos(1));
    }
    // The same after a contradiction, and for a later fragment that comes first.
    let f = whole.fragment(0, 32);
    assert_eq!(rig.send(&f), tx(&f));
    assert_eq!(rig.send(&whole.fragment(24, 16)), OVERLAP);
    pass(&mut rig, QUIET);
    assert_eq!(rig.send(&whole.fragment(32, 32)), OVERLAP);
    pass(&mut rig, QUIET + Duration::from_nanos(1));
    assert_eq!(rig.send(&whole.fragment(32, 32)), Outcome::Held);
    let sent = wire(&mut rig, &[0, 96, 64].map(|at| whole.fragment(at, 32)));
    assert_eq!(sent, [0, 32, 96, 64].map(|at| out(&whole.fragment(at, 32))));
}

#[test]
fn room_for_a_few_per_datagram_and_for_a_few_datagrams() {
    let mut rig = Rig::branch();
    let big = |id: u16| Pkt { id, ..Pkt::udp(HOST4, FAR4, 4000, 53).payload(3000) };
    let fill = |rig: &mut Rig, id: u16| {
        for i in 1..=MAX_PER_KEY {
            assert_eq!(rig.send(&big(id).fragment(i * 16, 16)), Outcome::Held);
        }
        rig.send(&big(id).fragment((MAX_PER_KEY + 1) * 16, 16))
    };
    for id in 0..(SLOTS / MAX_PER_KEY) as u16 {
        assert_eq!(fill(&mut rig, id), FULL);
    }
    assert_eq!(held(&rig), SLOTS as u64);
    assert_eq!(rig.send(&udp4(99).fragment(32, 32)), FULL);
    // In order, all goes on.
    for at in [0, 32, 64, 96] {
        let f = udp4(99).fragment(at, 32);
        assert_eq!(rig.send(&f), tx(&f));
    }
    // What is released makes room, and what was refused may come again.
    assert_eq!(rig.send(&big(2).fragment(0, 16)), Outcome::Emitted);
    assert_eq!(rig.emitted().len(), 1 + MAX_PER_KEY);
    let again = big(2).fragment((MAX_PER_KEY + 1) * 16, 16);
    assert_eq!(rig.send(&again), tx(&again));
    assert_eq!(rig.send(&udp4(98).fragment(32, 32)), Outcome::Held);
    // So does what is given up.
    pass(&mut rig, TIMEOUT + Duration::from_nanos(1));
    assert_eq!(held(&rig), 0);
    assert_eq!(rig.drops(LAN, DropReason::FragmentNoFirst), (SLOTS - MAX_PER_KEY) as u64 + 1);
    assert_eq!(fill(&mut rig, 50), FULL);
}

#[test]
fn too_large_to_wait() {
    let mut net = Net::branch();
    for port in [LAN, WAN] {
        net.set_mtu(port, 9000);
    }
    let mut rig = Rig::new(net);
    let whole = Pkt::udp(HOST4, FAR4, 1, 2).payload(16_000);
    assert_eq!(rig.send(&whole.fragment(8000, 8000)), FULL);
    for at in [0, 8000] {
        assert!(rig.send(&whole.fragment(at, 8000)).is_tx());
    }
}

#[test]
fn a_first_that_does_not_pass_takes_the_others_with_it() {
    let mut net = Net::branch();
    net.acl = Acl::new(true).rule(Class::OutWan, false, "17 * * * 53-53");
    let mut rig = Rig::new(net);
    for at in [32, 64] {
        assert_eq!(rig.send(&udp4(1).fragment(at, 32)), Outcome::Held);
    }
    assert_eq!(rig.send(&udp4(1).fragment(0, 32)), Outcome::Drop(DropReason::AclDenied));
    assert_eq!(rig.send(&udp4(1).fragment(96, 32)), Outcome::Drop(DropReason::AclDenied));
    assert_eq!((held(&rig), rig.drops(LAN, DropReason::AclDenied)), (0, 4));
    assert_eq!(rig.emitted().len(), 1);
    // Reported once, never for a later fragment.
    let whole = udp4(2);
    let ttl = |at| whole.fragment(at, 32).ttl(1);
    assert_eq!(rig.send(&ttl(32)), Outcome::Held);
    rig.net.acl = Acl::new(true);
    rig.commit(|_| {});
    assert_eq!(rig.send(&ttl(0)), Outcome::Drop(DropReason::TtlExpired));
    assert_eq!(rig.drops(LAN, DropReason::TtlExpired), 2);
    assert_eq!(rig.emitted().len(), 1);
}

#[test]
fn a_first_that_waits_for_its_next_hop() {
    let mut net = Net::branch();
    net.unresolve(WAN, ROUTER4);
    let mut rig = Rig::new(net);
    let whole = udp4(1);
    for at in [64, 32, 0, 96] {
        assert_eq!(rig.send(&whole.fragment(at, 32)), Outcome::Held);
        assert_eq!(rig.emitted(), []);
    }
    assert_eq!((held(&rig), rig.sessions()), (4, (0, 0)));
    // It is complete: its number can be used again, by another flow even.
    let other = Pkt { id: 1, ..Pkt::udp(HOST4, FAR4, 4001, 53).payload(100) };
    assert_eq!(rig.send(&other.fragment(0, 32)), Outcome::Held);
    rig.change(|n| {
        n.neighbor(WAN, ROUTER4);
    });
    rig.poll();
    let want = [0, 64, 32, 96].map(|at| out(&whole.fragment(at, 32)));
    let mut sent = rig.emitted();
    assert_eq!(sent.pop(), Some(out(&other.fragment(0, 32))));
    assert_eq!(sent, want);
    // Each with the ports of its own first.
    assert_eq!((held(&rig), rig.sessions()), (0, (2, 0)));
}

#[test]
fn waiting_for_the_first_does_not_count_as_waiting_for_the_next_hop() {
    let mut net = Net::branch();
    net.unresolve(WAN, ROUTER4);
    let mut rig = Rig::new(net);
    assert_eq!(rig.send(&udp4(1).fragment(32, 32)), Outcome::Held);
    pass(&mut rig, TIMEOUT);
    assert_eq!(rig.send(&udp4(1).fragment(0, 32)), Outcome::Held);
    pass(&mut rig, Duration::from_secs(3));
    rig.change(|n| {
        n.neighbor(WAN, ROUTER4);
    });
    rig.poll();
    assert_eq!(rig.emitted().len(), 2);
}

#[test]
fn a_datagram_for_the_kernel() {
    let mut net = Net::branch();
    net.route("198.51.100.0/24", Route::Local);
    let mut rig = Rig::new(net);
    for at in [0, 32, 64, 96] {
        assert_eq!(rig.send(&udp4(1).fragment(at, 32)), Outcome::Kernel);
    }
    // What waited is a copy, and copies do not get there.
    assert_eq!(rig.send(&udp4(2).fragment(32, 32)), Outcome::Held);
    assert_eq!(rig.send(&udp4(2).fragment(0, 32)), Outcome::Kernel);
    assert_eq!(rig.send(&udp4(2).fragment(64, 32)), Outcome::Kernel);
    assert_eq!(rig.drops(LAN, DropReason::NoKernelPath), 1);
    assert_eq!(rig.pipe.counters.port(LAN).to_kernel.get(), 6);
    // To the gateway's own address nothing is followed at all.
    let own = Pkt::udp(HOST4, "192.168.1.1", 1, 2).payload(100);
    for at in [32, 32, 24, 0] {
        assert_eq!(rig.send(&own.fragment(at, 32)), Outcome::Kernel);
    }
}

#[test]
fn a_first_that_is_split_goes_ahead_too() {
    let mut net = Net::branch();
    let via = Some(ROUTER4.parse().unwrap());
    net.route("198.51.100.0/24", Route::Via(vec![Member { mtu: 600, ..Member::port(WAN, via, 1) }]));
    let mut rig = Rig::new(net);
    let whole = Pkt::udp(HOST4, FAR4, 1, 2).payload(1992);
    assert_eq!(rig.send(&whole.fragment(1000, 1000)), Outcome::Held);
    assert_eq!(rig.send(&whole.fragment(0, 1000)), Outcome::Emitted);
    let offsets: Vec<_> =
        rig.emitted().iter().map(|(_, f)| (u16::from_be_bytes([f[20], f[21]]) & 0x1FFF) * 8).collect();
    assert_eq!(offsets, [0, 576, 1000, 1576]);
    let c = &rig.pipe.counters;
    assert_eq!((c.port(LAN).forwarded.get(), c.port(WAN).originated.get()), (2, 2));
}

#[test]
fn refused_by_the_device() {
    let mut rig = Rig::branch();
    assert_eq!(rig.send(&udp4(1).fragment(32, 32)), Outcome::Held);
    rig.sent.refuse = true;
    assert_eq!(rig.send(&udp4(1).fragment(0, 32)), Outcome::Drop(DropReason::TxRingFull));
    assert_eq!(rig.drops(LAN, DropReason::TxRingFull), 2);
    assert_eq!(rig.pipe.counters.port(WAN).tx_packets.get(), 0);
}

#[test]
fn the_world_changes_while_a_fragment_waits() {
    let mut rig = Rig::branch();
    assert_eq!(rig.send(&udp4(1).fragment(32, 32)), Outcome::Held);
    let tagged = Pkt { src: "192.168.2.10".parse().unwrap(), ..udp4(1).into_port(LAN2) };
    assert_eq!(rig.send(&tagged.fragment(32, 32)), Outcome::Held);
    // The first one takes another way, and its datagram with it.
    rig.commit(|n| {
        n.via("198.51.100.0/24", LINE, "192.0.2.1");
    });
    for (p, len) in [(udp4(1), 2), (tagged, 2)] {
        assert_eq!(rig.send(&p.fragment(0, 32)), Outcome::Emitted);
        let sent = rig.emitted();
        assert_eq!(sent.len(), len);
        assert!(sent.iter().all(|(port, _)| *port == LINE));
        assert_eq!(sent[1].1, forwarded(&p.fragment(32, 32), LINE, "192.0.2.1"));
    }
}
