"""Pulling through the real client: what arrives is what was published, or nothing is used."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants
from tidemark.configs import make_config
from tidemark.datasets import hub as client
from tidemark.datasets.hub import LOCK_NAME, pull
from tidemark.datasets.hub_reference import parse_reference
from tidemark.datasets.loader import ChipLoader
from tidemark.datasets.reader import PARTIAL_NAME
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.errors import ChecksumError, FormatError, HubError, InputError, StorageError
from tidemark.models.runs import read_run
from tidemark.models.train import train


def shards(hub, requests=None):
    return [path for method, path, _ in requests or hub.requests if method == "GET" and path.startswith("/cdn/")]


def test_a_pulled_data_set_is_the_published_one(hub, published, tmp_path):
    folder = pull("org/tiny@1.0.0", tmp_path / "data")
    assert folder == tmp_path / "data/tiny/1.0.0"
    assert verify(folder, deep=True).problems == ()
    for path in published.rglob("*.h5"):
        assert (folder / path.relative_to(published)).read_bytes() == path.read_bytes()
    assert sum(len(batch["image"]) for batch in ChipLoader(folder, "train", 4)) == 6


def test_a_pulled_data_set_trains(hub, tiny_dataset, tmp_path):
    patches = tiny_dataset(name="patches", kind="classification", classes=3, shape=(2, 32, 32), dtype="uint8", chips=12)
    hub.publish_folder("org/patches", patches, "v1.0.0")
    pull("org/patches", tmp_path / "data")
    settings = {"DATA.ROOT": tmp_path / "data", "DATA.NAME": "patches", "OUTPUT": tmp_path / "runs"}
    settings |= {"MODEL.NAME": "patch-cnn", "MODEL.ARGS": "{width: 4, hidden: 16}", "TRAIN.EPOCHS": 1}
    settings |= {"TRAIN.DEVICE": "cpu", "TRAIN.THREADS": 1}
    run = train(make_config({}, [str(part) for pair in settings.items() for part in pair]), progress=False)
    assert read_run(run).dataset.content_sha256 == load_manifest(patches).content_sha256


def test_the_newest_version_is_meant_where_none_is_named(hub, published, tmp_path, tiny_dataset):
    newer = tiny_dataset(version="1.10.0", chips=1)
    hub.publish_folder("org/tiny", newer, "v1.10.0")
    hub.repo("org/tiny").tags["v1.9.0"] = hub.repo("org/tiny").tags["v1.0.0"]
    assert pull("org/tiny", tmp_path / "data").name == "1.10.0"


def test_the_lock_names_the_commit_and_a_moved_tag_is_an_error(hub, published, tmp_path):
    pull("org/tiny@1.0.0", tmp_path)
    lock = json.loads((tmp_path / LOCK_NAME).read_text())["org/tiny@1.0.0"]
    assert lock["commit"] == hub.repo("org/tiny").tags["v1.0.0"]
    assert lock["content_sha256"] == load_manifest(published).content_sha256
    hub.repo("org/tiny").tags["v1.0.0"] = hub.repo("org/tiny").commit({"dataset.json": b"{}"})
    with pytest.raises(HubError, match=r"tag v1.0.0 has moved: locked at \w{12}, now at \w{12}"):
        pull("org/tiny@1.0.0", tmp_path)


def test_a_second_pull_moves_no_shard_again(hub, published, tmp_path):
    pull("org/tiny@1.0.0", tmp_path)
    before = len(shards(hub))
    pull("org/tiny@1.0.0", tmp_path)
    assert before == 12 and len(shards(hub)) == before


def test_only_the_wanted_split_comes_and_the_rest_is_said_to_be_missing(hub, published, tmp_path):
    folder = pull("org/tiny@1.0.0", tmp_path, splits=["val"])
    assert len(list(folder.rglob("*.h5"))) == 2 and (folder / PARTIAL_NAME).exists()
    assert len(ChipLoader(folder, "val", 3)) == 2
    with pytest.raises(FormatError, match="0 of the 2 shards of split 'train' are here; pull the split"):
        ChipLoader(folder, "train", 3)
    assert verify(folder, deep=True).problems == ()
    pull("org/tiny@1.0.0", tmp_path)
    assert not (folder / PARTIAL_NAME).exists() and len(ChipLoader(folder, "train", 3)) == 2


def test_a_scene_or_a_box_brings_its_shards_alone(hub, published, tmp_path):
    folder = pull("org/tiny@1.0.0", tmp_path / "a", scenes=["train-1"])
    assert [p.stem for p in folder.rglob("*.h5")] == ["train-1"]
    with pytest.raises(FormatError, match="1 of the 2 shards"):  # a training must not run on half a split unnoticed
        ChipLoader(folder, "train", 3)
    assert len(list(pull("org/tiny@1.0.0", tmp_path / "b", bounds=(-51, 64, -50.5, 64.5)).rglob("*.h5"))) == 6
    with pytest.raises(InputError, match="no chip lies there"):
        pull("org/tiny@1.0.0", tmp_path / "c", bounds=(10, 10, 11, 11))
    with pytest.raises(InputError, match="no scene 'nowhere'"):
        pull("org/tiny@1.0.0", tmp_path / "c", scenes=["nowhere"])


def test_right_size_with_wrong_bytes_is_quarantined_and_fetched_anew(hub, published, tmp_path):
    path = next(published.rglob("train-0.h5"))
    digest, data = hashlib.sha256(path.read_bytes()).hexdigest(), path.read_bytes()
    wrong = bytes([data[0] ^ 1]) + data[1:]
    hub.fault = lambda method, where: {"body": wrong} if where == f"/cdn/{digest}" else None
    with pytest.raises(ChecksumError, match=f"expected sha256 {digest}, found sha256 .*quarantined and not used"):
        pull("org/tiny@1.0.0", tmp_path / "data")
    assert not (tmp_path / "data/tiny/1.0.0/train/train-0.h5").exists()
    assert not (tmp_path / "data/tiny/1.0.0/dataset.json").exists()  # so nothing can be read from the half of it
    hub.fault = lambda method, where: None
    assert verify(pull("org/tiny@1.0.0", tmp_path / "data"), deep=True).problems == ()


def test_a_dropped_connection_resumes_at_its_byte(hub, published, tmp_path):
    path = next(published.rglob("train-0.h5"))
    digest, size = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    drops = [size // 2]
    hub.fault = lambda method, where: (
        {"drop_after": drops.pop()} if method == "GET" and where == f"/cdn/{digest}" and drops else None
    )
    folder = pull("org/tiny@1.0.0", tmp_path, splits=["train"])
    ranges = [r for method, where, r in hub.requests if method == "GET" and where == f"/cdn/{digest}"]
    assert ranges[0] is None and ranges[1].startswith("bytes=") and 0 < int(ranges[1][6:].rstrip("-")) <= size // 2
    assert verify(folder).problems == ()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (401, r"access token is missing, wrong or expired \(401\)|no such repository, or it is private"),
        (403, r"does not allow this \(403\)"),
        ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, r"no such repository, or it is private \(404\)"),
        ({"status": 404, "headers": {"X-Error-Code": "RevisionNotFound"}}, r"no such version or revision \(404\)"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, r"too many requests \(429\); try again in 7 s"),
        (500, r"a fault of its own \(500\)"),
    ],
)
def test_each_refusal_says_something_else(hub, published, tmp_path, fault, message):
    hub.fault = lambda method, path: fault if "/revision/" in path else None
    with pytest.raises(HubError, match=message) as caught:
        pull("org/tiny@1.0.0", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_expired_token_is_called_so(hub, published, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(HubError, match=r"missing, wrong or expired \(401\); `hf auth login`, or set HF_TOKEN"):
        pull("org/tiny@1.0.0", tmp_path)


def test_a_missing_file_is_named(hub, published, tmp_path):
    commit = hub.repo("org/tiny").tags["v1.0.0"]
    del hub.repo("org/tiny").commits[commit]["val/val-1.h5"]
    with pytest.raises(HubError, match=r"org/tiny@1.0.0/val/val-1.h5: a file is missing in the repository \(404\)"):
        pull("org/tiny@1.0.0", tmp_path)


def test_a_full_disk_is_noticed_before_anything_is_fetched(hub, published, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(client.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"\d+\.\d MB are needed, 0\.0 MB are free"):
        pull("org/tiny@1.0.0", tmp_path)
    assert shards(hub) == []


def test_offline_a_complete_cache_is_enough_and_an_incomplete_one_is_listed(hub, published, tmp_path, monkeypatch):
    pull("org/tiny@1.0.0", tmp_path / "data", splits=["train"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    (tmp_path / "data/tiny/1.0.0/train/train-0.h5").unlink()
    folder = pull("org/tiny", tmp_path / "data", splits=["train"])
    assert len(ChipLoader(folder, "train", 3)) == 2
    with pytest.raises(HubError, match=r"offline, and 4 of 4 files are not in the cache: val/val-0.h5, val/val-0.idx"):
        pull("org/tiny@1.0.0", tmp_path / "data", splits=["val"])
    assert len(hub.requests) == before
    with pytest.raises(HubError, match="offline, and it was never pulled here"):
        pull("org/other@1.0.0", tmp_path / "data")


def test_a_manifest_with_a_path_that_leaves_the_folder_is_refused(hub, published, tmp_path):
    commit = hub.repo("org/tiny").tags["v1.0.0"]
    files = hub.repo("org/tiny").commits[commit]
    text = files["dataset.json"].decode().replace("train/train-0.h5", "../../evil.h5")
    files["dataset.json"] = text.encode()
    with pytest.raises(FormatError, match=r"/shards/\d+/path"):
        pull("org/tiny@1.0.0", tmp_path / "data")
    assert not list(tmp_path.rglob("evil*"))


def test_the_manifest_of_another_version_is_refused(hub, published, tmp_path):
    hub.repo("org/tiny").tags["v2.0.0"] = hub.repo("org/tiny").tags["v1.0.0"]
    with pytest.raises(FormatError, match=r"org/tiny@2.0.0: its manifest is that of tiny 1.0.0"):
        pull("org/tiny@2.0.0", tmp_path)


@pytest.mark.parametrize("text", ["tiny", "org/tiny@latest", "../x/y", "org/ti ny", "https://hub/org/tiny", ""])
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(InputError, match="not of the form ORG/NAME"):
        parse_reference(text)


def test_the_command_respects_the_endpoint_of_the_environment(hub, published, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "tidemark", "pull", "org/tiny@1.0.0", "--out", str(tmp_path / "data")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("data/tiny/1.0.0")
    done = subprocess.run(
        [*command[:4], "org/none@1.0.0"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr and "no such repository" in done.stderr
