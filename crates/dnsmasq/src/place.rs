//! Where the state of the service is found.

use std::path::{Path, PathBuf};

/// Below it each device has a directory by its serial number.
pub const PLACE: &str = "/run/sag-lan";
/// The file with the [`Status`](crate::Status), as JSON.
pub const STATUS: &str = "status.json";

/// The directory of the only service of this machine.
///
/// # Errors
/// There is not exactly one; the text says so.
pub fn place(below: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.join(STATUS).exists()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(format!("{} has several; name one with --dir", below.display())),
        (None, _) => Err(format!("no LAN is served by a sag-agent of this machine ({})", below.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_service_is_found() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(place(dir.path()).expect_err("none").contains("no LAN is served"));
        let add = |sn: &str| {
            let at = dir.path().join(sn);
            std::fs::create_dir(&at).expect("dir");
            std::fs::write(at.join(STATUS), "").expect("file");
            at
        };
        let one = add("sn1");
        std::fs::create_dir(dir.path().join("empty")).expect("dir");
        assert_eq!(place(dir.path()), Ok(one));
        add("sn2");
        assert!(place(dir.path()).expect_err("two").contains("--dir"));
    }
}
