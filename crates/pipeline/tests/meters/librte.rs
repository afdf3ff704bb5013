//! The standard meters (RFC 2697, RFC 2698, RFC 4115) made of our rates, packet for packet against
//! DPDK's librte_meter, where both can express the parameters: times of a byte that divide evenly, and
//! moments at which librte_meter adds tokens.

use sag_pipeline::qos::meter::{Rate, charge, fits, time_of, units};
use sag_testkit::Rng;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const GREEN: u8 = 0;
const YELLOW: u8 = 1;
const RED: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SrTcm = 0,
    TrTcm = 1,
    Rfc4115 = 2,
}

/// A rate that is a word, with its burst in bytes.
struct Bucket {
    tat: AtomicU64,
    cost: u64,
    burst: u64,
}

impl Bucket {
    fn new(bytes_per_second: u64, burst: u64) -> Bucket {
        let cost = Rate(bytes_per_second * 8).cost();
        Bucket { tat: AtomicU64::new(0), cost, burst: time_of(burst, cost) }
    }

    fn fits(&self, len: u64, now: u64) -> bool {
        fits(&self.tat, time_of(len, self.cost), units(now), units(now) + self.burst)
    }

    fn charge(&self, len: u64, now: u64) -> bool {
        charge(&self.tat, time_of(len, self.cost), units(now), units(now) + self.burst)
    }

    /// How long the bucket has been full; from here on it is full since now.
    fn overflow(&self, now: u64) -> u64 {
        let tat = self.tat.load(Relaxed);
        let since = units(now).saturating_sub(tat);
        self.tat.store(tat.max(units(now)), Relaxed);
        since
    }
}

struct Meter {
    kind: Kind,
    committed: Bucket,
    second: Bucket,
    /// Of srTCM: what the excess bucket lacks, as time; the committed one's overflow fills it.
    lacking: u64,
}

impl Meter {
    fn color(&mut self, len: u64, now: u64, was: u8) -> u8 {
        let (c, second) = (&self.committed, &self.second);
        match self.kind {
            Kind::SrTcm => {
                self.lacking = self.lacking.saturating_sub(c.overflow(now));
                if was == GREEN && c.charge(len, now) {
                    return GREEN;
                }
                let time = time_of(len, c.cost);
                if was != RED && self.lacking + time <= second.burst {
                    self.lacking += time;
                    return YELLOW;
                }
                RED
            }
            Kind::TrTcm => {
                if was == RED || !second.fits(len, now) {
                    return RED;
                }
                let green = was == GREEN && c.charge(len, now);
                assert!(second.charge(len, now));
                if green { GREEN } else { YELLOW }
            }
            Kind::Rfc4115 if was == GREEN && c.charge(len, now) => GREEN,
            Kind::Rfc4115 if was != RED && second.charge(len, now) => YELLOW,
            Kind::Rfc4115 => RED,
        }
    }
}

/// Nanoseconds that librte_meter has between two additions, for a byte of so many picoseconds.
fn period(byte_ps: u64) -> u64 {
    if byte_ps >= 100_000 { byte_ps / 1000 } else { 100_000u64.div_ceil(byte_ps) * byte_ps / 1000 }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A trace as text for the C program, and the colours that ours gives.
fn trace(d: &mut Rng, (kind, aware): (Kind, bool), text: &mut String) -> String {
    const PACKETS: usize = 300;
    // Picoseconds of a byte: 1 Mbit/s to 32 Gbit/s.
    let rates =
        [8_000_000, 2_000_000, 800_000, 160_000, 100_000, 80_000, 40_000, 8_000, 4_000, 1_000, 500, 250];
    let mut two = [d.pick(&rates), d.pick(&rates)];
    if kind == Kind::TrTcm {
        // The peak rate is no less than the committed one.
        two.sort_unstable_by(|a, b| b.cmp(a));
    }
    if kind == Kind::SrTcm {
        two[1] = two[0];
    }
    let per_second = two.map(|ps| 1_000_000_000_000 / ps);
    let bursts = [0; 2].map(|_| 1 + d.roll() % d.pick(&[3_000, 100_000]));
    let step = period(two[0]) / gcd(period(two[0]), period(two[1])) * period(two[1]);
    let burst = |n: usize| Bucket::new(per_second[n], bursts[n]);
    let mut m = Meter { kind, committed: burst(0), second: burst(1), lacking: 0 };
    let _ = writeln!(
        text,
        "{} {} {} {} {} {} {PACKETS}",
        kind as u8,
        u8::from(aware),
        per_second[0],
        bursts[0],
        per_second[1],
        bursts[1]
    );
    let (mut now, mut colors) = (0, String::new());
    // A pause of about a packet's time, so that every colour occurs.
    let usual = (two[0].min(two[1]) * 750 / 1000 / step).max(1);
    for _ in 0..PACKETS {
        now += step * (d.roll() % (2 * usual + 1)) * if d.once_in(40) { 100 } else { 1 };
        let (len, was) = (1 + d.roll() % 1500, if aware { (d.roll() % 3) as u8 } else { GREEN });
        let _ = writeln!(text, "{now} {len} {was}");
        colors.push(char::from(b'0' + m.color(len, now, was)));
    }
    colors
}

#[test]
fn packet_for_packet_as_librte_meter() {
    let Some(program) = compile() else { return };
    let mut d = Rng::new(std::env::var("SAG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7));
    let mut text = String::new();
    let meters = [Kind::SrTcm, Kind::TrTcm, Kind::Rfc4115].into_iter().flat_map(|k| [(k, false), (k, true)]);
    let meters: Vec<(Kind, bool)> = meters.collect();
    let want: Vec<String> = (0..600).map(|n| trace(&mut d, meters[n % meters.len()], &mut text)).collect();
    let mut child =
        Command::new(program.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start");
    let mut input = child.stdin.take().expect("stdin");
    let feeder = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let out = child.wait_with_output().expect("output");
    feeder.join().expect("feeder").expect("all of it was read");
    assert!(out.status.success());
    let got = String::from_utf8(out.stdout).expect("digits");
    let mut seen = vec![[0u32; 3]; meters.len()];
    for (n, (theirs, ours)) in got.lines().zip(&want).enumerate() {
        let which = n % meters.len();
        assert_eq!(theirs, ours, "trace {n} of {:?}: left librte_meter's, right ours", meters[which]);
        ours.bytes().for_each(|b| seen[which][usize::from(b - b'0')] += 1);
    }
    assert_eq!(got.lines().count(), want.len());
    for ((kind, aware), seen) in meters.iter().zip(&seen) {
        let blind = if *aware { "aware" } else { "blind" };
        println!("{kind:?}, colour-{blind}: green, yellow, red {seen:?}");
        assert!(seen.iter().all(|n| *n > 1_000), "{kind:?}, colour-{blind}: too few of a colour: {seen:?}");
    }
}

/// A compiled program, gone with this value.
struct Program(std::path::PathBuf);

impl Program {
    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The C program beside this file; `None`, with a reason printed, without DPDK.
fn compile() -> Option<Program> {
    let skip = |why: &str| {
        println!("SKIP {why}");
        eprintln!("SKIP {why}");
    };
    let flags = match Command::new("pkg-config").args(["--cflags", "libdpdk"]).output() {
        Ok(o) if o.status.success() => String::from_utf8_lossy(&o.stdout).into_owned(),
        _ => {
            skip("no librte_meter to compare with: install dpdk-dev and pkg-config");
            return None;
        }
    };
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/meters/rte_meter.c");
    let target = std::env::temp_dir().join(format!("sag-rte-meter-{}", std::process::id()));
    let out = Command::new("cc")
        .args(["-O1", "-o"])
        .arg(&target)
        .arg(source)
        .args(flags.split_whitespace())
        .args(["-lrte_meter", "-lrte_eal"])
        .output();
    match out {
        Ok(o) if o.status.success() => Some(Program(target)),
        Ok(o) => panic!("the C program does not compile:\n{}", String::from_utf8_lossy(&o.stderr)),
        Err(e) => {
            skip(&format!("no C compiler: {e}"));
            None
        }
    }
}
