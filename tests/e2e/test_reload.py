"""A changed file by SIGHUP: it takes effect at once, on live flows too, and loses nothing."""

import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.stream import Stream
from harness.traffic import iperf_server
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.alone]


def rules(n, **extra):
    """Rules that our traffic does not match, and one more."""
    far = [{"id": f"far-{i}", "ip_protocol": "tcp", "dest_cidr": f"203.0.113.{200 + i % 50}/32", "dest_port_range": f"{i + 1}/{i + 1}",
            "priority": 20} for i in range(n)]
    return [*far, {"id": "counts", "policy": "accept", "ip_protocol": "udp", "priority": 30, **extra}]


def test_reloads_lose_no_packet_of_a_stream(gw_with, lab, wire):
    gw = gw_with(lab_config(acl=rules(50)))
    with Stream(lab, wire) as stream:
        for turn in range(10):
            gw.reload(lab_config(acl=rules(50 + turn)))
            time.sleep(0.05)
    assert stream.sent > 100
    assert stream.missing() == []


@pytest.mark.slow
def test_reload_under_heavy_load_loses_no_packet(gw_with, lab, record_property):
    """Up to 1 Gbit/s of UDP, or what this machine carries; every loss of the gateway has a counter."""
    gw = gw_with(lab_config(acl=rules(100)))
    with iperf_server(lab.inet) as port:
        client = ["iperf3", "-c", A.INET[4], "-p", port, "-u", "-b", "1000M", "-l", "1400", "-t", "4", "-J"]
        before, drops_before = gw.ports(), gw.drops()
        lab_before = lab.gw.devices()
        load = lab.lan1.popen(client)
        time.sleep(0.7)
        for turn in range(8):
            gw.reload(lab_config(acl=rules(100 + turn)))
            time.sleep(0.25)
        assert load.wait(30) == 0
        load.stdout.close()
    time.sleep(0.3)
    after, lab_after = gw.ports(), lab.gw.devices()
    received = after["0"]["rx_packets"] - before["0"]["rx_packets"]
    record_property("packets", received)
    print(f"{received} packets, {received * 1400 * 8 / 4e6:.0f} Mbit/s, over 8 reloads")
    lost = {k: n - drops_before.get(k, 0) for k, n in gw.drops().items() if n != drops_before.get(k, 0)}
    assert not lost, lost
    for dev in ("lan-a", "wan"):
        for counter in ("rx_dropped", "tx_dropped"):
            assert lab_after[dev][counter] == lab_before[dev][counter], f"{dev} {counter}"
    assert after["1"]["tx_packets"] - before["1"]["tx_packets"] >= received - 20


def test_a_new_rule_bites_on_a_live_flow(gw_with, lab, wire):
    gw = gw_with(lab_config())
    with Stream(lab, wire, sport=6001) as stream:
        time.sleep(0.3)
        gw.reload(lab_config(acl=[{"id": "cut", "ip_protocol": "udp", "source_port_range": "6001/6001"}]))
        cut = stream.sent
        time.sleep(0.5)
        until = stream.sent
    missing = stream.missing()
    assert missing and missing[0] >= cut - 20, (missing[:5], cut)
    assert set(range(cut + 20, until)) <= set(missing), "packets passed after the rule was in force"
    assert gw.rules()["cut"]["hits"] >= until - cut - 20


def test_hits_survive_edits_of_other_rules(gw_with, lab):
    gw = gw_with(lab_config(acl=rules(5)))
    for _ in range(3):
        lab.lan1.run(["bash", "-c", f"echo x >/dev/udp/{A.INET[4]}/9"])
    before = gw.rules()["counts"]["hits"]
    assert before >= 1
    gw.reload(lab_config(acl=rules(6)))
    assert gw.rules()["counts"]["hits"] == before
    gw.reload(lab_config(acl=rules(3)[:2] + rules(0)))
    assert gw.rules()["counts"]["hits"] == before


@pytest.mark.parametrize(
    "bad,named",
    [("[[acl]]\nid = 'a'\nbogus = 1\n", "bogus"), ("this is not TOML\n", "vcpe.toml:"), ('[[route]]\ndestination = "10.0.0.0/33"\n', "10.0.0.0/33")],
    ids=["unknown-key", "syntax", "bad-value"],
)
def test_a_bad_file_changes_nothing(gw_with, lab, bad, named):
    good = lab_config(acl=[{"id": "stays", "ip_protocol": "tcp", "dest_port_range": "23/23"}])
    gw = gw_with(good)
    epoch = gw.status()["config_epoch"]
    gw.write_config(good + bad)
    lab.sh("gw-reload")
    within(1, "the error is named", lambda: named in gw.tail(10), gw.tail)
    assert gw.status()["config_epoch"] == epoch
    assert "stays" in gw.rules()
    assert lab.lan1.ping(A.INET[4], count=3) == 3
    code, output = gw.foreground("check", "--config", str(lab.conf))
    assert code == 1 and named in output, output
    gw.write_config(good)
