//! SNAT and DNAT entries of a gateway.

use serde_json::{Value, json};

use super::cx::{Cx, Page, empty};
use crate::api::request;
use crate::domain::net;
use crate::error::Result;
use crate::store::Kind;
use crate::store::objects::Filter;

const SNAT: Kind = Kind::SnatEntry;
const DNAT: Kind = Kind::DnatEntry;
/// Entries of one gateway and kind.
const QUOTA: i64 = 100;

pub async fn add_snat(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["FeatureNotSupport"])?;
    let asked: request::AddSnatEntry = cx.request();
    let Some([block]) =
        net::cidr_list(&asked.cidr_block).as_deref().map(<[_; 1]>::try_from).and_then(|r| r.ok())
    else {
        return Err(cx.invalid("CidrBlock"));
    };
    let ip = asked.snat_ip;
    if net::ip(&ip).is_none() {
        return Err(cx.invalid("SnatIp"));
    }
    let entries = cx.child_objects(SNAT, &gw.id).await?;
    if entries.iter().any(|e| net::cidr_list(e.str("CidrBlock")) == Some(vec![block])) {
        return Err(cx.err(&["SNAT.CidrConfigExist"]));
    }
    if entries.len() as i64 >= QUOTA {
        return Err(cx.err(&["SNAT.AmountLimit"]));
    }
    if cx.child_objects(DNAT, &gw.id).await?.iter().any(|e| e.str("ExternalIp") == ip) {
        return Err(cx.err(&["SNAT.SnatDnatIpConflict"]));
    }
    let mut body = cx.fields(&["CidrBlock", "SnatIp"]);
    body.insert("CreateTime".into(), cx.now.into());
    let id = cx.new_id("snat")?;
    let entry = cx.object(SNAT, id, "InstanceId", &gw.id, body);
    cx.put_object(&entry).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(json!({"InstanceId": entry.id}))
}

pub async fn describe_snat(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let filter = Filter::under(&gw.id);
    let (total, page) = cx.object_page(SNAT, &filter).await?;
    let rows = page.into_iter().map(|e| Value::Object(e.body)).collect();
    Ok(cx.listing("SnatEntries", total, rows))
}

pub async fn delete_snat(cx: &mut Cx) -> Result<Value> {
    let asked: request::DeleteSnatEntry = cx.request();
    let gw = cx.gateway_by_id(&asked.smart_ag_id).await?;
    let entry = cx.get_object(SNAT, &asked.instance_id).await?.filter(|e| e.parent == gw.id);
    let entry = entry.ok_or_else(|| cx.err(&["InstanceNotExit"]))?;
    cx.remove_object(&entry).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(empty())
}

pub async fn add_dnat(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["FeatureNotSupport"])?;
    let fields = ["Type", "ExternalIp", "ExternalPort", "InternalIp", "InternalPort", "IpProtocol", "SagId"];
    let asked: request::AddDnatEntry = cx.request();
    let mut body = cx.fields(&fields);
    if asked.r#type == "Internet" {
        // The address of the WAN port, whatever it is.
        body.remove("ExternalIp");
    } else if asked.external_ip.is_none() {
        return Err(cx.err(&["MissingParam"]));
    }
    for name in ["ExternalIp", "InternalIp"] {
        if body.get(name).and_then(Value::as_str).is_some_and(|ip| net::ip(ip).is_none()) {
            return Err(cx.err(&["IllegalParam"]));
        }
    }
    let entries = cx.child_objects(DNAT, &gw.id).await?;
    let same = |e: &serde_json::Map<String, Value>, fields: &[&str]| {
        fields.iter().all(|f| e.get(*f) == body.get(*f))
    };
    if entries.iter().any(|e| same(&e.body, &fields)) {
        return Err(cx.err(&["DuplicatedDnatEntry"]));
    }
    // One outer address and port leads to one place.
    if entries.iter().any(|e| same(&e.body, &["Type", "ExternalIp", "ExternalPort", "IpProtocol"])) {
        return Err(cx.err(&["DuplicatedDnatEntry"]));
    }
    if entries.len() as i64 >= QUOTA {
        return Err(cx.err(&["SNAT.AmountLimit"]));
    }
    let external = body.get("ExternalIp").and_then(Value::as_str).unwrap_or_default().to_owned();
    if cx.child_objects(SNAT, &gw.id).await?.iter().any(|e| e.str("SnatIp") == external) {
        return Err(cx.err(&["SNAT.SnatDnatIpConflict"]));
    }
    body.insert("CreateTime".into(), cx.now.into());
    let id = cx.new_id("fwd")?;
    let entry = cx.object(DNAT, id, "DnatEntryId", &gw.id, body);
    cx.put_object(&entry).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(json!({"DnatEntryId": entry.id}))
}

pub async fn describe_dnat(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let asked: request::DescribeDnatEntries = cx.request();
    let mut entries = cx.child_objects(DNAT, &gw.id).await?;
    entries.retain(|e| e.str("Type") == asked.r#type);
    let Page { total, rows: page, .. } = cx.paginate(entries);
    let rows = page.into_iter().map(|e| Value::Object(e.body)).collect();
    Ok(cx.listing("DnatEntries", total, rows))
}

pub async fn delete_dnat(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let asked: request::DeleteDnatEntry = cx.request();
    let entry = cx.get_object(DNAT, &asked.dnat_entry_id).await?.filter(|e| e.parent == gw.id);
    let entry = entry.ok_or_else(|| cx.err(&["InstanceNotExit"]))?;
    cx.remove_object(&entry).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(empty())
}
