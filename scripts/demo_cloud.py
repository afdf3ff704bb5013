#!/usr/bin/python3
"""The whole system, for scripts/demo.sh: official SDK → sag-cloud → sag-agent → sag-vcpe → packets. Each call of
the API, what it changed on the wire, the figure; each change is taken back and that is seen too.

usage: demo_cloud.py RESULT_FILE     in a lab that is up, with a gateway that runs (SAG_LAB_PREFIX)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

# pylint: disable=wrong-import-position
from harness.cloud import ENDPOINT, Agent, Branch, Cloud, Missing, SdkError, pings, reaches, whoami, within
from harness.lab import Addresses as A
from harness.lab import Lab
from harness.net import CommandError
from harness.traffic import http_server, iperf, iperf_server, process

STARTED = int(os.environ.get("SAG_STARTED_MS", time.time() * 1000)) / 1000
COLORS = {"PASS": "\33[32m", "FAIL": "\33[31m"} if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else {}
ANY = dict(SourceCidr="0.0.0.0/0", DestCidr="0.0.0.0/0", SourcePortRange="-1/-1", DestPortRange="-1/-1")


class Account:
    """What is printed, and how it went."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def step(self, text: str) -> None:
        print(f"[{time.time() - STARTED:6.1f}s] {text}", flush=True)

    def note(self, text: str) -> None:
        print(f"          {text}", flush=True)

    def result(self, good: bool, text: str) -> None:
        word = "PASS" if good else "FAIL"
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        off = "\33[0m" if COLORS else ""
        print(f"          {COLORS.get(word, '')}{word}{off} {text}", flush=True)


class Story:
    def __init__(self, account: Account, branch: Branch, www: str) -> None:
        self.account, self.branch, self.www = account, branch, www
        self.lab = branch.lab

    def call(self, op: str, **params: Any) -> Any:
        """A call, printed with its parameters."""
        shown = " ".join(f"{k}={v}" for k, v in params.items() if k not in ("SmartAGId", "SmartAGSn", "SagId", *ANY))
        shown += "".join(f" {k}={v}" for k, v in params.items() if k in ANY and v != ANY[k])
        self.account.note(f"→ {op} {shown}".rstrip())
        return self.branch.call(op, **params)

    def mine(self, op: str, **params: Any) -> Any:
        return self.call(op, SmartAGId=self.branch.sag, **params)

    def device(self, op: str, **params: Any) -> Any:
        return self.mine(op, SmartAGSn=self.branch.sn, **params)

    def sees(self, text: str, check: Callable[[], Any], seconds: float = 1.0) -> None:
        """The effect, and how long after the answer of the last call it was there."""
        try:
            took = within(seconds, text, check)
            self.account.result(True, f"{text} ({took * 1000:.0f} ms after the answer)")
        except AssertionError:
            self.account.result(False, f"{text}: not within {seconds} s")

    # Each of these makes something, sees it, takes it back and sees that.

    def acl(self) -> None:
        self.account.step("access control: no TCP to port 8000")
        acl = self.call("CreateACL", Name="office")["AclId"]
        rule = dict(ANY, SourceCidr="192.0.2.0/26", DestPortRange="8000/8000")
        rule = self.call("AddACLRule", AclId=acl, Type="WAN", Direction="out", Policy="drop", IpProtocol="tcp", Priority=1,
                         **rule)["AcrId"]
        self.mine("AssociateACL", AclId=acl)
        lan1 = self.lab.lan1
        self.sees("lan1 no longer reaches the web server", lambda: not reaches(lan1, self.www))
        self.call("DeleteACLRule", AclId=acl, AcrId=rule)
        self.sees("it does again", lambda: reaches(lan1, self.www))
        self.mine("DisassociateACL", AclId=acl)
        self.call("DeleteACL", AclId=acl)

    def rate(self) -> float:
        return iperf(self.lab.lan1, self.lab.inet, A.INET[4], seconds=2, options=["-O", 1])["mbit"]

    def qos(self) -> None:
        self.account.step("quality of service: TCP of lan1 at most 20 Mbit/s")
        before = self.rate()
        qos = self.call("CreateQos", QosName="bulk")["QosId"]
        self.mine("AssociateQos", QosId=qos)
        self.call("CreateQosCar", QosId=qos, Priority=3, LimitType="Absolute", MinBandwidthAbs=2, MaxBandwidthAbs=20)
        policy = dict(ANY, SourceCidr="192.0.2.0/26")
        policy = self.call("CreateQosPolicy", QosId=qos, Priority=3, IpProtocol="tcp", **policy)["QosPolicyId"]
        limited = self.rate()
        self.account.result(10 < limited < 22, f"TCP: {before:.0f} Mbit/s before, {limited:.1f} Mbit/s now")
        self.call("DeleteQosPolicy", QosId=qos, QosPolicyId=policy)
        after = self.rate()
        self.account.result(after > 40, f"TCP: {after:.0f} Mbit/s again")
        self.mine("DisassociateQos", QosId=qos)
        self.call("DeleteQos", QosId=qos)

    def bandwidth(self) -> None:
        self.account.step("bandwidth: Internet uplink of 30 Mbit/s")
        self.mine("ModifySmartAccessGatewayUpBandwidth", UpBandwidthWan=30)
        limited = self.rate()
        self.account.result(15 < limited < 33, f"TCP: {limited:.1f} Mbit/s")
        self.mine("ModifySmartAccessGatewayUpBandwidth", UpBandwidthWan=0)
        after = self.rate()
        self.account.result(after > 60, f"TCP: {after:.0f} Mbit/s again")

    def nat(self) -> None:
        lan1, inet = self.lab.lan1, self.lab.inet
        self.account.step("address translation")
        self.device("ModifySagWanSnat", Snat="ENABLE")
        self.sees(f"the Internet sees {A.GW_WAN[4]} in place of {A.LAN1[4]}", lambda: whoami(lan1, A.INET[4]) == A.GW_WAN[4])
        forward = f"http://{A.GW_WAN[4]}:8080/"
        entry = self.call("AddDnatEntry", SagId=self.branch.sag, Type="Internet", IpProtocol="TCP", ExternalPort="8080",
                          InternalIp=A.LAN1[4], InternalPort="8000")["DnatEntryId"]
        self.sees(f"the Internet reaches lan1's web server at {A.GW_WAN[4]}:8080", lambda: reaches(inet, forward))
        self.call("DeleteDnatEntry", SagId=self.branch.sag, DnatEntryId=entry)
        self.sees("it no longer does", lambda: not reaches(inet, forward))
        self.device("ModifySagWanSnat", Snat="DISABLE")
        self.sees(f"the Internet sees {A.LAN1[4]}", lambda: whoami(lan1, A.INET[4]) == A.LAN1[4])
        entry = self.mine("AddSnatEntry", CidrBlock="192.0.2.64/26", SnatIp=A.GW_EXPRESS[4])["InstanceId"]
        lan2 = self.lab.lan2
        self.sees(f"behind the leased line lan2 is {A.GW_EXPRESS[4]}", lambda: whoami(lan2, A.POP[4]) == A.GW_EXPRESS[4])
        self.mine("DeleteSnatEntry", InstanceId=entry)
        self.sees(f"and {A.LAN2[4]} again", lambda: whoami(lan2, A.POP[4]) == A.LAN2[4])

    def routes(self) -> None:
        lan1, pop = self.lab.lan1, self.lab.pop
        self.account.step("a static route by the leased line, and a health check that it depends on")
        pop.ip("addr add 10.77.0.1/32 dev lo")
        route = dict(PortName="3", Vlan="0", DestinationCidr="10.77.0.0/24", NextHop=A.POP_LINK[4])
        self.device("CreateSagStaticRoute", **route)
        self.sees("lan1 reaches 10.77.0.1", lambda: pings(lan1, "10.77.0.1"))
        check = self.mine("CreateHealthCheck", Name="far", Type="ICMP_ECHO", SrcIpAddr=A.GW_EXPRESS[4], DstIpAddr=A.POP[4],
                          ProbeInterval=1000, ProbeTimeout=200, FailCountThreshold=2)["InstanceId"]
        strategy = dict(SourceType="local", RouteSource="STATIC", DestCidrBlock="10.77.0.0/24")
        self.mine("ModifyRouteDistributionStrategy", RouteDistribution="publish_and_revoke_on_health_fail",
                  HcInstanceId=check, **strategy)
        self.sees("DescribeHealthChecks says ok", lambda: self.health(check) == "ok", 5)
        self.account.note(f"{A.POP[4]} falls silent")
        pop.ip(f"addr del {A.POP[4]}/32 dev lo")
        self.sees("the route is revoked: lan1 no longer reaches 10.77.0.1", lambda: not pings(lan1, "10.77.0.1"), 5)
        self.sees("DescribeHealthChecks says failed", lambda: self.health(check) == "failed", 3)
        pop.ip(f"addr add {A.POP[4]}/32 dev lo")
        self.sees("it answers again, the route is back", lambda: pings(lan1, "10.77.0.1"), 4)
        self.mine("DeleteRouteDistributionStrategy", **strategy)
        self.mine("DeleteHealthCheck", HcInstanceId=check)
        self.device("DeleteSagStaticRoute", **route)
        self.sees("the route is gone", lambda: not pings(lan1, "10.77.0.1"))
        pop.ip("addr del 10.77.0.1/32 dev lo")

    def traffic(self) -> Any:
        rows = self.branch.call("DescribeSagTrafficTopN", Size=10)["TrafficTopN"]
        return next((float(r["TrafficRate"]) for r in rows if r["InstanceId"] == self.branch.sag), 0)

    def health(self, check: str) -> str:
        return self.branch.mine("DescribeHealthChecks", HcInstanceId=check)["HealthChecks"]["HealthCheck"][0]["Status"]

    def reports(self) -> None:
        self.account.step("what the cloud knows of the device")
        info = self.device("DescribeSAGDeviceInfo")
        self.sees(f"version {info['Version']}, the last change is in force", self.branch.in_force, 3)
        wan = self.device("DescribeSagWanList")["Wans"][0]
        self.account.result(wan["IP"] == A.GW_WAN[4], f"WAN port {wan['PortName']}: {wan['IP']} by {wan['Gateway']}")
        routes = self.device("DescribeSagRouteList")["Routes"]
        for r in routes[:4]:
            self.account.note(f"  {r['DestinationCidr']:20} {r['RouteProtocol']:10} {r['Cost']:8} port {r['PortName']} {r['NextHop']}")
        self.account.result(len(routes) > 3, f"{len(routes)} routes")
        with iperf_server(self.lab.inet) as port:
            command = ["iperf3", "-c", A.INET[4], "-p", port, "-u", "-b", "50M", "-l", 1400, "-t", 5]
            with process(self.lab.lan1, command, stdout=subprocess.DEVNULL):
                self.sees("DescribeSagTrafficTopN shows 50 Mbit/s of UDP", lambda: 40e6 < self.traffic() < 70e6, 6)
        try:
            self.device("ModifySagUserDns", MasterDns="223.5.5.5", SlaveDns="223.6.6.6")
            self.account.result(False, "the cloud accepts what the device cannot do")
        except SdkError as e:
            self.account.result(e.code == "FeatureNotSupport", f"what the device cannot do is refused: {e.code}")


def main() -> int:
    account = Account()
    lab = Lab(os.environ.get("SAG_LAB_PREFIX", "demo-"))
    with tempfile.TemporaryDirectory() as folder:
        cloud = Cloud(lab, folder)
        agent = None
        try:
            account.step(f"sag-cloud on {ENDPOINT} (host inet), an access key, a gateway by the SDK, its agent")
            cloud.start()
            sag, sn = cloud.gateway()
            agent = Agent(lab, cloud, sag, sn).start()
            branch = Branch(lab, cloud, agent, sag, sn)
            within(10, "first contact", branch.in_force, agent.tail)
            account.result(True, f"{sag}, device {sn}: the gateway runs what the cloud says")
            with http_server(lab.inet, A.INET[4], folder) as www, http_server(lab.lan1, A.LAN1[4], folder), http_server(
                lab.pop, A.POP[4], folder
            ):
                story = Story(account, branch, www)
                for part in (story.acl, story.qos, story.bandwidth, story.nat, story.routes, story.reports):
                    part()
        except (AssertionError, CommandError, SdkError, OSError) as e:
            account.result(False, str(e))
            if agent is not None:
                account.note(agent.tail(10))
        finally:
            if agent is not None:
                agent.stop()
            cloud.stop()
    Path(sys.argv[1]).write_text(json.dumps({"passed": account.passed, "failed": account.failed}))
    return 1 if account.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as missing:
        sys.exit(f"demo_cloud.py: {missing}")
