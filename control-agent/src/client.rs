//! One signed call after the other to the cloud API.

use std::path::Path;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::clock::{Offset, rfc3339};
use crate::config::{AccessKey, Config, is_local};
use crate::sign::{Request, authorization, hash_hex, hex, pairs};

const VERSION: &str = "2018-03-13";
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an answer, beyond what the server was asked to wait.
const ANSWER: Duration = Duration::from_secs(15);
/// The largest answer that is read.
const MAX_ANSWER: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server refused: a code of the API.
    #[error("{code} ({status}): {message}")]
    Api { status: u16, code: String, message: String },
    /// There was no answer of the API.
    #[error("{0}")]
    Transport(String),
}

impl CallError {
    fn code(&self) -> &str {
        match self {
            CallError::Api { code, .. } => code,
            CallError::Transport(_) => "",
        }
    }

    /// The endpoint does not have the operation.
    pub fn unknown_action(&self) -> bool {
        ["InvalidAction.NotFound", "InvalidApi.NotFound", "InvalidAction", "UnsupportedOperation"]
            .contains(&self.code())
    }

    pub fn throttled(&self) -> bool {
        self.code().starts_with("Throttling") || matches!(self, CallError::Api { status: 429 | 503, .. })
    }

    /// The operation exists and has nothing to tell about this device at the moment.
    pub fn not_now(&self) -> bool {
        ["SmartAccessGatewayNotOnline", "SmartAccessGatewayOffline", "FeatureNotSupport", "MissingSmartAGSn"]
            .contains(&self.code())
    }

    fn wrong_time(&self) -> bool {
        self.code().starts_with("InvalidTimeStamp")
    }
}

pub type Result<T> = std::result::Result<T, CallError>;

pub struct Client {
    http: ureq::Agent,
    endpoint: String,
    /// As the header `Host` has it.
    host: String,
    key: AccessKey,
    region: String,
    pub clock: Offset,
}

impl Client {
    pub fn new(config: &Config) -> anyhow::Result<Client> {
        let authority = config.endpoint.split_once("://").map_or("", |(_, a)| a);
        let tls = match &config.ca_file {
            Some(file) => TlsConfig::builder().root_certs(roots(file)?).build(),
            None => TlsConfig::builder().root_certs(RootCerts::WebPki).build(),
        };
        let mut http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .user_agent(format!("sag-agent/{}", crate::VERSION))
            .tls_config(tls);
        if is_local(authority) {
            http = http.proxy(None);
        }
        let secure = config.endpoint.starts_with("https://");
        let standard = if secure { ":443" } else { ":80" };
        Ok(Client {
            http: http.build().new_agent(),
            endpoint: config.endpoint.clone(),
            host: authority.strip_suffix(standard).unwrap_or(authority).to_owned(),
            key: config.key.clone(),
            region: config.region_id.clone(),
            clock: Offset::default(),
        })
    }

    /// The same client with no connection open.
    pub fn afresh(&self, config: &Config) -> anyhow::Result<Client> {
        Ok(Client { clock: self.clock.copy(), ..Client::new(config)? })
    }

    /// Parameters of `query` are part of the address, those of `form` of the body.
    pub fn call(
        &self,
        action: &str,
        query: &[(&str, &str)],
        form: &[(&str, &str)],
        wait: Duration,
    ) -> Result<Value> {
        match self.once(action, query, form, wait) {
            // The refusal had the server's time.
            Err(e) if e.wrong_time() => self.once(action, query, form, wait),
            other => other,
        }
    }

    fn once(
        &self,
        action: &str,
        query: &[(&str, &str)],
        form: &[(&str, &str)],
        wait: Duration,
    ) -> Result<Value> {
        let mut query = query.to_vec();
        query.push(("RegionId", &self.region));
        let query = pairs(&query);
        let body = pairs(form);
        let (hash, date, nonce) = (hash_hex(body.as_bytes()), rfc3339(self.clock.now()), nonce()?);
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", self.host.as_str()),
            ("x-acs-action", action),
            ("x-acs-content-sha256", hash.as_str()),
            ("x-acs-date", date.as_str()),
            ("x-acs-signature-nonce", nonce.as_str()),
            ("x-acs-version", VERSION),
        ];
        let request =
            Request { method: "POST", path: "/", query: &query, headers: &headers, body: body.as_bytes() };
        let mut call = self
            .http
            .post(format!("{}/?{query}", self.endpoint))
            .config()
            .timeout_global(Some(wait + ANSWER))
            .build()
            .header("authorization", authorization(&request, &self.key.id, &self.key.secret))
            .header("accept", "application/json");
        for (name, value) in headers {
            call = call.header(name, value);
        }
        let mut answer = call.send(body.as_bytes()).map_err(|e| CallError::Transport(explain(&e)))?;
        if let Some(date) = answer.headers().get("date").and_then(|d| d.to_str().ok()) {
            self.clock.learn(date);
        }
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .map_err(|e| CallError::Transport(format!("{action}: {}", explain(&e))))?;
        let value: Value = serde_json::from_str(&text).map_err(|_| {
            CallError::Transport(format!(
                "{action}: status {status} and no JSON; is {} the API?",
                self.endpoint
            ))
        })?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let word = |f: &str| value[f].as_str().unwrap_or_default().chars().take(500).collect::<String>();
        Err(CallError::Api { status, code: word("Code"), message: word("Message") })
    }
}

fn roots(file: &Path) -> anyhow::Result<RootCerts> {
    use anyhow::{Context, bail};
    let pem = std::fs::read(file).with_context(|| format!("ca_file {}", file.display()))?;
    let mut certs = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(c) =
            item.with_context(|| format!("ca_file {}: no PEM", file.display()))?
        {
            certs.push(c);
        }
    }
    if certs.is_empty() {
        bail!("ca_file {}: no certificate in it; it needs PEM blocks BEGIN CERTIFICATE", file.display());
    }
    Ok(RootCerts::new_with_certs(&certs))
}

fn nonce() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CallError::Transport("no random numbers".into()))?;
    Ok(hex(&bytes))
}

fn explain(e: &ureq::Error) -> String {
    let text = e.to_string();
    if text.contains("certificate") || text.contains("UnknownIssuer") {
        return format!("TLS: {text}; name the issuer's certificate with ca_file, or correct the endpoint");
    }
    text
}
