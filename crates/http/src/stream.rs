//! A connection whose other end has to read what is written.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::gate::{Conn, Reason};
use crate::limits::Limits;

/// Ends with `TimedOut` when what is written is not taken in time.
pub struct Timed<S> {
    inner: S,
    conn: Conn,
    /// Since when something waits to be taken, and what was taken since.
    waits: Option<(Instant, u64)>,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl<S> Timed<S> {
    pub fn new(inner: S, conn: Conn) -> Timed<S> {
        Timed { inner, conn, waits: None, timer: None, armed: false }
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
            let whole = began + 2 * patience + Duration::from_secs(taken / Limits::RATE);
            let until = whole.min(now + patience);
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
        Pin::new(&mut self.inner).poll_read(cx, buf)
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
