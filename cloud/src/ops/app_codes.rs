//! Enterprise codes: the five characters that client apps log in with.

use super::app_users;
use super::cx::Cx;
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::app::{AppUser, EnterpriseCode};
use crate::domain::gateway::Gateway;
use crate::error::Result;
use crate::store::Kind;
use crate::store::objects::{Column, Filter, Stored};

async fn require(cx: &mut Cx, code: &str) -> Result<Stored<EnterpriseCode>> {
    // A code belongs to the account, not to a region.
    let found = cx.get::<EnterpriseCode>(code).await?.filter(|c| c.uid == cx.uid());
    found.ok_or_else(|| cx.err(&["EnterpriseCode.NotExist"]))
}

/// The instances whose clients log in with the code.
fn users_of(cx: &Cx, code: &str) -> Filter {
    Filter::of(cx.uid()).equals(Column::Code, Some(code))
}

pub async fn create(
    cx: &mut Cx,
    request: request::CreateEnterpriseCode,
) -> Result<response::CreateEnterpriseCode> {
    let code = request.enterprise_code;
    if cx.get::<EnterpriseCode>(&code).await?.is_some() {
        return Err(cx.err(&["EnterpriseCode.BeenOccupied"]));
    }
    let first = cx.count(Kind::EnterpriseCode, &Filter::of(cx.uid())).await? == 0;
    let body = EnterpriseCode { enterprise_code: code.clone(), region_id: cx.region(), is_default: first };
    let code = cx.create(code, "", body);
    cx.put(&code).await?;
    Ok(response::CreateEnterpriseCode::default())
}

pub async fn update(
    cx: &mut Cx,
    request: request::UpdateEnterpriseCode,
) -> Result<response::UpdateEnterpriseCode> {
    let mut code = require(cx, &request.enterprise_code).await?;
    if request.is_default {
        for mut other in cx.list::<EnterpriseCode>(&Filter::of(cx.uid())).await? {
            if other.id != code.id {
                other.is_default = false;
                cx.put(&other).await?;
            }
        }
    }
    code.is_default = request.is_default;
    cx.put(&code).await?;
    Ok(response::UpdateEnterpriseCode::default())
}

pub async fn delete(
    cx: &mut Cx,
    request: request::DeleteEnterpriseCode,
) -> Result<response::DeleteEnterpriseCode> {
    let code = require(cx, &request.enterprise_code).await?;
    if cx.count(Kind::Gateway, &users_of(cx, &code.id)).await? > 0 {
        return Err(cx.err(&["EnterpriseCode.BeingUsed"]));
    }
    if code.is_default {
        return Err(cx.err(&["EnterpriseCode.DeleteLimit"]));
    }
    cx.remove(&code).await?;
    Ok(response::DeleteEnterpriseCode::default())
}

pub async fn list(cx: &mut Cx, request: request::ListEnterpriseCode) -> Result<response::ListEnterpriseCode> {
    let default = request.is_default.map(|d| if d { "default" } else { "" });
    let mut filter = Filter::of(cx.uid()).equals(Column::Variant, default);
    filter.ids = request.enterprise_code.map(|c| vec![c]);
    let codes = cx.list::<EnterpriseCode>(&filter).await?;
    let (total_count, next_token, page) = cx.page_by_token(codes, 10)?;
    let mut rows = Vec::new();
    for code in page {
        let count = cx.count(Kind::Gateway, &users_of(cx, &code.id)).await?;
        rows.push(copied!(code => response::list_enterprise_code::EnterpriseCodes {
            enterprise_code, is_default;
            smart_ag_count: count,
        }));
    }
    Ok(response::ListEnterpriseCode {
        enterprise_codes: rows,
        max_results: request.max_results,
        next_token,
        total_count,
    })
}

/// All instances of one code share one space of user names.
pub async fn assign(
    cx: &mut Cx,
    request: request::UpdateSmartAGEnterpriseCode,
) -> Result<response::UpdateSmartAGEnterpriseCode> {
    let mut gw = app_users::instance(cx).await?;
    let code = require(cx, &request.enterprise_code).await?;
    let own = cx.children::<AppUser>(&gw.id).await?;
    for other in cx.list::<Gateway>(&users_of(cx, &code.id)).await? {
        if other.id == gw.id {
            continue;
        }
        let theirs = cx.children::<AppUser>(&other.id).await?;
        if own.iter().any(|u| theirs.iter().any(|t| t.user_name == u.user_name)) {
            return Err(cx.err(&["EnterpriseCode.UserNameConflict"]));
        }
    }
    gw.enterprise_code = Some(code.id);
    cx.put(&gw).await?;
    Ok(response::UpdateSmartAGEnterpriseCode::default())
}
