"""The test bed itself: it cleans up after a crash, stands beside other labs, and leaves nothing."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from harness.lab import Addresses as A
from harness.lab import Lab


@pytest.fixture
def own_lab():
    it = Lab(f"t{os.getpid()}-own-")
    yield it
    it.down()


def leftovers(lab):
    netns = [p.name for p in Path("/run/netns").iterdir() if p.name.startswith(lab.prefix)]
    return netns + [str(p) for p in (lab.run_dir, lab.pins) if p.exists()]


def test_down_leaves_nothing(own_lab):
    own_lab.up()
    assert len(leftovers(own_lab)) == 7
    own_lab.down()
    assert leftovers(own_lab) == []
    own_lab.down()


def test_up_removes_a_crashed_predecessor(own_lab):
    """Processes, pins and half of the namespaces are still there; the new lab works."""
    own_lab.up()
    stray = own_lab.lan1.popen(["sleep", "300"])
    own_lab.pins.mkdir(parents=True)
    own_lab.pid_file.write_text(str(os.getpid()))  # a number that belongs to somebody else now
    subprocess.run(["ip", "netns", "delete", f"{own_lab.prefix}wan"], check=True)
    own_lab.up()
    assert stray.wait(5) != 0
    stray.stdout.close()
    assert not own_lab.pins.exists()
    own_lab.sh("gw-start", "--forwarder", "kernel")
    assert own_lab.lan1.ping(A.INET[4], count=2) == 2


def test_labs_do_not_disturb_each_other(lab, own_lab):
    own_lab.up()
    stray = own_lab.lan1.popen(["sleep", "300"])
    mine = lab.lan1.popen(["sleep", "300"])
    own_lab.down()
    assert stray.wait(5) != 0
    time.sleep(0.1)
    assert mine.poll() is None
    for child in (stray, mine):
        child.kill()
        child.wait()
        child.stdout.close()
    assert lab.lan1.ping(A.GW_LAN_A[4], count=1) == 1


def test_status_draws_every_address(lab):
    output = lab.sh("status").stdout
    for where in (A.LAN1, A.LAN2, A.INET, A.NARROW, A.POP, A.POP_LINK, A.WAN_ROUTER, A.GW_LAN_A, A.GW_LAN_B, A.GW_WAN, A.GW_EXPRESS):
        for address in where.values():
            assert address in output, address
    assert max(map(len, output.splitlines())) <= 100


def test_wires_carry_real_checksums(lab):
    """Offloads that would leave checksums undone are off at every end; receive offload is on."""
    for ns in (lab.gw, *lab.hosts):
        for dev in ns.devices():
            if dev == "lo":
                continue
            output = ns.out(["ethtool", "-k", dev])
            for feature, state in (
                ("tx-checksumming", "off"),
                ("tcp-segmentation-offload", "off"),
                ("generic-segmentation-offload", "off"),
                ("generic-receive-offload", "on"),
            ):
                assert f"{feature}: {state}" in output, f"{ns.name}/{dev}: {feature}"
            assert len(list_queues(ns, dev)) == 2


def list_queues(ns, dev):
    output = ns.out(["ip", "-d", "-j", "link", "show", dev])
    link = json.loads(output)[0]
    assert link["num_tx_queues"] == link["num_rx_queues"]
    return range(link["num_rx_queues"])


def test_bad_arguments_are_named(lab):
    assert "no namespace 'nowhere'" in lab.sh("exec", "nowhere", "true", check=False).stderr
    assert "unknown option '--bogus'" in lab.sh("gw-start", "--bogus", check=False).stderr
    assert lab.sh("frobnicate", check=False).returncode == 2
