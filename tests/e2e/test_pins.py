"""Pins removed, their file system unmounted, XDP programs taken off devices: traffic does not notice, or is back at once, and
the gateway says what is."""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import struct
import threading
import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.net import run
from harness.stream import Stream
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

BPFTOOL = shutil.which("bpftool") or "/usr/sbin/bpftool"
# Drops everything; the gateway's port is dead while it is there.
FOREIGN = """
__attribute__((section("xdp"), used)) int foreign(void *ctx) { return 1; }
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


def pin_dir(lab):
    return next(lab.pins.rglob("gw_shared")).parent


def pins(folder):
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def metrics(lab):
    text = lab.gw.out(["curl", "-sS", "--max-time", 5, "http://127.0.0.1:9477/metrics"])
    return {key: float(value) for key, value in re.findall(r"^(sag_\S+) (\S+)$", text, flags=re.M)}


def answers(lab):
    return all(lab.lan1.ping(A.INET[family], count=1, wait=1) == 1 for family in (4, 6))


def repaired(lab, kind):
    return metrics(lab)[f'sag_xdp_repairs_total{{kind="{kind}"}}']


def test_removed_pins_come_back_and_no_packet_is_lost(gw, lab, wire, accounting):
    folder = pin_dir(lab)
    before = pins(folder)
    assert {"link-lan-a", "link-wan", "gw_ingress", "gw_flows6"} <= before.keys()
    with Stream(lab, wire, sport=7400) as stream:
        for name in before:
            (folder / name).unlink()
            assert gw.ports()["0"]["xdp_mode"] == "native"
        within(2, "all pins again", lambda: pins(folder).keys() == before.keys(), gw.tail)
        shutil.rmtree(folder)
        within(2, "the whole directory again", lambda: folder.exists() and pins(folder).keys() == before.keys(), gw.tail)
    assert stream.sent > 200 and stream.missing() == []
    assert answers(lab)
    within(2, "counted", lambda: repaired(lab, "pin") >= 2 * len(before))
    assert "pins-lost" in gw.tail()
    assert not [w for w in gw.status()["warnings"] if "pins" in w]
    # They are good for a successor.
    config = gw.running
    with Stream(lab, wire, sport=7401) as stream:
        time.sleep(0.3)
        gw.kill()
        time.sleep(0.3)
        gw.start(config)
    assert stream.missing() == []


def detach(lab, device):
    run([BPFTOOL, "link", "detach", "pinned", pin_dir(lab) / f"link-{device}"])


@pytest.mark.parametrize("device", ["lan-a", "wan"])
def test_a_detached_program_is_attached_again(gw, lab, device, family):
    if not os.access(BPFTOOL, os.X_OK):
        pytest.skip("bpftool is not installed")
    assert answers(lab)
    count, port = repaired(lab, "attachment"), {"lan-a": "0", "wan": "1"}[device]
    # The daemon is held meanwhile, so that the outage is seen.
    os.kill(gw.pid(), signal.SIGSTOP)
    try:
        detach(lab, device)
        assert lab.lan1.ping(A.INET[family], count=1, wait=1) == 0
    finally:
        os.kill(gw.pid(), signal.SIGCONT)
    within(2, "traffic", lambda: lab.lan1.ping(A.INET[family], count=1, wait=1) == 1, gw.tail)
    assert gw.ports()[port]["xdp_mode"] == "native"
    assert "xdp-lost" in gw.tail()
    within(2, "counted", lambda: repaired(lab, "attachment") == count + 1)
    assert metrics(lab)[f'sag_xdp_attached{{port="{port}"}}'] == 1
    assert answers(lab)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "foreign.c").write_text(FOREIGN)
    clang = shutil.which("clang")
    if not clang:
        pytest.skip("clang is not installed")
    run([clang, "-O2", "-g", "-target", "bpf", "-c", folder / "foreign.c", "-o", folder / "foreign.o"])
    return folder / "foreign.o"


@pytest.mark.parametrize("mode", ["xdpdrv", "xdpgeneric"])
def test_a_foreign_program_is_pushed_aside(gw, lab, foreign, mode, family):
    """Somebody has detached the gateway's program and put his own there by `ip link`."""
    assert answers(lab)
    # While the gateway's link is there, the kernel refuses it.
    off = lab.gw.ip("link set dev lan-a xdp off", check=False)
    assert off.returncode != 0 and answers(lab)
    os.kill(gw.pid(), signal.SIGSTOP)
    try:
        detach(lab, "lan-a")
        lab.gw.ip(f"link set dev lan-a {mode} obj {foreign} sec xdp")
        assert lab.lan1.ping(A.INET[family], count=1, wait=1) == 0
    finally:
        os.kill(gw.pid(), signal.SIGCONT)
    within(2, "traffic", lambda: lab.lan1.ping(A.INET[family], count=1, wait=1) == 1, gw.tail)
    assert "was attached in place of the gateway's" in gw.tail()
    assert gw.ports()["0"]["xdp_mode"] == "native"


def test_what_cannot_be_pushed_aside_is_said(gw, lab, foreign):
    """A foreign program that is attached by a link."""
    theirs = lab.pins / "foreign"
    run([BPFTOOL, "prog", "load", foreign, theirs])
    os.kill(gw.pid(), signal.SIGSTOP)
    try:
        detach(lab, "lan-a")
        # bpftool attaches by netlink only.
        link = link_create(lab, theirs, "lan-a")
    finally:
        os.kill(gw.pid(), signal.SIGCONT)
    try:
        within(3, "said", lambda: gw.ports()["0"]["xdp_mode"] == "none" and "another XDP program" in gw.ports()["0"]["capability"], gw.tail)
        assert [w for w in gw.status()["warnings"] if "lan-a" in w and "another XDP program" in w]
        within(2, "metric", lambda: metrics(lab).get('sag_xdp_attached{port="0"}') == 0)
    finally:
        os.close(link)
        theirs.unlink()
    within(5, "traffic", lambda: answers(lab), gw.tail)
    assert gw.ports()["0"]["xdp_mode"] == "native"
    assert not [w for w in gw.status()["warnings"] if "lan-a" in w]


def link_create(lab, program, device):
    """A descriptor of an XDP link of a pinned program, made by bpf(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]

    def bpf(command, attributes):
        data = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
        fd = libc.syscall(number, command, data, 128)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        return fd

    path = ctypes.create_string_buffer(str(program).encode())
    fd = bpf(7, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    ifindex = json.loads(lab.gw.out(["ip", "-j", "link", "show", "dev", device]))[0]["ifindex"]
    result = {}

    def inside():
        with open(lab.gw.path, "rb") as ns:
            assert libc.setns(ns.fileno(), 0x40000000) == 0
        result["link"] = bpf(28, struct.pack("=IIII", fd, ifindex, 37, 0))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    os.close(fd)
    return result["link"]


def test_an_unmounted_file_system(gateway, lab, wire):
    """Somebody unmounts the BPF file system that the pins are in."""
    folder = lab.run_dir / "bpffs"
    folder.mkdir(exist_ok=True)
    run(["mount", "-t", "bpf", "bpf", folder])
    gateway.stop()
    try:
        gateway.start(re.sub(r"^pin_dir = .*", f'pin_dir = "{folder}/sag"', lab_config(), flags=re.M))
        config, before = gateway.running, pins(folder / "sag")
        assert answers(lab)
        with Stream(lab, wire, sport=7402) as stream:
            run(["umount", folder])
            said = lambda: [w for w in gateway.status()["warnings"] if "mount -t bpf" in w]
            within(2, "said", said, gateway.tail)
            within(2, "counted", lambda: metrics(lab)["sag_pins_missing"] == len(before))
            assert gateway.ports()["0"]["xdp_mode"] == "native" and answers(lab)
            run(["mount", "-t", "bpf", "bpf", folder])
            within(2, "pins again", lambda: (folder / "sag").exists() and pins(folder / "sag").keys() == before.keys(), gateway.tail)
            within(2, "said no more", lambda: not said())
            gateway.kill()
            time.sleep(0.2)
            gateway.start(config)
        assert stream.missing() == []
        assert answers(lab)
    finally:
        gateway.stop()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder / "sag")
        run(["umount", folder], check=False)
