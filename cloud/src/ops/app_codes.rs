//! Enterprise codes: the five characters that client apps log in with.

use serde_json::{Value, json};

use super::app_users;
use super::cx::{Cx, empty};
use super::gateway::KIND as GATEWAY;
use crate::proto::error::Result;
use crate::store::objects::{Filter, Object};

const KIND: &str = "enterprise_code";

fn all(cx: &Cx) -> Filter {
    // A code belongs to the account, not to a region.
    Filter { uid: Some(cx.uid()), ..Filter::default() }
}

async fn find(cx: &mut Cx) -> Result<Object> {
    let code = cx.text("EnterpriseCode");
    let found = cx.any(KIND, &code).await?.filter(|c| c.uid == cx.uid());
    found.ok_or_else(|| cx.err(&["EnterpriseCode.NotExist"]))
}

async fn users(cx: &mut Cx, code: &str) -> Result<Vec<Object>> {
    let filter = all(cx);
    let mut gws = cx.list_all(GATEWAY, &filter).await?;
    gws.retain(|g| g.str("EnterpriseCode") == code);
    Ok(gws)
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    let code = cx.text("EnterpriseCode");
    if cx.any(KIND, &code).await?.is_some() {
        return Err(cx.err(&["EnterpriseCode.BeenOccupied"]));
    }
    let filter = all(cx);
    let first = cx.count(KIND, filter).await? == 0;
    let mut body = serde_json::Map::new();
    body.insert("IsDefault".into(), first.into());
    let o = cx.object(KIND, code, "EnterpriseCode", "", body);
    cx.put(&o).await?;
    Ok(empty())
}

pub async fn update(cx: &mut Cx) -> Result<Value> {
    let mut code = find(cx).await?;
    let default = cx.flag("IsDefault") == Some(true);
    if default {
        let filter = all(cx);
        for mut other in cx.list_all(KIND, &filter).await? {
            if other.id != code.id {
                other.set("IsDefault", false);
                cx.put(&other).await?;
            }
        }
    }
    code.set("IsDefault", default);
    cx.put(&code).await?;
    Ok(empty())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let code = find(cx).await?;
    if !users(cx, &code.id).await?.is_empty() {
        return Err(cx.err(&["EnterpriseCode.BeingUsed"]));
    }
    if code.body.get("IsDefault") == Some(&Value::Bool(true)) {
        return Err(cx.err(&["EnterpriseCode.DeleteLimit"]));
    }
    cx.remove(&code).await?;
    Ok(empty())
}

pub async fn list(cx: &mut Cx) -> Result<Value> {
    let mut filter = all(cx);
    filter.ids = cx.opt("EnterpriseCode").map(|c| vec![c]);
    let mut codes = cx.list_all(KIND, &filter).await?;
    if let Some(default) = cx.flag("IsDefault") {
        codes.retain(|c| c.body.get("IsDefault") == Some(&Value::Bool(default)));
    }
    let (total, next, page) = cx.slice(codes, 10)?;
    let mut rows = Vec::new();
    for mut code in page {
        let count = users(cx, &code.id).await?.len();
        code.set("SmartAGCount", count);
        rows.push(Value::Object(code.body));
    }
    Ok(json!({"TotalCount": total, "NextToken": next, "EnterpriseCodes": rows,
        "MaxResults": cx.int("MaxResults").unwrap_or(10)}))
}

/// All instances of one code share one space of user names.
pub async fn assign(cx: &mut Cx) -> Result<Value> {
    let mut gw = app_users::instance(cx).await?;
    let code = find(cx).await?;
    let mut taken = Vec::new();
    for other in users(cx, &code.id).await? {
        if other.id != gw.id {
            taken.extend(cx.children(app_users::KIND, &other.id).await?.into_iter().map(|u| u.name));
        }
    }
    let own = cx.children(app_users::KIND, &gw.id).await?;
    if own.iter().any(|u| taken.contains(&u.name)) {
        return Err(cx.err(&["EnterpriseCode.UserNameConflict"]));
    }
    gw.set("EnterpriseCode", code.id.as_str());
    cx.put(&gw).await?;
    Ok(empty())
}
