//! A file of lines that others rotate, fill up, remove or make read-only while it is written. What is in it are whole
//! lines; what cannot be written waits, as far as there is room, and is written when it can be.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of lines that wait for a file that cannot be written.
const BACKLOG: usize = 1 << 20;
/// So many are written at once.
const CHUNK: usize = 64 << 10;
/// A file that cannot be written is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Whether the file is still at its path is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// Where an earlier writer may have been interrupted: the end of its last line is looked for in so many bytes.
const TAIL: u64 = 64 << 10;

/// The open file, and which one it is.
#[derive(Debug)]
struct Open {
    file: File,
    id: (u64, u64),
}

/// The file, opened when there is something to write.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    open: Option<Open>,
    /// Whole lines that are not written yet.
    waiting: Vec<u8>,
    lines: u64,
    looked: Instant,
    /// After a failure: when it is tried again.
    retry: Option<Instant>,
}

fn id_of(m: &Metadata) -> (u64, u64) {
    (m.dev(), m.ino())
}

impl RecordFile {
    pub fn new(path: PathBuf) -> RecordFile {
        RecordFile { path, open: None, waiting: Vec::new(), lines: 0, looked: Instant::now(), retry: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that wait to be written.
    pub fn waiting(&self) -> u64 {
        self.lines
    }

    /// The last attempt to write has failed.
    pub fn is_failing(&self) -> bool {
        self.retry.is_some()
    }

    /// Takes a line. False: there is no room, and it is lost.
    pub fn push(&mut self, line: &str) -> bool {
        if self.waiting.len() + line.len() >= BACKLOG {
            return false;
        }
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        self.lines += 1;
        true
    }

    /// So much waits that it should be written before more is taken.
    pub fn is_due(&self) -> bool {
        self.waiting.len() >= CHUNK
    }

    /// Writes what waits. After a failure nothing is tried for a second.
    ///
    /// # Errors
    /// What the kernel says. The lines still wait.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.retry.is_some_and(|at| now < at) {
            return Ok(());
        }
        let done = self.write_out(now);
        self.retry = done.as_ref().err().map(|_| now + RETRY);
        if done.is_err() {
            // Another file may be at the path by the next time, or the file system is mounted anew.
            self.open = None;
        }
        done
    }

    fn write_out(&mut self, now: Instant) -> io::Result<()> {
        if now.saturating_duration_since(self.looked) >= LOOK {
            self.looked = now;
            let there = std::fs::metadata(&self.path).ok().map(|m| id_of(&m));
            if self.open.as_ref().is_some_and(|o| Some(o.id) != there) {
                // Rotated or removed: what waits belongs into the new one.
                self.open = None;
            }
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(open(&self.path)?),
        };
        let (done, result) = write_all(&mut open.file, &self.waiting);
        let whole = self.waiting.get(..done).map_or(0, after_last_line);
        let torn = (done - whole) as u64;
        let kept = if torn > 0 && !cut(&open.file, torn) { done } else { whole };
        self.lines -= self.waiting.drain(..kept).filter(|b| *b == b'\n').count() as u64;
        result
    }
}

/// Bytes up to the end of the last whole line.
fn after_last_line(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1)
}

/// How many bytes were written, and why no more.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (done, Err(e)),
        }
    }
    (done, Ok(()))
}

/// Takes the last bytes off a file again. False: it is no file that can be cut (a pipe); the rest of the line must follow.
fn cut(file: &File, bytes: u64) -> bool {
    let Ok(m) = file.metadata() else { return false };
    m.is_file() && m.len().checked_sub(bytes).is_some_and(|len| file.set_len(len).is_ok())
}

/// Opens the file for appending. One that does not end in a whole line, because its writer was killed or the disk was full,
/// is cut to the last one that is whole.
fn open(path: &Path) -> io::Result<Open> {
    // A pipe without a reader must not hold the thread.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640).custom_flags(nonblocking);
    let file = options.open(path)?;
    let m = file.metadata()?;
    if m.is_file() && m.len() > 0 {
        end_at_a_line(path, &file, &m)?;
    }
    Ok(Open { id: id_of(&m), file })
}

fn end_at_a_line(path: &Path, file: &File, m: &Metadata) -> io::Result<()> {
    let from = m.len().saturating_sub(TAIL);
    let mut tail = Vec::new();
    let mut read = || {
        let mut f = File::open(path)?;
        f.seek(SeekFrom::Start(from))?;
        let same = id_of(&f.metadata()?) == id_of(m);
        f.take(TAIL).read_to_end(&mut tail).map(|_| same)
    };
    match read() {
        Ok(true) => match from + after_last_line(&tail) as u64 {
            whole if whole < m.len() => file.set_len(whole),
            _ => Ok(()),
        },
        // It may be written but not read, or is another one by now.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    /// The clock of a test: a moment after the last look and the last failure.
    struct Clock(Instant);

    impl Clock {
        fn later(&mut self) -> Instant {
            self.0 += RETRY;
            self.0
        }
    }

    #[test]
    fn a_full_disk_delays_lines_and_loses_them_only_without_room() {
        let dir = tempfile::tempdir().unwrap();
        let (path, real) = (dir.path().join("log"), dir.path().join("real"));
        symlink("/dev/full", &path).unwrap();
        let (mut log, mut clock) = (RecordFile::new(path.clone()), Clock(Instant::now()));
        assert!(log.push("one"));
        let e = log.flush(clock.later()).unwrap_err();
        assert_eq!((e.kind(), log.is_failing(), log.waiting()), (io::ErrorKind::StorageFull, true, 1));
        // Within a second nothing is tried, so a disk that is full costs nothing.
        assert!(log.flush(clock.0).is_ok() && log.is_failing());
        let mut taken = 1;
        let line = "x".repeat(1000);
        while log.push(&line) {
            taken += 1;
        }
        assert!(taken > 1000 && log.waiting() == taken && log.is_due());
        // There is room again.
        std::fs::remove_file(&path).unwrap();
        symlink(&real, &path).unwrap();
        log.flush(clock.later()).unwrap();
        assert_eq!((log.is_failing(), log.waiting()), (false, 0));
        assert_eq!(text(&real).lines().count() as u64, taken);
    }

    #[test]
    fn a_half_line_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "whole\nha").unwrap();
        let mut log = RecordFile::new(path.clone());
        log.push("next");
        log.flush(Instant::now()).unwrap();
        assert_eq!(text(&path), "whole\nnext\n");
        // What a write that failed in the middle has left.
        assert_eq!((after_last_line(b"a\nb\nc"), after_last_line(b"abc"), after_last_line(b"")), (4, 0, 0));
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        (&file).write_all(b"ne").unwrap();
        assert!(cut(&file, 2));
        assert_eq!(text(&path), "whole\nnext\n");
        std::fs::write(&path, "no line at all").unwrap();
        drop(open(&path).unwrap());
        assert_eq!(text(&path), "");
    }

    #[test]
    fn rotation_by_all_its_ways() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let (mut log, mut clock) = (RecordFile::new(path.clone()), Clock(Instant::now()));
        let mut write = |line: &str| {
            assert!(log.push(line));
            log.flush(clock.later()).unwrap();
        };
        write("1");
        // logrotate: move, and create or not.
        std::fs::rename(&path, &old).unwrap();
        write("2");
        assert_eq!((text(&old), text(&path)), ("1\n".into(), "2\n".into()));
        std::fs::rename(&path, &old).unwrap();
        File::create(&path).unwrap();
        write("3");
        assert_eq!((text(&old), text(&path)), ("2\n".into(), "3\n".into()));
        // copytruncate.
        std::fs::copy(&path, &old).unwrap();
        OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        write("4");
        assert_eq!((text(&old), text(&path)), ("3\n".into(), "4\n".into()));
        // Removed, and its folder with it for a while.
        std::fs::remove_file(&path).unwrap();
        write("5");
        assert_eq!(text(&path), "5\n");
        let away = dir.path().join("away");
        let mut log = RecordFile::new(away.join("log"));
        log.push("6");
        assert!(log.flush(clock.later()).is_err());
        std::fs::create_dir(&away).unwrap();
        log.flush(clock.later()).unwrap();
        assert_eq!(text(&away.join("log")), "6\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut log = RecordFile::new(path);
        for _ in 0..1000 {
            log.push(&"x".repeat(500));
        }
        let start = Instant::now();
        assert!(log.flush(start).is_err() && log.waiting() == 1000);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
