//! The caller's side of the service's socket: one line of JSON each way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sag_daemons::{connect, named};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;
use crate::status::Status;

/// Name of the socket in the service's directory.
pub const CONTROL: &str = "control.sock";
/// Below it each device has a directory by its serial number.
pub const PLACE: &str = "/run/sag-routing";

/// The service answers between two rounds of its work, and FRR's reload is one.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Longest line in either direction.
pub(crate) const MAX_LINE: u64 = 8 << 20;

/// What the service is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Its status.
    Show,
    /// To put settings in force; the status is that from before.
    Set(Box<Settings>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("the routing service on {path}: {source}")]
    Unavailable {
        /// Its socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The service refuses.
    #[error("the routing service refuses: {0}")]
    Refused(String),
}

/// Talks to the service of one directory.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// For the service of this directory.
    pub fn new(dir: &Path) -> Client {
        Client { path: dir.join(CONTROL) }
    }

    /// Whether there is a service.
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Asks for the status.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn show(&self) -> Result<Status, ClientError> {
        self.call(&Request::Show)
    }

    /// Has the service put the settings in force; it answers before it has.
    ///
    /// # Errors
    /// [`ClientError`]. Only root and the agent's user may.
    pub fn set(&self, settings: Settings) -> Result<Status, ClientError> {
        self.call(&Request::Set(Box::new(settings)))
    }

    fn call(&self, request: &Request) -> Result<Status, ClientError> {
        let answer: Result<Status, String> = self.exchange(request).map_err(|e| {
            ClientError::Unavailable { path: self.path.display().to_string(), source: named(e, TIMEOUT) }
        })?;
        answer.map_err(ClientError::Refused)
    }

    fn exchange(&self, request: &Request) -> io::Result<Result<Status, String>> {
        let mut stream = connect(&self.path, TIMEOUT)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new(stream).take(MAX_LINE).read_until(b'\n', &mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// The directory of the only service of this machine; more than one, or none, is an error that says so.
///
/// # Errors
/// There is not exactly one.
pub fn place(below: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.join(CONTROL).exists()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(format!("{} has several; name one with --dir", below.display())),
        (None, _) => Err(format!(
            "no routing service in {}; it runs where FRR is installed and sag-agent runs",
            below.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_service_is_found() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(place(dir.path()).expect_err("none").contains("no routing service"));
        let add = |sn: &str| {
            let at = dir.path().join(sn);
            std::fs::create_dir(&at).expect("dir");
            std::fs::write(at.join(CONTROL), "").expect("file");
            at
        };
        let one = add("sn1");
        std::fs::create_dir(dir.path().join("empty")).expect("dir");
        assert_eq!(place(dir.path()), Ok(one));
        add("sn2");
        assert!(place(dir.path()).expect_err("two").contains("--dir"));
    }
}
