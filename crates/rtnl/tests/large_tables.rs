//! The mirror and many routes at a time: what is announced faster than it is read, and read again in steps.

mod common;

use common::{Netns, Watched, addr, ip, ip_batch, two_pairs};
use sag_rtnl::Tables;
use std::time::{Duration, Instant};

fn has_route(tables: &Tables, dst: &str) -> bool {
    tables.routes_to(&dst.parse().expect(dst)).next().is_some()
}

fn batch(verb: &str, count: u32) -> String {
    (0..count)
        .map(|n| format!("route {verb} 10.{}.{}.0/24 via 192.0.2.{}\n", n >> 8, n & 255, 2 + n % 100))
        .collect()
}

fn transit(tables: &Tables) -> usize {
    tables.routes_sorted().filter(|r| r.dst.to_string().starts_with("10.")).count()
}

#[test]
fn ten_thousand_routes() {
    let Some(ns) = Netns::new("10k") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        let begun = Instant::now();
        ip_batch(&batch("add", 10_000));
        let loaded = begun.elapsed();
        let begun = Instant::now();
        // A poll takes some hundreds at most.
        let mut named = 0;
        while transit(w.tables()) < 10_000 {
            let changes = w.mirror.poll().unwrap();
            assert!(!changes.resynced, "they fit the buffer");
            let more = changes.prefixes.iter().filter(|p| p.to_string().starts_with("10.")).count();
            assert!((1..=512).contains(&more), "{more} after {named}");
            named += more;
        }
        println!("10,000 routes: ip needs {loaded:?}, the mirror {:?}", begun.elapsed());
        assert_eq!(named, 10_000);
        w.same_as_kernel("10,000 routes");
        let begun = Instant::now();
        let fresh = sag_rtnl::Mirror::open().unwrap();
        println!("10,000 routes: read again in {:?}", begun.elapsed());
        assert_eq!(transit(fresh.tables()), 10_000);
        // All of them go unannounced.
        let begun = Instant::now();
        ip("link set a0 down");
        let changes = w.poll();
        println!("10,000 routes: gone with their link, noticed in {:?} (with ip)", begun.elapsed());
        assert_eq!(transit(w.tables()), 0);
        assert!(changes.prefixes.len() >= 10_000);
        w.same_as_kernel("link down");
    });
}

#[test]
fn lost_notifications_are_made_up_for() {
    let Some(ns) = Netns::new("lost") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        w.mirror = sag_rtnl::Mirror::with_receive_buffer(16 << 10).unwrap();
        ip_batch(&batch("add", 2_000));
        ip("addr add 198.51.100.1/24 dev a0");
        ip("link set b0 mtu 1300");
        ip("neigh add 192.0.2.50 lladdr 02:00:00:00:00:50 dev a0");
        let changes = w.poll();
        assert!(changes.resynced && changes.links && changes.addrs && changes.routes, "{changes:?}");
        let neighbor = (w.index("a0"), addr("192.0.2.50"));
        assert!(changes.neighbors.contains(&neighbor));
        assert_eq!(transit(w.tables()), 2_000);
        w.same_as_kernel("an overrun");
        // And it listens again.
        w.after("route add 172.16.0.0/16 via 192.0.2.9", |t| has_route(t, "172.16.0.0/16"));
        assert!(!w.poll().resynced);
    });
}

/// IPv4 and IPv6 routes of a large table by one router each.
fn large(verb: &str, from: u32, count: u32, router: u32) -> String {
    let line = |n: u32| {
        format!("route {verb} 10.{}.{}.0/24 via 192.0.2.{router} metric 20\n", n >> 8, n & 255)
            + &format!("route {verb} 2001:db8:{n:x}::/48 via 2001:db8:a::{router} metric 20\n")
    };
    (from..from + count).map(line).collect()
}

/// Calls until what was lost is made up for, with something done between them. Returns how many had work to do.
fn in_steps(w: &mut Watched, mut between: impl FnMut(u32)) -> u32 {
    let (start, mut steps, mut resynced) = (Instant::now(), 0, false);
    loop {
        let changes = w.mirror.poll().unwrap();
        assert!(changes.prefixes.len() <= 8_000, "{} prefixes in a call", changes.prefixes.len());
        resynced |= changes.resynced;
        match changes.more {
            true => {
                steps += 1;
                between(steps);
            }
            false if resynced => return steps,
            // There is a pause between two readings.
            false => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the mirror never rests");
    }
}

/// However large the table, a call does a bounded share, and what changes meanwhile is followed.
#[test]
fn a_large_table_is_read_again_in_steps() {
    let Some(ns) = Netns::new("steps") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        w.mirror = sag_rtnl::Mirror::with_receive_buffer(16 << 10).unwrap();
        let before = w.mirror.readings();
        ip_batch(&large("add", 0, 12_000, 9));
        assert!(in_steps(&mut w, |_| {}) > 10, "24,000 routes are too much for a few steps");
        assert_eq!(transit(w.tables()), 12_000);
        assert_eq!(w.mirror.readings() - before, 1, "nothing has changed meanwhile");
        w.same_as_kernel("an overrun");

        // Many go unheard, and while the rest is read again some of it goes, moves and comes.
        let before = w.mirror.readings();
        ip_batch(&large("del", 0, 5_000, 9));
        let mut changes = 0;
        in_steps(&mut w, |step| {
            if step < 30 {
                changes += 1;
                ip_batch(&large("del", 6_000 + step * 200, 2, 9));
                ip_batch(&large("replace", 6_100 + step * 200, 1, 10));
                ip_batch(&large("add", step, 1, 9));
            }
        });
        assert!(changes > 10 && w.mirror.readings() > before, "{changes} changes amid reading");
        w.same_as_kernel("an overrun amid changes");
        assert_eq!(transit(w.tables()), 12_000 - 5_000 - changes);
    });
}

/// The kernel says nothing new before what waits has been taken, so what is read before may be out of date.
#[test]
fn routes_are_not_read_while_announcements_are_being_lost() {
    let Some(ns) = Netns::new("deaf") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        // Room for several polls.
        w.mirror = sag_rtnl::Mirror::with_receive_buffer(1 << 20).unwrap();
        ip_batch(&large("add", 0, 8_000, 9));
        assert!(w.mirror.poll().unwrap().more);
        // However long that has lasted.
        std::thread::sleep(Duration::from_millis(2_100));
        let mut step = 0;
        in_steps(&mut w, |_| {
            step += 1;
            if step < 4 {
                ip_batch(&large("del", step * 5, 5, 9));
            }
        });
        w.same_as_kernel("an overrun with a long queue");
        assert_eq!(transit(w.tables()), 8_000 - 15);
    });
}

/// Links going down race with the flush of their routes inside the kernel.
#[test]
fn flapping_links_leave_no_stale_routes() {
    let Some(ns) = Netns::new("flap") else { return };
    ns.enter(|| {
        let mut w = two_pairs();
        for round in 0..30 {
            ip_batch(&batch("add", 300));
            w.until(Duration::from_secs(5), "routes", |t| transit(t) == 300);
            w.after("link set a0 down", |t| transit(t) == 0);
            w.after("link set a0 up", |t| has_route(t, "192.0.2.0/25"));
            assert!(round < 30);
        }
        w.report("flapping_links");
    });
}
