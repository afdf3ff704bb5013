"""What the operator sees: sagctl's answers and the metrics agree with the traffic."""

import re
import time

import pytest

from harness.config import lab_config
from harness.lab import PORT_DEVICES
from harness.lab import Addresses as A
from harness.net import run

pytestmark = pytest.mark.sag


def test_status(gw):
    status = gw.status()
    assert status["version"] and status["uptime_s"] >= 0 and status["config_epoch"] >= 1
    assert len(status["workers"]) == 2
    assert status["sessions"]["capacity_ipv4"] == 65536


def test_ports_say_what_they_are(gw, lab):
    ports = gw.ports()
    assert {n: p["device"] for n, p in ports.items()} == PORT_DEVICES
    for port in ports.values():
        assert port["up"] and port["mtu"] == 1500
        assert port["mac"] == lab.gw.mac(port["device"])
        for word in ("veth", "2", "native"):
            assert word in port["capability"], port["capability"]


def test_counters_follow_traffic(gw, lab, family):
    before = gw.ports()
    assert lab.lan1.ping(A.INET[family], count=50, interval=0.005) == 50
    after = gw.ports()
    moved = lambda port, key: after[port][key] - before[port][key]
    for port in ("0", "1"):
        assert 50 <= moved(port, "forwarded") <= 60
        assert 50 <= moved(port, "tx_packets") <= 60
        assert moved(port, "rx_bytes") >= 50 * 84


def test_the_fast_path_carries_established_flows(gw, lab):
    """After its first packets a flow needs no worker any more."""
    lab.lan1.ping(A.INET[4], count=3)
    before = gw.ports()["0"]
    assert lab.lan1.ping(A.INET[4], count=200, interval=0.002) == 200
    after = gw.ports()["0"]
    assert after["rx_packets"] - before["rx_packets"] >= 200
    assert after["punted"] - before["punted"] <= 20


def test_sessions(gw, lab):
    lab.lan1.run(["ping", "-q", "-c", "3", "-i", "0.02", A.INET[4]])
    lab.lan1.run(["bash", "-c", f"echo hello >/dev/udp/{A.INET[4]}/4242"])
    sessions = gw.ctl("sessions")["sessions"]
    udp = [s for s in sessions if s["dport"] == 4242]
    assert len(udp) == 1
    assert (udp[0]["family"], udp[0]["src"], udp[0]["dst"]) == (4, A.LAN1[4], A.INET[4])
    assert str(udp[0]["proto"]).lower() in ("udp", "17")
    assert (udp[0]["in_port"], udp[0]["out_port"], udp[0]["packets"]) == ("0", "1", 1)
    icmp = [s for s in sessions if str(s["proto"]).lower() in ("icmp", "1") and s["src"] == A.LAN1[4]]
    assert any(s["packets"] == 3 and s["reply_packets"] == 3 for s in icmp), icmp


def test_routes(gw):
    routes = {r["destination"]: r for r in gw.ctl("routes")["routes"]}
    default = routes["0.0.0.0/0"]["next_hops"]
    assert [(h["via"], h["port"]) for h in default] == [(A.WAN_ROUTER[4], "1")]
    assert routes["192.0.2.192/26"]["next_hops"][0]["via"] == A.POP_LINK[4]
    assert routes["::/0"]["next_hops"][0]["via"] == A.WAN_ROUTER[6]
    assert routes["192.0.2.0/26"]["next_hops"][0]["port"] == "0"


def test_routes_of_the_file(gw_with, lab):
    extra = '\n[[route]]\ndestination = "203.0.113.224/27"\nnext_hop = "192.0.2.130"\nport = "2"\n'
    gw = gw_with(lab_config(extra=extra))
    route = {r["destination"]: r for r in gw.ctl("routes")["routes"]}["203.0.113.224/27"]
    assert route["source"] == "config"
    assert (route["next_hops"][0]["via"], route["next_hops"][0]["port"]) == ("192.0.2.130", "2")
    output = lab.lan1.out(["traceroute", "-n", "-q", 1, "-w", 1, "-m", 2, "203.0.113.225"])
    assert A.POP_LINK[4] in output, output


def test_human_tables(gw, lab):
    """Without --json: tables with every port, and a text for every drop."""
    for command in ("status", "ports", "drops", "acl", "routes", "sessions"):
        output = run([lab.sagctl, "--socket", lab.socket, command]).stdout
        assert output.strip() and "{" not in output, f"{command}: {output}"
    output = run([lab.sagctl, "--socket", lab.socket, "ports"]).stdout
    for device in PORT_DEVICES.values():
        assert device in output


def test_metrics_agree_with_the_ports(gw, lab):
    # A series is there once it has counted something; the numbers are at most a second old.
    lab.lan1.run(["ping", "-c", "1", "-W", "1", "-t", "1", A.INET[4]], check=False)
    time.sleep(1.2)
    text = lab.gw.out(["curl", "-sS", "--max-time", 5, "http://127.0.0.1:9477/metrics"])
    ports = gw.ports()
    seen = dict(re.findall(r'(?m)^sag_port_rx_packets_total\{port="([^"]+)"\} (\d+)', text))
    assert set(seen) == set(ports)
    for name, value in seen.items():
        assert abs(int(value) - ports[name]["rx_packets"]) <= 10
    for metric in ("sag_drops_total", "sag_sessions", "sag_config_epoch", "sag_fastpath_packets_total", "sag_punted_packets_total"):
        assert re.search(rf"(?m)^{metric}\b", text), metric


def test_a_diff_names_what_would_change_and_nothing_else(gw_with, lab):
    gw = gw_with(lab_config())
    epoch = gw.status()["config_epoch"]
    text = lab.conf.read_text()
    # Ports in another order and a default spelled out say the same.
    other = lab.run_dir / "other.toml"
    head, *tables = text.split("[[port]]")
    other.write_text("[[port]]".join([head, *[t if t.endswith("\n") else t + "\n" for t in reversed(tables)]]))
    for file in (lab.conf, other):
        assert gw.ctl("config", "diff", str(file))["changes"] == [], file
    assert 'fail_action = "drop"' in gw.ctl("config", "show")["text"]
    other.write_text(text.replace("[dataplane]", '[dataplane]\nfail_action = "pass_to_kernel"\nicmp_rate = 1000'))
    change = {"path": "dataplane.fail_action", "old": '"drop"', "new": '"pass_to_kernel"'}
    assert gw.ctl("config", "diff", str(other))["changes"] == [change]
    assert gw.status()["config_epoch"] == epoch


def test_no_gateway_is_said_so(lab):
    done = run([lab.sagctl, "--socket", "/run/nowhere/vcpe.sock", "status"], check=False)
    assert done.returncode != 0 and "/run/nowhere/vcpe.sock" in done.stderr
