"""Ordinary hosts, ordinary programs: ping, traceroute, HTTP, through the gateway and to it."""

import re

import pytest

from harness.lab import Addresses as A
from harness.traffic import http_server

PAIRS = [
    ("lan1", A.INET, "inet"),
    ("inet", A.LAN1, "lan1"),
    ("lan1", A.POP, "pop"),
    ("pop", A.LAN1, "lan1"),
    ("lan1", A.LAN2, "lan2"),
    ("lan2", A.INET, "inet"),
]


def test_first_ping_of_a_fresh_lab_loses_nothing(gw, lab, family):
    """No neighbour is known yet on either side: packets wait for the answers, none is lost."""
    assert lab.lan1.ping(A.INET[family], count=3, interval=0.01) == 3


@pytest.mark.parametrize("source,dest,_name", PAIRS, ids=[f"{s}-to-{n}" for s, _, n in PAIRS])
def test_ping_through(gw, lab, family, source, dest, _name):
    ns = getattr(lab, source)
    assert ns.ping(dest[family], count=20) == 20
    assert ns.ping(dest[family], count=5, options=["-s", 1400]) == 5


@pytest.mark.parametrize(
    "source,dest",
    [("lan1", A.GW_LAN_A), ("lan1", A.GW_WAN), ("lan2", A.GW_LAN_A), ("inet", A.GW_WAN), ("pop", A.GW_EXPRESS)],
    ids=["own-lan", "other-side", "other-lan", "from-inet", "from-pop"],
)
def test_ping_the_gateway(gw, lab, family, source, dest):
    assert getattr(lab, source).ping(dest[family], count=10) == 10


def test_traceroute_names_the_gateway(gw, lab, family):
    """The gateway is hop 1 with the address of the port that the probe came in by."""
    output = lab.lan1.out(["traceroute", f"-{family}", "-n", "-q", 1, "-w", 2, A.INET[family]])
    hops = re.findall(r"(?m)^\s*(\d+)\s+(\S+)", output)
    assert hops == [("1", A.GW_LAN_A[family]), ("2", A.WAN_ROUTER[family]), ("3", A.INET[family])], output


def test_traceroute_from_the_internet(gw, lab, family):
    output = lab.inet.out(["traceroute", f"-{family}", "-n", "-I", "-q", 1, "-w", 2, A.LAN1[family]])
    hops = [address for _, address in re.findall(r"(?m)^\s*(\d+)\s+(\S+)", output)]
    assert hops[1:] == [A.GW_WAN[family], A.LAN1[family]], output


def test_http(gw, lab, family, tmp_path):
    body = bytes(range(256)) * 4096
    (tmp_path / "file.bin").write_bytes(body)
    with http_server(lab.inet, A.INET[family], tmp_path) as url:
        lab.lan1.run(["curl", "-sS", "-g", "--max-time", 15, "-o", tmp_path / "got.bin", url + "file.bin"])
    assert (tmp_path / "got.bin").read_bytes() == body


def test_http_to_a_server_on_the_lan(gw, lab, family, tmp_path):
    (tmp_path / "hello").write_text("from the branch")
    with http_server(lab.lan2, A.LAN2[family], tmp_path) as url:
        output = lab.pop.out(["curl", "-sS", "-g", "--max-time", 15, "--interface", A.POP[family], url + "hello"])
    assert output == "from the branch"


def test_kernel_services_of_the_box(gw, lab, family, tmp_path):
    """What is addressed to the gateway itself, TCP included, is the kernel's."""
    (tmp_path / "ssh").write_text("box")
    with http_server(lab.gw, A.GW_LAN_A[family], tmp_path) as url:
        assert lab.lan1.out(["curl", "-sS", "-g", "--max-time", 10, url + "ssh"]) == "box"
