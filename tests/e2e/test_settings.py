"""Every operation that sets something on the device: a call by the official SDK, its effect on packets, and the call that
undoes it. What other files look at more closely is here once, with the time that each takes; what they have already is not
repeated: ModifySagHa (test_agent_pair.py), ModifySagWan and health checks of lines (test_agent.py), names through tunnels
(test_agent_network.py)."""

import contextlib
import tempfile
from pathlib import Path

import pytest

from harness.cloud import SOON, Agent, Branch, api_names, cloud_of, pings, whoami
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.lan import leased, resolve
from harness.routers import FRR_DIR, SETUP, Daemons, FrrDaemons, program
from harness.traffic import http_server
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

BEHIND_LINE, BEHIND_LAN = "10.77.0.1", "10.82.0.1"
POP_BGP = f"""router bgp 65002
 bgp router-id {A.POP_LINK[4]}
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 1 3
 neighbor {A.GW_EXPRESS[4]} remote-as 65001
 neighbor {A.GW_EXPRESS[4]} timers connect 1
 address-family ipv4 unicast
  network 10.77.0.0/24
 exit-address-family
"""
LAN_OSPF = f"""interface eth0
 ip ospf hello-interval 1
 ip ospf dead-interval 3
 ip ospf retransmit-interval 1
 ip ospf area 86
exit
interface lo
 ip ospf area 86
 ip ospf passive
exit
router ospf
 ospf router-id {A.LAN2[4]}
 timers throttle lsa all 1000
exit
"""
# Sessions of BGP, and what OSPF waits for a designated router, take their time after the call.
DAEMONS = 15


class Settings(Branch):
    """Calls with the time until they have taken effect."""

    def __init__(self, *args):
        super().__init__(*args)
        self.times = []

    def sag_ins(self, op, **params):
        """A call of the SDK that the documents do not have."""
        return self.call(op, SagInsId=self.sag, SagSn=self.sn, **params)

    def took(self, op, what, check, seconds=SOON):
        took = within(seconds + 0.5, f"{op}: {what}", check, lambda: self.agent.tail(15))
        self.times.append((op, what, took))


@pytest.fixture(scope="module")
def names(lab, tmp_path_factory):
    """Two DNS servers in the Internet, that say different things."""
    daemons = Daemons(tmp_path_factory.mktemp("names"))
    lab.inet.ip("addr add 203.0.113.11/32 dev lo")
    for server, says in ((A.INET[4], "203.0.113.201"), ("203.0.113.11", "203.0.113.202")):
        command = [
            program("dnsmasq", "/usr/sbin/dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=",
            "--no-resolv", "--no-hosts", "--bind-interfaces", f"--listen-address={server}", f"--address=/example/{says}",
            "--log-facility=-",
        ]
        daemons.start(lab.inet, f"names-{says}", command)
    yield
    daemons.close()
    lab.inet.ip("addr del 203.0.113.11/32 dev lo")


@pytest.fixture(scope="module")
def branch(lab, gateway, names, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(cloud_of(lab, tmp_path_factory.mktemp("cloud")))
        gateway.ensure(api_names(lab_config()))
        cloud.start()
        sag, sn = cloud.gateway()
        # dnsmasq reads its files as another user, who cannot enter the folders of tests.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sag-lan-", dir="/run")))
        place.chmod(0o755)
        agent = Agent(lab, cloud, sag, sn)
        agent.sections = f'[routing]\ndir = "{lab.run_dir}/routing"\n[lan]\ndir = "{place / sn}"\nping = false\n'
        agent.start()
        stack.callback(agent.stop)
        it = Settings(lab, cloud, agent, sag, sn)
        within(10, "first contact", it.in_force, agent.tail)
        stack.enter_context(http_server(lab.inet, A.INET[4], tmp_path_factory.mktemp("www")))
        yield it
        print("\n| call | effect | ms |\n|---|---|---|")
        for op, what, took in it.times:
            print(f"| {op} | {what} | {took * 1000:.0f} |")


@contextlib.contextmanager
def address(ns, net, dev="lo"):
    ns.ip(f"addr add {net} dev {dev}")
    try:
        yield
    finally:
        ns.ip(f"addr del {net} dev {dev}")


def test_wan_snat(branch):
    seen = lambda: whoami(branch.lab.lan1, A.INET[4])
    branch.sag_ins("UpdateSmartAccessGatewayWanSnat", Snat="1")
    branch.took("UpdateSmartAccessGatewayWanSnat 1", "translated to the WAN address", lambda: seen() == A.GW_WAN[4])
    branch.sag_ins("UpdateSmartAccessGatewayWanSnat", Snat="0")
    branch.took("UpdateSmartAccessGatewayWanSnat 0", "own address", lambda: seen() == A.LAN1[4])
    branch.device("ModifySagWanSnat", Snat="ENABLE")
    branch.took("ModifySagWanSnat ENABLE", "translated to the WAN address", lambda: seen() == A.GW_WAN[4])
    branch.device("ModifySagWanSnat", Snat="DISABLE")
    branch.took("ModifySagWanSnat DISABLE", "own address", lambda: seen() == A.LAN1[4])


def test_static_routes(branch):
    """The next hop of a route to a network behind another router of the LAN."""
    lab, route = branch.lab, dict(PortName="1", DestinationCidr="10.83.0.0/24")
    reached = lambda: pings(lab.lan2, "10.83.0.1")
    with address(lab.lan1, "10.83.0.1/32"):
        assert not reached()
        branch.device("CreateSagStaticRoute", NextHop=A.LAN1[4], **route)
        branch.took("CreateSagStaticRoute", "a host is reached", reached)
        branch.device("ModifySagStaticRoute", NextHop="192.0.2.20", **route)
        branch.took("ModifySagStaticRoute to nobody", "it is not", lambda: not reached())
        branch.device("ModifySagStaticRoute", NextHop=A.LAN1[4], **route)
        branch.took("ModifySagStaticRoute back", "it is", reached)
        branch.device("DeleteSagStaticRoute", NextHop=A.LAN1[4], **route)
        branch.took("DeleteSagStaticRoute", "it is not", lambda: not reached())


def test_leased_lines(branch):
    """The address of a leased line: its router reaches it."""
    lab, line = branch.lab, dict(PortName="3", Vlan="0", Mask="255.255.255.252")
    mac = lab.gw.mac("express")
    reached = lambda own: pings(lab.pop, own)
    with contextlib.ExitStack() as stack:
        # ARP retries once a second only, which would be part of the wait.
        for own, theirs in (("10.66.0.1", "10.66.0.2"), ("10.66.0.5", "10.66.0.6")):
            stack.enter_context(address(lab.pop, f"{theirs}/30", "gw"))
            lab.pop.ip(f"neigh replace {own} lladdr {mac} dev gw nud permanent")
            stack.callback(lambda own=own: lab.pop.ip(f"neigh del {own} dev gw", check=False))
        try:
            assert not reached("10.66.0.1")
            branch.device("CreateSagExpressConnectInterface", IP="10.66.0.1", **line)
            branch.took("CreateSagExpressConnectInterface", "the line has the address", lambda: reached("10.66.0.1"))
            branch.device("ModifySagExpressConnectInterface", IP="10.66.0.5", **line)
            branch.took("ModifySagExpressConnectInterface", "the other one",
                        lambda: reached("10.66.0.5") and not reached("10.66.0.1"))
            branch.device("DeleteSagExpressConnectInterface", PortName="3", Vlan="0")
            branch.took("DeleteSagExpressConnectInterface", "none", lambda: not reached("10.66.0.5"))
        finally:
            # A port whose address the cloud sets has that one alone.
            lab.gw.ip(f"addr add {A.GW_EXPRESS[4]}/30 dev express", check=False)
    branch.soon("the line is as before", lambda: pings(lab.pop, A.GW_EXPRESS[4]), 5)


def test_health_checks(branch):
    """A route that is revoked when its health check fails, which looks at one address and then at another."""
    lab, route = branch.lab, dict(PortName="3", Vlan="0", DestinationCidr="10.77.0.0/24", NextHop=A.POP_LINK[4])
    strategy = dict(SourceType="cloud", RouteSource="vbr-line", DestCidrBlock="10.77.0.0/24")
    reached = lambda: pings(lab.lan1, BEHIND_LINE)
    rounds = 4
    with address(lab.pop, f"{BEHIND_LINE}/32"):
        branch.device("CreateSagStaticRoute", **route)
        branch.soon("it is reached", reached)
        check = branch.mine(
            "CreateHealthCheck", Name="line", Type="ICMP_ECHO", SrcIpAddr=A.GW_EXPRESS[4], DstIpAddr="192.0.2.200",
            ProbeInterval=1000, ProbeTimeout=200, ProbeCount=1, FailCountThreshold=1)["InstanceId"]
        branch.mine("ModifyRouteDistributionStrategy", RouteDistribution="publish_and_revoke_on_health_fail",
                    HcInstanceId=check, **strategy)
        branch.took("CreateHealthCheck of nobody", "the route is revoked (a round of 1 s)", lambda: not reached(), rounds)
        branch.mine("ModifyHealthCheck", HcInstanceId=check, DstIpAddr=A.POP_LINK[4])
        branch.took("ModifyHealthCheck", "the route is back (a round of 1 s)", reached, rounds)
        branch.mine("ModifyHealthCheck", HcInstanceId=check, DstIpAddr="192.0.2.200")
        branch.took("ModifyHealthCheck back", "the route is revoked (a round of 1 s)", lambda: not reached(), rounds)
        branch.mine("DeleteRouteDistributionStrategy", **strategy)
        branch.took("DeleteRouteDistributionStrategy", "the route is back", reached)
        branch.mine("DeleteHealthCheck", HcInstanceId=check)
        branch.device("DeleteSagStaticRoute", **route)
        branch.soon("it is not", lambda: not reached())


def test_dhcp_and_dns(branch, tmp_path):
    program("udhcpc", "/sbin/udhcpc", "/usr/sbin/udhcpc")
    lab, lan = branch.lab, dict(PortName="1", IP=A.GW_LAN_A[4], Mask="255.255.255.192")
    gets = lambda: leased(lab.lan1, "eth0", tmp_path)
    branch.device("ModifySagLan", IPType="DHCP", StartIp="192.0.2.40", EndIp="192.0.2.50", Lease="7", **lan)
    # The client itself asks for a second.
    branch.took("ModifySagLan DHCP", "a host gets an address", lambda: gets().get("ip") == "192.0.2.40" or gets(), 3)
    says = lambda name: resolve(lab.lan1, A.GW_LAN_A[4], f"{name}.example")
    first, second = ["203.0.113.201"], ["203.0.113.202"]
    fresh = iter(range(10_000))
    answers = lambda wanted: says(f"n{next(fresh)}") == wanted
    branch.device("ModifySagUserDns", MasterDns=A.INET[4], SlaveDns="")
    branch.took("ModifySagUserDns", "names of this server", lambda: answers(first))
    branch.sag_ins("UpdateSmartAccessGatewayDns", MasterDns="203.0.113.11")
    branch.took("UpdateSmartAccessGatewayDns", "names of the other", lambda: answers(second))
    # A domain of its own, by one server; moved to the other; taken away.
    own = dict(Domain="*.own.example", OutboundPortType="PhysicalPort", OutboundPortName="0")
    forward = branch.sag_ins("AddSmartAccessGatewayDnsForward", MasterIp=A.INET[4], **own)["Data"]["InstanceId"]
    branch.took("AddSmartAccessGatewayDnsForward", "names of the domain", lambda: answers_own(says, fresh) == first)
    branch.sag_ins("UpdateSmartAccessGatewayDnsForward", InstanceId=forward, MasterIp="203.0.113.11", **own)
    branch.took("UpdateSmartAccessGatewayDnsForward", "of the other server", lambda: answers_own(says, fresh) == second)
    branch.sag_ins("UpdateSmartAccessGatewayDnsForward", InstanceId=forward, MasterIp=A.INET[4], **own)
    branch.soon("of the first", lambda: answers_own(says, fresh) == first)
    branch.sag_ins("DeleteSmartAccessGatewayDnsForward", InstanceId=forward)
    branch.took("DeleteSmartAccessGatewayDnsForward", "of the server of all names", lambda: answers_own(says, fresh) == second)
    branch.device("ModifySagUserDns", MasterDns="", SlaveDns="")
    branch.took("ModifySagUserDns without servers", "no names", lambda: not says(f"n{next(fresh)}"), 2)
    branch.device("ModifySagLan", IPType="STATIC", **lan)
    branch.took("ModifySagLan STATIC", "no addresses", lambda: not gets(), 3)


def answers_own(says, fresh):
    return says(f"n{next(fresh)}.own")


def with_frr():
    if not (FRR_DIR / "frr-reload.py").exists():
        pytest.skip(f"frr and frr-pythontools are not installed {SETUP}")


def test_bgp(branch, daemons):
    with_frr()
    lab, bgp = branch.lab, dict(RouterId=A.GW_LAN_A[4], LocalAs=65001, HoldTime=3, KeepAlive=1)
    reached = lambda: pings(lab.lan1, BEHIND_LINE)
    with address(lab.pop, f"{BEHIND_LINE}/32"):
        FrrDaemons(daemons, lab.pop, {"zebra": "", "bgpd": POP_BGP})
        assert not reached()
        branch.sag_ins("UpdateSmartAccessGatewayGlobalRouteProtocol", RouteProtocol="BGP")
        branch.sag_ins("UpdateSmartAccessGatewayBgpRoute", **bgp)
        neighbor = dict(PortName="3", RemoteIp=A.POP_LINK[4], RemoteAs="65002")
        branch.sag_ins("UpdateSmartAccessGatewayPortRouteProtocol", RouteProtocol="BGP", **neighbor)
        branch.took("UpdateSmartAccessGateway{GlobalRouteProtocol,BgpRoute,PortRouteProtocol} BGP",
                    "a learned network is reached (bgpd's start and session)", reached, DAEMONS)
        branch.device("ModifySagPortRouteProtocol", PortName="3", RouteProtocol="STATIC")
        branch.took("ModifySagPortRouteProtocol STATIC", "the route is gone", lambda: not reached(), 3)
        branch.device("ModifySagPortRouteProtocol", RouteProtocol="BGP", **neighbor)
        branch.took("ModifySagPortRouteProtocol BGP", "it is back (session)", reached, DAEMONS)
        branch.device("ModifySagRouteProtocolBgp", **{**bgp, "LocalAs": 65009})
        branch.took("ModifySagRouteProtocolBgp, another AS", "the neighbor refuses it", lambda: not reached(), 3)
        branch.device("ModifySagRouteProtocolBgp", **bgp)
        branch.took("ModifySagRouteProtocolBgp back", "it is back (session)", reached, DAEMONS)
        branch.device("ModifySagGlobalRouteProtocol", RouteProtocol="STATIC")
        branch.took("ModifySagGlobalRouteProtocol STATIC", "the route is gone", lambda: not reached(), 3)


def test_ospf(branch, daemons):
    with_frr()
    lab = branch.lab
    ospf = dict(RouterId=A.GW_LAN_A[4], AreaId=86, HelloTime=1, DeadTime=3, AuthenticationType="NONE")
    reached = lambda: pings(lab.lan1, BEHIND_LAN)
    with address(lab.lan2, f"{BEHIND_LAN}/32"):
        FrrDaemons(daemons, lab.lan2, {"zebra": "", "ospfd": LAN_OSPF})
        assert not reached()
        branch.device("ModifySagGlobalRouteProtocol", RouteProtocol="OSPF")
        branch.sag_ins("UpdateSmartAccessGatewayOspfRoute", **ospf)
        branch.sag_ins("UpdateSmartAccessGatewayPortRouteProtocol", PortName="4", RouteProtocol="OSPF")
        branch.took("ModifySagGlobalRouteProtocol, UpdateSmartAccessGateway{OspfRoute,PortRouteProtocol} OSPF",
                    "a learned network is reached (DeadTime 3 s)", reached, DAEMONS)
        branch.device("ModifySagRouteProtocolOspf", **{**ospf, "AreaId": 87})
        branch.took("ModifySagRouteProtocolOspf, another area", "no neighbor", lambda: not reached(), 5)
        branch.device("ModifySagRouteProtocolOspf", **ospf)
        branch.took("ModifySagRouteProtocolOspf back", "it is back (DeadTime 3 s)", reached, DAEMONS)
        branch.device("ModifySagPortRouteProtocol", PortName="4", RouteProtocol="STATIC")
        branch.took("ModifySagPortRouteProtocol STATIC", "the route is gone", lambda: not reached(), 3)
        branch.sag_ins("UpdateSmartAccessGatewayGlobalRouteProtocol", RouteProtocol="STATIC")
        branch.soon("OSPF has ended", lambda: not lab.gw.ip("-4 route show proto ospf").stdout, 3)
