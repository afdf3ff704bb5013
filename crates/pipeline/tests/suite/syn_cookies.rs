//! Connections that are opened for clients with a SYN cookie: the client's side and the server's, number by number.
//! XDP makes the cookies; here the client has got one.

use sag_model::flow::{FlowRecord4, FlowRecord6, RecordNo, SynCookieControl};
use sag_model::{DropReason, PortIdx};
use sag_packet::parse::{self, NetworkLayer, Parsed};
use sag_packet::proto::*;
use sag_packet::segment::{Offer, Segment};
use sag_packet::{Family, checksum};
use sag_pipeline::family::FlowFamily;
use sag_pipeline::nat::{Behavior, Kind};
use sag_pipeline::session::replica::{self, Found};
use sag_pipeline::session::{self, State};
use sag_pipeline::syn_cookie::{Client, SynCookies};
use sag_pipeline::table::{DeferredFree, FlowTable};
use sag_testkit::*;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const SYNACK: u8 = TCP_SYN | TCP_ACK;
/// First sequence number of the client, and of the server: both wrap around soon.
const ISN: u32 = 0xFFFF_FFF0;
const SERVER_ISN: u32 = 0xFFFF_FF00;
const SPORT: u16 = 40_000;
const OFFER: Offer = Offer { mss: 1440, window_scale: Some(9), sack: true };

/// Address of the client, address and port of the service as it is known outside, and inside.
#[derive(Debug, Clone, Copy)]
struct Ends {
    client: &'static str,
    service: (&'static str, u16),
    server: (&'static str, u16),
}

const V4: Ends =
    Ends { client: "198.51.100.7", service: ("203.0.113.2", 8443), server: ("192.168.1.10", 443) };
const V6: Ends =
    Ends { client: "2001:db8:99::7", service: ("2001:db8:1::10", 443), server: ("2001:db8:1::10", 443) };

struct Scene {
    rig: Rig,
    ends: Ends,
    control: &'static SynCookieControl,
    cookie: u32,
}

/// A segment as it was sent: who to whom, sequence, acknowledgment, flags, window, offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    port: PortIdx,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    offer: Offer,
}

fn addr(a: (&str, u16)) -> (IpAddr, u16) {
    (a.0.parse().unwrap(), a.1)
}

fn parsed(frame: &[u8]) -> Parsed {
    let (_, ethertype, l3) = parse::link(frame).unwrap();
    match parse::parse(frame, ethertype, l3) {
        Ok(NetworkLayer::Ip(p)) => p,
        other => panic!("{other:?}"),
    }
}

/// What a frame says; its checksums must be right.
fn read(port: PortIdx, frame: &[u8]) -> Sent {
    let p = parsed(frame);
    let tcp = &frame[usize::from(p.l4_at)..usize::from(p.l3 + p.ip_len)];
    let addrs = if p.family == Family::V4 { 12..20 } else { 8..40 };
    let addrs = &frame[usize::from(p.l3)..][addrs];
    assert_eq!(checksum::fold(checksum::pseudo(addrs, TCP, tcp.len()) + checksum::sum(tcp)), 0xFFFF);
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let (sport, dport) = p.ports();
    Sent {
        port,
        from: (p.src(frame), sport),
        to: (p.dst(frame), dport),
        seq: word(4),
        ack: word(8),
        flags: tcp[13],
        window: word(12) as u16,
        offer: Offer::read(tcp),
    }
}

impl Scene {
    fn new(ends: Ends) -> Scene {
        let mut net = Net::branch();
        net.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
        net.dnat(Kind::Internet, "", V4.server.0, Some((TCP, 8443, 8443, 443)));
        let control: &'static SynCookieControl = Box::leak(Box::default());
        control.secret.as_flattened().iter().zip(1..).for_each(|(w, n)| w.store(n * 0x9E37_79B9, Relaxed));
        control.active.store(1, Relaxed);
        let (service, port) = addr(ends.service);
        net.syn_cookies = SynCookies::new(control, [(service, port, 0)]);
        let mut scene = Scene { rig: Rig::new(net), ends, control, cookie: 0 };
        scene.cookie = scene.make(&OFFER);
        scene
    }

    fn client(&self) -> (IpAddr, u16) {
        addr((self.ends.client, SPORT))
    }

    fn make(&self, offer: &Offer) -> u32 {
        let client = Client { from: self.client(), to: addr(self.ends.service), isn: ISN };
        self.rig.snap.syn_cookies.make(&client, offer).unwrap()
    }

    fn frame(port: PortIdx, from: (IpAddr, u16), to: (IpAddr, u16), s: &Segment<'_>, data: &[u8]) -> Vec<u8> {
        let mut f = vec![0; 14 + 100];
        f[..6].copy_from_slice(&GATEWAY_MACS[port.index()].0);
        f[6..12].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
        f[12..14].copy_from_slice(if from.0.is_ipv4() { &[8, 0] } else { &[0x86, 0xDD] });
        let len = Segment { from, to, ..*s }.write(&mut f[14..]).unwrap();
        f.truncate(14 + len);
        if !data.is_empty() {
            let mut l4 = f[usize::from(parsed(&f).l4_at)..].to_vec();
            l4.extend(data);
            let mut pkt = Pkt::new(&from.0.to_string(), &to.0.to_string(), TCP, l4);
            pkt.dmac = GATEWAY_MACS[port.index()];
            pkt.fix_l4();
            return pkt.build();
        }
        f
    }

    /// From the client.
    fn up(&mut self, seq: u32, ack: u32, flags: u8, window: u16, options: &[u8], data: &[u8]) -> Outcome {
        let (from, to) = (self.client(), addr(self.ends.service));
        let s = Segment { from, to, seq, ack, flags, window, options, ttl: 60 };
        self.rig.frame(DEV_WAN, &Scene::frame(WAN, from, to, &s, data))
    }

    /// From the server.
    fn down(&mut self, seq: u32, ack: u32, flags: u8, window: u16, options: &[u8], data: &[u8]) -> Outcome {
        let (from, to) = (addr(self.ends.server), self.client());
        let s = Segment { from, to, seq, ack, flags, window, options, ttl: 64 };
        self.rig.frame(DEV_LAN, &Scene::frame(LAN, from, to, &s, data))
    }

    fn acknowledge(&mut self) -> Outcome {
        self.up(ISN.wrapping_add(1), self.cookie.wrapping_add(1), TCP_ACK, 100, &[], &[])
    }

    /// The whole way to an open connection.
    fn open(ends: Ends) -> Scene {
        let mut s = Scene::new(ends);
        assert!(s.acknowledge().is_tx());
        let offer = Offer { mss: 1400, window_scale: Some(5), sack: true };
        assert!(s.down(SERVER_ISN, ISN.wrapping_add(1), SYNACK, 64_000, &offer.options(), &[]).is_tx());
        s.rig.emitted();
        s
    }

    /// The state of the only session.
    fn state(&self) -> Option<State> {
        match self.ends.client.contains(':') {
            false => session::state_of::<FlowRecord4>(&self.rig.pipe.tables.v4, 1),
            true => session::state_of::<FlowRecord6>(&self.rig.pipe.tables.v6, 1),
        }
    }

    fn sessions(&self) -> u32 {
        let (v4, v6) = self.rig.sessions();
        v4 + v6
    }
}

#[track_caller]
fn sent(o: &Outcome) -> Sent {
    match o {
        Outcome::Tx(port, f) => read(*port, f),
        other => panic!("not sent but {other:?}"),
    }
}

#[test]
fn a_client_with_a_cookie_is_connected() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        let (client, service, server) = (s.client(), addr(ends.service), addr(ends.server));
        // The acknowledgment becomes the client's SYN, its window unscaled.
        let syn = sent(&s.acknowledge());
        let expected = Sent {
            port: LAN,
            from: client,
            to: server,
            seq: ISN,
            ack: 0,
            flags: TCP_SYN,
            window: 51_200,
            offer: OFFER,
        };
        assert_eq!(syn, expected);
        assert_eq!((s.sessions(), s.state()), (1, Some(State::TcpSyn)));
        // What the client sends meanwhile is sent again later.
        let early = s.up(ISN.wrapping_add(1), s.cookie.wrapping_add(1), TCP_ACK, 100, &[], b"GET /");
        assert_eq!(early, Outcome::Drop(DropReason::SynProxyWait));
        // The server answers: the gateway completes its handshake, and the client gets the window.
        let answer = Offer { mss: 1400, window_scale: Some(5), sack: true };
        let o = s.down(SERVER_ISN, ISN.wrapping_add(1), SYNACK, 64_000, &answer.options(), &[]);
        let next = s.cookie.wrapping_add(1);
        let expected = Sent {
            port: WAN,
            from: service,
            to: client,
            seq: next,
            ack: ISN.wrapping_add(1),
            flags: TCP_ACK,
            window: 500,
            offer: Offer::default(),
        };
        assert_eq!(sent(&o), expected);
        let made = s.rig.emitted();
        assert_eq!(made.len(), 1);
        let expected = Sent {
            port: LAN,
            from: client,
            to: server,
            seq: ISN.wrapping_add(1),
            ack: SERVER_ISN.wrapping_add(1),
            flags: TCP_ACK,
            window: 100,
            offer: Offer::default(),
        };
        assert_eq!(read(made[0].0, &made[0].1), expected);
        assert_eq!(s.state(), Some(State::TcpOpen), "a proven client is no half-open session");
        // From here on both sides talk in their own numbers, beyond the wraparound.
        for n in (0u32..2000).step_by(500) {
            let (sent_by_client, sent_by_server) = (ISN.wrapping_add(1 + n), SERVER_ISN.wrapping_add(1 + n));
            let up = sent(&s.up(sent_by_client, next.wrapping_add(n), TCP_ACK, 80, &[], b"odd"));
            assert_eq!((up.to, up.seq, up.ack, up.window), (server, sent_by_client, sent_by_server, 80));
            let down = sent(&s.down(sent_by_server, sent_by_client, TCP_ACK, 400, &[], b"even"));
            assert_eq!((down.from, down.seq, down.ack), (service, next.wrapping_add(n), sent_by_client));
            assert_eq!(down.window, 100, "the server's scale is 5, the client was told 7");
        }
    }
}

#[test]
fn selective_acknowledgments_are_in_the_numbers_of_their_receiver() {
    for ends in [V4, V6] {
        let mut s = Scene::open(ends);
        let next = s.cookie.wrapping_add(1);
        let sack = |edges: [u32; 2]| {
            let mut o = vec![1, 1, 5, 10];
            o.extend(edges.iter().flat_map(|e| e.to_be_bytes()));
            o
        };
        let edges = |o: &Outcome| {
            let f = o.frame();
            let at = usize::from(parsed(f).l4_at) + 24;
            [0, 4].map(|i| u32::from_be_bytes(f[at + i..at + i + 4].try_into().unwrap()))
        };
        let block = [next.wrapping_add(1000), next.wrapping_add(2000)];
        let o = s.up(ISN.wrapping_add(1), next, TCP_ACK, 80, &sack(block), &[]);
        sent(&o);
        assert_eq!(edges(&o), [1001, 2001].map(|n| SERVER_ISN.wrapping_add(n)), "across the wraparound");
        let block = [ISN.wrapping_add(10), ISN.wrapping_add(30)];
        let o = s.down(SERVER_ISN.wrapping_add(1), ISN.wrapping_add(1), TCP_ACK, 400, &sack(block), &[]);
        sent(&o);
        assert_eq!(edges(&o), block, "the client's numbers stay");
    }
}

#[test]
fn cookies_of_others_and_old_ones_are_refused() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        let refused = Outcome::Drop(DropReason::SynCookieInvalid);
        let (seq, ack) = (ISN.wrapping_add(1), s.cookie.wrapping_add(1));
        assert_eq!(s.up(seq, ack ^ 0x100, TCP_ACK, 100, &[], &[]), refused);
        assert_eq!(s.up(seq.wrapping_add(1), ack, TCP_ACK, 100, &[], &[]), refused);
        let other = Client { from: addr(("198.51.100.99", SPORT)), to: addr(ends.service), isn: ISN };
        let other = s.rig.snap.syn_cookies.make(&other, &OFFER).unwrap();
        assert_eq!(s.up(seq, other.wrapping_add(1), TCP_ACK, 100, &[], &[]), refused);
        // A reset without a session is what it always was.
        assert!(!matches!(s.up(seq, ack, TCP_RST, 0, &[], &[]), Outcome::Drop(DropReason::SynCookieInvalid)));
        assert_eq!(s.sessions(), 0, "none of them costs a session");
        s.control.secret[0][0].store(7, Relaxed);
        assert_eq!(s.up(seq, ack, TCP_ACK, 100, &[], &[]), refused, "expired");
        // Of a service that sends none at the moment, cookies are still taken; other segments are as ever.
        s.control.active.store(0, Relaxed);
        assert_ne!(s.up(seq, ack, TCP_ACK, 100, &[], &[]), refused);
        let mut s = Scene::new(ends);
        s.control.active.store(0, Relaxed);
        assert_eq!(sent(&s.acknowledge()).flags, TCP_SYN);
    }
}

#[test]
fn a_replayed_cookie_makes_no_second_session() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        assert!(s.acknowledge().is_tx());
        for _ in 0..3 {
            assert_eq!(s.acknowledge(), Outcome::Drop(DropReason::SynProxyWait));
        }
        assert_eq!(s.sessions(), 1);
        let mut s = Scene::open(ends);
        let up = sent(&s.acknowledge());
        assert_eq!((up.flags, up.ack), (TCP_ACK, SERVER_ISN.wrapping_add(1)));
        assert_eq!(s.sessions(), 1);
    }
}

#[test]
fn a_probe_of_the_zero_window_brings_the_cookie_too() {
    let mut s = Scene::new(V4);
    assert_eq!(sent(&s.up(ISN, s.cookie.wrapping_add(1), TCP_ACK, 100, &[], &[])).seq, ISN);
    let mut s = Scene::new(V6);
    let syn = sent(&s.up(ISN.wrapping_add(1), s.cookie.wrapping_add(1), TCP_ACK, 100, &[], b"x"));
    assert_eq!((syn.flags, syn.seq), (TCP_SYN, ISN), "with data: the client sends it again");
}

#[test]
fn a_server_that_refuses_resets_the_client() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        assert!(s.acknowledge().is_tx());
        let rst = sent(&s.down(0, ISN.wrapping_add(1), TCP_RST | TCP_ACK, 0, &[], &[]));
        assert_eq!((rst.seq, rst.ack), (s.cookie.wrapping_add(1), ISN.wrapping_add(1)));
        assert_eq!(rst.flags, TCP_RST | TCP_ACK);
        assert_eq!(s.state(), Some(State::TcpRefused));
        // A new SYN on the same ports goes to the server itself, and its numbers stay.
        let syn = Offer { mss: 1460, window_scale: Some(7), sack: true };
        let up = sent(&s.up(5, 0, TCP_SYN, 60_000, &syn.options(), &[]));
        assert_eq!((up.seq, up.offer), (5, syn));
        let down = sent(&s.down(99, 6, SYNACK, 60_000, &syn.options(), &[]));
        assert_eq!((down.seq, down.flags, down.offer), (99, SYNACK, syn));
        assert_eq!(s.rig.emitted().len(), 0);
    }
}

#[test]
fn a_silent_server_is_asked_again_and_given_up() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        let first = sent(&s.acknowledge());
        let mut repeated = 0;
        for second in 1..=16 {
            s.rig.wait(Duration::from_secs(1));
            for (port, frame) in s.rig.emitted() {
                let got = read(port, &frame);
                if got.flags == TCP_SYN {
                    assert_eq!(got, first);
                    repeated += 1;
                    continue;
                }
                assert!((14..=16).contains(&second), "after {second} s");
                assert_eq!((got.port, got.from, got.to), (WAN, addr(ends.service), s.client()));
                assert_eq!((got.flags, got.seq), (TCP_RST | TCP_ACK, s.cookie.wrapping_add(1)));
                assert_eq!(got.ack, ISN.wrapping_add(1));
                repeated += 100;
            }
        }
        assert_eq!(repeated, 103, "three more SYNs and one reset");
        assert_eq!(s.sessions(), 0);
    }
}

#[test]
fn resets_of_an_open_connection_must_be_in_its_window() {
    for ends in [V4, V6] {
        let mut s = Scene::open(ends);
        let far = SERVER_ISN.wrapping_add(0x4000_0000);
        let o = s.down(far, ISN.wrapping_add(1), TCP_RST | TCP_ACK, 0, &[], &[]);
        assert_eq!(o, Outcome::Drop(DropReason::TcpOutOfWindow));
        let rst = sent(&s.down(SERVER_ISN.wrapping_add(1), ISN.wrapping_add(1), TCP_RST, 0, &[], &[]));
        assert_eq!(rst.seq, s.cookie.wrapping_add(1));
        assert_eq!(s.state(), Some(State::TcpReset));
    }
}

#[test]
fn errors_quote_the_numbers_of_who_gets_them() {
    let mut s = Scene::open(V4);
    let o = s.down(SERVER_ISN.wrapping_add(1), ISN.wrapping_add(1), TCP_ACK, 400, &[], b"data");
    let quoted = o.frame()[14..].to_vec();
    // A router on the way to the client wants smaller packets.
    let error = Pkt::icmp("198.51.100.1", V4.service.0, 3, 4, 1280, &quoted).into_port(WAN);
    let Outcome::Tx(port, frame) = s.rig.send(&error) else { panic!() };
    assert_eq!(port, LAN);
    let p = parsed(&frame);
    let icmp = &frame[usize::from(p.l4_at)..usize::from(p.l3 + p.ip_len)];
    assert_eq!(checksum::fold(checksum::sum(icmp)), 0xFFFF);
    assert_eq!(icmp[8 + 20 + 4..8 + 20 + 8], SERVER_ISN.wrapping_add(1).to_be_bytes());
}

#[test]
fn a_server_without_options_of_its_own() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        assert!(s.acknowledge().is_tx());
        let o = s.down(SERVER_ISN, ISN.wrapping_add(1), SYNACK, 64_000, &[], &[]);
        assert_eq!(sent(&o).window, 500, "in the scale that the client was told");
        let next = s.cookie.wrapping_add(1);
        // The server takes windows as they stand.
        assert_eq!(sent(&s.up(ISN.wrapping_add(1), next, TCP_ACK, 100, &[], &[])).window, 51_200);
        assert_eq!(sent(&s.up(ISN.wrapping_add(1), next, TCP_ACK, 1000, &[], &[])).window, u16::MAX);
        let down = s.down(SERVER_ISN.wrapping_add(1), ISN.wrapping_add(1), TCP_ACK, 64_000, &[], &[]);
        assert_eq!(sent(&down).window, 500);
        // A repeated SYN-ACK is acknowledged again.
        s.rig.emitted();
        let o = s.down(SERVER_ISN, ISN.wrapping_add(1), SYNACK, 64_000, &[], &[]);
        assert_eq!((sent(&o).flags, sent(&o).seq), (TCP_ACK, next));
        assert_eq!(s.rig.emitted().len(), 1);
    }
}

#[test]
fn who_waits_for_a_neighbor_is_not_forgotten() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        s.rig.change(|n| n.unresolve(LAN, ends.server.0));
        assert_eq!(s.acknowledge(), Outcome::Held);
        s.rig.change(|n| {
            n.neighbor(LAN, ends.server.0);
        });
        s.rig.poll();
        let made = s.rig.emitted();
        assert_eq!(made.len(), 1);
        let syn = read(made[0].0, &made[0].1);
        assert_eq!((syn.flags, syn.seq, syn.ack, syn.offer), (TCP_SYN, ISN, 0, OFFER));
        let o = s.down(SERVER_ISN, ISN.wrapping_add(1), SYNACK, 64_000, &[], &[]);
        assert_eq!(sent(&o).seq, s.cookie.wrapping_add(1), "the connection is translated all the same");
    }
}

#[test]
fn the_rules_hold_for_who_has_a_cookie() {
    for ends in [V4, V6] {
        let mut s = Scene::new(ends);
        s.rig.commit(|n| n.acl = Acl::new(false));
        assert_eq!(s.acknowledge(), Outcome::Drop(DropReason::AclDefaultDenied));
        assert_eq!(s.sessions(), 0);
    }
}

#[test]
fn a_successor_translates_on() {
    let s = Scene::open(V4);
    let table = &s.rig.pipe.tables.v4;
    let before = table.proxied(1).unwrap();
    assert_eq!(before.by(), s.cookie.wrapping_sub(SERVER_ISN));
    // The word lies beside the records, in memory that outlives the daemon.
    let again = session::take_over::<FlowRecord4>(table, 1, &Default::default());
    assert_eq!((again.sessions, table.proxied(1)), (1, Some(before)));
    assert!(table.record(RecordNo::forward(1)).packets.load(Relaxed) > 0);
}

/// The translation of the numbers goes with a session to another gateway.
#[test]
fn another_gateway_translates_on() {
    fn follow<R: FlowFamily>(from: &FlowTable<R>, to: &FlowTable<R>, there: &Rig) -> bool {
        let Found::Own(r) = replica::read(from, 1, there.now.tick()) else { return false };
        let by = (&*there.pipe.tables.nat, &there.snap);
        replica::install(to, by, &r, there.now.tick(), &mut DeferredFree::default()).is_ok()
    }
    for ends in [V4, V6] {
        let (mut a, mut b) = (Scene::open(ends), Scene::new(ends));
        let (from, to) = (a.rig.pipe.tables.clone(), b.rig.pipe.tables.clone());
        let went = follow(&from.v4, &to.v4, &b.rig) || follow(&from.v6, &to.v6, &b.rig);
        assert!(went && b.sessions() == 1 && b.state() == a.state(), "{ends:?}");
        let cookie = a.cookie;
        let question = |s: &mut Scene| {
            sent(&s.up(ISN.wrapping_add(1), cookie.wrapping_add(1), TCP_ACK, 100, &[], b"question"))
        };
        let answer = |s: &mut Scene| {
            sent(&s.down(SERVER_ISN.wrapping_add(1), ISN.wrapping_add(9), TCP_ACK, 100, &[], b"answer"))
        };
        let (up, down) = (question(&mut a), answer(&mut a));
        assert_eq!((up.ack, down.seq), (SERVER_ISN.wrapping_add(1), cookie.wrapping_add(1)), "{ends:?}");
        assert_eq!((question(&mut b), answer(&mut b)), (up, down), "{ends:?}");
    }
}
