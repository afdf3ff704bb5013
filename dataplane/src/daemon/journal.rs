//! The thread that writes the events of workers: session and port-block records to the NAT log, and
//! warnings to the daemon's log. Workers never wait for it: what does not fit is counted, and the
//! count is a record of its own, so that a reader knows of every gap.

use super::file_health::FileHealth;
use super::record_file::RecordFile;
use super::rule_log::RuleLogBook;
use super::vrf_numbers::VrfNames;
use crate::server::rfc3339_millis;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use sag_packet::parse::Family;
use sag_pipeline::nat::{Event, Events, SessionTuple};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Events that wait for the writer, at most and at least; each takes 128 bytes.
const ROOM: std::ops::RangeInclusive<usize> = 8 * 1024..=64 * 1024;
/// The writer looks for events this often; waking it would cost workers a system call.
const PAUSE: Duration = Duration::from_millis(20);
/// And this often while there are none: there is room for what begins meanwhile.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// Name of the file in messages and metrics.
const NAT_LOG: &str = "NAT log";

/// A worker's end.
#[derive(Debug, Clone)]
pub struct Journal {
    events: Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// The control thread's end; the thread ends when it and all workers' ends are gone.
#[derive(Debug)]
pub struct JournalKeeper {
    pub journal: Journal,
    /// What rules have logged last.
    pub rules: RuleLogBook,
    /// How events name VRFs.
    pub vrfs: VrfNames,
    /// Has the writer open the log again (after a reload, so that it can be rotated).
    files: Option<Sender<Option<PathBuf>>>,
    ended: Receiver<()>,
}

impl Journal {
    /// Passes on the events of a pipeline.
    pub fn take(&self, from: &mut Events) {
        let mut lost = std::mem::take(&mut from.lost);
        for e in from.drain() {
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.events.try_send(e) {
                lost += 1;
            }
        }
        if lost > 0 {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Events that are in no record.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl JournalKeeper {
    /// `sessions`: what the IPv4 flow table has room for, as more events than a part of that do not come at once.
    pub fn start(health: FileHealth, sessions: u32) -> std::io::Result<JournalKeeper> {
        let (events, inbox) = bounded((sessions as usize / 4).clamp(*ROOM.start(), *ROOM.end()));
        let (files, names) = unbounded();
        let (done, ended) = bounded(1);
        let lost = Arc::new(AtomicU64::new(0));
        let journal = Journal { events, lost: lost.clone() };
        let rules = RuleLogBook::default();
        let vrfs = VrfNames::default();
        let writer = Writer::new(lost, health, rules.clone(), vrfs.clone());
        std::thread::Builder::new().name("journal".into()).spawn(move || {
            writer.run(&inbox, &names);
            drop(done);
        })?;
        Ok(JournalKeeper { journal, rules, vrfs, files: Some(files), ended })
    }

    pub fn write_to(&self, file: Option<PathBuf>) {
        if self.files.as_ref().is_none_or(|f| f.send(file).is_err()) {
            tracing::error!("the thread that writes the NAT log has ended; restart the daemon");
        }
    }

    /// Ends the thread when the events that wait are written, or the time is over.
    pub fn finish(&mut self, time: Duration) {
        self.files = None;
        if self.ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the NAT log could not be finished before the end: its last records are lost");
        }
    }
}

struct Writer {
    out: Option<RecordFile>,
    sequence: u64,
    lost: Arc<AtomicU64>,
    recorded_lost: u64,
    health: FileHealth,
    rules: RuleLogBook,
    vrfs: VrfNames,
}

impl Writer {
    fn new(lost: Arc<AtomicU64>, health: FileHealth, rules: RuleLogBook, vrfs: VrfNames) -> Writer {
        Writer { out: None, sequence: 0, lost, recorded_lost: 0, health, rules, vrfs }
    }

    fn run(mut self, events: &Receiver<Event>, files: &Receiver<Option<PathBuf>>) {
        let mut pause = Duration::ZERO;
        loop {
            // The control thread's messages end the pause, workers' do not.
            let mut ended = false;
            match files.recv_timeout(pause) {
                Ok(file) => self.open(file),
                Err(e) => ended = e == RecvTimeoutError::Disconnected,
            }
            let mut noted = false;
            while let Ok(e) = events.try_recv() {
                self.note(&e);
                noted = true;
            }
            pause = if noted { PAUSE } else { (pause * 2).clamp(PAUSE, IDLE_PAUSE) };
            self.note_lost();
            self.flush();
            if ended {
                self.open(None);
                return;
            }
        }
    }

    /// Goes over to another file. What the old one cannot take is lost.
    fn open(&mut self, file: Option<PathBuf>) {
        self.flush();
        if let Some(old) = self.out.take() {
            let left = old.waiting();
            if left > 0 {
                tracing::error!(path = %old.path().display(), records = left, "the NAT log could not take its last records");
                self.lost.fetch_add(left, Ordering::Relaxed);
            }
        }
        self.health.works(NAT_LOG);
        self.out = file.map(RecordFile::new);
        // So that a path that cannot be opened is known before there is a record.
        self.flush();
    }

    fn flush(&mut self) {
        let Some(out) = &mut self.out else { return };
        match out.flush(Instant::now()) {
            Ok(()) if out.is_failing() => {}
            Ok(()) => self.health.works(NAT_LOG),
            Err(error) => {
                let path = out.path().display();
                let text = format!(
                    "{path}: {error}: cannot write the NAT log; records wait for it, and those without room are lost \
                     (log_lost) until it can be written again"
                );
                self.health.failed(NAT_LOG, text);
            }
        }
    }

    fn note(&mut self, e: &Event) {
        match *e {
            Event::Rule(ref logged) => self.rules.note(logged),
            Event::Created { family, number, tuple } => {
                self.record("session-created", session(family, number, &tuple, &self.vrfs));
            }
            Event::Ended { family, number, tuple, packets, bytes } => {
                let mut m = session(family, number, &tuple, &self.vrfs);
                m.insert("packets".into(), json!(packets[0]));
                m.insert("bytes".into(), json!(bytes[0]));
                m.insert("reply_packets".into(), json!(packets[1]));
                m.insert("reply_bytes".into(), json!(bytes[1]));
                self.record("session-ended", m);
            }
            Event::BlockAllocated { host, vrf, external, first, last } => {
                self.record("block-lent", block((host, self.vrfs.name(vrf)), external, first, last));
            }
            Event::BlockReleased { host, vrf, external, first, last } => {
                self.record("block-returned", block((host, self.vrfs.name(vrf)), external, first, last));
            }
            Event::PoolLow { external, protocol, used, capacity } => {
                tracing::warn!(event = "nat-pool-low", %external, protocol, used, capacity, "few NAT ports are left");
            }
            Event::PoolExhausted { external, protocol } => {
                tracing::warn!(event = "nat-pool-exhausted", %external, protocol, "no NAT port is free: new sessions are refused");
            }
            Event::HostLow { host, vrf, sessions, limit } => {
                let vrf = self.vrfs.name(vrf);
                tracing::warn!(event = "nat-host-low", %host, vrf, sessions, limit, "a host has used most of its sessions");
            }
            Event::HostRefused { host, vrf, limit } => {
                let vrf = self.vrfs.name(vrf);
                tracing::warn!(event = "nat-host-limit", %host, vrf, limit, "a host is at its limit: its new sessions are refused");
            }
            Event::TunnelPeerMac { tunnel, old, new } => {
                tracing::warn!(event = "tunnel-peer-mac", tunnel, %old, %new, "the peer of a VXLAN tunnel has another Ethernet address");
            }
            Event::TableFull { capacity } => {
                tracing::warn!(
                    event = "session-table-full",
                    capacity,
                    "the session table is full and no session may make room: new ones are refused"
                );
            }
            Event::TableFilling { family, percent, sessions, capacity, heaviest, heaviest_vrf } => {
                let family = if family == Family::V4 { 4 } else { 6 };
                let host = heaviest.map(|(host, prefix, _)| format!("{host}/{prefix}")).unwrap_or_default();
                let host_sessions = heaviest.map_or(0, |(_, _, n)| n);
                let vrf = heaviest_vrf.and_then(|no| self.vrfs.name(no));
                tracing::warn!(
                    event = "session-table-filling",
                    family,
                    percent,
                    sessions,
                    capacity,
                    host,
                    vrf,
                    host_sessions,
                    "the session table fills up; the host named has most sessions"
                );
            }
            Event::HostOverShare { host, vrf, prefix, reason } => {
                tracing::warn!(
                    event = "session-host-limit",
                    host = %format_args!("{host}/{prefix}"),
                    vrf = self.vrfs.name(vrf),
                    reason = reason.name(),
                    "a host has its share of sessions: its new ones are refused"
                );
            }
        }
    }

    /// One line of JSON. Numbers have no gap but where records are lost. False: it is.
    fn record(&mut self, event: &str, fields: Map<String, Value>) -> bool {
        if self.out.as_ref().is_some_and(RecordFile::is_due) {
            self.flush();
        }
        let Some(out) = &mut self.out else { return false };
        self.sequence += 1;
        let mut line =
            json!({"seq": self.sequence, "time": rfc3339_millis(SystemTime::now()), "event": event});
        if let Some(all) = line.as_object_mut() {
            all.extend(fields);
        }
        let taken = out.push(&line.to_string());
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// The record of a gap comes when the gap is over.
    fn note_lost(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost != self.recorded_lost && self.out.as_ref().is_some_and(|o| !o.is_failing()) {
            let fields = json!({"count": lost - self.recorded_lost});
            if self.record("records-lost", fields.as_object().cloned().unwrap_or_default()) {
                self.recorded_lost = lost;
            }
        }
    }
}

fn session(family: Family, number: u32, t: &SessionTuple, vrfs: &VrfNames) -> Map<String, Value> {
    let fields = json!({
        "family": if family == Family::V4 { 4 } else { 6 },
        "session": number,
        "proto": t.proto,
        "src": t.src, "sport": t.sport, "dst": t.dst, "dport": t.dport,
        "nat_src": t.nat_src, "nat_sport": t.nat_sport, "nat_dst": t.nat_dst, "nat_dport": t.nat_dport,
        "vrf": vrfs.name(t.vrf), "to_vrf": vrfs.name(t.to_vrf),
    });
    fields.as_object().cloned().unwrap_or_default()
}

fn block(
    (host, vrf): (std::net::IpAddr, Option<String>),
    external: std::net::Ipv4Addr,
    first: u16,
    last: u16,
) -> Map<String, Value> {
    let fields =
        json!({"host": host, "vrf": vrf, "external": external, "first_port": first, "last_port": last});
    fields.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_compile::VrfNumbers;
    use sag_model::VrfNo;

    fn shops() -> VrfNumbers {
        let mut numbers = VrfNumbers::default();
        numbers.restore([("shop".to_owned(), VrfNo::new(2).unwrap())]);
        numbers
    }

    /// Both tuples of a session with the VRFs between which it goes.
    #[test]
    fn sessions_name_their_vrfs() {
        let names = VrfNames::default();
        names.set(&shops());
        let [inside, server, outside] =
            ["10.0.0.5", "198.51.100.7", "203.0.113.2"].map(|a| a.parse().expect("address"));
        let (src, dst, nat_src, nat_dst) = (inside, server, outside, server);
        let (vrf, to_vrf) = (VrfNo::new(2).unwrap(), VrfNo::DEFAULT);
        let (sport, dport, nat_sport, nat_dport) = (4000, 80, 1024, 80);
        let t = SessionTuple {
            proto: 6,
            src,
            sport,
            dst,
            dport,
            nat_src,
            nat_sport,
            nat_dst,
            nat_dport,
            vrf,
            to_vrf,
        };
        let line = session(Family::V4, 7, &t, &names);
        assert_eq!(
            (&line["src"], &line["vrf"], &line["to_vrf"]),
            (&json!(inside), &json!("shop"), &Value::Null)
        );
        let line = session(Family::V4, 7, &SessionTuple { vrf: to_vrf, to_vrf: vrf, ..t }, &names);
        assert_eq!((&line["vrf"], &line["to_vrf"]), (&Value::Null, &json!("shop")));
    }

    fn wait_for(mut done: impl FnMut() -> bool) {
        for _ in 0..200 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nothing was written");
    }

    /// The count of lost records is right, and the log goes on by itself when there is room.
    #[test]
    fn a_full_disk_is_counted_and_recovered_from() {
        let dir = tempfile::tempdir().unwrap();
        let (path, real) = (dir.path().join("nat.log"), dir.path().join("real"));
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let health = FileHealth::default();
        let mut keeper = JournalKeeper::start(health.clone(), 1 << 17).unwrap();
        keeper.write_to(Some(path.clone()));
        let (a, b) = (std::net::Ipv4Addr::new(192, 168, 1, 10), std::net::Ipv4Addr::new(203, 0, 113, 2));
        let mut sent = 0u64;
        // Several times what may wait.
        for _ in 0..40 {
            let mut events = Events::default();
            for _ in 0..1000 {
                let (host, vrf, external, first, last) = (a.into(), VrfNo::DEFAULT, b, 1024, 1087);
                events.push(Event::BlockAllocated { host, vrf, external, first, last });
            }
            sent += 1000;
            keeper.journal.take(&mut events);
            std::thread::sleep(Duration::from_millis(5));
        }
        wait_for(|| keeper.journal.lost() > 0 && health.warnings().iter().any(|w| w.contains("NAT log")));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        wait_for(|| std::fs::read_to_string(&real).is_ok_and(|t| t.contains("records-lost")));
        assert!(health.warnings().is_empty(), "{:?}", health.warnings());
        keeper.finish(Duration::from_secs(10));
        let text = std::fs::read_to_string(&real).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let lost: u64 = lines.iter().filter_map(|l| l["count"].as_u64()).sum();
        let records = lines.iter().filter(|l| l["event"] == "block-lent").count() as u64;
        assert_eq!((lost, lost + records), (keeper.journal.lost(), sent));
        let numbers: Vec<u64> = lines.iter().filter_map(|l| l["seq"].as_u64()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn records_are_numbered_lines_and_gaps_are_records() {
        let dir = std::env::temp_dir().join(format!("sag-journal-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("nat.log");
        let mut keeper = JournalKeeper::start(FileHealth::default(), 1 << 20).unwrap();
        keeper.write_to(Some(path.clone()));
        let mut events = Events::default();
        let a = std::net::Ipv4Addr::new(192, 168, 1, 10);
        let b = std::net::Ipv4Addr::new(203, 0, 113, 2);
        let (vrf, ports) = (VrfNo::new(2).unwrap(), (1024, 1087));
        let (host, external, (first, last)) = (a.into(), b, ports);
        keeper.vrfs.set(&shops());
        events.push(Event::BlockAllocated { host, vrf, external, first, last });
        events.lost = 3;
        let lines = || -> Vec<Value> {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
        };
        wait_for(|| path.exists());
        keeper.journal.take(&mut events);
        wait_for(|| lines().len() == 2);
        let l = lines();
        assert_eq!(
            (&l[0]["event"], &l[0]["seq"], &l[0]["last_port"]),
            (&json!("block-lent"), &json!(1), &json!(1087))
        );
        assert_eq!((&l[1]["event"], &l[1]["count"]), (&json!("records-lost"), &json!(3)));
        assert_eq!(keeper.journal.lost(), 3);
        assert_eq!(l[0]["vrf"], "shop");
        // What waits at the end is written.
        let vrf = VrfNo::DEFAULT;
        events.push(Event::BlockReleased { host, vrf, external, first, last });
        keeper.journal.take(&mut events);
        keeper.finish(Duration::from_secs(10));
        assert_eq!((lines().len(), &lines()[2]["vrf"]), (3, &Value::Null));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
