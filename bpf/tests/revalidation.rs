//! After a commit a worker revalidates every flow once; what comes meanwhile goes by the stale action, for
//! a few seconds at the most.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::PuntReason;
use sag_model::flow::*;
use sag_model::{Nanos, Zone};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const HERE: [u8; 4] = [10, 0, 0, 2];
const FAR: [u8; 4] = [198, 51, 100, 7];
const NEW: u32 = 8;

fn now() -> u32 {
    let text = std::fs::read_to_string("/proc/uptime").expect("uptime");
    let seconds: f64 = text.split(' ').next().and_then(|s| s.parse().ok()).expect("uptime");
    Nanos((seconds * 1e9) as u64).tick().0
}

fn frame(port: u16) -> Vec<u8> {
    v4(HERE, FAR, 17, udp(port, 53, b"question")).frame(None)
}

/// Flows from ports 1000.. of the epoch 7, of which so many revalidations may be under way.
fn flows(count: u16, window: u32) -> Option<Fixture> {
    let f = Fixture::new()?;
    f.nexthop(4, 0, 1500, 9, NH_VALID);
    for n in 0..count {
        let key = Key4 {
            addrs: u64::from(u32::from_le_bytes(HERE)) | u64::from(u32::from_le_bytes(FAR)) << 32,
            l4: l4_word((1000 + n).to_be(), 53u16.to_be(), 17, Zone::Lan),
        };
        f.install4(2 * u32::from(n + 1), key, |r| {
            let act = Action { nexthop: 4, meter: 0, act: FlowAct::Forward, flags: 0, tunnel: 0, nh_gen: 9 };
            r.action.store(act.to_word(), Relaxed);
        });
    }
    f.gw.control().revalidation_credit.store(window, Relaxed);
    commit(&f);
    Some(f)
}

fn commit(f: &Fixture) {
    f.gw.control().epoch_since.store(now(), Relaxed);
    f.gw.control().epoch.store(NEW, Relaxed);
}

/// Why the packet went to a worker; `None`: it was forwarded.
fn left(f: &Fixture, port: u16) -> Option<PuntReason> {
    let run = f.run(&frame(port));
    assert_eq!(run.action, XDP_REDIRECT);
    run.note.map(|note| note.reason)
}

fn revalidates(f: &Fixture, port: u16) -> bool {
    let why = left(f, port);
    assert!(matches!(why, None | Some(PuntReason::Epoch)), "{why:?}");
    why.is_some()
}

#[test]
fn a_flow_is_revalidated_once_and_goes_on() {
    let Some(f) = flows(1, 1024) else { return };
    let r = &f.gw.flows4()[2];
    assert!(revalidates(&f, 1000));
    assert_eq!(r.epoch.load(Relaxed), NEW | EPOCH_REVALIDATING);
    // Some of it may fall into the next tick.
    let again = (0..50).filter(|_| revalidates(&f, 1000)).count();
    assert!(again <= 5, "{again} of 50");
    // Judged: no packet is sent any more, also in later ticks.
    r.epoch.store(NEW, Relaxed);
    for _ in 0..5 {
        assert!(!revalidates(&f, 1000));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_is_sent_again_if_no_answer_comes() {
    let Some(f) = flows(1, 1024) else { return };
    for _ in 0..5 {
        assert!(revalidates(&f, 1000));
        std::thread::sleep(Duration::from_millis(40));
    }
}

#[test]
fn the_other_direction_of_a_judged_session_does_the_same() {
    let Some(f) = flows(1, 1024) else { return };
    let r = &f.gw.flows4()[2];
    r.epoch.store(NEW | EPOCH_SESSION | EPOCH_REVALIDATING, Relaxed);
    assert!(revalidates(&f, 1000));
    assert_eq!(r.epoch.load(Relaxed), NEW | EPOCH_SESSION | EPOCH_REVALIDATING, "the mark stays");
    assert!((0..50).filter(|_| revalidates(&f, 1000)).count() <= 5);
}

#[test]
fn no_more_are_sent_than_the_worker_takes() {
    let Some(f) = flows(1, 20) else { return };
    let again = |n: u32| {
        let sent = || {
            f.gw.flows4()[2].epoch.store(7, Relaxed);
            u32::from(revalidates(&f, 1000))
        };
        (0..n).map(|_| sent()).sum::<u32>()
    };
    assert_eq!(again(60), 20);
    // The worker has taken some.
    let queue = &f.gw.revalidations()[0];
    queue.taken.fetch_add(7, Relaxed);
    assert_eq!(again(60), 7);
    // What is never taken has been lost: after a while there is room again.
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(again(60), 20);
    // A worker that has taken more than was sent (before it was counted) is no reason to stop.
    queue.taken.fetch_add(1000, Relaxed);
    assert_eq!(again(60), 20);
}

#[test]
fn the_old_verdict_ends_after_four_seconds() {
    let Some(f) = flows(1, 1024) else { return };
    f.gw.control().epoch_since.store(now() - 250, Relaxed);
    for _ in 0..5 {
        assert!(revalidates(&f, 1000));
    }
}

#[test]
fn a_clock_that_is_behind_changes_nothing() {
    let Some(f) = flows(1, 1024) else { return };
    f.gw.control().epoch_since.store(now() + 2, Relaxed);
    assert!(revalidates(&f, 1000));
    assert!((0..50).filter(|_| revalidates(&f, 1000)).count() <= 5);
}

#[test]
fn without_credit_every_packet_is_a_workers() {
    let Some(f) = flows(1, 0) else { return };
    for _ in 0..5 {
        assert!(revalidates(&f, 1000));
    }
    assert_eq!(f.gw.flows4()[2].epoch.load(Relaxed), 7);
}

#[test]
fn what_the_old_verdict_does_not_cover_is_the_workers() {
    let Some(f) = flows(1, 1024) else { return };
    assert!(revalidates(&f, 1000));
    // Its next hop has gone on.
    f.nexthop(4, 0, 1500, 10, NH_VALID);
    for _ in 0..5 {
        assert!(matches!(left(&f, 1000), Some(PuntReason::Epoch | PuntReason::NextHop)));
    }
}
