//! What the kernel's settings were before the gateway changed them: in `/run`, so that it is there after a crash and, as the
//! settings themselves, gone after a restart of the machine.

use super::rules::KEYS;
use super::sysctl::Key;
use crate::files::replace_private;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A setting of a device by its number; number 0 is `all`.
pub type Place = (u32, Key);

/// A setting that was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Before the gateway.
    pub before: i32,
    /// By the gateway.
    pub set: i32,
}

#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    /// The network namespace that the entries are of.
    netns: u64,
    pub entries: BTreeMap<Place, Entry>,
}

impl Record {
    /// Reads what an earlier daemon has left. Of another network namespace it says nothing.
    pub fn open(path: &Path) -> Record {
        let netns = std::fs::metadata("/proc/self/ns/net").map_or(0, |m| m.ino());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Record { path: path.to_owned(), netns, entries: parse(&text, netns) }
    }

    /// Writes the entries; without any the file goes.
    pub fn save(&self) -> io::Result<()> {
        if self.entries.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        }
        let mut text = format!("netns {}\n", self.netns);
        for ((ifindex, key), e) in &self.entries {
            let _ = writeln!(text, "{ifindex} {} {} {} {}", key.family, key.leaf, e.before, e.set);
        }
        replace_private(&self.path, text.as_bytes())
    }
}

fn parse(text: &str, netns: u64) -> BTreeMap<Place, Entry> {
    let mut lines = text.lines();
    if lines.next() != Some(&format!("netns {netns}")) {
        return BTreeMap::new();
    }
    lines.filter_map(entry).collect()
}

fn entry(line: &str) -> Option<(Place, Entry)> {
    let mut words = line.split(' ');
    let ifindex = words.next()?.parse().ok()?;
    let (family, leaf) = (words.next()?, words.next()?);
    // Nothing but these is ever written back, whatever the file says.
    let key = *KEYS.iter().find(|k| k.family == family && k.leaf == leaf)?;
    let (before, set) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(((ifindex, key), Entry { before, set }))
}
