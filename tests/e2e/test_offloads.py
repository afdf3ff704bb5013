"""Hosts on the same machine that leave checksums to an offload, as veth devices do by default: the gateway completes them
wherever it forwards."""

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config, seen_as, talk
from harness.traffic import iperf
from harness.tunnels import FAR, gateway_config, wait_for

pytestmark = pytest.mark.sag


@pytest.fixture(scope="module")
def senders(lab):
    """Hosts with checksum offload, and a router between that hands on what it gets. Segments stay frames: `segmented`."""
    for ns in (lab.lan1, lab.inet, lab.wan):
        for dev in (name for name in ns.devices() if name != "lo"):
            ns.run(["ethtool", "-K", dev, "tx", "on", "rx", "on"], check=False)


@pytest.mark.parametrize(
    "dataplane",
    [{}, {"fast_path": False}, {"mode": "generic"}, {"mode": "tc"}],
    ids=["native", "workers", "generic", "tc"],
)
def test_senders_with_checksum_offload(gw_with, lab, senders, peers, dataplane, family):
    """IPv4 is translated, IPv6 is not; bytes in both directions, of TCP and of UDP."""
    gw = gw_with(nat_config(**dataplane))
    listener = peers.listen(lab.inet, A.INET[family])
    client = peers.connect(lab.lan1, listener.getsockname()[:2], source=(A.LAN1[family], 0))
    server, _ = peers.accept(listener)
    talk(client, server)
    server = peers.udp(lab.inet, A.INET[family])
    client = peers.udp(lab.lan1, A.LAN1[family])
    for size in (0, 1, 2, 700, 1400):
        seen_as(client, server, server.getsockname(), b"x" * size)
    fast = not dataplane or dataplane.get("mode") == "tc"
    assert (gw.status()["fastpath_packets"] > 0) == fast, "of partial checksums in socket buffers"
    assert "completes partial checksums" in gw.ports()["0"]["capability"]


@pytest.mark.parametrize("kind", ["gre", "ipip"])
def test_a_router_that_merges_segments(gw_with, far, lab, kind):
    """The router takes what it has merged apart again and leaves checksums to the device, also inside GRE: the far gateway
    sees whole checksums alone until TCP sends several segments at once."""
    for ns in (lab.lan1, lab.wan):
        for dev in (name for name in ns.devices() if name != "lo"):
            ns.run(["ethtool", "-K", dev, "tx", "on", "rx", "on", "sg", "on", "tso", "on", "gso", "on", "gro", "on"], check=False)
    gw_with(gateway_config(kind, 4))
    far.use(far.config(kind, 4))
    wait_for(lambda: lab.lan1.ping(FAR[4], count=1) == 1)
    got = iperf(lab.lan1, far.site, FAR[4], seconds=1)
    print(kind, got)
    assert got["mbit"] > 20
