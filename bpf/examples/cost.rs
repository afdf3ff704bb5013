//! Nanoseconds that the program alone takes for one packet of an established flow, everything in
//! cache: what instructions cost, without devices and without cache misses.
#![allow(unsafe_code)]

use anyhow::{Result, bail};
use libbpf_rs::libbpf_sys;
use sag_bpf::{Gateway, OpenOptions, PortEntry, unload};
use sag_model::flow::*;
use sag_model::tunnel::*;
use sag_model::{MacAddr, PortIdx, Zone};
use sag_packet::checksum;
use sag_packet::encap::{Encap, Template};
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

const MAC: MacAddr = MacAddr([2, 0, 0x5e, 0, 0, 1]);

fn main() -> Result<()> {
    // SAFETY: no memory is passed; the process has a single thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) } != 0 {
        bail!("needs root: {}", std::io::Error::last_os_error());
    }
    for args in [&["--make-rprivate", "/"][..], &["-t", "bpf", "bpf", "/sys/fs/bpf"]] {
        if !Command::new("mount").args(args).status()?.success() {
            bail!("mount {args:?}");
        }
    }
    let o = OpenOptions {
        pin_dir: "/sys/fs/bpf/sag-cost".into(),
        lock_file: std::env::temp_dir().join("sag-cost.lock"),
        sessions4: 1000,
        sessions6: 1,
    };
    let gw = Gateway::open(&o)?;
    gw.set_port(
        1,
        &PortEntry {
            port: PortIdx(0),
            zone: Zone::Lan,
            dev: 0,
            mac: MAC,
            on: true,
            vlans: false,
            dhcp: false,
        },
    )?;
    gw.set_dev(0, 1)?;
    let c = gw.control();
    c.index4_base.store(64, Relaxed);
    c.index4_mask.store(63, Relaxed);
    c.fast_path.store(1, Relaxed);
    let nh = &gw.nexthops()[1];
    let mac = u64::from_le_bytes([2, 0, 0x5e, 0, 0, 1, 0, 0]);
    nh.dmac_vlan.store(mac, Relaxed);
    nh.smac_mtu.store(mac | 1500 << 48, Relaxed);
    nh.dev.store(1 | 1 << 56, Relaxed);

    // The program's output is its next input, so nothing but the TTL may change: the translation
    // is the identity, and the next hop is the gateway itself.
    let (src, dst) = (u32::from_le_bytes([10, 0, 0, 1]), u32::from_le_bytes([198, 51, 100, 7]));
    let key = Key4 {
        addrs: u64::from(src) | u64::from(dst) << 32,
        l4: l4_word(1000u16.to_be(), 53u16.to_be(), 17, Zone::Lan),
    };
    let r = &gw.flows4()[2];
    r.set_key(&key);
    r.new_addrs.store(key.addrs, Relaxed);
    r.new_ports.store(key.l4 & 0xFFFF_FFFF, Relaxed);
    let a = Action { nexthop: 1, meter: 0, act: FlowAct::Forward, flags: FLOW_SNAT, tunnel: 0, nh_gen: 0 };
    r.action.store(a.to_word(), Relaxed);
    let p = Probe::new(key.hash(0), 63);
    let mut args = std::env::args().skip(1);
    let word: usize = args.next().map_or(Ok(0), |a| a.parse())?;
    let rounds: u32 = args.next().map_or(Ok(100), |a| a.parse())?;
    gw.index4()[(64 + p.first) as usize].word[word].store(p.tag << RECORD_BITS | 2, Relaxed);

    let mut f = vec![0u8; 60];
    f[0..6].copy_from_slice(&MAC.0);
    f[12] = 8;
    f[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 255, 17, 0, 0, 10, 0, 0, 1, 198, 51, 100, 7]);
    let sum: u32 = f[14..34].chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    f[24..26].copy_from_slice(&(!((sum & 0xFFFF) + (sum >> 16)) as u16).to_be_bytes());
    f[34..42].copy_from_slice(&[3, 0xE8, 0, 53, 0, 26, 0x12, 0x34]);
    let prog = libbpf_rs::Program::fd_from_pinned_path(o.pin_dir.join("gw_ingress"))?;
    let port = PortEntry {
        port: PortIdx(0),
        zone: Zone::Lan,
        dev: 0,
        mac: MAC,
        on: true,
        vlans: false,
        dhcp: false,
    };
    // VXLAN: what enters the tunnel comes back as if from the peer, leaves it, and so on.
    let inside = Key4 { l4: l4_word(1000u16.to_be(), 53u16.to_be(), 17, Zone::Overlay), ..key };
    let back = &gw.flows4()[4];
    back.set_key(&inside);
    back.new_addrs.store(key.addrs, Relaxed);
    back.new_ports.store(key.l4 & 0xFFFF_FFFF, Relaxed);
    back.action.store(Action { flags: 0, ..a }.to_word(), Relaxed);
    let q = Probe::new(inside.hash(0), 63);
    gw.index4()[(64 + q.first) as usize].word[q.slot].store(q.tag << RECORD_BITS | 4, Relaxed);
    tunnels(&gw)?;
    let through = Action { flags: 0, tunnel: 1, ..a };
    let (mut hit, mut off, mut tunnel) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        r.action.store(through.to_word(), Relaxed);
        tunnel.push(run(&prog, &f)?);
        r.action.store(a.to_word(), Relaxed);
        gw.clear_port(1);
        off.push(run(&prog, &f)?);
        gw.set_port(1, &port)?;
        hit.push(run(&prog, &f)?);
    }
    hit.sort_unstable();
    tunnel.sort_unstable();
    off.sort_unstable();
    let (n, s) = (hit.len(), gw.stats(PortIdx(0))?);
    println!(
        "ns, hit: p10 {} median {}; not our port: p10 {} median {}",
        hit[n / 10],
        hit[n / 2],
        off[n / 10],
        off[n / 2]
    );
    println!(
        "in and out of VXLAN, each: p10 {} median {}; in {}, out {}",
        tunnel[n / 10],
        tunnel[n / 2],
        gw.tunnel_stats(1)?.tx_packets,
        gw.tunnel_stats(2)?.rx_packets
    );
    println!("fast {} of {}; {:?}", s.fast, s.rx_packets, gw.program_info()?);
    drop(gw);
    unload(&o.pin_dir, &o.lock_file)?;
    Ok(())
}

/// Tunnel 1 to 192.0.2.2, and tunnel 2 as 192.0.2.2 has it.
fn tunnels(gw: &Gateway) -> Result<()> {
    let encap = Encap::Vxlan { vni: 100, port: 4789, mac: MAC, remote_mac: MAC };
    let ends = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
    for (no, local, remote) in [(1, ends[0], ends[1]), (2, ends[1], ends[0])] {
        let t = Template::new(local, remote, 64, encap);
        let entry = TunnelEntry {
            header: t.bytes,
            mac: MAC.0,
            len: t.len,
            kind: TUNNEL_VXLAN,
            mtu: 1450,
            flags: TUNNEL_ON,
            tos: 0,
            sum: checksum::fold(checksum::sum(&t.bytes[..usize::from(t.ip)])),
        };
        gw.tunnels()[usize::from(no)].store(&entry);
        let end = TunnelEnd { local, remote, proto: 17, port: 4789, id: EndId::Id(100) };
        if no == 2 {
            gw.replace_tunnel_ends(&[(end, no)])?;
        }
    }
    gw.control().tunnels.store(2, Relaxed);
    Ok(())
}

fn run(prog: &std::os::fd::OwnedFd, f: &[u8]) -> Result<u32> {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: f.as_ptr().cast(),
        data_size_in: f.len() as u32,
        repeat: 250,
        ..Default::default()
    };
    // SAFETY: `opts` says its size and points at a frame of the size given, both live.
    let e = unsafe { libbpf_sys::bpf_prog_test_run_opts(std::os::fd::AsRawFd::as_raw_fd(prog), &mut opts) };
    if e != 0 {
        bail!("test run: {e}");
    }
    Ok(opts.duration)
}
