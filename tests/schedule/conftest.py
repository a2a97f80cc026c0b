"""A Hub of one's own for a test: the real client asks it, and starts with an empty cache."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hub_server import HubServer
from huggingface_hub import constants
from huggingface_hub.utils import close_session


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = HubServer()
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_ETAG_TIMEOUT": 0.2,
        "HF_HUB_DOWNLOAD_TIMEOUT": 0.2,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_user")
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)  # of the client's retries
    close_session()
    try:
        yield SimpleNamespace(server=server, cache=tmp_path / "cache", waits=waits)
    finally:
        close_session()
        server.close()
