//! Bodies of requests: read whole, within their bounds.

use std::ops::Deref;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::{Response, StatusCode};
use tokio::time::timeout;

use crate::conn::{Conn, Hold};
use crate::gate::Reason;
use crate::serve::{busy, closing};
use crate::slot::Phase;

/// A client that is still sending reads no answer, and finds the connection broken. So much of what is too large is
/// taken and thrown away, that it gets to know why.
const MOST_DISCARDED: usize = 8 << 20;

/// A body in memory, which counts as long as it lives.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    hold: Hold,
}

impl Body {
    /// Counts the bytes before it takes them; it has `most` at the end.
    pub(crate) async fn append(&mut self, data: &[u8], most: usize) -> Result<(), BodyError> {
        let bytes = &mut self.bytes;
        let len = bytes.len() + data.len();
        if len > most {
            return Err(BodyError::TooLarge);
        }
        if len > bytes.capacity() {
            let capacity = len.next_power_of_two().min(most);
            self.hold.grow(capacity - bytes.capacity()).await.map_err(|_| BodyError::Busy)?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// More bytes than a body may have.
    TooLarge,
    /// It did not come in time.
    TooSlow,
    /// All connections together keep too much.
    Busy,
    /// The client went away, or sent no HTTP.
    Broken,
}

impl BodyError {
    /// What the client gets; the connection is closed then.
    pub fn answer(self) -> Response<Full<Bytes>> {
        let (status, text) = match self {
            BodyError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large\n"),
            BodyError::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the request body came too slowly\n"),
            BodyError::Broken => (StatusCode::BAD_REQUEST, "the request body is broken\n"),
            BodyError::Busy => return busy(),
        };
        closing(status, text)
    }
}

impl Conn {
    /// Reads a body of at most `most` bytes.
    ///
    /// # Errors
    /// It is larger, does not come in time or not at all, or there is no room for it.
    pub async fn read(&self, mut body: Incoming, most: usize) -> Result<Body, BodyError> {
        let least = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        self.begin(Phase::Reading);
        let read = async {
            let collected = match least > most {
                true => Err(BodyError::TooLarge),
                false => self.collect(&mut body, most).await,
            };
            if let Err(BodyError::TooLarge) = collected
                && least <= MOST_DISCARDED
            {
                discard(&mut body).await;
            }
            collected
        };
        let read = timeout(self.gate().limits.body, read).await;
        self.begin(Phase::Working);
        read.unwrap_or_else(|_| {
            self.gate().count(Reason::Body);
            Err(BodyError::TooSlow)
        })
    }

    /// Copies what comes, so that nothing is kept but what counts: pieces of hyper's buffer would keep all of it.
    async fn collect(&self, body: &mut Incoming, most: usize) -> Result<Body, BodyError> {
        let mut whole = self.empty_body().await?;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            whole.append(&data, most).await?;
        }
        Ok(whole)
    }

    pub(crate) async fn empty_body(&self) -> Result<Body, BodyError> {
        let hold = self.hold(0).await.map_err(|_| BodyError::Busy)?;
        Ok(Body { bytes: Vec::new(), hold })
    }
}

async fn discard(body: &mut Incoming) {
    let mut left = MOST_DISCARDED;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}
