"""The page of all results: what was asked, what came out, and how to get it again.

    python eval/results_page.py            # writes eval/RESULTS.md
    python eval/results_page.py --check    # ends with 1 where the page is not of these results

In: `eval/results/*.json`. Out: a short entry for each. What was asked is the first line of the
script that the result's command runs; what came out is the result's own verdict, or else what
`results_headlines.py` reads off its table. A test keeps the page in step.
"""

from __future__ import annotations

import argparse
import ast
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results_headlines import headline

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.md"
HEAD = """# Results

What was measured, with its verdict or main figure; each page has the whole table, versions and
settings. Reproductions of the paper's claims come first. Made by `python eval/results_page.py`.
"""
REPRODUCTIONS = "reproduce_"


def page(results: Path) -> str:
    """The whole page.

    Args:
        results: folder of the results' JSON files.
    """
    records = {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(results.glob("*.json"))
    }
    claims = {name: own for name, own in records.items() if name.startswith(REPRODUCTIONS)}
    others = {name: own for name, own in records.items() if name not in claims}
    lines = [HEAD]
    for title, own in (("The paper's claims", claims), ("Measurements", others)):
        if own:
            lines.append(f"## {title}\n")
            lines += [entry(name, record, results) for name, record in own.items()]
    return "\n".join(lines)


def entry(name: str, record: Mapping[str, Any], results: Path) -> str:
    """One result's."""
    commands = record.get("commands", [record.get("command", "")])
    asked = question(commands[0], HERE.parent)
    links = [
        f"[{word}]({results.name}/{name}.{ending})"
        for word, ending in (("table", "md"), ("data", "json"), ("picture", "png"))
        if (results / f"{name}.{ending}").is_file()
    ]
    where = [*(f"`{command}`" for command in commands if command), hardware(record)]
    where += [record["date"]] if "date" in record else []
    lines = [f"### {title(name, record, results)}", ""]
    lines += [f"*Asked:* {asked}", ""] if asked else []
    lines += [headline(name, record), "", f"{', '.join(links)}. {'; '.join(where)}.", ""]
    return "\n".join(lines)


def title(name: str, record: Mapping[str, Any], results: Path) -> str:
    """The result's own title, or its page's heading."""
    if "title" in record:
        return record["title"]
    path = results / f"{name}.md"
    heading = path.read_text("utf-8").splitlines()[0] if path.is_file() else name
    return heading.removeprefix("# ")


def hardware(record: Mapping[str, Any]) -> str:
    """What it ran on."""
    own = record.get("hardware", record.get("processor", "hardware not noted"))
    return own if isinstance(own, str) else "; ".join(own)


def question(command: str, root: Path) -> str:
    """First line of the docstring of the script that a command runs; empty where there is none.

    Example:
        >>> question("python no_such_script.py", Path())
        ''
    """
    scripts = [root / word for word in shlex.split(command) if word.endswith(".py")]
    if not scripts or not scripts[0].is_file():
        return ""
    docstring = ast.get_docstring(ast.parse(scripts[0].read_text("utf-8"))) or ""
    return docstring.partition("\n")[0]


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    words = parser.parse_args()
    made = page(HERE / "results")
    if not words.check:
        PAGE.write_text(made, "utf-8")
    elif PAGE.read_text("utf-8") != made:
        raise SystemExit(f"{PAGE} is not of these results. Run python eval/results_page.py.")


if __name__ == "__main__":
    main()
