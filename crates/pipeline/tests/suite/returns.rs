//! Two lines to the Internet: answers leave by the one by which the question came, whatever the default route is.

use sag_model::{DropReason, PortIdx, Zone};
use sag_packet::proto::{TCP, TCP_ACK, TCP_SYN};
use sag_pipeline::nat::Kind;
use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;

const SERVER: &str = "192.168.1.10";
const CLIENT: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:99::7";
const ROUTERS: [(&str, &str); 2] = [("0.0.0.0/0", "203.0.114.1"), ("::/0", "2001:db8:5::1")];
const DEV_WAN2: u8 = 7;

/// The branch with a second line, `wan2`, whose default route has the worse metric, and a service that is forwarded from
/// the addresses of both lines.
fn gateway() -> (Rig, PortIdx) {
    let mut net = Net::branch();
    let wan2 = net.port("wan2", Zone::Wan, DEV_WAN2, 0, &["203.0.114.2/24", "2001:db8:5::2/64"]);
    net.ports[wan2.index()].mac = GATEWAY_MACS[WAN.index()];
    net.dnat(Kind::Internet, "203.0.113.2", SERVER, Some((TCP, 8080, 8080, 80)));
    net.dnat(Kind::Internet, "203.0.114.2", SERVER, Some((TCP, 8080, 8080, 80)));
    for (default, router) in ROUTERS {
        net.neighbor(wan2, router);
        net.unused.push((prefix(default), vec![Member::port(wan2, Some(router.parse().unwrap()), 1)]));
    }
    (Rig::new(net), wan2)
}

/// The port by which the server's answer leaves to a client that asked by a device.
fn answer_leaves_by(rig: &mut Rig, dev: u8, external: &str, client_port: u16) -> PortIdx {
    let ask = Pkt::tcp(CLIENT, external, client_port, 8080, TCP_SYN).into_port(WAN);
    assert!(rig.frame(dev, &ask.build()).is_tx(), "the question");
    let mut by = None;
    // The first answer finds its way, the next ones go by the record.
    for _ in 0..3 {
        match rig.send(&Pkt::tcp(SERVER, CLIENT, 80, client_port, TCP_SYN | TCP_ACK)) {
            Outcome::Tx(port, _) => assert_eq!(*by.get_or_insert(port), port),
            other => panic!("{other:?}"),
        }
    }
    by.unwrap()
}

#[test]
fn a_forwarded_service_answers_by_the_line_of_the_question() {
    let (mut rig, wan2) = gateway();
    assert_eq!(answer_leaves_by(&mut rig, DEV_WAN, "203.0.113.2", 1000), WAN);
    assert_eq!(answer_leaves_by(&mut rig, DEV_WAN2, "203.0.114.2", 1001), wan2);
    // The default route moves to the other line; the connections stay where they are, and new ones, too.
    rig.commit(|n| {
        n.via("0.0.0.0/0", wan2, "203.0.114.1");
        n.unused =
            vec![(prefix("0.0.0.0/0"), vec![Member::port(WAN, Some("203.0.113.1".parse().unwrap()), 1)])];
    });
    for (dev, external, port, by) in [
        (DEV_WAN, "203.0.113.2", 1000, WAN),
        (DEV_WAN2, "203.0.114.2", 1001, wan2),
        (DEV_WAN, "203.0.113.2", 1002, WAN),
        (DEV_WAN2, "203.0.114.2", 1003, wan2),
    ] {
        assert_eq!(answer_leaves_by(&mut rig, dev, external, port), by, "{external}:{port}");
    }
}

/// What begins inside goes by the default route, and so do answers to what is not translated: others may choose by
/// which line it comes.
#[test]
fn other_flows_go_by_the_default_route() {
    let (mut rig, wan2) = gateway();
    let out = |rig: &mut Rig, p: &Pkt| match rig.send(p) {
        Outcome::Tx(port, _) => port,
        other => panic!("{other:?}"),
    };
    assert_eq!(out(&mut rig, &Pkt::udp(SERVER, CLIENT, 5, 6)), WAN);
    let ask = Pkt::udp(CLIENT6, "2001:db8:1::10", 1, 2).into_port(WAN);
    assert!(rig.frame(DEV_WAN2, &ask.build()).is_tx());
    assert_eq!(out(&mut rig, &Pkt::udp("2001:db8:1::10", CLIENT6, 2, 1)), WAN);
    let _ = wan2;
}

#[test]
fn a_line_that_is_down_or_leads_nowhere_is_not_used() {
    let (mut rig, wan2) = gateway();
    assert_eq!(answer_leaves_by(&mut rig, DEV_WAN2, "203.0.114.2", 1000), wan2);
    rig.commit(|n| n.ports[wan2.index()].up = false);
    let answer = Pkt::tcp(SERVER, CLIENT, 80, 1000, TCP_ACK);
    assert!(matches!(rig.send(&answer), Outcome::Tx(WAN, _)));
    rig.commit(|n| {
        n.ports[wan2.index()].up = true;
        n.unused.clear();
    });
    assert!(matches!(rig.send(&answer), Outcome::Tx(WAN, _)), "no route by it");
    // A router that does not answer is waited for: another line would not carry the packet.
    let (mut rig, wan2) = gateway();
    rig.commit(|n| n.unresolve(wan2, "203.0.114.1"));
    let ask = Pkt::tcp(CLIENT, "203.0.114.2", 7, 8080, TCP_SYN).into_port(WAN);
    assert!(rig.frame(DEV_WAN2, &ask.build()).is_tx());
    assert_eq!(rig.send(&Pkt::tcp(SERVER, CLIENT, 80, 7, TCP_SYN | TCP_ACK)), Outcome::Held);
    assert_eq!(rig.requests(), [(wan2, "203.0.114.1".parse().unwrap())]);
    // A client that is not in the Internet any more, and one to which nothing leads.
    rig.commit(|n| {
        n.via("198.51.100.0/24", LINE, "192.0.2.1");
        n.neighbor(wan2, "203.0.114.1");
    });
    assert!(matches!(
        rig.send(&Pkt::tcp(SERVER, CLIENT, 80, 7, TCP_ACK)),
        Outcome::Tx(LINE, _) | Outcome::Drop(_)
    ));
    rig.commit(|n| {
        n.route("198.51.100.0/24", Route::Blackhole);
    });
    let ask = Pkt::tcp(CLIENT, "203.0.114.2", 8, 8080, TCP_SYN).into_port(WAN);
    assert_eq!(rig.frame(DEV_WAN2, &ask.build()), Outcome::Drop(DropReason::ReversePath));
}

/// The gateway's own errors have an address of the line, so they leave by it.
#[test]
fn errors_leave_by_the_line_of_the_packet_in_question() {
    let (mut rig, wan2) = gateway();
    for (src, dst) in [(CLIENT, SERVER), (CLIENT6, "2001:db8:1::10")] {
        for (dev, by) in [(DEV_WAN, WAN), (DEV_WAN2, wan2)] {
            let expired = Pkt::udp(src, dst, 1, 2).ttl(1).into_port(WAN);
            assert_eq!(rig.frame(dev, &expired.build()), Outcome::Drop(DropReason::TtlExpired));
            let sent = rig.emitted();
            assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [by], "{src} by device {dev}");
            let own = &rig.snap.ports[by.index()];
            let from = &sent[0].1;
            let spoke = match src.contains(':') {
                false => own.addrs4.iter().any(|(a, _)| a.octets() == from[26..30]),
                true => own.addrs6.iter().any(|(a, _)| a.octets() == from[22..38]),
            };
            assert!(spoke, "with an address of the line");
        }
    }
}
