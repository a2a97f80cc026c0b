"""What the clock tells of seconds that a test deals out."""

import pytest

from tikmix_hf.updates import clock as module
from tikmix_hf.updates.clock import Clock


class Hands:
    """Stands for `time`; moves when it is told to, and did not start at 0."""

    def __init__(self):
        self.seconds = 1000.0

    def perf_counter(self):
        return self.seconds


@pytest.fixture
def hands(monkeypatch):
    hands = Hands()
    monkeypatch.setattr(module, "time", hands)
    return hands


def update(clock, hands, *, trained_tokens, seconds):
    clock.begin_update(trained_tokens)
    hands.seconds += seconds
    return clock.end_update()


def test_an_update_takes_the_seconds_from_its_begin_to_its_end(hands):
    clock = Clock(0)
    hands.seconds += 8  # of training
    assert update(clock, hands, trained_tokens=100, seconds=3) == 3
    hands.seconds += 50
    assert update(clock, hands, trained_tokens=200, seconds=2) == 2


def test_planned_seconds_are_tokens_at_what_training_took_for_one(hands):
    clock = Clock(0)
    hands.seconds += 8
    update(clock, hands, trained_tokens=100, seconds=3)
    assert clock.planned(50) == pytest.approx(8 / 100 * 50)
    assert clock.planned(0) == 0


def test_seconds_of_updates_are_none_of_training_whose_average_goes_on(hands):
    clock = Clock(0)
    hands.seconds += 8
    update(clock, hands, trained_tokens=100, seconds=30)
    hands.seconds += 2  # a faster stretch
    clock.begin_update(200)
    expected = pytest.approx((8 + 2) / 200 * 50)
    assert clock.planned(50) == expected
    hands.seconds += 70  # within the update, training does not go on
    assert clock.planned(50) == expected
    clock.end_update()
    hands.seconds += 900  # nor does what was planned for the last update move after it
    assert clock.planned(50) == expected


def test_tokens_of_another_process_took_no_seconds_of_this_one(hands):
    clock = Clock(7000)
    hands.seconds += 8
    update(clock, hands, trained_tokens=7100, seconds=3)
    assert clock.planned(50) == pytest.approx(8 / 100 * 50)


@pytest.mark.parametrize("trained_before", [0, 7000])
def test_nothing_is_planned_before_training_read_a_token(hands, trained_before):
    clock = Clock(trained_before)
    assert clock.planned(50) is None  # nor before an update
    hands.seconds += 8
    update(clock, hands, trained_tokens=trained_before, seconds=3)
    assert clock.planned(50) is None


def test_the_share_of_time_is_of_all_updates_since_the_start(hands):
    clock = Clock(0)
    hands.seconds += 8
    assert clock.time_share == 0
    update(clock, hands, trained_tokens=100, seconds=2)
    assert clock.time_share == pytest.approx(2 / 10)
    hands.seconds += 10
    update(clock, hands, trained_tokens=200, seconds=5)
    assert clock.time_share == pytest.approx((2 + 5) / (8 + 2 + 10 + 5))
