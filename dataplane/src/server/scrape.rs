//! The HTTP end of the metrics: a thread of its own that answers scrapes and nothing else.

use super::metrics::{Format, MetricsSnapshot};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tiny_http::{Header, Method, Request, Response, Server};

/// How soon the thread notices the end, should it miss the call.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `GET /metrics` and `GET /healthz` until dropped.
#[derive(Debug)]
pub struct MetricsServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    http: Server,
    stop: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("address", &self.http.server_addr()).finish_non_exhaustive()
    }
}

impl MetricsServer {
    /// Listens on `address` (`dataplane.metrics`); `None` if that is empty. `source` is asked at
    /// every scrape, on the server's thread.
    pub fn start(
        address: &str,
        source: impl Fn() -> MetricsSnapshot + Send + 'static,
    ) -> io::Result<Option<MetricsServer>> {
        if address.is_empty() {
            return Ok(None);
        }
        let http = Server::http(address).map_err(|e| {
            let text = format!(
                "metrics: cannot listen on {address}: {e}; set dataplane.metrics (\"\" turns it off)"
            );
            io::Error::other(text)
        })?;
        tracing::info!(address = %http.server_addr(), "metrics are served");
        let shared = Arc::new(Shared { http, stop: AtomicBool::new(false) });
        let run = {
            let shared = Arc::clone(&shared);
            move || {
                while !shared.stop.load(Ordering::Acquire) {
                    match shared.http.recv_timeout(TIMEOUT) {
                        Ok(Some(request)) => serve(request, &source),
                        Ok(None) => {}
                        Err(error) => {
                            tracing::warn!(%error, "metrics: cannot accept a scraper");
                            std::thread::sleep(TIMEOUT);
                        }
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(run)?;
        Ok(Some(MetricsServer { shared, thread: Some(thread) }))
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> Option<std::net::SocketAddr> {
        self.shared.http.server_addr().to_ip()
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.http.unblock();
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic of it has been reported already.
            let _ = thread.join();
        }
    }
}

fn serve(request: Request, source: &impl Fn() -> MetricsSnapshot) {
    let path = request.url().split(['?', '#']).next().unwrap_or_default().to_owned();
    let readable = matches!(request.method(), Method::Get | Method::Head);
    let (code, kind, body) = match (readable, path.as_str()) {
        (false, _) => (405, "text/plain", "only GET is answered\n".to_owned()),
        (true, "/metrics") => {
            let accept = request.headers().iter().find(|h| h.field.equiv("Accept"));
            let format = Format::accepted(accept.map_or("", |h| h.value.as_str()));
            match source().encode(format) {
                Ok(text) => (200, format.content_type(), text),
                Err(e) => (500, "text/plain", format!("the metrics cannot be written: {e}\n")),
            }
        }
        (true, "/healthz") => (200, "text/plain", "ok\n".to_owned()),
        (true, _) => (404, "text/plain", "try /metrics or /healthz\n".to_owned()),
    };
    let mut response = Response::from_string(body).with_status_code(code);
    if let Ok(header) = Header::from_bytes("Content-Type", kind) {
        response.add_header(header);
    }
    // The scraper has gone; there is nobody to tell.
    let _ = request.respond(response);
}
