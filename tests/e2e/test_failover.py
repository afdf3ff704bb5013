"""A master dies and comes back under keepalived: connections through source NAT go on, by the same addresses and ports."""

import contextlib

import pytest

from harness.failover import VIRTUAL_MAC, Connections, Keepalived, Probe, power_off, power_on
from harness.pair import CLIENT, SERVER, Pair
from harness.waiting import within

pytestmark = pytest.mark.sag

INTERVAL = 0.3
# The master is missed after three intervals (RFC 5798, 6.1); the rest is for a machine that has other work.
OUTAGE = 3 * INTERVAL + 1.0


@pytest.fixture(params=[False, True], ids=["addresses", "virtual routers"])
def pair(request):
    with contextlib.ExitStack() as stack:
        made = Pair()
        stack.callback(made.down)
        for member in made.members:
            member.start()
            member.keepalived = Keepalived(member, INTERVAL, f"{made.sagctl} --socket {member.run_dir}/vcpe.sock ha --check", virtual=request.param)
            stack.callback(member.keepalived.end)
        within(10, "both gateways have everything", lambda: all(in_sync(m) for m in made.members))
        if request.param:
            # The client has the routers' Ethernet addresses once and for all, and its IPv6 router by its link-local address.
            made.client.ip(f"-6 route replace {SERVER[6]} via fe80::1 dev br0")
            for router, family in (("10.1.0.1", 4), ("fe80::1", 6), ("fd01::1", 6)):
                made.client.ip(f"neigh replace {router} lladdr {VIRTUAL_MAC[family]} dev br0 nud permanent")
        for member in made.members:
            member.keepalived.start()
        within(5, "the first one is the master", made.a.keepalived.is_master, made.a.keepalived.said)
        yield made


def in_sync(member):
    ha = member.ha()
    return ha["in_sync"] and ha["peer_in_sync"]


def sessions(member):
    ha = member.ha()
    return ha["own"] + ha["replicas"]


def test_a_master_dies_and_comes_back(pair):
    a, b = pair.a, pair.b
    with contextlib.ExitStack() as stack:
        probe = Probe(pair)
        stack.callback(probe.close)
        within(5, "the flow is answered", lambda: probe.take()[1])
        flows = {family: Connections(pair, count, family) for family, count in ((4, 100), (6, 20))}
        for one in flows.values():
            stack.callback(one.close)
        assert flows[4].seen_as == {"198.51.100.1"} and flows[6].seen_as == {CLIENT[6]}
        within(5, "the other one has a copy of each", lambda: sessions(b) >= 121, b.ha)
        probe.take()

        power_off(a, a.keepalived)
        within(5, "the other one is the master", b.keepalived.is_master, b.keepalived.said)
        for one in flows.values():
            one.answer_again(10)
        died, seen = probe.take()
        assert died < OUTAGE and len(seen) == 1

        # It has lost everything, and takes the addresses back when it has the sessions.
        a.wipe()
        power_on(a)
        a.keepalived.start()
        within(3, "keepalived waits for the gateway", lambda: "ready" in a.keepalived.said())
        assert not a.keepalived.is_master()
        a.start()
        within(10, "it is the master again", a.keepalived.is_master, a.keepalived.said)
        assert a.ha()["totals"]["installed"] >= 121, a.ha()
        for one in flows.values():
            one.answer_again(10)
        back, seen = probe.take()
        assert back < OUTAGE and len(seen) == 1
        assert not flows[4].lost and not flows[6].lost
