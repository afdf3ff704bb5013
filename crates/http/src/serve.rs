//! Listening, and the life of a connection.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::gate::{Conn, Gate, Phase, Reason};
use crate::limits::Limits;
use crate::stream::Timed;

/// What makes a connection of HTTP out of one of TCP.
pub trait Accept: Clone + Send + Sync + 'static {
    /// What HTTP is spoken over.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// HTTP begins with the first byte.
    const PLAIN: bool;

    /// The handshake.
    fn accept(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// TCP alone.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Accept for Plain {
    type Stream = TcpStream;
    const PLAIN: bool = true;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// What a connection gets that finds no place.
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
/// Bytes of an answer that the kernel keeps.
const SEND_BUFFER: usize = 128 * 1024;
/// How long the accept loop rests when there is no descriptor.
const REST: Duration = Duration::from_millis(20);
/// How often it says so.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Answers calls until `stop` is over; the connections that are open then are the caller's to wait for.
pub async fn serve<A, H, F>(
    gate: Arc<Gate>,
    listener: TcpListener,
    acceptor: A,
    handler: H,
    stop: impl Future<Output = ()>,
) -> GracefulShutdown
where
    A: Accept,
    H: Fn(Request<Incoming>, Conn) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let open = GracefulShutdown::new();
    let mut said: Option<Instant> = None;
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return open,
        };
        let (stream, peer) = match accepted {
            Ok(pair) => pair,
            Err(error) => {
                if failed(&gate, &error) {
                    if said.is_none_or(|at| at.elapsed() > SAID_AGAIN) {
                        said = Some(Instant::now());
                        tracing::warn!(%error, open = gate.open(), "cannot accept a connection; idle ones are closed");
                    }
                    tokio::time::sleep(REST).await;
                }
                continue;
            }
        };
        match gate.admit(peer).await {
            Ok(conn) => {
                let _ = stream.set_nodelay(true);
                // Else the kernel keeps megabytes for each client that does not read.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
                tokio::spawn(connection(stream, acceptor.clone(), handler.clone(), conn, open.watcher()));
            }
            Err(reason) => {
                tracing::debug!(%peer, reason = reason.name(), "connection refused");
                if A::PLAIN {
                    // As far as it goes without waiting.
                    let _ = stream.try_write(REFUSAL);
                }
            }
        }
    }
}

/// Whether accepting has to rest: the process or the machine lacks something. Else that one client has gone.
fn failed(gate: &Gate, error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        return false;
    }
    gate.out_of_descriptors();
    true
}

async fn connection<A, H, F>(stream: TcpStream, acceptor: A, handler: H, conn: Conn, watcher: Watcher)
where
    A: Accept,
    H: Fn(Request<Incoming>, Conn) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let peer = conn.peer;
    let work = async {
        let shake = timeout(conn.gate().limits.handshake, acceptor.accept(stream));
        match shake.await {
            Ok(Ok(stream)) => speak(stream, handler, &conn, watcher).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "handshake failed"),
            Err(_) => {
                conn.gate().count(Reason::Handshake);
                tracing::debug!(%peer, "handshake timed out");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = conn.cut() => tracing::debug!(%peer, "connection closed to make room"),
    }
}

async fn speak<S, H, F>(stream: S, handler: H, conn: &Conn, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, Conn) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let calls = conn.clone();
    let service = service_fn(move |request| {
        let conn = calls.clone();
        conn.begin(Phase::Working);
        let answer = handler(request, conn.clone());
        async move { Ok::<_, Infallible>(hand_over(answer.await, &conn).await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(conn.gate().limits.head)
        .max_buf_size(Limits::HEAD)
        .serve_connection(TokioIo::new(Timed::new(stream, conn.clone())), service);
    if let Err(error) = watcher.watch(http).await {
        if error.is_timeout() {
            conn.gate().count(Reason::Head);
        }
        peer_ended(conn.peer, &error);
    }
}

fn peer_ended(peer: SocketAddr, error: &hyper::Error) {
    tracing::debug!(%peer, %error, "connection ended");
}

/// The answer, or 503 where it finds no room.
async fn hand_over(answer: Response<Full<Bytes>>, conn: &Conn) -> Response<Full<Bytes>> {
    let len = answer.body().size_hint().exact().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    match conn.hold(len).await {
        Ok(hold) => {
            conn.answering(hold);
            answer
        }
        Err(_) => {
            drop(answer);
            conn.begin(Phase::Writing);
            busy()
        }
    }
}

/// An answer after which the connection is closed.
pub(crate) fn closing(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut r = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *r.status_mut() = status;
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    r.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    r
}

/// 503 with `Retry-After`; the connection is closed then.
pub fn busy() -> Response<Full<Bytes>> {
    let mut r = closing(StatusCode::SERVICE_UNAVAILABLE, "too much is in progress; try again\n");
    r.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    r
}
