//! The thread that writes files which are replaced as a whole: the control thread does not wait for a disk. What cannot be
//! written is tried again, the newest content of each file, until it is.

use super::file_health::FileHealth;
use crate::files;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// A file that cannot be written is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// The new content of a file.
#[derive(Debug)]
struct Job {
    /// What the file is called in messages and metrics.
    name: &'static str,
    path: PathBuf,
    /// It may contain keys.
    text: Zeroizing<String>,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Saver {
    jobs: Option<Sender<Job>>,
    ended: Receiver<()>,
}

impl Saver {
    pub fn start(health: FileHealth) -> io::Result<Saver> {
        let (jobs, inbox) = unbounded();
        let (done, ended) = unbounded();
        std::thread::Builder::new().name("saver".into()).spawn(move || {
            run(&inbox, &health);
            drop(done);
        })?;
        Ok(Saver { jobs: Some(jobs), ended })
    }

    /// Has a file replaced, soon.
    pub fn replace(&self, name: &'static str, path: PathBuf, text: String) {
        let job = Job { name, path, text: text.into() };
        if self.jobs.as_ref().is_none_or(|j| j.send(job).is_err()) {
            tracing::error!(file = name, "the thread that writes it has ended; restart the daemon");
        }
    }

    /// Ends the thread when everything is written, or the time is over.
    pub fn finish(&mut self, time: Duration) {
        self.jobs = None;
        if self.ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("not all files could be written before the end");
        }
    }
}

fn run(inbox: &Receiver<Job>, health: &FileHealth) {
    let mut pending: BTreeMap<PathBuf, Job> = BTreeMap::new();
    loop {
        let wait = if pending.is_empty() { Duration::MAX } else { RETRY };
        let next = if wait == Duration::MAX {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(wait)
        };
        let ended = match next {
            Ok(job) => {
                pending.insert(job.path.clone(), job);
                false
            }
            Err(e) => e == RecvTimeoutError::Disconnected,
        };
        for job in inbox.try_iter() {
            pending.insert(job.path.clone(), job);
        }
        pending.retain(|path, job| match replace(path, job.text.as_bytes()) {
            Ok(()) => {
                health.works(job.name);
                false
            }
            Err(error) => {
                let text =
                    format!("{}: {error}: cannot write the {}; trying again", path.display(), job.name);
                health.failed(job.name, text);
                true
            }
        });
        if ended {
            return;
        }
    }
}

/// Replaces a file, and makes its directory.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::make_private_dir(dir)?;
    files::replace_private(path, bytes)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_cannot_be_written_is_written_later_and_only_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state").join("file");
        // A file where the folder should be.
        std::fs::write(dir.path().join("state"), "").unwrap();
        let health = FileHealth::default();
        let mut saver = Saver::start(health.clone()).unwrap();
        saver.replace("saved file", path.clone(), "old".into());
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while health.warnings().is_empty() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(health.warnings()[0].contains("cannot write the saved file"), "{:?}", health.warnings());
        std::fs::remove_file(dir.path().join("state")).unwrap();
        saver.replace("saved file", path.clone(), "new".into());
        saver.finish(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(health.warnings().is_empty() && health.rows()[0].errors >= 1);
    }
}
