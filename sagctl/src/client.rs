//! Client of the control socket: one request, one answer.

use sag_model::control::{self, Op, Outcome, Request, Response};
use sag_text::{escape, escape_json, escape_lines};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Compiling a very large configuration takes seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any answer that a gateway sends.
const MAX_ANSWER: u64 = 256 << 20;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{message}")]
    Connection { message: String, remedy: String },
    #[error("{0}")]
    Refused(#[from] control::Error),
    #[error("the peer's sessions are not here yet")]
    NotReady,
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

impl Failure {
    fn connection(message: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure::Connection { message: message.into(), remedy: remedy.into() }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Refused(_) | Failure::NotReady => 1,
            Failure::Usage(_) | Failure::Connection { .. } | Failure::Output(_) => 2,
        }
    }

    /// What is written to standard error.
    pub fn report(&self) -> String {
        let remedy = match self {
            Failure::Connection { remedy, .. } => remedy,
            Failure::Refused(e) => &e.remedy,
            _ => "",
        };
        let (problem, remedy) = (self.to_string(), escape(remedy));
        // Those of a configuration stand on lines of their own.
        let problem = escape_lines(&problem);
        match &*remedy {
            "" => format!("sagctl: {problem}\n"),
            remedy => format!("sagctl: {problem}\n        {remedy}\n"),
        }
    }
}

#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    last_id: u64,
}

/// The `ok` of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer(Value);

impl Answer {
    /// What another program than the gateway has said.
    pub fn of(said: &impl Serialize) -> serde_json::Result<Answer> {
        serde_json::to_value(said).map(Answer)
    }

    /// The JSON of the gateway, indented.
    pub fn pretty(&self) -> String {
        escape_json(&format!("{:#}\n", self.0)).into_owned()
    }

    /// The answer for people. Texts in it come from configurations, the cloud and the network: they are made fit to be
    /// printed here, so that no table can forget it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Self::into_type(printable(self.0.clone()))
    }

    /// The answer with its texts as they are.
    pub fn read_verbatim<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Self::into_type(self.0.clone())
    }

    fn into_type<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
        T::deserialize(value).map_err(|e| {
            Failure::connection(
                format!("the gateway's answer is not what this sagctl expects: {e}"),
                "use the sagctl that came with sag-vcpe; --json shows the answer as it is",
            )
        })
    }
}

/// The value with every text in it on one line.
fn printable(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(match escape(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(escaped) => escaped,
        }),
        Value::Array(all) => all.into_iter().map(printable).collect(),
        Value::Object(map) => {
            map.into_iter().map(|(name, v)| (escape(&name).into_owned(), printable(v))).collect()
        }
        other => other,
    }
}

impl Client {
    pub fn connect(path: &Path) -> Result<Client, Failure> {
        let shown = path.display();
        let stream = UnixStream::connect(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Failure::connection(
                format!("no control socket at {shown}"),
                "start sag-vcpe, or name its socket (dataplane.control) with --socket or SAG_SOCKET",
            ),
            ErrorKind::ConnectionRefused => Failure::connection(
                format!("nobody answers on {shown}: sag-vcpe is not running"),
                "start sag-vcpe; established flows go on without it",
            ),
            ErrorKind::PermissionDenied => Failure::connection(
                format!("not allowed to connect to {shown}"),
                "run sagctl as root or as a member of the socket's group",
            ),
            _ => Failure::connection(format!("cannot connect to {shown}: {e}"), "check --socket"),
        })?;
        let timed = stream.set_read_timeout(Some(TIMEOUT)).and(stream.set_write_timeout(Some(TIMEOUT)));
        timed.map_err(|e| Failure::connection(format!("{shown}: {e}"), ""))?;
        Ok(Client { stream: BufReader::new(stream), path: path.to_owned(), last_id: 0 })
    }

    /// Sends a request and waits for the answer.
    pub fn call(&mut self, op: Op) -> Result<Answer, Failure> {
        self.last_id += 1;
        let id = self.last_id;
        let mut line =
            serde_json::to_string(&Request::new(id, op)).map_err(|e| Failure::Usage(e.to_string()))?;
        line.push('\n');
        // A gateway that refuses a request may answer and close before it has read it all.
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        let mut answer = Vec::new();
        let received = (&mut self.stream).take(MAX_ANSWER).read_until(b'\n', &mut answer);
        if let Err(e) = received.as_ref().and(sent.as_ref()) {
            if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                let text = format!("no answer on {} for {} seconds", self.path.display(), TIMEOUT.as_secs());
                return Err(Failure::connection(text, "see the log of sag-vcpe"));
            }
            if answer.is_empty() {
                return Err(self.gone(&e.to_string()));
            }
        }
        if answer.is_empty() {
            return Err(self.gone("it closed the connection"));
        }
        self.parse_answer(&answer, id)
    }

    fn gone(&self, why: &str) -> Failure {
        let text = format!("lost the gateway on {}: {why}", self.path.display());
        Failure::connection(text, "see the log of sag-vcpe")
    }

    fn parse_answer(&self, line: &[u8], id: u64) -> Result<Answer, Failure> {
        let unexpected = |what: &str| {
            let text = format!("{} is no control socket of sag-vcpe: {what}", self.path.display());
            Failure::connection(text, "check --socket")
        };
        let value: Value = serde_json::from_slice(line).map_err(|e| unexpected(&e.to_string()))?;
        let version =
            value.get("v").and_then(Value::as_u64).ok_or_else(|| unexpected("its answer has no version"))?;
        if version != u64::from(control::VERSION) {
            let text =
                format!("the gateway speaks version {version}, this sagctl version {}", control::VERSION);
            return Err(Failure::connection(text, "use the sagctl that came with sag-vcpe"));
        }
        let response: Response<Value> =
            serde_json::from_value(value).map_err(|e| unexpected(&e.to_string()))?;
        match response {
            // The gateway could not read the identifier.
            Response { id: 0, outcome: Outcome::Err(e), .. } => Err(e.into()),
            Response { id: other, .. } if other != id => Err(unexpected("it answered another request")),
            Response { outcome: Outcome::Err(e), .. } => Err(e.into()),
            Response { outcome: Outcome::Ok(value), .. } => Ok(Answer(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_of_an_answer_are_printable_wherever_they_stand() {
        let hostile = "a\nb\u{1b}[2J\u{202e}";
        let answer = Answer(json!({"list": [{"name": hostile, hostile: 1}], "n": 7}));
        let read: Value = answer.read().unwrap();
        let acts = |text: &str| text.contains(|c| sag_text::is_active(c) && c != '\n');
        assert_eq!(read["list"][0]["name"], r"a\nb\u{1b}[2J\u{202e}");
        assert!(read["list"][0].as_object().unwrap().keys().all(|k| !acts(k) && !k.contains('\n')));
        assert_eq!(answer.read_verbatim::<Value>().unwrap()["list"][0]["name"], hostile);
        let pretty = answer.pretty();
        assert!(!acts(&pretty));
        assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap(), answer.0);
        let refused = control::Error::new(control::ErrorCode::NotFound, hostile, hostile);
        assert!(!acts(&Failure::Refused(refused).report()));
    }
}
