//! One call: who asks, may he, is it well formed, do it, write it down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::http::request::Parts;
use serde_json::{Value, json};

use super::{App, Body, Reply};
use crate::api::validate::validate;
use crate::api::{Node, Op, PRODUCT_VERSION};
use crate::args;
use crate::ops::cx::Cx;
use crate::ops::{self, regions};
use crate::proto::error::{ApiError, Result};
use crate::proto::nonce;
use crate::proto::params::Params;
use crate::proto::policy;
use crate::proto::sign::{self, Claim, WINDOW_MS};
use crate::proto::time::now_ms;
use crate::south;
use crate::store::Tx;
use crate::store::accounts::Caller;
use crate::store::secrets::HEX;

/// How often a transaction that lost against another one is run again.
const ATTEMPTS: usize = 8;

pub async fn call(app: &Arc<App>, parts: &Parts, body: &[u8], peer: SocketAddr) -> Reply {
    let request_id = request_id(app);
    let mut query = Params::default();
    let mut action = String::new();
    let mut xml = false;
    let outcome = async {
        query.parse_into(parts.uri.query().unwrap_or_default())?;
        let mut params = query.clone();
        if is_form(parts) {
            let text = std::str::from_utf8(body)
                .map_err(|_| ApiError::new(400, "InvalidParameter", "The form body is not valid UTF-8."))?;
            params.parse_into(text)?;
        }
        xml = match params.get("Format") {
            Some(f) if f.eq_ignore_ascii_case("XML") => true,
            Some(f) if !f.eq_ignore_ascii_case("JSON") => {
                return Err(ApiError::new(400, "InvalidParameter.Format", "Format is JSON or XML."));
            }
            _ => false,
        };
        let request = sign::Request {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            headers: &parts.headers,
            query: &query,
            params: &params,
            body,
        };
        let claim = Claim::read(&request, now_ms())?;
        action = claim.action.clone();
        let caller = authenticate(app, &claim).await?;
        dispatch(app, &claim, caller, params, &request_id, peer).await
    }
    .await;
    let host = sign::header(&parts.headers, "host").unwrap_or_default();
    let (status, code, body, root) = match outcome {
        Ok((form, mut answer)) => {
            // One operation has the field with a small letter too; what an operation does not have is left out.
            for name in ["RequestId", "requestId"].iter().take(if form.is_some() { 2 } else { 1 }) {
                answer[*name] = request_id.as_str().into();
            }
            (200, "OK".to_owned(), Body { form, answer }, format!("{action}Response"))
        }
        Err(e) => {
            let answer = e.envelope(&request_id, host);
            (e.status, e.code.to_string(), Body { form: None, answer }, "Error".to_owned())
        }
    };
    Reply { status, action, code, body, root, xml, request_id }
}

fn request_id(app: &App) -> String {
    let hex = app.store.cipher.token(HEX, 32).unwrap_or_else(|_| "0".repeat(32));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn is_form(parts: &Parts) -> bool {
    sign::header(&parts.headers, "content-type")
        .is_some_and(|t| t.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"))
}

async fn authenticate(app: &App, claim: &Claim) -> Result<Arc<Caller>> {
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
        .with_hint("Send fewer requests a second, or try again later."));
    }
    let kept = 2 * WINDOW_MS;
    if claim.nonce.len() > 128 || !app.nonces.first_use(&claim.key_id, &claim.nonce, now_ms(), kept) {
        return Err(nonce::used());
    }
    Ok(caller)
}

async fn dispatch(
    app: &Arc<App>,
    claim: &Claim,
    caller: Arc<Caller>,
    mut params: Params,
    request_id: &str,
    peer: SocketAddr,
) -> Result<(Option<&'static Node>, Value)> {
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
    if !caller.user.is_empty() {
        let resources = policy::resources(op, &params);
        if !policy::allows(&caller.policies, caller.uid, &claim.action, &resources) {
            return Err(forbidden(op));
        }
    }
    let nonce = (claim.key_id.as_str(), claim.nonce.as_str());
    let Some(op) = op else {
        return Ok((None, south::call(app, &claim.action, caller, params, nonce).await?));
    };
    validate(op, &mut params)?;
    if params.get("RegionId").is_some_and(|r| !regions::known(r)) {
        return Err(crate::api::validate::invalid(op, "RegionId"));
    }
    let mut attempt = 1;
    let result = loop {
        match run(app, op, nonce, caller.clone(), params.clone(), request_id, peer).await {
            Err(e) if e.retry && attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(std::time::Duration::from_millis(5 * attempt as u64)).await;
            }
            other => break other,
        }
    };
    if let (Err(e), false) = (&result, op.reads()) {
        let entry = Audit { op, caller: &caller, params: &params, request_id, peer, code: &e.code };
        if let Err(cause) = entry.write_alone(app).await {
            tracing::warn!(request_id, cause = %cause.message, "cannot write the audit log");
        }
    }
    result.map(|answer| (Some(&op.spec().response), answer))
}

fn forbidden(op: Option<Op>) -> ApiError {
    let spec = op.and_then(|o| o.error("Forbbiden.SubUser").or_else(|| o.error("Forbidden")));
    match spec.or_else(|| crate::api::any_error("Forbidden")) {
        Some(e) => ApiError::documented(e),
        None => ApiError::new(403, "Forbidden", "User not authorized."),
    }
    .with_hint("The policies of this user do not allow the action on the resource.")
}

/// The whole call in one transaction: all of it happens, or nothing.
async fn run(
    app: &Arc<App>,
    op: Op,
    nonce: (&str, &str),
    caller: Arc<Caller>,
    params: Params,
    request_id: &str,
    peer: SocketAddr,
) -> Result<Value> {
    let store = &app.store;
    let cipher = store.cipher.clone();
    if op.reads() {
        let mut tx = store.read().await?;
        if store.shared() {
            nonce::keep(&mut tx, nonce).await?;
        }
        let mut cx = Cx::new(op, params, caller, cipher, tx);
        let answer = ops::call(op, &mut cx).await;
        // The nonce of a refused call stays used too.
        cx.into_parts().0.commit().await?;
        return answer;
    }
    let tx = store.write().await?;
    let mut cx = Cx::new(op, params, caller.clone(), cipher, tx);
    let done = change(op, nonce, &mut cx, &caller, request_id, peer).await;
    let done = match done {
        Ok(_) if cx.flag("DryRun") == Some(true) => Err(ApiError::new(
            400,
            "DryRunOperation",
            "The request would have been carried out without the DryRun parameter.",
        )),
        done => done,
    };
    app.conclude(cx, done).await
}

impl App {
    /// Keeps what a call has done and wakes who waits for it; of a failed one nothing stays.
    pub async fn conclude(&self, cx: Cx, done: Result<Value>) -> Result<Value> {
        let (tx, changed) = cx.into_parts();
        match done {
            Ok(answer) => {
                tx.commit().await?;
                self.hub.wake(&changed);
                Ok(answer)
            }
            Err(e) => {
                tx.rollback().await?;
                Err(e)
            }
        }
    }
}

async fn change(
    op: Op,
    nonce: (&str, &str),
    cx: &mut Cx,
    caller: &Caller,
    request_id: &str,
    peer: SocketAddr,
) -> Result<Value> {
    nonce::keep(cx.conn(), nonce).await?;
    let token = cx.opt("ClientToken");
    if let Some(token) = &token {
        let sql = "SELECT answer FROM client_tokens WHERE uid = $1 AND action = $2 AND token = $3";
        let uid = cx.uid();
        if let Some(stored) = cx.conn().row(sql, args![uid, op.name(), token.as_str()]).await? {
            return Ok(serde_json::from_str(stored.text(0)?)?);
        }
    }
    let answer = ops::call(op, cx).await?;
    if let Some(token) = token {
        let (uid, expires) = (cx.uid(), cx.now + 24 * 3_600_000);
        sqlx::query(
            "INSERT INTO client_tokens (uid, action, token, answer, expires)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(uid)
        .bind(op.name())
        .bind(token)
        .bind(answer.to_string())
        .bind(expires)
        .execute(cx.conn().writer()?)
        .await?;
    }
    let params = cx.params.clone();
    let entry = Audit { op, caller, params: &params, request_id, peer, code: "OK" };
    entry.write(cx.conn()).await?;
    Ok(answer)
}

struct Audit<'a> {
    op: Op,
    caller: &'a Caller,
    params: &'a Params,
    request_id: &'a str,
    peer: SocketAddr,
    code: &'a str,
}

impl Audit<'_> {
    async fn write(&self, tx: &mut Tx) -> Result<()> {
        let mut params = json!({});
        for (k, v) in self.params.iter().filter(|(k, _)| !k.starts_with("Signature")) {
            let secret = ["Password", "Md5Key", "SecretKey"].contains(&k);
            params[k] = if secret { "****".into() } else { v.into() };
        }
        sqlx::query(
            "INSERT INTO audit
                 (request_id, at, uid, user_name, key_id, source, action, params, code)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(self.request_id.to_owned())
        .bind(now_ms())
        .bind(self.caller.uid)
        .bind(self.caller.user.clone())
        .bind(self.caller.key_id.clone())
        .bind(self.peer.ip().to_string())
        .bind(self.op.name())
        .bind(params.to_string())
        .bind(self.code.to_owned())
        .execute(tx.writer()?)
        .await?;
        Ok(())
    }

    /// For a refused call, whose own transaction is gone.
    async fn write_alone(&self, app: &App) -> Result<()> {
        let mut tx = app.store.write().await?;
        self.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }
}
