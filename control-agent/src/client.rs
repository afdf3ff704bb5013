//! One signed call after the other to the cloud API.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use sag_southbound::{Parameters, Wire};
use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::clock::{Offset, rfc3339};
use crate::config::{AccessKey, Config, is_local};
use crate::sign::{Request, authorization, hash_hex, pairs};

const VERSION: &str = "2018-03-13";
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an answer, beyond the time that the server may wait.
const ANSWER: Duration = Duration::from_secs(15);
/// The largest answer that is read. The configuration of a device with all quotas used up has a tenth of it.
const MAX_ANSWER: u64 = 16 << 20;
/// Values in an answer: each takes some hundred bytes in memory, also where it has two in the text.
const MAX_VALUES: usize = 500_000;

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

    /// The operation exists and has nothing to say about this device at the moment.
    pub fn not_now(&self) -> bool {
        [
            "SmartAccessGatewayNotOnline",
            "SmartAccessGatewayOffline",
            "FeatureNotSupport",
            "MissingSmartAGSn",
            "ConfigUnsynchronized",
        ]
        .contains(&self.code())
    }

    fn wrong_time(&self) -> bool {
        self.code().starts_with("InvalidTimeStamp")
    }
}

pub type Result<T> = std::result::Result<T, CallError>;

/// Parameters as [`Client::call`] takes them.
/// The address of an endpoint that is not a name.
pub fn address_of(endpoint: &str) -> Option<Ipv4Addr> {
    let (_, authority) = endpoint.split_once("://")?;
    authority.split(':').next()?.parse().ok()
}

pub fn borrowed(parameters: &Parameters) -> Vec<(&str, &str)> {
    parameters.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

pub struct Client {
    http: ureq::Agent,
    endpoint: String,
    /// As the header `Host` has it.
    host: String,
    key: AccessKey,
    region: String,
    /// For an answer, beyond the time that the server may wait: all of it, however slowly it comes.
    patience: Duration,
    pub clock: Offset,
    /// When the cloud last did what it was called for.
    heard: Arc<Mutex<Instant>>,
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
            patience: ANSWER,
            clock: Offset::default(),
            heard: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// Since when there has been no contact with the cloud; at first since the start.
    pub fn heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same client with no connection open.
    pub fn reconnected(&self, config: &Config) -> anyhow::Result<Client> {
        Ok(Client { clock: self.clock.copy(), heard: self.heard.clone(), ..Client::new(config)? })
    }

    /// Parameters of `query` are part of the address, those of `form` of the body.
    ///
    /// # Errors
    /// The server refuses, does not answer, or answers something that is not a `T`.
    pub fn call<T: Wire>(
        &self,
        action: &str,
        query: &[(&str, &str)],
        form: &[(&str, &str)],
        wait: Duration,
    ) -> Result<T> {
        let answer = match self.once(action, query, form, wait) {
            // The refusal had the server's time.
            Err(e) if e.wrong_time() => self.once(action, query, form, wait)?,
            other => other?,
        };
        T::from_json(answer).map_err(|e| CallError::Transport(format!("{action}: the answer's {e}")))
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
        let (hash, date, nonce) = (hash_hex(body.as_bytes()), timestamp(self.clock.now())?, nonce()?);
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
            .timeout_global(Some(wait + self.patience))
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
        let value = parse(text).map_err(|problem| {
            CallError::Transport(format!(
                "{action}: status {status} and {problem}; is {} the API?",
                self.endpoint
            ))
        })?;
        if (200..300).contains(&status) {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(value);
        }
        let word = |f: &str| value[f].as_str().unwrap_or_default().chars().take(500).collect::<String>();
        Err(CallError::Api { status, code: word("Code"), message: word("Message") })
    }
}

/// Reads JSON that does not become much larger in memory than it is. Nesting is bounded by the parser (128).
fn parse(text: String) -> std::result::Result<Value, String> {
    // Before each value but the first is one of these. Commas in texts count too: lists may come as words in one text.
    let values = text.bytes().filter(|b| matches!(b, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES {
        return Err(format!("{values} values, which are more than {MAX_VALUES}"));
    }
    serde_json::from_str(&text).map_err(|_| "no JSON".to_owned())
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

fn timestamp(unix: i64) -> Result<String> {
    rfc3339(unix).ok_or_else(|| CallError::Transport("the clock shows no time".into()))
}

fn nonce() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CallError::Transport("no random numbers".into()))?;
    Ok(hex::encode(bytes))
}

fn explain(e: &ureq::Error) -> String {
    let text = e.to_string();
    if text.contains("certificate") || text.contains("UnknownIssuer") {
        return format!("TLS: {text}; name the issuer's certificate with ca_file, or correct the endpoint");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::SystemTime;

    fn client(port: u16) -> Client {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("agent.toml");
        let text = format!(
            "endpoint = \"127.0.0.1:{port}\"\nregion_id = \"r\"\nsmart_ag_id = \"s\"\nsmart_ag_sn = \"n\"\n"
        );
        std::fs::write(&file, text).expect("written");
        Client::new(&Config::load(&file, |_| Some("key".into())).expect("config")).expect("client")
    }

    /// A server that gives these answers, one a connection, and returns the requests.
    fn server(answers: Vec<(u16, &'static str, SystemTime)>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("address").port();
        let work = move || {
            let mut requests = Vec::new();
            for (status, body, date) in answers {
                let (mut stream, _) = listener.accept().expect("client");
                let (mut text, mut buf) = (String::new(), [0; 4096]);
                while !text.contains("\r\n\r\n") {
                    let n = stream.read(&mut buf).expect("request");
                    text.push_str(&String::from_utf8_lossy(&buf[..n]));
                }
                requests.push(text);
                let date = httpdate::fmt_http_date(date);
                let head = format!(
                    "HTTP/1.1 {status} X\r\nDate: {date}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                // Who has seen enough hangs up.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
            requests
        };
        (port, std::thread::spawn(work))
    }

    #[test]
    fn a_wrong_clock_is_corrected_by_the_refusal() {
        let ahead = SystemTime::now() + Duration::from_secs(3 * 86_400);
        let refusal = r#"{"Code":"InvalidTimeStamp.Expired","Message":"no"}"#;
        let (port, server) = server(vec![(400, refusal, ahead), (200, r#"{"Revision":4}"#, ahead)]);
        let c = client(port);
        let v: Value =
            c.call("PullSmartAGConfig", &[("Wait", "0")], &[], Duration::ZERO).expect("second try");
        assert_eq!(v["Revision"], 4);
        let requests = server.join().expect("server");
        let date = |r: &str| {
            r.lines().find_map(|l| l.strip_prefix("x-acs-date: ").map(str::to_owned)).expect("date")
        };
        let later = rfc3339(crate::clock::unix_now() + 3 * 86_400).expect("a time");
        assert_ne!(date(&requests[0])[..10], later[..10]);
        assert_eq!(date(&requests[1])[..10], later[..10]);
        // What is signed is what is sent, once.
        assert_eq!(requests[0].matches("\r\nhost: ").count(), 1, "{}", requests[0]);
    }

    #[test]
    fn hostile_answers_are_refused_in_time_and_within_bounds() {
        let now = SystemTime::now();
        let leak = |text: String| -> &'static str { text.leak() };
        let long = leak(format!(r#"{{"Revision":"{}"}}"#, "x".repeat(MAX_ANSWER as usize)));
        let dense = leak(format!("[{}]", vec!["0"; MAX_VALUES + 1].join(",")));
        let words = leak(format!(r#"{{"AclIds":"{}"}}"#, "a,".repeat(MAX_VALUES)));
        let deep = leak("[".repeat(100_000) + &"]".repeat(100_000));
        let (port, _server) = server(vec![
            (200, long, now),
            (200, dense, now),
            (200, words, now),
            (200, deep, now),
            (302, r#"{"Code":"Elsewhere"}"#, now),
        ]);
        let c = client(port);
        let fail =
            || c.call::<Value>("X", &[], &[], Duration::ZERO).map(drop).expect_err("refused").to_string();
        let said: Vec<String> = (0..5).map(|_| fail()).collect();
        assert!(said[1].contains("values") && said[2].contains("values"), "{said:?}");
        assert!(said[3].contains("no JSON") && said[4].contains("302"), "{said:?}");
        assert!(said.iter().all(|s| s.len() < 300), "{said:?}");
    }

    #[test]
    fn an_answer_has_so_much_time_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut c = client(listener.local_addr().expect("address").port());
        c.patience = Duration::from_millis(600);
        // A byte now and then would go on for ever.
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("client");
            let head = "HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n";
            for byte in head.bytes().chain(std::iter::repeat(b' ')) {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                if byte == b' ' {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        });
        let start = std::time::Instant::now();
        assert!(c.call::<Value>("X", &[], &[], Duration::ZERO).is_err());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn an_endpoint_may_be_an_address() {
        let address = |endpoint: &str| address_of(endpoint).map(|a| a.to_string()).unwrap_or_default();
        assert_eq!(address("http://192.0.2.9:8180"), "192.0.2.9");
        assert_eq!(address("https://192.0.2.9"), "192.0.2.9");
        for other in ["https://smartag.example.com", "https://[2001:db8::1]:443", "192.0.2.9"] {
            assert_eq!(address(other), "");
        }
    }

    #[test]
    fn refusals_and_strangers_are_distinguished() {
        let now = SystemTime::now();
        let (port, _server) = server(vec![
            (404, r#"{"Code":"InvalidAction.NotFound","Message":"no such action"}"#, now),
            (429, r#"{"Code":"Throttling.User","Message":"slow down"}"#, now),
            (200, "<html>", now),
        ]);
        let c = client(port);
        let fail = || c.call::<Value>("X", &[], &[], Duration::ZERO).expect_err("refused");
        let (unknown, slow, stranger) = (fail(), fail(), fail());
        assert!(unknown.unknown_action() && !unknown.throttled());
        assert!(slow.throttled() && !slow.unknown_action());
        assert!(
            matches!(stranger, CallError::Transport(ref t) if t.contains("is http://127.0.0.1")),
            "{stranger}"
        );
    }
}
