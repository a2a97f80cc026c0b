"""Schedules on a Hub: published, fetched by name, replayed; the real client against a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
import yaml
from huggingface_hub import constants

from tikmix_hf import MixtureSchedule, TikMixCallback
from tikmix_hf.schedule import Run, ScheduleError, Segment
from tikmix_hf.updates.measurement import Measurement

# Of the client itself, where it uploads a large file such as a picture.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

FILES = {"mixture_schedule.json", "README.md", "mixture.png"}


def example(share: float = 0.75) -> MixtureSchedule:
    segments = (
        Segment(from_sample=0, mixture=np.array([share, 1 - share])),
        Segment(from_sample=40, mixture=np.array([0.1, 0.9])),
    )
    return MixtureSchedule(("web", "code"), segments, run=Run(num_samples=100))


def content(schedule: MixtureSchedule) -> dict[str, bytes]:
    return {"mixture_schedule.json": schedule.to_json().encode()}


# Publish, fetch, replay


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Of a run that chose its mixture twice while it trained."""
    dataset = tiny.make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset,
        targets=tiny.make_targets(),
        every_steps=3,
        num_rows=4,
        measurement=Measurement(num_rounds=1),
        noise_guard=0.0,
        progress=False,
    )
    folder = tmp_path_factory.mktemp("run")
    tiny.make_trainer(dataset, callback, tiny.make_arguments(folder)).train()
    assert dataset.num_segments > 2
    return dataset


@pytest.mark.parametrize(("batch", "num_samples"), [(3, 48), (8, 400), (5, 985)])
def test_a_run_is_pushed_and_replayed_by_name_at_another_batch_size_and_length(
    hub, dataset, batch, num_samples
):
    dataset.schedule.push_to_hub("user/proxy")
    fetched = MixtureSchedule.from_pretrained("user/proxy")
    assert fetched == dataset.schedule

    long = fetched.rescale(num_samples=num_samples)
    replay = tiny.make_dataset(num_samples=num_samples, mixture=long)
    starts = [segment.from_sample for segment in replay.schedule.segments]
    for old, new in zip(dataset.schedule.segments, replay.schedule.segments, strict=True):
        # The nearest sample to the same fraction, and the very same shares from there on.
        assert abs(new.from_sample - old.from_sample / 96 * num_samples) <= 0.5
        asked = replay.schedule.mixture_at(new.from_sample)
        assert np.abs(np.array([*asked.values()]) - old.mixture).max() <= 1e-9

    # What a loader of another batch size hands out, counted by the addresses of its rows.
    domains = [
        int(row[0])
        for start in range(0, num_samples, batch)
        for row in (
            sample["input_ids"]
            for sample in replay.__getitems__([*range(start, min(start + batch, num_samples))])
        )
    ]
    owed_K = np.zeros(len(dataset.domains.names))
    for segment, stop in zip(replay.schedule.segments, [*starts[1:], num_samples], strict=True):
        part = domains[segment.from_sample : stop]
        served_K = np.bincount(part, minlength=len(owed_K)) * tiny.LENGTH
        # A segment pays what the ones before it left owing, which is less than a block.
        owed_K += segment.mixture * len(part) * tiny.LENGTH - served_K
        assert np.abs(owed_K).max() <= tiny.LENGTH


def test_a_push_is_one_commit_of_the_schedule_its_card_and_its_picture(hub):
    address = example().push_to_hub("user/mix", license="apache-2.0", commit_message="First")
    assert address == f"{hub.server.endpoint}/datasets/user/mix"
    files = hub.server.files("user/mix")
    assert set(files) == {".gitattributes", *FILES}
    assert json.loads(files["mixture_schedule.json"]) == example().to_dict()
    assert files["README.md"].startswith(b"---\nlicense: apache-2.0\ntags:\n- tikmix\n")
    assert b"from_pretrained('user/mix')" in files["README.md"]
    assert files["mixture.png"].startswith(b"\x89PNG")
    assert sum("/commit/" in line for line in hub.server.asked) == 1
    assert any("tikmix_hf/" in agent for agent in hub.server.agents)


def test_a_second_push_keeps_the_licence_that_it_does_not_change(hub):
    def pushed(**how) -> str:
        example().push_to_hub("user/mix", **how)
        return yaml.safe_load(hub.server.files("user/mix")["README.md"].split(b"---\n")[1]).get(
            "license"
        )

    assert pushed() is None
    assert pushed(license="mit") == "mit"
    assert pushed() == "mit"
    assert pushed(revision="next") == "mit"
    assert pushed(license="cc0-1.0") == "cc0-1.0"


@pytest.mark.parametrize(
    "own", ["# My data\n", "---\ntags:\n- text\n---\n", "---\nlicense: mit\n---\n"]
)
def test_a_card_of_something_else_is_not_written_over(hub, own):
    hub.server.add("user/data", {"README.md": own.encode()})
    with pytest.raises(ScheduleError, match=r"user/data is there already, and its README.md is"):
        example().push_to_hub("user/data")
    assert hub.server.files("user/data") == {"README.md": own.encode()}


def test_a_second_push_replaces_the_first_and_a_commit_stays_what_it_was(hub):
    example(0.75).push_to_hub("user/mix")
    first = hub.server.repos["datasets/user/mix"].branches["main"]
    example(0.5).push_to_hub("user/mix")
    assert MixtureSchedule.from_pretrained("user/mix").mixture_at(0)["web"] == 0.5
    assert MixtureSchedule.from_pretrained("user/mix", revision=first) == example(0.75)


def test_a_branch_is_made_and_read_by_its_name(hub):
    example(0.75).push_to_hub("user/mix")
    address = example(0.5).push_to_hub("user/mix", revision="short/run")
    assert address.endswith("/datasets/user/mix/tree/short/run")
    example(0.25).push_to_hub("user/mix", revision="short/run")
    assert MixtureSchedule.from_pretrained("user/mix") == example(0.75)
    assert MixtureSchedule.from_pretrained("user/mix", revision="short/run") == example(0.25)


def test_a_pull_request_leaves_the_branch_alone_and_says_where_it_is(hub):
    hub.server.add("guest/mix", content(example(0.75)))
    address = example(0.5).push_to_hub("guest/mix", create_pr=True)
    assert address == f"{hub.server.endpoint}/datasets/guest/mix/discussions/1"
    assert MixtureSchedule.from_pretrained("guest/mix") == example(0.75)
    assert MixtureSchedule.from_pretrained("guest/mix", revision="refs/pr/1") == example(0.5)


def test_a_private_schedule_is_its_owners_alone(hub):
    example().push_to_hub("user/mix", private=True)
    assert hub.server.repos["datasets/user/mix"].private
    assert MixtureSchedule.from_pretrained("user/mix", token="hf_user") == example()
    for token in ("hf_guest", False):
        with pytest.raises(FileNotFoundError, match="or it is private"):
            MixtureSchedule.from_pretrained("user/mix", token=token)


@pytest.mark.parametrize(("is_private", "kind"), [(False, "public"), (True, "private")])
def test_a_push_does_not_write_where_others_would_read_it_than_was_meant(hub, is_private, kind):
    hub.server.add("user/mix", content(example(0.5)), private=is_private)
    with pytest.raises(ScheduleError, match=f"`private` is {not is_private}, .* and {kind};"):
        example().push_to_hub("user/mix", private=not is_private)
    assert hub.server.files("user/mix") == content(example(0.5))
    example().push_to_hub("user/mix", private=is_private)
    assert MixtureSchedule.from_pretrained("user/mix") == example()


# The cache


def test_what_was_fetched_once_is_there_offline(hub, monkeypatch):
    hub.server.add("user/mix", content(example()))
    MixtureSchedule.from_pretrained("user/mix")
    asked = len(hub.server.asked)
    assert MixtureSchedule.from_pretrained("user/mix", local_files_only=True) == example()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert MixtureSchedule.from_pretrained("user/mix") == example()
    assert len(hub.server.asked) == asked
    with pytest.raises(FileNotFoundError, match="the cache has no schedule of it"):
        MixtureSchedule.from_pretrained("user/mix", revision="other")
    with pytest.raises(FileNotFoundError, match="may not be asked for user/mix"):
        example().push_to_hub("user/mix")


def test_a_commit_that_was_fetched_is_not_asked_for_again(hub):
    commit = hub.server.add("user/mix", content(example()))
    MixtureSchedule.from_pretrained("user/mix", revision=commit)
    asked = len(hub.server.asked)
    assert MixtureSchedule.from_pretrained("user/mix", revision=commit) == example()
    assert len(hub.server.asked) == asked


def test_what_has_not_changed_is_not_fetched_again_and_what_has_is(hub, tmp_path):
    cache = tmp_path / "mine"
    hub.server.add("user/mix", content(example(0.75)))
    for _ in range(2):
        MixtureSchedule.from_pretrained("user/mix", cache_dir=cache)
    assert sum(line.startswith("GET ") for line in hub.server.asked) == 1
    assert cache.is_dir()
    assert not hub.cache.exists()
    hub.server.add("user/mix", content(example(0.5)))
    assert MixtureSchedule.from_pretrained("user/mix", cache_dir=cache) == example(0.5)


def test_nothing_but_the_schedule_is_asked_for(hub):
    hub.server.add("user/mix", {**content(example()), "x.py": b"raise 1", "README.md": b"x"})
    MixtureSchedule.from_pretrained("user/mix")
    assert {line.rpartition("/")[2] for line in hub.server.asked} == {"mixture_schedule.json"}


# Folders


def test_a_folder_is_saved_and_read_back_and_so_is_the_folder_of_a_run(tmp_path):
    folder = example().save_pretrained(tmp_path / "new" / "mix")
    assert {path.name for path in folder.iterdir()} == FILES
    assert MixtureSchedule.from_pretrained(folder) == example()
    assert "from_pretrained('mix')" in (folder / "README.md").read_text()
    (tmp_path / "run").mkdir()
    example(0.5).save(tmp_path / "run" / "schedule.json")
    assert MixtureSchedule.from_pretrained(str(tmp_path / "run")) == example(0.5)
    assert MixtureSchedule.from_pretrained(tmp_path / "run" / "schedule.json") == example(0.5)


def test_a_folder_with_two_schedules_must_have_one_twice(tmp_path):
    folder = example().save_pretrained(tmp_path)
    example().save(folder / "schedule.json")
    assert MixtureSchedule.from_pretrained(folder) == example()
    example(0.5).save(folder / "schedule.json")
    with pytest.raises(ScheduleError, match=r"schedule\.json that differ\. Name one"):
        MixtureSchedule.from_pretrained(folder)


def test_a_folder_without_one_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no mixture_schedule\.json and no schedule\.json"):
        MixtureSchedule.from_pretrained(tmp_path)
    with pytest.raises(ScheduleError, match=r"`revision` must be None, .* folder or file of this"):
        MixtureSchedule.from_pretrained(tmp_path, revision="main")


# As users have it


def test_the_environment_alone_says_which_hub_cache_and_token(hub, tmp_path):
    code = """
import sys
from tikmix_hf import MixtureSchedule
assert "huggingface_hub.hf_api" not in sys.modules, "the client is heavy"
schedule = MixtureSchedule.constant({"web": 0.75, "code": 0.25})
print(schedule.push_to_hub("user/mix", private=True))
assert MixtureSchedule.from_pretrained("user/mix") == schedule
"""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
        "HF_ENDPOINT": hub.server.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_user",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.server.endpoint}/datasets/user/mix"
    assert (tmp_path / "home" / "hub" / "datasets--user--mix").is_dir()
    # Its length is not known, so nothing is drawn.
    assert "mixture.png" not in hub.server.files("user/mix")
