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
mod kit;

use anyhow::{Result, bail};
use kit::{
    GW_MAC, TO_NEXT, ifindex, install_flows, lab, map, meters, mount_bpffs, program, restart_below, run,
};
use libbpf_rs::{MapCore, MapFlags, Object};
use sag_bpf::{AttachMode, Gateway, LiveFrames, OpenOptions, PortEntry, attach_xdp, unload};
use sag_model::flow::*;
use sag_model::{PortIdx, Zone};
use sag_pktgen::place::keep_to_core;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u32| args.next().map_or(Ok(default), |a| a.parse::<u32>());
    let (flows, rounds, packets) = (number(10_000)?, number(41)?, number(200_000)?);
    restart_below(&["chrt", "-f", "10", "unshare", "--net", "--mount"])?;
    mount_bpffs()?;
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
    let devs = map(&lab, "lab_devs")?;
    for (slot, dev) in [(0u32, "g0"), (1, "q0")] {
        devs.update(&slot.to_ne_bytes(), &ifindex(dev)?.to_ne_bytes(), MapFlags::ANY)?;
    }
    // Receiving ends need a program, or veth refuses redirected frames.
    let _sink = attach_xdp(sink.as_fd(), ifindex("s0")?)?;
    let _q0 = attach_xdp(sink.as_fd(), ifindex("q0")?)?;

    let o = OpenOptions {
        pin_dir: "/sys/fs/bpf/sag-bench".into(),
        lock_file: std::env::temp_dir().join("sag-bench.lock"),
        sessions4: flows.max(1000),
        sessions6: 1,
    };
    let gw = Gateway::open(&o)?;
    install(&gw, flows)?;

    let sets = meters(&gw);
    let mut base = Vec::new();
    let mut fast = [const { Vec::new() }; 3];
    for round in 0..rounds + 1 {
        let link = attach_xdp(bare.as_fd(), ifindex("p0")?)?;
        let b = measure(source.as_fd(), &lab, packets)?;
        drop(link);
        gw.attach(ifindex("p0")?, "p0", AttachMode::Native)?;
        let mut f = [0.0; 3];
        for (set, f) in [0, sets[0], sets[1]].into_iter().zip(&mut f) {
            let flag = if set == 0 { 0 } else { FLOW_METER };
            let a = Action { meter: set, flags: FLOW_SNAT | flag, ..TO_NEXT };
            gw.flows4()[1..].iter().for_each(|r| r.action.store(a.to_word(), Relaxed));
            *f = measure(source.as_fd(), &lab, packets)?;
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

fn quantile(v: &mut [f64], part: usize) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / part]
}

/// Nanoseconds a packet from source to sink.
fn measure(source: BorrowedFd<'_>, lab: &Object, packets: u32) -> Result<f64> {
    let before = received(lab)?;
    let frames = LiveFrames { frame: &[0; 60], runs: packets, batch: 64, limit: None };
    // Measured by the kernel from the first frame to the last: setting up and tearing down wait for
    // grace periods.
    let time = frames.send(source)?.map_or(0.0, f64::from);
    let got = received(lab)? - before;
    if got != u64::from(packets) {
        bail!("{packets} sent, {got} received");
    }
    Ok(time)
}

/// Counter of the sink: the second word of its `.bss`.
fn received(lab: &Object) -> Result<u64> {
    let v = map(lab, ".bss")?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    let word =
        |i: usize| v.get(i * 8..i * 8 + 8).map_or(0, |b| u64::from_ne_bytes(b.try_into().unwrap_or([0; 8])));
    // Laid out in the order of declaration: sent, received.
    Ok(word(1))
}

/// Ports, the next hop, and the flows.
fn install(gw: &Gateway, flows: u32) -> Result<()> {
    let (out, back) = (ifindex("q0")?, ifindex("p0")?);
    for (dev, port, zone, index) in [(0u8, 0u8, Zone::Lan, back), (1, 1, Zone::Wan, out)] {
        gw.set_port(
            index,
            &PortEntry {
                port: PortIdx(port),
                side: zone.into(),
                dev,
                mac: GW_MAC,
                on: true,
                vlans: false,
                skb: false,
            },
        )?;
        gw.set_dev(dev, index)?;
    }
    let nh = &gw.nexthops()[1];
    nh.dmac_vlan.store(0x0000_0605_0403_0202, Relaxed);
    nh.smac_mtu.store(0x0100_005e_0002 | 1500 << 48, Relaxed);
    nh.dev.store(u64::from(out) | 1 << 32 | 1 << 40 | 1 << 48 | u64::from(NH_VALID) << 56, Relaxed);
    install_flows(gw, flows, false)
}

fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}
