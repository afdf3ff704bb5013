"""Operations that the SDKs have beside the documents: twins of documented ones, probes, monitoring, acceleration."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import apply, gateway, name, report, software
from test_network import account, network

CAN_ALL = ["Bgp", "Ospf", "Dns", "WebConsole", "ProbeTask", "ServiceAddress", "AdvancedMonitor",
           "ApplicationAcceleration"]


@pytest.fixture(scope="module")
def device(api: Any, agent: Any) -> tuple[str, str]:
    sag, sns = gateway(api)
    report(agent, sag, sns[0])
    apply(agent, sag, sns[0])
    return sag, sns[0]


TWINS = [
    ("GlobalRouteProtocol", "DescribeSagGlobalRouteProtocol", dict(RouteProtocol="OSPF")),
    ("BgpRoute", "DescribeSagRouteProtocolBgp", dict(LocalAs=65001, HoldTime=9, KeepAlive=3, RouterId="10.0.0.1")),
    ("OspfRoute", "DescribeSagRouteProtocolOspf",
     dict(AreaId=10, AuthenticationType="MD5", DeadTime=40, HelloTime=10, RouterId="10.0.0.1", Md5KeyId=1,
          Md5Key="secretkey", InterfaceName="unused", Networks="unused")),
    ("Dns", "DescribeSagUserDns", dict(MasterDns="223.5.5.5", SlaveDns="223.6.6.6")),
    ("WanSnat", "DescribeSagWanSnat", dict(Snat="1")),
    ("PortRouteProtocol", "DescribeSagPortRouteProtocolList", dict(PortName="1", RouteProtocol="OSPF")),
]


@pytest.mark.parametrize("kind, documented, settings", TWINS, ids=[t[0] for t in TWINS])
def test_twins_have_the_state_of_the_documented_ones(api: Any, agent: Any, device: tuple[str, str], kind: str,
                                                     documented: str, settings: dict[str, Any]) -> None:
    sag, sn = device
    one = dict(SagInsId=sag, SagSn=sn)
    update, view = f"UpdateSmartAccessGateway{kind}", f"ViewSmartAccessGateway{kind}"
    answer = api.call(update, **one, **settings)
    assert (answer["Code"], answer["Success"]) == ("200", True)
    seen, same = api.call(view, **one), api.call(documented, SmartAGId=sag, SmartAGSn=sn)
    assert [t["State"] for t in seen["TaskStates"]] == [t["State"] for t in same["TaskStates"]] == ["Processing"]
    if kind == "WanSnat":
        assert (seen["Snat"], same["Snat"]) == ("1", "ENABLE")
    elif kind == "PortRouteProtocol":
        assert seen["Ports"] == same["Ports"]
        assert [p["PortName"] for p in seen["Ports"] if p["RouteProtocol"] == "OSPF"] == ["1"]
    else:
        fields = set(seen) - {"RequestId", "TaskStates", "AreaId"}
        assert {f: seen[f] for f in fields} == {f: same[f] for f in fields}
        for key in set(settings) & set(seen) - {"Md5Key"}:
            assert seen[key] == settings[key], key
    apply(agent, sag, sn)
    assert [t["State"] for t in api.call(view, **one)["TaskStates"]] == ["Succeed"]
    # Another account's gateways are none of the caller's.
    for more in (dict(CrossAccount=True), dict(ResourceUid="1")):
        api.refused(view, "SAG.InstanceNoFound", **one, **more)
        api.refused(update, "SAG.InstanceNoFound", **one, **settings, **more)
    api.call(view, **one, CrossAccount=True, ResourceUid=str(account(api)))
    api.refused(view, "InstanceNotExit", SagInsId=sag, SagSn="nobody")


def test_admin_password_and_routes(api: Any, agent: Any, device: tuple[str, str]) -> None:
    sag, sn = device
    one = dict(SagInsId=sag, SagSn=sn)
    api.call("UpdateSmartAccessGatewayAdminPassword", Password="passw0rd_1", **one)
    assert apply(agent, sag, sn)["AdminPassword"] == "passw0rd_1"
    route = api.call("ViewSmartAccessGatewayRoutes", **one)["Routes"][0]
    assert (route["Dst"], route["Nexthop"], route["Idx"]) == ("0.0.0.0/0", "203.0.113.1", 0)
    assert (route["Role"], route["Type"], route["Cost"]) == ("WAN", "static", "[0/0]")
    report(agent, sag, sn, Routes=[{"DestinationCidr": "10.2.0.0/16", "PortName": "-1", "RouteProtocol": "BGP"}])
    route = api.call("ViewSmartAccessGatewayRoutes", **one)["Routes"][0]
    assert (route["Idx"], route["Role"], route["Type"]) == (-1, "", "bgp")
    report(agent, sag, sn)


def test_a_device_that_cannot_do_it_refuses(api: Any, agent: Any) -> None:
    sag, sns = gateway(api)
    one, probe = dict(SagInsId=sag, SagSn=sns[0]), dict(SagId=sag, Sn=sns[0])
    plan = dict(ApplicationBandwidthPackageId="abp-1", AssociateConfigs=[dict(SmartAGId=sag, Bandwidth=10)])
    calls = [(f"UpdateSmartAccessGateway{kind}", dict(one, **settings)) for kind, _, settings in TWINS
             if kind != "WanSnat"]
    calls += [
        ("UpdateSmartAccessGatewayAdminPassword", dict(one, Password="passw0rd_1")),
        ("AddSmartAccessGatewayDnsForward", dict(one, Domain="example.com", MasterIp="10.0.0.53")),
        ("CreateProbeTask", dict(probe, **ICMP)),
        ("CreateServiceAddress", dict(probe, Address="10.9.9.1", AddressType="ProbeTask")),
        ("SetAdvancedMonitorState", dict(SagId=sag, Enable=True)),
        ("AssociateSmartAGWithApplicationBandwidthPackage", plan),
    ]
    report(agent, sag, sns[0], Capabilities=["Acl"])
    before = apply(agent, sag, sns[0])
    for op, params in calls:
        api.refused(op, "FeatureNotSupport", 403, **params)
    assert apply(agent, sag, sns[0]) == before
    report(agent, sag, sns[0], Capabilities=CAN_ALL)
    for op, params in calls:
        api.call(op, **params)
    assert apply(agent, sag, sns[0])["Revision"] > before["Revision"]


def test_dns_forwards(api: Any, agent: Any, device: tuple[str, str]) -> None:
    sag, sn = device
    one = dict(SagInsId=sag, SagSn=sn)
    first = dict(one, Domain="*.corp.example", MasterIp="10.0.0.53", SlaveIp="10.0.1.53")
    made = api.call("AddSmartAccessGatewayDnsForward", OutboundPortType="PhysicalPort", OutboundPortIndex="1",
                    OutboundPortName="1", Mode="any", **first)["Data"]
    assert made["Domain"] == "*.corp.example" and made["OutboundPortIndex"] == 1
    sent = apply(agent, sag, sn)["DnsForwards"]
    assert [(f["Domain"], f["MasterIp"], f["OutboundPortName"]) for f in sent] == [("*.corp.example", "10.0.0.53", "1")]
    assert api.call("ViewSmartAccessGatewayDnsForwards", **one)["Data"] == [made]
    add = "AddSmartAccessGatewayDnsForward"
    api.refused(add, "DnsForward.DomainExist", 400, **dict(first, Domain="*.CORP.example"))
    api.refused(add, "Sag.PortNotExist", OutboundPortName="77", **dict(first, Domain="other.example"))
    for wrong in (dict(Domain="no name"), dict(MasterIp="ten"), dict(SlaveIp="x"), dict(OutboundPortIndex="one")):
        api.refused(add, "InvalidParameter", **{**first, "Domain": "w.example", **wrong})
    change = dict(one, InstanceId=made["InstanceId"], Domain="lab.example", MasterIp="2001:db8::53")
    api.call("UpdateSmartAccessGatewayDnsForward", **change)
    seen = api.call("ViewSmartAccessGatewayDnsForwards", **one)
    assert seen["Count"] == 1 and seen["Data"][0]["MasterIp"] == "2001:db8::53" and "SlaveIp" not in seen["Data"][0]
    for i in range(99):
        api.call(add, **dict(one, Domain=f"d{i}.example", MasterIp="10.0.0.53"))
    api.refused(add, "QuotaExceeded.DnsForward", 400, **dict(one, Domain="z.example", MasterIp="10.0.0.53"))
    api.call("DeleteSmartAccessGatewayDnsForward", InstanceId=made["InstanceId"], **one)
    for op, params in (("DeleteSmartAccessGatewayDnsForward", dict(one, InstanceId=made["InstanceId"])),
                       ("UpdateSmartAccessGatewayDnsForward", change)):
        api.refused(op, "InstanceNotExit", **params)


ICMP = dict(Type="Internet", Protocol="ICMP", Domain="www.example.com", Enable=True, PacketNumber=10)


def test_probe_tasks(api: Any, agent: Any) -> None:
    sag, sns = gateway(api)
    one = dict(SagId=sag, Sn=sns[0])
    report(agent, sag, sns[0])
    task = api.call("CreateProbeTask", TaskName="office", **one, **ICMP)["Data"]
    inside = dict(Type="Intranet", Protocol="TCP", Domain="10.1.0.1", Port=443, Enable=False,
                  ProbeTaskSourceAddress="10.9.0.1")
    off = api.call("CreateProbeTask", **one, **inside)["Data"]
    sent = apply(agent, sag, sns[0])["ProbeTasks"]
    assert [(t["ProbeTaskId"], t["Protocol"], t["PacketNumber"]) for t in sent] == [(task, "ICMP", 10)]
    assert apply(agent, sag, sns[1])["ProbeTasks"] == [], "the other device of the pair"
    for filters, found in ((one, [task, off]), (dict(TaskName="OFF"), [task]), (dict(ProbeTaskId=off), [off]),
                           (dict(SagId=sag, Protocol="TCP"), [off]), (dict(Sn=sns[1]), []),
                           (dict(SagName=name("none")), [])):
        rows = api.call("ListProbeTask", **filters)
        assert [t["ProbeTaskId"] for t in rows["Data"]] == found and rows["TotalCount"] == len(found)
    api.call("UpdateProbeTask", ProbeTaskId=off, Enable=True, Port=8443, **one)
    sent = {t["ProbeTaskId"]: t for t in apply(agent, sag, sns[0])["ProbeTasks"]}
    assert (sent[off]["Port"], sent[off]["ProbeTaskSourceAddress"]) == (8443, "10.9.0.1")
    # What the device has measured, of its own tasks and of no others.
    report(agent, sag, sns[0], ProbeTasks=[
        {"ProbeTaskId": task, "Sent": 10, "Answered": 9, "MinRtt": 4, "Rtt": 4.5, "MaxRtt": 6.25,
         "Time": 1_623_778_423_000},
        {"ProbeTaskId": off, "Sent": 2, "Answered": 0, "Problem": "no answer"},
        {"ProbeTaskId": "probe-strange", "Sent": 1, "Answered": 1}])
    results = {r["ProbeTaskId"]: r for r in agent.extension("DescribeProbeTaskResults", **one)["Results"]}
    assert set(results) == {task, off}
    assert (results[task]["Loss"], results[task]["Rtt"], results[task]["TaskName"]) == ("10.00%", "4.50", "office")
    assert (results[off]["Loss"], results[off]["Problem"]) == ("100.00%", "no answer") and "Rtt" not in results[off]
    for wrong, code in ((dict(PacketNumber=None), "MissingParameter"), (dict(PacketNumber=61), "InvalidParameter"),
                        (dict(Domain="http://x/"), "InvalidParameter"), (dict(Type="Intranet"), "MissingParameter"),
                        (dict(Protocol="HTTP"), "InvalidParameter"), (dict(Protocol="TCP"), "MissingParameter"),
                        (dict(ProbeTaskSourceAddress="me"), "InvalidParameter")):
        params = {k: v for k, v in {**one, **ICMP, **wrong}.items() if v is not None}
        api.refused("CreateProbeTask", code, **params)
    web = dict(Type="Intranet", Protocol="HTTP", Domain="http://10.1.0.1/", Enable=True,
               ProbeTaskSourceAddress="10.9.0.1")
    api.refused("CreateProbeTask", "InvalidParameter", **one, **web)
    for _ in range(18):
        api.call("CreateProbeTask", **one, **dict(web, Type="Internet"))
    api.refused("CreateProbeTask", "QuotaExceeded.ProbeTask", 400, **one, **ICMP)
    api.call("DeleteProbeTask", ProbeTaskId=off, **one)
    api.refused("DeleteProbeTask", "InstanceNotExit", ProbeTaskId=off, **one)
    api.refused("UpdateProbeTask", "InstanceNotExit", ProbeTaskId=task, SagId=sag, Sn=sns[1])
    api.call("UnbindSerialNumber", SmartAGId=sag, SerialNumber=sns[0])
    assert api.call("ListProbeTask", SagId=sag)["TotalCount"] == 0, "with the device go its tasks"


def test_service_addresses(api: Any, agent: Any) -> None:
    sag, sns = gateway(api)
    one = dict(SagId=sag, Sn=sns[0])
    own = f"10.{'12' if api.kind == 'v1' else '13'}.0."
    report(agent, sag, sns[0])
    create = dict(one, AddressType="ProbeTask")
    for i in range(1, 11):
        api.call("CreateServiceAddress", Address=f"{own}{i}", **create)
    api.refused("CreateServiceAddress", "QuotaExceeded.ServiceAddress", 400, Address=f"{own}11", **create)
    api.refused("CreateServiceAddress", "IllegalRemoteIp.Conflict", Address=f"{own}1", **create)
    api.refused("CreateServiceAddress", "IllegalRemoteIp.Conflict", Address=f"{own}1", **dict(create, Sn=sns[1]))
    for bad in ("127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.0.1"):
        api.refused("CreateServiceAddress", "InvalidParameter", Address=bad, **create)
    assert apply(agent, sag, sns[0])["ServiceAddresses"] == [f"{own}{i}" for i in range(1, 11)]
    api.call("ModifySagRemoteAccess", SmartAGId=sag, SerialNumber=sns[0], RemoteAccessIp=f"{own}99")
    seen = api.call("ListAvailableServiceAddress", **one)["Data"]
    assert seen[0] == {"Address": f"{own}1", "AddressType": "ProbeTask"} and len(seen) == 11
    seen = api.call("ListAvailableServiceAddress", AddressType="RemoteWeb", **one)["Data"]
    assert seen == [{"Address": f"{own}99", "AddressType": "RemoteWeb"}]
    api.call("DeleteServiceAddress", Address=f"{own}1", **create)
    api.refused("DeleteServiceAddress", "InstanceNotExit", Address=f"{own}1", **create)
    assert f"{own}1" not in apply(agent, sag, sns[0])["ServiceAddresses"]


def test_advanced_monitoring(api: Any, agent: Any) -> None:
    sag, sns = gateway(api)
    assert api.call("GetAdvancedMonitorState", SagId=sag)["Data"] == [{"Enable": False}]
    api.call("SetAdvancedMonitorState", SagId=sag, Enable=True)
    assert api.call("GetAdvancedMonitorState", SagId=sag)["Data"] == [{"Enable": True}]
    assert apply(agent, sag, sns[0])["Gateway"]["AdvancedMonitor"] is True
    api.refused("SetAdvancedMonitorState", "SAG.SoftwareNotSupport", SagId=software(api), Enable=True)
    api.refused("GetAdvancedMonitorState", "SAG.InstanceNoFound", SagId="sag-nobody")


def test_application_acceleration(api: Any, agent: Any) -> None:
    (sag, sns), app = gateway(api), software(api)
    plan = dict(ApplicationBandwidthPackageId="abp-1")
    configs = [dict(SmartAGId=sag, Bandwidth=20), dict(SmartAGId=app, Bandwidth=10)]
    associate, dissociate = ("AssociateSmartAGWithApplicationBandwidthPackage",
                             "DissociateSmartAGFromApplicationBandwidthPackage")
    api.call(associate, AssociateConfigs=configs, **plan)
    assert apply(agent, sag, sns[0])["Gateway"]["AccelerateBandwidth"] == 20
    row = api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
    assert row["AccelerateBandwidth"] == 20
    api.refused(associate, "IncorrectStatus", AssociateConfigs=configs, ApplicationBandwidthPackageId="abp-2")
    api.refused(associate, "MissingParameter", AssociateConfigs=[], **plan)
    api.refused(associate, "MissingParameter", AssociateConfigs=[dict(SmartAGId=sag)], **plan)
    api.refused(associate, "DryRunOperation", DryRun=True, AssociateConfigs=configs, **plan)
    user = dict(UserName="li", Password="passw0rd1", UserMail="li@example.com", Bandwidth=1)
    api.call("CreateSmartAccessGatewayClientUser", SmartAGId=app, **user)
    api.call("UpdateSmartAGUserAccelerateConfig", SmartAGId=app, UserName="li", Bandwidth=2000)
    users = api.call("DescribeSmartAccessGatewayClientUsers", SmartAGId=app)["Users"]["User"]
    assert users[0]["AccelerateBandwidth"] == 2000
    api.call(dissociate, SmartAGIdList=[sag], **plan)
    api.call(dissociate, SmartAGId=app, **plan)
    assert "AccelerateBandwidth" not in apply(agent, sag, sns[0])["Gateway"]
    api.refused(dissociate, "IncorrectStatus", SmartAGId=app, **plan)
    api.refused(dissociate, "MissingParameter", **plan)


def test_enterprise_network_of_the_own_account(api: Any) -> None:
    ccn = network(api)
    one = dict(CcnId=ccn, CenId=f"cen-{name('x')}")
    for wrong, code in ((dict(CcnId="ccn-nobody"), "InvalidId.CCN"), (dict(CenId="x"), "InvalidParameter"),
                        (dict(Subnet="8.8.8.0/24"), "CCN.InvalidCidr")):
        api.refused("AttachCcnInstanceToCen", code, **{**one, **wrong})
    sag, _ = gateway(api)
    api.call("ModifySmartAccessGateway", SmartAGId=sag, CidrBlock="10.78.0.0/16")
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.refused("AttachCcnInstanceToCen", "CidrConflict", Subnet="10.78.4.0/24", **one)
    api.call("AttachCcnInstanceToCen", Subnet="10.79.4.0/24", **one)
    api.refused("AttachCcnInstanceToCen", "AlreadyBound.CEN", **one)
    rows = api.call("DescribeCloudConnectNetworks", CcnId=ccn)["CloudConnectNetworks"]["CloudConnectNetwork"]
    assert (rows[0]["AssociatedCenId"], rows[0]["Subnet"]) == (one["CenId"], "10.79.4.0/24")
    assert rows[0]["AssociatedCenOwnerId"] == str(account(api))
    api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.refused("DeleteCloudConnectNetwork", "AlreadyBound.CEN", CcnId=ccn)
    api.call("DetachCcnInstanceFromCen", **one)
    api.refused("DetachCcnInstanceFromCen", "NotBoundCEN", **one)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)
