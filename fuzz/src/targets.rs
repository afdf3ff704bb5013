//! What is fuzzed, and what must hold there.

use crate::{ha, messages, pcp};
use sag_model::config::{self, Secrets};
use sag_packet::Family;
use sag_packet::encap::Encap;
use sag_packet::parse::{self, NetworkLayer};
use sag_packet::rewrite::{self, FrameMut, LinkHeader};
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::{DEV_LAN, DEV_WAN, Net, Outcome, Pkt, Rig, Rng, WAN, frame_from_peer, test_tunnel, vxlan};
use sag_tunnel::esp::{Cipher, HEADROOM, Inbound, Inner, OpenError, Outbound, Suite, TAILROOM};
use sag_tunnel::fec::{MAX_PACKET, REPAIR_HEADER, Received, Receiver, Sender, Settings};
use std::time::Duration;

/// A fuzz target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One frame through the parser: what it finds must lie inside the frame.
    Parse,
    /// Batches of frames through a branch gateway; every frame must be accounted for.
    Pipeline,
    /// Flows through a gateway with NAT, then ICMP errors that quote them and fragments of them.
    Quotes,
    /// The same as `Pipeline` with a tunnel, through which some of the frames come.
    Tunnel,
    /// A configuration text: what is accepted must read back the same when written out.
    Config,
    /// ESP packets, authentic and not: what is opened must be an IP packet that was sealed.
    Esp,
    /// FEC source and repair packets of overlapping blocks: what is recovered is an IP packet, and every
    /// stored repair is given back.
    Fec,
    /// A line of the control socket: what is accepted reads back the same when written out.
    Control,
    /// A signed request of the cloud API, checked up to the point where the database is asked.
    Request,
    /// A device document of the cloud: refused by name, or the gateway takes what the agent makes of it.
    Document,
    /// A state report of a device: refused by name, or kept without a change.
    Report,
    /// A policy of a user of the cloud and a call: what is allowed, and what lists may leave out, agree.
    Policy,
    /// The record of sequence numbers of static keys: refused, or no number is given out twice.
    Ledger,
    /// Requests for ports by PCP and NAT-PMP: every port that is held belongs to a mapping, and all are given back.
    Pcp,
    /// Messages of the gateway to which sessions follow: refused, or sessions whose ports are given back.
    Ha,
}

impl Target {
    /// All targets.
    pub const ALL: [Target; 15] = [
        Target::Parse,
        Target::Pipeline,
        Target::Quotes,
        Target::Tunnel,
        Target::Config,
        Target::Esp,
        Target::Fec,
        Target::Control,
        Target::Request,
        Target::Document,
        Target::Report,
        Target::Policy,
        Target::Ledger,
        Target::Pcp,
        Target::Ha,
    ];

    /// The name of the target and of its corpus.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Parse => "parse",
            Target::Pipeline => "pipeline",
            Target::Quotes => "quotes",
            Target::Tunnel => "tunnel",
            Target::Config => "config",
            Target::Esp => "esp",
            Target::Fec => "fec",
            Target::Control => "control",
            Target::Request => "request",
            Target::Document => "document",
            Target::Report => "report",
            Target::Policy => "policy",
            Target::Ledger => "ledger",
            Target::Pcp => "pcp",
            Target::Ha => "ha",
        }
    }

    /// A random input of the form that the target expects.
    pub(crate) fn fresh(self, d: &mut Rng) -> Vec<u8> {
        match self {
            Target::Parse => d.frame().1,
            Target::Pipeline => {
                let nat = d.once_in(2);
                if nat {
                    d.about_nat();
                }
                let mut out = Vec::new();
                for _ in 0..1 + d.below(12) {
                    let (dev, frame) = d.frame();
                    out.push(dev | (d.below(4) as u8) << 6);
                    out.extend((frame.len() as u16).to_be_bytes());
                    out.extend(frame);
                }
                out[0] |= u8::from(nat) * NAT;
                out
            }
            Target::Tunnel => {
                let which = d.below(8) as u8;
                let t = tunnel(which);
                let mut out = vec![which];
                for _ in 0..1 + d.below(8) {
                    let (dev, frame) = match d.once_in(3) {
                        true => d.frame(),
                        false => {
                            let (far, near) = d
                                .pick(&[("10.30.0.1", "192.168.1.10"), ("2001:db8:30::1", "2001:db8:1::10")]);
                            let p = Pkt::udp(far, near, 53, 1000 + d.below(4) as u16).payload(d.below(1600));
                            (DEV_WAN, frame_from_peer(&t, &p.ip(), d.below(256) as u8, d.once_in(2)))
                        }
                    };
                    out.push(dev | (d.below(4) as u8) << 6);
                    out.extend((frame.len() as u16).to_be_bytes());
                    out.extend(frame);
                }
                out
            }
            Target::Config => b"[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"lan\"\n".to_vec(),
            Target::Esp => {
                (0..64 + d.below(200)).map(|i| if i == 1 { 0x45 } else { d.below(256) as u8 }).collect()
            }
            Target::Fec => fresh_fec(d),
            Target::Quotes => fresh_quotes(d),
            Target::Control => br#"{"v":1,"id":1,"op":"sessions","limit":10}"#.to_vec(),
            Target::Request => b"GET /?Action=DescribeRegions&AccessKeyId=testid\n\n".to_vec(),
            Target::Policy => br#"DeleteACL
acs:smartag:cn-shanghai:7:acl/acl-1
{"Statement":[{"Effect":"Allow","Action":"smartag:*","Resource":"*"}]}"#
                .to_vec(),
            Target::Ledger => {
                br#"{"generation":1,"stamp":2,"mirrored":true,"iv_offset":3,"iv_next":4,"epoch":5,"sending":{},"receiving":{}}"#
                    .to_vec()
            }
            // NAT-PMP: TCP port 80 for an hour.
            Target::Pcp => vec![3, 0, 2, 0, 0, 0, 80, 0x1F, 0x90, 0, 0, 0x0E, 0x10],
            Target::Ha => ha::fresh(d),
            Target::Document | Target::Report => br#"{"ProtocolVersion":"1.1"}"#.to_vec(),
        }
    }

    /// Runs the target on an input.
    ///
    /// # Panics
    /// If something does not hold that must.
    pub fn run(self, data: &[u8]) {
        match self {
            Target::Parse => parse_frame(data),
            Target::Pipeline => run_batches(data),
            Target::Tunnel => run_tunnel(data),
            Target::Config => read_config(data),
            Target::Esp => open_esp(data),
            Target::Fec => receive_fec(data),
            Target::Quotes => run(Rig::sized(Net::translating(), 16), data),
            Target::Control => messages::control_request(data),
            Target::Request => messages::signed_request(data),
            Target::Document => messages::device_document(data),
            Target::Report => messages::state_report(data),
            Target::Policy => messages::access_policy(data),
            Target::Ledger => messages::ledger(data),
            Target::Pcp => pcp::ask(data),
            Target::Ha => ha::hear(data),
        }
    }
}

fn parse_frame(data: &[u8]) {
    let Ok((vlan, ethertype, l3)) = parse::link(data) else { return };
    assert!(vlan < 4096 && l3 <= data.len());
    let Ok(NetworkLayer::Ip(p)) = parse::parse(data, ethertype, l3) else { return };
    assert_eq!(usize::from(p.l3), l3);
    assert!(p.l3 <= p.l4_at && usize::from(p.l4_at) <= l3 + usize::from(p.ip_len));
    assert!(l3 + usize::from(p.ip_len) <= data.len());
    assert_eq!(p.ip(data).len(), usize::from(p.ip_len));
    // It parses the same after the changes that forwarding makes.
    let mut buf = [&[0; 32][..], data].concat();
    let mut f = FrameMut::new(&mut buf, 32, data.len());
    if p.ttl > 1 {
        rewrite::decrement_ttl(f.bytes_mut(), &p);
    }
    let link = LinkHeader { dst: Default::default(), src: Default::default(), vlan: 7, ethertype };
    assert_eq!(f.set_link(l3, usize::from(p.ip_len), &link), Ok(()));
    let again = parse::link(f.bytes()).and_then(|(_, e, l3)| parse::parse(f.bytes(), e, l3));
    let Ok(NetworkLayer::Ip(q)) = again else { panic!("{again:?} after forwarding {p:?}") };
    assert_eq!((q.sport, q.dport, q.proto, q.l4, q.fragment), (p.sport, p.dport, p.proto, p.l4, p.fragment));
    assert_eq!(q.ttl, if p.ttl > 1 { p.ttl - 1 } else { p.ttl });
}

/// Set in the first byte of an input where the gateway has NAT.
const NAT: u8 = 1 << 5;

/// Repeated: a byte (device; how much time passes before a new batch begins), a length, a frame.
fn run_batches(data: &[u8]) {
    let nat = data.first().is_some_and(|b| b & NAT != 0);
    run(Rig::sized(if nat { Net::translating() } else { Net::branch() }, 16), data);
}

/// A tunnel of each kind over each IP version, by the lowest three bits.
fn tunnel(which: u8) -> Tunnel {
    let encap = match which >> 1 & 3 {
        0 => vxlan(100),
        1 => Encap::Gre { key: None, checksum: false, sequence: false },
        2 => Encap::Gre { key: Some(7), checksum: true, sequence: true },
        _ => Encap::Ipip,
    };
    test_tunnel(1, encap, if which & 1 == 0 { Family::V4 } else { Family::V6 })
}

/// A byte that chooses the tunnel, then as [`run_batches`].
fn run_tunnel(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let mut net = Net::branch();
    net.tunnel(tunnel(*which));
    run(Rig::sized(net, 16), rest);
}

fn run(mut rig: Rig, data: &[u8]) {
    let mut rest = data;
    let mut batch: Vec<&[u8]> = Vec::new();
    while let Some((&[kind, hi, lo], tail)) = rest.split_first_chunk::<3>() {
        let (frame, tail) = tail.split_at(usize::from(u16::from_be_bytes([hi, lo])).min(tail.len()));
        rest = tail;
        batch.push(frame);
        if kind >> 6 != 0 || batch.len() == 64 || rest.is_empty() {
            rig.batch(kind & 7, &batch);
            batch.clear();
            let pause = [0, 1, 4_000, 400_000][usize::from(kind >> 6)];
            rig.now = rig.now + Duration::from_millis(pause);
            rig.poll();
        }
    }
}

/// Packets of hosts inside; for each that leaves, an ICMP error that quotes what left, or the packet in fragments.
fn fresh_quotes(d: &mut Rng) -> Vec<u8> {
    let mut rig = Rig::sized(Net::translating(), 16);
    let mut out = Vec::new();
    let mut add = |dev: u8, frame: &[u8]| {
        out.push(dev);
        out.extend((frame.len() as u16).to_be_bytes());
        out.extend(frame);
    };
    for n in 0..1 + d.below(5) as u16 {
        let v6 = d.once_in(3);
        let (near, far) =
            if v6 { ("2001:db8:1::10", "2001:db8:9::9") } else { ("192.168.1.10", "198.51.100.9") };
        let p = match d.below(3) {
            0 => Pkt::tcp(near, far, 1000 + n, 443, 2),
            1 => Pkt::echo(near, far, n, false),
            _ => Pkt::udp(near, far, 1000 + n, 53).payload(d.below(1400)),
        };
        let frame = p.build();
        add(DEV_LAN, &frame);
        let Outcome::Tx(_, sent) = rig.frame(DEV_LAN, &frame) else { continue };
        let from = if v6 { "2001:db8:7::7" } else { "198.51.100.7" };
        let to = if v6 { near } else { "203.0.113.2" };
        let quoted = parse::link(&sent).map_or(&[][..], |(_, _, l3)| &sent[l3..]);
        let quoted = &quoted[..quoted.len().min(8 + d.below(120))];
        let (kind, code) = match v6 {
            true => d.pick(&[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)]),
            false => d.pick(&[(3, 1), (3, 3), (3, 4), (5, 1), (11, 0), (12, 0)]),
        };
        let error =
            Pkt::icmp(from, to, kind, code, d.pick(&[0, 68, 576, 1280, 65535]), quoted).into_port(WAN);
        match d.once_in(3) {
            true => {
                let at = 8 * (1 + d.below(2));
                add(DEV_WAN, &error.fragment(at, 64).build());
                add(DEV_WAN, &error.fragment(0, at).build());
            }
            false => add(DEV_WAN, &error.build()),
        }
    }
    out
}

/// The first byte chooses: the rest is sealed to an authentic packet, or is received as it is.
fn open_esp(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    let extended = how & 1 != 0;
    let suite = || match Suite::new(Cipher::Aes128Gcm, &[9; 20]) {
        Ok(s) => s,
        Err(e) => panic!("{e}"),
    };
    let rx = Inbound::new(0x1234, suite(), extended, 64, u64::from(how) << 28);
    let mut packet = rest.to_vec();
    if how & 2 == 0 {
        assert!(rx.open(&mut packet).is_err(), "nobody has sealed it");
        assert!(!rx.used());
        return;
    }
    let mut buf = vec![0; HEADROOM];
    buf.extend_from_slice(rest);
    buf.resize(buf.len() + TAILROOM, 0);
    let tx = Outbound::new(0x1234, suite(), extended, (u64::from(how) << 28) + 1, 5);
    let inner = if how & 4 != 0 { Inner::V6 } else { Inner::V4 };
    let Ok(sealed) = tx.seal(&mut buf, HEADROOM..HEADROOM + rest.len(), inner) else { return };
    let packet = &mut buf[sealed.at];
    let again = packet.to_vec();
    if let Ok(o) = rx.open(packet) {
        assert_eq!(&packet[o.at.clone()], &rest[..o.at.len()]);
        assert_eq!(rest[0] >> 4, if o.inner == Inner::V6 { 6 } else { 4 });
    }
    assert_eq!(rx.open(&mut again.clone()), Err(OpenError::Replay));
}

/// Repeated: length, bytes of a packet; of what a sender sends, some is left out.
fn fresh_fec(d: &mut Rng) -> Vec<u8> {
    let window = 2 + d.below(6) as u8;
    let settings =
        Settings { sources: window, repairs: 1 + d.below(usize::from(window).min(3)) as u8, delay: 1 };
    let Some(mut tx) = Sender::new(settings, d.below(2) as u8, 0) else { return Vec::new() };
    let (mut out, mut buf) = (Vec::new(), [0; MAX_PACKET + REPAIR_HEADER]);
    for n in 0..d.below(30) {
        let packet = Pkt::udp("10.30.0.1", "192.168.1.10", 53, n as u16).payload(d.below(60)).ip();
        let source = tx.source(&packet, 0, n as u64).map(|h| [&h[..], &packet].concat());
        let mut texts: Vec<_> = source.into_iter().collect();
        if d.once_in(9) {
            tx.poll(n as u64 + 2);
        }
        while let Some(r) = tx.repair(&mut buf) {
            texts.push(buf[..r.len].to_vec());
        }
        for text in texts.into_iter().filter(|t| t.len() < 256 && !d.once_in(5)) {
            out.push(text.len() as u8);
            out.extend(text);
        }
    }
    out
}

fn receive_fec(data: &[u8]) {
    let (mut rx, mut stored, mut now, mut rest) = (Receiver::default(), 0i64, 0, data);
    let mut buf = [0; MAX_PACKET];
    while let Some((&len, tail)) = rest.split_first() {
        let (text, tail) = tail.split_at(usize::from(len).min(tail.len()));
        rest = tail;
        // An empty packet lets time pass.
        now += if len == 0 { 1_000_000_000 } else { 1 };
        rx.poll(now, |_| stored -= 1);
        let mut unneeded = 0;
        match rx.receive(text, 1, now, |_| unneeded += 1) {
            Ok(Received::Source { at, .. }) => assert!(matches!(text[at] >> 4, 4 | 6)),
            Ok(Received::RepairStored) => stored += 1,
            Ok(Received::RepairUnneeded) | Err(_) => {}
        }
        stored -= unneeded;
        while let Some((len, tag)) = rx.recovered(&mut buf) {
            assert!(len >= 20 && matches!(buf[0] >> 4, 4 | 6) && tag == 1);
            stored -= 1;
        }
        assert!(stored >= 0);
    }
    rx.clear(|_| stored -= 1);
    assert_eq!(stored, 0, "repairs that are never given back");
}

fn read_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, "fuzz.toml") {
        Err(e) => assert!(!e.to_string().is_empty()),
        Ok(checked) => {
            let written = checked.config.to_toml(Secrets::Shown).unwrap_or_else(|e| panic!("{e} in {text}"));
            match config::parse(&written, "written.toml") {
                Ok(again) => assert_eq!(again.config, checked.config, "{text}\nbecame\n{written}"),
                Err(e) => panic!("{e}\nin\n{written}\nwritten from\n{text}"),
            }
        }
    }
}
