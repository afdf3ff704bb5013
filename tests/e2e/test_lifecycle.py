"""What happens to the daemon: killed, started twice, stopped, started over what another version left."""

import json
import shutil
import subprocess
import time

import pytest

from harness.config import lab_config
from harness.lab import PORT_DEVICES
from harness.lab import Addresses as A
from harness.net import run
from harness.port_counters import restarted
from harness.stream import Stream
from harness.traffic import process
from harness.waiting import TIMEOUT, within

pytestmark = pytest.mark.sag


def test_established_flows_outlive_kill_9(gw, lab, wire, accounting):
    """XDP carries on without the daemon; a new daemon takes over; nothing of the flow is lost."""
    with Stream(lab, wire, sport=7000) as stream:
        time.sleep(0.5)
        gw.kill()
        time.sleep(0.7)
        while_dead = stream.sent
        restarted(gw, accounting, quiet=False)
        time.sleep(0.5)
    accounting.open()
    assert stream.sent > while_dead > 100
    assert stream.missing() == []
    assert lab.lan1.ping(A.INET[4], count=3) == 3


def test_new_flows_after_kill_9_and_restart(gw, lab, accounting, family):
    gw.kill()
    restarted(gw, accounting)
    assert lab.lan1.ping(A.INET[family], count=5) == 5
    assert gw.status()["uptime_s"] < TIMEOUT


def test_started_twice(gw, lab):
    """The second one names the running daemon and changes nothing."""
    code, output = gw.foreground("run", "--config", str(lab.conf))
    assert code != 0
    assert str(gw.pid()) in output or "already" in output.lower(), output
    assert lab.lan1.ping(A.INET[4], count=3) == 3
    assert gw.status()["pid"] == gw.pid()


def test_sigterm_leaves_traffic_flowing(gw, lab, wire, accounting):
    with Stream(lab, wire, sport=7001) as stream:
        time.sleep(0.4)
        pid = gw.pid()
        subprocess.run(["kill", "-TERM", str(pid)], check=True)
        end = time.monotonic() + TIMEOUT
        while gw.lab.gw.run(["test", "-d", f"/proc/{pid}/fd"], check=False).returncode == 0 and time.monotonic() < end:
            try:
                if "Z" in open(f"/proc/{pid}/stat", encoding="ascii").read().split()[2]:
                    break
            except FileNotFoundError:
                break
            time.sleep(0.02)
        assert time.monotonic() < end, "SIGTERM did not end the daemon"
        gw.running = None
        time.sleep(0.4)
        restarted(gw, accounting, quiet=False)
        time.sleep(0.3)
    accounting.open()
    assert stream.missing() == []


def other_way_round(config):
    """The same ports, the last one first."""
    head, *ports = config.split("[[port]]")
    return head.rstrip() + "\n\n" + "".join("[[port]]" + p.rstrip() + "\n\n" for p in reversed(ports))


def test_the_order_of_the_ports_may_change(gw, lab, wire, accounting):
    """By a restart and by a reload: flows continue, and every port keeps its own counters."""
    there, back = lab_config(), other_way_round(lab_config())
    with Stream(lab, wire, sport=7002) as stream:
        time.sleep(0.4)
        gw.kill()
        restarted(gw, accounting, back, quiet=False)
        time.sleep(0.4)
        before = gw.ports()
        gw.reload(there)
        time.sleep(0.4)
        after = gw.ports()
        gw.reload(back)
        time.sleep(0.3)
    assert stream.missing() == []
    assert stream.sent > 300
    for name, device in PORT_DEVICES.items():
        assert (before[name]["device"], after[name]["device"]) == (device, device)
    received = {name: after[name]["rx_packets"] - before[name]["rx_packets"] for name in PORT_DEVICES}
    sent = {name: after[name]["tx_packets"] - before[name]["tx_packets"] for name in PORT_DEVICES}
    # A stream from lan1 by the WAN, whose receiver answers port unreachable; elsewhere there is nothing but
    # neighbour discovery.
    assert received["0"] > 50 and sent["1"] > 50, (received, sent)
    assert max(count[n] for n in "23" for count in (received, sent)) < 20, (received, sent)
    gw.kill()
    restarted(gw, accounting)


def test_a_port_that_is_left_out_is_left_alone(gw, lab, accounting):
    """What the file of the next start does not name any more goes back to the kernel."""
    xdp = lambda: "xdp" in lab.gw.out("ip link show dev lan-b")
    assert xdp()
    gw.kill()
    *rest, last = lab_config().split("[[port]]")
    assert 'device = "lan-b"' in last and last.count("[") < 6, last
    restarted(gw, accounting, "[[port]]".join(rest), quiet=False)
    assert not xdp(), "the program is off the device"
    assert lab.lan1.ping(A.INET[4], count=3) == 3
    gw.kill()
    restarted(gw, accounting)
    assert xdp()
    assert lab.lan2.ping(A.INET[4], count=3) == 3


def test_unload_leaves_nothing(gw, lab, accounting):
    gw.kill()
    accounting.close()
    code, output = gw.foreground("unload", "--config", str(lab.conf))
    assert code == 0, output
    assert not lab.pins.exists() or not list(lab.pins.iterdir())
    for link in json.loads(lab.gw.out(["ip", "-j", "-d", "link"])):
        assert "xdp" not in link, link
    gw.start()
    accounting.open()
    assert lab.lan1.ping(A.INET[4], count=3) == 3


@pytest.mark.skipif(shutil.which("bpftool", path="/usr/sbin:/usr/bin") is None, reason="bpftool is not installed")
def test_pins_of_another_version(gw, lab, accounting):
    """A pinned map of another shape: either taken away and said so, or refused with the remedy."""
    gw.kill()
    accounting.close()
    victim = next(p for p in sorted(lab.pins.rglob("*")) if p.is_file() and "map" in what_is(p))
    victim.unlink()
    run(["bpftool", "map", "create", str(victim), "type", "array", "key", "4", "value", "12", "entries", "3", "name", "other"])
    log_before = len(gw.tail(10000))
    started = gw.start(check=False)
    output = gw.tail(10000)[log_before:]
    if started.returncode != 0:
        assert str(lab.pins) in output and "unload" in output, output
        code, text = gw.foreground("unload", "--config", str(lab.conf))
        assert code == 0, text
        gw.start()
    else:
        assert str(lab.pins) in output, f"the pins were replaced without a word\n{output}"
    accounting.open()
    assert lab.lan1.ping(A.INET[4], count=3) == 3


def what_is(path):
    done = run(["bpftool", "-j", "map", "show", "pinned", str(path)], check=False)
    return "map" if done.returncode == 0 and '"type"' in done.stdout else "other"


def test_a_bad_file_at_start_touches_nothing(gateway, lab):
    """Validation comes first: no program is attached when the file is wrong."""
    if gateway.running is not None:
        gateway.stop()
    bad = lab.run_dir / "bad.toml"
    bad.write_text(lab_config().replace('role = "wan"', 'role = "wlan"').replace("sag-lab", lab.run_dir.name))
    code, output = gateway.foreground("run", "--config", str(bad))
    assert code != 0 and "wlan" in output and "bad.toml" in output, output
    assert not lab.pins.exists()


def test_a_missing_device_is_named(gateway, lab, tmp_path):
    if gateway.running is not None:
        gateway.stop()
    bad = lab.run_dir / "missing.toml"
    bad.write_text(lab_config().replace('"lan-b"', '"nosuchdev"').replace("sag-lab", lab.run_dir.name))
    log = tmp_path / "log"
    # It may wait for the device, or end.
    with log.open("w") as out, process(lab.gw, [lab.vcpe, "run", "--config", str(bad)], stdout=out, stderr=out):
        within(2, "the device is named", lambda: "nosuchdev" in log.read_text(), log.read_text)
    gateway.foreground("unload", "--config", str(bad))
