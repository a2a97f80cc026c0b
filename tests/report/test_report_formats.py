"""Numbers as people read them, and the round numbers at a plot's edge."""

from __future__ import annotations

import pytest

from tikmix_hf.report import formats
from tikmix_hf.report.axes import Axis, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.14159, "3.142"),
        (-0.012345, "−0.01235"),
        (1234.5, "1,234"),
        (99999, "100,000"),
        (0.00001, "1.000e−05"),
        (9.9996, "10.00"),
        (float("nan"), "–"),
        (None, "–"),
    ],
)
def test_a_number_has_four_digits(value, text):
    assert formats.number(value) == text


def test_signs_and_shares():
    assert formats.number(0.5, digits=2, sign=True) == "+0.50"
    assert formats.share(0.1256) == "12.6%"
    assert formats.share(-0.00026, sign=True) == "−0.026%"
    assert formats.share(0.0) == "0.0%"


def test_a_value_is_as_exact_as_its_error():
    assert formats.with_error(0.0288123, 0.00587) == "0.0288 ± 0.0059"
    assert formats.with_error(394.8349, 150.66) == "395 ± 151"
    assert formats.with_error(3.26, 0.0996) == "3.26 ± 0.10"
    assert formats.with_error(3.26, None) == "3.260"
    assert formats.with_error(3.26, 0.0) == "3.260 ± 0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (59.98, "60.0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "–")],
)
def test_time_is_told_in_the_largest_units(seconds, text):
    assert formats.seconds(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 100, ["0", "20", "40", "60", "80", "100"]),
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.11, 0.12, ["−0.10", "−0.05", "0.00", "0.05", "0.10"]),
        (0, 250_000, ["0", "50k", "100k", "150k", "200k", "250k"]),
        (0, 3e9, ["0", "1B", "2B", "3B"]),
    ],
)
def test_ticks_are_round_and_told_apart(low, high, texts):
    axis = Axis(low=low, high=high, name="")
    assert axis.text(axis.ticks()) == texts


@pytest.mark.parametrize("values", [[5.0], [-2.0, 7.0], [0.0, 0.0], [1e-9, 2e-9], [1e300]])
def test_an_axis_holds_all_values_and_has_ticks(values):
    axis = Axis.around(values, "")
    assert all(0 <= axis.place(value) <= 1 for value in values)
    assert 1 <= len(axis.ticks()) <= 12


def test_places_are_written_in_per_cent():
    assert [percent(place) for place in (0, 0.5, 1 / 3, 1)] == ["0%", "50%", "33.333%", "100%"]
