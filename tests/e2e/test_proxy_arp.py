"""Routes of the far end that name no router: its kernel asks through the VXLAN tunnel for every host."""

import pytest

from harness.lab import Addresses as A
from harness.tunnels import FAR, LOCAL, REMOTE, gateway_config, has_kernel
from harness.waiting import within

pytestmark = pytest.mark.sag

DEVICE = f"vxlan id 100 dstport 4789 local {REMOTE[4]} remote {LOCAL[4]}"


@pytest.fixture
def far_end(lab):
    """A device of the kernel in `inet`, whose routes lead to the branch without a router."""
    inet = lab.inet
    why = has_kernel(inet, DEVICE)
    if why:
        pytest.skip(f"this kernel has no vxlan device: {why}")
    # The same for every test: the gateway would take another one for a stranger's.
    inet.ip(f"link add tun address 02:00:00:00:07:03 type {DEVICE}")
    inet.batch(
        "link set tun up\naddr add 10.77.0.10/32 dev tun\naddr add fd77::10/128 dev tun nodad\n"
        "route add 192.0.2.0/26 dev tun src 10.77.0.10\nroute add 10.77.0.0/24 dev tun src 10.77.0.10\n"
        "route add 2001:db8:1::/64 dev tun src fd77::10\nroute add fd77::/64 dev tun src fd77::10\n"
    )
    yield inet
    inet.ip("link del tun")


def neighbor(inet, address):
    return inet.out(["ip", "neigh", "show", address, "dev", "tun"])


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_the_gateway_answers_for_hosts_behind_it(gw_with, lab, far_end, family):
    gw = gw_with(gateway_config("vxlan", 4, vni=100))
    host, nobody = A.LAN1[family], {4: "10.77.0.99", 6: "fd77::99"}[family]

    def reaches(address):
        return far_end.ping(address, count=1, wait=1, options=["-I", FAR[family]]) == 1

    within(5, "an answer for a host of the LAN", lambda: reaches(host))
    # XDP learns the far end's Ethernet address a moment after the workers.
    within(5, "the way back by XDP", lambda: lab.lan1.ping(FAR[family], count=2, wait=1) == 2)
    # Who is behind the same tunnel answers itself, or nobody does.
    assert not reaches(nobody)
    assert "lladdr" not in neighbor(far_end, nobody)
    if family == 6:
        # Duplicate address detection of an address that the gateway would answer for.
        far_end.ip("addr add 2001:db8:1::77/128 dev tun")

        def taken():
            return far_end.out("ip -6 addr show dev tun to 2001:db8:1::77")

        within(5, "the address is taken", lambda: "tentative" not in taken() or "dadfailed" in taken())
        assert "dadfailed" not in taken()

    gw.reload(gateway_config("vxlan", 4, vni=100, proxy_arp=False))
    far_end.ip(f"neigh del {host} dev tun")
    assert not reaches(host)
    assert "lladdr" not in neighbor(far_end, host)
