"""Page: all sections in one HTML file that needs nothing else.

In: runs. Out: the text of the file. Style and script are inside; the page's own policy, which
names both by their hashes, forbids every request and every other script, so that text of a run
could do nothing even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

import tikmix_hf
from tikmix_hf.report import colours
from tikmix_hf.report.markup import Html, join, tag
from tikmix_hf.report.run import Run
from tikmix_hf.report.sections.audit import audit
from tikmix_hf.report.sections.base import Section
from tikmix_hf.report.sections.comparison import comparison
from tikmix_hf.report.sections.cost import cost
from tikmix_hf.report.sections.head import command, head
from tikmix_hf.report.sections.influence import influence
from tikmix_hf.report.sections.mixture import mixture
from tikmix_hf.report.sections.scores import benchmarks, losses
from tikmix_hf.report.sections.tokens import epochs, tokens


def page(runs: Sequence[Run]) -> str:
    """The whole file.

    Args:
        runs: at least one, their labels distinct.
    """
    if not runs:
        raise ValueError("`runs` must hold at least one run; got none.")
    style = resources.files("tikmix_hf.report").joinpath("style.css").read_text("utf-8")
    style = f"{style}\n{colours.style()}\n"
    script = resources.files("tikmix_hf.report").joinpath("script.js").read_text("utf-8")
    title = _title([run.label for run in runs])
    head_part = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · tikmix report"),
        tag("style", Html(style)),
    )
    body = tag(
        "body",
        colours.patterns(),
        tag("header", tag("p", "tikmix report", class_="eyebrow"), tag("h1", title)),
        _one(runs[0]) if len(runs) == 1 else _several(runs),
        _foot(runs),
        tag("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head_part, body, lang='en')}\n"


def _title(labels: Sequence[str]) -> str:
    if len(labels) > 4:
        return f"{len(labels)} runs"
    *first, last = labels
    return f"{', '.join(first)} and {last}" if first else last


def _one(run: Run) -> Html:
    found = [
        *(mixture(run), influence(run), audit(run), tokens(run), epochs(run), cost(run)),
        *(losses(run), benchmarks([run]), comparison([run])),
    ]
    links = _navigation([(own.key, own.key.capitalize()) for own in found])
    return join(links, tag("main", head(run), [_section(own, own.key, "h2") for own in found]))


def _several(runs: Sequence[Run]) -> Html:
    """What compares runs comes first, then each run."""
    shared = [comparison(runs), benchmarks(runs)]
    links = [(own.key, own.key.capitalize()) for own in shared]
    links += [(f"run-{i}", run.label) for i, run in enumerate(runs)]
    articles = []
    for i, run in enumerate(runs):
        own = [mixture(run), influence(run), audit(run), tokens(run), epochs(run), cost(run)]
        own.append(losses(run))
        parts = [_section(part, f"run-{i}-{part.key}", "h3") for part in own]
        articles.append(
            tag("article", tag("h2", run.label), head(run), parts, id=f"run-{i}", class_="run")
        )
    inside = tag("main", [_section(own, own.key, "h2") for own in shared], articles)
    return join(_navigation(links), inside)


def _section(own: Section, address: str, level: str) -> Html:
    name = f"{address}-title"
    heading = tag(level, own.title, id=name, class_="title")
    return tag("section", heading, own.body, id=address, aria_labelledby=name, class_=own.key)


def _navigation(links: Sequence[tuple[str, str]]) -> Html:
    items = [tag("li", tag("a", title, href=f"#{address}")) for address, title in links]
    return tag("nav", tag("ul", items), aria_label="Sections")


def _foot(runs: Sequence[Run]) -> Html:
    again = command([str(run.folder) for run in runs])
    version = f"Made by tikmix-hf {tikmix_hf.__version__} with "
    return tag("footer", tag("p", version, tag("code", again)))


def _policy(style: str, script: str) -> str:
    """Nothing from anywhere, and of what is inside only these two."""
    allowed = "; ".join(f"{kind}-src '{_hash(text)}'" for kind, text in
                        (("style", style), ("script", script)))  # fmt: skip
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
