//! The operations that the SDKs have beside documented ones, for the same settings: the same state, checks and effect.

use super::cx::Cx;
use super::fields::copied;
use super::monitor::{OK, SUCCESSFUL};
use super::{device_config, device_state, routes};
use crate::api::{request, response};
use crate::error::Result;

/// Accounts have no roles in each other here: for the caller, a gateway of another account does not exist.
macro_rules! refuse_other_accounts {
    ($cx:expr, $request:expr) => {
        let own = $request.resource_uid.as_ref().is_some_and(|uid| *uid == $cx.uid().to_string());
        if !own && ($request.cross_account == Some(true) || $request.resource_uid.is_some()) {
            return Err($cx.no_gateway(&$request.sag_ins_id));
        }
    };
}

/// The request of the documented operation, with these of its parameters.
macro_rules! documented {
    ($request:expr => $name:ident { $($field:ident),* $(; $($rest:tt)*)? }) => {
        copied!($request => request::$name {
            region_id $(, $field)*;
            smart_ag_id: $request.sag_ins_id.clone(),
            smart_ag_sn: $request.sag_sn.clone(),
            $($($rest)*)?
        })
    };
}

macro_rules! done {
    ($name:ident) => {
        Ok(response::$name { code: OK.to_owned(), message: SUCCESSFUL.to_owned(), success: true })
    };
}

/// `TaskStates` of the documented answer, in the form of the other operation.
macro_rules! tasks {
    ($answer:expr => $operation:ident) => {
        $answer
            .task_states
            .iter()
            .map(|t| copied!(t => response::$operation::TaskStates { create_time, error_code, error_message, state }))
            .collect()
    };
}

pub async fn update_global_protocol(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayGlobalRouteProtocol,
) -> Result<response::UpdateSmartAccessGatewayGlobalRouteProtocol> {
    refuse_other_accounts!(cx, request);
    let same = documented!(request => ModifySagGlobalRouteProtocol { route_protocol });
    routes::modify_global(cx, same).await?;
    done!(UpdateSmartAccessGatewayGlobalRouteProtocol)
}

pub async fn view_global_protocol(
    cx: &mut Cx,
    request: request::ViewSmartAccessGatewayGlobalRouteProtocol,
) -> Result<response::ViewSmartAccessGatewayGlobalRouteProtocol> {
    refuse_other_accounts!(cx, request);
    let answer =
        routes::describe_global(cx, documented!(request => DescribeSagGlobalRouteProtocol {})).await?;
    Ok(copied!(answer => response::ViewSmartAccessGatewayGlobalRouteProtocol {
        route_protocol;
        task_states: tasks!(answer => view_smart_access_gateway_global_route_protocol),
    }))
}

pub async fn update_bgp(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayBgpRoute,
) -> Result<response::UpdateSmartAccessGatewayBgpRoute> {
    refuse_other_accounts!(cx, request);
    let same =
        documented!(request => ModifySagRouteProtocolBgp { router_id, local_as, hold_time, keep_alive });
    routes::modify_bgp(cx, same).await?;
    done!(UpdateSmartAccessGatewayBgpRoute)
}

pub async fn view_bgp(
    cx: &mut Cx,
    request: request::ViewSmartAccessGatewayBgpRoute,
) -> Result<response::ViewSmartAccessGatewayBgpRoute> {
    refuse_other_accounts!(cx, request);
    let answer = routes::describe_bgp(cx, documented!(request => DescribeSagRouteProtocolBgp {})).await?;
    Ok(copied!(answer => response::ViewSmartAccessGatewayBgpRoute {
        router_id, local_as, hold_time, keep_alive;
        task_states: tasks!(answer => view_smart_access_gateway_bgp_route),
    }))
}

/// `InterfaceName`, `Networks`, `OspfCost`, `OspfNetworkType` and `RedistributeProtocol` are not in use, the SDK says.
pub async fn update_ospf(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayOspfRoute,
) -> Result<response::UpdateSmartAccessGatewayOspfRoute> {
    refuse_other_accounts!(cx, request);
    let same = documented!(request => ModifySagRouteProtocolOspf {
        area_id, authentication_type, dead_time, hello_time, router_id, md5_key_id, md5_key, password
    });
    routes::modify_ospf(cx, same).await?;
    done!(UpdateSmartAccessGatewayOspfRoute)
}

pub async fn view_ospf(
    cx: &mut Cx,
    request: request::ViewSmartAccessGatewayOspfRoute,
) -> Result<response::ViewSmartAccessGatewayOspfRoute> {
    refuse_other_accounts!(cx, request);
    let answer = routes::describe_ospf(cx, documented!(request => DescribeSagRouteProtocolOspf {})).await?;
    Ok(copied!(answer => response::ViewSmartAccessGatewayOspfRoute {
        authentication_type, dead_time, hello_time, md5_key, md5_key_id, router_id;
        // Without OSPF there is no area; the form has a number in its place.
        area_id: answer.area_id.parse().unwrap_or_default(),
        task_states: tasks!(answer => view_smart_access_gateway_ospf_route),
    }))
}

pub async fn update_port_protocol(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayPortRouteProtocol,
) -> Result<response::UpdateSmartAccessGatewayPortRouteProtocol> {
    refuse_other_accounts!(cx, request);
    let same = documented!(request => ModifySagPortRouteProtocol {
        port_name, route_protocol, vlan, remote_ip, remote_as
    });
    routes::modify_port(cx, same).await?;
    done!(UpdateSmartAccessGatewayPortRouteProtocol)
}

pub async fn view_port_protocols(
    cx: &mut Cx,
    request: request::ViewSmartAccessGatewayPortRouteProtocol,
) -> Result<response::ViewSmartAccessGatewayPortRouteProtocol> {
    use response::view_smart_access_gateway_port_route_protocol::Ports;
    refuse_other_accounts!(cx, request);
    let answer =
        routes::describe_ports(cx, documented!(request => DescribeSagPortRouteProtocolList {})).await?;
    let ports = answer.ports.iter().map(
        |p| copied!(p => Ports { neighbor_ip, port_name, remote_as, remote_ip, route_protocol, status, vlan }),
    );
    Ok(response::ViewSmartAccessGatewayPortRouteProtocol {
        ports: ports.collect(),
        task_states: tasks!(answer => view_smart_access_gateway_port_route_protocol),
    })
}

pub async fn update_dns(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayDns,
) -> Result<response::UpdateSmartAccessGatewayDns> {
    refuse_other_accounts!(cx, request);
    let same = documented!(request => ModifySagUserDns { master_dns, slave_dns });
    device_config::modify_dns(cx, same).await?;
    done!(UpdateSmartAccessGatewayDns)
}

pub async fn view_dns(
    cx: &mut Cx,
    request: request::ViewSmartAccessGatewayDns,
) -> Result<response::ViewSmartAccessGatewayDns> {
    refuse_other_accounts!(cx, request);
    let answer = device_config::describe_dns(cx, documented!(request => DescribeSagUserDns {})).await?;
    Ok(copied!(answer => response::ViewSmartAccessGatewayDns {
        master_dns, slave_dns;
        task_states: tasks!(answer => view_smart_access_gateway_dns),
    }))
}

/// The documented operation has `ENABLE` and `DISABLE` here.
const SNAT: [(&str, &str); 2] = [("1", "ENABLE"), ("0", "DISABLE")];

pub async fn update_wan_snat(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayWanSnat,
) -> Result<response::UpdateSmartAccessGatewayWanSnat> {
    refuse_other_accounts!(cx, request);
    let word = SNAT.iter().find(|(number, _)| *number == request.snat).map(|(_, word)| (*word).to_owned());
    let snat = word.ok_or_else(|| cx.invalid("Snat"))?;
    let same = documented!(request => ModifySagWanSnat { ; snat, });
    device_config::modify_wan_snat(cx, same).await?;
    done!(UpdateSmartAccessGatewayWanSnat)
}

pub async fn view_wan_snat(
    cx: &mut Cx,
    request: request::ViewSmartAccessGatewayWanSnat,
) -> Result<response::ViewSmartAccessGatewayWanSnat> {
    refuse_other_accounts!(cx, request);
    let answer = device_config::describe_wan_snat(cx, documented!(request => DescribeSagWanSnat {})).await?;
    let number = SNAT.iter().find(|(_, word)| *word == answer.snat).map(|(number, _)| (*number).to_owned());
    Ok(response::ViewSmartAccessGatewayWanSnat {
        snat: number.unwrap_or_default(),
        task_states: tasks!(answer => view_smart_access_gateway_wan_snat),
    })
}

pub async fn update_admin_password(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayAdminPassword,
) -> Result<response::UpdateSmartAccessGatewayAdminPassword> {
    refuse_other_accounts!(cx, request);
    device_config::modify_admin_password(cx, documented!(request => ModifySAGAdminPassword { password }))
        .await?;
    done!(UpdateSmartAccessGatewayAdminPassword)
}

/// In the place of the port of a route through a tunnel.
const TUNNEL: i64 = -1;

pub async fn view_routes(
    cx: &mut Cx,
    request: request::ViewSmartAccessGatewayRoutes,
) -> Result<response::ViewSmartAccessGatewayRoutes> {
    refuse_other_accounts!(cx, request);
    let answer = device_state::route_list(cx, documented!(request => DescribeSagRouteList {})).await?;
    let ports = cx.device().await?.current_ports();
    let rows = answer.routes.into_iter().map(|r| {
        let port = ports.iter().position(|p| p.port_name == r.port_name);
        response::view_smart_access_gateway_routes::Routes {
            conflict_cidrs: r.conflict_cidrs,
            cost: r.cost,
            dst: r.destination_cidr,
            // Ports are numbered; one with another name has its place in the list.
            idx: port.map_or(TUNNEL, |place| r.port_name.parse().unwrap_or(place as i64)),
            nexthop: r.next_hop,
            role: port.map(|place| ports[place].role.clone()).unwrap_or_default(),
            r#type: r.route_protocol.to_ascii_lowercase(),
        }
    });
    Ok(response::ViewSmartAccessGatewayRoutes { routes: rows.collect() })
}
