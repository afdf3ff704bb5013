//! The south side: what agents ask and report. An extension of the documented API, with the same
//! signatures on the same port.

pub mod config;
pub mod hub;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Op;
use crate::ops::app_stats;
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

pub const PULL: &str = "PullSmartAGConfig";
const REPORT_STATE: &str = "ReportSmartAGState";
const REPORT_RESULT: &str = "ReportSmartAGConfigResult";

/// Seconds that a poll may wait; shorter than the time after which a silent device is offline.
const MAX_WAIT: u64 = 45;
const MAX_REPORT: usize = 512 * 1024;

pub fn is_action(name: &str) -> bool {
    [PULL, REPORT_STATE, REPORT_RESULT].contains(&name)
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
    let number = |name: &str, default: i64| match params.get(name) {
        Some(v) => v.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(|| bad(name)),
        None => Ok(default),
    };
    let have = number("Revision", 0)?;
    let wait = (number("Wait", 0)? as u64).min(MAX_WAIT);
    let sn = params.get("SmartAGSn").ok_or_else(|| bad("SmartAGSn"))?.to_owned();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
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
        if answer["Changed"] == true {
            return Ok(answer);
        }
        tokio::select! {
            () = &mut woken => {}
            () = tokio::time::sleep_until(deadline) => return Ok(answer),
            _ = stopping.wait_for(|s| *s) => return Ok(answer),
        }
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

async fn look(cx: &mut Cx, have: i64) -> Result<Value> {
    let gw = cx.gateway().await?;
    let d = cx.device_on(&gw).await?;
    // A revision from the future is of another database: the agent starts over.
    if d.revision == have {
        return Ok(json!({"Revision": d.revision, "Changed": false}));
    }
    let config = config::document(cx, &gw, &d, have).await?;
    Ok(json!({"Revision": d.revision, "Changed": true, "Config": config}))
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

fn parsed(cx: &Cx) -> Result<Value> {
    let text = cx.text("State");
    let value = serde_json::from_str::<Value>(&text).ok();
    value.filter(|v| v.is_object() && text.len() <= MAX_REPORT).ok_or_else(|| bad("State"))
}

async fn report_state(cx: &mut Cx) -> Result<Value> {
    let state = parsed(cx)?;
    let id = cx.text("SmartAGId");
    let gw = cx.find(crate::ops::gateway::KIND, &id).await?;
    if gw.as_ref().is_some_and(|g| g.str("InstanceType") == SOFTWARE) {
        // The access point of a client-app instance reports its clients.
        let body = state.as_object().cloned().unwrap_or_default();
        let mut o = cx.object(app_stats::STATE, id.clone(), "SmartAGId", &id, body);
        o.name = id;
        cx.put(&o).await?;
        return Ok(json!({}));
    }
    let d = cx.device().await?;
    if state["Overlay"] != d.report["Overlay"] {
        // The other members of its network make their tunnels by it.
        for ccn in cx.links_from("ccn", &d.sag).await? {
            let mut others = cx.links_to("ccn", &ccn).await?;
            others.retain(|o| *o != d.sag);
            cx.touch_all(&others).await?;
        }
    }
    let now = cx.now;
    sqlx::query("UPDATE devices SET report = $1, seen = $2 WHERE sn = $3")
        .bind(report_text(state))
        .bind(now)
        .bind(d.sn)
        .execute(cx.conn().writer()?)
        .await?;
    Ok(json!({}))
}

async fn report_result(cx: &mut Cx) -> Result<Value> {
    let mut d: Device = cx.device().await?;
    let revision = cx.int("Revision").filter(|r| *r >= 0 && *r <= d.revision);
    let revision = revision.ok_or_else(|| bad("Revision"))?;
    let success = cx.flag("Success").ok_or_else(|| bad("Success"))?;
    let failure = if success { String::new() } else { cx.opt("Message").unwrap_or("failed".into()) };
    // An older one may come late: by a connection that hung while the device changed its address.
    if revision < d.applied && d.applied <= d.revision {
        return Ok(json!({}));
    }
    // Commands up to this revision were carried out.
    let mut commands = d.rows("Commands");
    commands.retain(|c| c["Revision"].as_i64().is_some_and(|r| r > revision));
    d.set("Commands", Value::Array(commands));
    let now = cx.now;
    sqlx::query("UPDATE devices SET applied = $1, failure = $2, seen = $3, body = $4 WHERE sn = $5")
        .bind(revision)
        .bind(failure.chars().take(1024).collect::<String>())
        .bind(now)
        .bind(serde_json::to_string(&d.body)?)
        .bind(d.sn)
        .execute(cx.conn().writer()?)
        .await?;
    Ok(json!({}))
}
