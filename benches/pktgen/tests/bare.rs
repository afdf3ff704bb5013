//! Source and sink with a bare redirect between them, in namespaces of the test's own. Needs root.

use clap::Parser;
use sag_packet::encap;
use sag_pktgen::bare::{Bare, Looks};
use sag_pktgen::capture::{Capture, CapturedFrame};
use sag_pktgen::outcome::Outcome;
use sag_pktgen::plan::{Order, Traffic};
use sag_pktgen::rig::{Devices, Rig, Trial};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static SERIAL: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    devices: Devices,
    #[command(flatten)]
    traffic: Traffic,
}

/// lan:eth0 ═ gw:lan, gw:wan ═ wan:eth0
struct Lab(String);

fn ip(args: &str) -> Result<(), String> {
    match Command::new("ip").args(args.split_whitespace()).output() {
        Ok(o) if o.status.success() => Ok(()),
        Ok(o) => Err(format!("ip {args}: {}", String::from_utf8_lossy(&o.stderr).trim())),
        Err(e) => Err(format!("ip: {e}")),
    }
}

fn skip(why: &str) {
    println!("SKIP {why}");
    eprintln!("SKIP {why}");
}

impl Lab {
    /// None, with a reason printed, where it cannot be made.
    fn new() -> Option<Lab> {
        let n = SERIAL.fetch_add(1, Ordering::Relaxed);
        let lab = Lab(format!("pg-t{}-{n}", std::process::id()));
        match lab.build() {
            Ok(()) => Some(lab),
            Err(e) => {
                skip(&e);
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let p = &self.0;
        for part in ["lan", "gw", "wan"] {
            ip(&format!("netns add {p}-{part}"))?;
        }
        for dev in ["lan", "wan"] {
            ip(&format!("link add {dev} netns {p}-gw type veth peer name eth0 netns {p}-{dev}"))?;
        }
        for (part, dev) in [("gw", "lan"), ("gw", "wan"), ("lan", "eth0"), ("wan", "eth0")] {
            let settings = format!("sysctl -qw net.ipv6.conf.{dev}.disable_ipv6=1; ethtool -K {dev} gro on");
            let inside = Command::new("ip")
                .args(["netns", "exec", &format!("{p}-{part}"), "sh", "-c", &settings])
                .output()
                .map_err(|e| e.to_string())?;
            if !inside.status.success() {
                return Err(format!("{settings}: {}", String::from_utf8_lossy(&inside.stderr).trim()));
            }
            ip(&format!("-n {p}-{part} link set {dev} up"))?;
        }
        Ok(())
    }

    fn rig(&self, more: &str) -> Rig {
        self.rig_of(more, None)
    }

    fn rig_of(&self, more: &str, capture: Option<&Capture>) -> Rig {
        let p = &self.0;
        let line = format!("pktgen --tx {p}-lan:eth0 --rx {p}-wan:eth0 {more}");
        let o = Options::try_parse_from(line.split_whitespace()).unwrap();
        Rig::new(&o.traffic, &o.devices, capture).unwrap()
    }

    fn redirect(&self) -> Bare {
        self.redirect_with(Looks::default())
    }

    fn redirect_with(&self, looks: Looks) -> Bare {
        let at = |dev: &str| format!("{}-gw:{dev}", self.0).parse().unwrap();
        Bare::new(&at("lan"), &at("wan"), looks, false).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for part in ["lan", "gw", "wan"] {
            let _ = ip(&format!("netns del {}-{part}", self.0));
        }
    }
}

fn in_order(o: &Outcome, flows: u64) {
    let c = o.checked.as_ref().unwrap();
    assert_eq!(o.lost, 0, "{o:?}");
    assert_eq!((c.flows, c.reordered, c.duplicate), (flows, 0, 0), "{o:?}");
    assert_eq!((c.foreign, c.renumbered, o.other), (0, 0, 0), "{o:?}");
}

/// A second of traffic that waits for its sink.
#[test]
fn nothing_is_lost_and_all_is_in_order() {
    let Some(lab) = Lab::new() else { return };
    let _bare = lab.redirect();
    let rig = lab.rig("--flows 5000 --check --stamp");
    let o = rig.run(&Trial { seconds: 1.0, window: 128, ..Trial::default() }).unwrap();
    in_order(&o, 5000);
    let l = o.latency.as_ref().unwrap();
    assert_eq!(l.count, o.received);
    assert!(0 < l.p50 && l.p50 <= l.p99 && l.p99 <= l.max, "{l:?}");
    assert!(o.sent > 10_000 && o.seconds > 0.5, "{o:?}");
}

/// Only frames whose lines are found come through.
#[test]
fn looks_at_memory() {
    let Some(lab) = Lab::new() else { return };
    for each in [1, 2] {
        let _bare = lab.redirect_with(Looks { each, flows: 5000 });
        let o = lab.rig("--flows 5000 --check").run(&Trial {
            frames: 20_000,
            seconds: 10.0,
            window: 128,
            ..Trial::default()
        });
        in_order(&o.unwrap(), 5000);
    }
    let _bare = lab.redirect_with(Looks { each: 1, flows: 4000 });
    let o = lab.rig("--flows 5000").run(&Trial { frames: 5000, seconds: 10.0, ..Trial::default() }).unwrap();
    assert_eq!((o.sent, o.received), (5000, 4000), "{o:?}");
}

#[test]
fn sizes_and_versions() {
    let Some(lab) = Lab::new() else { return };
    let _bare = lab.redirect();
    for (options, bytes) in [
        ("--size 64", 60.0),
        ("--size 1518", 1514.0),
        ("--size imix", (7.0 * 60.0 + 4.0 * 566.0 + 1514.0) / 12.0),
        ("--src 2001:db8:1::1 --dst 2001:db8:2::1", 80.0),
    ] {
        let rig = lab.rig(&format!("--flows 100 --check {options}"));
        let o = rig.run(&Trial { frames: 12_000, seconds: 10.0, window: 128, ..Trial::default() }).unwrap();
        in_order(&o, 100);
        let each = o.received_bps / o.received_pps / 8.0 - 24.0;
        assert!((each - bytes).abs() < 0.01, "{options}: {each} bytes");
    }
}

#[test]
fn headers_are_those_of_the_far_end() {
    let header = |kind: &str| {
        let line = ["pktgen", "--tx", "lan:eth0", "--encap", kind];
        Options::try_parse_from(line).unwrap().traffic.outer.header()
    };
    let vxlan = header("vxlan");
    assert_eq!((vxlan.len(), encap::vxlan(&vxlan[28..])), (50, Some(77)));
    assert_eq!((&vxlan[12..20], &vxlan[22..24]), (&[203, 0, 113, 1, 203, 0, 113, 2][..], &[0x12, 0xB5][..]));
    assert_eq!((&vxlan[36..42], &vxlan[48..]), (&[2, 0, 0, 0, 0, 0x4C][..], &[8, 0][..]));
    let gre = header("gre");
    let parsed = encap::gre(&gre[20..]).unwrap();
    assert_eq!((gre.len(), parsed.key, parsed.ethertype), (24, None, 0x0800));
    assert_eq!((header("ipip").len(), header("ipip")[9]), (20, 4));
}

/// In front of the same frames; the sink takes them for a tunnel's.
#[test]
fn headers_of_tunnels() {
    let Some(lab) = Lab::new() else { return };
    let _bare = lab.redirect();
    for (encap, bytes) in [("vxlan", 110.0), ("gre", 84.0), ("ipip", 80.0)] {
        let rig = lab.rig(&format!("--flows 100 --any --encap {encap}"));
        let o = rig.run(&Trial { frames: 5000, seconds: 10.0, window: 128, ..Trial::default() }).unwrap();
        assert_eq!((o.sent, o.received, o.lost, o.other), (5000, 5000, 0, 0), "{encap}: {o:?}");
        let each = o.received_bps / o.received_pps / 8.0 - 24.0;
        assert!((each - bytes).abs() < 0.01, "{encap}: {each} bytes");
        drop(rig);
        // No plain frame is among them.
        let o =
            lab.rig(&format!("--flows 100 --encap {encap}")).run(&Trial { frames: 100, ..Trial::default() });
        assert_eq!(o.unwrap().received, 0, "{encap}");
    }
}

#[test]
fn every_flow_in_any_order() {
    let Some(lab) = Lab::new() else { return };
    let _bare = lab.redirect();
    // More flows than endpoints: several remotes each.
    let rig = lab.rig("--flows 150001 --endpoints 50000 --check");
    for order in [Order::Ascending, Order::Shuffled] {
        let t = Trial { frames: 150_001, seconds: 20.0, window: 128, order, ..Trial::default() };
        in_order(&rig.run(&t).unwrap(), 150_001);
    }
}

#[test]
fn a_rate_is_not_exceeded() {
    let Some(lab) = Lab::new() else { return };
    let _bare = lab.redirect();
    let rig = lab.rig("--flows 10 --batch 8");
    let o = rig.run(&Trial { seconds: 0.5, rate: 20_000.0, ..Trial::default() }).unwrap();
    assert!(o.sent > 0 && o.offered_pps < 20_500.0, "{o:?}");
    assert!(o.sent <= 10_000, "{o:?}");
}

/// The measurement can fail: without the redirect all is lost.
#[test]
fn loss_is_seen() {
    let Some(lab) = Lab::new() else { return };
    let rig = lab.rig("--flows 10");
    let o = rig.run(&Trial { frames: 1000, ..Trial::default() }).unwrap();
    assert_eq!((o.sent, o.received, o.lost, o.loss), (1000, 0, 1000, 1.0));
}

/// Frames of a capture come out in their sizes, again and again, and where asked for with their distances.
#[test]
fn a_capture_is_sent() {
    let Some(lab) = Lab::new() else { return };
    let _bare = lab.redirect();
    let frame = |n: u8, len: usize| {
        let mut bytes = vec![n; len];
        bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        bytes
    };
    let frames = [60, 600, 1514].map(|len| (Duration::from_millis(5), frame(len as u8, len)));
    let frames = frames.map(|(gap, bytes)| CapturedFrame { gap, bytes });
    let capture = Capture { frames: frames.into(), timed: false, left_out: 0 };
    let rig = lab.rig_of("", Some(&capture));
    let o = rig.replay(&Trial { frames: 9000, ..Trial::default() }).unwrap();
    assert_eq!((o.sent, o.received, o.lost), (9000, 9000, 0), "{o:?}");
    let each = o.received_bps / o.received_pps / 8.0 - 24.0;
    assert!((each - (60.0 + 600.0 + 1514.0) / 3.0).abs() < 0.01, "{each} bytes");
    drop(rig);

    let rig = lab.rig_of("", Some(&Capture { timed: true, ..capture }));
    let start = Instant::now();
    let o = rig.replay(&Trial { frames: 31, ..Trial::default() }).unwrap();
    assert_eq!((o.sent, o.received), (31, 31), "{o:?}");
    assert!(start.elapsed() >= Duration::from_millis(150), "30 distances of 5 ms, {o:?}");
}

#[test]
fn mistakes_are_named() {
    let Some(lab) = Lab::new() else { return };
    let rig = lab.rig("--flows 10");
    assert!(rig.run(&Trial::default()).unwrap_err().to_string().contains("how much"));
    let e = rig.run(&Trial { frames: 1, flows: 11, ..Trial::default() }).unwrap_err();
    assert!(e.to_string().contains("set up for 10"), "{e}");
    let try_rig = |line: &str| {
        let o = Options::try_parse_from(line.split_whitespace()).unwrap();
        format!("{:#}", Rig::new(&o.traffic, &o.devices, None).unwrap_err())
    };
    assert!(try_rig("pktgen --tx nowhere-at-all:eth0").contains("no network namespace nowhere-at-all"));
    assert!(try_rig("pktgen --tx lo").contains("--dev"));
    let missing = try_rig(&format!("pktgen --tx {}-lan:eth7", lab.0));
    assert!(missing.contains("no device"), "{missing}");
}
