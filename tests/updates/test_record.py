"""UpdateRecord: its numbers, its line, its file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tikmix_hf.files import drop_records_after, finite, read_records
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.updates.audit import Comparison
from tikmix_hf.updates.noise_guard import Verdict
from tikmix_hf.updates.record import UpdateRecord, append_record

AUDIT = Comparison(
    from_step=2,
    targets=("arc", "piqa"),
    predicted=np.array([1.0, 2.0]),
    realised=np.array([0.25, 0.5]),
    spearman=1.0,
    correlation=0.5,
    num_intervals=4,
)


def record(step: int = 4, *, from_sample: int | None = 40, **more) -> UpdateRecord:
    matrix = InfluenceMatrix(
        values=np.array([[1.0, -2.0]]),
        domain_stderr=np.array([[0.1, np.nan]]),
        target_stderr=np.array([[0.1, np.nan]]),
        targets=("arc",),
        domains=("web", "code"),
        preconditioner="sign",
        seconds=1.0,
        num_tokens=64,
        domain_losses=np.array([3.0, 4.0]),
        target_losses=np.array([5.0]),
    )
    fields = {
        "step": step,
        "domains": ("web", "code"),
        "mixture": np.array([0.5, 0.5]),
        "proposed": np.array([0.8, 0.2]),
        "unguarded": np.array([0.9, 0.1]),
        "verdict": Verdict(promised=0.5, confirmed=0.375, stderr=0.125, step=0.75),
        "from_sample": from_sample,
        "notes": ("as the test says",),
        "influence": matrix,
        "num_rounds": 3,
        "proposal_change": 0.015625,
        "audit": AUDIT,
        "requested": np.array([30.0, 30.0]),
        "realised": np.array([20, 40]),
        "epochs": np.array([0.25, 1.5]),
        "num_tokens": 80,
        "costs": {"influence": {"tokens": 64, "seconds": 1.25}},
        "planned_tokens": 96,
        "seconds": 2.0,
        "planned_seconds": 1.5,
        "time_share": 0.125,
        "token_share": 0.0625,
    }
    return UpdateRecord(**{**fields, **more})


def test_scalars_say_what_the_record_says():
    scalars = record().scalars()
    assert scalars == pytest.approx(
        {
            "tikmix/mixture/web": 0.8,
            "tikmix/mixture/code": 0.2,
            "tikmix/proposed/web": 0.8,
            "tikmix/proposed/code": 0.2,
            "tikmix/requested_share/web": 0.5,
            "tikmix/requested_share/code": 0.5,
            "tikmix/realised_share/web": 1 / 3,
            "tikmix/realised_share/code": 2 / 3,
            "tikmix/epochs/web": 0.25,
            "tikmix/epochs/code": 1.5,
            "tikmix/change": 0.3,
            "tikmix/rounds": 3,
            "tikmix/proposal_change": 0.015625,
            "tikmix/guard/promised": 0.5,
            "tikmix/guard/confirmed": 0.375,
            "tikmix/guard/stderr": 0.125,
            "tikmix/guard/step": 0.75,
            "tikmix/audit/predicted/arc": 1.0,
            "tikmix/audit/predicted/piqa": 2.0,
            "tikmix/audit/realised/arc": 0.25,
            "tikmix/audit/realised/piqa": 0.5,
            "tikmix/audit/spearman": 1.0,
            "tikmix/audit/correlation": 0.5,
            "tikmix/tokens": 80,
            "tikmix/cost/influence/tokens": 64,
            "tikmix/cost/influence/seconds": 1.25,
            "tikmix/planned_tokens": 96,
            "tikmix/seconds": 2.0,
            "tikmix/planned_seconds": 1.5,
            "tikmix/time_share": 0.125,
            "tikmix/token_share": 0.0625,
            "tikmix/target_loss/arc": 5.0,
            "tikmix/influence/arc/web": 1.0,
            "tikmix/influence/arc/code": -2.0,
        }
    )


def test_where_nothing_changes_the_mixture_is_the_one_in_force():
    scalars = record(from_sample=None).scalars()
    assert scalars["tikmix/mixture/web"] == 0.5
    assert scalars["tikmix/proposed/web"] == 0.8


def test_the_line_names_the_sample_the_moves_the_reason_and_the_cost():
    line = str(record())
    assert line == (
        "[tikmix] step 4: from sample 40 on web 0.500 -> 0.800, code 0.500 -> 0.200; 30.0% of "
        "tokens moved; as the test says; audit: predicted order of targets r = 0.50 over 4 "
        "intervals (2.0 s, 1.5 planned, 12.5% of the time so far)"
    )
    assert "mixture kept; as the test says" in str(record(from_sample=None))


def test_what_there_was_not_is_left_out_of_scalars_and_null_in_the_file():
    bare = record(verdict=None, audit=None, proposal_change=None, planned_seconds=None)
    left_out = set(record().scalars()) - set(bare.scalars())
    assert {name.split("/")[1] for name in left_out} == {
        *("guard", "audit", "proposal_change", "planned_seconds"),
    }
    told = bare.to_dict()
    assert [told[name] for name in ("guard", "audit", "proposal_change", "planned_seconds")] == [
        None
    ] * 4
    assert "(2.0 s, 12.5% of the time so far)" in str(bare)
    assert "audit" not in str(bare)
    full = json.loads(json.dumps(record().to_dict()))
    assert full["unguarded"] == {"web": 0.9, "code": 0.1}
    assert full["guard"]["step"] == 0.75
    assert full["audit"]["realised"] == {"arc": 0.25, "piqa": 0.5}
    assert (full["tokens"], full["planned_tokens"], full["num_rounds"]) == (80, 96, 3)


def test_records_after_a_step_are_taken_back_and_a_torn_line_with_them(tmp_path):
    path = tmp_path / "influence.jsonl"
    for step in (4, 8, 12):
        append_record(path, record(step))
    with path.open("a") as file:
        file.write('{"step": 16, "from_sam')
    assert [line["step"] for line in read_records(path)] == [4, 8, 12]
    drop_records_after(path, 8)
    assert [line["step"] for line in read_records(path)] == [4, 8]
    assert json.loads(path.read_text().splitlines()[0])["realised_tokens"] == {
        "web": 20,
        "code": 40,
    }


def test_a_new_run_sets_the_file_of_another_aside(tmp_path):
    path = tmp_path / "influence.jsonl"
    append_record(path, record())
    drop_records_after(path, 0)
    assert not path.exists()
    assert len(read_records(tmp_path / "previous-influence.jsonl")) == 1


def test_what_is_not_finite_is_none_in_json():
    record = {"a": [1.0, float("nan")], "b": {"c": float("-inf")}, "d": "nan", "e": 2}
    assert finite(record) == {"a": [1.0, None], "b": {"c": None}, "d": "nan", "e": 2}
