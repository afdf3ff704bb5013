"""Two branches and a point of presence: encrypted tunnels made by calls of the API alone."""

import contextlib

import pytest

from harness.cloud import Agent, cloud_of, pings, within
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
        # Until the point of presence has said that it is one, the branches go straight to each other.
        hub = [f"ccn-{agents['p'].keys['smart_ag_sn']}"]
        names = lambda site: [t["name"] for t in site.control("tunnels")["ok"]["tunnels"]]
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
        corrects = lambda name: cloud.call("DescribeSmartAccessGatewayAttribute", SmartAGId=ids[name])["EnableOptimization"]
        within(15, "a's tunnel corrects errors", lambda: corrects("a") is True, log)
        assert corrects("b") is False
        # The point of presence restarts: its key is another, and the other members learn it.
        p.process.kill()
        p.process.wait()
        p.start()
        within(20, "a reaches b again", lambda: pings(a.host, b.host_address), log)
        cloud.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=ids["b"])
        within(3, "b is out", lambda: not pings(a.host, b.host_address), log)
