"""Publication of routes, interworking of the members of a network, and what happens at the end of a gateway's time."""

import subprocess

from conftest import BIN
from helpers import gateway, rows


def strategies(api, sag):
    shown = api.call("DescribeRouteDistributionStrategies", SmartAGId=sag, SourceType="local")
    return {s["DestCidrBlock"]: (s["StrategyPublishStatus"], s["Status"]) for s in rows(shown, "Strategies", "Strategy")}


def members(agent, sag, sn):
    network = agent.extension("PullSmartAGConfig", SmartAGId=sag, SmartAGSn=sn, Revision=0)["Config"]["Ccn"]
    return {m["SmartAGId"]: m.get("CidrBlocks") for m in network.get("Members", [])}


def test_publication_and_interworking(api, agent):
    """StrategyPublishStatus and Status: document 000, lines 22306 to 22323; InterworkingStatus: line 11378."""
    (a, _), (b, sns) = gateway(api), gateway(api)
    ccn = api.call("CreateCloudConnectNetwork", Name="published")["CcnId"]
    for sag, block in [(a, "10.61.0.0/24"), (b, "10.62.0.0/24")]:
        api.call("ModifySmartAccessGateway", SmartAGId=sag, CidrBlock=block, RoutingStrategy="static")
    assert strategies(api, a) == {"10.61.0.0/24": ("not_publish", "normal")}, "it is in no network"
    for sag in (a, b):
        api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    assert strategies(api, a) == {"10.61.0.0/24": ("publish", "normal")}
    assert members(agent, b, sns[0]) == {a: ["10.61.0.0/24"]}
    route = dict(SmartAGId=a, SourceType="local", RouteSource="STATIC", DestCidrBlock="10.61.0.0/24")
    api.call("ModifyRouteDistributionStrategy", RouteDistribution="no_publish", **route)
    assert strategies(api, a) == {"10.61.0.0/24": ("not_publish", "normal")}
    assert not members(agent, b, sns[0])[a]
    api.call("DeleteRouteDistributionStrategy", **route)
    api.call("ModifyCloudConnectNetwork", CcnId=ccn, InterworkingStatus="disable")
    assert members(agent, b, sns[0]) == {}
    api.call("ModifyCloudConnectNetwork", CcnId=ccn, InterworkingStatus="enable")
    assert members(agent, b, sns[0]) == {a: ["10.61.0.0/24"]}
    for sag in (a, b):
        api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_renewal(api, agent, server):
    """By the operation, and by the command."""
    sag, _ = gateway(api)
    end = lambda: api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)["EndTime"]
    first = end()
    answer = agent.extension("RenewSmartAccessGateway", SmartAGId=sag, Period=12)
    assert answer["EndTime"] == end() and 360 < (end() - first) / 86_400_000 < 367
    done = subprocess.run([BIN, "renew", "--gateway", sag, "--months", "1", *server.db], check=True,
                          capture_output=True, text=True)
    assert sag in done.stdout and 27 < (end() - answer["EndTime"]) / 86_400_000 < 32
