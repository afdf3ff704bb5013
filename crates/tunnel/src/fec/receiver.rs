//! Receiving: packets pass at once and are remembered; what is missing is made of repairs.

use super::code::Code;
use super::header::{BlockInfo, Header, read};
use super::{MAX_PACKET, MAX_REPAIRS, MAX_SOURCES};
use crate::esp::Inner;

/// Windows remembered at one time, of all streams together; the oldest makes room.
const BLOCKS: usize = 16;
/// How long a window is waited for.
pub const BLOCK_TIMEOUT: u64 = 2_000_000_000;
/// Between codes made anew because the peer has changed its own: it takes as long as many packets.
const NEW_CODE: u64 = 100_000_000;

/// Why a packet is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    #[error("header of another version, or one that contradicts itself or its window")]
    BadHeader,
    #[error("it was recovered, or received, before")]
    Duplicate,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// An IP packet, `at` bytes behind the header's begin.
    Source { at: usize, inner: Inner },
    /// A repair, kept until it is of use or of none.
    RepairStored,
    /// A repair that nobody needs.
    RepairUnneeded,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that were lost and are there.
    pub recovered: u64,
    /// Windows with packets that are lost for good.
    pub unrecoverable: u64,
}

#[derive(Debug)]
struct Block {
    /// Stream and number; `None`: free.
    key: Option<(u8, u32)>,
    since: u64,
    /// Sources received or recovered, a bit each.
    have: u32,
    lens: [u16; MAX_SOURCES],
    /// Repairs that are kept, a bit each, and what the caller said of them.
    kept: u8,
    tags: [u8; MAX_REPAIRS],
    /// Known from the first repair on.
    plan: Option<BlockInfo>,
    /// Nothing is waited for any more.
    done: bool,
    /// Sources, then repairs, [`MAX_PACKET`] bytes each.
    data: Box<[u8]>,
}

/// The newest window of a stream, and when it came.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    number: u32,
    at: Option<u64>,
}

/// Packets that have been recovered and not yet been fetched.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    window: usize,
    left: u32,
    /// Of the repairs that took their places.
    kept: u8,
}

/// What one worker receives through one tunnel.
#[derive(Debug)]
pub struct Receiver {
    windows: Box<[Block]>,
    /// The place that the next window takes.
    oldest: usize,
    newest: Box<[Newest]>,
    code: Option<Code>,
    code_since: u64,
    ready: Ready,
    stats: Stats,
    /// Windows that are waited for.
    waiting: usize,
}

impl Default for Receiver {
    fn default() -> Receiver {
        let window = || Block {
            key: None,
            since: 0,
            have: 0,
            lens: [0; MAX_SOURCES],
            kept: 0,
            tags: [0; MAX_REPAIRS],
            plan: None,
            done: true,
            data: vec![0; (MAX_SOURCES + MAX_REPAIRS) * MAX_PACKET].into_boxed_slice(),
        };
        Receiver {
            windows: (0..BLOCKS).map(|_| window()).collect(),
            oldest: 0,
            newest: vec![Newest::default(); 256].into_boxed_slice(),
            code: None,
            code_since: 0,
            ready: Ready::default(),
            stats: Stats::default(),
            waiting: 0,
        }
    }
}

impl Receiver {
    /// Takes what an authentic packet carries. `tag` is said again of a repair that has been kept: to
    /// `spare` when it was of no use, by [`Receiver::recovered`] when it was. Packets that were recovered
    /// are to be fetched before the next call.
    #[inline]
    pub fn receive(
        &mut self,
        text: &[u8],
        tag: u8,
        now: u64,
        spare: impl FnMut(u8),
    ) -> Result<Received, ReceiveError> {
        let (header, at) = read(text).ok_or(ReceiveError::BadHeader)?;
        match header {
            Header::Source { stream, window, index } => {
                let (packet, inner) = packet(&text[at..]).ok_or(ReceiveError::BadHeader)?;
                self.source((stream, window), index.into(), packet, now, spare)?;
                Ok(Received::Source { at, inner })
            }
            Header::Repair { stream, window, index, code } => {
                let bytes = &text[at..at + usize::from(code.len)];
                self.repair((stream, window), index.into(), code, (bytes, tag), now, spare)
            }
        }
    }

    fn source(
        &mut self,
        key: (u8, u32),
        index: usize,
        packet: &[u8],
        now: u64,
        mut spare: impl FnMut(u8),
    ) -> Result<(), ReceiveError> {
        if packet.len() > MAX_PACKET {
            return Err(ReceiveError::BadHeader);
        }
        let Some(at) = self.window(key, now, &mut spare) else { return Ok(()) };
        let w = &mut self.windows[at];
        if w.have & 1 << index != 0 {
            return Err(ReceiveError::Duplicate);
        }
        if w.plan.is_some_and(|p| index >= p.sources.into() || packet.len() > p.len.into()) {
            return Err(ReceiveError::BadHeader);
        }
        w.data[index * MAX_PACKET..index * MAX_PACKET + packet.len()].copy_from_slice(packet);
        w.lens[index] = packet.len() as u16;
        w.have |= 1 << index;
        self.recover(at, now, spare);
        Ok(())
    }

    fn repair(
        &mut self,
        key: (u8, u32),
        index: usize,
        plan: BlockInfo,
        (bytes, tag): (&[u8], u8),
        now: u64,
        mut spare: impl FnMut(u8),
    ) -> Result<Received, ReceiveError> {
        let Some(at) = self.window(key, now, &mut spare) else { return Ok(Received::RepairUnneeded) };
        let w = &mut self.windows[at];
        let fits = match w.plan {
            Some(known) => known == plan,
            None => {
                let beyond = !mask(plan.sources);
                let longest = (0..MAX_SOURCES).filter(|i| w.have >> i & 1 != 0).map(|i| w.lens[i]).max();
                w.have & beyond == 0 && longest.is_none_or(|l| l <= plan.len)
            }
        };
        if !fits {
            return Err(ReceiveError::BadHeader);
        }
        if w.kept & 1 << index != 0 {
            return Err(ReceiveError::Duplicate);
        }
        w.plan = Some(plan);
        if w.done || w.have == mask(plan.sources) {
            self.finish(at, spare);
            return Ok(Received::RepairUnneeded);
        }
        let place = (MAX_SOURCES + index) * MAX_PACKET;
        w.data[place..place + bytes.len()].copy_from_slice(bytes);
        w.kept |= 1 << index;
        w.tags[index] = tag;
        self.recover(at, now, spare);
        Ok(Received::RepairStored)
    }

    /// The place of a window. `None`: it is older than what is remembered.
    fn window(&mut self, key: (u8, u32), now: u64, mut spare: impl FnMut(u8)) -> Option<usize> {
        if let Some(at) = self.windows.iter().position(|w| w.key == Some(key)) {
            return Some(at);
        }
        let newest = &mut self.newest[usize::from(key.0)];
        let ahead = key.1.wrapping_sub(newest.number) as i32;
        let fresh = newest.at.is_some_and(|at| now.saturating_sub(at) < BLOCK_TIMEOUT);
        if fresh && ahead <= -(BLOCKS as i32) {
            return None;
        }
        if !fresh || ahead > 0 {
            *newest = Newest { number: key.1, at: Some(now) };
        }
        let at = self.oldest;
        self.oldest = (at + 1) % BLOCKS;
        self.finish(at, &mut spare);
        let w = &mut self.windows[at];
        (w.key, w.since, w.have, w.kept, w.plan, w.done) = (Some(key), now, 0, 0, None, false);
        self.waiting += 1;
        Some(at)
    }

    /// Makes what is missing, if it is known what and there are repairs enough.
    fn recover(&mut self, at: usize, now: u64, spare: impl FnMut(u8)) {
        let w = &mut self.windows[at];
        let Some(plan) = w.plan else { return };
        let missing = mask(plan.sources) & !w.have;
        if missing == 0 || w.done {
            self.finish(at, spare);
            return;
        }
        if missing.count_ones() > w.kept.count_ones() {
            return;
        }
        if !self.code.as_ref().is_some_and(|c| c.is_of(plan.size, plan.repairs)) {
            if self.code.is_some() && now.saturating_sub(self.code_since) < NEW_CODE {
                return;
            }
            (self.code, self.code_since) = (Code::new(plan.size, plan.repairs), now);
        }
        let Some(code) = &self.code else { return };
        let w = &mut self.windows[at];
        if !fill_in(code, plan, w) {
            return;
        }
        let mut left = 0;
        for i in (0..usize::from(plan.sources)).filter(|i| missing >> i & 1 != 0) {
            // The sender has coded something else than it says.
            if let Some((p, _)) = packet(&w.data[i * MAX_PACKET..i * MAX_PACKET + usize::from(plan.len)]) {
                w.lens[i] = p.len() as u16;
                left |= 1 << i;
            }
        }
        w.have |= left;
        self.stats.recovered += u64::from(left.count_ones());
        // As many repairs as packets are theirs, the others are spare.
        let mut used = 0;
        for _ in 0..left.count_ones() {
            used |= 1 << (w.kept & !used).trailing_zeros();
        }
        w.kept &= !used;
        self.ready = Ready { window: at, left, kept: used };
        self.finish(at, spare);
    }

    /// Nothing is waited for any more.
    fn finish(&mut self, at: usize, mut spare: impl FnMut(u8)) {
        let w = &mut self.windows[at];
        for i in (0..MAX_REPAIRS).filter(|i| w.kept >> i & 1 != 0) {
            spare(w.tags[i]);
        }
        w.kept = 0;
        if w.done {
            return;
        }
        w.done = true;
        self.waiting -= 1;
        let sent = match w.plan {
            Some(p) => mask(p.sources),
            // Without a repair nobody knows what came after the last one that came.
            None => u32::MAX.checked_shr(w.have.leading_zeros()).unwrap_or(0),
        };
        self.stats.unrecoverable += u64::from(sent & !w.have != 0);
    }

    /// Writes the next packet that was recovered to `out`: its length, and the tag of the repair that it
    /// took.
    pub fn recovered(&mut self, out: &mut [u8]) -> Option<(usize, u8)> {
        let r = &mut self.ready;
        if r.left == 0 {
            return None;
        }
        let (source, repair) = (r.left.trailing_zeros() as usize, r.kept.trailing_zeros() as usize);
        r.left &= r.left - 1;
        r.kept &= r.kept.wrapping_sub(1);
        let w = &self.windows[r.window];
        let len = usize::from(w.lens[source]);
        out.get_mut(..len)?.copy_from_slice(&w.data[source * MAX_PACKET..source * MAX_PACKET + len]);
        Some((len, w.tags.get(repair).copied().unwrap_or(0)))
    }

    /// Whether packets were recovered and not yet fetched.
    #[inline]
    pub const fn has_recovered(&self) -> bool {
        self.ready.left != 0
    }

    /// Gives windows up that have been waited for too long.
    #[inline]
    pub fn poll(&mut self, now: u64, mut spare: impl FnMut(u8)) {
        if self.waiting == 0 {
            return;
        }
        for at in 0..BLOCKS {
            if !self.windows[at].done && now.saturating_sub(self.windows[at].since) > BLOCK_TIMEOUT {
                self.finish(at, &mut spare);
            }
        }
    }

    /// Forgets everything: the receiver is not used any more.
    pub fn clear(&mut self, mut spare: impl FnMut(u8)) {
        (0..BLOCKS).for_each(|at| self.finish(at, &mut spare));
    }

    /// What has happened since the last call.
    #[inline]
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }
}

/// What a packet is to somebody who recovers nothing.
pub fn decode_only(text: &[u8]) -> Result<Received, ReceiveError> {
    match read(text).ok_or(ReceiveError::BadHeader)? {
        (Header::Source { .. }, at) => {
            let (_, inner) = packet(&text[at..]).ok_or(ReceiveError::BadHeader)?;
            Ok(Received::Source { at, inner })
        }
        (Header::Repair { .. }, _) => Ok(Received::RepairUnneeded),
    }
}

/// The first so many sources.
const fn mask(sources: u8) -> u32 {
    u32::MAX >> (MAX_SOURCES as u32 - sources as u32)
}

/// Runs the code over a window.
fn fill_in(code: &Code, plan: BlockInfo, w: &mut Block) -> bool {
    let (len, size) = (usize::from(plan.len), usize::from(plan.size));
    let (sources, repairs) = (usize::from(plan.sources), usize::from(plan.repairs));
    let mut shards: [(&mut [u8], bool); MAX_SOURCES + MAX_REPAIRS] =
        std::array::from_fn(|_| (&mut [][..], false));
    for (i, bytes) in w.data.chunks_exact_mut(MAX_PACKET).enumerate() {
        let (at, there) = match i.checked_sub(MAX_SOURCES) {
            None if i >= size => continue,
            None => (i, i >= sources || w.have >> i & 1 != 0),
            Some(repair) if repair >= repairs => continue,
            Some(repair) => (size + repair, w.kept >> repair & 1 != 0),
        };
        let Some(bytes) = bytes.get_mut(..len) else { return false };
        if at < size && there {
            let end = if at < sources { usize::from(w.lens[at]) } else { 0 };
            let Some(rest) = bytes.get_mut(end..) else { return false };
            rest.fill(0);
        }
        shards[at] = (bytes, there);
    }
    code.recover(&mut shards[..size + repairs])
}

/// The IP packet at the front, by the length that it says.
#[inline]
fn packet(text: &[u8]) -> Option<(&[u8], Inner)> {
    let word = |at: usize| text.get(at..at + 2).map(|w| usize::from(u16::from_be_bytes([w[0], w[1]])));
    let (len, inner) = match text.first()? >> 4 {
        4 => (word(2).filter(|n| *n >= 20)?, Inner::V4),
        6 => (word(4)? + 40, Inner::V6),
        _ => return None,
    };
    Some((text.get(..len)?, inner))
}
