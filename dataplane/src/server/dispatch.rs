//! From a line to its answer.

use super::{Handler, roles};
use sag_model::control::{self, Access, Envelope, Error, ErrorCode, Op, Outcome, Request, Response};
use serde::Serialize;

/// Longest answer. Listings have limits that keep them below it in all but absurd cases.
const MAX_ANSWER: usize = 64 << 20;
/// Longest error message; a parser may quote the request in it.
const MAX_MESSAGE: usize = 2000;

/// Appends the answer to one request line.
pub(super) fn answer(line: &[u8], access: Access, handler: &mut dyn Handler, out: &mut Vec<u8>) {
    match parse(line) {
        Ok(request) if request.op.access() > access => {
            let name = serde_json::from_slice::<Envelope>(line).unwrap_or_default().op;
            refuse(request.id, roles::refusal(&name), out);
        }
        Ok(request) => dispatch(request, handler, out),
        Err((id, error)) => refuse(id, error, out),
    }
}

/// Appends a refusal. `id` 0: that of the request could not be read.
pub(super) fn refuse(id: u64, mut error: Error, out: &mut Vec<u8>) {
    if error.message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|n| error.message.is_char_boundary(*n)).unwrap_or(0);
        error.message.truncate(end);
        error.message.push('…');
    }
    let response = Response::<()> { v: control::VERSION, id, outcome: Outcome::Err(error) };
    // Strings and numbers into a Vec: there is nothing that could fail.
    if serde_json::to_writer(&mut *out, &response).is_ok() {
        out.push(b'\n');
    }
}

/// Whether the start of a line is that of a request which may be long.
pub(super) fn carries_config(start: &[u8]) -> bool {
    let has = |word: &[u8]| start.windows(word.len()).any(|w| w == word);
    has(b"\"config-apply\"") || has(b"\"config-diff\"")
}

fn parse(line: &[u8]) -> Result<Request, (u64, Error)> {
    let bad = |e: &dyn std::fmt::Display| {
        let remedy = "docs/control.md describes the messages; a request is one JSON object on one line";
        Error::new(ErrorCode::BadRequest, format!("malformed request: {e}"), remedy)
    };
    // Serde reads an array as the fields in order; that is no form of ours.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err((0, bad(&"not a JSON object")));
    }
    let envelope: Envelope = serde_json::from_slice(line).map_err(|e| (0, bad(&e)))?;
    let Envelope { v, id, op } = envelope;
    if v != control::VERSION {
        let text = format!("request of version {v}, this gateway speaks version {}", control::VERSION);
        return Err((
            id,
            Error::new(ErrorCode::VersionMismatch, text, "use the sagctl that came with sag-vcpe"),
        ));
    }
    if !Op::NAMES.contains(&op.as_str()) {
        let text = format!("unknown operation {op:?}");
        let remedy = format!("operations are {}", Op::NAMES.join(", "));
        return Err((id, Error::new(ErrorCode::UnknownOp, text, remedy)));
    }
    serde_json::from_slice(line).map_err(|e| (id, bad(&e)))
}

fn dispatch(request: Request, h: &mut dyn Handler, out: &mut Vec<u8>) {
    let id = request.id;
    match request.op {
        Op::Status => reply(id, h.status(), out),
        Op::Ports => reply(id, h.ports(), out),
        Op::Drops => reply(id, h.drops(), out),
        Op::Acl(q) => reply(id, h.acl(&q), out),
        Op::Routes(q) => reply(id, h.routes(&q), out),
        Op::Sessions(q) => reply(id, h.sessions(&q), out),
        Op::SessionsFlush(q) if q.filter.is_empty() && !q.all => {
            let text = "sessions-flush without a filter";
            refuse(id, Error::new(ErrorCode::BadRequest, text, "set all to flush every session"), out);
        }
        Op::SessionsFlush(q) => reply(id, h.sessions_flush(&q.filter), out),
        Op::Top(q) => reply(id, h.top(&q), out),
        Op::Explain(q) => reply(id, h.explain(&q), out),
        Op::Nat => reply(id, h.nat(), out),
        Op::NatBindings(q) => reply(id, h.nat_bindings(&q), out),
        Op::NatMappings => reply(id, h.nat_mappings(), out),
        Op::Qos => reply(id, h.qos(), out),
        Op::TunnelsRekey(q) => reply(id, h.tunnels_rekey(&q), out),
        Op::TunnelsConfirm(q) => reply(id, h.tunnels_confirm(&q), out),
        Op::TunnelsKey(q) => reply(id, h.tunnels_key(&q), out),
        Op::TunnelsPeers(q) => reply(id, h.tunnels_peers(&q), out),
        Op::Tunnels => reply(id, h.tunnels(), out),
        Op::Ha(q) => reply(id, h.ha(&q), out),
        Op::ConfigShow => reply(id, h.config_show(), out),
        Op::ConfigApply(c) => reply(id, h.config_apply(&c.text, &c.name), out),
        Op::ConfigDiff(c) => reply(id, h.config_diff(&c.text, &c.name), out),
        Op::ConfigDeviations(d) => reply(id, h.config_deviations(d), out),
        Op::Reload => reply(id, h.reload(), out),
    }
}

fn reply<T: Serialize>(id: u64, result: Result<T, Error>, out: &mut Vec<u8>) {
    let value = match result {
        Ok(value) => value,
        Err(e) => return refuse(id, e, out),
    };
    let before = out.len();
    let written = serde_json::to_writer(&mut *out, &Response::new(id, Ok(value)));
    if let Err(e) = written {
        out.truncate(before);
        refuse(id, Error::internal(format!("the answer cannot be written as JSON: {e}")), out);
    } else if out.len() - before > MAX_ANSWER {
        let text = format!("answer of {} bytes, the limit is {MAX_ANSWER}", out.len() - before);
        out.truncate(before);
        refuse(id, Error::new(ErrorCode::TooLarge, text, "ask for less with a filter or limit"), out);
    } else {
        out.push(b'\n');
    }
}
