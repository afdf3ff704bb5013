//! The southbound calls of agents (`sag_southbound`): an extension of the documented API, with the same signatures on
//! the same port.

pub mod config;
pub mod hub;

use std::sync::Arc;
use std::time::Duration;

use sag_southbound::{
    Action, Announcement, ClientAppReport, MAX_REPORT, ParameterError, PullAnswer, PullRequest, ReadError,
    ResultReport, StateReport, Wire, read,
};
use serde_json::{Value, json};

use crate::api::Op;
use crate::ops::app_stats;
use crate::ops::commands;
use crate::ops::cx::Cx;
use crate::ops::device::Device;
use crate::ops::device_fields::report_text;
use crate::ops::gateway::SOFTWARE;
use crate::proto::error::{ApiError, Result};
use crate::proto::nonce;
use crate::proto::params::Params;
use crate::proto::server::App;
use crate::proto::time::now_ms;
use crate::store::accounts::Caller;

/// The call that may wait.
pub const PULL: &str = Action::Pull.name();
const REPORT_STATE: &str = Action::ReportState.name();

pub fn is_action(name: &str) -> bool {
    Action::by_name(name).is_some()
}

pub async fn call(
    app: &Arc<App>,
    action: &str,
    caller: Arc<Caller>,
    params: Params,
    nonce: (&str, &str),
) -> Result<Value> {
    match action {
        PULL => pull(app, caller, params, nonce).await,
        _ => {
            let tx = app.store.write().await?;
            let mut cx = cx(app, caller, params, tx);
            let done = match nonce::keep(cx.conn(), nonce).await {
                Err(e) => Err(e),
                Ok(()) if action == REPORT_STATE => report_state(&mut cx).await,
                Ok(()) => report_result(&mut cx).await,
            };
            app.conclude(cx, done).await
        }
    }
}

/// Agents get the errors that are documented for questions about a device.
fn cx(app: &App, caller: Arc<Caller>, params: Params, tx: crate::store::Tx) -> Cx {
    Cx::new(Op::DescribeSAGDeviceInfo, params, caller, app.store.cipher.clone(), tx)
}

/// The whole configuration if it is newer than the agent's `Revision`; else waits for that.
async fn pull(app: &Arc<App>, caller: Arc<Caller>, params: Params, nonce: (&str, &str)) -> Result<Value> {
    let request =
        PullRequest::from_parameters(|name| params.get(name).map(str::to_owned)).map_err(parameter)?;
    let (have, sn) = (i64::try_from(request.revision).unwrap_or(i64::MAX), request.smart_ag_sn);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(request.wait);
    let mut stopping = app.stopping.subscribe();
    let _count = Polling::new(app);
    let mut first = true;
    loop {
        // Listening starts before looking, so no change falls in between.
        let waiter = app.hub.waiter(&sn);
        let woken = waiter.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let mut tx = app.store.read().await?;
        if first && app.store.shared() {
            nonce::keep(&mut tx, nonce).await?;
        }
        let mut cx = cx(app, caller.clone(), params.clone(), tx);
        let found = look(&mut cx, have).await;
        cx.into_parts().0.commit().await?;
        let answer = found?;
        if first {
            seen(app, &sn).await?;
            first = false;
        }
        if !answer.changed {
            tokio::select! {
                () = &mut woken => continue,
                () = tokio::time::sleep_until(deadline) => {}
                _ = stopping.wait_for(|s| *s) => {}
            }
        }
        return Ok(serde_json::to_value(answer)?);
    }
}

/// Counts a waiting agent for as long as it waits.
struct Polling<'a>(&'a App);

impl<'a> Polling<'a> {
    fn new(app: &'a App) -> Polling<'a> {
        app.metrics.polls.inc();
        Polling(app)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.metrics.polls.dec();
    }
}

fn bad(name: &str) -> ApiError {
    ApiError::new(400, "InvalidParameter", format!("The parameter {name} is missing or not allowed."))
}

fn parameter(e: ParameterError) -> ApiError {
    bad(e.0)
}

async fn look(cx: &mut Cx, have: i64) -> Result<PullAnswer> {
    let gw = cx.gateway().await?;
    let d = cx.device_on(&gw).await?;
    // A revision from the future is of another database: the agent starts over.
    if d.revision == have {
        return Ok(PullAnswer { revision: d.revision, changed: false, config: None });
    }
    let config = config::document(cx, &gw, &d, have).await?;
    Ok(PullAnswer { revision: d.revision, changed: true, config: Some(config) })
}

async fn seen(app: &App, sn: &str) -> Result<()> {
    let mut tx = app.store.write().await?;
    sqlx::query("UPDATE devices SET seen = $1 WHERE sn = $2")
        .bind(now_ms())
        .bind(sn.to_owned())
        .execute(tx.writer()?)
        .await?;
    Ok(tx.commit().await?)
}

/// The parameter `State`; an agent of a newer major version is refused.
fn reported<T: Wire>(cx: &Cx) -> Result<T> {
    let text = cx.text("State");
    let state = serde_json::from_str(&text).ok().filter(|_| text.len() <= MAX_REPORT);
    read(state.ok_or_else(|| bad("State"))?).map_err(|e| match e {
        ReadError::NewerMajor { .. } => ApiError::new(400, "UnsupportedProtocolVersion", e.to_string()),
        ReadError::Malformed(e) => {
            ApiError::new(400, "InvalidParameter", format!("The parameter State is not allowed: {e}."))
        }
    })
}

async fn report_state(cx: &mut Cx) -> Result<Value> {
    let id = cx.text("SmartAGId");
    let gw = cx.find(crate::ops::gateway::KIND, &id).await?;
    if gw.as_ref().is_some_and(|g| g.str("InstanceType") == SOFTWARE) {
        // The access point of a client-app instance reports its clients.
        let state: ClientAppReport = reported(cx)?;
        let body = serde_json::to_value(state)?.as_object().cloned().unwrap_or_default();
        let mut o = cx.object(app_stats::STATE, id.clone(), "SmartAGId", &id, body);
        o.name = id;
        cx.put(&o).await?;
        return Ok(json!({}));
    }
    let d = cx.device().await?;
    let state: StateReport = reported(cx)?;
    let before = Option::<Announcement>::from_json(d.report["Overlay"].clone()).ok().flatten();
    if state.overlay != before {
        // The other members of its network make their tunnels to the address with the key.
        for ccn in cx.links_from("ccn", &d.sag).await? {
            let mut others = cx.links_to("ccn", &ccn).await?;
            others.retain(|o| *o != d.sag);
            cx.touch_all(&others).await?;
        }
    }
    let now = cx.now;
    sqlx::query("UPDATE devices SET report = $1, seen = $2 WHERE sn = $3")
        .bind(report_text(serde_json::to_value(state)?))
        .bind(now)
        .bind(d.sn)
        .execute(cx.conn().writer()?)
        .await?;
    Ok(json!({}))
}

async fn report_result(cx: &mut Cx) -> Result<Value> {
    let mut d: Device = cx.device().await?;
    let report = ResultReport::from_parameters(|name| cx.opt(name)).map_err(parameter)?;
    let revision = report.revision;
    if revision > d.revision {
        return Err(bad("Revision"));
    }
    // An older one may come late: by a connection that hung while the device changed its address.
    if revision < d.applied && d.applied <= d.revision {
        return Ok(json!({}));
    }
    commands::conclude(&mut d, &report)?;
    let now = cx.now;
    sqlx::query("UPDATE devices SET applied = $1, failure = $2, seen = $3, body = $4 WHERE sn = $5")
        .bind(revision)
        .bind(report.failure.chars().take(1024).collect::<String>())
        .bind(now)
        .bind(serde_json::to_string(&d.body)?)
        .bind(d.sn)
        .execute(cx.conn().writer()?)
        .await?;
    Ok(json!({}))
}
