"""Cloud connect networks, grants, border routers, access points."""

import os

import pytest

import helpers
from clients import ApiError
from conftest import access_key
from helpers import answer_probe, gateway, report, rows


def network(api, **more):
    return api.call("CreateCloudConnectNetwork", Name=helpers.name("ccn"), **more)["CcnId"]


def test_network(api):
    ccn = network(api, CidrBlock="10.64.0.0/16", SnatCidrBlock="10.64.1.0/24", Description="text")
    a, _ = gateway(api)
    b, _ = gateway(api)
    api.call("ModifySmartAccessGateway", SmartAGId=a, CidrBlock="192.168.1.0/24")
    api.call("ModifySmartAccessGateway", SmartAGId=b, CidrBlock="192.168.0.0/16")
    free = api.call("DescribeBindableSmartAccessGateways", SmartAGId=a, CcnId=ccn)
    assert free["TotalCount"] == 1
    api.refused("DescribeBindableSmartAccessGateways", "CCN.InvalidId", CcnId="ccn-nobody")
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=a)
    assert api.call("DescribeBindableSmartAccessGateways", SmartAGId=a)["TotalCount"] == 0
    api.refused("BindSmartAccessGateway", "SmartAccessGatewayAlreadyBound", CcnId=ccn, SmartAGId=a)
    api.refused("BindSmartAccessGateway", "CidrConflict", CcnId=ccn, SmartAGId=b)
    api.refused("BindSmartAccessGateway", "InvalidId.CCN", CcnId="ccn-nobody", SmartAGId=b)
    api.refused("BindSmartAccessGateway", "InvalidId.SMARTAG", CcnId=ccn, SmartAGId="sag-nobody")
    api.call("ModifySmartAccessGateway", SmartAGId=b, CidrBlock="192.168.2.0/24")
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=b)
    api.refused("ModifySmartAccessGateway", "SAG.CidrOverlap", SmartAGId=b, CidrBlock="192.168.1.0/25")
    api.refused("ModifySmartAccessGateway", "SAG.ConflictCidr.CcnSnatCidr", SmartAGId=b, CidrBlock="10.64.1.0/25")
    second = network(api)
    api.refused("BindSmartAccessGateway", "AlreadyBound.CCN", CcnId=second, SmartAGId=a)
    bare, _ = gateway(api, "sag-1000")
    api.refused("BindSmartAccessGateway", "SAG.NoBindSN", CcnId=second, SmartAGId=bare)

    row = rows(api.call("DescribeCloudConnectNetworks", CcnId=ccn), "CloudConnectNetworks", "CloudConnectNetwork")[0]
    assert row["AssociatedCloudBoxCount"] == "2" and row["CidrBlock"] == "10.64.0.0/16"
    shown = api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=a)
    assert shown["AssociatedCcnId"] == ccn
    assert rows(shown, "Links", "Link")[0]["RelateInstanceId"] == ccn
    assert api.call("DescribeSmartAccessGateways", AssociatedCcnId=ccn)["TotalCount"] == 2

    api.call("ModifyCloudConnectNetwork", CcnId=ccn, Name="renamed", InterworkingStatus="disable")
    api.refused("ModifyCloudConnectNetwork", "CCN.InvalidInterworkingStatus", CcnId=ccn, InterworkingStatus="on")
    api.refused("ModifyCloudConnectNetwork", "CCN.InvalidCidr", CcnId=ccn, CidrBlock="10.0.0.0")
    api.refused("ModifyCloudConnectNetwork", "InvalidId.CCN", CcnId="ccn-nobody", Name="abc")
    api.refused("DeleteCloudConnectNetwork", "AlreadyBound.SMARTAG", CcnId=ccn)
    for sag in (a, b):
        api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.refused("UnbindSmartAccessGateway", "SmartAccessGatewayNotBind", CcnId=ccn, SmartAGId=a)
    for c in (ccn, second):
        api.call("DeleteCloudConnectNetwork", CcnId=c)
    api.refused("DeleteCloudConnectNetwork", "InvalidId.CCN", CcnId=ccn)


def test_network_rules(api):
    create = "CreateCloudConnectNetwork"
    api.refused(create, "CCN.InvalidCidr", CidrBlock="300.0.0.0/8")
    api.refused(create, "CCN.CidrEmpty", SnatCidrBlock="10.0.0.0/24")
    api.refused(create, "CCN.InvalidSnatCidr", CidrBlock="10.0.0.0/16", SnatCidrBlock="x")
    api.refused(create, "CCN.SnatCidrConflict", CidrBlock="10.0.0.0/16", SnatCidrBlock="10.0.0.0/8")
    api.refused(create, "CCN.CidrAmountLimit", CidrBlock=",".join(f"10.{i}.0.0/16" for i in range(11)))
    api.refused(create, "InvalidName", Name="1")
    limit = api.call("GetCloudConnectNetworkUseLimit")
    made = [network(api) for _ in range(limit["TotalAmount"] - limit["UsedAmount"])]
    api.refused(create, "CcnAmountLimit", Name="too-many")
    for ccn in made:
        api.call("DeleteCloudConnectNetwork", CcnId=ccn)
    page = "DescribeCloudConnectNetworks"
    for tags, code in [
        ({"Tag.1.Value": "v"}, "InvalidTagKey"),
        ({"Tag.1.Key": "k", "Tag.2.Key": "k"}, "Forbidden.TagKey.Duplicated"),
    ]:
        if api.kind == "v1":
            api.refused(page, code, **tags)


def test_grants_to_networks(api, other, server):
    sag, _ = gateway(api)
    ccn = network(other)
    uid = account(other)
    grant = dict(SmartAGId=sag, CcnInstanceId=ccn)
    other.refused("BindSmartAccessGateway", "Forbidden", CcnId=ccn, SmartAGId=sag, SmartAGUid=account(api))
    # Whether a third account has the network does not show.
    api.refused("GrantSagInstanceToCcn", "CCN.InvalidId", CcnUid=1, **grant)
    api.refused("GrantSagInstanceToCcn", "CCN.InvalidUid", CcnUid=account(api), **grant)
    api.refused("GrantSagInstanceToCcn", "CCN.InvalidId", CcnUid=uid, SmartAGId=sag, CcnInstanceId="ccn-nobody")
    assert api.call("GrantSagInstanceToCcn", CcnUid=uid, **grant)["InstanceId"].startswith("sgc-")
    api.refused("GrantSagInstanceToCcn", "SAG.GrantDuplicated", CcnUid=uid, **grant)
    rule = rows(api.call("DescribeGrantSagRules", SmartAGId=sag), "GrantRules", "GrantRule")[0]
    assert rule["CcnInstanceId"] == ccn and rule["CcnUid"] == uid
    seen = other.call("DescribeBindableSmartAccessGateways", CcnId=ccn, CrossAccount=True)
    assert rows(seen, "SmartAccessGateways", "SmartAccessGateway")[0]["SmartAGId"] == sag
    other.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag, SmartAGUid=account(api))
    if hasattr(other, "extension"):
        # Fifty blocks may be granted to it, and not one more.
        blocks = lambda n: ",".join(f"10.{i}.0.0/16" for i in range(n))
        member = dict(CcnId=ccn, SmartAGId=sag)
        with pytest.raises(ApiError) as too_many:
            other.extension("ModifyCloudConnectNetworkMember", CidrBlock=blocks(51), **member)
        assert too_many.value.code == "CCN.CidrAmountLimit"
        other.extension("ModifyCloudConnectNetworkMember", CidrBlock=blocks(50), **member)
    third = type(api)(server.endpoint, access_key(server.db, f"third-{api.kind}-{os.getpid()}"), api.record)
    third.refused("UnbindSmartAccessGateway", "Forbidden", CcnId=ccn, SmartAGId=sag, SmartAGUid=account(api))
    other.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag, SmartAGUid=account(api))
    api.call("RevokeSagInstanceFromCcn", **grant)
    api.refused("RevokeSagInstanceFromCcn", "CCN.InvalidId", **grant)
    other.call("DeleteCloudConnectNetwork", CcnId=ccn)


def account(api):
    """The number of the account, as the instances show it."""
    if not hasattr(api, "uid"):
        sag, _ = gateway(api)
        row = api.call("DescribeSmartAccessGateways", SmartAGId=sag)
        api.uid = rows(row, "SmartAccessGateways", "SmartAccessGateway")[0]["SmartAGUid"]
    return api.uid


def test_grants_to_enterprise_networks(api):
    ccn = network(api)
    grant = dict(CcnInstanceId=ccn, CenInstanceId="cen-7qthudw0ll6jm00000")
    api.call("GrantInstanceToCbn", CenUid=123456789, GrantTrafficService=True, **grant)
    rule = rows(api.call("DescribeGrantRules", AssociatedCcnId=ccn), "GrantRules", "GrantRule")[0]
    assert rule["CenUid"] == 123456789 and rule["GrantTrafficService"] is True
    api.refused("DeleteCloudConnectNetwork", "AlreadyBound.CEN", CcnId=ccn)
    api.call("RevokeInstanceFromCbn", **grant)
    some = dict(CcnInstanceId=ccn, CenUid=123456789, GrantTrafficService=True)
    for i in range(20):
        api.call("GrantInstanceToCbn", CenInstanceId=f"cen-{i}", **some)
    api.refused("GrantInstanceToCbn", "QuotaExceeded.CenGrant", 400, CenInstanceId="cen-20", **some)
    for i in range(20):
        api.call("RevokeInstanceFromCbn", CcnInstanceId=ccn, CenInstanceId=f"cen-{i}")
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_border_routers(api, other):
    sag, _ = gateway(api)
    vbr = dict(VbrId="vbr-" + helpers.name(api.kind), VbrRegionId="cn-hangzhou")
    api.refused("BindVbr", "NotBoundCCN", SmartAGId=sag, **vbr)
    ccn = network(api)
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.refused("BindVbr", "InvalidId.VBR", SmartAGId=sag, VbrId="x", VbrRegionId="cn-hangzhou")
    api.call("BindVbr", SmartAGId=sag, **vbr)
    api.refused("BindVbr", "SAG.VbrBound", SmartAGId=sag, **vbr)
    api.refused("UnbindSmartAccessGateway", "SAG.DedicatedLineExist", CcnId=ccn, SmartAGId=sag)
    params = dict(VbrInstanceIds=[vbr["VbrId"]], VbrRegionId="cn-hangzhou")
    got = api.call("DescribeSagVbrRelations", **params)["SagVbrRelations"]
    assert got[0]["SagInstanceId"] == sag
    assert other.call("DescribeSagVbrRelations", **params)["SagVbrRelations"] == []
    grant = dict(SmartAGId=sag, VbrInstanceId="vbr-other")
    api.call("GrantSagInstanceToVbr", VbrRegionId="cn-hangzhou", VbrUid=account(other), **grant)
    many = [dict(SmartAGId=sag, VbrInstanceId=f"vbr-{i}") for i in range(20)]
    for one in many[1:]:
        api.call("GrantSagInstanceToVbr", VbrRegionId="cn-hangzhou", VbrUid=account(other), **one)
    over = dict(VbrRegionId="cn-hangzhou", VbrUid=account(other), **many[0])
    api.refused("GrantSagInstanceToVbr", "QuotaExceeded.VbrGrant", 400, **over)
    for one in many[1:]:
        api.call("RevokeInstanceFromVbr", **one)
    rule = rows(api.call("DescribeGrantSagVbrRules", **grant), "GrantRules", "GrantRule")[0]
    assert rule["Bound"] is False
    api.call("RevokeInstanceFromVbr", **grant)
    api.call("UnbindVbr", SmartAGId=sag, **vbr)
    api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.refused("UnbindVbr", "NotBoundCCN", SmartAGId=sag, **vbr)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_access_points(api, agent):
    sag, sns = gateway(api)
    points = api.call("ListAccessPoints")["AccessPoints"]
    assert sum(p["InactiveSmartAGCount"] for p in points) > 0
    move = dict(SmartAGId=sag, AccessPointId=points[1]["AccessPointId"])
    api.refused("UpdateSmartAGAccessPoint", "NotBoundCCN", **move)
    ccn = network(api)
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.refused("UpdateSmartAGAccessPoint", "SmartAccessGatewayNotOnline", **move)
    report(agent, sag, sns[0])
    api.call("UpdateSmartAGAccessPoint", **move)
    there = api.call("ListSmartAGByAccessPoint", AccessPointId=move["AccessPointId"])["SmartAccessGateways"]
    assert [g["SmartAGId"] for g in there] == [sag] and there[0]["SmartAGStatus"] == "Active"
    got = api.call("ListAccessPointNetworkQualities", SmartAGId=sag)["AccessPointNetworkQualities"]
    assert got == [{"Id": 101, "Loss": "0.00%", "Rtt": "4.98"}]
    with pytest.raises(ApiError):
        api.call("ProbeAccessPointNetworkQuality", SmartAGId=sag, AccessPointIds=[999])
    device = answer_probe(agent, sag, sns[0])
    api.call("ProbeAccessPointNetworkQuality", SmartAGId=sag, AccessPointIds=[101, 102])
    device.join()
    got = api.call("ListAccessPointNetworkQualities", SmartAGId=sag)["AccessPointNetworkQualities"]
    assert [q["Id"] for q in got] == [101, 102]
    api.refused("ProbeAccessPointNetworkQuality", "ProbeFrequencyTooHigh", SmartAGId=sag, AccessPointIds=[101])
    api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_an_access_point_out_of_reach(api, agent):
    """Line 9287 of document 000: then the probe answers an error."""
    sag, sns = gateway(api)
    api.refused("ProbeAccessPointNetworkQuality", "SmartAccessGatewayNotOnline", SmartAGId=sag, AccessPointIds=[101])
    report(agent, sag, sns[0])
    device = answer_probe(agent, sag, sns[0], p102="100.00%")
    with pytest.raises(ApiError) as e:
        api.call("ProbeAccessPointNetworkQuality", SmartAGId=sag, AccessPointIds=[101, 102])
    device.join()
    assert e.value.code == "AccessPointUnreachable" and "102" in str(e.value) and "101" not in str(e.value)
    got = api.call("ListAccessPointNetworkQualities", SmartAGId=sag)["AccessPointNetworkQualities"]
    assert [q["Loss"] for q in got] == ["0.00%", "100.00%"]
    # Of a device that has said that it can neither measure nor choose.
    report(agent, sag, sns[0], Capabilities=["Acl"])
    api.refused("ProbeAccessPointNetworkQuality", "FeatureNotSupport", SmartAGId=sag, AccessPointIds=[101])
    api.refused("UpdateSmartAGAccessPoint", "FeatureNotSupport", SmartAGId=sag, AccessPointId=101)


def test_members_learn_of_each_others_ends(api, agent):
    """What a device announces reaches the other members of its network, and wakes them when it changes."""
    ccn = network(api)
    one, two = gateway(api), gateway(api)
    for sag, _ in (one, two):
        api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    pull = lambda who, have: agent.extension("PullSmartAGConfig", SmartAGId=who[0], SmartAGSn=who[1][0], Revision=have)
    have = pull(two, 0)["Revision"]
    end = {"Address": "203.0.113.7", "Epoch": 5, "PublicKey": "ab" * 32, "Pop": True}
    report(agent, one[0], one[1][0], Overlay={**end, "Other": 1})
    got = pull(two, have)
    assert got["Changed"]
    member = next(m for m in got["Config"]["Ccn"]["Members"] if m["SmartAGId"] == one[0])
    # That it may be the hub is its own word, and no other member's business.
    said = {k: v for k, v in end.items() if k != "Pop"}
    assert member["Devices"] == [{**said, "SmartAGSn": one[1][0], "Lines": []}]
    # The same announcement changes nothing; another key does.
    report(agent, one[0], one[1][0], Overlay={**end, "Other": 1})
    assert not pull(two, got["Revision"])["Changed"]
    report(agent, one[0], one[1][0], Overlay={**end, "Epoch": 6})
    assert pull(two, got["Revision"])["Config"]["Ccn"]["Members"][0]["Devices"][0]["Epoch"] == 6
    # The owner of the network makes it the hub, and sees what each device has announced.
    agent.extension("ModifyCloudConnectNetworkMember", CcnId=ccn, SmartAGId=one[0], Hub=True)
    network_of_two = pull(two, 0)["Config"]["Ccn"]
    assert network_of_two["HubSmartAGId"] == one[0] and network_of_two["Members"][0]["Devices"][0]["Pop"] is True
    members = agent.extension("DescribeCloudConnectNetworkMembers", CcnId=ccn)
    assert members["HubSmartAGId"] == one[0] and members["TotalCount"] == 2
    device = members["Members"]["Member"][0]["Devices"]["Device"][0]
    assert (device["Address"], device["Epoch"], device["HubCapable"], device["Problem"]) == ("203.0.113.7", 6, True, "")
    for sag, _ in (one, two):
        api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
