"""A hub on localhost and what lies on it."""

from __future__ import annotations

import time

import pytest
from tidemark.benchmark.local_hub import GOOD_TOKEN, Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hub that the client in this process talks to, with an empty cache and a good token."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    state = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", state.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", state.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # the client resumes at whole chunks
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.02)))
    yield state
    state.close()


@pytest.fixture
def published(hub, tiny_dataset, tmp_path):
    """A data set that lies on the Hub as ORG/tiny, version 1.0.0; returns its local folder."""
    folder = tiny_dataset(chips=3)
    hub.publish_folder("org/tiny", folder, "v1.0.0")
    return folder
