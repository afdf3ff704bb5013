//! The key by which other devices recognise this one (docs/tunnels-keys.md): made on the device, kept in `state_dir`, and
//! never sent anywhere.

use std::io;
use std::path::{Path, PathBuf};

use sag_southbound::IdentityKey;
use zeroize::Zeroizing;

use crate::files;

const FILE: &str = "identity.key";

/// Where the key is kept.
pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

fn wrong(state_dir: &Path, what: impl std::fmt::Display) -> String {
    let file = file(state_dir);
    let remedy = "restore the file from a backup, or remove it for a new identity (docs/tunnels-keys.md)";
    format!("{}: {what}; {remedy}", file.display())
}

/// The device's key; `None`: none was made yet.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read(state_dir: &Path) -> Result<Option<IdentityKey>, String> {
    match std::fs::read(file(state_dir)) {
        Ok(kept) => {
            let kept = Zeroizing::new(kept);
            let key = IdentityKey::from_pkcs8(&kept);
            key.map(Some).ok_or_else(|| wrong(state_dir, "it holds no Ed25519 key"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(wrong(state_dir, e)),
    }
}

/// The device's key, which is made at the first start.
///
/// # Errors
/// The file cannot be read or written, or is damaged. No other key is made then: the other devices would refuse it.
pub fn load(state_dir: &Path) -> Result<IdentityKey, String> {
    if let Some(key) = read(state_dir)? {
        return Ok(key);
    }
    let made = IdentityKey::generate().ok_or_else(|| wrong(state_dir, "the system has no random numbers"))?;
    files::replace(&file(state_dir), &made).map_err(|e| wrong(state_dir, e))?;
    let key = IdentityKey::from_pkcs8(&made).ok_or_else(|| wrong(state_dir, "no key was made"))?;
    tracing::info!(fingerprint = %key.identity(), "a new identity of this device");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_once_and_never_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(read(dir.path()).is_ok_and(|key| key.is_none()), "who only looks makes none");
        let first = load(dir.path()).expect("made").identity();
        assert_eq!(load(dir.path()).expect("loaded").identity(), first);
        let mode = std::fs::metadata(file(dir.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(file(dir.path()), b"half").expect("written");
        let e = load(dir.path()).expect_err("damaged");
        assert!(e.contains("identity.key") && e.contains("backup"), "{e}");
        assert_eq!(std::fs::read(file(dir.path())).expect("read"), b"half", "left as it is");
    }
}
