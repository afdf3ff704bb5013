//! Client accounts of a client-app instance.

use super::app_stats;
use super::cx::Cx;
use super::fields::{Give, copied};
use crate::api::{request, response};
use crate::domain::app::AppUser;
use crate::domain::gateway::Gateway;
use crate::domain::net;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::Kind;
use crate::store::objects::{Column, Filter};
use crate::time::month;

/// Length of a password that the cloud makes.
const PASSWORD_LENGTH: usize = 16;

/// The instance of the request, of the client-app edition.
pub async fn instance(cx: &mut Cx) -> Result<Authorised<Gateway>> {
    let gw = cx.gateway().await?;
    if !gw.is_software() {
        return Err(cx.err(&["ClientUser.NotSupportAction", "ActionNotSupport"]));
    }
    Ok(gw)
}

fn key(gw: &str, name: &str) -> String {
    format!("{gw}/{name}")
}

/// The user of the instance, or the documented error.
pub async fn require(cx: &mut Cx, gw: &Authorised<Gateway>, name: &str) -> Result<Authorised<AppUser>> {
    let found = cx.part(gw, &key(&gw.id, name)).await?;
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
async fn check_address(cx: &mut Cx, gw: &Authorised<Gateway>, ip: &str) -> Result<()> {
    let Some(addr) = net::ip(ip) else { return Err(cx.err(&["ClientUser.IpInvalid"])) };
    let blocks = gw.blocks();
    if blocks.is_empty() {
        return Err(cx.err(&["SAG.CidrEmpty"]));
    }
    let users: Vec<Authorised<AppUser>> = cx.children(gw).await?;
    let taken = users.iter().any(|u| u.client_ip.as_deref() == Some(ip));
    if taken || !blocks.iter().any(|b| b.contains(&addr)) {
        return Err(cx.err(&["ClientUser.InvalidClientIp"]));
    }
    Ok(())
}

async fn insert(cx: &mut Cx, gw: &Authorised<Gateway>, user: AppUser) -> Result<Authorised<AppUser>> {
    let count = cx.count(Kind::AppUser, &Filter::under(&gw.id)).await?;
    if count >= gw.user_count.unwrap_or_default() {
        return Err(cx.err(&["ClientUser.UserOverLimit"]));
    }
    let user = cx.create_part(gw, key(&gw.id, &user.user_name), user);
    cx.put(&user).await?;
    Ok(user)
}

pub async fn create(
    cx: &mut Cx,
    request: request::CreateSmartAccessGatewayClientUser,
) -> Result<response::CreateSmartAccessGatewayClientUser> {
    let gw = instance(cx).await?;
    if !mail_ok(&request.user_mail) {
        return Err(cx.err(&["ClientUser.EmailInvalid"]));
    }
    let (name, password) = match (request.user_name, request.password) {
        (Some(n), Some(p)) => (n, p),
        (None, None) => (request.user_mail.clone(), cx.new_secret(PASSWORD_LENGTH)?),
        (Some(_), None) => return Err(cx.err(&["ClientUser.PasswordInvalid"])),
        (None, Some(_)) => return Err(cx.err(&["ClientUser.NameEmpty"])),
    };
    if !name_ok(&name) {
        return Err(cx.err(&["ClientUser.NameInvalid"]));
    }
    if cx.part::<_, AppUser>(&gw, &key(&gw.id, &name)).await?.is_some() {
        return Err(cx.err(&["ClientUser.UserExist"]));
    }
    if let Some(ip) = &request.client_ip {
        check_address(cx, &gw, ip).await?;
    }
    let user = AppUser {
        region_id: cx.region(),
        user_name: name,
        user_mail: request.user_mail,
        bandwidth: request.bandwidth,
        state: 1,
        is_static_ip: i64::from(request.client_ip.is_some()),
        client_ip: request.client_ip,
        sealed_password: cx.seal(&password)?,
        ..AppUser::default()
    };
    let user = insert(cx, &gw, user).await?;
    Ok(copied!(user => response::CreateSmartAccessGatewayClientUser {
        bandwidth, client_ip, user_mail, user_name,
    }))
}

pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeSmartAccessGatewayClientUsers,
) -> Result<response::DescribeSmartAccessGatewayClientUsers> {
    let gw = instance(cx).await?;
    let filter =
        Filter::under(&gw.id).equals(Column::Name, request.user_name).equals(Column::Code, request.user_mail);
    let page = cx.list_page::<AppUser>(&filter).await?;
    let rows = page.rows.iter().map(|user| {
        copied!(user => response::describe_smart_access_gateway_client_users::User {
            accelerate_bandwidth, bandwidth, client_ip, is_static_ip, user_mail, user_name;
            // 0 is enabled, 1 is disabled; what is stored has it the other way round.
            state: Give::give(i64::from(user.state == 0)),
        })
    });
    Ok(response::DescribeSmartAccessGatewayClientUsers {
        users: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn modify(
    cx: &mut Cx,
    request: request::ModifySmartAccessGatewayClientUser,
) -> Result<response::ModifySmartAccessGatewayClientUser> {
    let gw = instance(cx).await?;
    let mut user = require(cx, &gw, &request.user_name).await?;
    if let Some(mail) = request.email {
        if !mail_ok(&mail) {
            return Err(cx.invalid("Email"));
        }
        user.edit().user_mail = mail;
    }
    if let Some(bandwidth) = request.bandwidth {
        user.edit().bandwidth = bandwidth;
    }
    cx.put(&user).await?;
    Ok(copied!(user => response::ModifySmartAccessGatewayClientUser {
        bandwidth, client_ip, user_mail, user_name,
    }))
}

/// Kbit/s that application acceleration gives the account.
pub async fn accelerate(
    cx: &mut Cx,
    request: request::UpdateSmartAGUserAccelerateConfig,
) -> Result<response::UpdateSmartAGUserAccelerateConfig> {
    let gw = instance(cx).await?;
    let mut user = require(cx, &gw, &request.user_name).await?;
    user.edit().accelerate_bandwidth = request.bandwidth;
    cx.put(&user).await?;
    Ok(response::UpdateSmartAGUserAccelerateConfig::default())
}

pub async fn delete(
    cx: &mut Cx,
    request: request::DeleteSmartAccessGatewayClientUser,
) -> Result<response::DeleteSmartAccessGatewayClientUser> {
    let gw = instance(cx).await?;
    let user = require(cx, &gw, &request.user_name).await?;
    if app_stats::state(cx, &gw).await?.bytes(&month(cx.now), &user.user_name) > 0 {
        return Err(cx.err(&["ClientUser.UserInUsing"]));
    }
    cx.remove(&user).await?;
    Ok(response::DeleteSmartAccessGatewayClientUser::default())
}

pub async fn reset_password(
    cx: &mut Cx,
    request: request::ResetSmartAccessGatewayClientUserPassword,
) -> Result<response::ResetSmartAccessGatewayClientUserPassword> {
    let gw = instance(cx).await?;
    let mut user = require(cx, &gw, &request.user_name).await?;
    let password = match request.password {
        Some(p) => p,
        None => cx.new_secret(PASSWORD_LENGTH)?,
    };
    user.edit().sealed_password = cx.seal(&password)?;
    cx.put(&user).await?;
    Ok(response::ResetSmartAccessGatewayClientUserPassword::default())
}

pub async fn enable(
    cx: &mut Cx,
    request: request::EnableSmartAccessGatewayUser,
) -> Result<response::EnableSmartAccessGatewayUser> {
    set_state(cx, &request.user_name, 1).await?;
    Ok(response::EnableSmartAccessGatewayUser::default())
}

pub async fn disable(
    cx: &mut Cx,
    request: request::DisableSmartAccessGatewayUser,
) -> Result<response::DisableSmartAccessGatewayUser> {
    set_state(cx, &request.user_name, 0).await?;
    Ok(response::DisableSmartAccessGatewayUser::default())
}

async fn set_state(cx: &mut Cx, name: &str, state: i64) -> Result<()> {
    let gw = instance(cx).await?;
    let mut user = require(cx, &gw, name).await?;
    user.edit().state = state;
    cx.put(&user).await
}

/// The account stays in its instance and may also use the one in the other region.
pub async fn roam(cx: &mut Cx, request: request::RoamClientUser) -> Result<response::RoamClientUser> {
    let origin = request.origin_smart_ag_id;
    let from = cx.find_in::<Gateway>(&origin, Some(&request.origin_region_id)).await?;
    let from = from.ok_or_else(|| cx.no_gateway(&origin))?;
    let to = cx.gateway_by_id(&request.target_smart_ag_id).await?;
    if !from.is_software() || !to.is_software() || from.id == to.id {
        return Err(cx.err(&["ClientUser.NotSupportAction"]));
    }
    let user = cx.part::<_, AppUser>(&from, &key(&from.id, &request.user_name)).await?;
    let user = user.ok_or_else(|| cx.err(&["ClientUser.NameInvalid"]))?;
    if cx.part::<_, AppUser>(&to, &key(&to.id, &user.user_name)).await?.is_some() {
        return Err(cx.err(&["ClientUser.UserExist"]));
    }
    if to.blocks().is_empty() {
        return Err(cx.err(&["SAG.CidrEmpty"]));
    }
    if net::overlap(&from.blocks(), &to.blocks()) {
        return Err(cx.err(&["SAG.CidrOverlap"]));
    }
    // The fixed address belongs to the other instance's block.
    let copy = AppUser {
        client_ip: None,
        is_static_ip: 0,
        roamed_from: Some(from.id.clone()),
        ..user.into_inner().body
    };
    insert(cx, &to, copy).await?;
    Ok(response::RoamClientUser::default())
}

pub async fn modify_dns(
    cx: &mut Cx,
    request: request::ModifyClientUserDNS,
) -> Result<response::ModifyClientUserDNS> {
    let mut gw = instance(cx).await?;
    // None is no servers any more. RecoveredDNS, which the SDK says is not available yet, is ignored.
    let servers = request.app_dns;
    if servers.iter().any(|s| net::ip(s).is_none()) || servers.len() > 2 {
        return Err(cx.err(&["InvalidParam.Ip"]));
    }
    gw.edit().app_dns = Some(servers);
    cx.put(&gw).await?;
    Ok(response::ModifyClientUserDNS::default())
}

pub async fn describe_dns(
    cx: &mut Cx,
    _: request::DescribeClientUserDNS,
) -> Result<response::DescribeClientUserDNS> {
    let gw = instance(cx).await?.into_inner();
    Ok(response::DescribeClientUserDNS { app_dns: gw.body.app_dns.unwrap_or_default(), recovered_dns: None })
}
