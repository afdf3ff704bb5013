"""Which of several addresses NAT takes: the one that the kernel would, whom `ip route get` asks."""

import random
import time

import pytest

from harness.lab import Addresses as A
from harness.nat import forward, nat_config, seen_as, talk
from harness.waiting import TIMEOUT
from harness.wire import ICMP, IP, UDP, Ether, Raw, marked

pytestmark = pytest.mark.sag

WAN, INET, ROUTER, LAN1 = A.GW_WAN[4], A.INET[4], A.WAN_ROUTER[4], A.LAN1[4]
# Another address of the gateway on the link to the router.
HIGHER = "198.51.100.3"
CONFIG = nat_config(forward("web", "tcp", "8080", (LAN1, "80")), forward("dns", "udp", "5300", (LAN1, "53")))
# As `ip addr add` wants them.
EXTRA = (
    "169.254.7.7/16 scope link",
    "10.9.0.2/24",
    "10.8.0.2/24 scope link",
    "172.30.0.1/32",
    "172.30.0.0/32",
    "192.168.77.3 peer 192.168.77.9",
    "198.51.100.77/24",
    "198.51.100.66/24",
)


@pytest.fixture
def gw(gw_changed, hidden):
    return gw_changed(CONFIG)


def only_its_own(ns):
    """Takes all IPv4 addresses from the WAN device but the lab's."""
    for line in ns.ip("-4 -o addr show dev wan").stdout.splitlines():
        address = line.split()[3].split("/")[0]
        if address != WAN:
            ns.ip(f"addr flush dev wan to {address}/32")


@pytest.fixture
def routed(lab):
    """What a test adds on the WAN device goes with it."""
    yield lab.gw
    only_its_own(lab.gw)
    lab.gw.ip(f"route replace default via {ROUTER} dev wan")
    lab.gw.ip("route flush 100.64.0.0/16", check=False)


def kernel_source(ns, dst):
    words = ns.ip(f"route get {dst}").stdout.split()
    return words[words.index("src") + 1]


def nat_source(gw, dst):
    ask = ["explain", "--port", "0", "--proto", "udp", "--src", LAN1, "--dst", dst, "--sport", "4000", "--dport", "9"]
    rewritten = gw.ctl(*ask)["rewritten"]
    return rewritten and rewritten["src"]


def agrees(gw, ns, dst):
    until = time.monotonic() + TIMEOUT
    while (got := nat_source(gw, dst)) != (want := kernel_source(ns, dst)):
        assert time.monotonic() < until, f"NAT takes {got}, the kernel {want}: {ns.ip('-4 addr show dev wan').stdout}"
        time.sleep(0.02)


def test_the_kernel_is_the_oracle(gw, lab, routed):
    """Random addresses in a random order, some of which are taken away again, and routes that prefer one."""
    rng = random.Random(3)
    lab.gw.ping(ROUTER, count=1)
    for turn in range(10):
        chosen = rng.sample(EXTRA, rng.randrange(1, 6))
        lines = [f"addr add {extra} dev wan" for extra in chosen]
        gone = [extra for extra in chosen if rng.random() < 0.3]
        lines += [f"addr del {extra.split(' scope')[0].split(' peer')[0]} dev wan" for extra in gone if "peer" not in extra]
        routed.batch("\n".join(lines) + "\n")
        left = [e.split("/")[0].split()[0] for e in chosen if e not in gone and "scope" not in e]
        dst = f"100.64.{turn}.1"
        prefer = f" src {rng.choice(left)}" if left and rng.random() < 0.5 else ""
        routed.ip(f"route replace 100.64.{turn}.0/24 via {ROUTER} dev wan{prefer}")
        agrees(gw, routed, dst)
        agrees(gw, routed, INET)
        only_its_own(routed)


def test_live_bindings_keep_their_address(gw, lab, routed, peers):
    """By XDP, over an address that is added and a route that prefers it; new sessions get the new one."""
    server, listener = peers.udp(lab.inet, INET, 5400), peers.listen(lab.inet, INET, 5401)
    udp = peers.udp(lab.lan1, port=5402)
    tcp = peers.connect(lab.lan1, (INET, 5401), source=("0.0.0.0", 5403))
    accepted, peer = peers.accept(listener)
    assert seen_as(udp, server, (INET, 5400)) == (WAN, 5402) and peer == (WAN, 5403)
    routed.ip(f"addr add {HIGHER}/24 dev wan")
    routed.ip(f"route replace default via {ROUTER} dev wan src {HIGHER}")
    agrees(gw, routed, INET)
    for _ in range(3):
        assert seen_as(udp, server, (INET, 5400)) == (WAN, 5402)
        talk(tcp, accepted, 50000)
    assert seen_as(peers.udp(lab.lan1, port=5404), server, (INET, 5400)) == (HIGHER, 5404)
    # What comes to the binding from elsewhere on the same host is admitted too.
    peers.udp(lab.inet, INET, 5405).sendto(b"again", (WAN, 5402))
    assert udp.recv(10) == b"again"
    # The new address goes: its sessions end, the others stay.
    routed.ip(f"addr del {HIGHER}/24 dev wan")
    routed.ip(f"route replace default via {ROUTER} dev wan")
    agrees(gw, routed, INET)
    assert seen_as(udp, server, (INET, 5400)) == (WAN, 5402)


def test_forwards_and_hairpin_by_every_address(gw, lab, routed, peers):
    """A forward without an address holds for all, and who calls by one of them shows what the Internet sees."""
    routed.ip(f"addr add {HIGHER}/24 dev wan")
    agrees(gw, routed, INET)
    listener, server = peers.listen(lab.lan1, LAN1, 80), peers.udp(lab.lan1, LAN1, 53)
    until = time.monotonic() + TIMEOUT
    for address in (WAN, HIGHER):
        asker = peers.udp(lab.inet, INET)
        asker.settimeout(0.3)
        while True:
            try:
                assert seen_as(asker, server, (address, 5300)) == asker.getsockname()
                break
            except (TimeoutError, ConnectionRefusedError):
                assert time.monotonic() < until, address
        client = peers.connect(lab.inet, (address, 8080), source=(INET, 0))
        accepted, peer = peers.accept(listener)
        assert peer == client.getsockname()
        talk(client, accepted, 50000)
        neighbor = peers.connect(lab.lan2, (address, 8080))
        accepted, peer = peers.accept(listener)
        assert peer[0] == WAN
        talk(neighbor, accepted, 50000)


def test_port_and_identifier_zero(gw, lab, wire):
    """Two hosts with the source port 0, and two with the identifier 0, are two outside; the answers find them."""
    outside = wire.sniffer(lab.wan, "gw")
    hosts = ((lab.lan1, LAN1, "lan-a"), (lab.lan2, A.LAN2[4], "lan-b"))
    inside = [wire.sniffer(ns, "eth0") for ns, _, _ in hosts]
    for ns, source, dev in hosts:
        head = Ether(src=ns.mac("eth0"), dst=lab.gw.mac(dev)) / IP(src=source, dst=INET)
        for l4 in (UDP(sport=0, dport=5410), ICMP(type=8, id=0, seq=1)):
            # The second one goes by XDP.
            for _ in range(2):
                wire.sender(ns, "eth0").send(head / l4 / Raw(marked(1)))
                time.sleep(0.05)
    seen = [Ether(f) for f in outside.drain()]
    ids = {p[ICMP].id for p in seen if ICMP in p and p[ICMP].type == 8}
    ports = {p[UDP].sport for p in seen if UDP in p and p[UDP].dport == 5410 and ICMP not in p}
    assert len(ids) == 2 and len(ports) == 2 and 0 not in ids | ports, (ids, ports)
    for sniffer in inside:
        reply = sniffer.until(lambda p: ICMP in p and p[ICMP].type == 0)
        assert reply is not None and reply[ICMP].id == 0
