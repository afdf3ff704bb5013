//! The gateway's control socket, from the asking end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sag_model::control::{self, ConfigApplied, ConfigShow, ConfigText, Op, Request, Response, Status};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Compiling a very large configuration takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_ANSWER: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum VcpeError {
    /// Nobody there; the same call may succeed later.
    #[error("sag-vcpe on {path}: {source}")]
    Away { path: String, source: io::Error },
    #[error("{}{}{}", .0.message, if .0.remedy.is_empty() { "" } else { "; " }, .0.remedy)]
    Refused(control::Error),
}

pub type Result<T> = std::result::Result<T, VcpeError>;

pub struct Vcpe {
    path: PathBuf,
}

impl Vcpe {
    pub fn new(path: &Path) -> Vcpe {
        Vcpe { path: path.to_owned() }
    }

    fn away(&self, source: io::Error) -> VcpeError {
        VcpeError::Away { path: self.path.display().to_string(), source }
    }

    pub fn call<T: DeserializeOwned>(&self, op: Op) -> Result<T> {
        let bad = |e: serde_json::Error| self.away(io::Error::new(io::ErrorKind::InvalidData, e));
        self.ask(serde_json::to_vec(&Request::new(1, op)).map_err(bad)?)
    }

    /// An operation that a gateway may not know: its name as `op`, with the arguments beside it.
    pub fn call_named<T: DeserializeOwned>(&self, mut request: Value) -> Result<T> {
        request["v"] = control::VERSION.into();
        request["id"] = 1.into();
        self.ask(request.to_string().into_bytes())
    }

    fn ask<T: DeserializeOwned>(&self, request: Vec<u8>) -> Result<T> {
        let line = self.exchange(request).map_err(|e| self.away(e))?;
        let bad = |e: serde_json::Error| self.away(io::Error::new(io::ErrorKind::InvalidData, e));
        let answer: Response<T> = serde_json::from_slice(&line).map_err(bad)?;
        answer.into_result().map_err(VcpeError::Refused)
    }

    /// A connection of its own for each call: the gateway may have been restarted in between.
    fn exchange(&self, mut line: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new(stream).take(MAX_ANSWER).read_until(b'\n', &mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        Ok(answer)
    }

    pub fn status(&self) -> Result<Status> {
        self.call(Op::Status)
    }

    pub fn show(&self) -> Result<ConfigShow> {
        self.call(Op::ConfigShow)
    }

    pub fn apply(&self, text: &str, name: &str) -> Result<ConfigApplied> {
        self.call(Op::ConfigApply(ConfigText { text: text.to_owned(), name: name.to_owned() }))
    }

    /// The process behind the socket, as the kernel knows it.
    pub fn peer(&self) -> io::Result<i32> {
        let stream = UnixStream::connect(&self.path)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        Ok(peer.pid.as_raw_nonzero().get())
    }
}
