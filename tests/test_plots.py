"""What the figures hold, read from the figure objects; and that files are images of them."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.text import Text

from tikmix_hf import figures, plots

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NAMES = ("web", "code", "books")


def size_in_pixels(path):
    header = path.read_bytes()[:24]
    assert header.startswith(PNG_SIGNATURE)
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def records(num_records, targets, domains, *, with_mixture):
    rng = np.random.default_rng(0)
    for i in range(num_records):
        record = {
            "step": 50 * i,
            "targets": targets,
            "domains": domains,
            "values": (rng.normal(size=(len(targets), len(domains))) + 3.0).tolist(),
        }
        if with_mixture:
            record["mixture"] = dict(
                zip(domains, rng.dirichlet(np.ones(len(domains))), strict=True)
            )
        yield record


@pytest.fixture
def mixture_figure(tmp_path):
    path = tmp_path / "mixture.png"
    mixtures_SK = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
    return plots.plot_mixture([0, 400], mixtures_SK, NAMES, num_samples=1000, path=path), path


def test_a_figure_is_written_at_its_size_as_an_image(mixture_figure):
    figure, path = mixture_figure
    width, height = figure.get_size_inches() * figures.DPI
    assert size_in_pixels(path) == (round(width), round(height))


def test_each_domain_is_a_band_that_holds_its_share_from_its_segments_first_sample(mixture_figure):
    (axes,) = mixture_figure[0].axes
    assert [band.get_label() for band in axes.collections] == list(NAMES)
    books = axes.collections[2].get_paths()[0].vertices
    first = books[(books[:, 0] > 0) & (books[:, 0] <= 400)]
    assert first[:, 1].min() == pytest.approx(0.5)  # web and code lie below: 0.2 + 0.3
    second = books[books[:, 0] > 400]
    assert second[:, 1].min() == pytest.approx(0.7)  # 0.6 + 0.1
    assert books[:, 1].max() == pytest.approx(1.0)


def test_updates_are_marked_and_axes_say_what_they_measure(mixture_figure):
    (axes,) = mixture_figure[0].axes
    marks = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert marks == [400]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("samples", "share of tokens")
    assert axes.get_xlim() == (0, 1000)


def test_labels_name_the_last_shares(mixture_figure):
    (axes,) = mixture_figure[0].axes
    assert [text.get_text() for text in axes.texts] == ["web  60.0%", "code  10.0%", "books  30.0%"]


@pytest.mark.parametrize("only", [0, -1])  # vanishing bands lie above it, or below
@pytest.mark.parametrize("num_domains", [2, 8, 26])
def test_labels_keep_apart_in_order_and_inside_even_where_bands_vanish(num_domains, only, tmp_path):
    mixture_K = np.zeros(num_domains)
    mixture_K[only] = 1.0
    figure = plots.plot_mixture(
        [0],
        mixture_K[None],
        [f"domain {k}" for k in range(num_domains)],
        num_samples=10,
        path=tmp_path / "mixture.png",
    )
    (axes,) = figure.axes
    figure.draw_without_rendering()  # extents in pixels of the figure, not of the file
    # An annotation's own extent would include its leader line.
    boxes = [Text.get_window_extent(label) for label in axes.texts]
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    edge = axes.get_window_extent()
    assert edge.y0 - 1 <= boxes[0].y0  # one pixel of rounding
    assert boxes[-1].y1 <= edge.y1 + 1


def test_colours_of_26_domains_are_all_different():
    assert len({figures.colour(k) for k in range(26)}) == 26


@pytest.mark.parametrize(
    ("from_samples", "mixtures_SK", "num_samples", "argument"),
    [
        ([0], [[0.5, 0.5]], 10, "`mixtures_SK`"),
        ([0, 5], [[0.2, 0.3, 0.5]], 10, "`mixtures_SK`"),
        ([0, 0], [[0.2, 0.3, 0.5]] * 2, 10, "`from_samples`"),
        ([0, 10], [[0.2, 0.3, 0.5]] * 2, 10, "`from_samples`"),
        ([], np.empty((0, 3)), 10, "`from_samples`"),
    ],
)
def test_segments_that_do_not_fit_are_refused(
    from_samples, mixtures_SK, num_samples, argument, tmp_path
):
    with pytest.raises(ValueError, match=argument):
        plots.plot_mixture(
            from_samples, mixtures_SK, NAMES, num_samples=num_samples, path=tmp_path / "no.png"
        )
    assert not (tmp_path / "no.png").exists()


def test_heat_maps_show_rows_relative_to_the_mixture_in_force_by_name(tmp_path):
    record = {
        "step": 1500,
        "targets": ["arc", "boolq"],
        "domains": ["web", "code"],
        "values": [[5.0, 1.0], [1.0, 2.0]],
        "mixture": {"code": 0.75, "web": 0.25},
    }
    figure = plots.plot_influence([record], tmp_path / "influence.png")
    axes, bar = figure.axes
    # arc: the mixture has 5/4 + 3/4 = 2, so 3 and -1; boolq: 1/4 + 6/4 = 7/4, so -3/4 and 1/4.
    expected = [[1.0, -1 / 3], [-1.0, 1 / 3]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected, atol=1e-12)
    assert axes.images[0].get_clim() == (-1, 1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["arc", "boolq"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["web", "code"]
    assert [text.get_text() for text in axes.texts] == ["+1.0", "-0.3", "-1.0", "+0.3"]
    assert axes.get_title() == "step 1,500"
    assert "mixture" in bar.get_ylabel()


def test_without_a_mixture_rows_are_relative_to_their_mean_and_the_bar_says_so(tmp_path):
    record = {"step": 0, "targets": ["arc"], "domains": list("abc"), "values": [[1.0, 2.0, 6.0]]}
    figure = plots.plot_influence([record], tmp_path / "influence.png")
    # The mean is 3: -2, -1 and 3.
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[-2 / 3, -1 / 3, 1]])
    assert "mean" in figure.axes[-1].get_ylabel()


def test_a_row_without_differences_is_blank_instead_of_not_a_number(tmp_path):
    record = {"step": 0, "targets": ["arc"], "domains": ["a", "b"], "values": [[0.5, 0.5]]}
    figure = plots.plot_influence([record], tmp_path / "influence.png")
    assert figure.axes[0].images[0].get_array().tolist() == [[0.0, 0.0]]


def test_of_many_measurements_eight_are_drawn_the_first_and_the_last_among_them(tmp_path):
    many = list(records(30, ["arc"], list("abc"), with_mixture=True))
    figure = plots.plot_influence(many, tmp_path / "influence.png")
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == plots.MAX_HEAT_MAPS
    assert (titles[0], titles[-1]) == ("step 0", "step 1,450")


def test_large_matrices_carry_no_numbers_and_few_columns_of_panels(tmp_path):
    domains = [f"domain {k}" for k in range(26)]
    wide = list(records(3, [f"target {j}" for j in range(9)], domains, with_mixture=False))
    figure = plots.plot_influence(wide, tmp_path / "influence.png")
    panels = [axes for axes in figure.axes if axes.images]
    assert not any(axes.texts for axes in panels)
    assert [len(axes.get_xticklabels()[0].get_text()) > 0 for axes in panels] == [
        False,
        False,
        True,
    ]


def test_measurements_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`records`"):
        plots.plot_influence([], tmp_path / "influence.png")
    record = {"step": 7, "targets": ["arc"], "domains": ["a", "b"], "values": [[1.0], [2.0]]}
    with pytest.raises(ValueError, match=r"`values` .* step 7"):
        plots.plot_influence([record], tmp_path / "influence.png")


def test_losses_and_their_differences_from_the_first_run_are_drawn_by_target_name(tmp_path):
    losses = {"static": {"arc": 2.0, "boolq": 4.0}, "dynamic": {"boolq": 3.0, "arc": 2.5}}
    figure = plots.plot_target_losses(losses, tmp_path / "losses.png")
    levels, differences = figure.axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in levels.lines}
    assert drawn["static"] == [2.0, 4.0, 3.0]
    assert drawn["dynamic"] == [2.5, 3.0, 2.75]
    drawn = {line.get_label(): list(line.get_xdata()) for line in differences.lines}
    assert drawn["dynamic"] == [0.5, -1.0, -0.25]
    assert "static" not in drawn
    assert "static" in differences.get_xlabel()
    assert [label.get_text() for label in levels.get_yticklabels()] == ["arc", "boolq", "mean"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["static", "dynamic"]
    assert size_in_pixels(tmp_path / "losses.png")


def test_one_run_alone_has_no_panel_of_differences(tmp_path):
    figure = plots.plot_target_losses({"static": {"arc": 2.0}}, tmp_path / "losses.png")
    assert len(figure.axes) == 1


@pytest.mark.parametrize("losses", [{}, {"static": {}}, {"a": {"arc": 1.0}, "b": {"boolq": 1.0}}])
def test_runs_without_common_targets_are_refused(losses, tmp_path):
    with pytest.raises(ValueError, match="`losses`"):
        plots.plot_target_losses(losses, tmp_path / "losses.png")


def audited(predicted, realised):
    sides = {"predicted": predicted, "realised": realised}
    return {"audit": {name: dict(zip("abc", side, strict=False)) for name, side in sides.items()}}


def test_the_audit_is_drawn_standardised_within_each_interval(tmp_path):
    lines = [{"audit": None}, audited([1, 2, 3], [10, 20, 30]), audited([1, 2, 3], [3, 1, 2])]
    figure = plots.plot_audit(
        [*lines, audited([1, 2], [2, 3]), audited([1, 1, 1], [2, 3, 4])], tmp_path / "a.png"
    )
    (axes,) = figure.axes
    first, second = (line for line in axes.lines if line.get_marker() == "o")
    unit = 1.5**0.5
    np.testing.assert_allclose(first.get_xdata(), [-unit, 0, unit], atol=1e-12)
    np.testing.assert_allclose(first.get_ydata(), [-unit, 0, unit], atol=1e-12)
    np.testing.assert_allclose(second.get_ydata(), [unit, -unit, 0], atol=1e-12)
    # 1 and -1/2.
    assert axes.get_title(loc="left") == "Audit of targets: r = 0.25, intervals: 2"
    assert size_in_pixels(tmp_path / "a.png")


def test_without_anything_audited_there_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match="`records` must hold an audit"):
        plots.plot_audit([{"audit": None}, {}, audited([1, 2], [2, 3])], tmp_path / "a.png")


def test_importing_the_room_does_not_import_matplotlib_and_its_absence_names_the_extra(tmp_path):
    program = (
        "import sys; from tikmix_hf import figures, plots; assert 'matplotlib' not in sys.modules\n"
        "sys.modules['matplotlib'] = None\n"
        f"plots.plot_target_losses({{'a': {{'arc': 1.0}}}}, {str(tmp_path / 'no.png')!r})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ImportError: Plots need matplotlib: pip install tikmix-hf[recipes]" in run.stderr
