//! Sessions that move from one gateway to another and back: what leaves is the same wherever a packet comes in.

use sag_model::{DropReason, Nanos};
use sag_packet::proto::*;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::nat::{Behavior, Events, Kind, NatProtocol, NatState};
use sag_pipeline::session::replica::{self, Found};
use sag_pipeline::session::{self, Ending, State};
use sag_pipeline::table::{DeferredFree, FlowTable, Grace, NotCreated};
use sag_pipeline::worker::Tables;
use sag_testkit::*;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const HOST: &str = "192.168.1.10";
const HOST6: &str = "2001:db8:1::10";
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:99::7";
const OWN: &str = "203.0.113.2";
const SYNACK: u8 = TCP_SYN | TCP_ACK;

/// A gateway, and its tables, which the one that reads them shares.
struct Gateway {
    rig: Rig,
    tables: Arc<Tables>,
}

impl Gateway {
    fn sized(net: Net, sessions: u32) -> Gateway {
        let tables = Arc::new(Tables {
            v4: FlowTable::private(sessions, Grace::immediate()),
            v6: FlowTable::private(sessions, Grace::immediate()),
            nat: Arc::new(NatState::private(sessions)),
            first_fragments: Default::default(),
        });
        tables.v4.track_changes(true);
        tables.v6.track_changes(true);
        Gateway { rig: Rig::over(net, tables.clone(), 0, 1), tables }
    }

    fn new(net: Net) -> Gateway {
        Gateway::sized(net, 1000)
    }

    #[track_caller]
    fn passes(&mut self, p: &Pkt) -> Vec<u8> {
        match self.rig.send(p) {
            Outcome::Tx(_, mut frame) => {
                // The identification of IPv4, and with it the header's checksum, is each gateway's own.
                if frame[12..14] == [8, 0] {
                    frame[18..20].fill(0);
                    frame[24..26].fill(0);
                }
                frame
            }
            other => panic!("{other:?}: {p:?}"),
        }
    }

    fn live(&self) -> u32 {
        self.tables.v4.live() + self.tables.v6.live()
    }

    fn replicas(&self) -> usize {
        fn of<R: FlowFamily>(t: &FlowTable<R>, now: Nanos) -> usize {
            let is = |n: &u32| matches!(replica::read(t, *n, now.tick()), Found::Replica(_));
            (1..t.used()).filter(is).count()
        }
        of(&self.tables.v4, self.rig.now) + of(&self.tables.v6, self.rig.now)
    }

    /// Takes over what has changed at another gateway.
    fn follow(&mut self, from: &Gateway) {
        self.follow_table(&from.tables.v4, |t| &t.v4);
        self.follow_table(&from.tables.v6, |t| &t.v6);
    }

    fn follow_table<R: FlowFamily>(&mut self, from: &FlowTable<R>, mine: fn(&Tables) -> &FlowTable<R>) {
        let (now, table) = (self.rig.now.tick(), mine(&self.tables));
        for session in changed(from) {
            let Found::Own(r) = replica::read(from, session, now) else { continue };
            match table.find(&r.key, table.hash(&r.key)) {
                Some(no) => {
                    replica::yield_to_peer(table, no.session());
                    replica::update(table, no.session(), &r, now);
                }
                None => {
                    let by = (&*self.tables.nat, &self.rig.snap);
                    replica::install(table, by, &r, now, &mut DeferredFree::default()).unwrap();
                }
            }
        }
    }

    /// The other gateway is gone.
    fn alone(&mut self) {
        let now = self.rig.now.tick();
        (1..self.tables.v4.used()).for_each(|n| _ = replica::release(&self.tables.v4, n, now));
        (1..self.tables.v6.used()).for_each(|n| _ = replica::release(&self.tables.v6, n, now));
    }

    fn end_all(&mut self) {
        let mut events = Events::default();
        for n in 1..self.tables.v4.used() {
            let mut deferred = DeferredFree::default();
            let ending = Ending { deferred: &mut deferred, events: &mut events, nat: &self.tables.nat };
            session::end(&self.tables.v4, n, &self.rig.snap, ending);
        }
        for n in 1..self.tables.v6.used() {
            let mut deferred = DeferredFree::default();
            let ending = Ending { deferred: &mut deferred, events: &mut events, nat: &self.tables.nat };
            session::end(&self.tables.v6, n, &self.rig.snap, ending);
        }
    }
}

/// The sessions that have changed since the last call.
fn changed<R: FlowFamily>(t: &FlowTable<R>) -> Vec<u32> {
    let bits = |block| (t.take_changes(block), block * 64);
    let of = |(bits, first): (u64, u32)| (0..64).filter(move |b| bits >> b & 1 != 0).map(move |b| first + b);
    (0..t.change_blocks()).map(bits).flat_map(of).collect()
}

fn net() -> Net {
    use Behavior::{AddressDependent, EndpointIndependent};
    let mut n = Net::branch();
    n.wan_snat(WAN, EndpointIndependent, AddressDependent);
    n.dnat(Kind::Internet, "", "192.168.1.10", Some((TCP, 80, 80, 1000)));
    n.dnat(Kind::Internet, "203.0.113.50", "192.168.1.11", None);
    n.static_nat(Kind::Internet, "2001:db8:1::/64", "2001:db8:f1::/64");
    n.static_nat(Kind::Internet, "192.168.2.0/24", "198.18.2.0/24");
    n.nat64("2001:db8:64::/96", &[], EndpointIndependent);
    n
}

/// A flow: what its initiator sends, and what the other side answers to what has left.
struct Flow {
    name: &'static str,
    out: Pkt,
    answer: Pkt,
}

fn flow(name: &'static str, out: Pkt, answer: Pkt) -> Flow {
    Flow { name, out, answer }
}

/// The packet with other flags, if it is of TCP.
fn with_flags(p: &Pkt, flags: u8) -> Pkt {
    let mut p = p.clone();
    if p.proto == TCP {
        p.l4[13] = flags;
        p.fix_l4();
    }
    p
}

fn flows() -> Vec<Flow> {
    let far6 = "2001:db8:64::c633:6407";
    vec![
        flow(
            "SNAT, TCP",
            Pkt::tcp(HOST, FAR, 4000, 443, TCP_ACK),
            Pkt::tcp(FAR, OWN, 443, 4000, TCP_ACK).into_port(WAN),
        ),
        flow("SNAT, UDP", Pkt::udp(HOST, FAR, 4001, 53), Pkt::udp(FAR, OWN, 53, 4001).into_port(WAN)),
        flow("SNAT, echo", Pkt::echo(HOST, FAR, 77, false), Pkt::echo(FAR, OWN, 77, true).into_port(WAN)),
        flow(
            "DNAT",
            Pkt::tcp(FAR, OWN, 5000, 80, TCP_ACK).into_port(WAN),
            Pkt::tcp(HOST, FAR, 1000, 5000, TCP_ACK),
        ),
        flow(
            "one to one",
            Pkt::udp(FAR, "203.0.113.50", 5000, 7).into_port(WAN),
            Pkt::udp("192.168.1.11", FAR, 7, 5000),
        ),
        flow(
            "network",
            Pkt::udp("192.168.2.10", FAR, 9, 9).into_port(LAN2),
            Pkt::udp(FAR, "198.18.2.10", 9, 9).into_port(WAN),
        ),
        flow(
            "NPTv6",
            Pkt::tcp(HOST6, FAR6, 4000, 443, TCP_ACK),
            Pkt::tcp(FAR6, "2001:db8:f1:0:ff0f::10", 443, 4000, TCP_ACK).into_port(WAN),
        ),
        flow("NAT64", Pkt::udp(HOST6, far6, 6000, 53), Pkt::udp(FAR, OWN, 53, 6000).into_port(WAN)),
        flow(
            "NAT64, TCP",
            Pkt::tcp(HOST6, far6, 6001, 443, TCP_ACK),
            Pkt::tcp(FAR, OWN, 443, 6001, TCP_ACK).into_port(WAN),
        ),
        flow("plain", Pkt::udp(HOST, "10.20.0.1", 1, 2), Pkt::udp("10.20.0.1", HOST, 2, 1).into_port(LINE)),
        flow(
            "plain IPv6",
            Pkt::tcp(HOST6, "2001:db8:20::1", 1, 2, TCP_ACK),
            Pkt::tcp("2001:db8:20::1", HOST6, 2, 1, TCP_ACK).into_port(LINE),
        ),
    ]
}

/// Every kind of translation goes there and back twice, whichever side sends first at the new place.
#[test]
fn flows_move_and_come_back() {
    let (mut a, mut b) = (Gateway::new(net()), Gateway::new(net()));
    let flows = flows();
    let mut frames = Vec::new();
    for f in &flows {
        a.passes(&with_flags(&f.out, TCP_SYN));
        a.passes(&with_flags(&f.answer, SYNACK));
        frames.push((a.passes(&f.out), a.passes(&f.answer)));
    }
    let sessions = a.live();
    assert_eq!(sessions, flows.len() as u32);
    b.follow(&a);
    assert_eq!((b.live(), b.replicas()), (sessions, sessions as usize));
    let bindings = |g: &Gateway| g.tables.nat.totals.bindings.load(Relaxed);
    assert_eq!(bindings(&a), bindings(&b), "each port is the same host's at both");
    for round in 0..2 {
        for (f, (out, answer)) in flows.iter().zip(&frames) {
            let first_out = round == 0;
            for at in [first_out, !first_out] {
                let (p, want) = if at { (&f.out, out) } else { (&f.answer, answer) };
                assert_eq!(&b.passes(p), want, "{}: {p:?}", f.name);
                assert_eq!(&b.passes(p), want, "{}, by its record: {p:?}", f.name);
            }
        }
        assert_eq!((b.live(), b.replicas()), (sessions, 0), "they are its own with their first packet");
        a.follow(&b);
        assert_eq!((a.live(), a.replicas()), (sessions, sessions as usize));
        std::mem::swap(&mut a, &mut b);
    }
    for mut g in [a, b] {
        g.end_all();
        assert_eq!((g.live(), bindings(&g)), (0, 0), "nothing is left of them");
        assert_eq!(g.tables.nat.hosts().all().count(), 0);
        assert_eq!(g.tables.nat.filter_entries().all().count(), 0);
    }
}

/// Flags of a segment, and whether the initiator sends it.
type Segment = (u8, bool);

/// The state goes with a connection, so that each ends when it would have ended at the other gateway.
#[test]
fn states_go_along() {
    let steps: [(&[Segment], State, u64); 6] = [
        (&[(TCP_SYN, true)], State::TcpSyn, 30),
        (&[(TCP_SYN, true), (SYNACK, false)], State::TcpSynAck, 30),
        (&[(TCP_SYN, true), (SYNACK, false), (TCP_ACK, true)], State::TcpOpen, 7440),
        (
            &[(TCP_SYN, true), (SYNACK, false), (TCP_ACK, true), (TCP_FIN | TCP_ACK, false)],
            State::TcpClosing,
            7440,
        ),
        (
            &[(TCP_SYN, true), (SYNACK, false), (TCP_FIN | TCP_ACK, true), (TCP_FIN | TCP_ACK, false)],
            State::TcpClosed,
            240,
        ),
        (&[(TCP_SYN, true), (SYNACK, false), (TCP_ACK, true), (TCP_RST, true)], State::TcpReset, 240),
    ];
    let ends = [
        (Pkt::tcp(HOST, FAR, 4000, 443, 0), Pkt::tcp(FAR, OWN, 443, 4000, 0).into_port(WAN)),
        (
            Pkt::tcp(HOST6, FAR6, 4000, 443, 0),
            Pkt::tcp(FAR6, "2001:db8:f1:0:ff0f::10", 443, 4000, 0).into_port(WAN),
        ),
    ];
    for (out, answer) in &ends {
        for (segments, state, seconds) in steps {
            let (mut a, mut b) = (Gateway::new(net()), Gateway::new(net()));
            // One after the other, so that what follows changes a replica that is there.
            for &(flags, outward) in segments {
                a.passes(&with_flags(if outward { out } else { answer }, flags));
                // The handshake that XDP has seen completed is noted by the sweep.
                a.rig.wait(Duration::from_millis(1));
                b.follow(&a);
            }
            let of = |g: &Gateway| session::state_of(&g.tables.v4, 1).or(session::state_of(&g.tables.v6, 1));
            assert_eq!((of(&a), of(&b)), (Some(state), Some(state)));
            b.rig.wait(Duration::from_secs(10_000));
            assert_eq!(b.live(), 1, "who has it ages it");
            b.alone();
            b.rig.wait(Duration::from_secs(seconds) - Duration::from_secs(1));
            assert_eq!((b.live(), of(&b)), (1, Some(state)), "as if its last packet had come with the loss");
            b.rig.wait(Duration::from_secs(2));
            assert_eq!(b.live(), 0, "{state:?}");
        }
    }
}

/// The address of the translation comes after the sessions, and after the first packets of them.
#[test]
fn a_session_waits_for_its_address() {
    use Behavior::EndpointIndependent;
    let with = |address: &str| {
        let mut n = Net::empty();
        n.port("lan", sag_model::Zone::Lan, DEV_LAN, 0, &["192.168.1.1/24"]);
        n.port("wan", sag_model::Zone::Wan, DEV_WAN, 0, &[address]);
        n.via("0.0.0.0/0", WAN, "203.0.113.1");
        n.neighbor(LAN, HOST);
        n.neighbor(WAN, "203.0.113.1");
        n.wan_snat(WAN, EndpointIndependent, EndpointIndependent);
        n
    };
    let (mut a, mut b) = (Gateway::new(with("203.0.113.2/24")), Gateway::new(with("203.0.113.9/24")));
    let out = Pkt::udp(HOST, FAR, 4000, 53);
    let other = Pkt::udp(HOST, FAR, 4001, 53);
    let want = a.passes(&out);
    a.passes(&other);
    b.follow(&a);
    b.alone();
    let is_lost =
        |b: &mut Gateway, p: &Pkt| assert_eq!(b.rig.send(p), Outcome::Drop(DropReason::NatNoAddress));
    is_lost(&mut b, &out);
    b.rig.wait(Duration::from_secs(4));
    is_lost(&mut b, &out);
    b.rig.commit(|n| {
        n.ports[WAN.index()].addrs4 = vec![(Ipv4Addr::new(203, 0, 113, 2), 24)];
    });
    let mut events = Events::default();
    let now = b.rig.now.tick();
    let bound = |b: &Gateway, n, events: &mut Events| {
        replica::bind_late(&b.tables.v4, (&b.tables.nat, &b.rig.snap), n, now, events)
    };
    let held = |b: &Gateway| {
        b.tables.nat.pool_of(Ipv4Addr::new(203, 0, 113, 2)).unwrap().inside(NatProtocol::Udp, 4000)
    };
    assert_eq!(held(&b), None, "nobody has the port yet");
    assert!(bound(&b, 1, &mut events) && bound(&b, 2, &mut events));
    assert!(!bound(&b, 1, &mut events), "once");
    assert_eq!(held(&b).map(|(inside, _)| inside), Some(end(HOST, 4000)));
    assert_eq!(b.passes(&out), want, "it was not renumbered");
    let answer = Pkt::udp(FAR, "203.0.113.2", 53, 4000).into_port(WAN);
    assert_eq!(b.passes(&answer), a.passes(&answer));
    b.end_all();
    assert_eq!(held(&b), None);
    assert_eq!(b.tables.nat.hosts().all().count(), 0);

    // Where the address never comes, the host gets another one soon.
    let mut c = Gateway::new(with("203.0.113.9/24"));
    a.passes(&out);
    a.tables.v4.mark_changed(1);
    c.follow(&a);
    is_lost(&mut c, &out);
    c.rig.wait(Duration::from_secs(6));
    assert_eq!(ends4(&c.passes(&out)).0, end("203.0.113.9", 4000));
    assert_eq!(c.live(), 1);
}

/// The address goes to the other gateway while packets still come: the session does not end here, so it does not end there.
#[test]
fn a_session_outlives_its_address_while_it_goes_over() {
    let mut a = Gateway::new(net());
    let flows = [Pkt::udp(HOST, FAR, 4000, 53), Pkt::tcp(HOST6, "2001:db8:64::c633:6407", 4001, 80, TCP_SYN)];
    flows.iter().for_each(|out| drop(a.passes(out)));
    let take_away = |a: &mut Gateway| a.rig.commit(|n| n.ports[WAN.index()].addrs4.clear());
    let moved = |a: &Gateway, at| {
        a.tables.v4.set_addresses_moved(at);
        a.tables.v6.set_addresses_moved(at);
    };
    moved(&a, Some(a.rig.now.tick()));
    take_away(&mut a);
    for out in &flows {
        assert_eq!(a.rig.send(out), Outcome::Drop(DropReason::NatNoAddress), "{out:?}");
    }
    assert_eq!(a.live(), 2);
    // Nobody has taken them.
    a.rig.now = a.rig.now + Duration::from_secs(6);
    flows.iter().for_each(|out| assert!(!a.rig.send(out).is_tx()));
    assert_eq!(a.live(), 0);
    // Without another gateway they end at once, as ever.
    let mut a = Gateway::new(net());
    flows.iter().for_each(|out| drop(a.passes(out)));
    moved(&a, None);
    take_away(&mut a);
    flows.iter().for_each(|out| assert!(!a.rig.send(out).is_tx()));
    assert_eq!(a.live(), 0);
}

/// What a session has been at the other gateway is not known here: neither how far its hosts have got, nor that its address
/// is on its way back.
#[test]
fn a_session_that_comes_back_is_like_one_that_has_just_come() {
    let numbered = |p: &Pkt, flags: u8, seq: u32, ack: u32| {
        let mut p = with_flags(p, flags);
        p.l4[4..8].copy_from_slice(&seq.to_be_bytes());
        p.l4[8..12].copy_from_slice(&ack.to_be_bytes());
        p.fix_l4();
        p
    };
    let ends = [
        (Pkt::tcp(HOST, FAR, 4000, 443, 0), Pkt::tcp(FAR, OWN, 443, 4000, 0).into_port(WAN)),
        (
            Pkt::tcp(HOST6, FAR6, 4000, 443, 0),
            Pkt::tcp(FAR6, "2001:db8:f1:0:ff0f::10", 443, 4000, 0).into_port(WAN),
        ),
    ];
    for (out, answer) in &ends {
        let (mut a, mut b) = (Gateway::new(net()), Gateway::new(net()));
        a.passes(&numbered(out, TCP_SYN, 1000, 0));
        a.passes(&numbered(answer, SYNACK, 5000, 1001));
        a.passes(&numbered(out, TCP_ACK, 1001, 5001));
        let reset = numbered(answer, TCP_RST, 5000 + (1 << 30), 0);
        assert_eq!(a.rig.send(&reset), Outcome::Drop(DropReason::TcpOutOfWindow));
        b.follow(&a);
        b.passes(&numbered(out, TCP_ACK, 1001, 5001));
        a.follow(&b);
        assert_eq!(a.replicas(), 1);
        assert!(a.rig.send(&reset).is_tx(), "{out:?}");
    }
    let (mut a, mut b) = (Gateway::new(net()), Gateway::new(net()));
    let (out, other) = (Pkt::udp(HOST, FAR, 4000, 53), Pkt::udp(HOST, FAR, 4001, 53));
    let want = a.passes(&out);
    a.passes(&other);
    b.follow(&a);
    b.passes(&out);
    b.passes(&other);
    a.follow(&b);
    assert_eq!(a.replicas(), 2);
    let addresses = a.rig.net.ports[WAN.index()].addrs4.clone();
    a.rig.commit(|n| n.ports[WAN.index()].addrs4.clear());
    a.rig.now = a.rig.now + Duration::from_secs(60);
    assert_eq!(a.rig.send(&out), Outcome::Drop(DropReason::NatNoAddress));
    a.rig.commit(|n| n.ports[WAN.index()].addrs4 = addresses);
    assert_eq!(a.passes(&out), want);
    assert_eq!((a.live(), a.replicas()), (2, 1));
}

/// Packets that are faster than the news of a route get no error: it would end a connection that is about to go on.
#[test]
fn a_session_waits_for_its_route() {
    let (mut a, mut b) = (Gateway::new(net()), Gateway::new(net()));
    let out = Pkt::udp(HOST, FAR, 4000, 53);
    let want = a.passes(&out);
    b.follow(&a);
    b.alone();
    let known = b.rig.net.routes.clone();
    b.rig.commit(|n| n.routes.retain(|((_, len), _)| *len != 0));
    assert_eq!(b.rig.send(&out), Outcome::Drop(DropReason::NoRoute));
    assert!(b.rig.emitted().is_empty(), "no error");
    b.rig.now = b.rig.now + Duration::from_secs(6);
    assert_eq!(b.rig.send(&out), Outcome::Drop(DropReason::NoRoute));
    assert_eq!(b.rig.emitted().len(), 1, "the host is told that there is no way");
    b.rig.commit(|n| n.routes = known);
    assert_eq!(b.passes(&out), want);
}

/// Sessions that do not fit change nothing: neither what is there nor what NAT has given.
#[test]
fn what_does_not_fit_is_not_installed() {
    let (mut a, mut b) = (Gateway::new(net()), Gateway::sized(net(), 4));
    for n in 0..8 {
        a.passes(&Pkt::udp(HOST, FAR, 4000 + n, 53));
    }
    let now = a.rig.now.tick();
    let mut deferred = DeferredFree::default();
    let mut install = |b: &Gateway, n| match replica::read(&a.tables.v4, n, now) {
        Found::Own(r) => replica::install(&b.tables.v4, (&b.tables.nat, &b.rig.snap), &r, now, &mut deferred),
        other => panic!("{other:?}"),
    };
    assert_eq!([1, 2].map(|n| install(&b, n)), [Ok(1), Ok(2)]);
    assert!(matches!(install(&b, 2), Err(NotCreated::Exists(_))));
    assert_eq!(b.tables.nat.totals.bindings.load(Relaxed), 2);
    let made: Vec<_> = (3..=8).map(|n| install(&b, n)).collect();
    assert_eq!(made.iter().filter(|m| m.is_ok()).count(), 2, "{made:?}");
    assert!(made[2..].iter().all(|m| *m == Err(NotCreated::Full)), "{made:?}");
    assert_eq!(b.tables.nat.totals.bindings.load(Relaxed), 4);
    b.end_all();
    assert_eq!(b.tables.nat.totals.bindings.load(Relaxed), 0);
    assert_eq!(b.tables.nat.hosts().all().count(), 0);
}

/// A flow whose packets come to both gateways at once goes on at both.
#[test]
fn whoever_gets_the_packet_has_the_session() {
    let (mut a, mut b) = (Gateway::new(net()), Gateway::new(net()));
    let f = &flows()[0];
    a.passes(&with_flags(&f.out, TCP_SYN));
    a.passes(&with_flags(&f.answer, SYNACK));
    let (out, answer) = (a.passes(&f.out), a.passes(&f.answer));
    b.follow(&a);
    for _ in 0..5 {
        assert_eq!(b.passes(&f.answer), answer);
        a.follow(&b);
        assert_eq!((a.replicas(), b.replicas()), (1, 0));
        assert_eq!(a.passes(&f.out), out);
        b.follow(&a);
        assert_eq!((a.replicas(), b.replicas()), (0, 1));
    }
    // Both have it: what one of them does not know yet changes nothing.
    b.passes(&f.answer);
    assert_eq!((a.passes(&f.out), b.passes(&f.answer)), (out, answer));
    assert_eq!((a.live(), b.live()), (1, 1));
}

/// Only what another gateway needs to know is a change.
#[test]
fn packets_of_an_established_flow_are_no_change() {
    let mut a = Gateway::new(net());
    for f in &flows() {
        let (table4, table6) = (a.tables.clone(), a.tables.clone());
        let changes = || changed(&table4.v4).len() + changed(&table6.v6).len();
        a.passes(&with_flags(&f.out, TCP_SYN));
        assert_eq!(changes(), 1, "{}: it begins", f.name);
        a.passes(&with_flags(&f.answer, SYNACK));
        assert_eq!(changes(), 1, "{}: it is answered", f.name);
        a.passes(&f.out);
        a.rig.wait(Duration::from_millis(1));
        changes();
        for _ in 0..3 {
            a.passes(&f.out);
            a.passes(&f.answer);
        }
        a.rig.wait(Duration::from_millis(1));
        assert_eq!(changes(), 0, "{}", f.name);
    }
    a.end_all();
    assert_eq!(changed(&a.tables.v4).len() + changed(&a.tables.v6).len(), flows().len(), "each ends");
}
