"""What a cloud should say and remember: the operations on lists, QoS, NAT, routes, checks, flow logs and networks, as the
documents describe them, over plain dictionaries.

An operation gets its parameters and returns the error codes of which the answer must have one, or nothing: then it has
succeeded, and the model has changed. What a list or a device's configuration must show follows from the model.
"""

from __future__ import annotations

import ipaddress
from typing import Any

# A gateway that is not there, by the code that the operation documents.
NO_GATEWAY = {"SAG.InstanceNoFound", "InvalidSmartAGId.NotFound", "InvalidId.SMARTAG", "InstanceNotExit", "Forbidden"}
ACLS_OF_GATEWAY, NETWORKS = 5, 10
CARS_OF_QOS = 7
TASKS_OF_DEVICE, USERS_OF_APP = 20, 5

RULE = ("Direction", "SourceCidr", "DestCidr", "IpProtocol", "SourcePortRange", "DestPortRange", "Policy", "Priority")
POLICY = ("Priority", "SourceCidr", "DestCidr", "IpProtocol", "SourcePortRange", "DestPortRange")
CAR = ("Priority", "LimitType", "MinBandwidthAbs", "MaxBandwidthAbs", "MinBandwidthPercent", "MaxBandwidthPercent")
SNAT = ("CidrBlock", "SnatIp")
DNAT = ("Type", "ExternalIp", "ExternalPort", "InternalIp", "InternalPort", "IpProtocol")
CHECK = ("Name", "Type", "DstIpAddr", "SrcIpAddr", "ProbeInterval")
LOG = ("Name", "OutputType", "NetflowServerIp", "NetflowServerPort", "NetflowVersion", "ActiveAging", "InactiveAging")
WAN = ("IPType", "IP", "Mask", "Gateway", "Priority")
LAN = ("IPType", "IP", "Mask")
TASK = ("TaskName", "Protocol", "Domain", "Enable")
USER = ("UserMail", "Bandwidth", "State")
ROLES = {"0": "WAN", "1": "LAN", "2": "MGT", "3": "ECC", "4": "NONE", "5": "NONE"}
# Ports of one role at a time.
ROLE_LIMITS = {"MGT": 1, "WAN": 4, "LAN": 4, "ECC": 4}
ROUTE = ("PortName", "DestinationCidr", "NextHop", "Vlan")

Row = dict[str, Any]


def overlap(one: str, other: str) -> bool:
    nets = [[ipaddress.ip_network(c) for c in text.split(",") if c] for text in (one, other)]
    return any(a.overlaps(b) for a in nets[0] for b in nets[1])


class Gateway:
    def __init__(self, serials: list[str], name: str) -> None:
        self.serials, self.name, self.blocks = serials, name, ""
        self.acls: list[str] = []
        self.qos = self.log = self.network = None
        self.snat: dict[str, Row] = {}
        self.dnat: dict[str, Row] = {}
        self.checks: dict[str, Row] = {}
        self.routes: dict[str, list[Row]] = {sn: [] for sn in serials}
        # By device: what each port is, the addresses that were set, and the probe tasks.
        self.roles: dict[str, dict[str, str]] = {sn: dict(ROLES) for sn in serials}
        self.wans: dict[str, dict[str, Row]] = {sn: {} for sn in serials}
        self.lans: dict[str, dict[str, Row]] = {sn: {} for sn in serials}
        self.wan_snat: dict[str, str] = {}
        self.tasks: dict[str, Row] = {}
        self.end = 0


class App:
    """An instance for client apps, with its accounts."""

    def __init__(self) -> None:
        self.users: dict[str, Row] = {}
        self.end = 0


class Group:
    """A list or a QoS container: a name, and what is in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rules: dict[str, Row] = {}
        self.cars: dict[str, Row] = {}


class Reference:
    def __init__(self) -> None:
        self.gateways: dict[str, Gateway] = {}
        self.apps: dict[str, App] = {}
        self.acls: dict[str, Group] = {}
        self.qoses: dict[str, Group] = {}
        self.logs: dict[str, Row] = {}
        self.networks: dict[str, Row] = {}

    def judge(self, op: str, p: Row) -> set[str]:
        """The codes of which the refusal must have one; none: it must succeed."""
        codes = set(getattr(self, f"form_{op}", lambda p: ())(p))
        for field, known, code in (
            ("AclId", self.acls, {"InvalidId.ACL"}), ("QosId", self.qoses, {"InvalidId.Qos"}),
            ("FlowLogId", self.logs, {"InvalidFlowLogId.NotFound"}), ("CcnId", self.networks, {"InvalidId.CCN"}),
            ("SmartAGId", self.gateways, NO_GATEWAY), ("SagId", self.gateways, NO_GATEWAY), ("AppId", self.apps, NO_GATEWAY),
        ):
            # What is filtered by an unknown identifier has no rows.
            if field in p and p[field] not in known:
                codes |= code
        if codes:
            # A gateway is in no network that does not exist.
            return codes | ({"SmartAccessGatewayNotBind"} if op == "UnbindSmartAccessGateway" else set())
        return set(getattr(self, f"may_{op}", lambda p: ())(p))

    def note(self, op: str, p: Row, answer: Row) -> None:
        """It has succeeded."""
        getattr(self, f"do_{op}")(p, answer)

    def gateway(self, p: Row) -> Gateway:
        return self.gateways[p.get("SmartAGId") or p["SagId"]]

    # Gateways

    def do_ModifySmartAccessGateway(self, p: Row, _: Row) -> None:
        gw = self.gateway(p)
        gw.name, gw.blocks = p.get("Name", gw.name), p.get("CidrBlock", gw.blocks)

    def may_ModifySmartAccessGateway(self, p: Row) -> Any:
        gw, blocks = self.gateway(p), p.get("CidrBlock", "")
        if gw.network and blocks and overlap(blocks, self.networks[gw.network].get("SnatCidrBlock", "")):
            yield "SAG.ConflictCidr.CcnSnatCidr"
        if any(overlap(blocks, other.blocks) for other in self.siblings(gw)):
            yield "SAG.CidrOverlap"

    def siblings(self, gw: Gateway) -> list[Gateway]:
        return [g for g in self.gateways.values() if g is not gw and g.network and g.network == gw.network]

    def may_DeleteSmartAccessGateway(self, p: Row) -> Any:
        if self.gateway(p).network:
            yield "AlreadyBound.CCN"

    def do_DeleteSmartAccessGateway(self, p: Row, _: Row) -> None:
        del self.gateways[p["SmartAGId"]]

    # Access control lists

    def do_CreateACL(self, p: Row, answer: Row) -> None:
        self.acls[answer["AclId"]] = Group(p["Name"])

    def do_ModifyACL(self, p: Row, _: Row) -> None:
        self.acls[p["AclId"]].name = p["Name"]

    def may_DeleteACL(self, p: Row) -> Any:
        if any(p["AclId"] in gw.acls for gw in self.gateways.values()):
            yield "DependencyViolation.ACL"

    def do_DeleteACL(self, p: Row, _: Row) -> None:
        del self.acls[p["AclId"]]

    def may_AssociateACL(self, p: Row) -> Any:
        if p["AclId"] in self.gateway(p).acls:
            yield "SmartAGAlreadyAssociateAcl"
        elif len(self.gateway(p).acls) >= ACLS_OF_GATEWAY:
            yield "AclPerSmartagAmountLimit"

    def do_AssociateACL(self, p: Row, _: Row) -> None:
        self.gateway(p).acls.append(p["AclId"])

    def may_DisassociateACL(self, p: Row) -> Any:
        if p["AclId"] not in self.gateway(p).acls:
            yield "SmartAGNotAssociateAcl"

    def do_DisassociateACL(self, p: Row, _: Row) -> None:
        self.gateway(p).acls.remove(p["AclId"])

    def may_AddACLRule(self, p: Row) -> Any:
        return portless(p)

    def do_AddACLRule(self, p: Row, answer: Row) -> None:
        self.acls[p["AclId"]].rules[answer["AcrId"]] = {k: p[k] for k in RULE}

    def may_ModifyACLRule(self, p: Row) -> Any:
        rule = self.acls[p["AclId"]].rules.get(p["AcrId"])
        return ["InvalidId.ACR"] if rule is None else portless(rule | p)

    def do_ModifyACLRule(self, p: Row, _: Row) -> None:
        self.acls[p["AclId"]].rules[p["AcrId"]].update((k, p[k]) for k in RULE if k in p)

    def may_DeleteACLRule(self, p: Row) -> Any:
        if p["AcrId"] not in self.acls[p["AclId"]].rules:
            yield "InvalidId.ACR"

    def do_DeleteACLRule(self, p: Row, _: Row) -> None:
        del self.acls[p["AclId"]].rules[p["AcrId"]]

    # QoS

    def do_CreateQos(self, p: Row, answer: Row) -> None:
        self.qoses[answer["QosId"]] = Group(p["QosName"])

    def may_DeleteQos(self, p: Row) -> Any:
        if any(gw.qos == p["QosId"] for gw in self.gateways.values()):
            yield "DependencyViolation.Qos"

    def do_DeleteQos(self, p: Row, _: Row) -> None:
        del self.qoses[p["QosId"]]

    def may_AssociateQos(self, p: Row) -> Any:
        qos = self.gateway(p).qos
        if qos:
            yield "SmartAGAlreadyAssociateQos" if qos == p["QosId"] else "QosPerSmartagAmountLimit"

    def do_AssociateQos(self, p: Row, _: Row) -> None:
        self.gateway(p).qos = p["QosId"]

    def may_DisassociateQos(self, p: Row) -> Any:
        if self.gateway(p).qos != p["QosId"]:
            yield "SmartAGNotAssociateQos"

    def do_DisassociateQos(self, p: Row, _: Row) -> None:
        self.gateway(p).qos = None

    def may_CreateQosPolicy(self, p: Row) -> Any:
        return portless(p)

    def do_CreateQosPolicy(self, p: Row, answer: Row) -> None:
        self.qoses[p["QosId"]].rules[answer["QosPolicyId"]] = {k: p[k] for k in POLICY}

    def may_ModifyQosPolicy(self, p: Row) -> Any:
        rule = self.qoses[p["QosId"]].rules.get(p["QosPolicyId"])
        return ["InvalidId.QOSPY"] if rule is None else portless(rule | p)

    def do_ModifyQosPolicy(self, p: Row, _: Row) -> None:
        self.qoses[p["QosId"]].rules[p["QosPolicyId"]].update((k, p[k]) for k in POLICY if k in p)

    def may_DeleteQosPolicy(self, p: Row) -> Any:
        if p["QosPolicyId"] not in self.qoses[p["QosId"]].rules:
            yield "InvalidId.QOSPY"

    def do_DeleteQosPolicy(self, p: Row, _: Row) -> None:
        del self.qoses[p["QosId"]].rules[p["QosPolicyId"]]

    def form_CreateQosCar(self, p: Row) -> Any:
        """What the kind of the limit needs."""
        part = "Percent" if p["LimitType"] == "Percent" else "Abs"
        for field in (f"MinBandwidth{part}", f"MaxBandwidth{part}"):
            if field not in p:
                yield f"MissParameter.{field}"

    form_ModifyQosCar = form_CreateQosCar

    def may_CreateQosCar(self, p: Row) -> Any:
        cars = self.qoses[p["QosId"]].cars
        if len(cars) >= CARS_OF_QOS:
            yield "QosCarPerQosAmountLimit"
        if any(c["Priority"] == p["Priority"] for c in cars.values()):
            yield "Invalid.QosCar.Priority"
        yield from bandwidths(p)

    def do_CreateQosCar(self, p: Row, answer: Row) -> None:
        self.qoses[p["QosId"]].cars[answer["QosCarId"]] = {k: p[k] for k in CAR if k in p}

    def may_ModifyQosCar(self, p: Row) -> Any:
        cars = self.qoses[p["QosId"]].cars
        if p["QosCarId"] not in cars:
            yield "InvalidId.QOSCAR"
            return
        if any(c["Priority"] == p.get("Priority") for n, c in cars.items() if n != p["QosCarId"]):
            yield "InvalidParameter.Priority"
        yield from bandwidths(cars[p["QosCarId"]] | p)

    def do_ModifyQosCar(self, p: Row, _: Row) -> None:
        self.qoses[p["QosId"]].cars[p["QosCarId"]].update((k, p[k]) for k in CAR if k in p)

    def may_DeleteQosCar(self, p: Row) -> Any:
        if p["QosCarId"] not in self.qoses[p["QosId"]].cars:
            yield "InvalidId.QOSCAR"

    def do_DeleteQosCar(self, p: Row, _: Row) -> None:
        del self.qoses[p["QosId"]].cars[p["QosCarId"]]

    # NAT

    def may_AddSnatEntry(self, p: Row) -> Any:
        gw = self.gateway(p)
        if any(e["CidrBlock"] == p["CidrBlock"] for e in gw.snat.values()):
            yield "SNAT.CidrConfigExist"
        if any(e.get("ExternalIp") == p["SnatIp"] for e in gw.dnat.values()):
            yield "SNAT.SnatDnatIpConflict"

    def do_AddSnatEntry(self, p: Row, answer: Row) -> None:
        self.gateway(p).snat[answer["InstanceId"]] = {k: p[k] for k in SNAT}

    def may_DeleteSnatEntry(self, p: Row) -> Any:
        if p["InstanceId"] not in self.gateway(p).snat:
            yield "InstanceNotExit"

    def do_DeleteSnatEntry(self, p: Row, _: Row) -> None:
        del self.gateway(p).snat[p["InstanceId"]]

    def may_AddDnatEntry(self, p: Row) -> Any:
        gw, inner = self.gateway(p), p["Type"] == "Intranet"
        same = ("Type", "ExternalPort", "IpProtocol") + (("ExternalIp",) if inner else ())
        if any(all(e.get(k) == p[k] for k in same) for e in gw.dnat.values()):
            yield "DuplicatedDnatEntry"
        if inner and any(e["SnatIp"] == p["ExternalIp"] for e in gw.snat.values()):
            yield "SNAT.SnatDnatIpConflict"

    def do_AddDnatEntry(self, p: Row, answer: Row) -> None:
        entry = {k: p[k] for k in DNAT if k in p and (k != "ExternalIp" or p["Type"] == "Intranet")}
        self.gateway(p).dnat[answer["DnatEntryId"]] = entry

    def may_DeleteDnatEntry(self, p: Row) -> Any:
        if p["DnatEntryId"] not in self.gateway(p).dnat:
            yield "InstanceNotExit"

    def do_DeleteDnatEntry(self, p: Row, _: Row) -> None:
        del self.gateway(p).dnat[p["DnatEntryId"]]

    # Routes and checks

    def route(self, p: Row) -> Row | None:
        routes = self.gateway(p).routes[p["SmartAGSn"]]
        same = ("PortName", "DestinationCidr", "Vlan")
        return next((r for r in routes if all(r[k] == p[k] for k in same)), None)

    def may_CreateSagStaticRoute(self, p: Row) -> Any:
        if p["SmartAGSn"] not in self.gateway(p).routes:
            return NO_DEVICE
        return ["Sag.StaticRouteExist"] if self.route(p) else []

    def do_CreateSagStaticRoute(self, p: Row, _: Row) -> None:
        self.gateway(p).routes[p["SmartAGSn"]].append({k: p[k] for k in ROUTE})

    def may_ModifySagStaticRoute(self, p: Row) -> Any:
        if p["SmartAGSn"] not in self.gateway(p).routes:
            return NO_DEVICE
        return [] if self.route(p) else ["Sag.StaticRouteNotExist"]

    def do_ModifySagStaticRoute(self, p: Row, _: Row) -> None:
        self.route(p)["NextHop"] = p["NextHop"]

    may_DeleteSagStaticRoute = may_ModifySagStaticRoute

    def do_DeleteSagStaticRoute(self, p: Row, _: Row) -> None:
        self.gateway(p).routes[p["SmartAGSn"]].remove(self.route(p))

    def do_CreateHealthCheck(self, p: Row, answer: Row) -> None:
        self.gateway(p).checks[answer["InstanceId"]] = {k: p[k] for k in CHECK}

    def may_ModifyHealthCheck(self, p: Row) -> Any:
        if p["HcInstanceId"] not in self.gateway(p).checks:
            yield "HC.InstanceNoFound"

    def do_ModifyHealthCheck(self, p: Row, _: Row) -> None:
        self.gateway(p).checks[p["HcInstanceId"]].update((k, p[k]) for k in CHECK if k in p)

    def may_DeleteHealthCheck(self, p: Row) -> Any:
        if not any(p["HcInstanceId"] in gw.checks for gw in self.gateways.values()):
            yield "HC.InstanceNoFound"

    def do_DeleteHealthCheck(self, p: Row, _: Row) -> None:
        for gw in self.gateways.values():
            gw.checks.pop(p["HcInstanceId"], None)

    # Ports

    def may_ModifySagPortRole(self, p: Row) -> Any:
        roles = self.gateway(p).roles.get(p["SmartAGSn"])
        if roles is None:
            return NO_DEVICE
        old, role = roles.get(p["PortName"]), p["Role"]
        if old is None:
            return ["Sag.PortNotExist"]
        if old == "MGT" and role != "MGT":
            return ["Sag.PortMgtError"]
        full = list(roles.values()).count(role) >= ROLE_LIMITS.get(role, 99)
        return ["Sag.PortRoleLimit"] if old != role and full else []

    def do_ModifySagPortRole(self, p: Row, _: Row) -> None:
        gw, sn, port = self.gateway(p), p["SmartAGSn"], p["PortName"]
        if gw.roles[sn][port] != p["Role"]:
            gw.roles[sn][port] = p["Role"]
            gw.wans[sn].pop(port, None), gw.lans[sn].pop(port, None)

    def port_of(self, p: Row, role: str) -> list[str]:
        """The device has the port, and it has the role."""
        roles = self.gateway(p).roles.get(p["SmartAGSn"])
        if roles is None:
            return NO_DEVICE
        if p["PortName"] not in roles:
            return ["Sag.PortNotExist"]
        return [] if roles[p["PortName"]] == role else ["Sag.PortRoleInvalid"]

    def may_ModifySagWan(self, p: Row) -> Any:
        return self.port_of(p, "WAN")

    def do_ModifySagWan(self, p: Row, _: Row) -> None:
        wans = self.gateway(p).wans[p["SmartAGSn"]]
        static = p["IPType"] == "STATIC"
        set_ = {k: p[k] for k in WAN if k in p and (static or k not in ("IP", "Mask", "Gateway"))}
        before = {k: v for k, v in wans.get(p["PortName"], {}).items() if k == "Priority"}
        wans[p["PortName"]] = before | set_

    def may_ModifySagLan(self, p: Row) -> Any:
        return self.port_of(p, "LAN")

    def do_ModifySagLan(self, p: Row, _: Row) -> None:
        self.gateway(p).lans[p["SmartAGSn"]][p["PortName"]] = {k: p[k] for k in LAN}

    def may_ModifySagWanSnat(self, p: Row) -> Any:
        return [] if p["SmartAGSn"] in self.gateway(p).roles else NO_DEVICE

    def do_ModifySagWanSnat(self, p: Row, _: Row) -> None:
        self.gateway(p).wan_snat[p["SmartAGSn"]] = p["Snat"]

    # Probe tasks

    def may_CreateProbeTask(self, p: Row) -> Any:
        gw = self.gateway(p)
        if p["Sn"] not in gw.serials:
            yield "InstanceNotExit"
        elif sum(t["Sn"] == p["Sn"] for t in gw.tasks.values()) >= TASKS_OF_DEVICE:
            yield "QuotaExceeded.ProbeTask"

    def do_CreateProbeTask(self, p: Row, answer: Row) -> None:
        self.gateway(p).tasks[answer["Data"]] = {k: p[k] for k in (*TASK, "Sn")}

    def may_UpdateProbeTask(self, p: Row) -> Any:
        task = self.gateway(p).tasks.get(p["ProbeTaskId"])
        if task is None or task["Sn"] != p["Sn"]:
            yield "InstanceNotExit"

    def do_UpdateProbeTask(self, p: Row, _: Row) -> None:
        self.gateway(p).tasks[p["ProbeTaskId"]].update((k, p[k]) for k in TASK if k in p)

    may_DeleteProbeTask = may_UpdateProbeTask

    def do_DeleteProbeTask(self, p: Row, _: Row) -> None:
        del self.gateway(p).tasks[p["ProbeTaskId"]]

    # Renewal

    def do_RenewSmartAccessGateway(self, p: Row, answer: Row) -> None:
        gw = self.gateway(p)
        month = 28 * 86_400_000
        assert answer["EndTime"] >= gw.end + int(p["Period"]) * month, "its time is extended from its end"
        gw.end = answer["EndTime"]

    # Accounts of client apps

    def may_CreateSmartAccessGatewayClientUser(self, p: Row) -> Any:
        users = self.apps[p["AppId"]].users
        if p["UserName"] in users:
            yield "ClientUser.UserExist"
        elif len(users) >= USERS_OF_APP:
            yield "ClientUser.UserOverLimit"

    def do_CreateSmartAccessGatewayClientUser(self, p: Row, _: Row) -> None:
        # 0 is enabled.
        self.apps[p["AppId"]].users[p["UserName"]] = {k: p[k] for k in USER if k in p} | {"State": 0}

    def user(self, p: Row) -> Any:
        return self.apps[p["AppId"]].users.get(p["UserName"])

    def may_ModifySmartAccessGatewayClientUser(self, p: Row) -> Any:
        return [] if self.user(p) else ["ResourceNotFound.User", "ClientUser.NameInvalid"]

    may_DeleteSmartAccessGatewayClientUser = may_ModifySmartAccessGatewayClientUser
    may_EnableSmartAccessGatewayUser = may_ModifySmartAccessGatewayClientUser
    may_DisableSmartAccessGatewayUser = may_ModifySmartAccessGatewayClientUser

    def do_ModifySmartAccessGatewayClientUser(self, p: Row, _: Row) -> None:
        self.user(p)["Bandwidth"] = p["Bandwidth"]

    def do_DeleteSmartAccessGatewayClientUser(self, p: Row, _: Row) -> None:
        del self.apps[p["AppId"]].users[p["UserName"]]

    def do_EnableSmartAccessGatewayUser(self, p: Row, _: Row) -> None:
        self.user(p)["State"] = 0

    def do_DisableSmartAccessGatewayUser(self, p: Row, _: Row) -> None:
        self.user(p)["State"] = 1

    # Flow logs

    def do_CreateFlowLog(self, p: Row, answer: Row) -> None:
        self.logs[answer["FlowLogId"]] = {k: p[k] for k in LOG} | {"Status": "Active"}

    def do_ModifyFlowLogAttribute(self, p: Row, _: Row) -> None:
        self.logs[p["FlowLogId"]].update((k, p[k]) for k in LOG if k in p)

    def may_DeleteFlowLog(self, p: Row) -> Any:
        if any(gw.log == p["FlowLogId"] for gw in self.gateways.values()):
            yield "DependencyViolation.FlowLog"

    def do_DeleteFlowLog(self, p: Row, _: Row) -> None:
        del self.logs[p["FlowLogId"]]

    def may_AssociateFlowLog(self, p: Row) -> Any:
        if self.gateway(p).log:
            yield "OperationFailed.AssociateFlowLog"

    def do_AssociateFlowLog(self, p: Row, _: Row) -> None:
        self.gateway(p).log = p["FlowLogId"]

    def may_DisassociateFlowLog(self, p: Row) -> Any:
        if self.gateway(p).log != p["FlowLogId"]:
            yield "InvalidSmartAGId.NotFound"

    def do_DisassociateFlowLog(self, p: Row, _: Row) -> None:
        self.gateway(p).log = None

    def may_ActiveFlowLog(self, p: Row) -> Any:
        if self.logs[p["FlowLogId"]]["Status"] == "Active":
            yield "IncorrectStatus.FlowLog"

    def do_ActiveFlowLog(self, p: Row, _: Row) -> None:
        self.logs[p["FlowLogId"]]["Status"] = "Active"

    def may_DeactiveFlowLog(self, p: Row) -> Any:
        if self.logs[p["FlowLogId"]]["Status"] == "Inactive":
            yield "IncorrectStatus.FlowLog"

    def do_DeactiveFlowLog(self, p: Row, _: Row) -> None:
        self.logs[p["FlowLogId"]]["Status"] = "Inactive"

    # Networks

    def may_CreateCloudConnectNetwork(self, _: Row) -> Any:
        if len(self.networks) >= NETWORKS:
            yield "CcnAmountLimit"

    def do_CreateCloudConnectNetwork(self, p: Row, answer: Row) -> None:
        self.networks[answer["CcnId"]] = {k: p[k] for k in ("Name", "CidrBlock", "SnatCidrBlock") if k in p}

    def do_ModifyCloudConnectNetwork(self, p: Row, _: Row) -> None:
        self.networks[p["CcnId"]]["Name"] = p["Name"]

    def may_DeleteCloudConnectNetwork(self, p: Row) -> Any:
        if any(gw.network == p["CcnId"] for gw in self.gateways.values()):
            yield "AlreadyBound.SMARTAG"

    def do_DeleteCloudConnectNetwork(self, p: Row, _: Row) -> None:
        del self.networks[p["CcnId"]]

    def may_BindSmartAccessGateway(self, p: Row) -> Any:
        gw, network = self.gateway(p), self.networks[p["CcnId"]]
        if gw.network:
            yield "SmartAccessGatewayAlreadyBound" if gw.network == p["CcnId"] else "AlreadyBound.CCN"
            return
        members = [g.blocks for g in self.gateways.values() if g.network == p["CcnId"]]
        if any(overlap(gw.blocks, other) for other in [*members, network.get("SnatCidrBlock", "")]):
            yield "CidrConflict"

    def do_BindSmartAccessGateway(self, p: Row, _: Row) -> None:
        self.gateway(p).network = p["CcnId"]

    def may_UnbindSmartAccessGateway(self, p: Row) -> Any:
        if self.gateway(p).network != p["CcnId"]:
            yield "SmartAccessGatewayNotBind"

    def do_UnbindSmartAccessGateway(self, p: Row, _: Row) -> None:
        self.gateway(p).network = None


NO_DEVICE = ["InvalidId.SN"]


def portless(rule: Row) -> Any:
    """ICMP and ALL have no ports."""
    ports = {rule["SourcePortRange"], rule["DestPortRange"]}
    if rule["IpProtocol"] in ("ICMP", "ALL") and ports != {"-1/-1"}:
        yield "InvalidPortRange"


def bandwidths(car: Row) -> Any:
    part = "Percent" if car["LimitType"] == "Percent" else "Abs"
    if car[f"MaxBandwidth{part}"] <= car[f"MinBandwidth{part}"]:
        yield "InvalidBandwidthCompare"
