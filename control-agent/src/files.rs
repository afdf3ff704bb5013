//! Files that survive a crash at any moment: written beside, synced, renamed, directory synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

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
    let mut f = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    f.write_all(bytes)?;
    f.sync_all()?;
    between();
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
    }
}
