//! Files that may hold keys: only their owner reads them.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a directory that nobody else may enter, and those above it, if they are missing.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces a file as a whole. Nothing of a failed attempt is left.
pub fn replace_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        let mut f = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        // What an earlier version or a crash left there may have another mode.
        f.set_permissions(Permissions::from_mode(0o600))?;
        f.write_all(text)?;
        f.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        // It may be all that keeps a full disk full.
        let _ = fs::remove_file(&new);
    })
}

/// The mode of a file that others than its owner may read.
pub fn mode_if_exposed(path: &Path) -> Option<u32> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mode = meta.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, mode) =
            (dir.path().join("a/b"), |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777);
        make_private_dir(&inner).unwrap();
        make_private_dir(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
        let file = inner.join("f");
        fs::write(inner.join("f.new"), "left over").unwrap();
        replace_private(&file, b"keys").unwrap();
        assert_eq!((mode(&file), fs::read(&file).unwrap().as_slice()), (0o600, &b"keys"[..]));
        assert_eq!(mode_if_exposed(&file), None);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(mode_if_exposed(&file), Some(0o640));
    }
}
