"""What updates measure, on the stock Trainer: plan, rounds, noise guard, audit, fits."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import (
    RecordingLlama,
    make_arguments,
    make_dataset,
    make_model,
    make_targets,
    make_trainer,
    rows,
)

from tikmix_hf import Domains, InterleavedDomainDataset, TikMixCallback
from tikmix_hf.files import read_records
from tikmix_hf.signals.influence import GroupInfluence
from tikmix_hf.signals.passes import Passes
from tikmix_hf.signals.preconditioners import Preconditioner
from tikmix_hf.updates.measurement import Measurement
from tikmix_hf.updates.measurer import Measurer


def run(folder, *, model=None, learning_rate=1e-2, optim="adamw_torch", **settings):
    dataset = make_dataset()
    defaults = {"targets": make_targets(), "every_steps": 8, "num_rows": 8}
    callback = TikMixCallback(
        dataset, **{**defaults, "noise_guard": 0.0, "progress": False, **settings}
    )
    arguments = make_arguments(folder, learning_rate=learning_rate, optim=optim)
    trainer = make_trainer(dataset, callback, arguments, model)
    trainer.train()
    return callback


def test_without_times_and_rows_a_plan_is_made_said_and_followed(tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    callback = run(tmp_path, every_steps=None, num_rows=None, progress=True)
    # 96 samples of 12 tokens; the least update: 16 rows of 4 domains (of 12 rows each) and of 2
    # targets (of 10 and 14 rows), the targets a third time more. Of the first of four rounds, kfac
    # reads one of two batches once more.
    tokens = 12 * (4 * 12 * (1 + 1 / 8) + (10 + 14) * 4 / 3)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["steps"], plan["num_rows"], plan["run_tokens"]) == ([12], 16, 96 * 12)
    assert plan["tokens_per_update"] == tokens
    assert plan["share"] == pytest.approx(tokens / (96 * 12))
    assert [record.step for record in callback.updates] == [12]
    assert callback.updates[0].planned_tokens == tokens
    assert "[tikmix] plan: 1 update at steps 12, 16 rows" in capsys.readouterr().out
    assert "`budget` 1.00% of the run's 1,152 tokens does not pay" in caplog.text
    assert "Short runs cannot pay" in caplog.text


def test_padding_is_no_token_of_what_was_measured(tmp_path):
    lengths = [4, 12, 5, 11, 6, 10, 7, 9]  # 64 tokens; a batch of them is padded to 96
    heldout = {f"d{k}": rows(k, 8, lengths=lengths) for k in range(2)}
    domains = Domains.from_datasets({f"d{k}": rows(k, 90) for k in range(2)}, heldout=heldout)
    dataset = InterleavedDomainDataset(domains, "uniform", num_samples=96)
    callback = TikMixCallback(
        dataset,
        targets={"near0": rows(0, 8, lengths=lengths)},
        every_steps=8,
        num_rows=8,
        preconditioner="identity",
        measurement=Measurement(num_rounds=1, audit=False),
        progress=False,
    )
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    assert {(u.num_tokens, u.planned_tokens) for u in callback.updates} == {(3 * 64, 3 * 64)}


def test_a_budget_that_pays_is_kept_without_a_warning(tmp_path, caplog):
    callback = run(tmp_path, every_steps=None, num_rows=8, budget=1.0)
    # An update takes 12 * (4 * 8 + 2 * 8 * 4/3) = 640 tokens of 1,152.
    assert callback.plan.steps == (12,)
    assert callback.plan.share <= 1
    assert "budget" not in caplog.text


def test_rounds_measure_rows_of_their_own_and_their_mean_decides(tmp_path, monkeypatch):
    seen = []
    measure = GroupInfluence.measure

    def noting(self, domain_batches, target_batches, **options):
        parts = {**domain_batches, **target_batches}
        read = {name: [b["input_ids"][:, 1:3] for b in part] for name, part in parts.items()}
        seen.append({name: torch.cat(rows).tolist() for name, rows in read.items()})
        assert all(len(part) >= 2 for part in parts.values())  # or no standard error
        return measure(self, domain_batches, target_batches, **options)

    monkeypatch.setattr(GroupInfluence, "measure", noting)
    callback = run(tmp_path, at_steps=[4], measurement=Measurement(tolerance=0))
    assert len(seen) == 4
    for name in ("d0", "d3", "near2"):
        rows = [tuple(row) for measured in seen for row in measured[name]]
        assert len(rows) == len(set(rows)) == 8
    matrix = callback.influence
    assert matrix.rounds.shape == (4, 2, 4)
    np.testing.assert_allclose(matrix.values, matrix.rounds.mean(axis=0))
    assert np.isfinite(matrix.domain_stderr).all()
    assert callback.updates[0].num_rounds == 4


def test_rounds_are_saved_once_the_proposal_stays(tmp_path):
    callback = run(tmp_path / "a", measurement=Measurement(tolerance=1.0, audit=False))
    assert [record.num_rounds for record in callback.updates] == [2, 2]
    assert all(0 <= record.proposal_change <= 1 for record in callback.updates)
    assert all(record.num_tokens < record.planned_tokens for record in callback.updates)
    observed = run(
        tmp_path / "b", mixer="static", observe=True, measurement=Measurement(tolerance=1.0)
    )
    # Nothing follows from what is measured for this mixer, so nothing can be said to stay.
    assert [record.num_rounds for record in observed.updates] == [4, 4, 4]


def test_few_rows_mean_fewer_rounds(tmp_path):
    callback = run(tmp_path, num_rows=5, at_steps=[4], noise_guard=1.0)
    assert callback.updates[0].num_rounds <= 2
    callback = run(tmp_path, num_rows=3, at_steps=[4], noise_guard=1.0)
    assert callback.updates[0].num_rounds == 1
    assert callback.updates[0].notes[-1] == "one round of text, so no noise guard"


def test_a_part_with_too_few_rows_for_two_rounds_is_named_once(tmp_path, caplog):
    targets = {"tiny": make_targets()["near0"].select(range(3)), "near2": make_targets()["near2"]}
    callback = run(tmp_path, targets=targets, preconditioner="sign", measurement=Measurement())
    assert [record.num_rounds for record in callback.updates] == [1, 1]
    assert caplog.text.count("`num_rounds` 4 becomes 1") == 1
    assert "target 'tiny' has 3 rows" in caplog.text


@pytest.mark.parametrize(("num_rows", "num_rounds"), [(4, 4), (3, 1)])
def test_rows_for_two_rounds_or_no_wish_for_them_bring_no_warning(num_rows, num_rounds):
    measurer = Measurer(
        Measurement(num_rounds=np.int64(num_rounds)),
        make_dataset().domains,
        {"tiny": make_targets()["near0"].select(range(num_rows))},
        preconditioner="sign",
        progress=False,
    )
    assert measurer.warning is None
    assert type(measurer.settings.num_rounds) is int


def test_the_guard_keeps_the_mixture_and_the_record_says_what_was_proposed(tmp_path):
    callback = run(tmp_path, noise_guard=1e9)
    for line in read_records(tmp_path / "influence.jsonl"):
        assert line["from_sample"] is None
        assert line["proposed"] == line["mixture"] != line["unguarded"]
        assert line["guard"]["step"] == 0
        assert "signal below its noise" in line["notes"][0]
    assert len(callback.dataset.schedule.segments) == 1


@pytest.mark.parametrize("observe", [False, True])
def test_the_audit_reads_the_same_rows_again(tmp_path, observe):
    # Without learning no loss moves, and only the very same rows show exactly that.
    callback = run(tmp_path, learning_rate=0.0, every_steps=5, observe=observe)
    assert callback.updates[0].audit is None
    assert len(callback.updates) >= 4
    for record in callback.updates[1:]:
        assert record.audit.realised.tolist() == [0.0, 0.0]
        assert record.audit.spearman is None


def test_the_audit_compares_the_last_prediction_with_what_came(tmp_path):
    targets = make_targets() | {"third": make_dataset().domains[1].heldout}
    measurement = Measurement(tolerance=0.0)
    callback = run(tmp_path, every_steps=6, measurement=measurement, targets=targets)
    earlier = []
    for before, record in zip(callback.updates, callback.updates[1:], strict=False):
        audit = record.audit
        mixture_K = record.realised / record.realised.sum()
        np.testing.assert_allclose(audit.predicted, before.influence.values @ mixture_K)
        assert (audit.realised > 0).all()  # a model this small learns everything at first
        assert audit.from_step == before.step
        earlier.append(stats.pearsonr(audit.predicted, audit.realised).statistic)
        assert audit.correlation == pytest.approx(np.mean(earlier))
    line = str(callback.updates[-1])
    assert f"audit: predicted order of targets r = {np.mean(earlier):.2f} over 2 intervals" in line


class _PoisonedAt(RecordingLlama):
    """Gives NaN wherever it is only measured between two of its training batches."""

    poisoned: range = range(0)

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        poisoned = not self.training and len(self.read) // 4 in self.poisoned
        if poisoned and outputs.loss is not None:
            outputs.loss = outputs.loss * float("nan")
        return outputs


def test_after_a_failed_update_there_is_nothing_to_audit(tmp_path):
    model = _PoisonedAt(make_model().config)
    model.poisoned = range(8, 9)
    callback = run(tmp_path, model=model, every_steps=4)
    assert [record.audit is None for record in callback.updates] == [True, True, True, False, False]
    failed = callback.updates[1]
    assert failed.notes[0].startswith("audit failed: 'near0', batch 0: the loss is not finite")
    assert failed.notes[1].startswith("update failed: ")


def test_the_audit_can_be_switched_off(tmp_path):
    callback = run(tmp_path, measurement=Measurement(audit=False))
    assert all(record.audit is None for record in callback.updates)
    assert callback.plan.tokens_per_update == 12 * (4 * 8 * (1 + 1 / 8) + 2 * 8)


def test_a_round_that_fails_lets_the_fit_go_and_the_rounds_before_it_are_counted(
    tmp_path, monkeypatch
):
    measure, calls = GroupInfluence.measure, []

    def fails_in_the_second_round(*args, **settings):
        calls.append(None)
        if len(calls) == 2:
            raise FloatingPointError("as the test says")
        return measure(*args, **settings)

    monkeypatch.setattr(GroupInfluence, "measure", fails_in_the_second_round)
    rounds = Measurement(num_rounds=2)
    callback = run(tmp_path, at_steps=[8], preconditioner="identity", measurement=rounds)
    (failed,) = callback.updates
    assert failed.notes == ("update failed: as the test says",)
    assert failed.influence is None
    assert failed.num_tokens == 12 * (4 + 2) * 4
    assert callback._updater.measurer._engine is None


@dataclass(frozen=True, kw_only=True)
class _Reads(Preconditioner):
    side: ClassVar = "target"

    @property
    def refresh_updates(self):
        return 3

    def fit(self, fitting):
        raise NotImplementedError

    def fit_passes(self, num_batches, optimizer):
        return 10 / num_batches

    def apply_passes(self, num_batches):
        return 1 / num_batches


@pytest.mark.parametrize(
    ("batch_size", "num_rows", "passes"),
    [
        # The least is two batches of each of four rounds: a fit in one round of three updates, and
        # two applications for each of two targets, all of them in every round.
        (None, 64, 5 / 4 / 3 + 2 * 2 / 2),
        (None, None, 5 / 4 / 3 + 2 * 2 / 2),
        (None, 4, 5 / 2 / 3 + 2 * 2 / 2),  # two rounds
        (5, 64, 10 / 4 / 3 + 2 * 2 / 1),
    ],
)
def test_what_a_preconditioner_reads_is_planned_at_its_most(batch_size, num_rows, passes):
    settings = Measurement(batch_size=batch_size, audit=False)
    measurer = Measurer(
        settings,
        make_dataset().domains,
        make_targets(),
        preconditioner=_Reads(),
        progress=False,
    )
    parts = measurer.parts(num_rows)
    assert [part.passes for part in parts] == pytest.approx([1 + passes] * 4 + [1] * 2)


def test_an_optimizer_that_turns_out_to_be_no_adam_stops_training_after_its_first_step(tmp_path):
    dataset, model = make_dataset(), make_model()
    callback = TikMixCallback(
        dataset, targets=make_targets(), every_steps=8, preconditioner="adam", progress=False
    )
    trainer = make_trainer(dataset, callback, make_arguments(tmp_path), model)
    trainer.optimizer = torch.optim.Adamax(model.parameters())  # betas and eps, no exp_avg_sq
    with pytest.raises(ValueError, match=r"needs an optimizer of the Adam family.*got Adamax"):
        trainer.train()
    assert trainer.state.global_step == 1


@dataclass(frozen=True, kw_only=True)
class _CountsFits(Preconditioner):
    side: ClassVar = "target"
    every: int
    fits: list = field(default_factory=list)

    @property
    def refresh_updates(self):
        return self.every

    def fit(self, fitting):
        self.fits.append(len(fitting.model.read) // 4)
        return lambda gradient_P: gradient_P


@pytest.mark.parametrize(("every", "steps"), [(1, [4, 8, 12, 16, 20]), (2, [4, 12, 20])])
def test_one_fit_serves_the_rounds_of_as_many_updates_as_it_says(tmp_path, every, steps):
    counting = _CountsFits(every=every)
    run(tmp_path, preconditioner=counting, every_steps=4)
    assert counting.fits == steps


@pytest.mark.parametrize("observe", [False, True])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preconditioner": "adam"}, "`preconditioner` 'adam' needs an optimizer .* got SGD"),
        ({"preconditioner": "adam_unit"}, "'adam_unit' .* got SGD.*\"sign\""),
        (
            {"measurement": Measurement(parameters="no_such")},
            "`parameters` must name .*'no_such' names none",
        ),
    ],
    ids=str,
)
def test_what_no_update_could_measure_stops_training_before_its_first_step(
    tmp_path, settings, message, observe
):
    model = make_model()
    mixer = "static" if observe else "tikmix_d"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, model=model, mixer=mixer, observe=observe, optim="sgd", **settings)
    assert model.read == []


def test_who_measures_nothing_is_not_asked_whether_it_could(tmp_path):
    nothing = Measurement(parameters="no_such")
    run(tmp_path, mixer="static", preconditioner="adam", optim="sgd", measurement=nothing)


def test_an_adam_that_has_not_stepped_yet_is_taken(tmp_path):
    callback = run(tmp_path, preconditioner="adam", at_steps=[1])
    assert callback.influence.preconditioner == "adam"


@pytest.mark.parametrize("name", ["kfac", "ggn", "auto", "sign"])
def test_a_sharded_model_is_refused_where_whole_parameters_are_needed(monkeypatch, name):
    monkeypatch.setattr(Passes, "sharded", True)  # as FSDP2's and ZeRO-3's are
    measurer = Measurer(
        Measurement(),
        make_dataset().domains,
        make_targets(),
        preconditioner=name,
        progress=False,
    )
    refused = pytest.raises(ValueError, match=f"`preconditioner` '{name}' needs whole parameters")
    with refused if name in ("kfac", "ggn") else nullcontext():
        measurer.check(make_model(), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_rounds": 0}, "`num_rounds` must be whole and at least 1; got 0"),
        ({"tolerance": -0.1}, r"`tolerance` must be a share of tokens in \[0, 1\]; got -0.1"),
        ({"batch_size": 0}, "`batch_size` must be whole and at least 1; got 0"),
        ({"parameters": "("}, "`parameters` must be 'all'"),
    ],
)
def test_bad_settings_are_named_with_their_mend(settings, message):
    with pytest.raises(ValueError, match=message):
        Measurement(**settings)
