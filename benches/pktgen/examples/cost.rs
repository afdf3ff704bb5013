//! Nanoseconds that the XDP program alone takes for a packet of an established flow, without devices; and, with
//! another version of its object, by how much that one is slower or faster:
//!
//! ```text
//! cost [--flows N [--sessions N] [--shuffled]] [--rounds N] [--loads N] [--against OLD.o [--object NEW.o]]
//! ```
//!
//! Where the kernel places the code is random and makes some percent, so files are loaded `--loads` times. Every round
//! measures each kind of packet with both versions, one right after the other, in every order. They work on the same
//! maps. What making the frames takes is measured in the same rounds and taken off. `--flows` is for the first line,
//! whose packets are of so many flows; the others repeat one packet. Its packets come in steps of 7,919 flows, and sessions
//! are made in the order of the flows, so the records that are read lie in steps, too, which makes them cheaper than where
//! the two orders have nothing to do with each other (`--shuffled`). `--sessions`: other sessions are idle. An object of another version: `git worktree add
//! /tmp/old COMMIT`, and `gw.bpf.o` from the build directory of `cargo build -p sag-bpf` there.
//!
//! Needs root; works in namespaces of its own.

mod kit;

use anyhow::{Context, Result, bail};
use clap::Parser;
use kit::frames::{ICMP, ICMP6, TCP, UDP, VLAN, ip4, ip6};
use kit::{
    GW_MAC, TO_NEXT, ifindex, install_flows, lab, map, mount_bpffs, program, publish, restart_below, run,
};
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use sag_bpf::{Gateway, OpenOptions, PortEntry, TestFrame, park_xdp, unload};
use sag_model::flow::*;
use sag_model::tunnel::*;
use sag_model::{PortIdx, VlanId, Zone};
use sag_packet::checksum;
use sag_packet::encap::{Encap, Template};
use sag_pktgen::place::keep_to_core;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// Flows of the packets of the first line
    #[arg(long, default_value_t = 1)]
    flows: u32,
    /// Sessions in the table, if more than flows
    #[arg(long, default_value_t = 0)]
    sessions: u32,
    /// Sessions were made in an order that has nothing to do with that of the packets
    #[arg(long)]
    shuffled: bool,
    /// Measurements of every kind of packet, each time that the versions are loaded
    #[arg(long, default_value_t = 60)]
    rounds: u32,
    /// How often to load the versions
    #[arg(long, default_value_t = 20)]
    loads: u32,
    /// Object file of the version to compare with
    #[arg(long)]
    against: Option<PathBuf>,
    /// Object file of the version that is measured, instead of the one that this program was built with
    #[arg(long)]
    object: Option<PathBuf>,
}

/// What is run: with frames of many flows or with one, for no version, the old and the new one.
const PROGRAMS: [&str; 6] =
    ["cost_flows_none", "cost_flows_0", "cost_flows_1", "cost_frame_none", "cost_frame_0", "cost_frame_1"];
/// Places of the old version in the lists below; the new one is next, then the frame alone.
const OLD: usize = 0;
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1], [0, 2, 1], [1, 2, 0]];
/// Runs in one measurement.
const RUNS: u32 = 4000;
/// The device of the test runs: the loopback of the namespace.
const LO: u32 = 1;

fn main() -> Result<()> {
    let args = Args::parse();
    restart_below(&["chrt", "-f", "10", "unshare", "--net", "--mount"])?;
    keep_to_core(1)?;
    mount_bpffs()?;
    let sessions = args.sessions.max(args.flows);
    let o = OpenOptions {
        pin_dir: "/sys/fs/bpf/sag-cost".into(),
        lock_file: std::env::temp_dir().join("sag-cost.lock"),
        sessions4: sessions + 1000,
        sessions6: 1000,
    };
    let gw = Gateway::open(&o)?;
    install_flows(&gw, sessions, args.shuffled)?;
    let kinds = kinds(&gw, args.flows, sessions)?;

    let lab = lab(args.flows)?;
    let versions = map(&lab, "lab_versions")?;
    let put = |n: u32, fd: i32| versions.update(&n.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY);
    let built_in = libbpf_rs::Program::fd_from_pinned_path(o.pin_dir.join("gw_ingress"))?;
    // On devices where nothing arrives, so that a test run does not begin and end with waiting (`park_xdp`).
    let mut parked = Vec::new();
    for (n, name) in PROGRAMS.iter().enumerate() {
        let dev = format!("park{n}");
        run("ip", &["link", "add", &dev, "type", "veth"])?;
        parked.push(park_xdp(program(&lab, name)?.as_fd(), ifindex(&dev)?)?);
    }

    let mut results: Vec<[Vec<f64>; 2]> = kinds.iter().map(|_| Default::default()).collect();
    for load in 0..args.loads {
        // What calls a version is part of what is measured, so they change places.
        let slots = if load % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut loaded = Vec::new();
        for (slot, file) in slots.into_iter().zip([&args.against, &args.object]) {
            if let Some(file) = file {
                let object = reload(file, &o.pin_dir)?;
                put(slot, program(&object, "gw_ingress")?.as_raw_fd())?;
                loaded.push(object);
            }
        }
        if args.object.is_none() {
            put(slots[1], built_in.as_raw_fd())?;
        }
        for (kind, result) in kinds.iter().zip(&mut results) {
            compare(&gw, &lab, kind, &args, slots, result)?;
        }
    }
    println!("ns of the program alone; quartiles of old / new, above 1: the new one is faster");
    for (kind, [times, ratios]) in kinds.iter().zip(&mut results) {
        let [_, t, _] = quartiles(times);
        print!("{:32} {t:6.1}", kind.name);
        match quartiles(ratios) {
            [a, b, c] if args.against.is_some() => println!("   {a:.3} {b:.3} {c:.3}"),
            _ => println!(),
        }
    }
    println!("{:?}", gw.program_info()?);
    drop((parked, gw));
    unload(&o.pin_dir, &o.lock_file)?;
    Ok(())
}

/// Rounds of measurements of one kind of packet: times of the new version, and ratios. `slots`: where the old and the
/// new version are.
fn compare(
    gw: &Gateway,
    lab: &Object,
    kind: &Kind,
    args: &Args,
    slots: [u32; 2],
    result: &mut [Vec<f64>; 2],
) -> Result<()> {
    let before = gw.stats(PortIdx(0))?;
    // The first round warms up.
    for round in 0..args.rounds + 1 {
        let mut t = [0.0; 3];
        // None, one and the other, in each of their six orders: what ran before is part of what is measured.
        let slots = [Some(slots[0]), Some(slots[1]), None];
        for at in ORDERS[round as usize % ORDERS.len()] {
            if at != OLD || args.against.is_some() {
                t[at] = measure(lab, kind, slots[at])?;
            }
        }
        let [old, new, none] = t;
        if round > 0 {
            result[0].push(new - none);
            result[1].push((old - none) / (new - none));
        }
    }
    let (now, versions) = (gw.stats(PortIdx(0))?, 1 + u64::from(args.against.is_some()));
    if now.fast - before.fast != versions * u64::from(args.rounds + 1) * u64::from(RUNS) {
        bail!("{}: not every packet was forwarded: {now:?}", kind.name);
    }
    Ok(())
}

fn quartiles(v: &mut [f64]) -> [f64; 3] {
    v.sort_by(f64::total_cmp);
    [1, 2, 3].map(|q| v[(v.len() - 1) * q / 4])
}

/// Another version of the program, on the maps of the running one.
fn reload(path: &Path, pins: &Path) -> Result<Object> {
    let mut open = ObjectBuilder::default().open_file(path).with_context(|| path.display().to_string())?;
    for mut m in open.maps_mut() {
        let name = m.name().to_string_lossy().into_owned();
        let pin = if name.ends_with(".bss") { "gw_shared" } else { name.as_str() };
        m.reuse_pinned_map(pins.join(pin)).with_context(|| format!("map {name}"))?;
    }
    open.load().with_context(|| format!("the kernel refused {}", path.display()))
}

/// Nanoseconds of a run.
fn measure(lab: &Object, kind: &Kind, slot: Option<u32>) -> Result<f64> {
    let first = if kind.image.is_empty() { 0 } else { 3 };
    let name = PROGRAMS[first + slot.map_or(0, |s| 1 + s as usize)];
    let program = lab.progs_mut().find(|p| p.name() == name).context(name)?;
    if !kind.image.is_empty() {
        let mut image = (kind.image.len() as u64).to_ne_bytes().to_vec();
        image.extend(&kind.image);
        image.resize(8 + 128, 0);
        map(lab, "lab_images")?.update(&0u32.to_ne_bytes(), &image, MapFlags::ANY)?;
    }
    let frame = if kind.image.is_empty() { &[0; 60][..] } else { &kind.image };
    let input = ProgramInput { data_in: Some(frame), repeat: RUNS, ..ProgramInput::default() };
    let start = Instant::now();
    let last = program.test_run(input)?.return_value;
    let time = start.elapsed();
    // XDP_DROP, XDP_REDIRECT.
    let expected = if slot.is_none() { 1 } else { 4 };
    if last != expected {
        bail!("{}: action {last}", kind.name);
    }
    Ok(time.as_nanos() as f64 / f64::from(RUNS))
}

/// A packet that is measured: the frame, or none for those of many flows.
struct Kind {
    name: String,
    image: Vec<u8>,
}

/// Ports, next hops, meters, tunnels, and a flow for each kind of packet.
fn kinds(gw: &Gateway, flows: u32, sessions: u32) -> Result<Vec<Kind>> {
    let port = PortEntry {
        port: PortIdx(0),
        side: Zone::Lan.into(),
        dev: 0,
        mac: GW_MAC,
        on: true,
        vlans: true,
        skb: false,
    };
    gw.set_port(LO, &port)?;
    let vlan = VlanId::new(VLAN).context("VLAN")?;
    gw.set_vlan(LO, vlan, &PortEntry { vlans: false, ..port })?;
    gw.set_dev(0, LO)?;
    let [a, b, c, d, e, f] = GW_MAC.0;
    let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    // 1: untagged; 2: on the VLAN. Out of the same port, to the gateway itself.
    for (n, tag) in [(1, 0), (2, VLAN)] {
        let nh = &gw.nexthops()[n];
        nh.dmac_vlan.store(mac | u64::from(tag) << 48, Relaxed);
        nh.smac_mtu.store(mac | 1500 << 48, Relaxed);
        nh.dev.store(u64::from(LO) | 1 << 48 | u64::from(NH_VALID) << 56, Relaxed);
    }
    gw.control().index6.store(Geometry::sized(64).to_word(), Relaxed);
    let [one_rate, committed] = kit::meters(gw);
    tunnels(gw)?;

    let mut session = sessions;
    let mut kinds = vec![Kind { name: format!("UDP of {flows} flows, NAT"), image: Vec::new() }];
    let mut add = |name: &str, image: Vec<u8>, zone: Zone, action: Action| -> Result<Vec<u8>> {
        session += 1;
        let before = gw.stats(PortIdx(0))?.fast;
        // The slab of IPv6 records is small: those of the flows are IPv4's.
        let n = if image[12..14] == [0x86, 0xDD] { session - sessions } else { session };
        record(gw, RecordNo::forward(n), &image, zone, IngressId::port(PortIdx(0)), action)?;
        let out = gw.test_run(TestFrame { bytes: &image, ifindex: LO, queue: 0 })?;
        if gw.stats(PortIdx(0))?.fast != before + 1 {
            bail!("{name} is not forwarded: {out:?}");
        }
        if image.len().is_multiple_of(8) {
            kinds.push(Kind { name: name.to_owned(), image });
        }
        Ok(out.frame)
    };
    let plain = Action { flags: 0, ..TO_NEXT };
    let metered = |meter| Action { meter, flags: FLOW_SNAT | FLOW_METER, ..TO_NEXT };
    add("UDP, NAT", ip4(UDP, 1, 50, false), Zone::Lan, TO_NEXT)?;
    add("TCP, NAT", ip4(TCP, 2, 50, false), Zone::Lan, TO_NEXT)?;
    add("UDP", ip4(UDP, 3, 50, false), Zone::Lan, plain)?;
    add("UDP, NAT, one rate", ip4(UDP, 4, 50, false), Zone::Lan, metered(one_rate))?;
    add("UDP, NAT, CAR and link", ip4(UDP, 5, 50, false), Zone::Lan, metered(committed))?;
    add("IPv6 UDP", ip6(UDP, 6, 10), Zone::Lan, plain)?;
    add("general path: echo, NAT", ip4(ICMP, 7, 50, false), Zone::Lan, TO_NEXT)?;
    add("general path: tagged UDP, NAT", ip4(UDP, 8, 46, true), Zone::Lan, Action { nexthop: 2, ..TO_NEXT })?;
    add("general path: IPv6 UDP, NAT", ip6(UDP, 9, 10), Zone::Lan, TO_NEXT)?;
    add("general path: IPv6 echo", ip6(ICMP6, 10, 10), Zone::Lan, plain)?;
    let translated = |tunnel| Action { tunnel, ..TO_NEXT };
    add("into VXLAN: UDP, NAT", ip4(UDP, 11, 50, false), Zone::Lan, translated(VXLAN.0))?;
    add("into GRE: UDP, NAT", ip4(UDP, 12, 50, false), Zone::Lan, translated(GRE.0))?;
    add("into IP-in-IP: UDP, NAT", ip4(UDP, 13, 50, false), Zone::Lan, translated(IPIP.0))?;
    add("into VXLAN: IPv6 UDP", ip6(UDP, 14, 10), Zone::Lan, Action { tunnel: VXLAN.0, ..plain })?;
    add("into VXLAN: echo, NAT", ip4(ICMP, 15, 50, false), Zone::Lan, translated(VXLAN.0))?;
    // Of such lengths that the frames outside are of whole words.
    let mut outside = Vec::new();
    for (name, (into, out), inner) in [
        ("out of VXLAN: UDP", VXLAN, ip4(UDP, 16, 56, false)),
        ("out of GRE: UDP", GRE, ip4(UDP, 17, 50, false)),
        ("out of IP-in-IP: UDP", IPIP, ip4(UDP, 18, 46, false)),
        ("out of VXLAN: IPv6 UDP", VXLAN, ip6(UDP, 19, 16)),
        ("out of VXLAN: echo", VXLAN, ip4(ICMP, 20, 56, false)),
    ] {
        let frame = add("", inner.clone(), Zone::Lan, Action { tunnel: into, ..plain })?;
        outside.push((name, out, inner, frame));
    }
    kinds.retain(|k| !k.name.is_empty());
    for (n, (name, tunnel, inner, frame)) in (session + 1..).zip(outside) {
        let n = if inner[12..14] == [0x86, 0xDD] { n - sessions } else { n };
        let ingress = IngressId::tunnel(tunnel);
        record(gw, RecordNo::forward(n), &inner, Zone::Overlay, ingress, plain)?;
        let before = gw.stats(PortIdx(0))?.fast;
        let run = gw.test_run(TestFrame { bytes: &frame, ifindex: LO, queue: 0 })?;
        if gw.stats(PortIdx(0))?.fast != before + 1 {
            bail!("{name} is not forwarded: {run:?}");
        }
        kinds.push(Kind { name: name.to_owned(), image: frame });
    }
    Ok(kinds)
}

/// The record of a frame's flow in its own zone. The translation is the identity.
fn record(
    gw: &Gateway,
    n: RecordNo,
    frame: &[u8],
    zone: Zone,
    ingress: IngressId,
    action: Action,
) -> Result<()> {
    let ip = if frame[12..14] == [0x81, 0] { &frame[18..] } else { &frame[14..] };
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| ip[at + i]));
    let v6 = ip[0] >> 4 == 6;
    let (proto, l4) = if v6 { (ip[6], 40) } else { (ip[9], 20) };
    let half = |at: usize| u16::from_be_bytes([ip[l4 + at], ip[l4 + at + 1]]).to_be();
    // A query's identifier is its source port.
    let ports = if matches!(proto, ICMP | ICMP6) { [half(4), 0] } else { [half(0), half(2)] };
    let key_l4 = l4_word(ports[0], ports[1], proto, zone);
    let seed = gw.control().seed.load(Relaxed);
    if v6 {
        let r = &gw.flows6()[n.index()];
        let key = Key6 { src: [word(8), word(16)], dst: [word(24), word(32)], l4: key_l4 };
        r.set_key(&key);
        r.set_ingress(ingress);
        for i in 0..2 {
            r.new_src[i].store(key.src[i], Relaxed);
            r.new_dst[i].store(key.dst[i], Relaxed);
        }
        r.new_ports.store(key_l4 & 0xFFFF_FFFF, Relaxed);
        r.action.store(action.to_word(), Relaxed);
        r.epoch.store(1, Relaxed);
        let p = Probe::new(key.hash(seed), 63);
        gw.index6()[(64 + p.first) as usize].word[p.slot].store(p.tag << RECORD_BITS | n.0, Relaxed);
        return Ok(());
    }
    let r = &gw.flows4()[n.index()];
    let key = Key4 { addrs: word(12), l4: key_l4 };
    r.set_key(&key);
    r.set_ingress(ingress);
    r.new_addrs.store(key.addrs, Relaxed);
    r.new_ports.store(key_l4 & 0xFFFF_FFFF, Relaxed);
    r.action.store(action.to_word(), Relaxed);
    r.epoch.store(1, Relaxed);
    publish(gw, key.hash(seed), Geometry::from_word(gw.control().index4.load(Relaxed)).buckets(), n)
}

/// Numbers of a tunnel to 192.0.2.2, and of the same as 192.0.2.2 has it.
const VXLAN: (u8, u8) = (1, 2);
const GRE: (u8, u8) = (3, 4);
const IPIP: (u8, u8) = (5, 6);

fn tunnels(gw: &Gateway) -> Result<()> {
    let vxlan = Encap::Vxlan { vni: 100, port: 4789, mac: GW_MAC, remote_mac: GW_MAC };
    let gre = Encap::Gre { key: None, checksum: false, sequence: false };
    let [near, far] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
    let mut found = Vec::new();
    for ((into, out), encap, kind, end) in [
        (VXLAN, vxlan, TUNNEL_VXLAN, (17, 4789, EndId::Id(100))),
        (GRE, gre, TUNNEL_GRE, (47, 0, EndId::None)),
        (IPIP, Encap::Ipip, TUNNEL_IPIP, (4, 0, EndId::None)),
    ] {
        for (no, local, remote) in [(into, near, far), (out, far, near)] {
            let t = Template::new(local, remote, 64, encap);
            let entry = TunnelEntry {
                header: t.bytes,
                mac: if kind == TUNNEL_VXLAN { GW_MAC.0 } else { [0; 6] },
                len: t.len,
                kind,
                mtu: 1450,
                flags: TUNNEL_ON,
                tos: 0,
                sum: checksum::fold(checksum::sum(&t.bytes[..usize::from(t.ip)])),
                ingress: u64::MAX,
                side: Zone::Overlay.into(),
            };
            gw.tunnels()[usize::from(no)].store(&entry);
        }
        let (proto, port, id) = end;
        found.push((TunnelEnd { local: far, remote: near, proto, port, id }, out));
    }
    gw.replace_tunnel_ends(&found)?;
    gw.control().tunnels.store(2 * found.len() as u32, Relaxed);
    Ok(())
}
