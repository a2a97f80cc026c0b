import dataclasses
import json

import numpy as np
import pytest

from tikmix_hf import signals
from tikmix_hf.signals import InfluenceMatrix


def matrix(**changes):
    fields = {
        "values": [[1.0, 3.0], [0.1, -2.5e-7]],
        "domain_stderr": [[0.3, np.nan], [0.2, 0.0]],
        "target_stderr": [[0.4, 0.1], [np.nan, 0.0]],
        "targets": ("arc", "boolq"),
        "domains": ("web", "code"),
        "preconditioner": "sign",
        "seconds": 1.5,
        "num_tokens": 12_345,
        "domain_losses": [2.0, 3.0],
        "target_losses": [4.0, 5.0],
    }
    return InfluenceMatrix(**(fields | changes))


def assert_equal(one, other):
    for field in dataclasses.fields(InfluenceMatrix):
        np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name))


def test_a_file_gives_back_every_bit_and_holds_null_for_nan(tmp_path):
    path = tmp_path / "influence.json"
    original = matrix(values=[[1 / 3, 3.0], [1e-300, -0.1]], rounds=[[[1 / 7, 3.0], [0.1, 0.2]]])
    original.save(path)
    assert_equal(InfluenceMatrix.load(path), original)
    assert_equal(InfluenceMatrix.from_dict(original.to_dict()), original)
    assert json.loads(path.read_text())["domain_stderr"] == [[0.3, None], [0.2, 0.0]]
    assert [file.name for file in tmp_path.iterdir()] == ["influence.json"]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "influence.json"
    matrix().save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        matrix(seconds=9.0).save(path)
    assert InfluenceMatrix.load(path).seconds == 1.5
    assert [file.name for file in tmp_path.iterdir()] == ["influence.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "something else"}, "expected an influence matrix.*something else"),
        ({"version": 99}, "version 99"),
        ({"extra": 1}, r"unknown \['extra'\]"),
        ({"values": [[1.0, 2.0]]}, r"`values` must have the shape \(2, 2\); got \(1, 2\)"),
        ({"values": [[1.0, None], [0.0, 0.0]]}, "`values` must be finite"),
        ({"domain_losses": [1.0]}, r"`domain_losses` must have the shape \(2,\)"),
        ({"target_losses": [1.0, None]}, "`target_losses` must be finite"),
        ({"domain_stderr": [[-1.0, 0.0], [0.0, 0.0]]}, "`domain_stderr` must be >= 0 or NaN"),
        ({"target_stderr": [[1.0]]}, r"`target_stderr` must have the shape \(2, 2\)"),
        ({"rounds": []}, "`rounds` must hold at least one"),
        ({"rounds": [[[1.0]]]}, r"`rounds` must have the shape \(1, 2, 2\)"),
        ({"targets": ["arc", "arc"]}, "`targets` must be distinct"),
        ({"domains": []}, "`domains` must be distinct names, at least one"),
    ],
)
def test_a_file_that_is_not_an_influence_matrix_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(matrix().to_dict() | change))
    with pytest.raises(ValueError, match=rf"broken\.json.*{message}"):
        InfluenceMatrix.load(path)


def test_a_missing_field_or_text_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "broken.json"
    fields = matrix().to_dict()
    del fields["target_stderr"]
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"missing \['target_stderr'\]"):
        InfluenceMatrix.load(path)
    for text in ("not json", "[1, 2]", "3"):
        path.write_text(text)
        with pytest.raises(
            ValueError, match=r"cannot read an influence matrix from .*broken\.json"
        ):
            InfluenceMatrix.load(path)


def test_arrays_are_private_read_only_float64():
    given = np.ones((2, 2), dtype=np.float32)
    made = matrix(values=given)
    given[:] = 7
    assert made.values.dtype == np.float64
    assert made.values.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    for array in (made.values, made.domain_stderr, made.target_stderr, made.target_losses):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seconds = 3.0


def test_centring_subtracts_what_the_mixture_in_force_gets():
    values = matrix().centred(np.array([0.25, 0.75]))
    np.testing.assert_allclose(values[0], [1 - 2.5, 3 - 2.5])
    np.testing.assert_allclose(values @ [0.25, 0.75], 0, atol=1e-16)
    with pytest.raises(ValueError, match=r"one share per domain \(2: web, code\); got the shape"):
        matrix().centred(np.ones(3) / 3)


def test_both_sides_errors_add_in_squares_and_rounds_stand_in_where_one_is_unknown():
    np.testing.assert_allclose(matrix().stderr, [[0.5, np.nan], [np.nan, 0.0]])
    rounds = np.array([[[1.0, 2.0], [0.0, 0.0]], [[1.0, 4.0], [1.0, 0.0]]])
    with_rounds = matrix(rounds=rounds)
    # Two rounds that differ by d have the standard error d / 2.
    np.testing.assert_allclose(with_rounds.stderr, [[0.5, 1.0], [0.5, 0.0]])
    assert np.isnan(matrix(rounds=rounds[:1]).stderr[0, 1])


def test_the_mean_of_rounds_keeps_them_and_shrinks_the_errors():
    first, second = matrix(), matrix(values=[[3.0, 5.0], [0.3, 0.0]], seconds=2.0)
    mean = InfluenceMatrix.mean([first, second])
    np.testing.assert_allclose(mean.values, (first.values + second.values) / 2)
    np.testing.assert_array_equal(mean.rounds, np.stack([first.values, second.values]))
    np.testing.assert_allclose(mean.domain_stderr, first.domain_stderr / 2**0.5)
    np.testing.assert_allclose(mean.target_stderr, first.target_stderr / 2**0.5)
    assert (mean.seconds, mean.num_tokens) == (3.5, 2 * 12_345)


def test_checkpoints_are_weighted_and_are_no_rounds():
    first, second = matrix(), matrix(values=[[3.0, 5.0], [0.3, 0.0]])
    mean = InfluenceMatrix.mean([first, second], weights=[3, 1])
    np.testing.assert_allclose(mean.values, 0.75 * first.values + 0.25 * second.values)
    np.testing.assert_allclose(mean.domain_stderr, first.domain_stderr * (0.75**2 + 0.25**2) ** 0.5)
    assert mean.rounds is None
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.inf]):
        with pytest.raises(ValueError, match="`weights` must be 2 numbers"):
            InfluenceMatrix.mean([first, second], weights=weights)
    with pytest.raises(ValueError, match=r"must agree on domains; got"):
        InfluenceMatrix.mean([first, matrix(domains=("code", "web"))])
    with pytest.raises(ValueError, match="at least one"):
        InfluenceMatrix.mean([])


def test_the_table_names_every_target_and_domain():
    lines = str(matrix()).splitlines()
    assert lines[0] == "influence (sign), 12,345 tokens"
    assert lines[1].split() == ["target", "web", "code"]
    assert lines[2].split() == ["arc", "1", "±", "0.5", "3", "±", "nan"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_the_room_lists_its_public_names():
    assert signals.__all__ == ["GroupInfluence", "InfluenceMatrix"]
