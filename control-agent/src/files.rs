//! Files that survive a crash at any moment: written beside, synced, renamed, directory synced. On a disk that is full or
//! read-only the agent goes on without them, says so, and writes them when it can.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Files that could not be written the last time: one line in the log when that begins, or has another reason, and one when
/// it is over.
#[derive(Debug, Default)]
pub struct Unwritten(BTreeMap<&'static str, String>);

impl Unwritten {
    /// `name` is what the file is called. True: it was written.
    pub fn note<E: Display>(&mut self, name: &'static str, path: &Path, written: Result<(), E>) -> bool {
        match written {
            Ok(()) => {
                if self.0.remove(name).is_some() {
                    tracing::info!(event = "file-written", file = name, "can be written again");
                }
                true
            }
            Err(error) => {
                let why = format!("{}: {error}", path.display());
                if self.0.get(name) != Some(&why) {
                    tracing::error!(
                        event = "file-failed",
                        file = name,
                        "{why}: cannot be written; trying again"
                    );
                    self.0.insert(name, why);
                }
                false
            }
        }
    }
}

/// Replaces a file as a whole; only its owner may read it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, bytes, || {})
}

/// `between` runs when the new content is on disk under another name.
pub fn replace_with(path: &Path, bytes: &[u8], between: impl FnOnce()) -> io::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = dir.join(name);
    let write = || {
        let mut f = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        // What a crash left there may have another mode.
        f.set_permissions(Permissions::from_mode(0o600))?;
        f.write_all(bytes)?;
        f.sync_all()?;
        between();
        fs::rename(&new, path)?;
        File::open(dir)?.sync_all()
    };
    write().inspect_err(|_| {
        // It may be all that keeps a full disk full.
        let _ = fs::remove_file(&new);
    })
}

/// Makes the directory if it is missing; nobody else may enter it.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let (place, found) = (dir.display(), format!("{mode:04o}"));
        match fs::set_permissions(dir, Permissions::from_mode(mode & 0o700)) {
            Ok(()) => {
                tracing::warn!(dir = %place, mode = found, "others could enter the directory of keys and state; now only its owner")
            }
            Err(error) => {
                tracing::warn!(dir = %place, mode = found, %error, "others can enter the directory of keys and state. Remedy: chmod 700 {place}");
            }
        }
    }
    Ok(())
}

/// Says so if others may read a file with a key of a tunnel in it.
pub fn warn_of_exposed_keys(file: &Path) {
    let Ok(meta) = fs::metadata(file) else { return };
    let mode = meta.permissions().mode() & 0o777;
    let keys = || fs::read_to_string(file).is_ok_and(|t| t.contains("key_in") || t.contains("key_out"));
    if mode & 0o044 != 0 && keys() {
        let place = file.display();
        tracing::warn!(file = %place, mode = format!("{mode:04o}"), "it holds keys of tunnels and others may read it. Remedy: chmod 600 {place}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_the_old_or_the_new() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("f");
        replace(&file, b"old").expect("written");
        replace_with(&file, b"new", || assert_eq!(fs::read(&file).expect("read"), b"old")).expect("written");
        assert_eq!(fs::read(&file).expect("read"), b"new");
        assert_eq!(fs::metadata(&file).expect("meta").permissions().mode() & 0o777, 0o600);
        // What a crash left behind does not matter.
        fs::write(dir.path().join("f.new"), b"half of it").expect("written");
        replace(&file, b"newer").expect("written");
        assert_eq!(fs::read(&file).expect("read"), b"newer");
        assert_eq!(fs::metadata(&file).expect("meta").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nobody_else_enters() {
        let dir = tempfile::tempdir().expect("dir");
        let inner = dir.path().join("a/b");
        let mode = || fs::metadata(&inner).expect("meta").permissions().mode() & 0o777;
        make_dir(&inner).expect("made");
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).expect("set");
        make_dir(&inner).expect("there");
        assert_eq!(mode(), 0o700);
    }
}
