//! Pinning, takeover, what does not fit, unloading, and a second daemon.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::{Gateway, LoadError, MapError, OpenOptions, PortEntry, TestFrame, unload};
use sag_model::flow::FlowRecord;
use sag_model::{PortIdx, VlanId};
use std::fs;
use std::sync::atomic::Ordering::Relaxed;

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut n: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    n.sort_unstable();
    n
}

#[test]
fn a_takeover_keeps_sessions_counters_and_settings() {
    let Some(fs) = root() else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    assert!(!gw.reused());
    assert_eq!(gw.flows4().len(), 2 * 1024);
    assert_eq!(gw.flows6().len(), 2 * 128);
    assert_eq!(gw.index4().len(), 2 * 256);
    assert_eq!(gw.nexthops().len(), 65536);
    gw.set_port(LO, &port_entry()).unwrap();
    gw.flows4()[77].packets().store(123, Relaxed);
    gw.control().epoch.store(42, Relaxed);
    gw.ip_ids()[4095].store(70_000, Relaxed);
    let frame = v4([10, 0, 0, 1], [10, 0, 0, 2], 17, udp(1, 2, b"")).frame(None);
    gw.test_run(TestFrame { bytes: &frame, ifindex: 0, queue: 0 }).unwrap();
    let (stats, before) = (gw.stats(LAN).unwrap(), names(&o.pin_dir));
    assert_eq!(stats.rx_packets, 1);
    let id = gw.program_info().unwrap().id;
    drop(gw);

    let gw = Gateway::open(&o).unwrap();
    assert!(gw.reused());
    assert_eq!(gw.flows4()[77].packets().load(Relaxed), 123);
    assert_eq!(gw.control().epoch.load(Relaxed), 42);
    assert_eq!(gw.ip_ids()[4095].load(Relaxed), 70_000, "no number comes again early");
    assert_eq!(gw.stats(LAN).unwrap(), stats);
    assert_ne!(gw.program_info().unwrap().id, id, "the program is this build's");
    assert_eq!(names(&o.pin_dir), before);
    assert!(gw.program_info().unwrap().jited_bytes > 0);
}

#[test]
fn a_second_daemon_is_refused_by_name() {
    let Some(fs) = root() else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    for r in [Gateway::open(&o).map(drop), unload(&o.pin_dir, &o.lock_file).map(drop)] {
        let e = r.unwrap_err();
        assert!(matches!(e, LoadError::AlreadyRunning { .. }), "{e}");
        assert!(e.to_string().contains(&format!("pid {}", std::process::id())), "{e}");
    }
    drop(gw);
    Gateway::open(&o).unwrap();
}

#[test]
fn maps_that_do_not_fit_are_named_and_left_alone() {
    let Some(fs) = root() else { return };
    let o = fs.options();
    drop(Gateway::open(&o).unwrap());
    for (what, other) in [
        ("gw_flows4", OpenOptions { sessions4: 2000, ..o.clone() }),
        ("gw_flows6", OpenOptions { sessions6: 128, ..o.clone() }),
    ] {
        let e = Gateway::open(&other).unwrap_err();
        assert!(matches!(&e, LoadError::OtherSize { map, .. } if map == what), "{e}");
        assert!(e.to_string().contains("sag-vcpe unload"), "{e}");
    }
    let gw = Gateway::open(&o).unwrap();
    assert!(gw.reused());

    gw.control().abi_version.store(99, Relaxed);
    drop(gw);
    let e = Gateway::open(&o).unwrap_err();
    assert!(matches!(e, LoadError::OtherVersion { .. }), "{e}");
    assert!(e.to_string().contains("version 99") && e.to_string().contains("sag-vcpe unload"), "{e}");
    let left = names(&o.pin_dir);
    assert_eq!(left.len(), 26, "{left:?}");

    assert!(unload(&o.pin_dir, &o.lock_file).unwrap());
    assert!(!o.pin_dir.exists());
    assert!(!unload(&o.pin_dir, &o.lock_file).unwrap(), "nothing left");
    assert!(!Gateway::open(&o).unwrap().reused());
}

#[test]
fn an_incomplete_set_is_refused_and_a_half_built_one_swept_away() {
    let Some(fs) = root() else { return };
    let o = fs.options();
    // What a loader that died half way leaves behind.
    let staging = fs.path().join("sag-new");
    fs::create_dir(&staging).unwrap();
    drop(Gateway::open(&o).unwrap());
    fs::rename(o.pin_dir.join("gw_stats"), fs.path().join("elsewhere")).unwrap();
    fs::create_dir(&staging).unwrap();
    let e = Gateway::open(&o).unwrap_err();
    assert!(matches!(&e, LoadError::Incomplete { missing, .. } if missing == "gw_stats"), "{e}");
    assert!(unload(&o.pin_dir, &o.lock_file).unwrap());
    assert!(!staging.exists());
    // An empty directory that an administrator made is no obstacle.
    fs::create_dir(&o.pin_dir).unwrap();
    assert!(!Gateway::open(&o).unwrap().reused());
}

#[test]
fn bad_options_and_arguments_are_refused() {
    let Some(fs) = root() else { return };
    let o = fs.options();
    for bad in [OpenOptions { sessions4: 0, ..o.clone() }, OpenOptions { sessions6: 1 << 23, ..o.clone() }] {
        let e = Gateway::open(&bad).unwrap_err();
        assert!(matches!(e, LoadError::OutOfRange { .. }), "{e}");
    }
    let plain = tempfile::tempdir().unwrap();
    let e = Gateway::open(&OpenOptions { pin_dir: plain.path().join("sag"), ..o.clone() }).unwrap_err();
    assert!(matches!(e, LoadError::NotBpffs { .. }), "{e}");
    assert!(matches!(unload(plain.path(), &o.lock_file), Err(LoadError::NotBpffs { .. })));
    assert!(!fs.pin_dir().exists(), "nothing was touched");

    let gw = Gateway::open(&o).unwrap();
    let socket = af_xdp_socket();
    let fd = std::os::fd::AsFd::as_fd(&socket);
    let entry = PortEntry { dev: 64, ..port_entry() };
    for (e, part) in [
        (gw.set_port(1, &entry), "device slot 64"),
        (gw.set_vlan(1, VlanId::new(1).unwrap(), &entry), "device slot 64"),
        (gw.set_dev(64, 1), "device slot 64"),
        (gw.set_xsk(64, 0, fd), "device slot 64"),
        (gw.set_xsk(0, 64, fd), "queue 64"),
    ] {
        let e = e.unwrap_err();
        assert!(matches!(e, MapError::Range { .. }) && e.to_string().contains(part), "{e}");
    }
    // Devices whose numbers meet in the port table.
    gw.set_port(5, &port_entry()).unwrap();
    gw.set_port(5, &port_entry()).unwrap();
    gw.set_port(70_000, &port_entry()).unwrap();
    let e = gw.set_port(5 + 4096, &port_entry()).unwrap_err();
    assert!(matches!(e, MapError::SlotTaken { ifindex: 4101, held: 5 }), "{e}");
    assert_eq!(gw.ports(), [5, 70_000]);
    gw.clear_port(4101);
    gw.clear_port(5);
    gw.set_port(4101, &port_entry()).unwrap();
    assert_eq!(gw.ports(), [4101, 70_000]);
    let e = gw.set_dev(1, 9999).unwrap_err();
    assert!(matches!(e, MapError::Map { .. }), "no such device: {e}");
    assert_eq!(gw.stats(PortIdx(63)).unwrap(), Default::default());
}

#[test]
fn a_successor_learns_what_its_predecessor_called_the_ports() {
    let Some(fs) = root() else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    let vlan = |id| VlanId::new(id).unwrap();
    let entry = |port, dev, on| PortEntry { port: PortIdx(port), dev, on, vlans: true, ..port_entry() };
    gw.set_port(5, &entry(2, 7, true)).unwrap();
    gw.set_vlan(5, vlan(100), &entry(3, 7, true)).unwrap();
    // A device with sub-ports alone.
    gw.set_port(6, &entry(4, 8, false)).unwrap();
    gw.set_vlan(6, vlan(9), &entry(4, 8, true)).unwrap();
    drop(gw);

    let gw = Gateway::open(&o).unwrap();
    assert_eq!(gw.port_of(5, None), Some((PortIdx(2), 7)));
    assert_eq!(gw.port_of(5, Some(vlan(100))), Some((PortIdx(3), 7)));
    assert_eq!(gw.port_of(5, Some(vlan(101))), None);
    assert_eq!((gw.port_of(6, None), gw.dev_of(6)), (None, Some(8)));
    assert_eq!(gw.port_of(6, Some(vlan(9))), Some((PortIdx(4), 8)));
    assert_eq!((gw.port_of(5 + 4096, None), gw.dev_of(5 + 4096), gw.dev_of(77)), (None, None, None));
    let mut vlans = gw.vlans();
    vlans.sort_unstable();
    assert_eq!(vlans, [(5, vlan(100)), (6, vlan(9))]);
}

/// Instructions that the verifier walks, printed and held to a budget: the kernel's limit is a
/// million, and load time goes with it.
#[test]
fn the_verifier_has_little_to_do() {
    const BUDGET: u32 = 248_000;
    let Some(fs) = root() else { return };
    let info = Gateway::open(&fs.options()).unwrap().program_info().unwrap();
    println!("gw_ingress: {} instructions verified, {} bytes of code", info.verified_insns, info.jited_bytes);
    if info.verified_insns == 0 {
        return skip("this kernel does not say how many instructions it verified");
    }
    assert!(info.verified_insns <= BUDGET, "{} instructions, budget {BUDGET}", info.verified_insns);
}
