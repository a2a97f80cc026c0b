"""The frame of all commands: statuses, errors in a sentence, JSON alone, light imports."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_files import HEAVY

from tikmix_hf import cli
from tikmix_hf.commands import parser, show


def start(*words: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tikmix_hf.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def raising(monkeypatch, error: BaseException) -> None:
    def run(options):
        raise error

    monkeypatch.setattr(show, "run", run)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("wrong\nvalue"), 2),
        (FileNotFoundError(2, "No such file or directory", "x.json"), 2),
        (IsADirectoryError(21, "Is a directory", "runs"), 2),
        (NotADirectoryError(20, "Not a directory", "x.json"), 2),
        (FileExistsError(17, "File exists", "x.json"), 2),
        (OSError("the Hub cannot be reached"), 1),
        (PermissionError(13, "Permission denied", "x.json"), 1),
        (ImportError("needs matplotlib"), 1),
        (FloatingPointError("not finite"), 1),
        (RuntimeError("out of memory"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_an_error_is_a_sentence_and_its_status_tells_wrong_words_from_failure(
    monkeypatch, capsys, error, status
):
    raising(monkeypatch, error)
    assert cli.main(["show", "x.json"]) == status
    told = capsys.readouterr()
    assert told.out == ""
    if status == cli.INTERRUPTED:
        assert told.err == ""
        return
    (line,) = told.err.splitlines()
    assert re.match(r"tikmix show: \S", line)
    if isinstance(error, OSError) and error.filename:
        assert line == f"tikmix show: {error.filename}: {error.strerror}."


def test_an_error_that_nobody_foresaw_keeps_its_traceback(monkeypatch):
    raising(monkeypatch, KeyError("a fault of ours"))
    with pytest.raises(KeyError):
        cli.main(["show", "x.json"])


def test_the_traceback_is_shown_on_request(monkeypatch, capsys):
    raising(monkeypatch, ValueError("wrong"))
    monkeypatch.delenv("TIKMIX_TRACEBACK", raising=False)
    assert cli.main(["show", "x.json"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("TIKMIX_TRACEBACK", "0")
    assert cli.main(["show", "x.json"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main(["show", "x.json", "--traceback"]) == 2
    flagged = capsys.readouterr().err
    monkeypatch.setenv("TIKMIX_TRACEBACK", "1")
    assert cli.main(["show", "x.json"]) == 2
    for told in (flagged, capsys.readouterr().err):
        assert "Traceback" in told
        assert told.splitlines()[-1] == "tikmix show: wrong"


def test_a_message_of_pages_is_cut(monkeypatch, capsys):
    raising(monkeypatch, ValueError("much " * 1000))
    cli.main(["show", "x.json"])
    assert len(capsys.readouterr().err) < cli.MAX_MESSAGE + 40


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "tikmix: the following arguments are required: COMMAND."),
        (["sovle"], "there is no command 'sovle'. Did you mean 'solve'?"),
        (["qqq"], "there is no command 'qqq'. Choose from: influence, solve,"),
        (["solve"], "tikmix solve: the following arguments are required: MATRIX."),
        (["solve", "m.csv", "--flor", "web=1"], "unrecognized arguments: --flor web=1."),
        (["diff", "a", "b", "--by", "token"], "invalid choice: 'token'"),
        (
            ["influence", "--model", "m", "--config", "c", "--preconditioner", "sgn"],
            "choice: 'sgn'",
        ),
        (["plot", "a", "--num_samples", "few"], "invalid int value: 'few'"),
    ],
    ids=str,
)
def test_wrong_words_are_one_line_and_status_2(capsys, words, told):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == cli.WRONG
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert line.endswith(" --help.")


def test_every_help_has_an_example_and_the_statuses_are_told(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], *([command.name] for command in parser.COMMANDS)):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        examples = shown.partition("examples:\n")[2].splitlines()
        assert examples
        assert all(line.startswith(f"  tikmix {' '.join(words)}") for line in examples)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    for status in (cli.DONE, cli.FAILED, cli.WRONG, cli.INTERRUPTED):
        assert re.search(rf"^  {status} +\w", shown, re.MULTILINE)


def test_light_commands_import_nothing_heavy(place):
    commands = [
        ["--help"],
        *([command.name, "--help"] for command in parser.COMMANDS),
        ["solve", "runs/dry", "--cap", "code=0.5", "--output", "new.json"],
        ["show", "runs/quickstart"],
        ["diff", "runs/quickstart", "runs/other"],
        ["mixers"],
        ["recipes", "list"],
        ["completion", "bash"],
    ]
    code = f"""
import json, sys
from tikmix_hf import cli
for words in json.loads(sys.argv[1]):
    try:
        assert cli.main(words) == 0, words
    except SystemExit as ended:
        assert ended.code == 0, words
    heavy = set({HEAVY!r}) & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], check=True, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    "words",
    [
        ["mixers"],
        ["solve", "runs/dry", "--output", "new.json"],
        ["show", "mixture.json"],
        ["show", "runs/quickstart"],
        ["diff", "mixture.json", "runs/other"],
        ["plot", "mixture.json"],
        ["recipes", "list"],
        ["recipes", "copy", "quickstart"],
        ["completion", "zsh"],
    ],
    ids=" ".join,
)
def test_json_is_one_document_and_nothing_else(place, capsys, words):
    assert cli.main([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)
    assert told.err == ""


def test_with_json_an_error_leaves_stdout_empty(place, capsys):
    assert cli.main(["solve", "no.csv", "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "tikmix solve: no.csv: No such file or directory.\n"


def test_a_reader_that_has_gone_is_no_error(place):
    process = start("mixers", "--json")
    process.stdout.close()  # before anything was written
    assert process.wait() == cli.CLOSED
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("words", [["show", "runs/quickstart"], ["mixers", "--json"]], ids=" ".join)
def test_a_closed_output_is_no_error(place, words):
    command = shlex.join([sys.executable, "-m", "tikmix_hf.cli", *words])
    done = subprocess.run(["sh", "-c", f"{command} >&-"], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_with_130_and_without_a_traceback(place):
    os.mkfifo("pipe.csv")  # reading it waits for a writer that never comes
    process = start("solve", "pipe.csv", "--traceback")
    try:
        deadline = time.monotonic() + 60
        while not reads(process.pid, "pipe.csv"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (cli.INTERRUPTED, "", "")


def reads(pid: int, path: str) -> bool:
    """Whether a process sleeps in the opening of a pipe."""
    try:
        return "wait_for_partner" in Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        pytest.skip("this system does not tell what a process waits for")
