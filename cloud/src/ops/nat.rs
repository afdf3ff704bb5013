//! SNAT and DNAT entries of a gateway.

use super::cx::Cx;
use super::fields::copied;
use crate::api::validate::ANY_PORT;
use crate::api::{request, response};
use crate::domain::nat::{DnatEntry, SnatEntry};
use crate::domain::net;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::objects::{Column, Filter};

/// Entries of one gateway and kind.
const QUOTA: usize = 100;

pub async fn add_snat(cx: &mut Cx, request: request::AddSnatEntry) -> Result<response::AddSnatEntry> {
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["FeatureNotSupport"])?;
    let blocks = net::cidr_list(&request.cidr_block).filter(|blocks| blocks.len() == 1);
    let Some(blocks) = blocks else { return Err(cx.invalid("CidrBlock")) };
    if net::ip(&request.snat_ip).is_none() {
        return Err(cx.invalid("SnatIp"));
    }
    let entries: Vec<Authorised<SnatEntry>> = cx.children(&gw).await?;
    if entries.iter().any(|e| net::cidr_list(&e.cidr_block).as_ref() == Some(&blocks)) {
        return Err(cx.err(&["SNAT.CidrConfigExist"]));
    }
    if entries.len() >= QUOTA {
        return Err(cx.err(&["SNAT.AmountLimit"]));
    }
    let others: Vec<Authorised<DnatEntry>> = cx.children(&gw).await?;
    if others.iter().any(|e| e.external_ip.as_ref() == Some(&request.snat_ip)) {
        return Err(cx.err(&["SNAT.SnatDnatIpConflict"]));
    }
    let id = cx.new_id("snat")?;
    let body = copied!(request => SnatEntry {
        cidr_block, snat_ip;
        instance_id: id.clone(),
        region_id: cx.region(),
        create_time: cx.now,
    });
    let entry = cx.create_part(&gw, id, body);
    cx.put(&entry).await?;
    cx.publication_changed(&gw).await?;
    Ok(response::AddSnatEntry { instance_id: entry.id.clone() })
}

pub async fn describe_snat(
    cx: &mut Cx,
    _: request::DescribeSnatEntries,
) -> Result<response::DescribeSnatEntries> {
    let gw = cx.gateway().await?;
    let page = cx.list_page::<SnatEntry>(&Filter::under(&gw.id)).await?;
    let rows = page.rows.iter().map(|e| {
        copied!(e => response::describe_snat_entries::SnatEntry {
            cidr_block, create_time, instance_id, snat_ip,
        })
    });
    Ok(response::DescribeSnatEntries {
        snat_entries: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn delete_snat(
    cx: &mut Cx,
    request: request::DeleteSnatEntry,
) -> Result<response::DeleteSnatEntry> {
    let gw = cx.gateway_by_id(&request.smart_ag_id).await?;
    let entry = cx.part::<_, SnatEntry>(&gw, &request.instance_id).await?;
    let entry = entry.ok_or_else(|| cx.err(&["InstanceNotExit"]))?;
    cx.remove(&entry).await?;
    cx.publication_changed(&gw).await?;
    Ok(response::DeleteSnatEntry::default())
}

pub async fn add_dnat(cx: &mut Cx, mut request: request::AddDnatEntry) -> Result<response::AddDnatEntry> {
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["FeatureNotSupport"])?;
    if request.r#type == "Internet" {
        // The address of the WAN port, whatever it is.
        request.external_ip = None;
    } else if request.external_ip.is_none() {
        return Err(cx.err(&["MissingParam"]));
    }
    for ip in request.external_ip.iter().chain([&request.internal_ip]) {
        if net::ip(ip).is_none() {
            return Err(cx.err(&["IllegalParam"]));
        }
    }
    let any = |port: &str| port.eq_ignore_ascii_case(ANY_PORT);
    if !request.ip_protocol.eq_ignore_ascii_case("any")
        && any(&request.external_port) != any(&request.internal_port)
    {
        // All ports cannot lead to one, nor one to all.
        return Err(cx.err(&["IllegalParam"]));
    }
    let entries: Vec<Authorised<DnatEntry>> = cx.children(&gw).await?;
    // One outer address and port leads to one place.
    let same = |e: &DnatEntry| {
        e.r#type == request.r#type
            && e.external_ip == request.external_ip
            && e.external_port.eq_ignore_ascii_case(&request.external_port)
            && e.ip_protocol.eq_ignore_ascii_case(&request.ip_protocol)
    };
    if entries.iter().any(|e| same(e)) {
        return Err(cx.err(&["DuplicatedDnatEntry"]));
    }
    if entries.len() >= QUOTA {
        return Err(cx.err(&["SNAT.AmountLimit"]));
    }
    let others: Vec<Authorised<SnatEntry>> = cx.children(&gw).await?;
    if others.iter().any(|e| Some(&e.snat_ip) == request.external_ip.as_ref()) {
        return Err(cx.err(&["SNAT.SnatDnatIpConflict"]));
    }
    let id = cx.new_id("fwd")?;
    let body = copied!(request => DnatEntry {
        sag_id, r#type, external_ip, external_port, internal_ip, internal_port, ip_protocol;
        dnat_entry_id: id.clone(),
        region_id: cx.region(),
        create_time: cx.now,
    });
    let entry = cx.create_part(&gw, id, body);
    cx.put(&entry).await?;
    cx.renew(&gw).await?;
    Ok(response::AddDnatEntry { dnat_entry_id: entry.id.clone() })
}

pub async fn describe_dnat(
    cx: &mut Cx,
    request: request::DescribeDnatEntries,
) -> Result<response::DescribeDnatEntries> {
    let gw = cx.gateway().await?;
    let filter = Filter::under(&gw.id).equals(Column::Variant, request.r#type);
    let page = cx.list_page::<DnatEntry>(&filter).await?;
    let rows = page.rows.iter().map(|e| {
        copied!(e => response::describe_dnat_entries::DnatEntry {
            dnat_entry_id, external_port, internal_ip, internal_port, ip_protocol, r#type;
            external_ip: e.external_ip.clone(),
            sag_id: e.sag_id.clone(),
        })
    });
    Ok(response::DescribeDnatEntries {
        dnat_entries: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn delete_dnat(
    cx: &mut Cx,
    request: request::DeleteDnatEntry,
) -> Result<response::DeleteDnatEntry> {
    let gw = cx.gateway().await?;
    let entry = cx.part::<_, DnatEntry>(&gw, &request.dnat_entry_id).await?;
    let entry = entry.ok_or_else(|| cx.err(&["InstanceNotExit"]))?;
    cx.remove(&entry).await?;
    cx.renew(&gw).await?;
    Ok(response::DeleteDnatEntry::default())
}
