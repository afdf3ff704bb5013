"""Refusals: missing and wrong parameters of every operation, quotas, states that take a month."""

import json
import os
import sqlite3
import time

import pytest

import catalogue
from clients import V1, ApiError
from conftest import RECORDS, access_key
from helpers import apply, gateway, name, report, rows, software
from test_network import account, network
from test_rules import CAR, LOG, POLICY, RULE

# Missing parameters whose documented code does not say so.
MISSING = {"SAG.InstanceIdEmpty", "ClientUser.NameEmpty", "ClientUser.EmailEmpty", "CCN.InvalidId", "CCN.InvalidUid"}


@pytest.fixture(scope="module")
def v1(server):
    """Where the SDKs do not differ, one is enough."""
    return V1(server.endpoint, access_key(server.db, f"errors-{os.getpid()}"), RECORDS["v1"])


def plausible(p):
    if "enum" in p:
        return p["enum"][0]
    if "range" in p:
        return p["range"][0]
    values = {"name": "name", "cidr": "10.0.0.0/24", "port-range": "-1/-1", "ipv4": "10.0.0.1", "text": "text",
              "enterprise-code": "12Pab", "time": "2026-01-01T00:00:00Z", "password": "passw0rd"}
    if p.get("pattern") in values:
        return values[p["pattern"]]
    if p["type"] == "Boolean":
        return "true"
    return "5" if p["type"] in ("Integer", "Long") or "length" not in p else "a" * p["length"][0]


def request(o):
    out = {}
    for p in o["request"]:
        if p.get("required") or "when" in p:
            out[p["name"]] = [plausible(p)] if p.get("list") else plausible(p)
    out["RegionId"] = "cn-shanghai"
    return out


@pytest.mark.parametrize("op", catalogue.OPERATIONS)
def test_missing(v1, op):
    o = catalogue.OPERATIONS[op]
    whole = request(o)
    documented = {e["code"] for e in o["errors"]}
    for p in o["request"]:
        if not p.get("required") and "when" not in p:
            continue
        params = dict(whole)
        if "when" in p:
            params[p["when"][0]] = p["when"][1][0]
        # New things get the default instead.
        if "default" in p and p["type"] != "Boolean" and not op.startswith(("Modify", "Update")):
            continue
        params[p["name"]] = ""
        with pytest.raises(ApiError) as e:
            v1.call(op, **params)
        code = e.value.code
        assert "Miss" in code or code in MISSING, f"{op} without {p['name']}: {e.value}"
        assert code in documented | {"MissingParameter", "MissingSmartAGSn", "MissingSagId"}


@pytest.mark.parametrize("op", catalogue.OPERATIONS)
def test_wrong(v1, op):
    o = catalogue.OPERATIONS[op]
    whole = request(o)
    documented = {e["code"] for e in o["errors"]}
    for p in o["request"]:
        wrong = None
        if "enum" in p or p["type"] in ("Integer", "Long", "Boolean"):
            wrong = "nonsense"
        elif "length" in p:
            wrong = "a" * (p["length"][1] + 1)
        elif p.get("pattern") in ("cidr", "port-range", "ipv4", "time", "name"):
            wrong = "!"
        if wrong is None or ".N." in p["name"]:
            continue
        with pytest.raises(ApiError) as e:
            v1.call(op, **{**whole, p["name"]: [wrong] if p.get("list") else wrong})
        code = e.value.code
        assert "nvalid" in code or "Illegal" in code, f"{op} with a wrong {p['name']}: {e.value}"
        assert code in documented | {"InvalidParameter"}


@pytest.fixture
def db(server):
    if not server.db[1].startswith("sqlite://"):
        pytest.skip("the rows are written to SQLite directly")
    conn = sqlite3.connect(server.db[1].removeprefix("sqlite://"), timeout=20)
    yield conn
    conn.close()


def copies(db, kind, like, count):
    """More of the same, faster than by calls."""
    row = db.execute("SELECT * FROM objects WHERE kind = ? AND id = ?", (kind, like)).fetchone()
    for i in range(count):
        places = ",".join("?" * len(row))
        db.execute(f"INSERT INTO objects VALUES ({places})", (kind, f"{like}-{i}", *row[2:]))
    db.commit()


def test_quotas(v1, db):
    sag, _ = gateway(v1)
    acl = v1.call("CreateACL", Name="quota")["AclId"]
    qos = v1.call("CreateQos", QosName="quota")["QosId"]
    policy = v1.call("CreateQosPolicy", QosId=qos, **POLICY)["QosPolicyId"]
    log = v1.call("CreateFlowLog", **LOG)["FlowLogId"]
    snat = v1.call("AddSnatEntry", SmartAGId=sag, CidrBlock="192.168.0.0/24", SnatIp="10.0.0.1")["InstanceId"]
    copies(db, "qos_policy", policy, 199)
    v1.refused("CreateQosPolicy", "QosPolicyPerQosAmountLimit", QosId=qos, **POLICY)
    for i in range(1, 8):
        v1.call("CreateQosCar", QosId=qos, Priority=i, **CAR)
    v1.refused("CreateQosCar", "QosCarPerQosAmountLimit", QosId=qos, Priority=7, **CAR)
    copies(db, "snat", snat, 99)
    v1.refused("AddSnatEntry", "SNAT.AmountLimit", SmartAGId=sag, CidrBlock="192.168.1.0/24", SnatIp="10.0.0.1")
    copies(db, "acl", acl, 2000)
    v1.refused("CreateACL", "AclAmountLimit", Name="more")
    copies(db, "qos", qos, 2000)
    v1.refused("CreateQos", "QosAmountLimit", QosName="more")
    copies(db, "flowlog", log, 100)
    v1.refused("CreateFlowLog", "QuotaExceeded.Flowlog", **LOG)
    db.execute("DELETE FROM objects WHERE kind IN ('acl', 'qos', 'flowlog') AND id LIKE '%-%-%'")
    db.commit()
    [[first]] = db.execute("SELECT id FROM objects WHERE kind = 'order' AND parent = ?", (sag,))
    copies(db, "order", first, 150)
    last = v1.call("UpgradeSmartAccessGateway", SmartAGId=sag, BandWidthSpec=90, AutoPay=True)["OrderId"]
    orders = [row[0] for row in db.execute("SELECT id FROM objects WHERE kind = 'order' AND parent = ?", (sag,))]
    assert len(orders) == 100 and last in orders, "the last ones are remembered"


def test_after_the_end(v1, db):
    sag, sns = gateway(v1)
    body = json.loads(db.execute("SELECT body FROM objects WHERE id = ?", (sag,)).fetchone()[0])
    body["EndTime"] = 1
    db.execute("UPDATE objects SET body = ?, expires = 1 WHERE id = ?", (json.dumps(body), sag))
    db.commit()
    row = rows(v1.call("DescribeSmartAccessGateways", SmartAGId=sag), "SmartAccessGateways", "SmartAccessGateway")[0]
    assert row["Status"] == "Arrearage"
    v1.refused("AddSnatEntry", "SmartAccessGatewayInArrears", SmartAGId=sag, CidrBlock="10.0.0.0/8", SnatIp="1.1.1.1")
    check = dict(DstIpAddr="1.1.1.1", SrcIpAddr="1.1.1.2", Name="late", Type="ICMP_ECHO")
    v1.refused("CreateHealthCheck", "SAG.Arrearage", SmartAGId=sag, **check)


def test_wrong_kinds_of_gateways(v1):
    app = software(v1)
    sag, sns = gateway(v1)
    user = dict(UserName="li", Password="passw0rd1", UserMail="li@example.com", Bandwidth=1)
    v1.refused("UpgradeSmartAccessGatewaySoftware", "ActionNotSupport", 400, SmartAGId=sag, UserCount=5, DataPlan=5,
               AutoPay=True)
    v1.refused("CreateSmartAccessGatewayClientUser", "ClientUser.NotSupportAction", 400, SmartAGId=sag, **user)
    v1.refused("RoamClientUser", "ClientUser.NotSupportAction", OriginRegionId="cn-shanghai", OriginSmartAGId=sag,
               TargetSmartAGId=app, UserName="li")
    log = v1.call("CreateFlowLog", **LOG)["FlowLogId"]
    v1.refused("AssociateFlowLog", "OperationUnsupported.AssociateFlowLog", FlowLogId=log, SmartAGId=app)
    v1.refused("BindVbr", "SAG.SoftwareNoSupportVbr", SmartAGId=app, VbrId="vbr-1", VbrRegionId="cn-shanghai")
    hc = dict(DstIpAddr="1.1.1.1", SrcIpAddr="1.1.1.2", Name="app", Type="ICMP_ECHO")
    v1.refused("CreateHealthCheck", "FeatureNotSupport", SmartAGId=app, **hc)
    publish = dict(DestCidrBlock="10.0.0.0/8", HcInstanceId="hc-x", RouteDistribution="publish", RouteSource="STATIC",
                   SourceType="local")
    v1.refused("ModifyRouteDistributionStrategy", "SAG.SoftwareNotSupportFeature", SmartAGId=app, **publish)
    late, _ = gateway(v1, activate=False)
    v1.refused("CreateHealthCheck", "SAG.NoActive", SmartAGId=late, **hc)
    bare = dict(SmartAGId=software(v1))
    ccn = network(v1)
    v1.call("BindSmartAccessGateway", CcnId=ccn, **bare)
    v1.refused("ModifySmartAccessGateway", "SAG.CcnCidrNoConfig", CidrBlock="10.0.0.0/24", **bare)
    v1.call("UnbindSmartAccessGateway", CcnId=ccn, **bare)
    v1.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_lines_and_tags(v1):
    a, b = gateway(v1)[0], gateway(v1)[0]
    ccn = network(v1)
    vbr = dict(VbrId=f"vbr-{name('line')}", VbrRegionId="cn-shanghai")
    for sag in (a, b):
        v1.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    v1.call("BindVbr", SmartAGId=a, **vbr)
    v1.refused("BindVbr", "SAG.VbrBoundToSAG", SmartAGId=b, **vbr)
    v1.call("UnbindVbr", SmartAGId=a, **vbr)
    for sag in (a, b):
        v1.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    v1.call("DeleteCloudConnectNetwork", CcnId=ccn)
    page = "DescribeCloudConnectNetworks"
    v1.refused(page, "InvalidTagValue", **{"Tag.1.Key": "k", "Tag.1.Value": "v" * 129})
    v1.refused(page, "SizeLimitExceeded.TagNum", **{f"Tag.{i}.Key": f"k{i}" for i in range(1, 22)})


def test_devices(v1, agent_of):
    agent = agent_of(v1)
    sag, sns = gateway(v1)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    report(agent, sag, sns[0], LocalChanges=True)
    dns = dict(MasterDns="1.1.1.1", SlaveDns="1.1.1.2")
    v1.refused("ModifySagUserDns", "ConfigUnsynchronized", **dns, **device)
    v1.call("SynchronizeSmartAGWebConfig", **device)
    report(agent, sag, sns[0], LocalChanges=False)
    v1.call("ModifySagUserDns", **dns, **device)
    v1.refused("UpdateSmartAccessGatewayVersion", "VersionNotExist", 400, SmartAGId=sag, VersionCode="0.0.0")
    one = gateway(v1, "sag-1000", AlreadyHaveSag=True)[0]
    sn = name("sage-errors")
    v1.call("BindSerialNumber", SmartAGId=one, SerialNumber=sn)
    v1.refused("ModifySagHa", "Sag.HaTypeNotAllow", SmartAGId=one, SmartAGSn=sn, Mode="DYNAMIC")
    v1.call("ModifySagRemoteAccess", SmartAGId=sag, SerialNumber=sns[0], RemoteAccessIp="10.200.0.1")
    report(agent, one, sn)
    access = dict(SmartAGId=one, SerialNumber=sn)
    v1.refused("ModifySagRemoteAccess", "IllegalRemoteIp.Conflict", RemoteAccessIp="10.200.0.1", **access)
    v1.call("ModifySmartAccessGateway", SmartAGId=one, CidrBlock="10.201.0.0/24")
    v1.refused("ModifySagRemoteAccess", "IllegalRemoteIp.RouteTableEntryConflict", RemoteAccessIp="10.201.0.1", **access)


def test_settings_of_the_device_itself(v1, agent_of):
    """ConfigUnsynchronized from every operation that documents it, but the one that shows it in its answer."""
    agent = agent_of(v1)
    sag, sns = gateway(v1)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    ops = [n for n, o in catalogue.OPERATIONS.items() if any(e["code"] == "ConfigUnsynchronized" for e in o["errors"])]
    # 24 of the documents, and those that only the SDK has.
    assert len(ops) == 24 + 22
    report(agent, sag, sns[0], LocalChanges=True)
    for op in ops:
        params = {k: v for k, v in request(catalogue.OPERATIONS[op]).items() if k != "RegionId"}
        params |= {k: v for k, v in {**device, "SerialNumber": sns[0], "SagInsId": sag, "SagSn": sns[0],
                                      "SagId": sag, "Sn": sns[0]}.items() if k in params}
        if op != "DescribeSAGDeviceInfo":
            v1.refused(op, "ConfigUnsynchronized", 400, **params)
    assert v1.call("DescribeSAGDeviceInfo", **device)["SynStatus"] == "Unsynchronized"
    # Calls that do not document it still work.
    assert v1.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)["SmartAGId"] == sag
    report(agent, sag, sns[0], LocalChanges=False)
    v1.call("DescribeSagWanSnat", **device)


def test_users(v1, server, agent_of):
    app = software(v1)
    user = dict(UserName="li", Password="passw0rd1", UserMail="li@example.com", Bandwidth=1)
    v1.call("CreateSmartAccessGatewayClientUser", SmartAGId=app, **user)
    flow = {"Flow": {time.strftime("%Y%m", time.gmtime()): {"li": 1}}}
    agent_of(v1).extension("ReportSmartAGState", SmartAGId=app, State=json.dumps(flow))
    v1.refused("DeleteSmartAccessGatewayClientUser", "ClientUser.UserInUsing", SmartAGId=app, UserName="li")
    sub = V1(server.endpoint, access_key(server.db, f"errors-{os.getpid()}", "nobody"), RECORDS["v1"])
    sub.refused("BindVbr", "Forbbiden.SubUser", SmartAGId="sag-x", VbrId="vbr-x", VbrRegionId="cn-shanghai")


def test_bound_elsewhere(v1, other):
    sag, _ = gateway(v1)
    acl = v1.call("CreateACL", Name="mine")["AclId"]
    other.refused("AddACLRule", "InvalidId.ACL", AclId=acl, **RULE)
    assert account(v1) != account(other)


def test_applied(v1, agent_of):
    """A failed change leaves no trace: not in the configuration, not in its revision."""
    agent = agent_of(v1)
    sag, sns = gateway(v1)
    before = apply(agent, sag, sns[0])
    v1.refused("AddSnatEntry", "InvalidParameter", 403, SmartAGId=sag, CidrBlock="x", SnatIp="1.1.1.1")
    v1.refused("ModifySagWan", "Sag.PortRoleInvalid", SmartAGId=sag, SmartAGSn=sns[0], PortName="1", IPType="DHCP")
    assert apply(agent, sag, sns[0]) == before
