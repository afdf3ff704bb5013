//! Clients of HTTP/2 (RFC 9113) that take what they can, frame by frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use sag_http::{Conn, Gate, Limits, Open, Plain, Reason, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:method: GET` or `POST`, `:scheme: http`, `:path: /`, `:authority: x`.
const GET: &[u8] = b"\x82\x86\x84\x41\x01x";
const POST: &[u8] = b"\x83\x86\x84\x41\x01x";
/// `:status: 200` in HPACK's static table; 408 and 503 are not in it.
const OK: u8 = 0x88;
/// Bytes of each answer.
const ANSWER: usize = 200_000;
const SOON: Duration = Duration::from_secs(3);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A call without a body; calls have the streams 1, 3, 5, …
fn get(n: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, GET)
}

fn reset(n: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes())
}

struct Server {
    gate: Arc<Gate>,
    address: std::net::SocketAddr,
    running: Arc<AtomicUsize>,
    stop: tokio::sync::oneshot::Sender<()>,
    open: tokio::task::JoinHandle<Open>,
}

/// Counts a call that runs.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(of: Arc<AtomicUsize>) -> Running {
        of.fetch_add(1, Ordering::Relaxed);
        Running(of)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server whose calls last so long.
async fn server(limits: Limits, call: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let gate = Gate::new(limits);
    let running = Arc::new(AtomicUsize::new(0));
    let calls = running.clone();
    let handler = move |request: Request<Incoming>, conn: Conn| {
        let calls = calls.clone();
        async move {
            let _running = Running::new(calls);
            let (parts, body) = request.into_parts();
            assert_eq!(parts.headers["host"], "x");
            match conn.read(body, 1 << 20).await {
                Ok(_) => {
                    sleep(call).await;
                    Response::new(Full::new(Bytes::from(vec![b'a'; ANSWER])))
                }
                Err(why) => why.answer(),
            }
        }
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let open = tokio::spawn(serve(gate.clone(), listener, Plain, handler, stopped));
    Server { gate, address, running, stop, open }
}

impl Server {
    fn ended(&self, reason: Reason) -> u64 {
        self.gate.ended().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    async fn connected(&self, settings: &[u8]) -> Client {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
        stream.write_all(&begin).await.expect("sent");
        Client { stream }
    }

    async fn nobody_is_left(&self) {
        for _ in 0..300 {
            if (self.gate.open(), self.gate.buffered(), self.running()) == (0, 0, 0) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{} connections, {} bytes, {} calls", self.gate.open(), self.gate.buffered(), self.running());
    }
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn send(&mut self, frames: &[Vec<u8>]) -> bool {
        self.stream.write_all(&frames.concat()).await.is_ok()
    }

    /// The next frame: its kind, stream and payload; none: the connection is closed.
    async fn frame(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((kind, u32::from_be_bytes(stream), payload))
    }

    /// How many bytes of answers come until the connection is closed, and whether it is.
    async fn drain(&mut self) -> (usize, bool) {
        let mut bytes = 0;
        loop {
            match timeout(SOON, self.frame()).await {
                Ok(Some((DATA, _, payload))) => bytes += payload.len(),
                Ok(Some(_)) => {}
                Ok(None) => return (bytes, true),
                Err(_) => return (bytes, false),
            }
        }
    }

    /// The first byte of the heads of so many answers, by stream.
    async fn statuses(&mut self, count: usize) -> Vec<(u32, u8)> {
        let mut out = Vec::new();
        while out.len() < count {
            let next = timeout(SOON, self.frame()).await.expect("in time").expect("open");
            if let (HEADERS, stream, block) = next {
                out.push((stream, block[0]));
            }
        }
        out.sort_unstable();
        out
    }
}

fn limits() -> Limits {
    let short = Duration::from_millis(300);
    Limits { streams: 100, head: short, write: short, ..Limits::default() }
}

#[tokio::test]
async fn calls_at_the_same_time_on_one_connection() {
    let server = server(limits(), Duration::from_millis(200)).await;
    let mut client = server.connected(&[]).await;
    let began = Instant::now();
    assert!(client.send(&(0..20).map(get).collect::<Vec<_>>()).await);
    assert!(client.statuses(20).await.iter().all(|(_, status)| *status == OK));
    assert!(began.elapsed() < Duration::from_secs(2), "not one after the other");
    drop(client);
    server.nobody_is_left().await;
}

#[tokio::test]
async fn who_says_nothing_or_calls_nothing_has_to_go() {
    let server = server(limits(), Duration::ZERO).await;
    let mut silent = TcpStream::connect(server.address).await.expect("connected");
    let mut half = TcpStream::connect(server.address).await.expect("connected");
    half.write_all(&PREFACE[..9]).await.expect("sent");
    let mut idle = server.connected(&[]).await;
    let mut byte = [0; 1];
    for stream in [&mut silent, &mut half] {
        let read = timeout(SOON, stream.read(&mut byte)).await.expect("closed in time");
        assert!(matches!(read, Ok(0) | Err(_)));
    }
    // The last one is told so, and need not answer.
    let mut told = false;
    while let Some((kind, ..)) = timeout(SOON, idle.frame()).await.expect("closed in time") {
        told |= kind == GOAWAY;
    }
    assert!(told);
    assert_eq!(server.ended(Reason::Head), 3);
    server.nobody_is_left().await;
}

#[tokio::test]
async fn who_reads_no_answer_has_to_go() {
    let server = server(limits(), Duration::ZERO).await;
    // A window of nothing for each stream, and one that is never widened.
    for window in [0_u32, 30_000] {
        let settings = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
        let mut client = server.connected(&settings).await;
        assert!(client.send(&(0..8).map(get).collect::<Vec<_>>()).await);
        sleep(Duration::from_millis(100)).await;
        assert!(server.gate.buffered() >= 7 * ANSWER, "answers count until they are written");
        let (bytes, closed) = client.drain().await;
        assert!(closed && bytes <= 65_535, "{bytes}");
    }
    assert_eq!(server.ended(Reason::Write), 2);
    server.nobody_is_left().await;
}

#[tokio::test]
async fn calls_that_are_taken_back_end_and_so_does_who_does_that_all_the_time() {
    let server = server(limits(), Duration::from_secs(60)).await;
    let mut client = server.connected(&[]).await;
    let mut n = 0;
    while server.gate.open() == 0 {
        tokio::task::yield_now().await;
    }
    // So slowly that each call runs before it is taken back.
    while n < 150 && server.ended(Reason::Resets) == 0 {
        client.send(&[get(n)]).await;
        while server.running() == 0 && server.gate.open() > 0 {
            tokio::task::yield_now().await;
        }
        client.send(&[reset(n)]).await;
        while server.running() > 0 {
            tokio::task::yield_now().await;
        }
        n += 1;
    }
    assert!((100..=105).contains(&n), "{n}");
    assert!(client.drain().await.1 && server.ended(Reason::Resets) == 1);
    // All at once: the library ends it, whatever has begun.
    let mut client = server.connected(&[]).await;
    client.send(&(0..2000).map(|n| [get(n), reset(n)].concat()).collect::<Vec<_>>()).await;
    assert!(client.drain().await.1);
    server.nobody_is_left().await;
}

#[tokio::test]
async fn heads_without_end_are_bounded() {
    let server = server(limits(), Duration::ZERO).await;
    // A head that goes on and on (the continuation flood): of nothing, and of one field after the other.
    for piece in [Vec::new(), [&b"\x00\x01a\x7f\x81\x01"[..], &[b'v'; 256]].concat()] {
        let mut client = server.connected(&[]).await;
        let mut sent = 0;
        client.send(&[frame(HEADERS, END_STREAM, 1, GET)]).await;
        while sent < 8 << 20 && client.send(&[frame(CONTINUATION, 0, 1, &piece)]).await {
            sent += 9 + piece.len();
        }
        assert!(sent < 4 << 20, "{sent} bytes");
    }
    server.nobody_is_left().await;
}

#[tokio::test]
async fn calls_count_like_connections() {
    let few = Limits { connections: 8, per_source: 8, ..limits() };
    let server = server(few, Duration::from_millis(300)).await;
    let mut client = server.connected(&[]).await;
    client.send(&(0..9).map(get).collect::<Vec<_>>()).await;
    let statuses = client.statuses(9).await;
    assert_eq!(statuses.iter().filter(|(_, status)| *status == OK).count(), 8);
    assert!(statuses[8].0 == 17 && statuses[8].1 != OK, "503: {statuses:?}");
    assert_eq!(server.ended(Reason::Source), 1);
    drop(client);
    server.nobody_is_left().await;
}

#[tokio::test]
async fn half_bodies_are_counted_and_cut_off() {
    let short = Limits { body: Duration::from_millis(300), ..limits() };
    let server = server(short, Duration::ZERO).await;
    let mut client = server.connected(&[]).await;
    let half = |n: u32| {
        let call = frame(HEADERS, END_HEADERS, 2 * n + 1, POST);
        [call, frame(DATA, 0, 2 * n + 1, &[b'a'; 10_000])].concat()
    };
    client.send(&(0..6).map(half).collect::<Vec<_>>()).await;
    sleep(Duration::from_millis(100)).await;
    assert!(server.gate.buffered() > 40_000, "{}", server.gate.buffered());
    assert!(client.statuses(6).await.iter().all(|(_, status)| *status != OK), "408");
    assert_eq!(server.ended(Reason::Body), 6);
    drop(client);
    server.nobody_is_left().await;
}

#[tokio::test]
async fn a_stop_lets_calls_end_and_nobody_wait() {
    let server = server(limits(), Duration::from_millis(400)).await;
    let mut busy = server.connected(&[]).await;
    let _silent = TcpStream::connect(server.address).await.expect("connected");
    let _idle = server.connected(&[]).await;
    busy.send(&[get(0)]).await;
    while server.running() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    server.stop.send(()).expect("running");
    let open = server.open.await.expect("stopped");
    let reading = tokio::spawn(async move { (busy.statuses(1).await, busy.drain().await) });
    timeout(Duration::from_secs(5), open.shutdown()).await.expect("in time");
    let (statuses, (bytes, closed)) = reading.await.expect("read");
    assert_eq!(statuses, [(1, OK)]);
    assert!(closed && bytes > 0);
}

#[tokio::test]
async fn without_streams_http_1_alone_is_spoken() {
    let server = server(Limits { streams: 0, ..limits() }, Duration::ZERO).await;
    let mut client = server.connected(&[]).await;
    assert!(client.drain().await.1);
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.len() > ANSWER);
}
