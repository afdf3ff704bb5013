//! The box's own connections win over what NAT has mapped inside: real sockets, and packets that are
//! theirs or not.

mod common;

use common::netns::*;
use common::packet::*;
use common::*;
use sag_bpf::{LocalAddr, PortEntry, PuntReason};
use sag_model::flow::nat_port_bit;
use sag_model::{DropReason, Zone};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;

/// The box's address by NAT slot 2, another one without bits that count, and somebody else's. All of
/// them are on the loopback device, so connections need no wire.
const BOX: [u8; 4] = [203, 0, 113, 1];
const OTHER: [u8; 4] = [203, 0, 113, 2];
const PEER: [u8; 4] = [198, 51, 100, 7];
const PORT: u16 = 40_000;

fn at(addr: [u8; 4], port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(addr), port)
}

/// A gateway in a namespace; every port of the address is mapped inside, by bits or by `any`.
fn fixture(any: bool) -> Option<(Fixture, Netns)> {
    let ns = Netns::new()?;
    for a in [BOX, OTHER, PEER] {
        ip(&["addr", "add", &format!("{}/32", Ipv4Addr::from(a)), "dev", "lo"]).unwrap();
    }
    let f = Fixture::new()?;
    f.gw.replace_local4(&[LocalAddr { nat_slot: (!any).then_some(2), any, ..LocalAddr::plain(BOX.into()) }])
        .unwrap();
    for udp in [false, true] {
        let (word, _) = nat_port_bit(2, udp, 0);
        f.gw.nat_ports()[word..word + 1024].iter().for_each(|w| w.store(u64::MAX, Relaxed));
    }
    Some((f, ns))
}

fn tcp_from(f: &Fixture, from: SocketAddrV4, port: u16, flags: u8) -> Outcome {
    outcome(f, &v4(from.ip().octets(), BOX, 6, tcp(from.port(), port, flags, b"")).frame(None))
}

fn udp_from(f: &Fixture, from: SocketAddrV4, port: u16) -> Outcome {
    outcome(f, &v4(from.ip().octets(), BOX, 17, udp(from.port(), port, b"x")).frame(None))
}

const WORKER: Outcome = Outcome::Worker(PuntReason::Miss);

fn v4_of(a: std::io::Result<std::net::SocketAddr>) -> SocketAddrV4 {
    match a.unwrap() {
        std::net::SocketAddr::V4(a) => a,
        other => panic!("{other}"),
    }
}

/// Of a socket that is closed a process that another test is about to start may have a copy for a moment.
#[track_caller]
fn soon(look: impl Fn() -> Outcome, want: Outcome) {
    for _ in 0..200 {
        if look() == want {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(look(), want);
}

#[test]
fn tcp_connections_are_the_boxs_and_listeners_own_nothing() {
    for any in [false, true] {
        let Some((f, _ns)) = fixture(any) else { return };
        let stranger = at([192, 0, 2, 77], 1234);
        let listener = TcpListener::bind(at(BOX, PORT)).unwrap();
        assert_eq!(tcp_from(&f, stranger, PORT, 2), WORKER, "a forward wins over a listener");

        // To and from the box: one connection seen from both ends.
        let client = TcpStream::connect(at(BOX, PORT)).unwrap();
        let near = v4_of(client.local_addr());
        assert_eq!(near.ip().octets(), BOX);
        assert_eq!(tcp_from(&f, at(BOX, PORT), near.port(), 0x10), Outcome::Kernel, "the client's end");
        let (conn, peer) = listener.accept().unwrap();
        let peer = v4_of(Ok(peer));
        for flags in [0x10, 0x18, 0x11, 0x04, 0x02] {
            assert_eq!(tcp_from(&f, peer, PORT, flags), Outcome::Kernel, "flags {flags:#x}");
        }
        assert_eq!(tcp_from(&f, at(peer.ip().octets(), peer.port() ^ 1), PORT, 0x10), WORKER, "another port");
        assert_eq!(tcp_from(&f, at(OTHER, peer.port()), PORT, 0x10), WORKER, "another peer");
        assert_eq!(tcp_from(&f, peer, PORT ^ 1, 0x10), WORKER, "another port of the box");
        assert_eq!(udp_from(&f, peer, PORT), WORKER, "another protocol");
        let options = V4 {
            options: vec![1, 1, 1, 0],
            ..v4(peer.ip().octets(), BOX, 6, tcp(peer.port(), PORT, 16, b""))
        };
        assert_eq!(outcome(&f, &options.frame(None)), Outcome::Kernel);

        // The box closes first and waits; the peer's last words are still for it.
        conn.shutdown(Shutdown::Both).unwrap();
        drop((conn, client));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(tcp_from(&f, peer, PORT, 0x11), Outcome::Kernel, "time wait");
    }
}

/// RFC 5382 REQ-4: nobody refuses them, and a host inside may open the same connection a moment later.
#[test]
fn syns_that_nobody_wants_are_dropped() {
    let Some((f, _ns)) = fixture(false) else { return };
    let (word, _) = nat_port_bit(2, false, 0);
    f.gw.nat_ports()[word..word + 1024].iter().for_each(|w| w.store(0, Relaxed));
    let stranger = at([192, 0, 2, 77], 1234);
    let from = |port, flags| tcp_from(&f, stranger, port, flags);
    let silent = |silent, zone: Zone| {
        let of_box = LocalAddr { nat_slot: Some(2), silent, ..LocalAddr::plain(BOX.into()) };
        f.gw.replace_local4(&[of_box]).unwrap();
        f.gw.set_port(LO, &PortEntry { side: zone.into(), ..port_entry() }).unwrap();
    };
    const DROPPED: Outcome = Outcome::Dropped(DropReason::NatFiltered);
    silent(false, Zone::Wan);
    assert_eq!(from(PORT, 2), Outcome::Kernel, "without NAT on the address");
    silent(true, Zone::Lan);
    assert_eq!(from(PORT, 2), Outcome::Kernel, "from inside");
    silent(true, Zone::Wan);
    assert_eq!(from(PORT, 2), DROPPED);
    for flags in [0x10, 0x12, 0x04, 0x14, 0x11] {
        assert_eq!(from(PORT, flags), Outcome::Kernel, "flags {flags:#x}");
    }
    assert_eq!(udp_from(&f, stranger, PORT), WORKER, "another protocol");
    // Of the address, of any, of both versions.
    for bound in ["203.0.113.1:0", "0.0.0.0:0", "[::]:0"] {
        let listener = TcpListener::bind(bound).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(from(port, 2), Outcome::Kernel, "{bound}");
        drop(listener);
        soon(|| from(port, 2), DROPPED);
    }
    let _elsewhere = TcpListener::bind(at(OTHER, PORT)).unwrap();
    assert_eq!(from(PORT, 2), DROPPED, "the listener has another address");
}

#[test]
fn a_handshake_in_progress_is_the_boxs() {
    let Some((f, _ns)) = fixture(false) else { return };
    // A peer behind a wire that never answers the second step.
    let far = at([192, 0, 2, 77], 1234);
    ip(&["route", "add", "192.0.2.77/32", "dev", "va"]).unwrap();
    ip(&["neigh", "add", "192.0.2.77", "lladdr", "02:00:5e:00:00:99", "dev", "va"]).unwrap();
    let _listener = TcpListener::bind(at(BOX, PORT)).unwrap();
    assert_eq!(tcp_from(&f, far, PORT, 0x10), WORKER);
    ip(&["link", "set", "va", "address", &GW_MAC.to_string()]).unwrap();
    send_raw("vb", &v4(far.ip().octets(), BOX, 6, tcp(far.port(), PORT, 2, b"")).frame(None));
    assert_eq!(tcp_from(&f, far, PORT, 0x10), Outcome::Kernel);
    assert_eq!(tcp_from(&f, at([192, 0, 2, 77], 1235), PORT, 0x10), WORKER);
}

#[test]
fn udp_sockets_own_what_they_would_get() {
    for any in [false, true] {
        let Some((f, _ns)) = fixture(any) else { return };
        let peer = at([192, 0, 2, 77], 1234);
        assert_eq!(udp_from(&f, peer, PORT), WORKER);

        let bound = UdpSocket::bind(at(BOX, PORT)).unwrap();
        assert_eq!(udp_from(&f, peer, PORT), Outcome::Kernel);
        assert_eq!(udp_from(&f, peer, PORT ^ 1), WORKER);
        assert_eq!(tcp_from(&f, peer, PORT, 2), WORKER);
        bound.connect(at(PEER, 53)).unwrap();
        assert_eq!(udp_from(&f, at(PEER, 53), PORT), Outcome::Kernel);
        assert_eq!(udp_from(&f, at(PEER, 54), PORT), WORKER, "not whom it is connected to");
        drop(bound);
        soon(|| udp_from(&f, at(PEER, 53), PORT), WORKER);

        let elsewhere = UdpSocket::bind(at(OTHER, PORT)).unwrap();
        assert_eq!(udp_from(&f, peer, PORT), WORKER, "bound to another address");
        drop(elsewhere);
        let _anywhere = UdpSocket::bind(at([0; 4], PORT)).unwrap();
        assert_eq!(udp_from(&f, peer, PORT), Outcome::Kernel);
    }
}
