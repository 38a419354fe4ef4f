"""The named data sets: found by name, version and variant; nothing else is taken for them."""

import shutil

import pytest
from tidemark.datasets import published
from tidemark.datasets.build import list_builders
from tidemark.errors import InputError
from torchgeo.datasets import DatasetNotFoundError

CLASSES = published.PublishedDataset.__subclasses__()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
def test_a_named_data_set_has_a_builder_and_says_what_it_holds(kind):
    assert kind.name in list_builders()
    for heading in ("Dataset features:", "Dataset format:", "If you use this dataset"):
        assert heading in kind.__doc__


def test_every_builder_but_custom_has_its_class():
    assert sorted([*(kind.name for kind in CLASSES), "custom"]) == list_builders()


def test_a_variant_is_a_data_set_of_its_own(tiny_dataset, tmp_path):
    folder = tiny_dataset(name="tibet-water-sim")
    root = folder.parent.parent
    assert len(published.TibetWater(root, "train", variant="sim")) > 0
    with pytest.raises(DatasetNotFoundError):
        published.TibetWater(root, "train")
    shutil.copytree(folder, tmp_path / "tibet-water" / "1.0.0")
    with pytest.raises(InputError, match="expected tibet-water 1.0.0, found tibet-water-sim 1.0.0"):
        published.TibetWater(tmp_path, "train")
