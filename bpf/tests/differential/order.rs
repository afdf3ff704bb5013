//! Whose a packet is that tunnels, sessions, the gateway itself and NAT may all want: own tunnels are asked first, by XDP as
//! by workers, whether the session that wants it too was there before or not.

use super::*;
use sag_packet::Family;
use sag_packet::encap::{Encap, Template};
use sag_pipeline::nat::{Behavior, Kind};
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::{DEV_LAN, DEV_WAN, LAN, Net, Pkt, WAN, frame_from_peer, test_tunnel};

/// Own addresses at which tunnels end and NAT has ports, the last for NAT alone.
const OWN4: [&str; 3] = ["203.0.113.2", "203.0.113.50", "203.0.113.60"];
const OWN6: &str = "2001:db8:2::2";
/// Peers of tunnels, with whom hosts of the LAN speak as well, and somebody else.
const FAR4: [&str; 3] = ["198.51.100.9", "198.51.100.7", "198.51.100.8"];
const FAR6: [&str; 2] = ["2001:db8:9::9", "2001:db8:99::7"];
const INSIDE4: [&str; 2] = ["192.168.1.10", "192.168.1.11"];
/// Ports of tunnels, of services and of IKE.
const PORTS4: [u16; 8] = [4500, 4500, 4789, 8472, 500, 53, 80, 2000];

fn tunnel(d: &mut Rng, no: u8) -> Tunnel {
    let encap = match d.below(6) {
        0 => Encap::Vxlan {
            port: d.pick(&[4789, 8472, 4500]),
            vni: 100,
            mac: testkit::TUNNEL_MACS[0],
            remote_mac: testkit::TUNNEL_MACS[1],
        },
        1 => Encap::Gre { key: d.pick(&[None, Some(7)]), checksum: false, sequence: false },
        2 => Encap::Ipip,
        3 => Encap::Esp { udp: None },
        _ => Encap::Esp { udp: Some(d.pick(&[4500, 4500, 500, 2000])) },
    };
    let base = test_tunnel(no, encap, d.pick(&[Family::V4, Family::V4, Family::V6]));
    if base.local.is_ipv6() {
        return base;
    }
    let (local, remote) =
        (d.pick(&OWN4[..2]).parse().expect("address"), d.pick(&FAR4[..2]).parse().expect("address"));
    Tunnel { local, remote, template: Template::new(local, remote, 64, encap), ..base }
}

/// Up to three tunnels in place of those that were; ends are one tunnel's each, as the configuration has it.
fn tunnels(d: &mut Rng, n: &mut Net) {
    n.tunnels.clear();
    for no in 1..=d.below(4) as u8 {
        let t = tunnel(d, no);
        if n.tunnels
            .iter()
            .all(|other| (other.end().proto, other.end().port) != (t.end().proto, t.end().port))
        {
            n.tunnel(t);
        }
    }
}

fn nat(d: &mut Rng, n: &mut Net) {
    n.nat.wan.clear();
    n.nat.dnat.clear();
    let behavior = d.pick(&[Behavior::EndpointIndependent, Behavior::AddressAndPortDependent]);
    if !d.once_in(5) {
        n.wan_snat(WAN, behavior, d.pick(&[behavior, Behavior::EndpointIndependent]));
    }
    for _ in 0..d.below(3) {
        let (from, to) = (d.pick(&["", OWN4[1]]), d.pick(&INSIDE4));
        let (port, proto) = (d.pick(&PORTS4), d.pick(&[UDP, UDP, TCP]));
        let same = |e: &sag_pipeline::nat::StaticDnat| match &e.service {
            sag_pipeline::nat::Service::Port { proto: p, external, .. } => {
                *p == proto && external.contains(&port)
            }
            sag_pipeline::nat::Service::Any => false,
        };
        if !n.nat.dnat.iter().any(same) {
            n.dnat(Kind::Internet, from, to, Some((proto, port, port, d.pick(&[port, 6000]))));
        }
    }
    if d.once_in(3) {
        n.dnat(Kind::Internet, OWN4[2], INSIDE4[0], None);
    }
}

/// What ports of tunnels may carry: IKE, a keepalive, ESP, a VXLAN header, anything.
fn load(d: &mut Rng) -> Vec<u8> {
    match d.below(5) {
        0 => [&[0; 4][..], &[7; 40]].concat(),
        1 => vec![0xFF],
        2 => [&[0, 0, 0x12, 0x34][..], &[9; 60]].concat(),
        3 => [&[8, 0, 0, 0, 0, 0, d.pick(&[100, 101]), 0][..], &[1; 60]].concat(),
        _ => vec![5; d.below(60)],
    }
}

fn udp(src: &str, dst: &str, ports: (u16, u16), load: &[u8]) -> Pkt {
    let mut p = Pkt::udp(src, dst, ports.0, ports.1).payload(load.len());
    p.l4.truncate(8);
    p.l4.extend_from_slice(load);
    p.fix_l4();
    p
}

/// From a tunnel's peer to where it ends, whatever is in it.
fn to_end(d: &mut Rng, t: &Tunnel) -> Vec<u8> {
    let (end, src, dst) = (t.end(), t.remote.to_string(), t.local.to_string());
    let p = match end.port {
        0 => Pkt::new(&src, &dst, end.proto, load(d)),
        port => udp(&src, &dst, (d.pick(&PORTS4), port), &load(d)),
    };
    p.into_port(WAN).build()
}

/// A packet between two addresses that everybody wants.
fn wanted(d: &mut Rng, src: &str, dst: &str) -> Pkt {
    let ports = (d.pick(&PORTS4), d.pick(&PORTS4));
    match d.below(10) {
        0..=5 => udp(src, dst, ports, &load(d)),
        6 => Pkt::tcp(src, dst, ports.0, ports.1, d.pick(&[TCP_SYN, TCP_ACK])),
        7 => Pkt::echo(src, dst, ports.0, d.once_in(2)),
        _ => Pkt::new(src, dst, d.pick(&[GRE, ESP, IPIP, IPV6_IN_IP]), load(d)),
    }
}

fn frame(d: &mut Rng, rig: &Rig) -> (u8, Vec<u8>) {
    let v6 = d.once_in(5);
    let far = if v6 { d.pick(&FAR6) } else { d.pick(&FAR4) };
    let inside = if v6 { "2001:db8:1::10" } else { d.pick(&INSIDE4) };
    let all: Vec<_> = rig.snap.tunnels.iter().collect();
    let plain: Vec<_> = all.iter().copied().filter(|t| !t.is_esp()).collect();
    match d.below(10) {
        0..=2 => (DEV_LAN, wanted(d, inside, far).into_port(LAN).build()),
        3 if !plain.is_empty() => {
            let inner = match v6 {
                true => Pkt::udp("2001:db8:30::1", "2001:db8:1::10", 2000, 1000),
                false => Pkt::udp("10.30.0.1", "192.168.1.10", 2000, 1000),
            };
            (DEV_WAN, frame_from_peer(d.pick(&plain), &inner.ip(), 0, true))
        }
        8.. if !all.is_empty() => {
            let t = d.pick(&all);
            (DEV_WAN, to_end(d, t))
        }
        4 => {
            let to = if v6 { "2001:db8:30::1" } else { "10.30.0.1" };
            (DEV_LAN, Pkt::udp(inside, to, 1000, 2000).into_port(LAN).build())
        }
        _ => {
            let own = if v6 { OWN6 } else { d.pick(&OWN4) };
            let mut p = wanted(d, far, own);
            // An answer to what NAT has lent.
            if let (UDP | TCP, true, IpAddr::V4(own)) = (p.proto, d.once_in(3), p.dst)
                && let Some(pool) = rig.pipe.tables.nat.pool_of(own)
            {
                let proto = if p.proto == UDP {
                    sag_pipeline::nat::NatProtocol::Udp
                } else {
                    sag_pipeline::nat::NatProtocol::Tcp
                };
                let lent: Vec<u16> = pool.bindings(proto).map(|b| b.0).collect();
                if !lent.is_empty() {
                    p.l4[2..4].copy_from_slice(&d.pick(&lent).to_be_bytes());
                    p.fix_l4();
                }
            }
            (DEV_WAN, p.into_port(WAN).build())
        }
    }
}

/// Whether the configuration says that a packet is a tunnel's.
fn is_tunnels(rig: &Rig, frame: &[u8]) -> bool {
    let Some(Ok(NetworkLayer::Ip(p))) = rules::look(frame).map(|look| look.seen) else { return false };
    let load = frame.get(usize::from(p.l4_at) + 8..usize::from(p.l3) + usize::from(p.ip_len)).unwrap_or(&[]);
    rig.snap.tunnels.iter().any(|t| {
        let end = t.end();
        let proto = if p.proto == IPV6_IN_IP { IPIP } else { p.proto };
        let ends = (p.dst(frame), p.src(frame)) == (t.local, t.remote) && proto == end.proto;
        // Four zeros in place of an SPI: IKE (RFC 3948 2.2).
        let ike = t.is_esp() && end.port != 0 && load.starts_with(&[0; 4]);
        ends && (end.port == 0 || p.ports().1 == end.port) && !ike
    })
}

#[derive(Debug, Default)]
struct Seen {
    stories: u64,
    packets: u64,
    /// Of which a tunnel's.
    tunnels: u64,
    /// Of a tunnel's, XDP's without a worker.
    left: u64,
    forwarded: u64,
    outcomes: BTreeMap<String, u64>,
}

fn publish(lab: &Lab, rig: &Rig) {
    lab.publish(rig);
    lab.gw.tunnels().iter().for_each(sag_model::tunnel::TunnelRecord::clear);
    rig.snap.tunnels.iter().for_each(|t| lab.gw.tunnels()[t.no.index()].store(&t.entry()));
    lab.gw.replace_tunnel_ends(&rig.snap.tunnels.xdp_ends()).unwrap();
    lab.gw.control().tunnels.store(rig.snap.tunnels.iter().count() as u32, Relaxed);
}

fn story(lab: &Lab, seed: u64, seen: &mut Seen) {
    let mut d = Rng::new(seed);
    for r in &lab.gw.nexthops()[..512] {
        for w in [&r.dev, &r.dmac_vlan, &r.smac_mtu] {
            w.store(0, Relaxed);
        }
    }
    let tables = lab.tables(d.roll() | 1);
    let mut net = Net::branch().over(lab.gw.nexthops());
    net.meter_by(lab.meters().book());
    net.ports[WAN.index()].addrs4.push((OWN4[1].parse().unwrap(), 24));
    nat(&mut d, &mut net);
    if d.once_in(2) {
        tunnels(&mut d, &mut net);
    }
    let mut rig = Rig::over(net, Arc::new(tables), 0, 1);
    publish(lab, &rig);
    for n in 0..150 {
        // Tunnels and forwards come and go while sessions are there.
        if d.once_in(40) {
            rig.commit(|n| match d.once_in(3) {
                true => nat(&mut d, n),
                false => tunnels(&mut d, n),
            });
            publish(lab, &rig);
        }
        rig.now = rig.now + Duration::from_millis(1);
        rig.poll();
        let (dev, frame) = frame(&mut d, &rig);
        let ours = dev == DEV_WAN && is_tunnels(&rig, &frame);
        let at = format!("SAG_SEED={seed}, packet {n}, device {dev}: {:02x?}", head(&frame));
        let (start, numbered) = (records(&rig.pipe.tables), lab.ip_ids());
        let ifindex = lab.devs[usize::from(dev)];
        let run = lab.gw.test_run(TestFrame { bytes: &frame, ifindex, queue: 0 }).unwrap();
        let by_xdp = records(&rig.pipe.tables);
        restore(&rig.pipe.tables, &start);
        lab.restore_ip_ids(&numbered);
        assert!(lab.stats().iter().all(PortStats::balanced), "{at}");
        let inside = |rig: &Rig| {
            rig.snap.tunnels.iter().map(|t| rig.pipe.counters.tunnel(t.no).rx_packets.get()).sum::<u64>()
        };
        let before = inside(&rig);
        let out = rig.frame(dev, &frame);
        let left = inside(&rig) > before;
        rig.emitted();
        seen.packets += 1;
        seen.tunnels += u64::from(ours);
        if ours {
            let never = matches!(out, Outcome::Kernel) || out.is_tx() && !left;
            assert!(!never, "{at}: a tunnel's; the pipeline: {out:?}");
            assert_ne!(run.action, XDP_PASS, "{at}: a tunnel's");
        }
        match (run.action, run.note) {
            (XDP_REDIRECT, None) => {
                let Outcome::Tx(_, bytes) = &out else { panic!("{at}: forwarded; the pipeline: {out:?}") };
                assert_eq!(tunneled::without_id(&run.frame), tunneled::without_id(bytes), "{at}");
                let (no, counted) =
                    moved(&start, &by_xdp, &at).unwrap_or_else(|| panic!("{at}: not counted"));
                let (same, mine) = moved(&start, &records(&rig.pipe.tables), &at).unwrap();
                assert_eq!((no, counted.packets, counted.bytes), (same, mine.packets, mine.bytes), "{at}");
                seen.forwarded += 1;
                seen.left += u64::from(ours);
            }
            (XDP_REDIRECT, Some(_)) => {}
            (XDP_PASS, _) => {
                let agreed = rules::kernel(&rig.snap, dev, &frame, &out);
                assert!(agreed.is_some(), "{at}: the kernel's, says XDP; the pipeline: {out:?}");
            }
            _ => assert!(matches!(out, Outcome::Drop(_)), "{at}: dropped by XDP; the pipeline: {out:?}"),
        }
        let what = match &out {
            Outcome::Tx(..) => "sent".to_owned(),
            Outcome::Drop(r) => r.name().to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        count(&mut seen.outcomes, what);
    }
    lab.gw.control().tunnels.store(0, Relaxed);
    seen.stories += 1;
}

#[test]
fn whose_a_packet_is_that_everybody_wants() {
    let Some(lab) = Lab::new() else { return };
    let env = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_micros() as u64);
    let first = env("SAG_SEED").unwrap_or_else(clock);
    println!("SAG_SEED={first}");
    let mut seen = Seen::default();
    for seed in first..first + 200 {
        story(&lab, seed, &mut seen);
    }
    println!("{seen:#?}");
    assert!(seen.tunnels > 500 && seen.left > 50 && seen.forwarded > 500, "too little of each");
    for what in ["esp-unknown-spi", "esp-keepalive", "tunnel-unknown", "kernel", "sent"] {
        assert!(seen.outcomes.get(what).is_some_and(|n| *n > 20), "too little {what}");
    }
}
