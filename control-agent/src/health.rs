//! Health checks: ICMP echo from a given source, at an interval, with thresholds for loss and time.
//!
//! A round sends `count` requests. It is good if one is answered within the timeout and, with an RTT
//! threshold, the mean time is below it. `fails` lost rounds in a row, or `rtt_fails` slow ones, make
//! the check fail; the next good round makes it pass again.
//!
//! What is in a block of another member of the network is probed by the device of a tunnel, whether there is a route or not:
//! the verdict may be what takes the route away, and a request that goes elsewhere then would never find it well again.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sag_southbound::HealthStatus;

use crate::desired::HealthCheck;
use crate::icmp::Echo;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Unknown,
    Ok,
    Failed,
}

impl Verdict {
    /// As the contract has it.
    pub fn status(self) -> HealthStatus {
        match self {
            Verdict::Unknown => HealthStatus::NotMeasured,
            Verdict::Ok => HealthStatus::Ok,
            Verdict::Failed => HealthStatus::Failed,
        }
    }

    /// For the log.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Unknown => "unknown",
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
        }
    }
}

/// What is known of one check.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub verdict: Verdict,
    /// Of the last round.
    pub rtt_ms: Option<f64>,
    pub loss_percent: f64,
    pub sent: u64,
    pub answered: u64,
    /// Why nothing could be sent.
    pub problem: String,
}

impl Default for State {
    fn default() -> State {
        State {
            verdict: Verdict::Unknown,
            rtt_ms: None,
            loss_percent: 0.0,
            sent: 0,
            answered: 0,
            problem: String::new(),
        }
    }
}

/// One round's outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    pub sent: i64,
    pub answered: i64,
    /// Mean of the answered ones.
    pub rtt_ms: Option<f64>,
}

/// Counts lost and slow rounds in a row against the thresholds.
#[derive(Debug, Default)]
pub struct Thresholds {
    lost: i64,
    slow: i64,
}

impl Thresholds {
    /// The verdict after one more round.
    pub fn verdict(&mut self, check: &HealthCheck, before: Verdict, round: Round) -> Verdict {
        let slow = check.rtt_ms > 0 && round.rtt_ms.is_some_and(|rtt| rtt > check.rtt_ms as f64);
        self.lost = if round.answered == 0 { self.lost + 1 } else { 0 };
        self.slow = if slow { self.slow + 1 } else { 0 };
        if self.lost >= check.fails.max(1) || self.slow >= check.rtt_fails.max(1) {
            Verdict::Failed
        } else if round.answered > 0 && !slow {
            Verdict::Ok
        } else {
            before
        }
    }
}

struct Running {
    check: HealthCheck,
    stop: Arc<AtomicBool>,
    device: Arc<Mutex<Option<String>>>,
}

/// The checks that run, a thread each.
pub struct Checks {
    running: BTreeMap<String, Running>,
    states: Arc<Mutex<BTreeMap<String, State>>>,
    changed: Arc<dyn Fn() + Send + Sync>,
}

impl Checks {
    /// `changed` is called when the verdict of a check changes.
    pub fn new(changed: impl Fn() + Send + Sync + 'static) -> Checks {
        Checks { running: BTreeMap::new(), states: Arc::default(), changed: Arc::new(changed) }
    }

    pub fn states(&self) -> BTreeMap<String, State> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn verdicts(&self) -> BTreeMap<String, Verdict> {
        self.states().into_iter().map(|(id, s)| (id, s.verdict)).collect()
    }

    /// Has requests leave by the device that `device_to` names for their destination, if any, from the next round on.
    pub fn go_by(&self, mut device_to: impl FnMut(IpAddr) -> Option<String>) {
        for r in self.running.values() {
            let device = r.check.dst.parse().ok().and_then(&mut device_to);
            let mut now = r.device.lock().unwrap_or_else(PoisonError::into_inner);
            if *now != device {
                tracing::debug!(check = r.check.id, ?device, "requests leave by another device");
                *now = device;
            }
        }
    }

    /// Starts, stops and restarts; checks that did not change go on as they are.
    pub fn set(&mut self, checks: &[HealthCheck]) {
        self.running.retain(|id, r| {
            let stays = checks.iter().any(|c| c.id == *id && *c == r.check);
            if !stays {
                r.stop.store(true, Ordering::Relaxed);
                self.states.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            }
            stays
        });
        for check in checks {
            if self.running.contains_key(&check.id) {
                continue;
            }
            let (stop, device) = (Arc::new(AtomicBool::new(false)), Arc::default());
            self.states
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(check.id.clone(), State::default());
            let worker = Worker {
                check: check.clone(),
                stop: stop.clone(),
                device: Arc::clone(&device),
                states: self.states.clone(),
                changed: self.changed.clone(),
            };
            let spawned = std::thread::Builder::new().name("health".into()).spawn(move || worker.run());
            if let Err(error) = spawned {
                tracing::error!(%error, check = check.id, "cannot start a thread for the health check");
                continue;
            }
            self.running.insert(check.id.clone(), Running { check: check.clone(), stop, device });
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.set(&[]);
    }
}

struct Worker {
    check: HealthCheck,
    stop: Arc<AtomicBool>,
    device: Arc<Mutex<Option<String>>>,
    states: Arc<Mutex<BTreeMap<String, State>>>,
    changed: Arc<dyn Fn() + Send + Sync>,
}

/// How often a waiting thread checks whether it has to end.
const NAP: Duration = Duration::from_millis(200);

impl Worker {
    fn run(self) {
        let interval = Duration::from_millis(self.check.interval_ms.clamp(1000, 60_000) as u64);
        let mut thresholds = Thresholds::default();
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let device = self.device.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (round, problem) = match probe(&self.check, device.as_deref(), &self.stop) {
                Ok(round) => (round, String::new()),
                Err(e) => (Round { sent: self.check.count, answered: 0, rtt_ms: None }, e.to_string()),
            };
            self.note(&mut thresholds, round, problem);
            due = (due + interval).max(Instant::now());
            while Instant::now() < due && !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(NAP.min(due.saturating_duration_since(Instant::now())));
            }
        }
    }

    fn note(&self, thresholds: &mut Thresholds, round: Round, problem: String) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        // Stopped meanwhile: the entry may be a newer check's.
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(state) = states.get_mut(&self.check.id) else { return };
        let verdict = thresholds.verdict(&self.check, state.verdict, round);
        let changed = verdict != state.verdict;
        state.verdict = verdict;
        state.rtt_ms = round.rtt_ms;
        state.loss_percent = 100.0 * (round.sent - round.answered) as f64 / round.sent.max(1) as f64;
        state.sent += round.sent.max(0) as u64;
        state.answered += round.answered.max(0) as u64;
        if !problem.is_empty() && state.problem != problem {
            tracing::warn!(check = self.check.id, "health check cannot probe: {problem}");
        }
        state.problem = problem;
        drop(states);
        if changed {
            tracing::info!(
                check = self.check.id,
                target = self.check.dst,
                verdict = verdict.word(),
                "health check"
            );
            (self.changed)();
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what:?} is no address"))
}

/// One round of requests, by this device if one is named.
///
/// # Errors
/// An address is none, or of another IP version than the other one; the source is not this machine's; there is no such
/// device, or no ICMP socket.
pub fn probe(check: &HealthCheck, device: Option<&str>, stop: &AtomicBool) -> io::Result<Round> {
    let dst: IpAddr = check.dst.parse().map_err(|_| invalid(&check.dst))?;
    let src: IpAddr = check.src.parse().map_err(|_| invalid(&check.src))?;
    if dst.is_ipv4() != src.is_ipv4() {
        let why = format!("source {src} and destination {dst} are of two IP versions");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut echo = Echo::open(dst, Some(src))?;
    if let Some(device) = device {
        echo = echo.by_device(device)?;
    }
    let timeout = Duration::from_millis(check.timeout_ms.clamp(10, 30_000) as u64);
    let (mut answered, mut sum) = (0, 0.0);
    for seq in 0..check.count.clamp(1, 20) as u16 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if let Some(rtt) = echo.round_trip(seq, timeout)? {
            answered += 1;
            sum += rtt.as_secs_f64() * 1000.0;
        }
    }
    let rtt_ms = (answered > 0).then(|| sum / answered as f64);
    Ok(Round { sent: check.count.clamp(1, 20), answered, rtt_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            id: "hc-1".into(),
            dst: "127.0.0.1".into(),
            src: "127.0.0.1".into(),
            interval_ms: 1000,
            count: 2,
            timeout_ms: 500,
            rtt_ms: 100,
            rtt_fails: 2,
            fails: 3,
            ..HealthCheck::default()
        }
    }

    #[test]
    fn thresholds_of_loss_and_time() {
        let (c, mut thresholds) = (check(), Thresholds::default());
        let lost = Round { sent: 2, answered: 0, rtt_ms: None };
        let good = Round { sent: 2, answered: 1, rtt_ms: Some(5.0) };
        let slow = Round { sent: 2, answered: 2, rtt_ms: Some(101.0) };
        let mut v = Verdict::Unknown;
        let mut see = |r| {
            v = thresholds.verdict(&c, v, r);
            v
        };
        use Verdict::{Failed, Ok, Unknown};
        assert_eq!([lost, lost, lost].map(&mut see), [Unknown, Unknown, Failed]);
        assert_eq!([good, slow, good, slow, slow].map(&mut see), [Ok, Ok, Ok, Ok, Failed]);
        assert_eq!([good, lost, lost, good, lost].map(&mut see), [Ok; 5]);
    }

    #[test]
    fn a_probe_of_this_machine() {
        let stop = AtomicBool::new(false);
        let v6 = HealthCheck { dst: "::1".into(), src: "::1".into(), ..check() };
        for check in [&check(), &v6] {
            for device in [None, Some("lo")] {
                match probe(check, device, &stop) {
                    Ok(round) => assert_eq!((round.sent, round.answered), (2, 2), "{check:?} by {device:?}"),
                    Err(e) => println!("SKIP a_probe_of_this_machine: {e}"),
                }
            }
        }
        let foreign = HealthCheck { src: "192.0.2.77".into(), ..check() };
        let e = probe(&foreign, None, &stop).expect_err("not our address").to_string();
        assert!(e.contains("192.0.2.77") || e.contains("ICMP socket"), "{e}");
        let e = probe(&check(), Some("no-such-device"), &stop).expect_err("no device").to_string();
        assert!(e.contains("no-such-device") || e.contains("ICMP socket"), "{e}");
        let mixed = HealthCheck { dst: "::1".into(), ..check() };
        assert!(probe(&mixed, None, &stop).is_err_and(|e| e.to_string().contains("two IP versions")));
    }

    #[test]
    fn requests_leave_by_the_device_of_their_destination() {
        let mut checks = Checks::new(|| {});
        let v6 = HealthCheck { id: "hc-2".into(), dst: "::1".into(), src: "::1".into(), ..check() };
        checks.set(&[check(), v6]);
        let devices = |c: &Checks| -> Vec<Option<String>> {
            c.running.values().map(|r| r.device.lock().expect("one thread").clone()).collect()
        };
        assert_eq!(devices(&checks), [None, None]);
        checks.go_by(|dst| dst.is_ipv4().then(|| "lo".to_owned()));
        assert_eq!(devices(&checks), [Some("lo".to_owned()), None]);
        checks.set(&[check()]);
        assert_eq!(
            devices(&checks),
            [Some("lo".to_owned())],
            "a check that has not changed goes on as it is"
        );
        checks.go_by(|_| None);
        assert_eq!(devices(&checks), [None]);
    }
}
