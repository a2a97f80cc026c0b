"""Head: what ran, when, with which versions, and the figures that matter most."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from tikmix_hf.report import formats
from tikmix_hf.report.markup import Html, join, tag
from tikmix_hf.report.run import Run

MAX_FACT = 200
Figure = tuple[str, str, str]


def head(run: Run) -> Html:
    """Figures, facts and faults of a run."""
    return join(_figures(run), _facts(run), _faults(run))


def command(folders: Sequence[str]) -> str:
    """What makes this page again."""
    return shlex.join(["tikmix", "report", *folders])


def _figures(run: Run) -> Html | None:
    """The few numbers that matter most, each with its name and what it is measured against."""
    found = [own for own in (_changes(run), _loss(run), _time(run), _foretold(run)) if own]
    tiles = [
        tag("div", tag("dt", name), tag("dd", value, class_="figure"), tag("dd", what))
        for name, value, what in found
    ]
    return tag("dl", tiles, class_="figures") if tiles else None


def _changes(run: Run) -> Figure | None:
    if run.schedule is None:
        return None
    first_K, last_K = (run.schedule.segments[i].mixture for i in (0, -1))
    moved = formats.share(float(abs(last_K - first_K).sum()) / 2)
    changes = formats.count(len(run.schedule.segments) - 1)
    return "mixture changes", changes, f"{moved} of tokens moved"


def _loss(run: Run) -> Figure | None:
    if run.result is None or run.result.mean_loss is None:
        return None
    loss = run.result.mean_loss
    control = run.results[1] if len(run.results) > 1 else None
    if control is None or control.mean_loss is None:
        return "mean target loss", formats.number(loss), "nats per token"
    gap = formats.number(loss - control.mean_loss, digits=3, sign=True)
    return "mean target loss", formats.number(loss), f"{gap} against {control.label}"


def _time(run: Run) -> Figure | None:
    if not run.updates:
        return None
    last = run.updates[-1]
    until = f"{formats.plural(len(run.updates), 'update')} until step {last.step:,}"
    return "time spent on updates", formats.share(last.time_share), until


def _foretold(run: Run) -> Figure | None:
    audits = [u.audit for u in run.updates if u.audit and u.audit.correlation is not None]
    if not audits:
        return None
    correlation = formats.number(audits[-1].correlation, digits=2)
    return (
        "gain foretold",
        f"r = {correlation}",
        (f"over {formats.plural(audits[-1].num_intervals, 'interval')}"),
    )


def _facts(run: Run) -> Html:
    rows = {
        "folder": str(run.folder),
        "written": _when(run.written),
        "model": _model(run),
        "length": _length(run),
        "domains": formats.count(len(run.domains)) if run.domains else None,
        "targets": _targets(run),
        "mixer": _mixer(run),
        "versions": _versions(run),
        **{key: _text(value) for key, value in run.provenance.items() if key != "versions"},
    }
    made = [tag("div", tag("dt", name), tag("dd", text)) for name, text in rows.items() if text]
    return tag("dl", made, class_="facts")


def _when(written: tuple[float, float] | None) -> str | None:
    if written is None:
        return None
    first, last = (datetime.fromtimestamp(s, timezone.utc) for s in written)
    if last.date() == first.date():
        return f"{first:%Y-%m-%d, %H:%M} to {last:%H:%M} UTC"
    return f"{first:%Y-%m-%d, %H:%M} to {last:%Y-%m-%d, %H:%M} UTC"


def _model(run: Run) -> str | None:
    kind = run.model.get("model_type")
    size = run.result.numbers.get("num_parameters") if run.result is not None else None
    parts = [str(kind)] if kind else []
    parts += [f"{formats.short(size)} parameters"] if size else []
    return ", ".join(parts) or None


def _length(run: Run) -> str | None:
    numbers: Mapping[str, float] = run.result.numbers if run.result is not None else {}
    parts = [] if run.max_steps is None else [f"{run.max_steps:,} steps"]
    parts += [] if run.num_samples is None else [f"{run.num_samples:,} samples"]
    if "trained_tokens" in numbers:
        parts.append(f"{formats.count(numbers['trained_tokens'])} tokens")
    if "seconds" in numbers:
        parts.append(formats.seconds(numbers["seconds"]))
    return ", ".join(parts) or None


def _targets(run: Run) -> str | None:
    names = next((u.influence.targets for u in run.updates if u.influence is not None), None)
    return None if names is None else formats.count(len(names))


def _mixer(run: Run) -> str | None:
    updates = run.schedule.segments if run.schedule is not None else ()
    found = next((s.update["mixer"] for s in reversed(updates) if "mixer" in s.update), None)
    measured = next((u.influence for u in run.updates if u.influence is not None), None)
    parts = [] if found is None else [_text(found)]
    parts += [] if measured is None else [f"influence by {measured.preconditioner}"]
    return ", ".join(part for part in parts if part) or None


def _versions(run: Run) -> str | None:
    stated = run.provenance.get("versions")
    if stated:
        return _text(stated)
    of_model = run.model.get("transformers_version")
    return None if of_model is None else f"transformers {of_model}"


def _text(value: Any) -> str:
    """A stranger's value in one line."""
    if isinstance(value, Mapping):
        name = str(value.get("mixer", "")).rsplit(".", 1)[-1]
        rest = [
            f"{k} {_text(v)}"
            for k, v in value.items()
            if k != "mixer" and v is not None and v is not False
        ]
        text = ", ".join([*([name] if name else []), *rest])
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(_text, value[:20]))
    else:
        text = "" if value is None else str(value)
    return formats.cut(text, MAX_FACT)


def _faults(run: Run) -> Html | None:
    if not run.faults:
        return None
    items = [tag("li", fault) for fault in run.faults]
    return tag("div", tag("p", "Not everything could be read:"), tag("ul", items), class_="faults")
