"""Several tunnels to one place: shares by weight, and what the log says when one goes down and comes back."""

import re
import socket

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.tunnels import BRANCH_NET, FAR, LOCAL, REMOTE, hop, route, tunnel, tunnels, wait_for

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

VNIS = {"wide": 100, "narrow": 200}
SHARES = {"wide": 3, "narrow": 1}
FLOWS = 500


def ends(gw_with, far, **keys):
    """Both gateways with two tunnels of equal priority between them."""

    def config(local, remote, net):
        out = "".join(tunnel(n, "vxlan", 4, local=local, remote=remote, vni=v, **keys) for n, v in VNIS.items())
        return out + "".join(route(net, n) + f"metric = 10\nweight = {w}\n" for n, w in SHARES.items())

    text = far.config("vxlan", 4, vni=1)
    far.use(text[: text.index("\n[[tunnel]]")] + config(REMOTE[4], LOCAL[4], BRANCH_NET[4]))
    gw = gw_with(lab_config(config(LOCAL[4], REMOTE[4], "10.77.0.0/24")))
    wait_for(lambda: far.lab.lan1.ping(FAR[4], count=1, wait=1) == 1, 20)
    return gw


def test_flows_are_shared_by_weight(gw_with, lab, far):
    """Three to one within ten points, each flow by one tunnel, and all of them arrive."""
    gw = ends(gw_with, far)
    before = tunnels(gw), tunnels(far)
    server = far.site.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", 7777))
    server.settimeout(0.5)
    flows, missing = [], set(range(FLOWS))
    try:
        for _ in range(FLOWS):
            flows.append(lab.lan1.socket(socket.AF_INET, socket.SOCK_DGRAM))
            flows[-1].bind((A.LAN1[4], 0))
        for _ in range(3):
            for n, s in enumerate(flows):
                s.sendto(n.to_bytes(2, "big"), (FAR[4], 7777))
                if n % 20 == 19:
                    missing -= received(server)
        while missing and (more := received(server)):
            missing -= more
        assert not missing
    finally:
        for s in (server, *flows):
            s.close()
    for after, then, key in ((tunnels(gw), before[0], "tx_packets"), (tunnels(far), before[1], "rx_packets")):
        carried = {name: after[name][key] - then[name][key] for name in SHARES}
        total = sum(carried.values())
        assert total >= FLOWS * 3 * 0.95, carried
        for name, weight in SHARES.items():
            expected = weight / sum(SHARES.values())
            assert abs(carried[name] / total - expected) < 0.10, (key, carried)


def received(server):
    out = set()
    server.settimeout(0.1)
    try:
        while len(out) < 1000:
            out.add(int.from_bytes(server.recv(100), "big"))
    except TimeoutError:
        return out
    return out


def test_the_log_names_the_tunnel_and_why(gw_with, lab, far):
    """Down after as many lost probes as configured, up again after answers; the other tunnel is not affected."""
    gw = ends(gw_with, far, probe_interval=200, probe_loss=4)
    wait_for(lambda: all(t["rtt_us"] is not None for t in tunnels(gw).values()), 20)
    begin = len(lab.log.read_text().splitlines())

    def log_lines():
        """Lines of the log about tunnels that turned, without what colours them."""
        lines = (re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lab.log.read_text().splitlines()[begin:])
        return [line for line in lines if "tunnel is " in line]

    # Outer UDP header, then flags, and the VNI at byte 12.
    with hop(lab, f"udp dport 4789 @th,96,24 {VNIS['wide']}"):
        wait_for(lambda: tunnels(gw)["wide"]["state"] == "down")
        wait_for(lambda: log_lines() != [])
        down = log_lines()
        assert len(down) == 1 and "WARN" in down[0], down
        assert re.search(r"tunnel is down: its far end does not answer.*tunnel=\"?wide\"?.*lost=4", down[0]), down
        assert str(REMOTE[4]) in down[0]
        assert tunnels(gw)["narrow"]["state"] == "up"
        # The far end finds out by its own probes; until then some of its answers go by the tunnel that is down.
        wait_for(lambda: tunnels(far)["wide"]["state"] == "down")
        assert lab.lan1.ping(FAR[4]) == 5, "the other one carries all"
    wait_for(lambda: tunnels(gw)["wide"]["state"] == "up", 20)
    wait_for(lambda: len(log_lines()) > 1)
    up = log_lines()[1:]
    assert len(up) == 1 and re.search(r"INFO.*tunnel is up again.*tunnel=\"?wide\"?", up[0]), up
