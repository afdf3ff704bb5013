//! Operations that an administrator carries out on the database, in the name of the account that owns the object.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use serde_json::Value;

use crate::api::Op;
use crate::api::params::Params;
use crate::api::validate::validate;
use crate::domain::access::Access;
use crate::domain::caller::Caller;
use crate::domain::ccn::Ccn;
use crate::domain::gateway::Gateway;
use crate::domain::policy::Context;
use crate::error::ApiError;
use crate::ops;
use crate::ops::cx::{Cx, Finished};
use crate::repeated;
use crate::south::Agents;
use crate::store::objects::{self, Entity, Filter};
use crate::store::{Kind, Store};
use crate::time::now_ms;

/// An operation about the network `CcnId`, as its owner would call it; returns the answer.
///
/// # Errors
/// There is no such network, or the operation refuses.
pub async fn on_network(store: Store, op: Op, pairs: &[(&str, String)]) -> anyhow::Result<Value> {
    on::<Ccn>(store, op, "CcnId", pairs).await
}

/// An operation about the gateway `SmartAGId`, likewise.
///
/// # Errors
/// There is no such gateway, or the operation refuses.
pub async fn on_gateway(store: Store, op: Op, pairs: &[(&str, String)]) -> anyhow::Result<Value> {
    on::<Gateway>(store, op, "SmartAGId", pairs).await
}

/// The identifiers of all gateways of all accounts.
///
/// # Errors
/// The database fails.
pub async fn gateways(store: &Store) -> anyhow::Result<Vec<String>> {
    let mut tx = store.read().await?;
    let all = objects::identities(&mut tx, Kind::Gateway, &Filter::default()).await?;
    tx.rollback().await?;
    Ok(all.into_iter().map(|gw| gw.id).collect())
}

async fn on<T: Entity>(store: Store, op: Op, name: &str, pairs: &[(&str, String)]) -> anyhow::Result<Value> {
    let mut params = Params::default();
    for (name, value) in pairs {
        params.set(name, value);
    }
    let id = params.get(name).unwrap_or_default().to_owned();
    let mut tx = store.read().await?;
    let found = objects::get::<T>(&mut tx, &id).await?;
    tx.rollback().await?;
    let found = found.with_context(|| format!("there is no {name} {id}"))?;
    validate(op, &mut params).map_err(said)?;
    let owner = Caller::account(found.uid);
    let agents = Agents::new(store, 1);
    let context = Context { source: Ipv4Addr::LOCALHOST.into(), now: now_ms() };
    let access = Access::new(&owner, (op.name(), Some(op)), &context, params.get("RegionId"));
    let access = access.map_err(said)?;
    let answer = repeated!(async {
        let tx = agents.store.write().await?;
        let mut cx = Cx::new(op, params.clone(), access.clone(), agents.store.cipher.clone(), tx);
        let done = ops::call(op, &mut cx, "").await;
        let Finished { tx, changed, .. } = cx.into_parts();
        agents.conclude(tx, &changed, done).await
    })
    .map_err(said)?;
    Ok(serde_json::from_str(&answer)?)
}

fn said(e: ApiError) -> anyhow::Error {
    let hint = e.hint.map(|h| format!(" {h}")).unwrap_or_default();
    anyhow::anyhow!("{}: {}{hint}", e.code, e.message)
}
