//! Inputs made of others, for the ordinary tests. `scripts/fuzz.sh` leaves this to libFuzzer, which sees
//! what an input reaches.

use crate::Target;
use sag_testkit::Rng;

/// Longest input that is tried.
const MAX_LEN: usize = 8192;

/// Makes inputs from others: bytes changed, cut, doubled, copied from another input, words of a
/// configuration inserted. The same seed makes the same inputs.
#[derive(Debug)]
pub struct Mutator {
    rng: Rng,
    pool: Vec<Vec<u8>>,
}

impl Mutator {
    /// `pool`: the inputs to start from.
    pub fn new(seed: u64, pool: Vec<Vec<u8>>) -> Mutator {
        Mutator { rng: Rng::new(seed), pool }
    }

    /// The next input for `target`, at most 8192 bytes long.
    pub fn next_input(&mut self, target: Target) -> Vec<u8> {
        let d = &mut self.rng;
        let mut data = match self.pool.is_empty() || d.once_in(8) {
            true => target.fresh(d),
            false => self.pool[d.below(self.pool.len())].clone(),
        };
        for _ in 0..=d.below(6) {
            change(d, &mut data, &self.pool);
        }
        data.truncate(MAX_LEN);
        // A small share joins the pool, so that changes accumulate; the pool stays bounded.
        if d.once_in(50) && !data.is_empty() {
            match self.pool.len() {
                n if n >= 500 => self.pool[d.below(n)] = data.clone(),
                _ => self.pool.push(data.clone()),
            }
        }
        data
    }
}

fn change(d: &mut Rng, data: &mut Vec<u8>, pool: &[Vec<u8>]) {
    let at = d.below(data.len() + 1);
    let end = (at + d.below(40)).min(data.len());
    match d.below(8) {
        0 => data.insert(at, d.roll() as u8),
        1 => data.truncate(at),
        2 => {
            data.drain(at..end);
        }
        3 => {
            let piece = data[at..end].to_vec();
            let to = d.below(data.len() + 1);
            data.splice(to..to, piece);
        }
        4 if !pool.is_empty() => {
            let other = &pool[d.below(pool.len())];
            let from = d.below(other.len() + 1);
            let piece = other[from..(from + d.below(60)).min(other.len())].to_vec();
            data.splice(at..end, piece);
        }
        5 => {
            let word = d.pick(&[
                &b"0"[..],
                b"-1",
                b"\"\"",
                b"[[",
                b"]]",
                b"=",
                b"\n",
                b"99999999999",
                b"::/0",
                b"\xFF\xFF",
            ]);
            data.splice(at..at, word.iter().copied());
        }
        _ if at < data.len() => data[at] = d.pick(&[0, 1, 0x7F, 0x80, 0xFF, 0x45]),
        _ => {}
    }
}
