//! The thread that measures, one after the other: diagnoses and paths to access points for commands of the cloud, and those
//! paths now and then without one. Its last results are part of each report.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sag_southbound::{AccessPoint, AccessPointQuality, Diagnosis};

use crate::clock::unix_ms;
use crate::diagnosis::{self, Facts};
use crate::ping::{self, Plan};

/// Something to measure.
pub enum Job {
    Diagnose {
        id: String,
        facts: Box<Facts>,
    },
    /// For the command of this `ProbeId`; none: it was time for it.
    Probe {
        id: Option<String>,
        points: Vec<AccessPoint>,
        clock_offset: i64,
    },
}

/// What was measured last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    pub diagnosis: Option<Diagnosis>,
    pub probe: Option<String>,
    pub qualities: Vec<AccessPointQuality>,
}

/// Jobs that wait. The cloud repeats no command that was answered, so what does not fit is lost.
const WAITING: usize = 8;
/// Access points of one command that are measured.
const MAX_POINTS: usize = 16;
/// Access points of a report.
const MAX_KNOWN: usize = 2 * MAX_POINTS;
const ECHO: Plan = Plan { count: 4, timeout: Duration::from_millis(500) };

/// Starts the thread with the first job.
pub struct Measurer {
    jobs: Option<SyncSender<Job>>,
    results: Arc<Mutex<Measured>>,
    done: Arc<dyn Fn() + Send + Sync>,
}

impl Measurer {
    /// `done` is called when there is another result.
    pub fn new(done: impl Fn() + Send + Sync + 'static) -> Measurer {
        Measurer { jobs: None, results: Arc::default(), done: Arc::new(done) }
    }

    pub fn measured(&self) -> Measured {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a job, or puts it behind those that wait.
    pub fn begin(&mut self, job: Job) {
        let job = match &self.jobs {
            None => job,
            Some(jobs) => match jobs.try_send(job) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    tracing::warn!("too many measurements wait; one is left out");
                    return;
                }
                // The thread has ended by a panic.
                Err(TrySendError::Disconnected(job)) => job,
            },
        };
        let (jobs, queue) = sync_channel(WAITING);
        let (results, done) = (self.results.clone(), self.done.clone());
        let started = std::thread::Builder::new().name("measure".into()).spawn(move || {
            work(&queue, &results, &*done);
        });
        if let Err(error) = started {
            tracing::error!(%error, "cannot start a thread to measure");
            return;
        }
        // There is room in a new queue.
        let _ = jobs.try_send(job);
        self.jobs = Some(jobs);
    }
}

fn work(jobs: &Receiver<Job>, results: &Mutex<Measured>, done: &dyn Fn()) {
    for job in jobs {
        match job {
            Job::Diagnose { id, facts } => {
                let items = diagnosis::run(&facts);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.diagnosis = Some(Diagnosis { id, items });
            }
            Job::Probe { id, points, clock_offset } => {
                let mut qualities = probe(&points);
                let now = unix_ms().saturating_add(clock_offset.saturating_mul(1000));
                qualities.iter_mut().for_each(|q| q.time = Some(now));
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.probe = id.or(results.probe.take());
                // Others that were measured before are still known; the cloud judges by their age.
                let before = std::mem::take(&mut results.qualities);
                let measured = |q: &AccessPointQuality| qualities.iter().any(|new| new.id == q.id);
                let others: Vec<_> = before.into_iter().filter(|q| !measured(q)).collect();
                qualities.extend(others);
                qualities.truncate(MAX_KNOWN);
                results.qualities = qualities;
            }
        }
        done();
    }
}

/// Measures the paths to all points at the same time.
fn probe(points: &[AccessPoint]) -> Vec<AccessPointQuality> {
    let points = &points[..points.len().min(MAX_POINTS)];
    std::thread::scope(|scope| {
        let each: Vec<_> = points.iter().map(|p| scope.spawn(|| quality(p))).collect();
        each.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn quality(point: &AccessPoint) -> AccessPointQuality {
    let measured = point
        .address
        .parse::<IpAddr>()
        .map_err(|e| e.to_string())
        .and_then(|to| ping::round(to.into(), &ECHO).map_err(|e| e.to_string()));
    let (rtt, loss) = match measured {
        Ok(round) => (round.rtt_ms, round.loss_percent()),
        Err(error) => {
            tracing::warn!(point = point.id, error, "the path to an access point cannot be measured");
            (None, 100.0)
        }
    };
    AccessPointQuality {
        id: Some(point.id),
        rtt: rtt.map_or_else(String::new, |ms| format!("{ms:.2}")),
        loss: format!("{loss:.2}%"),
        time: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_probe_has_a_bound() {
        let many = vec![AccessPoint { id: 1, address: "nowhere".into() }; 40];
        assert_eq!(probe(&many).len(), MAX_POINTS);
        let (jobs, _queue) = sync_channel(WAITING);
        let mut measurer = Measurer::new(|| ());
        measurer.jobs = Some(jobs);
        for _ in 0..100 {
            measurer.begin(Job::Probe { id: None, points: many.clone(), clock_offset: 0 });
        }
        assert_eq!(measurer.measured(), Measured::default(), "nobody takes them, and nobody waits");
    }

    #[test]
    fn paths_to_access_points_are_measured() {
        let (sender, wait) = channel();
        let mut measurer = Measurer::new(move || {
            let _ = sender.send(());
        });
        assert_eq!(measurer.measured(), Measured::default());
        let point = |id: i64, address: &str| AccessPoint { id, address: address.into() };
        let measure = |measurer: &mut Measurer, id: Option<&str>, points: Vec<AccessPoint>| {
            measurer.begin(Job::Probe { id: id.map(str::to_owned), points, clock_offset: 100 });
            wait.recv_timeout(Duration::from_secs(30)).expect("measured");
            measurer.measured()
        };
        for (id, address) in [("one", "127.0.0.1"), ("two", "nowhere")] {
            let measured = measure(&mut measurer, Some(id), vec![point(101, address)]);
            assert_eq!(measured.probe.as_deref(), Some(id));
            let quality = &measured.qualities[0];
            assert_eq!((measured.qualities.len(), quality.id), (1, Some(101)));
            // By the cloud's clock.
            assert!(
                quality.time.is_some_and(|at| (50_000..100_001).contains(&(at - unix_ms()))),
                "{quality:?}"
            );
            // Without the right to an ICMP socket nothing is answered.
            assert_eq!(quality.rtt.is_empty(), quality.loss == "100.00%", "{quality:?}");
            assert!(address != "nowhere" || quality.rtt.is_empty());
        }
        // Without a command: the last one is still the last one, and what else was measured is still known.
        let measured = measure(&mut measurer, None, vec![point(102, "nowhere")]);
        let ids: Vec<_> = measured.qualities.iter().map(|q| q.id).collect();
        assert_eq!((measured.probe.as_deref(), ids), (Some("two"), vec![Some(102), Some(101)]));
        for n in 0..4 {
            let many = (0..12).map(|i| point(200 + 12 * n + i, "nowhere")).collect();
            let measured = measure(&mut measurer, None, many);
            assert!(measured.qualities.len() <= MAX_KNOWN && measured.qualities[0].id == Some(200 + 12 * n));
        }
    }
}
