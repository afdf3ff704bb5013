//! The southbound calls of agents (`sag_southbound`): an extension of the documented API, with the same signatures on
//! the same port.

pub mod config;
pub mod hub;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use ipnet::Ipv4Net;
use prometheus_client::metrics::gauge::Gauge;
use sag_southbound::{
    Acceptance, Action, Announcement, ClientAppReport, HealthStatus, MAX_REPORT, ParameterError, PullAnswer,
    PullRequest, ReadError, ReportAnswer, ResultReport, StateReport, Wire, read,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::Op;
use crate::api::params::Params;
use crate::domain::access::Access;
use crate::domain::app::AppState;
use crate::domain::device::Device;
use crate::domain::gateway::Gateway;
use crate::domain::lock;
use crate::domain::membership::Announced;
use crate::domain::objects::Authorised;
use crate::error::{ApiError, Result};
use crate::ops::commands;
use crate::ops::cx::{Cx, Finished};
use crate::repeated;
use crate::store::nonces::SignedNonce;
use crate::store::{Store, Tx, devices, nonces};
use crate::time::now_ms;

/// Deviations of a result that are kept. An agent reports fewer.
const MAX_DEVIATIONS: usize = 500;

/// The call that may wait.
pub const PULL: &str = Action::Pull.name();
const REPORT_STATE: &str = Action::ReportState.name();

/// What the calls of agents share.
pub struct Agents {
    pub store: Store,
    pub hub: hub::Hub,
    /// Devices that wait for a change.
    pub polls: Gauge<i64, AtomicI64>,
    /// Turns true when the server stops; long polls end then.
    pub stopping: watch::Sender<bool>,
    /// Polls of one account that may wait at a time.
    polls_of_an_account: usize,
}

impl Agents {
    pub fn new(store: Store, polls_of_an_account: usize) -> Agents {
        Agents {
            store,
            hub: hub::Hub::default(),
            polls: Gauge::default(),
            stopping: watch::Sender::new(false),
            polls_of_an_account,
        }
    }

    /// Keeps what a call has done and wakes who waits for it; of a failed one nothing stays.
    pub async fn conclude<T>(&self, tx: Tx, changed: &BTreeSet<String>, done: Result<T>) -> Result<T> {
        match done {
            Ok(answer) => {
                tx.commit().await?;
                self.hub.wake(changed);
                Ok(answer)
            }
            Err(e) => {
                tx.rollback().await?;
                Err(e)
            }
        }
    }
}

/// Whether it is a call of agents.
pub fn is_action(name: &str) -> bool {
    Action::by_name(name).is_some()
}

pub async fn call(
    agents: &Arc<Agents>,
    action: &str,
    access: Access,
    params: Params,
    (nonce, source): (SignedNonce<'_>, IpAddr),
) -> Result<Value> {
    match action {
        PULL => pull(agents, access, params, nonce).await,
        _ => {
            repeated!(async {
                let mut tx = agents.store.write().await?;
                nonces::keep(&mut tx, nonce).await?;
                let mut cx = cx(agents, access.clone(), params.clone(), tx);
                cx.source = source.to_canonical().to_string();
                let done = match action {
                    REPORT_STATE => report_state(&mut cx).await,
                    _ => report_result(&mut cx).await,
                };
                let Finished { tx, changed, .. } = cx.into_parts();
                agents.conclude(tx, &changed, done).await
            })
        }
    }
}

/// Agents get the errors that are documented for questions about a device.
fn cx(agents: &Agents, access: Access, params: Params, tx: Tx) -> Cx {
    Cx::new(Op::DescribeSAGDeviceInfo, params, access, agents.store.cipher.clone(), tx)
}

/// The whole configuration if it is newer than the agent's `Revision`; else waits for that.
async fn pull(agents: &Arc<Agents>, access: Access, params: Params, nonce: SignedNonce<'_>) -> Result<Value> {
    let request =
        PullRequest::from_parameters(|name| params.get(name).map(str::to_owned)).map_err(parameter)?;
    let (have, sn) = (i64::try_from(request.revision).unwrap_or(i64::MAX), request.smart_ag_sn);
    let gateway = request.smart_ag_id;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(request.wait);
    let mut stopping = agents.stopping.subscribe();
    let _count = Polling::new(agents);
    let mut first = true;
    let waiter = agents.hub.waiter(&sn);
    let mut place = None;
    loop {
        // Listening starts before looking, so no change falls in between.
        let woken = waiter.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let mut tx = agents.store.read().await?;
        if first && agents.store.shared() {
            nonces::keep(&mut tx, nonce).await?;
        }
        let cx = cx(agents, access.clone(), params.clone(), tx);
        let (tx, found) = look(agents, cx, have).await;
        tx.commit().await?;
        let answer = found?;
        if first {
            match seen(agents, &gateway, &sn).await {
                // A device that starts needs its configuration, whatever can be written down.
                Err(e) if !e.is_disk() => return Err(e.into()),
                _ => first = false,
            }
        }
        if !answer.changed && request.wait > 0 && !waiter.superseded() {
            if place.is_none() {
                place = Some(agents.hub.poll(access.uid(), agents.polls_of_an_account).ok_or_else(too_many)?);
            }
            tokio::select! {
                () = &mut woken => continue,
                () = tokio::time::sleep_until(deadline) => {}
                _ = stopping.wait_for(|s| *s) => {}
            }
        }
        return Ok(serde_json::to_value(answer)?);
    }
}

fn too_many() -> ApiError {
    ApiError::new(429, "Throttling.User", "Too many long polls of this account wait.")
        .with_retry_after(1000)
        .with_hint("Raise --max-connections of sag-cloud, or try again later.")
}

/// Counts a waiting agent for as long as it waits.
struct Polling<'a>(&'a Agents);

impl<'a> Polling<'a> {
    fn new(agents: &'a Agents) -> Polling<'a> {
        agents.polls.inc();
        Polling(agents)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.polls.dec();
    }
}

fn bad(name: &str) -> ApiError {
    ApiError::new(400, "InvalidParameter", format!("The parameter {name} is missing or not allowed."))
}

fn parameter(e: ParameterError) -> ApiError {
    bad(e.0)
}

async fn look(agents: &Agents, mut cx: Cx, have: i64) -> (Tx, Result<PullAnswer>) {
    let found = named(&mut cx).await;
    let Finished { mut tx, .. } = cx.into_parts();
    let (gw, d) = match found {
        Ok(found) => found,
        Err(e) => return (tx, Err(e)),
    };
    // A revision from the future is of another database: the agent starts over.
    if d.revision == have {
        return (tx, Ok(PullAnswer { revision: d.revision, changed: false, config: None }));
    }
    let mut source = config::Source { tx: &mut tx, cipher: &agents.store.cipher };
    let config = source.document(&gw, &d, have).await;
    let answer = config.map(|c| PullAnswer { revision: d.revision, changed: true, config: Some(c) });
    (tx, answer)
}

/// The device of the request. That a gateway has expired keeps nobody from calling its agent: it would be frozen, and
/// nobody would know how it is.
async fn named(cx: &mut Cx) -> Result<(Authorised<Gateway>, Device)> {
    let gw = cx.gateway_paid_or_not().await?;
    let d = cx.device_on(&gw).await?;
    Ok((gw, d))
}

async fn seen(agents: &Agents, gateway: &str, sn: &str) -> crate::store::Result<()> {
    let woken = repeated!(async {
        let mut tx = agents.store.write().await?;
        let now = now_ms();
        let woken = lock::after_silence(&mut tx, gateway, now).await?;
        devices::put_seen(&mut tx, sn, now).await?;
        tx.commit().await.map(|()| woken)
    })?;
    agents.hub.wake(&woken.into_iter().collect::<BTreeSet<_>>());
    Ok(())
}

/// The parameter `State`; an agent of a newer major version is refused.
fn reported<T: Wire>(cx: &Cx) -> Result<T> {
    let text = cx.opt("State").unwrap_or_default();
    let state = serde_json::from_str(&text).ok().filter(|_| text.len() <= MAX_REPORT);
    read(state.ok_or_else(|| bad("State"))?).map_err(|e| match e {
        ReadError::NewerMajor { .. } => ApiError::new(400, "UnsupportedProtocolVersion", e.to_string()),
        ReadError::Malformed(e) => {
            ApiError::new(400, "InvalidParameter", format!("The parameter State is not allowed: {e}."))
        }
    })
}

async fn report_state(cx: &mut Cx) -> Result<Value> {
    let id = cx.opt("SmartAGId").unwrap_or_default();
    if let Some(gw) = cx.find::<Gateway>(&id).await?.filter(|g| g.is_software()) {
        // The access point of a client-app instance reports its clients.
        let state = AppState::from(reported::<ClientAppReport>(cx)?);
        let state = cx.create_part(&gw, id, state);
        cx.put(&state).await?;
        return Ok(json!({}));
    }
    let (gw, mut d) = named(cx).await?;
    let state: StateReport = reported(cx)?;
    let now = cx.now;
    if let (Some(measured), Some(diagnosis)) = (&state.diagnosis, d.config.diagnosis.as_mut())
        && diagnosis.complete(measured, now)
    {
        cx.put_result(&d).await?;
    }
    let locked = cx.lock_after_silence(&gw, now).await?;
    cx.changed.extend(locked);
    let overlay = match &state.overlay {
        Some(reported) => Some(announced(cx, &gw, &d, reported).await?),
        None => None,
    };
    let verdicts = |state: &StateReport| -> BTreeMap<String, Option<HealthStatus>> {
        state.health_checks.iter().map(|h| (h.id.clone(), h.status.clone())).collect()
    };
    let other_verdicts = verdicts(&d.state) != verdicts(&state);
    let before = if other_verdicts { published(cx, &gw).await? } else { None };
    let source = cx.source.clone();
    cx.put_report(&d, &state, now, &source).await?;
    if d.state.session_link != state.session_link && cx.devices_of(&gw).await?.len() > 1 {
        cx.renew(&gw).await?;
    }
    if other_verdicts && published(cx, &gw).await? != before {
        let sns = cx.blocks_changed(&gw).await?;
        cx.changed.extend(sns);
    }
    Ok(serde_json::to_value(ReportAnswer { overlay })?)
}

/// The blocks of the gateway that the other members of its network get.
async fn published(cx: &mut Cx, gw: &Authorised<Gateway>) -> Result<Option<Vec<Ipv4Net>>> {
    cx.inspect_network(gw, |network| network.announced_by(&gw.id)).await
}

/// Takes what a device announces to the other members of its network. A report that is not in order costs the device its
/// own news and nobody else anything; the answer says why.
async fn announced(
    cx: &mut Cx,
    gw: &Authorised<Gateway>,
    d: &Device,
    reported: &Announcement,
) -> Result<Acceptance> {
    let (now, sn) = (cx.now, d.sn.clone());
    let known = cx.part::<_, Announced>(gw, &sn).await?;
    let mut it = match known.clone() {
        Some(known) => known,
        None => cx.create_part(gw, sn.clone(), Announced::default()),
    };
    if it.edit().report(reported, &d.sag, &sn, now) {
        let sns = cx.put_announced(gw, &it).await?;
        cx.changed.extend(sns);
        // Whether another member has the address is known now.
        it = cx.part::<_, Announced>(gw, &sn).await?.unwrap_or(it);
    } else if known.as_ref().is_none_or(|known| known.body != it.body) {
        let (before, why) = (known.map(|k| k.problem.clone()).unwrap_or_default(), &it.problem);
        if !why.is_empty() && before != *why {
            tracing::warn!(device = sn, gateway = d.sag, why, "an announcement is not accepted");
        }
        cx.put(&it).await?;
    }
    Ok(Acceptance { epoch: it.epoch(), problem: it.refusal().to_owned() })
}

async fn report_result(cx: &mut Cx) -> Result<Value> {
    let (_, mut d) = named(cx).await?;
    let report = ResultReport::from_parameters(|name| cx.opt(name)).map_err(parameter)?;
    let revision = report.revision;
    if revision > d.revision {
        return Err(bad("Revision"));
    }
    // An older one may come late: by a connection that hung while the device changed its address.
    if revision < d.applied && d.applied <= d.revision {
        return Ok(json!({}));
    }
    commands::conclude(&mut d, &report, cx.now);
    d.applied = revision;
    d.failure = report.failure.chars().take(1024).collect();
    d.seen = cx.now;
    cx.put_result(&d).await?;
    if let Some(mut deviations) = report.deviations {
        // The next report has them too; until it comes, the revision would look as if all of it were in force.
        deviations.truncate(MAX_DEVIATIONS);
        if d.state.deviations.as_ref() != Some(&deviations) {
            d.state.deviations = Some(deviations);
            let (now, source) = (cx.now, cx.source.clone());
            cx.put_report(&d, &d.state, now, &source).await?;
        }
    }
    Ok(json!({}))
}
