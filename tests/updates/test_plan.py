"""Plan: the budget holds, what the user fixed stands, and what cannot be paid for is said."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from tikmix_hf.updates.plan import (
    LEAST_ROWS,
    MOST_ROWS,
    MOST_UPDATES,
    USUAL_ROWS,
    Part,
    RunSize,
    make_plan,
)
from tikmix_hf.updates.wishes import Wishes


def run_size(num_tokens=1e6, *, max_steps=1000, num_parts=5, num_rows=10_000, tokens_per_row=100.0):
    part = Part(num_rows=num_rows, tokens_per_row=tokens_per_row)
    return RunSize(
        max_steps=max_steps,
        last_step=max_steps - 2,
        num_tokens=num_tokens,
        parts=(part,) * num_parts,
    )


def plan(run=None, *, budget=0.01, steps=None, num_rows=None):
    return make_plan(run or run_size(), budget=budget, steps=steps, num_rows=num_rows)


def most_updates_and_rows(run, budget):
    """All plans there are, tried out: the most updates of 64 rows that fit, then the most rows."""
    fits = [
        (updates, rows)
        for updates, rows in itertools.product(range(1, MOST_UPDATES + 1), range(16, 4097, 8))
        if updates * rows * sum(part.tokens_per_row for part in run.parts)
        <= budget * run.num_tokens
    ]
    updates = max((u for u, rows in fits if rows >= USUAL_ROWS), default=1)
    return updates, max((rows for u, rows in fits if u == updates), default=LEAST_ROWS)


@pytest.mark.parametrize("num_tokens", [1e5, 1e6, 2e6, 3.3e6, 1e7, 7.7e7, 1e9])
@pytest.mark.parametrize("budget", [0.003, 0.01, 0.05])
def test_with_nothing_given_the_plan_is_the_best_of_all_that_fit(num_tokens, budget):
    run = run_size(num_tokens)
    made = plan(run, budget=budget)
    assert (len(made.steps), made.num_rows) == most_updates_and_rows(run, budget)
    assert made.share == pytest.approx(len(made.steps) * made.num_rows * 500 / num_tokens)
    assert (made.warning is None) == (made.share <= budget)


def test_updates_cut_the_run_into_equal_pieces():
    made = plan(run_size(2e7, max_steps=700))  # pays for three updates of 128 rows
    assert made.steps == (175, 350, 525)


def test_a_long_run_makes_at_most_twenty_updates_with_more_rows():
    made = plan(run_size(1e10, num_rows=100_000))
    assert (len(made.steps), made.num_rows) == (MOST_UPDATES, MOST_ROWS)


def test_a_run_that_pays_for_less_than_one_usual_update_measures_fewer_rows_once():
    made = plan(run_size(2e6))
    assert (made.steps, made.num_rows, made.warning) == ((500,), 40, None)


def test_a_run_that_cannot_pay_measures_the_least_once_and_says_what_it_would_take():
    made = plan(run_size(5e5))
    assert (made.steps, made.num_rows) == ((500,), LEAST_ROWS)
    assert made.share == pytest.approx(16 * 500 / 5e5)  # 1.6 %
    for part in (
        "`budget` 1.00% of the run's 500,000 tokens",
        "1 update of 16 rows of each of the 5 domains",
        "take 1.60%",
        "Short runs cannot pay for a measurement",
        "at least 800,000 tokens",
        "budget=0.016 ",
    ):
        assert part in made.warning
    assert plan(run_size(5e5), budget=0.016).warning is None
    assert plan(run_size(8e5)).warning is None


@pytest.mark.parametrize("num_tokens", [4.9e5, 3.1e5, 7.77e4, 1234567])
def test_the_budget_that_a_warning_names_is_enough(num_tokens):
    run = run_size(num_tokens)
    named = float(plan(run, budget=0.001).warning.split("budget=")[1].split()[0])
    assert plan(run, budget=named).warning is None


def test_where_no_budget_is_enough_the_way_past_it_is_named():
    assert "pass both every_steps and num_rows" in plan(run_size(5e3)).warning


def test_given_steps_get_the_rows_that_the_budget_leaves_each():
    made = plan(run_size(1e7), steps=[100, 900])
    assert (made.steps, made.num_rows) == ((100, 900), 96)  # 1e5 / 2 / 500 = 100, in eights
    many = plan(run_size(1e7), steps=range(100, 1000, 100))
    assert (many.num_rows, many.warning) == (16, None)  # 22 rows fit
    over = plan(run_size(1e7), steps=range(50, 1000, 50))
    assert over.num_rows == LEAST_ROWS
    assert "19 updates of 16 rows" in over.warning


def test_given_rows_get_the_updates_that_the_budget_pays_for():
    assert len(plan(run_size(1e7), num_rows=32).steps) == 6
    over = plan(run_size(1e6), num_rows=32)
    assert len(over.steps) == 1
    assert "1 update of 32 rows" in over.warning


def test_given_steps_and_rows_stand_and_their_share_is_told():
    made = plan(run_size(1e6), steps=[10, 20, 30], num_rows=200)
    assert (made.steps, made.num_rows, made.warning) == ((10, 20, 30), 200, None)
    assert made.share == pytest.approx(0.3)
    assert "3 updates at steps 10, 20, 30, 200 rows" in str(made)
    assert "30.00% of the run's tokens" in str(made)


def test_wishes_for_an_interval_or_for_steps_are_met():
    run = run_size(1e7)
    every = Wishes(every_steps=300).plan(run)
    assert every.steps == (300, 600, 900)
    assert every == plan(run, steps=[300, 600, 900])
    assert Wishes(every_steps=300, at_steps=[7, 5], num_rows=8).plan(run).steps == (5, 7)
    assert Wishes().plan(run) == plan(run)


def test_the_plan_knows_its_steps():
    made = plan(run_size(1e7), steps=[3, 7, 8])
    assert [step for step in range(1000) if made.is_due(step)] == [3, 7, 8]


def test_no_step_lies_behind_the_last_that_could_change_something():
    run = RunSize(max_steps=10, last_step=3, num_tokens=1e12, parts=run_size().parts)
    made = plan(run, steps=[2, 3, 4, 10])
    assert made.steps == (2, 3)
    assert "2 of 4 steps asked for are left out: they come after step 3 of 10" in made.warning
    assert plan(run, steps=[2, 3]).warning is None
    assert plan(run).steps == (1, 2, 3)
    none = RunSize(max_steps=1, last_step=0, num_tokens=1e12, parts=run_size().parts)
    assert plan(none).steps == ()
    assert plan(none).share == 0


def test_a_part_with_few_rows_costs_no_more_than_it_has():
    small, large = Part(num_rows=10, tokens_per_row=50.0), Part(num_rows=1000, tokens_per_row=20.0)
    run = RunSize(max_steps=100, last_step=99, num_tokens=1e5, parts=(small, large))
    assert run.tokens_per_update(64) == 10 * 50 + 64 * 20
    # 1,000 tokens: 500 for all of the small part, which leaves 25 rows of the large one.
    assert plan(run, steps=[50]).num_rows == 24
    assert plan(run, budget=1.0, steps=[50]).num_rows == 1000


def test_a_part_that_is_audited_costs_a_third_more():
    part = Part(num_rows=100, tokens_per_row=30.0, passes=4 / 3)
    run = RunSize(max_steps=100, last_step=99, num_tokens=1e5, parts=(part,))
    assert run.tokens_per_update(10) == pytest.approx(10 * 30 * 4 / 3)


def test_where_nothing_is_measured_nothing_is_paid():
    run = RunSize(max_steps=100, last_step=99, num_tokens=1e5, parts=())
    made = plan(run)
    assert (len(made.steps), made.share, made.warning) == (MOST_UPDATES, 0, None)
    assert "nothing measured" in str(made)


def test_steps_of_which_none_is_left_are_objected_to_and_the_end_of_the_run_is_not_late():
    run = RunSize(max_steps=10, last_step=8, num_tokens=1e12, parts=run_size().parts)
    for wishes, message in (
        (Wishes(at_steps=[9, 40]), r"`at_steps` must .* by step 8 of 10, .* got (9, 40)"),
        (Wishes(every_steps=9), "`every_steps` must .* by step 8 of 10, .* got 9"),
        (Wishes(every_steps=50), "got 50"),
    ):
        objection = wishes.objection(wishes.plan(run))
        assert all(part in objection for part in message.split(" .* "))
    for wishes in (Wishes(), Wishes(every_steps=5), Wishes(at_steps=[8])):
        made = wishes.plan(run)
        assert wishes.objection(made) is None
        assert made.warning is None
    assert "1 of 9 steps" in Wishes(every_steps=1).plan(run).warning
    observed = RunSize(max_steps=10, last_step=10, num_tokens=1e12, parts=run.parts)
    assert Wishes(every_steps=5).plan(observed).steps == (5, 10)


def test_counts_of_numpy_are_taken_as_plain_ones():
    wishes = Wishes(at_steps=np.array([3, 7]), num_rows=np.int64(8), every_steps=np.int32(2))
    assert wishes == Wishes(at_steps=(3, 7), num_rows=8, every_steps=2)
    assert json.loads(json.dumps(wishes.plan(run_size(1e7)).to_dict()))["steps"] == [3, 7]
    for wrong in (np.array([]), np.array([0]), np.array([True]), np.array([1.0]), ["3"]):
        with pytest.raises(ValueError, match="`at_steps` must"):
            Wishes(at_steps=wrong)
    for wrong in (True, np.True_, np.float64(8), "8"):
        with pytest.raises(ValueError, match="`num_rows` must be whole"):
            Wishes(num_rows=wrong)


@pytest.mark.parametrize("budget", [0, -0.1, 1.5, float("nan"), None, True])
def test_a_budget_that_is_no_share_is_refused(budget):
    with pytest.raises(ValueError, match=r"`budget` must be a share .* in \(0, 1\]; got"):
        plan(budget=budget)
