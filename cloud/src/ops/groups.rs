//! Resource groups.

use super::cx::Cx;
use crate::api::{request, response};
use crate::domain::acl::Acl;
use crate::domain::ccn::Ccn;
use crate::domain::flow_log::FlowLog;
use crate::domain::gateway::Gateway;
use crate::domain::objects::Authorised;
use crate::domain::qos::Qos;
use crate::error::Result;
use crate::store::objects::Entity;

pub async fn move_resource(
    cx: &mut Cx,
    request: request::MoveResourceGroup,
) -> Result<response::MoveResourceGroup> {
    let (id, group) = (request.resource_id.as_str(), request.new_resource_group_id);
    match request.resource_type.as_str() {
        kind @ ("smartag" | "smartag_s") => {
            let mut gw = named::<Gateway>(cx, id).await?;
            if gw.is_software() != (kind == "smartag_s") {
                return Err(cx.invalid("ResourceType"));
            }
            gw.edit().resource_group_id = checked(cx, group)?;
            cx.put(&gw).await?;
        }
        "acl" => {
            let mut acl = named::<Acl>(cx, id).await?;
            acl.edit().resource_group_id = checked(cx, group)?;
            cx.put(&acl).await?;
        }
        "qos" => {
            let mut qos = named::<Qos>(cx, id).await?;
            qos.edit().resource_group_id = checked(cx, group)?;
            cx.put(&qos).await?;
        }
        "ccn" => {
            let mut ccn = named::<Ccn>(cx, id).await?;
            ccn.edit().resource_group_id = checked(cx, group)?;
            cx.put(&ccn).await?;
        }
        "flowlog" => {
            let mut log = named::<FlowLog>(cx, id).await?;
            log.edit().resource_group_id = checked(cx, group)?;
            cx.put(&log).await?;
        }
        _ => return Err(cx.invalid("ResourceId")),
    }
    Ok(response::MoveResourceGroup::default())
}

async fn named<T: Entity>(cx: &mut Cx, id: &str) -> Result<Authorised<T>> {
    cx.find(id).await?.ok_or_else(|| cx.invalid("ResourceId"))
}

fn checked(cx: &Cx, group: String) -> Result<String> {
    if group.starts_with("rg-") { Ok(group) } else { Err(cx.invalid("NewResourceGroupId")) }
}
