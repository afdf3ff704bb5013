//! Probe tasks: destinations that are measured all the time, by ICMP echo, by opening a TCP connection, or by requesting
//! a URL. What is reported is the last minute. The packets go by the kernel's routes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use sag_southbound::{ProbeProtocol, ProbeTaskState};

use crate::clock::unix_ms;
use crate::desired::Probe;
use crate::icmp::Echo;

/// What a result is of.
const WINDOW: Duration = Duration::from_secs(60);
/// Between two requests of TCP and HTTP.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer is waited for.
const ICMP_TIMEOUT: Duration = Duration::from_secs(1);
const TCP_TIMEOUT: Duration = Duration::from_secs(3);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// Tasks of one device; the cloud allows it 20.
const MOST: usize = 64;
/// How often a waiting thread checks whether it has to end.
const NAP: Duration = Duration::from_millis(200);

/// The requests of the last minute, oldest first.
#[derive(Debug, Default)]
struct Window {
    /// When it ended, and the time of the answer in milliseconds.
    requests: VecDeque<(Instant, Option<f64>)>,
    /// Milliseconds since 1970.
    last: i64,
    problem: String,
}

impl Window {
    /// Returns whether this is another outcome than before.
    fn note(&mut self, at: Instant, outcome: Result<f64, String>) -> bool {
        let before = self.requests.back().map(|(_, rtt)| rtt.is_some());
        self.requests.push_back((at, outcome.as_ref().ok().copied()));
        while self.requests.front().is_some_and(|(t, _)| at.duration_since(*t) > WINDOW) {
            self.requests.pop_front();
        }
        self.last = unix_ms();
        let answered = outcome.is_ok();
        self.problem = outcome.err().unwrap_or_default();
        before != Some(answered)
    }

    fn state(&self, id: &str) -> ProbeTaskState {
        let answers: Vec<f64> = self.requests.iter().filter_map(|(_, rtt)| *rtt).collect();
        let any = !answers.is_empty();
        ProbeTaskState {
            id: id.to_owned(),
            sent: Some(self.requests.len() as i64),
            answered: Some(answers.len() as i64),
            min_rtt_ms: any.then(|| answers.iter().copied().fold(f64::INFINITY, f64::min)),
            rtt_ms: any.then(|| answers.iter().sum::<f64>() / answers.len() as f64),
            max_rtt_ms: any.then(|| answers.iter().copied().fold(0.0, f64::max)),
            time: Some(self.last).filter(|_| !self.requests.is_empty()),
            problem: self.problem.clone(),
        }
    }
}

type Windows = Arc<Mutex<BTreeMap<String, Window>>>;

fn lock(windows: &Windows) -> MutexGuard<'_, BTreeMap<String, Window>> {
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Running {
    probe: Probe,
    stop: Arc<AtomicBool>,
}

/// The probe tasks that run, a thread each.
pub struct Probes {
    running: BTreeMap<String, Running>,
    windows: Windows,
    changed: Arc<dyn Fn() + Send + Sync>,
}

impl Probes {
    /// `changed` is called at a task's first result, and when its destination answers again or no more.
    pub fn new(changed: impl Fn() + Send + Sync + 'static) -> Probes {
        Probes { running: BTreeMap::new(), windows: Arc::default(), changed: Arc::new(changed) }
    }

    /// What is known of those that have sent something.
    pub fn states(&self) -> Vec<ProbeTaskState> {
        let windows = lock(&self.windows);
        windows.iter().filter(|(_, w)| !w.requests.is_empty()).map(|(id, w)| w.state(id)).collect()
    }

    /// Starts, stops and restarts; tasks that did not change go on as they are.
    pub fn set(&mut self, probes: &[Probe]) {
        if probes.len() > MOST {
            tracing::warn!(tasks = probes.len(), "only the first {MOST} probe tasks run");
        }
        let probes = &probes[..probes.len().min(MOST)];
        self.running.retain(|id, r| {
            let stays = probes.contains(&r.probe);
            if !stays {
                r.stop.store(true, Ordering::Relaxed);
                lock(&self.windows).remove(id);
            }
            stays
        });
        for probe in probes {
            if self.running.contains_key(&probe.id) {
                continue;
            }
            let stop = Arc::new(AtomicBool::new(false));
            lock(&self.windows).insert(probe.id.clone(), Window::default());
            let worker = Worker {
                probe: probe.clone(),
                stop: stop.clone(),
                windows: self.windows.clone(),
                changed: self.changed.clone(),
            };
            let spawned = std::thread::Builder::new().name("probe".into()).spawn(move || worker.run());
            if let Err(error) = spawned {
                tracing::error!(%error, task = probe.id, "cannot start a thread for the probe task");
                continue;
            }
            self.running.insert(probe.id.clone(), Running { probe: probe.clone(), stop });
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.set(&[]);
    }
}

struct Worker {
    probe: Probe,
    stop: Arc<AtomicBool>,
    windows: Windows,
    changed: Arc<dyn Fn() + Send + Sync>,
}

impl Worker {
    fn run(self) {
        let interval = interval(&self.probe);
        let mut due = Instant::now();
        let mut seq = 0_u16;
        while !self.stop.load(Ordering::Relaxed) {
            let outcome = request(&self.probe, seq).map(|rtt| rtt.as_secs_f64() * 1000.0);
            seq = seq.wrapping_add(1);
            if self.note(outcome.map_err(|e| e.to_string())) {
                (self.changed)();
            }
            due = (due + interval).max(Instant::now());
            while Instant::now() < due && !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(NAP.min(due.saturating_duration_since(Instant::now())));
            }
        }
    }

    fn note(&self, outcome: Result<f64, String>) -> bool {
        let mut windows = lock(&self.windows);
        // Stopped meanwhile: the entry may be a newer task's.
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        windows.get_mut(&self.probe.id).is_some_and(|w| w.note(Instant::now(), outcome))
    }
}

fn interval(probe: &Probe) -> Duration {
    match probe.protocol {
        Some(ProbeProtocol::Icmp) => WINDOW / probe.packets.clamp(1, 60) as u32,
        _ => INTERVAL,
    }
}

/// One request; the time until its answer.
fn request(probe: &Probe, seq: u16) -> io::Result<Duration> {
    let src = match probe.source.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid(format!("{text:?} is no address")))?),
    };
    match &probe.protocol {
        Some(ProbeProtocol::Icmp) => {
            let answer = Echo::open(resolve(&probe.destination, src)?, src)?.round_trip(seq, ICMP_TIMEOUT)?;
            answer.ok_or_else(no_answer)
        }
        Some(ProbeProtocol::Tcp) => {
            let port = probe.port.and_then(|p| u16::try_from(p).ok());
            let port = port.ok_or_else(|| invalid("the task has no port".to_owned()))?;
            open_tcp(SocketAddr::new(resolve(&probe.destination, src)?, port), src)
        }
        Some(ProbeProtocol::Http) => get(&probe.destination),
        // Unknown protocols are a notice, and not among the tasks.
        Some(ProbeProtocol::Unknown(_)) | None => Err(invalid("no protocol".to_owned())),
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer")
}

/// An address of the host, of the same family as the source.
fn resolve(host: &str, src: Option<IpAddr>) -> io::Result<IpAddr> {
    let fits = |ip: &IpAddr| src.is_none_or(|s| s.is_ipv4() == ip.is_ipv4());
    let found = match host.parse() {
        Ok(ip) => Some(ip).filter(fits),
        Err(_) => (host, 0).to_socket_addrs()?.map(|a| a.ip()).find(fits),
    };
    found.ok_or_else(|| invalid(format!("{host} has no address of the source's family")))
}

fn open_tcp(dst: SocketAddr, src: Option<IpAddr>) -> io::Result<Duration> {
    let family = if dst.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if let Some(src) = src {
        bind(&socket, &SocketAddr::new(src, 0))
            .map_err(|e| invalid(format!("source {src} is not this device's: {e}")))?;
    }
    let started = Instant::now();
    match connect(&socket, &dst) {
        Ok(()) => return Ok(started.elapsed()),
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    let timeout = Timespec::try_from(TCP_TIMEOUT).map_err(|_| invalid("timeout".to_owned()))?;
    if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout))? == 0 {
        return Err(no_answer());
    }
    sockopt::socket_error(&socket)??;
    Ok(started.elapsed())
}

/// The time until the head of an answer that is no error.
fn get(url: &str) -> io::Result<Duration> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(HTTP_TIMEOUT))
        .user_agent(format!("sag-agent/{}", crate::VERSION))
        .build()
        .new_agent();
    let started = Instant::now();
    let answer = agent.get(url).call().map_err(|e| io::Error::other(e.to_string()))?;
    match answer.status().as_u16() {
        status @ 400.. => Err(io::Error::other(format!("status {status}"))),
        _ => Ok(started.elapsed()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    fn probe(protocol: ProbeProtocol, destination: &str, port: Option<i64>) -> Probe {
        Probe {
            id: "probe-1".into(),
            protocol: Some(protocol),
            destination: destination.into(),
            port,
            packets: 60,
            source: String::new(),
        }
    }

    #[test]
    fn a_window_is_the_last_minute() {
        let (start, mut w) = (Instant::now(), Window::default());
        let at = |s: u64| start + Duration::from_secs(s);
        let lost = || Err("no answer".to_owned());
        assert!(w.note(at(0), Ok(4.0)), "the first result");
        assert!(!w.note(at(10), Ok(8.0)) && w.note(at(20), lost()) && !w.note(at(30), lost()));
        let s = w.state("x");
        assert_eq!((s.sent, s.answered), (Some(4), Some(2)));
        assert_eq!((s.min_rtt_ms, s.rtt_ms, s.max_rtt_ms), (Some(4.0), Some(6.0), Some(8.0)));
        assert_eq!(s.problem, "no answer");
        assert!(w.note(at(85), Ok(2.0)), "answers again");
        let s = w.state("x");
        assert_eq!((s.sent, s.answered, s.rtt_ms, s.problem.as_str()), (Some(2), Some(1), Some(2.0), ""));
    }

    #[test]
    fn connections_are_opened_over_both_families() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(local) else {
                println!("SKIP connections_are_opened_over_both_families: {local}");
                continue;
            };
            let addr = listener.local_addr().expect("address");
            let mut p = probe(ProbeProtocol::Tcp, &addr.ip().to_string(), Some(addr.port().into()));
            request(&p, 0).expect("opens");
            p.source = addr.ip().to_string();
            request(&p, 0).expect("opens from that source");
            p.source = if addr.is_ipv4() { "192.0.2.77" } else { "2001:db8::77" }.into();
            assert!(request(&p, 0).expect_err("not ours").to_string().contains("not this device's"));
            p.source.clear();
            drop(listener);
            request(&p, 0).expect_err("nobody listens");
        }
        let mixed = Probe { source: "::1".into(), ..probe(ProbeProtocol::Tcp, "127.0.0.1", Some(1)) };
        assert!(request(&mixed, 0).expect_err("families").to_string().contains("family"));
    }

    #[test]
    fn urls_are_requested_and_errors_are_no_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/health", listener.local_addr().expect("address"));
        let server = std::thread::spawn(move || {
            for status in ["204 No Content", "503 Service Unavailable"] {
                let (mut peer, _) = listener.accept().expect("accepts");
                let mut head = [0; 1024];
                let n = peer.read(&mut head).expect("reads");
                assert!(head[..n].starts_with(b"GET /health HTTP/1.1\r\n"));
                write!(peer, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .expect("writes");
            }
        });
        let p = probe(ProbeProtocol::Http, &url, None);
        request(&p, 0).expect("answers");
        assert_eq!(request(&p, 0).expect_err("an error").to_string(), "status 503");
        server.join().expect("served");
    }

    #[test]
    fn tasks_run_until_they_are_taken_away() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("address").port();
        let (heard, results) = mpsc::channel();
        let mut probes = Probes::new(move || heard.send(()).unwrap_or_default());
        probes.set(&[probe(ProbeProtocol::Tcp, "127.0.0.1", Some(port.into()))]);
        results.recv_timeout(Duration::from_secs(20)).expect("a result");
        let states = probes.states();
        assert_eq!((states[0].id.as_str(), states[0].answered), ("probe-1", Some(1)));
        let task = |n: usize| Probe { id: n.to_string(), ..probe(ProbeProtocol::Tcp, "127.0.0.1", Some(1)) };
        probes.set(&(0..MOST + 9).map(task).collect::<Vec<_>>());
        assert_eq!(probes.running.len(), MOST);
        probes.set(&[]);
        assert!(probes.states().is_empty() && probes.running.is_empty());
    }
}
