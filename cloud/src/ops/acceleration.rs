//! Bandwidth for application acceleration: gateways take a part of a package. Packages are made by another API, so any
//! identifier names one.

use sag_southbound::Capability;

use super::capability;
use super::cx::Cx;
use crate::api::{request, response};
use crate::error::Result;

/// Gateways of one call.
const MOST: usize = 20;

pub async fn associate(
    cx: &mut Cx,
    request: request::AssociateSmartAGWithApplicationBandwidthPackage,
) -> Result<response::AssociateSmartAGWithApplicationBandwidthPackage> {
    let part = |cx: &Cx, n: usize, name: &str| cx.opt(&format!("AssociateConfigs.{n}.{name}"));
    let mut configs = Vec::new();
    for n in 1..=MOST {
        let Some(id) = part(cx, n, "SmartAGId") else { break };
        let bandwidth = part(cx, n, "Bandwidth").and_then(|b| b.parse::<i64>().ok());
        configs.push((id, bandwidth.ok_or_else(|| cx.missing("AssociateConfigs.Bandwidth"))?));
    }
    if configs.is_empty() {
        return Err(cx.missing("AssociateConfigs"));
    }
    let package = request.application_bandwidth_package_id;
    for (id, bandwidth) in configs {
        let mut gw = cx.gateway_by_id(&id).await?;
        capability::require(cx, &gw, "", &Capability::ApplicationAcceleration).await?;
        if gw.application_bandwidth_package_id.as_ref().is_some_and(|p| *p != package) {
            return Err(cx.err(&["IncorrectStatus"]).with_hint("The gateway has a part of another package."));
        }
        let body = gw.edit();
        body.application_bandwidth_package_id = Some(package.clone());
        body.accelerate_bandwidth = Some(bandwidth);
        cx.save_gateway(&gw).await?;
    }
    Ok(response::AssociateSmartAGWithApplicationBandwidthPackage::default())
}

pub async fn dissociate(
    cx: &mut Cx,
    request: request::DissociateSmartAGFromApplicationBandwidthPackage,
) -> Result<response::DissociateSmartAGFromApplicationBandwidthPackage> {
    let mut ids = request.smart_ag_id_list;
    ids.extend(request.smart_ag_id);
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        return Err(cx.missing("SmartAGIdList"));
    }
    for id in ids {
        let mut gw = cx.gateway_by_id(&id).await?;
        if gw.application_bandwidth_package_id.as_ref() != Some(&request.application_bandwidth_package_id) {
            return Err(cx.err(&["IncorrectStatus"]).with_hint("The gateway has no part of this package."));
        }
        let body = gw.edit();
        body.application_bandwidth_package_id = None;
        body.accelerate_bandwidth = None;
        cx.save_gateway(&gw).await?;
    }
    Ok(response::DissociateSmartAGFromApplicationBandwidthPackage::default())
}
