"""The map of the splits: scenes lie where their bounds say, in the colour of their split; the card shows it."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor
from tidemark.datasets.card import data_card
from tidemark.datasets.spec import Scene, load_manifest
from tidemark.datasets.split_map import COLORS, HEIGHTS, MAP_NAME, MARGINS, WIDTH, placed_scenes, split_map
from tidemark.datasets.verify import verify


@pytest.fixture(scope="module")
def manifest(tiny_dataset):
    return load_manifest(tiny_dataset())


def with_bounds(manifest, *bounds):
    """The manifest with one scene per split, in the order of the splits."""
    names = [split.name for split in manifest.splits]
    scenes = tuple(Scene(id=f"s{i}", split=names[i % 3], bounds=b) for i, b in enumerate(bounds))
    return manifest.model_copy(update={"scenes": scenes})


def pixels(manifest):
    return np.asarray(Image.open(io.BytesIO(split_map(manifest))))


def centre(image, color):
    """Row and column of the middle of what has a colour inside the frame."""
    frame = image[MARGINS["top"] : -MARGINS["bottom"], MARGINS["left"] : -MARGINS["right"]]
    rows, columns = np.nonzero((frame == ImageColor.getrgb(color)).all(-1))
    assert rows.size
    return (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2


def test_scenes_lie_where_their_bounds_say(manifest):
    image = pixels(with_bounds(manifest, (10.0, 50.0, 10.5, 50.5), (12.0, 50.0, 12.5, 50.5), (10.0, 52.0, 10.5, 52.5)))
    train, val, test = (centre(image, color) for color in COLORS[:3])
    assert train[0] == pytest.approx(val[0], abs=1) and train[1] == pytest.approx(test[1], abs=1)
    right, up = val[1] - train[1], train[0] - test[0]
    assert right > 0 and up > 0
    assert right / up == pytest.approx(np.cos(np.deg2rad(51.25)), rel=0.02)  # as wide and as high on the ground
    assert HEIGHTS[0] <= image.shape[0] - MARGINS["top"] - MARGINS["bottom"] <= HEIGHTS[1]
    assert image.shape[1] == WIDTH + MARGINS["left"] + MARGINS["right"]


def test_neighbours_across_the_antimeridian_stay_neighbours(manifest):
    across = with_bounds(
        manifest, (178.0, -20.0, 179.0, -19.0), (179.5, -20.0, -179.5, -19.0), (-179.0, -20.0, -178.0, -19.0)
    )
    boxes = [box for _, box in placed_scenes(across)]
    assert [round(box[0]) for box in boxes] == [178, 180, 181]
    columns = [centre(pixels(across), color)[1] for color in COLORS[:3]]
    assert columns == sorted(columns) and np.diff(columns) == pytest.approx([np.diff(columns).mean()] * 2, abs=2)


def test_the_same_manifest_gives_the_same_bytes_in_another_process(tiny_dataset):
    folder = tiny_dataset()
    code = (
        "import sys\nfrom tidemark.datasets.spec import load_manifest\n"
        "from tidemark.datasets.split_map import split_map\n"
        "sys.stdout.buffer.write(split_map(load_manifest(sys.argv[1]))); assert 'torch' not in sys.modules"
    )
    drawn = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, check=True).stdout
    assert drawn == (folder / MAP_NAME).read_bytes()


def test_a_built_data_set_has_its_map_and_verifies(tiny_dataset):
    folder = tiny_dataset()
    assert f"({MAP_NAME})" in (folder / "README.md").read_text() and not verify(folder).problems


def test_without_places_there_is_a_sentence_and_no_map(tiny_dataset):
    folder = tiny_dataset(name="nowhere", placed=False)
    assert split_map(load_manifest(folder)) is None and not (folder / MAP_NAME).exists()
    assert "There is no map of the splits" in (folder / "README.md").read_text()


def test_scenes_without_a_place_are_counted(manifest):
    card = data_card(with_bounds(manifest, (10.0, 50.0, 10.5, 50.5), None, (10.0, 52.0, 10.5, 52.5)))
    assert "bounds of 2 of 3 scenes" in card
