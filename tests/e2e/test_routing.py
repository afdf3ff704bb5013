"""BGP and OSPF by calls of the official SDK: FRR and BIRD at the other ends, traffic by what is learned from them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, SdkError, api_names, cloud_of, pings, within
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.net import run
from harness.routers import FRR_DIR, SETUP, BirdDaemon, FrrDaemons

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

KEY = "s3cr3t-key"
# Behind the leased line's router, announced by BGP alone; a network that the Internet's router announces, too.
LINE, LINE6, WAN = "10.77.0.0/24", "2001:db8:ef::/64", "10.78.0.0/24"
BEHIND = ["10.77.0.1", "2001:db8:ef::1"]
# Prefixes that flap, of each family, and how often, once a second, in each of two rounds.
FLAPPING, FLAPS = {4: 10_000, 6: 2_000}, int(os.environ.get("SAG_FLAPS", "3"))
# Behind the routers of the two LANs, by OSPF.
BEHIND_LAN = {"lan1": "10.81.0.1", "lan2": "10.82.0.1"}


@pytest.fixture(scope="module")
def cloud(lab, tmp_path_factory):
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as it:
        yield it


@pytest.fixture(scope="module")
def place(lab):
    """The directory of the routing service: FRR's user has to reach it."""
    return lab.run_dir / "routing"


@pytest.fixture(scope="module")
def branch(lab, gateway, cloud, place):
    if not (FRR_DIR / "frr-reload.py").exists():
        pytest.skip(f"frr and frr-pythontools are not installed {SETUP}")
    gateway.ensure(api_names(lab_config()))
    cloud.start()
    sag, sn = cloud.gateway()
    key = cloud.folder / "neighbor.key"
    key.touch(mode=0o600)
    key.write_text(KEY + "\n")
    agent = Agent(lab, cloud, sag, sn)
    agent.sections = f'[routing]\ndir = "{place}"\nbfd = true\nmax_prefixes = {FLAPPING[4] * 2}\n' + "".join(
        f'[[routing.neighbor]]\naddress = "{address}"\nremote_as = {number}\nkey_file = "{key}"\n'
        for address, number in ((A.POP_LINK[6], 65002), (A.WAN_ROUTER[4], 65003))
    )
    agent.start()
    it = Branch(lab, cloud, agent, sag, sn)
    within(10, "first contact", it.in_force, agent.tail)
    yield it
    agent.stop()
    assert not daemons_of(place), "the daemons end with the agent"


@pytest.fixture
def behind(lab):
    """Hosts behind the other routers, to which only learned routes lead."""
    places = [(lab.pop, BEHIND[0], 32), (lab.pop, BEHIND[1], 128), *((getattr(lab, n), a, 32) for n, a in BEHIND_LAN.items())]
    for ns, address, bits in places:
        ns.ip(f"addr add {address}/{bits} dev lo")
    yield
    for ns, address, bits in places:
        ns.ip(f"addr del {address}/{bits} dev lo")


def daemons_of(place):
    """Processes of FRR by name, of the service in this directory."""
    found = {}
    for name in ("zebra", "bgpd", "ospfd", "bfdd"):
        with contextlib.suppress(OSError, ValueError):
            pid = int((place / "run" / f"{name}.pid").read_text())
            if str(place / "run").encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found[name] = pid
    return found


def routing(branch, place):
    """What sagctl says."""
    output = branch.lab.gw.out([branch.lab.sagctl, "--json", "routing", "--dir", place])
    return json.loads(output)


def up(branch, place):
    return {n["Address"] for n in routing(branch, place)["Neighbors"] if n["Up"]}


def learned(lab, net, proto):
    family = "-6" if ":" in net else "-4"
    return lab.gw.ip(f"{family} route show {net} proto {proto}").stdout


def listed(branch, net):
    """The route's protocol, as the API says it."""
    rows = branch.device("DescribeSagRouteList")["Routes"]
    return [(r["RouteProtocol"], r["PortName"]) for r in rows if r["DestinationCidr"] == net]


def state(branch, place):
    """Routes by the kernel, by the gateway, by bgpd; for failures."""
    lab = branch.lab
    vtysh = ["vtysh", "--vty_socket", place / "run"]
    return "\n".join((
        lab.gw.ip("-4 route").stdout, lab.gw.ip("-6 route").stdout, lab.gw.out([lab.sagctl, "--socket", lab.socket, "routes"]),
        *(run([*vtysh, "-c", what], check=False).stdout for what in ("show bgp ipv4 unicast", "show bgp ipv6 unicast", "show bfd peers")),
    ))


POP_BGP = f"""router bgp 65002
 bgp router-id {A.POP_LINK[4]}
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 1 3
 neighbor {A.GW_EXPRESS[4]} remote-as 65001
 neighbor {A.GW_EXPRESS[4]} timers connect 1
 neighbor {A.GW_EXPRESS[4]} bfd
 neighbor {A.GW_EXPRESS[6]} remote-as 65001
 neighbor {A.GW_EXPRESS[6]} password {KEY}
 neighbor {A.GW_EXPRESS[6]} timers connect 1
 address-family ipv6 unicast
  neighbor {A.GW_EXPRESS[6]} activate
  network {LINE6}
 exit-address-family
 address-family ipv4 unicast
  no neighbor {A.GW_EXPRESS[6]} activate
  network {LINE}
  network 192.0.2.10/32
 exit-address-family
"""
WAN_BGP = f"""router id {A.WAN_ROUTER[4]};
log stderr all;
protocol device {{ scan time 1; }}
protocol static {{ ipv4; route {WAN} blackhole; }}
protocol bfd {{ interface "*" {{ interval 300 ms; multiplier 3; }}; }}
protocol bgp branch {{
  bfd on;
  local {A.WAN_ROUTER[4]} as 65003;
  neighbor {A.GW_WAN[4]} as 65001;
  password "THE-KEY";
  connect retry time 1; connect delay time 1; error wait time 1, 2; hold time 3;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""


@pytest.fixture
def neighbors(lab, daemons, behind):
    """FRR at the end of the leased line, for both families, BIRD as the Internet's router; all but one with a key."""
    pop = FrrDaemons(daemons, lab.pop, {"zebra": "", "bfdd": "", "bgpd": POP_BGP})
    wan = BirdDaemon(daemons, lab.wan, WAN_BGP.replace("THE-KEY", KEY))
    return pop, wan


def with_bgp(branch):
    branch.device("ModifySagGlobalRouteProtocol", RouteProtocol="BGP")
    branch.device("ModifySagRouteProtocolBgp", RouterId=A.GW_LAN_A[4], LocalAs=65001, HoldTime=3, KeepAlive=1)
    branch.device("ModifySagPortRouteProtocol", PortName="3", RouteProtocol="BGP", RemoteIp=A.POP_LINK[4], RemoteAs="65002")


def without(branch, place):
    """Undone by one call: no daemon, no route."""
    branch.device("ModifySagGlobalRouteProtocol", RouteProtocol="STATIC")
    within(5, "no daemon is left", lambda: not daemons_of(place), branch.agent.tail)
    for family in (4, 6):
        for proto in ("bgp", "ospf"):
            assert not branch.lab.gw.ip(f"-{family} route show proto {proto}").stdout
    assert not any(pings(branch.lab.lan1, a) for a in (BEHIND[0], BEHIND_LAN["lan2"]))


def announced_to_pop(pop, family="ipv4"):
    table = pop.show("bgpd", f"bgp {family} unicast").get("routes", {})
    return {net for net, paths in table.items() if any("65001" in p.get("path", "") for p in paths)}


def announced_to_wan(wan):
    lines = wan.show("route protocol branch").splitlines()
    return {line.split()[0] for line in lines if "unicast" in line and "/" in line.split()[0]}


OWN4, OWN6 = {"192.0.2.0/26", "192.0.2.64/26"}, {"2001:db8:1::/64", "2001:db8:2::/64"}


def test_bgp(branch, place, neighbors, daemons, lab):
    pop, wan = neighbors
    log = lambda: f"{branch.agent.tail(10)}\n{daemons.tail()}\n{state(branch, place)}"
    assert not any(pings(lab.lan1, host) for host in BEHIND)
    with_bgp(branch)
    every = {A.POP_LINK[4], A.POP_LINK[6], A.WAN_ROUTER[4]}
    within(10, "all sessions", lambda: up(branch, place) == every, log)
    for net, host in zip((LINE, LINE6), BEHIND):
        within(3, f"{net} is learned", lambda n=net: learned(lab, n, "bgp"), log)
        within(1, f"{host} is reached", lambda h=host: pings(lab.lan1, h), log)
    # The branch's networks, and nothing else: no default route of the WAN, nothing of one neighbor to the other.
    within(3, "the branch is announced to FRR", lambda: announced_to_pop(pop) == OWN4, lambda: f"{announced_to_pop(pop)}{log()}")
    within(3, "the branch is announced to BIRD", lambda: announced_to_wan(wan) == OWN4, lambda: f"{announced_to_wan(wan)}{log()}")
    within(3, "and of IPv6", lambda: announced_to_pop(pop, "ipv6") == OWN6, lambda: f"{announced_to_pop(pop, 'ipv6')}{log()}")
    assert not learned(lab, "192.0.2.10/32", "bgp"), "nobody outside takes an address of the branch"
    within(3, "the API lists it", lambda: listed(branch, LINE) == [("BGP", "3")], log)
    row = lambda: next(p for p in branch.device("DescribeSagPortRouteProtocolList")["Ports"] if p["PortName"] == "3")
    within(3, "the API has the neighbor", lambda: row().get("NeighborIp") == A.POP_LINK[4], log)
    assert branch.device("DescribeSagRouteProtocolBgp")["TaskStates"][0]["State"] == "Succeed"
    # It fits a terminal.
    table = lab.gw.out([lab.sagctl, "routing", "--dir", place])
    assert "Established" in table and "bgpd" in table and max(map(len, table.splitlines())) <= 100, table
    bfd_misses_who_is_silent(branch, place, daemons, lab, log)
    withdrawn(branch, pop, lab, log)
    a_daemon_that_dies_comes_back(branch, place, lab, every, log)
    a_wrong_key_does_not_come_up(branch, place, lab, wan, log)
    without(branch, place)


def bfd_misses_who_is_silent(branch, place, daemons, lab, log):
    """FRR and BIRD: before the hold time is over. The session of the other one stays."""
    states = lambda: {n["Address"]: n["Bfd"] for n in routing(branch, place)["Neighbors"]}
    both = {A.POP_LINK[4]: LINE, A.WAN_ROUTER[4]: WAN}
    within(5, "BFD with FRR and BIRD", lambda: all(states().get(a) == "up" for a in both), lambda: f"{states()}{log()}")
    silent = {A.POP_LINK[4]: ["-bfdd"], A.WAN_ROUTER[4]: [f"-{lab.wan.name}"]}
    for address, net in both.items():
        stopped = [p for name, p in daemons.named.items() if any(name.endswith(end) for end in silent[address])]
        assert len(stopped) == 1
        stopped[0].send_signal(signal.SIGSTOP)
        try:
            within(1.8, f"BFD misses {address}", lambda n=net: not learned(lab, n, "bgp"), log)
            assert all(learned(lab, n, "bgp") for n in both.values() if n != net)
        finally:
            stopped[0].send_signal(signal.SIGCONT)
        within(15, f"{address} is back", lambda a=address, n=net: a in up(branch, place) and learned(lab, n, "bgp"), log)


def withdrawn(branch, pop, lab, log):
    """A network that a neighbor withdraws; one that the branch does."""
    pop.vtysh("bgpd", "configure", "router bgp 65002", "address-family ipv4 unicast", f"no network {LINE}")
    within(2, "withdrawn by the neighbor", lambda: not learned(lab, LINE, "bgp") and not pings(lab.lan1, BEHIND[0]), log)
    pop.vtysh("bgpd", "configure", "router bgp 65002", "address-family ipv4 unicast", f"network {LINE}")
    within(2, "announced again", lambda: pings(lab.lan1, BEHIND[0]), log)
    strategy = dict(SourceType="local", RouteSource="STATIC", DestCidrBlock="192.0.2.64/26")
    branch.mine("ModifyRouteDistributionStrategy", RouteDistribution="no_publish", **strategy)
    within(3, "withdrawn by the branch", lambda: announced_to_pop(pop) == {"192.0.2.0/26"}, log)
    assert pings(lab.lan1, BEHIND[0]), "the session stays"
    branch.mine("DeleteRouteDistributionStrategy", **strategy)
    within(3, "announced again by the branch", lambda: announced_to_pop(pop) == OWN4, log)


def a_daemon_that_dies_comes_back(branch, place, lab, every, log):
    """zebra without a packet lost: its routes stay until its successor has them again. The others start anew with it."""
    before = daemons_of(place)
    ping = lab.lan1.popen(["ping", "-n", "-i", "0.05", "-q", BEHIND[0]])
    os.kill(before["zebra"], signal.SIGKILL)
    again = lambda name: daemons_of(place).get(name) not in (None, before[name])
    within(5, "both run again", lambda: again("zebra") and again("bgpd"), log)
    within(10, "all sessions anew", lambda: up(branch, place) == every, log)
    within(3, "all routes anew", lambda: all(learned(lab, n, "bgp") for n in (LINE, LINE6, WAN)), log)
    ping.send_signal(signal.SIGINT)
    said = ping.communicate(timeout=5)[0]
    assert " 0% packet loss" in said, said
    before = daemons_of(place)
    os.kill(before["bgpd"], signal.SIGKILL)
    within(5, "bgpd runs again", lambda: again("bgpd"), log)
    within(10, "all sessions again", lambda: up(branch, place) == every, log)
    within(3, "it is reached again", lambda: all(pings(lab.lan1, host) for host in BEHIND), log)
    restarts = {d["Name"]: d["Restarts"] for d in routing(branch, place)["Daemons"]}
    assert restarts == {"zebra": 1, "bfdd": 0, "bgpd": 1}


def a_wrong_key_does_not_come_up(branch, place, lab, wan, log):
    """The other neighbor is not concerned."""
    wan.conf.write_text(WAN_BGP.replace("THE-KEY", "another"))
    wan.ctl("configure")
    within(5, "the session ends", lambda: up(branch, place) == {A.POP_LINK[4], A.POP_LINK[6]}, log)
    within(3, "its route goes", lambda: not learned(lab, WAN, "bgp"), log)
    assert all(pings(lab.lan1, host) for host in BEHIND)
    wan.conf.write_text(WAN_BGP.replace("THE-KEY", KEY))
    wan.ctl("configure")
    within(10, "the right key", lambda: A.WAN_ROUTER[4] in up(branch, place) and learned(lab, WAN, "bgp"), log)


LAN_FRR = """interface eth0
 ip ospf hello-interval 1
 ip ospf dead-interval 3
 ip ospf retransmit-interval 1
 ip ospf authentication message-digest
 ip ospf message-digest-key 7 md5 {key}
 ip ospf area 86
exit
interface lo
 ip ospf area 86
 ip ospf passive
exit
router ospf
 ospf router-id {id}
 timers throttle lsa all 1000
exit
"""
LAN_BIRD = """router id {id};
log stderr all;
protocol device {{ scan time 1; }}
protocol kernel {{ ipv4 {{ export all; }}; learn off; }}
protocol bfd {{ interface "eth0" {{ interval 300 ms; multiplier 3; }}; }}
protocol ospf v2 ospf4 {{
  ipv4 {{ import all; }};
  area 86 {{
    interface "eth0" {{ hello 1; dead 3; retransmit 2; bfd yes; authentication cryptographic; password "{key}" {{ id 7; algorithm keyed md5; }}; }};
    stubnet {net};
  }};
}}
"""


def with_ospf(branch, key=KEY):
    branch.device("ModifySagRouteProtocolOspf", RouterId=A.GW_LAN_A[4], AreaId=86, HelloTime=1, DeadTime=3, AuthenticationType="MD5",
                  Md5KeyId=7, Md5Key=key)


def test_ospf_on_two_lans(branch, place, daemons, behind, lab):
    log = lambda: f"{branch.agent.tail(40)}\n{daemons.tail()}\n{bird.show('ospf interface')}\n{bird.show('ospf neighbors')}\n{bird.show('protocols all')}"
    bird = BirdDaemon(daemons, lab.lan1, LAN_BIRD.format(id=A.LAN1[4], key=KEY, net=f"{BEHIND_LAN['lan1']}/32"))
    FrrDaemons(daemons, lab.lan2, {"zebra": "", "ospfd": LAN_FRR.format(id=A.LAN2[4], key=KEY)})
    branch.device("ModifySagGlobalRouteProtocol", RouteProtocol="OSPF")
    with_ospf(branch)
    for port in ("1", "4"):
        branch.device("ModifySagPortRouteProtocol", PortName=port, RouteProtocol="OSPF")
    with pytest.raises(SdkError) as refused:
        branch.device("ModifySagPortRouteProtocol", PortName="3", RouteProtocol="OSPF")
    assert refused.value.code == "Sag.EccRouteTypeError"
    full = {A.LAN1[4], A.LAN2[4]}
    within(15, "both are full", lambda: up(branch, place) == full, log)
    for name, host in BEHIND_LAN.items():
        within(5, f"{host} is learned", lambda h=host: learned(lab, h, "ospf"), log)
        other = lab.lan2 if name == "lan1" else lab.lan1
        within(1, f"{host} is reached", lambda h=host, o=other: pings(o, h), log)
    within(3, "the API lists it", lambda: listed(branch, f"{BEHIND_LAN['lan2']}/32") == [("OSPF", "4")], log)
    neighbors = lambda: {p["PortName"]: p.get("NeighborIp") for p in branch.device("DescribeSagPortRouteProtocolList")["Ports"]}
    within(3, "the API has the neighbors", lambda: neighbors() | {"1": A.LAN1[4], "4": A.LAN2[4]} == neighbors(), log)
    # The other router learns of this LAN, and not of the way to the Internet.
    theirs = lambda: lab.lan2.ip("-4 route show proto ospf").stdout
    within(3, "the branch is announced", lambda: "192.0.2.0/26" in theirs(), log)
    assert "default" not in theirs() and "192.0.2.128" not in theirs(), theirs()
    # Who is silent is missed by BFD, before OSPF itself would; the others, who have no BFD, stay.
    states = lambda: {n["Address"]: n["Bfd"] for n in routing(branch, place)["Neighbors"]}
    within(5, "BFD is up", lambda: states()[A.LAN1[4]] == "up", lambda: f"{states()}{log()}{state(branch, place)}")
    bird.process.send_signal(signal.SIGSTOP)
    within(1.8, "BFD misses it", lambda: not learned(lab, BEHIND_LAN["lan1"], "ospf"), log)
    assert up(branch, place) >= {A.LAN2[4]}
    bird.process.send_signal(signal.SIGCONT)
    within(15, "both are full again", lambda: up(branch, place) == full, log)
    # A key that does not fit, and the right one again.
    with_ospf(branch, "another")
    within(8, "no neighbor with another key", lambda: not up(branch, place), log)
    within(3, "its routes go", lambda: not pings(lab.lan1, BEHIND_LAN["lan2"]), log)
    with_ospf(branch)
    within(15, "both are full again", lambda: up(branch, place) == full, log)
    within(5, "it is reached again", lambda: pings(lab.lan1, BEHIND_LAN["lan2"]), log)
    # What OSPF cannot have is told, and OSPF does not run without a key.
    branch.device("ModifySagRouteProtocolOspf", RouterId=A.GW_LAN_A[4], AreaId=86, HelloTime=1, DeadTime=3, AuthenticationType="MD5",
                  Md5KeyId=7, Md5Key="longer-than-sixteen-characters")
    task = lambda: branch.device("DescribeSagRouteProtocolOspf")["TaskStates"][0]
    within(3, "it is an error of the device", lambda: task()["State"] == "HardwareError", log)
    assert "Md5Key has 30 characters" in task()["ErrorMessage"], task()
    within(3, "no OSPF runs", lambda: "ospfd" not in daemons_of(place), log)
    with_ospf(branch)
    within(3, "right again", lambda: task()["State"] == "Succeed", log)
    without(branch, place)


def routing_services(branch):
    """The process that keeps the service, and the service."""
    return [int(pid) for pid in run(["pgrep", "-f", f"routing-daemons.*{branch.agent.conf}"]).stdout.split()]


def routing_service(branch):
    return int(run(["pgrep", "-f", f"routing-daemons --with-parent.*{branch.agent.conf}"]).stdout)


def test_killed_agents_leave_nothing(branch, place, neighbors, daemons, lab):
    """The agent is killed: its service ends the daemons, and their routes go. The next one starts them from what it has
    written down."""
    log = lambda: f"{branch.agent.tail(40)}\n{daemons.tail()}"
    with_bgp(branch)
    within(10, "it is reached", lambda: pings(lab.lan1, BEHIND[0]), log)
    branch.agent.kill()
    within(5, "no daemon is left", lambda: not daemons_of(place), log)
    assert not learned(lab, LINE, "bgp")
    branch.agent.start()
    within(15, "it is reached again", lambda: pings(lab.lan1, BEHIND[0]), log)
    # The service itself is started again, and replaces the daemons that it has left behind; their routes stay meanwhile.
    before = daemons_of(place)
    ping = lab.lan1.popen(["ping", "-n", "-i", "0.05", "-q", BEHIND[0]])
    os.kill(routing_service(branch), signal.SIGKILL)
    within(15, "other daemons", lambda: daemons_of(place).keys() == before.keys() and not daemons_of(place).items() & before.items(), log)
    said = lambda: branch.device("DescribeSagRouteProtocolBgp")["TaskStates"][0]
    every = {A.POP_LINK[4], A.POP_LINK[6], A.WAN_ROUTER[4]}
    within(10, "all sessions anew", lambda: up(branch, place) == every and said()["State"] == "Succeed", log)
    ping.send_signal(signal.SIGINT)
    counts = ping.communicate(timeout=5)[0]
    assert " 0% packet loss" in counts, counts
    # All of them at once, and nobody wants BGP any more when the next agent comes.
    os.kill(branch.agent.process.pid, signal.SIGSTOP)
    everybody = [*routing_services(branch), *daemons_of(place).values()]
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in everybody:
            os.kill(pid, how)
    branch.agent.kill()
    assert learned(lab, LINE, "bgp"), "nobody has removed it"
    branch.device("ModifySagGlobalRouteProtocol", RouteProtocol="STATIC")
    branch.agent.start()
    within(10, "it is removed", lambda: not learned(lab, LINE, "bgp") and not learned(lab, LINE6, "bgp"), log)
    without(branch, place)


def test_daemons_that_hang(branch, place, neighbors, daemons, lab):
    """A daemon that does not answer is named within seconds, by the API, too, and another one takes its place. The service
    answers meanwhile, and what the others do goes on."""
    log = lambda: f"{branch.agent.tail(40)}\n{daemons.tail()}"
    with_bgp(branch)
    within(10, "it is reached", lambda: pings(lab.lan1, BEHIND[0]), log)
    before = daemons_of(place)
    os.kill(before["bgpd"], signal.SIGSTOP)
    said = lambda: branch.device("DescribeSagRouteProtocolBgp")["TaskStates"][0]
    within(10, "the API says so", lambda: "bgpd: it is stopped" in said().get("ErrorMessage", ""), log)
    assert "stopped by a signal" in lab.gw.out([lab.sagctl, "routing", "--dir", place])
    # A change meanwhile holds nobody up.
    begun = time.monotonic()
    branch.device("ModifySagRouteProtocolBgp", RouterId=A.GW_LAN_A[4], LocalAs=65001, HoldTime=4, KeepAlive=1)
    within(30, "another one", lambda: daemons_of(place).get("bgpd") not in (None, before["bgpd"]), log)
    print(f"another bgpd {time.monotonic() - begun:.1f} s after the change")
    within(20, "it is reached again", lambda: pings(lab.lan1, BEHIND[0]), log)
    after = daemons_of(place)
    assert after.pop("bgpd") and after == {n: pid for n, pid in before.items() if n != "bgpd"}, (before, after)
    within(10, "all is well", lambda: said()["State"] == "Succeed", log)
    # zebra: its routes stay until its successor has them again.
    os.kill(before["zebra"], signal.SIGSTOP)
    within(40, "another zebra", lambda: daemons_of(place).get("zebra") not in (None, before["zebra"]), log)
    assert pings(lab.lan1, BEHIND[0]), "its routes have stayed"
    within(20, "all is well", lambda: said()["State"] == "Succeed" and pings(lab.lan1, BEHIND[0]), log)
    without(branch, place)


def rss(pid):
    """KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


SPEAKER = Path(__file__).with_name("harness") / "bgp_flaps.py"


def too_many(branch, place, lab, log):
    """A neighbor that announces more than it may loses its session, and its routes with it."""
    command = [sys.executable, SPEAKER, A.POP_LINK[4], A.GW_EXPRESS[4], 65002, FLAPPING[4] * 2 + 100, 1]
    speaker = lab.pop.popen(command, stdin=subprocess.PIPE)
    try:
        states = lambda: {n["Address"]: n["State"] for n in routing(branch, place)["Neighbors"]}
        within(10, "its session ends", lambda: "PfxCt" in states()[A.POP_LINK[4]], log)
        within(5, "its routes go", lambda: not lab.gw.ip("-4 route show proto bgp").stdout, log)
        assert speaker.wait(5) != 0, "the speaker has noticed"
    finally:
        speaker.stdin.close()
        speaker.wait(5)


def flap(branch, place, lab, log):
    """Neighbors on the leased line and on the WAN port announce and withdraw all they have, some times; how many prefixes
    they have announced. Nothing of it is left in the end."""
    ends = {4: (lab.pop, A.POP_LINK[4], A.GW_EXPRESS[4], 65002), 6: (lab.wan, A.WAN_ROUTER[6], A.GW_WAN[6], 65003)}
    speakers = [
        ns.popen([sys.executable, SPEAKER, own, gw, number, FLAPPING[family], FLAPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for family, (ns, own, gw, number) in ends.items()
    ]
    try:
        within(10, "both sessions", lambda: up(branch, place) == {A.POP_LINK[4], A.WAN_ROUTER[6]}, lambda: f"{[s.poll() is not None and s.stdout.read() for s in speakers]}{log()}")
        announced = sum(int(speaker.stdout.readline()) for speaker in speakers)
        left = lambda: "".join(lab.gw.ip(f"-{family} route show proto bgp").stdout for family in FLAPPING)
        within(20, "nothing is left", lambda: not left(), lambda: f"{left()[:2000]}{log()}")
        assert up(branch, place) == {A.POP_LINK[4], A.WAN_ROUTER[6]}, "the sessions have lasted"
    finally:
        for speaker in speakers:
            speaker.stdin.close()
            speaker.wait(10)
    return announced


def test_flapping_routes(branch, place, lab):
    """Neighbors that the API names, on the leased line and on a WAN port, one of IPv6: their routes come and go once a
    second. Packets of others go on meanwhile, and nobody's memory grows."""
    log = lambda: f"{branch.agent.tail(20)}\n{json.dumps(routing(branch, place))}"
    with_bgp(branch)
    branch.device("ModifySagPortRouteProtocol", PortName="0", RouteProtocol="BGP", RemoteIp=A.WAN_ROUTER[6], RemoteAs="65003")
    within(5, "the daemons run", lambda: {"zebra", "bgpd"} <= daemons_of(place).keys(), log)
    pids = {"sag-vcpe": int(lab.pid_file.read_text()), **daemons_of(place), "sag-agent": branch.agent.process.pid}
    before = len(sagctl_routes(lab))
    ping = lab.lan1.popen(["ping", "-n", "-i", "0.02", "-q", A.INET[4]])
    memory, announced = [], []
    for _ in range(2):
        announced.append(flap(branch, place, lab, log))
        within(3, "the gateway has none of them", lambda: len(sagctl_routes(lab)) <= before, log)
        memory.append({name: rss(pid) for name, pid in pids.items()})
    ping.send_signal(signal.SIGINT)
    said = ping.communicate(timeout=5)[0]
    print(f"announced {announced}, KiB {memory}, ping: {said}")
    assert " 0% packet loss" in said, said
    assert min(announced) >= sum(FLAPPING.values()), announced
    grown = {name: memory[1][name] - kib for name, kib in memory[0].items() if memory[1][name] > kib * 1.15 + 4096}
    assert not grown, (memory, grown)
    assert pids.items() >= daemons_of(place).items(), "no daemon has ended"
    too_many(branch, place, lab, log)
    branch.device("ModifySagPortRouteProtocol", PortName="0", RouteProtocol="STATIC")
    within(5, "the neighbor on the WAN port is gone", lambda: len(routing(branch, place)["Neighbors"]) == 3, log)
    without(branch, place)


def sagctl_routes(lab):
    return lab.gw.out([lab.sagctl, "--socket", lab.socket, "routes"]).splitlines()
