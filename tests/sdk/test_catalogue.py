"""What users of Terraform, of the command line and of other SDKs rely on: values, defaults, what may be left out, and
what an empty value means. Line numbers are those of the vendor's documents."""

import json

import pytest

from clients import ApiError
from helpers import gateway, name, report, rows, software
from test_network import network
from test_rules import CAR, LOG, POLICY, RULE
from wire import send, signed


def document(agent, sag, sn):
    return agent.extension("PullSmartAGConfig", SmartAGId=sag, SmartAGSn=sn)["Config"]


def test_dnat_as_terraform_sends_it(api, agent_of):
    sag, sns = gateway(api)
    entry = dict(SagId=sag, Type="Intranet", ExternalIp="172.32.0.2", InternalIp="172.16.0.4")
    api.call("AddDnatEntry", **entry, IpProtocol="any", ExternalPort="any", InternalPort="any")
    api.call("AddDnatEntry", **entry, IpProtocol="tcp", ExternalPort="any", InternalPort="Any")
    api.call("AddDnatEntry", **{**entry, "Type": "Internet"}, IpProtocol="UDP", ExternalPort="53", InternalPort="53")
    # All ports cannot lead to one.
    api.refused("AddDnatEntry", "IllegalParam", **entry, IpProtocol="udp", ExternalPort="any", InternalPort="53")
    for wrong in (dict(IpProtocol="icmp"), dict(IpProtocol="tcp", ExternalPort="0"), dict(IpProtocol="tcp", ExternalPort="x")):
        with pytest.raises(ApiError):
            api.call("AddDnatEntry", **{**entry, "ExternalPort": "1", "InternalPort": "1", **wrong})
    api.refused("AddDnatEntry", "DuplicatedDnatEntry", **entry, IpProtocol="TCP", ExternalPort="ANY", InternalPort="any")
    # Without Type both kinds are listed, and each entry has the words that were sent.
    listed = rows(api.call("DescribeDnatEntries", SagId=sag), "DnatEntries", "DnatEntry")
    assert sorted((e["IpProtocol"], e["ExternalPort"], e["Type"]) for e in listed) == [
        ("UDP", "53", "Internet"), ("any", "any", "Intranet"), ("tcp", "any", "Intranet")]
    assert api.call("DescribeDnatEntries", SagId=sag, Type="Internet")["TotalCount"] == 1
    sent = document(agent_of(api), sag, sns[0])["DnatEntries"]
    assert sorted((e["IpProtocol"], e["ExternalPort"], e["InternalPort"]) for e in sent) == [
        ("UDP", "53", "53"), ("any", "any", "any"), ("tcp", "1/65535", "1/65535")]


def test_protocols_with_a_service_name(api, agent_of):
    """000:12836: the console decides which protocols there are."""
    sag, sns = gateway(api)
    acl = api.call("CreateACL", Name="services")["AclId"]
    api.call("AssociateACL", AclId=acl, SmartAGId=sag)
    for protocol, ports in [("SSH(22)", "-1/-1"), ("telnet(23)", "23/23"), ("HTTP(80)", "-1/-1"), ("HTTPS(443)", "-1/-1")]:
        rule = api.call("AddACLRule", AclId=acl, **{**RULE, "IpProtocol": protocol, "DestPortRange": ports})
        assert (rule["IpProtocol"], rule["DestPortRange"]) == (protocol, ports)
    api.refused("AddACLRule", "InvalidPortRange", AclId=acl, **{**RULE, "IpProtocol": "SSH(22)", "DestPortRange": "80/80"})
    api.refused("AddACLRule", "NotSupportedProtocol", AclId=acl, **{**RULE, "IpProtocol": "SSH(23)"})
    rules = document(agent_of(api), sag, sns[0])["Acls"][0]["Rules"]
    assert sorted((r["IpProtocol"], r["DestPortRange"]) for r in rules) == [
        ("TCP", "22/22"), ("TCP", "23/23"), ("TCP", "443/443"), ("TCP", "80/80")]
    api.call("DisassociateACL", AclId=acl, SmartAGId=sag)
    api.call("DeleteACL", AclId=acl)


def test_qos(api):
    qos = api.call("CreateQos", QosName="catalogue")["QosId"]
    car = api.call("CreateQosCar", QosId=qos, **{k: v for k, v in CAR.items() if k != "PercentSourceType"}, Priority=7)
    # 000:18500: the printed example of an Absolute limit has it.
    assert car["PercentSourceType"] == "InternetUpBandwidth"
    listed = rows(api.call("DescribeQosCars", QosId=qos), "QosCars", "QosCar")[0]
    assert (listed["LimitType"], listed["PercentSourceType"]) == ("Absolute", "InternetUpBandwidth")
    policy = api.call("CreateQosPolicy", QosId=qos, **{**POLICY, "StartTime": "2019-07-14T16:41:33+0800"})["QosPolicyId"]
    which = dict(QosId=qos, QosPolicyId=policy)
    for priority in (1, 7):
        api.call("ModifyQosPolicy", **which, Priority=priority)
    # An empty value takes the window away, what is left out stays.
    api.call("ModifyQosPolicy", **which, StartTime="", Description="")
    row = rows(api.call("DescribeQosPolicies", QosId=qos), "QosPolicies", "QosPolicy")[0]
    assert row["Priority"] == 7 and not row.get("StartTime") and not row.get("Description")
    api.call("ModifyQos", QosId=qos, QosDescription="a sentence, of words.")
    assert rows(api.call("DescribeQoses", QosIds=json.dumps([qos])), "Qoses", "Qos")[0]["QosName"] == "catalogue"
    api.call("DeleteQos", QosId=qos)


def test_a_network_keeps_what_terraform_sets(api):
    for wanted in (True, False):
        # The newer SDK has no such parameter any more.
        call = api.call if api.kind == "v1" else api.extension
        ccn = call("CreateCloudConnectNetwork", Name="上海.分支-1", IsDefault=str(wanted).lower())["CcnId"]
        row = rows(api.call("DescribeCloudConnectNetworks", CcnId=ccn), "CloudConnectNetworks", "CloudConnectNetwork")[0]
        assert row["IsDefault"] is wanted
        api.call("ModifyCloudConnectNetwork", CcnId=ccn, Description="tf-testAcc, a sentence.")
        api.call("ModifyCloudConnectNetwork", CcnId=ccn, Name="Ünïté")
        row = rows(api.call("DescribeCloudConnectNetworks", CcnId=ccn), "CloudConnectNetworks", "CloudConnectNetwork")[0]
        assert (row["Name"], row["Description"]) == ("Ünïté", "tf-testAcc, a sentence.")
        api.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_a_flow_log_changes_what_is_named(api):
    log = api.call("CreateFlowLog", **LOG)["FlowLogId"]

    def shown():
        return rows(api.call("DescribeFlowLogs", FlowLogId=log), "FlowLogs", "FlowLogSetType")[0]

    before = shown()
    api.call("ModifyFlowLogAttribute", FlowLogId=log, ActiveAging=600)
    assert shown() == {**before, "ActiveAging": 600}
    # Each output needs its own fields alone.
    api.call("ModifyFlowLogAttribute", FlowLogId=log, OutputType="netflow", NetflowServerIp="192.0.2.9",
             NetflowServerPort=9995, NetflowVersion="V9")
    api.call("ModifyFlowLogAttribute", FlowLogId=log, ProjectName="", LogstoreName="", SlsRegionId="", Description="")
    after = shown()
    assert (after["OutputType"], after["ProjectName"], after["Description"]) == ("netflow", "", "")
    with pytest.raises(ApiError) as e:
        api.call("ModifyFlowLogAttribute", FlowLogId=log, OutputType="sls")
    assert "Miss" in e.value.code
    assert shown() == after, "a refused change leaves no trace"
    api.refused("ModifyFlowLogAttribute", "IllegalParam.NetflowServerIp", FlowLogId=log, NetflowServerIp="")
    api.call("DeleteFlowLog", FlowLogId=log)


def test_other_changes_need_what_they_change_alone(api, agent_of):
    sag, sns = gateway(api)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    hc = api.call("CreateHealthCheck", SmartAGId=sag, DstIpAddr="192.0.2.1", SrcIpAddr="192.0.2.2", Name="check",
                  Type="ICMP_ECHO", Description="text")["InstanceId"]
    api.call("ModifyHealthCheck", SmartAGId=sag, HcInstanceId=hc, ProbeCount=5)
    row = api.call("DescribeHealthCheckAttribute", SmartAGId=sag, HcInstanceId=hc)
    assert (row["ProbeCount"], row["Name"], row["Description"], row["DstIpAddr"]) == (5, "check", "text", "192.0.2.1")
    # 000:22300: only strategies that look at a health check need one.
    publish = dict(SmartAGId=sag, DestCidrBlock="10.0.0.0/8", RouteSource="STATIC", SourceType="local")
    api.call("ModifyRouteDistributionStrategy", **publish, RouteDistribution="no_publish")
    with pytest.raises(ApiError):
        api.call("ModifyRouteDistributionStrategy", **publish, RouteDistribution="publish_and_revoke_on_health_fail")
    # 000:2454, 2462: leaving an address out clears it.
    report(agent_of(api), sag, sns[0])
    api.call("ModifySagUserDns", **device, MasterDns="192.0.2.53", SlaveDns="192.0.2.54")
    api.call("ModifySagUserDns", **device, MasterDns="192.0.2.53")
    dns = api.call("DescribeSagUserDns", **device)
    assert (dns["MasterDns"], dns["SlaveDns"]) == ("192.0.2.53", "")
    api.call("ModifySagUserDns", **device)
    assert api.call("DescribeSagUserDns", **device)["MasterDns"] == ""
    # 000:6120: a description may be empty.
    api.call("ModifySmartAccessGateway", SmartAGId=sag, Description="Wörter, im Satz.")
    api.call("ModifySmartAccessGateway", SmartAGId=sag, Description="")
    assert api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)["Description"] == ""
    # 000:6142: no negative threshold.
    with pytest.raises(ApiError):
        api.call("ModifySmartAccessGateway", SmartAGId=sag, SecurityLockThreshold=-1)


def test_lists_are_found_as_the_documents_print_them(api):
    label = name("find")
    sag, _ = gateway(api)
    api.call("ModifySmartAccessGateway", SmartAGId=sag, Name=f"{label}-Branch")

    def found(**params):
        answer = api.call("DescribeSmartAccessGateways", **params)
        return [row["SmartAGId"] for row in rows(answer, "SmartAccessGateways", "SmartAccessGateway")]

    # 003:64: names are found by a part of them.
    assert found(Name=label) == [sag] and found(Name=f"{label}-bRanch") == [sag]
    assert found(Name=f"{label}_branch") == [] and found(Name=f"{label}%") == []
    # 000:5774; the SDKs always write SmartAGIds.1.
    ids = json.dumps([sag, "sag-none"])
    status, text = send(api, signed(api.key, "GET", "DescribeSmartAccessGateways", SmartAGIds=ids))
    assert status == 200 and json.loads(text)["TotalCount"] == 1, text
    acls = [api.call("CreateACL", Name=label)["AclId"] for _ in range(2)]
    # 003:306
    assert api.call("DescribeACLs", AclIds=json.dumps(acls))["TotalCount"] == 2
    page = api.call("DescribeACLs", AclIds=json.dumps(acls), PageSize=1000)
    assert page["PageSize"] == 100
    for acl in acls:
        api.call("DeleteACL", AclId=acl)


def test_lists_in_one_parameter(api):
    """000:17253: DpiSignatureIds=["1"], in one parameter."""
    qos = api.call("CreateQos", QosName=name("list"))["QosId"]
    policy = dict(QosId=qos, Priority=1, SourceCidr="10.10.10.0/24", DestCidr="10.10.20.0/24", IpProtocol="TCP",
                  SourcePortRange="-1/-1", DestPortRange="80/80", DpiSignatureIds=json.dumps(["1"]))
    status, text = send(api, signed(api.key, "GET", "CreateQosPolicy", **policy))
    assert status == 200 and json.loads(text)["DpiSignatureIds"] == {"DpiSignatureId": ["1"]}, text
    shown = rows(api.call("DescribeQosPolicies", QosId=qos), "QosPolicies", "QosPolicy")
    assert str(shown[0]["DpiSignatureIds"]).count("1") == 1, shown
    api.call("DeleteQosPolicy", QosId=qos, QosPolicyId=json.loads(text)["QosPolicyId"])
    api.call("DeleteQos", QosId=qos)


def test_words_of_the_documents(api, server):
    app = software(api)
    # 000:9853, 000:5583
    assert api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=app)["InstanceType"] == "sag-software"
    row = rows(api.call("DescribeSmartAccessGateways", SmartAGId=app), "SmartAccessGateways", "SmartAccessGateway")[0]
    assert row["HardwareVersion"] == "sag-software"
    regions = {r["RegionId"]: r["RegionEndpoint"] for r in rows(api.call("DescribeRegions"), "Regions", "Region")}
    # 003:549-562; a client that follows RegionEndpoint stays here.
    assert {"ap-southeast-3", "ap-southeast-5", "eu-west-1", "cn-zhangjiakou-spe"} <= set(regions)
    assert set(regions.values()) == {server.endpoint}
    # 003:654, 003:659
    sag, _ = gateway(api)
    api.refused("DescribeSagWanList", "MissingSmartAGSn", 400, SmartAGId=sag)
    api.refused("DescribeDnatEntries", "MissingSagId", 400)


def test_the_region_of_a_border_router(api):
    """000:7804"""
    sag, _ = gateway(api)
    ccn = network(api)
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    vbr = f"vbr-{name('line')}"
    with pytest.raises(ApiError):
        api.call("BindVbr", SmartAGId=sag, VbrId=vbr, VbrRegionId="moon")
    api.call("BindVbr", SmartAGId=sag, VbrId=vbr, VbrRegionId="cn-beijing")

    def relations(region):
        answer = api.call("DescribeSagVbrRelations", VbrInstanceIds=[vbr], VbrRegionId=region)
        return [r["SagInstanceId"] for r in answer["SagVbrRelations"]]

    assert relations("cn-beijing") == [sag] and relations("cn-shanghai") == []
    api.refused("UnbindVbr", "InvalidId.VBR", SmartAGId=sag, VbrId=vbr, VbrRegionId="cn-shanghai")
    api.call("UnbindVbr", SmartAGId=sag, VbrId=vbr, VbrRegionId="cn-beijing")
    api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)
