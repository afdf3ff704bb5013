"""10,000 translated, filtered and metered flows at the generator's full rate, over every kind of restart of the daemon
back: nothing is lost, no flow gets another port."""

import shutil
import signal
import time

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config
from harness.port_counters import restarted
from harness.trial import Trials, result

pytestmark = [pytest.mark.sag, pytest.mark.alone]

FLOWS = 10_000
ACL = '[[acl]]\nid = "acl-1"\n' + "".join(
    f'[[acl.rule]]\nid = "r{n}"\ndirection = "out"\ntype = "WAN"\npolicy = "drop"\nip_protocol = "tcp"\n'
    f'source_cidr = "192.0.2.0/26"\ndest_cidr = "203.0.{n}.0/24"\ndest_port_range = "{n + 1}/{n + 9}"\npriority = 1\n'
    for n in range(100)
)
CAR = """
[[qos]]
id = "qos-1"
[[qos.car]]
id = "car-1"
priority = 1
limit_type = "Absolute"
min_bandwidth_abs = 0
max_bandwidth_abs = 40000
[[qos.policy]]
id = "policy-1"
priority = 1
source_cidr = "0.0.0.0/0"
dest_cidr = "0.0.0.0/0"
ip_protocol = "udp"
source_port_range = "-1/-1"
dest_port_range = "-1/-1"
"""


@pytest.fixture
def trials(lab):
    it = Trials(lab, FLOWS, "--outside", A.GW_WAN[4])
    yield it
    it.close()


def test_nothing_is_lost_and_nothing_renumbered(gw_with, gateway, lab, accounting, trials, tmp_path, monkeypatch):
    config = nat_config(ACL + CAR)
    gw = gw_with(config)
    lab.lan1.ping(A.INET[4], count=1)  # neighbours
    # One after the other, so that every flow gets its session.
    made = trials.run("--frames", 2 * FLOWS, "--window", 64)
    assert (made["lost"], made["flows"], made["foreign"]) == (0, FLOWS, 0), made
    sessions = gw.status()["sessions"]["ipv4"]
    assert sessions >= FLOWS

    traffic = trials.start("--seconds", 14)
    newer = tmp_path / "sag-vcpe"
    shutil.copy(lab.vcpe, newer)
    for end, binary in ((signal.SIGKILL, lab.vcpe), (signal.SIGTERM, lab.vcpe), (signal.SIGTERM, newer)):
        time.sleep(1)
        gateway.kill(end)
        monkeypatch.setitem(lab.env, "SAG_VCPE_BIN", str(binary))
        restarted(gateway, accounting, config, quiet=False)
    assert traffic.poll() is None, "the traffic lasts longer than the restarts"
    seen = result(traffic)
    assert seen["sent"] > 100 * FLOWS
    assert (seen["lost"], seen["renumbered"], seen["foreign"], seen["flows"]) == (0, 0, 0, FLOWS), seen
    status = gateway.status()
    assert status["sessions"]["ipv4"] == sessions
    # Every flow was revalidated by the last daemon, with one packet each.
    revalidated = {p["reason"]: p["packets"] for p in status["punts"]}["epoch"]
    assert FLOWS <= revalidated <= FLOWS * 1.1, status["punts"]
    # The counters of the last daemon began in the middle of the traffic; those of the next one begin without traffic.
    gateway.kill(signal.SIGTERM)
    restarted(gateway, accounting, config)
