"""Limits of sessions of an ACL rule: with two workers and flows in XDP, over a reload and kill -9."""

import time

import pytest

from harness.config import acl_table, lab_config
from harness.lab import Addresses as A
from harness.port_counters import restarted
from harness.waiting import within
from harness.wire import IP, UDP, Ether, IPv6, Raw, mark_of, marked

pytestmark = pytest.mark.sag

ANY = {4: "0.0.0.0/0", 6: "::/0"}
HOSTS = {4: (A.LAN1[4], "192.0.2.11"), 6: (A.LAN1[6], "2001:db8:1::11")}
MOST, EACH = 12, 8
_mark = iter(range(1, 1 << 30))


def config(*more, most=MOST, each=EACH):
    """Both families have a rule with limits."""
    limits = {"policy": "accept", "max_sessions": most, "max_sessions_per_source": each}
    rules = [
        {"id": f"limited-{f}", "source_cidr": ANY[f], "ip_protocol": "udp", **limits, "source_prefix_len": {4: 32, 6: 128}[f]}
        for f in (4, 6)
    ]
    text = lab_config(workers=2)
    return text + acl_table("limits", [*more, *rules])


@pytest.fixture
def passes(lab, wire, family):
    """A function: the flows, (host, port), whose packets come out at the far end."""
    lab.mute("lan1", "wan")
    out, send = wire.sniffer(lab.wan, "gw"), wire.sender(lab.lan1, "eth0")

    def run(flows):
        flow_of = {}
        for host, port in flows:
            src, dst = HOSTS[family][host], A.INET[family]
            net = IP(src=src, dst=dst) if family == 4 else IPv6(src=src, dst=dst)
            mark = next(_mark)
            flow_of[mark] = (host, port)
            send.send(Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a")) / net / UDP(sport=port, dport=9) / Raw(marked(mark)))
        came, end = set(), time.monotonic() + 0.3
        while time.monotonic() < end and len(came) < len(flow_of):
            packet = out.until(lambda p: mark_of(bytes(p)) in flow_of, timeout=0.1)
            if packet is not None:
                came.add(flow_of[mark_of(bytes(packet))])
        return came

    return run


def test_limits_hold_for_two_workers_over_reload_and_kill(gw_with, passes, lab, family, accounting):
    text = config()
    gw = gw_with(text)
    rule = lambda: gw.rules()[f"limited-{family}"]
    gw.ctl("sessions", "flush", "--all")
    within(3, "no session counts", lambda: rule()["sessions"] == 0)
    drops = lambda reason: gw.drops().get(("0", reason), 0)
    by_source, in_all = drops("acl-max-sessions-per-source"), drops("acl-max-sessions")
    first = passes([(0, 4000 + n) for n in range(EACH + 4)])
    assert len(first) == EACH
    within(3, "refused by name", lambda: drops("acl-max-sessions-per-source") - by_source == 4)
    second = passes([(1, 4000 + n) for n in range(EACH)])
    assert len(second) == MOST - EACH
    within(3, "refused by name", lambda: drops("acl-max-sessions") - in_all == EACH - len(second))
    live = sorted(first | second)
    assert rule()["sessions"] == MOST and rule()["refused"] == 4 + EACH - len(second)
    assert passes(live) == set(live), "sessions that live go on"
    metric = f'sag_acl_rule_sessions{{rule="limits/limited-{family}"}} {MOST}'
    metrics = lambda: lab.gw.out(["curl", "-s", "http://127.0.0.1:9477/metrics"])
    within(3, "the metric has them", lambda: metric in metrics(), metrics)
    # A rule before it changes nothing; one that is new and full admits what lives.
    gw.reload(config({"id": "other", "ip_protocol": "tcp", "dest_port_range": "23/23"}))
    assert passes([(0, 6000)]) == set() and passes(live) == set(live)
    gw.reload(config(most=MOST + 1, each=MOST + 1))
    within(3, "sessions count for the new rule", lambda: rule()["sessions"] == MOST)
    assert len(passes([(0, 6001), (0, 6002)])) == 1
    gw.reload(text)
    # The daemon's memory is gone; the pinned table is not.
    gw.kill()
    restarted(gw, accounting, text, quiet=False)
    assert rule()["sessions"] == MOST + 1
    assert passes([(0, 7000), (1, 7000)]) == set()
    assert passes(live) == set(live)
    gw.ctl("sessions", "flush", "--all")
    within(3, "no session counts", lambda: rule()["sessions"] == 0)
    assert passes([(0, 8000)]) == {(0, 8000)}
    accounting.open()
