//! The security associations of one tunnel, and how it changes from one pair to the next without losing
//! a packet.
//!
//! A new inbound SA is valid at once, and the old ones stay valid for a while. Sending changes by
//! [`Switchover`]: the side that has the new pair first must wait until its peer has it too.

use super::{Inbound, Outbound};
use std::sync::Arc;

/// Inbound SAs that are valid at one time: the one in use, the next, and those that run out. Both ends may make
/// a new key every ten seconds, and old SAs stay valid for ten.
pub const MAX_INBOUND: usize = 8;

/// When sending changes to a new pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switchover {
    /// At once: the peer has the pair.
    Now,
    /// When the peer has sent under the new pair, or at this time.
    PeerOr(u64),
}

impl Switchover {
    /// When the peer has sent under the new pair, and not before.
    pub const AFTER_PEER: Switchover = Switchover::PeerOr(u64::MAX);
}

/// Why a pair cannot be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// An inbound SA of the tunnel has this SPI.
    #[error("SPI {0:#x} is in use by this tunnel")]
    SpiInUse(u32),
    /// [`MAX_INBOUND`] inbound SAs are valid.
    #[error("{MAX_INBOUND} inbound associations are valid: wait until the older ones have run out")]
    TooMany,
    /// Another pair waits for the peer.
    #[error("another pair is waiting for the peer: wait until it is in use")]
    Waiting,
}

#[derive(Debug, Clone)]
struct Received {
    sa: Arc<Inbound>,
    since: u64,
    /// Not the newest any more: removed at this time.
    until: Option<u64>,
}

/// A tunnel's SAs. One thread owns the set; workers have the `Arc`s.
#[derive(Debug, Clone)]
pub struct SaSet {
    inbound: Vec<Received>,
    outbound: Arc<Outbound>,
    sends_since: u64,
    waiting: Option<(Arc<Outbound>, Switchover)>,
    /// How long an old inbound SA stays valid after the peer has changed to the new one.
    grace: u64,
    /// The same at the longest, if the peer does not change.
    max_overlap: u64,
}

impl SaSet {
    /// A set of one pair, in use from now on.
    pub fn new(inbound: Arc<Inbound>, outbound: Arc<Outbound>, now: u64) -> SaSet {
        const SECOND: u64 = 1_000_000_000;
        SaSet {
            inbound: vec![Received { sa: inbound, since: now, until: None }],
            outbound,
            sends_since: now,
            waiting: None,
            grace: 10 * SECOND,
            max_overlap: 3600 * SECOND,
        }
    }

    /// Installs a pair. Its inbound SA is valid from now on.
    ///
    /// # Errors
    /// [`InstallError`]; the set is unchanged.
    pub fn install(
        &mut self,
        inbound: Arc<Inbound>,
        outbound: Arc<Outbound>,
        switch: Switchover,
        now: u64,
    ) -> Result<(), InstallError> {
        if self.waiting.is_some() {
            return Err(InstallError::Waiting);
        }
        self.is_new(&inbound)?;
        if self.inbound.len() >= MAX_INBOUND {
            return Err(InstallError::TooMany);
        }
        for old in &mut self.inbound {
            old.until.get_or_insert(now.saturating_add(self.max_overlap));
        }
        self.inbound.push(Received { sa: inbound, since: now, until: None });
        self.waiting = Some((outbound, switch));
        self.poll(now);
        Ok(())
    }

    /// Refuses an SPI that is in use.
    fn is_new(&self, inbound: &Inbound) -> Result<(), InstallError> {
        match self.inbound.iter().any(|r| r.sa.spi() == inbound.spi()) {
            true => Err(InstallError::SpiInUse(inbound.spi())),
            false => Ok(()),
        }
    }

    /// Installs a pair in the place of one that waits for the peer, which the peer cannot have because it has
    /// other keys.
    ///
    /// # Errors
    /// [`InstallError::SpiInUse`]; [`InstallError::TooMany`] if all the inbound SAs are in use.
    pub fn supersede(
        &mut self,
        inbound: Arc<Inbound>,
        outbound: Arc<Outbound>,
        switch: Switchover,
        now: u64,
    ) -> Result<(), InstallError> {
        // If the peer uses the waiting pair after all, it is not waiting any more.
        self.poll(now);
        self.is_new(&inbound)?;
        if self.inbound.len() >= MAX_INBOUND {
            let unused = self.inbound.iter().position(|r| !r.sa.used());
            self.inbound.remove(unused.ok_or(InstallError::TooMany)?);
        }
        self.waiting = None;
        self.install(inbound, outbound, switch, now)
    }

    /// Does what is due. True: the SAs have changed, and workers need the new ones.
    pub fn poll(&mut self, now: u64) -> bool {
        let mut changed = false;
        let peer_moved = self.inbound.last().is_some_and(|r| r.sa.used());
        // While the peer has not changed, the SA that it sends under stays valid.
        let older = self.inbound.len().saturating_sub(1);
        let in_use = self.inbound[..older].iter_mut().rev().find(|r| r.sa.used());
        if let (Some(_), Some(r)) = (&self.waiting, in_use) {
            r.until = r.until.map(|u| u.max(now.saturating_add(self.grace)));
        }
        if let Some((_, switch)) = &self.waiting {
            let due = match switch {
                Switchover::Now => true,
                Switchover::PeerOr(at) => peer_moved || now >= *at,
            };
            if due && let Some((next, _)) = self.waiting.take() {
                self.outbound = next;
                self.sends_since = now;
                changed = true;
            }
        }
        if peer_moved {
            let end = now.saturating_add(self.grace);
            for r in &mut self.inbound {
                r.until = r.until.map(|u| u.min(end));
            }
        }
        let before = self.inbound.len();
        self.inbound.retain(|r| r.until.is_none_or(|u| now < u));
        changed || self.inbound.len() != before
    }

    /// The SA to send under.
    pub fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// The SA to send under once no pair waits any more.
    pub fn newest_outbound(&self) -> &Arc<Outbound> {
        self.waiting.as_ref().map_or(&self.outbound, |(next, _)| next)
    }

    /// The SAs to receive under, the newest last.
    pub fn inbound(&self) -> impl ExactSizeIterator<Item = &Arc<Inbound>> + DoubleEndedIterator {
        self.inbound.iter().map(|r| &r.sa)
    }

    /// Whether a pair waits for the peer.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// For how long the newest inbound and the outbound association have been in use.
    pub fn ages(&self, now: u64) -> (u64, u64) {
        let inbound = self.inbound.last().map_or(now, |r| r.since);
        (now.saturating_sub(inbound), now.saturating_sub(self.sends_since))
    }
}
