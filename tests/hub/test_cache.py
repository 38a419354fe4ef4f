"""What the cache holds is shown, and goes on request; pulled data sets stay."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants
from tidemark import ChipDataset
from tidemark.datasets.hub import pull
from tidemark.datasets.hub_command import cache_command
from tidemark.datasets.stream import chip_cache
from tidemark.datasets.verify import verify


def test_the_cache_is_shown_and_cleaned_and_the_data_set_stays(hub, published, tmp_path, capsys):
    folder = pull("org/tiny@1.0.0", tmp_path / "data")
    ChipDataset("hf://org/tiny@1.0.0", "train", stream=True)[0]
    cache_command(clean=False)
    shown = capsys.readouterr().out
    assert "MB  dataset org/tiny" in shown and "MB  streamed chips" in shown
    assert list(Path(constants.HF_HUB_CACHE).rglob("*.h5"))
    cache_command(clean=True)
    assert "removed; data sets under the data root stay" in capsys.readouterr().out
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.h5")) and not chip_cache().exists()
    assert verify(folder, deep=True).problems == ()


def test_an_empty_cache_is_no_error(hub, capsys):
    cache_command(clean=True)
    assert "0.0 MB  streamed chips" in capsys.readouterr().out
