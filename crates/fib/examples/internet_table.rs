//! A full Internet table: time to build, memory, lookups, changes; beside librte_fib where that is installed
//! (Debian: `dpdk-dev`), in turns.
//!
//! Usage: `internet_table [--routes4 N] [--routes6 N] [--rounds N] [--no-dpdk] [--json]`. Exits with 1 if an answer
//! differs. `--json`: a line of JSON for each comparison besides, with the values of all rounds. librte's vector code needs AVX-512; it runs without huge pages, as this table does.

use sag_fib::generate::{self, Rng};
use sag_fib::{FibAddr, Table};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io};

/// Addresses that are looked up in a round, in order.
const ADDRESSES: usize = 1 << 20;
const BATCH: usize = 64;
/// What librte answers where there is no route.
const NO_ROUTE: u32 = 0x3fff_ffff;
/// Next hops: those of a large exchange's peers.
const HOPS: u32 = 64;

struct Options {
    routes: [usize; 2],
    rounds: usize,
    dpdk: bool,
    json: bool,
}

fn options() -> Result<Options, String> {
    let mut o = Options { routes: [1_000_000, 200_000], rounds: 7, dpdk: true, json: false };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or(format!("{arg} needs a number"));
        match arg.as_str() {
            "--routes4" => o.routes[0] = number()?,
            "--routes6" => o.routes[1] = number()?,
            "--rounds" => o.rounds = number()?,
            "--no-dpdk" => o.dpdk = false,
            "--json" => o.json = true,
            _ => return Err(format!("unknown: {arg}")),
        }
    }
    Ok(o)
}

/// How lookups follow each other.
#[derive(Clone, Copy)]
enum Way {
    /// In batches; each may begin before the one before has ended.
    Bulk,
    /// Each waits for the answer before it.
    Chained,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Way::Bulk => "bulk",
            Way::Chained => "chained",
        }
    }
}

/// Nanoseconds a lookup, and all answers added up with their places.
fn look_up<A: FibAddr>(table: &sag_fib::Fib<A>, addrs: &[A], way: Way) -> (f64, u64) {
    let began = Instant::now();
    let mut sum = 0u64;
    let answer = |addr| table.lookup(addr).unwrap_or(NO_ROUTE);
    match way {
        Way::Bulk => {
            let mut hops = [0; BATCH];
            for (n, batch) in addrs.chunks_exact(BATCH).enumerate() {
                for (hop, addr) in hops.iter_mut().zip(batch) {
                    *hop = answer(*addr);
                }
                for (k, hop) in black_box(&hops).iter().enumerate() {
                    sum = sum.wrapping_add(u64::from(*hop) ^ (n * BATCH + k) as u64);
                }
            }
        }
        Way::Chained => {
            let mut hop = 0;
            for i in 0..addrs.len() {
                // No number is that large: the next address waits for the answer, and is the same.
                hop = black_box(answer(addrs[i + (hop >> 31) as usize]));
                sum = sum.wrapping_add(u64::from(hop) ^ i as u64);
            }
        }
    }
    (began.elapsed().as_nanos() as f64 / addrs.len() as f64, sum)
}

/// Builds a table and says what it takes.
fn build<A: FibAddr>(name: &str, routes: &[(A, u8, u32)]) -> Table<A> {
    let mut table = Table::new();
    let began = Instant::now();
    for &(addr, len, hop) in routes {
        if let Err(error) = table.insert(addr, len, hop) {
            println!("{name}: {error}");
            break;
        }
    }
    let (took, m) = (began.elapsed(), table.memory());
    println!(
        "{name}: {} routes in {:.0} ms; {:.1} MB for lookups ({:.1} MB in use), {:.1} MB for the list of routes",
        table.len(),
        took.as_secs_f64() * 1e3,
        m.fib() as f64 / 1e6,
        (m.root + m.nodes_used) as f64 / 1e6,
        m.routes as f64 / 1e6
    );
    table
}

/// Routes flap in batches, each of which is published while the snapshot before is still in use.
fn changes<A: FibAddr>(name: &str, table: &mut Table<A>, routes: &[(A, u8, u32)]) {
    const COUNT: usize = 100_000;
    for batch in [1, 500] {
        let mut rng = Rng::new(11);
        let mut times = Vec::with_capacity(COUNT);
        let mut publishing = Duration::ZERO;
        let mut published = table.snapshot();
        for n in 0..COUNT / 2 {
            let (addr, len, hop) = routes[rng.below(routes.len())];
            let began = Instant::now();
            table.remove(addr, len);
            let between = Instant::now();
            let back = table.insert(addr, len, hop);
            times.push(between - began);
            times.push(between.elapsed());
            assert!(back.is_ok(), "{back:?}");
            if n * 2 % batch == 0 {
                let began = Instant::now();
                drop(std::mem::replace(&mut published, table.snapshot()));
                publishing += began.elapsed();
            }
        }
        times.sort_unstable();
        let us = |d: Duration| d.as_nanos() as f64 / 1e3;
        let at = |share: f64| us(times[(times.len() as f64 * share) as usize]);
        let publications = (COUNT / 2).div_ceil(batch.div_ceil(2)) as f64;
        println!(
            "{name}: a change in batches of {batch}: {:.2} µs in the mean, {:.2} median, {:.1} 99 %, {:.0} 99.99 %, \
             {:.0} the worst; {:.1} µs to publish a batch",
            us(times.iter().sum::<Duration>()) / times.len() as f64,
            at(0.5),
            at(0.99),
            at(0.9999),
            us(times[times.len() - 1]),
            us(publishing) / publications
        );
    }
}

/// librte in a process of its own.
struct Librte {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Librte {
    /// Compiles and starts it; `None`: it is not installed.
    fn start(dir: &Path, files: &[PathBuf; 2]) -> io::Result<Option<Librte>> {
        let flags = |what| Command::new("pkg-config").args([what, "libdpdk"]).output();
        let (Ok(cflags), Ok(libs)) = (flags("--cflags"), flags("--libs")) else { return Ok(None) };
        if !cflags.status.success() {
            return Ok(None);
        }
        let words = |out: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(out).split_whitespace().map(str::to_owned).collect()
        };
        let program = dir.join("rte_fib");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rte_fib.c");
        let built = Command::new("cc")
            .args(["-O3", "-march=native", "-o"])
            .arg(&program)
            .arg(source)
            .args(words(&cflags.stdout))
            .args(words(&libs.stdout))
            .args(["-lrte_fib", "-lrte_rib", "-lrte_eal"])
            .status()?;
        if !built.success() {
            return Err(io::Error::other("rte_fib.c does not compile"));
        }
        let mut child =
            Command::new(program).args(files).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (Some(to), Some(from)) = (to, from) else { return Ok(None) };
        Ok(Some(Librte { child, to, from: BufReader::new(from) }))
    }

    fn read(&mut self) -> io::Result<(f64, f64)> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(a)), Some(Ok(b))) => Ok((a, b)),
            _ => Err(io::Error::other(format!("librte says: {line:?}"))),
        }
    }

    fn ask(&mut self, what: &str, way: &str) -> io::Result<(f64, u64)> {
        writeln!(self.to, "{what} {way}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        match (words.next().and_then(|w| w.parse().ok()), words.next().and_then(|w| w.parse().ok())) {
            (Some(ns), Some(sum)) => Ok((ns, sum)),
            _ => Err(io::Error::other(format!("librte says: {line:?}"))),
        }
    }
}

impl Drop for Librte {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Ours beside one of librte's, in turns; false: the answers differ.
fn compare<A: FibAddr>(
    librte: &mut Option<Librte>,
    peers: &[&str],
    (table, addrs): (&Table<A>, &[A]),
    (o, label): (&Options, &str),
) -> io::Result<bool> {
    let fib = table.snapshot();
    let mut same = true;
    for way in [Way::Bulk, Way::Chained] {
        let mut ours = Vec::new();
        let mut theirs = vec![Vec::new(); peers.len()];
        for _ in 0..o.rounds {
            let (ns, sum) = look_up(&fib, addrs, way);
            ours.push(ns);
            let Some(librte) = librte else { continue };
            for (peer, times) in peers.iter().zip(&mut theirs) {
                let (ns, other) = librte.ask(peer, way.name())?;
                same &= sum == other;
                times.push(ns);
            }
        }
        let family = if size_of::<A>() == 4 { "IPv4" } else { "IPv6" };
        let case = |peer: &str, times: &[f64]| {
            if o.json {
                let values: Vec<_> = times.iter().map(|ns| format!("{ns:.2}")).collect();
                let case = format!("{family} {}, {peer}", way.name());
                println!("{{\"case\": \"{case}\", \"unit\": \"ns\", \"values\": [{}]}}", values.join(", "));
            }
        };
        case(&format!("sag-fib beside {label}"), &ours);
        peers.iter().zip(&theirs).for_each(|(peer, times)| case(&format!("{peer} {label}"), times));
        let mine = median(&mut ours);
        print!("lookup, {}: {mine:.1} ns (best {:.1})", way.name(), ours[0]);
        for (peer, times) in peers.iter().zip(&mut theirs).filter(|(_, t)| !t.is_empty()) {
            let its = median(times);
            print!("; {peer} {label} {its:.1} ns (best {:.1}), ours/its {:.2}", times[0], mine / its);
        }
        println!();
    }
    if !same {
        println!("the answers differ");
    }
    Ok(same)
}

fn write_inputs(
    dir: &Path,
    (routes4, addrs4): (&[(u32, u8, u32)], &[u32]),
    (routes6, addrs6): (&[(u128, u8, u32)], &[u128]),
) -> io::Result<[PathBuf; 2]> {
    let files = [dir.join("v4"), dir.join("v6")];
    let head = |routes: usize, addrs: usize| [(routes as u32).to_ne_bytes(), (addrs as u32).to_ne_bytes()];
    let mut out = head(routes4.len(), addrs4.len()).concat();
    routes4.iter().flat_map(|r| [r.0, r.1.into(), r.2]).for_each(|w| out.extend_from_slice(&w.to_ne_bytes()));
    addrs4.iter().for_each(|a| out.extend_from_slice(&a.to_ne_bytes()));
    fs::write(&files[0], &out)?;
    out = head(routes6.len(), addrs6.len()).concat();
    for &(addr, len, hop) in routes6 {
        out.extend_from_slice(&addr.to_be_bytes());
        [u32::from(len), hop].iter().for_each(|w| out.extend_from_slice(&w.to_ne_bytes()));
    }
    addrs6.iter().for_each(|a| out.extend_from_slice(&a.to_be_bytes()));
    fs::write(&files[1], &out)?;
    Ok(files)
}

fn run(o: &Options) -> io::Result<bool> {
    let routes4 = generate::ipv4(1, o.routes[0], HOPS);
    let routes6 = generate::ipv6(2, o.routes[1], HOPS);
    let addrs4 = generate::addresses(3, ADDRESSES, &routes4, generate::host4);
    let addrs6 = generate::addresses(4, ADDRESSES, &routes6, generate::host6);
    let mut table4 = build("IPv4", &routes4);
    let mut table6 = build("IPv6", &routes6);
    build("IPv6, scattered", &generate::scattered6(5, o.routes[1], HOPS));

    let dir = env::temp_dir().join(format!("sag-fib-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let files = write_inputs(&dir, (&routes4, &addrs4), (&routes6, &addrs6))?;
    let started = if o.dpdk { Librte::start(&dir, &files) } else { Ok(None) };
    let result = started.and_then(|mut librte| {
        let mut labels = vec![""];
        match &mut librte {
            Some(l) => {
                let (four, six) = l.read()?;
                println!("librte: IPv4 in {four:.0} ms, IPv6 (trie and rib6) in {six:.0} ms");
                writeln!(l.to, "select vector")?;
                let vector = l.read()? == (0.0, 0.0);
                labels = if vector { vec!["scalar", "vector"] } else { vec!["scalar"] };
            }
            None => println!("librte is not here: SKIP"),
        }
        let mut same = true;
        for label in labels {
            if let Some(l) = &mut librte {
                writeln!(l.to, "select {label}")?;
                l.read()?;
            }
            println!("IPv4:");
            same &= compare(&mut librte, &["dir24_8"], (&table4, &addrs4), (o, label))?;
            println!("IPv6:");
            same &= compare(&mut librte, &["trie6", "rib6"], (&table6, &addrs6), (o, label))?;
        }
        Ok(same)
    });
    fs::remove_dir_all(&dir)?;
    changes("IPv4", &mut table4, &routes4);
    changes("IPv6", &mut table6, &routes6);
    result
}

fn main() -> ExitCode {
    match options().map_err(io::Error::other).and_then(|o| run(&o)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
