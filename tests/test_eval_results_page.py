"""The page of all results: in step with them, and saying what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "eval"))  # as running a script does

import results_headlines
import results_page

EVAL = Path(results_page.__file__).parent


def test_the_page_is_of_the_results_there_are():
    made = results_page.page(EVAL / "results")
    kept = (EVAL / "RESULTS.md").read_text("utf-8")
    assert kept == made, "python eval/results_page.py"


def test_every_result_is_on_the_page_with_links_that_lead_somewhere():
    text = (EVAL / "RESULTS.md").read_text("utf-8")
    for path in (EVAL / "results").glob("*.json"):
        assert f"results/{path.name})" in text
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert len(links) >= 20
    assert all((EVAL / link).is_file() for link in links)


def test_an_entry_has_question_verdict_link_command_hardware_and_date(tmp_path):
    record = {
        "title": "Ranks",
        "command": "python eval/ranking.py --seed 0",
        "hardware": "two cores",
        "date": "2026-01-02",
        "notes": "Not this.",
        "verdict": {"line": "A claim. Verdict: open."},
        "rows": [],
    }
    (tmp_path / "reproduce_ranks.json").write_text(json.dumps(record))
    (tmp_path / "reproduce_ranks.md").write_text("# Ranks\n")
    page = results_page.page(tmp_path)
    name = tmp_path.name
    assert page.endswith(
        "## The paper's claims\n\n### Ranks\n\n"
        "*Asked:* How much text does the ranking of the domains take?\n\n"
        "A claim. Verdict: open.\n\n"
        f"[table]({name}/reproduce_ranks.md), [data]({name}/reproduce_ranks.json). "
        "`python eval/ranking.py --seed 0`; two cores; 2026-01-02.\n"
    )


def test_an_arena_says_who_is_first_and_how_many_goals_are_held():
    losses = [
        {"entry": "tikmix_d", "bits per byte": "1.9", "less uniform (95 % interval)": "-0.1"},
        {"entry": "uniform", "bits per byte": "2.0", "less uniform (95 % interval)": ""},
    ]
    goals = [{"held": "held"}, {"held": "missed"}, {"held": "open"}]
    found = results_headlines.headline(
        "arena_x", {"regimes": {"pretrain": {"losses": losses, "goals": goals}}}
    )
    assert found == (
        "pretrain: tikmix_d has the lowest loss, 1.9 bits per byte (-0.1 to the control); "
        "1 of 3 goals held."
    )


def test_scores_and_comparisons_say_their_numbers():
    tasks = {
        "arc": {"metric": "acc", "values": {"acc": 0.25}},
        "piqa": {"metric": "acc", "values": {}},
    }
    record = {"averages": {"all": None}, "tasks": tasks}
    assert results_headlines.headline("new", record) == "arc 0.2500, piqa failed."
    best = {"best_on": {"of": 2, "old": 1, "new": 2}}
    assert results_headlines.headline("new", best) == "Best of 2 tasks: old on 1, new on 2."


def test_a_result_that_nothing_knows_says_its_first_sentence():
    assert (
        results_headlines.headline("new", {"notes": "It is 0.5 here. More."}) == "It is 0.5 here."
    )
    assert results_headlines.headline("new", {}) == "See the table."


def test_the_check_fails_where_a_result_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(results_page, "PAGE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(sys, "argv", ["results_page.py"])
    results_page.main()
    monkeypatch.setattr(sys, "argv", ["results_page.py", "--check"])
    results_page.main()
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    (tmp_path / "RESULTS.md").write_text(page.replace("Tau", "tau", 1))
    with pytest.raises(SystemExit, match=r"Run python eval/results_page\.py"):
        results_page.main()
