//! The file of the numbers of static keys: what is wrong with it at a start, and the thread that writes it.

use sag_model::config;
use sag_tunnel::esp::{Ledger, LedgerError};
use sag_tunnel::keys::fingerprint;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A file that was changed so many seconds after it was made was copied to where it is.
const COPIED: i64 = 120;

/// What version 1 had of a tunnel.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct Version1 {
    spi_out: u32,
    next: u64,
    spi_in: u32,
    top: u64,
    /// Fingerprint of both keys.
    keys: u64,
}

impl Version1 {
    /// The number to go on with, and the highest received, if it is of these keys and SPIs.
    pub fn numbers(&self, keys: u64, spi_in: u32, spi_out: u32) -> Option<(u64, u64)> {
        let same = self.keys == keys;
        let first = if same && self.spi_out == spi_out { self.next } else { 1 };
        let top = if same && self.spi_in == spi_in { self.top } else { 0 };
        same.then_some((first, top))
    }
}

/// What a start has found.
#[derive(Debug)]
pub enum Found {
    /// In good order.
    Ledger(Ledger),
    /// It was put there, and may be an old copy.
    Copied(Ledger),
    /// The file of an earlier version of the program, by tunnel.
    Version1(HashMap<String, Version1>),
    Missing,
    Damaged(String),
}

/// Reads the file.
pub fn read(path: &Path) -> Found {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Found::Missing,
        Err(error) => return Found::Damaged(error.to_string()),
    };
    match Ledger::parse(&text) {
        Ok(ledger) => {
            let changed = fs::metadata(path).map_or(ledger.stamp, |m| m.ctime());
            match (changed - ledger.stamp).abs() > COPIED {
                true => Found::Copied(ledger),
                false => Found::Ledger(ledger),
            }
        }
        Err(error) => match serde_json::from_slice(&text) {
            Ok(tunnels) if matches!(error, LedgerError::Damaged(_)) => Found::Version1(tunnels),
            _ => Found::Damaged(error.to_string()),
        },
    }
}

/// The keys by which the last configuration that was in force has sent. `None`: it is not known.
pub fn keys_before(dir: &Path) -> Option<BTreeSet<u64>> {
    let text = fs::read_to_string(dir.join("last-good.toml")).ok()?;
    let config = config::parse(&text, "last-good.toml").ok()?.config;
    let key_out = |t: &config::Tunnel| match &t.encap {
        config::Encap::Esp { manual: Some(k), .. } => Some(fingerprint(k.key_out.expose())),
        _ => None,
    };
    Some(config.tunnels.iter().filter_map(key_out).collect())
}

/// Writes the file; true until that is on the disk.
fn write(path: &Path, ledger: &mut Ledger) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    crate::files::make_private_dir(dir)?;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut f = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    // The time of the file system, not that of this process: what both clocks say may differ.
    ledger.stamp = f.metadata()?.mtime();
    f.write_all(ledger.text().as_bytes())?;
    f.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

/// The generation of a ledger, and whether it is on the disk.
pub type Written = (u64, Result<(), String>);

/// The thread that writes: a slow disk holds up nobody.
#[derive(Debug)]
pub struct LedgerFile {
    pub path: PathBuf,
    thread: Option<(Sender<Ledger>, Receiver<Written>)>,
}

impl LedgerFile {
    pub fn new(path: PathBuf) -> LedgerFile {
        LedgerFile { path, thread: None }
    }

    /// Starts the thread. It keeps the access to files that the caller has now.
    pub fn start(&mut self) -> Result<(), String> {
        let ((jobs, inbox), (outbox, done)) = (channel::<Ledger>(), channel());
        let path = self.path.clone();
        let work = move || {
            while let Ok(mut ledger) = inbox.recv() {
                let result = write(&path, &mut ledger).map_err(|e| e.to_string());
                if outbox.send((ledger.generation, result)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("esp-ledger".into()).spawn(work).map_err(|e| e.to_string())?;
        self.thread = Some((jobs, done));
        Ok(())
    }

    /// Hands a ledger to the thread, which is started if it is not there yet.
    pub fn submit(&mut self, ledger: Ledger) -> Result<(), String> {
        if self.thread.is_none() {
            self.start()?;
        }
        let sent = self.thread.as_ref().is_some_and(|(jobs, _)| jobs.send(ledger).is_ok());
        if sent { Ok(()) } else { Err("the thread that writes it has ended".into()) }
    }

    /// What has been written since the last call; with `wait`, what is written within that time.
    pub fn written(&self, wait: Option<Duration>) -> Option<Written> {
        let (_, done) = self.thread.as_ref()?;
        match wait {
            None => done.try_recv().ok(),
            Some(time) => done.recv_timeout(time).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_recognized_and_so_is_everything_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("esp-sequence.json");
        assert!(matches!(read(&path), Found::Missing));
        let mut ledger = Ledger::new(5);
        write(&path, &mut ledger).unwrap();
        assert!(matches!(read(&path), Found::Ledger(l) if l == ledger));
        let text = fs::read(&path).unwrap();
        // A backup that is put back has a time of change that the file does not know.
        let mut old = ledger.clone();
        old.stamp -= 3600;
        fs::write(&path, old.text()).unwrap();
        assert!(matches!(read(&path), Found::Copied(_)));
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(read(&path), Found::Damaged(_)));
        fs::write(&path, "").unwrap();
        assert!(matches!(read(&path), Found::Damaged(_)));
        fs::write(&path, ledger.text().replacen("\"version\":2", "\"version\":9", 1)).unwrap();
        assert!(matches!(read(&path), Found::Damaged(text) if text.contains("version 9")));
        let one =
            r#"{"pop1":{"spi_out":4098,"next":16777300,"spi_in":4097,"top":99,"keys":12345678901234567890}}"#;
        fs::write(&path, one).unwrap();
        let Found::Version1(tunnels) = read(&path) else { panic!("version 1") };
        assert_eq!(tunnels["pop1"].numbers(12345678901234567890, 4097, 4098), Some((16777300, 99)));
        assert_eq!(tunnels["pop1"].numbers(12345678901234567890, 4097, 9), Some((1, 99)));
        assert_eq!(tunnels["pop1"].numbers(5, 4097, 4098), None);
    }
}
