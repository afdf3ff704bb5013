//! The numbers of static keys (decision 13): reserved on disk before they are used, so that none is used or accepted
//! twice after a restart. Keys by agreement end with the process and need none of this.

use super::ledger_file::{self, Found, LedgerFile, Version1, Written};
use super::words::{Before, Words};
use sag_tunnel::esp::{Inbound, Lease, Ledger, Outbound, SaId, Withheld, receive_ahead, send_ahead};
use sag_xsk::sys;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A write that has failed is tried again after so many nanoseconds.
const RETRY: u64 = 1_000_000_000;
/// How long a change of keys waits for the disk. What is not written by then is granted later.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the start found to be wrong with the record, and about which keys.
#[derive(Debug)]
struct Doubt {
    why: String,
    /// Keys that were sent under.
    keys: BTreeSet<u64>,
    /// Associations that were.
    associations: BTreeSet<u64>,
    /// Any key of the first configuration may have been.
    all: bool,
}

#[derive(Debug)]
struct Sending {
    sa: Arc<Outbound>,
    lease: Lease,
    /// The next number at the last look.
    seen: u64,
    exhausted: bool,
}

#[derive(Debug)]
struct Receiving {
    sa: Arc<Inbound>,
    id: SaId,
    /// What counts as received after a loss of power.
    floor: u64,
    /// The highest number at the last reservation, when that was, and how many were reserved.
    top: u64,
    since: u64,
    ahead: u64,
}

/// The record, and the associations whose numbers are in it.
#[derive(Debug)]
pub struct Numbers {
    ledger: Ledger,
    file: Option<LedgerFile>,
    words: Option<Words>,
    version1: HashMap<String, Version1>,
    /// The highest numbers that the process before has received, by association, if it has run since the machine started.
    tops: HashMap<u64, u64>,
    doubt: Option<Doubt>,
    sends: Vec<Sending>,
    receives: Vec<Receiving>,
    /// What may be used once a generation is on disk.
    grants: Vec<(u64, Arc<Outbound>, u64)>,
    /// There is something to write.
    changed: bool,
    in_flight: Option<u64>,
    failure: Option<String>,
    failed_at: u64,
}

impl Default for Numbers {
    /// A record that is written nowhere.
    fn default() -> Numbers {
        Numbers {
            ledger: Ledger::new(random()),
            file: None,
            words: None,
            version1: HashMap::new(),
            tops: HashMap::new(),
            doubt: None,
            sends: Vec::new(),
            receives: Vec::new(),
            grants: Vec::new(),
            changed: false,
            in_flight: None,
            failure: None,
            failed_at: 0,
        }
    }
}

fn random() -> u64 {
    sag_tunnel::keys::random().unwrap_or_else(|error| {
        tracing::warn!(%error, "the IVs of static keys begin at a fixed number");
        0
    })
}

/// Nanoseconds since 1970, if the clock is right.
fn clock() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Numbers {
    /// Goes on with what an earlier daemon has written to `dir`, and to `words` as far as it was killed.
    pub fn load(dir: &Path, words: Option<&Path>) -> Numbers {
        let mut ledger_file = LedgerFile::new(dir.join("esp-sequence.json"));
        if let Err(error) = ledger_file.start() {
            tracing::debug!(error, "the thread of the ESP numbers is started later");
        }
        let mut out = Numbers { file: Some(ledger_file), ..Numbers::default() };
        let opened = words.map(|path| (path, Words::open(path)));
        let before = match opened {
            Some((_, Ok((words, before)))) => {
                out.words = Some(words);
                before
            }
            Some((path, Err(error))) => {
                tracing::warn!(
                    event = "esp-unmirrored",
                    path = %path.display(),
                    %error,
                    "the numbers received are not kept in memory: after a crash some packets are taken for replays that \
                     are none, until the daemon is restarted with room for the file"
                );
                None
            }
            None => None,
        };
        let file = dir.join("esp-sequence.json");
        let (ledger, why) = match ledger_file::read(&file) {
            Found::Ledger(ledger) => match &before {
                Some(b) if b.generation > ledger.generation => {
                    (Some(ledger), Some("is older than the last one that was written".to_owned()))
                }
                _ => (Some(ledger), None),
            },
            Found::Copied(ledger) => (
                Some(ledger),
                Some("was put there, and may be older than the last one that was written".to_owned()),
            ),
            Found::Version1(tunnels) => {
                out.version1 = tunnels;
                (None, None)
            }
            Found::Missing => (None, Some("is missing".to_owned())),
            Found::Damaged(error) => (None, Some(format!("cannot be read: {error}"))),
        };
        let missing = ledger.is_none() && why.as_deref() == Some("is missing");
        // The words are those of the last process, unless that had none.
        let (newer, known) = (
            before.as_ref().is_some_and(|b| ledger.as_ref().is_none_or(|l| b.generation > l.generation)),
            why.is_none() && ledger.as_ref().is_some_and(|l| l.mirrored),
        );
        if let Some(ledger) = ledger {
            out.ledger = ledger;
        }
        if let Some(before) = before.as_ref().filter(|_| (newer || known) && out.version1.is_empty()) {
            out.tops.clone_from(&before.numbers);
            before.numbers.iter().for_each(|(sa, top)| out.ledger.set_exact(*sa, *top));
        }
        if let Some(why) = why {
            out.doubt = doubt(format!("{} {why}", file.display()), missing, dir, &out.ledger, before);
        }
        out.ledger.mirrored = out.words.is_some();
        out
    }

    /// The keys of the first configuration are in force: later ones are new.
    pub fn started(&mut self) {
        if let Some(doubt) = &mut self.doubt {
            doubt.all = false;
            doubt.associations.clear();
        }
        self.version1.clear();
        self.tops.clear();
    }

    /// The numbers that version 1 had of a tunnel with these keys.
    pub fn adopt(
        &mut self,
        tunnel: &str,
        keys: u64,
        (receives, spi_in): (SaId, u32),
        (sends, spi_out): (SaId, u32),
    ) {
        let known = self.version1.get(tunnel).and_then(|v| v.numbers(keys, spi_in, spi_out));
        if let Some((next, top)) = known {
            self.ledger.adopt((sends, next), (receives, top));
        }
    }

    /// The first numbers of an outbound association, or why there are none.
    pub fn send(&mut self, id: SaId, extended: bool) -> Result<Lease, Withheld> {
        if let Some(d) = &self.doubt
            && (d.all || d.keys.contains(&id.key) || d.associations.contains(&id.sa))
        {
            self.ledger.set_lost(id);
        }
        self.changed = true;
        self.ledger.send(id, extended, clock())
    }

    /// Whether an association that is in use has this key.
    pub fn in_use(&mut self, key: u64) -> bool {
        self.release_unused();
        self.sends.iter().any(|s| s.lease.id.key == key) || self.receives.iter().any(|r| r.id.key == key)
    }

    /// Has a lease granted when it is on disk.
    pub fn track_sending(&mut self, sa: Arc<Outbound>, lease: Lease) {
        self.grants.push((self.ledger.generation + 1, sa.clone(), lease.end));
        // That it was in use is known even if the record is lost.
        if let Some(words) = &self.words {
            words.slot(lease.id.sa, 1);
        }
        self.sends.push(Sending { sa, seen: lease.first, lease, exhausted: false });
        self.changed = true;
    }

    /// The highest number that counts as received under an association.
    pub fn received(&mut self, id: SaId) -> u64 {
        let running = self.receives.iter().filter(|r| r.id == id).map(|r| r.sa.window().top()).max();
        let saved = self.ledger.receive(id);
        running.or_else(|| self.tops.remove(&id.sa)).unwrap_or(saved)
    }

    /// Where the highest number of an association is mirrored.
    pub fn mirror(&self, id: SaId, top: u64) -> Option<&'static std::sync::atomic::AtomicU64> {
        self.words.as_ref()?.slot(id.sa, top)
    }

    /// Has what an association receives written down.
    pub fn track_receiving(&mut self, sa: Arc<Inbound>, id: SaId) {
        let (top, ahead) = (sa.window().top(), receive_ahead(0, 1));
        self.ledger.set_received(id, top + ahead);
        self.receives.push(Receiving { sa, id, floor: top + ahead, top, since: sys::now(), ahead });
        self.changed = true;
    }

    /// An operator answers for a key. False: nothing was against it.
    pub fn confirm(&mut self, key: u64) -> bool {
        if let Some(d) = &mut self.doubt {
            d.keys.remove(&key);
        }
        let lost = self.ledger.confirm(key);
        self.changed |= lost;
        lost
    }

    /// What the start has found, or why nothing can be written now.
    pub fn trouble(&self) -> Option<&str> {
        self.doubt.as_ref().map(|d| d.why.as_str())
    }

    /// Why nothing can be written now.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether all that there is to write is written.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        !self.changed && self.in_flight.is_none() && self.failure.is_none()
    }

    /// An epoch for a new key of this gateway.
    pub fn next_epoch(&mut self) -> u64 {
        self.changed = true;
        self.ledger.next_epoch(clock() / 1_000_000_000)
    }

    /// Another epoch is in use.
    pub fn note_epoch(&mut self, epoch: u64) {
        self.changed = true;
        self.ledger.note_epoch(epoch);
    }

    /// Writes what has changed, and waits until it is on disk, but not for ever.
    pub fn commit(&mut self) {
        if !self.changed {
            return;
        }
        self.submit();
        while let Some(written) = self
            .file
            .as_ref()
            .filter(|_| self.in_flight.is_some())
            .and_then(|f| f.written(Some(WRITE_TIMEOUT)))
        {
            self.take_written(written);
        }
    }

    /// Reserves what will be needed, and grants what is on disk. To be called every 50 ms.
    pub fn poll(&mut self, now: u64) {
        while let Some(written) = self.file.as_ref().and_then(|f| f.written(None)) {
            self.take_written(written);
        }
        self.release_unused();
        let failing = self.failure.is_some();
        if self.in_flight.is_some() || (failing && now.saturating_sub(self.failed_at) < RETRY) {
            return;
        }
        if !failing {
            self.reserve_sending();
            self.reserve_receiving(now);
        }
        if self.changed || failing {
            self.submit();
        }
    }

    fn reserve_sending(&mut self) {
        for s in &mut self.sends {
            let next = s.sa.next_sequence();
            let ahead = send_ahead(next.saturating_sub(s.seen));
            s.seen = next;
            if s.exhausted || s.lease.end.saturating_sub(next) >= ahead / 2 {
                continue;
            }
            let before = s.lease.end;
            s.exhausted = self.ledger.extend(&mut s.lease, next, ahead).is_err();
            if s.lease.end > before {
                self.grants.push((self.ledger.generation + 1, s.sa.clone(), s.lease.end));
                self.changed = true;
            }
        }
    }

    fn reserve_receiving(&mut self, now: u64) {
        for r in &mut self.receives {
            let top = r.sa.window().top();
            if r.floor.saturating_sub(top) >= r.ahead / 2 {
                continue;
            }
            r.ahead = receive_ahead(top - r.top, now.saturating_sub(r.since));
            (r.floor, r.top, r.since) = (top.saturating_add(r.ahead), top, now);
            self.ledger.set_received(r.id, r.floor);
            self.changed = true;
        }
    }

    /// Associations that nobody uses any more.
    fn release_unused(&mut self) {
        let (ledger, words, grants) = (&mut self.ledger, &self.words, &mut self.grants);
        let release = |sa: u64| words.iter().for_each(|w| w.release(sa));
        let mut changed = false;
        self.sends.retain(|s| {
            let held = 1 + grants.iter().filter(|(_, sa, _)| Arc::ptr_eq(sa, &s.sa)).count();
            let used = Arc::strong_count(&s.sa) > held;
            if !used {
                grants.retain(|(_, sa, _)| !Arc::ptr_eq(sa, &s.sa));
                ledger.finish(&s.lease, s.sa.next_sequence());
                release(s.lease.id.sa);
                changed = true;
            }
            used
        });
        let unused = |r: &Receiving| Arc::strong_count(&r.sa) == 1;
        for r in self.receives.iter().filter(|r| unused(r)) {
            let others = self.receives.iter().any(|o| o.id == r.id && !unused(o));
            if !others {
                ledger.set_received(r.id, r.sa.window().top());
                release(r.id.sa);
                changed = true;
            }
        }
        self.receives.retain(|r| !unused(r));
        self.changed |= changed;
    }

    /// The daemon ends in good order and its workers have ended: the numbers are exact.
    pub fn finish(&mut self) {
        for s in &self.sends {
            self.ledger.finish(&s.lease, s.sa.next_sequence());
        }
        for r in &self.receives {
            self.ledger.set_received(r.id, r.sa.window().top());
        }
        self.changed |= !self.sends.is_empty() || !self.receives.is_empty();
        self.commit();
    }

    fn submit(&mut self) {
        self.changed = false;
        self.ledger.generation += 1;
        let generation = self.ledger.generation;
        match self.file.as_mut().map(|f| f.submit(self.ledger.clone())) {
            None => self.take_written((generation, Ok(()))),
            Some(Ok(())) => self.in_flight = Some(generation),
            Some(Err(error)) => self.take_written((generation, Err(error))),
        }
    }

    fn take_written(&mut self, (generation, result): Written) {
        if self.in_flight == Some(generation) {
            self.in_flight = None;
        }
        match result {
            Ok(()) => {
                if self.failure.take().is_some() {
                    tracing::info!("the numbers of static keys can be written again");
                }
                self.words.iter().for_each(|w| w.set_generation(generation));
                self.grants.retain(|(of, sa, end)| {
                    let granted = *of <= generation;
                    if granted {
                        sa.grant(*end);
                    }
                    !granted
                });
            }
            Err(error) => {
                let file = self.file.as_ref().map_or(String::new(), |f| f.path.display().to_string());
                let error = format!("cannot write {file}: {error}");
                if self.failure.as_ref() != Some(&error) {
                    tracing::error!(
                        event = "esp-unreserved",
                        error,
                        "tunnels with static keys stop sending when their reserve is used up"
                    );
                }
                self.failure = Some(error);
                self.failed_at = sys::now();
            }
        }
    }
}

/// The keys that may have been used. `None`: none, this is the first start.
fn doubt(why: String, missing: bool, dir: &Path, ledger: &Ledger, before: Option<Before>) -> Option<Doubt> {
    let before_config = ledger_file::keys_before(dir);
    let all = before_config.is_none() && !missing;
    let mut keys = ledger.sending_keys();
    keys.extend(before_config.unwrap_or_default());
    let associations: BTreeSet<u64> = before.map(|b| b.numbers.into_keys().collect()).unwrap_or_default();
    if keys.is_empty() && associations.is_empty() && !all {
        return None;
    }
    Some(Doubt { why, keys, associations, all })
}
