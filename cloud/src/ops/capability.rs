//! What a device can put in force. An agent reports `Capabilities`; calls that need one which is not
//! among them are answered with the documented code. A device that never reported any is not judged.

use sag_southbound::Capability;

use super::cx::Cx;
use crate::api::Op;
use crate::domain::device::Device;
use crate::domain::gateway::Gateway;
use crate::domain::objects::{Authorised, Linked};
use crate::error::Result;

/// Which calls of an operation need a capability.
enum Calls {
    All,
    /// Those in which the parameter has one of the values.
    With(&'static str, &'static [&'static str]),
    /// Those in which the parameter has another value.
    Unless(&'static str, &'static str),
}

use Calls::{All, Unless, With};

impl Calls {
    fn include(&self, cx: &Cx) -> bool {
        match self {
            All => true,
            With(name, values) => cx.opt(name).is_some_and(|v| values.contains(&v.as_str())),
            Unless(name, value) => cx.opt(name).is_some_and(|v| v != *value),
        }
    }
}

type Need = (Op, Calls, Capability);

const NEEDS: &[Need] = &[
    (Op::ModifySagRouteProtocolBgp, All, Capability::Bgp),
    (Op::ModifySagRouteProtocolOspf, All, Capability::Ospf),
    (Op::ModifySagGlobalRouteProtocol, With("RouteProtocol", &["BGP"]), Capability::Bgp),
    (Op::ModifySagGlobalRouteProtocol, With("RouteProtocol", &["OSPF"]), Capability::Ospf),
    (Op::ModifySagPortRouteProtocol, With("RouteProtocol", &["BGP"]), Capability::Bgp),
    (Op::ModifySagPortRouteProtocol, With("RouteProtocol", &["OSPF"]), Capability::Ospf),
    (Op::ModifySagUserDns, All, Capability::Dns),
    (Op::ModifySagHa, With("Mode", &["DYNAMIC", "STATIC"]), Capability::Vrrp),
    (Op::ModifySagLan, With("IPType", &["DHCP"]), Capability::DhcpServer),
    (Op::ModifySagWan, With("IPType", &["PPPOE"]), Capability::Pppoe),
    (Op::ModifySagWan, Unless("Weight", "100"), Capability::WanWeight),
    (Op::ModifySagManagementPort, All, Capability::ManagementPort),
    (Op::DescribeSagManagementPort, All, Capability::ManagementPort),
    (Op::ModifySagRemoteAccess, All, Capability::RemoteAccess),
    (Op::ModifySAGAdminPassword, All, Capability::WebConsole),
    (Op::EnableSmartAGDpiMonitor, All, Capability::Dpi),
    (Op::UpdateSmartAGDpiAttribute, With("DpiEnabled", &["true", "True"]), Capability::Dpi),
    (Op::AssociateFlowLog, All, Capability::FlowLog),
    (Op::UpdateSmartAGAccessPoint, All, Capability::AccessPoint),
    (Op::ProbeAccessPointNetworkQuality, All, Capability::AccessPointProbe),
    (Op::UpdateSmartAccessGatewayVersion, All, Capability::Upgrade),
    (Op::ModifyDeviceAutoUpgradePolicy, All, Capability::Upgrade),
    (Op::UpdateSmartAccessGatewayBgpRoute, All, Capability::Bgp),
    (Op::UpdateSmartAccessGatewayOspfRoute, All, Capability::Ospf),
    (Op::UpdateSmartAccessGatewayGlobalRouteProtocol, With("RouteProtocol", &["BGP"]), Capability::Bgp),
    (Op::UpdateSmartAccessGatewayGlobalRouteProtocol, With("RouteProtocol", &["OSPF"]), Capability::Ospf),
    (Op::UpdateSmartAccessGatewayPortRouteProtocol, With("RouteProtocol", &["BGP"]), Capability::Bgp),
    (Op::UpdateSmartAccessGatewayPortRouteProtocol, With("RouteProtocol", &["OSPF"]), Capability::Ospf),
    (Op::UpdateSmartAccessGatewayDns, All, Capability::Dns),
    (Op::UpdateSmartAccessGatewayAdminPassword, All, Capability::WebConsole),
    (Op::AddSmartAccessGatewayDnsForward, All, Capability::Dns),
    (Op::UpdateSmartAccessGatewayDnsForward, All, Capability::Dns),
    (Op::CreateServiceAddress, All, Capability::ServiceAddress),
    (Op::CreateProbeTask, All, Capability::ProbeTask),
    (Op::UpdateProbeTask, All, Capability::ProbeTask),
    (Op::SetAdvancedMonitorState, With("Enable", &["true", "True", "1"]), Capability::AdvancedMonitor),
];

/// Refuses a call that a device of the gateway cannot put in force.
pub async fn check(op: Op, cx: &mut Cx) -> Result<()> {
    let needed: Vec<&Capability> =
        NEEDS.iter().filter(|(of, calls, _)| *of == op && calls.include(cx)).map(|n| &n.2).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let id = cx.named(&["SmartAGId", "SagId", "SagInsId", "InstanceId"]);
    // Whose it is and whether it exists is the operation's own question.
    let Some(gw) = cx.find::<Gateway>(&id).await? else { return Ok(()) };
    let sn = cx.named(&["SmartAGSn", "SagSn", "Sn", "SerialNumber"]);
    for capability in needed {
        require(cx, &gw, &sn, capability).await?;
    }
    Ok(())
}

/// Refuses a call for a gateway of which a device lacks the capability; an empty serial number is all of its devices.
pub async fn require(cx: &mut Cx, gw: &Authorised<Gateway>, sn: &str, capability: &Capability) -> Result<()> {
    let devices = cx.devices_of(gw).await?;
    let concerned = |d: &&Device| sn.is_empty() || sn == d.sn;
    if devices.iter().filter(concerned).any(|d| d.lacks(capability)) {
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
    let lacking = cx.inspect_devices_of(gws, |d| d.lacks(&Capability::Dpi)).await?.contains(&true);
    no_applications(cx, lacking)
}

/// The same for a gateway.
pub async fn check_applications_on(cx: &mut Cx, gw: &Authorised<Gateway>) -> Result<()> {
    let lacking = cx.devices_of(gw).await?.iter().any(|d| d.lacks(&Capability::Dpi));
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
        NEEDS.iter().filter(|n| n.0 == op && d.lacks(&n.2)).map(|n| n.2.as_str()).collect();
    out.dedup();
    out
}
