//! The codes: the exclusive or for one repair symbol, Reed-Solomon for more.

use super::reed_solomon::ReedSolomon;
use super::{MAX_REPAIRS, MAX_SOURCES};

/// The code of a number of source and repair symbols.
#[derive(Debug)]
pub struct Code {
    size: u8,
    repairs: u8,
    /// `None` for the exclusive or.
    rs: Option<ReedSolomon>,
}

impl Code {
    /// The code of `size` source and `repairs` repair symbols. `None`: a number is 0 or above its limit.
    pub fn new(size: u8, repairs: u8) -> Option<Code> {
        let fits = (1..=MAX_SOURCES).contains(&usize::from(size))
            && (1..=MAX_REPAIRS).contains(&usize::from(repairs));
        if !fits {
            return None;
        }
        let rs = match repairs {
            1 => None,
            _ => Some(ReedSolomon::new(size.into(), repairs.into())?),
        };
        Some(Code { size, repairs, rs })
    }

    /// Whether this is the code of these numbers of symbols.
    pub const fn is_of(&self, size: u8, repairs: u8) -> bool {
        self.size == size && self.repairs == repairs
    }

    /// Adds source symbol `index` to the repair symbols, each of which has `room` bytes of `parity`. Source
    /// symbols are added in order; before the first the repair symbols are zeros.
    pub fn add(&self, index: usize, source: &[u8], parity: &mut [u8], room: usize) {
        let mut shards: [&mut [u8]; MAX_REPAIRS] = Default::default();
        let count = usize::from(self.repairs);
        for (shard, bytes) in shards.iter_mut().zip(parity.chunks_exact_mut(room)).take(count) {
            *shard = bytes.get_mut(..source.len()).unwrap_or(&mut []);
        }
        match &self.rs {
            None => xor(shards[0], source),
            Some(rs) => rs.add(index, source, &mut shards[..count]),
        }
    }

    /// Computes the source symbols that are missing. `shards`: the source symbols, then the repair symbols, all
    /// of one length, and whether each is present. False: too few are.
    pub fn recover(&self, shards: &mut [(&mut [u8], bool)]) -> bool {
        let size = usize::from(self.size);
        match &self.rs {
            Some(rs) => rs.recover(shards),
            None => {
                let missing = shards.iter().position(|(_, there)| !there);
                let Some(at) = missing.filter(|at| *at < size && shards.len() == size + 1) else {
                    return false;
                };
                let (before, rest) = shards.split_at_mut(at);
                let Some(((lost, there), after)) = rest.split_first_mut() else { return false };
                if after.iter().any(|(_, there)| !there) {
                    return false;
                }
                lost.fill(0);
                before.iter().chain(&*after).for_each(|(s, _)| xor(lost, s));
                *there = true;
                true
            }
        }
    }
}

fn xor(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a ^= b);
}
