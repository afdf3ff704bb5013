//! Files that hold what is in no answer: only their owner may read them.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes the file, if there is none, and takes it away from everybody but its owner, if there is one.
///
/// # Errors
/// The file cannot be made.
pub fn claim(path: &Path, what: &str) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            narrow(path, what);
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Takes an existing file away from everybody but its owner; says so, or why it cannot be done.
pub fn narrow(path: &Path, what: &str) {
    let Some(mode) = open_mode(path) else { return };
    let (file, found) = (path.display(), format!("{mode:04o}"));
    match fs::set_permissions(path, Permissions::from_mode(mode & 0o700)) {
        Ok(()) => {
            tracing::warn!(%file, mode = found, "{what} could be read by others; now only by its owner")
        }
        Err(error) => {
            tracing::warn!(%file, mode = found, %error, "{what} can be read by others. Remedy: chmod 600 {file}");
        }
    }
}

/// Says so if others may read the file, which is not ours to change.
pub fn warn_if_open(path: &Path, what: &str) {
    if let Some(mode) = open_mode(path) {
        let file = path.display();
        tracing::warn!(%file, mode = format!("{mode:04o}"), "{what} can be read by others. Remedy: chmod 600 {file}");
    }
}

/// The mode of a file that others may read or write.
fn open_mode(path: &Path) -> Option<u32> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mode = meta.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}
