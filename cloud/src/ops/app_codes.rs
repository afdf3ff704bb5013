//! Enterprise codes: the five characters that client apps log in with.

use super::app_users;
use super::cx::Cx;
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::app::{AppUser, EnterpriseCode};
use crate::domain::gateway::Gateway;
use crate::domain::objects::Authorised;
use crate::error::{ApiError, Result};
use crate::store::Kind;
use crate::store::objects::{Column, Filter, Stored};

/// Codes of an account.
const QUOTA: i64 = 100;

async fn require(cx: &mut Cx, code: &str) -> Result<Authorised<EnterpriseCode>> {
    // A code belongs to the account, not to a region.
    let found = cx.find_in::<EnterpriseCode>(code, None).await?;
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
    cx.require_all(Kind::EnterpriseCode)?;
    if cx.inspect::<EnterpriseCode, _>(&code, |_| ()).await?.is_some() {
        return Err(cx.err(&["EnterpriseCode.BeenOccupied"]));
    }
    let all = Filter::of(cx.uid());
    let count = cx.count(Kind::EnterpriseCode, &all).await?;
    if count >= QUOTA {
        return Err(ApiError::new(
            400,
            "QuotaExceeded.EnterpriseCode",
            "The account has as many codes as it may.",
        ));
    }
    let body =
        EnterpriseCode { enterprise_code: code.clone(), region_id: cx.region(), is_default: count == 0 };
    let code = cx.create(code, body)?;
    cx.put(&code).await?;
    Ok(response::CreateEnterpriseCode::default())
}

pub async fn update(
    cx: &mut Cx,
    request: request::UpdateEnterpriseCode,
) -> Result<response::UpdateEnterpriseCode> {
    let mut code = require(cx, &request.enterprise_code).await?;
    if request.is_default {
        // There is one default. The code that was it changes too, so the caller must be allowed to change it.
        let filter = Filter::of(cx.uid());
        let old = |c: &Stored<EnterpriseCode>| c.is_default.then(|| c.id.clone());
        for other in cx.inspect_list(&filter, old).await?.into_iter().flatten().filter(|id| *id != code.id) {
            let mut other = require(cx, &other).await?;
            other.edit().is_default = false;
            cx.put(&other).await?;
        }
    }
    code.edit().is_default = request.is_default;
    cx.put(&code).await?;
    Ok(response::UpdateEnterpriseCode::default())
}

pub async fn delete(
    cx: &mut Cx,
    request: request::DeleteEnterpriseCode,
) -> Result<response::DeleteEnterpriseCode> {
    let code = require(cx, &request.enterprise_code).await?;
    let users = users_of(cx, &code.id);
    if cx.count(Kind::Gateway, &users).await? > 0 {
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
        let users = users_of(cx, &code.id);
        let count = cx.visible_count(Kind::Gateway, &users).await?;
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
    let own: Vec<Authorised<AppUser>> = cx.children(&gw).await?;
    let users = users_of(cx, &code.id);
    let others = cx.inspect_list(&users, |other: &Stored<Gateway>| other.id.clone()).await?;
    for other in others.into_iter().filter(|id| *id != gw.id) {
        let taken = |theirs: &Stored<AppUser>| own.iter().any(|u| u.user_name == theirs.user_name);
        if cx.inspect_list(&Filter::under(&other), taken).await?.contains(&true) {
            return Err(cx.err(&["EnterpriseCode.UserNameConflict"]));
        }
    }
    gw.edit().enterprise_code = Some(code.id.clone());
    cx.put(&gw).await?;
    Ok(response::UpdateSmartAGEnterpriseCode::default())
}
