//! Ports that hosts inside have asked for (RFC 6886, RFC 6887): bindings that are held without a session, and who
//! may send to them.
//!
//! Such a binding is an ordinary one. The host's own sessions share it, packets from outside find it by its port, and
//! what they begin are sessions as any others. All that is special is that the control thread holds it too, and that
//! whom it admits is written down beside the pool. The control thread writes; workers read at the first packet of a
//! session from outside.

use super::policy::{Behavior, Limits, Source};
use super::pool::{BindingNo, Endpoint, NatProtocol, Pool};
use super::{Lease, NatState, NoPort, Random};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Bindings that admit only some, or some more, at one time.
const LISTS: usize = 1024;
/// Prefixes of one of them.
const LIST_LEN: usize = 8;
/// Words of [`Pool::admitted`]: the source's filter decides.
const BY_SOURCE: u16 = 0;
/// Whoever sends is admitted. From the next number on, a list.
const ANYONE: u16 = 1;
/// [`PeerList::len`] of a list whose binding admits nobody else.
const EXCLUSIVE: u32 = 1 << 16;

/// A port outside that a host asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// TCP or UDP.
    pub protocol: NatProtocol,
    /// The endpoint that is to be reached.
    pub inside: Endpoint,
    /// The port that the host would like to have.
    pub wanted: Option<u16>,
    /// No other one will do.
    pub only: bool,
    /// The ports that hosts may have by asking.
    pub range: RangeInclusive<u16>,
}

/// Why a host does not get a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldError {
    /// Endpoints inside have no port that is the same for all remote ones.
    Dependent,
    /// No port is free.
    Exhausted,
    /// Few are, and the host has its share of them.
    HostShare,
    /// The port that the host wants is another's, or the host has another one already.
    NotThatPort,
}

/// Remote endpoints that are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPrefix {
    /// Address of the network.
    pub addr: Ipv4Addr,
    /// Bits of the address that count.
    pub len: u8,
    /// `None`: every port.
    pub port: Option<u16>,
}

impl PeerPrefix {
    fn words(self) -> (u64, u32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.len.min(32))).unwrap_or(0);
        let addr = self.addr.to_bits() & mask;
        (u64::from(addr) << 32 | u64::from(mask), self.port.map_or(u32::MAX, u32::from))
    }
}

/// Why it cannot be written down whom a binding admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmitError {
    /// More prefixes than a binding may have.
    TooMany,
    /// All lists are in use.
    NoList,
}

/// Whom one binding admits.
#[derive(Debug, Default)]
struct PeerList {
    /// The binding; 0: the list is free, or it is being written.
    owner: AtomicU32,
    /// How many there are, and [`EXCLUSIVE`].
    len: AtomicU32,
    /// Address and mask.
    prefixes: [AtomicU64; LIST_LEN],
    /// A port, or `u32::MAX` for every one.
    ports: [AtomicU32; LIST_LEN],
}

impl PeerList {
    /// For the control thread.
    fn write(&self, owner: BindingNo, peers: &[PeerPrefix], exclusive: bool) {
        for ((p, prefix), port) in peers.iter().zip(&self.prefixes).zip(&self.ports) {
            let (word, number) = p.words();
            prefix.store(word, Ordering::Relaxed);
            port.store(number, Ordering::Relaxed);
        }
        let flag = if exclusive { EXCLUSIVE } else { 0 };
        self.len.store(peers.len() as u32 | flag, Ordering::Relaxed);
        self.owner.store(owner.0, Ordering::Release);
    }

    /// Whether it admits somebody; `None`: the source's filter decides. `Err`: it is no longer the binding's.
    fn admits(&self, owner: BindingNo, remote: Endpoint) -> Result<Option<bool>, Replaced> {
        if self.owner.load(Ordering::Acquire) != owner.0 {
            return Err(Replaced);
        }
        let len = self.len.load(Ordering::Relaxed);
        let mut found = false;
        for (prefix, port) in self.prefixes.iter().zip(&self.ports).take((len & 0xFFFF) as usize) {
            let word = prefix.load(Ordering::Relaxed);
            let port = port.load(Ordering::Relaxed);
            let here = remote.addr.to_bits() & word as u32 == (word >> 32) as u32;
            found |= here && (port == u32::MAX || port == u32::from(remote.port));
        }
        fence(Ordering::Acquire);
        if self.owner.load(Ordering::Relaxed) != owner.0 {
            return Err(Replaced);
        }
        Ok(if found { Some(true) } else { (len & EXCLUSIVE != 0).then_some(false) })
    }
}

/// Another list has taken its place.
struct Replaced;

/// The lists of all bindings; made with the first one.
#[derive(Debug, Default)]
pub(super) struct PeerLists(OnceLock<Box<[PeerList]>>);

impl PeerLists {
    fn all(&self) -> &[PeerList] {
        self.0.get_or_init(|| (0..LISTS).map(|_| PeerList::default()).collect())
    }

    fn get(&self, word: u16) -> Option<&PeerList> {
        self.0.get()?.get(usize::from(word.checked_sub(ANYONE + 1)?))
    }

    /// A free list, filled; its word.
    fn take(&self, owner: BindingNo, peers: &[PeerPrefix], exclusive: bool) -> Result<u16, AdmitError> {
        if peers.len() > LIST_LEN {
            return Err(AdmitError::TooMany);
        }
        let all = self.all();
        let free = all.iter().position(|l| l.owner.load(Ordering::Relaxed) == 0).ok_or(AdmitError::NoList)?;
        all[free].write(owner, peers, exclusive);
        Ok(ANYONE + 1 + free as u16)
    }

    fn free(&self, word: u16) {
        if let Some(list) = self.get(word) {
            list.owner.store(0, Ordering::Release);
        }
    }
}

impl Pool {
    fn admitted_word(&self, binding: BindingNo) -> Option<&AtomicU16> {
        let at = usize::from(binding.protocol() == NatProtocol::Udp) << 16 | usize::from(binding.port());
        (binding.protocol() != NatProtocol::Icmp).then(|| self.admitted.get()?.get(at)).flatten()
    }
}

impl NatState {
    /// The external port of an inside endpoint that its host asks for, held until it is released: the one that the
    /// endpoint has, else the one that is wanted, else any.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn hold(
        &self,
        source: &Source,
        limits: &Limits,
        request: &PortRequest,
        random: &mut Random,
        tick: u32,
    ) -> Result<Lease, HoldError> {
        let PortRequest { protocol, inside, wanted, only, .. } = *request;
        if source.mapping != Behavior::EndpointIndependent || protocol == NatProtocol::Icmp {
            return Err(HoldError::Dependent);
        }
        let choose = |pool: &Pool| self.choose_wanted(pool, limits, request, random, tick);
        let lease = match self.lease_by(source, limits, protocol, (inside, 0), choose) {
            Ok(lease) => lease,
            Err(NoPort::HostShare) => return Err(HoldError::HostShare),
            Err(NoPort::Exhausted) if only => return Err(HoldError::NotThatPort),
            Err(NoPort::Exhausted) => return Err(HoldError::Exhausted),
        };
        if only && wanted.is_some_and(|w| w != lease.port) {
            self.release(lease.binding);
            return Err(HoldError::NotThatPort);
        }
        Ok(lease)
    }

    /// Claims the port that is wanted, or another one in its place.
    fn choose_wanted(
        &self,
        pool: &Pool,
        limits: &Limits,
        request: &PortRequest,
        random: &mut Random,
        tick: u32,
    ) -> Option<(u16, Option<u16>)> {
        let PortRequest { protocol, inside, wanted, only, .. } = *request;
        if limits.port_block.is_some() {
            // A host's ports are those of its blocks (RFC 7753 has the same rule).
            return self.choose(pool, limits, protocol, (inside, 0), random, tick);
        }
        let may = |port: &u16| request.range.contains(port) && limits.range.contains(port);
        let first = wanted.or(Some(inside.port)).filter(may);
        if let Some(port) = first
            && pool.claim(protocol, port, inside.word(), 0, tick)
        {
            return Some((port, None));
        }
        if only && wanted.is_some() {
            return None;
        }
        let (first, last) =
            (*request.range.start().max(limits.range.start()), *request.range.end().min(limits.range.end()));
        if first > last {
            return None;
        }
        let like = wanted.unwrap_or(inside.port);
        for _ in 0..64 {
            let free = |like: u16, r: u64| pool.free_port(protocol, &(first..=last), like, r);
            let port = free(like, random.draw()).or_else(|| free(like ^ 1, random.draw()))?;
            if pool.claim(protocol, port, inside.word(), 0, tick) {
                return Some((port, None));
            }
        }
        None
    }

    /// Whoever sends to a binding that is held is admitted. For the control thread, as the next two.
    pub fn admit_anyone(&self, binding: BindingNo) {
        self.set_admitted(binding, ANYONE);
    }

    /// These are admitted to a binding that is held; `exclusive`: and nobody else whom the host has not sent to.
    ///
    /// # Errors
    ///
    /// There is no room to write it down; it stays as it was.
    pub fn admit_peers(
        &self,
        binding: BindingNo,
        peers: &[PeerPrefix],
        exclusive: bool,
    ) -> Result<(), AdmitError> {
        let word = self.peer_lists.take(binding, peers, exclusive)?;
        self.set_admitted(binding, word);
        Ok(())
    }

    /// Who may send to a binding is again what its source's filter says. Before it is released.
    pub fn admit_by_source(&self, binding: BindingNo) {
        self.set_admitted(binding, BY_SOURCE);
    }

    fn set_admitted(&self, binding: BindingNo, word: u16) {
        let Some(pool) = self.pool_no(binding) else { return };
        if word != BY_SOURCE {
            pool.admitted.get_or_init(|| (0..2 << 16).map(|_| AtomicU16::new(BY_SOURCE)).collect());
        }
        if let Some(at) = pool.admitted_word(binding) {
            self.peer_lists.free(at.swap(word, Ordering::AcqRel));
        }
    }

    /// Whether a host has asked for somebody to be admitted to its binding, or for him not to be; `None`: neither.
    pub(super) fn asked_for(&self, pool: &Pool, binding: BindingNo, remote: Endpoint) -> Option<bool> {
        let word = pool.admitted_word(binding)?;
        // The control thread may just put another list in its place.
        for _ in 0..4 {
            match word.load(Ordering::Acquire) {
                BY_SOURCE => return None,
                ANYONE => return Some(true),
                list => match self.peer_lists.get(list)?.admits(binding, remote) {
                    Ok(answer) => return answer,
                    Err(Replaced) => std::hint::spin_loop(),
                },
            }
        }
        None
    }
}
