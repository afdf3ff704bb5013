//! A connection: what it keeps, and the calls on it. HTTP/1 has one at a time, HTTP/2 several.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, timeout_at};

use crate::gate::{Gate, Inner, RELEASE, Reason};
use crate::slot::{Phase, Slot, Source, charge};

/// A connection's place; it is free again when nobody has the connection any more.
#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    slot: Arc<Slot>,
    /// The answer of HTTP/1, until it is written.
    answer: Mutex<Option<(Hold, Option<Arc<Call>>)>>,
}

impl Gate {
    /// Lets a connection in, if need be in the place of another one.
    pub(crate) async fn admit(self: &Arc<Gate>, peer: SocketAddr) -> Result<Conn, Reason> {
        let source = Source::of(peer.ip());
        let until = Instant::now() + RELEASE;
        let mut made_room = false;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let reason = {
                let mut inner = self.lock();
                let mine = inner.of(source).len();
                let reason = if mine >= self.limits.per_source {
                    Reason::Source
                } else if inner.open >= inner.most(self.limits.connections) {
                    Reason::Connections
                } else {
                    return Ok(self.enter(&mut inner, source, peer));
                };
                if !made_room {
                    let oldest = match reason {
                        Reason::Source => {
                            inner.of(source).iter().filter(|s| s.may_be_cut()).min_by_key(|s| s.rank())
                        }
                        _ => inner.widest(source, mine),
                    };
                    self.count(reason);
                    let Some(slot) = oldest else { return Err(reason) };
                    slot.cut();
                    made_room = true;
                }
                reason
            };
            if timeout_at(until, freed).await.is_err() {
                return Err(reason);
            }
        }
    }

    fn enter(self: &Arc<Gate>, inner: &mut Inner, source: Source, peer: SocketAddr) -> Conn {
        let slot = Arc::new(Slot::new(source, self.now()));
        inner.sources.entry(source).or_default().push(slot.clone());
        inner.open += 1;
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let place = Place { gate: self.clone(), slot, answer: Mutex::default() };
        Conn { place: Arc::new(place), call: None, peer }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.leave(&self.slot);
    }
}

/// A call, until its answer is written.
#[derive(Debug)]
struct Call {
    gate: Arc<Gate>,
    slot: Arc<Slot>,
    phase: AtomicU8,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.gate.end_call(&self.slot, self.phase.load(Ordering::Relaxed));
    }
}

/// A connection, for whoever answers its calls.
#[derive(Debug, Clone)]
pub struct Conn {
    place: Arc<Place>,
    /// The call for which this is; none: the connection itself.
    call: Option<Arc<Call>>,
    /// The other end.
    pub peer: SocketAddr,
}

impl Conn {
    pub(crate) fn gate(&self) -> &Gate {
        &self.place.gate
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.place.slot
    }

    /// A call begins; none: there are too many at a time.
    pub(crate) fn call(&self) -> Option<Conn> {
        let (gate, slot) = (self.place.gate.clone(), self.place.slot.clone());
        if !gate.begin_call(&slot) {
            return None;
        }
        let call = Call { gate, slot, phase: AtomicU8::new(Phase::Working as u8) };
        Some(Conn { call: Some(Arc::new(call)), ..self.clone() })
    }

    pub(crate) fn begin(&self, phase: Phase) {
        if let Some(call) = &self.call {
            let before = call.phase.swap(phase as u8, Ordering::Relaxed);
            self.place.slot.change(before, phase as u8, self.gate().now());
        }
    }

    /// Somebody else needs the place.
    pub(crate) async fn cut(&self) {
        self.place.slot.notify.notified().await;
    }

    /// Counts bytes that the connection keeps from now on.
    pub(crate) async fn hold(&self, bytes: usize) -> Result<Hold, Reason> {
        let mut hold = Hold { gate: self.place.gate.clone(), slot: self.place.slot.clone(), bytes: 0 };
        hold.grow(bytes).await?;
        Ok(hold)
    }

    /// The answer to a call of HTTP/1 is handed over: its bytes count until they are written.
    pub(crate) fn answering(&self, hold: Hold) {
        self.begin(Phase::Writing);
        *self.place.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some((hold, self.call.clone()));
    }

    /// There is no room for the answer: another one, which is small, is written.
    pub(crate) fn refused(&self) {
        self.begin(Phase::Writing);
    }

    /// Everything that was to be written is written.
    pub(crate) fn answered(&self) {
        let written = self.place.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(written);
    }

    /// The answer to a call of HTTP/2 is handed over: its bytes count until they are written, however that goes.
    pub(crate) fn answer_of(&self, hold: Hold) -> Outgoing {
        self.begin(Phase::Writing);
        let slot = self.place.slot.clone();
        let number = slot.outgoing.begin();
        Outgoing { slot, number, _hold: hold, _call: self.call.clone() }
    }
}

/// An answer that is being written as its reader takes it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    slot: Arc<Slot>,
    number: u64,
    _hold: Hold,
    _call: Option<Arc<Call>>,
}

impl Outgoing {
    /// So much more of it was taken.
    pub(crate) fn taken(&self, bytes: usize) {
        self.slot.outgoing.taken(self.number, bytes);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.slot.outgoing.end(self.number);
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    gate: Arc<Gate>,
    slot: Arc<Slot>,
    bytes: usize,
}

impl Hold {
    /// Counts more bytes, if need be instead of those of another connection.
    pub(crate) async fn grow(&mut self, more: usize) -> Result<(), Reason> {
        let until = Instant::now() + RELEASE;
        loop {
            let mut freed = std::pin::pin!(self.gate.freed.notified());
            freed.as_mut().enable();
            {
                let mut inner = self.gate.lock();
                let held = self.slot.held.load(Ordering::Relaxed) + more;
                let buffered = inner.buffered - self.slot.charge() + charge(held);
                if buffered <= self.gate.limits.buffered || charge(held) == 0 {
                    inner.buffered = buffered;
                    self.slot.held.store(held, Ordering::Relaxed);
                    self.bytes += more;
                    return Ok(());
                }
                let heaviest = inner.heaviest(&self.slot, charge(held));
                self.gate.count(Reason::Buffers);
                match heaviest {
                    Some(slot) => slot.cut(),
                    None => return Err(Reason::Buffers),
                }
            }
            if timeout_at(until, freed).await.is_err() {
                return Err(Reason::Buffers);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut inner = self.gate.lock();
        let before = self.slot.charge();
        let held = self.slot.held.load(Ordering::Relaxed).saturating_sub(self.bytes);
        self.slot.held.store(held, Ordering::Relaxed);
        inner.buffered -= before - charge(held);
        drop(inner);
        if before > 0 {
            self.gate.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
