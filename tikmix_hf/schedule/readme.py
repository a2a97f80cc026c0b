"""The card of a schedule: README.md of its folder or repository, and the picture in it.

In: a schedule, and the name that people load it by. Out: Markdown with the Hub's metadata on top.
Names and descriptions of domains are other people's text: they are escaped, so that they stay text
within their cell. What the schedule does not know is left out.
"""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule

# Shape letters: K domains, S segments.

TAGS = ("tikmix", "data-mixture", "pretraining")
MAX_COLUMNS, MAX_LARGEST = 8, 5
"""Domains with a column each in the table of segments; else the largest shares in one column."""
MAX_SEGMENTS, MAX_DOMAINS, MAX_DRAWN = 40, 200, 60
"""Rows of the tables; domains in the picture."""
MAX_LINE = 300
"""Characters of what is told in a line."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-!|~&$@:])")


def text(schedule: MixtureSchedule, *, name: str, license: str | None, plot: str | None) -> str:
    """The card.

    Args:
        schedule: what it is of.
        name: repository or folder, for `from_pretrained`.
        license: as the Hub names it; None says that there is none.
        plot: file name of the picture beside it.
    """
    num_domains, num_segments = len(schedule.domains), len(schedule.segments)
    parts = [
        _metadata(license),
        f"# Data mixture: {_counted(num_domains, 'domain')}, {_counted(num_segments, 'segment')}",
        "Which share of the training tokens came from which domain, from which sample on: the "
        "schedule of a language model's training run, written by tikmix_hf.",
    ]
    if plot is not None:
        parts.append(f"![Share of each domain over the run]({plot})")
    parts += ["## Replay it", _replay(schedule, name)]
    parts += ["## Segments", _segments(schedule), "## Domains", _domains(schedule)]
    parts += ["## Where it comes from", _provenance(schedule), "## Licence", _license(license)]
    return "\n\n".join(parts) + "\n"


def draw(schedule: MixtureSchedule, path: Path) -> bool:
    """Draws the shares over the run; False where there is no matplotlib, length or room."""
    num_samples = schedule.run.num_samples
    if importlib.util.find_spec("matplotlib") is None or num_samples is None:
        return False
    segments = [one for one in schedule.segments if one.from_sample < num_samples]
    if len(schedule.domains) > MAX_DRAWN:
        return False
    from tikmix_hf.plots import plot_mixture

    plot_mixture(
        [one.from_sample for one in segments],
        np.stack([one.mixture for one in segments]),
        schedule.domains,
        num_samples=num_samples,
        path=path,
    )
    return True


def escaped(words: str) -> str:
    r"""Markdown that reads as the words themselves.

    Example:
        >>> escaped("a|b <i>")
        'a\\|b \\<i\\>'
    """
    return _SPECIAL.sub(r"\\\1", words)


def _metadata(license: str | None) -> str:
    # Without the viewer: the file is one record, not rows.
    lines = [f"license: {license}"] if license is not None else []
    lines += ["tags:", *(f"- {tag}" for tag in TAGS), "viewer: false"]
    return "\n".join(["---", *lines, "---"])


def _replay(schedule: MixtureSchedule, name: str) -> str:
    lines = [f"schedule = MixtureSchedule.from_pretrained({name!r})"]
    note = "Its run's length is not known, so it is replayed sample by sample."
    if schedule.run.num_samples is not None:
        lines.append("schedule = schedule.rescale(num_samples=10_000)")
        note = "`rescale` keeps every mixture at the same fraction of the run, whatever its length."
    code = "\n".join(lines)
    return f"""```python
from tikmix_hf import InterleavedDomainDataset, MixtureSchedule

{code}
train = InterleavedDomainDataset(domains, schedule, num_samples=10_000)
```

{note} `domains` are your `tikmix_hf.Domains`, under the names below; `schedule.rename` gives it \
yours."""


def _segments(schedule: MixtureSchedule) -> str:
    has_columns = len(schedule.domains) <= MAX_COLUMNS
    named = [escaped(name) for name in schedule.domains] if has_columns else ["largest shares"]
    rows = [
        [f"{one.from_sample:,}", _fraction(schedule, one.from_sample), _number(one.num_tokens)]
        + (
            [f"{share:.1%}" for share in one.mixture]
            if has_columns
            else [_largest(schedule.domains, one.mixture)]
        )
        for one in schedule.segments
    ]
    return _table(["from sample", "of the run", "tokens", *named], rows, MAX_SEGMENTS)


def _domains(schedule: MixtureSchedule) -> str:
    mixtures_SK = np.stack([one.mixture for one in schedule.segments])
    rows: list[list[str]] = []
    for k, name in enumerate(schedule.domains):
        card = schedule.cards.get(name)
        rows.append(
            [
                escaped(name),
                escaped(card.description) if card else "",
                _number(card.num_tokens if card else None),
                f"{mixtures_SK[0, k]:.1%}",
                f"{mixtures_SK[-1, k]:.1%}",
            ]
        )
    return _table(["domain", "what it is", "tokens", "first", "last"], rows, MAX_DOMAINS)


def _provenance(schedule: MixtureSchedule) -> str:
    run, told = schedule.run, schedule.provenance
    versions = told.get("versions")
    facts: list[tuple[str, Any]] = [
        ("Model", run.model),
        ("Parameters", run.num_parameters),
        ("Samples", run.num_samples),
        ("Tokens", run.num_tokens),
        ("Samples of an optimizer step", run.samples_per_step),
        ("Seed", run.seed),
        ("Mixers", ", ".join(dict.fromkeys(_mixers(schedule)))),
        ("Written by", told.get("written_by")),
        ("Versions", _versions(versions) if isinstance(versions, dict) else None),
        ("Changed since", _operations(told.get("operations"))),
    ]
    lines = [
        f"- {label}: {value:,}" if isinstance(value, int) else f"- {label}: {_line(value)}"
        for label, value in facts
        if value not in (None, "")
    ]
    found = "\n".join(lines) or "Nothing is known of its run."
    return f"{found}\n\nThe file has the rest: each update's influence, targets and cost."


def _line(words: object) -> str:
    """Other people's text on one line, not too long."""
    plain = "".join(c if c.isprintable() else " " for c in str(words))
    return escaped(textwrap.shorten(plain, MAX_LINE, placeholder=" …"))


def _license(license: str | None) -> str:
    mine = "The schedule has no licence yet." if license is None else f"The schedule: {license}."
    return f"{mine} It covers these numbers and names, not the text of the domains."


def _mixers(schedule: MixtureSchedule) -> Iterable[str]:
    for one in schedule.segments:
        mixer = one.update.get("mixer")
        name = mixer.get("mixer", mixer.get("name")) if isinstance(mixer, dict) else mixer
        if isinstance(name, str):
            yield name.rpartition(".")[2]


def _versions(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in list(versions.items())[:12])


def _operations(operations: Any) -> str | None:
    if not isinstance(operations, list):
        return None
    return ", ".join(name for one in operations if isinstance(one, dict) for name in one)


def _largest(names: tuple[str, ...], mixture_K: NDArray[np.float64]) -> str:
    # Stable, so that equal shares stay in the order of domains.
    first = np.argsort(-mixture_K, kind="stable")[:MAX_LARGEST]
    return ", ".join(f"{escaped(names[k])} {mixture_K[k]:.1%}" for k in first)


def _fraction(schedule: MixtureSchedule, sample: int) -> str:
    length = schedule.run.num_samples
    return "" if length is None else f"{sample / length:.1%}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> str:
    """A Markdown table; what is more than `most` rows loses its middle."""
    lines: list[Sequence[str]] = [titles, ["---"] * len(titles), *rows]
    if len(rows) > most:
        left_out = [f"({len(rows) - most:,} more)", *[""] * (len(titles) - 1)]
        lines = [*lines[: 2 + most // 2], left_out, *rows[len(rows) - (most - most // 2) :]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")
