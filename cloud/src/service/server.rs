//! The HTTP server: listening, routing, answers in JSON or XML.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::call;
use super::callers::Callers;
use super::limit::Limiter;
use super::metrics::{Call, Metrics};
use super::nonces::Nonces;
use crate::api::{Op, xml};
use crate::south::{self, Agents};
use crate::store::Store;

pub struct App {
    pub store: Store,
    pub callers: Callers,
    pub nonces: Nonces,
    pub limiter: Limiter,
    pub metrics: Metrics,
    /// What the calls of agents need.
    pub agents: Arc<Agents>,
    /// Bytes of a request body.
    pub max_body: usize,
}

impl App {
    pub fn new(store: Store, rate: u32, max_body: usize) -> Arc<App> {
        let agents = Arc::new(Agents::new(store.clone()));
        let metrics = Metrics::new(store.statements.clone(), agents.polls.clone());
        Arc::new(App {
            store,
            callers: Callers::default(),
            nonces: Nonces::default(),
            limiter: Limiter::new(rate),
            metrics,
            agents,
            max_body,
        })
    }
}

/// An answer before it is put into HTTP.
pub struct Reply {
    pub status: u16,
    /// The operation or `other`, and `OK` or the error code: for logs and metrics.
    pub action: String,
    pub code: String,
    /// JSON.
    pub body: String,
    /// The root element in XML.
    pub root: String,
    pub xml: bool,
    pub request_id: String,
}

const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// What a running request gets to finish when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves until `stop` turns true.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(pair) => pair,
                Err(e) => {
                    // Out of file descriptors, most likely: let some close.
                    tracing::warn!(error = %e, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = stop.wait_for(|s| *s) => break,
        };
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        let watcher = graceful.watcher();
        match &tls {
            None => {
                tokio::spawn(connection(app, stream, peer, watcher));
            }
            Some(acceptor) => {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let shake = tokio::time::timeout(HEADER_TIMEOUT, acceptor.accept(stream));
                    match shake.await {
                        Ok(Ok(stream)) => connection(app, stream, peer, watcher).await,
                        Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                    }
                });
            }
        }
    }
    drop(listener);
    app.agents.stopping.send_replace(true);
    if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
    Ok(())
}

async fn connection<S>(
    app: Arc<App>,
    stream: S,
    peer: SocketAddr,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |req| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(route(&app, req, peer).await) }
    });
    let conn = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(e) = watcher.watch(conn).await {
        tracing::debug!(%peer, error = %e, "connection ended");
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut r = Response::new(Full::new(text.into()));
    *r.status_mut() = status;
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    r
}

async fn route(app: &Arc<App>, req: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
    match (req.method(), req.uri().path()) {
        (&Method::GET, "/healthz") => return plain(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") => {
            let stopping = *app.agents.stopping.borrow();
            return if app.store.ready().await && !stopping {
                plain(StatusCode::OK, "ready\n")
            } else {
                plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            };
        }
        (&Method::GET, "/metrics") => return plain(StatusCode::OK, app.metrics.text()),
        (&Method::GET | &Method::POST, "/") => {}
        (_, "/") => return plain(StatusCode::METHOD_NOT_ALLOWED, "GET or POST\n"),
        _ => return plain(StatusCode::NOT_FOUND, "not found\n"),
    }
    let start = Instant::now();
    let (parts, body) = req.into_parts();
    let limited = Limited::new(body, app.max_body).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Ok(Ok(b)) => b.to_bytes(),
        Ok(Err(_)) => {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large or broken\n");
        }
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the request body came too slowly\n"),
    };
    let reply = call::call(app, &parts, &body, peer).await;
    let known = Op::by_name(&reply.action).is_some() || south::is_action(&reply.action);
    let action = if known { reply.action.clone() } else { "other".to_owned() };
    app.metrics.calls.get_or_create(&Call { action, code: reply.code.clone() }).inc();
    let elapsed = start.elapsed();
    if reply.action != south::PULL {
        app.metrics.seconds.observe(elapsed.as_secs_f64());
    }
    tracing::info!(
        request_id = reply.request_id,
        %peer,
        action = reply.action,
        status = reply.status,
        code = reply.code,
        millis = elapsed.as_secs_f64() * 1000.0,
        "call"
    );
    answer(reply)
}

fn answer(reply: Reply) -> Response<Full<Bytes>> {
    let (text, kind) = if reply.xml {
        // What was written here is JSON.
        let value = serde_json::from_str(&reply.body).unwrap_or_default();
        (xml::document(&reply.root, &value), "text/xml;charset=utf-8")
    } else {
        (reply.body, "application/json;charset=utf-8")
    };
    let mut r = Response::new(Full::new(Bytes::from(text)));
    *r.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(id) = HeaderValue::from_str(&reply.request_id) {
        r.headers_mut().insert("x-acs-request-id", id);
    }
    r
}

/// TLS from a certificate chain and a key in PEM files.
pub fn tls(cert: &str, key: &str) -> anyhow::Result<TlsAcceptor> {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(cert)
        .with_context(|| format!("cannot read {cert}"))?
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("cannot parse {cert}"))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read {key}"))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not fit")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
