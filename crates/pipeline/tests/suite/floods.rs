//! One host fills the session table: what others get meanwhile and afterwards. Simulated time, so the figures are
//! the same in every run.

use sag_model::DropReason;
use sag_packet::proto::*;
use sag_pipeline::session::{self, State, Worth};
use sag_testkit::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const SYNACK: u8 = TCP_SYN | TCP_ACK;
/// Sessions that the table can hold, and packets a second of the flood: as many as fill it several times over.
const TABLE: u32 = 4096;
const RATE: u64 = 8_000;
const MS: Duration = Duration::from_millis(1);

/// Addresses of a family: who attacks, who only wants to work (in the same IPv6 /64), where both of them go.
#[derive(Debug, Clone, Copy)]
struct Family {
    attacker: &'static str,
    victim: &'static str,
    far: &'static str,
    server: &'static str,
}

const V4: Family =
    Family { attacker: "192.168.1.10", victim: "192.168.1.11", far: "198.51.100.7", server: "198.51.100.8" };
const V6: Family = Family {
    attacker: "2001:db8:1::10",
    victim: "2001:db8:1::11",
    far: "2001:db8:99::7",
    server: "2001:db8:99::8",
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    /// SYNs to closed ports: answered with RST.
    Refused,
    /// SYNs to an open port, never followed up.
    HalfOpen,
    /// The same followed by an ACK, whether anybody has answered or not.
    Blind,
    /// Segments of connections that nobody has.
    Ack,
    Fin,
    SynAck,
    /// To random ports and addresses; nobody answers.
    Udp,
    Echo,
    /// Whole connections that stay open.
    Open,
    /// UDP from any address of the LAN.
    Spoofed,
    /// UDP with the victim's address.
    AsVictim,
}

const FLOODS: [Flood; 11] = [
    Flood::Refused,
    Flood::HalfOpen,
    Flood::Blind,
    Flood::Ack,
    Flood::Fin,
    Flood::SynAck,
    Flood::Udp,
    Flood::Echo,
    Flood::Open,
    Flood::Spoofed,
    Flood::AsVictim,
];

struct Scene {
    rig: Rig,
    f: Family,
    nat: bool,
    rng: Rng,
    port: u16,
}

impl Scene {
    fn new(net: Net, f: Family, sessions: u32) -> Scene {
        let nat = net.translates();
        Scene { rig: Rig::sized(net, sessions), f, nat, rng: Rng::new(1), port: 1024 }
    }

    /// Where a packet from inside looks as if it came from.
    fn answer(&mut self, ask: &Pkt, sent: &Outcome, flags: u8) -> Pkt {
        let (src, dst) = (self.f.far, self.f.attacker);
        let (sport, dport) = match (self.nat, sent) {
            (true, Outcome::Tx(_, frame)) => {
                let (from, to) = ends4(frame);
                return Pkt::tcp(&to.addr.to_string(), &from.addr.to_string(), to.port, from.port, flags)
                    .into_port(WAN);
            }
            _ => {
                let bytes = ask.build();
                let l4 = ETH_LEN + if bytes[ETH_LEN] >> 4 == 4 { IPV4_LEN } else { IPV6_LEN };
                let at = |i: usize| u16::from_be_bytes([bytes[l4 + i], bytes[l4 + i + 1]]);
                (at(2), at(0))
            }
        };
        Pkt::tcp(src, dst, sport, dport, flags).into_port(WAN)
    }

    /// One packet of the flood, and what it leads to.
    fn attack(&mut self, flood: Flood) {
        let n = self.rng.below(1 << 28) as u32;
        let (sport, dport) = ((n % 64_000) as u16 + 1024, (n >> 16) as u16 + 1);
        let Family { attacker, victim, far, .. } = self.f;
        let v4 = attacker.contains('.');
        let anywhere = match v4 {
            true => format!("198.51.100.{}", 20 + n % 200),
            false => format!("2001:db8:99::{:x}", 20 + n % 60_000),
        };
        let tcp = |flags| Pkt::tcp(attacker, far, sport, dport, flags);
        match flood {
            Flood::Refused | Flood::HalfOpen | Flood::Open => {
                let ask = tcp(TCP_SYN);
                let sent = self.rig.send(&ask);
                if sent.is_tx() {
                    let flags = if flood == Flood::Refused { TCP_RST | TCP_ACK } else { SYNACK };
                    let answer = self.answer(&ask, &sent, flags);
                    self.rig.send(&answer);
                    if flood == Flood::Open {
                        self.rig.send(&tcp(TCP_ACK));
                        let more = self.answer(&ask, &sent, TCP_ACK);
                        self.rig.send(&more);
                    }
                }
            }
            Flood::Blind => {
                self.rig.send(&tcp(TCP_SYN));
                self.rig.send(&tcp(TCP_ACK));
            }
            Flood::Ack => {
                self.rig.send(&tcp(TCP_ACK));
            }
            Flood::Fin => {
                self.rig.send(&tcp(TCP_FIN | TCP_ACK));
            }
            Flood::SynAck => {
                self.rig.send(&tcp(SYNACK));
            }
            Flood::Udp => {
                self.rig.send(&Pkt::udp(attacker, &anywhere, sport, dport));
            }
            Flood::Echo => {
                self.rig.send(&Pkt::echo(attacker, &anywhere, n as u16, false));
            }
            Flood::Spoofed => {
                let source = match v4 {
                    true => format!("192.168.1.{}", 20 + (n >> 8) % 200),
                    false => format!("2001:db8:1::{:x}", 0x20 + (n >> 8) % 60_000),
                };
                self.rig.send(&Pkt::udp(&source, &anywhere, sport, dport));
            }
            Flood::AsVictim => {
                self.rig.send(&Pkt::udp(victim, &anywhere, sport, dport));
            }
        }
        self.rig.emitted();
    }

    /// A connection of the victim: true if every segment came through.
    fn connect(&mut self) -> bool {
        self.port = if self.port > 60_000 { 1024 } else { self.port + 1 };
        let Family { victim, server, .. } = self.f;
        let out = |flags| Pkt::tcp(victim, server, self.port, 443, flags);
        let first = self.rig.send(&out(TCP_SYN));
        let (port, back) = match (&first, self.nat) {
            (Outcome::Tx(_, frame), true) => (ends4(frame).0.port, "203.0.113.2"),
            _ => (self.port, victim),
        };
        let back = |flags| Pkt::tcp(server, back, 443, port, flags).into_port(WAN);
        let rest = [back(SYNACK), out(TCP_ACK), out(TCP_ACK), back(TCP_ACK)];
        let done = first.is_tx() && rest.iter().all(|p| self.rig.send(p).is_tx());
        self.rig.emitted();
        done
    }

    /// Sessions of a kind.
    fn count(&self, what: impl Fn(State, Worth) -> bool) -> usize {
        let t = &self.rig.pipe.tables;
        let all4 =
            (1..t.v4.used()).filter_map(|n| Some((session::state_of(&t.v4, n)?, session::worth(&t.v4, n)?)));
        let all6 =
            (1..t.v6.used()).filter_map(|n| Some((session::state_of(&t.v6, n)?, session::worth(&t.v6, n)?)));
        all4.chain(all6).filter(|(s, w)| what(*s, *w)).count()
    }

    fn tick(&mut self) {
        self.rig.now = self.rig.now + MS;
        self.rig.poll();
    }

    /// The flood, with a connection of the victim every `gap` milliseconds: how many of them came about, of how many.
    fn flood(&mut self, flood: Flood, rate: u64, seconds: u64, gap: u64) -> (u32, u32) {
        let (mut sent, mut done, mut tried) = (0, 0, 0);
        for ms in 0..seconds * 1000 {
            while sent < rate * ms / 1000 {
                self.attack(flood);
                sent += 1;
            }
            self.tick();
            if ms % gap == 0 {
                tried += 1;
                done += u32::from(self.connect());
            }
        }
        (done, tried)
    }
}

/// Plain and translated IPv4, and IPv6.
fn networks() -> [(&'static str, Net, Family); 3] {
    let translating = {
        use sag_pipeline::nat::Behavior::{AddressDependent, EndpointIndependent};
        let mut n = Net::branch();
        n.wan_snat(WAN, EndpointIndependent, AddressDependent);
        n
    };
    [("IPv4", Net::branch(), V4), ("NAT", translating, V4), ("IPv6", Net::branch(), V6)]
}

#[test]
fn others_connect_during_any_flood() {
    for (name, _, _) in networks() {
        for flood in FLOODS {
            let (_, net, f) = networks().into_iter().find(|n| n.0 == name).unwrap();
            let mut s = Scene::new(net, f, TABLE);
            // Connections from before.
            let before: u32 = (0..50).map(|_| u32::from(s.connect())).sum();
            assert_eq!(before, 50);
            let (done, tried) = s.flood(flood, RATE, 4, 20);
            let sessions = s.rig.sessions();
            println!("{name} {flood:?}: {done} of {tried} connections, sessions {sessions:?}");
            assert!(done * 100 >= tried * 95, "{name} {flood:?}: {done} of {tried} during the flood");
            assert!(sessions.0.max(sessions.1) <= TABLE);
            assert!(
                s.count(|s, _| s == State::TcpOpen) >= 50 + done as usize,
                "{name} {flood:?}: established connections of others stay"
            );
            s.rig.wait(Duration::from_secs(5));
            let after: u32 = (0..100).map(|_| u32::from(s.connect())).sum();
            assert_eq!(after, 100, "{name} {flood:?}: 5 s after its end");
        }
    }
}

#[test]
fn a_trickle_does_not_keep_the_table_full() {
    // 141 lone ACKs a second held a million sessions for two hours each.
    for f in [V4, V6] {
        let mut s = Scene::new(Net::branch(), f, 1024);
        let (done, tried) = s.flood(Flood::Ack, 141, 40, 200);
        assert_eq!(done, tried);
        assert!(
            s.count(|_, w| w == Worth::HalfOpen) <= 1024 / 4 + 1,
            "a host's share of unanswered sessions"
        );
        s.rig.wait(Duration::from_secs(31));
        assert_eq!(s.count(|_, w| w != Worth::Established), 0, "gone with tcp_syn");
    }
}

#[test]
fn a_host_alone_has_most_of_the_table_and_two_have_equal_parts() {
    let mut s = Scene::new(Net::branch(), V4, 1000);
    let open = |s: &mut Scene, host: &str, port: u16| {
        let from = if host.starts_with("192.168.2.") { LAN2 } else { LAN };
        let out = |flags| Pkt::tcp(host, V4.far, port, 80, flags).into_port(from);
        let back = |flags| Pkt::tcp(V4.far, host, 80, port, flags).into_port(WAN);
        let first = s.rig.send(&out(TCP_SYN));
        if first.is_tx() {
            s.rig.send(&back(SYNACK));
            s.rig.send(&out(TCP_ACK));
        }
        first
    };
    let ok = (0..2000).filter(|p| open(&mut s, V4.attacker, 1024 + p).is_tx()).count();
    assert!((790..=805).contains(&ok), "{ok}: four fifths are a host's that is alone");
    assert_eq!(open(&mut s, V4.attacker, 5000), Outcome::Drop(DropReason::HostShare));
    assert_eq!(s.rig.drops(LAN, DropReason::HostShare), 2000 - ok as u64 + 1);
    let ok = (0..2000).filter(|p| open(&mut s, V4.victim, 1024 + p).is_tx()).count();
    assert!(ok >= 150, "{ok}: the rest is not his");
    // Others still begin sessions.
    assert!((0..=30).all(|p| open(&mut s, "192.168.2.10", 1024 + p).is_tx()));
    // An event names the host before it comes to that.
    let events: Vec<String> = s.rig.pipe.events().drain().map(|e| format!("{e:?}")).collect();
    let first = events.iter().position(|e| e.contains("TableFilling")).expect("an event");
    assert!(
        events[first].contains("percent: 75") && events[first].contains("Some((192.168.1.10, 32, "),
        "{events:?}"
    );
    let refused = events.iter().position(|e| e.contains("HostOverShare")).expect("another one");
    assert!(first < refused, "{events:?}");
    assert_eq!(events.iter().filter(|e| e.contains("percent: 75")).count(), 1, "once on the way up");
    // What is idle makes room for its own host, and for nobody else's while there is room.
    s.rig.now = s.rig.now + Duration::from_secs(90);
    assert!(open(&mut s, V4.attacker, 6000).is_tx());
    assert_eq!(s.rig.pipe.tables.nat.totals.evicted[Worth::Established as usize].load(Relaxed), 1);
}

#[test]
fn unanswered_sessions_of_a_host_are_limited() {
    let mut net = Net::branch();
    net.options.sessions.host_half_open = Some(100);
    let mut s = Scene::new(net, V4, 10_000);
    for p in 0..500 {
        assert!(s.rig.send(&Pkt::udp(V4.attacker, V4.far, 1024 + p, 53)).is_tx(), "{p}");
        s.rig.now = s.rig.now + MS;
    }
    assert_eq!(s.rig.sessions().0, 100, "the oldest end");
    let t = &s.rig.pipe.tables.v4;
    let answered = |s: &mut Scene, p: u16| s.rig.send(&Pkt::udp(V4.far, V4.attacker, 53, p).into_port(WAN));
    assert_eq!(t.live(), 100);
    // Whatever is answered counts no more.
    for p in 1480..1524 {
        assert!(answered(&mut s, p).is_tx());
    }
    for p in 0..44 {
        assert!(s.rig.send(&Pkt::udp(V4.attacker, V4.far, 3000 + p, 53)).is_tx());
    }
    assert_eq!(s.rig.sessions().0, 144);
}

#[test]
fn one_host_does_not_hold_all_nat_ports() {
    use sag_pipeline::nat::Behavior::{AddressDependent, EndpointIndependent};
    let mut net = Net::branch();
    net.wan_snat(WAN, EndpointIndependent, AddressDependent);
    net.nat.limits.range = 2000..=2999;
    let mut rig = Rig::sized(net, 8000);
    for port in 0..3000 {
        rig.send(&Pkt::udp(V4.attacker, V4.far, 10_000 + port, 53));
        rig.emitted();
    }
    // Unanswered ones make room for the host's own.
    assert!((790..=805).contains(&rig.sessions().0), "{:?}", rig.sessions());
    assert!((0..60).all(|p| rig.send(&Pkt::udp(V4.victim, V4.far, 10_000 + p, 53)).is_tx()));
    // Answered ones do not, and then the host is refused by name.
    let mut refused = 0;
    for port in 0..1000 {
        match rig.send(&Pkt::udp(V4.attacker, V4.server, 20_000 + port, 53)) {
            Outcome::Tx(_, frame) => {
                let at = ends4(&frame).0;
                rig.send(&Pkt::udp(V4.server, &at.addr.to_string(), 53, at.port).into_port(WAN));
            }
            other => {
                assert_eq!(other, Outcome::Drop(DropReason::HostShare));
                refused += 1;
            }
        }
        rig.emitted();
    }
    assert!(refused > 100, "{refused}");
    assert!(
        (0..60).all(|p| rig.send(&Pkt::udp("192.168.2.10", V4.far, 10_000 + p, 53).into_port(LAN2)).is_tx())
    );
}

#[test]
fn what_is_worth_least_makes_room_first() {
    let mut rig = Rig::sized(Net::branch(), 6);
    let out = |port, flags| Pkt::tcp(V4.attacker, V4.far, port, 80, flags);
    let back = |port, flags| Pkt::tcp(V4.far, V4.attacker, 80, port, flags).into_port(WAN);
    let mut send = |p: &Pkt| {
        assert!(rig.send(p).is_tx());
        rig.now = rig.now + Duration::from_millis(100);
    };
    for p in [1, 2] {
        [out(p, TCP_SYN), back(p, SYNACK), out(p, TCP_ACK)].iter().for_each(&mut send);
    }
    send(&out(3, TCP_SYN));
    send(&out(4, TCP_ACK));
    [out(5, TCP_SYN), back(5, TCP_RST | TCP_ACK)].iter().for_each(&mut send);
    [out(6, TCP_SYN), back(6, SYNACK), out(6, TCP_ACK), back(6, TCP_RST)].iter().for_each(&mut send);
    let states = |rig: &Rig| {
        let t = &rig.pipe.tables.v4;
        let mut all: Vec<_> = (1..t.used())
            .filter_map(|n| Some((session::worth(t, n)?, session::state_of(t, n)?.name())))
            .collect();
        all.sort();
        all.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    let udp = |port| Pkt::udp(V4.victim, V4.far, port, 53);
    assert_eq!(states(&rig), ["refused", "reset", "picked-up", "syn", "established", "established"]);
    for (port, left) in [
        (1, &["reset", "picked-up", "syn", "udp", "established", "established"]),
        (2, &["picked-up", "syn", "udp", "udp", "established", "established"]),
        (3, &["picked-up", "udp", "udp", "udp", "established", "established"]),
        (4, &["udp", "udp", "udp", "udp", "established", "established"]),
    ] {
        assert!(rig.send(&udp(port)).is_tx());
        rig.now = rig.now + Duration::from_millis(100);
        assert_eq!(&states(&rig), left, "{port}");
    }
    assert_eq!(states(&rig).iter().filter(|s| **s == "established").count(), 2);
}

#[test]
fn a_lone_sender_revives_nothing() {
    // RST, then segments of the same side for longer than an RST's aftermath: still refused, and gone in four minutes.
    let mut rig = Rig::branch();
    let out = |flags| Pkt::tcp(V4.attacker, V4.far, 1000, 80, flags);
    assert!(rig.send(&out(TCP_SYN)).is_tx());
    assert!(rig.send(&Pkt::tcp(V4.far, V4.attacker, 80, 1000, TCP_RST | TCP_ACK).into_port(WAN)).is_tx());
    for _ in 0..5 {
        rig.wait(Duration::from_secs(100));
        assert!(rig.send(&out(TCP_ACK)).is_tx());
    }
    assert_eq!(session::state_of(&rig.pipe.tables.v4, 1), Some(State::TcpRefused));
    rig.wait(Duration::from_secs(241));
    assert_eq!(rig.sessions(), (0, 0));
}
