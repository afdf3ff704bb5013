//! The HTTP server: routing, answers in JSON or XML. `sag_http` bounds what clients can take.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use sag_http::{Accept, Body, BodyError, Conn, Gate, Limits, Plain, Remade};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::audit::Refusals;
use super::call;
use super::callers::Callers;
use super::cors::Origins;
use super::limit::{Limiter, Sampler};
use super::metrics::{Call, Metrics};
use super::nonces::Nonces;
use super::sign::header;
use crate::api::{Op, xml};
use crate::domain::lock;
use crate::error::ApiError;
use crate::south::{self, Agents};
use crate::store::Store;
use crate::store::audit::Retention;
use crate::time::now_ms;

/// What callers may take, and how long the log of their calls is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests a second for each access key; 0 is no limit.
    pub rate_limit: u32,
    /// Bytes of a request body.
    pub max_body: usize,
    pub limits: Limits,
    pub retention: Retention,
    /// Whose scripts in a browser may read answers.
    pub origins: Origins,
}

pub struct App {
    pub store: Store,
    pub callers: Callers,
    pub nonces: Nonces,
    pub limiter: Limiter,
    pub refusals: Refusals,
    pub metrics: Metrics,
    /// What the calls of agents need.
    pub agents: Arc<Agents>,
    pub settings: Settings,
    /// Who is connected.
    pub gate: Arc<Gate>,
    /// The text of the metrics, for whoever asks.
    scraped: Remade<Bytes>,
    /// Calls without a valid signature that the log gets.
    strangers: Sampler,
}

impl App {
    pub fn new(store: Store, settings: Settings) -> Arc<App> {
        let gate = Gate::new(settings.limits.clone());
        // The long polls of one account leave connections for the others.
        let agents = Arc::new(Agents::new(store.clone(), (settings.limits.connections * 3 / 4).max(1)));
        let refusals = Refusals::default();
        let metrics = Metrics::new(&store, &agents, gate.clone(), refusals.left_out.clone());
        Arc::new(App {
            store,
            callers: Callers::default(),
            nonces: Nonces::default(),
            limiter: Limiter::new(settings.rate_limit),
            refusals,
            metrics,
            agents,
            gate,
            settings,
            scraped: Remade::new(SCRAPES),
            strangers: Sampler::new(STRANGERS),
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
    /// Whether the signature is that of a key.
    pub signed: bool,
    /// When the client may try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Reply {
    /// The answer to a call that failed, before its action is known.
    pub fn refusal(error: &ApiError, request_id: String, host: &str) -> Reply {
        Reply {
            status: error.status,
            action: String::new(),
            code: error.code.to_string(),
            body: error.envelope(&request_id, host).to_string(),
            root: "Error".to_owned(),
            xml: false,
            request_id,
            signed: false,
            retry_after_ms: error.retry_after_ms,
        }
    }
}

/// What a running request gets to finish when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Times a second that the metrics are written anew.
const SCRAPES: u32 = 20;
/// Lines of the log a second for calls that anybody can make.
const STRANGERS: u32 = 20;
/// How often what has expired is removed.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// Serves until `stop` turns true.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<Tls>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    lock::listening();
    let (gate, agents) = (app.gate.clone(), app.agents.clone());
    let handler = move |request, conn| {
        let app = app.clone();
        async move { route(&app, request, conn).await }
    };
    let stopped = async move {
        // The sender lives as long as the process.
        let _ = stop.wait_for(|s| *s).await;
    };
    let open = match tls {
        None => sag_http::serve(gate, listener, Plain, handler, stopped).await,
        Some(tls) => sag_http::serve(gate, listener, tls, handler, stopped).await,
    };
    agents.stopping.send_replace(true);
    if tokio::time::timeout(STOP_TIMEOUT, open.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
    Ok(())
}

/// Removes what has expired, now and then.
pub async fn clean(app: Arc<App>) {
    loop {
        let now = now_ms();
        app.nonces.sweep(now);
        app.limiter.sweep(Instant::now());
        app.refusals.sweep(Instant::now());
        if let Err(error) = app.store.remove_expired(now).await {
            tracing::warn!(%error, "cannot remove what has expired");
        }
        match app.store.prune_audit(&app.settings.retention, now).await {
            Ok(0) => {}
            Ok(entries) => tracing::info!(entries, "old entries of the audit log removed"),
            Err(error) => tracing::warn!(%error, "cannot remove old entries of the audit log"),
        }
        tokio::time::sleep(CLEAN_EVERY).await;
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut r = Response::new(Full::new(text.into()));
    *r.status_mut() = status;
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    r
}

async fn route(app: &Arc<App>, req: Request<Incoming>, conn: Conn) -> Response<Full<Bytes>> {
    let (parts, body) = req.into_parts();
    let request_id = call::request_id(app);
    let mut response = match (&parts.method, parts.uri.path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => return plain(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            let stopping = *app.agents.stopping.borrow();
            return if app.store.ready().await && !stopping {
                plain(StatusCode::OK, "ready\n")
            } else {
                plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            };
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let text = app.scraped.get(|| Bytes::from(app.metrics.text()));
            return plain(StatusCode::OK, text);
        }
        (&Method::GET | &Method::POST, "/") => api(app, &parts, body, conn, request_id).await,
        (&Method::OPTIONS, "/") if app.settings.origins.any() => Response::default(),
        (_, path @ ("/" | "/healthz" | "/readyz" | "/metrics")) => {
            let allowed = if path == "/" { "GET, POST" } else { "GET, HEAD" };
            let message = format!("The method of a request to {path} is one of: {allowed}.");
            let mut r =
                refuse(app, &parts, request_id, &ApiError::new(405, "UnsupportedHTTPMethod", message));
            r.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            r
        }
        _ => {
            let error = ApiError::new(404, "InvalidPath.NotFound", "The API has one path, which is /.");
            refuse(app, &parts, request_id, &error)
        }
    };
    app.settings.origins.mark(&parts, &mut response);
    response
}

/// A call of the API.
async fn api(
    app: &Arc<App>,
    parts: &Parts,
    body: Incoming,
    conn: Conn,
    request_id: String,
) -> Response<Full<Bytes>> {
    let start = Instant::now();
    let body = match conn.read(body, app.settings.max_body).await {
        Ok(body) => body,
        Err(refused) => {
            let mut r = refuse(app, parts, request_id, &unread(refused, app.settings.max_body));
            // What is left of the body would be taken for the next request.
            r.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return r;
        }
    };
    let peer = conn.peer;
    let host = header(&parts.headers, "host").unwrap_or_default();
    let content = match content(app, parts, &body, &conn).await {
        Ok(content) => content,
        Err(error) => return refuse(app, parts, request_id, &error),
    };
    let origin = call::Origin { request_id: &request_id, peer, host };
    let sent = call::Sent { bytes: &body, content: content.as_deref().unwrap_or(&*body) };
    let reply = call::call(app, parts, sent, origin).await;
    count(app, &reply, start.elapsed());
    let elapsed = start.elapsed();
    if reply.signed || app.strangers.allow(Instant::now()) {
        tracing::info!(
            request_id = reply.request_id,
            %peer,
            action = short(&reply.action),
            status = reply.status,
            code = reply.code,
            millis = elapsed.as_secs_f64() * 1000.0,
            "call"
        );
    }
    // Secrets in the configuration of a device are not to be guessed from its compressed length.
    let accepts = (!south::is_action(&reply.action)).then_some(&parts.headers);
    answer(reply, accepts)
}

/// What a compressed body stands for; none: it is not compressed.
async fn content(app: &App, parts: &Parts, body: &[u8], conn: &Conn) -> Result<Option<Body>, ApiError> {
    let coding = header(&parts.headers, "content-encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let most = app.settings.max_body;
    match coding.as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => conn.inflate(body, most).await.map(Some).map_err(|e| match e {
            BodyError::Broken => ApiError::new(400, "InvalidRequest.Body", "The body is not gzip."),
            other => unread(other, most),
        }),
        _ => Err(ApiError::new(
            415,
            "UnsupportedContentEncoding",
            "The body may be compressed with gzip alone.",
        )),
    }
}

/// What the metrics get of a call.
fn count(app: &App, reply: &Reply, elapsed: Duration) {
    let known = Op::by_name(&reply.action).is_some() || south::is_action(&reply.action);
    let action = if known { reply.action.clone() } else { "other".to_owned() };
    app.metrics.calls.get_or_create(&Call { action, code: reply.code.clone() }).inc();
    if reply.action != south::PULL && !elapsed.is_zero() {
        app.metrics.seconds.observe(elapsed.as_secs_f64());
    }
}

/// Why a body could not be read, in the form of the API.
fn unread(why: BodyError, most: usize) -> ApiError {
    match why {
        BodyError::TooLarge => {
            ApiError::new(413, "RequestTooLarge", format!("The body has more than {most} bytes."))
        }
        BodyError::TooSlow => ApiError::new(408, "RequestTimeout", "The body came too slowly."),
        BodyError::Broken => ApiError::new(400, "InvalidRequest.Body", "The body is broken off."),
        BodyError::Busy => ApiError::new(503, "ServiceUnavailable", "Too much is in progress; try again.")
            .with_retry_after(1000),
    }
}

/// The answer to what is no call of the API.
fn refuse(app: &App, parts: &Parts, request_id: String, error: &ApiError) -> Response<Full<Bytes>> {
    let host = header(&parts.headers, "host").unwrap_or_default();
    let reply = Reply::refusal(error, request_id, host);
    count(app, &reply, Duration::ZERO);
    answer(reply, None)
}

/// The beginning of a text that somebody else made up.
fn short(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| &text[..end])
}

/// With the headers of a request that accepts gzip the answer is compressed.
fn answer(reply: Reply, accepts: Option<&HeaderMap>) -> Response<Full<Bytes>> {
    let (text, kind) = if reply.xml {
        // What was written here is JSON.
        let value = serde_json::from_str(&reply.body).unwrap_or_default();
        (xml::document(&reply.root, &value), "text/xml;charset=utf-8")
    } else {
        (reply.body, "application/json;charset=utf-8")
    };
    let small = accepts.and_then(|headers| sag_http::deflate(headers, text.as_bytes()));
    let compressed = small.is_some();
    let mut r = Response::new(Full::new(small.map_or_else(|| Bytes::from(text), Bytes::from)));
    if accepts.is_some() {
        r.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if compressed {
        r.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    *r.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(id) = HeaderValue::from_str(&reply.request_id) {
        r.headers_mut().insert("x-acs-request-id", id);
    }
    if let Some(ms) = reply.retry_after_ms {
        // The header of HTTP counts seconds, that of the vendor's SDKs milliseconds.
        r.headers_mut().insert(RETRY_AFTER, ms.div_ceil(1000).into());
        r.headers_mut().insert("x-acs-retry-after", ms.into());
    }
    r
}

/// TLS with the server's certificate.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Accept for Tls {
    type Stream = TlsStream<TcpStream>;
    const PLAIN: bool = false;

    async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

impl Tls {
    /// From a certificate chain and a key in PEM files.
    pub fn load(cert: &str, key: &str) -> anyhow::Result<Tls> {
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::pem::PemObject as _;
        use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain = CertificateDer::pem_file_iter(cert)
            .with_context(|| format!("cannot read {cert}"))?
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("cannot parse {cert}"))?;
        let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read {key}"))?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .context("certificate and key do not fit")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }
}
