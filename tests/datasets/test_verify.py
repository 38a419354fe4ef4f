"""Hostile or forgotten files beside the shards: each is named in one line, none is believed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tidemark.datasets import verbs
from tidemark.datasets.command import verify_command
from tidemark.datasets.manifest import content_sha256
from tidemark.datasets.spec import Array, canonical_json, load_manifest, parse_manifest
from tidemark.datasets.verify import verify
from tidemark.errors import FormatError, InputError


@pytest.fixture
def folder(tiny_dataset, tmp_path) -> Path:
    """A private copy of a small data set."""
    return Path(shutil.copytree(tiny_dataset(chips=2), tmp_path / "copy"))


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def huge() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    return file.getvalue()


def replace_index(folder: Path, data: bytes) -> None:
    """Another sidecar for the first shard, which the manifest vouches for."""
    raw = json.loads((folder / "dataset.json").read_bytes())
    entry = raw["shards"][0]
    (folder / entry["path"]).with_suffix(".idx").write_bytes(data)
    entry |= {"index_bytes": len(data), "index_sha256": hashlib.sha256(data).hexdigest()}
    (folder / "dataset.json").write_bytes(canonical_json(raw))


def index_rows(folder: Path) -> np.ndarray:
    return np.load(folder / load_manifest(folder).shards[0].index_path)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("field", ["chip_id", "scene", "window", "transform"])
def test_a_sidecar_that_states_other_metadata_than_its_shard_is_found(folder, field, deep):
    rows = index_rows(folder)
    rows[field][0] = b"forged" if field == "chip_id" else 1
    replace_index(folder, saved(rows))
    manifest = load_manifest(folder)
    content = content_sha256(folder, manifest, manifest.scenes, manifest.shards)
    (folder / "dataset.json").write_bytes(canonical_json(manifest.model_copy(update={"content_sha256": content})))
    (problem,) = verify(folder, deep).problems
    assert f"train-0.idx: {field} differ from the shard's" in problem


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a NumPy array file"),
        (b"PK\x03\x04junk", "not a NumPy array file"),
        (b"\x93NUMPY\x01\x00\x05\x00([{,\n", "not a NumPy array file"),
        (saved(np.float64(3)), "does not have the fields and rows"),
        (huge(), "does not have the fields and rows"),
    ],
)
def test_what_is_no_sidecar_is_named(folder, data, message):
    replace_index(folder, data)
    (problem,) = verify(folder).problems
    assert "train-0.idx" in problem and message in problem


def test_a_sidecar_with_fewer_rows_than_it_declares_is_named(folder):
    replace_index(folder, saved(index_rows(folder))[:-8])
    assert "2 chips take" in verify(folder).problems[0]


@pytest.mark.parametrize(("field", "value"), [("scene", 999), ("scene", -1), ("chip_id", b"\xff"), ("chip_id", b"one")])
def test_a_sidecar_with_impossible_metadata_is_named(folder, field, value):
    rows = index_rows(folder)
    rows[field] = value
    replace_index(folder, saved(rows))
    assert "train-0.idx: " + ("names a scene" if field == "scene" else "chip ids must be") in verify(folder).problems[0]


@pytest.mark.parametrize("text", ['"\\ud800"', "[" * 400 + "]" * 400])
def test_a_manifest_that_could_not_be_written_again_is_refused(folder, text):
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace('"parameters": {}', f'"parameters": {{"x": {text}}}'))
    with pytest.raises(FormatError, match="dataset.json: not a manifest"):
        load_manifest(folder)


@pytest.mark.parametrize("version", ["9" * 5000 + ".0", "1." + "0" * 7, "1.0\n", 1.0, None])
def test_what_is_no_format_version_is_refused(folder, version):
    raw = json.loads((folder / "dataset.json").read_bytes())
    with pytest.raises(FormatError, match="/format_version"):
        parse_manifest(raw | {"format_version": version})


def test_a_file_where_a_folder_is_expected_is_answered_with_what_to_give(folder, tmp_path):
    (tmp_path / "odd" / "dataset.json").mkdir(parents=True)
    for path in (folder / "dataset.json", Path("a" * 300), tmp_path / "odd"):
        with pytest.raises(FormatError, match="no manifest to read .*; give the folder"):
            load_manifest(path)


@pytest.mark.parametrize("text", ['{"a": 1}', '"x"', "5", "[[1]]", "", "[" * 100_000])
def test_what_is_no_list_of_shards_is_not_taken_for_one(folder, text):
    (folder / "partial.json").write_text(text)
    with pytest.raises(FormatError, match="partial.json: not a list of shards"):
        verify_command(folder, deep=False)


def test_an_array_cannot_take_the_name_of_the_metadata_checksum():
    with pytest.raises(ValueError, match="array name 'meta' is reserved"):
        Array(name="meta", dtype="uint8", shape=(4, 4), role="valid")


def test_a_scene_of_no_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="size must be .* found 0"):
        verbs.simulate(out=tmp_path, scenes=3, size=0, seed=0, product=None, val=None, test=None, wide=False)
