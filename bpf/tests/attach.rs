//! Attaching to real (veth) devices in a network namespace of the test's own.

mod common;

use common::netns::*;
use common::packet::*;
use common::*;
use sag_bpf::{AttachMode, Attachment, Gateway, MapError, Mode, TestFrame, unload};
use std::process::Command;

/// Name of the program that `ip` sees on a device.
fn xdp_of(dev: &str) -> String {
    let o = Command::new("ip").args(["-d", "link", "show", "dev", dev]).output().unwrap();
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    if text.contains("xdpgeneric") {
        "generic".into()
    } else if text.contains("prog/xdp") {
        "native".into()
    } else {
        "none".into()
    }
}

#[test]
fn links_outlive_the_daemon_and_are_taken_over() {
    let (Some(fs), Some(_ns)) = (root(), Netns::new()) else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    let a = ifindex("va");
    let first = gw.attach(a, "va", AttachMode::Auto).unwrap();
    assert_eq!((first.mode, first.reason.clone(), first.reused), (Mode::Native, None, false));
    assert_eq!(xdp_of("va"), "native");
    assert_eq!(gw.attached().unwrap(), ["va"]);
    let old = gw.program_info().unwrap().id;
    drop(gw);
    assert_eq!(xdp_of("va"), "native", "the program stays without the daemon");

    let gw = Gateway::open(&o).unwrap();
    let id = |dev: &str| {
        let o = Command::new("ip").args(["-d", "-j", "link", "show", "dev", dev]).output().unwrap();
        let t = String::from_utf8_lossy(&o.stdout).into_owned();
        let at = t.split("\"prog\":{\"id\":").nth(1).unwrap();
        at.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u32>().unwrap()
    };
    assert_ne!(gw.program_info().unwrap().id, old);
    assert_eq!(id("va"), gw.program_info().unwrap().id, "opening exchanges the program");
    let again = gw.attach(a, "va", AttachMode::Native).unwrap();
    assert_eq!((again.mode, again.reused), (Mode::Native, true));

    // Another mode is another link.
    let generic = gw.attach(a, "va", AttachMode::Generic).unwrap();
    assert_eq!((generic.mode, generic.reused), (Mode::Generic, false));
    assert_eq!(xdp_of("va"), "generic");
    let auto = gw.attach(a, "va", AttachMode::Auto).unwrap();
    assert_eq!((auto.mode, auto.reused), (Mode::Generic, true), "hitless beats faster");

    assert!(gw.detach("va").unwrap());
    assert!(!gw.detach("va").unwrap());
    assert_eq!(xdp_of("va"), "none");
}

#[test]
fn unloading_frees_the_devices() {
    let (Some(fs), Some(_ns)) = (root(), Netns::new()) else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    ip(&["link", "set", "vb", "name", "vb.100"]).unwrap();
    gw.attach(ifindex("va"), "va", AttachMode::Native).unwrap();
    gw.attach(ifindex("vb.100"), "vb.100", AttachMode::Generic).unwrap();
    assert_eq!(gw.attached().unwrap(), ["va", "vb.100"]);
    drop(gw);
    assert!(unload(&o.pin_dir, &o.lock_file).unwrap());
    assert_eq!((xdp_of("va"), xdp_of("vb.100")), ("none".into(), "none".into()));
    assert!(!o.pin_dir.exists());
}

#[test]
fn a_device_that_vanishes_and_returns() {
    let (Some(fs), Some(_ns)) = (root(), Netns::new()) else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    gw.attach(ifindex("va"), "va", AttachMode::Native).unwrap();
    ip(&["link", "del", "va"]).unwrap();
    ip(&["link", "add", "va", "type", "veth", "peer", "name", "vb"]).unwrap();
    assert_eq!(xdp_of("va"), "none");
    let back = gw.attach(ifindex("va"), "va", AttachMode::Native).unwrap();
    assert!(!back.reused);
    assert_eq!(xdp_of("va"), "native");

    // Gone for good, and the daemon with it: the next one clears up.
    ip(&["link", "del", "va"]).unwrap();
    drop(gw);
    let gw = Gateway::open(&o).unwrap();
    assert_eq!(gw.attached().unwrap(), Vec::<String>::new());
}

#[test]
fn auto_falls_back_and_says_why() {
    let (Some(fs), Some(_ns)) = (root(), Netns::new()) else { return };
    let gw = Gateway::open(&fs.options()).unwrap();
    // Loopback has no native XDP.
    let e = gw.attach(ifindex("lo"), "lo", AttachMode::Native).unwrap_err();
    assert!(matches!(e, MapError::Attach { .. }), "{e}");
    let r = gw.attach(ifindex("lo"), "lo", AttachMode::Auto).unwrap();
    assert_eq!(r.mode, Mode::Generic);
    assert!(r.reason.as_deref().unwrap().starts_with("no native XDP"), "{r:?}");
    assert!(gw.detach("lo").unwrap());

    let e = gw.attach(9999, "ghost", AttachMode::Auto).unwrap_err();
    assert!(e.to_string().contains("ghost"), "{e}");
    assert_eq!(gw.attached().unwrap(), Vec::<String>::new());
}

#[test]
fn somebody_elses_program_is_not_pushed_aside() {
    let (Some(mine), Some(theirs), Some(_ns)) = (root(), root(), Netns::new()) else { return };
    let other = Gateway::open(&theirs.options()).unwrap();
    other.attach(ifindex("va"), "va", AttachMode::Native).unwrap();
    let gw = Gateway::open(&mine.options()).unwrap();
    for mode in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
        let e = gw.attach(ifindex("va"), "va", mode).unwrap_err();
        assert!(matches!(e, MapError::Busy { .. }), "{mode:?}: {e}");
    }
    assert_eq!(xdp_of("va"), "native");
    assert!(gw.attached().unwrap().is_empty());
}

/// A frame sent on vb arrives at va, natively, and is counted; the queue and device are the real ones.
#[test]
fn real_frames_arrive() {
    let (Some(fs), Some(_ns)) = (root(), Netns::new()) else { return };
    let gw = Gateway::open(&fs.options()).unwrap();
    let a = ifindex("va");
    gw.attach(a, "va", AttachMode::Native).unwrap();
    gw.set_port(a, &port_entry()).unwrap();
    let frame = v4([10, 0, 0, 1], [10, 0, 0, 2], 17, udp(1, 2, b"hello")).frame(None);
    send_raw("vb", &frame);
    // Veth polls on the sender's CPU, in the same call.
    let s = gw.stats(LAN).unwrap();
    assert!(s.rx_packets >= 1 && s.balanced(), "{s:?}");
    assert!(s.drops(sag_model::DropReason::NoWorker) >= 1, "no fail_action set: drop");

    let run = gw.test_run(TestFrame { bytes: &frame, ifindex: a, queue: 0 }).unwrap();
    assert_eq!(run.action, XDP_DROP);
    assert!(gw.test_run(TestFrame { bytes: &frame, ifindex: a, queue: 1 }).is_err(), "no such queue");
}

/// Whoever removes pins takes nothing away from a gateway that runs, and the pins come back, for its successor.
#[test]
fn removed_pins_come_back_and_the_program_stays() {
    let (Some(fs), Some(_ns)) = (root(), Netns::new()) else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    let a = ifindex("va");
    gw.attach(a, "va", AttachMode::Native).unwrap();
    assert!(gw.repair_pins().unwrap().is_empty());
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&o.pin_dir).unwrap();
        let mut all: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    let all = names();
    assert!(all.len() > 10 && all.contains(&"link-va".to_owned()), "{all:?}");
    for name in &all {
        std::fs::remove_file(o.pin_dir.join(name)).unwrap();
        assert_eq!(xdp_of("va"), "native", "{name}");
        assert_eq!(gw.repair_pins().unwrap(), std::slice::from_ref(name));
    }
    // Somebody else's object by the name of ours.
    std::fs::remove_file(o.pin_dir.join("gw_devs")).unwrap();
    std::fs::rename(o.pin_dir.join("gw_vlans"), o.pin_dir.join("gw_devs")).unwrap();
    assert_eq!(gw.repair_pins().unwrap(), ["gw_vlans", "gw_devs"]);
    // All of them, and the directory.
    std::fs::remove_dir_all(&o.pin_dir).unwrap();
    assert_eq!(gw.repair_pins().unwrap().len(), all.len());
    assert_eq!((names(), xdp_of("va")), (all, "native".into()));
    drop(gw);
    assert_eq!(xdp_of("va"), "native");
    let next = Gateway::open(&o).unwrap();
    assert!(next.reused() && next.attach(a, "va", AttachMode::Native).unwrap().reused);
}

#[test]
fn pins_follow_a_file_system_that_was_unmounted() {
    let (Some(fs), Some(_ns)) = (root(), Netns::new()) else { return };
    let o = fs.options();
    let gw = Gateway::open(&o).unwrap();
    gw.attach(ifindex("va"), "va", AttachMode::Native).unwrap();
    let mount = |args: &[&str]| assert!(Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    let at = fs.path().to_str().unwrap();
    mount(&["umount", at]);
    let e = gw.repair_pins().unwrap_err();
    assert!(e.missing.len() > 10 && e.to_string().contains("BPF file system"), "{e}");
    assert_eq!(xdp_of("va"), "native", "held by descriptor");
    mount(&["mount", "-t", "bpf", "bpf", at]);
    assert_eq!(gw.repair_pins().unwrap().len(), e.missing.len());
    drop(gw);
    assert_eq!(xdp_of("va"), "native", "held by the new pin");
    assert!(Gateway::open(&o).unwrap().reused());
}

#[test]
fn a_program_that_was_taken_off_is_put_back() {
    let (Some(mine), Some(theirs), Some(_ns)) = (root(), root(), Netns::new()) else { return };
    let gw = Gateway::open(&mine.options()).unwrap();
    let a = ifindex("va");
    gw.attach(a, "va", AttachMode::Native).unwrap();
    assert_eq!(gw.attachment(a, "va"), Attachment::Intact);
    let bpftool = |args: &[&str]| {
        let o = Command::new("bpftool").args(args).output();
        o.is_ok_and(|o| o.status.success())
    };
    let pin = mine.pin_dir().join("link-va");
    if !bpftool(&["link", "detach", "pinned", pin.to_str().unwrap()]) {
        return skip("bpftool is not there");
    }
    assert_eq!(gw.attachment(a, "va"), Attachment::Detached);
    gw.reattach(a, "va").unwrap();
    assert_eq!((gw.attachment(a, "va"), xdp_of("va")), (Attachment::Intact, "native".into()));

    // A link of somebody else cannot be pushed aside, and is named.
    assert!(bpftool(&["link", "detach", "pinned", pin.to_str().unwrap()]));
    let other = Gateway::open(&theirs.options()).unwrap();
    other.attach(a, "va", AttachMode::Native).unwrap();
    let foreign = other.program_info().unwrap().id;
    assert_eq!(gw.attachment(a, "va"), Attachment::Foreign(foreign));
    let e = gw.reattach(a, "va").unwrap_err();
    assert!(matches!(&e, MapError::Busy { detail, .. } if detail.contains(&foreign.to_string())), "{e}");
    other.detach("va").unwrap();
    gw.reattach(a, "va").unwrap();
    assert_eq!(gw.attachment(a, "va"), Attachment::Intact);
    assert!(gw.repair_pins().unwrap().is_empty(), "the new link has its pin");

    ip(&["link", "del", "va"]).unwrap();
    assert_eq!(gw.attachment(a, "va"), Attachment::NoDevice);
}
