//! Identifications of translated IPv4 datagrams (RFC 7857 section 10, RFC 6864 section 5.3.1): to their receiver all hosts
//! behind an external address are one source.

use super::kit::*;
use sag_packet::proto::UDP;
use sag_pipeline::nat::Kind;
use std::collections::{BTreeMap, HashSet};

const HOST6: &str = "2001:db8:1::10";
const FAR6: &str = "2001:db8:64::c633:6407";

fn id_of(frame: &[u8]) -> u16 {
    let ip = l3(frame);
    u16::from_be_bytes([frame[ip + 4], frame[ip + 5]])
}

/// Sends a packet, which leaves as this one but for its identification; returns that.
#[track_caller]
fn numbered(r: &mut Rig, pkt: &Pkt, want: &Pkt) -> u16 {
    let (port, via) = way_to(&want.dst.to_string());
    let pkt = if pkt.src.is_ipv4() { &from_its_side(pkt) } else { pkt };
    match r.send(pkt) {
        Outcome::Tx(p, f) => {
            assert_eq!((p, &f), (port, &want.clone().numbered_as(&f).forwarded(port, &via)), "{pkt:?}");
            id_of(&f)
        }
        other => panic!("{other:?}: {pkt:?}"),
    }
}

/// The pieces of a datagram.
fn pieces(whole: &Pkt) -> Vec<Pkt> {
    (0..whole.l4.len()).step_by(480).map(|at| whole.fragment(at, 480)).collect()
}

/// Every host counts from the same number, by the slow path and by records, and a server answers from the same address.
#[test]
pub fn hosts_behind_an_address_never_use_one_twice() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ei).dnat(Kind::Internet, "", HOST3, Some((UDP, 8000, 8000, 53)));
    let mut r = Rig::new(n);
    becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 53, 8000), end(FAR, 53), end(HOST3, 53));
    let mut seen = HashSet::new();
    for id in 0..4000 {
        let (src, port) = [(HOST, 4000), (HOST2, 4001), (HOST3, 53)][usize::from(id % 3)];
        let mut p = Pkt::udp(src, FAR, port, 53);
        p.id = id / 3;
        let sport = if src == HOST3 { 8000 } else { port };
        let new = numbered(&mut r, &p, &p.clone().between(end(WAN_IP, sport), end(FAR, 53)));
        assert!(seen.insert(new), "{new:#06x} came before");
    }
}

/// DF says that a datagram stays whole, unless it is a fragment already.
#[test]
pub fn only_what_is_or_may_become_fragments_is_numbered_anew() {
    let mut r = nat();
    // What is not translated stays as it is.
    becomes(&mut r, &Pkt::udp(HOST, HOST3, 4000, 53), end(HOST, 4000), end(HOST3, 53));
    let mut seen = HashSet::new();
    for _ in 0..4 {
        let atomic = Pkt::udp(HOST, FAR, 4000, 53).df();
        out(&mut r, &atomic);
        let whole = atomic.payload(1000);
        let wants = pieces(&whole.clone().between(end(WAN_IP, 4000), end(FAR, 53)));
        let new: HashSet<_> =
            pieces(&whole).iter().zip(&wants).map(|(p, w)| numbered(&mut r, p, w)).collect();
        assert_eq!(new.len(), 1, "one datagram, one number");
        assert!(seen.is_disjoint(&new));
        seen.extend(new);
        // Answers keep what their sender chose.
        becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 53, 4000), end(FAR, 53), end(HOST, 4000));
    }
}

/// Two hosts' datagrams with one number, their pieces in turns and in any order: a receiver that goes by the number puts
/// together what each of them sent.
#[test]
pub fn fragments_of_a_datagram_have_one_and_no_other_has_it() {
    let mut r = nat();
    let wholes = [(HOST, 4000), (HOST2, 4001)].map(|(src, port)| Pkt::udp(src, FAR, port, 53).payload(1400));
    for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
        let mut sent = Vec::new();
        for at in order {
            for p in &wholes {
                match r.send(&from_its_side(&pieces(p)[at])) {
                    Outcome::Tx(_, f) => sent.push(f),
                    Outcome::Held | Outcome::Emitted => sent.extend(r.emitted().into_iter().map(|(_, f)| f)),
                    other => panic!("{other:?}"),
                }
            }
        }
        let want = [0, 1].map(|n| wholes[n].clone().between(end(WAN_IP, 4000 + n as u16), end(FAR, 53)).l4);
        assert_eq!(joined(&sent), want);
    }
}

/// What a receiver makes of fragments, by their numbers alone: payloads in the order of their ports.
fn joined(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut datagrams = BTreeMap::<u16, Vec<(usize, &[u8])>>::new();
    for f in frames {
        let ip = &f[l3(f)..];
        let at = usize::from(u16::from_be_bytes([ip[6], ip[7]]) & 0x1FFF) * 8;
        datagrams.entry(id_of(f)).or_default().push((at, &ip[20..]));
    }
    let mut all: Vec<Vec<u8>> = Vec::new();
    for mut pieces in datagrams.into_values() {
        pieces.sort_unstable();
        let mut whole = Vec::new();
        for (at, bytes) in pieces {
            assert_eq!(at, whole.len(), "a piece is missing or twice there");
            whole.extend_from_slice(bytes);
        }
        all.push(whole);
    }
    all.sort_unstable();
    all
}

/// Fragments that wait, for their first or for a neighbor, leave with the number of their datagram.
#[test]
pub fn held_fragments_have_that_of_their_datagram() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ei);
    n.unresolve(WAN, ISP);
    let mut r = Rig::new(n);
    let wholes = [(HOST, 4000), (HOST2, 4001)].map(|(src, port)| Pkt::udp(src, FAR, port, 53).payload(1400));
    for at in [2, 0, 1] {
        for p in &wholes {
            assert!(!r.send(&from_its_side(&pieces(p)[at])).is_tx());
        }
    }
    r.change(|n| {
        n.neighbor(WAN, ISP);
    });
    r.poll();
    let sent = r.emitted();
    assert_eq!(sent.len(), 6);
    let frames: Vec<_> = sent.into_iter().map(|(_, f)| f).collect();
    let want = [0, 1].map(|n| wholes[n].clone().between(end(WAN_IP, 4000 + n as u16), end(FAR, 53)).l4);
    assert_eq!(joined(&frames), want);
}

/// Hosts of NAT64 and of source NAT have one external address. A fragment of IPv6 has 32 bits, of which hosts may share 16.
#[test]
pub fn hosts_of_ipv6_count_along() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad).nat64("2001:db8:64::/96", &[], Ad);
    let mut r = Rig::new(n);
    let mut seen = HashSet::new();
    for round in 0..100 {
        let p4 = Pkt::udp(HOST, FAR, 4000, 53);
        let p6 = Pkt::udp(HOST6, FAR6, 4001, 53);
        let as_v4 = Pkt::udp(WAN_IP, FAR, 4001, 53);
        let mut new = vec![numbered(&mut r, &p4, &p4.clone().between(end(WAN_IP, 4000), end(FAR, 53)))];
        new.push(numbered(&mut r, &p6, &as_v4));
        let (p6, as_v4) = (p6.payload(900), as_v4.payload(900));
        let of: Vec<_> =
            (pieces(&p6).iter().zip(pieces(&as_v4))).map(|(p, want)| numbered(&mut r, p, &want)).collect();
        assert!(of.iter().all(|id| *id == of[0]), "{of:x?}");
        new.push(of[0]);
        for id in new {
            assert!(seen.insert(id), "{id:#06x} came before, round {round}");
        }
    }
}

/// A datagram that the gateway itself splits: in pieces of one number.
#[test]
pub fn what_the_gateway_splits_is_numbered_first() {
    let mut r = nat();
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let p = Pkt::udp(HOST, FAR, 4000, 53).payload(1472 + 480);
        assert_eq!(r.send(&from_its_side(&p)), Outcome::Emitted);
        let ids: HashSet<u16> = r.emitted().iter().map(|(_, f)| id_of(f)).collect();
        assert_eq!(ids.len(), 1);
        assert!(seen.is_disjoint(&ids));
        seen.extend(ids);
    }
}

/// Between inside hosts both ends are translated: by whichever external address a host is called, it sees one source.
#[test]
pub fn called_by_two_addresses() {
    let mut n = net();
    n.ports[WAN.index()].addrs4.push(("203.0.113.50".parse().expect("address"), 24));
    n.wan_snat(WAN, Ei, Ei).dnat(Kind::Internet, "", HOST3, Some((UDP, 8000, 8000, 53))).dnat(
        Kind::Internet,
        "203.0.113.50",
        HOST3,
        Some((UDP, 8000, 8000, 53)),
    );
    let mut r = Rig::new(n);
    let mut seen = HashSet::new();
    for _ in 0..50 {
        for (host, port, by) in [(HOST, 4000, WAN_IP), (HOST2, 4001, "203.0.113.50")] {
            let p = Pkt::udp(host, by, port, 8000);
            let new = numbered(&mut r, &p, &p.clone().between(end(WAN_IP, port), end(HOST3, 53)));
            assert!(seen.insert(new), "{new:#06x} came before");
            let whole = p.payload(900);
            for piece in pieces(&whole) {
                let f = match r.send(&from_its_side(&piece)) {
                    Outcome::Tx(_, f) => f,
                    other => panic!("{other:?}"),
                };
                let first = piece.frag & 0x1FFF == 0;
                assert_eq!(seen.insert(id_of(&f)), first, "the first of its datagram brings a number");
            }
        }
    }
}
