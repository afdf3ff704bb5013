"""Forward error correction between two gateways, with a hop between them that loses packets."""

import random
import socket
import threading
import time

import pytest

from harness.traffic import iperf
from harness.tunnels import FAR, esp_keys, gateway_config, hop, tunnels, turned, wait_for

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

# Percentage of ESP packets that the hop loses, in both directions.
LOST = 5
LOSES = f"meta l4proto esp numgen random mod 100 < {LOST}"


@pytest.fixture
def both(gw_with, far, lab):
    """A function: both gateways with an ESP tunnel and what else is given for it."""

    def use(**more):
        keys = {**esp_keys(), "probe_interval": 500, **more}
        gw = gw_with(gateway_config("esp", 4, **keys))
        far.use(far.config("esp", 4, **turned(keys)))
        wait_for(lambda: tunnels(gw)["pop1"]["rtt_us"] is not None and tunnels(far)["branch"]["rtt_us"] is not None, 20)
        wait_for(lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1, 20)
        return gw

    return use


def blast(src, dst, count, rate):
    """Datagrams of random content and size: which share of them did not arrive. What arrives is as it was sent."""
    rng = random.Random(7)
    sent = [n.to_bytes(4, "big") + rng.randbytes(rng.randrange(50, 1000)) for n in range(count)]
    server, client = dst.socket(socket.AF_INET, socket.SOCK_DGRAM), src.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    server.bind(("", 7778))
    server.settimeout(1)
    got, done = {}, threading.Event()

    def receive():
        while True:
            over = done.is_set()
            try:
                data = server.recv(2000)
            except TimeoutError:
                if over:
                    return
                continue
            n = int.from_bytes(data[:4], "big")
            assert n not in got, f"datagram {n} came twice"
            got[n] = data

    taker = threading.Thread(target=receive)
    taker.start()
    try:
        begin = time.monotonic()
        for n, data in enumerate(sent):
            client.sendto(data, (FAR[4], 7778))
            time.sleep(max(0, begin + n / rate - time.monotonic()))
        done.set()
        taker.join()
    finally:
        done.set()
        server.close()
        client.close()
    assert all(sent[n] == data for n, data in got.items()), "a datagram was altered"
    return 1 - len(got) / count


def ring_full(gw):
    return sum(n for (_, reason), n in gw.drops().items() if reason == "rx-ring-full")


@pytest.mark.parametrize("code", [{"fec_window": 4, "fec_repairs": 1}, {"fec_window": 10, "fec_repairs": 3}], ids=["xor", "rs"])
def test_lost_packets_come_back(both, far, lab, code):
    both()
    with hop(lab, LOSES):
        plain = blast(lab.lan1, far.site, 2000, 1500)
    gw = both(fec=True, **code)
    with hop(lab, LOSES):
        blast(lab.lan1, far.site, 20, 1500)
        before = tunnels(gw)["pop1"], tunnels(far)["branch"]
        full = ring_full(gw)
        fixed = blast(lab.lan1, far.site, 4000, 1500)
        # Packets that a busy machine lost before the tunnel do not count.
        fixed -= (ring_full(gw) - full) / 4000
    tx, rx = tunnels(gw)["pop1"], tunnels(far)["branch"]
    gained = lambda now, then, key: now["fec"][key] - then["fec"][key]
    repairs, recovered = gained(tx, before[0], "repairs_sent"), gained(rx, before[1], "recovered")
    print(f"lost {plain:.2%} without, {fixed:.2%} with {code}: {repairs} repairs, {recovered} recovered, "
          f"{gained(tx, before[0], 'overhead_bytes')} bytes more, {gained(rx, before[1], 'unrecoverable')} windows lost")
    assert 0.025 < plain < 0.085, plain
    # One repair for four loses what is lost twice in a window: about 0.9 %.
    assert fixed < (0.005 if code["fec_repairs"] > 1 else 0.02), fixed
    share = code["fec_repairs"] / code["fec_window"]
    assert 0.85 * share < repairs / 4000 < 1.3 * share, repairs
    assert 100 < recovered < 400, recovered


def test_few_packets_do_not_wait_for_a_window(both, far, lab):
    """Sparse traffic: a window is closed by time."""
    both(fec=True, fec_repairs=3)
    with hop(lab, LOSES):
        back = lab.lan1.ping(FAR[4], count=400, interval=0.01)
    print(f"{400 - back} of 400 echoes lost, over a hop that loses {LOST} % twice")
    assert back >= 398
    # One end only: the other passes on what it gets.
    assert tunnels(far)["branch"]["fec"]["recovered"] > 0


def test_one_end_without(gw_with, far, lab):
    keys = {**esp_keys(), "probe_interval": 500}
    gw = gw_with(gateway_config("esp", 4, **keys, fec=True))
    far.use(far.config("esp", 4, **turned(keys)))
    wait_for(lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1, 20)
    assert lab.lan1.ping(FAR[4], count=100, interval=0.005) >= 98
    assert tunnels(gw)["pop1"]["fec"]["repairs_sent"] > 0 and tunnels(far)["branch"]["fec"] is None


def test_full_packets_and_their_repairs_pass(both, far, lab):
    """Repairs are as long as the longest packet and fit the path: no segment is of a size that is lost with its repair."""
    gw = both(fec=True)
    wait_for(lambda: tunnels(gw)["pop1"]["path_mtu"] == 1500, 20)
    got = iperf(lab.lan1, far.site, FAR[4], seconds=2)
    state = tunnels(gw)["pop1"]
    print(f"{got['mbit']:.0f} Mbit/s, {state['fec']}")
    assert got["mbit"] > 20, got
    # 1,500 less IP, ESP and its trailer make 1,446.
    assert state["mtu"] == 1434, "a repair has 12 bytes of header"
    with hop(lab, "meta l4proto esp meta length > 1400 limit rate 40/second"):
        before = tunnels(far)["branch"]["fec"]["recovered"]
        iperf(lab.lan1, far.site, FAR[4], seconds=1)
        assert tunnels(far)["branch"]["fec"]["recovered"] > before, "no repair of full packets has come"


def test_metrics_tell_of_the_tunnel(both, lab):
    gw = both(fec=True)
    lab.lan1.ping(FAR[4], count=20, interval=0.01)
    assert tunnels(gw)["pop1"]["state"] == "up"
    output = ""

    def value(name, labels='tunnel="pop1"'):
        return float(output.split(f"{name}{{{labels}}} ")[1].split("\n")[0])

    def measured():
        nonlocal output
        output = lab.gw.out(["curl", "-sS", "--max-time", 5, "http://127.0.0.1:9477/metrics"])
        return 'sag_tunnel_rtt_seconds{tunnel="pop1"}' in output and value("sag_tunnel_fec_repairs_total") > 0

    wait_for(measured, 5)
    assert value("sag_tunnel_state", 'tunnel="pop1",state="up"') == 1
    assert 0 < value("sag_tunnel_rtt_seconds") < 1 and 0 <= value("sag_tunnel_jitter_seconds") < 1
    assert 0 <= value("sag_tunnel_loss_ratio") < 0.2
    assert value("sag_tunnel_fec_repairs_total") > 0 and value("sag_tunnel_fec_overhead_bytes_total") > 0
    # On a machine that has much to do, a ring may be full.
    assert value("sag_tunnel_fec_recovered_packets_total") < 20
    assert value("sag_tunnel_fec_unrecoverable_windows_total") < 5
