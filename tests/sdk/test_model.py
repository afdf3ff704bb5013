"""Random sequences of calls against the reference model of the cloud, with repeats, dry runs, a second account and kills.

    tests/sdk/run.sh test_model.py                                 a few sequences, the same ones each time
    SAG_MODEL_SECONDS=3600 tests/sdk/run.sh test_model.py          new ones for an hour

After each call the answer, and from time to time every list and the configuration of every device, is what the model says;
and sag-agent puts each of those configurations in force: none is refused as a whole, which would freeze a gateway.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="Hypothesis is not installed: use tests/sdk/run.sh")
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import catalogue
import reference
from conftest import BIN, Server, access_key
from helpers import ORDER
from wire import signed

AGENT = os.environ.get("SAG_AGENT_BIN", str(Path(BIN).with_name("sag-agent")))
SECONDS = float(os.environ.get("SAG_MODEL_SECONDS", "0"))

NAMES = st.sampled_from(["aa", "bb", "branch-7", "名字"])
BLOCKS = st.sampled_from(["10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16", "192.168.7.0/24", "10.9.0.0/24,10.8.0.0/24"])
CIDR = st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "10.1.2.0/24", "192.168.1.1/32"])
PORTS = st.sampled_from(["-1/-1", "80/80", "1/65535"])
ADDRESS = st.sampled_from(["10.0.0.5", "192.168.9.9", "192.168.7.7"])


def optional(fields: dict[str, Any]) -> Any:
    return st.fixed_dictionaries({}, optional=fields)


RULE = dict(
    SourceCidr=CIDR, DestCidr=CIDR, IpProtocol=st.sampled_from(["TCP", "UDP", "ICMP", "ALL"]), SourcePortRange=PORTS,
    DestPortRange=PORTS,
)
ACL_RULE = dict(
    RULE, Direction=st.sampled_from(["in", "out"]), Policy=st.sampled_from(["accept", "drop"]), Priority=st.integers(1, 4)
)
POLICY = dict(RULE, Priority=st.integers(1, 7))
RATE = st.integers(1, 9)
PERCENT = dict(MinBandwidthPercent=RATE, MaxBandwidthPercent=RATE, PercentSourceType=st.just("CcnBandwidth"))
CAR = st.fixed_dictionaries(
    dict(Priority=st.integers(1, 7), LimitType=st.sampled_from(["Absolute", "Percent"]), **PERCENT),
    optional=dict(MinBandwidthAbs=RATE, MaxBandwidthAbs=RATE),
)
DNAT = st.fixed_dictionaries(
    dict(
        Type=st.sampled_from(["Intranet", "Internet"]), ExternalIp=ADDRESS, ExternalPort=st.sampled_from(["80", "443"]),
        InternalIp=ADDRESS, InternalPort=st.sampled_from(["80", "8080"]), IpProtocol=st.sampled_from(["TCP", "UDP"]),
    )
)
CHECK = dict(
    Name=NAMES, Type=st.just("ICMP_ECHO"), DstIpAddr=ADDRESS, SrcIpAddr=ADDRESS, ProbeInterval=st.integers(1000, 1005)
)
LOG = dict(
    Name=NAMES, OutputType=st.just("netflow"), NetflowServerIp=ADDRESS, NetflowServerPort=st.integers(2055, 2057),
    NetflowVersion=st.sampled_from(["V5", "V9", "V10"]), ActiveAging=st.integers(60, 62), InactiveAging=st.integers(10, 12),
)
ROUTE = st.fixed_dictionaries(
    dict(
        PortName=st.sampled_from(["0", "1"]), DestinationCidr=st.sampled_from(["10.7.0.0/16", "10.8.0.0/16", "224.0.0.0/8"]),
        NextHop=ADDRESS, Vlan=st.just("0"),
    )
)
# Ports without routes change their roles; number 9 is not there.
PORT_ROLE = dict(PortName=st.sampled_from(["2", "4", "4", "5", "5", "9"]), Role=st.sampled_from(["WAN", "LAN", "ECC", "NONE", "MGT"]))
STATIC = st.sampled_from([
    dict(IP="203.0.113.7", Mask="255.255.255.0", Gateway="203.0.113.1"),
    dict(IP="198.51.100.2", Mask="255.255.255.252", Gateway="198.51.100.1"),
    dict(IP="192.168.9.1", Mask="255.255.255.0", Gateway="192.168.9.254"),
])
# -1: it does not forward.
PRIORITY = optional(dict(Priority=st.sampled_from([-1, 1, 10, 50])))
WAN = st.builds(
    lambda port, address, static, priority: {"PortName": port, "IPType": "STATIC" if static else "DHCP"} | priority
    | (address if static else {}),
    st.sampled_from(["0", "0", "4", "5", "9"]), STATIC, st.booleans(), PRIORITY,
)
LAN = st.builds(
    lambda port, address: {"PortName": port, "IPType": "STATIC", "IP": address["IP"], "Mask": address["Mask"]},
    st.sampled_from(["1", "1", "4", "5", "9"]), STATIC,
)
TASK = dict(TaskName=NAMES, Protocol=st.just("ICMP"), Domain=ADDRESS, PacketNumber=st.integers(1, 9),
            Enable=st.sampled_from(["true", "false"]))
USER_NAME = st.sampled_from(["li", "wang", "zhao", "qian", "sun", "zhou"])
USER = dict(UserName=USER_NAME)
NOTHING = st.just({})

# What is called: the identifiers that it takes, and its other parameters.
CALLS: dict[str, tuple[tuple[str, ...], Any]] = {
    "ModifySmartAccessGateway": (("SmartAGId",), optional(dict(Name=NAMES, CidrBlock=BLOCKS))),
    "DeleteSmartAccessGateway": (("SmartAGId",), NOTHING),
    "CreateACL": ((), st.fixed_dictionaries(dict(Name=NAMES))),
    "ModifyACL": (("AclId",), st.fixed_dictionaries(dict(Name=NAMES))),
    "DeleteACL": (("AclId",), NOTHING),
    "AssociateACL": (("AclId", "SmartAGId"), NOTHING),
    "DisassociateACL": (("AclId", "SmartAGId"), NOTHING),
    "AddACLRule": (("AclId",), st.fixed_dictionaries(ACL_RULE)),
    "ModifyACLRule": (("AclId", "AcrId"), optional(ACL_RULE)),
    "DeleteACLRule": (("AclId", "AcrId"), NOTHING),
    "CreateQos": ((), st.fixed_dictionaries(dict(QosName=NAMES))),
    "DeleteQos": (("QosId",), NOTHING),
    "AssociateQos": (("QosId", "SmartAGId"), NOTHING),
    "DisassociateQos": (("QosId", "SmartAGId"), NOTHING),
    "CreateQosPolicy": (("QosId",), st.fixed_dictionaries(POLICY)),
    "ModifyQosPolicy": (("QosId", "QosPolicyId"), optional(POLICY)),
    "DeleteQosPolicy": (("QosId", "QosPolicyId"), NOTHING),
    "CreateQosCar": (("QosId",), CAR),
    "ModifyQosCar": (("QosId", "QosCarId"), CAR),
    "DeleteQosCar": (("QosId", "QosCarId"), NOTHING),
    "AddSnatEntry": (("SmartAGId",), st.fixed_dictionaries(dict(CidrBlock=CIDR, SnatIp=ADDRESS))),
    "DeleteSnatEntry": (("SmartAGId", "InstanceId"), NOTHING),
    "AddDnatEntry": (("SagId",), DNAT),
    "DeleteDnatEntry": (("SagId", "DnatEntryId"), NOTHING),
    "CreateSagStaticRoute": (("SmartAGId", "SmartAGSn"), ROUTE),
    "ModifySagStaticRoute": (("SmartAGId", "SmartAGSn"), ROUTE),
    "DeleteSagStaticRoute": (("SmartAGId", "SmartAGSn"), ROUTE),
    "ModifySagPortRole": (("SmartAGId", "SmartAGSn"), st.fixed_dictionaries(PORT_ROLE)),
    "ModifySagWan": (("SmartAGId", "SmartAGSn"), WAN),
    "ModifySagLan": (("SmartAGId", "SmartAGSn"), LAN),
    "ModifySagWanSnat": (("SmartAGId", "SmartAGSn"), st.fixed_dictionaries(dict(Snat=st.sampled_from(["ENABLE", "DISABLE"])))),
    "CreateProbeTask": (("SagId", "Sn"), st.fixed_dictionaries(dict(TASK, Type=st.just("Internet")))),
    "UpdateProbeTask": (("SagId", "Sn", "ProbeTaskId"), optional(TASK)),
    "DeleteProbeTask": (("SagId", "Sn", "ProbeTaskId"), NOTHING),
    "RenewSmartAccessGateway": (("SmartAGId",), st.fixed_dictionaries(dict(Period=st.sampled_from(["1", "3"])))),
    "CreateSmartAccessGatewayClientUser": (("AppId",), st.fixed_dictionaries(
        dict(USER, Password=st.just("passw0rd1"), UserMail=st.just("li@example.com"), Bandwidth=st.sampled_from([1000, 2000])))),
    "ModifySmartAccessGatewayClientUser": (("AppId",), st.fixed_dictionaries(
        dict(USER, Bandwidth=st.sampled_from([1000, 2000])))),
    "EnableSmartAccessGatewayUser": (("AppId",), st.fixed_dictionaries(USER)),
    "DisableSmartAccessGatewayUser": (("AppId",), st.fixed_dictionaries(USER)),
    "DeleteSmartAccessGatewayClientUser": (("AppId",), st.fixed_dictionaries(USER)),
    "CreateHealthCheck": (("SmartAGId",), st.fixed_dictionaries(CHECK)),
    "ModifyHealthCheck": (("SmartAGId", "HcInstanceId"), optional(CHECK)),
    "DeleteHealthCheck": (("HcInstanceId",), NOTHING),
    "CreateFlowLog": ((), st.fixed_dictionaries(LOG)),
    "ModifyFlowLogAttribute": (("FlowLogId",), optional(LOG)),
    "DeleteFlowLog": (("FlowLogId",), NOTHING),
    "AssociateFlowLog": (("FlowLogId", "SmartAGId"), NOTHING),
    "DisassociateFlowLog": (("FlowLogId", "SmartAGId"), NOTHING),
    "ActiveFlowLog": (("FlowLogId",), NOTHING),
    "DeactiveFlowLog": (("FlowLogId",), NOTHING),
    "CreateCloudConnectNetwork": (
        (),
        st.fixed_dictionaries(
            dict(Name=NAMES, CidrBlock=st.just("192.168.0.0/16"), IsDefault=st.just("false")),
            optional=dict(SnatCidrBlock=st.just("192.168.7.0/24")),
        ),
    ),
    "ModifyCloudConnectNetwork": (("CcnId",), st.fixed_dictionaries(dict(Name=NAMES))),
    "DeleteCloudConnectNetwork": (("CcnId",), NOTHING),
    "BindSmartAccessGateway": (("CcnId", "SmartAGId"), NOTHING),
    "UnbindSmartAccessGateway": (("CcnId", "SmartAGId"), NOTHING),
}
# What each sequence begins with.
RULE_OF_ALL = dict(SourceCidr="0.0.0.0/0", DestCidr="0.0.0.0/0", IpProtocol="ALL", SourcePortRange="-1/-1", DestPortRange="-1/-1")
FIRST: dict[str, dict[str, Any]] = {
    "CreateACL": dict(Name="aa"),
    "AddACLRule": dict(RULE_OF_ALL, Direction="in", Policy="accept", Priority=1),
    "CreateQos": dict(QosName="aa"),
    "CreateQosPolicy": dict(RULE_OF_ALL, Priority=3),
    "CreateFlowLog": dict(Name="aa", OutputType="netflow", NetflowServerIp="10.0.0.5", NetflowServerPort=2055,
                          NetflowVersion="V9", ActiveAging=60, InactiveAging=10),
    "CreateHealthCheck": dict(Name="aa", Type="ICMP_ECHO", DstIpAddr="10.0.0.5", SrcIpAddr="192.168.9.9", ProbeInterval=1000),
}
PREFIXES = dict(SmartAGId="sag-", SagId="sag-", AppId="sag-", AclId="acl-", QosId="qos-", CcnId="ccn-", FlowLogId="fl-")


class Account:
    """A key, what is its own, and what has been."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key, self.model = key, reference.Reference()
        self.gone: dict[str, list[str]] = {}
        # The last revision that was planned of each device.
        self.revisions: dict[str, int] = {}

    def live(self, field: str) -> list[str]:
        m = self.model
        gateways, acls, qoses = m.gateways.values(), m.acls.values(), m.qoses.values()
        found = {
            "SmartAGId": m.gateways, "SagId": m.gateways, "AclId": m.acls, "QosId": m.qoses, "FlowLogId": m.logs,
            "CcnId": m.networks, "SmartAGSn": [sn for g in gateways for sn in g.serials],
            "Sn": [sn for g in gateways for sn in g.serials], "AppId": m.apps,
            "ProbeTaskId": [t for g in gateways for t in g.tasks],
            "AcrId": [r for a in acls for r in a.rules], "QosPolicyId": [r for q in qoses for r in q.rules],
            "QosCarId": [c for q in qoses for c in q.cars], "InstanceId": [e for g in gateways for e in g.snat],
            "DnatEntryId": [e for g in gateways for e in g.dnat], "HcInstanceId": [c for g in gateways for c in g.checks],
        }
        return list(found[field])


class Wire:
    """One connection to the server."""

    def __init__(self, server: Server) -> None:
        self.server, self.conn = server, None

    def send(self, key: tuple[str, str], op: str, params: dict[str, Any]) -> tuple[int, Any]:
        # Agents sign by ACS3, but the older signature is good for all calls.
        query = urllib.parse.urlencode(signed(key, "GET", op, **params))
        for attempt in (1, 2):
            try:
                self.conn = self.conn or http.client.HTTPConnection(self.server.endpoint, timeout=20)
                self.conn.request("GET", f"/?{query}")
                answer = self.conn.getresponse()
                return answer.status, json.loads(answer.read())
            except (ConnectionError, http.client.HTTPException):
                self.conn = None
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")


class Planner:
    """`sag-agent preview` with a gateway of its own, one document after the other."""

    # The cloud says what the ports are; two have no device.
    GATEWAY = "".join(f'[[port]]\nname = "{n}"\ndevice = "eth{n}"\n' for n in "0134")

    def __init__(self, folder: Path) -> None:
        (folder / "gateway.toml").write_text(self.GATEWAY)
        command = [AGENT, "preview", "--gateway", folder / "gateway.toml", "-"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def plan(self, document: Any) -> Any:
        self.process.stdin.write(json.dumps(document) + "\n")
        line = self.process.stdout.readline()
        assert line, f"sag-agent has ended at {json.dumps(document)}"
        return json.loads(line)["Plan"]

    def stop(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(10) == 0


class Machine(RuleBasedStateMachine):
    wire: Wire
    planner: Planner
    calls = refusals = plans = deviations = 0

    def __init__(self) -> None:
        super().__init__()
        self.accounts = [Account(access_key(self.wire.server.db, f"model-{time.time_ns()}")) for _ in range(2)]
        self.tokens = 0
        for account, count in zip(self.accounts, (3, 1)):
            for _ in range(count):
                self.new_gateway(account)
            self.new_app(account)
            for op in ("CreateACL", "AddACLRule", "CreateQos", "CreateQosPolicy", "CreateFlowLog", "CreateHealthCheck"):
                self.perform(account, op, {f: account.live(f)[0] for f in CALLS[op][0]} | FIRST[op])

    def ask(self, account: Account, op: str, **params: Any) -> Any:
        status, answer = self.wire.send(account.key, op, params)
        assert status == 200, f"{op} {params}: {status} {answer}"
        if op in catalogue.OPERATIONS:
            assert not catalogue.problems(op, answer), catalogue.problems(op, answer)
        return answer

    def new_gateway(self, account: Account) -> None:
        order = dict(ORDER, AutoPay="false", HardWareSpec="sag-vcpe", MaxBandWidth=50, Name="new", Description="new",
                     HaType="warm_backup")
        sag = self.ask(account, "CreateSmartAccessGateway", **order)["SmartAGId"]
        self.ask(account, "ActivateSmartAccessGateway", SmartAGId=sag)
        row = self.ask(account, "DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
        serials = [d["SerialNumber"] for d in row["Devices"]["Device"]]
        account.model.gateways[sag] = gateway = reference.Gateway(serials, "new")
        gateway.end = row["EndTime"]

    def new_app(self, account: Account) -> None:
        order = dict(Period=1, AutoPay="false", ChargeType="PREPAY", UserCount=reference.USERS_OF_APP, DataPlan=5)
        account.model.apps[self.ask(account, "CreateSmartAccessGatewaySoftware", **order)["SmartAGId"]] = reference.App()

    @rule(data=st.data(), who=st.sampled_from([0, 0, 0, 1]), count=st.integers(1, 5))
    def call(self, data: Any, who: int, count: int) -> None:
        for _ in range(count):
            self.call_once(data, who)

    def call_once(self, data: Any, who: int) -> None:
        account = self.accounts[who]
        # Mostly what there is something for.
        possible = [op for op, (fields, _) in CALLS.items() if all(account.live(field) for field in fields)]
        op = data.draw(st.sampled_from(possible if data.draw(st.integers(0, 9)) else list(CALLS)))
        fields, more = CALLS[op]
        params = {field: self.identifier(data, account, field) for field in fields} | data.draw(more)
        for sn, sag in (("SmartAGSn", "SmartAGId"), ("Sn", "SagId")):
            if params.get(sn) and data.draw(st.integers(0, 9)):
                # Mostly a device of the gateway.
                gateway = account.model.gateways.get(params[sag])
                params[sn] = gateway.serials[0] if gateway else params[sn]
        self.perform(account, op, params, data.draw(st.sampled_from(["once"] * 8 + ["dry", "twice"])))

    def perform(self, account: Account, op: str, params: dict[str, Any], how: str = "once") -> None:
        """A call, sent once, as a dry run, or with a repetition, and what the model says of it."""
        fields = CALLS[op][0]
        sent = dict(params)
        if op == "DeleteSmartAccessGateway":
            sent["InstanceId"] = sent.pop("SmartAGId")
        if "AppId" in sent:
            sent["SmartAGId"] = sent.pop("AppId")
        if how == "dry":
            sent["DryRun"] = "true"
        if how == "twice":
            self.tokens += 1
            sent["ClientToken"] = f"token-{self.tokens}"
        allowed = account.model.judge(op, params)
        status, answer = self.wire.send(account.key, op, sent)
        Machine.calls += 1
        if how == "dry" and not allowed:
            allowed = {"DryRunOperation"}
        if allowed:
            Machine.refusals += 1
            code = answer.get("Code")
            assert status >= 400 and code in allowed, f"{op} {sent}: {status} {answer}, expected {allowed}"
            documented = {e["http"] for e in catalogue.OPERATIONS.get(op, {}).get("errors", []) if e["code"] == code}
            assert not documented or status in documented, f"{op}: {code} with {status}"
            return
        assert status == 200, f"{op} {sent}: {status} {answer}"
        if op in catalogue.OPERATIONS:
            assert not catalogue.problems(op, answer), catalogue.problems(op, answer)
        if how == "twice":
            again = self.wire.send(account.key, op, sent)
            answer.pop("RequestId"), again[1].pop("RequestId", None)
            assert again == (200, answer), f"{op} {sent} repeated: {again}"
        before = {field: set(account.live(field)) for field in fields}
        account.model.note(op, params, answer)
        self.plan_each(account)
        for field, ids in before.items():
            account.gone.setdefault(field, []).extend(ids - set(account.live(field)))

    def identifier(self, data: Any, account: Account, field: str) -> str:
        kind = data.draw(st.sampled_from(["live"] * 20 + ["gone", "foreign", "none"]))
        other = self.accounts[1 - self.accounts.index(account)]
        ids = {"live": account.live(field), "gone": account.gone.get(field, []), "foreign": other.live(field)}.get(kind)
        # What both accounts' objects share no name with.
        return data.draw(st.sampled_from(ids)) if ids else f"{PREFIXES.get(field, 'x-')}nothere"

    @rule(who=st.sampled_from([0, 0, 0, 1]))
    def compare(self, who: int) -> None:
        """Every list, and what every device is told."""
        account = self.accounts[who]
        m, ask = account.model, lambda op, **p: self.ask(account, op, PageSize=50, **p)
        rows = lambda answer, *path: answer if not path else rows(answer[path[0]], *path[1:])
        pick = lambda row, fields: {k: row[k] for k in fields if k in row}

        shown = rows(ask("DescribeACLs"), "Acls", "Acl")
        users = lambda kind, n: str(sum(n in getattr(g, kind) for g in m.gateways.values()))
        assert {(a["AclId"], a["Name"], a["SagCount"]) for a in shown} == {
            (n, a.name, users("acls", n)) for n, a in m.acls.items()
        }
        for acl, group in m.acls.items():
            shown = rows(ask("DescribeACLAttribute", AclId=acl), "Acrs", "Acr")
            assert {r["AcrId"]: pick(r, reference.RULE) for r in shown} == group.rules
            assert [r["Priority"] for r in shown] == sorted(r["Priority"] for r in shown)
        shown = rows(ask("DescribeQoses"), "Qoses", "Qos")
        assert {(q["QosId"], q["QosName"]) for q in shown} == {(n, q.name) for n, q in m.qoses.items()}
        for qos, group in m.qoses.items():
            shown = rows(ask("DescribeQosPolicies", QosId=qos), "QosPolicies", "QosPolicy")
            assert {r["QosPolicyId"]: pick(r, reference.POLICY) for r in shown} == group.rules
            shown = rows(ask("DescribeQosCars", QosId=qos, Order="asc"), "QosCars", "QosCar")
            assert {c["QosCarId"]: pick(c, reference.CAR) for c in shown} == group.cars
        shown = rows(ask("DescribeFlowLogs"), "FlowLogs", "FlowLogSetType")
        logs = {n: {k: str(v) for k, v in log.items()} for n, log in m.logs.items()}
        assert {f["FlowLogId"]: {k: str(f[k]) for k in (*reference.LOG, "Status")} for f in shown} == logs
        shown = rows(ask("DescribeCloudConnectNetworks"), "CloudConnectNetworks", "CloudConnectNetwork")
        members = lambda n: str(sum(g.network == n for g in m.gateways.values()))
        assert {(c["CcnId"], c["Name"], c["AssociatedCloudBoxCount"]) for c in shown} == {
            (n, c["Name"], members(n)) for n, c in m.networks.items()
        }
        shown = rows(ask("DescribeSmartAccessGateways", InstanceType="hardware"), "SmartAccessGateways", "SmartAccessGateway")
        assert {(g["SmartAGId"], g["Name"], g["CidrBlock"], g["AssociatedCcnId"], g["EndTime"]) for g in shown} == {
            (n, g.name, g.blocks, g.network or "", g.end) for n, g in m.gateways.items()
        }
        for app, instance in m.apps.items():
            shown = rows(ask("DescribeSmartAccessGatewayClientUsers", SmartAGId=app), "Users", "User")
            assert {u["UserName"]: pick(u, reference.USER) for u in shown} == instance.users
        for sag, gateway in m.gateways.items():
            self.compare_gateway(account, sag, gateway, ask, rows, pick)

    def compare_gateway(self, account: Account, sag: str, gw: Any, ask: Any, rows: Any, pick: Any) -> None:
        shown = rows(ask("DescribeSnatEntries", SmartAGId=sag), "SnatEntries", "SnatEntry")
        assert {e["InstanceId"]: pick(e, reference.SNAT) for e in shown} == gw.snat
        shown = rows(ask("DescribeDnatEntries", SagId=sag), "DnatEntries", "DnatEntry")
        assert {e["DnatEntryId"]: pick(e, reference.DNAT) for e in shown} == gw.dnat
        shown = rows(ask("DescribeHealthChecks", SmartAGId=sag), "HealthChecks", "HealthCheck")
        assert {c["HcInstanceId"]: pick(c, reference.CHECK) for c in shown} == gw.checks
        shown = rows(ask("ListProbeTask", SagId=sag), "Data")
        assert {t["ProbeTaskId"]: pick(t, ("TaskName", "Domain", "Sn")) for t in shown} == {
            n: pick(t, ("TaskName", "Domain", "Sn")) for n, t in gw.tasks.items()
        }
        m = account.model
        for sn in gw.serials:
            shown = rows(ask("DescribeSagStaticRouteList", SmartAGId=sag, SmartAGSn=sn), "StaticRoutes")
            assert [pick(r, reference.ROUTE) for r in shown] == gw.routes[sn]
            told = self.ask(account, "PullSmartAGConfig", SmartAGId=sag, SmartAGSn=sn, Revision=0)["Config"]
            self.plan(account, told)
            assert {p["PortName"]: p["Role"] for p in told["Ports"]} == gw.roles[sn]
            for section, fields, of in (("Wan", reference.WAN, gw.wans), ("Lan", reference.LAN, gw.lans)):
                for port, wanted in of[sn].items():
                    assert pick(told[section][port], fields).items() >= wanted.items(), (section, port)
            assert sn not in gw.wan_snat or told["Snat"] == gw.wan_snat[sn]
            tasks = {t["ProbeTaskId"]: (t["Domain"], t["Protocol"]) for t in told["ProbeTasks"]}
            mine = {n: (t["Domain"], t["Protocol"]) for n, t in gw.tasks.items() if t["Sn"] == sn and t["Enable"] == "true"}
            assert tasks == mine
            by = lambda name, field, fields: {r[field]: pick(r, fields) for r in name}
            assert {a["AclId"]: by(a["Rules"], "AcrId", reference.RULE) for a in told["Acls"]} == {
                n: m.acls[n].rules for n in gw.acls
            }
            assert {
                q["QosId"]: (
                    by(q["Policies"], "QosPolicyId", reference.POLICY), by(q["Cars"], "QosCarId", reference.CAR)
                )
                for q in told["Qos"]
            } == ({gw.qos: (m.qoses[gw.qos].rules, m.qoses[gw.qos].cars)} if gw.qos else {})
            assert by(told["SnatEntries"], "InstanceId", reference.SNAT) == gw.snat
            assert by(told["DnatEntries"], "DnatEntryId", reference.DNAT) == gw.dnat
            assert by(told["HealthChecks"], "HcInstanceId", reference.CHECK) == gw.checks
            routes = [pick(r, reference.ROUTE) | {"Vlan": str(r["Vlan"])} for r in told.get("StaticRoutes", [])]
            assert routes == gw.routes[sn]
            assert told.get("FlowLog", {}).get("FlowLogId") == gw.log
            assert told.get("Ccn", {}).get("CcnId") == gw.network
            assert told["Gateway"].get("CidrBlock", "") == gw.blocks

    def plan_each(self, account: Account) -> None:
        """What the call has made new revisions of."""
        for sag, gateway in account.model.gateways.items():
            one = dict(SmartAGId=sag, SmartAGSn=gateway.serials[0])
            have = account.revisions.get(gateway.serials[0], 0)
            answer = self.ask(account, "PullSmartAGConfig", Revision=have, **one)
            if answer["Changed"]:
                self.plan(account, answer["Config"])

    def plan(self, account: Account, document: Any) -> None:
        """What sag-agent makes of a revision: it is put in force, whatever is left out of it."""
        sn, revision = document["SmartAGSn"], document["Revision"]
        if account.revisions.get(sn) == revision:
            return
        account.revisions[sn] = revision
        plan = self.planner.plan(document)
        Machine.plans += 1
        Machine.deviations += len(plan["Deviations"])
        assert plan["Refused"] == [], f"{plan['Refused']} of {json.dumps(document)}"

    @precondition(lambda self: len(self.accounts[0].model.gateways) < 3)
    @rule()
    def order(self) -> None:
        self.new_gateway(self.accounts[0])

    @rule(kill=st.integers(0, 11))
    def restart(self, kill: int) -> None:
        """What was answered is on the disk."""
        if kill == 0:
            self.wire.server.kill()
            self.wire.conn = None
            self.wire.server.start()

    def teardown(self) -> None:
        for who in (0, 1):
            self.compare(who)


def test_random_calls(tmp_path):
    if not Path(AGENT).exists():
        pytest.skip(f"{AGENT} is not built")
    server = Server(tmp_path, "--rate-limit", "0")
    Machine.wire = Wire(server)
    Machine.planner = Planner(tmp_path)
    Machine.calls = Machine.refusals = Machine.plans = Machine.deviations = 0
    end = time.monotonic() + SECONDS
    checks = list(HealthCheck)
    while True:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=100 if SECONDS else 10, stateful_step_count=60, deadline=None, database=None,
                derandomize=not SECONDS, suppress_health_check=checks, print_blob=True,
                # Identifiers differ from run to run, so a shorter sequence cannot be searched for.
                phases=[Phase.generate],
            ),
        )
        if time.monotonic() >= end:
            break
    server.stop()
    Machine.planner.stop()
    assert "panicked" not in (tmp_path / "log").read_text()
    print(f"{Machine.calls} calls, {Machine.refusals} refused as they must be; {Machine.plans} revisions planned, "
          f"{Machine.deviations} objects not as they are")
    # Both halves were at work.
    assert Machine.plans > 100 and Machine.deviations > 0
    assert Machine.calls > 200 and 0 < Machine.refusals < Machine.calls / 2
