//! Listening, and the life of a connection.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::answer::Answer;
use crate::conn::Conn;
use crate::gate::{Gate, Reason};
use crate::limits::Limits;
use crate::slot::Protocol;
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

/// Bytes of a body of HTTP/2 that a client may send ahead, of a stream and of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// How long a client of HTTP/2 that was told to go has for that.
const FAREWELL: Duration = Duration::from_secs(2);

/// The connections that are open when a server has stopped.
#[derive(Debug)]
pub struct Open(watch::Sender<bool>);

impl Open {
    /// Ends those that wait, and waits for the calls of the others.
    pub async fn shutdown(self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

/// Answers calls until `stop` is over; the connections that are open then are the caller's to wait for.
pub async fn serve<A, H, F>(
    gate: Arc<Gate>,
    listener: TcpListener,
    acceptor: A,
    handler: H,
    stop: impl Future<Output = ()>,
) -> Open
where
    A: Accept,
    H: Fn(Request<Incoming>, Conn) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let open = Open(watch::Sender::new(false));
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
                tokio::spawn(connection(stream, acceptor.clone(), handler.clone(), conn, open.0.subscribe()));
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

async fn connection<A, H, F>(
    stream: TcpStream,
    acceptor: A,
    handler: H,
    conn: Conn,
    stop: watch::Receiver<bool>,
) where
    A: Accept,
    H: Fn(Request<Incoming>, Conn) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let peer = conn.peer;
    let work = async {
        let shake = timeout(conn.gate().limits.handshake, acceptor.accept(stream));
        match shake.await {
            Ok(Ok(stream)) => speak(stream, handler, &conn, stop).await,
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

async fn speak<S, H, F>(stream: S, handler: H, conn: &Conn, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, Conn) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let calls = conn.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, call) = (handler.clone(), calls.call());
        async move {
            let version = request.version();
            let answer = match call {
                Some(call) => hand_over(handler(named(request), call.clone()).await, &call, version).await,
                None => small(busy(), version).await,
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = builder(&conn.gate().limits, conn);
    let http = builder.serve_connection(TokioIo::new(Timed::new(stream, conn.clone())), service);
    let mut http = std::pin::pin!(http);
    let mut ending: Option<Instant> = None;
    loop {
        let done = tokio::select! {
            done = http.as_mut() => done,
            why = overdue(conn, ending) => {
                conn.gate().count(why);
                tracing::debug!(peer = %conn.peer, reason = why.name(), "connection closed");
                if why != Reason::Head || !conn.slot().is(Protocol::Http2) {
                    return;
                }
                http.as_mut().graceful_shutdown();
                ending = Some(Instant::now() + FAREWELL);
                continue;
            }
            () = sleep_until(ending.unwrap_or_else(Instant::now)), if ending.is_some() => {
                if conn.slot().calls() == 0 {
                    return;
                }
                ending = Some(Instant::now() + FAREWELL);
                continue;
            }
            () = stopped(&mut stop), if ending.is_none() => {
                http.as_mut().graceful_shutdown();
                ending = Some(Instant::now() + FAREWELL);
                continue;
            }
        };
        if let Err(error) = done {
            if error.downcast_ref().is_some_and(hyper::Error::is_timeout) {
                conn.gate().count(Reason::Head);
            }
            tracing::debug!(peer = %conn.peer, %error, "connection ended");
        }
        return;
    }
}

/// HTTP as it is spoken within these bounds.
fn builder(limits: &Limits, conn: &Conn) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(Limits::HEAD)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(Limits::HEAD as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(Limits::FREE);
    if limits.streams == 0 {
        conn.slot().speaks(Protocol::Http1);
        return builder.http1_only();
    }
    builder
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A server that is dropped without a shutdown lets its connections be.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends when the connection has to: nothing is sent that would tell its protocol, or, of HTTP/2, no call is made, no answer
/// is taken, or calls are taken back all the time. What else HTTP/1 has to do in time is known to its library.
async fn overdue(conn: &Conn, ending: Option<Instant>) -> Reason {
    let (slot, limits) = (conn.slot(), &conn.gate().limits);
    loop {
        let changed = slot.outgoing.changed.notified();
        if slot.takes_back() {
            return Reason::Resets;
        }
        let idle = match slot.is(Protocol::Http1) || ending.is_some() {
            true => None,
            false => slot.idle_since().map(|since| (conn.gate().at(since) + limits.head, Reason::Head)),
        };
        let unread = slot.outgoing.deadline(limits.write).map(|at| (at, Reason::Write));
        let Some((at, why)) = idle.into_iter().chain(unread).min_by_key(|(at, _)| *at) else {
            changed.await;
            continue;
        };
        if at <= Instant::now() {
            return why;
        }
        let _ = timeout(at - Instant::now(), changed).await;
    }
}

/// HTTP/2 has the host in a place of its own.
fn named(mut request: Request<Incoming>) -> Request<Incoming> {
    let authority = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    if let Some(host) = authority
        && request.version() == Version::HTTP_2
        && !request.headers().contains_key(HOST)
    {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// What a body that is there as a whole has.
async fn bytes(body: Full<Bytes>) -> Bytes {
    match body.collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(never) => match never {},
    }
}

/// An answer that costs nothing to keep.
async fn small(answer: Response<Full<Bytes>>, version: Version) -> Response<Answer> {
    let (mut parts, body) = answer.into_parts();
    if version == Version::HTTP_2 {
        parts.headers.remove(CONNECTION);
    }
    Response::from_parts(parts, Answer::whole(bytes(body).await))
}

/// The answer, or 503 where it finds no room.
async fn hand_over(answer: Response<Full<Bytes>>, conn: &Conn, version: Version) -> Response<Answer> {
    let (mut parts, body) = answer.into_parts();
    let body = bytes(body).await;
    match conn.hold(body.len()).await {
        Ok(hold) if version == Version::HTTP_2 => {
            parts.headers.remove(CONNECTION);
            Response::from_parts(parts, Answer::in_pieces(body, conn.answer_of(hold)))
        }
        Ok(hold) => {
            conn.answering(hold);
            Response::from_parts(parts, Answer::whole(body))
        }
        Err(_) => {
            drop(body);
            conn.refused();
            small(busy(), version).await
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
