//! The sender: numbers source packets and makes repair packets for each block. Nothing is allocated after
//! the start.

use super::code::Code;
use super::header::{BlockInfo, Header};
use super::{MAX_PACKET, SOURCE_HEADER, Settings};

/// Source packets that may come before the repair packets made of them are fetched.
const BETWEEN: usize = 64;

/// The repair symbols of a block.
#[derive(Debug)]
struct BlockRepairs {
    parity: Box<[u8]>,
    number: u32,
    sources: u8,
    longest: usize,
    opened: u64,
    /// The next repair to be sent.
    next: u8,
    mark: u8,
}

/// What one worker sends through one tunnel.
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    code: Code,
    stream: u8,
    /// Of the next block.
    number: u32,
    /// A ring: blocks that are closed and have repair packets to be sent, then the one that is open.
    sets: Box<[BlockRepairs]>,
    first: usize,
    closed: usize,
    open: bool,
}

/// A repair packet that has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// Bytes, header included.
    pub len: usize,
    /// The mark that the caller gave the block's last packet.
    pub mark: u8,
}

impl Sender {
    /// A sender of `stream`. `first`: the number of the first block, a different one in each process.
    /// `None`: settings out of range.
    pub fn new(settings: Settings, stream: u8, first: u32) -> Option<Sender> {
        let code = Code::new(settings.sources, settings.repairs)?;
        let set = || BlockRepairs {
            parity: vec![0; MAX_PACKET * usize::from(settings.repairs)].into_boxed_slice(),
            number: 0,
            sources: 0,
            longest: 0,
            opened: 0,
            next: 0,
            mark: 0,
        };
        let sets = 2 + BETWEEN.div_ceil(usize::from(settings.sources));
        Some(Sender {
            settings,
            code,
            stream,
            number: first,
            sets: (0..sets).map(|_| set()).collect(),
            first: 0,
            closed: 0,
            open: false,
        })
    }

    /// The settings.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// The stream.
    pub const fn stream(&self) -> u8 {
        self.stream
    }

    /// Takes a packet into the open block and returns its header. `None`: it is sent without one, because it is
    /// longer than [`super::MAX_PACKET`] or repair packets were not fetched. `mark` is returned with the repair
    /// packets of the block.
    #[inline]
    pub fn source(&mut self, packet: &[u8], mark: u8, now: u64) -> Option<[u8; SOURCE_HEADER]> {
        if packet.len() > MAX_PACKET || packet.is_empty() || self.closed == self.sets.len() {
            return None;
        }
        let at = (self.first + self.closed) % self.sets.len();
        let set = &mut self.sets[at];
        if !self.open {
            let dirty = set.longest;
            set.parity.chunks_exact_mut(MAX_PACKET).for_each(|p| p[..dirty].fill(0));
            (set.number, set.sources, set.longest, set.opened, set.next) = (self.number, 0, 0, now, 0);
            self.number = self.number.wrapping_add(1);
            self.open = true;
        }
        let index = set.sources;
        self.code.add(index.into(), packet, &mut set.parity, MAX_PACKET);
        set.sources += 1;
        set.longest = set.longest.max(packet.len());
        set.mark = mark;
        let header = Header::Source { stream: self.stream, block: set.number, index };
        let mut out = [0; SOURCE_HEADER];
        header.write(&mut out)?;
        if set.sources == self.settings.sources {
            self.close();
        }
        Some(out)
    }

    fn close(&mut self) {
        self.open = false;
        self.closed += 1;
    }

    /// Closes the open block if it is old enough.
    #[inline]
    pub fn poll(&mut self, now: u64) {
        if self.due().is_some_and(|due| now >= due) {
            self.close();
        }
    }

    /// The time at which the open block is closed; `None` if none is open.
    #[inline]
    pub fn due(&self) -> Option<u64> {
        let at = (self.first + self.closed) % self.sets.len();
        self.open.then(|| self.sets[at].opened.saturating_add(self.settings.delay))
    }

    /// Writes the next repair packet of a closed block to `out`. `None`: there is none, or no room for it.
    pub fn repair(&mut self, out: &mut [u8]) -> Option<Repair> {
        if self.closed == 0 {
            return None;
        }
        let set = &mut self.sets[self.first];
        let code = BlockInfo {
            sources: set.sources,
            size: self.settings.sources,
            repairs: self.settings.repairs,
            len: set.longest as u16,
        };
        let index = set.next;
        let header = Header::Repair { stream: self.stream, block: set.number, index, code };
        let at = header.write(out)?;
        let from = usize::from(index) * MAX_PACKET;
        out.get_mut(at..at + set.longest)?.copy_from_slice(&set.parity[from..from + set.longest]);
        let written = Repair { len: at + set.longest, mark: set.mark };
        set.next += 1;
        // More repair packets than source packets would be of no use.
        if set.next == self.settings.repairs.min(set.sources) {
            self.first = (self.first + 1) % self.sets.len();
            self.closed -= 1;
        }
        Some(written)
    }
}
