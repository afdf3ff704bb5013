"""From the API to the packets: every call by the official SDK, every effect on real traffic within a second,
and every thing taken away again."""

import contextlib
import json
import subprocess
import time
import tomllib

import pytest

from harness.blast import Arrivals, Blast
from harness.cloud import Agent, Branch, SdkError, api_names, cloud_of, pings, reaches, whoami, within
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.lines import Flows, second_line
from harness.net import run
from harness.traffic import http_server, process

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]


@pytest.fixture(scope="module")
def cloud(lab, tmp_path_factory):
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as it:
        yield it


@pytest.fixture(scope="module")
def branch(lab, gateway, cloud):
    """A gateway of the cloud, its agent, and the gateway in the lab."""
    gateway.ensure(api_names(lab_config()))
    cloud.start()
    sag, sn = cloud.gateway()
    resolv_conf = cloud.folder / "resolv.conf"
    resolv_conf.write_text("nameserver 203.0.113.99\n")
    agent = Agent(lab, cloud, sag, sn, resolv_conf=str(resolv_conf)).start()
    it = Branch(lab, cloud, agent, sag, sn)
    within(10, "first contact", it.in_force, agent.tail)
    yield it
    agent.stop()


@pytest.fixture(scope="module")
def web(lab, tmp_path_factory):
    """The Internet's HTTP server; its beginning of URLs."""
    with http_server(lab.inet, A.INET[4], tmp_path_factory.mktemp("www")) as url:
        yield url


ANY = dict(SourceCidr="0.0.0.0/0", DestCidr="0.0.0.0/0", SourcePortRange="-1/-1", DestPortRange="-1/-1")


def test_acl(branch, web):
    acl = branch.call("CreateACL", Name="office")["AclId"]
    rule = dict(ANY, SourceCidr="192.0.2.0/26", DestPortRange="8000/8000", IpProtocol="tcp", Direction="out")
    rule = branch.call("AddACLRule", AclId=acl, Type="WAN", Policy="drop", Priority=1, **rule)["AcrId"]
    lan1 = branch.lab.lan1
    assert reaches(lan1, web)
    branch.mine("AssociateACL", AclId=acl)
    branch.soon("drop", lambda: not reaches(lan1, web))
    branch.call("ModifyACLRule", AclId=acl, AcrId=rule, Policy="accept")
    branch.soon("accept", lambda: reaches(lan1, web))
    branch.call("ModifyACLRule", AclId=acl, AcrId=rule, Policy="drop")
    branch.soon("drop again", lambda: not reaches(lan1, web))
    branch.call("DeleteACLRule", AclId=acl, AcrId=rule)
    branch.soon("rule deleted", lambda: reaches(lan1, web))
    branch.mine("DisassociateACL", AclId=acl)
    branch.call("DeleteACL", AclId=acl)


def rate(arrivals, seconds=0.5):
    time.sleep(seconds)
    now = time.time()
    return arrivals.mbit(now - seconds, now)


@pytest.fixture
def blast(lab):
    """20 Mbit/s of UDP from lan1 to the Internet."""
    arrivals = Arrivals(lab.inet, 5400)
    sender = Blast(lab.lan1, A.INET[4], 5400, 20)
    time.sleep(0.7)
    yield arrivals
    sender.stop()
    arrivals.close()


def limited(branch, arrivals, what, mbit):
    """The limit takes effect within a second: the second after it has no more than the limit and its burst."""
    seen = []

    def holds():
        seen.append(rate(arrivals, 1.0))
        return mbit * 0.6 <= seen[-1] <= mbit * 1.3

    time.sleep(1.0)
    within(1.5, what, holds, lambda: f"{seen} Mbit/s\n{branch.agent.tail()}")
    print(f"{what}: {seen} Mbit/s")


def free(branch, arrivals, what):
    time.sleep(1.0)
    got = rate(arrivals, 1.0)
    print(f"{what}: {got:.1f} Mbit/s")
    assert got > 17, f"{what}: {got:.1f} Mbit/s\n{branch.agent.tail()}"


def test_qos(branch, blast):
    assert rate(blast) > 17
    qos = branch.call("CreateQos", QosName="voice")["QosId"]
    branch.mine("AssociateQos", QosId=qos)
    policy = dict(ANY, DestPortRange="5400/5400", IpProtocol="udp", Priority=2, Name="bulk", Description="bulk")
    policy = branch.call("CreateQosPolicy", QosId=qos, **policy)["QosPolicyId"]
    car = dict(Priority=2, LimitType="Absolute", MinBandwidthAbs=1, MaxBandwidthAbs=4, Name="bulk", Description="bulk")
    car = branch.call("CreateQosCar", QosId=qos, **car)["QosCarId"]
    limited(branch, blast, "CAR of 4 Mbit/s", 4)
    branch.call("ModifyQosCar", QosId=qos, QosCarId=car, Priority=2, LimitType="Absolute", MinBandwidthAbs=1,
                MaxBandwidthAbs=8)
    limited(branch, blast, "CAR of 8 Mbit/s", 8)
    branch.call("DeleteQosPolicy", QosId=qos, QosPolicyId=policy)
    free(branch, blast, "policy deleted")
    branch.call("DeleteQosCar", QosId=qos, QosCarId=car)
    branch.mine("DisassociateQos", QosId=qos)
    branch.call("DeleteQos", QosId=qos)


def test_qos_time_window(branch, blast):
    """A policy of three seconds: free, limited, free."""
    qos = branch.call("CreateQos", QosName="window")["QosId"]
    branch.mine("AssociateQos", QosId=qos)
    car = dict(Priority=1, LimitType="Absolute", MinBandwidthAbs=1, MaxBandwidthAbs=4)
    branch.call("CreateQosCar", QosId=qos, **car)
    start = int(time.time()) + 3
    stamp = lambda t: time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(t))
    policy = dict(ANY, DestPortRange="5400/5400", IpProtocol="udp", Priority=1)
    branch.call("CreateQosPolicy", QosId=qos, StartTime=stamp(start), EndTime=stamp(start + 4), **policy)
    time.sleep(max(0, start + 5.5 - time.time()))
    before, inside = blast.mbit(start - 1, start - 0.1), blast.mbit(start + 1, start + 3.9)
    after = blast.mbit(start + 4.3, start + 5.4)
    assert before > 17 and 2.4 < inside < 5.4 and after > 17, f"{before:.1f}, {inside:.1f}, {after:.1f} Mbit/s"
    branch.mine("DisassociateQos", QosId=qos)


def test_uplink_bandwidth(branch, blast):
    branch.mine("ModifySmartAccessGatewayUpBandwidth", UpBandwidthWan=5)
    limited(branch, blast, "uplink of 5 Mbit/s", 5)
    branch.mine("ModifySmartAccessGatewayUpBandwidth", UpBandwidthWan=0)
    free(branch, blast, "unlimited")


def test_port_bandwidth(branch, blast):
    branch.device("ModifySagWan", PortName="0", IPType="DHCP", Bandwidth=6)
    limited(branch, blast, "port of 6 Mbit/s", 6)
    branch.device("ModifySagWan", PortName="0", IPType="DHCP", Bandwidth=1000)
    free(branch, blast, "port of 1000 Mbit/s")


def test_wan_snat(branch, web):
    lan1 = branch.lab.lan1
    assert whoami(lan1, A.INET[4]) == A.LAN1[4]
    branch.device("ModifySagWanSnat", Snat="ENABLE")
    branch.soon("SNAT to the WAN address", lambda: whoami(lan1, A.INET[4]) == A.GW_WAN[4])
    branch.device("ModifySagWanSnat", Snat="DISABLE")
    branch.soon("own address again", lambda: whoami(lan1, A.INET[4]) == A.LAN1[4])


def test_dnat(branch, tmp_path):
    with http_server(branch.lab.lan1, A.LAN1[4], tmp_path):
        inet, url = branch.lab.inet, f"http://{A.GW_WAN[4]}:8088/"
        assert not reaches(inet, url)
        entry = branch.call("AddDnatEntry", SagId=branch.sag, Type="Internet", IpProtocol="TCP", ExternalPort="8088",
                            InternalIp=A.LAN1[4], InternalPort="8000")["DnatEntryId"]
        branch.soon("port forward", lambda: reaches(inet, url))
        branch.call("DeleteDnatEntry", SagId=branch.sag, DnatEntryId=entry)
        branch.soon("forward deleted", lambda: not reaches(inet, url))


def test_private_snat(branch, tmp_path):
    with http_server(branch.lab.pop, A.POP[4], tmp_path):
        lan2 = branch.lab.lan2
        assert whoami(lan2, A.POP[4]) == A.LAN2[4]
        entry = branch.mine("AddSnatEntry", CidrBlock="192.0.2.64/26", SnatIp=A.GW_EXPRESS[4])["InstanceId"]
        branch.soon("SNAT entry", lambda: whoami(lan2, A.POP[4]) == A.GW_EXPRESS[4])
        branch.mine("DeleteSnatEntry", InstanceId=entry)
        branch.soon("entry deleted", lambda: whoami(lan2, A.POP[4]) == A.LAN2[4])


@pytest.fixture
def behind(lab):
    """A network behind the leased line that only a static route leads to."""
    lab.pop.ip("addr add 10.77.0.1/32 dev lo")
    yield "10.77.0.1"
    lab.pop.ip("addr del 10.77.0.1/32 dev lo")


ROUTE = dict(PortName="3", Vlan="0", DestinationCidr="10.77.0.0/24", NextHop=A.POP_LINK[4])


def test_static_route(branch, behind):
    lan1 = branch.lab.lan1
    assert not pings(lan1, behind)
    branch.device("CreateSagStaticRoute", **ROUTE)
    branch.soon("static route", lambda: pings(lan1, behind))
    branch.soon("reported", lambda: "10.77.0.0/24" in str(branch.device("DescribeSagRouteList")), 5)
    row = next(r for r in branch.device("DescribeSagRouteList")["Routes"] if r["DestinationCidr"] == "10.77.0.0/24")
    assert (row["RouteProtocol"], row["Cost"], row["NextHop"], row["PortName"]) == ("STATIC", "[1/0]", A.POP_LINK[4], "3")
    branch.device("DeleteSagStaticRoute", **ROUTE)
    branch.soon("route deleted", lambda: not pings(lan1, behind))


def status(branch, check):
    rows = branch.mine("DescribeHealthChecks", HcInstanceId=check)["HealthChecks"]["HealthCheck"]
    return rows[0]["Status"]


def test_health_check_and_the_route_that_depends_on_it(branch, behind):
    lab, lan1 = branch.lab, branch.lab.lan1
    check = branch.mine("CreateHealthCheck", Name="far", Type="ICMP_ECHO", SrcIpAddr=A.GW_EXPRESS[4], DstIpAddr=A.POP[4],
                        ProbeInterval=1000, ProbeTimeout=200, ProbeCount=2, FailCountThreshold=2)["InstanceId"]
    branch.device("CreateSagStaticRoute", **ROUTE)
    # A route by a leased line leads to a border router of the cloud.
    strategy = dict(SourceType="cloud", RouteSource="vbr-line", DestCidrBlock="10.77.0.0/24")
    branch.mine("ModifyRouteDistributionStrategy", RouteDistribution="publish_and_revoke_on_health_fail",
                HcInstanceId=check, **strategy)
    branch.soon("check is ok", lambda: status(branch, check) == "ok", 5)
    assert pings(lan1, behind)
    lab.pop.ip(f"addr del {A.POP[4]}/32 dev lo")
    try:
        branch.soon("route revoked", lambda: not pings(lan1, behind), 5)
        branch.soon("check failed", lambda: status(branch, check) == "failed", 3)
    finally:
        lab.pop.ip(f"addr add {A.POP[4]}/32 dev lo")
    branch.soon("route again", lambda: pings(lan1, behind), 4)
    branch.soon("check is ok again", lambda: status(branch, check) == "ok", 3)
    branch.mine("DeleteRouteDistributionStrategy", **strategy)
    branch.mine("DeleteHealthCheck", HcInstanceId=check)
    branch.device("DeleteSagStaticRoute", **ROUTE)
    branch.soon("route deleted", lambda: not pings(lan1, behind))


def test_probes_from_an_address_of_their_own(branch, web):
    lab, own = branch.lab, "10.9.0.77"
    one = dict(SagId=branch.sag, Sn=branch.sn)
    branch.call("CreateServiceAddress", Address=own, AddressType="ProbeTask", **one)
    branch.soon("the address answers", lambda: pings(lab.lan1, own), 3)
    internet = dict(Type="Internet", Enable=True)
    inside = dict(Type="Intranet", Enable=True, ProbeTaskSourceAddress=own)
    tasks = {what: branch.call("CreateProbeTask", TaskName=what, **one, **task)["Data"] for what, task in {
        "inside": dict(inside, Protocol="ICMP", Domain=A.LAN1[4], PacketNumber=60),
        "v6": dict(internet, Protocol="ICMP", Domain=A.LAN1[6], PacketNumber=60),
        "port": dict(internet, Protocol="TCP", Domain=A.INET[4], Port=8000),
        "closed": dict(internet, Protocol="TCP", Domain=A.INET[4], Port=9),
        "web": dict(internet, Protocol="HTTP", Domain=web),
        "off": dict(internet, Protocol="ICMP", Domain=A.LAN1[4], PacketNumber=60, Enable=False),
    }.items()}

    def results():
        rows = branch.cloud.extension("DescribeProbeTaskResults", **one)["Results"]
        return {r["TaskName"]: r for r in rows}

    branch.soon("results", lambda: set(results()) == set(tasks) - {"off"}, 15)
    for what, row in results().items():
        lost = what == "closed"
        assert (row["Loss"], bool(row["Problem"]), "Rtt" in row) == ("100.00%" if lost else "0.00%", lost, not lost), row
    # Every other second instead of each tenth.
    def clock():
        return results()["inside"]["Sent"]

    branch.call("SetAdvancedMonitorState", SagId=branch.sag, Enable=True)
    branch.soon("in force", branch.in_force, 5)
    first, seen = clock(), set()
    deadline = time.monotonic() + 9
    while time.monotonic() < deadline and len(seen) < 3:
        seen |= {clock()} - {first}
        time.sleep(0.3)
    assert len(seen) >= 3, "reports"
    branch.call("SetAdvancedMonitorState", SagId=branch.sag, Enable=False)
    for task in tasks.values():
        branch.call("DeleteProbeTask", ProbeTaskId=task, **one)
    branch.call("DeleteServiceAddress", Address=own, AddressType="ProbeTask", **one)
    branch.soon("the address is gone", lambda: not pings(lab.lan1, own), 3)
    branch.soon("no results", lambda: not results(), 5)


def test_lan_address(branch):
    lab = branch.lab
    lab.lan2.ip("addr add 10.44.0.2/24 dev eth0")
    # ARP retries once a second only, which would be part of the wait.
    lab.lan2.ip(f"neigh replace 10.44.0.1 lladdr {lab.gw.mac('lan-b')} dev eth0 nud permanent")
    try:
        branch.device("ModifySagLan", PortName="4", IPType="STATIC", IP="10.44.0.1", Mask="255.255.255.0")
        branch.soon("the new address answers", lambda: pings(lab.lan2, "10.44.0.1"))
        assert A.GW_LAN_B[4] not in lab.gw.out("ip -4 addr show dev lan-b"), "the old address goes"
        # Removed by hand.
        lab.gw.ip("addr del 10.44.0.1/24 dev lan-b")
        branch.soon("mended", lambda: pings(lab.lan2, "10.44.0.1"), 3)
    finally:
        branch.device("ModifySagLan", PortName="4", IPType="STATIC", IP=A.GW_LAN_B[4], Mask="255.255.255.192")
        lab.lan2.ip("neigh del 10.44.0.1 dev eth0")
        lab.lan2.ip("addr del 10.44.0.2/24 dev eth0")
    branch.soon("back", lambda: pings(lab.lan2, A.GW_LAN_B[4]))


def test_wan_address(branch, web):
    lan1 = branch.lab.lan1
    branch.device("ModifySagWanSnat", Snat="ENABLE")
    static = dict(PortName="0", IPType="STATIC", Mask="255.255.255.0", Gateway=A.WAN_ROUTER[4])
    branch.device("ModifySagWan", IP="198.51.100.7", **static)
    branch.soon("traffic comes from the new address", lambda: whoami(lan1, A.INET[4]) == "198.51.100.7", 2)
    # The agent's own connections were bound to the old one.
    branch.soon("reported", lambda: branch.device("DescribeSagWanList")["Wans"][0]["IP"] == "198.51.100.7", 10)
    branch.device("ModifySagWan", IP=A.GW_WAN[4], **static)
    branch.soon("and from the old one", lambda: whoami(lan1, A.INET[4]) == A.GW_WAN[4], 3)
    branch.device("ModifySagWanSnat", Snat="DISABLE")
    branch.soon("no SNAT", lambda: whoami(lan1, A.INET[4]) == A.LAN1[4], 3)


def test_two_wan_ports_of_one_priority(branch, web):
    """In the kernel the second one comes after the first, and none is changed all the time; with priority -1 it does not
    forward. Its router does not answer, so it takes no flows."""
    lab, wan = branch.lab, dict(IPType="STATIC", Mask="255.255.255.0", Priority=10)
    branch.device("ModifySagPortRole", PortName="4", Role="WAN")
    try:
        branch.device("ModifySagWan", PortName="0", IP=A.GW_WAN[4], Gateway=A.WAN_ROUTER[4], **wan)
        branch.device("ModifySagWan", PortName="4", IP="10.45.0.1", Gateway="10.45.0.254", **wan)
        defaults = lambda: json.loads(lab.gw.out("ip -j -4 route show default"))
        metrics = lambda: {route["dev"]: route.get("metric") for route in defaults()}
        branch.soon("two default routes", lambda: metrics() == {"wan": 10, "lan-b": 11}, 3)
        branch.soon("in force", branch.in_force, 5)
        edits = branch.agent.log.read_text().count("10.45.0.254")
        time.sleep(2.2)
        assert branch.agent.log.read_text().count("10.45.0.254") == edits, branch.agent.tail()
        assert reaches(lab.lan1, web, 1)
        branch.device("ModifySagWan", PortName="4", IP="10.45.0.1", Gateway="10.45.0.254", **{**wan, "Priority": -1})
        branch.soon("no default route by it", lambda: "lan-b" not in metrics(), 3)
        role = lambda: {p["device"]: p["role"] for p in tomllib.loads(branch.agent.in_force())["port"]}["lan-b"]
        branch.soon("nothing is forwarded by it", lambda: role() == "mgmt", 3)
    finally:
        branch.device("ModifySagPortRole", PortName="4", Role="LAN")
        branch.device("ModifySagLan", PortName="4", IPType="STATIC", IP=A.GW_LAN_B[4], Mask="255.255.255.192")
    branch.soon("back", lambda: pings(lab.lan2, A.GW_LAN_B[4]), 3)


@pytest.fixture
def second(lab):
    with second_line(lab):
        yield


def test_shares_of_two_wan_ports_and_a_health_check(branch, second, wire):
    """Priority and Weight of ModifySagWan, and CreateHealthCheck: where new flows go."""
    lab, wan = branch.lab, dict(IPType="STATIC", Priority=5)
    first = dict(wan, PortName="0", IP=A.GW_WAN[4], Mask="255.255.255.0", Gateway=A.WAN_ROUTER[4])
    other = dict(wan, PortName="3", IP=A.GW_EXPRESS[4], Mask="255.255.255.252", Gateway=A.POP_LINK[4])
    branch.device("ModifySagPortRole", PortName="3", Role="WAN")
    check = None
    no_ping = "table ip no_ping { chain in { type filter hook prerouting priority raw; ip saddr %s icmp type echo-request drop; }; }"
    try:
        branch.device("ModifySagWan", Weight=25, **first)
        branch.device("ModifySagWan", Weight=75, **other)
        ctl = lambda *what: json.loads(lab.gw.out([lab.sagctl, "--socket", lab.socket, "--json", *what]))
        legs = lambda: {h["port"]: h["weight"] for r in ctl("routes")["routes"] if r["destination"] == "0.0.0.0/0" for h in r["next_hops"]}
        branch.soon("both have a share", lambda: legs() == {"0": 25, "3": 75}, 3)
        for router in (A.POP_LINK, A.WAN_ROUTER):
            assert lab.gw.ping(router[4], count=1) == 1
        flows = Flows(lab, wire)
        got = flows.lines(200)
        # 50, with a standard deviation of 6.1.
        assert got["wan"] + got["express"] == 200 and 25 <= got["wan"] <= 75, got
        check = branch.mine(
            "CreateHealthCheck", Name="uplink", Type="ICMP_ECHO", SrcIpAddr=A.GW_WAN[4], DstIpAddr=A.INET[4],
            ProbeInterval=1000, ProbeTimeout=500, FailCountThreshold=1,
        )["InstanceId"]
        states = lambda: {w["PortName"]: w["TrafficState"] for w in branch.device("DescribeSagWanList")["Wans"]}
        lab.wan.run(["nft", "-f", "-"], input=no_ping % A.GW_WAN[4])
        branch.soon("the line has failed", lambda: legs() == {"3": 75}, 5)
        assert flows.lines(20) == {"wan": 0, "express": 20}
        branch.soon("and the cloud says so", lambda: states() == {"0": "Abnormal", "3": "Normal"}, 5)
        lab.wan.run(["nft", "delete", "table", "ip", "no_ping"])
        branch.soon("the line is back", lambda: legs() == {"0": 25, "3": 75}, 5)
        # Of one priority none stands in for the other; of different ones the second does, and is in use when the first fails.
        links = lambda: [
            tuple(r[k] for k in ("MainLinkId", "MainLinkState", "BackupLinkId", "BackupLinkState", "LinkLevelBackupType"))
            for r in branch.mine("DescribeSmartAccessGatewayHa")["LinkBackupInfoList"]["LinkBackupInfoList"]
        ]
        assert links() == []
        branch.device("ModifySagWan", **{**other, "Priority": 20})
        soon = lambda what, wanted: branch.soon(what, lambda: links() == [(*wanted, "StandbyMode")], 4)
        soon("the second line waits", ("0", "up", "3", "up"))
        lab.pop.ip("link set gw down")
        soon("the second line is pulled", ("0", "up", "3", "down"))
        lab.pop.ip("link set gw up")
        soon("it is plugged in again", ("0", "up", "3", "up"))
        lab.wan.run(["nft", "-f", "-"], input=no_ping % A.GW_WAN[4])
        branch.soon("the line has failed", lambda: legs() == {"3": 75}, 5)
        soon("the cloud knows which is in use", ("3", "up", "0", "down"))
        lab.wan.run(["nft", "delete", "table", "ip", "no_ping"])
        branch.soon("the first line is back", lambda: legs() == {"0": 25}, 5)
        soon("and the cloud knows", ("0", "up", "3", "up"))
    finally:
        lab.wan.run(["nft", "delete", "table", "ip", "no_ping"], check=False)
        if check:
            branch.mine("DeleteHealthCheck", HcInstanceId=check)
        branch.device("ModifySagPortRole", PortName="3", Role="ECC")
        branch.device("ModifySagWan", **{**first, "Priority": 10, "Weight": 100})
    branch.soon("in force", branch.in_force, 5)


def test_reports(branch, blast):
    branch.soon("synchronized", branch.in_force, 5)
    info = branch.device("DescribeSAGDeviceInfo")
    assert info["ControllerState"] == "Normal" and info["Version"]
    assert info["StartupTime"]
    def wans():
        return [(w["PortName"], w["IP"], w["Mask"], w["Gateway"]) for w in branch.device("DescribeSagWanList")["Wans"]]

    # The test before gave the port another address, and took it back.
    branch.soon("its address", lambda: wans() == [("0", A.GW_WAN[4], "255.255.255.0", A.WAN_ROUTER[4])], 10)
    ports = {p["PortName"]: p for p in branch.device("DescribeSagPortList")["Ports"]}
    assert ports["0"]["Status"] == "Up" and ports["0"]["Mac"] == branch.lab.gw.mac("wan")
    assert {p: ports[p]["Role"] for p in "0134"} == {"0": "WAN", "1": "LAN", "3": "ECC", "4": "LAN"}
    routes = {(r["DestinationCidr"], r["RouteProtocol"]) for r in branch.device("DescribeSagRouteList")["Routes"]}
    assert ("192.0.2.0/26", "STATIC") in routes and ("0.0.0.0/0", "STATIC") in routes

    def busy():
        rows = branch.call("DescribeSagTrafficTopN", Size=10)["TrafficTopN"]
        return any(r["InstanceId"] == branch.sag and 15e6 < float(r["TrafficRate"]) < 30e6 for r in rows)

    branch.soon("traffic rate of 20 Mbit/s", busy, 8)
    assert branch.call("DescribeSagDropTopN", Size=10)["DropTopN"][0]["InstanceId"] == branch.sag


def test_one_bad_object_harms_no_other(branch, gateway, web):
    multicast = {**ROUTE, "DestinationCidr": "224.0.0.0/8"}
    branch.device("CreateSagStaticRoute", **multicast)
    branch.device("ModifySagWanSnat", Snat="ENABLE")

    def task(op):
        return branch.device(op)["TaskStates"][0]

    def named():
        it = task("DescribeSagStaticRouteList")
        return it["State"] == "HardwareError" and "224.0.0.0/8 by port 3 is left out" in it["ErrorMessage"]

    branch.soon("the route is named", named, 3)
    # The calls are two revisions: the route may be named by the first.
    branch.soon("the rest is in force", lambda: whoami(branch.lab.lan1, A.INET[4]) == A.GW_WAN[4], 3)
    branch.soon("said so", lambda: task("DescribeSagWanSnat")["State"] == "Succeed", 3)
    assert "224.0.0.0/8" in str(branch.agent.status()["Deviations"])
    shown = gateway.ctl("status")["deviations"]
    assert [(d["section"], d["effect"]) for d in shown] == [("StaticRoutes", "left-out")], shown
    assert "224.0.0.0/8 by port 3" in shown[0]["object"]
    assert "of the cloud's configuration: static route" in run([branch.lab.sagctl, "--socket", branch.lab.socket, "status"]).stdout
    # What this gateway cannot do is refused when the call is made.
    acl = branch.call("CreateACL", Name="apps")["AclId"]
    branch.mine("AssociateACL", AclId=acl)
    with pytest.raises(SdkError) as refused:
        branch.call("AddACLRule", AclId=acl, Type="WAN", Policy="drop", Priority=1, IpProtocol="all", Direction="out",
                    DpiSignatureIds=["1"], **ANY)
    assert refused.value.code == "FeatureNotSupport"
    with pytest.raises(SdkError) as refused:
        branch.device("CreateSagStaticRoute", **{**ROUTE, "PortName": "5"})
    assert refused.value.code in ("Sag.PortNotExist", "Sag.PortRoleInvalid")
    branch.mine("DisassociateACL", AclId=acl)
    branch.device("DeleteSagStaticRoute", **multicast)
    branch.device("ModifySagWanSnat", Snat="DISABLE")
    branch.soon("said so", lambda: task("DescribeSagStaticRouteList")["State"] == "Succeed", 3)
    assert gateway.ctl("status")["deviations"] == []
    branch.soon("off", lambda: whoami(branch.lab.lan1, A.INET[4]) == A.LAN1[4])


def test_reboot(branch, gateway, web):
    pid = gateway.pid()
    with process(branch.lab.lan1, ["ping", "-n", "-i", "0.05", A.INET[4]], stdout=subprocess.DEVNULL):
        branch.mine("RebootSmartAccessGateway", SerialNumber=branch.sn)
        assert branch.agent.wait(5) == 86, branch.agent.tail()
        within(5, "the gateway's process ends", lambda: not gateway.lab.run_dir.joinpath(f"../../proc/{pid}/exe").exists())
        gateway.start(branch.agent.in_force())
        branch.agent.start()
    within(5, "in force again", branch.in_force, branch.agent.tail)
    assert reaches(branch.lab.lan1, web, 1)
    time.sleep(1)
    assert branch.agent.process.poll() is None, "one request, one restart"


NAME_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, client = s.recvfrom(1500)
    s.sendto(query[:2] + bytes([0x81, 0x80]) + query[4:], client)
"""


@contextlib.contextmanager
def name_server(ns, address):
    with process(ns, ["/usr/bin/python3", "-c", NAME_SERVER, address], stdout=subprocess.PIPE) as server:
        assert server.stdout.readline()
        yield


def diagnosed(branch):
    """What a new diagnosis has measured, by check."""
    branch.device("DiagnoseSmartAccessGateway")
    result = {}

    def finished():
        result.update(branch.device("DiscribeSmartAccessGatewayDiagnosisReport")["DiagnoseResult"])
        return result["State"] == "finished"

    branch.soon("diagnosis", finished, 30)
    return {i["ItemName"]: i for d in result["Details"] for i in d["Items"]}


def test_diagnosis(branch):
    """What the device measures, under its sandbox: a dead DNS server, and living ones of both families."""
    dead = "203.0.113.99"
    seen = diagnosed(branch)
    levels = {name: item["Level"] for name, item in seen.items()}
    assert levels["dnsServer"] == "error" and f"{dead} does not answer" in str(seen["dnsServer"]["EN"]["Details"])
    for good in ("gatewayState", "ctrlReachable", "clockOffset", "wanLinkState", "wanAddress", "pathMtu"):
        assert levels[good] == "info", seen[good]
    assert "203.0.113.10:8180" in str(seen["ctrlReachable"]["EN"]["Details"])
    branch.soon("reported", lambda: branch.device("DescribeSagCurrentDns")["MasterDns"] == dead, 5)
    resolv_conf = branch.cloud.folder / "resolv.conf"
    lab = branch.lab
    with contextlib.ExitStack() as running:
        for family in (4, 6):
            running.enter_context(name_server(lab.inet, A.INET[family]))
        resolv_conf.write_text(f"nameserver {A.INET[4]}\nnameserver {A.INET[6]}\n")
        dns = diagnosed(branch)["dnsServer"]
    assert dns["Level"] == "info" and len(dns["EN"]["Details"]) == 2, dns
    branch.soon("reported", lambda: branch.device("DescribeSagCurrentDns")["SlaveDns"] == A.INET[6], 5)


def test_access_points(branch):
    """Measured by the agent, of both families, now and then and on request; the one that does not answer is named."""
    for number, address in ((101, A.INET[4]), (102, "203.0.113.99"), (103, A.INET[6])):
        run([branch.cloud.bin, "access-points", "add", "--id", str(number), "--address", address, "--latitude", "31.23",
             "--longitude", "121.47", "--db", branch.cloud.url])
    assert len(branch.call("ListAccessPoints")["AccessPoints"]) == 3

    def shown():
        return branch.mine("ListAccessPointNetworkQualities")["AccessPointNetworkQualities"]

    # The next change brings them to the agent, which nobody asks to measure.
    branch.device("ModifySagWanSnat", Snat="ENABLE")
    branch.soon("measured unasked", lambda: {q["Id"]: bool(q["Rtt"]) for q in shown()} == {101: True, 102: False, 103: True}, 10)
    branch.device("ModifySagWanSnat", Snat="DISABLE")
    with pytest.raises(SdkError) as e:
        branch.mine("ProbeAccessPointNetworkQuality", AccessPointIds=[101, 102, 103])
    assert e.value.code == "AccessPointUnreachable" and "points 102" in str(e.value), e.value
    got = shown()
    assert {q["Id"]: q["Loss"] for q in got} == {101: "0.00%", 102: "100.00%", 103: "0.00%"}
    assert {q["Id"]: bool(q["Rtt"]) for q in got} == {101: True, 102: False, 103: True}
