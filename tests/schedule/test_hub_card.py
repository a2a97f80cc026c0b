"""The card of a schedule: what it says, and that other people's words stay words in it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from tikmix_hf import mixers
from tikmix_hf.schedule import DomainCard, MixtureSchedule, Run, ScheduleError, Segment, readme


def example(**run) -> MixtureSchedule:
    segments = (
        Segment(from_sample=0, mixture=np.array([0.75, 0.25]), num_tokens=400),
        Segment(
            from_sample=40,
            mixture=np.array([0.125, 0.875]),
            num_tokens=600,
            update={"mixer": mixers.load("tikmix_d")().describe()},
        ),
    )
    return MixtureSchedule(
        ("web", "code"),
        segments,
        run=Run(num_samples=100, num_tokens=1000, model="llama", **run),
        cards={"web": DomainCard(description="pages", num_tokens=123456)},
        provenance={"written_by": "tikmix_hf 1", "versions": {"torch": "2"}},
    )


def card(schedule: MixtureSchedule, **how) -> str:
    return readme.text(schedule, **{"name": "user/mix", "license": None, "plot": None, **how})


def rows(text: str, title: str) -> list[list[str]]:
    """Cells of the table under a title, escaped bars being text."""
    part = text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_tables_say_the_shares_tokens_and_fractions():
    text = card(example())
    assert rows(text, "Segments")[0] == ["from sample", "of the run", "tokens", "web", "code"]
    assert rows(text, "Segments")[2:] == [
        ["0", "0.0%", "400", "75.0%", "25.0%"],
        ["40", "40.0%", "600", "12.5%", "87.5%"],
    ]
    assert rows(text, "Domains")[2:] == [
        ["web", "pages", "123,456", "75.0%", "12.5%"],
        ["code", "", "", "25.0%", "87.5%"],
    ]
    for line in ("Samples: 100", "Tokens: 1,000", "Mixers: TikMixD", "Model: llama"):
        assert f"\n- {line}\n" in text
    assert "Seed" not in text


@pytest.mark.parametrize(("license", "says"), [(None, "no licence yet"), ("mit", "schedule: mit.")])
def test_the_metadata_is_yaml_with_tags_and_the_licence_that_was_given(license, says):
    text = card(example(), license=license, plot="mixture.png")
    _, metadata, body = text.split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert found.pop("license", None) == license
    assert found == {"tags": ["tikmix", "data-mixture", "pretraining"], "viewer": False}
    assert says in body
    assert "](mixture.png)" in body
    assert "mixture.png" not in card(example())


@pytest.mark.parametrize("length", [100, None])
def test_the_lines_that_replay_it_run_as_they_stand(tmp_path, length):
    import tiny

    dataset = tiny.make_dataset()
    schedule = replace(dataset.schedule, run=Run(num_samples=length))
    text = card(schedule, name=str(schedule.save_pretrained(tmp_path / "mix")))
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert len([line for line in code.splitlines() if line]) <= 5
    names: dict[str, Any] = {"domains": dataset.domains}
    exec(code, names)
    assert names["train"].schedule.mixture_at(0) == schedule.mixture_at(0)
    assert len(names["train"]) == 10_000


def test_other_peoples_words_stay_words():
    words = "a|b](javascript:x) <script> **x** `y` $z$ @me ![](u) # h"
    schedule = replace(
        example(), domains=(words, "code"), cards={words: DomainCard(description=words)}
    )
    text = card(replace(schedule, provenance={"written_by": words, "operations": [{words: 1}]}))
    assert [len(row) for row in rows(text, "Domains")] == [5, 5, 5, 5]
    name, description, *_ = rows(text, "Domains")[2]
    assert name == description
    # Without its escapes it is what it was, and nothing special is without one.
    assert re.sub(r"\\(.)", r"\1", name) == words
    bare = re.sub(r"\\.", "", text.split("## Segments", 1)[1])
    assert not re.search(r"[<>`*$@\[\]]", bare)


def test_many_domains_share_a_column_and_many_segments_lose_their_middle():
    names = tuple(f"d{k}" for k in range(30))
    shares = np.arange(1, 31) / 465
    segments = tuple(Segment(from_sample=s, mixture=shares) for s in range(100))
    text = card(MixtureSchedule(names, segments))
    table = rows(text, "Segments")
    assert table[0] == ["from sample", "of the run", "tokens", "largest shares"]
    assert table[2][3] == "d29 6.5%, d28 6.2%, d27 6.0%, d26 5.8%, d25 5.6%"
    assert len(table) == 2 + 40 + 1
    assert [row[0] for row in table[20:25]] == ["18", "19", "(60 more)", "80", "81"]
    assert table[-1][0] == "99"


def test_what_others_say_of_where_it_comes_from_stays_on_its_line():
    words = "x\n===\n\n    code\n\n1. www.evil.example \u202e" + "long " * 100_000
    told = {"written_by": words, "versions": {"torch": words}, "operations": [{words: 1}]}
    update = {"mixer": words}
    segments = tuple(replace(one, update=update) for one in example().segments)
    text = card(replace(example(), provenance=told, segments=segments))
    part = text.split("## Where it comes from\n")[1].split("\n## Licence")[0]
    lines = part.strip().splitlines()
    assert all(line.startswith("- ") for line in lines[:-2])
    assert max(map(len, lines)) < 400
    assert "\u202e" not in text


def test_the_picture_needs_a_length_and_room(tmp_path):
    assert readme.draw(example(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert not readme.draw(replace(example(), run=Run()), tmp_path / "b.png")
    names = tuple(f"d{k}" for k in range(61))
    wide = MixtureSchedule.constant(dict.fromkeys(names, 1 / 61))
    assert not readme.draw(replace(wide, run=Run(num_samples=9)), tmp_path / "c.png")
    short = replace(example(), run=Run(num_samples=40))  # its second mixture never comes
    assert readme.draw(short, tmp_path / "d.png")


def test_a_folders_card_asks_for_a_licence_and_name_that_the_hub_takes(tmp_path):
    with pytest.raises(ScheduleError, match="`license`"):
        example().save_pretrained(tmp_path / "a", license="My own")
    with pytest.raises(ScheduleError, match="`repo_id`"):
        example().save_pretrained(tmp_path / "a", repo_id="mine")
    assert not (tmp_path / "a").exists()
    example().save_pretrained(tmp_path / "a", repo_id="user/mix")
    assert "from_pretrained('user/mix')" in (tmp_path / "a" / "README.md").read_text()
