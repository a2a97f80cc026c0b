"""What the picture of an update holds, read from the figure."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tikmix_hf import update_picture
from tikmix_hf.figures import pixels
from tikmix_hf.signals import InfluenceMatrix
from tikmix_hf.update_picture import plot_update, scaled_influence

UNKNOWN = [[None, None]]


def influence(values_JK, **fields):
    num_targets, num_domains = np.shape(values_JK)
    errors = np.zeros((num_targets, num_domains)).tolist()
    names = {"targets": [f"t{j}" for j in range(num_targets)]}
    names["domains"] = [f"d{k}" for k in range(num_domains)]
    known = {"values": values_JK, "domain_stderr": errors, "target_stderr": errors}
    return {**names, **known, "rounds": None, **fields}


def line(before, after, measured=None, **fields):
    moved = sum(abs(a - b) for a, b in zip(before, after, strict=True)) / 2
    about = {"step": 1200, "from_sample": 4800, "change": moved, "influence": measured}
    shares = {
        key: {f"d{k}": share for k, share in enumerate(values)}
        for key, values in {"mixture": before, "proposed": after}.items()
    }
    return {**about, **shares, **fields}


def test_influence_is_less_that_of_the_mixture_and_scaled_with_its_error():
    # S . w = 2 at [0.75, 0.25]: left -1 and 3; the error is the root of 3^2 + 4^2 over 3.
    measured = influence([[1.0, 5.0]], domain_stderr=[[3.0, 3.0]], target_stderr=[[4.0, 4.0]])
    values_JK, errors_JK = scaled_influence(measured, [0.75, 0.25])
    assert values_JK == pytest.approx(np.array([[-1 / 3, 1.0]]))
    assert errors_JK == pytest.approx(np.full((1, 2), 5 / 3))


def test_a_target_that_tells_no_domain_from_another_is_drawn_as_zero():
    values_JK, _ = scaled_influence(influence([[2.0, 2.0]]), [0.5, 0.5])
    assert values_JK.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("rounds", [None, [[[0.0, 1.0]]], [[[0.0, 1.0]], [[2.0, 7.0]]]])
@pytest.mark.parametrize("domain_stderr", [UNKNOWN, [[0.5, None]], [[0.5, 0.25]]])
def test_errors_are_those_of_the_matrix(rounds, domain_stderr):
    measured = influence([[1.0, 4.0]], domain_stderr=domain_stderr, rounds=rounds)
    matrix = InfluenceMatrix(
        **measured,
        preconditioner="sign",
        seconds=0.0,
        num_tokens=1,
        domain_losses=np.ones(2),
        target_losses=np.ones(1),
    )
    values_JK, errors_JK = scaled_influence(measured, [0.5, 0.5])
    scale = 1.5  # 4 - 2.5
    assert values_JK * scale == pytest.approx(matrix.centred(np.array([0.5, 0.5])))
    assert errors_JK * scale == pytest.approx(matrix.stderr, nan_ok=True)


def test_the_heat_map_holds_domains_by_targets_and_the_bars_both_mixtures():
    measured = influence([[1.0, 3.0], [3.0, 1.0]], domain_stderr=[[0.5, 0.5], [None, None]])
    figure = plot_update(line([0.5, 0.5], [0.2, 0.8], measured))
    heat, bars = figure.axes
    assert np.asarray(heat.images[0].get_array()).tolist() == [[-1.0, 1.0], [1.0, -1.0]]
    cells = {text.get_position(): text.get_text() for text in heat.texts}
    assert cells == {(0, 0): "-1.00 ±0.50", (0, 1): "+1.00 ±0.50", (1, 0): "+1.00", (1, 1): "-1.00"}
    assert [label.get_text() for label in heat.get_yticklabels()] == ["d0", "d1"]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["t0", "t1"]
    before, after = ([bar.get_width() for bar in group] for group in bars.containers)
    assert (before, after) == ([0.5, 0.5], [0.2, 0.8])
    assert bars.get_ylim() == heat.get_ylim(), "a row is one domain in both"
    assert figure.get_suptitle() == "step 1,200: from sample 4,800 on, 30.0% of tokens moved"


def test_the_colour_that_the_picture_calls_good_is_that_of_the_domain_that_helps():
    # d1 has the larger influence: a step on it takes more off the loss.
    heat, _ = plot_update(line([0.5, 0.5], [0.4, 0.6], influence([[1.0, 3.0]]))).axes
    assert "blue: helps" in heat.get_title()
    assert "red: less" in heat.get_title()
    (image,) = heat.images
    (red_0, _, blue_0, _), (red_1, _, blue_1, _) = image.to_rgba(np.asarray(image.get_array()))[
        :, 0
    ]
    assert red_0 > blue_0
    assert blue_1 > red_1


def test_numbers_are_read_on_dark_cells_and_on_light_ones():
    # Centred and scaled: 1, -0.5 and -0.5 of the largest.
    third = [1 / 3] * 3
    heat, _ = plot_update(line(third, third, influence([[4.0, 1.0, 1.0]]))).axes
    inks = {text.get_position(): text.get_color() for text in heat.texts}
    assert inks == {(0, 0): "white", (0, 1): "black", (0, 2): "black"}


def middles(axes) -> list[float]:
    return [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]


def test_a_mixture_that_was_kept_has_no_bars_after_it_and_a_proposal_is_called_one():
    (bars,) = plot_update(line([0.5, 0.5], [0.5, 0.5], from_sample=None)).axes
    assert bars.get_legend_handles_labels()[1] == ["before"]
    assert middles(bars) == pytest.approx([0, 1])
    assert [label.get_text() for label in bars.get_yticklabels()] == ["d0", "d1"]
    figure = plot_update(line([0.5, 0.5], [0.2, 0.8], from_sample=None))
    assert middles(figure.axes[0]) == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    assert figure.axes[0].get_legend_handles_labels()[1] == ["before", "proposed, not in force"]
    assert figure.get_suptitle() == "step 1,200: mixture kept"


def test_of_too_many_domains_the_most_moved_are_drawn_in_their_order(monkeypatch):
    monkeypatch.setattr(update_picture, "MAX_DOMAINS", 2)
    monkeypatch.setattr(update_picture, "MAX_TARGETS", 1)
    # d0 moved most; d2 and d3 as much as each other, and d3 has more.
    before, after = [0.25, 0.375, 0.125, 0.25], [0.0, 0.375, 0.25, 0.375]
    measured = influence([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 1.0]])
    figure = plot_update(line(before, after, measured))
    heat, bars = figure.axes
    assert [label.get_text() for label in heat.get_yticklabels()] == ["d0", "d3"]
    assert np.asarray(heat.images[0].get_array()).shape == (2, 1)
    assert np.asarray(heat.images[0].get_array())[1, 0] == 1.0
    assert [bar.get_width() for bar in bars.containers[1]] == [0.0, 0.375]
    assert "(2 of 4 domains)" in figure.get_suptitle()
    assert "1 of 2 targets" in heat.get_title()


def test_of_too_many_cells_the_largest_have_numbers(monkeypatch):
    monkeypatch.setattr(update_picture, "MAX_NUMBERS", 1)
    figure = plot_update(line([0.5, 0.5], [0.5, 0.5], influence([[1.0, 3.0], [0.0, 0.0]])))
    assert {text.get_position() for text in figure.axes[0].texts} == {(0, 0), (0, 1)}  # a tie


def test_what_rounds_to_zero_has_no_minus():
    third = [1 / 3] * 3
    figure = plot_update(line(third, third, influence([[-0.001, 1.0, -0.998]])))
    assert next(text.get_text() for text in figure.axes[0].texts) == "+0.00 ±0.00"


def test_any_name_can_be_drawn():
    names = ["a$b^$", "x" * 200]
    shares = dict(zip(names, [0.5, 0.5], strict=True))
    measured = influence([[1.0, 3.0]], domains=names)
    figure = plot_update(line([1.0], [1.0], measured, mixture=shares, proposed=shares))
    height, width, colours = pixels(figure).shape
    assert (width, height, colours) == (*(figure.get_size_inches() * 150).round().astype(int), 3)
    label = figure.axes[0].get_yticklabels()[1].get_text()
    assert label == "x" * 29 + "…"
