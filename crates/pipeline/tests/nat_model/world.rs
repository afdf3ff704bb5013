//! The pipeline and the model side by side.

use crate::model::{Begin, Config, ErrorSeen, Fwd, Model, Packet, Place, Seen, Session, Ways, What, way};
use sag_model::config::{self, NatBehaviors};
use sag_model::time::Tick;
use sag_model::{DropReason, PortIdx, Zone};
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Endpoint, Kind, NatProtocol, NatState, SessionTuple};
use sag_pipeline::session::{self, State};
use sag_pipeline::snapshot::Timeouts;
use sag_pipeline::table::{FlowTable, Grace};
use sag_pipeline::worker::Tables;
use sag_testkit::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use Behavior::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei};

const HOSTS: [&str; 3] = ["192.168.1.10", "192.168.1.11", "192.168.2.10"];
const FAR: [&str; 4] = ["198.51.100.7", "198.51.100.8", "10.20.0.5", "10.20.0.6"];
const WAN_ADDRS: [&str; 2] = ["203.0.113.2", "203.0.113.77"];
const EXTERNAL: [&str; 6] =
    ["203.0.113.2", "203.0.113.77", "203.0.113.50", "10.99.0.1", "10.99.0.7", "192.0.2.2"];
const INSIDE_PORTS: [u16; 8] = [4000, 4000, 4001, 4002, 500, 501, 80, 53];
const FAR_PORTS: [u16; 4] = [53, 80, 4000, 40000];
const SECONDS: [u64; 8] = [7, 23, 47, 101, 199, 331, 809, 7500];
/// Routers that send ICMP errors, by zone.
const ROUTERS: [(Zone, &str); 3] =
    [(Zone::Lan, "172.16.9.9"), (Zone::Wan, "198.18.0.1"), (Zone::Overlay, "10.20.0.99")];
const FLAGS: [u8; 10] = [
    TCP_SYN,
    TCP_SYN | TCP_RST,
    TCP_SYN,
    TCP_SYN | TCP_ACK,
    TCP_ACK,
    TCP_ACK,
    TCP_FIN | TCP_ACK,
    TCP_FIN | TCP_ACK,
    TCP_RST,
    TCP_RST | TCP_ACK,
];

fn addr(s: &str) -> Ipv4Addr {
    s.parse().expect("an address")
}

/// What came up in a story.
#[derive(Debug, Default)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

pub struct World {
    pub model: Model,
    rigs: Vec<Rig>,
    tables: Arc<Tables>,
    rng: Rng,
    ids: u16,
    /// Identifications that the receiver of a translated datagram has seen of its source.
    seen_ids: BTreeSet<(IpAddr, IpAddr, u8, u16)>,
    /// Every binding that ever admitted somebody: none may do so at the end.
    filter_entries: BTreeSet<(Place, Ipv4Addr)>,
    pub tally: Tally,
}

fn timeouts() -> Timeouts {
    let t = config::Timeouts::default();
    let ticks = |s: u32| Tick::of(Duration::from_secs(s.into()));
    Timeouts {
        tcp_established: ticks(t.tcp_established),
        tcp_transitory: ticks(t.tcp_transitory),
        tcp_syn: ticks(t.tcp_syn),
        // So short that it is not shortened when ports get short.
        tcp_refused: ticks(10),
        udp: ticks(t.udp),
        icmp: ticks(t.icmp),
        other: ticks(t.other),
    }
}

fn configure(n: &mut Net, c: &Config) {
    n.ports[WAN.index()].addrs4[0].0 = c.wan_addr;
    n.nat.wan.clear();
    n.nat.pools.clear();
    n.nat.dnat.clear();
    if let Some((mapping, filtering)) = c.wan_snat {
        n.wan_snat(WAN, mapping, filtering);
    }
    if let Some((addr, (mapping, filtering))) = c.private {
        n.snat("192.168.0.0/16", &addr.to_string(), mapping, filtering);
    }
    for f in &c.dnat {
        let from = f.external.map_or(String::new(), |a| a.to_string());
        n.dnat(f.kind, &from, &f.inside.to_string(), f.ports);
    }
    n.nat.hairpin = c.hairpin;
    n.nat.limits.host_sessions = c.host_limit.map(|l| l as u32);
    n.nat.limits.range = c.range.clone();
    n.nat.limits.port_block = c.block;
}

fn branch(c: &Config) -> Net {
    let mut n = Net::branch();
    n.ports.iter_mut().for_each(|p| p.reverse_path = sag_model::config::ReversePath::Off);
    n.options.timeouts = timeouts();
    // Whoever is refused is notified.
    n.options.icmp_rate = 1_000_000;
    for a in WAN_ADDRS.iter().chain(&["203.0.113.50"]) {
        n.neighbor(WAN, a);
    }
    configure(&mut n, c);
    n
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let block = rng.once_in(5).then_some(64);
        let default = NatBehaviors::default();
        assert_eq!(
            (default.mapping.to_string(), default.filtering.to_string()),
            ("endpoint-independent".into(), "address-dependent".into())
        );
        let range = match block {
            Some(_) => 1024..=1343,
            None => rng.pick(&[(4000, 4015), (1024, 65535), (4000, 4063)]).into_range(),
        };
        let mut cfg = Config {
            wan_addr: addr(WAN_ADDRS[0]),
            wan_snat: Some((Ei, Ad)),
            private: None,
            dnat: Vec::new(),
            hairpin: true,
            host_limit: None,
            range,
            block,
        };
        for _ in 0..rng.below(5) {
            change(&mut rng, &mut cfg);
        }
        let workers = 1 + rng.below(2) as u32;
        let tables = Arc::new(Tables {
            v4: FlowTable::private(1000, Grace::immediate()),
            v6: FlowTable::private(16, Grace::immediate()),
            nat: Arc::new(NatState::private(1000)),
            first_fragments: Default::default(),
        });
        let rigs = (0..workers).map(|w| {
            let mut r = Rig::over(branch(&cfg), tables.clone(), w, workers);
            r.pipe.seed(seed * 7 + u64::from(w));
            r
        });
        let rigs = rigs.collect();
        World {
            model: Model::new(cfg),
            rigs,
            tables,
            rng,
            ids: 0,
            seen_ids: BTreeSet::new(),
            filter_entries: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    pub fn step(&mut self) {
        match self.rng.below(100) {
            0..40 => {
                let p = self.inside_packet();
                self.send(p);
            }
            40..78 => {
                let p = self.of_a_session().unwrap_or_else(|| self.outside_packet());
                self.send(p);
            }
            78..84 => {
                let p = self.outside_packet();
                self.send(p);
            }
            84..92 => self.error(),
            92..97 => self.wait(),
            _ => self.commit(),
        }
        if self.rng.once_in(8) {
            self.check_state();
        }
    }

    /// Everybody falls silent; nothing may be left.
    pub fn end(&mut self) {
        for _ in 0..2 {
            self.pass(8000);
        }
        assert!(
            self.model.sessions.is_empty() && self.model.bindings.is_empty() && self.model.keys.is_empty()
        );
        self.check_state();
        let nat = &self.tables.nat;
        assert_eq!(nat.hosts().all().count(), 0, "hosts that are still counted");
        assert_eq!(nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed), 0);
        for pool in nat.pools() {
            for u in &pool.uses {
                assert_eq!(u.used.load(std::sync::atomic::Ordering::Relaxed), 0, "ports of {}", pool.addr());
            }
        }
    }

    fn endpoint(&mut self, addrs: &[&str], ports: &[u16]) -> Endpoint {
        end(self.rng.pick(addrs), if self.rng.once_in(40) { 0 } else { self.rng.pick(ports) })
    }

    fn what(&mut self) -> What {
        match self.rng.below(12) {
            0..5 => What::Udp,
            5..9 => What::Tcp(self.rng.pick(&FLAGS)),
            9 | 10 => What::Echo { reply: self.rng.once_in(8) },
            _ if self.rng.once_in(4) => What::UdpLite,
            _ => What::Gre,
        }
    }

    /// Puts ports where a protocol has them.
    fn packet(from: Zone, what: What, mut src: Endpoint, mut dst: Endpoint) -> Packet {
        match what {
            What::Echo { reply: false } => dst.port = 0,
            What::Echo { reply: true } => src.port = 0,
            What::Gre | What::UdpLite => (src.port, dst.port) = (0, 0),
            _ => {}
        }
        Packet { from, what, src, dst }
    }

    /// An endpoint that NAT answers for, likely one that is in use.
    fn external(&mut self) -> Endpoint {
        let bound: Vec<_> = self.model.bindings.keys().collect();
        let forwards: Vec<_> =
            self.model.cfg.dnat.iter().filter_map(|f| Some((f.external, f.ports?))).collect();
        match self.rng.below(4) {
            0 | 1 if !bound.is_empty() => {
                let (addr, _, port) = *bound[self.rng.below(bound.len())];
                Endpoint::new(addr, port)
            }
            2 if !forwards.is_empty() => {
                let (external, (_, first, last, _)) = forwards[self.rng.below(forwards.len())];
                let port = first + self.rng.below(usize::from(last - first) + 2) as u16;
                Endpoint::new(external.unwrap_or(self.model.cfg.wan_addr), port)
            }
            _ => self.endpoint(&EXTERNAL, &[4000, 4001, 80, 8080]),
        }
    }

    fn inside_packet(&mut self) -> Packet {
        let what = self.what();
        let src = self.endpoint(&HOSTS, &INSIDE_PORTS);
        let dst = match self.rng.below(10) {
            0..6 => self.endpoint(&FAR, &FAR_PORTS),
            6 => self.endpoint(&HOSTS, &INSIDE_PORTS),
            _ => self.external(),
        };
        World::packet(Zone::Lan, what, src, dst).sane()
    }

    fn outside_packet(&mut self) -> Packet {
        let what = self.what();
        let src = self.endpoint(&FAR, &FAR_PORTS);
        let dst = if self.rng.once_in(6) { self.endpoint(&HOSTS, &INSIDE_PORTS) } else { self.external() };
        let dst = if self.rng.once_in(12) { self.endpoint(&FAR, &FAR_PORTS) } else { dst };
        World::packet(way(src.addr).1, what, src, dst).sane()
    }

    fn session(&mut self) -> Option<Session> {
        let n = self.model.sessions.len();
        if n == 0 {
            return None;
        }
        let at = self.rng.below(n);
        self.model.sessions.values().nth(at).copied()
    }

    /// A packet of a live session, in either direction.
    fn of_a_session(&mut self) -> Option<Packet> {
        let s = self.session()?;
        let way_of = self.rng.below(2);
        let k = s.keys()[way_of];
        let what = match k.proto {
            TCP => What::Tcp(self.rng.pick(&FLAGS)),
            UDP => What::Udp,
            UDP_LITE => What::UdpLite,
            ICMP => What::Echo { reply: k.dst.port != 0 || (k.src.port == 0 && self.rng.once_in(2)) },
            _ => What::Gre,
        };
        Some(Packet { from: k.from, what, src: k.src, dst: k.dst })
    }

    fn build(&mut self, p: &Packet) -> Pkt {
        let (src, dst) = (p.src.addr.to_string(), p.dst.addr.to_string());
        let mut pkt = match p.what {
            What::Tcp(flags) => Pkt::tcp(&src, &dst, 0, 0, flags),
            What::Udp => Pkt::udp(&src, &dst, 0, 0),
            What::Echo { reply } => Pkt::echo(&src, &dst, 0, reply),
            What::Gre => Pkt::new(&src, &dst, 47, vec![0x20, 0, 8, 0, 1, 2, 3, 4, 5]),
            What::UdpLite => Pkt::new(&src, &dst, UDP_LITE, vec![0x20, 0, 8, 0, 0, 8, 0xAB, 0xCD, 5]),
        };
        if !matches!(p.what, What::Gre | What::UdpLite) {
            pkt = pkt.payload(self.rng.pick(&[0, 1, 2, 33, 600]));
        }
        pkt.tos = self.rng.roll() as u8;
        pkt.ttl = self.rng.pick(&[2, 64, 255]);
        pkt.id = self.ids;
        self.ids = self.ids.wrapping_add(1);
        if self.rng.once_in(2) {
            pkt = pkt.df();
        }
        if self.rng.once_in(10) {
            pkt = pkt.options(&[148, 4, 0, 0]);
        }
        pkt = pkt.between(p.src, p.dst).into_port(ingress(p.from, p.src.addr));
        if p.what == What::Udp && self.rng.once_in(8) {
            pkt.l4[6..8].fill(0);
        }
        pkt
    }

    fn rig(&mut self) -> &mut Rig {
        let n = self.rng.below(self.rigs.len());
        &mut self.rigs[n]
    }

    fn send(&mut self, p: Packet) {
        let pkt = self.build(&p);
        let seen = self.model.packet(&p);
        let rig = self.rig();
        let outcome = rig.send(&pkt);
        let emitted = rig.emitted();
        let context = || format!("{p:?}\nas {pkt:?}");
        // A query shows the identifier of its source, an answer that of its destination: with the identifier 0 one has the
        // key of the other's session.
        let seen = match (p.what, seen) {
            (What::Echo { reply: true }, Seen::Out { src, dst }) => {
                Seen::Out { src: Endpoint { port: 0, ..src }, dst }
            }
            (What::Echo { reply: false }, Seen::Out { src, dst }) => {
                Seen::Out { src, dst: Endpoint { port: 0, ..dst } }
            }
            (_, seen) => seen,
        };
        let (seen, told) = match (seen, &outcome) {
            (Seen::Choose(b), Outcome::Tx(_, f)) => {
                let src = ends4(f).0;
                assert_eq!(Some(src.addr), b.want.map(|w| w.addr), "{}", context());
                let judged = self.model.judge_port(&b, src.port);
                judged.unwrap_or_else(|e| panic!("port {}: {e}: {}", src.port, context()));
                self.tally.count(if src.port == p.src.port { "port kept" } else { "port chosen" });
                (Seen::Out { src, dst: b.to }, false)
            }
            (Seen::Choose(b), Outcome::Drop(reason @ DropReason::SnatExhausted)) => {
                self.model.judge_exhaustion(&b).unwrap_or_else(|e| panic!("{e}: {}", context()));
                (Seen::Drop { reason: *reason, told: true }, true)
            }
            (Seen::Choose(Begin { .. }), other) => panic!("{other:?}: {}", context()),
            (seen @ Seen::Drop { told, .. }, _) => (seen, told),
            (seen, _) => (seen, false),
        };
        self.model.release_held();
        match seen {
            Seen::Kernel => {
                assert_eq!(outcome, Outcome::Kernel, "{}", context());
                self.tally.count("kernel");
            }
            Seen::Drop { reason, .. } => {
                assert_eq!(outcome, Outcome::Drop(reason), "{}", context());
                self.tally.count(reason.name());
            }
            Seen::Out { src, dst } => {
                let (port, _, via) = way(dst.addr);
                match &outcome {
                    Outcome::Tx(by, f) => {
                        assert_eq!((ends4(f), by), ((src, dst), &port), "{}", context());
                        let want = self.numbered(&pkt, between(&pkt, src, dst), src != p.src, f);
                        assert_eq!(*f, want.forwarded(port, &via), "{}", context());
                    }
                    other => panic!("{other:?} and not {src:?} to {dst:?}: {}", context()),
                }
                let kind = match ((p.src, p.dst) == (src, dst), p.dst == dst, p.src == src) {
                    (true, ..) => "untranslated",
                    (_, true, _) => "source translated",
                    (_, _, true) => "destination translated",
                    _ => "both translated",
                };
                self.tally.count(kind);
                self.fragments(&p, &pkt, src, dst);
            }
            Seen::Choose(_) => unreachable!("resolved above"),
        }
        let want = if told { vec![prohibited(&pkt, self.model.cfg.wan_addr)] } else { Vec::new() };
        assert_eq!(emitted, want, "{}", context());
    }

    /// A packet as it must have left as `frame`: with a new identification if its source is another one and it is not
    /// atomic, which the receiver has not seen before.
    fn numbered(&mut self, came: &Pkt, want: Pkt, translated: bool, frame: &[u8]) -> Pkt {
        let want = if translated { want.numbered_as(frame) } else { want };
        if translated && came.frag != 0x4000 {
            let new = self.seen_ids.insert((want.src, want.dst, want.proto, want.id));
            assert!(new, "identification {:#06x} came before: {came:?}", want.id);
            self.tally.count("numbered anew");
        }
        want
    }

    /// The same packet in two fragments, if it is worth it.
    fn fragments(&mut self, p: &Packet, pkt: &Pkt, src: Endpoint, dst: Endpoint) {
        let lives = self.model.sessions.values().any(|s| {
            s.keys().iter().any(|k| (k.from, k.src, k.dst, k.proto) == (p.from, p.src, p.dst, p.what.proto()))
        });
        if p.what != What::Udp || pkt.l4.len() < 300 || !lives {
            return;
        }
        let mut pkt = pkt.clone();
        pkt.id = self.ids;
        pkt.frag = 0;
        self.ids = self.ids.wrapping_add(1);
        self.model.packet(p);
        let mut whole = between(&pkt, src, dst);
        let (port, _, via) = way(dst.addr);
        let mut order = [0, 296];
        if self.rng.once_in(2) {
            order.reverse();
        }
        let rig = self.rig();
        let mut left = Vec::new();
        for at in order {
            if let Outcome::Tx(port, f) = rig.send(&pkt.fragment(at, 296 + at)) {
                left.push((port, f));
            }
            left.extend(rig.emitted());
        }
        // Both have one identification.
        whole = self.numbered(&pkt, whole, src != p.src, &left[0].1);
        let want = [0, 296].map(|at| (port, whole.fragment(at, 296 + at).forwarded(port, &via)));
        assert_eq!(left, want, "fragments of {p:?} in the order {order:?}");
        self.tally.count("fragmented");
    }

    /// An ICMP error about a packet of a session, or about something else.
    fn error(&mut self) {
        let (from, quoted) = match self.session() {
            Some(s) if !self.rng.once_in(6) => {
                let way_of = self.rng.below(2);
                let (src, dst) = s.translated(way_of);
                let what = match s.proto {
                    TCP => What::Tcp(TCP_ACK),
                    UDP => What::Udp,
                    ICMP => What::Echo { reply: dst.port != 0 },
                    UDP_LITE => What::UdpLite,
                    _ => What::Gre,
                };
                let to = [s.to, s.from][way_of];
                (to, Packet { from: to, what, src, dst })
            }
            _ => {
                let p = if self.rng.once_in(2) { self.inside_packet() } else { self.outside_packet() };
                // As if it had gone the other way.
                (p.from, World::packet(p.from, p.what, p.dst, p.src))
            }
        };
        let sender = ROUTERS.iter().find(|r| r.0 == from).map_or(ROUTERS[0].1, |r| r.1);
        let mut about = self.build(&quoted);
        about.options.clear();
        if quoted.what == What::Udp {
            about.fix_l4();
        }
        let len = self.rng.pick(&[28, 40, 576]);
        let (kind, code, word) = self.rng.pick(&[(3, 1, 0), (3, 3, 0), (3, 4, 1300), (11, 0, 0), (12, 0, 0)]);
        let bytes = |about: &Pkt| {
            let ip = about.ip();
            ip[..ip.len().min(len)].to_vec()
        };
        let outer = |src: &str, dst: Ipv4Addr, about: &Pkt| {
            Pkt::icmp(src, &dst.to_string(), kind, code, word, &bytes(about))
        };
        let error = outer(sender, quoted.src.addr, &about).into_port(ingress(from, addr(sender)));
        let seen = self.model.error(from, addr(sender), quoted.what.proto(), (quoted.src, quoted.dst));
        let rig = self.rig();
        let outcome = rig.send(&error);
        let context = || format!("error from {from:?} about {quoted:?}, {len} bytes: {error:?}");
        assert_eq!(rig.emitted(), [], "{}", context());
        match seen {
            ErrorSeen::Kernel => assert_eq!(outcome, Outcome::Kernel, "{}", context()),
            ErrorSeen::Drop(reason) => assert_eq!(outcome, Outcome::Drop(reason), "{}", context()),
            ErrorSeen::Out { doubtful: true, .. } if outcome == Outcome::Drop(DropReason::IcmpUnmatched) => {}
            ErrorSeen::Out { src, dst, quote, .. } => {
                let want = outer(&src.to_string(), dst, &about.clone().between(quote.0, quote.1));
                let (port, _, via) = way(dst);
                let Outcome::Tx(by, f) = &outcome else { panic!("{outcome:?}: {}", context()) };
                let want = self.numbered(&error, want, src != addr(sender), f);
                assert_eq!((by, f), (&port, &want.forwarded(port, &via)), "{}", context());
                let same = (src, dst) == (addr(sender), quoted.src.addr) && quote == (quoted.src, quoted.dst);
                self.tally.count(if same { "error untranslated" } else { "error translated" });
            }
        }
    }

    fn wait(&mut self) {
        let s = self.rng.pick(&SECONDS);
        self.pass(s);
    }

    fn pass(&mut self, seconds: u64) {
        for r in &mut self.rigs {
            r.wait(Duration::from_secs(seconds));
            assert_eq!(r.emitted(), []);
        }
        self.model.wait(seconds * 1000 + 40);
    }

    fn commit(&mut self) {
        if !self.rng.once_in(4) {
            change(&mut self.rng, &mut self.model.cfg);
        }
        let cfg = &self.model.cfg;
        self.rigs.iter_mut().for_each(|r| r.commit(|n| configure(n, cfg)));
        self.tally.count("commit");
    }

    /// Sessions, bindings, host counts and filter entries are what the model says.
    fn check_state(&mut self) {
        let m = &self.model;
        let t = &self.tables.v4;
        let live = (1..t.used()).filter(|&n| State::of(t.meta(n)).is_some());
        let is: BTreeSet<_> = live.map(|n| tuples(&session::tuples(t, n))).collect();
        let want: BTreeSet<_> = m.sessions.values().map(|s| (s.proto, s.old, s.new)).collect();
        assert_eq!(is.symmetric_difference(&want).collect::<Vec<_>>(), Vec::<&_>::new(), "sessions");
        assert_eq!(t.live() as usize, m.sessions.len(), "sessions");
        let nat = &self.tables.nat;
        let mut is: BTreeMap<Place, (Endpoint, u32)> = BTreeMap::new();
        for pool in nat.pools() {
            for bound in NatProtocol::ALL {
                let all = pool.bindings(bound);
                is.extend(all.map(|(port, inside, n)| ((pool.addr(), bound.proto(), port), (inside, n))));
            }
        }
        let want: BTreeMap<_, _> = m.bindings.iter().map(|(p, b)| (*p, (b.inside, b.sessions))).collect();
        assert_eq!(is, want, "bindings");
        for h in HOSTS.iter().chain(&FAR) {
            let h = addr(h);
            assert_eq!(nat.hosts().get(h.to_bits().into()), m.host_sessions(h), "sessions of {h}");
        }
        self.filter_entries.extend(m.filter_entries());
        for (place, remote) in &self.filter_entries {
            let bound = NatProtocol::of(place.1).expect("a protocol with ports");
            let binding = nat.pool_of(place.0).and_then(|p| p.inside(bound, place.2)).map(|b| b.1);
            let is = binding.is_some_and(|b| nat.filter_admits(b, *remote));
            assert_eq!(is, m.filter_entries().any(|p| p == (*place, *remote)), "{remote} at {place:?}");
        }
    }
}

impl Packet {
    /// No host talks to its own address.
    fn sane(mut self) -> Packet {
        if self.src.addr == self.dst.addr {
            self.dst.addr = addr(if self.src.addr == addr(HOSTS[0]) { HOSTS[1] } else { HOSTS[0] });
        }
        self
    }
}

/// A session as the pipeline has it: protocol, and both ends before and after.
fn tuples(t: &SessionTuple) -> (u8, (Endpoint, Endpoint), (Endpoint, Endpoint)) {
    let e = |a: IpAddr, port| match a {
        IpAddr::V4(addr) => Endpoint::new(addr, port),
        IpAddr::V6(_) => unreachable!("no IPv6 here"),
    };
    let old = (e(t.src, t.sport), e(t.dst, t.dport));
    (t.proto, old, (e(t.nat_src, t.nat_sport), e(t.nat_dst, t.nat_dport)))
}

trait IntoRange {
    fn into_range(self) -> std::ops::RangeInclusive<u16>;
}

impl IntoRange for (u16, u16) {
    fn into_range(self) -> std::ops::RangeInclusive<u16> {
        self.0..=self.1
    }
}

fn ingress(from: Zone, src: Ipv4Addr) -> PortIdx {
    match from {
        Zone::Lan if src.octets()[2] == 2 => LAN2,
        Zone::Lan => LAN,
        Zone::Wan => WAN,
        Zone::Overlay => LINE,
    }
}

/// A packet between other endpoints. No checksum is made where there was none.
fn between(pkt: &Pkt, src: Endpoint, dst: Endpoint) -> Pkt {
    let bare = pkt.proto == UDP && pkt.l4[6..8] == [0, 0];
    let mut out = pkt.clone().between(src, dst);
    if bare {
        out.l4[6..8].fill(0);
    }
    out
}

/// The error that a sender gets who is refused for want of a port or by its limit.
fn prohibited(pkt: &Pkt, wan_addr: Ipv4Addr) -> (PortIdx, Vec<u8>) {
    let to = pkt.src.to_string();
    let (port, _, via) = way(addr(&to));
    let from = match port {
        LAN => "192.168.1.1".into(),
        LAN2 => "192.168.2.1".into(),
        LINE => "192.0.2.2".into(),
        _ => wan_addr.to_string(),
    };
    let packet = pkt.ip();
    let mut e = Pkt::icmp(&from, &to, 3, 13, 0, &packet[..packet.len().min(548)]);
    (e.id, e.frag, e.tos, e.ttl) = (0, 0x4000, 0xC0, 65);
    (port, e.forwarded(port, &via))
}

fn ways(d: &mut Rng) -> Ways {
    d.pick(&[(Ei, Ad), (Ei, Ad), (Ei, Ei), (Ei, Apd), (Ad, Ad), (Ad, Ei), (Apd, Ad), (Apd, Apd), (Apd, Apd)])
}

/// One thing of the configuration becomes another.
fn change(d: &mut Rng, c: &mut Config) {
    let forward = |kind, external: &str, inside: usize, ports| Fwd {
        kind,
        external: external.parse().ok(),
        inside: addr(HOSTS[inside]),
        ports,
    };
    // Port blocks go with endpoint-independent mapping only.
    let behave = |d: &mut Rng| {
        let (mapping, filtering) = ways(d);
        if c.block.is_some() { (Ei, filtering) } else { (mapping, filtering) }
    };
    match d.below(12) {
        0 => c.wan_snat = c.wan_snat.is_none().then(|| behave(d)),
        1 | 2 => c.wan_snat = Some(behave(d)),
        3 => c.wan_addr = addr(d.pick(&WAN_ADDRS)),
        4 => c.private = c.private.is_none().then(|| (addr(d.pick(&["10.99.0.1", "192.0.2.2"])), behave(d))),
        5 => c.private = c.private.map(|p| (p.0, behave(d))),
        6 => c.hairpin ^= true,
        7 => c.host_limit = d.pick(&[None, Some(3), Some(12)]),
        _ => {
            let all = [
                forward(Kind::Internet, "", 0, Some((TCP, 8080, 8083, 80))),
                forward(Kind::Internet, "", 1, Some((UDP, 4000, 4001, 53))),
                forward(Kind::Internet, "203.0.113.50", 1, None),
                forward(Kind::Internet, "203.0.113.50", 0, Some((TCP, 80, 80, 8000))),
                forward(Kind::Intranet, "10.99.0.7", 0, None),
                forward(Kind::Intranet, "192.0.2.2", 2, Some((UDP, 4000, 4000, 4000))),
                forward(Kind::Intranet, "192.0.2.2", 2, Some((TCP, 4000, 4001, 500))),
                forward(Kind::Internet, "", 2, None),
            ];
            let usual = if d.once_in(8) { all.len() } else { all.len() - 1 };
            let f = all[d.below(usual)];
            match c.dnat.iter().position(|g| *g == f) {
                Some(i) => {
                    c.dnat.remove(i);
                }
                None => c.dnat.push(f),
            }
        }
    }
}
