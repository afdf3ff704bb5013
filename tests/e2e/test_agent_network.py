"""Two branches and a point of presence: encrypted tunnels made by calls of the API alone."""

import contextlib
import json
import time

import pytest

from harness.cloud import Agent, SdkError, cloud_of, pings, within
from harness.lan import resolve
from harness.net import run
from harness.routers import FRR_DIR, SETUP, program
from harness.sites import Sites
from harness.wire import Sniffer

pytestmark = pytest.mark.sag

ENDPOINT = "198.51.101.1:8180"
SECRET = b"in-the-clear"


@pytest.fixture(scope="module")
def sites():
    it = Sites()
    for site in it.all:
        site.start()
    if "ok" not in it.all[0].control("tunnels-key", gateway="x"):
        it.down()
        pytest.skip("this gateway has no tunnels with agreed keys")
    yield it
    it.down()


@pytest.fixture(scope="module")
def cloud(sites, tmp_path_factory):
    with cloud_of(sites, tmp_path_factory.mktemp("cloud"), ENDPOINT) as it:
        it.start()
        yield it


def names_hub(cloud, ccn, sag):
    try:
        cloud.extension("ModifyCloudConnectNetworkMember", CcnId=ccn, SmartAGId=sag, Hub="true")
    except SdkError as e:
        assert e.code == "CCN.HubNotAble", e
        return False
    return True


def test_branches_reach_each_other_by_the_point_of_presence(sites, cloud):
    ccn = cloud.call("CreateCloudConnectNetwork", Name="net")["CcnId"]
    a, b, p = sites.all
    with contextlib.ExitStack() as stack:
        ids = {}
        agents = {}
        for site in sites.all:
            sag, sn = cloud.gateway()
            ids[site.name] = sag
            cloud.call("ModifySmartAccessGateway", SmartAGId=sag, CidrBlock=site.net, RoutingStrategy="static")
            ports = {"0": "wan", "1": "lan"} if site.host else {"0": "wan"}
            agent = Agent(site, cloud, sag, sn, ports=ports, point_of_presence=site is p, optimization=site is a).start()
            stack.callback(agent.stop)
            agents[site.name] = agent
        assert not pings(a.host, b.host_address)
        for sag in ids.values():
            cloud.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
        log = lambda: "\n".join(f"{n}: {x.tail(12)}" for n, x in agents.items()) + str(a.control("tunnels"))
        within(20, "a reaches b", lambda: pings(a.host, b.host_address), log)
        # Until the owner of the network names the hub, the branches go straight to each other.
        hub = [f"ccn-{agents['p'].keys['smart_ag_sn']}"]
        names = lambda site: [t["name"] for t in site.control("tunnels")["ok"]["tunnels"]]
        within(20, "p says that it may be the hub", lambda: names_hub(cloud, ccn, ids["p"]), log)
        within(20, "both go by the point of presence", lambda: names(a) == names(b) == hub, log)
        within(20, "a reaches b by it", lambda: pings(a.host, b.host_address), log)
        with Sniffer(sites.router, "to-a") as near, Sniffer(sites.router, "to-b") as far:
            ping = ["ping", "-n", "-q", "-c", 20, "-i", "0.02", "-p", SECRET.hex(), b.host_address]
            assert " 20 received" in a.host.run(ping, check=False).stdout
            for sniffer in (near, far):
                frames = sniffer.drain()
                assert len(frames) >= 20, "the packets pass here"
                assert not [f for f in frames if SECRET in f], "plaintext on the WAN"
        row = cloud.call("DescribeSmartAccessGatewayAttribute", SmartAGId=ids["a"])
        within(15, "the cloud knows that the tunnel is up", lambda: cloud.call(
            "DescribeSmartAccessGatewayAttribute", SmartAGId=ids["a"])["IpsecStatus"] == "up", log)
        assert row["AssociatedCcnId"] == ccn
        # The operators compare fingerprints.
        told = {name: agent.status() for name, agent in agents.items()}
        assert told["a"]["HubSmartAGId"] == ids["p"]
        assert [p["Fingerprint"] for p in told["a"]["Peers"]] == [told["p"]["Fingerprint"]]
        corrects = lambda name: cloud.call("DescribeSmartAccessGatewayAttribute", SmartAGId=ids[name])["EnableOptimization"]
        within(15, "a's tunnel corrects errors", lambda: corrects("a") is True, log)
        assert corrects("b") is False
        names_through_tunnels(sites, cloud, (ids["a"], agents["a"].keys["smart_ag_sn"]), stack)
        # The point of presence restarts: its key is another, and the other members learn it.
        p.process.kill()
        p.process.wait()
        p.start()
        within(20, "a reaches b again", lambda: pings(a.host, b.host_address), log)
        # What a does not publish is not reached, and what is to be apart is apart.
        route = dict(SmartAGId=ids["a"], SourceType="local", RouteSource="STATIC", DestCidrBlock=a.net)
        cloud.call("ModifyRouteDistributionStrategy", RouteDistribution="no_publish", **route)
        within(5, "a's block is withdrawn", lambda: not pings(b.host, a.host_address), log)
        cloud.call("DeleteRouteDistributionStrategy", **route)
        within(5, "b reaches a", lambda: pings(b.host, a.host_address), log)
        cloud.call("ModifyCloudConnectNetwork", CcnId=ccn, InterworkingStatus="disable")
        within(5, "they are apart", lambda: not pings(a.host, b.host_address) and not names(b), log)
        cloud.call("ModifyCloudConnectNetwork", CcnId=ccn, InterworkingStatus="enable")
        within(20, "they have tunnels once more", lambda: names(a) == names(b) == hub, log)
        # All ends have new keys. Who waits for the other to begin does so for 30 s.
        took = within(20, "a reaches b once more", lambda: pings(a.host, b.host_address), log)
        assert took < 20
        cloud.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=ids["b"])
        within(3, "b is out", lambda: not pings(a.host, b.host_address), log)


def names_through_tunnels(sites, cloud, ids, stack):
    """A domain of a's whose DNS server is a host of b's, by calls alone: asked through the tunnel, or not at all."""
    a, b, _ = sites.all
    command = [program("dnsmasq", "/usr/sbin/dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--user=root",
               "--pid-file=", "--no-resolv", "--no-hosts", "--bind-interfaces", f"--listen-address={b.host_address}",
               "--except-interface=lo", "--address=/corp.example/10.2.0.77"]
    stack.callback(b.host.popen(command).kill)
    within(5, "b's DNS server answers", lambda: resolve(b.host, b.host_address, "a.corp.example"))
    device = dict(SagInsId=ids[0], SagSn=ids[1])
    ask = lambda name: resolve(a.host, "10.1.0.1", f"{name}.corp.example")
    whole = lambda: a.host.run(["dig", "+tries=1", "+time=1", "@10.1.0.1", "www.corp.example"], check=False).stdout
    answered = lambda name="www": ask(name) == ["10.2.0.77"]
    by_tunnel = dict(device, Domain="*.corp.example", OutboundPortType="Tunnel")
    with Sniffer(sites.router, "to-a") as wire:
        forward = cloud.call("AddSmartAccessGatewayDnsForward", MasterIp=b.host_address, **by_tunnel)["Data"]["InstanceId"]
        took = [within(3, "names of b", answered, whole)]
        change = lambda master: cloud.call(
            "UpdateSmartAccessGatewayDnsForward", InstanceId=forward, MasterIp=master, **by_tunnel)
        # No member has this server, though the WAN's router would take the query.
        change("198.51.101.1")
        took.append(within(3, "it is refused", lambda: "REFUSED" in whole(), whole))
        told = lambda: json.dumps(a.control("status"))
        within(3, "the reason is told", lambda: "no tunnel of the network leads to 198.51.101.1" in told(), told)
        change(b.host_address)
        took.append(within(3, "names of b again", answered, whole))
        # The far end is gone: queries go nowhere.
        sites.router.ip("link set to-p down")
        assert not ask("while-it-is-gone")
        state = lambda: a.control("tunnels")["ok"]["tunnels"][0]["state"]
        within(10, "the tunnel is down", lambda: state() == "down", state)
        assert not ask("while-it-is-down")
        sites.router.ip("link set to-p up")
        within(20, "and back", lambda: answered("back"), whole)
        frames = wire.drain()
        # As DNS writes it (RFC 1035 3.1): what a tells its cloud about the domain passes here, too.
        query = b"\x04corp\x07example"
        assert len(frames) > 10 and not [f for f in frames if query in f], "a query in the clear on the WAN"
    cloud.call("DeleteSmartAccessGatewayDnsForward", InstanceId=forward, **device)
    took.append(within(3, "nobody answers", lambda: not ask("www"), whole))
    print("add, update twice, delete:", ", ".join(f"{t * 1000:.0f} ms" for t in took))


class Hostile:
    """A device of another account in the network: nothing but its reports."""

    def __init__(self, cloud, owner, ccn, sites):
        self.cloud, self.wan = cloud, sites.all[2].wan
        self.sag, self.sn = cloud.gateway()
        cloud.call("ModifySmartAccessGateway", SmartAGId=self.sag, CidrBlock="10.9.0.0/24", RoutingStrategy="static")
        uid = lambda api, sag: api.call("DescribeSmartAccessGateways", SmartAGId=sag)["SmartAccessGateways"][
            "SmartAccessGateway"][0]["SmartAGUid"]
        other, mine = uid(cloud, self.sag), uid(owner, owner.gateway()[0])
        cloud.call("GrantSagInstanceToCcn", SmartAGId=self.sag, CcnInstanceId=ccn, CcnUid=mine)
        owner.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=self.sag, SmartAGUid=other)

    def report(self, sn=None, **overlay):
        good = {"Address": self.wan, "Epoch": int(time.time()), "PublicKey": "09" * 32, "Pop": False}
        state = json.dumps({"Overlay": {**good, **overlay}})
        return self.cloud.extension("ReportSmartAGState", SmartAGId=self.sag, SmartAGSn=sn or self.sn, State=state)

    def attacks(self, victim):
        """Each with a word of the refusal."""
        yield lambda: self.report(Pop=True), None
        for address in ("127.0.0.1", "0.0.0.0", "224.0.0.5", "255.255.255.255", "169.254.0.1", "x"):
            yield lambda address=address: self.report(Address=address), "address"
        yield lambda: self.report(Address=victim.wan), "is that of device"
        yield lambda: self.report(Address=victim.host_address), "inside of the block"
        yield lambda: self.report(PublicKey="zz"), "64 hexadecimal digits"
        yield lambda: self.report(PublicKey="00" * 32), "low order"
        yield lambda: self.report(Epoch=2**64 - 1), "ahead of the cloud's clock"
        yield lambda: self.report(Epoch=1), "behind"
        yield lambda: self.report(Identity="ab" * 32, Signature="ab" * 64), "signature"


def test_a_hostile_member_of_another_account(sites, cloud):
    """It reports to be the hub, others' addresses, malformed keys, huge epochs, and takes others' blocks; nobody else notices."""
    ccn = cloud.call("CreateCloudConnectNetwork", Name="attacked")["CcnId"]
    a, b, _ = sites.all
    with contextlib.ExitStack() as stack:
        agents, ids = {}, {}
        for site in (a, b):
            sag, sn = cloud.gateway()
            ids[site.name] = (sag, sn)
            cloud.call("ModifySmartAccessGateway", SmartAGId=sag, CidrBlock=site.net, RoutingStrategy="static")
            agent = Agent(site, cloud, sag, sn, ports={"0": "wan", "1": "lan"}).start()
            stack.callback(agent.stop)
            stack.callback(lambda sag=sag: cloud.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag))
            agents[site.name] = agent
            cloud.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
        log = lambda: "\n".join(f"{n}: {x.tail(12)}" for n, x in agents.items()) + str(a.control("tunnels"))
        within(20, "a reaches b", lambda: pings(a.host, b.host_address), log)
        other = cloud.account("other")
        stack.callback(other.hang_up)
        hostile = Hostile(other, cloud, ccn, sites)
        assert "Problem" not in hostile.report()["Overlay"]
        names = lambda site: [t["name"] for t in site.control("tunnels")["ok"]["tunnels"]]
        both = {f"ccn-{ids['b'][1]}", f"ccn-{hostile.sn}"}
        within(20, "a has a tunnel to each", lambda: set(names(a)) == both, log)
        ping = a.host.popen(["ping", "-n", "-q", "-i", "0.02", "-w", "60", b.host_address], stdout=-1)
        stack.callback(ping.kill)
        for attack, why in hostile.attacks(b):
            problem = attack()["Overlay"].get("Problem", "")
            assert (why or "") in problem and bool(problem) == bool(why), problem
            time.sleep(0.15)
        # Blocks of others, and a serial number that makes too long a name.
        for blocks in (b.net, "10.0.0.0/8", "10.8.0.0/24", "10.9.0.0/24,10.2.0.0/25"):
            with pytest.raises(SdkError):
                other.call("ModifySmartAccessGateway", SmartAGId=hostile.sag, CidrBlock=blocks)
        second = other.call("DescribeSmartAccessGatewayAttribute", SmartAGId=hostile.sag)["Devices"]["Device"][1]
        other.call("UnbindSerialNumber", SmartAGId=hostile.sag, SerialNumber=second["SerialNumber"])
        other.call("BindSerialNumber", SmartAGId=hostile.sag, SerialNumber="S" * 64)
        hostile.report(sn="S" * 64, Address="198.51.103.77")
        within(20, "a goes on to follow the network", lambda: any(n.startswith("ccn-SSSS") for n in names(a)), log)
        # A change by the owner is in force as ever.
        for sag, sn in ids.values():
            cloud.call("ModifySagWanSnat", SmartAGId=sag, SmartAGSn=sn, Snat="ENABLE")
            in_force = lambda sag=sag, sn=sn: cloud.call(
                "DescribeSAGDeviceInfo", SmartAGId=sag, SmartAGSn=sn)["SynStatus"] == "Synchronized"
            within(20, "the owner's change is in force", in_force, log)
        assert f"ccn-{ids['b'][1]}" in names(a) and f"ccn-{ids['a'][1]}" in names(b)
        ping.send_signal(2)
        said = ping.communicate(timeout=10)[0]
        sent, received = (int(w) for w in said.split("statistics ---")[1].split()[0:4:3])
        print(f"victims: {received} of {sent} pings answered during the attacks")
        assert received >= sent - 2, f"{said}\n{log()}"
        status = agents["a"].status()
        assert status["HubSmartAGId"] == "" and not status["Problems"], status


FLOWS = """
import socket, sys
for port in range(20000, 20200):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", port))
        s.sendto(b"x", (sys.argv[1], 9))
"""
NO_WAY = "table ip no_way { chain on { type filter hook forward priority 0; iifname %s drop; oifname %s drop; }; }"


def test_tunnels_by_every_line(sites, cloud):
    """Two branches with two lines each: a tunnel by each pair of lines shares what begins, a line that has gone silent is left,
    and by a lower priority one is a backup."""
    ccn = cloud.call("CreateCloudConnectNetwork", Name="lines")["CcnId"]
    a, b, _ = sites.all
    with contextlib.ExitStack() as stack:
        ids, agents = {}, {}
        for site in (a, b):
            site.second_line()
            sag, sn = cloud.gateway()
            ids[site.name] = dict(SmartAGId=sag, SmartAGSn=sn)
            cloud.call("ModifySmartAccessGateway", SmartAGId=sag, CidrBlock=site.net, RoutingStrategy="static")
            cloud.call("ModifySagPortRole", **ids[site.name], PortName="3", Role="WAN")
            agents[site.name] = Agent(site, cloud, sag, sn, ports={"0": "wan", "1": "lan", "3": "wan2"}).start()
            stack.callback(agents[site.name].stop)
            cloud.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
        log = lambda: "\n".join(f"{n}: {x.tail(12)}" for n, x in agents.items()) + str(a.control("tunnels"))
        tunnels = lambda site: {t["name"]: t for t in site.control("tunnels")["ok"]["tunnels"]}
        first = f"ccn-{ids['b']['SmartAGSn']}"
        all_four = {first, *(f"{first}:{pair}" for pair in ("0:3", "3:0", "3:3"))}
        answered = lambda: {n for n, t in tunnels(a).items() if t["rtt_us"] and t["state"] == "up"}
        within(20, "a tunnel by each pair of lines", lambda: answered() == all_four, log)
        paths = {(t["local"], t["remote"], t["port"]) for t in tunnels(a).values()}
        assert len(paths) == 4 and {port for *_, port in paths} == {"0", "3"}, paths

        def used():
            """The tunnels by which 200 flows leave."""
            before = {n: t["tx_packets"] for n, t in tunnels(a).items()}
            a.host.run(["python3", "-c", FLOWS, b.host_address])
            # Probes and keepalives are a few.
            return {n for n, t in tunnels(a).items() if t["tx_packets"] - before.get(n, 0) > 20}

        routes = lambda: {(r["metric"], h["port"]) for r in a.control("routes")["ok"]["routes"]
                          if r["destination"] == b.net for h in r["next_hops"]}
        shares = lambda *names: routes() == {(0, n) for n in names}
        within(10, "all have a share", lambda: shares(*all_four), lambda: f"{routes()}{log()}")
        assert used() == all_four
        # The second line of a stands in for the first one.
        cloud.call("ModifySagWan", **ids["a"], PortName="3", IPType="DHCP", Priority=20)
        by_first = {first, f"{first}:0:3"}
        within(10, "the second line is a backup", lambda: shares(*by_first), lambda: f"{routes()}{log()}")
        assert used() == by_first
        # Nobody says that the first line is silent.
        sites.router.run(["nft", "-f", "-"], input=NO_WAY % ("to-a", "to-a"))
        stack.callback(sites.router.run, ["nft", "delete", "table", "ip", "no_way"], check=False)
        start = time.monotonic()
        within(10, "its tunnels are down", lambda: not routes() & {(0, n) for n in by_first}, log)
        within(10, "a reaches b", lambda: pings(a.host, b.host_address), log)
        print(f"by the other line after {time.monotonic() - start:.1f} s")
        assert used() == all_four - by_first
        assert all(pings(a.host, b.host_address) and pings(b.host, a.host_address) for _ in range(8)), log()
        status = cloud.call("DescribeSmartAccessGatewayAttribute", SmartAGId=ids["a"]["SmartAGId"])
        assert status["IpsecStatus"] == "up"


# Behind the LAN of b, in none of its blocks: only BGP tells a of it.
BEYOND = {"net": "172.30.0.0/24", "host": "172.30.0.10"}


def with_bgp(cloud, sag, sn, number, router):
    device = dict(SmartAGId=sag, SmartAGSn=sn)
    cloud.call("ModifySagGlobalRouteProtocol", RouteProtocol="BGP", **device)
    cloud.call("ModifySagRouteProtocolBgp", RouterId=router, LocalAs=number, HoldTime=3, KeepAlive=1, **device)


def test_the_gateways_themselves_use_the_tunnels(sites, cloud):
    """The machines reach each other by the tunnels' devices; BGP between them, whose routes transit goes by; health checks
    go by the tunnel before there is a route."""
    if not (FRR_DIR / "frr-reload.py").exists():
        pytest.skip(f"frr and frr-pythontools are not installed {SETUP}")
    ccn = cloud.call("CreateCloudConnectNetwork", Name="routed")["CcnId"]
    a, b, _ = sites.all
    with contextlib.ExitStack() as stack:
        agents, ids = {}, {}
        for site, other in ((a, b), (b, a)):
            sag, sn = cloud.gateway()
            ids[site.name] = (sag, sn)
            cloud.call("ModifySmartAccessGateway", SmartAGId=sag, CidrBlock=site.net, RoutingStrategy="static")
            agent = Agent(site, cloud, sag, sn, ports={"0": "wan", "1": "lan"})
            neighbor = f'address = "10.{other.number}.0.1"\nremote_as = {65000 + other.number}\nhops = 2\n'
            agent.sections = f'[routing]\ndir = "{site.run_dir}/routing"\n[[routing.neighbor]]\n{neighbor}'
            stack.callback(agent.start().stop)
            stack.callback(lambda sag=sag: cloud.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag))
            agents[site.name] = agent
            cloud.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
        vtysh = lambda site, what: run(["vtysh", "--vty_socket", site.run_dir / "routing/run", "-c", what], check=False).stdout
        log = lambda: "\n".join(f"{n}: {x.tail(12)}" for n, x in agents.items()) + "".join(
            f"\n{s.control('tunnels')}\n{s.gw.ip('route').stdout}{s.gw.ip('addr').stdout}{vtysh(s, 'show bgp ipv4 unicast')}" for s in (a, b))
        within(20, "a reaches b", lambda: pings(a.host, b.host_address), log)
        within(5, "so does the machine itself", lambda: pings(a.gw, b.host_address) and pings(b.gw, "10.1.0.1"), log)
        for site in (a, b):
            with_bgp(cloud, *ids[site.name], 65000 + site.number, f"10.{site.number}.0.1")
        device = a.control("tunnels")["ok"]["tunnels"][0]["device"]["name"]
        routes = lambda net: a.gw.ip(f"route show {net}").stdout.splitlines()
        own = [line for line in routes(b.net) if "proto 91" in line]
        assert len(own) == 1 and f"dev {device} " in own[0], routes(b.net)
        # What is behind the LAN of b.
        b.host.ip(f"addr add {BEYOND['host']}/32 dev lo")
        stack.callback(lambda: b.host.ip(f"addr del {BEYOND['host']}/32 dev lo"))
        beyond = dict(SmartAGId=ids["b"][0], SmartAGSn=ids["b"][1], PortName="1", DestinationCidr=BEYOND["net"], NextHop=b.host_address, Vlan="0")
        cloud.call("CreateSagStaticRoute", **beyond)
        within(15, "a learns of it", lambda: any("proto bgp" in line and device in line for line in routes(BEYOND["net"])), log)
        within(2, "it is reached", lambda: pings(a.host, BEYOND["host"]), log)
        # Routes of the gateway are in the kernel beside those of FRR, which neither replaces nor announces them.
        assert routes(b.net) == own, "b announces it by BGP, too"
        assert {w for w in vtysh(b, "show bgp ipv4 unicast neighbors 10.1.0.1 routes").split() if "/" in w} == {a.net}
        cloud.call("DeleteSagStaticRoute", **beyond)
        within(5, "it is withdrawn", lambda: not routes(BEYOND["net"]) and not pings(a.host, BEYOND["host"]), log)
        checks_go_by_the_tunnel(cloud, stack, ids, (a, b), log)


def checks_go_by_the_tunnel(cloud, stack, ids, sites, log):
    """A route that is published while its health check succeeds: the first request goes before there is a route."""
    a, b = sites
    sag = ids["a"][0]
    check = cloud.call("CreateHealthCheck", SmartAGId=sag, Name="far", Type="ICMP_ECHO", SrcIpAddr="10.1.0.1",
                       DstIpAddr=b.host_address, ProbeInterval=1000, ProbeCount=1, ProbeTimeout=300, FailCountThreshold=2,
                       RttThreshold=-1, RttFailThreshold=1)["InstanceId"]
    route = dict(SmartAGId=sag, SourceType="cloud", RouteSource=ids["b"][0], DestCidrBlock=b.net)
    b.host.ip("link set eth0 down")
    stack.callback(lambda: cloud.call("DeleteHealthCheck", SmartAGId=sag, HcInstanceId=check))
    stack.callback(lambda: cloud.call("DeleteRouteDistributionStrategy", **route))
    cloud.call("ModifyRouteDistributionStrategy", RouteDistribution="no_publish_and_publish_on_health_success", HcInstanceId=check, **route)
    has_route = lambda: any(r["destination"] == b.net for r in json.loads(
        a.gw.out([a.sagctl, "--socket", a.socket, "--json", "routes"]))["routes"])
    within(5, "there is no route", lambda: not has_route(), log)
    b.host.ip("link set eth0 up")
    b.host.ip(f"route replace default via 10.{b.number}.0.1")
    within(5, "the check finds it well, and the route is back", lambda: pings(a.host, b.host_address), log)
