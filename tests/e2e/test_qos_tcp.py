"""CARs and TCP: connections fill the peak rate, committed rates hold, and borrowed bandwidth comes back."""

import time

import pytest

from harness.blast import Arrivals, Blast
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.qos import Flood, Received, Taken, car, iperfs, measure_until, peak_rates, policy, qos, with_bandwidth

pytestmark = [pytest.mark.sag, pytest.mark.alone]

# Mbit/s by the TCP port of the CAR that has this peak rate.
PEAK_RATES = {6301: 1, 6305: 5, 6350: 50, 6400: 400}


@pytest.fixture
def taken(lab):
    it = Taken(lab.inet, "tcp", PEAK_RATES, mtu=1500, headers=52)
    yield it
    it.close()


@pytest.mark.parametrize("streams", [1, 8])
@pytest.mark.parametrize("algorithm", ["cubic", "bbr"])
def test_tcp_fills_its_peak_rate(gw_with, lab, taken, algorithm, streams):
    """Four peak rates at the same time, independent of each other."""
    known = lab.lan1.out("sysctl -n net.ipv4.tcp_available_congestion_control").split()
    if algorithm not in known:
        pytest.skip(f"this kernel has no {algorithm}")
    gw_with(peak_rates(PEAK_RATES, "tcp"))
    with iperfs(lab, {port: ["-C", algorithm, "-P", streams] for port in PEAK_RATES}):
        # The bursts are over, and the connections have reached their peak rates.
        taken.flowing({port: mbit * 1e6 / 8 for port, mbit in PEAK_RATES.items()})
        time.sleep(0.5)
        fills = lambda got: all(0.90 * mbit <= got[port] <= 1.02 * mbit for port, mbit in PEAK_RATES.items())
        got = measure_until(lambda: taken.mbit(4), fills)
    output = ", ".join(f"{got[port]:.2f} Mbit/s of {mbit}" for port, mbit in PEAK_RATES.items())
    print(f"{algorithm} x {streams}: {output}")
    assert fills(got), output


@pytest.fixture
def tcp(lab):
    """A function: connections from the LAN to a port of the Internet host, by the list of what they receive."""
    made = []

    def start(port, connections):
        sinks = []
        for n in range(connections):
            sinks.append(Received(lab.inet, port + n))
            made.append(sinks[-1])
            made.append(Flood(lab.lan1, A.INET[4], port + n))
        return lambda since, until: sum(s.mbit(since, until) for s in sinks)

    yield start
    for one in reversed(made):
        one.close()


def test_two_classes_of_tcp_share_a_link(gw_with, lab, tcp):
    """The lower class gets its committed rate, 8 of 40; the higher one the rest."""
    text = lab_config(
        extra=qos(
            car("high", 1, 0, 40), car("low", 5, 8, 40), policy(1, 6201, "tcp", last=6209), policy(5, 6211, "tcp", last=6219)
        )
    )
    gw_with(with_bandwidth(text, 40))
    low = tcp(6211, 4)
    time.sleep(1)
    high = tcp(6201, 4)
    time.sleep(2)

    def measure():
        start = time.time()
        time.sleep(4)
        now = time.time()
        return high(start, now), low(start, now)

    shared = lambda got: got[1] >= 8 * 0.95 and got[0] >= 32 * 0.90 and sum(got) <= 40 * 1.05
    got = measure_until(measure, shared)
    print(f"high {got[0]:.2f}, low {got[1]:.2f} Mbit/s of 40, CIR 8")
    assert shared(got), got


def test_tcp_has_its_committed_rate_back_within_100_ms(gw_with, lab, tcp):
    """The owner's UDP gets its committed rate back from a TCP class that borrowed it."""
    text = lab_config(
        extra=qos(car("owner", 1, 20, 20), car("guest", 5, 0, 40), policy(1, 6231), policy(5, 6241, "tcp", last=6249))
    )
    gw_with(with_bandwidth(text, 40))
    owner, guest = Arrivals(lab.inet, 6231), tcp(6241, 4)

    def measure():
        time.sleep(2.5)
        begun = time.time()
        borrowed = guest(begun - 1.5, begun)
        blast = Blast(lab.lan1, A.INET[4], 6231, 25)
        time.sleep(1.8)
        blast.stop()
        start = owner.first(begun)
        spans = (start, start + 0.1), (start + 0.1, start + 1.6)
        return borrowed, *(owner.mbit(*span) for span in spans), guest(*spans[1])

    # Borrowed while its owner is idle; the owner's from the first 100 ms on.
    right = lambda got: got[0] >= 36 and got[1] >= 19 and got[2] >= 19 and got[3] <= 20 * 1.05
    try:
        got = measure_until(measure, right)
    finally:
        owner.close()
    output = "guest {:.1f} Mbit/s before; owner {:.1f} in the first 100 ms, then {:.1f}, guest {:.1f}".format(*got)
    print(output)
    assert right(got), output
