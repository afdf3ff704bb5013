//! Client accounts of a client-app instance.

use serde_json::{Value, json};

use super::cx::{Cx, empty};
use super::gateway::{KIND as GATEWAY, SOFTWARE};
use super::net;
use crate::proto::error::{ApiError, Result};
use crate::proto::time::month;
use crate::store::objects::Object;
use crate::store::secrets::MIXED;

pub const KIND: &str = "app_user";

/// The instance of the request, of the client-app edition.
pub async fn instance(cx: &mut Cx) -> Result<Object> {
    let gw = cx.gateway().await?;
    if gw.str("InstanceType") != SOFTWARE {
        return Err(cx.err(&["ClientUser.NotSupportAction", "ActionNotSupport"]));
    }
    Ok(gw)
}

fn key(gw: &str, name: &str) -> String {
    format!("{gw}/{name}")
}

pub async fn user(cx: &mut Cx, gw: &Object) -> Result<Object> {
    let name = cx.opt("UserName").or_else(|| cx.opt("Username")).unwrap_or_default();
    let found = cx.any(KIND, &key(&gw.id, &name)).await?;
    found.ok_or_else(|| cx.err(&["ResourceNotFound.User", "ClientUser.NameInvalid"]))
}

fn name_ok(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
}

pub fn mail_ok(mail: &str) -> bool {
    let good =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
    mail.len() <= 128 && mail.split_once('@').is_some_and(|(a, b)| good(a) && good(b) && b.contains('.'))
}

/// A fixed address is inside the instance's block and nobody else's.
async fn check_address(cx: &mut Cx, gw: &Object, ip: &str) -> Result<()> {
    let Some(addr) = net::ip(ip) else { return Err(cx.err(&["ClientUser.IpInvalid"])) };
    let blocks = net::cidr_list(gw.str("CidrBlock")).unwrap_or_default();
    if blocks.is_empty() {
        return Err(cx.err(&["SAG.CidrEmpty"]));
    }
    let taken = cx.children(KIND, &gw.id).await?.iter().any(|u| u.str("ClientIp") == ip);
    if taken || !blocks.iter().any(|b| b.contains(&addr)) {
        return Err(cx.err(&["ClientUser.InvalidClientIp"]));
    }
    Ok(())
}

async fn insert(cx: &mut Cx, gw: &Object, user: &Object) -> Result<()> {
    let count = cx.count(KIND, cx.under(&gw.id)).await?;
    if count >= gw.int("UserCount") {
        return Err(cx.err(&["ClientUser.UserOverLimit"]));
    }
    cx.put(user).await
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    let gw = instance(cx).await?;
    let mail = cx.text("UserMail");
    if !mail_ok(&mail) {
        return Err(cx.err(&["ClientUser.EmailInvalid"]));
    }
    let (name, password) = match (cx.opt("UserName"), cx.opt("Password")) {
        (Some(n), Some(p)) => (n, p),
        (None, None) => (mail.clone(), cx.cipher.token(MIXED, 16).map_err(ApiError::internal)?),
        (Some(_), None) => return Err(cx.err(&["ClientUser.PasswordInvalid"])),
        (None, Some(_)) => return Err(cx.err(&["ClientUser.NameEmpty"])),
    };
    if !name_ok(&name) {
        return Err(cx.err(&["ClientUser.NameInvalid"]));
    }
    if cx.any(KIND, &key(&gw.id, &name)).await?.is_some() {
        return Err(cx.err(&["ClientUser.UserExist"]));
    }
    let mut body = cx.fields(&["UserMail", "ClientIp", "Bandwidth"]);
    if let Some(ip) = cx.opt("ClientIp") {
        check_address(cx, &gw, &ip).await?;
    }
    let fixed = body.contains_key("ClientIp");
    body.insert("UserName".into(), name.as_str().into());
    body.insert("State".into(), 1.into());
    body.insert("IsStaticIp".into(), i64::from(fixed).into());
    body.insert("AccelerateBandwidth".into(), 0.into());
    body.insert("SealedPassword".into(), cx.seal(&password)?.into());
    let mut user = cx.object(KIND, key(&gw.id, &name), "Key", &gw.id, body);
    user.name = name;
    insert(cx, &gw, &user).await?;
    Ok(Value::Object(user.body))
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let gw = instance(cx).await?;
    let mut users = cx.children(KIND, &gw.id).await?;
    for (param, field) in [("UserName", "UserName"), ("UserMail", "UserMail")] {
        if let Some(v) = cx.opt(param) {
            users.retain(|u| u.str(field) == v);
        }
    }
    let (total, page) = cx.cut(users);
    let rows = page.into_iter().map(|u| Value::Object(u.body)).collect();
    Ok(cx.listing("Users", total, rows))
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let gw = instance(cx).await?;
    let mut user = user(cx, &gw).await?;
    if let Some(mail) = cx.opt("Email") {
        if !mail_ok(&mail) {
            return Err(cx.invalid("Email"));
        }
        user.set("UserMail", mail);
    }
    user.set("Bandwidth", cx.int("Bandwidth").unwrap_or_default());
    cx.put(&user).await?;
    Ok(Value::Object(user.body))
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let gw = instance(cx).await?;
    let user = user(cx, &gw).await?;
    let state = super::app_stats::state(cx, &gw.id).await?;
    let used = state["Flow"][month(cx.now)][&user.name].as_i64().unwrap_or_default();
    if used > 0 {
        return Err(cx.err(&["ClientUser.UserInUsing"]));
    }
    cx.remove(&user).await?;
    Ok(empty())
}

pub async fn reset_password(cx: &mut Cx) -> Result<Value> {
    let gw = instance(cx).await?;
    let mut user = user(cx, &gw).await?;
    let password = match cx.opt("Password") {
        Some(p) => p,
        None => cx.cipher.token(MIXED, 16).map_err(ApiError::internal)?,
    };
    user.set("SealedPassword", cx.seal(&password)?);
    cx.put(&user).await?;
    Ok(empty())
}

pub async fn enable(cx: &mut Cx) -> Result<Value> {
    set_state(cx, 1).await
}

pub async fn disable(cx: &mut Cx) -> Result<Value> {
    set_state(cx, 0).await
}

async fn set_state(cx: &mut Cx, state: i64) -> Result<Value> {
    let gw = instance(cx).await?;
    let mut user = user(cx, &gw).await?;
    user.set("State", state);
    cx.put(&user).await?;
    Ok(empty())
}

/// The account stays in its instance and may also use the one in the other region.
pub async fn roam(cx: &mut Cx) -> Result<Value> {
    let origin = cx.text("OriginSmartAGId");
    let region = cx.text("OriginRegionId");
    let from = cx.any(GATEWAY, &origin).await?;
    let from = from.filter(|g| g.uid == cx.uid() && g.region == region);
    let from = from.ok_or_else(|| cx.no_gateway(&origin))?;
    let target = cx.text("TargetSmartAGId");
    let to = cx.gateway_by_id(&target).await?;
    if [&from, &to].iter().any(|g| g.str("InstanceType") != SOFTWARE) || from.id == to.id {
        return Err(cx.err(&["ClientUser.NotSupportAction"]));
    }
    let user = cx.any(KIND, &key(&from.id, &cx.text("UserName"))).await?;
    let user = user.ok_or_else(|| cx.err(&["ClientUser.NameInvalid"]))?;
    if cx.any(KIND, &key(&to.id, &user.name)).await?.is_some() {
        return Err(cx.err(&["ClientUser.UserExist"]));
    }
    let blocks = |g: &Object| net::cidr_list(g.str("CidrBlock")).unwrap_or_default();
    if blocks(&to).is_empty() {
        return Err(cx.err(&["SAG.CidrEmpty"]));
    }
    if net::overlap(&blocks(&from), &blocks(&to)) {
        return Err(cx.err(&["SAG.CidrOverlap"]));
    }
    let mut body = user.body.clone();
    // The fixed address belongs to the other instance's block.
    body.remove("ClientIp");
    body.insert("IsStaticIp".into(), 0.into());
    body.insert("RoamedFrom".into(), from.id.as_str().into());
    let mut copy = cx.object(KIND, key(&to.id, &user.name), "Key", &to.id, body);
    copy.name = user.name.clone();
    insert(cx, &to, &copy).await?;
    Ok(empty())
}

pub async fn modify_dns(cx: &mut Cx) -> Result<Value> {
    let mut gw = instance(cx).await?;
    let servers = cx.list("AppDNS");
    if servers.iter().any(|s| net::ip(s).is_none()) || servers.len() > 2 {
        return Err(cx.err(&["InvalidParam.Ip"]));
    }
    gw.set("AppDNS", json!(servers));
    cx.put(&gw).await?;
    Ok(empty())
}

pub async fn describe_dns(cx: &mut Cx) -> Result<Value> {
    let gw = instance(cx).await?;
    Ok(json!({"AppDNS": gw.body.get("AppDNS")}))
}
