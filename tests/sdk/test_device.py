"""One device: ports, routing, settings, and what its agent reports."""

import json
import threading
import time

import pytest

from clients import ApiError
from helpers import apply, gateway, report


@pytest.fixture(scope="module")
def device(api, agent):
    sag, sns = gateway(api)
    report(agent, sag, sns[0])
    apply(agent, sag, sns[0])
    return dict(SmartAGId=sag, SmartAGSn=sns[0])


def states(answer):
    return [t["State"] for t in answer["TaskStates"]]


def test_offline_says_so(api):
    sag, sns = gateway(api)
    d = dict(SmartAGId=sag, SmartAGSn=sns[0])
    for op in ["DescribeSagRouteList", "DescribeSagWanList", "DescribeSAGDeviceInfo", "DescribeSagCurrentDns"]:
        api.refused(op, "SmartAccessGatewayNotOnline", **d)
    api.refused("ModifySagUserDns", "SmartAccessGatewayNotOnline", MasterDns="1.1.1.1", SlaveDns="1.1.1.2", **d)
    api.refused("DescribeSmartAccessGatewayHa", "SmartAccessGatewayNotOnline", SmartAGId=sag)
    api.call("ModifySagWanSnat", Snat="ENABLE", **d)
    assert states(api.call("DescribeSagWanSnat", **d)) == ["Offline"]
    api.refused("DescribeSagWanSnat", "InstanceNotExit", SmartAGId=sag, SmartAGSn="nobody")
    api.refused("DescribeSagWanSnat", "SAG.InstanceNoFound", SmartAGId="sag-nobody", SmartAGSn=sns[0])


def test_live(api, device):
    info = api.call("DescribeSAGDeviceInfo", **device)
    assert info["SynStatus"] == "Synchronized" and info["StartupTime"] == "2021-06-15 17:33:43"
    assert api.call("DescribeSagRouteList", **device)["Routes"][0]["NextHop"] == "203.0.113.1"
    assert api.call("DescribeSagWanList", **device)["Wans"][0]["IP"] == "203.0.113.7"
    assert api.call("DescribeSagCurrentDns", **device)["MasterDns"] == "223.5.5.5"
    top = api.call("DescribeSagTrafficTopN", Size=10)["TrafficTopN"]
    assert "1243.2" in [t["TrafficRate"] for t in top]
    assert api.call("DescribeSagDropTopN")["DropTopN"]
    ha = api.call("DescribeSmartAccessGatewayHa", SmartAGId=device["SmartAGId"])
    assert ha["LinkBackupInfoList"]["LinkBackupInfoList"][0]["MainLinkId"] == "wan0"
    api.call("SynchronizeSmartAGWebConfig", **device)


def test_revision_and_tasks(api, agent, device):
    api.call("ModifySagWanSnat", Snat="ENABLE", **device)
    assert states(api.call("DescribeSagWanSnat", **device)) == ["Processing"]
    assert api.call("DescribeSAGDeviceInfo", **device)["SynStatus"] == "Synchronizing"
    assert apply(agent, *device.values())["Snat"] == "ENABLE"
    assert states(api.call("DescribeSagWanSnat", **device)) == ["Succeed"]
    api.call("ModifySagWanSnat", Snat="DISABLE", **device)
    apply(agent, *device.values(), success=False, message="no such table")
    task = api.call("DescribeSagWanSnat", **device)["TaskStates"][0]
    assert task["State"] == "HardwareError" and task["ErrorMessage"] == "no such table"
    apply(agent, *device.values())


def test_long_poll_is_fast(api, agent, device):
    revision = agent.extension("PullSmartAGConfig", Revision=0, **device)["Revision"]
    got = []

    def poll():
        answer = agent.extension("PullSmartAGConfig", Revision=revision, Wait=20, **device)
        got.append((time.monotonic(), answer))

    waiting = threading.Thread(target=poll)
    waiting.start()
    time.sleep(0.5)
    assert not got
    api.call("ModifySagWanSnat", Snat="ENABLE", **device)
    at = time.monotonic()
    waiting.join(20)
    assert got[0][1]["Changed"] and got[0][1]["Revision"] > revision
    assert got[0][0] - at < 0.9
    apply(agent, *device.values())
    current = agent.extension("PullSmartAGConfig", Revision=0, **device)["Revision"]
    same = agent.extension("PullSmartAGConfig", Revision=current, **device)
    assert same["Changed"] is False and "Config" not in same


def test_ports(api, agent, device):
    ports = {p["PortName"]: p["Role"] for p in api.call("DescribeSagPortList", **device)["Ports"]}
    # 000:26484 has port 5 of a box as its WAN port; a virtual device begins with port 0, and 5 may become one.
    assert ports["0"] == "WAN" and ports["1"] == "LAN" and ports["2"] == "MGT"
    api.call("ModifySagPortRole", PortName="4", Role="WAN", **device)
    api.refused("ModifySagPortRole", "Sag.PortNotExist", PortName="9", Role="WAN", **device)
    api.refused("ModifySagPortRole", "Sag.PortMgtError", PortName="2", Role="WAN", **device)
    api.refused("ModifySagPortRole", "Sag.PortRoleLimit", PortName="5", Role="MGT", **device)
    wan = dict(PortName="4", IPType="STATIC", IP="198.51.100.2", Mask="255.255.255.0", Gateway="198.51.100.1")
    api.call("ModifySagWan", Priority=20, Weight=50, ISP="CT", Bandwidth=50, **wan, **device)
    api.refused("ModifySagWan", "Sag.PortRoleInvalid", **dict(wan, PortName="1"), **device)
    api.refused("ModifySagWan", "InvalidParameter", **dict(wan, Gateway="10.0.0.1"), **device)
    api.refused("ModifySagWan", "MissingParameter", **dict(wan, IP=""), **device)
    pppoe = dict(PortName="4", IPType="PPPOE", Username="P12ppp123")
    api.refused("ModifySagWan", "MissingParameter", **pppoe, **device)
    api.call("ModifySagWan", Password="hunter2hunter2", **pppoe, **device)
    api.call("ModifySagWan", **pppoe, **device)
    shown = api.call("DescribeSagWanList", **device)
    assert "hunter2" not in str(shown)
    assert apply(agent, *device.values())["Wan"]["4"]["Password"] == "hunter2hunter2"
    lan = dict(PortName="1", IPType="DHCP", IP="192.168.1.1", Mask="255.255.255.0", StartIp="192.168.1.2",
               EndIp="192.168.1.254", Lease="60")
    api.call("ModifySagLan", **lan, **device)
    api.refused("ModifySagLan", "Sag.PortNotExist", **dict(lan, PortName="9"), **device)
    assert api.call("DescribeSagLanList", **device)["Lans"][0]["EndIp"] == "192.168.1.254"
    api.call("ModifySagManagementPort", IP="192.168.9.1", Mask="255.255.255.0", Gateway="192.168.9.254", **device)
    assert api.call("DescribeSagManagementPort", **device)["IP"] == "192.168.9.1"


def test_leased_lines(api, device):
    line = dict(PortName="3", IP="192.168.20.1", Mask="255.255.255.252")
    for vlan in range(10, 15):
        api.call("CreateSagExpressConnectInterface", Vlan=str(vlan), **line, **device)
    api.refused("CreateSagExpressConnectInterface", "Sag.EccVlanOverLimit", Vlan="15", **line, **device)
    api.refused("CreateSagExpressConnectInterface", "Sag.EccVlanExist", Vlan="10", **line, **device)
    api.refused("CreateSagExpressConnectInterface", "Sag.EccVlanDefault", Vlan="0", **line, **device)
    api.call("ModifySagExpressConnectInterface", Vlan="10", **dict(line, IP="192.168.30.1"), **device)
    api.refused("ModifySagExpressConnectInterface", "Sag.EccVlanNotExist", Vlan="20", **line, **device)
    got = api.call("DescribeSagExpressConnectInterfaceList", PortName="3", **device)["Interfaces"]
    assert got[0] == {"IP": "192.168.30.1", "Mask": "255.255.255.252", "Vlan": "10"}
    for vlan in range(11, 15):
        api.call("DeleteSagExpressConnectInterface", PortName="3", Vlan=str(vlan), **device)
    api.refused("CreateSagStaticRoute", "Sag.EccVlanNotExist", DestinationCidr="10.0.0.0/8",
                NextHop="192.168.30.2", PortName="3", Vlan="11", **device)
    api.refused("ModifySagPortRouteProtocol", "Sag.EccRouteTypeError", PortName="3", RouteProtocol="OSPF", **device)


def test_static_routes(api, device):
    route = dict(DestinationCidr="192.168.77.0/24", NextHop="192.168.1.9", PortName="1", Vlan="0")
    key = dict(DestinationCidr="192.168.77.0/24", PortName="1", Vlan="0")
    api.call("CreateSagStaticRoute", **route, **device)
    api.refused("CreateSagStaticRoute", "Sag.StaticRouteExist", **route, **device)
    api.refused("CreateSagStaticRoute", "Sag.PortNotExist", **dict(route, PortName="9"), **device)
    api.refused("CreateSagStaticRoute", "Sag.PortRoleInvalid", **dict(route, PortName="2"), **device)
    api.call("ModifySagStaticRoute", **dict(route, NextHop="192.168.1.10"), **device)
    got = api.call("DescribeSagStaticRouteList", **device)["StaticRoutes"]
    assert got == [dict(route, NextHop="192.168.1.10")]
    api.call("DeleteSagStaticRoute", **key, **device)
    api.refused("DeleteSagStaticRoute", "Sag.StaticRouteNotExist", **key, **device)
    api.refused("ModifySagStaticRoute", "Sag.StaticRouteNotExist", **route, **device)


def test_routing_protocols(api, agent, device):
    port = dict(PortName="1", RouteProtocol="BGP", RemoteIp="192.168.1.2", RemoteAs="65001")
    api.refused("ModifySagPortRouteProtocol", "Sag.RouteTypeNotMatch", **port, **device)
    api.refused("ModifySagPortRouteProtocol", "Sag.RouteProtocolPortNotExist", **dict(port, PortName="2"), **device)
    api.refused("ModifySagPortRouteProtocol", "Sag.RouteProtocolPortNotExist", PortName="0", RouteProtocol="OSPF", **device)
    api.call("ModifySagGlobalRouteProtocol", RouteProtocol="BGP", **device)
    assert api.call("DescribeSagGlobalRouteProtocol", **device)["RouteProtocol"] == "BGP"
    api.call("ModifySagPortRouteProtocol", **port, **device)
    listed = api.call("DescribeSagPortRouteProtocolList", **device)["Ports"]
    assert "65001" in [p.get("RemoteAs") for p in listed]
    # On a WAN port, too; and a neighbor of IPv6.
    wan = dict(PortName="0", RouteProtocol="BGP", RemoteIp="2001:db8::1", RemoteAs="65003")
    api.call("ModifySagPortRouteProtocol", **wan, **device)
    api.refused("ModifySagPortRouteProtocol", "InvalidParameter", **dict(wan, RemoteIp="nowhere"), **device)
    row = lambda: next(p for p in api.call("DescribeSagPortRouteProtocolList", **device)["Ports"] if p["PortName"] == "0")
    assert (row()["RemoteIp"], row()["RemoteAs"]) == ("2001:db8::1", "65003")
    sent = apply(agent, *device.values())["PortProtocols"]
    assert sent["0"]["RemoteIp"] == "2001:db8::1", sent
    api.call("ModifySagPortRouteProtocol", PortName="0", RouteProtocol="STATIC", **device)
    assert row()["RouteProtocol"] == "STATIC"
    bgp = dict(RouterId="1.1.1.1", LocalAs=4294967295, HoldTime=9, KeepAlive=3)
    api.call("ModifySagRouteProtocolBgp", **bgp, **device)
    got = api.call("DescribeSagRouteProtocolBgp", **device)
    assert {k: got[k] for k in bgp} == bgp
    ospf = dict(AreaId=10, HelloTime=10, DeadTime=40, RouterId="1.1.1.1", AuthenticationType="MD5", Md5KeyId=1)
    api.call("ModifySagRouteProtocolOspf", Md5Key="secret-key", **ospf, **device)
    got = api.call("DescribeSagRouteProtocolOspf", **device)
    assert {k: got[k] for k in ospf} == dict(ospf, AreaId="10") and got["Md5Key"] == "sec****"
    assert apply(agent, *device.values())["Ospf"]["Md5Key"] == "secret-key"
    api.call("ModifySagGlobalRouteProtocol", RouteProtocol="STATIC", **device)


def test_settings(api, agent, device):
    api.call("ModifySagUserDns", MasterDns="1.1.1.1", SlaveDns="1.1.1.2", **device)
    assert api.call("DescribeSagUserDns", **device)["SlaveDns"] == "1.1.1.2"
    ha = dict(Mode="STATIC", PortName="1", VirtualIp="192.168.1.3")
    api.call("ModifySagHa", **ha, **device)
    assert api.call("DescribeSagHa", **device)["Ports"][0]["VirtualIp"] == "192.168.1.3"
    api.refused("ModifySagHa", "Sag.HaPortRoleError", **dict(ha, PortName="0"), **device)
    api.refused("ModifySagPortRole", "Sag.HaPortExist", PortName="1", Role="NONE", **device)
    api.call("ModifySagHa", Mode="NONE", **device)
    api.call("ModifySAGAdminPassword", Password="S3cret_pass", **device)
    api.refused("ModifySAGAdminPassword", "IllegalParam.Password", Password="short", **device)
    api.refused("ModifySAGAdminPassword", "MissingParam.Password", **device)
    assert apply(agent, *device.values())["AdminPassword"] == "S3cret_pass"
    sn = dict(SmartAGId=device["SmartAGId"], SerialNumber=device["SmartAGSn"])
    api.call("ModifySagRemoteAccess", RemoteAccessIp="10.99.0.1", **sn)
    got = api.call("DescribeSagRemoteAccess", **sn)["RemoteAccesses"]["RemoteAccess"]
    assert got == [{"RemoteAccessIp": "10.99.0.1", "SerialNumber": sn["SerialNumber"]}]
    api.refused("DescribeSagRemoteAccess", "InvalidId.SN", **dict(sn, SerialNumber="nobody"))


def test_no_radio(api, device):
    wifi = dict(IsEnable="True", SSID="network1")
    api.refused("ModifySagWifi", "FeatureNotSupport", 403, **wifi, **device)
    api.refused("DescribeSagWifi", "FeatureNotSupport", **device)
    api.refused("DescribeSagWan4G", "FeatureNotSupport", **device)
    sn = dict(SmartAGId=device["SmartAGId"], SerialNumber=device["SmartAGSn"])
    got = api.call("ListSmartAGApiUnsupportedFeature", OpenApiName="ModifySagWifi", **sn)
    assert got["Features"] == [{"Feature": "Wifi"}]
    # As the example of document 000 has it: the carrier changes nothing.
    assert api.call("ListSmartAGApiUnsupportedFeature", OpenApiName="ModifySagWan", **sn)["Features"] == [
        {"Feature": "ISP"}]
    api.refused("ListSmartAGApiUnsupportedFeature", "Sag.DeviceNotExist", OpenApiName="ModifySagWan",
                **dict(sn, SerialNumber="nobody"))


def test_diagnosis(api, agent, device):
    api.call("DiagnoseSmartAccessGateway", **device)
    got = api.call("DiscribeSmartAccessGatewayDiagnosisReport", **device)["DiagnoseResult"]
    # Lines 10376 to 10386 of document 000.
    assert got["State"] == "processing" and got["Percent"] == 0
    text = {"ItemName": "DNS", "Details": ["192.0.2.53 does not answer"], "Advice": ["Set another."]}
    item = {"Type": "internet", "ItemName": "dnsServer", "Level": "error", "StartTime": 1, "EndTime": 2, "EN": text,
            "CN": text}
    report(agent, *device.values(), Diagnosis={"DiagnoseId": "dia-0", "Items": [item]})
    assert api.call("DiscribeSmartAccessGatewayDiagnosisReport", **device)["DiagnoseResult"]["State"] == "processing"
    report(agent, *device.values(), Diagnosis={"DiagnoseId": got["DiagnoseId"], "Items": [item]})
    # What the device measured stays, whatever it reports later.
    report(agent, *device.values())
    got = api.call("DiscribeSmartAccessGatewayDiagnosisReport", **device)["DiagnoseResult"]
    assert (got["State"], got["Percent"], got["Level"]["Total"]) == ("finished", 100, "error")
    items = [i for d in got["Details"] for i in d["Items"]]
    assert got["Statistics"]["Total"] == len(items) == got["FinishedNumber"]
    seen = {i["ItemName"]: i for i in items}
    assert seen["dnsServer"]["EN"] == {**text, "ItemLevel": "ERROR", "ItemType": "Internet"}
    assert seen["ctrlConnState"]["Level"] == "info"


def test_a_device_that_cannot_measure(api, agent):
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    api.call("DiagnoseSmartAccessGateway", **device)
    got = api.call("DiscribeSmartAccessGatewayDiagnosisReport", **device)["DiagnoseResult"]
    items = {i["ItemName"]: i["Level"] for d in got["Details"] for i in d["Items"]}
    assert got["State"] == "finished" and items["ctrlConnState"] == "error", "it is not connected"
    report(agent, sag, sns[0])
    api.call("DiagnoseSmartAccessGateway", **device)
    revision = agent.extension("PullSmartAGConfig", Revision=0, **device)["Revision"]
    result = [{"Name": "Diagnose", "Revision": revision, "Outcome": "Unsupported", "Message": "no"}]
    apply(agent, sag, sns[0], CommandResults=json.dumps(result))
    assert api.call("DiscribeSmartAccessGatewayDiagnosisReport", **device)["DiagnoseResult"]["State"] == "failed"


def test_agents_are_checked(agent, api, device):
    stranger = dict(device, SmartAGSn="nobody")
    for call, params in [
        ("PullSmartAGConfig", stranger),
        ("ReportSmartAGState", dict(stranger, State="{}")),
        ("ReportSmartAGConfigResult", dict(stranger, Revision=1, Success="true")),
    ]:
        with pytest.raises(ApiError) as e:
            agent.extension(call, **params)
        assert e.value.code == "InstanceNotExit"
    with pytest.raises(ApiError) as e:
        agent.extension("ReportSmartAGState", State="[]", **device)
    assert e.value.code == "InvalidParameter"


def test_what_the_device_cannot_do(api, agent):
    """Calls for what a device does not report as a capability are refused; without a report none is."""
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    bgp = dict(RouterId="10.0.0.1", LocalAs=65001, HoldTime=9, KeepAlive=3)
    report(agent, sag, sns[0])
    api.call("ModifySagRouteProtocolBgp", **device, **bgp)
    report(agent, sag, sns[0], Capabilities=["Acl", "StaticAddress"])
    code = "FeatureNotSupport"
    api.refused("ModifySagRouteProtocolBgp", code, **device, **bgp)
    api.refused("ModifySagGlobalRouteProtocol", code, RouteProtocol="OSPF", **device)
    api.refused("ModifySagUserDns", code, MasterDns="223.5.5.5", SlaveDns="223.6.6.6", **device)
    lan = dict(PortName="1", IP="192.168.1.1", Mask="255.255.255.0")
    api.refused("ModifySagLan", code, 403, IPType="DHCP", Lease="600", StartIp="192.168.1.9", EndIp="192.168.1.99",
                **lan, **device)
    api.call("ModifySagLan", IPType="STATIC", **lan, **device)
    api.call("ModifySagGlobalRouteProtocol", RouteProtocol="STATIC", **device)
    answer = api.call("ListSmartAGApiUnsupportedFeature", OpenApiName="ModifySagGlobalRouteProtocol", SmartAGId=sag,
                    SerialNumber=sns[0])
    assert [f["Feature"] for f in answer["Features"]] == ["Bgp", "Ospf"]
    report(agent, sag, sns[0], Capabilities=["Bgp", "DhcpServer"])
    api.call("ModifySagRouteProtocolBgp", **device, **bgp)


def test_devices_that_call_at_once(api, agent):
    """Neither an agent nor the console is told that the service is busy because others change something."""
    gateways = [gateway(api) for _ in range(4)]
    problems = []

    def calls(sag, sn):
        try:
            for round_ in range(8):
                report(agent, sag, sn, Notices=[f"round {round_}"])
                apply(agent, sag, sn)
        except ApiError as e:
            problems.append(str(e))

    threads = [threading.Thread(target=calls, args=(sag, sns[0])) for sag, sns in gateways]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        for sag, sns in gateways:
            api.call("ModifySagWanSnat", Snat="ENABLE", SmartAGId=sag, SmartAGSn=sns[0])
    for t in threads:
        t.join()
    assert problems == []
