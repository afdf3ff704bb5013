//! Forward error correction between two gateways, over a wire that loses what the test says.

use crate::esp::{keyed, suite};
use sag_model::config::{Fec, Probing, ReversePath};
use sag_model::{DropReason, Nanos};
use sag_packet::encap::{Encap, Template};
use sag_packet::parse::{self, Family, NetworkLayer};
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::*;
use sag_tunnel::esp::{HEADROOM, Inner, Outbound, TAILROOM};
use sag_tunnel::fec::{REPAIR_HEADER, SOURCE_HEADER};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const NEAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const SPI: u32 = 0x1234;

fn fec(window: u8, repairs: u8) -> Option<Fec> {
    Some(Fec { window, repairs, delay: 20 })
}

/// A branch whose tunnel sends to itself: what it sends comes back from `FAR` and goes to its LAN.
fn gateway(fec: Option<Fec>) -> Rig {
    let book = keyed();
    let (local, remote) = (IpAddr::V4(NEAR), IpAddr::V4(FAR));
    let mut net = Net::branch();
    net.route("10.30.0.0/16", Route::Via(vec![Member::tunnel(sag_testkit::tunnel_no(1), 1)]));
    net.tunnels.push(Tunnel {
        local,
        remote,
        template: Template::new(local, remote, 64, Encap::Esp { udp: None }),
        addrs4: Vec::new(),
        addrs6: Vec::new(),
        probing: Probing { interval: 0, loss: 3, target: None },
        fec,
        // What it sends comes back.
        reverse_path: ReversePath::Off,
        esp: Arc::new(book),
        ..test_tunnel(1, Encap::Esp { udp: None }, Family::V4)
    });
    let mut rig = Rig::new(net);
    rig.poll();
    rig
}

/// Hosts behind the far gateway, who speak to hosts behind the near one: the far gateway's inside is
/// like the near one's, so its packets are addressed as if they came from 10.30/16 all along.
fn packet(n: usize) -> Pkt {
    Pkt::udp("192.168.1.10", "10.30.0.1", 1000, 2000).payload(100 + n * 13 % 900 + n / 70)
}

fn pass(rig: &mut Rig, ms: u64) {
    rig.now = Nanos(rig.now.0 + ms * 1_000_000);
    rig.poll();
}

/// What `n` packets become on the wire, repairs included.
fn sent(rig: &mut Rig, n: usize) -> Vec<Vec<u8>> {
    let mut wire = Vec::new();
    for i in 0..n {
        wire.push(rig.send(&packet(i)).frame().to_vec());
        rig.poll();
        wire.extend(rig.emitted().into_iter().map(|(_, f)| f));
    }
    pass(rig, 21);
    wire.extend(rig.emitted().into_iter().map(|(_, f)| f));
    wire
}

/// As the far gateway receives it: from the near one to itself.
fn turned(frame: &[u8]) -> Vec<u8> {
    let mut f = frame.to_vec();
    f[..6].copy_from_slice(&GATEWAY_MACS[WAN.index()].0);
    f[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    // The sum of addresses stays what it was.
    f[26..30].copy_from_slice(&FAR.octets());
    f[30..34].copy_from_slice(&NEAR.octets());
    f
}

/// Lengths of UDP packets that a gateway has forwarded out of its tunnel: they tell them apart.
fn lengths(frames: &[Vec<u8>]) -> BTreeSet<u16> {
    let len = |f: &Vec<u8>| match parse::parse(f, 0x0800, 14) {
        Ok(NetworkLayer::Ip(p)) => p.ip_len,
        other => panic!("{other:?}"),
    };
    frames.iter().map(len).collect()
}

/// The far end: takes frames, gives what it forwards.
fn receive(rig: &mut Rig, wire: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for frame in wire {
        match rig.frame(DEV_WAN, &turned(frame)) {
            Outcome::Tx(_, f) => out.push(f),
            Outcome::Held | Outcome::Emitted => {}
            Outcome::Drop(DropReason::FecDuplicate) => {}
            other => panic!("{other:?}"),
        }
        out.extend(rig.emitted().into_iter().map(|(_, f)| f));
    }
    out
}

/// A gateway to which 10.30.0.1 is inside.
fn far_end(fec: Option<Fec>) -> Rig {
    let mut rig = gateway(fec);
    rig.commit(|net| {
        let there: IpAddr = "10.30.0.0".parse().unwrap();
        net.routes.retain(|((to, _), _)| *to != there);
        net.route(
            "10.30.0.0/16",
            Route::Via(vec![Member::port(LAN, Some("192.168.1.10".parse().unwrap()), 1)]),
        );
    });
    rig.poll();
    rig
}

#[test]
fn what_is_lost_on_the_way_arrives() {
    for (window, repairs) in [(4, 1), (10, 2), (8, 3)] {
        let mut near = gateway(fec(window, repairs));
        let mut far = far_end(fec(2, 1));
        let n = 5 * usize::from(window) + 3;
        let wire = sent(&mut near, n);
        let all = wire.len();
        let last = 3.min(usize::from(repairs));
        assert_eq!(all, n + 5 * usize::from(repairs) + last, "repairs of whole windows and of the last");
        // As many as there are repairs, in each whole window at another place; none in the last.
        let per = usize::from(window + repairs);
        let lost = |i: usize| i < 5 * per && (i % per + i / per * 3) % per < usize::from(repairs);
        let wire: Vec<_> = wire.into_iter().enumerate().filter(|(i, _)| !lost(*i)).map(|(_, f)| f).collect();
        let got = receive(&mut far, &wire);
        assert_eq!(got.len(), n, "{window} {repairs}");
        let want: BTreeSet<_> = (0..n).map(|i| packet(i).ip().len() as u16).collect();
        assert_eq!(lengths(&got), want);
        let (tx, rx) = (
            near.pipe.counters.tunnel(sag_testkit::tunnel_no(1)),
            far.pipe.counters.tunnel(sag_testkit::tunnel_no(1)),
        );
        assert_eq!(tx.fec_repairs.get(), (all - n) as u64);
        assert!(tx.fec_overhead.get() > (n * SOURCE_HEADER) as u64);
        assert!(rx.fec_recovered.get() > 0 && rx.fec_unrecoverable.get() == 0);
        assert_eq!((tx.tx_packets.get(), rx.rx_packets.get()), (n as u64, n as u64));
        pass(&mut far, 3000);
        assert_eq!(far.pipe.counters.port(WAN).held.get(), 0);
        far.check_accounting();
    }
}

#[test]
fn recovered_packets_are_the_ones_that_were_sent() {
    let (mut near, mut far) = (gateway(fec(6, 2)), far_end(fec(6, 2)));
    let wire = sent(&mut near, 6);
    let whole = receive(&mut far_end(fec(6, 2)), &wire[..6]);
    let part: Vec<_> =
        wire.iter().enumerate().filter(|(i, _)| *i != 1 && *i != 4).map(|(_, f)| f.clone()).collect();
    let mut got = receive(&mut far, &part);
    let mut want = whole;
    got.sort();
    want.sort();
    assert!(got == want);
}

#[test]
fn more_losses_than_repairs_lose_only_what_was_lost() {
    let (mut near, mut far) = (gateway(fec(5, 1)), far_end(fec(5, 1)));
    let wire = sent(&mut near, 10);
    let part: Vec<_> =
        wire.iter().enumerate().filter(|(i, _)| ![0, 3].contains(i)).map(|(_, f)| f.clone()).collect();
    assert_eq!(receive(&mut far, &part).len(), 8);
    assert_eq!(
        far.pipe.counters.tunnel(sag_testkit::tunnel_no(1)).fec_unrecoverable.get(),
        0,
        "it may come yet"
    );
    pass(&mut far, 2100);
    let c = far.pipe.counters.tunnel(sag_testkit::tunnel_no(1));
    assert_eq!((c.fec_unrecoverable.get(), c.fec_recovered.get()), (1, 0));
    assert_eq!(far.pipe.counters.port(WAN).held.get(), 0);
    // Too late.
    assert_eq!(receive(&mut far, &wire[..1]).len(), 1);
}

#[test]
fn what_comes_after_it_was_recovered_is_dropped_by_name() {
    let (mut near, mut far) = (gateway(fec(3, 1)), far_end(fec(3, 1)));
    let wire = sent(&mut near, 3);
    assert_eq!(receive(&mut far, &wire[1..]).len(), 3);
    assert_eq!(far.frame(DEV_WAN, &turned(&wire[0])), Outcome::Drop(DropReason::FecDuplicate));
}

#[test]
fn one_end_may_have_it_and_the_other_not() {
    let (mut near, mut far) = (gateway(fec(3, 1)), far_end(None));
    let wire = sent(&mut near, 6);
    assert_eq!(receive(&mut far, &wire).len(), 6);
    assert_eq!(far.pipe.counters.port(WAN).to_kernel.get(), 2, "repairs end here");
    let (mut near, mut far) = (gateway(None), far_end(fec(3, 1)));
    let wire = sent(&mut near, 6);
    assert_eq!((wire.len(), receive(&mut far, &wire).len()), (6, 6));
    // Off at last: nothing is kept of it, and the packet accounting holds.
    let wire = sent(&mut gateway(fec(4, 2)), 4);
    receive(&mut far_end(fec(3, 1)), &wire[..3]);
    let mut far = far_end(fec(3, 1));
    receive(&mut far, &[wire[0].clone(), wire[4].clone()]);
    assert_eq!(far.pipe.counters.port(WAN).held.get(), 1);
    far.commit(|net| net.tunnels[0].fec = None);
    far.poll();
    assert_eq!(far.pipe.counters.port(WAN).held.get(), 0);
}

#[test]
fn the_longest_packet_leaves_room_for_its_repair() {
    let mut rig = gateway(fec(2, 1));
    let plain = gateway(None).net.tunnels[0].whole_mtu();
    let most = rig.net.tunnels[0].whole_mtu();
    assert_eq!(plain - most, REPAIR_HEADER as u16);
    let of = |len: u16| Pkt::udp("192.168.1.10", "10.30.0.1", 1000, 2000).payload(usize::from(len) - 28).df();
    assert_eq!(rig.send(&of(most + 1)), Outcome::Drop(DropReason::MtuExceeded));
    rig.emitted();
    for _ in 0..2 {
        assert!(rig.send(&of(most)).is_tx());
    }
    rig.poll();
    let repairs = rig.emitted();
    assert_eq!(repairs.len(), 1);
    assert!(repairs[0].1.len() <= 1500 + 14, "{}", repairs[0].1.len());
}

#[test]
fn packets_that_are_split_inside_are_protected_piece_by_piece() {
    let (mut near, mut far) = (gateway(fec(3, 1)), far_end(fec(3, 1)));
    let big = Pkt::udp("192.168.1.10", "10.30.0.1", 1000, 2000).payload(1472);
    assert_eq!(near.send(&big), Outcome::Emitted);
    pass(&mut near, 21);
    let wire: Vec<_> = near.emitted().into_iter().map(|(_, f)| f).collect();
    assert_eq!(wire.len(), 3, "two pieces and their repair");
    let got = receive(&mut far, &wire[1..]);
    assert_eq!(got.len(), 2);
}

#[test]
fn malformed_headers_are_dropped_by_name() {
    let mut far = far_end(fec(3, 1));
    let tx = Outbound::new(SPI, suite(), true, 1, 9);
    let seal = |text: &[u8]| {
        let mut esp = vec![0; HEADROOM];
        esp.extend_from_slice(text);
        esp.resize(esp.len() + TAILROOM, 0);
        let end = tx.seal(&mut esp, HEADROOM..HEADROOM + text.len(), Inner::Fec).unwrap().at.end;
        esp.truncate(end);
        crate::esp::outer(50, &esp)
    };
    for text in [
        &[0u8; 40][..],
        &[0x10, 0, 0, 0, 0, 0, 0, 1, 0x55],
        &[0x11, 0, 0, 1, 0, 0, 0, 1, 2, 1, 1, 0],
        &[0x10],
    ] {
        let frame = seal(text);
        assert_eq!(far.frame(DEV_WAN, &frame), Outcome::Drop(DropReason::FecBadHeader), "{text:?}");
    }
    assert_eq!(far.pipe.counters.tunnel(sag_testkit::tunnel_no(1)).drops.get(), 4);
}
