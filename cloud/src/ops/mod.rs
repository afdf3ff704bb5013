//! The operations, one file for each family.

pub use access_points::outcome as probe_outcome;

mod acceleration;
mod access_points;
mod acl;
mod acl_rules;
mod app_codes;
mod app_stats;
mod app_users;
mod capability;
mod ccn;
pub mod commands;
pub mod cx;
mod device;
mod device_config;
mod device_state;
mod diagnosis;
mod distribution;
mod dns_forwards;
mod dpi;
mod fields;
mod flow_log;
mod gateway;
mod gateway_list;
mod grants;
mod groups;
mod health;
pub mod members;
mod monitor;
mod nat;
mod orders;
mod ports;
mod probes;
mod qos;
mod qos_rules;
mod regions;
mod routes;
mod twins;
mod upgrade;
mod vbr;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::api::Op;
use crate::api::request::{self, Request};
use crate::api::response::{self, Answer, Response};
use crate::api::shape::Shaped;
use crate::error::Result;
use cx::Cx;

/// The answer as JSON, with the identifier of the request.
fn written<R: Response>(response: &R, request_id: &str) -> Result<String> {
    Ok(serde_json::to_string(&Answer { request_id, response })?)
}

/// An answer that an older version stored, in its documented form.
pub fn shaped(op: Op, mut answer: Value, request_id: &str) -> Result<String> {
    // One operation has the field with a small letter too; what an operation does not have is left out.
    for name in ["RequestId", "requestId"] {
        answer[name] = request_id.into();
    }
    Ok(serde_json::to_string(&Shaped::new(&op.spec().response, &answer))?)
}

/// One arm for every operation of the catalogue: leaving one out does not compile, and neither does the answer of
/// another operation.
macro_rules! handlers {
    ($op:expr, $cx:expr, $id:expr, { $($name:ident => $module:ident :: $function:ident,)* }) => {
        match $op {
            $(Op::$name => {
                let request = <request::$name as Request>::read(&$cx.params);
                let answer: response::$name = Box::pin($module::$function($cx, request)).await?;
                written(&answer, $id)
            })*
        }
    };
}

/// Carries the operation out; returns its answer as JSON.
///
/// # Errors
/// The documented refusals of the operation, and failures of the database.
pub async fn call(op: Op, cx: &mut Cx, request_id: &str) -> Result<String> {
    let answer = handle(op, cx, request_id).await.map_err(|mut e| {
        // A hint may name objects that the user may not see.
        if cx.access().filters() && e.code != cx.access().refusal().code {
            e.hint = None;
        }
        e
    })?;
    cx.access().finish()?;
    Ok(answer)
}

async fn handle(op: Op, cx: &mut Cx, request_id: &str) -> Result<String> {
    capability::check(op, cx).await?;
    handlers!(op, cx, request_id, {
        CreateSmartAccessGateway => orders::create,
        UpgradeSmartAccessGateway => orders::upgrade,
        DowngradeSmartAccessGateway => orders::downgrade,
        CreateSmartAccessGatewaySoftware => orders::create_software,
        UpgradeSmartAccessGatewaySoftware => orders::upgrade_software,
        DowngradeSmartAccessGatewaySoftware => orders::downgrade_software,
        GetSmartAccessGatewayUseLimit => orders::use_limit,
        BindSmartAccessGateway => ccn::bind,
        UnbindSmartAccessGateway => ccn::unbind,
        CreateCloudConnectNetwork => ccn::create,
        ModifyCloudConnectNetwork => ccn::modify,
        DeleteCloudConnectNetwork => ccn::delete,
        DescribeCloudConnectNetworks => ccn::describe,
        GetCloudConnectNetworkUseLimit => ccn::use_limit,
        ModifyCloudConnectNetworkMember => members::modify,
        DescribeCloudConnectNetworkMembers => members::describe,
        RenewSmartAccessGateway => orders::renew,
        ListAccessPoints => access_points::list,
        ListAccessPointNetworkQualities => access_points::qualities,
        ProbeAccessPointNetworkQuality => access_points::probe,
        UpdateSmartAGAccessPoint => access_points::update,
        ListSmartAGByAccessPoint => access_points::gateways,
        MoveResourceGroup => groups::move_resource,
        CreateSmartAccessGatewayClientUser => app_users::create,
        DescribeSmartAccessGatewayClientUsers => app_users::describe,
        ModifySmartAccessGatewayClientUser => app_users::modify,
        DeleteSmartAccessGatewayClientUser => app_users::delete,
        ResetSmartAccessGatewayClientUserPassword => app_users::reset_password,
        EnableSmartAccessGatewayUser => app_users::enable,
        DisableSmartAccessGatewayUser => app_users::disable,
        RoamClientUser => app_users::roam,
        ModifyClientUserDNS => app_users::modify_dns,
        DescribeClientUserDNS => app_users::describe_dns,
        DescribeUserOnlineClientStatistics => app_stats::user_counts,
        KickOutClients => app_stats::kick,
        DescribeUserOnlineClients => app_stats::online,
        DescribeSagOnlineClientStatistics => app_stats::gateway_counts,
        DescribeUserFlowStatistics => app_stats::flow,
        CreateEnterpriseCode => app_codes::create,
        UpdateEnterpriseCode => app_codes::update,
        DeleteEnterpriseCode => app_codes::delete,
        ListEnterpriseCode => app_codes::list,
        UpdateSmartAGEnterpriseCode => app_codes::assign,
        UpdateSmartAGDpiAttribute => dpi::update,
        ListDpiSignatures => dpi::signatures,
        ListDpiGroups => dpi::groups,
        DisableSmartAGDpiMonitor => dpi::disable_monitor,
        EnableSmartAGDpiMonitor => dpi::enable_monitor,
        GetSmartAGDpiAttribute => dpi::attribute,
        ListDpiConfigError => dpi::config_errors,
        ActivateSmartAccessGateway => gateway::activate,
        ModifySmartAccessGateway => gateway::modify,
        DeleteSmartAccessGateway => gateway::delete,
        UnlockSmartAccessGateway => gateway::unlock,
        RebootSmartAccessGateway => gateway::reboot,
        ModifySmartAccessGatewayUpBandwidth => gateway::modify_up_bandwidth,
        ClearSagRouteableAddress => gateway::clear_routeable_address,
        BindSerialNumber => gateway::bind_serial,
        UnbindSerialNumber => gateway::unbind_serial,
        ClearSagCipher => gateway::clear_cipher,
        DescribeSmartAccessGateways => gateway_list::describe,
        DescribeSmartAccessGatewayAttribute => gateway_list::attribute,
        DescribeBindableSmartAccessGateways => gateway_list::bindable,
        CreateACL => acl::create,
        ModifyACL => acl::modify,
        DeleteACL => acl::delete,
        DescribeACLs => acl::describe,
        AssociateACL => acl::associate,
        DisassociateACL => acl::disassociate,
        GetAclAttribute => acl::errors,
        AddACLRule => acl_rules::add,
        DeleteACLRule => acl_rules::delete,
        ModifyACLRule => acl_rules::modify,
        DescribeACLAttribute => acl_rules::describe,
        CreateQos => qos::create,
        ModifyQos => qos::modify,
        DeleteQos => qos::delete,
        DescribeQoses => qos::describe,
        AssociateQos => qos::associate,
        DisassociateQos => qos::disassociate,
        GetQosAttribute => qos::attribute,
        CreateQosPolicy => qos_rules::create_policy,
        ModifyQosPolicy => qos_rules::modify_policy,
        DeleteQosPolicy => qos_rules::delete_policy,
        DescribeQosPolicies => qos_rules::describe_policies,
        CreateQosCar => qos_rules::create_car,
        ModifyQosCar => qos_rules::modify_car,
        DeleteQosCar => qos_rules::delete_car,
        DescribeQosCars => qos_rules::describe_cars,
        DescribeRegions => regions::describe,
        BindVbr => vbr::bind,
        UnbindVbr => vbr::unbind,
        GrantSagInstanceToVbr => vbr::grant,
        RevokeInstanceFromVbr => vbr::revoke,
        DescribeGrantSagVbrRules => vbr::describe_grants,
        DescribeSagVbrRelations => vbr::relations,
        GrantSagInstanceToCcn => grants::grant_ccn,
        RevokeSagInstanceFromCcn => grants::revoke_ccn,
        DescribeGrantSagRules => grants::describe_ccn,
        GrantInstanceToCbn => grants::grant_cen,
        RevokeInstanceFromCbn => grants::revoke_cen,
        DescribeGrantRules => grants::describe_cen,
        AddSnatEntry => nat::add_snat,
        DescribeSnatEntries => nat::describe_snat,
        DeleteSnatEntry => nat::delete_snat,
        AddDnatEntry => nat::add_dnat,
        DescribeDnatEntries => nat::describe_dnat,
        DeleteDnatEntry => nat::delete_dnat,
        CreateFlowLog => flow_log::create,
        ModifyFlowLogAttribute => flow_log::modify,
        DescribeFlowLogs => flow_log::describe,
        DeleteFlowLog => flow_log::delete,
        ActiveFlowLog => flow_log::activate,
        DeactiveFlowLog => flow_log::deactivate,
        AssociateFlowLog => flow_log::associate,
        DisassociateFlowLog => flow_log::disassociate,
        DescribeFlowLogSags => flow_log::gateways,
        DescribeUnbindFlowLogSags => flow_log::unbound,
        DescribeRouteDistributionStrategies => distribution::describe,
        ModifyRouteDistributionStrategy => distribution::modify,
        DeleteRouteDistributionStrategy => distribution::delete,
        CreateHealthCheck => health::create,
        ModifyHealthCheck => health::modify,
        DeleteHealthCheck => health::delete,
        DescribeHealthChecks => health::describe,
        DescribeHealthCheckAttribute => health::attribute,
        ModifySagHa => device_config::modify_ha,
        DescribeSagHa => device_config::describe_ha,
        ModifySagUserDns => device_config::modify_dns,
        DescribeSagUserDns => device_config::describe_dns,
        ModifySagWifi => device_config::modify_wifi,
        DescribeSagWifi => device_config::describe_wifi,
        DescribeSagWan4G => device_config::describe_wan4g,
        ModifySagRemoteAccess => device_config::modify_remote_access,
        DescribeSagRemoteAccess => device_config::describe_remote_access,
        ModifySAGAdminPassword => device_config::modify_admin_password,
        ListSmartAGApiUnsupportedFeature => device_config::unsupported_features,
        ModifySagWanSnat => device_config::modify_wan_snat,
        DescribeSagWanSnat => device_config::describe_wan_snat,
        ModifySagPortRole => ports::modify_role,
        DescribeSagPortList => ports::describe,
        ModifySagWan => ports::modify_wan,
        ModifySagLan => ports::modify_lan,
        DescribeSagLanList => ports::describe_lans,
        ModifySagManagementPort => ports::modify_management,
        DescribeSagManagementPort => ports::describe_management,
        CreateSagExpressConnectInterface => ports::create_ecc,
        ModifySagExpressConnectInterface => ports::modify_ecc,
        DeleteSagExpressConnectInterface => ports::delete_ecc,
        DescribeSagExpressConnectInterfaceList => ports::describe_ecc,
        DescribeSmartAccessGatewayVersions => upgrade::versions,
        UpdateSmartAccessGatewayVersion => upgrade::update,
        ModifyDeviceAutoUpgradePolicy => upgrade::modify_policy,
        DescribeDeviceAutoUpgradePolicy => upgrade::describe_policy,
        DescribeSagCurrentDns => device_state::current_dns,
        DescribeSAGDeviceInfo => device_state::info,
        SynchronizeSmartAGWebConfig => device_state::synchronize,
        DescribeSagDropTopN => device_state::drop_top,
        DescribeSagTrafficTopN => device_state::traffic_top,
        DescribeSmartAccessGatewayHa => device_state::gateway_ha,
        DescribeSagRouteList => device_state::route_list,
        DescribeSagWanList => device_state::wan_list,
        DiagnoseSmartAccessGateway => diagnosis::start,
        DiscribeSmartAccessGatewayDiagnosisReport => diagnosis::report,
        ModifySagGlobalRouteProtocol => routes::modify_global,
        DescribeSagGlobalRouteProtocol => routes::describe_global,
        ModifySagRouteProtocolBgp => routes::modify_bgp,
        DescribeSagRouteProtocolBgp => routes::describe_bgp,
        ModifySagRouteProtocolOspf => routes::modify_ospf,
        DescribeSagRouteProtocolOspf => routes::describe_ospf,
        ModifySagPortRouteProtocol => routes::modify_port,
        DescribeSagPortRouteProtocolList => routes::describe_ports,
        CreateSagStaticRoute => routes::create_static,
        ModifySagStaticRoute => routes::modify_static,
        DeleteSagStaticRoute => routes::delete_static,
        DescribeSagStaticRouteList => routes::describe_static,
        UpdateSmartAccessGatewayGlobalRouteProtocol => twins::update_global_protocol,
        ViewSmartAccessGatewayGlobalRouteProtocol => twins::view_global_protocol,
        UpdateSmartAccessGatewayBgpRoute => twins::update_bgp,
        ViewSmartAccessGatewayBgpRoute => twins::view_bgp,
        UpdateSmartAccessGatewayOspfRoute => twins::update_ospf,
        ViewSmartAccessGatewayOspfRoute => twins::view_ospf,
        UpdateSmartAccessGatewayPortRouteProtocol => twins::update_port_protocol,
        ViewSmartAccessGatewayPortRouteProtocol => twins::view_port_protocols,
        UpdateSmartAccessGatewayDns => twins::update_dns,
        ViewSmartAccessGatewayDns => twins::view_dns,
        UpdateSmartAccessGatewayWanSnat => twins::update_wan_snat,
        ViewSmartAccessGatewayWanSnat => twins::view_wan_snat,
        UpdateSmartAccessGatewayAdminPassword => twins::update_admin_password,
        ViewSmartAccessGatewayRoutes => twins::view_routes,
        AddSmartAccessGatewayDnsForward => dns_forwards::add,
        UpdateSmartAccessGatewayDnsForward => dns_forwards::update,
        DeleteSmartAccessGatewayDnsForward => dns_forwards::delete,
        ViewSmartAccessGatewayDnsForwards => dns_forwards::view,
        CreateProbeTask => probes::create,
        UpdateProbeTask => probes::update,
        DeleteProbeTask => probes::delete,
        ListProbeTask => probes::list,
        DescribeProbeTaskResults => probes::results,
        CreateServiceAddress => monitor::create_address,
        DeleteServiceAddress => monitor::delete_address,
        ListAvailableServiceAddress => monitor::list_addresses,
        SetAdvancedMonitorState => monitor::set_advanced,
        GetAdvancedMonitorState => monitor::advanced,
        AttachCcnInstanceToCen => grants::attach_cen,
        DetachCcnInstanceFromCen => grants::detach_cen,
        AssociateSmartAGWithApplicationBandwidthPackage => acceleration::associate,
        DissociateSmartAGFromApplicationBandwidthPackage => acceleration::dissociate,
        UpdateSmartAGUserAccelerateConfig => app_users::accelerate,
    })
}
