"""iperf3 in both directions; that checksums are right is checked after every test by the hosts' counters."""

import pytest

from harness.lab import Addresses as A
from harness.traffic import iperf

pytestmark = pytest.mark.alone

DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])


@DIRECTIONS
def test_tcp(gw, lab, family, reverse):
    got = iperf(lab.lan1, lab.inet, A.INET[family], seconds=1, reverse=reverse, streams=2)
    assert got["mbit"] > 20, got


@DIRECTIONS
def test_udp(gw, lab, family, reverse):
    """A rate that any machine carries arrives without loss."""
    got = iperf(lab.lan1, lab.inet, A.INET[family], seconds=2, udp_mbit=20, reverse=reverse)
    assert got["packets"] > 3000 and got["lost"] == 0, got


def test_tcp_over_the_leased_line(gw, lab, family):
    got = iperf(lab.lan1, lab.pop, A.POP[family], seconds=1)
    assert got["mbit"] > 20, got


def test_tcp_over_the_narrow_link(gw, lab, family):
    """Path MTU discovery works for a real transfer: both ends learn 1400."""
    got = iperf(lab.lan1, lab.inet, A.NARROW[family], seconds=1)
    assert got["mbit"] > 20, got
