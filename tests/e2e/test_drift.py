"""Entries that others remove from XDP's pinned maps are restored, and traffic with them."""

import json
import shutil

import pytest

from harness.lab import Addresses as A
from harness.net import run
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]


def flush(lab, name):
    """Everything out of a map; returns how many entries it had."""
    bpftool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    pins = list(lab.pins.rglob(name))
    assert pins, f"no pin {name} below {lab.pins}"
    rows = json.loads(run([bpftool, "-j", "map", "dump", "pinned", pins[0]]).stdout or "[]")
    keys = [row["key"] for row in rows if "error" not in str(row.get("value", ""))]
    gone = 0
    for key in keys:
        gone += run([bpftool, "map", "delete", "pinned", pins[0], "key", *key], check=False).returncode == 0
    return gone


@pytest.fixture(scope="module", autouse=True)
def bpftool():
    if not shutil.which("bpftool") and run(["test", "-x", "/usr/sbin/bpftool"], check=False).returncode:
        pytest.skip("bpftool is not installed")


@pytest.mark.parametrize("name", ["gw_devs", "gw_local4", "gw_local6"])
def test_a_flushed_map_is_filled_again(gw, gateway, lab, name):
    lab.lan1.ping(A.INET[4], count=1)
    assert flush(lab, name) > 0
    within(3, "logged", lambda: "put right" in gateway.tail(5), gateway.tail)
    assert lab.lan1.ping(A.INET[4]) == 5
    assert lab.lan1.ping(A.GW_LAN_A[4]) == 5
    assert lab.lan1.ping(A.GW_LAN_A[6]) == 5
    gateway.kill()
    gateway.start()


def test_sockets_of_workers(gw, lab):
    """The map of sockets cannot be read; without them no first packet reaches a worker."""
    xsks = next(lab.pins.rglob("gw_xsks"))
    bpftool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    gone = 0
    for slot in range(256):
        key = [str(b) for b in slot.to_bytes(4, "little")]
        gone += run([bpftool, "map", "delete", "pinned", xsks, "key", *key], check=False).returncode == 0
    assert gone >= 4
    within(3, "first packets of new flows", lambda: lab.lan2.ping(A.POP[4], count=1, wait=1) == 1)
    assert lab.lan2.ping(A.POP[4]) == 5
