//! Online clients and traffic of client-app instances, as their access point reports them.

use super::app_users::{instance, require};
use super::cx::Cx;
use crate::api::{request, response};
use crate::domain::app::AppState;
use crate::domain::gateway::Gateway;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::time::month;

/// What was reported for the instance; nothing if nothing was.
pub async fn state(cx: &mut Cx, gw: &Authorised<Gateway>) -> Result<AppState> {
    let found = cx.part::<_, AppState>(gw, &gw.id).await?;
    Ok(found.map(|o| o.into_inner().body).unwrap_or_default())
}

pub async fn user_counts(
    cx: &mut Cx,
    request: request::DescribeUserOnlineClientStatistics,
) -> Result<response::DescribeUserOnlineClientStatistics> {
    let gws = match request.smart_ag_id {
        Some(_) => vec![instance(cx).await?],
        None => {
            let filter = cx.mine();
            cx.list::<Gateway>(&filter).await?
        }
    };
    let mut states = Vec::new();
    for gw in gws {
        states.push(state(cx, &gw).await?);
    }
    let rows = request.user_names.into_iter().map(|name| {
        let count: usize = states.iter().map(|s| s.clients_of(&name).count()).sum();
        response::describe_user_online_client_statistics::Statistics {
            online_count: count.to_string(),
            user_name: name,
        }
    });
    Ok(response::DescribeUserOnlineClientStatistics { user_statistics: rows.collect() })
}

pub async fn gateway_counts(
    cx: &mut Cx,
    request: request::DescribeSagOnlineClientStatistics,
) -> Result<response::DescribeSagOnlineClientStatistics> {
    let mut filter = cx.mine();
    if !request.smart_ag_ids.is_empty() {
        filter.ids = Some(request.smart_ag_ids);
    }
    let mut gws: Vec<Authorised<Gateway>> = cx.list(&filter).await?;
    gws.retain(|gw| gw.is_software());
    let mut rows = Vec::new();
    for gw in gws {
        rows.push(response::describe_sag_online_client_statistics::Statistics {
            online_count: state(cx, &gw).await?.clients.len().to_string(),
            smart_ag_id: gw.id.clone(),
        });
    }
    Ok(response::DescribeSagOnlineClientStatistics { sag_statistics: rows })
}

pub async fn online(
    cx: &mut Cx,
    request: request::DescribeUserOnlineClients,
) -> Result<response::DescribeUserOnlineClients> {
    let gw = instance(cx).await?;
    let user = require(cx, &gw, &request.user_name).await?;
    let state = state(cx, &gw).await?;
    let rows = state.clients_of(&user.user_name).map(|c| response::describe_user_online_clients::User {
        client_ip: c.client_ip.clone(),
        online_time: c.online_time.clone(),
    });
    Ok(response::DescribeUserOnlineClients { users: rows.collect() })
}

pub async fn kick(cx: &mut Cx, request: request::KickOutClients) -> Result<response::KickOutClients> {
    let gw = instance(cx).await?;
    let user = require(cx, &gw, &request.username).await?;
    if let Some(mut state) = cx.part::<_, AppState>(&gw, &gw.id).await? {
        state.edit().clients.retain(|c| c.user_name != user.user_name);
        cx.put(&state).await?;
    }
    Ok(response::KickOutClients::default())
}

pub async fn flow(
    cx: &mut Cx,
    request: request::DescribeUserFlowStatistics,
) -> Result<response::DescribeUserFlowStatistics> {
    let gw = instance(cx).await?;
    let date = request.statistics_date.unwrap_or_else(|| month(cx.now));
    let state = state(cx, &gw).await?;
    let rows =
        request.user_names.into_iter().map(|name| response::describe_user_flow_statistics::Statistics {
            // What counts against a plan is not known here.
            total_leave_bytes: None,
            total_bytes: state.bytes(&date, &name).to_string(),
            user_name: name,
        });
    Ok(response::DescribeUserFlowStatistics { sag_statistics: rows.collect() })
}
