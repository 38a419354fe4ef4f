"""What changed between two versions, named and counted."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from tidemark.datasets.diff import changelog_entry, diff


def chip(rng, header, *, water=0, level=0):
    """A flat chip whose first ``water`` pixels are water."""
    image, label = header.arrays[0], header.label_array
    mask = np.zeros(label.shape, np.uint8)
    mask.ravel()[:water] = 1
    values = rng.integers(0, 100, image.shape) + level
    return {image.name: values.astype(image.dtype), label.name: mask}


@pytest.fixture
def first(tiny_dataset):
    return tiny_dataset(name="d", version="1.0.0", chips=2, shape=(1, 192, 192), make=chip)


def test_a_version_is_the_same_as_itself(first):
    found = diff(first, first)
    assert found.same and found.same_splits == ("train", "val", "test") and found.changed_splits == ()


def test_the_codec_changes_nothing(first, tiny_dataset):
    other = tiny_dataset(name="d", version="1.0.0", chips=2, shape=(1, 192, 192), make=chip, codec="gzip")
    assert diff(first, other).same


def test_label_changes_are_counted_by_class(first, tiny_dataset):
    def wetter(rng, header):
        return chip(rng, header, water=30)

    found = diff(first, tiny_dataset(name="d", version="2.0.0", chips=2, shape=(1, 192, 192), make=wetter))
    assert found.labels == {"class 0 → class 1": 30 * 12} and len(found.relabelled) == 12 and found.pixels == ()
    assert found.changed_splits == ("train", "val", "test")
    assert "- label class 0 → class 1: 360" in found.text()


def test_pixel_changes_are_told_from_label_changes(first, tiny_dataset):
    def brighter(rng, header):
        return chip(rng, header, level=1)

    found = diff(first, tiny_dataset(name="d", version="2.0.0", chips=2, shape=(1, 192, 192), make=brighter))
    assert len(found.pixels) == 12 and found.relabelled == () and found.labels == {}


def test_added_and_removed_chips_leave_the_other_splits_valid(first, tiny_dataset):
    counts = {"train": 3, "val": 2, "test": 1}
    found = diff(first, tiny_dataset(name="d", version="2.0.0", chips=counts, shape=(1, 192, 192), make=chip))
    assert found.added == ("train-0-002", "train-1-002") and found.removed == ("test-0-001", "test-1-001")
    assert found.same_splits == ("val",) and found.changed_splits == ("train", "test")
    entry = changelog_entry(found)
    assert entry.startswith("## 2.0.0 (after 1.0.0)\n\n- 2 chips added: train-0-002") and "carry over" in entry


def test_other_classes_make_every_score_invalid(first, tiny_dataset):
    found = diff(first, tiny_dataset(name="d", version="2.0.0", chips=2, shape=(1, 192, 192), make=chip, classes=3))
    assert "task" in found.described and found.same_splits == ()


def test_the_command_prints_text_and_json(first, tiny_dataset):
    other = tiny_dataset(name="d", version="2.0.0", chips={"train": 3}, shape=(1, 192, 192), make=chip)
    command = [sys.executable, "-m", "tidemark", "diff", str(first), str(other)]
    assert "removed: val-0-000" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert told["versions"] == ["1.0.0", "2.0.0"] and len(told["removed"]) == 8
