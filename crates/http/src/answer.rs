//! Answers as they are written: at once in HTTP/1; in HTTP/2 in pieces, as the reader of the stream takes them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::conn::Outgoing;

/// Bytes that a stream gets at a time.
const PIECE: usize = 16 * 1024;

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    rest: Bytes,
    outgoing: Option<Arc<Outgoing>>,
}

/// Bytes that keep what counts them until the last piece of them is written.
struct Counted {
    bytes: Bytes,
    _outgoing: Arc<Outgoing>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answer {
    /// Of HTTP/1.
    pub(crate) fn whole(bytes: Bytes) -> Answer {
        Answer { rest: bytes, outgoing: None }
    }

    /// Of HTTP/2.
    pub(crate) fn in_pieces(bytes: Bytes, outgoing: Outgoing) -> Answer {
        let outgoing = Arc::new(outgoing);
        let rest = Bytes::from_owner(Counted { bytes, _outgoing: outgoing.clone() });
        Answer { rest, outgoing: Some(outgoing) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.rest.len();
        let piece = match &self.outgoing {
            Some(outgoing) => {
                let piece = len.min(PIECE);
                // There is room for it: what went before was taken.
                outgoing.taken(piece);
                piece
            }
            None => len,
        };
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
