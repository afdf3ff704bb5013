"""Other cards than virtio-net as ports: how the program attaches, and that traffic passes both ways."""

import pytest

from bed import images
from bed.site import ECHO_PORT, INET, Site, connect, echoes
from harness.flood import Server

# The kernel from which on vmxnet3 has native XDP.
VMXNET3_NATIVE = (6, 6)


@pytest.fixture(scope="session")
def other_cards(kernel):
    """A guest with an e1000e to the LAN and a vmxnet3 to the Internet: (guest, site)."""
    if kernel.version < images.OLDEST:
        pytest.skip("older than the gateway supports")
    site = Site(f"nic{kernel.name.replace('.', '')}")
    guest = server = None
    try:
        guest = site.boot(kernel, lan="e1000e", wan="vmxnet3")
        server = Server(site.wan, ECHO_PORT)
        guest.wait("systemctl is-active sag-vcpe", 240)
        yield guest, site
    finally:
        if server is not None:
            server.close()
        if guest is not None:
            guest.stop()
        site.close()


def passes_both_ways(site):
    for family in (4, 6):
        assert site.lan.ping(INET[family], count=10, interval=0.05, wait=20) == 10
        with connect(site.lan, family, (INET[family], ECHO_PORT)) as sock:
            assert echoes(sock, bytes(100_000))


def ports(guest):
    """The gateway's ports by device, each compared with ip's word: 1 is in the driver, 2 generic."""
    attached = {link["ifname"]: link.get("xdp", {}).get("mode") for link in guest.json("ip -j -d link show")}
    found = {port["device"]: port for port in guest.ctl("ports")["ports"]}
    for device, port in found.items():
        assert {"native": 1, "generic": 2}[port["xdp_mode"]] == attached[device], port
    return found


def test_e1000e_and_vmxnet3(other_cards, kernel, seen):
    guest, site = other_cards
    guest.wait("""test $(sagctl --json ports | grep -Eo '"xdp_mode": ?"(native|generic)"' | wc -l) -eq 2""", 60)
    lan, wan = ports(guest)["lan"], ports(guest)["wan"]
    assert "driver e1000e" in lan["capability"] and "driver vmxnet3" in wan["capability"]
    assert lan["xdp_mode"] == "generic" and "no native XDP" in lan["capability"]
    native = kernel.version >= VMXNET3_NATIVE
    assert wan["xdp_mode"] == ("native" if native else "generic")
    passes_both_ways(site)
    assert not guest.refusals()
    seen["other cards"] = f"e1000e {lan['xdp_mode']}, vmxnet3 {wan['xdp_mode']}"
