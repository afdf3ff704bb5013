//! The bounds, and how they fit the process.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What clients may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one source at a time.
    pub per_source: usize,
    /// Bytes of bodies and answers that are kept at a time, of all connections together. The first [`Limits::FREE`]
    /// of each connection are not counted: the number of connections bounds those.
    pub buffered: usize,
    /// Calls that a connection of HTTP/2 may have at a time; 0: HTTP/1 alone is spoken.
    pub streams: u32,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, and between two requests.
    pub head: Duration,
    /// For the whole body of a request.
    pub body: Duration,
    /// Without a byte of an answer being taken; at [`Limits::RATE`] the whole answer has as much time as it needs.
    pub write: Duration,
}

impl Limits {
    /// Bytes that a connection may keep without being counted.
    pub const FREE: usize = 16 * 1024;
    /// Bytes of the head of a request, and of what is read at a time.
    pub const HEAD: usize = 32 * 1024;
    /// Bytes a second at which an answer must be read in the long run.
    pub const RATE: u64 = 8 * 1024;

    /// Fewer connections, if the process has not descriptors enough for these and `reserve` others.
    #[must_use]
    pub fn fit(mut self, descriptors: usize, reserve: usize) -> Limits {
        self.connections = self.connections.min(descriptors.saturating_sub(reserve)).max(1);
        self.per_source = match self.per_source {
            0 => self.connections,
            n => n.min(self.connections),
        };
        self
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 4096,
            per_source: 1024,
            buffered: 64 << 20,
            streams: 0,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            body: Duration::from_secs(30),
            write: Duration::from_secs(10),
        }
    }
}

/// Raises this process's limit of descriptors to `wanted`, as far as it may; returns what it is now.
pub fn raise_descriptor_limit(wanted: usize) -> usize {
    let have = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    // No number: unlimited.
    let (current, most) = (have.current.unwrap_or(u64::MAX), have.maximum.unwrap_or(u64::MAX));
    let next = wanted.min(most);
    if next > current {
        let raised = Rlimit { current: Some(next), maximum: have.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return usize::try_from(next).unwrap_or(usize::MAX);
        }
    }
    usize::try_from(current).unwrap_or(usize::MAX)
}
