//! Words in a file that one process after the other maps: what is written there is there when a process is killed.

use crate::area::Mapping;
use crate::sys::check;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// Maps `words` words of a file for the rest of the process; the file is made, or brought to that length, as needed.
/// Words that were not written are zero. The file should be on a tmpfs: writing costs no system call, and after a loss
/// of power there is nothing left of it, rather than something old.
///
/// # Errors
/// If the file cannot be made, is a symbolic link, or cannot be mapped.
pub fn map_words(path: &Path, words: usize) -> io::Result<&'static [AtomicU64]> {
    let bytes = words * size_of::<AtomicU64>();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    if file.metadata()?.len() != bytes as u64 {
        // Of another version: its words mean nothing to this one.
        file.set_len(0)?;
        file.set_len(bytes as u64)?;
    }
    // Without room for its pages, writing to the mapping would be a bus error.
    // SAFETY: takes integers only; the descriptor is open.
    check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) })?;
    let mapping = Box::leak(Box::new(Mapping::file(file.as_fd(), bytes)?));
    // SAFETY: the mapping is page-aligned, `bytes` long and never unmapped; every bit pattern is an `AtomicU64`, and
    // nobody in this process has the memory otherwise. Another process that maps the file can store other words, which
    // is what atomics are for.
    Ok(unsafe { std::slice::from_raw_parts(mapping.addr().cast().as_ptr(), words) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn words_outlive_their_mapping() {
        let path = std::env::temp_dir().join(format!("sag-words-{}", std::process::id()));
        let words = map_words(&path, 64).unwrap();
        assert!(words.len() == 64 && words.iter().all(|w| w.load(Relaxed) == 0));
        words[63].store(7, Relaxed);
        assert_eq!(map_words(&path, 64).unwrap()[63].load(Relaxed), 7);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 512);
        // Another length is another version.
        std::fs::write(&path, [9; 40]).unwrap();
        assert_eq!(map_words(&path, 2).unwrap()[1].load(Relaxed), 0);
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(map_words(&link, 2).is_err());
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
