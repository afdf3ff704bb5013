//! Which files a program reads and writes, by Landlock.

use crate::profile::{Profile, Program};
use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Linux 6.2: with truncating. What newer kernels can restrict beyond that is not asked for, so that the same version of a
/// program behaves the same on all of them.
const LEVEL: ABI = ABI::V3;
/// What is to be read on every system: libraries, names and addresses, devices and counters of the kernel.
const SYSTEM: [&str; 11] =
    ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/run", "/dev"];
/// What is to be written on every system: `/dev/null`, terminals.
const DEVICES: &str = "/dev";

/// More links than the kernel follows.
const MAX_LINKS: usize = 40;

/// Confines the calling thread; a kernel without Landlock is a warning.
pub fn apply(profile: &Profile) {
    match restrict(profile) {
        Ok(RulesetStatus::FullyEnforced) => tracing::info!("sandbox: files confined (landlock)"),
        Ok(RulesetStatus::PartiallyEnforced) => {
            tracing::warn!("sandbox: files confined in part: the kernel's landlock is older than Linux 6.2");
        }
        Ok(RulesetStatus::NotEnforced) => {
            tracing::warn!(
                "sandbox: files not confined: the kernel has no landlock (Linux 5.13, lsm=…,landlock)"
            );
        }
        Err(error) => tracing::warn!(%error, "sandbox: files not confined"),
    }
}

fn restrict(profile: &Profile) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Only a program that runs others needs to execute anything.
    let system = match profile.program {
        Program::Agent { children: true } | Program::Routing => read | AccessFs::Execute,
        _ => read,
    };
    let write = AccessFs::from_all(LEVEL) & !BitFlags::from(AccessFs::Execute);
    let entries = AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
        | AccessFs::ReadDir;
    let write_devices: BitFlags<AccessFs> = AccessFs::WriteFile.into();
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LEVEL))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, system))?
        .add_rules(path_beneath_rules([DEVICES], write_devices))?
        .add_rules(path_beneath_rules(profile.read.iter().map(|p| existing(p)), read))?
        .add_rules(path_beneath_rules(profile.write.iter().map(|p| existing(p)), write))?
        .add_rules(path_beneath_rules(profile.entries.iter().map(|p| existing(p)), entries))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// The directory of a file, and that of each link on the way to it: it may point elsewhere when the file is read again.
pub fn directories_to(file: &Path) -> Vec<PathBuf> {
    let mut all = BTreeSet::new();
    let Ok(mut at) = std::path::absolute(file) else { return Vec::new() };
    all.extend(at.parent().map(Path::to_owned));
    for _ in 0..MAX_LINKS {
        // The outermost link first, as the kernel goes.
        let mut above: Vec<&Path> = at.ancestors().collect();
        above.reverse();
        let Some((link, to)) = above.iter().find_map(|p| Some((*p, std::fs::read_link(p).ok()?))) else {
            break;
        };
        let Some(dir) = link.parent() else { break };
        // Links of the root directory are the system's (/var/run).
        if dir.parent().is_some() {
            all.insert(dir.to_owned());
        }
        let rest = at.strip_prefix(link).unwrap_or(Path::new(""));
        let next = dir.join(to);
        at = if rest.as_os_str().is_empty() { next } else { next.join(rest) };
        all.extend(at.parent().map(Path::to_owned));
    }
    all.into_iter().collect()
}

/// The directory, or the closest one above it that is there; but never the root.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists() && p.parent().is_some()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::CapabilitySet;

    #[test]
    fn a_thread_writes_only_where_it_may() {
        let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = other.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        let profile = Profile {
            program: Program::Cloud,
            capabilities: CapabilitySet::empty(),
            read: Vec::new(),
            write: vec![mine.path().join("not-there-yet")],
            entries: Vec::new(),
        };
        let (at, there) = (mine.path().to_owned(), other.path().to_owned());
        let done = std::thread::spawn(move || {
            let status = restrict(&profile).unwrap();
            if status == RulesetStatus::NotEnforced {
                return None;
            }
            std::fs::write(at.join("a"), "1").unwrap();
            std::fs::rename(at.join("a"), at.join("b")).unwrap();
            let kind = |r: std::io::Result<()>| r.unwrap_err().kind();
            assert!(std::fs::read_to_string("/etc/hostname").is_ok() || !Path::new("/etc/hostname").exists());
            Some([
                kind(std::fs::write(there.join("a"), "1")),
                kind(std::fs::read(there.join("secret")).map(drop)),
                kind(std::fs::remove_file(there.join("secret"))),
            ])
        })
        .join()
        .unwrap();
        match done {
            Some(refused) => assert_eq!(refused, [std::io::ErrorKind::PermissionDenied; 3]),
            None => println!("SKIP no landlock in this kernel"),
        }
        assert!(secret.exists());
    }

    #[test]
    fn the_root_is_never_what_may_be_written() {
        assert_eq!(existing(Path::new("/usr/none/x")), Path::new("/usr"));
        assert_eq!(existing(Path::new("/none/x")), Path::new("/none/x"));
    }

    #[test]
    fn links_to_a_file_may_be_turned() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        let at = |name: &str| dir.join(name);
        for sub in ["releases/1", "etc"] {
            std::fs::create_dir_all(at(sub)).unwrap();
        }
        std::fs::write(at("releases/1/vcpe.toml"), "").unwrap();
        std::os::unix::fs::symlink("releases/1", at("current")).unwrap();
        std::os::unix::fs::symlink("../current/vcpe.toml", at("etc/gateway.toml")).unwrap();
        let found = directories_to(&at("etc/gateway.toml"));
        let whole: Vec<_> = found.iter().filter_map(|p| p.canonicalize().ok()).collect();
        for needed in [at("etc"), dir.clone(), at("releases/1")] {
            assert!(whole.contains(&needed), "{needed:?}: {found:?}");
        }
        std::os::unix::fs::symlink("turns", at("turns")).unwrap();
        assert!(directories_to(&at("turns")).contains(&dir));
    }
}
