import pytest

from sagbench import stats
from sagbench.measure import Side, broken, turn
from sagbench.offered import search


def test_summary():
    s = stats.summary([5, 1, 3, 2, 4])
    assert (s["median"], s["q25"], s["q75"], s["min"], s["max"], s["n"]) == (3, 2, 4, 1, 5, 5)
    assert stats.summary([7])["q75"] == 7
    with pytest.raises(ValueError):
        stats.quantile([], 0.5)


def test_ratios_are_of_neighbours():
    # The machine became twice as slow in between: the ratio has not changed.
    assert stats.ratios([4, 4, 2, 2], [8, 8, 4, 4])["min"] == 0.5
    assert stats.ratios([4, 4, 2, 2], [8, 8, 4, 4])["max"] == 0.5
    with pytest.raises(ValueError):
        stats.ratios([1], [0])


@pytest.mark.parametrize(
    "values, target, at_least, expected",
    [
        ([6.1, 6.2, 6.3], 6, True, "met"),
        ([5.1, 5.2, 5.3], 6, True, "missed"),
        ([4.0, 6.5, 9.0], 6, True, "noise too large"),
        ([5.99, 6.0, 6.01], 6, True, "met"),
        ([0, 0, 0], 0, False, "met"),
        ([3], 0, False, "missed"),
        ([0.95, 0.96, 0.96], 0.97, True, "missed"),
    ],
)
def test_verdicts(values, target, at_least, expected):
    assert stats.verdict(stats.summary(values), target, at_least) == expected


def test_nothing_measured_is_no_verdict():
    assert stats.verdict(None, 1) == "not measured"


class Device:
    """Loses what is over its capacity."""

    def __init__(self, capacity):
        self.capacity, self.trials = capacity, 0

    def __call__(self, rate):
        self.trials += 1
        return rate, max(0.0, 1 - self.capacity / rate)


def test_search_finds_the_capacity():
    device = Device(377_777)
    found = search(device, 4e6, 0.0, steps=12)
    assert 0.97 * 377_777 <= found <= 377_777
    # Three tries at each step at most.
    assert device.trials <= 36


def test_search_takes_the_top_if_nothing_is_lost():
    device = Device(1e9)
    assert search(device, 4e6, 0.0) == 4e6
    assert device.trials == 1


def test_search_finds_nothing_where_nothing_passes():
    assert search(lambda rate: (rate, 1.0), 4e6, 0.005) == 0.0


def test_a_machine_that_stands_still_now_and_then_hides_no_throughput():
    trials = []

    def paced(rate):
        trials.append(rate)
        return rate, 0.0 if rate <= 3e6 and len(trials) % 3 else 0.2

    assert search(paced, 8e6, 0.0, 10) == pytest.approx(3e6, rel=0.03)


class Machine:
    """Becomes slower with every trial, and does something else for a while."""

    def __init__(self):
        self.trials = 0

    def rate(self, share):
        self.trials += 1
        return 8e6 * 0.99**self.trials * (0.1 if 41 <= self.trials < 47 else 1.0) * share


class Turning(Side):
    """Reaches a share of what the machine can."""

    def __init__(self, name, machine, share, slow=0):
        super().__init__(name, None)
        self.machine, self.share, self.by_worker, self.order = machine, share, slow, []

    def look(self):
        return None

    def note(self, before, sent):
        self.slow += self.by_worker

    def send(self, frames, keep=True):
        self.order.append(frames)
        self.sent += frames
        return {"offered_pps": self.machine.rate(self.share), "sent": frames, "lost": 0}


def test_slices_take_turns_and_the_median_counts():
    machine = Machine()
    one, other = Turning("one", machine, 1.0), Turning("other", machine, 0.5, slow=7)
    for _ in range(3):
        turn([one, other], 0.1)
    assert (len(one.rates), len(other.rates)) == (3, 3)
    # Each slice is warmed up by every flow once; all frames are checked for the path that they took.
    assert one.order[::2] == [10_000] * 27 and other.slow == 21
    assert stats.ratios(other.rates, one.rates)["median"] == pytest.approx(0.5, rel=0.06)


def side(**values):
    s = Side("gateway", None)
    for key, value in values.items():
        setattr(s, key, value)
    return s


def test_broken_measurements_are_named():
    assert not broken([side(sent=1000)])
    assert "3 of 1000 frames lost" in broken([side(sent=1000, lost=3)])[0]
    assert not broken([side(sent=1000, lost=3, may_lose=True)])
    assert "not forwarded by XDP" in broken([side(sent=1000, slow=2)])[0]
    assert not broken([side(sent=10_000, slow=2)])
