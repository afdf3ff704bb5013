"""ACL, QoS, NAT, flow logs, health checks, route publication, DPI."""

import pytest

from helpers import apply, gateway, name, rows, software

RULE = dict(SourceCidr="10.0.0.0/24", DestCidr="0.0.0.0/0", IpProtocol="tcp", SourcePortRange="-1/-1",
            DestPortRange="80/443", Direction="out", Policy="accept")


def test_acl(api, agent):
    sag, sns = gateway(api)
    acl = api.call("CreateACL", Name="office")["AclId"]
    rule = api.call("AddACLRule", AclId=acl, Priority=5, Name="web", **RULE)
    assert rule["IpProtocol"] == "TCP" and rule["Type"] == "LAN"
    api.call("AddACLRule", AclId=acl, Priority=1, DpiSignatureIds=["1"], DpiGroupIds=["20"],
             **dict(RULE, Policy="drop"))
    api.call("AssociateACL", AclId=acl, SmartAGId=sag)
    api.refused("AssociateACL", "SmartAGAlreadyAssociateAcl", AclId=acl, SmartAGId=sag)
    api.refused("DeleteACL", "DependencyViolation.ACL", 400, AclId=acl)
    config = apply(agent, sag, sns[0])
    assert [r["Priority"] for r in config["Acls"][0]["Rules"]] == [1, 5]
    shown = api.call("DescribeACLAttribute", AclId=acl)
    assert [r["Priority"] for r in rows(shown, "Acrs", "Acr")] == [1, 5]
    assert api.call("DescribeACLAttribute", AclId=acl, Name="web")["TotalCount"] == 1
    assert api.call("GetAclAttribute", AclId=acl)["ErrorConfigSmartAGCount"] == 1
    errors = api.call("ListDpiConfigError", DpiConfigType="acl", SmartAGId=sag)
    assert errors["DpiConfigError"][0]["ErrorType"] == "DpiNotEnabled"
    got = api.call("ModifyACLRule", AclId=acl, AcrId=rule["AcrId"], DestPortRange="8080/8080")
    assert got["DestPortRange"] == "8080/8080" and got["Priority"] == 5
    assert rows(api.call("DescribeACLs", AclIds=acl), "Acls", "Acl")[0]["SagCount"] == "1"
    api.call("ModifyACL", AclId=acl, Name="renamed")
    assert api.call("DescribeACLs", Name="renamed")["TotalCount"] == 1
    api.call("DeleteACLRule", AclId=acl, AcrId=rule["AcrId"])
    api.refused("DeleteACLRule", "InvalidId.ACR", AclId=acl, AcrId=rule["AcrId"])
    assert api.call("DescribeSmartAccessGateways", AclIds=acl)["TotalCount"] == 1
    assert api.call("DescribeSmartAccessGateways", SmartAGId=sag, UnboundAclIds=acl)["TotalCount"] == 0
    api.call("DisassociateACL", AclId=acl, SmartAGId=sag)
    api.refused("DisassociateACL", "SmartAGNotAssociateAcl", AclId=acl, SmartAGId=sag)
    api.call("DeleteACL", AclId=acl)
    api.refused("DescribeACLAttribute", "InvalidId.ACL", AclId=acl)


@pytest.mark.parametrize("wrong, code", [
    (dict(IpProtocol="sctp"), "NotSupportedProtocol"),
    (dict(SourcePortRange="9/1"), "InvalidPortRange"),
    (dict(IpProtocol="icmp"), "InvalidPortRange"),
    (dict(SourceCidr="10.0.0.0"), "InvalidParameter"),
    (dict(Direction="both"), "InvalidParameter"),
    (dict(Priority=101), "InvalidParameter"),
    (dict(Type="DMZ"), "ACL.InvalidType"),
    (dict(Description="x" * 513), "InvalidDescription"),
    (dict(Policy=""), "MissingParameter"),
    (dict(AclId="acl-nobody"), "InvalidId.ACL"),
])
def test_acl_rule_checks(api, wrong, code):
    acl = api.call("CreateACL", Name="checks")["AclId"]
    api.refused("AddACLRule", code, **{"AclId": acl, **RULE, **wrong})
    assert api.call("DescribeACLAttribute", AclId=acl)["TotalCount"] == 0
    api.call("DeleteACL", AclId=acl)


def test_acl_limits(api):
    sag, _ = gateway(api, "sag-1000")
    acls = [api.call("CreateACL", Name=name("acl"))["AclId"] for _ in range(6)]
    for acl in acls[:5]:
        api.call("AssociateACL", AclId=acl, SmartAGId=sag)
    api.refused("AssociateACL", "AclPerSmartagAmountLimit", AclId=acls[5], SmartAGId=sag)
    api.refused("AddACLRule", "ACL.NoSupportWanType", AclId=acls[0], Type="WAN", **RULE)
    app = software(api)
    api.refused("AssociateACL", "SAG.SoftwareNotSupport", AclId=acls[5], SmartAGId=app)
    for _ in range(200):
        api.call("AddACLRule", AclId=acls[5], **RULE)
    api.refused("AddACLRule", "AcrPerAclAmountLimit", AclId=acls[5], **RULE)


POLICY = dict(Priority=1, SourceCidr="10.10.10.0/24", DestCidr="10.10.20.0/24", IpProtocol="TCP",
              SourcePortRange="-1/-1", DestPortRange="80/80")
CAR = dict(LimitType="Absolute", MinBandwidthAbs=2, MaxBandwidthAbs=6, MinBandwidthPercent=1,
           MaxBandwidthPercent=2, PercentSourceType="CcnBandwidth")


def test_qos(api, agent):
    sag, sns = gateway(api)
    qos = api.call("CreateQos", QosName="shaping", QosDescription="text")["QosId"]
    policy = api.call("CreateQosPolicy", QosId=qos, Name="web", Description="text", DpiSignatureIds=["1"],
                      DpiGroupIds=["20"], StartTime="2019-07-14T16:41:33+0800",
                      EndTime="2019-09-14T16:41:33+0800", **POLICY)
    assert policy["QosPolicyId"].startswith("qospy-")
    car = api.call("CreateQosCar", QosId=qos, Priority=1, Name="slow", Description="text", **CAR)
    assert car["MaxBandwidthAbs"] == 6
    api.refused("CreateQosCar", "Invalid.QosCar.Priority", QosId=qos, Priority=1, **CAR)
    api.call("AssociateQos", QosId=qos, SmartAGId=sag)
    api.refused("AssociateQos", "SmartAGAlreadyAssociateQos", QosId=qos, SmartAGId=sag)
    second = api.call("CreateQos", QosName="second")["QosId"]
    api.refused("AssociateQos", "QosPerSmartagAmountLimit", QosId=second, SmartAGId=sag)
    config = apply(agent, sag, sns[0])
    assert config["Qos"][0]["Cars"][0]["QosCarId"] == car["QosCarId"]
    shown = api.call("GetQosAttribute", QosId=qos)
    assert shown["QosPolicies"][0]["StartTime"] == 1_563_093_693_000
    listed = rows(api.call("DescribeQoses", QosIds=qos), "Qoses", "Qos")[0]
    assert listed["SagCount"] == "1" and listed["SmartAGIds"] == sag
    api.call("ModifyQos", QosId=qos, QosName="renamed")
    api.refused("ModifyQos", "InvalidParameter.Name", QosId=qos, QosName="1")
    key = dict(QosId=qos, QosPolicyId=policy["QosPolicyId"])
    api.call("ModifyQosPolicy", Priority=2, **key)
    api.refused("ModifyQosPolicy", "InvalidTimeRangeCompare", EndTime="2019-01-14T16:41:33+0800", **key)
    assert rows(api.call("DescribeQosPolicies", QosId=qos, Priority=2), "QosPolicies", "QosPolicy")
    key = dict(QosId=qos, QosCarId=car["QosCarId"])
    api.call("ModifyQosCar", MaxBandwidthAbs=10, **key)
    api.refused("ModifyQosCar", "InvalidBandwidthCompare", MaxBandwidthAbs=1, **key)
    got = rows(api.call("DescribeQosCars", QosId=qos, Order="desc"), "QosCars", "QosCar")[0]
    assert got["MaxBandwidthAbs"] == 10
    api.refused("DeleteQos", "DependencyViolation.Qos", 400, QosId=qos)
    api.call("DeleteQosCar", **key)
    api.refused("DeleteQosCar", "InvalidId.QOSCAR", **key)
    api.call("DeleteQosPolicy", QosId=qos, QosPolicyId=policy["QosPolicyId"])
    api.refused("DeleteQosPolicy", "InvalidId.QOSPY", QosId=qos, QosPolicyId=policy["QosPolicyId"])
    api.call("DisassociateQos", QosId=qos, SmartAGId=sag)
    api.refused("DisassociateQos", "SmartAGNotAssociateQos", QosId=qos, SmartAGId=sag)
    for q in (qos, second):
        api.call("DeleteQos", QosId=q)
    api.refused("DeleteQos", "InvalidId.Qos", QosId=qos)


@pytest.mark.parametrize("op, wrong, code", [
    ("CreateQosPolicy", dict(Priority=9), "InvalidParameter.Priority"),
    ("CreateQosPolicy", dict(SourceCidr=""), "MissParameter.SourceCidr"),
    ("CreateQosPolicy", dict(DestCidr="x"), "InvalidParameter.DestCidr"),
    ("CreateQosPolicy", dict(IpProtocol="GRE"), "NotSupportedProtocol"),
    ("CreateQosPolicy", dict(StartTime="yesterday"), "InvalidParameter.StartTime"),
    ("CreateQosPolicy", dict(Name="-"), "InvalidParameter.Name"),
    ("CreateQosCar", dict(LimitType="Ratio"), "InvalidParameter.LimitType"),
    ("CreateQosCar", dict(LimitType="Percent", MinBandwidthPercent=""), "MissParameter.MinBandwidthPercent"),
    ("CreateQosCar", dict(LimitType="Percent", PercentSourceType=""), "MissParameter.PercentSourceType"),
    ("CreateQosCar", dict(MinBandwidthAbs=6), "InvalidBandwidthCompare"),
    ("CreateQosCar", dict(Priority=8), "InvalidParameter.Priority"),
])
def test_qos_checks(api, op, wrong, code):
    qos = api.call("CreateQos", QosName="checks")["QosId"]
    good = POLICY if op == "CreateQosPolicy" else dict(CAR, Priority=1)
    api.refused(op, code, **{"QosId": qos, **good, **wrong})
    api.call("DeleteQos", QosId=qos)


def test_nat(api, agent):
    sag, sns = gateway(api)
    snat = dict(SmartAGId=sag, CidrBlock="192.168.0.1/24", SnatIp="10.0.0.1")
    entry = api.call("AddSnatEntry", **snat)["InstanceId"]
    api.refused("AddSnatEntry", "SNAT.CidrConfigExist", **snat)
    got = rows(api.call("DescribeSnatEntries", SmartAGId=sag), "SnatEntries", "SnatEntry")
    assert [e["InstanceId"] for e in got] == [entry]
    dnat = dict(SagId=sag, Type="Intranet", ExternalIp="10.10.1.1", ExternalPort="80", InternalIp="192.168.0.9",
                InternalPort="8080", IpProtocol="TCP")
    forward = api.call("AddDnatEntry", **dnat)["DnatEntryId"]
    api.refused("AddDnatEntry", "DuplicatedDnatEntry", **dnat)
    api.refused("AddDnatEntry", "IllegalParam", **dict(dnat, InternalIp="x"))
    api.refused("AddDnatEntry", "MissingParam", **dict(dnat, ExternalIp=""))
    api.refused("AddSnatEntry", "SNAT.SnatDnatIpConflict", SmartAGId=sag, CidrBlock="192.168.9.0/24", SnatIp="10.10.1.1")
    public = api.call("AddDnatEntry", **dict(dnat, Type="Internet", ExternalIp=""))["DnatEntryId"]
    got = rows(api.call("DescribeDnatEntries", SagId=sag, Type="Internet"), "DnatEntries", "DnatEntry")
    assert [e["DnatEntryId"] for e in got] == [public]
    config = apply(agent, sag, sns[0])
    assert len(config["DnatEntries"]) == 2 and len(config["SnatEntries"]) == 1
    for d in (forward, public):
        api.call("DeleteDnatEntry", SagId=sag, DnatEntryId=d)
    api.refused("DeleteDnatEntry", "InstanceNotExit", SagId=sag, DnatEntryId=public)
    api.call("DeleteSnatEntry", SmartAGId=sag, InstanceId=entry)
    assert api.call("DescribeSnatEntries", SmartAGId=sag)["TotalCount"] == 0


LOG = dict(OutputType="all", SlsRegionId="cn-shanghai", ProjectName="project", LogstoreName="store",
           NetflowServerIp="192.168.0.2", NetflowServerPort=9995, NetflowVersion="V9", InactiveAging=15,
           Name="log", Description="text")


def test_flow_log(api, agent):
    sag, sns = gateway(api)
    log = api.call("CreateFlowLog", **LOG)["FlowLogId"]
    api.call("ModifyFlowLogAttribute", FlowLogId=log, ActiveAging=600, **LOG)
    free = api.call("DescribeUnbindFlowLogSags")
    assert sag in [s["SmartAGId"] for s in rows(free, "Sags", "Sag")]
    api.call("AssociateFlowLog", FlowLogId=log, SmartAGId=sag)
    api.refused("AssociateFlowLog", "OperationFailed.AssociateFlowLog", FlowLogId=log, SmartAGId=sag)
    api.refused("AssociateFlowLog", "InvalidSmartAGId.NotFound", FlowLogId=log, SmartAGId="sag-nobody")
    assert apply(agent, sag, sns[0])["FlowLog"]["ActiveAging"] == 600
    assert rows(api.call("DescribeFlowLogSags", FlowLogId=log), "Sags", "Sag")[0]["SmartAGId"] == sag
    shown = rows(api.call("DescribeFlowLogs", FlowLogName="log", FlowLogId=log), "FlowLogs", "FlowLogSetType")[0]
    assert shown["Status"] == "Active" and shown["TotalSagNum"] == 1
    api.refused("ActiveFlowLog", "IncorrectStatus.FlowLog", FlowLogId=log)
    api.call("DeactiveFlowLog", FlowLogId=log)
    api.call("ActiveFlowLog", FlowLogId=log)
    api.refused("DeleteFlowLog", "DependencyViolation.FlowLog", FlowLogId=log)
    api.call("DisassociateFlowLog", FlowLogId=log, SmartAGId=sag)
    api.call("DeleteFlowLog", FlowLogId=log)
    api.refused("DeleteFlowLog", "InvalidFlowLogId.NotFound", FlowLogId=log)


@pytest.mark.parametrize("wrong, code", [
    (dict(OutputType="file"), "IllegalParam.OutputType"),
    (dict(NetflowServerIp="x"), "IllegalParam.NetflowServerIp"),
    (dict(NetflowServerIp=""), "MissingParam.NetflowServerIp"),
    (dict(NetflowServerPort=0), "IllegalParam.NetflowServerPort"),
    (dict(NetflowVersion="V1"), "IllegalParam.NetflowVersion"),
    (dict(ProjectName=""), "MissingParam.ProjectName"),
    (dict(LogstoreName=""), "MissingParam.LogstoreName"),
    (dict(SlsRegionId=""), "MissingParam.SlsRegionId"),
    (dict(SlsRegionId="moon"), "IllegalParam.SlsRegionId"),
    (dict(InactiveAging=5), "IllegalParam.InactiveAging"),
    (dict(ActiveAging=5), "IllegalParam.ActiveAging"),
    (dict(RegionId="moon"), "IllegalParam.RegionId"),
])
def test_flow_log_checks(api, wrong, code):
    api.refused("CreateFlowLog", code, **{**LOG, **wrong})


HC = dict(Name="probe", DstIpAddr="192.168.1.1", SrcIpAddr="10.0.0.1", Type="ICMP_ECHO")
HC_ALL = dict(HC, Description="probing", DstPort=1, SrcPort=2, FailCountThreshold=3, ProbeCount=1, ProbeInterval=2000,
              ProbeTimeout=3000, RttFailThreshold=3, RttThreshold=-1)


def test_health_and_publication(api):
    sag, _ = gateway(api)
    hc = api.call("CreateHealthCheck", SmartAGId=sag, **HC)["InstanceId"]
    api.call("ModifyHealthCheck", SmartAGId=sag, HcInstanceId=hc, **HC_ALL)
    assert api.call("DescribeHealthCheckAttribute", SmartAGId=sag, HcInstanceId=hc)["ProbeInterval"] == 2000
    api.call("ModifySmartAccessGateway", SmartAGId=sag, CidrBlock="192.168.10.0/24")
    shown = rows(api.call("DescribeRouteDistributionStrategies", SmartAGId=sag, SourceType="local"), "Strategies", "Strategy")
    assert shown[0]["DestCidrBlock"] == "192.168.10.0/24" and shown[0]["RouteSource"] == "STATIC"
    route = dict(SmartAGId=sag, DestCidrBlock="192.168.10.0/24", RouteSource="STATIC", SourceType="local")
    publish = "no_publish_and_publish_on_health_success"
    api.call("ModifyRouteDistributionStrategy", RouteDistribution=publish, HcInstanceId=hc, **route)
    shown = rows(api.call("DescribeRouteDistributionStrategies", SmartAGId=sag, SourceType="local"), "Strategies", "Strategy")
    assert [s["RouteDistribution"] for s in shown] == [publish]
    listed = rows(api.call("DescribeHealthChecks", SmartAGId=sag), "HealthChecks", "HealthCheck")[0]
    assert listed["RelationCount"] == 1 and listed["Status"] == "unknown"
    api.refused("DeleteHealthCheck", "HC.RelatedRoute", HcInstanceId=hc)
    modify = dict(route, RouteDistribution=publish, HcInstanceId=hc)
    for wrong, code in [
        (dict(DestCidrBlock="x"), "RD.InvalidDestCidrBlock"),
        (dict(RouteSource="RIP"), "RD.InvalidRouteSource"),
        (dict(SourceType="moon"), "RD.InvalidSourceType"),
        (dict(RouteDistribution="maybe"), "RD.InvalidRouteDistribution"),
        (dict(HcInstanceId="x"), "RD.InvalidHcInstanceId"),
        (dict(HcInstanceId="hc-nobody"), "HC.InstanceNoFound"),
    ]:
        api.refused("ModifyRouteDistributionStrategy", code, **{**modify, **wrong})
    api.call("DeleteRouteDistributionStrategy", **route)
    # Of IPv6 likewise.
    api.call("ModifyHealthCheck", SmartAGId=sag, HcInstanceId=hc, **{**HC_ALL, "SrcIpAddr": "2001:db8::1", "DstIpAddr": "2001:db8::2"})
    assert api.call("DescribeHealthCheckAttribute", SmartAGId=sag, HcInstanceId=hc)["SrcIpAddr"] == "2001:db8::1"
    api.call("DeleteHealthCheck", HcInstanceId=hc)
    api.refused("DeleteHealthCheck", "HC.InstanceNoFound", HcInstanceId=hc)


@pytest.mark.parametrize("field, value", [
    ("Name", "1"), ("Description", "x" * 257), ("DstIpAddr", "x"), ("SrcIpAddr", "x"), ("SrcIpAddr", "2001:db8::1"), ("DstPort", 70000), ("SrcPort", 70000),
    ("Type", "TCP"), ("ProbeInterval", 1), ("ProbeCount", 21), ("ProbeTimeout", 1), ("RttThreshold", 6000),
    ("RttFailThreshold", 16), ("FailCountThreshold", 16),
])
def test_health_check_checks(api, field, value):
    sag, _ = gateway(api)
    api.refused("CreateHealthCheck", f"HC.Invalid{field}", SmartAGId=sag, **{**HC, field: value})


def test_health_check_quota(api):
    sag, _ = gateway(api)
    for _ in range(20):
        api.call("CreateHealthCheck", SmartAGId=sag, **HC)
    api.refused("CreateHealthCheck", "HC.AmountLimit", SmartAGId=sag, **HC)


def test_dpi(api):
    sag, _ = gateway(api)
    sls = dict(SlsLogStore="store", SlsProjectName="project")
    api.refused("EnableSmartAGDpiMonitor", "IncorrectStatus", SmartAGId=sag, **sls)
    api.refused("UpdateSmartAGDpiAttribute", "DryRunOperation", 400, SmartAGId=sag, DpiEnabled=True, DryRun=True)
    assert api.call("GetSmartAGDpiAttribute", SmartAGId=sag)["DpiStatus"] == "Off"
    api.call("UpdateSmartAGDpiAttribute", SmartAGId=sag, DpiEnabled=True)
    token = name("token")
    api.call("EnableSmartAGDpiMonitor", SmartAGId=sag, ClientToken=token, **sls)
    # The same token again is the same call, not a second one.
    api.call("EnableSmartAGDpiMonitor", SmartAGId=sag, ClientToken=token, **sls)
    api.refused("EnableSmartAGDpiMonitor", "IncorrectStatus", SmartAGId=sag, **sls)
    assert api.call("GetSmartAGDpiAttribute", SmartAGId=sag)["DpiMonitorStatus"] == "Active"
    api.call("DisableSmartAGDpiMonitor", SmartAGId=sag)
    api.refused("DisableSmartAGDpiMonitor", "IncorrectStatus", SmartAGId=sag)
    api.refused("UpdateSmartAGDpiAttribute", "InvalidSmartAGId.NotFound", SmartAGId="sag-nobody", DpiEnabled=True)
    first = api.call("ListDpiGroups", MaxResults=20)
    rest = api.call("ListDpiGroups", MaxResults=20, NextToken=first["NextToken"])
    assert first["TotalCount"] == 22 and len(first["DpiGroup"]) + len(rest["DpiGroup"]) == 22
    one = api.call("ListDpiSignatures", DpiSignatureIds=["1"])
    assert one["DpiSignature"][0]["DpiSignatureName"] == "Baidu"
