"""The replayed schedule: the segment in force, by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tikmix_hf import MixtureSchedule, mixers
from tikmix_hf.mixers import MixerError, Signals
from tikmix_hf.schedule import Segment

SEGMENTS = ((10, {"web": 1.0}), (20, {"code": 0.25, "web": 0.75}))
IN_FORCE = np.array([0.5, 0.5])


def answer(mixer, sample, domains=("web", "code")):
    signals = Signals(step=0, domains=domains, targets=(), mixture=IN_FORCE, sample=sample)
    return mixer.step(mixer.init(IN_FORCE), signals)[0].tolist()


def test_the_segment_in_force_at_the_sample_is_the_answer():
    mixer = mixers.load("schedule")(segments=SEGMENTS)
    assert answer(mixer, 9) == [0.5, 0.5]  # nothing is said yet
    assert answer(mixer, 10) == [1.0, 0.0]
    assert answer(mixer, 19) == [1.0, 0.0]
    assert answer(mixer, 20) == [0.75, 0.25]
    assert answer(mixer, 10**9) == [0.75, 0.25]
    assert answer(mixers.load("schedule")(), 0) == [0.5, 0.5]


def test_names_bind_and_not_positions():
    mixer = mixers.load("schedule")(segments=SEGMENTS)
    assert answer(mixer, 20, domains=("code", "web")) == [0.25, 0.75]
    with pytest.raises(MixerError, match="no domain to bind 'web' to"):
        answer(mixer, 20, domains=("code", "books"))


def test_it_is_made_of_a_mixture_schedule_and_agrees_with_it():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(2), size=3)
    parts = tuple(
        Segment(from_sample=start, mixture=mixture)
        for start, mixture in zip((0, 7, 30), shares, strict=True)
    )
    schedule = MixtureSchedule(("web", "code"), parts)
    mixer = mixers.load("schedule").from_record(json.loads(json.dumps(schedule.to_dict())))
    for sample in (0, 6, 7, 29, 30, 31):
        expected = schedule.mixture_at(sample)
        np.testing.assert_allclose(
            answer(mixer, sample), [expected["web"], expected["code"]], rtol=1e-14
        )


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        (((5, {"web": 1.0}), (5, {"code": 1.0})), "ascend strictly; got \\[5, 5\\]"),
        (((9, {"web": 1.0}), (5, {"code": 1.0})), "ascend strictly"),
        (((-1, {"web": 1.0}),), "0 or more"),
        (((0, {"web": 0.5}),), r"`segments\[from sample 0\]` must sum to 1"),
    ],
)
def test_segments_that_are_none_are_refused(segments, reason):
    with pytest.raises(ValueError, match=reason):
        mixers.load("schedule")(segments=segments)


def test_lists_as_a_file_has_them_will_do():
    mixer = mixers.load("schedule")(segments=[[0, {"web": 1.0}]])
    assert mixer == mixers.load("schedule")(segments=((0, {"web": 1.0}),))


def test_segments_of_numpy_numbers_are_described_and_broken_samples_are_refused():
    shares = {"web": np.float32(0.25), "code": np.float32(0.75)}
    mixer = mixers.load("schedule")(segments=((np.int64(4), shares),))
    assert mixer.describe()["segments"] == [[4, {"web": 0.25, "code": 0.75}]]
    with pytest.raises(ValueError, match=r"`segments` must be a whole number; got 2\.5"):
        mixers.load("schedule")(segments=((2.5, shares),))
    with pytest.raises(ValueError, match="`segments` must be a number; got 'all'"):
        mixers.load("schedule")(segments=((4, {"web": "all"}),))
