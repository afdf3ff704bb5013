//! Forwarding rate of the fast path beside that of a bare redirect, on veth pairs, one core doing
//! source, gateway and sink:
//!
//! ```text
//! source ─► g0 ═ p0 [gateway or bare redirect] ─► q0 ═ s0 [sink]
//! ```
//!
//! `veth_bench [FLOWS] [ROUNDS] [PACKETS]`. They take turns in short rounds: the bare redirect, the
//! fast path, and the fast path with one meter (a CAR's ceiling) and with a CAR's floor and ceiling
//! under a link.
//! Needs root; works in a network namespace of its own.
#![allow(unsafe_code)]

mod kit;

use anyhow::{Context, Result, bail};
use kit::{attach, ifindex, keep_to_core, program};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, libbpf_sys};
use sag_bpf::{AttachMode, Gateway, OpenOptions, PortEntry, unload};
use sag_model::flow::*;
use sag_model::{MacAddr, PortIdx, Zone};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

const GW_MAC: MacAddr = MacAddr([0x02, 0, 0x5e, 0, 0, 1]);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u32| args.next().map_or(Ok(default), |a| a.parse::<u32>());
    let (flows, rounds, packets) = (number(10_000)?, number(41)?, number(200_000)?);
    private_namespaces()?;
    keep_to_core(1)?;
    // No neighbour discovery among the measured frames.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    for (dev, peer) in [("g0", "p0"), ("q0", "s0")] {
        ip(&["link", "add", dev, "type", "veth", "peer", "name", peer])?;
        ip(&["link", "set", dev, "up"])?;
        ip(&["link", "set", peer, "up"])?;
    }
    let lab = lab(flows)?;
    let sink = program(&lab, "lab_sink")?;
    let bare = program(&lab, "lab_bare")?;
    let source = program(&lab, "lab_source")?;
    let devs = lab.maps().find(|m| m.name() == "lab_devs").context("lab_devs")?;
    for (slot, dev) in [(0u32, "g0"), (1, "q0")] {
        devs.update(&slot.to_ne_bytes(), &ifindex(dev)?.to_ne_bytes(), MapFlags::ANY)?;
    }
    // Receiving ends need a program, or veth refuses redirected frames.
    let _sink = attach(sink, "s0", libbpf_sys::BPF_XDP)?;
    let _q0 = attach(sink, "q0", libbpf_sys::BPF_XDP)?;

    let o = OpenOptions {
        pin_dir: "/sys/fs/bpf/sag-bench".into(),
        lock_file: std::env::temp_dir().join("sag-bench.lock"),
        sessions4: flows,
        sessions6: 1,
    };
    let gw = Gateway::open(&o)?;
    install(&gw, flows)?;

    let sets = meters(&gw);
    let mut base = Vec::new();
    let mut fast = [const { Vec::new() }; 3];
    for round in 0..rounds + 1 {
        let link = attach(bare, "p0", libbpf_sys::BPF_XDP)?;
        let b = measure(source, &lab, packets)?;
        drop(link);
        gw.attach(ifindex("p0")?, "p0", AttachMode::Native)?;
        let mut f = [0.0; 3];
        for (set, f) in [0, sets[0], sets[1]].into_iter().zip(&mut f) {
            let flag = if set == 0 { 0 } else { FLOW_METER };
            let a = Action { meter: set, flags: FLOW_SNAT | flag, ..TO_NEXT };
            gw.flows4()[1..].iter().for_each(|r| r.action.store(a.to_word(), Relaxed));
            *f = measure(source, &lab, packets)?;
        }
        gw.detach("p0")?;
        // The first round warms up.
        if round > 0 {
            base.push(b);
            fast.iter_mut().zip(f).for_each(|(all, f)| all.push(f));
        }
    }
    let s = gw.stats(PortIdx(0))?;
    if s.fast != s.rx_packets || s.rx_packets != 3 * u64::from(packets) * u64::from(rounds + 1) {
        bail!("not every packet took the fast path: {s:?}");
    }
    drop(gw);
    unload(&o.pin_dir, &o.lock_file)?;

    for (name, at) in [("lowest tenth", 10), ("median", 2)] {
        let (b, f) = (quantile(&mut base, at), quantile(&mut fast[0], at));
        println!(
            "flows {flows}, {name}: bare {b:.0} ns ({:.2} Mpps), fast path {f:.0} ns ({:.2} Mpps), +{:.0} ns, ratio {:.3}",
            1e3 / b,
            1e3 / f,
            f - b,
            b / f
        );
        for (what, m) in ["one meter", "floor, ceiling and link"].into_iter().zip(1..) {
            let m = quantile(&mut fast[m], at);
            println!(
                "    with {what}: {m:.0} ns ({:.2} Mpps), +{:.0} ns, {:.1} % of the fast path's throughput",
                1e3 / m,
                m - f,
                f / m * 100.0
            );
        }
    }
    Ok(())
}

const TO_NEXT: Action =
    Action { nexthop: 1, meter: 0, act: FlowAct::Forward, flags: FLOW_SNAT, tunnel: 0, nh_gen: 1 };

/// Sets of meters that never refuse: a CAR's ceiling; a CAR under a link.
fn meters(gw: &Gateway) -> [u16; 2] {
    use sag_pipeline::qos::meter::{Rate, units};
    let now = units(1);
    for m in &gw.meters()[1..4] {
        m.cost.store(Rate::mbps(40_000).cost(), Relaxed);
        m.burst.store(units(200_000_000), Relaxed);
        m.tat.store(now, Relaxed);
        m.committed_tat.store(now, Relaxed);
    }
    let floor = &gw.meters()[2];
    floor.committed_cost.store(Rate::mbps(10).cost(), Relaxed);
    floor.committed_burst.store(units(200_000_000), Relaxed);
    for s in &gw.meter_sets()[1..3] {
        s.slack.store(8_000_000, Relaxed);
    }
    gw.meter_sets()[1].car.store(1, Relaxed);
    gw.meter_sets()[2].car.store(2, Relaxed);
    gw.meter_sets()[2].links[0].store(3, Relaxed);
    gw.meter_sets()[2].borrow_limit[0].store(units(200_000_000), Relaxed);
    [1, 2]
}

fn quantile(v: &mut [f64], part: usize) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / part]
}

/// Nanoseconds a packet from source to sink.
fn measure(source: BorrowedFd<'_>, lab: &Object, packets: u32) -> Result<f64> {
    let before = received(lab)?;
    let frame = [0u8; 60];
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: packets as i32,
        flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: 64,
        ..Default::default()
    };
    // SAFETY: `opts` says its size and points at a frame of the size given, both live.
    let r = unsafe { libbpf_sys::bpf_prog_test_run_opts(source.as_raw_fd(), &mut opts) };
    if r != 0 {
        bail!("live frames: {}", std::io::Error::from_raw_os_error(-r));
    }
    let got = received(lab)? - before;
    if got != u64::from(packets) {
        bail!("{packets} sent, {got} received");
    }
    // Measured by the kernel from the first frame to the last: setting up and tearing down wait for
    // grace periods.
    Ok(f64::from(opts.duration))
}

/// Counter of the sink: the second word of its `.bss`.
fn received(lab: &Object) -> Result<u64> {
    let bss = lab.maps().find(|m| m.name().to_string_lossy().ends_with(".bss")).context(".bss")?;
    let v = MapHandle::try_from(&bss)?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("empty")?;
    let word =
        |i: usize| v.get(i * 8..i * 8 + 8).map_or(0, |b| u64::from_ne_bytes(b.try_into().unwrap_or([0; 8])));
    // Laid out in the order of declaration: sent, received.
    Ok(word(1))
}

fn lab(flows: u32) -> Result<Object> {
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
    Ok(open.load()?)
}

/// Both directions of every flow, source-translated, in an index that is 30% to 60% full.
fn install(gw: &Gateway, flows: u32) -> Result<()> {
    let (out, back) = (ifindex("q0")?, ifindex("p0")?);
    for (dev, port, zone, index) in [(0u8, 0u8, Zone::Lan, back), (1, 1, Zone::Wan, out)] {
        gw.set_port(
            index,
            &PortEntry { port: PortIdx(port), zone, dev, mac: GW_MAC, on: true, vlans: false, dhcp: false },
        )?;
        gw.set_dev(dev, index)?;
    }
    let nh = &gw.nexthops()[1];
    nh.dmac_vlan.store(0x0000_0605_0403_0202, Relaxed);
    nh.smac_mtu.store(0x0100_005e_0002 | 1500 << 48, Relaxed);
    nh.dev.store(u64::from(out) | 1 << 32 | 1 << 40 | 1 << 48 | u64::from(NH_VALID) << 56, Relaxed);

    let size = (2 * flows / 16 * 4 / 3).next_power_of_two().max(1);
    let c = gw.control();
    c.seed.store(0x5eed_5eed_1234_5678, Relaxed);
    c.epoch.store(1, Relaxed);
    c.index4.store(Geometry::sized(size).to_word(), Relaxed);
    c.fast_path.store(1, Relaxed);
    let dst = u32::from_le_bytes([198, 51, 100, 7]);
    let public = u32::from_le_bytes([203, 0, 113, 2]);
    for i in 0..flows {
        let src = (0x0A00_0000 + i).to_be();
        let key = |a: u32, b: u32, sp: u16, dp: u16, z| Key4 {
            addrs: u64::from(a) | u64::from(b) << 32,
            l4: l4_word(sp.to_be(), dp.to_be(), 17, z),
        };
        let pair =
            [key(src, dst, 1000, 53, Zone::Lan), key(dst, public + (i >> 16 << 24), 53, i as u16, Zone::Wan)];
        for (n, key) in RecordNo::both(i + 1).into_iter().zip(pair) {
            let r = &gw.flows4()[n.index()];
            r.set_key(&key);
            r.new_addrs.store(u64::from(public) | u64::from(dst) << 32, Relaxed);
            r.new_ports.store(u64::from((i as u16).to_be()) | 0x1234_5678 << 32, Relaxed);
            r.action.store(TO_NEXT.to_word(), Relaxed);
            r.epoch.store(1, Relaxed);
            let p = Probe::new(key.hash(c.seed.load(Relaxed)), size - 1);
            let words = |b: u32| &gw.index4()[(size + b) as usize].word;
            let load = |b: u32| words(b).iter().filter(|w| w.load(Relaxed) != 0).count();
            let crowded = load(p.first) >= 12 && load(p.second) < load(p.first);
            let bucket = words(if crowded { p.second } else { p.first });
            // Where the hash wants it, or the next free word.
            let slot = (key.hash(c.seed.load(Relaxed)) >> 52) as usize;
            let free =
                (slot..slot + BUCKET_WORDS).map(|w| &bucket[w % BUCKET_WORDS]).find(|w| w.load(Relaxed) == 0);
            free.context("both buckets full")?.store(p.tag << RECORD_BITS | n.0, Relaxed);
        }
    }
    Ok(())
}

/// Own network and mount namespace, so that devices and pins vanish with the process.
fn private_namespaces() -> Result<()> {
    // SAFETY: no memory is passed; the process has a single thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) } != 0 {
        bail!("needs root: {}", std::io::Error::last_os_error());
    }
    run("mount", &["--make-rprivate", "/"])?;
    run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"])
}

fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let o = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    if !o.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&o.stderr).trim());
    }
    Ok(())
}
