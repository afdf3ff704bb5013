//! Tunnels: what the XDP program puts in front of packets and takes off them is what the pipeline does,
//! byte for byte; what it leaves to a worker is untouched.

use super::*;
use sag_model::VrfNo;
use sag_model::config::{OuterDf, OuterDscp};
use sag_packet::Family;
use sag_packet::encap::{Encap, Template};
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::{DEV_LAN, DEV_WAN, LAN, Net, Pkt, frame_from_peer, test_tunnel};

fn encap(d: &mut Rng) -> Encap {
    let key = d.pick(&[None, Some(0), Some(0xDEAD_BEEF)]);
    d.pick(&[testkit::vxlan(0x00AB_CDEF), Encap::Gre { key, checksum: false, sequence: false }, Encap::Ipip])
}

fn tunnel(d: &mut Rng) -> Tunnel {
    let base = test_tunnel(d.pick(&[1, 7, 255]), encap(d), d.pick(&[Family::V4, Family::V6]));
    let udp_checksum = matches!(base.template.encap, Encap::Vxlan { .. }) && d.once_in(2);
    Tunnel {
        udp_checksum,
        template: Template::new(base.local, base.remote, d.pick(&[1, 64, 255]), base.template.encap),
        df: d.pick(&[OuterDf::Set, OuterDf::Copy, OuterDf::Clear]),
        dscp: d.pick(&[OuterDscp::Copy, OuterDscp::Uniform, OuterDscp::Fixed(46)]),
        mtu: d.pick(&[None, Some(600)]),
        ..base
    }
}

/// A packet of a flow, and one of its answers.
fn flow(d: &mut Rng, v6: bool) -> (Pkt, Pkt) {
    let (near, far) = if v6 { ("2001:db8:1::10", "2001:db8:30::1") } else { ("192.168.1.10", "10.30.0.1") };
    let size = d.pick(&[0, 1, 20, 100, 700, 1380, 1470]);
    let (a, b) = match d.below(3) {
        0 => (Pkt::tcp(near, far, 1000, 80, TCP_ACK), Pkt::tcp(far, near, 80, 1000, TCP_ACK)),
        1 => (Pkt::udp(near, far, 1000, 53), Pkt::udp(far, near, 53, 1000)),
        _ => (Pkt::echo(near, far, 7, false), Pkt::echo(far, near, 7, true)),
    };
    let tos = d.below(256) as u8;
    let dress = |p: Pkt, df: bool| {
        let p = p.payload(size).tos(tos);
        if df { p.df() } else { p }
    };
    let df = d.once_in(2);
    (dress(a, df), dress(b, df))
}

/// Random identifications of packets that may be split are no difference.
pub fn without_id(frame: &[u8]) -> Vec<u8> {
    let mut f = frame.to_vec();
    if f.get(12..14) == Some(&ETHERTYPE_IPV4.to_be_bytes()) && f[20] & 0x40 == 0 {
        f[18..20].fill(0);
        f[24..26].fill(0);
    }
    f
}

/// LAN and the tunnel in a VRF of their own; the packets outside stay in the default one.
fn in_a_vrf(net: &mut Net) {
    let vrf = VrfNo::new(9).unwrap();
    net.ports[LAN.index()].vrf = vrf;
    net.tunnels.iter_mut().for_each(|t| t.vrf = vrf);
    let is_inside = |m: &Member| m.tunnel.is_some() || m.port == LAN;
    let inside = |r: &Route| matches!(r, Route::Via(m) if m.iter().all(is_inside));
    let routes: Vec<_> = net.routes.extract_if(.., |(_, r)| inside(r)).collect();
    net.vrf_routes.extend(routes.into_iter().map(|(to, r)| (vrf, to, r)));
}

#[derive(Debug, Default)]
struct Seen {
    forwarded: u64,
    sent_in: BTreeMap<String, u64>,
    left: BTreeMap<String, u64>,
    summed: u64,
    vrf: u64,
    punted: u64,
    dropped: u64,
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
    let t = tunnel(&mut d);
    net.tunnel(t.clone());
    if d.once_in(3) {
        in_a_vrf(&mut net);
    }
    if d.once_in(3) {
        use sag_pipeline::nat::Behavior::EndpointIndependent;
        net.snat("192.168.1.0/24", "192.0.2.77", EndpointIndependent, EndpointIndependent);
    }
    let mut rig = Rig::over(net, Arc::new(tables), 0, 1);
    lab.publish(&rig);
    lab.gw.tunnels().iter().for_each(sag_model::tunnel::TunnelRecord::clear);
    let entry = rig.snap.tunnel(Some(t.no)).expect("just configured").entry();
    lab.gw.tunnels()[t.no.index()].store(&entry);
    lab.gw.replace_tunnel_ends(&rig.snap.tunnels.xdp_ends()).unwrap();
    lab.gw.control().tunnels.store(1, Relaxed);
    for n in 0..60 {
        let v6 = d.once_in(2);
        let (there, back) = flow(&mut d, v6);
        let (dev, mut frame, way) = match d.once_in(2) {
            true => (DEV_LAN, there.into_port(LAN).build(), "in"),
            false => {
                let mut inner = back;
                // Towards what the flow was translated to, if it was.
                if !v6 && !rig.net.nat.pools.is_empty() {
                    inner.dst = "192.0.2.77".parse().unwrap();
                    inner.fix_l4();
                }
                (DEV_WAN, frame_from_peer(&t, &inner.ip(), d.below(256) as u8, d.once_in(2)), "out")
            }
        };
        // A wrong checksum inside makes a wrong one outside, which the pipeline would not make.
        if d.once_in(10) && !(t.udp_checksum && way == "in") {
            d.spoil(&mut frame);
        }
        // What a link puts behind a short packet.
        if d.once_in(4) {
            let padding = d.below(47);
            frame.extend((0..padding).map(|_| d.roll() as u8));
        }
        if frame.len() < ETH_LEN {
            continue;
        }
        let at = format!(
            "seed {seed}, packet {n}, {way}, {:?} {:?}: {:02x?}",
            t.template.encap,
            t.df,
            head(&frame)
        );
        let (start, numbered) = (records(&rig.pipe.tables), lab.ip_ids());
        let run = lab
            .gw
            .test_run(TestFrame { bytes: &frame, ifindex: lab.devs[usize::from(dev)], queue: 0 })
            .unwrap();
        let by_xdp = records(&rig.pipe.tables);
        restore(&rig.pipe.tables, &start);
        lab.restore_ip_ids(&numbered);
        assert!(lab.stats().iter().all(PortStats::balanced), "{at}");
        if run.action == XDP_REDIRECT && run.note.is_none() {
            let (no, counted) = moved(&start, &by_xdp, &at).unwrap_or_else(|| panic!("{at}: not counted"));
            let out = rig.frame(dev, &frame);
            let Outcome::Tx(_, bytes) = &out else { panic!("{at}: forwarded; the pipeline: {out:?}") };
            assert_eq!(without_id(&run.frame), without_id(bytes), "{at}");
            let after = records(&rig.pipe.tables);
            let (same, mine) = moved(&start, &after, &at).unwrap();
            assert_eq!((no, counted.packets, counted.bytes), (same, mine.packets, mine.bytes), "{at}");
            seen.forwarded += 1;
            seen.vrf += u64::from(!rig.net.vrf_routes.is_empty());
            seen.summed += u64::from(t.udp_checksum && way == "in");
            let kind =
                format!("{} over {:?} of {}", t.kind(), t.template.outer, if v6 { "v6" } else { "v4" });
            count(if way == "in" { &mut seen.sent_in } else { &mut seen.left }, kind);
            continue;
        }
        assert_eq!(run.frame, frame, "{at}: not forwarded, not changed");
        assert_eq!(moved(&start, &by_xdp, &at), None, "{at}: not forwarded, not counted");
        // A worker makes the flow, so that the next packet finds it.
        let out = rig.frame(dev, &frame);
        match run.action {
            XDP_REDIRECT => seen.punted += 1,
            XDP_PASS => assert!(matches!(out, Outcome::Kernel | Outcome::Drop(_)), "{at}: {out:?}"),
            _ => seen.dropped += 1,
        }
    }
    lab.gw.control().tunnels.store(0, Relaxed);
}

#[test]
fn xdp_tunnels_as_the_pipeline_does() {
    let Some(lab) = Lab::new() else { return };
    let env = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_micros() as u64);
    let first = env("SAG_SEED").unwrap_or_else(clock);
    println!("SAG_SEED={first}");
    let mut seen = Seen::default();
    for seed in first..first + 250 {
        story(&lab, seed, &mut seen);
    }
    println!("{seen:#?}");
    assert!(seen.forwarded > 2000, "too little was forwarded");
    assert!(seen.vrf > 500, "too few in a VRF");
    assert!(seen.summed > 50, "too few with a UDP checksum");
    assert_eq!((seen.sent_in.len(), seen.left.len()), (12, 12), "every kind over both, of both");
}
