"""`tikmix report`: files, what it says, and what it refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import webbrowser

import pytest
from report_runs import write_run

from tikmix_hf import cli


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def test_the_page_goes_into_the_run_unless_a_file_is_named(folder, tmp_path, capsys):
    assert cli.main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out == f"{folder / 'report.html'} (0.1 MB)\n"
    page, other = tmp_path / "new" / "page.html", write_run(tmp_path / "other")
    assert cli.main(["report", str(folder), str(other), "-o", str(page)]) == 0
    assert "<title>run and other" in page.read_text("utf-8")


def test_what_cannot_be_read_is_said(folder, capsys):
    with (folder / "influence.jsonl").open("a") as file:
        file.write("{")
    assert cli.main(["report", str(folder)]) == 0
    assert "run: Line 4 of influence.jsonl is cut short" in capsys.readouterr().out


def test_the_page_is_opened_if_asked_for(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert cli.main(["report", str(folder), "--open"]) == 0
    assert opened == [(folder / "report.html").as_uri()]


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figures_for_papers_are_written(folder, tmp_path, kind, start):
    pytest.importorskip("matplotlib")
    assert cli.main(["report", str(folder), f"--{kind}", str(tmp_path / "figures")]) == 0
    written = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in written] == [
        f"{name}.{kind}" for name in ("audit", "influence", "losses", "mixture")
    ]
    assert all(path.read_bytes().startswith(start) for path in written)


def test_figures_of_several_runs_go_into_a_folder_each(folder, tmp_path):
    pytest.importorskip("matplotlib")
    (folder / "influence.jsonl").unlink()
    (folder / "metrics.json").unlink()
    other = tmp_path / "b" / "run"
    shutil.copytree(folder, other)
    assert cli.main(["report", str(folder), str(other), "--svg", str(tmp_path / "f")]) == 0
    found = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "f").rglob("*.svg"))
    assert found == ["f/1-run/mixture.svg", "f/2-run/mixture.svg"]


@pytest.mark.parametrize("words", [["no/such/run"], ["."], [".", "-o", "."]])
def test_wrong_words_are_one_line_and_exit_code_2(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tikmix report: `RUN` must be ")
    assert said.count("\n") == 1


def test_an_output_that_is_a_folder_is_refused(folder, capsys):
    assert cli.main(["report", str(folder), "-o", str(folder)]) == 2
    assert "`--output` must be a file" in capsys.readouterr().err


def test_a_report_needs_neither_torch_nor_matplotlib_nor_rich(folder):
    code = f"import sys; from tikmix_hf import cli; cli.main(['report', {str(folder)!r}]); "
    heavy = {"torch", "transformers", "datasets", "matplotlib", "rich"}
    check = f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code + check], check=True)
