"""`tikmix influence` on a tiny saved model and tiny files: what it measures and writes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from scipy import stats
from tiny_recipe import BLOCK, ROUNDS, ROWS, make_tiny, run
from transformers import (
    AutoModelForCausalLM,
)

from tikmix_hf import (
    Constraints,
    Domains,
    GroupInfluence,
    InfluenceMatrix,
    MixtureSchedule,
    cli,
    mixers,
    recipe,
    sources,
)
from tikmix_hf.collate import PackedCollator
from tikmix_hf.commands import dry_run, influence_tables, proposals
from tikmix_hf.mixers import Signals
from tikmix_hf.schedule import Segment
from tikmix_hf.signals import preconditioners
from tikmix_hf.updates.decision import decide
from tikmix_hf.updates.heldout import HeldoutBatches, Portion


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> SimpleNamespace:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def measured_directly(tiny, engine: GroupInfluence, num_rounds: int = ROUNDS) -> InfluenceMatrix:
    """The same rows, by hand: round r reads the r-th share of each part's rows."""
    read = recipe.load(tiny.recipe)
    data = sources.load(read.data, tiny.tokenizer, read.seed)
    heldout = {domain.name: domain.heldout for domain in data.domains}

    def batches(parts, round_):
        made = {}
        for name, rows in parts.items():
            size = min(read.batch_size, max(1, min(ROWS, len(rows)) // num_rounds // 2))
            portion = Portion(0, ROWS, round_, num_rounds)
            made[name] = HeldoutBatches(
                rows,
                name,
                portion=portion,
                batch_size=size,
                collate=PackedCollator(),
                seed=read.seed,
            )
        return made

    rounds = [
        engine.measure(batches(heldout, r), batches(data.targets, r), refit=r == 0)
        for r in range(num_rounds)
    ]
    return InfluenceMatrix.mean(rounds)


def test_the_whole_command_says_what_the_engine_and_the_mixers_say(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--config", tiny.recipe, "--output", str(out), "--device", "cpu"]
    assert cli.main(["influence", "--model", tiny.model, *words]) == 0
    matrix = InfluenceMatrix.load(out / "influence.json")
    loaded = AutoModelForCausalLM.from_pretrained(tiny.model)
    direct = measured_directly(tiny, GroupInfluence(loaded, preconditioner="kfac"))
    np.testing.assert_array_equal(matrix.values, direct.values)
    np.testing.assert_array_equal(matrix.rounds, direct.rounds)
    np.testing.assert_array_equal(matrix.domain_stderr, direct.domain_stderr)
    np.testing.assert_array_equal(matrix.target_stderr, direct.target_stderr)
    assert (matrix.domains, matrix.targets) == (("numbers", "words", "code"), ("tales", "sums"))

    record = json.loads((out / "mixtures.json").read_text())
    in_force = {"numbers": 0.5, "words": 0.3, "code": 0.2}
    assert record["mixture"] == pytest.approx(in_force)
    assert record["models"] == [tiny.model]
    q = np.array(list(in_force.values()))
    w = mixers.tikmix_d.solve(direct.values, q, gamma=0.5)
    scale = np.abs(direct.centred(q)).max(axis=1)
    folds = [mixers.tikmix_d.solve(other, q, gamma=0.5) for other in direct.rounds[::-1]]
    confirmed = [
        np.mean(one @ (fold - q) / scale) for one, fold in zip(direct.rounds, folds, strict=True)
    ]
    promised = np.mean(direct.values @ (w - q) / scale)
    error = abs(confirmed[0] - confirmed[1]) / 2  # std(ddof=1) / sqrt(2), of two
    assert np.mean(confirmed) > error  # else it would be noise, and nothing told below
    step = min(np.mean(confirmed) / promised, 1.0)

    chosen = record["mixers"]["tikmix_d"]
    close = {"rtol": 0, "atol": 1e-9}
    np.testing.assert_allclose(list(chosen["unguarded"].values()), w, **close)
    announced = q + step * (w - q)
    np.testing.assert_allclose(list(chosen["mixture"].values()), announced, **close)
    gain = direct.values @ (announced - q) / scale
    np.testing.assert_allclose(list(chosen["gain"].values()), gain, **close)
    of_rounds = direct.rounds @ (announced - q) / scale
    np.testing.assert_allclose(
        list(chosen["gain_stderr"].values()), np.abs(of_rounds[0] - of_rounds[1]) / 2, rtol=1e-6
    )
    guard = chosen["noise_guard"]
    for name, value in (("promised", promised), ("confirmed", np.mean(confirmed)), ("step", step)):
        assert guard[name] == pytest.approx(value, abs=1e-9)
    asked = {n for n in mixers.available() if mixers.load(n)().requires == {"influence"}}
    assert set(record["mixers"]) == asked
    for name in asked:
        assert (out / f"schedule-{name}.json").is_file()
    schedule = MixtureSchedule.load(out / "schedule-tikmix_d.json")
    assert schedule.mixture_at(0) == pytest.approx(chosen["mixture"])
    assert (out / "influence.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    proposed = f"{announced[0]:.3f}"
    for words in ("numbers", "tales", "tikmix_d", "in force", "0.500", proposed, str(out)):
        assert words in shown
    digits = 3 - int(np.floor(np.log10(np.abs(direct.values[0]).max())))  # of a target, alike
    entries = direct.values[0, 0], direct.domain_stderr[0, 0], direct.target_stderr[0, 0]
    assert " ± ".join(f"{entry:.{digits}f}" for entry in entries) in shown


def noisy_matrix(noise: float) -> InfluenceMatrix:
    """Four rounds about the same truth."""
    truth_JK = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    rounds_RJK = truth_JK + noise * np.random.default_rng(3).normal(size=(4, 2, 3))
    spread_JK = rounds_RJK.std(axis=0, ddof=1) / 2
    return InfluenceMatrix(
        values=rounds_RJK.mean(axis=0), domain_stderr=spread_JK, target_stderr=0 * spread_JK,
        targets=("arc", "math"), domains=("web", "code", "books"), preconditioner="sign",
        seconds=1.0, num_tokens=10, domain_losses=np.ones(3), target_losses=np.ones(2),
        rounds=rounds_RJK,
    )  # fmt: skip


def test_what_is_proposed_is_what_training_would_announce(tmp_path, capsys):
    matrix, q = noisy_matrix(1.5), np.array([0.2, 0.3, 0.5])
    mixer = mixers.load("tikmix_d")(pareto_slack=0.5)  # one that reads standard errors
    signals = Signals(
        step=0, domains=matrix.domains, targets=matrix.targets, mixture=q,
        influence=matrix.values, stderr=matrix.stderr,
    )  # fmt: skip
    told = decide(mixer, mixer.init(q), signals, matrix.rounds, num_errors=1.0)
    assert 0 < told.verdict.step < 1
    (proposal,) = proposals.propose(matrix, q, {"tikmix_d": mixer}, num_errors=1.0)
    np.testing.assert_array_equal(proposal.mixture, told.mixture)
    np.testing.assert_array_equal(proposal.unguarded, told.proposal)
    assert (proposal.notes, proposal.verdict) == (told.notes, told.verdict)

    proposals.save(tmp_path, matrix, q, [proposal], {})
    record = json.loads((tmp_path / "mixtures.json").read_text())["mixers"]["tikmix_d"]
    assert [*record["mixture"].values()] == told.mixture.tolist()
    assert [*record["unguarded"].values()] == told.proposal.tolist()
    schedule = MixtureSchedule.load(tmp_path / "schedule-tikmix_d.json")
    np.testing.assert_allclose(schedule.segments[0].mixture, told.mixture, rtol=1e-12)

    influence_tables.show(matrix, q, [proposal])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "web" in line]
    shares = [f"{q[0]:.3f}", f"{told.mixture[0]:.3f}", f"{told.proposal[0]:.3f}"]
    assert rows[1][1:] == shares


def test_a_table_gives_all_numbers_of_a_target_the_same_digits(capsys):
    matrix = noisy_matrix(0.1)
    larger = dataclasses.replace(
        matrix,
        values=matrix.values * [[1.0], [1000.0]],
        domain_stderr=np.full((2, 3), 0.25),
        target_stderr=np.full((2, 3), np.nan),
    )
    influence_tables.show(larger, np.full(3, 1 / 3), [])
    (books,) = [line for line in capsys.readouterr().out.splitlines() if "books" in line][:1]
    _, first, second = re.split(" {2,}", books)
    assert first == f"{larger.values[0, 2]:.3f} ± 0.250 ± ?"
    assert second == f"{larger.values[1, 2]:.0f} ± 0 ± ?"


def test_without_an_answer_the_mixture_in_force_is_kept_and_that_is_said(capsys):
    matrix, q = noisy_matrix(0.1), np.array([0.2, 0.3, 0.5])
    methods = {
        "tikmix_d": mixers.load("tikmix_d")(constraints=Constraints(floors={"wbe": 0.1})),
        "static": mixers.load("static")(),
    }
    failed, fine = proposals.propose(matrix, q, methods)
    np.testing.assert_array_equal(failed.mixture, q)
    np.testing.assert_array_equal(failed.unguarded, q)
    assert fine.notes == ()
    influence_tables.show(matrix, q, [failed, fine])
    shown = capsys.readouterr().out
    assert "tikmix_d: no mixture found, that in force is kept: " in shown
    assert "wbe" in shown


def test_options_win_over_the_recipe(tiny, tmp_path):
    words = ["--num_rows", "4", "--num_rounds", "1", "--mixers", "static", "--preconditioner"]
    assert run(tiny, tmp_path, *words, "identity", "--mixture", '{"words": 1.0}') == 0
    matrix = InfluenceMatrix.load(tmp_path / "influence.json")
    assert matrix.preconditioner == "identity"
    assert len(matrix.rounds) == 1
    assert matrix.num_tokens == 5 * 4 * BLOCK  # three domains and two targets, four rows each
    record = json.loads((tmp_path / "mixtures.json").read_text())
    assert record["mixture"] == {"numbers": 0.0, "words": 1.0, "code": 0.0}
    static = record["mixers"]["static"]
    assert static["mixture"] == record["mixture"]
    assert static["gain_stderr"] == {"tales": None, "sums": None}


def test_of_a_schedule_the_last_mixture_is_in_force(tiny, tmp_path):
    even, last = {"words": 0.5, "code": 0.5}, {"code": 0.25, "numbers": 0.75}
    names = ("code", "words", "numbers")  # in another order than the recipe's
    segments = [
        Segment(from_sample=start, mixture=[shares.get(name, 0.0) for name in names])
        for start, shares in ((0, even), (10, last))
    ]
    path = MixtureSchedule(names, tuple(segments)).save(tmp_path / "replayed.json")
    assert run(tiny, tmp_path, "--mixture", str(path)) == 0
    record = json.loads((tmp_path / "mixtures.json").read_text())
    assert record["mixture"] == {"numbers": 0.75, "words": 0.0, "code": 0.25}


def test_a_preconditioner_is_fitted_once_for_all_rounds():
    heldout = Dataset.from_dict({"input_ids": [[1, 2]] * 6})
    domains = Domains.from_datasets({"web": heldout}, heldout={"web": heldout})
    fitted, one = [], np.ones((1, 1))

    def measure(domain_batches, target_batches, *, refit, progress):
        fitted.append(refit)
        return InfluenceMatrix(
            values=one, domain_stderr=one, target_stderr=one, targets=("arc",), domains=("web",),
            preconditioner="sign", seconds=0.0, num_tokens=1, domain_losses=[1], target_losses=[1],
        )  # fmt: skip

    engine = SimpleNamespace(measure=measure)
    dry_run.measure(engine, domains, {"arc": heldout}, dry_run.Reading(num_rows=6, num_rounds=3))
    assert fitted == [True, False, False]


def test_adam_reads_the_state_that_the_trainer_saved(tiny, tmp_path):
    settings = ["--preconditioner", "adam", "--preconditioner_settings", '{"damping": 0.5}']
    assert run(tiny, tmp_path, *settings, models=(tiny.checkpoint,)) == 0
    matrix = InfluenceMatrix.load(tmp_path / "influence.json")
    adam = preconditioners.load("adam")(damping=0.5)
    live = GroupInfluence(tiny.trained, preconditioner=adam, optimizer=tiny.optimizer)
    np.testing.assert_array_equal(matrix.values, measured_directly(tiny, live).values)
    assert json.loads((tmp_path / "mixtures.json").read_text())["steps"] == [3]


def test_several_checkpoints_are_weighted_in_units_of_their_own(tiny, tmp_path):
    both = (tiny.model, tiny.checkpoint)
    assert run(tiny, tmp_path, "--weights", "1", "3", models=both) == 0
    first, second, mean = (
        InfluenceMatrix.load(tmp_path / f"influence{n}.json") for n in ("-1", "-2", "")
    )
    q = np.array([0.5, 0.3, 0.2])
    parts = [
        m.centred(q) / np.abs(m.centred(q)).max(axis=1, keepdims=True) for m in (first, second)
    ]
    np.testing.assert_allclose(mean.centred(q), 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-9)
    np.testing.assert_allclose(mean.rounds.mean(axis=0), mean.values, rtol=1e-9)
    louder = InfluenceMatrix.from_dict(
        {**second.to_dict(), "values": second.values * 7, "rounds": second.rounds * 7}
    )
    again = dry_run.aggregate([first, louder], [1, 3], q)
    np.testing.assert_allclose(again.values, mean.values, rtol=1e-9)


def test_the_errors_of_several_checkpoints_add_as_if_they_agreed():
    q = np.array([0.2, 0.3, 0.5])
    errors = {"domain_stderr": (0.2, 0.5), "target_stderr": (0.7, 0.1)}
    both = [
        dataclasses.replace(
            noisy_matrix(noise), **{n: np.full((2, 3), e[c]) for n, e in errors.items()}
        )
        for c, noise in enumerate((0.1, 0.4))
    ]
    mean = dry_run.aggregate(both, [1, 3], q)
    units = [np.abs(matrix.centred(q)).max(axis=1, keepdims=True) for matrix in both]
    for name, (first, second) in errors.items():
        expected = 0.25 * first / units[0] + 0.75 * second / units[1] + np.zeros((2, 3))
        np.testing.assert_allclose(getattr(mean, name), expected)


def test_the_error_of_a_gain_is_that_of_a_mean_over_rounds():
    matrix, q, w = noisy_matrix(1.5), np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.3, 0.1])
    gained_RJ = matrix.rounds @ (w - q) / np.abs(matrix.centred(q)).max(axis=1)
    gains = proposals.gains(matrix, q, w)
    np.testing.assert_allclose(gains.values, gained_RJ.mean(axis=0))
    np.testing.assert_allclose(gains.stderr, stats.sem(gained_RJ, axis=0))


def test_the_table_of_mixers_is_that_of_the_docs_and_has_a_row_for_each(capsys):
    assert cli.main(["mixers", "--markdown"]) == 0
    printed = capsys.readouterr().out
    page = Path(__file__).parent.parent / "docs" / "mixers.md"
    assert page.read_text("utf-8") == printed, "tikmix mixers --markdown > docs/mixers.md"
    for name in mixers.available():
        assert f"| `{name}` |" in printed
    assert cli.main(["mixers"]) == 0
    assert "tikmix_d" in capsys.readouterr().out
