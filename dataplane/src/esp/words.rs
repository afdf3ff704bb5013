//! The highest numbers received, in memory that outlives a process that is killed: a file on the tmpfs `/run`. After a
//! loss of power it is gone, and what was written ahead to disk counts.

use sag_xsk::map_words;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Names the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"sagesp 1");
const GENERATION: usize = 3;
const HEADER: usize = 8;
/// Associations that have a place: fingerprint, and the highest number.
const SLOTS: usize = 1020;

/// The words of this process.
#[derive(Debug)]
pub struct Words(&'static [AtomicU64]);

/// What the process before has left, in this life of the machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The last generation of the ledger that was on disk.
    pub generation: u64,
    /// By fingerprint of the association.
    pub numbers: HashMap<u64, u64>,
}

fn boot_id() -> io::Result<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok([(id >> 64) as u64, id as u64])
}

impl Words {
    /// Opens the file, takes what is in it, and clears it.
    pub fn open(path: &Path) -> io::Result<(Words, Option<Before>)> {
        let boot = boot_id()?;
        let w = map_words(path, HEADER + 2 * SLOTS)?;
        let head = [0, 1, 2].map(|i: usize| w[i].load(Acquire));
        let before = (head == [MAGIC, boot[0], boot[1]]).then(|| {
            let slots = w[HEADER..].chunks_exact(2).map(|s| (s[0].load(Relaxed), s[1].load(Relaxed)));
            Before {
                generation: w[GENERATION].load(Relaxed),
                numbers: slots.filter(|(id, _)| *id != 0).collect(),
            }
        });
        w[0].store(0, Release);
        w[1..].iter().for_each(|word| word.store(0, Relaxed));
        w[1].store(boot[0], Relaxed);
        w[2].store(boot[1], Relaxed);
        w[0].store(MAGIC, Release);
        Ok((Words(w), before))
    }

    /// This generation of the ledger is on disk.
    pub fn set_generation(&self, generation: u64) {
        self.0[GENERATION].fetch_max(generation, Relaxed);
    }

    /// The place of an association, with at least this number in it. `None`: all places are taken.
    pub fn slot(&self, sa: u64, top: u64) -> Option<&'static AtomicU64> {
        let of = |id: u64| self.0[HEADER..].chunks_exact(2).find(|s| s[0].load(Relaxed) == id);
        let slot = of(sa).or_else(|| of(0))?;
        slot[1].fetch_max(top, Relaxed);
        slot[0].store(sa, Release);
        Some(&slot[1])
    }

    /// Nobody writes to the place of this association any more.
    pub fn release(&self, sa: u64) {
        if let Some(slot) = self.0[HEADER..].chunks_exact(2).find(|s| s[0].load(Relaxed) == sa) {
            slot[0].store(0, Relaxed);
            slot[1].store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_finds_what_a_killed_one_had() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words");
        let (words, before) = Words::open(&path).unwrap();
        assert_eq!(before, None);
        words.set_generation(7);
        words.slot(11, 100).unwrap().fetch_max(150, Relaxed);
        assert_eq!(words.slot(11, 90).unwrap().load(Relaxed), 150, "the same place, and no lower number");
        words.slot(12, 5).unwrap();
        words.slot(13, 5).unwrap();
        words.release(12);
        for n in 14..14 + SLOTS as u64 - 2 {
            assert!(words.slot(n, n).is_some());
        }
        assert!(words.slot(9999, 1).is_none(), "it is full");
        let (_, before) = Words::open(&path).unwrap();
        let before = before.unwrap();
        assert_eq!((before.generation, before.numbers.len()), (7, SLOTS));
        assert_eq!((before.numbers[&11], before.numbers.get(&12)), (150, None));
        // Of another life of the machine.
        map_words(&path, HEADER + 2 * SLOTS).unwrap()[2].fetch_add(1, Relaxed);
        assert_eq!(Words::open(&path).unwrap().1, None);
    }
}
