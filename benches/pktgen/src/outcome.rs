//! What a trial found. Reads the words of `struct pg_state` and `struct pg_rx`.

use crate::hist::{self, Latency};
use serde::Serialize;

/// Bits a frame takes on the wire besides its bytes in memory: FCS, preamble, gap.
const ON_THE_WIRE: u64 = 24;

#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub sent: u64,
    pub received: u64,
    /// Sent and not received.
    pub lost: u64,
    /// Of the frames sent.
    pub loss: f64,
    /// Of sending.
    pub seconds: f64,
    /// Frames a second sent.
    pub offered_pps: f64,
    /// Frames a second received.
    pub received_pps: f64,
    /// Received, with FCS, preamble and gap.
    pub received_bps: f64,
    /// Of the source's core, for a frame; where the trial ended by the number of frames.
    pub ns_per_frame: Option<f64>,
    /// Seconds that a paced source fell behind and gave up.
    pub late: f64,
    /// Frames at the sink that are not the source's.
    pub other: u64,
    /// With `--check`.
    #[serde(flatten)]
    pub checked: Option<Checked>,
    /// With `--stamp`; nanoseconds.
    pub latency: Option<Latency>,
}

/// What the sink found in the frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// Frames behind a later one of their flow (RFC 4737).
    pub reordered: u64,
    pub duplicate: u64,
    /// Flows of which something came.
    pub flows: u64,
    /// Frames with other addresses than were to be.
    pub foreign: u64,
    /// Times that a flow's source port changed.
    pub renumbered: u64,
}

/// `struct pg_state`, as far as it is of interest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    pub frames: u64,
    pub bytes: u64,
    pub started: u64,
    pub ended: u64,
    pub late: u64,
}

impl Sent {
    pub fn read(words: &[u64]) -> Sent {
        let at = |n: usize| words.get(n).copied().unwrap_or(0);
        Sent { frames: at(2), bytes: at(3), started: at(4), ended: at(5), late: at(7) }
    }
}

/// `struct pg_rx` of all cores together.
#[derive(Debug, Clone, Default)]
pub struct Received {
    pub packets: u64,
    pub bytes: u64,
    pub first: u64,
    pub last: u64,
    pub other: u64,
    reordered: u64,
    duplicate: u64,
    flows: u64,
    foreign: u64,
    renumbered: u64,
    max: u64,
    sum: u64,
    latency: Vec<u64>,
}

impl Received {
    pub fn read(cores: &[Vec<u64>]) -> Received {
        let mut all = Received { latency: vec![0; hist::BUCKETS], ..Default::default() };
        for words in cores {
            let at = |n: usize| words.get(n).copied().unwrap_or(0);
            all.packets += at(0);
            all.bytes += at(1);
            if at(2) != 0 {
                all.first = if all.first == 0 { at(2) } else { all.first.min(at(2)) };
            }
            all.last = all.last.max(at(3));
            all.other += at(4);
            all.reordered += at(5);
            all.duplicate += at(6);
            all.flows += at(7);
            all.foreign += at(8);
            all.renumbered += at(9);
            all.max = all.max.max(at(10));
            all.sum = all.sum.wrapping_add(at(11));
            all.latency.iter_mut().zip(words.iter().skip(12)).for_each(|(a, b)| *a += b);
        }
        all
    }
}

impl Outcome {
    /// `stamped`, `checked`: what the sink looked at. `ns`: of a run, as the kernel measured it.
    pub fn new(s: Sent, r: &Received, stamped: bool, checked: bool, ns: Option<u32>) -> Outcome {
        // Without time-stamps the clock was looked at for every 64th frame.
        let counted = |n: u64| if stamped { n.saturating_sub(1) } else { n.saturating_sub(1) / 64 * 64 };
        let span = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        let per = |n: u64, seconds: f64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let ns = ns.filter(|_| s.frames > 0).map(f64::from);
        let (mut seconds, mut offered) =
            (span(s.started, s.ended), per(counted(s.frames), span(s.started, s.ended)));
        if let Some(ns) = ns.filter(|ns| *ns > 0.0) {
            (seconds, offered) = (ns * s.frames as f64 / 1e9, 1e9 / ns);
        }
        let lost = s.frames.saturating_sub(r.packets);
        let received_pps = if lost == 0 { offered } else { per(counted(r.packets), span(r.first, r.last)) };
        let wire = if r.packets == 0 { 0.0 } else { r.bytes as f64 / r.packets as f64 + ON_THE_WIRE as f64 };
        Outcome {
            sent: s.frames,
            received: r.packets,
            lost,
            loss: if s.frames == 0 { 0.0 } else { lost as f64 / s.frames as f64 },
            seconds,
            offered_pps: offered,
            received_pps,
            received_bps: received_pps * wire * 8.0,
            ns_per_frame: ns,
            late: s.late as f64 / 1e9,
            other: r.other,
            checked: checked.then_some(Checked {
                reordered: r.reordered,
                duplicate: r.duplicate,
                flows: r.flows,
                foreign: r.foreign,
                renumbered: r.renumbered,
            }),
            latency: if stamped { hist::summary(&r.latency, r.sum, r.max) } else { None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(frames: u64) -> Sent {
        Sent { frames, bytes: frames * 60, started: 1_000, ended: 1_000 + 6400 * 100, late: 0 }
    }

    fn received(packets: u64) -> Received {
        Received::read(&[
            vec![packets / 2, packets * 30, 2_000, 500_000],
            vec![packets - packets / 2, packets * 30, 1_500, 641_500],
        ])
    }

    #[test]
    fn rates_without_loss() {
        let o = Outcome::new(sent(6401), &received(6401), false, false, None);
        assert_eq!((o.lost, o.loss, o.checked, o.latency), (0, 0.0, None, None));
        assert!((o.offered_pps - 1e7).abs() < 1.0, "{}", o.offered_pps);
        assert_eq!(o.received_pps, o.offered_pps);
        // 60 bytes in memory are 84 on the wire.
        assert!((o.received_bps / o.received_pps - 84.0 * 8.0).abs() < 1.0);
    }

    #[test]
    fn the_kernels_time_is_the_better_one() {
        let o = Outcome::new(sent(6401), &received(6401), false, false, Some(200));
        assert_eq!((o.offered_pps, o.ns_per_frame), (5e6, Some(200.0)));
    }

    #[test]
    fn loss() {
        let o = Outcome::new(sent(6401), &received(6400), true, true, None);
        assert_eq!(o.lost, 1);
        assert!((o.received_pps - 6399.0 / 640_000.0 * 1e9).abs() < 1.0, "{}", o.received_pps);
        assert_eq!(o.checked.map(|c| c.reordered), Some(0));
    }

    #[test]
    fn nothing_at_all() {
        let o = Outcome::new(Sent::default(), &Received::read(&[]), true, true, None);
        assert_eq!((o.sent, o.loss, o.offered_pps, o.received_bps), (0, 0.0, 0.0, 0.0));
        assert!(serde_json::to_string(&o).is_ok_and(|s| !s.contains("NaN")));
    }
}
