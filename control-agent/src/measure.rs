//! The thread that measures for commands of the cloud, one after the other: diagnoses and paths to access points. Its last
//! results are part of each report.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sag_southbound::{AccessPoint, AccessPointQuality, Diagnosis};

use crate::diagnosis::{self, Facts};
use crate::ping::{self, Plan};

/// Something to measure.
pub enum Job {
    Diagnose { id: String, facts: Box<Facts> },
    Probe { id: String, points: Vec<AccessPoint> },
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
            Job::Probe { id, points } => {
                let qualities = probe(&points);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                (results.probe, results.qualities) = (Some(id), qualities);
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
            measurer.begin(Job::Probe { id: String::new(), points: many.clone() });
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
        for (id, address) in [("one", "127.0.0.1"), ("two", "nowhere")] {
            measurer.begin(Job::Probe { id: id.into(), points: vec![point(101, address)] });
            wait.recv_timeout(Duration::from_secs(30)).expect("measured");
            let measured = measurer.measured();
            assert_eq!(measured.probe.as_deref(), Some(id));
            let quality = &measured.qualities[0];
            assert_eq!((measured.qualities.len(), quality.id), (1, Some(101)));
            // Without the right to an ICMP socket nothing is answered.
            assert_eq!(quality.rtt.is_empty(), quality.loss == "100.00%", "{quality:?}");
            assert!(address != "nowhere" || quality.rtt.is_empty());
        }
    }
}
