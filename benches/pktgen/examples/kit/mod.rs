//! What the measuring programs share: the lab's BPF programs, devices, namespaces of their own, and a table of flows.

// Each program uses a part of this.
#![allow(dead_code)]

pub mod frames;

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use sag_bpf::Gateway;
use sag_model::flow::*;
use sag_model::{MacAddr, PortIdx, Zone};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

/// The gateway's address on every port of the lab.
pub const GW_MAC: MacAddr = MacAddr([0x02, 0, 0x5e, 0, 0, 1]);

/// Starts this program once more below other commands, which replaces this process: `chrt` for precedence on its core,
/// `unshare` for namespaces that vanish with it. Returns in the process that is below them.
pub fn restart_below(commands: &[&str]) -> Result<()> {
    const BELOW: &str = "SAG_BENCH_BELOW";
    if std::env::var_os(BELOW).is_some() {
        return Ok(());
    }
    let (first, rest) = commands.split_first().context("no command")?;
    let this = std::env::current_exe()?;
    let error =
        Command::new(first).args(rest).arg(this).args(std::env::args_os().skip(1)).env(BELOW, "1").exec();
    Err(error).with_context(|| format!("{first} (needs root)"))
}

/// A BPF file system of this mount namespace alone.
pub fn mount_bpffs() -> Result<()> {
    run("mount", &["--make-rprivate", "/"])?;
    run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"])
}

/// The lab's programs, with a source of so many flows.
pub fn lab(flows: u32) -> Result<Object> {
    let object = include_bytes!(concat!(env!("OUT_DIR"), "/lab.bpf.o"));
    let mut open = ObjectBuilder::default().name("lab")?.open_memory(object)?;
    let mut rodata =
        open.maps_mut().find(|m| m.name().to_string_lossy().ends_with(".rodata")).context(".rodata")?;
    let data = rodata.initial_value_mut().context(".rodata is empty")?;
    let stride = if flows.is_multiple_of(7919) { 1 } else { 7919 % flows.max(1) };
    let [a, b, c, d, e, f] = GW_MAC.0;
    data[0..4].copy_from_slice(&flows.to_ne_bytes());
    data[4..8].copy_from_slice(&stride.to_ne_bytes());
    data[8..16].copy_from_slice(&[a, b, c, d, e, f, 0, 0]);
    open.load().context("the kernel refused the lab's programs (needs root and Linux 5.18)")
}

pub fn program(lab: &Object, name: &str) -> Result<OwnedFd> {
    let p = lab.progs().find(|p| p.name() == name).with_context(|| name.to_owned())?;
    p.as_fd().try_clone_to_owned().with_context(|| name.to_owned())
}

pub fn map(lab: &Object, name: &str) -> Result<MapHandle> {
    let m =
        lab.maps().find(|m| m.name().to_string_lossy().ends_with(name)).with_context(|| name.to_owned())?;
    Ok(MapHandle::try_from(&m)?)
}

pub fn ifindex(dev: &str) -> Result<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    netdevice::name_to_index(socket.as_fd(), dev).with_context(|| format!("no device {dev}"))
}

pub fn run(program: &str, args: &[&str]) -> Result<()> {
    let o = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    if !o.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&o.stderr).trim());
    }
    Ok(())
}

/// What the source's flows do: they leave by next hop 1, translated.
pub const TO_NEXT: Action =
    Action { nexthop: 1, meter: 0, act: FlowAct::Forward, flags: FLOW_SNAT, tunnel: 0, nh_gen: 1 };

/// Buckets of an index that is 30% to 60% full with both directions of so many flows.
pub fn buckets(flows: u32) -> u32 {
    (2 * flows / 16 * 4 / 3).next_power_of_two().max(64)
}

/// Puts a record into the index: into the word where its hash wants it, or the next free one.
pub fn publish(gw: &Gateway, hash: u64, size: u32, n: RecordNo) -> Result<()> {
    let p = Probe::new(hash, size - 1);
    let words = |b: u32| &gw.index4()[(size + b) as usize].word;
    let load = |b: u32| words(b).iter().filter(|w| w.load(Relaxed) != 0).count();
    let crowded = load(p.first) >= 12 && load(p.second) < load(p.first);
    let bucket = words(if crowded { p.second } else { p.first });
    let slots = p.slot..p.slot + BUCKET_WORDS;
    let free = slots.map(|w| &bucket[w % BUCKET_WORDS]).find(|w| w.load(Relaxed) == 0);
    free.context("both buckets full")?.store(p.tag << RECORD_BITS | n.0, Relaxed);
    Ok(())
}

/// Numbers below `n`, each once, in an order that has nothing to do with them. The same in every run.
fn shuffled(n: u32) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for i in (1..all.len()).rev() {
        // Xorshift: any order without a stride will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.swap(i, (state % (i as u64 + 1)) as usize);
    }
    all
}

/// Both directions of so many flows, translated, from session 1 on. Their sessions were made in the order of the flows, or
/// in one that has nothing to do with it.
pub fn install_flows(gw: &Gateway, flows: u32, shuffle: bool) -> Result<()> {
    let size = buckets(flows);
    let c = gw.control();
    c.seed.store(0x5eed_5eed_1234_5678, Relaxed);
    c.epoch.store(1, Relaxed);
    c.index4.store(Geometry::sized(size).to_word(), Relaxed);
    c.fast_path.store(1, Relaxed);
    let dst = u32::from_le_bytes([198, 51, 100, 7]);
    let public = u32::from_le_bytes([203, 0, 113, 2]);
    let order = if shuffle { shuffled(flows) } else { (0..flows).collect() };
    for (session, i) in (1..).zip(order) {
        let src = (0x0A00_0000 + i).to_be();
        let key = |a: u32, b: u32, sp: u16, dp: u16, z| Key4 {
            addrs: u64::from(a) | u64::from(b) << 32,
            l4: l4_word(sp.to_be(), dp.to_be(), 17, z),
        };
        let pair =
            [key(src, dst, 1000, 53, Zone::Lan), key(dst, public + (i >> 16 << 24), 53, i as u16, Zone::Wan)];
        for (n, key) in RecordNo::both(session).into_iter().zip(pair) {
            let r = &gw.flows4()[n.index()];
            r.set_key(&key);
            r.set_ingress(IngressId::port(PortIdx(n.direction() as u8)));
            r.new_addrs.store(u64::from(public) | u64::from(dst) << 32, Relaxed);
            r.new_ports.store(u64::from((i as u16).to_be()) | 0x1234_5678 << 32, Relaxed);
            r.action.store(TO_NEXT.to_word(), Relaxed);
            r.epoch.store(1, Relaxed);
            publish(gw, key.hash(c.seed.load(Relaxed)), size, n)?;
        }
    }
    Ok(())
}

/// Sets of meters that never refuse: one rate; a CAR with a committed rate under a link.
pub fn meters(gw: &Gateway) -> [u16; 2] {
    use sag_pipeline::qos::meter::{Rate, units};
    let now = units(1);
    for m in &gw.meters()[1..4] {
        m.cost.store(Rate::mbps(40_000).cost(), Relaxed);
        m.burst.store(units(200_000_000), Relaxed);
        m.tat.store(now, Relaxed);
        m.committed_tat.store(now, Relaxed);
    }
    let committed = &gw.meters()[2];
    committed.committed_cost.store(Rate::mbps(10).cost(), Relaxed);
    committed.committed_burst.store(units(200_000_000), Relaxed);
    for s in &gw.meter_groups()[1..3] {
        s.slack.store(8_000_000, Relaxed);
    }
    gw.meter_groups()[1].car.store(1, Relaxed);
    gw.meter_groups()[2].car.store(2, Relaxed);
    gw.meter_groups()[2].links[0].store(3, Relaxed);
    gw.meter_groups()[2].borrow_limit[0].store(units(200_000_000), Relaxed);
    [1, 2]
}
