"""What the README shows runs as it is shown, only shorter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

import tikmix_hf
from tikmix_hf.mixers.signals import Signals
from tikmix_hf.mixture import Supply

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_of_the_trainer_runs(tmp_path):
    example = next(block for block in blocks("python") if "trainer.train()" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    shorter = {"max_steps=100": "max_steps=4, use_cpu=True", "size=16": "size=2"}
    shorter |= {"every_steps=25": "every_steps=2, num_rows=2", "samples=1600": "samples=8"}
    shorter |= {"mixture_at(1599)": "mixture_at(7)", "runs/example": str(tmp_path / "run")}
    shorter |= {"corpora.load()": f"corpora.load(cache_dir={str(tmp_path)!r})"}
    for shown, short in shorter.items():
        assert shown in example
        example = example.replace(shown, short)
    done = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[tikmix] step 2: from sample 6 on" in done.stdout
    assert "'python_code'" in done.stdout.splitlines()[-1]


def test_the_example_of_constraints_makes_them():
    example = next(block for block in blocks("python") if "Constraints(" in block)
    names: dict = {}
    exec(example[: example.index("callback =")], names)
    domains = ("web", "code", "qa", "rephrased")
    assert "mixers.load(" in example
    mixture, notes = names["constraints"].apply(
        [0.1, 0.0, 0.4, 0.5],
        domains,
        in_force=np.full(4, 0.25),
        supply=Supply(np.full(4, 0.25), np.full(4, 1e6), np.zeros(4), 1e6, np.ones(4)),
    )
    assert mixture[1] >= 0.05
    assert mixture[2:].sum() <= 0.3 + 1e-9
    assert notes


def test_files_and_targets_that_the_readme_names_exist():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_fields_of_the_log_are_those_of_the_code(tmp_path):
    source = (ROOT / "tikmix_hf" / "updates" / "record.py").read_text("utf-8")
    (line,) = [line for line in README.splitlines() if "scalars under `train/tikmix/`" in line]
    names = re.findall(r"`(\w+)[/\w]*`", line.split("`train/tikmix/`")[1].split(";")[0])
    assert {"mixture", "influence", "audit"} <= set(names)
    for name in names:
        assert re.search(rf'"{name}"|["/]{name}/', source), name


def test_the_quickstart_table_is_the_one_that_was_measured():
    kept = json.loads((ROOT / "eval" / "results" / "quickstart_seeds.json").read_text("utf-8"))
    lines = [line for line in README.splitlines() if line.startswith("| ")]
    for row in kept["rows"]:
        cells = [str(value) for name, value in row.items() if name != "by seed"]
        assert f"| {' | '.join(cells)} |" in lines


def test_the_mixer_that_contributors_are_shown_is_whole(monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    module = types.ModuleType("softmax")
    monkeypatch.setitem(sys.modules, "softmax", module)
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], vars(module))
    influence_JK = np.array([[2.0, 1.0], [0.0, -4.0]])
    signals = Signals(
        step=1,
        domains=("web", "code"),
        targets=("arc", "maths"),
        mixture=np.full(2, 0.5),
        influence=influence_JK,
    )
    mixer = module.Softmax(temperature=0.5)
    mixture_K, _ = mixer.step(mixer.init(np.full(2, 0.5)), signals)
    # Rows by their largest: (1, 0.5) and (0, -1); means 0.5 and -0.25; exp(1), exp(-0.5).
    assert mixture_K == pytest.approx([np.e / (np.e + np.e**-0.5), 1 / (1 + np.e**1.5)])
    with pytest.raises(ValueError, match="temperature"):
        module.Softmax(temperature=0.0)


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == tikmix_hf.__version__
    assert {"message", "title", "authors", "cff-version"} <= set(cited)


def test_every_file_that_the_documents_link_to_is_there():
    for page in ("README.md", "CONTRIBUTING.md", "docs/decisions.md", "docs/mixers.md"):
        text = (ROOT / page).read_text("utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"
