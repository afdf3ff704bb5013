//! The HTTP end of the metrics: a thread of its own that answers scrapes and nothing else. `sag_http` bounds what
//! scrapers, and whoever else reaches the port, can take from the daemon.

use super::metrics::{Format, MetricsSnapshot};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sag_http::{Conn, Gate, Limits, Plain, Remade};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// More scrapers than a gateway has, and few enough to leave descriptors and memory to the daemon.
fn limits() -> Limits {
    Limits {
        connections: 64,
        per_source: 32,
        buffered: 16 << 20,
        head: Duration::from_secs(10),
        body: Duration::from_secs(5),
        ..Limits::default()
    }
}

/// Serves `GET /metrics` and `GET /healthz` until dropped.
#[derive(Debug)]
pub struct MetricsServer {
    #[cfg_attr(not(test), allow(dead_code))]
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens on `address` (`dataplane.metrics`); `None` if that is empty. `source` is asked at
    /// every scrape, on the server's thread.
    pub fn start(
        address: &str,
        source: impl Fn() -> MetricsSnapshot + Send + Sync + 'static,
    ) -> io::Result<Option<MetricsServer>> {
        if address.is_empty() {
            return Ok(None);
        }
        let failed = |e: &dyn std::fmt::Display| {
            let text = format!(
                "metrics: cannot listen on {address}: {e}; set dataplane.metrics (\"\" turns it off)"
            );
            io::Error::other(text)
        };
        let listener = std::net::TcpListener::bind(address).map_err(|e| failed(&e))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let endpoint = Endpoint {
            source: Box::new(source),
            gate: Gate::new(limits()),
            classic: Remade::new(SCRAPES),
            open: Remade::new(SCRAPES),
        };
        let run = move || run(&runtime, listener, endpoint, stopped);
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(run)?;
        tracing::info!(%address, "metrics are served");
        Ok(Some(MetricsServer { address, stop: Some(stop), thread: Some(thread) }))
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        // Either tells the thread to end.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic of it has been reported already.
            let _ = thread.join();
        }
    }
}

/// Times a second that the metrics are written anew, in each format.
const SCRAPES: u32 = 10;

/// The text of the metrics, or why there is none.
type Text = Result<Bytes, String>;

/// What scrapers get.
struct Endpoint {
    source: Box<dyn Fn() -> MetricsSnapshot + Send + Sync>,
    gate: Arc<Gate>,
    classic: Remade<Text>,
    open: Remade<Text>,
}

/// The thread: until the other end of `stopped` is gone.
fn run(
    runtime: &Runtime,
    listener: std::net::TcpListener,
    endpoint: Endpoint,
    stopped: oneshot::Receiver<()>,
) {
    let endpoint = Arc::new(endpoint);
    runtime.block_on(async {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "metrics: cannot listen"),
        };
        let gate = endpoint.gate.clone();
        let handler = move |request: Request<Incoming>, _: Conn| {
            let answer = endpoint.answer(&request);
            async move { answer }
        };
        let stop = async {
            let _ = stopped.await;
        };
        // Who is in the middle of an answer scrapes the next daemon.
        drop(sag_http::serve(gate, listener, Plain, handler, stop).await);
    });
}

impl Endpoint {
    fn text(&self, format: Format) -> Text {
        let of_format = match format {
            Format::Classic => &self.classic,
            Format::OpenMetrics => &self.open,
        };
        of_format.get(|| {
            let mut snapshot = (self.source)();
            snapshot.endpoint.open = self.gate.open();
            snapshot.endpoint.ended = self.gate.ended().map(|(reason, n)| (reason.name(), n)).collect();
            snapshot.encode(format).map(Bytes::from).map_err(|e| e.to_string())
        })
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let readable = matches!(*request.method(), Method::GET | Method::HEAD);
        let plain = |text: &'static str| Bytes::from_static(text.as_bytes());
        let (code, kind, body) = match (readable, request.uri().path()) {
            (false, _) => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", plain("only GET is answered\n")),
            (true, "/metrics") => {
                let accept = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok());
                let format = Format::accepted(accept.unwrap_or_default());
                match self.text(format) {
                    Ok(text) => (StatusCode::OK, format.content_type(), text),
                    Err(e) => {
                        let text = format!("the metrics cannot be written: {e}\n");
                        (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", text.into())
                    }
                }
            }
            (true, "/healthz") => (StatusCode::OK, "text/plain", plain("ok\n")),
            (true, _) => (StatusCode::NOT_FOUND, "text/plain", plain("try /metrics or /healthz\n")),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = code;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}
