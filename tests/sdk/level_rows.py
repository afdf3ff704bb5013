"""The operations in an order in which they can be called, each with what is to be seen."""

from __future__ import annotations

from helpers import ORDER
from levels import (
    ACCELERATION,
    APP,
    CEN,
    CONSOLE,
    DPI,
    LOGS,
    MANAGEMENT,
    POINTS,
    RADIO,
    UPDATES,
    VBR,
    acts,
    app,
    dev,
    gw,
    ins,
    just,
    measured,
    refused,
    sag,
    serial,
    shows,
    stored,
    task,
    waits,
)

LIST = "DescribeSmartAccessGateways"
ATTRIBUTE = "DescribeSmartAccessGatewayAttribute"

GATEWAYS = [
    acts("CreateSmartAccessGateway", just(**dict(ORDER, HardWareSpec="sag-vcpe", MaxBandWidth=50, HaType="warm_backup",
                                                 Name="late")), keep=("late", "SmartAGId")),
    stored("ActivateSmartAccessGateway", just(SmartAGId="$unused"), ATTRIBUTE, just(SmartAGId="$unused")),
    acts("UpgradeSmartAccessGateway", gw(BandWidthSpec=100, AutoPay=True)),
    acts("DowngradeSmartAccessGateway", gw(BandWidthSpec=20, AutoPay=True)),
    shows("GetSmartAccessGatewayUseLimit", just(), "'UsedAmount': "),
    acts("ModifySmartAccessGateway", gw(CidrBlock="10.21.0.0/24")),
    acts("ModifySmartAccessGatewayUpBandwidth", gw(UpBandwidthWan=7)),
    acts("RebootSmartAccessGateway", gw(), command="Reboot"),
    acts("ModifySmartAccessGateway", gw(SecurityLockThreshold=3600), part="SecurityLockThreshold"),
    acts("UnlockSmartAccessGateway", gw()),
    stored("ClearSagCipher", sag(SnNumber="$sn"), "document", gw()),
    stored("ClearSagRouteableAddress", sag(), "", just()),
    stored("BindSerialNumber", just(SmartAGId="$bare", SerialNumber="$new_sn"), LIST, just(SmartAGId="$bare")),
    stored("UnbindSerialNumber", just(SmartAGId="$bare", SerialNumber="$new_sn"), LIST, just(SmartAGId="$bare")),
    measured(LIST, gw(), IpsecStatus="down"),
    measured(ATTRIBUTE, gw(), IpsecStatus="down"),
    shows("DescribeBindableSmartAccessGateways", just(PageSize=100), "$sag"),
    stored("MoveResourceGroup", just(ResourceId="$sag", ResourceType="smartag", NewResourceGroupId="rg-new"), LIST, gw()),
    shows("DescribeRegions", just(), "cn-shanghai"),
    shows("DescribeSmartAccessGatewayVersions", gw(), "device-0.1.1"),
    refused(UPDATES, "UpdateSmartAccessGatewayVersion", gw(VersionCode="0.1.1")),
    refused(UPDATES, "ModifyDeviceAutoUpgradePolicy", serial(UpgradeType="manual")),
    waits(UPDATES, shows("DescribeDeviceAutoUpgradePolicy", serial(), "0 0 4 1/1 * ?")),
    stored("DeleteSmartAccessGateway", just(InstanceId="$unused"), LIST, just(SmartAGId="$unused")),
]

NETWORKS = [
    stored("CreateCloudConnectNetwork", just(Name="coverage"), "DescribeCloudConnectNetworks", just(),
           keep=("ccn", "CcnId")),
    shows("DescribeCloudConnectNetworks", just(CcnId="$ccn"), "$ccn"),
    shows("GetCloudConnectNetworkUseLimit", just(), "'UsedAmount': "),
    acts("BindSmartAccessGateway", gw(CcnId="$ccn")),
    stored("ModifyCloudConnectNetwork", just(CcnId="$ccn", Name="renamed"), "DescribeCloudConnectNetworks",
           just(CcnId="$ccn"), part="Name"),
    waits(VBR, stored("BindVbr", gw(VbrId="vbr-coverage", VbrRegionId="cn-hangzhou"), "DescribeSagVbrRelations",
                      just(VbrInstanceIds=["vbr-coverage"], VbrRegionId="cn-hangzhou"))),
    waits(VBR, shows("DescribeSagVbrRelations", just(VbrInstanceIds=["vbr-coverage"], VbrRegionId="cn-hangzhou"), "$sag")),
    waits(VBR, stored("UnbindVbr", gw(VbrId="vbr-coverage", VbrRegionId="cn-hangzhou"), "DescribeSagVbrRelations",
                      just(VbrInstanceIds=["vbr-coverage"], VbrRegionId="cn-hangzhou"))),
    waits(VBR, stored("GrantSagInstanceToVbr", gw(VbrInstanceId="vbr-other", VbrRegionId="cn-hangzhou", VbrUid="$other_uid"),
                      "DescribeGrantSagVbrRules", gw())),
    waits(VBR, shows("DescribeGrantSagVbrRules", gw(), "vbr-other")),
    waits(VBR, stored("RevokeInstanceFromVbr", gw(VbrInstanceId="vbr-other"), "DescribeGrantSagVbrRules", gw())),
    refused(POINTS, "UpdateSmartAGAccessPoint", gw(AccessPointId="$point")),
    shows("ListSmartAGByAccessPoint", just(AccessPointId="$first_point"), "$sag"),
    acts("UnbindSmartAccessGateway", gw(CcnId="$ccn")),
    stored("GrantSagInstanceToCcn", gw(CcnInstanceId="$other_ccn", CcnUid="$other_uid"), "DescribeGrantSagRules", gw()),
    shows("DescribeGrantSagRules", gw(), "$other_ccn"),
    stored("RevokeSagInstanceFromCcn", gw(CcnInstanceId="$other_ccn"), "DescribeGrantSagRules", gw()),
    waits(CEN, stored("GrantInstanceToCbn", just(CcnInstanceId="$ccn", CenInstanceId="cen-1", CenUid=1),
                      "DescribeGrantRules", just())),
    waits(CEN, shows("DescribeGrantRules", just(), "cen-1")),
    waits(CEN, stored("RevokeInstanceFromCbn", just(CcnInstanceId="$ccn", CenInstanceId="cen-1"), "DescribeGrantRules",
                      just())),
    waits(CEN, stored("AttachCcnInstanceToCen", just(CcnId="$ccn", CenId="cen-2"), "DescribeCloudConnectNetworks",
                      just(CcnId="$ccn"))),
    waits(CEN, stored("DetachCcnInstanceFromCen", just(CcnId="$ccn", CenId="cen-2"), "DescribeCloudConnectNetworks",
                      just(CcnId="$ccn"))),
    stored("DeleteCloudConnectNetwork", just(CcnId="$ccn"), "DescribeCloudConnectNetworks", just()),
]

RULE = dict(SourceCidr="10.0.0.0/24", DestCidr="0.0.0.0/0", IpProtocol="tcp", SourcePortRange="-1/-1",
            DestPortRange="80/443", Direction="out", Policy="accept", Priority=5)
POLICY = dict(Priority=1, SourceCidr="10.10.10.0/24", DestCidr="10.10.20.0/24", IpProtocol="TCP",
              SourcePortRange="-1/-1", DestPortRange="80/80")
CAR = dict(Priority=1, LimitType="Absolute", MinBandwidthAbs=2, MaxBandwidthAbs=6, MinBandwidthPercent=1,
           MaxBandwidthPercent=2, PercentSourceType="CcnBandwidth")
DNAT = dict(Type="Intranet", ExternalIp="10.10.1.1", ExternalPort="80", InternalIp="192.168.0.9", InternalPort="8080",
            IpProtocol="TCP")

POLICIES = [
    stored("CreateACL", just(Name="coverage"), "DescribeACLs", just(), keep=("acl", "AclId")),
    stored("ModifyACL", just(AclId="$acl", Name="renamed"), "DescribeACLs", just()),
    shows("DescribeACLs", just(), "$acl"),
    acts("AssociateACL", gw(AclId="$acl")),
    acts("AddACLRule", just(AclId="$acl", **RULE), keep=("acr", "AcrId")),
    acts("ModifyACLRule", just(AclId="$acl", AcrId="$acr", DestPortRange="81/81")),
    shows("DescribeACLAttribute", just(AclId="$acl"), "$acr"),
    shows("GetAclAttribute", just(AclId="$acl"), "renamed"),
    acts("DeleteACLRule", just(AclId="$acl", AcrId="$acr")),
    acts("DisassociateACL", gw(AclId="$acl")),
    stored("DeleteACL", just(AclId="$acl"), "DescribeACLs", just()),
    stored("CreateQos", just(QosName="coverage"), "DescribeQoses", just(), keep=("qos", "QosId")),
    stored("ModifyQos", just(QosId="$qos", QosName="renamed"), "DescribeQoses", just()),
    shows("DescribeQoses", just(), "$qos"),
    acts("AssociateQos", gw(QosId="$qos")),
    acts("CreateQosPolicy", just(QosId="$qos", **POLICY), keep=("qospy", "QosPolicyId")),
    acts("ModifyQosPolicy", just(QosId="$qos", QosPolicyId="$qospy", DestPortRange="81/81")),
    shows("DescribeQosPolicies", just(QosId="$qos"), "$qospy"),
    acts("CreateQosCar", just(QosId="$qos", **CAR), keep=("car", "QosCarId")),
    acts("ModifyQosCar", just(QosId="$qos", QosCarId="$car", MaxBandwidthAbs=9)),
    shows("DescribeQosCars", just(QosId="$qos"), "$car"),
    shows("GetQosAttribute", just(QosId="$qos"), "$car"),
    acts("DeleteQosPolicy", just(QosId="$qos", QosPolicyId="$qospy")),
    acts("DeleteQosCar", just(QosId="$qos", QosCarId="$car")),
    acts("DisassociateQos", gw(QosId="$qos")),
    stored("DeleteQos", just(QosId="$qos"), "DescribeQoses", just()),
    acts("AddSnatEntry", gw(CidrBlock="192.168.0.0/24", SnatIp="10.0.0.1"), keep=("snat", "InstanceId")),
    shows("DescribeSnatEntries", gw(), "$snat"),
    acts("DeleteSnatEntry", gw(InstanceId="$snat")),
    acts("AddDnatEntry", sag(**DNAT), keep=("dnat", "DnatEntryId")),
    shows("DescribeDnatEntries", sag(), "$dnat"),
    acts("DeleteDnatEntry", sag(DnatEntryId="$dnat")),
    acts("ModifySagWanSnat", dev(Snat="ENABLE")),
    shows("DescribeSagWanSnat", dev(), "ENABLE"),
    acts("UpdateSmartAccessGatewayWanSnat", ins(Snat="0")),
    shows("ViewSmartAccessGatewayWanSnat", ins(), "'Snat': '0'"),
]

ROUTE = dict(DestinationCidr="192.168.77.0/24", PortName="1", Vlan="0")
STRATEGY = dict(DestCidrBlock="10.21.0.0/24", RouteSource="STATIC", SourceType="local")
BGP_SETTINGS = dict(LocalAs=65001, HoldTime=9, KeepAlive=3, RouterId="10.0.0.1")
OSPF_SETTINGS = dict(AreaId=10, AuthenticationType="NONE", DeadTime=40, HelloTime=10, RouterId="10.0.0.1")
HEALTH = [{"HcInstanceId": "$hc", "Status": "failed", "Rtt": 4.0, "Loss": 100.0}]

ROUTES = [
    acts("CreateSagStaticRoute", dev(NextHop="192.168.1.9", **ROUTE)),
    acts("ModifySagStaticRoute", dev(NextHop="192.168.1.10", **ROUTE)),
    shows("DescribeSagStaticRouteList", dev(), "192.168.1.10"),
    acts("DeleteSagStaticRoute", dev(**ROUTE)),
    measured("DescribeSagRouteList", dev(), Routes=[{"DestinationCidr": "10.5.0.0/16", "PortName": "0"}]),
    measured("ViewSmartAccessGatewayRoutes", ins(), Routes=[{"DestinationCidr": "10.5.0.0/16", "PortName": "0"}]),
    acts("ModifySagGlobalRouteProtocol", dev(RouteProtocol="BGP")),
    shows("DescribeSagGlobalRouteProtocol", dev(), "BGP"),
    acts("ModifySagRouteProtocolBgp", dev(**BGP_SETTINGS)),
    shows("DescribeSagRouteProtocolBgp", dev(), "65001"),
    acts("UpdateSmartAccessGatewayBgpRoute", ins(**dict(BGP_SETTINGS, LocalAs=65002))),
    shows("ViewSmartAccessGatewayBgpRoute", ins(), "65002"),
    acts("UpdateSmartAccessGatewayGlobalRouteProtocol", ins(RouteProtocol="OSPF")),
    shows("ViewSmartAccessGatewayGlobalRouteProtocol", ins(), "OSPF"),
    acts("ModifySagRouteProtocolOspf", dev(**OSPF_SETTINGS)),
    shows("DescribeSagRouteProtocolOspf", dev(), "10.0.0.1"),
    acts("UpdateSmartAccessGatewayOspfRoute", ins(**dict(OSPF_SETTINGS, RouterId="10.0.0.2"))),
    shows("ViewSmartAccessGatewayOspfRoute", ins(), "10.0.0.2"),
    acts("ModifySagPortRouteProtocol", dev(PortName="1", RouteProtocol="OSPF")),
    measured("DescribeSagPortRouteProtocolList", dev(), RouteNeighbors=[{"PortName": "1", "Address": "192.168.1.9", "Up": True}]),
    measured("ViewSmartAccessGatewayPortRouteProtocol", ins(),
             RouteNeighbors=[{"PortName": "1", "Address": "192.168.1.9", "Up": True}]),
    acts("UpdateSmartAccessGatewayPortRouteProtocol", ins(PortName="1", RouteProtocol="STATIC")),
    acts("CreateHealthCheck", gw(Name="probe", DstIpAddr="192.168.1.1", SrcIpAddr="10.0.0.1", Type="ICMP_ECHO"),
         keep=("hc", "InstanceId")),
    acts("ModifyHealthCheck", gw(HcInstanceId="$hc", ProbeInterval=3000)),
    measured("DescribeHealthChecks", gw(), HealthChecks=HEALTH),
    shows("DescribeHealthCheckAttribute", gw(HcInstanceId="$hc"), "3000"),
    acts("ModifyRouteDistributionStrategy", gw(RouteDistribution="publish_and_revoke_on_health_fail", HcInstanceId="$hc",
                                               **STRATEGY)),
    shows("DescribeRouteDistributionStrategies", gw(SourceType="local"), "publish_and_revoke_on_health_fail"),
    acts("DeleteRouteDistributionStrategy", gw(**STRATEGY)),
    acts("DeleteHealthCheck", just(HcInstanceId="$hc")),
    acts("ModifySagHa", dev(Mode="STATIC", PortName="1", VirtualIp="192.168.1.254")),
    shows("DescribeSagHa", dev(), "192.168.1.254"),
    measured("DescribeSmartAccessGatewayHa", gw(), HaState="Active"),
]

LINE = dict(PortName="3", IP="192.168.20.1", Mask="255.255.255.252", Vlan="10")
LAN = dict(PortName="1", IP="192.168.1.1", Mask="255.255.255.0")
WAN = dict(PortName="0", IPType="STATIC", IP="198.51.100.2", Mask="255.255.255.0", Gateway="198.51.100.1")
DOWN = [{"PortName": "0", "Role": "WAN", "Status": "Down", "Mac": "02:00:00:00:00:09"}]
POOL = dict(IPType="DHCP", StartIp="192.168.1.2", EndIp="192.168.1.254", Lease="60")

DEVICE = [
    acts("ModifySagPortRole", dev(PortName="4", Role="LAN")),
    measured("DescribeSagPortList", dev(), Ports=DOWN),
    acts("ModifySagWan", dev(**WAN), part="STATIC, DHCP"),
    acts("ModifySagWan", dev(PortName="0", IPType="PPPOE", Username="P12ppp123", Password="hunter2hunter2"), part="PPPOE"),
    measured("DescribeSagWanList", dev(), Wans=[{"PortName": "0", "IP": "203.0.113.9"}]),
    acts("ModifySagLan", dev(IPType="STATIC", **LAN), part="STATIC"),
    acts("ModifySagLan", dev(**LAN, **POOL), part="DHCP"),
    shows("DescribeSagLanList", dev(), "192.168.1.1"),
    acts("CreateSagExpressConnectInterface", dev(**LINE)),
    acts("ModifySagExpressConnectInterface", dev(**dict(LINE, IP="192.168.30.1"))),
    shows("DescribeSagExpressConnectInterfaceList", dev(PortName="3"), "192.168.30.1"),
    acts("DeleteSagExpressConnectInterface", dev(PortName="3", Vlan="10")),
    refused(MANAGEMENT, "ModifySagManagementPort", dev(IP="192.168.9.1", Mask="255.255.255.0")),
    refused(MANAGEMENT, "DescribeSagManagementPort", dev()),
    acts("ModifySagUserDns", dev(MasterDns="192.0.2.53", SlaveDns="2001:db8::53")),
    shows("DescribeSagUserDns", dev(), "2001:db8::53"),
    acts("UpdateSmartAccessGatewayDns", ins(MasterDns="192.0.2.54")),
    shows("ViewSmartAccessGatewayDns", ins(), "192.0.2.54"),
    measured("DescribeSagCurrentDns", dev(), Dns={"MasterDns": "192.0.2.1", "SlaveDns": ""}),
    acts("AddSmartAccessGatewayDnsForward", ins(Domain="b.example", MasterIp="10.0.0.53")),
    acts("UpdateSmartAccessGatewayDnsForward", ins(InstanceId="$forward", Domain="c.example", MasterIp="10.0.0.53")),
    shows("ViewSmartAccessGatewayDnsForwards", ins(), "$forward"),
    acts("DeleteSmartAccessGatewayDnsForward", ins(InstanceId="$forward")),
    refused(CONSOLE, "ModifySagRemoteAccess", serial(RemoteAccessIp="10.99.0.2")),
    waits(CONSOLE, shows("DescribeSagRemoteAccess", serial(), "$remote")),
    refused(CONSOLE, "ModifySAGAdminPassword", dev(Password="passw0rd_1")),
    refused(CONSOLE, "UpdateSmartAccessGatewayAdminPassword", ins(Password="passw0rd_1")),
    refused(RADIO, "ModifySagWifi", dev(IsEnable="True", SSID="network1")),
    refused(RADIO, "DescribeSagWifi", dev()),
    refused(RADIO, "DescribeSagWan4G", dev()),
    measured("DescribeSAGDeviceInfo", dev(), SoftwareVersion="0.0.9"),
    acts("SynchronizeSmartAGWebConfig", dev(), command="Synchronize"),
    measured("ListSmartAGApiUnsupportedFeature", serial(OpenApiName="ModifySagRemoteAccess"), Capabilities=["RemoteAccess"]),
    measured("DescribeSagTrafficTopN", just(Size=100), TrafficRate=99999999.5),
    measured("DescribeSagDropTopN", just(Size=100), DropRate=99.5),
    acts("DiagnoseSmartAccessGateway", dev(), command="Diagnose"),
    shows("DiscribeSmartAccessGatewayDiagnosisReport", dev(), "DiagnoseResult"),
    shows("ListAccessPoints", just(), "AccessPointId"),
    measured("ListAccessPointNetworkQualities", gw(),
             AccessPointNetworkQualities=[{"Id": 102, "Rtt": "9.75", "Loss": "25.00%"}]),
    acts("ProbeAccessPointNetworkQuality", gw(AccessPointIds=["$point"]), command="ProbeAccessPoints"),
]

PROBES = [
    acts("CreateServiceAddress", task(Address="10.9.9.1", AddressType="ProbeTask")),
    shows("ListAvailableServiceAddress", task(), "10.9.9.1"),
    acts("DeleteServiceAddress", task(Address="10.9.9.1", AddressType="ProbeTask")),
    acts("CreateProbeTask", task(Type="Internet", Protocol="ICMP", Domain="www.example.com", Enable=True, PacketNumber=10),
         keep=("probe", "Data")),
    acts("UpdateProbeTask", task(ProbeTaskId="$probe", PacketNumber=20)),
    shows("ListProbeTask", just(), "$probe"),
    acts("DeleteProbeTask", task(ProbeTaskId="$probe")),
    acts("SetAdvancedMonitorState", sag(Enable=True)),
    shows("GetAdvancedMonitorState", sag(), "True"),
]

LOG = dict(OutputType="netflow", NetflowServerIp="192.168.0.2", NetflowServerPort=9995, NetflowVersion="V9", Name="log")

LOGGING = [
    waits(LOGS, stored("CreateFlowLog", just(**LOG), "DescribeFlowLogs", just(), keep=("new_log", "FlowLogId"))),
    waits(LOGS, stored("ModifyFlowLogAttribute", just(FlowLogId="$log", ActiveAging=600), "document", gw())),
    waits(LOGS, shows("DescribeFlowLogs", just(), "$log")),
    waits(LOGS, shows("DescribeFlowLogSags", just(FlowLogId="$log"), "$sag")),
    waits(LOGS, shows("DescribeUnbindFlowLogSags", just(), "$bare")),
    waits(LOGS, stored("DeactiveFlowLog", just(FlowLogId="$log"), "DescribeFlowLogs", just())),
    waits(LOGS, stored("ActiveFlowLog", just(FlowLogId="$log"), "DescribeFlowLogs", just())),
    refused(LOGS, "AssociateFlowLog", gw(FlowLogId="$new_log")),
    waits(LOGS, stored("DisassociateFlowLog", gw(FlowLogId="$log"), "DescribeFlowLogSags", just(FlowLogId="$log"))),
    waits(LOGS, stored("DeleteFlowLog", just(FlowLogId="$new_log"), "DescribeFlowLogs", just())),
    waits(DPI, shows("GetSmartAGDpiAttribute", gw(), "'DpiMonitorStatus': 'Active'")),
    waits(DPI, stored("DisableSmartAGDpiMonitor", gw(), "GetSmartAGDpiAttribute", gw())),
    refused(DPI, "EnableSmartAGDpiMonitor", gw(SlsLogStore="store", SlsProjectName="project")),
    refused(DPI, "UpdateSmartAGDpiAttribute", gw(DpiEnabled=True)),
    waits(DPI, shows("ListDpiSignatures", just(), "DpiSignatureId")),
    waits(DPI, shows("ListDpiGroups", just(), "DpiGroupId")),
    waits(DPI, shows("ListDpiConfigError", gw(DpiConfigType="acl"), "DpiConfigError")),
]

USERS = "DescribeSmartAccessGatewayClientUsers"
USER = dict(UserName="li", Password="passw0rd1", UserMail="li@example.com", Bandwidth=1)
PLAN = dict(ApplicationBandwidthPackageId="abp-1")

APPS = [
    stored("CreateSmartAccessGatewaySoftware", just(Period=1, AutoPay=False, ChargeType="PREPAY", UserCount=5, DataPlan=5),
           LIST, just(InstanceType="software")),
    stored("UpgradeSmartAccessGatewaySoftware", app(UserCount=10, AutoPay=True, DataPlan=5), ATTRIBUTE, app()),
    stored("DowngradeSmartAccessGatewaySoftware", app(UserCount=5, AutoPay=True, DataPlan=5), ATTRIBUTE, app()),
    waits(APP, stored("CreateSmartAccessGatewayClientUser", app(**USER), USERS, app())),
    waits(APP, shows(USERS, app(), "li@example.com")),
    waits(APP, stored("ModifySmartAccessGatewayClientUser", app(UserName="li", Bandwidth=5000), USERS, app())),
    waits(APP, stored("DisableSmartAccessGatewayUser", app(UserName="li"), USERS, app())),
    waits(APP, stored("EnableSmartAccessGatewayUser", app(UserName="li"), USERS, app())),
    waits(APP, stored("ResetSmartAccessGatewayClientUserPassword", app(UserName="li", Password="an0therpass"), "database",
                      just())),
    waits(APP, stored("RoamClientUser", just(OriginRegionId="cn-shanghai", OriginSmartAGId="$app", TargetSmartAGId="$second_app",
                                             UserName="li"), USERS, just(SmartAGId="$second_app"))),
    waits(APP, stored("ModifyClientUserDNS", app(AppDNS=["100.100.2.136"]), "DescribeClientUserDNS", app())),
    waits(APP, shows("DescribeClientUserDNS", app(), "100.100.2.136")),
    waits(APP, shows("DescribeUserOnlineClientStatistics", app(UserNames=["li"]), "'OnlineCount': '1'")),
    waits(APP, shows("DescribeUserOnlineClients", app(UserName="li"), "192.168.0.2")),
    waits(APP, shows("DescribeSagOnlineClientStatistics", just(SmartAGIds=["$app"]), "'OnlineCount': '1'")),
    waits(APP, shows("DescribeUserFlowStatistics", app(UserNames=["li"], StatisticsDate="201905"), "555352")),
    waits(APP, stored("KickOutClients", app(Username="li"), "DescribeUserOnlineClients", app(UserName="li"))),
    waits(ACCELERATION, stored("UpdateSmartAGUserAccelerateConfig", app(UserName="li", Bandwidth=2000), USERS, app())),
    refused(ACCELERATION, "AssociateSmartAGWithApplicationBandwidthPackage",
            just(AssociateConfigs=[dict(SmartAGId="$sag", Bandwidth=10)], **PLAN)),
    waits(ACCELERATION, stored("DissociateSmartAGFromApplicationBandwidthPackage", gw(**PLAN), "document", gw())),
    waits(APP, stored("DeleteSmartAccessGatewayClientUser", app(UserName="li"), USERS, app())),
    waits(APP, stored("CreateEnterpriseCode", just(EnterpriseCode="$code"), "ListEnterpriseCode", just())),
    waits(APP, stored("UpdateEnterpriseCode", just(EnterpriseCode="$code", IsDefault=True), "ListEnterpriseCode", just())),
    waits(APP, shows("ListEnterpriseCode", just(), "$code")),
    waits(APP, stored("UpdateSmartAGEnterpriseCode", app(EnterpriseCode="$second_code"), "ListEnterpriseCode", just())),
    waits(APP, stored("DeleteEnterpriseCode", just(EnterpriseCode="$third_code"), "ListEnterpriseCode", just())),
]

# What a member sees of another one.
APART = [
    acts("BindSmartAccessGateway", just(SmartAGId="$second", CcnId="$ccn"), part="another member"),
    acts("ModifyCloudConnectNetwork", just(CcnId="$ccn", InterworkingStatus="disable"), part="InterworkingStatus disable"),
    acts("ModifyCloudConnectNetwork", just(CcnId="$ccn", InterworkingStatus="enable"), part="InterworkingStatus enable"),
    acts("UnbindSmartAccessGateway", just(SmartAGId="$second", CcnId="$ccn"), part="another member"),
]

at = next(i for i, row in enumerate(NETWORKS) if row.op == "ModifyCloudConnectNetwork")
NETWORKS[at + 1 : at + 1] = APART

ROWS = [*GATEWAYS[:-1], *NETWORKS, *POLICIES, *ROUTES, *DEVICE, *PROBES, *LOGGING, *APPS, GATEWAYS[-1]]
