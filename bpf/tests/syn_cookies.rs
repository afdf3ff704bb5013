//! SYN cookies: XDP makes and checks those of the pipeline, and answers with right frames.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::{PortEntry, PuntReason, SynCounts};
use sag_model::{DropReason, VlanId, Zone};
use sag_packet::segment::{Offer, Segment};
use sag_pipeline::syn_cookie::{Client, SynCookies, WINDOW_SCALE};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const VLAN: u16 = 100;
const ENDS: [(&str, &str); 2] = [("198.51.100.7", "192.0.2.1"), ("2001:db8:99::7", "2001:db8:1::10")];

struct Scene {
    f: Fixture,
    cookies: SynCookies,
}

fn wan() -> PortEntry {
    PortEntry { side: Zone::Wan.into(), vlans: true, ..port_entry() }
}

impl Scene {
    fn new() -> Option<Scene> {
        let f = Fixture::new()?;
        f.gw.set_port(LO, &wan()).unwrap();
        f.gw.set_vlan(LO, VlanId::new(VLAN).unwrap(), &wan()).unwrap();
        let control = f.gw.syn_cookies();
        let words = control.secret.as_flattened().iter().zip(1u64..);
        words.for_each(|(w, n)| w.store(n.wrapping_mul(0x9E37_79B9_7F4A_7C15), Relaxed));
        control.mss4.store(1460, Relaxed);
        control.mss6.store(1440, Relaxed);
        let services: Vec<_> = ENDS.iter().map(|(_, to)| (to.parse().unwrap(), 443, 5)).collect();
        f.gw.replace_syn_services(&services).unwrap();
        control.services.store(2, Relaxed);
        control.active.store(1 << 5, Relaxed);
        Some(Scene { cookies: SynCookies::new(control, services), f })
    }

    fn counts(&self) -> SynCounts {
        self.f.gw.syn_counts(5).unwrap()
    }
}

fn client(ends: (&str, &str), isn: u32) -> Client {
    Client { from: (ends.0.parse().unwrap(), 4242), to: (ends.1.parse().unwrap(), 443), isn }
}

fn segment(c: &Client, seq: u32, ack: u32, flags: u8) -> Segment<'static> {
    Segment { from: c.from, to: c.to, seq, ack, flags, window: 0xFFFF, options: &[], ttl: 60 }
}

fn ethertype(a: IpAddr) -> u16 {
    if a.is_ipv4() { 0x0800 } else { 0x86DD }
}

fn frame(s: &Segment<'_>, vlan: Option<u16>) -> Vec<u8> {
    let mut packet = [0; 200];
    let len = s.write(&mut packet).unwrap();
    cat(&[&eth(vlan, ethertype(s.to.0)), &packet[..len]])
}

/// The frame that answers a client's SYN.
fn answer(c: &Client, cookie: u32, offer: &Offer, vlan: Option<u16>) -> Vec<u8> {
    let mss = if c.to.0.is_ipv4() { 1460 } else { 1440 };
    let options =
        Offer { mss, window_scale: offer.window_scale.map(|_| WINDOW_SCALE), sack: offer.sack }.options();
    let s = Segment {
        from: c.to,
        to: c.from,
        seq: cookie,
        ack: c.isn.wrapping_add(1),
        flags: SYN | ACK,
        window: 0,
        options: &options,
        ttl: 64,
    };
    let mut packet = [0; 200];
    let len = s.write(&mut packet).unwrap();
    cat(&[&eth_to(HOST_MAC, GW_MAC, vlan, ethertype(c.to.0)), &packet[..len]])
}

#[test]
fn syns_are_answered_with_the_cookies_of_the_pipeline() {
    let Some(s) = Scene::new() else { return };
    let offers = [
        Offer { mss: 1460, window_scale: Some(7), sack: true },
        Offer { mss: 9000, window_scale: Some(14), sack: false },
        Offer { mss: 536, window_scale: None, sack: true },
        Offer { mss: 1, window_scale: Some(0), sack: false },
    ];
    let mut sent = 0;
    for slot in [0, 1] {
        s.f.gw.syn_cookies().slot.store(slot, Relaxed);
        for (n, offer) in offers.iter().enumerate() {
            for ends in ENDS {
                for vlan in [None, Some(VLAN)] {
                    let c = client(ends, (u32::MAX - 1).wrapping_add(n as u32));
                    let cookie = s.cookies.make(&c, offer).unwrap();
                    let options = offer.options();
                    let syn = Segment { options: &options, ..segment(&c, c.isn, 0, SYN) };
                    let before = s.f.gw.stats(LAN).unwrap();
                    let run = s.f.run(&frame(&syn, vlan));
                    assert_eq!(
                        (run.action, run.frame),
                        (XDP_REDIRECT, answer(&c, cookie, offer, vlan)),
                        "{c:?} {offer:?}"
                    );
                    sent += 1;
                    let after = s.f.gw.stats(LAN).unwrap();
                    assert_eq!(after.originated, before.originated + 1);
                    assert_eq!(after.tx_packets, before.tx_packets + 1);
                    let dropped = |s: &sag_bpf::PortStats| s.drops(DropReason::SynCookie);
                    assert_eq!(dropped(&after), dropped(&before) + 1);
                    let back = segment(&c, c.isn.wrapping_add(1), cookie.wrapping_add(1), ACK);
                    assert_eq!(outcome(&s.f, &frame(&back, vlan)), Outcome::Worker(PuntReason::Cookie));
                    let probe = Segment { seq: c.isn, ..back };
                    assert_eq!(outcome(&s.f, &frame(&probe, vlan)), Outcome::Worker(PuntReason::Cookie));
                    let wrong = Segment { ack: back.ack ^ 0x100, ..back };
                    let refused = Outcome::Dropped(DropReason::SynCookieInvalid);
                    assert_eq!(outcome(&s.f, &frame(&wrong, vlan)), refused);
                }
            }
        }
    }
    assert_eq!(s.counts(), SynCounts { syns: sent, sent, accepted: 2 * sent, refused: sent });
}

#[test]
fn a_syn_of_any_shape_gets_an_answer_of_one_shape() {
    let Some(s) = Scene::new() else { return };
    let c = client(ENDS[0], 7);
    let none = Offer::default();
    let cookie = s.cookies.make(&c, &none).unwrap();
    // Without options, with those that end early, with padding of the link, with data.
    for options in
        [&[][..], &[0, 0, 0, 0], &[1, 1, 1, 1], &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1], &[2, 0, 5, 180]]
    {
        for extra in [0, 6, 600] {
            let mut syn = frame(&Segment { options, ..segment(&c, 7, 0, SYN) }, None);
            syn.extend(vec![0; extra]);
            let run = s.f.run(&syn);
            assert_eq!(
                (run.action, run.frame),
                (XDP_REDIRECT, answer(&c, cookie, &none, None)),
                "{options:?} {extra}"
            );
        }
    }
}

#[test]
fn what_is_no_matter_of_cookies_goes_its_way() {
    let Some(s) = Scene::new() else { return };
    let miss = Outcome::Worker(PuntReason::Miss);
    for ends in ENDS {
        let c = client(ends, 7);
        let other = Client { to: (c.to.0, 444), ..c };
        for flags in [SYN, ACK, SYN | ACK, 0x04, 0x14, SYN | 0x01, 0] {
            assert_eq!(outcome(&s.f, &frame(&segment(&other, 7, 9, flags), None)), miss, "{flags:#x}");
        }
        for flags in [SYN | ACK, 0x04, 0x14, SYN | 0x01, 0] {
            assert_eq!(outcome(&s.f, &frame(&segment(&c, 7, 9, flags), None)), miss, "{flags:#x}");
        }
    }
    let spoofed = ["127.0.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255", "fe80::1", "ff02::1", "::1"];
    for from in spoofed.map(|a| a.parse::<IpAddr>().unwrap()) {
        let ends = ENDS[usize::from(from.is_ipv6())];
        let c = Client { from: (from, 1), ..client(ends, 7) };
        assert_eq!(outcome(&s.f, &frame(&segment(&c, 7, 0, SYN), None)), miss, "{from}");
    }
    let (c, before) = (client(ENDS[0], 7), s.counts());
    s.f.gw.syn_cookies().active.store(!(1 << 5), Relaxed);
    assert_eq!(outcome(&s.f, &frame(&segment(&c, 7, 0, SYN), None)), miss, "counted alone");
    assert_eq!(outcome(&s.f, &frame(&segment(&c, 7, 9, ACK), None)), miss);
    assert_eq!(s.counts(), SynCounts { syns: before.syns + 1, ..before });
    s.f.gw.syn_cookies().active.store(1 << 5, Relaxed);
    // From the LAN, and without the fast path, which looks for sessions.
    s.f.gw.set_port(LO, &PortEntry { side: Zone::Lan.into(), ..wan() }).unwrap();
    assert_eq!(outcome(&s.f, &frame(&segment(&c, 7, 0, SYN), None)), miss);
    s.f.gw.set_port(LO, &wan()).unwrap();
    s.f.gw.control().fast_path.store(0, Relaxed);
    assert_eq!(outcome(&s.f, &frame(&segment(&c, 7, 0, SYN), None)), miss);
    s.f.gw.control().fast_path.store(1, Relaxed);
    s.f.gw.syn_cookies().services.store(0, Relaxed);
    assert_eq!(outcome(&s.f, &frame(&segment(&c, 7, 0, SYN), None)), miss);
}
