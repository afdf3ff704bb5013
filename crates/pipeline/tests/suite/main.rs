//! The pipeline from outside: frames in, exact bytes or the exact drop reason out.

mod acl;
mod connections;
mod errors;
mod esp;
mod fec;
mod floods;
mod forward;
mod fragments;
mod multipath;
mod nat;
mod nat_pools;
mod neighbors;
mod partial_checksums;
mod port_mapping;
mod proxy_arp;
mod qos;
mod random;
mod reassembly;
mod reassembly_model;
mod refused;
mod replicas;
mod returns;
mod rule_limits;
mod segment_size;
mod sessions;
mod several_wans;
mod spoofed;
mod static_nat;
mod syn_cookies;
mod tunnel_devices;
mod tunnels;
mod vrfs;
mod workers;

use sag_model::PortIdx;
use sag_testkit::*;

/// `pkt` as it must leave by `port` for its next hop `via`: one hop older, new link header, no
/// padding; every checksum computed from scratch.
fn forwarded(pkt: &Pkt, port: PortIdx, via: &str) -> Vec<u8> {
    pkt.forwarded(port, via)
}

/// Sends and expects exactly the forwarded packet, first as a new flow, then as an established one.
#[track_caller]
fn check_forward(rig: &mut Rig, pkt: &Pkt, port: PortIdx, via: &str) {
    for way in ["first", "second", "third"] {
        match rig.send(pkt) {
            Outcome::Tx(p, f) => {
                assert_eq!(p, port, "{way} packet: port");
                assert_eq!(f, forwarded(pkt, port, via), "{way} packet: bytes");
            }
            other => panic!("{way} packet: {other:?}"),
        }
    }
}
