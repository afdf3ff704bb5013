//! One call: who makes it, is it allowed, is it well formed, carry it out, write it down.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::http::request::Parts;
use serde_json::Value;

use super::audit::Entry;
use super::body;
use super::nonces::Nonce;
use super::server::{App, Reply};
use super::sign::{self, Claim};
use crate::api::params::Params;
use crate::api::validate::{parse_bool, validate};
use crate::api::{Op, PRODUCT_VERSION};
use crate::domain::access::Access;
use crate::domain::caller::Caller;
use crate::domain::policy::Context;
use crate::domain::regions;
use crate::error::{ApiError, Result};
use crate::ops;
use crate::ops::cx::{Cx, Finished};
use crate::repeated;
use crate::south;
use crate::store::nonces::{self, SignedNonce};
use crate::store::secrets::HEX;
use crate::store::{Tx, tokens};
use crate::time::now_ms;

/// Characters of a nonce; the documents show those of a UUID.
const LONGEST_NONCE: usize = 128;
/// When a key that sends too much may send again: its bucket is full after a second.
const RETRY_AFTER_MS: u64 = 1000;

/// The body of a request.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    /// As it came, which is what a signature covers.
    pub bytes: &'a [u8],
    /// Decompressed.
    pub content: &'a [u8],
}

pub async fn call(app: &Arc<App>, parts: &Parts, body: Sent<'_>, from: Origin<'_>) -> Reply {
    let request_id = from.request_id.to_owned();
    let mut query = Params::default();
    let mut action = String::new();
    let mut xml = false;
    let mut signed = false;
    let outcome = async {
        query.parse_into(parts.uri.query().unwrap_or_default())?;
        let mut params = query.clone();
        // Also where the body cannot be read, the answer has the form that the query names.
        xml = wants_xml(&params)?;
        params.merge(body::params(&parts.headers, body.content)?)?;
        xml = wants_xml(&params)?;
        let request = sign::Request {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            headers: &parts.headers,
            query: &query,
            params: &params,
            body: body.bytes,
        };
        let claim = Claim::read(&request, now_ms())?;
        action = claim.action.clone();
        let caller = authenticate(app, &claim, &mut signed).await?;
        dispatch(app, &claim, caller, params, from).await
    }
    .await;
    match outcome {
        Ok(body) => {
            let root = format!("{action}Response");
            let code = "OK".to_owned();
            Reply { status: 200, action, code, body, root, xml, request_id, signed, retry_after_ms: None }
        }
        Err(e) => Reply { action, xml, signed, ..Reply::refusal(&e, request_id, from.host) },
    }
}

/// Whether `Format` asks for XML.
fn wants_xml(params: &Params) -> Result<bool> {
    match params.get("Format") {
        Some(f) if f.eq_ignore_ascii_case("XML") => Ok(true),
        Some(f) if !f.eq_ignore_ascii_case("JSON") => {
            Err(ApiError::new(400, "InvalidParameter.Format", "Format is JSON or XML."))
        }
        _ => Ok(false),
    }
}

/// A new identifier, for a request of any kind.
pub fn request_id(app: &App) -> String {
    let hex = app.store.cipher.token(HEX, 32).unwrap_or_else(|_| "0".repeat(32));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

async fn authenticate(app: &App, claim: &Claim, signed: &mut bool) -> Result<Arc<Caller>> {
    let now = Instant::now();
    let caller = app.callers.get(&app.store, &claim.key_id, now).await.map_err(ApiError::internal)?;
    let Some(caller) = caller else {
        return Err(ApiError::new(
            404,
            "InvalidAccessKeyId.NotFound",
            "The specified AccessKeyId is not found.",
        ));
    };
    claim.verify(&caller.keys)?;
    *signed = true;
    if !caller.active {
        return Err(ApiError::new(
            403,
            "InvalidAccessKeyId.Inactive",
            "The specified AccessKeyId is disabled.",
        ));
    }
    if !app.limiter.allow(&claim.key_id, now) {
        return Err(ApiError::new(
            429,
            "Throttling.User",
            "The request was denied because this key sends too many requests.",
        )
        .with_retry_after(RETRY_AFTER_MS)
        .with_hint("Send fewer requests a second, or try again later."));
    }
    if claim.nonce.len() > LONGEST_NONCE {
        return Err(ApiError::new(
            400,
            "InvalidParameter.SignatureNonce",
            format!("The signature nonce has more than {LONGEST_NONCE} bytes."),
        ));
    }
    if claim.at_ms <= caller.nonce_floor {
        return Err(nonces::forgotten());
    }
    match app.nonces.note(&claim.key_id, &claim.nonce, claim.at_ms, now_ms()) {
        Nonce::New => Ok(caller),
        Nonce::Used => Err(nonces::used()),
        Nonce::Forgotten => Err(nonces::forgotten()),
    }
}

/// Which request it is, and from where.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub request_id: &'a str,
    pub peer: SocketAddr,
    /// Host and port that the client asked for.
    pub host: &'a str,
}

async fn dispatch(
    app: &Arc<App>,
    claim: &Claim,
    caller: Arc<Caller>,
    mut params: Params,
    origin: Origin<'_>,
) -> Result<String> {
    if claim.version != PRODUCT_VERSION {
        return Err(ApiError::new(
            400,
            "InvalidVersion",
            format!("The version of this API is {PRODUCT_VERSION}."),
        ));
    }
    let op = Op::by_name(&claim.action);
    if op.is_none() && !south::is_action(&claim.action) {
        return Err(ApiError::new(
            404,
            "InvalidAction.NotFound",
            "The specified action is not found; check its spelling and the version.",
        ));
    }
    let context = Context { source: origin.peer.ip(), now: now_ms() };
    let access = Access::new(&caller, (&claim.action, op), &context, params.get("RegionId"));
    let nonce = SignedNonce { key: &claim.key_id, nonce: &claim.nonce, at_ms: claim.at_ms };
    let Some(op) = op else {
        let mut answer =
            south::call(&app.agents, &claim.action, access?, params, (nonce, context.source)).await?;
        answer["RequestId"] = origin.request_id.into();
        return Ok(answer.to_string());
    };
    let mut resources = Vec::new();
    let result = match access {
        Err(refused) => Err(refused),
        Ok(access) => {
            validate(op, &mut params)?;
            if params.get("RegionId").is_some_and(|r| !regions::known(r)) {
                return Err(crate::api::validate::invalid(op, "RegionId"));
            }
            let call = Call { app, op, nonce, caller: &caller, access: &access, params: &params, origin };
            repeated!(call.run(&mut resources))
        }
    };
    if let (Err(e), false) = (&result, op.reads())
        && app.refusals.allow(&claim.key_id, Instant::now())
    {
        let Origin { request_id, peer, .. } = origin;
        let resources = &resources;
        let entry =
            Entry { op, caller: &caller, params: &params, resources, request_id, peer, code: &e.code };
        // The transaction of a refused call is gone.
        if let Err(cause) = entry.write_alone(&app.store).await {
            tracing::warn!(request_id, cause = %cause.message, "cannot write the audit log");
        }
    }
    let answer = result?;
    // What the device measures comes after the call has been carried out.
    if op == Op::ProbeAccessPointNetworkQuality {
        ops::probe_outcome(&app.store, &params).await?;
    }
    Ok(answer)
}

/// One attempt at a call.
#[derive(Clone, Copy)]
struct Call<'a> {
    app: &'a Arc<App>,
    op: Op,
    nonce: SignedNonce<'a>,
    caller: &'a Caller,
    access: &'a Access,
    params: &'a Params,
    origin: Origin<'a>,
}

impl Call<'_> {
    /// The whole call in one transaction: all of it happens, or nothing. `resources` are the names of the objects that a
    /// change was about, also if it was refused.
    async fn run(self, resources: &mut Vec<String>) -> Result<String> {
        let store = &self.app.store;
        if self.op.reads() {
            let mut tx = store.read().await?;
            if store.shared() {
                nonces::keep(&mut tx, self.nonce).await?;
            }
            let (tx, _, answer) = self.operate(tx, resources).await;
            // The nonce of a refused call stays used too.
            tx.commit().await?;
            return answer;
        }
        let mut tx = store.write().await?;
        nonces::keep(&mut tx, self.nonce).await?;
        if self.params.get("ClientToken").is_some_and(|t| t.len() > tokens::LONGEST) {
            return Err(crate::api::validate::invalid(self.op, "ClientToken"));
        }
        if let Some(token) = self.client_token()
            && let Some(stored) = tokens::get(&mut tx, self.caller.uid, self.op.name(), &token).await?
        {
            tx.commit().await?;
            if stored.request.is_some_and(|earlier| earlier != self.fingerprint()) {
                return Err(ApiError::new(
                    400,
                    "IdempotentParameterMismatch",
                    "The ClientToken was used before, in a request with other parameters.",
                )
                .with_hint("Send a new ClientToken with a new request."));
            }
            let answer: Value = serde_json::from_str(&stored.answer)?;
            return ops::shaped(self.op, answer, self.origin.request_id);
        }
        let (mut tx, changed, done) = self.operate(tx, resources).await;
        let done = match done {
            Ok(_) if self.params.get("DryRun").and_then(parse_bool) == Some(true) => Err(ApiError::new(
                400,
                "DryRunOperation",
                "The request would have been carried out without the DryRun parameter.",
            )),
            Ok(answer) => self.write_down(&mut tx, &answer, resources).await.map(|()| answer),
            refused => refused,
        };
        self.app.agents.conclude(tx, &changed, done).await
    }

    /// Carries the operation out.
    async fn operate(self, tx: Tx, resources: &mut Vec<String>) -> (Tx, BTreeSet<String>, Result<String>) {
        let cipher = self.app.store.cipher.clone();
        let mut cx = Cx::new(self.op, self.params.clone(), self.access.clone(), cipher, tx);
        self.origin.host.clone_into(&mut cx.host);
        let answer = ops::call(self.op, &mut cx, self.origin.request_id).await;
        let Finished { tx, changed, resources: seen } = cx.into_parts();
        *resources = seen;
        (tx, changed, answer)
    }

    /// The key under which the answer to a repeated call is found. Each user has his own: what was answered to another
    /// one may be about objects that he may not see.
    fn client_token(self) -> Option<String> {
        let token = self.params.get("ClientToken")?;
        let user = &self.caller.user;
        Some(if user.is_empty() { token.to_owned() } else { format!("{}:{user}:{token}", user.len()) })
    }

    /// What tells two requests with the same token apart: the documented parameters, under a key, since there may be
    /// passwords among them.
    fn fingerprint(self) -> String {
        let spec = self.op.spec();
        let documented = |name: &str| {
            let head = name.split('.').next().unwrap_or_default();
            spec.params.iter().any(|p| p.name.split('.').next() == Some(head)) && name != "ClientToken"
        };
        let mut text = String::new();
        for (name, value) in self.params.iter().filter(|(name, value)| documented(name) && !value.is_empty())
        {
            text.push_str(&format!("{}:{name}={}:{value};", name.len(), value.len()));
        }
        self.app.store.cipher.fingerprint(&text)
    }

    /// Keeps the answer for a repeated call, and writes the call into the audit log.
    async fn write_down(self, tx: &mut Tx, answer: &str, resources: &[String]) -> Result<()> {
        if let Some(token) = self.client_token() {
            let expires = now_ms() + 24 * 3_600_000;
            let stored = tokens::Stored { request: Some(self.fingerprint()), answer: answer.to_owned() };
            tokens::put(tx, self.caller.uid, self.op.name(), &token, &stored, expires).await?;
        }
        let Call { op, caller, params, origin: Origin { request_id, peer, .. }, .. } = self;
        Entry { op, caller, params, resources, request_id, peer, code: "OK" }.write(tx).await
    }
}

#[cfg(test)]
mod tests;
