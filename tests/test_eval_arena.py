"""The arena: what is run and in which order, and the arithmetic of its tables."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from tikmix_hf import Domains, MixtureSchedule
from tikmix_hf.schedule import Segment

sys.path.insert(0, str(Path(__file__).parent.parent / "eval"))  # as running a script does

import arena
import arena_config
import arena_data
import arena_entries
import arena_jobs
import arena_judge
import arena_proxies
import arena_run
import arena_statistics
import arena_text
import report_arena
from arena_config import Entry, Proxies, Regime, TextFile, Training

EVAL = Path(arena.__file__).parent
T_OF_TWO = 4.302653  # 97.5 % point of Student's t with two degrees of freedom, from a table


def make_arena(**changes) -> arena_config.Arena:
    entries = {
        "uniform": Entry(),
        "doremi": Entry(mixer="static", reference="uniform"),
        "tikmix_d": Entry(mixer="tikmix_d"),
        "shuffled": Entry(mixture="shuffled", of="tikmix_d"),
        "regmix": Entry(mixture="regmix"),
    }
    settings = {
        "data": "nowhere",
        "domains": ("web", "code"),
        "off_target": "code",
        "block_size": 8,
        "vocab_size": 300,
        "model": {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        "training": Training(batch_rows=4, warmup_steps=1, curve_steps=2, judged_rows=8),
        "callback": {"at_steps": [1], "num_rows": 16, "on_error": "raise"},
        "targets": {"report": {}},
        "seeds": {"report": (0,)},
        "benchmarks": {},
        "entries": entries,
        "regimes": {"pretrain": Regime(steps=3, entries=tuple(entries))},
        "proxies": Proxies(num_mixtures=4, in_one_job=3, steps=2),
    }
    return arena_config.Arena(**{**settings, **changes})


# Statistics


def test_the_interval_is_students_t_over_seeds():
    found = arena_statistics.interval([-0.1, -0.2, -0.3])
    assert found.mean == pytest.approx(-0.2)
    assert found.half == pytest.approx(T_OF_TWO * 0.1 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((-0.2 - found.half, -0.2 + found.half))


def test_one_seed_has_no_interval():
    found = arena_statistics.interval([0.5])
    assert math.isnan(found.half)
    assert "one seed" in str(found)


def record(entry, seed, loss, **changes):
    plain = {"mixture": "uniform", "mixer": "static", "of": None}
    return {
        "regime": "pretrain",
        "entry": entry,
        "seed": seed,
        "entry_settings": {**plain, **changes.pop("entry_settings", {})},
        "bits_per_byte": {"arc": loss + 0.5, "gsm8k": loss - 0.5},
        "mean_bits_per_byte": loss,
        "benchmarks": {"arc_easy": {"accuracy": 0.25, "bits_per_byte": 3.0}},
        "curve": {"tokens": [100, 200, 300, 400], "mean_bits_per_byte": [4.0, 3.0, 2.0, loss]},
        "domains": ["web", "code"],
        "mixtures": [{"from_sample": 0, "mixture": [0.9, 0.1]}],
        "shares": [0.75, 0.25],
        "training": {"seconds": 50.0, "flops": 1000.0},
        "choosing": {"seconds": 0.5, "flops": 15.0},
        "hardware": "a machine",
        **changes,
    }


def runs_of(*records):
    return arena_statistics.group(records, "pretrain")


def test_differences_are_paired_by_seed():
    # Over seeds the losses spread by 1; within a seed the difference is -0.1, -0.2, -0.3.
    losses = {0: (2.0, 1.9), 1: (3.0, 2.8), 2: (4.0, 3.7)}
    runs = runs_of(
        *(record("uniform", seed, a) for seed, (a, _) in losses.items()),
        *(record("odm", seed, b) for seed, (_, b) in reversed(losses.items())),
        record("odm", 7, 100.0),  # the control lacks this seed
    )
    own = arena_statistics.row(runs, "odm", "code")
    assert own.seeds == (0, 1, 2)
    assert own.gaps == pytest.approx((-0.1, -0.2, -0.3))
    assert own.gap.half == pytest.approx(T_OF_TWO * 0.1 / math.sqrt(3), rel=1e-6)
    assert own.target_gaps == pytest.approx({"arc": -0.2, "gsm8k": -0.2})
    assert own.off_target == 0.25
    assert own.final_off_target == pytest.approx(0.1)
    assert own.seconds_share == 0.01
    assert own.flops_share == 0.015


def test_a_curve_is_smoothed_over_the_points_up_to_each():
    assert arena_statistics.smoothed([6.0, 4.0, 2.0, 0.0]) == pytest.approx([6.0, 5.0, 4.0, 2.0])


def test_tokens_to_reach_are_interpolated():
    curve = {"tokens": [10, 20, 30, 40], "mean_bits_per_byte": [6.0, 4.0, 2.0, 0.0]}
    # Smoothed: 6, 5, 4, 2. Level 3 lies in the middle of 30 and 40.
    assert arena_statistics.tokens_to_reach(curve, 3.0) == pytest.approx(35)
    assert arena_statistics.tokens_to_reach(curve, 5.0) == pytest.approx(20)
    assert arena_statistics.tokens_to_reach(curve, 9.0) == 10
    assert arena_statistics.tokens_to_reach(curve, 1.9) == math.inf


def test_the_control_reaches_its_own_loss_with_all_tokens():
    runs = runs_of(record("uniform", 0, 1.0))
    assert arena_statistics.row(runs, "uniform", "code").reach == (1.0,)


def ours(seed, loss, **changes):
    return record("tikmix_d", seed, loss, entry_settings={"mixer": "tikmix_d"}, **changes)


def verdict(found, words):
    (only,) = [v for v in found if words in v.goal]
    return only


def test_a_goal_is_open_where_the_interval_covers_zero():
    control = [record("uniform", seed, 2.0) for seed in (0, 1, 2)]
    for losses, held in (
        ((1.9, 1.8, 1.7), "open"),  # -0.2 +- 0.25
        ((1.81, 1.8, 1.79), "held"),
        ((2.1, 2.2, 2.3), "missed"),
    ):
        own = [ours(seed, loss) for seed, loss in enumerate(losses)]
        found = arena_statistics.verdicts(runs_of(*control, *own), "code")
        assert verdict(found, "than uniform").held == held


def test_limits_are_held_or_missed_by_their_numbers():
    control = record("uniform", 0, 2.0)
    found = arena_statistics.verdicts(runs_of(control, ours(0, 1.5)), "code")
    assert verdict(found, "off-target").held == "missed"
    assert verdict(found, "seconds").held == "held"
    assert verdict(found, "FLOPs").held == "held"
    # Smoothed: the control ends at (3 + 2 + 2) / 3, ours goes from 3 to (3 + 2 + 1.5) / 3.
    assert verdict(found, "70 %").numbers == "95.0%"
    assert verdict(found, "70 %").held == "missed"
    early = {"tokens": [100, 200, 300, 400], "mean_bits_per_byte": [1.0, 1.0, 1.0, 1.0]}
    cheap = ours(0, 1.5, curve=early, shares=[1.0, 0.0], choosing={"seconds": 2.0, "flops": 30.0})
    found = arena_statistics.verdicts(runs_of(control, cheap), "code")
    assert verdict(found, "70 %") == arena_statistics.Verdict(
        goal="uniform's final loss with at most 70 % of the tokens",
        entry="tikmix_d",
        held="held",
        numbers="25.0%",
    )
    assert verdict(found, "off-target").held == "held"
    assert verdict(found, "seconds").held == "missed"
    assert verdict(found, "FLOPs").held == "missed"


def test_rivals_are_those_who_choose_without_the_runs_of_others():
    shuffled = {"mixture": "shuffled", "of": "tikmix_d"}
    runs = runs_of(
        record("uniform", 0, 2.0),
        ours(0, 1.5),
        record("odm", 0, 1.8, entry_settings={"mixer": "odm"}),
        record("best_single", 0, 1.0, entry_settings={"mixture": "best_single"}),
        record("schedule_shuffled", 0, 1.6, entry_settings=shuffled),
        record("regmix", 0, 1.4, entry_settings={"mixture": "regmix"}),
    )
    found = arena_statistics.verdicts(runs, "code")
    rivals = {v.goal.rpartition(" ")[2] for v in found if v.goal.startswith("lower mean")}
    assert rivals == {"uniform", "odm"}
    assert verdict(found, "shuffled").numbers.startswith("-0.1")
    assert verdict(found, "lower than regmix").held == "missed"
    assert verdict(found, "FLOPs of choosing of regmix").held == "missed"  # 15 to 15
    for flops, held in ((75.0, "held"), (74.0, "missed")):  # 15 are a fifth of 75
        choosing = {"seconds": 1.0, "flops": flops}
        dear = record("regmix", 0, 1.4, entry_settings={"mixture": "regmix"}, choosing=choosing)
        found = arena_statistics.verdicts(
            runs_of(record("uniform", 0, 2.0), ours(0, 1.5), dear), None
        )
        assert verdict(found, "FLOPs of choosing of regmix").held == held


def test_seeds_of_two_machines_are_one_report_if_their_settings_are_the_same():
    older = [{**record("uniform", seed, 2.0), "digest": "a"} for seed in (0, 1)]
    newer = [{**record("uniform", seed, 3.0), "digest": "a"} for seed in (1, 2)]
    runs = arena_statistics.group(report_arena.merged(older, newer), "pretrain")
    assert {s: r["mean_bits_per_byte"] for s, r in runs["uniform"].items()} == {0: 2, 1: 3, 2: 3}
    newer[0]["digest"] = "b"
    with pytest.raises(ValueError, match="same settings; those of uniform in pretrain differ"):
        report_arena.merged(older, newer)


# The shuffled schedule


def schedule(*mixtures):
    starts = (0, 10, 25, 60)
    segments = [
        Segment(from_sample=s, mixture=np.array(m)) for s, m in zip(starts, mixtures, strict=False)
    ]
    return MixtureSchedule(("web", "code"), tuple(segments))


def test_shuffling_keeps_the_mixtures_and_the_boundaries():
    before = schedule([0.5, 0.5], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2])
    orders = set()
    for seed in range(10):
        after = arena_entries.shuffled(before, np.random.default_rng(seed))
        assert [s.from_sample for s in after.segments] == [0, 10, 25, 60]
        shares = tuple(s.mixture[0] for s in after.segments)
        assert sorted(shares) == [0.5, 0.6, 0.7, 0.8]
        orders.add(shares)
    assert (0.5, 0.6, 0.7, 0.8) not in orders
    assert len(orders) > 5


def test_two_mixtures_are_always_exchanged():
    before = schedule([0.5, 0.5], [0.6, 0.4])
    for seed in range(5):
        after = arena_entries.shuffled(before, np.random.default_rng(seed))
        assert [s.mixture[0] for s in after.segments] == [0.6, 0.5]


def test_mixtures_that_are_alike_have_one_order():
    before = schedule([0.5, 0.5], [0.5, 0.5])
    after = arena_entries.shuffled(before, np.random.default_rng(0))
    assert [s.mixture[0] for s in after.segments] == [0.5, 0.5]


# Jobs


def test_a_run_waits_for_what_it_is_made_of():
    found = arena_jobs.jobs(make_arena(), seeds=[3])
    assert found["pretrain/doremi-3"].needs == ("text", "pretrain/uniform-3")
    assert found["pretrain/shuffled-3"].needs == ("text", "pretrain/tikmix_d-3")
    # Two domains alone and four mixtures, three in a job.
    proxies = ("pretrain/proxies-0", "pretrain/proxies-1")
    assert found["pretrain/regmix-3"].needs == ("text", *proxies)
    for job in found.values():
        assert set(job.needs) <= set(found)


def test_what_an_entry_waits_for_is_run_though_it_was_not_named():
    found = arena_jobs.jobs(make_arena(), seeds=[0], entries=["shuffled"])
    assert list(found) == ["text", "pretrain/tikmix_d-0", "pretrain/shuffled-0"]


def test_a_checkpoint_to_start_from_comes_first():
    start = Regime(steps=3, entries=("uniform",), start_domains=("web",), start_steps=2)
    found = arena_jobs.jobs(make_arena(regimes={"finetune": start}), seeds=[0, 1])
    assert found["finetune/uniform-1"].needs == ("text", "finetune/start-1")


def test_entries_that_wait_for_one_another_are_refused():
    entries = {
        "a": Entry(mixture="final", of="b"),
        "b": Entry(mixture="final", of="a"),
    }
    regimes = {"pretrain": Regime(steps=3, entries=("a",))}
    with pytest.raises(ValueError, match="wait for one another: pretrain/a-0"):
        arena_jobs.jobs(make_arena(entries=entries, regimes=regimes), seeds=[0])


def test_only_jobs_whose_needs_are_over_are_ready():
    found = arena_jobs.jobs(make_arena(), seeds=[0], entries=["shuffled"])
    names = [job.name for job in arena_jobs.ready(found, {"text"}, set())]
    assert names == ["pretrain/tikmix_d-0"]
    assert not arena_jobs.ready(found, {"text"}, {"pretrain/tikmix_d-0"})


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A stand-in for arena_run.py: writes the job's file, unless the job is to fail."""
    monkeypatch.setattr(arena, "POLL_SECONDS", 0.01)
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, pathlib\n"
        "folder, failing, name = sys.argv[1:]\n"
        "assert name != failing\n"
        "path = pathlib.Path(folder, name + '.json')\n"
        "path.write_text('{}')\n"
        "with open(folder + '/order.txt', 'a') as order: order.write(name + '\\n')\n"
    )
    return lambda failing: [sys.executable, "-I", "-S", str(script), str(tmp_path), failing]


def order(folder):
    path = folder / "order.txt"
    return path.read_text().split() if path.is_file() else []


def test_jobs_run_in_order_and_finished_ones_not_again(tmp_path, command, capsys):
    wanted = arena_jobs.jobs(make_arena(), seeds=[0], entries=["shuffled", "doremi"])
    assert arena.Scheduler(wanted, tmp_path, command("none"), 2).run()
    first = order(tmp_path)
    assert sorted(first) == sorted(wanted)
    for name in first:
        assert all(first.index(need) < first.index(name) for need in wanted[name].needs)
    assert "5 of 5, about 0 min left" in capsys.readouterr().out
    assert arena.Scheduler(wanted, tmp_path, command("none"), 2).run()
    assert order(tmp_path) == first
    wanted["pretrain/shuffled-0"].path(tmp_path).unlink()
    assert arena.Scheduler(wanted, tmp_path, command("none"), 2).run()
    assert order(tmp_path) == [*first, "pretrain/shuffled-0"]


def test_a_failed_job_takes_along_only_what_waits_for_it(tmp_path, command, capsys):
    wanted = arena_jobs.jobs(make_arena(), seeds=[0], entries=["shuffled", "uniform"])
    assert not arena.Scheduler(wanted, tmp_path, command("pretrain/tikmix_d-0"), 1).run()
    assert sorted(order(tmp_path)) == ["pretrain/uniform-0", "text"]
    told = capsys.readouterr().out
    assert "pretrain/tikmix_d-0: failed, see" in told
    assert "not done: pretrain/tikmix_d-0, pretrain/shuffled-0" in told


def test_runs_of_other_settings_are_not_gone_on_with(tmp_path):
    settings = make_arena()
    wanted = arena_jobs.jobs(settings, seeds=[0], entries=["uniform"])
    path = wanted["pretrain/uniform-0"].path(tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"settings": settings.settings_of("pretrain", "uniform")}))
    arena.refuse_other_settings(settings, wanted, tmp_path)
    longer = make_arena(regimes={"pretrain": Regime(steps=4, entries=("uniform",))})
    with pytest.raises(ValueError, match="was run with another regime"):
        arena.refuse_other_settings(longer, wanted, tmp_path)


# Settings


@pytest.mark.parametrize("name", ["arena_small", "arena_medium"])
def test_the_arenas_of_the_project_are_read(name):
    found = arena_config.load(EVAL / f"{name}.yaml")
    assert {"uniform", "natural", "best_single", "tikmix_d"} <= set(found.entries)
    assert {"schedule_shuffled", "final_static"} <= set(found.regimes["pretrain"].entries)
    assert not set(found.targets["dev"]) & set(found.targets["report"])
    assert not set(found.seeds["dev"]) & set(found.seeds["report"])
    assert arena_jobs.jobs(found, seeds=[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("entries", {"uniform": {"mixtur": "uniform"}}), "Did you mean 'mixture'"),
        (("entries", {"a": {"mixture": "final"}}), "`entries.a.of` must name an entry"),
        (("regimes", {"pretrain": {"steps": 3, "entries": ["unifrom"]}}), "'uniform'"),
        (("regimes", {"pretrain": {}}), "must have the keys .'steps'."),
    ],
)
def test_an_unknown_name_is_refused(tmp_path, change, message):
    import yaml

    raw = yaml.safe_load((EVAL / "arena_small.yaml").read_text())
    if change[0] == "entries":
        raw["regimes"] = {"pretrain": {"steps": 3}}
    raw[change[0]] = change[1]
    (tmp_path / "arena.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ValueError, match=message):
        arena_config.load(tmp_path / "arena.yaml")


# Text


def test_halves_have_no_passage_in_common(tmp_path):
    folder = tmp_path / "benchmarks" / "boolq"
    folder.mkdir(parents=True)
    rows = [
        {"passage": f"passage {n // 3}", "question": f"is it {n}", "label": n % 2}
        for n in range(60)
    ]
    (folder / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    halves = {
        half: arena_text.benchmark_documents(
            tmp_path, TextFile(path="boolq/validation.jsonl", rows=half)
        )
        for half in ("even", "odd", "all")
    }
    passages = {half: {d.splitlines()[0] for d in halves[half]} for half in halves}
    assert not passages["even"] & passages["odd"]
    assert sorted(halves["even"] + halves["odd"]) == sorted(halves["all"])
    assert min(map(len, passages.values())) > 2
    assert halves["all"][1] == "passage 0\nQuestion: is it 1?\nAnswer: yes"


def test_what_was_read_is_not_judged():
    texts = {"train/web": ["a", "b"], "measured/arc": ["c"], "judged/arc": ["a", "c", "d", "e"]}
    assert arena_data.without_known(texts)["judged/arc"] == ["d", "e"]
    with pytest.raises(ValueError, match="of 3 documents of judged/arc only 1"):
        arena_data.without_known({**texts, "judged/arc": ["a", "b", "d"]})


def test_token_bytes_add_up_to_the_text():
    tokenizer = arena_data._train_tokenizer([["the theory of the thing"], ["数据混合 and é"]], 280)
    sizes = arena_data.token_bytes(tokenizer)
    for text in ("the theory, again: é", "数据 x", ""):
        assert sizes[tokenizer(text)["input_ids"]].sum() == len(text.encode())
    assert sizes[tokenizer.eos_token_id] == 0


# Judging


class Indifferent(torch.nn.Module):
    """Gives every token of a vocabulary of eight the same probability."""

    device = torch.device("cpu")

    def forward(self, input_ids):
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 8))


def test_bits_per_byte_of_an_indifferent_model():
    # Three bits a token; six tokens are predicted, of 2, 2, 2, 2, 1 and 1 bytes.
    rows = Dataset.from_dict({"input_ids": [[5, 2, 2, 2], [5, 2, 1, 1]]})
    token_bytes = np.array([0, 1, 2, 0, 0, 9, 0, 0])
    judged = arena_judge.judged_rows({"arc": rows}, 10, token_bytes)
    found = arena_judge.bits_per_byte(Indifferent(), judged)
    assert found["arc"] == pytest.approx(6 * 3 / 10)


def test_the_judge_leaves_the_model_as_it_was():
    model = Indifferent().train()
    rows = Dataset.from_dict({"input_ids": [[1, 2]]})
    judged = arena_judge.judged_rows({"arc": rows}, 1, np.ones(8, dtype=np.int64))
    arena_judge.bits_per_byte(model, judged)
    assert model.training


def test_a_run_is_judged_by_the_mean_of_its_weights():
    rows = Dataset.from_dict({"input_ids": [[1, 2]]})
    judged = arena_judge.judged_rows({"arc": rows}, 1, np.ones(8, dtype=np.int64))
    model, averaged = Indifferent(), Indifferent()
    for one in (model, averaged):
        one.weight = torch.nn.Parameter(torch.zeros(1))
    curve = arena_judge.CurveCallback(averaged, judged, every_steps=2, average_steps=2)
    for step, weight in enumerate((1.0, 2.0, 4.0), 1):
        model.weight.data.fill_(weight)
        state = SimpleNamespace(global_step=step, max_steps=3)
        curve.on_step_end(None, state, None, model=model)
    # 1; then 2 with the share 1 / (1 + 2 / 3) = 0.6, which makes 1.6; then 4 with 1 / 2.
    assert curve.averaged.weight.item() == pytest.approx(2.8)
    assert model.weight.item() == 4.0
    assert curve.steps == [2, 3]


# Proxies


def test_regmix_draws_mixtures_within_its_bounds():
    prior = np.array([0.7, 0.25, 0.05])
    found = arena_proxies.draw_mixtures(prior, 500, np.random.default_rng(0))
    assert found.shape == (500, 3)
    assert found.sum(axis=1) == pytest.approx(1)
    assert (found <= arena_proxies.MOST_TIMES_PRIOR * prior).all()
    assert ((found == 0) | (found >= arena_proxies.LEAST_SHARE)).all()
    assert (found == 0).any()
    # The smallest domain gets more than its share: the prior is flattened.
    assert found[:, 2].mean() > 0.08


def proxies_with(loss, num=64):
    prior = np.full(4, 0.25)
    mixtures = arena_proxies.proxy_mixtures(prior, num)
    return [{"mixture": m.tolist(), "bits_per_byte": loss(m)} for m in mixtures], prior


def test_regmix_finds_a_good_mixture(monkeypatch):
    monkeypatch.setattr(arena_proxies, "NUM_CANDIDATES", 5000)

    # The best mixture is half of b, half of c: 0.
    def loss(m):
        return {"arc": (m[1] - 0.5) ** 2 + m[0], "gsm8k": (m[2] - 0.5) ** 2 + m[3]}

    proxies, prior = proxies_with(loss)
    found = arena_proxies.regmix(("a", "b", "c", "d"), proxies, prior, 0)
    assert sum(found.values()) == pytest.approx(1)
    assert found["b"] + found["c"] > 0.8
    assert min(found["b"], found["c"]) > 0.3


def test_the_best_single_domain_is_that_of_the_lowest_loss_alone():
    proxies, _ = proxies_with(lambda m: {"arc": 1 - m[2], "gsm8k": 1.0}, num=3)
    names = ("a", "b", "c", "d")
    assert arena_proxies.best_single(names, proxies) == {"a": 0, "b": 0, "c": 1, "d": 0}


# A whole run, and the report


@pytest.fixture
def text():
    def blocks(num, seed):
        tokens = np.random.default_rng(seed).integers(0, 257, (num, 8))
        return Dataset.from_dict({"input_ids": tokens.tolist()})

    domains = Domains.from_datasets({"web": blocks(60, 0), "code": blocks(60, 1)}, heldout=0.4)
    targets = {"arc": blocks(32, 2), "gsm8k": blocks(32, 3)}
    tokenizer = arena_data._train_tokenizer([["text"]], 257)
    token_bytes = arena_data.token_bytes(tokenizer)
    return arena_data.ArenaText(domains, targets, targets, {}, tokenizer, token_bytes)


def test_runs_leave_what_the_report_is_made_of(tmp_path, text, monkeypatch):
    settings = make_arena()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arena_run.arena_data, "load", lambda *args, **kwargs: text)
    folder = tmp_path / "runs" / "report"
    for entry in ("uniform", "tikmix_d", "shuffled"):
        arena_run.do(settings, f"pretrain/{entry}-0", "report", folder)
    records = report_arena.read_runs(folder)
    assert [r["entry"] for r in records] == ["shuffled", "tikmix_d", "uniform"]
    shuffled, own, uniform = records
    assert own["training"]["tokens"] == 3 * 4 * 8
    assert own["curve"]["tokens"] == [2 * 4 * 8, 3 * 4 * 8]
    assert own["choosing"]["tokens"] >= 4 * 16 * 8  # two domains, two targets, and the fit
    assert (
        own["choosing"]["flops"]
        == 6 * own["training"]["num_parameters"] * (own["choosing"]["tokens"])
    )
    assert uniform["choosing"]["flops"] == 0
    assert sum(own["shares"]) == pytest.approx(1)
    swapped = [segment["mixture"] for segment in shuffled["mixtures"]]
    assert swapped == [segment["mixture"] for segment in reversed(own["mixtures"])]
    assert (folder / "pretrain" / "uniform-0.pt").is_file()  # doremi's reference

    monkeypatch.setattr(report_arena, "RESULTS", tmp_path / "results")
    report_arena.report("tiny", settings, records, [])
    page = (tmp_path / "results" / "tiny.md").read_text()
    lines = (tmp_path / "results" / "tiny_runs.jsonl").read_text()
    assert "## pretrain" in page
    assert "| tikmix_d |" in page
    assert len(lines.splitlines()) == 3
    assert (tmp_path / "results" / "tiny.png").stat().st_size > 1000
    again = report_arena.read_lines(tmp_path / "results" / "tiny_runs.jsonl")
    report_arena.report("tiny", settings, again, [])
    tables = [line for line in page.splitlines() if line.startswith("|")]
    rebuilt = (tmp_path / "results" / "tiny.md").read_text().splitlines()
    assert [line for line in rebuilt if line.startswith("|")] == tables
