"""What is refused before anything heavy is imported: words, and the names of files."""

from __future__ import annotations

import json
import subprocess
import sys

from command_files import HEAVY

from tikmix_hf.commands import first_checks
from tikmix_hf.signals import preconditioners


def test_what_words_and_names_of_files_tell_is_refused_before_anything_heavy_is_imported(place):
    influence = ["influence", "--model", "m", "--config"]
    refused = {
        "`--config` must be a file; no.yaml is none.": [*influence, "no.yaml"],
        "`--weights` must be one number for each of 1 models; got 2.": [
            *(*influence, "constraints.yaml", "--weights", "1", "2"),
        ],
        "`--output` must be in a folder; matrix.csv is a file.": [
            *(*influence, "constraints.yaml", "--output", "matrix.csv/out"),
        ],
        "`--batch-size` must be auto or 1 or more; got '-1'.": ["eval", "m", "--batch-size", "-1"],
        "`--output` must be in a folder; mixture.json is a file.": [
            *("eval", "m", "--output", "mixture.json"),
        ],
        "`--samples` must be a file; runs is a folder.": ["eval", "m", "--samples", "runs"],
        "`--samples` must be where files can be written; /proc is not (": [
            *("eval", "m", "--samples", "/proc/no/questions.jsonl"),
        ],
    }
    code = f"""
import contextlib, io, json, sys
from tikmix_hf import cli
for message, words in json.loads(sys.argv[1]).items():
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert cli.main(words) == 2, words
    assert message in told.getvalue(), told.getvalue()
    heavy = set({HEAVY!r}) & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    subprocess.run([sys.executable, "-c", code, json.dumps(refused)], check=True)
    assert not (place / "runs/scores").exists()


def test_the_names_of_preconditioners_are_those_that_load():
    assert first_checks.preconditioner_names() == preconditioners.available()
