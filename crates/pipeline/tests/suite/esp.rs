//! ESP tunnels, and the questions that gateways ask each other through tunnels.

use sag_model::config::Probing;
use sag_model::{DropReason, Nanos};
use sag_packet::encap::{Encap, Template};
use sag_packet::parse::{self, Family, NetworkLayer, Parsed};
use sag_packet::proto::*;
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::{EspSaTable, EspSas, Tunnel};
use sag_testkit::*;
use sag_tunnel::esp::{Cipher, HEADROOM, Inbound, Inner, Outbound, Suite, TAILROOM};
use sag_tunnel::probe::{self, Kind, Probe};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const LOCAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const SPI: u32 = 0x1234;

/// A gateway with an ESP tunnel, and the far end's associations.
struct Ends {
    rig: Rig,
    /// Opens what the gateway sends.
    rx: Inbound,
    /// Seals what it receives.
    tx: Outbound,
    udp: Option<u16>,
}

pub fn suite() -> Suite {
    Suite::new(Cipher::Aes128Gcm, &[7; 20]).unwrap()
}

/// Keys by which tunnel 1 sends, and receives what it has sent.
pub fn keyed() -> EspSaTable {
    let book = EspSaTable::default();
    let mut sas = EspSas::default();
    sas.send_by(sag_testkit::tunnel_no(1), Arc::new(Outbound::new(SPI, suite(), true, 1, 1)));
    sas.receive_by(sag_testkit::tunnel_no(1), Arc::new(Inbound::new(SPI, suite(), true, 1024, 0)));
    book.store(sas);
    book
}

fn ends(udp: Option<u16>, interval: u32) -> Ends {
    let book = keyed();
    let (local, remote) = (IpAddr::V4(LOCAL), IpAddr::V4(REMOTE));
    let mut net = Net::branch();
    net.route("10.30.0.0/16", Route::Via(vec![Member::tunnel(sag_testkit::tunnel_no(1), 1)]));
    net.tunnels.push(Tunnel {
        local,
        remote,
        template: Template::new(local, remote, 64, Encap::Esp { udp }),
        addrs4: Vec::new(),
        addrs6: Vec::new(),
        probing: Probing { interval, loss: 3, target: None },
        esp: Arc::new(book),
        ..test_tunnel(1, Encap::Esp { udp }, Family::V4)
    });
    let rx = Inbound::new(SPI, suite(), true, 1024, 0);
    Ends { rig: Rig::new(net), rx, tx: Outbound::new(SPI, suite(), true, 1, 1), udp }
}

fn parsed(frame: &[u8]) -> Parsed {
    let (_, ethertype, l3) = parse::link(frame).unwrap();
    match parse::parse(frame, ethertype, l3) {
        Ok(NetworkLayer::Ip(p)) => p,
        other => panic!("{other:?}"),
    }
}

impl Ends {
    /// What is in a frame that the gateway has sent.
    fn open(&self, frame: &[u8]) -> Vec<u8> {
        let p = parsed(frame);
        assert_eq!((p.src(frame), p.dst(frame)), (LOCAL.into(), REMOTE.into()));
        let mut esp = p.ip(frame)[IPV4_LEN..].to_vec();
        match self.udp {
            None => assert_eq!(p.proto, ESP),
            Some(port) => {
                assert_eq!((p.proto, p.ports()), (UDP, (port, port)));
                assert_eq!(&esp[6..8], [0, 0]);
                esp.drain(..8);
            }
        }
        let at = self.rx.open(&mut esp).unwrap().at;
        esp[at].to_vec()
    }

    /// A frame from the far end around a packet.
    fn seal(&self, inner: &[u8], sport: u16) -> Vec<u8> {
        let front = if self.udp.is_some() { 8 } else { 0 };
        let mut esp = vec![0; front + HEADROOM];
        esp.extend_from_slice(inner);
        esp.resize(esp.len() + TAILROOM, 0);
        let kind = if inner[0] >> 4 == 4 { Inner::V4 } else { Inner::V6 };
        let at = front + HEADROOM..front + HEADROOM + inner.len();
        let end = self.tx.seal(&mut esp, at, kind).unwrap().at.end;
        esp.truncate(end);
        if let Some(port) = self.udp {
            esp[..2].copy_from_slice(&sport.to_be_bytes());
            esp[2..4].copy_from_slice(&port.to_be_bytes());
            esp[4..6].copy_from_slice(&(end as u16).to_be_bytes());
        }
        outer(if self.udp.is_some() { UDP } else { ESP }, &esp)
    }
}

pub fn outer(proto: u8, data: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0];
    ip.extend(REMOTE.octets());
    ip.extend(LOCAL.octets());
    let len = (ip.len() + data.len()) as u16;
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut f = GATEWAY_MACS[WAN.index()].0.to_vec();
    f.extend([2, 9, 9, 9, 9, 9, 8, 0]);
    f.extend(ip);
    f.extend(data);
    f
}

fn outward(data: usize) -> Pkt {
    Pkt::udp("192.168.1.10", "10.30.0.1", 1000, 2000).payload(data)
}

fn reply() -> Vec<u8> {
    Pkt::udp("10.30.0.1", "192.168.1.10", 2000, 1000).payload(6).ip()
}

#[test]
fn there_and_back() {
    for udp in [None, Some(4500)] {
        let mut e = ends(udp, 0);
        for n in 0..3 {
            for size in [1, 2, 3, 4, 700] {
                let sent = outward(size);
                let out = e.rig.send(&sent);
                let inner = e.open(out.frame());
                assert_eq!(inner[20..], sent.ip()[20..], "packet {n}");
                assert_eq!(inner[8], sent.ip()[8] - 1);
            }
            let back = e.seal(&reply(), 4500);
            let Outcome::Tx(port, frame) = e.rig.frame(DEV_WAN, &back) else { panic!("packet {n} back") };
            assert_eq!(port, LAN);
            assert_eq!(parsed(&frame).ip(&frame)[20..], reply()[20..]);
            assert_eq!(e.rig.frame(DEV_WAN, &back), Outcome::Drop(DropReason::EspReplay));
        }
        assert_eq!(e.rig.sessions(), (1, 0));
        e.rig.check_accounting();
    }
}

#[test]
fn what_is_wrong_is_named() {
    use DropReason::*;
    let mut e = ends(None, 0);
    let good = e.seal(&reply(), 0);
    let broken = |at: usize| {
        let mut f = good.clone();
        f[at] ^= 1;
        f
    };
    assert_eq!(e.rig.frame(DEV_WAN, &broken(34)), Outcome::Drop(EspUnknownSpi));
    assert_eq!(e.rig.frame(DEV_WAN, &broken(60)), Outcome::Drop(EspBadIcv));
    assert_eq!(e.rig.frame(DEV_WAN, &outer(ESP, &[0, 0])), Outcome::Drop(EspTruncated));
    assert_eq!(
        e.rig.frame(DEV_WAN, &outer(ESP, &[0, 0, 0x12, 0x34, 0, 0, 0, 1])),
        Outcome::Drop(EspTruncated)
    );
    assert!(e.rig.frame(DEV_WAN, &good).is_tx());
    // In UDP it is another's.
    assert_eq!(
        e.rig.frame(DEV_WAN, &outer(UDP, &[0x11, 0x94, 0x11, 0x94, 0, 9, 0, 0, 0xFF])),
        Outcome::Kernel
    );

    let mut e = ends(Some(4500), 0);
    let udp = |payload: &[u8]| {
        let mut d = vec![0x11, 0x94, 0x11, 0x94, 0, 8 + payload.len() as u8, 0, 0];
        d.extend(payload);
        outer(UDP, &d)
    };
    assert_eq!(e.rig.frame(DEV_WAN, &udp(&[0xFF])), Outcome::Drop(EspKeepalive));
    assert_eq!(e.rig.frame(DEV_WAN, &udp(&[1, 2])), Outcome::Drop(EspTruncated));
    // IKE is for whoever speaks it.
    assert_eq!(e.rig.frame(DEV_WAN, &udp(&[0, 0, 0, 0, 9, 9, 9, 9])), Outcome::Kernel);
    e.rig.check_accounting();
}

#[test]
fn without_keys_nothing_leaves() {
    let mut e = ends(None, 0);
    e.rig.commit(|net| net.tunnels[0].esp = Arc::default());
    assert_eq!(e.rig.send(&outward(10)), Outcome::Drop(DropReason::EspNoKeys));
}

/// What the gateway has sent of itself that is no ESP: addresses, ports, and the payload.
fn plain(e: &mut Ends) -> Vec<(IpAddr, (u16, u16), Vec<u8>)> {
    let sent = e.rig.emitted();
    let read = |f: &[u8]| {
        let p = parsed(f);
        let end = usize::from(p.l3) + usize::from(p.ip_len);
        assert_eq!((p.proto, p.dont_fragment), (UDP, true));
        assert_eq!(p.src(f), IpAddr::V4(LOCAL));
        (p.dst(f), p.ports(), f[usize::from(p.l4_at) + UDP_LEN..end].to_vec())
    };
    sent.iter().map(|(_, f)| read(f)).filter(|(_, _, data)| data.len() < HEADROOM).collect()
}

#[test]
fn silence_is_broken_for_nat() {
    let mut e = ends(Some(4500), 0);
    e.rig.commit(|net| net.tunnels[0].keepalive = 2);
    let said = (IpAddr::V4(REMOTE), (4500, 4500), vec![0xFF]);
    pass(&mut e, 1);
    assert!(plain(&mut e).is_empty());
    for _ in 0..3 {
        pass(&mut e, 1990);
        assert!(plain(&mut e).is_empty(), "not before its time");
        pass(&mut e, 20);
        assert_eq!(plain(&mut e), std::slice::from_ref(&said));
    }
    // Traffic puts it off.
    for _ in 0..10 {
        assert!(e.rig.send(&outward(10)).is_tx());
        pass(&mut e, 1000);
        assert!(plain(&mut e).is_empty());
    }
    // It goes where the peer is.
    let moved = e.seal(&reply(), 31000);
    assert!(e.rig.frame(DEV_WAN, &moved).is_tx());
    pass(&mut e, 2000);
    assert_eq!(plain(&mut e), [(IpAddr::V4(REMOTE), (4500, 31000), vec![0xFF])]);
    assert_eq!(e.rig.pipe.counters.tunnel(sag_testkit::tunnel_no(1)).keepalives.get(), 4);
    // New keys are no packet.
    pass(&mut e, 1500);
    let mut sas = EspSas::default();
    sas.send_by(sag_testkit::tunnel_no(1), Arc::new(Outbound::new(SPI + 1, suite(), true, 1, 1)));
    e.rig.net.tunnels[0].esp.store(sas);
    pass(&mut e, 510);
    assert_eq!(plain(&mut e).len(), 1);
    e.rig.net.tunnels[0].esp.store(EspSas::default());
    pass(&mut e, 10_000);
    assert!(plain(&mut e).is_empty(), "there are no keys");
    e.rig.check_accounting();
}

#[test]
fn plain_esp_and_zero_seconds_break_no_silence() {
    for (udp, keepalive) in [(None, 1), (Some(4500), 0)] {
        let mut e = ends(udp, 0);
        e.rig.commit(|net| net.tunnels[0].keepalive = keepalive);
        for _ in 0..50 {
            pass(&mut e, 100);
        }
        assert!(e.rig.emitted().is_empty());
    }
}

#[test]
fn a_keepalive_is_tried_again_when_the_way_is_not_known() {
    let mut e = ends(Some(4500), 0);
    e.rig.commit(|net| {
        net.tunnels[0].keepalive = 20;
        net.tunnels[0].remote = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 200));
    });
    pass(&mut e, 1);
    pass(&mut e, 20_010);
    assert!(plain(&mut e).is_empty());
    e.rig.commit(|net| net.tunnels[0].remote = IpAddr::V4(REMOTE));
    pass(&mut e, 500);
    assert!(plain(&mut e).is_empty(), "not all the time");
    pass(&mut e, 600);
    assert_eq!(plain(&mut e).len(), 1);
}

#[test]
fn the_peers_port_is_learned_from_authentic_packets() {
    let mut e = ends(Some(4500), 0);
    let port_now = |e: &mut Ends| parsed(e.rig.send(&outward(5)).frame()).ports().1;
    assert_eq!(port_now(&mut e), 4500);
    let mut forged = e.seal(&reply(), 666);
    *forged.last_mut().unwrap() ^= 1;
    e.rig.frame(DEV_WAN, &forged);
    assert_eq!(port_now(&mut e), 4500);
    let early = e.seal(&reply(), 30000);
    let late = e.seal(&reply(), 31000);
    assert!(e.rig.frame(DEV_WAN, &late).is_tx());
    assert_eq!(port_now(&mut e), 31000);
    // What comes late is no news.
    assert!(e.rig.frame(DEV_WAN, &early).is_tx());
    assert_eq!(port_now(&mut e), 31000);
}

/// A packet that was held back on its way and comes by an association that the peer has left does not move it, and
/// neither does a replay.
#[test]
fn only_a_packet_newer_than_all_before_moves_the_peer() {
    let mut e = ends(Some(4500), 0);
    let port_now = |e: &mut Ends| parsed(e.rig.send(&outward(5)).frame()).ports().1;
    assert_eq!(port_now(&mut e), 4500);
    let before = e.seal(&reply(), 30000);
    let held_back = e.seal(&reply(), 666);
    assert!(e.rig.frame(DEV_WAN, &before).is_tx());
    assert_eq!(port_now(&mut e), 30000);
    // Another pair of keys, by which the peer does not send yet: it is followed by the old one.
    let mut sas = EspSas::default();
    sas.send_by(sag_testkit::tunnel_no(1), Arc::new(Outbound::new(SPI, suite(), true, 1, 1)));
    let now = Inbound::new(SPI, suite(), true, 1024, 1);
    sas.receive_by(sag_testkit::tunnel_no(1), Arc::new(now));
    sas.receive_by(sag_testkit::tunnel_no(1), Arc::new(Inbound::new(SPI + 1, suite(), true, 1024, 0)));
    e.rig.net.tunnels[0].esp.store(sas);
    let next = Ends {
        rig: Rig::new(Net::branch()),
        rx: Inbound::new(SPI, suite(), true, 64, 0),
        tx: Outbound::new(SPI + 1, suite(), true, 1, 1),
        udp: e.udp,
    };
    let third = e.seal(&reply(), 31000);
    let late = e.seal(&reply(), 667);
    assert!(e.rig.frame(DEV_WAN, &third).is_tx());
    assert_eq!(port_now(&mut e), 31000);
    assert!(e.rig.frame(DEV_WAN, &held_back).is_tx(), "it is received for the first time");
    assert_eq!(port_now(&mut e), 31000);
    // The peer moves to the new keys; what comes by the old ones is received, and moves nothing.
    let by_new = next.seal(&reply(), 32000);
    assert!(e.rig.frame(DEV_WAN, &by_new).is_tx());
    assert_eq!(port_now(&mut e), 32000);
    assert!(e.rig.frame(DEV_WAN, &late).is_tx());
    assert_eq!(port_now(&mut e), 32000);
    let replayed = next.seal(&reply(), 32001);
    assert!(e.rig.frame(DEV_WAN, &replayed).is_tx());
    assert_eq!(port_now(&mut e), 32001);
    // The same packet from elsewhere: source and checksum differ, ESP does not.
    let mut elsewhere = replayed.clone();
    elsewhere[34..36].copy_from_slice(&666u16.to_be_bytes());
    assert_eq!(e.rig.frame(DEV_WAN, &elsewhere), Outcome::Drop(DropReason::EspReplay));
    assert_eq!(port_now(&mut e), 32001);
}

/// Keys that outlive the process: nothing leaves before its number is written down.
#[test]
fn without_a_reserve_nothing_leaves_by_name() {
    let mut e = ends(None, 0);
    let sa = Arc::new(Outbound::unreserved(SPI, suite(), true, 1, 1));
    let mut sas = EspSas::default();
    sas.send_by(sag_testkit::tunnel_no(1), sa.clone());
    e.rig.net.tunnels[0].esp.store(sas);
    for _ in 0..3 {
        assert_eq!(e.rig.send(&outward(10)), Outcome::Drop(DropReason::EspUnreserved));
    }
    sa.grant(3);
    assert!(e.rig.send(&outward(10)).is_tx() && e.rig.send(&outward(10)).is_tx());
    assert_eq!(e.rig.send(&outward(10)), Outcome::Drop(DropReason::EspUnreserved));
    e.rig.check_accounting();
}

#[test]
fn packets_inside_are_told_how_much_fits() {
    let mut e = ends(None, 0);
    // 1500 less 20, 16 and 16 is 1448, and two bytes of trailer.
    let fits = outward(1446 - 28).df();
    assert!(e.rig.send(&fits).is_tx());
    assert_eq!(e.rig.send(&outward(1447 - 28).df()), Outcome::Drop(DropReason::MtuExceeded));
}

/// The probes among what the gateway has sent of itself.
fn questions(e: &mut Ends) -> Vec<(Probe, usize)> {
    let sent = e.rig.emitted();
    let inner = sent.iter().map(|(_, f)| (e.open(f), f.len() - 14));
    inner.filter_map(|(i, outer)| Some((Probe::read(&i[28..])?, outer))).collect()
}

fn answer(e: &mut Ends, p: &Probe) {
    let mut inner = Pkt::udp("192.0.0.8", "192.0.0.8", probe::PORT, probe::PORT).payload(probe::LEN).ip();
    assert!(p.write(&mut inner[28..]));
    inner[26..28].fill(0);
    let frame = e.seal(&inner, 4500);
    assert!(!e.rig.frame(DEV_WAN, &frame).is_tx());
}

fn pass(e: &mut Ends, ms: u64) {
    e.rig.now = Nanos(e.rig.now.0 + ms * 1_000_000);
    e.rig.poll();
}

#[test]
fn the_far_end_is_asked_and_its_silence_noticed() {
    let mut e = ends(None, 100);
    let state = e.rig.net.tunnels[0].state.clone();
    pass(&mut e, 1);
    let mut largest = 0;
    for _ in 0..400 {
        for (p, outer) in questions(&mut e) {
            if p.kind == Kind::Size {
                assert_eq!(outer, usize::from(p.size), "the probe is as large as it says");
                largest = largest.max(outer);
            }
            // A hop lets no more than 1300 bytes pass.
            if let (Some(reply), true) = (p.reply(), outer <= 1300) {
                answer(&mut e, &reply);
            }
        }
        pass(&mut e, 10);
    }
    assert_eq!((largest, state.path_mtu()), (1500, 1300));
    let w = state.watched();
    assert!(state.is_up() && w.rtt.is_some() && w.loss_permille == 0, "{w:?}");
    for _ in 0..45 {
        pass(&mut e, 10);
    }
    assert!(!state.is_up() && e.rig.pipe.take_tunnels_changed());
    e.rig.emitted();
    assert_eq!(e.rig.send(&outward(10)), Outcome::Drop(DropReason::TunnelDown));
    assert_eq!(e.rig.emitted().len(), 1, "the sender is notified");
    for _ in 0..60 {
        for (p, _) in questions(&mut e) {
            if let Some(reply) = p.reply() {
                answer(&mut e, &reply);
            }
        }
        pass(&mut e, 10);
    }
    assert!(state.is_up());
    assert!(e.rig.send(&outward(10)).is_tx());
}

#[test]
fn questions_are_answered_and_strangers_are_not_taken_for_down() {
    let mut e = ends(None, 100);
    let p = Probe { kind: Kind::Alive, size: 0, sequence: 5, instance: 9, cookie: 77 };
    pass(&mut e, 1);
    e.rig.emitted();
    answer(&mut e, &p);
    let got = questions(&mut e);
    assert!(got.iter().any(|(q, _)| *q == p.reply().unwrap()), "{got:?}");
    // Answers to nobody's question change nothing; a peer that has never answered is no failure.
    answer(&mut e, &Probe { kind: Kind::AliveReply, sequence: 1, ..p });
    for _ in 0..500 {
        pass(&mut e, 10);
    }
    let state = &e.rig.net.tunnels[0].state;
    assert!(state.is_up() && state.watched().rtt.is_none());
}

#[test]
fn a_router_on_the_way_is_heard_if_it_quotes_us() {
    for udp in [None, Some(4500)] {
        let mut e = ends(udp, 0);
        let state = e.rig.net.tunnels[0].state.clone();
        let sent = e.rig.send(&outward(900).df()).frame().to_vec();
        let tell = |quote: &[u8], mtu: u16| {
            let mut icmp = vec![3, 4, 0, 0, 0, 0];
            icmp.extend(mtu.to_be_bytes());
            icmp.extend(&quote[..64.min(quote.len())]);
            let sum = checksum(&[&icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            outer(ICMP, &icmp)
        };
        let mut other = sent[14..].to_vec();
        // Another port, another SPI.
        other[20] ^= 1;
        e.rig.frame(DEV_WAN, &tell(&other, 800));
        assert_eq!(state.path_mtu(), 1500);
        // A number that is still to come.
        let mut number = sent[14..].to_vec();
        number[20 + if udp.is_some() { 8 } else { 0 } + 6] ^= 1;
        e.rig.frame(DEV_WAN, &tell(&number, 800));
        assert_eq!((state.path_mtu(), state.refused_errors()), (1500, 1));
        e.rig.frame(DEV_WAN, &tell(&sent[14..], 800));
        assert_eq!(state.path_mtu(), 1280, "less than that, ICMP alone does not say");
    }
}

#[test]
fn nothing_shows_a_key() {
    let e = ends(None, 0);
    let shown = format!("{:?}", e.rig.net.tunnels[0]);
    assert!(!shown.contains("7, 7, 7") && !shown.contains("0707"));
}
