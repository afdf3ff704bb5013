//! The receiver: source packets are delivered at once and remembered; lost ones are computed from repair
//! packets.

use super::code::Code;
use super::header::{BlockInfo, Header, read};
use super::{MAX_PACKET, MAX_REPAIRS, MAX_SOURCES};
use crate::esp::Inner;

/// Blocks remembered at one time, of all streams together; the oldest makes room.
const BLOCKS: usize = 16;
/// Nanoseconds after which a block that is not complete is given up.
pub const BLOCK_TIMEOUT: u64 = 2_000_000_000;
/// Nanoseconds between two codes that are made because the peer has changed its own: making one takes as long
/// as many packets.
const NEW_CODE: u64 = 100_000_000;

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// No header of this version, one that contradicts itself or its block, or no IP packet behind it.
    #[error("header of another version, or one that contradicts itself or its block")]
    BadHeader,
    /// The packet was received or recovered before.
    #[error("it was recovered, or received, before")]
    Duplicate,
}

/// What a received packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A source packet.
    Source {
        /// Where the IP packet begins.
        at: usize,
        /// Its kind.
        inner: Inner,
    },
    /// A repair packet, stored until its block is complete or given up.
    RepairStored,
    /// A repair packet that is not needed.
    RepairUnneeded,
}

/// Results of recovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that were lost and recovered.
    pub recovered: u64,
    /// Blocks with packets that could not be recovered.
    pub unrecoverable: u64,
}

#[derive(Debug)]
struct Block {
    /// Stream and number; `None`: free.
    key: Option<(u8, u32)>,
    since: u64,
    /// Sources received or recovered, a bit each.
    present: u32,
    lens: [u16; MAX_SOURCES],
    /// Repair packets that are stored, a bit each, and the tags that the caller gave them.
    stored: u8,
    tags: [u8; MAX_REPAIRS],
    /// Known from the first repair packet on.
    info: Option<BlockInfo>,
    /// Complete or given up.
    done: bool,
    /// Source symbols, then repair symbols, [`MAX_PACKET`] bytes each.
    data: Box<[u8]>,
}

/// The newest block of a stream, and when it came.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    number: u32,
    at: Option<u64>,
}

/// Packets that have been recovered and not yet fetched.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    block: usize,
    left: u32,
    /// The repair packets that replaced them.
    stored: u8,
}

/// What one worker receives through one tunnel.
#[derive(Debug)]
pub struct Receiver {
    blocks: Box<[Block]>,
    /// The place that the next block takes.
    oldest: usize,
    newest: Box<[Newest]>,
    code: Option<Code>,
    code_since: u64,
    ready: Ready,
    stats: Stats,
    /// Blocks that are neither complete nor given up.
    waiting: usize,
}

impl Default for Receiver {
    fn default() -> Receiver {
        let block = || Block {
            key: None,
            since: 0,
            present: 0,
            lens: [0; MAX_SOURCES],
            stored: 0,
            tags: [0; MAX_REPAIRS],
            info: None,
            done: true,
            data: vec![0; (MAX_SOURCES + MAX_REPAIRS) * MAX_PACKET].into_boxed_slice(),
        };
        Receiver {
            blocks: (0..BLOCKS).map(|_| block()).collect(),
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
    /// Takes what an authentic packet carries.
    ///
    /// A repair packet that is stored is given back by its `tag` exactly once: to `unneeded` if it was not used, by
    /// [`Receiver::recovered`] if it was. Packets that were recovered must be fetched before the next call.
    ///
    /// # Errors
    /// [`ReceiveError`] says why the packet must be dropped.
    #[inline]
    pub fn receive(
        &mut self,
        text: &[u8],
        tag: u8,
        now: u64,
        unneeded: impl FnMut(u8),
    ) -> Result<Received, ReceiveError> {
        let (header, at) = read(text).ok_or(ReceiveError::BadHeader)?;
        match header {
            Header::Source { stream, block, index } => {
                let (packet, inner) = packet(&text[at..]).ok_or(ReceiveError::BadHeader)?;
                self.source((stream, block), index.into(), packet, now, unneeded)?;
                Ok(Received::Source { at, inner })
            }
            Header::Repair { stream, block, index, code } => {
                let bytes = &text[at..at + usize::from(code.len)];
                self.repair((stream, block), index.into(), code, (bytes, tag), now, unneeded)
            }
        }
    }

    fn source(
        &mut self,
        key: (u8, u32),
        index: usize,
        packet: &[u8],
        now: u64,
        mut unneeded: impl FnMut(u8),
    ) -> Result<(), ReceiveError> {
        if packet.len() > MAX_PACKET {
            return Err(ReceiveError::BadHeader);
        }
        let Some(at) = self.block(key, now, &mut unneeded) else { return Ok(()) };
        let w = &mut self.blocks[at];
        if w.present & 1 << index != 0 {
            return Err(ReceiveError::Duplicate);
        }
        if w.info.is_some_and(|p| index >= p.sources.into() || packet.len() > p.len.into()) {
            return Err(ReceiveError::BadHeader);
        }
        w.data[index * MAX_PACKET..index * MAX_PACKET + packet.len()].copy_from_slice(packet);
        w.lens[index] = packet.len() as u16;
        w.present |= 1 << index;
        self.recover(at, now, unneeded);
        Ok(())
    }

    fn repair(
        &mut self,
        key: (u8, u32),
        index: usize,
        plan: BlockInfo,
        (bytes, tag): (&[u8], u8),
        now: u64,
        mut unneeded: impl FnMut(u8),
    ) -> Result<Received, ReceiveError> {
        let Some(at) = self.block(key, now, &mut unneeded) else { return Ok(Received::RepairUnneeded) };
        let w = &mut self.blocks[at];
        let fits = match w.info {
            Some(known) => known == plan,
            None => {
                let beyond = !mask(plan.sources);
                let longest = (0..MAX_SOURCES).filter(|i| w.present >> i & 1 != 0).map(|i| w.lens[i]).max();
                w.present & beyond == 0 && longest.is_none_or(|l| l <= plan.len)
            }
        };
        if !fits {
            return Err(ReceiveError::BadHeader);
        }
        if w.stored & 1 << index != 0 {
            return Err(ReceiveError::Duplicate);
        }
        w.info = Some(plan);
        if w.done || w.present == mask(plan.sources) {
            self.finish(at, unneeded);
            return Ok(Received::RepairUnneeded);
        }
        let place = (MAX_SOURCES + index) * MAX_PACKET;
        w.data[place..place + bytes.len()].copy_from_slice(bytes);
        w.stored |= 1 << index;
        w.tags[index] = tag;
        self.recover(at, now, unneeded);
        Ok(Received::RepairStored)
    }

    /// The place of a block. `None`: it is older than those remembered.
    fn block(&mut self, key: (u8, u32), now: u64, mut unneeded: impl FnMut(u8)) -> Option<usize> {
        if let Some(at) = self.blocks.iter().position(|w| w.key == Some(key)) {
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
        self.finish(at, &mut unneeded);
        let w = &mut self.blocks[at];
        (w.key, w.since, w.present, w.stored, w.info, w.done) = (Some(key), now, 0, 0, None, false);
        self.waiting += 1;
        Some(at)
    }

    /// Computes the missing source packets of a block, if it is known which they are and enough repair packets are
    /// stored.
    fn recover(&mut self, at: usize, now: u64, unneeded: impl FnMut(u8)) {
        let w = &mut self.blocks[at];
        let Some(plan) = w.info else { return };
        let missing = mask(plan.sources) & !w.present;
        if missing == 0 || w.done {
            self.finish(at, unneeded);
            return;
        }
        if missing.count_ones() > w.stored.count_ones() {
            return;
        }
        if !self.code.as_ref().is_some_and(|c| c.is_of(plan.size, plan.repairs)) {
            if self.code.is_some() && now.saturating_sub(self.code_since) < NEW_CODE {
                return;
            }
            (self.code, self.code_since) = (Code::new(plan.size, plan.repairs), now);
        }
        let Some(code) = &self.code else { return };
        let w = &mut self.blocks[at];
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
        w.present |= left;
        self.stats.recovered += u64::from(left.count_ones());
        // Each recovered packet counts as one repair packet used; the others are unneeded.
        let mut used = 0;
        for _ in 0..left.count_ones() {
            used |= 1 << (w.stored & !used).trailing_zeros();
        }
        w.stored &= !used;
        self.ready = Ready { block: at, left, stored: used };
        self.finish(at, unneeded);
    }

    /// Nothing more is expected of a block.
    fn finish(&mut self, at: usize, mut unneeded: impl FnMut(u8)) {
        let w = &mut self.blocks[at];
        for i in (0..MAX_REPAIRS).filter(|i| w.stored >> i & 1 != 0) {
            unneeded(w.tags[i]);
        }
        w.stored = 0;
        if w.done {
            return;
        }
        w.done = true;
        self.waiting -= 1;
        let sent = match w.info {
            Some(p) => mask(p.sources),
            // Without a repair packet it is unknown how many source packets followed.
            None => u32::MAX.checked_shr(w.present.leading_zeros()).unwrap_or(0),
        };
        self.stats.unrecoverable += u64::from(sent & !w.present != 0);
    }

    /// Writes the next recovered packet to `out`; returns its length and the tag of the repair packet that was
    /// used. `None`: there is none, or `out` is too short.
    pub fn recovered(&mut self, out: &mut [u8]) -> Option<(usize, u8)> {
        let r = &mut self.ready;
        if r.left == 0 {
            return None;
        }
        let (source, repair) = (r.left.trailing_zeros() as usize, r.stored.trailing_zeros() as usize);
        r.left &= r.left - 1;
        r.stored &= r.stored.wrapping_sub(1);
        let w = &self.blocks[r.block];
        let len = usize::from(w.lens[source]);
        out.get_mut(..len)?.copy_from_slice(&w.data[source * MAX_PACKET..source * MAX_PACKET + len]);
        Some((len, w.tags.get(repair).copied().unwrap_or(0)))
    }

    /// Whether packets were recovered and not yet fetched.
    #[inline]
    pub const fn has_recovered(&self) -> bool {
        self.ready.left != 0
    }

    /// Gives up blocks that are older than [`BLOCK_TIMEOUT`].
    #[inline]
    pub fn poll(&mut self, now: u64, mut unneeded: impl FnMut(u8)) {
        if self.waiting == 0 {
            return;
        }
        for at in 0..BLOCKS {
            if !self.blocks[at].done && now.saturating_sub(self.blocks[at].since) > BLOCK_TIMEOUT {
                self.finish(at, &mut unneeded);
            }
        }
    }

    /// Forgets everything: the receiver is not used any more.
    pub fn clear(&mut self, mut unneeded: impl FnMut(u8)) {
        (0..BLOCKS).for_each(|at| self.finish(at, &mut unneeded));
    }

    /// The counts since the last call.
    #[inline]
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }
}

/// What a packet is to a gateway that recovers nothing.
///
/// # Errors
/// [`ReceiveError::BadHeader`].
pub fn decode_only(text: &[u8]) -> Result<Received, ReceiveError> {
    match read(text).ok_or(ReceiveError::BadHeader)? {
        (Header::Source { .. }, at) => {
            let (_, inner) = packet(&text[at..]).ok_or(ReceiveError::BadHeader)?;
            Ok(Received::Source { at, inner })
        }
        (Header::Repair { .. }, _) => Ok(Received::RepairUnneeded),
    }
}

/// A bit for each of the first `sources` source packets.
const fn mask(sources: u8) -> u32 {
    u32::MAX >> (MAX_SOURCES as u32 - sources as u32)
}

/// Runs the code over a block. False: too few symbols are present.
fn fill_in(code: &Code, plan: BlockInfo, w: &mut Block) -> bool {
    let (len, size) = (usize::from(plan.len), usize::from(plan.size));
    let (sources, repairs) = (usize::from(plan.sources), usize::from(plan.repairs));
    let mut shards: [(&mut [u8], bool); MAX_SOURCES + MAX_REPAIRS] =
        std::array::from_fn(|_| (&mut [][..], false));
    for (i, bytes) in w.data.chunks_exact_mut(MAX_PACKET).enumerate() {
        let (at, there) = match i.checked_sub(MAX_SOURCES) {
            None if i >= size => continue,
            None => (i, i >= sources || w.present >> i & 1 != 0),
            Some(repair) if repair >= repairs => continue,
            Some(repair) => (size + repair, w.stored >> repair & 1 != 0),
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

/// The IP packet at the front, by the length in its header.
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
