//! Network namespaces for tests against the real kernel, and a mirror that is watched while `ip` works.

#![allow(dead_code)] // Each test binary uses its own part.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sag_rtnl::{Changes, Mirror, Tables};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PREFIX: &str = "rtnl-t-";
/// What the gateway promises: changes are followed within this time.
pub const PROMISE: Duration = Duration::from_millis(100);

/// A network namespace that goes away with the value.
pub struct Netns {
    pub name: String,
}

impl Netns {
    /// None, with the reason printed, where namespaces cannot be made.
    pub fn new(tag: &str) -> Option<Netns> {
        sweep();
        let name = format!("{PREFIX}{tag}-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        match made {
            Ok(out) if out.status.success() => Some(Netns { name }),
            Ok(out) => {
                println!(
                    "SKIP: cannot make a network namespace: {}",
                    String::from_utf8_lossy(&out.stderr).trim()
                );
                None
            }
            Err(e) => {
                println!("SKIP: cannot run ip: {e}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `body` on a thread inside the namespace; programs it starts are inside as well.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let ns = File::open(self.path()).expect("open the namespace");
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enter the namespace");
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `ip` in this namespace, from anywhere.
    pub fn ip(&self, args: &str) {
        ip(&format!("-n {} {args}", self.name));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Removes what a killed test run left behind.
fn sweep() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let pid = name.strip_prefix(PREFIX).and_then(|n| n.rsplit('-').next());
        if pid.is_some_and(|p| !Path::new("/proc").join(p).exists()) {
            let _gone = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

pub fn start(args: &str) -> Child {
    Command::new("ip").args(args.split_whitespace()).stderr(Stdio::inherit()).spawn().expect("start ip")
}

/// Runs `ip` with arguments without spaces; panics if it fails.
pub fn ip(args: &str) {
    let status = start(args).wait().expect("wait for ip");
    assert!(status.success(), "ip {args}: {status}");
}

pub fn ip_batch(lines: &str) {
    let file = tempfile(lines);
    ip(&format!("-batch {}", file.display()));
    let _gone = std::fs::remove_file(file);
}

/// Runs all the commands, whether the kernel accepts them or not.
pub fn ip_batch_force(lines: &str) {
    let file = tempfile(lines);
    let args = ["-force", "-batch"];
    let _some_refused = Command::new("ip").args(args).arg(&file).stderr(Stdio::null()).status();
    let _gone = std::fs::remove_file(file);
}

fn tempfile(text: &str) -> PathBuf {
    static SERIAL: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("{PREFIX}{}-{n}", std::process::id()));
    std::fs::write(&path, text).expect("write the batch");
    path
}

pub fn sysctl(path: &str, value: &str) {
    std::fs::write(Path::new("/proc/sys").join(path), value).unwrap_or_else(|e| panic!("{path}: {e}"));
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// A mirror with a record of how fast it was.
pub struct Watched {
    pub mirror: Mirror,
    pub slowest: Duration,
    /// Tables beside those of the default rules.
    pub followed: BTreeSet<u32>,
    steps: u32,
    /// When the last poll began that did not bring what was waited for.
    in_vain: Instant,
}

impl Watched {
    pub fn open() -> Watched {
        Watched {
            mirror: Mirror::open().expect("open the mirror"),
            slowest: Duration::ZERO,
            followed: BTreeSet::new(),
            steps: 0,
            in_vain: Instant::now(),
        }
    }

    pub fn tables(&self) -> &Tables {
        self.mirror.tables()
    }

    pub fn index(&self, name: &str) -> u32 {
        self.tables().link_named(name).unwrap_or_else(|| panic!("no link {name}")).ifindex
    }

    /// Polls until there is no more to do at once.
    pub fn poll(&mut self) -> Changes {
        let mut all = self.mirror.poll().expect("poll the mirror");
        while std::mem::take(&mut all.more) {
            let next = self.mirror.poll().expect("poll the mirror");
            all.links |= next.links;
            all.addrs |= next.addrs;
            all.routes |= next.routes;
            all.resynced |= next.resynced;
            all.more = next.more;
            all.prefixes.extend(next.prefixes);
            all.neighbors.extend(next.neighbors);
        }
        all.prefixes.sort_unstable();
        all.prefixes.dedup();
        all.neighbors.sort_unstable();
        all.neighbors.dedup();
        all
    }

    /// Follows these tables, too.
    pub fn follow(&mut self, numbers: &[u32]) {
        self.followed = numbers.iter().copied().collect();
        self.mirror.follow_tables(self.followed.clone()).expect("read the tables");
    }

    /// Polls until the tables are as expected; returns the changes until then.
    pub fn until(&mut self, limit: Duration, what: &str, want: impl Fn(&Tables) -> bool) -> Vec<Changes> {
        let start = Instant::now();
        let mut seen = Vec::new();
        loop {
            let looked = Instant::now();
            let changes = self.poll();
            if changes.any() {
                seen.push(changes);
            }
            if want(self.tables()) {
                return seen;
            }
            self.in_vain = looked;
            assert!(start.elapsed() < limit, "{what}: not seen within {limit:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until nothing has changed for a while.
    pub fn quiet(&mut self) {
        let start = Instant::now();
        let mut last = start;
        while last.elapsed() < Duration::from_millis(200) {
            if self.poll().any() {
                last = Instant::now();
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the tables never come to rest");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs `ip` and requires that the tables are as expected whenever they are checked later than the
    /// promised time after it ended. (Usually they are before it ends. The time until this thread gets
    /// to look says more about the load of the machine than about the mirror.)
    pub fn after(&mut self, args: &str, want: impl Fn(&Tables) -> bool) -> Vec<Changes> {
        let begun = Instant::now();
        let mut child = start(args);
        let waiter = std::thread::spawn(move || (child.wait().expect("wait for ip"), Instant::now()));
        let seen = self.until(Duration::from_secs(10), args, want);
        let now = Instant::now();
        let (status, ended) = waiter.join().expect("the waiting thread");
        assert!(status.success(), "ip {args}: {status}");
        let late = self.in_vain.saturating_duration_since(ended);
        assert!(late < PROMISE, "ip {args}: not there {late:?} after it ended");
        self.slowest = self.slowest.max(now - begun);
        self.steps += 1;
        self.same_as_kernel(args);
        seen
    }

    /// Demands that the followed tables equal freshly read ones.
    pub fn same_as_kernel(&mut self, when: &str) {
        let start = Instant::now();
        loop {
            self.poll();
            let mut fresh = Mirror::open().expect("open a second mirror");
            fresh.follow_tables(self.followed.clone()).expect("read more tables");
            let differ = difference(self.tables(), fresh.tables());
            if differ.is_empty() {
                return;
            }
            // The kernel may be changing right now (duplicate address detection, say).
            assert!(start.elapsed() < Duration::from_secs(3), "after {when}: {differ}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn report(&self, test: &str) {
        println!(
            "{test}: {} changes, slowest {:?} from the start of ip to the mirror",
            self.steps, self.slowest
        );
        assert_eq!(self.mirror.malformed(), 0);
    }
}

fn difference(followed: &Tables, fresh: &Tables) -> String {
    let mut out = String::new();
    let mut compare = |what: &str, a: Vec<String>, b: Vec<String>| {
        if a != b {
            let only = |x: &[String], y: &[String]| -> Vec<String> {
                x.iter().filter(|e| !y.contains(e)).cloned().collect()
            };
            let (ours, theirs) = (only(&a, &b), only(&b, &a));
            out += &format!("{what} differ: followed {ours:#?} kernel {theirs:#?}\n");
            if ours.is_empty() && theirs.is_empty() {
                out += &format!("order only: {a:#?} {b:#?}\n");
            }
        }
    };
    fn show<T: std::fmt::Debug>(items: impl Iterator<Item = T>) -> Vec<String> {
        items.map(|i| format!("{i:?}")).collect()
    }
    compare("links", show(followed.links()), show(fresh.links()));
    compare("addresses", show(followed.addresses()), show(fresh.addresses()));
    compare("routes", show(followed.routes_sorted()), show(fresh.routes_sorted()));
    compare("nexthops", show(followed.nexthop_objects()), show(fresh.nexthop_objects()));
    out
}

/// Two veth pairs in one namespace, all ends up, with addresses on a0 and b0. IPv6 without duplicate
/// address detection; what the kernel still does about them on its own is waited for.
pub fn two_pairs() -> Watched {
    sysctl("net/ipv6/conf/default/accept_dad", "0");
    ip("link set lo up");
    ip("link add a0 type veth peer name a1");
    ip("link add b0 type veth peer name b1");
    for dev in ["a0", "a1", "b0", "b1"] {
        ip(&format!("link set {dev} up"));
    }
    ip("addr add 192.0.2.1/25 dev a0");
    ip("addr add 192.0.2.129/25 dev b0");
    ip("addr add 2001:db8:a::1/64 dev a0");
    ip("addr add 2001:db8:b::1/64 dev b0");
    let mut w = Watched::open();
    w.until(Duration::from_secs(10), "four links with their own addresses", |t| {
        let ready = |dev: &str| {
            let addresses =
                |l: &sag_rtnl::Link| t.addresses_of(l.ifindex).filter(|a| a.addr.is_ipv6()).count();
            t.link_named(dev).is_some_and(|l| l.running && addresses(l) >= 1)
        };
        ["a0", "a1", "b0", "b1"].into_iter().all(ready) && t.addresses().all(|a| a.usable())
    });
    w.quiet();
    w
}
