//! A connection whose other end has to read what is written, and the protocol that it begins with.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::conn::Conn;
use crate::gate::Reason;
use crate::slot::{Protocol, write_deadline};

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Ends with `TimedOut` when what is written is not taken in time.
pub struct Timed<S> {
    inner: S,
    conn: Conn,
    /// Since when something waits to be taken, and what was taken since.
    waits: Option<(Instant, u64)>,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
    /// Bytes of the preface that have come; none: the protocol is known.
    preface: Option<usize>,
}

impl<S> Timed<S> {
    pub fn new(inner: S, conn: Conn) -> Timed<S> {
        let preface = conn.slot().is(Protocol::Unknown).then_some(0);
        Timed { inner, conn, waits: None, timer: None, armed: false, preface }
    }

    /// What was read first says what is spoken.
    fn recognise(&mut self, read: &[u8]) {
        let Some(seen) = self.preface else { return };
        let rest = PREFACE.get(seen..).unwrap_or_default();
        let same = rest.iter().zip(read).take_while(|(a, b)| a == b).count();
        let protocol = if same == rest.len() {
            Protocol::Http2
        } else if same == read.len() && !read.is_empty() {
            self.preface = Some(seen + same);
            return;
        } else {
            Protocol::Http1
        };
        self.preface = None;
        self.conn.slot().speaks(protocol);
    }

    fn taken(&mut self, bytes: usize) {
        self.armed = false;
        if let Some((_, taken)) = &mut self.waits {
            *taken += bytes as u64;
        }
    }

    fn done(&mut self) {
        (self.waits, self.armed) = (None, false);
        self.conn.answered();
    }

    /// Nothing was taken: for how long may that go on?
    fn stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let patience = self.conn.gate().limits.write;
        let now = Instant::now();
        let (began, taken) = *self.waits.get_or_insert((now, 0));
        if !self.armed {
            let until = write_deadline(began, now, taken, patience);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(sleep_until(until))),
            }
            self.armed = true;
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        self.conn.gate().count(Reason::Write);
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the answer is not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.preface.is_some() && matches!(read, Poll::Ready(Ok(()))) {
            self.recognise(buf.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Pending => self.stalled(cx),
            Poll::Ready(done) => {
                self.taken(*done.as_ref().unwrap_or(&0));
                Poll::Ready(done)
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.stalled(cx),
            Poll::Ready(done) => {
                self.taken(*done.as_ref().unwrap_or(&0));
                Poll::Ready(done)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Pending => self.stalled(cx),
            Poll::Ready(done) => {
                self.done();
                Poll::Ready(done)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_shutdown(cx) {
            Poll::Pending => self.stalled(cx),
            done => done,
        }
    }
}
