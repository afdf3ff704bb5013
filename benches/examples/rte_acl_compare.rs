//! The classifier beside librte_acl, on the same rules and the same trace, in batches of 32.
//!
//! Writes the rule set and the trace in the format of `dpdk-test-acl` (Debian: `dpdk-dev`), checks that
//! both give the same answer to every packet, then times them in turns and prints the median and the
//! fastest of the rounds (on a machine with other work, the fastest is what counts).
//!
//! Usage: `rte_acl_compare [STYLE ...] [COUNT ...] [v6] [--rounds N] [--json]`; by default every style with
//! 100, 1,000 and 10,000 rules. `--json`: for each case also a line with librte_acl's best by ours, a value a
//! round. Exits with 1 if answers differ.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use sag_acl::generate::{self, FromV4, Style};
use sag_acl::{AddrFamily, Classifier, Key, NO_MATCH, Rule};

const METHODS: [&str; 4] = ["sse", "avx2", "avx512x16", "avx512x32"];
const TRACE: usize = 65_536;
const BATCH: usize = 32;

/// Addresses as each family writes them in the files.
trait Text: FromV4 + AddrFamily {
    const FLAG: Option<&'static str>;
    fn in_rule(self) -> String;
    fn in_trace(self) -> String;
}

impl Text for u32 {
    const FLAG: Option<&'static str> = None;
    fn in_rule(self) -> String {
        Ipv4Addr::from(self).to_string()
    }
    fn in_trace(self) -> String {
        self.to_string()
    }
}

impl Text for u128 {
    const FLAG: Option<&'static str> = Some("--ipv6=4B");
    fn in_rule(self) -> String {
        Ipv6Addr::from(self).to_string()
    }
    fn in_trace(self) -> String {
        Ipv6Addr::from(self).to_string()
    }
}

struct Files {
    dir: PathBuf,
    rules: PathBuf,
    trace: PathBuf,
}

impl Files {
    fn write<A: Text>(rules: &[Rule<A>], keys: &[Key<A>]) -> io::Result<Files> {
        let dir = env::temp_dir().join(format!("sag-acl-compare-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let files = Files { rules: dir.join("rules"), trace: dir.join("trace"), dir };
        let mut text = String::new();
        for r in rules {
            let (proto, mask) = r.proto.map_or((0, 0), |p| (p, 255));
            let _ = writeln!(
                text,
                "@{}/{} {}/{} {} : {} {} : {} {proto}/{mask}",
                r.src.addr().in_rule(),
                r.src.prefix_len(),
                r.dst.addr().in_rule(),
                r.dst.prefix_len(),
                r.sport.lo(),
                r.sport.hi(),
                r.dport.lo(),
                r.dport.hi(),
            );
        }
        fs::write(&files.rules, &text)?;
        text.clear();
        for k in keys {
            let (src, dst) = (k.src().in_trace(), k.dst().in_trace());
            let _ = writeln!(text, "{src} {dst} {} {} {}", k.sport(), k.dport(), k.proto());
        }
        fs::write(&files.trace, &text)?;
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs dpdk-test-acl; what it printed, or why it failed.
fn rte_acl<A: Text>(files: &Files, method: &str, rules: usize, more: &[String]) -> Result<String, String> {
    let path = |flag: &str, p: &Path| format!("--{flag}={}", p.display());
    let output = Command::new("timeout")
        .args(["300", "dpdk-test-acl", "--no-huge", "--no-pci", "--no-telemetry", "--no-shconf"])
        .args(["-m", "1536", "-l", "0", "--force-max-simd-bitwidth=512", "--log-level=error", "--"])
        .args([path("rulesf", &files.rules), path("tracef", &files.trace)])
        .args([format!("--rulenum={}", rules + 1), format!("--tracenum={}", TRACE + 1)])
        .args([format!("--tracestep={BATCH}"), format!("--alg={method}"), "--bldcat=1".into()])
        .args(A::FLAG)
        .args(more)
        .output()
        .map_err(|e| format!("cannot start dpdk-test-acl: {e}; install dpdk-dev"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.lines().find(|l| l.contains("rror") || l.contains("Cause")).unwrap_or("no message");
        Err(format!("{}: {why}", output.status))
    }
}

/// The answers, packet by packet.
fn rte_acl_answers<A: Text>(files: &Files, rules: usize) -> Result<Vec<u32>, String> {
    let text = rte_acl::<A>(files, "scalar", rules, &["--verbose=2".into()])?;
    Ok(text.lines().filter_map(|l| l.split_once("result: ")?.1.trim().parse().ok()).collect())
}

/// Nanoseconds a packet.
fn rte_acl_time<A: Text>(
    files: &Files,
    method: &str,
    rules: usize,
    iterations: usize,
) -> Result<f64, String> {
    let more = ["--verbose=0".into(), format!("--iter={iterations}")];
    let text = rte_acl::<A>(files, method, rules, &more)?;
    let line = text.lines().find(|l| l.contains("pkt/sec")).ok_or("no result line")?;
    let rate = line.rsplit_once(", ").and_then(|(_, r)| r.split_whitespace().next()?.parse::<f64>().ok());
    rate.map(|r| 1e9 / r).ok_or_else(|| format!("cannot read: {line}"))
}

fn our_time<A: Text>(classifier: &Classifier<A>, keys: &[Key<A>], at_least: Duration) -> f64 {
    let mut found = [NO_MATCH; BATCH];
    let mut packets = 0;
    let start = Instant::now();
    while start.elapsed() < at_least {
        for keys in keys.chunks(BATCH) {
            classifier.classify_batch(keys, &mut found);
            std::hint::black_box(&found);
        }
        packets += keys.len();
    }
    start.elapsed().as_secs_f64() * 1e9 / packets as f64
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns whether the answers agree.
fn compare<A: Text>(style: Style, count: usize, rounds: usize, json: bool) -> io::Result<bool> {
    let rules = generate::rules::<A>(style, count, 1);
    let keys = generate::trace(&rules, TRACE, 2);
    let files = Files::write(&rules, &keys)?;
    let start = Instant::now();
    let classifier = Classifier::build(&rules);
    let built = start.elapsed();

    let mut ours = vec![NO_MATCH; keys.len()];
    classifier.classify_batch(&keys, &mut ours);
    let start = Instant::now();
    let (same, note) = match rte_acl_answers::<A>(&files, count) {
        Ok(theirs) => {
            let differ = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
            let missing = ours.len().abs_diff(theirs.len());
            (differ + missing == 0, format!("{differ} of {} answers differ, {missing} missing", ours.len()))
        }
        Err(why) => (true, format!("librte_acl gives no answers ({why})")),
    };
    let other_took = start.elapsed();
    let family = if A::FLAG.is_some() { " v6" } else { "" };
    println!(
        "{}{family}, {count} rules: built in {:.1} ms, {:.2} MB; {note}, in {:.1} s",
        style.name(),
        built.as_secs_f64() * 1e3,
        classifier.memory() as f64 / 1e6,
        other_took.as_secs_f64(),
    );

    let mut own = Vec::new();
    let mut other = METHODS.map(|_| Vec::new());
    for round in 0..rounds {
        for (method, times) in METHODS.iter().zip(&mut other) {
            match rte_acl_time::<A>(&files, method, count, 60) {
                Ok(t) => times.push(t),
                Err(why) if round == 0 => println!("    {method}: {why}"),
                Err(_) => {}
            }
            own.push(our_time(&classifier, &keys, Duration::from_millis(80)));
        }
    }
    let fastest = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    for (what, of) in [("median", median as fn(&[f64]) -> f64), ("fastest", fastest)] {
        let ours = of(&own);
        let theirs: Vec<f64> = other.iter().map(|times| of(times)).collect();
        let best = fastest(&theirs);
        print!("    {what:8} sag-acl {ours:.1} ns;");
        for (method, time) in METHODS.iter().zip(theirs) {
            print!(" {method} {time:.1}");
        }
        println!("; librte_acl's best / ours = {:.2}", best / ours);
    }
    if json {
        let of_round = |round: usize| {
            let theirs = other.iter().filter_map(|times| times.get(round).copied());
            let ours = &own[round * METHODS.len()..(round + 1) * METHODS.len()];
            theirs.fold(f64::INFINITY, f64::min) / fastest(ours)
        };
        let ratios: Vec<String> =
            (0..rounds).map(of_round).filter(|r| r.is_finite()).map(|r| format!("{r:.3}")).collect();
        println!(
            "{{\"case\": \"{}{family}, {count} rules\", \"ratios\": [{}]}}",
            style.name(),
            ratios.join(", ")
        );
    }
    Ok(same)
}

fn main() -> io::Result<ExitCode> {
    let (mut styles, mut counts, mut rounds, mut v6, mut json) = (Vec::new(), Vec::new(), 5, false, false);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        if let Some(style) = Style::ALL.into_iter().find(|s| s.name() == arg) {
            styles.push(style);
        } else if let Ok(count) = arg.parse() {
            counts.push(count);
        } else if arg == "v6" {
            v6 = true;
        } else if arg == "--json" {
            json = true;
        } else if arg == "--rounds" {
            rounds = args.next().and_then(|n| n.parse().ok()).unwrap_or(rounds);
        } else {
            eprintln!(
                "unknown argument {arg}: give styles (acl fw ipc), rule counts, v6, --rounds N, --json"
            );
            return Ok(ExitCode::from(2));
        }
    }
    if styles.is_empty() {
        styles.extend(Style::ALL);
    }
    if counts.is_empty() {
        counts.extend([100, 1_000, 10_000]);
    }
    let mut same = true;
    for style in styles {
        for &count in &counts {
            same &= if v6 {
                compare::<u128>(style, count, rounds, json)?
            } else {
                compare::<u32>(style, count, rounds, json)?
            };
        }
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
