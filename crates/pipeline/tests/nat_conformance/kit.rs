//! A gateway with NAT as the product's defaults make it, and packets that are compared whole: what
//! leaves must be the described packet between other endpoints, every checksum computed in full.

use sag_model::config;
use sag_model::time::Tick;
use sag_model::{DropReason, PortIdx};
use sag_packet::proto::*;
pub use sag_pipeline::nat::Pooling;
use sag_pipeline::nat::{Behavior, Endpoint, NatProtocol, Pool};
use sag_pipeline::snapshot::Timeouts;
pub use sag_testkit::*;
use std::sync::Arc;
use std::time::Duration;

pub use Behavior::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei};

pub const HOST: &str = "192.168.1.10";
pub const HOST2: &str = "192.168.1.11";
/// On the other LAN.
pub const HOST3: &str = "192.168.2.10";
pub const WAN_IP: &str = "203.0.113.2";
pub const ISP: &str = "203.0.113.1";
pub const FAR: &str = "198.51.100.7";
pub const FAR2: &str = "198.51.100.8";
/// A router on the way to [`FAR`].
pub const CORE: &str = "198.18.0.1";

pub const SYN: u8 = TCP_SYN;
pub const SYNACK: u8 = TCP_SYN | TCP_ACK;
pub const ACK: u8 = TCP_ACK;
pub const FIN: u8 = TCP_FIN | TCP_ACK;
pub const RST: u8 = TCP_RST;
pub const PSH: u8 = 8;

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub const MINUTE: u64 = 60;

/// The behaviours that a configuration without further words has.
pub fn default_behavior() -> (Behavior, Behavior) {
    let of = |b| match b {
        config::NatBehavior::EndpointIndependent => Ei,
        config::NatBehavior::AddressDependent => Ad,
        config::NatBehavior::AddressAndPortDependent => Apd,
    };
    let d = config::NatBehaviors::default();
    (of(d.mapping), of(d.filtering))
}

pub fn timeouts(t: config::Timeouts) -> Timeouts {
    let ticks = |s: u32| Tick::of(secs(s.into()));
    Timeouts {
        tcp_established: ticks(t.tcp_established),
        tcp_transitory: ticks(t.tcp_transitory),
        tcp_syn: ticks(t.tcp_syn),
        tcp_refused: ticks(t.tcp_refused),
        udp: ticks(t.udp),
        icmp: ticks(t.icmp),
        other: ticks(t.other),
    }
}

/// A branch with the product's timeouts and limits, and no NAT yet.
pub fn net() -> Net {
    let mut n = Net::branch();
    n.options.timeouts = timeouts(config::Timeouts::default());
    let d = config::Nat::default();
    n.nat.limits.range = d.port_range.first..=d.port_range.last;
    n.nat.limits.host_sessions = d.host_sessions;
    n.nat.limits.port_block = d.port_block;
    n.nat.hairpin = d.hairpin;
    n.nat.drops_unsolicited = d.closed_ports == config::ClosedPorts::Drop;
    n
}

/// Source NAT on the WAN port as it is by default.
pub fn nat() -> Rig {
    let (mapping, filtering) = default_behavior();
    nat_as(mapping, filtering)
}

pub fn nat_as(mapping: Behavior, filtering: Behavior) -> Rig {
    let mut n = net();
    n.wan_snat(WAN, mapping, filtering);
    Rig::new(n)
}

/// The port and next hop by which an address is reached.
pub fn way_to(addr: &str) -> (PortIdx, String) {
    match addr {
        a if a.starts_with("192.168.1.") => (LAN, a.into()),
        a if a.starts_with("192.168.2.") => (LAN2, a.into()),
        a if a.starts_with("10.20.") => (LINE, "192.0.2.1".into()),
        _ => (WAN, ISP.into()),
    }
}

/// From where a packet comes: LAN hosts by their LAN, everybody else from the Internet.
pub fn from_its_side(pkt: &Pkt) -> Pkt {
    let (port, _) = way_to(&pkt.src.to_string());
    pkt.clone().into_port(port)
}

/// What must have left as `frame`, with its identification if `came` had another source.
pub fn left(came: &Pkt, want: Pkt, frame: &[u8]) -> Pkt {
    if want.src == came.src { want } else { want.numbered_as(frame) }
}

/// Sends a packet; what leaves must be it between `src` and `dst`.
#[track_caller]
pub fn becomes(r: &mut Rig, pkt: &Pkt, src: Endpoint, dst: Endpoint) {
    let (port, via) = way_to(&dst.addr.to_string());
    match r.send(&from_its_side(pkt)) {
        Outcome::Tx(p, f) => {
            assert_eq!(ends4(&f), (src, dst), "endpoints of {pkt:?}");
            assert_eq!(p, port, "port of {pkt:?}");
            assert_eq!(
                f,
                left(pkt, pkt.clone().between(src, dst), &f).forwarded(port, &via),
                "bytes of {pkt:?}"
            );
        }
        other => panic!("{other:?}: {pkt:?}"),
    }
}

/// Sends a packet from inside and returns the endpoint by which it went out. Nothing but the source
/// may have changed.
#[track_caller]
pub fn out(r: &mut Rig, pkt: &Pkt) -> Endpoint {
    let (_, dst) = ends4(&pkt.build());
    let (port, via) = way_to(&dst.addr.to_string());
    match r.send(&from_its_side(pkt)) {
        Outcome::Tx(p, f) => {
            let src = ends4(&f).0;
            let (want, got) = (left(pkt, pkt.clone().between(src, dst), &f).forwarded(port, &via), f);
            assert_eq!((p, got), (port, want), "bytes of {pkt:?}");
            src
        }
        other => panic!("{other:?}: {pkt:?}"),
    }
}

#[track_caller]
pub fn refused(r: &mut Rig, pkt: &Pkt, reason: DropReason) {
    assert_eq!(r.send(&from_its_side(pkt)), Outcome::Drop(reason), "{pkt:?}");
}

/// The same, and nobody is notified.
#[track_caller]
pub fn silently_refused(r: &mut Rig, pkt: &Pkt, reason: DropReason) {
    refused(r, pkt, reason);
    assert_eq!(r.emitted(), [], "told about {pkt:?}");
}

pub fn pool(r: &Rig) -> Arc<Pool> {
    r.pipe.tables.nat.pool_of(WAN_IP.parse().unwrap()).expect("a pool of the WAN address").clone()
}

/// Whether an external port of the WAN address is bound.
pub fn bound(r: &Rig, bound: NatProtocol, port: u16) -> bool {
    pool(r).inside(bound, port).is_some()
}

/// Lets `time` pass and tells whether the port is bound still.
pub fn still(r: &mut Rig, what: NatProtocol, port: u16, time: Duration) -> bool {
    r.wait(time);
    bound(r, what, port)
}

/// An ICMP error about a packet, as a router or host at `from` sends it to the packet's source:
/// `quote` bytes of the packet, which had one hop less to go.
pub fn error_about(pkt: &Pkt, from: &str, (kind, code, word): (u8, u8, u32), quote: usize) -> Pkt {
    let mut about = pkt.clone();
    about.ttl -= 1;
    let bytes = about.ip();
    Pkt::icmp(from, &pkt.src.to_string(), kind, code, word, &bytes[..bytes.len().min(quote)])
}

/// Sends an ICMP error; what leaves must be `want` with one hop less, byte for byte.
#[track_caller]
pub fn error_becomes(r: &mut Rig, error: &Pkt, want: &Pkt) {
    let (port, via) = way_to(&want.dst.to_string());
    match r.send(&from_its_side(error)) {
        Outcome::Tx(p, f) => {
            let want = left(error, want.clone(), &f).forwarded(port, &via);
            assert_eq!((p, f), (port, want), "{error:?}");
        }
        other => panic!("{other:?}: {error:?}"),
    }
}

/// A TCP segment with its numbers.
pub fn segment(src: &str, dst: &str, ports: (u16, u16), flags: u8, (seq, ack): (u32, u32)) -> Pkt {
    let mut p = Pkt::tcp(src, dst, ports.0, ports.1, flags);
    p.l4[4..8].copy_from_slice(&seq.to_be_bytes());
    p.l4[8..12].copy_from_slice(&ack.to_be_bytes());
    p.fix_l4();
    p
}
