"""Streaming: the same chips as from the files, few bytes, nothing unchecked."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tidemark import ChipDataset, ChipLoader
from tidemark.datasets import stream
from tidemark.datasets.hub import pull
from tidemark.datasets.spec import Codec, canonical_json, load_manifest
from tidemark.datasets.stream import JOIN_GAP, chip_cache, joined
from tidemark.errors import ChecksumError, FormatError, HubError, InputError

ADDRESS = "hf://org/tiny@1.0.0"


@pytest.mark.parametrize("codec", get_args(Codec))
def test_streamed_chips_are_those_of_the_files(hub, tiny_dataset, codec):
    folder = tiny_dataset(chips=3, codec=codec)
    hub.publish_folder("org/tiny", folder, "v1.0.0")
    here, there = ChipDataset(folder, "train"), ChipDataset(ADDRESS, "train", stream=True)
    assert len(here) == len(there) == 6
    for a, b in zip(here, there, strict=True):
        assert a.keys() == b.keys() and a["chip_id"] == b["chip_id"]
        assert all(torch.equal(a[k], b[k]) for k in ("image", "mask", "valid", "transform"))


@pytest.mark.parametrize("codec", get_args(Codec))
@pytest.mark.parametrize("shape", [(2, 32, 32), (4, 128, 128)])
def test_one_label_per_chip_is_streamed_whatever_the_codec_of_the_images(hub, tiny_dataset, codec, shape):
    folder = tiny_dataset(kind="classification", classes=3, chips=3, codec=codec, shape=shape)
    hub.publish_folder("org/tiny", folder, "v1.0.0")
    here, there = ChipDataset(folder, "train"), ChipDataset(ADDRESS, "train", stream=True)
    for a, b in zip(here, there, strict=True):
        assert a["label"] == b["label"] and torch.equal(a["image"], b["image"])
    for a, b in zip(ChipLoader(folder, "train", 4), ChipLoader(ADDRESS, "train", 4), strict=True):
        assert torch.equal(a["label"], b["label"])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04junk"])
def test_a_sidecar_that_is_none_is_refused(hub, tiny_dataset, tmp_path, data):
    folder = shutil.copytree(tiny_dataset(chips=3), tmp_path / "copy")
    manifest = load_manifest(folder)
    digest = {"index_bytes": len(data), "index_sha256": hashlib.sha256(data).hexdigest()}
    shards = manifest.shards[0].model_copy(update=digest), *manifest.shards[1:]
    (folder / shards[0].index_path).write_bytes(data)
    (folder / "dataset.json").write_bytes(canonical_json(manifest.model_copy(update={"shards": shards})))
    hub.publish_folder("org/tiny", folder, "v1.0.0")
    message = r"org/tiny@1.0.0/train/train-0.idx: not a NumPy array file"
    with pytest.raises(FormatError, match=message):
        ChipDataset(ADDRESS, "train", stream=True)[0]
    with pytest.raises(FormatError, match=message):
        pull("org/tiny@1.0.0", tmp_path / "data", scenes=["train-0"])


def test_the_loader_streams_too(hub, published):
    files = ChipLoader(published, "train", 4, shuffle=True, seed=3)
    remote = ChipLoader(ADDRESS, "train", 4, shuffle=True, seed=3)
    for a, b in zip(files, remote, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_one_chip_moves_little_more_than_itself(hub, tiny_dataset):
    folder = tiny_dataset(chips=40, shape=(8, 128, 128))
    hub.publish_folder("org/tiny", folder, "v1.0.0")
    ChipDataset(ADDRESS, "train", stream=True)
    hub.sent = 0
    dataset = ChipDataset(ADDRESS, "train", stream=True)
    dataset[7]
    shard = next(folder.rglob("train-0.h5")).stat().st_size
    index = next(folder.rglob("train-0.idx")).stat().st_size
    assert hub.sent < 0.05 * shard + 2 * index


def test_a_chip_is_fetched_once(hub, published):
    first = ChipDataset(ADDRESS, "train", stream=True)[0]
    before = [path for _, path, _ in hub.requests if path.startswith("/cdn/")]
    again = ChipDataset(ADDRESS, "train", stream=True)[0]
    assert [path for _, path, _ in hub.requests if path.startswith("/cdn/")] == before
    assert torch.equal(first["image"], again["image"])


def test_wrong_bytes_are_refused_and_not_kept(hub, published):
    shard = next(published.rglob("train-0.h5")).read_bytes()
    digest = hashlib.sha256(shard).hexdigest()
    dataset = ChipDataset(ADDRESS, "train", stream=True)
    hub.fault = lambda method, path: {"body": bytes(len(shard))} if path == f"/cdn/{digest}" else None
    with pytest.raises((ChecksumError, FormatError), match="hf://org/tiny@1.0.0/train/train-0.h5, array image, chip 0"):
        dataset[0]
    assert not list(chip_cache().rglob("image-0"))
    hub.fault = lambda method, path: None
    assert torch.equal(dataset[0]["image"], ChipDataset(published, "train")[0]["image"])


def test_a_damaged_cache_is_noticed_and_mended(hub, published):
    dataset = ChipDataset(ADDRESS, "train", stream=True)
    right = dataset[0]["image"]
    cached = next(chip_cache().rglob("image-0"))
    cached.write_bytes(bytes(cached.stat().st_size))
    with pytest.raises((ChecksumError, FormatError)):
        dataset[0]
    assert torch.equal(dataset[0]["image"], right)


def test_an_address_that_has_expired_is_asked_for_anew(hub, published):
    dataset = ChipDataset(ADDRESS, "train", stream=True)
    dataset[0]
    answers = [403]
    hub.fault = lambda method, path: answers.pop() if method == "GET" and path.startswith("/cdn/") and answers else None
    assert torch.equal(dataset[1]["image"], ChipDataset(published, "train")[1]["image"]) and not answers


def test_a_server_that_ignores_ranges_is_refused(hub, published, monkeypatch):
    dataset = ChipDataset(ADDRESS, "train", stream=True)
    dataset.shards[0].open()
    monkeypatch.setattr(stream.Source, "_address", lambda self, fresh: f"{hub.url}/api/datasets/org/tiny")
    with pytest.raises(HubError, match=r"asked for \d+ bytes from \d+, got \d+ \(200\)"):
        dataset[0]


def test_a_dataset_can_be_pickled_to_workers(hub, published):
    dataset = ChipDataset(ADDRESS, "train", stream=True)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0]["image"], dataset[0]["image"])


def test_an_address_without_stream_and_a_folder_with_it_are_refused(hub, published):
    for root, flag in ((ADDRESS, False), (published, True)):
        with pytest.raises(InputError, match="stream=True"):
            ChipDataset(root, "train", stream=flag)


def test_download_pulls_the_split(hub, published, tmp_path):
    root = tmp_path / "data/tiny/1.0.0"
    dataset = ChipDataset(root, "val", download=True, repo="org/tiny")
    assert len(dataset) == 6 and not (root / "train").exists()
    before = len(hub.requests)
    assert len(ChipDataset(root, "val", download=True)) == 6 and len(hub.requests) == before  # it is here already
    assert len(ChipDataset(root, "train", download=True, repo="org/tiny")) == 6 and len(hub.requests) > before
    with pytest.raises(InputError, match="not known where to download it from"):
        ChipDataset(tmp_path / "data/none/1.0.0", "val", download=True)


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 100_000)), max_size=20))
def test_joined_ranges_hold_every_range_once_and_no_large_gap(pieces):
    ranges, at = [], 0
    for gap, size in pieces:
        ranges.append((at + gap, size))
        at += gap + size
    groups = joined(ranges)
    assert [n for *_, members in groups for n in members] == list(range(len(ranges)))
    for start, length, members in groups:
        covered = np.zeros(length, bool)
        for n in members:
            assert start <= ranges[n][0] and ranges[n][0] + ranges[n][1] <= start + length
            covered[ranges[n][0] - start : ranges[n][0] + ranges[n][1] - start] = True
        edges = np.flatnonzero(np.diff(np.concatenate([[1], covered, [1]]).astype(np.int8)))
        assert all(b - a <= JOIN_GAP for a, b in zip(edges[::2], edges[1::2], strict=True))
