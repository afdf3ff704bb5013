//! Resource groups.

use serde_json::Value;

use super::cx::{Cx, empty};
use super::gateway::{KIND as GATEWAY, SOFTWARE};
use crate::proto::error::Result;

pub async fn move_resource(cx: &mut Cx) -> Result<Value> {
    let kind = cx.text("ResourceType");
    let table = match kind.as_str() {
        "smartag" | "smartag_s" => GATEWAY,
        other => other,
    };
    let id = cx.text("ResourceId");
    let Some(mut o) = cx.find(table, &id).await? else { return Err(cx.invalid("ResourceId")) };
    let software = o.str("InstanceType") == SOFTWARE;
    if table == GATEWAY && software != (kind == "smartag_s") {
        return Err(cx.invalid("ResourceType"));
    }
    let group = cx.text("NewResourceGroupId");
    if !group.starts_with("rg-") {
        return Err(cx.invalid("NewResourceGroupId"));
    }
    o.set("ResourceGroupId", group);
    cx.put(&o).await?;
    Ok(empty())
}
