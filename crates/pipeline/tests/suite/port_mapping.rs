//! Ports that hosts inside have asked for: bindings that are held without a session.

use sag_model::DropReason;
use sag_packet::proto::*;
use sag_pipeline::nat::{
    AdmitError, Behavior, BindingNo, Endpoint, Events, Held, HoldError, Kind, Lease, NatProtocol, PeerPrefix,
    PortRequest, Random,
};
use sag_pipeline::policy::Class;
use sag_pipeline::session::release_binding;
use sag_testkit::*;

use Behavior::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei};

const HOST: &str = "192.168.1.10";
const HOST2: &str = "192.168.1.11";
const WAN_IP: &str = "203.0.113.2";
const FAR: &str = "198.51.100.7";
const FAR2: &str = "198.51.100.8";

fn rig_with(filtering: Behavior, change: impl FnOnce(&mut Net)) -> Rig {
    let mut n = Net::branch();
    n.wan_snat(WAN, Ei, filtering);
    n.nat.hairpin = true;
    change(&mut n);
    Rig::new(n)
}

fn rig(filtering: Behavior) -> Rig {
    rig_with(filtering, |_| {})
}

fn end(addr: &str, port: u16) -> Endpoint {
    Endpoint::new(addr.parse().unwrap(), port)
}

fn request(protocol: NatProtocol, inside: Endpoint, wanted: u16) -> PortRequest {
    let wanted = (wanted != 0).then_some(wanted);
    PortRequest { protocol, inside, wanted, only: false, range: 1024..=u16::MAX }
}

fn ask(r: &Rig, request: &PortRequest) -> Result<Lease, HoldError> {
    let (nat, policy) = (&r.pipe.tables.nat, &r.snap.nat);
    nat.hold(&policy.sources[0], &policy.limits, request, &mut Random::new(7), r.now.tick().0)
}

fn hold(r: &Rig, protocol: NatProtocol, inside: Endpoint, wanted: u16) -> Lease {
    ask(r, &request(protocol, inside, wanted)).unwrap()
}

/// As the control thread does: whom it admits goes first.
fn let_go(r: &Rig, binding: BindingNo) {
    r.pipe.tables.nat.admit_by_source(binding);
    release_binding(&r.pipe.tables.nat, &r.snap, &mut Events::default(), binding);
}

fn peer(addr: &str, len: u8, port: Option<u16>) -> PeerPrefix {
    PeerPrefix { addr: addr.parse().unwrap(), len, port }
}

/// A datagram from outside to a port of the WAN address.
fn knock(r: &mut Rig, far: &str, sport: u16, port: u16) -> Outcome {
    r.send(&Pkt::udp(far, WAN_IP, sport, port).into_port(WAN))
}

#[track_caller]
fn reaches(o: &Outcome, to: Endpoint) {
    assert_eq!(ends4(o.frame()).1, to);
}

#[test]
fn whoever_sends_reaches_the_host() {
    for filtering in [Ei, Ad, Apd] {
        let mut r = rig(filtering);
        assert_eq!(knock(&mut r, FAR, 9, 5000), Outcome::Kernel, "nobody has it");
        let lease = hold(&r, NatProtocol::Udp, end(HOST, 4000), 5000);
        assert_eq!((lease.port, lease.shared), (5000, false));
        r.pipe.tables.nat.admit_anyone(lease.binding);
        for (far, sport) in [(FAR, 9), (FAR2, 10), (FAR, 11)] {
            reaches(&knock(&mut r, far, sport, 5000), end(HOST, 4000));
            let back = r.send(&Pkt::udp(HOST, far, 4000, sport));
            assert_eq!(ends4(back.frame()), (end(WAN_IP, 5000), end(far, sport)));
        }
        // Its own sessions use the same port, and another protocol is another port.
        let out = r.send(&Pkt::udp(HOST, FAR2, 4000, 53));
        assert_eq!(ends4(out.frame()).0, end(WAN_IP, 5000));
        assert_eq!(r.send(&Pkt::tcp(FAR, WAN_IP, 9, 5000, TCP_SYN).into_port(WAN)), Outcome::Kernel);
        // Given back, it serves the sessions that there are, and begins none.
        let_go(&r, lease.binding);
        reaches(&knock(&mut r, FAR, 9, 5000), end(HOST, 4000));
        let anew = knock(&mut r, "198.51.100.99", 9, 5000);
        match filtering {
            Ei => reaches(&anew, end(HOST, 4000)),
            _ => assert_eq!(anew, Outcome::Drop(DropReason::NatFiltered)),
        }
        r.wait(std::time::Duration::from_secs(400));
        assert_eq!(knock(&mut r, FAR, 9, 5000), Outcome::Kernel, "the last session has ended");
        assert_eq!(r.pipe.tables.nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

#[test]
fn connections_and_hosts_inside_come_by_it() {
    let mut r = rig(Apd);
    let lease = hold(&r, NatProtocol::Tcp, end(HOST, 80), 8080);
    // Hosts inside may, whatever the filter says.
    let hairpin = r.send(&Pkt::tcp(HOST2, WAN_IP, 6000, 8080, TCP_SYN));
    assert_eq!(ends4(hairpin.frame()), (end(WAN_IP, 6000), end(HOST, 80)));
    let syn = Pkt::tcp(FAR, WAN_IP, 9, 8080, TCP_SYN).into_port(WAN);
    assert_eq!(r.send(&syn), Outcome::Drop(DropReason::NatFiltered));
    r.pipe.tables.nat.admit_anyone(lease.binding);
    let stray = Pkt::tcp(FAR, WAN_IP, 9, 8080, TCP_ACK).into_port(WAN);
    assert_eq!(r.send(&stray), Outcome::Drop(DropReason::NatNoSession));
    reaches(&r.send(&syn), end(HOST, 80));
    let answer = r.send(&Pkt::tcp(HOST, FAR, 80, 9, TCP_SYN | TCP_ACK));
    assert_eq!(ends4(answer.frame()), (end(WAN_IP, 8080), end(FAR, 9)));
    // A commit evaluates the session again: it stays.
    r.commit(|_| {});
    reaches(&r.send(&stray), end(HOST, 80));
}

#[test]
fn the_acl_has_its_say() {
    let mut r = rig_with(Ad, |n| {
        // By the address inside.
        n.acl = Acl::new(true).rule(Class::InWan, false, "17 * 192.168.1.10/32 * 4000-4000");
    });
    let lease = hold(&r, NatProtocol::Udp, end(HOST, 4000), 5000);
    r.pipe.tables.nat.admit_anyone(lease.binding);
    assert_eq!(knock(&mut r, FAR, 9, 5000), Outcome::Drop(DropReason::AclDenied));
}

#[test]
fn lists_say_who_is_admitted() {
    for filtering in [Ei, Ad, Apd] {
        let mut r = rig(filtering);
        let nat = r.pipe.tables.nat.clone();
        let lease = hold(&r, NatProtocol::Udp, end(HOST, 4000), 5000);
        let refused = Outcome::Drop(DropReason::NatFiltered);
        // Only these.
        let list = [peer("198.51.100.0", 29, None), peer(FAR2, 32, Some(53))];
        nat.admit_peers(lease.binding, &list, true).unwrap();
        reaches(&knock(&mut r, FAR, 9, 5000), end(HOST, 4000));
        reaches(&knock(&mut r, FAR2, 53, 5000), end(HOST, 4000));
        assert_eq!(knock(&mut r, FAR2, 54, 5000), refused);
        assert_eq!(knock(&mut r, "203.0.113.99", 9, 5000), refused);
        // What the host itself has sent to may answer from there.
        r.send(&Pkt::udp(HOST, "198.18.0.9", 4000, 53));
        reaches(&knock(&mut r, "198.18.0.9", 53, 5000), end(HOST, 4000));
        // Too many, and others in their place.
        let many = [peer(FAR, 32, None); 9];
        assert_eq!(nat.admit_peers(lease.binding, &many, true), Err(AdmitError::TooMany));
        assert_eq!(knock(&mut r, FAR2, 54, 5000), refused, "all is as before");
        nat.admit_peers(lease.binding, &[peer("203.0.113.99", 32, None)], true).unwrap();
        reaches(&knock(&mut r, "203.0.113.99", 9, 5000), end(HOST, 4000));
        assert_eq!(knock(&mut r, "198.51.100.1", 9, 5000), refused);
        // These in addition to whom the filter admits.
        nat.admit_peers(lease.binding, &[peer("198.51.100.0", 24, Some(77))], false).unwrap();
        reaches(&knock(&mut r, "198.51.100.50", 77, 5000), end(HOST, 4000));
        match filtering {
            Ei => reaches(&knock(&mut r, "198.51.100.50", 78, 5000), end(HOST, 4000)),
            _ => assert_eq!(knock(&mut r, "198.51.100.51", 78, 5000), refused),
        }
        nat.admit_peers(lease.binding, &[peer("0.0.0.0", 0, None)], true).unwrap();
        reaches(&knock(&mut r, "198.51.100.52", 78, 5000), end(HOST, 4000));
    }
}

#[test]
fn lists_are_bounded_and_used_again() {
    let r = rig_with(Ad, |n| n.nat.limits.host_share = 100);
    let nat = &r.pipe.tables.nat;
    let leases: Vec<_> = (0..1025).map(|i| hold(&r, NatProtocol::Udp, end(HOST, 2000 + i), 0)).collect();
    let list = [peer(FAR, 32, None)];
    for l in &leases[..1024] {
        nat.admit_peers(l.binding, &list, true).unwrap();
    }
    assert_eq!(nat.admit_peers(leases[1024].binding, &list, true), Err(AdmitError::NoList));
    nat.admit_anyone(leases[7].binding);
    nat.admit_peers(leases[1024].binding, &list, true).unwrap();
    for l in leases {
        let_go(&r, l.binding);
    }
    for i in 0..1024 {
        nat.admit_peers(hold(&r, NatProtocol::Tcp, end(HOST, 2000 + i), 0).binding, &list, true).unwrap();
    }
}

#[test]
fn which_port_a_host_gets() {
    let mut r = rig(Ad);
    // The one that it has by a session, whatever it would like.
    r.send(&Pkt::udp(HOST2, FAR, 4000, 53));
    let own = ends4(r.send(&Pkt::udp(HOST, FAR, 4000, 53)).frame()).0.port;
    let lease = hold(&r, NatProtocol::Udp, end(HOST, 4000), 7777);
    assert_eq!((lease.port, lease.shared), (own, true));
    let only =
        |wanted, port| PortRequest { only: true, ..request(NatProtocol::Udp, end(HOST, port), wanted) };
    assert_eq!(ask(&r, &only(7777, 4000)), Err(HoldError::NotThatPort));
    assert_eq!(ask(&r, &only(own, 4000)).unwrap().port, own);
    // Else the wanted one, else that of its own number, else another of the same parity.
    assert_eq!(hold(&r, NatProtocol::Udp, end(HOST, 4001), 7777).port, 7777);
    assert_eq!(hold(&r, NatProtocol::Udp, end(HOST, 4002), 0).port, 4002);
    let other = hold(&r, NatProtocol::Udp, end(HOST, 4003), 7777).port;
    assert!(other != 7777 && other % 2 == 1 && other >= 1024, "{other}");
    assert_eq!(ask(&r, &only(7777, 4004)), Err(HoldError::NotThatPort));
    // Ports of forwards, of the gateway's own sockets and beyond the range are not to be had.
    let mut r = rig_with(Ad, |n| {
        n.dnat(Kind::Internet, "", HOST2, Some((UDP, 7000, 7000, 80)));
    });
    let pool = r.snap.nat.sources[0].pool.clone();
    let mut bits = vec![0u64; sag_pipeline::nat::POOL_WORDS];
    bits[sag_pipeline::nat::POOL_WORDS / 2 + 7001 / 64] |= 1 << (7001 % 64);
    pool.reserve(&bits);
    for taken in [7000, 7001, 80, 1023] {
        assert_eq!(ask(&r, &only(taken, 4000)), Err(HoldError::NotThatPort), "{taken}");
    }
    let narrow = PortRequest { range: 9000..=9001, ..request(NatProtocol::Udp, end(HOST, 1), 80) };
    let got =
        [0, 1].map(|i| ask(&r, &PortRequest { inside: end(HOST, 6000 + i), ..narrow.clone() }).unwrap().port);
    assert_eq!(std::collections::BTreeSet::from(got), [9000, 9001].into());
    assert_eq!(ask(&r, &PortRequest { inside: end(HOST, 6002), ..narrow }), Err(HoldError::Exhausted));
    // A session cannot get a port that is held.
    let held = hold(&r, NatProtocol::Udp, end(HOST, 5000), 5001).port;
    let other = ends4(r.send(&Pkt::udp(HOST2, FAR, held, 53)).frame()).0.port;
    assert_ne!(other, held);
    // Mappings that depend on the remote endpoint have no port for all of them.
    let mut n = Net::branch();
    n.wan_snat(WAN, Ad, Ad);
    let r = Rig::new(n);
    assert_eq!(ask(&r, &request(NatProtocol::Udp, end(HOST, 1), 0)), Err(HoldError::Dependent));
}

#[test]
fn a_host_has_its_share_and_its_blocks() {
    let r = rig_with(Ad, |n| {
        n.nat.limits.range = 2000..=2255;
        n.nat.limits.host_share = 50;
    });
    let last =
        (0..256).map(|i| ask(&r, &request(NatProtocol::Udp, end(HOST, 3000 + i), 0))).find(|l| l.is_err());
    assert_eq!(last, Some(Err(HoldError::HostShare)));
    let r = rig_with(Ad, |n| n.nat.limits.port_block = Some(64));
    let first = hold(&r, NatProtocol::Udp, end(HOST, 3000), 5000);
    let block = first.new_block.expect("a block");
    assert_eq!(hold(&r, NatProtocol::Udp, end(HOST, 3001), 5000).port / 64, block);
}

#[test]
fn the_default_route_names_the_address() {
    let seen = |r: &Rig, port: u16, addr: Option<&str>| {
        let held = Held { state: &r.pipe.tables.nat, addr: addr.map(|a| a.parse().unwrap()) };
        r.snap.nat.seen_from_internet(end(HOST, port), UDP, held)
    };
    let r = rig_with(Ad, |n| n.routes.retain(|((_, len), _)| *len != 0));
    assert_eq!(seen(&r, 1, None), None);
    let r = rig(Ad);
    let by_port = seen(&r, 1, None).unwrap();
    assert_eq!((by_port.addr, by_port.port), (end(WAN_IP, 0).addr, None));
    // A forward to that very endpoint is what it has.
    let r = rig_with(Ad, |n| {
        n.dnat(Kind::Internet, "", HOST, Some((UDP, 7000, 7000, 80)));
    });
    assert_eq!(seen(&r, 80, None).unwrap().port, Some(7000));
}
