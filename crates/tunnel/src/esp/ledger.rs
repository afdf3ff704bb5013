//! The numbers of keys that outlive the process, in the form in which they are written to disk before they are used
//! (decision 13).
//!
//! Two packets under one key must not have the same nonce (RFC 4106 9), and none is to be accepted twice, whatever the
//! clock does and whenever the process ends. The caller writes [`Ledger::text`] and waits until it is on disk; then it
//! grants what [`Ledger::send`] and [`Ledger::extend`] have reserved.

use super::outbound::sequence_end;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// SAs of each direction that the ledger remembers; those in use for the longest time not go first.
pub const MAX_KEYS: usize = 1024;
/// The version of the file. Version 1 was an object by tunnels.
const VERSION: u32 = 2;

/// The first bit of the IVs: versions that took the time in nanoseconds for an IV never set it.
const IV_HIGH: u64 = 1 << 63;
/// Of the random part of the IVs.
const IV_OFFSET: u64 = (1 << 61) - 1;
/// The end of the counter: with the offset it stays below 2^63.
const IV_END: u64 = 3 << 61;
/// A clock beyond it (the year 2116) is not believed, so that it cannot use up the counter.
const CLOCK_END: u64 = 1 << 62;

/// Fewest numbers that are reserved for sending at a time.
const SEND_LEAST: u64 = 1 << 20;
/// Most numbers that are reserved for sending: a peer recovers the high half of a number that is less than 2^32 ahead.
const SEND_MOST: u64 = 1 << 28;
/// Fewest numbers that count as received before they are.
const RECEIVE_LEAST: u64 = 32;
/// The time in nanoseconds for which what counts as received lasts.
const RECEIVE_TIME: u64 = 20_000_000_000;

/// A hash that identifies keying material without revealing it: for what is stored on disk about a key.
pub fn fingerprint(keymat: &[u8]) -> u64 {
    let mut of = ring::digest::Context::new(&ring::digest::SHA256);
    of.update(b"sag-vcpe key fingerprint 1");
    of.update(keymat);
    of.finish().as_ref().first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}

/// Which numbers belong together: those of an SPI under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaId {
    /// Fingerprint of the key and its salt.
    pub key: u64,
    /// Fingerprint of key, salt and SPI.
    pub sa: u64,
}

impl SaId {
    /// Of a key with its salt, and an SPI.
    pub fn of(keymat: &[u8], spi: u32) -> SaId {
        let key = fingerprint(keymat);
        let mut both = key.to_be_bytes().to_vec();
        both.extend(spi.to_be_bytes());
        SaId { key, sa: fingerprint(&both) }
    }
}

/// Why nothing may be sent under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// Numbers were used under it that are not known.
    #[error("packets were sent under its key, and the record of their numbers is lost")]
    Lost,
    /// The peer sends under it.
    #[error("the peer has sent under its key_out: two senders under one key repeat nonces")]
    PeersKey,
    /// All its numbers are used.
    #[error("the numbers of its key are used up")]
    Exhausted,
}

/// Why a text is no ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Cut short or altered.
    #[error("it is damaged ({0})")]
    Damaged(String),
    /// Of a later version of the program.
    #[error("it has version {0}, which this program does not know")]
    Version(u32),
}

/// The numbers that an outbound SA was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose they are.
    pub id: SaId,
    /// The first sequence number.
    pub first: u64,
    /// The IV of its packet.
    pub iv: u64,
    /// The first sequence number that is not reserved.
    pub end: u64,
    extended: bool,
    /// The counter of the IVs at `first`.
    counter: u64,
    /// Which lease of its key it is.
    serial: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sending {
    key: u64,
    /// The first sequence number that was never reserved.
    next: u64,
    /// The generation in which it was in use.
    used: u64,
    /// How many there were before is not known, and nobody has said that it does not matter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lost: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receiving {
    key: u64,
    /// What counts as received after a restart: this number and all below it.
    top: u64,
    used: u64,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Goes up by one with each writing.
    pub generation: u64,
    /// What the file system took for the time when the file was made, in seconds: a copy has another one.
    pub stamp: i64,
    /// The highest numbers received are in shared memory too.
    pub mirrored: bool,
    iv_offset: u64,
    /// The first value of the counter that was never reserved, under whichever key.
    iv_next: u64,
    /// The last epoch of this gateway's keys by agreement.
    epoch: u64,
    /// By fingerprint of the SA.
    sending: BTreeMap<u64, Sending>,
    receiving: BTreeMap<u64, Receiving>,
    /// The newest lease of each key in this process: no other one is extended, because their IVs would meet.
    #[serde(skip)]
    leases: BTreeMap<u64, u64>,
    #[serde(skip)]
    serial: u64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    sha256: String,
    numbers: serde_json::Value,
}

impl Ledger {
    /// An empty one. `random` makes its IVs differ from those of a ledger that is lost with all its traces.
    pub fn new(random: u64) -> Ledger {
        Ledger {
            generation: 0,
            stamp: 0,
            mirrored: false,
            iv_offset: random & IV_OFFSET,
            iv_next: 0,
            epoch: 0,
            sending: BTreeMap::new(),
            receiving: BTreeMap::new(),
            leases: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Reads what [`Ledger::text`] has made.
    ///
    /// # Errors
    /// [`LedgerError`]; of version 1 too, which the caller reads for itself.
    pub fn parse(text: &[u8]) -> Result<Ledger, LedgerError> {
        let damaged = |e: serde_json::Error| LedgerError::Damaged(e.to_string());
        let document: Document = serde_json::from_slice(text).map_err(damaged)?;
        if document.version != VERSION {
            return Err(LedgerError::Version(document.version));
        }
        let ledger: Ledger = serde_json::from_value(document.numbers).map_err(damaged)?;
        if ledger.sum() != document.sha256 {
            return Err(LedgerError::Damaged("its check sum is wrong".into()));
        }
        if ledger.iv_offset > IV_OFFSET || ledger.iv_next > IV_END {
            return Err(LedgerError::Damaged("numbers out of range".into()));
        }
        Ok(ledger)
    }

    /// What to write.
    pub fn text(&self) -> String {
        let numbers = serde_json::to_value(self).unwrap_or_default();
        let document = Document { version: VERSION, sha256: self.sum(), numbers };
        serde_json::to_string(&document).unwrap_or_default()
    }

    fn sum(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        digest(&SHA256, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reserves the first numbers for a new outbound SA. `clock`: nanoseconds since 1970. The clock may be wrong: it only
    /// helps when the ledger is an old copy and nothing shows it.
    ///
    /// # Errors
    /// [`Withheld`].
    pub fn send(&mut self, id: SaId, extended: bool, clock: u64) -> Result<Lease, Withheld> {
        if self.sending.values().any(|s| s.key == id.key && s.lost) {
            return Err(Withheld::Lost);
        }
        if self.receiving.values().any(|r| r.key == id.key) {
            return Err(Withheld::PeersKey);
        }
        let first = self.sending.get(&id.sa).map_or(1, |s| s.next.max(1));
        let counter = self.iv_next.max(if clock < CLOCK_END { clock } else { 0 });
        self.serial += 1;
        let iv = IV_HIGH + self.iv_offset + counter;
        let mut lease = Lease { id, first, iv, end: first, extended, counter, serial: self.serial };
        self.leases.insert(id.key, self.serial);
        self.extend(&mut lease, first, SEND_LEAST)?;
        Ok(lease)
    }

    /// Reserves numbers up to `ahead` beyond `next`, the next one of the SA.
    ///
    /// # Errors
    /// [`Withheld::Exhausted`], also if a later lease of the key has taken the numbers.
    pub fn extend(&mut self, lease: &mut Lease, next: u64, ahead: u64) -> Result<(), Withheld> {
        if self.leases.get(&lease.id.key) != Some(&lease.serial) {
            return Err(Withheld::Exhausted);
        }
        let room = lease.first.saturating_add(IV_END.saturating_sub(lease.counter));
        let most = sequence_end(lease.extended).min(room);
        let end = next.saturating_add(ahead).min(most);
        if end <= lease.end {
            return if lease.end < most { Ok(()) } else { Err(Withheld::Exhausted) };
        }
        lease.end = end;
        self.iv_next = self.iv_next.max(lease.counter + (end - lease.first));
        let used = self.generation;
        self.sending.insert(lease.id.sa, Sending { key: lease.id.key, next: end, used, lost: false });
        evict(&mut self.sending, |s| s.used);
        Ok(())
    }

    /// The last sequence number that was used is the one before `next`: the process ends in good order.
    pub fn finish(&mut self, lease: &Lease, next: u64) {
        if self.leases.get(&lease.id.key) == Some(&lease.serial)
            && let Some(s) = self.sending.get_mut(&lease.id.sa)
        {
            s.next = next.clamp(lease.first, lease.end);
        }
    }

    /// The highest number that counts as received under an inbound SA, and the SA is in use from now on.
    pub fn receive(&mut self, id: SaId) -> u64 {
        let top = self.receiving.get(&id.sa).map_or(0, |r| r.top);
        self.set_received(id, top);
        top
    }

    /// What is to count as received after a restart.
    pub fn set_received(&mut self, id: SaId, top: u64) {
        self.receiving.insert(id.sa, Receiving { key: id.key, top, used: self.generation });
        evict(&mut self.receiving, |r| r.used);
    }

    /// The exact number that shared memory has, in the place of one that was reserved ahead.
    pub fn set_exact(&mut self, sa: u64, top: u64) {
        if let Some(r) = self.receiving.get_mut(&sa) {
            r.top = top;
        }
    }

    /// Takes over numbers of version 1, unless the SA is known.
    pub fn adopt(&mut self, sends: (SaId, u64), receives: (SaId, u64)) {
        let used = self.generation;
        let (id, next) = sends;
        self.sending.entry(id.sa).or_insert(Sending { key: id.key, next, used, lost: false });
        let (id, top) = receives;
        self.receiving.entry(id.sa).or_insert(Receiving { key: id.key, top, used });
    }

    /// Keys under which something was sent.
    pub fn sending_keys(&self) -> BTreeSet<u64> {
        self.sending.values().map(|s| s.key).collect()
    }

    /// Nothing is sent under the key until [`Ledger::confirm`].
    pub fn set_lost(&mut self, id: SaId) {
        let next = self.sending.get(&id.sa).map_or(1, |s| s.next);
        self.sending.insert(id.sa, Sending { key: id.key, next, used: self.generation, lost: true });
        evict(&mut self.sending, |s| s.used);
    }

    /// An operator says that the key may be used all the same. False: nothing was against it.
    pub fn confirm(&mut self, key: u64) -> bool {
        let mut any = false;
        for s in self.sending.values_mut().filter(|s| s.key == key) {
            any |= std::mem::take(&mut s.lost);
        }
        any
    }

    /// An epoch for a new key of this gateway: the time in seconds, and later than all before, whatever the clock says.
    pub fn next_epoch(&mut self, seconds: u64) -> u64 {
        self.epoch = seconds.min(CLOCK_END / 1_000_000_000).max(self.epoch.saturating_add(1));
        self.epoch
    }

    /// Another epoch is in use.
    pub fn note_epoch(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }
}

/// Keeps the bound.
fn evict<T>(of: &mut BTreeMap<u64, T>, used: impl Fn(&T) -> u64) {
    while of.len() > MAX_KEYS {
        let oldest = of.iter().min_by_key(|(_, v)| used(v)).map(|(k, _)| *k);
        oldest.and_then(|k| of.remove(&k));
    }
}

/// How many numbers to reserve for sending, of an SA that has used `used` of them since the last look, 50 ms ago:
/// for three seconds at that rate.
pub fn send_ahead(used: u64) -> u64 {
    used.saturating_mul(64).clamp(SEND_LEAST, SEND_MOST)
}

/// How many numbers are to count as received before they are, of an SA that has received `received` within `time`
/// nanoseconds: for 20 s at that rate, which is measured over a second at least. After a loss of power so many are
/// refused at the most.
pub fn receive_ahead(received: u64, time: u64) -> u64 {
    let time = time.max(1_000_000_000);
    let ahead = u128::from(received) * u128::from(RECEIVE_TIME) / u128::from(time);
    (ahead.min(u128::from(SEND_MOST)) as u64).max(RECEIVE_LEAST)
}
