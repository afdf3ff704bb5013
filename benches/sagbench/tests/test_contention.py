import pytest

from sagbench import contention


def test_one_core_waits_for_nobody():
    assert contention.scaling(300, 8, 60, (1,))[1] == pytest.approx(1e3 / 308, rel=0.02)


def test_a_line_that_moves_at_once_does_not_hurt():
    rates = contention.scaling(300, 8, 0.01, (1, 16))
    assert rates[16] == pytest.approx(16 * rates[1], rel=0.05)


def test_cores_share_no_more_than_the_line_can_do():
    rates = contention.scaling(300, 8, 60, (1, 2, 16))
    assert rates[1] < rates[2] < 2 * rates[1]
    # Each packet takes the line at least once.
    assert rates[16] < 1e3 / 60


def test_charging_ahead_spares_the_line():
    by_packet, ahead = (contention.scaling(300, 8, 60, (16,), n)[16] for n in (1, contention.AHEAD))
    assert ahead > 2 * by_packet
    alone = contention.scaling(300, 8, 60, (1,), contention.AHEAD)[1]
    assert alone == pytest.approx(1e3 / 308, rel=0.02), "nobody else charges"


def test_the_fit_finds_the_time_of_a_line():
    shared = 2 / contention.simulate(2, 300, 8, 45)
    assert contention.fit(300, 8, shared) == pytest.approx(45, abs=4)


def test_medians_by_access_and_work():
    rows = [{"access": "meter", "work": 80, "one": [3, 1, 2]}, {"access": "none", "work": 80, "one": [9]}]
    assert contention.median_of(rows, "meter", 80, "one") == 2
    with pytest.raises(StopIteration):
        contention.median_of(rows, "meter", 0, "one")
