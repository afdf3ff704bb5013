//! Random tables in a network namespace: the gateway decides as `ip route get` does.

use super::*;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sag_rtnl::Mirror;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const ROUNDS: u64 = 12;
const ROUTES: u64 = 30;
const LOOKUPS: u64 = 60;

/// Ports `lan` and `wan`, `oth` that is none, each with the other end of its pair.
const DEVICES: [&str; 3] = ["lan", "wan", "oth"];

struct Netns(String);

impl Drop for Netns {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Runs commands of `ip`, all of them, whether the kernel accepts them or not. What it writes, and what it says of each command
/// that it refuses, by number.
fn ip_batch(flag: &str, lines: &[String]) -> (String, BTreeMap<usize, String>) {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let n = SERIAL.fetch_add(1, Ordering::Relaxed);
    let file: PathBuf = std::env::temp_dir().join(format!("routes-t-{}-{n}", std::process::id()));
    std::fs::write(&file, lines.join("\n")).unwrap();
    let out = Command::new("ip").args([flag, "-o", "-force", "-batch"]).arg(&file).output().unwrap();
    let _gone = std::fs::remove_file(&file);
    let mut refused = BTreeMap::new();
    let mut said = String::new();
    for line in String::from_utf8_lossy(&out.stderr).lines() {
        match line.strip_prefix("Command failed").and_then(|l| l.rsplit(':').next()?.parse::<usize>().ok()) {
            Some(no) => {
                refused.insert(no - 1, std::mem::take(&mut said));
            }
            None => said = line.to_owned(),
        }
    }
    (String::from_utf8_lossy(&out.stdout).into_owned(), refused)
}

fn sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// An address of a small world, so that prefixes and destinations meet often.
fn address(rng: &mut Rng, v6: bool) -> String {
    let (a, b) = (rng.below(3), rng.below(4));
    if v6 { format!("2001:db8:{a:x}:{b:x}::1") } else { format!("10.{a}.{b}.1") }
}

fn prefix(rng: &mut Rng, v6: bool) -> String {
    let len = rng.pick(if v6 {
        &["32", "46", "48", "63", "64", "128", "0"]
    } else {
        &["8", "14", "16", "23", "24", "32", "0"]
    });
    let net: ipnet::IpNet = format!("{}/{len}", address(rng, v6)).parse().unwrap();
    net.trunc().to_string()
}

fn gateway(rng: &mut Rng, v6: bool) -> (String, &'static str) {
    let dev = rng.below(3) as usize;
    let host = 2 + rng.below(3);
    (if v6 { format!("2001:db8:ff0{dev}::{host}") } else { format!("172.16.{dev}.{host}") }, DEVICES[dev])
}

fn random_route(rng: &mut Rng, v6: bool) -> String {
    let dst = prefix(rng, v6);
    let metric = 1 + rng.below(4);
    let table = match rng.below(if v6 { 6 } else { 5 }) {
        0 => "table default",
        _ => "table main",
    };
    let via = |rng: &mut Rng| {
        let (gateway, dev) = gateway(rng, v6);
        format!("via {gateway} dev {dev}")
    };
    let target = match rng.below(12) {
        0 => "blackhole",
        1 => "unreachable",
        2 => "prohibit",
        3 | 4 => "throw",
        kind => {
            let way = match kind {
                5 => format!("dev {}", rng.pick(&DEVICES)),
                6 | 7 => format!("nexthop {} weight 2 nexthop {} nexthop {}", via(rng), via(rng), via(rng)),
                _ => via(rng),
            };
            // The metric stands before the next hops.
            return format!("route add {dst} metric {metric} {table} {way}");
        }
    };
    format!("route add {target} {dst} metric {metric} {table}")
}

/// What the kernel does, in words that the gateway's can be compared with.
fn kernel_says(stdout: &str, refused: &BTreeMap<usize, String>, count: usize) -> Vec<String> {
    let mut lines = stdout.lines();
    let one = |no| match refused.get(&no) {
        Some(error) => match error.rsplit(": ").next().unwrap_or_default() {
            "Network is unreachable" => "no route",
            "No route to host" => "unreachable",
            "Permission denied" => "prohibit",
            "Invalid argument" => "blackhole",
            other => panic!("{other}"),
        }
        .to_owned(),
        None => {
            let line = lines.next().unwrap_or_else(|| panic!("no answer to lookup {no}"));
            let words: Vec<_> = line.split_whitespace().collect();
            let after = |w: &str| words.iter().position(|x| *x == w).map(|i| words[i + 1]);
            let dev = after("dev").unwrap_or("?");
            match after("via") {
                _ if words[0] == "local" => "local".to_owned(),
                Some(via) => format!("{via} by {dev}"),
                None => format!("on link of {dev}"),
            }
        }
    };
    (0..count).map(one).collect()
}

/// All that the gateway may do.
fn gateway_says((plan, routes): (&Plan, &RoutingTables), tables: &Tables, to: IpAddr) -> Vec<String> {
    let way = |via: Option<IpAddr>, dev: &str| match via {
        Some(via) => format!("{via} by {dev}"),
        None => format!("on link of {dev}"),
    };
    let row = routes.longest(to.into()).find(|r| r.0.is_default()).map(|r| r.2);
    let found = plan.snapshot.route(to);
    assert_eq!(row.map(|r| &r.route), found, "{to}: rows and lookup agree");
    let Some(row) = row else { return vec!["no route".into()] };
    let device = |ifindex| tables.link(ifindex).map_or("?", |l| l.name.as_str());
    let mut all: Vec<String> =
        row.foreign.iter().map(|(ifindex, via, _)| way(*via, device(*ifindex))).collect();
    all.push(
        match &row.route {
            Route::Via(members) => {
                all.extend(members.iter().map(|m| way(m.via, &plan.bindings[m.port.index()].device)));
                return all;
            }
            Route::NotOurs => return all,
            Route::Local => "local",
            Route::Blackhole => "blackhole",
            Route::Unreachable => "unreachable",
            Route::Prohibit => "prohibit",
            Route::Throw => "no route",
        }
        .to_owned(),
    );
    all
}

#[test]
fn random_tables_lead_where_the_kernel_leads() {
    let name = format!("routes-t-{}", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &name]).stderr(Stdio::null()).status();
    if !made.is_ok_and(|s| s.success()) {
        println!("SKIP: cannot make a network namespace");
        return;
    }
    let ns = Netns(name);
    let file = File::open(format!("/run/netns/{}", ns.0)).unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            compare_in_this_namespace();
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn compare_in_this_namespace() {
    sysctl("ipv6/conf/default/accept_dad", "0");
    let mut setup = vec!["link set lo up".to_owned()];
    for (i, dev) in DEVICES.into_iter().enumerate() {
        setup.push(format!("link add {dev} type veth peer name {dev}1"));
        setup.extend([format!("link set {dev} up"), format!("link set {dev}1 up")]);
        setup.push(format!("addr add 172.16.{i}.1/24 dev {dev}"));
        setup.push(format!("addr add 2001:db8:ff0{i}::1/64 dev {dev}"));
    }
    let (_, refused) = ip_batch("-o", &setup);
    assert!(refused.is_empty(), "{refused:?}");
    for family in ["ipv4", "ipv6"] {
        for dev in ["all", "default", "lan", "wan", "oth"] {
            sysctl(&format!("{family}/conf/{dev}/ignore_routes_with_linkdown"), "1");
        }
    }
    // A router does not choose by what it knows of neighbors.
    sysctl("ipv6/conf/all/forwarding", "1");
    let text = "[[port]]\nname = \"0\"\ndevice = \"lan\"\nrole = \"lan\"\n[[port]]\nname = \"1\"\ndevice = \"wan\"\nrole = \"wan\"\n";
    let config = config::parse(text, "test.toml").unwrap().config;
    let mut mirror = Mirror::open().unwrap();
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let v6 = round % 2 == 1;
        let flag = if v6 { "-6" } else { "-4" };
        // One of the links has no carrier in every second pair of rounds.
        let down = (round % 4 >= 2).then(|| rng.pick(&DEVICES));
        for dev in DEVICES {
            let state = if Some(dev) == down { "down" } else { "up" };
            ip_batch("-o", &[format!("link set {dev}1 {state}")]);
        }
        settle(&mut mirror, down);
        let routes: Vec<String> = (0..ROUTES).map(|_| random_route(&mut rng, v6)).collect();
        let (_, refused) = ip_batch(flag, &routes);
        accepted += routes.len() - refused.len();
        let to: Vec<String> = (0..LOOKUPS).map(|_| address(&mut rng, v6)).collect();
        let lookups: Vec<String> = to.iter().map(|a| format!("route get {a}")).collect();
        let (answers, refused) = ip_batch(flag, &lookups);
        let kernel = kernel_says(&answers, &refused, to.len());
        while mirror.poll().unwrap().any() {}
        let mut gateway = Gateway::new();
        let plan = gateway.compile(&config, mirror.tables(), 1, NOW);
        for (to, kernel) in to.iter().zip(kernel) {
            let ours = gateway_says((&plan, &gateway.compiler.routes), mirror.tables(), ip(to));
            assert!(
                ours.contains(&kernel),
                "round {round}: {to} is {kernel} for the kernel, {ours:?} here: {routes:#?}"
            );
            let kind = if kernel.contains(" by ") { "routed" } else { kernel.split(" of").next().unwrap() };
            *seen.entry(kind.to_owned()).or_default() += 1;
        }
        let undo = ["route flush table main proto boot", "route flush table default"].map(str::to_owned);
        ip_batch(flag, &undo);
    }
    println!("{accepted} routes, {seen:?}");
    for kind in ["routed", "on link", "no route", "unreachable", "prohibit", "blackhole"] {
        assert!(seen.get(kind).is_some_and(|n| *n >= 5), "{kind} hardly ever happened: {seen:?}");
    }
}

/// Waits until the kernel has noticed which links have no carrier.
fn settle(mirror: &mut Mirror, down: Option<&str>) {
    for _ in 0..1000 {
        let _changes = mirror.poll().unwrap();
        let as_wanted =
            |dev: &&str| mirror.tables().link_named(dev).is_some_and(|l| l.running == (Some(*dev) != down));
        if DEVICES.iter().all(as_wanted) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the links do not come to rest");
}
