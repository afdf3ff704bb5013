//! One connection to the peer.

use mio::net::TcpStream;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sag_ha::Link;
use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

/// Bytes that are read in one turn: the other way is not to wait.
const MAX_READ: usize = 256 * 1024;

pub struct Connection {
    stream: TcpStream,
    pub link: Link,
    pub since: Instant,
    /// When something came last.
    pub heard: Instant,
    /// When the peer was last told that this end is alive and whether it has everything. Sessions tell it neither.
    pub alive_said: Instant,
    sent: Cell<u64>,
    received: Cell<u64>,
    buffer: Vec<u8>,
}

/// Begins to connect, from the address of `from`: the peer takes connections from there alone.
pub fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(from.ip(), 0))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {
            Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
        }
        Err(error) => Err(error.into()),
    }
}

impl Connection {
    pub fn new(stream: TcpStream, link: Link) -> Connection {
        // Without, small messages would wait for the acknowledgment of those before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "ha: no TCP_NODELAY");
        }
        let now = Instant::now();
        Connection {
            stream,
            link,
            since: now,
            heard: now,
            alive_said: now,
            sent: Cell::new(0),
            received: Cell::new(0),
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Bytes that were sent since the last call.
    pub fn take_sent(&self) -> u64 {
        self.sent.take()
    }

    /// The same of those that have come.
    pub fn take_received(&self) -> u64 {
        self.received.take()
    }

    /// Reads what has come and writes what waits.
    pub fn exchange(&mut self) -> Result<(), String> {
        if let Some(error) = self.stream.take_error().map_err(|e| e.to_string())? {
            return Err(format!("cannot connect: {error}"));
        }
        let mut read = 0;
        while read < MAX_READ {
            match self.stream.read(&mut self.buffer) {
                Ok(0) if self.link.is_proved() => return Err("the peer has ended".into()),
                Ok(0) => {
                    return Err(
                        "the peer has ended the connection before it was joined: has it the same key?".into(),
                    );
                }
                Ok(n) => {
                    self.link.take(&self.buffer[..n]);
                    read += n;
                }
                Err(e) if is_later(&e) => break,
                Err(e) => return Err(e.to_string()),
            }
        }
        self.received.set(self.received.get() + read as u64);
        self.write()
    }

    fn write(&mut self) -> Result<(), String> {
        loop {
            let waiting = self.link.outgoing();
            if waiting.is_empty() {
                return Ok(());
            }
            match self.stream.write(waiting.as_slices().0) {
                Ok(n) => {
                    waiting.drain(..n);
                    self.sent.set(self.sent.get() + n as u64);
                }
                Err(e) if is_later(&e) => return Ok(()),
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// The next frame that has come.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, String> {
        let frame = self.link.next_frame().map(|f| f.map(<[u8]>::to_vec));
        if let Ok(Some(_)) = frame {
            self.heard = Instant::now();
        }
        // The answer to a handshake waits.
        self.write()?;
        frame.map_err(|e| e.to_string())
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.link.send(frame).map_err(|e| e.to_string())?;
        self.write()
    }
}

fn is_later(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}
