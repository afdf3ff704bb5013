"""Single sentences of the vendor's documents, by document and line: what answers say of a device is what it reported."""

from helpers import apply, gateway, name, report, rows
from test_network import network

ABLE = ["Acl", "StaticAddress", "DhcpClient"]


def test_a_pair_of_devices(api, agent):
    """Lines 9753 to 10010 of document 000, 213 and 715 to 731 of document 001."""
    sag, sns = gateway(api)
    ccn = network(api)
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)

    def shown():
        return api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)

    before = shown()
    assert (before["VpnStatus"], before["TrafficMasterSn"], before["BoxControllerIp"]) == ("down", "", "")
    assert [d["HaState"] for d in rows(before, "Devices", "Device")] == ["", ""]
    report(agent, sag, sns[0], HaState="Standby", VpnState="Abnormal")
    after = shown()
    assert (after["VpnStatus"], after["TrafficMasterSn"], after["BoxControllerIp"]) == ("down", "", "127.0.0.1")
    assert after["BackupBoxControllerIp"] == ""
    listed = rows(api.call("DescribeSmartAccessGateways", SmartAGId=sag), "SmartAccessGateways", "SmartAccessGateway")
    assert (listed[0]["VpnStatus"], listed[0]["BackupStatus"]) == ("down", "Offline")
    report(agent, sag, sns[1], HaState="Active", VpnState="Normal", EnableOptimization=True)
    after = shown()
    assert (after["VpnStatus"], after["TrafficMasterSn"], after["BackupBoxControllerIp"]) == (
        "up", sns[1], "127.0.0.1")
    assert [d["HaState"] for d in rows(after, "Devices", "Device")] == ["Standby", "Active"]
    assert (after["EnableOptimization"], after["OptimizationType"]) == (True, True)
    # Lines 6578 to 6604 of document 000.
    ha = api.call("DescribeSmartAccessGatewayHa", SmartAGId=sag)
    assert (ha["MainDeviceId"], ha["BackupDeviceId"]) == (sns[1], sns[0])
    assert (ha["DeviceLevelBackupState"], ha["DeviceLevelBackupType"]) == ("ON", "warm_backup")
    # Two that are both active do not stand in for each other; the busier one is the master.
    report(agent, sag, sns[0], HaState="Active", TrafficRate=9e9)
    ha = api.call("DescribeSmartAccessGatewayHa", SmartAGId=sag)
    assert ha["DeviceLevelBackupState"] == "OFF" and "BackupDeviceId" not in ha
    assert shown()["TrafficMasterSn"] == sns[0]

    vbr = f"vbr-{name('line')}"
    api.call("BindVbr", SmartAGId=sag, VbrId=vbr, VbrRegionId="cn-beijing")
    links = {row["Type"]: row for row in rows(shown(), "Links", "Link")}
    assert (links["ccn"]["Status"], links["ccn"]["RelateInstanceId"]) == ("Active", ccn)
    assert (links["vbr"]["RelateInstanceId"], links["vbr"]["RelateInstanceRegionId"]) == (vbr, "cn-beijing")
    assert links["vbr"]["Status"] == "", "whoever runs the router knows"
    api.call("UnbindVbr", SmartAGId=sag, VbrId=vbr, VbrRegionId="cn-beijing")
    api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_fields_of_2025(api, agent):
    """Lines 213, 715 and 723 of document 001. The older SDK does not know them."""
    sag, _ = gateway(api)
    call = api.call if api.kind == "acs3" else agent.extension
    call("ModifySmartAccessGateway", SmartAGId=sag, Position="shanghai")
    row = agent.extension("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
    assert (row["Position"], row["IRIds"], row["EnableSoftwareConnectionAudit"]) == ("shanghai", {"IRId": []}, False)
    agent.extension("ModifySmartAccessGateway", SmartAGId=sag, Position="")
    assert agent.extension("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)["Position"] == ""


def test_what_a_device_says_of_itself(api, agent):
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    route = {"NextHop": "", "Cost": "[0/0]", "ConflictCidrs": []}
    report(agent, sag, sns[0], Routes=[
        {**route, "DestinationCidr": "10.9.0.0/16", "PortName": "-1", "RouteProtocol": "STATIC"},
        {**route, "DestinationCidr": "192.168.1.0/24", "PortName": "1", "RouteProtocol": "CONNECTED"},
        {**route, "DestinationCidr": "0.0.0.0/0", "PortName": "0", "RouteProtocol": "DHCP"},
        {**route, "DestinationCidr": "10.8.0.0/16", "PortName": "1", "RouteProtocol": "OSPF"},
    ])
    # Lines 26283 to 26294 of document 000.
    shown = api.call("DescribeSagRouteList", **device)["Routes"]
    assert [(r["PortName"], r["RouteProtocol"]) for r in shown] == [
        ("-1", "STATIC"), ("1", "STATIC"), ("0", "STATIC"), ("1", "OSPF")]
    # Lines 3881 to 3929 of document 000.
    info = api.call("DescribeSAGDeviceInfo", **device)
    assert info["ServiceIP"] == "203.0.113.7" and info["SynStatus"] == "Synchronizing"
    assert len(info["LastConnectedControllerTime"]) == len("2021-07-14 00:27:48")
    apply(agent, sag, sns[0])
    assert api.call("DescribeSAGDeviceInfo", **device)["SynStatus"] == "Synchronized"
    api.call("ModifySagWanSnat", Snat="ENABLE", **device)
    apply(agent, sag, sns[0], success=False, message="no")
    assert api.call("DescribeSAGDeviceInfo", **device)["SynStatus"] == "Unsynchronized"


def test_routing_protocols_of_vlans(api, agent):
    """Line 24598 of document 000: a port has a protocol for each VLAN."""
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    report(agent, sag, sns[0])
    api.call("ModifySagGlobalRouteProtocol", RouteProtocol="BGP", **device)
    for vlan in ("10", "20"):
        api.call("CreateSagExpressConnectInterface", PortName="3", Vlan=vlan, IP=f"192.168.{vlan}.1",
                 Mask="255.255.255.252", **device)
    bgp = dict(PortName="3", RouteProtocol="BGP", **device)
    api.call("ModifySagPortRouteProtocol", Vlan="10", RemoteIp="192.168.10.2", RemoteAs="65010", **bgp)
    api.call("ModifySagPortRouteProtocol", Vlan="20", RemoteIp="192.168.20.2", RemoteAs="65020", **bgp)
    api.refused("ModifySagPortRouteProtocol", "Sag.RouteProtocolPortNotExist", Vlan="30", RemoteIp="192.168.30.2",
                RemoteAs="65030", **bgp)

    def listed():
        ports = api.call("DescribeSagPortRouteProtocolList", **device)["Ports"]
        return [(p["Vlan"], p["RouteProtocol"], p.get("RemoteAs", "")) for p in ports if p["PortName"] == "3"]

    assert listed() == [("10", "BGP", "65010"), ("20", "BGP", "65020")]
    sent = apply(agent, sag, sns[0])["PortProtocols"]
    assert {n: p["RemoteAs"] for n, p in sent.items()} == {"3.10": "65010", "3.20": "65020"}
    api.call("ModifySagPortRouteProtocol", Vlan="10", **dict(bgp, RouteProtocol="STATIC"))
    assert listed() == [("10", "STATIC", ""), ("20", "BGP", "65020")]
    api.call("DeleteSagExpressConnectInterface", PortName="3", Vlan="20", **device)
    assert listed() == [("10", "STATIC", "")] and set(apply(agent, sag, sns[0])["PortProtocols"]) == {"3.10"}


def test_wan_ports(api, agent):
    """Lines 26666 to 26690 of document 000."""
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    wan = dict(PortName="0", IPType="DHCP", **device)
    report(agent, sag, sns[0], Capabilities=ABLE)
    api.call("ModifySagWan", Priority=-1, ISP="CU", Weight=100, **wan)
    row = api.call("DescribeSagWanList", **device)["Wans"][0]
    assert (row["Priority"], row["ISP"], row["Weight"]) == (-1, "CU", 100)
    sent = apply(agent, sag, sns[0])["Wan"]["0"]
    assert (sent["Priority"], sent["ISP"]) == (-1, "CU")
    api.refused("ModifySagWan", "FeatureNotSupport", Weight=50, **wan)
    listed = api.call("ListSmartAGApiUnsupportedFeature", OpenApiName="ModifySagWan", SmartAGId=sag,
                      SerialNumber=sns[0])["Features"]
    assert {f["Feature"] for f in listed} == {"ISP", "Pppoe", "WanWeight"}
    report(agent, sag, sns[0], Capabilities=[*ABLE, "WanWeight"])
    api.call("ModifySagWan", Weight=50, **wan)


def test_settings_that_a_device_ignores(api, agent):
    """Lines 25502 to 25527 of document 000: VersionNotSupport. They were set before the device said what it can do."""
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    report(agent, sag, sns[0])
    api.call("ModifySagUserDns", MasterDns="192.0.2.53", **device)
    api.call("ModifySagManagementPort", IP="192.168.9.1", Mask="255.255.255.0", Gateway="192.168.9.254", **device)
    report(agent, sag, sns[0], Capabilities=ABLE)
    assert api.call("DescribeSagUserDns", **device)["TaskStates"][0]["State"] == "Processing"
    apply(agent, sag, sns[0])
    assert api.call("DescribeSagUserDns", **device)["TaskStates"][0]["State"] == "VersionNotSupport"
    api.refused("DescribeSagManagementPort", "FeatureNotSupport", **device)
    api.refused("ModifySagManagementPort", "FeatureNotSupport", IP="192.168.9.1", Mask="255.255.255.0",
                Gateway="192.168.9.254", **device)


def test_rules_have_a_time(api, agent):
    """Lines 12874 and 12964 of document 000: of equal priorities the earlier wins."""
    sag, sns = gateway(api)
    acls = [api.call("CreateACL", Name=name("time"))["AclId"] for _ in range(2)]
    rule = dict(SourceCidr="10.0.0.0/8", DestCidr="0.0.0.0/0", IpProtocol="ALL", SourcePortRange="-1/-1",
                DestPortRange="-1/-1", Direction="in", Priority=5)
    first = api.call("AddACLRule", AclId=acls[1], Policy="drop", **rule)
    second = api.call("AddACLRule", AclId=acls[0], Policy="accept", **rule)
    for acl in acls:
        api.call("AssociateACL", AclId=acl, SmartAGId=sag)
    sent = {a["AclId"]: a["Rules"][0]["GmtCreate"] for a in apply(agent, sag, sns[0])["Acls"]}
    assert sent == {acls[1]: first["GmtCreate"], acls[0]: second["GmtCreate"]}
    assert first["GmtCreate"] <= second["GmtCreate"]
    for acl in acls:
        api.call("DisassociateACL", AclId=acl, SmartAGId=sag)
        api.call("DeleteACL", AclId=acl)
