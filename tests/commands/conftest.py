"""Where a command's test runs: a folder of its own, with the files that the help texts name."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_files import make_files


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(make_files(tmp_path))
    return tmp_path
