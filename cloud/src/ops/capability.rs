//! What a device can put in force. An agent reports `Capabilities`; calls that need one which is not
//! among them are answered with the documented code. A device that never reported any is not judged.

use sag_southbound::Capability;

use super::cx::Cx;
use crate::api::Op;
use crate::domain::device::Device;
use crate::domain::gateway::Gateway;
use crate::domain::objects::{Authorised, Linked};
use crate::error::Result;

/// Operation, the parameter that decides (empty: every call), its values, the capability.
type Need = (Op, &'static str, &'static [&'static str], Capability);

const NEEDS: &[Need] = &[
    (Op::ModifySagRouteProtocolBgp, "", &[], Capability::Bgp),
    (Op::ModifySagRouteProtocolOspf, "", &[], Capability::Ospf),
    (Op::ModifySagGlobalRouteProtocol, "RouteProtocol", &["BGP"], Capability::Bgp),
    (Op::ModifySagGlobalRouteProtocol, "RouteProtocol", &["OSPF"], Capability::Ospf),
    (Op::ModifySagPortRouteProtocol, "RouteProtocol", &["BGP"], Capability::Bgp),
    (Op::ModifySagPortRouteProtocol, "RouteProtocol", &["OSPF"], Capability::Ospf),
    (Op::ModifySagUserDns, "", &[], Capability::Dns),
    (Op::ModifySagHa, "Mode", &["DYNAMIC", "STATIC"], Capability::Vrrp),
    (Op::ModifySagLan, "IPType", &["DHCP"], Capability::DhcpServer),
    (Op::ModifySagWan, "IPType", &["PPPOE"], Capability::Pppoe),
    (Op::ModifySagRemoteAccess, "", &[], Capability::RemoteAccess),
    (Op::ModifySAGAdminPassword, "", &[], Capability::WebConsole),
    (Op::EnableSmartAGDpiMonitor, "", &[], Capability::Dpi),
    (Op::UpdateSmartAGDpiAttribute, "DpiEnabled", &["true", "True"], Capability::Dpi),
    (Op::AssociateFlowLog, "", &[], Capability::FlowLog),
    (Op::UpdateSmartAccessGatewayVersion, "", &[], Capability::Upgrade),
    (Op::ModifyDeviceAutoUpgradePolicy, "", &[], Capability::Upgrade),
    (Op::UpdateSmartAccessGatewayBgpRoute, "", &[], Capability::Bgp),
    (Op::UpdateSmartAccessGatewayOspfRoute, "", &[], Capability::Ospf),
    (Op::UpdateSmartAccessGatewayGlobalRouteProtocol, "RouteProtocol", &["BGP"], Capability::Bgp),
    (Op::UpdateSmartAccessGatewayGlobalRouteProtocol, "RouteProtocol", &["OSPF"], Capability::Ospf),
    (Op::UpdateSmartAccessGatewayPortRouteProtocol, "RouteProtocol", &["BGP"], Capability::Bgp),
    (Op::UpdateSmartAccessGatewayPortRouteProtocol, "RouteProtocol", &["OSPF"], Capability::Ospf),
    (Op::UpdateSmartAccessGatewayDns, "", &[], Capability::Dns),
    (Op::UpdateSmartAccessGatewayAdminPassword, "", &[], Capability::WebConsole),
    (Op::AddSmartAccessGatewayDnsForward, "", &[], Capability::Dns),
    (Op::UpdateSmartAccessGatewayDnsForward, "", &[], Capability::Dns),
    (Op::CreateServiceAddress, "", &[], Capability::ServiceAddress),
    (Op::CreateProbeTask, "", &[], Capability::ProbeTask),
    (Op::UpdateProbeTask, "", &[], Capability::ProbeTask),
    (Op::SetAdvancedMonitorState, "Enable", &["true", "True", "1"], Capability::AdvancedMonitor),
];

/// Whether the device has reported what it can do and this is not part of it.
fn lacks(d: &Device, capability: &Capability) -> bool {
    d.state.capabilities.as_ref().is_some_and(|have| !have.contains(capability))
}

/// Refuses a call that a device of the gateway cannot put in force.
pub async fn check(op: Op, cx: &mut Cx) -> Result<()> {
    let applies =
        |n: &&Need| n.0 == op && (n.1.is_empty() || cx.opt(n.1).is_some_and(|v| n.2.contains(&v.as_str())));
    let Some((.., capability)) = NEEDS.iter().find(applies) else { return Ok(()) };
    let id = cx.named(&["SmartAGId", "SagId", "SagInsId", "InstanceId"]);
    // Whose it is and whether it exists is the operation's own question.
    let Some(gw) = cx.find::<Gateway>(&id).await? else { return Ok(()) };
    let sn = cx.named(&["SmartAGSn", "SagSn", "Sn", "SerialNumber"]);
    require(cx, &gw, &sn, capability).await
}

/// Refuses a call for a gateway of which a device lacks the capability; an empty serial number is all of its devices.
pub async fn require(cx: &mut Cx, gw: &Authorised<Gateway>, sn: &str, capability: &Capability) -> Result<()> {
    let devices = cx.devices_of(gw).await?;
    let concerned = |d: &&Device| sn.is_empty() || sn == d.sn;
    if devices.iter().filter(concerned).any(|d| lacks(d, capability)) {
        return Err(cx.err(&["FeatureNotSupport"]));
    }
    Ok(())
}

fn no_applications(cx: &Cx, lacking: bool) -> Result<()> {
    if !lacking {
        return Ok(());
    }
    let hint = "A device of a gateway that uses these rules cannot tell applications apart.";
    Err(cx.err(&["FeatureNotSupport"]).with_hint(hint))
}

/// Refuses rules that name applications on gateways of which a device cannot tell them apart.
pub async fn check_applications(cx: &mut Cx, gws: &Linked) -> Result<()> {
    let lacking = cx.inspect_devices_of(gws, |d| lacks(d, &Capability::Dpi)).await?.contains(&true);
    no_applications(cx, lacking)
}

/// The same for a gateway.
pub async fn check_applications_on(cx: &mut Cx, gw: &Authorised<Gateway>) -> Result<()> {
    let lacking = cx.devices_of(gw).await?.iter().any(|d| lacks(d, &Capability::Dpi));
    no_applications(cx, lacking)
}

/// Refuses to use a port that the device does not have.
pub fn check_wired(cx: &Cx, d: &Device, port: &str) -> Result<()> {
    if d.lacks_port(port) {
        let hint = format!("Port {port} has no network device: [ports] of the device's agent.toml.");
        return Err(cx.err(&["Sag.PortNotExist"]).with_hint(hint));
    }
    Ok(())
}

/// What of an operation the device cannot do.
pub fn unsupported(op: Op, d: &Device) -> Vec<&'static str> {
    let mut out: Vec<&str> =
        NEEDS.iter().filter(|n| n.0 == op && lacks(d, &n.3)).map(|n| n.3.as_str()).collect();
    out.dedup();
    out
}
