"""The page trusts nobody: names do nothing, and nothing is asked of the network."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from parsed import parse
from report_runs import write_lines, write_run

from tikmix_hf.report import read_run, write_report
from tikmix_hf.report.page import page


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return parse(page([read_run(write_run(tmp_path_factory.mktemp("runs") / "run"))]))


HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(2)>',
    "' onmouseover='alert(3)",
    "&lt;b&gt;",
    "</title></style><script>alert(4)</script>",
)
# Turns the writing round, rings, and is half a letter.
UNFIT = "\u202egnp.exe\x07\ud800"


def test_names_are_shown_as_they_are_and_do_nothing(tmp_path):
    folder = write_run(tmp_path / "a<b>&'\"", domains=HOSTILE, targets=(*HOSTILE[:3], UNFIT))
    tasks = {HOSTILE[0]: {"metric": HOSTILE[1], "values": {HOSTILE[1]: 0.5}}}
    write_lines(folder / "evaluations.jsonl", [{"step": 1, "suite": HOSTILE[4], "tasks": tasks}])
    text = write_report([read_run(folder)], tmp_path / "page.html").read_text("utf-8")
    shown = parse(text)
    assert not shown.find("img")
    assert len(shown.find("script")) == len(shown.find("style")) == text.count("<script") == 1
    every = shown.find()
    names = {name for element in every for name in element.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"src", "style", "srcset", "action"}
    legend = [item.text for item in shown.one(class_="narrow-only").find("li")]
    assert legend == list(HOSTILE)
    targets = [row[0] for row in shown.find("table", class_="heat")[0].one("tbody").rows()]
    assert targets == [*HOSTILE[:3], "\ufffdgnp.exe\ufffd\ufffd"]
    assert shown.one("h1").text == "a<b>&'\""


def test_the_pages_own_policy_forbids_every_request_and_every_other_script(shown):
    policy = shown.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    assert policy.startswith("default-src 'none'; ")
    for kind in ("style", "script"):
        digest = hashlib.sha256(shown.one(kind).text.encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}';" in policy
    assert "unsafe" not in policy


def test_the_page_asks_for_nothing_from_anywhere(shown):
    assert not shown.find("link")
    links = [e.attributes["href"] for e in shown.find() if "href" in e.attributes]
    assert all(link.startswith("#") for link in links)
    style = shown.one("style").text
    assert not re.search(r"https?:|@import|@font-face", style)
    assert set(re.findall(r"url\((.)", style)) == {"#"}
