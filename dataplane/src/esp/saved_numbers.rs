//! Sequence numbers over a restart: how far they may have gone is written to a file before they are used, so that no number is
//! sent twice by one key and none is taken twice from a peer.

use sag_tunnel::esp::SaSet;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Sequence numbers that are reserved at a time: a daemon that is killed skips no more than these.
pub const SEQUENCE_RESERVE: u64 = 1 << 24;
/// The file is written at least this often while numbers move, in nanoseconds.
const INTERVAL: u64 = 10_000_000_000;

/// What is saved of a tunnel's associations.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Saved {
    spi_out: u32,
    /// The first number that was never sent.
    next: u64,
    spi_in: u32,
    /// The highest number received.
    top: u64,
    /// Fingerprint of both keys: with other keys the numbers mean nothing.
    keys: u64,
}

/// The saved numbers of all tunnels, by name.
#[derive(Debug, Default)]
pub struct SavedNumbers {
    file: Option<PathBuf>,
    saved: HashMap<String, Saved>,
    written: u64,
}

impl SavedNumbers {
    /// Reads the file of an earlier daemon, if there is one.
    pub fn load(&mut self, dir: &Path) {
        let file = dir.join("esp-sequence.json");
        match std::fs::read(&file) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(saved) => self.saved = saved,
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "not readable: sequence numbers of ESP begin at 1, and peers may take them for replays")
                }
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %file.display(), %error, "cannot read it"),
        }
        self.file = Some(file);
    }

    /// The number with which to go on sending, and the highest received, for these keys and SPIs.
    pub fn resume(&self, name: &str, keys: u64, spi_in: u32, spi_out: u32) -> (u64, u64) {
        let saved = self.saved.get(name).filter(|s| s.keys == keys);
        let first = saved.filter(|s| s.spi_out == spi_out).map_or(1, |s| s.next);
        let top = saved.filter(|s| s.spi_in == spi_in).map_or(0, |s| s.top);
        (first, top)
    }

    /// Whether the file is older than it may be while packets flow.
    pub fn is_old(&self, now: u64) -> bool {
        now.saturating_sub(self.written) > INTERVAL
    }

    /// Writes the numbers, if they differ from those in the file.
    pub fn write(&mut self, current: HashMap<String, Saved>, now: u64) {
        let Some(file) = &self.file else { return };
        self.written = now;
        if current == self.saved {
            return;
        }
        let written = serde_json::to_vec(&current).map_err(std::io::Error::from).and_then(|text| {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir)?;
            }
            let new = file.with_extension("new");
            std::fs::write(&new, text)?;
            std::fs::rename(&new, file)
        });
        match written {
            Ok(()) => self.saved = current,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot write it: after a restart peers may take ESP packets for replays")
            }
        }
    }
}

/// What to save of a tunnel's newest associations, and the outbound SPI with the number up to which its numbers are then
/// reserved.
pub fn of(set: &SaSet, keys: u64) -> Option<(Saved, (u32, u64))> {
    let (out, inbound) = (set.outbound(), set.inbound().next_back()?);
    let limit = if out.extended() { u64::MAX } else { u64::from(u32::MAX) };
    let next = out.next_sequence().saturating_add(SEQUENCE_RESERVE).min(limit);
    let (spi_in, top) = (inbound.spi(), inbound.window().top());
    let saved = Saved { spi_out: out.spi(), next, spi_in, top, keys };
    Some((saved, (out.spi(), next)))
}
