//! One case for counting instructions: `count CASE BATCHES`, batches of 64 packets; of first packets and of what an ESP
//! peer sends there are at most 64. What comes before them does not depend on their number.
//!
//! | case | packets |
//! |---|---|
//! | `established`, `established6` | of flows that have a session |
//! | `first` | each the first of its flow |
//! | `denied` | refused by a rule, of which the sender is told, within the rate of errors |
//! | `denied-quiet` | refused by a rule, without a word |
//! | `esp-seal` | 64 bytes of known flows, that leave in an ESP tunnel |
//! | `esp-open` | the same out of the tunnel, to the LAN |

#![forbid(unsafe_code)]

use sag_benches::*;
use sag_model::config::{Probing, ReversePath};
use sag_packet::Family;
use sag_packet::encap::Encap;
use sag_pipeline::policy::Class;
use sag_pipeline::tunnel::{EspSaTable, EspSas, Tunnel};
use sag_testkit::{DEV_WAN, GATEWAY_MACS, Net, Pkt, TUNNEL_ENDS, WAN, checksum, test_tunnel, tunnel_no};
use sag_tunnel::esp::{Cipher, HEADROOM, Inbound, Inner, Outbound, Suite, TAILROOM};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Batches with packets of their own; then the same ones come again.
const MOST: usize = 64;
/// UDP payload for an inner packet of 64 bytes.
const PAYLOAD: usize = 36;
const SPI: u32 = 0x1234;

fn suite() -> Suite {
    Suite::new(Cipher::Aes128Gcm, &[7; 20]).expect("a key of its length")
}

/// A branch with an ACL of 1,000 rules and a tunnel, whose far end has the same keys.
fn with_tunnel() -> Net {
    let mut net = gateway(1000);
    for class in [Class::OutLan, Class::InLan] {
        net.acl = std::mem::take(&mut net.acl).rule(class, true, "* * * * *");
    }
    let mut sas = EspSas::default();
    sas.send_by(tunnel_no(1), Arc::new(Outbound::new(SPI, suite(), true, 1, 1)));
    sas.receive_by(tunnel_no(1), Arc::new(Inbound::new(SPI, suite(), true, 4096, 0)));
    let keys = EspSaTable::default();
    keys.store(sas);
    net.tunnel(Tunnel {
        probing: Probing { interval: 0, loss: 3, target: None },
        reverse_path: ReversePath::Off,
        esp: Arc::new(keys),
        ..test_tunnel(1, Encap::Esp { udp: None }, Family::V4)
    });
    net
}

/// Between host `n` of the LAN and one behind the tunnel.
fn through_the_tunnel(n: usize, out: bool) -> Pkt {
    let host = format!("192.168.1.{}", 10 + n % 2);
    let port = 1024 + n as u16;
    let packet = match out {
        true => Pkt::udp(&host, "10.30.0.1", port, 5000),
        false => Pkt::udp("10.30.0.1", &host, 5000, port),
    };
    packet.payload(PAYLOAD)
}

/// The frame in which the far end sends this packet.
fn sealed(by: &Outbound, inner: &[u8]) -> Vec<u8> {
    let mut esp = vec![0; HEADROOM];
    esp.extend_from_slice(inner);
    esp.resize(esp.len() + TAILROOM, 0);
    let end = by.seal(&mut esp, HEADROOM..HEADROOM + inner.len(), Inner::V4).expect("there is room").at.end;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, sag_packet::proto::ESP, 0, 0];
    let (gateway, peer) = TUNNEL_ENDS[0];
    for end in [peer, gateway] {
        ip.extend(end.parse::<Ipv4Addr>().expect("an address").octets());
    }
    let len = (ip.len() + end) as u16;
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = GATEWAY_MACS[WAN.index()].0.to_vec();
    frame.extend([2, 9, 9, 9, 9, 9, 8, 0]);
    frame.extend(ip);
    frame.extend(&esp[..end]);
    frame
}

fn esp_seal(batches: usize) {
    let mut load = Load::new(with_tunnel());
    let frames: Vec<_> = (0..64).map(|n| through_the_tunnel(n, true).build()).collect();
    for _ in 0..1 + batches {
        load.batch(frames.iter().map(Vec::as_slice));
    }
    assert!(load.all_sent());
}

fn esp_open(batches: usize) {
    let mut load = Load::new(with_tunnel());
    load.dev = DEV_WAN;
    let far_end = Outbound::new(SPI, suite(), true, 1, 1);
    let frames: Vec<_> =
        (0..64 * (MOST + 1)).map(|n| sealed(&far_end, &through_the_tunnel(n % 64, false).ip())).collect();
    for chunk in frames.chunks(64).take(1 + batches.min(MOST)) {
        load.batch(chunk.iter().map(Vec::as_slice));
        assert!(load.all_sent());
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_else(|| "established".into());
    let batches = args.next().and_then(|a| a.parse().ok()).unwrap_or(MOST);
    match case.as_str() {
        "esp-seal" => return esp_seal(batches),
        "esp-open" => return esp_open(batches),
        _ => {}
    }
    let ip = if case.ends_with('6') { Ip::V6 } else { Ip::V4 };
    let first = case.starts_with("first");
    let batches = if first { batches.min(MOST) } else { batches };
    let frames = Frozen::new(ip, MOST * 64);
    let mut net = if case.starts_with("denied") { closed_gateway(1000) } else { gateway(1000) };
    net.options.acl_reject = !case.ends_with("quiet");
    let mut load = Load::new(net);
    let order = shuffled(MOST * 64);
    for chunk in order.chunks(64).filter(|_| !first) {
        load.batch(chunk.iter().map(|&n| frames.get(n)));
    }
    for chunk in order.chunks(64).cycle().take(batches) {
        load.batch(chunk.iter().map(|&n| frames.get(n)));
    }
}
