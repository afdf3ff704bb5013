"""What the SDK has beyond the documents for documented operations: the second table of `docs/coverage.md`."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

import catalogue
from helpers import gateway, name, report, rows, software
from levels import FIELDS
from test_app import with_block

NETWORKS = ("CloudConnectNetworks", "CloudConnectNetwork")
GATEWAYS = ("SmartAccessGateways", "SmartAccessGateway")


def test_the_table_has_every_parameter_of_the_sdk() -> None:
    """What the models of the SDK have, the catalogue has, or it is common to all operations."""
    models = importlib.import_module("alibabacloud_smartag20180313.models")
    common = {"OwnerAccount", "OwnerId", "ResourceOwnerAccount", "ResourceOwnerId", "RegionId", "ClientToken", "DryRun"}
    unknown = []
    for op, spec in catalogue.OPERATIONS.items():
        model = getattr(models, f"{op}Request", None)
        if model is None:
            continue
        source = importlib.import_module(model.__module__).__loader__.get_source(model.__module__)
        sent = set(re.findall(r"result\['(\w+)'\]", source.split("\nclass ", 2)[1]))
        has = {p["name"].split(".")[0] for p in spec["request"]}
        unknown += [f"{op}: {p}" for p in sorted(sent - has - common)]
    assert unknown == []
    named = " ".join(f"{op} {fields}" for op, fields, _ in FIELDS)
    for op in ("CreateACL", "DescribeSagWan4G", "DescribeUserFlowStatistics", "ModifyClientUserDNS"):
        assert op in named


def test_lists_for_client_apps(api: Any, agent: Any) -> None:
    call = api.call if api.kind == "acs3" else agent.extension
    label = name("typed")
    plain = call("CreateACL", Name=label)
    typed = call("CreateACL", Name=label, AclType="acl-software")
    assert (plain["AclType"], typed["AclType"]) == ("acl-hardware", "acl-software")
    for kind, of in (("acl-hardware", plain), ("acl-software", typed)):
        listed = rows(call("DescribeACLs", Name=label, AclType=kind), "Acls", "Acl")
        assert [(a["AclId"], a["AclType"]) for a in listed] == [(of["AclId"], kind)]
    assert call("DescribeACLs", Name=label)["TotalCount"] == 2
    rule = dict(SourceCidr="10.0.0.0/24", DestCidr="0.0.0.0/0", IpProtocol="all", SourcePortRange="-1/-1",
                DestPortRange="-1/-1", Direction="out", Policy="accept")
    call("AddACLRule", AclId=typed["AclId"], **rule)
    assert rows(call("DescribeACLAttribute", AclId=typed["AclId"]), "Acrs", "Acr")[0]["AclType"] == "acl-software"
    sag, _ = gateway(api)
    api.refused("AssociateACL", "FeatureNotSupport", AclId=typed["AclId"], SmartAGId=sag)
    api.call("AssociateACL", AclId=plain["AclId"], SmartAGId=sag)


def test_networks(api: Any, agent: Any) -> None:
    label = name("net_x")
    ccn = api.call("CreateCloudConnectNetwork", Name=label)["CcnId"]
    row = rows(agent.extension("DescribeCloudConnectNetworks", CcnId=ccn), *NETWORKS)[0]
    assert not {"AssociatedCenStatus", "CenStatusErrorCode", "CenStatusErrorMessage", "NewAgw", "ProcessingCenId"} & set(row)
    tagged = agent.extension("DescribeCloudConnectNetworks", **{"CcnId": ccn, "Tag.1.Key": "k", "Tag.1.Value": "v"})
    assert tagged["TotalCount"] == 0
    # Gateways by the name of their network, or a part of it.
    sag, _ = gateway(api)
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)

    def found(text: str) -> list[str]:
        listed = rows(agent.extension("DescribeSmartAccessGateways", AssociatedCcnName=text), *GATEWAYS)
        return [g["SmartAGId"] for g in listed]

    assert found(label) == found(label[3:]) == found(label.upper()) == [sag]
    assert found(label.replace("_", "y")) == found(label.replace("_", "%")) == found(name("nobody")) == []
    api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    assert found(label) == []
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_gateways(api: Any, agent: Any) -> None:
    sag, sns = gateway(api)
    report(agent, sag, sns[0])

    def shown() -> Any:
        return rows(agent.extension("DescribeSmartAccessGateways", SmartAGId=sag), *GATEWAYS)[0]

    row = shown()
    assert (row["EnableAdvancedMonitor"], row["EnableSoftwareConnectionAudit"], row["IRIds"]) == (False, False, "")
    assert "Isp" not in row
    agent.extension("ModifySmartAccessGateway", SmartAGId=sag, Position="Hangzhou", EnableSoftwareConnectionAudit=False)
    api.call("SetAdvancedMonitorState", SagId=sag, Enable=True)
    row = shown()
    assert (row["EnableAdvancedMonitor"], row["Position"]) == (True, "Hangzhou")
    with pytest.raises(Exception, match="FeatureNotSupport"):
        agent.extension("ModifySmartAccessGateway", SmartAGId=sag, EnableSoftwareConnectionAudit=True)
    api.refused("DescribeSagWan4G", "FeatureNotSupport", SmartAGId=sag, SmartAGSn=sns[0])


def test_client_apps(api: Any, agent: Any) -> None:
    app = with_block(api, "10.40.0.0/24")
    both = {"AppDNS.1": "100.100.2.136", "AppDNS.2": "100.100.2.138", "RecoveredDNS.1": "192.0.2.53"}
    agent.extension("ModifyClientUserDNS", **both, **app)
    shown = agent.extension("DescribeClientUserDNS", **app)
    assert shown["AppDNS"] == ["100.100.2.136", "100.100.2.138"] and "RecoveredDNS" not in shown
    agent.extension("ModifyClientUserDNS", **app)
    assert agent.extension("DescribeClientUserDNS", **app)["AppDNS"] == []
    flow = agent.extension("DescribeUserFlowStatistics", **{"UserNames.1": "li", "StatisticsDate": "201905"}, **app)
    assert "TotalLeaveBytes" not in flow["SagStatistics"]["Statistics"][0]
    # A model of the SDK sends the two lists as it has them.
    if api.kind == "acs3":
        api.call("ModifyClientUserDNS", AppDNS=["100.100.2.136"], RecoveredDNS=["192.0.2.53"], **app)
    api.call("DescribeSmartAccessGateways", SmartAGId=software(api))
