//! What a device of this version can put in force. The cloud answers calls about anything else with
//! its documented code for features that a device does not have.

/// Names in the state report (`Capabilities`).
pub const CAPABILITIES: &[&str] = &[
    "Acl",
    "Qos",
    "QosTimeWindow",
    "Snat",
    "Dnat",
    "WanSnat",
    "Bandwidth",
    "StaticRoute",
    "StaticAddress",
    "DhcpClient",
    "HealthCheck",
    "RouteDistribution",
    "Reboot",
];
