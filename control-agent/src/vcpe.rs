//! The client's side of the gateway's control socket: a method for each message of [`sag_model::control`] that the
//! agent uses.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sag_daemons::{connect, named};
use sag_model::control::{
    self, ConfigApplied, ConfigDeviations, ConfigShow, ConfigText, Deviation, DeviationsKept, Drops, Ha,
    HaQuery, Op, Ports, PublicKey, Rekeyed, Request, Response, RouteQuery, Routes, Status, Top, TopQuery,
    TunnelKeyQuery, TunnelPeers, Tunnels,
};
use serde::de::DeserializeOwned;

/// Compiling a very large configuration takes seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum VcpeError {
    /// Nobody answers; the same call may succeed later.
    #[error("sag-vcpe on {path}: {source}")]
    Unavailable { path: String, source: io::Error },
    #[error("{}{}{}", .0.message, if .0.remedy.is_empty() { "" } else { "; " }, .0.remedy)]
    Refused(control::Error),
}

pub type Result<T> = std::result::Result<T, VcpeError>;

pub struct Vcpe {
    path: PathBuf,
    timeout: Duration,
}

impl Vcpe {
    pub fn new(path: &Path) -> Vcpe {
        Vcpe { path: path.to_owned(), timeout: TIMEOUT }
    }

    /// A client that waits for an answer for so long.
    pub fn with_timeout(path: &Path, timeout: Duration) -> Vcpe {
        Vcpe { path: path.to_owned(), timeout }
    }

    fn unavailable(&self, source: io::Error) -> VcpeError {
        let source = named(source, self.timeout);
        VcpeError::Unavailable { path: self.path.display().to_string(), source }
    }

    fn call<T: DeserializeOwned>(&self, op: Op) -> Result<T> {
        let bad = |e: serde_json::Error| self.unavailable(io::Error::new(io::ErrorKind::InvalidData, e));
        let request = serde_json::to_vec(&Request::new(1, op)).map_err(bad)?;
        let line = self.exchange(request).map_err(|e| self.unavailable(e))?;
        let answer: Response<T> = serde_json::from_slice(&line).map_err(bad)?;
        answer.into_result().map_err(VcpeError::Refused)
    }

    /// A connection of its own for each call: the gateway may have been restarted in between.
    fn exchange(&self, mut line: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut stream = connect(&self.path, self.timeout)?;
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

    /// Tells the gateway what of the cloud's configuration it does not have, for its operator.
    pub fn set_deviations(&self, deviations: Vec<Deviation>) -> Result<DeviationsKept> {
        self.call(Op::ConfigDeviations(ConfigDeviations { deviations }))
    }

    pub fn ports(&self) -> Result<Ports> {
        self.call(Op::Ports)
    }

    pub fn drops(&self) -> Result<Drops> {
        self.call(Op::Drops)
    }

    pub fn routes(&self, query: RouteQuery) -> Result<Routes> {
        self.call(Op::Routes(query))
    }

    pub fn top(&self, query: TopQuery) -> Result<Top> {
        self.call(Op::Top(query))
    }

    /// The gateway that sessions follow to; without the number of sessions.
    pub fn ha(&self) -> Result<Ha> {
        self.call(Op::Ha(HaQuery { state_only: true }))
    }

    pub fn tunnels(&self) -> Result<Tunnels> {
        self.call(Op::Tunnels)
    }

    /// The gateway's public key; it makes one if it has none. A gateway without agreed keys refuses.
    pub fn public_key(&self, gateway: &str) -> Result<PublicKey> {
        self.call(Op::TunnelsKey(TunnelKeyQuery { gateway: gateway.to_owned(), renew: false, epoch: None }))
    }

    /// Has the gateway make another key, with this epoch.
    pub fn renew_key(&self, gateway: &str, epoch: u64) -> Result<PublicKey> {
        let (gateway, epoch) = (gateway.to_owned(), Some(epoch));
        self.call(Op::TunnelsKey(TunnelKeyQuery { gateway, renew: true, epoch }))
    }

    /// Gives the gateway the public keys of its peers.
    pub fn set_peers(&self, peers: TunnelPeers) -> Result<Rekeyed> {
        self.call(Op::TunnelsPeers(peers))
    }

    /// The process behind the socket, as the kernel knows it.
    pub fn peer(&self) -> io::Result<i32> {
        let stream = connect(&self.path, self.timeout)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        Ok(peer.pid.as_raw_nonzero().get())
    }
}
