//! The whole chain into an ESP tunnel, in memory, on one core: parse, session, source NAT, a CAR, encryption; with
//! and without forward error correction. `overlay [rounds]`.
//!
//! The cases take turns; printed are medians of the rounds, each of 200 batches of 64 packets with the housekeeping
//! between batches, in which repairs are made. Gbit/s are those of the IP packets inside.

#![forbid(unsafe_code)]

use sag_acl::Rule;
use sag_benches::{Load, gateway, shuffled};
use sag_model::config::{Fec, Probing, ReversePath};
use sag_packet::Family;
use sag_packet::encap::{Encap, Template};
use sag_pipeline::Tables;
use sag_pipeline::nat::Behavior::{AddressDependent, EndpointIndependent};
use sag_pipeline::policy::Class;
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::table::{FlowTable, Grace};
use sag_pipeline::tunnel::{EspSaTable, EspSas, Tunnel};
use sag_testkit::{Net, Pkt, test_tunnel, tunnel_no};
use sag_tunnel::esp::{Cipher, Outbound, Suite};
use std::net::IpAddr;
use std::sync::Arc;

const FLOWS: usize = 10_000;
const BATCH: usize = 64;
const BATCHES: usize = 200;
/// CSIT's: 7:4:1 of 64, 570 and 1,518 bytes with header and FCS; the largest less what the tunnel adds.
const IMIX: [usize; 12] = [46, 46, 46, 46, 46, 46, 46, 552, 552, 552, 552, 1400];

struct Case {
    name: String,
    sizes: &'static [usize],
    load: Load,
    frames: Vec<Vec<u8>>,
    next: usize,
    times: Vec<f64>,
}

/// A branch with an ACL of 1,000 rules whose route leads into the tunnel.
fn branch(fec: Option<Fec>) -> Net {
    let mut net = gateway(1000);
    let (local, remote) = (IpAddr::from([203, 0, 113, 2]), IpAddr::from([198, 51, 100, 9]));
    let encap = Encap::Esp { udp: None };
    let suite = Suite::new(Cipher::Aes128Gcm, &[7; 20]).expect("a key of its length");
    let mut sas = EspSas::default();
    sas.send_by(tunnel_no(1), Arc::new(Outbound::new(0x1234, suite, true, 1, 1)));
    let book = EspSaTable::default();
    book.store(sas);
    net.tunnels.push(Tunnel {
        local,
        remote,
        template: Template::new(local, remote, 64, encap),
        addrs4: Vec::new(),
        addrs6: Vec::new(),
        probing: Probing { interval: 0, loss: 3, target: None },
        fec,
        // What it sends comes back.
        reverse_path: ReversePath::Off,
        esp: Arc::new(book),
        ..test_tunnel(1, encap, Family::V4)
    });
    net.route("10.30.0.0/16", Route::Via(vec![Member::tunnel(tunnel_no(1), 1)]));
    net.snat("192.168.1.0/24", "192.0.2.77", EndpointIndependent, AddressDependent);
    for class in [Class::OutLan, Class::InLan] {
        net.acl = std::mem::take(&mut net.acl).rule(class, true, "* * * * *");
    }
    net.car("all", 1, 0, 1_000_000).meter(Rule::ANY, "all");
    net
}

impl Case {
    fn new(name: &str, sizes: &'static [usize], fec: Option<Fec>) -> Case {
        let tables = Tables {
            v4: FlowTable::private(1 << 16, Grace::immediate()),
            v6: FlowTable::private(1, Grace::immediate()),
            nat: Arc::new(sag_pipeline::nat::NatState::private(1 << 16)),
            first_fragments: Default::default(),
        };
        let frame = |n: usize| {
            let (host, port) = (2 + n % 250, 1024 + (n / 250) as u16);
            let payload = sizes[n % sizes.len()] - 28;
            Pkt::udp(&format!("192.168.1.{host}"), "10.30.0.1", port, 5000).payload(payload).build()
        };
        let mut case = Case {
            name: format!("{name}{}", if fec.is_some() { ", with error correction 20 + 4" } else { "" }),
            sizes,
            load: Load::over(branch(fec), tables),
            frames: shuffled(FLOWS).into_iter().map(frame).collect(),
            next: 0,
            times: Vec::new(),
        };
        for _ in 0..2 {
            case.round();
        }
        case
    }

    /// Nanoseconds a packet.
    fn round(&mut self) -> f64 {
        let mut spent = 0;
        for _ in 0..BATCHES {
            let batch = (self.next..self.next + BATCH).map(|n| &*self.frames[n % FLOWS]);
            spent += self.load.batch(batch).as_nanos();
            assert!(self.load.all_sent(), "{}: not all left", self.name);
            spent += self.load.poll().as_nanos();
            self.next = (self.next + BATCH) % FLOWS;
        }
        spent as f64 / (BATCHES * BATCH) as f64
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(41usize);
    let with = Some(Fec { window: 20, repairs: 4, delay: 20 });
    let mut cases: Vec<Case> = [("64 B", &[46][..]), ("1,400 B", &[1400]), ("IMIX", &IMIX)]
        .into_iter()
        .flat_map(|(name, sizes)| [None, with].map(|fec| Case::new(name, sizes, fec)))
        .collect();
    for _ in 0..rounds {
        for c in &mut cases {
            let t = c.round();
            c.times.push(t);
        }
    }
    println!("whole chain into ESP, AES-128-GCM, {FLOWS} flows      ns a packet   Mpps  Gbit/s");
    for mut c in cases {
        c.times.sort_unstable_by(f64::total_cmp);
        let (ns, bytes) = (c.times[rounds / 2], c.sizes.iter().sum::<usize>() as f64 / c.sizes.len() as f64);
        println!("{:45} {ns:10.1} {:8.2} {:7.2}", c.name, 1e3 / ns, bytes * 8.0 / ns);
    }
}
