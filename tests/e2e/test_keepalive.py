"""NAT keepalives (RFC 3948): what a silent ESP tunnel in UDP sends, and that it keeps the binding of a NAT on the path alive."""

import contextlib
import itertools
import time

import pytest

from harness.lab import Addresses as A
from harness.tunnels import FAR, LOCAL, REMOTE, Far, esp_keys, gateway_config, tunnels, turned, wait_for
from harness.wire import IP, UDP, Ether, IPv6, Raw, checksums_ok, marked

pytestmark = pytest.mark.sag

OUTER = pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
PORT = 4511


@pytest.fixture
def silent(lab):
    """The far end says nothing, not even that a port is closed. It stays so until it is a gateway: over IPv6 a host would
    take what has no checksum for an error."""
    lab.mute("inet")


@OUTER
def test_a_silent_tunnel_says_one_byte(gw_with, lab, wire, silent, outer):
    """About once a second, from the port of ESP to that of the peer, and nothing while packets flow."""
    settings = {"udp_encap": True, "udp_port": PORT, "probe_interval": 0}
    gw = gw_with(gateway_config("esp", outer, **esp_keys(), **settings, keepalive=1))
    far = wire.sniffer(lab.inet, "eth0")
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    inside = wire.sender(lab.lan1, "eth0")
    layer = {4: IP, 6: IPv6}[outer]

    def heard(seconds, send=None):
        """When keepalives came, and how many datagrams were something else."""
        times, others, end = [], 0, time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if send:
                send()
            got = far.raw(min(0.2 if send else 1, end - now))
            packet = Ether(got[1]) if got else None
            if packet is None or UDP not in packet or packet[layer].src != LOCAL[outer]:
                continue
            assert packet[layer].dst == REMOTE[outer]
            assert (packet[UDP].sport, packet[UDP].dport) == (PORT, PORT)
            data = bytes(packet[UDP].payload)[: packet[UDP].len - 8]
            if len(data) != 1:
                others += 1
                continue
            assert data == b"\xff" and packet[UDP].len == 9
            if outer == 4:
                assert checksums_ok(bytes(packet)) or packet[UDP].chksum == 0
            times.append(got[0])
        return times, others

    def flow():
        inside.send(link / IP(src=A.LAN1[4], dst=FAR[4]) / UDP(sport=1, dport=2) / Raw(marked(1)))

    first = tunnels(gw)["pop1"]["esp"]["keepalives"]
    times, others = heard(4.5)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert 3 <= len(times) <= 5 and all(0.9 < g < 1.5 for g in gaps) and others == 0, (gaps, others)
    counted = tunnels(gw)["pop1"]["esp"]["keepalives"] - first
    assert abs(counted - len(times)) <= 1, counted
    flow()
    heard(0.3)
    times, others = heard(2.5, send=flow)
    assert times == [] and others > 5, (times, others)
    times, _ = heard(2.5)
    assert 1 <= len(times) <= 3, "silent again"


def test_zero_means_none(gw_with, lab, wire, silent):
    settings = {"udp_encap": True, "udp_port": PORT, "probe_interval": 0, "keepalive": 0}
    gw_with(gateway_config("esp", 4, **esp_keys(), **settings))
    far = wire.sniffer(lab.inet, "eth0")
    assert far.until(lambda p: UDP in p and p[UDP].sport == PORT, timeout=3) is None


# --- NAT on the path ------------------------------------------------------------------------------

FORGETS = 2
TIMEOUTS = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")


@pytest.fixture(scope="module")
def far(lab):
    lab.unmute("inet")
    it = Far(lab)
    yield it
    it.close()


@contextlib.contextmanager
def nat(lab):
    """The router hides the gateway behind itself and other ports, and its bindings expire soon."""
    router = lab.wan
    rule = 'oifname "inet" udp sport 4500 masquerade to :30000-30999'
    chain = f"chain post {{\n type nat hook postrouting priority 100;\n {rule}\n}}\n"
    # What it has no binding for is not for itself.
    chain += "chain in {\n type filter hook input priority 0;\n udp dport 30000-30999 drop\n}\n"
    table = f"table inet hides\ndelete table inet hides\ntable inet hides {{\n{chain}}}\n"
    router.run(["nft", "-f", "-"], input=table)
    before = {}
    try:
        for name in TIMEOUTS:
            key = f"net.netfilter.{name}"
            before[key] = router.out(["sysctl", "-n", key]).strip()
            router.run(["sysctl", "-q", "-w", f"{key}={FORGETS}"])
        yield
    finally:
        for key, value in before.items():
            router.run(["sysctl", "-q", "-w", f"{key}={value}"], check=False)
        router.run(["nft", "delete", "table", "inet", "hides"])


@OUTER
@pytest.mark.parametrize("keepalive", [1, 0], ids=["with", "without"])
@pytest.mark.no_accounting
def test_nat_keeps_its_binding(gw_with, lab, far, outer, keepalive):
    """Six idle seconds, three times the lifetime of a binding: with keepalives the outside still reaches the inside."""
    keys = {**esp_keys(), "udp_encap": True, "probe_interval": 0}
    gw = gw_with(gateway_config("esp", outer, **keys, keepalive=keepalive))
    far.use(far.config("esp", outer, **turned(keys), keepalive=0))
    taken = lambda: sum(d["packets"] for d in far.ctl("drops")["drops"] if d["reason"] == "esp-keepalive")
    with nat(lab):
        # The end behind NAT sends first.
        both_ways = lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1 and far.site.ping(A.LAN1[4], count=3) == 3
        wait_for(both_ways, 20)
        peer = tunnels(far)["branch"]["esp"]["peer"]
        port = int(peer.rsplit(":", 1)[1])
        assert LOCAL[outer] not in peer and 30000 <= port <= 30999, peer
        before = taken()
        time.sleep(3 * FORGETS)
        assert far.site.ping(A.LAN1[4], count=3, wait=1) == (3 if keepalive else 0)
        assert tunnels(far)["branch"]["esp"]["peer"] == peer, "a keepalive moves nothing"
        assert (taken() - before > 3) == bool(keepalive), (before, taken())
        assert tunnels(gw)["pop1"]["esp"]["keepalives"] >= (5 if keepalive else 0)
