//! What a device can put in force: one list for the agent that reports it and the cloud that asks for it.

use crate::words::words;

words! {
    /// A feature of a device.
    ///
    /// The agent lists what its gateway can do in [`StateReport::capabilities`](crate::StateReport::capabilities). The
    /// cloud refuses calls that need a capability which is not in the list, with the documented code. A device that has
    /// never reported a list is not judged.
    pub enum Capability {
        /// Access control lists.
        Acl = "Acl",
        /// QoS policies and rate limits.
        Qos = "Qos",
        /// QoS policies with a start and an end.
        QosTimeWindow = "QosTimeWindow",
        /// SNAT entries.
        Snat = "Snat",
        /// DNAT entries.
        Dnat = "Dnat",
        /// SNAT to the address of a WAN port.
        WanSnat = "WanSnat",
        /// The bandwidth of the instance and of its uplink.
        Bandwidth = "Bandwidth",
        /// Static routes.
        StaticRoute = "StaticRoute",
        /// Static addresses of ports.
        StaticAddress = "StaticAddress",
        /// WAN ports with an address by DHCP.
        DhcpClient = "DhcpClient",
        /// Health checks.
        HealthCheck = "HealthCheck",
        /// Routes that depend on health checks.
        RouteDistribution = "RouteDistribution",
        /// The command `Reboot`.
        Reboot = "Reboot",
        /// BGP.
        Bgp = "Bgp",
        /// OSPF.
        Ospf = "Ospf",
        /// DNS servers of the device.
        Dns = "Dns",
        /// High availability of two devices.
        Vrrp = "Vrrp",
        /// LAN ports that serve DHCP.
        DhcpServer = "DhcpServer",
        /// WAN ports with an address by PPPoE.
        Pppoe = "Pppoe",
        /// An address for remote access.
        RemoteAccess = "RemoteAccess",
        /// The web console of the device and its password.
        WebConsole = "WebConsole",
        /// Deep packet inspection.
        Dpi = "Dpi",
        /// Flow logs.
        FlowLog = "FlowLog",
        /// The command `Upgrade` and the policy of automatic upgrades.
        Upgrade = "Upgrade",
        /// The address of the management port.
        ManagementPort = "ManagementPort",
        /// Shares of the traffic for WAN ports of one priority.
        WanWeight = "WanWeight",
        /// The choice of the access point by which the device reaches the network.
        AccessPoint = "AccessPoint",
        /// The command `ProbeAccessPoints`.
        AccessPointProbe = "AccessPointProbe",
        /// Probe tasks. Since version 1.3.
        ProbeTask = "ProbeTask",
        /// Addresses of the device for probes. Since version 1.3.
        ServiceAddress = "ServiceAddress",
        /// Frequent reports of state. Since version 1.3.
        AdvancedMonitor = "AdvancedMonitor",
        /// A bandwidth for application acceleration. Since version 1.3.
        ApplicationAcceleration = "ApplicationAcceleration",
    }
}
