//! Out of tunnels: the XDP fast path, which compares the outer headers with those of the tunnel that the record of the
//! packet inside names; the XDP tunnel path, which packets with a priority tag take; and the pipeline. What one of them
//! does all do, whatever is wrong with a packet.

use super::tunneled::without_id;
use super::*;
use sag_model::config::OuterDscp;
use sag_packet::encap::Encap;
use sag_packet::{Family, checksum};
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::{DEV_LAN, DEV_WAN, LAN, Net, Pkt, frame_from_peer, test_tunnel, vxlan};

const ENCAPS: [Encap; 4] = [
    Encap::Vxlan {
        vni: 0x00AB_CDEF,
        port: 4790,
        mac: testkit::TUNNEL_MACS[0],
        remote_mac: testkit::TUNNEL_MACS[1],
    },
    Encap::Gre { key: None, checksum: false, sequence: false },
    Encap::Gre { key: Some(0xDEAD_BEEF), checksum: false, sequence: false },
    Encap::Ipip,
];

/// A gateway with one tunnel, a flow through it in each family, and all that XDP knows.
struct Branch<'l> {
    lab: &'l Lab,
    rig: Rig,
    tunnel: Tunnel,
}

/// What a packet did, and what it moved.
#[derive(Debug, PartialEq)]
struct Seen {
    run: TestRun,
    record: Option<(usize, u64, u64)>,
    ports: [Books; 4],
    /// Packets and bytes out of the tunnel.
    tunnel: (u64, u64),
}

impl Seen {
    fn forwarded(&self) -> bool {
        self.run.action == XDP_REDIRECT && self.run.note.is_none()
    }
}

fn inner(v6: bool, back: bool) -> Pkt {
    let (near, far) = if v6 { ("2001:db8:1::10", "2001:db8:30::1") } else { ("192.168.1.10", "10.30.0.1") };
    match back {
        true => Pkt::udp(far, near, 53, 1000).payload(20),
        false => Pkt::udp(near, far, 1000, 53).payload(20),
    }
}

impl<'l> Branch<'l> {
    fn new(lab: &'l Lab, tunnel: Tunnel) -> Branch<'l> {
        for r in &lab.gw.nexthops()[..512] {
            for w in [&r.dev, &r.dmac_vlan, &r.smac_mtu] {
                w.store(0, Relaxed);
            }
        }
        let tables = lab.tables(7);
        let mut net = Net::branch().over(lab.gw.nexthops());
        net.tunnel(tunnel.clone());
        let mut rig = Rig::over(net, Arc::new(tables), 0, 1);
        lab.publish(&rig);
        lab.gw.tunnels().iter().for_each(sag_model::tunnel::TunnelRecord::clear);
        let entry = rig.snap.tunnel(Some(tunnel.no)).expect("just configured").entry();
        lab.gw.tunnels()[tunnel.no.index()].store(&entry);
        lab.gw.replace_tunnel_ends(&rig.snap.tunnels.xdp_ends()).unwrap();
        lab.gw.control().tunnels.store(1, Relaxed);
        for v6 in [false, true] {
            let there = inner(v6, false).into_port(LAN).build();
            assert!(matches!(rig.frame(DEV_LAN, &there), Outcome::Tx(..)));
            let back = frame_from_peer(&tunnel, &inner(v6, true).ip(), 0, true);
            assert!(matches!(rig.frame(DEV_WAN, &back), Outcome::Tx(..)));
        }
        Branch { lab, rig, tunnel }
    }

    /// Runs XDP on a frame from the WAN and takes back what it counted in the records.
    fn xdp(&self, frame: &[u8], at: &str) -> Seen {
        let (start, stats) = (records(&self.rig.pipe.tables), self.lab.stats());
        let of_tunnel = || self.lab.gw.tunnel_stats(self.tunnel.no.get()).unwrap();
        let before = of_tunnel();
        let ifindex = self.lab.devs[usize::from(DEV_WAN)];
        let run = self.lab.gw.test_run(TestFrame { bytes: frame, ifindex, queue: 0 }).unwrap();
        let after = records(&self.rig.pipe.tables);
        restore(&self.rig.pipe.tables, &start);
        let now = of_tunnel();
        Seen {
            run,
            record: moved(&start, &after, at).map(|(no, w)| (no, w.packets, w.bytes)),
            ports: since(xdp_books(&self.lab.stats()), xdp_books(&stats)),
            tunnel: (now.rx_packets - before.rx_packets, now.rx_bytes - before.rx_bytes),
        }
    }

    /// The frame by both paths of XDP and, if they forward it, by the pipeline. True: it was forwarded.
    fn check(&mut self, frame: &[u8], at: &str) -> bool {
        let seen = self.xdp(frame, at);
        let tagged = [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat();
        assert_eq!(seen, self.xdp(&tagged, at), "{at}: the tunnel path does the same: {:02x?}", head(frame));
        if !seen.forwarded() {
            assert_eq!(seen.run.frame, frame, "{at}: not forwarded, not changed");
            assert_eq!((seen.record, seen.tunnel), (None, (0, 0)), "{at}: not forwarded, not counted");
            return false;
        }
        let out = self.rig.frame(DEV_WAN, frame);
        let Outcome::Tx(_, bytes) = &out else { panic!("{at}: forwarded; the pipeline: {out:?}") };
        assert_eq!(without_id(&seen.run.frame), without_id(bytes), "{at}");
        assert_eq!(seen.tunnel.0, 1, "{at}: counted once");
        true
    }

    fn back(&self, v6: bool, tos: u8) -> Vec<u8> {
        frame_from_peer(&self.tunnel, &inner(v6, true).ip(), tos, true)
    }
}

/// Makes the checksum of the IPv4 header without options at `at` right, if there is one.
fn fix_header(frame: &mut [u8], at: usize) {
    if let Some(h) = frame.get_mut(at..at + 20)
        && h[0] == 0x45
    {
        h[10..12].fill(0);
        let sum = !checksum::fold(checksum::sum(h));
        h[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// Where the packet inside begins.
fn l3_inside(t: &Tunnel) -> usize {
    14 + usize::from(t.template.len)
}

/// Calls with every kind over both families, with a name.
fn every_kind(lab: &Lab, mut each: impl FnMut(Branch<'_>, &str)) {
    for encap in ENCAPS {
        for outer in [Family::V4, Family::V6] {
            each(Branch::new(lab, test_tunnel(7, encap, outer)), &format!("{encap:?} over {outer:?}"));
        }
    }
    lab.gw.control().tunnels.store(0, Relaxed);
}

#[test]
fn no_flipped_bit_is_overlooked() {
    let Some(lab) = Lab::new() else { return };
    let (mut forwarded, mut left) = (0, 0);
    every_kind(&lab, |mut b, kind| {
        for v6 in [false, true] {
            let good = b.back(v6, 0);
            assert!(b.check(&good, kind), "{kind}");
            let inside = l3_inside(&b.tunnel);
            // Up to the end of the transport header inside.
            for bit in 0..(inside + if v6 { 48 } else { 28 }) * 8 {
                let mut frame = good.clone();
                frame[bit / 8] ^= 1 << (bit % 8);
                for fixed in [false, true] {
                    if fixed {
                        fix_header(&mut frame, 14);
                        fix_header(&mut frame, inside);
                    }
                    // A tag in front of a frame that has one: two are the kernel's.
                    if matches!(frame[12..14], [0x81, 0] | [0x88, 0xA8]) {
                        continue;
                    }
                    let at = format!("{kind}, {v6}, byte {} bit {} {fixed}", bit / 8, bit % 8);
                    match b.check(&frame, &at) {
                        true => forwarded += 1,
                        false => left += 1,
                    }
                }
            }
        }
    });
    println!("{forwarded} forwarded, {left} left");
    assert!(forwarded > 500 && left > 5000, "{forwarded} forwarded, {left} left");
}

#[test]
fn congestion_marks_come_out_by_the_table() {
    let Some(lab) = Lab::new() else { return };
    let mut left = 0;
    for encap in ENCAPS {
        for dscp in [OuterDscp::Copy, OuterDscp::Uniform] {
            let tunnel = Tunnel { dscp, ..test_tunnel(7, encap, Family::V4) };
            let mut b = Branch::new(&lab, tunnel);
            for (outside, inside) in (0..16u8).map(|n| (n >> 2, n & 3)) {
                for v6 in [false, true] {
                    let packet = inner(v6, true).tos(0x48 | inside).ip();
                    let frame = frame_from_peer(&b.tunnel, &packet, 0xB8 | outside, true);
                    let at = format!("{encap:?} {dscp:?} {outside} {inside} {v6}");
                    // RFC 6040 4.2: congestion on a packet that knows no marks.
                    let refused = (outside, inside) == (3, 0);
                    assert_eq!(b.check(&frame, &at), !refused, "{at}");
                    left += u64::from(refused);
                }
            }
        }
    }
    lab.gw.control().tunnels.store(0, Relaxed);
    assert_eq!(left, 16);
}

#[test]
fn lengths_and_bytes_behind_the_packet() {
    let Some(lab) = Lab::new() else { return };
    let mut cut = 0;
    every_kind(&lab, |mut b, kind| {
        for v6 in [false, true] {
            let good = b.back(v6, 0);
            for more in [1, 2, 7, 46] {
                // Of the link, behind the outer packet; and of a link inside, within it.
                let mut frame = good.clone();
                frame.extend(std::iter::repeat_n(0xEE, more));
                assert!(b.check(&frame, kind), "{kind} {v6} {more}");
                let mut packet = inner(v6, true).ip();
                packet.extend(std::iter::repeat_n(0xEE, more));
                assert!(b.check(&frame_from_peer(&b.tunnel, &packet, 0, true), kind), "{kind} {v6} {more}");
                cut += 2;
            }
            // Cut off anywhere, the outer packet says less or the same as before.
            for len in 14..good.len() {
                b.check(&good[..len], kind);
                let mut frame = good[..len].to_vec();
                if b.tunnel.template.outer == Family::V4 && len >= 34 {
                    frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
                    fix_header(&mut frame, 14);
                    assert!(!b.check(&frame, kind), "{kind} {v6} {len}");
                }
            }
        }
    });
    assert_eq!(cut, 8 * 2 * 4 * 2);
}

/// What the fast path forwards needs no table of ends: the record names the tunnel. Over IPv6 it does not apply.
#[test]
fn the_record_names_the_tunnel() {
    let Some(lab) = Lab::new() else { return };
    every_kind(&lab, |b, kind| {
        lab.gw.replace_tunnel_ends(&[]).unwrap();
        for v6 in [false, true] {
            let fast = b.xdp(&b.back(v6, 0), kind).forwarded();
            assert_eq!(fast, b.tunnel.template.outer == Family::V4, "{kind} {v6}");
        }
        // As little as it is with another tunnel under the number.
        let no = b.tunnel.no.index();
        let other = test_tunnel(7, vxlan(5), Family::V4);
        lab.gw.tunnels()[no].store(&other.entry());
        assert!(!b.xdp(&b.back(false, 0), kind).forwarded(), "{kind}");
        // By a port that the peer's packets do not come in by, or while there is no such tunnel.
        let entry = b.rig.snap.tunnel(Some(b.tunnel.no)).expect("configured").entry();
        lab.gw.tunnels()[no].store(&sag_model::tunnel::TunnelEntry { ingress: 0, ..entry });
        assert!(!b.xdp(&b.back(false, 0), kind).forwarded(), "{kind}");
        lab.gw.tunnels()[no].store(&entry);
        lab.gw.tunnels()[no].clear();
        assert!(!b.xdp(&b.back(false, 0), kind).forwarded(), "{kind}");
    });
}
