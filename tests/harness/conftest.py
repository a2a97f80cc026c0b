"""Made-up benchmarks for every test of the harness; nothing is asked of the network."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import benchmarks
import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with all of `benchmarks`; tests that change rows write their own."""
    return benchmarks.write(tmp_path_factory.mktemp("benchmarks"))
