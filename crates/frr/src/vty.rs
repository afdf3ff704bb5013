//! The socket of a daemon (`vty`), as vtysh uses it: a command ends with a zero byte, its answer with three of them and
//! a result.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use sag_daemons::{connect, is_timeout};
use serde_json::Value;

/// A daemon that does not answer by then is left alone until the next round.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read: summaries are short.
const MAX_ANSWER: usize = 8 << 20;

/// The answer to a `show` command with `json` at its end.
pub(crate) fn show(socket: &Path, command: &str) -> io::Result<Value> {
    let mut stream = connect(socket, TIMEOUT)?;
    // bfdd shows nothing before.
    ask(&mut stream, "enable")?;
    let text = ask(&mut stream, command)?;
    // A daemon without anything to say may say nothing.
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Whether a daemon answers. One that cannot be reached has ended, or has not begun to listen: that is no silence.
pub(crate) fn answers(socket: &Path) -> bool {
    let asked = connect(socket, TIMEOUT).and_then(|mut stream| ask(&mut stream, "enable"));
    !asked.is_err_and(|error| is_timeout(&error))
}

/// What the daemon says to a command.
fn ask(stream: &mut UnixStream, command: &str) -> io::Result<Vec<u8>> {
    stream.write_all(&[command.as_bytes(), b"\0"].concat())?;
    let mut answer = Vec::new();
    let mut part = [0; 16 << 10];
    let result = loop {
        let n = stream.read(&mut part)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon closed the connection"));
        }
        answer.extend_from_slice(&part[..n]);
        if let Some((result, text)) = answer.split_last()
            && text.ends_with(&[0, 0, 0])
        {
            break *result;
        }
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    };
    answer.truncate(answer.len() - 4);
    if result != 0 {
        let said = String::from_utf8_lossy(&answer);
        return Err(io::Error::other(format!("{command:?}: {}", said.trim())));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn daemon(answer: &'static [u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x.vty");
        let listener = UnixListener::bind(&path).expect("bind");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let command = |stream: &mut UnixStream| {
                let mut read = Vec::new();
                while read.last() != Some(&0) {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("read");
                    read.extend(byte);
                }
                read
            };
            assert_eq!(command(&mut stream), b"enable\0");
            stream.write_all(b"\0\0\0\0").expect("write");
            assert!(command(&mut stream).starts_with(b"show"));
            // In two parts.
            for part in answer.chunks(answer.len() / 2 + 1) {
                stream.write_all(part).expect("write");
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        (dir, path)
    }

    /// Its queue is full after some questions, and who asks does not wait for it.
    #[test]
    fn a_daemon_that_hangs_does_not_answer() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x.vty");
        assert!(answers(&path), "nobody is there");
        let listener = UnixListener::bind(&path).expect("bind");
        rustix::net::listen(&listener, 1).expect("a short queue");
        let waiting: Vec<_> = (0..2).map(|_| UnixStream::connect(&path)).collect();
        assert!(waiting.iter().all(Result::is_ok));
        assert!(!answers(&path));
        assert!(is_timeout(&show(&path, "show x json").expect_err("silent")));
        drop(listener);
        assert!(answers(&path), "it has ended");
    }

    #[test]
    fn answers_end_with_their_result() {
        let (_dir, path) = daemon(b"{\"a\": 1}\n\0\0\0\0");
        assert_eq!(show(&path, "show x json").expect("answer")["a"], 1);
        let (_dir, path) = daemon(b"% Unknown command: show x\n\0\0\0\x02");
        assert!(show(&path, "show x json").expect_err("refused").to_string().contains("Unknown command"));
        let (_dir, path) = daemon(b"{\"a\": ");
        assert_eq!(show(&path, "show x json").expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
        let (_dir, path) = daemon(b"\n\0\0\0\0");
        assert_eq!(show(&path, "show x json").expect("empty"), Value::Null);
    }
}
