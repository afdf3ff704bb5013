//! NAT64 (RFC 6146) through the pipeline: what leaves byte for byte, in both directions, by the slow path and by records.

use sag_model::{DropReason, MacAddr, PortIdx, VrfNo, Zone};
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, NatProtocol, NatState};
use sag_pipeline::policy::Class;
use sag_pipeline::session::take_over;
use sag_testkit::*;
use std::time::Duration;

const HOST6: &str = "2001:db8:1::10";
const HOST6B: &str = "2001:db8:1::11";
/// Who the IPv6 hosts call, and by what address.
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:64::c633:6407";
const ISP: &str = "203.0.113.1";
/// The WAN port's address, and that behind the prefix.
const OWN: &str = "203.0.113.2";
const OWN6: &str = "2001:db8:64::cb00:7102";

fn net() -> Net {
    let mut n = Net::branch();
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    n.nat64("2001:db8:64::/96", &[], Behavior::AddressDependent);
    n.nat64("64:ff9b::/96", &[], Behavior::AddressDependent);
    n
}

/// Sends a packet that must leave as another. The identification of IPv4 is the gateway's to choose.
#[track_caller]
fn crosses(r: &mut Rig, pkt: &Pkt, want: &Pkt, (port, via): (PortIdx, &str)) {
    match r.send(pkt) {
        Outcome::Tx(p, f) => {
            let mut want = want.clone();
            if want.src.is_ipv4() {
                want.id = u16::from_be_bytes([f[18], f[19]]);
            }
            let want = want.forwarded(port, via);
            assert_eq!((p, hex(&f)), (port, hex(&want)), "{pkt:?}");
        }
        other => panic!("{other:?}: {pkt:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// From the WAN.
fn wan(pkt: Pkt) -> Pkt {
    pkt.into_port(WAN)
}

#[test]
pub fn each_protocol_there_and_back() {
    let mut r = Rig::new(net());
    let cases = [
        (
            Pkt::udp(HOST6, FAR6, 4000, 53),
            Pkt::udp(OWN, FAR, 4000, 53),
            Pkt::udp(FAR, OWN, 53, 4000),
            Pkt::udp(FAR6, HOST6, 53, 4000),
        ),
        (
            Pkt::tcp(HOST6, FAR6, 5000, 80, TCP_SYN),
            Pkt::tcp(OWN, FAR, 5000, 80, TCP_SYN),
            Pkt::tcp(FAR, OWN, 80, 5000, TCP_SYN | TCP_ACK),
            Pkt::tcp(FAR6, HOST6, 80, 5000, TCP_SYN | TCP_ACK),
        ),
        (
            Pkt::echo(HOST6, FAR6, 77, false),
            Pkt::echo(OWN, FAR, 77, false),
            Pkt::echo(FAR, OWN, 77, true),
            Pkt::echo(FAR6, HOST6, 77, true),
        ),
    ];
    for (there, translated, answer, back) in cases {
        for tos in [0, 0xB9, 3] {
            let [there, translated] = [&there, &translated].map(|p| p.clone().tos(tos));
            let [answer, back] = [&answer, &back].map(|p| p.clone().tos(tos).ttl(31));
            crosses(&mut r, &there, &translated, (WAN, ISP));
            crosses(&mut r, &wan(answer), &back, (LAN, HOST6));
        }
    }
    assert_eq!(r.sessions(), (0, 3), "one session each, of IPv6");
    // The last packets of both directions went by records: what the slow path changes, it would count.
    let packets = |n: u32| {
        let t = &r.pipe.tables.v6;
        let both = sag_model::flow::RecordNo::both(n);
        both.map(|no| t.record(no).packets.load(std::sync::atomic::Ordering::Relaxed))
    };
    assert_eq!((1..=3).map(packets).collect::<Vec<_>>(), [[3, 3]; 3]);
}

#[test]
pub fn a_second_host_with_the_same_port_gets_another_one() {
    let mut r = Rig::new(net());
    crosses(&mut r, &Pkt::udp(HOST6, FAR6, 4000, 53), &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    let Outcome::Tx(WAN, f) = r.send(&Pkt::udp(HOST6B, FAR6, 4000, 53)) else { panic!() };
    let port = ends4(&f).0.port;
    assert!(port != 4000 && port.is_multiple_of(2), "of the same parity (RFC 4787 REQ-4): {port}");
    crosses(&mut r, &wan(Pkt::udp(FAR, OWN, 53, port)), &Pkt::udp(FAR6, HOST6B, 53, 4000), (LAN, HOST6B));
    // An IPv4 host draws from the same ports.
    let Outcome::Tx(WAN, f) = r.send(&Pkt::udp("192.168.1.10", FAR, 4000, 53)) else { panic!() };
    assert!(![4000, port].contains(&ends4(&f).0.port));
    // Endpoint-independent: the same port to another place.
    let other = "2001:db8:64::c633:6408";
    crosses(&mut r, &Pkt::udp(HOST6, other, 4000, 53), &Pkt::udp(OWN, "198.51.100.8", 4000, 53), (WAN, ISP));
    assert_eq!(r.sessions(), (1, 3));
}

#[test]
pub fn what_is_not_reached_behind_a_prefix() {
    let mut r = Rig::new(net());
    let refused = [
        // Private behind the well-known prefix (RFC 6052 3.1), martians behind any.
        "64:ff9b::a01:203",
        "64:ff9b::c0a8:10b",
        "64:ff9b::c633:6407",
        "64:ff9b::6440:1",
        "2001:db8:64::7f00:1",
        "2001:db8:64::e000:5",
        "2001:db8:64::a9fe:101",
        "2001:db8:64::ffff:ffff",
        "2001:db8:64::1:1",
        // The gateway's own addresses, as far as no host has the port.
        "2001:db8:64::c0a8:101",
        OWN6,
    ];
    for (n, dst) in refused.into_iter().enumerate() {
        let o = r.send(&Pkt::udp(HOST6, dst, 4000, 53));
        assert_eq!(o, Outcome::Drop(DropReason::Nat64Refused), "{dst}");
        let errors = r.emitted();
        assert_eq!(
            (errors.len(), &errors[0].1[54..56]),
            (1, &[1, 1][..]),
            "{n}: administratively prohibited"
        );
    }
    // A private one behind the network's own prefix is reached; towards overlay there is no address to show.
    crosses(&mut r, &Pkt::udp(HOST6, "64:ff9b::808:808", 1, 2), &Pkt::udp(OWN, "8.8.8.8", 1, 2), (WAN, ISP));
    let o = r.send(&Pkt::udp(HOST6, "2001:db8:64::a14:1", 4000, 53));
    assert_eq!(o, Outcome::Drop(DropReason::NatNoAddress));
    // Who is outside is not led to third parties.
    let o = r.send(&wan(Pkt::udp("2001:db8:2::1", FAR6, 4000, 53)));
    assert_eq!(o, Outcome::Drop(DropReason::Nat64Refused));
    for (pkt, reason) in [
        (Pkt::tcp(HOST6, FAR6, 1, 2, TCP_RST), DropReason::NatNoSession),
        (Pkt::echo(HOST6, FAR6, 5, true), DropReason::NatNoSession),
        (Pkt::icmp(HOST6, FAR6, 133, 0, 0, b""), DropReason::Nat64Untranslatable),
        (Pkt::new(HOST6, FAR6, 132, vec![1; 16]), DropReason::NatProtocol),
        (Pkt::new(HOST6, FAR6, 47, vec![0; 8]), DropReason::NatProtocol),
        (Pkt::echo(HOST6, FAR6, 5, false).payload(64).fragment(0, 40), DropReason::Nat64Untranslatable),
    ] {
        assert_eq!(r.send(&pkt), Outcome::Drop(reason), "{pkt:?}");
    }
    r.emitted();
    let routed = Pkt::udp(HOST6, FAR6, 1, 2).ext(ROUTING, &[0, 4, 1, 0, 0, 0, 0]);
    assert_eq!(r.send(&routed), Outcome::Drop(DropReason::Nat64Untranslatable));
    let error = r.emitted().remove(0).1;
    assert_eq!(
        &error[54..62],
        &[4, 0, error[56], error[57], 0, 0, 0, 43],
        "parameter problem at the segments left"
    );
    assert_eq!(r.sessions(), (0, 1));
}

#[test]
pub fn filters_and_sessions_from_outside() {
    for filtering in [Behavior::EndpointIndependent, Behavior::AddressDependent] {
        let mut n = Net::branch();
        n.nat64("2001:db8:64::/96", &["203.0.113.9"], filtering);
        let mut r = Rig::new(n);
        let pool = "203.0.113.9";
        crosses(&mut r, &Pkt::udp(HOST6, FAR6, 4000, 53), &Pkt::udp(pool, FAR, 4000, 53), (WAN, ISP));
        // The same host by another port, and another host.
        let same = wan(Pkt::udp(FAR, pool, 99, 4000));
        crosses(&mut r, &same, &Pkt::udp(FAR6, HOST6, 99, 4000), (LAN, HOST6));
        let other = wan(Pkt::udp("198.51.100.99", pool, 53, 4000));
        let caller = "2001:db8:64::c633:6463";
        if filtering == Behavior::EndpointIndependent {
            crosses(&mut r, &other, &Pkt::udp(caller, HOST6, 53, 4000), (LAN, HOST6));
            crosses(&mut r, &other, &Pkt::udp(caller, HOST6, 53, 4000), (LAN, HOST6));
            let (answer, left) =
                (Pkt::udp(HOST6, caller, 4000, 53), Pkt::udp(pool, "198.51.100.99", 4000, 53));
            crosses(&mut r, &answer, &left, (WAN, ISP));
            crosses(&mut r, &answer, &left, (WAN, ISP));
            assert_eq!(r.sessions(), (0, 3));
        } else {
            assert_eq!(r.send(&other), Outcome::Drop(DropReason::NatFiltered));
        }
        let nobody = wan(Pkt::udp(FAR, pool, 53, 4001));
        assert_eq!(r.send(&nobody), Outcome::Drop(DropReason::NatFiltered));
        // All is given back when the sessions end.
        r.wait(Duration::from_secs(400));
        assert_eq!(r.sessions(), (0, 0));
        let nat = &r.pipe.tables.nat;
        assert_eq!(nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert_eq!((nat.hosts().all().count(), nat.filter_entries().all().count()), (0, 0));
    }
}

#[test]
pub fn hosts_inside_reach_each_other_by_the_external_address() {
    let mut r = Rig::new(net());
    crosses(&mut r, &Pkt::udp(HOST6, FAR6, 4000, 53), &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    let (call, heard) = (Pkt::udp(HOST6B, OWN6, 5000, 4000), Pkt::udp(OWN6, HOST6, 5000, 4000));
    let (answer, back) = (Pkt::udp(HOST6, OWN6, 4000, 5000), Pkt::udp(OWN6, HOST6B, 4000, 5000));
    for _ in 0..3 {
        crosses(&mut r, &call, &heard, (LAN, HOST6));
        crosses(&mut r, &answer, &back, (LAN, HOST6B));
    }
    assert_eq!(r.sessions(), (0, 2));
    // An error about the call comes back as one about what was sent.
    let error = Pkt::icmp(HOST6, OWN6, 1, 4, 0, &heard.ip());
    let want = Pkt::icmp(OWN6, HOST6B, 1, 4, 0, &call.ip());
    crosses(&mut r, &error, &want, (LAN, HOST6B));
    r.wait(Duration::from_secs(400));
    let nat = &r.pipe.tables.nat;
    assert_eq!((r.sessions(), nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed)), ((0, 0), 0));
    assert_eq!(nat.hosts().all().count(), 0);
}

#[test]
pub fn errors_cross_with_what_they_quote() {
    let mut r = Rig::new(net());
    let sent = Pkt::udp(HOST6, FAR6, 4000, 53);
    crosses(&mut r, &sent, &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    let Outcome::Tx(_, left) = r.send(&sent) else { panic!() };
    // A router on the way, by the prefix; TTL and length as it saw them.
    let router = wan(Pkt::icmp("198.51.100.1", OWN, 11, 0, 0, &left[14..]));
    let quote = sent.clone().ttl(63).ip();
    crosses(&mut r, &router, &Pkt::icmp("2001:db8:64::c633:6401", HOST6, 3, 0, 0, &quote), (LAN, HOST6));
    // A smaller MTU (RFC 7915 4.2).
    let small = wan(Pkt::icmp("198.51.100.1", OWN, 3, 4, 1400, &left[14..]));
    crosses(&mut r, &small, &Pkt::icmp("2001:db8:64::c633:6401", HOST6, 2, 0, 1420, &quote), (LAN, HOST6));
    // The host refuses an answer.
    let answer = wan(Pkt::udp(FAR, OWN, 53, 4000));
    let Outcome::Tx(LAN, heard) = r.send(&answer) else { panic!() };
    let refusal = Pkt::icmp(HOST6, FAR6, 1, 4, 0, &heard[14..]);
    let mut quoted = answer.clone().ttl(63);
    quoted.id = 0;
    crosses(&mut r, &refusal, &Pkt::icmp(OWN, FAR, 3, 3, 0, &quoted_as_sent(&quoted)), (WAN, ISP));
    // About nothing that was sent, and with a wrong checksum.
    let other = Pkt::udp(OWN, FAR, 4001, 53).ip();
    let o = r.send(&wan(Pkt::icmp("198.51.100.1", OWN, 3, 1, 0, &other)));
    assert!(matches!(o, Outcome::Kernel), "{o:?}");
    let mut bad = router.clone();
    bad.l4[3] ^= 1;
    assert_eq!(r.send(&bad), Outcome::Drop(DropReason::IcmpBadChecksum));
    // A router behind the well-known prefix that is private speaks with the far end's address.
    crosses(
        &mut r,
        &Pkt::udp(HOST6, "64:ff9b::808:808", 6000, 53),
        &Pkt::udp(OWN, "8.8.8.8", 6000, 53),
        (WAN, ISP),
    );
    let hop = wan(Pkt::icmp("10.9.9.9", OWN, 11, 0, 0, &Pkt::udp(OWN, "8.8.8.8", 6000, 53).ip()));
    let quote = Pkt::udp(HOST6, "64:ff9b::808:808", 6000, 53).ip();
    crosses(&mut r, &hop, &Pkt::icmp("64:ff9b::808:808", HOST6, 3, 0, 0, &quote), (LAN, HOST6));
}

/// Nothing of an IPv6 packet says which identification it had.
fn quoted_as_sent(p: &Pkt) -> Vec<u8> {
    p.ip()
}

#[test]
pub fn ttl_and_hop_limit_end_in_errors_of_the_senders_family() {
    let mut r = Rig::new(net());
    assert_eq!(r.send(&Pkt::udp(HOST6, FAR6, 4000, 53).ttl(1)), Outcome::Drop(DropReason::TtlExpired));
    let (port, error) = r.emitted().remove(0);
    assert_eq!((port, &error[12..14], error[54]), (LAN, &[0x86, 0xDD][..], 3));
    crosses(
        &mut r,
        &Pkt::udp(HOST6, FAR6, 4000, 53).ttl(2),
        &Pkt::udp(OWN, FAR, 4000, 53).ttl(2),
        (WAN, ISP),
    );
    assert_eq!(r.send(&wan(Pkt::udp(FAR, OWN, 53, 4000).ttl(1))), Outcome::Drop(DropReason::TtlExpired));
    let (port, error) = r.emitted().remove(0);
    assert_eq!((port, &error[12..14], error[34]), (WAN, &[8, 0][..], 11));
}

#[test]
pub fn sizes_of_both_families() {
    let mut n = net();
    n.ports[WAN.index()].mtu = 1400;
    let mut r = Rig::new(n);
    // 1400 bytes of IPv4 are 1420 of IPv6; more is too big, and the sender learns how much is not.
    let fits = Pkt::udp(HOST6, FAR6, 4000, 53).payload(1400 - 28);
    for _ in 0..2 {
        crosses(&mut r, &fits, &Pkt::udp(OWN, FAR, 4000, 53).payload(1400 - 28).df(), (WAN, ISP));
    }
    let long = Pkt::udp(HOST6, FAR6, 4000, 53).payload(1400 - 27);
    assert_eq!(r.send(&long), Outcome::Drop(DropReason::MtuExceeded));
    let error = r.emitted().remove(0).1;
    assert_eq!((error[54], &error[58..62]), (2, &1420u32.to_be_bytes()[..]));

    // Towards IPv6: with DF the sender learns the MTU of IPv4, without the packet is split to 1280 bytes.
    r.change(|n| n.ports[LAN.index()].mtu = 1340);
    r.commit(|_| {});
    let answer = |n: usize| wan(Pkt::udp(FAR, OWN, 53, 4000).payload(n));
    let back = |n: usize| Pkt::udp(FAR6, HOST6, 53, 4000).payload(n);
    for _ in 0..2 {
        crosses(&mut r, &answer(1340 - 48).df(), &back(1340 - 48), (LAN, HOST6));
        crosses(&mut r, &answer(1280 - 48), &back(1280 - 48), (LAN, HOST6));
    }
    assert_eq!(r.send(&answer(1340 - 47).df()), Outcome::Drop(DropReason::MtuExceeded));
    let error = r.emitted().remove(0).1;
    assert_eq!((&error[34..36], &error[40..42]), (&[3, 4][..], &1320u16.to_be_bytes()[..]));
    assert_eq!(r.send(&answer(1300)), Outcome::Emitted);
    let pieces: Vec<Vec<u8>> = r.emitted().into_iter().map(|(_, f)| f).collect();
    assert!(pieces.iter().all(|f| f.len() <= 14 + 1280 && f[20] == FRAGMENT), "{}", pieces.len());
    let data: Vec<u8> = pieces.iter().flat_map(|f| f[62..].to_vec()).collect();
    assert_eq!(data, back(1300).l4);
}

#[test]
pub fn fragments_both_ways_and_in_any_order() {
    let mut r = Rig::new(net());
    let (whole, sent) =
        (Pkt::udp(HOST6, FAR6, 4000, 53).payload(120), Pkt::udp(OWN, FAR, 4000, 53).payload(120));
    for at in [0, 64] {
        crosses(&mut r, &whole.fragment(at, 64), &sent.fragment(at, 64), (WAN, ISP));
    }
    let (answer, back) =
        (Pkt::udp(FAR, OWN, 53, 4000).payload(120), Pkt::udp(FAR6, HOST6, 53, 4000).payload(120));
    // The later one first: it waits.
    assert_eq!(r.send(&wan(answer.fragment(64, 64))), Outcome::Held);
    assert_eq!(r.send(&wan(answer.fragment(0, 64))), Outcome::Emitted);
    let got: Vec<_> = r.emitted().into_iter().map(|(_, f)| hex(&f)).collect();
    let want = [0, 64].map(|at| hex(&back.fragment(at, 64).forwarded(LAN, HOST6)));
    assert_eq!(got, want);
    // A first fragment without a checksum (RFC 7915 4.5).
    let mut bare = answer.fragment(0, 64);
    bare.l4[6..8].fill(0);
    bare.id = 9;
    assert_eq!(r.send(&wan(bare)), Outcome::Drop(DropReason::Nat64Untranslatable));
    assert_eq!(r.sessions(), (0, 1));
    // Large fragments of IPv4 become more of IPv6, none larger than 1280 bytes.
    let big = wan(Pkt::udp(FAR, OWN, 53, 4000).payload(2000));
    let mut joined = vec![0; 2008];
    for at in [0, 1480] {
        match r.send(&big.fragment(at, 1480)) {
            Outcome::Emitted => {}
            Outcome::Tx(_, f) => r.sent.frames.push((LAN, f)),
            other => panic!("{other:?}"),
        }
    }
    for (_, f) in r.emitted() {
        assert!(f.len() <= 14 + 1280 && f[20] == FRAGMENT && f[54] == UDP);
        let at = usize::from(u16::from_be_bytes([f[56], f[57]]) & 0xFFF8);
        joined[at..at + f.len() - 62].copy_from_slice(&f[62..]);
    }
    assert_eq!(joined, Pkt::udp(FAR6, HOST6, 53, 4000).payload(2000).l4);
}

#[test]
pub fn rules_see_the_ipv6_side() {
    let mut n = net();
    n.acl = Acl::new(false).rule(Class::OutWan, true, "17 * 2001:db8:64::c633:6407/128 * 53-53");
    let mut r = Rig::new(n);
    let dns = Pkt::udp(HOST6, FAR6, 4000, 53);
    crosses(&mut r, &dns, &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    crosses(&mut r, &wan(Pkt::udp(FAR, OWN, 53, 4000)), &Pkt::udp(FAR6, HOST6, 53, 4000), (LAN, HOST6));
    assert_eq!(r.send(&Pkt::udp(HOST6, FAR6, 4000, 54)), Outcome::Drop(DropReason::AclDefaultDenied));
    // Rules change under a live session: it is judged again as its first packet was.
    r.commit(|_| {});
    crosses(&mut r, &wan(Pkt::udp(FAR, OWN, 53, 4000)), &Pkt::udp(FAR6, HOST6, 53, 4000), (LAN, HOST6));
    crosses(&mut r, &dns, &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    r.commit(|n| n.acl = Acl::new(false));
    assert_eq!(r.send(&wan(Pkt::udp(FAR, OWN, 53, 4000))), Outcome::Drop(DropReason::AclDefaultDenied));
    assert_eq!(r.sessions().1, 0);
}

#[test]
pub fn another_configuration_ends_what_it_does_not_have() {
    let mut r = Rig::new(net());
    let (sent, left) = (Pkt::udp(HOST6, FAR6, 4000, 53), Pkt::udp(OWN, FAR, 4000, 53));
    crosses(&mut r, &sent, &left, (WAN, ISP));
    // Another address of the port: the session goes on with its own, which still is one.
    r.commit(|n| n.nat64("2001:db8:65::/96", &[], Behavior::AddressDependent).epoch += 0);
    crosses(&mut r, &sent, &left, (WAN, ISP));
    assert_eq!(r.sessions(), (0, 1));
    // Addresses of its own: another session.
    r.commit(|n| {
        n.nat.nat64.clear();
        n.nat64("2001:db8:64::/96", &["203.0.113.9"], Behavior::AddressDependent);
    });
    crosses(&mut r, &sent, &Pkt::udp("203.0.113.9", FAR, 4000, 53), (WAN, ISP));
    assert_eq!(r.sessions(), (0, 1));
    // No NAT64: the prefix is a destination as any other.
    r.commit(|n| n.nat.nat64.clear());
    crosses(&mut r, &sent, &sent, (WAN, "2001:db8:2::1"));
    assert_eq!(r.pipe.tables.nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed), 0);
    // And back: a session that was forwarded as it is makes way.
    r.commit(|n| {
        n.nat64("2001:db8:64::/96", &[], Behavior::AddressDependent);
    });
    crosses(&mut r, &sent, &left, (WAN, ISP));
    assert_eq!(r.sessions(), (0, 1));
}

#[test]
pub fn a_restart_takes_sessions_over_with_their_ports() {
    let mut n = Net::branch();
    n.nat64("2001:db8:64::/96", &["203.0.113.9"], Behavior::EndpointIndependent);
    let mut r = Rig::new(n);
    let pool = "203.0.113.9";
    crosses(&mut r, &Pkt::udp(HOST6B, FAR6, 4000, 53), &Pkt::udp(pool, FAR, 4000, 53), (WAN, ISP));
    let Outcome::Tx(_, f) = r.send(&Pkt::udp(HOST6, FAR6, 4000, 53)) else { panic!() };
    let port = ends4(&f).0.port;
    // From outside, and by the external address.
    assert!(r.send(&wan(Pkt::udp("198.51.100.99", pool, 7, port))).is_tx());
    assert!(r.send(&Pkt::udp(HOST6B, "2001:db8:64::cb00:7109", 9, port)).is_tx());
    assert_eq!(r.sessions(), (0, 4));

    let nat = NatState::private(1024);
    let (policy, pools, errors) = r.net.nat.clone().plan(&nat);
    assert!(errors.is_empty());
    nat.apply(&pools);
    // Sources of two callers by their own ports; the two that are called by one they share with it.
    assert_eq!(nat.adopt_sessions64(&r.pipe.tables.v6, &policy, 1), 5);
    let of = |port| {
        let inside = nat.pool_of(pool.parse().unwrap()).unwrap().inside(NatProtocol::Udp, port).unwrap().0;
        (nat.host_address(inside.addr).to_string(), inside.port)
    };
    assert_eq!(of(4000), (HOST6B.to_owned(), 4000));
    assert_eq!(of(port), (HOST6.to_owned(), 4000));
}

#[test]
pub fn an_ipv6_packet_cannot_pose_as_the_ipv4_side() {
    let mut r = Rig::new(net());
    crosses(&mut r, &Pkt::udp(HOST6, FAR6, 4000, 53), &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    crosses(&mut r, &wan(Pkt::udp(FAR, OWN, 53, 4000)), &Pkt::udp(FAR6, HOST6, 53, 4000), (LAN, HOST6));
    let forged = wan(Pkt::udp("::ffff:198.51.100.7", "::ffff:203.0.113.2", 53, 4000));
    for _ in 0..2 {
        assert_eq!(r.send(&forged), Outcome::Drop(DropReason::SourceMartian));
    }
    let quote = Pkt::udp("::ffff:203.0.113.2", "::ffff:198.51.100.7", 4000, 53).ip();
    let forged = wan(Pkt::icmp("2001:db8:2::1", "2001:db8:1::10", 1, 0, 0, &quote));
    let Outcome::Tx(LAN, f) = r.send(&forged) else { panic!() };
    assert_eq!(f, forged.forwarded(LAN, HOST6), "about nothing that is known here");
}

#[test]
pub fn ports_run_out_by_name() {
    let mut n = Net::branch();
    n.nat64("2001:db8:64::/96", &["203.0.113.9"], Behavior::AddressDependent);
    n.nat.limits.range = 1024..=1031;
    n.nat.limits.host_share = 100;
    n.nat.limits.host_sessions = Some(6);
    let mut r = Rig::new(n);
    let from = |host: &str, port| Pkt::udp(host, FAR6, port, 53);
    let got: Vec<_> = (0..8).map(|p| r.send(&from(HOST6, 2000 + p))).collect();
    assert_eq!(got.iter().filter(|o| o.is_tx()).count(), 6);
    assert_eq!(got[7], Outcome::Drop(DropReason::SnatHostLimit));
    let got: Vec<_> = (0..4).map(|p| r.send(&from(HOST6B, 2000 + p))).collect();
    assert_eq!(got.iter().filter(|o| o.is_tx()).count(), 2);
    assert_eq!(got[3], Outcome::Drop(DropReason::SnatExhausted));
    r.wait(Duration::from_secs(400));
    let nat = &r.pipe.tables.nat;
    assert_eq!((r.sessions(), nat.hosts().all().count()), ((0, 0), 0));
}

#[test]
pub fn a_table_that_is_taken_over_has_the_sessions_still() {
    let mut r = Rig::new(net());
    crosses(
        &mut r,
        &Pkt::tcp(HOST6, FAR6, 4000, 80, TCP_SYN),
        &Pkt::tcp(OWN, FAR, 4000, 80, TCP_SYN),
        (WAN, ISP),
    );
    assert_eq!(take_over(&r.pipe.tables.v6, 1, &Default::default()).sessions, 1);
    crosses(
        &mut r,
        &wan(Pkt::tcp(FAR, OWN, 80, 4000, TCP_SYN | TCP_ACK)),
        &Pkt::tcp(FAR6, HOST6, 80, 4000, TCP_SYN | TCP_ACK),
        (LAN, HOST6),
    );
}

#[test]
pub fn explain_says_what_becomes_of_packets_of_both_sides() {
    let mut r = Rig::new(net());
    let say = |r: &Rig, pkt: &Pkt, dev| {
        let (steps, _) = r.pipe.explain(&r.snap, dev, &pkt.build());
        steps.0.iter().map(|(stage, text)| format!("{stage}: {text}")).collect::<Vec<_>>().join("\n")
    };
    let first = say(&r, &Pkt::udp(HOST6, FAR6, 4000, 53), DEV_LAN);
    assert!(
        first.contains("dnat: 2001:db8:64::c633:6407 is 198.51.100.7, by nat64 2001:db8:64::/96"),
        "{first}"
    );
    assert!(first.contains("snat: from 203.0.113.2"), "{first}");
    crosses(&mut r, &Pkt::udp(HOST6, FAR6, 4000, 53), &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    let answer = say(&r, &wan(Pkt::udp(FAR, OWN, 53, 4000)), DEV_WAN);
    assert!(answer.contains("dnat: to 2001:db8:1::10 with its session, by NAT64"), "{answer}");
}

/// Random packets of both families, many of them for live sessions, through one gateway: the rig checks the accounting
/// after each, and what leaves parses.
#[test]
pub fn random_packets_of_both_sides_are_accounted_for() {
    let mut r = Rig::new(net());
    let mut d = Rng::new(64);
    crosses(&mut r, &Pkt::udp(HOST6, FAR6, 4000, 53), &Pkt::udp(OWN, FAR, 4000, 53), (WAN, ISP));
    for _ in 0..20_000 {
        let ports = [4000, 53, 5000, 0][d.below(4)];
        let dport = [53, 4000, 80][d.below(3)];
        let size = d.below(1500);
        let v6 = d.once_in(2);
        let (src, dst) = if v6 { (HOST6, [FAR6, OWN6, HOST6B][d.below(3)]) } else { (FAR, OWN) };
        let pkt = match d.below(5) {
            0 => Pkt::udp(src, dst, ports, dport).payload(size),
            1 => Pkt::tcp(src, dst, ports, dport, d.below(64) as u8).payload(size),
            2 => Pkt::echo(src, dst, ports, d.once_in(2)).payload(size),
            3 => {
                let quote = if v6 { Pkt::udp(FAR6, HOST6, 53, 4000) } else { Pkt::udp(OWN, FAR, 4000, 53) };
                let kind = [1, 2, 3, 4, 11, 12][d.below(6)];
                Pkt::icmp(src, dst, kind, d.below(6) as u8, d.below(2000) as u32, &quote.payload(size).ip())
            }
            _ => {
                Pkt::udp(src, dst, ports, dport).payload(size + 16).fragment(d.below(3) * 8, 8 + size / 8 * 8)
            }
        };
        let mut pkt = if v6 { pkt } else { wan(pkt) };
        if d.once_in(4) {
            let at = d.below(pkt.l4.len());
            pkt.l4[at] ^= d.below(256) as u8;
        }
        if let Outcome::Tx(_, f) = r.send(&pkt) {
            let ethertype = u16::from_be_bytes([f[12], f[13]]);
            assert!(sag_packet::parse(&f, ethertype, 14).is_ok(), "{}", hex(&f));
        }
        for (_, f) in r.emitted() {
            let ethertype = u16::from_be_bytes([f[12], f[13]]);
            assert!(sag_packet::parse(&f, ethertype, 14).is_ok(), "{}", hex(&f));
        }
    }
    r.wait(Duration::from_secs(8000));
    let nat = &r.pipe.tables.nat;
    assert_eq!((r.sessions(), nat.hosts().all().count()), ((0, 0), 0));
    assert_eq!(nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// Ports of two VRFs with the same hosts, and devices of their own.
const VRF_LANS: [PortIdx; 2] = [PortIdx(0), PortIdx(2)];

fn vrf(n: usize) -> VrfNo {
    VrfNo::new(n as u8 + 1).unwrap()
}

fn net_of_vrfs() -> Net {
    let mut n = Net::empty();
    n.port_in(vrf(0), "a", Zone::Lan, (0, 0), &["2001:db8:1::1/64"]);
    n.port("wan", Zone::Wan, 1, 0, &["203.0.113.2/24"]);
    n.port_in(vrf(1), "b", Zone::Lan, (2, 0), &["2001:db8:1::1/64"]);
    n.via("0.0.0.0/0", WAN, ISP).neighbor(WAN, ISP);
    for (i, lan) in VRF_LANS.into_iter().enumerate() {
        n.via_in(vrf(i), "0.0.0.0/0", WAN, ISP);
        n.neighbor(lan, HOST6);
    }
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::EndpointIndependent);
    n.nat64("2001:db8:64::/96", &[], Behavior::EndpointIndependent);
    n
}

fn into(r: &mut Rig, port: PortIdx, p: &Pkt) -> Outcome {
    let mac = GATEWAY_MACS.get(port.index()).copied().unwrap_or(MacAddr([2, 0, 0, 0, 1, port.0]));
    let frame = p.clone().link(mac, MacAddr([2, 0xFE, 0, 0, 0, 1]), 0).build();
    r.frame(port.0, &frame)
}

/// Equal IPv6 hosts of two VRFs: each has a port outside, its answers, and who calls it; nothing crosses without a leak.
#[test]
pub fn equal_hosts_of_two_vrfs() {
    let mut r = Rig::new(net_of_vrfs());
    let mut ports = Vec::new();
    for lan in VRF_LANS {
        let Outcome::Tx(WAN, f) = into(&mut r, lan, &Pkt::udp(HOST6, FAR6, 4000, 53)) else { panic!("out") };
        ports.push(ends4(&f).0.port);
    }
    assert_ne!(ports[0], ports[1]);
    for round in 0..3 {
        for (lan, port) in VRF_LANS.into_iter().zip(&ports) {
            let out = into(&mut r, lan, &Pkt::udp(HOST6, FAR6, 4000, 53));
            let Outcome::Tx(WAN, f) = out else { panic!("again: {out:?}") };
            assert_eq!(ends4(&f).0.port, *port, "round {round}");
            // An answer, and somebody else who calls.
            for (far, far6) in [(FAR, FAR6), ("198.51.100.8", "2001:db8:64::c633:6408")] {
                let back = into(&mut r, WAN, &Pkt::udp(far, OWN, 53, *port));
                let Outcome::Tx(to, f) = back else { panic!("back: {back:?}") };
                let want = Pkt::udp(far6, HOST6, 53, 4000).forwarded(lan, HOST6);
                assert_eq!((to, hex(&f)), (lan, hex(&want)));
            }
        }
    }
    assert_eq!(r.sessions(), (0, 4));
    let nat = &r.pipe.tables.nat;
    let pool = nat.pools().next().unwrap();
    let mut inside: Vec<_> =
        pool.bindings(NatProtocol::Udp).map(|(port, inside, _)| (inside.vrf, port)).collect();
    inside.sort_unstable();
    assert_eq!(inside, [(vrf(0), ports[0]), (vrf(1), ports[1])]);
    // By its external address a host of the other VRF is not reached, one of the same VRF is.
    let call = |port: u16| Pkt::udp("2001:db8:1::11", OWN6, 5000, port);
    assert_eq!(into(&mut r, VRF_LANS[0], &call(ports[1])), Outcome::Drop(DropReason::Nat64Refused));
    let own = into(&mut r, VRF_LANS[0], &call(ports[0]));
    assert!(matches!(own, Outcome::Tx(to, _) if to == VRF_LANS[0]), "{own:?}");
    // Without the leak of b nothing comes in there, whether it belongs to a session or not.
    r.commit(|n| n.vrf_routes.retain(|(v, (_, len), _)| *v != vrf(1) || *len != 0));
    assert!(!into(&mut r, WAN, &Pkt::udp(FAR, OWN, 53, ports[1])).is_tx());
    assert!(!into(&mut r, WAN, &Pkt::udp("198.51.100.9", OWN, 53, ports[1])).is_tx());
    assert!(!into(&mut r, VRF_LANS[1], &Pkt::udp(HOST6, FAR6, 4000, 53)).is_tx());
    assert!(into(&mut r, WAN, &Pkt::udp(FAR, OWN, 53, ports[0])).is_tx(), "the other stays");
}

/// The next daemon knows of each binding whose it is.
#[test]
pub fn hosts_of_vrfs_over_a_restart() {
    let mut r = Rig::new(net_of_vrfs());
    let ask = Pkt::udp(HOST6, FAR6, 4000, 53);
    let port = |r: &mut Rig, lan| match into(r, lan, &ask) {
        Outcome::Tx(WAN, f) => ends4(&f).0.port,
        other => panic!("{other:?}"),
    };
    let before = VRF_LANS.map(|lan| port(&mut r, lan));
    let known = [vrf(0), vrf(1)].into();
    assert_eq!(take_over::<sag_model::flow::FlowRecord6>(&r.pipe.tables.v6, 1, &known).sessions, 2);
    let nat = NatState::private(1024);
    let (policy, pools, errors) = r.net.nat.clone().plan(&nat);
    assert!(errors.is_empty());
    nat.apply(&pools);
    assert_eq!(nat.adopt_sessions64(&r.pipe.tables.v6, &policy, 1), 2);
    let inside: Vec<_> =
        nat.pools().flat_map(|p| p.bindings(NatProtocol::Udp)).map(|(p, e, _)| (e.vrf, e.port, p)).collect();
    for (i, port) in before.into_iter().enumerate() {
        assert!(inside.contains(&(vrf(i), 4000, port)), "{inside:?}");
    }
}
