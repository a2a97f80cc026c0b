"""The screen: tables on a terminal and in a pipe, colours, bars."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

from tikmix_hf.commands import screen

CYAN = "\x1b[36m"


class Pipe(io.StringIO):
    encoding = "utf-8"


class Terminal(Pipe):
    def isatty(self) -> bool:
        return True


def shown_on(monkeypatch, output: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stdout", output)
    screen.table("Shares", ("domain", "share", "why"), [("[red]web[/red]", "0.5", "")])
    return output.getvalue()


def test_a_table_is_drawn_on_a_terminal_and_padded_in_a_pipe(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    drawn = shown_on(monkeypatch, Terminal())
    assert "┏━" in drawn
    assert "[red]web[/red]" in drawn  # a name is no markup
    assert CYAN in drawn
    piped = shown_on(monkeypatch, Pipe())
    assert piped == "Shares\ndomain          share\n[red]web[/red]    0.5\n\n"


def test_no_color_takes_the_colours_and_leaves_the_table(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    drawn = shown_on(monkeypatch, Terminal())
    assert "┏━" in drawn
    assert CYAN not in drawn


def test_without_rich_a_terminal_gets_plain_columns(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert shown_on(monkeypatch, Terminal()).startswith("Shares\ndomain ")


def test_what_the_output_cannot_encode_is_no_error(monkeypatch):
    written = []
    plain = SimpleNamespace(encoding="ascii", write=written.append, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", plain)
    screen.say("█ 1 ± 2")
    assert "".join(written) == "? 1 ? 2\n"


def test_a_bar_is_as_long_as_its_share():
    assert [len(screen.bar(share)) for share in (0.0, 0.5, 1.0, 2.0)] == [0, 12, 24, 24]
    assert screen.bar(1 / 24 + 3 / (24 * 8)) == "█▍"
    assert screen.bar(0.5, most=0.0) == ""
    assert screen.change_bar(0.25, 0.5) == "█" * 6 + "▓" * 6
    assert screen.change_bar(0.5, 0.25, most=0.5) == "█" * 12 + "░" * 12
