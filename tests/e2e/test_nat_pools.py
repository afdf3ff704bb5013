"""Source NAT to several addresses: a host has one of them, for all that it does, over reload and restart."""

import re

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config, seen_as, table, talk
from harness.port_counters import restarted

pytestmark = pytest.mark.sag

INET, NARROW, LAN1 = A.INET[4], A.NARROW[4], A.LAN1[4]
# Routed to the gateway, which does not have them.
POOL = [f"203.0.113.{n}" for n in range(208, 212)]
# On the link to the router.
ON_LINK = "198.51.100.40"
HOSTS = [f"192.0.2.{n}" for n in range(20, 32)]


def pool_config(*pool, **keys):
    return nat_config(table("snat", id="eips", **{"type": "Internet", **keys}, cidr_block="192.0.2.0/24", pool=list(pool)))


@pytest.fixture
def routed(lab, hidden):
    lab.wan.ip("route replace 203.0.113.208/30 via 198.51.100.2")
    for host in HOSTS:
        lab.lan1.ip(f"addr replace {host}/26 dev eth0")
    yield lab
    lab.wan.ip("route del 203.0.113.208/30")
    for host in HOSTS:
        lab.lan1.ip(f"addr del {host}/26 dev eth0")


@pytest.fixture
def gw(gw_cleared, routed):
    return gw_cleared(pool_config("203.0.113.208/30"))


def address_of(lab, peers, server, host, port=4000):
    return seen_as(peers.udp(lab.lan1, host, port), server, (INET, 5500))[0]


def test_hosts_are_paired_with_addresses(gw, lab, peers):
    server, listener, other = peers.udp(lab.inet, INET, 5500), peers.listen(lab.inet, INET, 5501), peers.udp(lab.inet, NARROW, 5502)
    home = {}
    for host in HOSTS:
        home[host] = address_of(lab, peers, server, host)
        assert seen_as(peers.udp(lab.lan1, host), other, (NARROW, 5502))[0] == home[host]
        client = peers.connect(lab.lan1, (INET, 5501), source=(host, 0))
        accepted, peer = peers.accept(listener)
        assert peer[0] == home[host]
        talk(client, accepted, 50_000)
    assert set(home.values()) <= set(POOL) and len(set(home.values())) >= 3, home
    shown = {p["address"]: p for p in gw.ctl("nat")["pools"]}
    for address in set(home.values()):
        assert shown[address]["source"] == "eips" and shown[address]["udp"]["used"] >= 2, shown[address]
    entry = next(e for e in gw.ctl("nat")["entries"] if e["id"] == "eips")
    assert entry["sessions"] == 3 * len(HOSTS) and entry["type"] == "Internet", entry
    assert lab.lan1.run(["ping", "-c2", "-i0.2", "-I", HOSTS[0], INET]).returncode == 0


def test_pairs_outlive_restart_and_reload(gw, lab, peers, accounting):
    """Established flows by XDP all the while."""
    server = peers.udp(lab.inet, INET, 5500)
    clients = {host: peers.udp(lab.lan1, host, 4000) for host in HOSTS}
    seen = {host: seen_as(c, server, (INET, 5500)) for host, c in clients.items()}
    gw.kill()
    restarted(gw, accounting, pool_config("203.0.113.208/30"), quiet=False)
    assert {host: seen_as(c, server, (INET, 5500)) for host, c in clients.items()} == seen
    # One more address: who has sessions stays, the new session too.
    gw.reload(pool_config("203.0.113.208/30", "203.0.113.200"))
    assert {host: seen_as(c, server, (INET, 5500)) for host, c in clients.items()} == seen
    assert {host: address_of(lab, peers, server, host, 4100) for host in HOSTS} == {h: s[0] for h, s in seen.items()}
    # One less: its hosts begin again by another one.
    gone = seen[HOSTS[0]][0]
    gw.reload(pool_config(*(a for a in POOL if a != gone)))
    for host, client in clients.items():
        now = seen_as(client, server, (INET, 5500))
        assert now == seen[host] if seen[host][0] != gone else now[0] in POOL and now[0] != gone
    accounting.open()


def test_addresses_on_the_link_and_arbitrary_pooling(gw, lab, peers):
    """The kernel answers ARP for what is one of its addresses."""
    lab.gw.ip(f"addr add {ON_LINK}/32 dev wan")
    try:
        gw.reload(pool_config(ON_LINK, POOL[0], pooling="arbitrary", port="1"))
        server = peers.udp(lab.inet, INET, 5500)
        seen = {address_of(lab, peers, server, HOSTS[0], port) for port in range(4200, 4216)}
        assert seen == {ON_LINK, POOL[0]}
        assert re.search(rf"{ON_LINK} .*REACHABLE|{ON_LINK} .*DELAY|{ON_LINK} .*STALE", lab.wan.ip("neigh show").stdout)
    finally:
        lab.gw.ip(f"addr del {ON_LINK}/32 dev wan")
