"""The gateway under systemd, on each kernel: it starts with the machine, forwards natively, and goes on over whatever happens
to its process."""

import re
import time

import pytest

from bed.images import OLDEST
from bed.site import ECHO_PORT, INET, INSIDE_PORT, SERVICE, connect, conversations, echoes

# What the program costs the verifier at most (bpf/tests/lifecycle.rs); kernels count differently.
VERIFIER_LIMIT = 1_000_000
# Without signs of life for so long systemd starts it again; 60 s in the unit.
WATCHDOG = 20


@pytest.fixture
def quick_watchdog(gateway):
    """The watchdog of the unit, sooner."""
    drop_in = "/run/systemd/system/sag-vcpe.service.d/watchdog.conf"
    gateway.write(drop_in, f"[Service]\nWatchdogSec={WATCHDOG}s\n")
    gateway.run("systemctl daemon-reload && systemctl restart sag-vcpe", timeout=240)
    yield gateway
    gateway.run(f"rm {drop_in} && systemctl daemon-reload && systemctl restart sag-vcpe", timeout=240)


def main_pid(guest):
    return int(guest.unit("sag-vcpe")["MainPID"])


def test_an_older_kernel_is_refused_by_name(guest, kernel, seen):
    if kernel.version >= OLDEST:
        pytest.skip("a kernel that is supported")
    guest.wait("journalctl -u sag-vcpe -o cat | grep -q 'boot Linux 5.15 or later'", 120)
    assert guest.unit("sag-vcpe")["ActiveState"] != "active"
    seen["gateway"] = "refuses to start: “boot Linux 5.15 or later”"


def test_it_starts_with_the_machine(gateway, kernel, seen):
    unit = gateway.unit("sag-vcpe")
    assert (unit["ActiveState"], unit["NRestarts"]) == ("active", "0"), gateway.journal("sag-vcpe")
    assert unit["User"] == "sag"
    said = gateway.journal("sag-vcpe")
    assert "system calls confined (seccomp)" in said
    # Landlock of Linux 6.2 has all that is asked for; Ubuntu's 5.15 and Debian's 6.1 have the file part of it.
    assert ("files confined (landlock)" if kernel.version >= (6, 2) else "files confined in part") in said
    seen["gateway"] = "active, as user sag"
    seen["files (Landlock)"] = "all" if kernel.version >= (6, 2) else "in part"


def test_the_verifier_accepts_the_program(gateway, seen):
    pid = main_pid(gateway)
    # The kernel says what it looked at since 5.16.
    text = gateway.out(f"cat /proc/{pid}/fdinfo/* 2>/dev/null | grep -E '^(prog_type|verified_insns)'")
    counts = [int(n) for kind, n in re.findall(r"prog_type:\s+(\d+)\nverified_insns:\s+(\d+)", text) if kind == "6"]
    seen["instructions verified"] = f"{max(counts):,}" if counts else "the kernel does not say"
    assert all(n <= VERIFIER_LIMIT for n in counts)
    programs = gateway.json("bpftool -j prog show")
    assert [p["name"] for p in programs if p["type"] == "xdp" and p["jited"]], programs


def test_the_capability_line_says_the_truth(gateway, seen):
    """What the gateway says of its ports, beside what ip and ethtool say."""
    links = {link["ifname"]: link for link in gateway.json("ip -j -d link show")}
    for port in gateway.ctl("ports")["ports"]:
        attached = links[port["device"]]["xdp"]
        # 1: in the driver; 2: generic.
        assert (port["xdp_mode"], attached["mode"]) == ("native", 1), (port, attached)
        assert port["xsk_mode"] == "copy"
        line = port["capability"]
        assert "driver virtio_net" in line and "XDP native" in line
        current = re.search(r"Current.*?Combined:\s+(\d+)", gateway.out(f"ethtool -l {port['device']}"), re.S)
        # Two, and two more for XDP, on which packets arrive as well.
        assert port["queues"] == int(current[1]) == 4, line
        assert "down" not in line, line
        # The driver keeps the host from merging packets while a native program is attached.
        assert "conflicting offloads" not in line, line
        seen["port"] = f"virtio_net, {port['queues']} queues, XDP {port['xdp_mode']}, AF_XDP {port['xsk_mode']}"


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_it_forwards_both_ways(gateway, site, family):
    assert site.lan.ping(INET[family], count=10, interval=0.05, wait=20) == 10
    before = gateway.ctl("status")["fastpath_packets"]
    with connect(site.lan, family, (INET[family], ECHO_PORT)) as sock:
        for size in (1, 1400, 200_000):
            assert echoes(sock, bytes(size))
    for _ in range(40):
        if gateway.ctl("status")["fastpath_packets"] > before + 100:
            break
        time.sleep(0.25)
    else:
        pytest.fail("XDP has forwarded hardly anything of an established flow")


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_syn_cookies_open_connections(gateway, site, family):
    row = lambda: next(r for r in gateway.ctl("status")["syn_cookies"] if r["id"] == f"v{family}")
    before = row()
    with connect(site.wan, family, (SERVICE[family], INSIDE_PORT)) as sock:
        assert echoes(sock, b"through a cookie" * 500)
    after = row()
    assert after["sent"] > before["sent"] and after["accepted"] == before["accepted"] + 1, (before, after)


def test_a_restart_keeps_what_is_established(gateway, site):
    with conversations(site) as talks:
        before = main_pid(gateway)
        gateway.run("systemctl restart sag-vcpe", timeout=240)
        assert main_pid(gateway) != before
        for sock in talks:
            assert echoes(sock, b"after the restart" * 100)


def test_a_stopped_process_is_started_again(quick_watchdog, site, seen):
    """SIGSTOP to the whole process: XDP goes on by itself meanwhile."""
    guest = quick_watchdog
    with conversations(site) as talks:
        before = main_pid(guest)
        guest.run(f"kill -STOP {before}")
        for sock in talks:
            assert echoes(sock, b"nobody is at the wheel")
        took = replaced(guest, before)
        for sock in talks:
            assert echoes(sock, b"after the watchdog" * 100)
    seen["stopped process"] = f"started again after {took:.0f} s (WatchdogSec={WATCHDOG})"


def test_a_hung_control_thread_is_started_again(quick_watchdog, site, seen):
    """One thread stands still, as in a deadlock; workers go on."""
    guest = quick_watchdog
    with conversations(site) as talks:
        before = main_pid(guest)
        guest.run(f"systemd-run --quiet python3 /opt/sag-bed/hang.py {before}")
        guest.wait(f"grep -q '^State:.*t (tracing stop)' /proc/{before}/task/{before}/status", 30)
        with connect(site.lan, 4, (INET[4], ECHO_PORT)) as new:
            assert echoes(new, b"a worker opens this")
        took = replaced(guest, before)
        for sock in talks:
            assert echoes(sock, b"after the watchdog" * 100)
    seen["hung control thread"] = f"started again after {took:.0f} s"


def replaced(guest, pid):
    """Until systemd has another process that forwards; seconds."""
    begin = time.monotonic()
    took = guest.wait(f"p=$(systemctl show -P MainPID sag-vcpe) && [ $p != 0 ] && [ $p != {pid} ]", 10 * WATCHDOG)
    guest.wait("systemctl is-active sag-vcpe", 240)
    said = guest.journal("sag-vcpe", 200)
    assert "Watchdog timeout" in said or guest.unit("sag-vcpe")["NRestarts"] != "0", said
    return took if took else time.monotonic() - begin


def test_nothing_was_refused(gateway):
    assert not gateway.refusals()
