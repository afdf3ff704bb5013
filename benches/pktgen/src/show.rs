//! Results for people, or as JSON.

use sag_pktgen::hist::Latency;
use sag_pktgen::outcome::Outcome;
use sag_pktgen::search::{Found, Sample};
use serde::Serialize;
use serde_json::{Value, json};

fn mpps(rate: f64) -> String {
    format!("{:.3} Mpps", rate / 1e6)
}

fn put(value: &impl Serialize) {
    // Numbers and texts of our own cannot fail to be JSON.
    println!("{}", serde_json::to_value(value).unwrap_or(Value::Null));
}

fn latency(l: &Latency) -> String {
    let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
    format!("p50 {} p90 {} p99 {} p99.9 {} max {} µs", us(l.p50), us(l.p90), us(l.p99), us(l.p999), us(l.max))
}

pub fn value(as_json: bool, v: &Value) {
    if as_json {
        return put(v);
    }
    for (key, v) in v.as_object().into_iter().flatten() {
        println!("{key:<12} {v}");
    }
}

pub fn outcome(as_json: bool, o: &Outcome) {
    if as_json {
        return put(o);
    }
    println!("sent         {} frames in {:.3} s, {}", o.sent, o.seconds, mpps(o.offered_pps));
    println!(
        "received     {} frames, {}, {:.3} Gbit/s on the wire",
        o.received,
        mpps(o.received_pps),
        o.received_bps / 1e9
    );
    println!("lost         {} ({:.4} %)", o.lost, o.loss * 100.0);
    if let Some(ns) = o.ns_per_frame {
        println!("a frame      {ns:.0} ns");
    }
    if o.late > 0.0 {
        println!("late         {:.3} s that the source fell behind its rate", o.late);
    }
    if let Some(c) = &o.checked {
        println!(
            "checked      {} flows; {} reordered, {} twice, {} with other addresses, {} renumbered",
            c.flows, c.reordered, c.duplicate, c.foreign, c.renumbered
        );
    }
    if let Some(l) = &o.latency {
        println!("latency      {}", latency(l));
    }
}

pub fn found(as_json: bool, f: &Found, loss: f64) {
    if as_json {
        return put(&json!({ "loss_allowed": loss, "rate": f.rate, "trials": f.trials }));
    }
    samples(&f.trials);
    println!("throughput   {} with at most {} % lost", mpps(f.rate), loss * 100.0);
}

fn samples(trials: &[Sample]) {
    for s in trials {
        println!("{:>16} offered, {:.4} % lost", mpps(s.offered), s.loss() * 100.0);
    }
}

pub fn curve(as_json: bool, trials: &[Sample]) {
    if as_json { put(&trials) } else { samples(trials) }
}

pub fn latencies(as_json: bool, rows: &[(f64, Outcome)]) {
    if as_json {
        return put(&rows.iter().map(|(share, o)| json!({ "load": share, "trial": o })).collect::<Vec<_>>());
    }
    for (share, o) in rows {
        let l = o.latency.as_ref().map_or("nothing received".to_owned(), latency);
        println!("{:>4.0} % {:>14}: {l}; {} lost", share * 100.0, mpps(o.offered_pps), o.lost);
    }
}
