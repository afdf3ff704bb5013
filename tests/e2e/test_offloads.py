"""Hosts on the same machine that leave checksums to an offload, as veth devices do by default: the gateway completes them
wherever it forwards."""

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config, seen_as, talk

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
