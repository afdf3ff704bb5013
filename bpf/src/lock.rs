//! One daemon at a time: an advisory lock that the kernel lets go of when its holder dies.

use crate::error::LoadError;
use crate::sys;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// Not by closing the file alone: a process that was forked and has not begun its program yet has it open too.
impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it does the same a little later.
        let _ = sys::unlock(self.file.as_fd());
    }
}

impl Lock {
    /// Takes the lock at `path` and leaves our pid in the file.
    pub(crate) fn take(path: &Path) -> Result<Lock, LoadError> {
        let io = |what: &'static str, p: &Path| {
            let path = PathBuf::from(p);
            move |source| LoadError::Io { what, path, source }
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io("cannot create", dir))?;
        }
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("cannot open the lock file", path))?;
        if !sys::try_lock(file.as_fd()).map_err(io("cannot lock", path))? {
            let mut pid = String::new();
            // Best effort: the holder may be about to write it.
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(LoadError::AlreadyRunning { pid, lock: path.to_owned() });
        }
        file.set_len(0).map_err(io("cannot write the lock file", path))?;
        file.rewind().map_err(io("cannot write the lock file", path))?;
        writeln!(file, "{}", std::process::id()).map_err(io("cannot write the lock file", path))?;
        Ok(Lock { file })
    }
}
