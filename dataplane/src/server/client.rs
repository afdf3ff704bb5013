//! One connection: lines in, lines out, bounded both ways, never waiting.

use super::{Ended, Handler, dispatch};
use mio::net::UnixStream;
use sag_model::control::{Access, Error, ErrorCode, MAX_CONFIG_REQUEST, MAX_REQUEST, OP_WITHIN};
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

const CHUNK: usize = 64 << 10;
/// A client that has this much to read before it is asked again.
const UNREAD_LIMIT: usize = 1 << 20;
/// Requests answered before the other clients have their turn.
const REQUESTS_PER_TURN: usize = 16;
/// Reads of a chunk before the other clients have their turn.
const READS_PER_TURN: usize = 64;
/// Buffers above this are given back when empty.
const KEEP_CAPACITY: usize = 256 << 10;

/// For reading some of an answer.
const UNREAD_TIME: Duration = Duration::from_secs(30);
/// For sending the whole of a request.
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// What the server does about the client next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The socket will report when there is more to do.
    Wait,
    /// There is more to do at once.
    Again,
    Close,
}

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    access: Access,
    input: Input,
    output: Output,
    ended: bool,
    pub(super) last_turn: u64,
    /// Whose program it is.
    pub(super) user: u32,
    /// When it has last read something, or had nothing to read.
    read: Instant,
    /// When the request began that is still to be finished.
    begun: Option<Instant>,
}

impl Client {
    pub(super) fn new(stream: UnixStream, access: Access, turn: u64) -> Client {
        // Who cannot be identified shares the places of nobody.
        let user = rustix::net::sockopt::socket_peercred(&stream).map_or(u32::MAX, |c| c.uid.as_raw());
        Client {
            stream,
            access,
            input: Input::default(),
            output: Output::default(),
            ended: false,
            last_turn: turn,
            user,
            read: Instant::now(),
            begun: None,
        }
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// Bytes of answers that it has not read.
    pub(super) fn unread(&self) -> usize {
        self.output.unread()
    }

    /// Why it has to go, if it keeps the server waiting.
    pub(super) fn overdue(&self, now: Instant) -> Option<Ended> {
        if self.unread() > 0 && now.saturating_duration_since(self.read) > UNREAD_TIME {
            return Some(Ended::Unread);
        }
        let begun = self.begun.filter(|at| now.saturating_duration_since(*at) > REQUEST_TIME);
        begun.map(|_| Ended::HalfRequest)
    }

    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Whether it is in the middle of sending a large configuration.
    pub(super) fn is_large(&self) -> bool {
        self.input.bytes.len() > MAX_REQUEST
    }

    /// Reads, answers and writes as far as it goes. `may_be_large`: few enough other clients are
    /// sending a large configuration.
    pub(super) fn run(&mut self, may_be_large: bool, handler: &mut dyn Handler) -> Turn {
        let mut requests = 0;
        let turn = self.work(may_be_large, handler, &mut requests);
        let now = Instant::now();
        if self.unread() == 0 {
            self.read = now;
        }
        if requests > 0 || !self.input.is_partial() {
            self.begun = None;
        }
        if self.input.is_partial() {
            self.begun.get_or_insert(now);
        }
        turn
    }

    fn work(&mut self, may_be_large: bool, handler: &mut dyn Handler, requests: &mut usize) -> Turn {
        let mut reads = 0;
        loop {
            match self.output.flush(&mut self.stream) {
                Ok(0) => {}
                Ok(_) => self.read = Instant::now(),
                Err(_) => return Turn::Close,
            }
            if self.output.unread() > UNREAD_LIMIT {
                return Turn::Wait;
            }
            if *requests == REQUESTS_PER_TURN || reads == READS_PER_TURN {
                return Turn::Again;
            }
            match self.input.next_line(may_be_large) {
                Some(Ok(line)) => {
                    *requests += 1;
                    dispatch::answer(line, self.access, handler, &mut self.output.bytes);
                    continue;
                }
                Some(Err(refusal)) => {
                    dispatch::refuse(0, refusal, &mut self.output.bytes);
                    continue;
                }
                None if self.ended => {
                    return if self.output.unread() == 0 { Turn::Close } else { Turn::Wait };
                }
                None => reads += 1,
            }
            match self.input.fill(&mut self.stream) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Turn::Wait,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Close,
            }
        }
    }
}

/// Bytes received and not yet answered.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Start of the next line.
    head: usize,
    /// No line end before this.
    scanned: usize,
    /// The line in progress has been refused; its rest is thrown away.
    discarding: bool,
}

impl Input {
    /// Whether there is the beginning of a line.
    fn is_partial(&self) -> bool {
        self.discarding || self.bytes.len() > self.head
    }

    /// Appends what the reader has, once.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.bytes.drain(..self.head);
        self.scanned -= self.head;
        self.head = 0;
        let len = self.bytes.len();
        self.bytes.resize(len + CHUNK, 0);
        let got = from.read(&mut self.bytes[len..]);
        self.bytes.truncate(len + got.as_ref().map_or(0, |n| *n));
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = Vec::new();
        }
        got
    }

    /// The next complete line without its end, or why it is refused; `None`: read more first.
    pub(super) fn next_line(&mut self, may_be_large: bool) -> Option<Result<&[u8], Error>> {
        loop {
            let found = self.bytes[self.scanned..].iter().position(|b| *b == b'\n');
            let end = found.map_or(self.bytes.len(), |n| self.scanned + n);
            self.scanned = end;
            let start = self.head;
            if self.discarding {
                self.head = end;
            } else if let Err(e) = check_length(&self.bytes[start..end], may_be_large) {
                // Its end may be far off: answer now, and throw away what is still to come.
                self.discarding = true;
                self.head = end;
                return Some(Err(e));
            }
            found?;
            self.head = end + 1;
            self.scanned = self.head;
            if std::mem::take(&mut self.discarding)
                || self.bytes[start..end].iter().all(u8::is_ascii_whitespace)
            {
                continue;
            }
            return Some(Ok(&self.bytes[start..end]));
        }
    }
}

fn check_length(line: &[u8], may_be_large: bool) -> Result<(), Error> {
    if line.len() <= MAX_REQUEST {
        return Ok(());
    }
    if !dispatch::carries_config(&line[..OP_WITHIN]) {
        let text = format!("request line of more than {MAX_REQUEST} bytes");
        let remedy = format!(
            "a config-apply or config-diff may be longer, if op stands in its first {OP_WITHIN} bytes"
        );
        return Err(Error::new(ErrorCode::TooLarge, text, remedy));
    }
    if line.len() > MAX_CONFIG_REQUEST {
        let text = format!("configuration of more than {MAX_CONFIG_REQUEST} bytes");
        return Err(Error::new(ErrorCode::TooLarge, text, "make the document smaller"));
    }
    if !may_be_large {
        let text = "other clients are sending large configurations";
        return Err(Error::new(ErrorCode::Busy, text, "try again when they are done"));
    }
    Ok(())
}

/// Bytes answered and not yet read by the client.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    fn unread(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as is taken; returns how much that was.
    fn flush(&mut self, to: &mut impl Write) -> io::Result<usize> {
        let mut taken = 0;
        while self.unread() > 0 {
            match to.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => (self.written, taken) = (self.written + n, taken + n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // One who always leaves a little unread must not make the rest stay.
                    if self.written > KEEP_CAPACITY {
                        self.bytes.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(taken);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes.clear();
        self.written = 0;
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = Vec::new();
        }
        Ok(taken)
    }
}
