//! What a device of this version can put in force (`Capabilities` of the state report), whatever is installed on it. BGP
//! and OSPF are there where FRR is ([`crate::routing`]), DHCP server and DNS forwarder where dnsmasq is
//! ([`crate::lan_services`]).

use sag_southbound::Capability;

/// In the order of the report.
pub const CAPABILITIES: [Capability; 18] = [
    Capability::Acl,
    Capability::Qos,
    Capability::QosTimeWindow,
    Capability::Snat,
    Capability::Dnat,
    Capability::WanSnat,
    Capability::Bandwidth,
    Capability::StaticRoute,
    Capability::StaticAddress,
    Capability::DhcpClient,
    Capability::HealthCheck,
    Capability::RouteDistribution,
    Capability::Reboot,
    Capability::WanWeight,
    Capability::AccessPointProbe,
    Capability::ProbeTask,
    Capability::ServiceAddress,
    Capability::AdvancedMonitor,
];
