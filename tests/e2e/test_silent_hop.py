"""A router on the path silently drops packets that are too large: probing (RFC 8899) finds out for each kind of
tunnel, and no size is lost."""

import pytest

from harness.traffic import iperf
from harness.tunnels import FAR, esp_keys, gateway_config, hop, sweep, tunnels, turned, wait_for

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

KINDS = {
    "vxlan": ("vxlan", 4, {"vni": 100}),
    "gre": ("gre", 4, {}),
    "gre-full": ("gre", 4, {"key": 7, "checksum": True, "sequence": True}),
    "ipip": ("ipip", 4, {}),
    "esp-udp": ("esp", 4, {"udp_encap": True}),
    "vxlan-over6": ("vxlan", 6, {"vni": 100}),
    "ipip-over6": ("ipip", 6, {}),
    "esp-over6": ("esp", 6, {}),
}
TAKES = 1300
SIZES = [*range(60, 1500, 36), 1279, 1280, 1281, 1299, 1300, 1301, 1499, 1500]


@pytest.fixture
def whole(lab):
    """The router does not put TCP segments inside of tunnels together (GRO): it would find them too long, which no
    router of packets on the wire does."""
    set_to = lambda n: [lab.wan.ip(f"link set {d} gro_max_size {n}") for d in ("gw", "inet")]
    set_to(TAKES)
    yield
    set_to(65536)


@pytest.mark.parametrize("name", KINDS)
def test_no_size_is_lost(gw_with, lab, far, whole, name):
    kind, outer, keys = KINDS[name]
    keys = {**keys, "probe_interval": 500}
    other = keys
    if kind == "esp":
        keys = {**esp_keys(), **keys}
        other = turned(keys)
    with hop(lab, f"meta length > {TAKES}"):
        gw = gw_with(gateway_config(kind, outer, **keys))
        far.use(far.config(kind, outer, **other))
        for ns in (lab.lan1, far.site):
            ns.run(["ip", "route", "flush", "cache"])
            ns.run(["ip", "-6", "route", "flush", "cache"])
        ends = lambda: (tunnels(gw)["pop1"], tunnels(far)["branch"])
        wait_for(lambda: all(t["path_mtu"] == TAKES and t["path_search"] == "search-complete" for t in ends()), 25)
        here, there = ends()
        assert here["mtu"] <= TAKES - here["overhead"] + 3 and here["mtu"] == there["mtu"]
        assert here["path_mtu_learned"] is None, "nobody has said so"
        for family in (4, 6):
            for df in (False, True):
                got = sweep(lab.lan1, far.site, family, SIZES, df)
                assert [s for s, what in got.items() if what == "lost"] == [], (family, df)
                assert df or set(got.values()) == {"echoed"}
            # The sender learned the MTU that is shown from an error of the gateway, or 1,280 as IPv6 demands.
            biggest = max(s for s, what in got.items() if what == "echoed")
            least = max(s for s in SIZES if s <= here["mtu"])
            assert least <= biggest <= max(1280, here["mtu"]), (family, biggest, here["mtu"])
            assert iperf(lab.lan1, far.site, FAR[family], seconds=1)["mbit"] > 10
