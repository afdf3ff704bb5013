//! Two gateways and the messages between them: flows that move, links that are cut, and any order of both.

use proptest::prelude::*;
use sag_ha::{Context, Engine, Meters, Names};
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Events, NatState};
use sag_pipeline::session::replica::{self, Found};
use sag_pipeline::session::{self, Ending};
use sag_pipeline::table::{DeferredFree, FlowTable, Grace};
use sag_pipeline::worker::Tables;
use sag_testkit::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:99::7";
const OWN: &str = "203.0.113.2";
const HOST6: &str = "2001:db8:1::10";

struct Gateway {
    rig: Rig,
    tables: Arc<Tables>,
    engine: Engine,
    /// Frames that are on their way to the other one.
    sent: Vec<Vec<u8>>,
}

fn context<'c>(tables: &'c Tables, rig: &'c Rig) -> Context<'c> {
    let meters = Meters { all: &[], now: rig.now };
    Context { tables, snap: &rig.snap, now: rig.now.tick(), meters }
}

fn net() -> Net {
    let mut n = Net::branch();
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    n.nat64("2001:db8:64::/96", &[], Behavior::EndpointIndependent);
    n
}

impl Gateway {
    fn new(decides: bool, sessions: u32) -> Gateway {
        let tables = Arc::new(Tables {
            v4: FlowTable::private(sessions, Grace::immediate()),
            v6: FlowTable::private(sessions, Grace::immediate()),
            nat: Arc::new(NatState::private(sessions)),
            first_fragments: Default::default(),
        });
        let engine = Engine::new(&tables, decides);
        Gateway { rig: Rig::over(net(), tables.clone(), 0, 1), tables, engine, sent: Vec::new() }
    }

    fn begin(&mut self) {
        let cx = context(&self.tables, &self.rig);
        self.engine.begin(&cx);
        self.sent.clear();
    }

    fn cut(&mut self) {
        let cx = context(&self.tables, &self.rig);
        self.engine.end(&cx);
        self.sent.clear();
    }

    /// Says what has changed.
    fn speak(&mut self) {
        let mut out = Vec::new();
        let cx = context(&self.tables, &self.rig);
        self.engine.collect(&cx, true, 60_000, &mut out);
        self.sent.push(out);
    }

    /// Hears what is on its way from the other one.
    fn hear(&mut self, other: &mut Gateway) {
        for frame in other.sent.drain(..) {
            let cx = context(&self.tables, &self.rig);
            self.engine.hear(&frame, &cx).unwrap();
        }
    }

    /// The session of a packet: whether it is the peer's; `None`: there is none.
    fn holds(&self, host: u16) -> Option<bool> {
        let is = |n: &u32| match replica::read(&self.tables.v4, *n, self.rig.now.tick()) {
            Found::Own(r) => (port(&r.key) == host).then_some(false),
            Found::Replica(r) => (port(&r.key) == host).then_some(true),
            Found::Nothing => None,
        };
        (1..self.tables.v4.used()).find_map(|n| is(&n))
    }

    fn live(&self) -> u32 {
        self.tables.v4.live() + self.tables.v6.live()
    }

    fn end_one(&mut self, host: u16) {
        let now = self.rig.now.tick();
        let found = (1..self.tables.v4.used()).find(|n| match replica::read(&self.tables.v4, *n, now) {
            Found::Own(r) | Found::Replica(r) => port(&r.key) == host,
            Found::Nothing => false,
        });
        if let Some(n) = found {
            let (mut deferred, mut events) = (DeferredFree::default(), Events::default());
            let ending = Ending { deferred: &mut deferred, events: &mut events, nat: &self.tables.nat };
            session::end(&self.tables.v4, n, &self.rig.snap, ending);
        }
    }
}

fn port(key: &sag_model::flow::Key4) -> u16 {
    (key.l4 as u16).swap_bytes()
}

fn pair(sessions: u32) -> (Gateway, Gateway) {
    let (mut a, mut b) = (Gateway::new(true, sessions), Gateway::new(false, sessions));
    a.begin();
    b.begin();
    (a, b)
}

/// Until both have heard everything.
fn settle(a: &mut Gateway, b: &mut Gateway) {
    for _ in 0..8 {
        a.speak();
        b.speak();
        b.hear(a);
        a.hear(b);
    }
}

fn out(host: u16) -> Pkt {
    Pkt::udp("192.168.1.10", FAR, host, 53)
}

fn answer(host: u16) -> Pkt {
    Pkt::udp(FAR, OWN, 53, host).into_port(WAN)
}

#[test]
fn a_gateway_that_comes_gets_everything_and_says_so() {
    let (mut a, mut b) = (Gateway::new(true, 1000), Gateway::new(false, 1000));
    for n in 0..200 {
        assert!(a.rig.send(&out(2000 + n)).is_tx());
    }
    for n in 0..100 {
        assert!(a.rig.send(&Pkt::tcp(HOST6, FAR6, 2000 + n, 80, TCP_SYN)).is_tx());
    }
    a.begin();
    b.begin();
    assert!(!b.engine.has_all() && !a.engine.peer_has_all());
    settle(&mut a, &mut b);
    assert_eq!((a.live(), b.live()), (300, 300));
    assert_eq!((sag_ha::replicas(&a.tables), sag_ha::replicas(&b.tables)), (0, 300));
    assert!(a.engine.has_all() && b.engine.has_all() && a.engine.peer_has_all() && b.engine.peer_has_all());
    let said = (a.engine.totals.sent, b.engine.totals.sent);
    assert_eq!(said, (300, 0), "each once, and nothing comes back");
    // The master is gone: what is here is the gateway's own and ends in its time.
    b.cut();
    assert_eq!((sag_ha::replicas(&b.tables), b.engine.totals.released), (0, 300));
    b.rig.wait(Duration::from_secs(400));
    assert_eq!(b.live(), 0);
    assert_eq!(b.tables.nat.totals.bindings.load(Relaxed), 0);
}

#[test]
fn what_ends_at_one_ends_at_the_other() {
    let (mut a, mut b) = pair(1000);
    for n in 0..50 {
        a.rig.send(&out(2000 + n));
    }
    settle(&mut a, &mut b);
    a.end_one(2007);
    settle(&mut a, &mut b);
    assert_eq!((a.live(), b.live(), b.holds(2007)), (49, 49, None));
    // The number is used again.
    a.rig.send(&out(3000));
    settle(&mut a, &mut b);
    assert_eq!((b.live(), b.holds(3000)), (50, Some(true)));
    // Ended and begun between two messages.
    a.end_one(3000);
    a.rig.send(&out(3001));
    settle(&mut a, &mut b);
    assert_eq!((b.live(), b.holds(3000), b.holds(3001)), (50, None, Some(true)));
    // What has gone over does not end with what its place had held.
    assert!(b.rig.send(&answer(2001)).is_tx());
    a.end_one(2001);
    settle(&mut a, &mut b);
    assert_eq!(b.holds(2001), Some(false), "it is the other one's by now");
    a.rig.wait(Duration::from_secs(400));
    settle(&mut a, &mut b);
    assert_eq!(a.live(), b.live());
}

#[test]
fn a_table_that_is_too_small_takes_what_fits() {
    let (mut a, mut b) = (Gateway::new(true, 1000), Gateway::new(false, 100));
    a.begin();
    b.begin();
    for n in 0..200 {
        a.rig.send(&out(2000 + n));
    }
    settle(&mut a, &mut b);
    assert_eq!((b.live(), b.engine.totals.full), (100, 100));
    assert_eq!(b.tables.nat.totals.bindings.load(Relaxed), 100);
    (0..200).for_each(|n| a.end_one(2000 + n));
    settle(&mut a, &mut b);
    assert_eq!((a.live(), b.live()), (0, 0));
}

/// After a cut link both have a session: who has seen its last packet keeps it, whichever of the two decides.
#[test]
fn after_a_cut_the_one_with_the_traffic_has_the_session() {
    for active_is_a in [true, false] {
        let (mut a, mut b) = pair(100);
        a.rig.send(&out(2000));
        settle(&mut a, &mut b);
        a.cut();
        b.cut();
        for _ in 0..10 {
            a.rig.now = a.rig.now + Duration::from_secs(5);
            b.rig.now = b.rig.now + Duration::from_secs(5);
            let active = if active_is_a { &mut a } else { &mut b };
            assert!(active.rig.send(&out(2000)).is_tx());
        }
        a.begin();
        b.begin();
        settle(&mut a, &mut b);
        assert_eq!((a.holds(2000), b.holds(2000)), (Some(!active_is_a), Some(active_is_a)));
    }
}

/// Both have begun a session of the same five-tuple, which NAT has given different ports.
#[test]
fn of_two_sessions_that_exclude_each_other_one_stays() {
    let (mut a, mut b) = (Gateway::new(true, 100), Gateway::new(false, 100));
    b.rig.send(&Pkt::udp("192.168.1.11", "198.51.100.8", 2000, 53));
    b.rig.send(&out(2000));
    b.rig.now = b.rig.now + Duration::from_secs(60);
    a.rig.now = b.rig.now;
    a.rig.send(&out(2000));
    let theirs = ends4(a.rig.send(&out(2000)).frame()).0;
    assert_ne!(ends4(b.rig.send(&out(2000)).frame()).0, theirs);
    b.rig.now = b.rig.now + Duration::from_secs(60);
    a.rig.now = b.rig.now;
    a.rig.send(&out(2000));
    a.begin();
    b.begin();
    settle(&mut a, &mut b);
    assert_eq!((a.holds(2000), b.live()), (Some(false), 2));
    assert_eq!(ends4(b.rig.send(&out(2000)).frame()).0, theirs, "as the one with the traffic had it");
}

#[test]
fn numbers_of_vrfs_are_each_gateways_own() {
    use sag_model::VrfNo;
    let vrf = |n| VrfNo::new(n).unwrap();
    let gateway = |decides, number| {
        let mut n = net();
        let guests = n.port_in(vrf(number), "guests", sag_model::Zone::Lan, (7, 0), &["10.9.0.1/24"]);
        n.via_in(vrf(number), "0.0.0.0/0", WAN, "203.0.113.1");
        n.neighbor(guests, "10.9.0.5");
        let mut g = Gateway::new(decides, 100);
        g.rig = Rig::over(n, g.tables.clone(), 0, 1);
        (g, guests)
    };
    let names = |number| Names { vrfs: [("guests".to_owned(), number)].into(), ports: Default::default() };
    let ((mut a, port_a), (mut b, port_b)) = (gateway(true, 3), gateway(false, 5));
    let ask = |port: sag_model::PortIdx| {
        let mac = sag_model::MacAddr([2, 0, 0, 0, 1, port.0]);
        Pkt::udp("10.9.0.5", FAR, 2000, 53).link(mac, sag_model::MacAddr([2, 0xFE, 0, 0, 0, 1]), 0).build()
    };
    a.engine.set_names(names(3));
    a.begin();
    b.begin();
    let want = a.rig.frame(7, &ask(port_a));
    assert!(want.is_tx(), "{want:?}");
    settle(&mut a, &mut b);
    assert_eq!((b.live(), b.engine.totals.unknown_vrf > 0), (0, true), "it has no such VRF");
    b.engine.set_names(names(5));
    settle(&mut a, &mut b);
    assert_eq!(b.live(), 1, "it has asked again");
    let got = b.rig.frame(7, &ask(port_b));
    assert_eq!(ends4(got.frame()), ends4(want.frame()));
    assert_eq!(b.live(), 1, "by the session that was there");
}

#[test]
fn what_no_gateway_says_ends_the_link() {
    let (mut a, _) = pair(100);
    let cx = context(&a.tables, &a.rig);
    for wrong in [&[0u8][..], &[99], &[1, 9, 0], &[3, 0, 0, 0, 0], &[2, 7, 0, 0], &[8, 2]] {
        assert!(a.engine.hear(wrong, &cx).is_err(), "{wrong:?}");
    }
    assert_eq!(a.live(), 0);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Packet { at: usize, host: u16, reply: bool },
    Speak(usize),
    Hear(usize),
    End { at: usize, host: u16 },
    Cut,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 2000..2006u16, any::<bool>()).prop_map(|(at, host, reply)| Step::Packet { at, host, reply }),
        4 => (0..2usize).prop_map(Step::Speak),
        4 => (0..2usize).prop_map(Step::Hear),
        1 => (0..2usize, 2000..2006u16).prop_map(|(at, host)| Step::End { at, host }),
        1 => Just(Step::Cut),
        1 => (1..20u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, once both have heard everything each session has one gateway that ages it, and
    /// both translate it alike.
    #[test]
    fn in_the_end_one_of_the_two_has_each_session(steps in prop::collection::vec(step(), 1..80)) {
        let (a, b) = pair(64);
        let mut both = [a, b];
        for step in steps {
            match step {
                Step::Packet { at, host, reply } => {
                    let p = if reply { answer(host) } else { out(host) };
                    both[at].rig.send(&p);
                }
                Step::Speak(at) => both[at].speak(),
                Step::Hear(at) => {
                    let [a, b] = &mut both;
                    if at == 0 { a.hear(b) } else { b.hear(a) }
                }
                // A copy that is ended, for want of room or by an operator, is there again with the next change; so is a
                // session that has just come, of which the other one does not know yet that it has gone.
                Step::End { at, host }
                    if both[at].holds(host) == Some(false) && both[1 - at].holds(host) != Some(false) =>
                {
                    both[at].end_one(host);
                }
                Step::End { .. } => {}
                Step::Cut => {
                    both.iter_mut().for_each(Gateway::cut);
                    both.iter_mut().for_each(Gateway::begin);
                }
                Step::Wait(seconds) => {
                    both.iter_mut().for_each(|g| g.rig.wait(Duration::from_secs(seconds)));
                }
            }
        }
        let [a, b] = &mut both;
        settle(a, b);
        for host in 2000..2006 {
            match (a.holds(host), b.holds(host)) {
                (None, None) | (Some(false), Some(true)) | (Some(true), Some(false)) => {}
                other => prop_assert!(false, "host {host}: {other:?}"),
            }
        }
        prop_assert_eq!(a.live(), b.live());
        let bindings = |g: &Gateway| g.tables.nat.totals.bindings.load(Relaxed);
        prop_assert_eq!(bindings(a), bindings(b));
        // Both are idle: everything ends.
        for _ in 0..3 {
            a.rig.wait(Duration::from_secs(400));
            b.rig.wait(Duration::from_secs(400));
            settle(a, b);
        }
        prop_assert_eq!((a.live(), b.live()), (0, 0));
        prop_assert_eq!((bindings(a), bindings(b)), (0, 0));
    }

    /// Any bytes are either messages or refused.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut a, _) = pair(16);
        let _ = a.engine.hear(&bytes, &context(&a.tables, &a.rig));
        a.rig.poll();
    }
}
